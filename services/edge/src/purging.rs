//! Purges, at every point of presence in one go.
//!
//! Each point serves an address of its own on the bus; whoever is asked to purge asks every point that discovery knows
//! and reports when each of them had forgotten. A point whose link was lost may have missed a purge: from then on it
//! validates everything it had before it uses it.

use std::sync::Arc;
use std::time::Instant;

use bus::{LinkState, Message};
use clock::WallMs;
use futures_util::future::join_all;
pub use messages::edge::{Forgot, KIND, KIND_PURGE, Purge, address, web_address};
use serde::Serialize;
use supervision::{Life, StartError, Started};

use crate::edge::Edge;
use crate::publishing;
use crate::rules::key::{as_sent, of_url};
use crate::store::Target;

/// Requests from other points that may wait.
const WAITING_MAX: usize = 1024;
/// URIs near those that were not there, that are told.
const NEAR_MAX: usize = 8;
/// Targets without a match for which it is looked: each look goes through the store.
const NEAR_LOOKS: usize = 4;
/// Targets of one purge.
pub const TARGETS_MAX: usize = 10_000;

/// What all say.
#[derive(Debug, Serialize)]
pub struct Receipt {
    /// Points that have forgotten, and web servers that will look at their files again.
    pub points: Vec<Forgot>,
    /// Points that did not answer in time: they may still have it.
    pub silent: Vec<String>,
    /// From the request to the last answer.
    pub took_ms: u64,
}

/// The targets of a purge.
///
/// # Errors
/// Says which is no URL, that there are none, or too many.
pub fn targets(purge: &Purge) -> Result<Vec<Target>, String> {
    if purge.all {
        return Ok(["http://", "https://"].map(|scheme| Target::Prefix(scheme.into())).into());
    }
    let Purge { urls, prefixes, paths, hosts, tags, .. } = purge;
    let count = urls.len() + prefixes.len() + paths.len() + hosts.len() + tags.len();
    if !(1..=TARGETS_MAX).contains(&count) {
        return Err(format!(
            "one to {TARGETS_MAX} of `urls`, `prefixes`, `paths`, `hosts` and `tags` are expected, not {count}"
        ));
    }
    let url = |url: &String| {
        of_url(&as_sent(url)).ok_or_else(|| format!("{url:?} is not an absolute http or https URL"))
    };
    let mut targets = Vec::with_capacity(count);
    for key in purge.urls.iter().map(url) {
        targets.push(Target::Key(key?.into()));
    }
    for prefix in purge.prefixes.iter().map(url) {
        targets.push(Target::Prefix(prefix?.into()));
    }
    for path in paths {
        if !path.starts_with('/') {
            return Err(format!("{path:?} is no path: use /news, /news?page=2 or /news/*"));
        }
        let sent = as_sent(path);
        targets.push(match sent.strip_suffix('*') {
            Some(beginning) => Target::PathPrefix(beginning.into()),
            None => Target::Path(sent.into()),
        });
    }
    for host in purge.hosts.iter().map(|host| host.to_ascii_lowercase()) {
        let beginnings = ["http", "https"].into_iter().flat_map(|scheme| [(scheme, '/'), (scheme, ':')]);
        targets
            .extend(beginnings.map(|(scheme, end)| Target::Prefix(format!("{scheme}://{host}{end}").into())));
    }
    targets.extend(purge.tags.iter().map(|tag| Target::Tag(tag.trim().into())));
    Ok(targets)
}

/// Forgets here.
fn apply(edge: &Edge, purge: &Purge) -> Forgot {
    let (mut uris, mut near, mut looks) = (0, Vec::new(), NEAR_LOOKS);
    for target in targets(purge).unwrap_or_default() {
        if !purge.soft {
            match &target {
                Target::Key(key) => edge.fills.detach(key),
                Target::Prefix(prefix) => edge.fills.detach_all(|key| key.starts_with(&**prefix)),
                Target::Path(_) | Target::PathPrefix(_) => {
                    edge.fills.detach_all(|key| target.is_about(key, &[]));
                }
                Target::Tag(_) => edge.fills.detach_all(|_| true), // what comes may have the tag
            }
        }
        let count = edge.store.purge(&target, purge.soft);
        edge.telemetry.purged(&target, purge.soft, count);
        uris += count;
        if let (0, Target::Key(wanted) | Target::Path(wanted)) = (count, &target)
            && near.len() < NEAR_MAX
            && looks > 0
        {
            looks -= 1;
            near.extend(edge.store.near(wanted, NEAR_MAX - near.len()));
        }
    }
    Forgot { instance: edge.instance.clone(), at: WallMs::now().rfc3339(), uris, near }
}

