//! Statements that say something about the transaction or the connection, and nothing about data: BEGIN, COMMIT,
//! savepoints, and the PRAGMAs that migrations set while they rebuild tables.
//!
//! Clients share one connection, so SQLite never gets these as they are: what a request says here holds within that
//! request.

use super::expansion::{Token, tokens};

/// What such a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// `BEGIN`, of whatever kind.
    Begin,
    /// `COMMIT` or `END`.
    Commit,
    /// `SAVEPOINT name`. Names are in lower case: SQLite does not tell them apart by case.
    Savepoint(String),
    /// `RELEASE name`
    Release(String),
    /// `ROLLBACK TO name`
    RollbackTo(String),
    /// `PRAGMA setting = value`
    Set(Setting, bool),
}

/// What a request may set for itself, with SQLite's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Whether foreign keys are checked and their actions run. Unlike in SQLite it may be set in a transaction as well.
    ForeignKeys,
    /// Whether all foreign keys are checked at COMMIT only. Ends with the transaction.
    DeferForeignKeys,
    /// Whether `ALTER TABLE … RENAME` leaves other tables, triggers and views as they are.
    LegacyAlterTable,
}

impl Setting {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "foreign_keys" => Self::ForeignKeys,
            "defer_foreign_keys" => Self::DeferForeignKeys,
            "legacy_alter_table" => Self::LegacyAlterTable,
            _ => return None,
        })
    }

    /// What it is for a request that does not set it.
    #[must_use]
    pub fn default(self) -> bool {
        self == Self::ForeignKeys
    }
}

/// What is told whose only statement sets something: it would be taken for done, and be forgotten before the next request.
pub const IN_VAIN: &str = "such a PRAGMA holds until the end of its request: send it in one request with the statements that need it";

/// Whether these statements do nothing but set something, other than to what it is anyway.
#[must_use]
pub fn is_in_vain(sql: &str) -> bool {
    matches!(of(sql), Some(Control::Set(setting, to)) if to != setting.default())
}

/// Reads a statement; none if it is another one, or one that SQLite would not understand.
#[must_use]
pub fn of(sql: &str) -> Option<Control> {
    let mut all = tokens(sql.as_bytes());
    while all.last() == Some(&Token::Sign(b';')) {
        all.pop();
    }
    let all: Vec<Part<'_>> = all.iter().map(Part::of).skip_while(|part| *part == Part::Sign(b';')).collect();
    let Some((Part::Word(first), rest)) = all.split_first() else { return None };
    match *first {
        "begin" => {
            let rest = after(rest, &["deferred", "immediate", "exclusive"]);
            after(rest, &["transaction"]).is_empty().then_some(Control::Begin)
        }
        "commit" | "end" => after(rest, &["transaction"]).is_empty().then_some(Control::Commit),
        "savepoint" => name(rest).map(Control::Savepoint),
        "release" => name(rest).or_else(|| name(after(rest, &["savepoint"]))).map(Control::Release),
        "rollback" => {
            let (Part::Word("to"), to) = after(rest, &["transaction"]).split_first()? else { return None };
            name(to).or_else(|| name(after(to, &["savepoint"]))).map(Control::RollbackTo)
        }
        "pragma" => setting(rest),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Word(&'a str),
    Sign(u8),
}

impl<'a> Part<'a> {
    fn of(token: &'a Token) -> Self {
        match token {
            Token::Word(word) => Self::Word(word),
            Token::Sign(sign) => Self::Sign(*sign),
        }
    }
}

/// What follows one of these words, if one of them is there.
fn after<'a, 'b>(parts: &'b [Part<'a>], words: &[&str]) -> &'b [Part<'a>] {
    match parts {
        [Part::Word(word), rest @ ..] if words.contains(word) => rest,
        all => all,
    }
}

