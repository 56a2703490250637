//! What the node and a keeper say to each other, over the socket that is the keeper's standard input: first a [`Spec`],
//! then [`Order`]s; the other way lines of [`Told`]. The end of the socket is the end of the node.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::Limits;

/// Variable that every process of a job has, unless it takes pains to lose it: `job/token`.
pub const MARK: &str = "STANDFAST_JOB";
/// Longest specification: the input of a job, escaped, and a long environment.
const SPEC_MAX: u32 = 64 << 20;

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// What it reads.
    pub input: String,
    /// What it may take.
    pub limits: Limits,
}

impl Spec {
    /// As it goes over the socket.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= SPEC_MAX);
        let length = length.ok_or_else(|| io::Error::other("the input is too long"))?;
        Ok([&length.to_be_bytes()[..], &json].concat())
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        let mut json = Vec::new();
        from.take(length.min(SPEC_MAX).into()).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

/// What the node wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGTERM to everything; SIGKILL to what is left after so many milliseconds.
    Term(u32),
    /// SIGKILL to everything.
    Kill,
}

impl Order {
    /// As it goes over the socket.
    pub fn encode(self) -> [u8; 5] {
        let (letter, grace) = match self {
            Self::Term(grace) => (b'T', grace),
            Self::Kill => (b'K', 0),
        };
        let [a, b, c, d] = grace.to_be_bytes();
        [letter, a, b, c, d]
    }

    /// The next one. The end of the socket is an order to kill: whoever could give another is gone.
    pub(super) fn read(from: &mut impl Read) -> (Self, bool) {
        let mut bytes = [0; 5];
        match from.read_exact(&mut bytes) {
            Ok(()) if bytes[0] == b'T' => {
                (Self::Term(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])), true)
            }
            Ok(()) => (Self::Kill, true),
            Err(_) => (Self::Kill, false),
        }
    }
}

/// What a keeper tells. When it has ended every process, it closes the socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It could not be started.
    NotStarted(String),
    /// The program has ended, as `wait(2)` says it.
    Ended(i32),
    /// There were more processes than allowed; all are being ended.
    TooMany,
}

impl Told {
    pub(super) fn write(&self, to: &mut impl Write) {
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            let _ = to.write_all(&line); // the node may be gone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_the_end_of_the_node_is_an_order_to_kill() {
        let mut wire = Vec::new();
        wire.extend(Order::Term(70_000).encode());
        wire.extend(Order::Kill.encode());
        wire.push(b'T');
        let mut wire = wire.as_slice();
        assert_eq!(Order::read(&mut wire), (Order::Term(70_000), true));
        assert_eq!(Order::read(&mut wire), (Order::Kill, true));
        assert_eq!(Order::read(&mut wire), (Order::Kill, false), "cut off");
        let mut line = Vec::new();
        Told::Ended(256).write(&mut line);
        assert_eq!(serde_json::from_slice::<Told>(&line).unwrap(), Told::Ended(256));
        assert!(Spec::read(&mut [0, 0, 0, 2, b'{'].as_slice()).is_err());
    }
}
