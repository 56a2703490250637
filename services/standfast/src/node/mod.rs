//! How a process becomes a node of the stack: configuration, bus, supervision tree, discovery, tiers, signals.
//!
//! Started top to bottom, stopped bottom to top, and everything below the [`Root`] is supervised:
//!
//! ```text
//! /<node>/node/discovery/{listener, voice}       who is there
//! /<node>/node/operations/{reporter, agent}      transitions to the bus; answers for this node's tree and faults
//! /<node>/<tier>/<instance>/…                    the tiers
//! ```

mod names;
mod operations;
mod reload;
mod serve;
mod tiers;

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bus::{Bus, BusError};
use dbclient::Database;
use discovery::Registry;
use faults::{Agent, Links};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use supervision::{Env, Intensity, Root, RootOptions, StartError, Tree};
use uuid::Uuid;

use crate::cli;
use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome, with_causes};
use crate::process;
use crate::settings::{Settings, Source, check_name, host_name};

/// Restarts of whole instances of one tier that are too many for it.
const TIER_INTENSITY: Intensity = Intensity { restarts: 5, period: Duration::from_secs(30) };

/// `standfast up`: the whole stack.
pub fn up(args: &cli::Up) -> Outcome {
    let source = source(&args.node)
        .flag("--listen", "edge.listen", args.listen.as_deref())
        .flag("--console", "console.listen", args.console.as_deref())
        .flag("--tls", "edge.tls_listen", args.tls.as_deref())
        .flag("--database", "database.listen", args.database.as_deref());
    let settings = prepare(&source)?;
    let data = DataDir::own(&settings.data)?;
    let plan = tiers::Plan::whole_stack(&settings);
    serve::run(settings, &plan, Some(data), &source)
}

/// `standfast run TIER`.
pub fn run(args: &cli::Run) -> Outcome {
    let tier = args.tier.as_str();
    let source = source(&args.node)
        .flag("--listen", &format!("{tier}.listen"), args.listen.as_deref())
        .flag("--tls", &format!("{tier}.tls_listen"), args.tls.as_deref())
        .flag("--advertise", "discovery.host", args.advertise.as_deref());
    let settings = prepare(&source)?;
    if settings.bus.url == "embedded" {
        return Err(Failure::config(format!(
            "bus.url = \"embedded\": a {tier} node of its own needs a broker that it shares with the others: use \
             --bus amqp://user:password@host:5672/vhost, or `standfast up` for all in one process"
        )));
    }
    let instance = args.instance.clone().unwrap_or_else(|| format!("{tier}-1"));
    check_name("--instance", &instance).map_err(Failure::config)?;
    if matches!(args.tier, cli::Tier::Database) && instance.ends_with(database::JOBS_SUFFIX) {
        let beside = format!("--instance = {instance:?}: names that end in {:?} are", database::JOBS_SUFFIX);
        return Err(Failure::config(format!(
            "{beside} those of the jobs' replicas, which start with the others"
        )));
    }
    let keeps_data = matches!(args.tier, cli::Tier::Database | cli::Tier::Web | cli::Tier::Edge);
    let data = keeps_data.then(|| DataDir::own_instance(&settings.data, &instance)).transpose()?;
    serve::run(settings, &tiers::Plan::one(args.tier, instance), data, &source)
}

fn source(args: &cli::NodeArgs) -> Source {
    Source::new(args.config.as_deref())
        .flag("--bus", "bus.url", args.bus.as_deref())
        .flag("--data", "data", args.data.as_deref().and_then(Path::to_str))
        .flag("--node", "node", args.node.as_deref())
        .flag("--log", "telemetry.log", args.log.as_deref())
}

/// Configuration and log, before anything is touched.
fn prepare(source: &Source) -> Outcome<Settings> {
    process::keep_files_private();
    let settings = source.for_this_host()?;
    telemetry::init_with(&settings.telemetry).map_err(Failure::config)?;
    // A second provider of cryptography cannot be there yet: this is the first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_descriptors();
    settings.tell_troubles();
    Ok(settings)
}

/// Takes as many descriptors as the system allows. What a shell is given by default (1,024) is for programs that use
/// `select`; a front door has that many clients, and running out refuses them.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(descriptors) => tracing::debug!(descriptors, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it was"),
    }
}

/// A node: the tree of this process, and what its instances share.
pub struct Node {
    settings: Settings,
    name: String,
    root: Root,
    bus: Bus,
    registry: Registry,
    links: Links,
    agent: Agent,
    database: OnceLock<Database>,
    data: Option<DataDir>,
    reloads: Mutex<Vec<(&'static str, String, Reload)>>,
}

/// What a running instance does with settings that were read again; an error leaves it as it is.
type Reload = Box<dyn Fn(&Settings) -> Result<(), String> + Send>;

impl Node {
    /// Opens the bus, and starts the tree with discovery and operations in it. A broker that is down is waited for
    /// by those who need it.
    pub async fn start(settings: &Settings, data: Option<DataDir>) -> Outcome<Self> {
        let name = settings.node.clone().unwrap_or_else(host_name);
        check_name("node", &name).map_err(Failure::config)?;
        let bus = Bus::open(&settings.bus, &name).map_err(|error| bus_failure(&error))?;
        let registry = Registry::new(settings.discovery.clone(), name.clone(), Uuid::now_v7().to_string());
        let root = Root::start(&name, RootOptions::default());
        let links = Links::default();
        let agent = Agent::new(root.clone(), links.clone(), tiers::fault_limits(settings));
        let node = Self {
            settings: settings.clone(),
            name,
            root,
            bus,
            registry,
            links,
            agent,
            database: OnceLock::new(),
            data,
            reloads: Mutex::default(),
        };
        operations::count_transitions(&node.root);
        node.root.add_tier("node", TIER_INTENSITY).await;
        let link = node.link("node", "discovery");
        node.add("node", "discovery", &discovery::TREE, discovery::env(&node.registry, &link)).await?;
        let link = node.link("node", "operations");
        node.add("node", "operations", &operations::TREE, operations::env(&node, link)).await?;
        Ok(node)
    }

    /// The instance's own link to the bus, known to the agent so that faults can cut it.
    fn link(&self, tier: &str, instance: &str) -> Bus {
        let path = format!("/{}/{tier}/{instance}", self.name);
        let link = self.bus.link(&path);
        self.links.register(path, link.clone());
        link
    }

    /// `apply` is called when the configuration was read again.
    fn on_reload(
        &self,
        tier: &'static str,
        instance: &str,
        apply: impl Fn(&Settings) -> Result<(), String> + Send + 'static,
    ) {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        reloads.push((tier, instance.to_owned(), Box::new(apply)));
    }

    /// Starts an instance; returns when it is ready.
    async fn add(&self, tier: &str, instance: &str, tree: &'static Tree, env: Env) -> Outcome {
        let added = self.root.add_instance(tier, instance, tree, env).await;
        added.map_err(|error: StartError| {
            Failure::failed(format!("{instance} did not start: {}", with_causes(&error)))
        })
    }
}

fn bus_failure(error: &BusError) -> Failure {
    match error {
        BusError::Url { .. } => Failure::config(with_causes(error)),
        _ => Failure::failed(with_causes(error)),
    }
}
