//! JSON that is handed on as it was sent, and the one test of what may be handed on.
//!
//! RFC 8259 lets through what many parsers then refuse: half a surrogate pair, a number beyond every double. [`fault`]
//! names the first such place; whatever passes it, and the grammar, can be read by everyone later. The rest stays byte
//! for byte as it came: order of members, members that come twice, `1.50`, integers of any length, white space.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Deepest nesting of a text of ours: what `serde_json`, which recurses, still reads as a value.
pub const DEPTH_MAX: usize = 127;

/// A JSON text, kept as it was written. Two are equal if they are the same text.
#[derive(Clone, Debug, Default)]
pub struct Raw(Option<Box<RawValue>>);

/// Why a text is not handed on, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset of the fault.
    pub offset: usize,
    /// What is there.
    pub what: What,
}

/// What [`fault`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes that are not UTF-8 (RFC 8259 section 8.1).
    NotUtf8,
    /// A byte order mark (RFC 8259 section 8.1: it must not be sent).
    ByteOrderMark,
    /// Nested too deep.
    TooDeep,
    /// `\ud83d` without its other half (RFC 8259 section 8.2).
    LoneSurrogate,
    /// A number beyond the range of a double (RFC 8259 section 6).
    NumberTooLarge,
    /// The grammar of RFC 8259.
    Syntax,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.what {
            What::NotUtf8 => "this is not UTF-8",
            What::ByteOrderMark => "the text begins with a byte order mark",
            What::TooDeep => "this is nested too deep",
            What::LoneSurrogate => "this escape is half of a surrogate pair",
            What::NumberTooLarge => "this number is beyond the range of a double",
            What::Syntax => "this is not JSON",
        };
        write!(f, "{what} (byte {})", self.offset)
    }
}

impl std::error::Error for Fault {}

/// The first place that makes a text of otherwise valid grammar unreadable to somebody. One pass; a text whose grammar
/// is broken may pass or not.
///
/// # Errors
/// The place, and what is there.
pub fn fault(text: &[u8], depth_max: usize) -> Result<(), Fault> {
    let at = |offset, what| Err(Fault { offset, what });
    if let Err(error) = std::str::from_utf8(text) {
        return at(error.valid_up_to(), What::NotUtf8);
    }
    if text.starts_with(b"\xef\xbb\xbf") {
        return at(0, What::ByteOrderMark);
    }
    let (mut depth, mut i) = (0_usize, 0);
    while let Some(&byte) = text.get(i) {
        i = match byte {
            b'"' => string_end(text, i + 1)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return at(i, What::TooDeep);
                }
                i + 1
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                i + 1
            }
            b'-' | b'0'..=b'9' => number_end(text, i)?,
            _ => i + 1,
        };
    }
    Ok(())
}

/// Index after the string whose first character is at `i`.
fn string_end(text: &[u8], mut i: usize) -> Result<usize, Fault> {
    loop {
        let Some(step) = text.get(i..).and_then(|rest| rest.iter().position(|b| matches!(b, b'"' | b'\\')))
        else {
            return Ok(text.len());
        };
        i += step;
        if text[i] == b'"' {
            return Ok(i + 1);
        }
        i = match unit(text, i) {
            None => i + 2,
            Some(0xd800..=0xdbff) if matches!(unit(text, i + 6), Some(0xdc00..=0xdfff)) => i + 12,
            Some(0xd800..=0xdfff) => return Err(Fault { offset: i, what: What::LoneSurrogate }),
            Some(_) => i + 6,
        };
    }
}

