//! rumqttd's router and the rules that keep it alive and lossless. Nothing else in the gateway names rumqttd, save
//! the codec in `packet.rs`.
//!
//! - Everything published goes in through one link, the *feed*, in one order, at QoS 0 and never retained: qualities,
//!   retained messages and wills are the front's business, which the router gets wrong. Who hears what is the router's.
//! - Each subscribing session has a link of its own. Links are never disconnected but lent from a pool: a link that
//!   leaves while its slot is reused is what kills the router (its scheduler trusts stale numbers).
//! - The router forgets what a slow link has not fetched. So the feed counts, per subscription, what is under way
//!   (a [`Tap`]) and waits before it would outrun the router's memory. Links are always fetched at once, into the
//!   session's own bounded queue.
//! - The feed can send a mark to itself: when the *ear* hears it, the router lives. That is the self-test.
//! - The router never frees a topic or a filter it has seen. When it has seen too many it is replaced.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rumqttd::{
    Forward, Notification, Router, RouterConfig, Strategy,
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
    protocol::{
        Disconnect, DisconnectReasonCode, Filter as RouterFilter, Packet, Publish, PublishProperties, QoS,
        RetainForwardRule, Subscribe, SubscribeProperties, Unsubscribe,
    },
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{packet::Qos, topics};
use crate::config::broker::Filter;

/// The router keeps the newest messages of a filter in [`SEGMENTS`] segments of so many bytes.
const SEGMENT: usize = 8 * 1024;
const SEGMENTS: usize = 4;
/// So much may be under way to one subscription before another message: two segments, where the router is certain
/// to remember three.
const WINDOW: usize = 2 * SEGMENT;
/// The router answers within microseconds; after this it is dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a router that is replaced may take to hand out what it has.
const DRAIN: Duration = Duration::from_secs(1);
/// Topics and filters a router may see in its life, at some 500 bytes each.
const WORN: usize = 20_000;
/// Topics whose subscribers are remembered.
const REMEMBERED: usize = 4_096;

/// The router does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the router does not answer")]
pub(super) struct Silent;

impl From<LinkError> for Silent {
    fn from(why: LinkError) -> Self {
        debug!(%why, "Link to the router broken");
        Self
    }
}

/// A message on its way to subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
}

/// A message that came out of the router for one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The subscription, by the number its session gave it.
    pub(super) subscription: usize,
    /// Its place in the order of all messages.
    pub(super) seq: u64,
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// The publisher's quality.
    pub(super) qos: Qos,
}

/// A session, as far as the exchange knows it.
pub(super) trait Subscriber: Send + Sync + 'static {
    /// Its hold on a link.
    fn line(&self) -> &Line;
    /// Every subscription it has, by number.
    fn subscriptions(&self) -> Vec<(usize, Filter)>;
    /// A subscription begins behind message `after` of the order of all messages. Told before anything is heard.
    fn begin(&self, subscription: usize, after: u64);
    /// A message for one of the subscriptions. Must not wait.
    fn hear(&self, arrival: Arrival);
}

/// One subscription, as the feed sees it.
#[derive(Debug)]
struct Tap {
    filter: Filter,
    /// Bytes under way.
    owed: AtomicUsize,
}

/// What a session asks of the task that owns its link.
enum Order {
    Subscribe { subscription: usize, tap: Arc<Tap>, done: oneshot::Sender<()> },
    Unsubscribe { subscription: usize, done: oneshot::Sender<()> },
}

/// A session's hold on its link. Once left, the link goes back to the pool.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<Option<Held>>);

#[derive(Debug)]
struct Held {
    orders: mpsc::Sender<Order>,
    taps: HashMap<usize, Arc<Tap>>,
}

