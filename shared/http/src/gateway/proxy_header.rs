//! The PROXY protocol, versions 1 and 2: what a balancer in front of us says of the client it carries.

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Peer;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version, family, length.
const V2_FIXED: usize = 16;
/// Addresses and the extensions behind them. Senders stay far below.
const V2_REST_MAX: usize = 2048;
/// `PROXY UNKNOWN` with the longest addresses, as the protocol's description says.
const V1_MAX: usize = 107;

/// Reads the header, and not a byte more, and corrects `peer` by it.
///
/// # Errors
/// When the connection is not from one of these networks, or does not begin with a header.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    peer: &mut Peer,
    from: &[IpNet],
) -> io::Result<()> {
    let ip = peer.address.ip().to_canonical();
    if !from.iter().any(|net| net.contains(&ip)) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut header = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        header.resize(V2_FIXED, 0);
        stream.read_exact(&mut header[V2_SIGNATURE.len()..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > V2_REST_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        header.resize(V2_FIXED + rest, 0);
        stream.read_exact(&mut header[V2_FIXED..]).await?;
    } else {
        while !header.ends_with(b"\r\n") && header.len() < V1_MAX {
            header.push(stream.read_u8().await?);
        }
    }
    if let Some((source, destination)) = addresses(&header)? {
        (peer.address, peer.local) = (source, destination);
    }
    Ok(())
}

/// Client and destination; `None` if the sender speaks for itself (a health check) or does not know.
fn addresses(header: &[u8]) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    /// The same four fields of types that share no trait.
    macro_rules! sides {
        ($a:expr) => {
            Some((
                SocketAddr::from(($a.source_address, $a.source_port)),
                SocketAddr::from(($a.destination_address, $a.destination_port)),
            ))
        };
    }
    Ok(match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(addresses) => sides!(addresses),
            v1::Addresses::Tcp6(addresses) => sides!(addresses),
        },
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Proxy => match header.addresses {
            v2::Addresses::IPv4(addresses) => sides!(addresses),
            v2::Addresses::IPv6(addresses) => sides!(addresses),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        },
        HeaderResult::V2(Ok(_)) => None,
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err(io::ErrorKind::InvalidData.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        let address = "10.0.0.1:1".parse().unwrap();
        Peer { address, local: "10.0.0.2:80".parse().unwrap(), tls: None }
    }

    async fn after(bytes: &[u8], from: &str) -> io::Result<(String, String, usize)> {
        let (mut input, mut peer) = (bytes, peer());
        read(&mut input, &mut peer, &[from.parse().unwrap()]).await?;
        Ok((peer.address.to_string(), peer.local.to_string(), input.len()))
    }

    #[actix_web::test]
    async fn the_client_is_who_a_trusted_sender_says_and_what_follows_is_left() {
        let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 4000 443\r\nGET /";
        assert_eq!(
            after(v1, "10.0.0.0/8").await.unwrap(),
            ("192.0.2.7:4000".into(), "192.0.2.8:443".into(), 5)
        );
        let sides: (SocketAddr, SocketAddr) =
            ("[2001:db8::1]:9".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap());
        let v2 =
            v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, sides);
        let v2 = [v2.build().unwrap(), b"GET /".to_vec()].concat();
        let seen = after(&v2, "10.0.0.0/8").await.unwrap();
        assert_eq!(seen, ("[2001:db8::1]:9".into(), "[2001:db8::2]:443".into(), 5));
        let unknown = after(b"PROXY UNKNOWN\r\n", "10.0.0.0/8").await.unwrap();
        assert_eq!(unknown.0, "10.0.0.1:1", "then it is the sender itself");
    }

    #[actix_web::test]
    async fn nobody_else_may_say_so_and_nothing_else_is_a_header() {
        let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 4000 443\r\n";
        assert_eq!(after(v1, "172.16.0.0/12").await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        for bad in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &[b'P'; 200], b"PROXY TCP4 1 2 3 4\r\n"] {
            assert_eq!(
                after(bad, "10.0.0.0/8").await.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{bad:?}"
            );
        }
    }
}