/// Forgets everywhere.
pub async fn everywhere(edge: &Edge, purge: &Purge) -> Receipt {
    let started = clock::now();
    let message = Message::json(purge).with_header(KIND, KIND_PURGE);
    // The servers of files first: what a point fetches from then on is new.
    let webs = ask(edge, webs(edge), &message).await;
    let own = apply(edge, purge);
    let others = ask_all(edge, &message).await;
    let mut receipt = Receipt { points: vec![own], silent: Vec::new(), took_ms: 0 };
    for (instance, answer) in others.into_iter().chain(webs) {
        match answer.and_then(|message| message.parse::<Forgot>().ok()) {
            Some(forgot) => receipt.points.push(forgot),
            None => receipt.silent.push(instance),
        }
    }
    receipt.took_ms = elapsed_ms(started);
    receipt
}

/// Milliseconds since then.
pub fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(clock::now().duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

/// Asks every other point that discovery knows, at once.
pub async fn ask_all(edge: &Edge, message: &Message) -> Vec<(String, Option<Message>)> {
    let picture = edge.registry.snapshot();
    let own = edge.announcer.announcement();
    let others = picture
        .iter()
        .filter(|it| it.tier == "edge" && (&it.node, &it.instance) != (&own.node, &own.instance));
    let others = others.map(|it| (it.instance.clone(), address(&it.node, &it.instance))).collect();
    ask(edge, others, message).await
}

/// Every web server that discovery knows: name and address.
fn webs(edge: &Edge) -> Vec<(String, String)> {
    let picture = edge.registry.snapshot();
    let webs = picture.iter().filter(|it| it.tier == "web");
    webs.map(|it| (it.instance.clone(), web_address(&it.node, &it.instance))).collect()
}

async fn ask(edge: &Edge, whom: Vec<(String, String)>, message: &Message) -> Vec<(String, Option<Message>)> {
    let one = |(instance, address): (String, String)| async move {
        let answer = edge.bus.request(&address, message.clone(), edge.config.purge_deadline()).await;
        let answer = answer
            .inspect_err(|error| tracing::warn!(instance, %error, "no answer to a purge or publication"));
        (instance, answer.ok())
    };
    join_all(whom.into_iter().map(one)).await
}

/// Serves the other points.
pub fn start(life: Life) -> Result<Started, StartError> {
    let edge = life.env::<Edge>();
    Ok(Started::task(async move {
        let mut stopping = std::pin::pin!(life.stopping());
        let address = address(edge.registry.node(), &edge.instance);
        let mut link = edge.bus.state();
        let mut requests = loop {
            match edge.bus.serve(&address, WAITING_MAX).await {
                Ok(requests) => break requests,
                Err(error) => {
                    life.waiting("bus");
                    tracing::debug!(%error, "purges cannot be heard yet");
                    tokio::select! {
                        changed = link.changed() => changed.map_err(|_| "the bus is gone")?,
                        () = &mut stopping => return Ok(()),
                    }
                }
            }
        };
        life.ready();
        let mut missed = *link.borrow_and_update() == LinkState::Down;
        loop {
            tokio::select! {
                request = requests.next() => {
                    let reply = answer(&edge, &request.message).await;
                    request.reply(reply);
                }
                changed = link.changed() => {
                    changed.map_err(|_| "the bus is gone")?;
                    let down = *link.borrow_and_update() == LinkState::Down;
                    if missed && !down {
                        edge.store.distrust(WallMs::now());
                        tracing::warn!("the bus was away: what is stored is validated before it is used again");
                    }
                    missed = down;
                }
                () = &mut stopping => return Ok(()),
            }
        }
    }))
}

async fn answer(edge: &Arc<Edge>, message: &Message) -> Message {
    match message.headers.get(KIND).map(String::as_str) {
        Some(KIND_PURGE) => match message.parse::<Purge>() {
            Ok(purge) => Message::json(&apply(edge, &purge)),
            Err(error) => Message::json(&format!("not a purge: {error}")),
        },
        _ => publishing::received(edge, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_names_one_to_ten_thousand_targets() {
        let purge = Purge {
            urls: vec!["HTTP://A.example/x".to_owned()],
            prefixes: vec!["https://a.example".to_owned()],
            tags: vec![" t ".to_owned()],
            ..Purge::default()
        };
        let expected = [
            Target::Key("http://a.example/x".into()),
            Target::Prefix("https://a.example/".into()),
            Target::Tag("t".into()),
        ];
        assert_eq!(targets(&purge).unwrap(), expected);
        assert!(targets(&Purge::default()).is_err());
        let paths = ["/a b", "/c?d", "/e/*"].map(str::to_owned).into();
        let expected =
            [Target::Path("/a%20b".into()), Target::Path("/c?d".into()), Target::PathPrefix("/e/".into())];
        assert_eq!(targets(&Purge { paths, ..Purge::default() }).unwrap(), expected);
        assert!(targets(&Purge { paths: vec!["a".to_owned()], ..Purge::default() }).is_err());
        assert!(
            targets(&Purge { urls: vec!["/x".to_owned()], ..Purge::default() }).unwrap_err().contains("/x")
        );
        let many = Purge { tags: vec!["t".to_owned(); TARGETS_MAX + 1], ..Purge::default() };
        assert!(targets(&many).is_err());
    }
}
