//! The database tier's wire, over SQLite in memory on one thread: a stand-in that starts in a millisecond, and can be
//! told to be away. It replicates nothing, so what is tested here is the runner and not the database.

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use messages::{
    problem::Problem,
    sql::{Batch, BatchResults, Outcome, Results, Statement},
};
use rusqlite::Connection;

#[derive(Clone)]
pub struct Sqlite {
    state: web::Data<State>,
    pub url: String,
    server: Arc<Mutex<Option<ServerHandle>>>,
}

struct State {
    conn: Mutex<Connection>,
    away: AtomicBool,
    forgetful: AtomicBool,
    writes: AtomicU64,
    asked: AtomicU64,
}

impl Sqlite {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = web::Data::new(State {
            conn: Mutex::new(Connection::open_in_memory().unwrap()),
            away: AtomicBool::new(false),
            forgetful: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        });
        let (data, (send, receive)) = (state.clone(), mpsc::sync_channel(1));
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let routes = move || {
                    App::new()
                        .app_data(data.clone())
                        .app_data(web::JsonConfig::default().limit(64 << 20))
                        .route("/db/batch", web::post().to(batch))
                        .route("/db/query", web::post().to(query))
                };
                let server =
                    HttpServer::new(routes).workers(1).disable_signals().listen(listener).unwrap().run();
                send.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        let server = Arc::new(Mutex::new(Some(receive.recv().unwrap())));
        Self { state, url, server }
    }

    /// While it is away it answers 503 to everything.
    pub fn set_away(&self, away: bool) {
        self.state.away.store(away, SeqCst);
    }

    /// The next write is done, and then answered with "outcome unknown".
    pub fn forget_next_answer(&self) {
        self.state.forgetful.store(true, SeqCst);
    }

    /// Changes rows as nobody should.
    pub fn execute(&self, sql: &str) {
        self.state.conn.lock().unwrap().execute_batch(sql).unwrap();
    }

    /// The one number of a query.
    pub fn number(&self, sql: &str) -> i64 {
        self.state.conn.lock().unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Transactions so far.
    pub fn writes(&self) -> u64 {
        self.state.writes.load(SeqCst)
    }

    /// Requests so far, whatever became of them.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(SeqCst)
    }

    pub fn stop(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            drop(server.stop(false));
        }
    }
}

async fn batch(state: web::Data<State>, body: web::Json<Batch>) -> HttpResponse {
    state.asked.fetch_add(1, SeqCst);
    if state.away.load(SeqCst) {
        return problem("no-primary");
    }
    let mut conn = state.conn.lock().unwrap();
    let transactions: Vec<_> =
        body.into_inner().transactions.iter().map(|t| transaction(&mut conn, t)).collect();
    state.writes.fetch_add(transactions.len() as u64, SeqCst);
    if state.forgetful.swap(false, SeqCst) {
        return problem("outcome-unknown");
    }
    HttpResponse::Ok().insert_header(("standfast-offset", "1-1")).json(BatchResults { transactions })
}

async fn query(state: web::Data<State>, body: web::Json<Vec<Statement>>) -> HttpResponse {
    state.asked.fetch_add(1, SeqCst);
    if state.away.load(SeqCst) {
        return problem("no-primary");
    }
    let results = body.iter().map(|s| run(&state.conn.lock().unwrap(), s)).collect();
    HttpResponse::Ok().insert_header(("standfast-offset", "1-1")).json(Results { results })
}

fn problem(slug: &str) -> HttpResponse {
    let problem = Problem::new(503, slug, "away", "as the test wants it").with("retry_after_ms", 20);
    HttpResponse::ServiceUnavailable().json(problem)
}

fn transaction(conn: &mut Connection, statements: &[Statement]) -> Results {
    let tx = conn.transaction().unwrap();
    let results: Vec<_> = statements.iter().map(|s| run(&tx, s)).collect();
    if results.iter().all(|r| r.error.is_none()) {
        tx.commit().unwrap();
    }
    Results { results }
}

fn run(conn: &Connection, statement: &Statement) -> Outcome {
    jobstore::testing::run(conn, statement)
        .unwrap_or_else(|e| Outcome { error: Some(e.to_string()), ..Outcome::default() })
}
