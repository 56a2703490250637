//! The other replicas, over HTTP.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use messages::service::{Announcement, Health};
use messages::sql::KEY_HEADER;
use supervision::BoxError;

use crate::agreement::{self, Agreement};
use crate::entry::Restore;
use crate::position::Token;
use crate::sqlite::store;
use crate::state::Shared;
use crate::succession::Peer;

/// How long another replica may need to make a copy of its file.
const MAKE_MAX: Duration = Duration::from_secs(120);
/// How long a snapshot may pause on its way.
const STALL_MAX: Duration = Duration::from_secs(10);

pub(crate) fn client() -> reqwest::Client {
    // Several crates of one process may do this; the first wins and all want the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder =
        reqwest::Client::builder().no_proxy().tcp_nodelay(true).connect_timeout(Duration::from_secs(1));
    builder
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client without certificates of its own can be built")
}

/// The other replicas that discovery knows and that have an address.
pub(crate) fn others(shared: &Shared) -> Vec<Announcement> {
    let mut all = shared.registry.of_tier(shared.group.tier);
    all.retain(|it| {
        it.instance != shared.config.instance && it.address.is_some() && it.health != Health::Gone
    });
    all
}

/// A number that a replica says of itself.
pub(crate) fn fact(of: &Announcement, key: &str) -> Option<u64> {
    of.facts.get(key)?.parse().ok()
}

/// What the other replicas say of themselves, as far as they have said it.
pub(crate) fn peers(shared: &Shared) -> Vec<Peer> {
    let all = others(shared).into_iter();
    let peer = |it: Announcement| {
        let primary = it.facts.get("role").is_some_and(|role| role == "primary");
        let (generation, seq) = (fact(&it, "generation")?, fact(&it, "seq")?);
        Some(Peer { instance: it.instance, generation, seq, primary })
    };
    all.filter_map(peer).collect()
}

/// What each of the other replicas does: its instance, whether it can be used, and its role.
pub(crate) type Roles = Vec<(String, Health, Option<String>)>;

