//! Targeted cache control (RFC 9213): `CDN-Cache-Control` speaks to caches such as this one, and comes before
//! `Cache-Control` and `Expires`.

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::directives::{DELTA_MAX, ResponseDirectives};
use super::fields::Fields;

/// The target list of this cache (RFC 9213 section 2.2), the first that is there and valid counts.
const TARGETS: [&str; 1] = ["cdn-cache-control"];

/// What is said to this cache by name. `None`: nothing, or nothing that can be parsed, or an empty list; then the field
/// counts as absent (section 2.1).
pub fn targeted(response: &impl Fields) -> Option<ResponseDirectives> {
    TARGETS.iter().find_map(|name| parse(response, name))
}

fn parse(response: &impl Fields, name: &str) -> Option<ResponseDirectives> {
    let mut value = Vec::new();
    for line in response.all(name) {
        if !value.is_empty() {
            value.extend_from_slice(b", "); // RFC 9651 section 4.2: lines are joined before they are parsed
        }
        value.extend_from_slice(line);
    }
    let said: Dictionary = Parser::new(&value).parse().ok()?;
    if said.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives::default();
    for (name, entry) in &said {
        take(&mut directives, name.as_str(), entry);
    }
    Some(directives)
}

/// A member of the wrong type says nothing; parameters are ignored (RFC 9213 section 2.1).
fn take(directives: &mut ResponseDirectives, name: &str, entry: &ListEntry) {
    let ListEntry::Item(item) = entry else { return };
    let takes_seconds = matches!(name, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error");
    match &item.bare_item {
        BareItem::Integer(seconds) if takes_seconds => {
            let seconds = i64::from(*seconds).clamp(0, i64::from(DELTA_MAX));
            directives.take(name, Some(&seconds.to_string()));
        }
        BareItem::Boolean(true) if !takes_seconds => directives.take(name, None),
        BareItem::String(fields) if matches!(name, "no-cache" | "private") => {
            directives.take(name, Some(fields.as_str()));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    fn said(value: &str) -> Option<ResponseDirectives> {
        targeted(&Lines(format!("CDN-Cache-Control: {value}\r\n").as_bytes()))
    }

    /// RFC 9213 section 2.1: a dictionary structured field.
    #[test]
    fn it_is_a_structured_dictionary() {
        let directives = said("max-age=600, no-cache=\"set-cookie\", must-revalidate;x=1").unwrap();
        assert_eq!((directives.max_age, directives.must_revalidate), (Some(600), true));
        assert_eq!(directives.withheld, ["set-cookie"]);
        assert!(said("no-store").unwrap().no_store);
        assert_eq!(
            said("max-age=1, max-age=5").unwrap().max_age,
            Some(5),
            "RFC 9651: the last of a key counts"
        );
    }

    /// RFC 9213 section 2.1: what cannot be parsed, or is empty, is as if it were absent.
    #[test]
    fn what_cannot_be_parsed_is_absent() {
        for wrong in ["max-age=", "MAX-AGE=5", "&", "max-age=60, =", "", "max-age =60", "max-age=60,"] {
            assert_eq!(said(wrong), None, "{wrong}");
        }
        assert_eq!(targeted(&Lines(b"Cache-Control: max-age=1\r\n")), None);
    }

    /// A value of the wrong type makes that directive unknown, not the field.
    #[test]
    fn a_member_of_the_wrong_type_says_nothing() {
        assert_eq!(
            said("max-age=\"60\", private").unwrap(),
            ResponseDirectives { private: true, ..Default::default() }
        );
        assert_eq!(said("max-age=60.5").unwrap().max_age, None);
        assert!(!said("no-store=?0").unwrap().no_store);
        assert_eq!(said("max-age=-5").unwrap().max_age, Some(0));
    }
}
