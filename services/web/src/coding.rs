//! Content codings: which one a client gets (RFC 9110 section 12.5.3).

/// A content coding that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Coding {
    /// As it is.
    Identity = 1,
    /// RFC 1952.
    Gzip = 2,
    /// RFC 8878.
    Zstd = 3,
    /// RFC 7932.
    Brotli = 4,
}

impl Coding {
    /// What the server likes best, first: text gets smallest by brotli.
    pub const ALL: [Self; 4] = [Self::Brotli, Self::Zstd, Self::Gzip, Self::Identity];

    /// As in `Content-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    /// Ending of a sibling that holds the content compressed beforehand.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
        }
    }
}

/// The codings a client takes, best first. Small and comparable, so that it can be a part of a cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepted([Option<Coding>; 4]);

impl Accepted {
    /// Of a client that says nothing, or for which there is a reason to compress nothing.
    pub const IDENTITY: Self = Self([Some(Coding::Identity), None, None, None]);

    /// Reads the lines of `Accept-Encoding`. Without any, nothing is compressed: the client may take everything, but
    /// those that say nothing are those that decode nothing.
    pub fn read<'b>(lines: impl Iterator<Item = &'b [u8]>) -> Self {
        let mut qualities: [Option<u16>; 5] = [None; 5];
        let mut any = None;
        let mut said = false;
        for member in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            said = true;
            let Some((name, quality)) = member_of(member) else { continue };
            match name.to_ascii_lowercase().as_slice() {
                b"*" => any = Some(quality),
                b"gzip" | b"x-gzip" => qualities[Coding::Gzip as usize] = Some(quality),
                b"br" => qualities[Coding::Brotli as usize] = Some(quality),
                b"zstd" => qualities[Coding::Zstd as usize] = Some(quality),
                b"identity" => qualities[Coding::Identity as usize] = Some(quality),
                _ => {}
            }
        }
        if !said {
            return Self::IDENTITY;
        }
        let quality = |coding: Coding| match (qualities[coding as usize].or(any), coding) {
            (Some(quality), _) => quality,
            (None, Coding::Identity) => 1, // acceptable unless excluded, and less than all that is named
            (None, _) => 0,
        };
        let mut best = Coding::ALL;
        best.sort_by_key(|coding| std::cmp::Reverse(quality(*coding))); // stable: ours among equals
        Self(best.map(|coding| (quality(coding) > 0).then_some(coding)))
    }

    /// A number for it, other for others.
    #[must_use]
    pub fn code(self) -> u64 {
        self.0.iter().fold(0, |code, coding| code * 5 + coding.map_or(0, |coding| coding as u64))
    }

    /// Whether content may be sent as it is.
    #[must_use]
    pub fn takes_identity(self) -> bool {
        self.best_first().any(|coding| coding == Coding::Identity)
    }

    /// Best first. Empty when the client takes nothing that the server can send: 406.
    pub fn best_first(self) -> impl Iterator<Item = Coding> {
        self.0.into_iter().flatten()
    }

    /// The best one that is a compression, unless the client likes its content as it is better.
    #[must_use]
    pub fn compression(self) -> Option<Coding> {
        self.best_first().next().filter(|best| *best != Coding::Identity)
    }
}

/// A member of the list: its name, and its weight in thousandths (RFC 9110 section 12.4.2). A weight that is none
/// counts as zero: what cannot be read is no wish.
fn member_of(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    Some((name, weight.map_or(1000, thousandths)))
}

fn thousandths(weight: &[u8]) -> u16 {
    match weight {
        [b'1'] | [b'1', b'.', ..] => 1000,
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let padded = (0..3).map(|at| digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
            padded.fold(0, |sum, digit| sum * 10 + digit)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 12.5.3, rules 1 to 4, and 12.4.2 for the weights.
    #[test]
    fn codings_are_chosen_by_the_clients_weights_then_by_our_taste() {
        use Coding::{Brotli, Gzip, Identity, Zstd};
        let rows: &[(&str, &[Coding])] = &[
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip, Identity]),
            ("gzip", &[Gzip, Identity]),
            ("x-gzip", &[Gzip, Identity]),
            ("GZIP", &[Gzip, Identity]),
            ("br;q=0.5, gzip;q=0.8", &[Gzip, Brotli, Identity]),
            ("br;q=0, gzip", &[Gzip, Identity]),
            ("identity", &[Identity]),
            ("identity;q=0", &[]),
            ("*;q=0", &[]),
            ("*;q=0, br", &[Brotli]),
            ("identity;q=0, gzip;q=0.001", &[Gzip]),
            ("*", &[Brotli, Zstd, Gzip, Identity]),
            ("*;q=0.1, gzip", &[Gzip, Brotli, Zstd, Identity]),
            ("identity, gzip;q=0.5", &[Identity, Gzip]),
            ("deflate, compress", &[Identity]),
            ("", &[Identity]),
            ("gzip;q=", &[Identity]),
            ("gzip;q=1.000;x=y", &[Gzip, Identity]),
            ("gzip;q=0.12345", &[Identity]),
            (" ,, gzip ;\tq=0.3 ,", &[Gzip, Identity]),
        ];
        for (field, expected) in rows {
            let accepted = Accepted::read([field.as_bytes()].into_iter());
            assert_eq!(accepted.takes_identity(), expected.contains(&Identity), "{field}");
            assert_eq!(accepted.best_first().collect::<Vec<_>>(), *expected, "{field}");
        }
        assert_eq!(Accepted::read(std::iter::empty()), Accepted::IDENTITY);
        let lines = [&b"gzip;q=0.5"[..], b"br"];
        assert_eq!(Accepted::read(lines.into_iter()).compression(), Some(Brotli));
    }
}
