//! Which peers have not pulled for too long. A peer's absence harms nothing here; somebody should know of it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    condition::{Board, Code},
};

/// When each peer was last heard. Counted from the start for those not heard yet.
pub(crate) struct Absence {
    clock: Clock,
    board: Board,
    after: Duration,
    heard_ms: Mutex<HashMap<String, u64>>,
}

impl Absence {
    /// All peers are given `after` from now on.
    pub(crate) fn new<'a>(
        clock: Clock,
        board: Board,
        after: Duration,
        peers: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let now = clock.now().mono_ms;
        let heard_ms = Mutex::new(peers.into_iter().map(|peer| (peer.to_owned(), now)).collect());
        Self { clock, board, after, heard_ms }
    }

    /// A peer pulls.
    pub(crate) fn heard(&self, peer: &str) {
        let now = self.clock.now().mono_ms;
        self.lock().insert(peer.to_owned(), now);
        self.board.close(Code::PeerAbsent, peer);
    }

    /// Raises the condition of those not heard for too long.
    pub(crate) fn check(&self) {
        let now = self.clock.now().mono_ms;
        let absent = |heard: u64| u128::from(now.saturating_sub(heard)) >= self.after.as_millis();
        for (peer, _) in self.lock().iter().filter(|(_, heard)| absent(**heard)) {
            self.board.raise(Code::PeerAbsent, peer, format!("has not pulled for {}", hours(self.after)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.heard_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hours(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds < 7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{HeldTime, Source};

    #[test]
    fn a_peer_not_heard_for_a_day_is_absent_until_it_pulls() {
        let time = HeldTime::at(0, Source::Unknown);
        let clock = Clock::new(1, time.clone(), []);
        let board = Board::new(clock.clone());
        let absence = Absence::new(clock, board.clone(), Duration::from_secs(86_400), ["agglo", "dept"]);
        time.advance(86_399_000);
        absence.heard("dept");
        absence.check();
        assert!(board.open().is_empty());
        time.advance(1_000);
        absence.check();
        let told: Vec<_> = board.open().into_iter().map(|c| (c.code, c.subject, c.detail)).collect();
        assert_eq!(told, [(Code::PeerAbsent, "agglo".to_owned(), "has not pulled for 24 h".to_owned())]);
        absence.heard("agglo");
        assert!(board.open().is_empty());
    }
}
