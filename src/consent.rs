//! Whose agreement lets a personal point leave, to whom, where the paper is; and its withdrawal.
//!
//! A person records both on the panel, the pull listener asks before each page. Entries are only ever added: what was
//! agreed, and until when, can be shown years later. Nobody here decides who may record, or what a sharing class is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    clock::{Clock, Stamp},
    reading::PointId,
    store::{Keep, StoreError},
    supervisor::chain,
};

/// The key is a big-endian counter, so that entries are in the order in which they were recorded.
const TABLE: &str = "consent";
/// Consents recorded at most; a village has a handful. Withdrawals are never refused: each needs a consent to end.
const MOST: usize = 2_000;
/// Points, and peers, of one entry.
const MOST_POINTS: usize = 300;
const MOST_PEERS: usize = 64;
/// Bytes of a person's name, and of the other texts. With the points and peers below the 64 KiB of a record.
const NAME: usize = 300;
const TEXT: usize = 1_200;

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Somebody agreed.
    Given {
        /// Who agreed.
        person: String,
        /// What for, in a few words; may be empty.
        purpose: String,
        /// Where the signed paper is.
        paper: String,
        /// The day on the paper, `2026-05-03`.
        dated: String,
    },
    /// Somebody no longer agrees.
    Withdrawn {
        /// Who asked for it.
        person: String,
    },
    /// What had been recorded may be lost: nothing recorded before counts as an agreement any more.
    Doubted,
}

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What was recorded.
    pub what: What,
    /// Of which points. None for [`What::Doubted`], which is of all.
    pub points: Vec<PointId>,
    /// For which peers, by the names of their certificates.
    pub peers: Vec<String>,
    /// When it was recorded.
    pub at: Stamp,
    /// By which account.
    pub by: String,
}

impl Entry {
    fn is_sound(&self) -> bool {
        let named = |text: &str| !text.trim().is_empty() && text.len() <= NAME;
        let told = |text: &str| !text.trim().is_empty() && text.len() <= TEXT;
        let what = match &self.what {
            What::Given { person, purpose, paper, dated } => {
                named(person) && told(paper) && purpose.len() <= TEXT && named(dated)
            }
            What::Withdrawn { person } => named(person),
            What::Doubted => false,
        };
        let (points, peers) = (self.points.len(), self.peers.len());
        what && (1..=MOST_POINTS).contains(&points) && (1..=MOST_PEERS).contains(&peers)
    }
}

/// Where a point stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was ever recorded of the two: the configuration decides.
    Unspoken,
    /// An agreement was recorded, by this entry.
    Given(usize),
    /// It was withdrawn, by this entry.
    Withdrawn(usize),
    /// What was recorded cannot be read, or may be lost: nothing leaves until an agreement is recorded anew.
    Doubted,
}

/// Why it was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// A name, a paper, a point or a peer is missing, or too long.
    #[error("the entry is not complete, or too long")]
    Incomplete,
    /// The record is full.
    #[error("{MOST} consents are recorded already")]
    Full,
    /// The card. A withdrawal counts nevertheless, until the gateway stops.
    #[error("the entry is not on the card")]
    Card(#[from] StoreError),
}

#[derive(Debug, Default)]
struct Book {
    /// `None` until the card could be read.
    entries: Option<Vec<Entry>>,
    next: u64,
    given: usize,
    /// The last word about each point and peer.
    standing: HashMap<PointId, HashMap<String, Standing>>,
    doubted: bool,
    /// Withdrawals the card has refused so far.
    unwritten: BTreeMap<u64, Entry>,
}

impl Book {
    fn take(&mut self, entry: Entry) {
        let Some(entries) = &mut self.entries else { return };
        let place = entries.len();
        let standing = match entry.what {
            What::Given { .. } => Standing::Given(place),
            What::Withdrawn { .. } => Standing::Withdrawn(place),
            What::Doubted => Standing::Doubted,
        };
        match standing {
            Standing::Given(_) => self.given += 1,
            Standing::Doubted => {
                self.doubted = true;
                self.standing.clear();
            }
            Standing::Withdrawn(_) | Standing::Unspoken => {}
        }
        for point in &entry.points {
            let of_point = self.standing.entry(point.clone()).or_default();
            of_point.extend(entry.peers.iter().map(|peer| (peer.clone(), standing)));
        }
        entries.push(entry);
    }
}

/// The record of consents. Cheap to clone; every call but [`Consents::changes`] may read or write the card once.
#[derive(Clone)]
pub struct Consents {
    keep: Arc<dyn Keep>,
    clock: Clock,
    book: Arc<RwLock<Book>>,
    /// Held while an entry is written, so that numbers are given once.
    writing: Arc<Mutex<()>>,
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Consents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consents").finish_non_exhaustive()
    }
}

