//! Which certificates a point of presence shows, and when they change.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;
use std::sync::Arc;

use bus::Message;
use edge::Config;
use http_support::gateway::{CertificateFiles, TlsConfig};
use messages::names::CERTIFICATES;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::{Origin, Reply, Stack, until_some};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority, and a client that believes nobody else.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    client: TlsConnector,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { issuer: Issuer::new(params, key), client: TlsConnector::from(Arc::new(config)) }
    }

    /// Chain and key for `name`, in one file of the directory.
    fn issue(&self, directory: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        let pem = certificate.pem() + &key.serialize_pem();
        std::fs::write(directory.join(format!("{name}.pem")), pem).unwrap();
    }

    /// A connection to whoever can prove that it is `name`.
    async fn connect(&self, stack: &Stack, name: &str) -> Option<TlsStream<TcpStream>> {
        let url = edge::tls_url(&stack.envs[0]).unwrap();
        let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).await.unwrap();
        self.client.connect(name.to_owned().try_into().unwrap(), stream).await.ok()
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn tls(directory: &Path) -> TlsConfig {
    TlsConfig { directory: Some(directory.to_owned()), h2: false, ..TlsConfig::default() }
}

/// What the web tier is issued is shown as soon as that is said on the bus; connections that are up are not touched.
#[actix::test]
async fn a_certificate_that_is_issued_meanwhile_is_shown() {
    let (authority, issued) = (Authority::new(), tempfile::tempdir().unwrap());
    let origin = Origin::start().await;
    origin.answer("/page", Reply::new("", "x"));
    let stack = Stack::with(&origin, 1, |_, config| {
        config.tls_listen = Some(([127, 0, 0, 1], 0).into());
        config.tls = tls(issued.path());
    })
    .await;
    assert!(
        authority.connect(&stack, "shop.test").await.is_none(),
        "the one for development is nobody's word"
    );
    authority.issue(issued.path(), "shop.test");
    stack.bus.broadcast(CERTIFICATES, Message::new("shop.test")).await.unwrap();
    let mut early = until_some("it is shown", || authority.connect(&stack, "shop.test")).await;

    authority.issue(issued.path(), "news.test");
    stack.bus.broadcast(CERTIFICATES, Message::new("news.test")).await.unwrap();
    until_some("the next one too", || authority.connect(&stack, "news.test")).await;
    assert!(ask(&mut early).await.starts_with("HTTP/1.1 200"), "it goes on");
    stack.stop().await;
}

/// A configuration that cannot be used leaves all as it was, also for what is issued afterwards.
#[actix::test]
async fn a_reload_takes_certificates_over_or_changes_nothing() {
    let (authority, first, second) =
        (Authority::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| {
        config.tls_listen = Some(([127, 0, 0, 1], 0).into());
        config.tls = tls(first.path());
    })
    .await;
    authority.issue(second.path(), "shop.test");
    let missing = CertificateFiles { chain: "/nowhere.crt".into(), key: "/nowhere.key".into() };
    let wrong = TlsConfig { certificates: vec![missing], ..tls(second.path()) };
    let refused = edge::reload(&stack.envs[0], &Config { tls: wrong, ..Config::default() });
    assert!(refused.is_err() && authority.connect(&stack, "shop.test").await.is_none());

    edge::reload(&stack.envs[0], &Config { tls: tls(second.path()), ..Config::default() }).unwrap();
    assert!(authority.connect(&stack, "shop.test").await.is_some());
    authority.issue(second.path(), "news.test");
    stack.bus.broadcast(CERTIFICATES, Message::new("news.test")).await.unwrap();
    until_some("the new directory is the one that is read", || authority.connect(&stack, "news.test")).await;
    stack.stop().await;
}
