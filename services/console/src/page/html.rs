//! The few things that every piece of the page needs: escaping, and times as people say them.

use std::fmt;

/// Text within HTML, in an element or in a quoted attribute. Everything that comes from outside the page's own
/// source goes through this.
pub struct Esc<'a>(pub &'a str);

impl fmt::Display for Esc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// Microseconds in the unit that leaves few digits: `34 µs`, `1.2 ms`, `153 ms`, `2.0 s`.
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us} µs"),
            us @ 1_000..10_000 => write!(f, "{:.1} ms", us as f64 / 1e3),
            us @ 10_000..1_000_000 => write!(f, "{} ms", us / 1_000),
            us => write!(f, "{:.1} s", us as f64 / 1e6),
        }
    }
}

/// `n` of something, in the right number: `1 restart`, `2 restarts`.
pub struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// What of a path follows `/node/tier/`: enough to recognise a child by.
#[must_use]
pub fn short(path: &str) -> &str {
    path.splitn(4, '/').nth(3).unwrap_or(path)
}

/// The last level of a path.
#[must_use]
pub fn leaf(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        let text = r#"<b onclick="x('&')">ü"#;
        assert_eq!(Esc(text).to_string(), "&lt;b onclick=&quot;x(&#39;&amp;&#39;)&quot;&gt;ü");
    }

    #[test]
    fn times_have_few_digits() {
        let told: Vec<String> =
            [34, 1_230, 153_000, 2_010_000].iter().map(|us| Micros(*us).to_string()).collect();
        assert_eq!(told, ["34 µs", "1.2 ms", "153 ms", "2.0 s"]);
    }

    #[test]
    fn paths_are_shortened() {
        assert_eq!(short("/n/jobs/jobs-1/workers/worker-3"), "jobs-1/workers/worker-3");
        assert_eq!(short("/n/agent"), "/n/agent");
        assert_eq!(leaf("/n/jobs"), "jobs");
    }
}
