//! The bounds of one HTTP/2 connection, beside those that it shares with HTTP/1.

use serde::{Deserialize, Serialize};

/// Bounds of one HTTP/2 connection from a client. The fields' size is bounded as in HTTP/1 (`head`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// Streams open at once (SETTINGS_MAX_CONCURRENT_STREAMS); one more is refused and may be sent again.
    /// 1 to 10,000.
    pub concurrent_streams_max: u32,
    /// Bytes of one request's body that may be under way or unread, 65,535 to 16 MiB.
    pub stream_window_bytes: u32,
    /// The same for all streams of a connection together: its memory for request bodies; 65,535 to 1 GiB.
    pub connection_window_bytes: u32,
    /// Bytes of one response that may wait to be written, 16 KiB to 16 MiB.
    pub send_buffer_bytes_max: usize,
    /// Frames beside content (PING, SETTINGS, WINDOW_UPDATE, RST_STREAM, empty DATA …) that may come at once; see
    /// [`frames_per_second`](Self::frames_per_second). Beyond: GOAWAY with ENHANCE_YOUR_CALM.
    /// 100 to 1,000,000.
    pub frames_burst_max: u32,
    /// So many of them are forgiven per second, and one for each 64 bytes that the client was sent. RST_STREAM counts
    /// eightfold: a request that is withdrawn has cost us its work (CVE-2023-44487). 10 to 1,000,000.
    pub frames_per_second: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            concurrent_streams_max: 128,
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 1 << 20,
            send_buffer_bytes_max: 256 << 10,
            frames_burst_max: 4_000,
            frames_per_second: 400,
        }
    }
}
