//! Random histories of several replicas, of which some are primary, some only believe it: all read the log alike.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entry::{Op, chain_of};

/// A replica in the model: its fold, and what it has applied.
struct Replica {
    fold: Fold,
    read: usize,
    applied: Vec<Chain>,
    /// Epoch and term that it proposed last.
    mine: (u64, u64),
    /// Digests of entries it appended, waiting to be read back.
    waiting: Option<Chain>,
    acknowledged: Vec<Chain>,
    diverged: bool,
}

impl Replica {
    fn new() -> Self {
        let fold = Fold::new(Position::default());
        Self {
            fold,
            read: 0,
            applied: vec![],
            mine: (0, 0),
            waiting: None,
            acknowledged: vec![],
            diverged: false,
        }
    }

    fn read_on(&mut self, log: &[Bytes], limit: usize) {
        while self.read < log.len().min(limit) && !self.diverged {
            let (offset, body) = (self.read as u64, &log[self.read]);
            let (entry, chain) = (Entry::decode(body).unwrap(), chain_of(body));
            match self.fold.judge(offset, &entry, || chain) {
                Verdict::Apply => {
                    let Entry::Data(data) = entry else { unreachable!() };
                    self.fold.advance(offset, data.seq, chain);
                    self.applied.push(chain);
                    if self.waiting == Some(chain) {
                        self.acknowledged.push(chain);
                        self.waiting = None;
                    }
                }
                Verdict::Gap | Verdict::Diverged(_) => self.diverged = true,
                _ => {}
            }
            self.read += 1;
        }
    }

