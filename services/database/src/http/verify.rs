//! `/db/verify`.

use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use http_support::Error;
use messages::sql::OFFSET_HEADER;

use super::{State, forward, shared};
use crate::state::Role;
use crate::verification;

/// Compares the content of all replicas at one position of the history: 200, whatever was found, and `agreed` says it.
pub async fn verify(state: State, request: HttpRequest) -> Result<HttpResponse, Error> {
    if state.status().borrow().role != Role::Primary {
        return forward::to_primary(&state, &request, Bytes::new()).await;
    }
    let report = verification::verify(&shared(&state)).await?;
    Ok(HttpResponse::Ok().insert_header((OFFSET_HEADER, report.offset.clone())).json(report))
}
