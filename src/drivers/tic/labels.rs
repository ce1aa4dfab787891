//! Labels of the TIC and the points they become. Identifiers of the meter (`ADCO`, `ADSC`, `PRM`) are personal and
//! have no line here; neither have texts, which no chart can show.
//!
//! source: Enedis-NOI-CPT_54E v3, §6.1 (historic mode), §6.2.2 and §6.2.3 (standard mode).

use std::ops::RangeInclusive;

use crate::reading::Kind;

/// How a group's data becomes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Decimal digits.
    Number,
    /// Nine digits that only grow, then start again from zero.
    Index,
    /// The tariff period by name, `HPJB`: its number as the standard mode counts.
    Period,
    /// Tomorrow's Tempo colour by name.
    Colour,
    /// Hexadecimal digits.
    Hex,
    /// A group that is there only while something is wrong: 1.
    Present,
    /// `first` bit of the hexadecimal word, `bits` of them.
    Bits { first: u8, bits: u8 },
}

/// A quantity the meter may send.
#[derive(Debug)]
pub(super) struct Quantity {
    /// The group it is in.
    pub(super) label: &'static str,
    /// Its point, below the device's name.
    pub(super) channel: &'static str,
    pub(super) title: &'static str,
    /// UCUM.
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    pub(super) form: Form,
    pub(super) range: Option<RangeInclusive<f64>>,
    /// In every frame of every contract: its absence is a silence.
    pub(super) always: bool,
}

const fn quantity(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { label, channel, title, unit: "1", kind: Kind::Gauge, form: Form::Number, range: None, always: false }
}

const fn index(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    let quantity = quantity(label, channel, title);
    Quantity { unit: "W.h", kind: Kind::Counter, form: Form::Index, range: Some(0.0..=999_999_999.0), ..quantity }
}

const fn reactive(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { unit: "V.A{reactive}.h", ..index(label, channel, title) }
}

/// Apparent power. A meter of this kind carries 36 kVA; it shows what it measures, so some more.
const fn apparent(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { unit: "V.A", range: Some(0.0..=60_000.0), ..quantity(label, channel, title) }
}

const fn active(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { unit: "W", range: Some(0.0..=60_000.0), ..quantity(label, channel, title) }
}

const fn current(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { unit: "A", range: Some(0.0..=250.0), ..quantity(label, channel, title) }
}

const fn voltage(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { unit: "V", range: Some(0.0..=400.0), ..quantity(label, channel, title) }
}

const fn contract(label: &'static str, channel: &'static str, title: &'static str) -> Quantity {
    Quantity { unit: "kV.A", range: Some(0.0..=36.0), ..quantity(label, channel, title) }
}

const fn state(label: &'static str, channel: &'static str, title: &'static str, form: Form) -> Quantity {
    Quantity { kind: Kind::State, form, ..quantity(label, channel, title) }
}

const fn bits(channel: &'static str, title: &'static str, first: u8, bits: u8) -> Quantity {
    state("STGE", channel, title, Form::Bits { first, bits })
}

/// The channel that says that more is drawn than was subscribed.
pub(super) const OVER_POWER: &str = "over-power";
/// The channel that says that the meter's clock is not to be trusted.
pub(super) const CLOCK_DEGRADED: &str = "clock-degraded";

