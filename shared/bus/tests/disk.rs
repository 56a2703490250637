//! The embedded bus and its disk: kill -9, a full disk, files of another process, of a newer version, damaged.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bus::{Bus, BusConfig, BusError, Event, From, Message, PublishError, QueueSpec, Refusal};

const SOON: Duration = Duration::from_secs(20);

fn config(dir: &Path) -> BusConfig {
    BusConfig { segment_bytes: 64 << 10, cache_bytes: 32 << 10, ..BusConfig::embedded(dir) }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

/// Everything that is ready in the queue, acked.
async fn drain(bus: &Bus, queue: &str) -> Vec<String> {
    let mut consumer = bus.consume(queue, u16::MAX).await.unwrap();
    let mut found = Vec::new();
    while let Some(delivery) = consumer.try_next() {
        found.push(text(&delivery.message));
        delivery.ack();
    }
    found
}

async fn log_texts(bus: &Bus, log: &str) -> Vec<String> {
    let log = bus.log(log);
    let bounds = log.bounds().await.unwrap();
    let mut reader = log.read(From::First).await.unwrap();
    let mut found = Vec::new();
    while (found.len() as u64) < bounds.next - bounds.first {
        found.push(text(&reader.next().await.unwrap().message));
    }
    found
}

/// The child of the next test: publishes, appends and acks, and prints a line for each thing it was promised.
#[test]
#[allow(unreachable_code, reason = "it ends by being killed")]
#[ignore = "run by its parent, nothing_confirmed_is_lost_by_kill_nine, and killed"]
fn child() {
    let dir = PathBuf::from(std::env::var("STANDFAST_TEST_DIR").unwrap());
    let round = std::env::var("STANDFAST_TEST_ROUND").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bus = Bus::open(&config(&dir), "child").unwrap();
        bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
        let tell = |line: String| writeln!(std::io::stdout(), "{line}").unwrap();
        let publish = async {
            for n in 0.. {
                let name = format!("{round}/{n}");
                bus.publish("q", Message::new(name.clone())).await.unwrap();
                tell(format!("published {name}"));
            }
        };
        let append = async {
            for n in 0.. {
                let batch = (0..3).map(|i| Message::new(format!("{round}/{n}/{i}"))).collect();
                bus.log("l").append(batch).await.unwrap();
                tell(format!("appended {round}/{n}"));
            }
        };
        let consume = async {
            let mut consumer = bus.consume("q", 8).await.unwrap();
            loop {
                let delivery = consumer.next().await;
                // Told before the ack: from here on, the message may be gone.
                tell(format!("acking {}", text(&delivery.message)));
                delivery.ack();
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        };
        tokio::join!(publish, append, consume);
    });
}

