//! Serves HTTP/1.1 over TLS under warp filters: the panel and the pull API both stand on it.
//!
//! warp 0.4 has neither TLS nor time limits, and one slow client must never cost the others. Here every phase of a
//! connection is bounded: handshake, request head, body, answer, silence, life, and how many there are.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
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
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info, warn};

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
/// A connection this old makes place for a newer one from its address.
const SETTLED: Duration = Duration::from_secs(10);
/// Request heads are read into at most this much memory. A head of ours is under 2 kB.
const HEAD_BYTES: usize = 16 * 1024;

/// How much of the gateway a listener's clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; the next ones wait in the system's queue.
    pub connections: usize,
    /// Connections at once from one address (one /64 in IPv6). One more ends the oldest, which is likely of a link that
    /// was lost unnoticed; or is closed at once, when that one has only just come.
    pub per_address: usize,
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
            per_address: 48,
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
            connections: 32,
            per_address: 8,
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
}

/// Accepts until `stop`, then lets running requests end within two seconds and cuts what remains.
///
/// # Errors
/// When the listener cannot be used at all. A bad connection, or a system out of file descriptors, is not an error.
pub async fn serve<S, B>(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    service: S,
    limits: Limits,
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
        stop: stop.clone(),
        refusals: Seldom::default(),
    });
    let mut guests = JoinSet::new();
    while let Some((stream, address, place)) = stop.run_until_cancelled(door.admit(&listener)).await {
        let reception = Arc::clone(&reception);
        guests.spawn(async move {
            place.end.run_until_cancelled(reception.receive(stream, address)).await;
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

/// The connections of each address, the oldest first.
type Seats = Arc<Mutex<HashMap<IpAddr, VecDeque<Seat>>>>;

/// Lets connections in, no more than the limits allow.
struct Door {
    places: Arc<Semaphore>,
    seats: Seats,
    per_address: usize,
}

/// One connection, as the door sees it.
struct Seat {
    since: Instant,
    /// Asks it to end.
    end: CancellationToken,
}

/// A connection's place, free again when dropped.
struct Place {
    _of_all: OwnedSemaphorePermit,
    seats: Seats,
    origin: IpAddr,
    /// Fires when the connection must make place for a newer one.
    end: CancellationToken,
}

impl Door {
    fn new(limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections));
        Self { places, seats: Arc::default(), per_address: limits.per_address }
    }

    /// The next connection there is a place for.
    async fn admit(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        let mut pause = Duration::from_millis(10);
        loop {
            let Ok(permit) = Arc::clone(&self.places).acquire_owned().await else {
                // Never closed; a door that is waits for the stop.
                std::future::pending::<()>().await;
                continue;
            };
            match listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(place) = self.seat(permit, origin(address.ip())) {
                        return (stream, address, place);
                    }
                    debug!(%address, "Connection refused: too many from this address");
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

    fn seat(&self, permit: OwnedSemaphorePermit, origin: IpAddr) -> Option<Place> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let of_origin = seats.entry(origin).or_default();
        if of_origin.len() >= self.per_address {
            let oldest = of_origin.front().filter(|oldest| oldest.since.elapsed() >= SETTLED)?;
            oldest.end.cancel();
            of_origin.pop_front();
        }
        let end = CancellationToken::new();
        of_origin.push_back(Seat { since: Instant::now(), end: end.clone() });
        Some(Place { _of_all: permit, seats: Arc::clone(&self.seats), origin, end })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end.cancel();
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_origin) = seats.get_mut(&self.origin) {
            of_origin.retain(|seat| !seat.end.is_cancelled());
            if of_origin.is_empty() {
                seats.remove(&self.origin);
            }
        }
    }
}

/// What counts as one address: an IPv6 host owns a whole /64.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
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
    async fn receive(&self, stream: TcpStream, address: SocketAddr) {
        // Answers are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let handshake = timeout(self.limits.handshake, self.acceptor.accept(Paced::new(stream, self.limits.stall)));
        let Some(greeted) = self.stop.run_until_cancelled(handshake).await else { return };
        match greeted {
            Ok(Ok(stream)) => self.converse(stream, address).await,
            Ok(Err(error)) => self.refusals.tell(|kept| warn!(%address, %error, kept, "TLS handshake refused")),
            Err(_) => debug!(%address, "TLS handshake not finished in time"),
        }
    }

    async fn converse(&self, stream: TlsStream<Paced<TcpStream>>, address: SocketAddr) {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let who = Connection { address, certificate: certificate.map(|der| der.as_ref().into()) };
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

/// A stream whose other end must take what is written to it.
struct Paced<T> {
    stream: T,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    fn new(stream: T, limit: Duration) -> Self {
        Self { stream, limit, timer: None }
    }

    /// Restarts the clock at each step forward, ends with an error when there was none for too long.
    fn pace<R>(&mut self, cx: &mut Context<'_>, step: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if step.is_ready() {
            self.timer = None;
            return step;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        timer.as_mut().poll(cx).map(|()| Err(stalled("the client takes nothing")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.pace(cx, step)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.pace(cx, step)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket's flush is always ready and says nothing of progress: it must not restart the clock.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.pace(cx, step)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(door: &Door, ip: &str) -> Option<Place> {
        let permit = Arc::clone(&door.places).try_acquire_owned().expect("a place of all");
        door.seat(permit, origin(ip.parse().expect("address")))
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_every_place_and_gives_its_own_back() {
        let door = Door::new(Limits { connections: 10, per_address: 2, ..Limits::peers() });
        let (first, second) =
            (seat(&door, "192.0.2.1").expect("first"), seat(&door, "::ffff:192.0.2.1").expect("second"));
        assert!(seat(&door, "192.0.2.1").is_none(), "a third of the same address");
        assert!(seat(&door, "192.0.2.2").is_some(), "another address");
        drop(first);
        let third = seat(&door, "192.0.2.1").expect("third");
        drop((second, third));
        assert_eq!(door.places.available_permits(), 10);
        assert!(door.seats.lock().expect("whole").is_empty(), "nothing is kept of those who left");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_makes_place_for_a_newer_one_of_its_address() {
        let door = Door::new(Limits { connections: 10, per_address: 2, ..Limits::peers() });
        let (first, second) = (seat(&door, "192.0.2.1").expect("first"), seat(&door, "192.0.2.1").expect("second"));
        tokio::time::advance(SETTLED).await;
        let third = seat(&door, "192.0.2.1").expect("third");
        assert!(first.end.is_cancelled() && !second.end.is_cancelled() && !third.end.is_cancelled());
        drop(first);
        let fourth = seat(&door, "192.0.2.1").expect("fourth");
        assert!(second.end.is_cancelled() && !fourth.end.is_cancelled());
        assert!(seat(&door, "192.0.2.1").is_none(), "the others have only just come");
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_as_one() {
        let of = |ip: &str| origin(ip.parse().expect("address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_left_and_one_that_takes_a_little_is_not() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let limit = Duration::from_secs(30);
        let (near, mut far) = tokio::io::duplex(4);
        let mut paced = Paced::new(near, limit);
        let slow = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(29)).await;
                let mut some = [0; 4];
                far.read_exact(&mut some).await.expect("bytes");
            }
        };
        let (written, ()) = tokio::join!(paced.write_all(&[7; 24]), slow);
        written.expect("a slow reader is waited for");
        let begun = Instant::now();
        let error = paced.write_all(&[7; 8]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), limit);
    }
}
