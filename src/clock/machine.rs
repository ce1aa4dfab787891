//! The clocks of the machine, and one that stands still for tests.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::{Machine, Source, TimeSource};

/// The day of the release, for a build that is not told its own: 2026-11-01. Moved on with each release.
const RELEASED_MS: i64 = 1_793_491_200_000;

/// When this gateway was built, milliseconds since 1970 UTC: `SOURCE_DATE_EPOCH` of the build, or the day of the
/// release where it is later. Source: <https://reproducible-builds.org/specs/source-date-epoch/>.
pub const fn built_ms() -> i64 {
    let told = match option_env!("SOURCE_DATE_EPOCH") {
        Some(text) => seconds(text).saturating_mul(1_000),
        None => 0,
    };
    if told > RELEASED_MS { told } else { RELEASED_MS }
}

/// A number of seconds; 0 for anything else.
const fn seconds(text: &str) -> i64 {
    let mut digits = text.as_bytes();
    let mut number: i64 = 0;
    while let [digit, rest @ ..] = digits {
        if !digit.is_ascii_digit() || number > i64::MAX / 100_000 {
            return 0;
        }
        number = number * 10 + (*digit - b'0') as i64;
        digits = rest;
    }
    number
}

/// How long the machine has been running, sleep included; source: clock_gettime(2), `CLOCK_BOOTTIME`.
fn up() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

/// The run of the machine that a clock counting from now is in.
pub fn machine(time: &SystemTime) -> Option<Machine> {
    let up_ms = u64::try_from(time.started_up?.as_millis()).ok()?;
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(Machine { id: uuid(id.trim())?, up_ms })
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, d| n << 4 | *d as u8)).collect();
    bytes.try_into().ok()
}

/// Tells who vouches for a wall time that the system's clock shows, in milliseconds since 1970, and how far off it may
/// be. Given that time and the monotonic one of the same look.
pub type Vouch = Box<dyn Fn(i64, u64) -> Option<(Source, u32)> + Send + Sync>;

/// The machine's own clocks.
pub struct SystemTime {
    started: Instant,
    started_up: Option<Duration>,
    /// The wall clock never starts before this: the build, or the newest stored reading.
    not_before_ms: i64,
    vouch: Vouch,
}

impl std::fmt::Debug for SystemTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemTime").field("not_before_ms", &self.not_before_ms).finish_non_exhaustive()
    }
}

impl SystemTime {
    /// Counts from now. The wall clock never starts before `not_before_ms` nor before the build.
    pub fn start(not_before_ms: i64, vouch: Vouch) -> Self {
        Self { started: Instant::now(), started_up: up(), not_before_ms: not_before_ms.max(built_ms()), vouch }
    }
}

impl TimeSource for SystemTime {
    /// A machine that slept was asleep for so long all the same.
    fn mono_ms(&self) -> u64 {
        let apart = self.started_up.and_then(|started| up()?.checked_sub(started));
        u64::try_from(apart.unwrap_or_else(|| self.started.elapsed()).as_millis()).unwrap_or(u64::MAX)
    }

    fn wall(&self) -> (i64, u32, Source) {
        let unix_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        // Whoever is vouched for is believed, even against a reading that an untrusted clock once dated in the future;
        // but nobody can vouch for a time before this program was made.
        match (self.vouch)(unix_ms, self.mono_ms()).filter(|_| unix_ms >= built_ms()) {
            Some((source, error_ms)) => (unix_ms, error_ms, source),
            None => (no_earlier(unix_ms, self.not_before_ms, self.mono_ms()), u32::MAX, Source::Unknown),
        }
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
    pub fn at(unix_ms: i64, source: Source) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(Mutex::new((0, unix_ms, source))))
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
    fn a_clock_that_lags_goes_on_from_the_newest_reading_and_does_not_stand_still() {
        assert_eq!(no_earlier(0, 1_800_000_000_000, 5_000), 1_800_000_005_000);
        assert_eq!(no_earlier(1_900_000_000_000, 1_800_000_000_000, 5_000), 1_900_000_000_000);
    }

    fn vouched(source: Source) -> Vouch {
        Box::new(move |_, _| Some((source, 100)))
    }

    #[test]
    fn a_trusted_clock_is_believed_against_a_reading_dated_in_the_future() {
        let poisoned = SystemTime::start(i64::MAX, vouched(Source::Ntp));
        assert_eq!(poisoned.wall().2, Source::Ntp);
        assert!(poisoned.wall().0 < i64::MAX);
    }

    #[test]
    fn without_anybody_s_word_the_clock_starts_at_the_build_and_runs() {
        let time = SystemTime::start(0, Box::new(|_, _| None));
        let (unix_ms, error_ms, source) = time.wall();
        assert!(unix_ms >= built_ms() && error_ms == u32::MAX && source == Source::Unknown);
    }

    #[test]
    fn the_moment_of_the_build_is_read_from_digits_alone() {
        assert_eq!(seconds("1795305600"), 1_795_305_600);
        for bad in ["", "-5", "17x", " 1", "99999999999999999999"] {
            assert_eq!(seconds(bad), 0, "{bad:?}");
        }
        assert!(built_ms() >= RELEASED_MS);
    }

    #[test]
    fn the_machine_tells_which_run_it_is_in_and_how_long_it_has_been_up() {
        let (first, second) = (SystemTime::start(0, vouched(Source::Ntp)), SystemTime::start(0, vouched(Source::Ntp)));
        let (first, second) = (machine(&first).expect("told"), machine(&second).expect("told"));
        assert_eq!(first.id, second.id);
        assert!(0 < first.up_ms && first.up_ms <= second.up_ms);
        assert_eq!(uuid("6fd7b0ac-9c1e-4f0a-8d3e-0123456789ab").map(|id| (id[0], id[15])), Some((0x6f, 0xab)));
        assert_eq!(uuid("6fd7"), None);
    }
}
