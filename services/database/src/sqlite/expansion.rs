//! Common table expressions that expand without end.
//!
//! SQLite copies an expression's text into each place that names it, before it looks at a clock or a limit: thirty of them,
//! each naming the one before it twice, are a billion copies, and the connection never comes back. So the copies are
//! counted beforehand, from the text, rather one too many than one too few.

use std::cell::RefCell;
use std::collections::HashSet;

/// Copies that are allowed; far more than a person writes, and some tenths of a second of SQLite's time.
const COPIES_MAX: u64 = 20_000;
/// What the client is told.
pub const REFUSED: &str =
    "the common table expressions name each other too often: SQLite would copy them more than 20,000 times";
/// Copies that a view may bring into a statement that names it once.
const VIEW_COPIES_MAX: u64 = 2_000;
/// What the client is told who makes such a view.
pub const VIEW_REFUSED: &str =
    "the views name each other too often: SQLite would copy them more than 2,000 times for one that is read";
/// Common table expressions in one statement.
const EXPRESSIONS_MAX: usize = 200;

/// A word or sign of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// In lower case; also a quoted name or a string, without its quotes.
    Word(String),
    /// Any other character but spaces.
    Sign(u8),
}

struct Expression {
    name: String,
    /// Its tokens, between the brackets.
    body: std::ops::Range<usize>,
    copies: Option<u64>,
    /// It can be named from everywhere, also with its schema before it.
    is_view: bool,
    /// The statement that it is known in.
    scope: std::ops::Range<usize>,
}

thread_local! {
    /// Texts that were found to be bounded: the same ones come again and again, and one that is waited for is run again with
    /// each group. To count its copies takes longer than SQLite needs for it.
    static KNOWN: RefCell<HashSet<Box<str>>> = RefCell::default();
}

/// Texts that a thread remembers, and bytes of each.
const KNOWN_MAX: usize = 32;
const KNOWN_BYTES_MAX: usize = 8 << 10;

/// Whether the statement may be given to SQLite.
#[must_use]
pub fn is_bounded(sql: &str) -> bool {
    let mentions_with = sql.as_bytes().windows(4).any(|part| part.eq_ignore_ascii_case(b"with"));
    if !mentions_with || KNOWN.with_borrow(|known| known.contains(sql)) {
        return true;
    }
    let bounded = is_counted_as_bounded(sql);
    if bounded && sql.len() <= KNOWN_BYTES_MAX {
        KNOWN.with_borrow_mut(|known| {
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(sql.into());
        });
    }
    bounded
}

fn is_counted_as_bounded(sql: &str) -> bool {
    let tokens = tokens(sql.as_bytes());
    let mut all = expressions(&tokens);
    if all.len() > EXPRESSIONS_MAX {
        return false;
    }
    let mut total = 0_u64;
    for at in 0..tokens.len() {
        if !all.iter().any(|one| one.body.contains(&at)) {
            total = total.saturating_add(copies_at(&tokens, &mut all, at, 0));
        }
    }
    total <= COPIES_MAX
}

/// Whether each of these views, given with its text, may be read.
#[must_use]
pub fn are_views_bounded(views: &[(String, String)]) -> bool {
    let (mut all, mut text, mut inner) = (Vec::with_capacity(views.len()), Vec::new(), Vec::new());
    for (name, sql) in views {
        let (from, own) = (text.len(), tokens(sql.as_bytes()));
        let body = from..from + own.len();
        let moved = |range: &std::ops::Range<usize>| from + range.start..from + range.end;
        inner.extend(expressions(&own).into_iter().map(|one| Expression {
            body: moved(&one.body),
            scope: body.clone(),
            ..one
        }));
        let name = name.to_ascii_lowercase();
        all.push(Expression { name, body, copies: None, is_view: true, scope: 0..usize::MAX });
        text.extend(own);
    }
    all.extend(inner);
    (0..views.len()).all(|which| copies_of(&text, &mut all, which, 0) <= VIEW_COPIES_MAX)
}

