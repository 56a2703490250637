//! Which certificate answers which name: an immutable set, swapped as a whole.

use std::collections::HashMap;

use super::certificates::Certificate;

/// Certificates by the names they are good for. The first one given is the default, for clients that send no name or
/// an unknown one (they get to see whose server it is, and their own check fails).
#[derive(Clone, Debug, Default)]
pub struct CertificateSet {
    certificates: Vec<Certificate>,
    exact: HashMap<String, usize>,
    /// `*.example.org` under `example.org`.
    wildcard: HashMap<String, usize>,
}

impl CertificateSet {
    /// Of two certificates for one name the one that is valid for longer answers.
    #[must_use]
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (index, certificate) in certificates.iter().enumerate() {
            for name in certificate.names() {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_str()),
                };
                let best = names.entry(name.to_owned()).or_insert(index);
                if certificate.not_after() > certificates[*best].not_after() {
                    *best = index;
                }
            }
        }
        Self { certificates, exact, wildcard }
    }

    /// The certificate for the name of a client (RFC 6066 section 3): an exact match, then a wildcard for its one
    /// leftmost label (RFC 6125 section 6.4.3), then the default.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<&Certificate> {
        let matched = name.and_then(|name| self.matching(name));
        matched.or_else(|| self.certificates.first())
    }

    /// As [`find`](Self::find), without the default.
    #[must_use]
    pub fn matching(&self, name: &str) -> Option<&Certificate> {
        let lower;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let exact = self.exact.get(name);
        let index =
            exact.or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))?;
        self.certificates.get(*index)
    }

    /// This set with `certificate` in place of those it makes superfluous: each that has no name beyond its names.
    /// The default stays the default, unless it is replaced.
    #[must_use]
    pub fn with(&self, certificate: Certificate) -> Self {
        let covered = |old: &Certificate| old.names().iter().all(|name| certificate.names().contains(name));
        let mut certificates = self.certificates.clone();
        let place = certificates.iter().position(covered).unwrap_or(certificates.len());
        certificates.retain(|old| !covered(old));
        certificates.insert(place.min(certificates.len()), certificate);
        Self::new(certificates)
    }

    /// All of them, the default first.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::WallMs;
    use std::path::Path;

    fn certificate(names: &[&str], years: i32) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(4000 + years, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let at = Path::new("test");
        Certificate::from_pem(chain.as_bytes(), at, key.serialize_pem().as_bytes(), at, WallMs::now())
            .unwrap()
    }

    fn names(found: Option<&Certificate>) -> String {
        found.map_or_else(String::new, |certificate| certificate.names().join(","))
    }

    #[test]
    fn a_name_is_answered_by_an_exact_match_then_a_wildcard_of_one_label_then_the_default() {
        let set = CertificateSet::new(vec![
            certificate(&["default.test"], 1),
            certificate(&["*.example.org"], 1),
            certificate(&["www.example.org", "example.org"], 1),
        ]);
        let find = |name| names(set.find(name));
        assert_eq!(find(Some("www.example.org")), "www.example.org,example.org");
        assert_eq!(find(Some("WWW.Example.ORG")), "www.example.org,example.org");
        assert_eq!(find(Some("api.example.org")), "*.example.org");
        assert_eq!(find(Some("a.b.example.org")), "default.test", "a wildcard stands for one label");
        assert_eq!(find(Some("unknown.test")), "default.test");
        assert_eq!(find(None), "default.test");
        assert!(set.matching("unknown.test").is_none());
        assert!(CertificateSet::default().find(Some("a.test")).is_none());
    }

    #[test]
    fn of_two_for_one_name_the_one_valid_for_longer_answers() {
        let short = certificate(&["a.test", "short.test"], 1);
        let long = certificate(&["a.test"], 2);
        for set in [vec![short.clone(), long.clone()], vec![long, short]] {
            assert_eq!(names(CertificateSet::new(set).find(Some("a.test"))), "a.test");
        }
    }

    #[test]
    fn a_renewed_certificate_takes_the_place_of_the_one_it_covers() {
        let set =
            CertificateSet::new(vec![certificate(&["a.test"], 1), certificate(&["b.test", "c.test"], 1)]);
        let renewed = set.with(certificate(&["a.test"], 2));
        assert_eq!(renewed.certificates().len(), 2);
        assert_eq!(names(renewed.find(None)), "a.test", "it is the default still");
        let wider = renewed.with(certificate(&["b.test"], 2));
        assert_eq!(wider.certificates().len(), 3, "c.test is still needed");
    }
}
