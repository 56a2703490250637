//! The one place where "no" becomes an answer: RFC 9457 problem details, or a page for those who read with a browser.

use std::time::Duration;

use messages::problem::Problem;

use crate::html::{REFUSAL, escaped};
use crate::path::PathError;

/// Why a request is not answered with what it asks for.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The path has no one meaning.
    Path(PathError),
    /// No site has this name.
    UnknownHost,
    /// A page of our own, asked for by a page of somebody else's.
    Gate(Box<Problem>),
    /// Not from this address.
    Forbidden,
    /// Too often; come again after this time.
    TooMany(Duration),
    /// Nobody that is known; with the challenges.
    Unauthorized(Vec<u8>),
    /// Too many passwords are being checked.
    Busy,
    /// There is no such file.
    NotFound,
    /// Files are read, and nothing else.
    NotAllowed,
    /// In no coding that the client takes.
    NotAcceptable,
    /// The range lies outside a content of so many bytes.
    Range(u64),
    /// A precondition does not hold.
    Precondition,
    /// No server of this pool is there.
    NoUpstream(String),
    /// The upstream server failed: the gateway's own words for it, and the name of RFC 9209 for the kind of failure.
    Upstream(Box<Problem>, Option<&'static str>),
}

impl Refusal {
    /// As problem details.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Path(error) => Problem::new(400, "malformed-path", "Malformed request", error.to_string()),
            Self::UnknownHost => Problem::new(
                421,
                "unknown-host",
                "Misdirected request",
                "no site of this server has this name",
            ),
            Self::Forbidden => {
                Problem::new(403, "forbidden", "Forbidden", "this is not for clients at your address")
            }
            Self::TooMany(after) => {
                Problem::new(429, "rate-limited", "Too many requests", "you ask too often")
                    .retry_after(after.as_millis().div_ceil(1000) as u64)
            }
            Self::Unauthorized(_) => Problem::new(
                401,
                "unauthorized",
                "Unauthorized",
                "credentials are needed, and these are not known",
            ),
            Self::Busy => {
                let detail = "too many passwords of yours wait to be checked";
                Problem::new(429, "busy", "Too many requests", detail).retry_after(1)
            }
            Self::NotFound => Problem::new(404, "not-found", "Not found", "there is no such page"),
            Self::NotAllowed => {
                let detail = "this resource allows GET, HEAD, OPTIONS";
                Problem::new(405, "method-not-allowed", "Method not allowed", detail)
            }
            Self::NotAcceptable => {
                let detail = "there is no content coding that you take and this server can send";
                Problem::new(406, "not-acceptable", "Not acceptable", detail)
            }
            Self::Range(length) => {
                Problem::new(416, "range", "Range not satisfiable", format!("the content has {length} bytes"))
            }
            Self::Precondition => {
                let detail = "the content is not in the state that the request asks for";
                Problem::new(412, "precondition-failed", "Precondition failed", detail)
            }
            Self::NoUpstream(_) => {
                let detail = "no server that could answer this is there at this moment";
                Problem::new(503, "no-upstream", "Temporarily unavailable", detail).retry_after(1)
            }
            Self::Upstream(problem, _) | Self::Gate(problem) => (**problem).clone(),
        }
    }

    /// Whether it is said in the place of a server that did not answer.
    #[must_use]
    pub fn is_for_server(&self) -> bool {
        match self {
            Self::NoUpstream(_) => true,
            Self::Upstream(problem, _) => matches!(problem.status, 502..=504),
            _ => false,
        }
    }

    /// The pool in which nobody is.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        if let Self::NoUpstream(pool) = self { Some(pool) } else { None }
    }

    /// The rule of the configuration or of this server that refuses, for the log. What says itself (there is no such
    /// file) and what is told elsewhere (an upstream server that fails) has none.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        Some(match self {
            Self::Path(_) => "the path has no one meaning",
            Self::UnknownHost => "no site has this host: web.sites[].hosts",
            Self::Gate(_) => "the gate of the own pages: web.hosts, Origin",
            Self::Forbidden => "networks",
            Self::TooMany(_) => "rate",
            Self::Unauthorized(_) => "auth",
            Self::Busy => "passwords that are checked at once",
            Self::NoUpstream(_) => "no server of the pool is there",
            Self::NotFound
            | Self::NotAllowed
            | Self::NotAcceptable
            | Self::Range(_)
            | Self::Precondition
            | Self::Upstream(..) => return None,
        })
    }

    /// Field lines that go with it.
    #[must_use]
    pub fn lines(&self, problem: &Problem) -> Vec<u8> {
        let mut lines = match self {
            Self::Unauthorized(challenges) => challenges.clone(),
            Self::NotAllowed => ALLOW.to_vec(),
            Self::Range(length) => format!("content-range: bytes */{length}\r\n").into_bytes(),
            Self::NoUpstream(_) => b"proxy-status: standfast-web; error=destination_not_found\r\n".to_vec(),
            Self::Upstream(_, Some(error)) => {
                format!("proxy-status: standfast-web; error={error}\r\n").into_bytes()
            }
            _ => Vec::new(),
        };
        if let Some(seconds) = problem.more.get("retry_after").and_then(serde_json::Value::as_u64) {
            lines.extend_from_slice(format!("retry-after: {seconds}\r\n").as_bytes());
        }
        lines
    }
}

