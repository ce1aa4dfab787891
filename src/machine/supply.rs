//! Whether the supply holds: a Raspberry Pi watches its 5 V and says when they fall below some 4.63 V.
//!
//! Two kernels, two ways. Mainline: a voltage sensor named `rpi_volt` with an alarm the driver renews every two seconds.
//! Raspberry Pi's own, where that driver is missing: `get_throttled` of the firmware, in bits.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Kernel, said};
use crate::clock::{Clock, Stamp};

/// Under-voltage now, and at some time since it was last asked.
/// Source: <https://www.raspberrypi.com/documentation/computers/os.html#get_throttled>.
const LOW_NOW: u32 = 1;
const HAS_BEEN_LOW: u32 = 1 << 16;
/// So long without a fall, and the supply is good again.
const GOOD_AFTER_MS: i64 = 24 * 3_600_000;
/// A supply that falters every minute must not wear the card: it is written down once so long.
const KEEP_EVERY_MS: u64 = 3_600_000;

/// What the machine says of its supply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Too low now.
    low: bool,
    /// Has been too low; may stay set for as long as the machine runs.
    has_been: bool,
}

/// Asks; `None` on a machine that does not watch its supply. A Zero's firmware answers too, but nothing on the board
/// measures. Source: <https://www.raspberrypi.com/documentation/computers/raspberry-pi.html>, "Power supply warnings".
pub(super) fn gauge(kernel: &Kernel) -> Option<Reading> {
    // Linux, `Documentation/ABI/testing/sysfs-firmware-ofw`: the device tree, its texts ended by a zero.
    let model = said(&kernel.sys.join("firmware/devicetree/base/model"));
    if model.is_some_and(|model| model.contains("Zero")) {
        return None;
    }
    sensor(kernel).or_else(|| firmware(kernel))
}

/// Source: Linux, `drivers/hwmon/raspberrypi-hwmon.c`.
fn sensor(kernel: &Kernel) -> Option<Reading> {
    let sensors = fs::read_dir(kernel.sys.join("class/hwmon")).ok()?;
    let folders: Vec<PathBuf> = sensors.flatten().map(|sensor| sensor.path()).collect();
    let voltage = folders.into_iter().find(|folder| said(&folder.join("name")).as_deref() == Some("rpi_volt"))?;
    let low = said(&voltage.join("in0_lcrit_alarm"))? != "0";
    Some(Reading { low, has_been: low })
}

fn firmware(kernel: &Kernel) -> Option<Reading> {
    let text = said(&kernel.sys.join("devices/platform/soc/soc:firmware/get_throttled"))?;
    let bits = u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
    Some(Reading { low: bits & LOW_NOW != 0, has_been: bits & (LOW_NOW | HAS_BEEN_LOW) != 0 })
}

/// What is known of the supply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// Too low now.
    #[serde(skip)]
    pub low: bool,
    /// How often it fell, over the life of the store.
    pub falls: u64,
    /// When it was last too low.
    pub last: Option<Stamp>,
}

impl Supply {
    /// What is wrong with it: as long as it is low, and a day after.
    pub(super) fn wrong(&self, clock: &Clock) -> Option<String> {
        let last = self.last.filter(|last| self.low || is_recent(*last, clock))?;
        let state = if self.low { "too low now" } else { "too low within a day" };
        Some(format!("the 5 V are {state}; {} times so far, last in start {}", self.falls, last.boot))
    }
}

/// Within a day; where the time between is not known, in this start or the one before.
fn is_recent(last: Stamp, clock: &Clock) -> bool {
    let now = clock.now();
    match (clock.resolve(last), clock.resolve(now)) {
        (Some(then), Some(wall)) => wall.unix_ms.saturating_sub(then.unix_ms) < GOOD_AFTER_MS,
        _ => last.boot.saturating_add(1) >= now.boot,
    }
}

/// Counts what is seen.
#[derive(Debug, Default)]
pub(super) struct Watch {
    supply: Supply,
    before: Reading,
    kept_ms: Option<u64>,
    is_news: bool,
}

impl Watch {
    /// Goes on from what was kept.
    pub(super) fn of(kept: Option<Supply>) -> Self {
        Self { supply: kept.unwrap_or_default(), ..Self::default() }
    }

    /// One look at `now`.
    pub(super) fn look(&mut self, reading: Reading, now: Stamp) {
        let falls = (reading.low && !self.before.low) || (reading.has_been && !self.before.has_been);
        self.supply.falls += u64::from(falls);
        if falls || reading.low {
            self.supply.last = Some(now);
            self.is_news |= falls;
        }
        self.supply.low = reading.low;
        self.before = reading;
    }

    pub(super) fn supply(&self) -> Supply {
        self.supply
    }

