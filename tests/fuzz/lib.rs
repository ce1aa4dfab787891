//! What the targets share: a device out of its block, and what must hold whatever it heard.

pub mod sound;

use std::collections::BTreeSet;

use clocher::{
    config::{Block, Source},
    drivers::{Device, Said, read_device},
    reading::{PointId, Quality},
};

/// A device as a configuration gives it.
///
/// # Panics
/// When the block has a fault: the target is wrong, not the decoder.
pub fn device(text: &str) -> Device {
    let source = Source::new("fuzz.toml", text);
    let table = source.parse();
    let device = read_device(&Block::new(&source, "device", table.span(), table.get_ref()));
    assert_eq!(source.faults(), [], "{text}");
    device.expect("a device out of a block without faults")
}

/// The names of the points a device declared.
pub fn points(device: &Device) -> BTreeSet<PointId> {
    device.points.iter().map(|point| point.id.clone()).collect()
}

/// Every value is of a declared point, a number, or missing with a reason.
///
/// # Panics
/// When it is not.
pub fn check(said: &[Said], points: &BTreeSet<PointId>) {
    for said in said {
        match said {
            Said::Value { point, value, quality } => {
                assert!(points.contains(point), "{point} was never declared");
                assert!(value.is_none_or(f64::is_finite), "{point} is {value:?}");
                assert!(
                    value.is_some() || matches!(quality, Quality::Bad(_)),
                    "{point} has no value and is {quality:?}"
                );
            }
            Said::Unreadable(what) => {
                assert!(what.len() <= 2_048, "{} characters to say what is unreadable", what.len())
            }
        }
    }
}
