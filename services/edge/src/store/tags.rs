//! Which URIs carry a tag (`Surrogate-Key`, `Cache-Tag`), so that one word purges them all.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rules::fields::Fields;

/// The index. It may name a URI that has lost the tag or is gone: purging that one too costs a miss.
#[derive(Debug)]
pub struct Tags {
    index: Mutex<Index>,
    pairs_max: usize,
}

#[derive(Debug, Default)]
struct Index {
    uris: HashMap<Arc<str>, HashSet<Arc<str>>>,
    pairs: usize,
}

impl Tags {
    pub fn new(pairs_max: usize) -> Self {
        Self { index: Mutex::default(), pairs_max }
    }

    /// The URI had `old` tags and has `new` ones from now on. False, and nothing is changed, if there is no room.
    pub fn replace<'t>(
        &self,
        key: &Arc<str>,
        old: impl Iterator<Item = &'t Arc<str>>,
        new: impl Iterator<Item = &'t Arc<str>>,
    ) -> bool {
        let (old, new): (HashSet<_>, HashSet<_>) = (old.collect(), new.collect());
        if old.is_empty() && new.is_empty() {
            return true;
        }
        let mut index = self.lock();
        if index.pairs + new.difference(&old).count() > self.pairs_max {
            return false;
        }
        old.difference(&new).for_each(|tag| index.remove(key, tag));
        for tag in new {
            let added = index.uris.entry(Arc::clone(tag)).or_default().insert(Arc::clone(key));
            index.pairs += usize::from(added);
        }
        true
    }

    /// The URI is not stored any more.
    pub fn remove<'t>(&self, key: &str, tags: impl Iterator<Item = &'t Arc<str>>) {
        let mut index = self.lock();
        tags.for_each(|tag| index.remove(key, tag));
    }

    /// All URIs with the tag; it is forgotten with them.
    pub fn take(&self, tag: &str) -> HashSet<Arc<str>> {
        let mut index = self.lock();
        let uris = index.uris.remove(tag).unwrap_or_default();
        index.pairs -= uris.len();
        uris
    }

    /// All URIs with the tag.
    pub fn of(&self, tag: &str) -> Vec<Arc<str>> {
        self.lock().uris.get(tag).map(|uris| uris.iter().cloned().collect()).unwrap_or_default()
    }

    /// Pairs of tag and URI.
    pub fn len(&self) -> usize {
        self.lock().pairs
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn remove(&mut self, key: &str, tag: &str) {
        let Some(uris) = self.uris.get_mut(tag) else { return };
        self.pairs -= usize::from(uris.remove(key));
        if uris.is_empty() {
            self.uris.remove(tag);
        }
    }
}

/// The tags of a response: words in `Surrogate-Key`, members of `Cache-Tag`. `None` if there are more than `max`.
pub fn tags_of(response: &impl Fields, max: usize) -> Option<Arc<[Arc<str>]>> {
    let words = response.all("surrogate-key").flat_map(|line| line.split(u8::is_ascii_whitespace));
    let mut tags: Vec<Arc<str>> = Vec::new();
    for tag in words.chain(response.list("cache-tag")).filter(|tag| !tag.is_empty()) {
        let Ok(tag) = std::str::from_utf8(tag) else { continue };
        if !tags.iter().any(|known| **known == *tag) {
            if tags.len() == max {
                return None;
            }
            tags.push(tag.into());
        }
    }
    Some(tags.into())
}

#[cfg(test)]
mod tests {
    use super::super::super::rules::fields::Lines;
    use super::*;

    #[test]
    fn both_fields_name_tags_once_each() {
        let block = b"Surrogate-Key: a  b\r\nCache-Tag: b, c d\r\n";
        let tags = tags_of(&Lines(block), 8).unwrap();
        assert_eq!(tags.iter().map(|tag| &**tag).collect::<Vec<_>>(), ["a", "b", "c d"]);
        assert!(tags_of(&Lines(block), 2).is_none());
    }

    #[test]
    fn the_index_is_bounded_and_gives_room_back() {
        let tags = Tags::new(3);
        let [a, b, x, y] = ["a", "b", "x", "y"].map(Arc::<str>::from);
        let none = std::iter::empty::<&Arc<str>>;
        assert!(tags.replace(&x, none(), [&a, &b].into_iter()));
        assert!(!tags.replace(&y, none(), [&a, &b].into_iter()), "there is room for one more only");
        assert!(tags.replace(&y, none(), [&a].into_iter()));
        assert_eq!((tags.of("a").len(), tags.of("b").len(), tags.len()), (2, 1, 3));
        assert!(tags.replace(&x, [&a, &b].into_iter(), [&b].into_iter()), "an update loses a tag");
        assert_eq!((tags.of("a").len(), tags.len()), (1, 2));
        tags.remove("x", [&b].into_iter());
        assert_eq!(tags.len(), 1);
        assert_eq!(tags.take("a"), HashSet::from([y]));
        assert_eq!(tags.len(), 0);
    }
}
