//! To an origin that speaks HTTP/2, from clients of either version.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::scene::{Got, Scene, request, send_all};

type Respond = SendResponse<Bytes>;

/// An origin on the h2 crate's server. `serve` is told the number of the request on its connection, from 1.
struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn origin<F>(
    serve: impl Fn(usize, Request<RecvStream>, Respond) -> F + Clone + Send + 'static,
) -> Origin
where
    F: Future<Output = ()> + Send + 'static,
{
    origin_with(move |mut connection: Connection<TcpStream, Bytes>| {
        let serve = serve.clone();
        async move {
            let mut nth = 0;
            while let Some(Ok((request, respond))) = connection.accept().await {
                nth += 1;
                tokio::spawn(serve(nth, request, respond));
            }
        }
    })
    .await
}

async fn origin_with<F>(drive: impl Fn(Connection<TcpStream, Bytes>) -> F + Send + 'static) -> Origin
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let origin = Origin { address: listener.local_addr().unwrap(), connections: connections.clone() };
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::Relaxed);
            let connection = h2::server::handshake(socket).await.unwrap();
            tokio::spawn(drive(connection));
        }
    });
    origin
}

impl Origin {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Answers with the request's head as text.
async fn mirror(_: usize, request: Request<RecvStream>, mut respond: Respond) {
    let fields: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    let text = format!("{} {}\n{}", request.method(), request.uri(), fields.concat());
    let response = Response::builder().header("x-kind", "mirror").header("content-length", text.len());
    let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
    body.send_data(text.into(), true).unwrap();
}

/// Sends back what comes as it comes, and how much it was as a trailer.
async fn echo(_: usize, request: Request<RecvStream>, mut respond: Respond) {
    let hint = Response::builder().status(103).header("link", "</x>").body(()).unwrap();
    respond.send_informational(hint).unwrap();
    let mut back = respond.send_response(Response::new(()), false).unwrap();
    let mut body = request.into_body();
    let mut total = 0;
    while let Some(Ok(part)) = body.data().await {
        total += part.len();
        body.flow_control().release_capacity(part.len()).unwrap();
        send_all(&mut back, part, false).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-total", total.into());
    back.send_trailers(trailers).unwrap();
}

/// RFC 9110 section 7.6 again: what goes on is made anew, in HTTP/2's terms.
#[actix_web::test]
async fn requests_of_either_version_become_streams() {
    let stack = Scene::before_http2(origin(mirror).await.address).start().await;
    let mut client = stack.connect().await;
    let mut asked = request("GET", "/a?b=c");
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, _) = client.send_request(asked, true).unwrap();
    let seen = Got::read(response.await.unwrap()).await;
    assert_eq!((seen.status, seen.field("x-kind")), (200, Some("mirror")));
    for line in ["GET http://site.test/a?b=c", "te: trailers", "via: 2 gw", "x-forwarded-for: 127.0.0.1"] {
        assert!(seen.text().lines().any(|seen| seen == line), "{line} is missing in {}", seen.text());
    }
    let url = format!("http://site.test:{}/a?b=c", stack.plain.port());
    let resolve = format!("site.test:{}:127.0.0.1", stack.plain.port());
    let curl = tokio::process::Command::new("curl")
        .args([
            "-sSi",
            "--http1.1",
            "--resolve",
            &resolve,
            "-H",
            "Connection: x-hop",
            "-H",
            "X-Hop: 1",
            "-d",
            "hello",
            &url,
        ])
        .output()
        .await
        .unwrap();
    let seen = String::from_utf8_lossy(&curl.stdout).into_owned();
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("Content-Length: "), "{seen}");
    for line in
        [&format!("POST http://site.test:{}/a?b=c", stack.plain.port()), "content-length: 5", "via: 1.1 gw"]
    {
        assert!(seen.lines().any(|seen| seen == line), "{line} is missing in {seen}");
    }
    assert!(!seen.contains("x-hop") && !seen.lines().any(|line| line.starts_with("host:")), "{seen}");
}

/// What gRPC needs: each part is answered before the next is sent, and the trailer section has the last word.
#[actix_web::test]
async fn both_directions_run_at_once_from_end_to_end() {
    let stack = Scene::before_http2(origin(echo).await.address).start().await;
    let mut client = stack.connect().await;
    let (mut response, mut body) = client.send_request(request("POST", "/"), false).unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(interim.headers()["link"].to_str().unwrap(), "</x>");
    let mut back = response.await.unwrap().into_body();
    for part in ["first", "second", "third"] {
        body.send_data(part.into(), false).unwrap();
        assert_eq!(back.data().await.unwrap().unwrap(), part);
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert!(back.data().await.is_none());
    assert_eq!(back.trailers().await.unwrap().unwrap()["x-total"], "16");
}

#[actix_web::test]
async fn megabytes_go_through_from_clients_of_either_version() {
    let stack = Scene::before_http2(origin(echo).await.address).start().await;
    let dir = tempfile::tempdir().unwrap();
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    let bytes: Vec<u8> = (0..6 << 20).map(|at: u32| (at % 251) as u8).collect();
    std::fs::write(&up, &bytes).unwrap();
    let (data, url) = (format!("@{}", up.display()), format!("http://localhost:{}/", stack.plain.port()));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for more in [&["-H", "Transfer-Encoding: chunked"][..], &[]] {
            if version != "--http1.1" && !more.is_empty() {
                continue;
            }
            let curl = tokio::process::Command::new("curl")
                .args([
                    "-sS",
                    "--max-time",
                    "60",
                    version,
                    "-o",
                    down.to_str().unwrap(),
                    "--data-binary",
                    &data,
                ])
                .args(more)
                .arg(&url)
                .output()
                .await
                .unwrap();
            assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
            assert!(std::fs::read(&down).unwrap() == bytes, "{version} {more:?}");
        }
    }
}

