//! `command` {name, input} → its output: a program that the configuration declares. It reads the text of `input` as it
//! was sent; what it writes to its output is the result, as JSON if it parses and as text if not; bytes that are no
//! UTF-8 are told as such. The end of its error output is kept: with an error, or as the last progress of a success. No
//! shell, nothing inherited.
//!
//! What is supervised is the tree of its processes, by a keeper of its own (`helper/keeper.rs`). The end of the program
//! is the end of its job: what it left running is ended, and pipes that this holds open are read for a moment longer. A
//! cancel, a time-out and the stop of the node are all the same: SIGTERM to the tree while its pipes are still read, a
//! grace, SIGKILL to the tree. If the node is killed with -9, the keeper kills the tree at once.
//!
//! Not promised: that a program which kills its own keeper leaves nothing behind. It can, if it runs as the same user or
//! as root; then what still has the job's mark in its environment is hunted down. Give it a `user` of its own.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::program::{KEEPER_GRACE, Pipes, Program, TooMuch, describe};
use crate::{
    config::Command,
    error::Error,
    handler::{Answer, Failure, Handler, JobContext, Running},
    helper::{Helper, Limits, MARK, Order, Spec, Told, tree},
};

/// Time limit of a command whose configuration names none.
const TIMEOUT_MS: u64 = 3_600_000;
/// Processes that have a job's mark, and fork, are hunted so often.
const HUNTS_MAX: usize = 100;
/// When a job for a program that this runner does not have is offered again.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);

/// See the module.
pub struct Commands {
    commands: BTreeMap<String, Configured>,
    helper: Helper,
}

#[derive(Clone)]
struct Configured {
    command: Command,
    user: Option<(u32, u32)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    name: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

impl Commands {
    /// # Errors
    /// When a configured user is not known here.
    pub(crate) fn new(commands: &BTreeMap<String, Command>, helper: Helper) -> Result<Self, Error> {
        let configured = |(name, command): (&String, &Command)| {
            let user = command.user.as_ref().map(|user| look_up(name, user)).transpose()?;
            Ok((name.clone(), Configured { command: command.clone(), user }))
        };
        Ok(Self { commands: commands.iter().map(configured).collect::<Result<_, Error>>()?, helper })
    }

    fn named(&self, job: &JobContext) -> Option<&Configured> {
        let payload: Payload<'_> = serde_json::from_str(job.payload_text()).ok()?;
        self.commands.get(&payload.name)
    }

    fn spec(&self, job: &JobContext) -> Result<(Command, Spec), Failure> {
        let payload: Payload<'_> = job.payload_borrowed()?;
        let unknown = || unknown(&payload.name);
        let Configured { command, user } = self.commands.get(&payload.name).ok_or_else(unknown)?;
        let input = payload.input.map_or("null", RawValue::get).to_owned();
        let own = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("STANDFAST_JOB_ID", job.id().to_string()),
            ("STANDFAST_ATTEMPT", job.attempt().to_string()),
            ("TRACEPARENT", job.traceparent().to_owned()),
        ];
        let mut env: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value)).into();
        env.extend(command.env.clone());
        env.insert(MARK.to_owned(), mark(job));
        let limits = Limits {
            memory_bytes: Some(command.memory_bytes()),
            cpu_s: command.cpu_s_max,
            files: Some(command.open_files()),
            file_bytes: command.file_bytes_max,
            processes: command.processes(),
            user: *user,
            umask: crate::helper::programs_umask(),
        };
        let cwd = command.cwd.clone().unwrap_or_else(|| "/".into());
        Ok((command.clone(), Spec { argv: command.argv.clone(), env, cwd, input, limits }))
    }
}

fn mark(job: &JobContext) -> String {
    format!("{}/{}", job.id(), job.token())
}

/// A user by name or number, with its main group.
fn look_up(command: &str, user: &str) -> Result<(u32, u32), Error> {
    let found = match user.parse::<u32>() {
        Ok(uid) => nix::unistd::User::from_uid(uid.into()),
        Err(_) => nix::unistd::User::from_name(user),
    };
    match found {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        _ => Err(Error::Config {
            key: format!("jobs.commands.{command}.user"),
            value: user.to_owned(),
            expected: "a user of this machine".to_owned(),
        }),
    }
}

impl Handler for Commands {
    fn commands(&self) -> Option<Vec<String>> {
        Some(self.commands.keys().cloned().collect())
    }

    fn run(&self, job: JobContext) -> Running {
        let (spec, helper) = (self.spec(&job), self.helper.clone());
        Box::pin(async move {
            let (command, spec) = spec?;
            let cannot = |e: std::io::Error| Failure::Failed(format!("cannot start: {e}"));
            let (program, mut pipes) = Program::start(&helper, &spec).await.map_err(cannot)?;
            pipes.limit(command.output_bytes());
            Attempt { job, command, program, pipes }.run().await
        })
    }

    fn limit(&self, job: &JobContext) -> Option<Duration> {
        self.named(job).and_then(|it| it.command.timeout_ms).map(Duration::from_millis)
    }