/// Twenty times: a process that publishes, appends and acks is killed at a random moment. Whatever it was promised
/// is there: each confirmed message unless it may have been acked, each confirmed entry, in order and once.
#[tokio::test]
async fn nothing_confirmed_is_lost_by_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let (mut confirmed, mut acking) = (BTreeSet::new(), BTreeSet::new());
    let mut appended = Vec::new();
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("STANDFAST_TEST_DIR", dir.path())
            .env("STANDFAST_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        // From its first promise on, and then at any moment: random by the clock and by the machine's load.
        let kill_after = Duration::from_micros(rand::random_range(0..80_000));
        let mut killer = None;
        let id = child.id();
        for line in lines.lines() {
            let line = line.unwrap();
            let Some((what, name)) = line.split_once(' ') else { continue };
            match what {
                "published" => drop(confirmed.insert(name.to_owned())),
                "acking" => drop(acking.insert(name.to_owned())),
                "appended" => appended.push(name.to_owned()),
                _ => continue,
            }
            killer.get_or_insert_with(|| {
                std::thread::spawn(move || {
                    std::thread::park_timeout(kill_after);
                    let pid = nix::unistd::Pid::from_raw(id.try_into().unwrap());
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
                })
            });
        }
        assert!(killer.is_some(), "the child promised nothing in round {round}");
        child.wait().unwrap();
    }
    let bus = Bus::open(&config(dir.path()), "parent").unwrap();
    let left = drain(&bus, "q").await;
    let unique: BTreeSet<_> = left.iter().cloned().collect();
    assert_eq!(unique.len(), left.len(), "a message is there twice");
    for name in confirmed.difference(&acking) {
        assert!(unique.contains(name), "{name} was confirmed, never acked, and is lost");
    }
    let log = log_texts(&bus, "l").await;
    let whole: BTreeSet<_> = log.iter().collect();
    assert_eq!(whole.len(), log.len(), "an entry is there twice");
    let mut at = 0;
    for name in &appended {
        let start = log.iter().skip(at).position(|entry| *entry == format!("{name}/0"));
        at += start.unwrap_or_else(|| panic!("{name} was confirmed, and is lost or out of order"));
        for i in 0..3 {
            assert_eq!(log.get(at + i), Some(&format!("{name}/{i}")), "a batch stays together");
        }
    }
    assert!(!confirmed.is_empty() && !appended.is_empty());
}

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "cannot mount a tmpfs");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A full disk refuses publishes with an error of its own; reads and acks go on; with space back, so do publishes.
/// And nothing that was confirmed before, in between or after is lost.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return as_root_of_a_namespace("a_full_disk_refuses_and_recovers");
    }
    let disk = SmallDisk::mount(2 << 20);
    let dir = disk.0.path().join("bus");
    let fill = disk.0.path().join("filler");
    let mut expected = Vec::new();
    {
        let bus = Bus::open(&config(&dir), "n").unwrap();
        bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
        let log = bus.log("l");
        log.append(vec![Message::new("before")]).await.unwrap();
        bus.publish("q", Message::new("before")).await.unwrap();
        expected.push("before".to_owned());
        fill_up(&fill);
        // What was made ready ahead still takes some.
        let full = loop {
            match log.append(vec![Message::new(vec![b'x'; 1000])]).await {
                Ok(()) => expected.push("x".repeat(1000)),
                Err(error) => break error,
            }
        };
        assert_eq!(full, PublishError::Refused(Refusal::DiskFull));
        assert!(full.retryable());
        let full = loop {
            if let Err(error) = bus.publish("q", Message::new(vec![b'x'; 1000])).await {
                break error;
            }
        };
        assert_eq!(full, PublishError::Refused(Refusal::DiskFull));
        // Reads and acks go on.
        assert_eq!(log_texts(&bus, "l").await, expected);
        assert_eq!(drain(&bus, "q").await[0], "before");
        let refused = log.append(vec![Message::new(vec![b'y'; 40_000])]).await;
        assert_eq!(refused, Err(PublishError::Refused(Refusal::DiskFull)));
        fs::remove_file(&fill).unwrap();
        log.append(vec![Message::new("after")]).await.unwrap();
        expected.push("after".to_owned());
        bus.publish("q", Message::new("after")).await.unwrap();
        assert_eq!(drain(&bus, "q").await, ["after"]);
    }
    let bus = Bus::open(&config(&dir), "n").unwrap();
    assert_eq!(log_texts(&bus, "l").await, expected);
    assert!(drain(&bus, "q").await.is_empty(), "acks of the time without space were saved later");
}

/// Runs the test again as the root of a user namespace, which may mount.
fn as_root_of_a_namespace(test: &str) {
    let test = [std::env::current_exe().unwrap().to_str().unwrap(), test, "--exact", "--nocapture"]
        .map(str::to_owned);
    let status = Command::new("unshare").args(["--user", "--map-root-user", "--mount"]).args(test).status();
    assert!(status.unwrap().success(), "this test mounts a tmpfs: run it as root, or allow user namespaces");
}

fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [64 << 10, 4 << 10, 256, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Bus::open(&config(dir.path()), "n").unwrap();
    let refused = Bus::open(&config(dir.path()), "n").err().unwrap();
    assert!(matches!(refused, BusError::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop(first);
    Bus::open(&config(dir.path()), "n").unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = Bus::open(&config(&file.join("bus")), "n").err().unwrap();
    assert!(matches!(refused, BusError::Io { .. }), "{refused}");
    assert!(refused.to_string().contains("file/bus"), "{refused}");
    let wrong =
        Bus::open(&BusConfig { url: "rabbit://x".into(), ..BusConfig::default() }, "n").err().unwrap();
    assert!(matches!(wrong, BusError::Url { .. }), "{wrong}");
}

/// Three segments of a queue, oldest first.
async fn three_segments(dir: &Path) -> Vec<PathBuf> {
    let bus = Bus::open(&config(dir), "n").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    for n in 0..30 {
        bus.publish("q", Message::new(format!("{n} {}", "x".repeat(5000)))).await.unwrap();
    }
    drop(bus);
    let mut files: Vec<_> = fs::read_dir(dir.join("queues/q")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    files
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_rest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let files = three_segments(dir.path()).await;
    let last = files.last().unwrap();
    let end = fs::metadata(last).unwrap().len();
    let bytes = fs::read(last).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap() as u64;
    // The last record loses its last bytes; garbage follows.
    write_at(last, used - 2, &[0xAA; 40]);
    assert!(end >= used);
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    let left = drain(&bus, "q").await;
    assert_eq!(left.len(), 29);
    bus.publish("q", Message::new("new")).await.unwrap();
    drop(bus);
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    assert_eq!(drain(&bus, "q").await, ["new"]);
}

#[tokio::test]
async fn newer_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = three_segments(dir.path()).await;
    write_at(&files[1], 8, &7u32.to_le_bytes());
    let refused = Bus::open(&config(dir.path()), "n").err().unwrap();
    assert!(matches!(refused, BusError::NewerFormat { found: 7, known: 1, .. }), "{refused}");
}

fn kept_aside(dir: &Path) -> usize {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|e| e == "damaged")).count()
}

