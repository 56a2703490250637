//! One holder at a time. A hint: whoever acts on it must be fenced by something that orders (an epoch in a log).

use tokio::sync::watch;

/// A lease that is held. Dropped, it is given back.
pub struct Lease {
    pub(crate) name: String,
    pub(crate) lost: watch::Receiver<bool>,
    pub(crate) _held: Box<dyn Send + Sync>,
}

impl Lease {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is lost already.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Resolves when the lease is lost: the link it was held over is gone. Somebody else may hold it by then.
    /// The future is independent of the lease.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.lost.clone();
        // An error means that the sender is gone, and with it the link.
        async move { drop(lost.wait_for(|lost| *lost).await) }
    }
}
