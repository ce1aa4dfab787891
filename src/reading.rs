//! What is measured: points, their readings, and the intake through which every reading enters the gateway.
//!
//! Vocabulary only: no file, no network, no clock of its own.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Stamp;

/// The stable name of a point: `water/hall/index`.
///
/// One to eight segments of `a-z 0-9 _ -`, joined by `/`, 96 bytes at most. It becomes an MQTT topic, a URL path
/// and a key of the store, so it is kept to what all three carry unescaped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointId(Arc<str>);

/// Why a text is not a point's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a point's name: one to eight parts of a-z, 0-9, _ and -, joined by /, 96 characters at most")]
pub struct NotAPointId(String);

impl PointId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A point below this one: `water/hall` and `index` make `water/hall/index`.
    ///
    /// # Errors
    /// When the joined text is not a point's name.
    pub fn join(&self, channel: &str) -> Result<Self, NotAPointId> {
        format!("{}/{channel}", self.0).parse()
    }
}

impl FromStr for PointId {
    type Err = NotAPointId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let segments = text.split('/');
        let well_formed = segments.clone().count() <= 8
            && text.len() <= 96
            && segments.into_iter().all(|segment| !segment.is_empty() && segment.chars().all(allowed));
        if well_formed { Ok(Self(text.into())) } else { Err(NotAPointId(text.to_owned())) }
    }
}

impl TryFrom<String> for PointId {
    type Error = NotAPointId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PointId> for String {
    fn from(id: PointId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a point's values behave in time, which decides how they are summed up and drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A level that goes up and down: power, temperature, CO2.
    Gauge,
    /// An index that only grows, until the meter is changed or rolls over: kWh, litres.
    Counter,
    /// A small whole number that stands for a state: 0 at rest, 1 acting; of a contact, 0 open, 1 closed.
    State,
}

/// Who may pull a point, by the ethical charter of the territory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Anyone the commune lets in.
    Public,
    /// The bodies that work for the commune.
    Internal,
    /// About a person; leaves only with a recorded consent.
    Personal,
}

/// One measured quantity at one place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Its stable name.
    pub id: PointId,
    /// What people call it, in the commune's language.
    pub label: String,
    /// Its unit in UCUM case-sensitive form (`W`, `kW.h`, `L`, `Cel`, `[ppm]`, `1`), see <https://ucum.org>.
    pub unit: String,
    /// Gauge, counter or state.
    pub kind: Kind,
    /// Digits after the decimal point that mean something.
    pub decimals: u8,
    /// How often a reading is expected; `None` when the device speaks only at a change.
    pub interval: Option<Duration>,
    /// The values that can be true; outside of it a reading is `suspect`.
    pub range: Option<RangeInclusive<f64>>,
    /// Who may pull it.
    pub sharing: Sharing,
}

/// Why a reading is less than good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Why {
    /// Outside the point's range.
    OutOfRange = 1,
    /// A step no real meter makes in that time, or an index that went back.
    ImplausibleStep = 2,
    /// The device is still warming up.
    WarmingUp = 3,
    /// The device itself reports a fault.
    DeviceFault = 4,
    /// Not a number, infinite, or a value the device uses for "no value".
    NotANumber = 5,
    /// No answer, or no frame, for longer than the expected interval.
    NoAnswer = 6,
    /// The device said its own clock, or its value, is degraded.
    Degraded = 7,
}

impl Why {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 7] = [
        Self::OutOfRange,
        Self::ImplausibleStep,
        Self::WarmingUp,
        Self::DeviceFault,
        Self::NotANumber,
        Self::NoAnswer,
        Self::Degraded,
    ];
}

/// How far a reading can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quality {
    /// As the device said it.
    Good,
    /// Shown and kept, but not to be billed on.
    Suspect(Why),
    /// The last known value, older than it should be.
    Stale(Why),
    /// No usable value.
    Bad(Why),
}

