//! Pages of somebody else's in the user's browser: none reaches a route of ours, whichever tier has it.
//!
//! The routes are read from the tables that the tiers are routed by, so a new one is asked too.

use teststack::{Http, TestStack};

use super::address_of;

/// A route of the running stack.
struct Route {
    at: String,
    method: String,
    path: String,
}

/// Every route of every tier, at each address that it is reached by.
async fn routes(stack: &TestStack) -> Vec<Route> {
    let replica =
        |instance: &'static str| async move { format!("http://{}", address_of(stack, instance).await) };
    let of = |at: &str, method: &str, path: &str| Route {
        at: at.to_owned(),
        method: method.to_owned(),
        path: path
            .split('/')
            .map(|part| if part.starts_with('{') { "1" } else { part })
            .collect::<Vec<_>>()
            .join("/"),
    };
    let (app, front) = (replica("app-1").await, &stack.fronts[0]);
    let mut routes = Vec::new();
    for route in app::ROUTES {
        routes.push(of(&app, route.method.as_str(), route.path));
        routes.push(of(front, route.method.as_str(), route.path));
    }
    for entry in console::ROUTES {
        routes.extend(entry.operations.iter().map(|it| of(&stack.console, it.method, entry.path)));
    }
    for at in [stack.databases[0].clone(), replica("database-2").await, replica("database-1-jobs").await] {
        routes.extend(database::ROUTES.iter().map(|route| of(&at, route.method, route.path)));
    }
    for (method, path) in edge::ADMIN_ROUTES {
        routes.push(of(front, method, &format!("{}{path}", edge::ADMIN_PREFIX)));
    }
    for at in [&app, &stack.console, &stack.databases[0]] {
        routes.push(of(at, "POST", "/there/is/no/such/route"));
    }
    routes
}

async fn status(route: &Route, fields: &[(&str, &str)]) -> u16 {
    let named = fields.iter().any(|(name, _)| *name == "host");
    let host = route.at.trim_start_matches("http://");
    let fields: Vec<_> = if named { fields.to_vec() } else { [&[("host", host)], fields].concat() };
    Http::new(&route.at).raw(&route.method, &route.path, &fields).await.expect("an answer").status
}

/// A page of another origin had posted a form to `/v1/queues/default:pause`; by DNS rebinding the jobs, the database, purges
/// and everything that the operating API reads were open to any page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_of_somebody_else_reaches_any_route() {
    let stack = TestStack::one_process().start().await;
    let routes = routes(&stack).await;
    assert!(routes.len() > 100, "{} routes", routes.len());
    for route in &routes {
        let what = format!("{} {}{}", route.method, route.at, route.path);
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"] {
            assert_eq!(status(route, &[("host", host)]).await, 421, "{what}, host {host}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
            assert_eq!(status(route, &[("origin", origin)]).await, 403, "{what}, origin {origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(status(route, &[("sec-fetch-site", site)]).await, 403, "{what}, fetched {site}");
        }
        if !matches!(route.method.as_str(), "GET" | "HEAD") {
            for media in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
                assert_eq!(status(route, &[("content-type", media)]).await, 415, "{what}, {media}");
            }
        }
    }
}

/// What a program or a page of ours sends reaches the routes, through the front door too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_pages_of_ours_and_links_go_on() {
    let site = "[[web.sites]]\nhosts = [\"shop.example\", \"*.shop.example\"]\npool = \"app\"\n[[web.sites]]\npool = \"app\"\n";
    let more = "[database]\nhosts = [\"db.example\"]\npage_origins = [\"https://admin.example\"]\n";
    let stack = TestStack::one_process().config(site).config(more).start().await;
    let (front, database) = (stack.fronts[0].clone(), stack.databases[0].clone());
    let at = |at: &str, method: &str, path: &str| Route {
        at: at.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
    };
    let jobs = at(&front, "GET", "/v1/jobs");
    for host in ["shop.example", "www.shop.example:8080", "localhost", "standfast", "[::1]:80"] {
        assert_eq!(status(&jobs, &[("host", host)]).await, 200, "{host}");
    }
    assert_eq!(status(&jobs, &[("host", "other.example")]).await, 421);
    let pause = at(&front, "POST", "/v1/queues/default:pause");
    let page =
        [("host", "shop.example"), ("origin", "https://shop.example"), ("sec-fetch-site", "same-origin")];
    assert_eq!(status(&pause, &page).await, 200, "a page of the site; TLS ends before us");
    assert_eq!(status(&at(&front, "POST", "/v1/queues/default:resume"), &[]).await, 200, "curl");
    let nodes = at(&database, "GET", "/nodes");
    assert_eq!(status(&nodes, &[("host", "db.example:4001")]).await, 200);
    let listed = [("origin", "https://admin.example"), ("sec-fetch-site", "cross-site")];
    assert_eq!(status(&nodes, &listed).await, 200);
    let followed =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(status(&at(&stack.console, "GET", "/"), &followed).await, 200, "a link from elsewhere");
}
