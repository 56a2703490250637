//! `digest` {text | path} → {sha256, bytes}: SHA-256 of a text, or of a file under an allowed root.
//!
//! A text is part of the payload, so it has a mebibyte at most and its digest takes some milliseconds at worst: it is
//! made here, where nothing has to end it. A file may be of any size, grow while it is read, or lie on a server that does
//! not answer: it is read by a helper, which is killed when the time is over.

use std::{io::Read, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::paths::Roots;
use crate::{
    handler::{Failure, Handler, JobContext, Running},
    helper::{Pool, Work},
};

/// A text of at most so many bytes is digested in less time than it takes to hand it to another thread.
const AT_ONCE_MAX: usize = 16 << 10;

/// See the module.
pub struct Digest {
    helpers: Arc<Pool>,
    cores: Arc<Semaphore>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    text: Option<String>,
    path: Option<String>,
}

impl Digest {
    pub(crate) fn new(helpers: Arc<Pool>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { helpers, cores: Arc::new(Semaphore::new(cores)) }
    }
}

impl Handler for Digest {
    fn run(&self, job: JobContext) -> Running {
        let (helpers, cores) = (self.helpers.clone(), self.cores.clone());
        Box::pin(async move {
            match job.payload()? {
                Payload { text: Some(text), path: None } if text.len() <= AT_ONCE_MAX => {
                    Ok(of_text(&text).into())
                }
                Payload { text: Some(text), path: None } => {
                    // Held by the work, not by the wait for it: a text that is digested counts until it is.
                    let core = cores.acquire_owned().await.map_err(Failure::failed)?;
                    let digest = move || {
                        let _core = core;
                        of_text(&text)
                    };
                    Ok(job.blocking(digest).await.into())
                }
                Payload { text: None, path: Some(path) } => helpers.run(&job, Work::Digest { path }).await,
                _ => Err(Failure::Refused("payload: give either `text` or `path`".to_owned())),
            }
        })
    }
}

fn of_text(text: &str) -> Value {
    answer(&Sha256::digest(text), text.len() as u64)
}

/// The file as long as it was when it was opened: one that is written to all the time has no end. A file without a
/// length may be one that the kernel makes while it is read.
pub(crate) fn file(roots: &Roots, path: &str) -> Result<Value, Failure> {
    let failed = |e: std::io::Error| Failure::Failed(format!("{path}: {e}"));
    let file = roots.read(path)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut file = file.take(if length == 0 { u64::MAX } else { length });
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok(answer(&hash.finalize(), bytes));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

fn answer(hash: &[u8], bytes: u64) -> Value {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"sha256": hex, "bytes": bytes})
}