    /// What is to be written down: news, once an hour at most, and at the end.
    pub(super) fn due(&mut self, now: Stamp, last: bool) -> Option<Supply> {
        let is_time = self.kept_ms.is_none_or(|kept| now.mono_ms.saturating_sub(kept) >= KEEP_EVERY_MS);
        if !self.is_news || !(is_time || last) {
            return None;
        }
        (self.is_news, self.kept_ms) = (false, Some(now.mono_ms));
        Some(self.supply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{HeldTime, Source};

    fn kernel(place: &tempfile::TempDir) -> Kernel {
        Kernel { sys: place.path().into(), proc: place.path().into() }
    }

    fn write(place: &tempfile::TempDir, path: &str, text: &str) {
        let path = place.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn at(mono_ms: u64) -> Stamp {
        Stamp { boot: 3, mono_ms }
    }

    const LOW: Reading = Reading { low: true, has_been: true };
    const GOOD: Reading = Reading { low: false, has_been: false };

    #[test]
    fn the_mainline_sensor_is_found_by_its_name_and_read() {
        let place = tempfile::tempdir().expect("a folder");
        assert_eq!(gauge(&kernel(&place)), None, "not a Raspberry Pi");
        write(&place, "class/hwmon/hwmon0/name", "cpu_thermal\n");
        write(&place, "class/hwmon/hwmon1/name", "rpi_volt\n");
        write(&place, "class/hwmon/hwmon1/in0_lcrit_alarm", "0\n");
        assert_eq!(gauge(&kernel(&place)), Some(GOOD));
        write(&place, "class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        assert_eq!(gauge(&kernel(&place)), Some(LOW));
        write(&place, "firmware/devicetree/base/model", "Raspberry Pi Zero 2 W Rev 1.0\0");
        assert_eq!(gauge(&kernel(&place)), None, "its board measures nothing");
        write(&place, "firmware/devicetree/base/model", "Raspberry Pi 3 Model B\0");
        assert_eq!(gauge(&kernel(&place)), Some(LOW));
    }

    #[test]
    fn without_the_sensor_the_bits_of_the_firmware_are_read() {
        let place = tempfile::tempdir().expect("a folder");
        let path = "devices/platform/soc/soc:firmware/get_throttled";
        for (text, low, has_been) in
            [("0\n", false, false), ("50005\n", true, true), ("0x50000\n", false, true), ("e0008\n", false, false)]
        {
            write(&place, path, text);
            assert_eq!(gauge(&kernel(&place)), Some(Reading { low, has_been }), "{text:?}");
        }
        write(&place, path, "nonsense");
        assert_eq!(gauge(&kernel(&place)), None);
    }

    #[test]
    fn a_fall_is_counted_once_and_one_nobody_saw_by_what_it_left() {
        let mut watch = Watch::of(Some(Supply { low: false, falls: 4, last: None }));
        for (ms, reading) in [(0, GOOD), (2_000, LOW), (4_000, LOW), (6_000, GOOD)] {
            watch.look(reading, at(ms));
        }
        assert_eq!(watch.supply(), Supply { low: false, falls: 5, last: Some(at(4_000)) });
        let sticky = Reading { low: false, has_been: true };
        watch.look(sticky, at(8_000));
        watch.look(sticky, at(10_000));
        assert_eq!(watch.supply(), Supply { low: false, falls: 6, last: Some(at(8_000)) });
    }

    #[test]
    fn a_supply_that_falters_all_day_is_written_down_once_an_hour() {
        let mut watch = Watch::default();
        let mut written = 0;
        for second in 0..24 * 3_600 {
            watch.look(if second % 60 == 0 { LOW } else { GOOD }, at(second * 1_000));
            written += u32::from(watch.due(at(second * 1_000), false).is_some());
        }
        assert_eq!(watch.supply().falls, 24 * 60);
        assert_eq!(written, 24);
        assert!(watch.due(at(24 * 3_600_000), true).is_some(), "what is left, at the end");
        assert!(watch.due(at(24 * 3_600_000), true).is_none());
    }

    #[test]
    fn a_weak_supply_is_told_for_a_day_after_its_last_fall() {
        let time = HeldTime::at(1_795_305_600_000, Source::Ntp);
        let clock = Clock::new(3, time.clone(), []);
        let _ = clock.look();
        let mut watch = Watch::default();
        watch.look(LOW, clock.now());
        assert!(watch.supply().wrong(&clock).is_some_and(|detail| detail.contains("now")));
        time.advance(23 * 3_600_000);
        watch.look(GOOD, clock.now());
        assert!(watch.supply().wrong(&clock).is_some_and(|detail| detail.contains("within a day")));
        time.advance(2 * 3_600_000);
        assert_eq!(watch.supply().wrong(&clock), None);
    }

    #[test]
    fn a_machine_whose_supply_fell_before_it_started_again_without_the_time_says_so() {
        let clock = Clock::new(3, HeldTime::at(0, Source::Unknown), []);
        let fell = |boot| Supply { low: false, falls: 1, last: Some(Stamp { boot, mono_ms: 5 }) };
        assert!(fell(2).wrong(&clock).is_some());
        assert_eq!(fell(1).wrong(&clock), None);
    }
}
