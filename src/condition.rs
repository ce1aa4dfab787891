//! Something wrong or worth telling: raised once, acknowledged by a person, closed when it is over.
//!
//! Every part raises and closes on the [`Board`]; the panel, MQTT, the log and the peers read it.
//! The words a person reads for each [`Code`] live in the language files, under `condition-<code>-…`.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::clock::{Clock, Stamp};

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// Something does not work as it should.
    Warning,
    /// Somebody should act today.
    Alarm,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident;)*) => {
        /// The stable name of a kind of condition, the same in the log, on MQTT, in the API and in the language files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* #[serde(rename = $text)] $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How much it matters.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// A block of the configuration is wrong; the device or setting it describes is out of use.
    ConfigurationFault = "configuration-fault", Warning;
    /// The file on the card is faulty or away; an earlier one runs.
    ConfigurationSetAside = "configuration-set-aside", Warning;
    /// A serial adapter, or another wire, is not there.
    PortUnplugged = "port-unplugged", Warning;
    /// A device has not answered, or sent, for too long.
    DeviceSilent = "device-silent", Warning;
    /// A device sends what cannot be understood, or reports its own fault.
    DeviceFault = "device-fault", Warning;
    /// A point's value is outside the range it can have.
    PointOutOfRange = "point-out-of-range", Notice;
    /// Water flows when nobody should use any.
    WaterLeak = "water-leak", Alarm;
    /// A water meter has not counted for a day.
    WaterMeterSilent = "water-meter-silent", Notice;
    /// The air of a room should be renewed.
    AirStale = "air-stale", Notice;
    /// A unit of the gateway fell five times in a minute and was given up.
    UnitGaveUp = "unit-gave-up", Alarm;
    /// Nobody vouches for the wall clock.
    ClockUntrusted = "clock-untrusted", Notice;
    /// The store was damaged; what could be saved was.
    StoreDamaged = "store-damaged", Alarm;
    /// The card is full or refuses writes; readings are held in memory.
    StoreRefusesWrites = "store-refuses-writes", Alarm;
    /// Readings were lost.
    ReadingsLost = "readings-lost", Alarm;
    /// A central server has not pulled for a long time.
    PeerAbsent = "peer-absent", Notice;
    /// Most, or all, of what the link may carry in a month has been used.
    DataBudget = "data-budget", Warning;
    /// The broker does not answer its own test.
    BrokerSilent = "broker-silent", Alarm;
    /// An announcement could not be played.
    AnnouncementFailed = "announcement-failed", Alarm;
    /// No program that can speak, or play sound, was found.
    VoiceMissing = "voice-missing", Warning;
    /// A relay or an input pin cannot be used.
    PinUnusable = "pin-unusable", Warning;
    /// The box's supply is too weak.
    SupplyWeak = "supply-weak", Warning;
    /// Commits to the card usually take too long.
    CardSlow = "card-slow", Warning;
    /// The card has been written as often as can be expected of it.
    CardWorn = "card-worn", Warning;
    /// Little room is left on the card.
    CardNearlyFull = "card-nearly-full", Warning;
    /// A contact says that something is wrong (amplifier fault, door, flood).
    ContactAlarm = "contact-alarm", Warning;
}

impl Code {
    /// Whether it tells what happened once, which nothing will close but a person who has seen it.
    pub fn is_of_a_moment(self) -> bool {
        matches!(self, Self::StoreDamaged | Self::ReadingsLost)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing wrong, of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What kind.
    pub code: Code,
    /// Of what: a device's, port's, zone's, unit's or peer's name, as the operator wrote it.
    pub subject: String,
    /// The particulars, in English, for the log and the technician.
    pub detail: String,
    /// How much it matters.
    pub severity: Severity,
    /// Since when.
    pub since: Stamp,
    /// Who has seen it, and when.
    pub acknowledged: Option<(String, Stamp)>,
    /// When it was over.
    pub closed: Option<Stamp>,
}

/// How many closed conditions are remembered.
const HISTORY: usize = 200;
/// How many may be open at once; more than any hall can have, fewer than memory.
const OPEN: usize = 500;

#[derive(Debug, Default)]
struct Shelves {
    open: Vec<Condition>,
    closed: VecDeque<Condition>,
}

/// Where conditions are raised, acknowledged and closed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board {
    shelves: Arc<Mutex<Shelves>>,
    clock: Clock,
    changes: watch::Sender<u64>,
}

