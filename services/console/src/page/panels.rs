//! Beside the tree: what is broken on purpose, what happened, who is there, and the last jobs.

use std::fmt::Write as _;

use clock::WallMs;
use faults::InForce;
use messages::job::{Job, State};
use messages::service::{Announcement, Health};

use crate::incidents::Incident;
use crate::page::html::{Esc, Micros, short};
use crate::page::tree::reason;

/// The faults in force, each with the button that ends it.
#[must_use]
pub fn faults(list: &[InForce]) -> String {
    if list.is_empty() {
        return "<p class=\"none\">None. Point at a child and break it.</p>".to_owned();
    }
    let mut out = String::from("<ul class=\"list\">");
    for f in list {
        let s = f.ends_in_ms.div_ceil(1000);
        let _ = write!(
            out,
            "<li data-fault=\"{id}\"><span class=\"fault\">{kind}</span> <span class=\"what\" title=\"{all}\">{target}</span>\
             <span class=\"left\" data-ends-in=\"{ms}\">{s} s</span>\
             <button type=\"button\" class=\"clear\">clear</button></li>",
            id = f.id,
            kind = f.kind,
            all = Esc(&f.matched.join("\n")),
            target = Esc(&f.target),
            ms = f.ends_in_ms,
        );
    }
    out.push_str("</ul>");
    out
}

/// What went down and came back, newest first.
#[must_use]
pub fn incidents(list: &[Incident]) -> String {
    let mut out = String::from("<ol class=\"list\" id=\"incidents\">");
    for i in list {
        let back = match i.back {
            None => "<span class=\"down\">down</span>".to_owned(),
            Some(back) => match back.after_us {
                Some(us) => format!("back in {}", Micros(us)),
                None => format!("back as #{}", back.incarnation),
            },
        };
        let _ = write!(
            out,
            "<li data-of=\"{path}\"><time>{time}</time> <span class=\"reason\">{reason}</span> \
             <span class=\"what\" title=\"{path}&#10;{detail}\">{name}</span><span class=\"back\">{back}</span></li>",
            path = Esc(&i.path),
            time = of_day(i.at),
            reason = reason(i.reason),
            detail = Esc(&i.detail),
            name = Esc(short(&i.path)),
        );
    }
    out.push_str("</ol>");
    out
}

/// What discovery knows.
#[must_use]
pub fn services(list: &[Announcement]) -> String {
    if list.is_empty() {
        return "<p class=\"none\">Nobody has announced itself yet.</p>".to_owned();
    }
    let mut sorted: Vec<&Announcement> = list.iter().collect();
    sorted.sort_by(|a, b| (&a.tier, &a.instance).cmp(&(&b.tier, &b.instance)));
    let mut out = String::from("<ul class=\"list services\">");
    for a in sorted {
        let mut facts: Vec<String> = a.facts.iter().map(|(k, v)| format!("{k} {v}")).collect();
        facts.sort_by_key(|fact| !fact.starts_with("role ")); // who is the primary is what people look for
        let facts = facts.join(", ");
        let address = a.address.as_deref().unwrap_or_default();
        let _ = write!(
            out,
            "<li title=\"on {node}\"><span>{instance}</span><span class=\"{health}\">{health}</span>\
             <span class=\"facts\" title=\"{facts}\">{facts}</span><span class=\"address\">{address}</span></li>",
            node = Esc(&a.node),
            instance = Esc(&a.instance),
            health = health(a.health),
            facts = Esc(&facts),
            address = Esc(address.strip_prefix("http://").unwrap_or(address)),
        );
    }
    out.push_str("</ul>");
    out
}

/// The last jobs, or why they cannot be shown.
#[must_use]
pub fn jobs(list: &Result<Vec<Job>, String>) -> String {
    let list = match list {
        Ok(list) if list.is_empty() => {
            return "<p class=\"none\">None yet. Submit one: <code>standfast jobs submit digest '{\"text\":\"hello\"}'</code></p>"
                .to_owned();
        }
        Ok(list) => list,
        Err(why) => return format!("<p class=\"none\">{}</p>", Esc(why)),
    };
    let mut out = String::from(
        "<table><thead><tr><th>job<th>kind<th>queue<th>state<th>attempt<th>inserted<th>took<th>last error</tr></thead><tbody>",
    );
    for job in list {
        job_row(&mut out, job);
    }
    out.push_str("</tbody></table>");
    out
}

fn job_row(out: &mut String, job: &Job) {
    let id = job.id.to_string();
    let took = job.finished_at.as_deref().zip(job.started_at.as_deref()).and_then(|(end, start)| {
        let (end, start) = (WallMs::parse_rfc3339(end).ok()?, WallMs::parse_rfc3339(start).ok()?);
        u64::try_from(end.since(start).as_micros()).ok()
    });
    let took = took.map_or_else(|| "–".to_owned(), |us| Micros(us).to_string());
    let error = match (job.state, job.errors.last()) {
        _ if !job.unreadable.is_empty() => format!("unreadable: {}", job.unreadable.join("; ")),
        (State::Completed, _) | (_, None) => String::new(),
        (_, Some(error)) => error.detail.chars().take(120).collect(),
    };
    let inserted = WallMs::parse_rfc3339(&job.inserted_at).map_or_else(|_| job.inserted_at.clone(), of_day);
    let _ = write!(
        out,
        "<tr><td class=\"id\" title=\"{id}\">{tail}<td>{kind}<td>{queue}<td class=\"job {state}\">{state}\
         <td>{attempt} of {max}<td>{inserted}<td>{took}<td class=\"facts\">{error}</tr>",
        tail = &id[id.len() - 12..],
        kind = Esc(&job.kind),
        queue = Esc(&job.queue),
        state = job.state.as_str(),
        attempt = job.attempt,
        max = job.max_attempts,
        inserted = Esc(&inserted),
        error = Esc(&error),
    );
}

/// `12:34:56.789` of a day in UTC.
fn of_day(at: WallMs) -> String {
    let text = at.rfc3339();
    text.get(11..23).unwrap_or(&text).to_owned()
}

const fn health(health: Health) -> &'static str {
    match health {
        Health::Ready => "ready",
        Health::Degraded => "degraded",
        Health::Draining => "draining",
        Health::Gone => "gone",
    }
}
