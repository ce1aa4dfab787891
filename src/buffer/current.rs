//! The store as the other parts see it: the one on the card, or what stands in for it while the card cannot be used,
//! with the move from one to the other. Whoever holds it never notices but by what it answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Opened,
    inner::{Inner, SUBJECT},
    keeping::CardKeep,
    ring::{HANGS, RING, Ring},
    segment::sample_key,
};
use crate::{
    clock::{Clock, Sample, Stamp},
    condition::{Board, Code},
    reading::{PointId, Stored},
    store::{Archive, Bucket, Entries, Gap, Keep, Page, PageRequest, StoreError, StoreFigures},
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
    unawaited: AtomicBool,
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
            unawaited: AtomicBool::new(false),
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
        self.inner().start(clock, board);
    }

    /// Another store takes the place of the one before: it is told the time, what was held for it, and shown.
    pub(super) fn move_to(&self, inner: &Arc<Inner>, before: &Inner, opened: &Opened, committed: u64) {
        if let Some((clock, board)) = self.told.get() {
            let provisional = clock.move_to(opened.boot, opened.samples.iter().copied(), opened.newest_ms);
            self.provisional.store(provisional, Ordering::Relaxed);
            self.boot.store(opened.boot, Ordering::Relaxed);
            inner.start(clock, board);
            inner.keep.inherit(&before.keep);
            self.keep_samples(inner, &clock.samples_of(opened.boot));
            opened.tell_findings(board);
        }
        inner.unawaited.store(self.unawaited.load(Ordering::Relaxed), Ordering::Relaxed);
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(inner);
        self.head.send_replace(committed);
        self.readable.send_replace(true);
    }

    /// Keeps a sample of the clock; under both numbers of this start, when it has two: records written before the move
    /// bear the provisional one.
    pub(super) fn remember(&self, sample: Sample) -> Result<(), StoreError> {
        let inner = self.inner();
        let sample = Sample { stamp: self.renumbered(sample.stamp), ..sample };
        inner.write().samples.push(sample);
        let Some(own) = &inner.own else { return Ok(()) };
        own.own_put_all("samples", &self.records_of(sample)?)
    }

    fn keep_samples(&self, inner: &Inner, samples: &[Sample]) {
        inner.write().samples.extend_from_slice(samples);
        let records: Result<Vec<_>, _> = samples.iter().map(|sample| self.records_of(*sample)).collect();
        let kept = records.and_then(|records| match &inner.own {
            Some(own) => own.own_put_all("samples", &records.concat()),
            None => Ok(()),
        });
        if let Err(error) = kept {
            warn!(why = chain(&error), "What was learnt of the time was not kept");
        }
    }

    fn records_of(&self, sample: Sample) -> Result<Entries, StoreError> {
        let provisional = self.provisional.load(Ordering::Relaxed);
        let twin = Sample { stamp: Stamp { boot: provisional, ..sample.stamp }, ..sample };
        let both = [Some(sample), (provisional != 0).then_some(twin)];
        let encoded = both.into_iter().flatten().map(|sample| {
            let bytes = postcard::to_allocvec(&sample);
            Ok((sample_key(b"", &sample), bytes.map_err(|e| StoreError::new("encode a sample of the clock", e))?))
        });
        encoded.collect()
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

    /// Nobody is to pull, from this store and those that take its place.
    pub(super) fn nobody_pulls(&self) {
        self.unawaited.store(true, Ordering::Relaxed);
        self.inner().unawaited.store(true, Ordering::Relaxed);
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
