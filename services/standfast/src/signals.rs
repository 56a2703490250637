//! What the operating system asks of a node.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// A request of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM or SIGINT: drain and stop; the second time: stop now.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that a node heeds. Works as PID 1 too, where an unhandled SIGTERM would be ignored by the kernel.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    /// When the runtime cannot install a handler.
    pub fn take() -> Outcome<Self> {
        let take =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot handle signals: {error}")));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Only requests to stop.
    pub async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
