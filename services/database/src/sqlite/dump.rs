//! A text of many statements, as `sqlite3`'s `.dump` writes it, in its statements.

/// Each statement of the text, without what is between them. What is left at the end is one too, ended or not.
#[must_use]
pub fn statements(text: &str) -> Vec<&str> {
    let (mut all, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (one, after) = rest.split_at(length(rest.as_bytes()));
        if !super::guard::is_empty(one) {
            all.push(one.trim());
        }
        rest = after;
    }
    all
}

/// Where the next semicolon must be one that ends the statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Semicolon,
    /// `END` behind a semicolon.
    End,
    Other,
}

/// Length of the first statement with its semicolon. Those in a trigger's body end it only behind an END of their own, as
/// `sqlite3_complete` has it.
fn length(text: &[u8]) -> usize {
    let (mut at, mut last) = (0, Last::Other);
    let mut head: Vec<&[u8]> = Vec::new();
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];
        if byte == b';' {
            if last == Last::End || !is_trigger(&head) {
                return at + 1;
            }
            last = Last::Semicolon;
        } else if is_word(byte) {
            let n = rest.iter().take_while(|byte| is_word(**byte)).count();
            let ends = last == Last::Semicolon && rest[..n].eq_ignore_ascii_case(b"end");
            last = if ends { Last::End } else { Last::Other };
            if head.len() < 3 {
                head.push(&rest[..n]);
            }
            at += n;
            continue;
        } else if !byte.is_ascii_whitespace() && comment(rest).is_none() {
            last = Last::Other;
        }
        at += comment(rest).or_else(|| quoted(rest)).unwrap_or(1);
    }
    at
}

fn is_trigger(head: &[&[u8]]) -> bool {
    let is = |at: usize, words: &[&str]| {
        head.get(at).is_some_and(|word| words.iter().any(|it| word.eq_ignore_ascii_case(it.as_bytes())))
    };
    is(0, &["create"]) && (is(1, &["trigger"]) || is(1, &["temp", "temporary"]) && is(2, &["trigger"]))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// Length of the comment that begins here.
fn comment(text: &[u8]) -> Option<usize> {
    let until = |end: &[u8]| {
        let found = memchr::memmem::find(&text[2..], end);
        found.map_or(text.len(), |at| 2 + at + end.len())
    };
    match text {
        [b'-', b'-', ..] => Some(until(b"\n")),
        [b'/', b'*', ..] => Some(until(b"*/")),
        _ => None,
    }
}

/// Length of the string or quoted name that begins here. Two quotes in one are two strings beside each other.
fn quoted(text: &[u8]) -> Option<usize> {
    let end = match text.first()? {
        b'[' => b']',
        quote @ (b'\'' | b'"' | b'`') => *quote,
        _ => return None,
    };
    Some(memchr::memchr(end, &text[1..]).map_or(text.len(), |at| at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_where_sqlite_ends_them() {
        let text = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n
            INSERT INTO t VALUES('a;''b',\"c;\",[d;]) -- not; here\n;; /* nor; here */
            CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN
                SELECT CASE 1 WHEN 1 THEN 2 END; UPDATE t SET a = ';'; END ;
            CREATE TABLE trigger_of (\"end\"); SELECT 'é;'; COMMIT;\n-- the end\nSELECT 1";
        let all = statements(text);
        let heads: Vec<_> = all.iter().map(|one| one.split_whitespace().next().unwrap()).collect();
        assert_eq!(
            heads,
            ["PRAGMA", "BEGIN", "INSERT", "/*", "CREATE", "SELECT", "COMMIT;", "--"],
            "{all:#?}"
        );
        assert!(all[3].ends_with("END ;") && all[3].contains("UPDATE"));
        for text in ["", " ;\n; -- x", "/* open", "'open", "CREATE TRIGGER a BEGIN SELECT 1; "] {
            assert!(statements(text).len() <= 1, "{text}");
        }
    }
}
