//! The `[peers]` block: who may pull readings, with which certificate, and what.

use std::{collections::BTreeSet, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{Block, Both, ByteSize, Field, Presence, words};
use crate::{reading::Sharing, tls};

const AUTHORITY: Field = Field {
    name: "authority",
    expects: Both(
        "a PEM certificate between triple quotes, or the path of a PEM file",
        "un certificat PEM entre triples guillemets, ou le chemin d'un fichier PEM",
    ),
    presence: Presence::Required,
    doc: "The certificate of the authority that issued the central servers' certificates, as text or in a file. \
          No other is let in.",
};

/// The keys of `[peers]`.
pub const FIELDS: &[Field] = &[
    Field {
        name: "listen",
        expects: Both("an address and port such as \"0.0.0.0:8444\"", "une adresse et un port comme \"0.0.0.0:8444\""),
        presence: Presence::Default("\"0.0.0.0:8444\""),
        doc: "Where central servers connect to pull.",
    },
    Field {
        name: "certificate",
        expects: Both("the path of a PEM file", "le chemin d'un fichier PEM"),
        presence: Presence::Optional,
        doc: "The gateway's certificate, followed by its chain. Without it, the gateway shows the one it made for itself.",
    },
    Field {
        name: "key",
        expects: Both("the path of a PEM file", "le chemin d'un fichier PEM"),
        presence: Presence::Optional,
        doc: "The key of `certificate`, readable by the gateway alone.",
    },
    AUTHORITY,
    Field {
        name: "revoked",
        expects: Both("the path of a PEM file", "le chemin d'un fichier PEM"),
        presence: Presence::Optional,
        doc: "The authority's list of revoked certificates (CRL). Read at start.",
    },
    Field {
        name: "page_bytes",
        expects: Both("a size between \"16 KiB\" and \"16 MiB\"", "une taille entre \"16 KiB\" et \"16 MiB\""),
        presence: Presence::Default("\"1 MiB\""),
        doc: "The largest page given at once, before compression. Smaller pages lose less to a link that drops.",
    },
    Field {
        name: "absent_after",
        expects: Both("a duration between \"1 min\" and \"90 d\"", "une durée entre \"1 min\" et \"90 d\" (d : jours)"),
        presence: Presence::Default("\"24 h\""),
        doc: "A central server that has not pulled for so long is shown as absent.",
    },
    Field {
        name: "monthly_budget",
        expects: Both("a size between \"10 MB\" and \"1000 GB\"", "une taille entre \"10 MB\" et \"1000 GB\""),
        presence: Presence::Optional,
        doc: "What the central servers may take and send in a calendar month. Beyond it readings wait in the gateway until \
              the month ends; alarms still leave. Without it the month is counted and shown, not limited.",
    },
    Field {
        name: "peer",
        expects: Both("blocks, written [[peers.peer]]", "des blocs, écrits [[peers.peer]]"),
        presence: Presence::Optional,
        doc: "The central servers, one block each.",
    },
];

/// The keys of `[[peers.peer]]`.
pub const PEER_FIELDS: &[Field] = &[
    Field {
        name: "name",
        expects: Both(
            "the common name, or a DNS name, of the peer's certificate",
            "le nom commun (CN), ou un nom DNS, du certificat du serveur central",
        ),
        presence: Presence::Required,
        doc: "Who it is: the name its certificate carries.",
    },
    Field {
        name: "sharing",
        expects: Both(
            "some of \"public\", \"internal\", \"personal\"",
            "un ou plusieurs de \"public\", \"internal\", \"personal\"",
        ),
        presence: Presence::Required,
        doc: "Which points it may pull, by their sharing class.",
    },
    Field {
        name: "consent",
        expects: Both("a text", "un texte"),
        presence: Presence::Optional,
        doc: "Who consented to what, and where the paper is. Without it no personal point leaves the gateway. \
              A withdrawal recorded on the panel ends it.",
    },
    Field {
        name: "label",
        expects: Both("a text", "un texte"),
        presence: Presence::Optional,
        doc: "What people call it, on the panel: \"Carcassonne Agglo\". Its `name` without it.",
    },
];

/// What the configuration takes of each size.
const PAGES: RangeInclusive<u64> = 16 << 10..=16 << 20;
const BUDGETS: RangeInclusive<u64> = 10_000_000..=1_000_000_000_000;

const CLASSES: &[(&str, Sharing)] =
    &[("public", Sharing::Public), ("internal", Sharing::Internal), ("personal", Sharing::Personal)];

/// Certificates in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file of their own.
    File(PathBuf),
    /// In the configuration itself, and sound.
    Text(String),
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// `[peers]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeersSettings {
    /// Where central servers connect.
    pub listen: SocketAddr,
    /// Certificate and key files; `None` for the gateway's own certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The authority's certificate.
    pub authority: Pem,
    /// Its list of revoked certificates.
    pub revoked: Option<PathBuf>,
    /// The largest page, before compression, in bytes.
    pub page_bytes: usize,
    /// A peer that has not pulled for so long is absent.
    pub absent_after: Duration,
    /// What may go over the link in a calendar month, both ways, in bytes.
    pub monthly_budget: Option<u64>,
    /// Who may pull. Names are unique.
    pub peers: Vec<PeerSettings>,
}

