//! When a device was last understood, and what to say of it when that is too long ago.

use std::time::Duration;

/// Nothing is said of a device that was away for less.
const SHORTEST: Duration = Duration::from_secs(30);
/// So many of its own intervals a device may miss.
const MISSED: u32 = 3;

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Heard, or not yet away for long.
    Fine,
    /// Nothing came for so long.
    Silent(Duration),
    /// Something comes and cannot be understood: the last of it.
    Unreadable(String),
}

/// What was heard of one device, on the gateway's clock.
#[derive(Debug)]
pub(super) struct Hearing {
    limit_ms: u64,
    may_be_silent: bool,
    heard_ms: u64,
    nonsense: Option<Nonsense>,
}

#[derive(Debug)]
struct Nonsense {
    first_ms: u64,
    last_ms: u64,
    text: String,
}

impl Hearing {
    /// A device that speaks every `pace`, or, without one, when it likes.
    pub(super) fn new(pace: Option<Duration>, now_ms: u64) -> Self {
        let limit = pace.map_or(SHORTEST, |pace| pace.saturating_mul(MISSED).max(SHORTEST));
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self { limit_ms, may_be_silent: pace.is_some(), heard_ms: now_ms, nonsense: None }
    }

    /// It said something understandable.
    pub(super) fn understood(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.nonsense = None;
    }

    /// It answered, without a usable value.
    pub(super) fn answered(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// It said something that is not understandable.
    pub(super) fn not_understood(&mut self, now_ms: u64, text: &str) {
        let first_ms = self.nonsense.as_ref().map_or(now_ms, |nonsense| nonsense.first_ms);
        self.nonsense = Some(Nonsense { first_ms, last_ms: now_ms, text: text.to_owned() });
    }

    /// How it is now.
    pub(super) fn verdict(&self, now_ms: u64) -> Verdict {
        let since = |ms: u64| now_ms.saturating_sub(ms);
        let lasting = |nonsense: &&Nonsense| {
            let shortest = u64::try_from(SHORTEST.as_millis()).unwrap_or(u64::MAX);
            let recent = !self.may_be_silent || since(nonsense.last_ms) < self.limit_ms;
            recent && nonsense.last_ms.saturating_sub(nonsense.first_ms) >= shortest
        };
        if let Some(nonsense) = self.nonsense.as_ref().filter(lasting) {
            return Verdict::Unreadable(nonsense.text.clone());
        }
        let last = self.nonsense.as_ref().map_or(self.heard_ms, |nonsense| nonsense.last_ms.max(self.heard_ms));
        if self.may_be_silent && since(last) >= self.limit_ms {
            return Verdict::Silent(Duration::from_millis(since(last)));
        }
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_silent_after_three_intervals_and_never_before_thirty_seconds() {
        let slow = Hearing::new(Some(Duration::from_secs(60)), 0);
        assert_eq!(slow.verdict(179_999), Verdict::Fine);
        assert_eq!(slow.verdict(180_000), Verdict::Silent(Duration::from_secs(180)));
        let fast = Hearing::new(Some(Duration::from_secs(1)), 0);
        assert_eq!(fast.verdict(29_999), Verdict::Fine);
        assert_eq!(fast.verdict(30_000), Verdict::Silent(Duration::from_secs(30)));
    }

    #[test]
    fn a_device_that_speaks_when_it_likes_is_never_silent() {
        assert_eq!(Hearing::new(None, 0).verdict(u64::MAX), Verdict::Fine);
    }

    #[test]
    fn nonsense_is_told_once_it_lasts_and_is_forgotten_at_the_next_good_value() {
        let mut hearing = Hearing::new(Some(Duration::from_secs(10)), 0);
        hearing.not_understood(1_000, "noise");
        assert_eq!(hearing.verdict(20_000), Verdict::Fine);
        hearing.not_understood(31_000, "more noise");
        assert_eq!(hearing.verdict(31_000), Verdict::Unreadable("more noise".into()));
        hearing.understood(32_000);
        assert_eq!(hearing.verdict(32_000), Verdict::Fine);
    }

    #[test]
    fn one_garbled_answer_between_good_ones_is_nothing() {
        let mut hearing = Hearing::new(Some(Duration::from_secs(10)), 0);
        for round in 0..100 {
            hearing.understood(round * 10_000);
            hearing.not_understood(round * 10_000 + 5_000, "CRC");
            assert_eq!(hearing.verdict(round * 10_000 + 9_999), Verdict::Fine);
        }
    }

    #[test]
    fn nonsense_that_stops_becomes_silence() {
        let mut hearing = Hearing::new(Some(Duration::from_secs(10)), 0);
        hearing.not_understood(0, "noise");
        hearing.not_understood(40_000, "noise");
        assert_eq!(hearing.verdict(70_000), Verdict::Silent(Duration::from_secs(30)));
    }
}
