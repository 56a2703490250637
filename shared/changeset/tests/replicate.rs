//! What is recorded on one database makes another equal to it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use changeset::{Conflict, Error, Replicated};
use proptest::prelude::*;
use rusqlite::{Connection, config::DbConfig};

const SCHEMA: &str = r#"CREATE TABLE t (k INTEGER PRIMARY KEY, u INTEGER UNIQUE, v TEXT);
    CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE parent (id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE child (id INTEGER PRIMARY KEY, p TEXT REFERENCES parent ON DELETE CASCADE);
    CREATE TABLE wide (a TEXT COLLATE NOCASE, b INTEGER, r REAL, twice AS (b * 2) STORED, any, n NUMERIC, late AS (r),
        last DEFAULT 7, PRIMARY KEY (b, a)) WITHOUT ROWID;
    CREATE TABLE "odd ""name" ("a ""column" INTEGER PRIMARY KEY, "select" BLOB UNIQUE);
    CREATE TABLE plain (a, b UNIQUE, oid AS (a));
    CREATE TABLE keyed (a TEXT PRIMARY KEY, rowid TEXT, b);
    CREATE TABLE pairs (a, b, PRIMARY KEY (a, b));
    CREATE TABLE _standfast_own (k INTEGER PRIMARY KEY, v);
    CREATE TRIGGER t_log AFTER INSERT ON t BEGIN INSERT INTO log (what) VALUES (new.v || random()); END;"#;

fn primary() -> Replicated {
    let conn = Replicated::new(Connection::open_in_memory().unwrap());
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    conn.listen(true);
    conn
}

fn replica() -> Replicated {
    let conn = Replicated::new(Connection::open_in_memory().unwrap());
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    conn
}

fn record(conn: &Replicated, work: impl FnOnce(&Replicated)) -> Vec<u8> {
    conn.execute_batch("BEGIN").unwrap();
    conn.record().unwrap();
    work(conn);
    let bytes = conn.take().unwrap();
    conn.execute_batch("COMMIT").unwrap();
    bytes
}

fn apply_all(conn: &Replicated, bytes: &[u8]) -> Result<(), Error> {
    apply_together(conn, &[bytes])
}

fn apply_together(conn: &Replicated, changesets: &[&[u8]]) -> Result<(), Error> {
    conn.execute_batch("BEGIN").unwrap();
    let done = conn.apply(changesets.iter().copied());
    conn.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).unwrap();
    done
}

/// As SQLite has it: text may be no UTF-8.
fn content(conn: &Connection) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let tables = ["t", "log", "parent", "child", "wide", "\"odd \"\"name\"", "plain", "keyed", "pairs"];
    for table in tables {
        let rowid = if ["parent", "wide"].contains(&table) { "1" } else { "_rowid_" };
        let mut rows = conn.prepare(&format!("SELECT {rowid}, * FROM {table} ORDER BY 1, 2")).unwrap();
        let width = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            all.push((0..width).map(|i| format!("{:?}", row.get_ref(i).unwrap())).collect());
        }
    }
    all
}

fn sql(text: &str) -> impl FnOnce(&Replicated) + '_ {
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

/// Rows are known by rowid: tables without a primary key, NULL in a key, and rowids that were chosen or changed.
#[test]
fn rows_that_no_key_tells_apart_are_replicated_with_their_rowids() {
    let (a, b) = (primary(), replica());
    for work in [
        "INSERT INTO plain VALUES (1, 1), (1, NULL), (1, NULL), (NULL, 2)",
        "UPDATE plain SET a = 2 WHERE rowid IN (2, 4); DELETE FROM plain WHERE rowid = 3",
        "INSERT INTO plain (rowid, a, b) VALUES (100, 'x', 3), (-5, 'y', 4); UPDATE plain SET rowid = rowid + 1000",
        "INSERT OR REPLACE INTO plain (a, b) VALUES ('z', 3)",
        "INSERT INTO keyed VALUES ('a', 'not the rowid', 1), (NULL, 'n', 2), (NULL, 'm', 3)",
        "UPDATE keyed SET b = b + 1, rowid = 'changed' WHERE a IS NULL; UPDATE keyed SET _rowid_ = 77 WHERE b = 3",
        "INSERT INTO pairs VALUES (1, NULL), (1, NULL), (NULL, NULL), (2, 2)",
        "UPDATE pairs SET b = 3 WHERE rowid = 2; DELETE FROM pairs WHERE a IS NULL; UPDATE pairs SET a = a + 1",
        "DELETE FROM plain; DELETE FROM keyed; INSERT INTO keyed VALUES ('b', 1, 1)",
    ] {
        apply_all(&b, &record(&a, sql(work))).unwrap();
        assert_eq!(content(&a), content(&b), "{work}");
    }
}

