//! Sites over TLS: certificates by name, HSTS, plain HTTP sent on, and certificates that change under connections.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Instance, config, files, write};
use http_support::gateway::{CertificateFiles, TlsConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use web::{Config, SiteConfig};

/// A certificate for `name`, in files.
fn certificate(directory: &Path, name: &str) -> (CertificateFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let files = CertificateFiles {
        chain: directory.join(format!("{name}.crt")),
        key: directory.join(format!("{name}.key")),
    };
    std::fs::write(&files.chain, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let der = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap();
    (files, der)
}

/// `GET /page.txt` of `name` over TLS, trusting only `root`; the whole answer as text.
async fn get(address: &str, name: &str, root: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await?;
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(server, stream).await?;
    let request = format!("GET /page.txt HTTP/1.1\r\nhost: {name}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    while !is_whole(&answer) {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await?;
        assert_ne!(read, 0, "it ends within an answer: {answer}");
        answer += std::str::from_utf8(&piece[..read]).expect("text");
    }
    Ok(answer)
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length == Some(body.len())
}

fn over_tls(sites: Vec<SiteConfig>, certificates: Vec<CertificateFiles>) -> Config {
    let tls = TlsConfig { certificates, ..TlsConfig::default() };
    Config { tls_listen: Some(([127, 0, 0, 1], 0).into()), tls, ..config(sites) }
}

#[actix::test]
async fn each_name_has_its_certificate_and_its_site_and_both_change_while_running() {
    let root = tempfile::tempdir().unwrap();
    let site = |name: &str| {
        write(&root.path().join(name).join("page.txt"), name);
        SiteConfig { hosts: vec![name.to_owned()], ..files(&root.path().join(name)) }
    };
    let sites = vec![site("one.test"), site("two.test")];
    let (one, one_der) = certificate(root.path(), "one.test");
    let (two, two_der) = certificate(root.path(), "two.test");
    let configured = over_tls(sites.clone(), vec![one.clone(), two.clone()]);
    let web = Instance::start(configured).await;
    let address = web::tls_url(&web.env).unwrap().replace("https://", "");
    for (name, der) in [("one.test", &one_der), ("two.test", &two_der)] {
        let answer = get(&address, name, der).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(name), "{answer}");
        assert!(answer.contains("strict-transport-security: max-age=31536000\r\n"), "{answer}");
    }
    get(&address, "two.test", &one_der).await.expect_err("the certificate of the other name is not trusted");
    let plain = web.get("/page.txt", &[("host", "one.test")]).await;
    assert_eq!(plain.field("strict-transport-security"), None, "RFC 6797 section 7.2");
    let (renewed, renewed_der) = certificate(root.path(), "one.test");
    web::reload(&web.env, &over_tls(sites, vec![renewed, two])).unwrap();
    get(&address, "one.test", &renewed_der).await.unwrap();
    get(&address, "one.test", &one_der).await.expect_err("the old one is no longer served");
}

#[actix::test]
async fn plain_http_is_sent_on_to_https() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let (files_of, der) = certificate(root.path(), "one.test");
    let site = SiteConfig { https_only: true, ..files(root.path()) };
    let web = Instance::start(over_tls(vec![site.clone()], vec![files_of.clone()])).await;
    let address = web::tls_url(&web.env).unwrap().replace("https://", "");
    let port = address.rsplit(':').next().unwrap();
    // The port of the TLS listener for who came to another port than 80, and the usual one for who came there.
    let near = format!("https://one.test:{port}/page.txt?a=b");
    let usual = "https://one.test/page.txt?a=b";
    for (host, location) in [("one.test:8080", &*near), ("one.test", usual), ("one.test:80", usual)] {
        let answer = web.get("/page.txt?a=b", &[("host", host)]).await;
        assert_eq!((answer.status, answer.field("location")), (308, Some(location)), "{host}");
    }
    let told = web::Config { https_port: Some(4443), ..over_tls(vec![site], vec![files_of]) };
    let told = Instance::start(told).await;
    for host in ["one.test", "one.test:8080", "[::1]:8080"] {
        let location = format!("https://{}:4443/page.txt", host.trim_end_matches(":8080"));
        let answer = told.get("/page.txt", &[("host", host)]).await;
        assert_eq!(answer.field("location"), Some(&*location), "{host}");
    }
    assert!(get(&address, "one.test", &der).await.unwrap().ends_with("page"));
}

#[actix::test]
async fn a_certificate_that_cannot_be_read_is_one_clear_error_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let (good, der) = certificate(root.path(), "one.test");
    let absent =
        CertificateFiles { chain: root.path().join("absent.crt"), key: root.path().join("absent.key") };
    let sites = vec![files(root.path())];
    let web = Instance::start(over_tls(sites.clone(), vec![good])).await;
    let error = web::reload(&web.env, &over_tls(sites, vec![absent])).unwrap_err();
    assert!(error.to_string().contains("absent.crt"), "{error}");
    let address = web::tls_url(&web.env).unwrap().replace("https://", "");
    assert!(get(&address, "one.test", &der).await.unwrap().ends_with("page"));
}
