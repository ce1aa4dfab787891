//! The `[network]` block: how the box reaches the rest of the world. Only provisioning reads it; the gateway never does.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use super::{Block, Both, Field, Presence, Words, words};

const ETHERNET: Field = Field {
    name: "ethernet",
    expects: Both("a block, written [network.ethernet]", "un bloc, écrit [network.ethernet]"),
    presence: Presence::Optional,
    doc: "The cable. Without this block the box takes the address the router gives.",
};
const WIFI: Field = Field {
    name: "wifi",
    expects: Both("a block, written [network.wifi]", "un bloc, écrit [network.wifi]"),
    presence: Presence::Optional,
    doc: "The Wi-Fi the box joins. None without this block.",
};
const MOBILE: Field = Field {
    name: "mobile",
    expects: Both("a block, written [network.mobile]", "un bloc, écrit [network.mobile]"),
    presence: Presence::Optional,
    doc: "The 4G modem. Not used without this block.",
};

/// The keys of `[network]`.
pub const FIELDS: &[Field] = &[ETHERNET, WIFI, MOBILE];

const ADDRESS: Field = Field {
    name: "address",
    expects: Both(
        "an address with the length of its network, such as \"192.168.1.20/24\"",
        "une adresse avec la longueur du réseau, comme \"192.168.1.20/24\"",
    ),
    presence: Presence::Optional,
    doc: "A fixed address. Without it the router gives one (DHCP).",
};
const GATEWAY: Field = Field {
    name: "gateway",
    expects: Both("the router's address, such as \"192.168.1.1\"", "l'adresse de la box, comme \"192.168.1.1\""),
    presence: Presence::Optional,
    doc: "With a fixed address: the router, on the same network.",
};
const DNS: Field = Field {
    name: "dns",
    expects: Both("a list of addresses such as [\"192.168.1.1\"]", "une liste d'adresses comme [\"192.168.1.1\"]"),
    presence: Presence::Optional,
    doc: "Who is asked for names; with a fixed address, the router without it.",
};

const fn metric(default: &'static str) -> Field {
    Field {
        name: "metric",
        expects: Both("a whole number from 1 to 9999", "un nombre entier de 1 à 9999"),
        presence: Presence::Default(default),
        doc: "Of several links that are up, the one with the smallest number is used.",
    }
}
const ETHERNET_METRIC: Field = metric("100");
const WIFI_METRIC: Field = metric("600");
const MOBILE_METRIC: Field = metric("700");

/// The keys of `[network.ethernet]`.
pub const ETHERNET_FIELDS: &[Field] = &[ADDRESS, GATEWAY, DNS, ETHERNET_METRIC];

const SSID: Field = Field {
    name: "ssid",
    expects: Both("the Wi-Fi's name, 1 to 32 bytes", "le nom du Wi-Fi, de 1 à 32 octets"),
    presence: Presence::Required,
    doc: "The Wi-Fi's name, with its capitals and spaces.",
};
const WIFI_PASSWORD: Field = Field {
    name: "password",
    expects: Both(
        "8 to 63 characters without accents, or a key of 64 hexadecimal digits",
        "8 à 63 caractères sans accent, ou une clé de 64 chiffres hexadécimaux",
    ),
    presence: Presence::Optional,
    doc: "Its key (WPA2, WPA3). Without it the Wi-Fi is taken for an open one.",
};
const COUNTRY: Field = Field {
    name: "country",
    expects: Both("a country's two letters, such as \"FR\"", "les deux lettres d'un pays, comme \"FR\""),
    presence: Presence::Default("\"FR\""),
    doc: "Whose rules the radio keeps.",
};
const HIDDEN: Field = Field {
    name: "hidden",
    expects: Both("true or false", "true (oui) ou false (non)"),
    presence: Presence::Default("false"),
    doc: "Whether the Wi-Fi hides its name.",
};

/// The keys of `[network.wifi]`.
pub const WIFI_FIELDS: &[Field] = &[SSID, WIFI_PASSWORD, COUNTRY, HIDDEN, WIFI_METRIC];

