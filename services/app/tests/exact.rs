//! What was accepted is read back as it was sent, and one row that cannot be read spoils nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::Value;
use support::{Answer, Stack};

async fn raw(stack: &Stack, body: impl Into<reqwest::Body>, headers: &[(&str, &str)]) -> Answer {
    let mut request = stack.client.post(stack.url("/v1/jobs")).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stack.send(request.body(body)).await
}

/// `"\ud83d"` and `1e400` were accepted; then every page that held one was 500 and `:retry` answered 500 and took effect.
#[actix_web::test]
async fn what_cannot_be_read_back_is_refused_at_the_door_with_its_place() {
    let stack = Stack::start().await;
    for (payload, field, at) in [
        (r#""\ud83d""#, "payload", r"\ud83d"),
        ("1e400", "payload", "1e400"),
        (r#"{"a":["x","\udc00\ud83d"]}"#, "payload.a[1]", r"\udc00"),
        (r#"{"\ud800":1}"#, "payload.\\ud800", r"\ud800"),
        ("[1,-1E+309]", "payload[1]", "-1E"),
    ] {
        let line = format!(r#"{{"kind":"digest","payload":{payload}}}"#);
        let offset = line.find(at).unwrap() as u64;
        let problem = raw(&stack, line.clone(), &[]).await.expect_problem(400, "malformed-json").json();
        assert_eq!(
            (problem["field"].as_str(), problem["offset"].as_u64()),
            (Some(field), Some(offset)),
            "{problem}"
        );
        let told = stack.bulk(format!("{line}\n{{\"kind\":\"digest\"}}\n")).await.expect(200).text;
        let statuses: Vec<_> = told
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].as_u64().unwrap())
            .collect();
        assert_eq!(statuses, [400, 202], "{told}");
    }
    let mut bad = br#"{"kind":"digest","payload":"x"}"#.to_vec();
    bad[28] = 0xff;
    let problem = raw(&stack, bad, &[]).await.expect_problem(400, "malformed-json").json();
    assert_eq!(problem["offset"], 28);
    raw(&stack, "\u{feff}{\"kind\":\"digest\"}", &[]).await.expect_problem(400, "malformed-json");
    raw(&stack, r#"{"kind":"digest","callback":"\ud83d"}"#, &[]).await.expect_problem(400, "malformed-json");
    raw(&stack, r#"{"kind":"digest","tags":["\ud83d"]}"#, &[]).await.expect_problem(400, "malformed-json");
    stack.stop().await;
}

const EXACT: &str = "{\"z\": 1.50,\t\"a\":12345678901234567890123, \"a\":[ -0, 1e-400, \"\\u0000\\ud83d\\ude00 \\/\" ], \"\": {} }";

/// Numbers, order of members, repeated members and white space were changed on the way.
#[actix_web::test]
async fn a_payload_is_shown_byte_for_byte_by_every_answer() {
    let stack = Stack::start().await;
    let key = [("idempotency-key", "k")];
    let body = format!(r#"{{"kind":"digest","payload":{EXACT}}}"#);
    let id = raw(&stack, body.clone(), &key).await.expect(202).id();
    let again = raw(&stack, body.clone(), &key).await.expect(202);
    assert_eq!(
        (again.id(), again.header("idempotency-replayed")),
        (id, "true"),
        "the same bytes, the same job"
    );
    assert!(!again.text.contains("payload"), "{}", again.text);
    let other = body.replace("1.50", "1.5");
    raw(&stack, other, &key).await.expect_problem(422, "idempotency-key-reused");
    let one = format!("/v1/jobs/{id}");
    let part = format!(r#""payload":{EXACT}"#);
    let result = r#"{"r":1.0, "n":10000000000000000000000 }"#;
    assert!(stack.get(&one).await.expect(200).text.contains(&part));
    stack.database.corrupt(id, "result", result.into());
    stack.database.corrupt(id, "state", "completed".into());
    for path in [one.clone(), "/v1/jobs".into(), format!("{one}/events")] {
        let text = stack.get(&path).await.expect(200).text;
        assert!(text.contains(&part) && text.contains(&format!(r#""result":{result}"#)), "{path}: {text}");
    }
    let replayed = stack.act(&format!("{one}:replay")).await.expect(200).text;
    assert!(replayed.contains(&part) && !replayed.contains("result"), "{replayed}");
    let line = stack.bulk(format!("{body}\n")).await.expect(200).text;
    let bulk = serde_json::from_str::<Value>(&line).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(stack.get(&format!("/v1/jobs/{bulk}")).await.expect(200).text.contains(&part));
    assert_eq!(stack.database.text(id, "payload"), EXACT, "what runners get");
    stack.stop().await;
}

/// One row from an older version, or written by hand, made every page with it 500.
#[actix_web::test]
async fn a_row_that_cannot_be_read_is_shown_as_such_and_spoils_no_page() {
    let stack = Stack::start().await;
    let mut ids = Vec::new();
    for (column, value) in [
        ("payload", r#""\ud83d""#),
        ("payload", "1e400"),
        ("payload", "{"),
        ("result", "nonsense"),
        ("progress", "[1,"),
        ("tags", "not a list"),
        ("priority", "much"),
        ("run_at", "soon"),
        ("state", "dreaming"),
    ] {
        let id = stack.submit().await;
        stack.database.corrupt(id, column, value.into());
        ids.push((id, column));
    }
    let good = stack.submit().await;
    let page = stack.get("/v1/jobs").await.expect(200).json();
    assert_eq!(page["jobs"].as_array().unwrap().len(), ids.len() + 1);
    assert!(page["jobs"][0].get("unreadable").is_none() && page["jobs"][0]["id"] == good.to_string());
    stack.get("/v1/jobs?tag=x").await.expect(200);
    for (id, column) in ids {
        let path = format!("/v1/jobs/{id}");
        let job = stack.get(&path).await.expect(200).json();
        assert!(job["unreadable"][0].as_str().unwrap().starts_with(column), "{job}");
        if column == "payload" {
            assert_eq!(job["payload"], Value::Null);
            stack.act(&format!("{path}:cancel")).await.expect(200);
            stack.act(&format!("{path}:retry")).await.expect(200);
        }
        stack.get(&format!("{path}/attempts")).await;
    }
    stack.stop().await;
}
