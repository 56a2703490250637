//! Functions of SQLite's that one call of could hold a connection for minutes, replaced by ones that end in time.
//!
//! SQLite looks at the clock between the steps of its machine, and a function is one step: `instr` of 8 MB in 8 MB, or LIKE
//! with a long pattern, compares some 10^13 bytes. What stands in [`super::text`] does the same in linear time or looks
//! at the clock itself. `json_patch` and `json_pretty` are SQLite's own, asked on a connection of theirs, with bounds.

#![allow(
    unsafe_code,
    reason = "SQLite's functions are a C interface: rusqlite gives no value as the text SQLite would make of it"
)]

use std::cell::{OnceCell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ffi};

use super::guard::Deadline;
use super::text::{self, Dialect, Over, Pace, Pattern};

/// Product of the sizes of two documents that `json_patch` merges: it looks for each member of one in the other.
const PATCH_BYTES_MAX: u64 = 1 << 32;

/// What a function has at hand, for as long as the connection lives.
struct State {
    deadline: Deadline,
    /// The pattern of LIKE or GLOB that came last, and its escape character.
    pattern: RefCell<Option<(Vec<u8>, Dialect, Pattern)>>,
    /// Where SQLite's own functions still are.
    plain: OnceCell<Connection>,
}

/// Why a function returns no value.
enum Failed {
    Over,
    TooBig,
    NoMemory,
    Says(String),
}

impl From<Over> for Failed {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

/// What a function returns.
enum Value<'a> {
    /// Put into another document it is not quoted.
    Json(Vec<u8>),
    Null,
    Integer(i64),
    Text(&'a [u8]),
    Owned(Vec<u8>),
    Blob(Vec<u8>),
}

type Answer<'a> = Result<Value<'a>, Failed>;

/// Name, number of arguments (-1: any), what it does.
type Row = (&'static CStr, c_int, for<'a> fn(&'a Call<'a>) -> Answer<'a>);

const TABLE: &[Row] = &[
    (c"instr", 2, instr),
    (c"replace", 3, replace),
    (c"trim", 2, |call| trim(call, (true, true))),
    (c"ltrim", 2, |call| trim(call, (true, false))),
    (c"rtrim", 2, |call| trim(call, (false, true))),
    (c"like", 2, |call| like(call, Dialect::Like(None))),
    (c"like", 3, |call| like(call, Dialect::Like(None))),
    (c"glob", 2, |call| like(call, Dialect::Glob)),
    (c"unhex", 2, unhex),
    (c"concat", -1, concat),
    (c"concat_ws", -1, concat_ws),
    (c"json_patch", 2, |call| patch(call, "SELECT json_patch(?, ?)")),
    (c"jsonb_patch", 2, |call| patch(call, "SELECT jsonb_patch(?, ?)")),
    (c"json_pretty", 1, pretty),
    (c"json_pretty", 2, pretty),
];

/// What [`TABLE`] has, for SQLite: one entry's function and what it has at hand.
struct Function {
    run: for<'a> fn(&'a Call<'a>) -> Answer<'a>,
    state: State,
}

/// Replaces them on a connection.
///
/// # Errors
/// SQLite's own: out of memory.
pub fn install(conn: &Connection, deadline: &Deadline) -> rusqlite::Result<()> {
    for (name, arguments, run) in TABLE {
        let state = State { deadline: deadline.clone(), pattern: RefCell::default(), plain: OnceCell::new() };
        let function = Box::into_raw(Box::new(Function { run: *run, state }));
        let flags = ffi::SQLITE_UTF8
            | ffi::SQLITE_DETERMINISTIC
            | ffi::SQLITE_INNOCUOUS
            | if name.to_bytes().starts_with(b"json") { ffi::SQLITE_RESULT_SUBTYPE } else { 0 };
        // SAFETY: the handle is open; SQLite calls `destroy` once, also when this fails, and `call` only before that.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                conn.handle(),
                name.as_ptr(),
                *arguments,
                flags,
                function.cast::<c_void>(),
                Some(call),
                None,
                None,
                Some(destroy),
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
    }
    Ok(())
}

unsafe extern "C" fn destroy(function: *mut c_void) {
    // SAFETY: it comes from `Box::into_raw` in `install`, and SQLite is done with it.
    drop(unsafe { Box::from_raw(function.cast::<Function>()) });
}

unsafe extern "C" fn call(
    context: *mut ffi::sqlite3_context,
    n: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the pointer of `install`, and `n` values that live during the call.
    let (function, values) = unsafe {
        let function = &*ffi::sqlite3_user_data(context).cast::<Function>();
        let n = usize::try_from(n).unwrap_or(0);
        (function, if n == 0 { &[][..] } else { slice::from_raw_parts(values, n) })
    };
    let call = Call { context, values, state: &function.state };
    // A panic must not go through SQLite's frames.
    let answer = catch_unwind(AssertUnwindSafe(|| (function.run)(&call)));
    // SAFETY: of this call.
    unsafe { call.give(answer.unwrap_or_else(|_| Err(Failed::Says("a function failed".to_owned())))) };
}

/// One call by SQLite.
struct Call<'a> {
    context: *mut ffi::sqlite3_context,
    values: &'a [*mut ffi::sqlite3_value],
    state: &'a State,
}

impl Call<'_> {
    fn db(&self) -> *mut ffi::sqlite3 {
        // SAFETY: the context is valid during the call.
        unsafe { ffi::sqlite3_context_db_handle(self.context) }
    }

