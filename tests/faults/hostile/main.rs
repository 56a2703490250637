//! A slow or hostile world, met by the built stack: what shared/http proves of one gateway must hold for each of its
//! tiers as it is started and configured, and for all of them behind each other.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; counts are worth reading"
)]

mod crowd;
mod floods;
mod private;
mod smuggling;
mod storms;
mod strangers;

// One table and one way to read what came of it, for the gateway alone and for the stack.
#[path = "../../../shared/http/tests/support/client.rs"]
#[allow(dead_code, reason = "these tests use their part")]
mod client;
#[path = "../../../shared/http/tests/http2/frames.rs"]
#[allow(dead_code, reason = "these tests use their part")]
mod frames;
#[path = "../../../shared/http/tests/smuggling/origin.rs"]
#[allow(dead_code, reason = "these tests use their part")]
mod origin;
#[path = "../../../shared/http/tests/smuggling/recording.rs"]
mod recording;
#[path = "../../../shared/http/tests/smuggling/table/mod.rs"]
#[allow(dead_code, reason = "these tests use their part")]
mod table;

use std::net::SocketAddr;

use teststack::TestStack;

/// The whole stack in one process, with an origin of the test's behind its web server.
async fn before(origin: SocketAddr, more: &str) -> TestStack {
    let site =
        format!("[web.pools.origin]\nmembers = [\"http://{origin}\"]\n[[web.sites]]\npool = \"origin\"\n");
    TestStack::one_process().config(&site).config(more).start().await
}

/// Where an instance listens.
async fn address_of(stack: &TestStack, instance: &str) -> SocketAddr {
    let services: serde_json::Value = stack.operating().get("/v1/services").await.unwrap().json().unwrap();
    let list = services.as_array().or(services["services"].as_array()).unwrap();
    let of = list.iter().find(|service| service["instance"] == instance).unwrap();
    of["address"].as_str().unwrap().trim_start_matches("http://").parse().unwrap()
}