/// Copies that the name at this place brings, if it is one.
fn copies_at(tokens: &[Token], all: &mut [Expression], at: usize, depth: usize) -> u64 {
    let Token::Word(word) = &tokens[at] else { return 0 };
    let before = at.checked_sub(1).map(|before| &tokens[before]);
    let names_table = match before {
        Some(Token::Word(word)) => matches!(word.as_str(), "from" | "join" | "in"),
        Some(Token::Sign(b'.')) => at > 1 && tokens[at - 2] == Token::Word("main".to_owned()),
        Some(Token::Sign(sign)) => matches!(sign, b',' | b'('),
        None => false,
    };
    // Before a dot it says whose column is meant.
    if !names_table || tokens.get(at + 1) == Some(&Token::Sign(b'.')) {
        return 0;
    }
    let known = |one: &Expression| one.name == *word && one.scope.contains(&at);
    // A statement's own come after the views, and hide them.
    let Some(which) = all.iter().rposition(known) else { return 0 };
    // In its own definition's head, or in its own body: a recursive one is not copied again.
    if tokens.get(at + 1).is_some_and(|next| *next == Token::Word("as".to_owned()))
        && all[which].body.start > at
        && !all[which].is_view
    {
        return 0;
    }
    copies_of(tokens, all, which, depth)
}

fn copies_of(tokens: &[Token], all: &mut [Expression], which: usize, depth: usize) -> u64 {
    if depth > EXPRESSIONS_MAX {
        return u64::MAX;
    }
    if let Some(known) = all[which].copies {
        return known;
    }
    all[which].copies = Some(0);
    let mut copies = 1_u64;
    for inner in all[which].body.clone() {
        copies = copies.saturating_add(copies_at(tokens, all, inner, depth + 1));
    }
    all[which].copies = Some(copies);
    copies
}

/// `name (columns) AS NOT MATERIALIZED (body)`, wherever it stands.
fn expressions(tokens: &[Token]) -> Vec<Expression> {
    let word = |at: usize, text: &str| matches!(tokens.get(at), Some(Token::Word(word)) if word == text);
    let mut all = Vec::new();
    for at in (1..tokens.len()).filter(|at| word(*at, "as")) {
        let mut open = at + 1;
        while word(open, "not") || word(open, "materialized") {
            open += 1;
        }
        if tokens.get(open) != Some(&Token::Sign(b'(')) {
            continue;
        }
        let name = if tokens[at - 1] == Token::Sign(b')') {
            (0..at).rev().find(|back| tokens[*back] == Token::Sign(b'(')).and_then(|back| back.checked_sub(1))
        } else {
            Some(at - 1)
        };
        if let Some(Token::Word(name)) = name.map(|name| &tokens[name]) {
            let body = open + 1..closing(tokens, open);
            all.push(Expression {
                name: name.clone(),
                body,
                copies: None,
                is_view: false,
                scope: 0..tokens.len(),
            });
        }
        if all.len() > EXPRESSIONS_MAX {
            break;
        }
    }
    all
}

/// Where the bracket that opens here is closed.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign(b'(') => depth += 1,
            Token::Sign(b')') if depth == 1 => return at,
            Token::Sign(b')') => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Words, quoted names and strings are words; comments and spaces are nothing.
pub(super) fn tokens(sql: &[u8]) -> Vec<Token> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        let until = |end: &[u8], from: usize| {
            memchr::memmem::find(&rest[from.min(rest.len())..], end)
                .map_or(rest.len(), |found| from + found + end.len())
        };
        let is_word = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$') || *c >= 0x80;
        let n = match rest[0] {
            c if c.is_ascii_whitespace() => 1,
            b'-' if rest.starts_with(b"--") => until(b"\n", 2),
            b'/' if rest.starts_with(b"/*") => until(b"*/", 2),
            quote @ (b'\'' | b'"' | b'`' | b'[') => {
                let end = if quote == b'[' { b']' } else { quote };
                let n = until(&[end], 1);
                all.push(Token::Word(lower(&rest[1..n.saturating_sub(1).max(1)])));
                n
            }
            c if is_word(&c) => {
                let n = rest.iter().take_while(|c| is_word(c)).count();
                all.push(Token::Word(lower(&rest[..n])));
                n
            }
            sign => {
                all.push(Token::Sign(sign));
                1
            }
        };
        at += n;
    }
    all
}

fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubling(n: usize, body: impl Fn(usize) -> String) -> String {
        let all: Vec<_> = (1..=n).map(|i| format!("t{i}(x) AS ({})", body(i))).collect();
        format!("WITH t0(x) AS (SELECT 1), {} SELECT count(*) FROM t{n}", all.join(", "))
    }

    /// A reader that prepared the first of these never came back, with SQLite's own limits and the watchdog in place (D8).
    #[test]
    fn expressions_that_double_again_and_again_are_refused_before_sqlite_copies_them() {
        let cross = |i: usize| format!("SELECT a.x FROM t{} a, t{} b", i - 1, i - 1);
        let union = |i: usize| format!("SELECT x FROM \"T{}\"/**/UNION ALL SELECT x FROM[t{}]", i - 1, i - 1);
        let inner =
            |i: usize| format!("SELECT (SELECT max(x) FROM t{}) + (SELECT x FROM 't{}')", i - 1, i - 1);
        let many = |i: usize| format!("SELECT 1 FROM {}", vec![format!("t{}", i - 1); 60].join(" JOIN "));
        assert!(!is_bounded(&doubling(30, cross)));
        assert!(!is_bounded(&doubling(30, union)));
        assert!(!is_bounded(&doubling(16, inner)));
        assert!(!is_bounded(&doubling(3, many)));
        assert!(is_bounded(&doubling(10, cross)), "a thousand copies are no harm");
        assert!(
            is_bounded(&doubling(150, |i| format!("SELECT x + 1 FROM t{}", i - 1))),
            "a chain does not double"
        );
    }

    /// Views were not counted: thirty of them held the connection that read the last one (D8).
    #[test]
    fn views_that_double_again_and_again_are_counted_however_they_name_each_other() {
        let views = |n: usize, body: &dyn Fn(String) -> String| -> Vec<(String, String)> {
            let one =
                |i: usize| (format!("V{i}"), format!("CREATE VIEW V{i} AS {}", body(format!("v{}", i - 1))));
            (1..=n).map(one).collect()
        };
        let ways: [&dyn Fn(String) -> String; 5] = [
            &|v| format!("SELECT a.x FROM {v} AS a, {v} AS b -- both"),
            &|v| format!("SELECT a.x FROM main.{v} a JOIN \"main\".[{v}] b /* open"),
            &|v| format!("SELECT 1 AS x WHERE 1 IN {v} OR EXISTS (SELECT * FROM {v})"),
            &|v| format!("WITH c AS (SELECT x FROM {v}) SELECT a.x FROM c a, c b"),
            &|v| format!("SELECT x FROM {v} UNION ALL SELECT x FROM {v}"),
        ];
        for (which, way) in ways.iter().enumerate() {
            let mut many = views(30, way);
            assert!(!are_views_bounded(&many), "{which}");
            many.reverse();
            assert!(!are_views_bounded(&many), "{which}, the last one first");
            assert!(are_views_bounded(&views(6, way)), "{which}: what a person writes");
        }
        let columns = |v: String| format!("SELECT {} FROM {v}", vec![format!("{v}.x"); 60].join(", "));
        assert!(are_views_bounded(&views(50, &columns)), "a column's name is no copy");
        assert!(!are_views_bounded(&views(3, &|v| format!("SELECT 1 FROM {}", vec![v; 60].join(", ")))));
    }

    /// A runner's claim is one long statement, run again with each group: it was counted each time.
    #[test]
    fn what_was_counted_once_is_remembered_within_bounds() {
        let long = format!("WITH a AS (SELECT 1) SELECT * FROM a -- {}", "x".repeat(KNOWN_BYTES_MAX));
        let text = |n: usize| format!("WITH a AS (SELECT {n}) SELECT * FROM a");
        let cross = |i: usize| format!("SELECT a.x FROM t{} a, t{} b", i - 1, i - 1);
        let knows = |sql: &str| KNOWN.with_borrow(|known| known.contains(sql));
        assert!(is_bounded(&text(0)) && knows(&text(0)) && is_bounded(&text(0)));
        assert!(is_bounded(&long) && !knows(&long), "a long one is counted again");
        let refused = doubling(30, cross);
        assert!(!is_bounded(&refused) && !knows(&refused) && !is_bounded(&refused));
        assert!((0..3 * KNOWN_MAX).all(|n| is_bounded(&text(n))));
        assert!(KNOWN.with_borrow(HashSet::len) <= KNOWN_MAX);
    }

    #[test]
    fn what_people_write_goes_through() {
        for sql in [
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT * FROM n a, n b, n c",
            "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a + 1)) -- with",
            "INSERT INTO t SELECT 'with x as (' FROM t WHERE [with] = \"as\" AND (",
            "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a) -- with",
            "WITH a AS NOT MATERIALIZED (SELECT 1), b AS (SELECT * FROM a JOIN a AS c) SELECT * FROM b",
            "with",
            "WITH x AS (SELECT 'it''s' FROM y",
        ] {
            assert!(is_bounded(sql), "{sql}");
        }
    }
}
