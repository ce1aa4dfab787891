//! Datasheets that run: each file is one family of devices, from bytes to readings, without tokio, MQTT or sled.
//!
//! To add one: a file here, two lines below, a capture in `tests/fixtures/<driver>/`. Polling, retry, publishing,
//! the panel's card and the conditions come with registration.

pub mod contact;
pub mod modbus;
pub mod mqtt;
mod point;
pub mod pulse;
pub mod run;
pub mod tic;

use std::time::Duration;

use crate::{
    config::{Block, Both, Field, Presence, Source, Words, filter::Filter, nearest, words},
    port::{
        gpio::{Edge, Pull},
        serial::Line,
    },
    reading::{Commit, Point, PointId, Quality, Sharing, Why},
};

/// Every family this gateway reads. The configuration, `clocher drivers`, the manual and the tests derive from it.
pub static DRIVERS: &[Driver] = &[tic::DRIVER, modbus::DRIVER, pulse::DRIVER, contact::DRIVER, mqtt::DRIVER];

/// The blocks a driver takes below its own, with their keys: `[[device.register]]`.
pub const NESTED: &[(&str, &str, &[Field])] =
    &[("modbus", "register", modbus::REGISTER), ("mqtt", "point", mqtt::POINT)];

const NAME: Field = Field {
    name: "name",
    expects: Both("a name such as \"electricity/mairie\"", "un nom comme \"electricity/mairie\""),
    presence: Presence::Required,
    doc: "Prefix of the device's points, of their MQTT topics and of their addresses. Do not change it later: the \
          history goes by it.",
};
const LABEL: Field = Field {
    name: "label",
    expects: Both("a text such as \"Compteur de la mairie\"", "un texte comme \"Compteur de la mairie\""),
    presence: Presence::Optional,
    doc: "What people call it. Its name stands for it.",
};
const DRIVER: Field = Field {
    name: "driver",
    expects: Both("a driver's name, see `clocher drivers`", "le nom d'un pilote, voir `clocher drivers`"),
    presence: Presence::Required,
    doc: "The family of devices it belongs to.",
};
const SHARING: Field = Field {
    name: "sharing",
    expects: Both("\"public\", \"internal\" or \"personal\"", "\"public\", \"internal\" ou \"personal\""),
    presence: Presence::Default("\"internal\""),
    doc: "Who may pull its points: anyone the commune lets in, the bodies that work for the commune, or, for data \
          about a person, nobody without a recorded consent.",
};

/// The keys every device's block has.
pub const COMMON: &[Field] = &[NAME, LABEL, DRIVER, SHARING];

