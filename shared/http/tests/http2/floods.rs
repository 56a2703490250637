//! Clients that make work instead of asking for it: each ends within its bound, and is told why.

use std::time::Duration;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, get,
};
use super::scene::{Scene, Stack, until};

/// Sends `unit(n)` until the other side has had enough, at most `max` times. Returns how many it took and its last word.
async fn flood(stack: &Stack, begin: &[u8], max: u32, unit: impl Fn(u32) -> Vec<u8>) -> (u32, u32) {
    let mut raw = Raw::connect(stack.plain).await;
    raw.send(begin).await;
    let mut sent = 0;
    while sent < max {
        let batch: Vec<u8> = (sent..sent + 100).flat_map(&unit).collect();
        if !raw.send(&batch).await {
            break;
        }
        sent += 100;
    }
    let goaway = raw.next_of(&[GOAWAY]).await.expect("it is told why");
    assert!(raw.next_of(&[]).await.is_none(), "then it is closed");
    (sent, goaway.code())
}

/// CVE-2023-44487 (rapid reset), CVE-2019-9512 (PING), -9515 (SETTINGS), -9513 (PRIORITY), -9518 (empty DATA), and windows
/// that open byte by byte. Far more is sent than is taken, and others are served all the while.
#[actix_web::test]
async fn each_flood_of_frames_is_answered_with_enhance_your_calm() {
    let mut scene = Scene::alone();
    scene.limits.http2.frames_burst_max = 1_000;
    let stack = scene.start().await;
    let odd = |n: u32| 2 * n + 1;
    let open = frame(HEADERS, END_HEADERS, 1, &get("/hang", &[]));
    type Unit = Box<dyn Fn(u32) -> Vec<u8>>;
    let table: Vec<(&str, &[u8], Unit)> = vec![
        (
            "rapid reset",
            &[],
            Box::new(move |n| {
                let request = frame(HEADERS, END_HEADERS | END_STREAM, odd(n), &get("/hang", &[]));
                [request, frame(RST_STREAM, 0, odd(n), &8_u32.to_be_bytes())].concat()
            }),
        ),
        ("PING", &[], Box::new(|n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()))),
        ("PING answers", &[], Box::new(|n| frame(PING, ACK, 0, &u64::from(n).to_be_bytes()))),
        ("SETTINGS", &[], Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]))),
        ("PRIORITY", &[], Box::new(move |n| frame(PRIORITY, 0, odd(n), &[0, 0, 0, 0, 1]))),
        ("empty DATA", &open, Box::new(|_| frame(DATA, 0, 1, b""))),
        ("small DATA", &open, Box::new(|_| frame(DATA, 0, 1, b"x"))),
        ("WINDOW_UPDATE", &open, Box::new(|_| frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()))),
        ("unknown frames", &[], Box::new(|_| frame(0xee, 0, 0, b"whatever"))),
    ];
    for (name, begin, unit) in table {
        let (sent, code) = flood(&stack, begin, 200_000, unit).await;
        assert_eq!(code, ENHANCE_YOUR_CALM, "{name}");
        assert!(sent < 200_000, "{name}: all of it was taken");
        until(name, || stack.at_work() == 0).await;
        assert_eq!(stack.get("/respond/1").await.status, 200, "{name}: others are served");
    }
    assert_eq!(stack.restarts(), 0);
}

/// CVE-2024-27316 and its kin: a field section without an end.
#[actix_web::test]
async fn a_field_section_without_an_end_is_cut_off() {
    let stack = Scene::alone().start().await;
    let begin = frame(HEADERS, END_STREAM, 1, &get("/respond/1", &[]));
    let filler: Vec<u8> = super::frames::section(&[(b"x-filler", &[b'a'; 4000])]);
    for payload in [filler, Vec::new()] {
        let (sent, code) =
            flood(&stack, &begin, 1_000_000, move |_| frame(CONTINUATION, 0, 1, &payload)).await;
        assert_eq!(code, ENHANCE_YOUR_CALM);
        assert!(sent < 1_000_000);
    }
    assert_eq!((stack.at_work(), stack.restarts()), (0, 0));
}

/// RFC 9113 section 10.5.1: fields beyond the bound are refused as such, and the connection goes on.
#[actix_web::test]
async fn too_large_a_field_section_is_answered_with_431() {
    let stack = Scene::alone().start().await;
    let mut raw = Raw::connect(stack.plain).await;
    let big = vec![b'a'; 12_000];
    let fields: Vec<(&[u8], &[u8])> = vec![(b"x-big", &big); 4];
    let section = get("/respond/1", &fields);
    let mut parts = section.chunks(16_000).enumerate().peekable();
    while let Some((at, part)) = parts.next() {
        let (kind, flags) = if at == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let flags = if parts.peek().is_none() { flags | END_HEADERS } else { flags };
        raw.send(&frame(kind, flags, 1, part)).await;
    }
    assert_eq!(raw.next_of(&[HEADERS]).await.unwrap().status(), 431);
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/respond/1", &[]))).await;
    assert_eq!(raw.next_of(&[HEADERS]).await.unwrap().status(), 200);
}

/// CVE-2019-9511, -9517: a client that asks for much and takes nothing holds memory for a while and not for ever.
#[actix_web::test]
async fn who_takes_nothing_of_its_responses_is_let_go() {
    let mut scene = Scene::alone();
    scene.limits.send_idle_timeout = Duration::from_millis(500);
    let stack = scene.start().await;
    let mut raw = Raw::connect(stack.plain).await;
    // A window of nothing for each stream.
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    for n in 0..50 {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get("/respond/100000", &[]))).await;
    }
    until("they wait for room", || stack.at_work() == 50).await;
    until("they were given up", || stack.at_work() == 0).await;
    let mut resets = 0;
    while resets < 50 {
        resets += usize::from(raw.next_of(&[RST_STREAM]).await.is_some());
    }
    // Windows wide open, and a socket that is not read.
    let mut raw = Raw::connect(stack.plain).await;
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())).await;
    for n in 0..20 {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get("/respond/8000000", &[]))).await;
    }
    until("they wait for the socket", || stack.at_work() == 20).await;
    until("the connection was given up", || stack.at_work() == 0).await;
}

/// A body by drips, or none at all after its announcement.
#[actix_web::test]
async fn a_body_that_does_not_come_is_given_up() {
    let mut scene = Scene::alone();
    scene.limits.body_idle_timeout = Duration::from_millis(400);
    let stack = scene.start().await;
    let mut raw = Raw::connect(stack.plain).await;
    raw.send(&frame(HEADERS, END_HEADERS, 1, &get("/echo", &[]))).await;
    assert!(raw.next_of(&[RST_STREAM]).await.is_some());
    assert_eq!(stack.at_work(), 0);
}

/// Whoever only connects, or begins a preface and stops, holds a connection for `head_timeout` and no longer.
#[actix_web::test]
async fn half_a_preface_is_not_waited_for() {
    let mut scene = Scene::alone();
    scene.limits.head_timeout = Duration::from_millis(300);
    let stack = scene.start().await;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(stack.plain).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.unwrap();
    let mut last = String::new();
    socket.read_to_string(&mut last).await.unwrap();
    assert!(last.starts_with("HTTP/1.1 408"), "{last}"); // it has not said yet that it speaks anything else
    // And one that comes byte by byte is one.
    let stack = Scene::alone().start().await;
    let mut socket = tokio::net::TcpStream::connect(stack.plain).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        socket.write_all(&[*byte]).await.unwrap();
    }
    socket.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], SETTINGS);
}
