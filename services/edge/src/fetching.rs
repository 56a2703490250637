//! The fetch behind a fill: asks the origins, decides what becomes of the answer, streams it to its readers and into the
//! store. It runs as a linked task of the worker whose client caused it. When the last client that waits for it leaves, it
//! ends: at once, unless its answer is to be stored and so will serve others; then it has a while to end by itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::WallMs;
use futures_util::future::poll_immediate;
use http_support::Error;
use http_support::gateway::{Blame, FetchRequest, Fetched, GATEWAY_ERROR, fetch};

use crate::edge::Edge;
use crate::error::no_origin;
use crate::fill::{End, Head, Outcome, Writer};
use crate::rules::directives::RequestDirectives;
use crate::rules::fields::{Fields, Lines, push_line, without};
use crate::rules::freshness::{Exchanged, Freshness};
use crate::rules::invalidation::{invalidated, is_content_of};
use crate::rules::key::uri_of;
use crate::rules::reuse::{Failed, may_stand_in};
use crate::rules::sharing::FIELD;
use crate::rules::storing::{Asked, NotStored};
use crate::rules::validation::conditions;
use crate::store::{Bounds, Came, Keepable, Moment, Object, Validated};

/// What is fetched, and why.
pub struct Plan {
    /// The cache key.
    pub key: Arc<str>,
    /// `/path?query`.
    pub target: String,
    /// The authority.
    pub host: String,
    /// The request's field lines as they came: `Vary` looks at them.
    pub request: Vec<u8>,
    /// The field lines that are sent, conditions and range aside.
    pub lines: Vec<u8>,
    /// What storing needs to know of the request.
    pub asked: Asked,
    /// `Cache-Control` of the request.
    pub directives: RequestDirectives,
    /// The stored response that is to be validated, and may stand in.
    pub stale: Option<Arc<Object>>,
    /// `Range` and `If-Range` lines: partial content is wanted.
    pub range: Option<Vec<u8>>,
    /// When it began, in the row of purges.
    pub moment: Moment,
    /// The body of a POST, if it is one.
    pub post: Option<Bytes>,
}

/// How long a response that is to be stored may still take when nobody waits for it any more.
const ABANDONED_MAX: Duration = Duration::from_secs(30);

/// What an origin answered.
struct Answer {
    fetched: Fetched,
    at: Exchanged,
    /// A gateway of the stack made it, because no server behind it answered.
    by_gateway: bool,
}

/// Fetches.
pub async fn run(edge: Arc<Edge>, plan: Plan, writer: Writer) {
    if plan.post.is_some() {
        return run_post(&edge, plan, &writer).await;
    }
    let mut conditional = Vec::new();
    if let Some(stale) = &plan.stale {
        conditions(&stale.fields(), &mut conditional);
    }
    let Some(mut answer) = wanted(&writer, Duration::ZERO, ask(&edge, &plan, &writer, &conditional)).await
    else {
        return;
    };
    if let Ok(Answer { fetched, at, .. }) = &answer
        && fetched.head().status() == 304
    {
        if let Some(outcome) = validated(&edge, &plan, fetched, *at) {
            return writer.outcome(outcome, false);
        }
        // RFC 9111 section 4.3.4: a 304 about something else says nothing; ask without conditions.
        let Some(again) = wanted(&writer, Duration::ZERO, ask(&edge, &plan, &writer, &[])).await else {
            return;
        };
        answer = again;
    }
    match answer {
        Err(problem) => failed(&edge, &plan, &writer, Failed::Unreachable, None)
            .unwrap_or_else(|| writer.outcome(Outcome::Failed(problem), false)),
        Ok(answer) => {
            let status = answer.fetched.head().status();
            let how = Failed::of(status, answer.by_gateway);
            if how.is_some_and(|how| failed(&edge, &plan, &writer, how, Some(status)).is_some()) {
                return;
            }
            stream(&edge, &plan, &writer, answer).await;
        }
    }
}

/// A write: what it makes untrue is forgotten before the client has its answer (RFC 9111 section 4.4); then its answer is
/// stored, if it is the content of this very URI and says how long it holds (RFC 9110 section 9.3.3).
async fn run_post(edge: &Edge, mut plan: Plan, writer: &Writer) {
    let answer = match ask(edge, &plan, writer, &[]).await {
        Ok(answer) => answer,
        Err(problem) => return writer.outcome(Outcome::Failed(problem), false),
    };
    let uri = uri_of(&plan.key).to_owned();
    // Another write while this one was under way: which of them came last at the origin nobody knows.
    let is_last = edge.store.is_untouched(&plan.key, &[], plan.moment);
    let head = answer.fetched.head().borrow();
    for uri in invalidated(&uri, head.status(), &head) {
        edge.fills.detach(&uri);
        edge.store.forget(&uri);
    }
    let is_content = is_last && head.status() == 200 && is_content_of(&uri, &head);
    plan.asked.get = is_content;
    plan.moment = edge.store.moment();
    stream(edge, &plan, writer, answer).await;
}

