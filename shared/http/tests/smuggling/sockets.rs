//! The table over sockets: a real client, a real gateway, a recording origin. A refusal must be answered, the connection
//! must close, and nothing complete may have reached the origin.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Came;
use crate::origin::Request;
use crate::recording::{Origin, Record};
use crate::support::client::{Client, End, Response};
use crate::support::gateway::Setup;
use crate::table::responses::{ANSWERS, Answer, Relay};
use crate::table::{self, Case, Expect};

/// Bounds how long a failing test takes; no assertion depends on it.
pub const LIMIT: Duration = Duration::from_secs(5);

/// `/answer/N` is answered by row N of the table, all else by an empty 200.
fn answer(request: &Request) -> (&'static [u8], bool) {
    let row = request.line.split_once("/answer/").and_then(|(_, row)| row.parse::<usize>().ok());
    row.map_or((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false), |row| {
        (ANSWERS[row].bytes, ANSWERS[row].closes)
    })
}

pub fn stack() -> (SocketAddr, Origin) {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), answer);
    (Setup::before(origin.address).start(), origin)
}

/// Sends one request on a connection of its own: the gateway serves others. Returns what the origin has seen beside it.
pub fn probe(gateway: SocketAddr, origin: &Origin) -> Record {
    let mut client = Client::connect(gateway);
    client.send(b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (responses, end) = client.read(usize::MAX, &[], LIMIT);
    assert_eq!(
        (responses.len(), responses[0].status, end),
        (1, 200, End::Closed),
        "the gateway serves others"
    );
    let mut record = origin.take();
    let probe = record.requests.iter().rposition(|(_, request)| request.line == "GET /probe");
    record.requests.remove(probe.expect("the probe was recorded before it was answered"));
    record
}

fn attempt(case: &Case, gateway: SocketAddr, origin: &Origin) -> Result<(), String> {
    let mut client = Client::connect(gateway);
    client.send(case.bytes);
    let (responses, end, sentinel) = match case.expect {
        Expect::Accepted(requests) => {
            let methods: Vec<&str> = requests.iter().filter_map(|seen| seen.line.split(' ').next()).collect();
            let (first, _) = client.read(requests.len(), &methods, LIMIT);
            // If the connection still serves, this one is the next: nothing is left over of the row before it.
            client.send(b"GET /sentinel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let (all, end) = client.read(usize::MAX, &methods, LIMIT);
            (all, end, first.len() == requests.len())
        }
        Expect::Unfinished => {
            client.finish();
            let (responses, end) = client.read(usize::MAX, &[], LIMIT);
            (responses, end, true)
        }
        Expect::Refused(_) | Expect::RefusedAfter(..) => {
            let (responses, end) = client.read(usize::MAX, &[], LIMIT);
            (responses, end, true)
        }
    };
    if end != End::Closed {
        return Err(format!("the connection stayed open after {responses:?}"));
    }
    if !sentinel {
        return Err(format!("only {} answers", responses.len()));
    }
    came(&responses, probe(gateway, origin), case.expect)?.check(case.expect)
}

fn came(responses: &[Response], record: Record, expect: Expect) -> Result<Came, String> {
    if !record.strange.is_empty() {
        return Err(format!("the origin got {:?}: {}", record.strange, record.raw.escape_ascii()));
    }
    let mut seen: Vec<Request> = record.requests.into_iter().map(|(_, request)| request).collect();
    seen.pop_if(|request| request.line == "GET /sentinel");
    let mut refusals = responses.iter().map(|response| response.status).filter(|status| *status != 200);
    let waits = matches!(expect, Expect::Unfinished);
    let refused = if waits { None } else { refusals.next_back() };
    Ok(Came { seen, refused, waits })
}

#[test]
fn no_smuggled_request_gets_through_a_gateway() {
    let (gateway, origin) = stack();
    let failures: Vec<String> = table::groups()
        .into_iter()
        .flat_map(|(_, cases)| cases)
        .filter_map(|case| {
            attempt(case, gateway, &origin).err().map(|why| format!("{} ({}): {why}", case.name, case.rule))
        })
        .collect();
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

fn relay(row: usize, answer: &Answer, gateway: SocketAddr, origin: &Origin) -> Result<(), String> {
    let mut client = Client::connect(gateway);
    client.send(format!("{} /answer/{row} HTTP/1.1\r\nHost: a\r\n\r\n", answer.method).as_bytes());
    let (responses, end) = client.read(1, &[answer.method], LIMIT);
    let [response] = &responses[..] else { return Err(format!("{} answers", responses.len())) };
    match answer.expect {
        Relay::BadGateway if response.status == 502 && response.whole => {}
        Relay::Relayed { status, body, .. }
            if response.status == status && response.body == body && response.whole && !response.by_close => {
        }
        // Where nothing had gone to the client yet there may be a 502 instead.
        Relay::CutShort { status } if response.status == status && !response.whole && end == End::Closed => {}
        Relay::CutShort { .. } if response.status == 502 && response.whole => {}
        expected => return Err(format!("the client got {response:?}, not {expected:?}")),
    }
    // Whoever comes next must get an answer of its own.
    let mut next = Client::connect(gateway);
    next.send(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (responses, _) = next.read(usize::MAX, &[], LIMIT);
    let got: Vec<_> = responses.iter().map(|response| (response.status, response.body.len())).collect();
    if got != [(200, 0)] {
        return Err(format!("the next client got {responses:?}"));
    }
    let record = origin.take();
    let of = |path: &str| {
        record.requests.iter().rfind(|(_, request)| request.line.contains(path)).map(|(at, _)| *at)
    };
    let reused = of("/answer/") == of("/next");
    let expected = matches!(answer.expect, Relay::Relayed { reused: true, .. });
    if reused == expected { Ok(()) } else { Err(format!("the connection was reused: {reused}")) }
}

fn relays_every_answer(fetches: bool) {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), answer);
    let mut setup = Setup::before(origin.address);
    setup.fetches = fetches;
    let gateway = setup.start();
    let failures: Vec<String> = ANSWERS
        .iter()
        .enumerate()
        .filter_map(|(row, answer)| {
            let why = relay(row, answer, gateway, &origin).err()?;
            Some(format!("{} ({}): {why}", answer.name, answer.rule))
        })
        .collect();
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn no_client_gets_what_an_origin_did_not_mean_for_it() {
    relays_every_answer(false);
}

/// A cache would keep it, and give it to all.
#[test]
fn nothing_is_fetched_that_an_origin_did_not_mean() {
    relays_every_answer(true);
}
