//! The variables of a request (RFC 3875 section 4.1), made of its HTTP/1 head.

use std::collections::BTreeMap;

use super::record::pair;
use super::script::{FastCgiRoot, Script};
use super::{CLIENT_FIELD, record};

/// A head as the data plane wrote it.
pub(super) struct Head<'h> {
    pub method: &'h str,
    pub target: &'h str,
    /// Names in lower case.
    pub fields: Vec<(String, &'h str)>,
}

impl<'h> Head<'h> {
    /// Takes a head apart: request line, field lines, without the empty line.
    pub(super) fn read(text: &'h str) -> Option<Self> {
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let field = |line: &'h str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim()))
        };
        Some(Self { method, target, fields: lines.map(field).collect::<Option<_>>()? })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'h str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Path and query.
    fn parts(&self) -> (&'h str, &'h str) {
        // The absolute form keeps its path (RFC 9112 section 3.2.2).
        let target = match self.target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').map_or("/", |slash| &rest[slash..])
            }
            _ => self.target,
        };
        target.split_once('?').unwrap_or((target, ""))
    }

    /// The path, percent-decoded; `/` where it is no text.
    pub(super) fn path(&self) -> String {
        let decoded = decode(self.parts().0);
        String::from_utf8(decoded).unwrap_or_else(|_| "/".to_owned())
    }

    /// The path with its last slash, and the query: where a directory is.
    pub(super) fn with_slash(&self) -> String {
        match self.parts() {
            (path, "") => format!("{path}/"),
            (path, query) => format!("{path}/?{query}"),
        }
    }
}

/// Records that begin the request. `length` is that of its body.
pub(super) fn begin(head: &Head<'_>, root: &FastCgiRoot, script: &Script, length: u64, out: &mut Vec<u8>) {
    let Script::Run { name, path_info } = script else { return };
    let (_, query) = head.parts();
    let secure = head.get("x-forwarded-proto") == Some("https");
    let host = head.get("host").unwrap_or_default();
    let (server, port) = split_port(host, if secure { "443" } else { "80" });
    let file = root.file(name).display().to_string();
    let length = length.to_string();
    let mut params = Vec::new();
    let mut set = |name: &str, value: &str| pair(name.as_bytes(), value.as_bytes(), &mut params);
    set("GATEWAY_INTERFACE", "CGI/1.1");
    set("SERVER_SOFTWARE", "standfast");
    set("SERVER_PROTOCOL", "HTTP/1.1");
    set("SERVER_NAME", server);
    set("SERVER_PORT", port);
    set("REQUEST_METHOD", head.method);
    set("REQUEST_URI", head.target);
    set("REQUEST_SCHEME", if secure { "https" } else { "http" });
    set("QUERY_STRING", query);
    set("DOCUMENT_ROOT", &root.root.display().to_string());
    set("SCRIPT_NAME", name);
    set("SCRIPT_FILENAME", &file);
    set("DOCUMENT_URI", name);
    set("REDIRECT_STATUS", "200"); // PHP built to insist on it refuses to run otherwise
    if !path_info.is_empty() {
        set("PATH_INFO", path_info);
    }
    if secure {
        set("HTTPS", "on");
    }
    if length != "0" || matches!(head.method, "POST" | "PUT" | "PATCH") {
        set("CONTENT_LENGTH", &length);
    }
    if let Some(kind) = head.get("content-type") {
        set("CONTENT_TYPE", kind);
    }
    set("REMOTE_ADDR", head.get(CLIENT_FIELD).unwrap_or("127.0.0.1"));
    if let Some(user) = head.get("x-authenticated-user") {
        set("REMOTE_USER", user);
    }
    for (name, value) in variables(head) {
        set(&name, &value);
    }
    record::begin(out);
    record::params(&params, out);
}

