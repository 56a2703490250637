//! Requests over real sockets to members that fail in every way.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashMap;

use balancer::{Config, PoolConfig, RouteConfig, StickyConfig};
use http_support::gateway::{ClientTls, FetchRequest, Origin, Protocol, Roots, Timeouts, fetch};
use messages::service::Health;
use support::{Client, Does, Member, Stack, config, quick, run, until};

fn members() -> [Member; 3] {
    ["a", "b", "c"].map(Member::start)
}

fn of(members: &[Member]) -> Vec<&Member> {
    members.iter().collect()
}

/// Who answered `requests` requests on one connection; each must be 200.
async fn who(stack: &Stack, requests: usize) -> HashMap<String, usize> {
    let mut client = Client::connect(stack.address()).await;
    let mut by = HashMap::new();
    for _ in 0..requests {
        *by.entry(client.get("/").await.expect(200).body).or_insert(0) += 1;
    }
    by
}

fn round_robin(members: &[Member]) -> Config {
    let mut config = config(&of(members));
    config.pool.algorithm = balancer::Algorithm::RoundRobin;
    config
}

#[test]
fn turns_are_taken_and_weights_heeded() {
    run(async {
        let members = members();
        let mut config = round_robin(&members);
        let stack = Stack::start(config.clone()).await;
        assert_eq!(who(&stack, 30).await, HashMap::from(["a", "b", "c"].map(|name| (name.to_owned(), 10))));
        config.pool.members[1].weight = 200;
        stack.reconfigure(config).unwrap();
        until("the new weights are in force", async || {
            who(&stack, 40).await
                == HashMap::from([("a", 10), ("b", 20), ("c", 10)].map(|(n, k)| (n.to_owned(), k)))
        })
        .await;
    });
}

#[test]
fn a_killed_member_costs_no_request_and_is_used_again_when_it_is_back() {
    run(async {
        let members = members();
        let stack = Stack::start(round_robin(&members)).await;
        who(&stack, 9).await; // each has pooled connections now
        members[1].kill();
        let by = who(&stack, 60).await;
        assert_eq!(by.get("b"), None, "{by:?}");
        let ejected = format!("{} ejected", members[1].id());
        until("it is ejected", async || {
            who(&stack, 5).await;
            stack.states().contains(&ejected)
        })
        .await;
        members[1].revive();
        until("it is back", async || who(&stack, 10).await.contains_key("b")).await;
    });
}

/// It may be at work on what it was sent: nobody else is asked for the same, and it is left out after that.
#[test]
fn a_member_that_hangs_costs_those_it_had_their_time_limit_and_no_others() {
    run(async {
        let members = members();
        let mut config = round_robin(&members);
        config.pool.timeouts.first_byte_ms = 200;
        config.pool.eject.consecutive = 2;
        config.pool.eject.base_ms = 60_000;
        let stack = Stack::start(config).await;
        members[2].does(Does::Hangs);
        let mut late = 0;
        for _ in 0..30 {
            match stack.get("/").await.status {
                200 => {}
                504 => late += 1,
                status => panic!("{status}"),
            }
        }
        assert!((2..=4).contains(&late), "then it was ejected: {late}");
        let asked: usize = members.iter().map(Member::requests).sum();
        assert_eq!((members[2].requests(), asked), (late, 30), "each request was sent once");
    });
}

/// RFC 9110 section 9.2.2: what may have been acted upon is not sent again unless its method is idempotent.
#[test]
fn a_post_is_sent_again_only_if_it_was_never_sent() {
    run(async {
        let members = members();
        let mut config = round_robin(&members);
        config.pool.eject.consecutive = 0;
        config.pool.eject.failure_percent = 0;
        let stack = Stack::start(config).await;
        members[0].kill(); // refuses: nothing was sent
        members[1].does(Does::Resets); // takes the request, and says nothing
        let mut outcomes = HashMap::new();
        for n in 0..30 {
            let body = format!("order {n}");
            let answer = Client::connect(stack.address()).await.post(&body).await;
            *outcomes.entry(answer.status).or_insert(0) += 1;
        }
        assert_eq!(outcomes.keys().copied().collect::<std::collections::BTreeSet<_>>(), [200, 502].into());
        let mut taken: Vec<_> = members.iter().flat_map(Member::bodies).collect();
        let all = taken.len();
        taken.sort();
        taken.dedup();
        assert_eq!((taken.len(), all), (30, 30), "each order reached one member, once");
        assert_eq!(outcomes[&502], members[1].requests());
    });
}

