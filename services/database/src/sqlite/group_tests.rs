//! What one transaction does to itself, and that it does nothing to the others of its group.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::sqlite::group::{Ran, Transaction};
use crate::sqlite::testing::{Pair, pair, transaction};
use crate::wire::{Outcome, Param, Statement};

const FOREIGN_KEY: &str = "FOREIGN KEY constraint failed";

fn value(pair: &mut Pair, sql: &str) -> String {
    let outcome = pair.one(sql);
    assert_eq!(outcome.error, None, "{sql}");
    String::from_utf8(outcome.rows.unwrap().json).unwrap()
}

fn error(outcomes: &[Outcome]) -> Option<&str> {
    outcomes.last().unwrap().error.as_deref()
}

/// COMMIT refused a violated deferred foreign key after the group was in the log: the primary stepped down, everybody of
/// the group was told "unknown", and the row stayed on all replicas.
#[test]
fn a_deferred_foreign_key_fails_the_transaction_that_violates_it_and_no_other() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, pid INT REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE tree (a, b, up, PRIMARY KEY (a, b), FOREIGN KEY (a, up) REFERENCES tree DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID",
        "INSERT INTO p VALUES (1), (2)",
        "INSERT INTO c VALUES (1, 1)",
    ]]);
    let answers = pair.run(&[
        &["INSERT INTO p VALUES (10)"],
        &["INSERT INTO c VALUES (2, 99)"],
        &["INSERT INTO p VALUES (99)"], // must not cure the one before it
        &["INSERT INTO c VALUES (3, 77)", "INSERT INTO p VALUES (77)"],
        &["DELETE FROM p WHERE id = 1"],
        &["DELETE FROM p WHERE id = 1", "DELETE FROM c WHERE pid = 1", "SELECT 1"],
        &["UPDATE c SET pid = 78 WHERE id = 3", "SELECT 1"],
        &["UPDATE p SET id = 78 WHERE id = 77"],
        &["INSERT INTO tree VALUES (1, 1, 2), (1, 2, 1)"],
        &["INSERT INTO tree VALUES (2, 1, 2)"],
        &["DELETE FROM tree WHERE b = 1"],
        &["INSERT INTO p VALUES (11)"],
    ]);
    let failed: Vec<_> = answers.iter().map(|outcomes| error(outcomes) == Some(FOREIGN_KEY)).collect();
    let wrong = [1, 4, 6, 7, 9, 10];
    assert_eq!(failed, (0..12).map(|i| wrong.contains(&i)).collect::<Vec<_>>(), "{answers:?}");
    assert!(answers.iter().enumerate().all(|(i, all)| wrong.contains(&i) || error(all).is_none()));
    assert_eq!(answers[6].len(), 2, "the violation is told in the place of the last statement");
    assert_eq!(value(&mut pair, "SELECT group_concat(id ORDER BY id) FROM p"), r#"["2,10,11,77,99"]"#);
    assert_eq!(value(&mut pair, "SELECT group_concat(id || ' ' || pid) FROM c"), r#"["3 77"]"#);
    assert_eq!(value(&mut pair, "SELECT count(*) FROM tree"), "[2]");
}

/// `last_insert_rowid()` was 0 in the statement after the insert, and `changes()` was some other client's.
/// Thirty views, each of the one before it twice: whoever read the last one never came back (D8).
#[test]
fn a_view_that_doubles_once_too_often_is_not_made_and_the_others_remain() {
    let mut pair = pair();
    pair.run(&[&["CREATE TABLE v0 (x)", "INSERT INTO v0 VALUES (1)"]]);
    let mut refused = 0;
    for i in 1..=30 {
        let (view, before) = (format!("v{i}"), format!("v{}", i - 1));
        let sql = format!("CREATE VIEW {view} AS SELECT a.x FROM {before} AS a, main.{before} AS b");
        let error = pair.run(&[&[&sql]])[0][0].error.clone();
        if let Some(error) = error {
            assert!(error.starts_with("the views name each other too often"), "{error}");
            refused = i;
            break;
        }
    }
    assert_eq!(refused, 11, "1,023 copies are no harm, 2,047 are too many");
    let answers = pair.run(&[&["SELECT count(*) FROM v6"], &["CREATE VIEW other AS SELECT x FROM v9"]]);
    assert!(answers.iter().all(|all| all[0].error.is_none()), "{answers:?}");
}

#[test]
fn counts_and_rowids_are_those_of_a_connection_that_is_the_clients_own() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE p (k INTEGER PRIMARY KEY, n)",
        "CREATE TABLE k (v)",
        "CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE log (what, n)",
        "CREATE TRIGGER t AFTER UPDATE ON p BEGIN INSERT INTO log VALUES ('in', changes()); END",
    ]]);
    let all = "SELECT last_insert_rowid(), changes(), total_changes()";
    let shown = |outcomes: &[Outcome]| -> Vec<String> {
        let rows = outcomes.iter().filter_map(|outcome| outcome.rows.as_ref());
        rows.map(|rows| String::from_utf8(rows.json.clone()).unwrap()).collect()
    };
    let answers = pair.run(&[
        &[
            "INSERT INTO p (k, n) VALUES (41, 'x'), (42, 'x')",
            "INSERT INTO k VALUES (last_insert_rowid())",
            all,
        ],
        &[all],
        &["INSERT INTO w VALUES ('a')", all, "UPDATE p SET n = 'y'", all, "DELETE FROM p WHERE 0", all],
        &["INSERT INTO k VALUES (changes())", all],
    ]);
    assert_eq!(shown(&answers[0]), ["[1,1,3]"], "rowid 1 of k");
    assert_eq!(shown(&answers[1]), ["[0,0,0]"]);
    assert_eq!(shown(&answers[2]), ["[0,1,1]", "[0,2,5]", "[0,0,5]"]);
    assert_eq!(answers[2][2].last_insert_id, None, "what a trigger inserts is not told");
    assert_eq!(value(&mut pair, "SELECT group_concat(v) FROM k"), r#"["42,0"]"#);
    let ids: Vec<_> = answers[0].iter().map(|outcome| outcome.last_insert_id).collect();
    assert_eq!(ids, [Some(42), Some(1), None]);
    // The same row again, a row that was there, a row without a rowid.
    let answers = pair.run(&[
        &[
            "REPLACE INTO p VALUES (42, 'z')",
            "REPLACE INTO p VALUES (42, 'z')",
            "INSERT OR IGNORE INTO p VALUES (42, 'q')",
        ],
        &["INSERT INTO p VALUES (0, 'zero')", "INSERT INTO w VALUES ('b')"],
        &["INSERT INTO p VALUES (42, 'u') ON CONFLICT DO UPDATE SET n = 'u'"],
    ]);
    let ids: Vec<Vec<_>> = answers.iter().map(|all| all.iter().map(|o| o.last_insert_id).collect()).collect();
    assert_eq!(ids, [vec![Some(42), Some(42), None], vec![Some(0), None], vec![None]]);
}

