//! An actix-web app on one supervised child's own arbiter.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::{HttpService, Protocol, Request};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory};
use actix_web::dev::{AppConfig, ServiceResponse};
use supervision::{BoxError, Life};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection::Connection;
use crate::draining::Draining;
use crate::observe::{Observed, Observer};
use crate::{Gate, Limits, Listener};

/// How long a connection that was answered early may take to close, before it is dropped.
const LINGER: Duration = Duration::from_secs(1);
/// A worker with more than its share of the connections pauses so long before it accepts the next one.
pub(crate) const LET_OTHERS: Duration = Duration::from_millis(1);
/// Pause after the process ran out of file descriptors: connections wait in the backlog meanwhile.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// Serves the app that `app` builds, from `listener`, until the life is asked to stop; then finishes what is in
/// flight and closes idle connections. New connections wait in the listener's backlog for the next incarnation or
/// for a sibling. To be run as `Started::task(serve(…))` of a child `on_own_arbiter`, usually of a pool.
///
/// No route of the app is reached but through `gate`.
///
/// Connections are tasks linked to the life: a panic in a handler is the end of this worker and of its connections,
/// for the app's state can no longer be trusted; its siblings go on.
///
/// # Errors
/// When the socket cannot be registered with this thread's reactor, or the app cannot be built.
pub async fn serve<F, I, S, B>(
    listener: Listener,
    gate: Gate,
    app: F,
    life: Life,
    limits: Limits,
) -> Result<(), BoxError>
where
    F: FnOnce() -> I,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = actix_web::Error>,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let app = app().into_factory().new_service(AppConfig::default()).await;
    let app = app.map_err(|_| BoxError::from("the HTTP app could not be built"))?;
    let observer = Rc::new(Observer::new(life.path(), life.incarnation()));
    let app = Rc::new(Observed { inner: app, gate, observer });

    let (stop, draining) = watch::channel(false);
    let on_stop = draining.clone();
    let connections = HttpService::<Connection, _, _>::build()
        .keep_alive(limits.keep_alive)
        .client_request_timeout(limits.head_timeout)
        .client_disconnect_timeout(LINGER)
        .graceful_shutdown_signal(move || {
            let mut draining = on_stop.clone();
            async move { drop(draining.wait_for(|draining| *draining).await) }
        })
        .on_connect_ext(move |connection: &Connection, data| {
            data.insert(Draining::new(draining.clone()));
            data.insert(connection.departed());
        })
        .finish(fn_factory(move || std::future::ready(Ok::<_, ()>(Rc::clone(&app)))))
        .new_service(())
        .await
        .map_err(|()| BoxError::from("the HTTP service could not be built"))?;

    let socket = listener.on_this_thread()?;
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let share = listener.share();
    life.ready();
    let accept = async {
        loop {
            let (stream, peer, slot) = next_connection(&socket, &slots).await;
            let held = (slot, share.hold());
            let connection = connections.call((Connection::new(stream), Protocol::Http1, Some(peer)));
            life.spawn_linked(async move {
                let _held = held;
                if let Err(error) = connection.await {
                    tracing::debug!(%peer, %error, "connection ended early");
                }
            });
            if share.is_over() {
                tokio::time::sleep(LET_OTHERS).await;
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = life.stopping() => {}
    }
    drop(socket);
    stop.send_replace(true);
    let all = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    drop(slots.acquire_many(all).await); // each connection holds one until it ends
    Ok(())
}

/// Waits for a free slot, then for a connection: a full worker leaves new ones in the backlog, to its siblings.
pub(crate) async fn next_connection(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; they wait in the backlog");
                tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await;
            }
        }
    }
}

/// The connection that was to be accepted is gone; the next one may be fine.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
