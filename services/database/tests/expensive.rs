//! No statement holds a reader or the writer beyond its limit.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use bus::BusConfig;
use common::{Cluster, run};
use database::Config;
use serde_json::json;

/// `n` bytes of this letter.
fn letters(letter: char, n: usize) -> String {
    format!("printf('%.{n}c', '{letter}')")
}

/// One call of a function ran for minutes, and SQLite looks at the clock between its machine's steps only: four reads
/// took a replica's readers, three writes ended all writing (D8).
#[test]
fn no_call_of_a_function_outlives_its_limit() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let small = |c| Config {
            write_time_ms: 200,
            read_time_ms: 200,
            readers: 2,
            value_bytes_max: 7 << 20,
            entry_bytes_max: 15 << 20,
            result_bytes_max: 48 << 20,
            body_bytes_max: 48 << 20,
            ..c
        };
        let cluster = Cluster::start_on(&bus, dir.path(), 1, small).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let a = |n| letters('a', n);
        let zeros = |n: usize| format!("hex(zeroblob({}))", n / 2);
        let wide = |call: &str| {
            let arguments = vec!["v"; 120].join(",");
            format!(
                "WITH x(v) AS MATERIALIZED (SELECT {}) SELECT length({call}({arguments})) FROM x",
                a(7_000_000)
            )
        };
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n";
        let long = "the statement ran for longer than allowed";
        let big = "string or blob too big";
        let all = [
            (long, format!("SELECT {} LIKE '%'||{}||'b'", a(1_600_000), a(40_000))),
            (long, format!("SELECT {} GLOB '*'||{}||'[b-c]*'", a(7_000_000), a(40_000))),
            (long, format!("SELECT {} LIKE {}'b' ESCAPE '!'", a(7_000_000), "'%a_%aa%a_a'||".repeat(100))),
            (
                "LIKE or GLOB pattern too complex",
                format!("SELECT {} LIKE {}||'%b'", a(7_000_000), zeros(60_000)),
            ),
            (long, format!("SELECT length(replace({}, 'a', 'b'))", a(7_000_000))),
            (long, format!("SELECT length(trim({}, {}||'ä'))", a(7_000_000), letters('b', 7_000_000))),
            (long, format!("SELECT length(rtrim({}||'x', {}||'y'))", a(7_000_000), letters('b', 7_000_000))),
            (long, format!("SELECT unhex({}, {}||'x')", letters('x', 7_000_000), letters('y', 7_000_000))),
            (big, wide("concat")),
            (big, wide("concat_ws")),
            ("json_patch", format!("SELECT length(json_patch({}, {}))", a(800_000), a(500_000))),
            (big, "SELECT length(json_pretty('[1,1,1,1,1,1,1,1,1,1,1]', hex(zeroblob(1000000))))".to_owned()),
            (long, format!("{endless}) SELECT count(*) FROM n")),
            (long, format!("{endless} LIMIT 3000) SELECT count(*) FROM n a, n b, n c")),
        ];
        for (says, sql) in &all {
            for (path, sql) in
                [("/db/query", sql.clone()), ("/db/execute", format!("INSERT INTO t(v) {sql}"))]
            {
                let url = format!("{}{path}", cluster.urls[0]);
                let (_, answer, _) = cluster.post(&url, &json!([sql]).to_string()).await;
                assert!(
                    answer["results"][0]["error"].as_str().is_some_and(|e| e.contains(says)),
                    "{sql}: {answer}"
                );
            }
        }
        // Linear now, so they end: the row's own statement, smaller because a debug build searches slowly.
        let instr = "SELECT instr(hex(zeroblob(400000)), hex(zeroblob(200000))||'1')";
        let url = format!("{}/db/query", cluster.urls[0]);
        let (_, answer, _) = cluster.post(&url, &json!([instr]).to_string()).await;
        assert_eq!(answer["results"][0]["values"], json!([[0]]), "{answer}");
        cluster.exec("INSERT INTO t(v) VALUES ('the writer goes on')").await;
        cluster.stop().await;
    });
}
