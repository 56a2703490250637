//! The child that keeps the certificates fresh.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Event, LeaseError, Message, Subscription};
use clock::WallMs;
use http_support::gateway::{Certificate, Tls};
use messages::names::{ACME_LEASE, CERTIFICATES};
use supervision::Life;

use super::challenges::Challenges;
use super::order::{Prover, order};
use super::renewal::{renew_at, retry_after};
use super::{AcmeConfig, AcmeError, CertificateStore, account};

/// One order may take so long.
const ORDER_MAX: Duration = Duration::from_secs(180);
/// Whoever finds that another instance orders looks again after so long, should the news of it get lost.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Longest sleep: the wall clock may be set.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// News that may wait; what is lost is looked up in the store all the same.
const NEWS_MAX: usize = 16;

/// Keeps the configured certificates in `tls` fresh, by turns with the issuers of other instances.
pub struct Issuer {
    /// What to order, and where.
    pub config: AcmeConfig,
    /// Where the account's key is kept.
    pub account_file: PathBuf,
    /// Where certificates are kept.
    pub store: Arc<dyn CertificateStore>,
    /// What is served with them.
    pub tls: Arc<Tls>,
    /// Who answers the authority.
    pub challenges: Challenges,
    /// Leads to the other instances.
    pub bus: Bus,
    /// Of the instance: spreads renewals.
    pub seed: u64,
}

/// What is known of one configured certificate.
struct Entry<'c> {
    names: &'c [String],
    /// It is kept under its first name.
    name: &'c str,
    due: WallMs,
    failures: u32,
}

impl Issuer {
    /// Serves what the store has, then orders what is missing or due, for as long as the life lasts.
    pub async fn run(&self, life: &Life) {
        life.ready();
        tokio::select! {
            () = life.stopping() => {}
            () = self.keep_fresh() => {}
        }
    }

    /// The same for ever.
    pub async fn keep_fresh(&self) {
        let mut entries: Vec<Entry<'_>> =
            self.config.certificates.iter().filter_map(|names| self.entry(names)).collect();
        let mut news = self.bus.subscribe(CERTIFICATES, NEWS_MAX).await.ok();
        loop {
            let now = WallMs::now();
            let due = entries.iter().map(|entry| entry.due).min().unwrap_or(now.plus(SLEEP_MAX));
            tokio::select! {
                () = tokio::time::sleep(due.since(now).min(SLEEP_MAX)) => {
                    for entry in entries.iter_mut().filter(|entry| entry.due <= WallMs::now()) {
                        self.attend(entry).await;
                    }
                }
                () = changed(&mut news) => entries.iter_mut().for_each(|entry| _ = self.take_from_store(entry)),
            }
        }
    }

    fn entry<'c>(&self, names: &'c [String]) -> Option<Entry<'c>> {
        let mut entry = Entry { names, name: names.first()?, due: WallMs(0), failures: 0 };
        self.take_from_store(&mut entry);
        Some(entry)
    }

    /// Serves what the store has for it, if that is good for all of its names. Returns whether it need not be ordered now.
    fn take_from_store(&self, entry: &mut Entry<'_>) -> bool {
        let now = WallMs::now();
        match self.store.load(entry.name, now) {
            Ok(Some(kept)) if entry.names.iter().all(|name| kept.names().contains(name)) => {
                self.serve(entry, &kept);
                entry.due > now
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%error, "a kept certificate cannot be used");
                false
            }
        }
    }

    fn serve(&self, entry: &mut Entry<'_>, certificate: &Certificate) {
        let seed =
            entry.name.bytes().fold(self.seed, |seed, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)));
        entry.due = renew_at(certificate.not_before(), certificate.not_after(), seed);
        entry.failures = 0;
        self.tls.add(certificate);
    }

    /// Orders it, unless another instance has done so or is at it.
    async fn attend(&self, entry: &mut Entry<'_>) {
        let _lease = match self.bus.acquire(ACME_LEASE).await {
            Ok(lease) => lease,
            Err(LeaseError::Held(_) | LeaseError::Down) => {
                entry.due = WallMs::now().plus(LOOK_AGAIN);
                return;
            }
        };
        if self.take_from_store(entry) {
            return; // by another instance, whose news was lost
        }
        match self.issue(entry.names).await {
            Ok(certificate) => {
                self.serve(entry, &certificate);
                tracing::info!(name = entry.name, not_after = %certificate.not_after(), "certificate issued");
                // Nobody else need be there; who misses it looks again.
                let _ = self.bus.broadcast(CERTIFICATES, Message::new(entry.name.to_owned())).await;
            }
            Err(error) => {
                entry.failures += 1;
                let pause = retry_after(entry.failures, self.seed);
                entry.due = WallMs::now().plus(pause);
                tracing::warn!(name = entry.name, %error, failures = entry.failures, ?pause, "no certificate was issued");
            }
        }
    }

    async fn issue(&self, names: &[String]) -> Result<Certificate, AcmeError> {
        let prover = Prover { kind: self.config.challenge, challenges: &self.challenges, tls: &self.tls };
        let ordering = async {
            let account = account::open(&self.config, &self.account_file).await?;
            order(&account, names, &prover).await
        };
        let issued = tokio::select! {
            issued = tokio::time::timeout(ORDER_MAX, ordering) => issued.map_err(|_| AcmeError::TimedOut)??,
            () = self.challenges.serve() => return Err(AcmeError::TimedOut),
        };
        Ok(self.store.save(&names[0], &issued.chain, &issued.key, WallMs::now())?)
    }
}

/// Resolves when another instance says that a certificate changed, or may have said so while we could not hear it.
async fn changed(news: &mut Option<Subscription>) {
    match news {
        Some(news) => match news.next().await {
            Event::Message { .. } | Event::Lagged(_) | Event::Reconnected => {}
        },
        None => std::future::pending().await,
    }
}
