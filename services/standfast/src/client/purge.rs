//! `standfast purge …`.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Server;
use crate::cli::Purge;
use crate::failure::{Failure, Outcome};
use crate::out;

/// What one point of presence says.
#[derive(Deserialize)]
struct Forgot {
    instance: String,
    at: String,
    uris: u64,
}

/// Runs the command. A point that is silent makes it fail: it may still have what is to be forgotten.
pub async fn run(purge: Purge) -> Outcome {
    let server = Server::new(&purge.at.url, "--url")?;
    let body = json!({
        "urls": purge.urls, "prefixes": purge.prefixes, "tags": purge.tags, "soft": purge.soft,
    });
    let mut request = server.request(Method::POST, "/.standfast/edge/purge").json(&body);
    if let Some(token) = &purge.token {
        request = request.bearer_auth(token);
    }
    let response = server.send(request).await?;
    // 504 has a receipt too: it says who has forgotten and who was silent.
    if !response.status().is_success() && response.status().as_u16() != 504 {
        return Err(server.refusal(response).await);
    }
    let receipt: Value = response.json().await.map_err(|error| server.lost(&error))?;
    if purge.at.json {
        out::json(&receipt);
    } else {
        show(&receipt);
    }
    match receipt["silent"].as_array().filter(|silent| !silent.is_empty()) {
        None => Ok(()),
        Some(silent) => {
            let names: Vec<&str> = silent.iter().filter_map(Value::as_str).collect();
            Err(Failure::failed(format!("no answer from {}: purge again", names.join(", "))))
        }
    }
}

fn show(receipt: &Value) {
    let points: Vec<Forgot> = serde_json::from_value(receipt["points"].clone()).unwrap_or_default();
    let row = |point: Forgot| vec![point.instance, point.uris.to_string(), point.at];
    let rows: Vec<Vec<String>> = points.into_iter().map(row).collect();
    out::table(&["POINT", "FORGOT", "AT"], &rows);
}
