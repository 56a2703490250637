//! A differential test: random origins and random clients before this cache, and every answer judged by a model in plain
//! code, which keeps everything that was ever said and knows which client may see which bytes (RFC 9110, RFC 9111).
//!
//! It runs on the rules and the store, without sockets, on a clock of its own: some ten thousand requests a second in a
//! debug build. `STANDFAST_SEED` repeats a run, `STANDFAST_FUZZ_SECONDS` makes it longer. Read in this order: [`origin`],
//! [`cache`] (what the door does, without a network), [`judge`].

mod cache;
mod clients;
mod dice;
mod judge;
mod origin;

use std::time::Duration;

use clock::WallMs;

use crate::rules::sharing::Sharing;
use cache::Cache;
use dice::Dice;
use judge::{Judge, Seen};
use origin::Origin;

/// Requests in one world; then another one begins.
const REQUESTS: usize = 3_000;
/// In fewer worlds than this too little happens to show anything, however slow the machine is.
const WORLDS_MIN: u64 = 8;
/// Sun, 06 Nov 1994 08:49:37 GMT.
const START: WallMs = WallMs(784_111_777_000);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One origin, one cache, many clients.
struct World {
    dice: Dice,
    now: WallMs,
    origin: Origin,
    cache: Cache,
    judge: Judge,
}

impl World {
    fn new(seed: u64, directory: &std::path::Path) -> Self {
        let mut dice = Dice::new(seed);
        let sharing = if dice.one_in(3) { Sharing::Rfc } else { Sharing::Explicit };
        let origin = Origin::new(&mut dice, sharing, START);
        let cache = Cache::new(sharing, directory);
        Self { dice, now: START, origin, cache, judge: Judge::default() }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..REQUESTS {
            self.happens();
            let asked = clients::request(&mut self.dice, &self.origin, &self.judge, self.now);
            let answers = self.cache.serve(&mut self.origin, asked, self.now, &mut self.dice);
            for (asked, answer) in &answers {
                self.judge.look(&self.origin, asked, answer, self.now).map_err(|wrong| {
                    format!("{wrong}\n{asked:#?}\n{answer:#?}\n{:#?}", self.origin.resource(&asked.path))
                })?;
            }
        }
        Ok(())
    }

    /// Time goes on, content changes, the origin goes away and comes back, an operator purges.
    fn happens(&mut self) {
        let pause = [0, 0, 0, 100, 300, 1_000, 2_000, 9_000][self.dice.below(8)];
        self.now = self.now.plus(Duration::from_millis(pause));
        if self.dice.one_in(25) {
            let path = self.dice.below(self.origin.resources.len());
            self.origin.change(path, self.now);
        }
        if self.dice.one_in(if self.origin.is_up { 80 } else { 10 }) {
            self.origin.is_up = !self.origin.is_up;
        }
        if self.dice.one_in(25) {
            self.cache.purge(&mut self.dice, &mut self.judge, &self.origin, self.now);
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a seed that is not told cannot be repeated")]
fn no_answer_that_the_model_forbids_is_given() {
    let first = number("STANDFAST_SEED", u64::try_from(WallMs::now().0).unwrap_or(1));
    let limit = Duration::from_secs(number("STANDFAST_FUZZ_SECONDS", 10));
    let (begun, mut worlds, mut seen) = (clock::now(), 0, Seen::default());
    while worlds < WORLDS_MIN || clock::now().saturating_duration_since(begun) < limit {
        let seed = first.wrapping_add(worlds);
        let directory = tempfile::tempdir().expect("a directory");
        let mut world = World::new(seed, directory.path());
        if let Err(wrong) = world.run() {
            panic!("STANDFAST_SEED={seed}: {wrong}");
        }
        seen.add(&world.judge.seen);
        worlds += 1;
    }
    let enough = seen.hits > 100 && seen.validated > 50 && seen.parts > 50 && seen.unchanged > 50;
    assert!(enough, "STANDFAST_SEED={first}: worlds where nothing happens show nothing: {seen:?}");
    println!("STANDFAST_SEED={first}: {} requests in {worlds} worlds, {seen:?}", worlds as usize * REQUESTS);
}
