//! The table on the codec alone: what a gateway that only does what `wire` says would refuse and forward.

use http_support::wire::{
    ChunkedLimits, ChunkedScanner, Forwarding, Framing, HeadLimits, Parsed, RequestHead, ResponseHead,
    Scheme, hop_lines, write_request_line,
};

use crate::Came;
use crate::origin::Request;
use crate::table;
use crate::table::responses::{ANSWERS, Answer, Relay};

enum Body {
    Whole { len: usize },
    Partial,
    Malformed,
}

/// Forwards one request to `out` and says what its body was.
fn forward(head: &RequestHead<'_>, body: &[u8], out: &mut Vec<u8>) -> Body {
    write_request_line(head.method(), head.target(), head.authority(), out);
    head.end_to_end_lines(out, |_| false);
    Forwarding::new("standfast", "127.0.0.1".parse().unwrap(), Scheme::Http, false).lines(head, out);
    head.framing_line(out);
    hop_lines(head, out);
    out.extend_from_slice(b"\r\n");
    match head.framing() {
        Framing::None => Body::Whole { len: 0 },
        Framing::Length(length) => {
            let len = body.len().min(usize::try_from(length).unwrap());
            out.extend_from_slice(&body[..len]);
            if len as u64 == length { Body::Whole { len } } else { Body::Partial }
        }
        Framing::Chunked => chunks(body, out),
        Framing::UntilClose => unreachable!("no request ends by close"),
    }
}

fn chunks(body: &[u8], out: &mut Vec<u8>) -> Body {
    let mut scanner = ChunkedScanner::new(ChunkedLimits::default());
    let mut input = body;
    while !scanner.is_done() {
        if input.is_empty() {
            return Body::Partial;
        }
        match scanner.verbatim(&mut input) {
            Ok(piece) => out.extend_from_slice(piece.bytes),
            Err(_) => return Body::Malformed,
        }
    }
    out.extend_from_slice(scanner.trailers());
    out.extend_from_slice(b"\r\n");
    Body::Whole { len: body.len() - input.len() }
}

fn run(mut bytes: &[u8]) -> Came {
    let (mut came, mut out) = (Came::default(), Vec::new());
    while !bytes.is_empty() {
        let (head, len) = match RequestHead::parse(bytes, &HeadLimits::default()) {
            Ok(Parsed::Complete { head, len }) => (head, len),
            Ok(Parsed::Partial) => {
                came.waits = true;
                break;
            }
            Err(error) => {
                came.refused = Some(error.status());
                break;
            }
        };
        match forward(&head, &bytes[len..], &mut out) {
            Body::Whole { len: body } if head.keep_alive() => bytes = &bytes[len + body..],
            Body::Whole { .. } => break,
            Body::Partial => {
                came.waits = true;
                break;
            }
            Body::Malformed => {
                came.refused = Some(400);
                break;
            }
        }
    }
    while let Some(request) = Request::take(&mut out).unwrap() {
        came.seen.push(request);
    }
    came
}

#[test]
fn every_request_of_the_table_is_refused_or_has_one_reading() {
    let failures: Vec<String> = table::groups()
        .into_iter()
        .flat_map(|(_, cases)| cases)
        .filter_map(|case| {
            run(case.bytes)
                .check(case.expect)
                .err()
                .map(|why| format!("{} ({}): {why}", case.name, case.rule))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What the codec says of an origin's answer, with the connection to the origin ending after it or not.
fn relay(answer: &Answer) -> Relay {
    let mut bytes = answer.bytes;
    loop {
        let (head, len) = match ResponseHead::parse(bytes, &HeadLimits::default()) {
            Ok(Parsed::Complete { head, len }) => (head, len),
            _ => return Relay::BadGateway,
        };
        bytes = &bytes[len..];
        if head.is_informational() {
            continue;
        }
        if head.status() == 101 {
            return Relay::BadGateway; // nobody asked
        }
        return relay_body(answer, &head, bytes);
    }
}

fn relay_body(answer: &Answer, head: &ResponseHead<'_>, rest: &'static [u8]) -> Relay {
    let status = head.status();
    let whole = |body, left: usize| Relay::Relayed { status, body, reused: left == 0 && head.keep_alive() };
    match head.framing(answer.method) {
        Framing::None => whole(b"", rest.len()),
        Framing::Length(length) => match rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX))
        {
            Some((body, left)) => whole(body, left.len()),
            None => Relay::CutShort { status },
        },
        Framing::UntilClose => Relay::Relayed { status, body: rest, reused: false },
        Framing::Chunked => {
            let mut scanner = ChunkedScanner::new(ChunkedLimits::default());
            let (mut input, mut body) = (rest, Vec::new());
            loop {
                match scanner.next(&mut input) {
                    Ok(Some(http_support::wire::Piece::Data(data))) => body.extend_from_slice(data),
                    Ok(Some(http_support::wire::Piece::End)) => return whole(body.leak(), input.len()),
                    Ok(None) | Err(_) => return Relay::CutShort { status },
                }
            }
        }
    }
}

#[test]
fn every_answer_of_the_table_is_relayed_refused_or_cut_short() {
    let failures: Vec<String> = ANSWERS
        .iter()
        .filter(|answer| relay(answer) != answer.expect)
        .map(|answer| {
            format!("{} ({}): {:?}, not {:?}", answer.name, answer.rule, relay(answer), answer.expect)
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
