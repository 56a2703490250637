//! What trusted proxies have said beyond a URI: a few endings of keys, the same for most URIs. Who means a URI finds its
//! keys by them, without a look at all that is stored.

use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rules::key::claims_of;

/// More than these are not remembered: then all keys are looked through.
const ENDINGS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Claimed {
    endings: Mutex<Vec<Box<str>>>,
    /// How many there are; more than the bound: not all are remembered.
    count: AtomicUsize,
}

impl Claimed {
    /// A key that is going to be stored.
    pub fn note(&self, key: &str) {
        let ending = claims_of(key);
        if ending.is_empty() || self.count.load(Acquire) > ENDINGS_MAX {
            return;
        }
        let mut endings = self.lock();
        if endings.iter().any(|known| **known == *ending) {
            return;
        }
        if endings.len() < ENDINGS_MAX {
            endings.push(ending.into());
            self.count.store(endings.len(), Release);
        } else {
            self.count.store(ENDINGS_MAX + 1, Release);
        }
    }

    /// Every key that this URI may have; `None`: nobody knows.
    pub fn keys_of(&self, uri: &str) -> Option<Vec<Arc<str>>> {
        let plain = Arc::from(uri);
        match self.count.load(Acquire) {
            0 => Some(vec![plain]),
            1..=ENDINGS_MAX => {
                let claimed =
                    self.lock().iter().map(|ending| Arc::from(format!("{uri}{ending}"))).collect::<Vec<_>>();
                Some(std::iter::once(plain).chain(claimed).collect())
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<str>>> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_a_key_for_each_thing_that_was_said() {
        let claimed = Claimed::default();
        let keys = || {
            claimed.keys_of("http://a/x").map(|keys| keys.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        claimed.note("http://a/y");
        assert_eq!(keys(), Some(vec!["http://a/x".to_owned()]));
        for key in ["http://a/y 01", "http://b/z 01", "http://a/y 02"] {
            claimed.note(key);
        }
        let expected = ["http://a/x", "http://a/x 01", "http://a/x 02"].map(str::to_owned).to_vec();
        assert_eq!(keys(), Some(expected));
        (0..=ENDINGS_MAX).for_each(|n| claimed.note(&format!("http://a/ {n}")));
        assert_eq!(keys(), None, "too many to remember");
    }
}
