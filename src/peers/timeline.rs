//! Where in the archive a span of time lies.
//!
//! Numbers grow with each start of the gateway and, within one start, with time; wall times need not grow from one start
//! to the next, since a clock that nobody vouched for may have been years off. So a time is looked for within each start
//! of its own. The starts of a store are looked up once; those that are over never change.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    clock::{Clock, Stamp, WallTime},
    store::{Archive, Entry, PageRequest, StoreError},
};

/// Readings are in order of arrival; one may have been taken this much before its neighbours.
pub(crate) const DISORDER_MS: i64 = 600_000;
/// Gaps skipped at most to find a reading; they are joined where they touch.
const SKIPPED: usize = 1_000;

/// What is known of the starts of one store. Shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<Option<Known>>);

#[derive(Debug, Clone)]
struct Known {
    identity: String,
    boots: Arc<[Boot]>,
}

/// The numbers of one start, beginning after the last reading of the one before, so that gaps are of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boot {
    /// Which.
    pub(crate) boot: u32,
    /// Its numbers begin here.
    pub(crate) start: u64,
    /// Its first reading.
    pub(crate) first: Place,
    /// Its last reading; of the present start, whatever is last.
    pub(crate) last: Place,
}

/// A reading's number, and when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) stamp: Stamp,
}

/// Numbers, both included, of one start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When its first and its last reading were taken; `None` where there are only gaps.
    pub(crate) taken: Option<(Stamp, Stamp)>,
}

/// The archive with its dates.
#[derive(Clone, Copy)]
pub(crate) struct Dated<'a> {
    pub(crate) archive: &'a dyn Archive,
    pub(crate) clock: &'a Clock,
    pub(crate) timeline: &'a Timeline,
}

