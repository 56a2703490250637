//! What an operator sees of a node: its log, what a reload takes, what a service manager is told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::process::{LIMIT, Up, one_line, refused, run};

/// One request to the front door; the whole answer.
fn get(up: &Up, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(up.url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("not zero");
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-request-id: r-1\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn config(directory: &Path, text: &str) -> String {
    let path = directory.join("standfast.toml");
    std::fs::write(&path, text).expect("the directory is ours");
    path.to_str().expect("UTF-8").to_owned()
}

fn lines<'l>(log: &'l str, message: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(&format!("\"message\":\"{message}\""))).collect()
}

/// A stopped app was a 502 page and no line in the log.
#[test]
fn a_failing_upstream_server_is_one_line_with_its_cause_and_one_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("[web.pools.shop]\nmembers = [\"{address}\"]\n[[web.sites]]\npool = \"shop\"\n");
    let config = config(directory.path(), &text);
    let mut up = Up::spawn(directory.path(), &["--config", &config]);
    up.wait_ready();
    for n in 0..20 {
        let answer = get(&up, "shop.test", &format!("/{n}"));
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(answer.contains("proxy-status: standfast-web; error=connection_refused"), "{answer}");
    }
    up.until("it is told", |up| !lines(&up.read("stderr"), "an upstream server fails").is_empty());
    let log = up.read("stderr");
    let told = lines(&log, "an upstream server fails");
    assert_eq!(told.len(), 1, "twenty failures, one line: {told:#?}");
    for part in ["\"level\":\"warn\"", "\"pool\":\"shop\"", &address.to_string(), "(os error 111)", "r-1"] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    let listener = TcpListener::bind(address).expect("nobody took it");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback").expect("it reads");
    });
    assert!(get(&up, "shop.test", "/again").ends_with("back"));
    server.join().expect("it answered");
    up.until("that is told too", |up| lines(&up.read("stderr"), "an upstream server is back").len() == 1);
}

/// A refusal said nothing in the log at the default level.
#[test]
fn a_refusal_names_its_rule_once_and_not_for_each_request() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[web.sites]]\nhosts = [\"a.test\"]\nwelcome = true\nnetworks = { deny = [\"127.0.0.1\"] }\n";
    let config = config(directory.path(), text);
    let mut up = Up::spawn(directory.path(), &["--config", &config]);
    up.wait_ready();
    for _ in 0..10 {
        assert!(get(&up, "a.test", "/").starts_with("HTTP/1.1 403"));
        assert!(get(&up, "other.test", "/").starts_with("HTTP/1.1 421"));
    }
    up.until("both are told", |up| lines(&up.read("stderr"), "refused by a rule").len() == 2);
    let log = up.read("stderr");
    let told = lines(&log, "refused by a rule");
    assert!(
        told[0].contains("\"rule\":\"networks\"") && told[0].contains("\"site\":\"a.test\""),
        "{told:#?}"
    );
    assert!(told[1].contains("no site has this host"), "{told:#?}");
}

/// `[web.access_log]` changed, SIGHUP: "configuration reloaded", and nothing was.
#[test]
fn a_reload_takes_each_key_or_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = |name: &str| directory.path().join(name);
    let text = |file: &str, more: &str| {
        let path = log(file);
        format!("[web.access_log]\nformat = \"json\"\nfile = \"{}\"\n{more}", path.display())
    };
    let path = config(directory.path(), &text("one.log", ""));
    let mut up = Up::spawn(directory.path(), &["--config", &path]);
    up.wait_ready();
    get(&up, "a.test", "/first");
    up.until("it is written down", |_| {
        std::fs::read_to_string(log("one.log")).is_ok_and(|t| t.contains("/first"))
    });
    config(directory.path(), &text("two.log", "[jobs]\nlease_ms = 4000\n[edge.limits]\nfields_max = 50\n"));
    up.signal(Signal::SIGHUP);
    up.until("it is reloaded", |up| up.read("stderr").contains("configuration reloaded"));
    let told = up.read("stderr");
    assert!(told.contains("\"taken\":\"web.access_log.file\""), "{told}");
    assert!(told.contains("\"keys\":\"edge.limits.fields_max, jobs.lease_ms\""), "{told}");
    get(&up, "a.test", "/second");
    up.until("lines go there", |_| {
        std::fs::read_to_string(log("two.log")).is_ok_and(|t| t.contains("/second"))
    });
}

