//! `mqtt`: a topic and a JSON pointer become a point, so Zigbee2MQTT, ChirpStack, Tasmota and ESPHome devices work.
//!
//! Knows payloads and topics only; the broker hands them over.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    Common, Device, Driver, NotACapture, Said, TopicDecoder, Wire,
    point::{DECIMALS, KINDS, LABEL, NAME, OFFSET, RANGE, SCALE, UNIT, interval, range},
    words,
};
use crate::{
    config::{Block, Both, Field, Presence, filter::Filter},
    reading::{Kind, Point, PointId, Quality, Why},
};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "mqtt",
    title: "any device that publishes over MQTT (Zigbee2MQTT, ChirpStack, Tasmota, ESPHome)",
    source: "MQTT 3.1.1 (OASIS, 29 October 2014); JSON pointer RFC 6901",
    fields: FIELDS,
    read,
    replay,
};

const TOPIC: Field = Field {
    name: "topic",
    expects: Both(
        "a topic or filter such as \"zigbee2mqtt/salle-co2\"",
        "un sujet ou un filtre MQTT comme \"zigbee2mqtt/salle-co2\"",
    ),
    presence: Presence::Required,
    doc: "What the device publishes to. + stands for one level, # at the end for all that follow.",
};
const POINTS: Field = Field {
    name: "point",
    expects: Both("one or more [[device.point]] blocks", "un ou plusieurs blocs [[device.point]]"),
    presence: Presence::Required,
    doc: "What to take from its messages.",
};
const FIELDS: &[Field] = &[TOPIC, POINTS];

const POINTER: Field = Field {
    name: "pointer",
    expects: Both("a JSON pointer such as \"/ENERGY/Total\"", "un pointeur JSON comme \"/ENERGY/Total\""),
    presence: Presence::Default("\"\""),
    doc: "Where the value is in the payload. Empty: the whole payload is the value.",
};
const ONLY_TOPIC: Field = Field {
    name: "topic",
    expects: Both("a topic or filter", "un sujet ou un filtre MQTT"),
    presence: Presence::Optional,
    doc: "Only messages on this topic, when the device uses one topic for each value.",
};
const KIND: Field = Field {
    name: "kind",
    expects: Both("\"gauge\", \"counter\" or \"state\"", "\"gauge\", \"counter\" ou \"state\""),
    presence: Presence::Optional,
    doc: "A level, an index that only grows, or a state. A state when `states` is given, else a gauge.",
};
const INTERVAL: Field = Field {
    name: "interval",
    expects: Both("a duration such as \"10 min\"", "une durée comme \"10 min\""),
    presence: Presence::Optional,
    doc: "How often it speaks at least; after three times as long it is said to be silent. Without it, it never is.",
};
const STATES: Field = Field {
    name: "states",
    expects: Both("a table such as { open = 1, closed = 0 }", "une table comme { open = 1, closed = 0 }"),
    presence: Presence::Optional,
    doc: "Texts and the numbers they stand for, besides on/off, open/closed, true/false, yes/no, online/offline and \
          detected/clear. Capitals do not matter.",
};

/// Keys of a `[[device.point]]` block.
pub const POINT: &[Field] =
    &[NAME, LABEL, POINTER, ONLY_TOPIC, UNIT, KIND, DECIMALS, SCALE, OFFSET, RANGE, INTERVAL, STATES];

/// Texts that devices use for two states.
const USUAL_STATES: &[(&str, f64)] = &[
    ("off", 0.0),
    ("on", 1.0),
    ("false", 0.0),
    ("true", 1.0),
    ("closed", 0.0),
    ("open", 1.0),
    ("no", 0.0),
    ("yes", 1.0),
    ("offline", 0.0),
    ("online", 1.0),
    ("clear", 0.0),
    ("detected", 1.0),
];

/// Larger payloads are no sensor's.
const LARGEST_PAYLOAD: usize = 64 * 1024;
const MOST_POINTS: usize = 64;
/// Of a payload that cannot be read, so much is shown.
const SHOWN: usize = 80;

fn read(block: &Block<'_>, common: Common) -> Option<Device> {
    let topic: Option<Filter> = block.parse(&TOPIC);
    let blocks = block.blocks(POINTS.name);
    if blocks.is_empty() || blocks.len() > MOST_POINTS {
        let count = blocks.len();
        block.fault(
            POINTS.name,
            words!(
                "{count} points, 1 to {MOST_POINTS} [[device.point]] were expected",
                "{count} points ; attendu : de 1 à {MOST_POINTS} blocs [[device.point]]"
            ),
        );
    }
    let count = blocks.len();
    let parts: Vec<(Point, Part)> = blocks.iter().filter_map(|block| part(block, &common)).collect();
    // All of them, or the fault is told.
    let topic = topic.filter(|_| parts.len() == count && (1..=MOST_POINTS).contains(&count))?;
    let (points, parts) = parts.into_iter().unzip();
    let wire = Wire::Topic { filter: topic, decoder: Box::new(Decoder { parts }) };
    Some(Device { name: common.name, label: common.label, driver: DRIVER.name, points, wire })
}