/// Statements of one request that are not a transaction are still one connection's, also across groups.
#[test]
fn what_one_statement_of_a_request_inserted_the_next_may_ask_for() {
    let mut pair = pair();
    pair.run(&[&["CREATE TABLE p (k INTEGER PRIMARY KEY, n)", "CREATE TABLE k (rowid_, changed, total)"]]);
    let one = |sql: &str, continues| Transaction { continues, ..transaction(&[sql]) };
    let note = "INSERT INTO k VALUES (last_insert_rowid(), changes(), total_changes())";
    let request = [
        one("INSERT INTO p (k) VALUES (6), (7)", false),
        one("nonsense", true),
        one(note, true),
        // It ends the group; what follows runs in the next one.
        one("INSERT OR ROLLBACK INTO p (k) VALUES (7)", true),
        one("SELECT changes(), total_changes(), last_insert_rowid()", true),
        one(note, true),
    ];
    let before = pair.groups;
    let ran = pair.run_jobs(&request.each_ref().map(|transaction| (0, transaction)));
    assert!(pair.groups >= before + 2);
    assert!(ran[1].outcomes[0].error.is_some() && ran[3].outcomes[0].error.is_some());
    let all = "SELECT group_concat(rowid_ || ' ' || changed || ' ' || total) FROM k";
    assert_eq!(value(&mut pair, all), r#"["7 2 2,1 1 3"]"#);
    // Another request in the same group knows nothing of it.
    let (mine, other) = (one("INSERT INTO p (k) VALUES (8)", false), one(note, true));
    pair.run_jobs(&[(0, &mine), (1, &other)]);
    assert_eq!(value(&mut pair, "SELECT max(total) FROM k"), "[3]");
}

/// A counter that is used up is told by SQLite as a full disk, and was answered so to everybody.
#[test]
fn a_counter_that_is_used_up_is_its_senders_error_alone() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE a (k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "CREATE TABLE b (k INTEGER PRIMARY KEY, v)",
        "CREATE TABLE s (k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "CREATE TRIGGER t AFTER INSERT ON b BEGIN INSERT INTO a (v) VALUES (1); END",
        "INSERT INTO a VALUES (9223372036854775807, 'last')",
    ]]);
    let answers = pair.run(&[
        &["INSERT INTO s (v) VALUES (1)"],
        &["INSERT INTO a (v) VALUES (1)"],
        &["INSERT INTO s (v) VALUES (2)", "INSERT INTO b (v) VALUES (2)"],
        &["INSERT INTO s VALUES (9223372036854775807, 1)", "INSERT INTO s (v) VALUES (3)"],
        &["UPDATE sqlite_sequence SET seq = 'abc' WHERE name = 's'"],
        &["INSERT INTO s (v) VALUES (4)"],
        &[
            "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 's'",
            "INSERT INTO s (v) VALUES (5)",
        ],
    ]);
    let used_up = "the AUTOINCREMENT counter of a is used up: no further row can be inserted";
    assert_eq!(error(&answers[1]), Some(used_up));
    assert_eq!((answers[2].len(), error(&answers[2])), (2, Some(used_up)), "also through a trigger");
    for i in [3, 6] {
        // The transaction itself used it up, and that is undone by now.
        assert_eq!((answers[i].len(), error(&answers[i])), (2, Some("database or disk is full")));
    }
    assert!([0, 4, 5].iter().all(|i| error(&answers[*i]).is_none()), "{answers:?}");
    assert_eq!(value(&mut pair, "SELECT count(*), max(k) FROM s"), "[2,2]");
    // Values and texts that are too large are their sender's as well.
    for sql in [
        "INSERT INTO b (v) VALUES (zeroblob(900000000))",
        "INSERT INTO b (v) SELECT printf('%900000000d', 1)",
    ] {
        let answers = pair.run(&[&["INSERT INTO s (v) VALUES (1)"], &[sql]]);
        assert!(
            error(&answers[0]).is_none() && error(&answers[1]).unwrap().contains("too big"),
            "{answers:?}"
        );
    }
}

