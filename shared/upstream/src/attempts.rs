//! One request at a pool: which member is next, what is learnt from it, whether another one is tried.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::WallMs;
use http_support::gateway::{Blame, CLIENT_FIELD, ForwardError, ForwardFailure};
use http_support::wire::RequestHead;
use smallvec::SmallVec;

use crate::budget::Budget;
use crate::dice::Dice;
use crate::pool::{Member, Place, Pool, Refused, Tried, Wish, client_key};
use crate::sticky;

/// What a failure is scored as, at least: an answer that took so long. Longer if the member said `Retry-After`.
const PENALTY_MIN: Duration = Duration::from_secs(1);
/// And at most.
const PENALTY_MAX: Duration = Duration::from_secs(60);

/// One worker's budgets for retries, in the order of its pools.
#[derive(Default)]
pub struct Budgets(Vec<(Arc<Pool>, Rc<RefCell<Budget>>)>);

impl Budgets {
    /// Of these pools. What was spent stays spent when a configuration changes: only a pool's own new rules begin a new
    /// window.
    #[must_use]
    pub fn new(pools: &[Arc<Pool>], before: Option<&Self>) -> Self {
        let budget = |pool: &Arc<Pool>| {
            let same =
                |(it, _): &&(Arc<Pool>, _)| it.name == pool.name && it.config.retry == pool.config.retry;
            let running = before.and_then(|before| before.0.iter().find(same));
            let budget =
                running.map_or_else(|| Rc::new(RefCell::new(new_budget(pool))), |it| Rc::clone(&it.1));
            (Arc::clone(pool), budget)
        };
        Self(pools.iter().map(budget).collect())
    }

    /// The pool at `index`, for a request.
    #[must_use]
    pub fn attempts<'b>(
        &'b self,
        index: usize,
        dice: &RefCell<Dice>,
        head: &RequestHead<'_>,
        client: impl FnOnce() -> IpAddr,
    ) -> Attempts<'b> {
        let (pool, budget) = &self.0[index];
        Attempts::new(pool, budget, dice, head, client)
    }
}

fn new_budget(pool: &Pool) -> Budget {
    let retry = &pool.config.retry;
    let window = Duration::from_millis(retry.window_ms);
    Budget::new(f64::from(retry.budget_percent) / 100.0, retry.budget_min, window, clock::now())
}

/// The attempts of one request.
pub struct Attempts<'b> {
    /// Where.
    pub pool: &'b Arc<Pool>,
    budget: &'b RefCell<Budget>,
    dice: Dice,
    key: u64,
    client: u64,
    stick: Stick,
    /// Field lines for the members.
    request_lines: Vec<u8>,
    tried: Tried,
    now: Instant,
}

impl<'b> Attempts<'b> {
    fn new(
        pool: &'b Arc<Pool>,
        budget: &'b RefCell<Budget>,
        dice: &RefCell<Dice>,
        head: &RequestHead<'_>,
        client: impl FnOnce() -> IpAddr,
    ) -> Self {
        let now = clock::now();
        pool.took_one();
        budget.borrow_mut().deposit(now);
        let mut request_lines = Vec::new();
        let stick = Stick::of(pool, head, &mut request_lines);
        let address = pool.config.asks_for_client().then(client);
        if let (Some(address), Some(_)) = (address, &pool.config.fastcgi) {
            request_lines
                .extend_from_slice(format!("{CLIENT_FIELD}: {}\r\n", address.to_canonical()).as_bytes());
        }
        let client = address.map_or(0, client_key);
        let key = pool.key_of(
            client,
            head.authority(),
            head.path(),
            |name| head.get(name),
            |name| sticky::find(head.get_all("cookie"), name),
        );
        let dice = Dice::new(dice.borrow_mut().next());
        Self { pool, budget, dice, key, client, stick, request_lines, tried: Tried::new(), now }
    }

