//! Opening a connection to an upstream server.

use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::fastcgi::FastCgi;
use super::io::{Io, Stream};
use super::plain_send::PlainSend;
use super::{Address, ClientTls, ForwardFailure, Origin, Protocol};

/// Connects to `origin`, TLS handshake included.
pub(crate) async fn connect(origin: &Origin) -> Result<Io, ForwardFailure> {
    match origin.protocol() {
        Protocol::Http1 => Ok(Io::over(plain(origin).await?)),
        Protocol::H2c => Err(ForwardFailure::Protocol("HTTP/2 upstream is not offered")),
        Protocol::FastCgi(root) => {
            let stream = FastCgi::new(plain(origin).await?, root.as_ref().clone());
            Ok(Io::over(Stream::FastCgi(Box::new(stream))))
        }
        Protocol::Tls { name, client } => {
            let Stream::Tcp(stream) = plain(origin).await? else {
                return Err(ForwardFailure::Protocol("TLS is spoken over TCP only"));
            };
            let name = ClientTls::name(name)
                .map_err(|error| ForwardFailure::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let stream = client.connect(name, PlainSend(stream)).await.map_err(ForwardFailure::Tls)?;
            Ok(Io::over(Stream::TlsClient(Box::new(stream))))
        }
    }
}

/// The connection beneath. Segments are sent as they are written: a body that is streamed must not wait for
/// acknowledgements (RFC 896 and delayed ACKs make that 40 ms).
pub(super) async fn plain(origin: &Origin) -> Result<Stream, ForwardFailure> {
    match origin.address() {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(ForwardFailure::Connect)?;
            stream.set_nodelay(true).map_err(ForwardFailure::Connect)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => {
            Ok(Stream::Unix(UnixStream::connect(path).await.map_err(ForwardFailure::Connect)?))
        }
    }
}
