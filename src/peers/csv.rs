//! A day's readings as CSV (RFC 4180), and the Frictionless Table Schema of its columns.
//!
//! What was lost is a line among the others, of quality `lost`, with how many in `lost` and no value: a sum or a mean of
//! the values is right without knowing of it, and who looks for holes need not look elsewhere. Lines are in order of the
//! last number they tell of: where readings of some points only were taken out, the others stand before the gap's line.

use std::{borrow::Cow, fmt::Write};

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::page::{Teller, error_ms, rfc3339};
use crate::{
    clock::Source,
    reading::Stored,
    store::{Entry, Gap},
};

/// A column: its name, its Table Schema type, what is more to say of its values, what it is.
type Column = (&'static str, &'static str, fn() -> Value, &'static str);

const COLUMNS: &[Column] = &[
    (
        "seq",
        "integer",
        || json!({"required": true, "minimum": 1}),
        "The number of the reading: no holes, never reused. Of readings lost, the first of them.",
    ),
    (
        "point",
        "string",
        || json!({"pattern": "[a-z0-9_/-]{1,96}"}),
        "The point. Empty where what was lost was of several.",
    ),
    ("time", "datetime", || json!({}), "When, in UTC."),
    (
        "local_time",
        "string",
        || json!({"pattern": ".*[+-][0-9]{2}:[0-9]{2}"}),
        "When, in the commune's civil time with its offset.",
    ),
    ("value", "number", || json!({}), "The value, in `unit`. Empty when the device gave none."),
    ("unit", "string", || json!({}), "UCUM, case sensitive. Empty for a point that the configuration no longer has."),
    (
        "quality",
        "string",
        || json!({"required": true, "enum": ["good", "suspect", "stale", "bad", "lost"]}),
        "How far to trust it; `lost` for readings that will never come.",
    ),
    ("why", "string", || json!({}), "Why it is less than good, or why readings were lost."),
    ("lost", "integer", || json!({"minimum": 1}), "How many readings were lost; empty for a reading."),
    (
        "last_lost",
        "integer",
        || json!({"minimum": 1}),
        "The number of the last of them. The other numbers from `seq` to it are lines of their own.",
    ),
    (
        "clock",
        "string",
        || json!({"required": true, "enum": ["unknown", "estimated", "rtc", "browser", "gps", "ntp"]}),
        "Who vouches for the time.",
    ),
    ("error_ms", "integer", || json!({"minimum": 0}), "Milliseconds the time may be off; empty when nobody knows."),
];

/// The header line.
pub(crate) fn header() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    format!("{}\r\n", names.join(","))
}

/// The Table Schema of the columns. source: Frictionless Table Schema, version 1
pub(crate) fn schema() -> Value {
    let field = |(name, kind, constraints, doc): &Column| {
        let format = if *kind == "datetime" { "%Y-%m-%dT%H:%M:%S.%fZ" } else { "default" };
        json!({"name": name, "type": kind, "format": format, "description": doc, "constraints": constraints()})
    };
    json!({"fields": COLUMNS.iter().map(field).collect::<Vec<_>>(), "missingValues": [""], "primaryKey": ["seq"]})
}

/// Lines of one day.
pub(crate) struct Lines<'a> {
    pub(crate) teller: Teller<'a>,
    pub(crate) zone: &'a TimeZone,
}

