//! What an answer has said, no later answer unsays, whatever replica is asked; and pages fit.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use clock::WallMs;
use jobstore::NewJob;
use messages::job::{Changed, State};
use messages::names;
use serde_json::json;
use support::{Stack, digest};

/// Submit then list: 117 of 300 absent. Cancel then GET: 114 of 300 not cancelled.
#[actix_web::test]
async fn what_an_answer_has_said_is_seen_by_every_later_one() {
    let stack = Stack::start().await;
    let old = stack.submit().await;
    stack.database.freeze_replicas();
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}");
    let listed = async |query: &str| {
        let page = stack.get(&format!("/v1/jobs{query}")).await.expect(200).json();
        page["jobs"].as_array().unwrap().iter().any(|job| job["id"] == id.to_string())
    };
    assert!(listed("").await && listed("?queue=default").await && listed("?state=available").await);
    assert!(!listed("?consistency=eventual").await, "who asks for a replica gets it as it is");
    assert_eq!(stack.get("/v1/queues/default").await.expect(200).json()["jobs"]["available"], 2);
    stack.act(&format!("{path}:cancel")).await.expect(200);
    stack.act(&format!("/v1/jobs/{old}:cancel")).await.expect(200);
    assert_eq!(stack.get(&path).await.expect(200).json()["state"], "cancelled");
    let old = format!("/v1/jobs/{old}");
    assert_eq!(stack.get(&old).await.expect(200).json()["state"], "cancelled");
    assert_eq!(stack.get(&format!("{old}/why")).await.expect(200).json()["waiting_for"], "nothing");
    stack.get_with(&old, &[("if-none-match", "\"1\"")]).await.expect(200);
    let behind = stack.get(&format!("{old}?consistency=eventual")).await.expect(200).json();
    assert_eq!(behind["state"], "available");
    stack.get(&format!("{path}?consistency=eventual")).await.expect(200); // before 404 the primary is asked
    stack.act("/v1/queues/default:pause").await.expect(200);
    assert_eq!(stack.get("/v1/queues").await.expect(200).json()["queues"][0]["paused"], true);
    stack.get("/v1/jobs?consistency=weak").await.expect_problem(400, "invalid-query");
    stack.get(&format!("{path}?consistency=")).await.expect_problem(400, "invalid-query");
    stack.stop().await;
}

/// `:replay`, then `Prefer: wait`: the old result in 45 of 100.
#[actix_web::test]
async fn a_wait_after_a_replay_does_not_answer_with_the_old_result() {
    let stack = Stack::with(|config| config.reread_ms = 100).await;
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}");
    stack.set_state(id, State::Completed, true).await; // version 2
    stack.database.freeze_replicas();
    stack.act(&format!("{path}:replay")).await.expect(200);
    let late_hint = async |state, version| {
        let changed = Changed { id, queue: "default".into(), state, version, at: WallMs::now() };
        stack.bus.broadcast(names::JOBS_CHANGED, bus::Message::json(&[changed])).await.unwrap();
    };
    let waits = [("prefer", "wait=1")];
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        late_hint(State::Completed, 2).await;
    };
    let (waited, ()) = futures_util::join!(stack.get_with(&path, &waits), late);
    let job = waited.expect(200).json();
    assert_eq!((&job["state"], &job["version"], job.get("result")), (&json!("available"), &json!(3), None));
    // The events of the job go on from where they are, not back to what a replica has.
    let events = async {
        let stream = stack.get_with(&format!("{path}/events"), &[("last-event-id", "2")]).await.expect(200);
        stream.text.lines().filter(|line| line.starts_with("id: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let finish = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        late_hint(State::Completed, 2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        stack.set_state(id, State::Completed, false).await;
    };
    let (ids, ()) = futures_util::join!(events, finish);
    assert_eq!(ids, ["id: 3", "id: 4"]);
    stack.stop().await;
}

/// A `Prefer: wait` that ran out answered the row as it was submitted.
#[actix_web::test]
async fn a_wait_that_runs_out_answers_the_row_as_it_is_now() {
    let stack = Stack::with(|config| config.reread_ms = 60_000).await;
    let waits = [("prefer", "wait=1")];
    let key = [("prefer", "wait=1"), ("idempotency-key", "k")];
    for headers in [&waits[..], &key[..], &key[..]] {
        let run = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let sql = "UPDATE jobs SET state = 'running', attempt = attempt + 1, version = version + 1 WHERE state IN
                ('available', 'running')";
            stack.database.execute(sql);
        };
        let (answer, ()) = futures_util::join!(stack.post_with("/v1/jobs", digest(), headers), run);
        let answer = answer.expect(202);
        let job = answer.json();
        assert_eq!((&job["state"], job.get("payload")), (&json!("running"), None), "{job}");
        assert_eq!(answer.header("etag"), format!("\"{}\"", job["version"]));
        let path = format!("/v1/jobs/{}", answer.id());
        stack.get_with(&path, &[("if-none-match", answer.header("etag"))]).await.expect(304);
    }
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}");
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stack.set_state(id, State::Retryable, true).await;
    };
    let (answer, ()) = futures_util::join!(stack.get_with(&path, &waits), change);
    assert_eq!(answer.expect(200).json()["state"], "retryable");
    let submitted = stack.post("/v1/jobs", digest()).await.expect(202);
    assert_eq!(submitted.header("etag"), "\"1\"");
    stack.stop().await;
}

