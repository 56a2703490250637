//! The smuggling table (see `table`), on the codec alone and over sockets through a real gateway.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod codec;
mod mutants;
mod origin;
mod recording;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod table;

use table::{Expect, Seen};

/// What came of an attempt.
#[derive(Debug, Default)]
pub struct Came {
    /// Complete requests at the origin.
    seen: Vec<origin::Request>,
    /// The status of the refusal.
    refused: Option<u16>,
    /// More input was awaited.
    waits: bool,
}

impl Came {
    fn check(&self, expect: Expect) -> Result<(), String> {
        let (requests, status, waits): (&[Seen], _, _) = match expect {
            Expect::Refused(status) => (&[], Some(status), false),
            Expect::RefusedAfter(requests, status) => (requests, Some(status), false),
            Expect::Accepted(requests) => (requests, None, false),
            Expect::Unfinished => (&[], None, true),
        };
        if self.refused != status {
            return Err(format!("refused with {:?}, not {status:?}", self.refused));
        }
        if waits && !self.waits {
            return Err("nothing more was awaited".to_owned());
        }
        if self.seen.len() != requests.len() {
            return Err(format!("the origin saw {} requests: {:?}", self.seen.len(), self.seen));
        }
        self.seen.iter().zip(requests).try_for_each(|(request, expected)| request.is(expected))
    }
}

/// Names that are not kept twice find their row.
#[test]
fn every_row_has_a_name_of_its_own() {
    let names: Vec<_> =
        table::groups().into_iter().flat_map(|(_, cases)| cases).map(|case| case.name).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), unique.len());
    assert!(names.len() >= 150, "{}", names.len());
}
