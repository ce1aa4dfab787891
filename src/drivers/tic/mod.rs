//! `tic`: the customer output of a Linky, historic and standard mode.
//!
//! source: Enedis-NOI-CPT_54E v3 (01/06/2018). The meter's identifiers (ADCO, ADSC, PRM) never become readings.

mod frame;
mod index;
mod labels;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use self::{
    frame::{Dropped, Framer, Group, groups, is_degraded},
    index::Believed,
    labels::{CLOCK_DEGRADED, Form, HISTORIC, OVER_POWER, Quantity, STANDARD},
};
use super::{Common, Device, Driver, NotACapture, Said, StreamDecoder, Wire};
use crate::{
    config::{Block, Both, Field, Presence},
    port::serial::{Framing, Line},
    reading::{Point, PointId, Quality, Why},
};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "tic",
    title: "Linky electricity meter, customer output (historic and standard mode)",
    source: "Enedis-NOI-CPT_54E v3",
    fields: FIELDS,
    read,
    replay,
};

const PORT: Field = Field {
    name: "port",
    expects: Both("a path such as \"/dev/serial/by-id/usb-...\"", "un chemin comme \"/dev/serial/by-id/usb-...\""),
    presence: Presence::Required,
    doc: "The serial adapter. A path under /dev/serial/by-id stays the same whatever is plugged in beside it.",
};
const MODE: Field = Field {
    name: "mode",
    expects: Both("\"standard\", \"historic\" or \"auto\"", "\"standard\", \"historic\" ou \"auto\""),
    presence: Presence::Default("\"standard\""),
    doc: "How the meter talks: standard at 9600 bit/s, historic at 1200. On a recent contract the historic mode sends \
          neither the tariff indexes nor the true subscription: ask the supplier for the standard mode. \"auto\" \
          takes both, at the speed given.",
};
const SPEED: Field = Field {
    name: "speed",
    expects: Both("bits per second: 1200 or 9600", "des bits par seconde : 1200 ou 9600"),
    presence: Presence::Optional,
    doc: "Only when it differs from the mode's own.",
};
const FRAMING: Field = Field {
    name: "framing",
    expects: Both("\"7E1\" or \"8N1\"", "\"7E1\" ou \"8N1\""),
    presence: Presence::Default("\"7E1\""),
    doc: "8N1 for a port without parity, as the Pi's mini-UART: the parity is then checked here.",
};
const EVERY: Field = Field {
    name: "every",
    expects: Both("a duration such as \"10 s\"", "une durée comme \"10 s\""),
    presence: Presence::Default("\"10 s\""),
    doc: "How often a value is kept. The meter speaks every second or two; alarms are kept at once.",
};
const FIELDS: &[Field] = &[PORT, MODE, SPEED, FRAMING, EVERY];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Standard,
    Historic,
    Auto,
}

const MODES: &[(&str, Mode)] = &[("standard", Mode::Standard), ("historic", Mode::Historic), ("auto", Mode::Auto)];
const FRAMINGS: &[(&str, Framing)] = &[("7E1", Framing::SevenE1), ("8N1", Framing::EightN1)];

impl Mode {
    fn speed(self) -> u32 {
        if self == Self::Historic { 1_200 } else { 9_600 }
    }

    fn quantities(self) -> impl Iterator<Item = &'static Quantity> {
        let standard = if self == Self::Historic { &[] } else { STANDARD };
        let historic = if self == Self::Standard { &[] } else { HISTORIC };
        standard.iter().chain(historic)
    }
}

fn read(block: &Block<'_>, common: Common) -> Option<Device> {
    let path = block.get(&PORT);
    let mode = block.choice(&MODE, MODES);
    let framing = block.choice(&FRAMING, FRAMINGS);
    let every = block.duration_within(&EVERY, Duration::from_secs(1), Duration::from_secs(3_600));
    let speed = if block.has(SPEED.name) { block.within(&SPEED, 300_u32, 115_200) } else { mode.map(Mode::speed) };
    let (mode, every) = (mode?, every?);
    let line = Line { path: path?, speed: speed?, framing: framing? };
    let points = points(&common, mode, every).map_err(|wrong| block.fault("name", wrong)).ok()?;
    let decoder = Box::new(Decoder::new(common.name.clone(), &points));
    let wire = Wire::Stream { line, every, decoder };
    Some(Device { name: common.name, label: common.label, driver: DRIVER.name, points, wire })
}

