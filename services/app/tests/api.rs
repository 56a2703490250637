//! Every status code of the jobs API, one test a route.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use messages::job::State;
use serde_json::json;
use support::{Stack, digest};

#[actix_web::test]
async fn a_job_is_stored_before_it_is_accepted() {
    let stack = Stack::start().await;
    let answer = stack.post("/v1/jobs", digest()).await.expect(202);
    let (job, id) = (answer.json(), answer.id());
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    assert_eq!(
        (job["state"].as_str(), job["queue"].as_str(), job["version"].as_u64()),
        (Some("available"), Some("default"), Some(1))
    );
    assert_eq!(stack.database.count("jobs"), 1);
    let got = stack.get(&format!("/v1/jobs/{id}")).await.expect(200).json();
    assert_eq!(got["payload"], json!({"text": "hello"}));
    for (member, value) in job.as_object().unwrap() {
        assert_eq!(&got[member], value, "{member}: the 202 says what is stored");
    }
    let later =
        json!({"kind": "digest", "delay_ms": 60_000, "tags": ["a", "b c"], "priority": 0, "queue": "mail"});
    let answer = stack.post("/v1/jobs", later).await.expect(202);
    assert_eq!(answer.json()["state"], "scheduled");
    let got = stack.get(answer.header("location")).await.expect(200).json();
    assert_eq!((&got["tags"], &got["run_at"]), (&json!(["a", "b c"]), &answer.json()["run_at"]));
    stack.stop().await;
}

