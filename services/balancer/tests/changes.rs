//! Changes touch no connection that they do not concern; neither does the death of a child.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use balancer::{Config, PoolConfig, RouteConfig};
use messages::service::Health;
use supervision::Intervention;
use support::{Client, Member, Stack, config, quick, run, until};

/// caddyserver/caddy#7222 and others: elsewhere a change of any route cuts every WebSocket.
#[test]
fn an_upgraded_connection_stays_up_through_a_thousand_changes() {
    run(async {
        let [app, other] = ["app", "other"].map(Member::start);
        let base = config(&[&app]);
        let stack = Stack::start(base.clone()).await;
        let mut tunnel = Client::connect(stack.address()).await;
        let upgrade = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        let switched = tunnel.ask(upgrade).await.unwrap();
        assert_eq!(switched.status, 101, "{switched:?}");
        let mut keeps_alive = Client::connect(stack.address()).await;
        for n in 0..1000_usize {
            match n % 4 {
                0 => {
                    stack.announce("web", &format!("web-{}", n % 8), other.address).set_health(Health::Ready)
                }
                1 => stack.reconfigure(with_routes(&base, &other, n)).unwrap(),
                2 => stack.reconfigure(base.clone()).unwrap(),
                _ => stack
                    .registry
                    .all_local()
                    .into_iter()
                    .filter(|it| it.announcement().tier == "web")
                    .for_each(|it| it.gone()),
            }
            if n % 50 == 0 {
                tunnel.echo(&format!("still there after {n}")).await;
                keeps_alive.get("/").await.expect(200);
            }
        }
        tunnel.echo("and at the end").await;
        keeps_alive.get("/").await.expect(200);
        assert_eq!(
            app.heads().iter().filter(|head| head.contains("upgrade: echo")).count(),
            1,
            "one connection all along"
        );
    });
}

fn with_routes(base: &Config, other: &Member, n: usize) -> Config {
    let mut config = base.clone();
    let pool = PoolConfig { members: vec![other.config()], ..quick() };
    config.pools.insert("other".to_owned(), pool);
    let path = Some(format!("/other/{n}"));
    config.routes.push(RouteConfig { host: None, path, pool: "other".to_owned() });
    config.pool.members.push(other.config());
    config
}

#[test]
fn what_cannot_be_changed_while_it_runs_changes_nothing() {
    run(async {
        let app = Member::start("app");
        let base = config(&[&app]);
        let stack = Stack::start(base.clone()).await;
        let moved = Config { workers: 2, ..base.clone() };
        let error = stack.reconfigure(moved).unwrap_err().to_string();
        assert_eq!(error, "balancer.workers takes effect after a restart");
        let mut wrong = base;
        wrong.pool.panic_percent = 101;
        assert!(stack.reconfigure(wrong).is_err());
        assert_eq!(stack.get("/").await.body, "app");
    });
}

/// Clients that ask on, each on a connection of its own that is opened again when it ends.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    /// Cut within a request.
    lost: AtomicUsize,
    refused: AtomicUsize,
    wrong: AtomicUsize,
}

impl Load {
    fn start(stack: &Stack, clients: usize, keep_alive: bool) -> Self {
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let clients = (0..clients)
            .map(|_| {
                let (address, stop, counts) = (stack.address(), Arc::clone(&stop), Arc::clone(&counts));
                tokio::spawn(async move {
                    while !stop.load(Relaxed) {
                        converse(address, keep_alive, &stop, &counts).await;
                    }
                })
            })
            .collect();
        Self { stop, counts, clients }
    }

    async fn stop(self) -> Arc<Counts> {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.counts
    }
}

async fn converse(address: std::net::SocketAddr, keep_alive: bool, stop: &AtomicBool, counts: &Counts) {
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else {
        counts.refused.fetch_add(1, Relaxed);
        return;
    };
    drop(stream); // connecting is what is counted; the conversation has a connection of its own
    let mut client = Client::connect(address).await;
    while !stop.load(Relaxed) {
        match client.try_get("/").await {
            Ok(answer) if answer.status == 200 => counts.answered.fetch_add(1, Relaxed),
            Ok(_) => counts.wrong.fetch_add(1, Relaxed),
            Err(_) => {
                counts.lost.fetch_add(1, Relaxed);
                return;
            }
        };
        if !keep_alive {
            return;
        }
    }
}

/// Issue 3, point 5.
#[test]
fn killing_any_child_loses_at_most_the_requests_inside_it_and_refuses_no_connection() {
    const CLIENTS: usize = 16;
    run(async {
        let members = ["a", "b"].map(Member::start);
        let stack = Stack::start(Config { workers: 2, ..config(&[&members[0], &members[1]]) }).await;
        for keep_alive in [true, false] {
            for fault in [Intervention::Panic, Intervention::Hang] {
                for child in ["membership", "checker", "pair", "http/http-1"] {
                    let load = Load::start(&stack, CLIENTS, keep_alive);
                    let running = Arc::clone(&load.counts);
                    until("the load runs", async || running.answered.load(Relaxed) > 50).await;
                    let path = format!("/n/balancer/balancer-1/{child}");
                    let mut events = stack.root.events();
                    assert_eq!(
                        stack.root.intervene(&path, fault, clock::now() + Duration::from_secs(20)).len(),
                        1
                    );
                    let back = async {
                        loop {
                            let event = events.recv().await.unwrap();
                            if event.path == path
                                && event.incarnation > 1
                                && format!("{:?}", event.to) == "Running"
                            {
                                return;
                            }
                        }
                    };
                    tokio::time::timeout(support::LIMIT, back).await.expect("it is replaced");
                    let answered = running.answered.load(Relaxed);
                    until("the load goes on", async || running.answered.load(Relaxed) > answered + 50).await;
                    let counts = load.stop().await;
                    let what = format!("{child} {fault:?} keep-alive {keep_alive}");
                    assert_eq!(counts.refused.load(Relaxed), 0, "{what}");
                    assert_eq!(counts.wrong.load(Relaxed), 0, "{what}");
                    let inside = if child.starts_with("http") { CLIENTS } else { 0 };
                    assert!(
                        counts.lost.load(Relaxed) <= inside,
                        "{what}: {} lost",
                        counts.lost.load(Relaxed)
                    );
                }
            }
        }
    });
}
