//! A whole node: up, work, broken, stopped, killed, started again.

use std::process::Output;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{LIMIT, Up, one_line, pause, run, standfast};

impl Up {
    pub fn jobs(&self, args: &[&str]) -> Output {
        run(&[&["jobs"], args, &["--url", &self.url]].concat())
    }

    pub fn submit_digest(&self, text: &str) -> String {
        let output = self.jobs(&["submit", "digest", &format!("{{\"text\": \"{text}\"}}")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text_of(&output).trim().to_owned()
    }

    fn job(&self, id: &str) -> Value {
        serde_json::from_slice(&self.jobs(&["show", id, "--json"]).stdout).expect("a job as JSON")
    }

    fn until_completed(&self, id: &str) {
        let output = self.jobs(&["watch", id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(self.job(id)["state"], "completed");
    }
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_job_is_submitted_watched_listed_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let output = up.jobs(&["submit", "digest", r#"{"text": "hello"}"#, "--wait", "20", "--tag", "first"]);
    let text = text_of(&output);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"), "{text}");

    let later = up.jobs(&["submit", "digest", r#"{"text": "later"}"#, "--delay", "1h", "--json"]);
    let later: Value = serde_json::from_slice(&later.stdout).expect("a job as JSON");
    let id = later["id"].as_str().expect("an id");
    assert!(text_of(&up.jobs(&["why", id])).starts_with("its time, "), "it says what it waits for");
    let cancelled = up.jobs(&["cancel", id]);
    assert!(text_of(&cancelled).contains("cancelled"), "{}", text_of(&cancelled));
    assert_eq!(one_line(&up.jobs(&["watch", id]), 1), format!("standfast: job {id} was cancelled"));

    let list = text_of(&up.jobs(&["list", "--state", "completed", "--tag", "first"]));
    assert_eq!(list.lines().count(), 2, "a heading and one job: {list}");
    assert!(text_of(&up.jobs(&["queues"])).starts_with("QUEUE"));
    let text = one_line(&up.jobs(&["show", "019329a0-0000-7000-8000-000000000000"]), 1);
    assert!(text.to_lowercase().contains("not found") || text.contains("no job"), "{text}");
    let text = one_line(&up.jobs(&["submit", "no-such-kind", "{}"]), 1);
    assert!(text.contains("no-such-kind"), "{text}");
    assert!(run(&["ready", &up.url]).status.success());
    assert!(run(&["ready", &up.console]).status.success());
}

#[test]
fn the_tree_shows_what_was_broken_and_came_back() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let console = ["--console", &up.console];
    let inject = ["fault", "inject", "/test/jobs/jobs-1/sweeper", "panic"];
    let hit = run(&[&inject[..], &console[..]].concat());
    assert_eq!(text_of(&hit).trim(), "/test/jobs/jobs-1/sweeper");
    let deadline = clock::now() + LIMIT;
    loop {
        let shown = run(&[&["tree", "/test/jobs/jobs-1/sweeper", "--json"][..], &console[..]].concat());
        let child: Value = serde_json::from_slice(&shown.stdout).expect("a tree as JSON");
        if child["state"] == "running" && child["incarnation"] == 2 {
            assert_eq!(child["last_exit"]["reason"], "panic", "{child}");
            break;
        }
        assert!(clock::now() < deadline, "{child}");
        pause();
    }
    let nothing = run(&[&["fault", "inject", "/elsewhere/**", "panic"][..], &console[..]].concat());
    let text = one_line(&nothing, 1);
    assert!(text.contains("match"), "{text}");
    let list = run(&[&["fault", "list", "--json"][..], &console[..]].concat());
    assert_eq!(text_of(&list).trim(), "[]");
}

#[test]
fn sigterm_under_load_finishes_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut up = Up::start(directory.path());
    let ids: Vec<String> = (0..20).map(|n| up.submit_digest(&format!("text {n}"))).collect();
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().code(), Some(0), "{}", up.read("stderr"));
    let log = up.read("stderr");
    assert!(!log.contains("\"level\":\"error\""), "a clean stop has no errors: {log}");
    let up = Up::start(directory.path());
    ids.iter().for_each(|id| up.until_completed(id));
}

#[test]
fn after_kill_9_it_starts_again_with_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let mut up = Up::start(directory.path());
        acknowledged.extend((0..10).map(|n| up.submit_digest(&format!("text {round} {n}"))));
        up.signal(Signal::SIGKILL);
        up.ended();
    }
    let up = Up::start(directory.path());
    acknowledged.iter().for_each(|id| up.until_completed(id));
    assert_eq!(acknowledged.len(), 20);
}

#[test]
fn a_second_signal_stops_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut up = Up::start(directory.path());
    // A request that waits for a job that never comes keeps the front door from draining.
    let later = up.jobs(&["submit", "digest", r#"{"text": "later"}"#, "--delay", "1h"]);
    let id = text_of(&later).trim().to_owned();
    let mut watching = standfast(&["jobs", "watch", &id, "--url", &up.url]);
    let mut watching =
        watching.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let hung = run(&["fault", "inject", "/test/jobs/**", "hang", "--for", "30s", "--console", &up.console]);
    assert!(hung.status.success(), "{}", String::from_utf8_lossy(&hung.stderr));
    up.signal(Signal::SIGINT);
    up.until("it drains", |up| up.read("stderr").contains("draining"));
    let asked = clock::now();
    up.signal(Signal::SIGTERM);
    let code = up.ended().code();
    assert!(clock::now() - asked < Duration::from_secs(25), "sooner than the time that a drain may take");
    // It had drained already, or it was cut off and says so.
    assert!(code == Some(0) || up.read("stderr").contains("stopped at once, by a second signal"), "{code:?}");
    let _ = watching.kill();
    let _ = watching.wait();
}

#[test]
fn sighup_changes_the_log_filter_and_says_what_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("standfast.toml");
    std::fs::write(&config, "[telemetry]\nlog = 'info'\n").unwrap();
    let mut up = Up::spawn_quietly(directory.path(), &["--config", config.to_str().unwrap()]);
    std::fs::write(&config, "[telemetry]\nlog = 'debug'\n[jobs]\nlease_ms = 4000\n").unwrap();
    up.signal(Signal::SIGHUP);
    up.until("the filter is changed", |up| up.read("stderr").contains("\"taken\":\"telemetry.log\""));
    up.until("the rest is named", |up| up.read("stderr").contains("\"keys\":\"jobs.lease_ms\""));
    std::fs::write(&config, "[telemetry]\nlog = 'loud'\n").unwrap();
    up.signal(Signal::SIGHUP);
    up.until("a mistake changes nothing", |up| up.read("stderr").contains("configuration not reloaded"));
    up.signal(Signal::SIGTERM);
    assert!(up.ended().success());
}

#[test]
fn watching_the_tree_through_a_pipe_gives_a_line_for_each_change() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let mut watch = standfast(&["tree", "--watch", "--console", &up.console]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let inject = ["fault", "inject", "/test/app/app-1/wake_publisher", "exit", "--console", &up.console];
    // The stream may not be open yet: once more until it shows.
    let (told, seen) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let found =
            lines.by_ref().map_while(Result::ok).find(|line| line.contains("wake_publisher running #"));
        let _ = told.send(found);
    });
    let deadline = clock::now() + LIMIT;
    let line = loop {
        assert!(run(&inject).status.success());
        if let Ok(line) = seen.recv_timeout(Duration::from_millis(500)) {
            break line;
        }
        assert!(clock::now() < deadline, "no line came");
    };
    assert!(line.expect("a line").contains("back in "));
    let _ = watch.kill();
    let _ = watch.wait();
    reader.join().expect("the reader ends");
}

#[test]
fn the_database_is_queried_and_changed_by_hand() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let services = run(&["tree", "--console", &up.console]);
    assert!(services.status.success());
    let address = up.database();
    let db = |args: &[&str]| run(&[&["db"], args, &["--database", &address]].concat());
    assert!(db(&["exec", "CREATE TABLE pets (name TEXT PRIMARY KEY, age INTEGER)"]).status.success());
    assert_eq!(text_of(&db(&["exec", "INSERT INTO pets VALUES (?, ?)", "rex", "7"])), "1 row changed\n");
    assert_eq!(text_of(&db(&["query", "SELECT * FROM pets"])), "name  age\nrex   7\n");
    let text = one_line(&db(&["query", "SELEC"]), 1);
    assert!(text.contains("syntax error"), "{text}");
    let status = text_of(&db(&["status"]));
    assert_eq!(
        status.lines().count(),
        7,
        "three replicas of the clients' database, three of the jobs': {status}"
    );
    assert!(status.contains("primary") && status.contains("database-2-jobs  jobs"), "{status}");
    assert!(!status.contains(" - "), "how far each has come is told: {status}");
}
