//! TLS over real sockets: names, swaps, resumption, bounds. The clients are rustls, and curl with OpenSSL.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use clock::WallMs;
use http_support::gateway::{
    Certificate, CertificateSet, ClientTls, HandshakeError, Roots, Tls, TlsInfo, TlsLimits, development,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate authority of the test's own, and its certificate as a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    fn issue(&self, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let chain = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap().pem();
        let at = Path::new("test");
        Certificate::from_pem(chain.as_bytes(), at, key.serialize_pem().as_bytes(), at, WallMs::now())
            .unwrap()
    }

    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Says hello to HTTP and echoes anything else; remembers what each handshake came to.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    handshakes: Arc<Mutex<Vec<Result<TlsInfo, String>>>>,
}

async fn serve(tls: Arc<Tls>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), handshakes: Arc::default() };
    let handshakes = server.handshakes.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (tls, handshakes) = (tls.clone(), handshakes.clone());
            tokio::spawn(async move {
                let accepted = tls.accept(socket).await;
                let outcome = accepted.as_ref().map(|(_, info)| info.clone()).map_err(ToString::to_string);
                handshakes.lock().unwrap().push(outcome);
                if let Ok((mut stream, _)) = accepted {
                    let _ = answer(&mut stream).await;
                }
            });
        }
    });
    server
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let back: &[u8] = match buffer[..len].starts_with(b"GET ") {
            true => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false => &buffer[..len],
        };
        stream.write_all(back).await?;
        stream.flush().await?;
    }
}

impl Server {
    async fn last(&self, nth: usize) -> Result<TlsInfo, String> {
        until(|| self.handshakes.lock().unwrap().len() > nth).await;
        self.handshakes.lock().unwrap()[nth].clone()
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s");
}

async fn connect(client: &TlsConnector, to: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    client.connect(name, TcpStream::connect(to).await?).await
}

async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text);
}

fn names_shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn tls(certificates: Vec<Certificate>) -> Arc<Tls> {
    Tls::new(CertificateSet::new(certificates), TlsLimits::default()).unwrap()
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// RFC 6066 section 3 (SNI), RFC 7301 (ALPN): by name and version of the protocol.
#[tokio::test]
async fn the_certificate_and_the_protocol_are_chosen_by_what_the_client_asks_for() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["first.test"]), authority.issue(&["*.second.test"]));
    let server = serve(tls(vec![first.clone(), second.clone()])).await;
    let client = authority.client(&[&rustls::version::TLS13], &[b"h2", b"http/1.1"]);
    let mut stream = connect(&client, server.address, "www.second.test").await.unwrap();
    echo(&mut stream, b"hello").await;
    assert_eq!(names_shown(&stream), second.chain()[0].to_vec());
    let info = server.last(0).await.unwrap();
    assert_eq!(
        (info.version, info.h2, info.server_name.as_deref()),
        ("TLSv1.3", true, Some("www.second.test"))
    );
    let client = authority.client(&[&rustls::version::TLS12], &[b"http/1.1"]);
    let mut stream = connect(&client, server.address, "first.test").await.unwrap();
    echo(&mut stream, b"hello").await;
    assert_eq!(names_shown(&stream), first.chain()[0].to_vec());
    let info = server.last(1).await.unwrap();
    assert_eq!((info.version, info.h2), ("TLSv1.2", false));
    assert!(
        connect(&client, server.address, "stranger.test").await.is_err(),
        "it gets the default, and objects"
    );
}

/// A renewal reaches new handshakes only: nobody's connection is touched.
#[tokio::test]
async fn certificates_change_under_a_running_connection() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["site.test"]), authority.issue(&["site.test"]));
    let tls = tls(vec![old.clone()]);
    let server = serve(tls.clone()).await;
    let client = authority.client(BOTH, &[]);
    let mut before = connect(&client, server.address, "site.test").await.unwrap();
    echo(&mut before, b"before").await;
    tls.replace(CertificateSet::new(vec![new.clone()]));
    echo(&mut before, b"still there").await;
    let mut fresh = connect(&authority.client(BOTH, &[]), server.address, "site.test").await.unwrap();
    echo(&mut fresh, b"after").await;
    assert_eq!(names_shown(&before), old.chain()[0].to_vec());
    assert_eq!(names_shown(&fresh), new.chain()[0].to_vec());
}

#[tokio::test]
async fn a_session_is_resumed_with_either_version() {
    let authority = Authority::new();
    let server = serve(tls(vec![authority.issue(&["site.test"])])).await;
    let versions: [&[&rustls::SupportedProtocolVersion]; 2] =
        [&[&rustls::version::TLS13], &[&rustls::version::TLS12]];
    for (nth, version) in versions.into_iter().enumerate() {
        let client = authority.client(version, &[]);
        for resumed in [false, true] {
            let mut stream = connect(&client, server.address, "site.test").await.unwrap();
            echo(&mut stream, b"the tickets come with the first answer").await;
            let info = server.last(2 * nth + usize::from(resumed)).await.unwrap();
            assert_eq!(info.resumed, resumed, "{info:?}");
        }
    }
}

