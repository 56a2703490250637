//! Where in a log's files an offset is: a pure table.

use std::collections::BTreeMap;

/// A known place this often, bytes.
const EVERY: u64 = 64 << 10;

/// A known place: this entry's record starts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Base of the segment.
    pub segment: u64,
    /// Byte in its file.
    pub at: u64,
    /// Offset of the entry there.
    pub offset: u64,
}

/// Segment base to known places in it, in order.
#[derive(Debug, Default)]
pub struct LogIndex {
    segments: BTreeMap<u64, Vec<Place>>,
    first: u64,
}

impl LogIndex {
    /// The oldest offset there is.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// A segment whose first record starts at `at`.
    pub fn add_segment(&mut self, base: u64, at: u64) {
        if self.segments.is_empty() {
            self.first = base;
        }
        self.segments.insert(base, vec![Place { segment: base, at, offset: base }]);
    }

    /// An entry that was written.
    pub fn add_entry(&mut self, place: Place) {
        let places = self.segments.entry(place.segment).or_default();
        if places.last().is_none_or(|last| place.at >= last.at + EVERY) {
            places.push(place);
        }
    }

    /// The segments before `base` are gone.
    pub fn drop_before(&mut self, base: u64) {
        self.segments = self.segments.split_off(&base);
        self.first = self.segments.keys().next().copied().unwrap_or(base);
    }

    /// The last known place at or before `offset`; of offsets that are gone, the first there is.
    pub fn locate(&self, offset: u64) -> Option<Place> {
        let offset = offset.max(self.first);
        let (_, places) = self.segments.range(..=offset).next_back()?;
        let after = places.partition_point(|place| place.offset <= offset);
        places.get(after.checked_sub(1)?).copied()
    }

    /// The base of the segment after this one.
    pub fn segment_after(&self, base: u64) -> Option<u64> {
        self.segments.range(base + 1..).next().map(|(base, _)| *base)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of every entry: the place found is at or before the entry, in its segment.
        #[test]
        fn finds_a_place_from_which_the_entry_is_reached(
            sizes in prop::collection::vec(1u64..200_000, 1..80),
            per_segment in 1usize..20,
            dropped in 0usize..5,
            wanted in 0u64..100,
        ) {
            let mut index = LogIndex::default();
            let (mut all, mut at, mut base) = (Vec::new(), 32, 0);
            for (n, size) in sizes.iter().enumerate() {
                let offset = n as u64;
                if n % per_segment == 0 {
                    (base, at) = (offset, 32);
                    index.add_segment(base, at);
                }
                let place = Place { segment: base, at, offset };
                index.add_entry(place);
                all.push(place);
                at += size;
            }
            let bases: Vec<_> = all.iter().filter(|p| p.segment == p.offset).map(|p| p.segment).collect();
            let keep_from = bases[dropped.min(bases.len() - 1)];
            index.drop_before(keep_from);
            prop_assert_eq!(index.first(), keep_from);
            let entry = all[(wanted.max(keep_from) as usize).min(all.len() - 1)];
            let place = index.locate(wanted.min(sizes.len() as u64 - 1)).expect("there is one");
            prop_assert_eq!(place.segment, entry.segment);
            prop_assert!(place.at <= entry.at && place.offset <= entry.offset);
            prop_assert!(entry.at - place.at < EVERY + 200_000);
            prop_assert!(all.contains(&place));
        }
    }
}
