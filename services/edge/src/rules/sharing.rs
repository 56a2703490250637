//! How much is shared: this cache's own choice within what RFC 9111 allows, and what the web tier says of one answer.

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use super::request::Wants;
use super::vary::Selecting;

/// The field by which the web tier tells the edge how an answer may be shared. It goes no further than to other edges.
pub const FIELD: &str = "standfast-cache";

/// How much is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// What says how long it is fresh, and is about no client: nothing with `Set-Cookie`, nothing by a heuristic; the
    /// answer to a request with `Cookie` or `Authorization` only if it says that it is for everybody (`public`,
    /// `s-maxage`, a targeted field) or varies on that field.
    #[default]
    Explicit,
    /// All that RFC 9111 allows a shared cache.
    Rfc,
    /// Nothing.
    Off,
}

/// What applies to one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How much is shared.
    pub sharing: Sharing,
    /// Longest lifetime by a heuristic, seconds.
    pub heuristic_max_s: u32,
    /// A tier behind this one has decided for one client: the response is for nobody else.
    pub private: bool,
}

impl Rules {
    /// These rules, unless the response has others. What is no word of ours counts as `private`: when in doubt, nothing
    /// is shared.
    #[must_use]
    pub fn of(self, response: &impl Fields) -> Self {
        let Some(said) = response.first(FIELD) else { return self };
        match said {
            b"explicit" => Self { sharing: Sharing::Explicit, ..self },
            b"rfc" => Self { sharing: Sharing::Rfc, ..self },
            b"off" => Self { sharing: Sharing::Off, ..self },
            _ => Self { private: true, ..self },
        }
    }
}

/// Whether a response answers a request with these credentials: it is for everybody, or was selected by them.
#[must_use]
pub fn answers(asked: &Wants<'_>, selecting: &Selecting, for_everybody: bool) -> bool {
    let by = |there: bool, name: &str| !there || selecting.has(name);
    for_everybody || (by(asked.cookie, "cookie") && by(asked.authorization, "authorization"))
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    #[test]
    fn the_response_overrides_the_rules_and_an_unknown_word_is_private() {
        let of = |block: &str| Rules::default().of(&Lines(block.as_bytes()));
        assert_eq!(of(""), Rules::default());
        assert_eq!(of("Standfast-Cache: rfc\r\n").sharing, Sharing::Rfc);
        assert_eq!(of("Standfast-Cache: off\r\n").sharing, Sharing::Off);
        assert!(of("Standfast-Cache: private\r\n").private && of("Standfast-Cache: public\r\n").private);
    }
}
