//! Passes on an upstream server's answer compressed, as it streams.
//!
//! Only here is an answer changed on its way; all others go by the gateway's own path, which does not look at bodies.

use std::cell::RefCell;

use http_support::gateway::{Abort, Exchange, FetchRequest, Fetched, ForwardError, fetch, response_lasts};
use http_support::wire::{
    Forwarding, Framing, OwnedResponseHead, RequestHead, ResponseHead, Scheme, is_override, is_spelling_of,
};
use tokio::sync::Notify;

use crate::coding::Coding;
use crate::compress::{Effort, Encoder, WORTH_BYTES};
use crate::fields::Asked;
use crate::front::Front;
use crate::media;
use crate::private;
use crate::proxy::{Errand, Seen, USER_FIELD};
use crate::site::Site;
use crate::tags::{self, Conditions};

use upstream::{Attempts, Member, Place as Seat};

/// A piece smaller than this is all there was to read: it is not kept back for better compression.
const PROMPT_BYTES: usize = 16 << 10;

/// Why an answer was not passed on to its end.
#[derive(Debug)]
pub enum Trouble {
    /// The server's doing.
    Upstream(ForwardError),
    /// The client's.
    Client(Abort),
    /// The answer had begun when the server failed: the client must see that it is cut short.
    CutShort,
    /// The content is in no coding that the client takes, and cannot be made one.
    NotAcceptable(Seen),
}

impl From<Abort> for Trouble {
    fn from(abort: Abort) -> Self {
        Self::Client(abort)
    }
}

/// In which coding a client gets content, and what that makes of the conditions of its request.
#[derive(Debug, Default)]
pub struct Content {
    /// What the answer is compressed with, if it may be.
    pub coding: Option<Coding>,
    /// The client refuses content as it is.
    pub refuses_identity: bool,
    /// `If-None-Match` and `If-Match` in the server's words.
    pub conditions: Conditions,
}

impl Content {
    /// Nothing is to be done with the answer.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.coding.is_none() && !self.refuses_identity
    }
}

/// In which coding this request is answered. One that asks for a range gets one of the content as the server has it,
/// unless it refuses that.
#[must_use]
pub fn content_for(head: &RequestHead<'_>, site: &Site, asked: &Asked<'_>) -> Content {
    let reads = matches!(head.method(), "GET" | "HEAD");
    let plain = reads && head.framing() == Framing::None && head.upgrade().is_none();
    let accepted = asked.accepted();
    let is_changed = site.compress && plain && !has_no_transform(head.get_all("cache-control"));
    let refuses_identity = is_changed && !accepted.takes_identity();
    let in_part = asked.range.is_some() && !refuses_identity;
    let coding = accepted.compression().filter(|_| is_changed && !in_part);
    Content { coding, refuses_identity, conditions: Conditions::of(&asked.preconditions, reads, coding) }
}

/// Whether an answer may be compressed, and would get smaller.
fn is_transformable(head: &ResponseHead<'_>) -> bool {
    head.content_length().is_none_or(|length| length >= WORTH_BYTES)
        && depends_on_codings(head)
        && head.status() == 200
}

/// Whether another client would have got this answer compressed: what depends on `Accept-Encoding` here. Of a part it is
/// not known how long the whole is.
#[must_use]
pub fn depends_on_codings(head: &ResponseHead<'_>) -> bool {
    let is_long = head.content_length().is_none_or(|length| length >= WORTH_BYTES);
    (head.status() == 206 || head.status() == 200 && is_long)
        && head.get("content-encoding").is_none()
        && head.get("content-type").is_some_and(media::is_compressible)
        && !has_no_transform(head.get_all("cache-control"))
}

/// Whether an answer has content that may be put in a coding because the client takes it in no other way.
fn is_in_no_coding(head: &ResponseHead<'_>) -> bool {
    head.status() == 200 && head.get("content-encoding").is_none() && head.content_length() != Some(0)
}

/// Whether the answer says already that it depends on what codings the client takes.
#[must_use]
pub fn varies(head: &ResponseHead<'_>) -> bool {
    let mut members = head.get_all("vary").flat_map(|line| line.split(|byte| *byte == b','));
    members.any(|member| {
        matches!(member.trim_ascii(), b"*") || member.trim_ascii().eq_ignore_ascii_case(b"accept-encoding")
    })
}

