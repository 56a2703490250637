//! The `[database]` section.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the name of a replica of the jobs' database has behind the name of its neighbour.
pub const JOBS_SUFFIX: &str = "-jobs";

/// The `[database]` section. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this replica, unique in the stack. Default `database-1`.
    pub instance: String,
    /// Directory of this replica's files. One process at a time. Default `standfast-data/database-1`.
    pub data_dir: PathBuf,
    /// Address of the HTTP API; port 0 takes a free one. Default `127.0.0.1:4001`.
    pub listen: String,
    /// Host names that clients ask for it by, as `example.org` or `*.example.org`, besides IP addresses, `localhost`, names
    /// without a dot, and those that the stack knows of itself (the hosts of `[[web.sites]]`, `discovery.host`). A request for
    /// another host is answered 421: it may come from a page of somebody else's whose name was made to resolve to here.
    pub hosts: Vec<String>,
    /// Origins, as `https://app.example.org`, whose pages may ask although they are not of the host that they ask. For pages
    /// behind a proxy that changes `Host`.
    pub page_origins: Vec<String>,
    /// Whether this replica may become primary. Default true. False makes a replica that only reads.
    pub electable: bool,
    /// HTTP workers, each with a thread of its own. Default 1, 1 to 64. One serves some 30,000 requests/s; the writer
    /// is busy long before.
    pub http_workers: usize,
    /// Connections that read, each used by one read at a time, and as many again for reads that
    /// take longer than 100 ms. Default 4, 1 to 64. Each may hold 2 MiB of cache.
    pub readers: usize,
    /// Requests waiting for the writer; more are answered 503. Default 1,024, 16 to 65,536.
    pub queue_max: usize,
    /// Transactions committed together at most. Default 512, 1 to 10,000. More raises the latency of each under load.
    pub group_max: usize,
    /// Bytes of one log entry; a transaction that changes more is refused. Default 12 MiB, 64 KiB to 15 MiB: RabbitMQ 4
    /// takes messages of 16 MiB.
    pub entry_bytes_max: usize,
    /// How long a statement that writes may run, milliseconds. Default 1,500, 10 to 3,000. It holds up every other
    /// write.
    pub write_time_ms: u64,
    /// How long a transaction may run, milliseconds. Default 3,000, from `write_time_ms` to 10,000. Transactions run
    /// one after the other: each waits for those before it.
    pub transaction_time_ms: u64,
    /// How long a transaction that changes the schema may run, milliseconds: an index over millions of rows takes
    /// minutes. Default 600,000, 1,000 to 3,600,000, at least `transaction_time_ms`. Other writes are answered `busy`
    /// meanwhile, and every replica needs as long again.
    pub schema_time_ms: u64,
    /// How long a read may run, milliseconds. Default 5,000, 10 to 600,000.
    pub read_time_ms: u64,
    /// How long a request waits for the writer, for a session offset or for the primary, milliseconds. Default 5,000,
    /// 100 to 60,000. Then a write is answered `outcome-unknown`.
    pub wait_ms: u64,
    /// Bytes of a request body. Default 32 MiB, 1 KiB to 256 MiB; at least `entry_bytes_max`, and `value_bytes_max` six
    /// times.
    pub body_bytes_max: usize,
    /// Bytes that the bodies of all requests may hold together, each counted twice: as it came, and as it was understood.
    /// More are answered 503. Default 256 MiB, 1 MiB to 64 GiB; at least twice `body_bytes_max`.
    pub bodies_bytes_max: usize,
    /// Statements of a request, those of all its transactions together. Default 10,000, 1 to 1,000,000.
    pub statements_max: usize,
    /// Bytes of one statement's text. Default 1 MiB, 1 KiB to 16 MiB.
    pub sql_bytes_max: usize,
    /// Parameters of a statement. Default 32,766 (SQLite's own), 1 to 32,766.
    pub params_max: usize,
    /// Rows of one result; more is an error that says so. Default 10,000, 1 to 10,000,000.
    pub rows_max: usize,
    /// Bytes of one result as JSON. Default 32 MiB, 1 KiB to 256 MiB; at least `value_bytes_max` six times: a control
    /// character takes six bytes in JSON.
    pub result_bytes_max: usize,
    /// Bytes of the results of one request that reads, all its statements together. Default 64 MiB, 1 KiB to 1 GiB; at
    /// least `result_bytes_max`.
    pub request_result_bytes_max: usize,
    /// Bytes that the results of all requests may hold together, each counted twice: as rows, and as the answer that is
    /// made of them. A read that finds no room is answered 503. Default 256 MiB, 1 MiB to 64 GiB; at least twice
    /// `request_result_bytes_max`.
    pub results_bytes_max: usize,
    /// Bytes of one value, and of one row with all its values and a few bytes for each. Default 4 MiB, 1 KiB to 7 MiB; at
    /// most half of `entry_bytes_max`, because a change of a row is logged with the row as it was. So whatever can be
    /// stored can be read, replaced and deleted.
    pub value_bytes_max: usize,
    /// Bytes of SQLite's write-ahead log. When it is larger, new reads wait until those before them have ended, half of
    /// `wait_ms` at most, then those are ended, and the log is cut. Default 256 MiB, 1 MiB to 1 TiB. Smaller: more waiting.
    pub wal_bytes_max: u64,
    /// Downloads of the whole database at a time; more are answered 503. Other replicas have as many for themselves.
    /// Default 8, 1 to 1,000.
    pub backups_max: usize,
    /// Copies of the database on this replica's disk for those downloads, each shared by all who asked before it was
    /// begun. Default 2, 1 to 16.
    pub backup_copies_max: usize,
    /// How long a download of the database, or the upload of a restore, may take, milliseconds. Default 3,600,000 (an hour), 1,000 to 604,800,000.
    pub backup_time_ms: u64,
    /// Bytes of a file that a restore may have. Default 64 GiB, 1 MiB to 1 TiB. The disk of each replica needs three times
    /// the file and once the database at that moment; it may take `backup_time_ms` to arrive.
    pub restore_bytes_max: u64,
    /// How often the primary has the content of all replicas compared, milliseconds. Default 3,600,000 (an hour), 1,000 to
    /// 604,800,000. Each replica then reads its whole file; after a comparison that took long, the next one waits for twenty
    /// times as long at least.
    pub verify_every_ms: u64,
    /// How long a comparison waits for what the replicas say, milliseconds. Default 600,000, 1,000 to 86,400,000. Who has not
    /// said by then is `silent`.
    pub verify_time_ms: u64,
    /// Entries of the log that are kept although every replica has applied them. Default 10,000, 0 to 100,000,000.
    /// A replica that was away for longer is brought up by a snapshot.
    pub log_margin: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: "database-1".to_owned(),
            data_dir: PathBuf::from("standfast-data/database-1"),
            listen: "127.0.0.1:4001".to_owned(),
            hosts: Vec::new(),
            page_origins: Vec::new(),
            electable: true,
            http_workers: 1,
            readers: 4,
            queue_max: 1024,
            group_max: 512,
            entry_bytes_max: 12 << 20,
            write_time_ms: 1500,
            transaction_time_ms: 3000,
            schema_time_ms: 600_000,
            read_time_ms: 5000,
            wait_ms: 5000,
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            statements_max: 10_000,
            sql_bytes_max: 1 << 20,
            params_max: 32_766,
            rows_max: 10_000,
            result_bytes_max: 32 << 20,
            request_result_bytes_max: 64 << 20,
            results_bytes_max: 256 << 20,
            value_bytes_max: 4 << 20,
            wal_bytes_max: 256 << 20,
            backups_max: 8,
            backup_copies_max: 2,
            backup_time_ms: 3_600_000,
            restore_bytes_max: 64 << 30,
            verify_every_ms: 3_600_000,
            verify_time_ms: 600_000,
            log_margin: 10_000,
        }
    }
}

