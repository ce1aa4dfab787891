//! A point's past, cut at the hours and days people live by: 23 or 25 hours when the clocks change. Pure.

use jiff::{Span as Period, ToSpan, Zoned, civil::Date, tz::TimeZone};

use crate::{reading::Kind, store::Bucket};

/// How much is shown at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// A month of the calendar.
    Month,
}

impl Span {
    /// In the order they are offered.
    pub(crate) const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// Its word in addresses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// By its word; the day when it is none.
    pub(crate) fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|span| span.as_str() == word).unwrap_or(Self::Day)
    }

    fn period(self) -> Period {
        match self {
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
        }
    }

    /// The first day of the span a day is in.
    fn first(self, on: Date) -> Date {
        let back = match self {
            Self::Day => 0,
            Self::Week => i64::from(on.weekday().to_monday_zero_offset()),
            Self::Month => i64::from(on.day()) - 1,
        };
        on.checked_sub(back.days()).unwrap_or(on)
    }
}

const QUARTER_MS: i64 = 15 * 60_000;
const HOUR_MS: i64 = 60 * 60_000;

/// The part of the past that is shown, and where it is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Day, week or month.
    pub(crate) span: Span,
    /// Its first day.
    pub(crate) first: Date,
    /// Cuts, milliseconds since 1970 UTC; one more than there are slots.
    pub(crate) cuts: Vec<i64>,
    /// The midnights within it and at its ends.
    pub(crate) midnights: Vec<i64>,
    /// Steps to ask the archive for; each lies within one slot.
    pub(crate) step_ms: i64,
}

impl Window {
    /// The window that shows the day `on`.
    pub(crate) fn around(span: Span, on: Date, kind: Kind, zone: &TimeZone) -> Self {
        let first = span.first(on);
        let end = first.checked_add(span.period()).unwrap_or(first);
        let midnights = midnights(first, end, zone);
        let (from, to) = (midnights.first().copied().unwrap_or(0), midnights.last().copied().unwrap_or(0));
        let even = |step| (0..).map(|n| from + n * step).take_while(|cut| *cut < to).chain([to]).collect();
        let (cuts, step_ms) = match (span, kind) {
            (Span::Day, Kind::Counter) => (even(HOUR_MS), HOUR_MS),
            (Span::Day, _) => (even(QUARTER_MS), QUARTER_MS),
            (Span::Week, Kind::Counter) | (Span::Month, _) => (midnights.clone(), HOUR_MS),
            (Span::Week, _) => (even(HOUR_MS), HOUR_MS),
        };
        Self { span, first, cuts, midnights, step_ms }
    }

    /// Its start.
    pub(crate) fn start_ms(&self) -> i64 {
        self.cuts.first().copied().unwrap_or(0)
    }

    /// Its end.
    pub(crate) fn end_ms(&self) -> i64 {
        self.cuts.last().copied().unwrap_or(0)
    }

    /// A day in the window before.
    pub(crate) fn before(&self) -> Option<Date> {
        self.first.checked_sub(self.span.period()).ok()
    }

    /// A day in the window after.
    pub(crate) fn after(&self) -> Option<Date> {
        self.first.checked_add(self.span.period()).ok()
    }

    /// The last day it shows.
    pub(crate) fn last(&self) -> Date {
        self.after().and_then(|after| after.yesterday().ok()).unwrap_or(self.first)
    }
}

fn midnights(first: Date, end: Date, zone: &TimeZone) -> Vec<i64> {
    let days = first.series(1.day()).take_while(|day| *day <= end).take(40);
    days.filter_map(|day| day.to_zoned(zone.clone()).ok()).map(|at: Zoned| at.timestamp().as_millisecond()).collect()
}

/// What a point did between two cuts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slot {
    /// Start, milliseconds since 1970 UTC.
    pub(crate) start_ms: i64,
    /// End.
    pub(crate) end_ms: i64,
    /// What was measured; `None` when nothing was.
    pub(crate) measured: Option<Measured>,
}

