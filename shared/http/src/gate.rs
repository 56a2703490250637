//! The gate before every route of ours: operating pages and APIs, the jobs API, the database, the edge's own routes.
//!
//! What it keeps out is a page of somebody else's in the user's browser. Such a page can send requests to any address
//! that the browser reaches (CSRF), and by a name of its own that resolves to our address (DNS rebinding) it may even
//! read the answers. So:
//!
//! - The host that is asked for must be one that no stranger can own: an IP address, `localhost`, a name without a dot,
//!   or a name that is configured. Else 421 (RFC 9110 section 15.5.20).
//! - A page says where it is from (`Origin`, Fetch Standard section 3.2; `Sec-Fetch-Site`, Fetch Metadata), and cannot
//!   forge either: it must be of the origin that is asked. Links from elsewhere may be followed (a GET that navigates a
//!   whole page). Else 403.
//! - What changes something has no media type that a form can send without asking first (CORS-safelisted, Fetch Standard
//!   section 2.2.2). Else 415.
//!
//! Programs send neither `Origin` nor `Sec-Fetch-Site`, and pass. Who may do what is not decided here.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_http::Request;
use actix_web::http::{StatusCode, Version, header};
use arc_swap::ArcSwap;
use smallvec::SmallVec;

use crate::Error;
use crate::wire::{self, RequestHead};

/// The gate of one tier. Its clones share what [`Gate::know`] says.
#[derive(Clone, Debug)]
pub struct Gate {
    section: &'static str,
    names: Arc<ArcSwap<Names>>,
    text_at: &'static [&'static str],
    /// When a refusal was last told in the log.
    told_at: Arc<Mutex<Option<Instant>>>,
}

/// Between two lines of the log about refusals: a page can ask very often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Why a request does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It names no host, or more than one.
    HostUnclear,
    /// The host is not known as ours.
    Host,
    /// A page of another origin sent it.
    Origin,
    /// A form could have sent it.
    MediaType,
}

impl Gate {
    /// The gate of a section of the configuration, which has the key `hosts`, names that are ours besides the obvious
    /// ones; and where it makes sense `page_origins`, origins whose pages may ask although they are not of the host that
    /// they ask.
    #[must_use]
    pub fn new(section: &'static str, hosts: &[String], origins: &[String]) -> Self {
        let gate = Self { section, names: Arc::default(), text_at: &[], told_at: Arc::default() };
        gate.know(hosts, origins);
        gate
    }

