//! An upstream server that answers by a function of the request's head, and notes what it was sent.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The pieces of an answer, sent one after the other; a pause (an empty piece) between them lets each arrive alone.
pub type Pieces = Vec<Vec<u8>>;

/// A server on a free port, until it is dropped.
pub struct Origin {
    pub url: String,
    seen: Rc<RefCell<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Answers each request with what `answer` makes of its head and body.
    pub async fn start(answer: impl Fn(&str) -> Pieces + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (answer, seen) = (Rc::new(answer), Rc::<RefCell<Vec<String>>>::default());
        let notes = Rc::clone(&seen);
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (answer, notes) = (Rc::clone(&answer), Rc::clone(&notes));
                tokio::task::spawn_local(async move { drop(serve(stream, &*answer, &notes).await) });
            }
        });
        Self { url, seen, task }
    }

    /// Answers 200 with this body and these fields.
    pub async fn saying(fields: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::start(move |_| vec![whole(fields, &body)]).await
    }

    /// The heads and bodies of the requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }
}

/// A whole 200.
pub fn whole(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&str) -> Pieces,
    notes: &RefCell<Vec<String>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    loop {
        let request = loop {
            if let Some(length) = complete(&received) {
                break received.drain(..length).collect::<Vec<u8>>();
            }
            let mut piece = [0; 65536];
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                read => received.extend_from_slice(&piece[..read]),
            }
        };
        let request = String::from_utf8_lossy(&request).into_owned();
        notes.borrow_mut().push(request.clone());
        for piece in answer(&request) {
            if piece.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            } else if piece == b"close" {
                return Ok(());
            } else {
                stream.write_all(&piece).await?;
            }
        }
    }
}

/// The length of a whole request at the beginning of what was received.
fn complete(received: &[u8]) -> Option<usize> {
    let head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&received[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    if text.contains("transfer-encoding: chunked") {
        let end = received[head..].windows(5).position(|bytes| bytes == b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let whole = head + length.unwrap_or(0);
    (received.len() >= whole).then_some(whole)
}
