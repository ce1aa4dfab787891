//! What a peer gets of the archive: its points only, page by page. Blocking; called off the async threads.

use std::{cmp::Reverse, collections::HashSet, ops::RangeInclusive};

use super::query::Range;
use crate::{
    clock::{Clock, Stamp},
    reading::PointId,
    store::{Archive, Entry, Page, PageRequest, StoreError},
};

/// Pages looked through for one answer when all they hold is hidden from the peer.
const TRIES: usize = 16;
/// Entries looked at to date a place in the archive.
const PROBE: usize = 64;
/// Readings are in order of arrival; one may have been taken this much before its neighbours.
const DISORDER_MS: i64 = 600_000;

/// The archive as one peer sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) archive: &'a dyn Archive,
    pub(crate) clock: &'a Clock,
    pub(crate) points: &'a HashSet<PointId>,
    /// Nothing beyond this number is looked at.
    pub(crate) upto: u64,
}

impl View<'_> {
    /// What comes after a number. Empty and incomplete when only hidden readings were found so far.
    pub(crate) fn after(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        self.look(after, u64::MAX, limit, |_| true)
    }

    /// A range once more.
    pub(crate) fn again(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        match range {
            Range::Numbers { from, to } => self.look(from.saturating_sub(1), to, limit, |_| true),
            Range::Times { from_ms, to_ms, resume } => self.times(from_ms, to_ms, resume, limit),
        }
    }

    /// The newest reading of each point numbered below `before`, the latest first.
    pub(crate) fn newest(&self, before: u64, limit: usize) -> Page {
        let mut newest = self.archive.latest();
        newest.retain(|stored| stored.seq < before && self.points.contains(&stored.reading.point));
        newest.sort_unstable_by_key(|stored| Reverse(stored.seq));
        let complete = newest.len() <= limit;
        newest.truncate(limit);
        let next = newest.last().map_or(0, |stored| stored.seq);
        Page { entries: newest.into_iter().map(Entry::Reading).collect(), next, complete }
    }

    fn times(&self, from_ms: i64, to_ms: i64, resume: Option<u64>, limit: usize) -> Result<Page, StoreError> {
        let after = match resume {
            Some(next) => next.saturating_sub(1),
            None => self.before(from_ms.saturating_sub(DISORDER_MS))?,
        };
        let range = from_ms..=to_ms;
        let mut page = self.look(after, u64::MAX, limit, |entry| self.touches(entry, &range))?;
        let end = to_ms.saturating_add(DISORDER_MS);
        page.complete |= self.date_after(page.next)?.is_some_and(|(_, next_ms)| next_ms > end);
        Ok(page)
    }

    /// Whether a reading was taken within a range of time. A gap of which the times are not known may have been.
    fn touches(&self, entry: &Entry, range: &RangeInclusive<i64>) -> bool {
        match entry {
            Entry::Reading(stored) => self.resolve(stored.reading.stamp).is_some_and(|at| range.contains(&at)),
            Entry::Gap(gap) => {
                let first = gap.from.and_then(|stamp| self.resolve(stamp)).unwrap_or(i64::MIN);
                let last = gap.to.and_then(|stamp| self.resolve(stamp)).unwrap_or(i64::MAX);
                first <= *range.end() && last >= *range.start()
            }
        }
    }

    fn look(
        &self,
        mut after: u64,
        upto: u64,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Page, StoreError> {
        let upto = upto.min(self.upto);
        let mut page = Page { entries: Vec::new(), next: after, complete: false };
        for _ in 0..TRIES {
            page = self.archive.page(&PageRequest { after, upto, limit, points: Some(self.points) })?;
            page.complete |= page.next >= upto;
            page.entries.retain(&wanted);
            if !page.entries.is_empty() || page.complete || page.next <= after {
                break;
            }
            after = page.next;
        }
        Ok(page)
    }

    /// A number up to which all readings were taken before `ms`, by bisection. Where many readings in a row have no
    /// date it stops early, which only makes the search longer.
    fn before(&self, ms: i64) -> Result<u64, StoreError> {
        let figures = self.archive.figures();
        let (mut low, mut high) = (figures.first_seq.saturating_sub(1), figures.last_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.date_after(middle)? {
                Some((seq, at)) if at < ms => low = seq,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The first reading after a number whose wall time is known, and that time.
    fn date_after(&self, after: u64) -> Result<Option<(u64, i64)>, StoreError> {
        let page = self.archive.page(&PageRequest { after, upto: u64::MAX, limit: PROBE, points: None })?;
        let dated = page.entries.iter().find_map(|entry| match entry {
            Entry::Reading(stored) => Some((stored.seq, self.resolve(stored.reading.stamp)?)),
            Entry::Gap(_) => None,
        });
        Ok(dated)
    }

    fn resolve(&self, stamp: Stamp) -> Option<i64> {
        self.clock.resolve(stamp).map(|wall| wall.unix_ms)
    }
}
