use rusqlite::Connection;

use super::*;

struct Given {
    dir: tempfile::TempDir,
    upload: std::path::PathBuf,
    ready: std::path::PathBuf,
}

fn given(sql: &str) -> Given {
    let dir = tempfile::tempdir().unwrap();
    let (upload, ready) = (dir.path().join("up load?.sqlite"), dir.path().join("re#dy%.sqlite"));
    Connection::open(&upload).unwrap().execute_batch(sql).unwrap();
    Given { dir, upload, ready }
}

impl Given {
    fn prepare(&self) -> Result<(), Unusable> {
        prepare(&self.upload, &self.ready, &Config::default(), || false)
    }

    fn refused(&self) -> String {
        self.prepare().unwrap_err().to_string()
    }

    fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        Connection::open(&self.ready).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn a_file_of_anybodys_gets_the_form_of_our_own() {
    for before in [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 65536",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA journal_mode = WAL",
        "PRAGMA encoding = 'UTF-8'",
    ] {
        let given = given(&format!(
            "{before}; PRAGMA user_version = 7; CREATE TABLE t (k INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
             CREATE INDEX by_v ON t (v); INSERT INTO t (v) VALUES ('a'), ('b'); DELETE FROM t WHERE k = 2;"
        ));
        given.prepare().unwrap_or_else(|e| panic!("{before}: {e}"));
        assert_eq!(given.ask::<i64>("PRAGMA page_size"), 4096, "{before}");
        assert_eq!(given.ask::<i64>("PRAGMA auto_vacuum"), 0, "{before}");
        assert_eq!(given.ask::<i64>("PRAGMA user_version"), 7, "{before}");
        assert_eq!(given.ask::<String>("PRAGMA journal_mode"), "delete", "{before}");
        assert_eq!(given.ask::<String>("SELECT k || v FROM t"), "1a", "{before}");
        assert_eq!(given.ask::<i64>("SELECT seq FROM sqlite_sequence WHERE name = 't'"), 2, "{before}");
        assert_eq!(given.ask::<String>("PRAGMA integrity_check"), "ok", "{before}");
    }
}

#[test]
fn a_search_index_comes_along_with_the_tables_that_keep_it() {
    let given = given(
        "CREATE VIRTUAL TABLE s USING fts5(body); INSERT INTO s VALUES ('some words'), ('other words');
         CREATE TABLE kept (body); CREATE VIRTUAL TABLE x USING fts5(body, content='kept');",
    );
    given.prepare().unwrap();
    assert_eq!(given.ask::<i64>("SELECT count(*) FROM s WHERE s MATCH 'words'"), 2);
    let check = "INSERT INTO s (s) VALUES ('integrity-check')";
    Connection::open(&given.ready).unwrap().execute_batch(check).unwrap();
}

#[test]
fn tables_of_the_system_do_not_come_in_and_nothing_that_stands_on_them() {
    let given = given(
        "CREATE TABLE _standfast_position (id INTEGER PRIMARY KEY, seq INTEGER);
         INSERT INTO _standfast_position VALUES (1, 99);
         CREATE TABLE _Standfast_mine (x); CREATE VIEW _standfast_view AS SELECT 1;
         CREATE TABLE t (k INTEGER PRIMARY KEY);
         CREATE TRIGGER _standfast_trigger AFTER INSERT ON t BEGIN DELETE FROM t; END;
         CREATE TRIGGER watch AFTER INSERT ON _standfast_position BEGIN DELETE FROM t; END;
         CREATE INDEX bomb ON _standfast_position (json(seq));",
    );
    given.prepare().unwrap();
    assert_eq!(given.ask::<String>("SELECT group_concat(name) FROM sqlite_schema"), "t");
}

#[test]
fn what_a_client_could_not_make_is_refused_with_its_name() {
    for (sql, says) in [
        (
            "CREATE TABLE _standfast_p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES _standfast_p(id))",
            "table c",
        ),
        ("CREATE VIRTUAL TABLE r USING rtree(id, a, b)", "table r cannot be replicated"),
        ("CREATE TABLE o (rowid, _rowid_, oid)", "table o cannot be replicated"),
        (
            "CREATE TABLE t (a); CREATE VIEW v AS SELECT * FROM t JOIN _standfast_position",
            "view v cannot be replicated",
        ),
        (
            "CREATE TABLE big (k INTEGER PRIMARY KEY, v BLOB); INSERT INTO big VALUES (1, zeroblob(5000000))",
            "table big has a row of more than 4194304 bytes",
        ),
        (
            "CREATE TABLE two (a BLOB, b BLOB); INSERT INTO two VALUES (zeroblob(3000000), zeroblob(3000000))",
            "table two has a row",
        ),
        ("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a)", "UTF-16"),
        ("PRAGMA encoding = 'UTF-16be'; CREATE TABLE t (a)", "UTF-16"),
    ] {
        let given = given(sql);
        let refused = given.refused();
        assert!(refused.contains(says), "{sql}: {refused}");
        assert!(!refused.contains('\n'), "one line: {refused:?}");
    }
}

#[test]
fn what_is_no_database_or_not_whole_is_refused() {
    let given = given(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v); WITH i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 400) INSERT INTO t SELECT x, hex(randomblob(500)) FROM i",
    );
    let whole = std::fs::read(&given.upload).unwrap();
    let mut broken = whole.clone();
    broken[4096 * 5..4096 * 5 + 400].fill(0x5a);
    let mut lying = whole.clone();
    lying[19] = 9;
    for (what, bytes) in [
        ("empty", vec![]),
        ("text", b"-- a dump\nCREATE TABLE t (a);".repeat(20)),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("one byte less", whole[..whole.len() - 1].to_vec()),
        ("its head", whole[..100].to_vec()),
        ("broken page", broken),
        ("a newer format", lying),
    ] {
        std::fs::write(&given.upload, bytes).unwrap();
        let refused = given.prepare().map_err(|refused| refused.to_string());
        let says = refused.err().unwrap_or_else(|| panic!("{what}: it is taken"));
        assert!(!says.contains('\n') && !says.is_empty(), "{what}: {says:?}");
        assert!(!given.ready.exists(), "{what}");
    }
    drop(given.dir);
}

#[test]
fn work_without_an_end_is_given_up() {
    let given = given(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v); WITH i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 4000) INSERT INTO t SELECT x, hex(randomblob(500)) FROM i",
    );
    let ended = prepare(&given.upload, &given.ready, &Config::default(), || true);
    assert_eq!(ended, Err(Unusable::TooLong));
}
