//! The `[broker]` block: where devices reach the broker, how much they may send, and who may say and hear what.
//!
//! Reads no file: a password kept in a file is read when the broker starts.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf};

use super::{Block, Both, ByteSize, Field, Presence, words};

pub use super::filter::{Filter, LONGEST_TOPIC, NotAFilter};

/// Shortest password taken, in characters.
pub const SHORTEST_PASSWORD: usize = 12;

/// The keys of `[broker]`.
pub const FIELDS: &[Field] = &[
    Field {
        name: "listen",
        expects: Both(
            "an address of this machine such as \"127.0.0.1:1883\"",
            "une adresse de cette machine comme \"127.0.0.1:1883\"",
        ),
        presence: Presence::Default("\"127.0.0.1:1883\""),
        doc: "Where programs on this machine reach the broker, without encryption. Only a loopback address is taken.",
    },
    Field {
        name: "listen_tls",
        expects: Both("an address such as \"0.0.0.0:8883\"", "une adresse comme \"0.0.0.0:8883\""),
        presence: Presence::Optional,
        doc: "Where devices on the local network reach the broker, always encrypted. Without it they cannot.",
    },
    Field {
        name: "max_clients",
        expects: Both("a number from 1 to 1000", "un nombre de 1 à 1000"),
        presence: Presence::Default("200"),
        doc: "How many may be connected at once, on each listener. As many absent clients may have a session kept for them.",
    },
    Field {
        name: "max_payload",
        expects: Both("a size from \"1 KiB\" to \"256 KiB\"", "une taille de \"1 KiB\" à \"256 KiB\""),
        presence: Presence::Default("\"64 KiB\""),
        doc: "The largest message taken. Who sends a larger one is disconnected.",
    },
    Field {
        name: "max_queued",
        expects: Both("a number from 10 to 100000", "un nombre de 10 à 100000"),
        presence: Presence::Default("1000"),
        doc: "How many messages may wait for one client (and 16 times `max_payload` bytes); beyond, it is disconnected.",
    },
    Field {
        name: "max_retained",
        expects: Both("a number from 10 to 50000", "un nombre de 10 à 50000"),
        presence: Presence::Default("5000"),
        doc: "How many retained messages are kept for clients; beyond, a new one is delivered but not retained.",
    },
    Field {
        name: "max_rate",
        expects: Both("messages a second, from 1 to 1000000", "des messages par seconde, de 1 à 1000000"),
        presence: Presence::Default("5000"),
        doc: "How fast one client may publish; a faster one is slowed down.",
    },
    Field {
        name: "account",
        expects: Both(
            "one [[broker.account]] block for each device or program",
            "un bloc [[broker.account]] par appareil ou programme",
        ),
        presence: Presence::Optional,
        doc: "Who may connect. Nobody connects without an account.",
    },
];

/// The keys of `[[broker.account]]`.
pub const ACCOUNT_FIELDS: &[Field] = &[
    Field {
        name: "name",
        expects: Both("a name of 1 to 64 characters", "un nom de 1 à 64 caractères"),
        presence: Presence::Required,
        doc: "The user name the device sends.",
    },
    Field {
        name: "password",
        expects: Both("a password of at least 12 characters", "un mot de passe de 12 caractères au moins"),
        presence: Presence::Optional,
        doc: "Its password, in clear. Better kept in a file of its own, see `password_file`.",
    },
    Field {
        name: "password_file",
        expects: Both(
            "the path of a file that holds the password",
            "le chemin d'un fichier qui contient le mot de passe",
        ),
        presence: Presence::Optional,
        doc: "A file whose first line is the password, at least 12 characters; mode 0600.",
    },
    Field {
        name: "publish",
        expects: Both(
            "a list of MQTT filters such as [\"zigbee2mqtt/#\"]",
            "une liste de filtres MQTT comme [\"zigbee2mqtt/#\"]",
        ),
        presence: Presence::Default("[]"),
        doc: "The topics it may publish to. Under `clocher/` only `clocher/announce/ask` can be granted.",
    },
    Field {
        name: "subscribe",
        expects: Both(
            "a list of MQTT filters such as [\"clocher/#\"]",
            "une liste de filtres MQTT comme [\"clocher/#\"]",
        ),
        presence: Presence::Default("[]"),
        doc: "The topics it may subscribe to.",
    },
];

