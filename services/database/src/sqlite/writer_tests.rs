//! Groups of transactions on a primary, applied to a replica that must end equal.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use proptest::prelude::*;

use super::*;
use crate::entry::Op;
use crate::sqlite::group::Transaction;
use crate::sqlite::testing::{Pair, content, job, pair, transaction};
use crate::wire::Statement;

#[test]
fn effects_and_not_statements_are_replicated() {
    let mut pair = pair();
    pair.run(&[
        &["CREATE TABLE t (k INTEGER PRIMARY KEY AUTOINCREMENT, v)", "INSERT INTO t (v) VALUES (random())"],
        &["CREATE TABLE log (id INTEGER PRIMARY KEY, what, at)"],
        &["CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log (what, at) VALUES (new.v, datetime('now')); END"],
    ]);
    let answers = pair.run(&[
        &["INSERT INTO t (v) VALUES (hex(randomblob(16))), ('x')"],
        &["UPDATE t SET v = random() WHERE k = 1", "SELECT count(*) FROM log"],
        &["INSERT INTO t (v) VALUES ('gone') RETURNING k", "DELETE FROM t WHERE v = 'gone'"],
    ]);
    assert_eq!((answers[0][0].rows_affected, answers[0][0].last_insert_id), (Some(2), Some(3)));
    assert_eq!(answers[1][0].last_insert_id, None, "an update inserts nothing");
    assert_eq!(answers[1][1].rows.as_ref().unwrap().json, b"[2]");
    assert_eq!(answers[2][0].rows.as_ref().unwrap().json, b"[4]");
    // The counter of the row that is gone must have been replicated too, which `content` compares.
    assert_eq!(pair.one("INSERT INTO t (v) VALUES ('y')").last_insert_id, Some(5));
}

#[test]
fn a_failing_transaction_undoes_itself_only() {
    let mut pair = pair();
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY)");
    let answers = pair.run(&[
        &["INSERT INTO t VALUES (1)"],
        &["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (9)"],
        &["INSERT INTO t VALUES (3)"],
        &["INSERT OR ROLLBACK INTO t VALUES (1)"],
        &["CREATE TABLE u (k INTEGER PRIMARY KEY)", "INSERT INTO u VALUES (1)", "nonsense"],
        &["INSERT INTO t VALUES (4)"],
    ]);
    assert_eq!(answers[1].len(), 2, "nothing runs after an error");
    assert_eq!(answers[1][1].error.as_deref(), Some("UNIQUE constraint failed: t.k"));
    assert!(answers[3][0].error.is_some());
    assert!(answers[4][2].error.as_deref().unwrap().contains("syntax error"));
    let all = pair.one("SELECT group_concat(k) FROM t");
    assert_eq!(all.rows.unwrap().json, b"[\"1,3,4\"]");
    assert!(pair.refused("SELECT * FROM u").contains("no such table"));
}

