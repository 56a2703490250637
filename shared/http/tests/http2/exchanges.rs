//! What a handler can do, seen by the h2 crate's client.

use bytes::Bytes;
use h2::Reason;

use super::scene::{Got, Scene, request, send_all, until};

#[actix_web::test]
async fn each_kind_of_response_arrives_whole() {
    let stack = Scene::alone().start().await;
    let got = stack.get("/respond/5").await;
    assert_eq!((got.status, got.text().as_str(), got.field("content-length")), (200, "rrrrr", Some("5")));
    assert_eq!(
        (got.field("x-made"), got.field("keep-alive")),
        (Some("here"), None),
        "not a field for HTTP/2"
    );
    assert!(got.field("date").is_some_and(|date| date.ends_with(" GMT")));
    let got = stack.get("/prepared/300000").await;
    assert_eq!((got.body.len(), got.field("age")), (300_000, Some("7")));
    let got = stack.get("/file/150000").await;
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(got.status == 206 && got.body == program[1..150_001]);
    let got = stack.get("/status/204").await;
    assert_eq!((got.status, got.body.len(), got.field("content-length")), (204, 0, None));
    let got = stack.get("/nothing").await;
    assert_eq!((got.status, got.field("content-type")), (500, Some("application/problem+json")));
}

/// RFC 9113 section 8.2.3, 8.3.1.
#[actix_web::test]
async fn pseudo_fields_and_crumbs_become_one_head() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let mut asked = request("GET", "/head?x=1");
    for crumb in ["a=1", "b=2"] {
        asked.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    let (response, _) = client.send_request(asked, true).unwrap();
    assert_eq!(Got::read(response.await.unwrap()).await.text(), "H2 http /head?x=1 site.test a=1; b=2");
}

/// More than all windows hold, both ways at once; the trailer section comes last.
#[actix_web::test]
async fn a_body_streams_both_ways_within_the_windows() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let (response, mut body) = client.send_request(request("POST", "/echo"), false).unwrap();
    let sent = Bytes::from(vec![7; 5 << 20]);
    let (got, ()) = tokio::join!(
        async { Got::read(response.await.unwrap()).await },
        send_all(&mut body, sent.clone(), true)
    );
    assert!(got.body == sent, "{} bytes came back", got.body.len());
    assert_eq!(got.trailers.unwrap()["x-trailer"], "last");
}

/// Back-pressure: of an upload that nobody reads no more is taken than a window, and others are not held up.
#[actix_web::test]
async fn an_unread_body_waits_with_the_client_and_holds_up_nobody() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let (_response, mut body) = client.send_request(request("POST", "/hang"), false).unwrap();
    let window = Scene::alone().limits.http2.stream_window_bytes as usize;
    send_all(&mut body, vec![0; window].into(), false).await;
    body.reserve_capacity(1);
    let (response, _) = client.send_request(request("GET", "/respond/10"), true).unwrap();
    assert_eq!(Got::read(response.await.unwrap()).await.body.len(), 10);
    assert_eq!(body.capacity(), 0, "the window of the other stream stays shut");
}

/// RFC 9113 section 8.1: a response may be complete before the request is; the rest is not wanted.
#[actix_web::test]
async fn an_early_response_ends_the_upload_without_an_error() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let (response, mut body) = client.send_request(request("POST", "/unread"), false).unwrap();
    let got = Got::read(response.await.unwrap()).await;
    assert_eq!((got.status, got.text().as_str()), (200, "unread"));
    let reason = std::future::poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
}

#[actix_web::test]
async fn a_response_that_is_cut_short_is_a_reset_and_the_connection_goes_on() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    for path in ["/cut", "/long"] {
        let (response, _) = client.send_request(request("GET", path), true).unwrap();
        let error = Got::failed(response).await;
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{path}");
    }
    let (response, _) = client.send_request(request("GET", "/respond/1"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

/// Nobody works on for a client that does not want it.
#[actix_web::test]
async fn a_reset_stream_and_a_lost_connection_end_their_handlers() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let (_response, mut stream) = client.send_request(request("GET", "/hang"), true).unwrap();
    until("it is at work", || stack.at_work() == 1).await;
    stream.send_reset(Reason::CANCEL);
    until("it was ended", || stack.at_work() == 0).await;
    let mut other = stack.connect().await;
    let _pending: Vec<_> =
        (0..5).map(|_| other.send_request(request("GET", "/hang"), true).unwrap()).collect();
    until("five are at work", || stack.at_work() == 5).await;
    let socket = super::frames::Raw::connect(stack.plain).await; // another one, which only ends
    drop((_pending, other, socket));
    until("all were ended", || stack.at_work() == 0).await;
}

/// As with HTTP/1: a panic ends its worker, and the next one serves.
#[actix_web::test]
async fn a_panic_in_a_stream_ends_the_worker_and_refuses_nobody() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let (response, _) = client.send_request(request("GET", "/panic"), true).unwrap();
    response.await.unwrap_err();
    assert_eq!(stack.get("/respond/3").await.text(), "rrr");
    assert_eq!(stack.restarts(), 1);
}

/// RFC 9113 section 6.8: who drains says which streams it will finish, and finishes them.
#[actix_web::test]
async fn a_stop_finishes_what_was_begun_and_takes_no_more() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    let (response, mut body) = client.send_request(request("POST", "/echo"), false).unwrap();
    let response = response.await.unwrap();
    let socket = tokio::net::TcpStream::connect(stack.plain).await.unwrap();
    let (mut idle, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let (answered, _) = idle.send_request(request("GET", "/respond/1"), true).unwrap();
    Got::read(answered.await.unwrap()).await; // it was accepted, and does not wait in the backlog
    let stopping = tokio::spawn({
        let root = stack.root.clone();
        async move { root.stop().await }
    });
    connection.await.unwrap().expect("an idle connection ends in peace");
    body.send_data(Bytes::from_static(b"the end"), true).unwrap();
    assert_eq!(Got::read(response).await.text(), "the end");
    stopping.await.unwrap();
}

/// More streams than allowed at once are not served at once; none is lost (RFC 9113 section 5.1.2).
#[actix_web::test]
async fn streams_are_bounded_and_the_client_waits_for_its_turn() {
    let mut scene = Scene::alone();
    scene.limits.http2.concurrent_streams_max = 3;
    let stack = scene.start().await;
    let mut client = stack.connect().await;
    // The bound is in the settings, which come before the first answer.
    let (response, _) = client.send_request(request("GET", "/respond/2"), true).unwrap();
    response.await.unwrap();
    let all = (0..20).map(|_| {
        let client = client.clone();
        async move {
            let mut client = client.ready().await.unwrap();
            let (response, _) = client.send_request(request("GET", "/respond/2"), true).unwrap();
            Got::read(response.await.unwrap()).await.status
        }
    });
    assert_eq!(futures_util::future::join_all(all).await, [200; 20]);
}

/// An idle connection does not stay for ever.
#[actix_web::test]
async fn an_idle_connection_is_told_to_go() {
    let mut scene = Scene::alone();
    scene.limits.keep_alive = std::time::Duration::from_millis(300);
    let stack = scene.start().await;
    let socket = tokio::net::TcpStream::connect(stack.plain).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let (response, _) = client.send_request(request("GET", "/respond/1"), true).unwrap();
    assert_eq!(Got::read(response.await.unwrap()).await.status, 200);
    connection.await.unwrap().expect("a peaceful end");
}
