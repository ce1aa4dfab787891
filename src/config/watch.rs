//! The `[watch]` block: when a reading becomes a condition.

use std::{collections::BTreeMap, time::Duration};

use jiff::tz::TimeZone;

use super::{Block, Both, Field, Presence, Source};
use crate::reading::PointId;

/// The keys of `[watch]`.
pub const FIELDS: &[Field] = &[
    NIGHT_FROM,
    NIGHT_TO,
    NIGHT_FLOOR,
    NIGHTS,
    BURST,
    CONTINUOUS_FOR,
    CONTINUOUS_PAUSE,
    SILENT_AFTER,
    WATER_PRICE,
    CO2_LIMIT,
    CO2_CLEAR,
    CO2_FOR,
];

const NIGHT_FROM: Field = Field {
    name: "night_from",
    expects: Both("an hour from 0 to 23", "une heure de 0 à 23"),
    presence: Presence::Default("2"),
    doc: "From this hour, local time, nobody uses water. The least hour of the night counts, so a ball is no leak.",
};
const NIGHT_TO: Field = Field {
    name: "night_to",
    expects: Both("an hour from 1 to 24, after `night_from`", "une heure de 1 à 24, après `night_from`"),
    presence: Presence::Default("6"),
    doc: "Until this hour, local time.",
};
const NIGHT_FLOOR: Field = Field {
    name: "night_floor",
    expects: Both("litres an hour", "des litres par heure"),
    presence: Presence::Default("1"),
    doc: "A night whose least hour reaches this is a leaking night. A dripping tap loses 1 to 5 L/h; 1 L/h is 8.8 m³ a \
          year. With a meter of 10 L a pulse, set 10 or more.",
};
const NIGHTS: Field = Field {
    name: "nights",
    expects: Both("a number from 1 to 14", "un nombre de 1 à 14"),
    presence: Presence::Default("3"),
    doc: "So many leaking nights running raise the condition `water-leak`.",
};
const BURST: Field = Field {
    name: "burst",
    expects: Both("litres in one hour", "des litres en une heure"),
    presence: Presence::Default("1000"),
    doc: "More than this in one hour is a burst pipe, by day or night.",
};
const CONTINUOUS_FOR: Field = Field {
    name: "continuous_for",
    expects: Both("a duration such as \"24 h\"", "une durée comme \"24 h\""),
    presence: Presence::Default("\"24 h\""),
    doc: "Water that flows for so long without a pause is a leak. Needs no clock.",
};
const CONTINUOUS_PAUSE: Field = Field {
    name: "continuous_pause",
    expects: Both(
        "a duration such as \"30 min\", shorter than `continuous_for`",
        "une durée comme \"30 min\", plus courte que `continuous_for`",
    ),
    presence: Presence::Default("\"30 min\""),
    doc: "So long without a litre is a pause. Must be longer than the `report_every` of the meters.",
};
const SILENT_AFTER: Field = Field {
    name: "silent_after",
    expects: Both("a duration such as \"24 h\"", "une durée comme \"24 h\""),
    presence: Presence::Optional,
    doc: "For a building in daily use: a water meter that has not counted for so long is told as silent, its head or \
          cable may be at fault. By default it is not watched, since a hall may well stay empty.",
};
const WATER_PRICE: Field = Field {
    name: "water_price",
    expects: Both("euros for a cubic metre", "des euros par mètre cube"),
    presence: Presence::Optional,
    doc: "With it, a leak is also told in euros a year.",
};
const CO2_LIMIT: Field = Field {
    name: "co2_limit",
    expects: Both("ppm", "des ppm"),
    presence: Presence::Default("1500"),
    doc: "Above this the air should be renewed. source: décrets 2022-1689 and 2022-1690 (schools, crèches): satisfactory \
          below 800 ppm, to be improved above 1500 ppm.",
};
const CO2_CLEAR: Field = Field {
    name: "co2_clear",
    expects: Both("ppm, below `co2_limit`", "des ppm, moins que `co2_limit`"),
    presence: Presence::Default("1000"),
    doc: "Below this the air is good again.",
};
const CO2_FOR: Field = Field {
    name: "co2_for",
    expects: Both("a duration such as \"10 min\"", "une durée comme \"10 min\""),
    presence: Presence::Default("\"10 min\""),
    doc: "CO2 must stay above `co2_limit` for so long.",
};

/// When a reading becomes a condition; checked.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchSettings {
    /// First hour of the night, local, and the hour after its last.
    pub night: (u8, u8),
    /// Litres an hour that make a leaking night.
    pub night_floor: f64,
    /// Leaking nights running that make a leak; 1 to 14.
    pub nights: u8,
    /// Litres in one hour that make a burst.
    pub burst: f64,
    /// Flowing so long without a pause makes a leak.
    pub continuous_for: Duration,
    /// So long without a litre is a pause; shorter than `continuous_for`.
    pub continuous_pause: Duration,
    /// A meter that has not counted for so long is silent; `None` when that may well be.
    pub silent_after: Option<Duration>,
    /// Euros for a cubic metre.
    pub water_price: Option<f64>,
    /// ppm of CO2 above which the air is stale.
    pub co2_limit: f64,
    /// ppm of CO2 below which it is good again; below `co2_limit`.
    pub co2_clear: f64,
    /// How long it must stay above `co2_limit`.
    pub co2_for: Duration,
    /// The commune's local time.
    pub time_zone: TimeZone,
    /// Contacts that are an alarm while they have this value. They stand in the devices' blocks
    /// (`drivers::contact::alarm`); the application puts them here.
    pub contacts: BTreeMap<PointId, f64>,
}

