//! A gateway under a supervision tree, on plain TCP and over TLS, before an origin that does what each test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clock::WallMs;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_support::Listener;
use http_support::gateway::{
    self, Abort, Binding, CertificateSet, Exchange, FetchRequest, ForwardOptions, GatewayLimits, Handler,
    Origin, Prepared, Protocol, Timeouts, Tls, TlsLimits, development,
};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Tree, pool, secs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

static TREE: Tree = Tree {
    name: "gateway",
    strategy: OneForOne,
    intensity: Intensity { restarts: 1000, period: secs(10) },
    children: &[pool("http", start, Permanent, Within(secs(10))).on_own_arbiter()],
};

/// What a test wants.
#[derive(Clone)]
pub struct Scene {
    pub origin: Option<Origin>,
    pub limits: GatewayLimits,
    pub timeouts: Timeouts,
    /// Handlers that are at work.
    at_work: Arc<AtomicUsize>,
}

/// A running gateway.
pub struct Stack {
    pub root: Root,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub certificate: std::path::PathBuf,
    scene: Scene,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Sockets {
    plain: Listener,
    tls: Listener,
    side: Arc<Tls>,
}

impl Scene {
    pub fn alone() -> Self {
        let (limits, timeouts) = (GatewayLimits::default(), Timeouts::default());
        Self { origin: None, limits, timeouts, at_work: Arc::default() }
    }

    pub fn before(origin: SocketAddr) -> Self {
        Self { origin: Some(Origin::http1(origin)), ..Self::alone() }
    }

    /// Before an origin that speaks HTTP/2.
    pub fn before_http2(origin: SocketAddr) -> Self {
        Self { origin: Some(Origin::new(origin, Protocol::H2c)), ..Self::alone() }
    }

    pub async fn start(self) -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let certificate = development(dir.path(), &[], WallMs::now()).unwrap();
        let side = Tls::new(CertificateSet::new(vec![certificate]), TlsLimits::default()).unwrap();
        let listen = || Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let sockets = Sockets { plain: listen(), tls: listen(), side };
        let (plain, tls) = (sockets.plain.address(), sockets.tls.address());
        let root = Root::start("n", RootOptions::default());
        root.add_tier("gateway", Intensity { restarts: 3, period: secs(5) }).await;
        let env = Env::new().with(sockets).with(self.clone()).with(PoolSize("http", 1));
        root.add_instance("gateway", "gateway-1", &TREE, env).await.unwrap();
        Stack { root, plain, tls, certificate: dir.path().join("development.pem"), scene: self, _dir: dir }
    }
}

fn start(life: Life) -> Result<Started, StartError> {
    let (sockets, scene) = (life.env::<Sockets>(), Scene::clone(&life.env::<Scene>()));
    let bindings = vec![
        Binding::plain(sockets.plain.clone()).named("gw"),
        Binding::plain(sockets.tls.clone()).named("gw").with_tls(sockets.side.clone()),
    ];
    let limits = scene.limits.clone();
    Ok(Started::task(gateway::serve(bindings, Everything(scene), life, limits)))
}

impl Stack {
    /// Handlers that are at work now.
    pub fn at_work(&self) -> usize {
        self.scene.at_work.load(Ordering::Relaxed)
    }

    /// A connection of the h2 crate's client, by prior knowledge.
    pub async fn connect(&self) -> SendRequest<Bytes> {
        let socket = TcpStream::connect(self.plain).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .handshake(socket)
            .await
            .unwrap();
        tokio::spawn(connection);
        client.ready().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Got {
        let mut client = self.connect().await;
        let (response, _) = client.send_request(request("GET", path), true).unwrap();
        Got::read(response.await.unwrap()).await
    }

    /// How often workers were restarted.
    pub fn restarts(&self) -> u64 {
        let tree = self.root.snapshot();
        tree.children[0].children[0].children[0].children.iter().map(|worker| worker.restarts).sum()
    }
}

pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://site.test{path}")).body(()).unwrap()
}

/// A whole response.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    pub async fn read(response: Response<RecvStream>) -> Self {
        Self::try_read(response).await.unwrap()
    }

    /// The error that a response ends in: before its head, or within its body.
    pub async fn failed(response: ResponseFuture) -> h2::Error {
        match response.await {
            Ok(response) => Self::try_read(response).await.unwrap_err(),
            Err(error) => error,
        }
    }

    async fn try_read(response: Response<RecvStream>) -> Result<Self, h2::Error> {
        let (parts, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await?;
        Ok(Self { status: parts.status.as_u16(), fields: parts.headers, body, trailers })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Sends all of `data` as the other side has room for it.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, end && data.is_empty()).unwrap();
    }
}

/// Waits until `condition`, 20 s at most.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}

/// Does what the first part of the path says; everything else is forwarded.
struct Everything(Scene);

