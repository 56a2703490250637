//! Bounded mailboxes that outlive their actors, and the stable references to them.

use std::any::Any;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use actix::dev::{Envelope, EnvelopeProxy};
use actix::{Actor, ActorFuture, AsyncContext, Handler, Message};
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use crate::life::Life;
use crate::view;

/// Messages handled before other tasks of the arbiter get their turn.
const MESSAGES_PER_POLL: usize = 64;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The actor crashed while it had this message in hand. It may or may not have taken effect.
    #[error("the actor crashed while handling the message")]
    Crashed,
    /// The mailbox is at its bound. Nothing was sent.
    #[error("the actor's mailbox is full")]
    Full,
    /// The actor has stopped and will not come back.
    #[error("the actor has stopped")]
    Stopped,
    /// No answer in the time given. It may still take effect.
    #[error("no answer within the deadline")]
    Deadline,
}

/// A reference to an actor that stays good over its restarts, also on another arbiter. Cheap to clone.
pub struct ActorRef<A: Actor>(Arc<Mailbox<A>>);

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> std::fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ActorRef<{}>", std::any::type_name::<A>())
    }
}

impl<A: Actor> ActorRef<A> {
    pub(crate) fn new(mailbox: Arc<Mailbox<A>>) -> Self {
        Self(mailbox)
    }

    /// Sends and waits for the answer, through restarts if need be. A message whose caller has gone away
    /// before its turn is dropped.
    ///
    /// # Errors
    /// [`CallError::Full`] at once; `Crashed` when the actor crashed with this message in hand; `Stopped`.
    pub async fn send<M>(&self, message: M) -> Result<M::Result, CallError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: AsyncContext<A>,
    {
        let (answer, answered) = oneshot::channel();
        self.0.push(Envelope::new(message, Some(answer)))?;
        answered.await.map_err(|_| if self.0.is_closed() { CallError::Stopped } else { CallError::Crashed })
    }

    /// As [`send`](Self::send), waiting no longer than `limit`.
    ///
    /// # Errors
    /// As `send`, and [`CallError::Deadline`].
    pub async fn send_within<M>(&self, message: M, limit: Duration) -> Result<M::Result, CallError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: AsyncContext<A>,
    {
        tokio::time::timeout(limit, self.send(message)).await.unwrap_or(Err(CallError::Deadline))
    }

    /// Sends without waiting for an answer.
    ///
    /// # Errors
    /// [`CallError::Full`] and [`CallError::Stopped`].
    pub fn try_send<M>(&self, message: M) -> Result<(), CallError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: AsyncContext<A>,
    {
        self.0.push(Envelope::new(message, None))
    }

    /// Messages waiting, and the bound.
    #[must_use]
    pub fn mailbox(&self) -> view::Mailbox {
        self.0.depth()
    }
}

/// The queue of one actor, whichever life it is in.
pub(crate) struct Mailbox<A: Actor> {
    queue: Mutex<Queue<A>>,
    capacity: usize,
    pump: AtomicWaker,
}

struct Queue<A: Actor> {
    messages: VecDeque<Envelope<A>>,
    closed: bool,
}

impl<A: Actor> Mailbox<A> {
    pub(crate) fn new(capacity: usize) -> Self {
        let queue = Queue { messages: VecDeque::new(), closed: false };
        Self { queue: Mutex::new(queue), capacity, pump: AtomicWaker::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<A>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, envelope: Envelope<A>) -> Result<(), CallError> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(CallError::Stopped);
        }
        if queue.messages.len() >= self.capacity {
            return Err(CallError::Full);
        }
        queue.messages.push_back(envelope);
        drop(queue);
        self.pump.wake();
        Ok(())
    }

    fn pop(&self) -> Option<Envelope<A>> {
        self.lock().messages.pop_front()
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// A mailbox whose actor's type is not known here.
pub(crate) trait AnyMailbox: Send + Sync {
    fn depth(&self) -> view::Mailbox;
    /// Takes messages (again).
    fn open(&self);
    /// Takes no more. What was queued is handed back, to be dropped outside any lock: that tells its callers.
    fn close(&self) -> Box<dyn Any + Send>;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<A: Actor> AnyMailbox for Mailbox<A> {
    fn depth(&self) -> view::Mailbox {
        view::Mailbox { depth: self.lock().messages.len(), capacity: self.capacity }
    }

    fn open(&self) {
        self.lock().closed = false;
    }

    fn close(&self) -> Box<dyn Any + Send> {
        let mut queue = self.lock();
        queue.closed = true;
        Box::new(std::mem::take(&mut queue.messages))
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Lives in the actor's context and hands it one message after the other.
///
/// It is polled whenever the context is not waiting for something else, so a ping it answers means: this actor
/// would handle a message now.
pub(crate) struct Pump<A: Actor> {
    mailbox: Arc<Mailbox<A>>,
    life: Life,
    ready: bool,
}

impl<A: Actor> Pump<A> {
    pub(crate) fn new(mailbox: Arc<Mailbox<A>>, life: Life) -> Self {
        Self { mailbox, life, ready: false }
    }
}

impl<A: Actor<Context = actix::Context<A>>> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut actix::Context<A>,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        let this = self.get_mut();
        if !this.ready {
            this.ready = true;
            this.life.ready_by_default();
        }
        this.life.answer_ping();
        this.mailbox.pump.register(task.waker());
        for _ in 0..MESSAGES_PER_POLL {
            if context.waiting() || this.life.must_look_up() {
                return Poll::Pending; // whoever set the signal wakes the driver
            }
            let Some(mut envelope) = this.mailbox.pop() else { return Poll::Pending };
            envelope.handle(actor, context);
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}
