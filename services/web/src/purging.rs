//! Tells the edges to forget what a reload no longer allows: a page that was open and is behind a rule now, a site that
//! is gone. And answers them when they are purged themselves: a file is then looked at before it is used again. Until every point has confirmed it, it is asked again; a point whose link was down distrusts what it has.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bus::Message;
use clock::WallMs;
use messages::edge::{Forgot, KIND, KIND_PURGE, Purge, address, web_address};
use supervision::{BoxError, Life, StartError, Started};

use crate::config::{Config, SiteConfig};
use crate::env::Web;

/// How long a point may take to answer.
const DEADLINE: Duration = Duration::from_secs(1);
/// Purges that may wait.
const WAITING_MAX: usize = 64;
/// Pause before the points that did not answer are asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often, at most: a point that is gone by then is gone from discovery too.
const TRIES: u32 = 30;

/// What is to be forgotten and was not yet told: from one reload to the next nothing is lost.
#[derive(Default)]
pub struct Owed(Mutex<Option<Purge>>);

impl Owed {
    /// Adds to it.
    pub fn add(&self, purge: Purge) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = owed.get_or_insert_default();
        known.all |= purge.all;
        known.hosts.extend(purge.hosts);
    }

    fn take(&self) -> Option<Purge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the edges must forget when one configuration takes the place of another: every host of a site that was changed
/// in whom it admits, in what may be shared, or in what answers where.
#[must_use]
pub fn covered(before: &Config, after: &Config) -> Option<Purge> {
    let (old, new) = (before.effective_sites(), after.effective_sites());
    if old == new && before.auth == after.auth {
        return None;
    }
    let changed = |sites: &[SiteConfig], others: &[SiteConfig]| -> Vec<SiteConfig> {
        sites.iter().filter(|site| before.auth != after.auth || !others.contains(site)).cloned().collect()
    };
    let (mut purge, mut hosts) = (Purge::default(), BTreeSet::new());
    for site in changed(&old, &new).into_iter().chain(changed(&new, &old)) {
        // A site for any host, or for all below one: their names are not known here.
        purge.all |= site.hosts.is_empty() || site.hosts.iter().any(|host| host.starts_with('*'));
        hosts.extend(site.hosts);
    }
    if !purge.all {
        purge.hosts = hosts.into_iter().collect();
    }
    Some(purge)
}

/// Starts it.
///
/// # Errors
/// None.
pub fn start(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    Ok(Started::task(async move {
        let (mut reloads, mut stopping) = (web.reloads(), std::pin::pin!(life.stopping()));
        let mut served = std::pin::pin!(serve(&web));
        life.ready();
        loop {
            if let Some(purge) = web.owed.take() {
                tokio::select! {
                    () = tell_all(&web, &purge) => {}
                    () = &mut served => {}
                    () = &mut stopping => return Ok::<(), BoxError>(()),
                }
            }
            tokio::select! {
                () = &mut served => {}
                _ = reloads.changed() => {}
                () = &mut stopping => return Ok(()),
            }
        }
    }))
}

/// Answers the edges, which ask before they forget: every file is looked at again before it is used. Never ends.
async fn serve(web: &Web) {
    let (node, instance) = (web.registry.node(), &web.instance);
    let address = web_address(node, instance);
    let mut link = web.bus.state();
    loop {
        link.mark_unchanged();
        match web.bus.serve(&address, WAITING_MAX).await {
            Ok(mut requests) => loop {
                let request = requests.next().await;
                let uris = web.library.distrust();
                let at = WallMs::now().rfc3339();
                request.reply(Message::json(&Forgot {
                    instance: instance.clone(),
                    at,
                    uris,
                    near: Vec::new(),
                }));
            },
            Err(error) => {
                tracing::debug!(%error, "purges cannot be heard yet");
                if link.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

async fn tell_all(web: &Web, purge: &Purge) {
    let message = Message::json(purge).with_header(KIND, KIND_PURGE);
    let mut told = BTreeSet::new();
    for attempt in 1..=TRIES {
        let mut silent = Vec::new();
        for point in web.registry.of_tier("edge") {
            let name = (point.node.clone(), point.instance.clone());
            if told.contains(&name) {
                continue;
            }
            let address = address(&point.node, &point.instance);
            match web.bus.request(&address, message.clone(), DEADLINE).await {
                Ok(_) => drop(told.insert(name)),
                Err(_) => silent.push(point.instance.clone()),
            }
        }
        if silent.is_empty() {
            tracing::info!(
                points = told.len(),
                all = purge.all,
                hosts = purge.hosts.len(),
                "sites were changed: the edges have forgotten what they covered"
            );
            return;
        }
        if attempt == TRIES {
            tracing::error!(
                points = silent.join(", "),
                "sites were changed, and these edges did not confirm that they forgot: purge them, or restart them"
            );
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sites: &[(&str, bool)]) -> Config {
        let site = |(host, listing): &(&str, bool)| SiteConfig {
            hosts: if host.is_empty() { Vec::new() } else { vec![(*host).to_owned()] },
            root: Some("r".into()),
            listing: *listing,
            ..SiteConfig::default()
        };
        Config { sites: sites.iter().map(site).collect(), ..Config::default() }
    }

    #[test]
    fn what_changed_is_forgotten_and_nothing_else() {
        let before = config(&[("a.org", false), ("b.org", false)]);
        assert_eq!(covered(&before, &before), None);
        let hosts = |after: &Config| covered(&before, after).unwrap().hosts;
        assert_eq!(hosts(&config(&[("a.org", true), ("b.org", false)])), ["a.org"]);
        assert_eq!(hosts(&config(&[("a.org", false)])), ["b.org"], "a site that is gone");
        let more = config(&[("a.org", false), ("b.org", false), ("*.c.org", false)]);
        assert!(covered(&before, &more).unwrap().all, "a wildcard has no prefix");
        assert!(covered(&config(&[]), &before).unwrap().all);
    }
}