impl Line {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Link {
    tx: LinkTx,
    rx: LinkRx,
    generation: u64,
    next_pid: u16,
}

type Connect = Box<dyn Fn(&str) -> Result<(LinkTx, LinkRx), Silent> + Send + Sync>;

/// Where messages go in, in order. Held while subscriptions change, so that the counting is exact.
struct Feed {
    tx: LinkTx,
    /// Kept to retire the router; the feed itself hears nothing.
    rx: LinkRx,
    connect: Arc<Connect>,
    generation: u64,
    seq: u64,
    taps: Vec<Arc<Tap>>,
    targets: HashMap<Arc<str>, Arc<[Arc<Tap>]>>,
    links: usize,
    seen: HashSet<u64>,
}

/// The router and everything around it.
pub(super) struct Exchange {
    feed: tokio::sync::Mutex<Feed>,
    pool: Arc<Mutex<Vec<Link>>>,
    drained: Arc<Notify>,
    heard: Arc<watch::Sender<u64>>,
    most_links: usize,
}

impl Exchange {
    /// Starts a router for so many sessions.
    pub(super) fn start(sessions: usize) -> Result<Self, Silent> {
        let most_links = 2 * sessions + 8;
        let heard = Arc::new(watch::Sender::new(0));
        let feed = Feed::open(most_links, 1, 0, &heard)?;
        Ok(Self { feed: feed.into(), pool: Arc::default(), drained: Arc::default(), heard, most_links })
    }

    /// Sends a message to whoever subscribes. Waits while one of them has too much under way.
    pub(super) async fn publish(&self, message: &Message) -> Result<(), Silent> {
        let mut feed = self.feed.lock().await;
        let targets = feed.targets(&message.topic);
        if targets.is_empty() {
            return Ok(());
        }
        for tap in targets.iter() {
            self.credit(tap).await?;
        }
        let topic = topics::inside(&message.topic);
        let size = weight(topic.len(), message.payload.len());
        for tap in targets.iter() {
            tap.owed.fetch_add(size, Ordering::AcqRel);
        }
        feed.push(topic.into(), message.payload.clone(), message.qos).await.map(drop)
    }

    async fn credit(&self, tap: &Tap) -> Result<(), Silent> {
        loop {
            let drained = self.drained.notified();
            if tap.owed.load(Ordering::Acquire) <= WINDOW {
                return Ok(());
            }
            timeout(PATIENCE, drained).await.map_err(|_| Silent)?;
        }
    }

    /// Publishes to itself and hears it.
    pub(super) async fn test(&self) -> Result<(), Silent> {
        let mut heard = self.heard.subscribe();
        let whole = async {
            let seq = {
                let mut feed = self.feed.lock().await;
                feed.push(Bytes::from_static(topics::EAR.as_bytes()), Bytes::new(), Qos::AtMostOnce).await?
            };
            heard.wait_for(|heard| *heard >= seq).await.map(drop).map_err(|_| Silent)
        };
        timeout(PATIENCE, whole).await.map_err(|_| Silent)?
    }

    /// Whether the router has seen so many topics, or lent so many links, that it should be replaced.
    pub(super) async fn is_worn(&self) -> bool {
        let feed = self.feed.lock().await;
        feed.seen.len() > WORN || feed.links >= self.most_links
    }

    /// Adds a subscription to a session. Once this returns, whatever is published is heard.
    pub(super) async fn subscribe(
        &self,
        subscriber: &Arc<dyn Subscriber>,
        subscription: usize,
        filter: &Filter,
    ) -> Result<(), Silent> {
        let mut feed = self.feed.lock().await;
        self.open(&mut feed, subscriber, subscription, filter).await
    }

    async fn open(
        &self,
        feed: &mut Feed,
        subscriber: &Arc<dyn Subscriber>,
        subscription: usize,
        filter: &Filter,
    ) -> Result<(), Silent> {
        let orders = self.orders(feed, subscriber).await?;
        subscriber.begin(subscription, feed.seq);
        let tap = Arc::new(Tap { filter: filter.clone(), owed: AtomicUsize::new(0) });
        let (done, finished) = oneshot::channel();
        let order = Order::Subscribe { subscription, tap: Arc::clone(&tap), done };
        orders.send(order).await.map_err(|_| Silent)?;
        timeout(PATIENCE, finished).await.map_err(|_| Silent)?.map_err(|_| Silent)?;
        feed.add(Arc::clone(&tap));
        if let Some(held) = subscriber.line().lock().as_mut() {
            held.taps.insert(subscription, tap);
        }
        Ok(())
    }

    /// Ends a subscription of a session.
    pub(super) async fn unsubscribe(&self, line: &Line, subscription: usize) -> Result<(), Silent> {
        let mut feed = self.feed.lock().await;
        let (orders, tap) = match line.lock().as_mut() {
            Some(held) => (held.orders.clone(), held.taps.remove(&subscription)),
            None => return Ok(()),
        };
        let Some(tap) = tap else { return Ok(()) };
        feed.remove(&[tap]);
        let (done, finished) = oneshot::channel();
        orders.send(Order::Unsubscribe { subscription, done }).await.map_err(|_| Silent)?;
        timeout(PATIENCE, finished).await.map_err(|_| Silent)?.map_err(|_| Silent)
    }

