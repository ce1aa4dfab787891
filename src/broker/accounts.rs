//! Who may connect, and what each may say and hear.
//!
//! Passwords are kept only as digests under a key drawn at each start, so that comparing them takes the same time
//! whatever was sent. (argon2 at each connection would take a Pi half a second.)

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};

use crate::config::broker::{AccountSettings, Filter, Password, SHORTEST_PASSWORD};

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    publish: Vec<Filter>,
    subscribe: Vec<Filter>,
}

impl Account {
    pub(super) fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|rule| rule.matches(topic))
    }

    pub(super) fn may_subscribe(&self, filter: &Filter) -> bool {
        self.subscribe.iter().any(|rule| rule.covers(filter))
    }
}

/// A password file that gives no password.
#[derive(Debug, thiserror::Error)]
pub(super) enum PasswordFile {
    /// It cannot be read.
    #[error("read the password file {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its first line is too short.
    #[error("the first line of {0} is shorter than {SHORTEST_PASSWORD} characters")]
    TooShort(PathBuf),
}

type Seal = [u8; 32];

/// Every account.
pub(super) struct Accounts {
    key: [u8; 32],
    known: BTreeMap<String, (Seal, Arc<Account>)>,
}

impl Accounts {
    /// Reads the password files and keeps digests only. Into an account whose file gives no password nobody enters;
    /// it stays known, for the sessions it left, and the others are served.
    pub(super) fn open(settings: &[AccountSettings]) -> (Self, Vec<(String, PasswordFile)>) {
        let key: [u8; 32] = rand::random();
        let (mut known, mut closed) = (BTreeMap::new(), Vec::new());
        for account in settings {
            let seal = match password(&account.password) {
                Ok(password) => seal(&key, password.as_bytes()),
                Err(wrong) => {
                    closed.push((account.name.clone(), wrong));
                    rand::random()
                }
            };
            let kept = Account {
                name: account.name.as_str().into(),
                publish: account.publish.clone(),
                subscribe: account.subscribe.clone(),
            };
            known.insert(account.name.clone(), (seal, Arc::new(kept)));
        }
        (Self { key, known }, closed)
    }

    /// The account, when name and password are right.
    pub(super) fn enter(&self, name: &str, password: &str) -> Option<Arc<Account>> {
        let offered = seal(&self.key, password.as_bytes());
        // An unknown name costs the same as a wrong password.
        let expected = self.known.get(name).map_or([0; 32], |(seal, _)| *seal);
        let same = expected.iter().zip(offered).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0;
        self.known.get(name).filter(|_| same).map(|(_, account)| Arc::clone(account))
    }

    /// An account by its name, for sessions that outlive a restart.
    pub(super) fn by_name(&self, name: &str) -> Option<Arc<Account>> {
        self.known.get(name).map(|(_, account)| Arc::clone(account))
    }
}

/// HMAC-SHA256 with a key of 32 bytes. Source: RFC 2104.
fn seal(key: &[u8; 32], message: &[u8]) -> Seal {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

fn password(password: &Password) -> Result<String, PasswordFile> {
    let path = match password {
        Password::Given(text) => return Ok(text.clone()),
        Password::File(path) => path,
    };
    let text = fs::read_to_string(path).map_err(|source| PasswordFile::Unreadable { path: path.clone(), source })?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    if line.chars().count() < SHORTEST_PASSWORD { Err(PasswordFile::TooShort(path.clone())) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let filters = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("a filter")).collect();
        let zigbee = AccountSettings {
            name: "zigbee".into(),
            password: Password::Given("correct horse battery".into()),
            publish: filters(&["zigbee2mqtt/#"]),
            subscribe: filters(&["zigbee2mqtt/+/set"]),
        };
        let closed = AccountSettings {
            name: "closed".into(),
            password: Password::File("/nowhere".into()),
            publish: Vec::new(),
            subscribe: Vec::new(),
        };
        let (accounts, wrong) = Accounts::open(&[closed, zigbee]);
        assert!(matches!(&wrong[..], [(name, PasswordFile::Unreadable { .. })] if name == "closed"));
        accounts
    }

    #[test]
    fn only_the_right_name_with_the_right_password_enters() {
        let accounts = accounts();
        assert!(accounts.enter("zigbee", "correct horse battery").is_some());
        for (name, password) in
            [("zigbee", "correct horse"), ("zigbee", ""), ("nobody", "correct horse battery"), ("", "")]
        {
            assert!(accounts.enter(name, password).is_none(), "{name} {password}");
        }
    }

    #[test]
    fn an_account_without_its_password_is_known_and_nobody_enters() {
        let accounts = accounts();
        assert!(accounts.by_name("closed").is_some());
        assert!(accounts.enter("closed", "").is_none() && accounts.enter("zigbee", "correct horse battery").is_some());
    }

    #[test]
    fn an_account_says_and_hears_only_what_its_rules_name() {
        let account = accounts().by_name("zigbee").expect("known");
        assert!(account.may_publish("zigbee2mqtt/kitchen") && !account.may_publish("other"));
        assert!(account.may_subscribe(&"zigbee2mqtt/+/set".parse().expect("a filter")));
        assert!(!account.may_subscribe(&"zigbee2mqtt/#".parse().expect("a filter")));
    }

    #[test]
    fn the_seal_is_the_one_of_the_standard() {
        // source: RFC 4231, test case 1 has a key of 20 bytes; shorter keys are padded with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let hex: String = seal(&key, b"Hi There").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_password_file_gives_its_first_line_or_says_why_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        fs::write(&path, "from the first line\nnot this\n").expect("written");
        assert_eq!(password(&Password::File(path.clone())).expect("read"), "from the first line");
        fs::write(&path, "short\n").expect("written");
        assert!(matches!(password(&Password::File(path)), Err(PasswordFile::TooShort(_))));
        assert!(matches!(password(&Password::File("/nowhere".into())), Err(PasswordFile::Unreadable { .. })));
    }
}