    fn kind(&self, i: usize) -> c_int {
        // SAFETY: the values are valid during the call.
        unsafe { ffi::sqlite3_value_type(self.values[i]) }
    }

    /// A value as text, as SQLite makes it one; nothing if it is NULL.
    fn text(&self, i: usize) -> Result<Option<&[u8]>, Failed> {
        if self.kind(i) == ffi::SQLITE_NULL {
            return Ok(None);
        }
        let blob = self.kind(i) == ffi::SQLITE_BLOB;
        // SAFETY: the bytes are asked for before their length, as SQLite wants it, and stay as they are. A blob asked for
        // as text would become text for whoever looks at it next; its bytes are the same.
        unsafe {
            let value = self.values[i];
            let start =
                if blob { ffi::sqlite3_value_blob(value).cast() } else { ffi::sqlite3_value_text(value) };
            let len = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
            match (start.is_null(), len) {
                (true, 0) if blob => Ok(Some(&[])),
                (true, _) => Err(Failed::NoMemory),
                (false, _) => Ok(Some(slice::from_raw_parts(start, len))),
            }
        }
    }

    fn limit(&self, which: c_int) -> usize {
        // SAFETY: the handle is open; -1 only asks.
        usize::try_from(unsafe { ffi::sqlite3_limit(self.db(), which, -1) }).unwrap_or(0)
    }

    fn value_bytes_max(&self) -> usize {
        self.limit(ffi::SQLITE_LIMIT_LENGTH)
    }

    fn is_over(&self) -> bool {
        // SAFETY: the handle is open.
        self.state.deadline.is_over() || unsafe { ffi::sqlite3_is_interrupted(self.db()) != 0 }
    }

    fn plain(&self) -> Result<&Connection, Failed> {
        if let Some(plain) = self.state.plain.get() {
            return Ok(plain);
        }
        let opened = Connection::open_in_memory().map_err(|_| Failed::NoMemory)?;
        Ok(self.state.plain.get_or_init(|| opened))
    }

