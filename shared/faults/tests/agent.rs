//! The agent on a small real tree and the embedded bus: what is set is felt, listed, and gone on time.

#![allow(clippy::unwrap_used, reason = "a test: what fails here fails the test")]

use std::time::Duration;

use bus::{Bus, BusConfig, Message};
use faults::{Agent, Answer, Ask, Fault, Kind, Limits, Links, Request};
use messages::names;
use supervision::view::{ExitReason, State, Transition};
use supervision::{
    Env, Intensity, Life, Restart::Permanent, Root, RootOptions, Shutdown::Brutal, StartError, Started,
    Strategy, Tree, pool, secs, worker,
};
use uuid::Uuid;

static TREE: Tree = Tree {
    name: "toy",
    strategy: Strategy::OneForOne,
    intensity: Intensity { restarts: 100, period: secs(1) },
    children: &[worker("steady", steady, Permanent, Brutal), pool("crew", steady, Permanent, Brutal)],
};

static AGENT: Tree = Tree {
    name: "node",
    strategy: Strategy::OneForOne,
    intensity: Intensity { restarts: 100, period: secs(1) },
    children: &[worker("agent", agent, Permanent, Brutal)],
};

fn steady(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        life.ready();
        life.stopping().await;
        Ok(())
    }))
}

fn agent(life: Life) -> Result<Started, StartError> {
    let (agent, bus) = (life.env::<Agent>(), life.env::<Bus>());
    let served = Agent::clone(&agent).serve(Bus::clone(&bus), "n".to_owned(), life);
    Ok(Started::task(served))
}

struct Stack {
    root: Root,
    agent: Agent,
    bus: Bus,
    _data: tempfile::TempDir,
}

async fn stack() -> Stack {
    let data = tempfile::tempdir().unwrap();
    let config = BusConfig { data_dir: data.path().to_owned(), ..BusConfig::default() };
    let bus = Bus::open(&config, "n").unwrap();
    let root = Root::start("n", RootOptions::default());
    let links = Links::default();
    links.register("/n/toy/toy-1", bus.link("/n/toy/toy-1"));
    let agent = Agent::new(root.clone(), links, Limits { in_force_max: 4, ..Limits::default() });
    for tier in ["toy", "node"] {
        root.add_tier(tier, Intensity { restarts: 100, period: secs(1) }).await;
    }
    let env = Env::new().with(supervision::PoolSize("crew", 3));
    root.add_instance("toy", "toy-1", &TREE, env).await.unwrap();
    let env = Env::new().with(agent.clone()).with(bus.clone());
    root.add_instance("node", "node-1", &AGENT, env).await.unwrap();
    Stack { root, agent, bus, _data: data }
}

fn fault(target: &str, kind: Kind, for_ms: u64) -> Fault {
    let asked = Request { for_ms: Some(for_ms), ..Request::new(target, kind) };
    asked.check(&Limits::default()).unwrap()
}

