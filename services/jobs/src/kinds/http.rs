//! `http` {method, url, headers?, body?} → {status, headers, body}: calls a URL. Any 2xx is done; 429 and 503 with
//! `Retry-After` (RFC 9110 section 10.2.3) postpone the job at no cost; everything else is a failed attempt. A body that
//! is a JSON string is sent as its text, any other as it was written in the payload. Redirects are followed here: to
//! another origin none of the payload's header fields go along that could be a credential.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use clock::WallMs;
use futures_util::StreamExt;
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{command::output, guard::Guard, headers};
use crate::{
    config,
    error::Error,
    handler::{Answer, Failure, Handler, JobContext, Running},
};

/// Longest postponement that a target may ask for.
const POSTPONE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// See the module.
pub struct Push {
    client: Client,
    guard: Guard,
    body_bytes_max: usize,
    redirects_max: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    #[serde(default = "post")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Text as it is, anything else as JSON, as it was sent.
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What is sent; a redirect changes it.
#[derive(Clone)]
struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

/// The result.
#[derive(Serialize)]
struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Box<RawValue>,
}

fn post() -> String {
    "POST".to_owned()
}

impl Push {
    pub(crate) fn new(config: &config::Http) -> Result<Self, Error> {
        // Whoever was first has chosen the cryptography of this process; all of us choose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let guard = Guard::new(config.allow.iter().filter_map(|net| net.parse().ok()).collect());
        let client = Client::builder()
            .dns_resolver(Arc::new(Resolver(guard.clone())))
            .redirect(Policy::none())
            .no_proxy() // a proxy would resolve names itself, past the guard
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("standfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::Client(e.to_string()))?;
        let (body_bytes_max, redirects_max) = (config.body_bytes_max, config.redirects_max);
        Ok(Self { client, guard, body_bytes_max, redirects_max })
    }

    fn call(&self, job: &JobContext) -> Result<Call, Failure> {
        let payload: Payload<'_> = job.payload_borrowed()?;
        let refused = |what: &str| Failure::Refused(format!("payload: {what}"));
        let url = Url::parse(&payload.url).map_err(|e| refused(&format!("url: {e}")))?;
        if !permitted(&self.guard, &url) {
            return Err(refused("url is not http(s), or its address is not allowed"));
        }
        let method = Method::from_bytes(payload.method.as_bytes()).map_err(|_| refused("method"))?;
        if method == Method::CONNECT {
            return Err(refused("method"));
        }
        let mut headers = headers::parse(&payload.headers).map_err(|what| refused(&what))?;
        // The payload's own come first and win.
        let mut default = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.entry(name).or_insert(value);
            }
        };
        default("idempotency-key", &format!("\"{}\"", job.id()));
        default("traceparent", job.traceparent());
        let body = payload.body.map(|body| match serde_json::from_str::<String>(body.get()) {
            Ok(text) => (text, "text/plain; charset=utf-8"),
            Err(_) => (body.get().to_owned(), "application/json"),
        });
        if let Some((_, kind)) = &body {
            default(CONTENT_TYPE.as_str(), kind);
        }
        Ok(Call { method, url, headers, body: body.map(|(text, _)| Bytes::from(text)) })
    }
}

impl Call {
    async fn send(&self, client: &Client) -> Result<Response, Failure> {
        let mut request = client.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|e| Failure::Failed(cause(&e)))
    }

    /// The call that `answer` asks for instead (RFC 9110 section 15.4), if it does.
    fn redirected(&self, answer: &Response, guard: &Guard) -> Result<Option<Self>, Failure> {
        let keeps_body = match answer.status().as_u16() {
            301 | 302 => self.method != Method::POST, // as everybody does
            303 => false,
            307 | 308 => true,
            _ => return Ok(None),
        };
        let Some(location) = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok()) else {
            return Ok(None);
        };
        let away = || Failure::Failed("call failed: redirect to an address that is not allowed".to_owned());
        let url = self.url.join(location).map_err(|_| away())?;
        if !permitted(guard, &url) {
            return Err(away());
        }
        let mut next = self.clone();
        headers::redirected(&mut next.headers, &self.url, &url, keeps_body);
        if !keeps_body {
            next.body = None;
            next.method = if self.method == Method::HEAD { Method::HEAD } else { Method::GET };
        }
        Ok(Some(Self { url, ..next }))
    }
}

/// Calls, and follows redirects up to the limit.
async fn follow(client: &Client, guard: &Guard, mut call: Call, most: usize) -> Result<Response, Failure> {
    for _ in 0..=most {
        let answer = call.send(client).await?;
        match call.redirected(&answer, guard)? {
            Some(next) => call = next,
            None => return Ok(answer),
        }
    }
    Err(Failure::Failed("call failed: too many redirects".to_owned()))
}

impl Handler for Push {
    fn run(&self, job: JobContext) -> Running {
        let (call, most) = (self.call(&job), self.body_bytes_max);
        let (client, guard, redirects) = (self.client.clone(), self.guard.clone(), self.redirects_max);
        Box::pin(async move {
            let exchange = async { read(follow(&client, &guard, call?, redirects).await?, most).await };
            tokio::select! {
                done = exchange => done,
                () = job.cancelled() => Err(Failure::Failed("stopped".to_owned())),
            }
        })
    }
}

async fn read(answer: Response, most: usize) -> Result<Answer, Failure> {
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
    if !status.is_success() {
        let start: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        let why = format!("the target answered {status}: {start}");
        return Err(if status == StatusCode::GONE { Failure::Refused(why) } else { Failure::Failed(why) });
    }
    // Bytes above ASCII in a field have no meaning (RFC 9110 section 5.5); as Latin-1 none is lost.
    let latin = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), latin(value))).collect();
    let body = RawValue::from_string(output(body).json).map_err(Failure::failed)?;
    Answer::json(&Got { status: status.as_u16(), headers, body })
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
