use http_support::wire::{
    Forwarding, Framing, HeadLimits, RequestHead, RequestParts, Scheme, Version, framing_line, hop_lines,
    write_request_line, write_status_line,
};

use super::{request, response, text};

fn lines(bytes: &[u8], drop: &[&str]) -> String {
    let mut out = Vec::new();
    request(bytes)
        .unwrap()
        .end_to_end_lines(&mut out, |name| drop.iter().any(|d| name.eq_ignore_ascii_case(d.as_bytes())));
    text(&out).to_owned()
}

/// RFC 9110 section 7.6.1.
#[test]
fn connection_fields_stay_on_their_connection() {
    let bytes = b"GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nConnection: X-Hop, close\r\nX-Hop: 2\r\nB:  3\t\r\nKeep-Alive: 4\r\nTE: trailers\r\n\
        Proxy-Connection: 5\r\nProxy-Authorization: 6\r\nUpgrade: h2c\r\nHTTP2-Settings: 7\r\nTrailer: C\r\nC: 8\r\nx-hop: 9\r\n\r\n";
    assert_eq!(lines(bytes, &[]), "A: 1\r\nB:  3\t\r\nTrailer: C\r\nC: 8\r\n");
    assert_eq!(lines(bytes, &["b", "c"]), "A: 1\r\nTrailer: C\r\n");
}

/// RFC 9110 section 7.6.2.
#[test]
fn max_forwards_is_counted_down_where_it_counts() {
    let with = |method: &str, value: &str| {
        format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n")
    };
    assert_eq!(lines(with("TRACE", "1").as_bytes(), &[]), "Max-Forwards: 0\r\n");
    assert_eq!(lines(with("GET", "1").as_bytes(), &[]), "Max-Forwards: 1\r\n");
    assert_eq!(lines(with("OPTIONS", "+1").as_bytes(), &[]), "Max-Forwards: +1\r\n");
    assert_eq!(request(with("OPTIONS", "0").as_bytes()).unwrap().max_forwards(), Some(0));
    assert_eq!(request(with("OPTIONS", "99999999999").as_bytes()).unwrap().max_forwards(), None);
}

/// To a CGI-like origin `X_Forwarded_For` is `X-Forwarded-For`.
#[test]
fn look_alikes_with_underscores_are_dropped() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded-For: 1\r\nContent_Length: 2\r\nTRANSFER_ENCODING: chunked\r\nx_forwarded_user: me\r\nX_Real_IP: 3\r\nmy_own: 4\r\n\r\n";
    assert_eq!(lines(bytes, &[]), "my_own: 4\r\n");
}

