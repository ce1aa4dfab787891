//! States in words: what the small whole numbers of a state point mean, by the last word of its name.

use super::language::Words;
use crate::reading::{Kind, Point};

/// What the numbers of a state mean.
struct Meaning {
    /// The last part of the point's name.
    channel: &'static str,
    /// The message of each number, from 0; a number beyond them is shown as it is.
    words: &'static [&'static str],
    /// Whether any number but 0 calls for a look.
    tells: bool,
}

/// Of a door: 0 closed, 1 open, as messages of sensors are read.
const OPENINGS: &[&str] = &["state-closed", "state-open"];
/// Of a dry contact: 0 open, 1 closed.
const CONTACT: &[&str] = &["state-open", "state-closed"];
const ANSWERS: &[&str] = &["state-no", "state-yes"];
const COLOURS: &[&str] = &["state-not-announced", "state-blue", "state-white", "state-red"];
const PEAKS: &[&str] = &["state-no", "state-yes", "state-yes", "state-yes"];
/// Source: Enedis-NOI-CPT_54E v3, §6.2.3.14.
const BREAKER: &[&str] = &[
    "state-closed",
    "state-open-power",
    "state-open-voltage",
    "state-open-shed",
    "state-open-remote",
    "state-open-heat",
    "state-open-heat",
];

const fn quiet(channel: &'static str, words: &'static [&'static str]) -> Meaning {
    Meaning { channel, words, tells: false }
}

const fn telling(channel: &'static str, words: &'static [&'static str]) -> Meaning {
    Meaning { channel, words, tells: true }
}

const MEANINGS: &[Meaning] = &[
    quiet("state", CONTACT),
    quiet("door", OPENINGS),
    quiet("gate", OPENINGS),
    quiet("window", OPENINGS),
    telling("breaker", BREAKER),
    telling("cover-open", ANSWERS),
    telling("over-voltage", ANSWERS),
    telling("over-power", ANSWERS),
    telling("clock-degraded", ANSWERS),
    quiet("tempo-today", COLOURS),
    quiet("tempo-tomorrow", COLOURS),
    quiet("mobile-peak", PEAKS),
    quiet("mobile-peak-announced", PEAKS),
    // Numbers are their names.
    quiet("tariff", &[]),
    quiet("calendar-day", &[]),
    quiet("calendar-day-tomorrow", &[]),
    quiet("relays", &[]),
    telling("phases-missing", &[]),
];

/// The last part of a point's name.
pub(crate) fn channel(point: &Point) -> &str {
    let name = point.id.as_str();
    name.rsplit_once('/').map_or(name, |(_, channel)| channel)
}

fn meaning(point: &Point) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|meaning| meaning.channel == channel(point))
}

fn is_state(point: &Point) -> bool {
    point.kind == Kind::State && point.unit == "1"
}

/// The state's name; `None` for what is not a state, or a number without a name.
pub(crate) fn name(point: &Point, value: f64, words: &Words) -> Option<String> {
    if !is_state(point) {
        return None;
    }
    let names = meaning(point).map_or(ANSWERS, |meaning| meaning.words);
    names.iter().enumerate().find(|(number, _)| *number as f64 == value).map(|(_, key)| words.say(key))
}

/// Whether a state calls for a look.
pub(crate) fn tells(point: &Point, value: Option<f64>) -> bool {
    is_state(point) && value.is_some_and(|value| value != 0.0) && meaning(point).is_some_and(|meaning| meaning.tells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        panel::language::{Language, Languages},
        reading::Sharing,
    };

    fn state(name: &str) -> Point {
        Point {
            id: name.parse().expect("a name"),
            label: String::new(),
            unit: "1".into(),
            kind: Kind::State,
            decimals: 0,
            interval: None,
            range: None,
            sharing: Sharing::Internal,
        }
    }

    #[test]
    fn states_are_said_in_words() {
        let words = Languages::read().of(Language::French);
        let said = |point: &str, value: f64| name(&state(point), value, &words);
        assert_eq!(said("flood/cellar/state", 1.0).as_deref(), Some("Fermé"), "a dry contact");
        assert_eq!(said("school/entrance/door", 1.0).as_deref(), Some("Ouvert"));
        assert_eq!(said("electricity/hall/breaker", 0.0).as_deref(), Some("Fermé"));
        assert_eq!(said("electricity/hall/tempo-tomorrow", 3.0).as_deref(), Some("Rouge"));
        assert_eq!(said("hall/somebody", 1.0).as_deref(), Some("Oui"), "a state nobody told us of");
        assert_eq!(said("electricity/hall/tariff", 1.0), None, "a number that is its own name");
        assert_eq!(said("hall/somebody", 7.0), None);
        assert_eq!(name(&Point { kind: Kind::Gauge, ..state("hall/level") }, 1.0, &words), None);
    }

    #[test]
    fn every_state_has_its_word_in_each_language() {
        for language in Language::ALL {
            let words = Languages::read().of(language);
            for key in MEANINGS.iter().flat_map(|meaning| meaning.words).chain(ANSWERS) {
                assert!(words.has(key), "{key}");
            }
        }
    }

    #[test]
    fn only_what_is_known_to_matter_calls_for_a_look() {
        assert!(tells(&state("electricity/hall/over-power"), Some(1.0)));
        assert!(!tells(&state("electricity/hall/over-power"), Some(0.0)));
        assert!(!tells(&state("electricity/hall/contact-open"), Some(1.0)));
        assert!(!tells(&state("electricity/hall/over-power"), None));
    }
}
