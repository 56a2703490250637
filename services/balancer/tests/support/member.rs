//! A server that does as it is told, on a thread of its own: to kill it is to drop all its sockets at once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balancer::MemberConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// 200 with its name as the body.
    Answers,
    /// The same, so many milliseconds later.
    Slowly(u64),
    /// Takes the request and says nothing.
    Hangs,
    /// 503, with this `Retry-After`.
    Refuses(u64),
    /// This status, with its name.
    Status(u16),
    /// Closes the connection instead of an answer.
    Resets,
    /// Says something that is not HTTP.
    Garbage,
    /// Announces more than it sends, then closes.
    CutsShort,
}

pub struct Member {
    pub name: &'static str,
    pub address: SocketAddr,
    state: Arc<State>,
    running: Mutex<Option<Running>>,
}

struct State {
    name: &'static str,
    does: watch::Sender<Does>,
    heads: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Vec<u8>>>,
}

struct Running {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Member {
    pub fn start(name: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let does = watch::Sender::new(Does::Answers);
        let state = State { name, does, heads: Mutex::default(), bodies: Mutex::default() };
        let member = Self { name, address, state: Arc::new(state), running: Mutex::default() };
        member.run(listener);
        member
    }

    fn run(&self, listener: std::net::TcpListener) {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let state = Arc::clone(&self.state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! { () = accept(listener, state) => {}, _ = stopped => {} }
            });
            // The runtime ends here, and with it every connection.
        });
        *self.running.lock().unwrap() = Some(Running { stop, thread });
    }

    /// As a process that is killed: connections are cut, new ones refused.
    pub fn kill(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            let _ = running.stop.send(());
            running.thread.join().unwrap();
        }
    }

    /// Runs again at the same address.
    pub fn revive(&self) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&self.address.into()).unwrap();
        socket.listen(128).unwrap();
        self.run(socket.into());
    }

    pub fn does(&self, what: Does) {
        self.state.does.send_replace(what);
    }

    pub fn config(&self) -> MemberConfig {
        super::at(self.address)
    }

    /// How it is called in a pool.
    pub fn id(&self) -> String {
        self.address.to_string()
    }

    /// The heads of the requests it got.
    pub fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }

    /// The bodies of the requests it got whole.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.state.bodies.lock().unwrap().clone()
    }

    /// How many requests it got.
    pub fn requests(&self) -> usize {
        self.state.heads.lock().unwrap().len()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            tokio::spawn(async move { drop(converse(stream, &state).await) });
        }
    }
}

/// One request after the other; an upgrade makes it an echo.
async fn converse(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        let Some(end) = super::client::read_head(&mut stream, &mut read).await? else { return Ok(()) };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        read.drain(..end);
        state.heads.lock().unwrap().push(head.clone());
        if head.contains("\r\nupgrade: echo") {
            return echo(stream, read).await;
        }
        let body = super::client::read_body(&mut stream, &mut read, &head).await?;
        state.bodies.lock().unwrap().push(body);
        if !answer(&mut stream, state, head.starts_with("head ")).await? {
            return Ok(());
        }
    }
}

async fn echo(mut stream: TcpStream, early: Vec<u8>) -> std::io::Result<()> {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(switch).await?;
    stream.write_all(&early).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

/// False: the connection is done.
async fn answer(stream: &mut TcpStream, state: &State, without_body: bool) -> std::io::Result<bool> {
    let does = *state.does.borrow();
    let (status, lines) = match does {
        Does::Answers => (200, String::new()),
        Does::Slowly(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            (200, String::new())
        }
        Does::Hangs => {
            // Until it is told something else, or its client goes.
            let mut changed = state.does.subscribe();
            let mut byte = [0];
            tokio::select! { _ = changed.changed() => {}, _ = stream.read(&mut byte) => {} }
            return Ok(false);
        }
        Does::Refuses(after) => (503, format!("retry-after: {after}\r\n")),
        Does::Status(status) => (status, String::new()),
        Does::Resets => return Ok(false),
        Does::Garbage => {
            stream.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await?;
            return Ok(false);
        }
        Does::CutsShort => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this").await?;
            return Ok(false);
        }
    };
    let (length, body) = (state.name.len(), if without_body { "" } else { state.name });
    let whole = format!("HTTP/1.1 {status} Some\r\ncontent-length: {length}\r\n{lines}\r\n{body}");
    stream.write_all(whole.as_bytes()).await?;
    Ok(true)
}
