//! A directory of certificates: those that were issued to us, for whoever serves them.

use std::fs;
use std::io;
use std::path::PathBuf;

use clock::WallMs;

use super::certificates::{Certificate, CertificateError};
use super::development::write_private;

/// One file per certificate, chain and key together (`<name>.pem`), so that the two never fail to match. Several
/// processes may share it: a reader sees the old file or the new one.
#[derive(Clone, Debug)]
pub struct CertificateDirectory {
    dir: PathBuf,
}

impl CertificateDirectory {
    /// The directory is made when the first certificate is saved.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The certificate kept under `name`; `None` if there is none, or one that has expired.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn load(&self, name: &str, now: WallMs) -> Result<Option<Certificate>, CertificateError> {
        let file = self.file(name);
        match Certificate::from_files(&file, &file, now) {
            Ok(certificate) => Ok(Some(certificate)),
            Err(CertificateError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(CertificateError::Expired { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that can be used, by file name; and what is wrong with the others.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn load_all(&self, now: WallMs) -> io::Result<(Vec<Certificate>, Vec<CertificateError>)> {
        let mut files: Vec<PathBuf> = match fs::read_dir(&self.dir) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "pem"));
        files.sort();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for file in files {
            match Certificate::from_files(&file, &file, now) {
                Ok(certificate) => good.push(certificate),
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }

    /// Checks a chain and its key, and keeps them under `name`, for this user's eyes only.
    ///
    /// # Errors
    /// When they cannot be used together, or not be written.
    pub fn save(
        &self,
        name: &str,
        chain: &str,
        key: &str,
        now: WallMs,
    ) -> Result<Certificate, CertificateError> {
        let file = self.file(name);
        let certificate = Certificate::from_pem(chain.as_bytes(), &file, key.as_bytes(), &file, now)?;
        let both = format!("{}\n{}", chain.trim_end(), key);
        write_private(&file, both.as_bytes()).map_err(|source| CertificateError::Write { file, source })?;
        Ok(certificate)
    }

    /// A name is a host name, and cannot lead out of the directory: `/` and what else is not of one become `_`.
    fn file(&self, name: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        self.dir.join(format!("{name}.pem"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let store = CertificateDirectory::new(dir.path().join("certificates"));
        let now = WallMs::now();
        assert!(store.load("a.test", now).unwrap().is_none());
        assert!(store.load_all(now).unwrap().0.is_empty());
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        store.save("a.test", &chain, &key, now).unwrap();
        assert_eq!(store.load("a.test", now).unwrap().unwrap().names(), ["a.test"]);
        assert!(store.load("a.test", WallMs(i64::MAX)).unwrap().is_none(), "expired");
        store.save("a.test", &chain, "no key", now).unwrap_err();
        assert!(store.load("a.test", now).unwrap().is_some(), "what was there is not lost by a bad one");
        fs::write(dir.path().join("certificates/bad.pem"), "damaged").unwrap();
        let (good, bad) = store.load_all(now).unwrap();
        assert_eq!((good.len(), bad.len()), (1, 1));
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let store = CertificateDirectory::new("/certificates");
        assert_eq!(store.file("../../etc/x"), PathBuf::from("/certificates/.._.._etc_x.pem"));
        assert_eq!(store.file("*.a.test"), PathBuf::from("/certificates/_.a.test.pem"));
    }
}
