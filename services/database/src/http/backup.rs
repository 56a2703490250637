//! `/db/backup`.

use std::io;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use http_support::Error;
use messages::sql::OFFSET_HEADER;

use super::pace::Paced;
use super::{QueryParams, State, door, problem, shared};
use crate::snapshots::{Fetch, NoCopy};

/// The database as one SQLite file, as it is at one moment after the request; its position is inside, and in the answer's
/// head.
pub async fn backup(state: State, request: HttpRequest, params: QueryParams) -> Result<HttpResponse, Error> {
    if let Some(format) = params.fmt.as_deref().filter(|format| !matches!(*format, "" | "binary")) {
        let why = "a backup is a SQLite file: `sqlite3 FILE .dump` makes a text of it";
        return Err(problem::invalid(format!("fmt={format}: {why}")));
    }
    let replica = door::shows_key(&state, request.headers());
    let fetch = state.snapshots.fetch(&shared(&state), replica).await.map_err(|error| {
        if let NoCopy::Failed(why) = &error {
            tracing::error!(instance = state.config.instance, why, "no snapshot could be made");
            return Error::unavailable(
                "storage",
                "no copy of the database can be made: is the disk full?",
                5,
            );
        }
        problem::full(error.to_string())
    })?;
    let (length, token) = (fetch.copy.length, fetch.copy.token);
    let until = clock::now() + Duration::from_millis(state.config.backup_time_ms);
    let body = SizedStream::new(length, pieces(fetch, until));
    let mut response = HttpResponse::Ok();
    response.insert_header((OFFSET_HEADER, token.to_string()));
    Ok(response.content_type("application/vnd.sqlite3").body(body))
}

fn pieces(fetch: Fetch, until: std::time::Instant) -> impl Stream<Item = Result<Bytes, io::Error>> {
    try_unfold((Paced::new(fetch), 0), move |(fetch, offset)| async move {
        if clock::now() > until {
            let text = "the download takes longer than database.backup_time_ms allows";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let copy = fetch.with(|fetch| fetch.copy.clone())?;
        let piece =
            tokio::task::spawn_blocking(move || copy.read_at(offset)).await.map_err(io::Error::other)??;
        let next = offset + piece.len() as u64;
        fetch.moved(piece.len());
        Ok((!piece.is_empty()).then_some((piece, (fetch, next))))
    })
}
