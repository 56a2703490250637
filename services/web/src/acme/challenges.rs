//! The answers to HTTP-01 challenges that are under way (RFC 8555 section 8.3).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{Bus, Message};
use tokio::sync::Semaphore;

/// Where the authority looks for the answer.
pub const PREFIX: &str = "/.well-known/acme-challenge/";

/// Who orders answers here, and everybody who is asked by the authority asks here.
const ADDRESS: &str = "acme.challenges";
/// Longest token that is looked up; authorities use 43 characters.
const TOKEN_BYTES_MAX: usize = 128;
/// The instance that ordered has so long to answer another.
const ASK: Duration = Duration::from_secs(2);
/// Questions to it at once: anybody may ask for made-up tokens. Beyond: unknown.
const ASKING_MAX: usize = 8;
/// Questions that may wait at it.
const ASKED_MAX: usize = 64;

/// What proves to an authority that this stack answers for a name. Cheap to clone; shared by all workers of an instance.
#[derive(Clone)]
pub struct Challenges {
    pending: Arc<Mutex<HashMap<String, String>>>,
    asking: Arc<Semaphore>,
    bus: Option<Bus>,
}

impl Challenges {
    /// Those of this instance, and of the others that are on `bus`.
    #[must_use]
    pub fn new(bus: Option<Bus>) -> Self {
        Self { pending: Arc::default(), asking: Arc::new(Semaphore::new(ASKING_MAX)), bus }
    }

    /// The body to answer a `GET` of `path` with (`application/octet-stream`); `None`: 404.
    pub async fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PREFIX).filter(|token| is_token(token))?;
        match self.own(token) {
            Some(answer) => Some(answer),
            None => self.ask(token).await,
        }
    }

    fn own(&self, token: &str) -> Option<String> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    async fn ask(&self, token: &str) -> Option<String> {
        let bus = self.bus.as_ref()?;
        let _turn = self.asking.try_acquire().ok()?;
        let reply = bus.request(ADDRESS, Message::new(token.to_owned()), ASK).await.ok()?;
        String::from_utf8(reply.body.to_vec()).ok().filter(|answer| !answer.is_empty())
    }

    /// Answers the other instances while an order is under way; never returns. Without a bus there are none.
    pub(super) async fn serve(&self) {
        let Some(bus) = &self.bus else { return std::future::pending().await };
        let Ok(mut requests) = bus.serve(ADDRESS, ASKED_MAX).await else {
            return std::future::pending().await; // the bus is down: this instance still answers for itself
        };
        loop {
            let request = requests.next().await;
            let token = std::str::from_utf8(&request.message.body).unwrap_or_default();
            let answer = self.own(token).unwrap_or_default();
            request.reply(Message::new(answer));
        }
    }

    /// Answers `token` until what is returned is dropped.
    pub(super) fn publish(&self, token: String, answer: String) -> Published {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), answer);
        Published { challenges: self.clone(), token }
    }
}

/// An answer that is given.
pub(super) struct Published {
    challenges: Challenges,
    token: String,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.challenges.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

/// RFC 8555 section 8.3: the base64url alphabet.
fn is_token(token: &str) -> bool {
    (1..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_token_is_answered_only_while_its_order_is_under_way() {
        let challenges = Challenges::new(None);
        let path = format!("{PREFIX}token-1_x");
        assert_eq!(challenges.answer(&path).await, None);
        let published = challenges.publish("token-1_x".to_owned(), "token-1_x.thumb".to_owned());
        assert_eq!(challenges.answer(&path).await.as_deref(), Some("token-1_x.thumb"));
        for other in
            ["", "token-2", "../token-1_x", "token-1_x/", "token%2d1_x", &"a".repeat(TOKEN_BYTES_MAX + 1)]
        {
            assert_eq!(challenges.answer(&format!("{PREFIX}{other}")).await, None, "{other}");
        }
        drop(published);
        assert_eq!(challenges.answer(&path).await, None);
    }

    /// The authority's request may reach an instance that ordered nothing.
    #[actix::test]
    async fn another_instance_answers_by_asking_the_one_that_ordered() {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::open(&bus::BusConfig::embedded(dir.path()), "node").unwrap();
        let (ordering, asked) = (Challenges::new(Some(bus.link("a"))), Challenges::new(Some(bus.link("b"))));
        let _published = ordering.publish("token".to_owned(), "token.thumb".to_owned());
        let answers = async {
            loop {
                // Until the other side serves, nobody knows.
                if let Some(answer) = asked.answer(&format!("{PREFIX}token")).await {
                    return (answer, asked.answer(&format!("{PREFIX}unknown")).await);
                }
                tokio::task::yield_now().await;
            }
        };
        let (answer, unknown) = tokio::select! {
            answers = answers => answers,
            () = ordering.serve() => unreachable!("it serves for ever"),
        };
        assert_eq!((answer.as_str(), unknown), ("token.thumb", None));
    }
}
