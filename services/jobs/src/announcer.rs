//! Says that this runner is there, and which kinds and commands it knows. Last in, first out.

use messages::service::Health;
use supervision::{Life, StartError, Started};

use crate::runner::Runner;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        runner.announcer.set_fact("kinds", runner.kinds.join(","));
        if let Some(commands) = &runner.commands {
            runner.announcer.set_fact("commands", commands.join(","));
        }
        runner.announcer.set_fact("concurrency", runner.config.concurrency.to_string());
        runner.announcer.set_health(Health::Ready);
        life.ready();
        life.stopping().await;
        runner.announcer.set_health(Health::Draining);
        Ok(())
    }))
}
