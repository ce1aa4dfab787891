//! What goes over the link to the central servers, and what the month may have: a mobile subscription is paid by volume.
//!
//! Counted are the bytes of the pull listener's connections, both ways, handshakes and TLS included, as the system takes
//! and gives them. Not counted are the headers of TCP and IP (40 to 60 bytes a packet, 3 to 6 % of a page), what TCP
//! sends again, and what other programs of the machine send.
//!
//! A month is one of the commune's calendar. Only a trusted clock ends one: while nobody vouches for the time counting
//! goes on, and what was counted belongs to the month in which the time becomes known.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{ToSpan, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    clock::Clock,
    store::{Keep, KeepExt},
    supervisor::chain,
};

/// Where the count is kept.
const TABLE: &str = "traffic";
const KEY: &str = "peers";
/// The count is written at most so often, to spare the card: what a power cut can cost of it.
const WRITTEN_MS: u64 = 300_000;

/// Bytes that went through, both ways, since the start. Cheap to add to.
#[derive(Debug, Default)]
pub struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counters {
    /// So many bytes came in.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes went out.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Both ways since the start.
    pub fn total(&self) -> u64 {
        let [received, sent] = self.both();
        received + sent
    }

    /// Received and sent since the start.
    pub fn both(&self) -> [u64; 2] {
        [self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed)]
    }
}

/// What the month has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// First day of the month; `None` as long as the time was never known.
    pub month: Option<Date>,
    /// Bytes, both ways.
    pub bytes: u64,
    /// What the month may have; `None` without a budget.
    pub limit: Option<u64>,
}

impl Used {
    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.limit.is_some_and(|limit| self.bytes >= limit)
    }

    /// Whether four fifths are gone.
    pub fn is_nearly_spent(&self) -> bool {
        self.limit.is_some_and(|limit| u128::from(self.bytes) * 5 >= u128::from(limit) * 4)
    }
}

/// The count, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger {
    /// First day of the month the bytes are of.
    month: Option<Date>,
    bytes: u64,
    /// Counted since while nobody vouched for the time.
    #[serde(default)]
    undated: u64,
}

impl Ledger {
    fn total(&self) -> u64 {
        self.bytes.saturating_add(self.undated)
    }
}

struct Book {
    ledger: Ledger,
    /// What of the counters is in the ledger.
    entered: u64,
    written: Ledger,
    written_ms: u64,
}

/// The meter of a link and its monthly budget. Shared by who counts, who serves and who shows.
pub struct Traffic {
    counters: Arc<Counters>,
    limit: Option<u64>,
    clock: Clock,
    time_zone: TimeZone,
    keep: Arc<dyn Keep>,
    book: Mutex<Book>,
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").field("counters", &self.counters).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Traffic {
    /// Goes on with the count that was kept. Reads the card.
    pub fn open(keep: Arc<dyn Keep>, clock: Clock, time_zone: TimeZone, limit: Option<u64>) -> Self {
        let known = keep.load::<Ledger>(TABLE, KEY).unwrap_or_else(|error| {
            warn!(why = chain(&error), "The month's data count cannot be read; counted from nothing");
            None
        });
        let ledger = known.unwrap_or_default();
        let written_ms = clock.now().mono_ms;
        let book = Mutex::new(Book { written: ledger.clone(), ledger, entered: 0, written_ms });
        Self { counters: Arc::default(), limit, clock, time_zone, keep, book }
    }

    /// Where the listener counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// What the month has used until now.
    pub fn used(&self) -> Used {
        let mut book = self.lock();
        self.enter(&mut book);
        Used { month: book.ledger.month, bytes: book.ledger.total(), limit: self.limit }
    }

    /// How long until the next month begins; `None` while nobody vouches for the time.
    pub fn until_next_month(&self) -> Option<Duration> {
        let now = self.clock.wall_now();
        let next = self.month()?.checked_add(1.month()).ok()?.to_zoned(self.time_zone.clone()).ok()?;
        let left = next.timestamp().as_millisecond().checked_sub(now.unix_ms)?;
        u64::try_from(left).ok().map(Duration::from_millis)
    }

