//! Answers: what statements did, and their rows, which are JSON from the moment they are read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::types::ValueRef;

use crate::budget::Charge;

/// What one statement did, as [`messages::sql::Outcome`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Row id of the last row it inserted.
    pub last_insert_id: Option<i64>,
    /// Rows it inserted, changed or deleted.
    pub rows_affected: Option<u64>,
    /// Its rows, if it returns any.
    pub rows: Option<Rows>,
    /// Why it failed.
    pub error: Option<String>,
    /// How long it ran.
    pub time: std::time::Duration,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// With the types of columns, as rqlite's clients expect.
    pub types: bool,
    /// With how long each statement ran.
    pub timings: bool,
}

/// Rows, as JSON already.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Their declared types, in lower case; of an expression what its first value is.
    pub types: Vec<String>,
    /// Blobs are lists of numbers instead of `{"base64"}`.
    pub blob_array: bool,
    /// `[row, row …]` without the brackets.
    pub json: Vec<u8>,
    /// How many.
    pub count: usize,
    /// Rows are objects by column name instead of arrays.
    pub associative: bool,
    /// Bytes that these rows hold of what all requests may hold.
    pub charge: Charge,
}

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        let (open, close) = if self.associative { (b'{', b'}') } else { (b'[', b']') };
        if self.count > 0 {
            self.json.push(b',');
        }
        self.json.push(open);
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                self.json.push(b',');
            }
            if self.associative {
                write_str(&mut self.json, column);
                self.json.push(b':');
            }
            let value = row.get_ref(i)?;
            if let Some(kind) = self.types.get_mut(i).filter(|kind| kind.is_empty()) {
                kind.push_str(kind_of(value));
            }
            match value {
                ValueRef::Blob(bytes) if self.blob_array => write_numbers(&mut self.json, bytes),
                value => write_value(&mut self.json, value),
            }
        }
        self.json.push(close);
        self.count += 1;
        Ok(())
    }
}

impl Rows {
    fn write_types(&self, out: &mut Vec<u8>) {
        let (open, close) = if self.associative { (b'{', b'}') } else { (b'[', b']') };
        out.push(open);
        for (i, (kind, column)) in self.types.iter().zip(&self.columns).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if self.associative {
                write_str(out, column);
                out.push(b':');
            }
            write_str(out, kind);
        }
        out.push(close);
    }

    /// The same rows as objects by column name.
    pub fn associate(&mut self) {
        let list = [b"[", &self.json[..], b"]"].concat();
        // What was written above reads back.
        let Ok(rows) = serde_json::from_slice::<Vec<Vec<&serde_json::value::RawValue>>>(&list) else {
            return;
        };
        let mut json = Vec::with_capacity(list.len() * 2);
        for (n, row) in rows.iter().enumerate() {
            json.push(if n > 0 { b',' } else { b' ' });
            json.push(b'{');
            for (i, (column, value)) in self.columns.iter().zip(row).enumerate() {
                if i > 0 {
                    json.push(b',');
                }
                write_str(&mut json, column);
                json.push(b':');
                json.extend_from_slice(value.get().as_bytes());
            }
            json.push(b'}');
        }
        (self.json, self.associative) = (json, true);
    }
}

impl Outcome {
    /// A statement that failed.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    /// Writes it as JSON.
    pub fn write(&self, out: &mut Vec<u8>, shape: Shape) {
        let mut object = Object { out, fields: 0 };
        if let Some(id) = self.last_insert_id {
            write_number(object.field("last_insert_id"), id);
        }
        if let Some(rows) = self.rows_affected {
            write_number(object.field("rows_affected"), rows);
        }
        if let Some(rows) = &self.rows {
            let out = object.field("columns");
            out.push(b'[');
            for (i, column) in rows.columns.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_str(out, column);
            }
            out.push(b']');
            if shape.types {
                rows.write_types(object.field("types"));
            }
            let out = object.field(if rows.associative { "rows" } else { "values" });
            out.push(b'[');
            out.extend_from_slice(&rows.json);
            out.push(b']');
        }
        if let Some(error) = &self.error {
            write_str(object.field("error"), error);
        }
        if shape.timings {
            write_number(object.field("time"), self.time.as_secs_f64());
        }
        object.end();
    }
}

/// `{"results":[…]}`
pub fn write_results(out: &mut Vec<u8>, results: &[Outcome], shape: Shape) {
    out.extend_from_slice(b"{\"results\":[");
    for (i, outcome) in results.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        outcome.write(out, shape);
    }
    out.push(b']');
    if shape.timings {
        out.extend_from_slice(b",\"time\":");
        write_number(out, results.iter().map(|one| one.time).sum::<std::time::Duration>().as_secs_f64());
    }
    out.push(b'}');
}

struct Object<'a> {
    out: &'a mut Vec<u8>,
    fields: usize,
}

impl Object<'_> {
    fn field(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(if self.fields == 0 { b'{' } else { b',' });
        self.fields += 1;
        write_str(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn end(self) {
        if self.fields == 0 {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

fn write_number(out: &mut Vec<u8>, number: impl serde::Serialize) {
    serde_json::to_writer(out, &number).expect("a number has a JSON form");
}

fn write_str(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string has a JSON form");
}

fn write_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Integer(n) => write_number(out, n),
        // JSON has no infinity; serde_json writes null.
        ValueRef::Real(x) => write_number(out, x),
        ValueRef::Text(text) => write_str(out, &String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

fn kind_of(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "",
        ValueRef::Integer(_) => "integer",
        ValueRef::Real(_) => "real",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "blob",
    }
}

fn write_numbers(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'[');
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_number(out, byte);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use messages::sql;
    use serde_json::json;

    use super::*;

    #[test]
    fn outcomes_are_written_as_messages_reads_them() {
        let rows =
            Rows { columns: vec!["a\"b".into()], json: b"[1],[\"x\"]".to_vec(), count: 2, ..Rows::default() };
        let all = [
            Outcome { last_insert_id: Some(-3), rows_affected: Some(2), ..Outcome::default() },
            Outcome { rows: Some(rows), ..Outcome::default() },
            Outcome::failed("no \"such\" table"),
            Outcome::default(),
        ];
        let mut out = Vec::new();
        write_results(&mut out, &all, Shape::default());
        let read: sql::Results = serde_json::from_slice(&out).unwrap();
        assert_eq!((read.results[0].last_insert_id, read.results[0].rows_affected), (Some(-3), Some(2)));
        assert_eq!(read.results[1].columns, ["a\"b"]);
        assert_eq!(read.results[1].values, [vec![json!(1)], vec![json!("x")]]);
        assert_eq!(read.results[2].error.as_deref(), Some("no \"such\" table"));
        assert_eq!(read.results[3], sql::Outcome::default());
    }
}