/// Historic mode.
pub(super) const HISTORIC: &[Quantity] = &[
    Quantity {
        unit: "A", range: Some(0.0..=200.0), ..quantity("ISOUSC", "subscribed-current", "intensité souscrite")
    },
    index("BASE", "index", "index"),
    index("HCHC", "index-off-peak", "index heures creuses"),
    index("HCHP", "index-peak", "index heures pleines"),
    index("EJPHN", "index-normal", "index heures normales"),
    index("EJPHPM", "index-mobile-peak", "index heures de pointe mobile"),
    index("BBRHCJB", "index-blue-off-peak", "index heures creuses, jours bleus"),
    index("BBRHPJB", "index-blue-peak", "index heures pleines, jours bleus"),
    index("BBRHCJW", "index-white-off-peak", "index heures creuses, jours blancs"),
    index("BBRHPJW", "index-white-peak", "index heures pleines, jours blancs"),
    index("BBRHCJR", "index-red-off-peak", "index heures creuses, jours rouges"),
    index("BBRHPJR", "index-red-peak", "index heures pleines, jours rouges"),
    Quantity {
        unit: "min",
        range: Some(0.0..=60.0),
        ..quantity("PEJP", "mobile-peak-notice", "préavis de pointe mobile")
    },
    state("PTEC", "tariff", "période tarifaire en cours", Form::Period),
    state("DEMAIN", "tempo-tomorrow", "couleur Tempo de demain", Form::Colour),
    current("IINST", "current-1", "intensité"),
    current("IINST1", "current-1", "intensité"),
    current("IINST2", "current-2", "intensité phase 2"),
    current("IINST3", "current-3", "intensité phase 3"),
    state("ADPS", OVER_POWER, "dépassement de la puissance souscrite", Form::Present),
    state("ADIR1", OVER_POWER, "dépassement de la puissance souscrite", Form::Present),
    state("ADIR2", OVER_POWER, "dépassement de la puissance souscrite", Form::Present),
    state("ADIR3", OVER_POWER, "dépassement de la puissance souscrite", Form::Present),
    current("IMAX", "current-max-1", "intensité maximale"),
    current("IMAX1", "current-max-1", "intensité maximale"),
    current("IMAX2", "current-max-2", "intensité maximale phase 2"),
    current("IMAX3", "current-max-3", "intensité maximale phase 3"),
    active("PMAX", "active-power-max", "puissance active maximale de la veille"),
    Quantity { always: true, ..apparent("PAPP", "power", "puissance apparente") },
    state("PPOT", "phases-missing", "phases absentes", Form::Hex),
];

/// Standard mode.
pub(super) const STANDARD: &[Quantity] = &[
    Quantity { always: true, ..index("EAST", "index", "index") },
    index("EASF01", "index-tariff-1", "index fournisseur 1"),
    index("EASF02", "index-tariff-2", "index fournisseur 2"),
    index("EASF03", "index-tariff-3", "index fournisseur 3"),
    index("EASF04", "index-tariff-4", "index fournisseur 4"),
    index("EASF05", "index-tariff-5", "index fournisseur 5"),
    index("EASF06", "index-tariff-6", "index fournisseur 6"),
    index("EASF07", "index-tariff-7", "index fournisseur 7"),
    index("EASF08", "index-tariff-8", "index fournisseur 8"),
    index("EASF09", "index-tariff-9", "index fournisseur 9"),
    index("EASF10", "index-tariff-10", "index fournisseur 10"),
    index("EASD01", "index-distributor-1", "index distributeur 1"),
    index("EASD02", "index-distributor-2", "index distributeur 2"),
    index("EASD03", "index-distributor-3", "index distributeur 3"),
    index("EASD04", "index-distributor-4", "index distributeur 4"),
    index("EAIT", "index-injected", "index d’énergie injectée"),
    reactive("ERQ1", "index-reactive-1", "index d’énergie réactive Q1"),
    reactive("ERQ2", "index-reactive-2", "index d’énergie réactive Q2"),
    reactive("ERQ3", "index-reactive-3", "index d’énergie réactive Q3"),
    reactive("ERQ4", "index-reactive-4", "index d’énergie réactive Q4"),
    current("IRMS1", "current-1", "intensité"),
    current("IRMS2", "current-2", "intensité phase 2"),
    current("IRMS3", "current-3", "intensité phase 3"),
    voltage("URMS1", "voltage-1", "tension"),
    voltage("URMS2", "voltage-2", "tension phase 2"),
    voltage("URMS3", "voltage-3", "tension phase 3"),
    voltage("UMOY1", "voltage-mean-1", "tension moyenne"),
    voltage("UMOY2", "voltage-mean-2", "tension moyenne phase 2"),
    voltage("UMOY3", "voltage-mean-3", "tension moyenne phase 3"),
    contract("PREF", "subscribed-power", "puissance souscrite"),
    contract("PCOUP", "cut-off-power", "puissance de coupure"),
    Quantity { always: true, ..apparent("SINSTS", "power", "puissance apparente") },
    apparent("SINSTS1", "power-1", "puissance apparente phase 1"),
    apparent("SINSTS2", "power-2", "puissance apparente phase 2"),
    apparent("SINSTS3", "power-3", "puissance apparente phase 3"),
    apparent("SMAXSN", "power-max", "puissance maximale du jour"),
    apparent("SMAXSN1", "power-max-1", "puissance maximale du jour phase 1"),
    apparent("SMAXSN2", "power-max-2", "puissance maximale du jour phase 2"),
    apparent("SMAXSN3", "power-max-3", "puissance maximale du jour phase 3"),
    apparent("SMAXSN-1", "power-max-yesterday", "puissance maximale de la veille"),
    apparent("SMAXSN1-1", "power-max-yesterday-1", "puissance maximale de la veille phase 1"),
    apparent("SMAXSN2-1", "power-max-yesterday-2", "puissance maximale de la veille phase 2"),
    apparent("SMAXSN3-1", "power-max-yesterday-3", "puissance maximale de la veille phase 3"),
    apparent("SINSTI", "power-injected", "puissance apparente injectée"),
    apparent("SMAXIN", "power-injected-max", "puissance injectée maximale du jour"),
    apparent("SMAXIN-1", "power-injected-max-yesterday", "puissance injectée maximale de la veille"),
    active("CCASN", "power-mean", "puissance active moyenne"),
    active("CCAIN", "power-injected-mean", "puissance active injectée moyenne"),
    state("NTARF", "tariff", "index tarifaire en cours", Form::Number),
    state("NJOURF", "calendar-day", "jour du calendrier fournisseur", Form::Number),
    state("NJOURF+1", "calendar-day-tomorrow", "jour du calendrier fournisseur demain", Form::Number),
    state("RELAIS", "relays", "relais", Form::Number),
    // STGE, 32 bits, §6.2.3.14.
    bits("contact-open", "contact sec ouvert", 0, 1),
    bits("breaker", "organe de coupure", 1, 3),
    bits("cover-open", "cache-bornes ouvert", 4, 1),
    bits("over-voltage", "surtension", 6, 1),
    bits(OVER_POWER, "dépassement de la puissance souscrite", 7, 1),
    bits(CLOCK_DEGRADED, "horloge du compteur dégradée", 16, 1),
    bits("tempo-today", "couleur Tempo du jour", 24, 2),
    bits("tempo-tomorrow", "couleur Tempo de demain", 26, 2),
    bits("mobile-peak-announced", "préavis de pointe mobile", 28, 2),
    bits("mobile-peak", "pointe mobile en cours", 30, 2),
];

