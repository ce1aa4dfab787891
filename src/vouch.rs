//! Who says that the system's clock is right: its time service, or the battery-backed clock it was set from. Called by
//! the gateway's clock at each look. The kernel's own flag (`adjtimex`) cannot be read without `unsafe`.

mod chrony;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::UNIX_EPOCH,
};

use crate::{
    clock::{Source, Vouch},
    config::Trust,
};

/// systemd-timesyncd touches it each time it has compared the clock with a server; source: systemd,
/// `src/timesync/timesyncd-manager.c`.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";
/// Its `hctosys` is "1" where the kernel set the system's clock from this clock when it started, and `since_epoch` is what
/// it shows; source: Linux, `Documentation/ABI/testing/sysfs-class-rtc`.
const RTC: &str = "/sys/class/rtc/rtc0";

/// timesyncd steps the clock only when it is 0.4 s off, and slews it otherwise (`NTP_MAX_ADJUST`); a mobile link adds
/// some 100 ms.
const NTP_ERROR_MS: u32 = 500;
/// A year without having been set, at 20 ppm; source: NXP PCF85063A, Maxim DS3231, the better ones of the kind.
const RTC_ERROR_MS: u32 = 600_000;
/// What a crystal drifts since the clock was last compared, as in `clock`.
const DRIFT_PPM: u64 = 100;
/// Further than this in one look, beside monotonic time, and the clock was set by somebody.
const STEP_MS: u64 = 1_000;

/// What somebody says of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    source: Source,
    error_ms: u32,
    /// Tells this word from a later one of the same source.
    given: i64,
}

/// What the last look saw.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Wall time less monotonic time.
    offset: Option<i64>,
    /// The word it was believed on.
    word: Option<Word>,
    /// A word given before somebody set the clock to something else.
    void: Option<Word>,
}

