//! Layers, and the errors that name the layer.
//!
//! The layers are laid over each other as TOML tables and read as one. To name the culprit, the file is read alone
//! first (serde's error then has a place in the text), and each variable or flag is tried as it is laid on.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Origin};
use crate::nearest::nearest;

/// All variables of ours start so; a double underscore separates levels.
const PREFIX: &str = "STANDFAST_";

/// Collects the layers.
#[derive(Debug, Default)]
pub struct Loader {
    file: Option<(PathBuf, String)>,
    settings: Vec<Setting>,
}

/// One key said outside the file.
#[derive(Debug)]
struct Setting {
    origin: Origin,
    key: Vec<String>,
    value: String,
}

impl Loader {
    /// No layer yet: only defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(mut self, path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        self.file = Some((path.to_owned(), text));
        Ok(self)
    }

    /// A file's text that is already here; `name` is what errors call it.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.file = Some((PathBuf::from(name), text.to_owned()));
        self
    }

    /// Takes every `STANDFAST_…` variable but those `reserved`, which the command line reads itself.
    #[must_use]
    pub fn environment(
        mut self,
        variables: impl Iterator<Item = (String, String)>,
        reserved: &[&str],
    ) -> Self {
        let mut ours: Vec<_> = variables
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_ascii_lowercase(), name, value)))
            .filter(|(_, name, _)| !reserved.contains(&name.as_str()) && !is_service_link(name))
            .collect();
        ours.sort();
        self.settings.extend(ours.into_iter().map(|(key, name, value)| Setting {
            origin: Origin::Variable(name),
            key: key.split("__").map(str::to_owned).collect(),
            value,
        }));
        self
    }

    /// A flag that stands for the dotted `key`.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: &str, value: impl Into<String>) -> Self {
        self.settings.push(Setting {
            origin: Origin::Flag(flag.to_owned()),
            key: key.split('.').map(str::to_owned).collect(),
            value: value.into(),
        });
        self
    }

    /// The whole, read as `T`. Ranges are checked by `T`'s own `validate`.
    ///
    /// # Errors
    /// The first thing that is wrong, file first.
    pub fn load<T: Serialize + DeserializeOwned + Default>(&self) -> Result<T, Error> {
        let mut table = match &self.file {
            None => Table::new(),
            Some((path, text)) => {
                let table: Table = text.parse().map_err(|error| syntax(path, text, &error))?;
                toml::from_str::<T>(text).map_err(|error| in_file(path, text, &error))?;
                table
            }
        };
        let defaults = Table::try_from(T::default()).unwrap_or_default();
        for setting in &self.settings {
            table = setting.laid_over::<T>(&table, &defaults)?;
        }
        Value::Table(table).try_into().map_err(|error: toml::de::Error| Error::Invalid {
            origin: Origin::Flag("(all)".to_owned()),
            key: String::new(),
            value: String::new(),
            detail: one_line(error.message()),
        })
    }
}

/// Kubernetes gives each pod variables for each service: one called `standfast` makes `STANDFAST_SERVICE_HOST`,
/// `STANDFAST_PORT` … They are not meant for us.
fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    !rest.contains("__") && (rest == "PORT" || rest.contains("SERVICE_") || rest.contains("PORT_"))
}

impl Setting {
    fn laid_over<T: DeserializeOwned>(&self, table: &Table, defaults: &Table) -> Result<Table, Error> {
        let mut first_error = None;
        for value in self.readings(defaults) {
            let mut laid = table.clone();
            let placed = place(&mut laid, &self.key, value);
            match placed.then(|| Value::Table(laid.clone()).try_into::<T>()) {
                Some(Ok(_)) => return Ok(laid),
                Some(Err(error)) => first_error = first_error.or(Some(error.message().to_owned())),
                None => {}
            }
        }
        let message = first_error.unwrap_or_else(|| "it is inside a setting that is not a table".to_owned());
        Err(explain(self.origin.clone(), &self.key.join("."), &self.value, &message))
    }

    /// What the text may mean: by the type of the default if there is one; else TOML, else the text itself.
    fn readings(&self, defaults: &Table) -> Vec<Value> {
        let text = || Value::String(self.value.clone());
        let as_toml = || {
            let line = format!("value = {}", self.value);
            line.parse::<Table>().ok().and_then(|mut table| table.remove("value"))
        };
        match find(defaults, &self.key) {
            Some(Value::String(_)) => vec![text()],
            _ => as_toml().into_iter().chain([text()]).collect(),
        }
    }
}

