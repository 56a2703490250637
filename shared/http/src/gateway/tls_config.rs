//! The `tls` section that every tier with a TLS listener has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clock::WallMs;
use serde::{Deserialize, Serialize};

use super::certificate_directory::CertificateDirectory;
use super::certificate_set::CertificateSet;
use super::certificates::{Certificate, CertificateError};
use super::development::development;
use super::tls::{Tls, TlsError, TlsLimits};

/// Which certificates a listener has, and the bounds of its handshakes. All keys have a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificates from files; the first is for clients that ask for no name or an unknown one. Default: none, and if
    /// `directory` has none either, a self-signed one for development is made and kept in the data directory.
    pub certificates: Vec<CertificateFiles>,
    /// A directory of certificates, `*.pem` with chain and key together: where the ACME child of the web tier keeps what it
    /// is issued. Optional.
    pub directory: Option<PathBuf>,
    /// Names in the development certificate beside `localhost` and the loopback addresses.
    pub development_names: Vec<String>,
    /// Whether HTTP/2 is offered. Default true.
    pub h2: bool,
    /// A handshake may take so long, milliseconds; 100 to 60,000. Default 10,000.
    pub handshake_timeout_ms: u64,
    /// Handshakes at once, 1 to 65,536; further ones wait within their time. Default 1,024.
    pub handshakes_max: usize,
}

/// One certificate's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM, the leaf first.
    pub chain: PathBuf,
    /// PEM, not encrypted. May be the same file.
    pub key: PathBuf,
}

/// A TLS listener that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The directory cannot be read.
    #[error("{directory}: cannot be read")]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The library refuses.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Default for TlsConfig {
    fn default() -> Self {
        let limits = TlsLimits::default();
        Self {
            certificates: Vec::new(),
            directory: None,
            development_names: Vec::new(),
            h2: limits.h2,
            handshake_timeout_ms: u64::try_from(limits.handshake.as_millis()).unwrap_or(u64::MAX),
            handshakes_max: limits.handshakes_max,
        }
    }
}

impl TlsConfig {
    /// # Errors
    /// The first key out of range, as `<section>.key = value: allowed …`.
    pub fn validate(&self, section: &str) -> Result<(), String> {
        if !(100..=60_000).contains(&self.handshake_timeout_ms) {
            let value = self.handshake_timeout_ms;
            return Err(format!("{section}.handshake_timeout_ms = {value}: allowed are 100 to 60,000"));
        }
        if !(1..=65_536).contains(&self.handshakes_max) {
            return Err(format!(
                "{section}.handshakes_max = {}: allowed are 1 to 65,536",
                self.handshakes_max
            ));
        }
        Ok(())
    }

    /// What will not work on this machine, each with its key: files that cannot be read, are no certificate or have
    /// expired. A directory that is not there yet is none: it is made when something is issued.
    #[must_use]
    pub fn troubles(&self, section: &str) -> Vec<String> {
        let unusable = |(at, files): (usize, &CertificateFiles)| {
            let error = Certificate::from_files(&files.chain, &files.key, WallMs::now()).err()?;
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Some(format!("{section}.certificates[{at}]: {error}{cause}"))
        };
        self.certificates.iter().enumerate().filter_map(unusable).collect()
    }

    /// Reads the certificates and makes the TLS side of a listener. `data_dir` is the instance's own.
    ///
    /// # Errors
    /// When a configured file cannot be used.
    pub fn open(&self, data_dir: &Path, now: WallMs) -> Result<Arc<Tls>, TlsConfigError> {
        let limits = TlsLimits {
            handshake: Duration::from_millis(self.handshake_timeout_ms),
            handshakes_max: self.handshakes_max,
            h2: self.h2,
        };
        Ok(Tls::new(self.load(data_dir, now)?, limits)?)
    }

    /// Reads the certificates again and serves the handshakes to come with them. When one cannot be used, all stays as
    /// it is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reload(&self, tls: &Tls, data_dir: &Path, now: WallMs) -> Result<(), TlsConfigError> {
        tls.replace(self.load(data_dir, now)?);
        Ok(())
    }

    fn load(&self, data_dir: &Path, now: WallMs) -> Result<CertificateSet, TlsConfigError> {
        let files =
            self.certificates.iter().map(|files| Certificate::from_files(&files.chain, &files.key, now));
        let mut certificates = files.collect::<Result<Vec<_>, _>>()?;
        if let Some(directory) = &self.directory {
            let unreadable = |source| TlsConfigError::Directory { directory: directory.clone(), source };
            let (issued, unusable) =
                CertificateDirectory::new(directory).load_all(now).map_err(unreadable)?;
            // Somebody else writes there: one that expired must not keep the others from being served.
            unusable
                .iter()
                .for_each(|error| tracing::warn!(%error, "a certificate in the directory is left out"));
            certificates.extend(issued);
        }
        if certificates.is_empty() {
            certificates.push(development(&data_dir.join("tls"), &self.development_names, now)?);
        }
        Ok(CertificateSet::new(certificates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn first_name(tls: &Tls) -> String {
        tls.certificates().certificates()[0].names()[0].clone()
    }

    #[test]
    fn certificates_come_from_files_then_a_directory_and_else_one_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let now = WallMs::now();
        let mut config = TlsConfig { directory: Some(dir.path().join("issued")), ..TlsConfig::default() };
        let tls = config.open(dir.path(), now).unwrap();
        assert_eq!(first_name(&tls), "localhost");
        let make = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let (chain, key) = make("issued.test");
        CertificateDirectory::new(dir.path().join("issued")).save("issued.test", &chain, &key, now).unwrap();
        config.reload(&tls, dir.path(), now).unwrap();
        assert_eq!(first_name(&tls), "issued.test");
        let (chain, key) = make("file.test");
        let files = CertificateFiles { chain: dir.path().join("file.crt"), key: dir.path().join("file.key") };
        fs::write(&files.chain, chain).unwrap();
        fs::write(&files.key, "damaged").unwrap();
        config.certificates = vec![files.clone()];
        config.reload(&tls, dir.path(), now).unwrap_err();
        assert_eq!(first_name(&tls), "issued.test", "all stays as it was");
        fs::write(&files.key, key).unwrap();
        config.reload(&tls, dir.path(), now).unwrap();
        assert_eq!(first_name(&tls), "file.test");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = TlsConfig { handshakes_max: 0, ..TlsConfig::default() }.validate("edge.tls").unwrap_err();
        assert_eq!(error, "edge.tls.handshakes_max = 0: allowed are 1 to 65,536");
        TlsConfig::default().validate("edge.tls").unwrap();
    }
}
