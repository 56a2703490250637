//! Histories of concurrent clients, and the proof that they are what one copy of the data could have produced.
//!
//! Each key is a register with a version: a write sets a value of its own and counts the version up, in one transaction
//! that also leaves a row under the write's id. Versions give the order of writes, so linearizability needs no search:
//! it is enough that real time never contradicts the versions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

pub const KEYS: usize = 4;

#[derive(Clone, Debug)]
pub enum What {
    /// Wrote `id`, which made this version.
    Wrote { id: i64, version: i64 },
    /// Tried to write `id`; nobody knows.
    Unknown { id: i64 },
    /// Tried to write `id`; told that it surely did not happen.
    NotDone { id: i64 },
    /// Strong read: the value (a write's id) and its version.
    Read { value: i64, version: i64 },
    /// Session read by a client that has seen `seen` of this key.
    Session { value: i64, version: i64, seen: i64 },
}

#[derive(Clone, Debug)]
pub struct Event {
    pub client: usize,
    pub key: usize,
    pub from: Instant,
    pub to: Instant,
    pub what: What,
}

/// What the clients need; replaced when the replicas are started again at other addresses.
#[derive(Clone)]
pub struct Target {
    pub urls: Arc<Mutex<Vec<String>>>,
    pub http: reqwest::Client,
}

pub async fn set_up(client: &dbclient::Database) {
    let plain = |sql: &str| messages::sql::Statement::Plain(sql.to_owned());
    let mut all = vec![
        plain("CREATE TABLE reg (k INTEGER PRIMARY KEY, value INTEGER NOT NULL, version INTEGER NOT NULL)"),
        plain("CREATE TABLE done (id INTEGER PRIMARY KEY, k INTEGER NOT NULL, noise)"),
        plain(
            "CREATE TRIGGER noise AFTER INSERT ON done BEGIN UPDATE done SET noise = random() WHERE id = new.id; END",
        ),
    ];
    all.extend((0..KEYS).map(|k| plain(&format!("INSERT INTO reg VALUES ({k}, 0, 0)"))));
    client.execute(all).await.unwrap();
}

/// One client: writes and reads through replicas chosen at random until `stop`.
pub async fn client(
    id: usize,
    seed: u64,
    target: Target,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> Vec<Event> {
    let mut rng = StdRng::seed_from_u64(seed ^ (id as u64) << 32);
    let (mut events, mut token, mut seen) = (vec![], None::<String>, [0_i64; KEYS]);
    let mut count = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let key = rng.random_range(0..KEYS);
        let url = {
            let urls = target.urls.lock().unwrap();
            if urls.is_empty() { String::new() } else { urls[rng.random_range(0..urls.len())].clone() }
        };
        if url.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let from = clock::now();
        let what = match rng.random_range(0..10) {
            0..5 => {
                count += 1;
                let write = (id as i64 + 1) * 1_000_000 + count;
                match write_one(&target.http, &url, write, key).await {
                    Ok((version, offset)) => {
                        seen[key] = seen[key].max(version);
                        token = later(token, offset);
                        What::Wrote { id: write, version }
                    }
                    Err(true) => What::NotDone { id: write },
                    Err(false) => What::Unknown { id: write },
                }
            }
            5..7 => match read_one(&target.http, &url, key, "strong", None).await {
                Some((value, version, _)) => What::Read { value, version },
                None => continue,
            },
            _ => match read_one(&target.http, &url, key, "session", token.as_deref()).await {
                Some((value, version, offset)) => {
                    let before = seen[key];
                    seen[key] = seen[key].max(version);
                    token = later(token, offset);
                    What::Session { value, version, seen: before }
                }
                None => continue,
            },
        };
        let failed = matches!(what, What::NotDone { .. } | What::Unknown { .. });
        events.push(Event { client: id, key, from, to: clock::now(), what });
        if failed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    events
}

fn later(mine: Option<String>, theirs: String) -> Option<String> {
    let order = |t: &str| t.parse::<database::position::Token>().ok();
    match mine {
        Some(mine) if order(&mine) >= order(&theirs) => Some(mine),
        _ => Some(theirs),
    }
}

/// Version and offset; or whether it surely was not done.
async fn write_one(http: &reqwest::Client, url: &str, id: i64, key: usize) -> Result<(i64, String), bool> {
    let body = json!([
        ["INSERT INTO done (id, k) VALUES (?, ?)", id, key],
        ["UPDATE reg SET value = ?, version = version + 1 WHERE k = ? RETURNING version", id, key],
    ]);
    let request =
        http.post(format!("{url}/db/execute?transaction")).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.map_err(|e| e.is_connect())?;
    let status = answer.status().as_u16();
    let offset =
        answer.headers().get("standfast-offset").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let text = answer.text().await.map_err(|_| false)?;
    let body: Value = serde_json::from_str(&text).map_err(|_| false)?;
    match status {
        200 => {
            let version = body["results"][1]["values"][0][0].as_i64();
            Ok((version.unwrap_or_else(|| panic!("a write was answered with {text}")), offset))
        }
        503 => Err(body["type"] != "/problems/outcome-unknown"),
        _ => panic!("{status}: {text}"),
    }
}

async fn read_one(
    http: &reqwest::Client,
    url: &str,
    key: usize,
    level: &str,
    after: Option<&str>,
) -> Option<(i64, i64, String)> {
    let mut request =
        http.post(format!("{url}/db/query?level={level}")).header("content-type", "application/json");
    if let Some(after) = after {
        request = request.header("standfast-offset", after);
    }
    let body = json!([["SELECT value, version FROM reg WHERE k = ?", key]]).to_string();
    let answer = request.body(body).send().await.ok()?;
    if answer.status() != 200 {
        return None;
    }
    let offset = answer.headers().get("standfast-offset")?.to_str().ok()?.to_owned();
    let body: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    let row = &body["results"][0]["values"][0];
    Some((row[0].as_i64()?, row[1].as_i64()?, offset))
}

/// What is in the database at the end.
pub struct Final {
    /// Per key: value and version.
    pub registers: Vec<(i64, i64)>,
    /// Ids of the writes that are there, with their key.
    pub done: BTreeMap<i64, usize>,
}

pub fn read_final(dir: &std::path::Path) -> Final {
    let conn = rusqlite::Connection::open(dir.join("database.sqlite")).unwrap();
    let mut registers = conn.prepare("SELECT value, version FROM reg ORDER BY k").unwrap();
    let registers =
        registers.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect();
    let mut done = conn.prepare("SELECT id, k FROM done").unwrap();
    let done = done
        .query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)? as usize)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    Final { registers, done }
}

