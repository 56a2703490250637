//! Real input: files that are on the machine anyway.

use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};

/// Larger files say nothing more, and take the gate's time.
const BYTES_MAX: u64 = 512 * 1024;

/// Where to look: the toolchain's documents and sources, the distribution's data and libraries.
#[must_use]
pub fn roots() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> =
        ["/usr/share", "/usr/lib/python3", "/usr/lib/git-core", "/usr/include"].map(PathBuf::from).into();
    if let Some(sysroot) = rust_sysroot() {
        roots.insert(0, sysroot.join("share"));
        roots.insert(1, sysroot.join("lib/rustlib"));
    }
    if let Some(home) =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".cargo")))
    {
        roots.push(home.join("registry/src"));
    }
    // Canonical, because the runner allows paths by what they are, not by what they are called.
    roots.retain_mut(|root| root.canonicalize().map(|real| *root = real).is_ok());
    roots
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

fn rust_sysroot() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = std::process::Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    Some(PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()))
}

/// At most `count` different regular files below [`roots`], spread evenly over all that are there.
#[must_use]
pub fn files(count: usize) -> Vec<PathBuf> {
    pick(count, |_| true)
}

/// At most `count` PNG images.
#[must_use]
pub fn pngs(count: usize) -> Vec<PathBuf> {
    pick(count, |path| path.extension().is_some_and(|e| e == "png"))
}

/// Keeps the `count` files whose names hash lowest: the same choice on each run, from every corner of the trees.
fn pick(count: usize, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut kept: BinaryHeap<(u64, PathBuf)> = BinaryHeap::new();
    let mut open = roots();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue }; // of the link itself: links are not followed
            let path = entry.path();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && wanted(&path) && path.to_str().is_some() {
                let rank = fnv(path.as_os_str().as_encoded_bytes());
                let worth = kept.len() < count || kept.peek().is_some_and(|(worst, _)| rank < *worst);
                if worth && std::fs::metadata(&path).is_ok_and(|m| m.len() <= BYTES_MAX) {
                    kept.push((rank, path));
                    if kept.len() > count {
                        kept.pop();
                    }
                }
            }
        }
    }
    kept.into_sorted_vec().into_iter().map(|(_, path)| path).collect()
}

/// FNV-1a, because the standard library's hash may change from one Rust to the next.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_real_files_and_the_choice_is_stable() {
        let first = files(5_000);
        assert_eq!(first.len(), 5_000, "fewer real files than the scenarios want below {:?}", roots());
        assert_eq!(first, files(5_000));
    }
}