#[test]
fn rows_of_the_counters_table_are_bounded() {
    let mut pair = pair();
    pair.one("CREATE TABLE a (k INTEGER PRIMARY KEY AUTOINCREMENT)");
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)
        INSERT INTO sqlite_sequence SELECT 'x' || i, i FROM n";
    assert!(pair.refused(many).contains("more than 10000 rows"));
    assert!(pair.refused("INSERT INTO sqlite_sequence VALUES (zeroblob(2000000), 1)").contains("bytes"));
    assert_eq!(pair.one("INSERT INTO sqlite_sequence VALUES ('x', 1)").error, None);
}

/// The error was told at index 0, and each such transaction made the whole group run once more.
#[test]
fn or_rollback_undoes_its_own_transaction_and_is_told_at_its_place() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT ROLLBACK)",
        "CREATE TABLE u (k INTEGER PRIMARY KEY)",
        "CREATE TRIGGER g BEFORE INSERT ON u WHEN new.k < 0 BEGIN SELECT RAISE(ROLLBACK, 'no negatives'); END",
        "INSERT INTO t VALUES (1, 1)",
    ]]);
    let answers = pair.run(&[
        &["INSERT INTO u VALUES (1)"],
        &["INSERT INTO u VALUES (2)", "INSERT OR ROLLBACK INTO t VALUES (1, 2)", "INSERT INTO u VALUES (3)"],
        &["INSERT INTO u VALUES (4)", "SELECT 1", "INSERT INTO t VALUES (2, 1)"],
        &["INSERT INTO u VALUES (5)", "INSERT INTO u VALUES (-1)"],
        &["INSERT INTO u VALUES (6)"],
        &["UPDATE OR ROLLBACK t SET k = 1, v = 1"],
    ]);
    let told: Vec<_> = answers.iter().map(|all| (all.len(), error(all))).collect();
    assert_eq!(
        told,
        [
            (1, None),
            (2, Some("UNIQUE constraint failed: t.k")),
            (3, Some("UNIQUE constraint failed: t.v")),
            (2, Some("no negatives")),
            (1, None),
            (1, None),
        ]
    );
    assert_eq!(value(&mut pair, "SELECT group_concat(k) FROM u"), r#"["1,6"]"#);
}

