//! The one file a technician edits, read into checked types: a part receives its settings and never checks again.

pub mod announce;
pub mod broker;
pub mod filter;
pub mod gpio;
pub mod load;
pub mod network;
pub mod outcome;
pub mod panel;
pub mod peers;
pub mod secret;
pub mod ssh;
pub mod text;
pub mod watch;
pub mod words;

use std::{
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::tz::TimeZone;
use toml::de::DeTable;

pub use load::{Block, ByteSize, Fault, Field, Named, Presence, Source, Value, nearest};
pub(crate) use words::words;
pub use words::{Both, Language, Words};

use crate::port::gpio::Choice;

/// The file as it was understood. What was faulty is missing or has its default, and is in the [`Source`]'s faults.
#[derive(Debug)]
pub struct Settings<D> {
    /// Whose box this is.
    pub commune: Commune,
    /// Where readings are kept.
    pub store: Store,
    /// Who vouches for the wall clock.
    pub clock: Trust,
    /// The panel.
    pub panel: panel::PanelSettings,
    /// Central servers, when any may pull.
    pub peers: Option<peers::PeersSettings>,
    /// The broker, when the building has MQTT devices.
    pub broker: Option<broker::BrokerSettings>,
    /// The loudspeakers, when there are any.
    pub announce: Option<announce::AnnounceSettings>,
    /// Which GPIO.
    pub gpio: Choice,
    /// When readings become conditions.
    pub watch: watch::WatchSettings,
    /// How the box reaches the world, for provisioning.
    pub network: network::NetworkSettings,
    /// Who may open a session, for provisioning.
    pub ssh: Vec<ssh::Key>,
    /// The devices.
    pub devices: Vec<D>,
    /// Where each device is in the file, in the same order.
    pub places: Vec<Range<usize>>,
}

/// Whose box this is and where it hangs.
#[derive(Debug, Clone, PartialEq)]
pub struct Commune {
    /// The commune's name, as on its letterhead.
    pub name: String,
    /// The building: `Salle des fêtes`.
    pub gateway: String,
    /// Civil time of the place.
    pub time_zone: TimeZone,
}

/// Where readings are kept, and how much of the card they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// A directory of our own.
    pub directory: PathBuf,
    /// All of it, in bytes.
    pub size_limit: u64,
    /// The most a power cut can cost of polled readings, and of MQTT messages at QoS 0.
    pub commit_within: Duration,
}

/// Who vouches for the system's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// The time service of the system, or the battery-backed clock it was set from.
    #[default]
    System,
    /// Whoever started the gateway.
    Always,
    /// Whoever leaves this file, and touches it each time the clock was compared with a better one.
    File(PathBuf),
}

impl std::str::FromStr for Trust {
    type Err = Words;

    fn from_str(text: &str) -> Result<Self, Words> {
        match text {
            "system" => Ok(Self::System),
            "always" => Ok(Self::Always),
            path if Path::new(path).is_absolute() => Ok(Self::File(path.into())),
            other => Err(words!(
                "{other:?} is neither \"system\" nor \"always\" nor the full path of a file",
                "{other:?} n'est ni \"system\", ni \"always\", ni le chemin complet d'un fichier"
            )),
        }
    }
}

const TOP: &[Field] = &[
    section("commune", "Whose box this is."),
    section("store", "Where readings are kept while no central server has them."),
    section("clock", "Who vouches for the wall clock."),
    section("gpio", "Which GPIO drives relays and reads contacts."),
    section("panel", "The local web panel."),
    section("peers", "The central servers that may pull. Nobody may without this block."),
    section("broker", "The MQTT broker of the building. None runs without this block."),
    section("announce", "The village loudspeakers. None are driven without this block."),
    section("watch", "When readings become conditions."),
    section("network", "How the box reaches the world. Read by provisioning, from the card of the box."),
    section("ssh", "Who may open a session. Read by provisioning, from the card of the box."),
    section("device", "One sensor or meter; `clocher drivers` lists what each driver takes."),
];

