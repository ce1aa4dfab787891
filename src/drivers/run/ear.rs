//! What a device says becomes readings: dated, rounded, held against the point's range; and its silence is noticed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tracing::debug;

use super::{
    super::{Said, settle},
    hearing::{Hearing, Verdict},
};
use crate::{
    clock::Clock,
    condition::{Board, Code},
    live::Live,
    reading::{Point, PointId, Quality, Reading, Why},
};

/// Listens to one device.
#[derive(Debug)]
pub(super) struct Ear {
    device: String,
    points: BTreeMap<PointId, Point>,
    hearing: Mutex<Hearing>,
    clock: Clock,
    board: Board,
}

impl Ear {
    pub(super) fn new(name: &PointId, points: Vec<Point>, pace: Option<Duration>, clock: Clock, board: Board) -> Self {
        let hearing = Mutex::new(Hearing::new(pace, clock.now().mono_ms));
        let points = points.into_iter().map(|point| (point.id.clone(), point)).collect();
        Self { device: name.to_string(), points, hearing, clock, board }
    }

    /// Now, in milliseconds since the gateway's start.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().mono_ms
    }

    pub(super) fn point(&self, id: &PointId) -> Option<&Point> {
        self.points.get(id)
    }

    pub(super) fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.values()
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// What was said, as readings of now.
    pub(super) fn hear(&self, said: Vec<Said>) -> Vec<Reading> {
        let stamp = self.clock.now();
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut readings, mut understood) = (Vec::with_capacity(said.len()), false);
        for said in said {
            match said {
                Said::Unreadable(text) => {
                    debug!(device = self.device, text, "Not understood");
                    hearing.not_understood(stamp.mono_ms, &text);
                }
                Said::Value { point, value, quality } => {
                    let Some(known) = self.points.get(&point) else { continue };
                    let (value, quality) = settle(known, value, quality);
                    understood |= value.is_some();
                    hearing.answered(stamp.mono_ms);
                    readings.push(Reading { point, stamp, value, quality });
                }
            }
        }
        if understood {
            hearing.understood(stamp.mono_ms);
        }
        drop(hearing);
        if !readings.is_empty() {
            // Also "no value" is an answer.
            self.board.close(Code::DeviceSilent, &self.device);
        }
        if understood {
            self.board.close(Code::DeviceFault, &self.device);
        }
        readings
    }

    /// Looks whether the device is still there. When it has just fallen silent: its last values, marked stale.
    pub(super) fn look(&self, live: &Live) -> Vec<Reading> {
        let stamp = self.clock.now();
        let verdict = self.hearing.lock().unwrap_or_else(PoisonError::into_inner).verdict(stamp.mono_ms);
        match verdict {
            Verdict::Fine => Vec::new(),
            Verdict::Unreadable(text) => {
                self.board.close(Code::DeviceSilent, &self.device);
                self.board.raise(Code::DeviceFault, &self.device, text);
                Vec::new()
            }
            Verdict::Silent(_) if self.board.is_open(Code::DeviceSilent, &self.device) => Vec::new(),
            Verdict::Silent(since) => {
                self.board.close(Code::DeviceFault, &self.device);
                let detail = format!("nothing heard for {} s", since.as_secs());
                self.board.raise(Code::DeviceSilent, &self.device, detail);
                self.points.values().filter_map(|point| self.stale(point, live)).collect()
            }
        }
    }

    fn stale(&self, point: &Point, live: &Live) -> Option<Reading> {
        point.interval?;
        let last = live.newest(&point.id)?;
        let quality = Quality::Stale(Why::NoAnswer);
        let still_good = last.value.is_some() && !matches!(last.quality, Quality::Stale(_));
        still_good.then(|| Reading { point: last.point, stamp: self.clock.now(), value: last.value, quality })
    }
}
