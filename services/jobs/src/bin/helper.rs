//! The helper alone, for the tests of this crate: `standfast` itself does the same under a hidden subcommand.

fn main() -> std::process::ExitCode {
    jobs::helper::asked(std::env::args_os().skip(1)).unwrap_or(std::process::ExitCode::from(2))
}
