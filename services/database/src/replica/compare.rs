//! Says what this replica's content is, and compares it with what the others say.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Left, Replica};
use crate::agreement::{self, Agreement};
use crate::peers;
use crate::sqlite::reader::Moment;
use crate::state::Shared;

/// A file that takes longer to read is not compared.
const READ_MAX: Duration = Duration::from_secs(60);
/// For so many beats an odd one out stands by what it said before it is rebuilt: whoever compares the replicas hears it.
const ODD: u32 = 4;
/// After so many beats without a majority it is said that there is none: until then another replica may come that knows.
const DISPUTED: u32 = 16;

/// Says what the content of a moment is, if that is still wanted then. Blocks.
fn say(shared: &Shared, moment: rusqlite::Result<Moment>, within: Duration, asks: &Weak<()>) {
    let (until, still) = (clock::now() + within, asks.clone());
    let over = move || still.strong_count() == 0 || clock::now() > until;
    let at = moment.as_ref().ok().map(|moment| moment.at.clone());
    let found = moment.and_then(|moment| moment.digest(over));
    if asks.strong_count() == 0 {
        return;
    }
    let content = found.unwrap_or_else(|error| {
        let instance = &shared.config.instance;
        tracing::warn!(instance, %error, "the content is not compared with that of the other replicas");
        agreement::NONE.to_owned()
    });
    let words = at.map_or(content.clone(), |at| agreement::words(&at, &content));
    shared.tell(|status| status.digest = words.into());
}

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
            let moment = shared.readers.held();
            say(&shared, moment, READ_MAX, &asks);
        });
    }

    /// The same for the content as it is at this entry, which is held before the next entry is applied.
    pub(super) fn say_content_here(&mut self) {
        let wanted = Arc::new(());
        let asks = Arc::downgrade(&wanted);
        self.digesting = Some(wanted);
        let moment = self.shared.readers.held();
        let shared = self.shared.clone();
        let within = Duration::from_millis(shared.config.verify_time_ms);
        tokio::task::spawn_blocking(move || say(&shared, moment, within, &asks));
    }

    /// The file will be another one: what was said of its content is not said any more.
    pub(super) fn unsay_content(&mut self) {
        self.digesting = None;
        (self.disputed, self.odd) = (0, 0);
        self.shared.tell(|status| status.digest = "".into());
    }

    /// Whether this replica's content is that of the others at the same position, as far as they have said.
    pub(super) fn compare(&mut self) -> Result<(), Left> {
        match peers::agreement(&self.shared) {
            Agreement::Odd(others) => {
                self.odd += 1;
                if self.odd < ODD {
                    return Ok(());
                }
                Err(Left::Damaged(format!(
                    "its content differs from that of {} at the same position; something else wrote to the file",
                    others.join(" and ")
                )))
            }
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
                (self.disputed, self.odd) = (0, 0);
                Ok(())
            }
        }
    }
}