/// RFC 9111 section 5.2.2.6.
fn has_no_transform<'b>(mut lines: impl Iterator<Item = &'b [u8]>) -> bool {
    lines.any(|line| {
        line.split(|byte| *byte == b',')
            .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    })
}

impl Front {
    /// One attempt at one server.
    pub(crate) async fn fetch_transformed(
        &self,
        exchange: &mut Exchange<'_>,
        errand: &Errand<'_>,
        attempts: &Attempts<'_>,
        seat: &Seat<'_>,
    ) -> Result<Seen, Trouble> {
        let (head, peer, member) = (exchange.head(), exchange.peer(), &seat.member);
        let scheme = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let forwarding = Forwarding::new("web", peer.ip(), scheme, self.trusts(peer.ip()));
        let begun = clock::now();
        let fetched = self.fetch(exchange, errand, attempts, member, &forwarding).await?;
        let first_byte = clock::now().saturating_duration_since(begun);
        let response = fetched.head();
        let seen = Seen { status: response.status(), first_byte };
        let Some(coding) = made(&response.borrow(), &errand.content) else {
            return Err(Trouble::NotAcceptable(seen));
        };
        let mut lines = lines(response, errand, &forwarding, coding);
        attempts.response_line(member, errand.over_tls, &mut lines);
        if response_lasts(&response.borrow()) {
            seat.lengthen();
            exchange.lengthen().map_err(Trouble::Upstream)?;
        }
        match coding {
            Some(_) if head.method() == "HEAD" => heading(exchange, 200, &lines, None).await?,
            Some(coding) => compress(exchange, fetched, &lines, coding).await?,
            None => relay(exchange, fetched, &lines, head.method()).await?,
        }
        Ok(seen)
    }

    /// Sends the request; meanwhile passes interim answers on (103, RFC 8297).
    async fn fetch(
        &self,
        exchange: &mut Exchange<'_>,
        errand: &Errand<'_>,
        attempts: &Attempts<'_>,
        member: &Member,
        forwarding: &Forwarding,
    ) -> Result<Fetched, Trouble> {
        let head = exchange.head();
        let mut request_lines = Vec::with_capacity(1024);
        let guarded = attempts.drop_request(&errand.replaced());
        let drops_underscores = !(errand.site.underscores || attempts.pool.config.underscores);
        let left_out = |name: &[u8]| {
            (drops_underscores && name.contains(&b'_'))
                || (!errand.site.overrides && is_override(name))
                || guarded.iter().any(|known| is_spelling_of(name, known))
                || (errand.content.refuses_identity && is_of_range(name))
        };
        head.end_to_end_lines(&mut request_lines, left_out);
        request_lines.extend_from_slice(&errand.content.conditions.lines);
        forwarding.lines_for(head, errand.site.overrides, &mut request_lines);
        request_lines.extend_from_slice(attempts.request_lines());
        if let Some(user) = errand.user {
            request_lines.extend_from_slice(format!("{USER_FIELD}: {user}\r\n").as_bytes());
        }
        let (interim, news) = (RefCell::new(Vec::new()), Notify::new());
        let mut on_informational = |status: u16, lines: &[u8]| {
            interim.borrow_mut().push((status, lines.to_vec()));
            news.notify_one();
        };
        let request = FetchRequest {
            method: head.method(),
            target: errand.target.as_deref().unwrap_or(head.target()),
            host: head.authority(),
            lines: &request_lines,
            body: None,
            on_informational: Some(&mut on_informational),
        };
        let timeouts = attempts.pool.timeouts;
        let mut fetching = std::pin::pin!(fetch(&member.origin, request, &timeouts));
        loop {
            let fetched = tokio::select! {
                biased;
                () = news.notified() => None,
                fetched = &mut fetching => Some(fetched),
            };
            for (status, lines) in interim.take() {
                exchange.informational(status, &lines).await?;
            }
            if let Some(fetched) = fetched {
                return fetched.map_err(Trouble::Upstream);
            }
        }
    }
}

/// The coding that the answer is put in, if it is; `None`: the client takes it in none that it could be in.
fn made(response: &ResponseHead<'_>, content: &Content) -> Option<Option<Coding>> {
    if !content.refuses_identity {
        return Some(content.coding.filter(|_| is_transformable(response)));
    }
    if !is_in_no_coding(response) {
        return Some(None);
    }
    let may_be_changed = !has_no_transform(response.get_all("cache-control"));
    content.coding.filter(|_| may_be_changed).map(Some)
}

