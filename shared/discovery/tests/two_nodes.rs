//! Two nodes on one bus, each with its own tree and registry.

use std::time::Duration;

use bus::{Bus, BusConfig, LinkFault};
use discovery::{Config, Identity, Key, Registry};
use messages::service::Health;
use supervision::{Intensity, Root, RootOptions};

const INTERVAL: Duration = Duration::from_millis(100);

struct Node {
    root: Root,
    registry: Registry,
    link: Bus,
}

async fn node(name: &str, bus: &Bus) -> Node {
    let config = Config { interval_ms: 100, ..Config::default() };
    config.validate().expect("in range");
    let registry = Registry::new(config, name, uuid::Uuid::now_v7().to_string());
    let root = Root::start(name, RootOptions::default());
    let link = bus.link(&format!("/{name}/node/discovery"));
    root.add_tier("node", Intensity { restarts: 5, period: Duration::from_secs(5) }).await;
    let env = discovery::env(&registry, &link);
    root.add_instance("node", "discovery", &discovery::TREE, env).await.expect("discovery starts");
    Node { root, registry, link }
}

/// Until the registry says so.
async fn until(what: &str, registry: &Registry, limit: Duration, condition: impl Fn(&Registry) -> bool) {
    let deadline = clock::now() + limit;
    while !condition(registry) {
        assert!(clock::now() < deadline, "{what}; known: {:#?}", registry.snapshot());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn embedded() -> (tempfile::TempDir, Bus) {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = Bus::open(&BusConfig::embedded(directory.path()), "test").expect("the bus opens");
    (directory, bus)
}

/// The key of an instance is heard by the other nodes, in time to be used, and shown by nobody: it is no part of the picture.
#[actix::test]
async fn a_key_travels_on_the_bus_and_is_not_in_the_picture() {
    let (_directory, bus) = embedded();
    let (one, two) = (node("one", &bus).await, node("two", &bus).await);
    let key = Key::random();
    let identity = || Identity::new("jobstore", "database-1-jobs").with_key(Some(key.clone()));
    let replica = one.registry.announce(identity());
    for registry in [&one.registry, &two.registry] {
        until("it is there", registry, INTERVAL * 3, |it| it.of_tier("jobstore").len() == 1).await;
        let picture = registry.snapshot();
        assert_eq!(registry.key_of(&picture[0]), Some(key.clone()));
        let shown = serde_json::to_string(&*picture).expect("JSON") + &format!("{picture:?}");
        assert!(!shown.contains(key.expose()), "{shown}");
    }
    // Another life of it has another key; the old one is not used for it.
    replica.goodbye().await;
    let fresh = Key::random();
    let _again =
        one.registry.announce(Identity::new("jobstore", "database-1-jobs").with_key(Some(fresh.clone())));
    let changed =
        |it: &Registry| it.of_tier("jobstore").first().is_some_and(|of| it.key_of(of) == Some(fresh.clone()));
    until("the new key is heard", &two.registry, INTERVAL * 5, changed).await;
    let other = two.registry.announce(Identity::new("app", "app-1"));
    assert_eq!(two.registry.key_of(&other.announcement()), None);
    one.root.stop().await;
    two.root.stop().await;
}

#[actix::test]
async fn nodes_find_each_other_at_once_and_hear_news_and_goodbyes_before_the_next_interval() {
    let (_directory, bus) = embedded();
    let (one, two) = (node("one", &bus).await, node("two", &bus).await);
    let app =
        one.registry.announce(Identity::new("app", "app-1").at("http://127.0.0.1:1").over(one.link.clone()));
    let soon = INTERVAL * 3;
    until("two hears of app-1", &two.registry, soon, |it| it.of_tier("app").len() == 1).await;
    app.set_health(Health::Ready);
    app.set_fact("kinds", "digest");
    until("two hears its news", &two.registry, soon, |it| it.of_tier("app")[0].facts.contains_key("kinds"))
        .await;
    assert_eq!(two.registry.of_tier("app")[0].health, Health::Ready);
    app.goodbye().await;
    assert!(one.registry.snapshot().is_empty());
    until("two hears the goodbye", &two.registry, soon, |it| it.snapshot().is_empty()).await;
    one.root.stop().await;
    two.root.stop().await;
}

#[actix::test]
async fn an_instance_that_is_cut_off_expires_for_others_and_comes_back() {
    let (_directory, bus) = embedded();
    let (one, two) = (node("one", &bus).await, node("two", &bus).await);
    let own_link = bus.link("/one/app/app-1");
    let _app = one.registry.announce(Identity::new("app", "app-1").over(own_link.clone()));
    until("two hears of app-1", &two.registry, INTERVAL * 3, |it| it.of_tier("app").len() == 1).await;
    own_link.faults().set(LinkFault::Partition, clock::now() + INTERVAL * 8);
    until("app-1 expires", &two.registry, INTERVAL * 7, |it| it.of_tier("app").is_empty()).await;
    assert_eq!(one.registry.of_tier("app").len(), 1, "its own process still knows it");
    until("app-1 is back", &two.registry, INTERVAL * 20, |it| it.of_tier("app").len() == 1).await;
}

/// When our own link is down, the silence is ours.
#[actix::test]
async fn a_node_that_is_cut_off_keeps_the_last_known_picture() {
    let (_directory, bus) = embedded();
    let (one, two) = (node("one", &bus).await, node("two", &bus).await);
    let _app = one.registry.announce(Identity::new("app", "app-1").over(one.link.clone()));
    until("two hears of app-1", &two.registry, INTERVAL * 3, |it| it.of_tier("app").len() == 1).await;
    two.link.faults().set(LinkFault::Partition, clock::now() + INTERVAL * 10);
    tokio::time::sleep(INTERVAL * 9).await; // the claim is that nothing happens for so long
    assert_eq!(two.registry.of_tier("app").len(), 1);
    tokio::time::sleep(INTERVAL * 6).await; // over the end of the partition, and the grace after it
    assert_eq!(two.registry.of_tier("app").len(), 1, "it is heard again");
}
