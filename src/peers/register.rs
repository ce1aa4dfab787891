//! The access register: who pulled what, when, how much. It is what the commune shows when somebody asks where the
//! readings of the hall have gone.
//!
//! Pulls of one peer that follow one another are one record that grows, since a record per minute would wear the card
//! more than the readings do. A record is on the card before the first readings it tells of have left.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    clock::{Clock, Stamp},
    reading::Stored,
    store::{Entry, Keep},
    supervisor::chain,
};

/// Where the records are kept: key is the record's number, eight bytes big-endian, value is JSON.
const TABLE: &str = "access";
/// Records kept; the oldest go first.
const RECORDS: usize = 5_000;
/// A record grows for so long at most, and is written again at most so often.
const GROWS_MS: u64 = 3_600_000;
const REWRITTEN_MS: u64 = 1_800_000;

/// What one peer took within an hour at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// Who.
    pub(crate) peer: String,
    /// Where from.
    pub(crate) address: IpAddr,
    /// When it began.
    pub(crate) at: Stamp,
    /// The last pull it tells of.
    pub(crate) until: Stamp,
    /// First number given.
    pub(crate) from: u64,
    /// Last number given.
    pub(crate) to: u64,
    /// Readings given.
    pub(crate) count: u64,
    /// Answers given, with or without readings.
    pub(crate) pulls: u64,
    /// Asked for again, without moving the cursor.
    pub(crate) again: bool,
    /// The newest reading of each point, over and over: metrics, or `order=newest`.
    #[serde(default)]
    pub(crate) newest: bool,
}

/// How readings were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Manner {
    /// In order, after a cursor.
    Onward,
    /// A range or a day once more.
    Again,
    /// The newest of each point.
    Newest,
}

/// One answer, as it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given<'a> {
    pub(crate) peer: &'a str,
    pub(crate) address: IpAddr,
    /// First and last number, and how many readings; `None` for an empty answer.
    pub(crate) readings: Option<(u64, u64, u64)>,
    pub(crate) manner: Manner,
}

impl Given<'_> {
    /// First and last number, and how many readings, of entries in any order.
    pub(crate) fn readings_of(told: &[Entry]) -> Option<(u64, u64, u64)> {
        numbered(told.iter().filter_map(|entry| match entry {
            Entry::Reading(stored) => Some(stored),
            Entry::Gap(_) => None,
        }))
    }
}

/// First and last number, and how many readings.
pub(crate) fn numbered<'a>(readings: impl Iterator<Item = &'a Stored>) -> Option<(u64, u64, u64)> {
    let mut numbers = readings.map(|stored| stored.seq);
    let first = numbers.next()?;
    Some(numbers.fold((first, first, 1), |(low, high, count), seq| (low.min(seq), high.max(seq), count + 1)))
}

/// The register. Its calls write to the card.
pub(crate) struct Register {
    keep: Arc<dyn Keep>,
    clock: Clock,
    shelf: Mutex<Shelf>,
}

struct Shelf {
    next: u64,
    keys: VecDeque<u64>,
    growing: HashMap<(String, Manner), Growing>,
}

struct Growing {
    key: u64,
    access: Access,
    written: Option<Stamp>,
    dirty: bool,
}

impl Register {
    /// Goes on with the records there are. Numbers begin with the boot's, so that none is used twice even if the old
    /// ones cannot be listed.
    pub(crate) fn open(keep: Arc<dyn Keep>, clock: Clock) -> Self {
        let known = keep.list(TABLE).unwrap_or_else(|error| {
            warn!(why = chain(&error), "Access register cannot be listed");
            Vec::new()
        });
        let keys: VecDeque<u64> =
            known.iter().filter_map(|(key, _)| Some(u64::from_be_bytes(key.as_slice().try_into().ok()?))).collect();
        let first = u64::from(clock.boot()) << 32;
        let next = keys.back().map_or(first, |last| first.max(last + 1));
        Self { keep, clock, shelf: Mutex::new(Shelf { next, keys, growing: HashMap::new() }) }
    }

    /// Records one answer. The card refusing it is told and harms nothing else: the link must not depend on it.
    pub(crate) fn record(&self, given: &Given<'_>) {
        let now = self.clock.now();
        let mut shelf = self.lock();
        let key = (given.peer.to_owned(), given.manner);
        let mut growing = match shelf.growing.remove(&key) {
            Some(mut growing) if growing.access.takes(given, now) => {
                growing.access.add(given, now);
                growing.dirty = true;
                growing
            }
            ended => {
                if let Some(mut ended) = ended {
                    self.write(&mut ended, now);
                }
                self.begin(&mut shelf, given, now)
            }
        };
        if growing.written.is_none_or(|written| now.mono_ms.saturating_sub(written.mono_ms) >= REWRITTEN_MS) {
            self.write(&mut growing, now);
        }
        shelf.growing.insert(key, growing);
    }

    /// Writes what has grown since it was last written.
    pub(crate) fn flush(&self) {
        let now = self.clock.now();
        for growing in self.lock().growing.values_mut() {
            self.write(growing, now);
        }
    }

    fn begin(&self, shelf: &mut Shelf, given: &Given<'_>, now: Stamp) -> Growing {
        let key = shelf.next;
        shelf.next += 1;
        shelf.keys.push_back(key);
        while shelf.keys.len() > RECORDS {
            let Some(oldest) = shelf.keys.pop_front() else { break };
            if let Err(error) = self.keep.hold(TABLE, &oldest.to_be_bytes(), None) {
                warn!(why = chain(&error), "Old access record cannot be removed");
            }
        }
        Growing { key, access: Access::new(given, now), written: None, dirty: true }
    }

