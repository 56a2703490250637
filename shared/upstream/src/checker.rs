//! Active checks: asks each member at its time, a bounded number at once.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_support::gateway::{Address, FetchRequest, Origin, Timeouts, fetch};

use http_support::proxy_header::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{CheckConfig, CheckKind};
use crate::dice::{Dice, hash};
use crate::pool::Pool;
use crate::pools::Pools;

/// Checks at once; those due beyond wait for one to end. Each ends within its time limit.
const AT_ONCE: usize = 64;

/// A status line is shorter than this.
const STATUS_LINE_MAX: usize = 1024;

/// So much of an answer is read; the connection of a longer one is closed.
const ANSWER_BYTES_READ: usize = 64 << 10;

/// How a member is checked: as its traffic is.
#[derive(Clone)]
struct Check {
    config: CheckConfig,
    origin: Origin,
    /// Each connection begins with this header.
    proxy_to: Option<Version>,
}

/// A member to be checked: pool, member, address.
type Subject = (Arc<str>, Arc<str>, Address);

/// When who is checked next.
#[derive(Default)]
struct Schedule {
    due: BTreeSet<(Instant, Subject)>,
    known: HashMap<Subject, Instant>,
}

impl Schedule {
    /// These are to be checked; who is new at once, spread over a tenth of the interval.
    fn keep(&mut self, subjects: &HashMap<Subject, Check>, dice: &mut Dice, now: Instant) {
        let Self { due, known } = self;
        known.retain(|subject, at| {
            let stays = subjects.contains_key(subject);
            if !stays {
                due.remove(&(*at, subject.clone()));
            }
            stays
        });
        for (subject, Check { config: check, .. }) in subjects {
            if !known.contains_key(subject) {
                let at = now + interval(check).mul_f64(0.1 * unit(dice));
                known.insert(subject.clone(), at);
                due.insert((at, subject.clone()));
            }
        }
    }

    /// Takes one that is due.
    fn take(&mut self, now: Instant) -> Option<Subject> {
        let (_, subject) = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.due.pop_first();
        Some(subject)
    }

