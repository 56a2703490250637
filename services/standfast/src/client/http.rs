//! One server, seen from the command line: what is not there is 69, what is refused is told in the server's words.

use std::time::Duration;

use messages::problem::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::development;
use crate::failure::{Failure, Outcome, with_causes};

/// A server that does not answer a plain request in this time is not reachable.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A server and the flag that says where it is.
pub struct Server {
    base: String,
    flag: &'static str,
    client: reqwest::Client,
}

impl Server {
    /// `flag` is named when the server is not there.
    pub fn new(base: &str, flag: &'static str) -> Outcome<Self> {
        let usable = base.starts_with("http://") || base.starts_with("https://");
        if !usable || reqwest::Url::parse(base).is_err() {
            return Err(Failure::usage(format!("{flag} {base:?} is not a URL: use http://HOST:PORT")));
        }
        let mut builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        for certificate in development::certificates(base) {
            builder = builder.add_root_certificate(certificate);
        }
        let built = builder.build();
        let client = built.map_err(|error| Failure::failed(with_causes(&error)))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), flag, client })
    }

    /// A request that is to be answered soon.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.endless(method, path).timeout(ANSWER_MAX)
    }

    /// A request whose answer may take any time: a stream.
    pub fn endless(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends it. Any answer of the server is one, also a refusal.
    pub async fn send(&self, request: RequestBuilder) -> Outcome<Response> {
        request.send().await.map_err(|error| self.lost(&error))
    }

    /// Sends it, and reads what a success says; a refusal is a failure in the server's words.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Outcome<T> {
        let response = self.accepted(request).await?;
        response.json().await.map_err(|error| self.lost(&error))
    }

    /// Sends it; a refusal is a failure in the server's words.
    pub async fn accepted(&self, request: RequestBuilder) -> Outcome<Response> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// What a refusal says.
    pub async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let text = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => match &problem.detail {
                Some(detail) => format!("{}: {detail}", problem.title),
                None => problem.title,
            },
            Err(_) => format!("{} answered {status}", self.base),
        };
        // Busy or draining, and still so after what a caller may wait: not reachable for the purpose at hand.
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
        ) {
            return Failure::unreachable(text);
        }
        Failure::failed(text)
    }

    /// What a broken connection says.
    pub fn lost(&self, error: &reqwest::Error) -> Failure {
        let Self { base, flag, .. } = self;
        if error.is_decode() {
            return Failure::failed(format!(
                "{base} answered what cannot be read: is it a standfast of this version?"
            ));
        }
        if error.is_timeout() {
            return Failure::unreachable(format!("{base} does not answer in time"));
        }
        let cause = with_causes(error);
        if let Some((_, why)) = cause.split_once("invalid peer certificate: ") {
            return Failure::unreachable(format!(
                "the certificate of {base} is not trusted ({why}): SSL_CERT_FILE=FILE names the authority; the development \
                 certificate of a stack on this machine is found below STANDFAST_DATA=DIR"
            ));
        }
        let cause = cause.rsplit(": ").next().unwrap_or(&cause);
        Failure::unreachable(format!(
            "nothing answers at {base} ({cause}): start the stack with `standfast up`, or say where it is with {flag}"
        ))
    }
}
