//! Members of pools by every kind of URL: Unix sockets, TLS with an authority of one's own, php-fpm; and stickiness.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::origin::Origin;
use common::{Client, Instance, config, files, pool, proxy, until, with_origin, write};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use upstream::{FastCgiConfig, StickyConfig, TlsConfig};
use web::SiteConfig;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

/// Answers one request on each connection that `accept` yields.
async fn answer_hello(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => received.extend_from_slice(&piece[..read]),
        }
    }
    stream.write_all(HELLO).await?;
    stream.shutdown().await
}

#[actix::test]
async fn a_member_may_listen_on_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let web =
        Instance::start(with_origin(config(vec![proxy()]), &[&format!("unix:{}", path.display())])).await;
    assert_eq!(web.get("/", &[]).await.status, 502, "nobody listens yet");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(answer_hello(stream));
        }
    });
    until("it answers", async || web.get("/", &[]).await.body == b"hello").await;
    serving.abort();
}

/// A server that shows this certificate, on a free port.
async fn over_tls(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (u16, tokio::task::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    drop(answer_hello(stream).await);
                }
            });
        }
    });
    (port, serving)
}

#[actix::test]
async fn a_member_over_tls_must_show_a_certificate_that_its_authority_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let made = ["localhost", "other.example"].map(|name| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let file = directory.path().join(format!("{name}.pem"));
        std::fs::write(&file, made.cert.pem()).unwrap();
        (made, file)
    });
    let (port, serving) = over_tls(&made[0].0).await;
    let asked = async |authority: &Path, name: Option<&str>| {
        let mut members = pool(&[&format!("https://localhost:{port}")]);
        members.tls = TlsConfig { authorities: vec![authority.to_owned()], name: name.map(str::to_owned) };
        let mut config = config(vec![proxy()]);
        config.pools.insert("origin".to_owned(), members);
        let web = Instance::start(config).await;
        // The name is looked up first; until then there is no member.
        until("its name is known", async || web.get("/", &[]).await.status != 503).await;
        web.get("/", &[]).await
    };
    assert_eq!(asked(&made[0].1, None).await.body, b"hello");
    assert_eq!(asked(&made[1].1, None).await.status, 502, "another authority");
    assert_eq!(asked(&made[0].1, Some("other.example")).await.status, 502, "another name");
    serving.abort();
}

#[actix::test]
async fn a_client_of_a_sticky_pool_stays_with_its_member_and_no_member_sees_the_cookie() {
    let (one, two) = (Origin::saying("", "one").await, Origin::saying("", "two").await);
    let mut members = pool(&[&one.url, &two.url]);
    members.sticky = Some(StickyConfig::default());
    let mut config = config(vec![proxy()]);
    config.pools.insert("origin".to_owned(), members);
    let web = Instance::start(config).await;
    for _ in 0..4 {
        let first = web.get("/", &[]).await;
        let set = first.field("set-cookie").expect("a cookie").to_owned();
        let cookie = set.split(';').next().unwrap();
        for _ in 0..8 {
            let again = web.get("/", &[("cookie", &format!("a=1; {cookie}; b=2"))]).await;
            assert_eq!(again.body, first.body);
            assert_eq!(again.field("set-cookie"), None);
        }
    }
    let seen = [one.seen(), two.seen()].concat();
    assert!(seen.iter().all(|head| !head.contains("standfast-member")), "{seen:?}");
    assert!(seen.iter().any(|head| head.contains("cookie: a=1; b=2")), "{seen:?}");
}

/// php-fpm with two processes on a Unix socket, until it is dropped.
struct PhpFpm {
    process: Child,
    socket: PathBuf,
}

impl PhpFpm {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("fpm.sock");
        let settings = directory.join("fpm.conf");
        let text = format!(
            "[global]\nerror_log = {0}/fpm.log\ndaemonize = no\n[www]\nlisten = {1}\npm = static\npm.max_children = 2\n",
            directory.display(),
            socket.display()
        );
        std::fs::write(&settings, text).unwrap();
        let process = Command::new(program())
            .args(["-n", "-R", "-F", "-y"])
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php-fpm starts");
        Self { process, socket }
    }
}

impl Drop for PhpFpm {
    fn drop(&mut self) {
        // Killed, it would leave its processes behind, which go on answering.
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        drop(self.process.wait());
    }
}

