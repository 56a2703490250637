//! What a connection costs while nothing happens on it. Alone in its process, whose memory is what is measured.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(dead_code, reason = "the scene can do more than is asked of it here")]

#[path = "../gateway/client.rs"]
mod client;
#[path = "../gateway/scene.rs"]
mod scene;

use client::get;
use scene::Scene;

/// As many as the usual limit of file descriptors allows in one process, which holds both ends here.
const CONNECTIONS: usize = 9_000;

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Issue 3: idle connections, each after a request, take less than 4 KiB each. The kernel's part is not counted.
#[actix_web::test]
async fn an_idle_connection_costs_less_than_4_kib() {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let connections = CONNECTIONS.min((soft as usize - 500) / 2);
    let stack = Scene::alone().start().await;
    for _ in 0..50 {
        assert_eq!(stack.get("/respond/1").await.text(), "r"); // whatever is allocated once, is now
    }
    let mut held = Vec::with_capacity(connections);
    let before = resident();
    for _ in 0..connections {
        let mut client = stack.connect().await;
        client.send(get("/respond/1")).await;
        assert_eq!(client.response().await.text(), "r");
        held.push(client.stream.into_std().unwrap());
    }
    let each = (resident() - before) / connections;
    assert!(each < 4096, "{each} bytes for each of {connections} connections, the client's end included");
}
