//! Targeted cache control: `CDN-Cache-Control` (RFC 9213) speaks to caches such as this one, and comes before
//! `Cache-Control` and `Expires`; so does its older relative `Surrogate-Control` (Edge Architecture Specification), for
//! origins that come from another network.

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::directives::{DELTA_MAX, ResponseDirectives};
use super::fields::Fields;

/// What is said to this cache by name. `None`: nothing, or nothing that can be parsed, or an empty list; then the field
/// counts as absent (section 2.1).
pub fn targeted(response: &impl Fields) -> Option<ResponseDirectives> {
    cdn_cache_control(response).or_else(|| surrogate_control(response))
}

/// `max-age=600+60, no-store, content="ESI/1.0"`: no structured field. After `+` is how long it may be reused stale;
/// directives with a target (`;name`) are for others.
fn surrogate_control(response: &impl Fields) -> Option<ResponseDirectives> {
    response.first("surrogate-control")?;
    let mut directives = ResponseDirectives::default();
    for member in response.list("surrogate-control").filter_map(|member| std::str::from_utf8(member).ok()) {
        let (name, argument) = member.split_once('=').map_or((member, None), |(name, it)| (name, Some(it)));
        match (name, argument) {
            ("max-age", Some(seconds)) => {
                let (fresh, stale) = seconds.split_once('+').map_or((seconds, None), |(f, s)| (f, Some(s)));
                directives.take("max-age", Some(fresh));
                directives.take("stale-while-revalidate", stale);
            }
            ("no-store" | "no-store-remote", None) => directives.no_store = true,
            _ => {}
        }
    }
    Some(directives).filter(|directives| *directives != ResponseDirectives::default())
}

fn cdn_cache_control(response: &impl Fields) -> Option<ResponseDirectives> {
    let mut value = Vec::new();
    for line in response.all("cdn-cache-control") {
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

    /// Edge Architecture Specification section 2.2.
    #[test]
    fn surrogate_control_counts_where_there_is_no_cdn_cache_control() {
        let of = |block: &str| targeted(&Lines(block.as_bytes()));
        let said = of("Surrogate-Control: max-age=600+60, content=\"ESI/1.0\"\r\n").unwrap();
        assert_eq!((said.max_age, said.stale_while_revalidate), (Some(600), Some(60)));
        assert!(of("Surrogate-Control: no-store\r\n").unwrap().no_store);
        assert_eq!(of("Surrogate-Control: no-store;other\r\n"), None, "that is for another");
        let both = "Surrogate-Control: max-age=1\r\nCDN-Cache-Control: max-age=2\r\n";
        assert_eq!(of(both).unwrap().max_age, Some(2));
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
