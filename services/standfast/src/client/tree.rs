//! `standfast tree`: once, or live. On a terminal the tree is redrawn in place and what restarted flashes; piped,
//! each transition is a line.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use reqwest::Method;
use supervision::view::{Node, State, Transition};

use super::http::Server;
use super::sse::Events;
use crate::cli::Tree;
use crate::failure::{Failure, Outcome};
use crate::out;

/// How long what restarted stays lit.
const FLASH: Duration = Duration::from_millis(1500);
/// The screen is drawn at most so often.
const FRAME: Duration = Duration::from_millis(80);
/// A console that is away for so long is given up.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Runs the command.
pub async fn run(tree: Tree) -> Outcome {
    let server = Server::new(&tree.at.console, "--console")?;
    if tree.watch {
        return watch(&server, &tree).await;
    }
    let nodes = get(&server).await?;
    let shown = below(&nodes, tree.below.as_deref())?;
    if tree.at.json {
        match &shown[..] {
            [one] => out::json(one),
            all => out::json(&all),
        }
        return Ok(());
    }
    let style = Style { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() };
    out::write(&draw(&shown, &HashMap::new(), clock::now(), style));
    Ok(())
}

async fn get(server: &Server) -> Outcome<Vec<Node>> {
    let value: serde_json::Value = server.json(server.request(Method::GET, "/v1/tree")).await?;
    nodes(value)
        .ok_or_else(|| Failure::failed("the console answered what is not a tree: is it of this version?"))
}

/// One node's tree, or several: the console joins all nodes of a stack.
fn nodes(value: serde_json::Value) -> Option<Vec<Node>> {
    match value {
        serde_json::Value::Array(all) => {
            all.into_iter().map(|one| serde_json::from_value(one).ok()).collect()
        }
        serde_json::Value::Object(mut map) if map.contains_key("nodes") => nodes(map.remove("nodes")?),
        one => {
            let node: Node = serde_json::from_value(one).ok()?;
            // A root above the nodes has no path of its own.
            Some(if node.path.is_empty() || node.path == "/" { node.children } else { vec![node] })
        }
    }
}

fn below(nodes: &[Node], path: Option<&str>) -> Outcome<Vec<Node>> {
    let Some(path) = path else { return Ok(nodes.to_vec()) };
    let path = path.trim_end_matches('/');
    let found = nodes.iter().find_map(|node| find(node, path)).cloned();
    let missing = || Failure::failed(format!("there is no {path}: `standfast tree` shows all paths"));
    found.map(|node| vec![node]).ok_or_else(missing)
}

fn find<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    if node.path == path {
        return Some(node);
    }
    node.children.iter().filter(|child| is_at_or_below(path, &child.path)).find_map(|child| find(child, path))
}

fn find_mut<'a>(node: &'a mut Node, path: &str) -> Option<&'a mut Node> {
    if node.path == path {
        return Some(node);
    }
    node.children
        .iter_mut()
        .filter(|child| is_at_or_below(path, &child.path))
        .find_map(|child| find_mut(child, path))
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is lit, and with what words.
struct Flash {
    at: Instant,
    words: String,
}

#[derive(Clone, Copy)]
struct Style {
    colour: bool,
}

/// The live view.
struct Live<'a> {
    tree: &'a Tree,
    nodes: Vec<Node>,
    flashes: HashMap<String, Flash>,
    screen: bool,
    away: bool,
}

