//! Whose a page is, through the whole stack: what the web server decides for one client, no edge gives to another.

use std::net::SocketAddr;
use std::time::Duration;

use teststack::{TestStack, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// Status and `Cache-Status` of a page, asked for from an address of this machine.
async fn get_from(stack: &TestStack, address: &str, path: &str) -> (u16, String) {
    let front: SocketAddr = stack.fronts[0].trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(front).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: files.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let cache = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("cache-status"));
    (status, cache.unwrap_or_default().to_owned())
}

fn site(root: &std::path::Path, more: &str) -> String {
    let files = format!(
        "hosts = [\"files.test\"]\nroot = {root:?}\ncache_control = \"public, max-age=600\"\n{more}\n"
    );
    format!("[[web.sites]]\npool = \"app\"\n[[web.sites]]\n{files}")
}

/// A page behind an address rule had been stored and served for days to those whom the rule excludes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_behind_an_address_rule_is_never_given_to_those_it_excludes() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.txt"), "for some").unwrap();
    let config = site(root.path(), "networks = { allow = [\"127.0.0.2/32\"] }");
    let stack = TestStack::one_process().config(&config).start().await;
    for _ in 0..3 {
        let (status, cache) = get_from(&stack, "127.0.0.2", "/a.txt").await;
        assert!(status == 200 && !cache.contains("; hit"), "{status} {cache}");
        assert_eq!(get_from(&stack, "127.0.0.1", "/a.txt").await.0, 403);
        assert_eq!(get_from(&stack, "127.0.0.3", "/a.txt").await.0, 403);
    }
}

/// A rule that a reload adds holds at once for what was stored while there was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_a_reload_adds_covers_what_was_stored_before() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.txt"), "for all, at first").unwrap();
    let stack = TestStack::one_process().config(&site(root.path(), "")).start().await;
    assert_eq!(get_from(&stack, "127.0.0.1", "/a.txt").await.0, 200);
    let (status, cache) = get_from(&stack, "127.0.0.1", "/a.txt").await;
    assert!(status == 200 && cache.contains("; hit"), "a page for everybody is stored: {cache}");
    stack.reload(&site(root.path(), "networks = { allow = [\"127.0.0.2/32\"] }"));
    until("the edge has forgotten the page", Duration::from_secs(20), async || {
        let (status, cache) = get_from(&stack, "127.0.0.1", "/a.txt").await;
        if status == 403 { Ok(()) } else { Err(format!("{status} {cache}")) }
    })
    .await;
    assert_eq!(get_from(&stack, "127.0.0.2", "/a.txt").await.0, 200);
}
