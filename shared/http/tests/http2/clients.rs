//! What people use: curl, nghttp, h2load.

use std::process::Output;

use tokio::process::Command;

use super::scene::{Scene, Stack, origin};

async fn run(program: &str, args: &[&str]) -> (String, Output) {
    let output = Command::new(program).args(args).output().await.unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    (text, output)
}

impl Stack {
    fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls.port())
    }

    fn http(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.plain.port())
    }
}

/// RFC 9113 sections 3.2 and 3.3: by ALPN, by prior knowledge; and HTTP/1.1 on the same ports.
#[actix_web::test]
async fn curl_gets_the_protocol_that_it_asks_for() {
    let stack = Scene::alone().start().await;
    let root = stack.certificate.to_str().unwrap();
    let (tls, plain) = (stack.https("/head?a=b"), stack.http("/head?a=b"));
    let table: [(&[&str], &str); 4] = [
        (&["--http2", "--cacert", root, &tls], "H2 https /head?a=b localhost"),
        (&["--http1.1", "--cacert", root, &tls], "Http11 https /head?a=b localhost"),
        (&["--http2-prior-knowledge", &plain], "H2 http /head?a=b localhost"),
        (&["--http1.1", &plain], "Http11 http /head?a=b localhost"),
    ];
    for (args, expected) in table {
        let (text, _) = run("curl", &[&["-sS", "--max-time", "20"], args].concat()).await;
        assert!(text.starts_with(expected), "{args:?}: {text}");
    }
}

#[actix_web::test]
async fn curl_uploads_and_downloads_megabytes() {
    let stack = Scene::alone().start().await;
    let dir = tempfile::tempdir().unwrap();
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    let bytes: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    std::fs::write(&up, &bytes).unwrap();
    let data = format!("@{}", up.display());
    for url in [stack.https("/echo"), stack.http("/echo")] {
        let how = if url.starts_with("https") { "--http2" } else { "--http2-prior-knowledge" };
        let common =
            ["-sSk", "--max-time", "60", how, "-o", down.to_str().unwrap(), "--data-binary", &data, &url];
        run("curl", &common).await;
        assert!(std::fs::read(&down).unwrap() == bytes, "{how}: what came back is not what was sent");
    }
}

/// What a TLS session holds back when the socket is full is sent as well.
#[actix_web::test]
async fn a_slow_client_over_tls_gets_the_end_too() {
    let answer = |_: &str| {
        let mut all = b"HTTP/1.1 200 OK\r\nContent-Length: 12000000\r\n\r\n".to_vec();
        all.resize(all.len() + 12_000_000, b'x');
        all
    };
    let stack = Scene::before(origin(answer).await).start().await;
    for how in ["--http1.1", "--http2"] {
        for path in ["/forwarded", "/respond/12000000", "/prepared/12000000", "/file/12000000"] {
            let (url, limits) = (stack.https(path), ["--limit-rate", "12M", "--max-time", "30"]);
            let args =
                [&["-sSk", "-o", "/dev/null", "-w", "%{size_download}", how], &limits[..], &[&url]].concat();
            assert_eq!(run("curl", &args).await.0, "12000000", "{how} {path}");
        }
    }
}

/// Interim responses on the wire, as curl prints them.
#[actix_web::test]
async fn curl_sees_early_hints_and_head_without_a_body() {
    let stack = Scene::alone().start().await;
    let (text, _) = run("curl", &["-sSki", "--max-time", "20", "--http2", &stack.https("/hint")]).await;
    let hint = text.find("HTTP/2 103").expect("an interim response");
    assert!(text[hint..].contains("link: </a.css>; rel=preload") && text.ends_with("hinted"), "{text}");
    let (text, _) =
        run("curl", &["-sSkI", "--max-time", "20", "--http2", &stack.https("/respond/1000")]).await;
    assert!(text.contains("HTTP/2 200") && text.contains("content-length: 1000"), "{text}");
}

#[actix_web::test]
async fn nghttp_multiplexes_and_h2load_loses_nothing() {
    let ok = |_: &str| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhey".to_vec();
    let stack = Scene::before(origin(ok).await).start().await;
    let url = stack.http("/forwarded");
    let (text, _) = run("nghttp", &["-nsv", &url, &stack.http("/respond/100000")]).await;
    assert!(text.contains(":status: 200"), "{text}");
    for url in [stack.http("/respond/1000"), url, stack.https("/forwarded")] {
        let (text, _) = run("h2load", &["-n", "2000", "-c", "8", "-m", "20", &url]).await;
        assert!(text.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
        assert!(text.contains("2000 2xx"), "{text}");
    }
}
