//! What a path, an address and a field mean is one thing for every rule, in every spelling; what is passed on is what came.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::origin::Origin;
use common::{Instance, config, proxy, with_origin};
use web::{Config, NetworksConfig, RouteConfig, RuleConfig, SiteConfig};

/// A site that passes everything on, with a part that is for nobody who asks from here.
fn with_guarded_part(path: &str) -> SiteConfig {
    let networks = NetworksConfig { allow: vec!["10.0.0.0/8".parse().unwrap()], deny: Vec::new() };
    let route = RouteConfig {
        path: path.to_owned(),
        pool: Some("origin".to_owned()),
        networks,
        ..RouteConfig::default()
    };
    SiteConfig { routes: vec![route], ..proxy() }
}

fn target_of(seen: &str) -> String {
    seen.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// `/ADMIN/x`, `/admin;a/x` and `/admin%5cx` reached the server behind a rule for `/admin`.
#[actix::test]
async fn a_guarded_part_is_reached_by_no_spelling_that_the_origin_may_fold() {
    let origin = Origin::saying("", "secret").await;
    let web = Instance::start(with_origin(config(vec![with_guarded_part("/admin")]), &[&origin.url])).await;
    for path in [
        "/admin",
        "/admin/x",
        "/ADMIN/x",
        "/Admin",
        "/admin;a/x",
        "/admin;/x",
        "/;a/admin",
        "/admin%5cx",
        "/admin\\x",
        "//admin",
        "/%61dmin",
        "/%2561dmin",
        "/admin.",
        "/admin%20",
        "/admin%20/x",
        "/admin%2fx",
        "/%c1%a1dmin",
        "/admin%c0%afx",
        "/admin%252fx",
        "/%EF%BD%81dmin",
        "/adm%49n",
    ] {
        assert_eq!(web.get(path, &[]).await.status, 403, "{path}");
        let inside = web.get(path, &[("x-forwarded-for", "10.1.2.3")]).await.status;
        assert_eq!(inside, 200, "{path} is not refused to those who may");
        let passed_on = origin.seen().pop().unwrap();
        assert_eq!(target_of(&passed_on), path, "and passed on as it came");
    }
    let before = origin.seen().len();
    for path in [
        "/admin/./x",
        "/x/../admin",
        "/x/..;/admin",
        "/x/%252e%252e/admin",
        "/x/..%20/admin",
        "/admin%00",
        "/admin%2500",
        "/x/%c0%ae%c0%ae/admin",
        "/x/.;a/admin",
        "/%252525252561dmin",
    ] {
        assert_eq!(web.get(path, &[("x-forwarded-for", "10.1.2.3")]).await.status, 400, "{path}");
    }
    assert_eq!(origin.seen().len(), before);
    for path in ["/admins", "/Public;v=1/x", "/a%252fb", "/caf%E9", "/%20"] {
        assert_eq!(web.get(path, &[]).await.status, 200, "{path} is another part");
    }
}

/// Where no part is guarded nothing depends on spellings.
#[actix::test]
async fn a_site_without_guarded_parts_takes_every_spelling() {
    let origin = Origin::saying("", "page").await;
    let web = Instance::start(with_origin(config(vec![proxy()]), &[&origin.url])).await;
    for path in ["/x/..;/admin", "/x/%252e%252e/y", "/ADMIN", "/a%2500", "/%252525252561dmin", "/caf%C0%AE"] {
        assert_eq!(web.get(path, &[]).await.status, 200, "{path}");
        assert_eq!(target_of(&origin.seen().pop().unwrap()), path);
    }
}

/// A package named `@scope%2Fname` was asked for as `@scope/name`, and `%2B` as `+`.
#[actix::test]
async fn targets_go_on_as_they_came() {
    let origin = Origin::saying("", "page").await;
    let route = RouteConfig {
        path: "/api".to_owned(),
        pool: Some("origin".to_owned()),
        strip: true,
        ..RouteConfig::default()
    };
    let rule = |from: &str, to: &str| RuleConfig { from: from.to_owned(), to: to.to_owned(), status: None };
    let site = SiteConfig {
        routes: vec![route],
        rewrites: vec![rule("/v1/{rest*}", "/v2/{rest}"), rule("/short/{id}", "/api/by/{id}")],
        redirects: vec![rule("/old/{rest*}", "/new/{rest}"), rule("/away/{id}", "https://{host}/{id}")],
        ..proxy()
    };
    let web = Instance::start(with_origin(config(vec![site]), &[&origin.url])).await;
    const ODD: &str = "@s%2Fn%2B+%26&%20//x%3B;y=%2f?q=%2F%2B+&r=//";
    for (asked, passed_on) in [
        (format!("/{ODD}"), format!("/{ODD}")),
        (format!("//{ODD}"), format!("//{ODD}")),
        (format!("/api/{ODD}"), format!("/{ODD}")),
        (format!("/%61pi//{ODD}"), format!("//{ODD}")),
        (format!("/v1/{ODD}"), format!("/v2/{ODD}")),
        ("/short/a%2Bb%26".to_owned(), "/by/a%2Bb%26".to_owned()),
    ] {
        assert_eq!(web.get(&asked, &[]).await.status, 200, "{asked}");
        assert_eq!(target_of(&origin.seen().pop().unwrap()), passed_on, "{asked}");
    }
    for (asked, location) in [
        (format!("/old/{ODD}"), format!("/new/{ODD}")),
        (format!("/%6Fld//{ODD}"), format!("/new//{ODD}")),
        ("/away/a%2Bb".to_owned(), "https://localhost/a%2Bb".to_owned()),
    ] {
        assert_eq!(web.get(&asked, &[]).await.field("location"), Some(location.as_str()), "{asked}");
    }
    let only = with_origin(config(vec![SiteConfig { https_only: true, ..proxy() }]), &[&origin.url]);
    let only = Instance::start(only).await;
    let moved = only.get(&format!("//{ODD}"), &[]).await;
    assert_eq!(moved.field("location"), Some(format!("https://localhost//{ODD}").as_str()));
}

/// `X-Forwarded-For: 10.1.2.3:5555` and `Forwarded: for=10.1.2.3` were read as something else by one rule or the other.
#[actix::test]
async fn an_address_is_one_in_every_form() {
    let origin = Origin::saying("", "inside").await;
    let mut site = with_guarded_part("/in");
    site.routes[0].networks.allow.push("2001:db8::/32".parse().unwrap());
    let web = Instance::start(with_origin(config(vec![site]), &[&origin.url])).await;
    for (name, value, status) in [
        ("x-forwarded-for", "10.1.2.3:5555", 200),
        ("x-forwarded-for", "::ffff:10.1.2.3", 200),
        ("x-forwarded-for", "[2001:db8::1]:443", 200),
        ("forwarded", "for=10.1.2.3", 200),
        ("forwarded", "for=\"10.1.2.3:80\";proto=https", 200),
        ("forwarded", "proto=http;For=\"[2001:db8::1]:47\"", 200),
        ("forwarded", "for=10.1.2.3, for=192.0.2.1", 403),
        ("x-forwarded-for", "192.0.2.1:10", 403),
        ("x-forwarded-for", "10.1.2.3, unknown", 403),
        ("x-forwarded-for", "10.1.2.3.4", 403),
        ("forwarded", "for=_hidden", 403),
        ("forwarded", "for=\"10.1.2.3", 403),
    ] {
        assert_eq!(web.get("/in", &[(name, value)]).await.status, status, "{name}: {value}");
    }
    let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=10.1.2.3")];
    assert_eq!(web.get("/in", &both).await.status, 403, "what most proxies write counts");
    let denying = SiteConfig {
        networks: NetworksConfig { allow: Vec::new(), deny: vec!["192.0.2.0/24".parse().unwrap()] },
        ..proxy()
    };
    let web = Instance::start(with_origin(config(vec![denying]), &[&origin.url])).await;
    assert_eq!(
        web.get("/", &[("x-forwarded-for", "unknown")]).await.status,
        403,
        "it may be of those denied"
    );
}

/// Frameworks that obey these fields answer for another target or method than the one that rules were asked about.
#[actix::test]
async fn fields_that_override_the_target_or_method_reach_pools_only_where_a_site_says_so() {
    let fields = [
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-Host", "evil.example"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
    ];
    let folded =
        [("X_Original_URL", "/admin"), ("X.HTTP.Method.Override", "DELETE"), ("X_Forwarded_Prefix", "/a")];
    for (overrides, trusting) in [(false, true), (false, false), (true, true), (true, false)] {
        let origin = Origin::saying("", "app").await;
        let site = SiteConfig { overrides, ..proxy() };
        let mut config = with_origin(config(vec![site]), &[&origin.url]);
        if !trusting {
            config = Config { trusted_proxies: Vec::new(), ..config };
        }
        let web = Instance::start(config).await;
        for coding in [&[][..], &[("accept-encoding", "br")]] {
            assert_eq!(web.get("/", &[coding, &fields, &folded].concat()).await.status, 200);
            let seen = origin.seen().pop().unwrap().to_ascii_lowercase();
            for (name, _) in fields {
                let of_the_target = !name.contains("Method");
                let passes = overrides && (trusting || !of_the_target);
                assert_eq!(
                    seen.contains(&format!("\n{}:", name.to_ascii_lowercase())),
                    passes,
                    "{name}: {seen}"
                );
            }
            assert!(
                !seen.contains("original_") && !seen.contains("x.http") && !seen.contains("_prefix"),
                "{seen}"
            );
        }
    }
}