const fn section(name: &'static str, doc: &'static str) -> Field {
    Field { name, expects: Both("a block", "un bloc"), presence: Presence::Optional, doc }
}

const COMMUNE_NAME: Field = Field {
    name: "name",
    expects: Both("the commune's name", "le nom de la commune"),
    presence: Presence::Required,
    doc: "As on its letterhead.",
};
const GATEWAY: Field = Field {
    name: "gateway",
    expects: Both("the building's name", "le nom du bâtiment"),
    presence: Presence::Default("\"Clocher\""),
    doc: "Where the box hangs: \"Salle des fêtes\". Central servers and the panel show it.",
};
const TIME_ZONE: Field = Field {
    name: "time_zone",
    expects: Both("an IANA time zone such as \"Europe/Paris\"", "un fuseau horaire IANA comme \"Europe/Paris\""),
    presence: Presence::Default("\"Europe/Paris\""),
    doc: "Civil time of the place, for the pages, quiet hours and night flows. Readings are kept in UTC.",
};

/// The keys of `[commune]`.
pub const COMMUNE: &[Field] = &[COMMUNE_NAME, GATEWAY, TIME_ZONE];

const DIRECTORY: Field = Field {
    name: "directory",
    expects: Both("a directory", "un dossier"),
    presence: Presence::Default("\"/var/lib/clocher\""),
    doc: "Readings, accounts, announcements and the box's own certificate. Made at the first start, closed to others.",
};
const SIZE_LIMIT: Field = Field {
    name: "size_limit",
    expects: Both("a size such as \"2 GB\", from 32 MB to 1000 GB", "une taille comme \"2 GB\", de 32 MB à 1000 GB"),
    presence: Presence::Default("\"2 GB\""),
    doc: "What the store may take of the card. Beyond it the oldest readings go, those already pulled first.",
};
const COMMIT_WITHIN: Field = Field {
    name: "commit_within",
    expects: Both("a duration such as \"30 s\"", "une durée comme \"30 s\""),
    presence: Presence::Default("\"30 s\""),
    doc: "How long polled readings, and MQTT messages at QoS 0, may wait for the card, to spare it: the most a power \
          cut can cost. Pulse counters and contacts on pins, and acknowledged MQTT messages, never wait.",
};

const DEFAULT_SIZE: u64 = 2_000_000_000;
const SIZES: std::ops::RangeInclusive<u64> = 32_000_000..=1_000_000_000_000;

/// The keys of `[store]`.
pub const STORE: &[Field] = &[DIRECTORY, SIZE_LIMIT, COMMIT_WITHIN];

const TRUST: Field = Field {
    name: "trust",
    expects: Both(
        "\"system\", \"always\" or a file's full path",
        "\"system\", \"always\" ou le chemin complet d'un fichier",
    ),
    presence: Presence::Default("\"system\""),
    doc: "\"system\": the wall clock is believed once systemd-timesyncd or chrony says that it is synchronised, or when \
          it was set from a battery-backed clock. A file's path: while that file is there, touched each time the clock \
          was set right. \"always\": it is believed at once; only for a machine known to be on time.",
};

/// The keys of `[clock]`.
pub const CLOCK: &[Field] = &[TRUST];

/// Every list of fields of the file but the drivers', by block: the manual, and what the tests go through.
pub fn manual() -> Vec<(&'static str, &'static [Field])> {
    let mut blocks = vec![("commune", COMMUNE), ("store", STORE), ("clock", CLOCK), ("gpio", gpio::FIELDS)];
    blocks.extend([("panel", panel::FIELDS), ("peers", peers::FIELDS), ("peers.peer", peers::PEER_FIELDS)]);
    blocks.extend([("broker", broker::FIELDS), ("broker.account", broker::ACCOUNT_FIELDS)]);
    blocks.extend([("announce", announce::FIELDS), ("announce.zone", announce::ZONE_FIELDS)]);
    blocks.extend([("watch", watch::FIELDS), ("network", network::FIELDS), ("ssh", ssh::FIELDS)]);
    blocks.extend([("network.ethernet", network::ETHERNET_FIELDS), ("network.wifi", network::WIFI_FIELDS)]);
    blocks.push(("network.mobile", network::MOBILE_FIELDS));
    blocks
}

