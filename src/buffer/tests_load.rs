//! A deterministic load for the tests: fifty points of a village hall, every ten seconds.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    clock::Stamp,
    reading::{Quality, Reading},
};

/// `count` rounds of fifty readings, from second 0 of a boot on.
pub(super) fn rounds(boot: u32, count: u64) -> Vec<Reading> {
    let mut rng = StdRng::seed_from_u64(50);
    let mut walk = [0f64; 50];
    let mut readings = Vec::new();
    for round in 0..count {
        let mut jitter = 0;
        for (n, walk) in walk.iter_mut().enumerate() {
            // Ten devices, polled one after the other; the five values of one have one stamp.
            jitter = if n % 5 == 0 { rng.random_range(0..9) } else { jitter };
            let noise = rng.random_range(-1.0..1.0);
            let (kind, value) = match n % 5 {
                0 => ("temperature", {
                    *walk += noise * 0.03;
                    20.0 + (*walk * 10.0).round() / 10.0
                }),
                1 => ("power", (900.0 + 200.0 * (round as f64 / 60.0).sin() + noise * 15.0).round()),
                2 => ("index", {
                    *walk += 2.5 + noise * 0.05;
                    48_213.0 + walk.round() / 1000.0
                }),
                3 => ("voltage", ((230.0 + noise) * 10.0).round() / 10.0),
                _ => ("state", f64::from(u8::from(round / 40 % 3 == 0))),
            };
            readings.push(Reading {
                point: format!("hall-{}/{kind}", n / 5).parse().unwrap_or_else(|_| unreachable!()),
                stamp: Stamp { boot, mono_ms: round * 10_000 + n as u64 / 5 * 40 + jitter },
                value: Some((value * 1000.0).round() / 1000.0),
                quality: Quality::Good,
            });
        }
    }
    readings
}
