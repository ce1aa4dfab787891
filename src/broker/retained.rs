//! Retained messages: in memory for whoever subscribes, on the card when a client left them. Bounded in number and
//! in bytes. rumqttd's own retained messages are not used: they are cut at 200 and do not survive.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use tracing::warn;

use super::{
    keeper::{Keeper, Kept, Table},
    packet::Qos,
    topics,
};
use crate::{
    config::broker::Filter,
    store::{Keep, StoreError},
};

/// Bytes of all retained messages of clients together.
const BYTES: usize = 16 * 1024 * 1024;
/// The largest message the card takes; one record of the store holds 64 KiB with its header.
const LARGEST_KEPT: usize = 65_536 - 16;
/// First byte of a record, so that a later version can tell this one.
const FORMAT: u8 = 1;

/// One retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
}

#[derive(Debug, Default)]
struct Shelf {
    messages: BTreeMap<Arc<str>, Message>,
    bytes: usize,
    full: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Retained {
    shelf: RwLock<Shelf>,
    keeper: Keeper,
    most: usize,
}

impl Retained {
    /// What was left before the last stop.
    pub(super) fn open(keep: &dyn Keep, keeper: Keeper, most: usize) -> Result<Self, StoreError> {
        let mut shelf = Shelf::default();
        for (key, record) in keep.list(Table::Retained.name())?.into_iter().take(most) {
            let Some((topic, message)) = decode(&key, &record) else { continue };
            shelf.bytes += topic.len() + message.payload.len();
            shelf.messages.insert(topic.into(), message);
        }
        Ok(Self { shelf: RwLock::new(shelf), keeper, most })
    }

    /// A client's message. Tells when the card has it; `None` when there is nothing to wait for.
    pub(super) async fn set(&self, topic: &Arc<str>, message: Message) -> Option<Kept> {
        if message.payload.is_empty() {
            return self.clear(topic).await;
        }
        let record = encode(&message);
        if !self.put(topic, message, Some(self.most)) {
            return None;
        }
        if record.len() > LARGEST_KEPT {
            warn!(%topic, bytes = record.len(), "Retained message too large for the store; it will not survive a restart");
            return Some(self.keeper.remove(Table::Retained, topic.as_bytes()).await);
        }
        Some(self.keeper.put(Table::Retained, topic.as_bytes(), record).await)
    }

    /// Removes a client's message, from the card too.
    pub(super) async fn clear(&self, topic: &Arc<str>) -> Option<Kept> {
        if !self.forget(topic) {
            return None;
        }
        Some(self.keeper.remove(Table::Retained, topic.as_bytes()).await)
    }

    /// A message of the gateway itself: told anew at each start, so never on the card.
    pub(super) fn set_ours(&self, topic: &Arc<str>, message: Message) {
        self.put(topic, message, None);
    }

    /// Removes a message from memory. True when it was there.
    pub(super) fn forget(&self, topic: &str) -> bool {
        let mut shelf = self.write();
        let Some(old) = shelf.messages.remove(topic) else { return false };
        shelf.bytes -= topic.len() + old.payload.len();
        true
    }

    fn put(&self, topic: &Arc<str>, message: Message, most: Option<usize>) -> bool {
        let mut shelf = self.write();
        let before = shelf.messages.get(topic).map_or(0, |old| topic.len() + old.payload.len());
        let bytes = shelf.bytes - before + topic.len() + message.payload.len();
        let overfull = most.is_some_and(|most| bytes > BYTES || before == 0 && shelf.messages.len() >= most);
        if overfull {
            if !shelf.full {
                warn!(%topic, count = shelf.messages.len(), bytes, "Too many retained messages; new ones are not retained");
            }
            shelf.full = true;
            return false;
        }
        shelf.full = false;
        shelf.bytes = bytes;
        shelf.messages.insert(Arc::clone(topic), message);
        true
    }

    /// The topics a new subscriber is owed.
    pub(super) fn matching(&self, filter: &Filter) -> Vec<Arc<str>> {
        self.read().messages.keys().filter(|topic| filter.matches(topic)).cloned().collect()
    }

    /// The topics of some.
    pub(super) fn topics(&self, which: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.read().messages.keys().filter(|topic| which(topic)).cloned().collect()
    }

    /// One message, as it is now.
    pub(super) fn get(&self, topic: &str) -> Option<Message> {
        self.read().messages.get(topic).cloned()
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.read().messages.len()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(message: &Message) -> Vec<u8> {
    [&[FORMAT, message.qos as u8], message.payload.as_ref()].concat()
}

/// A record another version wrote, or that its topic no longer allows, is passed over.
fn decode(key: &[u8], record: &[u8]) -> Option<(String, Message)> {
    let topic = std::str::from_utf8(key).ok().filter(|topic| topics::publishable(topic).is_ok())?;
    let [FORMAT, qos, payload @ ..] = record else { return None };
    Some((topic.to_owned(), Message { payload: Bytes::copy_from_slice(payload), qos: Qos::from_u8(*qos)? }))
}

#[cfg(test)]
mod tests {
    use super::{super::keeper::keeper, *};
    use crate::store::MemoryKeep;

    fn retained(most: usize) -> Retained {
        let keep = Arc::new(MemoryKeep::default());
        Retained::open(keep.as_ref(), keeper(keep.clone()).0, most).expect("opened")
    }

    fn message(text: &str) -> Message {
        Message { payload: Bytes::copy_from_slice(text.as_bytes()), qos: Qos::AtLeastOnce }
    }

    #[tokio::test]
    async fn beyond_the_limit_new_topics_are_not_retained_but_known_ones_still_change() {
        let retained = retained(2);
        for topic in ["a", "b", "c"] {
            drop(retained.set(&topic.into(), message("1")).await);
        }
        drop(retained.set(&"a".into(), message("2")).await);
        assert_eq!((retained.count(), retained.get("c"), retained.get("a")), (2, None, Some(message("2"))));
        drop(retained.set(&"a".into(), message("")).await);
        drop(retained.set(&"c".into(), message("3")).await);
        assert_eq!((retained.get("a"), retained.get("c")), (None, Some(message("3"))));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_strange_one_is_passed_over() {
        let record = encode(&message("payload"));
        assert_eq!(decode("a/b".as_bytes(), &record), Some(("a/b".to_owned(), message("payload"))));
        assert_eq!(decode("clocher/x".as_bytes(), &record), None);
        assert_eq!(decode(&[0xff], &record), None);
        assert_eq!(decode(b"a", &[9, 1, 2]), None);
        assert_eq!(decode(b"a", &[]), None);
    }
}
