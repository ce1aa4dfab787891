//! Registers of the Eastron SDM meters: function 04, 32-bit floats, high register first.
//!
//! source: Eastron "SDM120/230/630/72D-M Modbus protocol" input register lists; addresses checked against
//! volkszaehler/mbmd and reaper7/SDM_Energy_Meter.

use crate::reading::Kind;

/// A meter whose registers are known.
#[derive(Debug)]
pub(super) struct Model {
    quantities: &'static [&'static [Quantity]],
    /// Registers in one read: 40 values, 30 on the SDM72.
    pub(super) most_in_a_read: u16,
}

impl Model {
    pub(super) fn quantities(&self) -> impl Iterator<Item = &'static Quantity> {
        self.quantities.iter().copied().flatten()
    }
}

/// What a pair of registers measures.
#[derive(Debug)]
pub(super) struct Quantity {
    pub(super) address: u16,
    pub(super) channel: &'static str,
    pub(super) title: &'static str,
    /// UCUM.
    pub(super) unit: &'static str,
    pub(super) decimals: u8,
    pub(super) kind: Kind,
    pub(super) low: f64,
    pub(super) high: f64,
}

const fn gauge(
    address: u16,
    channel: &'static str,
    title: &'static str,
    unit: &'static str,
    decimals: u8,
    low: f64,
    high: f64,
) -> Quantity {
    Quantity { address, channel, title, unit, decimals, kind: Kind::Gauge, low, high }
}

const fn index(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    let (unit, decimals, kind, low, high) = ("kW.h", 3, Kind::Counter, 0.0, 99_999_999.0);
    Quantity { address, channel, title, unit, decimals, kind, low, high }
}

const fn voltage(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    gauge(address, channel, title, "V", 1, 0.0, 400.0)
}

const fn current(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    gauge(address, channel, title, "A", 3, -6_000.0, 6_000.0)
}

const fn power(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    gauge(address, channel, title, "W", 1, -2e6, 2e6)
}

const fn apparent(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    gauge(address, channel, title, "V.A", 1, -2e6, 2e6)
}

const fn reactive(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    gauge(address, channel, title, "V.A{reactive}", 1, -2e6, 2e6)
}

const fn factor(address: u16, channel: &'static str, title: &'static str) -> Quantity {
    gauge(address, channel, title, "1", 3, -1.0, 1.0)
}

const FREQUENCY: Quantity = gauge(0x0046, "frequency", "fréquence", "Hz", 2, 0.0, 70.0);
const IMPORT: Quantity = index(0x0048, "index-import", "index d’énergie consommée");
const EXPORT: Quantity = index(0x004A, "index-export", "index d’énergie injectée");
const TOTAL: Quantity = index(0x0156, "index-total", "index total");

const ONE_PHASE: &[Quantity] = &[
    voltage(0x0000, "voltage", "tension"),
    current(0x0006, "current", "intensité"),
    power(0x000C, "power", "puissance active"),
    apparent(0x0012, "apparent-power", "puissance apparente"),
    reactive(0x0018, "reactive-power", "puissance réactive"),
    factor(0x001E, "power-factor", "facteur de puissance"),
    FREQUENCY,
    IMPORT,
    EXPORT,
    TOTAL,
];

const THREE_PHASES: &[Quantity] = &[
    voltage(0x0000, "voltage-1", "tension phase 1"),
    voltage(0x0002, "voltage-2", "tension phase 2"),
    voltage(0x0004, "voltage-3", "tension phase 3"),
    current(0x0006, "current-1", "intensité phase 1"),
    current(0x0008, "current-2", "intensité phase 2"),
    current(0x000A, "current-3", "intensité phase 3"),
    power(0x000C, "power-1", "puissance active phase 1"),
    power(0x000E, "power-2", "puissance active phase 2"),
    power(0x0010, "power-3", "puissance active phase 3"),
    apparent(0x0012, "apparent-power-1", "puissance apparente phase 1"),
    apparent(0x0014, "apparent-power-2", "puissance apparente phase 2"),
    apparent(0x0016, "apparent-power-3", "puissance apparente phase 3"),
    reactive(0x0018, "reactive-power-1", "puissance réactive phase 1"),
    reactive(0x001A, "reactive-power-2", "puissance réactive phase 2"),
    reactive(0x001C, "reactive-power-3", "puissance réactive phase 3"),
    factor(0x001E, "power-factor-1", "facteur de puissance phase 1"),
    factor(0x0020, "power-factor-2", "facteur de puissance phase 2"),
    factor(0x0022, "power-factor-3", "facteur de puissance phase 3"),
    power(0x0034, "power", "puissance active"),
    apparent(0x0038, "apparent-power", "puissance apparente"),
    reactive(0x003C, "reactive-power", "puissance réactive"),
    factor(0x003E, "power-factor", "facteur de puissance"),
    FREQUENCY,
    IMPORT,
    EXPORT,
    TOTAL,
];

/// The first SDM72 (SDM72D-M) has totals only; its second version has the map of the SDM630.
const TOTALS: &[Quantity] = &[power(0x0034, "power", "puissance active"), IMPORT, EXPORT, TOTAL];
const ONE_WAY_POWERS: &[Quantity] =
    &[power(0x0500, "power-import", "puissance consommée"), power(0x0502, "power-export", "puissance injectée")];

/// Every model by its name in the configuration.
pub(super) const MODELS: &[(&str, &Model)] = &[
    ("SDM120", &Model { quantities: &[ONE_PHASE], most_in_a_read: 80 }),
    ("SDM230", &Model { quantities: &[ONE_PHASE], most_in_a_read: 80 }),
    ("SDM630", &Model { quantities: &[THREE_PHASES], most_in_a_read: 80 }),
    ("SDM72", &Model { quantities: &[TOTALS, ONE_WAY_POWERS], most_in_a_read: 60 }),
    ("SDM72-V2", &Model { quantities: &[THREE_PHASES, ONE_WAY_POWERS], most_in_a_read: 60 }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_agree_with_the_published_register_list() {
        let list = include_str!("../../../tests/fixtures/modbus/sdm_register_map.json");
        let list: serde_json::Value = serde_json::from_str(list).expect("JSON");
        let listed = list["registers"].as_object().expect("registers");
        let quantities: Vec<_> = THREE_PHASES.iter().chain(ONE_PHASE).chain(TOTALS).collect();
        for (address, title) in listed {
            let address = u16::from_str_radix(address.trim_start_matches("0x"), 16).expect("address");
            let title = title.as_str().expect("title");
            let ours = quantities.iter().find(|quantity| quantity.address == address);
            let ours = ours.unwrap_or_else(|| unreachable!("{address:#06x} {title} is not in our maps"));
            let unit = match title.split(" (").next().and_then(|title| title.split(' ').next_back()) {
                Some("kWh") => "kW.h",
                Some("VA") => "V.A",
                Some("VAr") => "V.A{reactive}",
                Some("factor") => "1",
                Some(unit) => unit,
                None => unreachable!(),
            };
            assert_eq!(ours.unit, unit, "{address:#06x} {title}");
        }
    }

    #[test]
    fn no_model_names_a_channel_or_an_address_twice() {
        for (name, model) in MODELS {
            let channels: std::collections::BTreeSet<_> = model.quantities().map(|q| q.channel).collect();
            let addresses: std::collections::BTreeSet<_> = model.quantities().map(|q| q.address).collect();
            let count = model.quantities().count();
            assert_eq!((channels.len(), addresses.len()), (count, count), "{name}");
        }
    }
}
