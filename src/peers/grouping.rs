//! Readings sorted by point, boot and source of their time, for `columns`. Points are polled in rounds, so the group that
//! followed last time is tried first, and a month is sorted without comparing many names.

use std::collections::HashMap;

use crate::{
    clock::{Clock, Source, Stamp, WallTime},
    reading::{PointId, Stored},
};

/// What the readings of a group have in common; groups are told in this order.
pub(super) type Key<'a> = (&'a PointId, u32, Source);

/// A reading with its time.
pub(super) type Dated<'a> = (&'a Stored, Option<WallTime>);

/// Readings with one key, in the order they came.
struct Group<'a> {
    key: Key<'a>,
    readings: Vec<Dated<'a>>,
    /// The group that came next when this one came last.
    follower: usize,
}

/// Sorts readings as they come.
pub(super) struct Grouping<'a> {
    clock: &'a Clock,
    groups: Vec<Group<'a>>,
    places: HashMap<Key<'a>, usize>,
    last: usize,
    /// The values of one frame share a stamp.
    resolved: Option<(Stamp, Option<WallTime>)>,
}

impl<'a> Grouping<'a> {
    pub(super) fn new(clock: &'a Clock) -> Self {
        Self { clock, groups: Vec::new(), places: HashMap::new(), last: 0, resolved: None }
    }

    pub(super) fn add(&mut self, stored: &'a Stored) {
        let wall = self.resolve(stored.reading.stamp);
        let source = wall.map_or(Source::Unknown, |wall| wall.source);
        let place = self.place((&stored.reading.point, stored.reading.stamp.boot, source));
        if let Some(last) = self.groups.get_mut(self.last) {
            last.follower = place;
        }
        self.last = place;
        if let Some(group) = self.groups.get_mut(place) {
            group.readings.push((stored, wall));
        }
    }

    /// The groups in order of their keys.
    pub(super) fn finish(mut self) -> impl Iterator<Item = (Key<'a>, Vec<Dated<'a>>)> {
        self.groups.sort_by(|a, b| a.key.cmp(&b.key));
        self.groups.into_iter().map(|group| (group.key, group.readings))
    }

    fn resolve(&mut self, stamp: Stamp) -> Option<WallTime> {
        match self.resolved {
            Some((known, wall)) if known == stamp => wall,
            _ => {
                let wall = self.clock.resolve(stamp);
                self.resolved = Some((stamp, wall));
                wall
            }
        }
    }

    fn place(&mut self, key: Key<'a>) -> usize {
        let likely = self.groups.get(self.last).map_or(0, |last| last.follower);
        if self.groups.get(likely).is_some_and(|group| group.key == key) {
            return likely;
        }
        let groups = &mut self.groups;
        *self.places.entry(key).or_insert_with(|| {
            groups.push(Group { key, readings: Vec::new(), follower: 0 });
            groups.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{HeldTime, Sample},
        reading::{Quality, Reading},
    };

    #[test]
    fn each_reading_is_in_the_group_of_its_point_boot_and_source_whatever_the_order_they_come_in() {
        let sample = Sample {
            stamp: Stamp { boot: 2, mono_ms: 0 },
            unix_ms: 1_000,
            error_ms: 5,
            source: Source::Ntp,
            straight_ms: 0,
        };
        let clock = Clock::new(2, HeldTime::at(1_000, Source::Ntp), [sample]);
        let names = ["b/two", "a/one", "c/three"].map(|name| name.parse::<PointId>().expect("a name"));
        // Rounds that change their order, with a boot of unknown time in between.
        let order = [0, 1, 2, 0, 1, 2, 2, 1, 0, 0, 0, 1, 2, 1, 0, 2];
        let stored = (1..).zip(order).map(|(seq, n): (u64, usize)| {
            let stamp = Stamp { boot: 1 + u32::from(seq % 5 != 0), mono_ms: seq / 3 * 10 };
            let point = names[n].clone();
            Stored { seq, reading: Reading { point, stamp, value: Some(1.0), quality: Quality::Good } }
        });
        let stored = stored.collect::<Vec<_>>();
        let mut grouping = Grouping::new(&clock);
        stored.iter().for_each(|stored| grouping.add(stored));
        let groups = grouping.finish().collect::<Vec<_>>();
        assert!(groups.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each once");
        let mut seen = Vec::new();
        for ((point, boot, source), readings) in groups {
            assert_eq!(source, if boot == 2 { Source::Ntp } else { Source::Unknown });
            for (reading, wall) in &readings {
                assert_eq!((&reading.reading.point, reading.reading.stamp.boot), (point, boot));
                assert_eq!(*wall, clock.resolve(reading.reading.stamp));
            }
            assert!(readings.windows(2).all(|pair| pair[0].0.seq < pair[1].0.seq));
            seen.extend(readings.iter().map(|(stored, _)| stored.seq));
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=order.len() as u64).collect::<Vec<_>>());
    }
}
