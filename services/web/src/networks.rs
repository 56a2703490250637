//! Who may come in, by address: the longest prefix that covers the client decides.

use std::collections::HashMap;
use std::net::IpAddr;

use http_support::wire::{Client, canonical_network};
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
        let net = |net: &IpNet| canonical_network(*net).trunc();
        let mut allowed: HashMap<IpNet, bool> = config.allow.iter().map(|it| (net(it), true)).collect();
        allowed.extend(config.deny.iter().map(|it| (net(it), false)));
        let mut lengths: Vec<u8> = allowed.keys().map(IpNet::prefix_len).collect();
        lengths.sort_unstable_by(|one, two| two.cmp(one));
        lengths.dedup();
        Self { lengths, allowed, others_allowed: config.allow.is_empty() }
    }

    /// Whether the client may come in. One whose address is not certain may not: no list says anything of it.
    #[must_use]
    pub fn admit(&self, client: Client) -> bool {
        client.certain && self.admit_address(client.address)
    }

    /// An IPv4 address in IPv6 clothes is one of IPv4.
    fn admit_address(&self, client: IpAddr) -> bool {
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
            assert_eq!(networks.admit_address(client.parse().unwrap()), expected, "{client}");
        }
    }

    #[test]
    fn networks_of_ipv4_may_be_written_in_ipv6_clothes_and_an_uncertain_client_is_on_no_list() {
        let networks = networks(&["::ffff:10.0.0.0/104"], &[]);
        let client = |address: &str, certain| Client { address: address.parse().unwrap(), certain };
        assert!(networks.admit(client("10.1.2.3", true)) && networks.admit(client("::ffff:10.1.2.3", true)));
        assert!(!networks.admit(client("11.1.2.3", true)) && !networks.admit(client("10.1.2.3", false)));
        let others = self::networks(&[], &["192.0.2.0/24"]);
        assert!(!others.admit(client("10.1.2.3", false)), "it may be of those who are denied");
    }

    #[test]
    fn without_an_allow_list_everybody_else_may_come_in() {
        let networks = networks(&[], &["192.0.2.0/24"]);
        assert!(
            networks.admit_address("192.0.3.1".parse().unwrap())
                && !networks.admit_address("192.0.2.9".parse().unwrap())
        );
        assert!(Networks::new(&NetworksConfig::default()).admit_address("::1".parse().unwrap()));
        assert!(!self::networks(&["0.0.0.0/0"], &["0.0.0.0/0"]).admit_address("1.1.1.1".parse().unwrap()));
    }
}
