//! Full-text search: an index is kept in tables that are replicated by row, so replicas have the same index.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::group::changes_schema;
use super::testing::{Pair, content, pair, transaction};
use super::writer::Duty;
use crate::config::Config;

fn shown(pair: &mut Pair, sql: &str) -> String {
    let outcome = pair.one(sql);
    assert_eq!(outcome.error, None, "{sql}");
    String::from_utf8(outcome.rows.unwrap().json).unwrap()
}

/// Each index fits its content on both sides, by FTS5's own word, and both find the same.
fn check(pair: &Pair, indexes: &[&str], find: &str) {
    let found = |writer: &super::writer::Writer| -> String {
        // A connection of its own, as readers have.
        let conn = rusqlite::Connection::open(&writer.file).unwrap();
        for index in indexes {
            conn.execute_batch(&format!("INSERT INTO {index}({index}, rank) VALUES ('integrity-check', 1)"))
                .unwrap_or_else(|e| panic!("{index}: {e}"));
        }
        conn.query_row(find, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
    };
    assert_eq!(found(&pair.primary), found(&pair.replica), "{find}");
}

#[test]
fn an_index_of_any_form_is_the_same_on_a_replica() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE VIRTUAL TABLE plain USING fts5(title, body, tokenize = 'porter')",
        "INSERT INTO plain VALUES ('in the same transaction', 'runs')",
    ]]);
    pair.run(&[&[
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, title TEXT, body TEXT)",
        "CREATE VIRTUAL TABLE ext USING fts5(title, body, content='docs', content_rowid='id')",
        "CREATE TRIGGER ai AFTER INSERT ON docs BEGIN INSERT INTO ext(rowid, title, body) VALUES (new.id, new.title, new.body); END",
        "CREATE TRIGGER ad AFTER DELETE ON docs BEGIN INSERT INTO ext(ext, rowid, title, body) VALUES ('delete', old.id, old.title, old.body); END",
        "CREATE TRIGGER au AFTER UPDATE ON docs BEGIN
            INSERT INTO ext(ext, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
            INSERT INTO ext(rowid, title, body) VALUES (new.id, new.title, new.body); END",
        "CREATE VIRTUAL TABLE bare USING fts5(x, content='', contentless_delete=1)",
        "CREATE VIRTUAL TABLE tri USING fts5(x, tokenize='trigram', prefix='2 3')",
        "CREATE VIRTUAL TABLE words USING fts5vocab(plain, row)",
    ]]);
    let answers = pair.run(&[
        &[
            "INSERT INTO docs (title, body) VALUES ('one', 'quick brown'), ('two', 'brown fox')",
            "SELECT count(*) FROM ext('brown')",
        ],
        &["INSERT INTO plain VALUES ('failed', 'undone')", "nonsense"],
        &[
            "INSERT INTO plain VALUES ('kept', 'jumping'), ('gone', 'jumped')",
            "SAVEPOINT s",
            "DELETE FROM plain",
            "ROLLBACK TO s",
        ],
        &["UPDATE docs SET body = 'lazy dog' WHERE id = 1", "DELETE FROM docs WHERE id = 2"],
        &[
            "INSERT INTO bare (rowid, x) VALUES (7, 'seven'), (8, 'eight')",
            "DELETE FROM bare WHERE rowid = 7",
        ],
        &["INSERT INTO tri VALUES ('abcdef')", "UPDATE tri SET x = 'bcdefg'"],
        &[
            "INSERT INTO plain(plain, rank) VALUES ('pgsz', 64)",
            "INSERT INTO plain(plain) VALUES ('optimize')",
        ],
        &["INSERT OR ROLLBACK INTO docs (id) VALUES (1)"],
        &[
            "INSERT INTO plain(plain) VALUES ('rebuild')",
            "CREATE TABLE amid (x)",
            "DELETE FROM plain WHERE title = 'gone'",
        ],
    ]);
    assert_eq!(answers[0][1].rows.as_ref().unwrap().json, b"[2]", "what is not written yet is found");
    let failed: Vec<_> = answers.iter().map(|all| all.last().unwrap().error.is_some()).collect();
    assert_eq!(failed, [false, true, false, false, false, false, false, true, false], "{answers:#?}");
    let all = ["plain", "ext", "tri"];
    check(
        &pair,
        &all,
        "SELECT group_concat(title || rowid, ' ') FROM (SELECT title, rowid AS rowid FROM plain WHERE plain MATCH 'jump OR run' ORDER BY rank)",
    );
    check(&pair, &all, "SELECT group_concat(rowid) FROM bare('seven OR eight')");
    check(&pair, &all, "SELECT group_concat(term || doc) FROM words");
    check(&pair, &all, "SELECT highlight(tri, 0, '<', '>') FROM tri('cdef')");
    assert_eq!(
        shown(
            &mut pair,
            "SELECT id, snippet(ext, 1, '[', ']', '', 5) FROM docs JOIN ext ON ext.rowid = id WHERE ext MATCH 'dog'"
        ),
        r#"[1,"lazy [dog]"]"#
    );
    for sql in [
        "ALTER TABLE plain RENAME TO simple",
        "DROP TABLE words",
        "DROP TABLE tri",
        "INSERT INTO simple VALUES ('x', 'y')",
    ] {
        assert_eq!(pair.one(sql).error, None, "{sql}");
    }
    check(&pair, &["simple", "ext"], "SELECT group_concat(rowid) FROM simple('y OR jump')");
}

