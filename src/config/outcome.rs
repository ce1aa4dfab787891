//! What became of the file on the card at this start: written by provisioning beside the configuration it chose, read by
//! the gateway, which tells it on the panel, and by the report that goes onto the card.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Source, Words, words};

/// Its name, in the folder of the configuration that runs.
pub const FILE: &str = "provision.json";

/// Which configuration runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Used {
    /// The one on the card, whole.
    Card,
    /// The one on the card has faults and none was sound before: what of it is sound.
    SoundParts,
    /// The last one that was sound.
    LastGood,
    /// The one every box is born with.
    Default,
}

/// What became of the file on the card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which configuration runs.
    pub used: Used,
    /// The name of the file that was found on the card.
    pub found: Option<String>,
    /// What is wrong with it.
    pub faults: Vec<Told>,
    /// What else the technician should know, in French and for him alone.
    pub notes: Vec<String>,
}

/// A fault, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Line of the file, from 1.
    pub line: usize,
    /// With its block, in English, for the log.
    pub english: String,
    /// The same in French.
    pub french: String,
    /// The line and a caret under what is wrong; empty for the file as a whole.
    pub shown: String,
}

impl Told {
    /// The faults of a source.
    pub fn of(source: &Source) -> Vec<Self> {
        let told = |fault: &super::Fault| {
            let Words { english, french } = &fault.message;
            let place = &fault.place;
            let whole = match place.is_empty() {
                true => words!("{english}", "{french}"),
                false => words!("{place}: {english}", "{place} : {french}"),
            };
            Self {
                line: source.line_of(fault),
                english: whole.english,
                french: whole.french,
                shown: source.pointed_at(fault),
            }
        };
        source.faults().iter().map(told).collect()
    }
}

impl Outcome {
    /// The outcome beside a configuration; `None` where there was no provisioning.
    pub fn beside(config: &Path) -> Option<Self> {
        Self::read(&config.parent()?.join(FILE)).ok()
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is not there, or is something else.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
    }

    /// Why what runs is not what the card says, in English, for the condition; `None` when it is.
    pub fn set_aside(&self) -> Option<String> {
        let runs = match self.used {
            Used::Card | Used::SoundParts => return None,
            Used::LastGood => "the last sound one runs",
            Used::Default => "the one every box is born with runs",
        };
        let Some(found) = &self.found else { return Some(format!("no clocher.toml on the card, {runs}")) };
        let faults: Vec<_> = self.faults.iter().map(|told| format!("line {}: {}", told.line, told.english)).collect();
        Some(format!("{found} on the card has faults, {runs}; {}", faults.join("; ")))
    }
}
