//! What the writer, the readers and the starter of the store share, and how it is read.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::sys::{
    stat::{major, minor},
    statvfs::{FsFlags, statvfs},
};
use tokio::sync::watch;
use tracing::warn;

use super::{
    block::Block,
    gaps::{Gaps, clip, undated},
    keeping::CardKeep,
    latency::Latency,
    marker::{Mark, Marker},
    rollup::{Quarter, Steps},
    room::Room,
    salvage::{self, Aside},
    segment::{Segment, SegmentFault},
    shelf::{Fallen, Listed, Shelf},
    thin,
};
use crate::{
    clock::{Clock, Note, Stamp},
    condition::{Board, Code},
    reading::{PointId, Reading, Stored},
    store::{Archive, Bucket, Cause, Entry, Gap, Page, PageRequest, SetAside, StoreError, StoreFigures},
    supervisor::chain,
};

/// What conditions of the store are about.
pub(super) const SUBJECT: &str = "store";
/// Points whose newest reading is remembered.
const MOST_POINTS: usize = 4096;
/// Peers whose progress is remembered.
const MOST_PEERS: usize = 256;
/// Pieces looked at for one page, so that a filter that lets nothing pass still answers soon.
const MOST_PIECES: usize = 256;
/// Readings taken out of the head at once.
const PIECE: usize = 4096;
/// Steps one history may have.
const MOST_STEPS: i64 = 50_000;
/// Steps of the clock within a block's quarter of an hour, and within a segment's days.
const BLOCK_SLACK_MS: i64 = 600_000;
const SEGMENT_SLACK_MS: i64 = 2 * 86_400_000;
const CACHED_BLOCKS: usize = 2;

/// Committed readings that are not yet in a segment.
#[derive(Debug)]
pub(super) struct Slot {
    /// Where they lie in the head file.
    pub place: usize,
    pub first: u64,
    pub readings: Vec<Reading>,
}

impl Slot {
    /// The number after its last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.readings.len() as u64
    }
}

/// What changes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub slots: VecDeque<Slot>,
    pub gaps: Gaps,
    pub newest: HashMap<PointId, Stored>,
    pub acknowledged: BTreeMap<String, u64>,
    /// What is known of the clock and no segment has a copy of yet.
    pub notes: Vec<Note>,
    pub lost: u64,
}

impl State {
    /// Takes the newest readings in.
    pub(super) fn notice(&mut self, stored: &Stored) {
        let room = self.newest.len() < MOST_POINTS;
        match self.newest.get_mut(&stored.reading.point) {
            Some(known) if known.seq < stored.seq => *known = stored.clone(),
            Some(_) => {}
            None if room => {
                self.newest.insert(stored.reading.point.clone(), stored.clone());
            }
            None => {}
        }
    }
}

/// Readings that lie together.
enum Piece {
    Gap(Gap),
    Block(Arc<Block>),
    /// Nothing is known up to this number.
    Nothing(u64),
}

/// A few decoded blocks, by segment-independent first number.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    blocks: VecDeque<(u64, Arc<Block>)>,
    /// Grows when a segment is written anew: what was read before that is not to be kept.
    generation: u64,
}

impl BlockCache {
    fn get(&self, first: u64) -> Option<Arc<Block>> {
        self.blocks.iter().find(|(cached, _)| *cached == first).map(|(_, block)| Arc::clone(block))
    }

    fn put(&mut self, block: &Arc<Block>, generation: u64) {
        if self.generation != generation {
            return;
        }
        self.blocks.push_back((block.first, Arc::clone(block)));
        while self.blocks.len() > CACHED_BLOCKS {
            self.blocks.pop_front();
        }
    }

    /// Forgets what it holds, and what is being read.
    pub(super) fn turn(&mut self) {
        self.generation += 1;
        self.blocks.clear();
    }
}

