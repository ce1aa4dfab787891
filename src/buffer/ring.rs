//! What waits for the card, in bounded memory, between those who bring readings and the one thread that writes. Whoever
//! brings never waits for a card that refuses or hangs: the oldest falls out, counted and dated.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use super::{Opened, erase::Order};
use crate::{
    clock::Stamp,
    reading::{Batch, Commit, NotAccepted, Quality, Reading, Why},
    store::StoreError,
};

/// Readings held in memory while the card refuses them: some five megabytes, three and a half hours of 50 points
/// every 10 s. Beyond that the oldest are lost, and counted.
pub const RING: usize = 65_536;
/// As many waiting are committed without waiting longer.
pub(super) const MANY: usize = 4096;
/// As many are written in one go at most, besides which the ring may fill again.
const PORTION: usize = 8192;
/// Who brings more to a card that is merely slow waits.
const PRESSING: usize = RING / 2;
/// An acknowledged publish waits at most 200 ms; half of it is left to the card.
const SOON: Duration = Duration::from_millis(100);
/// Commits at once wear a card: two pulses a second, each on the card at once, would be 172 800 commits and some 1 GB a
/// day. So many in a row are at once, one more for each [`PACE`]; beyond that they share a commit every [`PACE`] at most,
/// which is 5 760 commits and some 40 MB a day, and the most that a power cut then costs.
const AT_ONCE: u32 = 120;
const PACE: Duration = Duration::from_secs(15);
/// A card that has not answered for so long is taken to hang. A healthy one pauses for a second or two to tidy up.
pub(super) const HANGS: Duration = Duration::from_secs(5);

/// Told once readings are on the card, or why they are not.
type Accepted = oneshot::Sender<Result<(), NotAccepted>>;

/// What is to be erased, and who hears up to which number everything is sealed.
pub(super) type Apart = (Arc<Order>, mpsc::SyncSender<Result<u64, StoreError>>);

#[derive(Debug)]
pub(super) struct Waiting {
    pub readings: Vec<Reading>,
    pub accepted: Option<Accepted>,
    /// Somebody waits to hear that they are on the card.
    pub asked: bool,
    pub due: Duration,
}

/// Readings that fell out, to be told as a gap.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Lost {
    pub count: u64,
    pub from: Option<Stamp>,
    pub to: Option<Stamp>,
}

impl Lost {
    pub(super) fn of(readings: &[Reading]) -> Self {
        let stamps = || readings.iter().map(|reading| reading.stamp);
        Self { count: readings.len() as u64, from: stamps().min(), to: stamps().max() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.from = self.from.into_iter().chain(other.from).min();
        self.to = self.to.into_iter().chain(other.to).max();
    }
}

#[derive(Debug, Default)]
struct Held {
    waiting: VecDeque<Waiting>,
    count: usize,
    lost: Lost,
    /// Commits at once that were used up, and since when they come back.
    used: u32,
    used_since: Duration,
    /// Commits somebody waits for.
    asked: Vec<oneshot::Sender<()>>,
    /// What is to be set apart to be erased.
    apart: Vec<Apart>,
    ends: bool,
    /// Since when the writer is at the card.
    busy: Option<Instant>,
    /// Whom the writer will answer.
    under_way: Vec<Option<Accepted>>,
    refused: Option<String>,
    unsealed: Option<String>,
    /// A store that could be opened at last.
    arrived: Option<Box<Opened>>,
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    held: Mutex<Held>,
    bell: Condvar,
    room: Notify,
}

/// What the writer is to do.
pub(super) struct Call {
    /// Told when a commit was tried.
    pub asked: Vec<oneshot::Sender<()>>,
    pub apart: Vec<Apart>,
    pub ends: bool,
    pub arrived: Option<Box<Opened>>,
}

impl Ring {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch in. One that waits for the card to be accepted is refused at once while it hangs.
    pub(super) fn take(&self, batch: Batch, now: Duration, commit_within: Duration) {
        let Batch { mut readings, commit, accepted } = batch;
        readings.iter_mut().for_each(make_sound);
        let wait = match commit {
            Commit::Grouped => commit_within,
            Commit::Soon => SOON.min(commit_within),
            Commit::Now => Duration::ZERO,
        };
        let mut held = self.lock();
        let wait = if commit == Commit::Now && !held.may_be_at_once(now) { PACE.min(commit_within) } else { wait };
        let wrong = if held.ends { Some("the gateway is stopping") } else { held.hangs().then_some(SILENT) };
        match (accepted, wrong) {
            (Some(accepted), Some(why)) => return refuse(accepted, why),
            (accepted, _) => {
                held.count += readings.len();
                let asked = accepted.is_some();
                held.waiting.push_back(Waiting { readings, accepted, asked, due: now + wait });
            }
        }
        held.keep_to_the_ring();
        drop(held);
        self.bell.notify_all();
    }

