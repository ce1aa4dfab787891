//! When readings were taken, roughly: enough to leave out what cannot be of interest, on the gateway's own clock, so
//! that it stays true when a boot's wall time becomes known later.

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Stamp};

/// More boots than this in one place are no longer told apart.
const MOST: usize = 64;

/// From the first to the last reading of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub boot: u32,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// One span per boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spans {
    of_boots: Vec<Span>,
    /// There are more boots than are noted.
    more: bool,
}

impl Spans {
    pub(super) fn of(stamps: impl IntoIterator<Item = Stamp>) -> Self {
        let mut spans = Self::default();
        for stamp in stamps {
            spans.add(Span { boot: stamp.boot, from_ms: stamp.mono_ms, to_ms: stamp.mono_ms });
        }
        spans
    }

    pub(super) fn add(&mut self, span: Span) {
        let room = self.of_boots.len() < MOST;
        match self.of_boots.iter_mut().rev().find(|known| known.boot == span.boot) {
            Some(known) => {
                known.from_ms = known.from_ms.min(span.from_ms);
                known.to_ms = known.to_ms.max(span.to_ms);
            }
            None if room => self.of_boots.push(span),
            None => self.more = true,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.of_boots.iter().for_each(|span| self.add(*span));
        self.more |= other.more;
    }

    pub(super) fn first(&self) -> Option<Stamp> {
        self.of_boots.iter().map(|span| Stamp { boot: span.boot, mono_ms: span.from_ms }).min()
    }

    pub(super) fn last(&self) -> Option<Stamp> {
        self.of_boots.iter().map(|span| Stamp { boot: span.boot, mono_ms: span.to_ms }).max()
    }

    /// Whether a reading could lie between two stamps.
    pub(super) fn may_hold(&self, from: Stamp, to: Stamp) -> bool {
        let touches =
            |s: &Span| (s.boot, s.from_ms) <= (to.boot, to.mono_ms) && (s.boot, s.to_ms) >= (from.boot, from.mono_ms);
        self.more || self.of_boots.iter().any(touches)
    }

    /// Whether a reading could lie between two wall times. `slack_ms` covers steps of the clock within a boot.
    pub(super) fn may_touch(&self, clock: &Clock, from_ms: i64, to_ms: i64, slack_ms: i64) -> bool {
        let touches = |span: &Span| {
            let wall = |mono_ms| clock.resolve(Stamp { boot: span.boot, mono_ms }).map(|wall| wall.unix_ms);
            let (Some(a), Some(b)) = (wall(span.from_ms), wall(span.to_ms)) else { return false };
            a.min(b).saturating_sub(slack_ms) < to_ms && a.max(b).saturating_add(slack_ms) >= from_ms
        };
        self.more || self.of_boots.iter().any(touches)
    }
}
