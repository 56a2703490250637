//! `POST /v1/jobs:bulk`: NDJSON in, NDJSON out, an outcome a line, in order.
//!
//! Lines are stored in transactions of up to `bulk_rows_max`, a few on their way at a time while more are read. Each
//! line stands alone: one that cannot be is told and the others are stored. Memory is bounded: lines that wait to be
//! stored, and outcomes that the client has not read; at the bound the request is not read further.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderMap};
use bytes::Bytes;
use clock::WallMs;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use http_support::{BodyReader, Error, trace_of};
use jobstore::{Error as StoreError, NewJob};
use tokio::sync::{Notify, mpsc};

use super::{Answer, submit};
use crate::error::to_http;
use crate::intake::store_all;
use crate::lines::{Line, Lines};
use crate::state::{App, Call};
use crate::submission;

/// Transactions of one request on their way at the same time: one is being stored while the next is filled.
const IN_FLIGHT_MAX: usize = 3;
/// Bytes of payload in one transaction, about; a single larger job goes alone.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Pieces of outcomes on their way to the client; their bytes are what is bounded.
const PIECES_MAX: usize = 65_536;

/// See the module.
pub async fn many(call: Call) -> Answer {
    let Call { app, life, request, payload, .. } = call;
    require_ndjson(request.headers())?;
    if request.headers().contains_key("idempotency-key") {
        let detail = "`Idempotency-Key` is for one job; here the outcome of each line is told";
        return Err(Error::bad_request("invalid-idempotency-key", detail));
    }
    let Ok(slot) = Arc::clone(&app.bulk_slots).try_acquire_owned() else {
        let detail = format!("{} bulk requests are being read already", app.config.bulk_streams_max);
        return Err(Error::too_many("too-many-bulk-requests", detail, 1));
    };
    let traceparent = request.headers().contains_key("traceparent").then(|| trace_of(&request).to_string());
    let client = app.client_of(&request);
    let (outcomes, mut pieces) = Outcomes::channel(app.config.bulk_outcomes_bytes_max);
    let reader = BodyReader::new(payload, &app.limits);
    life.spawn_linked(async move {
        let _slot = slot;
        Bulk::new(app, client, traceparent, outcomes).run(reader).await;
    });
    // The first piece decides between an error answer and a stream.
    let first = pieces.next().await.transpose()?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_TYPE, "application/x-ndjson"));
    Ok(match first {
        Some(first) => answer.streaming(futures_util::stream::once(async { Ok(first) }).chain(pieces)),
        None => answer.finish(), // no lines, no outcomes
    })
}

fn require_ndjson(headers: &HeaderMap) -> Result<(), Error> {
    const ACCEPTED: [&str; 4] =
        ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-lines"];
    http_support::require_media_type(headers, |essence| ACCEPTED.contains(&essence)).map_err(|got| {
        let detail = format!("send `content-type: application/x-ndjson`; this request has {got}");
        Error::unsupported_media_type(detail)
    })
}

/// The way of outcomes to the client: unbounded in pieces (nearly), bounded in bytes.
#[derive(Clone)]
struct Outcomes {
    send: mpsc::Sender<Result<Bytes, Error>>,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    bytes: AtomicUsize,
    bytes_max: usize,
    read: Notify,
}

impl Outcomes {
    fn channel(bytes_max: usize) -> (Self, impl StreamExt<Item = Result<Bytes, Error>> + Unpin + 'static) {
        let (send, receive) = mpsc::channel(PIECES_MAX);
        let held = Arc::new(Held { bytes_max, ..Held::default() });
        let reader = Arc::clone(&held);
        let pieces = futures_util::stream::unfold((receive, reader), async |(mut receive, held)| {
            let piece: Result<Bytes, Error> = receive.recv().await?;
            held.bytes.fetch_sub(piece.as_ref().map_or(0, Bytes::len), Relaxed);
            held.read.notify_one();
            Some((piece, (receive, held)))
        });
        (Self { send, held }, Box::pin(pieces))
    }

