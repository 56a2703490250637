//! Sticky sessions: an opaque signed cookie that names the member.
//!
//! The value is `base64url(version, tag, expiry, mac)`: the tag is a keyed hash of the member's identity, so that a
//! client learns nothing of what stands behind the balancer, and the MAC (HMAC-SHA256, cut to 16 bytes as RFC 2104
//! section 5 allows) covers all before it. The cookie is ours alone: it is taken out before the request goes upstream.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clock::WallMs;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::io;
use std::path::Path;
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// Shortest secret that is taken, bytes.
const SECRET_BYTES_MIN: usize = 16;

const VERSION: u8 = 1;
const SIGNED: usize = 1 + 8 + 8;
const MAC: usize = 16;
const SEALED: usize = (SIGNED + MAC) * 4 / 3; // 33 bytes: no remainder

/// What cookies are signed with. Every balancer of a pair must have the same.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// From a secret of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// From a file with a secret.
    ///
    /// # Errors
    /// It cannot be read, or the secret is shorter than 16 bytes.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let secret = std::fs::read(path)?;
        if secret.trim_ascii().len() < SECRET_BYTES_MIN {
            return Err(io::Error::other(format!("a secret has at least {SECRET_BYTES_MIN} bytes")));
        }
        Ok(Self::new(secret.trim_ascii()))
    }

    /// A key that nobody else has and that ends with the process.
    #[must_use]
    pub fn of_this_process() -> Self {
        static SECRET: std::sync::LazyLock<[u8; 32]> = std::sync::LazyLock::new(rand::random);
        Self::new(&*SECRET)
    }

    /// What stands for a member in cookies.
    #[must_use]
    pub fn tag(&self, member: &str) -> u64 {
        let mac = self.mac(&[b"member", member.as_bytes()]);
        u64::from_be_bytes(mac[..8].try_into().expect("a MAC has 16 bytes"))
    }

    /// The cookie's value for a member, good until `expires`.
    #[must_use]
    pub fn seal(&self, tag: u64, expires: WallMs) -> String {
        let mut cookie = [0; SIGNED + MAC];
        cookie[0] = VERSION;
        cookie[1..9].copy_from_slice(&tag.to_be_bytes());
        cookie[9..SIGNED].copy_from_slice(&expires.0.to_be_bytes());
        let mac = self.mac(&[b"cookie", &cookie[..SIGNED]]);
        cookie[SIGNED..].copy_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(cookie)
    }

    /// The member that a cookie names, if it is ours and not expired. The MAC is compared in constant time, and
    /// nothing of the value is looked at before.
    #[must_use]
    pub fn open(&self, value: &[u8], now: WallMs) -> Option<Opened> {
        if value.len() != SEALED {
            return None;
        }
        let mut cookie = [0; SIGNED + MAC];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut cookie).ok()?;
        let mac = self.mac(&[b"cookie", &cookie[..SIGNED]]);
        let genuine = bool::from(mac.ct_eq(&cookie[SIGNED..])) && length == cookie.len();
        if !genuine || cookie[0] != VERSION {
            return None;
        }
        let tag = u64::from_be_bytes(cookie[1..9].try_into().expect("8 bytes"));
        let expires = WallMs(i64::from_be_bytes(cookie[9..SIGNED].try_into().expect("8 bytes")));
        (now < expires).then_some(Opened { tag, left: expires.since(now) })
    }

    /// Each part is preceded by its length, so that no two lists of parts look alike.
    fn mac(&self, parts: &[&[u8]]) -> [u8; MAC] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes()[..MAC].try_into().expect("SHA-256 has 32 bytes")
    }
}

/// A genuine cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Of the member.
    pub tag: u64,
    /// How long it is still good for.
    pub left: Duration,
}

/// The value of the cookie `name` in `Cookie` field values (RFC 6265 section 4.2.1); the first wins.
pub fn find<'f>(fields: impl Iterator<Item = &'f [u8]>, name: &str) -> Option<&'f [u8]> {
    fields.flat_map(pairs).find_map(|pair| value_of(pair, name))
}

/// Writes a `Cookie` line of all pairs but `name`; nothing if there is no other.
pub fn without<'f>(fields: impl Iterator<Item = &'f [u8]>, name: &str, out: &mut Vec<u8>) {
    let mut first = true;
    for pair in fields.flat_map(pairs).filter(|pair| value_of(pair, name).is_none()) {
        out.extend_from_slice(if first { b"cookie: " } else { b"; " });
        out.extend_from_slice(pair);
        first = false;
    }
    if !first {
        out.extend_from_slice(b"\r\n");
    }
}

/// A `Set-Cookie` line (RFC 6265 section 4.1). No script reads it, no other site's form sends it.
pub fn set_cookie(name: &str, value: &str, max_age: Duration, secure: bool, out: &mut Vec<u8>) {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = max_age.as_secs();
    let line =
        format!("set-cookie: {name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}\r\n");
    out.extend_from_slice(line.as_bytes());
}

fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMs = WallMs(1_790_000_000_000);

    #[test]
    fn a_cookie_names_its_member_until_it_expires() {
        let key = Key::new(b"a secret of sixteen bytes or more");
        let tag = key.tag("web-1");
        let value = key.seal(tag, NOW.plus(Duration::from_secs(60)));
        assert_eq!(value.len(), SEALED);
        assert!(!value.contains("web"), "opaque");
        let opened = key.open(value.as_bytes(), NOW).expect("ours");
        assert_eq!(opened, Opened { tag, left: Duration::from_secs(60) });
        assert_ne!(tag, key.tag("web-2"));
        assert_eq!(key.open(value.as_bytes(), NOW.plus(Duration::from_secs(60))), None, "expired");
        assert_eq!(Key::new(b"another secret of enough bytes").open(value.as_bytes(), NOW), None);
    }

    #[test]
    fn no_bit_of_it_can_be_changed() {
        let key = Key::of_this_process();
        let value = key.seal(key.tag("web-1"), NOW.plus(Duration::from_secs(60)));
        for at in 0..value.len() {
            for other in [b'A', b'_', b'9'] {
                let mut forged = value.clone().into_bytes();
                if std::mem::replace(&mut forged[at], other) != other {
                    assert_eq!(key.open(&forged, NOW), None);
                }
            }
        }
        for junk in [&b""[..], b"x", &[b'A'; SEALED], &[0xff; SEALED], &[b'A'; 4096]] {
            assert_eq!(key.open(junk, NOW), None);
        }
    }

    #[test]
    fn it_is_taken_out_of_the_request_and_the_others_stay() {
        let without_ours = |fields: &[&[u8]]| {
            let mut out = Vec::new();
            without(fields.iter().copied(), "sf", &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(without_ours(&[b"a=1; sf=x; b=2"]), "cookie: a=1; b=2\r\n");
        assert_eq!(without_ours(&[b"sf=x", b" sfx=1 ;;sf=y"]), "cookie: sfx=1\r\n");
        assert_eq!(without_ours(&[b"sf=x"]), "");
        assert_eq!(find([&b"a=1; sf=x"[..], b"sf=y"].into_iter(), "sf"), Some(&b"x"[..]));
        assert_eq!(find([&b"xsf=1; sf"[..]].into_iter(), "sf"), None);
    }

    /// RFC 6265 section 4.1.1.
    #[test]
    fn it_is_set_for_browsers_only() {
        let mut out = Vec::new();
        set_cookie("sf", "v", Duration::from_secs(60), true, &mut out);
        let line = "set-cookie: sf=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }
}