#[test]
fn what_cannot_replicate_is_refused_in_words() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE p (k TEXT PRIMARY KEY)",
        "CREATE TABLE c (k INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE)",
    ]]);
    for (sql, says) in [
        ("CREATE TABLE t (rowid, _rowid_, oid)", "has columns rowid, _rowid_ and oid and no PRIMARY KEY"),
        ("CREATE TABLE _standfast_x (k INTEGER PRIMARY KEY)", "belong to Standfast"),
        ("ALTER TABLE p RENAME TO _standfast_p", "belong to Standfast"),
        ("CREATE TEMP TABLE t (k INTEGER PRIMARY KEY)", "temporary"),
        ("CREATE TEMP VIEW t AS SELECT 1", "temporary views and triggers are refused"),
        ("CREATE VIRTUAL TABLE t USING rtree(a, b, c)", "virtual tables (rtree) are refused"),
        ("CREATE VIRTUAL TABLE t USING fts4(a)", "virtual tables (fts4) are refused"),
        ("DELETE FROM _standfast_position", "belongs to Standfast"),
        ("DROP TABLE _standfast_position", "belong to Standfast"),
        ("ATTACH 'x.db' AS x", "ATTACH and DETACH are refused"),
        ("DETACH x", "ATTACH and DETACH are refused"),
        ("VACUUM", "VACUUM is not replicated"),
        ("BEGIN", "?transaction"),
        ("/* hidden */ COMMIT", "?transaction"),
        ("SAVEPOINT x", "?transaction"),
        ("PRAGMA journal_mode = DELETE", "PRAGMA journal_mode can be asked, not set"),
        ("PRAGMA recursive_triggers = ON", "PRAGMA recursive_triggers can be asked, not set"),
        ("ROLLBACK", "?transaction"),
        ("RELEASE x", "?transaction"),
        ("PRAGMA writable_schema = ON", "refused"),
        ("INSERT INTO p VALUES ('a'); DELETE FROM p", "one string holds one statement"),
        ("UPDATE sqlite_schema SET sql = ''", "may not be modified"),
        ("SELECT load_extension('x')", "load_extension is refused"),
        ("", "an empty statement"),
        ("SELECT ?", "the statement has 1 parameters, 0 were given"),
    ] {
        let error = pair.refused(sql);
        assert!(error.contains(says), "{sql}: {error}");
    }
    assert_eq!(pair.one("PRAGMA table_info(p)").error, None);
    assert_eq!(pair.one("INSERT INTO p VALUES ('a')").error, None);
}

/// Rows are known by their rowid: a key may be NULL as SQLite allows, or be missing, and the cost of a change does not
/// grow with the table. `CREATE TABLE … AS SELECT` arrives as its rows.
#[test]
fn tables_without_a_key_and_keys_that_are_null_are_replicated() {
    let mut pair = pair();
    for sql in [
        "CREATE TABLE p (k TEXT PRIMARY KEY, v)",
        "INSERT INTO p VALUES (NULL, 1), (NULL, 2), ('a', 3)",
        "UPDATE p SET k = NULL WHERE v = 3",
        "UPDATE p SET v = v + 1 WHERE k IS NULL",
        "CREATE TABLE pairs (a, b, PRIMARY KEY (a, b))",
        "INSERT INTO pairs VALUES (1, NULL), (1, NULL), (NULL, NULL)",
        "CREATE TABLE IF NOT EXISTS main.noise AS SELECT random() AS r, v, hex(randomblob(8)) FROM p ORDER BY random()",
        "CREATE TABLE IF NOT EXISTS noise AS SELECT 1",
        "DELETE FROM noise WHERE rowid = 2",
        "CREATE TABLE empty AS SELECT * FROM noise WHERE random() IS NULL",
        "INSERT INTO empty SELECT * FROM noise",
        "UPDATE empty SET rowid = rowid + 100",
    ] {
        assert_eq!(pair.one(sql).error, None, "{sql}");
        let rowids = |writer: &Writer| -> String {
            let all = "SELECT group_concat(rowid || ' ' || quote(k) || ' ' || v) FROM p";
            writer.conn.query_row(all, [], |row| row.get::<_, Option<String>>(0)).unwrap().unwrap_or_default()
        };
        assert_eq!(rowids(&pair.primary), rowids(&pair.replica), "{sql}");
    }
}

#[test]
fn endless_and_huge_statements_end_in_an_error_and_harm_nobody() {
    let mut pair = Pair::new(&Config {
        write_time_ms: 50,
        rows_max: 100,
        result_bytes_max: 10_000,
        ..Config::default()
    });
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let answers = pair.run(&[
        &["INSERT INTO t VALUES (1, 'kept')"],
        &[&format!("{endless} INSERT INTO t (v) SELECT i FROM n")],
        &[&format!("{endless} SELECT max(i) FROM n")],
        &["INSERT INTO t VALUES (2, 'kept')"],
    ]);
    assert!(answers[1][0].error.as_deref().unwrap().contains("longer than allowed"), "{answers:?}");
    assert!(answers[2][0].error.as_deref().unwrap().contains("longer than allowed"));
    assert_eq!(pair.one("SELECT count(*) FROM t").rows.unwrap().json, b"[2]");
    assert!(pair.refused(&format!("{endless} SELECT i FROM n")).contains("more than 100 rows"));
    assert!(pair.refused("SELECT hex(zeroblob(9000))").contains("more than 10000 bytes"));
    assert!(pair.refused("SELECT zeroblob(1000000000)").contains("database.value_bytes_max"));
}

