//! What a write makes untrue (RFC 9111 section 4.4).

use super::fields::Fields;
use super::key::{of_url, origin_of};

/// The keys to forget after an answer to a request with an unsafe or unknown method: the target, and what `Location` and
/// `Content-Location` name on the same origin; nothing after an error.
pub fn invalidated(target: &str, status: u16, response: &impl Fields) -> Vec<String> {
    if !(200..400).contains(&status) {
        return Vec::new();
    }
    let mut keys = vec![target.to_owned()];
    for name in ["location", "content-location"] {
        let Some(reference) = response.first(name).and_then(|value| std::str::from_utf8(value).ok()) else {
            continue;
        };
        if let Some(key) = resolved(target, reference)
            && origin_of(&key) == origin_of(target)
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    }
    keys
}

/// Whether the answer to a POST is the content of the URI that it was sent to, and says how long it holds (RFC 9110
/// section 9.3.3).
pub fn is_content_of(target: &str, response: &impl Fields) -> bool {
    let named = response.first("content-location").and_then(|value| std::str::from_utf8(value).ok());
    let is_explicit = response.first("expires").is_some()
        || response.list("cache-control").any(|it| {
            let name = it.split(|&byte| byte == b'=').next().unwrap_or_default();
            [&b"max-age"[..], b"s-maxage"].iter().any(|known| name.eq_ignore_ascii_case(known))
        });
    is_explicit && named.and_then(|reference| resolved(target, reference)).as_deref() == Some(target)
}

/// A reference resolved against the target (RFC 3986 section 5.2), as a key.
fn resolved(base: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    if reference.contains("://") {
        return of_url(reference);
    }
    let origin = origin_of(base);
    if let Some(authority_and_path) = reference.strip_prefix("//") {
        let scheme = origin.split("://").next()?;
        return of_url(&format!("{scheme}://{authority_and_path}"));
    }
    let target = &base[origin.len()..];
    let path = target.split('?').next().unwrap_or("/");
    let (written, query) = match reference.split_once('?') {
        Some((written, query)) => (written, Some(query)),
        None => (reference, None),
    };
    let path = if written.starts_with('/') {
        without_dots(written)
    } else if written.is_empty() {
        path.to_owned()
    } else {
        let directory = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        without_dots(&format!("{directory}{written}"))
    };
    let query = match (query, written.is_empty()) {
        (Some(query), _) => format!("?{query}"),
        (None, true) => target.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default(),
        (None, false) => String::new(),
    };
    Some(format!("{origin}{path}{query}"))
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    const TARGET: &str = "http://a.example/b/c?d";

    fn after(status: u16, block: &str) -> Vec<String> {
        invalidated(TARGET, status, &Lines(block.as_bytes()))
    }

    /// RFC 9111 section 4.4: on a non-error answer the target is invalid.
    #[test]
    fn a_write_that_succeeds_invalidates_its_target() {
        for status in [200, 201, 204, 303] {
            assert_eq!(after(status, ""), [TARGET]);
        }
        for status in [400, 404, 500, 503] {
            assert!(after(status, "Location: /x\r\n").is_empty());
        }
    }

    /// RFC 9110 section 9.3.3.
    #[test]
    fn the_answer_to_a_post_is_content_only_if_it_says_so() {
        let is = |block: &str| is_content_of(TARGET, &Lines(block.as_bytes()));
        for own in ["", "/b/c?d", "c?d", "http://A.example:80/b/c?d", "//a.example/b/c?d"] {
            assert!(is(&format!("Content-Location: {own}\r\nCache-Control: max-age=9\r\n")), "{own}");
            assert!(!is(&format!("Content-Location: {own}\r\n")), "nothing says how long");
        }
        assert!(is("Content-Location: /b/c?d\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT\r\n"));
        for other in ["/b/c", "/b/c?e", "http://b.example/b/c?d", "https://a.example/b/c?d"] {
            assert!(!is(&format!("Content-Location: {other}\r\nCache-Control: max-age=9\r\n")), "{other}");
        }
        assert!(!is("Cache-Control: max-age=9\r\n"));
    }

    /// RFC 9111 section 4.4: also what the answer names, on the same origin only.
    #[test]
    fn what_the_answer_names_on_the_same_origin_is_invalid_too() {
        let named = |reference: &str| after(201, &format!("Location: {reference}\r\n")).get(1).cloned();
        assert_eq!(named("/x?y").as_deref(), Some("http://a.example/x?y"));
        assert_eq!(named("http://A.example:80/x#f").as_deref(), Some("http://a.example/x"));
        assert_eq!(named("e").as_deref(), Some("http://a.example/b/e"));
        assert_eq!(named("../e/./f").as_deref(), Some("http://a.example/e/f"));
        assert_eq!(named("?q").as_deref(), Some("http://a.example/b/c?q"));
        assert_eq!(named("//a.example/z").as_deref(), Some("http://a.example/z"));
        for elsewhere in
            ["http://b.example/x", "https://a.example/x", "//b.example/x", "http://a.example:81/x"]
        {
            assert_eq!(named(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(after(200, "Content-Location: /l\r\nLocation: /m\r\n").len(), 3);
    }
}
