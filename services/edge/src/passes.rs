//! URIs whose answers were not to be shared, remembered by one worker thread for a while: requests for them are
//! forwarded at once, on the fast path, and never wait for each other.

use clock::WallMs;

const SLOTS: usize = 2048;

/// See the module. A slot is shared by many URIs; the latest has it. Two URIs with one hash would cost a hit, not be
/// mixed up: what is remembered is only that asking the store is of no use.
pub struct Passes {
    slots: Vec<(u64, i64)>,
    keep_ms: i64,
}

impl Passes {
    pub fn new(keep_ms: u64) -> Self {
        Self { slots: vec![(0, 0); SLOTS], keep_ms: i64::try_from(keep_ms).unwrap_or(i64::MAX) }
    }

    /// Whether the URI was noted lately.
    pub fn has(&self, hash: u64, now: WallMs) -> bool {
        let (noted, until) = self.slots[slot_of(hash)];
        noted == hash && now.0 < until
    }

    pub fn note(&mut self, hash: u64, now: WallMs) {
        self.slots[slot_of(hash)] = (hash, now.0.saturating_add(self.keep_ms));
    }

    /// Its answer was stored after all.
    pub fn forget(&mut self, hash: u64) {
        let slot = &mut self.slots[slot_of(hash)];
        if slot.0 == hash {
            *slot = (0, 0);
        }
    }
}

fn slot_of(hash: u64) -> usize {
    (hash >> 32) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_for_a_while() {
        let mut passes = Passes::new(100);
        passes.note(7 << 40, WallMs(0));
        assert!(passes.has(7 << 40, WallMs(99)));
        assert!(!passes.has(7 << 40, WallMs(100)));
        assert!(!passes.has(8 << 40, WallMs(0)));
        passes.forget(7 << 40);
        assert!(!passes.has(7 << 40, WallMs(0)));
    }
}
