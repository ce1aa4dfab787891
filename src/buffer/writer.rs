//! The one thread that writes: gathers batches, commits them to the head file, seals full slots into segments, keeps
//! the size, and holds what the card refuses.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{error, info, warn};

use super::{
    block::MOST_READINGS,
    erase::Order,
    gaps::undated,
    head::{Head, Record, SLOT},
    inner::{FREE, Inner, SUBJECT, Slot, free_bytes, locked},
    segment::{Beside, Newest, SHEAF, Segment, SegmentFault},
    shelf::{Listed, Shelf},
};
use crate::{
    clock::{Note, Stamp},
    condition::Code,
    reading::{Batch, Commit, NotAccepted, Quality, Reading, Stored, Why},
    store::{Cause, Gap, StoreError},
    supervisor::chain,
};

/// Readings held in memory while the card refuses them: some five megabytes, three and a half hours of 50 points
/// every 10 s. Beyond that the oldest are lost, and counted.
pub const RING: usize = 65_536;
/// As many waiting are committed without waiting longer.
const MANY: usize = 4096;
/// An acknowledged publish waits at most 200 ms; half of it is left to the card.
const SOON: Duration = Duration::from_millis(100);
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

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Message {
    Batch(Batch, OwnedSemaphorePermit),
    /// Commit what waits, now; answered when done.
    Commit(oneshot::Sender<()>),
    /// Seal all there is into segments that are not written to any more, forget the newest reading that an order holds,
    /// and clear the head. Answered with the last number sealed.
    SetApart {
        order: Arc<Order>,
        answer: mpsc::SyncSender<Result<u64, StoreError>>,
    },
    /// Commit and end.
    Close,
}

/// Why a commit did not succeed.
#[derive(Debug, thiserror::Error)]
enum WriteFault {
    #[error("the card refuses to be written")]
    Card(#[source] std::io::Error),
    #[error("every slot of the head waits to be sealed")]
    Slots,
    #[error("a note beside the readings was not written")]
    Note(#[source] StoreError),
}

/// Why a slot could not be sealed.
#[derive(Debug, thiserror::Error)]
enum SealFault {
    #[error("less than {FREE} bytes are free on the card")]
    Full,
    #[error("room is still being made within the size limit")]
    Room,
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Waiting {
    readings: Vec<Reading>,
    accepted: Option<oneshot::Sender<Result<(), NotAccepted>>>,
    due: Duration,
}

/// Readings that fell out of the ring, to be told as a gap.
#[derive(Debug, Default)]
struct Lost {
    count: u64,
    from: Option<Stamp>,
    to: Option<Stamp>,
}

/// The writer. Time is passed in, as the time since it started.
pub(super) struct Writer {
    inner: Arc<Inner>,
    /// `None` when there is no card: what fits is kept in memory.
    head: Option<Head>,
    commit_within: Duration,
    waiting: VecDeque<Waiting>,
    count: usize,
    next: u64,
    lost: Lost,
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
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, head: Option<Head>, commit_within: Duration, next: u64) -> Self {
        Self {
            inner,
            head,
            commit_within,
            waiting: VecDeque::new(),
            count: 0,
            next,
            lost: Lost::default(),
            filling: false,
            bytes_each: 1.5,
            blocks_since_newest: 0,
            refused: None,
            retry_at: Duration::ZERO,
            unsealed: None,
            crowded: false,
            seal_at: Duration::ZERO,
            tidier: None,
        }
    }

    /// Works until asked to end, or until nobody can ask any more.
    pub(super) fn run(mut self, messages: &mpsc::Receiver<Message>) {
        let started = Instant::now();
        let mut ends = false;
        self.resume_erasing();
        while !ends {
            let pause = self.due().map(|due| due.saturating_sub(started.elapsed()));
            let message = match pause {
                Some(pause) => messages.recv_timeout(pause),
                None => messages.recv().map_err(Into::into),
            };
            let mut asked = Vec::new();
            match message {
                Ok(message) => ends |= self.hear(message, started.elapsed(), &mut asked),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => ends = true,
            }
            // What came meanwhile shares the commit; but no more than is good for memory.
            while self.count < MANY {
                let Ok(message) = messages.try_recv() else { break };
                ends |= self.hear(message, started.elapsed(), &mut asked);
            }
            let now = started.elapsed();
            if ends || !asked.is_empty() || self.due().is_some_and(|due| due <= now) {
                self.attempt_guarded(now);
            }
            for asked in asked {
                let _ = asked.send(());
            }
        }
        self.leave();
    }

    /// A panic beneath costs the readings it held, which is told, but not the writer.
    fn attempt_guarded(&mut self, now: Duration) {
        let before = self.next + self.count as u64;
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.attempt(now))).is_ok() {
            return;
        }
        self.count = self.waiting.iter().map(|waiting| waiting.readings.len()).sum();
        self.lost.count += before.saturating_sub(self.next + self.count as u64);
        self.leave_slot(SLOT);
        let why = "the writer panicked".to_owned();
        error!(why, "Commit abandoned");
        self.refused = Some(why);
        self.retry_at = now + RETRY;
        self.show();
    }

