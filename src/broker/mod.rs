//! The broker: rumqttd's router behind a front of our own. Only this folder names rumqttd.
//!
//! Devices publish their readings here and hear commands; programs hear the gateway's points. The front accepts,
//! checks and answers clients; `exchange.rs` holds the router and says why it is handled as it is. MQTT 3.1.1 only:
//! an MQTT 5 client is told so in its own words.

mod accounts;
mod connection;
mod exchange;
mod keeper;
mod listener;
mod packet;
mod retained;
mod session;
mod sessions;
mod system;
pub mod topics;

use std::{
    fmt,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use self::{
    accounts::{Account, Accounts},
    exchange::{Exchange, Message, Silent},
    keeper::{Kept, Writer, keeper},
    packet::Will,
    retained::Retained,
    session::Limits,
    sessions::Sessions,
};
use crate::{
    announcement::Announcer,
    clock::Clock,
    condition::{Board, Code},
    config::broker::BrokerSettings,
    live::Live,
    reading::PointId,
    store::{Keep, StoreError},
    supervisor::{Fall, Stage, Supervisor, chain},
};

pub use self::packet::fuzz_packets;

/// How often the broker publishes to itself.
const TEST_EVERY: Duration = Duration::from_secs(3);
/// At a stop, connections may take so long to finish what is in hand.
const LAST_CONNECTIONS: Duration = Duration::from_secs(6);
/// A client's queue holds so many of the largest messages.
const QUEUE_OF_LARGEST: usize = 16;
/// The subject of the broker's own condition.
const SUBJECT: &str = "broker";

/// Where what devices publish becomes readings.
pub trait Inbox: Send + Sync {
    /// Takes a message. `Ok` once it is on the card: only then is the device told so. With `Err` the device is
    /// dropped, so that it sends again. Several are in hand at once for one client, so that they share a commit.
    fn deliver<'a>(&'a self, topic: &'a str, payload: &'a [u8], account: &'a str) -> BoxFuture<'a, Result<(), String>>;
    /// Takes a message that nobody will send again (QoS 0, a will): kept as readings of a polled device are, also while
    /// the card refuses.
    fn give<'a>(&'a self, topic: &'a str, payload: &'a [u8], account: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { drop(self.deliver(topic, payload, account).await) })
    }
    /// Whether messages of this topic are to be delivered.
    fn wants(&self, topic: &str) -> bool;
    /// Whether messages of this topic may carry values of a point.
    fn feeds(&self, topic: &str, point: &PointId) -> bool {
        let _ = (topic, point);
        false
    }
}

/// What the broker stands on.
#[derive(Clone)]
pub struct Ground {
    /// Keeps its units running.
    pub supervisor: Supervisor,
    /// Where it raises conditions, and what it publishes of them.
    pub board: Board,
    /// Where retained messages and sessions survive a restart.
    pub keep: Arc<dyn Keep>,
    /// The points it publishes.
    pub live: Live,
    /// Dates them.
    pub clock: Clock,
    /// Takes what devices publish.
    pub inbox: Arc<dyn Inbox>,
    /// Certificate and key for the TLS listener.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Takes wishes for announcements.
    pub announce: Option<Arc<dyn Announcer>>,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").finish_non_exhaustive()
    }
}

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The store.
    #[error("read the broker's records")]
    Store(#[from] StoreError),
    /// A listener that tokio does not take.
    #[error("take over the broker's listener")]
    Listener(#[source] std::io::Error),
    /// A TLS listener without a certificate.
    #[error("the broker's TLS listener has no certificate")]
    NoCertificate,
    /// The router did not start.
    #[error("the broker's router did not start")]
    Router,
    /// Called outside of a tokio runtime.
    #[error("start the broker outside of a runtime")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
}

/// Figures about the broker, for the panel and `$SYS`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerFigures {
    /// Clients connected now.
    pub clients: usize,
    /// Publishes received since the start.
    pub received: u64,
    /// Publishes sent since the start.
    pub sent: u64,
    /// Publishes of QoS 0 dropped because their subscriber was too slow.
    pub dropped: u64,
    /// Retained messages.
    pub retained: usize,
}

#[derive(Debug, Default)]
struct Counters {
    clients: AtomicUsize,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl Counters {
    fn client_came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    fn client_went(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    fn sent(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }
}

/// What every connection shares.
struct Front {
    settings: BrokerSettings,
    accounts: Accounts,
    exchange: Arc<Exchange>,
    sessions: Sessions,
    retained: Retained,
    inbox: Arc<dyn Inbox>,
    announce: Option<Arc<dyn Announcer>>,
    figures: Counters,
    connections: TaskTracker,
    /// Fires once the sessions of absent clients are there again; nobody is let in before.
    ready: CancellationToken,
}

/// The running broker.
#[derive(Clone)]
pub struct Handle(Arc<Front>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.figures()).finish()
    }
}

