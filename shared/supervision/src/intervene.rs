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
    let glob: Vec<&str> = glob.trim_matches('/').split('/').collect();
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    levels_match(&glob, &path)
}

fn levels_match(glob: &[&str], path: &[&str]) -> bool {
    match glob.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|skip| levels_match(rest, &path[skip..])),
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(level, below)| level_matches(first, level) && levels_match(rest, below)),
    }
}

fn level_matches(glob: &str, level: &str) -> bool {
    match glob.split_once('*') {
        None => glob == level,
        Some((before, after)) => level.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|i| rest.is_char_boundary(i) && level_matches(after, &rest[i..]))
        }),
    }
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
        ] {
            assert!(glob_matches(glob, worker), "{glob}");
        }
        for glob in ["/laptop/jobs", "/*/jobs/*", "**/worker-4", "/*/*/*/*/*/*", "worker-3"] {
            assert!(!glob_matches(glob, worker), "{glob}");
        }
    }
}
