//! An origin on a socket, in plain threads: it records each complete request and answers as told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::origin::Request;

/// What the origin has seen since it was last asked.
#[derive(Debug, Default)]
pub struct Record {
    /// The number of the connection and the request.
    pub requests: Vec<(usize, Request)>,
    /// Everything that came, complete or not.
    pub raw: Vec<u8>,
    /// What came and is not canonical HTTP/1.1.
    pub strange: Vec<String>,
}

/// What is answered to a request, and whether the connection closes then.
type Answering = fn(&Request) -> (&'static [u8], bool);

#[derive(Clone)]
pub struct Origin {
    pub address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl Origin {
    pub fn start_at(address: SocketAddr, answering: Answering) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let origin = Self { address: listener.local_addr().expect("bound"), record: Arc::default() };
        let accepting = origin.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (origin, stream) = (accepting.clone(), stream.expect("accepted"));
                stream.set_nodelay(true).expect("a socket");
                std::thread::spawn(move || origin.serve(number, stream, answering));
            }
        });
        origin
    }

    /// Hands over the record and begins a new one.
    pub fn take(&self) -> Record {
        std::mem::take(&mut *self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn serve(&self, number: usize, mut stream: TcpStream, answering: Answering) {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    bytes.extend_from_slice(&buffer[..length]);
                    self.record
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .raw
                        .extend_from_slice(&buffer[..length]);
                }
            }
            loop {
                let taken = Request::take(&mut bytes);
                let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
                let (answer, closes) = match taken {
                    Ok(None) => break,
                    Err(why) => {
                        record.strange.push(why);
                        return;
                    }
                    Ok(Some(request)) => {
                        let answer = answering(&request);
                        record.requests.push((number, request)); // before the answer: who has it finds it here
                        answer
                    }
                };
                drop(record);
                if stream.write_all(answer).is_err() || closes {
                    return;
                }
            }
        }
    }
}
