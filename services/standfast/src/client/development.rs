//! The certificates that a stack on this machine made for itself, so that its own commands trust it without a flag.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Url};

/// Instances that are looked at; each has one file.
const FILES_MAX: usize = 64;
/// A longer one was not made by us.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What may be trusted at `base`, which is nothing unless it is this machine: the certificates in the data directory
/// that `STANDFAST_DATA` names. Who can write there, owns the stack.
pub fn certificates(base: &str) -> Vec<Certificate> {
    let here = Url::parse(base).is_ok_and(|url| url.scheme() == "https" && is_this_machine(&url));
    if !here {
        return Vec::new();
    }
    files(&data_directory()).iter().filter_map(|file| read(file)).collect()
}

fn is_this_machine(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    address.is_ok_and(|address| address.is_loopback()) || host == "localhost" || host.ends_with(".localhost")
}

/// Where a node that is started from here keeps its files.
fn data_directory() -> PathBuf {
    let said = std::env::var_os("STANDFAST_DATA").filter(|said| !said.is_empty());
    said.map_or_else(|| crate::settings::Settings::default().data, PathBuf::from)
}

/// Of a whole stack, or of one instance.
fn files(data: &Path) -> Vec<PathBuf> {
    let instances = fs::read_dir(data).into_iter().flatten().flatten().take(FILES_MAX).map(|it| it.path());
    let all = instances.chain([data.to_owned()]).map(|directory| directory.join("tls/development.pem"));
    all.filter(|file| file.is_file()).collect()
}

fn read(file: &Path) -> Option<Certificate> {
    let is_short = fs::metadata(file).is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
    let text = is_short.then(|| fs::read(file).ok()).flatten()?;
    Certificate::from_pem(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_trusted_so() {
        for here in ["https://localhost:8443", "https://127.0.0.9", "https://[::1]:1", "https://a.localhost/"]
        {
            assert!(is_this_machine(&Url::parse(here).unwrap()), "{here}");
        }
        for other in
            ["https://example.org", "https://192.0.2.1", "https://localhost.example", "https://[::2]"]
        {
            assert!(!is_this_machine(&Url::parse(other).unwrap()), "{other}");
        }
    }
}
