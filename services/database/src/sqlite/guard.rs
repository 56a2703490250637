//! What SQL may do: refused is what cannot be replicated, or would reach outside the database.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use changeset::is_private;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::control;
use super::functions;

/// What a statement is, by its first word. SQLite's authorizer has the last word on what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads or changes rows.
    Rows,
    /// Changes the schema: replicated as its text.
    Schema,
    /// Says something of the transaction or the connection: see [`control`].
    Control,
    /// Cannot be run here, and why.
    Refused(&'static str),
}

/// What is told who wants a transaction to last for longer than a request.
pub const NOT_CONTROLLED: &str =
    "transactions are not controlled by statements: send the statements in one request with ?transaction";

/// Looks at the first word, and whether a schema change names a system table.
#[must_use]
pub fn kind(sql: &str) -> Kind {
    let word = first_word(sql);
    // Asked several times for each statement: nearly all are one of these.
    if ["INSERT", "UPDATE", "DELETE", "SELECT", "WITH", "REPLACE"]
        .iter()
        .any(|it| word.eq_ignore_ascii_case(it))
    {
        return Kind::Rows;
    }
    match word.to_ascii_uppercase().as_str() {
        // SQLite asks nobody about the tables that a foreign key, a view or a trigger's body names. However a name is
        // quoted, its letters stand in the text.
        "CREATE" | "ALTER" | "DROP" | "REINDEX" | "ANALYZE" if mentions_system_table(sql) => Kind::Refused(
            "names that begin with _standfast_ belong to Standfast: no schema change may contain one",
        ),
        "CREATE" | "ALTER" | "DROP" | "REINDEX" | "ANALYZE" => Kind::Schema,
        "PRAGMA" if sets_version(sql) => Kind::Schema,
        "PRAGMA" | "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "SAVEPOINT" | "RELEASE"
            if control::of(sql).is_some() =>
        {
            Kind::Control
        }
        "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => Kind::Refused(NOT_CONTROLLED),
        "VACUUM" => Kind::Refused("VACUUM is not replicated: each replica keeps its own file"),
        "ATTACH" | "DETACH" => Kind::Refused("ATTACH and DETACH are refused: other files are not replicated"),
        "" if is_empty(sql) => Kind::Refused("an empty statement"),
        _ => Kind::Rows,
    }
}

/// Whether the prefix of system tables stands anywhere in the text.
pub(super) fn mentions_system_table(sql: &str) -> bool {
    const PREFIX: &[u8] = b"_standfast_";
    sql.as_bytes().windows(PREFIX.len()).any(|part| part.eq_ignore_ascii_case(PREFIX))
}

/// Numbers of a client's in the file's header: migrations keep their state there.
const VERSIONS: &[&str] = &["user_version", "application_id"];

/// Whether it may be a change of one; the authorizer has the last word.
fn sets_version(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    sql.contains(['=', '(']) && VERSIONS.iter().any(|name| sql.contains(name))
}

pub(super) fn is_empty(sql: &str) -> bool {
    after_comments(sql).is_empty()
}

pub(crate) fn first_word(sql: &str) -> &str {
    let rest = after_comments(sql);
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    &rest[..end]
}

/// What is left after spaces, comments and lone semicolons.
fn after_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}' || c == ';');
    loop {
        let after = if let Some(line) = rest.strip_prefix("--") {
            line.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(block) = rest.strip_prefix("/*") {
            block.split_once("*/").map_or("", |(_, after)| after)
        } else {
            return rest;
        };
        rest = after.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
    }
}

/// Who is speaking to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// We: everything is allowed.
    Own,
    /// A client, changing rows.
    Rows,
    /// A client, changing the schema.
    Schema,
    /// A client, reading.
    Read,
}

/// What the authorizer saw while a statement was prepared.
#[derive(Debug, Default)]
pub struct Seen {
    /// Tables into which it inserts, also through triggers.
    pub inserts: Vec<String>,
    /// A table that it creates.
    pub creates: Option<String>,
    /// A table that it drops.
    pub drops: Option<String>,
    /// It creates a view.
    pub creates_view: bool,
    /// It creates, changes or drops something temporary, which is nobody else's business.
    pub temporary: bool,
    /// Why it was refused.
    pub refusal: Option<String>,
}

