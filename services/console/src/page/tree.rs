//! The supervision tree as nested lists: readable as it is, and kept up to date by the script through `data-path`.

use std::fmt::Write as _;

use supervision::view::{ExitReason, Kind, Node, State};

use crate::page::html::{Count, Esc, leaf};

/// More children alike than this are drawn as a grid of cells, one for each.
const ROWS_MAX: usize = 12;

/// The whole stack, node by node.
#[must_use]
pub fn stack(root: &Node) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for one in &root.children {
        node(&mut out, one);
    }
    out
}

/// A process: its tiers side by side, then whatever stands outside of a tier.
fn node(out: &mut String, node: &Node) {
    let _ = write!(out, "<section class=\"node\" {}><h2 class=\"row\">", attributes(node, "node"));
    label(out, node, "process");
    out.push_str("</h2>");
    if node.children.is_empty() {
        let why = node.waiting_for.as_deref().unwrap_or("it has no children");
        let _ = write!(out, "<p class=\"silent\">{}</p>", Esc(why));
    }
    out.push_str("<div class=\"cards\">");
    let (loose, rest): (Vec<&Node>, Vec<&Node>) =
        node.children.iter().partition(|child| child.kind == Kind::Worker);
    for child in rest {
        let instances = child.children.iter().filter(|c| c.kind == Kind::Supervisor).count();
        if instances == child.children.len() && instances > 0 {
            for instance in &child.children {
                card(out, instance, "instance", leaf(&child.path));
            }
        } else {
            card(out, child, "supervisor", "");
        }
    }
    if !loose.is_empty() {
        out.push_str("<section class=\"card\"><h3 class=\"row\"><span class=\"name\">node</span></h3><ul class=\"rows\">");
        for child in loose {
            worker(out, child);
        }
        out.push_str("</ul></section>");
    }
    out.push_str("</div></section>");
}

/// An instance of a tier, and all that it supervises.
fn card(out: &mut String, node: &Node, level: &str, tier: &str) {
    let _ =
        write!(out, "<section class=\"card\" {}><h3 class=\"row\" tabindex=\"0\">", attributes(node, level));
    label(out, node, tier);
    out.push_str("</h3>");
    children(out, node);
    out.push_str("</section>");
}

fn children(out: &mut String, node: &Node) {
    let alike = node.children.iter().all(|c| c.kind == Kind::Worker);
    if alike && node.children.len() > ROWS_MAX {
        return cells(out, node);
    }
    out.push_str("<ul class=\"rows\">");
    for child in &node.children {
        match child.kind {
            Kind::Worker => worker(out, child),
            Kind::Supervisor => {
                let attributes = attributes(child, "supervisor");
                let _ = write!(out, "<li class=\"group\" {attributes}><div class=\"row\" tabindex=\"0\">");
                label(out, child, "");
                out.push_str("</div>");
                children(out, child);
                out.push_str("</li>");
            }
        }
    }
    out.push_str("</ul>");
}

/// A large pool: a cell for each child, which has its name, state and lives as its title.
fn cells(out: &mut String, pool: &Node) {
    let restarts: u64 = pool.children.iter().map(|c| c.restarts).sum();
    let n = pool.children.len() as u64;
    let (n, restarts) = (Count(n, "worker"), Count(restarts, "restart"));
    let _ = write!(
        out,
        "<p class=\"sum\">{n}, <span class=\"sum-restarts\">{restarts}</span></p><ul class=\"cells\">"
    );
    for child in &pool.children {
        let name = Esc(leaf(&child.path));
        let state = word(child.state);
        let (attributes, inc) = (attributes(child, "worker"), child.incarnation);
        let _ = write!(
            out,
            "<li class=\"cell\" tabindex=\"0\" {attributes} title=\"{name}: {state}, life {inc}\">\
             <span class=\"sr\">{name} {state}</span></li>"
        );
    }
    out.push_str("</ul>");
}

fn worker(out: &mut String, child: &Node) {
    let _ = write!(out, "<li {}><div class=\"row\" tabindex=\"0\">", attributes(child, "worker"));
    label(out, child, "");
    out.push_str("</div></li>");
}

/// Name, and what is worth saying of it now.
fn label(out: &mut String, node: &Node, of: &str) {
    out.push_str("<i class=\"dot\" aria-hidden=\"true\"></i>");
    let _ = write!(out, "<span class=\"name\">{}</span>", Esc(leaf(&node.path)));
    if !of.is_empty() && !leaf(&node.path).starts_with(of) {
        let _ = write!(out, "<span class=\"tier\">{}</span>", Esc(of));
    }
    if let (Kind::Supervisor, Some(strategy)) = (node.kind, &node.strategy) {
        let _ = write!(out, "<span class=\"strategy\">{}</span>", Esc(strategy));
    }
    for fault in &node.faults {
        let _ = write!(out, "<span class=\"fault\">{}</span>", Esc(fault));
    }
    let _ = write!(out, "<span class=\"state\">{}</span>", Esc(&said(node)));
    if let Some(mailbox) = node.mailbox.filter(|m| m.depth > 0) {
        let (depth, capacity) = (mailbox.depth, mailbox.capacity);
        let title = format!("mailbox: {depth} of {capacity}");
        let _ = write!(out, "<span class=\"mailbox\" title=\"{title}\">{depth} queued</span>");
    }
    let (life, title) = life(node);
    let _ = write!(
        out,
        "<span class=\"back\"></span><span class=\"life\" title=\"{}\">{life}</span>",
        Esc(&title)
    );
}

/// Which life this is, if not the first; and how the last one ended.
fn life(node: &Node) -> (String, String) {
    let life = if node.incarnation > 1 { format!("#{}", node.incarnation) } else { String::new() };
    let restarts = Count(node.restarts, "restart");
    let title = match &node.last_exit {
        Some(exit) => format!("{restarts}; the last life ended: {}: {}", reason(exit.reason), exit.detail),
        None => restarts.to_string(),
    };
    (life, title)
}

fn attributes(node: &Node, level: &str) -> String {
    let kind = if node.kind == Kind::Worker { "worker" } else { "supervisor" };
    format!(
        "data-path=\"{}\" data-kind=\"{kind}\" data-level=\"{level}\" data-state=\"{}\" data-restarts=\"{}\"",
        Esc(&node.path),
        word(node.state),
        node.restarts
    )
}

/// The state in words, with what it waits for; nothing when all is well.
fn said(node: &Node) -> String {
    match (node.state, &node.waiting_for) {
        (State::Running, _) => String::new(),
        (State::Waiting, Some(what)) => format!("waiting for {what}"),
        (state, _) => word(state).to_owned(),
    }
}

/// The word of the API for a state.
#[must_use]
pub const fn word(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Waiting => "waiting",
        State::Restarting => "restarting",
        State::Stopping => "stopping",
        State::Stopped => "stopped",
    }
}

/// The word of the API for the end of a life.
#[must_use]
pub const fn reason(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Normal => "normal",
        ExitReason::Shutdown => "shutdown",
        ExitReason::Error => "error",
        ExitReason::Panic => "panic",
        ExitReason::Hung => "hung",
        ExitReason::Fault => "fault",
        ExitReason::Intensity => "intensity",
    }
}
