//! A page of readings as JSON lines, in rows or in columns, never larger than its limit. [`super::senml`] is its third
//! form.
//!
//! Pure: what was read from the archive goes in, bytes come out. The shapes are described in [`super`].

use serde::{Serialize, Serializer};

use super::{grouping::Grouping, senml};
use crate::{
    clock::{Clock, Source, Stamp, WallTime},
    live::Live,
    reading::{PointId, Stored, Why},
    store::{Cause, Entry, Gap},
};

/// How a page is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One observation a line, in order of their numbers.
    #[default]
    Rows,
    /// One block of one point a line, as arrays of differences: ten times smaller before compression.
    Columns,
    /// A SenML pack (RFC 8428), for those who read nothing else.
    Senml,
}

impl Format {
    /// Every name, the usual one first.
    pub(crate) const WORDS: &[&str] = &["rows", "columns", "senml"];

    /// Its name in the query.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Columns => "columns",
            Self::Senml => "senml",
        }
    }

    /// The format of a name.
    pub(crate) fn named(word: &str) -> Option<Self> {
        [Self::Rows, Self::Columns, Self::Senml].into_iter().find(|format| format.word() == word)
    }
}

/// Lines made of entries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// The lines, each with its end.
    pub(crate) lines: Vec<u8>,
    /// How many entries they hold, from the first on.
    pub(crate) entries: usize,
}

/// What entries are told with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teller<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) live: &'a Live,
    /// What SenML names begin with: who tells.
    pub(crate) base: &'a str,
}

impl Teller<'_> {
    /// As many entries as fit into `limit` bytes, but one at least: a page must move on.
    pub(crate) fn render(&self, entries: &[Entry], format: Format, limit: usize) -> serde_json::Result<Rendered> {
        match format {
            Format::Rows => self.rows(entries, limit),
            Format::Columns => self.columns(entries, limit),
            Format::Senml => senml::render(self, entries, limit),
        }
    }

    fn rows(&self, entries: &[Entry], limit: usize) -> serde_json::Result<Rendered> {
        let mut lines = Vec::new();
        for (told, entry) in entries.iter().enumerate() {
            let start = lines.len();
            match entry {
                Entry::Reading(stored) => line(&mut lines, &self.row(stored))?,
                Entry::Gap(gap) => line(&mut lines, &self.gap(gap))?,
            }
            if lines.len() > limit && told > 0 {
                lines.truncate(start);
                return Ok(Rendered { lines, entries: told });
            }
        }
        Ok(Rendered { lines, entries: entries.len() })
    }

    /// Blocks cannot be cut at the limit, so fewer entries are tried until they fit.
    fn columns(&self, entries: &[Entry], limit: usize) -> serde_json::Result<Rendered> {
        let mut told = entries.len();
        loop {
            let lines = self.blocks(entries.get(..told).unwrap_or(entries))?;
            if lines.len() <= limit || told <= 1 {
                return Ok(Rendered { lines, entries: told });
            }
            let fitting = told as u128 * limit as u128 / lines.len() as u128;
            told = usize::try_from(fitting).unwrap_or(told).min(told - 1).max(1);
        }
    }

    fn blocks(&self, entries: &[Entry]) -> serde_json::Result<Vec<u8>> {
        let mut lines = Vec::new();
        let mut blocks = Grouping::new(self.clock);
        for entry in entries {
            match entry {
                Entry::Gap(gap) => line(&mut lines, &self.gap(gap))?,
                Entry::Reading(stored) => blocks.add(stored),
            }
        }
        for ((point, boot, source), readings) in blocks.finish() {
            line(&mut lines, &self.block(point, boot, source, &readings))?;
        }
        Ok(lines)
    }

    fn row<'b>(&'b self, stored: &'b Stored) -> Row<'b> {
        let reading = &stored.reading;
        let wall = self.clock.resolve(reading.stamp);
        let time = wall.and_then(|wall| rfc3339(wall.unix_ms));
        Row {
            seq: stored.seq,
            point: reading.point.as_str(),
            phenomenon_time: time.clone(),
            result_time: time,
            result: reading.value,
            unit: self.unit(&reading.point),
            quality: reading.quality.word(),
            why: reading.quality.why(),
            clock: ClockQuality {
                source: wall.map_or(Source::Unknown, |wall| wall.source),
                error_ms: error_ms(wall),
                boot: reading.stamp.boot,
                mono_ms: reading.stamp.mono_ms,
            },
        }
    }

    fn block<'b>(
        &'b self,
        point: &'b PointId,
        boot: u32,
        source: Source,
        readings: &[(&Stored, Option<WallTime>)],
    ) -> Block<'b> {
        let values = readings.iter().map(|(stored, _)| stored.reading.value);
        let (decimals, result) = scaled(&values.collect::<Vec<_>>());
        let walls = readings.iter().map(|(_, wall)| wall.map(|wall| wall.unix_ms)).collect::<Option<Vec<_>>>();
        let errors = readings.iter().map(|(_, wall)| error_ms(*wall)).collect::<Option<Vec<_>>>();
        Block {
            point: point.as_str(),
            unit: self.unit(point),
            count: readings.len(),
            boot,
            source,
            error_ms: errors.and_then(|errors| errors.into_iter().max()),
            seq: differences(readings.iter().map(|(stored, _)| signed(stored.seq))),
            mono_ms: differences(readings.iter().map(|(stored, _)| signed(stored.reading.stamp.mono_ms))),
            unix_ms: walls.map(|walls| differences(walls.into_iter())),
            decimals,
            result,
            quality: runs(readings),
        }
    }

    pub(crate) fn unit(&self, point: &PointId) -> Option<&str> {
        self.live.point(point).map(|point| point.unit.as_str())
    }

    /// A gap's line; also one item of `/v1/gaps`.
    pub(crate) fn gap(&self, gap: &Gap) -> GapLine {
        let time = |stamp: Option<Stamp>| stamp.and_then(|s| self.clock.resolve(s)).and_then(|w| rfc3339(w.unix_ms));
        let (from, to) = (time(gap.from), time(gap.to));
        GapLine { gap: GapTold { first: gap.first, last: gap.last, count: gap.count, cause: gap.cause, from, to } }
    }
}