    /// Gives a session's link back.
    pub(super) async fn leave(&self, line: &Line) {
        let mut feed = self.feed.lock().await;
        let held = line.lock().take();
        if let Some(held) = held {
            feed.remove(&held.taps.into_values().collect::<Vec<_>>());
        }
    }

    /// Puts a new router in the place of the old one and subscribes everybody again. Nothing is lost when the old
    /// one still works.
    pub(super) async fn replace(&self, subscribers: &[Arc<dyn Subscriber>]) -> Result<(), Silent> {
        let mut feed = self.feed.lock().await;
        if timeout(DRAIN, self.run_dry(&feed)).await.is_err() {
            warn!("Old router did not hand out what it had");
        }
        let (most_links, generation, seq) = (self.most_links, feed.generation + 1, feed.seq);
        let heard = Arc::clone(&self.heard);
        let new = at_the_router(move || Feed::open(most_links, generation, seq, &heard)).await?;
        let old = std::mem::replace(&mut *feed, new);
        for subscriber in subscribers {
            subscriber.line().lock().take();
            for (subscription, filter) in subscriber.subscriptions() {
                self.open(&mut feed, subscriber, subscription, &filter).await?;
            }
        }
        drop(feed);
        retire(old).await;
        Ok(())
    }

    /// Waits until nothing is under way.
    async fn run_dry(&self, feed: &Feed) {
        for tap in &feed.taps {
            loop {
                let drained = self.drained.notified();
                if tap.owed.load(Ordering::Acquire) == 0 {
                    break;
                }
                drained.await;
            }
        }
    }

    /// The line's task, started if there is none yet.
    async fn orders(&self, feed: &mut Feed, subscriber: &Arc<dyn Subscriber>) -> Result<mpsc::Sender<Order>, Silent> {
        if let Some(held) = subscriber.line().lock().as_ref() {
            return Ok(held.orders.clone());
        }
        let link = match self.pooled(feed.generation) {
            Some(link) => link,
            None => feed.link(self.most_links).await?,
        };
        let (orders, taken) = mpsc::channel(16);
        let (taps, waiting) = Default::default();
        let (subscribed, drained) = (Arc::clone(subscriber), Arc::clone(&self.drained));
        let pump = Pump { link, subscriber: subscribed, drained, taps, waiting };
        tokio::spawn(pump.run(taken, Arc::clone(&self.pool)));
        *subscriber.line().lock() = Some(Held { orders: orders.clone(), taps: HashMap::new() });
        Ok(orders)
    }

    /// A link of the router of now; those of an earlier one are thrown away.
    fn pooled(&self, generation: u64) -> Option<Link> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.retain(|link| link.generation == generation);
        pool.pop()
    }
}

/// What a message weighs in the router's memory. Source: rumqttd 0.20.0, router/logs.rs, `PublishData::size`.
fn weight(topic: usize, payload: usize) -> usize {
    4 + topic + payload
}

/// rumqttd waits for the router's answer on the calling thread; a dead router would never let it go.
async fn at_the_router<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, Silent> + Send + 'static,
) -> Result<T, Silent> {
    timeout(PATIENCE, tokio::task::spawn_blocking(ask)).await.map_err(|_| Silent)?.map_err(|_| Silent)?
}

