//! When a peer is asked to come back (`Retry-After`), so that the servers and gateways of a region do not all meet at
//! the same second: when a mobile network returns, 150 gateways are reachable at once.
//!
//! Each gateway has a share of its own, always the same, in the time over which they are spread; a little chance on top
//! parts the peers of one gateway.

use std::time::Duration;

/// A gateway's own share, of its store's identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comeback(u32);

/// Answers are spread over so long, in seconds: after a refusal, after the end, at the beginning of a month.
const BUSY: (u64, u64, u64) = (5, 16, 10);
const END: (u64, u64, u64) = (30, 61, 9);
const MONTH: (u64, u64, u64) = (0, 3_600, 60);
/// When nobody knows how long the month still lasts.
const SOME_TIME: Duration = Duration::from_secs(6 * 3_600);

impl Comeback {
    pub(crate) fn of(identity: &str) -> Self {
        Self(crc32fast::hash(identity.as_bytes()))
    }

    /// Too much at once, or something that will pass: 5 to 30 s.
    pub(crate) fn busy(self) -> u64 {
        self.spread(BUSY)
    }

    /// There is no more for now, and the peer did not want to wait for it here: 30 to 99 s.
    pub(crate) fn end(self) -> u64 {
        self.spread(END)
    }

    /// The month's budget is spent: within the first hour of the next, in seconds.
    pub(crate) fn month(self, left: Option<Duration>) -> u64 {
        // A second begun is waited for too.
        left.unwrap_or(SOME_TIME).as_secs() + 1 + self.spread(MONTH)
    }

    /// The least, the gateway's share of a time, and chance.
    fn spread(self, (least, share, chance): (u64, u64, u64)) -> u64 {
        least + u64::from(self.0) % share + rand::random_range(0..=chance)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_hundred_and_fifty_gateways_do_not_come_back_together() {
        let gateways: Vec<_> = (0..150).map(|n| Comeback::of(&format!("store of box {n}"))).collect();
        let busiest = |when: &dyn Fn(&Comeback) -> u64| {
            let mut seconds = BTreeMap::<u64, usize>::new();
            gateways.iter().for_each(|gateway| *seconds.entry(when(gateway)).or_default() += 1);
            seconds.into_values().max().unwrap_or(0)
        };
        // 150 over 70 s are two a second when they are spread evenly.
        assert!(busiest(&|gateway| gateway.end()) <= 12, "{}", busiest(&|gateway| gateway.end()));
        assert!(busiest(&|gateway| gateway.month(Some(Duration::ZERO))) <= 4);
    }

    #[test]
    fn a_gateway_keeps_its_share_and_the_bounds_hold() {
        for n in 0..500 {
            let gateway = Comeback::of(&n.to_string());
            let (first, second) = (gateway.end(), gateway.end());
            assert!(first.abs_diff(second) <= 9, "{first} {second}");
            assert!((5..=30).contains(&gateway.busy()) && (30..=99).contains(&first));
            let month = gateway.month(Some(Duration::from_secs(86_400)));
            assert!((86_401..86_401 + 3_660).contains(&month), "{month}");
            assert!(gateway.month(None) > 3_600);
        }
    }
}
