//! The smuggling table through our gateway and other servers, in front of the same recording origin (`infra/bench/smuggling` starts them):
//!
//! ```text
//! smuggle ORIGIN_PORT NAME=ADDRESS…
//! ```
//! Prints Markdown: what each does with the requests that must be refused, with those that must pass, with the answers of a
//! broken origin, and the rows that got through.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for the bench: it fails by panicking")]
#![allow(dead_code, reason = "the tests use all of the table")]

mod origin;
mod recording;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http_support::wire::{HeadLimits, Parsed, RequestHead};
use origin::Request;
use recording::Origin;
use support::client::{Client, End, Response};
use support::gateway::Setup;
use table::responses::{ANSWERS, Answer, Relay};
use table::{Case, Expect};

/// A server that waits is given up after this.
const QUIET: Duration = Duration::from_millis(250);

fn main() {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().expect("the origin's port").parse().expect("a port");
    let origin = Origin::start_at(([127, 0, 0, 1], port).into(), answer);
    let ours = ("Standfast".to_owned(), Setup::before(origin.address).start());
    let peer = |arg: String| arg.split_once('=').map(|(name, at)| (name.to_owned(), at.parse().unwrap()));
    let peers = args.map(|arg| peer(arg).expect("NAME=ADDRESS"));
    let servers: Vec<(String, SocketAddr)> = std::iter::once(ours).chain(peers).collect();
    let names: Vec<&str> = servers.iter().map(|(name, _)| name.as_str()).collect();
    let mut through = String::new();
    requests(&servers, &names, &origin, &mut through);
    answers(&servers, &names, &mut through);
    println!("\nRows that got through:\n\n{through}");
}

/// `/answer/N` is answered by row N of the table, all else by an empty 200.
fn answer(request: &Request) -> (&'static [u8], bool) {
    let row = request.line.split_once("/answer/").and_then(|(_, row)| row.parse::<usize>().ok());
    row.map_or((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false), |row| {
        (ANSWERS[row].bytes, ANSWERS[row].closes)
    })
}

/// What a server did with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Did {
    /// An error, and nothing reached the origin.
    Refused(u16),
    /// The connection was closed without a word.
    Closed,
    /// What reached the origin has one reading by the rules of this table.
    Forwarded,
    /// What reached the origin has more than one.
    PassedOn,
    /// More was awaited.
    Waited,
}

fn attempt(case: &Case, address: SocketAddr, origin: &Origin) -> (Did, Vec<Request>) {
    origin.take();
    let mut client = Client::connect(address);
    client.send(case.bytes);
    let (responses, end) = client.read(usize::MAX, &[], QUIET);
    drop(client);
    settle();
    let record = origin.take();
    let requests: Vec<Request> = record.requests.into_iter().map(|(_, request)| request).collect();
    let one_reading = record.strange.is_empty() && has_one_reading(&record.raw);
    let refused = responses.iter().map(|response| response.status).find(|status| *status >= 400);
    let did = match refused {
        _ if !one_reading => Did::PassedOn,
        _ if matches!(case.expect, Expect::Refused(_)) && !requests.is_empty() => Did::Forwarded,
        Some(status) => Did::Refused(status),
        None if !requests.is_empty() => Did::Forwarded,
        None if end == End::Closed => Did::Closed,
        None => Did::Waited,
    };
    (did, requests)
}

/// What was on its way when the client got its answer arrives.
#[allow(
    clippy::disallowed_methods,
    reason = "a tool without an arbiter; what it prints is a comparison, not a claim"
)]
fn settle() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Whether the heads at the front of what reached the origin are heads by the rules of this table.
fn has_one_reading(raw: &[u8]) -> bool {
    raw.is_empty()
        || matches!(
            RequestHead::parse(raw, &HeadLimits::default()),
            Ok(Parsed::Complete { .. } | Parsed::Partial)
        )
}

fn requests(servers: &[(String, SocketAddr)], names: &[&str], origin: &Origin, through: &mut String) {
    println!("| requests | rows | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len()));
    for (group, cases) in table::groups() {
        let bad: Vec<_> = cases.iter().filter(|case| !matches!(case.expect, Expect::Accepted(_))).collect();
        let good: Vec<_> = cases.iter().filter(|case| matches!(case.expect, Expect::Accepted(_))).collect();
        let mut cells = (String::new(), String::new());
        for (name, address) in servers {
            let (mut refused, mut repaired, mut passed) = (0, 0, 0);
            for case in &bad {
                match attempt(case, *address, origin).0 {
                    Did::Refused(_) | Did::Closed | Did::Waited => refused += 1,
                    Did::Forwarded => repaired += 1,
                    Did::PassedOn => {
                        passed += 1;
                        let _ = writeln!(through, "- {name}: {} ({})", case.name, case.rule);
                    }
                }
            }
            let alike =
                good.iter().filter(|case| reads_alike(case, &attempt(case, *address, origin).1)).count();
            let _ = write!(cells.0, " {refused} / {repaired} / {passed} |");
            let _ = write!(cells.1, " {alike} |");
        }
        println!("| {group}: to be refused; refused / repaired / passed on | {} |{}", bad.len(), cells.0);
        println!("| {group}: to pass; the origin reads the same | {} |{}", good.len(), cells.1);
    }
}

/// Line, body and number of requests; fields depend on configuration.
fn reads_alike(case: &Case, requests: &[Request]) -> bool {
    let Expect::Accepted(expected) = case.expect else { return false };
    requests.len() == expected.len()
        && requests
            .iter()
            .zip(expected)
            .all(|(request, seen)| request.line == seen.line && request.body == seen.body)
}

fn answers(servers: &[(String, SocketAddr)], names: &[&str], through: &mut String) {
    println!("\n| answers of an origin | rows | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len()));
    for (kind, wanted) in
        [("to be refused: refused", 0), ("to be relayed: relayed", 1), ("broken off: the client can tell", 2)]
    {
        let rows: Vec<_> =
            ANSWERS.iter().enumerate().filter(|(_, answer)| kind_of(answer) == wanted).collect();
        let mut cells = String::new();
        for (name, address) in servers {
            let mut right = 0;
            for (row, answer) in &rows {
                if as_expected(answer, &fetch(*address, answer.method, &format!("/answer/{row}"))) {
                    right += 1;
                } else {
                    let _ = writeln!(through, "- {name}: answer: {} ({})", answer.name, answer.rule);
                }
                let next = fetch(*address, "GET", "/next");
                if next.first().is_none_or(|next| next.status != 200 || !next.body.is_empty()) {
                    let _ =
                        writeln!(through, "- {name}: the NEXT request got {next:?} after: {}", answer.name);
                }
            }
            let _ = write!(cells, " {right} |");
        }
        println!("| {kind} | {} |{cells}", rows.len());
    }
}

fn kind_of(answer: &Answer) -> usize {
    match answer.expect {
        Relay::BadGateway => 0,
        Relay::Relayed { .. } => 1,
        Relay::CutShort { .. } => 2,
    }
}

fn fetch(address: SocketAddr, method: &str, path: &str) -> Vec<Response> {
    let mut client = Client::connect(address);
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client.read(1, &[method], QUIET).0
}

fn as_expected(answer: &Answer, responses: &[Response]) -> bool {
    match (answer.expect, responses) {
        (Relay::BadGateway, [response]) => response.status == 502,
        (Relay::Relayed { status, body, .. }, [response]) => {
            response.status == status && response.body == body && response.whole
        }
        (Relay::CutShort { .. }, [response]) => response.status == 502 || !response.whole,
        _ => false,
    }
}
