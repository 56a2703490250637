//! What is said of an answer: `Cache-Status` (RFC 9211) and `Age`.

/// Why a request was forwarded (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwd {
    /// This cache does not handle such requests.
    Bypass,
    /// Its method has to be forwarded.
    Method,
    /// Nothing is stored for this URI.
    UriMiss,
    /// Something is, but not for such a request.
    VaryMiss,
    /// What is stored is fresh, and the request wants more.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part is stored.
    Partial,
}

impl Fwd {
    /// The token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What happened to a request that was not answered from the store alone.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    /// Why.
    pub fwd: Fwd,
    /// What the origin answered, if it is not what is sent on: 304 when the stored response was validated.
    pub status: Option<u16>,
    /// The answer was stored.
    pub stored: bool,
    /// It waited for the same answer as another request.
    pub collapsed: bool,
    /// Freshness that is left, seconds.
    pub ttl: Option<i64>,
}

impl Forwarded {
    /// Forwarded for this reason, and nothing else to say.
    pub const fn plain(fwd: Fwd) -> Self {
        Self { fwd, status: None, stored: false, collapsed: false, ttl: None }
    }
}

/// Longest key that is told.
const KEY_MAX: usize = 200;

/// The constant parts of the lines of one cache.
#[derive(Clone, Debug)]
pub struct Voice {
    cache: Box<str>,
    hit: Box<str>,
    forwarded: Box<str>,
}

impl Voice {
    /// `cache` is its name, a token: `edge-1`.
    pub fn new(cache: &str) -> Self {
        Self {
            cache: cache.into(),
            hit: format!("Cache-Status: {cache}; hit; ttl=").into(),
            forwarded: format!("Cache-Status: {cache}; fwd=").into(),
        }
    }

    /// The lines of an answer from the store.
    pub fn hit(&self, block: &mut impl Block, age: u32, ttl: i64, key: &[u8]) {
        block.put(self.hit.as_bytes());
        block.put(itoa::Buffer::new().format(ttl).as_bytes());
        put_key(block, key);
        block.put(b"\r\nAge: ");
        block.put(itoa::Buffer::new().format(age).as_bytes());
        block.put(b"\r\n");
    }

    /// The value for an answer that this cache made itself.
    pub fn refused(&self, fwd: Option<Fwd>, key: &[u8]) -> String {
        let mut value = self.cache.as_bytes().to_vec();
        if let Some(fwd) = fwd {
            value.extend_from_slice(b"; fwd=");
            value.extend_from_slice(fwd.as_str().as_bytes());
        }
        put_key(&mut value, key);
        String::from_utf8(value).expect("made of text")
    }

    /// The line of an answer that needed the origin.
    pub fn forwarded(&self, block: &mut impl Block, what: Forwarded, key: &[u8]) {
        block.put(self.forwarded.as_bytes());
        block.put(what.fwd.as_str().as_bytes());
        if let Some(status) = what.status {
            block.put(b"; fwd-status=");
            block.put(itoa::Buffer::new().format(status).as_bytes());
        }
        if let Some(ttl) = what.ttl {
            block.put(b"; ttl=");
            block.put(itoa::Buffer::new().format(ttl).as_bytes());
        }
        if what.stored {
            block.put(b"; stored");
        }
        if what.collapsed {
            block.put(b"; collapsed");
        }
        put_key(block, key);
        block.put(b"\r\n");
    }
}

/// Where lines are written to: on the heap, or on the stack where an answer must cost nothing.
pub trait Block {
    /// Appends.
    fn put(&mut self, bytes: &[u8]);
}

impl Block for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<const N: usize> Block for smallvec::SmallVec<[u8; N]>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The key as a structured string (RFC 9651 section 3.3.3), left out if it is long or is none.
fn put_key(block: &mut impl Block, key: &[u8]) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if key.len() <= KEY_MAX && key.iter().all(plain) {
        block.put(b"; key=\"");
        block.put(key);
        block.put(b"\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&Voice, &mut Vec<u8>)) -> String {
        let mut block = Vec::new();
        write(&Voice::new("edge-1"), &mut block);
        String::from_utf8(block).unwrap()
    }

    /// RFC 9211 section 2 and RFC 9111 section 5.1.
    #[test]
    fn a_hit_says_how_fresh_and_how_old_it_is() {
        let said = text(|voice, block| voice.hit(block, 7, -3, b"http://a/"));
        assert_eq!(said, "Cache-Status: edge-1; hit; ttl=-3; key=\"http://a/\"\r\nAge: 7\r\n");
    }

    #[test]
    fn a_miss_says_why_and_what_became_of_it() {
        let what =
            Forwarded { fwd: Fwd::Stale, status: Some(304), stored: true, collapsed: true, ttl: Some(60) };
        let said = text(|voice, block| voice.forwarded(block, what, b"k\""));
        assert_eq!(said, "Cache-Status: edge-1; fwd=stale; fwd-status=304; ttl=60; stored; collapsed\r\n");
        let said = text(|voice, block| voice.forwarded(block, Forwarded::plain(Fwd::UriMiss), b"k"));
        assert_eq!(said, "Cache-Status: edge-1; fwd=uri-miss; key=\"k\"\r\n");
    }
}