#[test]
fn garbage_resets_and_wrong_statuses_count_and_a_500_does_not() {
    run(async {
        for (does, ejected) in [
            (Does::Resets, true),
            (Does::Garbage, true),
            (Does::Status(502), true),
            (Does::Status(504), true),
            (Does::Refuses(1), true),
            (Does::Status(500), false),
            (Does::Status(404), false),
        ] {
            let members = [Member::start("a"), Member::start("b")];
            let mut config = round_robin(&members);
            config.pool.eject.base_ms = 60_000;
            let stack = Stack::start(config).await;
            members[0].does(does);
            let mut client = Client::connect(stack.address()).await;
            for _ in 0..30 {
                client.get("/").await;
            }
            let state = if ejected { "ejected" } else { "usable" };
            let expected = format!("{} {state}", members[0].id());
            until(&format!("{does:?} → {expected}"), async || stack.states().contains(&expected)).await;
        }
    });
}

/// A 503 is an answer, and the application is asked once, also where there is another member.
#[test]
fn an_application_s_503_is_passed_on_and_asked_for_once() {
    run(async {
        let members = [Member::start("a"), Member::start("b")];
        let stack = Stack::start(round_robin(&members)).await;
        members.iter().for_each(|member| member.does(Does::Refuses(7)));
        stack.get("/").await.expect(503);
        let asked: usize = members.iter().map(Member::requests).sum();
        assert_eq!(asked, 1);
    });
}

/// Where the operator says so: the other member is asked instead, and the client never sees the 503; where there is no other it does.
#[test]
fn a_503_goes_to_another_member_and_the_last_one_s_is_passed_on() {
    run(async {
        let members = [Member::start("a"), Member::start("b")];
        let mut config = round_robin(&members);
        config.pool.retry.on_503 = true;
        config.pool.eject.consecutive = 0;
        config.pool.eject.failure_percent = 0;
        let stack = Stack::start(config).await;
        members[0].does(Does::Refuses(7));
        let by = who(&stack, 20).await;
        assert_eq!(by["b"], 20);
        assert!(members[0].requests() >= 5, "it was asked");
        members[1].does(Does::Refuses(7));
        let answer = stack.get("/").await.expect(503);
        assert_eq!(answer.header("retry-after"), Some("7"), "{answer:?}");
        let post = Client::connect(stack.address()).await.post("x").await.expect(503);
        assert_eq!(post.header("retry-after"), Some("7"), "a POST is not sent again: its 503 is the answer");
    });
}

/// A budget over a time window: with everything down retries stay a share of the requests.
#[test]
fn retries_do_not_multiply_an_outage() {
    run(async {
        let members = members();
        let mut config = round_robin(&members);
        config.pool.retry.budget_min = 10;
        config.pool.retry.budget_percent = 20;
        config.pool.retry.window_ms = 600_000;
        config.pool.eject.consecutive = 0;
        config.pool.eject.failure_percent = 0;
        let stack = Stack::start(config).await;
        members.iter().for_each(|member| member.does(Does::Resets));
        for _ in 0..100 {
            stack.get("/").await.expect(502);
        }
        let asked: usize = members.iter().map(Member::requests).sum();
        assert_eq!(asked, 100 + 10 + 20, "the requests, the reserve, and 20 percent");
    });
}

#[test]
fn a_slow_member_gets_less_under_ewma() {
    run(async {
        let members = members();
        let mut config = config(&of(&members));
        config.pool.algorithm = balancer::Algorithm::Ewma;
        let stack = Stack::start(config).await;
        members[0].does(Does::Slowly(100));
        who(&stack, 20).await; // by now it was asked
        let before = members[0].requests();
        who(&stack, 100).await;
        let slow = members[0].requests() - before;
        assert!(slow < 10, "{slow} of 100 went to the member that takes a hundred times as long");
    });
}

#[test]
fn flapping_loses_nothing_that_may_be_repeated() {
    run(async {
        let members = members();
        let mut config = round_robin(&members);
        config.pool.eject.base_ms = 10;
        config.pool.retry.budget_percent = 100;
        let stack = Stack::start(config).await;
        let mut client = Client::connect(stack.address()).await;
        for round in 0..20 {
            members[round % 2].kill();
            for _ in 0..10 {
                client.get("/").await.expect(200);
            }
            members[round % 2].revive();
        }
    });
}

/// RFC 9112 section 8: a client must see that a response is cut short.
#[test]
fn a_response_that_is_cut_short_is_not_made_whole() {
    run(async {
        let member = Member::start("a");
        let stack = Stack::start(config(&[&member])).await;
        member.does(Does::CutsShort);
        let answer = Client::connect(stack.address()).await.try_get("/").await;
        assert!(answer.is_err(), "{answer:?}");
    });
}

