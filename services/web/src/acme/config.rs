//! The `[web.acme]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Names of one certificate, at most; that is what authorities allow.
const NAMES_MAX: usize = 100;

/// Certificates from an ACME authority. Without this section none are ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeConfig {
    /// The authority's directory URL; `https://`. Default: Let's Encrypt.
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// Where the authority writes to when something is wrong: `mailto:…`. Optional.
    #[serde(default)]
    pub contact: Option<String>,
    /// You have read the authority's terms of service and agree: it issues nothing otherwise.
    pub agree_to_terms: bool,
    /// One list of names per certificate; 1 to 100 names each, no wildcards.
    pub certificates: Vec<Vec<String>>,
    /// How control over a name is proved: `http-01` (default; port 80 must reach this stack) or `tls-alpn-01` (port 443 must
    /// reach this very instance).
    #[serde(default)]
    pub challenge: ChallengeKind,
    /// A PEM file with the root of an authority of your own. Optional; default: the system's roots.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Certificates and the account's key are kept here; share it between the web instances. Default: `acme` in the
    /// data directory.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

/// How control over a name is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChallengeKind {
    /// RFC 8555 section 8.3.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeKind {
    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}

impl AcmeConfig {
    /// # Errors
    /// The first key whose value cannot work, and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if !self.directory.starts_with("https://") {
            return Err(format!("web.acme.directory = {:?}: allowed is an https:// URL", self.directory));
        }
        if !self.agree_to_terms {
            return Err("web.acme.agree_to_terms = false: must be true, or leave the section out".to_owned());
        }
        if self.contact.as_ref().is_some_and(|contact| !contact.starts_with("mailto:")) {
            return Err(format!(
                "web.acme.contact = {:?}: allowed is mailto:somebody@example.org",
                self.contact
            ));
        }
        for names in &self.certificates {
            if names.is_empty() || names.len() > NAMES_MAX {
                return Err(format!(
                    "web.acme.certificates: a list of {} names: allowed are 1 to {NAMES_MAX}",
                    names.len()
                ));
            }
            if let Some(name) = names.iter().find(|name| !is_host(name)) {
                return Err(format!(
                    "web.acme.certificates: {name:?}: allowed is a host name in lower case, no wildcard"
                ));
            }
        }
        Ok(())
    }
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AcmeConfig {
        AcmeConfig {
            directory: lets_encrypt(),
            contact: None,
            agree_to_terms: true,
            certificates: vec![vec!["example.org".to_owned(), "www.example.org".to_owned()]],
            challenge: ChallengeKind::Http01,
            root: None,
            dir: None,
        }
    }

    #[test]
    fn each_value_that_cannot_work_is_named_with_what_can() {
        config().validate().unwrap();
        type Row = (fn(&mut AcmeConfig), &'static str);
        let table: [Row; 6] = [
            (|c| c.directory = "http://acme.test".to_owned(), "web.acme.directory"),
            (|c| c.agree_to_terms = false, "web.acme.agree_to_terms"),
            (|c| c.contact = Some("me@example.org".to_owned()), "web.acme.contact"),
            (|c| c.certificates.push(Vec::new()), "web.acme.certificates: a list of 0 names"),
            (
                |c| c.certificates[0].push("*.example.org".to_owned()),
                "web.acme.certificates: \"*.example.org\"",
            ),
            (|c| c.certificates[0].push("-a.test".to_owned()), "web.acme.certificates: \"-a.test\""),
        ];
        for (spoil, expected) in table {
            let mut config = config();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(
                error.starts_with(expected) && error.contains("allowed") || error.contains("must be"),
                "{error}"
            );
        }
    }
}
