//! Which addresses a job may call: public ones, and networks that the configuration allows. A job's payload comes
//! from outside, so without this it could reach the cloud's metadata service or whatever trusts its own network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A network, as `10.1.0.0/16` or `fd00::/8`; without a length, one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Net {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |b| b.parse().map_err(|_| ()))?;
        if bits <= most { Ok(Self { address, bits }) } else { Err(()) }
    }
}

impl Net {
    const fn v4(a: u8, b: u8, c: u8, bits: u32) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits }
    }

    const fn v6(a: u16, b: u16, bits: u32) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether `ip` is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                (net.to_bits() ^ ip.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                (net.to_bits() ^ ip.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// IANA's special-purpose address registries (RFC 6890 and later entries): what is not globally reachable.
const NOT_PUBLIC_V4: &[Net] = &[
    Net::v4(0, 0, 0, 8),       // this network, RFC 791
    Net::v4(10, 0, 0, 8),      // private, RFC 1918
    Net::v4(100, 64, 0, 10),   // shared with carriers, RFC 6598; metadata at some clouds
    Net::v4(127, 0, 0, 8),     // loopback
    Net::v4(169, 254, 0, 16),  // link-local, RFC 3927; metadata at most clouds
    Net::v4(172, 16, 0, 12),   // private, RFC 1918
    Net::v4(192, 0, 0, 24),    // protocol assignments, RFC 6890; metadata at Oracle
    Net::v4(192, 0, 2, 24),    // documentation
    Net::v4(192, 88, 99, 24),  // 6to4 relays, RFC 7526
    Net::v4(192, 168, 0, 16),  // private, RFC 1918
    Net::v4(198, 18, 0, 15),   // benchmarks, RFC 2544
    Net::v4(198, 51, 100, 24), // documentation
    Net::v4(203, 0, 113, 24),  // documentation
    Net::v4(224, 0, 0, 4),     // multicast
    Net::v4(240, 0, 0, 4),     // reserved, and broadcast
];

const NOT_PUBLIC_V6: &[Net] = &[
    Net::v6(0x64, 0xff9b, 32), // NAT64 for local use, RFC 8215; 64:ff9b::/96 itself is looked into
    Net::v6(0x100, 0, 64),     // discard, RFC 6666
    Net::v6(0x2001, 0, 23),    // protocol assignments, Teredo and others
    Net::v6(0x2001, 0xdb8, 32), // documentation
    Net::v6(0x3fff, 0, 20),    // documentation, RFC 9637
    Net::v6(0x5f00, 0, 16),    // segment routing, RFC 9602
    Net::v6(0xfc00, 0, 7),     // unique local; metadata at AWS
    Net::v6(0xfe80, 0, 10),    // link-local
    Net::v6(0xfec0, 0, 10),    // site-local, once
    Net::v6(0xff00, 0, 8),     // multicast
];

/// What may be called.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Vec<Net>,
}

impl Guard {
    /// Public addresses and these networks.
    #[must_use]
    pub fn new(allow: Vec<Net>) -> Self {
        Self { allow }
    }

    /// Whether `ip` may be called.
    #[must_use]
    pub fn permits(&self, ip: IpAddr) -> bool {
        if self.allow.iter().any(|net| net.contains(ip)) {
            return true;
        }
        match ip {
            IpAddr::V4(_) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(ip)),
            IpAddr::V6(v6) => match embedded(v6) {
                Some(Embedded::Same(v4)) => self.permits(v4.into()),
                Some(Embedded::Through(v4)) => public_v6(v6) && self.permits(v4.into()),
                None => public_v6(v6),
            },
        }
    }

    /// The addresses of a name that may be called: what a resolver hands to the connector, so that there is no time
    /// between the check and the use in which the name could change (DNS rebinding).
    #[must_use]
    pub fn filter(&self, found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        found.filter(|address| self.permits(address.ip())).collect()
    }
}

fn public_v6(v6: Ipv6Addr) -> bool {
    v6.to_bits() > 0xffff_ffff && !NOT_PUBLIC_V6.iter().any(|net| net.contains(v6.into()))
}

/// An IPv4 address inside an IPv6 address.
enum Embedded {
    /// The IPv6 address is another way to write it.
    Same(Ipv4Addr),
    /// It is a tunnel's end; the IPv6 address has a prefix of its own that must be public as well.
    Through(Ipv4Addr),
}

/// The IPv4 address that an IPv6 address leads to: mapped (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052),
/// 6to4 (RFC 3056) and ISATAP (RFC 5214). Compatible ones, Teredo and 64:ff9b:1::/48 are refused whatever they hold.
fn embedded(v6: Ipv6Addr) -> Option<Embedded> {
    let low = |bits: u128| Ipv4Addr::from_bits(u32::try_from(bits & 0xffff_ffff).unwrap_or(0));
    let bits = v6.to_bits();
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            Some(Embedded::Same(low(bits)))
        }
        [0x2002, ..] => Some(Embedded::Same(low(bits >> 80))),
        // The universal and group bits of an ISATAP identifier may be set or not.
        [_, _, _, _, s, 0x5efe, ..] if s & !0x0300 == 0 => Some(Embedded::Through(low(bits))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_permitted() {
        let guard = Guard::default();
        let permits = |ip: &str| guard.permits(ip.parse().unwrap());
        for ip in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "198.19.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.1.1.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:4136:e378::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!permits(ip), "{ip} must be refused");
        }
        for ip in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(permits(ip), "{ip} is public");
        }
    }

    #[test]
    fn allowed_networks_are_an_exception_and_nothing_more() {
        let guard = Guard::new(vec![
            "127.0.0.1".parse().unwrap(),
            "10.1.0.0/16".parse().unwrap(),
            "fd00::/8".parse().unwrap(),
        ]);
        let permits = |ip: &str| guard.permits(ip.parse().unwrap());
        assert!(
            permits("127.0.0.1") && permits("10.1.255.1") && permits("fd12::1") && permits("::ffff:10.1.2.3")
        );
        assert!(!permits("127.0.0.2") && !permits("10.2.0.1") && !permits("fc00::1"));
        for bad in ["10.0.0.0/33", "::/129", "x", "10.0.0/8", "10.0.0.0/", "/8"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
        assert!("0.0.0.0/0".parse::<Net>().unwrap().contains("8.8.8.8".parse().unwrap()));
    }

    /// `::ffff:0:127.0.0.1` was dialled: only some of the ways to write an IPv4 address in an IPv6 one were known.
    #[test]
    fn every_embedding_of_a_private_ipv4_is_refused() {
        let guard = Guard::default();
        for ip in [
            "::ffff:0:127.0.0.1",
            "::ffff:0:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "64:ff9b:1:7f00:0:100::",
            "64:ff9b:1::808:808",
            "2002:c0a8:101::1",
            "2001:0:808:808::1",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:127.0.0.1",
            "2606:4700::100:5efe:169.254.169.254",
            "fe80::5efe:8.8.8.8",
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert!(!guard.permits(ip), "{ip} must be refused");
            assert!(guard.filter([SocketAddr::new(ip, 80)].into_iter()).is_empty(), "{ip} from DNS");
        }
        for ip in [
            "::ffff:0:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2606:4700::5efe:8.8.8.8",
            "2606:4700::1111",
        ] {
            assert!(guard.permits(ip.parse().unwrap()), "{ip} is public");
        }
    }
}