/// Proves the history, or says what is wrong with it.
pub fn check(events: &[Event], end: &Final) -> Result<String, String> {
    let mut counts = BTreeMap::new();
    for event in events {
        let there = |id: &i64| end.done.contains_key(id);
        let name = match &event.what {
            What::Wrote { id, .. } if !there(id) => {
                return Err(format!("an acknowledged write is lost: {event:?}"));
            }
            What::NotDone { id } if there(id) => {
                return Err(format!("a write that surely did not happen is there: {event:?}"));
            }
            What::Session { version, seen, .. } if version < seen => {
                return Err(format!("a session went back: {event:?}"));
            }
            What::Wrote { .. } => "writes",
            What::NotDone { .. } => "refused",
            What::Unknown { .. } => "unknown",
            What::Read { .. } => "strong reads",
            What::Session { .. } => "session reads",
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    for key in 0..KEYS {
        let of_key: Vec<&Event> = events.iter().filter(|e| e.key == key).collect();
        check_key(&of_key, end.registers[key])?;
        let rows = end.done.values().filter(|k| **k == key).count() as i64;
        if rows != end.registers[key].1 {
            return Err(format!("key {key} has version {} after {rows} writes", end.registers[key].1));
        }
    }
    Ok(format!("{counts:?}"))
}

fn check_key(events: &[&Event], end: (i64, i64)) -> Result<(), String> {
    // One value per version: anything else is a fork.
    let mut value_of = HashMap::from([(end.1, end.0), (0, 0)]);
    let mut note = |event: &Event, version: i64, value: i64| {
        let known = *value_of.entry(version).or_insert(value);
        if known == value {
            Ok(())
        } else {
            Err(format!("version {version} is both {known} and {value}: {event:?}"))
        }
    };
    let mut began: HashMap<i64, Instant> = HashMap::new();
    for event in events {
        match event.what {
            What::Wrote { id, version } => {
                note(event, version, id)?;
                began.insert(id, event.from);
            }
            What::Read { value, version } | What::Session { value, version, .. } => {
                note(event, version, value)?
            }
            What::Unknown { id } | What::NotDone { id } => drop(began.insert(id, event.from)),
        }
    }
    // Real time: what ended before something else began has a version that is not later.
    let mut strong: Vec<(Instant, Instant, i64, bool, &Event)> = Vec::new();
    for event in events {
        match event.what {
            What::Wrote { version, .. } => strong.push((event.from, event.to, version, true, event)),
            What::Read { value, version } => {
                if let Some(from) = began.get(&value)
                    && *from > event.to
                {
                    return Err(format!("a value was read before it was written: {event:?}"));
                }
                strong.push((event.from, event.to, version, false, event));
            }
            _ => {}
        }
    }
    let mut ends = strong.clone();
    strong.sort_by_key(|e| e.0);
    ends.sort_by_key(|e| e.1);
    let (mut ended, mut newest) = (0, None::<(i64, &Event)>);
    for (from, _, version, is_write, event) in strong {
        while ended < ends.len() && ends[ended].1 < from {
            if newest.is_none_or(|(v, _)| ends[ended].2 > v) {
                newest = Some((ends[ended].2, ends[ended].4));
            }
            ended += 1;
        }
        if let Some((seen, earlier)) = newest {
            let stale = if is_write { version <= seen } else { version < seen };
            if stale {
                return Err(format!("not linearizable: {earlier:?} ended before {event:?} began"));
            }
        }
    }
    Ok(())
}