    /// The next member, with a place there; waits for one, within bounds, while all are full.
    ///
    /// # Errors
    /// Nobody can be asked, or nobody more.
    pub async fn place(&mut self) -> Result<Place<'b>, Refused> {
        // The first choice needs no second look at the clock.
        let now = if self.tried.is_empty() { self.now } else { clock::now() };
        let Self { pool, key, client, stick, tried, dice, .. } = self;
        let mut wish = Wish { key: *key, client: *client, stick: stick.tag, tried, now, dice };
        pool.place(&mut wish).await
    }

    /// Field lines to add to the request; they take the place of those in [`drop_request`](Self::drop_request).
    #[must_use]
    pub fn request_lines(&self) -> &[u8] {
        &self.request_lines
    }

    /// Fields of the request that no member sees as they came, beside `others`.
    #[must_use]
    pub fn drop_request(&self, others: &[&'static str]) -> SmallVec<[&'static str; 4]> {
        let mut names = SmallVec::from_slice(others);
        if self.stick.rewrites {
            names.push("cookie");
        }
        if self.pool.config.fastcgi.is_some() {
            names.push(CLIENT_FIELD);
        }
        names
    }

    /// Appends the line that keeps the client at `member`, where one is due.
    pub fn response_line(&self, member: &Member, secure: bool, out: &mut Vec<u8>) {
        if self.stick.wants_cookie(member) {
            self.pool.cookie_for(member, secure, out);
        }
    }

    /// Whether an answer of 503 may be dropped: another member may then be asked the same, and is there. Only for a request
    /// that can be sent again whole.
    #[must_use]
    pub fn may_drop_503(&self) -> bool {
        let retry = &self.pool.config.retry;
        retry.on_503 && self.tried.len() < retry.attempts as usize && self.pool.has_another(self.tried.len())
    }

    /// A member answered with `status`, its head after `first_byte`. RFC 9110 section 15.6: 502, 503 and 504 are a gateway's failures,
    /// whoever sent them; 500 is the application's own.
    pub fn answered(
        &self,
        member: &Member,
        status: u16,
        first_byte: Duration,
        began: Instant,
        said_after: Option<Duration>,
    ) {
        if matches!(status, 502..=504) {
            return self.did_not_answer(member, began, said_after);
        }
        self.pool.telemetry.answered(member);
        self.pool.succeeded(member, first_byte, clock::now());
    }

    /// A try at the request with this head failed; that counts against the member if it is to blame, and is told.
    pub fn failed(
        &self,
        member: &Member,
        error: &ForwardError,
        head: &RequestHead<'_>,
        began: Instant,
        said_after: Option<Duration>,
    ) {
        if error.blame() == Blame::Upstream {
            if !matches!(error.kind, ForwardFailure::Unwanted(_)) {
                self.pool.telemetry.failed(member, error, head);
            }
            self.did_not_answer(member, began, said_after);
        }
    }

    /// A member failed, in an answer or without one; `said_after`: how long it wants to be left alone.
    pub fn did_not_answer(&self, member: &Member, began: Instant, said_after: Option<Duration>) {
        let now = clock::now();
        let took = now.saturating_duration_since(began);
        let penalty = said_after.unwrap_or_default().max(took).clamp(PENALTY_MIN, PENALTY_MAX);
        self.pool.failed(member, penalty, now);
    }

    /// Whether another member is asked after this failure: it is safe, within the bounds, and paid for. `member` is not
    /// asked again for this request.
    pub fn goes_on(&mut self, error: &ForwardError, member: &Arc<Member>) -> bool {
        let tried = self.tried.len();
        let safe = error.answerable && error.repeatable;
        if !safe || tried >= self.pool.config.retry.attempts as usize || !self.pool.has_another(tried) {
            return false;
        }
        let paid = self.budget.borrow_mut().withdraw(clock::now());
        let telemetry = &self.pool.telemetry;
        if paid {
            telemetry.retries.inc();
            self.tried.push(Arc::clone(member));
        } else {
            telemetry.retries_denied.inc();
        }
        paid
    }
}

/// What the request's cookie says.
#[derive(Default)]
struct Stick {
    /// The pool is sticky.
    wanted: bool,
    /// The member it names.
    tag: Option<u64>,
    /// Less than half of its time is left.
    ages: bool,
    /// Our cookie was there and is taken out; other lines take the field's place.
    rewrites: bool,
}

impl Stick {
    fn of(pool: &Pool, head: &RequestHead<'_>, request_lines: &mut Vec<u8>) -> Self {
        let Some(config) = &pool.config.sticky else { return Self::default() };
        let Some(value) = sticky::find(head.get_all("cookie"), &config.cookie) else {
            return Self { wanted: true, ..Self::default() };
        };
        sticky::without(head.get_all("cookie"), &config.cookie, request_lines);
        let opened = pool.key.open(value, WallMs::now());
        Self {
            wanted: true,
            tag: opened.map(|opened| opened.tag),
            ages: opened.is_some_and(|opened| opened.left < Duration::from_secs(config.ttl_s) / 2),
            rewrites: true,
        }
    }

    fn wants_cookie(&self, member: &Member) -> bool {
        self.wanted && (self.tag != Some(member.tag) || self.ages)
    }
}