/// A driver by its name.
pub fn find(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

/// A device from its `[[device]]` block. Faults go to the block; `None` when there were any that matter.
pub fn read_device(block: &Block<'_>) -> Option<Device> {
    let name: Option<PointId> = block.parse(&NAME);
    let label: Option<String> = block.get(&LABEL);
    let sharing = block.choice(&SHARING, SHARINGS);
    let word: String = block.get(&DRIVER)?;
    let Some(driver) = find(&word) else {
        block.fault("driver", unknown_driver(&word));
        return None;
    };
    block.only(&[COMMON, driver.fields]);
    // Its own keys are read even when a common one is faulty, so that one run tells every fault.
    let name_or_stand_in = name.clone().or_else(|| driver.name.parse().ok())?;
    let label = label.unwrap_or_else(|| name_or_stand_in.to_string());
    let common = Common { name: name_or_stand_in, label, sharing: sharing.unwrap_or(Sharing::Internal) };
    let device = (driver.read)(block, common)?;
    (name.is_some() && sharing.is_some()).then_some(device)
}

const SHARINGS: &[(&str, Sharing)] =
    &[("public", Sharing::Public), ("internal", Sharing::Internal), ("personal", Sharing::Personal)];

fn unknown_driver(word: &str) -> Words {
    let names = || DRIVERS.iter().map(|driver| driver.name);
    match nearest(word, names()) {
        Some(near) => words!(
            "no driver is called \"{word}\", did you mean \"{near}\"?",
            "aucun pilote ne s'appelle \"{word}\" ; vouliez-vous écrire \"{near}\" ?"
        ),
        None => {
            let all = names().collect::<Vec<_>>().join(", ");
            words!(
                "no driver is called \"{word}\", one of {all} was expected",
                "aucun pilote ne s'appelle \"{word}\" ; attendu : l'un de {all}"
            )
        }
    }
}

/// A value as its point can hold it: finite, rounded, and suspect when outside of the range.
pub fn settle(point: &Point, value: Option<f64>, quality: Quality) -> (Option<f64>, Quality) {
    let Some(value) = value.filter(|value| value.is_finite()) else {
        let why = quality.why().unwrap_or(Why::NotANumber);
        return (None, Quality::Bad(why));
    };
    let shift = 10_f64.powi(i32::from(point.decimals));
    let rounded = (value * shift).round() / shift;
    // A value too large to be shifted has no decimals; and no meter shows minus zero.
    let value = if rounded.is_finite() { rounded + 0.0 } else { value };
    let outside = point.range.as_ref().is_some_and(|range| !range.contains(&value));
    let quality = if outside && quality == Quality::Good { Quality::Suspect(Why::OutOfRange) } else { quality };
    (Some(value), quality)
}

/// A capture decoded: the points of the device that was assumed, and what it says, as the gateway would keep it.
#[derive(Debug)]
pub struct Replayed {
    /// The device's points.
    pub points: Vec<Point>,
    /// What the capture says, in order.
    pub said: Vec<Said>,
}

/// A capture that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The options are not this driver's.
    #[error("{0}")]
    Options(String),
    /// The file is not a capture.
    #[error(transparent)]
    Capture(#[from] NotACapture),
}

/// Decodes a capture without a configuration. `options` are lines of a `[[device]]` block; what the driver needs and
/// they do not say is assumed: a port, a topic that takes everything, both modes of a TIC, an Eastron SDM630.
///
/// # Errors
/// When the options have faults, or the file is not a capture of this driver.
pub fn replay(driver: &Driver, options: &str, capture: &[u8]) -> Result<Replayed, ReplayError> {
    let source = Source::new("options", with_stand_ins(driver, options));
    let table = source.parse();
    let block = Block::new(&source, "", table.span(), table.get_ref());
    let device = read_device(&block);
    let faults: Vec<String> = source.faults().into_iter().map(|fault| fault.message.english).collect();
    let Some(device) = device.filter(|_| faults.is_empty()) else {
        return Err(ReplayError::Options(faults.join("; ")));
    };
    let points = device.points.clone();
    let mut said = (driver.replay)(device, capture)?;
    for said in &mut said {
        if let Said::Value { point, value, quality } = said
            && let Some(known) = points.iter().find(|known| known.id == *point)
        {
            (*value, *quality) = settle(known, *value, *quality);
        }
    }
    Ok(Replayed { points, said })
}

/// Keys put before the options where the driver has them and the options do not.
fn with_stand_ins(driver: &Driver, options: &str) -> String {
    let source = Source::new("options", options);
    let table = source.parse();
    let written = |name: &str| table.get_ref().contains_key(name);
    let has = |name: &str| COMMON.iter().chain(driver.fields).any(|field| field.name == name);
    let registers = written("register");
    let text = format!("\"{}\"", driver.name);
    let stand_ins = [
        ("name", text.as_str()),
        ("driver", text.as_str()),
        ("port", "\"/dev/null\""),
        ("mode", "\"auto\""),
        ("model", if registers { "" } else { "\"SDM630\"" }),
        ("topic", "\"#\""),
        ("pin", "17"),
    ];
    let missing = stand_ins.iter().filter(|(name, value)| has(name) && !written(name) && !value.is_empty());
    let mut lines: String = missing.map(|(name, value)| format!("{name} = {value}\n")).collect();
    lines.push_str(options);
    lines
}

/// One line a driver: its name and what it reads.
pub fn list() -> String {
    DRIVERS.iter().map(|driver| format!("{:<8} {}\n", driver.name, driver.title)).collect()
}

/// A driver's manual: every key with what it expects, whether it must be there, and what it is for.
pub fn describe(driver: &Driver) -> String {
    let mut text = format!("{} - {}\nsource: {}\n\n[[device]]\n", driver.name, driver.title, driver.source);
    text.extend(COMMON.iter().chain(driver.fields).map(manual));
    for (_, block, fields) in NESTED.iter().filter(|(name, ..)| *name == driver.name) {
        text.push_str(&format!("\n[[device.{block}]]\n"));
        text.extend(fields.iter().map(manual));
    }
    text
}

fn manual(field: &Field) -> String {
    let presence = match field.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => "optional".to_owned(),
        Presence::Default(value) => format!("default {value}"),
    };
    format!("  {} = {} ({presence})\n      {}\n", field.name, field.expects, field.doc)
}

