//! The handlers, one file a noun.

pub mod bulk;
pub mod control;
pub mod events;
pub mod front;
pub mod queues;
pub mod read;
pub mod submit;
mod wait;

use actix_web::HttpResponse;
use actix_web::http::header;
use http_support::Error;
use messages::job::Job;
use messages::sql::Level;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::state::Call;
use crate::submission::is_name;

type Answer = Result<HttpResponse, Error>;

/// The job id in the path.
fn job_id(call: &Call) -> Result<Uuid, Error> {
    let text = call.segment("id");
    // The hyphenated form only: a job has one URL.
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id),
        _ => Err(Error::bad_request(
            "invalid-id",
            "a job's id is a UUID: 0190b6a1-7c1e-7d3a-9f10-2c4d5e6f7a8b",
        )),
    }
}

/// The queue's name in the path.
fn queue_name(call: &Call) -> Result<String, Error> {
    let name = call.segment("queue");
    if is_name(name) {
        return Ok(name.to_owned());
    }
    Err(Error::bad_request("invalid-name", "a queue's name is [a-z0-9][a-z0-9_.-]{0,63}"))
}

/// How fresh a read is: as fresh as every answer that any app server has given, unless the client asks for less with
/// `?consistency=eventual`.
fn level(consistency: Option<&str>) -> Result<Level, Error> {
    match consistency {
        None | Some("strong") => Ok(Level::Strong),
        Some("eventual") => Ok(Level::Eventual),
        Some(_) => Err(Error::bad_request("invalid-query", "query: `consistency` is strong or eventual")),
    }
}

/// The query string of a read that has no parameter but `consistency`. Others are let through, as they always were.
fn level_of(call: &Call) -> Result<Level, Error> {
    let mut pairs = call.request.query_string().split('&').filter_map(|pair| pair.split_once('='));
    level(pairs.find(|(name, _)| *name == "consistency").map(|(_, value)| value))
}

/// The query string as `T`; a parameter that `T` does not know is refused.
fn query<T: DeserializeOwned>(call: &Call) -> Result<T, Error> {
    actix_web::web::Query::<T>::from_query(call.request.query_string())
        .map(actix_web::web::Query::into_inner)
        .map_err(|error| {
            let text = error.to_string();
            let detail = text.trim_start_matches("Query deserialize error: ");
            Error::bad_request("invalid-query", format!("query: {detail}"))
        })
}

fn job_path(id: Uuid) -> String {
    format!("/v1/jobs/{id}")
}

/// RFC 9110 section 8.8.3: a row's version changes with every change of the row.
fn etag(job: &Job) -> String {
    format!("\"{}\"", job.version)
}

/// 200 and the job.
fn job_answer(job: &Job) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::ETAG, etag(job))).json(job)
}
