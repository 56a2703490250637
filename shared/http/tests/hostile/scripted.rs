//! An origin that does what the test says, in plain threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Serves each connection by `script`, which is given the socket after a request's head came; `/well` is answered.
pub fn origin(script: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (script, mut stream) = (Arc::clone(&script), stream.unwrap());
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut stream) {
                    if head.contains(" /well ") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    } else {
                        script(&mut stream);
                    }
                }
            });
        }
    });
    address
}

/// An origin that answers everything with an empty 200.
pub fn well() -> SocketAddr {
    origin(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    })
}

/// One head, byte by byte so that nothing behind it is taken.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Reads until the other side closes or resets; how many bytes there were.
pub fn read_to_close(stream: &mut TcpStream) -> usize {
    let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 {
            break;
        }
        total += length;
    }
    total
}

/// Writes the piece again and again until the other side closes; how many bytes it took.
pub fn write_for_ever(stream: &mut TcpStream, piece: &[u8]) -> usize {
    let mut total = 0;
    while let Ok(length) = stream.write(piece) {
        total += length;
    }
    total
}
