//! Who shows this replica's key: other replicas, and our own tiers, which hear it on the bus. Without it nobody speaks to the
//! jobs' database, and to none of the paths that replicas have for each other.

use actix_web::Error as ActixError;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::WWW_AUTHENTICATE;
use actix_web::middleware::Next;
use actix_web::web::Data;
use http_support::Error;
use messages::sql::KEY_HEADER;

use crate::state::Shared;

/// Lets pass who shows the key; the others are answered before anything of a body is read.
pub async fn only_with_key(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, ActixError> {
    let shared = request.app_data::<Data<Shared>>();
    if shared.is_some_and(|shared| shows_key(shared, request.headers())) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    Ok(request.error_response(refused()))
}

/// Whether the sender is one of us.
pub(super) fn shows_key(shared: &Shared, headers: &HeaderMap) -> bool {
    let shown = headers.get(KEY_HEADER).map_or(&b""[..], |value| value.as_bytes());
    shared.key.is(shown)
}

/// Whoever asks for what replicas have for each other is one.
///
/// # Errors
/// 401.
pub(super) fn replicas_only(shared: &Shared, headers: &HeaderMap) -> Result<(), Error> {
    if shows_key(shared, headers) {
        return Ok(());
    }
    Err(refused())
}

fn refused() -> Error {
    let detail = "this is for Standfast's own parts alone: clients use the database tier's address and the paths \
                  under /db that README lists, and jobs have an API";
    // RFC 9110 section 11.6.1 wants a challenge with each 401.
    Error::new(StatusCode::UNAUTHORIZED, "key-required", "Key required", detail)
        .with_header(WWW_AUTHENTICATE, "Standfast-Key")
}
