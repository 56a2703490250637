//! Where in a JSON text an offset is: `items[3].name`. Used only to explain an error, so clarity goes before speed.

/// The path of the value or key at byte `offset` of `text`, which need not be valid JSON behind it.
/// Empty at the top level.
pub fn path_at(text: &[u8], offset: usize) -> String {
    enum Level {
        Object { key: String, after_colon: bool },
        Array { index: usize },
    }
    let mut levels = Vec::new();
    let mut at = 0;
    let end = offset.min(text.len());
    while at < end {
        match text[at] {
            b'{' => levels.push(Level::Object { key: String::new(), after_colon: false }),
            b'[' => levels.push(Level::Array { index: 0 }),
            b'}' | b']' => drop(levels.pop()),
            b':' => {
                if let Some(Level::Object { after_colon, .. }) = levels.last_mut() {
                    *after_colon = true;
                }
            }
            b',' => match levels.last_mut() {
                // The comma right before the offset still belongs to the value that was just read.
                _ if at + 1 == end => {}
                Some(Level::Object { after_colon, .. }) => *after_colon = false,
                Some(Level::Array { index }) => *index += 1,
                None => {}
            },
            b'"' => {
                let close = string_end(text, at);
                if let Some(Level::Object { key, after_colon: false }) = levels.last_mut() {
                    *key = String::from_utf8_lossy(&text[at + 1..close.min(text.len())]).into_owned();
                }
                at = close;
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for level in &levels {
        match level {
            Level::Object { key, .. } if key.is_empty() => {}
            Level::Object { key, .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Level::Array { index } => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Index of the quote that closes the string that opens at `open`, or the end of the text.
fn string_end(text: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// Byte offset of a line and column, both counted from 1 as `serde_json` does.
pub fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let start = match line {
        0 | 1 => 0,
        _ => text
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'\n')
            .nth(line - 2)
            .map_or(text.len(), |(i, _)| i + 1),
    };
    (start + column).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, needle: &str) -> String {
        path_at(text.as_bytes(), text.find(needle).unwrap() + needle.len())
    }

    #[test]
    fn an_offset_has_a_path() {
        let text = r#"{"a": {"b\"": [1, {"c": 2}, 30]}, "d": "x,:{["}"#;
        assert_eq!(at(text, "1"), r#"a.b\"[0]"#);
        assert_eq!(at(text, "2"), r#"a.b\"[1].c"#);
        assert_eq!(at(text, "30"), r#"a.b\"[2]"#);
        assert_eq!(at(text, "x,:{[\""), "d");
        assert_eq!(at(text, "{"), "");
    }

    #[test]
    fn lines_and_columns_are_found() {
        assert_eq!(offset_of(b"ab\ncd\nef", 1, 1), 1);
        assert_eq!(offset_of(b"ab\ncd\nef", 3, 2), 8);
        assert_eq!(offset_of(b"ab", 9, 9), 2);
    }
}
