//! What opens the door of an instance that only our own tiers may ask.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use messages::service::Announcement;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// The longest key that is heard, in bytes.
const BYTES_MAX: usize = 128;

/// A key: 256 random bits, written in hexadecimal. Whoever hears the bus has it, and no page, log or answer shows it: it
/// is no part of an [`Announcement`].
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Arc<str>);

impl Key {
    /// A new one, from the system's generator of secrets.
    #[must_use]
    pub fn random() -> Self {
        let bits: [u8; 32] = rand::random();
        let hex = bits.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self(hex.into())
    }

    /// The text itself, to be sent to the instance.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is it. The time it takes says nothing of where the two differ.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What goes over the bus: an announcement, and the key beside it.
#[derive(Serialize)]
pub(crate) struct Said<'a> {
    #[serde(flatten)]
    announcement: &'a Announcement,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> Said<'a> {
    pub(crate) fn new(announcement: &'a Announcement, key: Option<&'a Key>) -> Self {
        Self { announcement, key: key.map(Key::expose) }
    }
}

/// What comes over the bus.
#[derive(Deserialize)]
pub(crate) struct Heard {
    #[serde(flatten)]
    pub announcement: Announcement,
    #[serde(default)]
    key: Option<String>,
}

impl Heard {
    pub(crate) fn key(&self) -> Option<Key> {
        self.key.as_deref().filter(|key| key.len() <= BYTES_MAX).map(|key| Key(key.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_never_the_same_and_not_shown() {
        let (one, other) = (Key::random(), Key::random());
        assert_eq!(one.expose().len(), 64);
        assert!(one.is(one.expose().as_bytes()) && !one.is(other.expose().as_bytes()));
        assert!(!one.is(b"") && !one.is(&one.expose().as_bytes()[..63]));
        assert_eq!(format!("{one:?}"), "Key(…)");
    }
}