/// `HTTP_*`: a field that came several times is one list. `Proxy` would become `HTTP_PROXY`, which programs take for their
/// own setting (CVE-2016-5385); names with an underscore would pass for others.
fn variables(head: &Head<'_>) -> BTreeMap<String, String> {
    const NOT_PASSED: [&str; 7] = [
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "proxy",
        CLIENT_FIELD,
        "expect",
    ];
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in &head.fields {
        if NOT_PASSED.contains(&name.as_str()) || name.contains('_') {
            continue;
        }
        let variable = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
        let joined = all.entry(variable).or_default();
        if !joined.is_empty() {
            joined.push_str(if name == "cookie" { "; " } else { ", " });
        }
        joined.push_str(value);
    }
    all
}

fn split_port<'h>(host: &'h str, default: &'static str) -> (&'h str, &'h str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, port)
        }
        _ => (host, default),
    }
}

fn decode(path: &str) -> Vec<u8> {
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let hex =
            |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                bytes = ahead;
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str, path: &str) -> BTreeMap<String, String> {
        let root = FastCgiRoot { root: "/srv/site".into(), index: "index.php".to_owned() };
        let head = Head::read(head).unwrap();
        assert_eq!(head.path(), path);
        let mut out = Vec::new();
        begin(&head, &root, &root.script(&head.path()), 5, &mut out);
        let mut content = &out[24..]; // behind the records that begin the request and its parameters
        let mut all = BTreeMap::new();
        while content.first().is_some_and(|name| *name > 1) {
            let length = |bytes: &mut &[u8]| {
                let (first, rest) = (bytes[0], &bytes[1..]);
                let long = first >= 128;
                let value = if long {
                    u32::from_be_bytes([first & 127, rest[0], rest[1], rest[2]])
                } else {
                    u32::from(first)
                };
                *bytes = if long { &rest[3..] } else { rest };
                value as usize
            };
            let (name, value) = (length(&mut content), length(&mut content));
            let text = |range: std::ops::Range<usize>| String::from_utf8(content[range].to_vec()).unwrap();
            all.insert(text(0..name), text(name..name + value));
            content = &content[name + value..];
        }
        all
    }

    #[test]
    fn a_request_becomes_its_variables() {
        let all = of(
            "POST /a%20b.php/more?x=1&y=%2F HTTP/1.1\r\nhost: site.example:8443\r\nx-forwarded-proto: https\r\n\
             content-type: text/plain\r\ncontent-length: 5\r\nstandfast-client: 10.1.2.3\r\ncookie: a=1\r\ncookie: b=2\r\n\
             proxy: http://evil.example\r\nx_forwarded_for: 9.9.9.9\r\naccept: a\r\naccept: b\r\n",
            "/a b.php/more",
        );
        for (name, value) in [
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", "/a%20b.php/more?x=1&y=%2F"),
            ("QUERY_STRING", "x=1&y=%2F"),
            ("SCRIPT_NAME", "/a b.php"),
            ("SCRIPT_FILENAME", "/srv/site/a b.php"),
            ("PATH_INFO", "/more"),
            ("SERVER_NAME", "site.example"),
            ("SERVER_PORT", "8443"),
            ("HTTPS", "on"),
            ("REMOTE_ADDR", "10.1.2.3"),
            ("CONTENT_LENGTH", "5"),
            ("CONTENT_TYPE", "text/plain"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_ACCEPT", "a, b"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        for absent in ["HTTP_PROXY", "HTTP_X_FORWARDED_FOR", "HTTP_STANDFAST_CLIENT", "HTTP_CONTENT_LENGTH"] {
            assert_eq!(all.get(absent), None, "{absent}");
        }
    }

    #[test]
    fn an_absolute_target_and_a_directory_keep_path_and_query() {
        let head = Head::read("GET http://a.example/d?x HTTP/1.1\r\nhost: [::1]\r\n").unwrap();
        assert_eq!((head.path().as_str(), head.with_slash().as_str()), ("/d", "/d/?x"));
        assert_eq!(split_port("[::1]", "80"), ("[::1]", "80"));
        assert_eq!(split_port("[::1]:8080", "80"), ("[::1]", "8080"));
        assert_eq!(Head::read("GET /%zz%f HTTP/1.1\r\n").unwrap().path(), "/%zz%f");
    }
}
