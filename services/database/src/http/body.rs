//! Bodies of requests and answers: each counts in what all may hold together, from its first byte to its last.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use http_support::{BodyReader, Error, read_body, require_json};

use super::pace::Paced;
use super::problem;
use crate::budget::Charge;
use crate::sqlite::run::USED_UP;
use crate::state::Shared;
use crate::wire::Outcome;

/// A body that is smaller is neither counted nor timed beyond the pauses between its pieces.
const SMALL: usize = 64 << 10;
/// A body must come this fast on average, bytes a second, once [`PATIENCE`] is over: one that drips holds room of others.
const RATE_MIN: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is handed to the connection in pieces, so that it is not copied whole once more.
const PIECE: usize = 64 << 10;

/// The request's body as JSON text, and what it holds until it is dealt with.
pub(super) async fn body(
    shared: &Shared,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Bytes, Charge), Error> {
    require_json(request.headers())?;
    read(shared, request, payload).await
}

/// The same, whatever it is.
pub(super) async fn read(
    shared: &Shared,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Bytes, Charge), Error> {
    let most = shared.config.body_bytes_max;
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    match announced {
        Some(n) if n <= SMALL || n > most => {
            let body = read_body(request, payload.into_inner(), &shared.limits, most).await?;
            Ok((body, Charge::default()))
        }
        _ => large(shared, payload, most).await,
    }
}

async fn large(shared: &Shared, payload: web::Payload, most: usize) -> Result<(Bytes, Charge), Error> {
    let mut reader = BodyReader::new(payload.into_inner(), &shared.limits);
    let mut charge = Charge::of(&shared.bodies);
    let mut whole = BytesMut::new();
    let began = clock::now();
    while let Some(piece) = reader.next().await.transpose()? {
        if whole.len() + piece.len() > most {
            return Err(Error::too_large("the body", most));
        }
        // Twice: as it came, and as it is understood.
        charge.grow_to((whole.len() + piece.len()) * 2).map_err(|full| {
            problem::full(format!("the bodies of all requests fill the {} bytes kept for them", full.most))
        })?;
        whole.extend_from_slice(&piece);
        let allowed = PATIENCE + Duration::from_secs((whole.len() / RATE_MIN) as u64);
        if clock::now() - began > allowed {
            return Err(Error::timeout(format!("the body comes slower than {RATE_MIN} bytes a second")));
        }
    }
    Ok((whole.freeze(), charge))
}

/// Takes over what results hold, for as long as the answer made of them is on its way.
pub(super) fn charges<'a>(results: impl Iterator<Item = &'a mut Outcome>) -> Vec<Charge> {
    let rows = results.filter_map(|outcome| outcome.rows.as_mut());
    rows.filter(|rows| rows.json.len() > PIECE / 2).map(|rows| std::mem::take(&mut rows.charge)).collect()
}

/// A read that found no room beside the results of others is refused as a whole: nothing was changed by it.
pub(super) fn refuse_if_full(results: &[Outcome]) -> Result<(), Error> {
    let full = results.iter().filter_map(|it| it.error.as_deref()).find(|error| error.starts_with(USED_UP));
    full.map_or(Ok(()), |error| Err(problem::full(error)))
}

/// Whatever a request may ask for, it is bounded in statements too.
pub(super) fn bounded(shared: &Shared, statements: usize) -> Result<(), Error> {
    let most = shared.config.statements_max;
    if statements <= most {
        return Ok(());
    }
    Err(Error::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-many-statements",
        "Too many statements",
        format!(
            "the request has {statements} statements, allowed are {most} (database.statements_max): send several"
        ),
    ))
}

/// An answer as JSON. It holds `charges` until its last byte is with the connection.
pub(super) fn json(body: Vec<u8>, offset: Option<String>, charges: Vec<Charge>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(offset) = offset {
        response.insert_header((messages::sql::OFFSET_HEADER, offset));
    }
    response.content_type("application/json");
    if body.len() <= PIECE {
        response.body(body)
    } else {
        response.body(Held { length: body.len() as u64, left: Paced::new((body.into(), charges)) })
    }
}

struct Held {
    length: u64,
    left: Paced<(Bytes, Vec<Charge>)>,
}

impl MessageBody for Held {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let next = self.left.with(|(left, _)| left.split_to(left.len().min(PIECE)));
        if let Ok(piece) = &next {
            self.left.moved(piece.len());
        }
        Poll::Ready(Some(next).filter(|next| !next.as_ref().is_ok_and(Bytes::is_empty)))
    }
}
