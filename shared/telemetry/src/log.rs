//! The log: one layer of `tracing-subscriber` that writes capped lines to stderr, and a filter that can be changed.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use clock::WallMs;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Config, Format};
use crate::format::{Fields, Style, line};

/// Libraries whose `info` is our `debug`.
const QUIET: [(&str, LevelFilter); 6] = [
    // It calls it an error that a lease is held by another, several times a second; `bus` tells what matters itself.
    ("lapin", LevelFilter::OFF),
    ("actix_server", LevelFilter::WARN),
    ("actix_http", LevelFilter::ERROR),
    ("hyper_util", LevelFilter::WARN),
    ("reqwest", LevelFilter::WARN),
    ("mio", LevelFilter::WARN),
];

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The log could not be set up or changed.
#[derive(Debug)]
pub enum InitError {
    /// The filter does not parse: its source, value and what is allowed.
    Filter {
        /// Key or variable it came from.
        key: &'static str,
        /// What it said.
        value: String,
    },
    /// There is no log to change: [`init`] was not called, or another subscriber was set before it.
    NotOurs,
}

impl std::fmt::Display for InitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Filter { key, value } => write!(
                f,
                "{key} = {value:?} is not a log filter: use error, warn, info, debug, trace or off, and levels of \
                 single crates, as in \"info,bus=debug\""
            ),
            Self::NotOurs => f.write_str("the log is not set up by this process"),
        }
    }
}

impl std::error::Error for InitError {}

/// Sets up the log with the default filter; see [`init_with`].
///
/// # Errors
/// When `STANDFAST_LOG` or `RUST_LOG` does not parse.
pub fn init(format: Format) -> Result<(), InitError> {
    init_with(&Config { log_format: format, ..Config::default() })
}

/// Sets up the process's log on stderr. Filter: `STANDFAST_LOG`, else `RUST_LOG`, else the configuration.
/// A second call in one process changes the filter and nothing else.
///
/// # Errors
/// When the filter does not parse; the error names where it came from.
pub fn init_with(config: &Config) -> Result<(), InitError> {
    if FILTER.get().is_some() {
        return set_filter(&config.log);
    }
    let style = match config.log_format {
        Format::Json => Style::Json,
        Format::Auto | Format::Human if is_journal() => Style::Journal,
        Format::Auto if !std::io::stderr().is_terminal() => Style::Json,
        _ if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() => Style::Colour,
        _ => Style::Plain,
    };
    let (filter, handle) = reload::Layer::new(effective_filter(&config.log)?);
    // Tests set up the log from many threads: the first wins, and that is as good.
    if tracing_subscriber::registry().with(filter).with(Lines { style }).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// Whether stderr is a stream to journald: it says which in `JOURNAL_STREAM` (`systemd.exec(5)`), and a redirection of
/// stderr makes it another.
fn is_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    said.split_once(':').is_some_and(|(device, inode)| {
        use std::os::unix::fs::MetadataExt as _;
        let stderr = std::fs::metadata("/proc/self/fd/2");
        stderr.is_ok_and(|it| it.dev().to_string() == device && it.ino().to_string() == inode)
    })
}

/// Changes the filter of the running process. `STANDFAST_LOG` and `RUST_LOG` still come before `filter`.
///
/// # Errors
/// When it does not parse, or the log is not ours.
pub fn set_filter(filter: &str) -> Result<(), InitError> {
    let targets = effective_filter(filter)?;
    let handle = FILTER.get().ok_or(InitError::NotOurs)?;
    handle.reload(targets).map_err(|_| InitError::NotOurs)
}

fn effective_filter(configured: &str) -> Result<Targets, InitError> {
    for key in ["STANDFAST_LOG", "RUST_LOG"] {
        if let Some(value) = std::env::var(key).ok().filter(|value| !value.is_empty()) {
            return parse(key, &value);
        }
    }
    parse_filter(configured)
}

pub(crate) fn parse_filter(filter: &str) -> Result<Targets, InitError> {
    parse("telemetry.log", filter)
}

fn parse(key: &'static str, value: &str) -> Result<Targets, InitError> {
    let refused = || InitError::Filter { key, value: value.to_owned() };
    // `Targets` reads a bare unknown word as the name of a crate; a mistyped level must not silence the log.
    let words_are_levels = value.split(',').map(str::trim).filter(|part| !part.contains('=')).all(is_level);
    if value.trim().is_empty() || !words_are_levels {
        return Err(refused());
    }
    let asked: Targets = value.parse().map_err(|_| refused())?;
    let named: Vec<_> = asked.iter().map(|(target, _)| target.to_owned()).collect();
    let quiet = QUIET.into_iter().filter(|(target, _)| !named.iter().any(|name| name == target));
    Ok(asked.with_targets(quiet))
}

