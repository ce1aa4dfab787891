//! Who may enter, and what each may do. Accounts live in the store; passwords only as argon2id hashes.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::language::Language;
use crate::{
    clock::Stamp,
    store::{Keep, KeepExt, StoreError},
};

const TABLE: &str = "panel-account";
const CLAIM_TABLE: &str = "panel";
const CLAIM: &str = "claim";

/// Fewest characters of a password. Source: ANSSI, *Recommandations relatives à l'authentification multifacteur et
/// aux mots de passe*, 2021, R21.
pub(crate) const PASSWORD_MIN: usize = 12;
/// Most bytes of a password, so that nobody makes us hash a novel.
pub(crate) const PASSWORD_MAX: usize = 256;
/// Most characters of a name.
const NAME_MAX: usize = 60;
/// Most accounts; a town hall has five.
const ACCOUNTS: usize = 100;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Everything.
    Mayor,
    /// Announces, acknowledges, keeps the record of consents.
    Secretary,
    /// Sets up, tests, and manages accounts other than mayors'.
    Technician,
    /// Looks.
    Viewer,
}

/// Something not everybody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Speak through the loudspeakers, and stop them.
    Announce,
    /// Speak as an alert.
    Alert,
    /// Say that a condition was seen.
    Acknowledge,
    /// Add, change and remove accounts.
    ManageAccounts,
    /// Record who agreed to what, and who no longer does; read their names.
    Consent,
    /// Erase readings for good.
    Erase,
    /// See what tells something about a person.
    SeePersonal,
}

impl Role {
    /// In the order they are offered.
    pub(crate) const ALL: [Self; 4] = [Self::Mayor, Self::Secretary, Self::Technician, Self::Viewer];

    /// Its word in forms.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mayor => "mayor",
            Self::Secretary => "secretary",
            Self::Technician => "technician",
            Self::Viewer => "viewer",
        }
    }

    /// By its word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// Whether somebody of this role may do it.
    pub(crate) fn may(self, act: Act) -> bool {
        match act {
            Act::Announce => self != Self::Viewer,
            Act::Alert => matches!(self, Self::Mayor | Self::Secretary),
            Act::Acknowledge => self != Self::Viewer,
            Act::ManageAccounts => matches!(self, Self::Mayor | Self::Technician),
            Act::Consent => matches!(self, Self::Mayor | Self::Secretary),
            Act::Erase => self == Self::Mayor,
            Act::SeePersonal => self != Self::Viewer,
        }
    }

    /// Whether somebody of this role may touch, or make, an account of the other: a technician never a mayor's.
    pub(crate) fn may_manage(self, other: Self) -> bool {
        self == Self::Mayor || (self == Self::Technician && other != Self::Mayor)
    }
}

/// Somebody who may enter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// As written by whoever added it.
    pub(crate) name: String,
    /// What they may do.
    pub(crate) role: Role,
    /// The argon2id hash of the password, or of the one-time code.
    pub(crate) hash: String,
    /// The hash is of a one-time code: the first thing to do is to choose a password.
    pub(crate) must_choose: bool,
    /// The language of their pages; the browser's choice without one.
    pub(crate) language: Option<Language>,
    /// Since when.
    pub(crate) added: Stamp,
}

