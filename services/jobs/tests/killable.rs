//! Work that cannot be interrupted is ended all the same: it runs in a process that is killed.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use clock::WallMs;
use jobs::Config;
use jobstore::NewJob;
use messages::job::{Reason, State};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use stack::{Handlers, Stack, config, eventually};
use supervision::Intervention;
use tokio::sync::{Mutex, MutexGuard};

/// The tests look at the children of this process, so they take turns.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Helpers of this process that do such work, and have not ended.
fn helpers() -> Vec<i32> {
    let own = std::process::id().to_string();
    let is_ours = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
        let mut rest = rest.split(' ');
        let (state, parent) = (rest.next().unwrap_or("Z"), rest.next().unwrap_or_default());
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        state != "Z" && parent == own && line.ends_with(b"__helper\0work\0")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

async fn gone(pid: i32) {
    eventually("the helper is gone", async || !helpers().contains(&pid)).await;
}

/// The one helper, as soon as it is there.
async fn helper() -> i32 {
    let mut seen = Vec::new();
    eventually("one helper is at work", || {
        seen = helpers();
        std::future::ready(seen.len() == 1)
    })
    .await;
    seen[0]
}

/// Until the next is started there is none: a helper that is being ended is not taken for another.
async fn none() {
    eventually("no helper is left", async || helpers().is_empty()).await;
}

struct Files {
    _dir: tempfile::TempDir,
    root: PathBuf,
    /// A file that takes many minutes to read.
    endless: PathBuf,
    small: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

async fn files() -> Files {
    let alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (endless, small) = (root.join("endless"), root.join("small"));
    std::fs::File::create(&endless).unwrap().set_len(1 << 40).unwrap();
    std::fs::write(&small, "abc").unwrap();
    Files { _dir: dir, root, endless, small, _alone: alone }
}

fn digest(path: &Path) -> NewJob {
    NewJob { max_attempts: 1, ..NewJob::new("digest", json!({ "path": path }).to_string()) }
}

fn thumbnail(image: &[u8]) -> NewJob {
    let payload = json!({"image": STANDARD.encode(image), "width": 16, "height": 16});
    NewJob { max_attempts: 1, ..NewJob::new("thumbnail", payload.to_string()) }
}

async fn runner(files: &Files, change: impl Fn(&mut Config)) -> Stack {
    let mut config = Config { roots: vec![files.root.clone()], concurrency: 1, ..config() };
    change(&mut config);
    Stack::with(config, Handlers::new()).await
}

/// After a time-out or cancel the work went on, on threads that nobody could end: 45 of them, with 12 GB.
#[actix::test]
async fn a_time_out_a_cancel_a_broken_worker_and_a_stop_end_the_process_that_does_the_work() {
    let files = files().await;
    let stack = runner(&files, |_| {}).await;

    let again_and_again = NewJob { timeout_ms: 300, max_attempts: 100, ..digest(&files.endless) };
    let id = stack.submit(again_and_again).await;
    let pid = helper().await;
    assert_eq!(stack.until(id, |job| !job.errors.is_empty()).await.errors[0].reason, Reason::TimedOut);
    gone(pid).await;
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    assert_eq!(stack.done(id).await.state, State::Cancelled);
    none().await;

    let id = stack.submit(digest(&files.endless)).await;
    let pid = helper().await;
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    assert_eq!(stack.done(id).await.state, State::Cancelled);
    gone(pid).await;
    none().await;

    for fault in [Intervention::Panic, Intervention::Exit] {
        let id = stack.submit(digest(&files.endless)).await;
        let pid = helper().await;
        stack.break_child("workers/workers-1", fault);
        stack.until(id, |job| !job.errors.is_empty()).await;
        gone(pid).await;
        stack.store.cancel(id, WallMs::now()).await.unwrap();
        assert_eq!(stack.done(id).await.state, State::Cancelled);
        none().await;
    }

    let id = stack.submit(digest(&files.endless)).await;
    let pid = helper().await;
    stack.root.stop().await;
    gone(pid).await;
    assert_eq!(stack.get(id).await.state, State::Available, "handed back");
    stack.stop().await;
    none().await;
}

#[actix::test]
async fn there_are_never_more_helpers_than_configured_and_a_killed_one_counts_until_it_has_ended() {
    let files = files().await;
    let stack = runner(&files, |config| (config.concurrency, config.helpers_max) = (16, Some(2))).await;
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(stack.submit(NewJob { timeout_ms: 100, max_attempts: 2, ..digest(&files.endless) }).await);
    }
    // What needs no helper goes on meanwhile.
    let text = stack.submit(NewJob::new("digest", json!({"text": "x".repeat(100_000)}).to_string())).await;
    let mut most = 0;
    for id in ids.into_iter().chain([text]) {
        stack
            .until(id, |job| {
                most = most.max(helpers().len());
                job.state.is_final()
            })
            .await;
    }
    assert!((1..=2).contains(&most), "{most}");
    let after = stack.submit(digest(&files.small)).await;
    assert_eq!(stack.done(after).await.state, State::Completed);
    stack.stop().await;
}

#[actix::test]
async fn the_crash_of_a_helper_is_the_failure_of_its_job_with_a_reason_and_nothing_else() {
    let files = files().await;
    let stack = runner(&files, |_| {}).await;
    for (signal, says) in [
        (Signal::SIGILL, "its process ended: signal: 4 (SIGILL)"),
        (Signal::SIGXCPU, "it used more processor time than it may"),
        (Signal::SIGABRT, "most likely because it wanted more memory"),
        (Signal::SIGKILL, "most likely because it wanted more memory"),
    ] {
        let id = stack.submit(digest(&files.endless)).await;
        kill(Pid::from_raw(helper().await), signal).unwrap();
        let job = stack.done(id).await;
        assert_eq!(job.errors[0].reason, Reason::Failed);
        assert!(job.errors[0].detail.contains(says), "{}", job.errors[0].detail);
        none().await;
    }
    // One that ends while it has nothing to do is no job's failure.
    for _ in 0..2 {
        let id = stack.submit(digest(&files.small)).await;
        assert_eq!(stack.done(id).await.state, State::Completed);
        let idle = helper().await;
        kill(Pid::from_raw(idle), Signal::SIGKILL).unwrap();
        gone(idle).await;
    }
    stack.stop().await;
}

#[actix::test]
async fn a_helper_is_used_again_and_inherits_nothing() {
    let files = files().await;
    let leaked = std::fs::File::open(&files.small).unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let stack = runner(&files, |_| {}).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let id = stack.submit(digest(&files.small)).await;
        let result = stack.done(id).await.result().unwrap();
        assert_eq!(result["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        seen.push(helper().await);
    }
    let pid = seen[0];
    assert_eq!(seen, [pid; 3]);
    assert!(std::fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    // Its standard streams, and two more of its socket: one for each of its threads.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_str().unwrap();
        assert!(target == "/dev/null" || target.starts_with("socket:"), "{target}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for bounded in ["Max cpu time", "Max address space", "Max file size", "Max core file size"] {
        let line = limits.lines().find(|line| line.starts_with(bounded)).unwrap();
        assert!(!line[bounded.len()..].trim().starts_with("unlimited"), "{line}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapBnd:\t0000000000000000") || !nix::unistd::getuid().is_root(), "{status}");
    stack.stop().await;
    gone(pid).await;
}

#[actix::test]
async fn what_is_no_file_with_an_end_ends_as_a_job() {
    let files = files().await;
    let fifo = files.root.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", files.root.join("zero")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(files.root.join("socket")).unwrap();
    let stack = runner(&files, |_| {}).await;
    for name in ["fifo", "zero", "socket", ".", "none"] {
        let id = stack.submit(digest(&files.root.join(name))).await;
        assert_eq!(stack.done(id).await.errors[0].reason, Reason::Refused, "{name}");
    }
    // A file that grows faster than anybody reads it: it is as long as it was when it was opened.
    let growing = files.root.join("growing");
    std::fs::write(&growing, vec![7; 1 << 20]).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (told, path) = (stop.clone(), growing.clone());
    let grows = std::thread::spawn(move || {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        for _ in 0..2_000 {
            if told.load(std::sync::atomic::Ordering::SeqCst) {
                break;
            }
            std::io::Write::write_all(&mut file, &[7; 64 << 10]).unwrap();
        }
    });
    let id = stack.submit(digest(&growing)).await;
    let job = stack.done(id).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    grows.join().unwrap();
    assert!(job.result().unwrap()["bytes"].as_u64() >= Some(1 << 20), "{job:?}");
    stack.stop().await;
}

/// A progressive JPEG of grey pixels: one scan of the mean values, and then `scans` of one coefficient each, which a few bytes
/// declare to be zero in all blocks.
fn progressive(side: u16, scans: u8) -> Vec<u8> {
    let segment = |marker: u8, body: &[u8]| {
        let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
        [&[0xff, marker][..], &length, body].concat()
    };
    let table = |class: u8, symbol: u8| {
        let mut body = vec![class, 1];
        body.extend([0; 15]);
        body.push(symbol);
        segment(0xc4, &body)
    };
    let blocks = usize::from(side).div_ceil(8).pow(2);
    let [high, low] = side.to_be_bytes();
    let mut out = vec![0xff, 0xd8];
    out.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
    out.extend(segment(0xc2, &[8, high, low, high, low, 1, 1, 0x11, 0]));
    out.extend(table(0x00, 0));
    out.extend(table(0x10, 0xe0)); // a run of 2^14 blocks at least without any
    out.extend(segment(0xda, &[1, 1, 0, 0, 0, 0]));
    out.extend(vec![0; blocks.div_ceil(8) + 1]); // a bit for each block: no difference
    for k in 1..=scans {
        let k = (k - 1) % 63 + 1;
        out.extend(segment(0xda, &[1, 1, 0, k, k, 0]));
        out.extend(vec![0; (blocks.div_ceil(1 << 14) * 15).div_ceil(8) + 1]);
    }
    out.extend([0xff, 0xd9]);
    out
}

#[actix::test]
async fn a_jpeg_of_many_scans_is_refused_and_one_of_some_is_ended_with_its_time() {
    let files = files().await;
    let stack = runner(&files, |_| {}).await;
    let refused = async |image: &[u8]| {
        let id = stack.submit(thumbnail(image)).await;
        let job = stack.done(id).await;
        let error = job.errors.first().unwrap_or_else(|| panic!("{:?}", job.result()));
        assert_eq!(error.reason, Reason::Refused);
        error.detail.clone()
    };
    let small = stack.submit(thumbnail(&progressive(64, 20))).await;
    assert_eq!(stack.done(small).await.result().map(|it| it["width"].clone()), Some(Value::from(16)));
    for scans in [80, 200] {
        assert_eq!(refused(&progressive(8_000, scans)).await, "the image has more than 64 scans");
    }
    assert!(refused(&progressive(20_000, 1)).await.contains("limit"), "its sides");

    let slow = stack.submit(NewJob { timeout_ms: 50, ..thumbnail(&progressive(8_000, 60)) }).await;
    assert_eq!(stack.done(slow).await.errors[0].reason, Reason::TimedOut);
    none().await;
    stack.stop().await;
}
