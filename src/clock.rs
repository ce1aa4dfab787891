//! When: a Raspberry Pi has no clock battery, so readings carry a boot number and monotonic milliseconds,
//! and become wall time when they are read.
//!
//! The samples that tie the two are kept by whoever holds a [`Clock`]; this file decides nothing about disks.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

/// An instant on the gateway's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Which start of the gateway, counted from 1.
    pub boot: u32,
    /// Milliseconds since that start; never steps.
    pub mono_ms: u64,
}

/// Where a wall time comes from, from least to most trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
}

impl Source {
    /// Whether schedules and expiry may rely on it.
    pub fn is_trusted(self) -> bool {
        self > Self::Unknown
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
}

/// An instant on the wall, with what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since 1970 UTC.
    pub unix_ms: i64,
    /// How far off it may be.
    pub error_ms: u32,
    /// Where it comes from.
    pub source: Source,
}

/// A crystal drifts up to 100 ppm between samples; source: Raspberry Pi 54 MHz oscillator, 50 ppm, doubled for heat.
const DRIFT_PPM: u64 = 100;

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
    samples: Arc<Mutex<BTreeMap<u32, Vec<Sample>>>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Clock {
    /// The clock of start number `boot`, knowing `samples` of this and earlier boots.
    pub fn new(boot: u32, source: Arc<dyn TimeSource>, samples: impl IntoIterator<Item = Sample>) -> Self {
        let mut by_boot = BTreeMap::<u32, Vec<Sample>>::new();
        for sample in samples {
            by_boot.entry(sample.stamp.boot).or_default().push(sample);
        }
        Self { boot, source, samples: Arc::new(Mutex::new(by_boot)) }
    }

    /// Which start of the gateway this is.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Now, on our clock.
    pub fn now(&self) -> Stamp {
        Stamp { boot: self.boot, mono_ms: self.source.mono_ms() }
    }

    /// Now, on the wall, by the best sample of this boot.
    pub fn wall_now(&self) -> WallTime {
        self.resolve(self.now()).unwrap_or_else(|| self.system_wall())
    }

    fn system_wall(&self) -> WallTime {
        let (unix_ms, error_ms, source) = self.source.wall();
        WallTime { unix_ms, error_ms, source }
    }

    /// Looks at the system's clock once and remembers the sample if it says something new: the first of this boot,
    /// a better source, or a step. Returns the sample to be stored, if any.
    pub fn observe(&self) -> Option<Sample> {
        let stamp = self.now();
        let (unix_ms, error_ms, source) = self.source.wall();
        let sample = Sample { stamp, unix_ms, error_ms, source };
        self.learn(sample).then_some(sample)
    }

    /// Takes a sample in, unless it says nothing new. True when it was kept.
    pub fn learn(&self, sample: Sample) -> bool {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let of_boot = samples.entry(sample.stamp.boot).or_default();
        if !says_something_new(of_boot, sample) {
            return false;
        }
        of_boot.push(sample);
        true
    }

    /// The wall time of a stamp: by the most trusted source of that boot, and of its samples the nearest.
    /// `None` when nothing is known of that boot.
    pub fn resolve(&self, stamp: Stamp) -> Option<WallTime> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let of_boot = samples.get(&stamp.boot)?;
        let best = of_boot.iter().map(|s| s.source).max()?;
        of_boot
            .iter()
            .filter(|sample| sample.source == best)
            .min_by_key(|sample| sample.stamp.mono_ms.abs_diff(stamp.mono_ms))
            .map(|sample| extrapolate(*sample, stamp))
    }
}

fn extrapolate(sample: Sample, stamp: Stamp) -> WallTime {
    let apart = stamp.mono_ms as i64 - sample.stamp.mono_ms as i64;
    let drift = apart.unsigned_abs() * DRIFT_PPM / 1_000_000;
    WallTime {
        unix_ms: sample.unix_ms + apart,
        error_ms: sample.error_ms.saturating_add(u32::try_from(drift).unwrap_or(u32::MAX)),
        source: sample.source,
    }
}

