//! The top of a process's supervision tree, and all that can be asked of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, System};
use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::arbiter::Home;
use crate::crash;
use crate::driver::Order;
use crate::env::Env;
use crate::events::Events;
use crate::intervene::{Intervention, glob_matches};
use crate::mailbox::{ActorRef, Mailbox};
use crate::ops::Turn;
use crate::spec::{Intensity, Restart, Shutdown, Strategy, Tree, secs, valid_name};
use crate::start::StartError;
use crate::tree::{Effects, LifeId, Node, NodeId, ROOT, Role, Supervisor, World};
use crate::view::{self, ExitReason, State};

/// How a [`Root`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct RootOptions {
    /// How many restarts of whole tiers are too many for the process. Default 3 in 60 s.
    pub intensity: Intensity,
    /// Seed of the jitter in restart delays.
    pub seed: u64,
}

impl Default for RootOptions {
    fn default() -> Self {
        Self { intensity: Intensity { restarts: 3, period: secs(60) }, seed: rand::random() }
    }
}

/// The supervision tree of this process. Cheap to clone; the tree is dropped with the last clone.
#[derive(Clone)]
pub struct Root(Arc<Owner>);

struct Owner(Arc<Shared>);

/// What drivers, lives and the control loop share.
pub(crate) struct Shared {
    world: Mutex<World>,
    events: Arc<Events>,
    exited: watch::Sender<Option<ExitReason>>,
    control_home: Arc<Home>,
    pub(crate) control: Notify,
}

