//! Clients who do their worst: the inputs that once stopped a stack for everybody, their kin, and random mixes.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

/// One request.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub body: String,
    /// The client goes away without reading the answer.
    pub abandons: bool,
}

fn post(path: impl Into<String>, body: impl Into<String>) -> Request {
    Request { method: "POST", path: path.into(), body: body.into(), abandons: false }
}

/// A source of requests.
pub struct Worst {
    rng: StdRng,
}

const LONG: &str = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 3000000)";

/// Statements that are sent alone.
const STATEMENTS: &[&str] = &[
    // What SQLite checks at the end of a transaction only.
    "CREATE TABLE IF NOT EXISTS p (id INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS c (id INTEGER PRIMARY KEY, pid INT REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    "INSERT INTO c VALUES (1, 99)",
    "UPDATE c SET pid = 98",
    // Counters at their end.
    "CREATE TABLE IF NOT EXISTS auto (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "INSERT INTO auto VALUES (9223372036854775807, 1)",
    "INSERT INTO auto (v) VALUES (2)",
    "UPDATE sqlite_sequence SET seq = 'abc'",
    "INSERT INTO sqlite_sequence (name, seq) VALUES ('users', 1000)",
    // One opcode that takes for ever.
    "SELECT replace(hex(zeroblob(800000)),'0','a') LIKE '%'||replace(hex(zeroblob(20000)),'0','a')||'b'",
    "SELECT instr(hex(zeroblob(4000000)), hex(zeroblob(2000000))||'1')",
    "SELECT replace(hex(zeroblob(2000000)), hex(zeroblob(400000))||'1', 'x') IS NULL",
    "SELECT trim(hex(zeroblob(2000000)), hex(zeroblob(200000))||'abc') IS NULL",
    "SELECT hex(zeroblob(2000000)) GLOB '*'||hex(zeroblob(20000))||'1*'",
    "INSERT INTO auto (v) SELECT instr(hex(zeroblob(3000000)), hex(zeroblob(1500000))||'1')",
    // System tables, and things that hang on them.
    "CREATE INDEX bomb ON _standfast_position (json(CASE WHEN seq > 100 THEN 'bad' ELSE '1' END))",
    "CREATE TRIGGER trap AFTER INSERT ON _standfast_position BEGIN INSERT INTO auto (v) VALUES ('x'); END",
    "CREATE VIEW peep AS SELECT * FROM _standfast_position",
    "DELETE FROM _standfast_position",
    "DROP TABLE jobs",
    "DROP TABLE IF EXISTS jobs_queues",
    "CREATE TRIGGER stop BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'no'); END",
    // Other ends of a transaction.
    "INSERT OR ROLLBACK INTO p VALUES (1)",
    "INSERT OR FAIL INTO p VALUES (5), (1), (6)",
    "INSERT INTO sqlite_stat1 VALUES ('p', NULL, '1')",
    "CREATE TABLE IF NOT EXISTS nokey (a, b, PRIMARY KEY (a, b))",
    "INSERT INTO nokey VALUES (NULL, 1)",
    "PRAGMA writable_schema = ON",
    "VACUUM",
    "CREATE TABLE IF NOT EXISTS big (id INTEGER PRIMARY KEY, v BLOB)",
    "INSERT INTO big (v) VALUES (zeroblob(7000000))",
    "INSERT INTO big (v) VALUES (randomblob(3000000))",
    "UPDATE big SET v = randomblob(1000000) WHERE id < 4",
    "DELETE FROM big WHERE id > 6",
    "SELECT v FROM big",
    "SELECT group_concat(v) FROM big a, big b, big c",
    "REINDEX",
    "ANALYZE",
];

