//! The binary from outside: what is typed, what is answered, what it exits with.

mod process;

mod config;
mod help;
mod node;
mod start;
