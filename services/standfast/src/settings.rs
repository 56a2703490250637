//! The whole configuration: the sections of all tiers, composed and checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::chain;
use crate::failure::{Failure, Outcome};

/// Variables that the command line reads itself, or that are for its clients.
const RESERVED: &[&str] = &[
    "STANDFAST_BUS",
    "STANDFAST_CONFIG",
    "STANDFAST_DATA",
    "STANDFAST_NODE",
    "STANDFAST_LISTEN",
    "STANDFAST_INSTANCE",
    "STANDFAST_ADVERTISE",
    "STANDFAST_LOG",
    "STANDFAST_URL",
    "STANDFAST_CONSOLE_URL",
    "STANDFAST_DATABASE_URL",
    "STANDFAST_EDGE_TOKEN",
];

/// Everything that can be set. `infra/config/standfast.toml` lists every key with its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Directory that keeps everything. Default `./standfast-data`.
    pub data: PathBuf,
    /// Name of this node, unique in the stack, 1 to 63 of `a-z 0-9 - _`. Default: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// After SIGTERM, how long what is in flight may take to finish before it is cut off, in milliseconds. Default
    /// 30,000, 0 to 600,000. Keep it below what the container runtime waits before it kills.
    pub drain_ms: u64,
    /// What `standfast up` starts.
    pub stack: Stack,
    /// Log.
    pub telemetry: telemetry::Config,
    /// Bus.
    pub bus: bus::BusConfig,
    /// Discovery.
    pub discovery: discovery::Config,
    /// Replicas of the database. `instance` and `data_dir` follow from the instance started and from `data`.
    pub database: database::Config,
    /// HTTP API of jobs.
    pub app: app::Config,
    /// Runner of jobs.
    pub jobs: jobs::Config,
    /// Operating API and live page.
    pub console: console::Config,
    /// Web server.
    pub web: web::Config,
    /// Load balancer.
    pub balancer: balancer::Config,
    /// CDN edge, the front door.
    pub edge: edge::Config,
}

/// What `standfast up` starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stack {
    /// Database replicas. Default 3, 1 to 9. One replica survives no loss of its disk.
    pub databases: u32,
    /// App servers. Default 1, 1 to 16; those after the first take a free port.
    pub apps: u32,
    /// Job runners. Default 1, 0 to 16.
    pub runners: u32,
    /// Web servers. Default 1, 0 to 16. Without one the balancers reach the app servers directly.
    pub webs: u32,
    /// Load balancers. Default 2, a pair; 0 to 16. Without one the edges have no origin but
    /// those that `[edge]` names.
    pub balancers: u32,
    /// Points of presence of the edge. Default 2, 0 to 16; the first one is the front door.
    pub edges: u32,
}

impl Default for Stack {
    fn default() -> Self {
        Self { databases: 3, apps: 1, runners: 1, webs: 1, balancers: 2, edges: 2 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::from("standfast-data"),
            node: None,
            drain_ms: 30_000,
            stack: Stack::default(),
            telemetry: telemetry::Config::default(),
            bus: bus::BusConfig::default(),
            discovery: discovery::Config::default(),
            database: database::Config::default(),
            app: app::Config::default(),
            jobs: jobs::Config::default(),
            console: console::Config::default(),
            web: web::Config::default(),
            balancer: balancer::Config::default(),
            edge: edge::Config::default(),
        }
    }
}

/// Where a node's settings come from, so that they can be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    file: Option<PathBuf>,
    flags: Vec<(&'static str, String, String)>,
}