    /// The same, where these paths take `text/plain`: what clients of another server's protocol send there.
    #[must_use]
    pub fn with_text_at(self, paths: &'static [&'static str]) -> Self {
        Self { text_at: paths, ..self }
    }

    /// From now on these names are known, and no others. What [`check_names`] refuses is left out.
    pub fn know(&self, hosts: &[String], origins: &[String]) {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let origins = origins.iter().filter_map(|origin| origin_of(origin.as_bytes())).collect();
        self.names.store(Arc::new(Names { hosts, origins }));
    }

    /// Whether a request may go on to its route.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Refused> {
        let names = self.names.load();
        if asked.hosts.is_empty() && !asked.may_lack_host {
            return Err(Refused::HostUnclear);
        }
        if !asked.hosts.iter().all(|host| names.has(host)) {
            return Err(Refused::Host);
        }
        if !asked.hosts.windows(2).all(|two| two[0].eq_ignore_ascii_case(two[1])) {
            return Err(Refused::HostUnclear);
        }
        let (mut listed, mut ours) = (false, true);
        for origin in &asked.origins {
            let origin = origin_of(origin);
            let known = origin.as_ref().is_some_and(|origin| names.origins.contains(origin));
            listed |= known;
            ours &= known || origin.is_some_and(|origin| asked.is_for(&origin));
        }
        if !ours || (asked.from_elsewhere && !listed && !asked.navigates()) {
            return Err(Refused::Origin);
        }
        if !asked.is_safe() && asked.is_of_a_form() && !self.takes_text(asked) {
            return Err(Refused::MediaType);
        }
        Ok(())
    }

    /// [`Gate::check`], with the answer for those who do not pass. Which rule it was is said in the log too.
    ///
    /// # Errors
    /// The answer.
    pub fn admit(&self, asked: &Asked<'_>) -> Result<(), Error> {
        self.check(asked).map_err(|refused| {
            let error = self.problem(refused);
            let now = clock::now();
            let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
            if told_at.is_none_or(|before| now.saturating_duration_since(before) >= TOLD_EVERY) {
                *told_at = Some(now);
                let text = |value: Option<&&[u8]>| value.map(|value| value.escape_ascii().to_string());
                let (host, origin) = (text(asked.hosts.first()), text(asked.origins.first()));
                let (method, path) = (asked.method, asked.path);
                tracing::warn!(section = self.section, method, path, host, origin, %error, "refused at the gate");
            }
            error
        })
    }

    fn takes_text(&self, asked: &Asked<'_>) -> bool {
        asked.media == Some(Media::Text) && self.text_at.contains(&asked.path)
    }

    fn problem(&self, refused: Refused) -> Error {
        let section = self.section;
        match refused {
            Refused::HostUnclear => Error::bad_request("host-unclear", "the request must name one host"),
            Refused::Host => Error::new(
                StatusCode::MISDIRECTED_REQUEST,
                "unknown-host",
                "Misdirected request",
                format!(
                    "this server is not known by that host name: ask for it by IP address, as localhost or by a name \
                     without a dot, or list the name in {section}.hosts"
                ),
            ),
            Refused::Origin => Error::new(
                StatusCode::FORBIDDEN,
                "cross-site",
                "Refused",
                format!(
                    "pages may ask the origin that they are of, and programs may ask without Origin{}",
                    match section {
                        "edge" | "web" => String::new(),
                        _ => format!("; others whose pages may ask are listed in {section}.page_origins"),
                    }
                ),
            ),
            Refused::MediaType => Error::unsupported_media_type(
                "forms cannot be sent here: say what the body is, for example `content-type: application/json`; \
                 leave the field out if there is no body",
            ),
        }
    }
}

/// Checks the values of `hosts` and `page_origins` of a section.
///
/// # Errors
/// Names the key, the value and what it may be.
pub fn check_names(section: &str, hosts: &[String], origins: &[String]) -> Result<(), String> {
    let is_host = |host: &String| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        wire::is_authority(name.as_bytes()) && !name.contains(':')
    };
    if let Some(host) = hosts.iter().find(|host| !is_host(host)) {
        return Err(format!(
            "{section}.hosts = {host:?}: allowed is a name as example.org or *.example.org, without a port"
        ));
    }
    match origins.iter().find(|origin| origin_of(origin.as_bytes()).is_none()) {
        Some(origin) => Err(format!(
            "{section}.page_origins = {origin:?}: allowed is an origin as https://app.example.org"
        )),
        None => Ok(()),
    }
}

#[derive(Debug, Default)]
struct Names {
    /// In lower case.
    hosts: Vec<String>,
    /// As [`origin_of`] makes them.
    origins: Vec<(Scheme, String)>,
}

