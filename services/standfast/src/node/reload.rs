//! SIGHUP: reads the configuration again, changes what can be changed while running, and says what cannot.

use crate::cli::NodeArgs;
use crate::settings::Settings;

/// Reads the file and the environment again. A mistake changes nothing and is told in the log.
pub fn reload(running: &mut Settings, args: &NodeArgs) {
    let fresh = match Settings::load(args.config.as_deref(), &[]) {
        Ok(fresh) => fresh,
        Err(failure) => {
            tracing::error!(error = failure.text, "configuration not reloaded; the running one stays");
            return;
        }
    };
    if args.log.is_none() && fresh.telemetry.log != running.telemetry.log {
        match telemetry::set_filter(&fresh.telemetry.log) {
            Ok(()) => tracing::info!(log = fresh.telemetry.log, "log filter changed"),
            Err(error) => tracing::error!(%error, "log filter not changed"),
        }
        running.telemetry.log.clone_from(&fresh.telemetry.log);
    }
    running.drain_ms = fresh.drain_ms;
    let need_restart = changed(running, &fresh, args);
    if need_restart.is_empty() {
        tracing::info!("configuration reloaded");
    } else {
        tracing::warn!(
            keys = need_restart.join(", "),
            "configuration reloaded; these take effect after a restart"
        );
    }
}

/// Sections that differ; those that flags had a say in are not compared.
fn changed(running: &Settings, fresh: &Settings, args: &NodeArgs) -> Vec<String> {
    let table = |settings: &Settings| toml::Table::try_from(settings).unwrap_or_default();
    let (running, fresh) = (table(running), table(fresh));
    let by_flag = |key: &str| match key {
        "bus" => true, // its directory follows from `data`
        "data" => args.data.is_some(),
        "node" => args.node.is_some(),
        "telemetry" => args.log.is_some(),
        _ => false,
    };
    let differs = |key: &&String| !by_flag(key) && running.get(*key) != fresh.get(*key);
    fresh.keys().filter(differs).cloned().collect()
}