/// The UTF-16 code unit that a `\u` escape at `i` stands for.
fn unit(text: &[u8], i: usize) -> Option<u16> {
    let hex = text.get(i..i + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

/// Index after the number at `i`.
fn number_end(text: &[u8], i: usize) -> Result<usize, Fault> {
    let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    let len = text[i..].iter().position(|b| !is_part(b)).unwrap_or(text.len() - i);
    let number = &text[i..i + len];
    // Asked of the parser that reads it later. What is no number at all is the grammar's business.
    if may_be_large(number) && serde_json::from_slice::<f64>(number).is_err_and(|e| is_range(&e)) {
        return Err(Fault { offset: i, what: What::NumberTooLarge });
    }
    Ok(i + len)
}

/// Up to 100 characters with an exponent of two digits are within the range, and so are up to 300 without one.
fn may_be_large(number: &[u8]) -> bool {
    match number.iter().position(|b| matches!(b, b'e' | b'E')) {
        None => number.len() > 300,
        Some(at) => number.len() > 100 || number[at..].iter().filter(|b| b.is_ascii_digit()).count() > 2,
    }
}

fn is_range(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

impl Raw {
    /// A text that everyone can read: the grammar, and [`fault`], nested at most [`DEPTH_MAX`] deep.
    ///
    /// # Errors
    /// The place, and what is there.
    pub fn parse(text: String) -> Result<Self, Fault> {
        fault(text.as_bytes(), DEPTH_MAX)?;
        let read = RawValue::from_string(text);
        read.map(|raw| Self(Some(raw)))
            .map_err(|e| Fault { offset: e.column().saturating_sub(1), what: What::Syntax })
    }

    /// The text; `null` if it was left out.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.as_ref().map_or("null", |raw| raw.get())
    }

    /// Whether it was left out, which is not the same as `null`.
    #[must_use]
    pub const fn is_left_out(&self) -> bool {
        self.0.is_none()
    }

    /// The value, without what a `Value` cannot hold: `1.50` is 1.5, of a repeated member the last counts. `null` for a
    /// text that came from elsewhere than [`Raw::parse`] and cannot be read.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(self.get()).unwrap_or_default()
    }
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        Self(RawValue::from_string(value.to_string()).ok())
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(from).map(|raw| Self(Some(raw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(usize, What)> {
        fault(text.as_bytes(), 4).err().map(|f| (f.offset, f.what))
    }

    /// A payload of `"\ud83d"` or `1e400` was accepted, and then no page that held it could be shown.
    #[test]
    fn what_a_later_reader_would_refuse_is_found_with_its_place() {
        for (text, place, what) in [
            (r#""\ud83d""#, 1, What::LoneSurrogate),
            (r#"{"a":"x\udc00"}"#, 7, What::LoneSurrogate),
            (r#"["\ud83d\ud83d\ude00"]"#, 2, What::LoneSurrogate),
            (r#"{"\uDBFF\n":1}"#, 2, What::LoneSurrogate),
            ("1e400", 0, What::NumberTooLarge),
            ("[1,-1E+309]", 3, What::NumberTooLarge),
            ("[1.5e99999999999999999999]", 1, What::NumberTooLarge),
            ("[[[[[1]]]]]", 4, What::TooDeep),
            ("\u{feff}{}", 0, What::ByteOrderMark),
        ] {
            assert_eq!(found(text), Some((place, what)), "{text}");
        }
        let long = format!("[{}]", "9".repeat(400));
        assert_eq!(found(&long), Some((1, What::NumberTooLarge)));
        assert_eq!(fault(b"\"a\xff\"", 4), Err(Fault { offset: 2, what: What::NotUtf8 }));
        assert_eq!(
            fault(b"\"\xed\xa0\x80\"", 4).map_err(|f| f.what),
            Err(What::NotUtf8),
            "a surrogate in UTF-8"
        );
    }

    #[test]
    fn whatever_passes_is_read_by_a_parser_of_values_and_kept_as_it_is() {
        for text in [
            r#"{"b":1,"a":2,"b":3}"#,
            "12345678901234567890123",
            " [1.50, -0, 1e-400 ,1E5]\n",
            r#""\ud83d\ude00 \u0000 \\ud83d \/ \" ""#,
            "1.7976931348623157e308",
            "[[[[]]]]",
            "0.1e1",
        ] {
            let kept = Raw::parse(text.to_owned());
            match kept {
                Ok(kept) => {
                    assert_eq!(kept.get(), text.trim());
                    assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
                }
                Err(_) => assert!(serde_json::from_str::<Value>(text).is_err(), "{text}: the same verdict"),
            }
        }
        for text in
            ["", "{", "nul", "[1,]", "1 2", "01", "\"\u{1}\"", "{'a':1}", r#""\x""#, r#""\u12g4""#, "1e", "-"]
        {
            assert!(Raw::parse(text.to_owned()).is_err(), "{text}");
        }
    }

    /// What the door lets in and what a parser of values reads are the same, over random texts.
    #[test]
    fn the_verdict_is_that_of_a_parser_of_values() {
        const PIECES: [&str; 36] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"",
            "\"a\"",
            "\"k\":",
            "\\",
            "\\u",
            "\\ud83d",
            "\\ude00",
            "\\u0000",
            "\\n",
            "d83d",
            "0",
            "1",
            "9",
            "-",
            "+",
            ".",
            "e",
            "E",
            "e400",
            "e-400",
            "1e308",
            "1.7976931348623159e308",
            "null",
            "true",
            " ",
            "\n",
            "\u{1}",
            "é",
            "99999999999999999999",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % n
        };
        let (mut good, mut bad) = (0, 0);
        for _ in 0..150_000 {
            let inner: String = (0..next(7)).map(|_| PIECES[next(PIECES.len())]).collect();
            let text = match next(4) {
                0 => inner,
                1 => format!("\"{inner}\""),
                2 => format!("[{inner}]"),
                _ => format!("{{\"k\":{inner}}}"),
            };
            let read = serde_json::from_str::<Value>(&text);
            assert_eq!(Raw::parse(text.clone()).is_ok(), read.is_ok(), "{text:?}: {read:?}");
            *(if read.is_ok() { &mut good } else { &mut bad }) += 1;
        }
        assert!(good > 10_000 && bad > 10_000, "{good} {bad}");
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        for n in 1..200 {
            let readable = serde_json::from_str::<Value>(&nested(n)).is_ok();
            assert_eq!(Raw::parse(nested(n)).is_ok(), readable, "{n} levels");
        }
    }

    #[test]
    fn a_raw_text_travels_through_other_types_unchanged() {
        #[derive(Serialize, Deserialize)]
        struct Holder {
            #[serde(default, skip_serializing_if = "Raw::is_left_out")]
            it: Raw,
        }
        for text in [r#"{"it":{"z":1.50,"a":12345678901234567890123}}"#, r#"{"it":null}"#, "{}"] {
            let holder: Holder = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&holder).unwrap(), text);
        }
    }
}
