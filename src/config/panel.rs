//! The `[panel]` block: where the panel listens and under which names it is called.

use std::net::SocketAddr;

use super::{Block, Both, Field, Presence, words};

/// Every key of the block.
pub const FIELDS: &[Field] = &[LISTEN, HOST_NAMES];

const LISTEN: Field = Field {
    name: "listen",
    expects: Both("an address and a port such as \"0.0.0.0:443\"", "une adresse et un port comme \"0.0.0.0:443\""),
    presence: Presence::Default("\"0.0.0.0:443\""),
    doc: "Where the panel answers, over HTTPS only. The port 443 needs no number in the browser's address line.",
};

const HOST_NAMES: Field = Field {
    name: "host_names",
    expects: Both("a list of names such as [\"clocher.local\"]", "une liste de noms comme [\"clocher.local\"]"),
    presence: Presence::Default("[\"clocher.local\"]"),
    doc: "The names people type to reach the panel. Its certificate carries them.",
};

/// Names a certificate of ours may carry; more would not fit a sensible one.
const NAMES: usize = 16;
/// Source: RFC 1035 §2.3.4.
const NAME_LENGTH: usize = 253;

/// Where the panel answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelSettings {
    /// The address of the listener.
    pub listen: SocketAddr,
    /// The names and addresses its certificate carries.
    pub host_names: Vec<String>,
}

/// Reads the block; without one, everything has its default.
pub fn read(block: Option<&Block<'_>>) -> PanelSettings {
    let by_default =
        PanelSettings { listen: SocketAddr::from(([0, 0, 0, 0], 443)), host_names: vec!["clocher.local".to_owned()] };
    let Some(block) = block else { return by_default };
    block.only(&[FIELDS]);
    let listen = block.get(&LISTEN).unwrap_or(by_default.listen);
    let host_names: Vec<String> = block.get(&HOST_NAMES).unwrap_or(by_default.host_names);
    if host_names.is_empty() || host_names.len() > NAMES {
        let count = host_names.len();
        block.fault(
            "host_names",
            words!(
                "`host_names` has {count} names, 1 to {NAMES} were expected",
                "`host_names` a {count} noms ; attendu : de 1 à {NAMES}"
            ),
        );
    }
    for name in host_names.iter().filter(|name| !is_host_name(name)) {
        block.fault(
            "host_names",
            words!(
                "`host_names`: {name:?} is neither a name nor an address",
                "`host_names` : {name:?} n'est ni un nom ni une adresse"
            ),
        );
    }
    PanelSettings { listen, host_names }
}

/// A DNS name (RFC 1123 §2.1), or an IP address.
fn is_host_name(name: &str) -> bool {
    if name.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= NAME_LENGTH && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn read_text(text: &str) -> (PanelSettings, Vec<String>) {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let settings = read(Some(&Block::new(&source, "panel", table.span(), table.get_ref())));
        (settings, source.faults().into_iter().map(|fault| fault.message.english).collect())
    }

    #[test]
    fn without_a_block_and_with_an_empty_one_the_panel_is_the_same() {
        assert_eq!(read_text(""), (read(None), vec![]));
    }

    #[test]
    fn an_address_and_names_are_read() {
        let (settings, faults) = read_text("listen = \"[::1]:8443\"\nhost_names = [\"mairie.example\", \"10.0.0.4\"]");
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!((settings.listen.port(), settings.host_names.len()), (8443, 2));
    }

    #[test]
    fn every_wrong_name_is_told() {
        let (_, faults) = read_text("host_names = [\"a b\", \"-x\", \"ok.example\"]\nlisten = \"443\"");
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
