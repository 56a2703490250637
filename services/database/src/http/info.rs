//! `/status`, `/nodes`, `/readyz`.

use actix_web::HttpResponse;
use http_support::Error;
use serde_json::json;

use super::State;
use crate::group::{CLIENTS, Group, JOBS};
use crate::peers;
use crate::state::Role;

/// How this replica is doing.
pub async fn status(state: State) -> HttpResponse {
    let status = state.status().borrow().clone();
    HttpResponse::Ok().json(json!({
        "instance": state.config.instance,
        "role": status.role.as_str(),
        "primary": *status.primary,
        "epoch": status.epoch,
        "offset": status.token.to_string(),
        "generation": status.token.generation,
        "sequence": status.token.seq,
        "log_offset": status.offset,
        "caught_up": status.caught_up,
        "trouble": status.trouble.as_deref(),
        "writes_waiting": state.writes.put.len(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// All replicas that discovery knows, of both databases: this API's first.
pub async fn nodes(state: State) -> HttpResponse {
    let of = |group: &'static Group| {
        state.registry.of_tier(group.tier).into_iter().map(move |it| (group.title, it))
    };
    let nodes: Vec<_> = of(&CLIENTS)
        .chain(of(&JOBS))
        .map(|(database, it)| {
            let it = &it;
            json!({
                "instance": it.instance, "database": database, "node": it.node, "address": it.address, "health": it.health,
                "role": it.facts.get("role"), "epoch": peers::fact(it, "epoch"), "sequence": peers::fact(it, "seq"),
                "generation": peers::fact(it, "generation"),
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "nodes": nodes }))
}

/// 200 when reads are served from a replica that has caught up.
pub async fn ready(state: State) -> Result<HttpResponse, Error> {
    let status = state.status().borrow().clone();
    let follows = matches!(status.role, Role::Follower | Role::Candidate | Role::Primary);
    if follows && status.caught_up {
        return Ok(HttpResponse::Ok().json(json!({ "ready": true, "role": status.role.as_str() })));
    }
    let why = status.trouble.as_deref().unwrap_or(status.role.as_str()).to_owned();
    Err(Error::unavailable("not-ready", format!("not ready: {why}"), 1))
}