/// A name as a key: however it is typed, it is the same person.
pub(crate) fn key_of(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// A name that can be an account's, with its spaces put in order.
pub(crate) fn sound_name(name: &str) -> Option<String> {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let sound = !name.is_empty() && name.chars().count() <= NAME_MAX && !name.chars().any(char::is_control);
    sound.then_some(name)
}

/// One account.
pub(crate) fn find(keep: &dyn Keep, name: &str) -> Result<Option<Account>, StoreError> {
    keep.load(TABLE, &key_of(name))
}

/// Every account, by name.
pub(crate) fn all(keep: &dyn Keep) -> Result<Vec<Account>, StoreError> {
    let records = keep.list(TABLE)?;
    Ok(records.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect())
}

/// Writes an account.
pub(crate) fn save(keep: &dyn Keep, account: &Account) -> Result<(), StoreError> {
    keep.save(TABLE, &key_of(&account.name), account)
}

/// Removes an account.
pub(crate) fn remove(keep: &dyn Keep, name: &str) -> Result<(), StoreError> {
    keep.remove(TABLE, key_of(name).as_bytes())
}

/// Whether one more fits.
pub(crate) fn has_room(accounts: &[Account]) -> bool {
    accounts.len() < ACCOUNTS
}

/// Whether the box belongs to somebody. Any record counts, even one that no longer decodes: a damaged account must
/// not open the door to a new claim.
pub(crate) fn is_claimed(keep: &dyn Keep) -> Result<bool, StoreError> {
    Ok(!keep.list(TABLE)?.is_empty())
}

/// The code that proves that one stands in front of the box. Made at the first start, shown by the application,
/// `None` once somebody has used it.
///
/// # Errors
/// When the store cannot be read or written.
pub fn claim_code(keep: &dyn Keep) -> Result<Option<String>, StoreError> {
    if is_claimed(keep)? {
        return Ok(None);
    }
    if let Some(code) = keep.load::<String>(CLAIM_TABLE, CLAIM)? {
        return Ok(Some(code));
    }
    let code = fresh_code();
    keep.save(CLAIM_TABLE, CLAIM, &code)?;
    Ok(Some(code))
}

/// Forgets the code: the box has an owner.
pub(crate) fn forget_claim_code(keep: &dyn Keep) -> Result<(), StoreError> {
    keep.remove(CLAIM_TABLE, CLAIM.as_bytes())
}

/// Letters and digits nobody mistakes for another, on a label or over the telephone.
const CLEAR: &[u8] = b"ACDEFGHJKMNPQRTUVWXY34679";

/// Three groups of four: 55 bits.
pub(crate) fn fresh_code() -> String {
    let mut code = String::with_capacity(14);
    for place in 0..12 {
        if place > 0 && place % 4 == 0 {
            code.push('-');
        }
        let pick = rand::random_range(0..CLEAR.len());
        code.push(CLEAR.get(pick).copied().map_or('A', char::from));
    }
    code
}

/// A code as compared: typed with or without dashes, in small letters or capitals.
pub(crate) fn plain_code(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

/// Whether two codes are the same, in a time that tells nothing about where they differ.
pub(crate) fn same_code(a: &str, b: &str) -> bool {
    Sha256::digest(plain_code(a)) == Sha256::digest(plain_code(b))
}

/// Why a password will not do. Each is a message of the language files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weak {
    /// Fewer than [`PASSWORD_MIN`] characters.
    Short,
    /// More than [`PASSWORD_MAX`] bytes.
    Long,
    /// Little more than a name or code anybody can know.
    Known,
    /// The same few characters again and again.
    Monotonous,
    /// The two times differ.
    Differs,
}

/// Whether a password will do. `known` are words an intruder would try first: the commune, the name, the code.
pub(crate) fn judge(password: &str, again: &str, known: &[&str]) -> Result<(), Weak> {
    if password.chars().count() < PASSWORD_MIN {
        return Err(Weak::Short);
    }
    if password.len() > PASSWORD_MAX {
        return Err(Weak::Long);
    }
    let distinct = password.chars().collect::<std::collections::BTreeSet<_>>().len();
    if distinct < 5 {
        return Err(Weak::Monotonous);
    }
    let mut own = bare(password);
    for word in known.iter().map(|word| bare(word)).filter(|word| word.len() >= 3) {
        own = own.replace(&word, "");
    }
    if own.chars().count() < 8 {
        return Err(Weak::Known);
    }
    if password != again {
        return Err(Weak::Differs);
    }
    Ok(())
}

/// Letters and digits only, small.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The hasher could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashFault {
    /// Others were before us for too long.
    #[error("too many passwords are being checked")]
    Busy,
    /// argon2 refused.
    #[error("hash a password: {0}")]
    Hash(String),
}

/// Hashes one password at a time: each takes 19 MiB, which a small Pi has once, not ten times.
#[derive(Debug, Clone)]
pub(crate) struct Hasher {
    turn: Arc<Semaphore>,
}

/// How long one waits for the hasher.
const PATIENCE: Duration = Duration::from_secs(10);

