//! One client's connection, from CONNECT to its end, over any stream. Reads and writes side by side, so that a client
//! that does not read cannot keep us from hearing it, nor for longer than the write limit from being dropped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Front,
    accounts::Account,
    exchange::{Message, Silent},
    packet::{self, Ack, Answer, Connect, Inbound, NotAPacket, Publish, Qos, Will},
    session::{Key, Received, Session},
    sessions::Hold,
    topics::{self, NotPublishable},
};
use crate::{
    announcement::{Class, Request},
    config::broker::{Filter, LONGEST_TOPIC},
};

/// A client says CONNECT within this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The largest CONNECT: names, password, will.
const LARGEST_CONNECT: usize = 8 * 1024;
/// A client takes what is written to it within this time.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// A wrong password costs this much time.
const WRONG_PASSWORD: Duration = Duration::from_millis(500);
/// Messages of one client that are being stored at once, so that many share a commit.
const IN_HAND: usize = 64;
/// What is in hand when a connection falls is still stored, for so long.
const WIND_DOWN: Duration = Duration::from_secs(5);
/// Acknowledgements that may wait for a client that does not read.
const MOST_ACKS: usize = 64 * 1024;
/// Longest client id, in bytes.
const LONGEST_ID: usize = 256;

/// How a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client said goodbye")]
    Goodbye,
    #[error("the connection was lost")]
    Lost,
    #[error("the connection was lost")]
    Io(#[from] std::io::Error),
    #[error("nothing was heard for one and a half times the keep-alive")]
    Silent,
    #[error("no CONNECT within {} s", CONNECT_WITHIN.as_secs())]
    NoConnect,
    #[error("the client does not take what is sent to it")]
    Stalled,
    #[error("more waits for the client than is allowed")]
    TooSlow,
    #[error("another connection has taken the session over")]
    TakenOver,
    #[error("the gateway stops")]
    Stopping,
    #[error("{0}")]
    NotAPacket(#[from] NotAPacket),
    #[error("a packet that has no place here")]
    OutOfPlace,
    #[error("publish to {topic:?}: {why}")]
    NotPublishable { topic: String, why: NotPublishable },
    #[error("publish to {0:?}: not among the account's topics")]
    NotAllowed(String),
    #[error("more QoS 2 messages open than are allowed")]
    TooManyOpen,
    #[error("a payload of {0} bytes is too large")]
    PayloadTooLarge(usize),
    #[error("message not stored: {0}")]
    NotStored(String),
    #[error("{0}")]
    Router(#[from] Silent),
    #[error("refused: {0:?}")]
    Refused(Answer),
}

/// Serves one client until it goes, is lost or is dropped.
pub(super) async fn serve<S>(front: Arc<Front>, mut stream: S, from: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut buffer = BytesMut::new();
    let greeted = tokio::select! {
        greeted = greet(&front, &mut stream, &mut buffer) => greeted,
        () = stop.cancelled() => return,
    };
    let end = match greeted {
        Ok((account, connect)) => connected(&front, stream, buffer, &account, connect, &stop).await,
        Err(end) => end,
    };
    report(&end, from);
}

fn report(end: &End, from: SocketAddr) {
    match end {
        End::Goodbye | End::Lost | End::Io(_) | End::Silent | End::TakenOver | End::Stopping | End::NoConnect => {
            debug!(%from, why = %end, "MQTT connection ended");
        }
        // The store has told so itself, once; its devices come back every few seconds.
        End::NotStored(_) => debug!(%from, why = %end, "MQTT client dropped"),
        end => warn!(%from, why = %end, "MQTT client dropped"),
    }
}

/// Hears CONNECT and checks it. Says why not, where the standard has a word for it.
async fn greet<S>(front: &Front, stream: &mut S, buffer: &mut BytesMut) -> Result<(Arc<Account>, Connect), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout(CONNECT_WITHIN, first_packet(stream, buffer)).await.map_err(|_| End::NoConnect)?;
    let mut out = BytesMut::new();
    let refused = match first {
        Ok(Inbound::Connect(connect)) => match admit(front, &connect) {
            Ok(account) => return Ok((account, connect)),
            Err(answer) => {
                if answer == Answer::BadLogin {
                    sleep(WRONG_PASSWORD).await;
                }
                packet::connack(&mut out, answer);
                End::Refused(answer)
            }
        },
        Ok(_) => return Err(End::OutOfPlace),
        Err(End::NotAPacket(NotAPacket::Version(level))) => {
            if level >= 5 {
                packet::connack_v5_unsupported(&mut out);
            } else {
                packet::connack(&mut out, Answer::UnacceptableVersion);
            }
            End::NotAPacket(NotAPacket::Version(level))
        }
        Err(end) => return Err(end),
    };
    let _ = timeout(WRITE_WITHIN, write(stream, &out)).await;
    Err(refused)
}

async fn first_packet<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> Result<Inbound, End> {
    loop {
        if let Some(packet) = packet::next(buffer, LARGEST_CONNECT)? {
            return Ok(packet);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(End::Lost);
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn admit(front: &Front, connect: &Connect) -> Result<Arc<Account>, Answer> {
    let id = &connect.client_id;
    if id.len() > LONGEST_ID || id.chars().any(char::is_control) || id.is_empty() && !connect.clean {
        return Err(Answer::IdentifierRejected);
    }
    let (name, password) = connect.login.as_ref().ok_or(Answer::NotAuthorised)?;
    let account = front.accounts.enter(name, password).ok_or(Answer::BadLogin)?;
    let allowed = |will: &Will| {
        let ours = will.topic == topics::ANNOUNCE_ASK;
        !ours && topics::publishable(&will.topic).is_ok() && account.may_publish(&will.topic)
    };
    if connect.will.as_ref().is_some_and(|will| !allowed(will)) {
        return Err(Answer::NotAuthorised);
    }
    Ok(account)
}

/// A client that was let in.
async fn connected<S>(
    front: &Arc<Front>,
    stream: S,
    buffer: BytesMut,
    account: &Arc<Account>,
    connect: Connect,
    stop: &CancellationToken,
) -> End
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let client = if connect.client_id.is_empty() {
        format!("anonymous-{:016x}", rand::random::<u64>())
    } else {
        connect.client_id
    };
    let key = Key { account: Arc::clone(&account.name), client: client.into() };
    let hold = front.sessions.take(key, account, connect.clean).await;
    let (account, client) = (&hold.session.key.account, &hold.session.key.client);
    info!(%account, %client, present = hold.present, "MQTT client connected");
    front.figures.client_came();
    let end = converse(front, stream, buffer, &hold, connect.keep_alive, stop).await;
    front.figures.client_went();
    info!(%account, %client, why = %end, "MQTT client left");
    if let Some(will) = connect.will
        && !matches!(end, End::Goodbye | End::Stopping)
    {
        front.publish_will(&hold.session.account, will).await;
    }
    front.sessions.release(hold).await;
    end
}

async fn converse<S>(
    front: &Arc<Front>,
    stream: S,
    buffer: BytesMut,
    hold: &Hold,
    keep_alive: u16,
    stop: &CancellationToken,
) -> End
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let session = &hold.session;
    let outbox = Outbox::default();
    outbox.add(|out| {
        packet::connack(out, Answer::Accepted { session_present: hold.present });
        session.attach(out);
    });
    let (input, output) = split(stream);
    let mut reader = Reader {
        front,
        session,
        outbox: &outbox,
        input,
        buffer,
        in_hand: FuturesOrdered::new(),
        patience: (keep_alive > 0).then(|| Duration::from_secs(u64::from(keep_alive)).mul_f64(1.5)),
        rate: Rate::new(front.settings.max_rate),
    };
    let end = tokio::select! {
        end = reader.run() => end,
        end = write_out(front, session, &outbox, output) => end,
        () = hold.leave.cancelled() => Err(End::TakenOver),
        () = stop.cancelled() => Err(End::Stopping),
    };
    reader.wind_down().await;
    end.err().unwrap_or(End::Lost)
}

/// Acknowledgements on their way to the client.
#[derive(Debug, Default)]
struct Outbox(std::sync::Mutex<BytesMut>);

impl Outbox {
    fn add(&self, write: impl FnOnce(&mut BytesMut)) -> usize {
        let mut out = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        write(&mut out);
        out.len()
    }

    fn take(&self) -> BytesMut {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Writes whatever there is for the client, acknowledgements first.
async fn write_out<S>(front: &Front, session: &Session, outbox: &Outbox, mut output: WriteHalf<S>) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if session.has_overflowed() {
            return Err(End::TooSlow);
        }
        let mut out = outbox.take();
        front.figures.sent(session.fill(&mut out, &front.retained));
        if out.is_empty() {
            session.wake.notified().await;
            continue;
        }
        timeout(WRITE_WITHIN, write(&mut output, &out)).await.map_err(|_| End::Stalled)??;
    }
}

/// How fast a client may publish: a bucket that holds a second's worth.
#[derive(Debug)]
struct Rate {
    a_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    fn new(a_second: u32) -> Self {
        let a_second = f64::from(a_second);
        Self { a_second, left: a_second, at: Instant::now() }
    }

    /// How long to wait before the next message.
    fn take(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.left = (self.left + self.a_second * (now - self.at).as_secs_f64()).min(self.a_second) - 1.0;
        self.at = now;
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / self.a_second))
    }
}

