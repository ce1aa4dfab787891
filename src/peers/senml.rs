//! A page as a SenML pack: RFC 8428, for those who read nothing else.
//!
//! Only registered labels, so what SenML has no word for is told by records of names that no point can have, with a
//! colon: `:gap:<cause>` counts readings that will never come, `<point>:quality` follows a value that is less than good,
//! `:undated` counts readings that no clock could date, `:complete` ends each pack. A reading of a clock that nobody
//! vouches for has a time relative to now (RFC 8428, 4.5.3), which is true whatever that clock says.

use std::borrow::Cow;

use serde::Serialize;

use super::page::{Rendered, Teller};
use crate::{
    clock::{Source, Stamp},
    reading::{Kind, PointId, Stored},
    store::{Entry, Gap},
};

/// A version without features. source: RFC 8428, 4.4
const PLAIN: u8 = 10;
/// One that uses units of the secondary registry, feature 4. source: RFC 9100, 3
const WITH_SECONDARY_UNITS: u8 = PLAIN + (1 << 4);
/// Times below are relative to now. source: RFC 8428, 4.5.3
const ABSOLUTE_FROM_MS: i64 = (1 << 28) * 1_000;

/// One record, as far as we use them.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Record<'a> {
    /// What the names that follow begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    bn: Option<&'a str>,
    /// Seconds added to the times that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    bt: Option<f64>,
    /// The version: 10, or 26 where secondary units are used (RFC 9100).
    #[serde(skip_serializing_if = "Option::is_none")]
    bver: Option<u8>,
    /// The point, or what is told beside the points, which holds a colon.
    n: Cow<'a, str>,
    /// A unit of the SenML registries, or UCUM where they have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    u: Option<&'a str>,
    /// A value.
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<f64>,
    /// A word.
    #[serde(skip_serializing_if = "Option::is_none")]
    vs: Option<Cow<'a, str>>,
    /// A truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    vb: Option<bool>,
    /// Seconds since 1970 or, below 2^28, since now.
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<f64>,
}

/// As many entries as fit into `limit` bytes, one at least. The pack is left open for [`close`].
pub(crate) fn render(teller: &Teller<'_>, entries: &[Entry], limit: usize) -> serde_json::Result<Rendered> {
    let mut pack = Pack::new(teller, entries);
    for (told, entry) in entries.iter().enumerate() {
        let before = pack.place();
        match entry {
            Entry::Reading(stored) => pack.reading(stored)?,
            Entry::Gap(gap) => pack.gap(gap)?,
        }
        if pack.bytes.len() > limit && told > 0 {
            pack.back_to(before);
            return pack.rendered(told);
        }
    }
    pack.rendered(entries.len())
}

/// What ends a pack that [`render`] began: whether there is more, said now.
pub(crate) fn close(base: &str, begun: bool, complete: bool) -> serde_json::Result<Vec<u8>> {
    let mut end = if begun { b",\n".to_vec() } else { b"[".to_vec() };
    let (bn, bver) = if begun { (None, None) } else { (Some(base), Some(PLAIN)) };
    let record = Record { bn, bver, bt: Some(0.0), n: ":complete".into(), vb: Some(complete), ..Record::default() };
    serde_json::to_writer(&mut end, &record)?;
    end.extend_from_slice(b"]\n");
    Ok(end)
}

/// When something was, as a base and what is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Milliseconds since 1970.
    Wall(i64),
    /// Milliseconds before now.
    Ago(i64),
}

struct Pack<'a> {
    teller: &'a Teller<'a>,
    bytes: Vec<u8>,
    now: Stamp,
    /// Milliseconds.
    base: Option<i64>,
    undated: u32,
    version: u8,
}

/// Where a pack was before an entry that did not fit.
#[derive(Clone, Copy)]
struct Before {
    length: usize,
    base: Option<i64>,
    undated: u32,
}

impl<'a> Pack<'a> {
    fn new(teller: &'a Teller<'a>, entries: &[Entry]) -> Self {
        let secondary = entries.iter().any(|entry| match entry {
            Entry::Reading(stored) => teller.senml_unit(&stored.reading.point).is_some_and(|unit| unit.secondary),
            Entry::Gap(_) => false,
        });
        let version = if secondary { WITH_SECONDARY_UNITS } else { PLAIN };
        Self { teller, bytes: Vec::new(), now: teller.clock.now(), base: None, undated: 0, version }
    }

