//! The word that a worker is asked to stop.

use actix_web::HttpRequest;
use tokio::sync::watch;

/// Tells the handlers of a worker that it was asked to stop. Streams that never end by themselves end on it.
#[derive(Clone, Debug)]
pub struct Draining(Option<watch::Receiver<bool>>);

impl Draining {
    pub(crate) fn new(draining: watch::Receiver<bool>) -> Self {
        Self(Some(draining))
    }

    /// Of the worker that serves `request`; under another server it never comes.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        request.conn_data::<Self>().cloned().unwrap_or(Self(None))
    }

    /// Resolves when the worker is asked to stop.
    pub async fn wait(&self) {
        match self.0.clone() {
            Some(mut draining) => drop(draining.wait_for(|draining| *draining).await),
            None => std::future::pending().await,
        }
    }

    /// Whether the worker was asked to stop.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.as_ref().is_some_and(|draining| *draining.borrow())
    }
}
