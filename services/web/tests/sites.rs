//! Virtual hosts, redirects, rewrites, error pages, the welcome page, and changing all of that under load.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::origin::Origin;
use common::{Client, Instance, config, files, proxy, with_origin, write};
use discovery::Identity;
use messages::service::Health;
use web::{RouteConfig, RuleConfig, SiteConfig};

#[actix::test]
async fn each_host_has_its_site() {
    let root = tempfile::tempdir().unwrap();
    for name in ["one", "wide", "rest"] {
        write(&root.path().join(name).join("index.html"), name);
    }
    let site = |name: &str, hosts: &[&str]| SiteConfig {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        ..files(&root.path().join(name))
    };
    let named = vec![site("one", &["one.example"]), site("wide", &["*.one.example"])];
    let web = Instance::start(config([named.clone(), vec![site("rest", &[])]].concat())).await;
    for (host, expected) in [
        ("one.example", "one"),
        ("ONE.example:8080", "one"),
        ("a.b.one.example", "wide"),
        ("x.example", "rest"),
    ] {
        assert_eq!(web.get("/", &[("host", host)]).await.text(), expected, "{host}");
    }
    let strict = Instance::start(config(named)).await;
    let unknown = strict.get("/", &[("host", "x.example")]).await;
    assert_eq!((unknown.status, unknown.json()["type"].as_str()), (421, Some("/problems/unknown-host")));
}

#[actix::test]
async fn redirects_come_first_and_rewrites_change_what_is_looked_up() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("v1/page.txt"), "v1");
    let rule = |from: &str, to: &str, status| RuleConfig { from: from.to_owned(), to: to.to_owned(), status };
    let origin = Origin::saying("", "app").await;
    let site = SiteConfig {
        pool: Some("origin".to_owned()),
        redirects: vec![
            rule("/old/{rest*}", "/new/{rest}", Some(301)),
            rule("/away/{rest*}", "https://{host}/{rest}", None),
            rule("/out/{rest*}", "/{rest}", None),
        ],
        rewrites: vec![rule("/v2/{rest*}", "/v1/{rest}", None)],
        ..files(root.path())
    };
    let web = Instance::start(with_origin(config(vec![site]), &[&origin.url])).await;
    for (target, status, location) in [
        ("/old/a/b?q=1", 301, "/new/a/b?q=1"),
        ("/%6fld/a", 301, "/new/a"),
        ("/away/x", 308, "https://localhost/x"),
        ("/out//evil.example", 308, "/evil.example"),
        ("/out/%2fevil.example", 308, "/%2fevil.example"),
        ("/out/%5cevil.example", 308, "/%5cevil.example"),
        ("/out/\\evil.example", 308, "/evil.example"),
    ] {
        let answer = web.get(target, &[]).await;
        assert_eq!((answer.status, answer.field("location")), (status, Some(location)), "{target}");
    }
    assert_eq!(web.get("/v2/page.txt", &[]).await.text(), "v1");
    assert_eq!(web.get("/v2/other?q=1", &[]).await.text(), "app");
    assert!(origin.seen()[0].starts_with("GET /v1/other?q=1 HTTP/1.1\r\n"), "{:?}", origin.seen());
}

#[actix::test]
async fn no_header_can_be_put_into_a_redirect() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("a\r\nset-cookie: x")).unwrap();
    let web = Instance::start(config(vec![files(root.path())])).await;
    let answer = web.get("/a%0d%0aset-cookie:%20x", &[]).await;
    assert_eq!((answer.status, answer.field("set-cookie")), (308, None));
    assert_eq!(answer.field("location"), Some("/a%0d%0aset-cookie:%20x/"));
}

