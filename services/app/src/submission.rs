//! From the JSON of a submit to a job that may be stored. Pure: takes `now`.

use std::borrow::Cow;
use std::time::Duration;

use clock::WallMs;
use http_support::Error;
use jobstore::{DEFAULT_QUEUE, NewJob};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Config;

/// [`messages::job::Submit`] as it is read: the payload stays the text that the client sent, checked for syntax and
/// depth, and is stored as it came. A field that is `null` is as one that is absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    queue: Option<String>,
    priority: Option<u64>,
    delay_ms: Option<u64>,
    run_at: Option<String>,
    max_attempts: Option<u64>,
    timeout_ms: Option<u64>,
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    unique: Option<&'a RawValue>,
    #[serde(borrow, default)]
    callback: Option<&'a RawValue>,
    tags: Option<Vec<String>>,
}

/// One attempt may take so long at most: a day.
const TIMEOUT_MS_MAX: u64 = 86_400_000;
const ATTEMPTS_MAX: u64 = 100;
const PRIORITY_MAX: u64 = 9;
const TAGS_MAX: usize = 16;
const TAG_BYTES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;

/// The limits of a submit that come from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    depth_max: usize,
    delay_max: Duration,
}

impl Rules {
    pub fn new(config: &Config) -> Self {
        let delay_max = Duration::from_secs(config.delay_max_days * 86_400);
        Self { depth_max: config.json_depth_max, delay_max }
    }
}

/// Reads and checks one job.
///
/// # Errors
/// 400 if it is not JSON or too deep, 422 naming the field that cannot be, 501 for a field of a later version.
pub fn read(text: &[u8], rules: &Rules, now: WallMs) -> Result<NewJob, Error> {
    let given: Submission = http_support::parse_object(text, rules.depth_max)?;
    for (field, value) in [("key", given.key), ("unique", given.unique), ("callback", given.callback)] {
        if value.is_some_and(|value| value.get() != "null") {
            return Err(Error::not_implemented(format!("`{field}` is reserved for a later version"))
                .with("field", field));
        }
    }
    name("kind", &given.kind)?;
    let queue = given.queue.unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
    name("queue", &queue)?;
    let tags = given.tags.unwrap_or_default();
    check_tags(&tags)?;
    let run_at = start_time(given.delay_ms, given.run_at.as_deref(), rules.delay_max, now)?;
    // 0: as the command's configuration says, which its runner knows.
    let timeout_ms = match given.timeout_ms {
        None if given.kind == "command" => 0,
        given => ranged("timeout_ms", given, 60_000, 1, TIMEOUT_MS_MAX)?,
    };
    Ok(NewJob {
        id: new_id(now),
        kind: given.kind.into_owned(),
        queue,
        priority: ranged("priority", given.priority, 4, 0, PRIORITY_MAX)? as u8,
        run_at,
        max_attempts: ranged("max_attempts", given.max_attempts, 5, 1, ATTEMPTS_MAX)? as u32,
        timeout_ms,
        payload: given.payload.map_or_else(|| "null".to_owned(), |raw| raw.get().to_owned()),
        tags,
        traceparent: None,
    })
}

/// RFC 9562 section 5.7. The time is `now`, so that ids sort as jobs came; the rest is random.
fn new_id(now: WallMs) -> Uuid {
    let millis = u64::try_from(now.0).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

/// Whether `text` may name a kind or a queue: `[a-z0-9][a-z0-9_.-]{0,63}`.
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(|&b| plain(b))
        && bytes.iter().all(|&b| plain(b) || matches!(b, b'_' | b'.' | b'-'))
}

fn name(field: &str, text: &str) -> Result<(), Error> {
    if is_name(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(invalid(field, format!("{shown:?} is not a name: [a-z0-9][a-z0-9_.-]{{0,63}}")))
}

fn ranged(field: &str, given: Option<u64>, default: u64, min: u64, max: u64) -> Result<u64, Error> {
    let value = given.unwrap_or(default);
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(invalid(field, format!("{value} is not in {min} to {max}")))
    }
}

fn check_tags(tags: &[String]) -> Result<(), Error> {
    if tags.len() > TAGS_MAX {
        return Err(invalid("tags", format!("{} are more than {TAGS_MAX}", tags.len())));
    }
    let is_tag =
        |tag: &String| (1..=TAG_BYTES_MAX).contains(&tag.len()) && !tag.chars().any(char::is_control);
    match tags.iter().position(|tag| !is_tag(tag)) {
        None => Ok(()),
        Some(at) => {
            let detail = format!("a tag has 1 to {TAG_BYTES_MAX} bytes and no control characters");
            Err(invalid(&format!("tags[{at}]"), detail))
        }
    }
}

/// A time in the past means now.
fn start_time(
    delay_ms: Option<u64>,
    run_at: Option<&str>,
    delay_max: Duration,
    now: WallMs,
) -> Result<WallMs, Error> {
    let (field, at) = match (delay_ms, run_at) {
        (None, None) => return Ok(now),
        (Some(_), Some(_)) => {
            return Err(invalid("run_at", "give `run_at` or `delay_ms`, not both".to_owned()));
        }
        (Some(delay), None) => ("delay_ms", now.plus(Duration::from_millis(delay))),
        (None, Some(text)) => {
            let at = WallMs::parse_rfc3339(text);
            (
                "run_at",
                at.map_err(|_| {
                    invalid(
                        "run_at",
                        "is no RFC 3339 time (2026-01-31T12:00:00Z), or out of range".to_owned(),
                    )
                })?,
            )
        }
    };
    if at.since(now) > delay_max {
        let days = delay_max.as_secs() / 86_400;
        return Err(invalid(field, format!("is more than {days} days ahead")));
    }
    Ok(at.max(now))
}

