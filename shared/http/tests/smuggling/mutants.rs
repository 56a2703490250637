//! The table's rows with bytes inserted, dropped, doubled and swapped: whatever is sent, what reaches the origin is
//! canonical, every connection ends, and the gateway goes on.

use std::time::Duration;

use crate::sockets::{LIMIT, probe, stack};
use crate::support::client::{Client, End};
use crate::table;

const MUTANTS: u64 = 2000;
/// Before a client says that it is done it leaves time for an answer; who is done is not worked for any more.
const MOMENT: Duration = Duration::from_millis(2);

/// What two parsers are most likely to read in two ways.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b":",
    b",",
    b";",
    b"0",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"5",
    b"chunked",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.1",
    b"\xff",
    b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// SplitMix64: the same mutants in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % sides
    }
}

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len() + 1);
        let end = (at + 1 + dice.roll(8)).min(bytes.len());
        match dice.roll(4) {
            0 => drop(bytes.drain(at.min(end)..end)),
            1 => {
                let piece = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, piece);
            }
            2 if end > at => bytes[at..end].rotate_left(1),
            _ => drop(bytes.splice(at..at, TOKENS[dice.roll(TOKENS.len())].iter().copied())),
        }
    }
}

#[test]
fn no_mutant_reaches_the_origin_in_two_readings() {
    let (gateway, origin) = stack();
    let rows: Vec<&[u8]> =
        table::groups().into_iter().flat_map(|(_, cases)| cases).map(|case| case.bytes).collect();
    for seed in 0..MUTANTS {
        let mut dice = Dice(seed);
        let mut bytes = rows[dice.roll(rows.len())].to_vec();
        mutate(&mut bytes, &mut dice);
        let mut client = Client::connect(gateway);
        client.send(&bytes).read(usize::MAX, &[], MOMENT);
        client.finish();
        let (_, end) = client.read(usize::MAX, &[], LIMIT);
        assert_eq!(end, End::Closed, "mutant {seed} holds its connection: {}", bytes.escape_ascii());
        if seed % 50 == 49 {
            let record = probe(gateway, &origin);
            let raw = record.raw.escape_ascii();
            assert!(record.strange.is_empty(), "one of {}..={seed}: {:?} {raw}", seed - 49, record.strange);
        }
    }
}
