//! Serves HTTP/1.1 over TLS under warp filters: the panel and the pull API both stand on it.
//!
//! warp 0.4 has neither TLS nor time limits, and one slow client must never cost the others. Here every phase of a
//! connection is bounded: handshake, request head, body, answer, silence, life, and how many there are.

mod door;
mod stream;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming, SizeHint},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info, warn};

use self::{
    door::{Door, Place},
    stream::Paced,
};
use crate::traffic::Counters;

/// Any error a body may end with.
type Fault = Box<dyn std::error::Error + Send + Sync>;
/// A request's body as the service sees it: it ends with an error when the client stalls.
pub type Body = combinators::BoxBody<Bytes, io::Error>;
type Answer = combinators::UnsyncBoxBody<Bytes, Fault>;

/// Longest the listener waits for connections to end once it is asked to stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest pause after the system refused to accept (no file descriptor left, no memory).
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Refused handshakes are told at most this often.
const SELDOM: Duration = Duration::from_secs(10);
/// Request heads are read into at most this much memory. A head of ours is under 2 kB.
const HEAD_BYTES: usize = 16 * 1024;

/// How much of the gateway a listener's clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once whose handshake is done. One more ends the oldest of whoever has most of them.
    pub connections: usize,
    /// Handshakes at once, beside the connections. One more ends the oldest.
    pub handshakes: usize,
    /// Connections at once from one address (one /64 in IPv6), those that showed a certificate not counted. One more
    /// ends the oldest, which is likely of a link that was lost unnoticed; or is closed at once, when that one has only
    /// just come.
    pub per_address: usize,
    /// Connections at once of one certificate. One more ends the oldest.
    pub per_certificate: usize,
    /// From the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the end of the handshake to the end of the first request's head.
    pub header: Duration,
    /// From an answer to the end of the next request's head.
    pub idle: Duration,
    /// Longest silence within a request's body, and longest time in which the client takes nothing of an answer.
    pub stall: Duration,
    /// From a request's head to the head of its answer.
    pub request: Duration,
    /// A connection's whole life.
    pub life: Duration,
}

impl Limits {
    /// For the panel: browsers of one building, often behind one address, with live pages that stay open.
    pub const fn panel() -> Self {
        Self {
            connections: 128,
            handshakes: 64,
            per_address: 48,
            per_certificate: 48,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(20),
            request: Duration::from_secs(300),
            life: Duration::from_secs(12 * 3_600),
        }
    }

    /// For the pull API: few servers, long polls of a minute, slow mobile links.
    pub const fn peers() -> Self {
        Self {
            connections: 48,
            handshakes: 32,
            per_address: 8,
            per_certificate: 8,
            handshake: Duration::from_secs(15),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(120),
            stall: Duration::from_secs(30),
            request: Duration::from_secs(90),
            life: Duration::from_secs(3_600),
        }
    }
}

/// Who a request comes from; in the extensions of every request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its address.
    pub address: SocketAddr,
    /// Its certificate in DER, verified by the TLS configuration; `None` where none is asked for.
    pub certificate: Option<Arc<[u8]>>,
    /// Ends the connection at once, whatever it is doing.
    pub end: CancellationToken,
}

/// Accepts until `stop`, then lets running requests end within two seconds and cuts what remains. What goes over the
/// connections, TLS included, is counted in `traffic`.
///
/// # Errors
/// When the listener cannot be used at all. A bad connection, or a system out of file descriptors, is not an error.
pub async fn serve<S, B>(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    service: S,
    limits: Limits,
    traffic: Arc<Counters>,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: Clone + Send + Sync + 'static,
    TowerToHyperService<S>: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>,
    B: hyper::body::Body<Data = Bytes, Error: Into<Fault>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let door = Door::new(limits);
    let reception = Arc::new(Reception {
        acceptor: TlsAcceptor::from(tls),
        service: TowerToHyperService::new(service),
        limits,
        traffic,
        door: door.clone(),
        stop: stop.clone(),
        refusals: Seldom::default(),
    });
    let mut guests = JoinSet::new();
    while let Some((stream, address, place)) = stop.run_until_cancelled(admit(&door, &listener)).await {
        let reception = Arc::clone(&reception);
        guests.spawn(async move {
            place.end.run_until_cancelled(reception.receive(stream, address, &place)).await;
        });
        // The ended ones are collected, so that the set does not grow. One that panicked harms only itself.
        while guests.try_join_next().is_some() {}
    }
    drop(listener);
    let all_left = async { while guests.join_next().await.is_some() {} };
    if timeout(FAREWELL, all_left).await.is_err() {
        info!(cut = guests.len(), "Connections cut at stop");
    }
    Ok(())
}