#[test]
fn a_client_stays_with_its_member_and_the_member_never_sees_the_cookie() {
    run(async {
        let members = members();
        let mut config = round_robin(&members);
        config.pool.sticky = Some(StickyConfig::default());
        let stack = Stack::start(config).await;
        let first = stack.get("/").await.expect(200);
        let set = first.header("set-cookie").expect("it is set").to_owned();
        let member = members.iter().find(|member| member.name == first.body).unwrap();
        assert!(set.contains("httponly") && !set.contains(&member.id()), "{set}");
        // Header values keep their case only on the wire: read it again from there.
        let cookie = raw_cookie(&stack).await;
        let mine = Client::connect(stack.address()).await.with(&format!("Cookie: {cookie}\r\n")).await.body;
        for _ in 0..12 {
            let lines = format!("Cookie: a=1; {cookie}; b=2\r\n");
            let answer = Client::connect(stack.address()).await.with(&lines).await.expect(200);
            assert_eq!(answer.body, mine);
            assert_eq!(answer.header("set-cookie"), None, "it is good for long");
        }
        let member = members.iter().find(|member| member.name == mine).unwrap();
        let seen = member.heads().pop().unwrap();
        assert_eq!(support::client::value(&seen, "cookie"), Some("a=1; b=2"), "{seen}");
        let forged = Client::connect(stack.address()).await.with("Cookie: standfast-member=AAAA\r\n").await;
        assert!(forged.expect(200).header("set-cookie").is_some(), "one that is not ours is replaced");
        member.kill();
        let moved = Client::connect(stack.address()).await.with(&format!("Cookie: {cookie}\r\n")).await;
        assert!(moved.body != mine && moved.header("set-cookie").is_some(), "{moved:?}");
    });
}

/// `name=value` as the balancer sets it.
async fn raw_cookie(stack: &Stack) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut client = Client::connect(stack.address()).await;
    client.stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    client.stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).unwrap();
    line.split_once(':').unwrap().1.trim().split(';').next().unwrap().to_owned()
}

#[test]
fn routes_go_by_host_and_path() {
    run(async {
        let [app, api, images] = ["app", "api", "images"].map(Member::start);
        let route = |host: Option<&str>, path: Option<&str>, pool: &str| RouteConfig {
            host: host.map(str::to_owned),
            path: path.map(str::to_owned),
            pool: pool.to_owned(),
        };
        let mut config = config(&[&app]);
        for member in [&api, &images] {
            let pool = PoolConfig { members: vec![member.config()], ..quick() };
            config.pools.insert(member.name.to_owned(), pool);
        }
        config.routes = vec![route(Some("api.test"), None, "api"), route(None, Some("/images"), "images")];
        let stack = Stack::start(config).await;
        let mut client = Client::connect(stack.address()).await;
        for (host, path, to) in [
            ("test", "/", "app"),
            ("api.test", "/x", "api"),
            ("API.test:80", "/", "api"),
            ("test", "/images/1", "images"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(client.ask(&request).await.unwrap().body, to, "{host}{path}");
        }
    });
}

/// An upper tier starts and serves while the lower one is not there yet, and picks it up at once.
#[test]
fn members_come_from_discovery_web_before_app_and_drain_when_they_say_so() {
    run(async {
        let [app, web, other] = ["app", "web", "other"].map(Member::start);
        let stack = Stack::start(Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() }).await;
        stack.get("/").await.expect_unavailable("no-member");
        stack.announce("app", "app-1", app.address).set_health(Health::Ready);
        until("the app is found", async || stack.get("/").await.body == "app").await;
        let web_1 = stack.announce("web", "web-1", web.address);
        web_1.set_health(Health::Ready);
        until("web comes before it", async || stack.get("/").await.body == "web").await;
        web.does(Does::Slowly(300));
        let mut client = Client::connect(stack.address()).await;
        let in_flight = tokio::task::spawn(async move { client.get("/").await });
        until("it is in flight", async || stack.status().pools["default"].active == 1).await;
        stack.announce("web", "web-2", other.address).set_health(Health::Ready);
        web_1.set_health(Health::Draining);
        until("who drains gets nothing new", async || stack.get("/").await.body == "other").await;
        assert!((0..5).all(|_| web.requests() <= 3));
        assert_eq!(in_flight.await.unwrap().expect(200).body, "web", "what it has it finishes");
        let picture = stack.registry.of_tier("balancer");
        assert_eq!(picture[0].facts["pools"], "default 1/2", "one drains");
    });
}

/// RFC 7301, RFC 9113: TLS with HTTP/1.1 and HTTP/2, as the client asks; the members are reached over HTTP/1.1.
#[test]
fn tls_ends_at_the_balancer() {
    run(async {
        let member = Member::start("a");
        let mut config = config(&[&member]);
        config.tls_listen = Some(([127, 0, 0, 1], 0).into());
        let stack = Stack::start(config).await;
        let (address, certificate) = stack.tls();
        let client = ClientTls::new(&Roots::Files(vec![certificate])).unwrap();
        let origin = Origin::new(address, Protocol::Tls { name: "localhost".into(), client: client.into() });
        let request =
            FetchRequest { method: "GET", target: "/", host: "localhost", ..FetchRequest::default() };
        let mut answer = fetch(&origin, request, &Timeouts::default()).await.unwrap();
        assert_eq!(answer.head().status(), 200);
        assert_eq!(answer.chunk().await.unwrap().as_deref(), Some(&b"a"[..]));
        let seen = member.heads().pop().unwrap();
        assert_eq!(support::client::value(&seen, "x-forwarded-proto"), Some("https"), "{seen}");
    });
}

