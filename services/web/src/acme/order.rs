//! One order, from the names to the certificate (RFC 8555 section 7.4).

use std::path::Path;
use std::time::Duration;

use clock::WallMs;
use http_support::gateway::{Certificate, CertificateSet, Tls};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::challenges::{Challenges, Published};
use super::{AcmeError, ChallengeKind};

/// How often the authority is asked whether it has made up its mind; it may say so itself by `Retry-After`.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// What was issued, in PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// How names are proved.
pub(super) struct Prover<'p> {
    pub(super) kind: ChallengeKind,
    pub(super) challenges: &'p Challenges,
    pub(super) tls: &'p Tls,
}

/// Orders one certificate for all of `names`, with a key of its own.
pub(super) async fn order(
    account: &Account,
    names: &[String],
    prover: &Prover<'_>,
) -> Result<Issued, AcmeError> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    prove(&mut order, prover).await?;
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(names)?;
    request.distinguished_name = DistinguishedName::new(); // the names are in the subjectAltName; no common name
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&POLL).await?;
    Ok(Issued { chain, key: key.serialize_pem() })
}

/// Proves each name that the authority does not take as proved already. The answers are given until it has decided.
async fn prove(order: &mut Order, prover: &Prover<'_>) -> Result<(), AcmeError> {
    let mut answers = Answers::new(prover);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let kind = match prover.kind {
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let challenge = authorization.challenge(kind);
        let mut challenge = challenge
            .ok_or_else(|| AcmeError::NoChallenge { name: name.clone(), kind: prover.kind.name() })?;
        answers.give(&name, &challenge)?;
        challenge.set_ready().await?;
    }
    match order.poll_ready(&POLL).await {
        Ok(OrderStatus::Invalid) => Err(refused(order).await),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the authority says of the name that it did not accept.
async fn refused(order: &mut Order) -> AcmeError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else { break };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return AcmeError::NotProved { name, detail: problem.to_string() };
        }
    }
    AcmeError::NotProved { name: "the order".to_owned(), detail: "no reason given".to_owned() }
}

/// The answers that are being given; taken back when dropped.
struct Answers<'p> {
    prover: &'p Prover<'p>,
    http: Vec<Published>,
    tls: Vec<Certificate>,
}

impl<'p> Answers<'p> {
    fn new(prover: &'p Prover<'p>) -> Self {
        Self { prover, http: Vec::new(), tls: Vec::new() }
    }

    fn give(&mut self, name: &str, challenge: &ChallengeHandle<'_>) -> Result<(), AcmeError> {
        let answer = challenge.key_authorization();
        match self.prover.kind {
            ChallengeKind::Http01 => {
                let published =
                    self.prover.challenges.publish(challenge.token.clone(), answer.as_str().to_owned());
                self.http.push(published);
            }
            ChallengeKind::TlsAlpn01 => {
                self.tls.push(proof(name, answer.digest().as_ref())?);
                self.prover.tls.set_challenges(CertificateSet::new(self.tls.clone()));
            }
        }
        Ok(())
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        if !self.tls.is_empty() {
            self.prover.tls.set_challenges(CertificateSet::default());
        }
    }
}

/// The self-signed certificate of RFC 8737 section 3.
fn proof(name: &str, digest: &[u8]) -> Result<Certificate, AcmeError> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let chain = params.self_signed(&key)?.pem();
    let place = Path::new("TLS-ALPN-01 proof");
    Ok(Certificate::from_pem(chain.as_bytes(), place, key.serialize_pem().as_bytes(), place, WallMs::now())?)
}