/// Under `Type=notify` the start timed out.
#[test]
fn a_service_manager_hears_that_it_is_ready_alive_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut up = Up::spawn_with(directory.path(), &[], |command| {
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    });
    let heard = || {
        let mut text = [0; 1024];
        let length = manager.recv(&mut text).expect("it is told in time");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let ready = heard();
    assert!(ready.starts_with("READY=1\nSTATUS=ready http://127.0.0.1:"), "{ready}");
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    up.signal(Signal::SIGTERM);
    let mut said = heard();
    while said == "WATCHDOG=1" {
        said = heard();
    }
    assert!(said.starts_with("STOPPING=1\n"), "{said}");
    assert!(up.ended().success());
}

/// 185 lines came before "ready".
#[test]
fn a_start_is_a_screenful_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let log = up.read("stderr");
    assert!(log.lines().count() <= 24, "{} lines:\n{log}", log.lines().count());
}

#[test]
fn what_will_not_work_is_said_before_it_does_not() {
    let directory = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("[[web.sites]]\nwelcome = true\nhosts = [\"example.org:8080\"]\n", "without scheme and port"),
        ("[[web.sites]]\nroot = \"/no/such\"\n", "web.sites[0].root = \"/no/such\": No such file"),
        (
            "[edge.tls]\ncertificates = [{ chain = \"/no.crt\", key = \"/no.key\" }]\n",
            "edge.tls.certificates[0]: /no.crt",
        ),
        ("[balancer.pools.a]\ntiers = [\"apps\"]\n", "there is no tier \"apps\""),
        ("[balancer.pools.a]\n", "balancer.pools.a: nobody is in it"),
        ("[balancer.pool.check]\ntimeout_ms = 0\n", "balancer.pool.check.timeout_ms = 0: allowed is 10 to"),
        ("[balancer.pool]\nmembers = [\"ftp://a:1\"]\n", "for example"),
        ("[edge]\ntrusted = [\"10.0.0.0/33\"]\n", "use 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"),
        ("[edge]\norigins = [\"app.test:80\"]\n", "use 192.0.2.7:8080"),
        ("[app]\nlisten = \"127.0.0.1:8080\"\n", "has that port already"),
    ] {
        let path = config(directory.path(), text);
        let said = refused(&["check-config", &path], 78);
        assert!(said.contains(words), "{text}: {said}");
    }
}

/// One idea had three spellings, each refused by the other sections.
#[test]
fn networks_and_servers_are_written_in_one_way_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    for text in [
        "[edge]\ntrusted = [\"10.0.0.0/8\", \"192.0.2.7\"]\norigins = [\"http://127.0.0.1:3000\", \"127.0.0.1:3001\"]\n",
        "[edge]\ntrusted_proxies = [\"::1\"]\n",
        "[web]\ntrusted = [\"10.0.0.0/8\", \"::1\"]\n[web.pools.a]\nmembers = [\"127.0.0.1:3000\", \"http://b:1\"]\n",
        "[balancer]\ntrusted_proxies = [\"192.0.2.7\"]\nproxy_from = [\"192.0.2.0/24\"]\n",
        "[balancer.pool]\nmembers = [\"http://127.0.0.1:3000\", { address = \"b:1\", weight = 5 }, \"h2c://c:1\"]\n",
        "[[web.sites]]\nwelcome = true\nhosts = [\"Example.org.\"]\nnetworks = { allow = [\"192.0.2.7\"] }\n",
    ] {
        let path = config(directory.path(), text);
        let output = run(&["check-config", &path]);
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// After a purge the web tier still gave yesterday's file, which the edge then kept; the name of the host had to be guessed.
#[test]
fn a_purge_goes_through_every_layer_and_says_what_is_near() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("www");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("page.txt"), "first").unwrap();
    let text = format!(
        "[web.files]\nrecheck_ms = 3600000\n[[web.sites]]\nroot = \"{}\"\ncache_control = \"max-age=600\"\n",
        root.display()
    );
    let config = config(directory.path(), &text);
    let mut up = Up::spawn(directory.path(), &["--config", &config]);
    up.wait_ready();
    let purge = |what: &str| run(&["purge", what, "--url", &up.url]);
    for host in ["a.test", "b.test"] {
        assert!(get(&up, host, "/page.txt").ends_with("first"));
    }
    std::fs::write(root.join("page.txt"), "second").unwrap();
    assert!(get(&up, "a.test", "/page.txt").ends_with("first"), "it is stored");
    let near = one_line(&purge("/Page.txt"), 1);
    assert!(
        near.contains("nothing was stored under that name; near it is stored: http://a.test/page.txt"),
        "{near}"
    );
    let output = purge("/page.txt");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("edge-1") && said.contains("web-1"), "{said}");
    for host in ["a.test", "b.test"] {
        assert!(get(&up, host, "/page.txt").ends_with("second"), "by every name: {said}");
    }
    let output = purge("/never");
    assert!(output.status.success(), "nothing there is what was wanted");
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing of it was stored"));
}
