//! One run of the machine: its starts of the gateway share a monotonic clock, and its samples tie that clock to the
//! wall. Of samples that contradict each other one line is believed; everything on it is dated by that line alone, so
//! that the order of readings is never contradicted.

use super::{Change, Note, Sample, Source, WallTime};

/// A crystal drifts up to 100 ppm between samples; source: Raspberry Pi 54 MHz oscillator, 50 ppm, doubled for heat.
pub(super) const DRIFT_PPM: u64 = 100;
/// A clock that goes straight on is noted on the card so often, so that a power cut loses little.
const NOTE_EVERY_MS: u64 = 6 * 3_600_000;
/// Further off than this, beyond drift, and the clock was stepped.
const STEP_MS: u64 = 1_000;
/// A wall clock that was stepped is believed over one that stood before once it has gone straight on for so long.
const SETTLED_MS: u64 = 600_000;
/// Looks further apart say nothing of what the clock did in between.
const LOOK_GAP_MS: u64 = 600_000;
/// Every look between the ends of a straight stretch lies so close to the line between them.
const STRAIGHT_MS: f64 = 100.0;
/// What a date within a straight stretch may be off beyond its ends: what a look may, once more because an end may
/// have been dropped later, and 30 ms of drift from the nearest look.
const STRAIGHT_SLACK_MS: u64 = 250;
/// Knots of one line, at most; beyond, every second one goes, and dates in between say how much less is known.
const MOST_KNOTS: usize = 128;

/// What a crystal may drift in so long.
pub(super) fn drift(apart_ms: u64) -> u64 {
    (u128::from(apart_ms) * u128::from(DRIFT_PPM) / 1_000_000) as u64
}

/// A sample on the time line of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knot {
    /// Milliseconds since the machine was started.
    up: i64,
    sample: Sample,
    /// On the card, or on its way there.
    noted: bool,
}

impl Knot {
    pub(super) fn new(up: i64, sample: Sample, noted: bool) -> Self {
        Self { up, sample, noted }
    }

    fn offset(&self) -> i64 {
        self.sample.unix_ms.saturating_sub(self.up)
    }

    fn error_at(&self, up: i64) -> u64 {
        u64::from(self.sample.error_ms) + drift(self.up.abs_diff(up))
    }
}

/// Samples that agree with one another.
#[derive(Debug, Clone, Default)]
struct Run(Vec<Knot>);

impl Run {
    fn wall(&self, up: i64) -> Option<WallTime> {
        let next = self.0.partition_point(|knot| knot.up < up);
        let after = self.0.get(next);
        let before = next.checked_sub(1).and_then(|place| self.0.get(place));
        let (offset, error, source) = match (before, after) {
            (Some(a), Some(b)) => between(a, b, up),
            (Some(one), None) | (None, Some(one)) => (one.offset(), one.error_at(up), one.sample.source),
            (None, None) => return None,
        };
        let error = if source == Source::Unknown { u32::MAX } else { u32::try_from(error).unwrap_or(u32::MAX) };
        Some(WallTime { unix_ms: up.saturating_add(offset), error_ms: error, source })
    }

    /// Whether one clock could have said both.
    fn agrees(&self, knot: &Knot) -> bool {
        let nearest = self.0.iter().map(|known| known.up.abs_diff(knot.up)).min().unwrap_or(0);
        self.wall(knot.up).is_some_and(|wall| wall.unix_ms.abs_diff(knot.sample.unix_ms) <= STEP_MS + drift(nearest))
    }

    fn is_settled(&self) -> bool {
        let ends = self.0.first().zip(self.0.last());
        ends.is_some_and(|(first, last)| last.up.abs_diff(first.up) >= SETTLED_MS)
    }

    fn end(&self) -> Option<i64> {
        self.0.last().map(|knot| knot.up)
    }
}

