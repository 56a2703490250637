//! The tree as lines of text: whole, or folded to fit a terminal.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use supervision::view::{Node, State, Transition};
use telemetry::printable;

/// How long what restarted stays lit.
pub const FLASH: Duration = Duration::from_millis(1500);

/// What is lit, and with what words.
pub struct Flash {
    pub at: Instant,
    pub words: String,
}

/// What is lit, by path.
pub type Flashes = HashMap<String, Flash>;

/// How lines are made.
#[derive(Clone, Copy)]
pub struct Style {
    pub colour: bool,
    /// Most lines there is room for; `None` draws everything.
    pub lines_max: Option<usize>,
}

/// Draws `nodes`. What does not fit is folded away from the deepest level up: a child that simply runs becomes a
/// number behind its supervisor, while one that restarts, waits or has a fault is always shown, with all above it.
pub fn draw(nodes: &[Node], flashes: &Flashes, now: Instant, style: Style) -> String {
    let deepest = nodes.iter().map(depth).max().unwrap_or(0);
    let fits = |levels: &usize| {
        let lines: usize = nodes.iter().map(|node| lines(node, 0, *levels, flashes, now)).sum();
        style.lines_max.is_none_or(|most| lines <= most)
    };
    let levels = (1..=deepest).rev().find(fits).unwrap_or(1);
    let mut text = String::new();
    for node in nodes {
        branch(&mut text, node, &node.path, 0, &Drawing { levels, flashes, now, style });
    }
    text
}

struct Drawing<'a> {
    /// Levels that are shown in any case.
    levels: usize,
    flashes: &'a Flashes,
    now: Instant,
    style: Style,
}

fn depth(node: &Node) -> usize {
    1 + node.children.iter().map(depth).max().unwrap_or(0)
}

/// Lines that `node` and what is shown of it take.
fn lines(node: &Node, level: usize, levels: usize, flashes: &Flashes, now: Instant) -> usize {
    let shown = |child: &&Node| level + 1 < levels || is_of_interest(child, flashes, now);
    1 + node.children.iter().filter(shown).map(|it| lines(it, level + 1, levels, flashes, now)).sum::<usize>()
}

/// Something other than running goes on here or below.
fn is_of_interest(node: &Node, flashes: &Flashes, now: Instant) -> bool {
    node.state != State::Running
        || !node.faults.is_empty()
        || flash_of(node, flashes, now).is_some()
        || node.children.iter().any(|child| is_of_interest(child, flashes, now))
}

fn flash_of<'a>(node: &Node, flashes: &'a Flashes, now: Instant) -> Option<&'a Flash> {
    flashes.get(&node.path).filter(|flash| now.saturating_duration_since(flash.at) < FLASH)
}

fn branch(text: &mut String, node: &Node, name: &str, level: usize, drawing: &Drawing<'_>) {
    let (shown, folded): (Vec<_>, Vec<_>) = node
        .children
        .iter()
        .partition(|child| level + 1 < drawing.levels || is_of_interest(child, drawing.flashes, drawing.now));
    line(text, node, name, level, folded.iter().map(|child| workers(child)).sum(), drawing);
    for child in shown {
        let name = child.path.rsplit('/').next().unwrap_or(&child.path);
        branch(text, child, name, level + 1, drawing);
    }
}

fn workers(node: &Node) -> usize {
    if node.children.is_empty() { 1 } else { node.children.iter().map(workers).sum() }
}

fn line(text: &mut String, node: &Node, name: &str, level: usize, folded: usize, drawing: &Drawing<'_>) {
    let name = &*printable(name);
    let indent = level * 2;
    let room = 34usize.saturating_sub(indent).max(name.chars().count() + 1);
    let state = word(node.state);
    let colour = match node.state {
        State::Running => "\x1b[32m",
        State::Waiting | State::Starting | State::Stopping => "\x1b[33m",
        State::Restarting => "\x1b[31m",
        State::Stopped => "\x1b[2m",
    };
    let colours = drawing.style.colour;
    let (on, off) = if colours { (colour, "\x1b[0m") } else { ("", "") };
    let flash = flash_of(node, drawing.flashes, drawing.now);
    let (lit, dark) = if flash.is_some() && colours { ("\x1b[7m", "\x1b[27m") } else { ("", "") };
    let _ =
        write!(text, "{:indent$}{lit}{name:<room$}{dark} {on}{state:<10}{off} #{:<4}", "", node.incarnation);
    if node.restarts > 0 {
        let _ = write!(text, " {} restart{}", node.restarts, if node.restarts == 1 { "" } else { "s" });
    }
    if let Some(on) = &node.waiting_for {
        let _ = write!(text, " for {}", printable(on));
    }
    if let Some(strategy) = &node.strategy {
        let _ = write!(text, " {}", printable(strategy));
    }
    if let Some(mailbox) = node.mailbox.filter(|mailbox| mailbox.depth > 0) {
        let _ = write!(text, " mailbox {}/{}", mailbox.depth, mailbox.capacity);
    }
    if !node.faults.is_empty() {
        let _ = write!(text, " fault: {}", printable(&node.faults.join(", ")));
    }
    if folded > 0 {
        let _ = write!(text, "  + {folded} that run");
    }
    if let Some(flash) = flash {
        let _ = write!(text, "  {}", printable(&flash.words));
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// One transition in words.
pub fn sentence(t: &Transition) -> String {
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
    printable(&text).into_owned()
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

/// A duration in microseconds, to two or three figures.
pub fn short(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clock::WallMs;
    use supervision::view::Kind;

    use super::*;

    pub fn node(path: &str, children: Vec<Node>) -> Node {
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

    fn stack() -> Vec<Node> {
        let pool = |tier: &str| {
            let workers = (1..=8).map(|n| node(&format!("/n/{tier}/workers/worker-{n}"), vec![])).collect();
            node(&format!("/n/{tier}"), vec![node(&format!("/n/{tier}/workers"), workers)])
        };
        vec![node("/n", vec![pool("app"), pool("jobs")])]
    }

    fn plain(nodes: &[Node], flashes: &Flashes, lines_max: Option<usize>) -> String {
        draw(nodes, flashes, clock::now(), Style { colour: false, lines_max })
    }

    #[test]
    fn the_tree_is_drawn_as_indented_lines() {
        let text = plain(&stack(), &Flashes::new(), None);
        assert!(text.contains("\n      worker-8"), "{text}");
        assert_eq!(text.lines().count(), 1 + 2 * 10);
    }

    #[test]
    fn a_tree_that_does_not_fit_is_folded_to_numbers() {
        let text = plain(&stack(), &Flashes::new(), Some(5));
        assert_eq!(text.lines().count(), 5, "{text}");
        assert_eq!(text.matches("workers").count(), 2, "{text}");
        assert!(text.contains("+ 8 that run"), "{text}");
    }

    #[test]
    fn what_restarts_is_shown_though_its_siblings_are_folded() {
        let mut nodes = stack();
        nodes[0].children[1].children[0].children[6].state = State::Restarting;
        let lit = Flash { at: clock::now(), words: "back in 31 µs".into() };
        let flashes = Flashes::from([("/n/app/workers/worker-3".to_owned(), lit)]);
        let text = plain(&nodes, &flashes, Some(8));
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(text.contains("worker-7") && text.contains("restarting"), "{text}");
        assert!(text.contains("worker-3") && text.contains("back in 31 µs"), "{text}");
        assert!(text.contains("+ 7 that run"), "{text}");
    }
}
