//! A console over a made-up stack: nodes with toy tiers, a real bus, real discovery, no database.

#![allow(dead_code, reason = "each test program uses a part")]

use std::time::Duration;

use bus::{Bus, BusConfig};
use console::{Config, Deps};
use discovery::{Identity, Registry};
use faults::{Agent, Limits, Links};
use messages::names;
use messages::service::Health;
use supervision::Restart::Permanent;
use supervision::Shutdown::Brutal;
use supervision::{
    Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Strategy, Tree, pool, secs,
    subtree, worker,
};

const MANY: Intensity = Intensity { restarts: 10_000, period: secs(1) };

/// Tier `jobs` of the made-up stack.
pub static JOBS: Tree = Tree {
    name: "jobs",
    strategy: Strategy::RestForOne,
    intensity: MANY,
    children: &[
        worker("claimer", toy, Permanent, Brutal),
        pool("workers", toy, Permanent, Brutal).with_intensity(MANY),
        worker("sweeper", toy, Permanent, Brutal),
    ],
};

/// Tier `database` of the made-up stack.
pub static DATABASE: Tree = Tree {
    name: "database",
    strategy: Strategy::OneForAll,
    intensity: MANY,
    children: &[
        worker("store", toy, Permanent, Brutal),
        subtree("replication", &REPLICATION),
        pool("http", toy, Permanent, Brutal),
    ],
};

static REPLICATION: Tree = Tree {
    name: "replication",
    strategy: Strategy::RestForOne,
    intensity: MANY,
    children: &[worker("reader", toy, Permanent, Brutal), worker("lease", toy, Permanent, Brutal)],
};

static AGENT: Tree = Tree {
    name: "agent",
    strategy: Strategy::OneForOne,
    intensity: MANY,
    children: &[worker("agent", agent, Permanent, Brutal), worker("voice", voice, Permanent, Brutal)],
};

fn toy(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        life.ready();
        life.stopping().await;
        Ok(())
    }))
}

struct NodeName(String);

fn agent(life: Life) -> Result<Started, StartError> {
    let (agent, bus, name) = (life.env::<Agent>(), life.env::<Bus>(), life.env::<NodeName>());
    Ok(Started::task(Agent::clone(&agent).serve(Bus::clone(&bus), name.0.clone(), life)))
}

/// Tells the node's transitions on the bus, as the binary does.
fn voice(life: Life) -> Result<Started, StartError> {
    let (agent, bus, name) = (life.env::<Agent>(), life.env::<Bus>(), life.env::<NodeName>());
    Ok(Started::task(async move {
        let mut events = agent.root().events();
        let topic = names::topic(names::SUPERVISION, &name.0);
        life.ready();
        while let Ok(transition) = events.recv().await {
            let _ = bus.broadcast(&topic, bus::Message::json(&transition)).await;
        }
        Ok(())
    }))
}

/// One node with toy tiers.
pub struct Node {
    pub root: Root,
    pub agent: Agent,
    pub registry: Registry,
    pub bus: Bus,
}

/// A bus of its own for one test.
pub fn embedded() -> (tempfile::TempDir, Bus) {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = Bus::open(&BusConfig::embedded(directory.path()), "test").expect("the bus opens");
    (directory, bus)
}

impl Node {
    /// A node without tiers, known to the others.
    pub async fn start(name: &str, bus: &Bus) -> Self {
        let config = discovery::Config { interval_ms: 100, ..discovery::Config::default() };
        let registry = Registry::new(config, name, uuid::Uuid::now_v7().to_string());
        let root = Root::start(name, RootOptions::default());
        let link = bus.link(&format!("/{name}/node/discovery"));
        root.add_tier("node", MANY).await;
        let env = discovery::env(&registry, &link);
        root.add_instance("node", "discovery", &discovery::TREE, env).await.expect("discovery starts");
        let agent = Agent::new(root.clone(), Links::default(), Limits::default());
        let env = Env::new().with(agent.clone()).with(bus.clone()).with(NodeName(name.to_owned()));
        root.add_instance("node", "agent", &AGENT, env).await.expect("the agent starts");
        Self { root, agent, registry, bus: bus.clone() }
    }

    /// Adds an instance of a toy tier.
    pub async fn add(&self, tier: &str, instance: &str, tree: &'static Tree, workers: usize) {
        self.root.add_tier(tier, MANY).await;
        let env = Env::new().with(PoolSize("workers", workers)).with(PoolSize("http", 2));
        self.root.add_instance(tier, instance, tree, env).await.expect("the toy starts");
        self.registry
            .announce(Identity::new(tier, instance).at("http://127.0.0.1:1"))
            .set_health(Health::Ready);
    }

    /// Adds a console, on a free port if none is given, and returns its URL.
    pub async fn console(&self, config: Config, listen: Option<std::net::SocketAddr>) -> String {
        let listen = listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let env = console_env(Config { listen, node_deadline_ms: 500, ..config }, self);
        let url = console::url(&env).expect("a console");
        self.root.add_tier("console", MANY).await;
        self.root
            .add_instance("console", "console-1", &console::TREE, env)
            .await
            .expect("the console starts");
        url
    }
}

/// What the console is given.
pub fn console_env(config: Config, node: &Node) -> Env {
    let database = dbclient::Database::new(Vec::<String>::new()).with_deadline(Duration::from_millis(50));
    let deps =
        Deps { agent: node.agent.clone(), bus: node.bus.clone(), registry: node.registry.clone(), database };
    console::env(config, "console-1", deps).expect("a free port")
}
