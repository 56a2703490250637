//! Opening a connection to an upstream server.

use std::io;

use tokio::net::TcpStream;

use super::io::{Io, Stream};
use super::plain_send::PlainSend;
use super::{ClientTls, ForwardFailure, Origin, Protocol};

/// Connects to `origin`, TLS handshake included. Segments are sent as they are written: a body that is streamed must not
/// wait for acknowledgements (RFC 896 and delayed ACKs make that 40 ms).
pub(crate) async fn connect(origin: &Origin) -> Result<Io, ForwardFailure> {
    let stream = TcpStream::connect(origin.address()).await.map_err(ForwardFailure::Connect)?;
    stream.set_nodelay(true).map_err(ForwardFailure::Connect)?;
    match origin.protocol() {
        Protocol::Http1 => Ok(Io::tcp(stream)),
        Protocol::H2c => Err(ForwardFailure::Protocol("HTTP/2 upstream is not offered")),
        Protocol::Tls { name, client } => {
            let name = ClientTls::name(name)
                .map_err(|error| ForwardFailure::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let stream = client.connect(name, PlainSend(stream)).await.map_err(ForwardFailure::Tls)?;
            Ok(Io::over(Stream::TlsClient(Box::new(stream))))
        }
    }
}
