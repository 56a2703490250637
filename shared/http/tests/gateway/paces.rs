//! Who sends or takes a byte now and then, each in time, is given up all the same.

use std::time::Duration;

use http_support::gateway::{GatewayLimits, LeastRate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::client::{answering, ok};
use super::scene::{Scene, Stack};

const GRACE: Duration = Duration::from_millis(500);
const TOO_LATE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(20);

fn limits() -> GatewayLimits {
    let rate = LeastRate { grace: GRACE, bytes_per_second: 1_000, total: None };
    GatewayLimits { body_rate: rate, send_rate: rate, ..GatewayLimits::default() }
}

async fn scene(limits: GatewayLimits) -> Stack {
    let size = |path: &str| path.rsplit('/').next().and_then(|size| size.parse().ok()).unwrap_or(0);
    let origin = answering(move |request| ok(&"o".repeat(size(request.path())))).await;
    Scene { limits, ..Scene::before(origin) }.start().await
}

/// Sends `piece` in each pause until it is answered; the status.
async fn trickle(stack: &Stack, head: &str, piece: &[u8]) -> u16 {
    let mut client = stack.connect().await;
    client.send(head).await;
    let (mut read, mut write) = client.stream.split();
    let mut answer = vec![0; 1024];
    let sending = async {
        while write.write_all(piece).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending().await
    };
    let len = tokio::select! {
        len = tokio::time::timeout(TOO_LATE, read.read(&mut answer)) => len.expect("it is given up").unwrap(),
        () = sending => unreachable!("it never ends"),
    };
    String::from_utf8_lossy(&answer[..len]).split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0)
}

const COUNTED: &str = "Content-Length: 1000\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[actix_web::test]
async fn a_body_that_trickles_in_is_a_408_and_one_at_the_least_rate_is_not() {
    let stack = scene(limits()).await;
    for path in ["/forwarded", "/echo"] {
        for (framing, piece) in [(COUNTED, &b"x"[..]), (CHUNKED, b"1\r\nx\r\n")] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n");
            let began = clock::now();
            let status = trickle(&stack, &head, piece).await;
            assert_eq!(status, 408, "{path} {framing}");
            assert!(clock::now() - began >= GRACE, "it has a grace");
        }
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n");
        assert_eq!(trickle(&stack, &head, &[b'x'; 200]).await, 200, "{path}: slow, and fast enough");
    }
}

/// gRPC's streams are slow by their nature.
#[actix_web::test]
async fn a_body_that_lasts_by_its_nature_has_no_least_rate() {
    let stack = scene(limits()).await;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 60\r\n\r\n";
    let began = clock::now();
    assert_eq!(trickle(&stack, head, b"x").await, 200);
    assert!(clock::now() - began > GRACE, "it took longer than the grace");
}

/// Also what keeps to the rate ends in the time that a body may take in all.
#[actix_web::test]
async fn a_body_may_take_only_so_long_in_all() {
    let rate = LeastRate { grace: GRACE, bytes_per_second: 0, total: Some(Duration::from_secs(1)) };
    let stack = scene(GatewayLimits { body_rate: rate, ..GatewayLimits::default() }).await;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n";
    let began = clock::now();
    assert_eq!(trickle(&stack, head, &[b'x'; 200]).await, 408);
    assert!(clock::now() - began >= Duration::from_secs(1));
}

/// A reader that takes a little now and then. Its socket is small, so that it is its pace that counts.
#[actix_web::test]
async fn a_client_that_takes_its_answer_in_crumbs_is_cut_off() {
    let stack = scene(limits()).await;
    for path in ["/forwarded/16000000", "/respond/16000000", "/file/16000000", "/stream/2000000"] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut client = socket.connect(stack.listener.address()).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let began = clock::now();
        let mut crumb = [0; 8];
        let mut taken = 0;
        // What lies in its own socket when it is cut off is read on, in crumbs no longer.
        while clock::now() - began < Duration::from_secs(3) {
            taken += client.read(&mut crumb).await.unwrap_or(0);
            tokio::time::sleep(PAUSE).await;
        }
        let rest = async {
            let mut all = vec![0; 64 << 10];
            while let Ok(len @ 1..) = client.read(&mut all).await {
                taken += len;
            }
        };
        let ended = tokio::time::timeout(TOO_LATE, rest).await;
        assert!(ended.is_ok(), "{path}: it is not cut off, {taken} bytes");
        assert!(taken < 16_000_000, "{path}: it had all of it, {taken} bytes");
    }
}
