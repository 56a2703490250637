//! A command line that cannot be read: one line that says what to type, like every other error.

use std::io::IsTerminal;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;
use crate::out;

/// Commands whose names are taken, and what there is instead in this version.
const RESERVED: &[(&str, &str)] = &[
    ("experiment", "break one thing at a time with `standfast fault inject`"),
    ("cache", "what the edge has stored is emptied by `standfast purge`"),
];

/// What is wrong with the command line. Help and version are printed in full, and end the process.
pub fn wrong(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render();
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            out::write(&if colour { text.ansi().to_string() } else { text.to_string() });
            std::process::exit(0);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => {}
    }
    if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
        && let Some((name, instead)) = RESERVED.iter().find(|(reserved, _)| reserved == name)
    {
        return Failure::usage(format!("`{name}` is reserved for a later version; until then, {instead}"));
    }
    Failure::usage(on_one_line(&error.render().to_string()))
}

/// clap's paragraphs without the last one, which names `--help` in words of its own.
fn on_one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut line = String::new();
    for paragraph in text.split("\n\n").map(str::trim) {
        let paragraph = match paragraph.strip_prefix("Usage:") {
            Some(usage) => format!("usage:{usage}"),
            None if paragraph.is_empty() || paragraph.starts_with("For more information") => continue,
            None => paragraph.to_owned(),
        };
        line.push_str(if line.is_empty() { "" } else { "; " });
        line.push_str(&paragraph);
    }
    line.push_str("; --help says more");
    line
}
