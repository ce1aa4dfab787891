//! The load of every measurement: fifty points of a village hall, a value of each every ten seconds, with the noise and
//! the rounding of real meters. The same for every contestant.

use anyhow::Context;
use clocher::{
    clock::{Sample, Source, Stamp},
    reading::{PointId, Quality, Reading},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Points of the hall: ten devices of five values.
pub(crate) const POINTS: usize = 50;
pub(crate) const DEVICES: usize = POINTS / 5;
/// The names of the five values of a device.
pub(crate) const VALUES: [&str; 5] = ["temperature", "power", "index", "voltage", "state"];
/// Between two rounds.
pub(crate) const EVERY_MS: u64 = 10_000;
pub(crate) const ROUNDS_A_DAY: u64 = 86_400_000 / EVERY_MS;
/// Readings of a day.
pub(crate) const DAY: u64 = ROUNDS_A_DAY * POINTS as u64;
/// Rounds that share a commit: 30 seconds of polled readings.
pub(crate) const ROUNDS_A_COMMIT: usize = 3;
/// When the first reading was taken: 1 June 2026 in UTC.
pub(crate) const START_MS: i64 = 1_780_272_000_000;
/// The gateway looks at a clock that agrees with it so often.
const SAMPLE_EVERY_MS: u64 = 6 * 3_600_000;

/// Readings without end.
pub(crate) struct Load {
    boot: u32,
    rng: StdRng,
    walk: [f64; POINTS],
    names: Vec<PointId>,
    round: u64,
}

impl Load {
    pub(crate) fn new(boot: u32) -> anyhow::Result<Self> {
        let name = |n: usize| name(n).parse().context("a point's name");
        let names = (0..POINTS).map(name).collect::<anyhow::Result<_>>()?;
        Ok(Self { boot, rng: StdRng::seed_from_u64(50), walk: [0.0; POINTS], names, round: 0 })
    }

    /// The next fifty readings.
    pub(crate) fn round(&mut self, into: &mut Vec<Reading>) {
        let mut jitter = 0;
        for (n, (walk, name)) in self.walk.iter_mut().zip(&self.names).enumerate() {
            // Ten devices, polled one after the other; the five values of one have one stamp.
            jitter = if n % 5 == 0 { self.rng.random_range(0..9) } else { jitter };
            let noise = self.rng.random_range(-1.0..1.0);
            let value = match n % 5 {
                0 => {
                    *walk += noise * 0.03;
                    20.0 + (*walk * 10.0).round() / 10.0
                }
                1 => (900.0 + 200.0 * (self.round as f64 / 60.0).sin() + noise * 15.0).round(),
                2 => {
                    *walk += 2.5 + noise * 0.05;
                    48_213.0 + walk.round() / 1000.0
                }
                3 => ((230.0 + noise) * 10.0).round() / 10.0,
                _ => f64::from(u8::from((self.round / 40).is_multiple_of(3))),
            };
            into.push(Reading {
                point: name.clone(),
                stamp: Stamp { boot: self.boot, mono_ms: self.round * EVERY_MS + n as u64 / 5 * 40 + jitter },
                value: Some((value * 1000.0).round() / 1000.0),
                quality: Quality::Good,
            });
        }
        self.round += 1;
    }

    /// Some rounds in one batch.
    pub(crate) fn batch(&mut self, rounds: usize) -> Vec<Reading> {
        let mut batch = Vec::with_capacity(rounds * POINTS);
        (0..rounds).for_each(|_| self.round(&mut batch));
        batch
    }

    /// A day, in batches as they are committed.
    pub(crate) fn day(&mut self) -> Vec<Vec<Reading>> {
        (0..ROUNDS_A_DAY as usize / ROUNDS_A_COMMIT).map(|_| self.batch(ROUNDS_A_COMMIT)).collect()
    }
}

/// The name of the nth point.
pub(crate) fn name(n: usize) -> String {
    format!("hall-{}/{}", n / 5, VALUES.get(n % 5).copied().unwrap_or_default())
}

/// When a reading was taken, on the wall.
pub(crate) fn wall_ms(reading: &Reading) -> i64 {
    START_MS + reading.stamp.mono_ms as i64
}

/// What the gateway would have learnt of the time over some days.
pub(crate) fn samples(boot: u32, days: u64) -> impl Iterator<Item = Sample> {
    (0..=days * 86_400_000 / SAMPLE_EVERY_MS).map(move |n| {
        let mono_ms = n * SAMPLE_EVERY_MS;
        // NTP leaves a few milliseconds either way.
        let off = (n * 7919 % 11) as i64 - 5;
        Sample {
            stamp: Stamp { boot, mono_ms },
            unix_ms: START_MS + mono_ms as i64 + off,
            error_ms: 50,
            source: Source::Ntp,
            straight_ms: 0,
        }
    })
}
