//! The web server.

pub mod acme;
