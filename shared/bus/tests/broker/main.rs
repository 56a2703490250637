//! What only a real broker can do to us: restart, vanish, stay connected and say nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod proxy;
mod rabbitmq;
mod rabbitmq_tls;
