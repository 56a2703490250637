//! Clients that send too much, too slowly, or never take what they asked for.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::scripted::{origin, read_to_close, well, write_for_ever};
use crate::support::client::{Client, End};
use crate::support::gateway::Setup;
use crate::{LIMIT, statuses, still_serves};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A head without end is refused at its bound, whichever part of it has none, and no more of it is read than a little.
#[test]
fn a_head_without_end_is_refused_at_its_bound() {
    let gateway = Setup::before(well()).start();
    let floods: [(&[u8], &[u8]); 4] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &[b'x'; 4096]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: yyyyyyyyyyyy\r\n"),
        (b"GET /", &[b'x'; 4096]),
        (b"", &[b'X'; 4096]),
    ];
    for (start, piece) in floods {
        let mut client = Client::connect(gateway);
        client.send(start);
        let sent = client.flood(piece, 256 << 20, LIMIT);
        assert!(sent < 64 << 20, "{sent} bytes were taken"); // what sockets and lingering hold, not 256 MiB
        let (responses, end) = client.read(1, &[], LIMIT);
        // Whether the answer is read or lost to the reset that stopped the flood is up to the kernel; which bound was met
        // first, to how the flood was cut into reads.
        let refusal = |status: u16| matches!(status, 414 | 431 | 501);
        assert!(responses.iter().all(|response| refusal(response.status)), "{responses:?} {end:?}");
        still_serves(gateway);
    }
    assert_eq!(statuses(gateway, &[b"GET /".as_slice(), &[b'x'; 9000]].concat()), [414]);
    assert_eq!(
        statuses(gateway, &[b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'x'; 33_000]].concat()),
        [431]
    );
    assert_eq!(
        statuses(gateway, &[b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &b"X: y\r\n".repeat(120)].concat()),
        [431]
    );
}

/// RFC 9110 section 15.5.9: the time for a head runs from its first byte and no drip renews it.
#[test]
fn a_head_that_drips_is_ended_by_its_time() {
    let mut setup = Setup::before(well());
    setup.limits.head_timeout = ms(500);
    let gateway = setup.start();
    let mut client = Client::connect(gateway);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n");
    let (mut drips, mut answer) = (0, (Vec::new(), End::Quiet));
    while answer.1 == End::Quiet && drips < 400 {
        client.send(b"X: y\r\n");
        answer = client.read(usize::MAX, &[], ms(50));
        drips += 1;
    }
    assert_eq!((answer.0.len(), answer.0[0].status, answer.1), (1, 408, End::Closed));
    still_serves(gateway);
}

