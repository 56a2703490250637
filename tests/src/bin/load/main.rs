//! Load for the benchmarks in `infra/bench`: one line per metric on standard output.
//!
//! ```text
//! load jobs FRONT CONSOLE round      enqueue, bulk, drain and latency of a running stack
//! load jobs FRONT CONSOLE drain      bulk and drain alone
//! load jobs FRONT CONSOLE latency    latency alone
//! load jobs FRONT CONSOLE rescue     a worker crashes: when does its job run again?
//! load http URL RATE SECONDS [close] answers at a fixed rate: p50 and p99
//! load node-killed                   starts a stack on RabbitMQ; a runner's process is killed with -9
//! load failover                      starts both stacks; the primary database is killed: first write after it
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod http;
mod jobs;
mod kills;

use std::process::ExitCode;

/// One thread: the machine's other cores belong to the stack under load.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["jobs", front, _, "round"] => jobs::round(front).await,
        ["jobs", front, _, "drain"] => jobs::drained(front).await,
        ["jobs", front, _, "latency"] => jobs::latency(front).await,
        ["jobs", front, console, "rescue"] => jobs::rescue(front, console).await,
        ["http", url, rate, seconds, ref close @ ..] if close.is_empty() || close == ["close"] => {
            let (Ok(rate), Ok(seconds)) = (rate.parse(), seconds.parse()) else { return usage() };
            http::at_rate(url, rate, seconds, !close.is_empty()).await;
        }
        ["node-killed"] => kills::node_killed().await,
        ["failover"] => kills::failover().await,
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: load jobs FRONT CONSOLE round|drain|latency|rescue | load http URL RATE SECONDS [close] | load node-killed | load failover"
    );
    ExitCode::from(2)
}

fn say(metric: &str, value: f64) {
    println!("{metric} {value:.2}");
}
