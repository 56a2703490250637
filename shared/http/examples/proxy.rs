//! The gateway alone: forwards all requests to one origin. `proxy LISTEN ORIGIN [WORKERS [PEM]]`, for benchmarks and for
//! trying it out; with a PEM file of chain and key it speaks TLS, and HTTP/2 to clients that want it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_support::Listener;
use http_support::gateway::{
    self, Abort, Binding, CertificateFiles, Exchange, ForwardOptions, GatewayLimits, Handler, Origin, Tls,
    TlsConfig,
};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Tree, pool, secs};

static TREE: Tree = Tree {
    name: "proxy",
    strategy: OneForOne,
    intensity: Intensity { restarts: 10, period: secs(10) },
    children: &[pool("http", start, Permanent, Within(secs(5))).on_own_arbiter()],
};

struct Forward(Origin);

impl Handler for Forward {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        match exchange.forward(&self.0, ForwardOptions::default()).await {
            Ok(_) => Ok(()),
            Err(error) => exchange.forward_failed(&error).await,
        }
    }
}

fn start(life: Life) -> Result<Started, StartError> {
    let (listener, origin) = (life.env::<Listener>(), life.env::<Origin>());
    let mut binding = Binding::plain(Listener::clone(&listener));
    if let Some(tls) = life.try_env::<Arc<Tls>>() {
        binding = binding.with_tls(Arc::clone(&tls));
    }
    let handler = Forward(Origin::clone(&origin));
    Ok(Started::task(gateway::serve(vec![binding], handler, life, GatewayLimits::default())))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || -> Result<SocketAddr, Box<dyn std::error::Error>> {
        Ok(arguments.next().ok_or("usage: proxy LISTEN ORIGIN [WORKERS]")?.parse()?)
    };
    let (listen, origin) = (address()?, address()?);
    let workers = arguments.next().map_or(Ok(1), |workers| workers.parse())?;
    let mut env =
        Env::new().with(Listener::bind(listen)?).with(Origin::http1(origin)).with(PoolSize("http", workers));
    if let Some(pem) = arguments.next().map(PathBuf::from) {
        let certificates = vec![CertificateFiles { chain: pem.clone(), key: pem }];
        let config = TlsConfig { certificates, ..TlsConfig::default() };
        env = env.with(config.open(Path::new("."), clock::WallMs::now())?);
    }
    let root = Root::start("bench", RootOptions::default());
    root.add_tier("proxy", Intensity { restarts: 3, period: secs(5) }).await;
    root.add_instance("proxy", "proxy-1", &TREE, env).await?;
    tokio::signal::ctrl_c().await?;
    root.stop().await;
    Ok(())
}