    /// It was checked: again after its interval, a tenth more or less, so that balancers do not check together.
    fn again(&mut self, subject: Subject, check: &CheckConfig, dice: &mut Dice, now: Instant) {
        if let Some(at) = self.known.get_mut(&subject) {
            *at = now + interval(check).mul_f64(0.9 + 0.2 * unit(dice));
            self.due.insert((*at, subject));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Checks the members of `pools`, for ever. `seed` spreads the checks of several instances.
pub async fn check(pools: &Pools, seed: &str) {
    let mut dice = Dice::new(hash(seed.as_bytes()));
    let (mut schedule, mut subjects) = (Schedule::default(), HashMap::new());
    let mut running = FuturesUnordered::new();
    let mut looks = pools.looks.subscribe();
    looks.mark_changed();
    loop {
        let now = clock::now();
        while running.len() < AT_ONCE
            && let Some(subject) = schedule.take(now)
        {
            if let Some(check) = subjects.get(&subject).cloned() {
                running.push(async move { (is_good(&check).await, check.config, subject) });
            }
        }
        let next = schedule.next().filter(|_| running.len() < AT_ONCE);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((good, check, subject)) = running.next() => {
                tell(pools, &subject, good);
                schedule.again(subject, &check, &mut dice, clock::now());
            }
            () = due => {}
            Ok(()) = looks.changed() => {
                subjects = self::subjects(pools);
                schedule.keep(&subjects, &mut dice, clock::now());
            }
        }
    }
}

/// Everybody of the pools that are checked, draining ones too: their state is shown.
fn subjects(pools: &Pools) -> HashMap<Subject, Check> {
    let list = pools.list();
    let rosters = pools.rosters();
    let checked = list.iter().filter(|pool| pool.config.check.kind != CheckKind::Off);
    let members = |pool: &Arc<Pool>| -> Vec<_> {
        let members = rosters.get(&pool.name).into_iter().flat_map(|roster| roster.states());
        let subject = |(wanted, member, _): (&crate::pool::Wanted, &Arc<crate::pool::Member>, _)| {
            let subject = (Arc::clone(&pool.name), Arc::clone(&wanted.id), wanted.address.clone());
            let proxy_to = pools.proxy_to(&pool.name);
            (subject, Check { config: pool.config.check.clone(), origin: member.origin.clone(), proxy_to })
        };
        members.map(subject).collect()
    };
    checked.flat_map(members).collect()
}

fn tell(pools: &Pools, (pool, member, address): &Subject, good: bool) {
    let mut rosters = pools.rosters();
    let Some(roster) = rosters.get_mut(pool) else { return };
    let before = roster.passes(member);
    let event = roster.checked(member, address, good, clock::now());
    if before != roster.passes(member) {
        pools.news.notify_one();
    }
    if let (Some(event), Some(pool)) = (event, pools.list().iter().find(|it| it.name == *pool)) {
        pool.telemetry.member(member, &event);
    }
}

async fn is_good(Check { config: check, origin, proxy_to }: &Check) -> bool {
    let limit = Duration::from_millis(check.timeout_ms);
    let asked = async {
        match (check.kind, origin.address(), proxy_to) {
            (CheckKind::Off, ..) => true,
            (CheckKind::Tcp, Address::Tcp(address), Some(version)) => {
                introduced(*address, *version).await.is_ok()
            }
            (CheckKind::Http, Address::Tcp(address), Some(version)) => {
                answers_introduced(check, *address, *version).await
            }
            (CheckKind::Tcp, Address::Tcp(address), None) => TcpStream::connect(address).await.is_ok(),
            (CheckKind::Tcp, Address::Unix(path), _) => UnixStream::connect(path).await.is_ok(),
            (CheckKind::Http, ..) => answers(check, origin, limit).await,
        }
    };
    tokio::time::timeout(limit, asked).await.unwrap_or(false)
}

/// RFC 9110 section 15: 2xx and 3xx say that it works.
async fn answers(check: &CheckConfig, origin: &Origin, limit: Duration) -> bool {
    let timeouts = Timeouts { connect: limit, first_byte: limit, idle: limit, total: Some(limit) };
    let lines = b"user-agent: standfast-check\r\n";
    let request = FetchRequest {
        method: "GET",
        target: &check.path,
        host: &check.host,
        lines,
        ..FetchRequest::default()
    };
    let Ok(mut answer) = fetch(origin, request, &timeouts).await else { return false };
    let good = (200..400).contains(&answer.head().status());
    // Read to its end where it is short, so that the connection can be used again.
    let mut read = 0;
    while read < ANSWER_BYTES_READ {
        match answer.chunk().await {
            Ok(Some(data)) => read += data.len(),
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    good
}

/// A connection that says who we are, as the balancer itself and for no client: its own two ends.
async fn introduced(address: SocketAddr, version: Version) -> io::Result<TcpStream> {
    let mut member = TcpStream::connect(address).await?;
    let header = version.header(member.local_addr()?, member.peer_addr()?);
    member.write_all(&header).await?;
    Ok(member)
}

/// The same question over such a connection. Its status line is enough.
async fn answers_introduced(check: &CheckConfig, address: SocketAddr, version: Version) -> bool {
    let ask = async {
        let mut member = introduced(address, version).await?;
        let CheckConfig { path, host, .. } = check;
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: standfast-check\r\nconnection: close\r\n\r\n"
        );
        member.write_all(head.as_bytes()).await?;
        let mut line = Vec::new();
        while !line.contains(&b'\n') && line.len() < STATUS_LINE_MAX {
            let mut piece = [0; STATUS_LINE_MAX];
            match member.read(&mut piece).await? {
                0 => break,
                n => line.extend_from_slice(&piece[..n]),
            }
        }
        io::Result::Ok(status_of(&line))
    };
    matches!(ask.await, Ok(Some(200..=399)))
}

/// `HTTP/1.1 204 No Content` (RFC 9112 section 4).
fn status_of(line: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?;
    let rest = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?;
    rest.get(..3).filter(|_| matches!(rest.as_bytes().get(3), None | Some(b' ' | b'\r')))?.parse().ok()
}

fn interval(check: &CheckConfig) -> Duration {
    Duration::from_millis(check.interval_ms)
}

#[allow(clippy::cast_precision_loss, reason = "a share")]
fn unit(dice: &mut Dice) -> f64 {
    dice.below(1_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> (Subject, Check) {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
        let check = Check { config: CheckConfig::default(), origin: Origin::http1(address), proxy_to: None };
        (("pool".into(), name.into(), address.into()), check)
    }

    fn names(schedule: &mut Schedule, now: Instant) -> Vec<String> {
        let mut names: Vec<_> =
            std::iter::from_fn(|| schedule.take(now)).map(|it| it.1.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn newcomers_are_checked_at_once_then_each_after_its_interval_give_or_take_a_tenth() {
        let (mut schedule, mut dice, now) = (Schedule::default(), Dice::new(1), clock::now());
        let subjects = HashMap::from([subject("a"), subject("b")]);
        schedule.keep(&subjects, &mut dice, now);
        let soon = now + Duration::from_millis(200); // a tenth of the interval
        assert_eq!(names(&mut schedule, soon), ["a", "b"]);
        assert_eq!(schedule.next(), None, "none is due while its check runs");
        let (first, Check { config: check, .. }) = subject("a");
        for seed in 0..100 {
            schedule.again(first.clone(), &check, &mut Dice::new(seed), now);
            let next = schedule.next().expect("it is due again") - now;
            assert!((1_800..=2_200).contains(&next.as_millis()), "{next:?}");
            schedule.due.clear();
        }
    }

    #[test]
    fn a_status_line_is_read_strictly() {
        for (line, status) in [
            ("HTTP/1.1 204 No Content\r\nx: y", Some(204)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 200", Some(200)),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("220 mail.example ESMTP\r\n", None),
            ("HTTP/1.1 2é0\r\n", None),
            ("", None),
        ] {
            assert_eq!(status_of(line.as_bytes()), status, "{line:?}");
        }
    }

    #[test]
    fn who_left_is_not_checked_any_more() {
        let (mut schedule, mut dice, now) = (Schedule::default(), Dice::new(1), clock::now());
        let mut subjects = HashMap::from([subject("a"), subject("b")]);
        schedule.keep(&subjects, &mut dice, now);
        let later = now + Duration::from_secs(1);
        assert_eq!(names(&mut schedule, later), ["a", "b"]);
        let (gone, Check { config: check, .. }) = subject("a");
        subjects.remove(&gone);
        schedule.keep(&subjects, &mut dice, later);
        schedule.again(gone, &check, &mut dice, later); // its check was still running
        assert_eq!(schedule.next(), None);
    }
}