/// What is to be done once a message is stored.
enum Stored {
    /// Nothing: QoS 0.
    Quietly,
    /// PUBACK.
    Acknowledge(u16),
    /// Send it on, then PUBREC.
    SendOn(Message, u16),
    /// Tell the answer to a wish for an announcement, then acknowledge it.
    Answer(Message, Qos, u16),
}

type InHand = BoxFuture<'static, Result<Stored, String>>;

/// The half that listens to the client.
struct Reader<'a, S> {
    front: &'a Arc<Front>,
    session: &'a Arc<Session>,
    outbox: &'a Outbox,
    input: ReadHalf<S>,
    buffer: BytesMut,
    /// Being stored, in the order they came; acknowledged in that order.
    in_hand: FuturesOrdered<InHand>,
    patience: Option<Duration>,
    rate: Rate,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<'_, S> {
    async fn run(&mut self) -> Result<(), End> {
        let largest = self.front.settings.max_payload + LONGEST_TOPIC + 16;
        let mut last_heard = Instant::now();
        loop {
            while self.in_hand.len() < IN_HAND
                && let Some(packet) = packet::next(&mut self.buffer, largest)?
            {
                self.take(packet).await?;
                last_heard = Instant::now();
            }
            let full = self.in_hand.len() >= IN_HAND;
            if full {
                // While we do not listen, the client cannot be blamed for being silent.
                last_heard = Instant::now();
            }
            let deadline = last_heard + self.patience.unwrap_or(Duration::from_secs(86_400));
            tokio::select! {
                Some(stored) = self.in_hand.next(), if !self.in_hand.is_empty() => self.finish(stored).await?,
                count = self.input.read_buf(&mut self.buffer), if !full => {
                    if count? == 0 {
                        return Err(End::Lost);
                    }
                }
                () = sleep_until(deadline) => {
                    if self.patience.is_some() {
                        return Err(End::Silent);
                    }
                    last_heard = Instant::now();
                }
            }
        }
    }

    async fn take(&mut self, packet: Inbound) -> Result<(), End> {
        match packet {
            Inbound::Publish(publish) => self.publish(publish).await?,
            Inbound::PubAck(pid) => self.session.acknowledged(pid),
            Inbound::PubRec(pid) => {
                self.session.recorded(pid);
                self.say(|out| packet::ack(out, Ack::PubRel, pid))?;
            }
            Inbound::PubRel(pid) => {
                self.session.released(pid);
                self.say(|out| packet::ack(out, Ack::PubComp, pid))?;
            }
            Inbound::PubComp(pid) => self.session.completed(pid),
            Inbound::Subscribe(pid, filters) => self.subscribe(pid, filters).await?,
            Inbound::Unsubscribe(pid, filters) => self.unsubscribe(pid, filters).await?,
            Inbound::PingReq => self.say(packet::pingresp)?,
            Inbound::Disconnect => return Err(End::Goodbye),
            Inbound::Connect(_) => return Err(End::OutOfPlace),
        }
        Ok(())
    }

    fn say(&self, write: impl FnOnce(&mut BytesMut)) -> Result<(), End> {
        let waiting = self.outbox.add(write);
        self.session.wake.notify_one();
        if waiting > MOST_ACKS { Err(End::Stalled) } else { Ok(()) }
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), End> {
        self.check(&publish)?;
        if let Some(pause) = self.rate.take() {
            sleep(pause).await;
        }
        self.front.figures.received();
        if publish.qos == Qos::ExactlyOnce {
            match self.session.receive(publish.pid) {
                Received::New => {}
                Received::Pending => return Ok(()),
                Received::Stored => return self.say(|out| packet::ack(out, Ack::PubRec, publish.pid)),
                Received::TooMany => return Err(End::TooManyOpen),
            }
        }
        if publish.topic == topics::ANNOUNCE_ASK {
            self.in_hand.push_back(ask(Arc::clone(self.front), Arc::clone(&self.session.account), publish));
            return Ok(());
        }
        self.pass_on(publish).await
    }

    fn check(&self, publish: &Publish) -> Result<(), End> {
        if publish.payload.len() > self.front.settings.max_payload {
            return Err(End::PayloadTooLarge(publish.payload.len()));
        }
        if let Err(why) = topics::publishable(&publish.topic) {
            return Err(End::NotPublishable { topic: publish.topic.chars().take(100).collect(), why });
        }
        if !self.session.account.may_publish(&publish.topic) {
            return Err(End::NotAllowed(publish.topic.clone()));
        }
        Ok(())
    }

    /// To subscribers at once, and to the card; QoS 2 to subscribers only once it is on the card, as it is sent on
    /// only once.
    async fn pass_on(&mut self, publish: Publish) -> Result<(), End> {
        let Publish { topic, payload, qos, retain, pid } = publish;
        let message = Message { topic: topic.into(), payload, qos };
        let kept = if retain { self.front.retain(&message).await } else { None };
        let stored = match qos {
            Qos::AtMostOnce => Stored::Quietly,
            Qos::AtLeastOnce => Stored::Acknowledge(pid),
            Qos::ExactlyOnce => Stored::SendOn(message.clone(), pid),
        };
        if qos < Qos::ExactlyOnce {
            self.front.exchange.publish(&message).await?;
        }
        let wanted = self.front.inbox.wants(&message.topic);
        let (inbox, account) = (Arc::clone(&self.front.inbox), Arc::clone(&self.session.key.account));
        let work = async move {
            if wanted && qos == Qos::AtMostOnce {
                inbox.give(&message.topic, &message.payload, &account).await;
            } else if wanted {
                inbox.deliver(&message.topic, &message.payload, &account).await?;
            }
            if let Some(kept) = kept {
                kept.await.map_err(|_| "the gateway is stopping".to_owned())?;
            }
            Ok(stored)
        };
        self.in_hand.push_back(work.boxed());
        Ok(())
    }

    async fn finish(&mut self, stored: Result<Stored, String>) -> Result<(), End> {
        match stored.map_err(End::NotStored)? {
            Stored::Quietly => Ok(()),
            Stored::Acknowledge(pid) => self.say(|out| packet::ack(out, Ack::PubAck, pid)),
            Stored::SendOn(message, pid) => {
                self.front.exchange.publish(&message).await?;
                self.session.stored(pid);
                self.say(|out| packet::ack(out, Ack::PubRec, pid))
            }
            Stored::Answer(message, qos, pid) => {
                self.front.exchange.publish(&message).await?;
                match qos {
                    Qos::AtMostOnce => Ok(()),
                    Qos::AtLeastOnce => self.say(|out| packet::ack(out, Ack::PubAck, pid)),
                    Qos::ExactlyOnce => {
                        self.session.stored(pid);
                        self.say(|out| packet::ack(out, Ack::PubRec, pid))
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self, pid: u16, filters: Vec<(String, Qos)>) -> Result<(), End> {
        let mut granted = Vec::with_capacity(filters.len());
        let mut owed = Vec::new();
        for (text, qos) in filters {
            let filter = self.grantable(&text);
            let taken = match &filter {
                Some(filter) => self.front.sessions.subscribe(self.session, filter, qos).await?,
                None => false,
            };
            granted.push(taken.then_some(qos));
            owed.extend(filter.filter(|_| taken).map(|filter| (filter, qos)));
        }
        if let Some(kept) = self.front.sessions.keep(self.session).await {
            let _ = kept.await;
        }
        self.say(|out| packet::suback(out, pid, &granted))?;
        for (filter, qos) in owed {
            self.session.owe(self.front.retained.matching(&filter), qos);
        }
        Ok(())
    }

    fn grantable(&self, text: &str) -> Option<Filter> {
        let account = &self.session.account;
        let refused = |why: &dyn std::fmt::Display| {
            warn!(account = %account.name, client = %self.session.key.client, %why, "Subscription refused");
        };
        match text.parse::<Filter>() {
            Ok(filter) if account.may_subscribe(&filter) => Some(filter),
            Ok(filter) => {
                refused(&format_args!("{filter} is not among the account's filters"));
                None
            }
            Err(why) => {
                refused(&why);
                None
            }
        }
    }

    async fn unsubscribe(&mut self, pid: u16, filters: Vec<String>) -> Result<(), End> {
        for filter in &filters {
            self.front.sessions.unsubscribe(self.session, filter).await?;
        }
        if let Some(kept) = self.front.sessions.keep(self.session).await {
            let _ = kept.await;
        }
        self.say(|out| packet::ack(out, Ack::UnsubAck, pid))
    }

    /// What was in hand is stored to the end, so that a QoS 2 message that comes again is known.
    async fn wind_down(&mut self) {
        let rest = async {
            while let Some(stored) = self.in_hand.next().await {
                if self.finish(stored).await.is_err() {
                    break;
                }
            }
        };
        let _ = timeout(WIND_DOWN, rest).await;
    }
}

/// A wish for an announcement, as accounts write it to `clocher/announce/ask`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    text: String,
    class: Class,
    zones: Vec<String>,
    #[serde(default)]
    key: Option<String>,
}

fn ask(front: Arc<Front>, account: Arc<Account>, publish: Publish) -> InHand {
    async move {
        let asked_by = format!("mqtt:{}", account.name);
        let answer = match wish(&front, &publish.payload, &asked_by).await {
            Ok(id) => serde_json::json!({ "asked_by": asked_by, "id": id }),
            Err(why) => serde_json::json!({ "asked_by": asked_by, "refused": why }),
        };
        let message = Message {
            topic: topics::ANNOUNCE_JOURNAL.into(),
            payload: answer.to_string().into(),
            qos: Qos::AtLeastOnce,
        };
        Ok(Stored::Answer(message, publish.qos, publish.pid))
    }
    .boxed()
}

async fn wish(front: &Front, payload: &Bytes, asked_by: &str) -> Result<u64, String> {
    let announcer = front.announce.as_ref().ok_or("this gateway has no loudspeakers")?;
    let wish: Wish = serde_json::from_slice(payload).map_err(|wrong| format!("not a request: {wrong}"))?;
    let request =
        Request { text: wish.text, class: wish.class, zones: wish.zones, asked_by: asked_by.to_owned(), key: wish.key };
    announcer.ask(request).await.map(|id| id.0).map_err(|refused| refused.to_string())
}