/// The store.
#[derive(Debug)]
pub(super) struct Inner {
    pub directory: PathBuf,
    pub size_limit: u64,
    pub identity: [u8; 16],
    pub keep: Arc<CardKeep>,
    /// The same, once the card could be read.
    pub own: Option<Arc<CardKeep>>,
    pub aside: Aside,
    pub state: RwLock<State>,
    pub shelf: Mutex<Shelf>,
    pub marker: Mutex<Option<Marker>>,
    /// Held while the list of gaps is written.
    pub noting: Mutex<()>,
    pub cache: Mutex<BlockCache>,
    /// Who may pull what, and who makes room.
    pub room: Room,
    pub head: watch::Sender<u64>,
    pub clock: RwLock<Clock>,
    pub board: OnceLock<Board>,
    pub waiting: AtomicU64,
    pub bytes: AtomicU64,
    pub device: Device,
    /// How long commits take.
    pub latency: Mutex<Latency>,
    /// Of the oldest segment, as last known, for when the shelf is held by somebody who waits for the card.
    pub oldest: AtomicU64,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn story(doing: &str, fault: SegmentFault) -> StoreError {
    StoreError::new(doing, fault)
}

impl Inner {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on there is a clock to date by and a board to tell on.
    pub(super) fn start(&self, clock: &Clock, board: &Board) {
        *self.clock.write().unwrap_or_else(PoisonError::into_inner) = clock.clone();
        let _ = self.board.set(board.clone());
    }

    pub(super) fn committed(&self) -> u64 {
        *self.head.borrow()
    }

    /// Notes a hole for good, then tells it: a number told as lost must not be given out again after a fall.
    /// `counted` of its numbers were counted as lost before.
    pub(super) fn lose(&self, gap: Gap, counted: u64) -> Result<(), StoreError> {
        let _one_at_a_time = locked(&self.noting);
        let mut gaps = self.read().gaps.clone();
        gaps.add(gap.clone());
        self.keep_gaps(&gaps.all().cloned().collect::<Vec<_>>())?;
        self.tell_loss(gap, counted);
        Ok(())
    }

    /// Notes and tells a hole found while reading; told even if it cannot be noted, for after a fall it is found again.
    fn lose_anyway(&self, gap: Gap) {
        if let Err(error) = self.lose(gap.clone(), 0) {
            warn!(why = chain(&error), "Gap not written down");
            self.tell_loss(gap, 0);
        }
    }

    /// What was pulled by somebody before it had to go is not lost, nor what a person wished away.
    fn tell_loss(&self, gap: Gap, counted: u64) {
        let cause = gap.cause;
        let lost = {
            let mut state = self.write();
            let pulled = self.room.pulled_by_any(&state.acknowledged);
            let unread = gap.last.saturating_sub(pulled.max(gap.first - 1));
            let unread = if self.room.is_awaited() { unread } else { 0 };
            let added = state.gaps.add(gap);
            match cause {
                Cause::SizeLimit => added.min(unread).saturating_sub(counted),
                Cause::Erased => 0,
                Cause::Damage | Cause::CardRefused => added,
            }
        };
        self.count_loss(lost, cause);
    }

    /// Counts readings that are lost, and tells it.
    pub(super) fn count_loss(&self, lost: u64, cause: Cause) {
        if lost == 0 {
            return;
        }
        let told = {
            let mut state = self.write();
            state.lost += lost;
            state.lost
        };
        warn!(lost, ?cause, "Readings lost");
        if let Some(board) = self.board.get() {
            let detail = format!("{told} readings lost so far, the last by {cause:?}");
            board.raise(Code::ReadingsLost, SUBJECT, detail);
        }
        if let Err(error) = self.mark(|mark| mark.lost = mark.lost.max(told)) {
            warn!(why = chain(&error), "Count of lost readings not written down");
        }
    }

    fn keep_gaps(&self, gaps: &[Gap]) -> Result<(), StoreError> {
        let Some(own) = &self.own else { return Ok(()) };
        let bytes = postcard::to_allocvec(gaps).map_err(|e| StoreError::new("encode the gaps", e))?;
        own.own_put("gaps", b"all", &bytes)
    }

    /// Changes the marker.
    pub(super) fn mark(&self, change: impl FnOnce(&mut Mark)) -> Result<(), StoreError> {
        let mut held = locked(&self.marker);
        let Some(marker) = held.as_mut() else { return Ok(()) };
        let mut mark = marker.mark();
        change(&mut mark);
        marker.write(mark).map_err(|e| StoreError::new("write the marker", e))
    }

    /// Whether the marker says that the head holds records.
    pub(super) fn is_used(&self) -> bool {
        locked(&self.marker).as_ref().is_none_or(|marker| marker.mark().used)
    }

