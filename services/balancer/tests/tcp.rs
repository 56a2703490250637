//! Layer 4: bytes to a member and back.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use balancer::{Config, State, TcpConfig};
use http_support::proxy_header::{Ends, Parsed, Version, parse};
use serde_json::json;
use support::{Stack, config, run, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A pool of these addresses behind a TCP listener.
fn forwarding_to(members: &[SocketAddr], tcp: serde_json::Value) -> Config {
    let mut all = json!({ "listen": "127.0.0.1:0", "pool": "default" });
    all.as_object_mut().unwrap().extend(tcp.as_object().unwrap().clone());
    let mut config = Config { tcp: vec![serde_json::from_value::<TcpConfig>(all).unwrap()], ..config(&[]) };
    config.pool.members = members.iter().map(|address| support::at(*address)).collect();
    config
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// RFC 9293 section 3.6: who has sent all may still receive.
#[test]
fn bytes_go_both_ways_and_a_half_that_is_closed_leaves_the_other_open() {
    run(async {
        let (listener, address) = listen().await;
        let stack = Stack::start(forwarding_to(&[address], json!({}))).await;
        let mut client = TcpStream::connect(stack.tcp()).await.unwrap();
        let (mut member, _) = listener.accept().await.unwrap();
        let big: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let sends = async {
            client.write_all(&big).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, ()) = tokio::join!(member.read_to_end(&mut got), sends);
        assert!(got == big, "{} bytes", got.len());
        member.write_all(b"and now the answer").await.unwrap();
        drop(member);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "and now the answer");
        until("the place is given back", async || stack.status().pools["default"].active == 0).await;
    });
}

/// Who takes nothing is not read for: what waits is bounded by socket buffers and one buffer of ours.
#[test]
fn a_member_that_reads_nothing_stops_the_client() {
    run(async {
        let (listener, address) = listen().await;
        let stack = Stack::start(forwarding_to(&[address], json!({}))).await;
        let client = TcpStream::connect(stack.tcp()).await.unwrap();
        let (_member, _) = listener.accept().await.unwrap();
        let (chunk, mut sent) = (vec![7; 1 << 16], 0_usize);
        // Until nothing can be sent for a while; a proxy that reads on would take it all.
        while let Ok(writable) = tokio::time::timeout(Duration::from_millis(500), client.writable()).await {
            writable.unwrap();
            sent += client.try_write(&chunk).unwrap_or(0);
            assert!(sent < 64 << 20, "{sent} bytes were taken though nobody reads");
        }
    });
}

#[test]
fn the_next_member_is_tried_where_one_refuses() {
    run(async {
        let (gone, refuses) = listen().await;
        drop(gone);
        let (listener, address) = listen().await;
        let stack = Stack::start(forwarding_to(&[refuses, address], json!({}))).await;
        for _ in 0..10 {
            let mut client = TcpStream::connect(stack.tcp()).await.unwrap();
            let (mut member, _) = listener.accept().await.unwrap();
            member.write_all(b"!").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'!');
        }
    });
}

#[test]
fn a_connection_in_which_nothing_moves_is_closed() {
    run(async {
        let (listener, address) = listen().await;
        let stack = Stack::start(forwarding_to(&[address], json!({ "idle_ms": 1000 }))).await;
        let mut client = TcpStream::connect(stack.tcp()).await.unwrap();
        let (mut member, _) = listener.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        let mut all = Vec::new();
        let ended = tokio::time::timeout(support::LIMIT, member.read_to_end(&mut all)).await;
        assert!(ended.is_ok() && all == b"x", "{ended:?}");
    });
}