impl Consents {
    /// The record kept in `keep`. A card that cannot be read now is asked again later; meanwhile nothing is agreed to.
    pub fn open(keep: Arc<dyn Keep>, clock: Clock) -> Self {
        let consents =
            Self { keep, clock, book: Arc::default(), writing: Arc::default(), changes: watch::Sender::new(0) };
        drop(consents.read());
        consents
    }

    /// Whether a personal point may leave for a peer, `configured` being what the configuration says of that peer.
    pub fn allow(&self, point: &PointId, peer: &str, configured: bool) -> bool {
        match self.standing(point, peer) {
            Standing::Given(_) => true,
            Standing::Unspoken => configured,
            Standing::Withdrawn(_) | Standing::Doubted => false,
        }
    }

    /// Where a point stands with a peer.
    pub fn standing(&self, point: &PointId, peer: &str) -> Standing {
        let book = self.read();
        if book.entries.is_none() {
            return Standing::Doubted;
        }
        let said = book.standing.get(point).and_then(|peers| peers.get(peer)).copied();
        said.unwrap_or(if book.doubted { Standing::Doubted } else { Standing::Unspoken })
    }

    /// Everything recorded, the oldest first; [`Standing`] counts in this list. Tries anew what the card has refused.
    ///
    /// # Errors
    /// When the card cannot be read.
    pub fn all(&self) -> Result<Vec<Entry>, StoreError> {
        let unwritten = self.read().unwritten.clone();
        for (number, entry) in unwritten {
            // Refused again: it is told by `is_written`, and tried at the next look.
            let _ = self.write_down(number, &entry);
        }
        let unread = || StoreError { doing: "read the record of consents".to_owned(), source: None };
        self.read().entries.clone().ok_or_else(unread)
    }

    /// Whether everything recorded is on the card.
    pub fn is_written(&self) -> bool {
        self.read().unwritten.is_empty()
    }

    /// Counts what was recorded, so that whoever holds a decision knows that it is old.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Records an agreement.
    ///
    /// # Errors
    /// When it is not complete, the record is full, or the card refuses it.
    pub fn give(&self, entry: Entry) -> Result<(), NotRecorded> {
        if !entry.is_sound() || !matches!(entry.what, What::Given { .. }) {
            return Err(NotRecorded::Incomplete);
        }
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number()?;
        if self.read().given >= MOST {
            return Err(NotRecorded::Full);
        }
        self.write_down(number, &entry)?;
        info!(peers = ?entry.peers, points = entry.points.len(), by = entry.by, "Consent recorded");
        self.take(entry);
        Ok(())
    }

    /// Records a withdrawal. It counts from this moment, before the card has it.
    ///
    /// # Errors
    /// When it is not complete, or the card refuses it.
    pub fn withdraw(&self, entry: Entry) -> Result<(), NotRecorded> {
        if !entry.is_sound() || !matches!(entry.what, What::Withdrawn { .. }) {
            return Err(NotRecorded::Incomplete);
        }
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number()?;
        info!(peers = ?entry.peers, points = entry.points.len(), by = entry.by, "Consent withdrawn");
        self.take(entry.clone());
        Ok(self.write_down(number, &entry)?)
    }

