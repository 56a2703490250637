//! A gateway under a supervision tree, with a handler that can do each thing a handler can.

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_support::gateway::{
    self, Abort, Binding, Decision, Exchange, FetchRequest, ForwardOptions, GatewayLimits, Handler, Origin,
    OriginLimits, Outcome, Prepared, Timeouts,
};
use http_support::wire::ResponseHead;
use http_support::{Error, Listener};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Tree, pool, secs};

use super::client::{Message, Wire};

static TREE: Tree = Tree {
    name: "gateway",
    strategy: OneForOne,
    intensity: Intensity { restarts: 1000, period: secs(10) },
    children: &[pool("http", start, Permanent, Within(secs(10)))
        .on_own_arbiter()
        .with_liveness(Duration::from_millis(200), secs(5))],
};

/// What a test wants. `Scene::before(origin)` is the plain one.
#[derive(Clone)]
pub struct Scene {
    pub origins: Vec<SocketAddr>,
    pub timeouts: Timeouts,
    pub limits: GatewayLimits,
    pub origin_limits: OriginLimits,
    pub workers: usize,
    pub trusted: &'static [&'static str],
    pub outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Scene {
    pub fn before(origin: SocketAddr) -> Self {
        let outcomes = Arc::default();
        let (timeouts, limits, origin_limits) =
            (Timeouts::default(), GatewayLimits::default(), OriginLimits::default());
        Self { origins: vec![origin], timeouts, limits, origin_limits, workers: 1, trusted: &[], outcomes }
    }

    /// Without an origin: nothing listens on port 1.
    pub fn alone() -> Self {
        Self::before("127.0.0.1:1".parse().unwrap())
    }

    pub async fn start(self) -> Stack {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let root = Root::start("n", RootOptions::default());
        root.add_tier("gateway", Intensity { restarts: 3, period: secs(5) }).await;
        let env = Env::new().with(listener.clone()).with(self.clone()).with(PoolSize("http", self.workers));
        root.add_instance("gateway", "gateway-1", &TREE, env).await.unwrap();
        Stack { root, listener, scene: self }
    }
}

fn start(life: Life) -> Result<Started, StartError> {
    let (listener, scene) = (life.env::<Listener>(), Scene::clone(&life.env::<Scene>()));
    let trusted = scene.trusted.iter().map(|net| net.parse().unwrap()).collect();
    let binding = Binding::plain(Listener::clone(&listener)).named("gw").trusting(trusted);
    let limits = scene.limits.clone();
    let origins = scene.origins.iter().map(|a| Origin::http1(*a).with_limits(scene.origin_limits)).collect();
    let handler = Everything { scene, origins, prepared: RefCell::default() };
    Ok(Started::task(gateway::serve(vec![binding], handler, life, limits)))
}

/// A running gateway.
pub struct Stack {
    pub root: Root,
    pub listener: Listener,
    scene: Scene,
}

impl Stack {
    pub async fn connect(&self) -> Wire {
        Wire::connect(self.listener.address()).await
    }

    /// One request on a connection of its own.
    pub async fn get(&self, path: &str) -> Message {
        self.connect().await.get(path).await
    }

    /// What became of the forwarded requests so far.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.scene.outcomes.lock().unwrap().clone()
    }

    /// How often workers were restarted.
    pub fn restarts(&self) -> u64 {
        let tree = self.root.snapshot();
        tree.children[0].children[0].children[0].children.iter().map(|worker| worker.restarts).sum()
    }
}

/// Does what the first part of the path says; everything else is forwarded.
struct Everything {
    scene: Scene,
    origins: Vec<Origin>,
    prepared: RefCell<Option<Prepared>>,
}

impl Handler for Everything {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let path = exchange.head().path();
        let mut parts = path[1..].split('/');
        let (what, size) =
            (parts.next().unwrap_or_default(), parts.next().and_then(|size| size.parse().ok()));
        let size: usize = size.unwrap_or(0);
        match what {
            "respond" => exchange.respond(200, b"X-Made: here\r\n", &vec![b'r'; size]).await,
            "status" => exchange.respond(size as u16, b"", b"text").await,
            "prepared" => exchange.respond_prepared(&self.prepare(size), b"Age: 7\r\n").await,
            "file" => self.file(exchange, size).await,
            "stream" => stream(exchange, size).await,
            "long" => exchange.start(200, b"", Some(3)).await.and(exchange.write(b"four").await),
            "short" => {
                exchange.start(200, b"", Some(9)).await?;
                exchange.write(b"four").await?;
                exchange.finish(b"").await
            }
            "echo" => echo(exchange).await,
            "unread" => exchange.respond(200, b"", b"unread").await,
            "peer" => exchange.respond(200, b"", exchange.peer().address.to_string().as_bytes()).await,
            "hint" => {
                exchange.informational(103, b"Link: </a.css>; rel=preload\r\n").await?;
                exchange.respond(200, b"", b"hinted").await
            }
            "nothing" => Ok(()),
            "panic" => panic!("a defect in a handler"),
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(size as u64)).await;
                exchange.respond(200, b"", b"slept").await
            }
            "refuse" => exchange.problem(&Error::too_many("busy", "come later", 7)).await,
            "fetch" => self.fetch(exchange).await,
            "either" => self.either(exchange).await,
            _ => self.forward(exchange).await,
        }
    }
}

