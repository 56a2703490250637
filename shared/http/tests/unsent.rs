//! What is held for clients that take nothing has one bound for the process. In a test program of its own, for the bound is
//! the process's.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a failed unwrap is a failed test; the support is for several programs"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

mod support;

use support::gateway::Setup;

/// More than the kernel holds for one connection.
const ANSWER: usize = 24 << 20;
const CLIENTS: usize = 60;
const LIMIT: Duration = Duration::from_secs(20);

/// An origin whose answers are large.
fn large() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                if stream.read(&mut head).unwrap_or(0) > 0 {
                    let part = vec![b'o'; 64 << 10];
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n");
                    while stream.write_all(&part).is_ok() {}
                }
            });
        }
    });
    address
}

/// A client that asks, and has room for little.
fn asks(gateway: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&gateway.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream
}

/// Clients that read nothing, and which of them were cut off.
struct Crowd(Vec<(TcpStream, bool)>);

impl Crowd {
    /// How many were cut off so far: a socket says so, once.
    fn cut_off(&mut self) -> usize {
        for (stream, cut) in &mut self.0 {
            *cut |= matches!(stream.take_error(), Ok(Some(_)));
        }
        self.0.iter().filter(|(_, cut)| *cut).count()
    }
}

/// 60 clients that take nothing hold megabytes; the process may hold 256 KiB. Many of them are cut off, long before each would be by
/// itself, and who reads has its answer whole. (That the slowest go first is held by a test beside the queue.)
#[test]
fn the_slowest_clients_are_cut_off_when_too_much_is_held_for_all() {
    for fetches in [false, true] {
        let mut setup = Setup::before(large());
        setup.limits.unsent_bytes_max = 256 << 10;
        setup.limits.send_idle_timeout = Duration::from_secs(600);
        setup.limits.send_rate.bytes_per_second = 0;
        setup.fetches = fetches;
        let gateway = setup.start();
        let mut crowd = Crowd((0..CLIENTS).map(|_| (asks(gateway), false)).collect());
        let began = clock::now();
        while crowd.cut_off() < CLIENTS / 3 {
            assert!(clock::now() - began < LIMIT, "{} of them are cut off", crowd.cut_off());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let mut reader = asks(gateway);
        reader.set_read_timeout(Some(LIMIT)).unwrap();
        let (mut part, mut all) = (vec![0; 256 << 10], 0);
        while all < ANSWER {
            let len = reader.read(&mut part).expect("who reads is not cut off");
            assert!(len > 0, "ended after {all} bytes");
            all += len;
        }
    }
}
