//! The store as the other parts see it: the one on the card, or what stands in for it while the card cannot be used,
//! with the move from one to the other. Whoever holds it never notices but by what it answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Opened,
    inner::{Inner, SUBJECT},
    keeping::CardKeep,
    ring::{HANGS, RING, Ring},
    room::Audience,
    times,
};
use crate::{
    clock::{Change, Clock, Note, Sample, Stamp, Start},
    condition::{Board, Code},
    reading::{PointId, Stored},
    store::{Archive, Bucket, Entries, Gap, Keep, Page, PageRequest, SetAside, StoreError, StoreFigures},
    supervisor::chain,
};

/// Readers of the card at once; when a card hangs no more than so many threads hang with it.
const READERS: usize = 16;

/// What the parts hold.
#[derive(Debug)]
pub(super) struct Current {
    inner: RwLock<Arc<Inner>>,
    ring: Arc<Ring>,
    /// Shared with every store in turn, so that who waits for news need not know of the move.
    head: watch::Sender<u64>,
    /// Whether the records of the card are known.
    readable: watch::Sender<bool>,
    readers: AtomicUsize,
    /// Clock and board, once somebody listens.
    told: OnceLock<(Clock, Board)>,
    /// The number of this start while the card could not tell one; 0 when it could.
    provisional: AtomicU32,
    boot: AtomicU32,
    audience: OnceLock<Audience>,
}

impl Current {
    pub(super) fn new(inner: Arc<Inner>, ring: Arc<Ring>, boot: u32) -> Arc<Self> {
        let known = inner.keep.is_known();
        Arc::new(Self {
            head: inner.head.clone(),
            inner: RwLock::new(inner),
            ring,
            readable: watch::Sender::new(known),
            readers: AtomicUsize::new(0),
            told: OnceLock::new(),
            provisional: AtomicU32::new(0),
            boot: AtomicU32::new(boot),
            audience: OnceLock::new(),
        })
    }

    pub(super) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// From now on there is a clock to date by and a board to tell on.
    pub(super) fn start(&self, clock: &Clock, board: &Board) {
        let _ = self.told.set((clock.clone(), board.clone()));
        self.put_to_work(&self.inner(), clock, board);
    }

    /// Another store takes the place of the one before: it is told the time, what was held for it, and shown.
    pub(super) fn move_to(&self, inner: &Arc<Inner>, before: &Inner, opened: &Opened, committed: u64) {
        if let Some((clock, board)) = self.told.get() {
            let notes = opened.notes.iter().copied();
            let (provisional, own) = clock.move_to(opened.boot, notes, opened.newest, opened.newest_ms);
            self.provisional.store(provisional, Ordering::Relaxed);
            self.boot.store(opened.boot, Ordering::Relaxed);
            self.put_to_work(inner, clock, board);
            inner.keep.inherit(&before.keep);
            if let Err(error) = keep_notes(inner, &own) {
                warn!(why = chain(&error), "What was learnt of the time was not kept");
            }
            opened.tell_findings(board);
        }
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(inner);
        self.head.send_replace(committed);
        self.readable.send_replace(true);
    }

    fn put_to_work(&self, inner: &Arc<Inner>, clock: &Clock, board: &Board) {
        if let Some(audience) = self.audience.get() {
            inner.room.know(audience.clone());
        }
        let _ = inner.room.ring.set(Arc::clone(&self.ring));
        inner.start(clock, board);
    }

    /// Keeps what is new of the clock, or lets go of what is no longer needed.
    pub(super) fn change(&self, change: Change) -> Result<(), StoreError> {
        let inner = self.inner();
        match change {
            Change::Keep(note) => keep_notes(&inner, &[self.renumbered_note(note)]),
            Change::Forget(sample) => {
                let note = self.renumbered_note(Note::Sample(sample));
                inner.write().notes.retain(|known| *known != note);
                let Some(own) = &inner.own else { return Ok(()) };
                own.own_remove("samples", &times::key(b"", &note))
            }
        }
    }

    fn renumbered_note(&self, note: Note) -> Note {
        let provisional = self.provisional.load(Ordering::Relaxed);
        match note {
            Note::Sample(sample) => Note::Sample(Sample { stamp: self.renumbered(sample.stamp), ..sample }),
            Note::Start(start) if provisional != 0 && start.boot == provisional => {
                Note::Start(Start { boot: self.boot.load(Ordering::Relaxed), ..start })
            }
            other => other,
        }
    }

    /// A stamp of this start, under the number the card gave it.
    pub(super) fn renumbered(&self, stamp: Stamp) -> Stamp {
        let provisional = self.provisional.load(Ordering::Relaxed);
        if provisional == 0 || stamp.boot != provisional {
            return stamp;
        }
        Stamp { boot: self.boot.load(Ordering::Relaxed), ..stamp }
    }

