//! How long is waited before the next try. Nobody knows how many others wait for the same network to return, so a pause
//! is drawn at random from all of the time there is ("full jitter"), and what a gateway asks for is obeyed.

use std::time::Duration;

use super::LinkError;

/// How failures are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest pause after a first failure; doubled after each further one. A pause is drawn between nothing and this.
    pub first: Duration,
    /// Longest pause of our own.
    pub longest: Duration,
    /// Longest pause that is made because the gateway asks for it (`Retry-After`); it is then asked again.
    pub asked: Duration,
    /// Failures in a row that end a `once`; without `once` it never gives up.
    pub tries: u32,
    /// Longest silence of the gateway, on top of the wait it was asked for.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(60),
            asked: Duration::from_secs(6 * 3_600),
            tries: 10,
            silence: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// The pause after so many failures in a row.
    pub(super) fn pause(&self, failures: u32, failure: &LinkError) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        let drawn = doubled.mul_f64(rand::random_range(0.0..=1.0));
        match failure {
            LinkError::Later { after: Some(after), .. } => drawn.max(self.obeyed(*after)),
            _ => drawn,
        }
    }

    /// What is made of a pause that the gateway asks for.
    pub(super) fn obeyed(&self, asked: Duration) -> Duration {
        asked.min(self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_all_of_a_time_that_grows_to_its_longest() {
        let patience = Patience::default();
        let failure = LinkError::Silent(Duration::ZERO);
        for (failures, longest) in [(1, patience.first), (3, patience.first * 4), (u32::MAX, patience.longest)] {
            let drawn: Vec<_> = (0..400).map(|_| patience.pause(failures, &failure)).collect();
            assert!(drawn.iter().all(|pause| *pause <= longest), "{failures}");
            for quarter in 0..4 {
                let (from, to) = (longest * quarter / 4, longest * (quarter + 1) / 4);
                assert!(drawn.iter().any(|pause| (from..=to).contains(pause)), "{failures}: none in quarter {quarter}");
            }
        }
    }

    #[test]
    fn what_the_gateway_asks_for_is_obeyed_within_reason() {
        let patience = Patience::default();
        let later = |after| LinkError::Later { status: 429, code: String::new(), after: Some(after) };
        let asked = Duration::from_secs(20);
        assert_eq!(patience.pause(1, &later(asked)), asked);
        assert_eq!(patience.pause(1, &later(Duration::from_secs(3_000))), Duration::from_secs(3_000));
        assert_eq!(patience.pause(1, &later(Duration::MAX)), patience.asked);
    }
}
