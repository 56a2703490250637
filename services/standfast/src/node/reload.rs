//! SIGHUP: reads the configuration again, changes what can be changed while running, and says what cannot.

use std::sync::PoisonError;

use super::Node;
use crate::settings::{Settings, Source};

impl Node {
    /// Reads file, environment and flags again. A mistake changes nothing and is told in the log.
    pub(super) fn reload(&self, running: &mut Settings, source: &Source) {
        let fresh = match source.for_this_host() {
            Ok(fresh) => fresh,
            Err(failure) => {
                tracing::error!(error = failure.text, "configuration not reloaded; the running one stays");
                return;
            }
        };
        if fresh.telemetry.log != running.telemetry.log {
            match telemetry::set_filter(&fresh.telemetry.log) {
                Ok(()) => tracing::info!(log = fresh.telemetry.log, "log filter changed"),
                Err(error) => tracing::error!(%error, "log filter not changed"),
            }
        }
        running.telemetry.log.clone_from(&fresh.telemetry.log);
        running.drain_ms = fresh.drain_ms;
        // Also when nothing changed here: the certificates in the files may have.
        for (instance, apply) in self.reloads.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Err(error) = apply(&fresh) {
                tracing::error!(%instance, error, "configuration not reloaded; the running one stays");
            }
        }
        running.web.clone_from(&fresh.web);
        running.balancer.clone_from(&fresh.balancer);
        let sections = differing(running, &fresh);
        if sections.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(
                sections = sections.join(", "),
                "configuration reloaded; these sections take effect after a restart"
            );
        }
    }
}

/// Sections that say something else than what runs.
fn differing(running: &Settings, fresh: &Settings) -> Vec<String> {
    let table = |settings: &Settings| toml::Table::try_from(settings).unwrap_or_default();
    let (running, fresh) = (table(running), table(fresh));
    fresh.keys().filter(|key| running.get(*key) != fresh.get(*key)).cloned().collect()
}
