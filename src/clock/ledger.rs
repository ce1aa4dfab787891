//! Every run of the machine that is known of, in order, and what the neighbours of a run that never learnt the time
//! say about it: it ran after the one before and ended before the one after began.

use std::collections::BTreeMap;

use super::{
    Change, Machine, Note, Sample, Source, Stamp, Start, WallTime,
    timeline::{Knot, Timeline},
};

/// Where a start of the gateway lies: in which run of the machine, and when in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The first start of that run.
    run: u32,
    up_ms: i64,
}

/// A run of the machine.
#[derive(Debug, Default)]
struct Run {
    timeline: Timeline,
    /// It began no earlier, as far as the build of the gateway tells.
    built_ms: Option<i64>,
    /// When the machine was started, from its neighbours: the middle of what is possible, and how far off that may be.
    estimate: Option<(i64, u64)>,
}

impl Run {
    fn is_dated(&self) -> bool {
        self.timeline.source().is_some_and(Source::is_trusted)
    }

    fn end(&self) -> i64 {
        self.timeline.end.max(0)
    }
}

/// All that is known of the clock.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    places: BTreeMap<u32, Place>,
    runs: BTreeMap<u32, Run>,
}

impl Ledger {
    pub(super) fn of(notes: impl IntoIterator<Item = Note>) -> Self {
        let (mut starts, mut samples) = (BTreeMap::new(), BTreeMap::<u32, Vec<Sample>>::new());
        for note in notes {
            match note {
                Note::Start(start) => {
                    starts.insert(start.boot, start);
                }
                Note::Sample(sample) => samples.entry(sample.stamp.boot).or_default().push(sample),
            }
        }
        let mut made = Self { places: places(&starts, samples.keys().copied()), ..Self::default() };
        let mut knots = BTreeMap::<u32, Vec<Knot>>::new();
        for sample in samples.into_values().flatten() {
            if let Some((run, up)) = made.locate(sample.stamp) {
                knots.entry(run).or_default().push(Knot::new(up, sample, true));
            }
        }
        for place in made.places.values() {
            let of_run =
                || Run { timeline: Timeline::of(knots.remove(&place.run).unwrap_or_default()), ..Run::default() };
            let run = made.runs.entry(place.run).or_insert_with(of_run);
            run.timeline.end = run.timeline.end.max(place.up_ms);
        }
        starts.values().for_each(|start| made.note(start));
        made.estimate();
        made
    }

    fn note(&mut self, start: &Start) {
        if let Some(place) = self.places.get(&start.boot)
            && let Some(run) = self.runs.get_mut(&place.run)
        {
            run.built_ms.get_or_insert(start.built_ms);
        }
        if let Some((run, up)) = start.before.and_then(|before| self.locate(before))
            && let Some(run) = self.runs.get_mut(&run)
        {
            run.timeline.end = run.timeline.end.max(up);
        }
    }

    fn locate(&self, stamp: Stamp) -> Option<(u32, i64)> {
        let place = self.places.get(&stamp.boot)?;
        Some((place.run, place.up_ms.saturating_add(i64::try_from(stamp.mono_ms).unwrap_or(i64::MAX))))
    }

    pub(super) fn learn(&mut self, sample: Sample) -> Vec<Change> {
        let boot = sample.stamp.boot;
        self.places.entry(boot).or_insert(Place { run: boot, up_ms: 0 });
        let Some((run, up)) = self.locate(sample.stamp) else { return Vec::new() };
        let timeline = &mut self.runs.entry(run).or_default().timeline;
        let changes = timeline.look(Knot::new(up, sample, false));
        if !changes.is_empty() {
            self.estimate();
        }
        changes
    }

    pub(super) fn resolve(&self, stamp: Stamp) -> Option<WallTime> {
        let (run, up) = self.locate(stamp)?;
        let run = self.runs.get(&run)?;
        match run.estimate.filter(|_| !run.is_dated()) {
            Some((started_ms, error)) => Some(WallTime {
                unix_ms: started_ms.saturating_add(at_least(up)),
                error_ms: u32::try_from(error).unwrap_or(u32::MAX),
                source: Source::Estimated,
            }),
            None => run.timeline.wall(up),
        }
    }

    /// Works out again what the dated runs say about the others.
    fn estimate(&mut self) {
        let mut floors = Vec::with_capacity(self.runs.len());
        let mut floor = i64::MIN;
        for run in self.runs.values() {
            floors.push(floor.max(run.built_ms.unwrap_or(i64::MIN)));
            floor = match run.timeline.wall(run.end()).filter(|_| run.is_dated()) {
                Some(wall) => floor.max(wall.unix_ms - i64::from(wall.error_ms)),
                None => floors.last().map_or(floor, |floor| floor.saturating_add(at_least(run.end()))),
            };
        }
        let mut ceiling = i64::MAX;
        for (run, floor) in self.runs.values_mut().zip(floors).rev() {
            if let Some(wall) = run.timeline.wall(0).filter(|_| run.is_dated()) {
                ceiling = ceiling.min(wall.unix_ms + i64::from(wall.error_ms));
                run.estimate = None;
                continue;
            }
            // Of when the machine was started: it still ran until its end.
            let latest = ceiling.saturating_sub(if ceiling == i64::MAX { 0 } else { at_least(run.end()) });
            let bounded = floor > i64::MIN && ceiling < i64::MAX && floor <= latest;
            run.estimate = bounded.then(|| {
                let width = latest - floor;
                (floor + width / 2, width.unsigned_abs().div_ceil(2))
            });
            ceiling = latest;
        }
    }
}

/// What so long on our clock is on the wall at the least.
fn at_least(apart_ms: i64) -> i64 {
    apart_ms - super::timeline::drift(apart_ms.unsigned_abs()) as i64
}

/// Starts within one run of the machine follow each other on one clock; without the machine's word each is on its own.
fn places(starts: &BTreeMap<u32, Start>, others: impl Iterator<Item = u32>) -> BTreeMap<u32, Place> {
    let mut places = BTreeMap::new();
    let mut last: Option<(Machine, u32)> = None;
    for start in starts.values() {
        let Some(machine) = start.machine else {
            places.insert(start.boot, Place { run: start.boot, up_ms: 0 });
            last = None;
            continue;
        };
        let goes_on = last.filter(|(before, _)| before.id == machine.id && before.up_ms <= machine.up_ms);
        let run = goes_on.map_or(start.boot, |(_, run)| run);
        places.insert(start.boot, Place { run, up_ms: i64::try_from(machine.up_ms).unwrap_or(i64::MAX) });
        last = Some((machine, run));
    }
    for boot in others {
        places.entry(boot).or_insert(Place { run: boot, up_ms: 0 });
    }
    places
}
