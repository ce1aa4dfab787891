//! The present: the points of this gateway and the newest reading of each, before and after it reaches the card.
//!
//! Drivers' readings pass here on their way to the buffer; the panel and the broker watch.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::broadcast;

use crate::reading::{Point, PointId, Reading};

/// How many batches a slow watcher may lag before it misses some. It misses news, never data: the archive has all.
const LAG: usize = 256;

/// Points and their newest readings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    points: Arc<BTreeMap<PointId, Point>>,
    newest: Arc<RwLock<BTreeMap<PointId, Reading>>>,
    news: broadcast::Sender<Arc<[Reading]>>,
    forgotten: broadcast::Sender<PointId>,
}

impl Live {
    /// The points of this gateway, with what was known of them before it started.
    pub fn new(points: impl IntoIterator<Item = Point>, known: impl IntoIterator<Item = Reading>) -> Self {
        Self {
            points: Arc::new(points.into_iter().map(|p| (p.id.clone(), p)).collect()),
            newest: Arc::new(RwLock::new(known.into_iter().map(|r| (r.point.clone(), r)).collect())),
            news: broadcast::Sender::new(LAG),
            forgotten: broadcast::Sender::new(LAG),
        }
    }

    /// Every point, by name.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.values()
    }

    /// One point.
    pub fn point(&self, id: &PointId) -> Option<&Point> {
        self.points.get(id)
    }

    /// The newest reading of a point.
    pub fn newest(&self, id: &PointId) -> Option<Reading> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Takes readings in and tells those who watch.
    pub fn tell(&self, readings: &[Reading]) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        for reading in readings {
            newest.insert(reading.point.clone(), reading.clone());
        }
        drop(newest);
        let _ = self.news.send(readings.into());
    }

    /// Forgets the newest reading of a point, as its history is being erased, and tells those who hold a copy.
    pub fn forget(&self, id: &PointId) {
        self.newest.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        let _ = self.forgotten.send(id.clone());
    }

    /// Points as they are forgotten.
    pub fn watch_forgotten(&self) -> broadcast::Receiver<PointId> {
        self.forgotten.subscribe()
    }

    /// Readings as they come.
    pub fn watch(&self) -> broadcast::Receiver<Arc<[Reading]>> {
        self.news.subscribe()
    }
}