/// `INSERT OR FAIL` kept nothing. Alone it keeps the rows before the one that failed, as SQLite does; together with others
/// all or nothing is what was asked for.
#[test]
fn or_fail_keeps_what_was_done_before_the_row_that_failed() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v CHECK (v < 100))",
        "CREATE TABLE log (k INTEGER PRIMARY KEY)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT OR IGNORE INTO log VALUES (new.k); END",
        "CREATE TABLE f (k INTEGER PRIMARY KEY)",
        "CREATE TRIGGER h BEFORE INSERT ON f WHEN new.k = 3 BEGIN SELECT RAISE(FAIL, 'three'); END",
        "CREATE TABLE c (k INTEGER PRIMARY KEY, p REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
    ]]);
    for (sql, says, left) in [
        (
            "INSERT OR FAIL INTO t VALUES (1, 1), (2, 2), (1, 3), (4, 4)",
            "UNIQUE constraint failed: t.k",
            "1,2",
        ),
        ("INSERT OR ABORT INTO t VALUES (5, 5), (1, 3)", "UNIQUE constraint failed: t.k", "1,2"),
        ("INSERT INTO t VALUES (5, 5), (1, 3)", "UNIQUE constraint failed: t.k", "1,2"),
        ("UPDATE OR FAIL t SET k = k + 10, v = v * 60", "CHECK constraint failed: v < 100", "2,11"),
        ("INSERT OR FAIL INTO t VALUES (20, 1), (21, 1000)", "CHECK constraint failed: v < 100", "2,11,20"),
    ] {
        assert_eq!(pair.refused(sql), says, "{sql}");
        assert_eq!(
            value(&mut pair, "SELECT group_concat(k ORDER BY k) FROM t"),
            format!("[\"{left}\"]"),
            "{sql}"
        );
    }
    assert_eq!(pair.refused("INSERT INTO f VALUES (1), (2), (3), (4)"), "three");
    assert_eq!(value(&mut pair, "SELECT group_concat(k) FROM f"), r#"["1,2"]"#);
    assert_eq!(pair.one("INSERT OR IGNORE INTO t VALUES (2, 9), (22, 9)").rows_affected, Some(1));
    // A deferred key that does not hold undoes what it kept.
    assert_eq!(pair.refused("INSERT OR FAIL INTO c VALUES (1, 999), (1, 2)"), FOREIGN_KEY);
    let answers = pair.run(&[
        &["INSERT INTO t VALUES (30, 1)", "INSERT OR FAIL INTO t VALUES (31, 1), (31, 1)"],
        &["INSERT OR FAIL INTO t VALUES (32, 1), (32, 1)"],
    ]);
    assert!(answers.iter().all(|all| error(all).is_some()));
    let rows = vec![vec![Param::Int(40)], vec![Param::Int(41)], vec![Param::Int(40)]];
    let sql = "INSERT OR FAIL INTO t (k) VALUES (?)".to_owned();
    let many = Transaction {
        statements: vec![Statement { sql, rows, ..Statement::default() }],
        ..Transaction::default()
    };
    assert!(error(&pair.run_all(&[many])[0]).is_some());
    assert_eq!(value(&mut pair, "SELECT group_concat(k ORDER BY k) FROM t"), r#"["2,11,20,22,32"]"#);
    assert_eq!(value(&mut pair, "SELECT count(*) FROM c"), "[0]");
}

/// Rows of RETURNING beyond the limit, and of statistics that each replica has for itself, were lost without a word.
#[test]
fn what_is_not_done_is_refused_in_one_line() {
    let mut pair = Pair::new(&Config { rows_max: 10, result_bytes_max: 10_000, ..Config::default() });
    pair.run(&[&["CREATE TABLE t (k INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 1)", "ANALYZE"]]);
    let eleven = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 12)
        INSERT INTO t SELECT i, 'v' FROM n RETURNING k";
    let says = "the result has more than 10 rows: change fewer rows at a time, or leave RETURNING out; nothing was changed";
    assert_eq!(pair.refused(eleven), says);
    assert!(pair.refused("UPDATE t SET v = zeroblob(20000) RETURNING v").contains("nothing was changed"));
    for sql in [
        "INSERT INTO sqlite_stat1 VALUES ('t', NULL, '1')",
        "UPDATE sqlite_stat1 SET stat = '9'",
        "DELETE FROM sqlite_stat1",
        "DELETE FROM SQLITE_STAT4",
    ] {
        assert!(pair.refused(sql).contains("is written by ANALYZE only"), "{sql}");
    }
    assert_eq!(value(&mut pair, "SELECT count(*), max(v) FROM t"), "[1,1]");
    assert_eq!(value(&mut pair, "SELECT count(*) FROM sqlite_stat1"), "[1]");
}

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";

