//! Says what this replica's content is, and compares it with what the others say.

use std::sync::Arc;
use std::time::Duration;

use super::{Left, Replica};
use crate::agreement::{self, Agreement};
use crate::peers;

/// A file that takes longer to read is not compared.
const READ_MAX: Duration = Duration::from_secs(60);
/// After so many beats without a majority it is said that there is none: until then another replica may come that knows.
const DISPUTED: u32 = 16;

impl Replica {
    /// Computes the digest of the whole content beside everything else, once for each file.
    pub(super) fn say_content(&mut self) {
        if self.digesting.is_some() {
            return;
        }
        let wanted = Arc::new(());
        let asks = Arc::downgrade(&wanted);
        self.digesting = Some(wanted);
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            let (until, still) = (clock::now() + READ_MAX, asks.clone());
            let over = move || still.strong_count() == 0 || clock::now() > until;
            let found = shared.readers.digest(over);
            if asks.strong_count() == 0 {
                return;
            }
            let words = found.map(|(at, content)| agreement::words(&at, &content));
            let words = words.unwrap_or_else(|error| {
                let instance = &shared.config.instance;
                tracing::warn!(instance, %error, "the content is not compared with that of the other replicas");
                agreement::NONE.to_owned()
            });
            shared.tell(|status| status.digest = words.into());
        });
    }

    /// The file will be another one: what was said of its content is not said any more.
    pub(super) fn unsay_content(&mut self) {
        self.digesting = None;
        self.disputed = 0;
        self.shared.tell(|status| status.digest = "".into());
    }

    /// Whether this replica's content is that of the others at the same position, as far as they have said.
    pub(super) fn compare(&mut self) -> Result<(), Left> {
        match peers::agreement(&self.shared) {
            Agreement::Odd(others) => Err(Left::Damaged(format!(
                "its content differs from that of {} at the same position; something else wrote to the file",
                others.join(" and ")
            ))),
            Agreement::Disputed(others) => {
                self.disputed = self.disputed.saturating_add(1);
                if self.disputed == DISPUTED {
                    tracing::error!(
                        instance = self.instance(),
                        others = others.join(", "),
                        "replicas differ in content at the same position, and no majority says which is right: stop, \
                         and delete the directory of the one that is wrong"
                    );
                }
                Ok(())
            }
            _ => {
                self.disputed = 0;
                Ok(())
            }
        }
    }
}
