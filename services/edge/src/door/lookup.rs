//! GET and HEAD: from the store if the rules allow it (RFC 9111 section 4).

use std::sync::Arc;

use clock::WallMs;
use http_support::gateway::{Abort, Exchange};

use super::{Asked, Door};
use crate::error::not_stored;
use crate::rules::fields::Fields;
use crate::rules::report::Fwd;
use crate::rules::request::Wants;
use crate::rules::reuse::{Because, Reuse, judge};
use crate::rules::sharing::answers;
use crate::store::{Known, Object, Variants};
use crate::telemetry::Hit;

/// How often a request looks into a store that changes under its eyes, before it is simply forwarded.
const LOOKS_MAX: usize = 3;

/// What the store has for a request.
pub enum Found {
    /// A response that may be sent.
    Usable(Arc<Object>, Hit),
    /// The same, and it is to be validated meanwhile.
    Revalidate(Arc<Object>, Arc<Variants>),
    /// A response that answers only requests without credentials, and this one has some.
    NotForThis,
    /// Nothing that may be sent as it is: why, and the response that may be validated.
    Nothing(Fwd, Option<Arc<Object>>, Option<Arc<Variants>>),
}

/// What of the stored responses of a URI there is for a request.
pub fn found(
    variants: Option<Arc<Variants>>,
    request: &impl Fields,
    asked: &Wants<'_>,
    get: bool,
    trusted_since: WallMs,
    now: WallMs,
) -> Found {
    let Some(variants) = variants else { return Found::Nothing(Fwd::UriMiss, None, None) };
    let Some(object) = variants.select(request, asked, get) else {
        let partial = variants.objects().iter().any(|object| object.placed.is_some());
        let fwd = if partial { Fwd::Partial } else { Fwd::VaryMiss };
        return Found::Nothing(fwd, None, Some(variants));
    };
    if !answers(asked, &object.selecting, object.freshness.for_everybody) {
        return Found::NotForThis;
    }
    let object = Arc::clone(object);
    match judge(&object.freshness, &asked.directives, object.distrusted(trusted_since), now) {
        Reuse::Fresh => Found::Usable(object, Hit::Fresh),
        Reuse::Stale => Found::Usable(object, Hit::Stale),
        Reuse::WhileRevalidating => Found::Revalidate(object, variants),
        Reuse::Validate(Because::Request) => Found::Nothing(Fwd::Request, Some(object), Some(variants)),
        Reuse::Validate(Because::Stale) => Found::Nothing(Fwd::Stale, Some(object), Some(variants)),
    }
}

impl Door {
    pub(super) async fn get(&self, exchange: &mut Exchange<'_>, asked: &Asked<'_>) -> Result<(), Abort> {
        let (now, hash) = (WallMs::now(), asked.pass_hash());
        if self.passes.borrow().has(hash, now) && !asked.wants.directives.only_if_cached {
            return Box::pin(self.pass(exchange, asked, Fwd::UriMiss)).await;
        }
        for _ in 0..LOOKS_MAX {
            match self.find(exchange, asked, now).await {
                Found::Usable(object, hit) => return self.hit(exchange, asked, &object, hit, now).await,
                Found::Revalidate(object, variants) => {
                    self.revalidate(exchange, asked, &object, &variants);
                    return self.hit(exchange, asked, &object, Hit::Stale, now).await;
                }
                Found::Nothing(..) | Found::NotForThis if asked.wants.directives.only_if_cached => {
                    return Box::pin(self.refuse(exchange, asked, None, not_stored())).await;
                }
                Found::NotForThis => return Box::pin(self.pass(exchange, asked, Fwd::Request)).await,
                Found::Nothing(fwd, stale, variants) => {
                    let variants = variants.as_deref();
                    if Box::pin(self.collapse(exchange, asked, fwd, stale, variants, now)).await? {
                        return Ok(());
                    }
                }
            }
        }
        Box::pin(self.pass(exchange, asked, Fwd::UriMiss)).await
    }

    pub(super) async fn head(&self, exchange: &mut Exchange<'_>, asked: &Asked<'_>) -> Result<(), Abort> {
        let now = WallMs::now();
        match self.find(exchange, asked, now).await {
            Found::Usable(object, hit) => self.hit(exchange, asked, &object, hit, now).await,
            Found::Nothing(..) | Found::NotForThis if asked.wants.directives.only_if_cached => {
                Box::pin(self.refuse(exchange, asked, None, not_stored())).await
            }
            Found::Revalidate(object, _) => {
                self.head_upstream(exchange, asked, Fwd::Stale, Some(object)).await
            }
            Found::NotForThis => self.pass(exchange, asked, Fwd::Request).await,
            Found::Nothing(fwd, stale, _) => self.head_upstream(exchange, asked, fwd, stale).await,
        }
    }

    /// Looks into the thread's own front, memory, disk.
    async fn find(&self, exchange: &Exchange<'_>, asked: &Asked<'_>, now: WallMs) -> Found {
        let known = self.front.borrow_mut().get(&asked.key);
        let variants = match known {
            Known::Here(variants) => Some(variants),
            Known::Ask => Box::pin(self.ask_store(asked.key())).await,
        };
        let head = exchange.head();
        let trusted_since = self.edge.store.trusted_since();
        found(variants, head, &asked.wants, head.method() == "GET", trusted_since, now)
    }

    async fn ask_store(&self, key: &str) -> Option<Arc<Variants>> {
        let store = &self.edge.store;
        let mut variants = store.get(key);
        if variants.is_none() && store.on_disk(key) {
            let (store, wanted) = (Arc::clone(store), key.to_owned());
            variants = match self.life.blocking(move || store.promote(&wanted)).await {
                Ok(variants) => variants,
                Err(error) => {
                    self.edge.telemetry.damaged(key, &error);
                    None
                }
            };
        }
        if let Some(variants) = &variants {
            self.front.borrow_mut().put(variants);
        }
        variants
    }
}
