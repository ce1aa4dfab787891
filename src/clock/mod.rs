//! When: a Raspberry Pi has no clock battery, so readings carry a boot number and monotonic milliseconds,
//! and become wall time when they are read.
//!
//! The samples that tie the two are kept by whoever holds a [`Clock`]; nothing here decides about disks.

mod ledger;
#[cfg(test)]
mod lives;
mod machine;
mod timeline;

use std::{
    cmp, fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use self::ledger::Ledger;
pub use self::machine::{HeldTime, SystemTime, Vouch, built_ms, machine};

/// Starts that the card could not number have numbers from this one on, drawn by lot; they tell nothing of the order.
pub const PROVISIONAL: u32 = 1 << 31;

/// An instant on the gateway's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Which start of the gateway, counted from 1.
    pub boot: u32,
    /// Milliseconds since that start; never steps.
    pub mono_ms: u64,
}

/// Where a wall time comes from. Ordered from least to most trusted; written to the card by its place in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The system's clock, nobody having said that it is right.
    Unknown,
    /// A battery-backed clock.
    Rtc,
    /// A person's browser.
    Browser,
    /// A GPS receiver.
    Gps,
    /// The system's clock, disciplined over the network.
    Ntp,
    /// Nobody: no source was heard, but it was after one known instant and before another. Ranks just above
    /// [`Source::Unknown`]; no sample carries it.
    Estimated,
}

impl Source {
    /// Whether schedules and expiry may rely on it.
    pub fn is_trusted(self) -> bool {
        self > Self::Estimated
    }

    fn rank(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Estimated => 1,
            Self::Rtc => 2,
            Self::Browser => 3,
            Self::Gps => 4,
            Self::Ntp => 5,
        }
    }
}

impl Ord for Source {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What was known of the wall clock at one monotonic instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// On our clock.
    pub stamp: Stamp,
    /// On the wall: milliseconds since 1970 UTC.
    pub unix_ms: i64,
    /// How far off it may be.
    pub error_ms: u32,
    /// Who says so.
    pub source: Source,
    /// For so long before it the clock was looked at time and again, and every look lay on the straight line from
    /// then to this sample; milliseconds, 0 when nothing is known of it.
    pub straight_ms: u64,
}

/// A start of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its number.
    pub boot: u32,
    /// Which run of the machine it belongs to, where the machine tells.
    pub machine: Option<Machine>,
    /// The newest stored stamp of earlier starts: they went on at least until then.
    pub before: Option<Stamp>,
    /// When this gateway was built, milliseconds since 1970 UTC; it cannot have started earlier.
    pub built_ms: i64,
}

/// A run of the machine, from power to power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's name for it; source: random(4), `/proc/sys/kernel/random/boot_id`.
    pub id: [u8; 16],
    /// How long the machine had been running when monotonic time was 0, in milliseconds.
    pub up_ms: u64,
}

/// What is kept of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// A start of the gateway.
    Start(Start),
    /// A sample.
    Sample(Sample),
}

impl Note {
    /// The start it is of.
    pub fn boot(&self) -> u32 {
        match self {
            Self::Sample(sample) => sample.stamp.boot,
            Self::Start(start) => start.boot,
        }
    }
}

/// What is to be done to what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// New.
    Keep(Note),
    /// No longer needed.
    Forget(Sample),
}

/// An instant on the wall, with what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since 1970 UTC.
    pub unix_ms: i64,
    /// How far off it may be; `u32::MAX` (49 days and more) when that cannot be told.
    pub error_ms: u32,
    /// Where it comes from.
    pub source: Source,
}

/// The machine's clocks, passed in so that tests hold them still.
pub trait TimeSource: Send + Sync {
    /// Milliseconds since the gateway started.
    fn mono_ms(&self) -> u64;
    /// What the system's wall clock says now, and who vouches for it.
    fn wall(&self) -> (i64, u32, Source);
    /// This start came after that instant, in milliseconds since 1970: learnt only later.
    fn not_before(&self, _unix_ms: i64) {}
}

/// The gateway's clock: cheap to clone, shared by every part.
#[derive(Clone)]
pub struct Clock {
    boot: Arc<AtomicU32>,
    /// The number this start had before the card told it one; 0 when there was none.
    before: Arc<AtomicU32>,
    source: Arc<dyn TimeSource>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    ledger: Ledger,
    /// What was noted of this start.
    own: Vec<Note>,
}