/// A group of ten transactions that ran within their limits took nine seconds, and the primary was judged hung.
#[test]
fn times_add_up_statement_transaction_group() {
    let config =
        Config { write_time_ms: 600, transaction_time_ms: 900, schema_time_ms: 1000, ..Config::default() };
    let mut pair = Pair::new(&config);
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let slow = format!("{ENDLESS} INSERT INTO t (v) SELECT i FROM n");
    let ran =
        pair.run(&[&["INSERT INTO t (v) VALUES ('kept')"], &[&slow], &["INSERT INTO t (v) VALUES ('kept')"]]);
    assert_eq!(error(&ran[1]), Some("the statement ran for longer than allowed"));
    assert_eq!(value(&mut pair, "SELECT count(*) FROM t"), "[2]");
    // Reads in a transaction count as well, and none of its statements is over its own limit.
    let read = format!("{ENDLESS} SELECT max(i) FROM (SELECT i FROM n LIMIT 30000)");
    let many = vec![read.as_str(); 1000];
    let outcomes = pair.run(&[&many]).remove(0);
    assert_eq!(error(&outcomes), Some("the transaction ran for longer than the 900 ms that are allowed"));
    // Ten requests that each run as long as they may are ten groups, or nearly so.
    let reads = [transaction(&[read.as_str(); 2])];
    let jobs: Vec<_> = (0..20).map(|owner| (owner, &reads[0])).collect();
    let longest = longest_group(&mut pair, &jobs);
    assert!(longest < Duration::from_millis(250 + 900) * 3, "{longest:?}");
}

