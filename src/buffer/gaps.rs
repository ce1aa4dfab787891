//! Holes in the numbers, each told with its cause. They never overlap; neighbours of the same cause are one.

use std::collections::BTreeMap;

use crate::store::{Cause, Gap};

/// More holes than this are no longer told apart: the two oldest become one.
const MOST: usize = 1024;

/// Every hole, by its first number.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Gaps(BTreeMap<u64, Gap>);

impl Gaps {
    pub(super) fn new(gaps: impl IntoIterator<Item = Gap>) -> Self {
        let mut all = Self::default();
        for gap in gaps {
            all.add(gap);
        }
        all
    }

    /// Takes a hole in, less what was told before. Returns how many numbers are newly lost.
    pub(super) fn add(&mut self, gap: Gap) -> u64 {
        if gap.first > gap.last {
            return 0;
        }
        let mut added = 0;
        for piece in self.missing(gap.first, gap.last) {
            let part = clip(&gap, piece.0, piece.1);
            added += part.count;
            self.insert(part);
        }
        while self.0.len() > MOST && self.join_oldest() {}
        added
    }

    fn insert(&mut self, mut gap: Gap) {
        if let Some((first, before)) = self.0.range(..gap.first).next_back().map(|(k, v)| (*k, v.clone()))
            && before.last + 1 == gap.first
            && before.cause == gap.cause
        {
            self.0.remove(&first);
            gap = joined(before, gap);
        }
        if let Some(after) = self.0.get(&(gap.last + 1)).filter(|after| after.cause == gap.cause).cloned() {
            self.0.remove(&after.first);
            gap = joined(gap, after);
        }
        self.0.insert(gap.first, gap);
    }

    fn join_oldest(&mut self) -> bool {
        let Some((_, first)) = self.0.pop_first() else { return false };
        let Some((_, second)) = self.0.pop_first() else { return false };
        let touching = first.last + 1 == second.first;
        let cause = if first.count > second.count { first.cause } else { second.cause };
        if touching {
            let both = Gap { cause, ..joined(first, second) };
            self.0.insert(both.first, both);
        } else {
            // Only neighbours may be joined: what lies between them is stored.
            self.0.extend([(first.first, first), (second.first, second)]);
        }
        touching
    }

    /// The parts of a range that are not told yet.
    fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut pieces = Vec::new();
        let mut at = first;
        let before = self.0.range(..first).next_back().filter(|(_, gap)| gap.last >= first);
        for gap in before.into_iter().chain(self.0.range(first..=last)).map(|(_, gap)| gap) {
            if gap.first > at {
                pieces.push((at, gap.first - 1));
            }
            at = at.max(gap.last + 1);
        }
        if at <= last {
            pieces.push((at, last));
        }
        pieces
    }

    /// The hole a number lies in.
    pub(super) fn at(&self, seq: u64) -> Option<&Gap> {
        self.0.range(..=seq).next_back().map(|(_, gap)| gap).filter(|gap| gap.last >= seq)
    }

    /// The first hole beginning above `seq`.
    pub(super) fn above(&self, seq: u64) -> Option<&Gap> {
        self.0.range(seq.saturating_add(1)..).next().map(|(_, gap)| gap)
    }

    pub(super) fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, gap)| gap.last)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Gap> {
        self.0.values()
    }
}

/// The part of a hole between two numbers.
pub(super) fn clip(gap: &Gap, first: u64, last: u64) -> Gap {
    let (from, to) = (gap.first.max(first), gap.last.min(last));
    Gap {
        first: from,
        last: to,
        count: gap.count.min(to + 1 - from),
        from: gap.from.filter(|_| from == gap.first),
        to: gap.to.filter(|_| to == gap.last),
        cause: gap.cause,
    }
}

fn joined(before: Gap, after: Gap) -> Gap {
    Gap {
        first: before.first,
        last: after.last,
        count: before.count + after.count,
        from: before.from.or(after.from),
        to: after.to.or(before.to),
        cause: before.cause,
    }
}

/// A hole of which only the numbers are known.
pub(super) fn undated(first: u64, last: u64, cause: Cause) -> Gap {
    Gap { first, last, count: last + 1 - first, from: None, to: None, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(gaps: &Gaps) -> Vec<(u64, u64, u64)> {
        gaps.all().map(|gap| (gap.first, gap.last, gap.count)).collect()
    }

    #[test]
    fn holes_never_overlap_and_neighbours_of_one_cause_are_one() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.add(undated(10, 19, Cause::Damage)), 10);
        assert_eq!(gaps.add(undated(1, 30, Cause::SizeLimit)), 20);
        assert_eq!(spans(&gaps), [(1, 9, 9), (10, 19, 10), (20, 30, 11)]);
        assert_eq!(gaps.add(undated(31, 40, Cause::SizeLimit)), 10);
        assert_eq!(gaps.add(undated(5, 35, Cause::Damage)), 0);
        assert_eq!(spans(&gaps), [(1, 9, 9), (10, 19, 10), (20, 40, 21)]);
        assert_eq!(gaps.at(19).map(|gap| gap.cause), Some(Cause::Damage));
        assert_eq!(gaps.at(41), None);
    }

    #[test]
    fn a_flood_of_holes_stays_bounded_once_they_touch() {
        let mut gaps = Gaps::default();
        for n in 1..=10_000u64 {
            gaps.add(undated(n, n, if n % 2 == 0 { Cause::Damage } else { Cause::SizeLimit }));
        }
        assert!(spans(&gaps).len() <= MOST);
        assert_eq!(gaps.all().map(|gap| gap.count).sum::<u64>(), 10_000);
    }
}
