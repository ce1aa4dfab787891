//! The one thread that writes: gathers batches, commits them to the head file, seals full slots into segments, keeps
//! the size, and holds what the card refuses.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    Opened, Thread,
    block::MOST_READINGS,
    current::Current,
    erase::Order,
    gaps::undated,
    head::{Head, Record, SLOT},
    inner::{FREE, Inner, Slot, free_bytes, locked, takes_no_writes},
    ring::{Lost, Ring, Waiting, refuse},
    segment::{Beside, Newest, SHEAF, Segment, SegmentFault},
    shelf::{Listed, Shelf},
};
#[cfg(test)]
use crate::reading::Batch;
use crate::{
    clock::{Note, Stamp},
    reading::{Reading, Stored},
    store::{Cause, Gap, StoreError},
    supervisor::chain,
};

/// Pause between two tries of a card that refuses.
pub(super) const RETRY: Duration = Duration::from_secs(3);
/// What a sealed block should take.
const BLOCK: f64 = 5500.0;
/// Readings in one record of the head at most, so that a slot is found full in time.
const RECORD: usize = 1024;
/// A slot with so many bytes of records is sealed even if its block may come out small.
const FULL: u64 = 32 << 10;
/// The table of newest readings is written with every so many blocks.
const NEWEST_EVERY: u32 = 16;

/// Why a commit did not succeed.
#[derive(Debug, thiserror::Error)]
enum WriteFault {
    #[error("the card refuses to be written")]
    Card(#[source] std::io::Error),
    #[error("every slot of the head waits to be sealed")]
    Slots,
    #[error("a note beside the readings was not written")]
    Note(#[source] StoreError),
    #[error("{0}")]
    Unusable(String),
}

/// Why a slot could not be sealed.
#[derive(Debug, thiserror::Error)]
enum SealFault {
    #[error("less than {FREE} bytes are free on the card")]
    Full,
    #[error("room is still being made within the size limit")]
    Room,
    #[error("the card is read-only")]
    ReadOnly,
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SealFault {
    fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Segment(SegmentFault::Database(_, fault)) if fault.leaves_doubt())
    }
}

/// The writer. Time is passed in, as the time since it started.
pub(super) struct Writer {
    current: Arc<Current>,
    inner: Arc<Inner>,
    ring: Arc<Ring>,
    /// `None` while there is no card to write to, for the reason that follows.
    head: Option<Head>,
    unusable: String,
    next: u64,
    /// The last slot of the head is being filled.
    filling: bool,
    bytes_each: f64,
    blocks_since_newest: u32,
    refused: Option<String>,
    retry_at: Duration,
    unsealed: Option<String>,
    /// Blocks wait in the head until room is made.
    crowded: bool,
    seal_at: Duration,
    tidier: Option<JoinHandle<Result<(), StoreError>>>,
    /// A segment in which a sync failed; nothing more is written to it.
    doubted: Option<u64>,
}

impl Writer {
    pub(super) fn new(current: Arc<Current>, head: Result<Head, String>, next: u64) -> Self {
        let (head, unusable) = match head {
            Ok(head) => (Some(head), String::new()),
            Err(why) => (None, why),
        };
        let refused = head.is_none().then(|| unusable.clone());
        Self {
            inner: current.inner(),
            ring: Arc::clone(current.ring()),
            current,
            head,
            unusable,
            next,
            filling: false,
            bytes_each: 1.5,
            blocks_since_newest: 0,
            refused,
            retry_at: Duration::ZERO,
            unsealed: None,
            crowded: false,
            seal_at: Duration::ZERO,
            tidier: None,
            doubted: None,
        }
    }

    /// Works until asked to end.
    pub(super) fn run(mut self, started: Instant) {
        let ring = Arc::clone(&self.ring);
        self.show();
        self.resume_erasing();
        loop {
            let call = ring.wait(|| started.elapsed(), |commit| self.due_after(commit));
            ring.at_the_card(true);
            if let Some(opened) = call.arrived {
                self.move_to(*opened);
                self.resume_erasing();
            }
            self.attempt_guarded(started.elapsed());
            for (order, answer) in call.apart {
                // Whoever asked has gone: the order is written down and is met again at the next start.
                let _ = answer.send(self.set_apart(&[&order], started.elapsed()));
            }
            ring.at_the_card(false);
            self.show();
            for asked in call.asked {
                let _ = asked.send(());
            }
            if call.ends {
                break;
            }
        }
        ring.at_the_card(true);
        self.leave();
        ring.at_the_card(false);
    }

