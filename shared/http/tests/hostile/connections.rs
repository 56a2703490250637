//! More connections than there may be.

use std::time::Duration;

use crate::LIMIT;
use crate::scripted::well;
use crate::support::client::{Client, End};
use crate::support::gateway::Setup;

/// RFC 6585 section 4: one client's connections are counted, and given back.
#[test]
fn one_client_cannot_have_all_connections() {
    let mut setup = Setup::before(well());
    setup.limits.connections_per_client_max = 10;
    let gateway = setup.start();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(gateway)).collect();
    for client in &mut clients {
        client.send(b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read(1, &[], LIMIT).1, End::Enough);
    }
    let mut eleventh = Client::connect(gateway);
    let (responses, end) = eleventh.read(usize::MAX, &[], LIMIT);
    assert_eq!((responses.len(), responses[0].status, end), (1, 429, End::Closed));
    drop(clients);
    crate::until("there is room again", || {
        let mut client = Client::connect(gateway);
        client.send(b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read(1, &[], LIMIT).0.first().is_some_and(|response| response.status == 200)
    });
}

/// At its bound a worker accepts no more; who waits in the backlog is served when another leaves.
#[test]
fn beyond_the_bound_clients_wait_and_are_served() {
    let mut setup = Setup::before(well());
    setup.limits.connections_max = 20;
    let gateway = setup.start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(gateway)).collect();
    for client in &mut clients {
        client.send(b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read(1, &[], LIMIT).1, End::Enough);
    }
    let mut waiting = Client::connect(gateway);
    waiting.send(b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(waiting.read(1, &[], Duration::from_millis(200)).1, End::Quiet);
    clients.pop();
    assert_eq!(waiting.read(1, &[], LIMIT).1, End::Enough);
}