    fn has_room(&self) -> bool {
        self.held.bytes.load(Relaxed) < self.held.bytes_max && self.send.capacity() > 0
    }

    /// False when the client is gone.
    async fn tell(&self, piece: Result<Bytes, Error>) -> bool {
        self.held.bytes.fetch_add(piece.as_ref().map_or(0, Bytes::len), Relaxed);
        self.send.send(piece).await.is_ok()
    }
}

/// A line that was checked: a job to store, or why it cannot be.
struct Checked {
    line: u64,
    job: Result<NewJob, Error>,
}

/// Lines that are stored together, and what became of it.
struct Stored {
    lines: Vec<(u64, Result<uuid::Uuid, Error>)>,
    outcome: Result<(), StoreError>,
}

struct Bulk {
    app: Arc<App>,
    client: IpAddr,
    traceparent: Option<String>,
    outcomes: Outcomes,
    lines: Lines,
    waiting: VecDeque<Checked>,
    waiting_bytes: usize,
    /// The body has come to its end, so what is left without a line's end is a line.
    whole: bool,
    told: bool,
}

impl Bulk {
    fn new(app: Arc<App>, client: IpAddr, traceparent: Option<String>, outcomes: Outcomes) -> Self {
        let lines = Lines::new(app.config.job_bytes_max);
        let waiting = VecDeque::new();
        Self {
            app,
            client,
            traceparent,
            outcomes,
            lines,
            waiting,
            waiting_bytes: 0,
            whole: false,
            told: false,
        }
    }

    async fn run(mut self, mut reader: BodyReader) {
        let mut in_flight = FuturesOrdered::new();
        let (mut ended, mut broken) = (false, None);
        let outcomes = self.outcomes.clone();
        loop {
            self.fill();
            while in_flight.len() < IN_FLIGHT_MAX
                && let Some(batch) = self.take_batch()
            {
                in_flight.push_back(store(Arc::clone(&self.app), batch));
                self.fill();
            }
            if ended && in_flight.is_empty() {
                break;
            }
            let reads = !ended && !self.is_full();
            tokio::select! {
                biased;
                Some(stored) = in_flight.next(), if !in_flight.is_empty() => {
                    if !self.tell(stored).await {
                        return;
                    }
                    // Lines that cannot be stored need no waiting, and a million of them are a long time for whoever
                    // else is served by this thread.
                    tokio::task::yield_now().await;
                }
                piece = reader.next(), if reads && outcomes.has_room() => match piece {
                    Some(Ok(piece)) => self.lines.feed(&piece),
                    end => {
                        ended = true;
                        broken = end.and_then(Result::err);
                        // Of a body that broke off the last line may be half a line.
                        self.whole = broken.is_none();
                    }
                },
                () = outcomes.held.read.notified(), if reads && !outcomes.has_room() => {}
                () = outcomes.send.closed() => return,
            }
        }
        if let Some(error) = broken {
            self.tell_broken(error).await;
        }
    }

    /// As much as is stored at once waits; further lines stay text until there is room, however many a piece brings.
    fn is_full(&self) -> bool {
        self.waiting.len() >= self.app.config.bulk_rows_max || self.waiting_bytes >= BATCH_BYTES_MAX
    }

    /// Checks lines that have arrived, until enough of them wait.
    fn fill(&mut self) {
        let now = self.app.jobs.now();
        while !self.is_full() {
            let last = if self.whole { Lines::last_line } else { |_: &mut Lines| None };
            let Some(line) = self.lines.next_line().or_else(|| last(&mut self.lines)) else { return };
            self.check(line, now);
        }
    }

