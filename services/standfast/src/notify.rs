//! Tells a service manager how the node is (`sd_notify(3)`, systemd's `Type=notify`): ready, stopping, and alive.
//! Without a manager that asks for it nothing is sent.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A watchdog that wants to hear from us more often than this is told this often.
const ALIVE_MIN: Duration = Duration::from_millis(50);
/// Without a watchdog there is nothing to tell; the clock ticks all the same, so that one way serves both.
const NEVER: Duration = Duration::from_secs(86_400);

/// The service manager.
#[derive(Debug)]
pub struct Manager {
    way: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that started this process, if it gave it `NOTIFY_SOCKET`.
    pub fn of_this_process() -> Self {
        let said = |name: &str| std::env::var(name).ok();
        let is_ours = said("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let interval = said("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|_| is_ours);
        Self::at(std::env::var_os("NOTIFY_SOCKET"), interval)
    }

    fn at(socket: Option<OsString>, watchdog_us: Option<u64>) -> Self {
        let way = socket.and_then(|name| Some((UnixDatagram::unbound().ok()?, address(name.as_bytes())?)));
        // A manager that does not read must not hold the node up.
        let way = way.filter(|(socket, _)| socket.set_nonblocking(true).is_ok());
        let watchdog = watchdog_us.filter(|us| *us > 0 && way.is_some()).map(Duration::from_micros);
        Self { way, watchdog }
    }

    /// It serves. `status` is what `systemctl status` shows.
    pub fn ready(&self, status: &str) {
        let status = status.replace('\n', " ");
        self.tell(&format!("READY=1\nSTATUS={status}\nMAINPID={}", std::process::id()));
    }

    /// It drains, and needs at most so long.
    pub fn stopping(&self, at_most: Duration) {
        let us = at_most.as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={us}"));
    }

    /// It lives.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    /// How often it is to be said that it lives: twice in the time after which it counts as hung.
    pub fn alive_every(&self) -> Duration {
        self.watchdog.map_or(NEVER, |watchdog| (watchdog / 2).max(ALIVE_MIN))
    }

    fn tell(&self, text: &str) {
        let Some((socket, address)) = &self.way else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// A path, or a name in the abstract name space, which begins with `@`.
fn address(name: &[u8]) -> Option<SocketAddr> {
    match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 512];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn a_manager_is_told_by_path_or_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("standfast-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        for (socket, said) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            let manager = Manager::at(Some(said), Some(2_000_000));
            assert_eq!(manager.alive_every(), Duration::from_secs(1));
            manager.ready("serves at\nx");
            let text = heard(&socket);
            assert!(text.starts_with("READY=1\nSTATUS=serves at x\nMAINPID="), "{text}");
            manager.alive();
            assert_eq!(heard(&socket), "WATCHDOG=1");
            manager.stopping(Duration::from_secs(3));
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
        }
    }

    #[test]
    fn nobody_there_is_no_matter() {
        for socket in [None, Some("/nowhere/notify".into()), Some("relative".into()), Some("".into())] {
            let manager = Manager::at(socket, Some(0));
            manager.ready("x");
            manager.alive();
            assert_eq!(manager.alive_every(), NEVER);
        }
    }
}
