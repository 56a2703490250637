//! Where in the database's history a replica is.

use std::fmt;
use std::str::FromStr;

/// Digest that stands for an entry and, through its predecessor's digest inside it, for all history before.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Chain(pub [u8; 16]);

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A replica's place in the history; kept in the same SQLite transaction as the data, and so in every snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which log: grows when a log came back shorter than a replica and was replaced.
    pub generation: u64,
    /// Epoch of the primary that wrote the last entry.
    pub epoch: u64,
    /// Random number of that epoch's primary: two that wrote with one epoch number cannot be taken for each other.
    pub term: u64,
    /// Name of that primary.
    pub primary: String,
    /// How many data entries the history has up to here. Never repeats, also over generations.
    pub seq: u64,
    /// Digest of the last data entry.
    pub chain: Chain,
    /// Offset of the last data entry in the log of this generation; `None` if none was applied from it.
    pub offset: Option<u64>,
}

/// What clients get as `Standfast-Offset`: `<generation>-<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// See [`Position::generation`].
    pub generation: u64,
    /// See [`Position::seq`].
    pub seq: u64,
}

impl Position {
    /// The token of this position.
    #[must_use]
    pub fn token(&self) -> Token {
        Token { generation: self.generation, seq: self.seq }
    }
}

impl Token {
    /// Whether a replica at `at` has everything that the owner of this token has seen. Sequence numbers go on over
    /// generations, so an older generation's token needs no translation; one of a newer generation has to be waited for.
    #[must_use]
    pub fn reached(self, at: Token) -> bool {
        at.generation >= self.generation && at.seq >= self.seq
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.seq)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let parts = text.split_once('-').and_then(|(g, s)| Some((number(g)?, number(s)?)));
        let (generation, seq) = parts.ok_or_else(|| format!("{text:?} is no offset; it looks like 1-42"))?;
        Ok(Self { generation, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_made_up_ones_are_refused() {
        let token = Token { generation: 3, seq: 42 };
        assert_eq!(token.to_string().parse(), Ok(token));
        for bad in ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "1-99999999999999999999999", "a-b"] {
            assert!(bad.parse::<Token>().is_err(), "{bad:?}");
        }
    }
}
