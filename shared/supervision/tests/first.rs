//! The shortest tour: actors and tasks start, crash, and come back.

use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{
    CallError, Env, Intensity, Intervention, Life, Root, RootOptions, StartError, Started, Tree, secs, worker,
};

struct Counter(u32);
impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Add(u32);

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Add> for Counter {
    type Result = u32;
    fn handle(&mut self, add: Add, _: &mut Self::Context) -> u32 {
        self.0 += add.0;
        self.0
    }
}

impl Handler<Crash> for Counter {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("told to");
    }
}

fn counter(_: Life) -> Result<Started, StartError> {
    Ok(Started::actor(Counter(0)))
}

fn task(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        life.ready();
        life.stopping().await;
        Ok(())
    }))
}

static TREE: Tree = Tree {
    name: "t",
    strategy: OneForOne,
    intensity: Intensity { restarts: 3, period: secs(5) },
    children: &[
        worker("counter", counter, Permanent, Within(secs(1))),
        worker("own", counter, Permanent, Within(secs(1)))
            .on_own_arbiter()
            .with_liveness(Duration::from_millis(20), Duration::from_millis(100)),
        worker("task", task, Permanent, Within(secs(1))),
    ],
};

#[actix::test]
async fn tour() {
    let root = Root::start("n", RootOptions::default());
    root.add_tier("t", Intensity { restarts: 3, period: secs(5) }).await;
    root.add_instance("t", "t-1", &TREE, Env::new()).await.unwrap();
    for path in ["/n/t/t-1/counter", "/n/t/t-1/own"] {
        let counter = root.actor::<Counter>(path).unwrap();
        assert_eq!(counter.send(Add(2)).await, Ok(2));
        let (crash, add) = futures_util::join!(counter.send(Crash), counter.send(Add(3)));
        assert_eq!((crash, add), (Err(CallError::Crashed), Ok(3)));
    }
    let own = root.actor::<Counter>("/n/t/t-1/own").unwrap();
    assert_eq!(root.intervene("**/own", Intervention::Hang, clock::now() + secs(60)).len(), 1);
    assert_eq!(own.send_within(Add(1), secs(5)).await, Ok(1));
    let tree = root.snapshot();
    assert_eq!(tree.children[0].children[0].children[1].incarnation, 3, "{tree:#?}");
    root.stop().await;
    assert_eq!(own.send(Add(1)).await, Err(CallError::Stopped));
}