/// The broker's settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// Plain listener, on a loopback address.
    pub listen: SocketAddr,
    /// TLS listener, if any.
    pub listen_tls: Option<SocketAddr>,
    /// Connections at once.
    pub max_clients: usize,
    /// Largest payload, in bytes.
    pub max_payload: usize,
    /// Messages waiting for one client.
    pub max_queued: usize,
    /// Retained messages of clients.
    pub max_retained: usize,
    /// Publishes a second of one client.
    pub max_rate: u32,
    /// Who may connect.
    pub accounts: Vec<AccountSettings>,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// User name.
    pub name: String,
    /// Its password, or where it is.
    pub password: Password,
    /// What it may publish.
    pub publish: Vec<Filter>,
    /// What it may subscribe to.
    pub subscribe: Vec<Filter>,
}

/// A password, or where it is. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Written in the configuration.
    Given(String),
    /// In a file.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("(not shown)"),
            Self::File(path) => path.fmt(f),
        }
    }
}

/// Reads the `[broker]` block; `None` when a fault was recorded that matters.
pub fn read(block: &Block<'_>) -> Option<BrokerSettings> {
    block.only(&[FIELDS]);
    let [listen, listen_tls, clients, payload, queued, retained, rate, _] = FIELDS else { return None };
    let listen = plain_address(block, listen);
    let listen_tls = block.has(listen_tls.name).then(|| block.get(listen_tls));
    let max_clients = block.within(clients, 1, 1_000);
    let max_payload = size(block, payload);
    let max_queued = block.within(queued, 10, 100_000);
    let max_retained = block.within(retained, 10, 50_000);
    let max_rate = block.within(rate, 1, 1_000_000);
    let accounts = accounts(block);
    Some(BrokerSettings {
        listen: listen?,
        listen_tls: match listen_tls {
            Some(address) => Some(address?),
            None => None,
        },
        max_clients: max_clients?,
        max_payload: max_payload?,
        max_queued: max_queued?,
        max_retained: max_retained?,
        max_rate: max_rate?,
        accounts: accounts?,
    })
}

fn plain_address(block: &Block<'_>, field: &Field) -> Option<SocketAddr> {
    let address: SocketAddr = block.get(field)?;
    if !address.ip().is_loopback() {
        let name = field.name;
        block.fault(
name,
words!(
"`{name}` is \"{address}\": it is not a loopback address, passwords and readings would cross the network in clear; use `listen_tls`",
"`{name}` vaut \"{address}\", que d'autres machines atteignent : mots de passe et mesures y passeraient en clair ; employez `listen_tls`"
),
);
        return None;
    }
    Some(address)
}

fn size(block: &Block<'_>, field: &Field) -> Option<usize> {
    let ByteSize(bytes) = block.get(field)?;
    if !(1_024..=262_144).contains(&bytes) {
        block.unexpected(field, words!("is {bytes} bytes", "vaut {bytes} octets"));
        return None;
    }
    usize::try_from(bytes).ok()
}

fn accounts(block: &Block<'_>) -> Option<Vec<AccountSettings>> {
    let mut names = BTreeSet::new();
    let mut accounts = Some(Vec::new());
    for block in block.blocks("account") {
        let account = account(&block);
        if let Some(account) = &account
            && !names.insert(account.name.clone())
        {
            let name = &account.name;
            block.fault(
                "name",
                words!(
                    "`name` is \"{name}\", which another account already has",
                    "`name` vaut \"{name}\" : un autre compte a déjà ce nom"
                ),
            );
            accounts = None;
        }
        accounts = accounts.zip(account).map(|(mut list, account)| {
            list.push(account);
            list
        });
    }
    accounts
}

fn account(block: &Block<'_>) -> Option<AccountSettings> {
    block.only(&[ACCOUNT_FIELDS]);
    let [name, password, file, publish, subscribe] = ACCOUNT_FIELDS else { return None };
    let name = account_name(block, name);
    let password = self::password(block, password, file);
    let publish = filters(block, publish);
    let subscribe = filters(block, subscribe);
    Some(AccountSettings { name: name?, password: password?, publish: publish?, subscribe: subscribe? })
}