/// A clock that agrees with itself is sampled so often: 1 460 samples a year, and at most 1.1 s of drift in between.
const SAMPLE_EVERY_MS: u64 = 6 * 3_600_000;

/// New is: nothing of that rank yet, more than a second off what was believed, or a while since the last.
fn says_something_new(known: &[Sample], sample: Sample) -> bool {
    let same = known.iter().filter(|k| k.source == sample.source);
    let Some(nearest) = same.min_by_key(|k| k.stamp.mono_ms.abs_diff(sample.stamp.mono_ms)) else {
        return known.iter().all(|k| k.source <= sample.source);
    };
    let believed = extrapolate(*nearest, sample.stamp);
    believed.unix_ms.abs_diff(sample.unix_ms) > 1_000
        || nearest.stamp.mono_ms.abs_diff(sample.stamp.mono_ms) >= SAMPLE_EVERY_MS
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemTime {
    started: Instant,
    /// The wall clock never starts before this: the build, or the newest stored reading.
    not_before_ms: i64,
    trusted: fn() -> bool,
}

impl SystemTime {
    /// Counts from now. `trusted` tells whether the system's clock is disciplined.
    pub fn start(not_before_ms: i64, trusted: fn() -> bool) -> Self {
        Self { started: Instant::now(), not_before_ms, trusted }
    }
}

impl TimeSource for SystemTime {
    fn mono_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall(&self) -> (i64, u32, Source) {
        let unix_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        // Whoever is vouched for is believed, even against a reading that an untrusted clock once dated in the future.
        if (self.trusted)() {
            return (unix_ms, 50, Source::Ntp);
        }
        (no_earlier(unix_ms, self.not_before_ms, self.mono_ms()), u32::MAX, Source::Unknown)
    }
}

/// An untrusted clock that lags goes on from the newest reading at its own pace; it never stands still.
fn no_earlier(unix_ms: i64, not_before_ms: i64, mono_ms: u64) -> i64 {
    unix_ms.max(not_before_ms.saturating_add(i64::try_from(mono_ms).unwrap_or(i64::MAX)))
}

/// A clock that stands still until told to move, for tests.
#[derive(Debug)]
pub struct HeldTime(Mutex<(u64, i64, Source)>);

impl HeldTime {
    /// Standing at `unix_ms`, monotonic 0, with the given source.
    pub fn at(unix_ms: i64, source: Source) -> Arc<Self> {
        Arc::new(Self(Mutex::new((0, unix_ms, source))))
    }

    /// Moves both clocks on.
    pub fn advance(&self, ms: u64) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 += ms;
        now.1 += ms as i64;
    }

    /// Steps the wall clock alone, as NTP does at first contact.
    pub fn set_wall(&self, unix_ms: i64, source: Source) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.1 = unix_ms;
        now.2 = source;
    }
}

impl TimeSource for HeldTime {
    fn mono_ms(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> (i64, u32, Source) {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (now.1, 50, now.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_clock_that_lags_goes_on_from_the_newest_reading_and_does_not_stand_still() {
        assert_eq!(no_earlier(0, 1_800_000_000_000, 5_000), 1_800_000_005_000);
        assert_eq!(no_earlier(1_900_000_000_000, 1_800_000_000_000, 5_000), 1_900_000_000_000);
    }

    #[test]
    fn a_trusted_clock_is_believed_against_a_reading_dated_in_the_future() {
        let poisoned = SystemTime::start(i64::MAX, || true);
        assert_eq!(poisoned.wall().2, Source::Ntp);
        assert!(poisoned.wall().0 < i64::MAX);
    }

    #[test]
    fn a_clock_that_agrees_with_itself_is_not_sampled_twice_within_six_hours() {
        let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        assert!(clock.observe().is_some());
        time.advance(SAMPLE_EVERY_MS - 1_000);
        assert!(clock.observe().is_none());
        time.advance(1_000);
        assert!(clock.observe().is_some());
    }
}
