//! The command line, as `standfast help` shows it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// A production web stack as one supervised actor system: replicated database, job runner, HTTP API, live
/// supervision tree. Break any part of it on purpose, and watch it come back with nothing lost.
#[derive(Debug, Parser)]
#[command(name = "standfast", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Start here:
  standfast up                                          the whole stack; ready when it says so
  standfast jobs submit digest '{\"text\": \"hello\"}' --wait 10
  standfast tree --watch                                the supervision tree, live
  standfast fault inject '/*/jobs/**' panic             break something, and look again

Exit codes: 0 done, 1 it failed, 2 wrong usage, 69 the stack is not reachable, 78 bad configuration.
Every setting of the file is also a variable: STANDFAST_JOBS__LEASE_MS=5000 is lease_ms in [jobs].
The log goes to stderr; STANDFAST_LOG=debug says more.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the whole stack in this process; the first line of stdout says when it is ready.
    Up(Up),
    /// Start one tier as a node of its own, beside others on the same broker.
    Run(Run),
    /// Show the supervision tree of the running stack.
    Tree(Tree),
    /// Submit jobs, look at them, and change what happens to them.
    Jobs {
        /// What to do with jobs.
        #[command(subcommand)]
        command: Jobs,
    },
    /// Break parts of the running stack on purpose; every fault ends by itself.
    Fault {
        /// What to do with faults.
        #[command(subcommand)]
        command: Fault,
    },
    /// Query and change the replicated database.
    Db {
        /// What to do with the database.
        #[command(subcommand)]
        command: Db,
    },
    /// Make every edge forget what it has stored; each says when it had.
    Purge(Purge),
    /// Check a configuration file: exit 0, or 78 and the key, value and range at fault.
    CheckConfig {
        /// The file; without it, the environment alone is checked.
        file: Option<PathBuf>,
        /// Print the whole effective configuration as TOML, defaults included.
        #[arg(long)]
        print: bool,
    },
    /// Exit 0 when a server answers that it is ready, 69 otherwise: a health check for containers.
    Ready {
        /// Base URL of the server.
        #[arg(default_value = "http://127.0.0.1:8080", env = "STANDFAST_URL")]
        url: String,
    },
    /// Print a completion script: `source <(standfast completions bash)`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What every node is started with.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Bus: `embedded`, or `amqp://user:password@host:5672/vhost`.
    #[arg(long, env = "STANDFAST_BUS", value_name = "URL", hide_env_values = true)]
    pub bus: Option<String>,
    /// Directory that keeps everything; made if it is not there [default: ./standfast-data].
    #[arg(long, env = "STANDFAST_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Configuration file; every setting has a default.
    #[arg(long, env = "STANDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node, unique in the stack [default: the host's name].
    #[arg(long, env = "STANDFAST_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Which log lines are written: `info`, `debug`, `info,bus=debug`.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// `standfast up`.
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Front door, where applications and the jobs API answer [default: 127.0.0.1:8080]; port 0 takes a free one.
    #[arg(long, env = "STANDFAST_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,
    /// The front door's TLS [default: 127.0.0.1:8443].
    #[arg(long, value_name = "ADDR")]
    pub tls: Option<String>,
    /// Console and operating API [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    pub console: Option<String>,
    /// Database API of the first replica [default: 127.0.0.1:4001].
    #[arg(long, value_name = "ADDR")]
    pub database: Option<String>,
}

/// `standfast run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Which tier.
    pub tier: Tier,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Name of the instance, unique in the stack [default: TIER-1].
    #[arg(long, env = "STANDFAST_INSTANCE", value_name = "ID")]
    pub instance: Option<String>,
    /// Where its API listens [default: the tier's own port].
    #[arg(long, env = "STANDFAST_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where its TLS listens: an edge, a balancer or a web server.
    #[arg(long, value_name = "ADDR")]
    pub tls: Option<String>,
    /// Host at which other nodes reach this one, when it listens on 0.0.0.0 [default: the host's name].
    #[arg(long, env = "STANDFAST_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
}

