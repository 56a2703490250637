//! What a command prints: all of it or an exit code that tells, and nothing that a terminal would obey.

use std::fs::File;
use std::process::Stdio;

use crate::process::{Up, one_line, refused, run, standfast};

/// Everything that prints, at a stack that runs.
fn printing(up: &Up) -> Vec<Vec<String>> {
    let database = up.database();
    let texts = |args: &[&str]| args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    vec![
        texts(&["--help"]),
        texts(&["--version"]),
        texts(&["completions", "bash"]),
        texts(&["check-config", "--print"]),
        texts(&["tree", "--console", &up.console]),
        texts(&["tree", "--json", "--console", &up.console]),
        texts(&["fault", "list", "--console", &up.console]),
        texts(&["jobs", "list", "--json", "--url", &up.url]),
        texts(&["jobs", "queues", "--url", &up.url]),
        texts(&["jobs", "submit", "digest", "{\"text\": \"x\"}", "--url", &up.url]),
        texts(&["db", "query", "SELECT 1", "--database", &database]),
        texts(&["db", "status", "--database", &database]),
        texts(&["ready", &up.url]),
    ]
}

/// A script took half a list for the whole: the exit code was 0.
#[test]
fn output_that_finds_no_room_is_1_and_a_reader_that_left_is_0() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    up.submit_digest("one job to list");
    for command in printing(&up) {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let full = File::options().write(true).open("/dev/full").expect("Linux has one");
        let output = standfast(&args).stdout(full).output().expect("it starts");
        let text = one_line(&output, 1);
        assert!(text.contains("cannot write to stdout: No space left on device"), "{args:?}: {text}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = standfast(&args).stdout(Stdio::from(writer)).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_bulk_with_a_refused_line_is_1_and_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let bulk = |text: &str| {
        let file = directory.path().join("jobs.ndjson");
        std::fs::write(&file, text).unwrap();
        run(&["jobs", "bulk", file.to_str().unwrap(), "--url", &up.url])
    };
    let good = r#"{"kind": "digest", "payload": {"text": "x"}}"#;
    assert_eq!(bulk(&format!("{good}\n{good}\n")).status.code(), Some(0));
    let mixed = bulk(&format!("{good}\n{{not json\n{good}\n{{\"kind\": \"nosuch\"}}\n"));
    let text = one_line(&mixed, 1);
    assert!(text.contains("2 of 4 lines were refused; the first: line 2: "), "{text}");
    assert_eq!(String::from_utf8_lossy(&mixed.stdout).lines().count(), 4, "all outcomes are told");
    let file = directory.path().to_str().unwrap();
    assert!(one_line(&run(&["jobs", "bulk", file, "--url", &up.url]), 1).contains(file), "a directory");
}

/// Tags, payloads, errors and SQL text are of others; a terminal obeyed what they said.
#[test]
fn nothing_that_others_wrote_steers_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let database = up.database();
    let evil = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\r";
    let payload = serde_json::json!({ "text": evil, "e": evil }).to_string();
    let id = up.jobs(&["submit", "digest", &payload, "--tag", "t\u{202e}t"]);
    let id = String::from_utf8_lossy(&id.stdout).trim().to_owned();
    let sql = format!("SELECT '{evil}' AS \"a\u{1b}[2Jb\"");
    for args in [
        &["jobs", "show", &id, "--url", &up.url][..],
        &["jobs", "show", &id, "--json", "--url", &up.url],
        &["jobs", "watch", &id, "--url", &up.url],
        &["jobs", "list", "--json", "--url", &up.url],
        &["jobs", "submit", &format!("no{evil}"), "--url", &up.url],
        &["jobs", "list", "--queue", evil, "--url", &up.url],
        &["db", "query", &sql, "--database", &database],
        &["db", "query", &sql, "--json", "--database", &database],
        &["db", "query", &format!("SELEC {evil}"), "--database", &database],
        &["tree", &format!("/n{evil}"), "--console", &up.console],
        &["purge", &format!("/{evil}"), "--url", &up.url],
        &[evil],
    ] {
        let output = run(args);
        for text in [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()) {
            let steers = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
            assert!(!text.contains(steers), "{args:?}: {text:?}");
        }
    }
    let shown = run(&["db", "query", &sql, "--database", &database]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("\\x1b]0;owned\\x07\\x9b31m\\u{202e}\\r"));
}

/// `https://localhost:8443` was "nothing answers (UnknownIssuer)" for our own client.
#[test]
fn the_development_certificate_is_trusted_on_its_own_machine_and_by_no_name_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let port = up.tls_port();
    let data = directory.path().join("data");
    let list = |url: &str, data: &std::path::Path| {
        let mut command = standfast(&["jobs", "list", "--url", url]);
        command.env("STANDFAST_DATA", data).output().expect("it starts")
    };
    for host in ["localhost", "127.0.0.1"] {
        let output = list(&format!("https://{host}:{port}"), &data);
        assert!(output.status.success(), "{host}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let text = one_line(&list(&format!("https://localhost:{port}"), elsewhere.path()), 69);
    assert!(text.contains("is not trusted (UnknownIssuer): SSL_CERT_FILE=FILE"), "{text}");
    assert!(text.contains("STANDFAST_DATA=DIR"), "{text}");
}

#[test]
fn an_address_on_the_command_line_is_answered_with_an_example() {
    for flag in ["--listen", "--console", "--tls", "--database"] {
        let text = refused(&["up", flag, "8085"], 78);
        assert!(text.contains("127.0.0.1:8085 or [::1]:8085 for this machine alone, [::]:8085"), "{text}");
    }
}
