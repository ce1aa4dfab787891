//! Erasing a point's data for good, off the request: one erasure at a time, each in a journal without the data.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::Ground;
use crate::{
    clock::Stamp,
    reading::PointId,
    store::{Archive, Keep, StoreError},
    supervisor::chain,
};

/// The key is a big-endian counter, so that records are in order of time.
const TABLE: &str = "erasure";
/// Records kept; the oldest go first.
const MOST: usize = 5_000;
/// Points of one erasure: a device with all it says.
pub(crate) const POINTS: usize = 300;

/// How an erasure ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// At work; or the gateway stopped meanwhile.
    Begun,
    /// Erased: so many readings.
    Done {
        /// How many.
        count: u64,
    },
    /// The card refused, after so many readings.
    Refused {
        /// How many nevertheless.
        count: u64,
    },
}

/// A line of the journal: who erased what, and when. Never the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Erasure {
    /// What was erased, as it is called.
    pub(crate) label: String,
    /// Which points.
    pub(crate) points: Vec<PointId>,
    /// Only what was taken before this wall time, milliseconds since 1970 UTC.
    pub(crate) before_ms: Option<i64>,
    /// Whose wish it was.
    pub(crate) by: String,
    /// When it began.
    pub(crate) at: Stamp,
    /// When it ended.
    pub(crate) ended: Option<Stamp>,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// How far the one at work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its place in the journal.
    number: u64,
    /// Points done.
    pub(crate) done: usize,
    /// Of so many.
    pub(crate) of: usize,
}

/// Why an erasure was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBegun {
    /// Another one is at work.
    #[error("another erasure is at work")]
    Busy,
    /// The journal is not on the card; what is not noted is not done.
    #[error("the erasure is not in the journal")]
    Journal(#[from] StoreError),
}

/// The one place that erases.
#[derive(Default)]
pub(crate) struct Eraser {
    at_work: Mutex<Option<Progress>>,
    /// How some ended, of which the card did not take the end.
    ended: Mutex<Vec<(u64, Erasure)>>,
}

impl fmt::Debug for Eraser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Eraser").field(&self.progress()).finish()
    }
}

impl Eraser {
    /// How far it is; `None` when nothing is being erased.
    pub(crate) fn progress(&self) -> Option<Progress> {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the wish and begins. Gives at once what is still to be done; call [`Eraser::work`] with it off the threads
    /// that answer.
    pub(crate) fn begin(&self, keep: &dyn Keep, wish: &Erasure) -> Result<u64, NotBegun> {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work.is_some() {
            return Err(NotBegun::Busy);
        }
        let known = keep.list(TABLE)?;
        let number = known.last().and_then(|(key, _)| number(key)).map_or(0, |last| last.saturating_add(1));
        write(keep, number, wish)?;
        for (oldest, _) in known.iter().take((known.len() + 1).saturating_sub(MOST)) {
            // One line too many harms nothing.
            let _ = keep.remove(TABLE, oldest);
        }
        *at_work = Some(Progress { number, done: 0, of: wish.points.len() });
        info!(points = ?wish.points, before_ms = wish.before_ms, by = wish.by, "Erasing begun");
        Ok(number)
    }

    /// Erases, point by point. May take minutes.
    pub(crate) fn work(&self, ground: &Ground, number: u64, mut wish: Erasure) {
        let _at_work = AtWork(self);
        let outcome = self.erase(ground, &wish);
        match &outcome {
            Outcome::Done { count } => info!(what = wish.label, count, by = wish.by, "Erased"),
            _ => error!(what = wish.label, by = wish.by, "Not erased"),
        }
        wish.outcome = outcome;
        wish.ended = Some(ground.clock.now());
        if let Err(wrong) = write(ground.keep.as_ref(), number, &wish) {
            error!(why = chain(&wrong), "End of an erasure not in the journal");
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((number, wish));
        }
    }

    fn erase(&self, ground: &Ground, wish: &Erasure) -> Outcome {
        let mut count = 0_u64;
        for point in &wish.points {
            forget(ground, point, wish.before_ms);
            match ground.archive.erase(point, wish.before_ms) {
                Ok(erased) => count = count.saturating_add(erased),
                Err(wrong) => {
                    error!(%point, why = chain(&wrong), "Readings not erased");
                    return Outcome::Refused { count };
                }
            }
            if let Some(progress) = self.at_work.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                progress.done += 1;
            }
        }
        Outcome::Done { count }
    }

    /// The journal, the newest first; whether each is at work.
    pub(crate) fn journal(&self, keep: &dyn Keep) -> Result<Vec<(Erasure, bool)>, StoreError> {
        let at_work = self.progress().map(|progress| progress.number);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let number = number(key)?;
            let known = ended.iter().find(|(ended, _)| *ended == number).map(|(_, erasure)| erasure.clone());
            let erasure = known.or_else(|| serde_json::from_slice(value).ok())?;
            Some((erasure, at_work == Some(number)))
        };
        Ok(keep.list(TABLE)?.iter().rev().filter_map(read).collect())
    }
}

/// Whatever ends the work, another may begin.
struct AtWork<'a>(&'a Eraser);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        *self.0.at_work.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The newest value goes too, when it is among what is erased; one that cannot be dated stays only if a date was given,
/// as in the archive.
fn forget(ground: &Ground, point: &PointId, before_ms: Option<i64>) {
    let Some(newest) = ground.live.newest(point) else { return };
    let taken_ms = ground.clock.resolve(newest.stamp).map(|wall| wall.unix_ms);
    if before_ms.is_none_or(|before| taken_ms.is_some_and(|taken| taken < before)) {
        ground.live.forget(point);
    }
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

fn write(keep: &dyn Keep, number: u64, erasure: &Erasure) -> Result<(), StoreError> {
    let value = serde_json::to_vec(erasure).map_err(|wrong| StoreError::new("encode an erasure", wrong))?;
    keep.put(TABLE, &number.to_be_bytes(), &value)
}

/// Which points are stored, or can be.
pub(crate) fn erasable(ground: &Ground) -> Vec<PointId> {
    let archive: &Arc<dyn Archive> = &ground.archive;
    let stored = archive.latest().into_iter().map(|stored| stored.reading.point);
    let mut points: Vec<PointId> = ground.live.points().map(|point| point.id.clone()).chain(stored).collect();
    points.sort();
    points.dedup();
    points
}