    fn check(&mut self, line: Line, now: WallMs) {
        let checked = match line {
            Line::TooLong(line) => {
                Checked { line, job: Err(Error::too_large("a line", self.app.config.job_bytes_max)) }
            }
            Line::Text(line, text) => {
                self.waiting_bytes += text.len();
                let job = submission::read(&text, &self.app.rules, now).and_then(|mut job| {
                    submit::admit(&self.app, &job, self.client)?;
                    job.traceparent.clone_from(&self.traceparent);
                    Ok(job)
                });
                Checked { line, job }
            }
        };
        self.waiting.push_back(checked);
    }

    /// What waits, up to the bounds of a transaction.
    fn take_batch(&mut self) -> Option<Vec<Checked>> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while batch.len() < self.app.config.bulk_rows_max && bytes < BATCH_BYTES_MAX {
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next.job.as_ref().map_or(0, |job| job.payload.len());
            batch.push(next);
        }
        if self.waiting.is_empty() {
            self.waiting_bytes = 0;
        } else {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Tells what became of a batch. False when there is nobody to tell, or when it makes no sense to go on.
    async fn tell(&mut self, Stored { lines, outcome }: Stored) -> bool {
        let failed = outcome.as_ref().err().map(|error| to_http(error, "job"));
        if let (Some(error), false) = (&failed, self.told) {
            // Nothing was answered yet, so the whole request can be refused in the usual way.
            self.outcomes.tell(Err(error.clone())).await;
            return false;
        }
        let mut text = String::with_capacity(lines.len() * 72);
        for (line, job) in &lines {
            let answer = match (job, &failed) {
                (Ok(id), None) => writeln!(text, r#"{{"line":{line},"status":202,"id":"{id}"}}"#),
                (Ok(id), Some(error)) => {
                    error_line(&mut text, *line, &error.clone().with("job", id.to_string()))
                }
                (Err(error), _) => error_line(&mut text, *line, error),
            };
            let _ = answer; // writing to a String cannot fail
        }
        if failed.is_some() {
            let after = lines.last().map_or(0, |(line, _)| *line);
            let detail = format!("lines after {after} were not stored; send them again");
            let _ = error_line(&mut text, after + 1, &Error::unavailable("not-attempted", detail, 1));
        }
        self.told = true;
        self.outcomes.tell(Ok(Bytes::from(text))).await && failed.is_none()
    }

    /// The body broke off: whole lines were stored, which the client may still be there to hear.
    async fn tell_broken(&mut self, error: Error) {
        if !self.told {
            self.outcomes.tell(Err(error)).await;
            return;
        }
        let mut text = String::new();
        let _ = error_line(&mut text, 0, &error);
        self.outcomes.tell(Ok(Bytes::from(text))).await;
    }
}

fn error_line(text: &mut String, line: u64, error: &Error) -> std::fmt::Result {
    let problem = serde_json::to_string(error.problem()).unwrap_or_default();
    writeln!(text, r#"{{"line":{line},"status":{},"error":{problem}}}"#, error.problem().status)
}

/// Stores the jobs of a batch in one transaction, and follows up on the commit. A batch that the database refuses is
/// halved, and its halves again: one line that it does not take is told on that line, and the others are stored.
async fn store(app: Arc<App>, batch: Vec<Checked>) -> Stored {
    let mut jobs = Vec::with_capacity(batch.len());
    let mut lines = Vec::with_capacity(batch.len());
    for Checked { line, job } in batch {
        lines.push((line, job.as_ref().map(|job| job.id).map_err(Error::clone)));
        jobs.extend(job);
    }
    let mut parts = if jobs.is_empty() { Vec::new() } else { vec![jobs.as_slice()] };
    while let Some(part) = parts.pop() {
        match store_all(&app, part).await {
            Ok(_) => {}
            Err(error) if error.retryable() => return Stored { lines, outcome: Err(error) },
            Err(_) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => {
                let refused = part.first().map(|job| job.id);
                for (_, job) in lines.iter_mut().filter(|(_, job)| job.as_ref().ok() == refused.as_ref()) {
                    *job = Err(to_http(&error, "job"));
                }
            }
        }
    }
    Stored { lines, outcome: Ok(()) }
}
