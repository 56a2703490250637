//! The stored responses of one URI.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};

use super::object::Object;
use crate::rules::fields::Fields;
use crate::rules::request::Wants;

/// The responses of one URI, the latest first. It never changes: an update replaces it whole, and says to whoever still
/// holds it that it was replaced.
#[derive(Debug)]
pub struct Variants {
    key: Arc<str>,
    objects: Vec<Arc<Object>>,
    retired: AtomicBool,
}

impl Variants {
    pub fn new(key: Arc<str>, objects: Vec<Arc<Object>>) -> Self {
        Self { key, objects, retired: AtomicBool::new(false) }
    }

    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub fn objects(&self) -> &[Arc<Object>] {
        &self.objects
    }

    /// It was replaced or removed.
    pub fn retire(&self) {
        self.retired.store(true, Release);
    }

    /// Whether it is what the store would give.
    pub fn is_current(&self) -> bool {
        !self.retired.load(Acquire)
    }

    /// The latest response for this request (RFC 9111 section 4): whole, or a part that the range lies in.
    pub fn select(&self, request: &impl Fields, asked: &Wants<'_>, get: bool) -> Option<&Arc<Object>> {
        self.objects.iter().find(|object| object.answers(request, asked, get))
    }

    /// With one more, in the place of those it replaces: of the same selecting fields all but other parts of the same
    /// version, so that nobody is given parts of two; or the oldest if there are too many.
    pub fn with(&self, object: Arc<Object>, max: usize) -> Self {
        let replaced = |old: &Object| {
            let part_beside =
                object.placed.is_some() && old.placed != object.placed && old.is_of_version(&object);
            old.selecting == object.selecting && !part_beside
        };
        let kept = self.objects.iter().filter(|old| !replaced(old)).cloned();
        let objects = std::iter::once(Arc::clone(&object)).chain(kept).take(max).collect();
        Self::new(Arc::clone(&self.key), objects)
    }

    /// Without this one, if it is there.
    pub fn without(&self, gone: &Arc<Object>) -> Self {
        let kept = self.objects.iter().filter(|object| !Arc::ptr_eq(object, gone)).cloned();
        Self::new(Arc::clone(&self.key), kept.collect())
    }

    /// Every tag of every response.
    pub fn tags(&self) -> impl Iterator<Item = &Arc<str>> {
        self.objects.iter().flat_map(|object| object.tags.iter())
    }

    /// Memory they take.
    pub fn bytes(&self) -> u32 {
        let bytes: usize = self.objects.iter().map(|object| object.bytes()).sum();
        u32::try_from(bytes + self.key.len() + 128).unwrap_or(u32::MAX)
    }
}
