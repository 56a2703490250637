//! `standfast db backup` and `standfast db restore`: the database as one file, to the disk and back.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use messages::sql::OFFSET_HEADER;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::db::server;
use crate::cli::DatabaseAt;
use crate::failure::{Failure, Outcome};
use crate::out;

/// A download that pauses for longer is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// Writes a backup; the file is there whole or not at all.
pub async fn backup(at: &DatabaseAt, file: &Path, force: bool) -> Outcome {
    let there =
        || Failure::failed(format!("{} is there already: choose another name, or --force", file.display()));
    if file.exists() && !force {
        return Err(there());
    }
    let server = server(at)?;
    let answer = server.accepted(server.endless(Method::GET, "/db/backup")).await?;
    let offset = answer.headers().get(OFFSET_HEADER).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
    let announced = answer.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let part = part_of(file);
    let received = receive(&server, answer, &part).await;
    let received = received.and_then(|bytes| match announced {
        Some(whole) if whole != bytes => {
            Err(Failure::failed(format!("{bytes} bytes of {whole} came: try again")))
        }
        _ => Ok(bytes),
    });
    let placed = match received {
        Ok(bytes) => place(&part, file, force).map(|()| bytes),
        Err(failure) => Err(failure),
    };
    let bytes = placed.inspect_err(|_| drop(std::fs::remove_file(&part)))?;
    if at.json {
        out::json(&json!({ "file": file, "bytes": bytes, "offset": offset }));
    } else {
        out::line(format!("{} has {bytes} bytes, position {offset}", file.display()));
    }
    Ok(())
}

fn part_of(file: &Path) -> PathBuf {
    let mut name: OsString = file.into();
    name.push(format!(".{}.part", std::process::id()));
    name.into()
}

async fn receive(server: &super::http::Server, mut answer: reqwest::Response, part: &Path) -> Outcome<u64> {
    let disk = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", part.display()));
    let mut to = File::create(part).await.map_err(disk)?;
    let mut bytes = 0;
    loop {
        let piece = tokio::time::timeout(STALL_MAX, answer.chunk()).await;
        let piece = piece.map_err(|_| Failure::unreachable("the download does not go on"))?;
        let Some(piece) = piece.map_err(|error| server.lost(&error))? else { break };
        to.write_all(&piece).await.map_err(disk)?;
        bytes += piece.len() as u64;
    }
    to.flush().await.map_err(disk)?;
    to.sync_all().await.map_err(disk)?;
    Ok(bytes)
}

/// Gives the file its name. Without `force` a file that came meanwhile is not replaced.
fn place(part: &Path, file: &Path, force: bool) -> Outcome {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", file.display()));
    if force {
        return std::fs::rename(part, file).map_err(failed);
    }
    std::fs::hard_link(part, file).map_err(failed)?;
    std::fs::remove_file(part).map_err(failed)
}

/// Sends the file, and waits until it is the content.
pub async fn restore(at: &DatabaseAt, file: &Path, until: Option<&str>) -> Outcome {
    let unreadable =
        |error: std::io::Error| Failure::failed(format!("cannot read {}: {error}", file.display()));
    let from = File::open(file).await.map_err(unreadable)?;
    let found = from.metadata().await.map_err(unreadable)?;
    if !found.is_file() {
        return Err(Failure::failed(format!("{} is no file", file.display())));
    }
    let server = server(at)?;
    let mut request = server
        .endless(Method::POST, "/db/restore")
        .header(CONTENT_TYPE, "application/vnd.sqlite3")
        .header(CONTENT_LENGTH, found.len());
    if let Some(until) = until {
        request = request.query(&[("until", until)]);
    }
    let done: Value = server.json(request.body(content(from))).await?;
    if at.json {
        out::json(&done);
        return Ok(());
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let reached = match &done["until"] {
        Value::Null => String::new(),
        it => format!(", brought forward to sequence {} of {}", it["sequence"], text(&it["at"])),
    };
    out::line(format!("restored at position {}{reached}", text(&done["offset"])));
    let kept = text(&done["former_content"]);
    out::line(format!("each replica keeps what it had as {kept} in its directory, until the next restore"));
    Ok(())
}

fn content(from: File) -> Body {
    let pieces = futures_util::stream::try_unfold(from, |mut from| async move {
        let mut piece = vec![0; PIECE];
        let n = from.read(&mut piece).await?;
        piece.truncate(n);
        Ok::<_, std::io::Error>((n > 0).then_some((bytes::Bytes::from(piece), from)))
    });
    Body::wrap_stream(pieces)
}
