//! `standfast jobs …`.

mod outcomes;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jobstore::Why;
use messages::job::{Job, Reason, State, Submit as Body};
use messages::json::Raw;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::http::Server;
use super::sse::Events;
use crate::cli::{FrontDoor, Jobs, List, OneJob, Submit};
use crate::failure::{Failure, Outcome};
use crate::out;

/// A stream that breaks is taken up again; if the server stays away for so long, the command gives up.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// Runs the command.
pub async fn run(command: Jobs) -> Outcome {
    match command {
        Jobs::Submit(submit) => self::submit(submit).await,
        Jobs::Bulk { file, at } => bulk(&file, &at).await,
        Jobs::List(list) => self::list(list).await,
        Jobs::Show(one) => show(&one).await,
        Jobs::Watch(one) => watch(&one).await,
        Jobs::Cancel(one) => act(&one, "cancel").await,
        Jobs::Retry(one) => act(&one, "retry").await,
        Jobs::Replay(one) => act(&one, "replay").await,
        Jobs::Why(one) => why(&one).await,
        Jobs::Queues { at } => queues(&at).await,
    }
}

async fn submit(submit: Submit) -> Outcome {
    let server = server(&submit.at)?;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let body = Body {
        kind: submit.kind,
        payload: payload(&submit.payload)?,
        queue: submit.queue,
        priority: submit.priority,
        delay_ms: submit.delay.map(millis),
        run_at: submit.at_time,
        max_attempts: submit.max_attempts,
        timeout_ms: submit.timeout.map(millis),
        key: None,
        unique: None,
        callback: None,
        tags: submit.tags,
    };
    let mut request = server.endless(Method::POST, "/v1/jobs").json(&body);
    if let Some(key) = submit.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    if let Some(seconds) = submit.wait {
        request = request.header("prefer", format!("wait={seconds}"));
    }
    let patience = Duration::from_secs(30 + submit.wait.unwrap_or(0));
    let job: Job = server.json(request.timeout(patience)).await?;
    if submit.at.json {
        out::json(&job);
    } else if submit.wait.is_none() {
        out::line(job.id);
    } else {
        print(&job);
    }
    match submit.wait {
        Some(seconds) if !job.state.is_final() => Err(Failure::failed(format!(
            "job {} is still {} after {seconds} s: `standfast jobs watch {}` waits on",
            job.id,
            job.state.as_str(),
            job.id
        ))),
        Some(_) => verdict(&job),
        None => Ok(()),
    }
}

/// The argument itself, `-` for stdin, `@FILE` for a file.
fn payload(argument: &str) -> Outcome<Raw> {
    let text = match argument.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| Failure::failed(format!("{file}: {error}")))?
        }
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::failed(format!("stdin: {error}")))?;
            text
        }
        None => argument.to_owned(),
    };
    Raw::parse(text)
        .map_err(|fault| Failure::usage(format!("the payload is not JSON that every reader takes: {fault}")))
}

async fn bulk(file: &Path, at: &FrontDoor) -> Outcome {
    let server = server(at)?;
    let request =
        server.endless(Method::POST, "/v1/jobs:bulk").header("content-type", "application/x-ndjson");
    let request = if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin()
            .read_to_end(&mut text)
            .map_err(|error| Failure::failed(format!("stdin: {error}")))?;
        request.body(text)
    } else {
        let unreadable = |error| Failure::failed(format!("{}: {error}", file.display()));
        let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
        if opened.metadata().await.map_err(unreadable)?.is_dir() {
            return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
        }
        request.body(opened)
    };
    outcomes::print(&server, server.accepted(request).await?).await
}

/// Jobs stay as they were sent: a `Value` would change payloads.
#[derive(serde::Deserialize)]
struct Page {
    jobs: Vec<Raw>,
    next: Option<String>,
}

