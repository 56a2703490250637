//! One request, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use messages::problem::Problem;
use messages::sql::Level;

use crate::Readiness;
use crate::connection::{self, Answer, Lost};
use crate::endpoints::Endpoint;
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

pub(crate) async fn batch(to: &Endpoint, body: Bytes, patience: Duration, timeout: Duration) -> Ended {
    if patience.is_zero() {
        return send(to, "/db/batch", None, body, timeout).await;
    }
    let target = format!("/db/batch?until_changed_ms={}&async_commit", patience.as_millis());
    send(to, &target, None, body, timeout).await
}

pub(crate) async fn query(
    to: &Endpoint,
    body: Bytes,
    level: Level,
    after: Option<&str>,
    timeout: Duration,
) -> Ended {
    let target = match level {
        Level::Eventual => "/db/query?level=eventual",
        Level::Session => "/db/query?level=session",
        Level::Weak => "/db/query?level=weak",
        Level::Strong => "/db/query?level=strong",
    };
    send(to, target, after, body, timeout).await
}

/// What a replica says that works; nothing if it does not answer that.
pub(crate) async fn readiness(from: &Endpoint, timeout: Duration) -> Option<Readiness> {
    let answer = tokio::time::timeout(timeout, connection::get(from, "/readyz?writes")).await.ok()?.ok()?;
    // Not ready is 503, with the same members.
    serde_json::from_slice(&answer.body).ok()
}

async fn send(to: &Endpoint, target: &str, after: Option<&str>, body: Bytes, timeout: Duration) -> Ended {
    match tokio::time::timeout(timeout, connection::post(to, target, after, body)).await {
        Ok(Ok(Answer { status: 200, offset, body })) => Ended::Answered(body, offset),
        Ok(Ok(answer)) => judge(answer.status, &answer.body),
        Ok(Err(Lost::NothingSent)) => Ended::NotDone(PAUSE),
        Ok(Err(Lost::OnTheWay)) | Err(_) => Ended::Unknown,
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
        // It was started again and has another key, which discovery tells in a moment. Nothing was read, so nothing done.
        401 => Ended::NotDone(PAUSE),
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
        assert!(matches!(judge(401, b""), Ended::NotDone(_)), "its new key is about to be heard");
        assert!(matches!(judge(400, b""), Ended::Failed(DbError::Statement(_))));
        assert!(matches!(judge(413, b""), Ended::Failed(DbError::TooLarge(_))));
    }
}