fn longest_group(pair: &mut Pair, jobs: &[(usize, &Transaction)]) -> Duration {
    let (mut done, mut longest) = (0, Duration::ZERO);
    while done < jobs.len() {
        let since: Instant = clock::now();
        let group: Vec<_> = jobs[done..]
            .iter()
            .map(|(owner, t)| super::Job {
                transaction: t,
                owner: *owner,
                session: super::Session::default(),
            })
            .collect();
        done += pair.primary.run(&group).unwrap().ran.len();
        pair.primary.rollback();
        longest = longest.max(clock::now() - since);
    }
    longest
}

/// An index over a large table was ended at the limit of a plain statement.
#[test]
fn a_schema_change_has_a_limit_of_its_own_and_nobody_in_its_group() {
    let config =
        Config { write_time_ms: 300, transaction_time_ms: 300, schema_time_ms: 60_000, ..Config::default() };
    let mut pair = Pair::new(&config);
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t (v) SELECT i FROM n";
    pair.one(fill);
    let other = |k: i64| transaction(&[&format!("INSERT INTO t VALUES ({k}, 1)")]);
    let (mut k, mut longest) = (0_i64, Duration::ZERO);
    while longest < Duration::from_millis(400) {
        k -= 2;
        let size = 20_000 * k.abs();
        let costly = format!("CREATE INDEX slow{size} ON t (length(hex(zeroblob({size} + v % 2))) + v)");
        let (before, index, after) = (other(k), transaction(&[&costly]), other(k - 1));
        let (groups, since) = (pair.groups, clock::now());
        let ran = pair.run_jobs(&[(0, &before), (1, &index), (2, &after)]);
        assert!(ran.iter().all(|ran| error(&ran.outcomes).is_none()), "{ran:?}");
        assert!(pair.groups >= groups + 2, "who came before is committed before");
        longest = (clock::now() - since) / 3; // of the primary's, the follower's and the comparison
    }
    assert_eq!(value(&mut pair, "SELECT count(*) FROM t WHERE k > 0"), "[1000]");
    // It has one all the same.
    let mut pair = Pair::new(&Config {
        write_time_ms: 100,
        transaction_time_ms: 100,
        schema_time_ms: 1000,
        ..Config::default()
    });
    let endless = format!("CREATE TABLE e AS {ENDLESS} SELECT 1 FROM n WHERE i < 0");
    let ran = pair.run(&[&[&endless], &["CREATE TABLE t (k)"]]);
    assert_eq!(error(&ran[0]), Some("the transaction ran for longer than the 1000 ms that are allowed"));
    assert_eq!(error(&ran[1]), None);
}

