//! Operations of a data entry, and their bytes in the log: `kind u8, length u32`, then so many bytes.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::entry::{Reader, Unreadable};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Rows that changed. Kind 0.
    Changeset(Bytes),
    /// A schema change, as its statement. Kind 1.
    Ddl(String),
    /// Counters of AUTOINCREMENT as the primary has them. Kind 2, since format 2.
    Sequences(Sequences),
    /// Nothing: each replica says what its content is as of this entry, so that all are compared at one position. Alone
    /// in its entry. Kind 3, since format 3.
    Compare,
    /// The whole content becomes that of a file which the replicas have staged. Alone in its entry. Kind 5, since format 3.
    Restore(Restore),
}

/// Which file a restore installs. Whoever does not have it takes a snapshot of a replica that has installed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// How many bytes it has.
    pub bytes: u64,
}

/// Rows of `sqlite_sequence`, which has no key and is therefore in no changeset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// These are all rows: others are deleted. Otherwise only the named ones changed.
    pub all: bool,
    /// Each name with its rows in their order; no rows: the name is gone. SQLite uses the first row of a name, and
    /// a client may have written any value into both columns.
    pub counters: Vec<(Value, Vec<Value>)>,
}

/// A value as SQLite stores it, compared to the bit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL, as its bits.
    Real(u64),
    /// TEXT, which need not be UTF-8.
    Text(Bytes),
    /// BLOB
    Blob(Bytes),
}

impl Op {
    /// Bytes that it takes in an entry.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "an empty operation is never made")]
    pub fn len(&self) -> usize {
        5 + match self {
            Self::Changeset(bytes) => bytes.len(),
            Self::Ddl(sql) => sql.len(),
            Self::Sequences(sequences) => sequences.len(),
            Self::Compare => 0,
            Self::Restore(_) => RESTORE_LEN,
        }
    }

    /// Whether it is the only operation of its entry, as it is not about rows that others of a group change.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        matches!(self, Self::Compare | Self::Restore(_))
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let length = u32::try_from(self.len() - 5).expect("an operation is limited to far less than 4 GiB");
        match self {
            Self::Changeset(bytes) => {
                out.put_u8(0);
                out.put_u32_le(length);
                out.put_slice(bytes);
            }
            Self::Ddl(sql) => {
                out.put_u8(1);
                out.put_u32_le(length);
                out.put_slice(sql.as_bytes());
            }
            Self::Sequences(sequences) => {
                out.put_u8(2);
                out.put_u32_le(length);
                sequences.encode(out);
            }
            Self::Compare => {
                out.put_u8(3);
                out.put_u32_le(length);
            }
            Self::Restore(Restore { digest, bytes }) => {
                out.put_u8(5);
                out.put_u32_le(length);
                out.put_slice(digest);
                out.put_u64_le(*bytes);
            }
        }
    }

    pub(crate) fn decode(from: &mut Reader) -> Result<Self, Unreadable> {
        let kind = from.u8()?;
        let bytes = from.bytes()?;
        Ok(match kind {
            0 => Self::Changeset(bytes),
            1 => Self::Ddl(String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable::Malformed)?),
            2 => Self::Sequences(Sequences::decode(bytes)?),
            3 if bytes.is_empty() => Self::Compare,
            5 => Self::Restore(Restore::decode(&bytes)?),
            _ => return Err(Unreadable::Malformed),
        })
    }
}

/// Bytes of a [`Restore`] in the log.
const RESTORE_LEN: usize = 32 + 8;

impl Restore {
    fn decode(from: &[u8]) -> Result<Self, Unreadable> {
        let (digest, bytes) = from.split_first_chunk().ok_or(Unreadable::Malformed)?;
        let bytes = bytes.try_into().map_err(|_| Unreadable::Malformed)?;
        Ok(Self { digest: *digest, bytes: u64::from_le_bytes(bytes) })
    }
}

impl fmt::Display for Restore {
    /// The digest in hexadecimal, and the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{}", self.bytes)
    }
}

impl FromStr for Restore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a staged file is named by 64 hexadecimal digits, a dash and its length".to_owned();
        let (hex, bytes) = text.split_once('-').filter(|(hex, _)| hex.len() == 64).ok_or_else(wrong)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self { digest, bytes: bytes.parse().map_err(|_| wrong())? })
    }
}

impl Sequences {
    fn len(&self) -> usize {
        let values = |values: &[Value]| values.iter().map(Value::len).sum::<usize>();
        5 + self.counters.iter().map(|(name, rows)| 4 + name.len() + values(rows)).sum::<usize>()
    }

    fn encode(&self, out: &mut BytesMut) {
        let count = |n: usize| u32::try_from(n).expect("an entry holds far fewer rows");
        out.put_u8(u8::from(self.all));
        out.put_u32_le(count(self.counters.len()));
        for (name, rows) in &self.counters {
            name.encode(out);
            out.put_u32_le(count(rows.len()));
            rows.iter().for_each(|row| row.encode(out));
        }
    }

    fn decode(bytes: Bytes) -> Result<Self, Unreadable> {
        let mut from = Reader::new(bytes);
        let all = match from.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Unreadable::Malformed),
        };
        // Nothing is reserved for a count: it may be made up.
        let mut counters = Vec::new();
        for _ in 0..from.u32()? {
            let name = Value::decode(&mut from)?;
            let rows = (0..from.u32()?).map(|_| Value::decode(&mut from)).collect::<Result<_, _>>()?;
            counters.push((name, rows));
        }
        if from.is_empty() { Ok(Self { all, counters }) } else { Err(Unreadable::Malformed) }
    }
}

impl Value {
    fn len(&self) -> usize {
        1 + match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(bytes) | Self::Blob(bytes) => 4 + bytes.len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        let length = |bytes: &Bytes| u32::try_from(bytes.len()).expect("SQLite's values are below 2 GiB");
        match self {
            Self::Null => out.put_u8(0),
            Self::Integer(number) => {
                out.put_u8(1);
                out.put_i64_le(*number);
            }
            Self::Real(bits) => {
                out.put_u8(2);
                out.put_u64_le(*bits);
            }
            Self::Text(bytes) => {
                out.put_u8(3);
                out.put_u32_le(length(bytes));
                out.put_slice(bytes);
            }
            Self::Blob(bytes) => {
                out.put_u8(4);
                out.put_u32_le(length(bytes));
                out.put_slice(bytes);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, Unreadable> {
        Ok(match from.u8()? {
            0 => Self::Null,
            1 => Self::Integer(from.u64()?.cast_signed()),
            2 => Self::Real(from.u64()?),
            3 => Self::Text(from.bytes()?),
            4 => Self::Blob(from.bytes()?),
            _ => return Err(Unreadable::Malformed),
        })
    }
}
