//! The one place that prints. A reader that went away (`standfast jobs list | head`) ends the command quietly; output
//! that is lost in any other way ends it with exit code 1, because a script would take what it got for the whole.
//!
//! Names, payloads and errors come from others: nothing of them reaches a terminal as a command ([`printable`]).

use std::io::{self, Write};

use serde::Serialize;
use telemetry::{printable, printable_json};

use crate::failure::Code;

/// One line on stdout, at once.
pub fn line(text: impl std::fmt::Display) {
    write(&format!("{}\n", printable(&text.to_string())));
}

/// Text of our own on stdout as it is, at once: what is of others in it went through [`printable`].
pub fn write(text: &str) {
    match try_write(text) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            complain(&format!("cannot write to stdout: {error}"));
            std::process::exit(Code::Failed as i32);
        }
    }
}

/// The same for who goes on without a reader.
///
/// # Errors
/// Of the file, pipe or terminal.
pub fn try_write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// A value as JSON: indented for people, on one line for pipes.
pub fn json<T: Serialize>(value: &T) {
    use std::io::IsTerminal;
    let pretty = io::stdout().is_terminal();
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text = text.expect("what is shown was read from JSON, or has only keys that are text");
    write(&format!("{}\n", printable_json(&text)));
}

/// A line of JSON that a server wrote, as it is.
pub fn json_line(text: &str) {
    write(&format!("{}\n", printable_json(text)));
}

/// One line on stderr.
pub fn complain(text: &str) {
    // Nobody reads it: nothing to be done.
    let _ = writeln!(io::stderr().lock(), "standfast: {}", printable(text));
}

/// Rows under headings, each column as wide as it must be, the last one free.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| printable(heading).chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    // Headings may be of others too: the columns of a query.
    let headings: Vec<_> = headings.iter().map(|heading| printable(heading)).collect();
    print(&mut headings.iter().map(AsRef::as_ref));
    rows.iter().for_each(|row| print(&mut row.iter().map(AsRef::as_ref)));
}
