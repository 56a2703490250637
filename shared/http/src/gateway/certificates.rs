//! A certificate with its private key: read from PEM, and checked before anybody is served with it.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::WallMs;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::crypto::default_provider;

/// Largest PEM file that is read, bytes. A chain has a few kilobytes; what is larger was named by mistake.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate or its key cannot be used. Each names the file to look at.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("{file}: cannot be read")]
    Read {
        /// The file.
        file: PathBuf,
        /// Missing, forbidden, a directory.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written (the development certificate, or one that was issued).
    #[error("{file}: cannot be written")]
    Write {
        /// The file.
        file: PathBuf,
        /// Full, forbidden, a directory.
        #[source]
        source: io::Error,
    },
    /// Larger than any chain is.
    #[error("{file}: has more than {PEM_BYTES_MAX} bytes, so it is no certificate or key")]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// Damaged PEM.
    #[error("{file}: is not PEM: {detail}")]
    NotPem {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// PEM, but no `CERTIFICATE` section.
    #[error("{file}: holds no certificate: no `-----BEGIN CERTIFICATE-----` section")]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// PEM, but no private key section.
    #[error("{file}: holds no private key: no `-----BEGIN PRIVATE KEY-----` section")]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The first certificate is not X.509.
    #[error("{file}: the first certificate is not X.509: {detail}")]
    NotX509 {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// `notAfter` has passed.
    #[error("{file}: expired at {at}")]
    Expired {
        /// The file.
        file: PathBuf,
        /// Since then.
        at: WallMs,
    },
    /// `notBefore` lies ahead.
    #[error("{file}: is not valid before {at}")]
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// Until then.
        at: WallMs,
    },
    /// The key is another certificate's.
    #[error("{key}: does not match the first certificate in {file}")]
    KeyMismatch {
        /// The file of the certificate.
        file: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Encrypted, or of a kind that is not supported (RSA, ECDSA P-256 and P-384, and Ed25519 are).
    #[error("{key}: the private key cannot be used: {detail}")]
    KeyUnusable {
        /// The file of the key.
        key: PathBuf,
        /// Why.
        detail: String,
    },
    /// No subject alternative name of type DNS or IP.
    #[error("{file}: names no host: it has no subjectAltName of type DNS or IP")]
    NoName {
        /// The file.
        file: PathBuf,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {detail}")]
    Make {
        /// Why.
        detail: String,
    },
}

/// A chain, its private key, and what of it matters here.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: WallMs,
    not_after: WallMs,
}

impl Certificate {
    /// Reads a chain, leaf first, and its private key; both may be in one file.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, they do not belong together, or `now` is outside of the validity.
    pub fn from_files(chain: &Path, key: &Path, now: WallMs) -> Result<Self, CertificateError> {
        let chain_pem = read(chain)?;
        let key_pem = if key == chain { chain_pem.clone() } else { read(key)? };
        Self::from_pem(&chain_pem, chain, &key_pem, key, now)
    }

    /// The same from memory; the paths are what an error names.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn from_pem(
        chain_pem: &[u8],
        chain_file: &Path,
        key_pem: &[u8],
        key_file: &Path,
        now: WallMs,
    ) -> Result<Self, CertificateError> {
        let chain = parse_chain(chain_pem, chain_file)?;
        let key = parse_key(key_pem, key_file)?;
        let facts = facts(&chain[0], chain_file)?;
        let file = || chain_file.to_path_buf();
        if now > facts.not_after {
            return Err(CertificateError::Expired { file: file(), at: facts.not_after });
        }
        if now < facts.not_before {
            return Err(CertificateError::NotYetValid { file: file(), at: facts.not_before });
        }
        if facts.names.is_empty() {
            return Err(CertificateError::NoName { file: file() });
        }
        let unusable = |error: rustls::Error| CertificateError::KeyUnusable {
            key: key_file.to_path_buf(),
            detail: error.to_string(),
        };
        let key = default_provider().key_provider.load_private_key(key).map_err(unusable)?;
        // Compared here and not by rustls, which refuses to look into the certificate of a TLS-ALPN-01 proof: that has
        // an extension which is critical on purpose.
        if key.public_key().is_some_and(|public| public.as_ref() != facts.public_key) {
            return Err(CertificateError::KeyMismatch { file: file(), key: key_file.to_path_buf() });
        }
        Ok(Self {
            key: Arc::new(CertifiedKey::new(chain, key)),
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    /// The DNS names it is good for, in lower case, `*.example.org` included; then IP addresses.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Valid from then.
    #[must_use]
    pub fn not_before(&self) -> WallMs {
        self.not_before
    }

    /// Valid until then.
    #[must_use]
    pub fn not_after(&self) -> WallMs {
        self.not_after
    }

    /// What rustls serves.
    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The chain, leaf first, in DER.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

/// All certificates of a PEM file: a chain, or a set of roots.
///
/// # Errors
/// When the file cannot be read, is not PEM, or holds none.
pub(super) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    parse_chain(&read(file)?, file)
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let fail = |source| CertificateError::Read { file: file.to_path_buf(), source };
    if std::fs::metadata(file).map_err(fail)?.len() > PEM_BYTES_MAX {
        return Err(CertificateError::TooLarge { file: file.to_path_buf() });
    }
    std::fs::read(file).map_err(fail)
}

fn parse_chain(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem(&error, file))?;
    match chain.is_empty() {
        true if is_pem(pem) => Err(CertificateError::NoCertificate { file: file.to_path_buf() }),
        true => Err(CertificateError::NotPem {
            file: file.to_path_buf(),
            detail: "it has no `-----BEGIN` line".to_owned(),
        }),
        false => Ok(chain),
    }
}

fn parse_key(pem: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    if pem.windows(ENCRYPTED.len()).any(|w| w == ENCRYPTED) {
        let detail =
            "it is encrypted with a passphrase; store it decrypted, readable by its user only".to_owned();
        return Err(CertificateError::KeyUnusable { key: file.to_path_buf(), detail });
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound if is_pem(pem) => CertificateError::NoKey { file: file.to_path_buf() },
        PemError::NoItemsFound => CertificateError::NotPem {
            file: file.to_path_buf(),
            detail: "it has no `-----BEGIN` line".to_owned(),
        },
        other => not_pem(&other, file),
    })
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

fn is_pem(bytes: &[u8]) -> bool {
    let begin = b"-----BEGIN ";
    bytes.windows(begin.len()).any(|w| w == begin)
}

fn not_pem(error: &PemError, file: &Path) -> CertificateError {
    CertificateError::NotPem { file: file.to_path_buf(), detail: error.to_string() }
}

/// What is read out of the leaf.
struct Facts {
    names: Vec<String>,
    not_before: WallMs,
    not_after: WallMs,
    public_key: Vec<u8>,
}

fn facts(leaf: &CertificateDer<'_>, file: &Path) -> Result<Facts, CertificateError> {
    let broken = |detail: String| CertificateError::NotX509 { file: file.to_path_buf(), detail };
    let (_, x509) = X509Certificate::from_der(leaf).map_err(|error| broken(error.to_string()))?;
    let names = x509.subject_alternative_name().map_err(|error| broken(error.to_string()))?;
    let names = names.map_or_else(Vec::new, |extension| {
        extension.value.general_names.iter().filter_map(host_name).collect()
    });
    let at = |time: x509_parser::time::ASN1Time| WallMs(time.timestamp().saturating_mul(1000));
    let validity = x509.validity();
    Ok(Facts {
        names,
        not_before: at(validity.not_before),
        not_after: at(validity.not_after),
        public_key: x509.public_key().raw.to_vec(),
    })
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            let either = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
            either.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn make(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn load(chain: &str, key: &str, now: WallMs) -> Result<Certificate, CertificateError> {
        let (chain_file, key_file) = (Path::new("site.crt"), Path::new("site.key"));
        Certificate::from_pem(chain.as_bytes(), chain_file, key.as_bytes(), key_file, now)
    }

    #[test]
    fn names_and_validity_are_read_from_the_leaf() {
        let (chain, key) = make(&["Example.org", "*.example.org", "127.0.0.1"]);
        let certificate = load(&chain, &key, WallMs::now()).unwrap();
        assert_eq!(certificate.names(), ["example.org", "*.example.org", "127.0.0.1"]);
        assert!(certificate.not_before() < WallMs::now() && WallMs::now() < certificate.not_after());
    }

    /// Every mistake names the file to look at, and what is wrong with it.
    #[test]
    fn each_mistake_is_one_clear_error() {
        let ((chain, key), (_, other_key)) = (make(&["a.test"]), make(&["a.test"]));
        let (nameless, nameless_key) = make(&[]);
        let now = WallMs::now();
        let cut = &chain[..chain.len() / 2];
        let damaged = chain.replace("MII", "M!I");
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let strange = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let table: &[(&str, &str, WallMs, &str)] = &[
            ("hello", &key, now, "site.crt: is not PEM"),
            (cut, &key, now, "site.crt: is not PEM"),
            (&damaged, &key, now, "site.crt: is not PEM"),
            (&key, &key, now, "site.crt: holds no certificate"),
            (garbage, &key, now, "site.crt: the first certificate is not X.509"),
            (&nameless, &nameless_key, now, "site.crt: names no host"),
            (&chain, "hello", now, "site.key: is not PEM"),
            (&chain, &chain, now, "site.key: holds no private key"),
            (&chain, encrypted, now, "site.key: the private key cannot be used: it is encrypted"),
            (&chain, strange, now, "site.key: the private key cannot be used"),
            (&chain, &other_key, now, "site.key: does not match the first certificate in site.crt"),
            (&chain, &key, WallMs(0), "site.crt: is not valid before 1975-01-01"),
            (&chain, &key, WallMs(now.0 + 5000 * 365 * DAY_MS), "site.crt: expired at 4096-01-01"),
        ];
        for (chain, key, now, expected) in table {
            let error = load(chain, key, *now).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}\nis not: {expected}");
        }
    }

    #[test]
    fn a_missing_or_a_huge_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.pem");
        let error = Certificate::from_files(&missing, &missing, WallMs::now()).unwrap_err();
        assert!(error.to_string().ends_with("missing.pem: cannot be read"), "{error}");
        let huge = dir.path().join("huge.pem");
        std::fs::File::create(&huge).unwrap().set_len(PEM_BYTES_MAX + 1).unwrap();
        let error = Certificate::from_files(&huge, &huge, WallMs::now()).unwrap_err();
        assert!(matches!(error, CertificateError::TooLarge { .. }), "{error}");
    }
}