/// What files allow.
pub const ALLOW: &[u8] = b"allow: GET, HEAD, OPTIONS\r\n";

/// Fields and body of an answer.
#[derive(Debug)]
pub struct Words {
    /// `content-type` and what belongs to it.
    pub lines: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

/// For programs.
#[must_use]
pub fn as_json(problem: &Problem, path: &str) -> Words {
    let problem = Problem { instance: Some(path.to_owned()), ..problem.clone() };
    let lines = format!("content-type: {}\r\ncache-control: no-store\r\n", Problem::MEDIA_TYPE).into_bytes();
    Words { lines, body: serde_json::to_vec(&problem).expect("a problem has only JSON values") }
}

/// For people. It says no more than the other, loads nothing, and shows no text of the client.
#[must_use]
pub fn as_html(problem: &Problem) -> Words {
    let detail = problem.detail.as_deref().unwrap_or_default();
    let places = [
        ("status", &*problem.status.to_string()),
        ("title", &*escaped(&problem.title)),
        ("detail", &*escaped(detail)),
    ];
    let lines = format!("{}cache-control: no-store\r\n", REFUSAL.lines()).into_bytes();
    Words { lines, body: REFUSAL.fill(&places).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 sections 10.2.1, 10.2.3, 11.6.1 and 14.4: what an answer of this status must or should have.
    #[test]
    fn each_refusal_has_the_fields_that_belong_to_its_status() {
        let of = |refusal: Refusal| {
            let problem = refusal.problem();
            (problem.status, String::from_utf8(refusal.lines(&problem)).unwrap())
        };
        assert_eq!(of(Refusal::NotAllowed), (405, "allow: GET, HEAD, OPTIONS\r\n".to_owned()));
        assert_eq!(of(Refusal::Range(7)), (416, "content-range: bytes */7\r\n".to_owned()));
        assert_eq!(of(Refusal::TooMany(Duration::from_millis(1001))), (429, "retry-after: 2\r\n".to_owned()));
        let nobody = of(Refusal::NoUpstream("app".to_owned()));
        assert_eq!(nobody.0, 503);
        assert!(nobody.1.contains("retry-after: 1") && nobody.1.contains("error=destination_not_found"));
        assert_eq!(
            of(Refusal::Unauthorized(b"www-authenticate: Basic\r\n".to_vec())).1,
            "www-authenticate: Basic\r\n"
        );
    }

    #[test]
    fn a_page_shows_text_as_text() {
        let problem = Problem::new(400, "x", "<i>", "\"'&");
        let page = String::from_utf8(as_html(&problem).body).unwrap();
        assert!(page.contains("&lt;i&gt;") && page.contains("&quot;&#39;&amp;") && !page.contains("<i>"));
    }
}