const APN: Field = Field {
    name: "apn",
    expects: Both(
        "the operator's access point, such as \"orange\"",
        "le point d'accès (APN) de l'opérateur, comme \"orange\"",
    ),
    presence: Presence::Required,
    doc: "The access point's name, as the operator of the SIM gives it.",
};
const USER: Field = Field {
    name: "user",
    expects: Both("a text", "un texte"),
    presence: Presence::Optional,
    doc: "If the operator asks for one.",
};
const MOBILE_PASSWORD: Field = Field {
    name: "password",
    expects: Both("a text", "un texte"),
    presence: Presence::Optional,
    doc: "If the operator asks for one.",
};
const SIM_PIN: Field = Field {
    name: "sim_pin",
    expects: Both("4 to 8 digits between quotes", "4 à 8 chiffres entre guillemets"),
    presence: Presence::Optional,
    doc: "The code of the SIM. A SIM without a code is safer: three wrong ones lock it.",
};

/// The keys of `[network.mobile]`.
pub const MOBILE_FIELDS: &[Field] = &[APN, USER, MOBILE_PASSWORD, SIM_PIN, MOBILE_METRIC];

/// `[network]`, checked. What is not there, or faulty, is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSettings {
    /// The cable, when more is said of it than nothing.
    pub ethernet: Option<Ethernet>,
    /// The Wi-Fi.
    pub wifi: Option<Wifi>,
    /// The modem.
    pub mobile: Option<Mobile>,
}

/// The cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    /// A fixed address; `None` for the router's choice.
    pub fixed: Option<Fixed>,
    /// Who is asked for names.
    pub dns: Vec<IpAddr>,
    /// The smaller, the sooner it is used.
    pub metric: u16,
}

/// A fixed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// The address and its network.
    pub address: Network,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network, 1 to 30.
    pub length: u8,
}

impl Network {
    fn holds(self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.length));
        u32::from(self.address) & mask == u32::from(other) & mask
    }
}

impl FromStr for Network {
    type Err = Words;