    fn grace(&self, job: &JobContext) -> Duration {
        self.named(job).map_or(Duration::ZERO, |it| it.command.grace() + KEEPER_GRACE)
    }
}

/// A program that this runner does not have. Jobs are claimed by what they need, so this one was stored by an earlier
/// version, or names what no configuration can.
fn unknown(name: &str) -> Failure {
    let detail = format!("no command {name:?} is configured");
    if jobstore::is_command_name(name) {
        Failure::Postponed { after: UNKNOWN_AFTER, detail: detail + " at this runner" }
    } else {
        Failure::Refused(detail)
    }
}

/// One run of a program.
struct Attempt {
    job: JobContext,
    command: Command,
    program: Program,
    pipes: Pipes,
}

/// Why the wait for a program is over.
enum End {
    Told(Option<Told>),
    TooMuch,
    Asked,
    TimedOut,
}

impl Attempt {
    async fn run(mut self) -> Result<Answer, Failure> {
        let limit = Duration::from_millis(self.command.timeout_ms.unwrap_or(TIMEOUT_MS));
        let job = self.job.clone();
        let end = tokio::select! {
            biased;
            () = job.cancelled() => End::Asked,
            () = tokio::time::sleep(limit) => End::TimedOut,
            end = self.watch() => end,
        };
        let grace = self.command.grace();
        match end {
            End::Told(Some(Told::Ended(status))) => {
                let moment = self.command.pipe_grace();
                let read = tokio::time::timeout(moment, self.pipes.read()).await;
                let too_much = matches!(read, Ok(Err(TooMuch)));
                self.end(moment).await;
                if too_much { self.too_much() } else { self.answer(status) }
            }
            End::Told(Some(Told::NotStarted(why))) => {
                self.end(Duration::ZERO).await;
                Err(Failure::Failed(format!("cannot start: {why}")))
            }
            End::Told(Some(Told::TooMany)) => {
                self.end(Duration::ZERO).await;
                let most = self.command.processes();
                Err(Failure::Refused(format!("it had more than the {most} processes that it may have")))
            }
            End::Told(None) => {
                self.end(Duration::ZERO).await;
                Err(Failure::Failed("its supervision was ended from outside".to_owned()))
            }
            End::TooMuch => {
                self.end(Duration::ZERO).await;
                self.too_much()
            }
            End::TimedOut => {
                self.end(grace).await;
                let limit = limit.as_millis();
                Err(Failure::Failed(
                    self.with_tail(format!("it ran longer than the {limit} ms of its configuration")),
                ))
            }
            End::Asked => {
                self.end(grace).await;
                Err(Failure::Failed(self.with_tail("stopped".to_owned())))
            }
        }
    }

    /// Reads what it writes until it ends.
    async fn watch(&mut self) -> End {
        let Self { program, pipes, .. } = self;
        tokio::select! {
            told = program.told() => return End::Told(told),
            read = pipes.read() => if read.is_err() { return End::TooMuch },
        }
        End::Told(program.told().await)
    }

    /// Ends the whole tree: asks first, if there is a grace. Its pipes are read meanwhile.
    async fn end(&mut self, grace: Duration) {
        let ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let order = if ms == 0 { Order::Kill } else { Order::Term(ms) };
        let Self { program, pipes, .. } = self;
        program.order(order).await;
        let in_order = tokio::select! {
            in_order = program.gone() => in_order,
            // The keeper closes its own ends; when all are closed there is nothing to read.
            never = async { pipes.discard().await; std::future::pending().await } => never,
        };
        if !in_order {
            self.hunt().await;
        }
    }

    /// Somebody killed the keeper.
    async fn hunt(&self) {
        let mark = format!("{MARK}={}", mark(&self.job));
        let hunt = move || (0..HUNTS_MAX).any(|_| tree::hunt(&mark) == 0);
        self.job.blocking(hunt).await;
    }

    fn with_tail(&self, text: String) -> String {
        let tail = self.pipes.tail();
        if tail.is_empty() { text } else { format!("{text}: {tail}") }
    }

    fn too_much(&self) -> Result<Answer, Failure> {
        Err(Failure::Refused(format!("it wrote more than {} bytes", self.command.output_bytes())))
    }

    fn answer(self, status: i32) -> Result<Answer, Failure> {
        if status != 0 {
            return Err(Failure::Failed(self.with_tail(describe(status))));
        }
        let tail = self.pipes.tail();
        let answer = output(self.pipes.head);
        Ok(if tail.is_empty() { answer } else { answer.with_note(&json!({ "stderr": tail })) })
    }
}

/// JSON as it was written; other text as text; anything else as base64.
pub(super) fn output(bytes: Vec<u8>) -> Answer {
    match String::from_utf8(bytes) {
        Ok(text) => Answer::json_or_text(text),
        Err(error) => {
            let bytes = STANDARD.encode(error.as_bytes());
            Answer::from(json!({"encoding": "base64", "data": Value::String(bytes)}))
        }
    }
}
