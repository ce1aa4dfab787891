//! Whether an index can be true: six bits of checksum let two swapped digits pass, so each step is held against
//! what the subscription could deliver in that time.

use crate::reading::{Quality, Why};

/// An index has nine digits, then starts again from zero.
const MODULUS: f64 = 1e9;
/// What the largest meter of this kind delivers, W; source: Enedis, low-voltage supply up to 36 kVA.
const LARGEST_SUPPLY: f64 = 36_000.0;
/// A subscription may be exceeded for a while before the breaker opens.
const MARGIN: f64 = 1.5;
/// The value was taken up to one frame before it was heard, s.
const SAMPLING: f64 = 2.0;
/// So many values in a row that agree with one another, and not with the past, are the truth: the meter was changed.
const AGREEING: u8 = 3;

/// What is believed of one index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Believed {
    value: f64,
    at_ms: u64,
    rival: Option<Rival>,
}

/// A value that contradicts what is believed, and how often values agreed with it since.
#[derive(Debug, Clone, Copy)]
struct Rival {
    value: f64,
    at_ms: u64,
    agreeing: u8,
}

impl Believed {
    /// The first value of an index is believed.
    pub(super) fn first(value: f64, at_ms: u64) -> Self {
        Self { value, at_ms, rival: None }
    }

    /// Holds a value against what is believed. `supply` is the subscription in W, when the meter has said it.
    pub(super) fn judge(&mut self, value: f64, at_ms: u64, supply: Option<f64>) -> Quality {
        let follows = |from: f64, since_ms: u64| step(from, value) <= most(at_ms.saturating_sub(since_ms), supply);
        if follows(self.value, self.at_ms) {
            *self = Self::first(value, at_ms);
            return Quality::Good;
        }
        let agreeing = match self.rival {
            Some(rival) if follows(rival.value, rival.at_ms) => rival.agreeing + 1,
            _ => 1,
        };
        if agreeing >= AGREEING {
            *self = Self::first(value, at_ms);
            return Quality::Good;
        }
        self.rival = Some(Rival { value, at_ms, agreeing });
        Quality::Suspect(Why::ImplausibleStep)
    }
}

/// Wh from one index to the next, over the roll-over; a step back is a very large one.
fn step(from: f64, to: f64) -> f64 {
    (to - from).rem_euclid(MODULUS)
}

/// Wh that can have been delivered in so long.
fn most(elapsed_ms: u64, supply: Option<f64>) -> f64 {
    let seconds = elapsed_ms as f64 / 1_000.0 + SAMPLING;
    supply.unwrap_or(LARGEST_SUPPLY).min(LARGEST_SUPPLY) * MARGIN * seconds / 3_600.0 + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPECT: Quality = Quality::Suspect(Why::ImplausibleStep);

    #[test]
    fn an_index_that_starts_again_from_zero_is_good() {
        let mut index = Believed::first(999_999_998.0, 0);
        assert_eq!(index.judge(3.0, 2_000, Some(9_000.0)), Quality::Good);
        assert_eq!(index.judge(4.0, 4_000, Some(9_000.0)), Quality::Good);
    }

    #[test]
    fn an_index_that_goes_back_or_leaps_is_suspect_and_the_next_good_one_is_good() {
        let mut index = Believed::first(2_809_718.0, 0);
        assert_eq!(index.judge(2_809_817.0, 2_000, Some(6_900.0)), SUSPECT);
        assert_eq!(index.judge(2_809_719.0, 4_000, Some(6_900.0)), Quality::Good);
        assert_eq!(index.judge(2_809_718.0, 6_000, Some(6_900.0)), SUSPECT);
    }

    #[test]
    fn a_changed_meter_is_believed_after_three_values_that_agree() {
        let mut index = Believed::first(2_809_718.0, 0);
        let verdicts: Vec<_> = (1..=4).map(|n| index.judge(100.0 + n as f64, n * 2_000, None)).collect();
        assert_eq!(verdicts, [SUSPECT, SUSPECT, Quality::Good, Quality::Good]);
    }

    #[test]
    fn after_a_long_silence_the_energy_of_that_time_is_believed() {
        let mut index = Believed::first(1_000.0, 0);
        assert_eq!(index.judge(101_000.0, 24 * 3_600_000, Some(9_000.0)), Quality::Good, "100 kWh in a day");
        assert_eq!(index.judge(201_000.0, 24 * 3_600_000 + 60_000, Some(9_000.0)), SUSPECT, "100 kWh in a minute");
    }
}
