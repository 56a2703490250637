//! What the kind `command` promises of a program and of everything that it starts.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::path::Path;

use clock::WallMs;
use jobs::{Command, Config};
use jobstore::NewJob;
use messages::job::{Job, Reason, State};
use stack::{Handlers, Stack, config, eventually};
use supervision::secs;

/// A stack whose commands are shell scripts; `$DIR` is the directory.
async fn stack_of(dir: &Path, scripts: &[(&str, &str)]) -> Stack {
    stack_with(dir, scripts, |_| {}).await
}

async fn stack_with(dir: &Path, scripts: &[(&str, &str)], change: impl Fn(&mut Command)) -> Stack {
    let command = |script: &str| {
        let argv = ["sh", "-c", script].map(str::to_owned).into();
        let env = [("DIR".to_owned(), dir.to_str().unwrap().to_owned())].into();
        let mut command = Command { argv, env, ..Command::default() };
        change(&mut command);
        command
    };
    let commands = scripts.iter().map(|(name, script)| ((*name).to_owned(), command(script))).collect();
    Stack::with(Config { commands, ..config() }, Handlers::new()).await
}

fn job(name: &str, input: &str) -> NewJob {
    let payload = format!(r#"{{"name":"{name}","input":{input}}}"#);
    NewJob { max_attempts: 1, ..NewJob::new("command", payload) }
}

async fn run(stack: &Stack, name: &str, input: &str) -> Job {
    let id = stack.submit(job(name, input)).await;
    stack.done(id).await
}

fn result(job: &Job) -> &str {
    job.result.as_ref().unwrap_or_else(|| panic!("{:?}", job.errors)).get()
}

/// Process ids that the script wrote into `$DIR/name`, when it has.
async fn pids(dir: &Path, name: &str) -> Vec<i32> {
    let file = dir.join(name);
    eventually("the program tells its processes", async || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    std::fs::read_to_string(&file).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

async fn gone(pids: &[i32]) {
    eventually("everything it started is gone", async || !pids.iter().any(|pid| lives(*pid))).await;
}

/// Starts processes that leave the group, the session and the family of the program, and writes their ids.
const ESCAPES: &str = r#"
    sleep 300 & a=$!
    setsid sleep 301 & b=$!
    (setsid sh -c 'sleep 302 & echo $! >"$DIR/double.new"; mv "$DIR/double.new" "$DIR/double"' &)
    (env -i setsid sleep 303 & echo $! >"$DIR/bare.new"; mv "$DIR/bare.new" "$DIR/bare")
    while [ ! -e "$DIR/double" ] || [ ! -e "$DIR/bare" ]; do sleep 0.01; done
    echo $$ $a $b $(cat "$DIR/double") $(cat "$DIR/bare") >"$DIR/all.new"; mv "$DIR/all.new" "$DIR/all"
"#;

/// A program that left a child with its pipes ended at once, and its job waited for the child until it timed out.
#[actix::test]
async fn the_end_of_a_program_is_the_end_of_its_job_whatever_it_leaves_running() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack_of(
        dir.path(),
        &[
            ("plain", "sleep 30 & echo done"),
            ("session", "setsid sleep 30 & echo done"),
            ("quiet", "(sleep 30 >/dev/null 2>&1 &) ; echo done"),
            ("late", "(sleep 0.05; echo more) & echo done"),
            ("stubborn", r#"(trap "" TERM; sleep 30; sleep 30) & echo done"#),
            ("fails", "sleep 30 & echo no >&2; exit 7"),
        ],
    )
    .await;
    let began = clock::now();
    for name in ["plain", "session", "quiet", "stubborn"] {
        assert_eq!(result(&run(&stack, name, "null").await), r#""done\n""#, "{name}");
    }
    assert_eq!(result(&run(&stack, "late", "null").await), r#""done\nmore\n""#, "pipes get a moment");
    assert_eq!(run(&stack, "fails", "null").await.errors[0].detail, "exit status: 7: no");
    assert!(began.elapsed() < secs(25), "none of the sleepers was waited for");
    stack.stop().await;
}

/// A program that called setsid survived success, time-out, cancel and stop.
#[actix::test]
async fn nothing_of_a_program_survives_success_time_out_cancel_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let forever = format!("{ESCAPES} sleep 300");
    let stack = stack_of(dir.path(), &[("succeeds", ESCAPES), ("stays", &forever)]).await;
    let family = async || {
        let all = pids(dir.path(), "all").await;
        for file in ["all", "double", "bare"] {
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
        assert_eq!(all.len(), 5);
        all
    };

    let done = run(&stack, "succeeds", "null").await;
    assert_eq!(done.state, State::Completed, "{:?}", done.errors);
    gone(&family().await).await;

    let id = stack.submit(NewJob { timeout_ms: 1_000, ..job("stays", "null") }).await;
    let all = family().await;
    assert_eq!(stack.done(id).await.errors[0].reason, Reason::TimedOut);
    gone(&all).await;

    let id = stack.submit(job("stays", "null")).await;
    let all = family().await;
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    assert_eq!(stack.done(id).await.state, State::Cancelled);
    gone(&all).await;

    let id = stack.submit(job("stays", "null")).await;
    let all = family().await;
    stack.root.stop().await;
    gone(&all).await;
    assert_eq!(stack.get(id).await.state, State::Available);
    stack.stop().await;
}

/// Pipes were closed before SIGTERM, so that a program which logged one line while it cleaned up died of it; a time-out
/// and a stop killed at once.
#[actix::test]
async fn a_program_cleans_up_with_its_pipes_read_on_cancel_time_out_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        trap 'head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2; echo cleaned >"$DIR/$n"; exit 0' TERM
        read -r n; echo $$ >"$DIR/started"
        while :; do sleep 0.05; done"#;
    let stack = stack_of(dir.path(), &[("cleans", script)]).await;
    let started = async || {
        let pids = pids(dir.path(), "started").await;
        std::fs::remove_file(dir.path().join("started")).unwrap();
        pids
    };
    let cleaned =
        |name: &str| std::fs::read_to_string(dir.path().join(name)).is_ok_and(|text| text == "cleaned\n");

    let id = stack.submit(job("cleans", "1")).await;
    started().await;
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    assert_eq!(stack.done(id).await.state, State::Cancelled);
    assert!(cleaned("1"), "on cancel");

    let id = stack.submit(NewJob { timeout_ms: 700, ..job("cleans", "2") }).await;
    started().await;
    assert_eq!(stack.done(id).await.errors[0].reason, Reason::TimedOut);
    assert!(cleaned("2"), "on time-out");

    let id = stack.submit(job("cleans", "3")).await;
    started().await;
    stack.root.stop().await;
    assert!(cleaned("3"), "on stop");
    let job = stack.get(id).await;
    assert_eq!((job.state, job.attempt), (State::Available, 0), "handed back at no cost");
    stack.stop().await;
}

/// What does not listen to SIGTERM is killed after the grace; until then its job is not over.
#[actix::test]
async fn a_program_that_ignores_sigterm_is_killed_after_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"trap "" TERM; echo $$ >"$DIR/pid"; while :; do sleep 300; done"#;
    let stack = stack_with(dir.path(), &[("deaf", script)], |command| command.grace_ms = Some(300)).await;
    let id = stack.submit(job("deaf", "null")).await;
    let pids = pids(dir.path(), "pid").await;
    let asked = clock::now();
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    assert_eq!(stack.done(id).await.state, State::Cancelled);
    assert!(!lives(pids[0]), "it is over when its program is");
    assert!(asked.elapsed().as_millis() >= 300);
    stack.stop().await;
}

/// Numbers were rounded, keys sorted and duplicates dropped on the way to the program, and on the way back.
#[actix::test]
async fn a_program_reads_its_input_as_it_was_sent_and_its_output_is_kept_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack_of(dir.path(), &[("cat", "cat"), ("none", "cat >/dev/null")]).await;
    for text in [
        "12345678901234567890123",
        "1.50",
        r#"{"b": 1, "a":  2, "b":3}"#,
        r#""\u00fc \/ü""#,
        "[1e2,-0.0, 1E+2]",
        "null",
    ] {
        assert_eq!(result(&run(&stack, "cat", text).await), text);
    }
    let absent = stack.submit(NewJob::new("command", r#"{"name":"cat"}"#)).await;
    assert_eq!(result(&stack.done(absent).await), "null");
    assert_eq!(result(&run(&stack, "none", "1").await), r#""""#);
    stack.stop().await;
}

/// What a program said on its way to success was lost.
#[actix::test]
async fn the_error_output_of_a_success_is_kept_with_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let scripts = [
        ("warns", "echo careful >&2; echo 1"),
        ("quiet", "echo 1"),
        ("long", r#"head -c 100000 /dev/zero | tr '\0' ü >&2; printf '\377end' >&2; echo 1"#),
    ];
    let stack = stack_of(dir.path(), &scripts).await;
    let progress = async |name: &str| run(&stack, name, "null").await.progress();
    assert_eq!(progress("warns").await, Some(serde_json::json!({"stderr": "careful"})));
    assert_eq!(progress("quiet").await, None);
    let long = progress("long").await.unwrap();
    let long = long["stderr"].as_str().unwrap();
    assert!(long.ends_with("end") && long.len() < 8_192, "{}", long.len());
    stack.stop().await;
}

/// Bytes that are no text became replacement characters; an output of exactly the limit was refused after the work.
#[actix::test]
async fn output_is_kept_whole_or_refused_early() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack_with(
        dir.path(),
        &[
            ("bytes", r"printf 'a\377b'"),
            ("half", r"printf '\303'"),
            ("surrogate", r#"printf '"\\ud83d"'"#),
            ("huge", "printf 1e400"),
            ("exact", "head -c 1000 /dev/zero | tr '\\0' x"),
            ("more", r#"head -c 1001 /dev/zero | tr '\0' x; echo $$ >"$DIR/pid"; sleep 300"#),
            ("endless", "exec cat /dev/zero"),
        ],
        |command| command.output_bytes_max = Some(1_000),
    )
    .await;
    let text = async |name: &str| result(&run(&stack, name, "null").await).to_owned();
    assert_eq!(text("bytes").await, r#"{"data":"Yf9i","encoding":"base64"}"#);
    assert_eq!(text("half").await, r#"{"data":"ww==","encoding":"base64"}"#);
    assert_eq!(text("surrogate").await, r#""\"\\ud83d\"""#, "no JSON that can be read: text");
    assert_eq!(text("huge").await, r#""1e400""#);
    assert_eq!(text("exact").await.len(), 1_002);
    for name in ["more", "endless"] {
        let refused = run(&stack, name, "null").await;
        let error = &refused.errors[0];
        assert_eq!((error.reason, &*error.detail), (Reason::Refused, "it wrote more than 1000 bytes"));
    }
    stack.stop().await;
}

/// A program could read the stack's environment at `/proc/$PPID/environ`, had its descriptors, and all its privileges.
#[actix::test]
async fn a_program_inherits_no_secret_no_descriptor_and_no_privilege() {
    let dir = tempfile::tempdir().unwrap();
    // A descriptor that an exec does not close, as a careless library leaves it.
    let open = std::fs::File::open("/dev/null").unwrap();
    let _leaky = nix::unistd::dup(&open).unwrap();
    let stack = stack_of(
        dir.path(),
        &[
            ("environ", "{ cat /proc/$PPID/environ; env | grep -E 'CARGO|HOME'; } 2>/dev/null; exit 0"),
            ("fds", "ls /proc/$$/fd | tr '\\n' ' '"),
            (
                "status",
                "grep -E 'NoNewPrivs|CapEff|CapBnd|CapInh|CapAmb' /proc/self/status | tr '\\n\\t' '  '",
            ),
            ("core", "ulimit -c; ulimit -n"),
        ],
    )
    .await;
    let text = async |name: &str| {
        let job = run(&stack, name, "null").await;
        serde_json::from_str::<String>(result(&job)).unwrap_or_else(|_| result(&job).to_owned())
    };
    assert_eq!(text("environ").await, "");
    assert_eq!(text("fds").await.trim(), "0 1 2");
    let status = text("status").await;
    assert!(status.contains("NoNewPrivs: 1"), "{status}");
    for set in ["CapInh", "CapEff", "CapBnd", "CapAmb"] {
        // The bounding set takes a right to lower, which only root has.
        if set != "CapBnd" || nix::unistd::getuid().is_root() {
            assert!(status.contains(&format!("{set}: 0000000000000000")), "{set}: {status}");
        }
    }
    assert_eq!(text("core").await, "0\n1024\n");
    stack.stop().await;
}

#[actix::test]
async fn a_program_of_another_user_is_that_user_and_nobody_else() {
    if !nix::unistd::getuid().is_root() {
        return; // only root can become another
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = stack_with(
        dir.path(),
        &[("id", "id -u; id -G | wc -w; kill -9 $PPID 2>/dev/null || echo safe")],
        |c| {
            c.user = Some("nobody".to_owned());
        },
    )
    .await;
    let done = run(&stack, "id", "null").await;
    let uid = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    assert_eq!(result(&done), format!(r#""{uid}\n1\nsafe\n""#));
    stack.stop().await;
}

/// A fork bomb is ended as soon as it is counted. These end by themselves after at most 200 processes and 20 seconds,
/// whatever the code under test does.
#[actix::test]
async fn more_processes_than_allowed_are_all_ended() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack_with(
        dir.path(),
        &[
            ("crowd", "i=0; while [ $i -lt 200 ]; do sleep 20 & i=$((i+1)); done; wait"),
            ("sessions", "i=0; while [ $i -lt 120 ]; do setsid sleep 20 & i=$((i+1)); done; wait"),
            ("doubling", r#"b() { [ $1 -gt 0 ] || exec sleep 20; b $(($1-1)) & b $(($1-1)) & wait; }; b 6"#),
            ("few", "sleep 0.4 & sleep 0.4 & wait; echo fine"),
        ],
        |command| command.processes_max = Some(50),
    )
    .await;
    for name in ["crowd", "sessions", "doubling"] {
        let refused = run(&stack, name, "null").await;
        let error = &refused.errors[0];
        assert_eq!(error.detail, "it had more than the 50 processes that it may have", "{name}");
        eventually("they are gone", async || marked(&refused.id.to_string()) == 0).await;
    }
    assert_eq!(result(&run(&stack, "few", "null").await), r#""fine\n""#);
    stack.stop().await;
    // So few that a control group, where there is one, refuses before we count.
    let script = "i=0; while [ $i -lt 200 ]; do sleep 20 & i=$((i+1)); done; exit 3";
    let stack = stack_with(dir.path(), &[("quick", script)], |command| command.processes_max = Some(4)).await;
    let refused = run(&stack, "quick", "null").await;
    assert_eq!(refused.errors[0].detail, "it had more than the 4 processes that it may have");
    stack.stop().await;
}

/// Processes that were started for a job.
fn marked(id: &str) -> usize {
    let mark = format!("STANDFAST_JOB_ID={id}");
    let has = |pid: &std::fs::DirEntry| {
        let environment = std::fs::read(pid.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(has).count()
}

/// A program that kills its keeper loses its job, and what has the job's mark is hunted.
#[actix::test]
async fn a_program_that_kills_its_keeper_leaves_nothing_that_has_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"setsid sleep 300 & echo $! $PPID >"$DIR/pid"; kill -9 $PPID; sleep 300"#;
    let stack = stack_of(dir.path(), &[("killer", script)]).await;
    let done = run(&stack, "killer", "null").await;
    assert!(done.errors[0].detail.contains("ended from outside"), "{:?}", done.errors);
    gone(&pids(dir.path(), "pid").await).await;
    stack.stop().await;
}

/// The limit of a command was cut to the default of a job, a minute.
#[actix::test]
async fn a_command_without_a_jobs_own_limit_runs_as_long_as_its_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack_with(dir.path(), &[("sleeps", "sleep 300")], |c| c.timeout_ms = Some(200)).await;
    let id = stack.submit(NewJob { timeout_ms: 0, ..job("sleeps", "null") }).await;
    assert_eq!(stack.done(id).await.errors[0].reason, Reason::TimedOut);
    let own = stack.submit(NewJob { timeout_ms: 100, ..job("sleeps", "null") }).await;
    assert_eq!(stack.done(own).await.errors[0].detail, "it ran longer than 100 ms");
    let longer = stack.submit(NewJob { timeout_ms: 90_000, ..job("sleeps", "null") }).await;
    assert!(stack.done(longer).await.errors[0].detail.starts_with("it ran longer than the 200 ms"));
    stack.stop().await;
}

/// A node keeps its own files private; what a program writes is for whom the operator meant it when the node was started.
#[actix::test]
async fn files_of_a_program_have_the_modes_of_the_mask_that_the_node_was_started_with() {
    let dir = tempfile::tempdir().unwrap();
    jobs::helper::programs_have_umask(0o027);
    let stack = stack_of(dir.path(), &[("mask", "umask")]).await;
    assert_eq!(result(&run(&stack, "mask", "0").await), "\"0027\\n\"");
}
