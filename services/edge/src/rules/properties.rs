//! What holds for every input, whatever an origin or a client sends.

use clock::WallMs;
use proptest::prelude::*;

use super::directives::{DELTA_MAX, RequestDirectives, ResponseDirectives};
use super::fields::{Fields, Lines};
use super::freshness::{Exchanged, Freshness, Policy};
use super::invalidation::invalidated;
use super::key::origin_of;
use super::range::{Part, Placed, inside, part, placed};
use super::reuse::{Reuse, judge};
use super::vary::Selecting;

/// Bytes as they stand in field values, many of them with a meaning.
fn value() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "max-age",
        "s-maxage",
        "no-store",
        "no-cache",
        "private",
        "public",
        "must-revalidate",
        "=",
        ",",
        "\"",
        "\\",
        ";",
        " ",
        "0",
        "7",
        "60",
        "99999999999",
        "-1",
        "stale-while-revalidate",
        "*",
        "q=",
        "Accept",
        "bytes=",
        "-",
        "/",
        "x",
    ];
    prop::collection::vec(prop::sample::select(WORDS), 0..12).prop_map(|words| words.concat())
}

const NOW: WallMs = WallMs(1_700_000_000_000);
const AT: Exchanged = Exchanged { requested_at: NOW, received_at: NOW };

proptest! {
    /// Whatever a response says: it is read, no number is beyond its bound, and its age only grows.
    #[test]
    fn any_response_can_be_read(cc in value(), cdn in value(), age in value(), after in 0_i64..10_000_000) {
        let block = format!("Cache-Control: {cc}\r\nCDN-Cache-Control: {cdn}\r\nAge: {age}\r\n");
        let lines = Lines(block.as_bytes());
        let freshness = Freshness::new(&Policy::of(&lines, super::sharing::Rules::default()), &lines, 200, AT);
        prop_assert!(freshness.lifetime <= DELTA_MAX && freshness.initial_age <= DELTA_MAX);
        let later = WallMs(NOW.0 + after);
        prop_assert!(freshness.age(later) >= freshness.age(NOW));
        prop_assert_eq!(freshness.ttl(later), i64::from(freshness.lifetime) - i64::from(freshness.age(later)));
    }

    /// Whatever a request asks: what forbids stale reuse is never answered stale, and no-cache never without asking.
    #[test]
    fn what_forbids_stale_reuse_is_never_answered_stale(asked in value(), after in 60_i64..100_000) {
        let mut directives = RequestDirectives::default();
        directives.take_line(asked.as_bytes());
        for forbidden in ["max-age=60, must-revalidate, stale-while-revalidate=99999", "no-cache, max-age=99999999"] {
            let block = format!("Cache-Control: {forbidden}\r\n");
            let lines = Lines(block.as_bytes());
            let freshness = Freshness::new(&Policy::of(&lines, super::sharing::Rules::default()), &lines, 200, AT);
            let reuse = judge(&freshness, &directives, false, WallMs(NOW.0 + after * 1000));
            prop_assert!(matches!(reuse, Reuse::Validate(_)), "{reuse:?}");
        }
    }

    /// A directive in a quoted string of an extension is none.
    #[test]
    fn a_quoted_string_hides_everything(inner in "[a-z0-9=, -]{0,40}") {
        let line = format!("ext=\"{inner}\"");
        let said = ResponseDirectives::parse([line.as_bytes()].into_iter());
        prop_assert_eq!(said, ResponseDirectives::default());
    }

    /// A range that is answered lies within the content.
    #[test]
    fn a_part_lies_within_the_whole(range in value(), complete in 0_u64..100) {
        if let Part::Bytes(bytes) = part(range.as_bytes(), complete) {
            prop_assert!(bytes.start < bytes.end && bytes.end <= complete);
        }
        let stored = Placed { bytes: 3..9, complete: Some(9), to_end: true };
        if let Some(bytes) = inside(range.as_bytes(), &stored) {
            prop_assert!(bytes.start >= 3 && bytes.start < bytes.end && bytes.end <= 9);
        }
        if let Some(placed) = placed(range.as_bytes(), 6) {
            prop_assert_eq!(placed.bytes.end - placed.bytes.start, 6);
        }
    }

    /// A request is answered by what was selected by a request just like it.
    #[test]
    fn a_request_matches_its_own_response(vary in value(), accept in value(), foo in value()) {
        let (response, request) = (format!("Vary: {vary}\r\n"), format!("Accept: {accept}\r\nx: {foo}\r\n"));
        let (response, request) = (Lines(response.as_bytes()), Lines(request.as_bytes()));
        if let Some(selecting) = Selecting::new(&response, &request) {
            prop_assert!(selecting.matches(&request));
        }
        prop_assert!(response.list("vary").all(|member| !member.is_empty()));
    }

    /// A write invalidates nothing of another origin, whatever the answer names.
    #[test]
    fn nothing_of_another_origin_is_invalidated(location in "[a-z./:?#@]{0,40}") {
        let block = format!("Location: {location}\r\n");
        for key in invalidated("http://a.example/b", 201, &Lines(block.as_bytes())) {
            prop_assert_eq!(origin_of(&key), "http://a.example");
        }
    }
}
