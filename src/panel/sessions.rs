//! Who is signed in: a random cookie, of which only the hash is kept; and the form token derived from it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::ago_ms;
use crate::{
    clock::{Clock, Stamp},
    store::{Keep, KeepExt, StoreError},
};

const TABLE: &str = "panel-session";
/// The `__Host-` prefix binds the cookie to this host, over HTTPS, for every path (RFC 6265bis §4.1.3).
pub(crate) const COOKIE: &str = "__Host-clocher";
/// A session nobody used for so long is over.
const IDLE_MS: u64 = 12 * 3_600_000;
/// A session this old is over.
const AGE_MS: u64 = 30 * 24 * 3_600_000;
/// How often use is written down: seldom, to spare the card.
const RENEW_MS: u64 = 30 * 60_000;
/// Most sessions of one account; the oldest goes first.
const PER_ACCOUNT: usize = 10;

/// 256 random bits that stand for a visitor.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token([u8; 32]);

impl Token {
    /// A new one.
    pub(crate) fn fresh() -> Self {
        Self(rand::random())
    }

    /// From a `Cookie` header.
    pub(crate) fn from_cookies(header: &str) -> Option<Self> {
        let pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.into_iter().find(|(name, _)| *name == COOKIE)?;
        Some(Self(URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?))
    }