#[test]
fn rows_run_a_statement_many_times() {
    let mut pair = pair();
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)");
    let rows = (0..100)
        .map(|i| vec![crate::wire::Param::Int(i), crate::wire::Param::Text(format!("v{i}"))])
        .collect();
    let insert = Statement { sql: "INSERT INTO t VALUES (?, ?)".into(), rows, ..Statement::default() };
    let answers = pair.run_all(&[Transaction { statements: vec![insert], continues: false }]);
    assert_eq!(answers[0][0].rows_affected, Some(100));
}

#[test]
fn nothing_changed_leaves_nothing_open() {
    let mut pair = pair();
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let nothing = transaction(&["UPDATE t SET v = 1", "SELECT 1"]);
    let done = pair.primary.run(&[job(&nothing)]).unwrap();
    assert!(done.ops.is_empty() && pair.primary.conn.is_autocommit());
}

#[test]
fn a_schema_that_is_rolled_back_is_unlearned() {
    let mut pair = pair();
    pair.run(&[&["CREATE TABLE t (k INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)"]]);
    let answers = pair.run(&[
        &["CREATE TABLE s (k INTEGER PRIMARY KEY AUTOINCREMENT)", "ALTER TABLE t ADD COLUMN v"],
        &["INSERT OR ROLLBACK INTO t (k) VALUES (1)"], // undoes both, and the first is run again without it
        &["INSERT INTO t (k) VALUES (2)"],
    ]);
    assert!(answers[1][0].error.is_some() && answers[2][0].error.is_none(), "{answers:?}");
    // The whole group is undone, as when the log refuses it.
    let create = transaction(&["CREATE TABLE u (k INTEGER PRIMARY KEY AUTOINCREMENT)"]);
    pair.primary.run(&[job(&create)]).unwrap();
    pair.primary.rollback();
    assert!(pair.one("INSERT INTO t VALUES (3, 'v')").error.is_none());
}