fn name(parts: &[Part<'_>]) -> Option<String> {
    match parts {
        [Part::Word(name)] => Some((*name).to_owned()),
        _ => None,
    }
}

/// `name = value`, `name(value)`, with or without `main.` before it.
fn setting(parts: &[Part<'_>]) -> Option<Control> {
    let parts = match parts {
        [Part::Word("main"), Part::Sign(b'.'), rest @ ..] => rest,
        all => all,
    };
    let (name, value) = match parts {
        [Part::Word(name), Part::Sign(b'='), Part::Word(value)]
        | [Part::Word(name), Part::Sign(b'('), Part::Word(value), Part::Sign(b')')] => (name, value),
        _ => return None,
    };
    Setting::of(name).map(|setting| Control::Set(setting, is_on(value)))
}

/// As SQLite reads a flag: a word that it does not know is "off".
fn is_on(value: &str) -> bool {
    match value.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => matches!(value, "on" | "yes" | "true" | "full" | "extra"),
    }
}

/// The transaction that a request is, and the savepoints that are open in it. Pure: says what to do, and does nothing.
#[derive(Debug, Default)]
pub struct Nesting {
    stage: Stage,
    /// Names, and what the caller keeps with each.
    open: Vec<(String, usize)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Neither BEGIN nor COMMIT was said.
    #[default]
    Implicit,
    Begun,
    Ended,
}

/// Savepoints that may be open at a time.
const DEPTH_MAX: usize = 100;

impl Nesting {
    /// BEGIN.
    ///
    /// # Errors
    /// In SQLite's words, or ours where SQLite would allow it.
    pub fn begin(&mut self) -> Result<(), String> {
        match self.stage {
            Stage::Implicit if self.open.is_empty() => self.stage = Stage::Begun,
            Stage::Ended => {
                return Err(
                    "a request with ?transaction is one transaction: it cannot begin again".to_owned()
                );
            }
            _ => return Err("cannot start a transaction within a transaction".to_owned()),
        }
        Ok(())
    }

    /// COMMIT: savepoints that are open end with it.
    ///
    /// # Errors
    /// In SQLite's words.
    pub fn commit(&mut self) -> Result<(), String> {
        if self.stage != Stage::Begun {
            return Err("cannot commit - no transaction is active".to_owned());
        }
        self.stage = Stage::Ended;
        self.open.clear();
        Ok(())
    }

    /// SAVEPOINT: its number, from 0. `kept` is for the caller.
    ///
    /// # Errors
    /// There are too many.
    pub fn savepoint(&mut self, name: String, kept: usize) -> Result<usize, String> {
        if self.open.len() == DEPTH_MAX {
            return Err(format!("{DEPTH_MAX} savepoints are open: no further one can be"));
        }
        self.open.push((name, kept));
        Ok(self.open.len() - 1)
    }

    /// RELEASE: the number of the savepoint that ends, with those in it.
    ///
    /// # Errors
    /// In SQLite's words.
    pub fn release(&mut self, name: &str) -> Result<usize, String> {
        let number = self.find(name)?;
        self.open.truncate(number);
        Ok(number)
    }

    /// ROLLBACK TO: the number of the savepoint, which stays open, and what the caller keeps with it.
    ///
    /// # Errors
    /// In SQLite's words.
    pub fn rollback_to(&mut self, name: &str) -> Result<(usize, usize), String> {
        let number = self.find(name)?;
        self.open.truncate(number + 1);
        Ok((number, self.open[number].1))
    }

    /// Whether all that was begun was ended.
    ///
    /// # Errors
    /// It was not.
    pub fn is_ended(&self) -> Result<(), String> {
        if self.stage == Stage::Begun {
            return Err("BEGIN without COMMIT: a request is a whole transaction".to_owned());
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let found = self.open.iter().rposition(|(known, _)| known == name);
        found.ok_or_else(|| format!("no such savepoint: {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_as_sqlite_reads_them() {
        let name = || "a b".to_owned();
        for (sql, is) in [
            ("BEGIN", Control::Begin),
            ("-- first\n begin IMMEDIATE transaction ;", Control::Begin),
            ("End Transaction", Control::Commit),
            ("SAVEPOINT \"a b\"", Control::Savepoint(name())),
            ("release savepoint [A B];", Control::Release(name())),
            ("RELEASE savepoint", Control::Release("savepoint".to_owned())),
            ("ROLLBACK TRANSACTION TO SAVEPOINT 'a b'", Control::RollbackTo(name())),
            ("rollback to `A b`", Control::RollbackTo(name())),
            ("PRAGMA foreign_keys=OFF", Control::Set(Setting::ForeignKeys, false)),
            ("pragma main . Foreign_Keys ( 1 )", Control::Set(Setting::ForeignKeys, true)),
            ("PRAGMA defer_foreign_keys = 'yes'", Control::Set(Setting::DeferForeignKeys, true)),
            ("PRAGMA legacy_alter_table = maybe", Control::Set(Setting::LegacyAlterTable, false)),
        ] {
            assert_eq!(of(sql), Some(is), "{sql}");
        }
        for sql in [
            "",
            "BEGIN; COMMIT",
            "BEGIN NOW",
            "ROLLBACK",
            "SAVEPOINT",
            "SAVEPOINT a b",
            "PRAGMA foreign_keys",
            "PRAGMA journal_mode = WAL",
            "PRAGMA temp.foreign_keys = ON",
            "INSERT INTO savepoint VALUES (1)",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
        assert!(is_in_vain("PRAGMA foreign_keys=0") && !is_in_vain("PRAGMA foreign_keys=1"));
        assert!(is_in_vain("PRAGMA defer_foreign_keys=1") && !is_in_vain("BEGIN"));
    }

    #[test]
    fn savepoints_nest_and_a_name_means_the_last_one_of_that_name() {
        let mut nesting = Nesting::default();
        assert!(nesting.commit().is_err() && nesting.release("a").is_err());
        nesting.begin().unwrap();
        assert!(nesting.begin().is_err() && nesting.is_ended().is_err());
        assert_eq!(nesting.savepoint("a".into(), 10), Ok(0));
        assert_eq!(nesting.savepoint("b".into(), 11), Ok(1));
        assert_eq!(nesting.savepoint("a".into(), 12), Ok(2));
        assert_eq!(nesting.rollback_to("a"), Ok((2, 12)));
        assert_eq!(nesting.release("a"), Ok(2));
        assert_eq!(nesting.rollback_to("a"), Ok((0, 10)));
        assert_eq!(nesting.rollback_to("b"), Err("no such savepoint: b".to_owned()), "it was undone with it");
        nesting.commit().unwrap();
        assert!(nesting.release("a").is_err() && nesting.begin().is_err() && nesting.is_ended().is_ok());
        let mut deep = Nesting::default();
        (0..DEPTH_MAX).for_each(|i| assert_eq!(deep.savepoint("s".into(), 0), Ok(i)));
        assert!(deep.savepoint("s".into(), 0).is_err());
    }
}
