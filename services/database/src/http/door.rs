//! Who may speak to the jobs' database: whoever shows this replica's key, as our own tiers do, which hear it on the bus.

use actix_web::Error as ActixError;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
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
    let key = shared.and_then(|shared| shared.key.as_ref());
    let shown = request.headers().get(KEY_HEADER).map_or(&b""[..], |value| value.as_bytes());
    if key.is_some_and(|key| key.is(shown)) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let detail =
        "this database is the jobs' own: clients use the database tier's address, and jobs have an API";
    // RFC 9110 section 11.6.1 wants a challenge with each 401.
    let refused = Error::new(StatusCode::UNAUTHORIZED, "key-required", "Key required", detail)
        .with_header(WWW_AUTHENTICATE, "Standfast-Key");
    Ok(request.error_response(refused))
}