impl Handle {
    /// Figures as of now.
    pub fn figures(&self) -> BrokerFigures {
        self.0.figures()
    }
}

/// Starts the broker on bound listeners: its units run under the supervisor until [`Stage::Broker`] is stopped.
/// Clients may connect as soon as this returns.
///
/// # Errors
/// When an account has no usable password, the store cannot be read, or a listener cannot be used.
pub fn start(
    settings: BrokerSettings,
    plain: TcpListener,
    tls: Option<TcpListener>,
    ground: Ground,
) -> Result<Handle, BrokerError> {
    tokio::runtime::Handle::try_current().map_err(BrokerError::NoRuntime)?;
    let plain = listener::adopt(plain).map_err(BrokerError::Listener)?;
    let tls = match tls {
        Some(tls) => {
            let config = ground.tls.clone().ok_or(BrokerError::NoCertificate)?;
            Some((listener::adopt(tls).map_err(BrokerError::Listener)?, TlsAcceptor::from(config)))
        }
        None => None,
    };
    let (front, writer) = Front::open(settings, &ground)?;
    let front = Arc::new(front);
    let supervisor = &ground.supervisor;
    write_records(supervisor, &front, writer);
    watch_over(supervisor, &front, &ground);
    system::publish(supervisor, &front, &ground);
    listener::plain(supervisor, &front, plain);
    if let Some((listener, acceptor)) = tls {
        listener::encrypted(supervisor, &front, listener, acceptor);
    }
    Ok(Handle(front))
}

impl Front {
    fn open(settings: BrokerSettings, ground: &Ground) -> Result<(Self, Writer), BrokerError> {
        let (accounts, closed) = Accounts::open(&settings.accounts);
        for (name, wrong) in closed {
            ground.board.raise(Code::ConfigurationFault, &format!("broker, account \"{name}\""), chain(&wrong));
        }
        let (keeper, writer) = keeper(Arc::clone(&ground.keep));
        let retained = Retained::open(ground.keep.as_ref(), keeper.clone(), settings.max_retained)?;
        // As many sessions may be kept for absent clients as there may be connected ones.
        let exchange = Arc::new(Exchange::start(2 * settings.max_clients).map_err(|Silent| BrokerError::Router)?);
        let figures = Counters::default();
        let limits =
            Limits { messages: settings.max_queued, bytes: QUEUE_OF_LARGEST * settings.max_payload.max(16 * 1024) };
        let dropped = Arc::clone(&figures.dropped);
        let sessions = Sessions::new(Arc::clone(&exchange), keeper, limits, settings.max_clients, dropped);
        let front = Self {
            settings,
            accounts,
            exchange,
            sessions,
            retained,
            inbox: Arc::clone(&ground.inbox),
            announce: ground.announce.clone(),
            figures,
            connections: TaskTracker::new(),
            ready: CancellationToken::new(),
        };
        Ok((front, writer))
    }

    fn figures(&self) -> BrokerFigures {
        BrokerFigures {
            clients: self.figures.clients.load(Ordering::Relaxed),
            received: self.figures.received.load(Ordering::Relaxed),
            sent: self.figures.sent.load(Ordering::Relaxed),
            dropped: self.figures.dropped.load(Ordering::Relaxed),
            retained: self.retained.count(),
        }
    }

    /// Keeps a client's message for later subscribers.
    async fn retain(&self, message: &Message) -> Option<Kept> {
        let kept = retained::Message { payload: message.payload.clone(), qos: message.qos };
        self.retained.set(&message.topic, kept).await
    }

    /// Publishes a message of the gateway itself; `lasting` ones are also for later subscribers.
    async fn tell(&self, message: &Message, lasting: system::Lasting) -> Result<(), Silent> {
        match lasting {
            system::Lasting::Retained => {
                let kept = retained::Message { payload: message.payload.clone(), qos: message.qos };
                self.retained.set_ours(&message.topic, kept);
            }
            system::Lasting::Forgotten => {
                self.retained.forget(&message.topic);
            }
            system::Lasting::Passing => {}
        }
        self.exchange.publish(message).await
    }

    /// Drops the retained messages that may carry values of a point whose history was erased: ours, and those devices
    /// left. Later subscribers find nothing until the point speaks again.
    async fn forget(&self, point: &PointId) {
        self.retained.forget(&topics::point(point));
        let of_devices = self.retained.topics(|topic| self.inbox.feeds(topic, point));
        for topic in of_devices {
            drop(self.retained.clear(&topic).await);
        }
    }

    /// Says what a client that was lost wanted to be said.
    async fn publish_will(&self, account: &Account, will: Will) {
        let message = Message { topic: will.topic.into(), payload: will.payload, qos: will.qos };
        if will.retain {
            drop(self.retain(&message).await);
        }
        if self.exchange.publish(&message).await.is_err() {
            warn!(topic = %message.topic, "Will not published, the router does not answer");
        }
        if self.inbox.wants(&message.topic) {
            self.inbox.give(&message.topic, &message.payload, &account.name).await;
        }
    }
}

