//! The PROXY protocol: what a balancer in front of us says of the client it carries.

use std::io;

use ipnet::IpNet;
use tokio::io::AsyncRead;

use super::Peer;
use crate::proxy_header;

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
    if let Some(ends) = proxy_header::read(stream).await? {
        (peer.address, peer.local) = (ends.client, ends.server);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ppp::v2; // an implementation that is not ours

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