/// The tiers of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// A replica of the database.
    Database,
    /// The HTTP API of jobs.
    App,
    /// A runner of jobs.
    Jobs,
    /// The operating API and the live page.
    Console,
    /// The web server: static files, virtual hosts, and the way to the app.
    Web,
    /// The load balancer.
    Balancer,
    /// The CDN edge, which is the front door.
    Edge,
}

impl Tier {
    /// The one name of the tier: crate, path, config section.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::App => "app",
            Self::Jobs => "jobs",
            Self::Console => "console",
            Self::Web => "web",
            Self::Balancer => "balancer",
            Self::Edge => "edge",
        }
    }
}

/// Where the front door is.
#[derive(Debug, Args)]
pub struct FrontDoor {
    /// Base URL of the front door.
    #[arg(long, env = "STANDFAST_URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub url: String,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Where the operating API is.
#[derive(Debug, Args)]
pub struct Operating {
    /// Base URL of the console.
    #[arg(long, env = "STANDFAST_CONSOLE_URL", default_value = "http://127.0.0.1:7070", global = true)]
    pub console: String,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// `standfast tree`.
#[derive(Debug, Args)]
pub struct Tree {
    /// Keep showing it as it changes; a line for each change when piped.
    #[arg(long, short)]
    pub watch: bool,
    /// Only paths that begin so: `/laptop/jobs`.
    #[arg(value_name = "PATH")]
    pub below: Option<String>,
    #[command(flatten)]
    pub at: Operating,
}

/// `standfast purge`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["urls", "prefixes", "tags"]))]
pub struct Purge {
    /// URLs, or paths at any host: `/news` (with every query), `/news?page=2` (with this one).
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// Everything whose URL, or path at any host, begins so.
    #[arg(long = "prefix", value_name = "URL")]
    pub prefixes: Vec<String>,
    /// Everything with this tag (`Surrogate-Key`, `Cache-Tag`).
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Make it stale instead: it is validated before its next use, and may still stand in for a failed origin.
    #[arg(long)]
    pub soft: bool,
    /// A token that `[edge] tokens` knows.
    #[arg(long, env = "STANDFAST_EDGE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub at: FrontDoor,
}

/// `standfast jobs …`.
#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// Submit a job: `submit digest '{"text": "hello"}'`; prints its id.
    Submit(Submit),
    /// Submit many: one JSON job a line, from a file or `-`; prints one outcome a line.
    Bulk {
        /// The file; `-` is stdin.
        file: PathBuf,
        #[command(flatten)]
        at: FrontDoor,
    },
    /// List jobs, newest first.
    List(List),
    /// Show one job.
    Show(OneJob),
    /// Follow one job to its end; exit 1 if it was cancelled or discarded.
    Watch(OneJob),
    /// Cancel a job that is not finished.
    Cancel(OneJob),
    /// Run a job again now, that waits for its next attempt or was given up.
    Retry(OneJob),
    /// Run a finished job again from the beginning.
    Replay(OneJob),
    /// Say what a job is waiting for.
    Why(OneJob),
    /// Show the queues.
    Queues {
        #[command(flatten)]
        at: FrontDoor,
    },
}

/// `standfast jobs submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// What to run: digest, thumbnail, command, http.
    pub kind: String,
    /// Its input as JSON; `-` reads stdin, `@FILE` a file.
    #[arg(default_value = "{}")]
    pub payload: String,
    /// Queue.
    #[arg(long, short)]
    pub queue: Option<String>,
    /// 0 (first) to 9 (last).
    #[arg(long, short)]
    pub priority: Option<u8>,
    /// Start not before this much time from now: `90s`, `5m`, `2h`.
    #[arg(long, value_parser = duration, conflicts_with = "at_time")]
    pub delay: Option<Duration>,
    /// Start not before this time, RFC 3339.
    #[arg(long = "at", id = "at_time", value_name = "TIME")]
    pub at_time: Option<String>,
    /// How often it may be tried.
    #[arg(long)]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take: `30s`.
    #[arg(long, value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Label to list by; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Submitting again with the same key and body gives the same job.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Wait for the result, at most so many seconds; exit 1 if it was cancelled or discarded.
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    #[command(flatten)]
    pub at: FrontDoor,
}

