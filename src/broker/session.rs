//! One client's session: what it subscribes to, what waits for it, what it has not yet acknowledged. Pure state behind
//! a lock, no socket; the connection asks it what to send. It outlives the connection when the client wants it to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tracing::warn;

use super::{
    accounts::Account,
    exchange::{Arrival, Line, Subscriber},
    packet::{self, Ack, Flags, Qos},
    retained::Retained,
};
use crate::config::broker::Filter;

/// Subscriptions of one client.
pub(super) const MOST_FILTERS: usize = 100;
/// Messages sent to a client and not yet acknowledged.
const WINDOW: usize = 32;
/// QoS 2 messages of a client between PUBLISH and PUBREL.
const MOST_UNRELEASED: usize = 64;
/// About how much is written to a client at once.
const WRITE: usize = 16 * 1024;

/// Account and client id: ids of two accounts never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) account: Arc<str>,
    pub(super) client: Arc<str>,
}

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Debug, Clone)]
struct Delivery {
    topic: Bytes,
    payload: Bytes,
    qos: Qos,
    retain: bool,
}

/// Sent, not yet acknowledged. Without a delivery: PUBREC came, PUBREL was sent.
#[derive(Debug)]
struct Flight {
    pid: u16,
    delivery: Option<Delivery>,
}

#[derive(Debug)]
struct Subscription {
    filter: Filter,
    qos: Qos,
    /// It hears what comes behind this message of the order of all.
    after: u64,
    /// The last it has heard.
    last: u64,
    /// The router knows it.
    known: bool,
}

/// How far a QoS 2 message of the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Seen for the first time.
    New,
    /// Being stored; its PUBREC will come.
    Pending,
    /// Stored, PUBREC was sent.
    Stored,
    /// Too many are open.
    TooMany,
}

#[derive(Debug, Default)]
struct State {
    subscriptions: BTreeMap<usize, Subscription>,
    last_subscription: usize,
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    /// Retained messages still to be sent, by topic, with the quality granted.
    owed: VecDeque<(Arc<str>, Qos)>,
    flight: VecDeque<Flight>,
    last_pid: u16,
    /// QoS 2 messages of the client: stored or not.
    unreleased: BTreeMap<u16, bool>,
    connected: bool,
    overflowed: bool,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: Key,
    pub(super) account: Arc<Account>,
    /// Ends with the connection.
    pub(super) clean: bool,
    line: Line,
    limits: Limits,
    state: Mutex<State>,
    /// Something is to be sent.
    pub(super) wake: Notify,
    dropped: Arc<AtomicU64>,
}

