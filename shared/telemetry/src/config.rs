//! The `[telemetry]` section.

use serde::{Deserialize, Serialize};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// [`Format::Human`] when stderr is a terminal or journald's, [`Format::Json`] otherwise.
    #[default]
    Auto,
    /// A line for people; for journald without colours and time, and with the level as a prefix.
    Human,
    /// One JSON object a line.
    Json,
}

/// The `[telemetry]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which lines are written: a level (`error`, `warn`, `info`, `debug`, `trace`), and levels of single crates:
    /// `info,bus=debug`. `STANDFAST_LOG`, then `RUST_LOG`, come before it. Default `info`; `debug` writes lines for
    /// each request. Changed at run time by SIGHUP.
    pub log: String,
    /// `auto`, `human` or `json`. Default `auto`.
    pub log_format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: Format::Auto }
    }
}

impl Config {
    /// Checks the filter.
    ///
    /// # Errors
    /// Names key, value and range.
    pub fn validate(&self) -> Result<(), String> {
        crate::log::parse_filter(&self.log).map(drop).map_err(|error| error.to_string())
    }
}
