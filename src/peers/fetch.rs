//! What a peer gets of the archive: its points only, page by page. Blocking; called off the async threads.

use std::{cmp::Reverse, collections::HashSet, ops::RangeInclusive};

use super::{
    query::Range,
    timeline::{Dated, Span, Timeline},
};
use crate::{
    clock::{Clock, Stamp},
    reading::PointId,
    store::{Archive, Entry, Page, PageRequest, StoreError},
};

/// Pages looked through for one answer when all they hold is hidden from the peer.
const TRIES: usize = 16;

/// The archive as one peer sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) archive: &'a dyn Archive,
    pub(crate) clock: &'a Clock,
    pub(crate) timeline: &'a Timeline,
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

    /// The archive with its dates.
    pub(crate) fn dated(&self) -> Dated<'_> {
        Dated { archive: self.archive, clock: self.clock, timeline: self.timeline }
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
        let spans = self.dated().spans(from_ms, to_ms)?;
        self.within(&spans, &(from_ms..=to_ms), resume, limit)
    }

    /// What was taken within a range of time, of which [`Dated::spans`] has told where it may be.
    pub(crate) fn within(
        &self,
        spans: &[Span],
        range: &RangeInclusive<i64>,
        resume: Option<u64>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let resume = resume.unwrap_or(0);
        let mut rest = spans.iter().filter(|span| span.to >= resume).peekable();
        let mut page = Page { entries: Vec::new(), next: resume.saturating_sub(1), complete: true };
        while let Some(span) = rest.next() {
            let (after, to) = (span.from.max(resume).saturating_sub(1), span.to.min(self.upto));
            page = self.look(after, to, limit, |entry| self.touches(entry, range))?;
            let ended = page.complete || (page.entries.is_empty() && page.next <= after);
            let (last, cut) = (rest.peek().is_none(), to < span.to);
            page.complete = ended && last && !cut;
            if ended && !page.complete {
                page.next = page.next.max(to);
            }
            if !ended || !page.entries.is_empty() || cut {
                break;
            }
        }
        Ok(page)
    }

    /// Whether a reading was taken within a range of time. A gap of which the times are not known may have been.
    pub(crate) fn touches(&self, entry: &Entry, range: &RangeInclusive<i64>) -> bool {
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

    fn resolve(&self, stamp: Stamp) -> Option<i64> {
        self.clock.resolve(stamp).map(|wall| wall.unix_ms)
    }
}
