//! Who may ask: addresses, rates, credentials; and what those are told who may not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::origin::Origin;
use common::{Client, Instance, config, files, proxy, with_origin, write};
use http_support::gateway::ClientLimits;
use sha2::Digest as _;
use web::{AuthConfig, Config, NetworksConfig, RateConfig, RouteConfig, Sharing, SiteConfig};

fn page() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    write(&root.path().join("deep/page.txt"), "deep");
    root
}

#[actix::test]
async fn the_lists_judge_the_client_and_not_the_proxy_in_front() {
    let root = page();
    let networks = NetworksConfig {
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        deny: vec!["10.66.0.0/16".parse().unwrap()],
    };
    let site = SiteConfig { networks, ..files(root.path()) };
    let web = Instance::start(config(vec![site.clone()])).await;
    let from = async |address: &str| web.get("/page.txt", &[("x-forwarded-for", address)]).await.status;
    assert_eq!(from("10.1.2.3").await, 200);
    assert_eq!(from("10.66.2.3").await, 403);
    assert_eq!(from("192.0.2.1").await, 403);
    assert_eq!(from("10.1.2.3, 192.0.2.1").await, 403, "what the client itself says counts for nothing");
    assert_eq!(web.get("/page.txt", &[]).await.status, 403);
    let untrusting = Instance::start(Config { trusted_proxies: Vec::new(), ..config(vec![site]) }).await;
    assert_eq!(untrusting.get("/page.txt", &[("x-forwarded-for", "10.1.2.3")]).await.status, 403);
}

#[actix::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_again_and_others_are_not_held_up() {
    let root = page();
    let rate = Some(RateConfig { per_second: 1, burst: Some(3) });
    let web = Instance::start(config(vec![SiteConfig { rate, ..files(root.path()) }])).await;
    let mut client = Client::connect(&web.address).await;
    let mut left = Vec::new();
    for _ in 0..3 {
        let answer = client.request("GET", "/page.txt", &[], b"").await;
        assert_eq!((answer.status, answer.field("ratelimit-policy")), (200, Some("\"client\";q=3;w=3")));
        left.push(answer.field("ratelimit").unwrap().to_owned());
    }
    assert_eq!(left[0], "\"client\";r=2;t=3");
    let mut refused = 0;
    for _ in 0..10 {
        let answer = client.request("GET", "/page.txt", &[], b"").await;
        if answer.status == 429 {
            refused += 1;
            assert_eq!(
                (answer.field("retry-after"), answer.json()["status"].as_u64()),
                (Some("1"), Some(429))
            );
        }
    }
    assert!(refused >= 5, "{refused} of 10 at once at 1 a second");
    let other = web.get("/page.txt", &[("x-forwarded-for", "192.0.2.1")]).await;
    assert_eq!(other.status, 200);
}

