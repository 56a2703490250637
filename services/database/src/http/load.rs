//! `/db/load`, as rqlite has it: a text of statements, or a whole SQLite file.

use actix_web::http::StatusCode;
use actix_web::http::header::ORIGIN;
use actix_web::{HttpRequest, HttpResponse, web};
use http_support::{Error, require_media_type};

use super::body::{self, json};
use super::{QueryParams, State, forward, problem, restore, write};
use crate::sqlite::dump;
use crate::sqlite::group::Transaction;
use crate::sqlite::guard::first_word;
use crate::state::Role;
use crate::wire::{Outcome, Statement, write_results};

/// Media types of a text of statements.
const TEXT: &[&str] = &["text/plain", "application/sql", "application/x-sql"];
/// Statements of one text: a dump has one for each row.
const STATEMENTS_MAX: usize = 200_000;
/// How a SQLite file begins.
const FILE: &[u8] = b"SQLite format 3\0";

/// Runs the statements of a text as one transaction, or restores a SQLite file: see [`restore::restore`].
pub async fn load(
    state: State,
    request: HttpRequest,
    params: QueryParams,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    if require_media_type(request.headers(), |it| restore::TYPES.contains(&it)).is_ok() {
        return restore::restore(state, request, params, payload).await;
    }
    require_media_type(request.headers(), |it| TEXT.contains(&it)).map_err(|has| {
        let (text, file) = (TEXT.join(" or "), restore::TYPES.join(" or "));
        Error::unsupported_media_type(format!("send SQL as {text}, a SQLite file as {file}, not {has}"))
    })?;
    // Any web page may have its reader's browser send such a text, unasked; browsers say so.
    if request.headers().contains_key(ORIGIN) || request.headers().contains_key("sec-fetch-site") {
        let detail = "SQL as plain text is not taken from web pages: send /db/execute what it takes";
        return Err(Error::new(StatusCode::FORBIDDEN, "web-page", "Not from a web page", detail));
    }
    let (body, _held) = body::read(&state, &request, payload).await?;
    if state.status().borrow().role != Role::Primary {
        return forward::to_primary(&state, &request, body).await;
    }
    if body.starts_with(FILE) {
        let detail = "the body is a SQLite file: send it as application/octet-stream";
        return Err(Error::unsupported_media_type(detail));
    }
    let text = std::str::from_utf8(&body).map_err(|error| problem::invalid(format!("the text: {error}")))?;
    let statements: Vec<_> = dump::statements(text).into_iter().filter(|sql| !is_statistics(sql)).collect();
    if statements.is_empty() {
        return Err(problem::invalid("no statements"));
    }
    if statements.len() > STATEMENTS_MAX {
        let detail = format!(
            "the text has {} statements, allowed are {STATEMENTS_MAX}: load a SQLite file instead",
            statements.len()
        );
        return Err(Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-many-statements",
            "Too many statements",
            detail,
        ));
    }
    let plain = |sql: &str| Statement { sql: sql.to_owned(), ..Statement::default() };
    let transaction =
        Transaction { statements: statements.iter().copied().map(plain).collect(), continues: false };
    let written = write::write(&state, vec![transaction], None, false).await?;
    let outcome = together(written.answers.into_iter().flatten(), &statements);
    let mut out = Vec::new();
    write_results(&mut out, &[outcome], params.shape());
    Ok(json(params.finish(out), Some(written.token.to_string()), Vec::new()))
}

/// Each replica keeps statistics of its own: a dump has rows of them, which nobody misses.
fn is_statistics(sql: &str) -> bool {
    let after = |word: &str| {
        let head = sql.get(..word.len())?;
        head.eq_ignore_ascii_case(word).then(|| &sql[word.len()..])
    };
    let table = after("INSERT INTO ").or_else(|| after("ANALYZE "));
    table.is_some_and(|rest| rest.trim_start_matches('"').starts_with("sqlite_s") && !is_counters(rest))
}

fn is_counters(table: &str) -> bool {
    table.trim_start_matches('"').starts_with("sqlite_sequence")
}

/// One outcome for all, as rqlite answers: the rows that all affected, or which one failed.
fn together(all: impl Iterator<Item = Outcome>, statements: &[&str]) -> Outcome {
    let mut sum = Outcome::default();
    for (i, one) in all.enumerate() {
        if let Some(error) = one.error {
            let word = statements.get(i).map_or("", |sql| first_word(sql));
            return Outcome::failed(format!("statement {} ({word}): {error}; nothing was loaded", i + 1));
        }
        sum.time += one.time;
        if let Some(rows) = one.rows_affected {
            *sum.rows_affected.get_or_insert(0) += rows;
        }
    }
    sum
}
