//! The whole stack, as processes of the real binary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use supervision::view;

use crate::{Broker, Http, Node, free_port, until};

/// How long a node may take to be ready; a debug build on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// What [`TestStack::on_rabbitmq`] starts: tier and how many of it.
const PROCESSES: [(&str, u32); 7] =
    [("database", 3), ("app", 2), ("jobs", 2), ("console", 1), ("web", 1), ("balancer", 2), ("edge", 2)];

/// A running stack. Dropping it ends every process that it started.
pub struct TestStack {
    /// Its processes.
    pub nodes: Vec<Node>,
    /// Its broker, when it is not embedded.
    pub broker: Option<Broker>,
    /// Base URLs of the front doors.
    pub fronts: Vec<String>,
    /// Base URL of the operating API.
    pub console: String,
    /// Base URLs of the database's replicas that listen on a known port.
    pub databases: Vec<String>,
    dir: Option<tempfile::TempDir>,
}

/// What to start.
pub struct Builder {
    rabbitmq: bool,
    config: String,
}

impl TestStack {
    /// `standfast up`: everything in one process, on the embedded bus.
    #[must_use]
    pub fn one_process() -> Builder {
        Builder { rabbitmq: false, config: String::new() }
    }

    /// Each instance a process of its own, on a private RabbitMQ: three databases, two apps, two runners, a console, a web
    /// server, two balancers, two edges.
    #[must_use]
    pub fn on_rabbitmq() -> Builder {
        Builder { rabbitmq: true, config: String::new() }
    }

    /// A client of the `n`-th front door, round and round.
    #[must_use]
    pub fn front(&self, n: usize) -> Http {
        Http::new(&self.fronts[n % self.fronts.len()])
    }

    /// A client of the operating API.
    #[must_use]
    pub fn operating(&self) -> Http {
        Http::new(&self.console)
    }

    /// The live supervision tree.
    ///
    /// # Errors
    /// What the operating API answered instead.
    pub async fn tree(&self) -> Result<view::Node, String> {
        let response = self.operating().limit(Duration::from_secs(5)).get("/v1/tree").await;
        response.map_err(|e| e.to_string())?.json().map_err(|e| e.to_string())
    }

    /// Sets a fault; answers the paths that it hit. `slow` and `delay` add 100 ms, `drop` and `duplicate` hit half.
    ///
    /// # Errors
    /// What the operating API answered instead.
    pub async fn inject(&self, target: &str, kind: &str, lasts: Duration) -> Result<Vec<String>, String> {
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let mut fault = json!({"target": target, "kind": kind, "for_ms": lasts});
        match kind {
            "slow" | "delay" => fault["amount_ms"] = json!(100),
            "drop" | "duplicate" => fault["probability"] = json!(0.5),
            _ => {}
        }
        let response = self.operating().limit(Duration::from_secs(5)).post("/v1/faults", &fault).await;
        let response = response.map_err(|e| e.to_string())?;
        let body: Value = response.json().map_err(|e| e.to_string())?;
        let matched = body["matched"].as_array().ok_or_else(|| response.brief())?;
        Ok(matched.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Instance that is the primary of the clients' database, as discovery knows it.
    ///
    /// # Errors
    /// What the operating API answered instead.
    pub async fn primary(&self) -> Result<String, String> {
        self.primary_of("database").await
    }

    /// Instance that is the primary of the jobs' database, as discovery knows it.
    ///
    /// # Errors
    /// What the operating API answered instead.
    pub async fn jobs_primary(&self) -> Result<String, String> {
        self.primary_of("jobstore").await
    }

    async fn primary_of(&self, tier: &str) -> Result<String, String> {
        let answer = self.operating().limit(Duration::from_secs(5)).get("/v1/services").await;
        let answer = answer.map_err(|e| e.to_string())?;
        let services: Value = answer.json().map_err(|e| e.to_string())?;
        let list = services.as_array().or(services["services"].as_array()).ok_or_else(|| answer.brief())?;
        let primary = list
            .iter()
            .find(|s| s["tier"] == tier && s["facts"]["role"] == "primary")
            .ok_or_else(|| answer.brief())?;
        primary["instance"].as_str().map(str::to_owned).ok_or_else(|| answer.brief())
    }

    /// Waits until every child of every node runs; answers the tree.
    pub async fn all_running(&self, limit: Duration) -> view::Node {
        until("every child runs", limit, async || {
            let tree = self.tree().await?;
            let down: Vec<String> = workers(&tree)
                .filter(|w| w.state != view::State::Running)
                .map(|w| format!("{} {:?} {}", w.path, w.state, w.waiting_for.as_deref().unwrap_or_default()))
                .collect();
            let nodes = tree_nodes(&tree);
            if nodes < self.nodes.len() {
                return Err(format!("{nodes} of {} nodes are in the tree", self.nodes.len()));
            }
            if down.is_empty() { Ok(tree) } else { Err(down.join(", ")) }
        })
        .await
    }

    /// Waits until a front door takes jobs.
    pub async fn serving(&self, limit: Duration) {
        for front in &self.fronts {
            until("the front door is ready", limit, async || {
                match Http::new(front).limit(Duration::from_secs(2)).get("/readyz").await {
                    Ok(r) if r.status == 200 => Ok(()),
                    Ok(r) => Err(r.brief()),
                    Err(e) => Err(e.to_string()),
                }
            })
            .await;
        }
    }

    /// Writes another configuration file and has every process read it (SIGHUP).
    ///
    /// # Panics
    /// When a process is gone.
    pub fn reload(&self, toml: &str) {
        let dir = self.dir.as_ref().expect("a started stack has its directory");
        std::fs::write(dir.path().join("standfast.toml"), toml).expect("the temporary directory is ours");
        for node in &self.nodes {
            let pid = node.pid().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
            kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it is ours");
        }
    }

    /// The node of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.name == name).expect("a node of this name")
    }
}

/// Every worker of a tree.
pub(crate) fn workers(tree: &view::Node) -> impl Iterator<Item = &view::Node> {
    let mut open = vec![tree];
    std::iter::from_fn(move || {
        let node = open.pop()?;
        open.extend(&node.children);
        Some(node)
    })
    .filter(|node| node.kind == view::Kind::Worker)
}

/// Nodes of a merged tree: paths of one level.
fn tree_nodes(tree: &view::Node) -> usize {
    if tree.path.matches('/').count() == 1 && tree.path != "/" {
        return 1;
    }
    tree.children.iter().filter(|c| c.path.matches('/').count() == 1 && !c.children.is_empty()).count()
}

impl Builder {
    /// Adds lines to the configuration file.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(self) -> TestStack {
        let dir =
            tempfile::Builder::new().prefix("standfast-test-").tempdir().expect("a temporary directory");
        let config = dir.path().join("standfast.toml");
        std::fs::write(&config, &self.config).expect("the temporary directory is ours");
        let mut stack = if self.rabbitmq {
            let broker = Broker::start().await;
            let mut stack = many_processes(dir.path(), &config, &broker.url());
            stack.broker = Some(broker);
            stack
        } else {
            one_process(dir.path(), &config)
        };
        stack.dir = Some(dir);
        for node in &mut stack.nodes {
            node.start();
        }
        for node in &mut stack.nodes {
            node.ready(READY).await;
        }
        stack.serving(READY).await;
        stack
    }
}

