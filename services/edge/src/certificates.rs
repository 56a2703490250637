//! Which certificates the point of presence has: those of its configuration, and what is issued to the stack meanwhile.
//!
//! The web tier's ACME child keeps what it was issued in a directory, and says on the bus when there is something new.
//! `tls.directory` names that directory.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bus::{LinkState, Subscription};
use clock::WallMs;
use http_support::gateway::{Tls, TlsConfig, TlsConfigError};
use messages::names::CERTIFICATES;
use supervision::{Life, StartError, Started};

use crate::edge::Edge;

/// News that may wait: each says the same.
const NEWS_MAX: usize = 16;

/// The TLS side of the listener.
pub struct Certificates {
    pub tls: Arc<Tls>,
    pub url: String,
    config: ArcSwap<TlsConfig>,
}

impl Certificates {
    pub fn new(tls: Arc<Tls>, url: String, config: TlsConfig) -> Self {
        Self { tls, url, config: ArcSwap::from_pointee(config) }
    }

    /// Reads the certificates of another configuration, and keeps to it when they can be used.
    pub fn configure(&self, edge: &Edge, config: &TlsConfig) -> Result<(), TlsConfigError> {
        config.reload(&self.tls, &edge.data_dir, WallMs::now())?;
        self.config.store(Arc::new(config.clone()));
        Ok(())
    }

    fn read_again(&self, edge: &Edge) {
        match self.config.load().reload(&self.tls, &edge.data_dir, WallMs::now()) {
            Ok(()) => tracing::info!(instance = edge.instance, "certificates read again"),
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(instance = edge.instance, %error, source, "the certificates stay as they were");
            }
        }
    }
}

pub fn start(life: Life) -> Result<Started, StartError> {
    let edge = life.env::<Edge>();
    Ok(Started::task(async move {
        let follow = async {
            let Some(certificates) = &edge.tls else {
                life.ready();
                return std::future::pending().await;
            };
            let mut news = subscribe(&edge, &life).await;
            life.ready();
            loop {
                // Also after the bus was away: something may have been said meanwhile.
                let _ = news.next().await;
                let (edge, certificates) = (Arc::clone(&edge), Arc::clone(certificates));
                life.blocking(move || certificates.read_again(&edge)).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = life.stopping() => {}
        }
        Ok(())
    }))
}

async fn subscribe(edge: &Edge, life: &Life) -> Subscription {
    let mut link = edge.bus.state();
    loop {
        match edge.bus.subscribe(CERTIFICATES, NEWS_MAX).await {
            Ok(news) => return news,
            Err(error) => {
                life.waiting("bus");
                tracing::debug!(%error, "certificates cannot be heard of yet");
                let _ = link.wait_for(|state| *state == LinkState::Up).await;
            }
        }
    }
}