fn write_records(supervisor: &Supervisor, front: &Arc<Front>, writer: Writer) {
    let connections = front.connections.clone();
    supervisor.unit(Stage::Broker, "broker records", move |stop| {
        let (writer, connections) = (writer.clone(), connections.clone());
        async move {
            // Connections that end may still have something to write.
            let finished = CancellationToken::new();
            let last = async {
                stop.cancelled().await;
                let _ = tokio::time::timeout(LAST_CONNECTIONS, connections.wait()).await;
                finished.cancel();
            };
            tokio::join!(writer.run(finished.clone()), last).0
        }
    });
}

/// Tests the router every few seconds; one that is silent is replaced and the clients dropped, one that has seen too
/// much is replaced without anybody noticing.
fn watch_over(supervisor: &Supervisor, front: &Arc<Front>, ground: &Ground) {
    let (front, board, keep) = (Arc::clone(front), ground.board.clone(), Arc::clone(&ground.keep));
    supervisor.unit(Stage::Broker, "broker health", move |stop| {
        let (front, board, keep) = (Arc::clone(&front), board.clone(), Arc::clone(&keep));
        async move {
            let _ = stop.run_until_cancelled(watch(&front, &board, keep.as_ref())).await;
            Ok::<(), Fall>(())
        }
    });
}

async fn watch(front: &Front, board: &Board, keep: &dyn Keep) {
    if !front.ready.is_cancelled() {
        if let Err(error) = front.sessions.restore(keep, &front.accounts).await {
            warn!(why = chain(&error), "Sessions of absent clients not taken up again");
        }
        front.ready.cancel();
    }
    loop {
        // A busy machine may be late once; a router that is gone fails the second test at once.
        let answer = match front.exchange.test().await {
            Err(Silent) => front.exchange.test().await,
            Ok(()) => Ok(()),
        };
        match answer {
            Ok(()) => {
                board.close(Code::BrokerSilent, SUBJECT);
                if front.exchange.is_worn().await && front.sessions.renew().await.is_ok() {
                    info!("Router replaced, it had seen too many topics");
                }
            }
            Err(Silent) => {
                board.raise(Code::BrokerSilent, SUBJECT, "the router does not answer its own test and is replaced");
                // Clients go first, so that nobody waits for an answer that will not come.
                front.sessions.dismiss();
                if front.sessions.renew().await.is_ok() {
                    continue;
                }
            }
        }
        tokio::time::sleep(TEST_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        config::broker::{AccountSettings, Password},
        store::MemoryKeep,
    };

    struct Deaf;

    impl Inbox for Deaf {
        fn deliver<'a>(&'a self, _: &'a str, _: &'a [u8], _: &'a str) -> BoxFuture<'a, Result<(), String>> {
            Box::pin(async { Ok(()) })
        }
        fn wants(&self, _: &str) -> bool {
            false
        }
    }

    fn ground() -> Ground {
        let clock = Clock::new(1, HeldTime::at(0, Source::Unknown), []);
        let board = Board::new(clock.clone());
        let (supervisor, live) = (Supervisor::new(board.clone()), Live::new([], []));
        let (keep, inbox) = (Arc::new(MemoryKeep::default()), Arc::new(Deaf));
        Ground { supervisor, board, keep, live, clock, inbox, tls: None, announce: None }
    }

    fn settings() -> BrokerSettings {
        let password = Password::Given("correct horse".into());
        let account = AccountSettings { name: "a".into(), password, publish: vec![], subscribe: vec![] };
        BrokerSettings {
            listen: ([127, 0, 0, 1], 0).into(),
            listen_tls: None,
            max_clients: 5,
            max_payload: 1_024,
            max_queued: 10,
            max_retained: 10,
            max_rate: 10,
            accounts: vec![account],
        }
    }

    async fn connected(port: u16) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let connect = b"\x10\x1f\0\x04MQTT\x04\xc2\0\0\0\x01c\0\x01a\0\x0dcorrect horse";
        stream.write_all(connect).await.expect("written");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, [0x20, 2, 0, 0]);
        stream
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_router_that_dies_is_told_replaced_and_its_clients_dropped() {
        let (ground, listener) = (ground(), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let port = listener.local_addr().expect("bound").port();
        let handle = start(settings(), listener, None, ground.clone()).expect("started");
        let mut stream = connected(port).await;
        let mut changes = ground.board.changes();
        handle.0.exchange.kill().await;
        changes.changed().await.expect("a condition");
        assert!(ground.board.is_open(Code::BrokerSilent, SUBJECT));
        assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0, "the client is dropped");
        changes.changed().await.expect("its end");
        assert!(ground.board.open().is_empty());
        connected(port).await;
        assert!(ground.supervisor.stop(Duration::from_secs(10)).await.is_empty());
    }
}