/// `[[peers.peer]]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// The name its certificate carries.
    pub name: String,
    /// What it may pull. `Personal` only with a consent.
    pub sharing: BTreeSet<Sharing>,
    /// The recorded consent.
    pub consent: Option<String>,
    /// What people call it.
    pub label: Option<String>,
}

impl PeerSettings {
    /// What people call it; its name without a label.
    pub fn called(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

impl PeersSettings {
    /// Reads the block; `None` when a fault leaves nothing to start with. A faulty peer is left out, the others serve.
    pub fn read(block: &Block<'_>) -> Option<Self> {
        block.only(&[FIELDS]);
        let [listen, certificate, key, _, revoked, page_bytes, absent_after, budget, _] = FIELDS else {
            return None;
        };
        let peers = read_peers(block);
        let identity = match (block.file(certificate), block.file(key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return lone(block, "certificate", "key"),
            (None, Some(_)) => return lone(block, "key", "certificate"),
        };
        let (listen, authority) = (block.get(listen), authority(block));
        let (revoked, page_bytes) = (block.file(revoked), size_within(block, page_bytes, PAGES));
        let monthly_budget = size_within(block, budget, BUDGETS);
        if block.has(budget.name) && monthly_budget.is_none() {
            return None;
        }
        let absent_after =
            block.duration_within(absent_after, Duration::from_secs(60), Duration::from_secs(90 * 86_400));
        Some(Self {
            listen: listen?,
            identity,
            authority: authority?,
            revoked,
            page_bytes: usize::try_from(page_bytes?).ok()?,
            absent_after: absent_after?,
            monthly_budget,
            peers,
        })
    }
}

/// A text that is no certificate is told; a file is judged by whoever opens it.
fn authority(block: &Block<'_>) -> Option<Pem> {
    if !block.text(AUTHORITY.name).is_some_and(|text| text.contains("-----BEGIN")) {
        return block.file(&AUTHORITY).map(Pem::File);
    }
    let text: String = block.get(&AUTHORITY)?;
    if !tls::is_authority(&text) {
        block.unexpected(&AUTHORITY, Both("is no certificate that can be read", "n'est pas un certificat lisible"));
        return None;
    }
    Some(Pem::Text(text))
}

fn lone(block: &Block<'_>, there: &str, missing: &str) -> Option<PeersSettings> {
    block.fault(
        there,
        words!(
            "`{there}` is given without `{missing}`: both or neither",
            "`{there}` est donné sans `{missing}` : les deux, ou aucun"
        ),
    );
    None
}

fn size_within(block: &Block<'_>, field: &Field, bounds: RangeInclusive<u64>) -> Option<u64> {
    let ByteSize(bytes) = block.get(field)?;
    if !bounds.contains(&bytes) {
        block.unexpected(field, words!("is {bytes} bytes", "vaut {bytes} octets"));
        return None;
    }
    Some(bytes)
}

fn read_peers(block: &Block<'_>) -> Vec<PeerSettings> {
    let mut peers = Vec::<PeerSettings>::new();
    for block in block.blocks("peer") {
        let Some(peer) = read_peer(&block) else { continue };
        if peers.iter().any(|known| known.name == peer.name) {
            let name = &peer.name;
            block.fault(
                "name",
                words!(
                    "`name` \"{name}\" is already the name of another peer",
                    "`name` vaut \"{name}\" : un autre serveur central a déjà ce nom"
                ),
            );
            continue;
        }
        peers.push(peer);
    }
    peers
}

fn read_peer(block: &Block<'_>) -> Option<PeerSettings> {
    block.only(&[PEER_FIELDS]);
    let [name, sharing, consent, label] = PEER_FIELDS else { return None };
    let name = block.get::<String>(name).and_then(|name| checked_name(block, name));
    let said = |text: &String| !text.trim().is_empty();
    let consent: Option<String> = block.get(consent).filter(said);
    let label: Option<String> = block.get(label).filter(said);
    let sharing = block.get::<Vec<String>>(sharing).and_then(|words| checked_sharing(block, &words));
    let sharing = sharing?;
    if sharing.contains(&Sharing::Personal) && consent.is_none() {
        block.fault(
            "sharing",
            words!(
                "`sharing` holds \"personal\" but `consent` is missing: who consented, to what, and when",
                "`sharing` contient \"personal\" mais `consent` manque : qui a consenti, à quoi et quand"
            ),
        );
        return None;
    }
    Some(PeerSettings { name: name?, sharing, consent, label })
}

/// X.520 bounds a common name to 64 characters.
fn checked_name(block: &Block<'_>, name: String) -> Option<String> {
    let fits = (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if !fits {
        block.fault(
            "name",
            words!(
                "`name` must have 1 to 64 characters, none of them a control character",
                "`name` doit avoir de 1 à 64 caractères, sans caractère de contrôle"
            ),
        );
    }
    fits.then_some(name)
}

fn checked_sharing(block: &Block<'_>, words: &[String]) -> Option<BTreeSet<Sharing>> {
    let mut classes = BTreeSet::new();
    for word in words {
        let Some((_, class)) = CLASSES.iter().find(|(name, _)| name == word) else {
            block.fault("sharing", words!("`sharing` has an item that is \"{word}\", one of \"public\", \"internal\", \"personal\" was expected", "`sharing` contient \"{word}\" ; attendu : \"public\", \"internal\" ou \"personal\""));
            return None;
        };
        classes.insert(*class);
    }
    if classes.is_empty() {
        block.fault(
            "sharing",
            words!(
                "`sharing` is empty: this peer could pull nothing",
                "`sharing` est vide : ce serveur ne pourrait rien relever"
            ),
        );
        return None;
    }
    Some(classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn read(text: &str) -> (Vec<String>, Option<PeersSettings>) {
        let source = Source::new("gateway.toml", text);
        let table = source.parse();
        let top = Block::new(&source, "", table.span(), table.get_ref());
        let settings = top.blocks("peers").first().and_then(PeersSettings::read);
        let faults = source.faults().iter().map(|f| format!("{}: {}", source.line_of(f), f.message)).collect();
        (faults, settings)
    }

    #[test]
    fn a_sound_block_is_read_with_its_defaults() {
        let (faults, settings) = read(
            "[peers]\nauthority = \"ca.pem\"\n[[peers.peer]]\nname = \"agglo\"\nsharing = [\"public\", \"internal\"]\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        let settings = settings.expect("read");
        assert_eq!(settings.listen, "0.0.0.0:8444".parse().expect("address"));
        assert_eq!((settings.page_bytes, settings.absent_after), (1 << 20, Duration::from_secs(86_400)));
        assert_eq!((settings.identity, settings.monthly_budget), (None, None));
        assert_eq!(settings.peers[0].sharing, BTreeSet::from([Sharing::Public, Sharing::Internal]));
    }

    #[test]
    fn every_fault_is_told_at_its_line_and_the_sound_peer_serves() {
        let (faults, settings) = read(concat!(
            "[peers]\nauthority = \"ca.pem\"\npage_bytes = \"1 kB\"\n",
            "[[peers.peer]]\nname = \"agglo\"\nsharing = [\"public\", \"personal\"]\n",
            "[[peers.peer]]\nname = \"dept\"\nsharing = [\"secret\"]\n",
            "[[peers.peer]]\nname = \"\"\nsharing = []\n",
            "[[peers.peer]]\nname = \"sdis\"\nsharing = [\"public\"]\nconsnt = \"x\"\n",
            "[[peers.peer]]\nname = \"sdis\"\nsharing = [\"public\"]\n",
        ));
        let starts = [
            "3: `page_bytes` is 1000 bytes",
            "6: `sharing` holds \"personal\" but `consent` is missing",
            "9: `sharing` has an item that is \"secret\"",
            "11: `name` must have",
            "12: `sharing` is empty",
            "16: unknown key `consnt`, did you mean `consent`?",
            "18: `name` \"sdis\" is already",
        ];
        for start in starts {
            assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start} in {faults:#?}");
        }
        assert_eq!((faults.len(), settings), (starts.len(), None));
    }

    #[test]
    fn a_budget_is_a_size_and_one_that_would_stop_everything_at_once_is_a_fault() {
        let (faults, settings) = read("[peers]\nauthority = \"ca.pem\"\nmonthly_budget = \"500 MB\"\n");
        assert_eq!((faults.len(), settings.expect("read").monthly_budget), (0, Some(500_000_000)));
        let (faults, settings) = read("[peers]\nauthority = \"ca.pem\"\nmonthly_budget = \"500 kB\"\n");
        assert!(faults[0].starts_with("3: `monthly_budget` is 500000 bytes"), "{faults:?}");
        assert_eq!((faults.len(), settings), (1, None));
    }

    #[test]
    fn an_authority_may_stand_in_the_file_itself_and_one_cut_short_is_told() {
        let pem = tls::Authority::new("Agglo").expect("made").certificate();
        let block = |text: &str| format!("[peers]\nauthority = \"\"\"\n{text}\"\"\"\n");
        let (faults, settings) = read(&block(&pem));
        assert_eq!(faults, Vec::<String>::new());
        assert!(matches!(settings.expect("read").authority, Pem::Text(text) if text.contains("BEGIN")));
        for spoiled in
            [&pem[..pem.len() / 2], &pem.replace('M', "?"), "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"]
        {
            let (faults, settings) = read(&block(spoiled));
            assert!(faults.len() == 1 && faults[0].contains("no certificate that can be read"), "{faults:?}");
            assert_eq!(settings, None);
        }
    }

    #[test]
    fn a_file_without_a_full_path_lies_beside_the_configuration() {
        let text = "[peers]\nauthority = \"agglo.pem\"\nrevoked = \"../crl.pem\"\n";
        let source = Source::new("/etc/clocher/gateway.toml", text);
        let table = source.parse();
        let top = Block::new(&source, "", table.span(), table.get_ref());
        let settings = top.blocks("peers").first().and_then(PeersSettings::read).expect("read");
        assert_eq!(settings.authority, Pem::File("/etc/clocher/agglo.pem".into()));
        assert_eq!(source.named().len(), 1);
        assert!(source.faults()[0].message.french.contains("un chemin complet"), "{:?}", source.faults());
    }

    #[test]
    fn a_certificate_without_its_key_is_a_fault() {
        let (faults, _) = read("[peers]\nauthority = \"ca.pem\"\ncertificate = \"c.pem\"\n");
        assert_eq!(faults, ["3: `certificate` is given without `key`: both or neither"]);
    }

    #[test]
    fn a_peer_is_called_by_its_label_and_by_its_name_without_one() {
        let block = "[peers]\nauthority = \"a\"\n[[peers.peer]]\nname = \"agglo.example\"\nsharing = [\"public\"]\n";
        let called = |label: &str| read(&format!("{block}{label}")).1.expect("read").peers[0].called().to_owned();
        assert_eq!(called("label = \"Carcassonne Agglo\"\n"), "Carcassonne Agglo");
        assert_eq!((called("label = \" \"\n"), called("")), ("agglo.example".to_owned(), "agglo.example".to_owned()));
    }

    #[test]
    fn a_consent_lets_personal_points_leave() {
        let (faults, settings) = read(
            "[peers]\nauthority = \"a\"\n[[peers.peer]]\nname = \"a\"\nsharing = [\"personal\"]\nconsent = \"Mme Roche, 3 May\"\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(settings.expect("read").peers[0].consent.as_deref(), Some("Mme Roche, 3 May"));
    }
}