    /// The card can be used: what is held in memory moves to it.
    fn move_to(&mut self, opened: Opened) {
        let Thread::Ready(mut anew) = std::mem::replace(&mut *locked(&opened.buffer.thread), Thread::Ended) else {
            return;
        };
        let (before, inner) = (Arc::clone(&self.inner), Arc::clone(&anew.inner));
        self.current.move_to(&inner, &before, &opened, anew.next - 1);
        self.inner = inner;
        self.head = anew.head.take();
        self.next = anew.next;
        self.filling = false;
        self.blocks_since_newest = 0;
        self.refused = None;
        self.unsealed = None;
        info!(
            waiting = self.ring.count(),
            next = self.next,
            "The card can be used; what was held in memory moves to it"
        );
    }

    /// A panic beneath costs the readings it held, which is told, but not the writer.
    fn attempt_guarded(&mut self, now: Duration) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.attempt(now))).is_ok() {
            return;
        }
        self.ring.take_answers();
        self.leave_slot(SLOT);
        let why = "the writer panicked".to_owned();
        error!(why, "Commit abandoned");
        self.refused = Some(why);
        self.retry_at = now + RETRY;
        self.show();
    }

    /// Takes a batch in.
    #[cfg(test)]
    pub(super) fn take(&mut self, batch: Batch, now: Duration) {
        self.ring.take(batch, now, Duration::from_secs(30));
        self.tell_waiting();
    }

    /// When something must be done next; `None` while nothing waits.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Duration> {
        self.due_after(self.ring.due())
    }

    fn due_after(&self, commit: Option<Duration>) -> Option<Duration> {
        let seal = (self.unsealed.is_some() || self.crowded).then_some(self.seal_at);
        let commit = commit.map(|due| if self.refused.is_some() { self.retry_at } else { due });
        commit.into_iter().chain(seal).min()
    }

    /// Commits what waits and seals what is full. What the card refuses stays, and is tried again later.
    pub(super) fn attempt(&mut self, now: Duration) {
        match self.commit_all() {
            Ok(()) => self.refused = self.head.is_none().then(|| self.unusable.clone()),
            Err(fault) => {
                let why = chain(&fault);
                if self.refused.is_none() {
                    warn!(why, waiting = self.ring.count(), "Card refuses writes; readings are held in memory");
                }
                self.ring.refuse_those_who_wait(&why);
                self.refused = Some(why);
                self.retry_at = now + RETRY;
            }
        }
        if (self.unsealed.is_none() && !self.crowded) || self.seal_at <= now {
            self.seal_all(now);
        }
        self.show();
        self.tell_waiting();
    }

    fn show(&self) {
        self.ring.note(self.refused.as_deref(), self.unsealed.as_deref());
        self.current.show();
    }

    fn tell_waiting(&self) {
        self.inner.waiting.store(self.ring.count() as u64, Ordering::Relaxed);
    }

    fn commit_all(&mut self) -> Result<(), WriteFault> {
        while !self.ring.is_empty() {
            if self.head.is_none() {
                return Err(WriteFault::Unusable(self.unusable.clone()));
            }
            self.tell_lost()?;
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), WriteFault> {
        let mut taken = self.ring.take_portion();
        let mut all = Vec::new();
        let mut ends = Vec::with_capacity(taken.len());
        for waiting in &mut taken {
            all.append(&mut waiting.readings);
            ends.push(all.len());
        }
        all.iter_mut().for_each(|reading| reading.stamp = self.current.renumbered(reading.stamp));
        let (mut done, before) = (0, self.next);
        let work = std::panic::AssertUnwindSafe(|| self.write_all(&all, &mut done));
        let result = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
            // Told as lost, at once: what was written of it is not known.
            let safe = usize::try_from(self.next - before).unwrap_or(usize::MAX);
            self.ring.lose(Lost::of(all.get(safe..).unwrap_or_default()));
            std::panic::resume_unwind(panic)
        });
        let answers = self.ring.take_answers();
        let mut rest = all.into_iter();
        let mut at = 0;
        let mut back = Vec::new();
        for ((waiting, end), accepted) in taken.into_iter().zip(ends).zip(answers) {
            let readings = rest.by_ref().take(end - at).skip(done.saturating_sub(at)).collect::<Vec<_>>();
            at = end;
            match (&result, accepted) {
                (Err(fault), Some(accepted)) if end > done => refuse(accepted, &chain(fault)),
                (_, Some(accepted)) => drop(accepted.send(Ok(()))),
                // Those told meanwhile that they are not accepted will send again, so theirs is not kept.
                (_, None) if end > done && !waiting.asked => {
                    back.push(Waiting { readings, accepted: None, asked: false, due: waiting.due });
                }
                (_, None) => {}
            }
        }
        self.ring.give_back(back);
        result
    }

    /// Writes, syncs and publishes; `done` counts what is safe.
    fn write_all(&mut self, all: &[Reading], done: &mut usize) -> Result<(), WriteFault> {
        let safe = self.head.as_ref().map_or(0, Head::place);
        let mut staged = 0;
        let mut place = safe;
        let result = self.write_staged(all, done, &mut staged, &mut place);
        if result.is_err() {
            self.leave_slot(place);
        }
        result
    }

    /// After a failed commit: another place on the card may be better.
    fn leave_slot(&mut self, place: u64) {
        if let Some(head) = &mut self.head {
            head.return_to(place);
        }
        if std::mem::take(&mut self.filling) {
            let empty = {
                let slots = &mut self.inner.write().slots;
                if slots.back().is_some_and(|slot| slot.readings.is_empty()) { slots.pop_back() } else { None }
            };
            empty.into_iter().for_each(|slot| self.free(slot.place));
        }
    }

    fn write_staged(
        &mut self,
        all: &[Reading],
        done: &mut usize,
        staged: &mut usize,
        place: &mut u64,
    ) -> Result<(), WriteFault> {
        while let Some(rest) = all.get(*done + *staged..).filter(|rest| !rest.is_empty()) {
            let record = self.record(rest, *staged);
            let Some((count, record)) = record else {
                self.make_safe(all, done, staged, place)?;
                self.turn()?;
                *place = 0;
                continue;
            };
            if let Some(head) = &mut self.head {
                head.write(&record).map_err(WriteFault::Card)?;
            }
            *staged += count;
        }
        self.make_safe(all, done, staged, place)
    }

    /// As many readings as fit behind what is in the slot; `None` when none do.
    fn record(&self, rest: &[Reading], staged: usize) -> Option<(usize, Record)> {
        let head = self.head.as_ref().filter(|_| self.filling)?;
        let in_slot = self.inner.read().slots.back().map_or(0, |slot| slot.readings.len()) + staged;
        if self.is_full(in_slot) {
            return None;
        }
        let mut count = rest.len().min(RECORD).min(MOST_READINGS.saturating_sub(in_slot));
        while count > 0 {
            let record = head.record(self.next + staged as u64, rest.get(..count)?);
            match record {
                Some(record) if head.has_room(&record) => return Some((count, record)),
                // A smaller part may still fit, unless the slot is nearly full anyway.
                _ if count > 64 || head.filled() == 0 => count /= 2,
                _ => return None,
            }
        }
        None
    }

    fn make_safe(
        &mut self,
        all: &[Reading],
        done: &mut usize,
        staged: &mut usize,
        place: &mut u64,
    ) -> Result<(), WriteFault> {
        let Some(head) = self.head.as_mut().filter(|_| *staged > 0) else { return Ok(()) };
        let asked = Instant::now();
        head.sync().map_err(WriteFault::Card)?;
        locked(&self.inner.latency).took(asked.elapsed());
        *place = head.place();
        if !self.inner.is_used() {
            self.inner.mark(|mark| mark.used = true).map_err(WriteFault::Note)?;
        }
        self.publish(all.get(*done..*done + *staged).unwrap_or_default());
        *done += *staged;
        *staged = 0;
        let in_slot = self.inner.read().slots.back().map_or(0, |slot| slot.readings.len());
        if self.is_full(in_slot) {
            self.filling = false;
        }
        Ok(())
    }

    fn is_full(&self, readings: usize) -> bool {
        readings as f64 * self.bytes_each >= BLOCK || self.head.as_ref().is_some_and(|head| head.filled() >= FULL)
    }

    /// Starts a new slot.
    fn turn(&mut self) -> Result<(), WriteFault> {
        self.filling = false;
        let next = self.next;
        let free = self.head.as_mut().and_then(Head::next_slot);
        let place = match free {
            Some(place) => place,
            None => {
                self.wait_for_room();
                self.seal_all(Duration::ZERO);
                self.head.as_mut().and_then(Head::next_slot).ok_or(WriteFault::Slots)?
            }
        };
        let reserve = self.inner.mark(|mark| mark.reserved = next - 1 + MOST_READINGS as u64);
        if let Err(error) = reserve {
            self.free(place);
            return Err(WriteFault::Note(error));
        }
        self.inner.write().slots.push_back(Slot { place, first: next, readings: Vec::new() });
        self.filling = true;
        Ok(())
    }

    fn free(&mut self, place: usize) {
        let used = self.inner.read().slots.iter().any(|slot| slot.place == place);
        if let Some(head) = self.head.as_mut().filter(|_| !used) {
            head.free(place);
        }
    }

    /// Shows what is safe to everyone.
    fn publish(&mut self, readings: &[Reading]) {
        if readings.is_empty() {
            return;
        }
        let mut state = self.inner.write();
        if let Some(slot) = state.slots.back_mut() {
            slot.readings.extend_from_slice(readings);
        }
        for (seq, reading) in (self.next..).zip(readings) {
            state.notice(&Stored { seq, reading: reading.clone() });
        }
        drop(state);
        self.next += readings.len() as u64;
        self.inner.head.send_replace(self.next - 1);
    }

    /// Readings that fell out of memory get their numbers, and the gap its place.
    fn tell_lost(&mut self) -> Result<(), WriteFault> {
        let lost = self.ring.take_lost();
        if lost.count == 0 {
            return Ok(());
        }
        let last = self.next + lost.count - 1;
        let dated = |stamp: Option<Stamp>| stamp.map(|stamp| self.current.renumbered(stamp));
        let (from, to) = (dated(lost.from), dated(lost.to));
        let gap = Gap { from, to, ..undated(self.next, last, Cause::CardRefused) };
        let noted =
            self.inner.mark(|mark| mark.reserved = mark.reserved.max(last)).and_then(|()| self.inner.lose(gap, 0));
        if let Err(error) = noted {
            self.ring.lose(lost);
            return Err(WriteFault::Note(error));
        }
        self.filling = false;
        self.next = last + 1;
        self.inner.head.send_replace(last);
        Ok(())
    }

    fn seal_all(&mut self, now: Duration) {
        self.unsealed = None;
        self.crowded = false;
        loop {
            let full = self.inner.read().slots.len() > usize::from(self.filling);
            if self.head.is_none() || !full {
                return;
            }
            if let Err(fault) = self.seal_oldest() {
                self.seal_at = now + RETRY;
                if matches!(fault, SealFault::Room) {
                    self.crowded = true;
                    return;
                }
                let why = chain(&fault);
                warn!(why, "Block not sealed; it waits in the head");
                self.close_newest(fault.leaves_doubt());
                self.unsealed = Some(why);
                return;
            }
        }
    }

    /// After a failed write sled must be opened anew; after a failed sync the folder is written to no more.
    fn close_newest(&mut self, doubted: bool) {
        let mut shelf = locked(&self.inner.shelf);
        if let Some(newest) = shelf.newest() {
            shelf.close(newest);
            if doubted {
                self.doubted = Some(newest);
            }
        }
    }

    fn seal_oldest(&mut self) -> Result<(), SealFault> {
        let (place, first, readings) = {
            let state = self.inner.read();
            let Some(slot) = state.slots.front() else { return Ok(()) };
            (slot.place, slot.first, slot.readings.clone())
        };
        if !readings.is_empty() {
            self.seal(first, &readings)?;
        }
        self.inner.write().slots.pop_front();
        self.free(place);
        Ok(())
    }

    fn seal(&mut self, first: u64, readings: &[Reading]) -> Result<(), SealFault> {
        if takes_no_writes(&self.inner.directory) {
            return Err(SealFault::ReadOnly);
        }
        if free_bytes(&self.inner.directory) < FREE {
            return Err(SealFault::Full);
        }
        if self.inner.is_full() {
            self.tidy()?;
            return Err(SealFault::Room);
        }
        let segment = self.newest_segment(first)?;
        let with_newest = self.blocks_since_newest.is_multiple_of(NEWEST_EVERY);
        let (newest, acknowledged, notes) = self.beside(first + readings.len() as u64 - 1);
        let newest = with_newest.then_some(newest);
        let beside = Beside { newest, acknowledged: Some(&acknowledged), notes: notes.clone() };
        let length = segment.put(first, readings, beside)?;
        self.blocks_since_newest += 1;
        if readings.len() >= 256 {
            self.bytes_each = (length as f64 / readings.len() as f64).clamp(0.2, 64.0);
        }
        self.inner.write().notes.retain(|note| !notes.contains(note));
        segment.bind_sheaf(&self.inner.clock(), SHEAF)?;
        if self.inner.is_tight() {
            self.tidy()?;
        }
        Ok(())
    }

    /// Has room made, by a thread of its own: writing a segment anew takes long. An earlier one's fault is told now.
    fn tidy(&mut self) -> Result<(), StoreError> {
        if self.tidier.as_ref().is_some_and(|tidier| !tidier.is_finished()) {
            return Ok(());
        }
        let before = self.tidier.take().map_or(Ok(()), ended);
        let inner = Arc::clone(&self.inner);
        self.start_tidier(move || inner.make_room());
        before
    }

    fn start_tidier(&mut self, work: impl FnOnce() -> Result<(), StoreError> + Send + 'static) {
        match std::thread::Builder::new().name("store-room".to_owned()).spawn(work) {
            Ok(handle) => self.tidier = Some(handle),
            Err(why) => warn!(%why, "No thread to make room in the store"),
        }
    }

    /// With every slot of the head waiting, whoever brings readings waits too.
    fn wait_for_room(&mut self) {
        if let Some(tidier) = self.tidier.take_if(|_| self.crowded)
            && let Err(error) = ended(tidier)
        {
            warn!(why = chain(&error), "No room made in the store");
        }
    }

    /// Goes on with what a fall interrupted.
    fn resume_erasing(&mut self) {
        if self.head.is_none() {
            return;
        }
        let orders = self.inner.unfinished_orders();
        if orders.is_empty() {
            return;
        }
        info!(orders = orders.len(), "Going on to erase readings");
        if let Err(error) = self.set_apart(&orders.iter().collect::<Vec<_>>(), Duration::ZERO) {
            warn!(why = chain(&error), "Readings not erased yet; it is tried again after the next start");
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.start_tidier(move || {
            inner.resume(orders);
            Ok(())
        });
    }

    /// Seals all there is into segments that are not written to any more, forgets the newest readings that orders hold, and
    /// clears the head. Gives the last number sealed.
    fn set_apart(&mut self, orders: &[&Order], now: Duration) -> Result<u64, StoreError> {
        let refuse = |why: String| StoreError { doing: format!("seal what is to be erased: {why}"), source: None };
        self.attempt(now);
        if let Some(why) = &self.refused {
            return Err(refuse(why.clone()));
        }
        self.filling = false;
        if self.crowded {
            self.wait_for_room();
        }
        self.seal_all(now);
        if let Some(why) = &self.unsealed {
            return Err(refuse(why.clone()));
        }
        if !self.inner.read().slots.is_empty() {
            return Err(refuse("there is no room for a block".to_owned()));
        }
        let clock = self.inner.clock();
        let held = |stored: &Stored| orders.iter().any(|order| order.holds(stored, &clock));
        self.inner.write().newest.retain(|_, stored| !held(stored));
        self.begin_segment().map_err(|fault| StoreError::new("begin a segment", fault))?;
        self.inner.mark(|mark| mark.used = false)?;
        let clear = |head: &mut Head| head.clear();
        self.head.as_mut().map_or(Ok(()), clear).map_err(|e| StoreError::new("clear the head", e))?;
        Ok(self.next - 1)
    }

    /// Ends the newest segment, and begins one with all that is noted beside the readings. An empty one is made anew: it
    /// may hold a note of what is to be erased.
    fn begin_segment(&mut self) -> Result<(), SealFault> {
        let newest = locked(&self.inner.shelf).newest();
        if let Some(segment) = newest.map(|newest| self.inner.segment(newest)).transpose()?.flatten() {
            if segment.blocks() > 0 {
                self.end_segment(&segment, self.next)?;
            } else {
                let first = segment.first;
                drop(segment);
                self.discard(first)?;
            }
        }
        let folder = Shelf::folder(locked(&self.inner.shelf).root(), self.next);
        let segment = Segment::create(&folder, self.next, &self.inner.identity)?;
        let (newest, acknowledged, notes) = self.beside(self.next - 1);
        let beside = Beside { newest: Some(newest), acknowledged: Some(&acknowledged), notes: notes.clone() };
        segment.note(beside)?;
        locked(&self.inner.shelf).put(segment);
        self.inner.write().notes.retain(|note| !notes.contains(note));
        self.blocks_since_newest = 0;
        Ok(())
    }

    /// What is written beside a block. Newest readings that a later loss takes away stay known: they were true.
    fn beside(&self, upto: u64) -> (Newest, BTreeMap<String, u64>, Vec<Note>) {
        let state = self.inner.read();
        let newest = Newest { upto, readings: state.newest.values().cloned().collect() };
        (newest, state.acknowledged.clone(), state.notes.clone())
    }

    /// The segment a block belongs in; a full one is finished first.
    fn newest_segment(&mut self, first: u64) -> Result<Arc<Segment>, SealFault> {
        let newest = locked(&self.inner.shelf).newest();
        if let Some(segment) = newest.map(|newest| self.inner.segment(newest)).transpose()?.flatten() {
            let doubted = self.doubted == Some(segment.first);
            if !doubted && segment.size() < self.inner.segment_size() {
                return Ok(segment);
            }
            self.end_segment(&segment, first)?;
        }
        let folder = Shelf::folder(locked(&self.inner.shelf).root(), first);
        let segment = Segment::create(&folder, first, &self.inner.identity)?;
        // Its first block brings the newest readings along: after a fall only this segment is asked for them.
        self.blocks_since_newest = 0;
        Ok(locked(&self.inner.shelf).put(segment))
    }

    /// What follows, from `next` on, goes into another segment.
    fn end_segment(&self, segment: &Segment, next: u64) -> Result<(), SealFault> {
        match self.doubted == Some(segment.first) {
            false => self.finish(segment, next - 1),
            true if segment.first == next => self.discard(next),
            true => self.note_finished(segment, next - 1),
        }
    }

    /// Sums a full segment up and notes what it covers, so that it need not be opened to know.
    fn finish(&self, segment: &Segment, last: u64) -> Result<(), SealFault> {
        segment.bind_sheaf(&self.inner.clock(), 1)?;
        self.note_finished(segment, last)
    }

    /// A segment of which nothing was ever safe.
    fn discard(&self, first: u64) -> Result<(), SealFault> {
        let mut shelf = locked(&self.inner.shelf);
        shelf.remove(first);
        let folder = Shelf::folder(shelf.root(), first);
        let removed = fs::remove_dir_all(&folder);
        removed.map_err(|error| StoreError::new(format!("remove {}", folder.display()), error).into())
    }

    fn note_finished(&self, segment: &Segment, last: u64) -> Result<(), SealFault> {
        let mut listed = Listed { last, ..Listed::default() };
        segment.covers().iter().for_each(|(_, cover)| listed.spans.merge(&cover.spans));
        if let Some(own) = &self.inner.own {
            let bytes =
                postcard::to_allocvec(&listed).map_err(|e| StoreError::new("encode what a segment covers", e))?;
            own.own_put("segments", &segment.first.to_be_bytes(), &bytes)?;
        }
        info!(first = segment.first, last, blocks = segment.blocks(), "Segment finished");
        locked(&self.inner.shelf).list(segment.first, listed);
        Ok(())
    }

    /// Leaves everything so that the next start is quick.
    fn leave(mut self) {
        self.ring.refuse_those_who_wait("the gateway is stopping");
        if self.ring.count() > 0 {
            warn!(readings = self.ring.count(), "Readings not stored before the end");
        }
        self.inner.room.stopping.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = self.tidier.take().map(ended) {
            warn!(why = chain(&error), "No room made in the store");
        }
        self.note_end();
        let Some(newest) = locked(&self.inner.shelf).newest() else { return };
        let Ok(Some(segment)) = self.inner.segment(newest) else { return };
        let (_, acknowledged, notes) = self.beside(self.next - 1);
        if let Err(fault) = segment.note(Beside { newest: None, acknowledged: Some(&acknowledged), notes }) {
            warn!(why = chain(&fault), "Last notes not written");
        }
    }

    /// After a stop in order the marker tells how far numbers went, whatever becomes of the head.
    fn note_end(&self) {
        if self.head.is_none() || self.refused.is_some() {
            return;
        }
        let last = self.next - 1;
        if let Err(error) = self.inner.mark(|mark| (mark.reserved, mark.closed) = (last, true)) {
            warn!(why = chain(&error), "Orderly end not written down");
        }
    }
}

