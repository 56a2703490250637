//! A primary and a replica for tests: what the one does is applied to the other, and both must end equal.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use rusqlite::Connection;

use super::group::{Job, Ran, Transaction};
use super::session::Session;
use super::store::Directory;
use super::writer::{Duty, Writer};
use crate::config::Config;
use crate::position::Position;
use crate::wire::{Outcome, Statement};

/// See the module.
pub struct Pair {
    pub primary: Writer,
    pub replica: Writer,
    pub at: Position,
    /// How many groups ran.
    pub groups: usize,
    _dirs: [tempfile::TempDir; 2],
}

impl Pair {
    pub fn new(config: &Config) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let open =
            |dir: &tempfile::TempDir| Writer::open(&Directory::open(dir.path()).unwrap(), config).unwrap();
        let (primary, replica) = (open(&dirs[0]), open(&dirs[1]));
        primary.take_up(Duty::Primary).unwrap();
        // What is tested here is not the disk.
        primary.conn.pragma_update(None, "synchronous", "OFF").unwrap();
        Self {
            primary,
            replica,
            at: Position { generation: 1, ..Position::default() },
            groups: 0,
            _dirs: dirs,
        }
    }

    /// Runs transactions of plain statements as one group on the primary, and applies it.
    pub fn run(&mut self, group: &[&[&str]]) -> Vec<Vec<Outcome>> {
        let group: Vec<_> = group.iter().map(|t| transaction(t)).collect();
        self.run_all(&group)
    }

    pub fn run_all(&mut self, group: &[Transaction]) -> Vec<Vec<Outcome>> {
        let owned: Vec<_> = group.iter().map(|transaction| (0, transaction)).collect();
        self.run_jobs(&owned).into_iter().map(|ran| ran.outcomes).collect()
    }

    /// Runs transactions, each with the number of its request, in as many groups as they need.
    pub fn run_jobs(&mut self, all: &[(usize, &Transaction)]) -> Vec<Ran> {
        let (mut answers, mut session) = (Vec::new(), Session::default());
        while answers.len() < all.len() {
            let rest = &all[answers.len()..];
            let jobs: Vec<_> =
                rest.iter().map(|(owner, transaction)| Job { transaction, owner: *owner, session }).collect();
            let done = self.primary.run(&jobs).unwrap();
            assert!(!done.ran.is_empty(), "a group does at least one");
            if !done.ops.is_empty() {
                self.at.seq += 1;
                self.primary.commit(&self.at).unwrap();
                self.replica.begin().unwrap();
                self.replica.apply(&done.ops).unwrap();
                self.replica.commit(&self.at).unwrap();
            }
            self.groups += 1;
            session = done.session;
            answers.extend(done.ran);
        }
        if content(&self.primary.conn) != content(&self.replica.conn) {
            let (primary, replica) = (dump(&self.primary.conn), dump(&self.replica.conn));
            let only = |a: &[String], b: &[String]| {
                a.iter().filter(|row| !b.contains(row)).cloned().collect::<Vec<_>>()
            };
            panic!(
                "after {all:#?}\nonly the primary has {:#?}\nonly the replica has {:#?}",
                only(&primary, &replica),
                only(&replica, &primary)
            );
        }
        answers
    }

    pub fn one(&mut self, sql: &str) -> Outcome {
        self.run(&[&[sql]]).remove(0).remove(0)
    }

    pub fn refused(&mut self, sql: &str) -> String {
        self.one(sql).error.unwrap_or_else(|| panic!("not refused: {sql}"))
    }
}

pub fn transaction(statements: &[&str]) -> Transaction {
    let plain = |sql: &&str| Statement { sql: (*sql).to_owned(), ..Statement::default() };
    Transaction { statements: statements.iter().map(plain).collect(), continues: false }
}

pub fn job(transaction: &Transaction) -> Job<'_> {
    Job { transaction, owner: 0, session: Session::default() }
}

fn dump(conn: &Connection) -> Vec<String> {
    let mut tables = conn.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema").unwrap();
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let tables: Vec<(String, String)> = tables.collect::<Result<_, _>>().unwrap();
    let mut all = Vec::new();
    for (name, sql) in tables {
        let named = format!("SELECT * FROM {}", changeset::quoted(&name));
        if sql.starts_with("CREATE TABLE") {
            let mut rows = conn.prepare(&named).unwrap();
            let width = rows.column_count();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let row: Vec<_> = (0..width).map(|i| format!("{:?}", row.get_ref(i).unwrap())).collect();
                all.push(format!("{name} {row:?}"));
            }
        }
        all.push(sql);
    }
    all
}

pub fn content(conn: &Connection) -> String {
    crate::digest::content(conn).unwrap()
}

pub fn pair() -> Pair {
    Pair::new(&Config::default())
}
