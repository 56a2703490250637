//! Point in time: the entries of the log that follow a backup are applied to it, up to a sequence number or a time.
//!
//! A backup knows its position, and the log's entry there must be the one that the backup ends with; from then on the rule
//! is [`crate::fold`]'s, as for any replica that reads on. How far back the log reaches is `database.log_margin`'s to say.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bus::{From as ReadFrom, LogEntry};
use clock::WallMs;
use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::entry::{Data, Entry, Op, chain_of};
use crate::fold::{Fold, Verdict};
use crate::position::{Position, Token};
use crate::sqlite::store;
use crate::sqlite::writer::Writer;
use crate::state::Shared;

/// Entries that are read ahead, in batches of as many as are there, up to this number.
const BATCH: usize = 256;
/// Batches on their way from the log to the file.
const AHEAD: usize = 2;
/// The log has the entry, or says that it has not, within this time.
const READ_MAX: Duration = Duration::from_secs(10);

/// Where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After the entry with this number.
    Seq(u64),
    /// Before the first entry that was written after this time, by the clock of its primary.
    Time(WallMs),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        if let Ok(token) = text.parse::<Token>() {
            return Ok(Self::Seq(token.seq));
        }
        WallMs::parse_rfc3339(text).map(Self::Time).map_err(|_| {
            format!(
                "until is {text:?}: use a sequence number, or a time as in 2026-11-29T20:45:00Z (RFC 3339)"
            )
        })
    }
}

/// Where it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Sequence number of the last entry that is in.
    pub seq: u64,
    /// When that entry was written (RFC 3339); none if the log did not say.
    pub at: Option<String>,
}

/// It cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum NotReached {
    /// Never from this file.
    #[error("{0}")]
    Refused(String),
    /// Not now.
    #[error("{0}")]
    Later(String),
}

fn refused(why: impl Into<String>) -> NotReached {
    NotReached::Refused(why.into())
}

/// Applies what follows to the uploaded backup. Called at the primary.
///
/// # Errors
/// See [`NotReached`].
pub async fn roll_forward(shared: &Arc<Shared>, until: Until) -> Result<Reached, NotReached> {
    let from = position_of(&shared.staging.upload())?;
    let end = shared.status().borrow().token;
    check(&from, until, end)?;
    let log = shared.log(from.generation);
    let later = |error: bus::BusError| NotReached::Later(format!("the log cannot be read: {error}"));
    let bounds = log.bounds().await.map_err(later)?;
    if bounds.first > from.offset.unwrap_or(0) {
        return Err(refused(format!(
            "the log no longer reaches back to the backup, which is at sequence {}: it begins later \
             (database.log_margin says how many entries it keeps); restore the backup without --until, or a later one",
            from.seq
        )));
    }
    let mut reader = log.read(from.offset.map_or(ReadFrom::First, ReadFrom::Offset)).await.map_err(later)?;
    let (put, take) = mpsc::channel(AHEAD);
    let (mine, last) = (shared.clone(), end.seq);
    let applied = tokio::task::spawn_blocking(move || Rolling::open(&mine, from, until, last)?.run(take));
    loop {
        let first = tokio::select! {
            biased;
            // It has what it wants, or cannot go on.
            () = put.closed() => break,
            first = tokio::time::timeout(READ_MAX, reader.next()) => match first {
                Ok(first) => first.map_err(later)?,
                Err(_) => return Err(NotReached::Later("the log does not give its entries".to_owned())),
            },
        };
        let mut batch = vec![first];
        batch.extend(reader.take_ready(BATCH));
        drop(put.send(batch).await);
    }
    applied.await.map_err(|died| NotReached::Later(died.to_string()))?
}

fn position_of(upload: &Path) -> Result<Position, NotReached> {
    let found = Connection::open(upload).and_then(|conn| store::read_position(&conn));
    found.map_err(|_| refused("the file is no backup of a Standfast database: it does not say its position"))
}

/// What can be said without the log.
fn check(from: &Position, until: Until, end: Token) -> Result<(), NotReached> {
    if from.generation != end.generation {
        return Err(refused(format!(
            "the backup is of generation {} of the log, which has ended; the stack is in generation {}: restore the backup \
             without --until, or a later one",
            from.generation, end.generation
        )));
    }
    if from.seq > end.seq {
        return Err(refused(format!(
            "the backup is at sequence {}, and this history ends at {}: it is another stack's",
            from.seq, end.seq
        )));
    }
    match until {
        Until::Seq(seq) if seq < from.seq => Err(refused(format!(
            "the backup is at sequence {}, later than {seq}: use an earlier one",
            from.seq
        ))),
        Until::Seq(seq) if seq > end.seq => {
            Err(refused(format!("the history ends at sequence {}, before {seq}", end.seq)))
        }
        _ => Ok(()),
    }
}

/// The uploaded file on its way.
struct Rolling {
    fold: Fold,
    writer: Writer,
    until: Until,
    /// Sequence number at which the history ended when this began.
    last: u64,
    at: u64,
    open: bool,
}

impl Rolling {
    fn open(shared: &Shared, from: Position, until: Until, last: u64) -> Result<Self, NotReached> {
        let writer = Writer::beside(&shared.staging.upload(), &shared.config);
        let writer = writer.map_err(|error| refused(format!("the backup cannot be used: {error}")))?;
        Ok(Self { fold: Fold::new(from), writer, until, last, at: 0, open: false })
    }

