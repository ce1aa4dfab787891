//! Whole lives of a box, made from a seed: runs of the machine and starts of the gateway, crystals that drift, time
//! services that come late, step, lie and oscillate. The truth is known, so every date can be held against it.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const BUILT: i64 = 1_795_000_000_000;

/// The card: what the changes leave on it.
#[derive(Default)]
struct Card {
    starts: BTreeMap<u32, Start>,
    samples: BTreeMap<(Stamp, u8), Sample>,
    most: usize,
}

impl Card {
    fn change(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Keep(Note::Start(start)) => drop(self.starts.insert(start.boot, start)),
                Change::Keep(Note::Sample(sample)) => {
                    self.samples.insert((sample.stamp, sample.source as u8), sample);
                }
                Change::Forget(sample) => {
                    assert_eq!(self.samples.remove(&(sample.stamp, sample.source as u8)), Some(sample), "it was kept");
                }
            }
            self.most = self.most.max(self.samples.len());
        }
    }

    fn notes(&self) -> Vec<Note> {
        let starts = self.starts.values().map(|start| Note::Start(*start));
        starts.chain(self.samples.values().map(|sample| Note::Sample(*sample))).collect()
    }
}

/// A machine that lives in true time and shows its own.
struct World {
    truth: i64,
    /// The crystal against the truth, in millionths; it is up to us to keep it within a hundred.
    ppm: f64,
    /// Own milliseconds since the machine was started.
    up: f64,
    run: u8,
    boot: u32,
    started_up: u64,
    time: Arc<HeldTime>,
    clock: Clock,
    card: Card,
    /// What was read when: in order.
    readings: Vec<(Stamp, i64)>,
}

impl World {
    fn new(truth: i64) -> Self {
        let time = HeldTime::at(0, Source::Unknown);
        let clock = Clock::new(0, time.clone(), []);
        let mut world = Self {
            truth,
            ppm: 0.0,
            up: 0.0,
            run: 0,
            boot: 0,
            started_up: 0,
            time,
            clock,
            card: Card::default(),
            readings: Vec::new(),
        };
        world.power();
        world
    }

    /// The machine starts, and the gateway some seconds later.
    fn power(&mut self) {
        (self.run, self.up) = (self.run + 1, 0.0);
        self.pass(5 * SECOND);
        self.start();
    }

    /// The gateway starts, killed or not before.
    fn start(&mut self) {
        self.boot += 1;
        self.started_up = self.up as u64;
        self.time = HeldTime::at(0, Source::Unknown);
        let machine = Some(Machine { id: [self.run; 16], up_ms: self.started_up });
        let before = self.readings.last().map(|(stamp, _)| *stamp);
        let start = Note::Start(Start { boot: self.boot, machine, before, built_ms: BUILT });
        self.card.change([Change::Keep(start)]);
        self.clock = Clock::knowing(self.boot, self.time.clone(), self.card.notes());
    }

    /// True time passes, and nobody looks.
    fn pass(&mut self, ms: i64) {
        self.truth += ms;
        self.up += ms as f64 * (1.0 + self.ppm / 1e6);
    }

    /// The clock is looked at, `off` from the truth.
    fn look(&mut self, off: i64, source: Source) {
        self.show(self.truth + off, source);
    }

    fn show(&mut self, wall: i64, source: Source) {
        self.at_this_instant();
        self.time.set_wall(wall, source);
        self.card.change(self.clock.look());
    }

    fn at_this_instant(&mut self) {
        let mono = self.up as u64 - self.started_up;
        self.time.advance(mono - self.time.mono_ms());
    }

    fn read(&mut self) {
        self.at_this_instant();
        self.readings.push((self.clock.now(), self.truth));
    }

    /// Looks every ten seconds for so long, with a reading each time.
    fn live(&mut self, ms: i64, mut wall: impl FnMut(i64) -> (i64, Source)) {
        let until = self.truth + ms;
        while self.truth < until {
            self.pass(10 * SECOND);
            let (shown, source) = wall(self.truth);
            self.show(shown, source);
            self.read();
        }
    }

    /// As after a power cut: only what the card holds is known.
    fn reopened(&self) -> Clock {
        Clock::knowing(self.boot + 1, HeldTime::at(0, Source::Unknown), self.card.notes())
    }

    /// Every date within its stated error, in order, by the running clock and by one that knows the card alone.
    fn check(&self, why: &str) {
        for (clock, which) in [(&self.clock, "running"), (&self.reopened(), "reopened")] {
            let mut last = i64::MIN;
            for (stamp, truth) in &self.readings {
                let Some(wall) = clock.resolve(*stamp) else { panic!("{why}, {which}: {stamp:?} has no date") };
                if wall.source == Source::Unknown {
                    continue;
                }
                let off = wall.unix_ms.abs_diff(*truth);
                let stated = if wall.error_ms == u32::MAX { u64::MAX } else { u64::from(wall.error_ms) };
                assert!(off <= stated, "{why}, {which}: {stamp:?} is {off} ms off, says {wall:?}");
                assert!(wall.unix_ms >= last, "{why}, {which}: {stamp:?} out of order, {wall:?} after {last}");
                last = wall.unix_ms;
            }
        }
    }

