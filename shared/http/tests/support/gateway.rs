use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;

use http_support::Listener;
use http_support::gateway::{
    Abort, Binding, Exchange, FetchRequest, ForwardOptions, GatewayLimits, Handler, Origin, OriginLimits,
    Timeouts, fetch, serve,
};
use http_support::wire::Framing;
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Tree, pool, secs};

static TREE: Tree = Tree {
    name: "gateway",
    strategy: OneForOne,
    intensity: Intensity { restarts: 3, period: secs(5) },
    children: &[pool("worker", start, Permanent, Within(secs(5))).on_own_arbiter()],
};

/// What a gateway under test is made of.
#[derive(Clone)]
pub struct Setup {
    pub limits: GatewayLimits,
    pub timeouts: Timeouts,
    pub pool: OriginLimits,
    pub origin: SocketAddr,
    /// Answers with what it has fetched, as a cache does, and does not forward.
    pub fetches: bool,
}

impl Setup {
    /// Defaults in front of this origin.
    pub fn before(origin: SocketAddr) -> Self {
        let (limits, timeouts, pool) = Default::default();
        Self { limits, timeouts, pool, origin, fetches: false }
    }

    /// Starts it with one worker and says where it listens. It runs until the test ends.
    pub fn start(self) -> SocketAddr {
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
                let address = listener.address();
                let root = Root::start("n", RootOptions::default());
                root.add_tier("gateway", Intensity { restarts: 3, period: secs(5) }).await;
                let env = Env::new().with(listener).with(self).with(PoolSize("worker", 1));
                root.add_instance("gateway", "gateway-1", &TREE, env).await.expect("it starts");
                tell.send(address).expect("the test waits");
                std::future::pending::<()>().await;
            });
        });
        told.recv().expect("the gateway starts")
    }
}

fn start(life: Life) -> Result<Started, StartError> {
    let (listener, setup) = (life.env::<Listener>(), life.env::<Setup>());
    let origin = Origin::http1(setup.origin).with_limits(setup.pool);
    let handler = Forwarder { origin, timeouts: setup.timeouts, fetches: setup.fetches };
    let binding = Binding::plain(Listener::clone(&listener));
    Ok(Started::task(serve(vec![binding], handler, life, setup.limits.clone())))
}

struct Forwarder {
    origin: Origin,
    timeouts: Timeouts,
    fetches: bool,
}

impl Handler for Forwarder {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        if self.fetches {
            return self.fetch(exchange).await;
        }
        let options = ForwardOptions { timeouts: self.timeouts, ..ForwardOptions::default() };
        match exchange.forward(&self.origin, options).await {
            Ok(_) => Ok(()),
            Err(error) => exchange.forward_failed(&error).await,
        }
    }
}

impl Forwarder {
    async fn fetch(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let head = exchange.head();
        let (method, target, host) = (head.method(), head.target(), head.authority());
        let request = FetchRequest { method, target, host, ..FetchRequest::default() };
        let mut fetched = match fetch(&self.origin, request, &self.timeouts).await {
            Ok(fetched) => fetched,
            Err(error) => return exchange.problem(&error.problem()).await,
        };
        let length = match fetched.head().framing(method) {
            Framing::Length(length) => Some(length),
            Framing::None => Some(fetched.head().content_length().unwrap_or(0)),
            Framing::Chunked | Framing::UntilClose => None,
        };
        exchange.start(fetched.head().status(), b"", length).await?;
        while let Some(chunk) = fetched.chunk().await.map_err(|_| Abort::CutShort)? {
            exchange.write(&chunk).await?;
        }
        exchange.finish(b"").await
    }
}
