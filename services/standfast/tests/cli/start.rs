//! What stands in the way of a start: each is one line, and nothing is lost.

use nix::sys::signal::Signal;

use crate::process::{Up, refused};

fn up(data: &str, more: &[&str]) -> String {
    let free = "127.0.0.1:0";
    let args = ["up", "--data", data, "--listen", free, "--tls", free, "--console", free, "--database", free];
    refused(&[&args[..], more].concat(), 1)
}

#[test]
fn a_data_directory_in_use_is_refused_and_its_user_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Up::spawn(directory.path(), &[]);
    first.until("it has the directory", |up| up.read("stderr").contains("instance joined"));
    let text = up(directory.path().join("data").to_str().unwrap(), &[]);
    assert!(text.contains("is in use by another process (process "), "{text}");
    assert!(text.contains("--data DIR"), "{text}");
    first.signal(Signal::SIGTERM);
    assert!(first.ended().success());
}

#[test]
fn a_data_directory_that_cannot_be_used_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(up(file.to_str().unwrap(), &[]).contains("is not a directory"));
    let newer = directory.path().join("newer");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("FORMAT"), "99\n").unwrap();
    assert!(up(newer.to_str().unwrap(), &[]).contains("written by a newer version of standfast"));
    // A file system that nobody can write to, also not root.
    assert!(up("/proc/standfast", &[]).contains("data directory /proc/standfast"));
}

#[test]
fn a_taken_port_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--console", "--listen", "--tls", "--database"] {
        let free = "127.0.0.1:0";
        let mut args = vec!["up", "--data", data.to_str().unwrap()];
        for other in ["--console", "--listen", "--tls", "--database"] {
            args.extend([other, if other == flag { &address } else { free }]);
        }
        let text = refused(&args, 1);
        assert!(text.contains(&address), "{flag}: {text}");
        assert!(text.contains("in use"), "{flag}: {text}");
    }
}
