//! Configuration: every mistake is one line that names place, key, value and range, and exits 78.

use std::path::Path;

use crate::process::{one_line, refused, run, standfast};

fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("standfast.toml");
    std::fs::write(&path, text).expect("the directory is ours");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_good_file_is_0_and_the_effective_configuration_can_be_printed_and_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let good = file(directory.path(), "[jobs]\nlease_ms = 4000\n");
    assert!(run(&["check-config", &good]).status.success());
    let printed = run(&["check-config", &good, "--print"]);
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(text.contains("lease_ms = 4000"), "{text}");
    let again = file(directory.path(), &text);
    assert!(run(&["check-config", &again]).status.success());
}

#[test]
fn the_key_the_value_and_the_range_at_fault_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for (text, words) in [
        (
            "[jobs]\nlaese_ms = 1\n",
            "standfast.toml:2: jobs.laese_ms is not a setting; did you mean jobs.lease_ms?",
        ),
        ("[jobz]\nlease_ms = 1\n", "standfast.toml:1: jobz is not a setting; did you mean jobs?"),
        ("[jobs]\nlease_ms = 1\n", "jobs.lease_ms is 1, expected from 500 to 600000"),
        ("[app]\nhttp_workers = 0\n", "app.http_workers = 0 is not in 1 to 64"),
        ("[app]\nlisten = 'here'\n", "standfast.toml:2: app.listen = 'here':"),
        ("drain_ms = -1\n", "standfast.toml:1: drain_ms = -1:"),
        (
            "[jobs]\nlease_ms = -5\n",
            "jobs.lease_ms = -5: invalid value: integer `-5`, expected a whole number from 0 on",
        ),
        ("drain_ms = 700000\n", "drain_ms = 700000: allowed is 0 to 600000"),
        ("node = 'My Laptop'\n", "node = \"My Laptop\": allowed are"),
        ("[stack]\ndatabases = 0\n", "stack.databases = 0: allowed is 1 to 9"),
        ("[telemetry]\nlog = 'loud'\n", "telemetry.log = \"loud\" is not a log filter"),
        ("[bus]\nheartbeat_s = 0\n", "bus.heartbeat_s = 0 is out of range 1 to 60"),
        ("[jobs\n", "standfast.toml:1: not TOML"),
    ] {
        let path = file(directory.path(), text);
        let said = refused(&["check-config", &path], 78);
        assert!(said.contains(words), "{text:?} gave {said:?}, not {words:?}");
        let said = refused(&["up", "--config", &path], 78);
        assert!(said.contains(words), "up with {text:?} gave {said:?}");
    }
    let said = refused(&["check-config", "/nowhere/standfast.toml"], 78);
    assert!(said.contains("/nowhere/standfast.toml: No such file"), "{said}");
}

#[test]
fn the_environment_is_checked_too_and_named() {
    let output = standfast(&["check-config"]).env("STANDFAST_JOBS__LEASE_SM", "5").output().unwrap();
    let text = one_line(&output, 78);
    assert!(
        text.contains(
            "STANDFAST_JOBS__LEASE_SM: jobs.lease_sm is not a setting; did you mean jobs.lease_ms?"
        ),
        "{text}"
    );
    let output = standfast(&["check-config"]).env("STANDFAST_JOBS__LEASE_MS", "soon").output().unwrap();
    assert!(one_line(&output, 78).contains("STANDFAST_JOBS__LEASE_MS: jobs.lease_ms = soon:"));
    let output =
        standfast(&["check-config", "--print"]).env("STANDFAST_JOBS__LEASE_MS", "5005").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("lease_ms = 5005"));
}

#[test]
fn a_bus_that_is_no_bus_is_78_and_a_tier_of_its_own_needs_a_broker() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for url in ["ampq://localhost", "embeded", "http://localhost:5672"] {
        let text = refused(&["up", "--bus", url, "--data", data.to_str().unwrap()], 78);
        assert!(text.contains("bus url"), "{url}: {text}");
    }
    let text = refused(&["run", "app"], 78);
    assert!(text.contains("needs a broker that it shares with the others: use --bus amqp://"), "{text}");
}
