//! The work that `infra/bench/peers` does with the other job runners.

use std::time::Duration;

use serde_json::{Value, json};
use teststack::{Http, until};

use crate::say;

const PRODUCERS: usize = 64;
const ENQUEUE: usize = 20_000;
const DRAIN: usize = 20_000;
const PER_SECOND: u32 = 50;
const LATENCY_S: u32 = 6;
const IN_HAND: usize = 4;

/// enqueue, bulk, drain, latency.
pub async fn round(front: &str) {
    let mut http = Http::new(front).limit(Duration::from_secs(60));
    pause(&mut http, "bench").await;
    produce(front, 2_000).await;
    say("enqueue_per_s", produce(front, ENQUEUE).await);
    say("bulk_per_s", bulk(front).await);
    say("drain_per_s", drain(&mut http, 2_000 + ENQUEUE + DRAIN).await);
    latency(front).await;
}

/// Bulk and drain alone, for a profiler.
pub async fn drained(front: &str) {
    let mut http = Http::new(front).limit(Duration::from_secs(60));
    pause(&mut http, "bench").await;
    say("bulk_per_s", bulk(front).await);
    say("drain_per_s", drain(&mut http, DRAIN).await);
}

/// From the request to the handler, fifty times a second.
pub async fn latency(front: &str) {
    let mut late = latencies(front).await;
    late.sort_by(f64::total_cmp);
    say("latency_p50_ms", late[late.len() / 2]);
    say("latency_p99_ms", late[late.len() * 99 / 100]);
}

async fn pause(http: &mut Http, queue: &str) {
    let paused =
        http.post(&format!("/v1/queues/{queue}:pause"), &json!({})).await.expect("the front door answers");
    assert!(paused.status < 300, "pause: {}", paused.brief());
}

