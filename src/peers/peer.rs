//! A peer of the configuration: what it may see, and what it has under way.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::peers::PeerSettings,
    consent::Consents,
    live::Live,
    reading::{Point, PointId, Sharing},
};

/// Long polls of one peer at once; one more ends the oldest, which is likely of a link that was lost unnoticed.
const POLLS_OF_ONE: usize = 4;
/// Pages of one peer on their way at once; one more ends the connection of the oldest, which is likely of a link that
/// was lost unnoticed. Pages are what a peer that never reads would fill the memory with.
const ANSWERS_OF_ONE: usize = 2;

/// One peer of the configuration.
pub(super) struct Peer {
    pub(super) settings: PeerSettings,
    /// What it may always see.
    open: Arc<HashSet<PointId>>,
    /// What it may see while somebody consents to it.
    personal: Vec<PointId>,
    /// Its long polls, the oldest first; each is ended by its token.
    polls: Mutex<VecDeque<CancellationToken>>,
    /// Its pages on their way, the oldest first: what fires once each is sent, and what ends its connection.
    answers: Mutex<VecDeque<(CancellationToken, CancellationToken)>>,
    /// Its turn at the card: one at a time, so that nobody waits behind a greedy one's queue.
    pub(super) turn: Arc<Semaphore>,
    /// Its turn at a day's file: one at a time, since each takes memory until its reader has it.
    pub(super) file: Arc<Semaphore>,
}

impl Peer {
    pub(super) fn new(settings: &PeerSettings, live: &Live) -> Self {
        let shared = live.points().filter(|point| settings.sharing.contains(&point.sharing));
        let (personal, open): (Vec<&Point>, Vec<&Point>) = shared.partition(|point| point.sharing == Sharing::Personal);
        Self {
            open: Arc::new(open.into_iter().map(|point| point.id.clone()).collect()),
            personal: personal.into_iter().map(|point| point.id.clone()).collect(),
            settings: settings.clone(),
            polls: Mutex::default(),
            answers: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            file: Arc::new(Semaphore::new(1)),
        }
    }

    /// What it may see now: a consent given or withdrawn counts from the next page.
    pub(super) fn points(&self, consents: &Consents) -> Arc<HashSet<PointId>> {
        let mut consented = self.personal.iter().filter(|point| may_see(&self.settings, point, consents)).peekable();
        if consented.peek().is_none() {
            return Arc::clone(&self.open);
        }
        Arc::new(self.open.iter().chain(consented).cloned().collect())
    }

    /// A token that ends a new poll: at the stop, or when there are newer ones enough.
    pub(super) fn begin_poll(&self, stop: &CancellationToken) -> DropGuard {
        let token = stop.child_token();
        let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        polls.retain(|poll| !poll.is_cancelled());
        if polls.len() >= POLLS_OF_ONE
            && let Some(oldest) = polls.pop_front()
        {
            oldest.cancel();
        }
        polls.push_back(token.clone());
        // Dropped with the poll, whatever ends it, so that it no longer counts.
        token.drop_guard()
    }

    /// A guard to be dropped once a new page is sent, whose connection `end` ends.
    pub(super) fn begin_answer(&self, end: &CancellationToken) -> DropGuard {
        let sent = CancellationToken::new();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(sent, _)| !sent.is_cancelled());
        if answers.len() >= ANSWERS_OF_ONE
            && let Some((_, end)) = answers.pop_front()
        {
            end.cancel();
        }
        answers.push_back((sent.clone(), end.clone()));
        sent.drop_guard()
    }
}

/// By the ethical charter: a personal point leaves only with a recorded consent, in the configuration or on the panel,
/// that nobody has withdrawn since.
fn may_see(peer: &PeerSettings, personal: &PointId, consents: &Consents) -> bool {
    consents.allow(personal, &peer.name, peer.consent.is_some())
}
