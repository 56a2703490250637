//! `/db/restore`, and `/db/staged`, by which replicas hand each other the file of a restore.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use http_support::{BodyReader, Error, require_media_type};
use messages::sql::OFFSET_HEADER;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{QueryParams, State, door, forward, problem, shared};
use crate::entry::Restore;
use crate::peers;
use crate::recovery::{self, Reached, Until};
use crate::restore::{self, NotRestored, Restored, length};
use crate::sqlite::import::Unusable;
use crate::staging::NoRoom;
use crate::state::{Role, Shared, WriteError};

/// Media types of a SQLite file; a form that a web page sends without asking has another.
pub(super) const TYPES: &[&str] =
    &["application/vnd.sqlite3", "application/x-sqlite3", "application/octet-stream"];
/// Bytes a second that an upload must bring on average, once [`PATIENCE`] is over: it keeps others from restoring.
const RATE_MIN: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// Replaces the whole content by the body, a SQLite file, at one moment among the writes. With `?until=`, what was written
/// after the backup that the file is, up to a sequence number or time, is put on top of it first.
pub async fn restore(
    state: State,
    request: HttpRequest,
    params: QueryParams,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    if state.group.system {
        return Err(problem::invalid("the jobs' database is not restored: its jobs are running"));
    }
    require_media_type(request.headers(), |it| TYPES.contains(&it)).map_err(|has| {
        Error::unsupported_media_type(format!(
            "the body is a SQLite file: send {}, not {has}",
            TYPES.join(" or ")
        ))
    })?;
    let until = params.until.as_deref().map(str::parse::<Until>).transpose().map_err(problem::invalid)?;
    if state.status().borrow().role != Role::Primary {
        return forward::stream_to_primary(&state, &request, payload).await;
    }
    let place = state.staging.place().ok_or_else(underway)?;
    receive(&state, &request, payload).await?;
    let shared = shared(&state);
    // The file is here: it is restored whether its sender still waits or not.
    let done = tokio::spawn(async move {
        let reached = match until {
            Some(until) => Some(recovery::roll_forward(&shared, until).await?),
            None => None,
        };
        let restored = restore::restore(&shared).await;
        drop(std::fs::remove_file(shared.staging.upload()));
        drop(place);
        restored.map(|restored| (reached, restored)).map_err(Error::from)
    });
    let (reached, restored) = done.await.map_err(|_| Error::internal())??;
    Ok(answer(reached, &restored))
}

fn answer(reached: Option<Reached>, restored: &Restored) -> HttpResponse {
    let without: Vec<_> =
        restored.without.iter().map(|(who, why)| json!({ "instance": who, "why": why })).collect();
    let reached = reached.map(|it| json!({ "sequence": it.seq, "at": it.at }));
    HttpResponse::Ok().insert_header((OFFSET_HEADER, restored.token.to_string())).json(json!({
        "offset": restored.token.to_string(), "bytes": restored.bytes, "until": reached,
        "staged": restored.staged, "by_snapshot": without, "former_content": "before-restore.sqlite",
    }))
}

/// Writes the body to the disk.
async fn receive(shared: &Shared, request: &HttpRequest, payload: web::Payload) -> Result<(), Error> {
    let most = shared.config.restore_bytes_max;
    let too_large = || Error::too_large("the file", usize::try_from(most).unwrap_or(usize::MAX));
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most) {
        return Err(too_large());
    }
    let former = length(&shared.directory.database());
    let room = |bytes| shared.staging.room_for(bytes, former, 0).map_err(|error| no_room(&error));
    room(announced.unwrap_or(0))?;
    let mut reader = BodyReader::new(payload.into_inner(), &shared.limits);
    let mut to = peers::create(&shared.staging.upload()).await.map_err(|error| disk(&error))?;
    let (began, mut bytes) = (clock::now(), 0_u64);
    while let Some(piece) = reader.next().await.transpose()? {
        bytes += piece.len() as u64;
        if bytes > most {
            return Err(too_large());
        }
        to.write_all(&piece).await.map_err(|error| disk(&error))?;
        let took = clock::now() - began;
        let slow = took > PATIENCE + Duration::from_secs(bytes / RATE_MIN);
        if slow || took > Duration::from_millis(shared.config.backup_time_ms) {
            let detail = format!(
                "the file comes slower than {RATE_MIN} bytes a second, or takes longer than database.backup_time_ms"
            );
            return Err(Error::timeout(detail));
        }
    }
    to.flush().await.map_err(|error| disk(&error))?;
    room(bytes)
}