impl Known {
    fn apply(&mut self, change: &Change) {
        let (Change::Keep(Note::Sample(sample)) | Change::Forget(sample)) = change else { return };
        let same =
            |note: &Note| matches!(note, Note::Sample(own) if (own.stamp, own.source) == (sample.stamp, sample.source));
        self.own.retain(|note| !same(note));
        if let Change::Keep(note) = change {
            self.own.push(*note);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("boot", &self.boot()).finish_non_exhaustive()
    }
}

impl Clock {
    /// The clock of start number `boot`, knowing `samples` of this and earlier boots.
    pub fn new(boot: u32, source: Arc<dyn TimeSource>, samples: impl IntoIterator<Item = Sample>) -> Self {
        Self::knowing(boot, source, samples.into_iter().map(Note::Sample))
    }

    /// The clock of start number `boot`, with all that is kept of this and earlier ones.
    pub fn knowing(boot: u32, source: Arc<dyn TimeSource>, notes: impl IntoIterator<Item = Note>) -> Self {
        let notes: Vec<Note> = notes.into_iter().collect();
        let own = notes.iter().filter(|note| note.boot() == boot).copied().collect();
        let known = Known { ledger: Ledger::of(notes), own };
        Self { boot: Arc::new(boot.into()), before: Arc::default(), source, known: Arc::new(Mutex::new(known)) }
    }

    /// This start has the number `boot` from now on, and `notes` are kept of others, the newest stored stamp among them:
    /// the card could be read at last. Stamps of before stay dated. Returns the number it had, and what is now to be kept
    /// of this start. Once.
    pub fn move_to(
        &self,
        boot: u32,
        notes: impl IntoIterator<Item = Note>,
        newest: Option<Stamp>,
        not_before_ms: Option<i64>,
    ) -> (u32, Vec<Note>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.boot.swap(boot, Ordering::Relaxed);
        self.before.store(before, Ordering::Relaxed);
        let renumbered = |note: &Note| match *note {
            Note::Sample(sample) => Note::Sample(Sample { stamp: Stamp { boot, ..sample.stamp }, ..sample }),
            Note::Start(start) => Note::Start(Start { boot, before: newest.or(start.before), ..start }),
        };
        // What bears the number of before stays dated: by the run of the machine or, where it does not tell, by samples.
        let of_machine = |note: &Note| matches!(note, Note::Start(start) if start.machine.is_some());
        let by_machine = known.own.iter().any(of_machine);
        let twin = |note: &Note| (!by_machine || of_machine(note)).then_some(*note);
        known.own = known.own.iter().map(renumbered).chain(known.own.iter().filter_map(twin)).collect();
        known.ledger = Ledger::of(notes.into_iter().chain(known.own.iter().copied()));
        let own = known.own.clone();
        drop(known);
        if let Some(not_before_ms) = not_before_ms {
            self.source.not_before(not_before_ms);
        }
        (before, own)
    }

    /// The number a start has now.
    fn number(&self, boot: u32) -> u32 {
        if boot != 0 && boot == self.before.load(Ordering::Relaxed) { self.boot() } else { boot }
    }

    /// Which start of the gateway this is.
    pub fn boot(&self) -> u32 {
        self.boot.load(Ordering::Relaxed)
    }

    /// Now, on our clock.
    pub fn now(&self) -> Stamp {
        Stamp { boot: self.boot(), mono_ms: self.source.mono_ms() }
    }

    /// Now, on the wall, by what is believed of this boot.
    pub fn wall_now(&self) -> WallTime {
        self.resolve(self.now()).unwrap_or_else(|| self.system_wall())
    }

    fn system_wall(&self) -> WallTime {
        let (unix_ms, error_ms, source) = self.source.wall();
        WallTime { unix_ms, error_ms, source }
    }

    /// Looks at the system's clock once; gives the sample to be kept, if it says something new: the first of this
    /// boot, a better source, a step, or a while since the last.
    pub fn observe(&self) -> Option<Sample> {
        self.look().into_iter().rev().find_map(|change| match change {
            Change::Keep(Note::Sample(sample)) => Some(sample),
            _ => None,
        })
    }

    /// Looks at the system's clock once; gives what is to be kept on the card, and what no longer is, in this order.
    pub fn look(&self) -> Vec<Change> {
        self.learn(self.sample())
    }

    /// Both clocks at one instant, or as near as a busy machine lets us.
    fn sample(&self) -> Sample {
        let mut tries = 0;
        loop {
            let stamp = self.now();
            let (unix_ms, error_ms, source) = self.source.wall();
            let between = self.now().mono_ms.saturating_sub(stamp.mono_ms);
            tries += 1;
            if between <= BETWEEN_LOOKS_MS || tries == 3 {
                let error_ms = error_ms.saturating_add(u32::try_from(between).unwrap_or(u32::MAX));
                return Sample { stamp, unix_ms, error_ms, source, straight_ms: 0 };
            }
        }
    }