    fn sources(&self) -> BTreeSet<Source> {
        self.readings.iter().filter_map(|(stamp, _)| self.clock.resolve(*stamp)).map(|wall| wall.source).collect()
    }
}

fn right(truth: i64) -> (i64, Source) {
    (truth, Source::Ntp)
}

fn in_1970(truth: i64) -> (i64, Source) {
    (truth % DAY, Source::Unknown)
}

#[test]
fn two_boots_in_1970_are_dated_to_the_millisecond_of_the_third_s_error_when_the_machine_ran_on() {
    let mut world = World::new(BUILT + 10 * DAY);
    world.live(20 * MINUTE, in_1970);
    world.start();
    world.live(10 * MINUTE, |truth| (truth - 9 * DAY, Source::Unknown));
    world.check("before");
    assert_eq!(world.sources(), BTreeSet::from([Source::Unknown]));
    world.pass(10 * SECOND);
    world.look(0, Source::Ntp);
    world.check("after");
    assert_eq!(world.sources(), BTreeSet::from([Source::Ntp]));
    let first = world.clock.resolve(world.readings[0].0).expect("dated");
    assert_eq!(first.error_ms, 50 + 180, "half an hour at 100 ppm");
}

#[test]
fn a_run_of_the_machine_that_never_learnt_the_time_is_dated_between_its_neighbours() {
    let mut world = World::new(BUILT + 10 * DAY);
    world.live(HOUR, right);
    world.pass(2 * HOUR);
    world.power();
    world.live(30 * MINUTE, in_1970);
    world.pass(4 * HOUR);
    world.power();
    world.live(40 * MINUTE, in_1970);
    world.pass(3 * HOUR);
    world.power();
    world.live(20 * MINUTE, in_1970);
    world.live(20 * SECOND, right);
    world.check("two lost runs between two known ones");
    assert_eq!(world.sources(), BTreeSet::from([Source::Estimated, Source::Ntp]));
    let lost = world.clock.resolve(Stamp { boot: 2, mono_ms: 0 }).expect("dated");
    let half = (9 * HOUR / 2) as u64;
    assert!(u64::from(lost.error_ms).abs_diff(half) < 15_000, "half of the nine hours nobody knows of: {lost:?}");
}

#[test]
fn the_first_run_of_all_is_dated_between_the_build_and_the_next() {
    let mut world = World::new(BUILT + DAY);
    world.live(HOUR, in_1970);
    world.pass(HOUR);
    world.power();
    world.live(MINUTE, right);
    world.check("first");
    let first = world.clock.resolve(world.readings[0].0).expect("dated");
    assert_eq!(first.source, Source::Estimated);
    assert!(!first.source.is_trusted());
    assert!(first.error_ms >= (DAY / 2) as u32 && first.error_ms < (DAY / 2 + HOUR) as u32, "{first:?}");
}

#[test]
fn a_run_nobody_can_place_keeps_the_system_s_clock_and_says_that_it_is_worth_nothing() {
    let mut world = World::new(BUILT + DAY);
    world.live(HOUR, right);
    world.power();
    world.live(HOUR, in_1970);
    let wall = world.clock.wall_now();
    assert_eq!((wall.source, wall.error_ms), (Source::Unknown, u32::MAX));
}

#[test]
fn a_trusted_clock_that_is_stepped_back_a_day_or_on_a_year_by_mistake_moves_no_reading() {
    for step in [-DAY, 365 * DAY] {
        let mut world = World::new(BUILT + 400 * DAY);
        world.live(5 * HOUR, right);
        world.live(9 * MINUTE, |truth| (truth + step, Source::Ntp));
        world.check("while it is wrong");
        world.live(HOUR, right);
        world.check("and after");
        assert_eq!(world.clock.wall_now().unix_ms, world.truth);
        assert!(world.card.samples.len() <= 6, "{:?}", world.card.samples);
    }
}

#[test]
fn a_time_service_that_was_wrong_at_first_is_put_right_with_all_that_was_dated_by_it() {
    for wrong_for in [3 * MINUTE, 7 * HOUR] {
        let mut world = World::new(BUILT + 400 * DAY);
        world.live(wrong_for, |truth| (truth - 3 * DAY, Source::Ntp));
        world.live(11 * MINUTE, right);
        world.check("put right");
        assert_eq!(world.clock.wall_now().unix_ms, world.truth);
    }
}

