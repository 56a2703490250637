//! What must not grow with restarts. Alone in its program, because it counts the threads of the process.

mod support;

use actix::{Actor, Context, Handler, Message};
use supervision::Restart::{Permanent, Temporary};
use supervision::Shutdown::Within;
use supervision::Strategy::OneForAll;
use supervision::view::State;
use supervision::{Backoff, Life, StartError, Started, Tree, secs, worker};
use support::{MANY, Stage, obedient};

struct Clerk(Life);

impl Actor for Clerk {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
enum Do {
    Panic,
    PanicLinked,
}

impl Handler<Do> for Clerk {
    type Result = ();
    fn handle(&mut self, what: Do, _: &mut Self::Context) {
        match what {
            Do::Panic => panic!("at once"),
            Do::PanicLinked => self.0.spawn_linked(async { panic!("linked") }),
        }
    }
}

fn clerk(life: Life) -> Result<Started, StartError> {
    Ok(Started::actor(Clerk(life)))
}

/// Threads of this process, by the kernel's count.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

#[actix::test]
async fn a_thousand_restarts_leave_nothing_behind() {
    static TREE: Tree = Tree {
        name: "leaks",
        strategy: OneForAll,
        intensity: MANY,
        children: &[
            worker("clerk", clerk, Permanent, Within(secs(5))).with_backoff(Backoff::NONE),
            worker("own", clerk, Permanent, Within(secs(5))).on_own_arbiter(),
            worker("gone", obedient, Temporary, Within(secs(5))),
        ],
    };
    let mut stage = Stage::new(&TREE).await;
    let clerk = stage.root.actor::<Clerk>("/n/t/i/clerk").expect("is there");
    let mut at_100 = (0, 0);
    for round in 0..1000 {
        let _ = clerk.send(Do::Panic).await;
        clerk.send(Do::PanicLinked).await.expect("back"); // crashes again, with a linked task
        stage.until_is("own", State::Running, 2 * round + 3).await;
        stage.seen.clear();
        if round == 100 {
            at_100 = (threads(), resident_kb());
        }
    }
    assert_eq!(threads(), at_100.0, "threads");
    assert!(
        resident_kb() < at_100.1 + 4096,
        "memory: {} kB, after 100 rounds {} kB",
        resident_kb(),
        at_100.1
    );
    stage.root.stop().await;
}
