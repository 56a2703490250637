//! What stands here against SQLite's own functions, on a connection that has both.

use proptest::prelude::*;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::*;
use crate::sqlite::guard::{Guard, Voice};

thread_local! {
    static BOTH: (Connection, Connection, Guard) = {
        let ours = Connection::open_in_memory().unwrap();
        let guard = Guard::install(&ours).unwrap();
        guard.speak(Voice::Own);
        (Connection::open_in_memory().unwrap(), ours, guard)
    };
}

fn ask(conn: &Connection, sql: &str, params: &[Value]) -> Result<Value, String> {
    conn.prepare_cached(sql)
        .and_then(|mut s| s.query_row(params_from_iter(params), |row| row.get(0)))
        .map_err(|e| e.to_string())
}

fn agree(sql: &str, params: &[Value]) -> Result<(), TestCaseError> {
    BOTH.with(|(plain, ours, _)| {
        prop_assert_eq!(ask(plain, sql, params), ask(ours, sql, params), "{} {:?}", sql, params);
        Ok(())
    })
}

/// Few letters: what is equal, overlaps and repeats is the interesting part.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abAB%_*?\\[\\]^\\-äÄ\u{10000} ]{0,12}",
        1 => "[a%_]{0,20}",
        1 => ".{0,6}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => text().prop_map(Value::Text),
        1 => Just(Value::Null),
        1 => (-12_i64..2000).prop_map(Value::Integer),
        1 => any::<f64>().prop_filter("a number", |x| !x.is_nan()).prop_map(Value::Real),
        2 => prop::collection::vec(prop::sample::select(vec![0, b'a', b'%', b'b', 0x80, 0xbf, 0xc3, 0xa4, 0xe2, 0xf0, 0xff, b'_']), 0..8)
            .prop_map(Value::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_functions_say_what_sqlites_own_say(a in value(), b in value(), c in value()) {
        for sql in ["SELECT instr(?, ?)", "SELECT instr(CAST(? AS TEXT), CAST(? AS TEXT))",
                    "SELECT trim(?, ?)", "SELECT ltrim(?, ?)", "SELECT rtrim(CAST(? AS TEXT), CAST(? AS TEXT))",
                    "SELECT ? LIKE ?", "SELECT CAST(? AS TEXT) LIKE CAST(? AS TEXT)", "SELECT ? GLOB ?",
                    "SELECT CAST(? AS TEXT) GLOB CAST(? AS TEXT)", "SELECT quote(unhex(?, ?))", "SELECT concat(?, ?)",
                    "SELECT concat_ws(?, ?)", "SELECT json_patch(?, ?)", "SELECT json_pretty(?, ?)"] {
            agree(sql, &[a.clone(), b.clone()])?;
        }
        for sql in ["SELECT quote(replace(?, ?, ?))", "SELECT ? LIKE ? ESCAPE ?", "SELECT concat(?, ?, ?)",
                    "SELECT concat_ws(?, ?, ?)", "SELECT like(?, ?, substr(?, 1, 1))",
                    "SELECT quote(replace(CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT)))"] {
            agree(sql, &[a.clone(), b.clone(), c.clone()])?;
        }
    }

    #[test]
    fn patterns_that_mostly_match_say_what_sqlites_own_say(
        text in "[abAä]{0,14}", pattern in "([abä]|[%*]|[_?]|\\[\\^?[]]?[ab]?(a-b)?-?ä?\\]){0,8}", escape in "[%_aä]",
    ) {
        let (text, escape) = (Value::Text(text), Value::Text(escape));
        let pattern = Value::Text(pattern);
        agree("SELECT ? LIKE ?", &[text.clone(), pattern.clone()])?;
        agree("SELECT ? GLOB ?", &[text.clone(), pattern.clone()])?;
        agree("SELECT ? LIKE ? ESCAPE ?", &[text, pattern, escape])?;
    }

    #[test]
    fn trimming_many_characters_says_what_sqlites_own_says(text in "[a-tä-ü]{0,30}", chars in "[a-tä-ü\u{10000}]{17,40}") {
        for sql in ["SELECT trim(?, ?)", "SELECT ltrim(?, ?)", "SELECT rtrim(?, ?)"] {
            agree(sql, &[Value::Text(text.clone()), Value::Text(chars.clone())])?;
        }
    }

    #[test]
    fn documents_say_what_sqlites_own_say(a in document(), b in document(), indent in "[ \t>]{0,3}") {
        let (a, b) = (Value::Text(a), Value::Text(b));
        agree("SELECT json_patch(?, ?)", &[a.clone(), b.clone()])?;
        agree("SELECT hex(jsonb_patch(?, ?))", &[a.clone(), b.clone()])?;
        agree("SELECT json_array(json_patch(?, ?), 1)", &[a.clone(), b])?;
        agree("SELECT json_pretty(?)", std::slice::from_ref(&a))?;
        agree("SELECT json_pretty(jsonb(?), ?)", &[a.clone(), Value::Text(indent)])?;
    }
}

fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-1.50e3".to_owned()),
        Just("'x'".to_owned()),
        Just("\"a,[{\\\"\\\\\"".to_owned()),
        Just("".to_owned()),
        "[0-9]{1,3}",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(", "))),
            prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|all| {
                let all: Vec<_> = all.iter().map(|(k, v)| format!("\"{k}\" : {v}")).collect();
                format!("{{{}}}", all.join(","))
            }),
        ]
    })
}

#[test]
fn the_number_of_arguments_is_checked_and_a_blob_stays_one() {
    BOTH.with(|(plain, ours, _)| {
        for sql in [
            "SELECT concat()",
            "SELECT concat_ws(',')",
            "SELECT 'a' LIKE 'b' ESCAPE ''",
            "SELECT 'a' LIKE 'b' ESCAPE 'xy'",
        ] {
            let refused = (ask(plain, sql, &[]), ask(ours, sql, &[]));
            assert!(refused.0.is_err() && refused.1.is_err(), "{sql}: {refused:?}");
        }
        let kinds = "SELECT instr(b, 'a') || replace(b, 'a', 'b') || typeof(b) FROM (SELECT x'6162' AS b)";
        assert_eq!(ask(ours, kinds, &[]).unwrap(), Value::Text("1bbblob".into()));
    });
}

/// One call of these held a connection for minutes (D8). Interrupted, not timed: a slow machine changes nothing.
#[test]
fn a_pattern_that_takes_long_ends_when_it_is_over() {
    let text = "a".repeat(1 << 20);
    let pattern = Pattern::new(format!("%{}b", "a".repeat(20_000)).as_bytes(), Dialect::Like(None));
    assert_eq!(pattern.matches(text.as_bytes(), &mut Pace::new(&|| true)), Err(Over));
    let many = (0..200_000).map(|i| char::from_u32(0x4e00 + i % 20_000).unwrap()).collect::<String>();
    assert_eq!(trim(many.as_bytes(), many.as_bytes(), (true, true), &mut Pace::new(&|| true)), Err(Over));
    assert_eq!(unhex(many.as_bytes(), many.as_bytes(), &mut Pace::new(&|| true)), Err(Over));
}
