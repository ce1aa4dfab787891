//! What the loudspeakers say, where, how urgently, and the proof that it was played.
//!
//! Vocabulary shared by the part that plays (`announce/`) and those that ask it to (`panel/`, MQTT).

use std::{fmt, str::FromStr};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Stamp;

/// How urgent it is. A higher class cuts a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Music, bells.
    Ambiance,
    /// The ordinary announcement.
    Information,
    /// Cuts information: water cut, closed road.
    Important,
    /// Danger to people. Never held by quiet hours.
    Alert,
}

impl Class {
    /// From the least to the most urgent.
    pub const ALL: [Self; 4] = [Self::Ambiance, Self::Information, Self::Important, Self::Alert];

    /// The word used in the configuration, on MQTT and in forms.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ambiance => "ambiance",
            Self::Information => "information",
            Self::Important => "important",
            Self::Alert => "alert",
        }
    }
}

impl FromStr for Class {
    type Err = NotAClass;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| NotAClass(text.to_owned()))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a word is not a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a class of announcement: ambiance, information, important or alert")]
pub struct NotAClass(pub String);

/// Loudspeakers that switch together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Zone {
    /// Stable name: `bourg`.
    pub name: String,
    /// What people call it.
    pub label: String,
}

/// What somebody asks to be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The words, as typed.
    pub text: String,
    /// How urgent.
    pub class: Class,
    /// Where; names of zones.
    pub zones: Vec<String>,
    /// Who asks: an account's name, or `mqtt:<account>`.
    pub asked_by: String,
    /// The same key asked twice within a day is played once.
    pub key: Option<String>,
}

/// The number of an announcement, counted from 1 over the life of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AnnouncementId(pub u64);

impl fmt::Display for AnnouncementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an announcement stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    /// Waiting for its turn.
    Waiting,
    /// Being rendered or keyed.
    Preparing,
    /// Audible.
    Playing,
}

/// An announcement in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// Its number.
    pub id: AnnouncementId,
    /// What was asked.
    pub request: Request,
    /// When it was asked.
    pub asked: Stamp,
    /// Where it stands.
    pub state: State,
    /// What keeps it waiting, besides its turn.
    pub held: Option<Held>,
}

/// Why an announcement that is not urgent must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// People rest; it is said when quiet hours end.
    QuietHours,
    /// Today's minutes are spent; it is said tomorrow.
    DailyBudget,
    /// A machine asks, and nobody vouches for the time.
    UnknownTime,
}

/// How a playing in one zone ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "end")]
pub enum End {
    /// To its last word.
    Played,
    /// Cut by a more urgent one, by its number; it is played again from its start afterwards.
    Cut {
        /// The announcement that cut it.
        by: AnnouncementId,
    },
    /// Stopped by a person.
    Stopped {
        /// Who.
        by: String,
    },
    /// Not heard, or not entirely.
    Failed {
        /// Why, in English, for the technician.
        why: String,
    },
}

/// The proof: one entry per zone and playing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Which announcement.
    pub id: AnnouncementId,
    /// Where.
    pub zone: String,
    /// The words.
    pub text: String,
    /// How urgent.
    pub class: Class,
    /// Who asked.
    pub asked_by: String,
    /// When the relay was keyed.
    pub started: Stamp,
    /// How long the zone was audible, in milliseconds.
    pub audible_ms: u64,
    /// How it ended.
    pub end: End,
}

/// Why an announcement was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing to say.
    #[error("the text is empty")]
    Empty,
    /// Too long for the loudspeakers' budget.
    #[error("the text has {0} characters, {1} at most are allowed")]
    TooLong(usize, usize),
    /// No zone was chosen.
    #[error("no zone was chosen")]
    NoZone,
    /// A zone that is not there.
    #[error("{0:?} is not a zone of this gateway")]
    UnknownZone(String),
    /// Too many are waiting.
    #[error("{0} announcements are already waiting")]
    QueueFull(usize),
    /// No program that can speak was found, or it fell.
    #[error("the text cannot be spoken: {0}")]
    Voice(String),
    /// The gateway is stopping, or its store fails.
    #[error("the announcement was not kept: {0}")]
    NotKept(String),
}

/// What the panel and MQTT ask of the part that plays.
pub trait Announcer: Send + Sync {
    /// The zones, in the configuration's order.
    fn zones(&self) -> Vec<Zone>;
    /// The text as it will sound, chime included: a WAV file.
    fn preview<'a>(&'a self, text: &'a str, class: Class) -> BoxFuture<'a, Result<Vec<u8>, Refused>>;
    /// Puts it in the queue. Once `Ok`, it survives a restart.
    fn ask(&self, request: Request) -> BoxFuture<'_, Result<AnnouncementId, Refused>>;
    /// Stops it, playing or waiting; everything when `id` is `None`. True when something was stopped.
    fn stop(&self, id: Option<AnnouncementId>, who: &str) -> bool;
    /// What plays and what waits, in order.
    fn queue(&self) -> Vec<Queued>;
    /// The latest journal entries, newest first.
    fn journal(&self, limit: usize) -> Vec<JournalEntry>;
    /// Wakes at each change of queue or journal.
    fn changes(&self) -> watch::Receiver<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ordered_by_urgency_and_read_by_name() {
        assert!(Class::ALL.is_sorted());
        for class in Class::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        assert!("alerte".parse::<Class>().is_err());
    }
}
