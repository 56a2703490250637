//! One request, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use messages::problem::Problem;
use messages::sql::{Level, OFFSET_HEADER};

use crate::error::DbError;

/// How a request ended, seen by the one who decides whether to try again.
#[derive(Debug)]
pub(crate) enum Ended {
    /// 200: body and offset.
    Answered(Bytes, String),
    /// It is known not to have run; try again, not before so long.
    NotDone(Duration),
    /// It may have run.
    Unknown,
    /// Final.
    Failed(DbError),
}

/// The pause after an answer that names none.
const PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    /// A connection's events are handled on the thread that opened it, so each thread has connections of its own:
    /// an answer then goes to whoever waits for it without a detour over another thread.
    static CLIENT: reqwest::Client = new_client();
}

/// This thread's client.
pub(crate) fn client() -> reqwest::Client {
    CLIENT.with(Clone::clone)
}

fn new_client() -> reqwest::Client {
    // Several crates of one process may do this; the first wins and all want the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(1))
        .pool_idle_timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client without certificates of its own can be built")
}

pub(crate) async fn batch(base: &str, body: Bytes, patience: Duration, timeout: Duration) -> Ended {
    let target = if patience.is_zero() {
        format!("{base}/db/batch")
    } else {
        format!("{base}/db/batch?until_changed_ms={}&async_commit", patience.as_millis())
    };
    let request = client().post(target).timeout(timeout);
    send(request.header("content-type", "application/json").body(body)).await
}

pub(crate) async fn query(
    base: &str,
    body: Bytes,
    level: Level,
    after: Option<&str>,
    timeout: Duration,
) -> Ended {
    let level = match level {
        Level::Eventual => "eventual",
        Level::Session => "session",
        Level::Strong => "strong",
    };
    let mut request = client().post(format!("{base}/db/query?level={level}")).timeout(timeout);
    if let Some(after) = after {
        request = request.header(OFFSET_HEADER, after);
    }
    send(request.header("content-type", "application/json").body(body)).await
}

async fn send(request: reqwest::RequestBuilder) -> Ended {
    let response = match request.send().await {
        Ok(response) => response,
        // Only a connection that was never made is known not to have carried the request.
        Err(e) if e.is_connect() => return Ended::NotDone(PAUSE),
        Err(_) => return Ended::Unknown,
    };
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let offset = header(OFFSET_HEADER).unwrap_or_default();
    match response.bytes().await {
        Ok(body) if status == 200 => Ended::Answered(body, offset),
        Ok(body) => judge(status, &body),
        Err(_) => Ended::Unknown,
    }
}

/// What an answer other than 200 means. The database says 503 for what was not done, unless it says that it does not
/// know.
fn judge(status: u16, body: &[u8]) -> Ended {
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let kind = problem.as_ref().map_or("", |p| p.kind.as_str());
    let text = problem.as_ref().map_or_else(
        || format!("the database answered {status}"),
        |p| p.detail.clone().unwrap_or_else(|| p.title.clone()),
    );
    match status {
        503 if kind == "/problems/outcome-unknown" => Ended::Unknown,
        503 => {
            let named = problem.as_ref().and_then(|p| p.more.get("retry_after_ms")?.as_u64());
            Ended::NotDone(named.map_or(PAUSE, Duration::from_millis))
        }
        413 => Ended::Failed(DbError::TooLarge(text)),
        400..=499 => Ended::Failed(DbError::Statement(text)),
        _ => Ended::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_did_not_run_may_be_tried_again() {
        let unknown = br#"{"type":"/problems/outcome-unknown","title":"x","status":503}"#;
        assert!(matches!(judge(503, unknown), Ended::Unknown));
        let none = br#"{"type":"/problems/no-primary","title":"x","status":503,"retry_after_ms":50}"#;
        assert!(matches!(judge(503, none), Ended::NotDone(d) if d.as_millis() == 50));
        assert!(matches!(judge(502, b"<html>"), Ended::Unknown));
        assert!(matches!(judge(400, b""), Ended::Failed(DbError::Statement(_))));
        assert!(matches!(judge(413, b""), Ended::Failed(DbError::TooLarge(_))));
    }
}