    fn from_str(text: &str) -> Result<Self, Words> {
        let parts = text.split_once('/').and_then(|(address, length)| {
            let address = address.trim().parse().ok()?;
            let length = length.trim().parse().ok().filter(|length| (1..=30).contains(length))?;
            Some(Self { address, length })
        });
        let Both(expects, attend) = ADDRESS.expects;
        parts.ok_or_else(|| words!("{text:?} is not {expects}", "{text:?} n'est pas {attend}"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A word that is neither logged nor shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What only the file it goes to may hold.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A Wi-Fi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// Its name.
    pub ssid: String,
    /// Its key; `None` for an open one.
    pub password: Option<Secret>,
    /// Two capitals.
    pub country: String,
    /// Whether it hides its name.
    pub hidden: bool,
    /// The smaller, the sooner it is used.
    pub metric: u16,
}

/// A modem's subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mobile {
    /// The access point.
    pub apn: String,
    /// If the operator asks.
    pub user: Option<String>,
    /// If the operator asks.
    pub password: Option<Secret>,
    /// The SIM's code.
    pub sim_pin: Option<Secret>,
    /// The smaller, the sooner it is used.
    pub metric: u16,
}

/// Reads `[network]`. A faulty sub-block is left out, the others serve.
pub fn read(block: Option<&Block<'_>>) -> NetworkSettings {
    let Some(block) = block else { return NetworkSettings::default() };
    block.only(&[FIELDS]);
    NetworkSettings {
        ethernet: block.one(ETHERNET.name).and_then(|block| ethernet(&block)),
        wifi: block.one(WIFI.name).and_then(|block| wifi(&block)),
        mobile: block.one(MOBILE.name).and_then(|block| mobile(&block)),
    }
}

fn ethernet(block: &Block<'_>) -> Option<Ethernet> {
    block.only(&[ETHERNET_FIELDS]);
    let address: Option<Network> = block.parse_if_there(&ADDRESS)?;
    let gateway: Option<Ip<Ipv4Addr>> = block.parse_if_there(&GATEWAY)?;
    let dns = if block.has(DNS.name) { addresses(block) } else { Some(Vec::new()) };
    let metric = block.within(&ETHERNET_METRIC, 1_u16, 9_999);
    let gateway = gateway.map(|Ip(gateway)| gateway);
    let fixed = match (address, gateway) {
        (None, Some(_)) => {
            let message = words!(
                "`gateway` is given without `address`: both, or neither",
                "`gateway` est donné sans `address` : les deux, ou aucun"
            );
            block.fault(GATEWAY.name, message);
            return None;
        }
        (Some(network), Some(gateway)) if !network.holds(gateway) => {
            let message = words!(
                "`gateway` is {gateway}, which is not on the network {network}",
                "`gateway` vaut {gateway}, qui n'est pas sur le réseau {network}"
            );
            block.fault(GATEWAY.name, message);
            return None;
        }
        (address, gateway) => address.map(|address| Fixed { address, gateway }),
    };
    Some(Ethernet { fixed, dns: dns?, metric: metric? })
}

fn addresses(block: &Block<'_>) -> Option<Vec<IpAddr>> {
    let texts: Vec<String> = block.get(&DNS)?;
    let parse = |text: &String| text.parse().map_err(|wrong: Words| block.wrong(&DNS, wrong));
    let read: Vec<Result<Ip<IpAddr>, ()>> = texts.iter().map(parse).collect();
    read.into_iter().map(|ip| ip.ok().map(|Ip(ip)| ip)).collect()
}

/// An address, whose fault is told in both languages.
struct Ip<T>(T);

impl<T: FromStr> FromStr for Ip<T> {
    type Err = Words;

    fn from_str(text: &str) -> Result<Self, Words> {
        text.trim().parse().map(Self).map_err(|_| {
            words!("{text:?} is not an address such as 192.168.1.1", "{text:?} n'est pas une adresse comme 192.168.1.1")
        })
    }
}

fn wifi(block: &Block<'_>) -> Option<Wifi> {
    block.only(&[WIFI_FIELDS]);
    let ssid = block.get::<String>(&SSID).filter(|ssid| {
        let sound = (1..=32).contains(&ssid.len()) && !ssid.contains(char::is_control);
        if !sound {
            block.unexpected(&SSID, words!("is {ssid:?}", "vaut {ssid:?}"));
        }
        sound
    });
    let password = secret(block, &WIFI_PASSWORD, |text| {
        let plain = |c: char| c == ' ' || c.is_ascii_graphic();
        let key = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
        key || (8..=63).contains(&text.len()) && text.chars().all(plain)
    });
    let country = block.get::<String>(&COUNTRY).filter(|country| {
        let sound = country.len() == 2 && country.chars().all(|c| c.is_ascii_uppercase());
        if !sound {
            block.unexpected(&COUNTRY, words!("is {country:?}", "vaut {country:?}"));
        }
        sound
    });
    let (hidden, metric) = (block.get(&HIDDEN), block.within(&WIFI_METRIC, 1_u16, 9_999));
    Some(Wifi { ssid: ssid?, password: password?, country: country?, hidden: hidden?, metric: metric? })
}

fn mobile(block: &Block<'_>) -> Option<Mobile> {
    block.only(&[MOBILE_FIELDS]);
    // Source: 3GPP TS 23.003, §9.1: letters, digits, dots and dashes, 100 bytes at most.
    let apn = block.get::<String>(&APN).filter(|apn| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let sound = (1..=100).contains(&apn.len()) && apn.chars().all(allowed);
        if !sound {
            block.unexpected(&APN, words!("is {apn:?}", "vaut {apn:?}"));
        }
        sound
    });
    let user = if block.has(USER.name) { block.get(&USER).map(Some) } else { Some(None) };
    let password = secret(block, &MOBILE_PASSWORD, |text| !text.contains(char::is_control));
    let digits = |text: &str| (4..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let sim_pin = secret(block, &SIM_PIN, digits);
    let metric = block.within(&MOBILE_METRIC, 1_u16, 9_999);
    Some(Mobile { apn: apn?, user: user?, password: password?, sim_pin: sim_pin?, metric: metric? })
}

/// `Some(None)` when it is not written, `None` when it is wrong; what was written is never told.
fn secret(block: &Block<'_>, field: &Field, sound: impl Fn(&str) -> bool) -> Option<Option<Secret>> {
    if !block.has(field.name) {
        return Some(None);
    }
    let text: String = block.get(field)?;
    if !sound(&text) {
        block.unexpected(field, Both("cannot be right", "ne convient pas"));
        return None;
    }
    Some(Some(Secret(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn read_text(text: &str) -> (NetworkSettings, Vec<String>) {
        let source = Source::new("clocher.toml", text);
        let table = source.parse();
        let top = Block::new(&source, "", 0..0, table.get_ref());
        let settings = read(top.one("network").as_ref());
        (settings, source.faults().iter().map(|f| format!("{}: {}", source.line_of(f), f.message.french)).collect())
    }

    #[test]
    fn the_three_links_are_read() {
        let (settings, faults) = read_text(concat!(
            "[network.ethernet]\naddress = \"192.168.1.20/24\"\ngateway = \"192.168.1.1\"\ndns = [\"9.9.9.9\", \"2620:fe::fe\"]\n",
            "[network.wifi]\nssid = \"Mairie été\"\npassword = \"correct horse\"\nhidden = true\n",
            "[network.mobile]\napn = \"orange.m2m\"\nsim_pin = \"1234\"\n",
        ));
        assert_eq!(faults, Vec::<String>::new());
        let ethernet = settings.ethernet.expect("cable");
        let fixed = ethernet.fixed.expect("fixed");
        assert_eq!((fixed.address.to_string(), ethernet.dns.len()), ("192.168.1.20/24".to_owned(), 2));
        let wifi = settings.wifi.expect("wifi");
        assert_eq!((wifi.ssid.as_str(), wifi.country.as_str(), wifi.hidden), ("Mairie été", "FR", true));
        let mobile = settings.mobile.expect("mobile");
        assert!(ethernet.metric < wifi.metric && wifi.metric < mobile.metric);
        assert_eq!(mobile.sim_pin.as_ref().map(Secret::reveal), Some("1234"));
        assert!(!format!("{wifi:?} {mobile:?}").contains("1234"), "a secret is not shown");
    }

    #[test]
    fn every_fault_is_told_in_french_without_a_secret_and_the_sound_link_serves() {
        let (settings, faults) = read_text(concat!(
            "[network.ethernet]\naddress = \"192.168.1.20\"\n",
            "[network.wifi]\nssid = \"\"\npassword = \"court12\"\ncountry = \"France\"\n",
            "[network.mobile]\napn = \"orange\"\n",
            "[network.cable]\n",
        ));
        assert_eq!(settings.mobile.map(|mobile| mobile.apn), Some("orange".to_owned()));
        assert!(settings.ethernet.is_none() && settings.wifi.is_none());
        for start in
            ["2: `address` : ", "4: `ssid` ", "5: `password` ne convient pas ; attendu : 8 à 63", "6: `country` "]
        {
            assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start} in {faults:#?}");
        }
        assert!(faults.iter().any(|fault| fault.contains("`cable` n'existe pas ici")), "{faults:#?}");
        assert!(!faults.concat().contains("court12"));
    }

    #[test]
    fn a_router_on_another_network_or_without_an_address_is_a_fault() {
        for text in [
            "[network.ethernet]\naddress = \"192.168.1.20/24\"\ngateway = \"192.168.0.1\"\n",
            "[network.ethernet]\ngateway = \"192.168.0.1\"\n",
        ] {
            let (settings, faults) = read_text(text);
            assert_eq!((settings.ethernet, faults.len()), (None, 1), "{text}");
        }
    }

    #[test]
    fn a_password_written_without_quotes_is_not_shown() {
        let (_, faults) = read_text("[network.wifi]\nssid = \"a\"\npassword = 12345678\n");
        assert_eq!(faults.len(), 1);
        assert!(!faults[0].contains("12345678"), "{faults:?}");
    }
}