/// Health checks and fills of the cache go the same way.
#[actix_web::test]
async fn a_request_of_our_own_is_a_stream_too() {
    let origin = origin(|nth, request: Request<RecvStream>, respond| async move {
        match request.uri().path() {
            "/mirror" => mirror(nth, request, respond).await,
            "/echo" => echo(nth, request, respond).await,
            _ => std::future::pending().await,
        }
    })
    .await;
    let mut scene = Scene::before_http2(origin.address);
    scene.timeouts.first_byte = Duration::from_millis(300);
    let stack = scene.start().await;
    let seen = stack.get("/fetch/mirror").await.text();
    assert!(
        seen.starts_with("[] 200 ") && seen.contains("GET http://origin.test/mirror\nx-fetch: 1\n"),
        "{seen}"
    );
    let mut client = stack.connect().await;
    let (response, mut body) = client.send_request(request("POST", "/fetch/echo"), false).unwrap();
    send_all(&mut body, vec![b'x'; 3 << 20].into(), true).await;
    let seen = Got::read(response.await.unwrap()).await.text();
    assert!(
        seen.starts_with("[103] 200 3145728 bytes, trailers [x-total: 3145728], last part: xxx"),
        "{seen}"
    );
    assert_eq!(origin.connections(), 1);
    assert_eq!(stack.get("/fetch/silence").await.status, 504);
    assert_eq!(stack.get("/fetch/mirror").await.status, 200);
    assert_eq!(origin.connections(), 2, "who does not answer is left");
}

#[actix_web::test]
async fn many_requests_share_one_connection() {
    let origin = origin(mirror).await;
    let stack = Scene::before_http2(origin.address).start().await;
    let client = stack.connect().await;
    let all = (0..50).map(|_| {
        let client = client.clone();
        async move {
            let mut client = client.ready().await.unwrap();
            let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
            Got::read(response.await.unwrap()).await.status
        }
    });
    assert_eq!(futures_util::future::join_all(all).await, [200; 50]);
    assert_eq!(origin.connections(), 1);
}

/// RFC 9113 section 6.8: a server that leaves is followed by a new connection, and no request is lost in between.
#[actix_web::test]
async fn a_server_that_says_goaway_loses_no_request() {
    let origin = origin_with(|mut connection| async move {
        let mut nth = 0;
        while let Some(Ok((request, respond))) = connection.accept().await {
            nth += 1;
            tokio::spawn(mirror(nth, request, respond));
            if nth == 3 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let stack = Scene::before_http2(origin.address).start().await;
    for n in 0..20 {
        assert_eq!(stack.get("/").await.status, 200, "request {n}");
    }
    assert!(origin.connections() >= 4, "{} connections", origin.connections());
}

/// RFC 9113 section 8.7: what was refused has not been looked at, so even a POST is sent again.
#[actix_web::test]
async fn a_refused_stream_is_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let origin = origin(move |nth, request, mut respond: Respond| {
        let second = seen.fetch_add(1, Ordering::Relaxed) == 1;
        async move {
            match second {
                true => respond.send_reset(Reason::REFUSED_STREAM),
                false => mirror(nth, request, respond).await,
            }
        }
    })
    .await;
    let stack = Scene::before_http2(origin.address).start().await;
    for n in 0..4 {
        let mut client = stack.connect().await;
        let (response, _) = client.send_request(request("POST", "/"), true).unwrap();
        assert_eq!(Got::read(response.await.unwrap()).await.status, 200, "request {n}");
    }
    assert_eq!(origin.connections(), 2);
}

#[actix_web::test]
async fn a_server_that_is_gone_or_silent_is_answered_for_and_left() {
    let gone = Scene::before_http2("127.0.0.1:1".parse().unwrap()).start().await;
    assert_eq!(gone.get("/").await.status, 502);
    let silent = origin(|nth, request, respond| async move {
        match nth {
            1 => std::future::pending().await,
            _ => mirror(nth, request, respond).await,
        }
    })
    .await;
    let mut scene = Scene::before_http2(silent.address);
    scene.timeouts.first_byte = Duration::from_millis(300);
    let stack = scene.start().await;
    for connections in 1..3 {
        assert_eq!(stack.get("/").await.status, 504);
        assert_eq!(silent.connections(), connections, "it is not asked again on the same connection");
    }
    let cut = origin(|_, _, mut respond: Respond| async move {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("half".into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await; // so that the half is on its way
        body.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let stack = Scene::before_http2(cut.address).start().await;
    let mut client = stack.connect().await;
    let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
    assert_eq!(Got::failed(response).await.reason(), Some(Reason::INTERNAL_ERROR));
}
