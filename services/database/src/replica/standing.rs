//! Writes that wait until they can change something: a claim that finds no work, for one. Run again with each group, they
//! see its changes before anybody else does, and what they do rides in the same log entry and the same commit.

use std::time::Instant;

use crate::position::Token;
use crate::state::{Write, Written};
use crate::wire::Outcome;

/// How many may wait; one more is answered at once, as if it were not willing to wait.
const STANDING_MAX: usize = 256;

/// Those that wait, in the order they came.
#[derive(Default)]
pub(super) struct Standing(Vec<Parked>);

struct Parked {
    write: Write,
    /// What it last said.
    answers: Vec<Vec<Outcome>>,
}

impl Standing {
    /// Keeps a write that changed nothing if it is willing to wait; gives back any other.
    pub(super) fn keep(
        &mut self,
        write: Write,
        answers: Vec<Vec<Outcome>>,
    ) -> Option<(Write, Vec<Vec<Outcome>>)> {
        if write.patience.is_none() || self.0.len() >= STANDING_MAX {
            return Some((write, answers));
        }
        self.0.push(Parked { write, answers });
        None
    }

    /// All whose client still waits, to be run or refused.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Write> + use<> {
        let parked = std::mem::take(&mut self.0).into_iter().map(|parked| parked.write);
        parked.filter(|write| !write.reply.is_closed())
    }

    /// Answers those whose time is over.
    pub(super) fn end_overdue(&mut self, now: Instant, token: Token) {
        let overdue = |parked: &mut Parked| {
            parked.write.reply.is_closed() || parked.write.patience.is_none_or(|until| until <= now)
        };
        for Parked { write, answers } in self.0.extract_if(.., overdue) {
            drop(write.reply.send(Ok(Written { answers, token })));
        }
    }
}