    /// Raises what is wrong with the card, or closes it.
    pub(super) fn show(&self) {
        let Some((_, board)) = self.told.get() else { return };
        let inner = self.inner();
        let records = || inner.keep.wrong().map(|why| format!("records: {why}"));
        let wrong = self.ring.wrong().or_else(records);
        let detail = |why| format!("{why}; at most {RING} readings are held in memory");
        board.set(Code::StoreRefusesWrites, SUBJECT, wrong.map(detail));
    }

    /// Looked at every second: a writer that is held up by the card cannot tell it.
    pub(super) fn look(&self) {
        self.ring.refuse_while_it_hangs();
        self.show();
    }

    /// Who may pull what, from this store and those that take its place.
    pub(super) fn know_audience(&self, audience: Audience) {
        self.inner().room.know(audience.clone());
        let _ = self.audience.set(audience);
    }

    /// For how long the card has not answered, when it has been too long.
    pub(super) fn silent_for(&self) -> Option<std::time::Duration> {
        let records = self.inner().keep.writing_for();
        self.ring.busy_for().into_iter().chain(records).max().filter(|busy| *busy >= HANGS)
    }

    /// Whether anything is known of what the card holds, and is there room for one more reader of it.
    fn reading<T>(&self, work: impl FnOnce(&Inner) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let inner = self.inner();
        let refused = |why: &str| StoreError { doing: format!("read the store: {why}"), source: None };
        if !inner.keep.is_known() {
            return Err(refused("the card could not be read yet"));
        }
        let _place = Place::among(&self.readers).ok_or_else(|| refused("the card does not answer others either"))?;
        work(&inner)
    }
}

/// Writes down what is known of the clock.
fn keep_notes(inner: &Inner, notes: &[Note]) -> Result<(), StoreError> {
    let mut state = inner.write();
    state.notes.retain(|known| !notes.contains(known));
    state.notes.extend_from_slice(notes);
    drop(state);
    let Some(own) = &inner.own else { return Ok(()) };
    own.own_put_all(
        "samples",
        &notes.iter().map(|note| (times::key(b"", note), times::encode(note))).collect::<Vec<_>>(),
    )
}

/// A reader's place.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn among(readers: &'a AtomicUsize) -> Option<Self> {
        let place = Self(readers);
        (readers.fetch_add(1, Ordering::AcqRel) < READERS).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Opened {
    /// Raises what was found while opening.
    pub fn tell_findings(&self, board: &Board) {
        for finding in &self.findings {
            match finding.code {
                Some(code) => {
                    board.raise(code, SUBJECT, finding.detail.clone());
                }
                None => info!(detail = finding.detail, "Store opened"),
            }
        }
    }
}

impl Archive for Current {
    fn identity(&self) -> String {
        self.inner().identity()
    }

    fn is_known(&self) -> bool {
        self.inner().keep.is_known()
    }

    fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
        self.reading(|inner| inner.page(request))
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn latest(&self) -> Vec<Stored> {
        self.inner().latest()
    }

    fn history(&self, point: &PointId, from_ms: i64, to_ms: i64, step_ms: i64) -> Result<Vec<Bucket>, StoreError> {
        self.reading(|inner| inner.history(point, from_ms, to_ms, step_ms))
    }

    fn acknowledge(&self, peer: &str, seq: u64) -> Result<(), StoreError> {
        self.inner().acknowledge(peer, seq)
    }

    fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.inner().acknowledged()
    }

    fn gaps(&self) -> Vec<Gap> {
        self.inner().gaps()
    }

    fn figures(&self) -> StoreFigures {
        StoreFigures { waiting: self.ring.count() as u64, ..self.inner().figures() }
    }

    fn set_aside(&self) -> Vec<SetAside> {
        self.reading(|inner| Ok(inner.set_aside())).unwrap_or_default()
    }

    fn erase(&self, point: &PointId, before_ms: Option<i64>) -> Result<u64, StoreError> {
        self.reading(|inner| inner.erase(point, before_ms))
    }
}

impl Current {
    fn keep(&self) -> Arc<CardKeep> {
        Arc::clone(&self.inner().keep)
    }
}

impl Keep for Current {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.keep().get(table, key)
    }

    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.keep().put(table, key, value)
    }

    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.keep().remove(table, key)
    }

    fn list(&self, table: &str) -> Result<Entries, StoreError> {
        self.keep().list(table)
    }

    fn hold(&self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        self.keep().hold(table, key, value)
    }

    fn known(&self) -> watch::Receiver<bool> {
        self.readable.subscribe()
    }
}