impl Worst {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// Against the database.
    pub fn sql(&mut self) -> Request {
        match self.rng.random_range(0..12) {
            0 => post(
                "/db/execute",
                json!([format!("{LONG} INSERT INTO auto (v) SELECT max(n) FROM s")]).to_string(),
            ),
            1 => post(
                "/db/execute?transaction",
                json!(vec![format!("{LONG} INSERT INTO auto (v) SELECT max(n) FROM s"); 8]).to_string(),
            ),
            2 => post("/db/query", json!([format!("{LONG} SELECT max(n) FROM s")]).to_string()),
            3 => post("/db/query", json!(vec!["SELECT hex(zeroblob(3000000))"; 400]).to_string()),
            4 => Request { abandons: true, ..post("/db/backup", "") },
            5 => post(
                "/db/execute?transaction",
                json!(vec!["INSERT INTO big (v) VALUES (randomblob(1000000))"; 14]).to_string(),
            ),
            6 => post("/db/execute", json!(vec!["INSERT INTO c VALUES (abs(random()), 77)"; 50]).to_string()),
            7 => {
                let rows: Vec<Value> = (0..20_000).map(|n| json!([n, "x"])).collect();
                post(
                    "/db/execute",
                    json!([{"sql": "INSERT OR REPLACE INTO big (id, v) VALUES (? + 100, ?)", "rows": rows}])
                        .to_string(),
                )
            }
            8 => self.half_sent("/db/execute"),
            _ => post(
                self.pick(&["/db/execute", "/db/execute?transaction", "/db/query"]),
                json!([self.pick(STATEMENTS)]).to_string(),
            ),
        }
    }

    /// Against the jobs API.
    pub fn job(&mut self) -> Request {
        let n = self.rng.random_range(0..1_000_000);
        match self.rng.random_range(0..16) {
            0 => post("/v1/jobs", json!({"kind": "digest", "queue": "worst", "payload": {"text": "x".repeat(900 << 10)}}).to_string()),
            1 => post(format!("/v1/queues/worst:{}", self.pick(&["pause", "resume"])), ""),
            2 => post("/v1/jobs", r#"{"kind":"noop","payload":"\ud83d"}"#),
            3 => post("/v1/jobs", r#"{"kind":"noop","payload":[1e400, 12345678901234567890123, 1.50]}"#),
            4 => post("/v1/jobs", r#"{"kind":"command","queue":"worst","payload":{"name":"leaver","input":{}}}"#),
            5 => post("/v1/jobs", r#"{"kind":"command","queue":"worst","payload":{"name":"escaper","input":{}},"timeout_ms":300}"#),
            6 => post("/v1/jobs", r#"{"kind":"command","queue":"worst","payload":{"name":"flooder","input":{}},"max_attempts":2}"#),
            7 => self.many_queues(),
            8 => post("/v1/jobs", json!({"kind": "noop", "queue": "worst", "payload": {"sleep_ms": 20_000}, "timeout_ms": 50, "max_attempts": 2}).to_string()),
            9 => Request { method: "GET", ..post(format!("/v1/jobs?limit={}", self.pick(&["1000", "200", "1"])), "") },
            10 => Request { method: "GET", ..post(self.pick(&["/v1/queues", "/v1/queues/worst/dead", "/v1/jobs?state=running", "/v1/jobs?tag=none"]), "") },
            11 => Request { abandons: true, ..post("/v1/jobs", r#"{"kind":"noop","delay_ms":50}"#) },
            12 => self.half_sent("/v1/jobs"),
            13 => post("/v1/jobs", json!({"kind": "thumbnail", "payload": {"image": "AAAA".repeat(60_000), "width": 9, "height": 9}}).to_string()),
            14 => post("/v1/jobs", json!({"kind": "noop", "tags": vec!["t".repeat(64); 16], "queue": format!("q{}", n % 50)}).to_string()),
            _ => post("/v1/jobs", json!({"kind": "http", "payload": {"method": "GET", "url": "http://127.0.0.1:1/", "headers": {"content-length": "5"}}}).to_string()),
        }
    }

    fn many_queues(&mut self) -> Request {
        let n: u32 = self.rng.random();
        let lines = (0..500)
            .map(|i| json!({"kind": "noop", "queue": format!("w{n}-{i}"), "delay_ms": 2000}).to_string());
        post("/v1/jobs:bulk", lines.collect::<Vec<_>>().join("\n"))
    }

    fn half_sent(&mut self, path: &str) -> Request {
        let body = self.pick(&[
            "",
            "[",
            "{\"kind\":",
            "[[\"SELECT ?\", {}]]",
            "null",
            "[\"SELECT 1\", 5]",
            "\u{feff}[]",
            "[\"\u{0}\"]",
        ]);
        post(path, body)
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of.choose(&mut self.rng).expect("never called with nothing to choose from")
    }
}
