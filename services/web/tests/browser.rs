//! The server's own pages in a real browser: nothing they need is refused by their own policy.

mod common;
#[path = "../../console/tests/common/browser.rs"]
#[allow(dead_code, reason = "the console's tests use the rest")]
mod driver;

use common::{Instance, config, files, write};
use discovery::Identity;
use driver::Browser;
use messages::service::Health;
use web::SiteConfig;

/// The picture of a whole stack, as `standfast up` has it.
async fn stack() -> Instance {
    let web = Instance::start(config(Vec::new())).await;
    let tiers = [("console", 1), ("database", 3), ("app", 2), ("jobs", 2), ("balancer", 2), ("edge", 2)];
    for (tier, count) in tiers {
        for n in 1..=count {
            let identity = Identity::new(tier, format!("{tier}-{n}")).at("http://127.0.0.1:7070");
            let announcer = web.registry.announce(identity);
            announcer.set_health(Health::Ready);
            if tier == "database" && n == 1 {
                announcer.set_fact("role", "primary");
            }
        }
    }
    web.registry.local("web-1").expect("announced").set_health(Health::Ready);
    web
}

#[actix::test]
async fn the_welcome_page_shows_what_runs_and_breaks_no_rule_of_its_own() {
    let web = stack().await;
    let mut browser = Browser::start().await;
    browser.open(&format!("http://{}/", web.address), 1100, 1100).await;
    browser.until("document.querySelectorAll('tr').length === 7").await;
    browser.until("document.querySelector('.verdict').textContent === '13 instances, all ready'").await;
    // The style sheet is applied: its hash is the one that the policy allows.
    browser.until("getComputedStyle(document.querySelector('td ul')).display === 'flex'").await;
    let links = "[...document.querySelectorAll('nav a')].map(a => a.textContent).join()";
    assert!(browser.value(links).await.as_str().is_some_and(|links| links.contains("Console")));
    browser.picture("welcome").await;
    web.registry.local("app-2").expect("announced").set_health(Health::Degraded);
    browser.dark().await;
    browser.open(&format!("http://{}/", web.address), 420, 1300).await;
    browser.until("document.querySelector('.verdict').textContent === '12 of 13 instances ready'").await;
    browser.until("document.documentElement.scrollWidth <= innerWidth").await;
    browser.picture("welcome-dark-narrow").await;
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}

#[actix::test]
async fn a_listing_and_an_error_are_pages_too_in_a_browser() {
    let root = tempfile::tempdir().expect("a directory");
    write(&root.path().join("<img src=x onerror=alert(1)>.txt"), "odd");
    write(&root.path().join("notes/today.txt"), "plain");
    let web = Instance::start(config(vec![SiteConfig { listing: true, ..files(root.path()) }])).await;
    let mut browser = Browser::start().await;
    browser.open(&format!("http://{}/", web.address), 900, 500).await;
    browser.until("document.querySelectorAll('li a').length === 2 && !document.querySelector('img')").await;
    browser.picture("listing").await;
    browser.click("li a[href='notes/']").await;
    browser.until("document.querySelector('h1')?.textContent === '/notes/'").await;
    browser.open(&format!("http://{}/absent", web.address), 900, 500).await;
    browser.until("document.querySelector('h1')?.textContent === '404 Not found'").await;
    browser.picture("refusal").await;
    // The browser notes the status of the page itself; it must note nothing else.
    let other = |complaint: &&serde_json::Value| !complaint.to_string().contains("404");
    assert_eq!(browser.complaints.iter().find(other), None);
}
