//! Erasing a point's readings at a person's wish, for good: every segment that may hold a trace of them is written anew,
//! the head is cleared, what was set aside as damaged is removed. The order is written down first, so that a fall in
//! between only delays it. What the card's own electronics keep of deleted blocks is beyond reach.

use std::sync::{Arc, Weak, mpsc};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    inner::{Inner, locked},
    thin::{self, Plan},
    writer::Message,
};
use crate::{
    clock::Clock,
    reading::{PointId, Stored},
    store::{Cause, StoreError},
    supervisor::chain,
};

const TABLE: &str = "erasing";

/// What is to be erased, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub point: PointId,
    /// Only what is dated before; milliseconds since 1970.
    pub before_ms: Option<i64>,
    /// Only numbers up to this one: what comes in later is not meant.
    pub upto: u64,
    /// Segments up to this number are done.
    done: u64,
    /// The newest reading before `done` stays, so no later segment has a note of one that goes.
    stays: bool,
    erased: u64,
}

impl Order {
    /// Whether a reading is to be erased.
    pub(super) fn holds(&self, stored: &Stored, clock: &Clock) -> bool {
        let dated_before = |before| clock.resolve(stored.reading.stamp).is_some_and(|wall| wall.unix_ms < before);
        stored.reading.point == self.point && stored.seq <= self.upto && self.before_ms.is_none_or(dated_before)
    }

    fn key(&self) -> Vec<u8> {
        let before = self.before_ms.map(i64::to_be_bytes);
        [self.point.as_str().as_bytes(), &[0], before.as_ref().map_or(&[], |bytes| bytes)].concat()
    }
}

impl Inner {
    /// See [`crate::store::Archive::erase`].
    pub(super) fn erase_point(&self, point: &PointId, before_ms: Option<i64>) -> Result<u64, StoreError> {
        let refuse = |why: &str| StoreError { doing: format!("erase readings of {point}: {why}"), source: None };
        if self.own.is_none() {
            return Err(refuse("there is no store on the card; what is in memory is forgotten at the restart"));
        }
        let writer = self.room.writer.get().and_then(Weak::upgrade);
        let writer = writer.filter(|_| self.board.get().is_some()).ok_or_else(|| refuse("the store is not at work"))?;
        let upto = self.committed();
        let order = Order { point: point.clone(), before_ms, upto, done: 0, stays: false, erased: 0 };
        self.note(&order)?;
        let (answer, answered) = mpsc::sync_channel(1);
        // What waits for its commit now is meant too.
        let widest = Arc::new(Order { upto: u64::MAX, ..order.clone() });
        let asked = writer.send(Message::SetApart { order: widest, answer });
        drop(writer);
        let upto = asked.ok().and_then(|()| answered.recv().ok()).ok_or_else(|| refuse("the store is stopping"))??;
        self.carry_out(Order { upto, ..order })
    }

    /// Orders that a fall interrupted.
    pub(super) fn unfinished_orders(&self) -> Vec<Order> {
        let Some(own) = &self.own else { return Vec::new() };
        let list = own.own_list(TABLE).unwrap_or_default();
        list.iter().filter_map(|(_, value)| postcard::from_bytes(value).ok()).collect()
    }

    /// Goes through the segments from the oldest; the writer has set them apart. Returns how many readings went.
    pub(super) fn carry_out(&self, mut order: Order) -> Result<u64, StoreError> {
        let _alone = locked(&self.room.alone);
        self.note(&order)?;
        self.drop_damage()?;
        while let Some((first, last)) = self.next_of(&order) {
            let (taken, stays) = self.erase_in(first, &order)?;
            order = Order { erased: order.erased + taken, done: last, stays, ..order };
            self.note(&order)?;
        }
        // Damage may have been found, and set aside, meanwhile.
        self.drop_damage()?;
        if let Some(own) = &self.own {
            own.own_remove(TABLE, &order.key())?;
        }
        info!(point = %order.point, erased = order.erased, "Readings erased");
        Ok(order.erased)
    }

