//! What the block of a single point may say, for drivers whose points are written in the configuration: `[[device.register]]`,
//! `[[device.point]]`.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    config::{Block, Both, Field, Presence, words},
    reading::Kind,
};

pub(super) const NAME: Field = Field {
    name: "name",
    expects: Both("a name such as \"temperature\"", "un nom comme \"temperature\""),
    presence: Presence::Required,
    doc: "The point's name, below the device's.",
};
pub(super) const LABEL: Field = Field {
    name: "label",
    expects: Both("a text such as \"température\"", "un texte comme \"température\""),
    presence: Presence::Optional,
    doc: "What people call it. Its name stands for it.",
};
pub(super) const UNIT: Field = Field {
    name: "unit",
    expects: Both(
        "a UCUM unit such as \"Cel\", \"%\", \"[ppm]\" or \"kW.h\"",
        "une unité UCUM comme \"Cel\", \"%\", \"[ppm]\" ou \"kW.h\"",
    ),
    presence: Presence::Default("\"1\""),
    doc: "The unit after scaling.",
};
pub(super) const DECIMALS: Field = Field {
    name: "decimals",
    expects: Both("a whole number from 0 to 9", "un nombre entier de 0 à 9"),
    presence: Presence::Default("2"),
    doc: "Digits after the decimal point that mean something; the rest is rounded away.",
};
pub(super) const SCALE: Field = Field {
    name: "scale",
    expects: Both("a number", "un nombre"),
    presence: Presence::Default("1.0"),
    doc: "The raw value is multiplied by it: 0.1 for a temperature in tenths.",
};
pub(super) const OFFSET: Field = Field {
    name: "offset",
    expects: Both("a number", "un nombre"),
    presence: Presence::Default("0.0"),
    doc: "Added after scaling.",
};
pub(super) const RANGE: Field = Field {
    name: "range",
    expects: Both("two numbers such as [-30, 60]", "deux nombres comme [-30, 60]"),
    presence: Presence::Optional,
    doc: "The values that can be true; others are kept and marked suspect.",
};

/// The kinds, as they are written.
pub(super) const KINDS: &[(&str, Kind)] = &[("gauge", Kind::Gauge), ("counter", Kind::Counter), ("state", Kind::State)];

/// A range, when there is one. The outer `None` is a fault, already told.
pub(super) fn range(block: &Block<'_>, field: &Field) -> Option<Option<RangeInclusive<f64>>> {
    if !block.has(field.name) {
        return Some(None);
    }
    let ends: Vec<f64> = block.get(field)?;
    match ends.as_slice() {
        [low, high] if low < high => Some(Some(*low..=*high)),
        _ => {
            block.unexpected(field, words!("is {ends:?}", "vaut {ends:?}"));
            None
        }
    }
}

/// An interval, when there is one. The outer `None` is a fault, already told.
pub(super) fn interval(block: &Block<'_>, field: &Field) -> Option<Option<Duration>> {
    if !block.has(field.name) {
        return Some(None);
    }
    block.duration_within(field, Duration::from_secs(1), Duration::from_secs(31 * 86_400)).map(Some)
}