/// Earlier versions recorded the rows of `keyed` by its primary key; what they left in a log is still applied.
#[test]
fn a_changeset_by_primary_key_is_still_applied() {
    let b = replica();
    let fields = |values: &[&[u8]]| values.concat();
    let text = |text: &str| [&[3, text.len() as u8], text.as_bytes()].concat();
    let section = [b"T\x03\x01\x00\x00keyed\x00".as_slice(), &[18, 0]].concat();
    let insert = fields(&[&section, &text("k"), &text("r"), &text("v")]);
    apply_all(&b, &insert).unwrap();
    let update =
        fields(&[b"T\x03\x01\x00\x00keyed\x00", &[23, 0], &text("k"), &[0], &text("v"), &[0, 0], &text("w")]);
    apply_all(&b, &update).unwrap();
    let row: (String, String, String) =
        b.query_row("SELECT * FROM keyed", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!(row, ("k".into(), "r".into(), "w".into()));
}

#[test]
fn what_was_rolled_back_is_not_recorded() {
    let (a, b) = (primary(), replica());
    let bytes = record(&a, |conn| {
        let mark = conn.mark();
        conn.execute_batch("SAVEPOINT s; INSERT INTO t VALUES (1, 1, 'gone'); ROLLBACK TO s; RELEASE s")
            .unwrap();
        conn.rewind(mark);
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
    b.schema_changed();
    assert_eq!(conflict(apply_all(&b, &update)).1, Conflict::Schema);
}

/// A job's insert, claim and completion reach a replica within milliseconds, and cost it one write of the row.
#[test]
fn what_is_applied_together_writes_each_row_once() {
    let (a, b) = (primary(), replica());
    let steps = |steps: &[&str]| steps.iter().map(|step| record(&a, sql(step))).collect::<Vec<_>>();
    let writes = |recorded: Vec<Vec<u8>>| {
        let before = b.total_changes();
        apply_together(&b, &recorded.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>()).unwrap();
        assert_eq!(content(&a), content(&b));
        b.total_changes() - before
    };
    let parent = ["INSERT INTO parent VALUES ('p'), ('q')"];
    assert_eq!(writes(steps(&parent)), 2);
    let insert = "INSERT INTO wide (a, b, any, n) VALUES ('x', 1, 'queued', 0), ('y', 2, NULL, 0)";
    let claim = "UPDATE wide SET any = 'running', n = n + 1 WHERE b = 1";
    let complete = "UPDATE wide SET any = NULL, r = 0.5 WHERE b = 1";
    assert_eq!(writes(steps(&[insert, claim, complete])), 2, "two rows, one of them changed twice");
    assert_eq!(writes(steps(&[claim, "UPDATE wide SET n = n + 1", complete])), 2);
    assert_eq!(writes(steps(&[claim, "DELETE FROM wide WHERE b = 1"])), 1);
    assert_eq!(
        writes(steps(&["INSERT INTO wide (a, b) VALUES ('z', 3)", "DELETE FROM wide WHERE b = 3"])),
        0
    );
    let again = ["DELETE FROM wide WHERE b = 2", "INSERT INTO wide (a, b) VALUES ('Y', 2)"];
    assert_eq!(writes(steps(&again)), 2, "another row with the same key");
    assert_eq!(
        writes(steps(&["INSERT INTO t VALUES (1, 1, 'a')", "UPDATE t SET u = 2", "UPDATE t SET u = 3"])),
        4,
        "a trigger's row, and one by one where more than the key is unique"
    );
}

/// A change that does not fit the one before it is a conflict, as one that does not fit the row is.
#[test]
fn changes_that_cannot_follow_each_other_are_a_conflict() {
    let a = primary();
    let insert = record(&a, sql("INSERT INTO wide (a, b, any) VALUES ('x', 1, 'first')"));
    let first = record(&a, sql("UPDATE wide SET any = 'second'"));
    let second = record(&a, sql("UPDATE wide SET any = 'third'"));
    let delete = record(&a, sql("DELETE FROM wide"));
    let ends = |changesets: &[&[u8]]| match apply_together(&replica(), changesets) {
        Err(Error::Conflict { table, kind }) => (table, kind),
        other => panic!("no conflict: {other:?}"),
    };
    let conflict = |kind| ("wide".to_owned(), kind);
    assert_eq!(ends(&[&insert, &second]), conflict(Conflict::Data));
    assert_eq!(ends(&[&insert, &first, &delete]), conflict(Conflict::Data));
    assert_eq!(ends(&[&insert, &first, &insert]), conflict(Conflict::Exists));
    assert_eq!(ends(&[&insert, &first, &second, &delete, &first]), conflict(Conflict::NotFound));
    assert_eq!(ends(&[&insert, &insert]), conflict(Conflict::Exists));
}

#[test]
fn garbage_is_an_error() {
    let b = replica();
    for bytes in [&b"garbage"[..], &[0xff; 64], b"T", b"T\x01\x01t\0\x12\0"] {
        assert!(apply_all(&b, bytes).is_err(), "{bytes:?}");
    }
}

/// SQL text of a value of each type.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("NULL".to_owned()),
        any::<i64>().prop_map(|n| if n == i64::MIN { "0".to_owned() } else { n.to_string() }),
        (-3..3_i64).prop_map(|n| format!("{n}.5")),
        (-3..3_i64).prop_map(|n| format!("{n}.0")),
        (0..300_usize).prop_map(|n| format!("hex(zeroblob({n}))")),
        (0..300_usize).prop_map(|n| format!("zeroblob({n})")),
        Just("CAST(x'ff00fe' AS TEXT)".to_owned()),
    ]
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
        key.clone().prop_map(|k| format!("DELETE FROM parent WHERE id = 'p{k}'")),
        Just("UPDATE OR IGNORE t SET u = 40 - u".to_owned()),
        Just("DELETE FROM t".to_owned()),
        Just("INSERT INTO t SELECT k + 1, u + 3, v FROM t".to_owned()), // may fail half way
        key.clone().prop_map(|k| format!("UPDATE t SET u = u + 1 WHERE k > {k}")), // as well
        (0..4_i64, "[abAB]", any_value()).prop_map(|(b, a, any)| format!(
            "INSERT INTO wide (a, b, r, any, n) VALUES ('{a}', {b}, {any}, {any}, {any})
             ON CONFLICT DO UPDATE SET any = any || {any}, r = {any}, a = excluded.a"
        )),
        (0..4_i64, 0..4_i64)
            .prop_map(|(b, to)| format!("UPDATE OR IGNORE wide SET b = {to}, last = {b} WHERE b = {b}")),
        (0..4_i64).prop_map(|b| format!("UPDATE OR REPLACE wide SET a = upper(a), n = n + 1 WHERE b >= {b}")),
        (0..4_i64).prop_map(|b| format!("DELETE FROM wide WHERE b = {b}")),
        (0..4_i64, any_value())
            .prop_map(|(b, any)| format!("INSERT OR REPLACE INTO plain VALUES ({any}, nullif({b}, 0))")),
        (0..9_i64, 0..9_i64)
            .prop_map(|(from, to)| format!("UPDATE OR REPLACE plain SET rowid = {to} WHERE rowid = {from}")),
        (0..4_i64).prop_map(|b| format!("DELETE FROM plain WHERE b = {b}")),
        (0..4_i64, any_value())
            .prop_map(|(a, any)| format!("INSERT INTO pairs VALUES (nullif({a}, 2), {any}), (NULL, {a})")),
        (0..4_i64)
            .prop_map(|a| format!("UPDATE OR IGNORE pairs SET a = b, b = {a} WHERE a IS NULL OR a = {a}")),
        (0..4_i64, any_value()).prop_map(|(a, any)| format!(
            "INSERT INTO keyed VALUES (nullif({a}, 1), {any}, {a}) ON CONFLICT DO UPDATE SET b = {any}"
        )),
        (0..4_i64, any_value())
            .prop_map(|(k, any)| format!("INSERT OR REPLACE INTO \"odd \"\"name\" VALUES ({k}, {any})")),
    ]
}

/// As the database runs a client's transaction: one that fails is undone, and the others go on.
fn in_savepoint(conn: &Replicated, sql: &str) {
    conn.execute_batch("SAVEPOINT s").unwrap();
    let mark = conn.mark();
    if conn.execute_batch(sql).is_err() {
        conn.execute_batch("ROLLBACK TO s").unwrap();
        conn.rewind(mark);
    }
    conn.execute_batch("RELEASE s").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_history_leaves_both_equal(
        batches in prop::collection::vec(prop::collection::vec(statement(), 1..12), 1..12),
        together in 1..5_usize,
    ) {
        let (a, b) = (primary(), replica());
        for batches in batches.chunks(together) {
            let record = |batch: &Vec<String>| {
                record(&a, |conn| batch.iter().for_each(|s| in_savepoint(conn, s)))
            };
            let recorded: Vec<_> = batches.iter().map(record).collect();
            apply_together(&b, &recorded.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(content(&a), content(&b));
        }
    }
}
