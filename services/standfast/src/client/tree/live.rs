//! `tree --watch`.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use reqwest::Method;
use supervision::view::{Node, Transition};

use super::draw::{FLASH, Flash, Flashes, Style, draw, sentence, short};
use super::{below, find_mut, get, is_at_or_below, nodes};
use crate::cli::Tree;
use crate::client::http::Server;
use crate::client::sse::Events;
use crate::failure::Outcome;
use crate::out;

/// The screen is drawn at most so often.
const FRAME: Duration = Duration::from_millis(80);
/// A console that is away for so long is given up.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// The last transitions that stand below the tree, on a screen that has room for them.
const RECENT: usize = 6;
/// A screen with fewer lines has room for the tree only.
const ROOMY: usize = 20;

/// The live view.
struct Live<'a> {
    tree: &'a Tree,
    nodes: Vec<Node>,
    flashes: Flashes,
    recent: VecDeque<String>,
    screen: bool,
    away: bool,
}

/// Follows the tree until it is interrupted.
pub async fn watch(server: &Server, tree: &Tree) -> Outcome {
    let screen = std::io::stdout().is_terminal() && !tree.at.json;
    let _restored = screen.then(Screen::enter);
    let (flashes, recent) = (Flashes::new(), VecDeque::new());
    let mut live = Live { tree, nodes: Vec::new(), flashes, recent, screen, away: false };
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    tokio::select! {
        ended = live.follow(server) => ended,
        _ = &mut interrupted => Ok(()),
    }
}

impl Live<'_> {
    async fn follow(&mut self, server: &Server) -> Outcome {
        let (mut last_id, mut away_since) = (None::<String>, None);
        loop {
            let mut request = server.endless(Method::GET, "/v1/tree").header("accept", "text/event-stream");
            if let Some(id) = &last_id {
                request = request.header("last-event-id", id);
            }
            match server.accepted(request).await {
                Ok(response) => {
                    away_since = None;
                    self.away = false;
                    self.stream(server, Events::of(response), &mut last_id).await?;
                }
                // Never reached: that is an error. Lost on the way: it may be restarting, which is worth watching.
                Err(failure) if self.nodes.is_empty() => return Err(failure),
                Err(failure) => {
                    let since = *away_since.get_or_insert_with(clock::now);
                    if clock::now().saturating_duration_since(since) > AWAY_MAX {
                        return Err(failure);
                    }
                }
            }
            self.away = true;
            self.show();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Until the stream ends.
    async fn stream(&mut self, server: &Server, mut events: Events, last_id: &mut Option<String>) -> Outcome {
        if self.nodes.is_empty() {
            self.nodes = get(server).await?;
        }
        self.show();
        let mut frame = tokio::time::interval(FRAME);
        let mut changed = false;
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    *last_id = event.id.clone().or(last_id.take());
                    if let Ok(transition) = serde_json::from_str::<Transition>(&event.data) {
                        if !self.apply(&transition) {
                            self.nodes = get(server).await?; // a child that was not there before
                        }
                    } else if let Some(nodes) = serde_json::from_str(&event.data).ok().and_then(nodes) {
                        self.nodes = nodes;
                    }
                    changed = true;
                }
                _ = frame.tick(), if self.screen => {
                    let lit = self.flashes.len();
                    self.flashes.retain(|_, flash| flash.at.elapsed() < FLASH);
                    if changed || lit > 0 {
                        self.show();
                    }
                    changed = false;
                }
            }
        }
    }

    /// False if the tree does not know the child.
    fn apply(&mut self, transition: &Transition) -> bool {
        if self
            .tree
            .below
            .as_deref()
            .is_none_or(|top| is_at_or_below(&transition.path, top.trim_end_matches('/')))
        {
            self.tell(transition);
        }
        let recovered = transition.recovered_us.map(|us| format!("back in {}", short(us)));
        if let Some(words) = recovered.or_else(|| transition.exit.as_ref().map(|exit| exit.detail.clone())) {
            let words = words.lines().next().unwrap_or_default().chars().take(60).collect();
            self.flashes.insert(transition.path.clone(), Flash { at: clock::now(), words });
        }
        let Some(node) = self.nodes.iter_mut().find_map(|node| find_mut(node, &transition.path)) else {
            return false;
        };
        node.state = transition.to;
        node.incarnation = transition.incarnation;
        node.restarts = transition.restarts;
        node.since = transition.at;
        node.waiting_for.clone_from(&transition.waiting_for);
        if transition.exit.is_some() {
            node.last_exit.clone_from(&transition.exit);
        }
        true
    }

    fn tell(&mut self, transition: &Transition) {
        if self.tree.at.json {
            out::json(transition);
        } else if !self.screen {
            out::line(sentence(transition));
        } else {
            self.recent.push_back(sentence(transition));
            self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        }
    }

    fn show(&self) {
        if !self.screen {
            return;
        }
        let nodes = below(&self.nodes, self.tree.below.as_deref()).unwrap_or_default();
        let (height, width) = Screen::size();
        let recent = if height < ROOMY { 0 } else { RECENT + 1 };
        let room = height.saturating_sub(1 + recent);
        let style = Style { colour: true, lines_max: Some(room) };
        let body = draw(&nodes, &self.flashes, clock::now(), style);
        let mut text = String::from("\x1b[H\x1b[?7l"); // long lines are cut at the edge and not wrapped
        for line in body.lines().take(room) {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        if recent > 0 && !self.recent.is_empty() {
            text.push_str("\x1b[K\n");
            for line in &self.recent {
                let _ =
                    writeln!(text, "\x1b[2m{}\x1b[0m\x1b[K", line.chars().take(width).collect::<String>());
            }
        }
        let left_out = body.lines().count().saturating_sub(room);
        let more =
            if left_out > 0 { format!(" ({left_out} lines more: name a PATH)") } else { String::new() };
        let note = if self.away { "the console is away; trying again" } else { "live; ctrl-c ends" };
        let _ = write!(text, "\x1b[2m{note}{more}\x1b[0m\x1b[K\x1b[J\x1b[?7h");
        out::write(&text);
    }
}

/// The terminal's other screen, left again when dropped.
struct Screen;

impl Screen {
    fn enter() -> Self {
        out::write("\x1b[?1049h\x1b[?25l\x1b[H\x1b[J");
        Self
    }

    /// Lines and columns; 24 and 80 when nobody knows.
    fn size() -> (usize, usize) {
        let asked =
            std::process::Command::new("stty").arg("size").stdin(std::process::Stdio::inherit()).output();
        let text = asked.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
        let said = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
        let mut next = |name: &str, otherwise| said(name).or(numbers.next().flatten()).unwrap_or(otherwise);
        (next("LINES", 24), next("COLUMNS", 80))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        out::write("\x1b[?25h\x1b[?1049l");
    }
}
