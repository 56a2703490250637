//! `amqps://`: a broker is believed when an authority that we trust has signed its certificate, and no other.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use bus::testing::Broker;
use bus::{Bus, BusConfig, BusError, Message, PublishError, QueueSpec};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority and a certificate of it for `localhost`, as files in `dir`.
fn issue(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_over_tls_is_used_when_its_authority_is_trusted_and_refused_otherwise() {
    let (dir, strangers) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    issue(dir.path());
    issue(strangers.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = dir.path().display();
    let _broker = Broker::start_with(&format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {path}/ca.pem\n\
         ssl_options.certfile = {path}/cert.pem\nssl_options.keyfile = {path}/key.pem\n"
    ))
    .unwrap();

    let url = format!("amqps://guest:guest@localhost:{port}/%2f");
    let config = BusConfig { ca_file: Some(dir.path().join("ca.pem")), ..BusConfig::amqp(&url) };
    let bus = Bus::open(&config, "node").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish("q", Message::new("sealed")).await.unwrap();
    let mut consumer = bus.consume("q", 1).await.unwrap();
    let delivery = consumer.next().await;
    assert_eq!(&delivery.message.body[..], b"sealed");
    delivery.ack();

    let wary =
        BusConfig { ca_file: Some(strangers.path().join("ca.pem")), confirm_deadline_ms: 500, ..config };
    let refused = Bus::open(&wary, "node").unwrap().publish("q", Message::new("seen by a stranger")).await;
    assert!(matches!(refused, Err(PublishError::Down)), "{refused:?}");
}

#[test]
fn a_file_of_authorities_that_is_not_there_is_told_at_once() {
    let missing =
        BusConfig { ca_file: Some("/nowhere/ca.pem".into()), ..BusConfig::amqp("amqps://localhost") };
    let refused = Bus::open(&missing, "node").err();
    assert!(
        matches!(&refused, Some(BusError::Config(line)) if line.contains("/nowhere/ca.pem")),
        "{refused:?}"
    );
}