fn find<'a>(table: &'a Table, key: &[String]) -> Option<&'a Value> {
    let (last, parents) = key.split_last()?;
    let parent = parents.iter().try_fold(table, |table, word| table.get(word)?.as_table())?;
    parent.get(last)
}

/// False if a parent of the key is no table.
fn place(table: &mut Table, key: &[String], value: Value) -> bool {
    let Some((last, parents)) = key.split_last() else { return false };
    let mut here = table;
    for word in parents {
        let below = here.entry(word.clone()).or_insert_with(|| Value::Table(Table::new()));
        match below.as_table_mut() {
            Some(below) => here = below,
            None => return false,
        }
    }
    here.insert(last.clone(), value);
    true
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let origin = Origin::File(path.to_owned(), line_of(text, error));
    Error::Syntax { origin, detail: one_line(error.message()) }
}

fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    text[..text.floor_char_boundary(start)].matches('\n').count() + 1
}

/// serde tells the place in the text; the key is the assignment on that line, under the header above it.
fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let number = line_of(text, error);
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let is_header = |line: &&str| line.starts_with('[') && line.trim_end().ends_with(']');
    let header = text.lines().take(number).map(str::trim).filter(is_header).last();
    let section = header.map(|line| line.trim_matches(['[', ']']).trim()).unwrap_or_default();
    let (key, value) = match line.split_once('=') {
        Some((key, value)) if !is_header(&line) => (key.trim(), value.trim()),
        _ => ("", ""),
    };
    let dotted = [section, key].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
    explain(Origin::File(path.to_owned(), number), &dotted, value, error.message())
}

/// Turns serde's words into ours: "unknown field `a`, expected one of `b`, `c`".
fn explain(origin: Origin, key: &str, value: &str, message: &str) -> Error {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (Some(rest), Some((unknown, known))) = (message.strip_prefix("unknown field"), quoted.split_first())
    else {
        let detail = with_example(value, &one_line(message));
        return Error::Invalid { origin, key: key.to_owned(), value: shorten(value), detail };
    };
    debug_assert!(rest.contains(unknown), "the first word in quotes is the unknown one");
    // The key may name a level above the unknown one (an inline table), or be the unknown one itself.
    let parent = match key.split('.').position(|word| word == *unknown) {
        Some(at) => key.split('.').take(at).collect::<Vec<_>>().join("."),
        None => key.to_owned(),
    };
    let dotted = |word: &str| if parent.is_empty() { word.to_owned() } else { format!("{parent}.{word}") };
    let nearest = nearest(unknown, known.iter().copied()).map(dotted);
    Error::Unknown { origin, key: dotted(unknown), nearest }
}

/// Serde's messages may run over several lines, and call a range by the name of a type.
fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((said, kind)) = line.rsplit_once("expected ") else { return line };
    let range = match kind {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 on",
        "f32" | "f64" => "a number",
        _ => return line,
    };
    format!("{said}expected {range}")
}

/// The standard library says that an address is wrong, and not how one is written.
fn with_example(value: &str, detail: &str) -> String {
    let value = value.trim_matches(['"', '\'', '[', ']', ' ']);
    let port = value.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let is_of = |kind: &str| {
        detail == format!("invalid {kind} syntax") || detail.ends_with(&format!("expected {kind}"))
    };
    if is_of("socket address") {
        let port = port.unwrap_or(8080);
        return format!(
            "use an IP address and a port: 127.0.0.1:{port} or [::1]:{port} for this machine alone, [::]:{port} for all \
             interfaces, IPv4 and IPv6"
        );
    }
    if is_of("IP address") {
        return "use an address or a network: 192.0.2.7, 10.0.0.0/8, 2001:db8::/32".to_owned();
    }
    detail.to_owned()
}