/// Reads the whole file. Devices are read by `device`, which knows the drivers.
pub fn read<D>(source: &Source, device: impl Fn(&Block<'_>) -> Option<D>) -> Settings<D> {
    let table = source.parse();
    let top = Block::new(source, "", 0..0, table.get_ref());
    top.only(&[TOP]);
    let one = |name: &str| top.one(name);
    let empty = DeTable::new();
    let absent = |name: &str| Block::new(source, name, 0..0, &empty);
    let commune = read_commune(&one("commune").unwrap_or_else(|| absent("commune")));
    let devices = top.blocks("device");
    addresses_differ(&top);
    let (places, devices) = devices.iter().filter_map(|block| Some((block.span.clone(), device(block)?))).unzip();
    Settings {
        store: read_store(&one("store").unwrap_or_else(|| absent("store"))),
        clock: read_trust(&one("clock").unwrap_or_else(|| absent("clock"))),
        panel: panel::read(one("panel").as_ref()),
        peers: one("peers").as_ref().and_then(peers::PeersSettings::read),
        broker: one("broker").as_ref().and_then(broker::read),
        announce: one("announce").as_ref().and_then(announce::read),
        gpio: gpio::read(one("gpio").as_ref()),
        watch: watch::read(one("watch").as_ref(), commune.time_zone.clone()),
        network: network::read(one("network").as_ref()),
        ssh: ssh::read(one("ssh").as_ref()),
        devices,
        places,
        commune,
    }
}

/// The keys that name an address to listen at.
const LISTENERS: &[(&str, &str)] =
    &[("panel", "listen"), ("peers", "listen"), ("broker", "listen"), ("broker", "listen_tls")];

/// Two listeners cannot have one address; port 0 is any free one.
fn addresses_differ(top: &Block<'_>) {
    let mut taken: Vec<(SocketAddr, String)> = Vec::new();
    for (name, key) in LISTENERS {
        for block in top.blocks(name).into_iter().take(1) {
            let Some(address) = block.text(key).and_then(|text| text.parse::<SocketAddr>().ok()) else { continue };
            let meets = |(other, _): &&(SocketAddr, String)| {
                let (ip, other_ip) = (address.ip(), other.ip());
                other.port() == address.port()
                    && address.port() != 0
                    && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
            };
            match taken.iter().find(meets) {
                Some((_, owner)) => block.fault(
                    key,
                    words!(
                        "`{key}` is {address}, which {owner} already has",
                        "`{key}` vaut {address}, l'adresse de {owner} déjà"
                    ),
                ),
                None => taken.push((address, format!("[{name}] `{key}`"))),
            }
        }
    }
}

fn read_commune(block: &Block<'_>) -> Commune {
    block.only(&[COMMUNE]);
    let name: Option<String> = block.get(&COMMUNE_NAME);
    if name.as_deref().is_some_and(|name| name.trim().is_empty() || name.chars().count() > 80) {
        block.fault("name", words!("`name` must have 1 to 80 characters", "`name` doit avoir de 1 à 80 caractères"));
    }
    Commune {
        name: name.unwrap_or_else(|| "Commune".to_owned()),
        gateway: block.get(&GATEWAY).unwrap_or_default(),
        time_zone: time_zone(block).unwrap_or(TimeZone::UTC),
    }
}

fn time_zone(block: &Block<'_>) -> Option<TimeZone> {
    let name: String = block.get(&TIME_ZONE)?;
    let found = TimeZone::get(&name);
    if found.is_err() {
        block.unexpected(&TIME_ZONE, words!("is \"{name}\"", "vaut \"{name}\""));
    }
    found.ok()
}

fn read_store(block: &Block<'_>) -> Store {
    block.only(&[STORE]);
    let size = block.get::<ByteSize>(&SIZE_LIMIT).map_or(0, |size| size.0);
    if !SIZES.contains(&size) && size != 0 {
        block.unexpected(&SIZE_LIMIT, words!("is {size} bytes", "vaut {size} octets"));
    }
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
    Store {
        directory: block.get(&DIRECTORY).unwrap_or_else(|| PathBuf::from("/var/lib/clocher")),
        size_limit: if SIZES.contains(&size) { size } else { DEFAULT_SIZE },
        commit_within: block.duration_within(&COMMIT_WITHIN, least, most).unwrap_or(Duration::from_secs(30)),
    }
}

fn read_trust(block: &Block<'_>) -> Trust {
    block.only(&[CLOCK]);
    block.parse(&TRUST).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> (Settings<()>, Vec<String>) {
        let source = Source::new("gateway.toml", text);
        let settings = read(&source, |_| Some(()));
        let faults = source.faults().iter().map(|f| format!("{}: {}", source.line_of(f), f.message)).collect();
        (settings, faults)
    }

    #[test]
    fn a_commune_s_name_is_all_that_must_be_written() {
        let (settings, faults) = settings("[commune]\nname = \"Montclar\"\n");
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(settings.store.size_limit, 2_000_000_000);
        assert!(settings.peers.is_none() && settings.broker.is_none() && settings.announce.is_none());
    }

    #[test]
    fn an_empty_file_says_what_is_missing_and_still_gives_settings() {
        let (settings, faults) = settings("");
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("`name` is missing"), "{faults:?}");
        assert_eq!(settings.commune.name, "Commune");
    }

    #[test]
    fn a_time_zone_that_does_not_exist_is_told_at_its_line() {
        let (_, faults) = settings("[commune]\nname = \"M\"\ntime_zone = \"Europe/Carcassonne\"");
        assert!(faults[0].starts_with("3: `time_zone` is \"Europe/Carcassonne\""), "{faults:?}");
    }

    #[test]
    fn two_listeners_at_one_address_are_told_at_the_second() {
        let text =
            "[commune]\nname = \"M\"\n[panel]\nlisten = \"0.0.0.0:8443\"\n[broker]\nlisten = \"127.0.0.1:8443\"\n";
        let (_, faults) = settings(text);
        assert_eq!(faults, ["6: `listen` is 127.0.0.1:8443, which [panel] `listen` already has"]);
        assert!(settings(&text.replace(":8443", ":0")).1.is_empty(), "any free port");
    }

    #[test]
    fn a_header_that_does_not_parse_is_told_and_what_follows_it_is_not_judged() {
        let (_, faults) = settings("[commune]\nname = \"M\"\n[panel\nlisten = 3\n[watch]\nnight_from = 99\n");
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("3: ") && faults[1].starts_with("6: "), "{faults:?}");
    }

    #[test]
    fn a_value_that_does_not_parse_is_told_once() {
        let (_, faults) = settings("[commune]\nname = \"M\"\n[panel]\nlisten =\n[clock]\ntrust = system\n");
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn every_default_of_the_manual_is_a_value() {
        for (block, fields) in manual() {
            for field in fields {
                if let Presence::Default(text) = field.presence {
                    assert!(toml::de::DeValue::parse(text).is_ok(), "{block}.{}: {text}", field.name);
                }
                assert!(!field.doc.is_empty() && !field.expects.0.is_empty(), "{block}.{} has no manual", field.name);
                assert_ne!(field.expects.0, field.expects.1, "{block}.{} is not told in French", field.name);
            }
        }
    }
}
