//! The links as NetworkManager reads them. Source: nm-settings-keyfile(5), nm-settings(5), NetworkManager 1.52.
//!
//! The identity shown to routers is the address of the adapter: the machine's own may be new at each start.

use std::fmt::Write;

use crate::config::network::{Ethernet, Mobile, NetworkSettings, Wifi};

/// What the cable's number is when nothing is said of it.
const CABLE_METRIC: u16 = 100;

/// The files, by name. The cable has one always.
pub(super) fn all(network: &NetworkSettings) -> Vec<(&'static str, String)> {
    let mut files = vec![("clocher-ethernet.nmconnection", ethernet(network.ethernet.as_ref()))];
    files.extend(network.wifi.as_ref().map(|it| ("clocher-wifi.nmconnection", wifi(it))));
    files.extend(network.mobile.as_ref().map(|it| ("clocher-mobile.nmconnection", mobile(it))));
    files
}

/// One that goes on trying: nobody is there to press a button.
fn connection(id: &str, kind: &str) -> String {
    format!("[connection]\nid={id}\ntype={kind}\nautoconnect-retries=0\n")
}

fn ethernet(settings: Option<&Ethernet>) -> String {
    let mut text = connection("clocher-ethernet", "ethernet");
    let metric = settings.map_or(CABLE_METRIC, |settings| settings.metric);
    let (mut v4, mut v6) = (String::new(), String::new());
    for dns in settings.iter().flat_map(|settings| &settings.dns) {
        let list = if dns.is_ipv4() { &mut v4 } else { &mut v6 };
        let _ = write!(list, "{dns};");
    }
    let fixed = settings.and_then(|settings| settings.fixed);
    match fixed {
        Some(fixed) => {
            let gateway = fixed.gateway.map(|gateway| format!(",{gateway}")).unwrap_or_default();
            // Without a word on names, whoever leads out is asked.
            if let (true, true, Some(router)) = (v4.is_empty(), v6.is_empty(), fixed.gateway) {
                v4 = format!("{router};");
            }
            let _ = write!(text, "\n[ipv4]\nmethod=manual\naddress1={}{gateway}\n", fixed.address);
        }
        // A laptop at the other end of the cable gives no address: the box then has one of its own, and goes on asking.
        None => {
            text.push_str("\n[ipv4]\nmethod=auto\ndhcp-client-id=mac\ndhcp-timeout=2147483647\nlink-local=3\n");
        }
    }
    named_and_numbered(&mut text, &v4, metric);
    text.push_str("\n[ipv6]\nmethod=auto\naddr-gen-mode=eui64\ndhcp-duid=ll\n");
    named_and_numbered(&mut text, &v6, metric);
    text
}

fn named_and_numbered(text: &mut String, dns: &str, metric: u16) {
    if !dns.is_empty() {
        let _ = writeln!(text, "dns={dns}");
    }
    let _ = writeln!(text, "route-metric={metric}");
}

fn wifi(settings: &Wifi) -> String {
    let mut text = connection("clocher-wifi", "wifi");
    // As numbers: no name can then be taken for something else.
    let ssid: String = settings.ssid.bytes().map(|byte| format!("{byte};")).collect();
    let _ = write!(text, "\n[wifi]\nmode=infrastructure\nssid={ssid}\ncloned-mac-address=permanent\n");
    if settings.hidden {
        text.push_str("hidden=true\n");
    }
    if let Some(password) = &settings.password {
        let _ = write!(text, "\n[wifi-security]\nkey-mgmt=wpa-psk\npsk={}\n", escaped(password.reveal()));
    }
    automatic(&mut text, settings.metric);
    text
}

fn mobile(settings: &Mobile) -> String {
    let mut text = connection("clocher-mobile", "gsm");
    let _ = write!(text, "\n[gsm]\napn={}\n", escaped(&settings.apn));
    if let Some(user) = &settings.user {
        let _ = writeln!(text, "username={}", escaped(user));
    }
    if let Some(password) = &settings.password {
        let _ = writeln!(text, "password={}", escaped(password.reveal()));
    }
    if let Some(pin) = &settings.sim_pin {
        let _ = writeln!(text, "pin={}", pin.reveal());
    }
    automatic(&mut text, settings.metric);
    text
}

fn automatic(text: &mut String, metric: u16) {
    let _ = write!(
        text,
        "\n[ipv4]\nmethod=auto\ndhcp-client-id=mac\nroute-metric={metric}\n\
         \n[ipv6]\nmethod=auto\naddr-gen-mode=eui64\ndhcp-duid=ll\nroute-metric={metric}\n"
    );
}

/// As GLib's key files write a string. Source: GLib, `g_key_file_parse_value_as_string`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            ' ' => escaped.push_str("\\s"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Block, Source, network};

    fn files(text: &str) -> Vec<(&'static str, String)> {
        let source = Source::new("clocher.toml", text);
        let table = source.parse();
        let settings = network::read(Block::new(&source, "", 0..0, table.get_ref()).one("network").as_ref());
        assert_eq!(source.faults(), []);
        all(&settings)
    }

    #[test]
    fn without_a_word_the_cable_takes_what_the_router_gives() {
        let files = files("");
        assert_eq!(files.len(), 1);
        let text = &files[0].1;
        assert!(
            text.contains("[ipv4]\nmethod=auto\ndhcp-client-id=mac\n") && text.contains("route-metric=100"),
            "{text}"
        );
    }

    #[test]
    fn a_fixed_address_is_written_with_its_router_who_is_asked_for_names() {
        let files = files("[network.ethernet]\naddress = \"10.0.0.5/16\"\ngateway = \"10.0.0.1\"\n");
        let text = &files[0].1;
        assert!(text.contains("method=manual\naddress1=10.0.0.5/16,10.0.0.1\ndns=10.0.0.1;\n"), "{text}");
    }

    #[test]
    fn names_and_passwords_of_any_letters_keep_their_meaning() {
        let files = files(concat!(
            "[network.wifi]\nssid = \"1;2 é\"\npassword = \" a\\\\b#c;d \"\n",
            "[network.mobile]\napn = \"free\"\nuser = \"u s\"\npassword = \"p=w\"\nsim_pin = \"0000\"\nmetric = 50\n",
        ));
        let (wifi, mobile) = (&files[1].1, &files[2].1);
        assert!(wifi.contains("ssid=49;59;50;32;195;169;\n") && wifi.contains("psk=\\sa\\\\b#c;d\\s\n"), "{wifi}");
        assert!(mobile.contains("username=u\\ss\npassword=p=w\npin=0000\n"), "{mobile}");
        assert!(mobile.contains("route-metric=50"), "{mobile}");
    }
}