/// The ear: tells which mark was heard last.
async fn listen(mut ear: Link, heard: Arc<watch::Sender<u64>>) {
    if ear.subscribe(topics::EAR.to_owned(), 1).await.is_err() {
        return;
    }
    loop {
        match ear.rx.next().await {
            Ok(Some(Notification::Forward(forward))) => {
                if let Some(seq) = seq_of(&forward) {
                    heard.send_replace(seq);
                }
            }
            Ok(Some(Notification::Unschedule)) => {
                let _ = ear.rx.ready();
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// rumqttd has no way to end a router: its thread holds its own sender. A wake-up of a link that has left ends it,
/// by a panic in that thread alone, which gives its memory back.
async fn retire(old: Feed) {
    let Feed { mut tx, mut rx, .. } = old;
    let goodbye = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
    if tx.send(Packet::Disconnect(goodbye, None)).await.is_err() {
        return;
    }
    let gone = timeout(PATIENCE, async { while rx.next().await.is_ok() {} }).await.is_ok();
    if gone {
        info!("Old router retired; the panic reported for its thread is how rumqttd ends");
        let _ = rx.ready();
    }
}

impl Feed {
    /// A new router, with the feed and the ear on it. Needs a tokio runtime.
    fn open(most_links: usize, generation: u64, seq: u64, heard: &Arc<watch::Sender<u64>>) -> Result<Self, Silent> {
        let config = RouterConfig {
            max_connections: most_links + 2,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT,
            max_segment_count: SEGMENTS,
            custom_segment: None,
            initialized_filters: None,
            shared_subscriptions_strategy: Strategy::RoundRobin,
        };
        let router = Router::new(0, config).spawn();
        let connect: Arc<Connect> = Arc::new(Box::new(move |id| {
            let (tx, rx, _) = LinkBuilder::new(id, router.clone()).build()?;
            Ok((tx, rx))
        }));
        let (tx, rx) = connect("feed")?;
        let (ear_tx, ear_rx) = connect("ear")?;
        let ear = Link { tx: ear_tx, rx: ear_rx, generation, next_pid: 0 };
        tokio::spawn(listen(ear, Arc::clone(heard)));
        let (taps, targets, seen) = Default::default();
        Ok(Self { tx, rx, connect, generation, seq, taps, targets, links: 0, seen })
    }

    /// The subscriptions a topic goes to.
    fn targets(&mut self, topic: &Arc<str>) -> Arc<[Arc<Tap>]> {
        if let Some(known) = self.targets.get(topic) {
            return Arc::clone(known);
        }
        let found: Arc<[_]> = self.taps.iter().filter(|tap| tap.filter.matches(topic)).cloned().collect();
        if !found.is_empty() {
            self.see(topic);
        }
        if self.targets.len() >= REMEMBERED {
            self.targets.clear();
        }
        self.targets.insert(Arc::clone(topic), Arc::clone(&found));
        found
    }

    fn see(&mut self, text: &str) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        if self.seen.len() <= WORN {
            self.seen.insert(hasher.finish());
        }
    }

    fn add(&mut self, tap: Arc<Tap>) {
        self.see(tap.filter.as_str());
        self.taps.push(tap);
        self.targets.clear();
    }

    fn remove(&mut self, gone: &[Arc<Tap>]) {
        self.taps.retain(|tap| !gone.iter().any(|gone| Arc::ptr_eq(gone, tap)));
        self.targets.clear();
    }

    /// Into the router, with its number and its quality beside it.
    async fn push(&mut self, topic: Bytes, payload: Bytes, qos: Qos) -> Result<u64, Silent> {
        self.seq += 1;
        let properties = PublishProperties {
            payload_format_indicator: Some(qos as u8),
            correlation_data: Some(Bytes::copy_from_slice(&self.seq.to_be_bytes())),
            ..Default::default()
        };
        self.tx.send(Packet::Publish(Publish::new(topic, payload, false), Some(properties))).await?;
        Ok(self.seq)
    }

    async fn link(&mut self, most: usize) -> Result<Link, Silent> {
        if self.links >= most {
            warn!(most, "No link to the router is left");
            return Err(Silent);
        }
        self.links += 1;
        let (connect, id) = (Arc::clone(&self.connect), format!("link-{}", self.links));
        let (tx, rx) = at_the_router(move || connect(&id)).await?;
        Ok(Link { tx, rx, generation: self.generation, next_pid: 0 })
    }
}

impl Link {
    fn pid(&mut self) -> u16 {
        self.next_pid = self.next_pid.checked_add(1).unwrap_or(1);
        self.next_pid
    }

    async fn subscribe(&mut self, path: String, subscription: usize) -> Result<u16, Silent> {
        let pkid = self.pid();
        let filter = RouterFilter {
            path,
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties { id: Some(subscription), user_properties: Vec::new() };
        self.tx.send(Packet::Subscribe(Subscribe { pkid, filters: vec![filter] }, Some(properties))).await?;
        Ok(pkid)
    }

    async fn unsubscribe(&mut self, path: String) -> Result<u16, Silent> {
        let pkid = self.pid();
        self.tx.send(Packet::Unsubscribe(Unsubscribe { pkid, filters: vec![path] }, None)).await?;
        Ok(pkid)
    }
}

/// The task that owns a session's link and never lets it wait.
struct Pump {
    link: Link,
    subscriber: Arc<dyn Subscriber>,
    drained: Arc<Notify>,
    taps: HashMap<usize, Arc<Tap>>,
    waiting: HashMap<u16, oneshot::Sender<()>>,
}

impl Pump {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, pool: Arc<Mutex<Vec<Link>>>) {
        if self.serve(&mut orders).await.is_err() {
            return;
        }
        if let Ok(Ok(())) = timeout(PATIENCE, self.clear_away()).await {
            pool.lock().unwrap_or_else(PoisonError::into_inner).push(self.link);
        }
    }

    async fn serve(&mut self, orders: &mut mpsc::Receiver<Order>) -> Result<(), Silent> {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await?,
                    None => return Ok(()),
                },
                notification = self.link.rx.next() => self.take(notification?)?,
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Silent> {
        match order {
            Order::Subscribe { subscription, tap, done } => {
                let filter = topics::inside_filter(&tap.filter);
                self.taps.insert(subscription, tap);
                let pid = self.link.subscribe(filter, subscription).await?;
                self.waiting.insert(pid, done);
            }
            Order::Unsubscribe { subscription, done } => {
                // What was under way for it is let go with it.
                if let Some(tap) = self.taps.remove(&subscription) {
                    let pid = self.link.unsubscribe(topics::inside_filter(&tap.filter)).await?;
                    self.waiting.insert(pid, done);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, notification: Option<Notification>) -> Result<(), Silent> {
        match notification {
            Some(Notification::Forward(forward)) => self.forward(forward),
            Some(Notification::DeviceAck(ack)) => self.acknowledged(ack.into()),
            Some(Notification::Unschedule) => self.link.rx.ready()?,
            _ => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, packet: Packet) {
        let pid = match packet {
            Packet::SubAck(ack, _) => ack.pkid,
            Packet::UnsubAck(ack, _) => ack.pkid,
            _ => return,
        };
        if let Some(done) = self.waiting.remove(&pid) {
            let _ = done.send(());
        }
    }

    fn forward(&mut self, forward: Forward) {
        let Some(arrival) = arrival(&forward) else { return };
        let Some(tap) = self.taps.get(&arrival.subscription) else { return };
        let size = weight(forward.publish.topic.len(), forward.publish.payload.len());
        // Never below zero: a subscription that was broken off and begun again may bring what nobody counted.
        let less = |owed: usize| Some(owed.saturating_sub(size));
        let before = tap.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).unwrap_or_default();
        self.subscriber.hear(arrival);
        if before > WINDOW || before <= size {
            self.drained.notify_waiters();
        }
    }

    /// Ends every subscription, so that the next holder of the link hears nothing of this one's.
    async fn clear_away(&mut self) -> Result<(), Silent> {
        for (_, tap) in std::mem::take(&mut self.taps) {
            let pid = self.link.unsubscribe(topics::inside_filter(&tap.filter)).await?;
            self.waiting.insert(pid, oneshot::channel().0);
        }
        while !self.waiting.is_empty() {
            let notification = self.link.rx.next().await?;
            self.take(notification)?;
        }
        Ok(())
    }
}

fn seq_of(forward: &Forward) -> Option<u64> {
    let bytes = forward.properties.as_ref()?.correlation_data.as_deref()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn arrival(forward: &Forward) -> Option<Arrival> {
    let properties = forward.properties.as_ref()?;
    Some(Arrival {
        subscription: *properties.subscription_identifiers.first()?,
        seq: seq_of(forward)?,
        topic: topics::outside(&forward.publish.topic),
        payload: forward.publish.payload.clone(),
        qos: Qos::from_u8(properties.payload_format_indicator?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subscriber that remembers what it heard.
    struct Listener {
        line: Line,
        filters: Vec<Filter>,
        heard: mpsc::UnboundedSender<(u64, Bytes)>,
    }

    impl Subscriber for Listener {
        fn line(&self) -> &Line {
            &self.line
        }
        fn subscriptions(&self) -> Vec<(usize, Filter)> {
            self.filters.iter().cloned().enumerate().map(|(place, filter)| (place + 1, filter)).collect()
        }
        fn begin(&self, _: usize, _: u64) {}
        fn hear(&self, arrival: Arrival) {
            let _ = self.heard.send((arrival.seq, arrival.payload));
        }
    }

    type Heard = mpsc::UnboundedReceiver<(u64, Bytes)>;

    async fn listener(exchange: &Exchange, filter: &str) -> (Arc<dyn Subscriber>, Heard) {
        let (heard, hears) = mpsc::unbounded_channel();
        let filters = vec![filter.parse().expect("a filter")];
        let listener: Arc<dyn Subscriber> = Arc::new(Listener { line: Line::default(), filters, heard });
        for (number, filter) in listener.subscriptions() {
            exchange.subscribe(&listener, number, &filter).await.expect("subscribed");
        }
        (listener, hears)
    }

    async fn say(exchange: &Exchange, topic: &str, payload: impl Into<Bytes>) {
        let message = Message { topic: topic.into(), payload: payload.into(), qos: Qos::AtLeastOnce };
        exchange.publish(&message).await.expect("published");
    }

    impl Exchange {
        /// Ends the router as its own faults do.
        pub(in crate::broker) async fn kill(&self) {
            let mut feed = self.feed.lock().await;
            let goodbye = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
            feed.tx.send(Packet::Disconnect(goodbye, None)).await.expect("sent");
            while feed.rx.next().await.is_ok() {}
            let _ = feed.rx.ready();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_many_times_the_routers_memory_arrives_whole_and_in_order() {
        let exchange = Exchange::start(4).expect("a router");
        let (_one, mut one) = listener(&exchange, "flood/#").await;
        let (_two, mut two) = listener(&exchange, "#").await;
        for n in 0..20_000_u32 {
            say(&exchange, "flood/a", vec![n as u8; (n % 300) as usize]).await;
        }
        for n in 0..20_000_u32 {
            let expected = vec![n as u8; (n % 300) as usize];
            assert_eq!(one.recv().await.map(|heard| heard.1), Some(expected.clone().into()));
            assert_eq!(two.recv().await.map(|heard| heard.1), Some(expected.into()));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_link_that_was_given_back_is_lent_again_and_hears_nothing_of_its_past() {
        let exchange = Exchange::start(1).expect("a router");
        for round in 0..50_u32 {
            let (past, _) = listener(&exchange, "#").await;
            say(&exchange, "past", round.to_string()).await;
            exchange.leave(past.line()).await;
            let (present, mut heard) = listener(&exchange, "present").await;
            say(&exchange, "past", "not for this one").await;
            say(&exchange, "present", round.to_string()).await;
            assert_eq!(heard.recv().await.map(|heard| heard.1), Some(round.to_string().into()));
            exchange.leave(present.line()).await;
            assert!(exchange.feed.lock().await.taps.is_empty());
            exchange.test().await.expect("alive");
        }
        assert!(exchange.feed.lock().await.links <= 10, "links are lent, not made anew");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_router_is_noticed_and_another_takes_its_place() {
        let exchange = Exchange::start(4).expect("a router");
        let (listener, mut heard) = listener(&exchange, "a").await;
        exchange.test().await.expect("alive");
        exchange.kill().await;
        assert_eq!(exchange.test().await, Err(Silent));
        exchange.replace(&[listener]).await.expect("replaced");
        exchange.test().await.expect("alive again");
        say(&exchange, "a", "back").await;
        assert_eq!(heard.recv().await.map(|heard| heard.1), Some(Bytes::from_static(b"back")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_router_that_has_seen_too_much_is_replaced_without_a_loss() {
        let exchange = Arc::new(Exchange::start(4).expect("a router"));
        let (listener, mut heard) = listener(&exchange, "#").await;
        let speaking = Arc::clone(&exchange);
        let speaker = tokio::spawn(async move {
            for n in 0..=WORN + 2_000 {
                say(&speaking, &format!("topic/{n}"), n.to_string()).await;
            }
        });
        for n in 0..=WORN + 2_000 {
            if n == WORN + 1 {
                assert!(exchange.is_worn().await);
                exchange.replace(std::slice::from_ref(&listener)).await.expect("replaced");
                assert!(!exchange.is_worn().await);
            }
            assert_eq!(heard.recv().await.map(|heard| heard.1), Some(n.to_string().into()));
        }
        speaker.await.expect("said it all");
    }
}