async fn list(list: List) -> Outcome {
    let server = server(&list.at)?;
    let filters = [("state", &list.state), ("queue", &list.queue), ("kind", &list.kind), ("tag", &list.tag)];
    let filters: Vec<(&str, &String)> =
        filters.into_iter().filter_map(|(k, v)| Some((k, v.as_ref()?))).collect();
    let (mut jobs, mut cursor) = (Vec::new(), None::<String>);
    while jobs.len() < list.limit {
        let limit = (list.limit - jobs.len()).min(100).to_string();
        let mut request = server.request(Method::GET, "/v1/jobs").query(&filters).query(&[("limit", limit)]);
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page: Page = server.json(request).await?;
        jobs.extend(page.jobs);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if list.at.json {
        out::json(&jobs);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = jobs.iter().map(|job| row(&job.value())).collect();
    out::table(&["ID", "STATE", "KIND", "QUEUE", "ATTEMPT", "INSERTED"], &rows);
    Ok(())
}

fn row(job: &Value) -> Vec<String> {
    let text = |key: &str| job[key].as_str().unwrap_or("-").to_owned();
    let attempts = format!("{}/{}", job["attempt"], job["max_attempts"]);
    vec![text("id"), text("state"), text("kind"), text("queue"), attempts, text("inserted_at")]
}

async fn show(one: &OneJob) -> Outcome {
    let job = get(one).await?;
    if one.at.json {
        out::json(&job)
    } else {
        print(&job)
    }
    Ok(())
}

async fn get(one: &OneJob) -> Outcome<Job> {
    let server = server(&one.at)?;
    server.json(server.request(Method::GET, &path(one, "")?)).await
}

async fn act(one: &OneJob, verb: &str) -> Outcome {
    let server = server(&one.at)?;
    let job: Job = server.json(server.request(Method::POST, &path(one, &format!(":{verb}"))?)).await?;
    if one.at.json {
        out::json(&job);
    } else if job.cancel_requested {
        out::line(format!("{} {}, cancel requested", job.id, job.state.as_str()));
    } else {
        out::line(format!("{} {}", job.id, job.state.as_str()));
    }
    Ok(())
}

async fn why(one: &OneJob) -> Outcome {
    let server = server(&one.at)?;
    let why: Value = server.json(server.request(Method::GET, &path(one, "/why")?)).await?;
    match serde_json::from_value::<Why>(why.clone()) {
        Ok(known) if !one.at.json => out::line(reason(&known)),
        _ => out::json(&why),
    }
    Ok(())
}

/// What a job waits for, as a sentence.
fn reason(why: &Why) -> String {
    let after =
        |error: &Option<Reason>| error.map(|error| format!(", after {}", word(&error))).unwrap_or_default();
    match why {
        Why::Nothing { state, last_error } => {
            format!("nothing: it is {}{}", state.as_str(), after(last_error))
        }
        Why::Time { run_at, last_error, .. } => format!("its time, {run_at}{}", after(last_error)),
        Why::Resume { queue } => format!("queue {queue} is paused"),
        Why::QueueConcurrency { running, concurrency, ahead } => {
            format!("a place in its queue: {running} of {concurrency} run, {ahead} go before it")
        }
        Why::Worker { kind, command: None, ahead } => {
            format!("a free worker that knows {kind}; {ahead} go before it")
        }
        Why::Worker { command: Some(command), ahead, .. } => {
            format!("a free worker that has the command {command}; {ahead} go before it")
        }
        Why::Handler { runner, started_at, lease_until, cancel_requested } => {
            let cancel = if *cancel_requested { "; it was asked to stop" } else { "" };
            format!("its handler, on {runner} since {started_at}, under a lease until {lease_until}{cancel}")
        }
    }
}

/// The word that the API uses.
fn word(reason: &Reason) -> String {
    let value = serde_json::to_value(reason).ok();
    value.as_ref().and_then(Value::as_str).unwrap_or("?").to_owned()
}

async fn queues(at: &FrontDoor) -> Outcome {
    let server = server(at)?;
    let (mut queues, mut path) = (Vec::new(), Some("/v1/queues".to_owned()));
    while let Some(page) = path {
        let answer: Value = server.json(server.request(Method::GET, &page)).await?;
        queues.extend(answer["queues"].as_array().cloned().unwrap_or_default());
        path = answer["next"].as_str().map(|next| format!("/v1/queues?cursor={next}"));
    }
    if at.json {
        out::json(&queues);
        return Ok(());
    }
    let states = ["available", "running", "scheduled", "retryable", "discarded"];
    let rows = queues.iter().map(|queue| {
        let cell = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let counts = states.iter().map(|state| cell(&queue["jobs"][*state]));
        let limits = ["paused", "concurrency", "backlog_max"].iter().map(|key| cell(&queue[*key]));
        [cell(&queue["name"])].into_iter().chain(counts).chain(limits).collect()
    });
    let headings = [
        "QUEUE",
        "AVAILABLE",
        "RUNNING",
        "SCHEDULED",
        "RETRYABLE",
        "DEAD",
        "PAUSED",
        "CONCURRENCY",
        "BACKLOG",
    ];
    out::table(&headings, &rows.collect::<Vec<_>>());
    Ok(())
}

/// Follows the events to a final state, over broken streams.
async fn watch(one: &OneJob) -> Outcome {
    let server = server(&one.at)?;
    let path = path(one, "/events")?;
    let (mut last_id, mut shown, mut away_since) = (None::<String>, None::<u64>, None);
    loop {
        let mut request = server.endless(Method::GET, &path).header("accept", "text/event-stream");
        if let Some(id) = &last_id {
            request = request.header("last-event-id", id);
        }
        match server.send(request).await {
            Ok(response) if response.status() == StatusCode::OK => {
                away_since = None;
                let mut events = Events::of(response);
                while let Some(event) = events.next().await {
                    last_id = event.id.or(last_id);
                    if let Ok(job) = serde_json::from_str::<Job>(&event.data)
                        && shown.replace(job.version) != Some(job.version)
                    {
                        progress(one, &job);
                        if job.state.is_final() {
                            return verdict(&job);
                        }
                    }
                }
            }
            Ok(response) if response.status().is_client_error() => {
                return Err(server.refusal(response).await);
            }
            Ok(_) => {}
            Err(failure) => {
                let since = *away_since.get_or_insert_with(clock::now);
                if clock::now().saturating_duration_since(since) > AWAY_MAX || shown.is_none() {
                    return Err(failure);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn progress(one: &OneJob, job: &Job) {
    if one.at.json {
        out::json(job);
        return;
    }
    let mut text = format!("{} attempt {}/{}", job.state.as_str(), job.attempt, job.max_attempts);
    if let Some(progress) = &job.progress {
        text = format!("{text} {progress}");
    }
    if let Some(error) =
        job.errors.last().filter(|_| matches!(job.state, State::Retryable | State::Discarded))
    {
        text = format!("{text}: {}", error.detail);
    }
    out::line(text);
    if let Some(result) = &job.result {
        out::json(result);
    }
}

/// What scripts ask for: did it work?
fn verdict(job: &Job) -> Outcome {
    match job.state {
        State::Cancelled | State::Discarded => {
            Err(Failure::failed(format!("job {} was {}", job.id, job.state.as_str())))
        }
        _ => Ok(()),
    }
}

fn print(job: &Job) {
    let line = |key: &str, value: &str| out::line(format!("{key:<12} {value}"));
    line("id", &job.id.to_string());
    line("state", job.state.as_str());
    line("kind", &job.kind);
    line("queue", &job.queue);
    line("attempt", &format!("{} of {}", job.attempt, job.max_attempts));
    line("inserted", &job.inserted_at);
    if !job.state.is_final() {
        line("runs at", &job.run_at);
    }
    let optional = [("started", &job.started_at), ("finished", &job.finished_at), ("runner", &job.runner)];
    for (key, value) in optional {
        if let Some(value) = value {
            line(key, value);
        }
    }
    for error in &job.errors {
        line("error", &format!("attempt {} {}: {}", error.attempt, word(&error.reason), error.detail));
    }
    if let Some(result) = &job.result {
        line("result", &result.to_string());
    }
}

fn path(one: &OneJob, rest: &str) -> Outcome<String> {
    let id: uuid::Uuid = one.id.parse().map_err(|_| {
        Failure::usage(format!("{:?} is not the id of a job: `standfast jobs list` shows them", one.id))
    })?;
    Ok(format!("/v1/jobs/{id}{rest}"))
}

fn server(at: &FrontDoor) -> Outcome<Server> {
    Server::new(&at.url, "--url")
}
