//! Meters that close a contact for every so many litres (or kWh): a durable index and the flow between pulses.
//!
//! **What can be lost.** The first pulse after a quiet moment is told, and on the card, at once; in a run of pulses the
//! index is told every `report_every` (10 s). A power cut costs the pulses of that time at most, an ordered stop
//! none, and both those the meter gives while the gateway is off. To catch up, type the dial's value again as `index`: the greater of what is typed and
//! what was counted holds, so an index never goes back. A new meter is a new device: give it a new name.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Common, Device, Driver, NotACapture, PinDecoder, Said, Wire,
    contact::{self, CLOSED, DEBOUNCE, INTERVAL, PIN, PULL, Pin},
    words,
};
use crate::{
    config::{Block, Both, Field, Presence},
    port::gpio::Edge,
    reading::{Kind, Point, PointId, Quality, Why},
};

/// A pulse meter.
pub const DRIVER: Driver = Driver {
    name: "pulse",
    title: "Meter with a pulse output on a GPIO pin: water, gas, electricity",
    source: "Reed or open-collector output, EN 62053-31 (S0); Itron Cyble LF, Sappel Pulsar data sheets",
    fields: FIELDS,
    read,
    replay,
};

const FIELDS: &[Field] =
    &[PIN, PULL, CLOSED, DEBOUNCE, LITRES, PER_PULSE, UNIT, INDEX, REPORT_EVERY, INTERVAL, MAX_FLOW];

const LITRES: Field = Field {
    name: "litres_per_pulse",
    expects: Both("a number such as 1, 2.5 or 10", "un nombre comme 1, 2.5 ou 10 (avec un point)"),
    presence: Presence::Optional,
    doc: "Water meters: litres for one pulse, as printed on the head of the meter (1, 2.5, 10, 25, 100, 1000).",
};
const PER_PULSE: Field = Field {
    name: "per_pulse",
    expects: Both("a number such as 0.001", "un nombre comme 0.001 (avec un point)"),
    presence: Presence::Optional,
    doc: "Other meters, instead of `litres_per_pulse`: what one pulse counts, in `unit`. 1000 imp/kWh is 0.001 kWh.",
};
const UNIT: Field = Field {
    name: "unit",
    expects: Both("\"L\", \"m3\", \"kWh\" or \"Wh\"", "\"L\", \"m3\", \"kWh\" ou \"Wh\""),
    presence: Presence::Default("\"L\""),
    doc: "The unit of `per_pulse` and of the index.",
};
const INDEX: Field = Field {
    name: "index",
    expects: Both("a number, in the unit of the index", "un nombre, dans l'unité de l'index"),
    presence: Presence::Default("0"),
    doc: "What the meter's dial shows when the gateway is installed, in litres for a water meter. Typed again later, it \
          catches up pulses that were missed: the greater of this and of what was counted holds.",
};
const REPORT_EVERY: Field = Field {
    name: "report_every",
    expects: Both("a duration such as \"10 s\"", "une durée comme \"10 s\""),
    presence: Presence::Default("\"10 s\""),
    doc: "In a run of pulses the index is stored so often: the most a power cut can cost.",
};
const MAX_FLOW: Field = Field {
    name: "max_flow",
    expects: Both("a number, in L/h for a water meter", "un nombre, en L/h pour un compteur d'eau"),
    presence: Presence::Optional,
    doc: "The most that can flow through this meter in an hour (its Q4). Beyond it index and flow are told as suspect.",
};

/// Units of an index, of what flows in an hour, and what that is called.
const UNITS: &[(&str, Measure)] = &[
    ("L", Measure { unit: "L", rate: "L/h", channel: "flow" }),
    ("m3", Measure { unit: "m3", rate: "m3/h", channel: "flow" }),
    ("kWh", Measure { unit: "kWh", rate: "kW", channel: "power" }),
    ("Wh", Measure { unit: "Wh", rate: "W", channel: "power" }),
];

#[derive(Debug, Clone, Copy)]
struct Measure {
    unit: &'static str,
    rate: &'static str,
    channel: &'static str,
}

const HOUR_MS: f64 = 3_600_000.0;
/// The flow is zero when the next pulse is twice overdue, but not sooner, and not later, than this.
const QUIET_MS: (u64, u64) = (30_000, 3_600_000);
/// The same before two pulses were seen.
const QUIET_AT_START_MS: u64 = 60_000;

