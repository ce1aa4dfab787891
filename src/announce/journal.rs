//! What survives a restart: announcements that wait, the journal of those that ended, keys already asked, the day's
//! minutes. All small records in the [`Keep`].
//!
//! An announcement that was playing when the gateway stopped is written down as failed and not played again by itself:
//! half of it was heard, and whoever asked decides. Those that were waiting, a cut one among them, are played.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::error;

use super::queue::Item;
use crate::{
    announcement::{AnnouncementId, Class, End, JournalEntry},
    clock::{Clock, Stamp},
    store::{Keep, KeepExt, StoreError},
    supervisor::chain,
};

/// Journal entries kept; at ten a day, more than six months.
const ENTRIES: usize = 2_000;
/// Of these, so many in memory.
const AT_HAND: usize = 200;
/// Keys remembered; more than can be played in a day.
const KEYS: usize = 500;
/// A key asked again within this time is the same announcement; one that waited longer is stale.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Entries written while the card could not be read are numbered from here.
const APART: u64 = 1 << 63;

const JOURNAL: &str = "journal";
const QUEUE: &str = "announce-queue";
const ASKED: &str = "announce-keys";
const SPENT: &str = "announce-spent";

/// A waiting or playing announcement on the card.
#[derive(Serialize, Deserialize)]
struct Record {
    item: Item,
    playing: bool,
}

/// A key that was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Asked {
    digest: [u8; 32],
    id: AnnouncementId,
    at: Stamp,
}

impl Asked {
    fn of(item: &Item) -> Option<Self> {
        Some(Self { digest: digest(item.request.key.as_ref()?), id: item.id, at: item.asked })
    }
}

/// How long ambiance and information have sounded on a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    day: Option<Date>,
    ms: u64,
}

#[derive(Default)]
struct Book {
    /// Newest first.
    latest: VecDeque<JournalEntry>,
    /// Keys of the records on the card, oldest first.
    stored: VecDeque<u64>,
    next: u64,
    asked: VecDeque<Asked>,
    spent: Spent,
    last_id: u64,
    /// Announcements with larger numbers were asked while the card could not be read.
    apart_from: u64,
}

/// The part of the store that belongs to announcements.
pub(crate) struct Journal {
    keep: Arc<dyn Keep>,
    clock: Clock,
    book: Mutex<Book>,
}

impl Journal {
    /// Reads what is on the card: the journal, and what was waiting, and what was playing when the gateway died.
    /// Records that cannot be read are left out and logged.
    pub(crate) fn open(keep: Arc<dyn Keep>, clock: Clock) -> (Self, Vec<Item>, Vec<Item>) {
        let mut book = Book::default();
        if !*keep.known().borrow() {
            // Numbers no card has, until it can be read.
            book.next = APART;
            book.last_id = u64::from(clock.boot()) * 1_000;
            book.apart_from = book.last_id;
            return (Self { keep, clock, book: Mutex::new(book) }, Vec::new(), Vec::new());
        }
        let (book, waiting, playing) = Self::read(keep.as_ref());
        (Self { keep, clock, book: Mutex::new(book) }, waiting, playing)
    }

