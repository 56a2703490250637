//! W3C Trace Context, level 1: <https://www.w3.org/TR/trace-context-1/>.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a piece of work is in a distributed trace: the `traceparent` header as a value.
///
/// It prints as the header's value: `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The whole trace.
    pub trace_id: NonZeroU128,
    /// This piece of work in it.
    pub span_id: NonZeroU64,
    /// Bit 0: the caller records this trace. Others are kept as they came.
    pub flags: u8,
}

/// A `traceparent` that is not one. The receiver starts a trace of its own (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTraceparent;

impl fmt::Display for InvalidTraceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("traceparent is not `00-<32 hex>-<16 hex>-<2 hex>`")
    }
}

impl std::error::Error for InvalidTraceparent {}

impl Trace {
    /// A new trace, sampled.
    #[must_use]
    pub fn start() -> Self {
        Self { trace_id: random_u128(), span_id: random_u64(), flags: 1 }
    }

    /// Reads a `traceparent` strictly: lower-case hex, no zero ids, no version `ff`; a later version may carry
    /// more after a dash, which is ignored (section 4.1).
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(traceparent: &str) -> Result<Self, InvalidTraceparent> {
        let text = traceparent.as_bytes();
        let dashes = text.len() >= 55 && text[2] == b'-' && text[35] == b'-' && text[52] == b'-';
        if !dashes {
            return Err(InvalidTraceparent);
        }
        let version = hex(&text[0..2])?;
        let rest_is_allowed = text.len() == 55 || (version != 0 && text[55] == b'-');
        if version == 0xff || !rest_is_allowed {
            return Err(InvalidTraceparent);
        }
        let trace_id = NonZeroU128::new(hex(&text[3..35])?).ok_or(InvalidTraceparent)?;
        let span_id = u64::try_from(hex(&text[36..52])?).ok().and_then(NonZeroU64::new);
        let flags = u8::try_from(hex(&text[53..55])?).map_err(|_| InvalidTraceparent)?;
        Ok(Self { trace_id, span_id: span_id.ok_or(InvalidTraceparent)?, flags })
    }

    /// The caller's trace continued by one span, or a new trace if there is none or it is malformed.
    #[must_use]
    pub fn continued(traceparent: Option<&str>) -> Self {
        traceparent.and_then(|text| Self::parse(text).ok()).map_or_else(Self::start, |trace| trace.child())
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: random_u64(), ..*self }
    }

    /// A log span that puts `trace_id` and `span_id` in every line below it. It is on at every filter, so it costs
    /// about a microsecond: a hot path names the ids in its own events instead.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        let (trace_id, span_id) = (self.trace_id, self.span_id);
        tracing::error_span!(
            "trace",
            trace_id = format_args!("{trace_id:032x}"),
            span_id = format_args!("{span_id:016x}")
        )
    }

    /// The trace id as 32 hex digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for Trace {
    type Err = InvalidTraceparent;
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        Self::parse(text)
    }
}

impl Serialize for Trace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Trace {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Lower-case hex only: upper case is malformed in a `traceparent` (section 3.2.2).
fn hex(digits: &[u8]) -> Result<u128, InvalidTraceparent> {
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'9' => Ok(value << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Ok(value << 4 | u128::from(digit - b'a' + 10)),
        _ => Err(InvalidTraceparent),
    })
}

fn random_u128() -> NonZeroU128 {
    NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MIN)
}

fn random_u64() -> NonZeroU64 {
    NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Section 3.2: the example of the recommendation reads and prints back.
    #[test]
    fn a_traceparent_reads_and_prints_back() {
        let trace = Trace::parse(EXAMPLE).expect("the example of the recommendation");
        assert_eq!(trace.to_string(), EXAMPLE);
        assert_eq!(trace.flags, 1);
        let json = serde_json::to_string(&trace).unwrap();
        assert_eq!(serde_json::from_str::<Trace>(&json).unwrap(), trace);
    }

    /// Section 4.3: a receiver that cannot parse it starts a new trace.
    #[test]
    fn what_is_malformed_is_refused_and_starts_a_new_trace() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(bad), Err(InvalidTraceparent), "{bad}");
            assert_ne!(Trace::continued(Some(bad)).to_string(), bad);
        }
        assert_ne!(Trace::continued(None), Trace::continued(None));
    }

    /// Section 4.1: a later version may carry more, which is ignored.
    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert_eq!(Trace::parse(later).expect("later versions read").to_string(), EXAMPLE);
        assert_eq!(
            Trace::parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01."),
            Err(InvalidTraceparent)
        );
    }

    #[test]
    fn a_child_keeps_the_trace_and_has_a_span_of_its_own() {
        let parent = Trace::start();
        let child = parent.child();
        assert_eq!((parent.trace_id, parent.flags), (child.trace_id, child.flags));
        assert_ne!(parent.span_id, child.span_id);
    }
}