#[test]
fn a_member_may_be_named_by_host() {
    run(async {
        let member = Member::start("a");
        let mut config = config(&[&member]);
        let url = format!("http://localhost:{}", member.address.port());
        config.pool.members[0] = balancer::MemberUrl::try_from(url).unwrap().into();
        let stack = Stack::start(config).await;
        // `localhost` may be ::1 too, where nobody listens: each address is a member, and another one is tried.
        until("it is looked up", async || stack.get("/").await.status == 200).await;
        let members = &stack.status().pools["default"].members;
        assert!(members.iter().any(|it| it.address == member.address.to_string()), "{members:?}");
    });
}

/// The edge before it says who the client is; nobody else is believed.
#[test]
fn the_client_is_who_a_trusted_proxy_says() {
    run(async {
        let members = members();
        let mut config = config(&of(&members));
        config.pool.algorithm = balancer::Algorithm::IpHash;
        let ask = async |stack: &Stack, client: &str| {
            let lines = format!("X-Forwarded-For: {client}\r\n");
            Client::connect(stack.address()).await.with(&lines).await.expect(200).body
        };
        let stack = Stack::start(config.clone()).await;
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..40 {
            let client = format!("192.0.2.{n}");
            let member = ask(&stack, &client).await;
            assert_eq!(member, ask(&stack, &client).await, "a client stays");
            seen.insert(member);
        }
        assert_eq!(seen.len(), 3, "and they are spread");
        config.trusted = Vec::new();
        let stack = Stack::start(config).await;
        let first = ask(&stack, "192.0.2.1").await;
        for n in 0..20 {
            assert_eq!(first, ask(&stack, &format!("192.0.2.{n}")).await, "all come from one address");
        }
    });
}

#[test]
fn a_version_gets_its_share() {
    run(async {
        let members = [Member::start("old"), Member::start("new")];
        let mut config = config(&of(&members));
        config.pool.members[1].labels.insert("version".to_owned(), "2".to_owned());
        let canary = r#"{"value": "2", "percent": 25.0, "by": "request"}"#;
        config.pool.canary = serde_json::from_str(canary).ok();
        let stack = Stack::start(config).await;
        let by = who(&stack, 400).await;
        assert!((60..140).contains(&by["new"]), "{by:?}");
    });
}

#[test]
fn checks_take_a_member_out_before_a_request_finds_out() {
    run(async {
        let members = [Member::start("a"), Member::start("b")];
        let mut config = round_robin(&members);
        config.pool.check.kind = balancer::CheckKind::Http;
        config.pool.check.interval_ms = 100;
        let stack = Stack::start(config).await;
        members[0].does(Does::Status(500)); // no gateway failure: only a check sees it
        let failing = format!("{} failing", members[0].id());
        until("its checks fail", async || stack.states().contains(&failing)).await;
        let mut client = Client::connect(stack.address()).await;
        let mut all_good = async || {
            let mut statuses = Vec::new();
            for _ in 0..10 {
                statuses.push(client.get("/").await.status);
            }
            statuses == [200; 10]
        };
        until("nobody is sent there", async || all_good().await).await;
        members[0].does(Does::Answers);
        until("they pass", async || !stack.states().contains(&failing)).await;
        let heads = members[0].heads();
        assert!(
            heads.iter().any(|head| head.starts_with("get /healthz ") && head.contains("host: health-check"))
        );
    });
}

#[test]
fn a_full_pool_lets_a_few_wait_and_refuses_the_rest() {
    run(async {
        let member = Member::start("a");
        let mut config = config(&[&member]);
        config.pool.limit.requests_max = 1;
        config.pool.limit.waiting_max = 1;
        config.pool.limit.wait_ms = 60_000;
        let stack = Stack::start(config).await;
        member.does(Does::Hangs);
        let ask = || {
            let address = stack.address();
            tokio::task::spawn(async move { Client::connect(address).await.get("/").await })
        };
        let first = ask();
        until("the first is in flight", async || member.requests() == 1).await;
        let second = ask();
        until("the second waits", async || stack.status().pools["default"].waiting == 1).await;
        stack.get("/").await.expect_unavailable("full");
        member.does(Does::Answers); // ends the first, without an answer
        first.await.unwrap().expect(502);
        assert_eq!(second.await.unwrap().expect(200).body, "a");
    });
}