#[test]
fn framing_is_written_from_what_was_understood() {
    let framing = |lines: &str| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut out = Vec::new();
        request(bytes.as_bytes()).unwrap().framing_line(&mut out);
        text(&out).to_owned()
    };
    assert_eq!(framing("content-length: 007\r\n"), "Content-Length: 7\r\n");
    assert_eq!(framing("transfer-encoding: CHUNKED\r\n"), "Transfer-Encoding: chunked\r\n");
    assert_eq!(framing(""), "Content-Length: 0\r\n");
    let mut out = Vec::new();
    framing_line(Framing::None, &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_response_is_framed_for_the_client_it_goes_to() {
    let framing = |status: &str, lines: &str, method: &str, client| {
        let bytes = format!("HTTP/1.1 {status} x\r\n{lines}\r\n");
        let mut out = Vec::new();
        response(bytes.as_bytes()).unwrap().framing_line(method, client, &mut out);
        text(&out).trim_end().to_owned()
    };
    let http11 = Version::Http11;
    assert_eq!(framing("200", "", "GET", http11), "Transfer-Encoding: chunked");
    assert_eq!(framing("200", "", "GET", Version::Http10), "");
    assert_eq!(framing("200", "Transfer-Encoding: chunked\r\n", "GET", Version::H2), "");
    assert_eq!(framing("200", "Content-Length: 5\r\n", "HEAD", http11), "Content-Length: 5");
    assert_eq!(framing("304", "Content-Length: 5\r\n", "GET", http11), "Content-Length: 5");
    assert_eq!(framing("200", "Content-Length: 0\r\n", "GET", http11), "Content-Length: 0");
    assert_eq!(framing("204", "", "GET", http11), "");
    assert_eq!(framing("304", "", "GET", http11), "");
}

#[test]
fn hop_fields_are_made_for_the_next_hop() {
    let hop = |lines: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut out = Vec::new();
        hop_lines(&request(bytes.as_bytes()).unwrap(), &mut out);
        text(&out).to_owned()
    };
    assert_eq!(hop("Connection: close\r\n"), "");
    assert_eq!(hop("TE: gzip, Trailers\r\n"), "TE: trailers\r\nConnection: TE\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(hop(upgrade), "Upgrade: websocket\r\nConnection: upgrade\r\n");
    assert_eq!(
        hop(&format!("{upgrade}TE: trailers\r\n")),
        "Upgrade: websocket\r\nTE: trailers\r\nConnection: upgrade, TE\r\n"
    );
}

const CLAIMS: &str = "Via: 1.0 old\r\nForwarded: for=9.9.9.9\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 9.9.9.9\r\n";

fn forwarded(trusted: bool, claims: &str) -> String {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a.example:80\r\n{claims}\r\n");
    let head = request(bytes.as_bytes()).unwrap();
    let mut out = Vec::new();
    head.end_to_end_lines(&mut out, |_| false);
    Forwarding::new("standfast", "192.0.2.1".parse().unwrap(), Scheme::Http, trusted).lines(&head, &mut out);
    text(&out).to_owned()
}

/// RFC 7239 section 8.1: what an untrusted client says of earlier hops is replaced.
#[test]
fn the_claims_of_an_untrusted_client_are_replaced() {
    assert_eq!(
        forwarded(false, CLAIMS),
        "Via: 1.0 old, 1.1 standfast\r\nForwarded: for=192.0.2.1;proto=http;host=\"a.example:80\"\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example:80\r\n"
    );
}

#[test]
fn the_claims_of_a_trusted_peer_are_added_to() {
    assert_eq!(
        forwarded(true, CLAIMS),
        "Via: 1.0 old, 1.1 standfast\r\nForwarded: for=9.9.9.9, for=8.8.8.8, for=192.0.2.1;proto=http;host=\"a.example:80\"\r\n\
         X-Forwarded-For: 9.9.9.9, 8.8.8.8, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n\
         X-Forwarded-Port: 443\r\nX-Real-IP: 9.9.9.9\r\n"
    );
    assert!(
        forwarded(true, "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a/b\r\n")
            .contains("Proto: http\r\nX-Forwarded-Host: a.example:80\r\n")
    );
    assert_eq!(forwarded(true, ""), forwarded(false, ""));
}

/// A peer that writes one of the lists passes on what a client says in the other: an application that reads that one would
/// believe it.
#[test]
fn both_lists_say_the_same_to_the_next_hop() {
    for (claims, list, forwarded_by) in [
        (
            "Forwarded: for=9.9.9.9;proto=https, for=\"[2001:db8::1]:47\"",
            "9.9.9.9, 2001:db8::1",
            "for=9.9.9.9;proto=https, for=\"[2001:db8::1]:47\"",
        ),
        (
            "X-Forwarded-For: 9.9.9.9:80, 2001:db8::1",
            "9.9.9.9:80, 2001:db8::1",
            "for=9.9.9.9, for=\"[2001:db8::1]\"",
        ),
        ("X-Forwarded-For: 9.9.9.9\r\nForwarded: for=127.0.0.1", "9.9.9.9", "for=9.9.9.9"),
        (
            "X-Forwarded-For: 9.9.9.9\r\nForwarded: for=\"9.9.9.9:80\";by=_x",
            "9.9.9.9",
            "for=\"9.9.9.9:80\";by=_x",
        ),
        ("Forwarded: for=\"9.9.9.9", "unknown", "for=\"9.9.9.9"),
        ("X-Forwarded-For: junk\r\nForwarded: for=9.9.9.9", "junk", "for=unknown"),
    ] {
        let lines = lines_of(&forwarded(true, &format!("{claims}\r\n")));
        assert_eq!(lines[2], format!("X-Forwarded-For: {list}, 192.0.2.1"), "{claims}");
        let own = "for=192.0.2.1;proto=";
        assert!(lines[1].starts_with(&format!("Forwarded: {forwarded_by}, {own}")), "{claims}: {}", lines[1]);
    }
    let many = format!("Forwarded: {}\r\n", ["for=9.9.9.9"; 100].join(","));
    assert!(
        forwarded(true, &many).matches("9.9.9.9").count() <= 132,
        "a list that is written anew is bounded"
    );
}

fn lines_of(block: &str) -> Vec<String> {
    block.split("\r\n").map(str::to_owned).collect()
}

/// RFC 7239 section 5.4; `X-Forwarded-Proto` where there is one.
#[test]
fn the_scheme_is_what_the_trusted_peer_says() {
    for (claims, scheme) in [
        ("Forwarded: for=9.9.9.9;proto=https", "https"),
        ("Forwarded: for=9.9.9.9;proto=https, for=8.8.8.8;proto=HTTP", "http"),
        ("Forwarded: for=9.9.9.9;proto=https\r\nX-Forwarded-Proto: http", "http"),
        ("X-Forwarded-Proto: HTTPS", "https"),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https", "http"),
        ("Forwarded: proto=gopher", "http"),
    ] {
        let lines = forwarded(true, &format!("{claims}\r\n"));
        assert!(lines.contains(&format!("X-Forwarded-Proto: {scheme}\r\n")), "{claims}: {lines}");
        assert!(forwarded(false, &format!("{claims}\r\n")).contains("Proto: http\r\n"), "{claims}");
    }
}

/// Frameworks that obey `X-Original-URL` serve `/admin` to a request for `/`.
#[test]
fn another_target_is_named_by_trusted_peers_only() {
    let targets =
        "X-Original-URL: /admin\r\nX-Rewrite-Url: /admin\r\nX-Host: evil.example\r\nx-original-host: a\r\n";
    let claims = "True-Client-IP: 9.9.9.9\r\nX-Client-IP: 9.9.9.9\r\nX-Forwarded-Prefix: /x\r\nFront-End-Https: on\r\n";
    let method = "X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: PUT\r\nX-Method-Override: PATCH\r\n";
    let all = [targets, claims, method].concat();
    let from_anybody = forwarded(false, &all);
    assert!(
        !from_anybody.contains("admin")
            && !from_anybody.contains("9.9.9.9")
            && !from_anybody.contains("evil")
    );
    assert!(from_anybody.starts_with(method), "a client's own method is decided where the site is known");
    let trusted = forwarded(true, &all);
    assert!(trusted.contains(&targets[..40]) && trusted.contains("True-Client-IP: 9.9.9.9\r\n"), "{trusted}");
    for line in all.split_inclusive("\r\n") {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
        let overrides = request(bytes.as_bytes()).unwrap().overrides();
        assert_eq!(overrides, !claims.contains(line), "{line}");
    }
}

/// To CGI and what descends from it (RFC 3875 section 4.1.18) `X_Forwarded_For` is `X-Forwarded-For`.
#[test]
fn no_spelling_of_a_field_that_we_write_is_passed_on() {
    for name in [
        "X_Forwarded_For",
        "X-Forwarded_Proto",
        "x.forwarded.for",
        "X+Forwarded-Host",
        "X_Original_URL",
        "x_real_ip",
        "X_HTTP_Method_Override",
        "X.Http-Method",
        "True_Client_IP",
        "Content_Length",
        "Transfer.Encoding",
        "X_Forwarded-Anything",
    ] {
        for trusted in [false, true] {
            let lines = forwarded(trusted, &format!("{name}: 7.7.7.7\r\n"));
            assert!(!lines.contains("7.7.7.7"), "{name}: {lines}");
        }
    }
    let kept = "X-Hostname: a\r\nX-Forwardedness: b\r\nXhost: c\r\nX-Real-IPs: d\r\n";
    assert!(forwarded(false, kept).starts_with(kept), "other names");
}

#[test]
fn an_ipv6_client_is_quoted_as_rfc_7239_wants() {
    let head = request(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut out = Vec::new();
    Forwarding::new("s", "2001:db8::1".parse().unwrap(), Scheme::Https, false).lines(&head, &mut out);
    assert_eq!(
        text(&out),
        "Via: 1.0 s\r\nForwarded: for=\"[2001:db8::1]\";proto=https;host=\"\"\r\nX-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\n"
    );
}

#[test]
fn start_lines_are_written() {
    let mut out = Vec::new();
    write_request_line("GET", "/x", "a", &mut out);
    write_status_line(200, &mut out);
    write_status_line(431, &mut out);
    write_status_line(799, &mut out);
    assert_eq!(
        text(&out),
        "GET /x HTTP/1.1\r\nHost: a\r\nHTTP/1.1 200 OK\r\nHTTP/1.1 431 Request Header Fields Too Large\r\nHTTP/1.1 799 \r\n"
    );
}

#[test]
fn a_request_from_http_2_is_forwarded_like_any() {
    let block = b"accept: */*\r\nx-forwarded-for: 9.9.9.9\r\ncookie: a=b\r\n";
    let parts = RequestParts {
        method: "GET",
        target: "/",
        authority: "a",
        version: Version::H2,
        block,
        has_body: false,
    };
    let head = RequestHead::from_block(parts, &HeadLimits::default()).unwrap();
    let mut out = Vec::new();
    head.end_to_end_lines(&mut out, |_| false);
    Forwarding::new("s", "::ffff:192.0.2.1".parse().unwrap(), Scheme::Https, false).lines(&head, &mut out);
    assert!(
        text(&out).starts_with("accept: */*\r\ncookie: a=b\r\nVia: 2 s\r\nForwarded: for=192.0.2.1;"),
        "{}",
        text(&out)
    );
}
