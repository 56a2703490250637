//! What the server's own pages have in common: text stays text, and nothing is loaded or run.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

/// A page with places to fill in.
pub struct Page {
    text: &'static str,
    lines: LazyLock<String, fn() -> String>,
}

/// Of a directory.
pub static LISTING: Page = Page {
    text: include_str!("../pages/listing.html"),
    lines: LazyLock::new(|| lines(include_str!("../pages/listing.html"))),
};

/// Of an error.
pub static REFUSAL: Page = Page {
    text: include_str!("../pages/refusal.html"),
    lines: LazyLock::new(|| lines(include_str!("../pages/refusal.html"))),
};

/// Of what runs.
pub static WELCOME: Page = Page {
    text: include_str!("../pages/welcome.html"),
    lines: LazyLock::new(|| lines(include_str!("../pages/welcome.html"))),
};

impl Page {
    /// The page with its places, `<!-- name -->`, filled in. What is filled in is HTML: see [`escaped`].
    #[must_use]
    pub fn fill(&self, places: &[(&str, &str)]) -> String {
        let mut filled = String::with_capacity(self.text.len() + 4096);
        let mut rest = self.text;
        // One pass: what is filled in is never looked at again.
        while let Some((before, after)) = rest.split_once("<!-- ") {
            let Some((name, after)) = after.split_once(" -->") else { break };
            filled.push_str(before);
            filled.push_str(places.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text));
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    /// Field lines that go with it: its type, and a policy that allows its one style sheet and nothing else.
    #[must_use]
    pub fn lines(&self) -> &str {
        &self.lines
    }
}

fn lines(page: &str) -> String {
    let style = page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>"));
    let hash = BASE64_STANDARD.encode(Sha256::digest(style.map_or("", |(style, _)| style)));
    format!(
        "content-type: text/html; charset=utf-8\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\
         content-security-policy: default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\n"
    )
}

/// Text that is text in HTML, also within quotes.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        let page = REFUSAL.fill(&[("status", "404"), ("title", "<!-- detail -->"), ("detail", "d")]);
        assert_eq!(
            page.matches("<!-- detail -->").count(),
            2,
            "in the title of the window and in the heading"
        );
        assert_eq!(escaped("<a href='\"&"), "&lt;a href=&#39;&quot;&amp;");
    }

    #[test]
    fn a_page_allows_its_own_style_and_nothing_else() {
        for page in [&LISTING, &REFUSAL, &WELCOME] {
            assert!(page.lines().contains("default-src 'none'; style-src 'sha256-"), "{}", page.lines());
            for forbidden in ["style=", "<script", "url(", "@import"] {
                assert!(!page.text.contains(forbidden), "{forbidden}");
            }
            assert_eq!(page.text.matches("<style>").count(), 1);
        }
    }
}