    /// # Safety
    /// Once, at the end of the call.
    unsafe fn give(&self, answer: Answer<'_>) {
        let context = self.context;
        let text = |bytes: &[u8]| {
            let (start, len) = (bytes.as_ptr().cast(), bytes.len() as u64);
            // SAFETY: SQLite copies the bytes; a length beyond its limit is an error of its.
            unsafe {
                ffi::sqlite3_result_text64(
                    context,
                    start,
                    len,
                    ffi::SQLITE_TRANSIENT(),
                    u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1),
                );
            }
        };
        // SAFETY: the context is valid during the call, and SQLite copies what it is given.
        unsafe {
            match answer {
                Ok(Value::Null) => ffi::sqlite3_result_null(context),
                Ok(Value::Integer(n)) => ffi::sqlite3_result_int64(context, n),
                Ok(Value::Text(bytes)) => text(bytes),
                Ok(Value::Owned(bytes)) => text(&bytes),
                Ok(Value::Json(bytes)) => {
                    text(&bytes);
                    ffi::sqlite3_result_subtype(context, u32::from(b'J'));
                }
                Ok(Value::Blob(bytes)) => {
                    let len = bytes.len() as u64;
                    ffi::sqlite3_result_blob64(context, bytes.as_ptr().cast(), len, ffi::SQLITE_TRANSIENT());
                }
                Err(Failed::Over) => ffi::sqlite3_result_error_code(context, ffi::SQLITE_INTERRUPT),
                Err(Failed::TooBig) => ffi::sqlite3_result_error_toobig(context),
                Err(Failed::NoMemory) => ffi::sqlite3_result_error_nomem(context),
                Err(Failed::Says(says)) => {
                    let len = c_int::try_from(says.len()).unwrap_or(c_int::MAX);
                    ffi::sqlite3_result_error(context, says.as_ptr().cast(), len);
                }
            }
        }
    }
}

fn instr<'a>(call: &'a Call<'a>) -> Answer<'a> {
    let bytes = call.kind(0) == ffi::SQLITE_BLOB && call.kind(1) == ffi::SQLITE_BLOB;
    let (Some(haystack), Some(needle)) = (call.text(0)?, call.text(1)?) else { return Ok(Value::Null) };
    Ok(Value::Integer(i64::try_from(text::instr(haystack, needle, bytes)).unwrap_or(i64::MAX)))
}

fn replace<'a>(call: &'a Call<'a>) -> Answer<'a> {
    let (Some(text), Some(pattern)) = (call.text(0)?, call.text(1)?) else { return Ok(Value::Null) };
    if matches!(pattern, [] | [0, ..]) {
        return Ok(Value::Text(text));
    }
    let Some(with) = call.text(2)? else { return Ok(Value::Null) };
    let over = || call.is_over();
    let made = text::replace(text, pattern, with, call.value_bytes_max(), &mut Pace::new(&over))?;
    made.map(Value::Owned).ok_or(Failed::TooBig)
}

fn trim<'a>(call: &'a Call<'a>, sides: (bool, bool)) -> Answer<'a> {
    let (Some(text), Some(chars)) = (call.text(0)?, call.text(1)?) else { return Ok(Value::Null) };
    let over = || call.is_over();
    Ok(Value::Text(text::trim(text, chars, sides, &mut Pace::new(&over))?))
}

fn unhex<'a>(call: &'a Call<'a>) -> Answer<'a> {
    let (Some(text), Some(ignored)) = (call.text(0)?, call.text(1)?) else { return Ok(Value::Null) };
    let over = || call.is_over();
    Ok(text::unhex(text, ignored, &mut Pace::new(&over))?.map_or(Value::Null, Value::Blob))
}

fn like<'a>(call: &'a Call<'a>, mut dialect: Dialect) -> Answer<'a> {
    let pattern = call.text(0)?;
    if pattern.is_some_and(|it| it.len() > call.limit(ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH)) {
        return Err(Failed::Says("LIKE or GLOB pattern too complex".to_owned()));
    }
    if call.values.len() == 3 {
        let Some(escape) = call.text(2)? else { return Ok(Value::Null) };
        let Some(escape) = text::one_char(escape) else {
            return Err(Failed::Says("ESCAPE expression must be a single character".to_owned()));
        };
        dialect = Dialect::Like(Some(escape));
    }
    let (Some(pattern), Some(text)) = (pattern, call.text(1)?) else { return Ok(Value::Null) };
    let mut known = call.state.pattern.borrow_mut();
    if !known.as_ref().is_some_and(|(text, how, _)| *how == dialect && text == pattern) {
        *known = Some((pattern.to_vec(), dialect, Pattern::new(pattern, dialect)));
    }
    let Some((_, _, pattern)) = known.as_ref() else { return Ok(Value::Null) };
    let over = || call.is_over();
    Ok(Value::Integer(pattern.matches(text, &mut Pace::new(&over))?.into()))
}

fn concat<'a>(call: &'a Call<'a>) -> Answer<'a> {
    if call.values.is_empty() {
        return Err(Failed::Says("wrong number of arguments to function concat()".to_owned()));
    }
    joined(call, 0, b"")
}

