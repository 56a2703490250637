//! Sends a page: the whole of it, a part, several parts, or word that the client has it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use clock::WallMs;
use http_support::gateway::{Abort, Exchange};

use crate::conditional::Verdict;
use crate::fields::Asked;
use crate::front::{Answer, Front, Halt};
use crate::page::{Body, Page};
use crate::range::{Multipart, Wanted, content_range};
use crate::refusal::Refusal;
use crate::telemetry::Outcome;

/// Bytes read from a file at once for a multipart body.
const PIECE: u64 = 64 << 10;

/// Answers GET and HEAD of a page. `extra` are field lines of this request alone.
pub async fn send(
    front: &Front,
    exchange: &mut Exchange<'_>,
    page: &Page,
    asked: &Asked<'_>,
    extra: &[u8],
) -> Answer {
    if !asked.preconditions.is_empty() {
        match asked.preconditions.evaluate(page.validators(), true) {
            Verdict::Proceed => {}
            Verdict::Failed => return Err(Halt::Refuse(Refusal::Precondition)),
            Verdict::NotModified => {
                Box::pin(exchange.respond(304, &with(&page.unchanged_lines, extra), b"")).await?;
                return Ok(Outcome::Unchanged);
            }
        }
    }
    match wanted(exchange, page, asked) {
        Wanted::Whole => whole(exchange, page, extra).await,
        Wanted::Nothing => Err(Halt::Refuse(Refusal::Range(page.length))),
        Wanted::Parts(parts) if parts.len() == 1 => {
            Box::pin(part(exchange, page, parts[0].clone(), extra)).await
        }
        Wanted::Parts(parts) => Box::pin(several(front, exchange, page, &parts, extra)).await,
    }
}

/// RFC 9110 section 14.2: a range counts for GET alone, after the preconditions.
fn wanted(exchange: &Exchange<'_>, page: &Page, asked: &Asked<'_>) -> Wanted {
    let Some(field) = asked.range.filter(|_| page.in_parts && exchange.head().method() == "GET") else {
        return Wanted::Whole;
    };
    let now_s = u64::try_from(WallMs::now().0 / 1000).unwrap_or(0);
    if !asked.preconditions.range_applies(page.validators(), now_s) {
        return Wanted::Whole;
    }
    Wanted::read(field, page.length)
}

async fn whole(exchange: &mut Exchange<'_>, page: &Page, extra: &[u8]) -> Answer {
    match &page.body {
        Body::Memory(prepared) => exchange.respond_prepared(prepared, extra).await?,
        Body::File(file) if extra.is_empty() => {
            exchange.respond_file(200, &page.lines, file, 0..page.length).await?;
        }
        Body::File(file) => {
            exchange.respond_file(200, &with(&page.lines, extra), file, 0..page.length).await?;
        }
    }
    Ok(Outcome::File)
}

async fn part(exchange: &mut Exchange<'_>, page: &Page, part: Range<u64>, extra: &[u8]) -> Answer {
    let range = format!("content-range: {}\r\n", content_range(&part, page.length));
    let lines = [&page.lines, range.as_bytes(), extra].concat();
    match &page.body {
        Body::Memory(prepared) => exchange.respond(206, &lines, slice(&prepared.body, &part)).await?,
        Body::File(file) => exchange.respond_file(206, &lines, file, part).await?,
    }
    Ok(Outcome::Part)
}

async fn several(
    front: &Front,
    exchange: &mut Exchange<'_>,
    page: &Page,
    parts: &[Range<u64>],
    extra: &[u8],
) -> Answer {
    let multipart = Multipart::new(parts, page.length, page.content_type, rand::random());
    let own = format!("content-type: {}\r\n", page.content_type);
    let kept = page.lines.strip_prefix(own.as_bytes()).unwrap_or(&page.lines);
    let head = format!("content-type: {}\r\n", multipart.content_type);
    exchange.start(206, &[head.as_bytes(), kept, extra].concat(), Some(multipart.length())).await?;
    for (before, part) in &multipart.parts {
        exchange.write(before).await?;
        match &page.body {
            Body::Memory(prepared) => exchange.write(slice(&prepared.body, part)).await?,
            Body::File(file) => copy(front, exchange, file, part.clone()).await?,
        }
    }
    exchange.write(&multipart.end).await?;
    exchange.finish(b"").await?;
    Ok(Outcome::Part)
}

/// Sends a part of a file in pieces, each read on the blocking pool.
async fn copy(
    front: &Front,
    exchange: &mut Exchange<'_>,
    file: &File,
    part: Range<u64>,
) -> Result<(), Abort> {
    let mut at = part.start;
    while at < part.end {
        let bytes = (part.end - at).min(PIECE);
        let Ok(file) = file.try_clone() else { return Err(Abort::CutShort) };
        let read = move || {
            let mut piece = vec![0; bytes as usize];
            file.read_exact_at(&mut piece, at).map(|()| piece)
        };
        // Shorter than it was: the client must see that this is not all.
        let Ok(piece) = front.shelf.blocking(&front.life, read).await else { return Err(Abort::CutShort) };
        exchange.write(&piece).await?;
        at += bytes;
    }
    Ok(())
}

/// A part of what is in memory: it was cut to its length.
fn slice<'b>(content: &'b [u8], part: &Range<u64>) -> &'b [u8] {
    &content[part.start as usize..part.end as usize]
}

fn with(lines: &[u8], extra: &[u8]) -> Vec<u8> {
    [lines, extra].concat()
}