/// Tariff periods of the historic mode, numbered as `NTARF` does.
const PERIODS: &[(&str, f64)] = &[
    ("TH..", 1.0),
    ("HC..", 1.0),
    ("HP..", 2.0),
    ("HN..", 1.0),
    ("PM..", 2.0),
    ("HCJB", 1.0),
    ("HPJB", 2.0),
    ("HCJW", 3.0),
    ("HPJW", 4.0),
    ("HCJR", 5.0),
    ("HPJR", 6.0),
];

/// Tempo colours, numbered as `STGE` does.
const COLOURS: &[(&str, f64)] = &[("----", 0.0), ("BLEU", 1.0), ("BLAN", 2.0), ("ROUG", 3.0)];

impl Form {
    /// The number in a group's data; `None` when it is not of this form.
    pub(super) fn read(self, data: &str) -> Option<f64> {
        let word = |words: &[(&str, f64)]| words.iter().find(|(word, _)| *word == data).map(|(_, number)| *number);
        match self {
            Self::Number => digits(data, 5),
            Self::Index => digits(data, 9),
            Self::Period => word(PERIODS),
            Self::Colour => word(COLOURS),
            Self::Hex => hexadecimal(data).map(f64::from),
            Self::Present => Some(1.0),
            Self::Bits { first, bits } => {
                let mask = (1_u32 << bits) - 1;
                hexadecimal(data).map(|word| f64::from(word >> first & mask))
            }
        }
    }
}

fn digits(data: &str, most: usize) -> Option<f64> {
    let sound = (1..=most).contains(&data.len()) && data.bytes().all(|byte| byte.is_ascii_digit());
    if sound { data.parse().ok() } else { None }
}

fn hexadecimal(data: &str) -> Option<u32> {
    let sound = (1..=8).contains(&data.len()) && data.bytes().all(|byte| byte.is_ascii_hexdigit());
    if sound { u32::from_str_radix(data, 16).ok() } else { None }
}
