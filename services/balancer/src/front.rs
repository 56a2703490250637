//! Takes requests: chooses a member, forwards, learns from the outcome, and tries another where that is safe.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::WallMs;
use http_support::gateway::{
    self, Abort, Binding, Blame, Decision, Exchange, ForwardError, ForwardFailure, ForwardOptions, Handler,
    Outcome, ProxyProtocol,
};
use http_support::wire::{Framing, RequestHead, ResponseHead, client_address};
use http_support::{Error, Listener};
use ipnet::IpNet;
use supervision::{Life, StartError, Started};

use crate::budget::Budget;
use crate::dice::{Dice, hash};
use crate::pool::{Member, Pool, Refused, Tried, Wish, client_key};
use crate::shared::{Balancer, Table};
use crate::sticky;

/// What a failure is scored as, at least: an answer that took so long. Longer if the member said `Retry-After`.
const PENALTY_MIN: Duration = Duration::from_secs(1);
/// And at most.
const PENALTY_MAX: Duration = Duration::from_secs(60);
/// What those are told whom nobody can answer now, seconds.
const RETRY_AFTER_S: u64 = 1;

/// Starts an HTTP worker.
///
/// # Errors
/// None.
pub fn start(life: Life) -> Result<Started, StartError> {
    let balancer = life.env::<Balancer>();
    let config = balancer.table.load().config.clone();
    let proxy_protocol = match &config.proxy_from {
        from if from.is_empty() => ProxyProtocol::Off,
        from => ProxyProtocol::Required(from.clone()),
    };
    let binding = |listener: &Listener| {
        let plain = Binding { proxy_protocol: proxy_protocol.clone(), ..Binding::plain(listener.clone()) };
        plain.trusting(config.trusted.clone()).named(crate::TREE.name)
    };
    let over_tls = balancer.tls.iter().map(|(listener, tls)| binding(listener).with_tls(Arc::clone(tls)));
    let bindings = std::iter::once(binding(&balancer.listener)).chain(over_tls).collect();
    let limits = config.limits.gateway();
    let seed = hash(life.path().as_bytes()) ^ life.incarnation();
    Ok(Started::task(async move {
        let view = Rc::new(View::new(balancer.table.load_full(), None));
        let front = Front { balancer, view: RefCell::new(view), dice: RefCell::new(Dice::new(seed)) };
        gateway::serve(bindings, front, life, limits).await
    }))
}

struct Front {
    balancer: Arc<Balancer>,
    view: RefCell<Rc<View>>,
    dice: RefCell<Dice>,
}

/// One worker's view of the table, with what is the worker's own.
struct View {
    table: Arc<Table>,
    budgets: Vec<Rc<RefCell<Budget>>>,
}

impl View {
    fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        let budget = |pool: &Arc<Pool>| {
            // What was spent stays spent when routes change: only a pool's own new rules begin a new window.
            let same = |it: &Arc<Pool>| it.name == pool.name && it.config.retry == pool.config.retry;
            let running =
                before.and_then(|view| Some(&view.budgets[view.table.pools.iter().position(same)?]));
            running.map_or_else(|| Rc::new(RefCell::new(new_budget(pool))), Rc::clone)
        };
        let budgets = table.pools.iter().map(budget).collect();
        Self { table, budgets }
    }
}

fn new_budget(pool: &Pool) -> Budget {
    let retry = &pool.config.retry;
    let window = Duration::from_millis(retry.window_ms);
    Budget::new(f64::from(retry.budget_percent) / 100.0, retry.budget_min, window, clock::now())
}

impl Handler for Front {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        if self.balancer.refuses() {
            let detail = "this balancer is on standby; ask the active one";
            let standby = Error::unavailable("standby", detail, RETRY_AFTER_S);
            return Box::pin(exchange.problem(&standby)).await;
        }
        let view = self.view();
        let head = exchange.head();
        let index = *view.table.routes.find(head.authority(), head.path());
        let trusted = &view.table.config.trusted;
        let request = Request {
            pool: &view.table.pools[index],
            budget: &view.budgets[index],
            dice: &self.dice,
            trusted,
        };
        request.serve(exchange).await
    }
}

