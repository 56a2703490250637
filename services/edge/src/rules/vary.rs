//! Choosing among several responses of one URI (RFC 9111 section 4.1).

use serde::{Deserialize, Serialize};

use super::fields::{Fields, members};

/// More names than this in `Vary` count as `*`: each is compared on each look-up.
const NAMES_MAX: usize = 16;

/// The request fields a response was selected by, and their values then, normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selecting(Vec<(String, Option<Vec<u8>>)>);

impl Selecting {
    /// Of a response to `request`. `None` if no other request can ever match: `Vary: *`, or too many names.
    pub fn new(response: &impl Fields, request: &impl Fields) -> Option<Self> {
        let mut names = Vec::new();
        for member in response.list("vary") {
            let name = std::str::from_utf8(member).ok()?.to_ascii_lowercase();
            if name == "*" || names.len() == NAMES_MAX {
                return None;
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Some(Self(
            names.into_iter().map(|name| (normal(&name, request), name)).map(|(v, n)| (n, v)).collect(),
        ))
    }

    /// The same response, selected by another request: the origin said that it answers that one too.
    pub fn for_request(&self, request: &impl Fields) -> Self {
        Self(self.0.iter().map(|(name, _)| (name.clone(), normal(name, request))).collect())
    }

    /// Whether this request would have been answered by the same response.
    pub fn matches(&self, request: &impl Fields) -> bool {
        self.matches_in(request, None)
    }

    /// The same, for a response whose `Content-Language` is known: a request that prefers just that language above all
    /// others would have got it too, whatever else it names.
    pub fn matches_in(&self, request: &impl Fields, language: Option<&[u8]>) -> bool {
        self.0.iter().all(|(name, value)| {
            normal(name, request) == *value
                || name == "accept-language" && language.is_some_and(|it| prefers(request, it))
        })
    }

    /// Whether it was selected by this field, among others.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 64).sum()
    }
}

/// A field's value as it is compared: lines combined, white space around members gone; of fields that tell clients apart
/// not even that, as a space may be all that two of them differ by. Of the fields of content
/// negotiation, whose members have no order and no case (RFC 9110 section 12.5), also those two. `None`: it is absent,
/// which matches only absence.
fn normal(name: &str, request: &impl Fields) -> Option<Vec<u8>> {
    let unordered = matches!(name, "accept" | "accept-charset" | "accept-encoding" | "accept-language");
    request.first(name)?;
    if matches!(name, "cookie" | "authorization") {
        return Some(request.all(name).collect::<Vec<_>>().join(&b"\n"[..]));
    }
    let mut parts: Vec<Vec<u8>> = request
        .all(name)
        .flat_map(members)
        .map(|member| if unordered { preference(member) } else { member.to_vec() })
        .collect();
    if unordered {
        parts.sort_unstable();
        parts.dedup();
    }
    Some(parts.join(&b", "[..]))
}

/// Whether one language is preferred to all others, and it is this one (RFC 9110 section 12.5.4).
fn prefers(request: &impl Fields, language: &[u8]) -> bool {
    let mut best: Option<(&[u8], u32)> = None;
    let mut tied = false;
    for member in request.list("accept-language") {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let tag = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=")).map_or(Some(1000), thousandths);
        let Some(weight) = weight else { return false };
        match best {
            Some((_, known)) if weight < known => {}
            Some((_, known)) => {
                tied = weight == known;
                best = Some((tag, weight));
            }
            None => best = Some((tag, weight)),
        }
    }
    !tied && best.is_some_and(|(tag, weight)| weight > 0 && tag.eq_ignore_ascii_case(language))
}

/// A weight (RFC 9110 section 12.4.2) in thousandths.
fn thousandths(weight: &[u8]) -> Option<u32> {
    let weight: f32 = std::str::from_utf8(weight).ok()?.parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0) as u32)
}