/// Asks one origin after another.
async fn ask(edge: &Edge, plan: &Plan, writer: &Writer, more: &[u8]) -> Result<Answer, Error> {
    let lines = [&plan.lines, plan.range.as_deref().unwrap_or_default(), more].concat();
    let servers = edge.origins.order(WallMs::now());
    let (last, timeouts) = (servers.len().saturating_sub(1), edge.timeouts());
    let mut problem = no_origin();
    for (n, server) in servers.iter().enumerate() {
        let requested_at = WallMs::now();
        let mut interim = |status: u16, lines: &[u8]| writer.interim(status, lines);
        let request = FetchRequest {
            method: if plan.post.is_some() { "POST" } else { "GET" },
            target: &plan.target,
            host: &plan.host,
            lines: &lines,
            body: plan.post.clone(),
            on_informational: Some(&mut interim),
        };
        match fetch(&server.origin, request, &timeouts).await {
            Ok(fetched) => {
                edge.telemetry.origin_answered(server.address);
                let by_gateway = server.is_ours && fetched.head().borrow().first(GATEWAY_ERROR).is_some();
                let status = fetched.head().status();
                // A gateway of ours that has nobody to ask has not begun; all else may have.
                let may_repeat = edge.config.retry_on_error && plan.post.is_none();
                let repeats = by_gateway && status == 503 || may_repeat && status >= 502;
                if n < last && repeats && status <= 504 {
                    continue;
                }
                let at = Exchanged { requested_at, received_at: WallMs::now() };
                return Ok(Answer { fetched, at, by_gateway });
            }
            Err(error) => {
                if error.blame() == Blame::Upstream {
                    edge.origins.failed(server, WallMs::now());
                }
                edge.telemetry.origin_failed(&server.address.to_string(), &error);
                problem = error.problem();
                if !error.repeatable {
                    break; // it may be at work on it: nobody else is asked for the same
                }
            }
        }
    }
    Err(problem)
}

/// A 304: the stored response it is about is fresh again.
fn validated(edge: &Edge, plan: &Plan, fetched: &Fetched, at: Exchanged) -> Option<Outcome> {
    let stale = plan.stale.as_ref()?;
    let lines = kept_lines(edge, fetched);
    let came = came(plan, fetched, &lines, at);
    let Validated { object, own, kept } = came.validates(stale, edge.rules())?;
    let answer = |object, shared| {
        let own = Bytes::from(own.clone());
        Some(Outcome::Stored { object, status: Some(304), shared, own })
    };
    if let Err(reason) = kept {
        edge.telemetry.not_stored(&plan.key, reason);
        edge.store.remove_variant(&plan.key, stale); // the origin says otherwise now
        return answer(Arc::new(object), false);
    }
    // One that answers another request now is stored beside the old one, with which it shares the body.
    match edge.store.put(&plan.key, object, Some(stale), plan.moment) {
        Ok(stored) => answer(stored, true),
        Err(reason) => {
            edge.telemetry.not_stored(&plan.key, reason);
            let again = came.validates(stale, edge.rules())?;
            answer(Arc::new(again.object), true)
        }
    }
}

fn came<'c>(plan: &'c Plan, fetched: &Fetched, lines: &'c [u8], at: Exchanged) -> Came<'c> {
    Came {
        asked: plan.asked,
        request: &plan.request,
        ranged: plan.range.is_some(),
        status: fetched.head().status(),
        length: fetched.head().content_length(),
        lines,
        at,
    }
}

/// The origin failed: a stale response may stand in for it.
fn failed(edge: &Edge, plan: &Plan, writer: &Writer, how: Failed, status: Option<u16>) -> Option<()> {
    let stale = plan.stale.as_ref()?;
    let limit = edge.config.stand_in_max_s;
    if !may_stand_in(&stale.freshness, &plan.directives, how, limit, WallMs::now()) {
        return None;
    }
    edge.telemetry.stood_in(&plan.key);
    let object = Arc::clone(stale);
    writer.outcome(Outcome::Stored { object, status, shared: true, own: Bytes::new() }, false);
    Some(())
}

/// End-to-end fields, and who passed them on (RFC 9110 section 7.6.3).
fn kept_lines(edge: &Edge, fetched: &Fetched) -> Vec<u8> {
    let head = fetched.head().borrow();
    let mut lines = Vec::with_capacity(512);
    head.end_to_end_lines(&mut lines, |_| false);
    push_line(&mut lines, b"Via", format!("{} {}", head.version().number(), edge.instance).as_bytes());
    lines
}

