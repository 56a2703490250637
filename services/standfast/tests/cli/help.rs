//! Help, completions, wrong usage.

use crate::process::{refused, run};

const COMMANDS: &[&[&str]] = &[
    &["up"],
    &["run"],
    &["tree"],
    &["jobs"],
    &["jobs", "submit"],
    &["jobs", "bulk"],
    &["jobs", "list"],
    &["jobs", "show"],
    &["jobs", "watch"],
    &["jobs", "cancel"],
    &["jobs", "retry"],
    &["jobs", "replay"],
    &["jobs", "why"],
    &["jobs", "queues"],
    &["fault"],
    &["fault", "inject"],
    &["fault", "list"],
    &["fault", "clear"],
    &["db"],
    &["db", "query"],
    &["db", "exec"],
    &["db", "status"],
    &["purge"],
    &["check-config"],
    &["ready"],
    &["completions"],
];

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let output = run(&[*command, &["--help"]].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(text.contains("Usage: standfast"), "{command:?}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{command:?} is too wide: {text}");
    }
}

#[test]
fn help_shows_the_way_and_the_exit_codes() {
    let text = String::from_utf8(run(&["help"]).stdout).expect("UTF-8");
    for words in [
        "standfast up",
        "jobs submit digest",
        "fault inject",
        "69 the stack is not reachable",
        "STANDFAST_LOG",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

#[test]
fn wrong_usage_is_2() {
    for wrong in [
        &["upp"][..],
        &["up", "--listne", "127.0.0.1:0"],
        &["run", "origin"],
        &["jobs", "list", "--state", "done"],
        &["fault", "inject", "/n/**", "explode"],
        &["fault", "inject", "/n/**", "panic", "--for", "long"],
        &["jobs", "show"],
        &["purge"],
    ] {
        let text = refused(wrong, 2); // which is one line
        assert!(text.ends_with("--help says more"), "{wrong:?}: {text}");
    }
    let text = refused(&["up", "--listne", "127.0.0.1:0"], 2);
    assert!(text.starts_with("standfast: unexpected argument '--listne' found; tip: "), "{text}");
    let text = refused(&["run", "origin"], 2);
    assert!(text.contains("possible values: database, app, jobs"), "{text}");
    assert_eq!(run(&[]).status.code(), Some(2));
    for reserved in [&["cache", "get", "k"][..], &["experiment", "run", "f"], &["experiment"]] {
        let text = refused(reserved, 2);
        assert!(text.contains("is reserved for a later version; until then, "), "{text}");
    }
    let text = refused(&["jobs", "show", "42"], 2);
    assert_eq!(text, "standfast: \"42\" is not the id of a job: `standfast jobs list` shows them");
    let text = refused(&["jobs", "submit", "digest", "{text: 1}"], 2);
    assert!(text.contains("the payload is not JSON"), "{text}");
    let text = refused(&["tree", "--console", "localhost"], 2);
    assert!(text.contains("--console \"localhost\" is not a URL"), "{text}");
}

#[test]
fn completions_are_written_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn what_is_not_there_is_69_and_says_what_to_do() {
    let nobody = "http://127.0.0.1:1";
    for command in [
        &["jobs", "list", "--url", nobody][..],
        &["jobs", "submit", "digest", "--url", nobody],
        &["jobs", "watch", "019329a0-0000-7000-8000-000000000000", "--url", nobody],
        &["tree", "--console", nobody],
        &["tree", "--watch", "--console", nobody],
        &["fault", "list", "--console", nobody],
        &["db", "query", "SELECT 1", "--database", nobody],
        &["ready", nobody],
    ] {
        let text = refused(command, 69);
        assert!(
            text.contains("nothing answers at http://127.0.0.1:1 (Connection refused"),
            "{command:?}: {text}"
        );
    }
}
