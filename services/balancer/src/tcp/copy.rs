//! Copies bytes both ways between two connections: with back-pressure, half close and an idle limit.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Taken while there is something to copy and given back before the next wait, so that an idle connection holds none.
const BUFFER: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Until both sides have closed, or nothing moved for `idle`. A side that closes its half is told so to the other,
/// which may go on sending (RFC 9293 section 3.6).
pub(super) async fn both_ways(
    client: &mut TcpStream,
    member: &mut TcpStream,
    idle: Duration,
) -> io::Result<()> {
    let moved = Cell::new(clock::now());
    let (from_client, to_client) = client.split();
    let (from_member, to_member) = member.split();
    let copying = async {
        tokio::try_join!(one_way(from_client, to_member, &moved), one_way(from_member, to_client, &moved))
    };
    tokio::select! {
        copied = copying => copied.map(drop),
        () = stalled(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads only after what was read before is written: who does not take is not read for.
async fn one_way(from: ReadHalf<'_>, mut to: WriteHalf<'_>, moved: &Cell<Instant>) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = SPARE.take().unwrap_or_else(|| vec![0; BUFFER].into());
        let copied = match from.try_read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => to.write_all(&buffer[..length]).await.map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        };
        SPARE.set(Some(buffer));
        if !copied? {
            return to.shutdown().await;
        }
        moved.set(clock::now());
    }
}

/// Sleeps until the idle limit could be over, not at each byte.
async fn stalled(moved: &Cell<Instant>, idle: Duration) {
    while moved.get() + idle > clock::now() {
        tokio::time::sleep_until((moved.get() + idle).into()).await;
    }
}