/// Who vouches, as the operator has it.
pub fn by(trust: Trust) -> Vouch {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let battery = OnceLock::new();
    Box::new(move |unix_ms, mono_ms| {
        let word = match &trust {
            Trust::Always => return Some((Source::Ntp, NTP_ERROR_MS)),
            Trust::File(path) => touched(path, unix_ms),
            Trust::System => of_system(unix_ms, &battery),
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        judge(&mut seen, word, unix_ms, mono_ms).map(|word| (word.source, word.error_ms))
    })
}

/// The battery-backed clock is compared once, when it can be read and is first needed: it sits on a slow bus, and after a step of
/// the system's clock its word is void anyway.
fn of_system(unix_ms: i64, battery: &OnceLock<Option<Word>>) -> Option<Word> {
    let clock = Path::new(RTC);
    let compared = || match battery.get() {
        Some(word) => *word,
        None => {
            let shown = shown(clock)?;
            *battery.get_or_init(|| word_of_battery(shown, unix_ms))
        }
    };
    touched(Path::new(TIMESYNCD), unix_ms).or_else(chrony::tracking).or_else(compared)
}

/// The word of a file that is touched whenever the clock was compared.
fn touched(path: &Path, unix_ms: i64) -> Option<Word> {
    let touched = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let given = i64::try_from(touched.as_millis()).ok()?;
    // From the future: the clock was set back since.
    let age = u64::try_from(unix_ms.saturating_add(1_000).checked_sub(given)?).ok()?;
    let drift = u32::try_from(age / 1_000 * DRIFT_PPM / 1_000).unwrap_or(u32::MAX);
    Some(Word { source: Source::Ntp, error_ms: NTP_ERROR_MS.saturating_add(drift), given })
}

/// The word of a clock that the system's was set from and still agrees with. A flat battery shows 1970 or 2000: the system then
/// goes on from a later moment of its own (systemd's `clock-epoch`, timesyncd's last one), for which nobody vouches.
fn word_of_battery(shown_ms: i64, unix_ms: i64) -> Option<Word> {
    let agree = shown_ms.abs_diff(unix_ms) <= u64::from(RTC_ERROR_MS);
    agree.then_some(Word { source: Source::Rtc, error_ms: RTC_ERROR_MS, given: 0 })
}

/// What a clock shows that the kernel has set the system's from; `None` as long as it has not, or cannot be read.
fn shown(clock: &Path) -> Option<i64> {
    let said = |name| fs::read_to_string(clock.join(name)).ok();
    said("hctosys").filter(|text| text.trim() == "1")?;
    said("since_epoch")?.trim().parse::<i64>().ok()?.checked_mul(1_000)
}

/// A word holds until the clock is set to something else without a new one.
fn judge(seen: &mut Seen, word: Option<Word>, unix_ms: i64, mono_ms: u64) -> Option<Word> {
    let offset = unix_ms.saturating_sub(i64::try_from(mono_ms).unwrap_or(i64::MAX));
    let stepped = seen.offset.is_some_and(|before| before.abs_diff(offset) > STEP_MS);
    seen.offset = Some(offset);
    let same = |other: Option<Word>| {
        word.zip(other).is_some_and(|(new, old)| (new.source, new.given) == (old.source, old.given))
    };
    if stepped && same(seen.word) {
        seen.void = seen.word;
    }
    seen.word = word;
    word.filter(|_| !same(seen.void))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn word(given: i64) -> Option<Word> {
        Some(Word { source: Source::Ntp, error_ms: 500, given })
    }

    #[test]
    fn a_clock_that_somebody_sets_by_hand_loses_the_word_of_its_time_service_until_the_next() {
        let (mut seen, day) = (Seen::default(), 86_400_000);
        assert!(judge(&mut seen, word(1), NOW, 0).is_some());
        assert!(judge(&mut seen, word(1), NOW + 10_000, 10_000).is_some());
        assert!(judge(&mut seen, word(1), NOW + 20_000 - day, 20_000).is_none(), "a day back");
        assert!(judge(&mut seen, word(1), NOW + 30_000 - day, 30_000).is_none(), "still");
        assert!(judge(&mut seen, word(2), NOW + 40_000, 40_000).is_some(), "set right by the service itself");
        assert!(judge(&mut seen, word(2), NOW + 50_000, 50_000).is_some());
    }

    #[test]
    fn a_file_vouches_from_when_it_was_touched_with_what_a_crystal_drifts_since() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("synchronized");
        assert_eq!(touched(&path, NOW), None);
        let file = fs::File::create(&path).expect("made");
        let touched_at = |ms: u64| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)).expect("set");
        touched_at(NOW as u64);
        assert_eq!(touched(&path, NOW), word(NOW));
        assert_eq!(touched(&path, NOW + 86_400_000).map(|word| word.error_ms), Some(500 + 8_640), "a day at 100 ppm");
        assert_eq!(touched(&path, NOW - 86_400_000), None, "touched tomorrow: the clock was set back");
    }

    #[test]
    fn a_battery_backed_clock_is_read_only_where_the_kernel_used_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let tells = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        assert_eq!(shown(folder.path()), None);
        tells("since_epoch", "1800000000\n");
        assert_eq!(shown(folder.path()), None);
        tells("hctosys", "0\n");
        assert_eq!(shown(folder.path()), None);
        tells("hctosys", "1\n");
        assert_eq!(shown(folder.path()), Some(NOW));
        for unreadable in ["\n", "9223372036854775807\n"] {
            tells("since_epoch", unreadable);
            assert_eq!(shown(folder.path()), None, "{unreadable:?}");
        }
    }

    #[test]
    fn a_battery_backed_clock_that_went_flat_vouches_for_nothing() {
        assert_eq!(word_of_battery(NOW - 2_000, NOW).map(|word| word.source), Some(Source::Rtc));
        for flat in [0, 946_684_800_000, i64::MAX, i64::MIN] {
            assert_eq!(word_of_battery(flat, NOW), None, "{flat}");
        }
    }
}