fn part(block: &Block<'_>, common: &Common) -> Option<(Point, Part)> {
    block.only(&[POINT]);
    let name: Option<String> = block.get(&NAME);
    let id = name.as_ref().map(|name| common.name.join(name));
    let id = id.and_then(|id| id.map_err(|wrong| block.fault(NAME.name, wrong)).ok());
    let pointer: Option<String> = block.get(&POINTER);
    let pointer = pointer.filter(|pointer| {
        let sound = pointer.is_empty() || pointer.starts_with('/');
        if !sound {
            block.fault(
                POINTER.name,
                words!(
                    "`pointer` is \"{pointer}\", did you mean \"/{pointer}\"?",
                    "`pointer` vaut \"{pointer}\" ; vouliez-vous écrire \"/{pointer}\" ?"
                ),
            );
        }
        sound
    });
    let topic = if block.has(ONLY_TOPIC.name) { block.parse(&ONLY_TOPIC).map(Some) } else { Some(None) };
    let states =
        if block.has(STATES.name) { block.get::<BTreeMap<String, f64>>(&STATES) } else { Some(BTreeMap::new()) };
    let kind = if block.has(KIND.name) {
        block.choice(&KIND, KINDS)
    } else {
        Some(if block.has(STATES.name) { Kind::State } else { Kind::Gauge })
    };
    let unit = block.get(&UNIT);
    let decimals = block.within(&DECIMALS, 0_u8, 9);
    let (scale, offset) = (block.get(&SCALE), block.get(&OFFSET));
    let range = range(block, &RANGE);
    let interval = interval(block, &INTERVAL);
    let label: String = block.get(&LABEL).or(name).unwrap_or_default();
    let id = id?;
    let states = states?.into_iter().map(|(text, value)| (text.to_lowercase(), value)).collect();
    let part = Part { point: id.clone(), topic: topic?, pointer: pointer?, scale: scale?, offset: offset?, states };
    let point = Point {
        id,
        label: format!("{}, {label}", common.label),
        unit: unit?,
        kind: kind?,
        decimals: decimals?,
        interval: interval?,
        range: range?,
        sharing: common.sharing,
    };
    Some((point, part))
}

/// What to take from the messages of one device.
#[derive(Debug)]
struct Decoder {
    parts: Vec<Part>,
}

/// What to take for one point.
#[derive(Debug)]
struct Part {
    point: PointId,
    topic: Option<Filter>,
    pointer: String,
    scale: f64,
    offset: f64,
    /// Lower case.
    states: BTreeMap<String, f64>,
}

impl TopicDecoder for Decoder {
    fn decode(&self, topic: &str, payload: &[u8], said: &mut Vec<Said>) {
        let concerned = |part: &&Part| part.topic.as_ref().is_none_or(|filter| filter.matches(topic));
        let mut parts = self.parts.iter().filter(concerned).peekable();
        if parts.peek().is_none() {
            return;
        }
        let payload = match parse(payload) {
            Ok(payload) => payload,
            Err(wrong) => return said.push(Said::Unreadable(format!("{topic}: {wrong}"))),
        };
        let before = said.len();
        said.extend(parts.filter_map(|part| part.say(&payload)));
        if said.len() == before {
            said.push(Said::Unreadable(format!(
                "{topic}: none of the pointers leads anywhere in {}",
                shown(&payload.to_string())
            )));
        }
    }
}

impl Part {
    /// What the payload says of this point; nothing when it does not speak of it.
    fn say(&self, payload: &Json) -> Option<Said> {
        let found = payload.pointer(&self.pointer)?;
        let point = self.point.clone();
        if found.is_null() {
            return Some(Said::Value { point, value: None, quality: Quality::Bad(Why::NotANumber) });
        }
        let value =
            self.number(found).map(|number| number * self.scale + self.offset).filter(|value| value.is_finite());
        Some(match value {
            Some(value) => Said::Value { point, value: Some(value), quality: Quality::Good },
            None => Said::Unreadable(format!("{point}: {} is not a number", shown(&found.to_string()))),
        })
    }

    fn number(&self, found: &Json) -> Option<f64> {
        match found {
            Json::Number(number) => number.as_f64(),
            Json::Bool(state) => self.state(if *state { "true" } else { "false" }),
            Json::String(text) => self.state(text.trim()).or_else(|| plain_number(text.trim())),
            _ => None,
        }
    }

    fn state(&self, text: &str) -> Option<f64> {
        let text = text.to_lowercase();
        let usual = || USUAL_STATES.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.states.get(&text).copied().or_else(usual)
    }
}