/// How the thread that makes room has ended; waits for its end.
fn ended(tidier: JoinHandle<Result<(), StoreError>>) -> Result<(), StoreError> {
    tidier.join().unwrap_or_else(|_| Err(StoreError { doing: "make room: it panicked".to_owned(), source: None }))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io,
        sync::atomic::AtomicBool,
    };

    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        buffer::{Buffer, RING, Settings, Thread, head::Card, inner::SUBJECT, tests_load},
        clock::{Clock, HeldTime, Source},
        condition::{Board, Code},
        reading::{Commit, NotAccepted},
        store::{Archive, Entry, PageRequest},
    };

    /// A card that refuses while told to: everything, or only the sync.
    struct Flaky {
        file: File,
        refuses: Arc<AtomicBool>,
    }

    impl Card for Flaky {
        fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.file.write(bytes, offset)
        }

        fn sync(&self) -> io::Result<()> {
            if self.refuses.load(Ordering::Relaxed) { Err(io::Error::from_raw_os_error(5)) } else { self.file.sync() }
        }
    }

    struct Bench {
        folder: tempfile::TempDir,
        writer: Writer,
        board: Board,
        refuses: Arc<AtomicBool>,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().expect("folder");
        let directory = folder.path().join("store");
        let settings =
            Settings { directory: directory.clone(), size_limit: 64 << 20, commit_within: Duration::from_secs(30) };
        let opened = Buffer::open(&settings).expect("opens");
        let clock = Clock::new(1, HeldTime::at(1_800_000_000_000, Source::Ntp), []);
        let board = Board::new(clock.clone());
        opened.buffer.current.start(&clock, &board);
        let Thread::Ready(writer) = std::mem::replace(&mut *locked(&opened.buffer.thread), Thread::Ended) else {
            panic!("not ready");
        };
        let mut writer = *writer;
        let refuses = Arc::new(AtomicBool::new(false));
        let file = File::options().write(true).open(directory.join("head")).expect("a head");
        let card = Flaky { file, refuses: Arc::clone(&refuses) };
        writer.head.as_mut().expect("a head").change_card(Box::new(card));
        Bench { folder, writer, board, refuses }
    }

    type Answer = oneshot::Receiver<Result<(), NotAccepted>>;

    fn asking(readings: Vec<Reading>, commit: Commit) -> (Batch, Answer) {
        let (accepted, answer) = oneshot::channel();
        (Batch { readings, commit, accepted: Some(accepted) }, answer)
    }

    fn silent(readings: Vec<Reading>) -> Batch {
        Batch { readings, commit: Commit::Grouped, accepted: None }
    }

    fn everything(inner: &Inner) -> Vec<Entry> {
        let request = PageRequest { after: 0, upto: u64::MAX, limit: usize::MAX, points: None };
        inner.page(&request).expect("a page").entries
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_batch_is_due_as_its_policy_says_and_takes_the_others_along() {
        let mut bench = bench();
        let writer = &mut bench.writer;
        assert_eq!(writer.due(), None);
        writer.take(silent(tests_load::rounds(1, 1)), seconds(10));
        assert_eq!(writer.due(), Some(seconds(40)));
        let (soon, mut answer) = asking(tests_load::rounds(1, 1), Commit::Soon);
        writer.take(soon, seconds(11));
        assert!(writer.due().is_some_and(|due| due <= seconds(11) + Duration::from_millis(200)));
        let (now, _) = asking(tests_load::rounds(1, 1), Commit::Now);
        writer.take(now, seconds(11));
        assert_eq!(writer.due(), Some(seconds(11)));
        writer.attempt(seconds(11));
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        assert_eq!((writer.due(), writer.inner.committed()), (None, 150));
        writer.take(silent(tests_load::rounds(1, 100)), seconds(12));
        assert_eq!(writer.due(), Some(Duration::ZERO), "so many are not kept waiting");
    }

    #[test]
    fn what_a_card_refuses_is_held_told_and_stored_once_it_takes_writes_again() {
        let mut bench = bench();
        let writer = &mut bench.writer;
        writer.take(silent(tests_load::rounds(1, 2)), seconds(0));
        writer.attempt(seconds(1));
        bench.refuses.store(true, Ordering::Relaxed);
        writer.take(silent(tests_load::rounds(1, 3)), seconds(1));
        let (publish, mut answer) = asking(tests_load::rounds(1, 1), Commit::Soon);
        writer.take(publish, seconds(1));
        writer.attempt(seconds(2));
        assert!(matches!(answer.try_recv(), Ok(Err(_))), "the device is to send it again");
        assert!(bench.board.is_open(Code::StoreRefusesWrites, SUBJECT));
        assert_eq!(writer.due(), Some(seconds(2) + RETRY));
        assert_eq!((writer.inner.committed(), writer.ring.count()), (100, 150));
        for n in 1..20 {
            writer.attempt(seconds(2 + 3 * n));
        }
        bench.refuses.store(false, Ordering::Relaxed);
        writer.attempt(seconds(100));
        assert!(!bench.board.is_open(Code::StoreRefusesWrites, SUBJECT));
        assert_eq!(writer.inner.committed(), 250);
        let entries = everything(&writer.inner);
        assert_eq!(entries.len(), 250);
        let values = |entries: &[Entry]| {
            let value = |entry: &Entry| match entry {
                Entry::Reading(stored) => stored.reading.value,
                Entry::Gap(gap) => panic!("{gap:?}"),
            };
            entries.iter().map(value).collect::<Vec<_>>()
        };
        let expected = [tests_load::rounds(1, 2), tests_load::rounds(1, 3)].concat();
        assert_eq!(values(&entries), expected.iter().map(|r| r.value).collect::<Vec<_>>());
        // The records of the failed commits lie in the head too; a start must not take them for readings.
        let settings =
            Settings { directory: bench.folder.path().join("store"), size_limit: 64 << 20, commit_within: seconds(30) };
        drop(bench.writer);
        let again = Buffer::open(&settings).expect("opens");
        assert_eq!(again.findings, []);
        assert_eq!(values(&everything(&again.buffer.current.inner())), values(&entries));
    }

    #[test]
    fn what_falls_out_of_memory_is_a_gap_in_its_place() {
        let mut bench = bench();
        let writer = &mut bench.writer;
        bench.refuses.store(true, Ordering::Relaxed);
        for n in 0..8 {
            writer.take(silent(tests_load::rounds(1, 200)), seconds(n));
            writer.attempt(seconds(n));
        }
        assert_eq!(writer.ring.count(), RING);
        bench.refuses.store(false, Ordering::Relaxed);
        writer.attempt(seconds(60));
        let gone = 80_000 - RING as u64;
        assert_eq!(writer.inner.committed(), 80_000);
        let gaps = writer.inner.gaps();
        assert_eq!((gaps.len(), gaps[0].first, gaps[0].last, gaps[0].count), (1, 1, gone, gone));
        assert_eq!(gaps[0].cause, Cause::CardRefused);
        assert!(gaps[0].from.is_some() && gaps[0].to.is_some());
        assert!(bench.board.is_open(Code::ReadingsLost, SUBJECT));
        assert_eq!(everything(&writer.inner).last().map(Entry::last_seq), Some(80_000));
    }

    #[test]
    fn while_sled_takes_no_block_the_head_holds_them_then_memory_and_nothing_is_lost() {
        let mut bench = bench();
        let segments = bench.folder.path().join("store/segments");
        fs::remove_dir(&segments).expect("empty");
        fs::write(&segments, b"in the way").expect("written");
        let writer = &mut bench.writer;
        let mut now = 0;
        while writer.refused.is_none() {
            now += 5;
            assert!(now < 5000, "the head never fills");
            writer.take(silent(tests_load::rounds(1, 10)), seconds(now));
            writer.attempt(seconds(now));
            assert!(writer.inner.read().slots.len() <= 12);
        }
        assert!(bench.board.is_open(Code::StoreRefusesWrites, SUBJECT));
        let stored = writer.inner.committed();
        assert!(stored > 20_000 && writer.ring.count() > 0);
        fs::remove_file(&segments).expect("removed");
        fs::create_dir(&segments).expect("made");
        writer.attempt(seconds(now + 10));
        assert!(!bench.board.is_open(Code::StoreRefusesWrites, SUBJECT));
        let count = now / 5 * 500;
        assert_eq!(writer.inner.committed(), count);
        assert!(writer.inner.gaps().is_empty());
        let mut after = 0;
        while after < count {
            let request = PageRequest { after, upto: u64::MAX, limit: 5000, points: None };
            let page = writer.inner.page(&request).expect("a page");
            assert!(page.entries.iter().map(Entry::last_seq).eq(after + 1..=page.next));
            after = page.next;
        }
    }
}
