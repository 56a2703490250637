//! The `standfast` binary. Placeholder until its first commit.
fn main() {}