/// `standfast jobs list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only in this state.
    #[arg(long, value_parser = ["scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded"])]
    pub state: Option<String>,
    /// Only of this queue.
    #[arg(long, short)]
    pub queue: Option<String>,
    /// Only of this kind.
    #[arg(long, short)]
    pub kind: Option<String>,
    /// Only with this label.
    #[arg(long)]
    pub tag: Option<String>,
    /// At most so many.
    #[arg(long, short = 'n', default_value_t = 20)]
    pub limit: usize,
    #[command(flatten)]
    pub at: FrontDoor,
}

/// A command on one job.
#[derive(Debug, Args)]
pub struct OneJob {
    /// The job's id.
    pub id: String,
    #[command(flatten)]
    pub at: FrontDoor,
}

/// `standfast fault …`.
#[derive(Debug, Subcommand)]
pub enum Fault {
    /// Set a fault: `inject '/*/jobs/*/workers/*' panic`.
    Inject {
        /// Paths it hits, as `standfast tree` shows them; `*` is one level, `**` any number.
        path: String,
        /// What happens there.
        #[arg(value_parser = ["panic", "exit", "hang", "slow", "drop", "duplicate", "delay", "disconnect", "partition", "kill"])]
        kind: String,
        /// It ends by itself after this time.
        #[arg(long = "for", value_parser = duration, default_value = "10s", value_name = "TIME")]
        lasts: Duration,
        /// Of drop and duplicate: the chance, above 0 to 1.
        #[arg(long)]
        probability: Option<f64>,
        /// Of slow and delay: by how much.
        #[arg(long, value_parser = duration, value_name = "TIME")]
        amount: Option<Duration>,
        #[command(flatten)]
        at: Operating,
    },
    /// List the faults in force.
    List {
        #[command(flatten)]
        at: Operating,
    },
    /// Undo a fault, or all of them.
    Clear {
        /// Its id; all if not given.
        id: Option<String>,
        #[command(flatten)]
        at: Operating,
    },
}

/// Where the database is.
#[derive(Debug, Args)]
pub struct DatabaseAt {
    /// Base URL of any replica.
    #[arg(long, env = "STANDFAST_DATABASE_URL", default_value = "http://127.0.0.1:4001", global = true)]
    pub database: String,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// `standfast db …`.
#[derive(Debug, Subcommand)]
pub enum Db {
    /// Read: `query 'SELECT * FROM t WHERE id = ?' 7`.
    Query {
        /// The statement.
        sql: String,
        /// Values for its `?`: JSON where it parses, text otherwise.
        params: Vec<String>,
        /// How fresh the answer must be.
        #[arg(long, default_value = "strong", value_parser = ["eventual", "session", "strong"])]
        level: String,
        #[command(flatten)]
        at: DatabaseAt,
    },
    /// Write, as one transaction: `exec 'INSERT INTO t VALUES (?, ?)' 7 seven`.
    Exec {
        /// The statement.
        sql: String,
        /// Values for its `?`: JSON where it parses, text otherwise.
        params: Vec<String>,
        #[command(flatten)]
        at: DatabaseAt,
    },
    /// Write the database, as it is at one moment, to a SQLite file.
    Backup {
        /// The file.
        file: PathBuf,
        /// Replace the file if it is there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        at: DatabaseAt,
    },
    /// Make a SQLite file the content of the database, while the stack runs; each replica keeps a copy of what it had.
    Restore {
        /// The file: a backup, or a database of anybody's.
        file: PathBuf,
        /// Bring a backup forward to this sequence number, or to this time (RFC 3339), from the log that follows it.
        #[arg(long, value_name = "SEQ|TIME")]
        until: Option<String>,
        #[command(flatten)]
        at: DatabaseAt,
    },
    /// Compare the content of all replicas; exit 1 if one differs.
    Verify {
        #[command(flatten)]
        at: DatabaseAt,
    },
    /// Show the replicas and who is primary.
    Status {
        #[command(flatten)]
        at: DatabaseAt,
    },
}

/// `250ms`, `10s`, `5m`, `2h`; a plain number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("use a number and ms, s, m, h or d, as in 10s".to_owned()),
    };
    let number: f64 =
        number.parse().map_err(|_| "use a number and ms, s, m, h or d, as in 10s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "10 s", "ten", "-1s", "1e99d", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