/// A value may be a secret file pasted by mistake: show its beginning only.
fn shorten(value: &str) -> String {
    let cut = value.floor_char_boundary(80);
    if cut == value.len() { value.to_owned() } else { format!("{}…", &value[..cut]) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        node: Option<String>,
        jobs: Jobs,
        app: App,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Jobs {
        lease_ms: u64,
        roots: Vec<String>,
        label: String,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct App {
        listen: Option<String>,
        workers: Option<u32>,
    }

    impl Default for Jobs {
        fn default() -> Self {
            Self { lease_ms: 5000, roots: vec![], label: String::new() }
        }
    }

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn refused(loader: &Loader) -> String {
        let text = loader.load::<Whole>().expect_err("it is wrong").to_string();
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        text
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        assert_eq!(Loader::new().load::<Whole>().unwrap(), Whole::default());
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let file = "[jobs]\nlease_ms = 1\nroots = ['/a']\n[app]\nlisten = 'file'\nworkers = 1\n";
        let environment = [
            ("STANDFAST_JOBS__LEASE_MS", "2"),
            ("STANDFAST_APP__LISTEN", "127.0.0.1:80"),
            ("STANDFAST_APP__WORKERS", "2"),
            ("STANDFAST_JOBS__LABEL", "42"),
            ("STANDFAST_LOG", "not ours"),
            ("STANDFAST_SERVICE_HOST", "10.0.0.1"),
            ("STANDFAST_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("HOME", "/root"),
        ];
        let whole: Whole = Loader::new()
            .text("standfast.toml", file)
            .environment(variables(&environment), &["STANDFAST_LOG"])
            .flag("--workers", "app.workers", "3")
            .load()
            .unwrap();
        assert_eq!(whole.jobs, Jobs { lease_ms: 2, roots: vec!["/a".into()], label: "42".into() });
        assert_eq!(whole.app, App { listen: Some("127.0.0.1:80".into()), workers: Some(3) });
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let text =
            refused(&Loader::new().text("standfast.toml", "node = 'x'\n\n[jobs]\n# comment\nlaese_ms = 1\n"));
        assert_eq!(text, "standfast.toml:5: jobs.laese_ms is not a setting; did you mean jobs.lease_ms?");
        let text = refused(&Loader::new().text("standfast.toml", "[jbos]\nlease_ms = 1\n"));
        assert_eq!(text, "standfast.toml:1: jbos is not a setting; did you mean jobs?");
        let text = refused(&Loader::new().environment(variables(&[("STANDFAST_JOBS__LEASE_SM", "1")]), &[]));
        let named = "environment variable STANDFAST_JOBS__LEASE_SM: jobs.lease_sm is not a setting";
        assert_eq!(text, format!("{named}; did you mean jobs.lease_ms?"));
        let text = refused(&Loader::new().environment(variables(&[("STANDFAST_TOTALLY__OTHER", "1")]), &[]));
        assert_eq!(text, "environment variable STANDFAST_TOTALLY__OTHER: totally is not a setting");
    }

    #[test]
    fn a_value_of_another_type_is_named_with_its_key() {
        let text = refused(&Loader::new().text("standfast.toml", "[jobs]\nlease_ms = 'long'\n"));
        assert!(text.starts_with("standfast.toml:2: jobs.lease_ms = 'long': invalid type"), "{text}");
        let text = refused(&Loader::new().flag("--lease", "jobs.lease_ms", "-1"));
        assert!(text.starts_with("flag --lease: jobs.lease_ms = -1: "), "{text}");
        let text = refused(&Loader::new().flag("--lease", "node.name", "x"));
        assert!(text.starts_with("flag --lease: node.name = x: "), "{text}");
    }

    #[test]
    fn an_address_that_cannot_be_read_is_answered_with_one_that_can() {
        #[derive(Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        struct Tier {
            listen: Option<std::net::SocketAddr>,
            trusted: Vec<std::net::IpAddr>,
        }
        let said = |loader: Loader| loader.load::<Tier>().expect_err("it is wrong").to_string();
        for (value, words) in [
            ("8085", "127.0.0.1:8085 or [::1]:8085 for this machine alone, [::]:8085"),
            (":8085", "127.0.0.1:8085"),
            ("localhost:99", "127.0.0.1:99"),
            ("here", "127.0.0.1:8080"),
        ] {
            let text = said(Loader::new().flag("--listen", "listen", value));
            assert!(
                text.starts_with(&format!("flag --listen: listen = {value}: use an IP address")),
                "{text}"
            );
            assert!(text.contains(words), "{text}");
            let text = said(Loader::new().text("s.toml", &format!("listen = \"{value}\"\n")));
            assert!(text.contains(words), "{text}");
        }
        let text = said(Loader::new().text("s.toml", "trusted = ['ten.zero']\n"));
        assert!(
            text.ends_with("use an address or a network: 192.0.2.7, 10.0.0.0/8, 2001:db8::/32"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_toml_and_what_cannot_be_read_is_said_in_a_line() {
        let text = refused(&Loader::new().text("standfast.toml", "[jobs]\nlease_ms = = 1\n"));
        assert!(text.starts_with("standfast.toml:2: not TOML: "), "{text}");
        let directory = tempfile::tempdir().unwrap();
        let error = Loader::new().file(&directory.path().join("none.toml")).expect_err("there is no file");
        assert!(error.to_string().contains("none.toml: No such file"), "{error}");
    }
}
