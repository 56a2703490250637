//! Who asks: Basic (RFC 7617) and Bearer (RFC 6750) credentials.
//!
//! Passwords are kept as PHC strings of argon2id, which takes tens of milliseconds and megabytes a time on purpose.
//! So it runs on the blocking pool, each client in its turn ([`crate::turns`]), and what it said is remembered for a while under a keyed
//! digest of what the client sent. Tokens are long random values: their SHA-256 is enough, compared in constant time.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use supervision::Life;

use crate::turns::TURNS;

/// Answers that are remembered, and for how long. A changed configuration forgets them all.
const REMEMBERED_MAX: u64 = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// A PHC string that asks for more memory than this, KiB, is a mistake or an attack on ourselves.
const MEMORY_KIB_MAX: u32 = 256 * 1024;

/// `[web.auth.<name>]`: who may pass, for the sites and routes that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// What the browser shows.
    pub realm: String,
    /// Name → PHC string of argon2: `alice = "$argon2id$v=19$m=19456,t=2,p=1$…"` (the `argon2` program makes them).
    pub users: BTreeMap<String, String>,
    /// Name → SHA-256 of the token, 64 hexadecimal digits (`printf %s "$TOKEN" | sha256sum`).
    pub tokens: BTreeMap<String, String>,
}

/// What a guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It is this user, or the holder of this token.
    Known(Arc<str>),
    /// No credentials, or none that are known: 401.
    Unknown,
    /// Too many passwords of this client wait to be checked: 429.
    Busy,
}

/// The users and tokens of one `[web.auth.<name>]`.
pub struct Guard {
    challenges: Vec<u8>,
    users: HashMap<Arc<str>, Arc<str>>,
    tokens: Vec<([u8; 32], Arc<str>)>,
    /// For users that are not: they take as long.
    decoy: Option<Arc<str>>,
    key: [u8; 32],
    remembered: moka::sync::Cache<[u8; 32], Option<Arc<str>>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("users", &self.users.len()).field("tokens", &self.tokens.len()).finish()
    }
}

impl Guard {
    /// Reads the hashes.
    ///
    /// # Errors
    /// Says which entry is none.
    pub fn new(config: &AuthConfig) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (name, phc) in &config.users {
            check_name(name).map_err(|why| format!("users.{name:?}: {why}"))?;
            check_phc(phc).map_err(|why| format!("users.{name}: {why}"))?;
            users.insert(Arc::from(name.as_str()), Arc::from(phc.as_str()));
        }
        let mut tokens = Vec::new();
        for (name, hex) in &config.tokens {
            check_name(name).map_err(|why| format!("tokens.{name:?}: {why}"))?;
            let digest =
                digest_of_hex(hex).ok_or_else(|| format!("tokens.{name}: not 64 hexadecimal digits"))?;
            tokens.push((digest, Arc::from(name.as_str())));
        }
        let realm = if config.realm.is_empty() { "restricted" } else { &config.realm };
        if !realm.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') || realm.contains(['"', '\\']) {
            return Err(format!("realm = {realm:?}: visible ASCII without quotes"));
        }
        let mut challenges = Vec::new();
        if !users.is_empty() {
            challenges
                .extend(format!("www-authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n").bytes());
        }
        if !tokens.is_empty() {
            challenges.extend(format!("www-authenticate: Bearer realm=\"{realm}\"\r\n").bytes());
        }
        if challenges.is_empty() {
            return Err("neither users nor tokens: nobody could pass".to_owned());
        }
        Ok(Self {
            challenges,
            decoy: users.values().next().cloned(),
            users,
            tokens,
            key: rand::random(),
            remembered: moka::sync::Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        })
    }

    /// `www-authenticate` lines of a 401.
    #[must_use]
    pub fn challenges(&self) -> &[u8] {
        &self.challenges
    }

    /// Who sent this `Authorization` field, from this address.
    pub async fn identify(&self, authorization: Option<&[u8]>, client: IpAddr, life: &Life) -> Identity {
        let Some((scheme, credentials)) = authorization.and_then(scheme_and_rest) else {
            return Identity::Unknown;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.holder(credentials.as_bytes());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Identity::Unknown;
        }
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.key).chain_update(credentials).finalize().into();
        if let Some(remembered) = self.remembered.get(&digest) {
            return remembered.map_or(Identity::Unknown, Identity::Known);
        }
        let Some((name, password)) = user_and_password(credentials) else { return Identity::Unknown };
        let known = self.users.get_key_value(name.as_str());
        let Some(phc) = known.map(|(_, phc)| phc).or(self.decoy.as_ref()).cloned() else {
            return Identity::Unknown;
        };
        let Some(turn) = TURNS.take(client).await else { return Identity::Busy };
        // Meanwhile another request may have had the same answer.
        if let Some(remembered) = self.remembered.get(&digest) {
            return remembered.map_or(Identity::Unknown, Identity::Known);
        }
        // The turn ends with the work, also when the client has left meanwhile.
        let check = move || {
            let right = is_password(&password, &phc);
            if !right {
                turn.was_wrong();
            }
            right
        };
        let right = life.blocking(check).await;
        let user = known.filter(|_| right).map(|(name, _)| Arc::clone(name));
        self.remembered.insert(digest, user.clone());
        user.map_or(Identity::Unknown, Identity::Known)
    }

    /// All tokens are compared, so that the time does not tell which one was close.
    fn holder(&self, token: &[u8]) -> Identity {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut holder = Identity::Unknown;
        for (known, name) in &self.tokens {
            if bool::from(known.ct_eq(&digest)) {
                holder = Identity::Known(Arc::clone(name));
            }
        }
        holder
    }
}