/// A range is one of the content as the server has it: who refuses that gets the whole.
fn is_of_range(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"range") || name.eq_ignore_ascii_case(b"if-range")
}

/// The field lines of the answer, changed as far as its content is.
fn lines(
    response: &OwnedResponseHead,
    errand: &Errand<'_>,
    forwarding: &Forwarding,
    coding: Option<Coding>,
) -> Vec<u8> {
    let response = response.borrow();
    let mut lines = Vec::with_capacity(1024);
    // A range of compressed content is not one of what the server has; its tag and digests name other bytes.
    let changed: &[&str] = match coding {
        Some(_) => &["etag", "accept-ranges", "content-length", "content-md5", "content-digest", "digest"],
        None if response.status() == 304 => &["etag", "content-length"],
        None => &["content-length"],
    };
    let unchanged = errand.content.coding.filter(|_| response.status() == 304);
    let left_out = changed.iter().chain(errand.left_out());
    response.end_to_end_lines(&mut lines, |name| {
        left_out.clone().any(|it| name.eq_ignore_ascii_case(it.as_bytes()))
    });
    if errand.private {
        lines.extend_from_slice(&private::cache_control_of(&response));
    }
    forwarding.via_line(response.version(), &mut lines);
    if let Some(coding) = coding {
        lines.extend_from_slice(format!("content-encoding: {}\r\n", coding.name()).as_bytes());
    }
    let etag = response.get("etag").and_then(|etag| match (coding, unchanged) {
        (Some(coding), _) => tags::coded(etag, coding),
        (None, Some(coding)) => errand.content.conditions.tag_of_304(etag, coding),
        (None, None) => (response.status() == 304).then(|| etag.to_vec()),
    });
    if let Some(etag) = &etag {
        lines.extend_from_slice(&[b"etag: ", &etag[..], b"\r\n"].concat());
    }
    let is_ours = coding.is_some() || etag.as_deref().is_some_and(|etag| tags::of_server(etag).is_some());
    if (is_ours || depends_on_codings(&response)) && !varies(&response) {
        lines.extend_from_slice(b"vary: accept-encoding\r\n");
    }
    lines.extend_from_slice(&errand.site.standing.missing(|name| response.get(name).is_some()));
    lines.extend_from_slice(errand.extra);
    lines
}

async fn compress(
    exchange: &mut Exchange<'_>,
    mut fetched: Fetched,
    lines: &[u8],
    coding: Coding,
) -> Result<(), Trouble> {
    let mut encoder = Encoder::new(coding, Effort::Once).map_err(|_| Trouble::CutShort)?;
    exchange.start(200, lines, None).await?;
    while let Some(piece) = next(&mut fetched).await? {
        let ready = encoder.push(&piece, piece.len() < PROMPT_BYTES).map_err(|_| Trouble::CutShort)?;
        if !ready.is_empty() {
            exchange.write(&ready).await?;
        }
    }
    let end = encoder.finish().map_err(|_| Trouble::CutShort)?;
    if !end.is_empty() {
        exchange.write(&end).await?;
    }
    exchange.finish(fetched.trailers()).await?;
    Ok(())
}

/// The head of a content that is not sent.
async fn heading(
    exchange: &mut Exchange<'_>,
    status: u16,
    lines: &[u8],
    length: Option<u64>,
) -> Result<(), Trouble> {
    exchange.start(status, lines, length).await?;
    exchange.finish(b"").await?;
    Ok(())
}

/// What was fetched to be compressed and is not to be.
async fn relay(
    exchange: &mut Exchange<'_>,
    mut fetched: Fetched,
    lines: &[u8],
    method: &str,
) -> Result<(), Trouble> {
    let status = fetched.head().status();
    if method == "HEAD" {
        return heading(exchange, status, lines, fetched.head().content_length()).await;
    }
    let length = match fetched.head().framing(method) {
        Framing::None => {
            exchange.respond(status, lines, b"").await?;
            return Ok(());
        }
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
    };
    exchange.start(status, lines, length).await?;
    while let Some(piece) = next(&mut fetched).await? {
        exchange.write(&piece).await?;
    }
    exchange.finish(fetched.trailers()).await?;
    Ok(())
}

async fn next(fetched: &mut Fetched) -> Result<Option<bytes::Bytes>, Trouble> {
    fetched.chunk().await.map_err(|_| Trouble::CutShort)
}