fn address(base: &mut Vec<String>) -> OsString {
    let address = format!("127.0.0.1:{}", free_port());
    base.push(format!("http://{address}"));
    address.into()
}

fn node(dir: &Path, config: &Path, name: &str, more: Vec<OsString>) -> Node {
    let data = dir.join("data").join(name);
    let mut args = more;
    args.extend([
        "--node".into(),
        name.into(),
        "--data".into(),
        data.into(),
        "--config".into(),
        config.into(),
    ]);
    Node::new(name, PathBuf::from(dir), args)
}

fn one_process(dir: &Path, config: &Path) -> TestStack {
    let (mut fronts, mut consoles, mut databases) = (Vec::new(), Vec::new(), Vec::new());
    let args: Vec<OsString> = vec![
        "up".into(),
        "--listen".into(),
        address(&mut fronts),
        "--console".into(),
        address(&mut consoles),
        "--database".into(),
        address(&mut databases),
        "--tls".into(),
        "127.0.0.1:0".into(), // nothing here asks for it, and stacks run beside each other
    ];
    let nodes = vec![node(dir, config, "all", args)];
    TestStack { nodes, broker: None, fronts, console: consoles.remove(0), databases, dir: None }
}

fn many_processes(dir: &Path, config: &Path, bus: &str) -> TestStack {
    let (mut fronts, mut consoles, mut databases) = (Vec::new(), Vec::new(), Vec::new());
    let mut nodes = Vec::new();
    for (tier, count) in PROCESSES {
        for n in 1..=count {
            let name = format!("{tier}-{n}");
            let mut args: Vec<OsString> =
                ["run", tier, "--instance", &name, "--bus", bus].map(Into::into).into();
            let bases = match tier {
                "database" => Some(&mut databases),
                "edge" => Some(&mut fronts),
                "console" => Some(&mut consoles),
                _ => None,
            };
            if let Some(bases) = bases {
                args.extend(["--listen".into(), address(bases)]);
            }
            if tier == "edge" {
                args.extend(["--tls".into(), "127.0.0.1:0".into()]);
            }
            nodes.push(node(dir, config, &name, args));
        }
    }
    TestStack { nodes, broker: None, fronts, console: consoles.remove(0), databases, dir: None }
}

impl Drop for TestStack {
    #[allow(clippy::print_stderr, reason = "this is the report of a failed test")]
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("{}", node.log_tail());
            }
            if let Some(dir) = self.dir.take() {
                eprintln!("--- data and whole logs are kept in {}", dir.keep().display());
            }
        }
    }
}
