//! Configuration from three places, all optional: a TOML file, the environment (`STANDFAST_JOBS__LEASE_MS=5000` is
//! `jobs.lease_ms`), and flags; the later comes before the earlier.
//!
//! Each tier has a section type of its own (serde, `deny_unknown_fields`, `Default`, `validate`); the binary composes
//! them and loads the whole with a [`Loader`]. Whatever is wrong is one line that names where it was said, the key,
//! the value and what is allowed; a key that does not exist comes with the nearest that does. Networks are read by one
//! function ([`networks`]), so that every section takes every usual spelling.

mod error;
mod loader;
mod nearest;
mod spelling;

pub use error::{Error, Origin};
pub use loader::Loader;
pub use nearest::nearest;
pub use spelling::{addresses, network, networks};