async fn watch(server: &Server, tree: &Tree) -> Outcome {
    let screen = std::io::stdout().is_terminal() && !tree.at.json;
    let _restored = screen.then(Screen::enter);
    let mut live = Live { tree, nodes: Vec::new(), flashes: HashMap::new(), screen, away: false };
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

    fn tell(&self, transition: &Transition) {
        if self.tree.at.json {
            out::json(transition);
        } else if !self.screen {
            out::line(sentence(transition));
        }
    }

    fn show(&self) {
        if !self.screen {
            return;
        }
        let nodes = below(&self.nodes, self.tree.below.as_deref()).unwrap_or_default();
        let body = draw(&nodes, &self.flashes, clock::now(), Style { colour: true });
        let mut text = String::from("\x1b[H");
        let height = Screen::height();
        let note = if self.away { "the console is away; trying again" } else { "live; ctrl-c ends" };
        for line in body.lines().take(height.saturating_sub(2)) {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        let left_out = body.lines().count().saturating_sub(height.saturating_sub(2));
        let more =
            if left_out > 0 { format!(" ({left_out} lines more: name a PATH)") } else { String::new() };
        let _ = write!(text, "\x1b[2m{note}{more}\x1b[0m\x1b[K\x1b[J");
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

    fn height() -> usize {
        std::env::var("LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or_else(|| {
            let size =
                std::process::Command::new("stty").arg("size").stdin(std::process::Stdio::inherit()).output();
            let text = size.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
            text.split(' ').next().and_then(|rows| rows.parse().ok()).unwrap_or(24)
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        out::write("\x1b[?25h\x1b[?1049l");
    }
}

/// One transition in words, for a pipe.
fn sentence(t: &Transition) -> String {
    let mut text = format!("{} {} {} #{}", t.at, t.path, word(t.to), t.incarnation);
    if let Some(exit) = &t.exit {
        let reason = serde_json::to_value(exit.reason).ok();
        let reason = reason.as_ref().and_then(serde_json::Value::as_str).unwrap_or("?");
        let _ = write!(text, " after {reason}: {}", exit.detail.lines().next().unwrap_or_default());
    }
    if let Some(us) = t.recovered_us {
        let _ = write!(text, " back in {}", short(us));
    }
    if let Some(on) = &t.waiting_for {
        let _ = write!(text, " for {on}");
    }
    text
}

fn word(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Waiting => "waiting",
        State::Restarting => "restarting",
        State::Stopping => "stopping",
        State::Stopped => "stopped",
    }
}

fn short(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn draw(nodes: &[Node], flashes: &HashMap<String, Flash>, now: Instant, style: Style) -> String {
    let mut text = String::new();
    for node in nodes {
        line(&mut text, node, &node.path, 0, flashes, now, style);
        branches(&mut text, node, 1, flashes, now, style);
    }
    text
}

fn branches(
    text: &mut String,
    node: &Node,
    depth: usize,
    flashes: &HashMap<String, Flash>,
    now: Instant,
    style: Style,
) {
    for child in &node.children {
        let name = child.path.rsplit('/').next().unwrap_or(&child.path);
        line(text, child, name, depth, flashes, now, style);
        branches(text, child, depth + 1, flashes, now, style);
    }
}

fn line(
    text: &mut String,
    node: &Node,
    name: &str,
    depth: usize,
    flashes: &HashMap<String, Flash>,
    now: Instant,
    style: Style,
) {
    let indent = depth * 2;
    let room = 34usize.saturating_sub(indent).max(name.chars().count() + 1);
    let state = word(node.state);
    let colour = match node.state {
        State::Running => "\x1b[32m",
        State::Waiting | State::Starting | State::Stopping => "\x1b[33m",
        State::Restarting => "\x1b[31m",
        State::Stopped => "\x1b[2m",
    };
    let (on, off) = if style.colour { (colour, "\x1b[0m") } else { ("", "") };
    let flash = flashes.get(&node.path).filter(|flash| now.saturating_duration_since(flash.at) < FLASH);
    let (lit, dark) = if flash.is_some() && style.colour { ("\x1b[7m", "\x1b[27m") } else { ("", "") };
    let _ =
        write!(text, "{:indent$}{lit}{name:<room$}{dark} {on}{state:<10}{off} #{:<4}", "", node.incarnation);
    if node.restarts > 0 {
        let _ = write!(text, " {} restart{}", node.restarts, if node.restarts == 1 { "" } else { "s" });
    }
    if let Some(on) = &node.waiting_for {
        let _ = write!(text, " for {on}");
    }
    if let Some(strategy) = &node.strategy {
        let _ = write!(text, " {strategy}");
    }
    if let Some(mailbox) = node.mailbox.filter(|mailbox| mailbox.depth > 0) {
        let _ = write!(text, " mailbox {}/{}", mailbox.depth, mailbox.capacity);
    }
    if !node.faults.is_empty() {
        let _ = write!(text, " fault: {}", node.faults.join(", "));
    }
    if let Some(flash) = flash {
        let _ = write!(text, "  {}", flash.words);
    }
    let trimmed = text.trim_end_matches(' ').len();
    text.truncate(trimmed);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use clock::WallMs;
    use supervision::view::Kind;

    use super::*;

    fn node(path: &str, children: Vec<Node>) -> Node {
        Node {
            path: path.into(),
            kind: if children.is_empty() { Kind::Worker } else { Kind::Supervisor },
            strategy: None,
            state: State::Running,
            incarnation: 1,
            restarts: 0,
            since: WallMs(0),
            waiting_for: None,
            last_exit: None,
            mailbox: None,
            faults: vec![],
            children,
        }
    }

    #[test]
    fn the_tree_is_drawn_as_indented_lines_and_can_be_cut() {
        let workers =
            vec![node("/n/jobs/workers/worker-1", vec![]), node("/n/jobs/workers/worker-10", vec![])];
        let tree = [node("/n", vec![node("/n/jobs", vec![node("/n/jobs/workers", workers)])])];
        let text = draw(&tree, &HashMap::new(), clock::now(), Style { colour: false });
        assert!(text.contains("\n      worker-10"), "{text}");
        assert_eq!(text.lines().count(), 5);
        assert_eq!(
            below(&tree, Some("/n/jobs/workers/worker-1")).unwrap()[0].path,
            "/n/jobs/workers/worker-1"
        );
        assert!(below(&tree, Some("/n/jo")).is_err());
    }
}
