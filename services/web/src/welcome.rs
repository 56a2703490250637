//! The page at `/` of a fresh stack: what runs, how it is, and where to look next.

use std::fmt::Write as _;

use messages::service::{Announcement, Health};
use serde_json::json;

use crate::html::{WELCOME, escaped};
use crate::refusal::Words;

/// Tiers in the order in which a request meets them, and what each is for.
#[rustfmt::skip]
const TIERS: &[(&str, &str)] = &[
    ("dns",       "answers for the names, near and healthy servers first"),
    ("edge",      "caches what may be cached, close to the client"),
    ("balancer",  "picks a healthy server for each request"),
    ("web",       "files, sites, limits; you are here"),
    ("app",       "the jobs API, and your processes"),
    ("functions", "code that is started by its first request"),
    ("jobs",      "runs what was submitted, exactly once"),
    ("cache",     "speaks the Redis protocol"),
    ("database",  "SQLite, replicated by one ordered log"),
    ("jobstore",  "a database of its own for the jobs"),
    ("console",   "shows the supervision tree, and breaks it on purpose"),
];

/// Instances of one tier that are shown by name.
const SHOWN_MAX: usize = 24;

/// For people. `base` is the URL by which the client reached this server, so that the command it is shown works where
/// it is.
#[must_use]
pub fn page(picture: &[Announcement], base: &str) -> Words {
    let here: Vec<&Announcement> = picture.iter().filter(|it| it.health != Health::Gone).collect();
    let console = address_of(&here, "console");
    let next = console.map_or_else(String::new, |url| {
        format!(
            "<a href=\"{url}\">Console<span>the tree, live; faults; the last jobs</span></a>",
            url = escaped(url)
        )
    });
    let places = [
        ("verdict", &*verdict(&here)),
        ("tiers", &*rows(&here)),
        ("console", &*next),
        ("base", &*escaped(base)),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    let lines = format!("{}cache-control: no-store\r\n", WELCOME.lines()).into_bytes();
    Words { lines, body: WELCOME.fill(&places).into_bytes() }
}

/// For programs.
#[must_use]
pub fn json(picture: &[Announcement]) -> Words {
    let here: Vec<&Announcement> = picture.iter().filter(|it| it.health != Health::Gone).collect();
    let tiers: serde_json::Map<String, serde_json::Value> = tiers(&here)
        .map(|(tier, _, members)| {
            let members = members.iter().map(|it| json!({ "instance": it.instance, "health": it.health }));
            (tier.to_owned(), members.collect())
        })
        .collect();
    let body = json!({
        "name": "standfast",
        "version": env!("CARGO_PKG_VERSION"),
        "jobs": "/v1/jobs",
        "queues": "/v1/queues",
        "openapi": "/v1/openapi.json",
        "health": "/healthz",
        "ready": "/readyz",
        "console": address_of(&here, "console"),
        "tiers": tiers,
    });
    let lines = b"content-type: application/json\r\ncache-control: no-store\r\n".to_vec();
    Words { lines, body: body.to_string().into_bytes() }
}

fn address_of<'a>(here: &[&'a Announcement], tier: &str) -> Option<&'a str> {
    here.iter().filter(|it| it.tier == tier).find_map(|it| it.address.as_deref())
}

/// The known tiers that are there, in their order, then others by name.
fn tiers<'a>(
    here: &[&'a Announcement],
) -> impl Iterator<Item = (&'a str, &'static str, Vec<&'a Announcement>)> {
    let place = |tier: &str| TIERS.iter().position(|(known, _)| *known == tier).unwrap_or(TIERS.len());
    let mut names: Vec<&str> = here.iter().map(|it| it.tier.as_str()).collect();
    names.sort_by_key(|tier| (place(tier), *tier));
    names.dedup();
    names.into_iter().map(move |tier| {
        let mut members: Vec<&Announcement> = here.iter().copied().filter(|it| it.tier == tier).collect();
        members.sort_by(|one, other| one.instance.cmp(&other.instance));
        (tier, TIERS.get(place(tier)).map_or("", |(_, what)| what), members)
    })
}

fn verdict(here: &[&Announcement]) -> String {
    let unwell = here.iter().filter(|it| it.health != Health::Ready).count();
    let all = here.len();
    let instances = if all == 1 { "instance" } else { "instances" };
    match unwell {
        0 => format!("<p class=\"verdict ready\">{all} {instances}, all ready</p>"),
        some => format!("<p class=\"verdict degraded\">{} of {all} {instances} ready</p>", all - some),
    }
}

fn rows(here: &[&Announcement]) -> String {
    let mut rows = String::new();
    for (tier, what, members) in tiers(here) {
        // Writing to a String cannot fail.
        let _ = write!(rows, "<tr><th scope=\"row\">{}<td class=\"what\">{what}<td><ul>", escaped(tier));
        for member in members.iter().take(SHOWN_MAX) {
            let (class, word) = match member.health {
                Health::Ready => ("ready", "ready"),
                Health::Draining => ("draining", "draining"),
                _ => ("degraded", "degraded"),
            };
            let (name, node) = (escaped(&member.instance), escaped(&member.node));
            let role = member.facts.get("role").filter(|role| *role == "primary");
            let role = role.map_or_else(String::new, |role| format!(" <em>{}</em>", escaped(role)));
            let _ =
                write!(rows, "<li class=\"{class}\" title=\"{word}, on {node}\"><i>{word}</i>{name}{role}");
        }
        if members.len() > SHOWN_MAX {
            let _ = write!(rows, "<li>and {} more", members.len() - SHOWN_MAX);
        }
        rows.push_str("</ul>\n");
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn announcement(tier: &str, instance: &str, health: Health) -> Announcement {
        Announcement {
            node: "laptop".to_owned(),
            tier: tier.to_owned(),
            instance: instance.to_owned(),
            life: String::new(),
            address: Some("http://127.0.0.1:7070".to_owned()),
            health,
            capacity: 1.0,
            facts: BTreeMap::new(),
        }
    }

    fn picture() -> Vec<Announcement> {
        vec![
            announcement("console", "console-1", Health::Ready),
            announcement("app", "app-2", Health::Degraded),
            announcement("app", "app-1", Health::Ready),
            announcement("<odd>", "<b>", Health::Ready),
            announcement("web", "web-1", Health::Gone),
        ]
    }

    #[test]
    fn the_page_names_what_runs_in_the_order_of_a_request_and_shows_text_as_text() {
        let page = String::from_utf8(page(&picture(), "http://localhost:8080\"><x").body).unwrap();
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not in\n{page}"));
        assert!(
            at("app-1") < at("app-2") && at("app-2") < at("console-1") && at("console-1") < at("&lt;odd&gt;")
        );
        assert!(page.contains("3 of 4 instances ready") && page.contains("href=\"http://127.0.0.1:7070\""));
        assert!(!page.contains("web-1") && !page.contains("<b>") && !page.contains("\"><x"));
        assert!(!page.contains("<!-- "), "every place is filled in");
    }

    #[test]
    fn the_json_is_for_programs() {
        let value: serde_json::Value = serde_json::from_slice(&json(&picture()).body).unwrap();
        assert_eq!(value["jobs"], "/v1/jobs");
        assert_eq!(value["tiers"]["app"][1], json!({ "instance": "app-2", "health": "degraded" }));
    }
}