/// A flipped bit in a queue's segment ended the start with 1, and so a whole stack.
#[tokio::test]
async fn a_damaged_segment_of_a_queue_costs_what_was_in_the_damaged_place() {
    // Which file, where, with what; and how many of 30 messages are left at least.
    let ways: [(&str, usize, u64, &[u8], usize); 6] = [
        ("a record of the first", 0, 1000, b"!", 29),
        ("a record of the last", usize::MAX, 100, b"!", 29),
        ("the header of the first", 0, 0, b"nothing known", 15),
        ("the header of the last", usize::MAX, 0, &[0; 32], 15),
        ("a length in the middle one", 1, 32, &[0xff; 4], 15),
        ("the name in a header", 1, 16, &[9; 8], 15),
    ];
    for (way, which, at, bytes, left) in ways {
        let dir = tempfile::tempdir().unwrap();
        let files = three_segments(dir.path()).await;
        write_at(&files[which.min(files.len() - 1)], at, bytes);
        let bus = Bus::open(&config(dir.path()), "n").unwrap_or_else(|e| panic!("{way}: {e}"));
        let found = drain(&bus, "q").await;
        assert!((left..30).contains(&found.len()), "{way}: {}", found.len());
        assert_eq!(kept_aside(&dir.path().join("queues/q")), 1, "{way}");
        bus.publish("q", Message::new("new")).await.unwrap();
        drop(bus);
        let bus = Bus::open(&config(dir.path()), "n").unwrap();
        assert_eq!(drain(&bus, "q").await, ["new"], "{way}");
    }
}

#[tokio::test]
async fn a_queue_whose_description_is_damaged_is_there_again_when_it_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    three_segments(dir.path()).await;
    fs::write(dir.path().join("queues/q/queue.json"), "{").unwrap();
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    assert_eq!(drain(&bus, "q").await.len(), 30);
}

