//! Holds the lease that lets this replica try to be primary.
//!
//! The lease is a hint that keeps replicas from campaigning all at once; what makes a primary is its epoch in the log.

use std::sync::Arc;
use std::time::Duration;

use bus::Lease;
use supervision::{BoxError, Life, StartError, Started};
use tokio::sync::{oneshot, watch};

use crate::agreement::Agreement;
use crate::peers::{self, Roles};
use crate::position::Token;
use crate::replica::history_elsewhere;
use crate::state::{Command, Role, Shared};
use crate::succession;

/// Pause between two tries to get the lease while another has it. On RabbitMQ each try costs a channel.
const TRY: Duration = Duration::from_millis(250);
/// Pause after news of another replica: a primary that says it is none any more is about to give the lease back.
const TRY_SOON: Duration = Duration::from_millis(20);
/// How many tries follow news at that pace.
const TRIES: u32 = 10;
/// Before the first campaign of a life: newcomers to discovery are told of the others at once.
const HEAR: Duration = Duration::from_millis(120);
/// How long a replica waits for others that are known, and have not said yet how far they are and what their content is.
const UNTOLD_MAX: Duration = Duration::from_secs(3);
/// A primary that said nothing for so long is given up: the lease is released, so that another replica can take over
/// while the supervisor still waits for this one.
const SILENCE_MAX: Duration = Duration::from_millis(900);
/// Pause between two looks at whether it still says something.
const LOOK: Duration = Duration::from_millis(250);
/// How long a campaign may take.
const CAMPAIGN: Duration = Duration::from_secs(2);

/// Starts the elector.
///
/// # Errors
/// None.
pub fn start(life: Life) -> Result<Started, StartError> {
    let shared = life.env::<Shared>();
    Ok(Started::task(async move {
        life.ready();
        let stopping = life.stopping();
        tokio::select! {
            () = elect(&shared) => Ok::<(), BoxError>(()),
            () = stopping => Ok(()),
        }
    }))
}

async fn elect(shared: &Arc<Shared>) {
    let mut news = shared.registry.version();
    // First hear whether somebody has more than the log, or a history where there is none here.
    tokio::time::sleep(HEAR).await;
    let began = clock::now();
    let beside = shared.directory.siblings_with_history(shared.group.log).len();
    // A fresh stack has no primary yet: do not wait for news of it.
    let mut soon = TRIES;
    let mut known = peers::roles(shared);
    loop {
        if may_campaign(shared)
            && (clock::now() - began > UNTOLD_MAX || (peers::all_told(shared) && agreed(shared, beside)))
            && let Ok(lease) = shared.bus.acquire(shared.group.lease).await
        {
            reign(shared, &lease).await;
            // Also when the lease is lost: the replica must not go on as if it were held.
            let _ = shared.commands.put.send(Command::StepDown).await; // never closed: both ends are in `shared`
            drop(lease);
            // The others get a fair chance: this one just failed.
            tokio::time::sleep(TRY_SOON * 3).await;
            soon = TRIES;
        }
        soon = soon.saturating_sub(1);
        let pause = if soon > 0 { TRY_SOON } else { TRY };
        let pause = pause + pause.mul_f64(rand::random_range(0.0..0.3));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = other_roles(shared, &mut news, &mut known), if soon == 0 => soon = TRIES,
        }
    }
}

/// Waits until another replica has another role than before, or is ready where it was not. That it has come further in the
/// log, which discovery says each second, is no news.
async fn other_roles(shared: &Shared, news: &mut watch::Receiver<u64>, known: &mut Roles) {
    while news.changed().await.is_ok() {
        let now = peers::roles(shared);
        if *known != now {
            *known = now;
            return;
        }
    }
    std::future::pending().await // discovery has ended: the clock is left
}

/// Whether it makes sense to try: the replica follows the log, has read it to its end, lives, and nobody has more than
/// the log.
fn may_campaign(shared: &Shared) -> bool {
    // Before the status is held: this looks at it as well.
    let odd = matches!(peers::agreement(shared), Agreement::Odd(_));
    let status = shared.status();
    let status = status.borrow();
    let Token { generation, seq } = status.token;
    let empty = seq == 0 && history_elsewhere(shared).is_some();
    shared.config.electable
        && !empty
        && status.role == Role::Follower
        && status.caught_up
        && shared.silent_for() < SILENCE_MAX
        && !odd
        && succession::may_lead(generation, seq, &peers::peers(shared))
}

/// Whether the content of this replica is known to be that of the others, or there is nobody to compare it with; of
/// `beside` others the directories are here.
fn agreed(shared: &Shared, beside: usize) -> bool {
    let others = peers::others(shared).len();
    match peers::agreement(shared) {
        Agreement::Agreed => true,
        Agreement::Unsaid if shared.status().borrow().digest.is_empty() => others == 0 && beside == 0,
        Agreement::Alone | Agreement::Unsaid => others >= beside && peers::all_said(shared),
        // Another one may come that knows.
        Agreement::Disputed(_) | Agreement::Odd(_) => false,
    }
}

/// From the lease to its loss.
async fn reign(shared: &Shared, lease: &Lease) {
    let (won, campaign) = oneshot::channel();
    // A full queue means a replica that does not take commands: it is as good as silent.
    if shared.commands.put.try_send(Command::Campaign(won)).is_err() {
        return;
    }
    tokio::select! {
        won = tokio::time::timeout(CAMPAIGN, campaign) => if !matches!(won, Ok(Ok(()))) { return },
        () = lease.lost() => return,
    }
    let mut status = shared.status();
    let demoted = async { drop(status.wait_for(|s| s.role != Role::Primary).await) };
    let silent = async {
        while shared.silent_for() < SILENCE_MAX {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = lease.lost() => {}
        () = demoted => {}
        () = silent => shared.give_up_on_replica(),
    }
}