impl Front {
    /// The newest table; the worker's view is made anew when that is another.
    fn view(&self) -> Rc<View> {
        let newest = self.balancer.table.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(&newest, &view.table) {
            *view = Rc::new(View::new(Arc::clone(&newest), Some(&view)));
        }
        Rc::clone(&view)
    }
}

struct Request<'w> {
    pool: &'w Arc<Pool>,
    budget: &'w RefCell<Budget>,
    dice: &'w RefCell<Dice>,
    trusted: &'w [IpNet],
}

/// What a try came to.
enum Tally {
    Done,
    Failed(ForwardError),
}

impl Request<'_> {
    async fn serve(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let (head, now) = (exchange.head(), clock::now());
        self.pool.telemetry.requests.inc();
        self.budget.borrow_mut().deposit(now);
        let client = if self.pool.config.asks_for_client() { client_key(self.client(exchange)) } else { 0 };
        let key = self.pool.key_of(
            client,
            head.authority(),
            head.path(),
            |name| head.get(name),
            |name| sticky::find(head.get_all("cookie"), name),
        );
        let stick = Stick::of(self.pool, head);
        let mut dice = Dice::new(self.dice.borrow_mut().next());
        let mut tried = Tried::new();
        let mut last: Option<ForwardError> = None;
        loop {
            // The first choice needs no second look at the clock.
            let began = if last.is_some() { clock::now() } else { now };
            let mut wish = Wish { key, client, stick: stick.tag, tried: &tried, now: began, dice: &mut dice };
            let place = match self.pool.place(&mut wish).await {
                Ok(place) => place,
                Err(refused) => return Box::pin(self.refuse(exchange, refused, last)).await,
            };
            match self.try_at(exchange, &place.member, &stick, tried.len()).await {
                Tally::Done => return Ok(()),
                Tally::Failed(error) => {
                    if !self.may_retry(&error, tried.len()) {
                        return Box::pin(exchange.forward_failed(&error)).await;
                    }
                    tried.push(Arc::clone(&place.member));
                    last = Some(error);
                }
            }
        }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// The client, as far as trusted proxies tell.
    fn client(&self, exchange: &Exchange<'_>) -> IpAddr {
        client_address(exchange.head(), exchange.peer().ip(), |address| self.is_trusted(address))
    }

    fn is_secure(&self, exchange: &Exchange<'_>) -> bool {
        let told = || {
            self.is_trusted(exchange.peer().ip())
                && exchange.head().get("x-forwarded-proto") == Some(b"https")
        };
        exchange.peer().tls.is_some() || told()
    }

    /// One try at one member, and what is learnt from it.
    async fn try_at(
        &self,
        exchange: &mut Exchange<'_>,
        member: &Member,
        stick: &Stick,
        tried: usize,
    ) -> Tally {
        let head = exchange.head();
        let began = clock::now();
        let mut lines = Vec::new();
        if stick.wants_cookie(member) {
            self.pool.cookie_for(member, self.is_secure(exchange), &mut lines);
        }
        // A response that is not wanted is dropped: only where another member may be asked the same, and is there.
        let retry = &self.pool.config.retry;
        let again = retry.on_503
            && head.is_idempotent()
            && matches!(head.framing(), Framing::None)
            && tried < retry.attempts as usize
            && self.pool.has_another(tried);
        let mut said_after = None;
        let mut on_response = |response: &ResponseHead<'_>| {
            if response.status() == 503 {
                said_after = response.get("retry-after").and_then(seconds);
                if again {
                    return Decision::Retry;
                }
            }
            Decision::Forward
        };
        let options = ForwardOptions {
            request_lines: &stick.request_lines,
            drop_request: if stick.rewrites { &["cookie"] } else { &[] },
            response_lines: &lines,
            timeouts: self.pool.timeouts,
            on_response: Some(&mut on_response),
            ..ForwardOptions::default()
        };
        let result = exchange.forward(&member.origin, options).await;
        self.learn(member, &result, began, said_after);
        match result {
            Ok(_) => Tally::Done,
            Err(error) => Tally::Failed(error),
        }
    }

    /// RFC 9110 section 15.6: 502, 503 and 504 are a gateway's failures, whoever sent them; 500 is the application's own.
    fn learn(
        &self,
        member: &Member,
        result: &Result<Outcome, ForwardError>,
        began: Instant,
        said_after: Option<Duration>,
    ) {
        match result {
            Ok(outcome) if !matches!(outcome.status, 502..=504) => {
                self.pool.succeeded(member, outcome.first_byte, began + outcome.total);
            }
            Err(error) if error.blame() != Blame::Upstream => {}
            _ => {
                let now = clock::now();
                let took = now.saturating_duration_since(began);
                let penalty = said_after.unwrap_or_default().max(took).clamp(PENALTY_MIN, PENALTY_MAX);
                self.pool.failed(member, penalty, now);
            }
        }
    }

    fn may_retry(&self, error: &ForwardError, tried: usize) -> bool {
        let safe = error.answerable && error.repeatable;
        if !safe || tried >= self.pool.config.retry.attempts as usize || !self.pool.has_another(tried) {
            return false;
        }
        let paid = self.budget.borrow_mut().withdraw(clock::now());
        let telemetry = &self.pool.telemetry;
        if paid {
            telemetry.retries.inc()
        } else {
            telemetry.retries_denied.inc()
        };
        paid
    }

    /// There is nobody to ask, or nobody more.
    async fn refuse(
        &self,
        exchange: &mut Exchange<'_>,
        refused: Refused,
        last: Option<ForwardError>,
    ) -> Result<(), Abort> {
        self.pool.telemetry.refused(refused);
        match last {
            Some(error) if !matches!(error.kind, ForwardFailure::Unwanted(_)) => {
                exchange.forward_failed(&error).await
            }
            _ => {
                let problem = Error::unavailable(refused.as_str(), refused.to_string(), RETRY_AFTER_S);
                exchange.problem(&problem).await
            }
        }
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
    /// Our cookie was there and is taken out; these lines take the field's place.
    rewrites: bool,
    request_lines: Vec<u8>,
}

