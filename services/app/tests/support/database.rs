//! The database's HTTP API over one SQLite in memory, with faults that the real one has seldom: a lost answer after
//! the commit, no answer at all. What the real tier does is tested with the real tier.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpResponse, web};
use http_support::{Error, Gate, Limits, Listener, serve};
use messages::job::State;
use messages::sql::{Batch, BatchResults, Outcome, Results, Statement};
use rusqlite::Connection;
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Intensity, Life, StartError, Started, Tree, secs, worker};
use uuid::Uuid;

pub static TREE: Tree = Tree {
    name: "database",
    strategy: OneForOne,
    intensity: Intensity { restarts: 3, period: secs(5) },
    children: &[worker("http", start, Permanent, Within(secs(5))).on_own_arbiter()],
};

/// How it answers writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Works = 0,
    /// 503 to reads and writes, nothing done.
    Unavailable = 1,
    /// Writes are done and answered 503 `outcome-unknown`.
    LosesAnswers = 2,
}

pub struct Fake {
    pub listener: Listener,
    connection: Mutex<Connection>,
    /// What a replica that lags answers to reads that do not ask for more.
    behind: Mutex<Option<Connection>>,
    mode: AtomicU8,
    /// Why it says that it takes no writes, if it does.
    pub takes_no_writes: Mutex<Option<String>>,
    /// Writes that still answer like `mode`; then it works again.
    faults_left: AtomicUsize,
    pub delay_ms: AtomicU64,
    pub writes: AtomicUsize,
    pub reads: AtomicUsize,
}

impl Fake {
    pub fn new() -> Self {
        Self {
            listener: Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            connection: Mutex::new(Connection::open_in_memory().unwrap()),
            behind: Mutex::new(None),
            mode: AtomicU8::new(0),
            takes_no_writes: Mutex::default(),
            faults_left: AtomicUsize::new(0),
            delay_ms: AtomicU64::new(0),
            writes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        }
    }

    /// The next `n` requests are answered as `mode` says.
    pub fn fail(&self, mode: Mode, n: usize) {
        self.mode.store(mode as u8, SeqCst);
        self.faults_left.store(n, SeqCst);
    }

    /// From now on a read of level `eventual` sees the jobs as they are now.
    pub fn freeze_replicas(&self) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("copy").to_str().unwrap().to_owned();
        self.connection.lock().unwrap().execute("VACUUM INTO ?1", [&file]).unwrap();
        let copy = Connection::open(file).unwrap();
        // Once it is open, it needs its directory no longer.
        copy.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).unwrap();
        *self.behind.lock().unwrap() = Some(copy);
    }

    /// Runs statements as nobody should.
    pub fn execute(&self, sql: &str) {
        self.connection.lock().unwrap().execute_batch(sql).unwrap();
    }

    fn fault(&self) -> Mode {
        let left = self.faults_left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
        match (left, self.mode.load(SeqCst)) {
            (Ok(_), 1) => Mode::Unavailable,
            (Ok(_), 2) => Mode::LosesAnswers,
            _ => Mode::Works,
        }
    }

    pub fn count(&self, what: &str) -> u64 {
        self.connection
            .lock()
            .unwrap()
            .query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0))
            .map(|n| n as u64)
            .unwrap()
    }

    /// Writes a column of a job as nobody should.
    pub fn corrupt(&self, id: Uuid, column: &str, value: String) {
        let sql = format!("UPDATE jobs SET {column} = ?2, version = version + 1 WHERE id = ?1");
        assert_eq!(self.connection.lock().unwrap().execute(&sql, (id.to_string(), value)).unwrap(), 1);
    }

    /// A column of a job.
    pub fn text(&self, id: Uuid, column: &str) -> String {
        let sql = format!("SELECT {column} FROM jobs WHERE id = ?1");
        self.connection.lock().unwrap().query_row(&sql, [id.to_string()], |row| row.get(0)).unwrap()
    }

    /// Sets a job's state as a runner would, and returns its new version.
    pub fn set_state(&self, id: Uuid, state: State) -> u64 {
        let connection = self.connection.lock().unwrap();
        let finished = state.is_final().then_some(1_700_000_000_000_i64);
        let sql = "UPDATE jobs SET state = ?2, version = version + 1, finished_at = ?3, attempt = 1,
            started_at = 1700000000000, result = '{\"sha256\":\"x\"}' WHERE id = ?1 RETURNING version";
        connection
            .query_row(sql, (id.to_string(), state.as_str(), finished), |row| row.get::<_, i64>(0))
            .unwrap() as u64
    }
}

