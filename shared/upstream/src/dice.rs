//! Seeded randomness for choices: not for secrets.

/// A SplitMix64 generator (Steele, Lea and Flood, OOPSLA 2014): one addition and three mixes a number, any seed is good.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed throws the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0. The bias is below `n / 2^64`.
    pub fn below(&mut self, n: usize) -> usize {
        scaled(self.next(), n)
    }
}

/// Maps 64 even bits onto `0..n` without a division.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the product's upper half is below n")]
pub const fn scaled(bits: u64, n: usize) -> usize {
    ((bits as u128 * n as u128) >> 64) as usize
}

/// SplitMix64's finalizer: a permutation of 64 bits that spreads every input bit over all.
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stable 64-bit hash of bytes (FNV-1a, then mixed): the same in every process and version, as a ring must be. It
/// withstands no attacker who chooses keys to collide; bounded load does.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_and_all_sides_come_up_evenly() {
        let (mut one, mut two) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| one.next() == two.next()));
        let mut seen = [0_u32; 6];
        (0..60_000).for_each(|_| seen[one.below(6)] += 1);
        assert!(seen.iter().all(|n| (9_600..10_400).contains(n)), "{seen:?}");
    }

    /// What a ring was built with in one version must be found in the next.
    #[test]
    fn hashes_are_fixed() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"web-1"), hash(&"web-1".to_owned().into_bytes()));
        assert_ne!(hash(b"web-1"), hash(b"web-2"));
    }
}
