//! Requests: statements with what they bind.

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
    /// Runs once for each of these instead: parameters by name.
    pub named: Vec<Named>,
}

/// Parameters by name, without the `:`, `@` or `$`.
pub type Named = Vec<(String, Param)>;

impl Statement {
    /// How often it runs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.named.len().max(self.rows.len()).max(1)
    }
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

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Param, S::Error> {
        let mut bytes = Vec::new();
        let wrong = |_| S::Error::custom("a list as parameter is a blob: numbers from 0 to 255");
        while let Some(byte) = seq.next_element::<u8>().map_err(wrong)? {
            bytes.push(byte);
        }
        Ok(Param::Blob(bytes))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Param, M::Error> {
        let wrong = || M::Error::custom("an object as parameter must be {\"base64\": \"…\"}");
        let key: String = map.next_key()?.ok_or_else(wrong)?;
        if key != "base64" {
            return Err(wrong());
        }
        let text: String = map.next_value()?;
        if map.next_key::<serde::de::IgnoredAny>()?.is_some() {
            return Err(wrong());
        }
        blob(&text)
    }
}

/// An element after the SQL, or an element of `rows`: a parameter, or several by name.
enum Item {
    One(Param),
    Named(Named),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ParamVisitor.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<Item, E> {
        ParamVisitor.visit_unit().map(Item::One)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Item, E> {
        ParamVisitor.visit_bool(value).map(Item::One)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Item, E> {
        ParamVisitor.visit_i64(value).map(Item::One)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Item, E> {
        ParamVisitor.visit_u64(value).map(Item::One)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Item, E> {
        ParamVisitor.visit_f64(value).map(Item::One)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Item, E> {
        ParamVisitor.visit_str(value).map(Item::One)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<Item, S::Error> {
        ParamVisitor.visit_seq(seq).map(Item::One)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Item, M::Error> {
        let named = named(map)?;
        if let [(name, Param::Text(text))] = &named[..]
            && name == "base64"
        {
            return blob(text).map(Item::One);
        }
        Ok(Item::Named(named))
    }
}

fn blob<E: Error>(text: &str) -> Result<Param, E> {
    BASE64.decode(text).map(Param::Blob).map_err(|_| E::custom("a blob is not valid base64"))
}

/// Names with and without their sign are the same.
fn named<'de, M: MapAccess<'de>>(mut map: M) -> Result<Named, M::Error> {
    let mut all = Named::new();
    while let Some((name, value)) = map.next_entry::<String, Param>()? {
        let name = name.strip_prefix([':', '@', '$']).map(str::to_owned).unwrap_or(name);
        if all.iter().any(|(known, _)| *known == name) {
            return Err(M::Error::custom(format_args!("the parameter {name} is given twice")));
        }
        if all.len() == NAMES_MAX {
            return Err(M::Error::custom(format_args!("more than {NAMES_MAX} parameters with a name")));
        }
        all.push((name, value));
    }
    Ok(all)
}

/// Parameters with a name in one statement: each is looked for among all.
const NAMES_MAX: usize = 1000;

/// `params`: a list, or an object by name.
enum Many {
    List(Vec<Param>),
    Named(Named),
}

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ManyVisitor)
    }
}

struct ManyVisitor;

impl<'de> Visitor<'de> for ManyVisitor {
    type Value = Many;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of parameters, or an object of parameters by name")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Many, S::Error> {
        let mut all = Vec::new();
        while let Some(param) = seq.next_element()? {
            all.push(param);
        }
        Ok(Many::List(all))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Many, M::Error> {
        named(map).map(Many::Named)
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
        let mut named = Vec::new();
        while let Some(item) = seq.next_element()? {
            match item {
                Item::One(param) => params.push(param),
                Item::Named(names) => named.push(names),
            }
        }
        if named.len() > 1 || (named.len() == 1 && !params.is_empty()) {
            return Err(S::Error::custom("parameters are a list, or one object by name"));
        }
        Ok(Statement { sql, params, named, ..Statement::default() })
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Statement, M::Error> {
        let (mut sql, mut params, mut rows) = (None, None, Vec::new());
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*key {
                "sql" => sql = Some(map.next_value()?),
                "params" => params = Some(map.next_value()?),
                "rows" => rows = map.next_value()?,
                other => return Err(M::Error::unknown_field(other, &["sql", "params", "rows"])),
            }
        }
        let sql = sql.ok_or_else(|| M::Error::missing_field("sql"))?;
        let mut statement = Statement { sql, ..Statement::default() };
        let some = !rows.is_empty();
        for row in rows {
            match row {
                Many::List(row) => statement.rows.push(row),
                Many::Named(row) => statement.named.push(row),
            }
        }
        if !statement.rows.is_empty() && !statement.named.is_empty() {
            return Err(M::Error::custom("rows are all lists, or all objects by name"));
        }
        match params {
            Some(Many::List(params)) if params.is_empty() => {}
            Some(Many::Named(params)) if params.is_empty() => {}
            Some(_) if some => return Err(M::Error::custom("a statement has either params or rows")),
            Some(Many::List(params)) => statement.params = params,
            Some(Many::Named(params)) => statement.named.push(params),
            None => {}
        }
        Ok(statement)
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
        assert_eq!(read, Statement { sql: "A".into(), params: expected, ..Statement::default() });
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
            (r#"[["x", [256]]]"#, "a list as parameter is a blob"),
            (r#"[["x", {"a": {"b": 1}}]]"#, "must be {\"base64\""),
            (r#"[["x", {"a": 1}, 2]]"#, "a list, or one object by name"),
            (r#"[["x", {"a": 1, ":a": 2}]]"#, "given twice"),
            (r#"[{"sql": "x", "rows": [[1], {"a": 1}]}]"#, "all lists, or all objects"),
            (r#"[{"sql": "x", "params": [{"base65": "AA=="}]}]"#, "must be {\"base64\""),
            (r#"[["x", {"base64": "?"}]]"#, "not valid base64"),
            (r#"[["x", 18446744073709551615]]"#, "does not fit a 64-bit integer"),
        ] {
            let error = serde_json::from_str::<Vec<Statement>>(bad).expect_err(bad).to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