    /// Writes the count down when it was not for a while. Writes to the card.
    pub fn keep_up(&self) {
        let now = self.clock.now().mono_ms;
        let mut book = self.lock();
        self.enter(&mut book);
        if now.saturating_sub(book.written_ms) >= WRITTEN_MS {
            self.write(&mut book);
        }
    }

    /// Writes the count down. Writes to the card.
    pub fn flush(&self) {
        let mut book = self.lock();
        self.enter(&mut book);
        self.write(&mut book);
    }

    /// The first day of the month it is, by a trusted clock.
    fn month(&self) -> Option<Date> {
        let now = self.clock.wall_now();
        let time = jiff::Timestamp::from_millisecond(now.unix_ms).ok().filter(|_| now.source.is_trusted())?;
        Some(time.to_zoned(self.time_zone.clone()).date().first_of_month())
    }

    /// Takes in what was counted since, and turns the page when a month has ended.
    fn enter(&self, book: &mut Book) {
        let total = self.counters.total();
        let fresh = total.saturating_sub(book.entered);
        book.entered = total;
        let Some(month) = self.month() else {
            book.ledger.undated = book.ledger.undated.saturating_add(fresh);
            return;
        };
        // A month that lies before the known one is a clock put right: nothing is forgiven for it.
        let ended = book.ledger.month.is_some_and(|known| known < month);
        let before = if ended { book.ledger.undated } else { book.ledger.total() };
        book.ledger = Ledger { month: Some(month), bytes: before.saturating_add(fresh), undated: 0 };
    }

