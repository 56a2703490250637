//! The children that look after the pools: who belongs to them, and who passes its checks.

use std::sync::Arc;

use supervision::{Life, StartError, Started};

use crate::env::Web;

/// Starts the child that keeps the pools' members.
///
/// # Errors
/// None.
pub fn keep(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    Ok(Started::task(upstream::keep(Arc::clone(&web.pools), life, |_| ())))
}

/// Starts the child that asks members whether they work.
///
/// # Errors
/// None.
pub fn check(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    Ok(Started::task(async move {
        life.ready();
        tokio::select! {
            () = upstream::check(&web.pools, &web.instance) => {}
            () = life.stopping() => {}
        }
        Ok(())
    }))
}