struct State {
    voice: Voice,
    /// Temporary tables may be made: the transaction has an end that drops them.
    temporary: bool,
    seen: Seen,
}

/// When the running statement must have ended.
#[derive(Clone)]
pub struct Deadline {
    /// Nanoseconds after `base`; 0: never.
    due: Arc<AtomicU64>,
    base: Instant,
}

impl Deadline {
    /// Whether it has passed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let due = self.due.load(Relaxed);
        due != 0 && nanos(clock::now() - self.base) > due
    }
}

/// Watches over one connection. Cheap to clone.
#[derive(Clone)]
pub struct Guard {
    state: Arc<Mutex<State>>,
    deadline: Deadline,
    /// Called at each look while a limited statement runs.
    pulse: Arc<OnceLock<Pulse>>,
}

/// Says that a statement still runs, and will end by its limit. Returns whether it may go on.
type Pulse = Box<dyn Fn() -> bool + Send + Sync>;

/// Virtual machine steps between two looks at the clock: some tens of microseconds.
const STEPS_PER_LOOK: i32 = 2000;

impl Guard {
    /// Puts a guard on a connection. Its first voice is ours.
    ///
    /// # Errors
    /// The connection is not one that we own.
    pub fn install(conn: &Connection) -> rusqlite::Result<Self> {
        let state =
            Arc::new(Mutex::new(State { voice: Voice::Own, temporary: false, seen: Seen::default() }));
        let deadline = Deadline { due: Arc::default(), base: clock::now() };
        let guard = Self { state, deadline, pulse: Arc::default() };
        let (hook, deadline, pulse) = (guard.clone(), guard.deadline.clone(), guard.pulse.clone());
        functions::install(conn, &deadline)?;
        conn.authorizer(Some(move |context: AuthContext<'_>| hook.authorize(&context)))?;
        conn.progress_handler(
            STEPS_PER_LOOK,
            Some(move || {
                if deadline.due.load(Relaxed) == 0 {
                    return false;
                }
                let goes_on = pulse.get().is_none_or(|pulse| pulse());
                !goes_on || deadline.is_over()
            }),
        )?;
        Ok(guard)
    }

    /// Says who speaks from now on.
    pub fn speak(&self, voice: Voice) {
        self.state().voice = voice;
    }

    /// Says whether temporary tables may be made from now on.
    pub fn allow_temporary(&self, allowed: bool) {
        self.state().temporary = allowed;
    }

    /// What was seen since the last call.
    pub fn take_seen(&self) -> Seen {
        std::mem::take(&mut self.state().seen)
    }

    /// Interrupts whatever still runs after so long.
    pub fn limit(&self, time: Duration) {
        self.deadline.due.store(nanos(clock::now() - self.deadline.base + time), Relaxed);
    }

    /// Has this called while a statement runs under a limit, some thousand times a second: it returns whether the statement
    /// may go on. The first one counts.
    pub fn pulse(&self, pulse: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.pulse.set(Box::new(pulse));
    }

    /// Lifts the limit.
    pub fn unlimit(&self) {
        self.deadline.due.store(0, Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        // ANALYZE of everything leaves them out, on every replica alike.
        if let AuthAction::Analyze { table_name } = context.action
            && is_private(table_name)
        {
            return Authorization::Ignore;
        }
        let mut state = self.state();
        if state.voice == Voice::Own {
            return Authorization::Allow;
        }
        if let AuthAction::AlterTable { database_name, .. } = context.action {
            state.seen.temporary |= database_name == "temp";
        }
        let State { voice, temporary, seen } = &mut *state;
        let judged = judge_temporary(*voice, *temporary, &context.action, seen);
        match judged.unwrap_or_else(|| judge(*voice, &context.action, seen)) {
            Ok(()) => Authorization::Allow,
            Err(refusal) => {
                state.seen.refusal.get_or_insert(refusal);
                Authorization::Deny
            }
        }
    }
}

/// Temporary tables and indexes within a transaction; none if it is about something else. Migrations copy a table into one
/// and back: what they do to the other tables is replicated, and they themselves end with the transaction.
fn judge_temporary(
    voice: Voice,
    allowed: bool,
    action: &AuthAction<'_>,
    seen: &mut Seen,
) -> Option<Result<(), String>> {
    use AuthAction as A;
    let name = match action {
        A::CreateTempTable { table_name: name }
        | A::DropTempTable { table_name: name }
        | A::CreateTempIndex { table_name: name, .. }
        | A::DropTempIndex { table_name: name, .. } => name,
        _ => return None,
    };
    if voice != Voice::Schema {
        return Some(Err(
            "temporary tables are refused here: connections are shared by all clients".to_owned()
        ));
    }
    if !allowed {
        let why =
            "a temporary table lasts for one transaction: send what uses it in one request with ?transaction";
        return Some(Err(why.to_owned()));
    }
    seen.temporary = true;
    Some(not_private(name))
}

/// Modules of virtual tables whose content is in ordinary tables, which are replicated, or that have none.
const MODULES: &[&str] = &["fts5", "fts5vocab"];

/// Each replica keeps statistics of its own, and they have no key that a change could name.
fn is_statistics(table: &str) -> bool {
    table.get(..11).is_some_and(|head| head.eq_ignore_ascii_case("sqlite_stat"))
}

fn refused_statistics(table: &str) -> String {
    format!("{table} is written by ANALYZE only: its rows are not replicated")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Pragmas that only tell something.
const TELLING: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
    "function_list",
    "collation_list",
    "compile_options",
    "database_list",
    "pragma_list",
    "module_list",
    "schema_version",
    "user_version",
    "encoding",
    "page_count",
    "page_size",
    "freelist_count",
    "foreign_keys",
    "defer_foreign_keys",
    "read_uncommitted",
    "journal_mode",
    "synchronous",
    "locking_mode",
    "busy_timeout",
    "cache_size",
    "temp_store",
    "auto_vacuum",
    "recursive_triggers",
    "legacy_alter_table",
    "ignore_check_constraints",
    "application_id",
    "secure_delete",
    // Asked by full-text search, whether another connection has changed its index.
    "data_version",
];

/// Of those that tell, the ones whose argument names a table or index, or says how much to tell.
const WITH_ARGUMENT: usize = 13;

/// Virtual tables that SQLite has by itself and that show pages, statements or other tables' content.
const INNER: &[&str] =
    &["dbstat", "sqlite_dbpage", "sqlite_dbdata", "sqlite_dbptr", "sqlite_stmt", "bytecode", "tables_used"];

/// Functions that reach outside the database, or that are made for SQLite's own use.
const UNSAFE_FUNCTIONS: &[&str] =
    &["load_extension", "sqlite_log", "fts3_tokenizer", "rtreecheck", "rtreenode", "rtreedepth"];

fn not_private(table: &str) -> Result<(), String> {
    if is_private(table) { Err(format!("{table} belongs to Standfast")) } else { Ok(()) }
}

fn judge(voice: Voice, action: &AuthAction<'_>, seen: &mut Seen) -> Result<(), String> {
    use AuthAction as A;
    let change = |table: &str| {
        if voice == Voice::Read {
            return Err("this is a read: send statements that change something to /db/execute".to_owned());
        }
        not_private(table)
    };
    let schema = |what: &str| {
        if voice == Voice::Schema {
            change(what)
        } else {
            change("").and(Err("a schema change inside a statement".to_owned()))
        }
    };
    match action {
        A::Insert { table_name } | A::Update { table_name, .. } => {
            change(table_name)?;
            if voice == Voice::Rows && is_statistics(table_name) {
                return Err(refused_statistics(table_name));
            }
            if voice == Voice::Rows && matches!(action, A::Insert { .. }) {
                seen.inserts.push((*table_name).to_owned());
            }
            Ok(())
        }
        A::Delete { table_name } if voice == Voice::Rows && is_statistics(table_name) => {
            Err(refused_statistics(table_name))
        }
        A::Delete { table_name } => change(table_name),
        A::CreateTable { table_name } => {
            // SQLite's own table of counters is made along with the first one that needs it.
            if !table_name.starts_with("sqlite_") {
                seen.creates = Some((*table_name).to_owned());
            }
            schema(table_name)
        }
        A::AlterTable { table_name, .. } => schema(table_name),
        A::DropTable { table_name } => {
            seen.drops = Some((*table_name).to_owned());
            schema(table_name)
        }
        A::CreateIndex { index_name: name, table_name }
        | A::CreateTrigger { trigger_name: name, table_name }
        | A::DropIndex { index_name: name, table_name }
        | A::DropTrigger { trigger_name: name, table_name } => {
            schema(name)?;
            schema(table_name)
        }
        A::CreateView { view_name } => {
            seen.creates_view = true;
            schema(view_name)
        }
        A::DropView { view_name: name }
        | A::Reindex { index_name: name }
        | A::Analyze { table_name: name } => schema(name),
        A::Read { table_name, .. } => {
            not_private(table_name)?;
            if INNER.iter().any(|inner| inner.eq_ignore_ascii_case(table_name)) {
                return Err(format!("{table_name} is refused: it shows the file, not the data"));
            }
            Ok(())
        }
        A::CreateTempTrigger { .. }
        | A::CreateTempView { .. }
        | A::DropTempTrigger { .. }
        | A::DropTempView { .. } => {
            Err("temporary views and triggers are refused: connections are shared by all clients".to_owned())
        }
        A::CreateVtable { table_name, module_name } | A::DropVtable { table_name, module_name } => {
            if MODULES.iter().any(|known| known.eq_ignore_ascii_case(module_name)) {
                return schema(table_name);
            }
            Err(format!(
                "virtual tables ({module_name}) are refused: their changes are not replicated; those of fts5 are"
            ))
        }
        A::Attach { .. } | A::Detach { .. } => {
            Err("ATTACH and DETACH are refused: other files are not replicated".to_owned())
        }
        A::Transaction { .. } | A::Savepoint { .. } => {
            Err("transactions are not controlled by statements".to_owned())
        }
        A::Pragma { pragma_name, pragma_value } => {
            let is = |known: &str| known.eq_ignore_ascii_case(pragma_name);
            match TELLING.iter().position(|known| is(known)) {
                Some(_) if voice == Voice::Schema && VERSIONS.iter().any(|known| is(known)) => Ok(()),
                Some(at) if at < WITH_ARGUMENT || pragma_value.is_none() => Ok(()),
                Some(_) => Err(format!(
                    "PRAGMA {pragma_name} can be asked, not set: connections are shared by all clients"
                )),
                None => Err(format!("PRAGMA {pragma_name} is refused: it is not replicated")),
            }
        }
        A::Function { function_name }
            if UNSAFE_FUNCTIONS.iter().any(|known| known.eq_ignore_ascii_case(function_name)) =>
        {
            Err(format!("{function_name} is refused"))
        }
        A::Unknown { .. } => Err("a kind of access that this version does not know is refused".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        for sql in
            ["create table t(a)", "  -- x\n/* y */ ;CREATE TABLE t(a)", "\u{feff}Drop table t", "/**/ANALYZE"]
        {
            assert_eq!(kind(sql), Kind::Schema, "{sql}");
        }
        for sql in ["ROLLBACK", "commit to it", "-- only this", "", "VACUUM INTO 'x'", "attach 'x' as y"] {
            assert!(matches!(kind(sql), Kind::Refused(_)), "{sql}");
        }
        for sql in ["BEGIN", "commit;", "Savepoint x", "/**/PRAGMA foreign_keys=OFF"] {
            assert_eq!(kind(sql), Kind::Control, "{sql}");
        }
        for sql in [
            "SELECT 1",
            "with x as (select 1) insert into t select * from x",
            "(",
            "EXPLAIN CREATE TABLE x(y)",
        ] {
            assert_eq!(kind(sql), Kind::Rows, "{sql}");
        }
    }
}
