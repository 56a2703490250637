//! The word that a client has gone.

use actix_web::HttpRequest;
use tokio::sync::watch;

/// Tells a handler that whoever sent its request has closed the connection. What is done for somebody who waits is not to
/// be done for nobody.
#[derive(Clone, Debug)]
pub struct Departed(Option<watch::Receiver<bool>>);

impl Departed {
    pub(crate) fn new(departed: watch::Receiver<bool>) -> Self {
        Self(Some(departed))
    }

    /// Of the connection that `request` came over; under another server it never comes.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        request.conn_data::<Self>().cloned().unwrap_or(Self(None))
    }

    /// Resolves when the client has closed its side. A client that closes only the sending half counts as gone.
    pub async fn wait(&self) {
        match self.0.clone() {
            Some(mut departed) => drop(departed.wait_for(|departed| *departed).await),
            None => std::future::pending().await,
        }
    }
}
