//! Origins that stall, lie, flood and leave. The client always learns what happened, and the next one is not hurt.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::scripted::{origin, read_to_close, write_for_ever};
use crate::support::client::{Client, End, Response};
use crate::support::gateway::Setup;
use crate::{LIMIT, still_serves};

/// A gateway with short times before an origin that does this.
fn before(script: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let mut setup = Setup::before(origin(script));
    let short = Duration::from_millis(500);
    (setup.timeouts.first_byte, setup.timeouts.idle, setup.timeouts.connect) = (short, short, short);
    setup.start()
}

fn get(gateway: SocketAddr) -> (Vec<Response>, End) {
    let mut client = Client::connect(gateway);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").read(usize::MAX, &[], LIMIT)
}

fn gets(gateway: SocketAddr, status: u16) {
    let (responses, end) = get(gateway);
    assert_eq!((responses.len(), end), (1, End::Closed), "{responses:?}");
    assert!(responses[0].status == status && responses[0].whole, "{responses:?}");
    still_serves(gateway);
}

/// The head came and the body broke off: the client can tell.
fn gets_cut_short(gateway: SocketAddr) {
    let (responses, end) = get(gateway);
    assert_eq!((responses.len(), end), (1, End::Closed), "{responses:?}");
    assert!(responses[0].status == 200 && !responses[0].whole, "{responses:?}");
    still_serves(gateway);
}

/// RFC 9110 section 15.6.5.
#[test]
fn an_origin_that_never_answers_is_given_up() {
    gets(before(|stream| _ = read_to_close(stream)), 504);
}

#[test]
fn an_origin_that_stops_in_its_head_is_given_up() {
    let gateway = before(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
        read_to_close(stream);
    });
    gets(gateway, 504);
}

/// Drips renew no clock that a head has: it is bounded as a whole.
#[test]
fn an_origin_whose_head_drips_for_ever_is_given_up() {
    let gateway = before(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        drip(stream, b"y");
    });
    gets(gateway, 504);
}

#[test]
fn an_origin_that_stops_in_its_body_is_given_up() {
    let gateway = before(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        read_to_close(stream);
    });
    gets_cut_short(gateway);
}

#[test]
fn an_origin_that_closes_in_its_body_is_seen_to() {
    let gateway = before(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    gets_cut_short(gateway);
}

#[test]
fn an_origin_that_resets_is_a_bad_gateway() {
    let gateway = before(|stream| {
        let socket = socket_of(stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap(); // closing is a reset now
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    gets(gateway, 502);
}

#[test]
fn an_origin_that_refuses_is_a_bad_gateway() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (responses, _) = get(Setup::before(closed).start());
    assert_eq!(responses[0].status, 502);
}

#[test]
fn an_origin_that_talks_nonsense_is_a_bad_gateway() {
    gets(before(|stream| _ = write_for_ever(stream, b"\x00\x01nonsense ")), 502);
    gets(before(|stream| _ = write_for_ever(stream, b"HTTP")), 502);
}

/// RFC 9110 section 15.2: an interim response renews the wait, so their number is bounded.
#[test]
fn interim_responses_without_end_are_a_bad_gateway() {
    gets(before(|stream| _ = write_for_ever(stream, b"HTTP/1.1 103 Early Hints\r\n\r\n")), 502);
    let gateway = before(|stream| drip(stream, b"HTTP/1.1 102 Processing\r\n\r\n"));
    gets(gateway, 502);
}

/// A head without end is not held in memory.
#[test]
fn fields_without_end_are_a_bad_gateway() {
    for piece in [&b"X: yyyyyyyyyyyyyy\r\n"[..], &[b'x'; 4096]] {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let gateway = before(move |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            count.store(write_for_ever(stream, piece), SeqCst);
        });
        gets(gateway, 502);
        crate::until("the origin is let go", || taken.load(SeqCst) > 0);
        assert!(taken.load(SeqCst) < 16 << 20, "{} bytes", taken.load(SeqCst));
    }
}

#[test]
fn chunk_framing_without_end_is_cut_short() {
    for piece in [&b"1;xxxxxxxxxxxxxxxx\r\na\r\n"[..], b"0\r\nX: y\r\nX: y\r\nX: y\r\n"] {
        let gateway = before(move |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
            let _ = stream.write_all(piece);
            write_for_ever(stream, &piece[piece.len() - 6..]);
        });
        let (responses, end) = get(gateway);
        assert_eq!((responses.len(), end), (1, End::Closed), "{responses:?}");
        assert!(!responses[0].whole || responses[0].status == 502, "{responses:?}");
        still_serves(gateway);
    }
}

/// RFC 9112 section 6.3: a surplus that comes after the response is nobody's, as long as it comes before the next
/// request is sent. (One that comes later still cannot be told from its answer; that is HTTP/1.)
#[test]
fn a_surplus_that_comes_late_is_nobodys_response() {
    let surplus = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&surplus);
    let gateway = before(move |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        count.fetch_add(1, SeqCst);
    });
    for round in 1..=50 {
        let (responses, _) = get(gateway);
        assert_eq!((responses.len(), responses[0].body.as_slice()), (1, &b"hello"[..]), "{responses:?}");
        crate::until("the surplus is on its way", || surplus.load(SeqCst) == round);
        still_serves(gateway);
    }
}

/// RFC 9112 section 9.5: an answer before the end of the request; what is left of it must not become the next request.
#[test]
fn an_early_answer_does_not_leave_half_a_request_behind() {
    let gateway = before(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        read_to_close(stream);
    });
    let mut client = Client::connect(gateway);
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nGET /well HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let (responses, end) = client.read(usize::MAX, &[], LIMIT);
    let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    assert_eq!((statuses, end), (vec![403], End::Closed));
    still_serves(gateway);
}

/// RFC 9110 section 10.1.1: the origin refuses instead of 100; the body that was never sent is not waited for.
#[test]
fn a_refused_expectation_ends_the_exchange() {
    let gateway = before(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
        read_to_close(stream);
    });
    let mut client = Client::connect(gateway);
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n");
    let (responses, end) = client.read(1, &[], LIMIT);
    assert_eq!((responses[0].status, end), (417, End::Enough));
    still_serves(gateway);
}

/// Writes a piece every 100 ms until the other side closes.
fn drip(stream: &mut TcpStream, piece: &[u8]) {
    while stream.write_all(piece).is_ok() {
        pause(Duration::from_millis(100));
    }
}

#[allow(clippy::disallowed_methods, reason = "a thread of the test's own, which is to be slow")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn socket_of(stream: &TcpStream) -> socket2::SockRef<'_> {
    socket2::SockRef::from(stream)
}