/// One transaction that was too large made its whole group run again and again, in halves.
#[test]
fn a_transaction_that_is_too_large_costs_the_others_nothing() {
    let mut pair = Pair::new(&Config { entry_bytes_max: 64 << 10, ..Config::default() });
    pair.one("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let insert = |bytes: usize| transaction(&[&format!("INSERT INTO t (v) VALUES (zeroblob({bytes}))")]);
    let several = "INSERT INTO t (v) VALUES (zeroblob(30000)), (zeroblob(30000)), (zeroblob(30000))";
    let group = [
        insert(9000),
        insert(100_000),
        transaction(&[several]),
        transaction(&[
            "CREATE TABLE u (v)",
            "INSERT INTO u VALUES (zeroblob(40000))",
            "DROP TABLE t",
            "INSERT INTO u VALUES (zeroblob(40000))",
        ]),
        transaction(&["CREATE TABLE c AS SELECT zeroblob(70000) AS v"]),
        insert(40_000),
        insert(40_000),
        insert(9000),
    ];
    let groups = pair.groups;
    let jobs: Vec<_> = group.iter().map(|transaction| (0, transaction)).collect();
    let ran: Vec<Ran> = pair.run_jobs(&jobs);
    let too_large: Vec<_> = ran.iter().map(|ran| ran.too_large).collect();
    assert_eq!(too_large, [false, true, true, true, true, false, false, false], "{ran:?}");
    assert_eq!(
        error(&ran[1].outcomes),
        Some("the transaction changes more than 65536 bytes: do it in parts")
    );
    assert!([0, 5, 6, 7].iter().all(|i| error(&ran[*i].outcomes).is_none()));
    assert_eq!(value(&mut pair, "SELECT count(*), sum(length(v)) FROM t"), "[4,98000]");
    assert!(pair.groups - groups <= 6, "{} groups", pair.groups - groups);
}

/// SQLite's savepoints, as ORMs nest their transactions with them.
#[test]
fn savepoints_undo_rows_and_schema_and_nothing_before_them() {
    let mut pair = pair();
    pair.run(&[&["CREATE TABLE t (k INTEGER PRIMARY KEY AUTOINCREMENT, v)"]]);
    let answers = pair.run(&[
        &["INSERT INTO t (v) VALUES ('a neighbour')"],
        &[
            "BEGIN",
            "INSERT INTO t (v) VALUES ('kept')",
            "SAVEPOINT \"djang0 x\"",
            "INSERT INTO t (v) VALUES ('undone')",
            "CREATE TABLE undone (k)",
            "INSERT INTO undone VALUES (1)",
            "SAVEPOINT inner",
            "DELETE FROM t",
            "ROLLBACK TO SAVEPOINT \"djang0 x\"",
            "CREATE TABLE undone (other)",
            "INSERT INTO undone VALUES (2)",
            "SAVEPOINT inner",
            "INSERT INTO t (v) VALUES ('released')",
            "RELEASE SAVEPOINT INNER",
            "RELEASE \"djang0 x\"",
            "INSERT INTO t (v) VALUES ('last')",
            "COMMIT",
        ],
        &["INSERT INTO t (v) VALUES ('another neighbour')", "SAVEPOINT s", "DELETE FROM t", "ROLLBACK TO s"],
        &["SAVEPOINT s", "INSERT INTO t (v) VALUES ('failed')", "RELEASE s", "nonsense"],
        &["SAVEPOINT client", "DELETE FROM t", "ROLLBACK TO client", "nonsense"],
    ]);
    assert!(answers[..3].iter().flatten().all(|one| one.error.is_none()), "{answers:#?}");
    assert_eq!(
        value(&mut pair, "SELECT group_concat(v, ', ' ORDER BY k) FROM t"),
        r#"["a neighbour, kept, released, last, another neighbour"]"#
    );
    assert_eq!(value(&mut pair, "SELECT other FROM undone"), "[2]");
    for (statements, says) in [
        (["SAVEPOINT a", "RELEASE b"], "no such savepoint: b"),
        (["ROLLBACK TO a", "SELECT 1"], "no such savepoint: a"),
        (["BEGIN", "BEGIN"], "cannot start a transaction within a transaction"),
        (["BEGIN", "INSERT INTO t (v) VALUES ('lost')"], "BEGIN without COMMIT"),
        (["DELETE FROM t", "COMMIT"], "cannot commit - no transaction is active"),
        (["DELETE FROM t", "ROLLBACK"], "send the statements in one request"),
    ] {
        let answers = pair.run(&[&statements]);
        assert!(error(&answers[0]).unwrap().contains(says), "{statements:?}: {answers:?}");
    }
    assert_eq!(value(&mut pair, "SELECT count(*) FROM t"), "[5]");
}

/// SQLite deletes the rows of a table that is dropped, with all that foreign keys do then; nothing else was in the log.
#[test]
fn a_referenced_table_that_is_dropped_takes_along_what_its_foreign_keys_say() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE p (id INTEGER PRIMARY KEY, up REFERENCES p ON DELETE CASCADE)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES P ON DELETE CASCADE)",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, p DEFAULT 7 REFERENCES p ON DELETE SET NULL)",
        "CREATE TABLE log (what)",
        "CREATE TRIGGER t AFTER DELETE ON c BEGIN INSERT INTO log VALUES (old.id); END",
        "INSERT INTO p VALUES (1, NULL), (2, 1)",
        "INSERT INTO c VALUES (1, 1), (2, NULL)",
        "INSERT INTO n VALUES (1, 1), (2, 2)",
    ]]);
    let answers = pair.run(&[&["INSERT INTO p VALUES (3, 2)", "DROP TABLE \"P\"", "SELECT count(*) FROM c"]]);
    assert_eq!(error(&answers[0]), None, "{answers:?}");
    assert_eq!(value(&mut pair, "SELECT group_concat(id) FROM c"), r#"["2"]"#);
    assert_eq!(value(&mut pair, "SELECT count(*), count(p) FROM n"), "[2,0]");
    // RESTRICT refuses it, keys that are deferred refuse the commit, and keys that are off are not asked.
    pair.run(&[&[
        "CREATE TABLE q (id INTEGER PRIMARY KEY)",
        "CREATE TABLE r (q REFERENCES q)",
        "INSERT INTO q VALUES (1)",
        "INSERT INTO r VALUES (1)",
    ]]);
    assert_eq!(pair.refused("DROP TABLE q"), FOREIGN_KEY);
    let answers = pair.run(&[&["PRAGMA defer_foreign_keys=ON", "DROP TABLE q"], &["DROP TABLE IF EXISTS q"]]);
    assert_eq!([error(&answers[0]), error(&answers[1])], [Some(FOREIGN_KEY); 2]);
    let answers = pair.run(&[&["PRAGMA foreign_keys=OFF", "DROP TABLE q"], &["INSERT INTO r VALUES (2)"]]);
    assert_eq!(error(&answers[0]), None);
    assert!(error(&answers[1]).unwrap().contains("no such table: main.q"), "keys are on again: {answers:?}");
}