impl Hasher {
    /// An idle hasher.
    pub(crate) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)) }
    }

    /// The hash of a password, with its salt and parameters.
    pub(crate) async fn hash(&self, password: String) -> Result<String, HashFault> {
        let made = self.with(move |argon2| argon2.hash_password(password.as_bytes()).map(|hash| hash.to_string()));
        made.await?.map_err(|fault| HashFault::Hash(fault.to_string()))
    }

    /// Whether it is the password. Takes as long when there is no such account, so that names cannot be guessed.
    pub(crate) async fn matches(&self, password: String, hash: Option<String>) -> Result<bool, HashFault> {
        self.with(move |argon2| {
            let Some(hash) = hash else {
                let _ = argon2.hash_password(password.as_bytes());
                return false;
            };
            PasswordHash::new(&hash).is_ok_and(|hash| argon2.verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'_>) -> T + Send + 'static,
    ) -> Result<T, HashFault> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turn).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(HashFault::Busy) };
        let worked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // Source: OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane.
            let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
            work(&Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
        });
        worked.await.map_err(|fault| HashFault::Hash(fault.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryKeep;

    fn account(name: &str) -> Account {
        let added = Stamp { boot: 1, mono_ms: 0 };
        Account {
            name: name.into(),
            role: Role::Viewer,
            hash: String::new(),
            must_choose: false,
            language: None,
            added,
        }
    }

    #[test]
    fn the_claim_code_stays_the_same_until_the_box_has_an_owner() {
        let keep = MemoryKeep::default();
        let code = claim_code(&keep).expect("a store").expect("a code");
        assert_eq!(code.len(), 14);
        assert_eq!(claim_code(&keep).expect("a store").as_deref(), Some(code.as_str()));
        save(&keep, &account("Jeanne")).expect("a store");
        assert_eq!(claim_code(&keep).expect("a store"), None);
    }

    #[test]
    fn a_damaged_account_does_not_open_the_box_to_a_new_owner() {
        let keep = MemoryKeep::default();
        keep.put(TABLE, b"jeanne", b"{not json").expect("a store");
        assert_eq!(claim_code(&keep).expect("a store"), None);
    }

    #[test]
    fn codes_are_compared_as_people_type_them() {
        assert!(same_code("ACDE-3467-XYWA", "acde 3467 xywa"));
        assert!(!same_code("ACDE-3467-XYWA", "ACDE-3467-XYWC"));
        let code = fresh_code();
        assert!(plain_code(&code).bytes().all(|b| CLEAR.contains(&b)), "{code}");
        assert_ne!(code, fresh_code());
    }

    #[test]
    fn a_password_is_judged_by_what_an_intruder_would_try() {
        let known = ["Aigues-Vives", "Jeanne", "ACDE-3467-XYWA"];
        let judged = |password: &str| judge(password, password, &known);
        assert_eq!(judged("short"), Err(Weak::Short));
        assert_eq!(judged(&"x".repeat(300)), Err(Weak::Long));
        assert_eq!(judged("aaaaaaaaaaaaaa"), Err(Weak::Monotonous));
        assert_eq!(judged("aiguesvives2026"), Err(Weak::Known));
        assert_eq!(judged("ACDE34-67xywa"), Err(Weak::Known));
        assert_eq!(judged("le marché du jeudi"), Ok(()));
        assert_eq!(judge("le marché du jeudi", "le marché du mardi", &known), Err(Weak::Differs));
    }

    #[test]
    fn names_differ_by_more_than_spaces_and_capitals() {
        assert_eq!(key_of("  Jeanne   DUPONT "), key_of("jeanne dupont"));
        assert_eq!(sound_name("  Jeanne   Dupont ").as_deref(), Some("Jeanne Dupont"));
        for bad in ["", "  ", "a\u{7}b", &"x".repeat(61)] {
            assert_eq!(sound_name(bad), None);
        }
    }

    #[test]
    fn a_technician_never_touches_a_mayor() {
        assert!(Role::Technician.may_manage(Role::Viewer) && !Role::Technician.may_manage(Role::Mayor));
        assert!(!Role::Secretary.may_manage(Role::Viewer) && Role::Mayor.may_manage(Role::Mayor));
        assert!(!Role::Technician.may(Act::Alert) && !Role::Viewer.may(Act::Announce));
    }

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let hasher = Hasher::new();
        let hash = hasher.hash("le marché du jeudi".into()).await.expect("a hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.matches("le marché du jeudi".into(), Some(hash.clone())).await.expect("checked"));
        assert!(!hasher.matches("le marché du mardi".into(), Some(hash)).await.expect("checked"));
        assert!(!hasher.matches("le marché du jeudi".into(), None).await.expect("checked"));
    }
}
