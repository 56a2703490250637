//! `standfast fault …`.

use std::time::Duration;

use faults::{InForce, Injected};
use reqwest::Method;
use serde_json::json;

use super::http::Server;
use crate::cli::{Fault, Operating};
use crate::failure::{Failure, Outcome};
use crate::out;

/// Runs the command.
pub async fn run(command: Fault) -> Outcome {
    match command {
        Fault::Inject { path, kind, lasts, probability, amount, at } => {
            let mut body = json!({ "target": path, "kind": kind, "for_ms": millis(lasts) });
            let optional = [
                ("probability", probability.map(|p| json!(p))),
                ("amount_ms", amount.map(|a| json!(millis(a)))),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    body[key] = value;
                }
            }
            inject(&at, &body).await
        }
        Fault::List { at } => list(&at).await,
        Fault::Clear { id, at } => clear(&at, id.as_deref()).await,
    }
}

async fn inject(at: &Operating, body: &serde_json::Value) -> Outcome {
    let server = server(at)?;
    let injected: Injected = server.json(server.request(Method::POST, "/v1/faults").json(body)).await?;
    if at.json {
        out::json(&injected);
    } else {
        injected.matched.iter().for_each(out::line);
        for node in &injected.unreachable {
            out::complain(&format!(
                "node {node} did not answer; if the fault was set there, it ends by itself"
            ));
        }
    }
    if injected.matched.is_empty() {
        return Err(Failure::failed("nothing matches that path: `standfast tree` shows the paths"));
    }
    Ok(())
}

async fn list(at: &Operating) -> Outcome {
    let server = server(at)?;
    let list: Vec<InForce> = server.json(server.request(Method::GET, "/v1/faults")).await?;
    if at.json {
        out::json(&list);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|fault| {
            let kind = serde_json::to_value(fault.kind).ok();
            let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
            let seconds = Duration::from_millis(fault.ends_in_ms).as_secs_f64();
            vec![
                fault.id.to_string(),
                kind,
                format!("{seconds:.1} s"),
                fault.matched.len().to_string(),
                fault.target.clone(),
            ]
        })
        .collect();
    out::table(&["ID", "KIND", "ENDS IN", "HOLDS", "TARGET"], &rows);
    Ok(())
}

async fn clear(at: &Operating, id: Option<&str>) -> Outcome {
    let server = server(at)?;
    let path = match id {
        Some(id) if id.parse::<uuid::Uuid>().is_err() => {
            return Err(Failure::usage(format!(
                "{id:?} is not the id of a fault: `standfast fault list` shows them"
            )));
        }
        Some(id) => format!("/v1/faults/{id}"),
        None => "/v1/faults".to_owned(),
    };
    server.accepted(server.request(Method::DELETE, &path)).await?;
    if !at.json {
        out::line("cleared");
    }
    Ok(())
}

fn server(at: &Operating) -> Outcome<Server> {
    Server::new(&at.console, "--console")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