/// JSON, or a bare text such as `ON`.
fn parse(payload: &[u8]) -> Result<Json, String> {
    if payload.len() > LARGEST_PAYLOAD {
        return Err(format!("a payload of {} bytes, at most {LARGEST_PAYLOAD} are read", payload.len()));
    }
    let text = std::str::from_utf8(payload).map_err(|_| "a payload that is not text".to_owned())?;
    serde_json::from_str(text).or_else(|wrong| {
        let looks_like_json = text.trim_start().starts_with(['{', '[', '"']);
        if looks_like_json {
            Err(format!("not JSON ({wrong}): {}", shown(text)))
        } else {
            Ok(Json::String(text.into()))
        }
    })
}

/// Digits, point and exponent only: Rust's own reading would take `nan` and `infinity`.
fn plain_number(text: &str) -> Option<f64> {
    let allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    text.parse().ok().filter(|number: &f64| number.is_finite() && text.bytes().all(allowed))
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}

/// A capture is lines of `topic payload`, as `mosquitto_sub -v` prints them; lines that begin with # are remarks.
fn replay(device: Device, capture: &[u8]) -> Result<Vec<Said>, NotACapture> {
    let Wire::Topic { filter, decoder } = &device.wire else { return Ok(Vec::new()) };
    let mut said = Vec::new();
    for (line, text) in (1..).zip(capture.split(|byte| *byte == b'\n')) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let wrong = || NotACapture { line, message: "a topic, a space and a payload were expected".to_owned() };
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let (topic, payload) = text.split_at(space);
        let topic = std::str::from_utf8(topic).map_err(|_| wrong())?;
        if filter.matches(topic) {
            decoder.decode(topic, payload.get(1..).unwrap_or_default(), &mut said);
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(pointer: &str) -> Part {
        let point = "a/b".parse().expect("name");
        Part { point, topic: None, pointer: pointer.into(), scale: 1.0, offset: 0.0, states: BTreeMap::new() }
    }

    fn decode(part: Part, payload: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        Decoder { parts: vec![part] }.decode("t", payload, &mut said);
        said
    }

    fn number(pointer: &str, payload: &str) -> Option<f64> {
        match decode(part(pointer), payload.as_bytes()).as_slice() {
            [Said::Value { value, quality: Quality::Good, .. }] => *value,
            _ => None,
        }
    }

    #[test]
    fn numbers_come_plain_in_json_and_inside_strings() {
        for (pointer, payload, expected) in [
            ("", "21.5", 21.5),
            ("", " 21.5\n", 21.5),
            ("", "\"21.5\"", 21.5),
            ("/a/b", r#"{"a":{"b":-3}}"#, -3.0),
            ("/a/1", r#"{"a":[1,"2e3"]}"#, 2_000.0),
            ("/a~1b", r#"{"a/b":7}"#, 7.0),
        ] {
            assert_eq!(number(pointer, payload), Some(expected), "{payload}");
        }
    }

    #[test]
    fn the_usual_states_need_no_table_and_ones_own_go_first() {
        for (payload, expected) in [("ON", 1.0), ("off", 0.0), ("true", 1.0), ("\"Open\"", 1.0), ("offline", 0.0)] {
            assert_eq!(number("", payload), Some(expected), "{payload}");
        }
        let mut own = part("/contact");
        own.states = BTreeMap::from([("true".to_owned(), 0.0), ("false".to_owned(), 1.0)]);
        let said = decode(own, br#"{"contact":true}"#);
        assert!(matches!(said.as_slice(), [Said::Value { value: Some(value), .. }] if *value == 0.0));
    }

    #[test]
    fn what_is_no_number_is_refused_in_words() {
        let large = vec![b'1'; LARGEST_PAYLOAD + 1];
        let deep = "[".repeat(5_000);
        for payload in [
            &b"NaN"[..],
            b"1e400",
            b"\"1e400\"",
            b"infinity",
            b"{\"a\":",
            b"{}",
            b"[1]",
            b"hello",
            &[0xff, 0xfe],
            &large,
            deep.as_bytes(),
        ] {
            let said = decode(part(""), payload);
            assert!(matches!(said.as_slice(), [Said::Unreadable(text)] if text.len() < 400), "{said:?}");
        }
    }

    #[test]
    fn a_null_is_a_bad_reading_and_an_absent_value_none() {
        let said = decode(part("/t"), br#"{"t":null}"#);
        assert!(matches!(said.as_slice(), [Said::Value { value: None, quality: Quality::Bad(Why::NotANumber), .. }]));
        let mut said = Vec::new();
        let decoder = Decoder { parts: vec![part("/t"), part("/h")] };
        decoder.decode("t", br#"{"h":40}"#, &mut said);
        assert_eq!(said.len(), 1);
    }
}
