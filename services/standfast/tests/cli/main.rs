//! The binary from outside: what is typed, what is answered, what it exits with.

mod process;

mod config;
mod files;
mod help;
mod node;
mod operating;
mod output;
mod start;