/// A connection on which nothing is asked is closed, the first and any later time.
#[test]
fn silence_is_ended_by_its_time() {
    let mut setup = Setup::before(well());
    (setup.limits.head_timeout, setup.limits.keep_alive) = (ms(300), ms(300));
    let gateway = setup.start();
    let mut client = Client::connect(gateway);
    assert_eq!(client.read(usize::MAX, &[], LIMIT).1, End::Closed);
    let mut client = Client::connect(gateway);
    client.send(b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n");
    let (responses, end) = client.read(usize::MAX, &[], LIMIT);
    assert_eq!((responses.len(), end), (1, End::Closed));
}

/// RFC 9110 section 15.5.9: a body that stops coming.
#[test]
fn a_body_that_stalls_is_ended_by_its_time() {
    let mut setup = Setup::before(origin(|stream| {
        read_to_close(stream);
    }));
    setup.limits.body_idle_timeout = ms(300);
    let gateway = setup.start();
    for body in [
        &b"Content-Length: 10\r\n\r\nabc"[..],
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let request = [b"POST / HTTP/1.1\r\nHost: a\r\n".as_slice(), body].concat();
        assert_eq!(statuses(gateway, &request), [408]);
    }
    still_serves(gateway);
}

/// RFC 9110 section 15.5.14, announced or not; the origin gets no complete request.
#[test]
fn a_body_beyond_its_bound_is_refused() {
    let mut setup = Setup::before(origin(|stream| {
        read_to_close(stream);
    }));
    setup.limits.request_body_bytes_max = 100_000;
    setup.limits.linger_bytes_max = 1 << 20;
    let gateway = setup.start();
    let mut client = Client::connect(gateway);
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\nabc");
    assert_eq!(client.read(1, &[], LIMIT).0[0].status, 413);
    let mut client = Client::connect(gateway);
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let sent = client.flood(&[b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat(), 64 << 20, LIMIT);
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    let (responses, _) = client.read(1, &[], LIMIT);
    assert!(responses.iter().all(|response| response.status == 413), "{responses:?}");
    still_serves(gateway);
}

/// Chunk framing can cost more than its data: extensions and trailers have a bound of their own.
#[test]
fn framing_without_end_is_refused() {
    let gateway = Setup::before(origin(|stream| {
        read_to_close(stream);
    }))
    .start();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        [b"1;".as_slice(), &[b'x'; 5000]].concat(),
        b"1;xxxxxxxxxx\r\na\r\n".repeat(1000),
        [b"0\r\n".as_slice(), &b"X: y\r\n".repeat(2000)].concat(),
        [b"0\r\nX: ".as_slice(), &[b'x'; 9000]].concat(),
    ] {
        assert_eq!(statuses(gateway, &[head.as_slice(), &body].concat()), [400]);
    }
    still_serves(gateway);
}

/// Back-pressure: what a client does not take, its origin is not asked for; and in the end it is cut off.
#[test]
fn a_client_that_takes_nothing_is_cut_off_and_costs_little() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let mut setup = Setup::before(origin(move |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        count.store(write_for_ever(stream, &[7; 64 << 10]).max(1), SeqCst);
    }));
    setup.limits.send_idle_timeout = ms(500);
    let gateway = setup.start();
    let mut client = Client::connect(gateway);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    crate::until("the origin is let go", || taken.load(SeqCst) > 0);
    let taken = taken.load(SeqCst);
    assert!(taken < 32 << 20, "{taken} bytes went nowhere"); // the sockets' own buffers, both of them
    still_serves(gateway);
}

/// Requests without end whose answers nobody reads: they wait in the client's own socket.
#[test]
fn a_pipeline_without_end_is_not_read_ahead() {
    let mut setup = Setup::before(well());
    setup.limits.send_idle_timeout = ms(500);
    let gateway = setup.start();
    let mut client = Client::connect(gateway);
    let piece = b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let sent = client.flood(&piece, 1 << 30, Duration::from_secs(2));
    assert!(sent < 512 << 20, "{sent} bytes were taken");
    still_serves(gateway);
}

/// A client that leaves takes its upstream request with it, long before the origin's time is over.
#[test]
fn a_client_that_leaves_frees_its_origin() {
    let freed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&freed);
    let gateway = Setup::before(origin(move |stream| {
        read_to_close(stream); // never answers
        count.fetch_add(1, SeqCst);
    }))
    .start();
    for _ in 0..3 {
        let mut client = Client::connect(gateway);
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read(1, &[], ms(50));
    }
    crate::until("all three are let go", || freed.load(SeqCst) == 3);
    still_serves(gateway);
}

/// A connection may not be used for ever: an operator can drain and rebalance.
#[test]
fn a_connection_ends_after_so_many_requests() {
    let mut setup = Setup::before(well());
    setup.limits.requests_per_connection_max = 3;
    let gateway = setup.start();
    assert_eq!(statuses(gateway, &b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10)), [200, 200, 200]);
}

/// RFC 9110 section 7.6.2: what may not be forwarded any more is answered here.
#[test]
fn a_request_at_the_end_of_its_forwards_is_answered() {
    let gateway = Setup::before(origin(|stream| {
        read_to_close(stream); // never answers
    }))
    .start();
    let request = |method: &str| {
        format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(statuses(gateway, request("OPTIONS").as_bytes()), [200]);
    assert_eq!(statuses(gateway, request("TRACE").as_bytes()), [501]);
}
