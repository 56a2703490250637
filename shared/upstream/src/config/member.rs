//! One member, as a configuration names it.

use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::url::MemberUrl;

/// `members` of a pool: a URL, or a table with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberConfig {
    /// Where it is, and what it speaks. A name is looked up, and again each minute.
    pub url: MemberUrl,
    /// Share relative to the others, 1 to 1,000. Default 100.
    pub weight: u32,
    /// Labels, for `canary`.
    pub labels: BTreeMap<String, String>,
}

/// Weight of a member that says nothing of it.
pub(crate) const fn weight() -> u32 {
    100
}

impl From<MemberUrl> for MemberConfig {
    fn from(url: MemberUrl) -> Self {
        Self { url, weight: weight(), labels: BTreeMap::new() }
    }
}

/// As a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(alias = "address")] // as it was called while members were `host:port` only
    url: MemberUrl,
    #[serde(default = "weight")]
    weight: u32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for MemberConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct UrlOrTable;

        impl<'de> Visitor<'de> for UrlOrTable {
            type Value = MemberConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "a URL such as \"http://10.0.0.7:3000\", or a table with `url`, `weight` and `labels`",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MemberConfig, E> {
                MemberUrl::try_from(text.to_owned()).map(MemberConfig::from).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MemberConfig, A::Error> {
                let Table { url, weight, labels } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(MemberConfig { url, weight, labels })
            }
        }

        from.deserialize_any(UrlOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_a_url_or_a_table_with_one() {
        let of = |text: &str| serde_json::from_str::<MemberConfig>(text);
        let plain = of(r#""http://a:1""#).unwrap();
        assert_eq!((plain.url.as_str(), plain.weight), ("http://a:1", 100));
        let table = of(r#"{"url": "h2c://a:1", "weight": 7, "labels": {"version": "2"}}"#).unwrap();
        assert_eq!((table.weight, table.labels["version"].as_str()), (7, "2"));
        for (wrong, says) in [("7", "a URL such as"), (r#""a""#, "for example"), (r#"{"weight": 1}"#, "url")]
        {
            assert!(of(wrong).unwrap_err().to_string().contains(says), "{wrong}");
        }
    }
}
