//! Thousands of jobs on real files, from sixteen clients, while everything that can be killed is killed.
//!
//! What must hold afterwards is what a user relies on: each acknowledged job completed exactly once with the right
//! result, no attempt recorded that did not start, every child running, no fault left. `STANDFAST_SCENARIO=long` runs
//! it for five minutes.

#![allow(clippy::print_stdout, reason = "what was killed, and how long it was away, is told")]

mod judge;
mod storm;
mod work;

use std::sync::Arc;
use std::time::Duration;

use teststack::{TestStack, watch_restarts};

use crate::storm::{Storm, Victims};
use crate::work::Work;

const FILES: usize = 5_000;
const IMAGES: usize = 200;
const CLIENTS: usize = 16;

/// Each of them wants the whole machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long the clients take to submit everything, and so how long things are killed.
fn duration() -> Duration {
    let long = std::env::var_os("STANDFAST_SCENARIO").is_some_and(|v| v == "long");
    Duration::from_secs(if long { 300 } else { 40 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_one_process_loses_nothing_while_its_parts_and_itself_are_killed() {
    let _alone = ALONE.lock().await;
    let work = Work::collect(FILES, IMAGES);
    let stack = TestStack::one_process().config(&work.config()).start().await;
    run(stack, work, Victims::ChildrenAndTheProcess).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_rabbitmq_loses_nothing_while_nodes_and_the_broker_are_killed() {
    let _alone = ALONE.lock().await;
    let work = Work::collect(FILES, IMAGES);
    let stack = TestStack::on_rabbitmq().config(&work.config()).start().await;
    run(stack, work, Victims::ChildrenNodesAndTheBroker).await;
}

async fn run(stack: TestStack, work: Work, victims: Victims) {
    let work = Arc::new(work);
    let (restarts, watcher) = watch_restarts(&stack);
    let clients = work::submit_all(&work, &stack.fronts, CLIENTS, duration());
    let storm = Storm::new(stack, victims, duration()).rage().await;
    let accepted = clients.await.expect("every job is acknowledged in the end");

    let Storm { stack, report, .. } = storm;
    println!("{report}");
    stack.serving(Duration::from_secs(60)).await;
    judge::every_job_completed_once_and_right(&stack, &work, &accepted).await;
    judge::every_fault_is_undone(&stack).await;
    stack.all_running(Duration::from_secs(30)).await;
    watcher.abort();
    if let Some((count, median, longest)) = restarts.summary() {
        println!(
            "{count} restarts seen, median {median:.1?}, longest {longest:.1?}; number, median and longest of each:"
        );
        println!("{}", restarts.table());
    }
}