/// All that may be sent in a mode. Several labels may stand for one point; the first describes it.
fn points(common: &Common, mode: Mode, every: Duration) -> Result<Vec<Point>, crate::reading::NotAPointId> {
    let mut points: Vec<Point> = Vec::new();
    for quantity in mode.quantities() {
        let id = common.name.join(quantity.channel)?;
        if points.iter().all(|known| known.id != id) {
            points.push(point(id, common, quantity, every));
        }
    }
    Ok(points)
}

fn point(id: PointId, common: &Common, quantity: &Quantity, every: Duration) -> Point {
    Point {
        id,
        label: format!("{}, {}", common.label, quantity.title),
        unit: quantity.unit.to_owned(),
        kind: quantity.kind,
        decimals: 0,
        interval: quantity.always.then_some(every),
        range: quantity.range.clone(),
        sharing: common.sharing,
    }
}

/// Unreadable groups told one by one; a frame worse than that is a broken line, and the rest adds nothing.
const TOLD: usize = 8;

/// The meter's bytes to readings.
#[derive(Debug)]
struct Decoder {
    framer: Framer,
    meter: Meter,
}

/// What is known of a meter from one frame to the next.
#[derive(Debug)]
struct Meter {
    name: PointId,
    /// The points of the mode it was configured for; nothing else is told.
    declared: BTreeSet<PointId>,
    indexes: BTreeMap<&'static str, Believed>,
    /// Subscribed power, VA, as the meter said it.
    subscribed: Option<f64>,
    three_phase: bool,
}

impl Decoder {
    fn new(name: PointId, points: &[Point]) -> Self {
        let declared = points.iter().map(|point| point.id.clone()).collect();
        let meter = Meter { name, declared, indexes: BTreeMap::new(), subscribed: None, three_phase: false };
        Self { framer: Framer::default(), meter }
    }

    /// The capture is over.
    fn finish(&mut self, said: &mut Vec<Said>) {
        said.extend(self.framer.take_cut_short().map(|dropped| Said::Unreadable(dropped.to_string())));
    }
}

impl StreamDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], mono_ms: u64, said: &mut Vec<Said>) {
        for byte in bytes {
            self.framer.push(*byte, |frame| self.meter.frame(frame, mono_ms, said));
        }
    }

    fn reset(&mut self) {
        self.framer = Framer::default();
    }
}

