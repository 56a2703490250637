//! Memory that goes back to the system once a flood is over.
//!
//! glibc keeps what was freed: it raises its threshold for memory of its own mapping with the first large piece that is
//! freed, and each thread's arena then grows to the peak of that thread. So the threshold is fixed, and what is free in
//! the arenas is given back when it is much.

/// A piece of this size or more is mapped by itself and unmapped when it is freed: a hashed password (19 MiB), a body.
/// What is used many times a second is smaller, or kept by its owner.
const OWN_MAPPING_BYTES: i32 = 1 << 20;
/// Free memory worth giving back.
const WORTH_BYTES: usize = 64 << 20;
/// How often it is looked for.
const EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// Fixes the thresholds. Before the first thread is started.
pub fn fix_thresholds() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the allocator is told by a C function")]
    // SAFETY: it changes numbers of the allocator, and there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, OWN_MAPPING_BYTES);
    }
}

/// Gives back what is free in the arenas, whenever it is much. Never ends.
pub async fn give_back() {
    let mut settled = resident();
    loop {
        tokio::time::sleep(EVERY).await;
        if resident() > settled + WORTH_BYTES {
            // Walking the arenas takes milliseconds of their locks: not on a thread that serves.
            let _ = tokio::task::spawn_blocking(trim).await;
            settled = resident();
        } else {
            settled = settled.min(resident());
        }
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the allocator is asked by C functions")]
    // SAFETY: both may be called at any time from any thread.
    unsafe {
        if libc::mallinfo2().fordblks >= WORTH_BYTES {
            libc::malloc_trim(0);
        }
    }
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident() -> usize {
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = told.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64 MiB in small pieces from many threads' arenas, freed but for a few that pin their ends.
    #[test]
    fn what_is_freed_in_the_arenas_goes_back_to_the_system() {
        // In a process of its own: other tests of this one take memory at the same time.
        const ALONE: &str = "STANDFAST_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let this = std::env::current_exe().expect("a test is a file");
            let name = "memory::tests::what_is_freed_in_the_arenas_goes_back_to_the_system";
            let alone = std::process::Command::new(this).args(["--exact", name]).env(ALONE, "1").output();
            let output = alone.expect("it starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        fix_thresholds();
        let before = resident();
        let threads = (0..4).map(|_| {
            std::thread::spawn(|| {
                let mut pieces: Vec<Vec<u8>> = (0..10_000).map(|_| vec![1; 8 << 10]).collect();
                let peak = resident();
                let pin = pieces.pop();
                drop(pieces);
                (pin, peak)
            })
        });
        let ended: Vec<_> = threads.map(|thread| thread.join().expect("it only allocates")).collect();
        let peak = ended.iter().map(|(_, peak)| *peak).max().unwrap_or(0);
        assert!(peak > before + (60 << 20), "the test takes memory: {before} → {peak}");
        trim();
        assert!(resident() < before + (40 << 20), "{before} → {peak} → {}", resident());
    }
}