#[actix_web::test]
async fn what_cannot_be_read_or_cannot_be_is_refused() {
    let stack = Stack::start().await;
    let raw = async |body: String| {
        let request = stack.client.post(stack.url("/v1/jobs")).header("content-type", "application/json");
        stack.send(request.body(body)).await
    };
    raw("{".into()).await.expect_problem(400, "malformed-json");
    raw(String::new()).await.expect_problem(400, "malformed-json");
    raw("\u{0}".into()).await.expect_problem(400, "malformed-json");
    raw(format!(r#"{{"kind":"digest","payload":{}1{}}}"#, "[".repeat(64), "]".repeat(64)))
        .await
        .expect_problem(400, "too-deep");
    raw(format!(r#"{{"kind":"digest","payload":{}1{}}}"#, "[".repeat(63), "]".repeat(63))).await.expect(202);
    raw(format!(r#"{{"kind":"digest","payload":"{}"}}"#, "x".repeat(1 << 20)))
        .await
        .expect_problem(413, "too-large");
    raw(format!(r#"{{"kind":"digest","payload":"{}"}}"#, "x".repeat((1 << 20) - 40))).await.expect(202);
    raw("[1]".into()).await.expect_problem(422, "invalid-request");
    raw(r#"{"payload":1}"#.into()).await.expect_problem(422, "invalid-request");
    let answer =
        raw(r#"{"kind":"digest","colour":"red"}"#.into()).await.expect_problem(422, "invalid-request");
    assert_eq!(answer.json()["field"], "colour");
    raw(r#"{"kind":"digest","key":"k"}"#.into()).await.expect_problem(501, "not-implemented");
    let form = stack.client.post(stack.url("/v1/jobs")).body(r#"{"kind":"digest"}"#);
    stack.send(form).await.expect_problem(415, "unsupported-media-type");
    assert_eq!(stack.database.count("jobs"), 2);
    stack.stop().await;
}

#[actix_web::test]
async fn a_kind_that_no_runner_knows_is_refused_while_one_is_alive() {
    let stack = Stack::start().await;
    stack.post("/v1/jobs", json!({"kind": "digset"})).await.expect(202); // nobody is there to say no
    let runner = stack.announce_runner("jobs-1", "digest,thumbnail");
    let answer = stack.post("/v1/jobs", json!({"kind": "digset"})).await.expect_problem(422, "unknown-kind");
    assert_eq!(answer.json()["kinds"], json!(["digest", "thumbnail"]));
    stack.post("/v1/jobs", json!({"kind": "thumbnail"})).await.expect(202);
    drop(tokio::time::timeout(std::time::Duration::from_millis(200), runner.goodbye()).await);
    let _other = stack.announce_runner("jobs-2", "digest");
    stack.post("/v1/jobs", json!({"kind": "thumbnail"})).await.expect(202); // its runner restarts, the kind stays known
    stack.stop().await;
}

#[actix_web::test]
async fn ids_that_are_none_are_400_and_unknown_ones_404() {
    let stack = Stack::start().await;
    let nobody = "0190b6a1-7c1e-7d3a-9f10-2c4d5e6f7a8b";
    for what in ["", "/attempts", "/why", "/events"] {
        for bad in [
            "1",
            "x",
            "0190b6a17c1e7d3a9f102c4d5e6f7a8b",
            "%7B0190b6a1-7c1e-7d3a-9f10-2c4d5e6f7a8b%7D",
            "..%2f",
        ] {
            stack.get(&format!("/v1/jobs/{bad}{what}")).await.expect_problem(400, "invalid-id");
        }
        stack.get(&format!("/v1/jobs/{nobody}{what}")).await.expect_problem(404, "not-found");
    }
    for verb in ["cancel", "retry", "replay"] {
        stack.act(&format!("/v1/jobs/1:{verb}")).await.expect_problem(400, "invalid-id");
        stack.act(&format!("/v1/jobs/{nobody}:{verb}")).await.expect_problem(404, "not-found");
    }
    stack.stop().await;
}

#[actix_web::test]
async fn routes_have_their_methods_and_reserved_paths_are_501() {
    let stack = Stack::start().await;
    for route in app::ROUTES {
        let path = route
            .path
            .replace("{id}", "0190b6a1-7c1e-7d3a-9f10-2c4d5e6f7a8b")
            .replace("{queue}", "q")
            .replace("{token}", "t");
        let request = stack.client.request(route.method.as_str().parse().unwrap(), stack.url(&path));
        let answer = stack.send(request).await;
        assert_ne!(answer.status, 405, "{} {}", route.method, route.path);
        assert_eq!(answer.status == 501, route.is_reserved(), "{} {}", route.method, route.path);
        if answer.status >= 400 {
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
        let trace = stack.client.request("TRACE".parse().unwrap(), stack.url(&path));
        let answer = stack.send(trace).await.expect_problem(405, "method-not-allowed");
        assert!(answer.header("allow").contains(route.method.as_str()));
    }
    stack.get("/v1/nothing").await.expect_problem(404, "not-found");
    let head = stack.send(stack.client.head(stack.url("/v1/jobs"))).await.expect(200);
    assert_eq!(head.text, "");
    stack.stop().await;
}

#[actix_web::test]
async fn an_etag_saves_the_body() {
    let stack = Stack::start().await;
    let path = format!("/v1/jobs/{}", stack.submit().await);
    let etag = stack.get(&path).await.expect(200).header("etag").to_owned();
    assert_eq!(etag, "\"1\"");
    for known in [etag.as_str(), "\"0\", W/\"1\"", "*"] {
        let answer = stack.get_with(&path, &[("if-none-match", known)]).await.expect(304);
        assert_eq!((answer.text.as_str(), answer.header("etag")), ("", etag.as_str()));
    }
    stack.get_with(&path, &[("if-none-match", "\"2\"")]).await.expect(200);
    stack.stop().await;
}

#[actix_web::test]
async fn listings_are_filtered_and_go_on_where_they_stopped() {
    let stack = Stack::start().await;
    for n in 0..7 {
        let queue = if n % 2 == 0 { "even" } else { "odd" };
        stack
            .post("/v1/jobs", json!({"kind": "digest", "queue": queue, "tags": [format!("n{n}")]}))
            .await
            .expect(202);
    }
    let count = async |path: &str| stack.get(path).await.expect(200).json()["jobs"].as_array().unwrap().len();
    assert_eq!(count("/v1/jobs").await, 7);
    assert_eq!(count("/v1/jobs?queue=even").await, 4);
    assert_eq!(count("/v1/jobs?tag=n3").await, 1);
    assert_eq!(count("/v1/jobs?state=completed").await, 0);
    assert_eq!(count("/v1/jobs?state=available&kind=digest&queue=odd").await, 3);
    let (mut seen, mut path) = (Vec::new(), "/v1/jobs?queue=even&limit=3".to_owned());
    loop {
        let page = stack.get(&path).await.expect(200);
        seen.extend(
            page.json()["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page.json()["next"].as_str().map(str::to_owned) else { break };
        let link = page.header("link").to_owned();
        path = format!("/v1/jobs?queue=even&limit=3&cursor={cursor}");
        assert_eq!(link, format!("<{path}>; rel=\"next\""));
        stack.get(&format!("/v1/jobs?queue=odd&cursor={cursor}")).await.expect_problem(400, "invalid-cursor");
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    sorted.reverse();
    assert_eq!((seen.len(), &seen), (4, &sorted), "newest first, each once");
    for bad in ["limit=0", "limit=501", "limit=x", "state=done", "colour=red", "queue=a&queue=b"] {
        stack.get(&format!("/v1/jobs?{bad}")).await.expect_problem(400, "invalid-query");
    }
    for made_up in ["x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "%00", ""] {
        stack.get(&format!("/v1/jobs?cursor={made_up}")).await.expect_problem(400, "invalid-cursor");
    }
    stack.stop().await;
}

#[actix_web::test]
async fn jobs_are_cancelled_retried_and_replayed() {
    let stack = Stack::start().await;
    let waiting = stack.submit().await;
    assert_eq!(
        stack.act(&format!("/v1/jobs/{waiting}:cancel")).await.expect(200).json()["state"],
        "cancelled"
    );
    stack.act(&format!("/v1/jobs/{waiting}:cancel")).await.expect(200); // asking twice is as asking once
    let answer = stack.act(&format!("/v1/jobs/{waiting}:retry")).await.expect(200);
    assert_eq!(answer.json()["state"], "available");
    let running = stack.submit().await;
    stack.set_state(running, State::Running, true).await;
    let mut cancels = stack.bus.subscribe("jobs.cancel.*", 10).await.unwrap();
    assert_eq!(
        stack.act(&format!("/v1/jobs/{running}:cancel")).await.expect(202).json()["cancel_requested"],
        true
    );
    match cancels.next().await {
        bus::Event::Message { topic, .. } => assert_eq!(topic, format!("jobs.cancel.{running}")),
        other => panic!("{other:?}"),
    }
    stack.act(&format!("/v1/jobs/{running}:retry")).await.expect_problem(409, "wrong-state");
    stack.act(&format!("/v1/jobs/{running}:replay")).await.expect_problem(409, "wrong-state");
    stack.set_state(running, State::Completed, true).await;
    let answer = stack.act(&format!("/v1/jobs/{running}:cancel")).await.expect_problem(409, "wrong-state");
    assert_eq!(answer.json()["state"], "completed");
    let replayed = stack.act(&format!("/v1/jobs/{running}:replay")).await.expect(200).json();
    assert_eq!((&replayed["state"], &replayed["attempt"]), (&json!("available"), &json!(0)));
    stack.stop().await;
}

#[actix_web::test]
async fn attempts_and_why_tell_where_a_job_is() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    assert_eq!(
        stack.get(&format!("/v1/jobs/{id}/attempts")).await.expect(200).json(),
        json!({"attempts": []})
    );
    let why = stack.get(&format!("/v1/jobs/{id}/why")).await.expect(200).json();
    assert_eq!((&why["waiting_for"], &why["runners"]), (&json!("worker"), &json!(0)));
    stack.act("/v1/queues/default:pause").await.expect(200);
    assert_eq!(stack.get(&format!("/v1/jobs/{id}/why")).await.expect(200).json()["waiting_for"], "resume");
    stack.set_state(id, State::Completed, true).await;
    assert_eq!(stack.get(&format!("/v1/jobs/{id}/why")).await.expect(200).json()["waiting_for"], "nothing");
    let attempts = stack.get(&format!("/v1/jobs/{id}/attempts")).await.expect(200).json();
    assert_eq!(attempts["attempts"][0]["outcome"], "completed");
    stack.stop().await;
}

#[actix_web::test]
async fn queues_are_set_changed_paused_and_forgotten() {
    let stack = Stack::start().await;
    let change = async |method: &str, body: serde_json::Value| {
        let request = stack.client.request(method.parse().unwrap(), stack.url("/v1/queues/mail"));
        stack.send(request.json(&body)).await
    };
    let list = stack.get("/v1/queues").await.expect(200).json();
    assert_eq!((&list["queues"][0]["name"], &list["queues"][1]), (&json!("default"), &json!(null)));
    let fresh = stack.get("/v1/queues/mail").await.expect(200).json();
    assert_eq!((&fresh["paused"], &fresh["concurrency"]), (&json!(false), &json!(null)));
    let put = change("PUT", json!({"concurrency": 3, "backlog_max": 5})).await.expect(200).json();
    assert_eq!(
        (&put["concurrency"], &put["backlog_max"], &put["paused"]),
        (&json!(3), &json!(5), &json!(false))
    );
    let patched = change("PATCH", json!({"paused": true, "backlog_max": null})).await.expect(200).json();
    assert_eq!(
        (&patched["concurrency"], &patched["backlog_max"], &patched["paused"]),
        (&json!(3), &json!(null), &json!(true))
    );
    assert_eq!(stack.act("/v1/queues/mail:resume").await.expect(200).json()["paused"], false);
    for bad in [
        json!({"concurrency": 0}),
        json!({"concurrency": -1}),
        json!({"concurrency": 4_294_967_296_u64}),
        json!({"backlog_max": u64::MAX}),
        json!({"backlog_max": 1_u64 << 53}),
        json!({"backlog_max": 0}),
        json!({"color": 1}),
        json!({"paused": "yes"}),
    ] {
        change("PATCH", bad).await.expect_problem(422, "invalid-request");
    }
    stack.submit().await;
    let list = stack.get("/v1/queues").await.expect(200).json();
    let names: Vec<_> =
        list["queues"].as_array().unwrap().iter().map(|q| q["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "mail"]);
    assert_eq!(list["queues"][0]["jobs"]["available"], 1);
    let delete = async || stack.send(stack.client.delete(stack.url("/v1/queues/mail"))).await;
    delete().await.expect(204);
    delete().await.expect_problem(404, "not-found");
    stack.get("/v1/queues/Mail").await.expect_problem(400, "invalid-name");
    stack.stop().await;
}

/// The list of queues was one answer, and more names than it holds were a 500; now it is read by page.
#[actix_web::test]
async fn queues_are_listed_by_page() {
    let stack = Stack::start().await;
    for queue in ["a", "b", "c"] {
        stack.post("/v1/jobs", json!({"kind": "noop", "queue": queue})).await.expect(202);
    }
    let (mut names, mut path) = (Vec::new(), "/v1/queues?limit=2".to_owned());
    loop {
        let page = stack.get(&path).await.expect(200).json();
        let queues = page["queues"].as_array().unwrap();
        names.extend(queues.iter().map(|q| q["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/queues?limit=2&cursor={next}");
    }
    assert_eq!(names, ["a", "b", "c", "default"]);
    for bad in ["limit=0", "limit=501", "limit=x"] {
        stack.get(&format!("/v1/queues?{bad}")).await.expect_problem(400, "invalid-query");
    }
    stack.stop().await;
}

#[actix_web::test]
async fn dead_jobs_are_listed_and_redriven() {
    let stack = Stack::start().await;
    for _ in 0..3 {
        let id = stack.submit().await;
        stack.set_state(id, State::Discarded, true).await;
    }
    let dead = stack.get("/v1/queues/default/dead?limit=2").await.expect(200).json();
    assert_eq!(dead["jobs"].as_array().unwrap().len(), 2);
    let rest = stack
        .get(&format!("/v1/queues/default/dead?limit=2&cursor={}", dead["next"].as_str().unwrap()))
        .await;
    assert_eq!(rest.expect(200).json()["jobs"].as_array().unwrap().len(), 1);
    let redriven =
        stack.post("/v1/queues/default/dead:redrive", json!({"limit": 2})).await.expect(200).json();
    assert_eq!((&redriven["redriven"], &redriven["more"]), (&json!(2), &json!(true)));
    let redriven = stack.act("/v1/queues/default/dead:redrive").await.expect(200).json();
    assert_eq!((&redriven["redriven"], &redriven["more"]), (&json!(1), &json!(false)));
    stack
        .post("/v1/queues/default/dead:redrive", json!({"limit": 0}))
        .await
        .expect_problem(422, "invalid-request");
    stack.stop().await;
}

#[actix_web::test]
async fn a_full_queue_is_429_and_opens_again() {
    let stack = Stack::with(|config| config.backlog_refresh_ms = 100).await;
    let put = stack.client.put(stack.url("/v1/queues/default")).json(&json!({"backlog_max": 3}));
    stack.send(put).await.expect(200);
    // The cap is known after a refresh; jobs make the counters move.
    let mut ids = Vec::new();
    let deadline = clock::now() + supervision::secs(10);
    let refused = loop {
        let answer = stack.post("/v1/jobs", digest()).await;
        if answer.status == 429 {
            break answer;
        }
        ids.push(answer.expect(202).id());
        assert!(clock::now() < deadline, "never refused");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let refused = refused.expect_problem(429, "queue-full").json();
    assert_eq!((&refused["queue"], &refused["backlog_max"]), (&json!("default"), &json!(3)));
    stack.post("/v1/jobs", json!({"kind": "digest", "queue": "other"})).await.expect(202);
    for id in ids {
        stack.set_state(id, State::Completed, true).await;
    }
    while stack.post("/v1/jobs", digest()).await.status != 202 {
        assert!(clock::now() < deadline, "never open again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    stack.stop().await;
}

#[actix_web::test]
async fn the_front_door_says_what_runs() {
    let stack = Stack::start().await;
    let json = stack.get("/").await.expect(200).json();
    assert_eq!((&json["name"], &json["jobs"]), (&json!("standfast"), &json!("/v1/jobs")));
    stack.get("/healthz").await.expect(200);
    let openapi = stack.get("/v1/openapi.json").await.expect(200).json();
    assert_eq!(openapi["openapi"], "3.1.0");
    for route in app::ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        assert!(openapi["paths"][route.path][&method].is_object(), "{} {}", route.method, route.path);
    }
    stack.stop().await;
}

/// Skew: a runner that lacks a program is not the job's fault, and `why` says for whom the job waits.
#[actix_web::test]
async fn why_names_the_command_that_a_job_waits_for_and_which_runner_has_which() {
    let stack = Stack::start().await;
    let submit = async |name: &str| {
        stack.post("/v1/jobs", json!({"kind": "command", "payload": {"name": name, "input": 1.5}})).await
    };
    let early = submit("resize").await.expect(202).id();
    let runner = stack.announce_runner("jobs-1", "command,digest");
    runner.set_fact("commands", "cut,paste");
    let why = stack.get(&format!("/v1/jobs/{early}/why")).await.expect(200).json();
    assert_eq!(
        (&why["waiting_for"], &why["command"], &why["runners"]),
        (&json!("worker"), &json!("resize"), &json!(0))
    );
    assert_eq!(why["other_commands"], json!([{"runner": "n/jobs-1", "commands": ["cut", "paste"]}]));
    let problem = submit("resize").await.expect_problem(422, "unknown-command").json();
    assert_eq!((&problem["field"], &problem["commands"]), (&json!("payload.name"), &json!(["cut", "paste"])));
    let line = "{\"kind\":\"command\",\"payload\":{\"name\":\"shred\"}}\n";
    assert!(stack.bulk(line).await.expect(200).text.contains("unknown-command"));
    let id = submit("cut").await.expect(202).id();
    let why = stack.get(&format!("/v1/jobs/{id}/why")).await.expect(200).json();
    assert_eq!(
        (&why["runners"], &why["runs_on"], why.get("other_commands")),
        (&json!(1), &json!(["n/jobs-1"]), None)
    );
    stack.stop().await;
}