impl Session {
    pub(super) fn new(key: Key, account: Arc<Account>, clean: bool, limits: Limits, dropped: Arc<AtomicU64>) -> Self {
        let (line, state, wake) = Default::default();
        Self { key, account, clean, line, limits, state, wake, dropped }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client took the session. Adds to `out` what it had not acknowledged.
    pub(super) fn attach(&self, out: &mut BytesMut) {
        let mut state = self.state();
        state.connected = true;
        // What was being stored when the connection fell was never acknowledged: it is new when it comes again.
        state.unreleased.retain(|_, stored| *stored);
        for flight in &state.flight {
            match &flight.delivery {
                Some(it) => {
                    let flags = Flags { retain: it.retain, duplicate: true };
                    packet::publish(out, &it.topic, &it.payload, it.qos, flight.pid, flags);
                }
                None => packet::ack(out, Ack::PubRel, flight.pid),
            }
        }
    }

    /// The client is gone; what it need not have is let go.
    pub(super) fn detach(&self) {
        let mut state = self.state();
        state.connected = false;
        state.owed.retain(|(_, qos)| *qos > Qos::AtMostOnce);
        state.queue.retain(|it| it.qos > Qos::AtMostOnce);
        state.queued_bytes = state.queue.iter().map(Delivery::weight).sum();
    }

    /// More waited than may; messages the client was promised are lost, so the session cannot go on.
    pub(super) fn has_overflowed(&self) -> bool {
        self.state().overflowed
    }

    /// The number of the subscription to a filter, and whether the router must be told. `None` when there are too many.
    pub(super) fn add_subscription(&self, filter: &Filter, qos: Qos) -> Option<(usize, bool)> {
        let mut state = self.state();
        if let Some((number, known)) = state.subscriptions.iter_mut().find(|(_, known)| known.filter == *filter) {
            known.qos = qos;
            return Some((*number, !known.known));
        }
        if state.subscriptions.len() >= MOST_FILTERS {
            return None;
        }
        state.last_subscription += 1;
        let number = state.last_subscription;
        // Until it has begun it hears nothing, so it vouches for nothing.
        let new = Subscription { filter: filter.clone(), qos, after: u64::MAX, last: 0, known: false };
        state.subscriptions.insert(number, new);
        Some((number, true))
    }

    /// The router knows a subscription.
    pub(super) fn subscribed(&self, number: usize) {
        if let Some(subscription) = self.state().subscriptions.get_mut(&number) {
            subscription.known = true;
        }
    }

    /// Removes a subscription, giving its number.
    pub(super) fn remove_subscription(&self, filter: &str) -> Option<usize> {
        let mut state = self.state();
        let number = *state.subscriptions.iter().find(|(_, known)| known.filter.as_str() == filter)?.0;
        state.subscriptions.remove(&number);
        Some(number)
    }

    /// Filters with their qualities, as they are kept over a restart.
    pub(super) fn filters(&self) -> Vec<(Filter, Qos)> {
        self.state().subscriptions.values().map(|s| (s.filter.clone(), s.qos)).collect()
    }

    /// Retained messages a new subscription is owed.
    pub(super) fn owe(&self, topics: Vec<Arc<str>>, qos: Qos) {
        self.state().owed.extend(topics.into_iter().map(|topic| (topic, qos)));
        self.wake.notify_one();
    }

    /// Adds to `out` what may be sent now. Returns how many messages.
    pub(super) fn fill(&self, out: &mut BytesMut, retained: &Retained) -> u64 {
        let mut state = self.state();
        let mut sent = 0;
        while out.len() < WRITE {
            let Some(next) = state.next(retained) else { break };
            state.send(out, next);
            sent += 1;
        }
        sent
    }

    /// PUBACK of the client.
    pub(super) fn acknowledged(&self, pid: u16) {
        let mut state = self.state();
        let at_least_once = |f: &Flight| f.delivery.as_ref().is_some_and(|d| d.qos == Qos::AtLeastOnce);
        state.flight.retain(|flight| flight.pid != pid || !at_least_once(flight));
        drop(state);
        self.wake.notify_one();
    }

    /// PUBREC of the client: from here on only PUBREL is sent again.
    pub(super) fn recorded(&self, pid: u16) {
        let mut state = self.state();
        let exactly_once = |d: &Delivery| d.qos == Qos::ExactlyOnce;
        for flight in state.flight.iter_mut().filter(|flight| flight.pid == pid) {
            flight.delivery.take_if(|delivery| exactly_once(delivery));
        }
    }

    /// PUBCOMP of the client.
    pub(super) fn completed(&self, pid: u16) {
        self.state().flight.retain(|flight| flight.pid != pid || flight.delivery.is_some());
        self.wake.notify_one();
    }

    /// A QoS 2 message of the client came.
    pub(super) fn receive(&self, pid: u16) -> Received {
        let mut state = self.state();
        match state.unreleased.get(&pid) {
            Some(true) => Received::Stored,
            Some(false) => Received::Pending,
            None if state.unreleased.len() >= MOST_UNRELEASED => Received::TooMany,
            None => {
                state.unreleased.insert(pid, false);
                Received::New
            }
        }
    }

    /// It is stored: when it comes again it is the same one.
    pub(super) fn stored(&self, pid: u16) {
        self.state().unreleased.insert(pid, true);
    }

    /// PUBREL of the client: the number may be used for another one.
    pub(super) fn released(&self, pid: u16) {
        self.state().unreleased.remove(&pid);
    }
}

impl Delivery {
    /// What it takes in memory, about.
    fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + 64
    }
}

