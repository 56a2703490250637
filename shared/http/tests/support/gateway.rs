use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;

use http_support::Listener;
use http_support::gateway::{
    Abort, Binding, Exchange, ForwardOptions, GatewayLimits, Handler, Origin, OriginLimits, Timeouts, serve,
};
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
}

impl Setup {
    /// Defaults in front of this origin.
    pub fn before(origin: SocketAddr) -> Self {
        let (limits, timeouts, pool) = Default::default();
        Self { limits, timeouts, pool, origin }
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
    let handler =
        Forwarder { origin: Origin::http1(setup.origin).with_limits(setup.pool), timeouts: setup.timeouts };
    let binding = Binding::plain(Listener::clone(&listener));
    Ok(Started::task(serve(vec![binding], handler, life, setup.limits.clone())))
}

struct Forwarder {
    origin: Origin,
    timeouts: Timeouts,
}

impl Handler for Forwarder {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let options = ForwardOptions { timeouts: self.timeouts, ..ForwardOptions::default() };
        match exchange.forward(&self.origin, options).await {
            Ok(_) => Ok(()),
            Err(error) => exchange.forward_failed(&error).await,
        }
    }
}