/// One observation, shaped after OGC SensorThings 1.1.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row<'a> {
    /// Its number: no holes, never reused.
    seq: u64,
    /// Which point.
    point: &'a str,
    /// When it was so: RFC 3339, UTC, milliseconds. `null` when no clock could date it.
    phenomenon_time: Option<String>,
    /// When it was read off: the same.
    result_time: Option<String>,
    /// The value, in `unit`. `null` with the quality `bad`.
    result: Option<f64>,
    /// UCUM, case sensitive. `null` for a point that the configuration no longer has.
    unit: Option<&'a str>,
    /// `good`, `suspect`, `stale` or `bad`.
    quality: &'static str,
    /// Why it is less than good.
    why: Option<Why>,
    /// What its time is worth.
    clock: ClockQuality,
}

/// What a time is worth.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClockQuality {
    /// Who vouches for it.
    source: Source,
    /// Milliseconds it may be off; `null` when nobody knows.
    error_ms: Option<u32>,
    /// Which start of the gateway, counted from 1.
    boot: u32,
    /// Milliseconds since that start.
    mono_ms: u64,
}

/// One point's readings of one boot whose time has one source. Arrays are differences, the first from zero.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Block<'a> {
    /// Which point.
    point: &'a str,
    /// UCUM, case sensitive.
    unit: Option<&'a str>,
    /// How many readings.
    count: usize,
    /// Which start of the gateway, counted from 1.
    boot: u32,
    /// Who vouches for their times.
    source: Source,
    /// Milliseconds their times may be off, at most.
    error_ms: Option<u32>,
    /// Their numbers.
    seq: Vec<i64>,
    /// Milliseconds since that start.
    mono_ms: Vec<i64>,
    /// Milliseconds since 1970 UTC; `null` when no clock could date them.
    unix_ms: Option<Vec<i64>>,
    /// Values are whole numbers to be divided by 10 to this power; `null` when they stand as they are.
    decimals: Option<u8>,
    /// Their values; a `null` stands aside.
    result: Vec<Number>,
    /// Runs of quality, reason and count.
    quality: Vec<(&'static str, Option<Why>, usize)>,
}

