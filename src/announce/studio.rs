//! Where text becomes sound, once: what was listened to first is ready when it is sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    sound::{Sound, SoundError},
    voice::{Speaker, VoiceError},
};
use crate::{
    announcement::Class,
    condition::{Board, Code},
    supervisor::chain,
};

/// Sounds kept, in bytes: about 40 s. The newest is kept whatever its size.
const SHELF: usize = 4 * 1024 * 1024;
/// What the condition about missing programs is about.
const SUBJECT: &str = "voice";

/// Why there is no sound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StudioError {
    /// Nobody spoke.
    #[error("the text was not spoken")]
    Voice(#[from] VoiceError),
    /// What was spoken cannot be used.
    #[error("the voice cannot be used")]
    Sound(#[from] SoundError),
    /// Composing fell.
    #[error("the sound was not composed")]
    Fell(#[from] tokio::task::JoinError),
}

/// A sound and what it was made of.
struct Shelved {
    class: Class,
    text: String,
    sound: Sound,
}

/// Makes sounds, and keeps the latest.
pub(crate) struct Studio {
    speaker: Arc<dyn Speaker>,
    board: Board,
    shelf: Mutex<VecDeque<Shelved>>,
    /// One preview is made at a time; what must be heard does not wait for them.
    previews: tokio::sync::Mutex<()>,
}

impl Studio {
    /// An empty one.
    pub(crate) fn new(speaker: Arc<dyn Speaker>, board: Board) -> Self {
        Self { speaker, board, shelf: Mutex::default(), previews: tokio::sync::Mutex::default() }
    }

    /// Whether a program that speaks is there; raises or closes the condition that says so.
    pub(crate) fn ready(&self) -> Result<(), VoiceError> {
        let ready = self.speaker.ready();
        self.board.set(Code::VoiceMissing, SUBJECT, ready.as_ref().err().map(|error| chain(error)));
        ready
    }

    /// Chime, pause and the text read aloud.
    pub(crate) async fn sound(&self, text: &str, class: Class) -> Result<Sound, StudioError> {
        if let Some(sound) = self.shelved(text, class) {
            return Ok(sound);
        }
        let wav = self.speaker.speak(text).await?;
        let sound = tokio::task::spawn_blocking(move || Sound::compose(class, &wav)).await??;
        self.shelve(Shelved { class, text: text.to_owned(), sound: sound.clone() });
        Ok(sound)
    }

    /// The same, as a WAV file, for somebody who listens first.
    pub(crate) async fn preview(&self, text: &str, class: Class) -> Result<Vec<u8>, StudioError> {
        let _alone = self.previews.lock().await;
        Ok(self.sound(text, class).await?.to_wav())
    }

    fn shelved(&self, text: &str, class: Class) -> Option<Sound> {
        let mut shelf = self.lock();
        let place = shelf.iter().position(|s| s.class == class && s.text == text)?;
        let found = shelf.remove(place)?;
        let sound = found.sound.clone();
        shelf.push_back(found);
        Some(sound)
    }

    fn shelve(&self, new: Shelved) {
        let mut shelf = self.lock();
        shelf.push_back(new);
        let mut held: usize = shelf.iter().map(|s| s.sound.bytes()).sum();
        while held > SHELF && shelf.len() > 1 {
            held -= shelf.pop_front().map_or(0, |oldest| oldest.sound.bytes());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Shelved>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
