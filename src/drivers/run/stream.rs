//! A device that talks by itself: bytes in, readings at a pace that spares the card, changes of state at once.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use super::{super::StreamDecoder, ear::Ear};
use crate::reading::{Commit, Intake, Kind, PointId, Quality, Reading};

/// A device that talks by itself, and what it said since readings were last given.
pub(super) struct Stream {
    ear: Arc<Ear>,
    decoder: Box<dyn StreamDecoder>,
    intake: Intake,
    every: Duration,
    due: Instant,
    held: BTreeMap<PointId, Reading>,
    states: BTreeMap<PointId, (Option<f64>, Quality)>,
}

impl Stream {
    pub(super) fn new(ear: Arc<Ear>, every: Duration, decoder: Box<dyn StreamDecoder>, intake: Intake) -> Self {
        let due = Instant::now();
        Self { ear, decoder, intake, every, due, held: BTreeMap::new(), states: BTreeMap::new() }
    }

    /// Listens until the line is gone.
    pub(super) async fn listen(&mut self, mut line: impl AsyncRead + Unpin) -> io::Result<()> {
        self.decoder.reset();
        let mut bytes = [0; 512];
        loop {
            let count = if self.held.is_empty() {
                line.read(&mut bytes).await?
            } else {
                match timeout_at(self.due, line.read(&mut bytes)).await {
                    Ok(count) => count?,
                    Err(_) => {
                        self.give_what_is_held().await;
                        continue;
                    }
                }
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hear(bytes.get(..count).unwrap_or_default()).await;
        }
    }

    async fn hear(&mut self, bytes: &[u8]) {
        let mut said = Vec::new();
        self.decoder.push(bytes, self.ear.now_ms(), &mut said);
        let readings = self.ear.hear(said);
        let (changes, rest): (Vec<_>, Vec<_>) = readings.into_iter().partition(|reading| self.is_change(reading));
        for change in &changes {
            self.held.remove(&change.point);
        }
        if !changes.is_empty() {
            self.intake.give(changes, Commit::Now).await;
        }
        self.held.extend(rest.into_iter().map(|reading| (reading.point.clone(), reading)));
        if Instant::now() >= self.due && !self.held.is_empty() {
            self.give_what_is_held().await;
        }
    }

    /// A state that is not what it was. The first one heard is no change.
    fn is_change(&mut self, reading: &Reading) -> bool {
        let is_state = self.ear.point(&reading.point).is_some_and(|point| point.kind == Kind::State);
        let now = (reading.value, reading.quality);
        is_state && self.states.insert(reading.point.clone(), now).is_some_and(|before| before != now)
    }

    /// Gives the last value of each point, and waits for the next turn.
    pub(super) async fn give_what_is_held(&mut self) {
        let readings: Vec<_> = std::mem::take(&mut self.held).into_values().collect();
        if !readings.is_empty() {
            self.intake.give(readings, Commit::Grouped).await;
        }
        self.due = Instant::now() + self.every;
    }
}
