//! SQLite's changeset format, written and read (<https://sqlite.org/session/c_changeset.html> names its parts; the byte
//! layout is told in the source of SQLite's session extension).
//!
//! A changeset is a list of sections. A section begins with `T`, the number of columns, for each column its place in the
//! key (0: none), and the table's name with a zero behind it. Changes follow: operation, a byte that is 0 here, and the
//! fields before (delete, update) and after (insert, update). A field is a type byte and its bytes; an update has fields
//! for the key and what it changes, and [`UNDEFINED`] for the others.

use rusqlite::types::ValueRef;

/// A change's kind: SQLite's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Insert = 18,
    Delete = 9,
    Update = 23,
}

/// One column of a change: a value, or not part of it.
pub(crate) type Field<'a> = Option<ValueRef<'a>>;

const UNDEFINED: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;
const NULL: u8 = 5;

/// SQLite's own limit.
const COLUMNS_MAX: usize = 32_767;

pub(crate) fn put_table(out: &mut Vec<u8>, name: &[u8], key: &[u8]) {
    out.push(b'T');
    put_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    out.extend_from_slice(name);
    out.push(0);
}

pub(crate) fn put_op(out: &mut Vec<u8>, op: Op) {
    out.extend_from_slice(&[op as u8, 0]);
}

pub(crate) fn put_field(out: &mut Vec<u8>, field: Field<'_>) {
    match field {
        None => out.push(UNDEFINED),
        Some(ValueRef::Null) => out.push(NULL),
        Some(ValueRef::Integer(number)) => {
            out.push(INTEGER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Some(ValueRef::Real(number)) => {
            out.push(REAL);
            out.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        Some(ValueRef::Text(bytes)) => put_bytes(out, TEXT, bytes),
        Some(ValueRef::Blob(bytes)) => put_bytes(out, BLOB, bytes),
    }
}

fn put_bytes(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// SQLite's variable-length integer: seven bits a byte, the highest first; a ninth byte would have eight, which no
/// length here needs.
fn put_varint(out: &mut Vec<u8>, number: u64) {
    for groups in (1..9).rev() {
        if number >> (7 * groups) != 0 {
            out.push((number >> (7 * groups)) as u8 & 0x7f | 0x80);
        }
    }
    out.push(number as u8 & 0x7f);
}

/// What comes next in a changeset.
pub(crate) enum Item<'a> {
    /// The changes from here on are of this table; for each column its place in the key.
    Table { name: &'a [u8], key: &'a [u8] },
    /// The reader's `old` and `new` hold its fields.
    Change(Op),
}

/// Reads a changeset.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    columns: usize,
    /// Fields before a delete or update.
    pub old: Vec<Field<'a>>,
    /// Fields after an insert or update.
    pub new: Vec<Field<'a>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, columns: 0, old: Vec::new(), new: Vec::new() }
    }

    /// The next item; none at the end. An error is bytes that are no changeset.
    pub(crate) fn next(&mut self) -> Result<Option<Item<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let first = self.byte()?;
        if first == b'T' {
            self.columns = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
            if !(1..=COLUMNS_MAX).contains(&self.columns) {
                return Err(Malformed);
            }
            let key = self.take(self.columns)?;
            let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
            let name = self.take(end)?;
            self.byte()?;
            return Ok(Some(Item::Table { name, key }));
        }
        let op = [Op::Insert, Op::Delete, Op::Update].into_iter().find(|op| *op as u8 == first);
        let op = op.filter(|_| self.columns > 0).ok_or(Malformed)?;
        self.byte()?;
        self.old.clear();
        self.new.clear();
        if op != Op::Insert {
            let used = std::mem::take(&mut self.old);
            self.old = self.record(used)?;
        }
        if op != Op::Delete {
            let used = std::mem::take(&mut self.new);
            self.new = self.record(used)?;
        }
        Ok(Some(Item::Change(op)))
    }

    fn record(&mut self, mut fields: Vec<Field<'a>>) -> Result<Vec<Field<'a>>, Malformed> {
        for _ in 0..self.columns {
            fields.push(self.field()?);
        }
        Ok(fields)
    }

    fn field(&mut self) -> Result<Field<'a>, Malformed> {
        Ok(match self.byte()? {
            UNDEFINED => None,
            INTEGER => Some(ValueRef::Integer(i64::from_be_bytes(self.word()?))),
            REAL => Some(ValueRef::Real(f64::from_bits(u64::from_be_bytes(self.word()?)))),
            TEXT => Some(ValueRef::Text(self.bytes()?)),
            BLOB => Some(ValueRef::Blob(self.bytes()?)),
            NULL => Some(ValueRef::Null),
            _ => return Err(Malformed),
        })
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(length)
    }

    fn word(&mut self) -> Result<[u8; 8], Malformed> {
        self.take(8)?.try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for _ in 0..8 {
            let byte = self.byte()?;
            number = number << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}

/// These bytes are no changeset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_sqlite_writes_them() {
        for (number, bytes) in [
            (0_u64, &[0_u8][..]),
            (127, &[127]),
            (128, &[0x81, 0]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x81, 0x80, 0]),
            (1 << 30, &[0x84, 0x80, 0x80, 0x80, 0]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out, bytes, "{number}");
            assert_eq!(Reader::new(&out).varint(), Ok(number));
        }
    }
}
