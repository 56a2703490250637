//! Tables and indexes, by version. A job costs one insert and two updates, each replicated to every replica,
//! so rows are narrow and each index holds only the rows that somebody looks for in it.

/// Newest version of the schema that this program knows.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// Statement lists; the n-th takes a database from version n to n + 1, in one transaction with the version. Two nodes may
/// start at once: the later one fails or changes nothing, and finds the version there.
pub const MIGRATIONS: &[&[&str]] = &[V1, V2, V3];

/// `WITHOUT ROWID`: the row lives in the tree of its key, one tree instead of two, and UUIDv7 keys append.
const V1: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS jobs (
        id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        queue TEXT NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 0,
        max_attempts INTEGER NOT NULL,
        token INTEGER NOT NULL DEFAULT 0,
        kills INTEGER NOT NULL DEFAULT 0,
        version INTEGER NOT NULL DEFAULT 1,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        timeout_ms INTEGER NOT NULL,
        inserted_at INTEGER NOT NULL,
        run_at INTEGER NOT NULL,
        started_at INTEGER,
        finished_at INTEGER,
        lease_until INTEGER,
        runner TEXT,
        traceparent TEXT,
        tags TEXT,
        progress TEXT,
        payload TEXT NOT NULL,
        result TEXT
    ) WITHOUT ROWID",
    // What a claim takes, in the order it takes it; `kind` so that the filter needs no row.
    "CREATE INDEX IF NOT EXISTS jobs_available ON jobs (queue, priority, id, kind) WHERE state = 'available'",
    // What waits for its time.
    "CREATE INDEX IF NOT EXISTS jobs_due ON jobs (run_at) WHERE state IN ('scheduled', 'retryable')",
    // As many rows as the fleet has workers: counted per queue, and searched whole for expired leases.
    "CREATE INDEX IF NOT EXISTS jobs_running ON jobs (queue) WHERE state = 'running'",
    "CREATE INDEX IF NOT EXISTS jobs_discarded ON jobs (id) WHERE state = 'discarded'",
    // Attempts that ended without a result; one that succeeded is told by the job's own row.
    "CREATE TABLE IF NOT EXISTS jobs_attempts (
        job_id TEXT NOT NULL,
        token INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        runner TEXT,
        PRIMARY KEY (job_id, token)
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS jobs_queues (
        name TEXT NOT NULL PRIMARY KEY,
        paused INTEGER NOT NULL DEFAULT 0,
        concurrency INTEGER,
        backlog_max INTEGER,
        updated_at INTEGER NOT NULL
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS jobs_keys (
        key TEXT NOT NULL PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        job_id TEXT NOT NULL,
        expires_at INTEGER NOT NULL
    ) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS jobs_keys_expiry ON jobs_keys (expires_at)",
];

/// What a job needs beyond its kind (`command:resize`), and how often it was postponed at no cost.
const V2: &[&str] = &[
    // Absent: any runner of the kind will do.
    "ALTER TABLE jobs ADD COLUMN needs TEXT",
    "ALTER TABLE jobs ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0",
    // Since when: the first of them.
    "ALTER TABLE jobs ADD COLUMN postponed_at INTEGER",
    "DROP INDEX IF EXISTS jobs_available",
    "CREATE INDEX jobs_available ON jobs (queue, priority, id, kind, needs) WHERE state = 'available'",
];

/// A job that ends within so long of its submit is pruned by the order of ids, which is the order of submits; a later one
/// has an entry in an index of its own. So the many pay for no index by time.
pub(crate) const SOON_MS: i64 = 300_000;

/// What keeps costs flat however many queues, kinds and finished jobs there are.
const V3: &[&str] = &[
    "DROP INDEX IF EXISTS jobs_available",
    "CREATE INDEX jobs_available ON jobs (queue, kind, needs, priority, id) WHERE state = 'available'",
    // What waits for its time, by queue: to be counted.
    "CREATE INDEX jobs_waiting ON jobs (queue, state) WHERE state IN ('scheduled', 'retryable')",
    "CREATE INDEX jobs_dead ON jobs (queue, id) WHERE state = 'discarded'",
    // What is pruned by the time of its end: see `SOON_MS`.
    "CREATE INDEX jobs_ended ON jobs (state, finished_at)
     WHERE finished_at IS NOT NULL AND (state <> 'completed' OR finished_at > inserted_at + 300000)",
    // A lane is what a claim can choose: the available jobs of a queue that have the same kind, needs and priority. Each
    // available job has its lane; a lane may be empty, until it is tidied up. Lanes of paused queues are not open.
    "CREATE TABLE jobs_lanes (
        queue TEXT NOT NULL,
        kind TEXT NOT NULL,
        needs TEXT NOT NULL,
        priority INTEGER NOT NULL,
        open INTEGER NOT NULL,
        PRIMARY KEY (queue, kind, needs, priority)
    ) WITHOUT ROWID",
    "CREATE INDEX jobs_lanes_open ON jobs_lanes (priority, queue, kind, needs) WHERE open",
    // For whatever makes a job available again, which also sets its time. A submit makes its lanes itself, once for many
    // jobs; claims and completions, the many, set no time and so run no trigger.
    "CREATE TRIGGER jobs_lane_again AFTER UPDATE OF run_at ON jobs
     WHEN new.state = 'available' AND NOT EXISTS (SELECT 1 FROM jobs_lanes WHERE queue = new.queue
        AND kind = new.kind AND needs = coalesce(new.needs, '') AND priority = new.priority)
     BEGIN
        INSERT INTO jobs_lanes SELECT new.queue, new.kind, coalesce(new.needs, ''), new.priority,
            NOT EXISTS (SELECT 1 FROM jobs_queues WHERE name = new.queue AND paused);
     END",
    "INSERT INTO jobs_lanes SELECT DISTINCT queue, kind, coalesce(needs, ''), priority,
        NOT EXISTS (SELECT 1 FROM jobs_queues WHERE name = queue AND paused)
     FROM jobs WHERE state = 'available'",
    // Who does what one does for all.
    "CREATE TABLE jobs_duties (
        name TEXT NOT NULL PRIMARY KEY,
        holder TEXT NOT NULL,
        until INTEGER NOT NULL
    ) WITHOUT ROWID",
];

/// The table that says which version a database has.
pub(crate) const VERSIONS: &str =
    "CREATE TABLE IF NOT EXISTS jobs_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL)";