/// Distributions call it by its version: `php-fpm8.2`.
fn program() -> PathBuf {
    let directories = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let names = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
    let mut found = names
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("php-fpm")));
    found.next().expect("php-fpm is installed: infra/test does it")
}

const ECHO: &str = r#"<?php
header('X-Method: ' . $_SERVER['REQUEST_METHOD']);
setcookie('seen', 'yes');
if (isset($_GET['status'])) http_response_code((int) $_GET['status']);
if (isset($_GET['big'])) { echo str_repeat('x', 3000000); exit; }
echo json_encode([
    'script' => $_SERVER['SCRIPT_NAME'], 'info' => $_SERVER['PATH_INFO'] ?? '', 'query' => $_SERVER['QUERY_STRING'],
    'uri' => $_SERVER['REQUEST_URI'], 'client' => $_SERVER['REMOTE_ADDR'], 'host' => $_SERVER['SERVER_NAME'],
    'length' => strlen(file_get_contents('php://input')), 'post' => $_POST, 'cookie' => $_COOKIE,
]);
"#;

#[actix::test]
async fn an_application_on_php_fpm_is_served_as_its_own_server_would() {
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().join("site");
    write(&site.join("index.php"), ECHO);
    write(&site.join("admin/index.php"), ECHO);
    write(&site.join("style.css"), "a {}");
    let fpm = PhpFpm::start(directory.path());
    let mut members = pool(&[&format!("fastcgi+unix:{}", fpm.socket.display())]);
    members.fastcgi = Some(FastCgiConfig { root: site.clone(), index: "index.php".to_owned() });
    let mut config = config(vec![SiteConfig { pool: Some("php".to_owned()), ..files(&site) }]);
    config.pools.insert("php".to_owned(), members);
    let web = Instance::start(config).await;
    until("it answers", async || web.get("/", &[]).await.status == 200).await;

    let front = web
        .get("/2026/a-post/?p=1&q=%2F", &[("cookie", "a=b"), ("x-forwarded-for", "10.1.2.3")])
        .await
        .json();
    assert_eq!(front["script"], "/index.php");
    assert_eq!(front["uri"], "/2026/a-post/?p=1&q=%2F");
    assert_eq!((&front["client"], &front["cookie"]["a"]), (&"10.1.2.3".into(), &"b".into()));
    let spoofed = web.get("/", &[("standfast-client", "6.6.6.6")]).await;
    assert_eq!(spoofed.json()["client"], "127.0.0.1", "a client does not say who it is");

    assert_eq!(web.get("/admin/", &[]).await.json()["script"], "/admin/index.php");
    let slash = web.get("/admin?x=1", &[]).await;
    assert_eq!((slash.status, slash.field("location")), (308, Some("/admin/?x=1")));
    assert_eq!(web.get("/index.php/more/info", &[]).await.json()["info"], "/more/info");
    assert_eq!(web.get("/style.css", &[]).await.body, b"a {}", "files are not the program's");
    for source in ["/index.php", "/index.PHP", "/admin/index.php", "/%69ndex.php"] {
        let answer = web.get(source, &[]).await;
        assert!(!answer.body.windows(5).any(|bytes| bytes == b"<?php"), "{source} shows its source");
    }
    assert_eq!(web.get("/?status=404", &[]).await.status, 404);
    let big = web.get("/?big=1", &[]).await;
    assert_eq!((big.status, big.body.len()), (200, 3_000_000));
    let head = Client::connect(&web.address).await.request("HEAD", "/", &[], b"").await;
    assert_eq!((head.status, head.field("x-method"), head.body.len()), (200, Some("HEAD"), 0));

    let form = [("content-type", "application/x-www-form-urlencoded")];
    let posted = Client::connect(&web.address).await.request("POST", "/", &form, b"name=value").await;
    assert_eq!(posted.json()["post"]["name"], "value");
    let large = vec![b'x'; 1_500_000];
    let posted = Client::connect(&web.address).await.request("POST", "/", &[], &large).await;
    assert_eq!(posted.json()["length"], 1_500_000);
    // More requests than processes, one after the other on kept connections of clients: none keeps a process.
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(&web.address).await;
        assert_eq!(client.request("GET", "/", &[], b"").await.status, 200);
        clients.push(client);
    }
    drop(fpm);
    until("its end is seen", async || web.get("/", &[]).await.status == 502).await;
}