    /// The segment that begins with `first`. A damaged one is salvaged first; `None` when nothing of it is left.
    pub(super) fn segment(&self, first: u64) -> Result<Option<Arc<Segment>>, StoreError> {
        let mut shelf = locked(&self.shelf);
        if !shelf.listed().contains_key(&first) {
            return Ok(None);
        }
        let got = shelf.get(first);
        let fallen = shelf.fallen();
        let got = match got {
            Ok(segment) => {
                drop(shelf);
                Ok(Some(segment))
            }
            Err(fault) => self.mend(shelf, first, fault),
        };
        if let Some(Fallen { first, .. }) = fallen.first() {
            self.tell_damage(format!("{} blocks from {first} on had fallen out of sled; put back", fallen.len()));
        }
        got
    }

    /// Makes of a segment what can still be made of it.
    fn mend(
        &self,
        mut shelf: MutexGuard<'_, Shelf>,
        first: u64,
        fault: SegmentFault,
    ) -> Result<Option<Arc<Segment>>, StoreError> {
        if fault.may_pass() {
            return Err(story("open a segment", fault));
        }
        let folder = Shelf::folder(shelf.root(), first);
        let why = chain(&fault);
        if !folder.exists() || matches!(fault, SegmentFault::Foreign(_)) {
            let place =
                if folder.exists() { self.aside.take(&folder)?.display().to_string() } else { "nowhere".to_owned() };
            shelf.remove(first);
            drop(shelf);
            self.tell_damage(format!("{why}; set aside: {place}"));
            return Ok(None);
        }
        if free_bytes(&self.directory) < FREE {
            return Err(story("salvage a segment without room for it", fault));
        }
        let before = shelf.before(first);
        let salvaged = salvage::segment(&folder, first, &self.identity, &self.aside, &before)?;
        let segment = shelf.put(salvaged.segment);
        drop(shelf);
        let (blocks, place) = (salvaged.blocks, salvaged.aside.display().to_string());
        self.tell_damage(format!("{why}; {blocks} blocks saved, the rest set aside in {place}"));
        Ok(Some(segment))
    }

    /// Raises the alarm, once somebody listens.
    pub(super) fn tell_damage(&self, detail: String) {
        warn!(detail, "Store damaged");
        if let Some(board) = self.board.get() {
            board.raise(Code::StoreDamaged, SUBJECT, detail);
        }
    }

    /// What lies at `seq`, which is committed.
    fn piece(&self, seq: u64) -> Result<Piece, StoreError> {
        let next_known = {
            let state = self.read();
            if let Some(gap) = state.gaps.at(seq) {
                return Ok(Piece::Gap(gap.clone()));
            }
            // The head before the segments: a block is listed there before it leaves here.
            if let Some(slot) = state.slots.iter().find(|slot| slot.first <= seq && seq < slot.end()) {
                let skip = usize::try_from(seq - slot.first).unwrap_or(usize::MAX);
                let numbered = (seq..).zip(slot.readings.iter().skip(skip).take(PIECE));
                let readings =
                    numbered.map(|(seq, reading)| Stored { seq, reading: reading.clone() }).collect::<Vec<_>>();
                let last = readings.last().map_or(seq, |stored| stored.seq);
                let block = Block { store: 0, first: seq, last, readings, gone: Vec::new(), length: 0 };
                return Ok(Piece::Block(Arc::new(block)));
            }
            let slot = state.slots.iter().map(|slot| slot.first).find(|first| *first > seq);
            let gap = state.gaps.above(seq).map(|gap| gap.first);
            slot.into_iter().chain(gap).min().unwrap_or(u64::MAX)
        };
        self.piece_of_segment(seq, next_known.min(self.committed() + 1))
    }

    fn piece_of_segment(&self, seq: u64, next_known: u64) -> Result<Piece, StoreError> {
        let (place, after) = {
            let shelf = locked(&self.shelf);
            let place = shelf.place_of(seq);
            (place, shelf.after(place.unwrap_or(seq)))
        };
        let end = next_known.min(after.unwrap_or(u64::MAX));
        let Some(segment) = place.map(|first| self.segment(first)).transpose()?.flatten() else {
            return Ok(Piece::Nothing(end - 1));
        };
        match segment.blocks_from(seq) {
            Some((first, last)) if first <= seq => match self.block(&segment, first)? {
                Some(block) => Ok(Piece::Block(block)),
                None => Ok(Piece::Nothing(last)),
            },
            next => Ok(Piece::Nothing(next.map_or(end, |(first, _)| first.min(end)) - 1)),
        }
    }

