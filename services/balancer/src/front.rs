//! Takes requests: chooses a member, forwards, learns from the outcome, and tries another where that is safe.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_support::gateway::{
    self, Abort, Binding, Decision, Exchange, ForwardError, ForwardFailure, ForwardOptions, GATEWAY_ERROR,
    Handler, Outcome, ProxyProtocol, in_place_of_server,
};
use http_support::wire::{self, Framing, ResponseHead, Scheme, covers, told_scheme};
use http_support::{Error, Listener};
use ipnet::IpNet;
use supervision::{Life, StartError, Started};
use upstream::dice::{Dice, hash};
use upstream::{Attempts, Budgets, Place, Refused};

use crate::shared::{Balancer, Table};

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
    budgets: Budgets,
}

impl View {
    fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        let budgets = Budgets::new(&table.pools, before.map(|view| &view.budgets));
        Self { table, budgets }
    }
}

impl Handler for Front {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        if self.balancer.refuses() {
            let detail = "this balancer is on standby; ask the active one";
            let standby = Error::unavailable("standby", detail, RETRY_AFTER_S);
            let standby = in_place_of_server(standby, exchange.head());
            return Box::pin(exchange.problem(&standby)).await;
        }
        let view = self.view();
        let head = exchange.head();
        let index = *view.table.routes.find(head.authority(), head.path());
        let trusted = &view.table.config.trusted;
        let client = || wire::client(head, exchange.peer().ip(), |it| is_trusted(trusted, it)).address;
        let attempts = view.budgets.attempts(index, &self.dice, head, client);
        serve(exchange, attempts, trusted).await
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

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    covers(trusted, address)
}

fn is_secure(exchange: &Exchange<'_>, trusted: &[IpNet]) -> bool {
    let told =
        || is_trusted(trusted, exchange.peer().ip()) && told_scheme(exchange.head()) == Some(Scheme::Https);
    exchange.peer().tls.is_some() || told()
}

async fn serve(
    exchange: &mut Exchange<'_>,
    mut attempts: Attempts<'_>,
    trusted: &[IpNet],
) -> Result<(), Abort> {
    if let Err(error) = exchange.enter().await {
        return Box::pin(exchange.forward_failed(&error)).await;
    }
    let mut last: Option<ForwardError> = None;
    loop {
        let place = match attempts.place().await {
            Ok(place) => place,
            Err(refused) => return Box::pin(refuse(exchange, &attempts, refused, last)).await,
        };
        let secure = is_secure(exchange, trusted);
        if exchange.lasts() {
            place.lengthen();
        }
        match try_at(exchange, &attempts, &place, secure).await {
            Ok(_) => return Ok(()),
            Err(error) if attempts.goes_on(&error, &place.member) => last = Some(error),
            Err(error) => return Box::pin(exchange.forward_failed(&error)).await,
        }
    }
}

/// One try at one member, and what is learnt from it.
async fn try_at(
    exchange: &mut Exchange<'_>,
    attempts: &Attempts<'_>,
    place: &Place<'_>,
    secure: bool,
) -> Result<Outcome, ForwardError> {
    let (head, member) = (exchange.head(), &*place.member);
    let began = clock::now();
    let mut lines = Vec::new();
    attempts.response_line(member, secure, &mut lines);
    // A response that is not wanted is dropped: only where another member may be asked the same, and is there.
    let again = head.is_idempotent() && matches!(head.framing(), Framing::None) && attempts.may_drop_503();
    let mut said_after = None;
    let mut on_response = |response: &ResponseHead<'_>| {
        if response.status() == 503 {
            said_after = response.get("retry-after").and_then(seconds);
            if again {
                return Decision::Retry;
            }
        }
        if gateway::response_lasts(response) {
            place.lengthen();
        }
        Decision::Forward
    };
    let options = ForwardOptions {
        request_lines: attempts.request_lines(),
        drop_request: &attempts.drop_request(&[]),
        drop_underscores: attempts.pool.config.drops_underscores(),
        response_lines: &lines,
        drop_response: if member.is_ours { &[] } else { &[GATEWAY_ERROR] },
        timeouts: attempts.pool.timeouts,
        on_response: Some(&mut on_response),
        ..ForwardOptions::default()
    };
    let result = exchange.forward(&member.origin, options).await;
    match &result {
        Ok(outcome) => attempts.answered(member, outcome.status, outcome.first_byte, began, said_after),
        Err(error) => attempts.failed(member, error, exchange.head(), began, said_after),
    }
    result
}

/// There is nobody to ask, or nobody more.
async fn refuse(
    exchange: &mut Exchange<'_>,
    attempts: &Attempts<'_>,
    refused: Refused,
    last: Option<ForwardError>,
) -> Result<(), Abort> {
    attempts.pool.refuses(refused);
    match last {
        Some(error) if !matches!(error.kind, ForwardFailure::Unwanted(_)) => {
            exchange.forward_failed(&error).await
        }
        _ => {
            let problem = Error::unavailable(refused.as_str(), refused.to_string(), RETRY_AFTER_S);
            exchange.problem(&in_place_of_server(problem, exchange.head())).await
        }
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
