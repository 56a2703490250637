//! A console over a made-up stack in which something crashes now and then: to work on the page.
//! `cargo run -p standfast-console --example preview -- 127.0.0.1:7071`

#![allow(clippy::print_stdout, reason = "it is for people")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::Node;
use console::Config;
use faults::{Kind, Limits, Request};
use uuid::Uuid;

#[actix::main]
async fn main() {
    let (_directory, bus) = common::embedded();
    let one = Node::start("laptop", &bus).await;
    one.add("database", "database-1", &common::DATABASE, 0).await;
    one.add("database", "database-2", &common::DATABASE, 0).await;
    one.add("jobs", "jobs-1", &common::JOBS, 256).await;
    one.add("jobs", "jobs-2", &common::JOBS, 8).await;
    let two = Node::start("cellar", &bus).await;
    two.add("jobs", "jobs-3", &common::JOBS, 4).await;
    let listen = std::env::args().nth(1).map(|text| text.parse().expect("an address"));
    let url = one.console(Config::default(), listen).await;
    println!("{url}");
    let kinds = [Kind::Panic, Kind::Exit, Kind::Hang, Kind::Panic, Kind::Slow];
    for kind in kinds.into_iter().cycle() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let workers = ["/laptop/jobs/jobs-1/workers/*", "/laptop/database/**", "/cellar/jobs/**"];
        let target = workers[rand::random_range(0..workers.len())];
        let asked = Request { for_ms: Some(4_000), probability: Some(0.03), ..Request::new(target, kind) };
        let fault = asked.check(&Limits::default()).expect("in range");
        for node in [&one, &two] {
            let _ = node.agent.set(Uuid::now_v7(), &fault);
        }
    }
}