    /// Takes a sample in; gives what is to be kept on the card, and what no longer is.
    pub fn learn(&self, mut sample: Sample) -> Vec<Change> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        sample.stamp.boot = self.number(sample.stamp.boot);
        let changes = known.ledger.learn(sample);
        changes.iter().for_each(|change| known.apply(change));
        changes
    }

    /// The wall time of a stamp: by the most trusted source of that run of the machine; where none was heard, by
    /// what is known of the runs before and after. `None` when nothing is known of that boot.
    pub fn resolve(&self, stamp: Stamp) -> Option<WallTime> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.ledger.resolve(Stamp { boot: self.number(stamp.boot), ..stamp })
    }
}

/// Looking at two clocks takes no longer than this, unless something came in between.
const BETWEEN_LOOKS_MS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn readings_taken_before_the_time_was_known_are_dated_once_it_is() {
        let time = HeldTime::at(1_000, Source::Unknown);
        let clock = Clock::new(3, time.clone(), []);
        assert!(clock.observe().is_some());
        let early = clock.now();
        time.advance(60_000);
        time.set_wall(1_800_000_060_000, Source::Ntp);
        assert!(clock.observe().is_some());

        let dated = clock.resolve(early).expect("known");
        assert_eq!((dated.unix_ms, dated.source), (1_800_000_000_000, Source::Ntp));
        assert_eq!(dated.error_ms, 50 + 6, "one minute at 100 ppm");
    }

    #[test]
    fn stamps_of_a_start_that_the_card_numbers_late_stay_dated_after_later_starts_too() {
        let time = HeldTime::at(1_000, Source::Unknown);
        let early_number = PROVISIONAL + 5;
        let machine = |id, up_ms| Some(Machine { id: [id; 16], up_ms });
        let start = |boot, machine| Note::Start(Start { boot, machine, before: None, built_ms: 0 });
        let clock = Clock::knowing(early_number, time.clone(), [start(early_number, machine(1, 70_000))]);
        clock.observe();
        let early = clock.now();
        let older = Sample {
            stamp: Stamp { boot: 6, mono_ms: 0 },
            unix_ms: 7_000,
            error_ms: 50,
            source: Source::Ntp,
            straight_ms: 0,
        };
        let (before, own) = clock.move_to(7, [Note::Sample(older)], None, None);
        assert_eq!((before, own.len()), (early_number, 3), "the start twice, and the sample");
        time.advance(60_000);
        time.set_wall(1_800_000_060_000, Source::Ntp);
        let learnt = clock.look();
        assert!(learnt.iter().any(|change| matches!(change, Change::Keep(note) if note.boot() == 7)));
        let kept = learnt.iter().filter_map(|change| if let Change::Keep(note) = change { Some(*note) } else { None });
        let notes: Vec<Note> = own.into_iter().chain(kept).collect();
        let other = Sample { stamp: Stamp { boot: 8, mono_ms: 0 }, unix_ms: 1_900_000_000_000, ..older };
        let next = [start(8, machine(2, 9_000)), Note::Sample(other)];
        let later = Clock::knowing(9, HeldTime::at(0, Source::Unknown), notes.into_iter().chain(next));
        for clock in [&clock, &later] {
            let dated = |stamp| clock.resolve(stamp).map(|wall| wall.unix_ms);
            assert_eq!(dated(early), Some(1_800_000_000_000));
            assert_eq!(dated(Stamp { boot: 7, ..early }), Some(1_800_000_000_000));
        }
        assert_eq!(clock.resolve(Stamp { boot: 6, mono_ms: 1 }).map(|wall| wall.unix_ms), Some(7_001));
    }

    #[test]
    fn an_untrusted_clock_never_overrides_a_trusted_one() {
        let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        clock.observe();
        time.advance(1_000);
        time.set_wall(0, Source::Unknown);
        assert_eq!(clock.observe(), None);
        assert_eq!(clock.wall_now().unix_ms, 1_800_000_001_000);
    }

    #[test]
    fn a_boot_of_which_nothing_is_known_has_no_wall_time() {
        let clock = Clock::new(2, HeldTime::at(0, Source::Unknown), []);
        assert_eq!(clock.resolve(Stamp { boot: 1, mono_ms: 5 }), None);
    }

    #[test]
    fn a_clock_that_agrees_with_itself_is_not_sampled_twice_within_six_hours() {
        let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        assert!(clock.observe().is_some());
        time.advance(6 * HOUR_MS - 1_000);
        assert!(clock.observe().is_none());
        time.advance(1_000);
        assert!(clock.observe().is_some());
    }
}
