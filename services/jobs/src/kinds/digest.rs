//! `digest` {text | path} → {sha256, bytes}: SHA-256 of a text, or of a file under an allowed root.

use std::{io::Read, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::paths::Roots;
use crate::handler::{Failure, Handler, JobContext, Running};

/// See the module.
pub struct Digest {
    roots: Arc<Roots>,
    cores: Arc<Semaphore>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    text: Option<String>,
    path: Option<String>,
}

impl Digest {
    pub(crate) fn new(roots: Arc<Roots>, cores: Arc<Semaphore>) -> Self {
        Self { roots, cores }
    }
}

impl Handler for Digest {
    fn run(&self, job: JobContext) -> Running {
        let (roots, cores) = (self.roots.clone(), self.cores.clone());
        Box::pin(async move {
            let payload = job.payload()?;
            let _core = cores.acquire_owned().await.map_err(Failure::failed)?;
            let on_thread = job.clone();
            job.blocking(move || match payload {
                Payload { text: Some(text), path: None } => {
                    Ok(answer(&Sha256::digest(&text), text.len() as u64))
                }
                Payload { text: None, path: Some(path) } => file(&on_thread, &roots, &path),
                _ => Err(Failure::Refused("payload: give either `text` or `path`".to_owned())),
            })
            .await
            .map(Into::into)
        })
    }
}

fn file(job: &JobContext, roots: &Roots, path: &str) -> Result<Value, Failure> {
    let mut file = roots.read(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer).map_err(|e| Failure::Failed(format!("{path}: {e}")))?;
        if n == 0 {
            return Ok(answer(&hash.finalize(), bytes));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
        if job.is_over() {
            return Err(Failure::Failed("stopped".to_owned()));
        }
    }
}

fn answer(hash: &[u8], bytes: u64) -> Value {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"sha256": hex, "bytes": bytes})
}
