//! Many streams on few connections: what lasts has a budget of its own, bodies have a least rate, and a client's end is seen.

use std::time::Duration;

use bytes::Bytes;
use http_support::gateway::{GatewayLimits, LeastRate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::scene::{Got, Scene, request, until};

/// An origin of event streams under `/events`; the rest is answered. Returns its address, and how many streams are open.
async fn endless() -> (std::net::SocketAddr, std::rc::Rc<std::cell::Cell<usize>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, open) = (listener.local_addr().unwrap(), std::rc::Rc::<std::cell::Cell<usize>>::default());
    let open_too = std::rc::Rc::clone(&open);
    actix_web::rt::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let open = std::rc::Rc::clone(&open_too);
            actix_web::rt::spawn(async move {
                let mut head = vec![0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut head).await {
                    let events = head[..len].starts_with(b"GET /events");
                    let answer: &[u8] = match events {
                        true => b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
                        false => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort",
                    };
                    open.set(open.get() + usize::from(events));
                    let _ = stream.write_all(answer).await;
                    if events {
                        while let Ok(1..) = stream.read(&mut head).await {}
                        open.set(open.get() - 1);
                        return;
                    }
                }
            });
        }
    });
    (address, open)
}

/// 5 connections of 40 streams want events; the client may have 60. Short requests go on, and all ends with the client.
#[actix_web::test]
async fn event_streams_by_the_hundred_leave_short_requests_alone_and_end_with_their_client() {
    let (origin, open) = endless().await;
    let limits =
        GatewayLimits { lasting_per_client_max: 60, requests_per_client_max: 8, ..GatewayLimits::default() };
    let mut scene = Scene::before(origin);
    scene.limits = limits;
    let stack = scene.start().await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..5 {
        let mut client = stack.connect().await;
        for _ in 0..40 {
            client = client.ready().await.unwrap();
            let (response, _) = client.send_request(request("GET", "/events"), true).unwrap();
            let response = response.await.unwrap();
            match response.status().as_u16() {
                200 => held.push((client.clone(), response)),
                429 => refused += 1,
                status => panic!("{status}"),
            }
        }
    }
    assert_eq!((held.len(), refused), (60, 140));
    let got = stack.get("/forwarded").await;
    assert_eq!((got.status, got.text().as_str()), (200, "short"));
    drop(held);
    until("all streams end with their client", || open.get() == 0).await;
}

/// A body that trickles in is given up, on its stream alone.
#[actix_web::test]
async fn a_body_that_trickles_in_is_given_up_and_its_connection_is_not() {
    let (origin, _) = endless().await;
    let rate = LeastRate { grace: Duration::from_millis(500), bytes_per_second: 1_000, total: None };
    let limits = GatewayLimits { body_rate: rate, ..GatewayLimits::default() };
    let mut scene = Scene::before(origin);
    scene.limits = limits;
    let stack = scene.start().await;
    let mut client = stack.connect().await;
    let (response, mut body) = client.send_request(request("POST", "/echo"), false).unwrap();
    let trickle = async {
        while body.send_data(Bytes::from_static(b"x"), false).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await
    };
    let answered = tokio::time::timeout(Duration::from_secs(8), async {
        tokio::select! {
            response = response => response,
            () = trickle => unreachable!("it never ends"),
        }
    });
    // The echo begins its answer before the body has come: then the stream is reset.
    let answered = answered.await.expect("it is given up");
    if let Ok(response) = answered {
        let mut body = response.into_body();
        let rest = async { while let Some(Ok(_)) = body.data().await {} };
        tokio::time::timeout(Duration::from_secs(8), rest).await.expect("it is given up");
    }
    let (response, _) = client.ready().await.unwrap().send_request(request("GET", "/x"), true).unwrap();
    assert_eq!(Got::read(response.await.unwrap()).await.status, 200, "other streams go on");
}
