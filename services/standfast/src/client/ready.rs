//! `standfast ready`: a health check that needs nothing but this binary.

use reqwest::Method;

use super::http::Server;
use crate::failure::{Failure, Outcome};
use crate::out;

/// Asks `/readyz` once.
pub async fn run(url: &str) -> Outcome {
    let server = Server::new(url, "URL")?;
    let request = server.request(Method::GET, "/readyz").timeout(std::time::Duration::from_secs(3));
    let response = server.send(request).await?;
    if response.status().is_success() {
        out::line("ready");
        return Ok(());
    }
    Err(Failure::unreachable(format!("{url} is not ready: {}", server.refusal(response).await.text)))
}
