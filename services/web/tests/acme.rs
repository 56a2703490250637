//! ACME against pebble, the test authority of Let's Encrypt, as the distribution packages it.

#![allow(clippy::print_stdout, reason = "a failed test shows the log of the authority")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, BusConfig};
use clock::WallMs;
use http_support::gateway::{Certificate, CertificateDirectory, CertificateSet, Tls, TlsLimits};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use web::acme::{AcmeConfig, ChallengeKind, Challenges, Issuer};

/// Pebble, asking our name server, and validating at ports of ours.
struct Pebble {
    process: Child,
    dir: tempfile::TempDir,
    port: u16,
}

/// Where it looks for the answers.
struct Ports {
    http: TcpListener,
    tls: TcpListener,
}

impl Pebble {
    /// Issues certificates that are valid for so many seconds.
    async fn start(validity: u64) -> (Self, Ports) {
        let dir = tempfile::tempdir().unwrap();
        write_identity(dir.path());
        let ports = Ports { http: listen().await, tls: listen().await };
        let port = free_port();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{}", free_port()),
            "certificate": dir.path().join("pebble.crt"),
            "privateKey": dir.path().join("pebble.key"),
            "httpPort": ports.http.local_addr().unwrap().port(),
            "tlsPort": ports.tls.local_addr().unwrap().port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": validity,
        }});
        std::fs::write(dir.path().join("pebble.json"), config.to_string()).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut process = Command::new("pebble");
        process.arg("-config").arg(dir.path().join("pebble.json"));
        process.args(["-dnsserver", &name_server().await.to_string()]).env("PEBBLE_VA_NOSLEEP", "1");
        process.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = process.spawn().expect("pebble is installed by infra/test");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("pebble listens", || std::net::TcpStream::connect(address).is_ok()).await;
        (Self { process, dir, port }, ports)
    }

    fn config(&self, certificates: &[&[&str]], challenge: ChallengeKind) -> AcmeConfig {
        let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        AcmeConfig {
            directory: format!("https://127.0.0.1:{}/dir", self.port),
            contact: Some("mailto:ops@standfast.test".to_owned()),
            agree_to_terms: true,
            certificates: certificates.iter().map(owned).collect(),
            challenge,
            root: Some(self.dir.path().join("root.pem")),
            dir: None,
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

/// An authority for pebble's own TLS, and its certificate.
fn write_identity(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    std::fs::write(dir.join("root.pem"), root.pem()).unwrap();
    std::fs::write(dir.join("pebble.crt"), leaf.pem()).unwrap();
    std::fs::write(dir.join("pebble.key"), key.serialize_pem()).unwrap();
}

/// Says that every name is at 127.0.0.1 (RFC 1035 section 4).
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut query).await {
            let question_end = 12 + query[12..len].iter().position(|b| *b == 0).unwrap() + 5;
            let wants_a = query[question_end - 4..question_end - 2] == [0, 1];
            let mut reply = query[..question_end].to_vec();
            reply[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, u8::from(wants_a), 0, 0, 0, 0]);
            if wants_a {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&reply, client).await.unwrap();
        }
    });
    address
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 60 s");
}

/// What is shared by the instances of a stack.
struct Stack {
    dir: tempfile::TempDir,
    bus: Bus,
}

impl Stack {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::open(&BusConfig::embedded(dir.path().join("bus")), "node").unwrap();
        Self { dir, bus }
    }

    fn web(&self, config: &AcmeConfig, number: u64) -> Web {
        let bus = self.bus.link(&format!("web-{number}"));
        Web(Arc::new(Issuer {
            config: config.clone(),
            account_file: self.dir.path().join("account.json"),
            store: Arc::new(CertificateDirectory::new(self.dir.path().join("certificates"))),
            tls: Tls::new(CertificateSet::default(), TlsLimits::default()).unwrap(),
            challenges: Challenges::new(Some(bus.clone())),
            bus,
            seed: number,
        }))
    }
}

/// A web instance: answers where pebble looks, and keeps certificates fresh.
struct Web(Arc<Issuer>);

