//! Entries of the database's log, as bytes.
//!
//! Binary and little-endian: `version u8, kind u8`, then the fields in the order of the types below. Strings and
//! byte strings have a `u32` length before them. Reading never copies the operations: they are slices of the body.
//! Format 2 gave [`Data`] its time and more kinds of [`Op`], format 3 those that stand alone in their entry. Older ones are
//! still read, and each entry is written in the oldest format that can say it.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

pub use crate::op::{Op, Restore, Sequences, Value};
use crate::position::Chain;

const VERSION: u8 = 3;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// First in the log of every generation but the first: where its history begins.
    Genesis {
        /// The generation, as in the log's name.
        generation: u64,
        /// Sequence number of the history that it continues.
        seq: u64,
        /// Digest of that history.
        chain: Chain,
    },
    /// From here on, this one is the primary. The first entry with a number wins.
    Epoch {
        /// Grows with each primary.
        epoch: u64,
        /// See [`crate::position::Position::term`].
        term: u64,
        /// Instance name.
        primary: String,
    },
    /// A group of committed transactions.
    Data(Data),
    /// Nothing; the primary reads it back to know that it still is one.
    Barrier {
        /// Of the primary.
        epoch: u64,
        /// Of the primary.
        term: u64,
        /// Which of its barriers.
        id: u64,
    },
}

/// A group of committed transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Of the primary that wrote it.
    pub epoch: u64,
    /// Of the primary that wrote it.
    pub term: u64,
    /// Its place in the history, from 1.
    pub seq: u64,
    /// Digest of the data entry before it.
    pub prev: Chain,
    /// Wall-clock milliseconds of the primary when it wrote it; 0 in entries of format 1.
    pub at: u64,
    /// What it does, in order.
    pub ops: Vec<Op>,
}

/// The body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer program.
    #[error("the log has entries of format {0}, newer than {VERSION}: run the newer version that wrote it")]
    Newer(u8),
    /// Not one of ours.
    #[error("the log has an entry that no version of this program wrote")]
    Malformed,
}

/// The digest of a data entry's body.
#[must_use]
pub fn chain_of(body: &[u8]) -> Chain {
    let digest = Sha256::digest(body);
    let mut chain = Chain::default();
    chain.0.copy_from_slice(&digest[..16]);
    chain
}

impl Entry {
    /// The body of the entry's message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size());
        out.put_u8(self.format());
        match self {
            Self::Genesis { generation, seq, chain } => {
                out.put_u8(0);
                out.put_u64_le(*generation);
                out.put_u64_le(*seq);
                out.put_slice(&chain.0);
            }
            Self::Epoch { epoch, term, primary } => {
                out.put_u8(1);
                out.put_u64_le(*epoch);
                out.put_u64_le(*term);
                put_bytes(&mut out, primary.as_bytes());
            }
            Self::Data(data) => {
                out.put_u8(2);
                data.encode(&mut out);
            }
            Self::Barrier { epoch, term, id } => {
                out.put_u8(3);
                out.put_u64_le(*epoch);
                out.put_u64_le(*term);
                out.put_u64_le(*id);
            }
        }
        out.freeze()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// It is not one that [`Entry::encode`] of this version or an older one wrote.
    pub fn decode(body: &Bytes) -> Result<Self, Unreadable> {
        let mut from = Reader::new(body.clone());
        let version = match from.u8()? {
            0 => return Err(Unreadable::Malformed),
            known @ 1..=VERSION => known,
            newer => return Err(Unreadable::Newer(newer)),
        };
        let entry = match from.u8()? {
            0 => Self::Genesis { generation: from.u64()?, seq: from.u64()?, chain: from.chain()? },
            1 => Self::Epoch { epoch: from.u64()?, term: from.u64()?, primary: from.string()? },
            2 => Self::Data(Data::decode(&mut from, version)?),
            3 => Self::Barrier { epoch: from.u64()?, term: from.u64()?, id: from.u64()? },
            _ => return Err(Unreadable::Malformed),
        };
        if from.is_empty() { Ok(entry) } else { Err(Unreadable::Malformed) }
    }

    fn format(&self) -> u8 {
        let alone = matches!(self, Self::Data(data) if data.ops.iter().any(Op::stands_alone));
        if alone { VERSION } else { 2 }
    }

    fn size(&self) -> usize {
        match self {
            Self::Data(data) => 64 + data.ops.iter().map(Op::len).sum::<usize>(),
            _ => 128,
        }
    }
}

impl Data {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.term);
        out.put_u64_le(self.seq);
        out.put_slice(&self.prev.0);
        out.put_u64_le(self.at);
        out.put_u32_le(
            u32::try_from(self.ops.len()).expect("a group is far smaller than 4 billion operations"),
        );
        self.ops.iter().for_each(|op| op.encode(out));
    }

    fn decode(from: &mut Reader, version: u8) -> Result<Self, Unreadable> {
        let (epoch, term, seq, prev) = (from.u64()?, from.u64()?, from.u64()?, from.chain()?);
        let at = if version >= 2 { from.u64()? } else { 0 };
        let count = from.u32()?;
        // Each operation takes at least five bytes: a made-up count cannot reserve memory.
        let mut ops = Vec::with_capacity((count as usize).min(from.body.len() / 5));
        for _ in 0..count {
            ops.push(Op::decode(from)?);
        }
        if ops.len() > 1 && ops.iter().any(Op::stands_alone) {
            return Err(Unreadable::Malformed);
        }
        Ok(Self { epoch, term, seq, prev, at, ops })
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("an operation is limited to far less than 4 GiB"));
    out.put_slice(bytes);
}