/// Passes the response to its readers, and stores it if it may be.
async fn stream(edge: &Edge, plan: &Plan, writer: &Writer, answer: Answer) {
    let Answer { fetched, at, by_gateway } = answer;
    let lines = kept_lines(edge, &fetched);
    let bounds = Bounds { bytes_max: edge.config.object_bytes_max, tags_max: edge.store.tags_max() };
    let kept = came(plan, &fetched, &lines, at).keepable(edge.rules(), bounds);
    if let Err(reason) = &kept {
        edge.telemetry.not_stored(&plan.key, *reason);
        if *reason != NotStored::RequestNoStore
            && fetched.head().status() < 500
            && let Some(stale) = &plan.stale
        {
            edge.store.remove_variant(&plan.key, stale); // the origin has another answer now
        }
    }
    let ttl = |kept: &Keepable| {
        Freshness::new(&kept.policy, &Lines(&kept.lines), kept.status, kept.at).ttl(kept.at.received_at)
    };
    // Another edge that asks this one decides for itself what it shares.
    let for_edge = Lines(&plan.request).first("cdn-loop").is_some();
    let lines = without(&lines, |name| {
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        (is(FIELD) && !for_edge) || (is(GATEWAY_ERROR) && !(for_edge && by_gateway))
    });
    let head = Head {
        status: fetched.head().status(),
        lines: lines.into(),
        length: fetched.head().content_length(),
        shared: kept.as_ref().ok().filter(|_| plan.range.is_none()).map(|kept| kept.selecting.clone()),
        for_everybody: kept.as_ref().is_ok_and(|kept| kept.policy.is_for_everybody()),
        stored_ttl: kept.as_ref().ok().map(ttl),
    };
    let length = head.length;
    writer.outcome(Outcome::Stream(Arc::new(head)), kept.is_ok());
    pump(edge, plan, writer, fetched, kept.ok(), length).await;
}

async fn pump(
    edge: &Edge,
    plan: &Plan,
    writer: &Writer,
    mut fetched: Fetched,
    mut kept: Option<Keepable>,
    length: Option<u64>,
) {
    let mut bytes = 0;
    while writer.room().await {
        let grace = if kept.is_some() { ABANDONED_MAX } else { Duration::ZERO };
        let Some(chunk) = wanted(writer, grace, telling(writer, fetched.chunk())).await else {
            return writer.end(End::Broken);
        };
        match chunk {
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                writer.push(chunk);
                let too_much = match &kept {
                    Some(_) if bytes > edge.config.object_bytes_max => Some(NotStored::TooLarge),
                    Some(_) if writer.bytes_of_all() > edge.config.fills_bytes_max => {
                        Some(NotStored::Crowded)
                    }
                    _ => None,
                };
                if let Some(reason) = too_much {
                    kept = None;
                    edge.telemetry.not_stored(&plan.key, reason);
                    writer.give_up_storing();
                }
            }
            Ok(None) => {
                let whole = length.is_none_or(|length| length == bytes);
                match kept {
                    Some(kept) if whole => store(edge, plan, &kept, writer.body()),
                    Some(_) => edge.telemetry.not_stored(&plan.key, NotStored::Incomplete),
                    None => {}
                }
                let trailers = Bytes::copy_from_slice(fetched.trailers());
                return writer.end(if whole { End::Whole(trailers) } else { End::Broken });
            }
            Err(error) => {
                edge.telemetry.origin_failed(&plan.host, &error);
                if kept.is_some() {
                    edge.telemetry.not_stored(&plan.key, NotStored::Incomplete);
                }
                return writer.end(End::Broken);
            }
        }
    }
}

/// Does `work` for as long as somebody waits for it, or has until lately.
async fn wanted<T>(writer: &Writer, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = writer.abandoned(grace) => None,
    }
}

/// The next part; if it is not here yet, those who wait read what there is.
async fn telling<T>(writer: &Writer, next: impl Future<Output = T>) -> T {
    let mut next = std::pin::pin!(next);
    if let Some(part) = poll_immediate(next.as_mut()).await {
        return part;
    }
    writer.tell();
    next.await
}

fn store(edge: &Edge, plan: &Plan, kept: &Keepable, body: Bytes) {
    let put = Object::new(kept, body)
        .and_then(|object| edge.store.put(&plan.key, object, plan.stale.as_ref(), plan.moment));
    match put {
        Ok(_) => edge.telemetry.stored(&plan.key),
        Err(reason) => edge.telemetry.not_stored(&plan.key, reason),
    }
}