/// Segments of a log of 30 entries, oldest first.
async fn log_segments(dir: &Path) -> Vec<PathBuf> {
    let bus = Bus::open(&config(dir), "n").unwrap();
    let log = bus.log("l");
    for n in 0..30 {
        log.append(vec![Message::new(format!("{n} {}", "x".repeat(5000)))]).await.unwrap();
    }
    drop((log, bus));
    let all = fs::read_dir(dir.join("logs/l")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    files
}

/// A log has no gaps: it begins after what is damaged, or ends before it; and whoever reads is told, and does not hang.
#[tokio::test]
async fn a_damaged_segment_of_a_log_is_set_aside_and_the_rest_is_read() {
    let ways: [(&str, usize, u64, &[u8], bool); 6] = [
        ("the header of the first", 0, 0, b"nothing known", true),
        ("a record of the first", 0, 6000, b"!", true),
        ("a length in the middle one", 1, 32, &[0xff; 4], true),
        ("zeros in the middle one", 1, 32, &[0; 6000], true),
        ("the header of the last", usize::MAX, 0, &[0; 32], false),
        ("a record of the last", usize::MAX, 100, b"!", false),
    ];
    for (way, which, at, bytes, keeps_end) in ways {
        let dir = tempfile::tempdir().unwrap();
        let files = log_segments(dir.path()).await;
        write_at(&files[which.min(files.len() - 1)], at, bytes);
        let bus = Bus::open(&config(dir.path()), "n").unwrap_or_else(|e| panic!("{way}: {e}"));
        let log = bus.log("l");
        let reading = async {
            let mut reader = log.read(From::First).await.unwrap();
            let mut last = None;
            while last.is_none_or(|last| last + 1 < 30) {
                // At a shortened end nothing follows; an error is told once, and then the reader goes on behind it.
                let end = log.bounds().await.unwrap().next;
                if last.map_or(0, |last: u64| last + 1) >= end {
                    break;
                }
                match reader.next().await {
                    Ok(entry) => {
                        assert!(text(&entry.message).starts_with(&format!("{} ", entry.offset)), "{way}");
                        last = Some(entry.offset);
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
            last
        };
        let last = tokio::time::timeout(SOON, reading).await.unwrap_or_else(|_| panic!("{way}: it hangs"));
        assert_eq!(last == Some(29), keeps_end, "{way}: {last:?}");
        assert_eq!(kept_aside(&dir.path().join("logs/l")), 1, "{way}");
        let next = log.bounds().await.unwrap().next;
        log.append(vec![Message::new("new")]).await.unwrap();
        assert_eq!(log.bounds().await.unwrap().next, next + 1, "{way}");
        drop((log, bus));
        let bus = Bus::open(&config(dir.path()), "n").unwrap();
        let mut reader = bus.log("l").read(From::Offset(next)).await.unwrap();
        assert_eq!(text(&reader.next().await.unwrap().message), "new", "{way}");
    }
}

/// Space comes back: segments whose messages are all acked are deleted, and one old message does not keep many.
#[tokio::test]
async fn acked_segments_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let mut consumer = bus.consume("q", 2).await.unwrap();
    bus.publish("q", Message::new("kept")).await.unwrap();
    let kept = consumer.next().await;
    for _ in 0..400 {
        bus.publish("q", Message::new(vec![7; 5000])).await.unwrap();
        consumer.next().await.ack();
    }
    let files = || fs::read_dir(dir.path().join("queues/q")).unwrap().count();
    let settled = async {
        // 2 MB went through; what is left is the active segment, a few waiting to be written again, and the spec.
        while files() > 13 {
            bus.publish("q", Message::new("tick")).await.unwrap();
            consumer.next().await.ack();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, settled).await.unwrap_or_else(|_| panic!("{} files are left", files()));
    drop((kept, consumer, bus));
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    assert_eq!(drain(&bus, "q").await, ["kept"]);
}

/// truncate_before gives back whole segments; readers that were before it go on at what is left.
#[tokio::test]
async fn a_truncated_log_keeps_what_is_after() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    let log = bus.log("l");
    let mut behind = log.read(From::First).await.unwrap();
    for n in 0..100 {
        log.append(vec![Message::new(format!("{n} {}", "x".repeat(3000)))]).await.unwrap();
    }
    assert_eq!(behind.next().await.unwrap().offset, 0);
    log.truncate_before(60).await.unwrap();
    let bounds = log.bounds().await.unwrap();
    assert!(bounds.first > 20 && bounds.first <= 60 && bounds.next == 100, "{bounds:?}");
    let mut first = log.read(From::Offset(3)).await.unwrap();
    assert_eq!(first.next().await.unwrap().offset, bounds.first);
    // It may have some in memory; then it jumps, and never goes back or invents.
    let mut last = 0;
    while last < 99 {
        let entry = tokio::time::timeout(SOON, behind.next()).await.unwrap().unwrap();
        assert!(entry.offset > last && text(&entry.message).starts_with(&format!("{} ", entry.offset)));
        last = entry.offset;
    }
    drop((behind, first, log, bus));
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    assert_eq!(bus.log("l").bounds().await.unwrap(), bounds);
}

/// A consumer that never comes costs a bounded amount of memory: bodies beyond `cache_bytes` are read from disk.
#[tokio::test]
async fn a_backlog_is_kept_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let before = resident_kib();
    for n in 0..40 {
        let batch =
            (0..50).map(|i| Message::new(format!("{:05} {}", n * 50 + i, "x".repeat(20_000)))).collect();
        bus.publish_all("q", batch).await.unwrap();
    }
    // 40 MB are queued.
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 25_000, "{grown} KiB");
    let mut consumer = bus.consume("q", 10).await.unwrap();
    for n in 0..2000 {
        let delivery = consumer.next().await;
        assert!(text(&delivery.message).starts_with(&format!("{n:05} ")));
        delivery.ack();
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A subscriber that never reads costs its capacity and no more.
#[tokio::test]
async fn a_slow_subscriber_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::open(&config(dir.path()), "n").unwrap();
    let mut slow = bus.subscribe("#", 100).await.unwrap();
    for _ in 0..100_000 {
        bus.broadcast("a", Message::new("x")).await.unwrap();
    }
    assert_eq!(slow.next().await, Event::Lagged(99_900));
    let mut left = 0;
    while slow.try_next().is_some() {
        left += 1;
    }
    assert_eq!(left, 100);
}
