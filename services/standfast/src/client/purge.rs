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
    #[serde(default)]
    near: Vec<String>,
}

/// Runs the command.
pub async fn run(purge: Purge) -> Outcome {
    let server = Server::new(&purge.at.url, "--url")?;
    // A path is one at every host: the front door has many names, and who purges a page means it under each.
    let is_path = |url: &&String| url.starts_with('/');
    let urls: Vec<_> = purge.urls.iter().filter(|url| !is_path(url)).collect();
    let prefixes: Vec<_> = purge.prefixes.iter().filter(|url| !is_path(url)).collect();
    let beginnings = purge.prefixes.iter().filter(is_path).map(|path| format!("{path}*"));
    let paths: Vec<_> = purge.urls.iter().filter(is_path).cloned().chain(beginnings).collect();
    let body = json!({
        "urls": urls,
        "prefixes": prefixes,
        "paths": paths,
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
        return found(&receipt, purge.at.json);
    }
    Err(Failure::failed(format!("no answer from {}: they may still have it", receipt.silent.join(", "))))
}

/// Nothing there is what a purge is to bring about, and so no failure; but where something like it is stored, it was most
/// likely that which was meant, and it is still there.
fn found(receipt: &Receipt, json: bool) -> Outcome {
    let edges = || receipt.points.iter().filter(|point| !point.instance.starts_with("web"));
    if edges().any(|point| point.uris > 0) {
        return Ok(());
    }
    let near: std::collections::BTreeSet<&String> = edges().flat_map(|point| &point.near).collect();
    if near.is_empty() {
        if !json {
            out::line("nothing of it was stored");
        }
        return Ok(());
    }
    let near: Vec<&str> = near.into_iter().map(String::as_str).collect();
    Err(Failure::failed(format!(
        "nothing was stored under that name; near it is stored: {}",
        near.join(", ")
    )))
}