impl Names {
    /// Whether a host with or without a port is ours. An address cannot be rebound to another one, and a name without a
    /// dot is nobody's in the public DNS.
    fn has(&self, authority: &[u8]) -> bool {
        if !wire::is_authority(authority) {
            return false;
        }
        let Ok(authority) = std::str::from_utf8(authority) else { return false };
        let mut name = wire::host_of(authority).to_ascii_lowercase();
        if name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok() || !name.contains('.')
        {
            return true;
        }
        name.truncate(name.trim_end_matches('.').len());
        let listed = |known: &String| match known.strip_prefix('*') {
            Some(below) => name.len() > below.len() && name.ends_with(below),
            None => name == known.trim_end_matches('.'),
        };
        name == "localhost" || name.ends_with(".localhost") || self.hosts.iter().any(listed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The authority without a port that says nothing (RFC 9110 section 4.2.3), in lower case.
    fn plain(self, authority: &[u8]) -> Option<String> {
        let default = if self == Self::Https { ":443" } else { ":80" };
        let text = std::str::from_utf8(authority).ok()?.to_ascii_lowercase();
        Some(text.strip_suffix(default).unwrap_or(&text).to_owned())
    }
}

/// Scheme and authority of an origin as it is serialised (`https://example.org:8443`); `null` and others are none.
fn origin_of(origin: &[u8]) -> Option<(Scheme, String)> {
    let after = |scheme: &[u8]| {
        let (start, rest) = origin.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let (scheme, authority) = match (after(b"http://"), after(b"https://")) {
        (Some(rest), _) => (Scheme::Http, rest),
        (_, Some(rest)) => (Scheme::Https, rest),
        _ => return None,
    };
    wire::is_authority(authority).then(|| scheme.plain(authority)).flatten().map(|plain| (scheme, plain))
}

/// The media types that a form can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Text,
    Form,
    Other,
}

impl Media {
    fn of(value: &[u8]) -> Self {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |known: &str| essence.eq_ignore_ascii_case(known.as_bytes());
        if is("text/plain") {
            Self::Text
        } else if is("application/x-www-form-urlencoded") || is("multipart/form-data") {
            Self::Form
        } else {
            Self::Other
        }
    }
}

/// What a request says that the gate looks at.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    /// Every authority that it names: of its target, and of each `Host`.
    hosts: SmallVec<[&'a [u8]; 2]>,
    /// HTTP/1.0 knows no `Host`; browsers send it.
    may_lack_host: bool,
    origins: SmallVec<[&'a [u8]; 1]>,
    /// `Sec-Fetch-Site` names another place than this origin or the user.
    from_elsewhere: bool,
    navigate: bool,
    document: bool,
    media: Option<Media>,
}

impl<'a> Asked<'a> {
    fn new(method: &'a str, path: &'a str, may_lack_host: bool) -> Self {
        Self {
            method,
            path,
            hosts: SmallVec::new(),
            may_lack_host,
            origins: SmallVec::new(),
            from_elsewhere: false,
            navigate: false,
            document: false,
            media: None,
        }
    }

    /// Of a request that the gateway has read.
    #[must_use]
    pub fn of_head(head: &RequestHead<'a>) -> Self {
        let mut asked = Self::new(head.method(), head.path(), head.version() == wire::Version::Http10);
        if !head.authority().is_empty() {
            asked.hosts.push(head.authority().as_bytes());
        }
        head.fields().for_each(|(name, value)| asked.add(name, value));
        asked
    }

    /// Of a request to an actix-web app.
    pub(crate) fn of_request(request: &'a Request) -> Self {
        let head = request.head();
        let mut asked = Self::new(head.method.as_str(), head.uri.path(), head.version == Version::HTTP_10);
        // An absolute-form wins over `Host` (RFC 9112 section 3.2.2); actix routes by neither.
        asked.hosts.extend(head.uri.authority().map(|authority| authority.as_str().as_bytes()));
        head.headers.iter().for_each(|(name, value)| asked.add(name.as_str().as_bytes(), value.as_bytes()));
        asked
    }

    fn add(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |known: &header::HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
        match name.len() {
            4 if is(&header::HOST) => self.hosts.push(value),
            6 if is(&header::ORIGIN) => self.origins.push(value),
            12 if is(&header::CONTENT_TYPE) => {
                // Of two types the more dangerous counts.
                let media = Media::of(value);
                self.media = Some(self.media.filter(|before| *before != Media::Other).unwrap_or(media));
            }
            14 if name.eq_ignore_ascii_case(b"sec-fetch-site") => {
                self.from_elsewhere |= !matches!(value, b"same-origin" | b"none");
            }
            14 if name.eq_ignore_ascii_case(b"sec-fetch-mode") => self.navigate = value == b"navigate",
            14 if name.eq_ignore_ascii_case(b"sec-fetch-dest") => self.document = value == b"document",
            _ => {}
        }
    }

    /// RFC 9110 section 9.2.1.
    fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// The user follows a link to a page of ours, which replaces the page that has the link.
    fn navigates(&self) -> bool {
        self.method == "GET" && self.navigate && self.document
    }

    fn is_of_a_form(&self) -> bool {
        matches!(self.media, Some(Media::Form | Media::Text))
    }

    fn is_for(&self, (scheme, authority): &(Scheme, String)) -> bool {
        self.hosts.first().and_then(|host| scheme.plain(host)).is_some_and(|host| host == *authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "127.0.0.1:7070";

    fn gate() -> Gate {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Gate::new("app", &names(&["Stack.example.org", "*.wide.example"]), &names(&["https://spa.example"]))
    }

    fn ask(method: &str, fields: &[(&str, &str)]) -> Result<(), Refused> {
        let mut asked = Asked::new(method, "/v1/x", false);
        fields.iter().for_each(|(name, value)| asked.add(name.as_bytes(), value.as_bytes()));
        gate().check(&asked)
    }

    /// DNS rebinding: the page's own name resolves to our address, so for its browser it is of our origin.
    #[test]
    fn a_host_is_ours_if_no_stranger_can_own_it() {
        for host in [
            HERE,
            "[::1]:7070",
            "[::1]",
            "LOCALHOST:1",
            "localhost.",
            "a.localhost:80",
            "console:7070",
            "10.1.2.3",
            "stack.example.org",
            "STACK.example.org.:443",
            "a.b.wide.example",
        ] {
            assert_eq!(ask("GET", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7070",
            "127.0.0.1.evil.example",
            "wide.example",
            "notwide.example",
            "stack.example.org.evil.example",
            "localhost.evil.example",
            "user@localhost",
            "localhost/x",
            "ai.",
            "127.0.0.1:99999",
            "",
            "a b",
            "[::1",
            "0x7f.1",
        ] {
            assert_eq!(ask("GET", &[("host", host)]), Err(Refused::Host), "{host}");
        }
        assert_eq!(ask("GET", &[]), Err(Refused::HostUnclear));
        assert_eq!(ask("GET", &[("host", HERE), ("host", "evil.example")]), Err(Refused::Host));
        assert_eq!(ask("GET", &[("host", HERE), ("host", "localhost")]), Err(Refused::HostUnclear));
        let old = Asked::new("GET", "/", true);
        assert_eq!(gate().check(&old), Ok(()), "HTTP/1.0 names no host");
    }

    #[test]
    fn programs_and_pages_of_ours_may_ask_others_not() {
        let from = |method: &str, more: &[(&str, &str)]| {
            ask(method, &[&[("host", HERE), ("content-type", "application/json")], more].concat())
        };
        assert_eq!(from("POST", &[]), Ok(()), "curl");
        assert_eq!(
            from("POST", &[("origin", "http://127.0.0.1:7070"), ("sec-fetch-site", "same-origin")]),
            Ok(())
        );
        assert_eq!(from("POST", &[("sec-fetch-site", "none")]), Ok(()), "typed by the user");
        let listed = [("origin", "https://SPA.example:443"), ("sec-fetch-site", "cross-site")];
        assert_eq!(from("POST", &listed), Ok(()), "its origin is listed");
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:8080",
            "null",
            "http://spa.example",
            "",
            "127.0.0.1:7070",
        ] {
            assert_eq!(from("DELETE", &[("origin", origin)]), Err(Refused::Origin), "{origin}");
            assert_eq!(from("GET", &[("origin", origin)]), Err(Refused::Origin), "{origin}");
        }
        for site in ["cross-site", "same-site", "Same-Origin", ""] {
            assert_eq!(from("POST", &[("sec-fetch-site", site)]), Err(Refused::Origin), "{site}");
        }
        let twice = [("origin", "http://127.0.0.1:7070"), ("origin", "http://evil.example")];
        assert_eq!(from("POST", &twice), Err(Refused::Origin));
        let host = |host, origin| ask("PUT", &[("host", host), ("origin", origin)]);
        assert_eq!(host("stack.example.org", "https://stack.example.org"), Ok(()), "TLS ends before us");
        assert_eq!(host("stack.example.org:443", "https://stack.example.org"), Ok(()));
        assert_eq!(host("stack.example.org:8443", "https://stack.example.org"), Err(Refused::Origin));
    }

    /// Fetch Metadata: a link may lead here, a frame, an image or a script of another site may not ask.
    #[test]
    fn a_link_from_elsewhere_is_followed_and_nothing_is_embedded() {
        let from_elsewhere = |method: &str, mode: &str, dest: &str| {
            let fetched =
                [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            ask(method, &[&[("host", HERE)], &fetched[..]].concat())
        };
        assert_eq!(from_elsewhere("GET", "navigate", "document"), Ok(()));
        for (method, mode, dest) in [
            ("POST", "navigate", "document"),
            ("GET", "navigate", "iframe"),
            ("GET", "no-cors", "image"),
            ("GET", "cors", "empty"),
            ("OPTIONS", "cors", "empty"),
        ] {
            assert_eq!(from_elsewhere(method, mode, dest), Err(Refused::Origin), "{method} {mode} {dest}");
        }
    }

    #[test]
    fn what_a_form_can_send_changes_nothing() {
        let of = |method: &str, media: &str| ask(method, &[("host", HERE), ("content-type", media)]);
        for media in
            ["application/x-www-form-urlencoded", "Multipart/Form-Data; boundary=x", " text/plain;a=b"]
        {
            assert_eq!(of("POST", media), Err(Refused::MediaType), "{media}");
            assert_eq!(of("GET", media), Ok(()), "{media}");
        }
        assert_eq!(of("POST", "application/x-ndjson"), Ok(()));
        assert_eq!(ask("POST", &[("host", HERE)]), Ok(()), "no body, or one that its route will refuse");
        let two = [("host", HERE), ("content-type", "text/plain"), ("content-type", "application/json")];
        assert_eq!(ask("POST", &two), Err(Refused::MediaType));
        let mut asked = Asked::new("POST", "/db/load", false);
        [("host", HERE), ("content-type", "text/plain")]
            .iter()
            .for_each(|(name, value)| asked.add(name.as_bytes(), value.as_bytes()));
        assert_eq!(gate().with_text_at(&["/db/load"]).check(&asked), Ok(()));
    }

    #[test]
    fn names_that_cannot_be_meant_are_refused_and_new_ones_count_at_once() {
        let check = |host: &str, origin: &str| check_names("app", &[host.to_owned()], &[origin.to_owned()]);
        assert_eq!(check("*.example.org", "https://a.example:8443"), Ok(()));
        for host in ["example.org:80", "https://example.org", "*", "a.*.org", ""] {
            assert!(check(host, "http://a").unwrap_err().starts_with("app.hosts = "), "{host}");
        }
        for origin in ["example.org", "https://example.org/", "*", "null"] {
            assert!(check("a", origin).unwrap_err().starts_with("app.page_origins = "), "{origin}");
        }
        let gate = gate();
        let mut asked = Asked::new("GET", "/", false);
        asked.add(b"host", b"new.example");
        assert_eq!(gate.check(&asked), Err(Refused::Host));
        gate.clone().know(&["new.example".to_owned()], &[]);
        assert_eq!(gate.check(&asked), Ok(()));
    }
}
