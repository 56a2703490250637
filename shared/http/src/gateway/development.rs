//! The certificate of a stack that has none configured, so that TLS works with nothing installed.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use clock::WallMs;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::certificates::{Certificate, CertificateError};

/// Browsers refuse certificates of more than 398 days.
const VALID_FOR: Duration = Duration::from_secs(397 * 86_400);
/// A clock may be a day late.
const VALID_SINCE: Duration = Duration::from_secs(86_400);
/// With less left than this a new one is made at the next start.
const REPLACED_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// The self-signed certificate kept as `development.pem` in `dir`, for `localhost`, the loopback addresses and `names`.
/// It is made when there is none, it is damaged, soon expires, or lacks one of the names. Chain and key are in one
/// file, so that they never fail to match; `curl --cacert` takes that file as it is.
///
/// # Errors
/// When it can be neither read nor written.
pub fn development(dir: &Path, names: &[String], now: WallMs) -> Result<Certificate, CertificateError> {
    let file = dir.join("development.pem");
    let mut wanted: Vec<String> = ["localhost", "*.localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    wanted.extend(names.iter().map(|name| name.to_ascii_lowercase()).filter(|name| name != "localhost"));
    if let Ok(kept) = Certificate::from_files(&file, &file, now)
        && kept.not_after() > now.plus(REPLACED_BEFORE)
        && wanted.iter().all(|name| kept.names().contains(name))
    {
        return Ok(kept);
    }
    let pem = self_signed(wanted, now)?;
    write_private(&file, pem.as_bytes())
        .map_err(|source| CertificateError::Write { file: file.clone(), source })?;
    Certificate::from_files(&file, &file, now)
}

fn self_signed(names: Vec<String>, now: WallMs) -> Result<String, CertificateError> {
    let make = || -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
        (params.not_before, params.not_after) = (now - VALID_SINCE, now + VALID_FOR);
        params.distinguished_name.push(DnType::CommonName, "Standfast development");
        // Not a CA: who trusts this file trusts this key for these names, and for nothing else.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        Ok(params.self_signed(&key)?.pem() + &key.serialize_pem())
    };
    make().map_err(|error| CertificateError::Make { detail: error.to_string() })
}

/// Writes `bytes` for this user's eyes only, and so that a reader sees the old content or the new, also after a crash.
///
/// # Errors
/// Of the file system.
pub fn write_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = dir.join(name);
    let write = || {
        let mut to = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        to.write_all(bytes)?;
        to.sync_all()?;
        fs::rename(&new, file)?;
        fs::File::open(dir)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_made_once_kept_private_and_replaced_before_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let now = WallMs::now();
        let made = development(&dir, &["box.test".to_owned()], now).unwrap();
        assert!(made.names().contains(&"localhost".to_owned()) && made.names().contains(&"::1".to_owned()));
        let mode = fs::metadata(dir.join("development.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the key is in it");
        let again = development(&dir, &["box.test".to_owned()], now).unwrap();
        assert_eq!(again.chain(), made.chain(), "kept over a restart");
        let later = now.plus(Duration::from_secs(370 * 86_400));
        let renewed = development(&dir, &["box.test".to_owned()], later).unwrap();
        assert!(renewed.not_after() > made.not_after());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left in there");
    }

    #[test]
    fn it_is_made_anew_when_damaged_or_when_a_name_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let now = WallMs::now();
        let made = development(dir.path(), &[], now).unwrap();
        let named = development(dir.path(), &["new.test".to_owned()], now).unwrap();
        assert!(named.names().contains(&"new.test".to_owned()) && named.chain() != made.chain());
        fs::write(dir.path().join("development.pem"), "damaged").unwrap();
        development(dir.path(), &[], now).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_one_clear_error() {
        let error = development(Path::new("/proc/nowhere"), &[], WallMs::now()).unwrap_err();
        assert_eq!(error.to_string(), "/proc/nowhere/development.pem: cannot be written");
    }
}
