//! How a command ends when it does not succeed: an exit code and one line that says what to do.

use std::fmt;

/// Exit codes as in `sysexits.h`, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It was tried and failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The stack is not reachable (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

/// The end of a command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub code: Code,
    /// What to do, on one line.
    pub text: String,
}

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// It was tried and failed.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::new(Code::Failed, text)
    }

    /// The command line is wrong in a way that clap cannot see.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self::new(Code::Usage, text)
    }

    /// The stack is not reachable.
    pub fn unreachable(text: impl fmt::Display) -> Self {
        Self::new(Code::Unreachable, text)
    }

    /// The configuration is wrong.
    pub fn config(text: impl fmt::Display) -> Self {
        Self::new(Code::Config, text)
    }

    fn new(code: Code, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self { code, text: text.split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::config(error)
    }
}

/// An error and what caused it, on one line.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
