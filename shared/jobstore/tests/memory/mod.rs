//! SQLite in memory behind [`jobstore::Sql`]: the statements as they are, without a network.
#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    future::Future,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use jobstore::{DbError, Executed, Rows, Sql, Store, testing};
use messages::sql::{Level, Outcome, RESULT_TOO_LARGE, Statement};
use rusqlite::Connection;
use serde_json::Value;

#[derive(Clone)]
pub struct Memory(Arc<Mutex<Connection>>);

/// A store with the schema in place.
pub fn store() -> (Store<Memory>, Memory) {
    let memory = Memory(Arc::new(Mutex::new(Connection::open_in_memory().unwrap())));
    let store = Store::new(memory.clone());
    now(store.migrate()).unwrap();
    (store, memory)
}

/// A store over a database of an earlier version.
pub fn of_version(version: usize) -> (Store<Memory>, Memory) {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(
        "CREATE TABLE jobs_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL)",
    )
    .unwrap();
    for sql in jobstore::schema::MIGRATIONS.iter().take(version).flat_map(|step| step.iter()) {
        conn.execute_batch(sql).unwrap();
    }
    conn.execute("INSERT INTO jobs_schema VALUES (1, ?1)", [version as i64]).unwrap();
    let memory = Memory(Arc::new(Mutex::new(conn)));
    (Store::new(memory.clone()), memory)
}

/// The result of a future that never waits.
pub fn now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => out,
        Poll::Pending => panic!("nothing here should wait"),
    }
}

impl Memory {
    /// Rows of any query.
    pub fn rows(&self, sql: &str, params: Vec<Value>) -> Vec<Vec<Value>> {
        run(&self.0.lock().unwrap(), &Statement::new(sql, params)).unwrap().values
    }

    /// The lines of a query's plan.
    pub fn plan(&self, sql: &str) -> String {
        let rows = self.rows(&format!("EXPLAIN QUERY PLAN {sql}"), Vec::new());
        rows.iter().map(|row| row[3].as_str().unwrap().to_owned() + "\n").collect()
    }
}

impl Sql for Memory {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Executed, DbError> {
        let mut conn = self.0.lock().unwrap();
        let tx = conn.transaction().unwrap();
        let results = statements.iter().map(|s| run(&tx, s)).collect::<Result<_, _>>()?;
        tx.commit().unwrap();
        Ok(Executed { results, offset: "0-0".to_owned() })
    }

    async fn query(&self, statement: Statement, _: Level, _: Option<&str>) -> Result<Rows, DbError> {
        let out = run(&self.0.lock().unwrap(), &statement)?;
        Ok(Rows { columns: Vec::new(), values: out.values, offset: "0-0".to_owned() })
    }
}

fn run(conn: &Connection, statement: &Statement) -> Result<Outcome, DbError> {
    testing::run(conn, statement).map_err(|e| match e.to_string() {
        text if text.starts_with(RESULT_TOO_LARGE) => DbError::TooLarge(text),
        text => DbError::Statement(format!("{text} in {statement:?}")),
    })
}
