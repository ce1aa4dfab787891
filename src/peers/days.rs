//! The days there are readings of, each as a file: which ones, from when to when, and what tells whether one has changed.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Ground, fetch::View, senml::plain, timeline::Span};
use crate::{
    clock::Stamp,
    live::Live,
    store::{Entry, StoreError},
};

/// Days told at most; the latest ones.
const DAYS: usize = 400;
/// Ranges of numbers without a date told at most.
const UNDATED: usize = 100;
/// A change in what is known of the clock moves the dates of minutes, not of moments.
const MINUTE_MS: usize = 60_000;

/// The commune's days in the archive.
#[derive(Clone, Copy)]
pub(crate) struct Calendar<'a> {
    pub(crate) view: View<'a>,
    pub(crate) live: &'a Live,
    pub(crate) zone: &'a TimeZone,
}

/// Numbers of readings no clock could date, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Undated {
    /// The first.
    first: u64,
    /// The last.
    last: u64,
}

/// A day that can be had.
pub(crate) struct Day {
    /// Its first and its last millisecond.
    pub(crate) range: RangeInclusive<i64>,
    /// Where it may be in the archive.
    pub(crate) spans: Arc<[Span]>,
    /// What tells whether it has changed; `None` while it may still grow.
    pub(crate) tag: Option<String>,
}

impl Calendar<'_> {
    /// The day, if anything is stored of it.
    pub(crate) fn day(&self, day: Date) -> Result<Option<Day>, StoreError> {
        let Some((from_ms, to_ms)) = bounds(day, self.zone) else { return Ok(None) };
        let spans = self.view.dated().spans(from_ms, to_ms)?;
        if spans.iter().all(|span| span.taken.is_none()) {
            return Ok(None);
        }
        let tag = self.is_over(&spans)?.then(|| self.tag(day, &spans, &(from_ms..=to_ms)));
        Ok(Some(Day { range: from_ms..=to_ms, spans: spans.into(), tag }))
    }

    /// A reading beyond the day and the disorder that readings may be in has been stored.
    fn is_over(&self, spans: &[Span]) -> Result<bool, StoreError> {
        let last = spans.iter().filter(|span| span.taken.is_some()).map(|span| span.to).max();
        Ok(self.view.dated().reading_after(last.unwrap_or(u64::MAX))?.is_some())
    }

    /// Made of all that a day's file is made of: which numbers, how they are dated, what is lost of them, which points
    /// this peer may see and in what units.
    fn tag(&self, day: Date, spans: &[Span], range: &RangeInclusive<i64>) -> String {
        let mut hash = Sha256::new();
        let zone = self.zone.iana_name().unwrap_or_default();
        hash.update(format!("{} {zone} {day} {}", env!("CARGO_PKG_VERSION"), self.view.archive.identity()));
        for point in self.live.points().filter(|point| self.view.points.contains(&point.id)) {
            hash.update(format!("{} {}", point.id, point.unit));
        }
        for gap in self.view.archive.gaps() {
            let held = spans.iter().any(|span| gap.last >= span.from && gap.first <= span.to);
            if held && self.view.touches(&Entry::Gap(gap.clone()), range) {
                hash.update(format!("{gap:?}"));
            }
        }
        for (span, taken) in spans.iter().filter_map(|span| Some((span, span.taken?))) {
            hash.update(format!("{}-{}", span.from, span.to));
            for stamp in minutes(taken) {
                hash.update(format!("{:?}", self.view.clock.resolve(stamp)));
            }
        }
        hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The days of which readings are stored, and the numbers that are of none.
    pub(crate) fn all(&self) -> Result<(BTreeSet<Date>, Vec<Undated>), StoreError> {
        let (mut days, mut undated, dated) = (BTreeSet::new(), Vec::new(), self.view.dated());
        for boot in dated.boots()? {
            if dated.wall(boot.first.stamp).is_none() {
                undated.push(Undated { first: boot.first.seq, last: boot.last.seq });
                continue;
            }
            let (mut place, mut of_a_day) = (boot.start - 1, 0);
            // What arrives meanwhile is left for the next time.
            while let Some(next) = dated.reading_after(place)?.filter(|next| next.seq <= boot.last.seq) {
                let Some(day) = dated.wall(next.stamp).and_then(|wall| date(wall.unix_ms, self.zone)) else { break };
                days.insert(day);
                let Some((_, to_ms)) = bounds(day, self.zone) else { break };
                place = dated.place_near(&boot, next.seq, of_a_day, to_ms.saturating_add(1))?;
                of_a_day = place - next.seq;
            }
            while days.len() > DAYS {
                days.pop_first();
            }
        }
        undated.drain(..undated.len().saturating_sub(UNDATED));
        Ok((days, undated))
    }
}

