//! wip
pub mod config;
pub mod digest;
pub mod entry;
pub mod fold;
pub mod position;
pub mod sqlite;
pub mod wire;
pub use config::Config;