/// The readings of a slot, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    /// Smallest.
    pub(crate) min: f64,
    /// Largest.
    pub(crate) max: f64,
    /// Mean.
    pub(crate) mean: f64,
    /// How far a counter moved on, since the reading before the slot.
    pub(crate) amount: f64,
}

/// Sorts the archive's buckets into the slots of a window. Buckets from before the window only tell where a counter
/// stood.
pub(crate) fn slots(window: &Window, buckets: &[Bucket]) -> Vec<Slot> {
    let mut sorted: Vec<&Bucket> = buckets.iter().filter(|bucket| bucket.count > 0).collect();
    sorted.sort_by_key(|bucket| bucket.start_ms);
    let mut rest = sorted.into_iter().peekable();
    let mut stood = None;
    while let Some(earlier) = rest.next_if(|bucket| bucket.start_ms < window.start_ms()) {
        stood = Some(earlier.last);
    }
    let pairs = window.cuts.iter().zip(window.cuts.iter().skip(1));
    pairs
        .map(|(start, end)| {
            let mut measured = None;
            while let Some(bucket) = rest.next_if(|bucket| bucket.start_ms < *end) {
                add(&mut measured, bucket, moved(stood, bucket));
                stood = Some(bucket.last);
            }
            Slot { start_ms: *start, end_ms: *end, measured: measured.map(finished) }
        })
        .collect()
}

/// How far a counter moved: an index that goes back is a new meter, and starts afresh.
fn moved(stood: Option<f64>, bucket: &Bucket) -> f64 {
    let from = stood.filter(|stood| *stood <= bucket.first).unwrap_or(bucket.first);
    (bucket.last - from).max(0.0)
}

/// Smallest, largest, sum, count, amount.
type Sum = (f64, f64, f64, u32, f64);

fn add(sum: &mut Option<Sum>, bucket: &Bucket, amount: f64) {
    let (min, max, total, count, so_far) = sum.unwrap_or((f64::INFINITY, f64::NEG_INFINITY, 0.0, 0, 0.0));
    let count = count.saturating_add(bucket.count);
    *sum = Some((min.min(bucket.min), max.max(bucket.max), total + bucket.sum, count, so_far + amount));
}

