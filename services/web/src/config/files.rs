//! The bounds of the cache of files, each with its unit, default and range.

use serde::{Deserialize, Serialize};

use super::{ConfigError, in_range};

/// `[web.files]`: the cache of files, shared by all sites and workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    /// Content kept in memory, bytes, 64 KiB to 64 GiB. A larger file counts as 64 KiB: only its descriptor is kept.
    pub cache_bytes_max: u64,
    /// A file is looked at again after so many milliseconds, 1 to 3,600,000: a change is seen that late.
    pub recheck_ms: u64,
    /// Files up to this size are compressed when a client takes it and there is no compressed sibling, bytes, 0 to
    /// 64 MiB; larger ones are sent as they are.
    pub compress_bytes_max: u64,
    /// Entries of a listing, 1 to 100,000; the rest is left out, and said to be.
    pub listing_max: usize,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            cache_bytes_max: 64 << 20,
            recheck_ms: 1_000,
            compress_bytes_max: 4 << 20,
            listing_max: 10_000,
        }
    }
}

impl FilesConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range(
            "files.",
            &[
                ("cache_bytes_max", self.cache_bytes_max, 64 << 10..=64 << 30),
                ("recheck_ms", self.recheck_ms, 1..=3_600_000),
                ("compress_bytes_max", self.compress_bytes_max, 0..=64 << 20),
                ("listing_max", self.listing_max as u64, 1..=100_000),
            ],
        )
    }
}