fn read(block: &Block<'_>, common: Common) -> Option<Device> {
    let pin = Pin::read(block);
    let measure = block.choice(&UNIT, UNITS);
    let per_pulse = per_pulse(block);
    let start = block.within(&INDEX, 0.0, 1e12);
    let report_every = block.duration_within(&REPORT_EVERY, Duration::from_secs(1), Duration::from_secs(3_600));
    let interval = contact::interval(block);
    let max_flow = block.within(&MAX_FLOW, 0.001, 1e9);
    if block.has(MAX_FLOW.name) && max_flow.is_none() {
        return None;
    }
    let (pin, measure, per_pulse, start) = (pin?, measure?, per_pulse?, start?);
    let (report_every, interval) = (report_every?, interval?);
    let points = points(block, &common, measure, per_pulse, interval, max_flow)?;
    let [index, rate] = &points;
    let decoder = Pulse {
        index: index.id.clone(),
        rate: rate.id.clone(),
        closed_is_high: pin.closed_is_high,
        per_pulse,
        report_every_ms: millis(report_every),
        interval_ms: millis(interval),
        max_flow,
        base: start,
        count: 0,
        closed: None,
        started: None,
        last_pulse: None,
        gap_ms: None,
        measured: None,
        flow: None,
        told: None,
    };
    let points = points.to_vec();
    Some(pin.device(common, DRIVER.name, points, Box::new(decoder)))
}

/// What one pulse counts, by one of the two options.
fn per_pulse(block: &Block<'_>) -> Option<f64> {
    let (litres, other) = (block.has(LITRES.name), block.has(PER_PULSE.name));
    if litres == other {
        block.fault(
            LITRES.name,
            words!(
                "one of `litres_per_pulse` and `per_pulse` was expected",
                "attendu : soit `litres_per_pulse`, soit `per_pulse`"
            ),
        );
        return None;
    }
    if litres && block.has(UNIT.name) {
        block.fault(
            UNIT.name,
            words!(
                "`unit` goes with `per_pulse`; `litres_per_pulse` counts litres",
                "`unit` va avec `per_pulse` ; `litres_per_pulse` compte des litres"
            ),
        );
        return None;
    }
    block.within(if litres { &LITRES } else { &PER_PULSE }, 1e-6, 1e6)
}

fn points(
    block: &Block<'_>,
    common: &Common,
    measure: Measure,
    per_pulse: f64,
    interval: Duration,
    max_flow: Option<f64>,
) -> Option<[Point; 2]> {
    let index = contact::point_name(block, common, "index");
    let rate = contact::point_name(block, common, measure.channel);
    let point = |id: PointId, unit: &str, kind, decimals, range| Point {
        id,
        label: common.label.clone(),
        unit: unit.to_owned(),
        kind,
        decimals,
        interval: Some(interval),
        range,
        sharing: common.sharing,
    };
    let range = max_flow.map(|limit| 0.0..=limit);
    let index = point(index?, measure.unit, Kind::Counter, decimals(per_pulse), None);
    Some([index, point(rate?, measure.rate, Kind::Gauge, 1, range)])
}