impl Lines<'_> {
    /// Adds an entry's line.
    pub(crate) fn add(&self, into: &mut String, entry: &Entry) {
        match entry {
            Entry::Reading(stored) => self.reading(into, stored),
            Entry::Gap(gap) => self.gap(into, gap),
        }
    }

    fn reading(&self, into: &mut String, stored: &Stored) {
        let reading = &stored.reading;
        let wall = self.teller.clock.resolve(reading.stamp);
        let (time, local) = self.times(wall.map(|wall| wall.unix_ms));
        let unit = self.teller.unit(&reading.point).map(quoted).unwrap_or_default();
        let (point, word, why) = (&reading.point, reading.quality.word(), word_of(reading.quality.why()));
        let _ = write!(into, "{},{point},{time},{local},{},{unit},{word},{why},,,", stored.seq, Text(reading.value));
        let source = word_of(Some(wall.map_or(Source::Unknown, |wall| wall.source)));
        let _ = write!(into, "{source},{}\r\n", Text(error_ms(wall)));
    }

    fn gap(&self, into: &mut String, gap: &Gap) {
        let wall = gap.from.and_then(|stamp| self.teller.clock.resolve(stamp));
        let (time, local) = self.times(wall.map(|wall| wall.unix_ms));
        let source = word_of(Some(wall.map_or(Source::Unknown, |wall| wall.source)));
        let cause = word_of(Some(gap.cause));
        let _ = write!(into, "{},,{time},{local},,,lost,{cause},{},{},", gap.first, gap.count, gap.last);
        let _ = write!(into, "{source},{}\r\n", Text(error_ms(wall)));
    }

    fn times(&self, unix_ms: Option<i64>) -> (String, String) {
        let utc = unix_ms.and_then(rfc3339).unwrap_or_default();
        let local = unix_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let local = local.map(|at| at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
        (utc, local.unwrap_or_default())
    }
}

/// A value, or nothing.
struct Text<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Text<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

/// The word that JSON has for it.
fn word_of(word: Option<impl serde::Serialize>) -> String {
    let value = serde_json::to_value(word).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// A field in quotation marks where it needs them.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\"")).into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, HeldTime, Sample, Stamp},
        live::Live,
        reading::{Kind, Point, Quality, Reading, Sharing, Why},
        store::Cause,
    };

    fn lines(entries: &[Entry]) -> String {
        let sample = Sample {
            stamp: Stamp { boot: 2, mono_ms: 0 },
            unix_ms: 1_792_888_200_000,
            error_ms: 50,
            source: Source::Ntp,
            straight_ms: 0,
        };
        let clock = Clock::new(2, HeldTime::at(0, Source::Ntp), [sample]);
        let id = "water/hall/index".parse().expect("an id");
        let (label, unit) = (String::new(), "{\"odd\",unit}".to_owned());
        let point = Point {
            id,
            label,
            unit,
            kind: Kind::Counter,
            decimals: 0,
            interval: None,
            range: None,
            sharing: Sharing::Public,
        };
        let (live, zone) = (Live::new([point], []), TimeZone::get("Europe/Paris").expect("a zone"));
        let lines = Lines { teller: Teller { clock: &clock, live: &live, base: "" }, zone: &zone };
        let mut text = header();
        entries.iter().for_each(|entry| lines.add(&mut text, entry));
        text
    }

    fn reading(seq: u64, point: &str, mono_ms: u64, value: Option<f64>, quality: Quality) -> Entry {
        let (point, stamp) = (point.parse().expect("an id"), Stamp { boot: 2, mono_ms });
        Entry::Reading(Stored { seq, reading: Reading { point, stamp, value, quality } })
    }

    #[test]
    fn each_line_says_what_the_schema_says_it_does() {
        let at = |mono_ms| Some(Stamp { boot: 2, mono_ms });
        let gap = Gap { first: 9, last: 12, count: 4, from: at(7_200_000), to: at(7_260_000), cause: Cause::SizeLimit };
        let text = lines(&[
            reading(7, "water/hall/index", 0, Some(1_204.5), Quality::Good),
            reading(8, "gone/point", 3_600_000, None, Quality::Bad(Why::NoAnswer)),
            Entry::Gap(gap),
        ]);
        // The night the clocks go back: 02:30 comes twice.
        let expected = [
            "seq,point,time,local_time,value,unit,quality,why,lost,last_lost,clock,error_ms",
            "7,water/hall/index,2026-10-25T00:30:00.000Z,2026-10-25T02:30:00+02:00,1204.5,\"{\"\"odd\"\",unit}\",good,,,,ntp,50",
            "8,gone/point,2026-10-25T01:30:00.000Z,2026-10-25T02:30:00+01:00,,,bad,no-answer,,,ntp,410",
            "9,,2026-10-25T02:30:00.000Z,2026-10-25T03:30:00+01:00,,,lost,size-limit,4,12,ntp,770",
            "",
        ];
        assert_eq!(text.split("\r\n").collect::<Vec<_>>(), expected);
        assert!(expected[..4].iter().all(|line| line.matches(',').count() >= COLUMNS.len() - 1));
    }
}
