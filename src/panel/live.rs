//! Values as they come, for pages that are open: server-sent events on top of pages that are whole without them.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, watch},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use warp::{Reply, sse::Event};

use super::{
    Ground,
    accounts::Act,
    answer::{Answer, Problem},
    pages::home,
    visit::Visit,
};
use crate::reading::{PointId, Reading, Sharing};

/// News are gathered for so long, so that a busy meter does not tire a phone.
const PACE: Duration = Duration::from_secs(1);
/// A stream ends after this; the browser comes back and shows who it is again.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// How soon a browser comes back.
const RETRY: Duration = Duration::from_secs(3);

/// A new value of a point, as the script writes it into the page.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct News {
    point: String,
    value: String,
    unit: String,
    age_ms: u64,
    quality: &'static str,
    word: String,
}

/// `/live`.
pub(crate) fn stream(visit: &Visit) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let permit = Arc::clone(&visit.site.streams).try_acquire_owned().map_err(|_| Problem::Busy)?;
    let events = warp::sse::keep_alive().interval(Duration::from_secs(20)).stream(events(visit, permit));
    Ok(Answer::Stream(warp::sse::reply(events).into_response()))
}

fn events(visit: &Visit, permit: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let ground = &visit.site.ground;
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        _permit: permit,
        words: visit.words.clone(),
        readings: ground.live.watch(),
        forgotten: ground.live.watch_forgotten(),
        sees_personal: visit.may(Act::SeePersonal),
        conditions: ground.board.changes(),
        announcements: ground.announcer.as_ref().map(|announcer| announcer.changes()),
        fresh: BTreeMap::new(),
        changed: Vec::new(),
        ready: VecDeque::from([Event::default().retry(RETRY).comment("open")]),
        pace,
        until: Instant::now() + LONGEST,
        stop: ground.stop.clone(),
        ground: Arc::clone(ground),
    };
    stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    })
}

struct Watcher {
    _permit: OwnedSemaphorePermit,
    ground: Arc<Ground>,
    words: super::language::Words,
    readings: broadcast::Receiver<Arc<[Reading]>>,
    forgotten: broadcast::Receiver<PointId>,
    sees_personal: bool,
    conditions: watch::Receiver<u64>,
    announcements: Option<watch::Receiver<u64>>,
    fresh: BTreeMap<PointId, Reading>,
    changed: Vec<&'static str>,
    ready: VecDeque<Event>,
    pace: Interval,
    until: Instant,
    stop: CancellationToken,
}

impl Watcher {
    /// The next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                _ = self.pace.tick() => self.gather(),
                readings = self.readings.recv() => self.take(readings),
                point = self.forgotten.recv() => self.forget(point.ok()),
                Ok(()) = self.conditions.changed() => self.note("conditions"),
                Ok(()) = changed(&mut self.announcements) => self.note("announcements"),
            }
        }
    }

    /// Missed news are made up for from the newest values.
    fn take(&mut self, readings: Result<Arc<[Reading]>, broadcast::error::RecvError>) {
        match readings {
            Ok(readings) => self.fresh.extend(readings.iter().map(|r| (r.point.clone(), r.clone()))),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let newest = self.ground.live.points().filter_map(|point| self.ground.live.newest(&point.id));
                self.fresh.extend(newest.map(|reading| (reading.point.clone(), reading)));
            }
            Err(broadcast::error::RecvError::Closed) => self.stop = cancelled(),
        }
    }

    /// What shows a point that is being erased is asked for again.
    fn forget(&mut self, point: Option<PointId>) {
        match point {
            Some(point) => drop(self.fresh.remove(&point)),
            None => self.fresh.clear(),
        }
        self.note("values");
        self.note("point");
    }

    fn note(&mut self, what: &'static str) {
        if !self.changed.contains(&what) {
            self.changed.push(what);
        }
    }

    fn gather(&mut self) {
        let news: Vec<News> = std::mem::take(&mut self.fresh).into_values().filter_map(|r| self.news(&r)).collect();
        if !news.is_empty() {
            self.ready.extend(Event::default().event("readings").json_data(&news));
        }
        for what in std::mem::take(&mut self.changed) {
            self.ready.push_back(Event::default().event("changed").data(what));
        }
    }

    fn news(&self, reading: &Reading) -> Option<News> {
        let point = self.ground.live.point(&reading.point)?;
        if point.sharing == Sharing::Personal && !self.sees_personal {
            return None;
        }
        let shown = home::shown(point, Some(reading), &self.ground.clock, &self.words);
        Some(News {
            point: point.id.to_string(),
            value: shown.value,
            unit: shown.unit,
            age_ms: shown.age_ms.unwrap_or(0),
            quality: shown.quality,
            word: shown.warning,
        })
    }
}

async fn changed(receiver: &mut Option<watch::Receiver<u64>>) -> Result<(), watch::error::RecvError> {
    match receiver {
        Some(receiver) => receiver.changed().await,
        None => pending().await,
    }
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}