fn start(life: Life) -> Result<Started, StartError> {
    let fake = Arc::clone(&*life.env::<Arc<Fake>>());
    let listener = fake.listener.clone();
    let app = move || {
        let (asked, writer, reader) = (Arc::clone(&fake), Arc::clone(&fake), fake);
        App::new()
            .app_data(web::PayloadConfig::new(64 << 20))
            .route("/readyz", web::get().to(move || ready(Arc::clone(&asked))))
            .route("/db/batch", web::post().to(move |body: web::Bytes| write(Arc::clone(&writer), body)))
            .route(
                "/db/query",
                web::post().to(move |request: actix_web::HttpRequest, body: web::Bytes| {
                    read(Arc::clone(&reader), request, body)
                }),
            )
    };
    Ok(Started::task(serve(listener, Gate::new("test", &[], &[]), app, life, Limits::default())))
}

async fn ready(fake: Arc<Fake>) -> HttpResponse {
    let why = fake.takes_no_writes.lock().unwrap().clone();
    HttpResponse::Ok().json(serde_json::json!({ "reads": true, "writes": why.is_none(), "why": why }))
}

async fn write(fake: Arc<Fake>, body: web::Bytes) -> Result<HttpResponse, Error> {
    fake.writes.fetch_add(1, SeqCst);
    tokio::time::sleep(Duration::from_millis(fake.delay_ms.load(SeqCst))).await;
    let fault = fake.fault();
    if fault == Mode::Unavailable {
        return Err(Error::unavailable("no-primary", "told to", 1).with("retry_after_ms", 20));
    }
    let batch: Batch = serde_json::from_slice(&body).unwrap();
    let mut connection = fake.connection.lock().unwrap();
    let outer = connection.transaction().unwrap();
    let mut transactions = Vec::new();
    for statements in &batch.transactions {
        outer.execute_batch("SAVEPOINT one").unwrap();
        let results: Vec<Outcome> = statements.iter().map(|statement| run(&outer, statement)).collect();
        let failed = results.iter().any(|outcome| outcome.error.is_some());
        outer.execute_batch(if failed { "ROLLBACK TO one; RELEASE one" } else { "RELEASE one" }).unwrap();
        transactions.push(Results { results });
    }
    outer.commit().unwrap();
    if fault == Mode::LosesAnswers {
        return Err(Error::unavailable("outcome-unknown", "told to", 1));
    }
    Ok(HttpResponse::Ok().insert_header(("standfast-offset", "1-1")).json(BatchResults { transactions }))
}

async fn read(
    fake: Arc<Fake>,
    request: actix_web::HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, Error> {
    fake.reads.fetch_add(1, SeqCst);
    if fake.mode.load(SeqCst) == Mode::Unavailable as u8 && fake.fault() == Mode::Unavailable {
        return Err(Error::unavailable("no-replica", "told to", 1).with("retry_after_ms", 20));
    }
    let statements: Vec<Statement> = serde_json::from_slice(&body).unwrap();
    let behind = fake.behind.lock().unwrap();
    let is_eventual = request.query_string().contains("level=eventual");
    let primary = fake.connection.lock().unwrap();
    let connection = behind.as_ref().filter(|_| is_eventual).unwrap_or(&primary);
    let results = statements.iter().map(|statement| run(connection, statement)).collect();
    Ok(HttpResponse::Ok().insert_header(("standfast-offset", "1-1")).json(Results { results }))
}

fn run(connection: &Connection, statement: &Statement) -> Outcome {
    jobstore::testing::run(connection, statement)
        .unwrap_or_else(|error| Outcome { error: Some(error.to_string()), ..Outcome::default() })
}
