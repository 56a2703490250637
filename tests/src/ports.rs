//! Ports that stay the same over restarts of a node.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that the kernel takes for outgoing connections, so that none of those sits on it while the node
/// that owns it is down.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that nobody listens on.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let spread = u16::try_from(process::id() % 241).unwrap_or_default() * 49; // test programs run side by side
    for _ in 0..RANGE.len() {
        let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(spread);
        let port = RANGE.start + n % (RANGE.end - RANGE.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port of 127.0.0.1 in {RANGE:?}");
}