/// Another replica's primary asks this one to stage a file, which it then fetches from there.
pub async fn stage(
    state: State,
    request: HttpRequest,
    file: web::Path<String>,
    params: QueryParams,
) -> Result<HttpResponse, Error> {
    door::replicas_only(&state, request.headers())?;
    let restore: Restore = file.parse().map_err(problem::invalid)?;
    let from = params.from.as_deref().unwrap_or_default();
    let others = peers::others(&state);
    let from = others.into_iter().find(|it| it.instance == from);
    let from =
        from.ok_or_else(|| Error::unavailable("unknown-replica", "the sender is not known here yet", 1))?;
    let place = state.staging.place().ok_or_else(underway)?;
    let shared = shared(&state);
    let done = tokio::spawn(async move {
        let fetched = restore::fetch(&shared, &from, restore).await;
        drop(place);
        fetched.map_err(|error| error.to_string())
    });
    let fetched = done.await.unwrap_or_else(|died| Err(died.to_string()));
    fetched.map_err(|why| Error::unavailable("not-staged", why, 1))?;
    Ok(HttpResponse::NoContent().finish())
}

/// The staged file, for another replica.
pub async fn staged(
    state: State,
    request: HttpRequest,
    file: web::Path<String>,
) -> Result<HttpResponse, Error> {
    door::replicas_only(&state, request.headers())?;
    let restore: Restore = file.parse().map_err(problem::invalid)?;
    let file =
        state.staging.take(&restore).ok_or_else(|| Error::not_found("that file is not staged here"))?;
    let file = File::open(file).map_err(|error| disk(&error))?;
    let until = clock::now() + Duration::from_millis(state.config.backup_time_ms);
    let body = SizedStream::new(restore.bytes, pieces(Arc::new(file), until));
    Ok(HttpResponse::Ok().content_type(TYPES[0]).body(body))
}

fn pieces(file: Arc<File>, until: std::time::Instant) -> impl Stream<Item = Result<Bytes, io::Error>> {
    try_unfold((file, 0), move |(file, offset)| async move {
        if clock::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the download takes too long"));
        }
        let from = file.clone();
        let read = move || -> io::Result<Bytes> {
            let mut piece = vec![0; PIECE];
            let n = from.read_at(&mut piece, offset)?;
            piece.truncate(n);
            Ok(piece.into())
        };
        let piece = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        let next = offset + piece.len() as u64;
        Ok((!piece.is_empty()).then_some((piece, (file, next))))
    })
}

fn underway() -> Error {
    Error::conflict("restore-under-way", "another restore is under way: there is one at a time")
}

fn no_room(error: &NoRoom) -> Error {
    Error::new(StatusCode::INSUFFICIENT_STORAGE, "no-room", "Insufficient storage", error.to_string())
}

fn disk(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "no-room",
            "Insufficient storage",
            "the disk of the primary has no room for the file",
        ),
        _ => {
            tracing::error!(%error, "the file of a restore could not be written or read");
            Error::unavailable("storage-failed", "the disk of the primary cannot be written or read", 5)
        }
    }
}

impl From<NotRestored> for Error {
    fn from(error: NotRestored) -> Self {
        let text = error.to_string();
        match error {
            NotRestored::Unusable(Unusable::NoRoom) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-room", "Insufficient storage", text)
            }
            NotRestored::Unusable(_) => Self::unprocessable("unusable-database", text),
            NotRestored::NoRoom(error) => no_room(&error),
            NotRestored::Disk(error) => disk(&error),
            NotRestored::TooFew { .. } => Self::unavailable("too-few-replicas", text, 5),
            NotRestored::Write(WriteError::Unknown) => Self::unavailable(
                "outcome-unknown",
                "the primary was lost while the restore was on its way: it may or may not come to pass; look before you repeat it",
                1,
            ),
            NotRestored::Write(error) => error.into(),
        }
    }
}

impl From<recovery::NotReached> for Error {
    fn from(error: recovery::NotReached) -> Self {
        match error {
            recovery::NotReached::Refused(why) => Self::unprocessable("out-of-reach", why),
            recovery::NotReached::Later(why) => Self::unavailable("log-unreadable", why, 5),
        }
    }
}