    fn hear(&mut self, message: Message, now: Duration, asked: &mut Vec<oneshot::Sender<()>>) -> bool {
        match message {
            Message::Batch(batch, _permit) => self.take(batch, now),
            Message::Commit(sender) => asked.push(sender),
            Message::SetApart { order, answer } => {
                // Whoever asked has gone: the order is written down and is met again at the next start.
                let _ = answer.send(self.set_apart(&[&order], now));
            }
            Message::Close => return true,
        }
        false
    }

    /// Takes a batch in.
    pub(super) fn take(&mut self, batch: Batch, now: Duration) {
        let Batch { mut readings, commit, accepted } = batch;
        readings.iter_mut().for_each(make_sound);
        let due = now
            + match commit {
                Commit::Grouped => self.commit_within,
                Commit::Soon => SOON.min(self.commit_within),
                Commit::Now => Duration::ZERO,
            };
        self.count += readings.len();
        self.waiting.push_back(Waiting { readings, accepted, due });
        self.keep_to_the_ring();
        self.tell_waiting();
    }

    /// When something must be done next; `None` while nothing waits.
    pub(super) fn due(&self) -> Option<Duration> {
        let seal = (self.unsealed.is_some() || self.crowded).then_some(self.seal_at);
        let commit = match (&self.refused, self.count) {
            _ if self.waiting.is_empty() && self.lost.count == 0 => None,
            (Some(_), _) => Some(self.retry_at),
            (None, MANY..) => Some(Duration::ZERO),
            (None, _) => self.waiting.iter().map(|waiting| waiting.due).min(),
        };
        commit.into_iter().chain(seal).min()
    }