    /// Returns when there is room; at once when the card is not merely slow.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            {
                let held = self.lock();
                if held.count < PRESSING || held.refused.is_some() || held.hangs() || held.ends {
                    return;
                }
            }
            // A card that begins to hang wakes nobody.
            let _ = tokio::time::timeout(Duration::from_millis(500), room).await;
        }
    }

    /// Asks for a commit at once.
    pub(super) fn ask(&self, asked: oneshot::Sender<()>) {
        self.lock().asked.push(asked);
        self.bell.notify_all();
    }

    /// Asks that all there is be sealed, so that it can be written anew without what is to be erased. Nobody answers when
    /// the gateway is stopping.
    pub(super) fn set_apart(&self, apart: Apart) {
        let mut held = self.lock();
        if !held.ends {
            held.apart.push(apart);
        }
        drop(held);
        self.bell.notify_all();
    }

    /// Nothing more is taken; the writer ends after a last try.
    pub(super) fn end(&self) {
        self.lock().ends = true;
        self.bell.notify_all();
        self.room.notify_waiters();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.lock().ends
    }

    /// A store could be opened.
    pub(super) fn arrive(&self, opened: Box<Opened>) {
        self.lock().arrived = Some(opened);
        self.bell.notify_all();
    }

    /// Waits until something is to be done. `due` makes of the time at which what waits must be written that at which the
    /// writer has anything to do.
    pub(super) fn wait(&self, now: impl Fn() -> Duration, due: impl Fn(Option<Duration>) -> Option<Duration>) -> Call {
        let mut held = self.lock();
        loop {
            let pause = due(held.due()).map(|due| due.saturating_sub(now()));
            let called = !held.asked.is_empty() || !held.apart.is_empty() || held.arrived.is_some();
            if held.ends || called || pause == Some(Duration::ZERO) {
                return Call {
                    asked: std::mem::take(&mut held.asked),
                    apart: std::mem::take(&mut held.apart),
                    ends: held.ends,
                    arrived: held.arrived.take(),
                };
            }
            let pause = pause.unwrap_or(Duration::from_secs(3600));
            held = self.bell.wait_timeout(held, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When what waits must be written: at the earliest of their times.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Duration> {
        self.lock().due()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    pub(super) fn is_empty(&self) -> bool {
        let held = self.lock();
        held.waiting.is_empty() && held.lost.count == 0
    }

    /// The writer goes to the card, or comes back from it.
    pub(super) fn at_the_card(&self, busy: bool) {
        self.lock().busy = busy.then(Instant::now);
    }

    /// The writer's last word on what is wrong.
    pub(super) fn note(&self, refused: Option<&str>, unsealed: Option<&str>) {
        let mut held = self.lock();
        held.refused = refused.map(str::to_owned);
        held.unsealed = unsealed.map(str::to_owned);
    }

    /// For how long the card has kept the writer waiting.
    pub(super) fn busy_for(&self) -> Option<Duration> {
        self.lock().busy.map(|since| since.elapsed())
    }

    /// What is wrong, in words.
    pub(super) fn wrong(&self) -> Option<String> {
        let held = self.lock();
        if held.hangs() {
            return Some(SILENT.to_owned());
        }
        held.refused.clone().or_else(|| held.unsealed.clone())
    }

    /// The oldest that wait, and who is to be told of them: that stays here, so that they can be told meanwhile.
    pub(super) fn take_portion(&self) -> Vec<Waiting> {
        let mut held = self.lock();
        let mut taken = Vec::new();
        let mut count = 0;
        while let Some(next) = held.waiting.front() {
            if count > 0 && count + next.readings.len() > PORTION {
                break;
            }
            count += next.readings.len();
            let Some(mut next) = held.waiting.pop_front() else { break };
            held.count -= next.readings.len();
            let accepted = next.accepted.take();
            held.under_way.push(accepted);
            taken.push(next);
        }
        drop(held);
        self.room.notify_waiters();
        taken
    }

    /// Who of the portion still waits to be told.
    pub(super) fn take_answers(&self) -> Vec<Option<Accepted>> {
        std::mem::take(&mut self.lock().under_way)
    }

    /// What was not written goes back to the front.
    pub(super) fn give_back(&self, rest: Vec<Waiting>) {
        let mut held = self.lock();
        for waiting in rest.into_iter().rev() {
            held.count += waiting.readings.len();
            held.waiting.push_front(waiting);
        }
        held.keep_to_the_ring();
    }

    pub(super) fn take_lost(&self) -> Lost {
        std::mem::take(&mut self.lock().lost)
    }

    pub(super) fn lose(&self, lost: Lost) {
        self.lock().lost.add(lost);
    }

    /// Tells whoever waits that they are not accepted; they can send again.
    pub(super) fn refuse_those_who_wait(&self, why: &str) {
        let mut held = self.lock();
        let mut gone = 0;
        held.waiting.retain_mut(|waiting| match waiting.accepted.take() {
            Some(accepted) => {
                gone += waiting.readings.len();
                refuse(accepted, why);
                false
            }
            None => true,
        });
        held.count -= gone;
    }

    /// The same for a card that hangs, those it is busy with among them.
    pub(super) fn refuse_while_it_hangs(&self) {
        if !self.lock().hangs() {
            return;
        }
        self.refuse_those_who_wait(SILENT);
        let mut held = self.lock();
        for accepted in held.under_way.iter_mut().filter_map(Option::take) {
            refuse(accepted, SILENT);
        }
    }
}

const SILENT: &str = "the card does not answer";

impl Held {
    fn hangs(&self) -> bool {
        self.busy.is_some_and(|since| since.elapsed() >= HANGS)
    }

    fn may_be_at_once(&mut self, now: Duration) -> bool {
        let come_back =
            u32::try_from(now.saturating_sub(self.used_since).as_secs() / PACE.as_secs()).unwrap_or(u32::MAX);
        if come_back > 0 {
            self.used = self.used.saturating_sub(come_back);
            self.used_since = now;
        }
        let may = self.used < AT_ONCE;
        self.used += u32::from(may);
        may
    }

    fn due(&self) -> Option<Duration> {
        match self.count {
            MANY.. => Some(Duration::ZERO),
            _ if self.lost.count > 0 => Some(Duration::ZERO),
            _ => self.waiting.iter().map(|waiting| waiting.due).min(),
        }
    }

    /// Drops the oldest of what waits once the memory for it is full.
    fn keep_to_the_ring(&mut self) {
        while self.count > RING {
            let Some(mut oldest) = self.waiting.pop_front() else { return };
            if let Some(accepted) = oldest.accepted.take() {
                self.count -= oldest.readings.len();
                refuse(accepted, "more readings wait than memory holds");
                continue;
            }
            let excess = (self.count - RING).min(oldest.readings.len());
            self.lost.add(Lost::of(oldest.readings.get(..excess).unwrap_or_default()));
            oldest.readings.drain(..excess);
            self.count -= excess;
            if !oldest.readings.is_empty() {
                self.waiting.push_front(oldest);
            }
        }
    }
}

/// A reading the block format cannot hold is kept as one without a value.
fn make_sound(reading: &mut Reading) {
    if reading.value.is_some_and(|value| !value.is_finite()) {
        reading.value = None;
        reading.quality = Quality::Bad(Why::NotANumber);
    }
}

pub(super) fn refuse(accepted: Accepted, why: &str) {
    // Nobody waits any more: that is theirs to know.
    let _ = accepted.send(Err(NotAccepted(why.to_owned())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::tests_load;

    fn at_once() -> Batch {
        Batch { readings: tests_load::rounds(1, 1), commit: Commit::Now, accepted: None }
    }

    #[test]
    fn two_pulses_a_second_cost_a_commit_every_fifteen_seconds_and_a_shower_none_the_less_is_at_once() {
        let ring = Ring::default();
        let (mut commits, mut at_once_of_first) = (0, 0);
        for half in 0..7200_u64 {
            let now = Duration::from_millis(half * 500);
            ring.take(at_once(), now, Duration::from_secs(30));
            if ring.due().is_some_and(|due| due <= now) {
                commits += 1;
                at_once_of_first += u32::from(half < 100);
                ring.take_portion();
                ring.take_answers();
            }
        }
        assert_eq!(at_once_of_first, 100);
        assert!(commits <= 120 + 2 * 240, "{commits} commits in an hour");
    }

    #[test]
    fn what_falls_out_is_counted_and_dated_exactly() {
        let ring = Ring::default();
        let all = tests_load::rounds(1, 1400);
        for part in all.chunks(50) {
            let batch = Batch { readings: part.to_vec(), commit: Commit::Grouped, accepted: None };
            ring.take(batch, Duration::ZERO, Duration::from_secs(30));
        }
        let (lost, gone) = (ring.take_lost(), all.len() - RING);
        assert_eq!((ring.count(), lost.count), (RING, gone as u64));
        assert_eq!((lost.from, lost.to), (Some(all[0].stamp), Some(all[gone - 1].stamp)));
    }

    #[test]
    fn while_the_card_hangs_whoever_waits_for_it_is_told_and_nobody_else_waits() {
        let ring = Ring::default();
        let asking = || {
            let (accepted, answer) = oneshot::channel();
            (Batch { readings: tests_load::rounds(1, 1), commit: Commit::Soon, accepted: Some(accepted) }, answer)
        };
        let ((first, mut under_way), (second, mut waiting), (third, mut late)) = (asking(), asking(), asking());
        ring.take(first, Duration::ZERO, Duration::from_secs(30));
        ring.take_portion();
        ring.take(second, Duration::ZERO, Duration::from_secs(30));
        ring.lock().busy = Instant::now().checked_sub(HANGS);
        ring.refuse_while_it_hangs();
        ring.take(third, Duration::ZERO, Duration::from_secs(30));
        for answer in [&mut under_way, &mut waiting, &mut late] {
            assert!(matches!(answer.try_recv(), Ok(Err(_))));
        }
        assert_eq!((ring.count(), ring.wrong().as_deref()), (0, Some(SILENT)));
        ring.at_the_card(false);
        assert_eq!(ring.wrong(), None);
    }
}
