//! The live page in a real browser.

mod common;
#[path = "common/browser.rs"]
mod driver;

use std::time::Duration;

use common::Node;
use console::Config;
use driver::Browser;
use faults::{Kind, Request};
use supervision::Intervention;
use uuid::Uuid;

struct Stack {
    one: Node,
    two: Node,
    url: String,
    _directory: tempfile::TempDir,
}

async fn stack() -> Stack {
    let (directory, bus) = common::embedded();
    let one = Node::start("laptop", &bus).await;
    one.add("database", "database-1", &common::DATABASE, 0).await;
    one.add("database", "database-2", &common::DATABASE, 0).await;
    one.add("jobs", "jobs-1", &common::JOBS, 256).await;
    let two = Node::start("cellar", &bus).await;
    two.add("jobs", "jobs-2", &common::JOBS, 4).await;
    let url = one.console(Config::default(), None).await;
    Stack { one, two, url, _directory: directory }
}

fn row(path: &str, part: &str) -> String {
    format!("document.querySelector('[data-path=\"{path}\"] > .row {part}')")
}

/// Somebody points at a child, breaks it with a button, and sees it come back.
#[actix::test]
async fn the_browser_shows_a_restart_as_it_happens_and_a_button_causes_it() {
    let stack = stack().await;
    let mut browser = Browser::start().await;
    browser.open(&stack.url, 1400, 900).await;
    browser.until("document.getElementById('link').textContent === 'live'").await;
    browser.until("document.querySelectorAll('.cell').length === 256").await;
    let child = "/laptop/jobs/jobs-1/sweeper";
    browser
        .value("window.flashed = 0; document.addEventListener('animationstart', () => { window.flashed++ })")
        .await;
    browser.click(&format!("[data-path='{child}'] > .row")).await;
    browser.picture("chosen").await;
    browser.click("#tools button").await;
    browser.until(&format!("{}.textContent === '#2'", row(child, ".life"))).await;
    browser.until("flashes > 0").await;
    browser.until("document.querySelector('#incidents li .back').textContent.startsWith('back in')").await;
    browser.until("document.getElementById('n-restarts').textContent === '1'").await;
    assert_eq!(browser.value("document.querySelectorAll('#incidents li').length").await, 1, "told once");
    browser.picture("restarted").await;
    // One of the other node, and one of the 256.
    for path in ["/cellar/jobs/jobs-2/workers/workers-1", "/laptop/jobs/jobs-1/workers/workers-200"] {
        let node = if path.starts_with("/cellar") { &stack.two } else { &stack.one };
        node.root.intervene(path, Intervention::Panic, clock::now() + Duration::from_secs(5));
        browser
            .until(&format!("document.querySelector('[data-path=\"{path}\"]').dataset.restarts === '1'"))
            .await;
    }
    browser.until("document.querySelector('.sum-restarts').textContent === '1 restart'").await;
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}

#[actix::test]
async fn the_browser_lists_faults_in_force_and_a_button_clears_them() {
    let stack = stack().await;
    let asked = Request { for_ms: Some(60_000), ..Request::new("/cellar/jobs/**", Kind::Slow) };
    let fault = asked.check(stack.two.agent.limits()).expect("in range");
    stack.two.agent.set(Uuid::now_v7(), &fault).expect("room for it");
    let mut browser = Browser::start().await;
    browser.dark().await;
    browser.open(&stack.url, 1400, 900).await;
    browser.until("document.getElementById('link').textContent === 'live'").await;
    browser.until("document.querySelectorAll('#faults li').length === 1").await;
    browser.picture("dark").await;
    browser.click("#faults .clear").await;
    browser.until("document.querySelectorAll('#faults li').length === 0").await;
    assert!(stack.two.agent.list().is_empty());
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}

/// The page's own worker is killed under it: the browser comes back and shows what it missed.
#[actix::test]
async fn the_page_in_a_browser_survives_the_death_of_what_serves_it() {
    let stack = stack().await;
    let mut browser = Browser::start().await;
    browser.open(&stack.url, 1400, 900).await;
    browser.until("document.getElementById('link').textContent === 'live'").await;
    let soon = clock::now() + Duration::from_secs(5);
    stack.one.root.intervene("/laptop/console/console-1/http/http-1", Intervention::Panic, soon);
    stack.one.root.intervene("/laptop/jobs/jobs-1/claimer", Intervention::Panic, soon);
    for path in ["/laptop/console/console-1/http/http-1", "/laptop/jobs/jobs-1/claimer"] {
        browser.until(&format!("{}.textContent === '#2'", row(path, ".life"))).await;
    }
    browser.until("document.getElementById('link').textContent === 'live'").await;
}

#[actix::test]
async fn a_browser_without_script_has_the_tree() {
    let stack = stack().await;
    let mut browser = Browser::start().await;
    browser.without_script().await;
    browser.open(&stack.url, 700, 1200).await;
    browser.until(&row("/laptop/database/database-1/replication/reader", ".name")).await;
    assert_eq!(browser.value("document.querySelectorAll('[data-kind=worker]').length > 280").await, true);
    assert_eq!(browser.value("getComputedStyle(document.querySelector('.for')).visibility").await, "hidden");
    browser.picture("without-script").await;
}