fn statement() -> impl Strategy<Value = String> {
    let k = 0..8_i64;
    prop_oneof![
        8 => (k.clone(), k.clone()).prop_map(|(k, v)| format!("INSERT INTO t (k, u, v) VALUES ({k}, {v}, random())")),
        4 => (k.clone(), k.clone()).prop_map(|(k, v)| format!("INSERT OR REPLACE INTO t (k, u) VALUES ({k}, {v})")),
        4 => (k.clone(), k.clone()).prop_map(|(k, v)| format!("UPDATE OR IGNORE t SET u = {v} WHERE k = {k}")),
        2 => k.clone().prop_map(|k| format!("INSERT OR ROLLBACK INTO t (k) VALUES ({k})")),
        3 => k.clone().prop_map(|k| format!("DELETE FROM t WHERE k = {k}")),
        2 => k.clone().prop_map(|k| format!("INSERT INTO s (v) VALUES ('{k}')")),
        1 => Just("DELETE FROM s".to_owned()),
        1 => k.clone().prop_map(|k| format!("CREATE TABLE IF NOT EXISTS x{k} (k INTEGER PRIMARY KEY AUTOINCREMENT)")),
        1 => k.clone().prop_map(|k| format!("DROP TABLE IF EXISTS x{k}")),
        1 => k.clone().prop_map(|k| format!("ALTER TABLE t ADD COLUMN c{k} DEFAULT {k}")),
        1 => k.prop_map(|k| format!("INSERT INTO x{k} DEFAULT VALUES")),
        1 => Just("not sql".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_groups_leave_both_equal(groups in prop::collection::vec(prop::collection::vec(prop::collection::vec(statement(), 1..4), 1..5), 1..8)) {
        let mut pair = pair();
        pair.run(&[
            &["CREATE TABLE t (k INTEGER PRIMARY KEY, u INTEGER UNIQUE, v)"],
            &["CREATE TABLE s (k INTEGER PRIMARY KEY AUTOINCREMENT, v)"],
            &["CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO s (v) VALUES (old.k || random()); END"],
        ]);
        for group in groups {
            let group: Vec<_> = group.iter().map(|t| transaction(&t.iter().map(String::as_str).collect::<Vec<_>>())).collect();
            pair.run_all(&group);
        }
    }
}

#[test]
fn entry_ops_of_a_snapshot_install_are_the_whole_content() {
    let mut pair = pair();
    pair.run(&[&["CREATE TABLE t (k INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a')"]]);
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let fresh = Writer::open(&directory, &Config::default()).unwrap();
    let readers =
        crate::sqlite::reader::Readers::new(pair.primary.conn.path().unwrap().into(), &Config::default());
    let file = dir.path().join("snapshot");
    readers.copy_to(&file).unwrap();
    fresh.install(&file).unwrap();
    assert_eq!(content(&fresh.conn), content(&pair.primary.conn));
    assert_eq!(fresh.position().unwrap(), pair.at);
    fresh.begin().unwrap();
    fresh.apply(&[Op::Ddl("CREATE TABLE u (k INTEGER PRIMARY KEY)".into())]).unwrap();
    fresh.commit(&Position { seq: 9, ..pair.at.clone() }).unwrap();
    assert_eq!(fresh.position().unwrap().seq, 9);
}

/// Counters went through the log as SQL text: a name with a quote, two names of one spelling or a value that is no
/// integer left the followers' counters different, or the primary unable to write.
#[test]
fn replicas_have_the_primarys_counters_whatever_their_names_and_values() {
    let mut pair = pair();
    pair.run(&[
        &["CREATE TABLE users (k INTEGER PRIMARY KEY AUTOINCREMENT, v)"],
        &[
            "CREATE TABLE a (k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
            "CREATE TABLE \"a'b\" (k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
            "INSERT INTO \"a'b\" (v) VALUES (1), (2)",
            "INSERT INTO a (v) VALUES (1)",
        ],
    ]);
    for sql in [
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('users', 1000)",
        "INSERT INTO users (v) VALUES (1)",
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('users', 5)",
        "INSERT INTO users (v) VALUES (2)",
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('USERS', 7), ('Users', NULL), ('nowhere', 1.5)",
        "UPDATE sqlite_sequence SET seq = 'abc' WHERE name = 'a'",
        "INSERT INTO users (v) VALUES (3)",
        "INSERT INTO sqlite_sequence VALUES (NULL, 1), (0.0, 2), (-0.0, 3), (x'00ff', x''), (cast(x'ff00' AS TEXT), 4)",
        "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 0.0",
        "DELETE FROM sqlite_sequence WHERE typeof(name) <> 'text'",
        "UPDATE sqlite_sequence SET name = 'users''' WHERE name = 'users'",
        "DELETE FROM sqlite_sequence",
        "INSERT INTO \"a'b\" (v) VALUES (3)",
    ] {
        assert_eq!(pair.one(sql).error, None, "{sql}");
    }
    assert_eq!(pair.one("SELECT max(k) FROM users").rows.unwrap().json, b"[1003]");
    // A row that is moved raises no counter; where the change is applied, it is an insert.
    for group in [
        &["UPDATE users SET k = 5000 WHERE k = 1003"][..],
        &[
            "INSERT INTO users (k) VALUES (6000)",
            "UPDATE sqlite_sequence SET seq = 1003 WHERE name = 'users'",
        ],
        &[
            "ALTER TABLE users RENAME TO x",
            "UPDATE x SET k = 7000 WHERE k = 6000",
            "ALTER TABLE x RENAME TO users",
        ],
        &["DELETE FROM sqlite_sequence WHERE name = 'users'", "UPDATE users SET k = 8000 WHERE k = 7000"],
    ] {
        assert!(pair.run(&[group])[0].iter().all(|outcome| outcome.error.is_none()), "{group:?}");
    }
    assert_eq!(pair.one("DROP TABLE a").error, None);
    assert_eq!(pair.one("ALTER TABLE \"a'b\" RENAME TO a").error, None);
    assert_eq!(pair.one("INSERT INTO a (v) VALUES (4)").last_insert_id, Some(4));
}
