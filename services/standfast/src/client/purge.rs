//! `standfast purge`: the edge forgets, at every point of presence, and each says when it had.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Server;
use crate::cli::Purge;
use crate::failure::{Failure, Outcome};
use crate::out;

/// What the edge answers.
#[derive(Deserialize)]
struct Receipt {
    points: Vec<Point>,
    silent: Vec<String>,
    took_ms: u64,
}

#[derive(Deserialize)]
struct Point {
    instance: String,
    at: String,
    uris: u64,
}

/// Runs the command.
pub async fn run(purge: Purge) -> Outcome {
    let server = Server::new(&purge.at.url, "--url")?;
    let base = purge.at.url.trim_end_matches('/');
    // A path is one at this front door.
    let whole = |url: &String| if url.starts_with('/') { format!("{base}{url}") } else { url.clone() };
    let body = json!({
        "urls": purge.urls.iter().map(whole).collect::<Vec<_>>(),
        "prefixes": purge.prefixes.iter().map(whole).collect::<Vec<_>>(),
        "tags": purge.tags,
        "soft": purge.soft,
    });
    let mut request = server.request(Method::POST, "/.standfast/edge/purge").json(&body);
    if let Some(token) = &purge.token {
        request = request.bearer_auth(token);
    }
    let response = server.send(request).await?;
    // 504 has a receipt as well: of those that did answer.
    if !response.status().is_success() && response.status() != reqwest::StatusCode::GATEWAY_TIMEOUT {
        return Err(server.refusal(response).await);
    }
    let answer: Value = response.json().await.map_err(|error| server.lost(&error))?;
    let unreadable = |_| Failure::failed("the edge answered what is not a receipt: is it of this version?");
    let receipt: Receipt = serde_json::from_value(answer.clone()).map_err(unreadable)?;
    if purge.at.json {
        out::json(&answer);
    } else {
        let rows =
            receipt.points.iter().map(|it| vec![it.instance.clone(), it.at.clone(), it.uris.to_string()]);
        out::table(&["POINT", "FORGOT AT", "URIS"], &rows.collect::<Vec<_>>());
        out::line(format!("{} ms", receipt.took_ms));
    }
    if receipt.silent.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("no answer from {}: they may still have it", receipt.silent.join(", "))))
}
