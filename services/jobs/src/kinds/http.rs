//! `http` {method, url, headers?, body?} → {status, headers, body}: calls a URL. Any 2xx is done; 429 and 503 with
//! `Retry-After` (RFC 9110 section 10.2.3) postpone the job at no cost; everything else is a failed attempt.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use clock::WallMs;
use futures_util::StreamExt;
use reqwest::{
    Client, Method, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::guard::Guard;
use crate::{
    config,
    error::Error,
    handler::{Failure, Handler, JobContext, Running},
};

/// Longest postponement that a target may ask for.
const POSTPONE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// See the module.
pub struct Push {
    client: Client,
    guard: Guard,
    body_bytes_max: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(default = "post")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Text as it is, anything else as JSON.
    body: Option<Value>,
}

fn post() -> String {
    "POST".to_owned()
}

impl Push {
    pub(crate) fn new(config: &config::Http) -> Result<Self, Error> {
        // Whoever was first has chosen the cryptography of this process; all of us choose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let guard = Guard::new(config.allow.iter().filter_map(|net| net.parse().ok()).collect());
        let (on_redirect, most) = (guard.clone(), config.redirects_max);
        let redirects = Policy::custom(move |attempt| {
            if attempt.previous().len() > most {
                attempt.error("too many redirects")
            } else if permitted(&on_redirect, attempt.url()) {
                attempt.follow()
            } else {
                attempt.error("redirect to an address that is not allowed")
            }
        });
        let client = Client::builder()
            .dns_resolver(Arc::new(Resolver(guard.clone())))
            .redirect(redirects)
            .no_proxy() // a proxy would resolve names itself, past the guard
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("standfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::Client(e.to_string()))?;
        Ok(Self { client, guard, body_bytes_max: config.body_bytes_max })
    }

    fn request(&self, job: &JobContext) -> Result<reqwest::RequestBuilder, Failure> {
        let payload: Payload = job.payload()?;
        let refused = |what: &str| Failure::Refused(format!("payload: {what}"));
        let url = Url::parse(&payload.url).map_err(|e| refused(&format!("url: {e}")))?;
        if !permitted(&self.guard, &url) {
            return Err(refused("url is not http(s), or its address is not allowed"));
        }
        let method = Method::from_bytes(payload.method.as_bytes()).map_err(|_| refused("method"))?;
        if method == Method::CONNECT {
            return Err(refused("method"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &payload.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("a header's name"))?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| refused("a header's value"))?);
        }
        let request = self
            .client
            .request(method, url)
            .header("idempotency-key", format!("\"{}\"", job.id()))
            .header("traceparent", job.traceparent());
        let request = match payload.body {
            None => request,
            Some(Value::String(text)) => {
                request.header("content-type", "text/plain; charset=utf-8").body(text)
            }
            Some(json) => request.header("content-type", "application/json").body(json.to_string()),
        };
        Ok(request.headers(headers)) // the payload's own come last and win
    }
}

impl Handler for Push {
    fn run(&self, job: JobContext) -> Running {
        let (request, most) = (self.request(&job), self.body_bytes_max);
        Box::pin(async move {
            let exchange = async {
                let answer = request?.send().await.map_err(|e| Failure::Failed(cause(&e)))?;
                read(answer, most).await
            };
            tokio::select! {
                done = exchange => done,
                () = job.cancelled() => Err(Failure::Failed("stopped".to_owned())),
            }
        })
    }
}

async fn read(answer: reqwest::Response, most: usize) -> Result<Value, Failure> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    if let Some(after) = postponed(status, &headers, WallMs::now()) {
        return Err(Failure::Postponed { after, detail: format!("the target answered {status}") });
    }
    let mut body = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.map_err(|e| Failure::Failed(cause(&e)))?);
        if body.len() > most {
            return Err(Failure::Refused(format!("the answer's body has more than {most} bytes")));
        }
    }
    let text = String::from_utf8_lossy(&body);
    if !status.is_success() {
        let start: String = text.chars().take(200).collect();
        let why = format!("the target answered {status}: {start}");
        return Err(if status == StatusCode::GONE { Failure::Refused(why) } else { Failure::Failed(why) });
    }
    let headers: BTreeMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::from(text));
    Ok(json!({"status": status.as_u16(), "headers": headers, "body": body}))
}

/// For how long the target asks us to stay away: 429 or 503 with a number of seconds or a date.
fn postponed(status: StatusCode, headers: &HeaderMap, now: WallMs) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = text.parse().map(Duration::from_secs).ok().or_else(|| {
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Some(WallMs(date.timestamp().as_millisecond()).since(now))
    })?;
    Some(after.clamp(Duration::from_millis(100), POSTPONE_MAX))
}

/// Addresses in the URL itself never meet the resolver, so they are checked here; names are checked by it.
fn permitted(guard: &Guard, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    matches!(url.scheme(), "http" | "https")
        && !host.is_empty()
        && literal.map_or(true, |ip| guard.permits(ip))
}

/// The last cause names what happened; the URL, which may hold a secret, is left out.
fn cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    if error.is_timeout() {
        "the target did not answer in time".to_owned()
    } else {
        format!("call failed: {last}")
    }
}

struct Resolver(Guard);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted = guard.filter(found.into_iter());
            if permitted.is_empty() {
                return Err("no address of this name is allowed".into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_to_inner_addresses_are_refused_in_every_spelling() {
        let guard = Guard::default();
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[fd00:ec2::254]/",
            "http://0/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://user@10.0.0.1:80/",
            "http://①②⑦.0.0.1/",
        ] {
            assert!(!Url::parse(url).is_ok_and(|url| permitted(&guard, &url)), "{url}");
        }
        assert!(permitted(&guard, &Url::parse("https://example.com/x").unwrap()));
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = WallMs::parse_rfc3339("2026-11-20T12:00:00Z").unwrap();
        let after = |status: u16, value: &str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_str(value).unwrap())].into_iter().collect();
            postponed(StatusCode::from_u16(status).unwrap(), &headers, now).map(|d| d.as_millis())
        };
        assert_eq!(after(429, "7"), Some(7_000));
        assert_eq!(after(503, "Fri, 20 Nov 2026 12:00:30 GMT"), Some(30_000));
        assert_eq!(after(503, "Fri, 20 Nov 2026 11:00:00 GMT"), Some(100), "a date in the past");
        assert_eq!(after(429, "99999999"), Some(86_400_000));
        assert_eq!(after(500, "7"), None);
        assert_eq!(after(429, "soon"), None);
    }
}