    fn next_of(&self, order: &Order) -> Option<(u64, u64)> {
        let shelf = locked(&self.shelf);
        let newest = shelf.newest();
        let mut segments = shelf.listed().iter().filter(|(first, _)| Some(**first) != newest);
        // A segment that holds numbers beyond what was asked may still hold some of it.
        let next = segments.find(|(first, listed)| listed.last > order.done && **first <= order.upto);
        next.map(|(first, listed)| (*first, listed.last))
    }

    /// One segment. How many readings went, and whether the newest so far stays.
    fn erase_in(&self, first: u64, order: &Order) -> Result<(u64, bool), StoreError> {
        let clock = self.clock();
        let which = |stored: &Stored| order.holds(stored, &clock).then_some(Cause::Erased);
        let plan = Plan { which: &which, is_loss: &|_| false, clock: &clock, stop: &self.room.stopping };
        let taken = self.take_out(first, &plan, Cause::Erased, !order.stays)?;
        let newest = match self.segment(first)? {
            Some(segment) => thin::last_of(&segment, &order.point).map_err(StoreError::from)?,
            None => Some(None),
        };
        Ok((taken, newest.map_or(order.stays, |newest| newest.is_some())))
    }

    /// What is damaged cannot be searched.
    fn drop_damage(&self) -> Result<(), StoreError> {
        let dropped = self.aside.drop_all().map_err(|e| StoreError::new("remove what was set aside as damaged", e))?;
        if dropped > 0 {
            warn!(dropped, "Damage set aside removed: it may hold what was to be erased");
        }
        Ok(())
    }

    fn note(&self, order: &Order) -> Result<(), StoreError> {
        let Some(own) = &self.own else { return Ok(()) };
        let bytes = postcard::to_allocvec(order).map_err(|e| StoreError::new("encode what is to be erased", e))?;
        own.own_put(TABLE, &order.key(), &bytes)
    }

    /// Orders that were interrupted, once the writer has set apart what they concern.
    pub(super) fn resume(&self, orders: Vec<Order>) {
        for order in orders {
            let point = order.point.clone();
            if let Err(error) = self.carry_out(order) {
                warn!(%point, why = chain(&error), "Readings not erased yet; it goes on after the next start");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        buffer::{Buffer, Settings, tests_load},
        clock::{HeldTime, Source},
        condition::Board,
        reading::{Batch, Commit},
        store::{Archive, Entry, PageRequest},
    };

    fn start(settings: &Settings) -> Buffer {
        let opened = Buffer::open(settings).expect("opens");
        let clock = Clock::new(opened.boot, HeldTime::at(1_800_000_000_000, Source::Ntp), opened.samples);
        clock.observe();
        opened.buffer.start(clock.clone(), Board::new(clock));
        opened.buffer
    }

    #[tokio::test]
    async fn an_order_that_a_fall_interrupted_is_carried_out_after_the_next_start() {
        let folder = tempfile::tempdir().expect("folder");
        let directory = folder.path().join("store");
        let settings = Settings { directory, size_limit: 64 << 20, commit_within: Duration::from_secs(3600) };
        let buffer = start(&settings);
        let readings = tests_load::rounds(1, 200);
        let point = readings[7].point.clone();
        buffer.append(Batch { readings, commit: Commit::Grouped, accepted: None }).await;
        buffer.commit().await;
        let order = Order { point: point.clone(), before_ms: None, upto: 10_000, done: 0, stays: false, erased: 0 };
        buffer.inner.note(&order).expect("noted");
        buffer.close().await;
        drop(buffer);

        let buffer = start(&settings);
        let begun = std::time::Instant::now();
        while !buffer.inner.unfinished_orders().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the order is never carried out");
            tokio::task::yield_now().await;
        }
        let request = PageRequest { after: 0, upto: u64::MAX, limit: 20_000, points: None };
        let entries = buffer.inner.page(&request).expect("a page").entries;
        let of_point = |entry: &&Entry| matches!(entry, Entry::Reading(stored) if stored.reading.point == point);
        assert_eq!((entries.iter().filter(of_point).count(), buffer.inner.latest().len()), (0, 49));
        let gaps = buffer.inner.gaps();
        assert_eq!(gaps.iter().map(|gap| (gap.count, gap.cause)).collect::<Vec<_>>(), [(200, Cause::Erased)]);
        buffer.close().await;
    }
}