impl Quality {
    /// `good`, `suspect`, `stale` or `bad`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Suspect(_) => "suspect",
            Self::Stale(_) => "stale",
            Self::Bad(_) => "bad",
        }
    }

    /// The reason, when it is not good.
    pub fn why(self) -> Option<Why> {
        match self {
            Self::Good => None,
            Self::Suspect(why) | Self::Stale(why) | Self::Bad(why) => Some(why),
        }
    }

    /// One byte for the store: two bits of word, six of reason.
    pub fn to_byte(self) -> u8 {
        let (word, why) = match self {
            Self::Good => (0, 0),
            Self::Suspect(why) => (1, why as u8),
            Self::Stale(why) => (2, why as u8),
            Self::Bad(why) => (3, why as u8),
        };
        word << 6 | why
    }

    /// The inverse of [`Quality::to_byte`]; `None` for a byte no version of ours has written.
    pub fn from_byte(byte: u8) -> Option<Self> {
        if byte == 0 {
            return Some(Self::Good);
        }
        let why = *Why::ALL.get(usize::from(byte & 0x3f).checked_sub(1)?)?;
        match byte >> 6 {
            1 => Some(Self::Suspect(why)),
            2 => Some(Self::Stale(why)),
            3 => Some(Self::Bad(why)),
            _ => None,
        }
    }
}

/// A value of a point at an instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Which point.
    pub point: PointId,
    /// When, on the gateway's own clock.
    pub stamp: Stamp,
    /// The value in the point's unit; always finite. `None` with a `bad` quality.
    pub value: Option<f64>,
    /// How far to trust it.
    pub quality: Quality,
}

/// A reading the buffer has numbered.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its number: no holes, never reused.
    pub seq: u64,
    /// The reading.
    pub reading: Reading,
}

/// How soon a batch must be on the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Commit {
    /// With the others, at most every `commit_within` (30 s), to spare the card.
    Grouped,
    /// Within 200 ms, together with what else arrives: an MQTT publish that waits for its acknowledgement.
    Soon,
    /// At once: counters and alarms.
    Now,
}

/// Readings on their way into the gateway.
#[derive(Debug)]
pub struct Batch {
    /// The readings, in the order they were taken.
    pub readings: Vec<Reading>,
    /// How soon they must be on the card.
    pub commit: Commit,
    /// Told once they are on the card, or why they are not.
    pub accepted: Option<oneshot::Sender<Result<(), NotAccepted>>>,
}

/// A batch did not reach the card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("readings not stored: {0}")]
pub struct NotAccepted(pub String);

/// Where drivers and the broker hand their readings in. Cheap to clone; bounded, so a slow card slows the giver.
#[derive(Debug, Clone)]
pub struct Intake(mpsc::Sender<Batch>);

impl Intake {
    /// An intake and the end the application reads, holding `depth` batches at most.
    pub fn new(depth: usize) -> (Self, mpsc::Receiver<Batch>) {
        let (give, take) = mpsc::channel(depth);
        (Self(give), take)
    }

    /// Hands readings over without waiting for the card.
    pub async fn give(&self, readings: Vec<Reading>, commit: Commit) {
        // The receiver leaves only when the gateway stops; what is given after that is not accepted.
        let _ = self.0.send(Batch { readings, commit, accepted: None }).await;
    }

    /// Hands readings over and waits until they are on the card.
    ///
    /// # Errors
    /// When the store refused them, or the gateway is stopping.
    pub async fn give_and_wait(&self, readings: Vec<Reading>, commit: Commit) -> Result<(), NotAccepted> {
        let (accepted, answer) = oneshot::channel();
        let stopping = || NotAccepted("the gateway is stopping".to_owned());
        self.0.send(Batch { readings, commit, accepted: Some(accepted) }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_name_fits_topics_urls_and_keys_or_is_refused() {
        for good in ["water/hall/index", "a", "electricity/mairie-2/power_l1"] {
            assert_eq!(good.parse::<PointId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "/a", "a/", "a//b", "Eau", "é", "a b", "a/#", "a/b/c/d/e/f/g/h/i", &"x".repeat(97)] {
            assert!(bad.parse::<PointId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn every_quality_survives_its_byte_and_no_two_share_one() {
        let mut seen = std::collections::HashSet::new();
        let all = Why::ALL.into_iter().flat_map(|w| [Quality::Suspect(w), Quality::Stale(w), Quality::Bad(w)]);
        for quality in all.chain([Quality::Good]) {
            assert_eq!(Quality::from_byte(quality.to_byte()), Some(quality));
            assert!(seen.insert(quality.to_byte()));
        }
        assert_eq!(Quality::from_byte(0b0011_1111), None);
        assert_eq!(Quality::from_byte(0b1111_1111), None);
    }
}
