//! [`Store`]: the verbs of the jobs table over any [`Sql`].

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use clock::WallMs;
use dbclient::{Database, DbError, Executed, Rows};
use messages::sql::{Level, Statement};
use serde_json::Value;

use crate::{
    Error,
    retry::Postponement,
    schema,
    time::{NOW, StackTime},
};

/// Where the statements are run: the database tier, or SQLite in memory in tests.
pub trait Sql: Clone + Send + Sync + 'static {
    /// Runs the statements as one all-or-nothing transaction.
    fn execute(&self, statements: Vec<Statement>) -> impl Future<Output = Result<Executed, DbError>> + Send;
    /// The same; what changes nothing may wait for so long until it can. A place that cannot wait answers at once.
    fn execute_patiently(
        &self,
        statements: Vec<Statement>,
        patience: Duration,
    ) -> impl Future<Output = Result<Executed, DbError>> + Send {
        let _ = patience;
        self.execute(statements)
    }
    /// Reads.
    fn query(
        &self,
        statement: Statement,
        level: Level,
        after: Option<&str>,
    ) -> impl Future<Output = Result<Rows, DbError>> + Send;
}

impl Sql for Database {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Executed, DbError> {
        Self::execute(self, statements).await
    }

    async fn execute_patiently(
        &self,
        statements: Vec<Statement>,
        patience: Duration,
    ) -> Result<Executed, DbError> {
        Self::execute_patiently(self, statements, patience).await
    }

    async fn query(&self, statement: Statement, level: Level, after: Option<&str>) -> Result<Rows, DbError> {
        Self::query(self, statement, level, after).await
    }
}

/// The jobs table.
#[derive(Clone, Debug)]
pub struct Store<D = Database> {
    pub(crate) db: D,
    pub(crate) postponement: Postponement,
    /// See [`Store::claim`]: where the queues' turns are. Shared by clones, and worth nothing to anybody else.
    pub(crate) turn: Arc<Mutex<String>>,
    pub(crate) time: StackTime,
}

impl<D: Sql> Store<D> {
    /// The jobs table in `db`. Call [`Store::migrate`] before anything else.
    pub fn new(db: D) -> Self {
        Self { db, postponement: Postponement::DEFAULT, turn: Arc::default(), time: StackTime::default() }
    }

    /// The same with another bound of free postponements.
    #[must_use]
    pub fn with_postponement(self, postponement: Postponement) -> Self {
        Self { postponement, ..self }
    }

    /// The stack's time: the database's clock, carried on by our monotonic one. Our own wall clock, which may be wrong,
    /// counts only until [`Store::migrate`] or [`Store::observe`] was answered.
    #[must_use]
    pub fn now(&self) -> WallMs {
        self.time.now()
    }

    /// Asks the database for its time.
    ///
    /// # Errors
    /// What the database said.
    pub async fn observe(&self) -> Result<(), Error> {
        let asked = clock::now();
        // A primary that is none any more has a clock as good as any.
        let then = self.number(&format!("SELECT {NOW}"), Level::Weak).await?;
        self.time.told(WallMs(then), asked);
        Ok(())
    }

    /// Brings the schema to [`schema::VERSION`]. Safe to call from many nodes at once.
    ///
    /// # Errors
    /// [`Error::SchemaTooNew`], or what the database said.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.observe().await?;
        let mut found = self.version().await?;
        if found > schema::VERSION {
            return Err(Error::SchemaTooNew { found, known: schema::VERSION });
        }
        while let Some(step) = usize::try_from(found).ok().and_then(|n| schema::MIGRATIONS.get(n)) {
            found += 1;
            let mut statements = vec![Statement::Plain(schema::VERSIONS.to_owned())];
            statements.extend(step.iter().map(|sql| Statement::Plain((*sql).to_owned())));
            statements.push(Statement::new(
                "INSERT INTO jobs_schema (id, version) VALUES (1, ?1)
                 ON CONFLICT (id) DO UPDATE SET version = max(version, excluded.version)",
                vec![found.into()],
            ));
            if let Err(error) = self.db.execute(statements).await {
                // Another node was faster: its columns are there already.
                if matches!(error, DbError::Statement(_)) && self.version().await? >= found {
                    continue;
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// 0 when there is no schema yet. Asks the catalogue first, because a read of a missing table is an error.
    async fn version(&self) -> Result<i64, Error> {
        let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'jobs_schema'";
        if self.number(exists, Level::Strong).await? == 0 {
            return Ok(0);
        }
        self.number("SELECT coalesce(max(version), 0) FROM jobs_schema", Level::Strong).await
    }

    async fn number(&self, sql: &str, level: Level) -> Result<i64, Error> {
        let out = self.db.query(Statement::Plain(sql.to_owned()), level, None).await?;
        let value = out.values.first().and_then(|row| row.first()).and_then(Value::as_i64);
        value.ok_or_else(|| Error::Row(format!("{sql}: no number")))
    }
}