    fn read(keep: &dyn Keep) -> (Book, Vec<Item>, Vec<Item>) {
        let mut book = Book::default();
        for (key, bytes) in listed(keep, JOURNAL) {
            let (Some(number), Ok(entry)) = (number(&key), serde_json::from_slice::<JournalEntry>(&bytes)) else {
                continue;
            };
            book.last_id = book.last_id.max(entry.id.0);
            book.stored.push_back(number);
            book.latest.push_front(entry);
            book.latest.truncate(AT_HAND);
        }
        book.next = book.stored.back().map_or(0, |last| last + 1);
        let asked = listed(keep, ASKED);
        let mut asked: Vec<Asked> = asked.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect();
        asked.sort_by_key(|asked| asked.at);
        book.asked = asked.into();
        book.spent = keep.load(SPENT, "day").ok().flatten().unwrap_or_default();
        let records = listed(keep, QUEUE);
        let records: Vec<Record> = records.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect();
        let known = book.asked.iter().map(|a| a.id.0).chain(records.iter().map(|r| r.item.id.0)).max();
        book.last_id = book.last_id.max(known.unwrap_or(0));
        let (playing, waiting): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.playing);
        let items = |records: Vec<Record>| records.into_iter().map(|record| record.item).collect();
        (book, items(waiting), items(playing))
    }

    /// Takes up what the card holds, when it could not be read at the start: entries of meanwhile follow those of the card,
    /// minutes are added, what was waiting or playing before the start is given back. A key is known from now on; asked
    /// meanwhile too, its announcement was taken twice.
    pub(crate) fn take_up(&self) -> (Vec<Item>, Vec<Item>) {
        let meanwhile: Vec<_> =
            listed(self.keep.as_ref(), JOURNAL).into_iter().filter(|(key, _)| number(key) >= Some(APART)).collect();
        for (key, _) in &meanwhile {
            self.told("an entry of meanwhile", self.keep.hold(JOURNAL, key, None));
        }
        let (spent, asked) = {
            let book = self.lock();
            (book.spent, book.asked.clone())
        };
        let (anew, waiting, playing) = Self::read(self.keep.as_ref());
        let mut book = self.lock();
        let (own, last_id) = (book.apart_from, book.last_id);
        *book = anew;
        book.last_id = book.last_id.max(last_id);
        book.asked.retain(|known| asked.iter().all(|other| other.digest != known.digest));
        book.asked.extend(asked);
        if book.spent.day == spent.day || book.spent.day.is_none() {
            book.spent = Spent { day: spent.day.or(book.spent.day), ms: book.spent.ms + spent.ms };
        } else if spent.day.is_some() {
            book.spent = spent;
        }
        drop(book);
        self.write(meanwhile.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()));
        let of_before = |items: Vec<Item>| items.into_iter().filter(|item| item.id.0 <= own).collect();
        (of_before(waiting), of_before(playing))
    }

    /// A number never given before.
    pub(crate) fn new_id(&self) -> AnnouncementId {
        let mut book = self.lock();
        book.last_id += 1;
        AnnouncementId(book.last_id)
    }

    /// The announcement that was asked with this key within a day. While the wall clock is not trusted, nothing is
    /// forgotten.
    pub(crate) fn asked_before(&self, key: &str) -> Option<AnnouncementId> {
        let digest = digest(key);
        let book = self.lock();
        let same = book.asked.iter().rev().find(|asked| asked.digest == digest)?;
        (!self.older_than_a_day(same.at)).then_some(same.id)
    }

    /// Whether a day has passed since, by this start's own clock or by a trusted wall clock.
    pub(crate) fn older_than_a_day(&self, stamp: Stamp) -> bool {
        let now = self.clock.now();
        if stamp.boot == now.boot {
            return Duration::from_millis(now.mono_ms.saturating_sub(stamp.mono_ms)) >= DAY;
        }
        let trusted = |stamp| self.clock.resolve(stamp).filter(|wall| wall.source.is_trusted());
        let (Some(then), Some(now)) = (trusted(stamp), trusted(now)) else { return false };
        now.unix_ms - then.unix_ms >= DAY.as_millis() as i64
    }

    /// Puts an announcement on the card, with its key: both or neither.
    ///
    /// # Errors
    /// When the card refuses it.
    pub(crate) fn keep_waiting(&self, item: &Item) -> Result<(), StoreError> {
        self.keep_record(item, false)?;
        let kept = Asked::of(item).map_or(Ok(()), |asked| {
            let bytes = serde_json::to_vec(&asked).map_err(|error| StoreError::new("encode a key", error))?;
            self.keep.put(ASKED, &asked.digest, &bytes)
        });
        if kept.is_err() {
            self.forget(item.id);
        }
        kept
    }

    /// It was taken: its key is known from now on.
    pub(crate) fn remember_key(&self, item: &Item) {
        let Some(asked) = Asked::of(item) else { return };
        let mut book = self.lock();
        book.asked.retain(|other| other.digest != asked.digest);
        book.asked.push_back(asked);
        let forgotten = if book.asked.len() > KEYS { book.asked.pop_front() } else { None };
        drop(book);
        if let Some(old) = forgotten {
            self.told("the bound of keys", self.keep.hold(ASKED, &old.digest, None));
        }
    }

    /// From now on a crash is a failure of this announcement.
    pub(crate) fn mark_playing(&self, item: &Item) {
        self.told("an announcement that begins", self.hold_record(item, true));
    }

    /// It waits again, after it was cut.
    pub(crate) fn mark_waiting(&self, item: &Item) {
        self.told("an announcement that was cut", self.hold_record(item, false));
    }

    /// It has ended.
    pub(crate) fn forget(&self, id: AnnouncementId) {
        self.told("an announcement that ended", self.keep.hold(QUEUE, &id.0.to_be_bytes(), None));
    }

    fn keep_record(&self, item: &Item, playing: bool) -> Result<(), StoreError> {
        self.keep.put(QUEUE, &item.id.0.to_be_bytes(), &record(item, playing)?)
    }

    /// As it is now; a card that refuses or hangs learns of it later, and only of the last word.
    fn hold_record(&self, item: &Item, playing: bool) -> Result<(), StoreError> {
        self.keep.hold(QUEUE, &item.id.0.to_be_bytes(), Some(&record(item, playing)?))
    }

    /// Writes entries down, in memory even when the card refuses them.
    pub(crate) fn write(&self, entries: impl IntoIterator<Item = JournalEntry>) {
        for entry in entries {
            let bytes = serde_json::to_vec(&entry);
            let mut book = self.lock();
            let number = book.next;
            book.next += 1;
            book.latest.push_front(entry);
            book.latest.truncate(AT_HAND);
            book.stored.push_back(number);
            let oldest = if book.stored.len() > ENTRIES { book.stored.pop_front() } else { None };
            drop(book);
            if let Ok(bytes) = bytes {
                self.told("a journal entry", self.keep.hold(JOURNAL, &number.to_be_bytes(), Some(&bytes)));
            }
            if let Some(oldest) = oldest {
                self.told("the journal's bound", self.keep.hold(JOURNAL, &oldest.to_be_bytes(), None));
            }
        }
    }

    /// The latest entries, newest first; beyond the newest 200 they are read from the card.
    pub(crate) fn latest(&self, limit: usize) -> Vec<JournalEntry> {
        let book = self.lock();
        if limit <= book.latest.len() || book.stored.len() <= book.latest.len() {
            return book.latest.iter().take(limit).cloned().collect();
        }
        drop(book);
        let stored = listed(self.keep.as_ref(), JOURNAL);
        let newest = stored.iter().rev().take(limit);
        newest.filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect()
    }

    /// How long ambiance and information have sounded on `today`.
    pub(crate) fn spent(&self, today: Option<Date>) -> Duration {
        let spent = self.lock().spent;
        // An unknown day is taken for the one last known.
        let same = today.is_none() || spent.day.is_none() || spent.day == today;
        Duration::from_millis(if same { spent.ms } else { 0 })
    }

    /// Adds to the minutes of `today`.
    pub(crate) fn spend(&self, class: Class, audible: Duration, today: Option<Date>) {
        if class >= Class::Important || audible.is_zero() {
            return;
        }
        let before = self.spent(today);
        let ms = u64::try_from((before + audible).as_millis()).unwrap_or(u64::MAX);
        let mut book = self.lock();
        book.spent = Spent { day: today.or(book.spent.day), ms };
        let spent = book.spent;
        drop(book);
        self.told("the day's minutes", self.keep.save_or_hold(SPENT, "day", &spent));
    }

    fn told(&self, what: &str, kept: Result<(), StoreError>) {
        if let Err(error) = kept {
            error!(what, why = chain(&error), "Not kept on the card");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    /// What the journal says of one zone.
    pub(crate) fn entry(&self, zone: String, started: Stamp, audible: Duration, end: End) -> JournalEntry {
        JournalEntry {
            id: self.id,
            zone,
            text: self.request.text.clone(),
            class: self.request.class,
            asked_by: self.request.asked_by.clone(),
            started,
            audible_ms: u64::try_from(audible.as_millis()).unwrap_or(u64::MAX),
            end,
        }
    }
}

fn record(item: &Item, playing: bool) -> Result<Vec<u8>, StoreError> {
    let record = serde_json::to_vec(&Record { item: item.clone(), playing });
    record.map_err(|error| StoreError::new(format!("encode announcement {}", item.id), error))
}

fn listed(keep: &dyn Keep, table: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    keep.list(table).unwrap_or_else(|error| {
        error!(table, why = chain(&error), "Records cannot be read");
        Vec::new()
    })
}

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// A key of any length in at most 64 characters.
pub(crate) fn short(key: &str) -> String {
    if key.len() <= 64 { key.to_owned() } else { digest(key).iter().map(|byte| format!("{byte:02x}")).collect() }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{
        announcement::Request,
        clock::{HeldTime, Source},
        store::MemoryKeep,
    };

    fn item(id: u64, key: Option<&str>) -> Item {
        let request = Request {
            text: format!("texte {id}"),
            class: Class::Information,
            zones: vec!["bourg".into(), "hameau".into()],
            asked_by: "secretary".into(),
            key: key.map(Into::into),
        };
        Item { id: AnnouncementId(id), request, asked: Stamp { boot: 1, mono_ms: 0 } }
    }

    fn open(keep: &Arc<MemoryKeep>, clock: &Clock) -> (Journal, Vec<Item>, Vec<Item>) {
        Journal::open(keep.clone(), clock.clone())
    }

    #[test]
    fn what_waited_and_what_played_are_told_apart_after_a_restart() {
        let (keep, clock) = (Arc::default(), Clock::new(1, HeldTime::at(0, Source::Ntp), []));
        let (journal, ..) = open(&keep, &clock);
        for id in 1..=4 {
            assert_eq!(journal.new_id(), AnnouncementId(id));
            journal.keep_waiting(&item(id, None)).expect("kept");
        }
        journal.mark_playing(&item(1, None));
        journal.mark_playing(&item(2, None));
        journal.mark_waiting(&item(2, None));
        journal.forget(AnnouncementId(4));
        let (journal, waiting, playing) = open(&keep, &clock);
        assert_eq!(waiting, [item(2, None), item(3, None)]);
        assert_eq!(playing, [item(1, None)]);
        assert_eq!(journal.new_id(), AnnouncementId(4), "4 left no trace; 3 did");
    }

    /// A card that can be read only from some moment on.
    struct Late {
        memory: MemoryKeep,
        known: tokio::sync::watch::Sender<bool>,
    }

    impl Keep for Late {
        fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.memory.get(table, key)
        }
        fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
            self.memory.put(table, key, value)
        }
        fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
            self.memory.remove(table, key)
        }
        fn list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
            self.memory.list(table)
        }
        fn known(&self) -> tokio::sync::watch::Receiver<bool> {
            self.known.subscribe()
        }
    }

    #[test]
    fn what_the_card_holds_is_taken_up_late_and_what_happened_meanwhile_follows_it() {
        let keep = Arc::new(Late { memory: MemoryKeep::default(), known: tokio::sync::watch::Sender::new(true) });
        let clock = Clock::new(1, HeldTime::at(0, Source::Ntp), []);
        let (before, ..) = Journal::open(keep.clone(), clock.clone());
        let entry = |id| item(id, None).entry("bourg".into(), clock.now(), Duration::from_secs(3), End::Played);
        before.write([entry(1), entry(2)]);
        before.keep_waiting(&item(3, Some("k3"))).expect("kept");
        before.remember_key(&item(3, Some("k3")));
        before.keep_waiting(&item(4, None)).expect("kept");
        before.mark_playing(&item(4, None));

        keep.known.send_replace(false);
        let (journal, waiting, playing) = Journal::open(keep.clone(), clock.clone());
        assert!(waiting.is_empty() && playing.is_empty());
        let id = journal.new_id();
        assert!(id.0 > 4);
        journal.write([entry(id.0)]);
        journal.keep_waiting(&item(id.0 + 1, None)).expect("held");
        keep.known.send_replace(true);
        assert_eq!(journal.take_up(), (vec![item(3, Some("k3"))], vec![item(4, None)]));
        assert_eq!(journal.asked_before("k3"), Some(AnnouncementId(3)));
        let ids = |journal: &Journal| journal.latest(9).iter().map(|entry| entry.id.0).collect::<Vec<_>>();
        assert_eq!(ids(&journal), [id.0, 2, 1]);
        let (again, ..) = Journal::open(keep.clone(), clock.clone());
        assert_eq!(ids(&again), [id.0, 2, 1]);
        assert!(again.new_id() > id);
    }

    #[test]
    fn the_journal_is_newest_first_bounded_and_survives() {
        let (keep, clock) = (Arc::default(), Clock::new(1, HeldTime::at(0, Source::Ntp), []));
        let (journal, ..) = open(&keep, &clock);
        for id in 1..=(ENTRIES as u64 / 2 + 10) {
            let item = item(id, None);
            let entry = |zone: &str| item.entry(zone.into(), clock.now(), Duration::from_secs(3), End::Played);
            journal.write(["bourg", "hameau"].map(entry));
        }
        let (again, ..) = open(&keep, &clock);
        assert_eq!(again.new_id().0, 1_011);
        for journal in [journal, again] {
            let all = journal.latest(usize::MAX);
            assert_eq!(all.len(), ENTRIES);
            assert_eq!((all[0].id.0, all[0].zone.as_str(), all[0].audible_ms), (1_010, "hameau", 3_000));
            assert_eq!(all[ENTRIES - 1].id.0, 11);
            assert_eq!(journal.latest(3), all[..3]);
            assert_eq!(journal.latest(AT_HAND + 1), all[..=AT_HAND]);
        }
    }

    #[test]
    fn a_key_is_remembered_for_a_day_and_across_a_restart() {
        let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
        let first = Clock::new(1, time.clone(), []);
        let sample = first.observe().expect("a sample");
        let keep = Arc::default();
        let (journal, ..) = open(&keep, &first);
        journal.keep_waiting(&item(7, Some("k1"))).expect("kept");
        journal.remember_key(&item(7, Some("k1")));
        assert_eq!((journal.asked_before("k1"), journal.asked_before("k2")), (Some(AnnouncementId(7)), None));
        time.advance(86_399_000);
        assert_eq!(journal.asked_before("k1"), Some(AnnouncementId(7)));
        time.advance(1_000);
        assert_eq!(journal.asked_before("k1"), None);

        let unsure = Clock::new(2, HeldTime::at(1_900_000_000_000, Source::Unknown), [sample]);
        unsure.observe();
        assert_eq!(
            open(&keep, &unsure).0.asked_before("k1"),
            Some(AnnouncementId(7)),
            "an unsure clock forgets nothing"
        );
        let sure = Clock::new(2, HeldTime::at(1_800_086_400_000, Source::Ntp), [sample]);
        sure.observe();
        assert_eq!(open(&keep, &sure).0.asked_before("k1"), None);
    }

    #[test]
    fn keys_are_bounded() {
        let (keep, clock) = (Arc::default(), Clock::new(1, HeldTime::at(0, Source::Ntp), []));
        let (journal, ..) = open(&keep, &clock);
        for id in 0..KEYS as u64 + 5 {
            journal.keep_waiting(&item(id, Some(&format!("k{id}")))).expect("kept");
            journal.remember_key(&item(id, Some(&format!("k{id}"))));
        }
        assert_eq!(keep.list(ASKED).expect("keys").len(), KEYS);
        assert_eq!(journal.asked_before("k4"), None);
        assert_eq!(journal.asked_before("k5"), Some(AnnouncementId(5)));
    }

    #[test]
    fn the_minutes_of_a_day_are_counted_and_begin_anew_the_next() {
        let (keep, clock) = (Arc::default(), Clock::new(1, HeldTime::at(0, Source::Ntp), []));
        let (journal, ..) = open(&keep, &clock);
        let (monday, tuesday) = (Some(date(2026, 6, 1)), Some(date(2026, 6, 2)));
        journal.spend(Class::Information, Duration::from_secs(40), monday);
        journal.spend(Class::Ambiance, Duration::from_secs(20), monday);
        journal.spend(Class::Alert, Duration::from_secs(500), monday);
        assert_eq!(journal.spent(monday), Duration::from_secs(60));
        journal.spend(Class::Information, Duration::from_secs(5), None);
        let (journal, ..) = open(&keep, &clock);
        assert_eq!(journal.spent(monday), Duration::from_secs(65));
        assert_eq!(journal.spent(tuesday), Duration::ZERO);
        journal.spend(Class::Information, Duration::from_secs(7), tuesday);
        assert_eq!(journal.spent(tuesday), Duration::from_secs(7));
    }
}
