//! What a client makes us do beside serving it: frames are counted on the wire, before anybody has worked on them.
//!
//! Intuition: a bucket of credit. Each frame that is not content takes some out of it; time, and the bytes that the
//! client takes from us, put some back. A client that works with the connection, however fast, never runs dry: its
//! window updates, settings and cancelled requests are few beside the content that it gets. Floods of PING, SETTINGS,
//! PRIORITY, CONTINUATION or empty DATA, rapid resets (CVE-2023-44487), and windows opened byte by byte are nothing but
//! such frames.

use std::time::{Duration, Instant};

use super::Http2Limits;

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// Content of DATA frames shorter than this costs more to handle than to send.
const DATA_BYTES_MIN: u32 = 64;
/// So many bytes sent to the client buy one frame back.
const BYTES_PER_FRAME: u64 = 64;
const RESET_COST: u64 = 8;

const DATA: u8 = 0x0;
const RST_STREAM: u8 = 0x3;
const END_STREAM: u8 = 0x1;

/// Follows the frames of one connection (RFC 9113 section 4.1).
#[derive(Debug)]
pub(super) struct Meter {
    head: [u8; FRAME_HEAD_BYTES],
    head_len: usize,
    /// Bytes until the next frame's head: the preface at first, then payloads.
    skip: usize,
    credit: u64,
    credit_max: u64,
    per_second: u64,
    /// Up to then time has been credited.
    credited: Instant,
    /// Bytes sent that have not bought a frame yet.
    sent: u64,
    flooded: bool,
}

impl Meter {
    pub(super) fn new(limits: &Http2Limits, now: Instant) -> Self {
        let credit_max = u64::from(limits.frames_burst_max);
        Self {
            head: [0; FRAME_HEAD_BYTES],
            head_len: 0,
            skip: PREFACE_BYTES,
            credit: credit_max,
            credit_max,
            per_second: u64::from(limits.frames_per_second),
            credited: now,
            sent: 0,
            flooded: false,
        }
    }

    /// Whether the client has asked for too much. It stays so.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// Counts what the client takes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.earn(self.sent / BYTES_PER_FRAME);
        self.sent %= BYTES_PER_FRAME;
    }

    /// Counts the frames in what was received.
    pub(super) fn received(&mut self, mut bytes: &[u8], now: Instant) {
        self.let_time_pass(now);
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (FRAME_HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == FRAME_HEAD_BYTES {
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        (self.head_len, self.skip) = (0, length as usize);
        let cost = match kind {
            DATA if length >= DATA_BYTES_MIN || flags & END_STREAM != 0 => return,
            RST_STREAM => RESET_COST,
            _ => 1,
        };
        self.flooded |= self.credit < cost;
        self.credit = self.credit.saturating_sub(cost);
    }

    fn let_time_pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.credited);
        let earned =
            u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).saturating_mul(self.per_second) / 1000;
        if earned > 0 {
            // Only the time that was credited, so that no fraction is lost however often this is asked.
            let credited = earned.saturating_mul(1_000_000) / self.per_second;
            self.credited = if self.credit + earned >= self.credit_max {
                now
            } else {
                self.credited + Duration::from_micros(credited)
            };
            self.earn(earned);
        }
    }

    fn earn(&mut self, frames: u64) {
        self.credit = self.credit.saturating_add(frames).min(self.credit_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADERS: u8 = 0x1;
    const SETTINGS: u8 = 0x4;
    const PING: u8 = 0x6;
    const WINDOW_UPDATE: u8 = 0x8;
    const CONTINUATION: u8 = 0x9;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(FRAME_HEAD_BYTES + length as usize, 0);
        frame
    }

    fn meter(now: Instant) -> Meter {
        let limits = Http2Limits { frames_burst_max: 100, frames_per_second: 10, ..Http2Limits::default() };
        let mut meter = Meter::new(&limits, now);
        meter.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now);
        meter
    }

    /// Frames until the meter says flood; at most 1,000.
    fn bearable(kind: u8, length: u32, per_frame: Duration, sent_per_frame: usize) -> usize {
        let mut now = clock::now();
        let mut meter = meter(now);
        let frame = frame(kind, 0, length);
        for count in 0..1_000 {
            now += per_frame;
            meter.received(&frame, now);
            meter.sent(sent_per_frame);
            if meter.is_flooded() {
                return count;
            }
        }
        1_000
    }

    #[test]
    fn each_kind_of_flood_ends_at_its_bound() {
        let table = [
            (PING, 8, 100),
            (SETTINGS, 6, 100),
            (WINDOW_UPDATE, 4, 100),
            (CONTINUATION, 1, 100),
            (HEADERS, 30, 100),
            (DATA, 0, 100),
            (DATA, 1, 100),
            (0x2, 5, 100),     // PRIORITY
            (0xfa, 1000, 100), // unknown
            (RST_STREAM, 4, 12),
        ];
        for (kind, length, bound) in table {
            assert_eq!(bearable(kind, length, Duration::ZERO, 0), bound, "frame type {kind:#x}");
        }
    }

    #[test]
    fn who_takes_content_or_time_is_never_flooding() {
        assert_eq!(bearable(DATA, 16_384, Duration::ZERO, 0), 1_000, "an upload");
        assert_eq!(bearable(WINDOW_UPDATE, 4, Duration::ZERO, 1_024), 1_000, "a download");
        assert_eq!(
            bearable(RST_STREAM, 4, Duration::ZERO, 1_024),
            1_000,
            "requests that were answered in part"
        );
        assert_eq!(bearable(PING, 8, Duration::from_millis(100), 17), 1_000, "a sign of life");
        // Twice as many as are forgiven: the burst lasts twice as long.
        assert!((198..=202).contains(&bearable(PING, 8, Duration::from_millis(50), 0)));
    }

    #[test]
    fn credit_is_capped_so_that_a_long_pause_buys_no_burst() {
        let now = clock::now();
        let mut meter = meter(now);
        meter.sent(1 << 30);
        let flood = frame(PING, 0, 8).repeat(101);
        meter.received(&flood, now + Duration::from_secs(3600));
        assert!(meter.is_flooded());
    }

    proptest! {
        /// How the bytes are cut into reads says nothing about the frames.
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec((0_u8..12, 0_u8..2, 0_u32..70), 0..60), cut in 1_usize..40,
        ) {
            let now = clock::now();
            let wire: Vec<u8> = frames.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let (mut whole, mut parts) = (meter(now), meter(now));
            whole.received(&wire, now);
            wire.chunks(cut).for_each(|part| parts.received(part, now));
            prop_assert_eq!(whole.credit, parts.credit);
            prop_assert_eq!(whole.flooded, parts.flooded);
        }
    }
}