impl Config {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names key, value and range.
    pub fn validate(&self) -> Result<(), String> {
        let within = |key: &str, value: u64, low: u64, high: u64| {
            let refused = || format!("database.{key} = {value}: allowed is {low} to {high}");
            if (low..=high).contains(&value) { Ok(()) } else { Err(refused()) }
        };
        self.listens()?;
        within("http_workers", self.http_workers as u64, 1, 64)?;
        within("readers", self.readers as u64, 1, 64)?;
        within("queue_max", self.queue_max as u64, 16, 65_536)?;
        within("group_max", self.group_max as u64, 1, 10_000)?;
        within("entry_bytes_max", self.entry_bytes_max as u64, 64 << 10, 15 << 20)?;
        within("write_time_ms", self.write_time_ms, 10, 3000)?;
        within("transaction_time_ms", self.transaction_time_ms, self.write_time_ms, 10_000)?;
        within("schema_time_ms", self.schema_time_ms, self.transaction_time_ms.max(1000), 3_600_000)?;
        within("read_time_ms", self.read_time_ms, 10, 600_000)?;
        within("wait_ms", self.wait_ms, 100, 60_000)?;
        within("body_bytes_max", self.body_bytes_max as u64, 1 << 10, 256 << 20)?;
        within("bodies_bytes_max", self.bodies_bytes_max as u64, 1 << 20, 64 << 30)?;
        within("statements_max", self.statements_max as u64, 1, 1_000_000)?;
        within("sql_bytes_max", self.sql_bytes_max as u64, 1 << 10, 16 << 20)?;
        within("params_max", self.params_max as u64, 1, 32_766)?;
        within("rows_max", self.rows_max as u64, 1, 10_000_000)?;
        within("result_bytes_max", self.result_bytes_max as u64, 1 << 10, 256 << 20)?;
        within("request_result_bytes_max", self.request_result_bytes_max as u64, 1 << 10, 1 << 30)?;
        within("results_bytes_max", self.results_bytes_max as u64, 1 << 20, 64 << 30)?;
        within("value_bytes_max", self.value_bytes_max as u64, 1 << 10, 7 << 20)?;
        within("wal_bytes_max", self.wal_bytes_max, 1 << 20, 1 << 40)?;
        within("backups_max", self.backups_max as u64, 1, 1000)?;
        within("backup_copies_max", self.backup_copies_max as u64, 1, 16)?;
        within("backup_time_ms", self.backup_time_ms, 1000, 604_800_000)?;
        within("restore_bytes_max", self.restore_bytes_max, 1 << 20, 1 << 40)?;
        within("verify_every_ms", self.verify_every_ms, 1000, 604_800_000)?;
        within("verify_time_ms", self.verify_time_ms, 1000, 86_400_000)?;
        self.fits()?;
        within("log_margin", self.log_margin, 0, 100_000_000)?;
        http_support::check_names("database", &self.hosts, &self.page_origins)?;
        let name = &self.instance;
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if plain && (1..=72).contains(&name.len()) {
            return Ok(());
        }
        Err(format!("database.instance = {name:?}: allowed is 1 to 72 of a-z A-Z 0-9 - _"))
    }