fn finished((min, max, total, count, amount): Sum) -> Measured {
    Measured { min, max, mean: total / f64::from(count.max(1)), amount }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn paris() -> TimeZone {
        TimeZone::get("Europe/Paris").expect("bundled")
    }

    fn bucket(start_ms: i64, first: f64, last: f64) -> Bucket {
        Bucket { start_ms, min: first.min(last), max: first.max(last), sum: first + last, first, last, count: 2 }
    }

    #[test]
    fn a_day_has_23_or_25_hours_when_the_clocks_change() {
        let hours = |on| Window::around(Span::Day, on, Kind::Counter, &paris()).cuts.len() - 1;
        assert_eq!([hours(date(2026, 3, 29)), hours(date(2026, 6, 1)), hours(date(2026, 10, 25))], [23, 24, 25]);
        let october = Window::around(Span::Month, date(2026, 10, 5), Kind::Gauge, &paris());
        let lengths: Vec<i64> = october.cuts.windows(2).map(|pair| (pair[1] - pair[0]) / HOUR_MS).collect();
        assert_eq!((lengths.len(), lengths[24], lengths[25]), (31, 25, 24));
    }

    /// Buckets as the archive makes them, from the first cut on.
    fn archived(window: &Window, per_hour: i64) -> Vec<Bucket> {
        let step = HOUR_MS / per_hour;
        let starts = (window.start_ms()..window.end_ms()).step_by(usize::try_from(step).expect("a step"));
        starts.zip(1u32..).map(|(start, n)| bucket(start, f64::from(n) - 1.0, f64::from(n))).collect()
    }

    #[test]
    fn each_hour_of_the_nights_the_clocks_change_is_shown_once_and_none_is_lost() {
        for (on, hours) in [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)] {
            let day = Window::around(Span::Day, on, Kind::Counter, &paris());
            let shown = slots(&day, &archived(&day, 1));
            assert_eq!(shown.len(), hours);
            assert!(shown.iter().all(|slot| slot.measured.is_some_and(|m| (m.amount - 1.0).abs() < 1e-9)), "{on}");
            assert!(shown.windows(2).all(|pair| pair[0].end_ms == pair[1].start_ms));

            let gauge = Window::around(Span::Day, on, Kind::Gauge, &paris());
            let quarters = slots(&gauge, &archived(&gauge, 4));
            assert_eq!(quarters.iter().filter(|slot| slot.measured.is_some()).count(), 4 * hours);

            for (span, days) in [(Span::Week, 7), (Span::Month, 31)] {
                let window = Window::around(span, on, Kind::Counter, &paris());
                let sums = slots(&window, &archived(&window, 1));
                let of_day = sums.iter().find(|slot| slot.start_ms == day.start_ms()).and_then(|slot| slot.measured);
                assert_eq!(of_day.map(|m| m.amount), Some(hours as f64), "{on} in its {span:?}");
                let total: f64 = sums.iter().filter_map(|slot| slot.measured).map(|m| m.amount).sum();
                assert_eq!((sums.len(), total), (days, (24 * days + hours - 24) as f64), "{on}'s {span:?}");
            }
        }
    }

    #[test]
    fn a_week_begins_on_monday_and_a_month_on_the_first() {
        let saturday = date(2026, 11, 21);
        let week = Window::around(Span::Week, saturday, Kind::Counter, &paris());
        assert_eq!((week.first, week.last(), week.cuts.len()), (date(2026, 11, 16), date(2026, 11, 22), 8));
        let month = Window::around(Span::Month, saturday, Kind::Counter, &paris());
        assert_eq!((month.first, month.last()), (date(2026, 11, 1), date(2026, 11, 30)));
        assert_eq!((month.before(), month.after()), (Some(date(2026, 10, 1)), Some(date(2026, 12, 1))));
    }

    #[test]
    fn consumption_is_counted_from_where_the_meter_stood_and_survives_a_new_meter() {
        let window = Window::around(Span::Day, date(2026, 6, 1), Kind::Counter, &TimeZone::UTC);
        let at = |hour: i64| window.start_ms() + hour * HOUR_MS;
        let buckets = [
            bucket(at(-1), 90.0, 100.0),
            bucket(at(0), 102.0, 105.0),
            bucket(at(2), 105.0, 109.0),
            bucket(at(3), 3.0, 4.0),
        ];
        let amounts: Vec<Option<f64>> =
            slots(&window, &buckets).iter().take(5).map(|s| s.measured.map(|m| m.amount)).collect();
        assert_eq!(amounts, [Some(5.0), None, Some(4.0), Some(1.0), None]);
    }

    #[test]
    fn hours_are_summed_up_into_days() {
        let window = Window::around(Span::Month, date(2026, 6, 1), Kind::Gauge, &TimeZone::UTC);
        let buckets: Vec<Bucket> =
            (0..24).map(|h| bucket(window.start_ms() + h * HOUR_MS, h as f64, h as f64)).collect();
        let day = slots(&window, &buckets)[0].measured.expect("measured");
        assert_eq!((day.min, day.max, day.mean), (0.0, 23.0, 11.5));
    }

    #[test]
    fn a_date_at_the_end_of_time_does_not_break_the_page() {
        for on in [Date::MIN, Date::MAX] {
            for span in Span::ALL {
                let window = Window::around(span, on, Kind::Counter, &paris());
                assert!(window.cuts.len() < 200);
                let _ = (window.before(), window.after(), window.last(), slots(&window, &[]));
            }
        }
    }
}