/// A hole in its place among the readings.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GapLine {
    /// The hole.
    pub(crate) gap: GapTold,
}

/// Readings that will never come.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GapTold {
    /// First lost number.
    first: u64,
    /// Last lost number.
    last: u64,
    /// How many were lost; the other numbers from `first` to `last` are readings told in other lines.
    count: u64,
    /// Why.
    cause: Cause,
    /// When the first of them was taken, RFC 3339, as far as is known.
    from: Option<String>,
    /// When the last of them was taken.
    to: Option<String>,
}

/// The last line of a page: where to go on.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Onward {
    /// The cursor to ask `after` next.
    pub(crate) next: String,
    /// Nothing more is stored now.
    pub(crate) complete: bool,
    /// Numbers beyond, of all points.
    pub(crate) remaining: u64,
}

/// The last line of a page of a range.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OnwardInRange {
    /// The number to `continue` with.
    #[serde(rename = "continue")]
    pub(crate) resume: u64,
    /// The range has no more.
    pub(crate) complete: bool,
}

/// The last line of a page of the newest readings.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OnwardBack {
    /// The number to ask `before` next.
    pub(crate) before: u64,
    /// There is no point more.
    pub(crate) complete: bool,
}

/// A difference of scaled integers, or a value as it is, or none.
#[derive(Debug, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "Option<f64>"))]
enum Number {
    Whole(i64),
    Real(f64),
    None,
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(n) => serializer.serialize_i64(*n),
            Self::Real(n) => serializer.serialize_f64(*n),
            Self::None => serializer.serialize_none(),
        }
    }
}

/// Integers beyond this are not exact in a JSON number as most read it, nor as `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;
const MOST_DECIMALS: u8 = 6;

/// Values as differences of integers scaled by 10^decimals, where that gives back every value to the bit; else as
/// they are, with no decimals told.
fn scaled(values: &[Option<f64>]) -> (Option<u8>, Vec<Number>) {
    let fitting = (0..=MOST_DECIMALS).find_map(|decimals| {
        let scale = 10_f64.powi(i32::from(decimals));
        let whole = values.iter().map(|value| value.map(|value| whole(value, scale)));
        let whole = whole.map(|value| value.map_or(Some(None), |exact| exact.map(Some)));
        Some((decimals, whole.collect::<Option<Vec<Option<i64>>>>()?))
    });
    let Some((decimals, whole)) = fitting else {
        return (None, values.iter().map(|value| value.map_or(Number::None, Number::Real)).collect());
    };
    let mut before = 0;
    let difference = |value: Option<i64>| {
        let Some(value) = value else { return Number::None };
        let step = value - before;
        before = value;
        Number::Whole(step)
    };
    (Some(decimals), whole.into_iter().map(difference).collect())
}

fn whole(value: f64, scale: f64) -> Option<i64> {
    let scaled = (value * scale).round();
    let exact = scaled.abs() < EXACT && (scaled / scale).to_bits() == value.to_bits();
    exact.then_some(scaled as i64)
}