fn phc(password: &str) -> String {
    use argon2::password_hash::PasswordHasher as _;
    let params = argon2::Params::new(64, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(password.as_bytes(), b"saltsaltsaltsalt").unwrap();
    hash.to_string()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn guarded(site: SiteConfig) -> Config {
    let digest = sha2::Sha256::digest(b"token");
    let token: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let staff = AuthConfig {
        realm: "staff".to_owned(),
        users: [("alice".to_owned(), phc("secret"))].into(),
        tokens: [("ci".to_owned(), token)].into(),
    };
    Config { auth: [("staff".to_owned(), staff)].into(), ..config(vec![site]) }
}

/// RFC 9110 section 11, RFC 7617, RFC 6750.
#[actix::test]
async fn only_those_who_are_known_pass() {
    let root = page();
    let route = RouteConfig {
        path: "/deep".to_owned(),
        root: Some(root.path().join("deep")),
        auth: Some("staff".to_owned()),
        ..RouteConfig::default()
    };
    let web = Instance::start(guarded(SiteConfig { routes: vec![route], ..files(root.path()) })).await;
    let status = async |authorization: &str| {
        web.get("/deep/page.txt", &[("authorization", authorization)]).await.status
    };
    let nobody = web.get("/deep/page.txt", &[]).await;
    assert_eq!(nobody.status, 401);
    let challenges = nobody.fields("www-authenticate");
    assert_eq!(challenges, ["Basic realm=\"staff\", charset=\"UTF-8\"", "Bearer realm=\"staff\""]);
    for _ in 0..2 {
        assert_eq!(status(&basic("alice", "secret")).await, 200, "also when it is remembered");
        assert_eq!(status(&basic("alice", "Secret")).await, 401, "also when it is remembered");
    }
    for wrong in [
        &*basic("bob", "secret"),
        &basic("", ""),
        "Basic",
        "Basic %%%",
        "Bearer nonsense",
        "Bearer ",
        "Digest x",
    ] {
        assert_eq!(status(wrong).await, 401, "{wrong}");
    }
    assert_eq!(status("Bearer token").await, 200);
    assert_eq!(status("bearer token").await, 200, "schemes have no case");
    assert_eq!(web.get("/page.txt", &[]).await.status, 200, "the rest of the site is open");
    for spelling in ["/%64eep/page.txt", "//deep/page.txt", "/deep%2fpage.txt"] {
        assert_eq!(web.get(spelling, &[]).await.status, 401, "{spelling}");
    }
}

#[actix::test]
async fn the_upstream_server_is_told_who_asks_and_not_the_password() {
    let origin = Origin::saying("", "app").await;
    let config = guarded(SiteConfig { auth: Some("staff".to_owned()), ..proxy() });
    let web = Instance::start(with_origin(config, &[&origin.url])).await;
    for fields in [&[][..], &[("accept-encoding", "br")]] {
        let secret = basic("alice", "secret");
        let own = [("authorization", &*secret), ("x-authenticated-user", "root")];
        assert_eq!(web.get("/", &[fields, &own].concat()).await.status, 200);
        let seen = origin.seen().pop().unwrap().to_ascii_lowercase();
        assert!(seen.contains("x-authenticated-user: alice\r\n") && !seen.contains("root"), "{seen}");
        assert!(!seen.contains("authorization"), "{seen}");
    }
}

/// Applications behind CGI, WSGI and their like cannot tell `X_Authenticated_User` from `X-Authenticated-User`: who sent
/// the former was taken for whom he liked, also where the site had checked another.
#[actix::test]
async fn no_spelling_of_a_field_of_ours_reaches_the_upstream_server() {
    let names = [
        "X_Authenticated_User",
        "x-authenticated_user",
        "X_AUTHENTICATED-USER",
        "x.authenticated.user",
        "X-Authenticated~User",
        "Authorization_",
        "my_own",
    ];
    for (auth, underscores) in [(true, false), (true, true), (false, false), (false, true)] {
        let origin = Origin::saying("", "app").await;
        let auth = auth.then(|| "staff".to_owned());
        let config = guarded(SiteConfig { auth: auth.clone(), underscores, ..proxy() });
        let web = Instance::start(with_origin(config, &[&origin.url])).await;
        for coding in [&[][..], &[("accept-encoding", "br")]] {
            let secret = basic("alice", "secret");
            let mut fields: Vec<_> = names.iter().map(|name| (*name, "root")).collect();
            fields.extend_from_slice(&[("my-own", "kept"), ("authorization", &secret)]);
            // Another test of this process floods the checks of passwords meanwhile: 429 is to come again.
            let fields = [coding, &fields].concat();
            common::until("it is let in", async || web.get("/", &fields).await.status == 200).await;
            let seen = origin.seen().pop().unwrap().to_ascii_lowercase();
            let said: Vec<_> = seen.lines().filter(|line| line.contains("authenticated")).collect();
            let ours: &[&str] = if auth.is_some() { &["x-authenticated-user: alice"] } else { &[] };
            assert_eq!(said, ours, "{seen}");
            assert_eq!(seen.contains("my_own: root"), underscores, "{seen}");
            assert!(seen.contains("my-own: kept\r\n"), "{seen}");
        }
    }
}

/// Passwords are dear to check: many at once must not take all memory and threads.
#[actix::test]
async fn a_flood_of_wrong_passwords_is_bounded() {
    let root = page();
    let web =
        Instance::start(guarded(SiteConfig { auth: Some("staff".to_owned()), ..files(root.path()) })).await;
    let web = &web;
    let flood = (0..64).map(|n| async move {
        web.get("/page.txt", &[("authorization", &basic("alice", &format!("guess-{n}")))]).await.status
    });
    let statuses = futures_util::future::join_all(flood).await;
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let right = [("authorization", &*basic("alice", "secret"))];
    common::until("the right one passes", async || web.get("/page.txt", &right).await.status == 200).await;
}

#[actix::test]
async fn a_client_may_hold_only_so_many_connections() {
    let root = page();
    let limits = ClientLimits { connections_per_client_max: 4, ..ClientLimits::default() };
    let own = config(vec![files(root.path())]);
    // Proxies that are trusted speak for many clients; this one is not.
    let web = Instance::start(Config { limits, workers: 1, trusted_proxies: Vec::new(), ..own }).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(&web.address).await;
        assert_eq!(client.request("GET", "/page.txt", &[], b"").await.status, 200);
        held.push(client);
    }
    let mut more = Client::connect(&web.address).await;
    let answer = more.ask("GET", "/page.txt", &[], b"").await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 429), "{answer:?}");
    assert_eq!(held[0].request("GET", "/page.txt", &[], b"").await.status, 200);
    drop(held);
    common::until("there is room again", async || {
        let mut client = Client::connect(&web.address).await;
        client.ask("GET", "/page.txt", &[], b"").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

/// Slow in the head and slow in the body: answered 408 or cut off, and nobody else waits for them.
#[actix::test]
async fn slow_clients_are_given_up_in_time() {
    let origin = Origin::saying("", "app").await;
    let root = page();
    let limits = ClientLimits {
        head_timeout_ms: 300,
        body_idle_ms: 300,
        send_idle_ms: 500,
        ..ClientLimits::default()
    };
    let site = SiteConfig { pool: Some("origin".to_owned()), ..files(root.path()) };
    write(&root.path().join("large.bin"), vec![0; 32 << 20]);
    let config = Config { limits, workers: 1, ..config(vec![site]) };
    let web = Instance::start(with_origin(config, &[&origin.url])).await;
    let begun = clock::now();
    let mut drip = Client::connect(&web.address).await;
    drip.send("GET /page.txt HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut body = Client::connect(&web.address).await;
    body.send("POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc").await.unwrap();
    let mut deaf = Client::connect(&web.address).await;
    deaf.send("GET /large.bin HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(web.get("/page.txt", &[]).await.status, 200, "others are served meanwhile");
    let late = drip.answer(false).await;
    assert!(late.as_ref().map_or(true, |answer| answer.status == 408), "{late:?}");
    let late = body.answer(false).await;
    assert!(late.as_ref().map_or(true, |answer| answer.status == 408), "{late:?}");
    tokio::time::sleep(Duration::from_millis(1500)).await; // it takes nothing for longer than it may
    deaf.answer(false).await.expect_err("cut off before the end");
    assert!(clock::now() - begun < Duration::from_secs(15));
}

/// A page behind an address rule, a limit or a password had been stored by the edge and served to those it excludes.
#[actix::test]
async fn what_is_decided_for_one_client_is_private_unless_the_place_says_otherwise() {
    let root = page();
    let networks = NetworksConfig { allow: vec!["127.0.0.0/8".parse().unwrap()], deny: Vec::new() };
    let rate = Some(RateConfig { per_second: 100, burst: None });
    let public = Some("public, s-maxage=60, max-age=60".to_owned());
    let open = SiteConfig { cache_control: public.clone(), ..files(root.path()) };
    for (site, field, said) in [
        (open.clone(), None, "public, s-maxage=60, max-age=60"),
        (SiteConfig { networks: networks.clone(), ..open.clone() }, Some("private"), "private, max-age=60"),
        (SiteConfig { rate, ..open.clone() }, Some("private"), "private, max-age=60"),
        (SiteConfig { rate, share: true, ..open.clone() }, None, "public, s-maxage=60, max-age=60"),
        (
            SiteConfig { networks, cache_control: None, ..open.clone() },
            Some("private"),
            "private, max-age=60",
        ),
        (
            SiteConfig { cache: Some(Sharing::Rfc), cache_control: None, ..open },
            Some("rfc"),
            "public, max-age=60",
        ),
    ] {
        let web = Instance::start(config(vec![site.clone()])).await;
        for headers in [&[][..], &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")]] {
            let answer = web.get("/page.txt", headers).await;
            assert_eq!(answer.field("standfast-cache"), field, "{site:?}");
            assert_eq!(answer.field("cache-control"), Some(said), "{site:?}");
        }
    }
}
