//! What may be asked: the body of `POST /v1/faults`, and its check.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A child panics once.
    Panic,
    /// A child returns an error once.
    Exit,
    /// A child stops answering.
    Hang,
    /// Every step of a child takes `amount_ms` longer.
    Slow,
    /// Messages of an instance vanish with `probability`.
    Drop,
    /// Messages of an instance arrive twice with `probability`.
    Duplicate,
    /// Messages of an instance take `amount_ms` longer.
    Delay,
    /// The connection of an instance to the bus is cut once.
    Disconnect,
    /// An instance reaches nobody over the bus, and nobody reaches it.
    Partition,
    /// A whole process is ended with SIGKILL.
    Kill,
}

/// What a kind of fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// A child: a worker at the leaf of the tree.
    Child,
    /// The bus link of an instance: `/node/tier/instance`.
    Link,
    /// A process: `/node`.
    Node,
}

impl Kind {
    /// Every kind, in the order they are offered.
    pub const ALL: [Self; 10] = [
        Self::Panic,
        Self::Exit,
        Self::Hang,
        Self::Slow,
        Self::Disconnect,
        Self::Partition,
        Self::Delay,
        Self::Drop,
        Self::Duplicate,
        Self::Kill,
    ];

    /// The word that the API uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Exit => "exit",
            Self::Hang => "hang",
            Self::Slow => "slow",
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Delay => "delay",
            Self::Disconnect => "disconnect",
            Self::Partition => "partition",
            Self::Kill => "kill",
        }
    }

    /// What it hits.
    #[must_use]
    pub const fn hits(self) -> Hits {
        match self {
            Self::Panic | Self::Exit | Self::Hang | Self::Slow => Hits::Child,
            Self::Drop | Self::Duplicate | Self::Delay | Self::Disconnect | Self::Partition => Hits::Link,
            Self::Kill => Hits::Node,
        }
    }

    /// It strikes once and is over, rather than lasting.
    #[must_use]
    pub const fn strikes_once(self) -> bool {
        matches!(self, Self::Panic | Self::Exit | Self::Disconnect | Self::Kill)
    }

    const fn takes_amount(self) -> bool {
        matches!(self, Self::Slow | Self::Delay)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|k| k.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|k| k.as_str()).collect();
            format!("kind is one of {}", all.join(", "))
        })
    }
}

/// Body of `POST /v1/faults`. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Path glob: `*` is one level, `**` any number of them. `/laptop/jobs/*/workers/**`.
    pub target: String,
    /// What happens to it.
    pub kind: Kind,
    /// It is undone after so long, in milliseconds; 10,000 if not given. A `panic` or `exit` that its
    /// child has not met by then does not happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// `drop`, `duplicate`: the chance for each message; else for each path that matches. 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// `slow`, `delay`: by so much, in milliseconds; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_ms: Option<u64>,
}

impl Request {
    /// A fault with every default.
    #[must_use]
    pub fn new(target: impl Into<String>, kind: Kind) -> Self {
        Self { target: target.into(), kind, for_ms: None, probability: None, amount_ms: None }
    }
}

/// A request that was checked: every value is there and in range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Path glob.
    pub target: String,
    /// What happens.
    pub kind: Kind,
    /// How long, in milliseconds.
    pub for_ms: u64,
    /// 0 to 1.
    pub probability: f64,
    /// Of `slow` and `delay`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_ms: Option<u64>,
}

/// Bounds on what may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time to live.
    pub for_max: Duration,
    /// The longest `slow` or `delay`.
    pub amount_max: Duration,
    /// Faults in force at once on one node.
    pub in_force_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { for_max: Duration::from_secs(600), amount_max: Duration::from_secs(10), in_force_max: 256 }
    }
}

/// Time to live of a fault that names none.
const FOR_MS: u64 = 10_000;
/// Of `slow` and `delay` that name no amount.
const AMOUNT_MS: u64 = 100;
/// Longest path glob.
const TARGET_MAX: usize = 512;

