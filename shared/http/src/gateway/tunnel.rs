//! What follows a 101: bytes both ways, until both sides have ended theirs.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::ForwardFailure;
use super::buffers::{Buffer, RECEIVE};
use super::inbox::Inbox;
use super::io::Io;
use super::watch::{Phase, Watch};

/// Carries bytes between `client` and `upstream`. Each side may end its direction and go on receiving (half close). An
/// error on either side is the end of both: there is nobody left to carry for.
pub(crate) async fn run(
    client: &Io,
    from_client: Inbox,
    upstream: &Io,
    from_upstream: &[u8],
    watch: &Watch<'_>,
) -> Result<(), ForwardFailure> {
    let there = async {
        upstream.write_all(from_client.bytes()).await?;
        drop(from_client);
        carry(client, upstream, watch).await
    };
    let back = async {
        client.write_all(from_upstream).await?;
        carry(upstream, client, watch).await
    };
    // A reset is how many end a WebSocket; nothing of HTTP is left that could be answered.
    let _ = both(there, back).await;
    Ok(())
}

async fn carry(from: &Io, to: &Io, watch: &Watch<'_>) -> io::Result<()> {
    loop {
        let received = from.receive(Buffer::receive, RECEIVE).await?;
        if received.len == 0 {
            return to.shutdown().await;
        }
        watch.waits_for(Phase::Tunnel);
        to.write_all(received.bytes()).await?;
        watch.waits_for(Phase::Tunnel);
    }
}

/// Both to their end, or the first error.
async fn both(
    one: impl Future<Output = io::Result<()>>,
    other: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut done = [false; 2];
    poll_fn(|cx| {
        if !done[0]
            && let Poll::Ready(ended) = one.as_mut().poll(cx)
        {
            ended?;
            done[0] = true;
        }
        if !done[1]
            && let Poll::Ready(ended) = other.as_mut().poll(cx)
        {
            ended?;
            done[1] = true;
        }
        if done == [true; 2] { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}