#[actix::test]
async fn errors_are_pages_for_people_and_problems_for_programs() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("404.html"), "<h1>our own page");
    let site = SiteConfig {
        error_pages: [("404".to_owned(), "/404.html".to_owned())].into(),
        headers: [("X-Robots-Tag".to_owned(), "none".to_owned())].into(),
        ..files(root.path())
    };
    let web = Instance::start(config(vec![site])).await;
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let own = web.get("/absent", &browser).await;
    assert_eq!((own.status, own.text()), (404, "<h1>our own page"));
    assert_eq!((own.field("content-type"), own.field("etag")), (Some("text/html; charset=utf-8"), None));
    let plain = web.get("/%", &browser).await;
    assert_eq!((plain.status, plain.field("content-type")), (400, Some("text/html; charset=utf-8")));
    let problem = web.get("/absent", &[]).await;
    assert_eq!((problem.status, problem.field("content-type")), (404, Some("application/problem+json")));
    assert_eq!(problem.json()["instance"], "/absent");
    std::fs::create_dir(root.path().join("dir")).unwrap();
    let moved = web.get("/dir", &[]).await;
    assert_eq!((moved.status, moved.field("x-robots-tag")), (308, Some("none")));
    for answer in [&own, &problem] {
        assert_eq!(answer.field("x-robots-tag"), Some("none"));
        assert_eq!(answer.field("vary"), Some("accept"));
    }
    let mut client = Client::connect(&web.address).await;
    let head = client.request("HEAD", "/absent", &browser, b"").await;
    assert_eq!((head.status, head.field("content-length")), (404, Some("16")));
}

#[actix::test]
async fn an_app_that_routes_in_the_browser_gets_its_page_for_every_path() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("index.html"), "app");
    write(&root.path().join("app.js"), "js");
    let site = SiteConfig { fallback_file: Some("/index.html".to_owned()), ..files(root.path()) };
    let web = Instance::start(config(vec![site])).await;
    assert_eq!(web.get("/some/where", &[]).await.text(), "app");
    assert_eq!(web.get("/app.js", &[]).await.text(), "js");
}

#[actix::test]
async fn an_app_below_a_path_gets_its_own_page_there() {
    let base = tempfile::tempdir().unwrap();
    write(&base.path().join("index/index.html"), "page of the app");
    let route = RouteConfig {
        path: "/index".to_owned(), // its name begins as the file's does
        root: Some(base.path().join("index")),
        fallback_file: Some("/index.html".to_owned()),
        ..RouteConfig::default()
    };
    let web = Instance::start(config(vec![SiteConfig { routes: vec![route], ..files(base.path()) }])).await;
    for target in ["/index/", "/index/some/where", "/index/index.html"] {
        assert_eq!(web.get(target, &[]).await.text(), "page of the app", "{target}");
    }
}

/// Where TLS ends at a proxy in front, a site for HTTPS alone must not send its clients round in circles.
#[actix::test]
async fn tls_that_ended_at_a_trusted_proxy_is_tls() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let site = SiteConfig { https_only: true, ..files(root.path()) };
    let web = Instance::start(config(vec![site.clone()])).await;
    let fields = [("x-forwarded-proto", "https")];
    let answer = web.get("/page.txt", &fields).await;
    assert_eq!((answer.status, answer.field("strict-transport-security")), (200, Some("max-age=31536000")));
    assert_eq!(web.get("/page.txt", &[]).await.status, 308);
    let untrusting = Instance::start(web::Config { trusted_proxies: Vec::new(), ..config(vec![site]) }).await;
    assert_eq!(untrusting.get("/page.txt", &fields).await.status, 308);
}

