//! Announcements to listen to before they are sent: a few WAV files, in memory, each for the person who asked.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::sessions::hex;
use crate::clock::Clock;

/// Bytes held in all: two minutes of speech at 22 kHz, 16 bits, twice.
const BYTES: usize = 12 << 20;
/// How long one is held.
const HELD_MS: u64 = 15 * 60_000;

struct Preview {
    key: String,
    owner: String,
    made_ms: u64,
    sound: Bytes,
}

/// The previews at hand.
pub(crate) struct Previews {
    clock: Clock,
    held: Mutex<VecDeque<Preview>>,
}

impl Previews {
    /// None.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, held: Mutex::default() }
    }

    /// Holds a sound for `owner` and gives the key to it; the oldest make room.
    pub(crate) fn hold(&self, owner: &str, sound: Bytes) -> String {
        let key = hex(&rand::random::<[u8; 16]>());
        let made_ms = self.clock.now().mono_ms;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_back(Preview { key: key.clone(), owner: owner.to_owned(), made_ms, sound });
        while held.len() > 1 && held.iter().map(|preview| preview.sound.len()).sum::<usize>() > BYTES {
            held.pop_front();
        }
        key
    }

    /// The sound, for its owner alone.
    pub(crate) fn find(&self, owner: &str, key: &str) -> Option<Bytes> {
        let now = self.clock.now().mono_ms;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|preview| now.saturating_sub(preview.made_ms) < HELD_MS);
        held.iter().find(|preview| preview.owner == owner && preview.key == key).map(|preview| preview.sound.clone())
    }
}

/// The part of a file a player asks for: `bytes=0-1` (RFC 9110 §14.2). iPhones play nothing without it.
/// One range only; `None` for anything else, which is answered with the whole file.
pub(crate) fn range(header: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => (length.saturating_sub(suffix.parse().ok()?), length.checked_sub(1)?),
        (first, "") => (first.parse().ok()?, length.checked_sub(1)?),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(length.checked_sub(1)?)),
    };
    (first <= last && last < length).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{HeldTime, Source};

    #[test]
    fn a_preview_is_heard_by_its_owner_alone_and_not_for_ever() {
        let time = HeldTime::at(0, Source::Unknown);
        let previews = Previews::new(Clock::new(1, time.clone(), []));
        let key = previews.hold("jeanne", Bytes::from_static(b"RIFF"));
        assert!(previews.find("jeanne", &key).is_some() && previews.find("paul", &key).is_none());
        time.advance(HELD_MS);
        assert!(previews.find("jeanne", &key).is_none());
    }

    #[test]
    fn many_previews_stay_bounded() {
        let previews = Previews::new(Clock::new(1, HeldTime::at(0, Source::Unknown), []));
        let keys: Vec<String> = (0..20).map(|_| previews.hold("jeanne", vec![0; 2 << 20].into())).collect();
        let alive = keys.iter().filter(|key| previews.find("jeanne", key).is_some()).count();
        assert_eq!(alive, 6);
    }

    #[test]
    fn players_get_the_part_they_ask_for() {
        assert_eq!(range("bytes=0-1", 10), Some((0, 1)));
        assert_eq!(range("bytes=4-", 10), Some((4, 9)));
        assert_eq!(range("bytes=-3", 10), Some((7, 9)));
        assert_eq!(range("bytes=0-99", 10), Some((0, 9)));
        for bad in ["bytes=10-", "bytes=5-2", "bytes=a-b", "bytes=0-1,4-5", "items=0-1", "bytes=-", ""] {
            assert_eq!(range(bad, 10), None, "{bad}");
        }
        assert_eq!(range("bytes=0-", 0), None);
    }
}
