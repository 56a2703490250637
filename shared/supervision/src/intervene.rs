//! Faults set on children on purpose, and the globs that choose the children.

use std::time::Duration;

/// A fault to set on a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intervention {
    /// Panics at its next poll. Once.
    Panic,
    /// Ends with reason `fault` at its next poll. Once.
    Exit,
    /// Is asked to stop, as if by itself: ends with reason `normal`. Once.
    Stop,
    /// Does nothing, answers no ping: on an arbiter of its own it blocks the thread. Hits one life:
    /// the one that replaces it is free.
    Hang,
    /// Waits that long before each time it gets to run. Holds over restarts.
    Slow(Duration),
}

impl Intervention {
    /// As shown in the tree.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Exit => "exit",
            Self::Stop => "stop",
            Self::Hang => "hang",
            Self::Slow(_) => "slow",
        }
    }
}

/// Whether `path` is meant by `glob`: `*` is any text within one level, `**` any number of levels.
#[must_use]
pub fn glob_matches(glob: &str, path: &str) -> bool {
    let levels: Vec<&str> = path.trim_matches('/').split('/').collect();
    let globs: Vec<&str> = glob.trim_matches('/').split('/').collect();
    matches(
        &globs,
        &levels,
        |glob| *glob == "**",
        |glob, level| matches(glob.as_bytes(), level.as_bytes(), |byte| *byte == b'*', |a, b| a == b),
    )
}

/// Matches left to right; at a mismatch the last star takes one more. No earlier star needs another try, so the
/// work is bounded by the product of the lengths, whoever wrote the glob.
fn matches<T>(glob: &[T], text: &[T], is_star: impl Fn(&T) -> bool, fits: impl Fn(&T, &T) -> bool) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut last_star = None;
    while t < text.len() {
        if g < glob.len() && is_star(&glob[g]) {
            last_star = Some((g, t));
            g += 1;
        } else if g < glob.len() && fits(&glob[g], &text[t]) {
            (g, t) = (g + 1, t + 1);
        } else if let Some((star, taken)) = last_star {
            (g, t) = (star + 1, taken + 1);
            last_star = Some((star, taken + 1));
        } else {
            return false;
        }
    }
    glob[g..].iter().all(is_star)
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn one_star_is_one_level_and_two_are_any() {
        let worker = "/laptop/jobs/jobs-1/workers/worker-3";
        for glob in [
            "/laptop/jobs/jobs-1/workers/worker-3",
            "/*/jobs/*/workers/*",
            "/**",
            "**/worker-*",
            "/laptop/**/worker-3",
            "/**/jobs/**/w*k*-*",
        ] {
            assert!(glob_matches(glob, worker), "{glob}");
        }
        for glob in ["/laptop/jobs", "/*/jobs/*", "**/worker-4", "/*/*/*/*/*/*", "worker-3"] {
            assert!(!glob_matches(glob, worker), "{glob}");
        }
    }
}
