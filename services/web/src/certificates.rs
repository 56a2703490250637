//! The TLS side of the instance: which certificates it has, and the child that keeps them fresh by ACME.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_support::gateway::{CertificateDirectory, TlsConfig};
use supervision::{Life, StartError, Started};

use crate::acme::{AcmeConfig, Issuer};
use crate::config::Config;
use crate::env::Web;

/// The `[web.tls]` section, with what ACME brings: all instances that share the directory serve what one was issued.
#[must_use]
pub fn tls_config(config: &Config, data_dir: &Path) -> TlsConfig {
    let issued = config.acme.as_ref().map(|acme| directory(acme, data_dir));
    TlsConfig { directory: config.tls.directory.clone().or(issued), ..config.tls.clone() }
}

fn directory(acme: &AcmeConfig, data_dir: &Path) -> PathBuf {
    acme.dir.clone().unwrap_or_else(|| data_dir.join("acme")).join("certificates")
}

/// The child that orders and renews; it waits for its end when nothing is to be ordered.
pub fn start(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    Ok(Started::task(async move {
        match issuer(&web) {
            Some(issuer) => issuer.run(&life).await,
            None => {
                life.ready();
                life.stopping().await;
            }
        }
        Ok(())
    }))
}

fn issuer(web: &Web) -> Option<Issuer> {
    let (config, tls) = (web.config.acme.clone()?, web.tls.clone()?);
    let store = CertificateDirectory::new(directory(&config, &web.data_dir));
    let account = config.dir.clone().unwrap_or_else(|| web.data_dir.join("acme"));
    Some(Issuer {
        account_file: account.join("account.json"),
        store: Arc::new(store),
        tls,
        challenges: web.challenges.clone(),
        bus: web.bus.clone(),
        seed: rand::random(),
        config,
    })
}