impl Everything {
    async fn forward(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let options = ForwardOptions {
            request_lines: b"X-Added: to-request\r\n",
            drop_request: &["x-drop"],
            response_lines: b"X-Added: to-response\r\n",
            drop_response: &["x-drop"],
            timeouts: self.scene.timeouts,
            ..ForwardOptions::default()
        };
        match exchange.forward(&self.origins[0], options).await {
            Ok(outcome) => {
                self.scene.outcomes.lock().unwrap().push(outcome);
                Ok(())
            }
            Err(error) => exchange.forward_failed(&error).await,
        }
    }

    /// Forwards to the first origin that neither fails nor answers 503.
    async fn either(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        for (at, origin) in self.origins.iter().enumerate() {
            let last = at + 1 == self.origins.len();
            let mut decide = |head: &ResponseHead<'_>| match head.status() {
                503 if !last => Decision::Retry,
                _ => Decision::AddLines(format!("X-Origin: {at}\r\n").into_bytes()),
            };
            let options = ForwardOptions {
                timeouts: self.scene.timeouts,
                on_response: Some(&mut decide),
                ..ForwardOptions::default()
            };
            match exchange.forward(origin, options).await {
                Ok(_) => return Ok(()),
                Err(error) if error.answerable && error.repeatable && !last => {}
                Err(error) => return exchange.forward_failed(&error).await,
            }
        }
        Ok(())
    }

    /// Fetches `/fetched` and answers with what came, in words.
    async fn fetch(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let mut told = Vec::new();
        let mut on_informational = |status: u16, lines: &[u8]| {
            told.push(format!("{status} {}", String::from_utf8_lossy(lines).trim()));
        };
        let body = exchange.head().query().map(|query| Bytes::copy_from_slice(query.as_bytes()));
        let request = FetchRequest {
            method: if body.is_some() { "POST" } else { "GET" },
            target: "/fetched",
            host: "origin.example",
            lines: b"X-Fetch: 1\r\n",
            body,
            on_informational: Some(&mut on_informational),
        };
        let mut fetched = match gateway::fetch(&self.origins[0], request, &self.scene.timeouts).await {
            Ok(fetched) => fetched,
            Err(error) => return exchange.problem(&error.problem()).await,
        };
        let mut body = Vec::new();
        let ended = loop {
            match fetched.chunk().await {
                Ok(Some(part)) => body.extend_from_slice(&part),
                Ok(None) => break "whole".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        let text = format!(
            "{}|{}|{}|{}|{}|{}",
            told.join(","),
            fetched.head().status(),
            String::from_utf8_lossy(fetched.head().get("x-kind").unwrap_or_default()),
            String::from_utf8_lossy(&body),
            String::from_utf8_lossy(fetched.trailers()).trim(),
            ended
        );
        exchange.respond(200, b"", text.as_bytes()).await
    }

    fn prepare(&self, size: usize) -> Prepared {
        let mut prepared = self.prepared.borrow_mut();
        let made = prepared.get_or_insert_with(|| Prepared {
            status: 200,
            lines: format!("Content-Length: {size}\r\n").into(),
            body: vec![b'p'; size].into(),
            dated: false,
        });
        made.clone()
    }

    /// A file of `size` bytes without its first and last one.
    async fn file(&self, exchange: &mut Exchange<'_>, size: usize) -> Result<(), Abort> {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        exchange.respond_file(206, b"", &file, 1..size as u64 - 1).await
    }
}

async fn stream(exchange: &mut Exchange<'_>, parts: usize) -> Result<(), Abort> {
    exchange.start(200, b"X-Kind: stream\r\n", None).await?;
    for part in 0..parts {
        exchange.write(format!("part {part};").as_bytes()).await?;
    }
    exchange.finish(b"X-Trailer: last\r\n").await
}

async fn echo(exchange: &mut Exchange<'_>) -> Result<(), Abort> {
    let mut all = Vec::new();
    loop {
        match exchange.read_body().await {
            Ok(Some(part)) => all.extend_from_slice(&part),
            Ok(None) => return exchange.respond(200, b"", &all).await,
            Err(error) => return exchange.problem(&error.problem()).await,
        }
    }
}