    fn place(&self) -> Before {
        Before { length: self.bytes.len(), base: self.base, undated: self.undated }
    }

    fn back_to(&mut self, before: Before) {
        self.bytes.truncate(before.length);
        (self.base, self.undated) = (before.base, before.undated);
    }

    fn rendered(mut self, entries: usize) -> serde_json::Result<Rendered> {
        if self.undated > 0 {
            let count = f64::from(self.undated);
            self.add(
                When::Ago(0),
                Record { n: ":undated".into(), u: Some("count"), v: Some(count), ..Record::default() },
            )?;
        }
        Ok(Rendered { lines: self.bytes, entries })
    }

    fn reading(&mut self, stored: &'a Stored) -> serde_json::Result<()> {
        let reading = &stored.reading;
        let Some(when) = self.when(reading.stamp) else {
            self.undated += 1;
            return Ok(());
        };
        let name = reading.point.as_str();
        if let Some(value) = reading.value {
            let unit = self.teller.senml_unit(&reading.point).map(|unit| unit.name);
            self.add(when, Record { n: name.into(), u: unit, v: Some(value), ..Record::default() })?;
        }
        let Some(why) = reading.quality.why() else { return Ok(()) };
        let why = serde_json::to_value(why)?;
        let word = format!("{} {}", reading.quality.word(), why.as_str().unwrap_or_default());
        self.add(when, Record { n: format!("{name}:quality").into(), vs: Some(word.into()), ..Record::default() })
    }

    fn gap(&mut self, gap: &Gap) -> serde_json::Result<()> {
        let when = gap.from.and_then(|stamp| self.when(stamp)).unwrap_or(When::Ago(0));
        let cause = serde_json::to_value(gap.cause)?;
        let name = format!(":gap:{}", cause.as_str().unwrap_or_default());
        self.add(when, Record { n: name.into(), u: Some("count"), v: Some(gap.count as f64), ..Record::default() })
    }

    fn when(&self, stamp: Stamp) -> Option<When> {
        let dated = self.teller.clock.resolve(stamp).filter(|wall| wall.unix_ms >= ABSOLUTE_FROM_MS);
        match dated {
            Some(wall) if wall.source.is_trusted() => Some(When::Wall(wall.unix_ms)),
            _ if stamp.boot == self.now.boot => {
                let ago = self.now.mono_ms.saturating_sub(stamp.mono_ms);
                Some(When::Ago(i64::try_from(ago).unwrap_or(i64::MAX)))
            }
            Some(wall) if wall.source == Source::Estimated => Some(When::Wall(wall.unix_ms)),
            _ => None,
        }
    }