    /// A decoded block; `None` when it is damaged, which is noted.
    fn block(&self, segment: &Segment, first: u64) -> Result<Option<Arc<Block>>, StoreError> {
        let generation = {
            let cache = locked(&self.cache);
            if let Some(block) = cache.get(first) {
                return Ok(Some(block));
            }
            cache.generation
        };
        let Some(block) = self.read_block(segment, first)?.map(Arc::new) else { return Ok(None) };
        locked(&self.cache).put(&block, generation);
        Ok(Some(block))
    }

    fn read_block(&self, segment: &Segment, first: u64) -> Result<Option<Block>, StoreError> {
        let fault = match segment.block(first) {
            Ok(readings) => return Ok(Some(readings)),
            Err(fault) => fault,
        };
        if let SegmentFault::Damaged { .. } = fault {
            self.tell_damage(chain(&fault));
            segment.forget(first);
            return Ok(None);
        }
        // sled itself does not read. The broken handle may be held by others: they keep it to themselves.
        let mut shelf = locked(&self.shelf);
        let other = shelf.get(segment.first).ok().filter(|other| !std::ptr::eq(other.as_ref(), segment));
        let anew = match other {
            Some(other) => Some(other),
            None => {
                shelf.forget(segment.first);
                self.mend(shelf, segment.first, fault)?
            }
        };
        match anew.map(|segment| (segment.block(first), segment)) {
            Some((Ok(readings), _)) => Ok(Some(readings)),
            Some((Err(fault @ SegmentFault::Database(..)), _)) => Err(story("read the readings", fault)),
            Some((Err(_), segment)) => {
                segment.forget(first);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Readings of a point in some blocks of a segment, below `end`.
    fn raw(
        &self,
        segment: &Segment,
        blocks: impl Iterator<Item = u64>,
        wanted: impl Fn(&Stored) -> bool,
        steps: &mut Steps<'_>,
    ) -> Result<(), StoreError> {
        for first in blocks {
            let readings = self.read_block(segment, first)?.map(|block| block.readings).unwrap_or_default();
            readings.iter().filter(|stored| wanted(stored)).for_each(|stored| steps.add(stored));
        }
        Ok(())
    }

    /// One segment's part of a history. Numbers from `end` on are the head's.
    fn history_of(
        &self,
        segment: &Segment,
        point: &PointId,
        (from_ms, to_ms): (i64, i64),
        end: u64,
        steps: &mut Steps<'_>,
    ) -> Result<(), StoreError> {
        let clock = self.clock();
        let covers = segment.covers();
        let sheaves = segment.sheaves();
        let quarters = segment.quarters(point).map_err(|f| story("read the roll-ups", f))?;
        let of_point = |stored: &Stored| stored.reading.point == *point && stored.seq < end;
        for (first, last) in &sheaves {
            let again = match quarters.get(first) {
                None => continue,
                Some(Some(quarters)) if *last < end => {
                    quarters.iter().copied().filter(|quarter| !steps.add_quarter(quarter)).collect::<Vec<_>>()
                }
                Some(_) => vec![EVERYTHING],
            };
            let blocks = covers.iter().filter(|(block, cover)| {
                let may_hold = |quarter: &Quarter| cover.spans.may_hold(quarter.from, quarter.to);
                (*first..=*last).contains(block) && again.iter().any(may_hold)
            });
            let wanted = |stored: &Stored| {
                of_point(stored) && {
                    let place = again.partition_point(|quarter| quarter.to < stored.reading.stamp);
                    again.get(place).is_some_and(|quarter| quarter.holds(stored.reading.stamp))
                }
            };
            self.raw(segment, blocks.map(|(block, _)| *block), wanted, steps)?;
        }
        let loose = covers.iter().filter(|(block, cover)| {
            let bound = sheaves.iter().any(|(first, last)| (*first..=*last).contains(block));
            !bound && *block < end && cover.spans.may_touch(&clock, from_ms, to_ms, BLOCK_SLACK_MS)
        });
        self.raw(segment, loose.map(|(block, _)| *block), of_point, steps)
    }
}

/// Holds every reading.
const EVERYTHING: Quarter = Quarter {
    from: Stamp { boot: 0, mono_ms: 0 },
    to: Stamp { boot: u32::MAX, mono_ms: u64::MAX },
    min: 0.0,
    max: 0.0,
    sum: 0.0,
    first: 0.0,
    last: 0.0,
    count: 0,
};

impl Archive for Inner {
    fn identity(&self) -> String {
        self.identity.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
        let committed = self.committed();
        let upto = request.upto.min(committed);
        let mut page = Page { entries: Vec::new(), next: request.after, complete: false };
        let mut pieces = 0;
        while page.next < upto && page.entries.len() < request.limit && pieces < MOST_PIECES {
            pieces += 1;
            let seq = page.next + 1;
            match self.piece(seq)? {
                Piece::Gap(gap) => {
                    page.next = gap.last.min(upto);
                    page.entries.push(Entry::Gap(clip(&gap, seq, upto)));
                }
                Piece::Block(block) => tell_block(&block, request, upto, &mut page),
                Piece::Nothing(last) => {
                    self.tell_damage(format!("readings {seq} to {} are gone", last.max(seq)));
                    self.lose_anyway(undated(seq, last.max(seq), Cause::Damage));
                }
            }
        }
        page.complete = page.next >= committed;
        Ok(page)
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn latest(&self) -> Vec<Stored> {
        let mut newest = self.read().newest.values().cloned().collect::<Vec<_>>();
        newest.sort_by(|a, b| a.reading.point.cmp(&b.reading.point));
        newest
    }

    fn history(&self, point: &PointId, from_ms: i64, to_ms: i64, step_ms: i64) -> Result<Vec<Bucket>, StoreError> {
        let count = to_ms.checked_sub(from_ms).filter(|_| step_ms > 0).map(|length| length / step_ms);
        if count.is_none_or(|count| count > MOST_STEPS) {
            let doing = format!("sum {point} up from {from_ms} to {to_ms} by {step_ms} ms: {MOST_STEPS} steps at most");
            return Err(StoreError { doing, source: None });
        }
        let clock = self.clock();
        let mut steps = Steps::new(&clock, from_ms, to_ms, step_ms);
        let (end, in_head) = {
            let state = self.read();
            let end = state.slots.front().map_or(u64::MAX, |slot| slot.first);
            let numbered = state.slots.iter().flat_map(|slot| (slot.first..).zip(&slot.readings));
            let of_point = numbered.filter(|(_, reading)| reading.point == *point);
            (end, of_point.map(|(seq, reading)| Stored { seq, reading: reading.clone() }).collect::<Vec<_>>())
        };
        let firsts = {
            let shelf = locked(&self.shelf);
            let newest = shelf.newest();
            let may_touch = |(first, listed): &(&u64, &Listed)| {
                Some(**first) == newest || listed.spans.may_touch(&clock, from_ms, to_ms, SEGMENT_SLACK_MS)
            };
            shelf.listed().iter().filter(may_touch).map(|(first, _)| *first).collect::<Vec<_>>()
        };
        for first in firsts.into_iter().filter(|first| *first < end) {
            if let Some(segment) = self.segment(first)? {
                self.history_of(&segment, point, (from_ms, to_ms), end, &mut steps)?;
            }
        }
        in_head.iter().for_each(|stored| steps.add(stored));
        Ok(steps.finish())
    }

    fn acknowledge(&self, peer: &str, seq: u64) -> Result<(), StoreError> {
        let seq = seq.min(self.committed());
        let mut state = self.write();
        let room = state.acknowledged.len() < MOST_PEERS;
        match state.acknowledged.get_mut(peer) {
            Some(known) => *known = (*known).max(seq),
            None if room => {
                state.acknowledged.insert(peer.to_owned(), seq);
            }
            None => {}
        }
        Ok(())
    }

    fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.read().acknowledged.clone()
    }

    fn gaps(&self) -> Vec<Gap> {
        let thinned = locked(&self.shelf).summaries().values().cloned().collect::<Vec<_>>();
        let mut gaps = self.read().gaps.all().cloned().collect::<Vec<_>>();
        gaps.extend(thinned.iter().flat_map(|summary| summary.gaps.iter().cloned()));
        gaps.sort_by_key(|gap| (gap.first, gap.last));
        gaps
    }

    fn erase(&self, point: &PointId, before_ms: Option<i64>) -> Result<u64, StoreError> {
        self.erase_point(point, before_ms)
    }

    fn set_aside(&self) -> Vec<SetAside> {
        self.aside.list()
    }

    fn figures(&self) -> StoreFigures {
        // Whoever holds the shelf may be waiting for the card, and who asks for figures must not.
        if let Ok(shelf) = self.shelf.try_lock() {
            self.oldest.store(shelf.oldest().unwrap_or(0), Ordering::Relaxed);
        }
        let oldest = Some(self.oldest.load(Ordering::Relaxed)).filter(|oldest| *oldest > 0);
        let state = self.read();
        let first_slot = state.slots.iter().find(|slot| !slot.readings.is_empty()).map(|slot| slot.first);
        let last_seq = self.committed();
        let first = oldest.into_iter().chain(first_slot).min().unwrap_or(last_seq + 1);
        let first_seq = state.gaps.at(first).map_or(first, |gap| gap.last + 1);
        StoreFigures {
            last_seq,
            first_seq,
            waiting: self.waiting.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_limit: self.size_limit,
            lost: state.lost,
            written: self.device.written(),
            syncs: locked(&self.latency).syncs(),
        }
    }
}

/// A block's part of a page: readings, and what was taken out among them as one gap a cause, behind the last reading
/// before its end.
fn tell_block(block: &Block, request: &PageRequest<'_>, upto: u64, page: &mut Page) {
    let asked = |point: &PointId| request.points.is_none_or(|points| points.contains(point));
    let mut gone = block.gone.iter().skip(block.gone.partition_point(|gone| gone.seq <= page.next)).peekable();
    let mut gaps = Vec::new();
    let mut full = false;
    let mut leave_out = |upto: u64, page: &mut Page| {
        while let Some(gone) = gone.next_if(|gone| gone.seq <= upto) {
            if asked(&gone.point) {
                let known = gaps.iter().any(|gap: &Gap| gap.cause == gone.cause);
                if !known && page.entries.len() + gaps.len() >= request.limit {
                    return (false, gaps.len());
                }
                thin::tell(&mut gaps, gone);
            }
            page.next = gone.seq;
        }
        (true, gaps.len())
    };
    let from = block.readings.partition_point(|stored| stored.seq <= page.next);
    for stored in block.readings.iter().skip(from).take_while(|stored| stored.seq <= upto) {
        let (whole, pending) = leave_out(stored.seq, page);
        let wanted = asked(&stored.reading.point);
        full = !whole || (wanted && page.entries.len() + pending >= request.limit);
        if full {
            break;
        }
        page.next = stored.seq;
        if wanted {
            page.entries.push(Entry::Reading(stored.clone()));
        }
    }
    if !full && leave_out(block.last.min(upto), page).0 {
        page.next = block.last.min(upto);
    }
    for gap in gaps {
        let place = page.entries.partition_point(|entry| entry.last_seq() < gap.last);
        page.entries.insert(place, Entry::Gap(gap));
    }
}

/// Free bytes sled must find: it does not take a full card well.
pub(super) const FREE: u64 = 8 << 20;

/// Bytes free for us where a folder lies.
pub(super) fn free_bytes(folder: &Path) -> u64 {
    // Both are narrower on some targets.
    #[allow(clippy::useless_conversion)]
    statvfs(folder).map_or(u64::MAX, |stat| u64::from(stat.blocks_available()) * u64::from(stat.fragment_size()))
}

/// Whether the folder lies on a file system that was mounted, or turned, read-only.
pub(super) fn takes_no_writes(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY))
}

/// The device the store lies on, as the kernel counts what is written to it by anyone: what wears a card.
#[derive(Debug, Default)]
pub(super) struct Device {
    statistics: Option<PathBuf>,
    before: u64,
}

impl Device {
    /// Counts from now. The card is asked once, here: one that hangs later holds up nobody who asks for figures.
    pub(super) fn of(folder: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let device = fs::metadata(folder).ok().map(|data| data.dev());
        let path = |device| PathBuf::from(format!("/sys/dev/block/{}:{}/stat", major(device), minor(device)));
        let mut found = Self { statistics: device.map(path), before: 0 };
        found.before = found.total();
        found
    }

    /// Bytes since; 0 where there is no such device.
    fn written(&self) -> u64 {
        self.total().saturating_sub(self.before)
    }

    fn total(&self) -> u64 {
        let text = self.statistics.as_ref().map(fs::read_to_string).and_then(Result::ok).unwrap_or_default();
        // source: Documentation/block/stat.rst, field 7, in sectors of 512 bytes.
        text.split_whitespace().nth(6).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 512
    }
}
