//! Paths to match and to build: redirects and rewrites.
//!
//! `/old/{name}/{rest*}` matches segment by segment: `{name}` is one segment, `{rest*}` all that is left, also nothing.
//! There is no backtracking and so no input that takes long.

use smallvec::SmallVec;

use crate::path::{means_the_same, rest, segments};

/// A pattern or template may have so many pieces.
const PIECES_MAX: usize = 32;

/// What a path must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// The name that stands for all the rest, if the pattern ends so.
    rest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Named(String),
}

/// What the names of a pattern stand for in a path.
pub type Captures<'p> = SmallVec<[(&'p str, &'p str); 4]>;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(format!("{text}: a pattern begins with /"));
        };
        let mut pattern = Self { segments: Vec::new(), rest: None };
        for segment in inner.split('/') {
            if pattern.rest.is_some() {
                return Err(format!("{text}: nothing can follow the rest"));
            }
            match name_in(segment) {
                None if segment.contains(['{', '}']) => {
                    return Err(format!("{text}: a name is a whole segment, {{name}} or {{name*}}"));
                }
                None => pattern.segments.push(Segment::Literal(segment.to_owned())),
                Some(name) => match name.strip_suffix('*') {
                    Some(name) => pattern.rest = Some(name.to_owned()),
                    None => pattern.segments.push(Segment::Named(name.to_owned())),
                },
            }
        }
        let names: Vec<&str> = pattern.names().collect();
        let twice = names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
        if twice || pattern.segments.len() > PIECES_MAX {
            return Err(format!("{text}: a name twice, or more than {PIECES_MAX} segments"));
        }
        Ok(pattern)
    }

    /// Matches a path as it was received: by what its segments mean. What the names stand for is as it was spelled.
    #[must_use]
    pub fn matches<'p>(&'p self, path: &'p str) -> Option<Captures<'p>> {
        let mut left = segments(path);
        let (mut captures, mut end) = (Captures::new(), 0);
        for segment in &self.segments {
            let here = left.next()?;
            match segment {
                Segment::Literal(literal) if means_the_same(literal, here.text) => {}
                Segment::Named(name) if !here.text.is_empty() => captures.push((name, here.text)),
                _ => return None,
            }
            end = here.end;
        }
        match &self.rest {
            Some(name) => captures.push((name, rest(path, end))),
            None if left.next().is_some() => return None,
            None => {}
        }
        Some(captures)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        });
        named.chain(self.rest.as_deref())
    }
}

/// What is built from a match: text with `{name}`s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Segment>,
}

impl Template {
    /// Reads a template whose names are those of `pattern`, or of `also`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(text: &str, pattern: &Pattern, also: &[&str]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, named)) = rest.split_once('{') {
            let Some((name, after)) = named.split_once('}') else {
                return Err(format!("{text}: {{ without }}"));
            };
            if !pattern.names().any(|known| known == name) && !also.contains(&name) {
                return Err(format!("{text}: {{{name}}} is not in the pattern"));
            }
            pieces.extend([Segment::Literal(literal.to_owned()), Segment::Named(name.to_owned())]);
            rest = after;
        }
        pieces.push(Segment::Literal(rest.to_owned()));
        let bytes_fit = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !bytes_fit || pieces.len() > PIECES_MAX {
            return Err(format!("{text}: only visible ASCII, and at most {PIECES_MAX} pieces"));
        }
        Ok(Self { pieces })
    }

    /// Builds it.
    #[must_use]
    pub fn build(&self, captures: &[(&str, &str)]) -> String {
        let mut built = String::with_capacity(64);
        for piece in &self.pieces {
            match piece {
                Segment::Literal(literal) => built.push_str(literal),
                Segment::Named(name) => {
                    let value =
                        captures.iter().find(|(known, _)| known == name).map_or("", |(_, value)| *value);
                    built.push_str(value);
                }
            }
        }
        built
    }
}

/// A `Location` that begins with a path never begins with two slashes, which a browser would take for the name of another
/// host: `/{rest*}` → `/{rest}` would send `//evil.example` there.
#[must_use]
pub fn on_this_host(location: String) -> String {
    match location.strip_prefix('/') {
        Some(path) if path.starts_with(['/', '\\']) => {
            format!("/{}", path.trim_start_matches(['/', '\\']))
        }
        _ => location,
    }
}

/// `{name}` or `{name*}`: what is between the braces.
fn name_in(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let word = name.strip_suffix('*').unwrap_or(name);
    (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(pattern: &str, template: &str, path: &str) -> Option<String> {
        let pattern = Pattern::read(pattern).unwrap();
        let template = Template::read(template, &pattern, &["host"]).unwrap();
        let mut captures = pattern.matches(path)?;
        captures.push(("host", "example.org"));
        Some(on_this_host(template.build(&captures)))
    }

    #[test]
    fn patterns_match_by_segment_and_templates_take_what_matched() {
        #[rustfmt::skip]
        let rows = [
            ("/old",              "/new",                 "/old",        Some("/new")),
            ("/old",              "/new",                 "/old/",       None),
            ("/old",              "/new",                 "/older",      None),
            ("/old/{rest*}",      "/new/{rest}",          "/old/a/b",    Some("/new/a/b")),
            ("/old/{rest*}",      "/new/{rest}",          "/old/",       Some("/new/")),
            ("/old/{rest*}",      "/new/{rest}",          "/old",        Some("/new/")),
            ("/u/{id}/p/{page}",  "/{page}?user={id}",    "/u/7/p/home", Some("/home?user=7")),
            ("/u/{id}",           "/x/{id}",              "/u/",         None),
            ("/{rest*}",          "https://{host}/{rest}", "/a?b",       Some("https://example.org/a?b")),
            ("/{rest*}",          "/{rest}",              "//evil.example", Some("/evil.example")),
            ("/{rest*}",          "/{rest}",              "/\\evil.example", Some("/evil.example")),
            ("/old/{rest*}",      "/new/{rest}",          "/%6Fld/a%2Fb%2B+%26//c%20", Some("/new/a%2Fb%2B+%26//c%20")),
            ("/old/{rest*}",      "/new/{rest}",          "//old//a",    Some("/new//a")),
            ("/caf%c3%a9/{rest*}", "/{rest}",             "/caf%C3%A9%2Fx", Some("/x")),
            ("/u/{id}",           "/x/{id}",              "/u/a%2Bb",    Some("/x/a%2Bb")),
            ("/",                 "/home",                "/",           Some("/home")),
            ("/",                 "/home",                "/a",          None),
        ];
        for (pattern, template, path, expected) in rows {
            assert_eq!(
                rewritten(pattern, template, path).as_deref(),
                expected,
                "{pattern} → {template} of {path}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for pattern in ["old", "/{a}/{a}", "/{a*}/b", "/a{b}", "/{}", "/{a-b}", "/{a"] {
            Pattern::read(pattern).unwrap_err();
        }
        let pattern = Pattern::read("/{a}").unwrap();
        for template in ["/{b}", "/{a", "/a b", "/\r\nset-cookie: x"] {
            Template::read(template, &pattern, &[]).unwrap_err();
        }
    }
}