/// A stamp a minute, the ends among them.
fn minutes((first, last): (Stamp, Stamp)) -> impl Iterator<Item = Stamp> {
    let between = (first.mono_ms..last.mono_ms).step_by(MINUTE_MS);
    between.map(move |mono_ms| Stamp { boot: first.boot, mono_ms }).chain([last])
}

/// The first and the last millisecond of a civil day.
fn bounds(day: Date, zone: &TimeZone) -> Option<(i64, i64)> {
    let midnight = |day: Date| day.to_zoned(zone.clone()).ok()?.start_of_day().ok();
    let (from, to) = (midnight(day)?, midnight(day.tomorrow().ok()?)?);
    Some((from.timestamp().as_millisecond(), to.timestamp().as_millisecond() - 1))
}

fn date(unix_ms: i64, zone: &TimeZone) -> Option<Date> {
    Some(Timestamp::from_millisecond(unix_ms).ok()?.to_zoned(zone.clone()).date())
}

/// A day as it is written in a path: `2026-11-21` and nothing else.
pub(crate) fn read_day(text: &str) -> Option<Date> {
    let form = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    text.parse().ok().filter(|_| form)
}

/// What `/v1/days` says: a Frictionless Data Package.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Package {
    /// `tabular-data-package`.
    profile: &'static str,
    /// The commune and the building, in letters, digits and hyphens.
    name: String,
    /// The same, as people write it.
    title: String,
    /// The time zone of the days.
    time_zone: String,
    /// A file for each day, oldest first.
    resources: Vec<DayFile>,
    /// Numbers that are in no day, because no clock could date them.
    undated: Vec<Undated>,
}

/// A day's file.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct DayFile {
    /// The day.
    name: String,
    /// Where it is, from here.
    path: String,
    /// `tabular-data-resource`.
    profile: &'static str,
    /// `csv`.
    format: &'static str,
    /// `text/csv`.
    mediatype: &'static str,
    /// `utf-8`.
    encoding: &'static str,
    /// Where its columns are told, from here.
    schema: &'static str,
}

impl Package {
    pub(crate) fn of(ground: &Ground, days: BTreeSet<Date>, undated: Vec<Undated>) -> Self {
        let file = |day: Date| DayFile {
            name: day.to_string(),
            path: format!("days/{day}.csv"),
            profile: "tabular-data-resource",
            format: "csv",
            mediatype: "text/csv",
            encoding: "utf-8",
            schema: "days/schema.json",
        };
        Self {
            profile: "tabular-data-package",
            name: name_of(ground).replace('/', "-"),
            title: format!("{}, {}", ground.commune, ground.gateway),
            time_zone: ground.time_zone.iana_name().unwrap_or("UTC").to_owned(),
            resources: days.into_iter().map(file).collect(),
            undated,
        }
    }
}

/// The commune and the building as a name that SenML and Frictionless can carry.
pub(crate) fn name_of(ground: &Ground) -> String {
    let parts = [plain(&ground.commune), plain(&ground.gateway)];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "clocher".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_as_long_as_the_commune_lives_it() {
        let zone = TimeZone::get("Europe/Paris").expect("a zone");
        let hours = |text: &str| {
            let (from, to) = bounds(read_day(text).expect("a day"), &zone).expect("bounds");
            (to + 1 - from) as f64 / 3_600_000.0
        };
        assert_eq!(hours("2026-03-29"), 23.0);
        assert_eq!(hours("2026-10-25"), 25.0);
        assert_eq!(hours("2026-11-21"), 24.0);
        let (from, _) = bounds(read_day("2026-11-21").expect("a day"), &zone).expect("bounds");
        assert_eq!(date(from, &zone), read_day("2026-11-21"));
        assert_eq!(date(from - 1, &zone), read_day("2026-11-20"));
    }

    #[test]
    fn days_follow_one_another_without_a_hole_in_any_zone() {
        // Where midnight was skipped, and where a whole day was.
        for (zone, day) in
            [("America/Sao_Paulo", "2018-11-03"), ("Africa/Cairo", "2026-04-23"), ("Pacific/Apia", "2011-12-28")]
        {
            let zone = TimeZone::get(zone).expect("a zone");
            let mut day = read_day(day).expect("a day");
            let mut end = bounds(day, &zone).expect("bounds").1;
            for _ in 0..5 {
                day = day.tomorrow().expect("a day");
                let (from, to) = bounds(day, &zone).expect("bounds");
                assert!(from == end + 1 && to >= from - 1, "{day} in {zone:?}");
                end = to;
            }
        }
    }

    #[test]
    fn a_day_is_written_in_one_way_only() {
        for wrong in
            ["", "2026-11-1", "20261121", "2026-11-21T00", "+02026-11-21", "2026-02-30", "2026-13-01", "2026/11/21"]
        {
            assert_eq!(read_day(wrong), None, "{wrong}");
        }
    }
}