fn is_level(word: &str) -> bool {
    word.parse::<LevelFilter>().is_ok()
}

/// Writes each event as one line; remembers the fields of spans in the style of the line.
struct Lines {
    style: Style,
}

struct SpanFields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new(self.style);
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields.text));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new(self.style);
        values.record(&mut fields);
        if let Some(span) = context.span(id)
            && let Some(known) = span.extensions_mut().get_mut::<SpanFields>()
            && known.0.len() < crate::format::LINE_BYTES_MAX
        {
            known.0.push_str(&fields.text);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new(self.style);
        event.record(&mut fields);
        let mut around = String::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(known) = span.extensions().get::<SpanFields>() {
                around.push_str(&known.0);
            }
        }
        let line = line(self.style, WallMs::now(), event.metadata(), &around, &fields);
        // A log that cannot be written has nowhere to say so.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The same layer, into a buffer.
    #[derive(Clone)]
    struct Captured(Style, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Captured {
        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            Lines { style: self.0 }.on_new_span(attributes, id, context);
        }
        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            let mut fields = Fields::new(self.0);
            event.record(&mut fields);
            let mut around = String::new();
            for span in context.event_scope(event).into_iter().flatten() {
                around.push_str(&span.extensions().get::<SpanFields>().expect("every span has fields").0);
            }
            self.1.lock().unwrap().push(line(self.0, WallMs(0), event.metadata(), &around, &fields));
        }
    }

    fn lines_of(style: Style, run: impl FnOnce()) -> Vec<String> {
        let captured = Captured(style, Arc::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(captured.clone()), run);
        captured.1.lock().unwrap().clone()
    }

    #[test]
    fn a_json_line_is_one_object_with_the_fields_of_its_spans() {
        let trace = crate::Trace::start();
        let lines = lines_of(Style::Json, || {
            let _in_trace = trace.span().entered();
            tracing::info!(tier = "jobs", attempt = 3u64, at = "mine", "job \"ended\"\nbadly");
        });
        let json: serde_json::Value = serde_json::from_str(&lines[0]).expect("a JSON object");
        assert_eq!(json["message"], "job \"ended\"\nbadly");
        assert_eq!((&json["tier"], &json["attempt"]), (&"jobs".into(), &3.into()));
        assert_eq!(json["trace_id"], trace.trace_id_hex());
        assert_eq!((&json["at"], &json["at_"]), (&"1970-01-01T00:00:00.000Z".into(), &"mine".into()));
        assert_eq!(lines[0].matches('\n').count(), 1, "one line");
    }

    #[test]
    fn a_huge_field_is_cut_at_a_character_and_says_so() {
        let lines = lines_of(Style::Json, || tracing::info!(payload = "é".repeat(100_000), "kept"));
        assert!(lines[0].len() < 3000, "{} bytes", lines[0].len());
        let json: serde_json::Value = serde_json::from_str(&lines[0]).expect("still JSON");
        assert!(json["payload"].as_str().unwrap().ends_with("… (197952 bytes more)"));
    }

    #[test]
    fn journald_gets_the_level_as_a_prefix_and_neither_time_nor_colour() {
        let lines = lines_of(Style::Journal, || {
            tracing::warn!(pool = "app", "fails\n<0>forged");
            tracing::info!("fine");
        });
        assert!(
            lines[0].starts_with("<4>") && lines[0].ends_with("fails\\n<0>forged pool=app\n"),
            "{}",
            lines[0]
        );
        assert!(lines[1].starts_with("<6>") && !lines[1].contains('\x1b'), "{}", lines[1]);
    }

    #[test]
    fn a_line_for_people_cannot_be_forged_by_a_value() {
        let lines = lines_of(Style::Plain, || tracing::warn!(user = "x\nlevel=error root=1", "log\nin"));
        assert_eq!(lines[0].matches('\n').count(), 1);
        assert!(lines[0].contains(r#"log\nin user="x\nlevel=error root=1""#), "{}", lines[0]);
    }

    #[test]
    fn a_mistyped_level_is_refused_and_named() {
        assert!(parse_filter("info,bus=debug").is_ok());
        for bad in ["inof", "info,bus=loud", "", "debgu,bus=debug"] {
            let error = parse_filter(bad).expect_err(bad).to_string();
            assert!(error.starts_with(&format!("telemetry.log = {bad:?}")), "{error}");
        }
    }
}