impl Source {
    /// The environment, and the file if there is one.
    pub fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), flags: Vec::new() }
    }

    /// A flag that stands for `key`, if it was given.
    #[must_use]
    pub fn flag(mut self, flag: &'static str, key: &str, value: Option<&str>) -> Self {
        self.flags.extend(value.map(|value| (flag, key.to_owned(), value.to_owned())));
        self
    }

    /// Reads file, environment and flags, and checks every range.
    ///
    /// # Errors
    /// The first thing that is wrong: where, key, value, range.
    pub fn load(&self) -> Outcome<Settings> {
        let mut loader = config::Loader::new();
        if let Some(file) = &self.file {
            loader = loader.file(file)?;
        }
        loader = loader.environment(std::env::vars(), RESERVED);
        for (flag, key, value) in &self.flags {
            loader = loader.flag(flag, key, value);
        }
        let settings: Settings = loader.load()?;
        settings.validate().map_err(Failure::config)?;
        Ok(settings)
    }

    /// The same, with what follows from it and from the host.
    ///
    /// # Errors
    /// As [`Source::load`].
    pub fn for_this_host(&self) -> Outcome<Settings> {
        let mut settings = self.load()?;
        chain::follow(&mut settings);
        if settings.bus.data_dir == bus::BusConfig::default().data_dir {
            settings.bus.data_dir = settings.data.join("bus");
        }
        if settings.discovery.host.is_none() {
            settings.discovery.host =
                nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
        }
        Ok(settings)
    }
}

impl Settings {
    /// All of it as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings have a TOML form: they were read from it")
    }

    /// What is well-formed and will not work on this machine: files that are not there, pools without anybody, two
    /// listeners at one address. `check-config` refuses it; a node says it and goes on, because a disk may be mounted later.
    pub fn look(&self) -> Vec<String> {
        let mut troubles = self.web.troubles();
        troubles.extend(self.balancer.troubles());
        troubles.extend(self.edge.troubles());
        troubles.extend(self.shared_addresses());
        for root in &self.jobs.roots {
            if let Err(error) = std::fs::read_dir(root) {
                troubles.push(format!("jobs.roots = \"{}\": {error}", root.display()));
            }
        }
        for (name, command) in &self.jobs.commands {
            let program = command.argv.first().map(Path::new).filter(|program| program.is_absolute());
            if let Some(program) = program.filter(|program| !program.is_file()) {
                let program = program.display();
                troubles.push(format!("jobs.commands.{name}.argv: there is no program {program}"));
            }
        }
        troubles
    }

    /// Says in the log what [`look`](Self::look) finds.
    pub fn tell_troubles(&self) {
        self.look().iter().for_each(|trouble| tracing::warn!(trouble, "a setting will not work as it is"));
    }

    /// Listeners of one process that cannot both be had. Port 0 is a free one each time.
    fn shared_addresses(&self) -> Vec<String> {
        let mut all: Vec<(String, SocketAddr)> = vec![
            ("edge.listen".to_owned(), self.edge.listen),
            ("balancer.listen".to_owned(), self.balancer.listen),
            ("web.listen".to_owned(), self.web.listen),
            ("app.listen".to_owned(), self.app.listen),
            ("console.listen".to_owned(), self.console.listen),
        ];
        all.extend(self.edge.tls_listen.map(|address| ("edge.tls_listen".to_owned(), address)));
        all.extend(self.balancer.tls_listen.map(|address| ("balancer.tls_listen".to_owned(), address)));
        all.extend(self.web.tls_listen.map(|address| ("web.tls_listen".to_owned(), address)));
        all.extend(self.database.listen.parse().map(|address| ("database.listen".to_owned(), address)));
        let tcp = self.balancer.tcp.iter().enumerate();
        all.extend(tcp.map(|(at, tcp)| (format!("balancer.tcp[{at}].listen"), tcp.listen)));
        let meet = |one: &SocketAddr, other: &SocketAddr| {
            let any = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0 && one.port() == other.port() && (any || one.ip() == other.ip())
        };
        let mut troubles = Vec::new();
        for (n, (key, address)) in all.iter().enumerate() {
            if let Some((other, taken)) = all[..n].iter().find(|(_, other)| meet(address, other)) {
                troubles.push(format!("{key} = \"{address}\": {other} = \"{taken}\" has that port already"));
            }
        }
        troubles
    }

    fn validate(&self) -> Result<(), String> {
        within("drain_ms", self.drain_ms, 0, 600_000)?;
        within("stack.databases", self.stack.databases.into(), 1, 9)?;
        within("stack.apps", self.stack.apps.into(), 1, 16)?;
        within("stack.runners", self.stack.runners.into(), 0, 16)?;
        within("stack.webs", self.stack.webs.into(), 0, 16)?;
        within("stack.balancers", self.stack.balancers.into(), 0, 16)?;
        within("stack.edges", self.stack.edges.into(), 0, 16)?;
        if let Some(node) = &self.node {
            check_name("node", node)?;
        }
        self.telemetry.validate()?;
        self.bus.validate().map_err(|text| in_section("bus", text))?;
        self.discovery.validate()?;
        self.database.validate()?;
        self.app.validate().map_err(|error| error.to_string())?;
        self.app.validate_names()?;
        self.jobs.validate().map_err(|error| error.to_string())?;
        self.console.validate().map_err(|text| in_section("console", text))?;
        self.web.validate().map_err(|error| in_section("web", error.to_string()))?;
        self.balancer.validate().map_err(|error| in_section("balancer", error.to_string()))?;
        self.edge.validate().map_err(|error| in_section("edge", error.to_string()))?;
        chain::check(self)
    }
}

