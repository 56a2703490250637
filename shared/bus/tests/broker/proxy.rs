//! A proxy that damages what goes through it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Between a link and the broker. It can cut connections, or let nothing but heartbeats through to the client.
pub struct Proxy {
    port: u16,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
}

#[derive(Default)]
pub struct Connection {
    pub mute: AtomicBool,
    pub cut: tokio::sync::Notify,
}

impl Proxy {
    pub async fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections: Arc<Mutex<Vec<Arc<Connection>>>> = Arc::default();
        let all = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = Arc::new(Connection::default());
                all.lock().unwrap().push(Arc::clone(&connection));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", broker)).await else { return };
                    client.set_nodelay(true).and(server.set_nodelay(true)).unwrap();
                    let (mut client_reads, client_writes) = client.into_split();
                    let (server_reads, mut server_writes) = server.into_split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut client_reads, &mut server_writes) => {}
                        _ = frames(server_reads, client_writes, &connection) => {}
                        () = connection.cut.notified() => {}
                    }
                });
            }
        });
        Self { port, connections }
    }

    pub fn url(&self, vhost: &str) -> String {
        let name = vhost.rsplit('/').next().unwrap();
        format!("amqp://guest:guest@127.0.0.1:{}/{name}", self.port)
    }

    pub fn each(&self, act: impl Fn(&Connection)) {
        self.connections.lock().unwrap().iter().for_each(|connection| act(connection));
    }
}

/// Copies frame by frame (AMQP 0-9-1, section 2.3.5: type, channel, size, payload, end); heartbeats are of type 8.
async fn frames(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    connection: &Connection,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 7];
        from.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut rest = vec![0; size + 1];
        from.read_exact(&mut rest).await?;
        if head[0] == 8 || !connection.mute.load(SeqCst) {
            to.write_all(&[&head[..], &rest[..]].concat()).await?;
        }
    }
}