#[actix_web::test]
async fn no_cache_keeps_an_answer_of_the_jobs_api() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    let unknown = uuid::Uuid::now_v7();
    for path in [
        format!("/v1/jobs/{id}"),
        format!("/v1/jobs/{unknown}"),
        format!("/v1/jobs/{id}/why"),
        "/v1/jobs".into(),
        "/v1/jobs?limit=0".into(),
        "/v1/queues".into(),
        "/v1/queues/default".into(),
    ] {
        assert_eq!(stack.get(&path).await.header("cache-control"), "no-store", "{path}");
    }
    assert_eq!(stack.post("/v1/jobs", digest()).await.header("cache-control"), "no-store");
    let same = stack.get_with(&format!("/v1/jobs/{id}"), &[("if-none-match", "\"1\"")]).await.expect(304);
    assert_eq!(same.header("cache-control"), "no-store");
    stack.stop().await;
}

/// 50 jobs of 180 KB: a page was 500, and so was every page with them.
#[actix_web::test]
async fn a_page_holds_as_many_jobs_as_fit_and_the_next_goes_on_where_it_ended() {
    let stack = Stack::start().await;
    let text = |bytes: usize, quotes: bool| {
        let piece = if quotes { "\\\"" } else { "ab" };
        format!("\"{}\"", piece.repeat(bytes / 2))
    };
    let sizes = [(20, 180_000, false), (3, 1_040_000, true), (1, 2_900_000, false), (40, 10, false)];
    let mut all = BTreeSet::new();
    for (n, bytes, quotes) in sizes {
        for _ in 0..n {
            let job = NewJob { queue: "q".into(), ..NewJob::new("digest", text(bytes, quotes)) };
            all.insert(job.id.to_string());
            stack.jobs.submit(vec![job], WallMs::now()).await.unwrap();
        }
    }
    // 25 ends of 4 KiB each of control characters, which are six times as long in JSON.
    stack.database.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25)
         INSERT INTO jobs_attempts (job_id, token, attempt, started_at, ended_at, reason, detail)
         SELECT id, i, 1, 1, 1, 'failed', printf('%.*c', 4000, char(1)) FROM n, (SELECT id FROM jobs ORDER BY id DESC LIMIT 9)",
    );
    stack.database.execute("UPDATE jobs SET state = 'discarded'");
    for start in ["/v1/jobs?limit=50&queue=q&kind=digest", "/v1/queues/q/dead?limit=500"] {
        let (mut seen, mut path, mut pages) = (Vec::new(), start.to_owned(), 0);
        loop {
            let answer = stack.get(&path).await.expect(200);
            let page = answer.json();
            let jobs = page["jobs"].as_array().unwrap();
            assert!(
                !jobs.is_empty() && (jobs.len() == 1 || answer.text.len() <= 3 << 20),
                "{}",
                answer.text.len()
            );
            seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{start}&cursor={next}");
        }
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
        assert_eq!(
            (seen.len(), seen.into_iter().collect::<BTreeSet<_>>() == all),
            (64, true),
            "none left out"
        );
        assert!(pages >= 5, "{pages}");
    }
    let newest = all.iter().next_back().unwrap();
    let attempts = stack.get(&format!("/v1/jobs/{newest}/attempts")).await.expect(200).json();
    assert_eq!(attempts["attempts"].as_array().unwrap().len(), 25);
    stack.stop().await;
}

/// A row that is larger than what the database may answer is shown without what is too large.
#[actix_web::test]
async fn a_row_beyond_every_limit_is_shown_without_what_is_too_large() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    stack
        .database
        .execute("UPDATE jobs SET result = '\"' || printf('%.*c', 4000000, 'x') || '\"', progress = result");
    stack.database.execute("UPDATE jobs SET progress = '\"' || printf('%.*c', 300000, 'x') || '\"'");
    let job = stack.get(&format!("/v1/jobs/{id}")).await.expect(200).json();
    let notes: Vec<_> =
        job["unreadable"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    assert_eq!(
        notes,
        [
            "result: has 4000002 bytes, more than can be shown",
            "progress: has 300002 bytes, more than can be shown"
        ]
    );
    assert_eq!(job["payload"], json!({"text": "hello"}));
    stack.stop().await;
}

/// After a restore of the database a row may be older than what a client has seen: it is told where the job is now.
#[actix_web::test]
async fn events_go_on_from_the_row_also_when_a_restore_has_taken_it_back() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    stack.set_state(id, State::Completed, true).await; // version 2
    let path = format!("/v1/jobs/{id}/events");
    let text = stack.get_with(&path, &[("last-event-id", "7")]).await.expect(200).text;
    assert!(text.contains("id: 2\n") && text.contains("completed"), "{text}");
    stack.get_with(&path, &[("last-event-id", "2")]).await.expect(204);
    stack.database.freeze_replicas();
    stack.act(&format!("/v1/jobs/{id}:replay")).await.expect(200); // version 3
    stack.set_state(id, State::Completed, true).await; // version 4, and the replica has 2
    let text = stack
        .get_with(&format!("{path}?consistency=eventual"), &[("last-event-id", "3")])
        .await
        .expect(200)
        .text;
    assert!(text.contains("id: 4\n") && !text.contains("id: 2\n"), "{text}");
    stack.stop().await;
}
