//! Bytes that all requests of a replica hold together: of their bodies, and of results on their way to clients.
//!
//! A holder takes more as its bytes grow, and gives all back when it is dropped. Nobody waits: what does not fit is
//! refused in words, so that many who hold a part of what they need cannot block each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of one holder that are not counted: small requests cost nothing here, and connections are bounded anyway.
const FREE: usize = 64 << 10;
/// Bytes are taken in steps of so many.
const STEP: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    used: AtomicUsize,
}

/// The budget is used up. Nothing is wrong with the request: the same one fits a moment later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// What all may hold together.
    pub most: usize,
}

impl Budget {
    /// So many bytes for all.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0) })
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), UsedUp> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Relaxed, Relaxed, add).map(drop).map_err(|_| UsedUp { most: self.most })
    }
}

/// What one holder has taken.
#[derive(Debug, Default)]
pub struct Charge {
    budget: Option<Arc<Budget>>,
    bytes: usize,
}

impl Charge {
    /// Nothing yet.
    #[must_use]
    pub fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Some(budget.clone()), bytes: 0 }
    }

    /// Holds `bytes` altogether from now on, or more.
    ///
    /// # Errors
    /// There is no room for so many; what was taken before stays taken.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), UsedUp> {
        if bytes <= FREE.max(self.bytes) {
            return Ok(());
        }
        let Some(budget) = &self.budget else { return Ok(()) };
        let wanted = bytes.next_multiple_of(STEP);
        budget.take(wanted - self.bytes)?;
        self.bytes = wanted;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// A copy of what is charged is not charged itself.
impl Clone for Charge {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Two results are equal whatever they cost.
impl PartialEq for Charge {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_hold_is_bounded_and_given_back() {
        let budget = Budget::new(1 << 20);
        let mut first = Charge::of(&budget);
        let mut second = Charge::of(&budget);
        first.grow_to(FREE).unwrap();
        assert_eq!(budget.used(), 0, "little is not counted");
        first.grow_to(FREE + 1).unwrap();
        second.grow_to(3 * STEP).unwrap();
        assert_eq!(budget.used(), 4 * STEP);
        assert_eq!(first.grow_to(STEP + 1), Err(UsedUp { most: 1 << 20 }));
        first.grow_to(STEP).unwrap();
        drop(second);
        first.grow_to(1 << 20).unwrap();
        assert_eq!(first.grow_to(usize::MAX - STEP), Err(UsedUp { most: 1 << 20 }));
        drop(first);
        assert_eq!(budget.used(), 0);
    }
}