/// One member of a field of content negotiation in lower case, without white space and without the weight 1, which is
/// the default (RFC 9110 section 12.4.2).
fn preference(member: &[u8]) -> Vec<u8> {
    let mut plain: Vec<u8> =
        member.iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect();
    if let Some(at) = plain.windows(4).position(|window| window == b";q=1")
        && plain[at + 4..].iter().all(|byte| matches!(byte, b'.' | b'0'))
    {
        plain.truncate(at);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    fn matches(vary: &str, stored: &str, asked: &str) -> bool {
        let response = format!("Vary: {vary}\r\n");
        let selecting = Selecting::new(&Lines(response.as_bytes()), &Lines(stored.as_bytes())).unwrap();
        selecting.matches(&Lines(asked.as_bytes()))
    }

    /// RFC 9111 section 4.1: all named fields match, also by being absent from both.
    #[test]
    fn all_named_fields_have_to_match() {
        assert!(matches("Foo", "foo: 1\r\nbar: 2\r\n", "Foo: 1\r\nbar: 3\r\n"));
        assert!(!matches("Foo", "foo: 1\r\n", "foo: 2\r\n"));
        assert!(!matches("Foo, Bar", "foo: 1\r\nbar: 1\r\n", "foo: 1\r\n"));
        assert!(!matches("Foo", "", "foo: 1\r\n"));
        assert!(!matches("Foo", "", "foo: \r\n"), "empty is not absent");
        assert!(matches("Foo", "", "bar: 1\r\n"));
    }

    /// RFC 9111 section 4.1: white space and the number of lines do not matter, the order of members does.
    #[test]
    fn lines_are_combined_and_white_space_is_ignored() {
        assert!(matches("foo", "foo: 1, 2\r\n", "foo: 1\r\nfoo:  2\r\n"));
        assert!(matches("foo", "foo: 1,2\r\n", "foo: 1 , 2\r\n"));
        assert!(!matches("foo", "foo: 1, 2\r\n", "foo: 2, 1\r\n"));
        assert!(!matches("foo", "foo: a\r\n", "foo: A\r\n"));
        for name in ["cookie", "authorization"] {
            let line = |value: &str| format!("{name}: {value}\r\n");
            assert!(matches(name, &line("s=1,2"), &line("s=1,2")));
            assert!(!matches(name, &line("s=1,2"), &line("s=1, 2")), "two clients, for all we know");
            assert!(!matches(name, &line("s=1, 2"), &(line("s=1") + &line("2"))));
        }
    }

    /// RFC 9110 section 12.5: preferences have no order and no case, and weigh 1 when nothing is said.
    #[test]
    fn preferences_have_no_order_and_no_case() {
        let same = |a: &str, b: &str| {
            matches(
                "accept-language",
                &format!("accept-language: {a}\r\n"),
                &format!("accept-language: {b}\r\n"),
            )
        };
        assert!(same("en, de", "de, en"));
        assert!(same("en-GB;q=0.5, DE", "de,en-gb; q=0.5"));
        assert!(same("en;q=1.0, de", "en, de"));
        assert!(!same("en;q=0.5, de", "en, de"));
        assert!(!same("en;q=1.5", "en"));
    }

    /// RFC 9110 section 12.5.4: who prefers the language of a response to all others gets it.
    #[test]
    fn a_response_in_the_preferred_language_will_do() {
        let response = Lines(b"Vary: Accept-Language\r\n");
        let selecting = Selecting::new(&response, &Lines(b"Accept-Language: en, de\r\n")).unwrap();
        let in_german = |asked: &str| {
            let block = format!("Accept-Language: {asked}\r\n");
            selecting.matches_in(&Lines(block.as_bytes()), Some(b"de"))
        };
        assert!(in_german("fr;q=0.5, de;q=1.0") && in_german("DE, en;q=0.9"));
        assert!(
            !in_german("fr, de;q=0.9")
                && !in_german("fr, de")
                && !in_german("de;q=0")
                && !in_german("de;q=x")
        );
        assert!(in_german("en, de"), "and who asked for the same");
    }

    /// RFC 9111 section 4.1: `*` always fails to match.
    #[test]
    fn a_star_matches_nothing() {
        for star in ["*", "Accept, *", "*, Foo"] {
            assert_eq!(Selecting::new(&Lines(format!("Vary: {star}\r\n").as_bytes()), &Lines(b"")), None);
        }
        let many: Vec<String> = (0..=NAMES_MAX).map(|n| format!("x-{n}")).collect();
        assert_eq!(
            Selecting::new(&Lines(format!("Vary: {}\r\n", many.join(",")).as_bytes()), &Lines(b"")),
            None
        );
    }
}