    /// Nothing recorded so far counts as an agreement any more, nor does the configuration, until somebody records one:
    /// for a store that may have lost withdrawals.
    pub fn doubt(&self) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            what: What::Doubted,
            points: Vec::new(),
            peers: Vec::new(),
            at: self.clock.now(),
            by: String::new(),
        };
        let kept = self.number().and_then(|number| {
            self.take(entry.clone());
            Ok(self.write_down(number, &entry)?)
        });
        match kept {
            Ok(()) => warn!("Consents may be lost; personal points stay here until consents are recorded anew"),
            Err(error) => warn!(why = chain(&error), "Doubt about the consents not written down"),
        }
    }

    /// The number of the next entry, once the record could be read.
    fn number(&self) -> Result<u64, NotRecorded> {
        self.all()?;
        Ok(self.read().next)
    }

    fn take(&self, entry: Entry) {
        self.write().take(entry);
        self.changes.send_modify(|count| *count += 1);
    }

    /// A number is used once, even for an entry the card refused: it may be there nevertheless.
    fn write_down(&self, number: u64, entry: &Entry) -> Result<(), StoreError> {
        {
            let mut book = self.write();
            book.next = book.next.max(number.saturating_add(1));
        }
        let value = serde_json::to_vec(entry).map_err(|error| StoreError::new("encode a consent", error))?;
        let written = self.keep.put(TABLE, &number.to_be_bytes(), &value);
        let mut book = self.write();
        match &written {
            Ok(()) => drop(book.unwritten.remove(&number)),
            // An agreement that is not on the card does not count, and is not tried again.
            Err(_) if matches!(entry.what, What::Given { .. }) => {}
            Err(_) => drop(book.unwritten.insert(number, entry.clone())),
        }
        written
    }

    /// The book, read from the card if it has not been yet.
    fn read(&self) -> RwLockReadGuard<'_, Book> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        if book.entries.is_some() {
            return book;
        }
        drop(book);
        match self.keep.list(TABLE) {
            Ok(records) => {
                let mut book = self.write();
                if book.entries.is_none() {
                    *book = opened(&records, &self.clock);
                }
            }
            Err(error) => warn!(why = chain(&error), "Consents cannot be read; personal points stay here"),
        }
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry that cannot be understood may have been a withdrawal of anything.
fn opened(records: &[(Vec<u8>, Vec<u8>)], clock: &Clock) -> Book {
    let mut book = Book { entries: Some(Vec::new()), ..Book::default() };
    for (key, value) in records {
        let entry = serde_json::from_slice(value).unwrap_or_else(|_| Entry {
            what: What::Doubted,
            points: Vec::new(),
            peers: Vec::new(),
            at: clock.now(),
            by: String::new(),
        });
        book.take(entry);
        let number = <[u8; 8]>::try_from(key.as_slice()).map_or(0, u64::from_be_bytes);
        book.next = book.next.max(number.saturating_add(1));
    }
    book
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        store::{Entries, MemoryKeep},
    };

    /// A card that can be made to fail.
    #[derive(Default)]
    struct Card {
        kept: MemoryKeep,
        deaf: AtomicBool,
    }

    impl Card {
        fn answers(&self) -> Result<(), StoreError> {
            let fault = || StoreError { doing: "use the card".into(), source: None };
            if self.deaf.load(Ordering::Relaxed) { Err(fault()) } else { Ok(()) }
        }
    }

    impl Keep for Card {
        fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.answers().and_then(|()| self.kept.get(table, key))
        }
        fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
            self.answers().and_then(|()| self.kept.put(table, key, value))
        }
        fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
            self.answers().and_then(|()| self.kept.remove(table, key))
        }
        fn list(&self, table: &str) -> Result<Entries, StoreError> {
            self.answers().and_then(|()| self.kept.list(table))
        }
    }

    fn clock() -> Clock {
        Clock::new(1, HeldTime::at(0, Source::Unknown), [])
    }

    fn id(text: &str) -> PointId {
        text.parse().expect("a name")
    }

    fn entry(what: What) -> Entry {
        let points = vec![id("flat/power"), id("flat/index")];
        Entry { what, points, peers: vec!["agglo".into()], at: clock().now(), by: "Jeanne Vidal".into() }
    }

    fn given() -> Entry {
        let (person, paper) = ("Mme Roche".to_owned(), "classeur RGPD".to_owned());
        entry(What::Given { person, purpose: String::new(), paper, dated: "2026-05-03".into() })
    }

    fn withdrawn() -> Entry {
        entry(What::Withdrawn { person: "Mme Roche".into() })
    }

    #[test]
    fn the_last_word_about_a_point_and_a_peer_counts_and_survives() {
        let keep = Arc::new(MemoryKeep::default());
        let consents = Consents::open(keep.clone(), clock());
        let power = id("flat/power");
        assert!(!consents.allow(&power, "agglo", false) && consents.allow(&power, "agglo", true));
        consents.give(given()).expect("recorded");
        assert!(consents.allow(&power, "agglo", false) && !consents.allow(&power, "dept", false));
        assert!(!consents.allow(&id("office/power"), "agglo", false));
        consents.withdraw(withdrawn()).expect("recorded");
        assert!(!consents.allow(&power, "agglo", true), "a withdrawal also ends what the configuration says");

        let again = Consents::open(keep, clock());
        assert_eq!(again.standing(&power, "agglo"), Standing::Withdrawn(1));
        again.give(given()).expect("recorded");
        assert_eq!((again.standing(&power, "agglo"), again.all().expect("read").len()), (Standing::Given(2), 3));
    }

    #[test]
    fn what_is_not_complete_is_not_recorded() {
        let consents = Consents::open(Arc::new(MemoryKeep::default()), clock());
        let nobody = entry(What::Withdrawn { person: " ".into() });
        let no_paper = entry(What::Given {
            person: "Mme Roche".into(),
            purpose: String::new(),
            paper: String::new(),
            dated: "2026-05-03".into(),
        });
        for wrong in [no_paper, Entry { peers: vec![], ..given() }, Entry { points: vec![], ..given() }, withdrawn()] {
            assert!(matches!(consents.give(wrong), Err(NotRecorded::Incomplete)));
        }
        for wrong in [nobody, given(), Entry { peers: vec!["x".into(); MOST_PEERS + 1], ..withdrawn() }] {
            assert!(matches!(consents.withdraw(wrong), Err(NotRecorded::Incomplete)));
        }
        assert_eq!(consents.all().expect("read"), []);
    }

    #[test]
    fn the_longest_entry_fits_a_record_of_the_store() {
        let long = id(&"x".repeat(96));
        // The worst to encode: characters that JSON escapes, names of four bytes a letter.
        let (name, text) = (format!("x{}", "\u{1}".repeat(NAME - 1)), format!("x{}", "\u{1}".repeat(TEXT - 1)));
        let (person, dated, purpose, paper) = (name.clone(), name, text.clone(), text);
        let entry = Entry {
            what: What::Given { person, purpose, paper, dated },
            points: vec![long; MOST_POINTS],
            peers: vec!["🔔".repeat(64); MOST_PEERS],
            ..given()
        };
        assert!(entry.is_sound());
        assert!(serde_json::to_vec(&entry).expect("JSON").len() <= 64 * 1024);
    }

    #[test]
    fn while_the_card_cannot_be_read_nothing_is_agreed_to() {
        let card = Arc::new(Card::default());
        Consents::open(card.clone(), clock()).give(given()).expect("recorded");
        card.deaf.store(true, Ordering::Relaxed);
        let consents = Consents::open(card.clone(), clock());
        let power = id("flat/power");
        assert!(!consents.allow(&power, "agglo", true) && !consents.allow(&power, "dept", true));
        assert!(consents.all().is_err() && consents.give(given()).is_err());
        card.deaf.store(false, Ordering::Relaxed);
        assert!(consents.allow(&power, "agglo", false));
    }

    #[test]
    fn a_withdrawal_the_card_refuses_counts_at_once_and_is_written_later() {
        let card = Arc::new(Card::default());
        let consents = Consents::open(card.clone(), clock());
        consents.give(given()).expect("recorded");
        card.deaf.store(true, Ordering::Relaxed);
        let power = id("flat/power");
        assert!(matches!(consents.withdraw(withdrawn()), Err(NotRecorded::Card(_))));
        assert!(!consents.allow(&power, "agglo", true) && !consents.is_written());
        assert!(matches!(consents.give(given()), Err(NotRecorded::Card(_))));
        assert!(!consents.allow(&power, "agglo", true), "an agreement counts once it is on the card");
        card.deaf.store(false, Ordering::Relaxed);
        assert_eq!((consents.all().expect("read").len(), consents.is_written()), (2, true));
        assert_eq!(Consents::open(card, clock()).standing(&power, "agglo"), Standing::Withdrawn(1));
    }

    #[test]
    fn an_entry_that_cannot_be_understood_may_have_been_a_withdrawal() {
        let keep = Arc::new(MemoryKeep::default());
        Consents::open(keep.clone(), clock()).give(given()).expect("recorded");
        keep.put(TABLE, &1_u64.to_be_bytes(), br#"{"what""#).expect("put");
        let consents = Consents::open(keep.clone(), clock());
        let power = id("flat/power");
        assert!(!consents.allow(&power, "agglo", true) && !consents.allow(&power, "dept", true));
        consents.give(given()).expect("recorded");
        assert_eq!(consents.standing(&power, "agglo"), Standing::Given(2));
        assert_eq!(consents.standing(&power, "dept"), Standing::Doubted);
        assert_eq!(keep.list(TABLE).expect("listed").len(), 3, "nothing is written over");
    }

    #[test]
    fn a_doubt_is_kept_and_ends_where_an_agreement_is_recorded_anew() {
        let keep = Arc::new(MemoryKeep::default());
        let consents = Consents::open(keep.clone(), clock());
        let mut changes = consents.changes();
        consents.doubt();
        assert!(changes.has_changed().expect("open"));
        let consents = Consents::open(keep, clock());
        let power = id("flat/power");
        assert!(!consents.allow(&power, "agglo", true));
        consents.give(given()).expect("recorded");
        assert!(consents.allow(&power, "agglo", true) && !consents.allow(&id("office/power"), "agglo", true));
        changes.mark_unchanged();
    }
}