/// Reads the block; without one, and where a value is faulty, the defaults hold.
pub fn read(block: Option<&Block<'_>>, time_zone: TimeZone) -> WatchSettings {
    let defaults = Source::new("defaults", "");
    let table = defaults.parse();
    let defaults = Block::new(&defaults, "", 0..0, table.get_ref());
    let sound = values(&defaults, &time_zone).unwrap_or_else(|| last_resort(time_zone.clone()));
    let Some(block) = block else { return sound };
    block.only(&[FIELDS]);
    values(block, &time_zone).unwrap_or(sound)
}

fn values(block: &Block<'_>, time_zone: &TimeZone) -> Option<WatchSettings> {
    let hour = Duration::from_secs(3_600);
    let from = block.within(&NIGHT_FROM, 0, 23);
    let to = block.within(&NIGHT_TO, 1, 24);
    let night_floor = block.within(&NIGHT_FLOOR, 0.1, 10_000.0);
    let nights = block.within(&NIGHTS, 1, 14);
    let burst = block.within(&BURST, 1.0, 1e6);
    let continuous_for = block.duration_within(&CONTINUOUS_FOR, Duration::from_secs(10), hour * 24 * 31);
    let continuous_pause = block.duration_within(&CONTINUOUS_PAUSE, Duration::from_secs(1), hour * 24);
    let silent_after = optional(block, &SILENT_AFTER, |f| block.duration_within(f, hour, hour * 24 * 365));
    let water_price = optional(block, &WATER_PRICE, |f| block.within(f, 0.01, 1_000.0));
    let co2_limit = block.within(&CO2_LIMIT, 400.0, 10_000.0);
    let co2_clear = block.within(&CO2_CLEAR, 400.0, 10_000.0);
    let co2_for = block.duration_within(&CO2_FOR, Duration::ZERO, hour * 24);
    let settings = WatchSettings {
        night: (from?, to?),
        night_floor: night_floor?,
        nights: nights?,
        burst: burst?,
        continuous_for: continuous_for?,
        continuous_pause: continuous_pause?,
        silent_after: silent_after?,
        water_price: water_price?,
        co2_limit: co2_limit?,
        co2_clear: co2_clear?,
        co2_for: co2_for?,
        time_zone: time_zone.clone(),
        contacts: BTreeMap::new(),
    };
    in_order(block, &settings).then_some(settings)
}

/// `Some(None)` when it is absent, `None` when it is faulty.
fn optional<T>(block: &Block<'_>, field: &Field, read: impl FnOnce(&Field) -> Option<T>) -> Option<Option<T>> {
    if block.has(field.name) { read(field).map(Some) } else { Some(None) }
}

fn in_order(block: &Block<'_>, settings: &WatchSettings) -> bool {
    let rules = [
        (
            settings.night.0 < settings.night.1,
            &NIGHT_TO,
            Both(
                "`night_to` must come after `night_from`, on the same morning",
                "`night_to` doit venir après `night_from`, le même matin",
            ),
        ),
        (
            settings.continuous_pause < settings.continuous_for,
            &CONTINUOUS_PAUSE,
            Both(
                "`continuous_pause` must be shorter than `continuous_for`",
                "`continuous_pause` doit être plus court que `continuous_for`",
            ),
        ),
        (
            settings.co2_clear < settings.co2_limit,
            &CO2_CLEAR,
            Both("`co2_clear` must lie below `co2_limit`", "`co2_clear` doit être inférieur à `co2_limit`"),
        ),
    ];
    for (_, field, message) in rules.iter().filter(|(kept, ..)| !kept) {
        block.fault(field.name, *message);
    }
    rules.iter().all(|(kept, ..)| *kept)
}

/// The defaults above, for the case that one of them no longer parses: a test compares the two.
fn last_resort(time_zone: TimeZone) -> WatchSettings {
    WatchSettings {
        night: (2, 6),
        night_floor: 1.0,
        nights: 3,
        burst: 1_000.0,
        continuous_for: Duration::from_secs(86_400),
        continuous_pause: Duration::from_secs(1_800),
        silent_after: None,
        water_price: None,
        co2_limit: 1_500.0,
        co2_clear: 1_000.0,
        co2_for: Duration::from_secs(600),
        time_zone,
        contacts: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> (WatchSettings, Vec<String>) {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let settings = read(Some(&Block::new(&source, "watch", table.span(), table.get_ref())), TimeZone::UTC);
        (settings, source.faults().into_iter().map(|fault| fault.message.english).collect())
    }

    #[test]
    fn without_a_block_the_written_defaults_hold() {
        assert_eq!(read(None, TimeZone::UTC), last_resort(TimeZone::UTC));
        assert_eq!(settings("").0, last_resort(TimeZone::UTC));
        let defaults = Source::new("", "");
        let table = defaults.parse();
        assert!(values(&Block::new(&defaults, "", 0..0, table.get_ref()), &TimeZone::UTC).is_some());
    }

    #[test]
    fn what_is_written_holds() {
        let (read, faults) = settings(
            "night_from = 1\nnight_to = 5\nnight_floor = 12\nsilent_after = \"24 h\"\nwater_price = 4.5\nburst = 250",
        );
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!((read.night, read.night_floor, read.burst), ((1, 5), 12.0, 250.0));
        assert_eq!((read.silent_after, read.water_price), (Some(Duration::from_secs(86_400)), Some(4.5)));
    }

    #[test]
    fn a_faulty_block_is_told_and_the_defaults_hold() {
        let (read, faults) = settings("nights = 0\nco2_for = \"10\"\nwater_price = \"dear\"\nco2limit = 3");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert_eq!(read, last_resort(TimeZone::UTC));
        let (_, faults) = settings("night_from = 6\nco2_clear = 2000\ncontinuous_for = \"1 min\"");
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