/// The PROXY protocol in and out: the member learns who the first proxy's client was.
#[test]
fn the_client_of_a_proxy_before_is_told_to_the_member() {
    run(async {
        for (inwards, outwards) in [(Version::V1, "v2"), (Version::V2, "v1")] {
            let (listener, address) = listen().await;
            let tcp = json!({ "proxy_from": ["127.0.0.0/8"], "proxy_to": outwards });
            let stack = Stack::start(forwarding_to(&[address], tcp)).await;
            let ends =
                Ends { client: "10.1.2.3:4567".parse().unwrap(), server: "10.9.8.7:80".parse().unwrap() };
            let mut client = TcpStream::connect(stack.tcp()).await.unwrap();
            let mut sent = inwards.header(ends.client, ends.server);
            sent.extend_from_slice(b"hello");
            for byte in sent {
                client.write_all(&[byte]).await.unwrap(); // however it is cut
            }
            client.shutdown().await.unwrap();
            let (mut member, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            member.read_to_end(&mut got).await.unwrap();
            let Ok(http_support::proxy_header::Parsed::Complete(length, told)) = parse(&got) else {
                panic!("{got:?}")
            };
            assert_eq!((told, &got[length..]), (Some(ends), &b"hello"[..]));
        }
    });
}

#[test]
fn who_may_not_say_who_the_client_is_or_says_it_wrongly_is_closed() {
    run(async {
        let (listener, address) = listen().await;
        for (from, sent) in [("10.0.0.0/8", "PROXY UNKNOWN\r\n"), ("127.0.0.0/8", "GET / HTTP/1.1\r\n")] {
            let stack = Stack::start(forwarding_to(&[address], json!({ "proxy_from": [from] }))).await;
            let mut client = TcpStream::connect(stack.tcp()).await.unwrap();
            let _ = client.write_all(sent.as_bytes()).await;
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await; // a reset is as good as an end
            assert!(rest.is_empty());
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "no member heard of it");
    });
}

/// With a worker killed under it a new connection waits in the backlog for the next incarnation.
#[test]
fn a_killed_worker_refuses_no_connection() {
    run(async {
        let (listener, address) = listen().await;
        let stack = Stack::start(forwarding_to(&[address], json!({}))).await;
        for fault in [supervision::Intervention::Panic, supervision::Intervention::Exit] {
            let until = clock::now() + Duration::from_secs(5);
            assert_eq!(stack.root.intervene("/n/balancer/balancer-1/tcp/*", fault, until).len(), 1);
            let mut client = TcpStream::connect(stack.tcp()).await.unwrap();
            let (mut member, _) = listener.accept().await.unwrap();
            member.write_all(b"!").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'!');
        }
    });
}

/// A member that takes connections from balancers only was down for ever: its checks came without the header.
#[test]
fn checks_of_a_pool_behind_proxy_to_begin_with_the_header() {
    run(async {
        for (kind, version) in [("http", "v1"), ("http", "v2"), ("tcp", "v1"), ("tcp", "v2")] {
            let (listener, address) = listen().await;
            let mut config = forwarding_to(&[address], json!({ "proxy_to": version }));
            let check = json!({ "kind": kind, "interval_ms": 100, "rise": 1, "fall": 1 });
            config.pool.check = serde_json::from_value(check).unwrap();
            let stack = Stack::start(config).await;
            // The first check fails, which takes the member down; the second brings it back.
            for good in [false, true] {
                let (mut member, _) = listener.accept().await.unwrap();
                let mut got = Vec::new();
                let wanted = |got: &[u8]| match parse(got) {
                    Ok(Parsed::Complete(length, ends)) => {
                        let rest = got[length..].to_vec();
                        (kind == "tcp" || rest.ends_with(b"\r\n\r\n")).then_some((ends, rest))
                    }
                    _ => None,
                };
                let (ends, rest) = loop {
                    if let Some(told) = wanted(&got) {
                        break told;
                    }
                    assert_ne!(member.read_buf(&mut got).await.unwrap(), 0, "{kind} {version}: {got:?}");
                };
                assert_eq!(ends.map(|ends| ends.server), Some(address), "the balancer's own connection");
                if kind == "http" {
                    assert!(rest.starts_with(b"GET /healthz HTTP/1.1\r\nhost: health-check\r\n"));
                    let status: &[u8] =
                        if good { b"HTTP/1.1 204 No Content\r\n\r\n" } else { b"HTTP/1.1 503 x\r\n\r\n" };
                    member.write_all(status).await.unwrap();
                }
                drop(member);
            }
            until("it is up", async || {
                stack.status().pools["default"].members.iter().all(|member| member.state == State::Usable)
            })
            .await;
        }
    });
}