/// The next connection there is a place for.
async fn admit(door: &Door, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Some(place) = door.arrive(address.ip()) {
                    return (stream, address, place);
                }
                debug!(%address, "Connection refused: too many, or too often, from this address");
            }
            Err(error) if is_of_one_connection(&error) => debug!(%error, "Connection lost before it was accepted"),
            Err(error) => {
                warn!(%error, ?pause, "Connections cannot be accepted now");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// What every connection of a listener is served with.
struct Reception<S> {
    acceptor: TlsAcceptor,
    service: TowerToHyperService<S>,
    limits: Limits,
    traffic: Arc<Counters>,
    door: Door,
    stop: CancellationToken,
    refusals: Seldom,
}

impl<S, B> Reception<S>
where
    TowerToHyperService<S>: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>,
    B: hyper::body::Body<Data = Bytes, Error: Into<Fault>> + Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    /// One connection, from handshake to end.
    async fn receive(&self, stream: TcpStream, address: SocketAddr, place: &Place) {
        // Answers are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let stream = Paced::new(stream, self.limits.stall, Arc::clone(&self.traffic));
        let handshake = timeout(self.limits.handshake, self.acceptor.accept(stream));
        let Some(greeted) = self.stop.run_until_cancelled(handshake).await else { return };
        match greeted {
            Ok(Ok(stream)) => self.converse(stream, address, place).await,
            Ok(Err(error)) => self.refusals.tell(|kept| warn!(%address, %error, kept, "TLS handshake refused")),
            Err(_) => debug!(%address, "TLS handshake not finished in time"),
        }
    }

    async fn converse(&self, stream: TlsStream<Paced<TcpStream>>, address: SocketAddr, place: &Place) {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.map(|der| der.as_ref().into());
        let who = Connection { address, certificate, end: place.end.clone() };
        if !self.door.greet(place, who.certificate.as_ref()) {
            debug!(%address, "Connection refused: every place is taken");
            return;
        }
        let spoken = Spoken::default();
        let service = service_fn(|request| self.answer(request, &who, &spoken));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(HEAD_BYTES)
            .max_headers(48)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = spoken.not_within(self.limits.header) => {
                debug!(%address, "No request in time");
                return;
            }
            () = self.stop.cancelled() => None,
            () = sleep(self.limits.life) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                // At stop the listener cuts sooner.
                timeout(self.limits.request, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(%address, error = %crate::supervisor::chain(&error), "Connection ended");
        }
    }

    /// Hands one request to the service, within its time.
    fn answer(
        &self,
        request: Request<Incoming>,
        who: &Connection,
        spoken: &Spoken,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>> {
        spoken.now();
        let limits = self.limits;
        let mut request = request.map(|body| Steady::new(body, limits.stall).boxed());
        request.extensions_mut().insert(who.clone());
        let working = self.service.call(request);
        let stop = self.stop.clone();
        Box::pin(async move {
            match timeout(limits.request, working).await {
                Ok(Ok(response)) => Ok(until(response, stop)),
                Ok(Err(never)) => match never {},
                Err(_) => Ok(too_long()),
            }
        })
    }
}

fn too_long() -> Response<Answer> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("30"));
    response
}

/// A body that was not counted beforehand ends when the listener stops: live events as if they were over, anything else
/// with an error, so that half a file is never taken for a whole one. A counted body is sent to its end.
fn until<B>(response: Response<B>, stop: CancellationToken) -> Response<Answer>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Fault>> + Send + 'static,
{
    let live =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    response.map(|body| {
        if body.size_hint().exact().is_some() {
            return body.map_err(Into::into).boxed_unsync();
        }
        let stop = Box::pin(stop.cancelled_owned());
        Until { body: Box::pin(body.map_err(Into::into)), stop, live }.boxed_unsync()
    })
}

struct Until<B> {
    body: Pin<Box<B>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    live: bool,
}

impl<B: hyper::body::Body<Error = Fault>> hyper::body::Body for Until<B> {
    type Data = B::Data;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Fault>>> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready((!self.live).then(|| Err("the listener stops".into())));
        }
        self.body.as_mut().poll_frame(cx)
    }
}

/// Whether the client has said anything yet.
#[derive(Default)]
struct Spoken {
    once: AtomicBool,
    told: Notify,
}

impl Spoken {
    fn now(&self) {
        if !self.once.swap(true, Ordering::Relaxed) {
            self.told.notify_one();
        }
    }

    /// Ends only when nothing was said within `limit`.
    async fn not_within(&self, limit: Duration) {
        if timeout(limit, self.told.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// A request's body that must keep coming.
struct Steady {
    body: Incoming,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Steady {
    fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, timer: None }
    }
}

impl hyper::body::Body for Steady {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame.map(|f| f.map_err(io::Error::other)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.limit)));
        timer.as_mut().poll(cx).map(|()| Some(Err(stalled("the client stopped sending"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn stalled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Tells something at most every [`SELDOM`], with how many were kept back.
#[derive(Default)]
struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    fn tell(&self, tell: impl FnOnce(u64)) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.is_some_and(|told| told.elapsed() < SELDOM) {
            last.1 += 1;
            return;
        }
        let kept = std::mem::take(&mut last.1);
        last.0 = Some(Instant::now());
        drop(last);
        tell(kept);
    }
}
