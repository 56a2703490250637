//! `standfast db …`.

use messages::sql::{Outcome as StatementOutcome, Results};
use reqwest::Method;
use serde_json::{Value, json};

use super::db_file;
use super::http::Server;
use crate::cli::{DatabaseAt, Db};
use crate::failure::{Failure, Outcome};
use crate::out;

/// Runs the command.
pub async fn run(command: Db) -> Outcome {
    match command {
        Db::Query { sql, params, level, at } => {
            let path = format!("/db/query?level={level}");
            statement(&at, &path, sql, params).await
        }
        Db::Exec { sql, params, at } => statement(&at, "/db/execute?transaction", sql, params).await,
        Db::Status { at } => status(&at).await,
        Db::Backup { file, force, at } => db_file::backup(&at, &file, force).await,
        Db::Restore { file, until, at } => db_file::restore(&at, &file, until.as_deref()).await,
        Db::Verify { at } => verify(&at).await,
    }
}

async fn statement(at: &DatabaseAt, path: &str, sql: String, params: Vec<String>) -> Outcome {
    let server = server(at)?;
    let params: Vec<Value> = params.into_iter().map(value).collect();
    let body = json!([{ "sql": sql, "params": params }]);
    let answer: Results = server.json(server.request(Method::POST, path).json(&body)).await?;
    let failed = answer.results.iter().find_map(|outcome| outcome.error.clone());
    if at.json {
        out::json(&answer.results.first());
    } else if let Some(outcome) = answer.results.first().filter(|_| failed.is_none()) {
        show(outcome);
    }
    failed.map_or(Ok(()), |error| Err(Failure::failed(error)))
}

fn show(outcome: &StatementOutcome) {
    if outcome.columns.is_empty() {
        let rows = outcome.rows_affected.unwrap_or_default();
        out::line(format!("{rows} {} changed", if rows == 1 { "row" } else { "rows" }));
        return;
    }
    let headings: Vec<&str> = outcome.columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = outcome.values.iter().map(|row| row.iter().map(cell).collect()).collect();
    out::table(&headings, &rows);
}

/// Text as it is; the rest as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// JSON scalars by their type; whatever else is text.
fn value(text: String) -> Value {
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if !value.is_object() && !value.is_array() => value,
        _ => Value::String(text),
    }
}

async fn status(at: &DatabaseAt) -> Outcome {
    let server = server(at)?;
    let nodes: Value = server.json(server.request(Method::GET, "/nodes")).await?;
    if at.json {
        out::json(&nodes);
        return Ok(());
    }
    let list = nodes
        .as_array()
        .or_else(|| nodes.get("nodes").and_then(Value::as_array))
        .cloned()
        .unwrap_or_default();
    let fact = |node: &Value, key: &str| {
        let value = node.get("facts").and_then(|facts| facts.get(key)).or_else(|| node.get(key));
        value.map(cell).unwrap_or_else(|| "-".to_owned())
    };
    let keys = ["instance", "database", "node", "role", "health", "epoch", "sequence", "address"];
    let rows: Vec<Vec<String>> =
        list.iter().map(|node| keys.iter().map(|key| fact(node, key)).collect()).collect();
    out::table(&["INSTANCE", "DATABASE", "NODE", "ROLE", "HEALTH", "EPOCH", "SEQ", "ADDRESS"], &rows);
    Ok(())
}

async fn verify(at: &DatabaseAt) -> Outcome {
    let server = server(at)?;
    let report: Value = server.json(server.endless(Method::POST, "/db/verify")).await?;
    let replicas = report.get("replicas").and_then(Value::as_object).cloned().unwrap_or_default();
    if at.json {
        out::json(&report);
    } else {
        let rows = replicas.iter().map(|(name, said)| {
            let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
            vec![name.clone(), text("verdict"), text("digest")]
        });
        out::table(&["INSTANCE", "CONTENT", "SHA-256"], &rows.collect::<Vec<_>>());
    }
    if report.get("agreed").and_then(Value::as_bool) == Some(true) {
        return Ok(());
    }
    let offset = report.get("offset").and_then(Value::as_str).unwrap_or("-");
    Err(Failure::failed(format!(
        "the replicas do not all say the same of position {offset}: one that differs from most is rebuilt by itself"
    )))
}

pub(super) fn server(at: &DatabaseAt) -> Outcome<Server> {
    Server::new(&at.database, "--database")
}