/// Sections that do not know their own name say only the key.
fn in_section(section: &str, text: String) -> String {
    if text.starts_with(&format!("{section}.")) { text } else { format!("{section}.{text}") }
}

fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("{key} = {value}: allowed is {low} to {high}"))
    }
}

/// Names become parts of paths, topics and file names.
pub fn check_name(key: &str, name: &str) -> Result<(), String> {
    let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if (1..=63).contains(&name.len()) && name.chars().all(usable) {
        return Ok(());
    }
    Err(format!("{key} = {name:?}: allowed are 1 to 63 of a-z 0-9 - _"))
}

/// The host's name, made fit for a path.
pub fn host_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let fit = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' };
    let name: String = label.chars().map(fit).take(63).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_print_as_toml() {
        let settings = Settings::default();
        settings.validate().expect("the defaults are in range");
        let again: Settings =
            config::Loader::new().text("printed", &settings.to_toml()).load().expect("it reads back");
        assert_eq!(again.to_toml(), settings.to_toml());
    }

    /// The example file lists every key with its default: what it says and what it does not say are the same.
    #[test]
    fn the_example_lists_every_key_with_its_default() {
        let text = include_str!("../../../infra/config/standfast.toml");
        let uncommented: String =
            text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
        let read: Settings =
            config::Loader::new().text("standfast.toml", text).load().expect("the example is right");
        assert_eq!(read.to_toml(), Settings::default().to_toml(), "the example says what is the default");
        let listed: toml::Table =
            uncommented.parse().expect("the example is TOML, also with its optional keys");
        let defaults = toml::Table::try_from(Settings::default()).expect("TOML");
        assert_eq!(
            missing("", &defaults, &listed),
            Vec::<String>::new(),
            "keys that the example does not list"
        );
        let with_examples: Settings =
            config::Loader::new().text("standfast.toml", &uncommented).load().expect("optional keys exist");
        with_examples.validate().expect("the examples are in range");
    }

    #[test]
    fn listeners_at_one_address_are_named() {
        let of = |text: &str| config::Loader::new().text("s", text).load::<Settings>().unwrap().look();
        assert_eq!(Settings::default().look(), Vec::<String>::new());
        for text in [
            "[app]\nlisten = '127.0.0.1:8080'",
            "[console]\nlisten = '0.0.0.0:8443'",
            "[database]\nlisten = '[::]:7070'",
        ] {
            let said = of(text);
            assert!(said.len() == 1 && said[0].contains("has that port already"), "{text}: {said:?}");
        }
        assert_eq!(of("[app]\nlisten = '127.0.0.2:8080'").len(), 0, "another address");
    }

    fn missing(prefix: &str, wanted: &toml::Table, listed: &toml::Table) -> Vec<String> {
        let of = |(key, value): (&String, &toml::Value)| match (value.as_table(), listed.get(key)) {
            (_, None) => vec![format!("{prefix}{key}")],
            (Some(below), Some(there)) => there
                .as_table()
                .map(|there| missing(&format!("{prefix}{key}."), below, there))
                .unwrap_or_default(),
            _ => vec![],
        };
        wanted.iter().flat_map(of).collect()
    }

    #[test]
    fn a_host_name_is_made_fit() {
        assert!(check_name("node", &host_name()).is_ok());
        assert!(check_name("node", "Laptop").is_err());
        assert!(check_name("node", "a/b").is_err());
    }
}