/// See [`Roles`]; in the order of their names.
pub(crate) fn roles(shared: &Shared) -> Roles {
    let role = |mut it: Announcement| (it.instance, it.health, it.facts.remove("role"));
    let mut all: Roles = others(shared).into_iter().map(role).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Whether every other replica that is known has said how far it is.
pub(crate) fn all_told(shared: &Shared) -> bool {
    others(shared).iter().all(|it| it.facts.get("role").is_some_and(|role| role != "starting"))
}

/// How this replica's content compares with that of the others.
pub(crate) fn agreement(shared: &Shared) -> Agreement {
    let mine = shared.status().borrow().digest.clone();
    let said = |it: Announcement| Some((it.instance, it.facts.get("digest")?.clone()));
    agreement::judge(&mine, &others(shared).into_iter().filter_map(said).collect::<Vec<_>>())
}

/// Whether every other replica that follows the log has said what its content was.
pub(crate) fn all_said(shared: &Shared) -> bool {
    others(shared).iter().all(|it| {
        let follows = it
            .facts
            .get("role")
            .is_none_or(|role| ["starting", "replica", "candidate", "primary"].contains(&&**role));
        !follows || it.facts.get("digest").is_some_and(|words| !words.is_empty())
    })
}

/// Whether some replica takes writes, as far as it has said.
pub(crate) fn a_primary_is_known(shared: &Shared) -> bool {
    let says = |it: &Announcement| it.facts.get("role").is_some_and(|role| role == "primary");
    others(shared).iter().any(|it| says(it) && it.health == Health::Ready)
}

/// A request to another replica, with the key that it wants to see.
pub(crate) fn post(shared: &Shared, to: &Announcement, target: &str) -> reqwest::RequestBuilder {
    let address = to.address.as_deref().unwrap_or_default();
    let request = shared.peers.post(format!("{address}{target}"));
    match shared.registry.key_of(to) {
        Some(key) => request.header(KEY_HEADER, key.expose()),
        None => request,
    }
}

/// The same for what is fetched.
fn get(shared: &Shared, from: &Announcement, target: &str) -> reqwest::RequestBuilder {
    let address = from.address.as_deref().unwrap_or_default();
    let request = shared.peers.get(format!("{address}{target}"));
    match shared.registry.key_of(from) {
        Some(key) => request.header(KEY_HEADER, key.expose()),
        None => request,
    }
}

/// Has another replica stage the file of a restore, and returns when it has.
pub(crate) async fn stage(shared: &Shared, at: &Announcement, restore: &Restore) -> Result<(), BoxError> {
    let target = format!("/db/staged/{restore}?from={}", shared.config.instance);
    let within = Duration::from_millis(shared.config.backup_time_ms);
    let answer = post(shared, at, &target).timeout(within).send().await?;
    if answer.status().is_success() {
        return Ok(());
    }
    let problem = answer.json::<messages::problem::Problem>().await?;
    Err(problem.detail.unwrap_or(problem.title).into())
}

/// Fetches the staged file of another replica.
pub(crate) async fn fetch_staged(
    shared: &Shared,
    from: &Announcement,
    restore: &Restore,
    file: &Path,
) -> Result<(), BoxError> {
    let ask = get(shared, from, &format!("/db/staged/{restore}")).send();
    let response = tokio::time::timeout(STALL_MAX, ask).await??.error_for_status()?;
    receive(response, file).await
}

/// Writes a body to a new file, synced; one that comes no further is given up.
async fn receive(response: reqwest::Response, file: &Path) -> Result<(), BoxError> {
    let mut body = response.bytes_stream();
    let mut to = create(file).await?;
    while let Some(piece) = tokio::time::timeout(STALL_MAX, body.next()).await? {
        tokio::io::AsyncWriteExt::write_all(&mut to, &piece?).await?;
    }
    tokio::io::AsyncWriteExt::flush(&mut to).await?;
    to.sync_all().await?;
    Ok(())
}

/// A file that nobody has open: what an earlier try still writes goes elsewhere.
pub(crate) async fn create(file: &Path) -> std::io::Result<tokio::fs::File> {
    drop(tokio::fs::remove_file(file).await);
    tokio::fs::File::create(file).await
}

/// The primary: the one that the log says, else of the one that says so itself in the latest epoch.
pub(crate) fn primary(shared: &Shared) -> Option<Announcement> {
    let named = shared.status().borrow().primary.clone();
    let all = others(shared);
    let says = |it: &&Announcement| it.facts.get("role").is_some_and(|role| role == "primary");
    let by_log = all.iter().find(|it| *it.instance == *named);
    let by_word = || all.iter().filter(says).max_by_key(|it| fact(it, "epoch"));
    by_log.or_else(by_word).cloned()
}

/// Writes a snapshot of the replica that has most, and more than `mine` if that is said, to `file`, and says whose it is.
pub(crate) async fn fetch_snapshot(
    shared: &Shared,
    mine: Option<Token>,
    file: &Path,
) -> Result<String, BoxError> {
    let mut sources = others(shared);
    sources.retain(|it| it.facts.get("role").is_none_or(|role| role != "diverged" && role != "resyncing"));
    sources.sort_by_key(|it| std::cmp::Reverse((fact(it, "generation"), fact(it, "seq"))));
    let mut last = BoxError::from("no other replica is known");
    for source in sources {
        match fetch(shared, &source, mine, file).await {
            Ok(()) => return Ok(source.instance),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn fetch(
    shared: &Shared,
    from: &Announcement,
    mine: Option<Token>,
    file: &Path,
) -> Result<(), BoxError> {
    // A copy of a large file takes its time to be made; one that comes no further is given up.
    let ask = post(shared, from, "/db/backup").send();
    let response = tokio::time::timeout(MAKE_MAX, ask).await??.error_for_status()?;
    let instance = &from.instance;
    receive(response, file).await?;
    let file = file.to_owned();
    let check = move || -> Result<Token, BoxError> {
        let conn = rusqlite::Connection::open(&file)?;
        let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(format!("the snapshot is damaged: {verdict}").into());
        }
        Ok(store::read_position(&conn)?.token())
    };
    let theirs = tokio::task::spawn_blocking(check).await??;
    match mine {
        Some(mine) if theirs <= mine => {
            Err(format!("{instance} has no more ({theirs}) than this replica ({mine})").into())
        }
        _ => Ok(()),
    }
}
