//! How long a request stays, as far as that is known, and what it holds of its client's share meanwhile.
//!
//! Most requests are short: they are counted one by one, and those beyond the client's share wait for their turn. Some
//! last by their nature: event streams, tunnels, gRPC, a client that asks to wait. Those have a budget of their own,
//! here and at each tier behind, so that however many there are, short ones find their way.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::ForwardFailure;
use super::clients::{ClientBounds, ClientKey, Clients, Held};
use crate::wire::{RequestHead, ResponseHead};

/// One request's part.
#[derive(Default)]
pub(crate) struct Stay {
    held: RefCell<Option<Held>>,
    lasts: Cell<bool>,
    /// Whose it is, and of what.
    claim: RefCell<Option<(Arc<Clients>, ClientKey, ClientBounds)>>,
}

impl Stay {
    /// Takes the request's place in its client's share. False: its turn has to be waited for.
    ///
    /// # Errors
    /// It lasts, and the client, or all of them, hold what they may.
    pub(crate) fn try_enter(
        &self,
        clients: &Arc<Clients>,
        client: ClientKey,
        bounds: ClientBounds,
        lasts: bool,
    ) -> Result<bool, ForwardFailure> {
        let held = match lasts {
            true => Some(clients.lasting(client, &bounds)?),
            false => clients.try_request(client, &bounds),
        };
        self.lasts.set(lasts);
        Ok(held.map(|held| self.hold(held, clients, client, bounds)).is_some())
    }

    /// Waits for the request's turn.
    ///
    /// # Errors
    /// It did not come in time.
    pub(crate) async fn wait_turn(
        &self,
        clients: &Arc<Clients>,
        client: ClientKey,
        bounds: ClientBounds,
    ) -> Result<(), ForwardFailure> {
        let held = clients.request(client, &bounds).await?;
        self.hold(held, clients, client, bounds);
        Ok(())
    }

    fn hold(&self, held: Held, clients: &Arc<Clients>, client: ClientKey, bounds: ClientBounds) {
        self.claim.replace(Some((Arc::clone(clients), client, bounds)));
        *self.held.borrow_mut() = Some(held);
    }

    pub(crate) fn is_in(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// It has turned out that the request lasts: it leaves its place to a short one.
    ///
    /// # Errors
    /// There is no room for one more that lasts.
    pub(crate) fn lengthen(&self) -> Result<(), ForwardFailure> {
        if self.lasts.replace(true) {
            return Ok(());
        }
        if let Some((clients, client, bounds)) = &*self.claim.borrow() {
            let held = clients.lasting(*client, bounds)?;
            *self.held.borrow_mut() = Some(held);
        }
        Ok(())
    }

    /// Whether the request is one that lasts.
    pub(crate) fn lasts(&self) -> bool {
        self.lasts.get()
    }
}

/// Whether a request says of itself that its answer may be long in coming: it asks to wait (RFC 7240 section 4.3), to
/// become a tunnel (RFC 9110 section 7.8), or is of gRPC, whose streams end when both sides want.
pub(crate) fn request_lasts(head: &RequestHead<'_>) -> bool {
    head.upgrade().is_some()
        || head.get("prefer").is_some_and(asks_to_wait)
        || head.get("content-type").is_some_and(is_grpc)
}

fn asks_to_wait(prefer: &[u8]) -> bool {
    prefer.split(|byte| matches!(byte, b',' | b';')).any(|part| {
        let part = part.trim_ascii();
        part.len() > 4
            && part[..4].eq_ignore_ascii_case(b"wait")
            && part[4..].trim_ascii_start().starts_with(b"=")
    })
}

/// Whether a response never ends by itself: server-sent events, or gRPC.
#[must_use]
pub fn response_lasts(head: &ResponseHead<'_>) -> bool {
    head.status() == 101 || head.get("content-type").is_some_and(is_endless)
}

/// Whether content of this media type never ends by itself.
pub(crate) fn is_endless(media_type: &[u8]) -> bool {
    is_event_stream(media_type) || is_grpc(media_type)
}

pub(crate) fn is_event_stream(media_type: &[u8]) -> bool {
    starts(media_type, b"text/event-stream")
}

pub(crate) fn is_grpc(media_type: &[u8]) -> bool {
    starts(media_type, b"application/grpc")
}

fn starts(media_type: &[u8], with: &[u8]) -> bool {
    media_type.len() >= with.len() && media_type[..with.len()].eq_ignore_ascii_case(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_wait_is_read_in_every_form() {
        for yes in ["wait=60", "respond-async, WAIT = 5", "return=minimal;wait=1"] {
            assert!(asks_to_wait(yes.as_bytes()), "{yes}");
        }
        for no in ["", "wait", "waiting=1", "respond-async", "return=minimal"] {
            assert!(!asks_to_wait(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn media_types_that_never_end_are_known_with_their_parameters() {
        assert!(is_endless(b"Text/Event-Stream; charset=utf-8") && is_endless(b"application/grpc+proto"));
        assert!(!is_endless(b"text/event") && !is_endless(b"application/json"));
    }
}
