//! How each link of the box is, from what `ip -json address` and `nmcli -t -f DEVICE,TYPE,STATE device` say.

use std::net::IpAddr;

use serde::Deserialize;

use crate::config::network::NetworkSettings;

/// A link that was asked for, or that is there anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// What people call it.
    pub(super) name: String,
    /// The kernel's name, when there is an adapter.
    pub(super) device: Option<String>,
    /// How it is, in French.
    pub(super) state: &'static str,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    ifname: String,
    #[serde(default)]
    link_type: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    local: Option<IpAddr>,
    #[serde(default)]
    scope: String,
}

/// The cable always; the others when they were asked for.
pub(super) fn links(asked: &NetworkSettings, addresses: &str, devices: &str) -> Vec<Link> {
    let interfaces: Vec<Interface> = serde_json::from_str(addresses).unwrap_or_default();
    let managed: Vec<(String, String, String)> = devices.lines().filter_map(device).collect();
    let mut links = of_kind("Câble", "ethernet", &interfaces, &managed);
    if links.is_empty() {
        links.extend(unmanaged(&interfaces));
    }
    if let Some(wifi) = &asked.wifi {
        links.extend(one_of_kind(format!("Wi-Fi « {} »", wifi.ssid), "wifi", &interfaces, &managed));
    }
    if let Some(mobile) = &asked.mobile {
        links.extend(one_of_kind(format!("4G « {} »", mobile.apn), "gsm", &interfaces, &managed));
    }
    links
}

/// A line of nmcli; a colon within a field stands behind a backslash, as in addresses, which are not asked for.
fn device(line: &str) -> Option<(String, String, String)> {
    let mut fields = line.splitn(3, ':');
    Some((fields.next()?.to_owned(), fields.next()?.to_owned(), fields.next()?.to_owned()))
}

fn of_kind(name: &str, kind: &str, interfaces: &[Interface], managed: &[(String, String, String)]) -> Vec<Link> {
    let ours = managed.iter().filter(|(_, its, _)| its == kind);
    let link = |(device, _, state): &(String, String, String)| {
        let interface = interfaces.iter().find(|interface| interface.ifname == *device);
        Link {
            name: name.to_owned(),
            device: Some(device.clone()),
            state: in_french(state),
            addresses: interface.map(usable).unwrap_or_default(),
        }
    };
    ours.map(link).collect()
}

fn one_of_kind(name: String, kind: &str, interfaces: &[Interface], managed: &[(String, String, String)]) -> Vec<Link> {
    let found = of_kind(&name, kind, interfaces, managed);
    if !found.is_empty() {
        return found;
    }
    vec![Link { name, device: None, state: "aucun adaptateur n'a été trouvé", addresses: Vec::new() }]
}

/// Where NetworkManager says nothing, the kernel still does.
fn unmanaged(interfaces: &[Interface]) -> impl Iterator<Item = Link> + '_ {
    interfaces.iter().filter(|interface| interface.link_type == "ether").map(|interface| Link {
        name: "Câble".to_owned(),
        device: Some(interface.ifname.clone()),
        state: if interface.flags.iter().any(|flag| flag == "LOWER_UP") { "branché" } else { "débranché" },
        addresses: usable(interface),
    })
}

/// Addresses a browser can be given. The IPv6 ones of the link need the name of the adapter, which differs on each PC; the IPv4
/// ones (RFC 3927) reach a PC on the same cable, and are told when there is no other.
fn usable(interface: &Interface) -> Vec<IpAddr> {
    let of_scope = |scope: &'static str| {
        interface.addr_info.iter().filter(move |address| address.scope == scope).filter_map(|address| address.local)
    };
    let global: Vec<IpAddr> = of_scope("global").chain(of_scope("site")).collect();
    if global.is_empty() { of_scope("link").filter(IpAddr::is_ipv4).collect() } else { global }
}

/// Source: NetworkManager, `nmc_device_state_to_string`.
fn in_french(state: &str) -> &'static str {
    match state.split(' ').next().unwrap_or_default() {
        "connected" => "relié",
        "connecting" => "en train de se relier",
        "disconnected" => "non relié",
        "unavailable" => "débranché ou hors de portée",
        "unmanaged" => "laissé de côté",
        _ => "dans un état inconnu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Block, Source, network};

    const ADDRESSES: &str = r#"[
      {"ifname":"lo","link_type":"loopback","flags":["UP","LOWER_UP"],"addr_info":[{"family":"inet","local":"127.0.0.1","scope":"host"}]},
      {"ifname":"eth0","link_type":"ether","flags":["UP","LOWER_UP"],"addr_info":[
        {"family":"inet","local":"192.168.1.20","prefixlen":24,"scope":"global"},
        {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]},
      {"ifname":"wlan0","link_type":"ether","flags":["NO-CARRIER"],"addr_info":[]}]"#;

    fn asked(text: &str) -> NetworkSettings {
        let source = Source::new("clocher.toml", text);
        let table = source.parse();
        network::read(Block::new(&source, "", 0..0, table.get_ref()).one("network").as_ref())
    }

    #[test]
    fn every_link_that_was_asked_for_is_told_with_its_addresses() {
        let asked = asked("[network.wifi]\nssid = \"Mairie\"\n[network.mobile]\napn = \"orange\"\n");
        let devices =
            "eth0:ethernet:connected\nwlan0:wifi:connecting (getting IP configuration)\nlo:loopback:unmanaged\n";
        let links = links(&asked, ADDRESSES, devices);
        let told: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.state, link.addresses.len())).collect();
        assert_eq!(
            told,
            [
                ("Câble", "relié", 1),
                ("Wi-Fi « Mairie »", "en train de se relier", 0),
                ("4G « orange »", "aucun adaptateur n'a été trouvé", 0)
            ]
        );
        assert_eq!(links[0].addresses, ["192.168.1.20".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn an_address_of_the_link_alone_is_told_only_when_there_is_no_other() {
        let told = |more: &str| {
            let addresses = format!(
                r#"[{{"ifname":"eth0","link_type":"ether","addr_info":[{{"local":"169.254.122.250","scope":"link"}},
                {{"local":"fe80::1","scope":"link"}}{more}]}}]"#
            );
            links(&NetworkSettings::default(), &addresses, "")[0]
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(told(""), ["169.254.122.250"]);
        assert_eq!(told(r#",{"local":"192.168.1.20","scope":"global"}"#), ["192.168.1.20"]);
        assert_eq!(told(r#",{"local":"fec0::1","scope":"site"}"#), ["fec0::1"]);
    }

    #[test]
    fn without_networkmanager_the_kernel_says_what_is_plugged_in() {
        let links = links(&NetworkSettings::default(), ADDRESSES, "");
        let told: Vec<_> = links.iter().map(|link| (link.device.as_deref(), link.state)).collect();
        assert_eq!(told, [(Some("eth0"), "branché"), (Some("wlan0"), "débranché")]);
        assert_eq!(super::links(&NetworkSettings::default(), "garbage", ""), []);
    }
}
