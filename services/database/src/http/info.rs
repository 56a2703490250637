//! `/status`, `/nodes`, `/readyz`, `/db/backup`.

use actix_web::HttpResponse;
use http_support::Error;
use serde_json::json;

use super::{State, shared};
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

/// The database as one SQLite file, as it is at one moment; its position is inside.
pub async fn backup(state: State) -> Result<HttpResponse, Error> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let shared = shared(&state);
    let file = shared.directory.scratch(&format!("snapshot.outgoing.{n}"));
    let to = file.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let copied = shared.readers.copy_to(&to).map_err(|e| e.to_string());
        let opened = copied.and_then(|()| std::fs::File::open(&to).map_err(|e| e.to_string()));
        // The file lives on until it is closed, and no crash leaves it behind.
        drop(std::fs::remove_file(&to));
        opened
    });
    let file = match copied.await {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => {
            tracing::error!(instance = state.config.instance, error, "no snapshot could be made");
            return Err(Error::unavailable(
                "storage",
                "no snapshot could be made at the moment: is the disk full?",
                5,
            ));
        }
        Err(_) => return Err(Error::internal()),
    };
    let length = file.metadata().map_or(0, |m| m.len());
    let body = actix_web::body::SizedStream::new(length, pieces(tokio::fs::File::from_std(file)));
    Ok(HttpResponse::Ok().content_type("application/vnd.sqlite3").body(body))
}

fn pieces(file: tokio::fs::File) -> impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> {
    futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(256 << 10);
        let n = tokio::io::AsyncReadExt::read_buf(&mut file, &mut piece).await?;
        Ok((n > 0).then(|| (piece.freeze(), file)))
    })
}