impl Root {
    /// Starts an empty tree, `/node`.
    ///
    /// # Panics
    /// Outside of an actix system, when no thread can be started, and when `node` is no name (1 to 64 of a-z, 0-9, `-`, `_`, `.`).
    #[must_use]
    pub fn start(node: &str, options: RootOptions) -> Self {
        assert!(valid_name(node), "`{node}` is not a node name: 1 to 64 of a-z, 0-9, `-`, `_`, `.`");
        crash::install_hook();
        let system = System::current();
        let events = Arc::new(Events::new());
        let world = World {
            nodes: Vec::new(),
            free: Vec::new(),
            timers: std::collections::BTreeSet::new(),
            control_at: clock::now(),
            next_life: 0,
            next_home: 1,
            next_probe: 0,
            transitions: 0,
            seed: options.seed,
            system: system.clone(),
            events: Arc::clone(&events),
            closed: false,
        };
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            events,
            exited: watch::Sender::new(None),
            control_home: Home::start(1, true, &system).expect("a process can start its first threads"),
            control: Notify::new(),
        });
        shared.act(|world, turn| {
            let sup = Supervisor::new(Strategy::OneForOne, options.intensity, world.new_seed());
            let role = Role::Supervisor(Box::new(sup));
            let root = world.insert(Node::new(None, node, Restart::Temporary, Shutdown::Infinity, role));
            world.begin(root, turn);
        });
        let control = Arc::clone(&shared);
        shared.control_home.run(move || drop(actix_rt::spawn(crate::control::watch(control))));
        Self(Arc::new(Owner(shared)))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// Adds a supervisor for the instances of one tier, one_for_one. Adding it again changes nothing.
    ///
    /// # Panics
    /// When `name` is no name (see [`start`](Self::start)).
    pub async fn add_tier(&self, name: &str, intensity: Intensity) {
        assert!(valid_name(name), "`{name}` is not a tier name");
        self.shared().act(|world, turn| {
            if world.child_named(ROOT, name).is_some() || world.node(ROOT).life.is_none() {
                return;
            }
            let above = Arc::clone(&world.node(ROOT).path);
            let sup = Supervisor::new(Strategy::OneForOne, intensity, world.new_seed());
            let role = Role::Supervisor(Box::new(sup));
            let tier = Node::new(Some((ROOT, &above)), name, Restart::Permanent, Shutdown::Infinity, role);
            let tier = world.insert(tier);
            world.begin(tier, turn);
        });
    }

    /// Starts an instance of a tier, `/node/tier/instance`. Returns when all of it is ready.
    ///
    /// # Errors
    /// When the table is wrong, the tier is not there, the name is taken, or a child did not start: then what had
    /// started is stopped again, and the instance is not in the tree.
    pub async fn add_instance(
        &self,
        tier: &str,
        instance: &str,
        tree: &'static Tree,
        env: Env,
    ) -> Result<(), StartError> {
        tree.check()?;
        if !valid_name(instance) {
            return Err(StartError::Name(format!("`{instance}` is not an instance name")));
        }
        let (first, started) = oneshot::channel();
        self.shared().act(|world, turn| {
            let above = world
                .child_named(ROOT, tier)
                .ok_or_else(|| StartError::Name(format!("there is no tier `{tier}`")))?;
            if world.child_named(above, instance).is_some() {
                return Err(StartError::Name(format!("there is an instance `{instance}` already")));
            }
            if world.node(above).life.is_none() || world.node(above).state == State::Stopping {
                return Err(StartError::Stopped);
            }
            let id = world.plant_instance(above, instance, tree, env);
            world.node_mut(id).first = Some(first);
            world.begin(id, turn);
            Ok(())
        })?;
        started.await.unwrap_or(Err(StartError::Stopped))
    }

    /// Stops an instance and takes it out of the tree. False if there is none.
    pub async fn remove_instance(&self, tier: &str, instance: &str) -> bool {
        let (stopped, wait) = oneshot::channel();
        let found = self.shared().act(|world, turn| {
            let above = world.child_named(ROOT, tier)?;
            let id = world.child_named(above, instance)?;
            if world.node(id).life.is_none() {
                world.remove(id, turn.now, &mut turn.fx);
                return Some(false);
            }
            let node = world.node_mut(id);
            node.remove = true;
            node.stop_waiters.push(stopped);
            world.stop(id, turn);
            Some(true)
        });
        if found == Some(true) {
            let _ = wait.await;
        }
        found.is_some()
    }

    /// The tree as it is now.
    #[must_use]
    pub fn snapshot(&self) -> view::Node {
        self.shared().with(|world| world.view(ROOT))
    }

    /// Every transition from now on, in order. Who falls too far behind is told how many it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<view::Transition> {
        self.shared().events.subscribe()
    }

    /// Calls `hook` with every transition, on whatever thread it happens: it must be quick, and must not call back.
    /// Two transitions of different children may arrive in the other order; their ids tell.
    pub fn on_transition(&self, hook: impl Fn(&view::Transition) + Send + Sync + 'static) {
        self.shared().events.hook(Arc::new(hook));
    }

    /// Stops everything, last to first. Returns when it has stopped.
    pub async fn stop(&self) {
        self.shared().act(|world, turn| {
            if world.get(ROOT).is_some_and(|root| root.life.is_some()) {
                world.stop(ROOT, turn);
            }
        });
        self.exited().await;
    }

    /// Resolves when the whole tree has ended: with `shutdown` after [`stop`](Self::stop), else with the reason that
    /// reached the top. The process should exit then, non-zero unless it is `shutdown`.
    pub async fn exited(&self) -> ExitReason {
        let mut exited = self.shared().exited.subscribe();
        let reason = exited.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| *reason).unwrap_or(ExitReason::Shutdown)
    }

    /// Sets `fault` on every worker whose path matches, until `until` at the latest: it ends by itself even if nobody
    /// clears it. Returns the paths.
    pub fn intervene(&self, glob: &str, fault: Intervention, until: Instant) -> Vec<String> {
        self.intervene_where(|path| glob_matches(glob, path), fault, until)
    }

    /// The same on every worker whose path is `meant`. All are marked before the first of them suffers: whoever takes
    /// over the work of one cannot be struck by the same fault while it does.
    pub fn intervene_where(
        &self,
        meant: impl FnMut(&str) -> bool,
        fault: Intervention,
        until: Instant,
    ) -> Vec<String> {
        self.shared().act(|world, turn| world.set_faults(meant, Some((fault, until)), turn))
    }

    /// Ends the faults on every worker whose path matches. Returns the paths.
    pub fn clear(&self, glob: &str) -> Vec<String> {
        self.shared().act(|world, turn| world.set_faults(|path| glob_matches(glob, path), None, turn))
    }

    /// A stable reference to the actor at `path`; none if there is no such worker.
    ///
    /// # Panics
    /// When it is another type of actor.
    #[must_use]
    pub fn actor<A: Actor>(&self, path: &str) -> Option<ActorRef<A>> {
        self.shared().with(|world| {
            let id = world.find_path(path).filter(|&id| world.node(id).sup().is_none())?;
            Some(ActorRef::new(world.mailbox(id)))
        })
    }

    /// The pool at `path`; none if there is no such pool.
    #[must_use]
    pub fn pool(&self, path: &str) -> Option<PoolHandle> {
        let shared = self.shared();
        let id = shared.with(|world| world.find_path(path).filter(|&id| world.is_pool(id)))?;
        Some(PoolHandle { shared: Arc::clone(shared), id, path: path.into() })
    }

    /// For tests: all workers are pinged this often, and a period never ends.
    pub(crate) fn adapt_to_tests(&self, ping: Duration, deadline: Duration) {
        self.shared().with(|world| {
            for node in world.nodes.iter_mut().flatten() {
                match &mut node.role {
                    Role::Worker(worker) => worker.row = worker.row.with_liveness(ping, deadline),
                    Role::Supervisor(sup) => sup.budget.stretch_period(secs(3600)),
                }
            }
        });
        self.shared().control.notify_one();
    }

    /// For tests: every supervisor has its whole budget, and every next restart is at once.
    pub(crate) fn forgive_all(&self) {
        self.forget_delays();
        self.shared().with(|world| {
            for node in world.nodes.iter_mut().flatten() {
                if let Role::Supervisor(sup) = &mut node.role {
                    sup.budget.refill();
                }
            }
        });
    }

    /// For tests: every next restart is at once.
    pub(crate) fn forget_delays(&self) {
        self.shared().with(|world| world.nodes.iter_mut().flatten().for_each(|node| node.streak = 0));
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root")
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// Looks at the tree.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides under the lock, then carries out the effects.
    pub(crate) fn act<R>(self: &Arc<Self>, f: impl FnOnce(&mut World, &mut Turn<'_>) -> R) -> R {
        let (result, mut fx) = self.decide(f);
        for order in fx.orders.drain(..) {
            order.dispatch();
        }
        self.carry_out(fx);
        result
    }

    fn decide<R>(self: &Arc<Self>, f: impl FnOnce(&mut World, &mut Turn<'_>) -> R) -> (R, Effects) {
        let mut turn = Turn { now: clock::now(), shared: self, fx: Effects::default() };
        let result = self.with(|world| {
            let result = f(world, &mut turn);
            world.settle(&mut turn);
            result
        });
        (result, turn.fx)
    }

    fn carry_out(&self, fx: Effects) {
        for life in &fx.wakes {
            life.wake();
        }
        for transition in &fx.told {
            self.events.tell(transition);
        }
        for (first, result) in fx.firsts {
            let _ = first.send(result);
        }
        for stop in fx.stops {
            let _ = stop.send(());
        }
        for home in &fx.retired {
            home.stop();
        }
        if let Some(reason) = fx.root_exit {
            self.exited.send_replace(Some(reason));
        }
        if fx.poke_control {
            self.control.notify_one();
        }
    }

    /// A life has ended. Returns the order for the next one if it is the same child's, for the caller to carry out.
    pub(crate) fn exited(
        self: &Arc<Self>,
        id: NodeId,
        life: LifeId,
        reason: ExitReason,
        detail: String,
    ) -> Option<Order> {
        let ((), mut fx) = self.decide(|world, turn| {
            if world.is_present(id, life) {
                world.ended(id, reason, detail, turn);
            }
        });
        let mut again = None;
        for order in fx.orders.drain(..) {
            if order.life.0.node == id { again = Some(order) } else { order.dispatch() }
        }
        self.carry_out(fx);
        again
    }

    pub(crate) fn ready(self: &Arc<Self>, id: NodeId, life: LifeId) {
        self.act(|world, turn| {
            if world.is_present(id, life) {
                world.became_ready(id, turn);
            }
        });
    }

    pub(crate) fn waiting(self: &Arc<Self>, id: NodeId, life: LifeId, on: &str) {
        self.act(|world, turn| {
            if world.is_present(id, life) {
                world.became_waiting(id, on, turn);
            }
        });
    }

    pub(crate) fn own_mailbox<A: Actor>(&self, id: NodeId) -> Arc<Mailbox<A>> {
        self.with(|world| world.mailbox(id))
    }

    pub(crate) fn sibling_mailbox<A: Actor>(&self, from: NodeId, id: &str) -> Arc<Mailbox<A>> {
        self.with(|world| match world.find_near(from, id) {
            Some(found) if world.node(found).sup().is_none() => world.mailbox(found),
            _ => panic!("`{}` knows no actor `{id}`", world.node(from).path),
        })
    }

    pub(crate) fn pool_handle(self: Arc<Self>, from: NodeId, id: &str) -> PoolHandle {
        let (pool, path) = self.with(|world| match world.find_near(from, id) {
            Some(found) if world.is_pool(found) => (found, Arc::clone(&world.node(found).path)),
            _ => panic!("`{}` knows no pool `{id}`", world.node(from).path),
        });
        PoolHandle { shared: self, id: pool, path }
    }

    /// The last handle has gone: all lives are revoked, all threads stopped, without waiting.
    fn close(&self) {
        let mut homes = Vec::new();
        let mut queued = Vec::new(); // dropped outside the lock: that tells the callers
        let lives = self.with(|world| {
            world.closed = true;
            let mut lives = Vec::new();
            for node in world.nodes.iter_mut().flatten() {
                node.life = None;
                match &mut node.role {
                    Role::Worker(worker) => {
                        queued.extend(worker.mailbox.as_ref().map(|mailbox| mailbox.close()));
                        lives.extend(worker.life.take());
                        homes.extend(worker.home.take());
                    }
                    Role::Supervisor(sup) => {
                        homes.extend(sup.instance.as_mut().and_then(|at| at.home.take()))
                    }
                }
            }
            lives
        });
        for life in lives {
            life.set(crate::life::signal::REVOKED);
            life.wake();
        }
        for home in homes {
            home.stop();
        }
        self.exited.send_if_modified(|exited| {
            exited.is_none().then(|| *exited = Some(ExitReason::Shutdown)).is_some()
        });
        self.control_home.stop();
    }
}

/// A pool of children alike.
#[derive(Clone)]
pub struct PoolHandle {
    shared: Arc<Shared>,
    id: NodeId,
    path: Arc<str>,
}

impl PoolHandle {
    /// Starts more children, or stops the last ones, each within its shutdown time. Does not wait for it.
    pub fn resize(&self, size: usize) {
        self.shared.act(|world, turn| {
            if world.get(self.id).is_some_and(|node| node.path == self.path) {
                world.resize(self.id, size, turn);
            }
        });
    }

    /// How many children it is to have.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared.with(|world| {
            let sup = world.get(self.id).and_then(Node::sup);
            sup.and_then(|sup| sup.pool.as_ref()).map_or(0, |pool| pool.size)
        })
    }
}

impl std::fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolHandle({})", self.path)
    }
}