fn differences(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut before = 0;
    values.map(|value| value.wrapping_sub(std::mem::replace(&mut before, value))).collect()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Equal qualities in a row are told once with their count.
fn runs(readings: &[(&Stored, Option<WallTime>)]) -> Vec<(&'static str, Option<Why>, usize)> {
    let mut runs = Vec::<(&'static str, Option<Why>, usize)>::new();
    for (stored, _) in readings {
        let quality = stored.reading.quality;
        match runs.last_mut() {
            Some((word, why, count)) if *word == quality.word() && *why == quality.why() => *count += 1,
            _ => runs.push((quality.word(), quality.why(), 1)),
        }
    }
    runs
}

fn line(into: &mut Vec<u8>, content: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *into, content)?;
    into.push(b'\n');
    Ok(())
}

/// Nobody knows how far off an unvouched clock is.
pub(crate) fn error_ms(wall: Option<WallTime>) -> Option<u32> {
    wall.map(|wall| wall.error_ms).filter(|error| *error != u32::MAX)
}

/// Milliseconds since 1970 as RFC 3339 in UTC with milliseconds; `None` beyond the year 9999.
pub(crate) fn rfc3339(unix_ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(unix_ms).ok().map(|time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        clock::{HeldTime, Sample},
        reading::{Kind, Point, Quality, Reading, Sharing},
    };

    const NOON: i64 = 1_780_315_200_000;

    fn clock() -> Clock {
        let stamp = Stamp { boot: 2, mono_ms: 0 };
        let sample = Sample { stamp, unix_ms: NOON, error_ms: 50, source: Source::Ntp, straight_ms: 0 };
        Clock::new(2, HeldTime::at(NOON, Source::Ntp), [sample])
    }

    fn live() -> Live {
        let point = Point {
            id: id("water/hall/index"),
            label: "Salle des fêtes".to_owned(),
            unit: "L".to_owned(),
            kind: Kind::Counter,
            decimals: 0,
            interval: None,
            range: None,
            sharing: Sharing::Public,
        };
        Live::new([point], [])
    }

    fn id(text: &str) -> PointId {
        text.parse().expect("an id")
    }

    fn reading(seq: u64, boot: u32, value: Option<f64>) -> Entry {
        let quality = if value.is_some() { Quality::Good } else { Quality::Bad(Why::NoAnswer) };
        let stamp = Stamp { boot, mono_ms: seq * 10_000 };
        Entry::Reading(Stored { seq, reading: Reading { point: id("water/hall/index"), stamp, value, quality } })
    }

    fn render(entries: &[Entry], format: Format, limit: usize) -> (Vec<Value>, usize) {
        let (clock, live) = (clock(), live());
        let rendered =
            Teller { clock: &clock, live: &live, base: "montclar/" }.render(entries, format, limit).expect("rendered");
        let lines = String::from_utf8(rendered.lines).expect("UTF-8");
        assert!(lines.is_empty() || lines.ends_with('\n'));
        (lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), rendered.entries)
    }

    #[test]
    fn a_row_says_what_was_measured_when_and_how_far_to_trust_it() {
        let (rows, _) = render(&[reading(7, 2, Some(1_204.5))], Format::Rows, 4_096);
        let expected = json!({
            "seq": 7, "point": "water/hall/index", "phenomenonTime": "2026-06-01T12:01:10.000Z",
            "resultTime": "2026-06-01T12:01:10.000Z", "result": 1204.5, "unit": "L", "quality": "good", "why": null,
            "clock": {"source": "ntp", "errorMs": 57, "boot": 2, "monoMs": 70_000},
        });
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn a_reading_of_a_boot_without_any_time_has_none_but_keeps_its_place() {
        let (rows, _) = render(&[reading(7, 1, None)], Format::Rows, 4_096);
        assert_eq!(rows[0]["phenomenonTime"], Value::Null);
        assert_eq!((&rows[0]["result"], &rows[0]["quality"]), (&Value::Null, &json!("bad")));
        assert_eq!(rows[0]["why"], "no-answer");
        assert_eq!(rows[0]["clock"], json!({"source": "unknown", "errorMs": null, "boot": 1, "monoMs": 70_000}));
    }

    #[test]
    fn a_gap_is_told_in_its_place() {
        let stamp = |mono_ms| Some(Stamp { boot: 2, mono_ms });
        let gap = Gap { first: 3, last: 9, count: 7, from: stamp(0), to: stamp(1_500), cause: Cause::SizeLimit };
        let (rows, _) = render(&[reading(2, 2, Some(1.0)), Entry::Gap(gap)], Format::Rows, 4_096);
        let expected = json!({"gap": {"first": 3, "last": 9, "count": 7, "cause": "size-limit",
            "from": "2026-06-01T12:00:00.000Z", "to": "2026-06-01T12:00:01.500Z"}});
        assert_eq!(rows[1], expected);
    }

    #[test]
    fn a_page_never_exceeds_its_limit_but_always_moves_on() {
        let entries: Vec<_> = (1..=200).map(|seq| reading(seq, 2, Some(seq as f64 * 1.1))).collect();
        for format in [Format::Rows, Format::Columns] {
            for limit in [0, 300, 1_000, 5_000, 1 << 20] {
                let (clock, live) = (clock(), live());
                let page = Teller { clock: &clock, live: &live, base: "montclar/" }
                    .render(&entries, format, limit)
                    .expect("rendered");
                assert!(page.lines.len() <= limit || page.entries == 1, "{format:?} {limit}: {}", page.lines.len());
                assert!(page.entries >= 1);
            }
            assert_eq!(render(&entries, format, 1 << 20).1, 200);
        }
    }

    /// What a central server does with a block.
    fn read_block(block: &Value) -> Vec<(i64, Option<f64>, Option<i64>)> {
        let sums = |name: &str| -> Vec<i64> {
            let mut sum = 0;
            let items = block[name].as_array().into_iter().flatten();
            items
                .map(|d| {
                    sum += d.as_i64().expect("whole");
                    sum
                })
                .collect()
        };
        let (seq, unix) = (sums("seq"), sums("unixMs"));
        let mut sum = 0;
        let value = |item: &Value| match block["decimals"].as_i64() {
            None => item.as_f64(),
            Some(decimals) => item.as_i64().map(|d| {
                sum += d;
                sum as f64 / 10_f64.powi(decimals as i32)
            }),
        };
        let values: Vec<_> = block["result"].as_array().expect("values").iter().map(value).collect();
        seq.iter().zip(values).enumerate().map(|(n, (seq, value))| (*seq, value, unix.get(n).copied())).collect()
    }

    #[test]
    fn a_block_gives_back_every_value_to_the_bit() {
        let series: [&[Option<f64>]; 5] = [
            &[Some(1.0), Some(2.0), None, Some(5.0)],
            &[Some(0.1), Some(0.2), Some(0.30000000000000004), Some(-7.25)],
            &[Some(21.37), Some(21.38), Some(-0.01)],
            &[Some(-0.0), Some(1e300), Some(f64::MIN_POSITIVE)],
            &[None, None],
        ];
        for values in series {
            let entries: Vec<_> = values.iter().zip(1..).map(|(value, seq)| reading(seq, 2, *value)).collect();
            let (blocks, _) = render(&entries, Format::Columns, 4_096);
            let expected: Vec<_> =
                values.iter().zip(1..).map(|(v, seq)| (seq, v.map(f64::to_bits), Some(NOON + seq * 10_000))).collect();
            let told = read_block(&blocks[0]).into_iter().map(|(seq, v, t)| (seq, v.map(f64::to_bits), t));
            assert_eq!(told.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn readings_of_two_boots_are_never_in_one_block() {
        let entries = [reading(1, 1, Some(1.0)), reading(2, 2, None), reading(3, 2, Some(3.0))];
        let (blocks, _) = render(&entries, Format::Columns, 4_096);
        assert_eq!(blocks.len(), 2);
        assert_eq!((&blocks[0]["boot"], &blocks[0]["unixMs"]), (&json!(1), &Value::Null));
        assert_eq!(blocks[1]["quality"], json!([["bad", "no-answer", 1], ["good", null, 1]]));
    }
}
