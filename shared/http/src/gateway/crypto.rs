//! The cryptography of TLS, chosen here and nowhere else in the data plane (infra/decisions/0004).

pub(super) use rustls::crypto::ring::{Ticketer, default_provider};
