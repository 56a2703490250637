//! What the tests of the data plane share: a gateway that forwards everything to one origin, under a real supervision
//! tree on a thread of its own, and a blocking client that knows nothing of our codec.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod client;
pub mod gateway;
