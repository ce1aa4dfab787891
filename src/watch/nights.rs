//! The nights before: hourly litres out of the archive, by the commune's local time. Reads the card; waits for a
//! trusted clock.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use tracing::info;

use super::water::{NightRule, night_flow};
use crate::{
    clock::WallTime,
    config::watch::WatchSettings,
    reading::PointId,
    store::{Archive, Bucket, StoreError},
};

/// A night is judged so long after its end: its readings are on the card by then.
const SETTLING: SignedDuration = SignedDuration::from_mins(5);
/// The roll-up that fits every time zone's hours.
const QUARTER_MS: i64 = 900_000;
const HOUR_MS: i64 = 3_600_000;
/// After the card could not be read.
const RETRY_MS: u64 = 600_000;

/// Which night is due.
#[derive(Debug, Default)]
pub(super) struct Nights {
    judged: Option<Date>,
    not_before_ms: u64,
    waiting: bool,
}

impl Nights {
    /// The date whose night is over and has not been judged. None while nobody vouches for the clock.
    pub(super) fn due(&mut self, wall: WallTime, mono_ms: u64, settings: &WatchSettings) -> Option<Date> {
        let trusted = wall.source.is_trusted();
        if !trusted && !self.waiting {
            info!("The watch over water at night waits for a trusted clock");
        }
        self.waiting = !trusted;
        if !trusted || mono_ms < self.not_before_ms {
            return None;
        }
        last_night(wall.unix_ms, settings).filter(|date| self.judged != Some(*date))
    }

    /// That night was judged.
    pub(super) fn done(&mut self, date: Date) {
        self.judged = Some(date);
    }

    /// That night could not be read: not before a while.
    pub(super) fn later(&mut self, mono_ms: u64) {
        self.not_before_ms = mono_ms.saturating_add(RETRY_MS);
    }
}

fn last_night(unix_ms: i64, settings: &WatchSettings) -> Option<Date> {
    let now = Timestamp::from_millisecond(unix_ms).ok()?;
    let today = now.to_zoned(settings.time_zone.clone()).date();
    let over = hour_of(today, settings.night.1, &settings.time_zone)?.checked_add(SETTLING).ok()?;
    if now >= over { Some(today) } else { today.yesterday().ok() }
}

/// An hour of a local day; in the hour that spring skips, the one after it.
fn hour_of(date: Date, hour: u8, zone: &TimeZone) -> Option<Timestamp> {
    let (date, hour) = if hour >= 24 { (date.tomorrow().ok()?, 0) } else { (date, i8::try_from(hour).ok()?) };
    Some(date.at(hour, 0, 0, 0).to_zoned(zone.clone()).ok()?.timestamp())
}

/// What the last nights say of a meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// Every night leaked; the least of their least hours, in L/h.
    Leak(f64),
    /// The last night was dry, or not all of them leaked.
    Dry,
    /// Of the last night nothing is known.
    Unknown,
}

/// Judges the nights up to `date`. `litres` is what one unit of the point holds.
pub(super) fn judge(
    archive: &dyn Archive,
    point: &PointId,
    litres: f64,
    date: Date,
    settings: &WatchSettings,
) -> Result<Outcome, StoreError> {
    // A burst by day is the live meter's affair, told when it happens.
    let rule = NightRule { burst: f64::INFINITY, ..NightRule::from(settings) };
    let mut least = f64::INFINITY;
    let mut night = Some(date);
    for before in 0..settings.nights {
        let Some(date) = night else { return Ok(Outcome::Dry) };
        let verdict = night_flow(&hourly(archive, point, litres, date, settings)?, &rule);
        if verdict.diagnostic == Some("no_data") {
            return Ok(if before == 0 { Outcome::Unknown } else { Outcome::Dry });
        }
        if !verdict.leak {
            return Ok(Outcome::Dry);
        }
        least = least.min(verdict.night_min_l_per_h);
        night = date.yesterday().ok();
    }
    Ok(Outcome::Leak(least))
}