    fn add(&mut self, when: When, mut record: Record<'a>) -> serde_json::Result<()> {
        let (base, at) = match when {
            When::Wall(unix_ms) => (self.base.filter(|base| *base > 0).unwrap_or(unix_ms), unix_ms),
            When::Ago(ms) => (0, -ms),
        };
        if self.base != Some(base) {
            record.bt = Some(seconds(base));
            self.base = Some(base);
        }
        record.t = Some(seconds(at - base)).filter(|seconds| *seconds != 0.0);
        if self.bytes.is_empty() {
            (record.bn, record.bver) = (Some(self.teller.base), Some(self.version));
        }
        self.bytes.extend_from_slice(if self.bytes.is_empty() { b"[" } else { b",\n" });
        serde_json::to_writer(&mut self.bytes, &record)
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// A unit in SenML's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit<'a> {
    name: &'a str,
    secondary: bool,
}

/// UCUM to SenML's primary registry. source: RFC 8428, 12.1
const PRIMARY: &[(&str, &str)] = &[
    ("%{RH}", "%RH"),
    ("A", "A"),
    ("Bq", "Bq"),
    ("C", "C"),
    ("Cel", "Cel"),
    ("F", "F"),
    ("H", "H"),
    ("Hz", "Hz"),
    ("J", "J"),
    ("K", "K"),
    ("L", "l"),
    ("L/s", "l/s"),
    ("N", "N"),
    ("Ohm", "Ohm"),
    ("Pa", "Pa"),
    ("T", "T"),
    ("V", "V"),
    ("V.A", "VA"),
    ("V.A{reactive}", "var"),
    ("W", "W"),
    ("W/m2", "W/m2"),
    ("dB", "dB"),
    ("g", "g"),
    ("kg", "kg"),
    ("kg/m3", "kg/m3"),
    ("l", "l"),
    ("lm", "lm"),
    ("lx", "lx"),
    ("m", "m"),
    ("m/s", "m/s"),
    ("m2", "m2"),
    ("m3", "m3"),
    ("m3/s", "m3/s"),
    ("s", "s"),
];
/// UCUM to SenML's secondary registry. source: RFC 8798, 3
const SECONDARY: &[(&str, &str)] = &[
    ("%", "/100"),
    ("A.h", "Ah"),
    ("V.A{reactive}.h", "varh"),
    ("V.A.h", "VAh"),
    ("W.h", "Wh"),
    ("[ppm]", "ppm"),
    ("cm", "cm"),
    ("h", "h"),
    ("hPa", "hPa"),
    ("kV.A", "kVA"),
    ("kV.A.h", "kVAh"),
    ("kV.A{reactive}", "kvar"),
    ("kV.A{reactive}.h", "kvarh"),
    ("kW", "kW"),
    ("kW.h", "kWh"),
    ("km", "km"),
    ("km/h", "km/h"),
    ("mA", "mA"),
    ("mV", "mV"),
    ("m/h", "m/h"),
    ("min", "min"),
    ("mm", "mm"),
    ("mm/h", "mm/h"),
    ("ms", "ms"),
    ("ug/m3", "ug/m3"),
];

impl Teller<'_> {
    /// The unit of a point; UCUM as it is where no registry knows it. `None` for a point the configuration lost.
    fn senml_unit(&self, point: &PointId) -> Option<Unit<'_>> {
        let point = self.live.point(point)?;
        let find =
            |table: &[(&str, &'static str)]| table.iter().find(|(ucum, _)| *ucum == point.unit).map(|(_, name)| *name);
        let primary = match (point.unit.as_str(), point.kind) {
            ("1", Kind::Counter) => Some("count"),
            ("1", _) => Some("/"),
            _ => find(PRIMARY),
        };
        let secondary = || find(SECONDARY).map(|name| Unit { name, secondary: true });
        let registered = primary.map(|name| Unit { name, secondary: false }).or_else(secondary);
        Some(registered.unwrap_or(Unit { name: &point.unit, secondary: false }))
    }
}

/// What names may begin with: letters, digits and hyphens of a text, in lower case, French accents taken off.
/// source: RFC 8428, 4.5.1
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' | '0'..='9' => plain.push(letter),
            'à' | 'â' | 'ä' => plain.push('a'),
            'ç' => plain.push('c'),
            'é' | 'è' | 'ê' | 'ë' => plain.push('e'),
            'î' | 'ï' => plain.push('i'),
            'ô' | 'ö' => plain.push('o'),
            'ù' | 'û' | 'ü' => plain.push('u'),
            'ÿ' => plain.push('y'),
            'œ' => plain.push_str("oe"),
            'æ' => plain.push_str("ae"),
            _ if plain.ends_with('-') || plain.is_empty() => {}
            _ => plain.push('-'),
        }
    }
    plain.truncate(plain.trim_end_matches('-').len().min(64));
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        clock::{Clock, HeldTime, Sample},
        live::Live,
        reading::{Point, Quality, Reading, Sharing, Why},
        store::Cause,
    };

    const NOON: i64 = 1_780_315_200_000;

    fn point(name: &str, unit: &str, kind: Kind) -> Point {
        let (label, decimals, interval, range) = (name.to_owned(), 0, None, None);
        let id = name.parse().expect("an id");
        Point { id, label, unit: unit.to_owned(), kind, decimals, interval, range, sharing: Sharing::Public }
    }

    fn live() -> Live {
        let points = [
            point("heat", "Cel", Kind::Gauge),
            point("meter", "kW.h", Kind::Counter),
            point("odd", "[gal_us]", Kind::Gauge),
            point("door", "1", Kind::State),
            point("pulse", "1", Kind::Counter),
        ];
        Live::new(points, [])
    }

    fn reading(seq: u64, point: &str, boot: u32, mono_ms: u64, value: Option<f64>, quality: Quality) -> Entry {
        let (point, stamp) = (point.parse().expect("an id"), Stamp { boot, mono_ms });
        Entry::Reading(Stored { seq, reading: Reading { point, stamp, value, quality } })
    }

    fn good(seq: u64, point: &str, boot: u32, mono_ms: u64) -> Entry {
        reading(seq, point, boot, mono_ms, Some(seq as f64 / 4.0), Quality::Good)
    }

    /// Boot 2 has a trusted time, boot 3 is now and has none, boot 1 is forgotten.
    fn clock() -> Clock {
        let time = HeldTime::at(60_000, Source::Unknown);
        let of_two = Sample {
            stamp: Stamp { boot: 2, mono_ms: 0 },
            unix_ms: NOON,
            error_ms: 50,
            source: Source::Ntp,
            straight_ms: 0,
        };
        let clock = Clock::new(3, time.clone(), [of_two]);
        clock.observe();
        time.advance(100_000);
        clock
    }

    fn pack(entries: &[Entry], limit: usize) -> (Vec<Value>, usize) {
        let (clock, live) = (clock(), live());
        let teller = Teller { clock: &clock, live: &live, base: "montclar/" };
        let rendered = render(&teller, entries, limit).expect("rendered");
        let mut bytes = rendered.lines;
        let end = close("montclar/", !bytes.is_empty(), true).expect("closed");
        bytes.extend_from_slice(&end);
        (serde_json::from_slice(&bytes).expect("a JSON array"), rendered.entries)
    }

    /// The rules of RFC 8428 that a reader relies on; gives name, unit, value and time of each record, resolved
    /// (4.6), with `now` in seconds for what is relative to it.
    fn resolve(pack: &[Value], now: f64) -> Vec<(String, Option<String>, Value, f64)> {
        let (mut base_name, mut base_time, mut base_version) = (String::new(), 0.0, None);
        let mut resolved = Vec::new();
        assert!(!pack.is_empty(), "a pack has a record at least");
        for record in pack {
            let record = record.as_object().expect("an object");
            let labels = ["bn", "bt", "bver", "n", "u", "v", "vs", "vb", "t"];
            assert!(record.keys().all(|key| labels.contains(&key.as_str())), "only registered labels: {record:?}");
            if let Some(name) = record.get("bn") {
                name.as_str().expect("a string").clone_into(&mut base_name);
            }
            if let Some(time) = record.get("bt") {
                base_time = time.as_f64().expect("a number");
            }
            if let Some(version) = record.get("bver") {
                assert!(base_version.is_none(), "one version a pack");
                base_version = version.as_u64();
            }
            let name = base_name.clone() + record.get("n").and_then(Value::as_str).unwrap_or_default();
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-:./_".contains(c);
            assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed), "{name}");
            let values: Vec<_> = ["v", "vs", "vb"].iter().filter_map(|label| record.get(*label)).collect();
            assert_eq!(values.len(), 1, "exactly one value: {record:?}");
            let time = base_time + record.get("t").map_or(0.0, |t| t.as_f64().expect("a number"));
            let time = if time < 268_435_456.0 { now + time } else { time };
            let unit = record.get("u").map(|unit| unit.as_str().expect("a string").to_owned());
            resolved.push((name, unit, values[0].clone(), time));
        }
        assert!(matches!(base_version, Some(10 | 26)), "{base_version:?}");
        resolved
    }

    #[test]
    fn a_pack_resolves_to_what_was_measured_in_seconds_and_senml_units() {
        let entries = [good(1, "heat", 2, 0), good(2, "meter", 2, 10_250), good(3, "heat", 2, 20_000)];
        let (records, _) = pack(&entries, 1 << 20);
        assert_eq!(records[0]["bver"], 26, "kWh is of the secondary registry");
        let noon = NOON as f64 / 1_000.0;
        let told = |name: &str, unit: &str, value: f64, time: f64| {
            (format!("montclar/{name}"), Some(unit.to_owned()), Value::from(value), time)
        };
        let resolved = resolve(&records, 0.0);
        let expected = [
            told("heat", "Cel", 0.25, noon),
            told("meter", "kWh", 0.5, noon + 10.25),
            told("heat", "Cel", 0.75, noon + 20.0),
        ];
        assert_eq!(resolved[..3], expected);
        assert_eq!((resolved[3].0.as_str(), &resolved[3].2), ("montclar/:complete", &Value::Bool(true)));
    }

    #[test]
    fn only_units_of_the_primary_registry_need_no_feature() {
        let (records, _) = pack(
            &[good(1, "heat", 2, 0), good(2, "door", 2, 5), good(3, "pulse", 2, 6), good(4, "odd", 2, 7)],
            1 << 20,
        );
        assert_eq!(records[0]["bver"], 10);
        let units: Vec<_> = records.iter().filter_map(|record| record["u"].as_str()).collect();
        assert_eq!(units, ["Cel", "/", "count", "[gal_us]"], "UCUM stays where no registry knows it");
    }

    #[test]
    fn a_clock_nobody_vouches_for_gives_times_relative_to_now() {
        let entries = [good(1, "heat", 3, 70_000), good(2, "heat", 2, 0), good(3, "heat", 3, 99_000)];
        let resolved = resolve(&pack(&entries, 1 << 20).0, 5_000.0);
        let times: Vec<_> = resolved.iter().map(|(.., time)| *time).collect();
        assert_eq!(times[..3], [4_970.0, NOON as f64 / 1_000.0, 4_999.0], "never 1970, whatever the clock says");
    }

    #[test]
    fn what_senml_has_no_word_for_is_counted_beside_the_points() {
        let stamp = |mono_ms| Some(Stamp { boot: 2, mono_ms });
        let gap = Gap { first: 3, last: 9, count: 7, from: stamp(2_000), to: stamp(3_000), cause: Cause::SizeLimit };
        let entries = [
            reading(1, "heat", 2, 0, None, Quality::Bad(Why::NoAnswer)),
            reading(2, "heat", 2, 1_000, Some(99.0), Quality::Suspect(Why::OutOfRange)),
            Entry::Gap(gap),
            good(10, "heat", 1, 0),
            good(11, "heat", 1, 1),
        ];
        let (records, told) = pack(&entries, 1 << 20);
        let resolved = resolve(&records, 0.0);
        let named: Vec<_> = resolved.iter().map(|(name, _, value, _)| (name.as_str(), value.clone())).collect();
        let expected = [
            ("montclar/heat:quality", Value::from("bad no-answer")),
            ("montclar/heat", Value::from(99.0)),
            ("montclar/heat:quality", Value::from("suspect out-of-range")),
            ("montclar/:gap:size-limit", Value::from(7.0)),
            ("montclar/:undated", Value::from(2.0)),
            ("montclar/:complete", Value::Bool(true)),
        ];
        assert_eq!((named.as_slice(), told), (expected.as_slice(), 5));
        assert_eq!(resolved[3].3, NOON as f64 / 1_000.0 + 2.0);
    }

    #[test]
    fn a_pack_keeps_to_its_limit_and_one_without_readings_is_still_a_pack() {
        let entries: Vec<_> = (1..=100).map(|seq| good(seq, "heat", 2, seq * 10_000)).collect();
        for limit in [0, 200, 1_000] {
            let (records, told) = pack(&entries, limit);
            assert_eq!(resolve(&records, 0.0).len(), told + 1);
            assert!((1..100).contains(&told), "{limit}: {told}");
        }
        let (records, _) = pack(&[], 1 << 20);
        assert_eq!(resolve(&records, 7.0), [("montclar/:complete".to_owned(), None, Value::Bool(true), 7.0)]);
    }

    #[test]
    fn a_french_name_becomes_one_that_senml_can_carry() {
        assert_eq!(plain("Salle des fêtes"), "salle-des-fetes");
        assert_eq!(plain("L'Haÿ-les-Roses (Œuf)"), "l-hay-les-roses-oeuf");
        assert_eq!(plain("—"), "");
    }
}
