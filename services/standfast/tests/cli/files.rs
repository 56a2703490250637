//! Whose the files of a node are.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::process::Up;

/// What group or others may do something with.
fn open_to_others(path: &Path) -> Vec<PathBuf> {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let mut found = Vec::new();
    if !meta.is_symlink() && meta.mode() & 0o077 != 0 {
        found.push(path.to_owned());
    }
    if meta.is_dir() {
        let entries = fs::read_dir(path).expect("it is ours");
        entries.flatten().for_each(|entry| found.extend(open_to_others(&entry.path())));
    }
    found
}

fn open_up(path: &Path) {
    let is_directory = path.is_dir();
    fs::set_permissions(path, fs::Permissions::from_mode(if is_directory { 0o755 } else { 0o644 }))
        .expect("ours");
    if is_directory {
        fs::read_dir(path).expect("ours").flatten().for_each(|entry| open_up(&entry.path()));
    }
}

/// Payloads, keys and what the edge stored were readable for every user of the machine.
#[test]
fn a_data_directory_is_for_the_user_of_the_node_alone_also_one_of_before() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut up = Up::start(directory.path());
    up.submit_digest("secret");
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
    assert!(data.join("edge-1/tls/development.pem").exists(), "keys are among them");
    assert!(data.join("database-1-jobs").is_dir(), "and payloads");
    up.signal(Signal::SIGTERM);
    assert!(up.ended().success());
    open_up(&data);
    let up = Up::start(directory.path());
    up.submit_digest("another");
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
}