/// Litres an hour of the night of a local day, in a day's array; what is not known is not a number.
fn hourly(
    archive: &dyn Archive,
    point: &PointId,
    litres: f64,
    date: Date,
    settings: &WatchSettings,
) -> Result<[f64; 24], StoreError> {
    let mut day = [f64::NAN; 24];
    let at = |hour| hour_of(date, hour, &settings.time_zone).map(|t| t.as_millisecond());
    let (Some(from), Some(to)) = (at(settings.night.0), at(settings.night.1)) else { return Ok(day) };
    let buckets = archive.history(point, from - HOUR_MS, to, QUARTER_MS)?;
    for hour in settings.night.0..settings.night.1 {
        if let (Some(from), Some(to), Some(place)) = (at(hour), at(hour + 1), day.get_mut(usize::from(hour))) {
            *place = volume(&buckets, from, to).map_or(f64::NAN, |volume| {
                // The hour that autumn repeats lasts two, the one that spring skips none.
                volume * litres * HOUR_MS as f64 / (to - from) as f64
            });
        }
    }
    Ok(day)
}

/// How far a counter moved between two instants; `None` when nothing was heard of it in between.
fn volume(buckets: &[Bucket], from: i64, to: i64) -> Option<f64> {
    if to <= from {
        return None;
    }
    let within = |low: i64, high: i64| {
        buckets.iter().filter(move |bucket| bucket.count > 0 && bucket.start_ms >= low && bucket.start_ms < high)
    };
    let last = within(from, to).max_by_key(|bucket| bucket.start_ms)?.last;
    let before = within(from - HOUR_MS, from).max_by_key(|bucket| bucket.start_ms).map(|bucket| bucket.last);
    let began = before.or_else(|| within(from, to).min_by_key(|bucket| bucket.start_ms).map(|bucket| bucket.first))?;
    Some(last - began)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::watch;

    use super::*;
    use crate::{
        clock::Source,
        config,
        reading::Stored,
        store::{Gap, Page, PageRequest, StoreFigures},
    };

    /// A meter by a formula: the index at an instant, where anything is known.
    pub(crate) struct Formula<F>(pub(crate) F);

    impl<F: Fn(i64) -> Option<f64> + Send + Sync> Archive for Formula<F> {
        fn identity(&self) -> String {
            String::new()
        }
        fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
            Ok(Page { entries: Vec::new(), next: request.after, complete: true })
        }
        fn head(&self) -> watch::Receiver<u64> {
            watch::channel(0).1
        }
        fn latest(&self) -> Vec<Stored> {
            Vec::new()
        }
        fn history(&self, _: &PointId, from: i64, to: i64, step: i64) -> Result<Vec<Bucket>, StoreError> {
            let aligned = from.div_euclid(step) * step;
            let starts = (0..).map(|n| aligned + n * step).take_while(|start| *start < to);
            let bucket = |start_ms| {
                let (first, last) = ((self.0)(start_ms)?, (self.0)(start_ms + step - 1_000)?);
                Some(Bucket { start_ms, min: first, max: last, sum: first + last, first, last, count: 2 })
            };
            Ok(starts.filter_map(bucket).collect())
        }
        fn acknowledge(&self, _: &str, _: u64) -> Result<(), StoreError> {
            Ok(())
        }
        fn acknowledged(&self) -> BTreeMap<String, u64> {
            BTreeMap::new()
        }
        fn gaps(&self) -> Vec<Gap> {
            Vec::new()
        }
        fn figures(&self) -> StoreFigures {
            StoreFigures::default()
        }
    }

    fn settings() -> WatchSettings {
        config::watch::read(None, TimeZone::get("Europe/Paris").expect("bundled"))
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("an instant").as_millisecond()
    }

    fn date(text: &str) -> Date {
        text.parse().expect("a date")
    }

    fn outcome(index: impl Fn(i64) -> Option<f64> + Send + Sync) -> Outcome {
        let point = "water/hall/index".parse().expect("a name");
        judge(&Formula(index), &point, 1.0, date("2026-11-21"), &settings()).expect("read")
    }

    /// 60 L/h without end.
    fn running(at: i64) -> f64 {
        at as f64 / 60_000.0
    }

    #[test]
    fn three_leaking_nights_are_a_leak_and_two_are_not() {
        let Outcome::Leak(rate) = outcome(|at| Some(running(at))) else { panic!("a leak") };
        assert!((rate - 60.0).abs() < 1.0, "{rate}");
        let repaired_on_19 = |at: i64| Some(running(at.max(ms("2026-11-19T12:00:00Z"))));
        assert_eq!(outcome(repaired_on_19), Outcome::Dry, "only the nights of the 20th and 21st");
    }

    #[test]
    fn a_night_with_one_dry_hour_is_no_leak() {
        // Still between 3 h and 4 h in Paris (UTC+1), each night.
        let index = |at: i64| {
            let day = at.rem_euclid(86_400_000);
            let (pause, over) = (2 * HOUR_MS, 3 * HOUR_MS);
            Some(running(if day >= pause && day < over + QUARTER_MS { at - day + pause } else { at }))
        };
        assert_eq!(outcome(index), Outcome::Dry);
    }

    #[test]
    fn a_night_of_which_nothing_is_known_says_nothing() {
        assert_eq!(outcome(|_| None), Outcome::Unknown);
        let known_since_yesterday = |at: i64| (at > ms("2026-11-20T12:00:00Z")).then(|| running(at));
        assert_eq!(outcome(known_since_yesterday), Outcome::Dry, "the nights before are not made up");
    }

    #[test]
    fn cubic_metres_are_counted_as_litres() {
        let point = "water/hall/index".parse().expect("a name");
        let archive = Formula(|at: i64| Some(running(at) / 1_000.0));
        let judged = judge(&archive, &point, 1_000.0, date("2026-11-21"), &settings()).expect("read");
        assert!(matches!(judged, Outcome::Leak(rate) if (rate - 60.0).abs() < 1.0), "{judged:?}");
    }

    #[test]
    fn the_hours_that_spring_skips_and_autumn_repeats_do_not_change_the_rate() {
        let point: PointId = "water/hall/index".parse().expect("a name");
        for (day, known) in [("2026-03-29", 3), ("2026-10-25", 4)] {
            let hours = hourly(&Formula(|at| Some(running(at))), &point, 1.0, date(day), &settings()).expect("read");
            let night: Vec<_> = hours[2..6].iter().filter(|litres| !litres.is_nan()).collect();
            assert_eq!(night.len(), known, "{day}");
            assert!(night.iter().all(|litres| (**litres - 60.0).abs() < 1.0), "{day}: {night:?}");
        }
    }

    #[test]
    fn a_night_is_due_once_shortly_after_its_end_by_local_time_and_never_by_an_untrusted_clock() {
        let (mut nights, settings) = (Nights::default(), settings());
        let wall = |text: &str, source| WallTime { unix_ms: ms(text), error_ms: 0, source };
        let six = "2026-11-21T05:04:59Z";
        assert_eq!(nights.due(wall(six, Source::Unknown), 0, &settings), None);
        assert_eq!(nights.due(wall(six, Source::Ntp), 0, &settings), Some(date("2026-11-20")));
        nights.done(date("2026-11-20"));
        assert_eq!(nights.due(wall(six, Source::Ntp), 0, &settings), None);
        let later = wall("2026-11-21T05:05:00Z", Source::Rtc);
        assert_eq!(nights.due(later, 0, &settings), Some(date("2026-11-21")));
        nights.later(1_000);
        assert_eq!(nights.due(later, 2_000, &settings), None, "the card could not be read");
        assert_eq!(nights.due(later, 601_000, &settings), Some(date("2026-11-21")));
    }
}
