//! Breaking things at random, and seeing how long they take to come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::seq::IndexedRandom;
use supervision::view;

use crate::stack::workers;
use crate::{Http, TestStack};

/// What was broken, and how.
#[derive(Clone, Debug)]
pub struct Killed {
    /// Path of the child, or name of the node.
    pub target: String,
    /// `panic`, `hang`, `exit`, `kill -9` …
    pub how: &'static str,
}

/// Path of a random worker that runs, of any tier and node.
pub fn random_worker(tree: &view::Node, rng: &mut impl rand::Rng) -> Option<String> {
    let running: Vec<&view::Node> = workers(tree).filter(|w| w.state == view::State::Running).collect();
    running.choose(rng).map(|w| w.path.clone())
}

/// How long restarts took, from the exit to the ready replacement, by child.
#[derive(Clone, Default)]
pub struct Restarts {
    seen: Arc<Mutex<BTreeMap<String, Vec<Duration>>>>,
}

impl Restarts {
    fn add(&self, path: String, took: Duration) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default().push(took);
    }

    /// Number, median, and longest of all.
    #[must_use]
    pub fn summary(&self) -> Option<(usize, Duration, Duration)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Duration> = seen.values().flatten().copied().collect();
        all.sort_unstable();
        Some((all.len(), *all.get(all.len() / 2)?, *all.last()?))
    }

    /// A line for each child: how often it restarted, the median and the longest.
    #[must_use]
    pub fn table(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(path, took): (&String, &Vec<Duration>)| {
            let mut took = took.clone();
            took.sort_unstable();
            format!(
                "  {:3} × {:>9.1?} {:>9.1?}  {path}",
                took.len(),
                took[took.len() / 2],
                took[took.len() - 1]
            )
        };
        seen.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Follows the transitions that the operating API reports, until the task is aborted; a lost stream is opened again.
pub fn watch_restarts(stack: &TestStack) -> (Restarts, tokio::task::JoinHandle<()>) {
    let (restarts, console) = (Restarts::default(), stack.console.clone());
    let seen = restarts.clone();
    let task = tokio::spawn(async move {
        loop {
            let _ = follow(&console, &seen).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    (restarts, task)
}

async fn follow(console: &str, restarts: &Restarts) -> Result<(), crate::HttpError> {
    let (_, mut body) = Http::new(console).stream("/v1/tree", &[("accept", "text/event-stream")]).await?;
    let mut text = String::new();
    while let Some(bytes) = body.next().await? {
        text.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, rest)) = text.split_once('\n') {
            let data = line.strip_prefix("data:").map(|d| serde_json::from_str::<view::Transition>(d.trim()));
            if let Some(Ok(change)) = data
                && let Some(us) = change.recovered_us
            {
                restarts.add(change.path, Duration::from_micros(us));
            }
            text = rest.to_owned();
        }
    }
    Ok(())
}
