//! Says in discovery how this replica is doing, and as primary cuts off what of the log nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use discovery::{Announcer, Identity};
use messages::service::Health;
use supervision::{BoxError, Life, StartError, Started};

use crate::peers;
use crate::state::{Role, Shared, Status};
use crate::verification;
use crate::wal;

/// How often numbers that always change are told. A change of role is told at once.
const TELL: Duration = Duration::from_secs(1);
/// How often the log is cut.
const CUT: u32 = 10;

/// Starts the keeper.
///
/// # Errors
/// None.
pub fn start(life: Life) -> Result<Started, StartError> {
    let shared = life.env::<Shared>();
    Ok(Started::task(async move {
        let announcer = shared.registry.announce(
            Identity::new(shared.group.tier, &shared.config.instance)
                .at(shared.listener.bound_url())
                .over(shared.bus.clone())
                .with_key(Some(shared.key.clone())),
        );
        life.ready();
        let stopping = life.stopping();
        tokio::select! {
            () = keep(&shared, &announcer) => {}
            () = wal::keep(&shared) => {}
            () = verification::keep(&shared) => {}
            () = stopping => announcer.goodbye().await,
        }
        Ok::<(), BoxError>(())
    }))
}

async fn keep(shared: &Arc<Shared>, announcer: &Announcer) {
    let mut status = shared.status();
    let mut turns = 0_u32;
    loop {
        let now = status.borrow_and_update().clone();
        tell(shared, announcer, &now);
        turns = turns.wrapping_add(1);
        if now.role == Role::Primary && turns.is_multiple_of(CUT) {
            cut(shared, &now).await;
        }
        let news = |s: &Status| (s.role, s.caught_up, &s.digest) != (now.role, now.caught_up, &now.digest);
        drop(tokio::time::timeout(TELL, status.wait_for(news)).await);
    }
}

fn tell(shared: &Shared, announcer: &Announcer, status: &Status) {
    announcer.set_fact("epoch", status.epoch.to_string());
    announcer.set_fact("generation", status.token.generation.to_string());
    announcer.set_fact("seq", status.token.seq.to_string());
    if let Some(offset) = status.offset {
        announcer.set_fact("offset", offset.to_string());
    }
    if !status.digest.is_empty() || announcer.announcement().facts.contains_key("digest") {
        announcer.set_fact("digest", &*status.digest);
    }
    announcer.set_fact("role", status.role.as_str());
    announcer.set_health(if shared.reads(status).is_ok() { Health::Ready } else { Health::Degraded });
}

/// Gives back what every known replica has applied, but for a margin: one that was away for longer takes a snapshot.
async fn cut(shared: &Shared, status: &Status) {
    let mine = status.offset.unwrap_or(0);
    let others = peers::others(shared).into_iter();
    let of_this_log = others.filter(|it| peers::fact(it, "generation") == Some(status.token.generation));
    let applied =
        of_this_log.map(|it| peers::fact(&it, "offset").unwrap_or(0)).min().unwrap_or(mine).min(mine);
    let before = applied.saturating_sub(shared.config.log_margin);
    if before == 0 {
        return;
    }
    let log = shared.log(status.token.generation);
    if let Err(error) = log.truncate_before(before).await {
        tracing::warn!(instance = shared.config.instance, %error, "the log cannot be cut; it grows");
    }
}
