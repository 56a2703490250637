//! What a bulk submission answers: one JSON object a line, each what became of one line of the input.

use reqwest::Response;
use serde::Deserialize;

use crate::client::http::Server;
use crate::failure::{Failure, Outcome};
use crate::out;

/// A line of the answer is shorter than this: a longer one is no answer of ours.
const LINE_BYTES_MAX: usize = 1 << 20;

/// One line of the answer.
#[derive(Deserialize)]
struct LineOutcome {
    line: u64,
    status: u16,
    #[serde(default)]
    error: Option<messages::problem::Problem>,
}

/// How many lines were told of, and what was wrong with the first that was refused.
#[derive(Default)]
struct Tally {
    all: u64,
    refused: u64,
    first: Option<String>,
}

/// Prints each outcome as it comes.
///
/// # Errors
/// When a line was refused, or the answer broke off: what was stored is told above.
pub async fn print(server: &Server, mut answer: Response) -> Outcome {
    let (mut tally, mut unread) = (Tally::default(), Vec::new());
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => unread.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(server.lost(&error)),
        }
        let whole = unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = unread.drain(..whole).collect();
        for line in String::from_utf8_lossy(&lines).lines().filter(|line| !line.is_empty()) {
            tally.count(line)?;
            out::json_line(line);
        }
        if unread.len() > LINE_BYTES_MAX {
            return Err(unreadable());
        }
    }
    if unread.is_empty() { tally.verdict() } else { Err(unreadable()) }
}

impl Tally {
    fn count(&mut self, line: &str) -> Outcome {
        let outcome: LineOutcome = serde_json::from_str(line).map_err(|_| unreadable())?;
        self.all += 1;
        if !(200..300).contains(&outcome.status) {
            self.refused += 1;
            let why = outcome.error.map(|error| error.detail.unwrap_or(error.title));
            let why = why.unwrap_or_else(|| format!("status {}", outcome.status));
            self.first.get_or_insert_with(|| format!("line {}: {why}", outcome.line));
        }
        Ok(())
    }

    fn verdict(self) -> Outcome {
        let Some(first) = self.first else { return Ok(()) };
        Err(Failure::failed(format!(
            "{} of {} lines were refused; the first: {first}",
            self.refused, self.all
        )))
    }
}

fn unreadable() -> Failure {
    Failure::failed(
        "the answer broke off or cannot be read: lines that are not told of above may not be stored",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lines: &[&str]) -> Outcome {
        let mut tally = Tally::default();
        lines.iter().try_for_each(|line| tally.count(line))?;
        tally.verdict()
    }

    #[test]
    fn a_refused_line_fails_the_command_and_the_first_is_named() {
        let good = r#"{"line":1,"status":202,"id":"x"}"#;
        let bad =
            r#"{"line":2,"status":400,"error":{"type":"t","title":"Bad","status":400,"detail":"no kind"}}"#;
        let full = r#"{"line":3,"status":503}"#;
        verdict(&[good, good]).expect("all were stored");
        verdict(&[]).expect("nothing to store");
        let text = verdict(&[good, bad, full]).expect_err("two were refused").text;
        assert_eq!(text, "2 of 3 lines were refused; the first: line 2: no kind");
        assert!(verdict(&[full]).expect_err("refused").text.ends_with("line 3: status 503"));
        assert!(verdict(&["<html>"]).expect_err("no answer of ours").text.contains("cannot be read"));
    }
}
