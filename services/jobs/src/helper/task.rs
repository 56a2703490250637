//! What the node and a helper in the role `work` say to each other, over the socket that is the helper's standard input:
//! a [`Task`], then its [`Reply`], then the next task. Each is a length of four bytes and JSON. The end of the socket is
//! the end of the node, and of the helper.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{config, kinds::thumbnail};

/// Longest message: a payload of the largest size, or a result, each with what is around it.
pub const FRAME_MAX: u32 = 16 << 20;

/// One piece of work.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// What is to be done.
    pub work: Work,
    /// Directories whose files may be read, without links in them.
    pub roots: Vec<PathBuf>,
    /// Seconds of processor time that it may use.
    pub cpu_s: u64,
    /// Bytes of address space that the whole process may have.
    pub memory_bytes: u64,
    /// Bytes of JSON that the result may have.
    pub result_bytes_max: usize,
}

/// The kinds of work that cannot be interrupted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// SHA-256 of a file.
    Digest {
        /// Where it is.
        path: String,
    },
    /// A small version of an image.
    Thumbnail {
        /// What the job asks for.
        payload: thumbnail::Payload,
        /// What the image may be.
        limits: config::Thumbnail,
    },
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The result.
    Done(Box<RawValue>),
    /// It may work next time.
    Failed(String),
    /// It never will.
    Refused(String),
}

/// A message as it goes over the socket.
///
/// # Errors
/// When it is too long.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= FRAME_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message to or from a helper is too long"))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// The next message of the other side.
///
/// # Errors
/// At the end of the socket, and when it is no such message.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut json = vec![0; checked(length)?];
    from.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// Sends a message.
///
/// # Errors
/// When it is too long, or the other side has gone.
pub fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// The length of a message, from its first four bytes.
///
/// # Errors
/// When it is longer than any message.
pub fn checked(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(length);
    if length > FRAME_MAX {
        return Err(io::Error::other("a message to or from a helper is too long"));
    }
    usize::try_from(length).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_what_is_cut_or_too_long_is_an_error() {
        let mut wire = Vec::new();
        write(&mut wire, &Reply::Refused("no".to_owned())).unwrap();
        let Reply::Refused(why) = read(&mut wire.as_slice()).unwrap() else { panic!() };
        assert_eq!(why, "no");
        assert!(read::<Reply>(&mut &wire[..wire.len() - 1]).is_err());
        assert!(read::<Reply>(&mut [0xff_u8; 8].as_slice()).is_err());
        assert!(read::<Reply>(&mut [].as_slice()).is_err());
        assert!(encode(&"x".repeat(FRAME_MAX as usize)).is_err());
    }
}
