//! Text of others, made fit for a terminal. A terminal obeys what it is shown: escape sequences move the cursor, change
//! the title or answer on the keyboard's behalf (ECMA-48), and Unicode's bidirectional controls show a text in another
//! order than it has (CVE-2021-42574). Whoever prints a name, a payload or an error that a client chose prints it
//! through here.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal may take the character as an order, or a reader may not see that it is there: C0, DEL and C1
/// controls, line and paragraph separators, bidirectional controls, and characters that are shown as nothing. The two
/// joiners (U+200C, U+200D) are none: scripts and emoji need them.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// `text` on one line, with every such character written as an escape: `\n`, `\x1b`, `\u{202e}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| {
        let _ = match c {
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            c => write!(out, "\\u{{{:x}}}", u32::from(c)),
        }; // writing to a String cannot fail
    })
}

/// A JSON text that means the same, without such characters: inside of its strings they become `\u` escapes (RFC 8259
/// section 7). White space between its values stays, but for carriage returns: those become spaces.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escaped(json, |c, out| {
        let _ = match c {
            '\n' | '\t' => out.write_char(c),
            '\r' => out.write_char(' '),
            c => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}")),
        };
    })
}

/// Text without such characters, which is nearly all text, is not copied.
fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let Some(first) = text.find(is_control) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_control(c) { escape(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(printable("a \u{1b}]0;title\u{7} b"), "a \\x1b]0;title\\x07 b");
        assert_eq!(printable("\u{9b}31m"), "\\x9b31m", "C1: a control sequence in one character");
        assert_eq!(printable("user\u{202e}nimda"), "user\\u{202e}nimda");
        assert_eq!(printable("a\r\n\tb\u{7f}\u{2028}"), "a\\r\\n\\tb\\x7f\\u{2028}");
        assert_eq!(printable("\u{feff}\u{200b}\u{e0041}"), "\\u{feff}\\u{200b}\\u{e0041}");
        for whole in ["", "straße 👩‍💻 می‌خواهم", "[31m \\x1b"] {
            assert!(matches!(printable(whole), Cow::Borrowed(same) if same == whole), "{whole}");
        }
    }

    #[test]
    fn json_means_the_same_and_steers_nothing() {
        let value = serde_json::json!({ "k\u{9b}": "\u{1b}[2J\u{202e}\u{e0041}\u{7f}", "n": [1, 2] });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap().replace('\n', "\r\n")] {
            let shown = printable_json(&text);
            assert!(!shown.contains(|c| is_control(c) && c != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
