//! One event, one log line and one metric.

use telemetry::metrics;

use crate::pair::Role;

/// The pair's role changed.
pub(crate) fn role(instance: &str, role: Role, epoch: u64, why: &'static str) {
    let changes =
        metrics().counters("balancer_role_changes", "Changes of role in a pair", ["instance", "to"]);
    changes.with([instance.to_owned(), role.as_str().to_owned()]).inc();
    tracing::info!(tier = "balancer", instance, role = role.as_str(), epoch, why, "role in the pair");
}
