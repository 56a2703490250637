//! `/status`, `/nodes`, `/readyz`.

use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::State;
use crate::group::{CLIENTS, Group, JOBS};
use crate::peers;

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

/// What works here, reads and writes apart. 200 when reads are served by this replica; with `?writes` when some replica
/// takes writes as well. `why` says what does not work.
pub async fn ready(state: State, request: HttpRequest) -> HttpResponse {
    let status = state.status().borrow().clone();
    let (reads, writes) = (state.reads(&status), state.writes(&status));
    let wanted = request.query_string().split('&').any(|it| it.split('=').next() == Some("writes"));
    let ready = reads.is_ok() && (writes.is_ok() || !wanted);
    let why: Vec<String> = [&reads, &writes].into_iter().filter_map(|it| it.clone().err()).collect();
    let why =
        (!why.is_empty()).then(|| why.join("; ")).or_else(|| status.trouble.as_deref().map(str::to_owned));
    let mut body = json!({
        "ready": ready, "reads": reads.is_ok(), "writes": writes.is_ok(), "role": status.role.as_str(), "why": why,
    });
    if ready {
        return HttpResponse::Ok().json(body);
    }
    body["type"] = json!("about:blank");
    body["title"] = json!("Service Unavailable");
    body["status"] = json!(503);
    body["detail"] = json!(format!("not ready: {}", why.as_deref().unwrap_or_default()));
    HttpResponse::ServiceUnavailable()
        .insert_header(("retry-after", "1"))
        .content_type("application/problem+json")
        .json(body)
}
