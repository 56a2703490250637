//! The HTTP bodies of [`messages::sql`], read straight into what SQLite binds and written straight from what it returns.
//!
//! The same JSON as the types in `messages`, without a tree of `serde_json::Value` between: parsing is on the way of
//! every write.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// `null`
    Null,
    /// A whole number, or a boolean as 0 or 1.
    Int(i64),
    /// A number with a fraction or exponent.
    Real(f64),
    /// A string.
    Text(String),
    /// `{"base64": "…"}`
    Blob(Vec<u8>),
}

/// A statement: `"SELECT 1"`, `["SELECT ?", 1]`, `{"sql", "params"}` or `{"sql", "rows"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statement {
    /// The SQL.
    pub sql: String,
    /// Parameters of its one run; unused when there are rows.
    pub params: Vec<Param>,
    /// Runs once for each of these, if there are any.
    pub rows: Vec<Vec<Param>>,
}

impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(n) => ValueRef::Integer(*n),
            Self::Real(x) => ValueRef::Real(*x),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ParamVisitor)
    }
}

struct ParamVisitor;

impl<'de> Visitor<'de> for ParamVisitor {
    type Value = Param;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter: null, boolean, number, string or {\"base64\": \"…\"}")
    }

    fn visit_unit<E>(self) -> Result<Param, E> {
        Ok(Param::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Param, E> {
        Ok(Param::Int(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Param, E> {
        Ok(Param::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Param, E> {
        let out_of_range =
            |_| E::custom(format_args!("{value} does not fit a 64-bit integer; send it as a string"));
        i64::try_from(value).map(Param::Int).map_err(out_of_range)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Param, E> {
        Ok(Param::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Param, E> {
        Ok(Param::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Param, E> {
        Ok(Param::Text(value))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Param, M::Error> {
        let wrong = || M::Error::custom("an object as parameter must be {\"base64\": \"…\"}");
        let (key, text): (String, String) = map.next_entry()?.ok_or_else(wrong)?;
        if key != "base64" || map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            return Err(wrong());
        }
        BASE64.decode(text).map(Param::Blob).map_err(|_| M::Error::custom("a blob is not valid base64"))
    }
}

impl<'de> Deserialize<'de> for Statement {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StatementVisitor)
    }
}

struct StatementVisitor;

impl<'de> Visitor<'de> for StatementVisitor {
    type Value = Statement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement: \"sql\", [\"sql\", parameters…] or {\"sql\", \"params\" or \"rows\"}")
    }

    fn visit_str<E>(self, sql: &str) -> Result<Statement, E> {
        Ok(Statement { sql: sql.to_owned(), ..Statement::default() })
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Statement, S::Error> {
        let sql = seq.next_element()?.ok_or_else(|| S::Error::custom("an empty statement"))?;
        let mut params = Vec::new();
        while let Some(param) = seq.next_element()? {
            params.push(param);
        }
        Ok(Statement { sql, params, rows: Vec::new() })
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Statement, M::Error> {
        let (mut sql, mut params, mut rows) = (None, Vec::new(), Vec::new());
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*key {
                "sql" => sql = Some(map.next_value()?),
                "params" => params = map.next_value()?,
                "rows" => rows = map.next_value()?,
                other => return Err(M::Error::unknown_field(other, &["sql", "params", "rows"])),
            }
        }
        if !params.is_empty() && !rows.is_empty() {
            return Err(M::Error::custom("a statement has either params or rows"));
        }
        Ok(Statement { sql: sql.ok_or_else(|| M::Error::missing_field("sql"))?, params, rows })
    }
}

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
}

/// Rows, as JSON already.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// `[row, row …]` without the brackets.
    pub json: Vec<u8>,
    /// How many.
    pub count: usize,
    /// Rows are objects by column name instead of arrays.
    pub associative: bool,
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
            write_value(&mut self.json, row.get_ref(i)?);
        }
        self.json.push(close);
        self.count += 1;
        Ok(())
    }
}

impl Outcome {
    /// A statement that failed.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    /// Writes it as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
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
            let out = object.field(if rows.associative { "rows" } else { "values" });
            out.push(b'[');
            out.extend_from_slice(&rows.json);
            out.push(b']');
        }
        if let Some(error) = &self.error {
            write_str(object.field("error"), error);
        }
        object.end();
    }
}

/// `{"results":[…]}`
pub fn write_results(out: &mut Vec<u8>, results: &[Outcome]) {
    out.extend_from_slice(b"{\"results\":[");
    for (i, outcome) in results.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        outcome.write(out);
    }
    out.extend_from_slice(b"]}");
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

#[cfg(test)]
mod tests {
    use messages::sql;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_that_messages_writes_is_read() {
        let full = sql::Statement::new("A", vec![json!(null), json!(true), json!(7), json!(0.5), json!("t")]);
        let read: Statement = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
        let expected =
            vec![Param::Null, Param::Int(1), Param::Int(7), Param::Real(0.5), Param::Text("t".into())];
        assert_eq!(read, Statement { sql: "A".into(), params: expected, rows: vec![] });
        let many = sql::Statement::many("B", vec![vec![json!(1)], vec![json!({"base64": "AAE="})]]);
        let read: Statement = serde_json::from_str(&serde_json::to_string(&many).unwrap()).unwrap();
        assert_eq!(read.rows, [vec![Param::Int(1)], vec![Param::Blob(vec![0, 1])]]);
        let list: Vec<Statement> = serde_json::from_str(r#"["SELECT 1", ["SELECT ?", -1]]"#).unwrap();
        assert_eq!(list[1].params, [Param::Int(-1)]);
    }

    #[test]
    fn what_is_no_statement_is_refused_in_words() {
        for (bad, says) in [
            ("[[]]", "an empty statement"),
            ("[[1]]", "expected a string"),
            ("[7]", "expected a statement"),
            (r#"[{"params": []}]"#, "missing field `sql`"),
            (r#"[{"sql": "x", "parms": []}]"#, "unknown field `parms`"),
            (r#"[{"sql": "x", "params": [1], "rows": [[1]]}]"#, "either params or rows"),
            (r#"[["x", [1]]]"#, "expected a parameter"),
            (r#"[["x", {"base65": "AA=="}]]"#, "must be {\"base64\""),
            (r#"[["x", {"base64": "?"}]]"#, "not valid base64"),
            (r#"[["x", 18446744073709551615]]"#, "does not fit a 64-bit integer"),
        ] {
            let error = serde_json::from_str::<Vec<Statement>>(bad).expect_err(bad).to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn outcomes_are_written_as_messages_reads_them() {
        let rows = Rows {
            columns: vec!["a\"b".into()],
            json: b"[1],[\"x\"]".to_vec(),
            count: 2,
            associative: false,
        };
        let all = [
            Outcome { last_insert_id: Some(-3), rows_affected: Some(2), ..Outcome::default() },
            Outcome { rows: Some(rows), ..Outcome::default() },
            Outcome::failed("no \"such\" table"),
            Outcome::default(),
        ];
        let mut out = Vec::new();
        write_results(&mut out, &all);
        let read: sql::Results = serde_json::from_slice(&out).unwrap();
        assert_eq!((read.results[0].last_insert_id, read.results[0].rows_affected), (Some(-3), Some(2)));
        assert_eq!(read.results[1].columns, ["a\"b"]);
        assert_eq!(read.results[1].values, [vec![json!(1)], vec![json!("x")]]);
        assert_eq!(read.results[2].error.as_deref(), Some("no \"such\" table"));
        assert_eq!(read.results[3], sql::Outcome::default());
    }
}
