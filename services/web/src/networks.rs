//! Who may come in, by address: the longest prefix that covers the client decides.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `allow` and `deny` of a site or route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworksConfig {
    /// Networks that may come in. If there are any, all others may not.
    #[serde(deserialize_with = "config::networks")]
    pub allow: Vec<IpNet>,
    /// Networks that may not. The longer prefix wins: `allow = ["10.0.0.0/8"]`, `deny = ["10.66.0.0/16"]`.
    #[serde(deserialize_with = "config::networks")]
    pub deny: Vec<IpNet>,
}

/// The lists, ready to be asked. A look-up is one hash for each prefix length in use, whatever the number of networks.
#[derive(Debug, Default)]
pub struct Networks {
    /// In use, longest first.
    lengths: Vec<u8>,
    allowed: HashMap<IpNet, bool>,
    others_allowed: bool,
}

impl Networks {
    /// The lists as a site says them; a network on both is denied.
    #[must_use]
    pub fn new(config: &NetworksConfig) -> Self {
        let mut allowed: HashMap<IpNet, bool> = config.allow.iter().map(|net| (net.trunc(), true)).collect();
        allowed.extend(config.deny.iter().map(|net| (net.trunc(), false)));
        let mut lengths: Vec<u8> = allowed.keys().map(IpNet::prefix_len).collect();
        lengths.sort_unstable_by(|one, two| two.cmp(one));
        lengths.dedup();
        Self { lengths, allowed, others_allowed: config.allow.is_empty() }
    }

    /// Whether the client at this address may come in. An IPv4 address in IPv6 clothes is one of IPv4.
    #[must_use]
    pub fn admit(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let known = self.lengths.iter().find_map(|length| {
            let net = IpNet::new(client, *length).ok()?; // a length of IPv6 is none of IPv4
            self.allowed.get(&net.trunc()).copied()
        });
        known.unwrap_or(self.others_allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Networks::new(&NetworksConfig { allow: nets(allow), deny: nets(deny) })
    }

    #[test]
    fn the_longest_prefix_decides() {
        let networks = networks(
            &["10.0.0.0/8", "10.66.6.0/24", "2001:db8::/32"],
            &["10.66.0.0/16", "2001:db8:bad::/48"],
        );
        for (client, expected) in [
            ("10.1.2.3", true),
            ("10.66.1.1", false),
            ("10.66.6.1", true),
            ("11.0.0.1", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("2001:db8:bad::1", false),
            ("::1", false),
        ] {
            assert_eq!(networks.admit(client.parse().unwrap()), expected, "{client}");
        }
    }

    #[test]
    fn without_an_allow_list_everybody_else_may_come_in() {
        let networks = networks(&[], &["192.0.2.0/24"]);
        assert!(
            networks.admit("192.0.3.1".parse().unwrap()) && !networks.admit("192.0.2.9".parse().unwrap())
        );
        assert!(Networks::new(&NetworksConfig::default()).admit("::1".parse().unwrap()));
        assert!(!self::networks(&["0.0.0.0/0"], &["0.0.0.0/0"]).admit("1.1.1.1".parse().unwrap()));
    }
}
