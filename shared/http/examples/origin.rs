//! An origin that answers from memory: `origin LISTEN`. `/<n>` answers with n bytes; a request's body is read and dropped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http_support::Listener;
use http_support::gateway::{self, Abort, Binding, Exchange, GatewayLimits, Handler, Prepared};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Tree, pool, secs};

static TREE: Tree = Tree {
    name: "origin",
    strategy: OneForOne,
    intensity: Intensity { restarts: 10, period: secs(10) },
    children: &[pool("http", start, Permanent, Within(secs(5))).on_own_arbiter()],
};

/// Largest body that is made, bytes.
const BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
struct Memory(RefCell<HashMap<usize, Prepared>>);

impl Memory {
    fn of(&self, bytes: usize) -> Prepared {
        let make = || Prepared {
            status: 200,
            lines: format!("Content-Type: text/plain\r\nContent-Length: {bytes}\r\n").into(),
            body: Bytes::from(vec![b'x'; bytes]),
            dated: false,
        };
        self.0.borrow_mut().entry(bytes).or_insert_with(make).clone()
    }
}

impl Handler for Memory {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        while exchange.read_body().await?.is_some() {}
        let bytes = exchange.head().path()[1..].parse().unwrap_or(128).min(BYTES_MAX);
        let prepared = self.of(bytes);
        exchange.respond_prepared(&prepared, b"").await
    }
}

fn start(life: Life) -> Result<Started, StartError> {
    let listener = life.env::<Listener>();
    let binding = Binding::plain(Listener::clone(&listener));
    Ok(Started::task(gateway::serve(vec![binding], Memory::default(), life, GatewayLimits::default())))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen: SocketAddr = std::env::args().nth(1).ok_or("usage: origin LISTEN")?.parse()?;
    let env = Env::new().with(Listener::bind(listen)?).with(PoolSize("http", 1));
    let root = Root::start("bench", RootOptions::default());
    root.add_tier("origin", Intensity { restarts: 3, period: secs(5) }).await;
    root.add_instance("origin", "origin-1", &TREE, env).await?;
    tokio::signal::ctrl_c().await?;
    root.stop().await;
    Ok(())
}