    fn believes_primary(&self) -> bool {
        let at = self.fold.position();
        at.epoch > 0 && (at.epoch, at.term) == self.mine
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Replica reads this many entries.
    Read(usize, usize),
    Campaign(usize),
    Write(usize, u8),
    /// An entry is delivered a second time at the end of the log.
    Repeat(prop::sample::Index),
    /// Replica restarts: reads from its position again.
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..3_usize;
    prop_oneof![
        4 => (who.clone(), 1..6_usize).prop_map(|(r, n)| Step::Read(r, n)),
        1 => who.clone().prop_map(Step::Campaign),
        4 => (who.clone(), any::<u8>()).prop_map(|(r, b)| Step::Write(r, b)),
        1 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        1 => who.prop_map(Step::Restart),
    ]
}

fn run(steps: &[Step]) -> (Vec<Replica>, Vec<Bytes>) {
    let (mut log, mut replicas, mut term) = (Vec::new(), [(); 3].map(|()| Replica::new()), 0);
    for step in steps {
        match step {
            Step::Read(r, n) => {
                let limit = replicas[*r].read + n;
                replicas[*r].read_on(&log, limit);
            }
            Step::Campaign(r) => {
                term += 1;
                let replica = &mut replicas[*r];
                replica.mine = (replica.fold.position().epoch + 1, term);
                replica.waiting = None;
                let (epoch, term) = replica.mine;
                log.push(Entry::Epoch { epoch, term, primary: r.to_string() }.encode());
            }
            Step::Write(r, byte) => {
                let replica = &mut replicas[*r];
                if !replica.believes_primary() || replica.waiting.is_some() {
                    continue;
                }
                let at = replica.fold.position();
                let ops = vec![Op::Changeset(Bytes::copy_from_slice(&[*byte, *r as u8]))];
                let data =
                    Data { epoch: at.epoch, term: at.term, seq: at.seq + 1, prev: at.chain, at: 0, ops };
                let body = Entry::Data(data).encode();
                replica.waiting = Some(chain_of(&body));
                log.push(body);
            }
            Step::Repeat(which) if !log.is_empty() => log.push(log[which.index(log.len())].clone()),
            Step::Repeat(_) => {}
            Step::Restart(r) => {
                let replica = &mut replicas[*r];
                replica.fold = Fold::new(replica.fold.settled().clone());
                replica.read = replica.fold.position().offset.map_or(0, |o| o as usize + 1);
                (replica.waiting, replica.mine) = (None, (0, 0));
            }
        }
    }
    (replicas.into(), log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn all_replicas_agree_and_keep_what_was_acknowledged(steps in prop::collection::vec(step(), 0..120)) {
        let (mut replicas, log) = run(&steps);
        replicas.iter_mut().for_each(|r| r.read_on(&log, usize::MAX));
        let longest = &replicas[0].applied;
        for replica in &replicas {
            prop_assert!(!replica.diverged, "one log never diverges");
            prop_assert_eq!(&replica.applied, longest);
            for chain in &replica.acknowledged {
                prop_assert!(longest.contains(chain), "an acknowledged entry was ignored");
            }
        }
    }

    /// The log loses its end and grows again: whoever had applied more notices it before applying anything.
    #[test]
    fn a_log_that_lost_its_end_is_noticed(steps in prop::collection::vec(step(), 20..120), lost in 1..10_usize, more in 0..10_usize) {
        let (mut replicas, mut log) = run(&steps);
        replicas[0].read_on(&log, usize::MAX);
        log.truncate(log.len().saturating_sub(lost));
        let mut writer = Replica::new();
        writer.read_on(&log, usize::MAX);
        writer.mine = (writer.fold.position().epoch + 1, u64::MAX);
        log.push(Entry::Epoch { epoch: writer.mine.0, term: writer.mine.1, primary: "w".into() }.encode());
        for n in 0..more {
            writer.read_on(&log, usize::MAX);
            let at = writer.fold.position();
            let ops = vec![Op::Ddl(format!("{n}"))];
            log.push(Entry::Data(Data { epoch: at.epoch, term: at.term, seq: at.seq + 1, prev: at.chain, at: 0, ops }).encode());
        }
        writer.read_on(&log, usize::MAX);
        let ahead = &mut replicas[0];
        let at = ahead.fold.settled().clone();
        let there = at.offset.and_then(|o| log.get(o as usize)).map(|body| chain_of(body));
        if ahead.fold.attach(log.len() as u64, there).is_err() {
            return Ok(());
        }
        ahead.read = at.offset.map_or(0, |o| o as usize + 1);
        ahead.fold = Fold::new(at);
        ahead.read_on(&log, usize::MAX);
        prop_assert!(ahead.diverged || ahead.applied == writer.applied);
    }
}

fn data(epoch: u64, term: u64, seq: u64, prev: Chain) -> Entry {
    Entry::Data(Data { epoch, term, seq, prev, at: 0, ops: vec![] })
}

#[test]
fn a_stale_primary_counts_for_nobody() {
    let mut fold = Fold::new(Position::default());
    let mut judge = |offset, entry: Entry| fold.judge(offset, &entry, || chain_of(&entry.encode()));
    assert_eq!(judge(0, Entry::Epoch { epoch: 1, term: 7, primary: "a".into() }), Verdict::Promoted);
    assert_eq!(judge(1, Entry::Epoch { epoch: 1, term: 8, primary: "b".into() }), Verdict::Stale);
    assert_eq!(judge(2, Entry::Epoch { epoch: 2, term: 9, primary: "b".into() }), Verdict::Promoted);
    assert_eq!(judge(3, data(1, 7, 1, Chain::default())), Verdict::Stale);
    assert_eq!(judge(4, Entry::Barrier { epoch: 1, term: 7, id: 1 }), Verdict::Stale);
    assert_eq!(judge(5, Entry::Barrier { epoch: 2, term: 9, id: 1 }), Verdict::Barrier);
    assert_eq!(judge(6, data(2, 9, 2, Chain::default())), Verdict::Gap);
    assert_eq!(judge(7, data(2, 10, 1, Chain::default())), Verdict::Diverged(Divergence::TwoPrimaries));
    assert_eq!(judge(8, data(2, 9, 1, Chain([1; 16]))), Verdict::Diverged(Divergence::OtherHistory));
    assert_eq!(judge(9, data(2, 9, 1, Chain::default())), Verdict::Apply);
}

#[test]
fn a_new_generation_is_followed_only_from_where_it_begins() {
    let genesis = |seq, byte| Entry::Genesis { generation: 2, seq, chain: Chain([byte; 16]) };
    let at = Position { generation: 2, seq: 5, chain: Chain([5; 16]), ..Position::default() };
    let judge = |entry: Entry| Fold::new(at.clone()).judge(0, &entry, Chain::default);
    assert_eq!(judge(genesis(5, 5)), Verdict::Duplicate);
    assert_eq!(judge(genesis(9, 9)), Verdict::Gap);
    assert_eq!(judge(genesis(5, 6)), Verdict::Diverged(Divergence::OtherHistory));
    assert_eq!(judge(genesis(4, 4)), Verdict::Diverged(Divergence::OtherHistory));
}
