//! How long the card takes to make a commit safe: the last few hundred, for figures. Only the writer adds to it.

use std::{collections::VecDeque, time::Duration};

use crate::store::Syncs;

/// Commits that count; two hours of a quiet hall.
const LAST: usize = 256;

/// The last commits.
#[derive(Debug, Default)]
pub(super) struct Latency {
    count: u64,
    last: VecDeque<u32>,
}

impl Latency {
    /// A commit was made safe in so long.
    pub(super) fn took(&mut self, time: Duration) {
        self.count += 1;
        self.last.push_back(u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        if self.last.len() > LAST {
            self.last.pop_front();
        }
    }

    /// In figures.
    pub(super) fn syncs(&self) -> Syncs {
        let mut sorted: Vec<u32> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        // The smallest that so many hundredths of them do not exceed.
        let below = |hundredths: usize| {
            let place = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
            sorted.get(place).copied().unwrap_or(0)
        };
        Syncs { count: self.count, median_ms: below(50), most_ms: below(95), longest_ms: below(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_time_and_the_worst_are_those_of_the_last_commits() {
        let mut latency = Latency::default();
        assert_eq!(latency.syncs(), Syncs::default());
        latency.took(Duration::from_secs(60));
        assert_eq!(latency.syncs(), Syncs { count: 1, median_ms: 60_000, most_ms: 60_000, longest_ms: 60_000 });
        (1..=256).for_each(|ms| latency.took(Duration::from_millis(ms)));
        assert_eq!(latency.syncs(), Syncs { count: 257, median_ms: 128, most_ms: 244, longest_ms: 256 });
    }
}
