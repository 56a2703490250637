//! The front door: what a worker thread does with a request.
//!
//! - [`lookup`]: a GET or HEAD is answered from the store if the rules allow it;
//! - [`answer`]: how a stored response is sent: whole, in part, or as 304;
//! - [`collapse`]: else it causes a fetch or joins one;
//! - [`post`]: a POST whose answer may serve later GETs;
//! - [`pass`]: everything else is forwarded as it is, on the fast path.

mod answer;
mod collapse;
mod lookup;
mod pass;
mod post;

#[cfg(test)]
pub use lookup::{Found, found};

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clock::WallMs;
use http_support::Error as Problem;
use http_support::access_log::{self, Line, Lines};
use http_support::gateway::{Abort, Exchange, Handler, Peer, in_place_of_server, serve};
use http_support::wire::{self, Claims, RequestHead};
use supervision::{Life, StartError, Started};

use crate::admin;
use crate::edge::Edge;
use crate::error::loop_detected;
use crate::passes::Passes;
use crate::rules::key::{KeyBuf, claimed_key, key, uri_of};
use crate::rules::report::Fwd;
use crate::rules::request::Wants;
use crate::rules::storing;
use crate::store::{Front, hash};

/// One worker: accepts from the shared listeners until it is asked to stop.
pub fn start(life: Life) -> Result<Started, StartError> {
    let edge = life.env::<Edge>();
    Ok(Started::task(async move {
        let door = Door {
            front: RefCell::new(Front::new()),
            passes: RefCell::new(Passes::new(edge.config.pass_ms)),
            lines: Lines::new(edge.log.clone()),
            life: life.clone(),
            edge: Arc::clone(&edge),
        };
        serve(edge.bindings.clone(), door, life, edge.limits()).await
    }))
}

/// A worker thread's own part of the cache.
pub struct Door {
    edge: Arc<Edge>,
    life: Life,
    front: RefCell<Front>,
    passes: RefCell<Passes>,
    lines: Rc<Lines>,
}

/// A request, and what is known of it from the start.
pub struct Asked<'c> {
    wants: Wants<'c>,
    key: KeyBuf,
    /// What the cache did, for the access log (RFC 9211).
    said: Cell<&'static str>,
}

impl Asked<'_> {
    fn key(&self) -> &str {
        std::str::from_utf8(&self.key).expect("made of text")
    }

    /// The key without what a trusted proxy said beyond it.
    fn uri(&self) -> &str {
        uri_of(self.key())
    }

    /// What storing needs to know of it.
    fn to_store(&self, get: bool) -> storing::Asked {
        storing::Asked {
            get,
            no_store: self.wants.directives.no_store,
            authorization: self.wants.authorization,
            cookie: self.wants.cookie,
        }
    }

    /// What is remembered of a URI whose answers are not shared holds for requests with credentials, or for those without.
    fn pass_hash(&self) -> u64 {
        hash(&self.key) ^ u64::from(self.wants.cookie || self.wants.authorization)
    }
}

impl Door {
    /// What a request's answer may depend on beyond the fields that `Vary` names: all that the origin is told of it.
    fn key(&self, peer: &Peer, head: &RequestHead<'_>) -> KeyBuf {
        let (scheme, authority, target) = (peer.scheme(), head.authority(), head.target());
        if self.edge.trusts(peer.ip()) {
            return claimed_key(scheme, authority, target, &Claims::of(head));
        }
        key(scheme, authority, target)
    }

    /// Answers with a problem; what was done with the request is said as on any answer (RFC 9211).
    async fn refuse(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Option<Fwd>,
        problem: Problem,
    ) -> Result<(), Abort> {
        let name = "cache-status".parse().expect("a field name");
        let said = self.edge.voice.refused(fwd, asked.uri().as_bytes());
        let problem = problem.with_header(name, &said);
        // Without a reason to forward, the problem is not about an origin.
        let problem = if fwd.is_some() { in_place_of_server(problem, exchange.head()) } else { problem };
        exchange.problem(&problem).await
    }
}

impl Handler for Door {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let head = exchange.head();
        if let Some(rest) = head.path().strip_prefix(admin::PREFIX) {
            return Box::pin(admin::handle(&self.edge, exchange, rest)).await;
        }
        let asked = Asked {
            wants: Wants::read(head.fields(), self.edge.loop_id.as_bytes()),
            key: self.key(exchange.peer(), head),
            said: Cell::new("-"),
        };
        if !self.lines.wanted() {
            return self.answer(exchange, &asked).await;
        }
        let began = clock::now();
        let answered = self.answer(exchange, &asked).await;
        self.write_down(exchange, &asked, began, answered.is_ok());
        answered
    }
}

impl Door {
    async fn answer(&self, exchange: &mut Exchange<'_>, asked: &Asked<'_>) -> Result<(), Abort> {
        let head = exchange.head();
        if asked.wants.looped {
            return Box::pin(self.refuse(exchange, asked, None, loop_detected())).await;
        }
        let wants = &asked.wants;
        match head.method() {
            // What overrides the target or method may be answered with anything: it has no key.
            "GET" | "HEAD"
                if wants.alone || wants.body || wants.conditions.for_origin || head.overrides() =>
            {
                Box::pin(self.pass(exchange, asked, Fwd::Bypass)).await
            }
            "GET" => self.get(exchange, asked).await,
            "HEAD" => Box::pin(self.head(exchange, asked)).await,
            _ if head.is_safe() => Box::pin(self.pass(exchange, asked, Fwd::Method)).await,
            _ if self.keeps_answer(exchange, asked) => {
                if !Box::pin(self.post(exchange, asked)).await? {
                    Box::pin(self.write(exchange, asked)).await?;
                }
                Ok(())
            }
            _ => Box::pin(self.write(exchange, asked)).await,
        }
    }

    fn write_down(&self, exchange: &Exchange<'_>, asked: &Asked<'_>, began: Instant, ended: bool) {
        let (head, sent, peer) = (exchange.head(), exchange.sent(), exchange.peer().ip());
        let line = Line {
            at: WallMs::now(),
            client: wire::client(head, peer, |address| self.edge.trusts(address)).address,
            user: None,
            host: head.authority(),
            method: head.method(),
            target: head.target(),
            version: head.version().number(),
            status: sent.status.unwrap_or(499),
            bytes: sent.body_bytes,
            took: clock::now().saturating_duration_since(began),
            referer: head.get("referer"),
            user_agent: head.get("user-agent"),
            outcome: if ended { "answered" } else { "aborted" },
            cache: Some(asked.said.get()),
        };
        self.lines.write(&line, &self.life);
    }
}

/// Starts the child that writes the access log.
pub fn start_log(life: Life) -> Result<Started, StartError> {
    let log = life.env::<Edge>().log.clone();
    access_log::start(life, log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// The room for an answer is made for each request. A hit needs little; what needs much makes its own.
    #[test]
    fn the_way_of_a_hit_takes_little_room() {
        let handle = size_of_future(|door: &'static Door, exchange: &'static mut Exchange<'static>| {
            door.handle(exchange)
        });
        assert!(handle <= 4096, "{handle} bytes");
    }
}