    /// Commits what waits and seals what is full. What the card refuses stays, and is tried again later.
    pub(super) fn attempt(&mut self, now: Duration) {
        match self.commit() {
            Ok(()) => self.refused = None,
            Err(fault) => {
                let why = chain(&fault);
                if self.refused.is_none() {
                    warn!(why, waiting = self.count, "Card refuses writes; readings are held in memory");
                }
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
        let Some(board) = self.inner.board.get() else { return };
        if self.head.is_none() {
            return;
        }
        let wrong = self.refused.as_ref().or(self.unsealed.as_ref());
        let detail = |why: &String| format!("{why}; at most {RING} readings are held in memory");
        board.set(Code::StoreRefusesWrites, SUBJECT, wrong.map(detail));
    }

    fn tell_waiting(&self) {
        self.inner.waiting.store(self.count as u64, Ordering::Relaxed);
    }

    /// Drops the oldest of what waits once the memory for it is full.
    fn keep_to_the_ring(&mut self) {
        while self.count > RING {
            let Some(mut oldest) = self.waiting.pop_front() else { return };
            let excess = (self.count - RING).min(oldest.readings.len());
            let dropped = oldest.readings.drain(..excess).collect::<Vec<_>>();
            self.count -= excess;
            if oldest.accepted.is_none() {
                self.lost.count += dropped.len() as u64;
                self.lost.from = self.lost.from.or(dropped.first().map(|reading| reading.stamp));
                self.lost.to = dropped.last().map(|reading| reading.stamp).or(self.lost.to);
            }
            match oldest.accepted.take() {
                Some(accepted) => {
                    self.count -= oldest.readings.len();
                    refuse(accepted, "more readings wait than memory holds");
                }
                None if !oldest.readings.is_empty() => self.waiting.push_front(oldest),
                None => {}
            }
        }
    }

    fn commit(&mut self) -> Result<(), WriteFault> {
        self.tell_lost()?;
        let mut taken = std::mem::take(&mut self.waiting);
        let mut all = Vec::with_capacity(self.count);
        let mut ends = Vec::with_capacity(taken.len());
        for waiting in &mut taken {
            all.append(&mut waiting.readings);
            ends.push(all.len());
        }
        let mut done = 0;
        let result = self.write_all(&all, &mut done);
        self.count = 0;
        let mut rest = all.into_iter();
        let mut at = 0;
        for (waiting, end) in taken.into_iter().zip(ends) {
            let readings = rest.by_ref().take(end - at).skip(done.saturating_sub(at)).collect::<Vec<_>>();
            at = end;
            match (&result, waiting.accepted) {
                (Err(fault), Some(accepted)) if end > done => refuse(accepted, &chain(fault)),
                (_, Some(accepted)) => drop(accepted.send(if self.head.is_some() { Ok(()) } else { Err(no_card()) })),
                (_, None) if end > done => {
                    self.count += readings.len();
                    self.waiting.push_back(Waiting { readings, accepted: None, due: waiting.due });
                }
                (_, None) => {}
            }
        }
        result
    }

    /// Writes, syncs and publishes; `done` counts what is safe.
    fn write_all(&mut self, all: &[Reading], done: &mut usize) -> Result<(), WriteFault> {
        if self.head.is_none() {
            self.publish(all);
            *done = all.len();
            return Ok(());
        }
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
        head.sync().map_err(WriteFault::Card)?;
        *place = head.place();
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
        if self.head.is_none() {
            make_room_in_memory(&mut state.slots, self.next, readings.len());
        }
        if let Some(slot) = state.slots.back_mut() {
            slot.readings.extend_from_slice(readings);
        }
        for (seq, reading) in (self.next..).zip(readings) {
            state.notice(&Stored { seq, reading: reading.clone() });
        }
        drop(state);
        self.next += readings.len() as u64;
        self.drop_from_memory();
        self.inner.head.send_replace(self.next - 1);
    }

    /// Without a card, what no longer fits is lost from the front. Told first, so that no reader meets a hole.
    fn drop_from_memory(&self) {
        while let Some(gap) = self.beyond_memory() {
            // Without a card there is nowhere to note it down.
            let _ = self.inner.lose(gap, 0);
            self.inner.write().slots.pop_front();
        }
    }

    fn beyond_memory(&self) -> Option<Gap> {
        let slots = &self.inner.read().slots;
        if self.head.is_some() || slots.iter().map(|slot| slot.readings.len()).sum::<usize>() <= RING {
            return None;
        }
        let oldest = slots.front()?;
        let stamp = |reading: Option<&Reading>| reading.map(|reading| reading.stamp);
        let (from, to) = (stamp(oldest.readings.first()), stamp(oldest.readings.last()));
        Some(Gap { from, to, ..undated(oldest.first, oldest.end() - 1, Cause::CardRefused) })
    }

    /// Readings that fell out of memory get their numbers, and the gap its place.
    fn tell_lost(&mut self) -> Result<(), WriteFault> {
        if self.lost.count == 0 {
            return Ok(());
        }
        let last = self.next + self.lost.count - 1;
        let gap = Gap { from: self.lost.from, to: self.lost.to, ..undated(self.next, last, Cause::CardRefused) };
        self.inner.mark(|mark| mark.reserved = mark.reserved.max(last)).map_err(WriteFault::Note)?;
        self.inner.lose(gap, 0).map_err(WriteFault::Note)?;
        self.filling = false;
        self.next = last + 1;
        self.lost = Lost::default();
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
                self.close_newest();
                self.unsealed = Some(why);
                return;
            }
        }
    }