#[actix::test]
async fn a_route_shows_the_files_of_its_own_directory() {
    let base = tempfile::tempdir().unwrap();
    write(&base.path().join("www/docs/page.txt"), "of the site");
    write(&base.path().join("docs/page.txt"), "of the route");
    write(&base.path().join("docs/index.html"), "index of the route");
    let route = RouteConfig {
        path: "/docs".to_owned(),
        root: Some(base.path().join("docs")),
        cache_control: Some("max-age=9".to_owned()),
        ..RouteConfig::default()
    };
    let site = SiteConfig { routes: vec![route], ..files(&base.path().join("www")) };
    let web = Instance::start(config(vec![site])).await;
    let page = web.get("/docs/page.txt", &[]).await;
    assert_eq!((page.text(), page.field("cache-control")), ("of the route", Some("max-age=9")));
    assert_eq!(web.get("/docs/", &[]).await.text(), "index of the route");
    assert_eq!(web.get("/docs", &[]).await.field("location"), Some("/docs/"));
}

#[actix::test]
async fn the_welcome_page_says_what_runs_and_the_jobs_api_is_behind_it() {
    let origin = Origin::saying("content-type: application/json\r\n", "[]").await;
    let web =
        Instance::start(web::Config { hosts: vec!["stack.example".to_owned()], ..config(Vec::new()) }).await;
    web.registry.announce(Identity::new("app", "app-1").at(&origin.url)).set_health(Health::Ready);
    let _ = web.registry.announce(Identity::new("console", "console-1").at("http://127.0.0.1:7070"));
    let page = web.get("/", &[("accept", "text/html"), ("host", "stack.example:8080")]).await;
    assert_eq!(page.status, 200);
    for part in ["app-1", "console-1", "http://stack.example:8080/v1/jobs", "href=\"http://127.0.0.1:7070\""]
    {
        assert!(page.text().contains(part), "{part}");
    }
    assert!(
        page.field("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'sha256-")
    );
    // A page whose name was made to resolve to here must not read what runs.
    let rebound = web.get("/", &[("host", "evil.example")]).await;
    assert_eq!((rebound.status, rebound.text().contains("web.hosts")), (421, true));
    assert_eq!(web.get("/", &[("origin", "http://evil.example")]).await.status, 403);
    let json = web.get("/", &[]).await;
    assert_eq!(
        (json.json()["tiers"]["app"][0]["instance"].as_str(), json.field("vary")),
        (Some("app-1"), Some("accept"))
    );
    common::until("the app is found", async || web.get("/v1/jobs", &[]).await.text() == "[]").await;
    let mut client = Client::connect(&web.address).await;
    assert_eq!(client.request("POST", "/", &[], b"{}").await.text(), "[]", "only reading it is ours");
}

/// Design 9: the sites are changed, and no connection is touched: not one in the middle of a request either.
#[actix::test]
async fn the_sites_change_under_open_connections() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let origin = Origin::start(|_| vec![vec![], vec![], vec![], common::origin::whole("", b"slow")]).await;
    let web = Instance::start(with_origin(config(vec![proxy()]), &[&origin.url])).await;
    let (mut idle, mut busy) = (Client::connect(&web.address).await, Client::connect(&web.address).await);
    assert_eq!(idle.request("GET", "/page.txt", &[], b"").await.text(), "slow");
    let pending = busy.request("GET", "/page.txt", &[], b"");
    let change = async {
        common::until("it is under way", async || origin.seen().len() == 2).await;
        for n in 0..100 {
            let site = SiteConfig { cache_control: Some(format!("max-age={n}")), ..files(root.path()) };
            web::reload(&web.env, &config(vec![site])).unwrap();
        }
    };
    let (answer, ()) = futures_util::future::join(pending, change).await;
    assert_eq!(answer.text(), "slow", "it ends as it began");
    for client in [&mut idle, &mut busy] {
        let page = client.request("GET", "/page.txt", &[], b"").await;
        assert_eq!((page.text(), page.field("cache-control")), ("page", Some("max-age=99")));
    }
    let broken = web::SiteConfig { pool: Some("nowhere".to_owned()), ..SiteConfig::default() };
    web::reload(&web.env, &config(vec![broken])).unwrap_err();
    assert_eq!(idle.request("GET", "/page.txt", &[], b"").await.text(), "page", "what ran stays");
}