/// The straight line between two knots, and how far off it the truth may be: it is within reach of both.
fn between(a: &Knot, b: &Knot, up: i64) -> (i64, u64, Source) {
    let (low, high) = (a.offset(), b.offset());
    let along = i128::from(high.saturating_sub(low)) * i128::from(up - a.up) / i128::from((b.up - a.up).max(1));
    let offset = low.saturating_add(along as i64);
    let (from_a, from_b) = (a.error_at(up) as i64, b.error_at(up) as i64);
    let least = (low - from_a).max(high - from_b);
    let most = (low + from_a).min(high + from_b);
    let reach = if least <= most {
        (most - offset).max(offset - least).unsigned_abs()
    } else {
        let to = |offset_of: i64, error: i64| offset_of.abs_diff(offset) + error.unsigned_abs();
        to(low, from_a).max(to(high, from_b))
    };
    let straight = b.sample.straight_ms >= b.up.abs_diff(a.up);
    let of_stretch = u64::from(a.sample.error_ms.max(b.sample.error_ms)) + STRAIGHT_SLACK_MS;
    (offset, if straight { reach.min(of_stretch) } else { reach }, b.sample.source)
}

/// The stretch that is being looked at: from its first look, every later one lay on one straight line.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Knot,
    last: Knot,
    /// Slopes of the lines that pass by every look closely enough.
    slopes: (f64, f64),
    worst_error_ms: u32,
}

impl Stretch {
    fn at(knot: Knot) -> Self {
        let worst_error_ms = knot.sample.error_ms;
        Self { from: knot, last: knot, slopes: (f64::NEG_INFINITY, f64::INFINITY), worst_error_ms }
    }

    /// The stretch with one look more; `None` when the look lies beside it, came late, or is worth much more.
    fn and(&self, look: &Knot) -> Option<Self> {
        let apart = (look.up - self.from.up) as f64;
        let rise = (look.offset() - self.from.offset()) as f64;
        let (low, high) = self.slopes;
        let slope = rise / apart;
        let gap = look.up.abs_diff(self.last.up);
        let stepped = look.offset().abs_diff(self.last.offset()) > STEP_MS + drift(gap)
            || look.sample.unix_ms <= self.last.sample.unix_ms;
        let sharper = self.worst_error_ms > 1_000 && look.sample.error_ms < self.worst_error_ms / 4;
        if gap > LOOK_GAP_MS || stepped || sharper || !(low..=high).contains(&slope) {
            return None;
        }
        let slopes = (low.max((rise - STRAIGHT_MS) / apart), high.min((rise + STRAIGHT_MS) / apart));
        let worst_error_ms = self.worst_error_ms.max(look.sample.error_ms);
        let straight_ms = look.up.abs_diff(self.from.up);
        let last = Knot { sample: Sample { straight_ms, error_ms: worst_error_ms, ..look.sample }, ..*look };
        Some(Self { last, slopes, worst_error_ms, ..*self })
    }
}

/// What is known of the wall clock during one run of the machine.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// What is believed while [`Self::current`] has not settled.
    settled: Option<Run>,
    current: Run,
    stretch: Option<Stretch>,
    /// Since when it has been looked at without a pause and without a step.
    standing_since: Option<i64>,
    /// The last instant known of it.
    pub(super) end: i64,
}

impl Timeline {
    /// From samples read back from the card.
    pub(super) fn of(mut knots: Vec<Knot>) -> Self {
        knots.sort_by_key(|knot| knot.up);
        let mut made = Self { end: knots.last().map_or(0, |knot| knot.up), ..Self::default() };
        let best = knots.iter().map(|knot| knot.sample.source).max();
        for knot in knots.into_iter().filter(|knot| Some(knot.sample.source) == best) {
            made.place(knot, &mut Vec::new());
            made.let_go_of_the_old(&mut Vec::new());
        }
        made
    }

    /// The best source heard.
    pub(super) fn source(&self) -> Option<Source> {
        self.current.0.first().map(|knot| knot.sample.source)
    }

    /// The wall time so long after the machine was started.
    pub(super) fn wall(&self, up: i64) -> Option<WallTime> {
        self.settled.as_ref().unwrap_or(&self.current).wall(up)
    }