    /// After a failed write sled must be opened anew.
    fn close_newest(&self) {
        let mut shelf = locked(&self.inner.shelf);
        if let Some(newest) = shelf.newest() {
            shelf.close(newest);
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

    /// See [`Message::SetApart`].
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
                self.finish(&segment, self.next - 1)?;
            } else {
                let mut shelf = locked(&self.inner.shelf);
                let folder = Shelf::folder(shelf.root(), segment.first);
                shelf.remove(segment.first);
                drop((segment, shelf));
                std::fs::remove_dir_all(&folder)
                    .map_err(|e| StoreError::new(format!("remove {}", folder.display()), e))?;
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
            if segment.size() < self.inner.segment_size() {
                return Ok(segment);
            }
            self.finish(&segment, first - 1)?;
        }
        let folder = Shelf::folder(locked(&self.inner.shelf).root(), first);
        let segment = Segment::create(&folder, first, &self.inner.identity)?;
        // Its first block brings the newest readings along: after a fall only this segment is asked for them.
        self.blocks_since_newest = 0;
        Ok(locked(&self.inner.shelf).put(segment))
    }

    /// Sums a full segment up and notes what it covers, so that it need not be opened to know.
    fn finish(&self, segment: &Segment, last: u64) -> Result<(), SealFault> {
        segment.bind_sheaf(&self.inner.clock(), 1)?;
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
        for waiting in self.waiting.drain(..) {
            if let Some(accepted) = waiting.accepted {
                refuse(accepted, "the gateway is stopping");
            }
        }
        if self.count > 0 {
            warn!(readings = self.count, "Readings not stored before the end");
        }
        self.inner.room.stopping.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = self.tidier.take().map(ended) {
            warn!(why = chain(&error), "No room made in the store");
        }
        let Some(newest) = locked(&self.inner.shelf).newest() else { return };
        let Ok(Some(segment)) = self.inner.segment(newest) else { return };
        let (_, acknowledged, notes) = self.beside(self.next - 1);
        if let Err(fault) = segment.note(Beside { newest: None, acknowledged: Some(&acknowledged), notes }) {
            warn!(why = chain(&fault), "Last notes not written");
        }
    }
}

/// How the thread that makes room has ended; waits for its end.
fn ended(tidier: JoinHandle<Result<(), StoreError>>) -> Result<(), StoreError> {
    tidier.join().unwrap_or_else(|_| Err(StoreError { doing: "make room: it panicked".to_owned(), source: None }))
}

fn make_room_in_memory(slots: &mut VecDeque<Slot>, next: u64, count: usize) {
    let full = slots.back().is_none_or(|slot| slot.readings.len() + count > MANY || slot.end() != next);
    if full {
        slots.push_back(Slot { place: 0, first: next, readings: Vec::new() });
    }
}

/// A reading the block format cannot hold is kept as one without a value.
fn make_sound(reading: &mut Reading) {
    if reading.value.is_some_and(|value| !value.is_finite()) {
        reading.value = None;
        reading.quality = Quality::Bad(Why::NotANumber);
    }
}

fn no_card() -> NotAccepted {
    NotAccepted("there is no card; the readings are in memory only".to_owned())
}

fn refuse(accepted: oneshot::Sender<Result<(), NotAccepted>>, why: &str) {
    // Nobody waits any more: that is theirs to know.
    let _ = accepted.send(Err(NotAccepted(why.to_owned())));
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io,
        sync::atomic::AtomicBool,
    };

    use super::*;
    use crate::{
        buffer::{Buffer, Settings, Thread, head::Card, tests_load},
        clock::{Clock, HeldTime, Source},
        condition::Board,
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
        let board = Board::new(clock);
        opened.buffer.inner.board.set(board.clone()).expect("no board yet");
        let Thread::Ready(writer, _) = std::mem::replace(&mut *locked(&opened.buffer.thread), Thread::Ended) else {
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
        assert_eq!((writer.inner.committed(), writer.count), (100, 150));
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
        assert_eq!(values(&everything(&again.buffer.inner)), values(&entries));
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
        assert_eq!(writer.count, RING);
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
        assert!(stored > 20_000 && writer.count > 0);
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
