//! What a node does for those who operate it: tells every transition on the bus and in the metrics, and answers for
//! its tree and its faults.

use std::time::Duration;

use bus::{Bus, Message};
use discovery::Registry;
use faults::Agent;
use messages::names;
use messages::service::Health;
use supervision::view::{State, Transition};
use supervision::{
    BoxError, Env, Intensity, Life, Restart::Permanent, Root, Shutdown::Within, StartError, Started,
    Strategy::OneForOne, Tree, worker,
};
use tokio::sync::broadcast::error::RecvError;

use super::Node;

/// Operations of one node. Started before the tiers, so that their start is seen.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "operations", strategy: OneForOne, intensity: Intensity { restarts: 5, period: Duration::from_secs(5) },
    children: &[
        //     id          start           restart    shutdown
        worker("reporter", start_reporter, Permanent, Within(Duration::from_secs(1))),
        worker("health",   start_health,   Permanent, Within(Duration::from_secs(1))),
        worker("agent",    start_agent,    Permanent, Within(Duration::from_secs(1))),
    ],
};

/// What the children share.
struct Operations {
    node: String,
    root: Root,
    registry: Registry,
    agent: Agent,
    link: Bus,
}

/// What [`TREE`] needs.
pub fn env(node: &Node, link: Bus) -> Env {
    Env::new().with(Operations {
        node: node.name.clone(),
        root: node.root.clone(),
        registry: node.registry.clone(),
        agent: node.agent.clone(),
        link,
    })
}

/// Counts every transition; its log line is written by the supervisor, from the same event.
pub fn count_transitions(root: &Root) {
    let metrics = telemetry::metrics();
    let exits = metrics.counters("supervision_exits", "Lives that ended, by how", ["tier", "reason"]);
    let restarts = metrics.counters("supervision_restarts", "Lives that began after another one", ["tier"]);
    let help = "From an exit to the ready replacement";
    let recovered =
        metrics.histograms("supervision_recovery_seconds", help, ["tier"], telemetry::SHORT_SECONDS);
    root.on_transition(move |transition: &Transition| {
        let tier = transition.path.split('/').nth(2).unwrap_or_default();
        if let (Some(exit), State::Restarting | State::Stopped) = (&transition.exit, transition.to) {
            exits.with([tier.to_owned(), format!("{:?}", exit.reason).to_lowercase()]).inc();
        }
        if let Some(us) = transition.recovered_us {
            restarts.with([tier.to_owned()]).inc();
            recovered.with([tier.to_owned()]).observe(us as f64 / 1e6);
        }
    });
}

/// Tells every transition of this node on the bus: `supervision.<node>`.
fn start_reporter(life: Life) -> Result<Started, StartError> {
    let operations = life.env::<Operations>();
    Ok(Started::task(async move {
        let mut events = operations.root.events();
        let topic = names::topic(names::SUPERVISION, &operations.node);
        life.ready();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = &mut stopping => return Ok(()),
            };
            match event {
                // At most once, as topics are: whoever needs all of it asks for the tree.
                Ok(transition) => drop(operations.link.broadcast(&topic, Message::json(&transition)).await),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "transitions not told on the bus"),
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }))
}

/// Keeps the health that each instance announces equal to the state of its tree.
fn start_health(life: Life) -> Result<Started, StartError> {
    let operations = life.env::<Operations>();
    Ok(Started::task(async move {
        let mut events = operations.root.events();
        announce_health(&operations);
        life.ready();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            tokio::select! {
                event = events.recv() => if matches!(event, Err(RecvError::Closed)) { return Ok(()) },
                () = &mut stopping => return Ok(()),
            }
            // A restart takes less than this: it is over before anyone is told.
            tokio::time::sleep(Duration::from_millis(20)).await;
            while matches!(
                events.try_recv(),
                Ok(_) | Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_))
            ) {}
            announce_health(&operations);
        }
    }))
}

fn announce_health(operations: &Operations) {
    let tree = operations.root.snapshot();
    for instance in tree.children.iter().flat_map(|tier| &tier.children) {
        let name = instance.path.rsplit('/').next().unwrap_or_default();
        let Some(announcer) = operations.registry.local(name) else { continue };
        if announcer.announcement().health == Health::Draining {
            continue;
        }
        announcer.set_health(if is_well(instance) { Health::Ready } else { Health::Degraded });
    }
}

fn is_well(node: &supervision::view::Node) -> bool {
    node.state == State::Running && node.children.iter().all(is_well)
}

/// Answers on the bus for this node's tree and faults.
fn start_agent(life: Life) -> Result<Started, StartError> {
    let operations = life.env::<Operations>();
    Ok(Started::task(async move {
        // What starts after it need not wait for the broker.
        life.ready();
        let serving =
            operations.agent.clone().serve(operations.link.clone(), operations.node.clone(), life.clone());
        let served = serving.await;
        if let Err(error) = served {
            life.waiting("bus");
            tracing::debug!(error, "the agent is not reachable over the bus");
            tokio::time::sleep(Duration::from_millis(250)).await;
            return Err::<(), BoxError>("the bus is not reachable".into());
        }
        Ok(())
    }))
}
