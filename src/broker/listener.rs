//! Where clients come in: plain TCP on loopback, TLS on the local network. A connection that never says a word, or
//! never ends its handshake, costs a place for a few seconds and nobody else anything.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Front, connection};
use crate::supervisor::{Fall, Stage, Supervisor};

/// A TLS handshake ends within this time; a Pi Zero needs half a second.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// After an accept that fails (no file descriptors left).
const PAUSE: Duration = Duration::from_millis(200);

/// A bound listener for tokio.
pub(super) fn adopt(listener: std::net::TcpListener) -> std::io::Result<Arc<TcpListener>> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Arc::new)
}

/// The plain listener.
pub(super) fn plain(supervisor: &Supervisor, front: &Arc<Front>, listener: Arc<TcpListener>) {
    let places = places(front);
    let front = Arc::clone(front);
    supervisor.unit(Stage::Broker, "broker listener", move |stop| {
        let (front, listener, places) = (Arc::clone(&front), Arc::clone(&listener), Arc::clone(&places));
        async move {
            accept(&front, &listener, &places, &stop, |stream| async move { Some(stream) }).await;
            Ok::<(), Fall>(())
        }
    });
}

/// The TLS listener.
pub(super) fn encrypted(
    supervisor: &Supervisor,
    front: &Arc<Front>,
    listener: Arc<TcpListener>,
    acceptor: TlsAcceptor,
) {
    let places = places(front);
    let front = Arc::clone(front);
    supervisor.unit(Stage::Broker, "broker listener, TLS", move |stop| {
        let (front, listener, places) = (Arc::clone(&front), Arc::clone(&listener), Arc::clone(&places));
        let acceptor = acceptor.clone();
        async move {
            let handshake = |stream| {
                let acceptor = acceptor.clone();
                async move { timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await.ok()?.ok() }
            };
            accept(&front, &listener, &places, &stop, handshake).await;
            Ok::<(), Fall>(())
        }
    });
}

/// Places of one listener: what happens on one does not fill the other.
fn places(front: &Front) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(front.settings.max_clients))
}

async fn accept<H, F, S>(
    front: &Arc<Front>,
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
    handshake: H,
) where
    H: Fn(TcpStream) -> F,
    F: Future<Output = Option<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _ = stop.run_until_cancelled(front.ready.cancelled()).await;
    info!(address = ?listener.local_addr().ok(), "MQTT listener open");
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, from)) => match Arc::clone(places).try_acquire_owned() {
                Ok(place) => admit(front, handshake(prepared(stream)), from, stop.clone(), place),
                Err(_) => {
                    warn!(%from, limit = front.settings.max_clients, "MQTT connection refused, every place is taken")
                }
            },
            Err(why) => {
                warn!(%why, "MQTT connection not accepted");
                sleep(PAUSE).await;
            }
        }
    }
    front.connections.close();
}

/// Small packets leave at once.
fn prepared(stream: TcpStream) -> TcpStream {
    if let Err(why) = stream.set_nodelay(true) {
        debug!(%why, "Delay of small packets not switched off");
    }
    stream
}

fn admit<F, S>(front: &Arc<Front>, handshake: F, from: SocketAddr, stop: CancellationToken, place: OwnedSemaphorePermit)
where
    F: Future<Output = Option<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let serving = Arc::clone(front);
    front.connections.spawn(async move {
        match stop.run_until_cancelled(handshake).await.flatten() {
            Some(stream) => connection::serve(serving, stream, from, stop).await,
            None => debug!(%from, "TLS handshake not finished"),
        }
        drop(place);
    });
}
