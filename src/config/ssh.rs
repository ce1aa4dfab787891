//! The `[ssh]` block: who may open a session on the box, by key only. Without it nobody may. Only provisioning reads it.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Block, Both, Field, Presence, words};

const KEYS: Field = Field {
    name: "keys",
    expects: Both(
        "a list of public keys such as [\"ssh-ed25519 AAAA… name\"]",
        "une liste de clés publiques comme [\"ssh-ed25519 AAAA… nom\"]",
    ),
    presence: Presence::Required,
    doc: "The public keys of who may open a session as root. Without one, no SSH server runs.",
};

/// The keys of `[ssh]`.
pub const FIELDS: &[Field] = &[KEYS];

/// Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; DSA left out, as OpenSSH does since 10.0.
const KINDS: &[&str] = &[
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// A public key on one line, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The line of `authorized_keys`.
    pub fn line(&self) -> &str {
        &self.0
    }
}

/// Reads `[ssh]`; a faulty key is left out.
pub fn read(block: Option<&Block<'_>>) -> Vec<Key> {
    let Some(block) = block else { return Vec::new() };
    block.only(&[FIELDS]);
    let lines: Vec<String> = block.get(&KEYS).unwrap_or_default();
    lines.iter().enumerate().filter_map(|(place, line)| key(block, place + 1, line)).collect()
}

fn key(block: &Block<'_>, number: usize, line: &str) -> Option<Key> {
    let line = line.trim();
    let one_line = !line.contains(char::is_control);
    let mut parts = line.split(' ').filter(|part| !part.is_empty());
    let (kind, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // The body begins with the length of its kind, and the kind; source: RFC 4253, §6.6.
    let begins = |bytes: Vec<u8>| {
        bytes.get(..4) == Some(&(kind.len() as u32).to_be_bytes()) && bytes[4..].starts_with(kind.as_bytes())
    };
    if one_line && KINDS.contains(&kind) && STANDARD.decode(body).is_ok_and(begins) {
        return Some(Key(line.to_owned()));
    }
    let secret = line.contains("PRIVATE KEY");
    let message = if secret {
        words!(
            "`keys`: item {number} is a private key, which must never leave its owner; the public one was expected",
            "`keys` : l'élément {number} est une clé privée, à ne jamais donner ; attendu : la clé publique (fichier .pub)"
        )
    } else {
        words!(
            "`keys`: item {number} is not a public key such as \"ssh-ed25519 AAAA… name\"",
            "`keys` : l'élément {number} n'est pas une clé publique comme \"ssh-ed25519 AAAA… nom\""
        )
    };
    block.fault(KEYS.name, message);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    const SOUND: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA tech@pc";

    fn read_text(text: &str) -> (Vec<Key>, Vec<String>) {
        let source = Source::new("clocher.toml", text);
        let table = source.parse();
        let top = Block::new(&source, "", 0..0, table.get_ref());
        let keys = read(top.one("ssh").as_ref());
        (keys, source.faults().into_iter().map(|fault| fault.message.english).collect())
    }

    #[test]
    fn a_sound_key_is_taken_and_what_is_none_is_told() {
        let (keys, faults) = read_text(&format!("[ssh]\nkeys = [\"{SOUND}\"]\n"));
        assert_eq!((keys, faults), (vec![Key(SOUND.to_owned())], vec![]));
        for wrong in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-dss AAAAB3NzaC1kc3M=",
            &format!("command=\\\"x\\\" {SOUND}"),
            &format!("{SOUND}\\nssh-rsa AAAA"),
        ] {
            let (keys, faults) = read_text(&format!("[ssh]\nkeys = [\"{wrong}\", \"{SOUND}\"]\n"));
            assert_eq!((keys.len(), faults.len()), (1, 1), "{wrong}");
            assert!(faults[0].contains("item 1"), "{faults:?}");
        }
    }

    #[test]
    fn a_block_without_keys_is_a_fault() {
        assert_eq!(read_text("[ssh]\n").1.len(), 1);
        assert_eq!(read_text("").1.len(), 0);
    }
}