impl Request {
    /// Fills in the defaults and checks every value.
    ///
    /// # Errors
    /// Names the first field that is out of its range, and the range.
    pub fn check(&self, limits: &Limits) -> Result<Fault, Invalid> {
        check_target(&self.target)?;
        let for_ms = self.for_ms.unwrap_or(FOR_MS);
        let for_max = as_ms(limits.for_max);
        if for_ms == 0 || for_ms > for_max {
            return Err(Invalid::new("for_ms", format!("must be from 1 to {for_max}, and is {for_ms}")));
        }
        let probability = self.probability.unwrap_or(1.0);
        if !(probability > 0.0 && probability <= 1.0) {
            return Err(Invalid::new(
                "probability",
                format!("must be above 0 and at most 1, and is {probability}"),
            ));
        }
        if self.amount_ms.is_some() && !self.kind.takes_amount() {
            return Err(Invalid::new(
                "amount_ms",
                format!("belongs to slow and delay, not to {}", self.kind),
            ));
        }
        let amount_ms = self.kind.takes_amount().then(|| self.amount_ms.unwrap_or(AMOUNT_MS));
        let amount_max = as_ms(limits.amount_max);
        if let Some(ms) = amount_ms.filter(|ms| *ms == 0 || *ms > amount_max) {
            return Err(Invalid::new("amount_ms", format!("must be from 1 to {amount_max}, and is {ms}")));
        }
        Ok(Fault { target: self.target.clone(), kind: self.kind, for_ms, probability, amount_ms })
    }
}

fn check_target(target: &str) -> Result<(), Invalid> {
    let wrong = |why: &str| Err(Invalid::new("target", format!("{why}, like /laptop/jobs/*/workers/**")));
    if target.len() > TARGET_MAX {
        return Err(Invalid::new("target", format!("must be at most {TARGET_MAX} bytes")));
    }
    let Some(rest) = target.strip_prefix('/') else {
        return wrong("must be a path glob that starts with /");
    };
    if rest.split('/').any(str::is_empty) {
        return wrong("must have no empty level");
    }
    if target.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("must have no space or control character");
    }
    Ok(())
}

fn as_ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(r: &Request) -> &'static str {
        r.check(&Limits::default()).expect_err("out of range").field
    }

    #[test]
    fn defaults_are_filled_in() {
        let f = Request::new("/n/**", Kind::Slow).check(&Limits::default()).expect("in range");
        assert_eq!((f.for_ms, f.probability, f.amount_ms), (10_000, 1.0, Some(100)));
        let f = Request::new("/n/**", Kind::Panic).check(&Limits::default()).expect("in range");
        assert_eq!(f.amount_ms, None);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let base = Request::new("/n/**", Kind::Delay);
        assert_eq!(field(&Request { for_ms: Some(0), ..base.clone() }), "for_ms");
        assert_eq!(field(&Request { for_ms: Some(600_001), ..base.clone() }), "for_ms");
        assert_eq!(field(&Request { probability: Some(0.0), ..base.clone() }), "probability");
        assert_eq!(field(&Request { probability: Some(f64::NAN), ..base.clone() }), "probability");
        assert_eq!(field(&Request { amount_ms: Some(10_001), ..base.clone() }), "amount_ms");
        assert_eq!(field(&Request { kind: Kind::Panic, amount_ms: Some(1), ..base.clone() }), "amount_ms");
        for target in ["", "n", "/", "/n//a", "/n/", "/n/a b", "/n/\u{7}"] {
            assert_eq!(field(&Request { target: target.into(), ..base.clone() }), "target", "{target:?}");
        }
    }

    #[test]
    fn an_unknown_field_or_kind_is_refused() {
        for body in [
            r#"{"target":"/n","kind":"melt"}"#,
            r#"{"target":"/n","kind":"hang","for":"10s"}"#,
            r#"{"kind":"hang"}"#,
        ] {
            serde_json::from_str::<Request>(body).expect_err(body);
        }
    }

    #[test]
    fn kinds_read_back() {
        for k in Kind::ALL {
            assert_eq!(k.as_str().parse::<Kind>(), Ok(k));
            assert_eq!(serde_json::to_value(k).expect("a word"), k.as_str());
        }
    }
}