impl Dated<'_> {
    /// Numbers that may hold what was taken between two wall times, in order. Every reading taken then is in one of
    /// them; some others may be too.
    pub(crate) fn spans(&self, from_ms: i64, to_ms: i64) -> Result<Vec<Span>, StoreError> {
        let (from_ms, to_ms) = (from_ms.saturating_sub(DISORDER_MS), to_ms.saturating_add(DISORDER_MS));
        let mut spans = Vec::new();
        for boot in self.boots()? {
            let times = self.wall(boot.first.stamp).zip(self.wall(boot.last.stamp));
            let overlaps = times.is_some_and(|(first, last)| {
                let (first, last) =
                    (first.unix_ms.saturating_sub(DISORDER_MS), last.unix_ms.saturating_add(DISORDER_MS));
                first <= to_ms && last >= from_ms
            });
            if overlaps {
                spans.extend(self.span_of(&boot, from_ms, to_ms)?);
            } else if boot.first.seq > boot.start {
                spans.push(Span { from: boot.start, to: boot.first.seq - 1, taken: None });
            }
        }
        Ok(spans)
    }

    fn span_of(&self, boot: &Boot, from_ms: i64, to_ms: i64) -> Result<Option<Span>, StoreError> {
        let before = self.place_before(boot, from_ms)?;
        let last = self.place_before(boot, to_ms.saturating_add(1))?.max(before);
        // What follows the last reading up to the next may be a gap; the present start goes on meanwhile.
        let open = boot.boot == self.clock.boot() && last >= boot.last.seq;
        let next = if open { None } else { self.reading_after(last)? };
        let to = next.map_or(u64::MAX, |next| next.seq - 1);
        let (first, last) = (self.reading_after(before)?, self.reading_after(last.saturating_sub(1))?);
        let taken = first.zip(last).filter(|(first, last)| first.seq <= to && last.seq <= to && last.seq > before);
        let taken = taken.map(|(first, last)| (first.stamp, last.stamp));
        Ok((to > before).then_some(Span { from: before + 1, to, taken }))
    }

    /// The starts there are readings of, in order.
    pub(crate) fn boots(&self) -> Result<Vec<Boot>, StoreError> {
        let known = self.known()?;
        let figures = self.archive.figures();
        let mut boots: Vec<_> = known.iter().copied().filter(|boot| boot.last.seq >= figures.first_seq).collect();
        // What was before the first is gone; its gap is told with what follows it.
        if let Some(first) = boots.first_mut() {
            first.start = first.start.min(1);
        }
        if let Some(last) = boots.last_mut()
            && last.boot == self.clock.boot()
        {
            let newest = self.reading_after(figures.last_seq.saturating_sub(1))?;
            let stamp = newest.map_or(last.last.stamp, |newest| newest.stamp).max(self.clock.now());
            last.last = Place { seq: figures.last_seq.max(last.first.seq), stamp };
        }
        Ok(boots)
    }

    /// Up to this number, all readings of a start were taken before a wall time.
    pub(crate) fn place_before(&self, boot: &Boot, ms: i64) -> Result<u64, StoreError> {
        self.last_where(boot.start - 1, boot.last.seq, |place| self.is_before(boot, ms, place))
    }

    /// The same behind number `low`, which is before that time, where about so many may follow: found in fewer steps
    /// when they do.
    pub(crate) fn place_near(&self, boot: &Boot, low: u64, about: u64, ms: i64) -> Result<u64, StoreError> {
        let (first, slack) = (low, about / 64);
        let (mut low, mut high) = (low, boot.last.seq);
        for probe in [first + about - slack, first + about + slack] {
            if probe <= low || probe >= high {
                continue;
            }
            match self.reading_after(probe)? {
                Some(place) if self.is_before(boot, ms, place) => low = place.seq,
                _ => high = probe,
            }
        }
        self.last_where(low, high, |place| self.is_before(boot, ms, place))
    }

    fn is_before(&self, boot: &Boot, ms: i64, place: Place) -> bool {
        place.stamp.boot <= boot.boot && self.wall(place.stamp).is_some_and(|wall| wall.unix_ms < ms)
    }

    /// The first reading after a number.
    pub(crate) fn reading_after(&self, mut after: u64) -> Result<Option<Place>, StoreError> {
        for _ in 0..SKIPPED {
            let page = self.archive.page(&PageRequest { after, upto: u64::MAX, limit: 1, points: None })?;
            match page.entries.first() {
                Some(Entry::Reading(stored)) => {
                    return Ok(Some(Place { seq: stored.seq, stamp: stored.reading.stamp }));
                }
                _ if page.complete || page.next <= after => return Ok(None),
                _ => after = page.next,
            }
        }
        Ok(None)
    }

    pub(crate) fn wall(&self, stamp: Stamp) -> Option<WallTime> {
        self.clock.resolve(stamp)
    }

    /// The last reading of a row of which the first ones are `wanted` and the others are not, by bisection between two
    /// numbers; `low` when none is.
    fn last_where(&self, mut low: u64, mut high: u64, wanted: impl Fn(Place) -> bool) -> Result<u64, StoreError> {
        while low < high {
            let middle = low + (high - low) / 2;
            match self.reading_after(middle)? {
                Some(place) if wanted(place) => low = place.seq,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn known(&self) -> Result<Arc<[Boot]>, StoreError> {
        let identity = self.archive.identity();
        let mut known = self.timeline.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present = |boots: &[Boot]| boots.last().is_some_and(|last| last.boot >= self.clock.boot());
        match known.as_ref() {
            Some(known) if known.identity == identity && present(&known.boots) => Ok(Arc::clone(&known.boots)),
            _ => {
                let boots: Arc<[Boot]> = self.look_up()?.into();
                *known = Some(Known { identity, boots: Arc::clone(&boots) });
                Ok(boots)
            }
        }
    }

    fn look_up(&self) -> Result<Vec<Boot>, StoreError> {
        let end = self.archive.figures().last_seq;
        let (mut boots, mut before) = (Vec::<Boot>::new(), 0);
        // What arrives meanwhile is of the present start, whose end is not remembered.
        while let Some(first) = self.reading_after(before)?.filter(|first| first.seq <= end) {
            let boot = first.stamp.boot;
            let last = self.last_where(first.seq, end, |place| place.stamp.boot <= boot)?;
            let stamp = self.reading_after(last - 1)?.map_or(first.stamp, |place| place.stamp);
            boots.push(Boot { boot, start: before + 1, first, last: Place { seq: last, stamp } });
            before = last;
        }
        Ok(boots)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use tokio::sync::watch;

    use super::*;
    use crate::{
        clock::{HeldTime, Sample, Source},
        peers::{fetch::View, query::Range},
        reading::{PointId, Quality, Reading, Stored},
        store::{Bucket, Cause, Gap, Page, StoreFigures},
    };

    const HOUR: i64 = 3_600_000;
    const NOON: i64 = 1_780_315_200_000;

    /// Entries in order, and how many came after its figures were taken.
    struct Shelf(Vec<Entry>, u64);

    impl Archive for Shelf {
        fn identity(&self) -> String {
            "shelf".to_owned()
        }

        fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
            let within = |entry: &&Entry| entry.last_seq() > request.after && entry.last_seq() <= request.upto;
            let entries: Vec<_> = self.0.iter().filter(within).take(request.limit).cloned().collect();
            let next = entries.last().map_or(request.after, Entry::last_seq);
            Ok(Page { complete: self.0.last().is_none_or(|last| last.last_seq() <= next), next, entries })
        }

        fn head(&self) -> watch::Receiver<u64> {
            watch::Sender::new(0).subscribe()
        }

        fn latest(&self) -> Vec<Stored> {
            Vec::new()
        }

        fn history(&self, _: &PointId, _: i64, _: i64, _: i64) -> Result<Vec<Bucket>, StoreError> {
            Ok(Vec::new())
        }

        fn acknowledge(&self, _: &str, _: u64) -> Result<(), StoreError> {
            Ok(())
        }

        fn acknowledged(&self) -> BTreeMap<String, u64> {
            BTreeMap::new()
        }

        fn gaps(&self) -> Vec<Gap> {
            Vec::new()
        }

        fn figures(&self) -> StoreFigures {
            let last_seq = self.0.last().map_or(0, Entry::last_seq) - self.1;
            StoreFigures { first_seq: 1, last_seq, ..StoreFigures::default() }
        }
    }

    fn id() -> PointId {
        "water/hall/index".parse().expect("an id")
    }

    /// Readings of one start, one a minute.
    fn start(shelf: &mut Vec<Entry>, boot: u32, count: u64) {
        let first = shelf.last().map_or(0, Entry::last_seq) + 1;
        for n in 0..count {
            let stamp = Stamp { boot, mono_ms: n * 60_000 };
            let reading = Reading { point: id(), stamp, value: Some(n as f64), quality: Quality::Good };
            shelf.push(Entry::Reading(Stored { seq: first + n, reading }));
        }
    }

    fn lose(shelf: &mut Vec<Entry>, count: u64, from: Stamp) {
        let first = shelf.last().map_or(0, Entry::last_seq) + 1;
        let last = first + count - 1;
        shelf.push(Entry::Gap(Gap { first, last, count, from: Some(from), to: Some(from), cause: Cause::Damage }));
    }

    fn sample(boot: u32, unix_ms: i64, source: Source) -> Sample {
        Sample { stamp: Stamp { boot, mono_ms: 0 }, unix_ms, error_ms: 50, source, straight_ms: 0 }
    }

    /// Everything a range holds, page after page; gaps as their first number.
    fn all(shelf: &Shelf, clock: &Clock, from_ms: i64, to_ms: i64, limit: usize) -> Vec<u64> {
        let (timeline, points) = (Timeline::default(), HashSet::from([id()]));
        let view = View { archive: shelf, clock, timeline: &timeline, points: &points, upto: u64::MAX };
        let (mut range, mut told) = (Range::Times { from_ms, to_ms, resume: None }, Vec::new());
        for _ in 0..10_000 {
            let page = view.again(range, limit).expect("read");
            told.extend(page.entries.iter().map(|entry| match entry {
                Entry::Reading(stored) => stored.seq,
                Entry::Gap(gap) => gap.first,
            }));
            if page.complete {
                return told;
            }
            range = range.resumed(page.next + 1);
        }
        panic!("a range that never ends");
    }

    #[test]
    fn a_start_whose_clock_was_years_off_hides_nothing_of_the_others() {
        let mut shelf = Vec::new();
        for boot in 1..=4 {
            start(&mut shelf, boot, 120);
        }
        let shelf = Shelf(shelf, 0);
        let samples = [
            sample(1, NOON, Source::Ntp),
            sample(2, NOON + 40 * 365 * 24 * HOUR, Source::Rtc),
            sample(3, 0, Source::Rtc),
            sample(4, NOON + 3 * HOUR, Source::Ntp),
        ];
        let clock = Clock::new(4, HeldTime::at(NOON + 3 * HOUR, Source::Ntp), samples);
        let expected: Vec<u64> = (61..=120).chain(361..=420).collect();
        for limit in [1, 7, 1_000] {
            assert_eq!(all(&shelf, &clock, NOON + HOUR, NOON + 4 * HOUR - 1, limit), expected, "{limit} a page");
        }
        assert_eq!(all(&shelf, &clock, -HOUR, 60 * 60_000 - 1, 50), (241..=300).collect::<Vec<_>>(), "of 1970");
        assert_eq!(all(&shelf, &clock, NOON + 10 * HOUR, NOON + 11 * HOUR, 50), [] as [u64; 0]);
    }

    #[test]
    fn a_start_that_nobody_could_date_is_in_no_range_but_stands_in_nobodys_way() {
        let mut shelf = Vec::new();
        for boot in 1..=3 {
            start(&mut shelf, boot, 60);
        }
        let samples = [sample(1, NOON, Source::Ntp), sample(3, NOON + 2 * HOUR, Source::Ntp)];
        let clock = Clock::new(3, HeldTime::at(NOON, Source::Ntp), samples);
        let expected: Vec<u64> = (1..=60).chain(121..=180).collect();
        assert_eq!(all(&Shelf(shelf, 0), &clock, NOON - HOUR, NOON + 5 * HOUR, 25), expected);
    }

    #[test]
    fn a_gap_is_told_where_its_time_is_even_at_the_edge_of_a_start() {
        let mut shelf = Vec::new();
        lose(&mut shelf, 9, Stamp { boot: 1, mono_ms: 0 });
        start(&mut shelf, 2, 60);
        lose(&mut shelf, 5, Stamp { boot: 2, mono_ms: 59 * 60_000 });
        start(&mut shelf, 3, 60);
        let hours = [
            sample(1, NOON, Source::Ntp),
            sample(2, NOON + 24 * HOUR, Source::Ntp),
            sample(3, NOON + 48 * HOUR, Source::Ntp),
        ];
        let (shelf, clock) = (Shelf(shelf, 0), Clock::new(3, HeldTime::at(NOON, Source::Ntp), hours));
        assert_eq!(all(&shelf, &clock, NOON, NOON + HOUR, 10), [1], "of a day of which nothing else is left");
        let second = all(&shelf, &clock, NOON + 24 * HOUR, NOON + 25 * HOUR, 10);
        assert_eq!((second.len(), second.last()), (61, Some(&70)));
        assert_eq!(all(&shelf, &clock, NOON + 48 * HOUR, NOON + 49 * HOUR, 100).len(), 60);
    }

    #[test]
    fn what_arrives_while_one_looks_is_not_walked_reading_by_reading() {
        let mut shelf = Vec::new();
        start(&mut shelf, 1, 30);
        start(&mut shelf, 2, 90);
        let shelf = Shelf(shelf, 60);
        let clock = Clock::new(2, HeldTime::at(NOON, Source::Ntp), [1, 2].map(|boot| sample(boot, NOON, Source::Ntp)));
        let (timeline, points) = (Timeline::default(), HashSet::from([id()]));
        let view = View { archive: &shelf, clock: &clock, timeline: &timeline, points: &points, upto: u64::MAX };
        let boots = view.dated().boots().expect("read");
        assert_eq!(boots.iter().map(|boot| (boot.boot, boot.last.seq)).collect::<Vec<_>>(), [(1, 30), (2, 60)]);
        assert_eq!(all(&shelf, &clock, NOON, NOON + 24 * HOUR, 50).len(), 120, "and is told all the same");
    }

    #[test]
    fn a_range_looked_at_up_to_a_number_only_goes_on_behind_it() {
        let mut shelf = Vec::new();
        start(&mut shelf, 1, 30);
        start(&mut shelf, 2, 30);
        let shelf = Shelf(shelf, 0);
        let clock = Clock::new(2, HeldTime::at(NOON, Source::Ntp), [1, 2].map(|boot| sample(boot, NOON, Source::Ntp)));
        let (timeline, points) = (Timeline::default(), HashSet::from([id()]));
        for upto in [20, 30, 45] {
            let view = View { archive: &shelf, clock: &clock, timeline: &timeline, points: &points, upto };
            let mut range = Range::Times { from_ms: NOON, to_ms: NOON + 24 * HOUR, resume: None };
            let mut page = view.again(range, 1_000).expect("read");
            while page.next < upto.min(30) || (upto > 30 && page.next < 31) {
                range = range.resumed(page.next + 1);
                page = view.again(range, 1_000).expect("read");
            }
            assert!(page.next <= upto && !page.complete, "{upto}: {} {}", page.next, page.complete);
            assert_eq!(page.entries.last().map(Entry::last_seq), Some(page.next), "{upto}");
        }
    }
}