/// Takes fields off the front of a body.
pub(crate) struct Reader {
    body: Bytes,
}

impl Reader {
    pub(crate) fn new(body: Bytes) -> Self {
        Self { body }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    fn take(&mut self, n: usize) -> Result<Bytes, Unreadable> {
        if n > self.body.len() { Err(Unreadable::Malformed) } else { Ok(self.body.split_to(n)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        Ok(self.take(N)?[..].try_into().expect("`take` returns as many as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unreadable> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_le_bytes)
    }

    fn chain(&mut self) -> Result<Chain, Unreadable> {
        self.array().map(Chain)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, Unreadable> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    fn string(&mut self) -> Result<String, Unreadable> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Unreadable::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain() -> impl Strategy<Value = Chain> {
        any::<[u8; 16]>().prop_map(Chain)
    }

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(Value::Real),
            bytes().prop_map(Value::Text),
            bytes().prop_map(Value::Blob),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        let counter = || (value(), prop::collection::vec(value(), 0..3));
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64).prop_map(|b| Op::Changeset(b.into())),
            ".{0,32}".prop_map(Op::Ddl),
            (any::<bool>(), prop::collection::vec(counter(), 0..4))
                .prop_map(|(all, counters)| Op::Sequences(Sequences { all, counters })),
        ]
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let restore = |(digest, bytes)| vec![Op::Restore(Restore { digest, bytes })];
        prop_oneof![
            6 => prop::collection::vec(op(), 0..6),
            1 => Just(vec![Op::Compare]),
            1 => (any::<[u8; 32]>(), any::<u64>()).prop_map(restore),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let n = any::<u64>;
        prop_oneof![
            (n(), n(), chain()).prop_map(|(generation, seq, chain)| Entry::Genesis {
                generation,
                seq,
                chain
            }),
            (n(), n(), ".{0,20}").prop_map(|(epoch, term, primary)| Entry::Epoch { epoch, term, primary }),
            (n(), n(), n()).prop_map(|(epoch, term, id)| Entry::Barrier { epoch, term, id }),
            (n(), n(), n(), chain(), n(), ops()).prop_map(|(epoch, term, seq, prev, at, ops)| Entry::Data(
                Data { epoch, term, seq, prev, at, ops }
            )),
        ]
    }

    proptest! {
        #[test]
        fn every_entry_reads_back_and_no_part_of_it_does(entry in entry(), cut in any::<prop::sample::Index>()) {
            let body = entry.encode();
            prop_assert_eq!(Entry::decode(&body), Ok(entry));
            let part = body.slice(..cut.index(body.len()));
            prop_assert!(Entry::decode(&part).is_err());
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode(&bytes.into());
        }
    }

    /// A version that knows no restore must not take its entry for damage, and every other entry it must still read.
    #[test]
    fn only_entries_that_older_versions_cannot_read_have_the_new_format() {
        let data = |ops| Entry::Data(Data { epoch: 1, term: 1, seq: 1, prev: Chain::default(), at: 1, ops });
        assert_eq!(data(vec![Op::Ddl("x".into())]).encode()[0], 2);
        assert_eq!(data(vec![Op::Compare]).encode()[0], 3);
        assert_eq!(Entry::Barrier { epoch: 1, term: 1, id: 1 }.encode()[0], 2);
        let mixed = data(vec![Op::Compare, Op::Ddl("x".into())]).encode();
        assert_eq!(Entry::decode(&mixed), Err(Unreadable::Malformed), "a restore or comparison stands alone");
    }

    #[test]
    fn the_name_of_a_staged_file_reads_back_and_made_up_ones_are_refused() {
        let restore = Restore { digest: [0xa7; 32], bytes: 4096 };
        assert_eq!(restore.to_string().parse(), Ok(restore));
        let hex = "a7".repeat(32);
        for bad in
            ["", "-", "a7-1", &hex, &format!("{hex}-"), &format!("{hex}--1"), &format!("{}é-1", &hex[..62])]
        {
            assert!(bad.parse::<Restore>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        assert_eq!(Entry::decode(&Bytes::from_static(&[4, 0])), Err(Unreadable::Newer(4)));
        assert_eq!(Entry::decode(&Bytes::from_static(&[0, 0])), Err(Unreadable::Malformed));
    }

    /// A stack that is upgraded reads on in the log that its older version wrote.
    #[test]
    fn entries_of_format_1_are_still_read() {
        let mut old = vec![1, 2];
        [3_u64, 4, 5].iter().for_each(|n| old.extend(n.to_le_bytes()));
        old.extend([9; 16]);
        old.extend(2_u32.to_le_bytes());
        old.extend([0, 2, 0, 0, 0, 7, 8]);
        old.extend([1, 3, 0, 0, 0, b'a', b'b', b'c']);
        let ops = vec![Op::Changeset(Bytes::from_static(&[7, 8])), Op::Ddl("abc".into())];
        let data = Data { epoch: 3, term: 4, seq: 5, prev: Chain([9; 16]), at: 0, ops };
        assert_eq!(Entry::decode(&old.into()), Ok(Entry::Data(data)));
        let mut barrier = vec![1, 3];
        [1_u64, 2, 3].iter().for_each(|n| barrier.extend(n.to_le_bytes()));
        assert_eq!(Entry::decode(&barrier.into()), Ok(Entry::Barrier { epoch: 1, term: 2, id: 3 }));
    }
}
