//! Request and reply.

use async_channel::Receiver;
use tokio::sync::oneshot;

use crate::message::Message;
use crate::rabbit;

/// The requests to one address; serving ends when dropped.
pub struct Requests {
    pub(crate) waiting: Receiver<Request>,
    pub(crate) _registration: Box<dyn Send + Sync>,
}

impl Requests {
    /// The next request. Cancel safe.
    pub async fn next(&mut self) -> Request {
        match self.waiting.recv().await {
            Ok(request) => request,
            // The registration holds a sender: this does not happen while we exist.
            Err(_) => std::future::pending().await,
        }
    }
}

/// A request in hand. Dropped without a reply, the asker is told so.
pub struct Request {
    /// What is asked.
    pub message: Message,
    pub(crate) reply: ReplyTo,
}

pub(crate) enum ReplyTo {
    Embedded(oneshot::Sender<Message>),
    Rabbit(rabbit::Asker),
}

impl Request {
    /// Answers. An asker who waits no longer is no error.
    pub fn reply(self, message: Message) {
        match self.reply {
            ReplyTo::Embedded(asker) => drop(asker.send(message)),
            ReplyTo::Rabbit(asker) => asker.reply(&message),
        }
    }
}
