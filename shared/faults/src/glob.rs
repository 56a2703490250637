//! Path globs: `*` stands for any run of characters within one level, `**` alone in a level for any number of
//! levels, none included. Everything else is literal.

/// Whether `pattern` matches the whole of `path`.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = levels(pattern);
    let path: Vec<&str> = levels(path);
    walk(&pattern, &path, level)
}

/// The one node that `pattern` can match on, if its first level is literal; `None` means any.
#[must_use]
pub fn node(pattern: &str) -> Option<&str> {
    let first = *levels(pattern).first()?;
    (!first.contains('*')).then_some(first)
}

fn levels(path: &str) -> Vec<&str> {
    path.strip_prefix('/').unwrap_or(path).split('/').collect()
}

/// Greedy match with one point to go back to: when what follows the last `**` fails, that `**` takes one level
/// more. Earlier stars never need to be revisited, so the work is at most `pattern × path`.
fn walk<T: Copy + IsAny>(pattern: &[T], path: &[T], one: fn(T, T) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < path.len() {
        if p < pattern.len() && pattern[p].is_any() {
            back = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && one(pattern[p], path[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = back {
            back = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|x| x.is_any())
}

fn level(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    walk(&pattern, &text, |a, b| a == b)
}

/// An element of a pattern that stands for any number of elements.
trait IsAny {
    fn is_any(&self) -> bool;
}

impl IsAny for &str {
    fn is_any(&self) -> bool {
        *self == "**"
    }
}

impl IsAny for char {
    fn is_any(&self) -> bool {
        *self == '*'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_by_level() {
        #[rustfmt::skip]
        let cases = [
            ("/n/jobs/jobs-1/workers/worker-3", "/n/jobs/jobs-1/workers/worker-3", true),
            ("/n/jobs/*/workers/worker-*",      "/n/jobs/jobs-1/workers/worker-3", true),
            ("/n/*/worker-3",                   "/n/jobs/jobs-1/workers/worker-3", false),
            ("/n/**/worker-3",                  "/n/jobs/jobs-1/workers/worker-3", true),
            ("/**",                             "/n/jobs/jobs-1",                  true),
            ("/n/**",                           "/n",                              true),
            ("/n/**",                           "/nn",                             false),
            ("/*",                              "/n",                              true),
            ("/*",                              "/n/jobs",                         false),
            ("/n/**/x/**/y",                    "/n/x/x/y/y",                      true),
            ("/n/**/x/**/y",                    "/n/y/x",                          false),
            ("/n/a*b*c",                        "/n/aXXbYYc",                      true),
            ("/n/a*b*c",                        "/n/aXXbYY",                       false),
            ("/n/ä*",                           "/n/äöü",                          true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn many_stars_are_not_slow() {
        let pattern = format!("/{}x", "*a".repeat(200));
        assert!(!matches(&pattern, &format!("/{}", "a".repeat(400))));
        assert!(!matches(&format!("{}/x", "/**/a".repeat(80)), &"/a".repeat(160)));
    }

    #[test]
    fn a_literal_first_level_names_the_node() {
        assert_eq!(node("/laptop/jobs/**"), Some("laptop"));
        assert_eq!(node("/lap*/jobs"), None);
        assert_eq!(node("/**"), None);
    }
}
