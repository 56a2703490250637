//! A private RabbitMQ: its own ports, data, port mapper and cookie, so that it meets no other on the machine.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{free_port, until};

/// The package's own script; the one in `/usr/sbin` would change the user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// How long it may take to start; it shares the machine with what is tested.
const READY: Duration = Duration::from_secs(90);

/// A broker that can be killed and started again with its data.
pub struct Broker {
    port: u16,
    dist: u16,
    mapper_port: u16,
    dir: tempfile::TempDir,
    mapper: Child,
    server: Option<Child>,
}

impl Broker {
    /// Starts one, and waits until it takes connections.
    ///
    /// # Panics
    /// When `rabbitmq-server` is not installed or does not start.
    pub async fn start() -> Self {
        assert!(Path::new(SERVER).exists(), "rabbitmq-server is not installed; infra/test installs it");
        let dir =
            tempfile::Builder::new().prefix("standfast-rabbitmq-").tempdir().expect("a temporary directory");
        let mapper_port = free_port();
        // Started here, in the foreground: the one that Erlang starts by itself would outlive the test.
        let mapper = Command::new("epmd")
            .args(["-port", &mapper_port.to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd comes with rabbitmq-server");
        let mut broker =
            Self { port: free_port(), dist: free_port(), mapper_port, dir, mapper, server: None };
        until("epmd listens", Duration::from_secs(10), async || connects(mapper_port)).await;
        broker.restart().await;
        broker
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Kills it if it runs, and starts it again on the same data; answers how long it was away.
    pub async fn restart(&mut self) -> Duration {
        let began: Instant = clock::now();
        self.kill();
        let port = self.port;
        // The script that was waited for is not the node itself.
        let gone = async || connects(port).map_or(Ok(()), |()| Err("it still listens".to_owned()));
        until("the killed broker is gone", READY, gone).await;
        let dir = self.dir.path();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("log file");
        let mut command = Command::new(SERVER);
        command
            .env("HOME", dir)
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist.to_string())
            .env("RABBITMQ_NODENAME", format!("standfast-{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", dir)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", dir.join("none"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .process_group(0);
        self.server = Some(command.spawn().expect("rabbitmq-server starts"));
        until("RabbitMQ takes connections", READY, async || connects(port)).await;
        clock::now() - began
    }

    /// `kill -9` of the whole process group.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let group = Pid::from_raw(i32::try_from(server.id()).expect("a pid"));
            let _ = killpg(group, Signal::SIGKILL);
            let _ = server.wait();
        }
    }
}

fn connects(port: u16) -> Result<(), String> {
    std::net::TcpStream::connect(("127.0.0.1", port)).map(|_| ()).map_err(|e| e.to_string())
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.mapper.kill();
        let _ = self.mapper.wait();
    }
}