impl Meter {
    fn frame(&mut self, frame: Result<&[u8], Dropped>, mono_ms: u64, said: &mut Vec<Said>) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(dropped) => return said.push(Said::Unreadable(dropped.to_string())),
        };
        let (mut sound, mut damaged) = (Vec::new(), 0);
        for group in groups(frame) {
            match group {
                Ok(group) => sound.push(group),
                Err(wrong) => {
                    damaged += 1;
                    if damaged <= TOLD {
                        said.push(Said::Unreadable(wrong.to_string()));
                    }
                }
            }
        }
        said.extend(self.other_mode(&sound));
        let supply = self.supply(&sound);
        for group in &sound {
            self.group(group, mono_ms, supply, said);
        }
        self.over_power_is_past(&sound, damaged, said);
        self.clock(&sound, said);
    }

    /// Told once a frame, when some of it has no point in the mode it was configured for.
    fn other_mode(&self, sound: &[Group<'_>]) -> Option<Said> {
        let undeclared = |quantity: &Quantity| !self.point(quantity.channel).is_some_and(|id| self.declares(&id));
        let dropped =
            sound.iter().flat_map(|group| quantities_of(group.label)).find(|quantity| undeclared(quantity))?;
        let spoken = if HISTORIC.iter().any(|known| known.label == dropped.label) { "historic" } else { "standard" };
        Some(Said::Unreadable(format!(
            "the meter speaks {spoken} mode, the other one is configured: {} and others are left out; mode = \"{spoken}\" \
             takes them",
            dropped.label
        )))
    }

    fn point(&self, channel: &str) -> Option<PointId> {
        self.name.join(channel).ok()
    }

    fn declares(&self, point: &PointId) -> bool {
        self.declared.contains(point)
    }

    /// What can be drawn, VA: the subscription, or what is drawn now when that is more. In historic mode on a recent
    /// contract the subscribed current is a placeholder (§6.1), so it cannot stand alone.
    fn supply(&mut self, sound: &[Group<'_>]) -> Option<f64> {
        let number = |label: &str| {
            sound.iter().find(|group| group.label == label).and_then(|group| Form::Number.read(group.data))
        };
        self.three_phase |= number("IINST2").is_some();
        let phases = if self.three_phase { 3.0 } else { 1.0 };
        let subscribed = number("PREF").map(|kva| kva * 1_000.0).or(number("ISOUSC").map(|a| a * 230.0 * phases));
        self.subscribed = subscribed.filter(|va| *va > 0.0).or(self.subscribed);
        let drawn = number("SINSTS").or(number("PAPP")).unwrap_or_default();
        self.subscribed.map(|subscribed| subscribed.max(drawn))
    }

    fn group(&mut self, group: &Group<'_>, mono_ms: u64, supply: Option<f64>, said: &mut Vec<Said>) {
        for quantity in quantities_of(group.label) {
            if quantity.channel == CLOCK_DEGRADED {
                continue;
            }
            let Some(value) = quantity.form.read(group.data) else {
                said.push(Said::Unreadable(format!("{}: {:?} is not what it can hold", group.label, group.data)));
                return;
            };
            let quality = match quantity.form {
                Form::Index => self.judge(quantity, value, mono_ms, supply),
                _ if group.horodate.is_some_and(is_degraded) => Quality::Suspect(Why::Degraded),
                _ => Quality::Good,
            };
            self.say(quantity.channel, value, quality, said);
        }
    }

    /// What is produced, or reactive, is not held to the subscription.
    fn judge(&mut self, quantity: &'static Quantity, value: f64, mono_ms: u64, supply: Option<f64>) -> Quality {
        let consumed = quantity.unit == "W.h" && quantity.label != "EAIT";
        match self.indexes.get_mut(quantity.channel) {
            Some(believed) => believed.judge(value, mono_ms, supply.filter(|_| consumed)),
            None => {
                self.indexes.insert(quantity.channel, Believed::first(value, mono_ms));
                Quality::Good
            }
        }
    }

    /// In historic mode an over-power is told by a group that is there. It is past when a whole and sound long frame
    /// is without it; the short frames of a three-phase meter tell nothing about it.
    fn over_power_is_past(&self, sound: &[Group<'_>], damaged: usize, said: &mut Vec<Said>) {
        let has = |label: &str| sound.iter().any(|group| group.label == label);
        let told = ["ADPS", "ADIR1", "ADIR2", "ADIR3"].into_iter().any(has);
        if damaged == 0 && has("PTEC") && !told {
            self.say(OVER_POWER, 0.0, Quality::Good, said);
        }
    }

    /// The meter tells twice that its clock is degraded: in the season of its dates and in a bit of STGE.
    fn clock(&self, sound: &[Group<'_>], said: &mut Vec<Said>) {
        let date = sound.iter().find(|group| group.label == "DATE").and_then(|group| group.horodate).map(is_degraded);
        let stge = sound.iter().find(|group| group.label == "STGE");
        let bit = stge.and_then(|group| Form::Bits { first: 16, bits: 1 }.read(group.data)).map(|bit| bit > 0.0);
        match (date, bit) {
            (None, None) => {}
            (Some(true), _) | (_, Some(true)) => {
                self.say(CLOCK_DEGRADED, 1.0, Quality::Suspect(Why::Degraded), said);
            }
            _ => self.say(CLOCK_DEGRADED, 0.0, Quality::Good, said),
        }
    }

    fn say(&self, channel: &str, value: f64, quality: Quality, said: &mut Vec<Said>) {
        if let Some(point) = self.point(channel).filter(|point| self.declares(point)) {
            said.push(Said::Value { point, value: Some(value), quality });
        }
    }
}

/// What a label carries. STGE carries several; the labels of the two modes are distinct.
fn quantities_of(label: &str) -> impl Iterator<Item = &'static Quantity> {
    STANDARD.iter().chain(HISTORIC).filter(move |quantity| quantity.label == label)
}

/// A capture is the bytes of the line. Its time is that of the line: ten bits a byte at its speed.
fn replay(device: Device, capture: &[u8]) -> Result<Vec<Said>, NotACapture> {
    let Wire::Stream { line, .. } = &device.wire else { return Ok(Vec::new()) };
    if !capture.iter().any(|byte| byte & 0x7f == 0x02) {
        let message = "a start of frame (byte 02) was expected, none is in the file".to_owned();
        return Err(NotACapture { line: 0, message });
    }
    let mut decoder = Decoder::new(device.name.clone(), &device.points);
    let mut said = Vec::new();
    let byte_us = 10_000_000 / u64::from(line.speed.max(1));
    for (heard, byte) in (1_u64..).zip(capture) {
        decoder.push(std::slice::from_ref(byte), heard * byte_us / 1_000, &mut said);
    }
    decoder.finish(&mut said);
    Ok(said)
}

#[cfg(test)]
mod tests;