fn concat_ws<'a>(call: &'a Call<'a>) -> Answer<'a> {
    if call.values.len() < 2 {
        return Err(Failed::Says("wrong number of arguments to function concat_ws()".to_owned()));
    }
    let Some(separator) = call.text(0)? else { return Ok(Value::Null) };
    joined(call, 1, separator)
}

/// SQLite's own makes the whole before it looks at its size: a thousand arguments of 8 MB.
fn joined<'a>(call: &'a Call<'a>, first: usize, separator: &[u8]) -> Answer<'a> {
    let mut out = Vec::new();
    let mut some = false;
    for i in first..call.values.len() {
        let Some(text) = call.text(i)? else { continue };
        let separator = if some { separator } else { b"" };
        if out.len() + separator.len() + text.len() > call.value_bytes_max() {
            return Err(Failed::TooBig);
        }
        out.extend_from_slice(separator);
        out.extend_from_slice(text);
        some = true;
    }
    Ok(Value::Owned(out))
}

/// Has SQLite's own function answer, with these arguments; `then` sees the value before it is gone.
fn ask<T>(
    call: &Call<'_>,
    sql: &str,
    arguments: &[usize],
    then: impl FnOnce(ValueRef<'_>) -> T,
) -> Result<T, Failed> {
    let says = |error: rusqlite::Error| match error {
        rusqlite::Error::SqliteFailure(code, _) if code.code == ffi::ErrorCode::TooBig => Failed::TooBig,
        rusqlite::Error::SqliteFailure(_, Some(text)) => Failed::Says(text),
        other => Failed::Says(other.to_string()),
    };
    let mut statement = call.plain()?.prepare_cached(sql).map_err(says)?;
    for (place, i) in arguments.iter().enumerate() {
        let value = match call.kind(*i) {
            ffi::SQLITE_NULL => ValueRef::Null,
            // SAFETY: the value is valid during the call, and a number is a number in any form.
            ffi::SQLITE_INTEGER => ValueRef::Integer(unsafe { ffi::sqlite3_value_int64(call.values[*i]) }),
            // SAFETY: as above.
            ffi::SQLITE_FLOAT => ValueRef::Real(unsafe { ffi::sqlite3_value_double(call.values[*i]) }),
            ffi::SQLITE_BLOB => ValueRef::Blob(call.text(*i)?.unwrap_or_default()),
            _ => ValueRef::Text(call.text(*i)?.unwrap_or_default()),
        };
        statement.raw_bind_parameter(place + 1, ToSqlOutput::Borrowed(value)).map_err(says)?;
    }
    let mut rows = statement.raw_query();
    let row = rows.next().map_err(says)?.ok_or(Failed::NoMemory)?;
    Ok(then(row.get_ref(0).map_err(says)?))
}

fn owned(value: ValueRef<'_>) -> Value<'static> {
    match value {
        ValueRef::Text(text) => Value::Owned(text.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        _ => Value::Null,
    }
}

fn patch<'a>(call: &'a Call<'a>, sql: &str) -> Answer<'a> {
    let size = |i| Ok::<_, Failed>(call.text(i)?.map_or(0, <[u8]>::len) as u64);
    if (0..2).all(|i| matches!(call.kind(i), ffi::SQLITE_TEXT | ffi::SQLITE_BLOB))
        && size(0)? * size(1)? > PATCH_BYTES_MAX
    {
        return Err(Failed::Says("json_patch: the documents are too large: 64 KiB each are not".to_owned()));
    }
    Ok(match ask(call, sql, &[0, 1], owned)? {
        Value::Owned(text) => Value::Json(text),
        other => other,
    })
}

fn pretty<'a>(call: &'a Call<'a>) -> Answer<'a> {
    let indent = if call.values.len() == 2 { call.text(1)? } else { None };
    let indent = text::until_nul(indent.unwrap_or(b"    "));
    match ask(call, "SELECT json(?)", &[0], owned)? {
        Value::Owned(compact) => {
            let made = text::pretty(&compact, indent, call.value_bytes_max()).ok_or(Failed::TooBig)?;
            Ok(Value::Owned(made))
        }
        _ => Ok(Value::Null),
    }
}