#[test]
fn a_clock_that_oscillates_is_dated_by_what_stood_and_does_not_fill_the_card() {
    let mut world = World::new(BUILT + 400 * DAY);
    world.live(HOUR, right);
    let mut looks = 0;
    world.live(2 * DAY, |truth| {
        looks += 1;
        (truth + if looks / 6 % 2 == 0 { DAY } else { 0 }, Source::Ntp)
    });
    world.check("oscillating each minute");
    assert!(world.card.samples.len() < 150 && world.card.most < 200, "{}", world.card.most);
}

#[test]
fn an_untrusted_clock_that_is_stepped_keeps_the_readings_in_order() {
    let mut world = World::new(BUILT + 400 * DAY);
    world.live(HOUR, |truth| (truth, Source::Unknown));
    world.live(HOUR, |truth| (truth - DAY, Source::Unknown));
    world.live(HOUR, |truth| (truth + 365 * DAY, Source::Unknown));
    let dates: Vec<i64> =
        world.readings.iter().map(|(s, _)| world.clock.resolve(*s).expect("a date").unix_ms).collect();
    assert!(dates.is_sorted());
}

#[test]
fn ten_years_of_looks_leave_few_samples_and_every_date_within_its_error() {
    let mut world = World::new(BUILT);
    let mut random = SmallRng::seed_from_u64(10);
    // One look every ten minutes stands for sixty: a look that lies on the line changes nothing.
    for quarter in 0..40 {
        world.power();
        for minute in 0..91 * 24 * 6 {
            let apart = random.random_range(0..10 * MINUTE);
            world.pass(apart);
            if minute % 500 == 0 {
                world.read();
            }
            world.pass(10 * MINUTE - 1 - apart);
            world.look(0, Source::Ntp);
        }
        assert!(world.card.samples.len() <= 8 * (quarter + 1), "{}", world.card.samples.len());
    }
    world.check("ten years");
    let worst =
        world.readings.iter().filter_map(|(stamp, _)| world.reopened().resolve(*stamp)).map(|w| w.error_ms).max();
    assert!(
        worst.is_some_and(|ms| ms <= 50 + 250 + 2_200),
        "within 350 ms, or six hours before a power cut: {worst:?}"
    );
}

#[test]
fn a_line_with_too_many_bends_is_thinned_and_says_what_it_no_longer_knows() {
    let mut world = World::new(BUILT);
    let mut random = SmallRng::seed_from_u64(3);
    for _ in 0..400 {
        world.pass(7 * HOUR);
        world.ppm = random.random_range(-90.0..90.0);
        world.look(random.random_range(-50..=50), Source::Ntp);
        world.read();
    }
    world.check("thinned");
    assert!(world.card.samples.len() <= 129, "{}", world.card.samples.len());
}

/// One life: everything that may happen to a box, in any order.
fn life(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::new(BUILT + random.random_range(0..100 * DAY));
    for _ in 0..random.random_range(1..8) {
        world.ppm = random.random_range(-95.0..95.0);
        let knows_after = random.random_range(0..4);
        for part in 0..random.random_range(1..6) {
            match random.random_range(0..6) {
                0 => world.start(),
                1 => world.pass(random.random_range(0..30 * HOUR)),
                2 => world.ppm = random.random_range(-95.0..95.0),
                3 if part > knows_after => {
                    // A step that is taken back in time: the run it interrupts must have settled.
                    world.live(11 * MINUTE, right);
                    let step = random.random_range(-400 * DAY..400 * DAY);
                    world.live(random.random_range(0..9 * MINUTE), |truth| (truth + step, Source::Ntp));
                    world.live(MINUTE, right);
                }
                _ => {}
            }
            let wobble = random.random_range(0..=45);
            let wrong = random.random_range(-400 * DAY..400 * DAY);
            let trusted = part >= knows_after;
            let mut noise = SmallRng::seed_from_u64(seed ^ world.truth as u64);
            world.live(random.random_range(0..3 * HOUR), |truth| {
                if trusted {
                    (truth + noise.random_range(-wobble..=wobble), Source::Ntp)
                } else {
                    (truth + wrong, Source::Unknown)
                }
            });
            world.check(&format!("seed {seed}"));
        }
        world.pass(random.random_range(0..40 * DAY));
        world.power();
    }
    world.live(MINUTE, right);
    world.check(&format!("seed {seed}, at the end"));
    assert!(world.sources().iter().all(|source| *source > Source::Unknown), "seed {seed}: all are dated at the end");
}

#[test]
fn whatever_happens_to_a_box_each_date_is_within_its_stated_error_and_in_order() {
    let lives = std::env::var("CLOCHER_LIVES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    (0..lives).for_each(life);
}