impl Web {
    /// HTTP on pebble's validation port. `wrong` is a host that somebody else answers for.
    fn answer_http(&self, listener: TcpListener, wrong: &'static str) {
        let challenges = self.0.challenges.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let len = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..len]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match challenges.answer(path).await {
                    _ if request.contains(wrong) => ("200 OK", "not what you look for".to_owned()),
                    Some(answer) => ("200 OK", answer),
                    None => ("404 Not Found", String::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                socket.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
    }

    /// TLS on pebble's other validation port.
    fn answer_tls(&self, listener: TcpListener) {
        let tls = self.0.tls.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let _ = tls.accept(socket).await; // a validation ends with the handshake
            }
        });
    }

    /// Its child, without the tree around it.
    fn run(&self) {
        let issuer = self.0.clone();
        tokio::spawn(async move { issuer.keep_fresh().await });
    }

    fn served(&self, name: &str) -> Option<Certificate> {
        self.0.tls.certificates().matching(name).cloned()
    }
}

const NOBODY: &str = "Host: nobody.test";

/// RFC 8555 section 7.4, from the account to the certificate, for two names in one, proved over HTTP by the OTHER instance:
/// the authority's request may reach any of them. Both serve it at once, and a restart orders nothing.
#[tokio::test]
async fn a_certificate_is_issued_once_and_served_by_all_instances() {
    let (pebble, ports) = Pebble::start(86_400).await;
    let stack = Stack::new();
    let config = pebble.config(&[&["site.test", "www.site.test"]], ChallengeKind::Http01);
    let (first, second) = (stack.web(&config, 1), stack.web(&config, 2));
    second.answer_http(ports.http, NOBODY);
    first.run();
    until("the first serves it", || first.served("www.site.test").is_some()).await;
    second.run();
    until("so does the second", || second.served("site.test").is_some()).await;
    let (one, two) = (first.served("site.test").unwrap(), second.served("site.test").unwrap());
    assert_eq!(one.chain(), two.chain());
    assert!(one.chain().len() > 1, "with the intermediate certificate");
    assert!(["site.test", "www.site.test"].iter().all(|name| one.names().contains(&(*name).to_owned())));
    let key = std::fs::metadata(stack.dir.path().join("certificates/site.test.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o077, 0, "the key is for nobody else");

    drop(pebble); // nobody can issue anything now
    let restarted = stack.web(&config, 3);
    restarted.run();
    until("it serves what was kept", || restarted.served("site.test").is_some()).await;
    assert_eq!(restarted.served("site.test").unwrap().chain(), one.chain());
}

/// A certificate of 30 seconds is followed by another one before it expires, on the account that is there; an instance
/// that only listens serves the new one too.
#[tokio::test]
async fn a_certificate_is_renewed_before_it_expires_and_swapped_while_serving() {
    let (pebble, ports) = Pebble::start(30).await;
    let stack = Stack::new();
    let config = pebble.config(&[&["short.test"]], ChallengeKind::Http01);
    let (web, other) = (stack.web(&config, 1), stack.web(&config, 2));
    web.answer_http(ports.http, NOBODY);
    web.run();
    until("it is issued", || web.served("short.test").is_some()).await;
    other.run();
    let old = web.served("short.test").unwrap();
    let account = std::fs::read(stack.dir.path().join("account.json")).unwrap();
    until("it is renewed", || web.served("short.test").unwrap().chain() != old.chain()).await;
    assert!(WallMs::now() < old.not_after(), "the old one had not expired yet");
    let new = web.served("short.test").unwrap();
    assert!(new.not_after() > old.not_after());
    assert_eq!(web.0.tls.certificates().certificates().len(), 1, "the new one took the place of the old one");
    until("the other serves it", || other.served("short.test").is_some_and(|it| it.chain() == new.chain()))
        .await;
    assert_eq!(std::fs::read(stack.dir.path().join("account.json")).unwrap(), account);
}

/// RFC 8737: proved on the TLS port itself, for a stack that has no port 80.
#[tokio::test]
async fn a_name_is_proved_in_the_tls_handshake() {
    let (pebble, ports) = Pebble::start(86_400).await;
    let stack = Stack::new();
    let web = stack.web(&pebble.config(&[&["alpn.test"]], ChallengeKind::TlsAlpn01), 1);
    web.answer_tls(ports.tls);
    web.run();
    until("it is issued", || web.served("alpn.test").is_some()).await;
}

/// What the authority does not accept costs nothing but its own order.
#[tokio::test]
async fn a_name_that_cannot_be_proved_does_not_hold_up_the_others() {
    let (pebble, ports) = Pebble::start(86_400).await;
    let stack = Stack::new();
    let web = stack.web(&pebble.config(&[&["wrong.test"], &["right.test"]], ChallengeKind::Http01), 1);
    web.answer_http(ports.http, "Host: wrong.test");
    web.run();
    until("the right one is issued", || web.served("right.test").is_some()).await;
    assert!(web.served("wrong.test").is_none());
}
