//! What is recorded on one database makes another equal to it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use changeset::{Conflict, Error, Recorder, apply};
use proptest::prelude::*;
use rusqlite::{Connection, config::DbConfig, types::Value};

const SCHEMA: &str = "CREATE TABLE t (k INTEGER PRIMARY KEY, u INTEGER UNIQUE, v TEXT);
    CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE parent (id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE child (id INTEGER PRIMARY KEY, p TEXT REFERENCES parent ON DELETE CASCADE);
    CREATE TABLE _standfast_own (k INTEGER PRIMARY KEY, v);
    CREATE TRIGGER t_log AFTER INSERT ON t BEGIN INSERT INTO log (what) VALUES (new.v || random()); END;";

fn primary() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    conn
}

fn replica() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    conn
}

fn record(conn: &Connection, work: impl FnOnce(&Connection)) -> Vec<u8> {
    conn.execute_batch("BEGIN").unwrap();
    let recorder = Recorder::start(conn).unwrap();
    work(conn);
    let bytes = recorder.changeset().unwrap();
    drop(recorder);
    conn.execute_batch("COMMIT").unwrap();
    bytes
}

fn apply_all(conn: &Connection, bytes: &[u8]) -> Result<(), Error> {
    conn.execute_batch("BEGIN").unwrap();
    let done = apply(conn, bytes);
    conn.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).unwrap();
    done
}

fn content(conn: &Connection) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for table in ["t", "log", "parent", "child"] {
        let mut rows = conn.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
        let width = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            all.push((0..width).map(|i| row.get(i).unwrap()).collect());
        }
    }
    all
}

fn sql(text: &str) -> impl FnOnce(&Connection) + '_ {
    move |conn| conn.execute_batch(text).unwrap()
}

#[test]
fn triggers_cascades_and_random_values_arrive_as_their_effects() {
    let (a, b) = (primary(), replica());
    for work in [
        "INSERT INTO t VALUES (1, 10, 'x'), (2, 20, hex(randomblob(8)))",
        "INSERT INTO parent VALUES ('p'), ('q'); INSERT INTO child (p) VALUES ('p'), ('p'), ('q')",
        "DELETE FROM parent WHERE id = 'p'",
        "UPDATE t SET k = k + 100, v = datetime('now')",
    ] {
        apply_all(&b, &record(&a, sql(work))).unwrap();
        assert_eq!(content(&a), content(&b), "{work}");
    }
}

#[test]
fn what_was_rolled_back_is_not_recorded() {
    let (a, b) = (primary(), replica());
    let bytes = record(&a, |conn| {
        conn.execute_batch("SAVEPOINT s; INSERT INTO t VALUES (1, 1, 'gone'); ROLLBACK TO s; RELEASE s")
            .unwrap();
        conn.execute_batch("SAVEPOINT s; INSERT INTO t VALUES (2, 2, 'kept'); RELEASE s").unwrap();
    });
    apply_all(&b, &bytes).unwrap();
    assert_eq!(content(&a), content(&b));
    assert!(record(&a, sql("UPDATE t SET v = v")).is_empty(), "a change to the same value is none");
}

#[test]
fn private_tables_stay_private() {
    let a = primary();
    assert!(record(&a, sql("INSERT INTO _standfast_own VALUES (1, 1)")).is_empty());
}

#[test]
fn swapped_unique_values_are_applied() {
    let (a, b) = (primary(), replica());
    apply_all(&b, &record(&a, sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')"))).unwrap();
    let swap =
        "UPDATE t SET u = -1 WHERE k = 1; UPDATE t SET u = 1 WHERE k = 2; UPDATE t SET u = 2 WHERE k = 3;
        UPDATE t SET u = 3 WHERE k = 1";
    apply_all(&b, &record(&a, sql(swap))).unwrap();
    assert_eq!(content(&a), content(&b));
}

#[test]
fn a_database_that_differs_is_a_conflict_and_unchanged() {
    let (a, b) = (primary(), replica());
    let insert = record(&a, sql("INSERT INTO t VALUES (1, 1, 'a')"));
    let update = record(&a, sql("UPDATE t SET v = 'b'"));
    let conflict = |result: Result<(), Error>| match result {
        Err(Error::Conflict { table, kind }) => (table, kind),
        other => panic!("no conflict: {other:?}"),
    };
    assert_eq!(conflict(apply_all(&b, &update)), ("t".to_owned(), Conflict::NotFound));
    apply_all(&b, &insert).unwrap();
    assert_eq!(conflict(apply_all(&b, &insert)).1, Conflict::Exists);
    b.execute_batch("UPDATE t SET v = 'other'").unwrap();
    assert_eq!(conflict(apply_all(&b, &update)).1, Conflict::Data);
    b.execute_batch("DROP TABLE t").unwrap();
    assert_eq!(conflict(apply_all(&b, &update)).1, Conflict::Schema);
}

#[test]
fn garbage_is_an_error() {
    let b = replica();
    for bytes in [&b"garbage"[..], &[0xff; 64], b"T", b"T\x01\x01t\0\x12\0"] {
        assert!(apply_all(&b, bytes).is_err(), "{bytes:?}");
    }
}

fn statement() -> impl Strategy<Value = String> {
    let key = 0..12_i64;
    prop_oneof![
        (key.clone(), 0..40_i64)
            .prop_map(|(k, u)| format!("INSERT OR IGNORE INTO t VALUES ({k}, {u}, 'v{u}')")),
        (key.clone(), 0..40_i64)
            .prop_map(|(k, u)| format!("INSERT OR REPLACE INTO t VALUES ({k}, {u}, random())")),
        (key.clone(), key.clone())
            .prop_map(|(k, to)| format!("UPDATE OR IGNORE t SET k = {to} WHERE k = {k}")),
        (key.clone(), 0..40_i64).prop_map(|(k, u)| format!("UPDATE OR REPLACE t SET u = {u} WHERE k = {k}")),
        key.clone().prop_map(|k| format!("DELETE FROM t WHERE k = {k}")),
        key.clone().prop_map(|k| format!("INSERT OR IGNORE INTO parent VALUES ('p{k}')")),
        key.clone().prop_map(|k| format!("INSERT INTO child (p) SELECT id FROM parent WHERE id = 'p{k}'")),
        key.prop_map(|k| format!("DELETE FROM parent WHERE id = 'p{k}'")),
        Just("UPDATE OR IGNORE t SET u = 40 - u".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_history_leaves_both_equal(batches in prop::collection::vec(prop::collection::vec(statement(), 1..12), 1..12)) {
        let (a, b) = (primary(), replica());
        for batch in batches {
            let bytes = record(&a, |conn| batch.iter().for_each(|s| conn.execute_batch(s).unwrap()));
            apply_all(&b, &bytes).unwrap();
            prop_assert_eq!(content(&a), content(&b));
        }
    }
}