    /// Takes in what the clock says now; gives what is to be kept on the card, and what no longer is.
    pub(super) fn look(&mut self, look: Knot) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.source().is_some_and(|best| best > look.sample.source) {
            return changes;
        }
        if self.source().is_some_and(|best| best < look.sample.source) {
            for run in [self.settled.take(), Some(std::mem::take(&mut self.current))].into_iter().flatten() {
                forget(run, &mut changes);
            }
            self.stretch = None;
        }
        if self.current.0.last().is_some_and(|last| look.up <= last.up) {
            return changes;
        }
        self.end = self.end.max(look.up);
        match self.stretch.and_then(|stretch| stretch.and(&look)) {
            Some(longer) => self.lengthen(longer),
            None => self.begin(look, &mut changes),
        }
        self.let_go_of_the_old(&mut changes);
        self.note_if_due(&mut changes);
        changes
    }

    /// The end of the stretch moves on; what the card knows of it stays until the card knows better.
    fn lengthen(&mut self, stretch: Stretch) {
        self.current.0.pop_if(|last| last.up > stretch.from.up && !last.noted);
        self.current.0.push(stretch.last);
        self.stretch = Some(stretch);
    }

    /// A first look, a bend, a pause in looking or a step: a new stretch.
    fn begin(&mut self, look: Knot, changes: &mut Vec<Change>) {
        let bend = self.stretch.map(|stretch| stretch.last);
        let bend = bend.filter(|last| look.up.abs_diff(last.up) <= LOOK_GAP_MS && self.current.agrees(&look));
        if !self.place(look, changes) {
            return;
        }
        if bend.is_none() {
            self.standing_since = Some(look.up);
        }
        self.stretch = Some(match bend.map(|last| (last, Stretch::at(last).and(&look))) {
            Some((_, Some(stretch))) => {
                self.current.0.pop();
                self.current.0.push(stretch.last);
                stretch
            }
            _ => Stretch::at(look),
        });
    }

    /// Puts a knot on the run it agrees with, or begins one. False when it says nothing: a wobble backwards.
    fn place(&mut self, knot: Knot, changes: &mut Vec<Change>) -> bool {
        let goes_on =
            |run: &Run| run.0.last().is_none_or(|last| last.up < knot.up && last.sample.unix_ms < knot.sample.unix_ms);
        if self.current.0.is_empty() || self.current.agrees(&knot) {
            if !goes_on(&self.current) {
                return false;
            }
            self.current.0.push(knot);
        } else if self.settled.as_ref().is_some_and(|run| run.agrees(&knot) && goes_on(run)) {
            forget(std::mem::take(&mut self.current), changes);
            self.current = self.settled.take().unwrap_or_default();
            self.current.0.push(knot);
        } else {
            let left = std::mem::replace(&mut self.current, Run(vec![knot]));
            if left.is_settled() {
                self.settled = Some(left);
            } else {
                forget(left, changes);
            }
        }
        true
    }

    fn let_go_of_the_old(&mut self, changes: &mut Vec<Change>) {
        if self.settled.is_some() && self.current.is_settled() {
            forget(self.settled.take().unwrap_or_default(), changes);
        }
        if self.current.0.len() > MOST_KNOTS {
            let ends = self.current.0.len() - 2;
            let mut place = 0;
            self.current.0.retain(|knot| {
                place += 1;
                let stays = place % 2 == 1 || place > ends;
                if !stays && knot.noted {
                    changes.push(Change::Forget(knot.sample));
                }
                stays
            });
        }
    }

    /// The card learns of a new run at once, again when it has settled, and then every six hours. What lies on the
    /// straight between two noted knots goes.
    fn note_if_due(&mut self, changes: &mut Vec<Change>) {
        let Some(now) = self.current.end() else { return };
        let noted = self.current.0.iter().filter(|knot| knot.noted).map(|knot| knot.up);
        let (first, last) = (noted.clone().min(), noted.max());
        let known_to_be_settled = first.zip(last).is_some_and(|(first, last)| last.abs_diff(first) >= SETTLED_MS);
        let stood = self.standing_since.map_or(0, |since| now.abs_diff(since));
        let wait = if stood >= SETTLED_MS && !known_to_be_settled { SETTLED_MS } else { NOTE_EVERY_MS };
        if last.is_some_and(|last| now.abs_diff(last) < wait) {
            return;
        }
        for knot in self.current.0.iter_mut().filter(|knot| !knot.noted) {
            knot.noted = true;
            changes.push(Change::Keep(Note::Sample(knot.sample)));
        }
        let Some(stretch) = &self.stretch else { return };
        let on_the_straight = stretch.from.up + 1..stretch.last.up;
        self.current.0.retain(|knot| {
            let goes = on_the_straight.contains(&knot.up);
            if goes {
                changes.push(Change::Forget(knot.sample));
            }
            !goes
        });
    }
}

fn forget(run: Run, changes: &mut Vec<Change>) {
    changes.extend(run.0.iter().filter(|knot| knot.noted).map(|knot| Change::Forget(knot.sample)));
}
