//! The one place that prints. A reader that went away (`standfast jobs list | head`) ends the command quietly.

use std::io::Write;

use serde::Serialize;

/// One line on stdout, at once.
pub fn line(text: impl std::fmt::Display) {
    write(&format!("{text}\n"));
}

/// Text on stdout as it is, at once.
pub fn write(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A value as JSON: indented for people, on one line for pipes.
pub fn json<T: Serialize>(value: &T) {
    use std::io::IsTerminal;
    let pretty = std::io::stdout().is_terminal();
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    line(text.unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")));
}

/// One line on stderr.
pub fn complain(text: &str) {
    // Nobody reads it: nothing to be done.
    let _ = writeln!(std::io::stderr().lock(), "standfast: {text}");
}

/// Rows under headings, each column as wide as it must be, the last one free.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(&mut headings.iter().copied());
    rows.iter().for_each(|row| print(&mut row.iter().map(String::as_str)));
}
