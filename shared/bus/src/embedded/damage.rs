//! Damaged segments: what can still be read of them, and where they are kept for a person to look at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::segment::{self, Next, RECORD_HEADER};

/// Damaged files that are kept in a directory; the oldest go first.
const ASIDE_MAX: usize = 2;

/// Bytes that are checksummed at most in search of a record.
const SEARCH_MAX: usize = 64 << 20;

/// The length of the damaged record at the start, if a whole record follows where that length says.
pub fn skip(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(bytes.first_chunk::<4>().copied()?);
    let next = RECORD_HEADER.checked_add(usize::try_from(length).ok()?)?;
    let follows = length > 0 && matches!(segment::next_record(bytes.get(next..)?), Next::Record(_));
    follows.then_some(next)
}

/// Where some record begins after the start, if any does. A write that a crash tore is followed by none; so this tells
/// damage from it. It may be part of a message, and must not be taken for a record of its own.
pub fn record_after(bytes: &[u8]) -> Option<usize> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut left = SEARCH_MAX;
    for at in 1..used {
        let rest = &bytes[at..];
        let length = rest.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
        if length == 0 || length > used - at {
            continue;
        }
        if matches!(segment::next_record(rest), Next::Record(_)) {
            return Some(at);
        }
        left = left.checked_sub(length)?;
    }
    None
}

/// Moves a damaged file out of the way, and says so.
///
/// # Errors
/// The disk.
pub fn set_aside(path: &Path, at: u64, reason: &str) -> io::Result<()> {
    let kept = name(path);
    fs::rename(path, &kept)?;
    tell(path, &kept, at, reason);
    prune(path)
}

/// Keeps a copy of a file that is damaged in part, and says so.
///
/// # Errors
/// The disk.
pub fn keep_copy(path: &Path, at: u64, reason: &str) -> io::Result<()> {
    let kept = name(path);
    fs::copy(path, &kept)?;
    tell(path, &kept, at, reason);
    prune(path)
}

fn tell(path: &Path, kept: &Path, at: u64, reason: &str) {
    tracing::error!(file = %path.display(), kept = %kept.display(), at, reason,
        "a file of the bus is damaged: it is kept aside, and what cannot be read of it is done without");
}

fn name(path: &Path) -> PathBuf {
    path.with_extension("seg.damaged")
}

fn prune(path: &Path) -> io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "damaged") {
            kept.push((entry.metadata()?.modified()?, path));
        }
    }
    kept.sort();
    let most = kept.len().saturating_sub(ASIDE_MAX);
    kept.into_iter().take(most).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            segment::append_record(&mut bytes, |out| out.extend_from_slice(payload));
        }
        bytes
    }

    #[test]
    fn a_flipped_bit_costs_its_record_and_no_other() {
        let mut bytes = records(&[b"first", b"second"]);
        bytes[9] ^= 1;
        assert_eq!(skip(&bytes), Some(RECORD_HEADER + 5));
        assert_eq!(record_after(&bytes), Some(RECORD_HEADER + 5));
        bytes[0] = 200; // its length is broken: nobody knows where the next one begins
        assert_eq!(skip(&bytes), None);
        assert_eq!(record_after(&bytes), Some(RECORD_HEADER + 5), "but that there is one is known");
    }

    #[test]
    fn a_torn_write_is_no_damage() {
        for torn in [1, 7, 8, 10] {
            let mut bytes = records(&[b"torn record"]);
            bytes.truncate(torn);
            bytes.extend([0; 100]);
            assert_eq!((skip(&bytes), record_after(&bytes)), (None, None), "{torn}");
        }
        assert_eq!((skip(&[]), record_after(&[])), (None, None));
    }
}