fn scheme_and_rest(field: &[u8]) -> Option<(&str, &str)> {
    let (scheme, rest) = std::str::from_utf8(field).ok()?.split_once(' ')?;
    Some((scheme, rest.trim()))
}

fn user_and_password(credentials: &str) -> Option<(String, Vec<u8>)> {
    let decoded = BASE64_STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    Some((name, decoded[colon + 1..].to_vec()))
}

fn is_password(password: &[u8], phc: &str) -> bool {
    PasswordHash::new(phc).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// RFC 7617 forbids the colon; the rest is so that a name can be told to an upstream server in a field.
fn check_name(name: &str) -> Result<(), String> {
    let fits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if fits { Ok(()) } else { Err("a name is visible ASCII without a colon".to_owned()) }
}

fn check_phc(phc: &str) -> Result<(), String> {
    let hash = PasswordHash::new(phc).map_err(|_| "not a PHC string".to_owned())?;
    if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() {
        return Err("not a PHC string of argon2id".to_owned());
    }
    match argon2::Params::try_from(&hash) {
        Ok(params) if params.m_cost() <= MEMORY_KIB_MAX => Ok(()),
        Ok(params) => Err(format!("m = {}: at most {MEMORY_KIB_MAX} KiB", params.m_cost())),
        Err(_) => Err("its parameters are out of range".to_owned()),
    }
}

fn digest_of_hex(hex: &str) -> Option<[u8; 32]> {
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, made by the reference implementation with small parameters.
    fn phc(password: &str) -> String {
        use argon2::password_hash::PasswordHasher as _;
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let hash: argon2::password_hash::phc::PasswordHash =
            argon2.hash_password_with_salt(password.as_bytes(), b"saltsaltsaltsalt").unwrap();
        hash.to_string()
    }

    fn config() -> AuthConfig {
        let token = Sha256::digest(b"token-of-ci");
        let hex: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        AuthConfig {
            realm: "staff".to_owned(),
            users: [("alice".to_owned(), phc("secret"))].into(),
            tokens: [("ci".to_owned(), hex)].into(),
        }
    }

    fn is(password: &str) -> bool {
        is_password(password.as_bytes(), &phc("secret"))
    }

    #[test]
    fn a_password_is_checked_against_its_phc_string() {
        assert!(is("secret"));
        assert!(!is("Secret") && !is(""));
        assert_eq!(
            user_and_password(&BASE64_STANDARD.encode("a:b:c")),
            Some(("a".to_owned(), b"b:c".to_vec()))
        );
        assert_eq!(user_and_password(&BASE64_STANDARD.encode("nocolon")), None);
        assert_eq!(user_and_password("%%%"), None);
    }

    #[test]
    fn a_token_is_known_by_its_digest() {
        let guard = Guard::new(&config()).unwrap();
        assert_eq!(guard.holder(b"token-of-ci"), Identity::Known("ci".into()));
        assert_eq!(guard.holder(b"token-of-cj"), Identity::Unknown);
        assert_eq!(guard.holder(b""), Identity::Unknown);
        let challenges = String::from_utf8(guard.challenges().to_vec()).unwrap();
        assert!(
            challenges.contains("Basic realm=\"staff\"") && challenges.contains("Bearer realm=\"staff\"")
        );
    }

    #[test]
    fn what_is_no_hash_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut AuthConfig)| {
            let mut config = config();
            change(&mut config);
            Guard::new(&config).unwrap_err()
        };
        let user = |phc: &str| {
            let phc = phc.to_owned();
            refused(&move |config| drop(config.users.insert("bob".to_owned(), phc.clone())))
        };
        assert!(user("hunter2").starts_with("users.bob: not a PHC string"));
        assert!(user("$argon2id$v=19$m=9999999,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo").contains("9999999"));
        assert!(
            refused(&|config| drop(config.tokens.insert("x".to_owned(), "12".to_owned())))
                .starts_with("tokens.x")
        );
        assert!(refused(&|config| config.realm = "a\"b".to_owned()).starts_with("realm"));
        assert!(
            refused(&|config| {
                config.users.clear();
                config.tokens.clear();
            })
            .contains("nobody")
        );
    }
}