/// Digits that a step of this size needs.
fn decimals(step: f64) -> u8 {
    let whole = |digits: u8| {
        let scaled = step * 10_f64.powi(i32::from(digits));
        (scaled - scaled.round()).abs() < 1e-6 && scaled.round() >= 1.0
    };
    (0..6).find(|digits| whole(*digits)).unwrap_or(6)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counts closings. The index is kept as a start and a whole number of pulses, so that no rounding adds up.
#[derive(Debug)]
struct Pulse {
    index: PointId,
    rate: PointId,
    closed_is_high: bool,
    per_pulse: f64,
    report_every_ms: u64,
    interval_ms: u64,
    max_flow: Option<f64>,
    base: f64,
    count: u64,
    closed: Option<bool>,
    started: Option<u64>,
    last_pulse: Option<u64>,
    /// Mean time between pulses when the flow was last measured.
    gap_ms: Option<u64>,
    /// The pulse, and the count with it, from which the next flow is measured.
    measured: Option<(u64, u64)>,
    flow: Option<f64>,
    /// When the index was last told, and what.
    told: Option<(u64, f64)>,
}

impl Pulse {
    fn index(&self) -> f64 {
        self.base + self.count as f64 * self.per_pulse
    }

    fn is_news(&self) -> bool {
        self.told.is_none_or(|(_, told)| told < self.index())
    }

    fn told_for(&self, now_ms: u64) -> u64 {
        self.told.map_or(u64::MAX, |(at, _)| now_ms.saturating_sub(at))
    }

    /// The flow between the last pulse of the report before and the last pulse now.
    fn measure(&mut self) {
        let Some(pulse) = self.last_pulse else { return };
        if let Some((since, count)) = self.measured
            && self.count > count
        {
            let pulses = self.count - count;
            let apart = pulse.saturating_sub(since).max(1);
            self.flow = Some(pulses as f64 * self.per_pulse * HOUR_MS / apart as f64);
            self.gap_ms = Some(apart / pulses);
        }
        self.measured = Some((pulse, self.count));
    }

    fn tell(&mut self, now_ms: u64, said: &mut Vec<Said>) {
        let (index, flow) = (self.index(), self.flow);
        let too_fast = flow.zip(self.max_flow).is_some_and(|(flow, most)| flow > most);
        let quality = if too_fast { Quality::Suspect(Why::ImplausibleStep) } else { Quality::Good };
        said.push(Said::Value { point: self.index.clone(), value: Some(index), quality });
        if flow.is_some() {
            said.push(Said::Value { point: self.rate.clone(), value: flow, quality });
        }
        self.told = Some((now_ms, index));
    }

    /// Nothing has come for twice the time a pulse takes.
    fn has_run_dry(&self, now_ms: u64) -> bool {
        let since = self.last_pulse.or(self.started).unwrap_or(now_ms);
        let quiet = self.gap_ms.map_or(QUIET_AT_START_MS, |gap| (gap.saturating_mul(2)).clamp(QUIET_MS.0, QUIET_MS.1));
        self.flow != Some(0.0) && now_ms.saturating_sub(since) > quiet
    }
}

impl PinDecoder for Pulse {
    fn resume(&mut self, point: &PointId, value: f64) {
        if *point == self.index && value > self.index() {
            (self.base, self.count) = (value, 0);
            self.measured = None;
        }
    }

    fn edge(&mut self, edge: Edge, mono_ms: u64, said: &mut Vec<Said>) {
        let closed = edge.high == self.closed_is_high;
        // The first edge tells the present level, which is no pulse; neither is a level told twice.
        let pulse = closed && self.closed == Some(false);
        self.closed = Some(closed);
        self.started.get_or_insert(mono_ms);
        if !pulse {
            return;
        }
        self.count += 1;
        self.last_pulse = Some(mono_ms);
        if self.told_for(mono_ms) >= self.report_every_ms {
            self.measure();
            self.tell(mono_ms, said);
        }
    }

    fn tick(&mut self, mono_ms: u64, said: &mut Vec<Said>) {
        self.started.get_or_insert(mono_ms);
        let waited = self.told_for(mono_ms);
        if self.is_news() && waited >= self.report_every_ms {
            self.measure();
            self.tell(mono_ms, said);
        }
        if self.has_run_dry(mono_ms) {
            self.flow = Some(0.0);
            self.tell(mono_ms, said);
        }
        if waited != u64::MAX && self.told_for(mono_ms) >= self.interval_ms {
            self.tell(mono_ms, said);
        }
    }

    fn finish(&mut self, mono_ms: u64, said: &mut Vec<Said>) {
        if self.is_news() {
            self.measure();
            self.tell(mono_ms, said);
        }
    }
}

/// One day of a meter, hour by hour.
#[derive(Debug, Deserialize)]
struct Day {
    hourly_litres_from_local_midnight: Vec<f64>,
}

/// Edges as text, or days of hourly litres as JSON, from which the index after each hour is told.
fn replay(device: Device, capture: &[u8]) -> Result<Vec<Said>, NotACapture> {
    if capture.trim_ascii_start().starts_with(b"[") {
        return replay_days(device, capture);
    }
    contact::play(device, &contact::edges(capture)?)
}

fn replay_days(device: Device, capture: &[u8]) -> Result<Vec<Said>, NotACapture> {
    const HOUR: u64 = 3_600_000;
    let days: Vec<Day> = serde_json::from_slice(capture)
        .map_err(|wrong| NotACapture { line: wrong.line(), message: format!("days of hourly litres: {wrong}") })?;
    let whole_file = |message: &str| NotACapture { line: 0, message: message.to_owned() };
    let (Wire::Pin { mut decoder, .. }, Some(index)) = (device.wire, device.points.first()) else {
        return Err(whole_file("the device is not on a pin"));
    };
    let index = index.id.clone();
    let mut said = Vec::new();
    let mut now = 0;
    decoder.tick(now, &mut said);
    let Some(Said::Value { value: Some(mut total), .. }) = said.pop() else { return Ok(said) };
    for day in days {
        let hours = day.hourly_litres_from_local_midnight;
        if hours.len() != 24 || !hours.iter().all(|litres| (0.0..=1e6).contains(litres)) {
            return Err(whole_file("24 hours of 0 to 1000000 litres were expected"));
        }
        for litres in hours {
            now += HOUR;
            total += litres;
            decoder.resume(&index, total);
            decoder.tick(now, &mut said);
        }
    }
    said.retain(|one| matches!(one, Said::Value { point, .. } if *point == index));
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::{
        super::contact::tests::{decoder, device, values},
        *,
    };

    const METER: &str = "pin = 17\nlitres_per_pulse = 1\nindex = 1000\n";

    fn replayed(options: &str, capture: &str) -> Vec<Said> {
        replay(device(&DRIVER, options).expect("a device"), capture.as_bytes()).expect("a capture")
    }

    /// Presses the reed once, at `ms`, for 100 ms.
    fn pulse(decoder: &mut dyn PinDecoder, ms: u64, said: &mut Vec<Said>) {
        decoder.edge(Edge { high: false }, ms, said);
        decoder.edge(Edge { high: true }, ms + 100, said);
    }

    fn ticks(decoder: &mut dyn PinDecoder, seconds: std::ops::RangeInclusive<u64>, said: &mut Vec<Said>) {
        seconds.for_each(|second| decoder.tick(second * 1_000, said));
    }

    #[test]
    fn only_closings_count_and_the_level_at_the_start_does_not() {
        let said = replayed(METER, "0 0\n1000 1\n20000 0\n20200 1\n40000 0\n");
        assert_eq!(values(&said, "index").last(), Some(&1002.0), "closed at first, then two pulses");
    }

    #[test]
    fn a_reed_that_bounces_gives_one_pulse() {
        let said = replayed(METER, "0 1\n5000 0\n5002 1\n5004 0\n5009 1\n5010 0\n5400 1\n5403 0\n5405 1\n");
        assert_eq!(values(&said, "index").last(), Some(&1001.0));
    }

    #[test]
    fn the_capture_of_a_reed_is_ten_litres_at_six_hundred_an_hour() {
        let said = replayed(METER, include_str!("../../tests/fixtures/pulse/reed.edges"));
        assert_eq!(values(&said, "index").last(), Some(&1010.0));
        assert_eq!(values(&said, "flow").iter().copied().fold(0.0, f64::max), 600.0);
        assert_eq!(values(&said, "flow").last(), Some(&0.0), "and then nothing");
    }

    #[test]
    fn a_lone_pulse_is_told_at_once_and_a_run_of_them_every_ten_seconds() {
        let mut meter = decoder(&DRIVER, METER);
        let mut said = Vec::new();
        meter.edge(Edge { high: true }, 0, &mut said);
        meter.tick(0, &mut said);
        assert_eq!(values(&said, "index"), [1000.0], "shown from the start");
        said.clear();
        (60..90).for_each(|second| {
            pulse(meter.as_mut(), second * 1_000, &mut said);
            meter.tick(second * 1_000 + 500, &mut said);
        });
        assert_eq!(values(&said, "index"), [1001.0, 1011.0, 1021.0], "at 60, 70 and 80 s");
        ticks(meter.as_mut(), 90..=90, &mut said);
        assert_eq!(values(&said, "index").last(), Some(&1030.0), "none is forgotten");
    }

    #[test]
    fn an_ordered_stop_tells_the_pulses_of_an_unfinished_run() {
        let mut meter = decoder(&DRIVER, METER);
        let mut said = Vec::new();
        meter.edge(Edge { high: true }, 0, &mut said);
        (60..65).for_each(|second| pulse(meter.as_mut(), second * 1_000, &mut said));
        assert_eq!(values(&said, "index"), [1001.0], "the run goes on");
        meter.finish(65_000, &mut said);
        meter.finish(65_000, &mut said);
        assert_eq!(values(&said, "index"), [1001.0, 1005.0], "once");
    }

    #[test]
    fn the_flow_is_that_of_the_pulses_and_falls_to_zero_when_the_next_is_twice_overdue() {
        let mut meter = decoder(&DRIVER, METER);
        let mut said = Vec::new();
        meter.edge(Edge { high: true }, 0, &mut said);
        for second in 0..=600 {
            if second % 60 == 0 {
                pulse(meter.as_mut(), second * 1_000, &mut said);
            }
            meter.tick(second * 1_000 + 500, &mut said);
        }
        assert_eq!(values(&said, "flow").last(), Some(&60.0), "a litre a minute");
        said.clear();
        ticks(meter.as_mut(), 601..=720, &mut said);
        assert_eq!(values(&said, "flow"), [] as [f64; 0], "not yet");
        ticks(meter.as_mut(), 721..=1_000, &mut said);
        assert_eq!(values(&said, "flow"), [0.0]);
        assert_eq!(values(&said, "index"), [1011.0]);
    }

    #[test]
    fn a_meter_that_does_not_turn_is_told_every_interval_with_a_flow_of_zero() {
        let mut meter = decoder(&DRIVER, METER);
        let mut said = Vec::new();
        ticks(meter.as_mut(), 0..=700, &mut said);
        assert_eq!(values(&said, "index"), [1000.0; 4], "at 0, 61, 361 and 661 s");
        assert_eq!(values(&said, "flow"), [0.0; 3]);
    }

    #[test]
    fn the_index_goes_on_from_what_was_stored_or_from_a_greater_one_typed_later_and_never_back() {
        for (stored, expected) in [(5_000.0, 5_001.0), (20.0, 1_001.0)] {
            let mut meter = decoder(&DRIVER, METER);
            let mut said = Vec::new();
            meter.resume(&"place/thing/index".parse().expect("a name"), stored);
            meter.resume(&"place/thing/flow".parse().expect("a name"), 9e9);
            meter.edge(Edge { high: true }, 0, &mut said);
            pulse(meter.as_mut(), 1_000, &mut said);
            assert_eq!(values(&said, "index"), [expected]);
        }
    }

    #[test]
    fn a_flow_no_meter_of_this_size_lets_through_is_suspect() {
        let mut meter = decoder(&DRIVER, "pin = 17\nlitres_per_pulse = 10\nmax_flow = 5000");
        let mut said = Vec::new();
        meter.edge(Edge { high: true }, 0, &mut said);
        pulse(meter.as_mut(), 1_000, &mut said);
        pulse(meter.as_mut(), 1_200, &mut said);
        ticks(meter.as_mut(), 2..=11, &mut said);
        let suspect = |one: &Said| matches!(one, Said::Value { quality: Quality::Suspect(Why::ImplausibleStep), .. });
        assert_eq!(said.iter().filter(|one| suspect(one)).count(), 2, "{said:?}");
    }

    #[test]
    fn a_thousand_pulses_of_a_tenth_do_not_drift() {
        let mut meter = decoder(&DRIVER, "pin = 17\nper_pulse = 0.1\nunit = \"kWh\"");
        let mut said = Vec::new();
        meter.edge(Edge { high: true }, 0, &mut said);
        (1..=1_000).for_each(|n| pulse(meter.as_mut(), n * 20_000, &mut said));
        assert_eq!(values(&said, "index").last(), Some(&100.0));
        assert_eq!(values(&said, "power").last(), Some(&18.0), "0.1 kWh every 20 s");
    }

    #[test]
    fn days_of_hourly_litres_become_the_index_after_each_hour() {
        let said = replayed(METER, include_str!("../../tests/fixtures/pulse/night_flow.json"));
        let index = values(&said, "index");
        assert_eq!(index.len(), 4 * 24);
        assert_eq!((index[5], index[6], index[23]), (1000.0, 1005.0, 1552.0));
        assert_eq!(index[47] - index[23], 24.0 * 60.0);
        assert!(replay(device(&DRIVER, METER).expect("a device"), b"[{\"hourly\": 3}]").is_err());
    }

    #[test]
    fn points_carry_unit_kind_and_digits_of_the_meter() {
        let shown = |options: &str| {
            let points = device(&DRIVER, options).expect("a device").points;
            points.into_iter().map(|p| (p.id.to_string(), p.unit, p.decimals)).collect::<Vec<_>>()
        };
        let point = |id: &str, unit: &str, decimals| (format!("place/thing/{id}"), unit.to_owned(), decimals);
        assert_eq!(shown("pin = 1\nlitres_per_pulse = 2.5"), [point("index", "L", 1), point("flow", "L/h", 1)]);
        assert_eq!(
            shown("pin = 1\nper_pulse = 0.001\nunit = \"kWh\""),
            [point("index", "kWh", 3), point("power", "kW", 1)]
        );
    }

    #[test]
    fn what_a_pulse_counts_is_said_once_and_only_once() {
        for wrong in [
            "pin = 1",
            "pin = 1\nlitres_per_pulse = 1\nper_pulse = 1",
            "pin = 1\nlitres_per_pulse = 0",
            "pin = 1\nlitres_per_pulse = 1\nunit = \"kWh\"",
            "pin = 1\nlitres_per_pulse = 1\nmax_flow = -1",
        ] {
            assert!(device(&DRIVER, wrong).is_err_and(|faults| faults.len() == 1), "{wrong}");
        }
    }
}
