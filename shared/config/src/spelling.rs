//! One spelling of networks and addresses for every section. What is configured is what people copy from elsewhere, so
//! each reads every usual form of the one thing, and an error shows one that works.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error as _};

/// A network or a single address: `10.0.0.0/8`, `192.0.2.7`, `2001:db8::/32`. IPv4 in IPv6 clothes is IPv4.
///
/// # Errors
/// Says what is wrong, and shows some that work.
pub fn network(text: &str) -> Result<IpNet, String> {
    let address = |address: IpAddr| IpNet::from(address.to_canonical());
    text.parse::<IpNet>()
        .or_else(|_| text.parse().map(address))
        .map_err(|_| format!("{text:?} is no network: use 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"))
}

/// For serde: a list of [`network`]s.
///
/// # Errors
/// As [`network`].
pub fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| network(text).map_err(D::Error::custom)).collect()
}

/// For serde: a list of addresses of servers, `192.0.2.7:8080` or `http://192.0.2.7:8080`.
///
/// # Errors
/// Shows one that works.
pub fn addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| address(text).map_err(D::Error::custom)).collect()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let default = || bare.trim_matches(['[', ']']).parse::<IpAddr>().map(|host| SocketAddr::new(host, 80));
    let found = bare.parse::<SocketAddr>().or_else(|_| default());
    found.map_err(|_| {
        format!("{text:?} is no address of a server: use 192.0.2.7:8080 or http://192.0.2.7:8080")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_url() {
        for (text, same) in [
            ("192.0.2.7:8080", "192.0.2.7:8080"),
            ("http://192.0.2.7:8080/", "192.0.2.7:8080"),
            ("http://192.0.2.7", "192.0.2.7:80"),
            ("http://[::1]", "[::1]:80"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(same), "{text}");
        }
        for text in ["https://192.0.2.7", "app.test:80", "8080", "", "http://192.0.2.7/x"] {
            assert!(address(text).expect_err(text).contains("use 192.0.2.7:8080"), "{text}");
        }
    }

    #[test]
    fn a_network_may_be_one_address() {
        for (text, same) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()).as_deref(), Ok(same), "{text}");
        }
        for text in ["10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0/", ""] {
            assert!(network(text).expect_err(text).contains("use 192.0.2.7, 10.0.0.0/8"), "{text}");
        }
    }
}
