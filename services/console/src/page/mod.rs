//! The live page, rendered here whole: without its script it is a plain page that says the same.
//!
//! The script follows `/v1/tree` as an event stream and changes in place what a transition names; for what it does
//! not know (a new child, a gap) it fetches the tree again, rendered by the same code.

mod html;
mod panels;
mod tree;

use std::fmt::Write as _;

use faults::{InForce, Kind};
use messages::job::Job;
use messages::service::Announcement;
use supervision::view::{Kind as NodeKind, Node, State};

use crate::incidents::Incident;
use html::Esc;

/// The style sheet.
pub const CSS: &str = include_str!("../../assets/console.css");
/// The script.
pub const JS: &str = include_str!("../../assets/console.js");

/// What the page may load, and who may frame it: nothing but our own, and nobody (CSP level 3).
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                          img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the panels show.
pub struct Panels {
    /// In force now.
    pub faults: Vec<InForce>,
    /// What discovery knows.
    pub services: Vec<Announcement>,
    /// Newest first, or why they cannot be shown.
    pub jobs: Result<Vec<Job>, String>,
}

/// The whole page. `at` is the id of the last event that `incidents` has in it; `root` may be newer.
#[must_use]
pub fn whole(root: &Node, incidents: &[Incident], panels: &Panels, at: &str) -> String {
    let tree = tree::stack(root);
    let counts = counts(root);
    let kinds = kinds();
    let Parts { faults, services, jobs } = parts(panels);
    let incidents = panels::incidents(incidents);
    let (css, js) = (asset("console.css"), asset("console.js"));
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Standfast</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect x='2' y='2' width='12' height='12' rx='3' fill='%231a7f4b'/%3E%3C/svg%3E">
<link rel="stylesheet" href="{css}">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="{js}" defer></script>
</head>
<body data-at="{at}" data-kinds="{kinds}">
<header>
<h1>Standfast</h1>
{counts}
<label class="for">break for <select id="for"><option value="2000">2 s<option value="5000">5 s<option value="10000" selected>10 s<option value="30000">30 s<option value="60000">1 min</select></label>
<span id="link" role="status">without script: reloads every 5 s</span>
</header>
<main>
<section id="tree" aria-label="Supervision tree">{tree}</section>
<aside>
<section><h2>Faults in force</h2><div id="faults">{faults}</div></section>
<section><h2>What happened</h2>{incidents}</section>
<section><h2>Services</h2><div id="services">{services}</div></section>
</aside>
<section class="wide"><h2>Last jobs</h2><div id="jobs">{jobs}</div></section>
</main>
<div id="tools" role="toolbar" aria-label="Break this" hidden></div>
<div id="say" role="status" hidden></div>
</body>
</html>
"##,
        at = Esc(at),
    )
}

/// The tree alone, for the script to put in place of the one it has.
#[must_use]
pub fn tree_fragment(root: &Node) -> String {
    format!("<div>{}</div>", tree::stack(root))
}

/// The panels that the script refreshes as a whole.
#[must_use]
pub fn panels_fragment(panels: &Panels) -> String {
    let Parts { faults, services, jobs } = parts(panels);
    format!(
        "<div data-panel=\"faults\">{faults}</div><div data-panel=\"services\">{services}</div>\
         <div data-panel=\"jobs\">{jobs}</div>"
    )
}

/// Where an asset is: its content is part of the address, so that it can be kept for ever.
#[must_use]
pub fn asset(name: &str) -> String {
    let content = if name.ends_with(".css") { CSS } else { JS };
    format!("/assets/{:016x}/{name}", fnv(content))
}

struct Parts {
    faults: String,
    services: String,
    jobs: String,
}

fn parts(panels: &Panels) -> Parts {
    Parts {
        faults: panels::faults(&panels.faults),
        services: panels::services(&panels.services),
        jobs: panels::jobs(&panels.jobs),
    }
}

/// How the workers are, in numbers.
fn counts(root: &Node) -> String {
    let (mut running, mut other, mut restarts) = (0_u64, 0_u64, 0_u64);
    let mut rest = vec![root];
    while let Some(node) = rest.pop() {
        rest.extend(&node.children);
        if node.kind == NodeKind::Worker {
            restarts += node.restarts;
            *if node.state == State::Running { &mut running } else { &mut other } += 1;
        }
    }
    let mut out = String::from("<dl class=\"counts\">");
    for (id, name, n) in
        [("running", "running", running), ("other", "not running", other), ("restarts", "restarts", restarts)]
    {
        let _ = write!(out, "<div><dt>{name}</dt><dd id=\"n-{id}\" data-n=\"{n}\">{n}</dd></div>");
    }
    out.push_str("</dl>");
    out
}

/// The kinds of fault by what they hit, for the script's buttons: `child:panic child:exit … node:kill`.
fn kinds() -> String {
    let words = Kind::ALL.map(|kind| {
        let hits = match kind.hits() {
            faults::Hits::Child => "child",
            faults::Hits::Link => "link",
            faults::Hits::Node => "node",
        };
        format!("{hits}:{kind}")
    });
    words.join(" ")
}

/// FNV-1a, 64 bits: tells versions of an asset apart.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