/// The tables of an index are the index's own; what is in them is no client's to write.
#[test]
fn clients_reach_an_index_through_itself_only() {
    let mut pair = pair();
    pair.run(&[&["CREATE VIRTUAL TABLE ft USING fts5(x)", "INSERT INTO ft VALUES ('a')"]]);
    for sql in [
        "DELETE FROM ft_data",
        "UPDATE ft_content SET c0 = 'b'",
        "INSERT INTO ft_docsize VALUES (9, x'00')",
        "DROP TABLE ft_idx",
        "ALTER TABLE ft_config ADD COLUMN x",
        "CREATE TRIGGER t AFTER INSERT ON ft_content BEGIN SELECT 1; END",
        "CREATE TABLE ft_more (x) -- its name is free",
        "CREATE VIRTUAL TABLE _standfast_ft USING fts5(x)",
        "CREATE VIRTUAL TABLE f USING fts5(x, content='_standfast_position')",
        "CREATE VIRTUAL TABLE f USING fts5(x, tokenize='nowhere')",
        "CREATE VIRTUAL TABLE temp.f USING fts5(x)",
    ] {
        let outcome = pair.one(sql);
        assert_eq!(outcome.error.is_some(), !sql.contains("free"), "{sql}: {outcome:?}");
    }
    assert_eq!(pair.one("SELECT count(*) FROM ft_content").error, None, "reading does no harm");
    check(&pair, &["ft"], "SELECT group_concat(x) FROM ft('a')");
}

/// An index that a client spoiled is no damage of the file: it must not take replicas down.
#[test]
fn an_index_that_does_not_fit_its_content_is_its_owners_affair() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body)",
        "CREATE VIRTUAL TABLE ext USING fts5(body, content='docs', content_rowid='id')",
        "INSERT INTO docs VALUES (1, 'here')",
        "INSERT INTO ext (rowid, body) VALUES (2, 'not there')",
        "INSERT INTO ext(ext, rowid, body) VALUES ('delete', 3, 'never was')",
    ]]);
    let broken = pair.one("INSERT INTO ext(ext, rank) VALUES ('integrity-check', 1)");
    assert!(broken.error.is_some(), "{broken:?}");
    for writer in [&pair.primary, &pair.replica] {
        assert_eq!(super::damage::examine(&writer.file), Ok(()));
    }
    assert_eq!(pair.one("INSERT INTO docs VALUES (2, 'goes on')").error, None);
    drop(pair.one("SELECT body FROM ext('there')")); // says what it wants
    assert_eq!(pair.one("INSERT INTO ext(ext) VALUES ('rebuild')").error, None);
    check(&pair, &["ext"], "SELECT group_concat(rowid) FROM ext('here OR goes')");
}

/// What a connection remembers of an index is of the time before it applied another's rows.
#[test]
fn a_replica_that_becomes_primary_goes_on_with_the_index_as_it_is_now() {
    let mut pair = pair();
    pair.run(&[&["CREATE VIRTUAL TABLE ft USING fts5(x)", "INSERT INTO ft(ft, rank) VALUES ('pgsz', 64)"]]);
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..8 {
        for _ in 0..20 {
            let (id, word) = (rng.random_range(1..60), rng.random_range(0..500));
            let delete = format!("DELETE FROM ft WHERE rowid = {id}");
            let insert = format!("INSERT INTO ft (rowid, x) VALUES ({id}, 'w{word} common w{}')", word / 7);
            let answers = pair.run(&[&[&delete, &insert]]);
            assert!(answers[0].iter().all(|one| one.error.is_none()), "{round}: {answers:?}");
        }
        assert_eq!(content(&pair.primary.conn), content(&pair.replica.conn));
        pair.primary.take_up(Duty::Replica).unwrap();
        pair.replica.take_up(Duty::Primary).unwrap();
        std::mem::swap(&mut pair.primary, &mut pair.replica);
        check(&pair, &["ft"], "SELECT group_concat(rowid || x) FROM ft('common')");
    }
}

#[test]
fn what_does_not_fit_an_entry_or_its_time_is_refused_and_the_index_goes_on() {
    let config = Config { entry_bytes_max: 128 << 10, value_bytes_max: 32 << 10, ..Config::default() };
    let mut pair = Pair::new(&config);
    pair.run(&[&["CREATE VIRTUAL TABLE ft USING fts5(x)", "CREATE TABLE other (x)"]]);
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) INSERT INTO ft SELECT hex(i * 7919) || ' w' || i % 50 FROM n";
    assert!(!changes_schema(&transaction(&[fill])));
    let answers =
        pair.run(&[&["INSERT INTO other VALUES (1)"], &[fill], &["INSERT INTO ft VALUES ('after')"]]);
    assert!(answers[1][0].error.as_deref().unwrap().contains("131072 bytes"), "{answers:?}");
    assert!(answers[0][0].error.is_none() && answers[2][0].error.is_none(), "{answers:?}");
    check(&pair, &["ft"], "SELECT group_concat(rowid || x) FROM ft('after OR w1')");
}
