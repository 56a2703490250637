//! Which replica to ask: pure.

use messages::sql::Level;

use crate::endpoints::Endpoint;

/// Whether the work needs the primary in the end. Any replica forwards to it; asking it saves the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Writes and strong reads; session reads too, because the primary never has to wait for their offset.
    Primary,
    /// Spread over all.
    Any,
}

impl Need {
    pub(crate) fn of(level: Level) -> Self {
        match level {
            Level::Eventual => Self::Any,
            Level::Session | Level::Weak | Level::Strong => Self::Primary,
        }
    }
}

/// The endpoint of the `attempt`th try (from 0): the primary first if it is needed, then the others in turn, beginning at
/// a place given by `seed`, so that clients do not all go to the same one.
pub(crate) fn endpoint(all: &[Endpoint], need: Need, attempt: usize, seed: usize) -> Option<&Endpoint> {
    if all.is_empty() {
        return None;
    }
    let primary = all.iter().find(|e| e.primary).filter(|_| need == Need::Primary);
    match primary {
        // Every other try goes back to the primary: it may be the one of our replicas that answers soonest.
        Some(primary) if attempt.is_multiple_of(2) => Some(primary),
        Some(_) => Some(&all[(seed + attempt / 2) % all.len()]),
        None => Some(&all[(seed + attempt) % all.len()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<Endpoint> {
        (0..3).map(|i| Endpoint { url: format!("http://{i}"), primary: i == 1, key: None }).collect()
    }

    #[test]
    fn writes_go_to_the_primary_and_then_to_everybody() {
        let all = three();
        assert!(endpoint(&all, Need::Primary, 0, 7).unwrap().primary);
        let tried: std::collections::BTreeSet<_> =
            (0..6).map(|n| endpoint(&all, Need::Primary, n, 7).unwrap().url.clone()).collect();
        assert_eq!(tried.len(), 3);
    }

    #[test]
    fn reads_of_any_age_are_spread() {
        let all = three();
        let first: std::collections::BTreeSet<_> =
            (0..9).map(|seed| endpoint(&all, Need::Any, 0, seed).unwrap().url.clone()).collect();
        assert_eq!(first.len(), 3);
        assert_eq!(endpoint(&[], Need::Any, 0, 0), None);
    }
}
