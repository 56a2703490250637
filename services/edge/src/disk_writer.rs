//! Writes what memory lets go to the disk tier.

use std::sync::Arc;

use supervision::{Life, StartError, Started};

use crate::edge::Edge;

pub fn start(life: Life) -> Result<Started, StartError> {
    let edge = life.env::<Edge>();
    Ok(Started::task(async move {
        life.ready();
        let evicted = edge.store.evicted();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            let next = tokio::select! {
                next = evicted.recv() => next,
                () = &mut stopping => break,
            };
            let Ok(variants) = next else { break };
            let store = Arc::clone(&edge.store);
            let written = life.blocking(move || store.demote(&variants)).await;
            edge.telemetry.demoted(&written);
        }
        Ok(())
    }))
}
