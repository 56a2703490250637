//! One log line, for people or as JSON. Fields are capped while they are formatted, so a huge `Debug` costs no memory.

use std::fmt::{self, Write};

use clock::WallMs;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

use crate::terminal::{is_control, printable};

/// Longest value of one field, in bytes.
pub(crate) const FIELD_BYTES_MAX: usize = 2048;
/// After so many bytes a line takes no further field.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Colour,
    /// For journald, which adds the time and takes the level from a prefix (`sd-daemon(3)`).
    Journal,
    Json,
}

/// Collects fields, each already in the style of the line: ` key=value` or `,"key":value`.
pub(crate) struct Fields {
    style: Style,
    pub(crate) message: String,
    pub(crate) text: String,
}

impl Fields {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, message: String::new(), text: String::new() }
    }

    fn raw(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.text.len() > LINE_BYTES_MAX {
            return;
        }
        let name = field.name();
        // Writing to a String cannot fail.
        let _ = match self.style {
            // A field must not hide what the line itself says.
            Style::Json if matches!(name, "at" | "level" | "target" | "message") => {
                write!(self.text, ",\"{name}_\":{value}")
            }
            Style::Json => write!(self.text, ",\"{name}\":{value}"),
            Style::Plain | Style::Journal => write!(self.text, " {name}={value}"),
            Style::Colour => write!(self.text, " \x1b[2m{name}=\x1b[0m{value}"),
        };
    }

    fn words(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut capped = Capped::default();
        let _ = capped.write_fmt(value);
        let value = capped.finish();
        if field.name() == "message" {
            self.message = value;
            return;
        }
        let plain_word = !value.is_empty()
            && !value.contains(|c: char| c.is_whitespace() || is_control(c) || matches!(c, '"' | '='));
        match self.style {
            Style::Json => self.raw(field, format_args!("{}", Json(&value))),
            // Quoted, so that no value can pass for another field or another line, or steer a terminal.
            _ if !plain_word => self.raw(field, format_args!("{}", printable(&format!("{value:?}")))),
            _ => self.raw(field, format_args!("{value}")),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.words(field, format_args!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.words(field, format_args!("{value}"));
    }
    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = Capped::default();
        let _ = write!(text, "{error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.words(field, format_args!("{}", text.finish()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, format_args!("{value}"));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field, format_args!("{value}"));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field, format_args!("{value}"));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        match self.style {
            Style::Json if !value.is_finite() => self.raw(field, format_args!("null")),
            _ => self.raw(field, format_args!("{value}")),
        }
    }
}

/// The whole line, with its line end. `context` are the fields of the spans around it.
pub(crate) fn line(style: Style, at: WallMs, meta: &Metadata<'_>, context: &str, event: &Fields) -> String {
    let mut line = String::with_capacity(128 + event.message.len() + context.len() + event.text.len());
    let (target, level) = (meta.target(), level_word(*meta.level()));
    let message = &event.message;
    let _ = match style {
        Style::Json => {
            let message = Json(message);
            write!(line, r#"{{"at":"{at}","level":"{level}","target":"{target}","message":{message}"#)
        }
        Style::Journal => write!(line, "<{}>{target} {}", priority(*meta.level()), printable(message)),
        Style::Plain => write!(line, "{at} {level:<5} {target} {}", printable(message)),
        Style::Colour => {
            let rfc3339 = at.rfc3339();
            let time = rfc3339.get(11..23).unwrap_or(&rfc3339);
            let colour = level_colour(*meta.level());
            write!(
                line,
                "\x1b[2m{time}\x1b[0m {colour}{level:<5}\x1b[0m \x1b[2m{target}\x1b[0m {}",
                printable(message)
            )
        }
    };
    line.push_str(&event.text);
    line.push_str(context);
    line.push_str(if style == Style::Json { "}\n" } else { "\n" });
    line
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// As syslog numbers them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn level_colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// A string that keeps the first [`FIELD_BYTES_MAX`] bytes and counts the rest.
#[derive(Default)]
struct Capped {
    text: String,
    left_out: usize,
}

impl Capped {
    fn finish(mut self) -> String {
        if self.left_out > 0 {
            let _ = write!(self.text, "… ({} bytes more)", self.left_out);
        }
        self.text
    }
}

impl Write for Capped {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = if self.left_out > 0 { 0 } else { FIELD_BYTES_MAX.saturating_sub(self.text.len()) };
        let cut = more.floor_char_boundary(room.min(more.len()));
        self.text.push_str(&more[..cut]);
        self.left_out += more.len() - cut;
        Ok(())
    }
}

/// A JSON string (RFC 8259 section 7).
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if is_control(c) => {
                    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