impl State {
    /// The next message, if one may be sent.
    fn next(&mut self, retained: &Retained) -> Option<Delivery> {
        let full = self.flight.len() >= WINDOW;
        while let Some((topic, granted)) = self.owed.front() {
            if full && *granted > Qos::AtMostOnce {
                return None;
            }
            let (topic, granted) = (Arc::clone(topic), *granted);
            self.owed.pop_front();
            // It may have been cleared since.
            if let Some(message) = retained.get(&topic) {
                let topic = Bytes::copy_from_slice(topic.as_bytes());
                return Some(Delivery { topic, payload: message.payload, qos: message.qos.min(granted), retain: true });
            }
        }
        if full && self.queue.front()?.qos > Qos::AtMostOnce {
            return None;
        }
        let next = self.queue.pop_front()?;
        self.queued_bytes -= next.weight();
        Some(next)
    }

    fn send(&mut self, out: &mut BytesMut, delivery: Delivery) {
        let pid = if delivery.qos == Qos::AtMostOnce { 0 } else { self.free_pid() };
        let flags = Flags { retain: delivery.retain, duplicate: false };
        packet::publish(out, &delivery.topic, &delivery.payload, delivery.qos, pid, flags);
        if pid != 0 {
            self.flight.push_back(Flight { pid, delivery: Some(delivery) });
        }
    }

    /// The next number that no message in flight has.
    fn free_pid(&mut self) -> u16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            if self.flight.iter().all(|flight| flight.pid != self.last_pid) {
                return self.last_pid;
            }
        }
    }

    /// The quality a message is delivered with: the publisher's, or the best granted to it where that is less. `None`
    /// when another subscription has brought the same message already.
    fn granted(&mut self, arrival: &Arrival) -> Option<Qos> {
        let own = self.subscriptions.get_mut(&arrival.subscription)?;
        own.last = arrival.seq;
        let mut granted = own.qos;
        if self.subscriptions.len() > 1 {
            let topic = std::str::from_utf8(&arrival.topic).ok()?;
            let others = self.subscriptions.iter().filter(|(number, _)| **number != arrival.subscription);
            for (_, other) in others.filter(|(_, other)| other.filter.matches(topic)) {
                if other.after < arrival.seq && arrival.seq <= other.last {
                    return None;
                }
                granted = granted.max(other.qos);
            }
        }
        Some(granted.min(arrival.qos))
    }
}

impl Subscriber for Session {
    fn line(&self) -> &Line {
        &self.line
    }

    fn subscriptions(&self) -> Vec<(usize, Filter)> {
        self.state().subscriptions.iter().map(|(number, s)| (*number, s.filter.clone())).collect()
    }

    fn begin(&self, subscription: usize, after: u64) {
        if let Some(subscription) = self.state().subscriptions.get_mut(&subscription) {
            subscription.after = after;
            subscription.last = 0;
        }
    }

    fn hear(&self, arrival: Arrival) {
        let mut state = self.state();
        let Some(qos) = state.granted(&arrival) else { return };
        if state.overflowed || qos == Qos::AtMostOnce && !state.connected {
            return;
        }
        let delivery = Delivery { topic: arrival.topic, payload: arrival.payload, qos, retain: false };
        let bytes = state.queued_bytes + delivery.weight();
        if state.queue.len() >= self.limits.messages || bytes > self.limits.bytes {
            self.overflow(&mut state, qos);
        } else {
            state.queued_bytes = bytes;
            state.queue.push_back(delivery);
        }
        drop(state);
        self.wake.notify_one();
    }
}