/// A family of devices.
#[derive(Debug)]
pub struct Driver {
    /// The word in the configuration: `tic`.
    pub name: &'static str,
    /// What it reads, in a few words.
    pub title: &'static str,
    /// Standard or datasheet, with edition.
    pub source: &'static str,
    /// Its own options, besides [`COMMON`].
    pub fields: &'static [Field],
    /// From a checked block to a device. Faults go to the block; `None` when there were any that matter.
    pub read: fn(&Block<'_>, Common) -> Option<Device>,
    /// Decodes a capture, as `clocher replay` and the tests do. The device comes from a block of options.
    pub replay: fn(Device, &[u8]) -> Result<Vec<Said>, NotACapture>,
}

/// A file that is not a capture of this driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct NotACapture {
    /// Line of the file, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What was expected and what is there.
    pub message: String,
}

/// What every device's block has, already read.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    /// Prefix of its points: `electricity/mairie`.
    pub name: PointId,
    /// What people call it.
    pub label: String,
    /// Who may pull its points.
    pub sharing: Sharing,
}

/// A device as configured: what it measures and how to talk to it.
#[derive(Debug)]
pub struct Device {
    /// Prefix of its points.
    pub name: PointId,
    /// What people call it.
    pub label: String,
    /// Its family.
    pub driver: &'static str,
    /// What it measures. For a driver that learns its points from the wire (TIC), all it may send.
    pub points: Vec<Point>,
    /// How to talk to it.
    pub wire: Wire,
}

/// How to talk to a device.
#[derive(Debug)]
pub enum Wire {
    /// It talks by itself on a serial line.
    Stream {
        /// The line.
        line: Line,
        /// How often its values are kept. It may say them every second; a change of state is kept at once.
        every: Duration,
        /// Bytes to readings.
        decoder: Box<dyn StreamDecoder>,
    },
    /// It answers requests on a serial bus that others may share.
    Bus {
        /// The line.
        line: Line,
        /// Modbus unit, 1 to 247; 254 is what some sensors answer to whatever their own.
        unit: u8,
        /// Pause between two rounds.
        every: Duration,
        /// Wait for an answer at most so long.
        timeout: Duration,
        /// Requests, and answers to readings.
        poller: Box<dyn Poller>,
    },
    /// It opens and closes a contact.
    Pin {
        /// BCM number.
        pin: u8,
        /// What holds the pin when the contact is open.
        pull: Pull,
        /// Shorter changes are bounces.
        debounce: Duration,
        /// Edges to readings.
        decoder: Box<dyn PinDecoder>,
    },
    /// It publishes over MQTT.
    Topic {
        /// MQTT filter.
        filter: Filter,
        /// Payloads to readings.
        decoder: Box<dyn TopicDecoder>,
    },
}

/// What came off the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A value of a point.
    Value {
        /// Which point.
        point: PointId,
        /// In the point's unit; `None` with a bad quality.
        value: Option<f64>,
        /// How far to trust it.
        quality: Quality,
    },
    /// Something that cannot be read: what, and the bytes. One bad part never costs the rest.
    Unreadable(String),
}

/// Bytes of a device that talks by itself. Bounded in memory whatever comes.
pub trait StreamDecoder: Send + std::fmt::Debug {
    /// Takes bytes as they come, cut anywhere, `mono_ms` after the gateway's start; adds what they say.
    fn push(&mut self, bytes: &[u8], mono_ms: u64, said: &mut Vec<Said>);
    /// The line was closed: what was half heard is forgotten.
    fn reset(&mut self);
}

/// Registers of the two kinds a meter offers for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Function 03.
    Holding,
    /// Function 04.
    Input,
}

/// One Modbus read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Which table.
    pub table: Table,
    /// First register, from 0.
    pub address: u16,
    /// How many.
    pub count: u16,
}

