//! Frames written by hand (RFC 9113 section 4.1), for what no client sends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field section of literals, never indexed, not Huffman coded (RFC 7541 section 6.2.2).
pub fn section(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for part in [name, value] {
            match part.len() {
                len @ 0..127 => out.push(u8::try_from(len).unwrap()),
                len => {
                    out.push(127);
                    let mut rest = len - 127;
                    while rest >= 128 {
                        out.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    out.push(u8::try_from(rest).unwrap());
                }
            }
            out.extend_from_slice(part);
        }
    }
    out
}

/// The section of a plain GET, with `more` fields.
pub fn get(path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"site.test"),
        (b":path", path.as_bytes()),
    ];
    fields.extend_from_slice(more);
    section(&fields)
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of a response, whose field section begins with it: indexed, or a literal with an indexed name.
    pub fn status(&self) -> u16 {
        match self.payload[0] {
            0x88 => 200,
            0x89 => 204,
            0x8a => 206,
            0x8b => 304,
            0x8c => 400,
            0x8d => 404,
            0x8e => 500,
            0x48 | 0x08 => {
                // Three digits, by Huffman in two bytes or plain.
                let text = &self.payload[2..];
                match self.payload[1] {
                    3 => String::from_utf8_lossy(&text[..3]).parse().unwrap(),
                    _ => huffman_digits(&text[..usize::from(self.payload[1] & 0x7f)]),
                }
            }
            other => panic!("a status that begins with {other:#x}"),
        }
    }
}

/// Digits are the codes of five bits 0, 1, 2 and of six bits 3 to 9 (RFC 7541 appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut number) = (0, 0);
    while at + 5 <= bits.len() && number < 100 {
        let five = u16::from_str_radix(&bits[at..at + 5], 2).unwrap();
        let (digit, len) = match five {
            0..=2 => (five, 5),
            _ => (u16::from_str_radix(&bits[at..at + 6], 2).unwrap() - 0b011001 + 3, 6),
        };
        number = number * 10 + digit;
        at += len;
    }
    number
}

/// A client that sends what it is told.
pub struct Raw {
    pub socket: TcpStream,
}

impl Raw {
    /// With the preface and empty settings sent.
    pub async fn connect(to: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(to).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(PREFACE).await.unwrap();
        socket.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        Self { socket }
    }

    /// Sends, unless the other side has gone; what it said is still to be read then.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.socket.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer or an end within 20 s")
    }

    /// The next frame of one of `kinds`.
    pub async fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        while let Some(frame) = self.next().await {
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
        None
    }
}