    /// The `Set-Cookie` header that hands it out.
    pub(crate) fn set_cookie(&self) -> String {
        let value = URL_SAFE_NO_PAD.encode(self.0);
        format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}", AGE_MS / 1_000)
    }

    /// What the store knows it by.
    fn key(&self) -> String {
        hex(&Sha256::digest(self.0))
    }

    fn form_secret(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"clocher form token\0");
        hash.update(self.0);
        hash.finalize().into()
    }

    /// The hidden field of a form. Masked anew each time, so that compressed pages tell nothing about it (BREACH).
    pub(crate) fn form_token(&self) -> String {
        let mask: [u8; 32] = rand::random();
        let mut token = mask.to_vec();
        token.extend(self.form_secret().iter().zip(mask).map(|(secret, mask)| secret ^ mask));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Whether a form was made for this visitor.
    pub(crate) fn made(&self, form_token: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(form_token) else { return false };
        let Some((mask, masked)) = bytes.split_at_checked(32).filter(|(_, masked)| masked.len() == 32) else {
            return false;
        };
        let said = mask.iter().zip(masked).map(|(mask, masked)| mask ^ masked);
        let wrong = said.zip(self.form_secret()).fold(0, |wrong, (said, secret)| wrong | (said ^ secret));
        wrong == 0
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    account: String,
    begun: Stamp,
    seen: Stamp,
}

impl Session {
    /// Over when too old, unused for too long, or when its age cannot be told.
    fn is_over(&self, clock: &Clock) -> bool {
        let older = |stamp, limit| ago_ms(stamp, clock).is_none_or(|ms| ms > limit);
        older(self.begun, AGE_MS) || older(self.seen, IDLE_MS)
    }
}

/// Begins a session of `account`. Sessions that are over are swept.
pub(crate) fn begin(keep: &dyn Keep, clock: &Clock, token: &Token, account: &str) -> Result<(), StoreError> {
    let mut own = Vec::new();
    for (key, session) in list(keep)? {
        if session.is_over(clock) {
            keep.hold(TABLE, &key, None)?;
        } else if session.account == account {
            own.push((session.seen, key));
        }
    }
    own.sort();
    let surplus = (own.len() + 1).saturating_sub(PER_ACCOUNT);
    for (_, key) in own.iter().take(surplus) {
        keep.hold(TABLE, key, None)?;
    }
    let now = clock.now();
    keep.save_or_hold(TABLE, &token.key(), &Session { account: account.to_owned(), begun: now, seen: now })
}

/// The account whose session it is.
pub(crate) fn account_of(keep: &dyn Keep, clock: &Clock, token: &Token) -> Result<Option<String>, StoreError> {
    let Some(mut session) = keep.load::<Session>(TABLE, &token.key())? else { return Ok(None) };
    if session.is_over(clock) {
        keep.hold(TABLE, token.key().as_bytes(), None)?;
        return Ok(None);
    }
    if ago_ms(session.seen, clock).is_none_or(|ms| ms > RENEW_MS) {
        session.seen = clock.now();
        keep.save_or_hold(TABLE, &token.key(), &session)?;
    }
    Ok(Some(session.account))
}

/// Ends a session.
pub(crate) fn end(keep: &dyn Keep, token: &Token) -> Result<(), StoreError> {
    keep.hold(TABLE, token.key().as_bytes(), None)
}

/// Ends every session of an account, save the one given.
pub(crate) fn end_all(keep: &dyn Keep, account: &str, save: Option<&Token>) -> Result<(), StoreError> {
    let saved = save.map(Token::key);
    for (key, session) in list(keep)? {
        if session.account == account && saved.as_ref().is_none_or(|saved| saved.as_bytes() != key) {
            keep.hold(TABLE, &key, None)?;
        }
    }
    Ok(())
}

fn list(keep: &dyn Keep) -> Result<Vec<(Vec<u8>, Session)>, StoreError> {
    let records = keep.list(TABLE)?;
    Ok(records.into_iter().filter_map(|(key, bytes)| Some((key, serde_json::from_slice(&bytes).ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        store::MemoryKeep,
    };

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_after_thirty_days_at_the_latest() {
        let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        let (keep, token) = (MemoryKeep::default(), Token::fresh());
        begin(&keep, &clock, &token, "jeanne").expect("a store");
        let who = || account_of(&keep, &clock, &token).expect("a store");
        for _ in 0..60 {
            time.advance(11 * 3_600_000);
            assert_eq!(who().as_deref(), Some("jeanne"));
        }
        for _ in 0..6 {
            time.advance(11 * 3_600_000);
        }
        assert_eq!(who(), None, "thirty days");

        begin(&keep, &clock, &token, "jeanne").expect("a store");
        time.advance(IDLE_MS + 1);
        assert_eq!(who(), None, "idle");
    }

    #[test]
    fn a_session_outlives_a_restart_only_if_its_age_can_be_told() {
        let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
        let before = Clock::new(1, time.clone(), []);
        let sample = before.observe().expect("a sample");
        let (keep, token) = (MemoryKeep::default(), Token::fresh());
        begin(&keep, &before, &token, "jeanne").expect("a store");

        let after = Clock::new(2, HeldTime::at(1_800_000_600_000, Source::Ntp), [sample]);
        after.observe();
        assert_eq!(account_of(&keep, &after, &token).expect("a store").as_deref(), Some("jeanne"));

        let lost = Clock::new(3, HeldTime::at(0, Source::Unknown), [sample]);
        lost.observe();
        assert_eq!(account_of(&keep, &lost, &token).expect("a store"), None);
    }

    #[test]
    fn the_store_never_sees_the_cookie() {
        let clock = Clock::new(1, HeldTime::at(0, Source::Ntp), []);
        let (keep, token) = (MemoryKeep::default(), Token::fresh());
        begin(&keep, &clock, &token, "jeanne").expect("a store");
        let cookie = token.set_cookie();
        let secret = cookie.split(['=', ';']).nth(1).expect("a value").to_owned();
        for (key, value) in keep.list(TABLE).expect("a store") {
            let record = format!("{}{}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
            assert!(!record.contains(&secret) && !record.contains(&hex(&token.0)));
        }
        assert!(Token::from_cookies(&format!("a=b; {COOKIE}={secret}; c")) == Some(token));
    }

    #[test]
    fn ten_sessions_of_one_account_are_enough() {
        let time = HeldTime::at(0, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        let keep = MemoryKeep::default();
        let tokens: Vec<Token> = (0..12).map(|_| Token::fresh()).collect();
        for token in &tokens {
            begin(&keep, &clock, token, "jeanne").expect("a store");
            time.advance(1_000);
        }
        let alive = |t: &Token| account_of(&keep, &clock, t).expect("a store").is_some();
        assert_eq!(tokens.iter().map(alive).collect::<Vec<_>>(), [vec![false; 2], vec![true; 10]].concat());
    }

    #[test]
    fn a_form_is_taken_only_from_the_visitor_it_was_made_for() {
        let (token, other) = (Token::fresh(), Token::fresh());
        let form = token.form_token();
        assert!(token.made(&form) && !other.made(&form));
        assert_ne!(form, token.form_token(), "masked anew");
        for bad in ["", "AAAA", "é", &form[1..]] {
            assert!(!token.made(bad), "{bad}");
        }
    }
}