    fn listens(&self) -> Result<(), String> {
        let parts = self.listen.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if parts.is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            return Ok(());
        }
        let port = self.listen.trim_start_matches(':').parse::<u16>().unwrap_or(4001);
        Err(format!(
            "database.listen = {:?}: use an IP address and a port: 127.0.0.1:{port} or [::1]:{port} for this machine \
             alone, [::]:{port} for all interfaces, IPv4 and IPv6",
            self.listen
        ))
    }

    /// The configuration of the replica of the jobs' database that runs beside this one. Its limits are the defaults: they
    /// fit what our own tiers send, and what an operator allows to clients is none of its business.
    #[must_use]
    pub fn for_jobs(&self) -> Self {
        let host = self.listen.rsplit_once(':').map_or(self.listen.as_str(), |(host, _)| host);
        Self {
            instance: format!("{}{JOBS_SUFFIX}", self.instance),
            data_dir: PathBuf::new(),
            listen: format!("{host}:0"),
            hosts: self.hosts.clone(),
            electable: self.electable,
            log_margin: self.log_margin,
            ..Self::default()
        }
    }

    /// What one limit lets in must not break another one later.
    fn fits(&self) -> Result<(), String> {
        // For what stands around a value: the row's head in an entry, brackets and a column's name in JSON.
        const AROUND: usize = 16 << 10;
        let value = self.value_bytes_max;
        let why_value = "a value of database.value_bytes_max could be stored and not be";
        for (key, have, need, why) in [
            ("entry_bytes_max", self.entry_bytes_max, value * 2 + AROUND, format!("{why_value} replaced")),
            ("result_bytes_max", self.result_bytes_max, value * 6 + AROUND, format!("{why_value} read")),
            ("body_bytes_max", self.body_bytes_max, value * 6 + AROUND, format!("{why_value} sent")),
            ("body_bytes_max", self.body_bytes_max, self.entry_bytes_max, why("entry_bytes_max")),
            (
                "request_result_bytes_max",
                self.request_result_bytes_max,
                self.result_bytes_max,
                why("result_bytes_max"),
            ),
            (
                "results_bytes_max",
                self.results_bytes_max,
                self.request_result_bytes_max * 2,
                why("request_result_bytes_max"),
            ),
            ("bodies_bytes_max", self.bodies_bytes_max, self.body_bytes_max * 2, why("body_bytes_max")),
        ] {
            if have < need {
                return Err(format!("database.{key} = {have}: must be at least {need}, else {why}"));
            }
        }
        Ok(())
    }

    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    /// How long a request waits that changes the schema, or may do so.
    pub(crate) fn schema_wait(&self) -> Duration {
        self.wait() + Duration::from_millis(self.schema_time_ms)
    }
}

fn why(key: &str) -> String {
    format!("nothing as large as database.{key} allows would fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_an_outlier_is_named() {
        Config::default().validate().unwrap();
        let refused = Config { readers: 0, ..Config::default() }.validate().unwrap_err();
        assert_eq!(refused, "database.readers = 0: allowed is 1 to 64");
        // Limits that do not fit each other: the relation is named.
        for (wrong, says) in [
            (
                Config { value_bytes_max: 7 << 20, ..Config::default() },
                "entry_bytes_max = 12582912: must be at least 14696448",
            ),
            (Config { result_bytes_max: 8 << 20, ..Config::default() }, "could be stored and not be read"),
            (Config { body_bytes_max: 16 << 20, ..Config::default() }, "could be stored and not be sent"),
            (
                Config { body_bytes_max: 1 << 20, value_bytes_max: 1 << 10, ..Config::default() },
                "database.entry_bytes_max",
            ),
            (Config { request_result_bytes_max: 1 << 20, ..Config::default() }, "database.result_bytes_max"),
            (
                Config { results_bytes_max: 100 << 20, ..Config::default() },
                "database.request_result_bytes_max",
            ),
            (Config { bodies_bytes_max: 40 << 20, ..Config::default() }, "database.body_bytes_max"),
        ] {
            let refused = wrong.validate().unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(Config { instance: "a/b".into(), ..Config::default() }.validate().is_err());
    }
}