impl Board {
    /// An empty board that dates by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { shelves: Arc::default(), clock, changes: watch::Sender::new(0) }
    }

    /// Raises a condition, or renews the particulars of one already open. True when it is new.
    pub fn raise(&self, code: Code, subject: &str, detail: impl Into<String>) -> bool {
        let detail = detail.into();
        let mut shelves = self.lock();
        if let Some(open) = shelves.open.iter_mut().find(|c| c.code == code && c.subject == subject) {
            let renewed = open.detail != detail;
            open.detail = detail;
            drop(shelves);
            if renewed {
                self.changed();
            }
            return false;
        }
        if shelves.open.len() >= OPEN {
            return false;
        }
        let severity = code.severity();
        match severity {
            Severity::Notice => info!(%code, subject, detail, "Condition raised"),
            Severity::Warning => warn!(%code, subject, detail, "Condition raised"),
            Severity::Alarm => error!(%code, subject, detail, "Condition raised"),
        }
        let since = self.clock.now();
        let subject = subject.to_owned();
        shelves.open.push(Condition { code, subject, detail, severity, since, acknowledged: None, closed: None });
        drop(shelves);
        self.changed();
        true
    }

    /// Closes a condition. True when it was open.
    pub fn close(&self, code: Code, subject: &str) -> bool {
        let mut shelves = self.lock();
        let Some(place) = shelves.open.iter().position(|c| c.code == code && c.subject == subject) else {
            return false;
        };
        let mut over = shelves.open.remove(place);
        over.closed = Some(self.clock.now());
        shelves.closed.push_front(over);
        shelves.closed.truncate(HISTORY);
        drop(shelves);
        info!(%code, subject, "Condition closed");
        self.changed();
        true
    }

    /// Raises when `wrong` carries particulars, closes when it does not.
    pub fn set(&self, code: Code, subject: &str, wrong: Option<String>) {
        match wrong {
            Some(detail) => {
                self.raise(code, subject, detail);
            }
            None => {
                self.close(code, subject);
            }
        }
    }

    /// Somebody has seen it; one that tells of a moment, and not of a state, is over with that, so that the next such
    /// moment is told anew. True when it was open and unseen.
    pub fn acknowledge(&self, code: Code, subject: &str, who: &str) -> bool {
        let now = self.clock.now();
        let mut shelves = self.lock();
        let unseen = |c: &&mut Condition| c.code == code && c.subject == subject && c.acknowledged.is_none();
        let Some(open) = shelves.open.iter_mut().find(unseen) else { return false };
        open.acknowledged = Some((who.to_owned(), now));
        drop(shelves);
        info!(%code, subject, who, "Condition acknowledged");
        if code.is_of_a_moment() {
            return self.close(code, subject);
        }
        self.changed();
        true
    }

    /// What is wrong now, the worst first, then the oldest.
    pub fn open(&self) -> Vec<Condition> {
        let mut open = self.lock().open.clone();
        open.sort_by_key(|c| (std::cmp::Reverse(c.severity), c.since));
        open
    }

    /// What is over, the latest first.
    pub fn closed(&self) -> Vec<Condition> {
        self.lock().closed.iter().cloned().collect()
    }

    /// Whether a condition is open.
    pub fn is_open(&self, code: Code, subject: &str) -> bool {
        self.lock().open.iter().any(|c| c.code == code && c.subject == subject)
    }

    /// Wakes at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{HeldTime, Source};

    fn board() -> Board {
        Board::new(Clock::new(1, HeldTime::at(0, Source::Unknown), []))
    }

    #[test]
    fn a_condition_is_raised_once_seen_once_and_closed_once() {
        let board = board();
        assert!(board.raise(Code::PortUnplugged, "/dev/a", "gone"));
        assert!(!board.raise(Code::PortUnplugged, "/dev/a", "still gone"));
        assert_eq!(board.open()[0].detail, "still gone");
        assert!(board.acknowledge(Code::PortUnplugged, "/dev/a", "mairie"));
        assert!(!board.acknowledge(Code::PortUnplugged, "/dev/a", "mairie"));
        assert!(board.close(Code::PortUnplugged, "/dev/a"));
        assert!(!board.close(Code::PortUnplugged, "/dev/a"));
        assert_eq!((board.open().len(), board.closed().len()), (0, 1));
    }

    #[test]
    fn a_loss_that_somebody_has_seen_is_over_and_the_next_is_told_anew() {
        let board = board();
        board.raise(Code::ReadingsLost, "store", "3 readings");
        assert!(board.acknowledge(Code::ReadingsLost, "store", "mairie"));
        assert_eq!((board.open().len(), board.closed().len()), (0, 1));
        assert!(board.raise(Code::ReadingsLost, "store", "100 000 readings"));
        assert_eq!(board.open()[0].acknowledged, None);
    }

    #[test]
    fn the_worst_comes_first() {
        let board = board();
        board.raise(Code::PeerAbsent, "agglo", "");
        board.raise(Code::WaterLeak, "water/hall", "");
        assert_eq!(board.open()[0].code, Code::WaterLeak);
    }

    #[test]
    fn a_flood_of_conditions_stays_bounded() {
        let board = board();
        for n in 0..10_000 {
            board.raise(Code::DeviceSilent, &n.to_string(), "");
            if n % 2 == 0 {
                board.close(Code::DeviceSilent, &n.to_string());
            }
        }
        assert_eq!((board.open().len(), board.closed().len()), (OPEN, HISTORY));
    }
}