    fn write(&self, growing: &mut Growing, now: Stamp) {
        if !growing.dirty {
            return;
        }
        growing.written = Some(now);
        let Ok(value) = serde_json::to_vec(&growing.access) else { return };
        match self.keep.hold(TABLE, &growing.key.to_be_bytes(), Some(&value)) {
            Ok(()) => growing.dirty = false,
            Err(error) => warn!(peer = growing.access.peer, why = chain(&error), "Access record cannot be written"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Access {
    fn new(given: &Given<'_>, now: Stamp) -> Self {
        let (from, to, count) = given.readings.unwrap_or((0, 0, 0));
        let (peer, address) = (given.peer.to_owned(), given.address);
        let (again, newest) = (given.manner != Manner::Onward, given.manner == Manner::Newest);
        Self { peer, address, at: now, until: now, from, to, count, pulls: 1, again, newest }
    }

    /// Whether an answer continues this record of its manner: same place, within the hour, and no range begun anew.
    fn takes(&self, given: &Given<'_>, now: Stamp) -> bool {
        let follows = self.newest || given.readings.is_none_or(|(from, ..)| self.count == 0 || from > self.to);
        let young = now.mono_ms.saturating_sub(self.at.mono_ms) < GROWS_MS;
        self.address == given.address && follows && young
    }

    fn add(&mut self, given: &Given<'_>, now: Stamp) {
        self.pulls += 1;
        self.until = now;
        let Some((from, to, count)) = given.readings else { return };
        self.from = if self.count == 0 { from } else { self.from.min(from) };
        self.to = self.to.max(to);
        self.count += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        store::MemoryKeep,
    };

    fn given(peer: &str, readings: Option<(u64, u64, u64)>) -> Given<'_> {
        Given { peer, address: [192, 0, 2, 1].into(), readings, manner: Manner::Onward }
    }

    fn records(keep: &MemoryKeep) -> Vec<Access> {
        let list = keep.list(TABLE).expect("listed");
        list.iter().map(|(_, value)| serde_json::from_slice(value).expect("JSON")).collect()
    }

    #[test]
    fn a_record_is_on_the_card_at_once_and_grows_without_wearing_it() {
        let (keep, time) = (Arc::new(MemoryKeep::default()), HeldTime::at(0, Source::Unknown));
        let register = Register::open(keep.clone(), Clock::new(1, time.clone(), []));
        register.record(&given("agglo", Some((1, 50, 50))));
        assert_eq!(records(&keep)[0].count, 50);
        time.advance(60_000);
        register.record(&given("agglo", Some((51, 60, 10))));
        register.record(&given("agglo", None));
        assert_eq!(records(&keep)[0].count, 50, "not written again so soon");
        register.flush();
        let told = &records(&keep)[0];
        assert_eq!((told.from, told.to, told.count, told.pulls), (1, 60, 60, 3));
        assert_eq!((told.at.mono_ms, told.until.mono_ms), (0, 60_000));
        time.advance(GROWS_MS);
        register.record(&given("agglo", None));
        assert_eq!(records(&keep).len(), 2, "an hour is one record");
    }

    #[test]
    fn another_peer_address_or_an_older_range_is_another_record() {
        let keep = Arc::new(MemoryKeep::default());
        let register = Register::open(keep.clone(), Clock::new(1, HeldTime::at(0, Source::Unknown), []));
        register.record(&given("agglo", Some((1, 50, 50))));
        register.record(&given("dept", Some((51, 60, 10))));
        register.record(&given("agglo", Some((1, 50, 50))));
        register.record(&Given { address: [192, 0, 2, 2].into(), ..given("agglo", Some((51, 60, 10))) });
        register.record(&Given { manner: Manner::Again, ..given("agglo", Some((70, 80, 10))) });
        assert_eq!(records(&keep).len(), 5);
    }

    #[test]
    fn metrics_read_over_and_over_are_one_record_and_break_no_other() {
        let keep = Arc::new(MemoryKeep::default());
        let register = Register::open(keep.clone(), Clock::new(1, HeldTime::at(0, Source::Unknown), []));
        for turn in 0..10 {
            register.record(&given("agglo", Some((10 * turn + 1, 10 * turn + 10, 10))));
            register.record(&Given { manner: Manner::Newest, ..given("agglo", Some((3, 10 * turn + 10, 4))) });
        }
        register.flush();
        let told: Vec<_> = records(&keep).iter().map(|r| (r.newest, r.from, r.to, r.count, r.pulls)).collect();
        assert_eq!(told, [(false, 1, 100, 100, 10), (true, 3, 100, 40, 10)]);
    }

    #[test]
    fn the_register_stays_bounded_and_no_number_is_used_twice_after_a_restart() {
        let keep = Arc::new(MemoryKeep::default());
        for boot in 1..=2 {
            let register = Register::open(keep.clone(), Clock::new(boot, HeldTime::at(0, Source::Unknown), []));
            for _ in 0..3_000 {
                register.record(&given("agglo", Some((1, 1, 1))));
            }
        }
        let boots = keep.list(TABLE).expect("listed").iter().map(|(key, _)| key[3]).collect::<Vec<_>>();
        assert_eq!(boots.len(), RECORDS);
        assert_eq!(boots.iter().filter(|boot| **boot == 2).count(), 3_000);
    }
}
