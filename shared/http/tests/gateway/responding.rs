//! What a handler can answer with.

use super::client::get;
use super::scene::Scene;

#[actix_web::test]
async fn whole_responses_of_all_sizes() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    for size in [0, 1, 2000, 3000, 24 << 10, 25 << 10, 1 << 20, 9 << 20] {
        let response = client.get(&format!("/respond/{size}")).await;
        assert_eq!(response.body.len(), size);
        assert_eq!((response.get("x-made"), response.get("date").is_some()), (Some("here"), true));
    }
    for size in [1000, 100 << 10] {
        let stack = Scene::alone().start().await;
        let mut client = stack.connect().await;
        for _ in 0..3 {
            let response = client.get(&format!("/prepared/{size}")).await;
            assert_eq!((response.body.len(), response.get("age")), (size, Some("7")));
        }
    }
}

/// RFC 9110 sections 9.3.2 and 8.6.
#[actix_web::test]
async fn head_gets_the_same_without_the_body() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    for path in ["/respond/70000", "/prepared/70000", "/file/70002"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.head().await.get("content-length"), Some("70000"), "{path}");
    }
    client.send("HEAD /stream/3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.get("x-kind"), Some("stream"));
    for status in [204, 304] {
        let response = client.get(&format!("/status/{status}")).await;
        assert_eq!((response.status(), response.get("content-length")), (status, None));
    }
    assert_eq!(client.get("/respond/1").await.text(), "r");
}

#[actix_web::test]
async fn a_part_of_a_file_is_sent_byte_for_byte() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    for size in [2, 3, 100 << 10, 5 << 20] {
        let response = client.get(&format!("/file/{size}")).await;
        let expected: Vec<u8> = (1..size - 1).map(|at| (at % 251) as u8).collect();
        assert_eq!(response.status(), 206);
        assert!(response.body == expected, "{size}: {} bytes", response.body.len());
    }
}

/// RFC 9112 section 7.1; to HTTP/1.0 the end of the connection is the end of the body.
#[actix_web::test]
async fn a_streamed_response_has_chunks_and_trailers() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    for _ in 0..2 {
        let response = client.get("/stream/3").await;
        assert_eq!(response.get("transfer-encoding"), Some("chunked"));
        assert_eq!(response.content(), b"part 0;part 1;part 2;");
        assert!(response.text().ends_with("\r\n0\r\nX-Trailer: last\r\n\r\n"), "{}", response.text());
    }
    client.send("GET /stream/2 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let old = client.response().await;
    assert_eq!((old.get("connection"), old.text().as_str()), (Some("close"), "part 0;part 1;"));
}

/// What a handler announced and did not keep is cut off: the client must not take it for the whole.
#[actix_web::test]
async fn a_handler_that_breaks_its_word_is_cut_off() {
    let stack = Scene::alone().start().await;
    for path in ["/long", "/short"] {
        let mut client = stack.connect().await;
        client.send(get(path)).await;
        let head = client.head().await;
        let length: usize = head.get("content-length").unwrap().parse().unwrap();
        assert!(client.rest().await.len() < length, "{path}");
    }
    let nothing = stack.get("/nothing").await;
    assert_eq!((nothing.status(), nothing.problem().as_str()), (500, "internal"));
}

/// RFC 8297, RFC 9457.
#[actix_web::test]
async fn interim_responses_and_problems() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    client.send(get("/hint")).await;
    let hint = client.response().await;
    assert_eq!((hint.status(), hint.get("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(client.response().await.text(), "hinted");
    let busy = client.get("/refuse?x=y").await;
    assert_eq!((busy.status(), busy.problem().as_str(), busy.get("retry-after")), (429, "busy", Some("7")));
    assert!(busy.text().contains("\"instance\":\"/refuse\""), "{}", busy.text());
}

#[actix_web::test]
async fn a_handler_reads_a_body_however_it_is_framed() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let body = "0123456789".repeat(20_000);
    client
        .send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        .await;
    assert!(client.response().await.text() == body);
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX: y\r\n\r\n".as_bytes().chunks(4) {
        client.send(part).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.text(), "hello world");
}