impl Session {
    /// QoS 0 may be lost, and is counted; the rest was promised, so the session ends rather than break the promise
    /// in silence.
    fn overflow(&self, state: &mut State, qos: Qos) {
        if qos == Qos::AtMostOnce {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (account, client) = (&self.key.account, &self.key.client);
        warn!(%account, %client, waiting = state.queue.len(), "Subscriber too slow or too long away; its session ends");
        state.overflowed = true;
        state.queue = VecDeque::new();
        state.queued_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{accounts::Accounts, keeper::keeper, packet::Inbound},
        *,
    };
    use crate::{
        config::broker::{AccountSettings, Password},
        store::MemoryKeep,
    };

    fn retained() -> Retained {
        let keep = Arc::new(MemoryKeep::default());
        Retained::open(keep.as_ref(), keeper(keep.clone()).0, 100).expect("opened")
    }

    fn session(messages: usize) -> Session {
        let password = Password::Given("not used in here".into());
        let settings = AccountSettings { name: "a".into(), password, publish: vec![], subscribe: vec![] };
        let account = Accounts::open(&[settings]).0.by_name("a").expect("there");
        let key = Key { account: "a".into(), client: "c".into() };
        let session = Session::new(key, account, false, Limits { messages, bytes: 1 << 20 }, Arc::default());
        session.attach(&mut BytesMut::new());
        session
    }

    fn subscribe(session: &Session, filter: &str, qos: Qos, after: u64) -> usize {
        let (number, _) = session.add_subscription(&filter.parse().expect("a filter"), qos).expect("room");
        session.begin(number, after);
        number
    }

    fn say(session: &Session, subscription: usize, seq: u64, topic: &'static str, qos: Qos) {
        let payload = Bytes::from(seq.to_string());
        session.hear(Arrival { subscription, seq, topic: Bytes::from_static(topic.as_bytes()), payload, qos });
    }

    /// What is sent, as the client reads it: payload, QoS, pid.
    fn sent(session: &Session) -> Vec<(String, Qos, u16)> {
        let mut out = BytesMut::new();
        session.fill(&mut out, &retained());
        read(out)
    }

    fn read(mut out: BytesMut) -> Vec<(String, Qos, u16)> {
        // A client may read what a broker may not, but of a PUBLISH both read the same.
        let publishes = std::iter::from_fn(|| packet::next(&mut out, 65_536).ok().flatten());
        let publishes = publishes.filter_map(|packet| match packet {
            Inbound::Publish(p) => Some((String::from_utf8_lossy(&p.payload).into_owned(), p.qos, p.pid)),
            _ => None,
        });
        publishes.collect()
    }

    #[test]
    fn the_quality_is_the_lesser_of_publisher_and_subscriber() {
        use Qos::{AtLeastOnce as One, AtMostOnce as Zero, ExactlyOnce as Two};
        for (published, granted, expected) in [(Zero, Two, Zero), (One, Two, One), (Two, One, One), (Two, Zero, Zero)] {
            let session = session(10);
            let number = subscribe(&session, "a", granted, 0);
            say(&session, number, 1, "a", published);
            assert_eq!(sent(&session).first().map(|s| s.1), Some(expected));
        }
    }

    #[test]
    fn subscriptions_that_overlap_bring_a_message_once_whatever_their_order() {
        let session = session(10);
        let one = subscribe(&session, "a/+", Qos::AtLeastOnce, 0);
        let two = subscribe(&session, "a/#", Qos::AtMostOnce, 0);
        for (subscription, seq) in [(one, 1), (two, 1), (two, 2), (two, 3), (one, 2), (one, 3), (one, 4), (two, 4)] {
            say(&session, subscription, seq, "a/b", Qos::AtLeastOnce);
        }
        let payloads: Vec<_> = sent(&session).into_iter().map(|(payload, ..)| payload).collect();
        assert_eq!(payloads, ["1", "2", "3", "4"]);
    }

    #[test]
    fn a_later_subscription_does_not_hide_what_came_before_it() {
        let session = session(10);
        let one = subscribe(&session, "a/+", Qos::AtLeastOnce, 0);
        let two = subscribe(&session, "a/#", Qos::AtLeastOnce, 5);
        say(&session, two, 6, "a/b", Qos::AtLeastOnce);
        say(&session, one, 5, "a/b", Qos::AtLeastOnce);
        say(&session, one, 6, "a/b", Qos::AtLeastOnce);
        let payloads: Vec<_> = sent(&session).into_iter().map(|(payload, ..)| payload).collect();
        assert_eq!(payloads, ["6", "5"]);
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_with_its_number() {
        let session = session(10);
        let number = subscribe(&session, "a", Qos::ExactlyOnce, 0);
        say(&session, number, 1, "a", Qos::AtLeastOnce);
        say(&session, number, 2, "a", Qos::ExactlyOnce);
        say(&session, number, 3, "a", Qos::ExactlyOnce);
        let first = sent(&session);
        session.acknowledged(first[0].2);
        session.recorded(first[1].2);
        session.detach();
        let mut out = BytesMut::new();
        session.attach(&mut out);
        assert_eq!(out.get(..4), Some(&[0x62, 2, 0, 2][..]), "PUBREL of the second");
        assert_eq!(out.get(4).map(|byte| byte & 0x08), Some(0x08), "the third is marked a duplicate");
        session.completed(first[1].2);
        assert_eq!(read(out.split_off(4)), [first[2].clone()]);
    }

    #[test]
    fn no_more_than_a_window_is_under_way_and_an_acknowledgement_lets_the_next_go() {
        let session = session(100);
        let number = subscribe(&session, "a", Qos::AtLeastOnce, 0);
        (1..=40).for_each(|seq| say(&session, number, seq, "a", Qos::AtLeastOnce));
        let first = sent(&session);
        assert_eq!((first.len(), sent(&session).len()), (WINDOW, 0));
        session.acknowledged(first[5].2);
        assert_eq!(sent(&session).len(), 1);
    }

    #[test]
    fn a_queue_that_overflows_drops_quality_0_and_ends_the_session_for_the_rest() {
        let session = session(5);
        let number = subscribe(&session, "a", Qos::AtLeastOnce, 0);
        (1..=9).for_each(|seq| say(&session, number, seq, "a", Qos::AtMostOnce));
        assert_eq!((session.has_overflowed(), session.dropped.load(Ordering::Relaxed)), (false, 4));
        say(&session, number, 10, "a", Qos::AtLeastOnce);
        assert!(session.has_overflowed());
    }

    #[test]
    fn while_the_client_is_away_what_was_promised_waits_and_the_rest_does_not() {
        let session = session(10);
        let number = subscribe(&session, "a", Qos::AtLeastOnce, 0);
        say(&session, number, 1, "a", Qos::AtMostOnce);
        session.detach();
        say(&session, number, 2, "a", Qos::AtMostOnce);
        say(&session, number, 3, "a", Qos::AtLeastOnce);
        session.attach(&mut BytesMut::new());
        assert_eq!(sent(&session).into_iter().map(|s| s.0).collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    fn a_message_of_quality_2_is_new_once_until_it_is_released() {
        let session = session(10);
        assert_eq!((session.receive(7), session.receive(7)), (Received::New, Received::Pending));
        session.stored(7);
        assert_eq!(session.receive(7), Received::Stored);
        session.released(7);
        assert_eq!(session.receive(7), Received::New);
        (100..163).for_each(|pid| assert_eq!(session.receive(pid), Received::New));
        assert_eq!(session.receive(200), Received::TooMany);
        session.attach(&mut BytesMut::new());
        assert_eq!(session.receive(7), Received::New, "it was never stored");
    }
}
