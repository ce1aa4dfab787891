//! Slows down whoever guesses: each failure makes the next try wait longer, and nobody is shut out for ever.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use crate::clock::Clock;

/// Failures that cost nothing: people mistype.
const FREE: u32 = 3;
/// The longest wait of an address.
const ADDRESS_LONGEST_MS: u64 = 15 * 60_000;
/// The longest wait of an account: short, so that nobody can keep its owner out.
const ACCOUNT_LONGEST_MS: u64 = 30_000;
/// Failures are forgotten after so long without another.
const FORGET_MS: u64 = 3_600_000;
/// How many guessers are remembered; the one that was quiet longest goes first.
const GUESSERS: usize = 2_000;

/// Whose failures are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Guesser {
    /// By address; of IPv6 the first 64 bits, which is what one household has.
    Address(u128),
    /// By the account that is tried.
    Account(String),
}

impl Guesser {
    /// The one at this address.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
        })
    }

    fn longest_ms(&self) -> u64 {
        match self {
            Self::Address(_) => ADDRESS_LONGEST_MS,
            Self::Account(_) => ACCOUNT_LONGEST_MS,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_ms: u64,
}

/// Remembers failures, in memory and on the monotonic clock.
#[derive(Debug)]
pub(crate) struct Patience {
    clock: Clock,
    failures: Mutex<HashMap<Guesser, Failures>>,
}

impl Patience {
    /// Nobody has failed yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, failures: Mutex::default() }
    }

    /// Lets a try through and counts it as failed until [`Patience::forgive`] is called, so that tries made at the
    /// same time count too. Otherwise tells how many seconds to wait.
    pub(crate) fn admit(&self, guessers: &[Guesser]) -> Result<(), u64> {
        let now = self.clock.now().mono_ms;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, failed| now.saturating_sub(failed.last_ms) < FORGET_MS);
        let waits = guessers.iter().filter_map(|guesser| {
            let failed = failures.get(guesser)?;
            (failed.last_ms + delay_ms(failed.count, guesser.longest_ms())).checked_sub(now).filter(|ms| *ms > 0)
        });
        if let Some(ms) = waits.max() {
            return Err(ms.div_ceil(1_000));
        }
        for guesser in guessers {
            make_room(&mut failures);
            let failed = failures.entry(guesser.clone()).or_insert(Failures { count: 0, last_ms: now });
            *failed = Failures { count: failed.count.saturating_add(1), last_ms: now };
        }
        Ok(())
    }

    /// It was the right person.
    pub(crate) fn forgive(&self, guessers: &[Guesser]) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for guesser in guessers {
            failures.remove(guesser);
        }
    }
}

/// Nothing for the first few, then 1, 2, 4… seconds.
fn delay_ms(count: u32, longest_ms: u64) -> u64 {
    let Some(doublings) = count.checked_sub(FREE) else { return 0 };
    if doublings == 0 {
        return 0;
    }
    1_000_u64.saturating_mul(1 << (doublings - 1).min(20)).min(longest_ms)
}

fn make_room(failures: &mut HashMap<Guesser, Failures>) {
    if failures.len() < GUESSERS {
        return;
    }
    let quietest = failures.iter().min_by_key(|(_, failed)| failed.last_ms).map(|(guesser, _)| guesser.clone());
    if let Some(quietest) = quietest {
        failures.remove(&quietest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{HeldTime, Source};

    fn patience() -> (Patience, Arc<HeldTime>) {
        let time = HeldTime::at(0, Source::Unknown);
        (Patience::new(Clock::new(1, time.clone(), [])), time)
    }

    #[test]
    fn each_failure_makes_the_next_try_wait_longer_up_to_a_limit() {
        let (patience, time) = patience();
        let who = [Guesser::Account("jeanne".into())];
        let mut waits = Vec::new();
        for _ in 0..12 {
            while let Err(seconds) = patience.admit(&who) {
                waits.push(seconds);
                time.advance(seconds * 1_000);
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn the_right_person_starts_afresh_and_time_forgives() {
        let (patience, time) = patience();
        let who = [Guesser::at("192.0.2.1".parse().expect("an address"))];
        let exhaust = || while patience.admit(&who).is_ok() {};
        exhaust();
        patience.forgive(&who);
        assert_eq!(patience.admit(&who), Ok(()));
        exhaust();
        time.advance(FORGET_MS);
        assert_eq!(patience.admit(&who), Ok(()));
    }

    #[test]
    fn an_ipv6_household_is_one_guesser() {
        let at = |text: &str| Guesser::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }

    #[test]
    fn a_flood_of_guessers_stays_bounded() {
        let (patience, time) = patience();
        for n in 0..5_000_u32 {
            time.advance(1);
            let _ = patience.admit(&[Guesser::Account(n.to_string())]);
        }
        assert_eq!(patience.failures.lock().expect("not poisoned").len(), GUESSERS);
    }
}