fn invalid(field: &str, detail: String) -> Error {
    Error::unprocessable("invalid-request", format!("`{field}`: {detail}")).with("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMs = WallMs(1_700_000_000_000);

    fn submit(text: &str) -> Result<NewJob, (u16, Option<String>)> {
        read(text.as_bytes(), &Rules::new(&Config::default()), NOW).map_err(|error| {
            let problem = error.problem();
            (problem.status, problem.more.get("field").and_then(|f| f.as_str()).map(str::to_owned))
        })
    }

    fn refused(status: u16, field: &str) -> Result<NewJob, (u16, Option<String>)> {
        Err((status, Some(field.to_owned())))
    }

    #[test]
    fn what_is_absent_has_the_documented_default() {
        let job = submit(r#"{"kind":"digest"}"#).unwrap();
        assert_eq!(
            (job.queue.as_str(), job.priority, job.max_attempts, job.timeout_ms),
            ("default", 4, 5, 60_000)
        );
        assert_eq!((job.payload.as_str(), job.run_at, job.tags.len()), ("null", NOW, 0));
        assert_eq!(job.id.get_version_num(), 7);
    }

    /// A command that may take two minutes was ended after one.
    #[test]
    fn a_command_without_a_time_limit_gets_the_one_of_its_configuration() {
        assert_eq!(submit(r#"{"kind":"command"}"#).unwrap().timeout_ms, 0);
        assert_eq!(submit(r#"{"kind":"command","timeout_ms":null}"#).unwrap().timeout_ms, 0);
        assert_eq!(submit(r#"{"kind":"command","timeout_ms":7}"#).unwrap().timeout_ms, 7);
        assert_eq!(submit(r#"{"kind":"commander"}"#).unwrap().timeout_ms, 60_000);
    }

    #[test]
    fn the_payload_is_kept_as_it_was_sent() {
        let job =
            submit(r#"{"kind":"digest","payload": {"b":1, "a" : 1.50e2, "big":12345678901234567890123} }"#)
                .unwrap();
        assert_eq!(job.payload, r#"{"b":1, "a" : 1.50e2, "big":12345678901234567890123}"#);
    }

    #[test]
    fn the_wire_type_and_this_reader_know_the_same_fields() {
        let full = messages::job::Submit {
            kind: "digest".into(),
            payload: serde_json::json!({"text": "x"}).into(),
            queue: Some("mail".into()),
            priority: Some(9),
            delay_ms: Some(5),
            run_at: None,
            max_attempts: Some(1),
            timeout_ms: Some(1),
            key: None,
            unique: None,
            callback: None,
            tags: vec!["a b".into()],
        };
        let job = submit(&serde_json::to_string(&full).unwrap()).unwrap();
        assert_eq!((job.queue.as_str(), job.priority, job.run_at), ("mail", 9, WallMs(NOW.0 + 5)));
        let text = r#"{"kind":"a","queue":null,"priority":null,"key":null,"unique":null,"callback":null,"run_at":null,"tags":null}"#;
        assert!(submit(text).is_ok(), "null is absent");
    }

    #[test]
    fn each_bad_field_is_named() {
        let with = |field: &str, value: &str| submit(&format!(r#"{{"kind":"digest","{field}":{value}}}"#));
        for (field, value) in [
            ("queue", r#""Mail""#),
            ("queue", r#""""#),
            ("queue", r#"3"#),
            ("priority", "10"),
            ("priority", "-1"),
            ("priority", "1.5"),
            ("max_attempts", "0"),
            ("max_attempts", "101"),
            ("timeout_ms", "0"),
            ("timeout_ms", "86400001"),
            ("delay_ms", "31622400001"),
            ("delay_ms", r#""5""#),
            ("run_at", r#""tomorrow""#),
            ("run_at", r#""2099-01-01T00:00:00Z""#),
            ("tags", r#""x""#),
            ("color", "1"),
        ] {
            assert_eq!(with(field, value), refused(422, field), "{field}: {value}");
        }
        assert_eq!(with("tags", r#"["a",""]"#), refused(422, "tags[1]"));
        assert_eq!(with("tags", &format!("{:?}", vec!["t"; 17])), refused(422, "tags"));
        assert_eq!(submit(r#"{"kind":"../x"}"#), refused(422, "kind"));
        assert_eq!(submit(r#"{"payload":1}"#), refused(422, "kind"));
        assert_eq!(submit(r#"{"kind":"a","kind":"b"}"#), refused(422, "kind"));
        assert_eq!(
            submit(r#"{"kind":"a","run_at":"2023-01-01T00:00:00Z","delay_ms":1}"#),
            refused(422, "run_at")
        );
        assert_eq!(submit("[]").map_err(|e| e.0), Err(422));
        assert_eq!(submit("nope").map_err(|e| e.0), Err(400));
    }

    #[test]
    fn reserved_fields_are_of_a_later_version() {
        for field in ["key", "unique", "callback"] {
            assert_eq!(submit(&format!(r#"{{"kind":"a","{field}":{{"x":1}}}}"#)), refused(501, field));
        }
    }

    #[test]
    fn a_time_in_the_past_is_now() {
        assert_eq!(submit(r#"{"kind":"a","run_at":"2001-01-01T00:00:00+02:00"}"#).unwrap().run_at, NOW);
    }

    #[test]
    fn names_are_as_documented() {
        for good in ["a", "0", "a.b_c-d", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "A", "a b", "ä", "a/b", "a:b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
