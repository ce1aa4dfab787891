//! How far a peer has read, as a text it keeps without understanding it.
//!
//! A cursor is bound to one store: after the store was lost or replaced its numbers mean nothing, and that must be
//! seen rather than guessed.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// A place in the readings of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The first bytes of the hash of the store's identity.
    store: [u8; 8],
    /// Everything up to this number was read.
    pub(crate) seq: u64,
}

/// A text is not a cursor of this gateway's making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor that this API has given")]
pub(crate) struct NotACursor;

impl Cursor {
    /// The place `seq` of the store called `identity`.
    pub(crate) fn new(identity: &str, seq: u64) -> Self {
        Self { store: fold(identity), seq }
    }

    /// Whether it is a place of that store.
    pub(crate) fn is_of(&self, identity: &str) -> bool {
        self.store == fold(identity)
    }

    /// As text: 27 characters that need no escape in a URL.
    pub(crate) fn encode(self) -> String {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.store);
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        let check = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&check.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a text must look like to be one, for the OpenAPI document.
    #[cfg(test)]
    pub(crate) const PATTERN: &str = "^[A-Za-z0-9_-]{27}$";

    /// Whether a text looks like one.
    pub(crate) fn has_form(text: &str) -> bool {
        text.len() == 27 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    }

    /// The inverse of [`Cursor::encode`].
    pub(crate) fn decode(text: &str) -> Result<Self, NotACursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        let bytes: [u8; 20] = bytes.try_into().map_err(|_| NotACursor)?;
        let (content, check) = bytes.split_at(16);
        let (store, seq) = content.split_at(8);
        if crc32fast::hash(content).to_be_bytes() != check {
            return Err(NotACursor);
        }
        let (store, seq) = (store.try_into().map_err(|_| NotACursor)?, seq.try_into().map_err(|_| NotACursor)?);
        Ok(Self { store, seq: u64::from_be_bytes(seq) })
    }
}

fn fold(identity: &str) -> [u8; 8] {
    let hash = Sha256::digest(identity.as_bytes());
    let mut store = [0; 8];
    store.copy_from_slice(&hash[..8]);
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_and_knows_its_store() {
        for seq in [0, 1, 4_711, u64::MAX] {
            let cursor = Cursor::decode(&Cursor::new("box-1", seq).encode()).expect("a cursor");
            assert_eq!(cursor.seq, seq);
            assert!(cursor.is_of("box-1") && !cursor.is_of("box-2"));
        }
    }

    #[test]
    fn a_mistyped_cursor_is_refused_at_every_character() {
        let text = Cursor::new("box-1", 4_711).encode();
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(Cursor::decode(&String::from_utf8_lossy(&wrong)), Err(NotACursor), "at {at}");
        }
        for wrong in ["", "0", "AAAA", &text[1..], &format!("{text}A"), "é"] {
            assert_eq!(Cursor::decode(wrong), Err(NotACursor), "{wrong}");
        }
    }
}