#[tokio::test]
async fn whoever_is_silent_or_speaks_no_tls_is_let_go_and_others_get_their_turn() {
    let authority = Authority::new();
    let limits =
        TlsLimits { handshake: Duration::from_millis(500), handshakes_max: 1, ..TlsLimits::default() };
    let certificates = CertificateSet::new(vec![authority.issue(&["site.test"])]);
    let server = serve(Tls::new(certificates, limits).unwrap()).await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n").await.unwrap();
    assert!(server.last(0).await.unwrap_err().contains("handshake failed"));
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0, "closed when its time is over");
    assert!(server.last(1).await.unwrap_err().contains("no handshake within 500ms"));
    // The one place is taken by a silent client again: the next one waits, and is served.
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let client = authority.client(BOTH, &[]);
    let served = async {
        loop {
            // Its turn may come when little of its own time is left: then it is let go too, and tries again.
            let Ok(mut stream) = connect(&client, server.address, "site.test").await else { continue };
            if stream.write_all(b"served").await.is_ok() && stream.read_exact(&mut [0; 6]).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), served).await.unwrap();
}

/// RFC 8737: only who validates sees the certificate of a challenge, and such a connection carries nothing.
#[tokio::test]
async fn a_tls_alpn_challenge_is_answered_apart_from_the_site() {
    let authority = Authority::new();
    let (site, proof) = (authority.issue(&["site.test"]), authority.issue(&["site.test"]));
    let tls = tls(vec![site]);
    let server = serve(tls.clone()).await;
    let validator = authority.client(BOTH, &[b"acme-tls/1"]);
    connect(&validator, server.address, "site.test").await.expect_err("no challenge is under way");
    tls.set_challenges(CertificateSet::new(vec![proof.clone()]));
    let stream = connect(&validator, server.address, "site.test").await.unwrap();
    assert_eq!(names_shown(&stream), proof.chain()[0].to_vec());
    assert_eq!(server.last(1).await.unwrap_err(), HandshakeError::Challenge.to_string());
}

#[tokio::test]
async fn an_upstream_server_is_verified_by_name_and_root() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = serve(tls(vec![authority.issue(&["origin.test", "127.0.0.1"])])).await;
    let open = |roots: PathBuf, name: &'static str| async move {
        let upstream = ClientTls::new(&Roots::Files(vec![roots])).unwrap();
        let socket = TcpStream::connect(server.address).await.unwrap();
        upstream.connect(ClientTls::name(name).unwrap(), socket).await
    };
    for name in ["origin.test", "127.0.0.1"] {
        echo(&mut open(authority.file(), name).await.unwrap(), b"hello").await;
    }
    let wrong_name = open(authority.file(), "other.test").await.unwrap_err();
    assert!(wrong_name.to_string().contains("not valid for name"), "{wrong_name}");
    let wrong_root = open(stranger.file(), "origin.test").await.unwrap_err();
    assert!(wrong_root.to_string().contains("invalid peer certificate"), "{wrong_root}");
    let missing = ClientTls::new(&Roots::Files(vec!["/nowhere.pem".into()])).unwrap_err();
    assert_eq!(missing.to_string(), "/nowhere.pem: cannot be read");
}

/// Counts TLS records of application data in what is written.
struct Records<IO> {
    io: IO,
    seen: Arc<AtomicUsize>,
    rest: usize,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Records<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Records<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        let mut at = self.rest;
        while at < written {
            self.seen.fetch_add(usize::from(buf[at] == 0x17), Ordering::Relaxed);
            at += 5 + usize::from(u16::from_be_bytes([buf[at + 3], buf[at + 4]]));
        }
        self.rest = at - written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_small_reply_is_one_record() {
    let authority = Authority::new();
    let tls = tls(vec![authority.issue(&["site.test"])]);
    let (near, far) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Records { io: far, seen: seen.clone(), rest: 0 };
    let client = authority.client(&[&rustls::version::TLS13], &[]);
    let name = ServerName::try_from("site.test").unwrap();
    let (accepted, connected) = tokio::join!(tls.accept(counted), client.connect(name, near));
    let (mut server, mut client) = (accepted.unwrap().0, connected.unwrap());
    let before = seen.load(Ordering::Relaxed);
    server.write_all(&[b'x'; 8 * 1024]).await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0; 8 * 1024]).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed) - before, 1);
}

/// A client of another family, with the file of the development certificate as its root: what the README shows.
#[tokio::test]
async fn curl_trusts_the_development_certificate_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(tls(vec![development(dir.path(), &[], WallMs::now()).unwrap()])).await;
    let url = format!("https://localhost:{}", server.address.port());
    let root = dir.path().join("development.pem");
    for version in [["--tls-max", "1.3"], ["--tls-max", "1.2"]] {
        let mut curl = tokio::process::Command::new("curl");
        let curl = curl
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(&root)
            .args(version)
            .arg("--http1.1")
            .arg(&url);
        let output = curl.output().await.unwrap();
        assert_eq!(output.stdout, b"hello", "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(server.last(0).await.unwrap().version, "TLSv1.3");
    assert_eq!(server.last(1).await.unwrap().version, "TLSv1.2");
}