    fn write(&self, book: &mut Book) {
        book.written_ms = self.clock.now().mono_ms;
        if book.ledger == book.written {
            return;
        }
        match self.keep.save(TABLE, KEY, &book.ledger) {
            Ok(()) => book.written = book.ledger.clone(),
            Err(error) => warn!(why = chain(&error), "The month's data count cannot be written"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        store::{Entries, MemoryKeep, StoreError},
    };

    /// 31 May 2026, 23:59:50 in Paris: still the 31st, 21:59:50, in UTC.
    const LATE_IN_MAY: i64 = 1_780_264_790_000;

    fn paris() -> TimeZone {
        TimeZone::get("Europe/Paris").expect("bundled")
    }

    fn known_clock(boot: u32, time: &Arc<HeldTime>) -> Clock {
        let clock = Clock::new(boot, time.clone(), []);
        clock.observe();
        clock
    }

    fn month_of(used: Used) -> String {
        used.month.map(|month| month.to_string()).unwrap_or_default()
    }

    /// Counts how often it is written to.
    #[derive(Default)]
    struct WornKeep(MemoryKeep, AtomicUsize);

    impl Keep for WornKeep {
        fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(table, key)
        }
        fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.put(table, key, value)
        }
        fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
            self.0.remove(table, key)
        }
        fn list(&self, table: &str) -> Result<Entries, StoreError> {
            self.0.list(table)
        }
    }

    #[test]
    fn a_month_ends_at_the_commune_s_midnight_and_not_at_greenwich() {
        let time = HeldTime::at(LATE_IN_MAY, Source::Ntp);
        let traffic = Traffic::open(Arc::new(MemoryKeep::default()), known_clock(1, &time), paris(), Some(1_000));
        traffic.counters().sent(900);
        traffic.counters().received(50);
        let used = traffic.used();
        assert_eq!((month_of(used).as_str(), used.bytes), ("2026-05-01", 950));
        assert!(used.is_nearly_spent() && !used.is_spent());
        assert_eq!(traffic.until_next_month(), Some(Duration::from_secs(10)));
        time.advance(10_000);
        traffic.counters().sent(7);
        let used = traffic.used();
        assert_eq!((month_of(used).as_str(), used.bytes), ("2026-06-01", 7));
        assert!(!used.is_nearly_spent());
        // June has no change to summer time in it.
        assert_eq!(traffic.until_next_month(), Some(Duration::from_secs(30 * 86_400)));
    }

    #[test]
    fn a_clock_nobody_vouches_for_ends_no_month_and_what_it_counted_is_not_lost() {
        let keep = Arc::new(MemoryKeep::default());
        let time = HeldTime::at(LATE_IN_MAY, Source::Ntp);
        let first = Traffic::open(keep.clone(), known_clock(1, &time), paris(), Some(1_000));
        first.counters().sent(600);
        first.flush();
        // The box starts again with a clock that claims to be years ahead.
        let time = HeldTime::at(LATE_IN_MAY + 70_000_000_000, Source::Unknown);
        let clock = known_clock(2, &time);
        let second = Traffic::open(keep, clock.clone(), paris(), Some(1_000));
        second.counters().sent(500);
        assert_eq!((second.used().bytes, second.until_next_month()), (1_100, None));
        assert!(second.used().is_spent());
        time.set_wall(LATE_IN_MAY + 5_000, Source::Ntp);
        clock.observe();
        assert_eq!((second.used().bytes, month_of(second.used()).as_str()), (1_100, "2026-05-01"));
    }

    #[test]
    fn what_was_counted_without_a_clock_belongs_to_the_month_in_which_the_time_becomes_known() {
        let keep = Arc::new(MemoryKeep::default());
        let time = HeldTime::at(LATE_IN_MAY, Source::Ntp);
        let first = Traffic::open(keep.clone(), known_clock(1, &time), paris(), None);
        first.counters().sent(600);
        first.flush();
        let time = HeldTime::at(0, Source::Unknown);
        let second = Traffic::open(keep.clone(), known_clock(2, &time), paris(), None);
        second.counters().sent(50);
        second.flush();
        let clock = known_clock(3, &time);
        let third = Traffic::open(keep, clock.clone(), paris(), None);
        assert_eq!(third.used().bytes, 650);
        third.counters().sent(3);
        time.set_wall(LATE_IN_MAY + 60_000, Source::Ntp);
        clock.observe();
        assert_eq!((third.used().bytes, month_of(third.used()).as_str()), (53, "2026-06-01"));
    }

    #[test]
    fn a_clock_put_back_to_an_earlier_month_forgives_nothing() {
        let time = HeldTime::at(LATE_IN_MAY + 60_000, Source::Browser);
        let clock = known_clock(1, &time);
        let traffic = Traffic::open(Arc::new(MemoryKeep::default()), clock.clone(), paris(), None);
        traffic.counters().sent(600);
        assert_eq!(month_of(traffic.used()), "2026-06-01");
        time.set_wall(LATE_IN_MAY, Source::Ntp);
        clock.observe();
        assert_eq!((traffic.used().bytes, month_of(traffic.used()).as_str()), (600, "2026-05-01"));
    }

    #[test]
    fn the_count_survives_a_restart_and_is_written_every_few_minutes_only() {
        let (keep, time) = (Arc::new(WornKeep::default()), HeldTime::at(LATE_IN_MAY - 86_400_000, Source::Ntp));
        let traffic = Traffic::open(keep.clone(), known_clock(1, &time), paris(), None);
        for _ in 0..3_600 {
            time.advance(1_000);
            traffic.counters().sent(10);
            traffic.keep_up();
        }
        assert_eq!(keep.1.load(Ordering::Relaxed), 12, "writes in an hour");
        traffic.counters().sent(5);
        traffic.flush();
        traffic.flush();
        assert_eq!(keep.1.load(Ordering::Relaxed), 13, "and none when nothing has changed");
        let again = Traffic::open(keep, known_clock(2, &time), paris(), None);
        assert_eq!(again.used().bytes, 36_005);
    }
}