/// What one client sets concerns no other one of its group, however its transaction ends.
#[test]
fn settings_and_temporary_tables_of_one_transaction_are_nothing_to_the_next() {
    let mut pair = pair();
    pair.run(&[&[
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p)",
    ]]);
    for last in ["SELECT 1", "nonsense", "INSERT OR ROLLBACK INTO p VALUES (NULL), (1), (1)"] {
        let answers = pair.run(&[
            &["PRAGMA foreign_keys=OFF", "PRAGMA defer_foreign_keys=ON", "CREATE TEMP TABLE mine (v)", last],
            &["INSERT INTO c (p) VALUES (9)"],
            &["SELECT * FROM mine", "SELECT 1"],
            &["PRAGMA foreign_keys", "PRAGMA defer_foreign_keys", "SELECT count(*) FROM sqlite_temp_schema"],
        ]);
        assert_eq!(error(&answers[1]), Some(FOREIGN_KEY), "{last}: {answers:#?}");
        assert_eq!(error(&answers[2]), Some("no such table: mine"), "{last}");
        let shown: Vec<_> = answers[3].iter().map(|one| one.rows.as_ref().unwrap().json.clone()).collect();
        assert_eq!(shown, [b"[1]", b"[0]", b"[0]"], "{last}");
    }
    for statements in [
        &["CREATE TEMP TABLE p (x)", "INSERT INTO p VALUES (1)"][..],
        &["CREATE TEMP TABLE q (x)", "CREATE TABLE main.Q (y)"],
        &["CREATE TEMP TABLE q (x)", "ANALYZE q"],
        &["CREATE TEMP TABLE q (x)", "REINDEX"],
        &["CREATE TEMP TABLE q (x)", "CREATE TRIGGER t AFTER INSERT ON q BEGIN SELECT 1; END"],
        &["PRAGMA legacy_alter_table=ON", "ALTER TABLE p RENAME TO q"],
    ] {
        let answers = pair.run(&[statements]);
        assert!(error(&answers[0]).is_some(), "{statements:?}");
    }
    let copy = [
        "CREATE TEMP TABLE q AS SELECT 1 AS x",
        "ALTER TABLE q RENAME TO r",
        "CREATE TABLE s AS SELECT x FROM r",
    ];
    assert_eq!(error(&pair.run(&[&copy])[0]), None);
    assert_eq!(value(&mut pair, "SELECT x FROM s"), "[1]");
}
