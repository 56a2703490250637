//! The bytes of a segment file: a header, then records, then zeros.
//!
//! ```text
//! header  magic 8 | version u32 | kind u32 | base u64 | crc32 u32 | zero u32          32 bytes
//! record  length u32 (never 0) | crc32 of length and payload u32 | payload
//! ```
//! Files are extended with zeros ahead of the writes, so a length of zero is the end. A crash can leave a record
//! half written: it fails its checksum, and that is the end too. Only the last segment can end so.

/// Bytes of [`Header`].
pub const HEADER: u64 = 32;
/// Bytes before each payload.
pub const RECORD_HEADER: usize = 8;
/// The format this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"STANDBUS";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A queue's puts and acks.
    Queue = 1,
    /// A log's entries.
    Log = 2,
}

/// The start of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub kind: Kind,
    /// The number of its first entry (log), or the next number not used before it (queue).
    pub base: u64,
}

/// Why a header was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not all of it is there, or it is not ours.
    Damaged,
    /// Written by a newer program.
    Newer(u32),
}

impl Header {
    /// As bytes.
    pub fn encode(self) -> [u8; HEADER as usize] {
        let mut out = [0; HEADER as usize];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.base.to_le_bytes());
        let crc = crc32fast::hash(&out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// From bytes. The version is looked at before the checksum, whose place a newer format may have moved.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..HEADER as usize).ok_or(BadHeader::Damaged)?;
        if &bytes[..8] != MAGIC {
            return Err(BadHeader::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        let kind = match u32_at(bytes, 12) {
            1 => Kind::Queue,
            2 => Kind::Log,
            _ => return Err(BadHeader::Damaged),
        };
        if crc32fast::hash(&bytes[..24]) != u32_at(bytes, 24) {
            return Err(BadHeader::Damaged);
        }
        Ok(Self { kind, base: u64::from_le_bytes(bytes[16..24].try_into().expect("8 bytes")) })
    }
}

/// Appends one record to `out`, its payload written by `write`.
pub fn append_record(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER]);
    write(out);
    let len = u32::try_from(out.len() - start - RECORD_HEADER).expect("limits keep records under 4 GiB");
    let crc = checksum(len, &out[start + RECORD_HEADER..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// What is at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A whole record.
    Record(&'a [u8]),
    /// Zeros, or nothing: the end.
    End,
    /// The bytes stop within the record, which has this many in all; or they are no record at all and the number
    /// means nothing. Whoever has more bytes reads them and looks again.
    Short(usize),
    /// A record that fails its checksum.
    Damaged,
}

/// Looks at the first record in `bytes`.
pub fn next_record(bytes: &[u8]) -> Next<'_> {
    if bytes.len() < RECORD_HEADER {
        // Right when these are the last bytes of a file; whoever reads in chunks looks again with more.
        return if bytes.iter().all(|b| *b == 0) { Next::End } else { Next::Short(RECORD_HEADER) };
    }
    let len = u32_at(bytes, 0);
    if len == 0 {
        return Next::End;
    }
    let whole = RECORD_HEADER + len as usize;
    let Some(payload) = bytes.get(RECORD_HEADER..whole) else { return Next::Short(whole) };
    if checksum(len, payload) == u32_at(bytes, 4) { Next::Record(payload) } else { Next::Damaged }
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(mut bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Next::Record(payload) = next_record(bytes) {
            found.push(payload.to_vec());
            at += RECORD_HEADER + payload.len();
            bytes = &bytes[RECORD_HEADER + payload.len()..];
        }
        (found, at)
    }

    proptest! {
        /// A crash leaves a prefix of the last write, then zeros: every whole record before it is read, nothing else.
        #[test]
        fn a_torn_tail_costs_only_what_was_torn(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            cut in 0usize..2000,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for payload in &payloads {
                append_record(&mut bytes, |out| out.extend_from_slice(payload));
                ends.push(bytes.len());
            }
            let cut = cut.min(bytes.len());
            let whole = ends.iter().filter(|end| **end <= cut).count();
            // Bytes after the cut become zeros. A record whose lost tail was zeros anyway is whole.
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            let whole = whole + usize::from(torn == bytes && whole < payloads.len()) * (payloads.len() - whole);
            torn.extend_from_slice(&[0; 64]);
            let (found, _) = read_all(&torn);
            prop_assert!(found.len() >= whole);
            prop_assert_eq!(&found[..], &payloads[..found.len()]);
        }

        #[test]
        fn a_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..50), bit in 0usize..10_000) {
            let mut bytes = Vec::new();
            append_record(&mut bytes, |out| out.extend_from_slice(&payload));
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(next_record(&bytes), Next::Record(p) if p == payload));
        }
    }

    #[test]
    fn headers_read_back_and_newer_ones_are_told() {
        let header = Header { kind: Kind::Log, base: 42 };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        bytes[16] ^= 1;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Damaged));
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Newer(2)));
    }
}
