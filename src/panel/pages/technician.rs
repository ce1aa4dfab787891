//! The technician's sheet: from the card to a working hall, on one printed page. Open to anybody: it is read before the
//! box is claimed.
//!
//! Sources: the pin header and the lamp's flashes, <https://www.raspberrypi.com/documentation/>; the meter's customer port,
//! Enedis-NOI-CPT_54E; the bus, TIA-485-A.

use askama::Template;

use crate::panel::{
    answer::{Answer, Problem},
    frame::Frame,
    visit::Visit,
};

/// What goes to which pin of the header in `config/gateway.toml`: words, BCM number, physical number.
const PINS: &[(&str, &str, u8)] = &[
    ("technician-pin-water", "17", 11),
    ("technician-pin-contact", "27", 13),
    ("technician-pin-amplifier", "18", 12),
    ("technician-pin-zone-one", "23", 16),
    ("technician-pin-zone-two", "24", 18),
    ("technician-pin-supply", "5 V", 2),
    ("technician-pin-ground", "GND", 14),
];

/// How the green lamp flashes, and what to do.
const LAMPS: &[(&str, &str)] = &[
    ("technician-lamp-green", "technician-lamp-green-means"),
    ("technician-lamp-red", "technician-lamp-red-means"),
    ("technician-lamp-none", "technician-lamp-none-means"),
    ("technician-lamp-four", "technician-lamp-four-means"),
    ("technician-lamp-seven", "technician-lamp-seven-means"),
    ("technician-lamp-unread", "technician-lamp-unread-means"),
    ("technician-lamp-board", "technician-lamp-board-means"),
    ("technician-lamp-power", "technician-lamp-power-means"),
];

/// What `RESULTAT.txt` or the panel says, in their own words, and what to do.
const MESSAGES: &[(&str, &str)] = &[
    ("technician-message-absent", "technician-message-absent-means"),
    ("technician-message-line", "technician-message-line-means"),
    ("condition-port-unplugged-title", "technician-message-unplugged-means"),
    ("condition-device-silent-title", "technician-message-silent-means"),
    ("condition-clock-untrusted-title", "technician-message-clock-means"),
    ("condition-supply-weak-title", "technician-message-supply-means"),
    ("condition-store-refuses-writes-title", "technician-message-card-means"),
];

#[derive(Template)]
#[template(path = "technician.html", config = ".askama.toml")]
struct Technician {
    frame: Frame,
}

impl Technician {
    fn pins(&self) -> impl Iterator<Item = (String, &'static str, u8)> + '_ {
        PINS.iter().map(|(what, bcm, physical)| (self.frame.w.say(what), *bcm, *physical))
    }

    fn lamps(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.pairs(LAMPS)
    }

    fn messages(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.pairs(MESSAGES)
    }

    /// What is seen, and what it means.
    fn pairs(&self, keys: &'static [(&str, &str)]) -> impl Iterator<Item = (String, String)> + '_ {
        keys.iter().map(|(seen, means)| (self.frame.w.say(seen), self.frame.w.say(means)))
    }
}

/// `/technician`.
pub(crate) fn show(visit: &Visit) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let title = visit.words.say("technician-title");
    Answer::page(&Technician { frame: Frame::new(visit, &title, "/technician") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::language::{Language, Languages};

    #[test]
    fn every_line_of_the_sheet_is_written_in_both_languages() {
        for language in Language::ALL {
            let words = Languages::read().of(language);
            let pins = PINS.iter().map(|(what, ..)| *what);
            let pairs = LAMPS.iter().chain(MESSAGES).flat_map(|(seen, means)| [*seen, *means]);
            let missing: Vec<_> = pins.chain(pairs).filter(|key| !words.has(key)).collect();
            assert!(missing.is_empty(), "{language:?} lacks {missing:?}");
        }
    }
}
