//! The suite that every tier's tree passes, on trees that have all there is.

use std::time::Duration;

use actix::{Actor, Context};
use supervision::Restart::{Permanent, Temporary, Transient};
use supervision::Shutdown::{Brutal, Within};
use supervision::Strategy::{OneForAll, OneForOne, RestForOne};
use supervision::{Env, Intensity, Life, PoolSize, StartError, Started, Tree, pool, secs, subtree, worker};

struct Idle;
impl Actor for Idle {
    type Context = Context<Self>;
}

fn actor(_: Life) -> Result<Started, StartError> {
    Ok(Started::actor(Idle))
}

fn task(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        life.ready();
        life.stopping().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    }))
}

static INNER: Tree = Tree {
    name: "inner",
    strategy: OneForAll,
    intensity: Intensity { restarts: 2, period: secs(5) },
    children: &[
        worker("first", task, Permanent, Within(secs(2))),
        worker("second", actor, Transient, Within(secs(2))).on_own_arbiter(),
    ],
};

static REST: Tree = Tree {
    name: "rest",
    strategy: RestForOne,
    intensity: Intensity { restarts: 3, period: secs(5) },
    children: &[
        worker("a", task, Permanent, Within(secs(2))),
        worker("b", actor, Permanent, Brutal),
        subtree("inner", &INNER),
        pool("workers", task, Permanent, Within(secs(2))).on_own_arbiter(),
        worker("z", actor, Transient, Within(secs(2))),
    ],
};

static ONE: Tree = Tree {
    name: "one",
    strategy: OneForOne,
    intensity: Intensity { restarts: 3, period: secs(5) },
    children: &[
        worker("a", task, Permanent, Within(secs(2))).on_own_arbiter(),
        worker("b", actor, Temporary, Brutal),
        worker("c", task, Transient, Within(secs(2))),
    ],
};

fn env() -> Env {
    Env::new().with(PoolSize("workers", 3))
}

supervision::conformance!(rest_for_one_with_all_there_is, REST, env);
supervision::conformance!(one_for_one_with_each_restart_type, ONE, Env::new);
supervision::conformance!(one_for_all, INNER, async || async { Env::new() });