impl Stick {
    fn of(pool: &Pool, head: &RequestHead<'_>) -> Self {
        let Some(config) = &pool.config.sticky else { return Self::default() };
        let Some(value) = sticky::find(head.get_all("cookie"), &config.cookie) else {
            return Self { wanted: true, ..Self::default() };
        };
        let mut request_lines = Vec::new();
        sticky::without(head.get_all("cookie"), &config.cookie, &mut request_lines);
        let opened = pool.key.open(value, WallMs::now());
        Self {
            wanted: true,
            tag: opened.map(|opened| opened.tag),
            ages: opened.is_some_and(|opened| opened.left < Duration::from_secs(config.ttl_s) / 2),
            rewrites: true,
            request_lines,
        }
    }

    fn wants_cookie(&self, member: &Member) -> bool {
        self.wanted && (self.tag != Some(member.tag) || self.ages)
    }
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is not worth its parsing here.
fn seconds(value: &[u8]) -> Option<Duration> {
    std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// The room for a request is made and filled for each of them: what is rare (a refusal, a wait) makes its own.
    #[test]
    fn a_request_takes_little_more_room_than_its_forwarding() {
        type Held = &'static mut Exchange<'static>;
        let handle = size_of_future(|front: &'static Front, exchange: Held| front.handle(exchange));
        let forward = size_of_future(|exchange: Held, origin: &'static gateway::Origin| {
            exchange.forward(origin, ForwardOptions::default())
        });
        assert!(handle <= forward + 1024, "{handle} bytes, of which {forward} are the gateway's");
    }
}
