//! What a start function hands back, and how the driver runs it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, AsyncContext};

use crate::life::Life;
use crate::mailbox::{Mailbox, Pump};
use crate::spec::SpecError;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why something did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The start function said so.
    #[error("{0}")]
    Failed(BoxError),
    /// The table is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A child ended before it was ready, and with it the first start of its instance.
    #[error("{0}")]
    Exited(String),
    /// There is no such tier, or the name is taken.
    #[error("{0}")]
    Name(String),
    /// The root is stopping or has stopped.
    #[error("the supervision tree has stopped")]
    Stopped,
}

impl StartError {
    /// From any error, for `map_err`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self::Failed(error.into())
    }
}

impl From<BoxError> for StartError {
    fn from(error: BoxError) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<String> for StartError {
    fn from(error: String) -> Self {
        Self::Failed(error.into())
    }
}

/// A child that has been built, not yet polled.
pub struct Started(Box<Build>);

type Build = dyn FnOnce(&Life) -> Box<dyn Body>;

impl Started {
    /// An actor. Ready once `started` and what it `wait`ed for is over, unless it called [`Life::not_ready_yet`].
    /// `ctx.stop()` ends it with reason `normal`; [`Life::fail`] with `error`. Asked to stop, it gets `ctx.stop()`
    /// from outside: returning `Running::Continue` from `stopping` gives it time until its shutdown time is over.
    #[must_use]
    pub fn actor<A: Actor<Context = actix::Context<A>>>(actor: A) -> Self {
        Self(Box::new(move |life| Box::new(ActorBody::new(actor, life))))
    }

    /// A task. Ready when it calls [`Life::ready`]. Its output is its exit: `normal`, or `error`.
    /// Asked to stop, it is dropped at once unless it has ever looked at [`Life::stopping`] or [`Life::is_stopping`].
    #[must_use]
    pub fn task(future: impl Future<Output = Result<(), BoxError>> + 'static) -> Self {
        Self(Box::new(move |_| Box::new(TaskBody(Box::pin(future)))))
    }

    pub(crate) fn build(self, life: &Life) -> Box<dyn Body> {
        (self.0)(life)
    }
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Started")
    }
}

/// What the driver runs: an actor's context or a task.
pub(crate) trait Body {
    /// The end of the life, when it comes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    /// Asked to stop. True: nothing to wait for, drop it.
    fn stop(&mut self, life: &Life) -> bool;
    /// Called before the drop of one that did not end by itself: no user code but `Drop` may run after it.
    fn bury(&mut self);
    /// Whether it answers pings itself, from behind its mailbox.
    fn answers_pings(&self) -> bool;
}

struct TaskBody(Pin<Box<dyn Future<Output = Result<(), BoxError>>>>);

impl Body for TaskBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.as_mut().poll(cx)
    }
    fn stop(&mut self, life: &Life) -> bool {
        !life.listens_for_stop()
    }
    fn bury(&mut self) {}
    fn answers_pings(&self) -> bool {
        false
    }
}

/// Drives actix's own context. The mailbox is ours: it outlives the context, so that a restart, even on
/// another arbiter, goes on with the queued messages.
struct ActorBody<A: Actor<Context = actix::Context<A>>>(ContextFut<A, actix::Context<A>>);

impl<A: Actor<Context = actix::Context<A>>> ActorBody<A> {
    fn new(actor: A, life: &Life) -> Self {
        let mailbox: Arc<Mailbox<A>> = life.own_mailbox();
        let mut context = actix::Context::new();
        context.spawn(Pump::new(mailbox, life.clone()));
        Self(context.into_future(actor))
    }
}

impl<A: Actor<Context = actix::Context<A>>> Body for ActorBody<A> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Pin::new(&mut self.0).poll(cx).map(Ok)
    }
    fn stop(&mut self, _: &Life) -> bool {
        self.0.ctx().stop();
        false
    }
    fn bury(&mut self) {
        // Without this, dropping the future runs `stopping`, `stopped` and even queued messages.
        self.0.ctx().terminate();
    }
    fn answers_pings(&self) -> bool {
        true
    }
}