/// Jobs per second, each acknowledged, from 64 clients.
async fn produce(front: &str, jobs: usize) -> f64 {
    let began = clock::now();
    let clients = (0..PRODUCERS).map(|n| {
        let (front, share) = (front.to_owned(), jobs / PRODUCERS + usize::from(n < jobs % PRODUCERS));
        tokio::spawn(async move {
            let mut http = Http::new(&front);
            for _ in 0..share {
                let headers = [("content-type", "application/json")];
                let body = br#"{"kind":"noop","queue":"bench"}"#;
                let answer = http.send("POST", "/v1/jobs", &headers, body).await.expect("an answer");
                assert_eq!(answer.status, 202, "{}", answer.brief());
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("every job is acknowledged");
    }
    per_second(jobs, began)
}

/// Jobs per second in four requests of 5,000 lines, two at a time.
async fn bulk(front: &str) -> f64 {
    let lines = r#"{"kind":"noop","queue":"bench"}"#.to_owned() + "\n";
    let body = lines.repeat(DRAIN / 4);
    let began = clock::now();
    let halves = (0..2).map(|_| {
        let (front, body) = (front.to_owned(), body.clone());
        tokio::spawn(async move {
            let mut http = Http::new(&front);
            for _ in 0..2 {
                let headers = [("content-type", "application/x-ndjson")];
                let answer =
                    http.send("POST", "/v1/jobs:bulk", &headers, body.as_bytes()).await.expect("an answer");
                let accepted = answer.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count();
                assert_eq!((answer.status, accepted), (200, DRAIN / 4), "{}", answer.brief());
            }
        })
    });
    for half in halves.collect::<Vec<_>>() {
        half.await.expect("every job is acknowledged");
    }
    per_second(DRAIN, began)
}

/// Jobs per second from the moment the queue is let go until the last is completed.
async fn drain(http: &mut Http, jobs: usize) -> f64 {
    let began = clock::now();
    let resumed = http.post("/v1/queues/bench:resume", &json!({})).await.expect("the front door answers");
    assert!(resumed.status < 300, "resume: {}", resumed.brief());
    until("the queue is drained", Duration::from_secs(300), async || {
        let open = open_jobs(http).await?;
        if open == 0 { Ok(()) } else { Err(format!("{open} jobs are open")) }
    })
    .await;
    per_second(jobs, began)
}

async fn open_jobs(http: &mut Http) -> Result<u64, String> {
    let answer = http.get("/v1/queues").await.map_err(|e| e.to_string())?;
    let body: Value = answer.json().map_err(|e| e.to_string())?;
    let queues = body["queues"].as_array().ok_or_else(|| answer.brief())?;
    // A queue without settings is listed as long as it has jobs.
    let Some(queue) = queues.iter().find(|q| q["name"] == "bench") else { return Ok(0) };
    let count = |state: &str| queue["jobs"][state].as_u64().ok_or_else(|| answer.brief());
    Ok(count("available")? + count("running")? + count("retryable")? + count("scheduled")?)
}

/// Milliseconds from before the request to the handler's start.
async fn latencies(front: &str) -> Vec<f64> {
    let mut every = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let mut http = Http::new(front);
    let mut sent = Vec::new();
    for _ in 0..PER_SECOND * LATENCY_S {
        every.tick().await;
        let at = clock::wall_us();
        let answer = http
            .post("/v1/jobs", &json!({"kind": "noop", "payload": {"sleep_ms": 0}}))
            .await
            .expect("an answer");
        sent.push((at, answer.header("location").expect("where the job is").to_owned()));
    }
    let mut late = Vec::new();
    for (at, location) in sent {
        let job = finished(&mut http, &location).await;
        let started = job["result"]["started_us"].as_u64().expect("noop says when it started");
        late.push(Duration::from_micros(started.saturating_sub(at)).as_secs_f64() * 1000.0);
    }
    late
}

async fn finished(http: &mut Http, location: &str) -> Value {
    until("the job is completed", Duration::from_secs(10), async || {
        let answer = http.get(location).await.map_err(|e| e.to_string())?;
        let job: Value = answer.json().map_err(|e| e.to_string())?;
        if job["state"] == "completed" { Ok(job) } else { Err(answer.brief()) }
    })
    .await
}

/// Seconds from the panic of every worker until the jobs that they had in hand run again.
pub async fn rescue(front: &str, console: &str) {
    let mut http = Http::new(front);
    let jobs = hold(&mut http).await;
    let began = clock::now();
    let fault = json!({"target": "/*/jobs/*/workers/*", "kind": "panic", "for_ms": 1000});
    let injected = Http::new(console).post("/v1/faults", &fault).await.expect("the console answers");
    assert!(injected.status < 300, "{}", injected.brief());
    running_again(&mut http, &jobs).await;
    say("rescue_s", (clock::now() - began).as_secs_f64());
    for job in jobs {
        let _ = http.post(&format!("{job}:cancel"), &json!({})).await;
    }
}

/// Four jobs that sleep in their workers' hands.
pub async fn hold(http: &mut Http) -> Vec<String> {
    let mut jobs = Vec::new();
    for _ in 0..IN_HAND {
        let job = json!({"kind": "noop", "payload": {"sleep_ms": 120_000}, "timeout_ms": 300_000});
        let answer = http.post("/v1/jobs", &job).await.expect("an answer");
        jobs.push(answer.header("location").expect("where the job is").to_owned());
    }
    reach(http, &jobs, 1).await;
    jobs
}

/// Waits until each of them is in its second attempt.
pub async fn running_again(http: &mut Http, jobs: &[String]) {
    reach(http, jobs, 2).await;
}

async fn reach(http: &mut Http, jobs: &[String], attempt: u64) {
    let limit = Duration::from_secs(60);
    let began = clock::now();
    for job in jobs {
        loop {
            let answer = http.get(job).await.expect("an answer");
            let state: Value = answer.json().expect("a job");
            if state["state"] == "running" && state["attempt"] == attempt {
                break;
            }
            assert!(clock::now() - began < limit, "attempt {attempt} has not started: {}", answer.brief());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn per_second(jobs: usize, began: std::time::Instant) -> f64 {
    f64::from(u32::try_from(jobs).expect("a small number")) / (clock::now() - began).as_secs_f64()
}