/// Counts a handler that is at work.
struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler for Everything {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        self.0.at_work.fetch_add(1, Ordering::Relaxed);
        let _at_work = AtWork(self.0.at_work.clone());
        let path = exchange.head().path();
        let mut parts = path[1..].split('/');
        let (what, size) =
            (parts.next().unwrap_or_default(), parts.next().and_then(|size| size.parse().ok()));
        let size: usize = size.unwrap_or(0);
        match what {
            "respond" => exchange.respond(200, b"X-Made: here\r\nKeep-Alive: 5\r\n", &vec![b'r'; size]).await,
            "status" => exchange.respond(u16::try_from(size).unwrap(), b"", b"text").await,
            "prepared" => {
                let lines = format!("Content-Length: {size}\r\n").into();
                let prepared = Prepared { status: 200, lines, body: vec![b'p'; size].into(), dated: false };
                exchange.respond_prepared(&prepared, b"Age: 7\r\n").await
            }
            "file" => {
                let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
                exchange.respond_file(206, b"", &file, 1..size as u64 + 1).await
            }
            "head" => {
                let (head, peer) = (exchange.head(), exchange.peer());
                let (target, authority) = (head.target().to_owned(), head.authority().to_owned());
                let cookie = String::from_utf8_lossy(head.get("cookie").unwrap_or_default()).into_owned();
                let text = format!("{:?} {} {target} {authority} {cookie}", head.version(), peer.scheme());
                exchange.respond(200, b"", text.as_bytes()).await
            }
            "echo" => echo(exchange).await,
            "unread" => exchange.respond(200, b"", b"unread").await,
            "fetch" => self.fetch(exchange).await,
            "hint" => {
                exchange.informational(103, b"Link: </a.css>; rel=preload\r\n").await?;
                exchange.respond(200, b"", b"hinted").await
            }
            "cut" => {
                exchange.start(200, b"", None).await?;
                exchange.write(b"the beginning").await?;
                Err(Abort::CutShort)
            }
            "long" => exchange.start(200, b"", Some(3)).await.and(exchange.write(b"four").await),
            "nothing" => Ok(()),
            "panic" => panic!("a defect in a handler"),
            "hang" => std::future::pending().await,
            _ => self.forward(exchange).await,
        }
    }
}

impl Everything {
    /// Fetches what the rest of the path and the body say, and answers with what came, in words.
    async fn fetch(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let mut body = Vec::new();
        while let Some(part) = exchange.read_body().await? {
            body.extend_from_slice(&part);
        }
        let mut told = Vec::new();
        let mut on_informational = |status: u16, _: &[u8]| told.push(status);
        let request = FetchRequest {
            method: if body.is_empty() { "GET" } else { "POST" },
            target: &exchange.head().path()[6..],
            host: "origin.test",
            lines: b"X-Fetch: 1\r\n",
            body: (!body.is_empty()).then(|| body.into()),
            on_informational: Some(&mut on_informational),
        };
        let origin = self.0.origin.clone().expect("the scene has an origin");
        let mut fetched = match gateway::fetch(&origin, request, &self.0.timeouts).await {
            Ok(fetched) => fetched,
            Err(error) => return exchange.problem(&error.problem()).await,
        };
        let (mut text, mut bytes) = (Vec::new(), 0);
        while let Ok(Some(part)) = fetched.chunk().await {
            bytes += part.len();
            text = part.to_vec();
        }
        let (told, status) = (format!("{told:?}"), fetched.head().status());
        let trailers = String::from_utf8_lossy(fetched.trailers()).trim().to_owned();
        let head = format!("{told} {status} {bytes} bytes, trailers [{trailers}], last part: ");
        exchange.respond(200, b"", &[head.as_bytes(), &text[..text.len().min(1000)]].concat()).await
    }

    async fn forward(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let origin = self.0.origin.clone().expect("the scene has an origin");
        let options = ForwardOptions { timeouts: self.0.timeouts, ..ForwardOptions::default() };
        match exchange.forward(&origin, options).await {
            Ok(_) => Ok(()),
            Err(error) => exchange.forward_failed(&error).await,
        }
    }
}

/// Sends the body back as it comes.
async fn echo(exchange: &mut Exchange<'_>) -> Result<(), Abort> {
    exchange.start(200, b"", None).await?;
    while let Some(part) = exchange.read_body().await? {
        exchange.write(&part).await?;
    }
    exchange.finish(b"X-Trailer: last\r\n").await
}

/// An HTTP/1 origin that answers each request, head and body as they came, with the bytes that `answer` returns.
pub async fn origin(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while let Some(len) = whole(&read) {
                    if len > 0 {
                        let request: Vec<u8> = read.drain(..len).collect();
                        socket.write_all(&answer(&String::from_utf8_lossy(&request))).await.unwrap();
                    }
                    if whole(&read) == Some(0) && socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// How long the request at the front of `read` is; 0: not all there yet.
fn whole(read: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(read).to_ascii_lowercase();
    let Some(head) = text.find("\r\n\r\n") else { return Some(0) };
    let body = &text[head + 4..];
    if text[..head].contains("transfer-encoding: chunked") {
        let end = if body.starts_with("0\r\n") { Some(0) } else { body.find("\r\n0\r\n").map(|at| at + 2) };
        return Some(
            end.and_then(|at| body[at..].find("\r\n\r\n").map(|end| head + 4 + at + end + 4)).unwrap_or(0),
        );
    }
    let length =
        text[..head].split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let length: usize = length.unwrap_or(0);
    Some(if body.len() >= length { head + 4 + length } else { 0 })
}