/// Requests and answers of a device on a bus.
pub trait Poller: Send + std::fmt::Debug {
    /// What to ask in a round.
    fn requests(&self) -> &[Request];
    /// What the registers of an answered request say.
    fn answer(&self, request: Request, registers: &[u16], said: &mut Vec<Said>);
    /// The device does not serve the request as a whole. True when smaller ones will be asked instead.
    fn refused(&mut self, request: Request) -> bool;
    /// The device answers that it cannot serve the request: its points have no usable value.
    fn unavailable(&self, request: Request, said: &mut Vec<Said>);
}

/// Edges of a contact.
pub trait PinDecoder: Send + std::fmt::Debug {
    /// Goes on from the newest stored value of each point (a durable index).
    fn resume(&mut self, point: &PointId, value: f64);
    /// An edge, `mono_ms` after the gateway's start.
    fn edge(&mut self, edge: Edge, mono_ms: u64, said: &mut Vec<Said>);
    /// Called every second: what is due although no edge came.
    fn tick(&mut self, mono_ms: u64, said: &mut Vec<Said>);
    /// The gateway stops: what was heard and not yet told.
    fn finish(&mut self, _mono_ms: u64, _said: &mut Vec<Said>) {}
    /// How soon its readings must be on the card.
    fn commit(&self) -> Commit {
        Commit::Now
    }
}

/// Payloads of a topic.
pub trait TopicDecoder: Send + Sync + std::fmt::Debug {
    /// What a payload says; a topic this device does not use says nothing.
    fn decode(&self, topic: &str, payload: &[u8], said: &mut Vec<Said>);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn read(text: &str) -> (Option<Device>, Vec<String>) {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let block = Block::new(&source, "device", table.span(), table.get_ref());
        let device = read_device(&block);
        (device, source.faults().into_iter().map(|fault| fault.message.english).collect())
    }

    #[test]
    fn every_default_can_be_read_and_every_key_is_explained() {
        let of_drivers = DRIVERS.iter().map(|driver| driver.fields);
        for field in of_drivers.chain(NESTED.iter().map(|(_, _, fields)| *fields)).chain([COMMON]).flatten() {
            assert!(!field.doc.is_empty() && !field.expects.0.is_empty(), "{} has no manual", field.name);
            assert_ne!(field.expects.0, field.expects.1, "{} is not told in French", field.name);
            if let Presence::Default(text) = field.presence {
                assert!(toml::de::DeValue::parse(text).is_ok(), "{}: {text}", field.name);
            }
        }
    }

    #[test]
    fn every_driver_has_a_capture() {
        for driver in DRIVERS {
            let folder = format!("{}/tests/fixtures/{}", env!("CARGO_MANIFEST_DIR"), driver.name);
            let captures = std::fs::read_dir(&folder).map(|files| files.count()).unwrap_or_default();
            assert!(captures > 0, "no capture of {} in {folder}", driver.name);
        }
    }

    #[test]
    fn the_manual_of_a_driver_names_every_key() {
        for driver in DRIVERS {
            let manual = describe(driver);
            for field in COMMON.iter().chain(driver.fields) {
                assert!(manual.contains(&format!("  {} = ", field.name)), "{}: {}", driver.name, field.name);
            }
            assert!(list().contains(driver.title));
        }
    }

    #[test]
    fn a_mistyped_driver_is_told_its_near_miss() {
        let (device, faults) = read("name = \"a\"\ndriver = \"modbsu\"");
        assert!(device.is_none());
        assert_eq!(faults, ["no driver is called \"modbsu\", did you mean \"modbus\"?"]);
    }

    #[test]
    fn every_fault_of_a_device_is_told_in_one_run() {
        let (device, faults) = read(
            "name = \"Été\"\ndriver = \"tic\"\nsharing = \"all\"\nmode = \"modern\"\nprot = \"/dev/a\"\nevery = 3\n",
        );
        assert!(device.is_none());
        for wrong in [
            "Été",
            "sharing",
            "`mode` is",
            "unknown key `prot`, did you mean `port`?",
            "`port` is missing",
            "`every` is 3",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(wrong)), "{wrong} not in {faults:#?}");
        }
    }
}
