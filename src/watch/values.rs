//! Values that say something by themselves: outside their range, stale air.

use crate::{
    config::watch::WatchSettings,
    reading::{Point, Quality, Reading, Why},
};

/// Readings in a row that raise, and that close: a value that plays around its limit does not flap.
const RAISE_AFTER: u8 = 2;
const CLOSE_AFTER: u8 = 3;

/// A point against its range.
#[derive(Debug, Default)]
pub(super) struct Range {
    outside: u8,
    inside: u8,
}

/// What a reading changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// It is wrong, with the particulars.
    Wrong(String),
    /// It is over.
    Over,
    /// Neither.
    None,
}

impl Range {
    /// Takes a reading in; one without a value says nothing.
    pub(super) fn take(&mut self, reading: &Reading, point: &Point) -> News {
        let Some(value) = reading.value else { return News::None };
        let beyond = point.range.as_ref().is_some_and(|range| !range.contains(&value));
        if beyond || reading.quality == Quality::Suspect(Why::OutOfRange) {
            self.inside = 0;
            self.outside = self.outside.saturating_add(1);
            return if self.outside >= RAISE_AFTER { News::Wrong(told(value, point)) } else { News::None };
        }
        self.outside = 0;
        self.inside = self.inside.saturating_add(1);
        if self.inside >= CLOSE_AFTER { News::Over } else { News::None }
    }
}

fn told(value: f64, point: &Point) -> String {
    // UCUM writes "no unit" as 1.
    let unit = if point.unit == "1" { String::new() } else { format!(" {}", point.unit) };
    let Some(range) = &point.range else { return format!("{value}{unit}") };
    format!("{value}{unit}, {} to {}{unit} was expected", range.start(), range.end())
}

/// The air of a room by its CO2. Décrets 2022-1689 and 2022-1690: satisfactory below 800 ppm, to be improved above 1500.
#[derive(Debug, Default)]
pub(super) struct Air {
    above_since: Option<u64>,
}

impl Air {
    /// Takes a reading in; only good ones count, a probe that warms up says nothing.
    pub(super) fn take(&mut self, reading: &Reading, settings: &WatchSettings) -> News {
        let (Some(ppm), Quality::Good) = (reading.value, reading.quality) else { return News::None };
        let now = reading.stamp.mono_ms;
        if ppm <= settings.co2_limit {
            self.above_since = None;
            return if ppm < settings.co2_clear { News::Over } else { News::None };
        }
        let lasted = now.saturating_sub(*self.above_since.get_or_insert(now));
        if u128::from(lasted) < settings.co2_for.as_millis() {
            return News::None;
        }
        let minutes = settings.co2_for.as_secs() / 60;
        News::Wrong(format!("{ppm:.0} ppm of CO2, above {:.0} ppm for more than {minutes} min", settings.co2_limit))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{
        clock::Stamp,
        config::watch,
        reading::{Kind, Sharing},
    };

    fn reading(minute: u64, value: f64, quality: Quality) -> Reading {
        let point = "air/hall/co2".parse().expect("a name");
        Reading { point, stamp: Stamp { boot: 1, mono_ms: minute * 60_000 }, value: Some(value), quality }
    }

    #[test]
    fn a_value_outside_its_range_is_told_after_two_and_over_after_three() {
        let point = Point {
            id: "t/hall".parse().expect("a name"),
            label: String::new(),
            unit: "Cel".to_owned(),
            kind: Kind::Gauge,
            decimals: 1,
            interval: None,
            range: Some(-30.0..=60.0),
            sharing: Sharing::Internal,
        };
        let mut range = Range::default();
        let mut take = |value, quality| match range.take(&reading(0, value, quality), &point) {
            News::Wrong(_) => '!',
            News::Over => '.',
            News::None => '-',
        };
        let good = Quality::Good;
        let told: String =
            [20.0, 85.0, 20.0, 85.0, 85.0, 20.0, 20.0, 85.0, 20.0, 20.0, 20.0].map(|v| take(v, good)).iter().collect();
        assert_eq!(told, "----!-----.");
        let suspect = Quality::Suspect(Why::OutOfRange);
        assert_eq!((take(20.0, suspect), take(20.0, suspect)), ('-', '!'), "the driver knows better");
    }

    #[test]
    fn air_is_stale_after_ten_minutes_above_the_limit_and_good_again_below_the_lower_one() {
        let settings = watch::read(None, TimeZone::UTC);
        let mut air = Air::default();
        let mut take = |minute, ppm| match air.take(&reading(minute, ppm, Quality::Good), &settings) {
            News::Wrong(_) => '!',
            News::Over => '.',
            News::None => '-',
        };
        assert_eq!([take(0, 1_600.0), take(9, 1_700.0), take(10, 1_501.0)], ['-', '-', '!']);
        assert_eq!([take(11, 1_400.0), take(12, 1_000.0), take(13, 999.0)], ['-', '-', '.']);
        assert_eq!([take(20, 1_600.0), take(25, 1_500.0), take(31, 1_600.0)], ['-', '-', '-'], "a break starts anew");
    }

    #[test]
    fn a_probe_that_warms_up_raises_nothing() {
        let settings = watch::read(None, TimeZone::UTC);
        let mut air = Air::default();
        for minute in 0..60 {
            let warming = reading(minute, 5_000.0, Quality::Suspect(Why::WarmingUp));
            assert_eq!(air.take(&warming, &settings), News::None);
        }
    }
}