fn account_name(block: &Block<'_>, field: &Field) -> Option<String> {
    let name: String = block.get(field)?;
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        block.unexpected(field, words!("is {name:?}", "vaut {name:?}"));
        return None;
    }
    Some(name)
}

/// Exactly one of the two. The password itself is never in a message.
fn password(block: &Block<'_>, given: &Field, file: &Field) -> Option<Password> {
    match (block.has(given.name), block.has(file.name)) {
        (true, true) => {
            block.fault(
                file.name,
                words!(
                    "`password` and `password_file` are both given, one was expected",
                    "`password` et `password_file` sont donnés tous les deux : un seul suffit"
                ),
            );
            None
        }
        (false, false) => {
            block.fault(
                "",
                words!(
                    "neither `password` nor `password_file` is given, one was expected",
                    "ni `password` ni `password_file` n'est donné : il faut l'un des deux"
                ),
            );
            None
        }
        (false, true) => block.file(file).map(Password::File),
        (true, false) => {
            let text: String = block.get(given)?;
            let long_enough = text.chars().count() >= SHORTEST_PASSWORD;
            if !long_enough {
                block.unexpected(given, words!("is too short", "est trop court"));
            }
            long_enough.then_some(Password::Given(text))
        }
    }
}

fn filters(block: &Block<'_>, field: &Field) -> Option<Vec<Filter>> {
    let texts: Vec<String> = block.get(field)?;
    let parse = |text: &String| text.parse().map_err(|wrong: NotAFilter| block.wrong(field, wrong));
    let read: Vec<_> = texts.iter().map(parse).collect();
    read.into_iter().collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn settings(text: &str) -> (Option<BrokerSettings>, Vec<String>) {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let read = read(&Block::new(&source, "broker", table.span(), table.get_ref()));
        let faults = source.faults().into_iter().map(|f| format!("{}:{}", source.line_of(&f), f.message)).collect();
        (read, faults)
    }

    #[test]
    fn an_empty_block_listens_on_loopback_only_and_lets_nobody_in() {
        let (settings, faults) = settings("");
        assert_eq!(faults, Vec::<String>::new());
        let settings = settings.expect("sound");
        assert!(settings.listen.ip().is_loopback() && settings.listen_tls.is_none() && settings.accounts.is_empty());
        assert_eq!((settings.max_clients, settings.max_payload), (200, 65_536));
    }

    #[test]
    fn every_fault_of_the_block_is_told_at_its_line() {
        let (settings, faults) = settings(
            "listen = \"0.0.0.0:1883\"\nmax_clents = 3\nmax_payload = \"2 MiB\"\n\
             [[account]]\nname = \"a\"\npassword = \"short-secret\"\npublish = [\"a#\"]\n\
             [[account]]\nname = \"b\"\npassword = \"short\"\n\
             [[account]]\nname = \"c\"\n\
             [[account]]\nname = \"d\"\npassword = \"long enough 12\"\npassword_file = \"/x\"\nsubscribe = [\"$share/g/t\"]\n\
             [[account]]\nname = \"e\"\npassword = \"long enough 12\"\n[[account]]\nname = \"e\"\npassword = \"long enough 12\"\n",
        );
        assert_eq!(settings, None);
        for expected in [
            "1:`listen`",
            "2:unknown key `max_clents`",
            "3:`max_payload`",
            "7:`publish`",
            "10:`password`",
            "11:neither",
            "16:`password`",
            "17:`subscribe`",
            "22:`name` is \"e\"",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected} is not in {faults:#?}");
        }
        assert!(faults.iter().all(|fault| !fault.contains("\"short\"")), "a password is shown: {faults:#?}");
    }

    #[test]
    fn a_password_is_never_shown() {
        let (settings, _) = settings("[[account]]\nname = \"a\"\npassword = \"correct horse battery\"");
        assert!(!format!("{settings:?}").contains("correct horse"), "{settings:?}");
    }
}
