//! A small cache of a worker thread before the store that all threads share. A look-up in the shared store costs about
//! a microsecond, because it keeps count for its eviction; here it is one comparison. Only every sixteenth hit is
//! passed on to be counted: what is hot here still looks hot there.
//!
//! It holds no responses, only weak references: what the store has let go is gone here too, and what was replaced or
//! purged says so itself.

use std::sync::{Arc, Weak};

use super::variants::Variants;

const SLOTS: usize = 1024;
/// A power of two.
const COUNTED_EVERY: u8 = 16;

/// See the module.
pub struct Front {
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    hash: u64,
    variants: Weak<Variants>,
    hits: u8,
}

/// What the front knows of a key.
pub enum Known {
    /// This, and the store need not be asked.
    Here(Arc<Variants>),
    /// Ask the store.
    Ask,
}

impl Front {
    pub fn new() -> Self {
        Self { slots: vec![Slot::default(); SLOTS] }
    }

    pub fn get(&mut self, key: &[u8]) -> Known {
        let hash = hash(key);
        let slot = &mut self.slots[slot_of(hash)];
        if slot.hash != hash {
            return Known::Ask;
        }
        slot.hits = slot.hits.wrapping_add(1);
        if slot.hits.is_multiple_of(COUNTED_EVERY) {
            return Known::Ask;
        }
        match slot.variants.upgrade() {
            Some(variants) if variants.key().as_bytes() == key && variants.is_current() => {
                Known::Here(variants)
            }
            _ => Known::Ask,
        }
    }

    pub fn put(&mut self, variants: &Arc<Variants>) {
        let hash = hash(variants.key().as_bytes());
        let slot = &mut self.slots[slot_of(hash)];
        let hits = if slot.hash == hash { slot.hits } else { 0 };
        *slot = Slot { hash, variants: Arc::downgrade(variants), hits };
    }
}

fn slot_of(hash: u64) -> usize {
    // The upper bits are the well mixed ones of a multiplication.
    (hash >> 32) as usize % SLOTS
}

/// Fast, and not safe against chosen keys: whoever makes two collide gains that the store is asked.
pub fn hash(key: &[u8]) -> u64 {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = key.len() as u64;
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(MIX);
    }
    for &byte in chunks.remainder() {
        hash = (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(MIX);
    }
    hash | 1 // 0 is an empty slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_with_the_store() {
        let mut front = Front::new();
        let variants = Arc::new(Variants::new("http://a/".into(), Vec::new()));
        assert!(matches!(front.get(b"http://a/"), Known::Ask));
        front.put(&variants);
        assert!(matches!(front.get(b"http://a/"), Known::Here(_)));
        assert!(matches!(front.get(b"http://a/b"), Known::Ask));
        variants.retire();
        assert!(matches!(front.get(b"http://a/"), Known::Ask), "it was replaced");

        let variants = Arc::new(Variants::new("http://a/".into(), Vec::new()));
        front.put(&variants);
        drop(variants);
        assert!(matches!(front.get(b"http://a/"), Known::Ask), "it was evicted");
    }

    #[test]
    fn the_store_hears_of_every_sixteenth_hit() {
        let mut front = Front::new();
        let variants = Arc::new(Variants::new("k".into(), Vec::new()));
        front.put(&variants);
        let asked = (0..160).filter(|_| matches!(front.get(b"k"), Known::Ask)).count();
        assert_eq!(asked, 10);
    }
}