    fn run(mut self, mut take: mpsc::Receiver<Vec<LogEntry>>) -> Result<Reached, NotReached> {
        let began = self.fold.position().offset;
        let mut known = began.is_none();
        while !self.is_there() || !known {
            let Some(batch) = take.blocking_recv() else {
                return Err(NotReached::Later("the log could not be read to the end".to_owned()));
            };
            for entry in batch {
                if !known {
                    self.recognise(&entry)?;
                    known = true;
                    continue;
                }
                if self.is_there() || !self.entry(&entry)? {
                    return self.close();
                }
            }
            self.commit()?;
        }
        self.close()
    }

    fn is_there(&self) -> bool {
        let seq = self.fold.position().seq;
        seq >= self.last || matches!(self.until, Until::Seq(until) if seq >= until)
    }

    /// The entry at the backup's position: is it the one that the backup ends with?
    fn recognise(&mut self, entry: &LogEntry) -> Result<(), NotReached> {
        let at = self.fold.position();
        if at.offset != Some(entry.offset) || chain_of(&entry.message.body) != at.chain {
            return Err(refused("the backup is of another history than this stack's log"));
        }
        if let Ok(Entry::Data(data)) = Entry::decode(&entry.message.body) {
            self.at = data.at;
        }
        match self.until {
            Until::Time(until) if self.is_after(self.at, until) => Err(refused(format!(
                "the backup is of {}, later than --until: use an earlier one",
                time(self.at)
            ))),
            _ => Ok(()),
        }
    }

    fn is_after(&self, at: u64, until: WallMs) -> bool {
        i64::try_from(at).unwrap_or(i64::MAX) > until.0
    }

    /// Applies an entry; false if it is past the end that was asked for.
    fn entry(&mut self, entry: &LogEntry) -> Result<bool, NotReached> {
        let body = &entry.message.body;
        let decoded = Entry::decode(body).map_err(|error| refused(error.to_string()))?;
        match (self.fold.judge(entry.offset, &decoded, || chain_of(body)), decoded) {
            (Verdict::Apply, Entry::Data(data)) => {
                if matches!(self.until, Until::Time(until) if self.is_after(data.at, until)) {
                    return Ok(false);
                }
                self.apply(&data)?;
                self.fold.advance(entry.offset, data.seq, chain_of(body));
                self.at = data.at;
                Ok(true)
            }
            (Verdict::Gap | Verdict::Diverged(_), _) => {
                Err(refused("the log does not continue the backup's history: entries between them are gone"))
            }
            _ => Ok(true),
        }
    }

    fn apply(&mut self, data: &Data) -> Result<(), NotReached> {
        if data.ops.iter().any(|op| matches!(op, Op::Restore(_))) {
            return Err(refused(format!(
                "the database was restored at sequence {}, and what was restored is not in the log: choose an --until before \
                 it, or a backup from after it",
                data.seq
            )));
        }
        if !self.open {
            self.writer.begin().map_err(|error| NotReached::Later(error.to_string()))?;
            self.open = true;
        }
        self.writer.apply(&data.ops).map_err(|error| {
            refused(format!("entry {} does not fit the backup ({error}): was the file changed?", data.seq))
        })
    }

    fn commit(&mut self) -> Result<(), NotReached> {
        if std::mem::take(&mut self.open) {
            let stored = self.writer.commit(self.fold.settled());
            stored.map_err(|error| NotReached::Later(format!("the disk of the primary refused: {error}")))?;
        }
        Ok(())
    }

    fn close(mut self) -> Result<Reached, NotReached> {
        self.commit()?;
        let at = (self.at > 0).then(|| time(self.at));
        Ok(Reached { seq: self.fold.position().seq, at })
    }
}

fn time(at: u64) -> String {
    WallMs(i64::try_from(at).unwrap_or(i64::MAX)).rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_number_a_position_or_a_time_and_nothing_else() {
        assert_eq!("42".parse(), Ok(Until::Seq(42)));
        assert_eq!("1-42".parse(), Ok(Until::Seq(42)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Until::Time(WallMs(1000))));
        assert_eq!("1970-01-01T01:00:01+01:00".parse(), Ok(Until::Time(WallMs(1000))));
        for wrong in ["", "-1", "yesterday", "2026-11-29", "2026-11-29 20:45", "1-", "99999999999999999999"] {
            assert!(wrong.parse::<Until>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_said_before_anything_is_read() {
        let backup = Position { generation: 2, seq: 10, ..Position::default() };
        let end = Token { generation: 2, seq: 20 };
        let says = |from: &Position, until, end| check(from, until, end).map_err(|e| e.to_string());
        assert_eq!(says(&backup, Until::Seq(10), end), Ok(()));
        assert_eq!(says(&backup, Until::Seq(20), end), Ok(()));
        assert!(says(&backup, Until::Seq(9), end).unwrap_err().contains("use an earlier one"));
        assert!(says(&backup, Until::Seq(21), end).unwrap_err().contains("ends at sequence 20"));
        assert!(
            says(&backup, Until::Time(WallMs(0)), Token { generation: 3, seq: 30 })
                .unwrap_err()
                .contains("generation 2")
        );
        assert!(
            says(&backup, Until::Seq(5), Token { generation: 2, seq: 5 })
                .unwrap_err()
                .contains("another stack's")
        );
    }
}
