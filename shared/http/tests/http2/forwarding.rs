//! From HTTP/2 to an HTTP/1 origin and back.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;

use super::scene::{Got, Scene, origin, request, send_all};

async fn mirror() -> std::net::SocketAddr {
    origin(|request| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: {}\r\n\r\n",
            request.len()
        );
        (head + request).into_bytes()
    })
    .await
}

/// RFC 9110 section 7.6: what the origin gets is HTTP/1.1 of our own making.
#[actix_web::test]
async fn a_stream_becomes_a_request_and_its_response_a_stream() {
    let stack = Scene::before(mirror().await).start().await;
    let mut client = stack.connect().await;
    let mut asked = request("GET", "/a?b=c");
    for (name, value) in [("x-keep", "1"), ("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")] {
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    let (response, _) = client.send_request(asked, true).unwrap();
    let got = Got::read(response.await.unwrap()).await;
    let seen = got.text().to_lowercase();
    assert!(seen.starts_with("get /a?b=c http/1.1\r\nhost: site.test\r\n"), "{seen}");
    for line in [
        "x-keep: 1",
        "cookie: a=1; b=2",
        "via: 2 gw",
        "te: trailers",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is missing in {seen}");
    }
    assert_eq!((got.status, got.field("x-hop"), got.field("connection")), (200, None, None));
}

/// With its length when it is known, in chunks when not; trailers go along.
#[actix_web::test]
async fn a_body_goes_on_with_its_length_or_in_chunks() {
    let stack = Scene::before(mirror().await).start().await;
    let mut client = stack.connect().await;
    let mut asked = request("POST", "/known");
    asked.headers_mut().insert("content-length", "5".parse().unwrap());
    let (response, mut body) = client.send_request(asked, false).unwrap();
    send_all(&mut body, Bytes::from_static(b"hello"), true).await;
    let seen = Got::read(response.await.unwrap()).await.text();
    assert!(seen.contains("Content-Length: 5\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    let (response, mut body) = client.send_request(request("POST", "/unknown"), false).unwrap();
    send_all(&mut body, Bytes::from_static(b"hello"), false).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "9".parse().unwrap());
    trailers.insert("content-length", "77".parse().unwrap()); // not a trailer (RFC 9110 section 6.5.1)
    body.send_trailers(trailers).unwrap();
    let seen = Got::read(response.await.unwrap()).await.text();
    assert!(seen.contains("Transfer-Encoding: chunked\r\n"), "{seen}");
    assert!(seen.ends_with("5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n"), "{seen}");
}

#[actix_web::test]
async fn interim_responses_chunks_and_trailers_come_through() {
    let answer = |_: &str| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
          3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
            .to_vec()
    };
    let stack = Scene::before(origin(answer).await).start().await;
    let mut client = stack.connect().await;
    for _ in 0..2 {
        let (mut response, _) = client.send_request(request("GET", "/"), true).unwrap();
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((interim.status().as_u16(), interim.headers()["link"].to_str().unwrap()), (103, "</x>"));
        let got = Got::read(response.await.unwrap()).await;
        assert_eq!((got.text().as_str(), got.field("transfer-encoding")), ("abcde", None));
        assert_eq!(got.trailers.unwrap()["x-sum"], "5");
    }
}

#[actix_web::test]
async fn an_origin_that_is_gone_stalls_or_lies_is_answered_for() {
    let gone = Scene::before("127.0.0.1:1".parse().unwrap()).start().await;
    assert_eq!(gone.get("/").await.status, 502);
    let mut silent = Scene::before(origin(|_| Vec::new()).await);
    silent.timeouts.first_byte = Duration::from_millis(300);
    assert_eq!(silent.start().await.get("/").await.status, 504);
    let garbage =
        Scene::before(origin(|_| b"HTTP/1.1 200 OK\r\nA B: c\r\n\r\n".to_vec()).await).start().await;
    assert_eq!(garbage.get("/").await.status, 502);
}

/// The client must see that what it has is not the whole.
#[actix_web::test]
async fn a_response_that_the_origin_cuts_short_is_a_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
    });
    let stack = Scene::before(address).start().await;
    let mut client = stack.connect().await;
    let (response, _) = client.send_request(request("GET", "/"), true).unwrap();
    assert_eq!(Got::failed(response).await.reason(), Some(Reason::INTERNAL_ERROR));
}

#[actix_web::test]
async fn a_big_response_is_passed_on_as_the_client_takes_it() {
    let answer = |_: &str| {
        let mut all = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n".to_vec();
        all.resize(all.len() + 10_000_000, 7);
        all
    };
    let stack = Scene::before(origin(answer).await).start().await;
    assert_eq!(stack.get("/").await.body.len(), 10_000_000);
}
