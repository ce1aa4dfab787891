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
    cmp::Ordering,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use self::ledger::Ledger;
pub use self::machine::{HeldTime, SystemTime, Vouch, built_ms, machine};

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
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
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
}

/// The gateway's clock: cheap to clone, shared by every part.
#[derive(Clone)]
pub struct Clock {
    boot: u32,
    source: Arc<dyn TimeSource>,
    known: Arc<Mutex<Ledger>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Clock {
    /// The clock of start number `boot`, knowing `samples` of this and earlier boots.
    pub fn new(boot: u32, source: Arc<dyn TimeSource>, samples: impl IntoIterator<Item = Sample>) -> Self {
        Self::knowing(boot, source, samples.into_iter().map(Note::Sample))
    }

    /// The clock of start number `boot`, with all that is kept of this and earlier ones.
    pub fn knowing(boot: u32, source: Arc<dyn TimeSource>, notes: impl IntoIterator<Item = Note>) -> Self {
        Self { boot, source, known: Arc::new(Mutex::new(Ledger::of(notes))) }
    }

    /// Which start of the gateway this is.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Now, on our clock.
    pub fn now(&self) -> Stamp {
        Stamp { boot: self.boot, mono_ms: self.source.mono_ms() }
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
    pub fn learn(&self, sample: Sample) -> Vec<Change> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).learn(sample)
    }

    /// The wall time of a stamp: by the most trusted source of that run of the machine; where none was heard, by
    /// what is known of the runs before and after. `None` when nothing is known of that boot.
    pub fn resolve(&self, stamp: Stamp) -> Option<WallTime> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).resolve(stamp)
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