/// Waits for the transition of `path` to `to`.
async fn until(
    events: &mut tokio::sync::broadcast::Receiver<Transition>,
    path: &str,
    to: State,
) -> Transition {
    let wait = async {
        loop {
            let t = events.recv().await.unwrap();
            if t.path == path && t.to == to {
                return t;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the transition comes")
}

#[actix::test]
async fn a_panic_hits_what_the_glob_says_and_is_over_once_it_struck() {
    let stack = stack().await;
    let mut events = stack.root.events();
    let matched = stack.agent.set(Uuid::now_v7(), &fault("/n/toy/**/crew-2", Kind::Panic, 5_000)).unwrap();
    assert_eq!(matched, ["/n/toy/toy-1/crew/crew-2"]);
    let back = until(&mut events, &matched[0], State::Running).await;
    assert_eq!((back.incarnation, back.restarts), (2, 1));
    assert!(stack.agent.list().is_empty(), "it struck");
    let everyone = stack.agent.set(Uuid::now_v7(), &fault("/n/toy/**", Kind::Exit, 5_000)).unwrap();
    assert_eq!(everyone.len(), 4);
    let back = until(&mut events, "/n/toy/toy-1/crew/crew-3", State::Running).await;
    assert_eq!(back.incarnation, 2);
}

/// The time to live is in the child's cell: nobody has to be there to end it.
#[actix::test]
async fn a_slow_child_is_listed_until_its_time_is_over() {
    let stack = stack().await;
    let id = Uuid::now_v7();
    stack.agent.set(id, &fault("/n/toy/toy-1/steady", Kind::Slow, 150)).unwrap();
    let list = stack.agent.list();
    assert_eq!(
        (list[0].id, list[0].kind, &*list[0].matched),
        (id, Kind::Slow, &["/n/toy/toy-1/steady".to_owned()][..])
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(stack.agent.list().is_empty());
    let tree = stack.agent.tree();
    let steady = &tree.children[0].children[0].children[0];
    assert!(steady.path.ends_with("/steady") && steady.faults.is_empty(), "{steady:?}");
}

#[actix::test]
async fn a_hung_child_is_replaced_and_a_cleared_one_goes_on() {
    let stack = stack().await;
    let mut events = stack.root.events();
    let id = Uuid::now_v7();
    stack.agent.set(id, &fault("/n/toy/toy-1/steady", Kind::Hang, 30_000)).unwrap();
    assert_eq!(stack.agent.clear(Some(id)), [id]);
    assert!(stack.agent.clear(Some(id)).is_empty(), "cleared once");
    stack.agent.set(Uuid::now_v7(), &fault("/n/toy/toy-1/crew/crew-1", Kind::Hang, 30_000)).unwrap();
    let gone = until(&mut events, "/n/toy/toy-1/crew/crew-1", State::Restarting).await;
    assert_eq!(gone.exit.map(|e| e.reason), Some(ExitReason::Hung));
    until(&mut events, "/n/toy/toy-1/crew/crew-1", State::Running).await;
    let untouched = stack.agent.tree().children[0].children[0].children[0].clone();
    assert_eq!((untouched.incarnation, untouched.state), (1, State::Running), "{untouched:?}");
    assert!(stack.agent.list().is_empty(), "a hang ends with the life it hit");
}

#[actix::test]
async fn link_faults_add_up_and_clearing_one_leaves_the_other() {
    let stack = stack().await;
    let (delay, partition) = (Uuid::now_v7(), Uuid::now_v7());
    let matched = stack.agent.set(delay, &fault("/n/*/toy-1", Kind::Delay, 60_000)).unwrap();
    assert_eq!(matched, ["/n/toy/toy-1"]);
    stack.agent.set(partition, &fault("/n/**", Kind::Partition, 60_000)).unwrap();
    assert_eq!(stack.agent.list().iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::Delay, Kind::Partition]);
    let tree = stack.agent.tree();
    assert_eq!(tree.children[0].children[0].faults, ["delay", "partition"], "the instance shows them");
    assert_eq!(stack.agent.clear(Some(delay)), [delay]);
    assert_eq!(stack.agent.list().iter().map(|f| f.id).collect::<Vec<_>>(), [partition]);
    assert_eq!(stack.agent.clear(None), [partition]);
    let refused: Vec<_> =
        (0..5).map(|_| stack.agent.set(Uuid::now_v7(), &fault("/n/**", Kind::Drop, 60_000))).collect();
    assert!(refused[3].is_ok() && refused[4].is_err(), "bounded: {refused:?}");
}

#[actix::test]
async fn the_agent_answers_over_the_bus() {
    let stack = stack().await;
    let address = names::topic(names::NODE, "n");
    let ask = async |ask: &Ask| {
        let reply = stack.bus.request(&address, Message::json(ask), Duration::from_secs(5)).await.unwrap();
        reply.parse::<Answer>().unwrap()
    };
    let Answer::Tree(tree) = ask(&Ask::Tree).await else { panic!("a tree") };
    assert_eq!(tree.path, "/n");
    let id = Uuid::now_v7();
    let set = Ask::Set { id, fault: fault("/n/toy/toy-1/steady", Kind::Slow, 60_000) };
    assert_eq!(ask(&set).await, Answer::Matched(vec!["/n/toy/toy-1/steady".to_owned()]));
    let Answer::InForce(list) = ask(&Ask::List).await else { panic!("a list") };
    assert_eq!(list.len(), 1);
    assert_eq!(ask(&Ask::Clear { id: None }).await, Answer::Cleared(vec![id]));
    let garbage = stack.bus.request(&address, Message::new("{"), Duration::from_secs(5)).await.unwrap();
    assert!(matches!(garbage.parse(), Ok(Answer::Refused(_))));
}
