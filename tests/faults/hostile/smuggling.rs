//! The smuggling table through edge, balancer and web, each asked directly. What must be refused reaches no origin,
//! and the connection ends; what is good reaches it once and reads the same; what a broken origin answers is refused
//! or broken off, and the next client gets an answer of its own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{Client, End};
use crate::origin::Request;
use crate::recording::Origin;
use crate::table::responses::{ANSWERS, Answer, Relay};
use crate::table::{self, Case, Expect};
use crate::{address_of, before};

/// Bounds how long a failing test takes; no assertion depends on it.
const LIMIT: Duration = Duration::from_secs(20);

/// `/answer/N` is answered by row N of the table, all else by an empty 200.
fn answer(request: &Request) -> (&'static [u8], bool) {
    let row = request.line.split_once("/answer/").and_then(|(_, row)| row.parse::<usize>().ok());
    row.map_or((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false), |row| {
        (ANSWERS[row].bytes, ANSWERS[row].closes)
    })
}

/// What the origin has seen of a row, when a request that came later has been there.
fn seen(tier: SocketAddr, origin: &Origin) -> Result<Vec<Request>, String> {
    let mut client = Client::connect(tier);
    client.send(b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (responses, _) = client.read(usize::MAX, &[], LIMIT);
    if responses.iter().map(|response| response.status).collect::<Vec<_>>() != [200] {
        return Err(format!("it serves nobody else: {responses:?}"));
    }
    let record = origin.take();
    if !record.strange.is_empty() {
        return Err(format!("the origin got {:?}", record.strange));
    }
    let requests = record.requests.into_iter().map(|(_, request)| request);
    Ok(requests
        .filter(|request| !request.line.ends_with("/probe") && !request.line.ends_with("/sentinel"))
        .collect())
}

fn attempt(case: &Case, tier: SocketAddr, origin: &Origin) -> Result<(), String> {
    let mut client = Client::connect(tier);
    client.send(case.bytes);
    let (expected, status) = match case.expect {
        Expect::Refused(status) => (&[][..], Some(status)),
        Expect::RefusedAfter(requests, status) => (requests, Some(status)),
        Expect::Accepted(requests) => (requests, None),
        Expect::Unfinished => {
            client.finish();
            (&[][..], None)
        }
    };
    let methods: Vec<&str> = expected.iter().filter_map(|seen| seen.line.split(' ').next()).collect();
    if let Expect::Accepted(requests) = case.expect {
        let _ = client.read(requests.len(), &methods, LIMIT);
        // If the connection still serves, this one is the next: nothing is left over of the row before it.
        client.send(b"GET /sentinel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    let (responses, end) = client.read(usize::MAX, &methods, LIMIT);
    if end != End::Closed {
        return Err(format!("the connection stayed open after {responses:?}"));
    }
    if status.is_some() && responses.last().map(|response| response.status) != status {
        return Err(format!("answered with {responses:?}, not {status:?}"));
    }
    let seen = seen(tier, origin)?;
    let same = |(got, wanted): (&Request, &table::Seen)| got.line == wanted.line && got.body == wanted.body;
    if seen.len() == expected.len() && seen.iter().zip(expected).all(same) {
        return Ok(());
    }
    Err(format!("the origin saw {:?}", seen.iter().map(|request| &request.line).collect::<Vec<_>>()))
}

fn relay(row: usize, answer: &Answer, tier: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(tier);
    client.send(format!("{} /answer/{row} HTTP/1.1\r\nHost: a\r\n\r\n", answer.method).as_bytes());
    let (responses, end) = client.read(1, &[answer.method], LIMIT);
    let [response] = &responses[..] else { return Err(format!("{} answers", responses.len())) };
    match answer.expect {
        Relay::BadGateway | Relay::CutShort { .. } if response.status == 502 && response.whole => {}
        Relay::Relayed { status, body, .. }
            if response.status == status && response.body == body && response.whole => {}
        Relay::CutShort { status } if response.status == status && !response.whole && end == End::Closed => {}
        expected => return Err(format!("the client got {response:?}, not {expected:?}")),
    }
    let mut next = Client::connect(tier);
    next.send(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (responses, _) = next.read(usize::MAX, &[], LIMIT);
    match &responses[..] {
        [one] if one.status == 200 && one.body.is_empty() => Ok(()),
        _ => Err(format!("the next client got {responses:?}")),
    }
}

/// Good requests that `web` settles itself: what `*` allows it says of itself, and it takes no path with dot segments.
const SETTLED_BY_WEB: &[&str] = &["asterisk of OPTIONS", "OPTIONS of a whole host", "dots stay dots"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tier_of_the_built_stack_passes_on_what_has_two_readings() {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), answer);
    let stack = before(origin.address, "").await;
    for instance in ["edge-1", "balancer-1", "web-1"] {
        let tier = address_of(&stack, instance).await;
        origin.take();
        let rows = || table::groups().into_iter().flat_map(|(_, cases)| cases);
        let failures: Vec<String> = rows()
            .filter(|case| !SETTLED_BY_WEB.contains(&case.name))
            .filter_map(|case| {
                let why = attempt(case, tier, &origin).err()?;
                Some(format!("{} ({}): {why}", case.name, case.rule))
            })
            .collect();
        assert!(failures.is_empty(), "{instance}: {} rows:\n{}", failures.len(), failures.join("\n"));
        let failures: Vec<String> = (ANSWERS.iter().enumerate())
            .filter_map(|(row, answer)| {
                let why = relay(row, answer, tier).err()?;
                Some(format!("{} ({}): {why}", answer.name, answer.rule))
            })
            .collect();
        assert!(failures.is_empty(), "{instance}: {} answers:\n{}", failures.len(), failures.join("\n"));
        println!("{instance}: {} requests, {} answers of a broken origin", rows().count(), ANSWERS.len());
    }
}
