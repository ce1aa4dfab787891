//! Units that fall alone: each is built by a factory, restarted with back-off, given up after five falls in a
//! minute, and stopped in order.
//!
//! A unit is a port, a listener, the buffer's writer, the player. What a unit does is not known here.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::condition::{Board, Code};

/// Any error a unit may fall with.
pub type Fall = Box<dyn std::error::Error + Send + Sync>;

/// Falls within [`WINDOW`] after which a unit is given up.
const FALLS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The order in which units are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Drivers and ports: nothing new comes in.
    Inputs,
    /// Loudspeakers: relays released.
    Announce,
    /// The writer of the buffer: everything accepted is on the card.
    Store,
    /// The pull listener.
    Peers,
    /// The panel.
    Panel,
    /// The broker.
    Broker,
}

impl Stage {
    /// In the order they stop.
    pub const ALL: [Self; 6] = [Self::Inputs, Self::Announce, Self::Store, Self::Peers, Self::Panel, Self::Broker];

    /// What it may take of the whole time of a stop, in tenths, so that a stuck input leaves time for the store.
    fn share(self) -> u32 {
        match self {
            Self::Inputs | Self::Announce => 2,
            _ => 10,
        }
    }
}

/// How a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// At work.
    Running = 0,
    /// Fell; waits before it is tried again.
    Pausing = 1,
    /// Fell too often; waits for a person.
    GaveUp = 2,
    /// Ended as it should.
    Stopped = 3,
}

impl Health {
    fn from_u8(n: u8) -> Self {
        [Self::Running, Self::Pausing, Self::GaveUp, Self::Stopped][usize::from(n.min(3))]
    }
}

struct Unit {
    name: String,
    stage: Stage,
    health: Arc<AtomicU8>,
    task: Option<JoinHandle<()>>,
}

/// Keeps units running. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    board: Board,
    stops: Arc<[CancellationToken; 6]>,
    units: Arc<Mutex<Vec<Unit>>>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.health()).finish()
    }
}

impl Supervisor {
    /// A supervisor that shows on `board` what it gives up.
    pub fn new(board: Board) -> Self {
        Self { board, stops: Arc::default(), units: Arc::default() }
    }

    /// Fires when units of `stage` must end.
    pub fn stop_of(&self, stage: Stage) -> CancellationToken {
        self.stops[stage as usize].clone()
    }

    /// Starts a unit. `build` is called again after each fall; its future is given the token that asks it to end.
    pub fn unit<B, F>(&self, stage: Stage, name: impl Into<String>, mut build: B)
    where
        B: FnMut(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), Fall>> + Send + 'static,
    {
        let name = name.into();
        let health = Arc::new(AtomicU8::new(Health::Running as u8));
        let stop = self.stop_of(stage);
        let board = self.board.clone();
        let task = tokio::spawn(keep_up(board, name.clone(), stop, Arc::clone(&health), move |token| {
            // Built inside the guarded future, so that a factory that panics is a fall too.
            let unit = std::panic::catch_unwind(AssertUnwindSafe(|| build(token)));
            async move {
                match unit {
                    Ok(future) => AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(|p| Err(panicked(p))),
                    Err(panic) => Err(panicked(panic)),
                }
            }
        }));
        self.lock().push(Unit { name, stage, health, task: Some(task) });
    }

    /// How each unit is.
    pub fn health(&self) -> Vec<(String, Health)> {
        self.lock().iter().map(|u| (u.name.clone(), Health::from_u8(u.health.load(Ordering::Relaxed)))).collect()
    }

    /// Stops stage after stage, within `limit` in all. Names what did not stop.
    pub async fn stop(&self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let mut stubborn = Vec::new();
        for stage in Stage::ALL {
            self.stop_of(stage).cancel();
            let until = deadline.min(Instant::now() + limit * stage.share() / 10);
            for (name, mut task) in self.take(stage) {
                if tokio::time::timeout_at(until, &mut task).await.is_err() {
                    warn!(unit = name, "Unit did not stop in time");
                    task.abort();
                    stubborn.push(name);
                }
            }
        }
        stubborn
    }

    fn take(&self, stage: Stage) -> Vec<(String, JoinHandle<()>)> {
        let mut units = self.lock();
        let of_stage = units.iter_mut().filter(|unit| unit.stage == stage);
        of_stage.filter_map(|unit| Some((unit.name.clone(), unit.task.take()?))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Unit>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Fall {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default()).into()
}

async fn keep_up<B, F>(board: Board, name: String, stop: CancellationToken, health: Arc<AtomicU8>, mut build: B)
where
    B: FnMut(CancellationToken) -> F + Send,
    F: Future<Output = Result<(), Fall>> + Send,
{
    let set = |h: Health| health.store(h as u8, Ordering::Relaxed);
    let mut falls = VecDeque::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let end = build(stop.clone()).await;
        if stop.is_cancelled() {
            break;
        }
        let Err(fall) = end else {
            info!(unit = name, "Unit ended");
            break;
        };
        let why = chain(fall.as_ref());
        warn!(unit = name, why, "Unit fell");
        let now = Instant::now();
        falls.push_back(now);
        falls.retain(|fell: &Instant| now.duration_since(*fell) < WINDOW);
        if falls.len() >= FALLS {
            set(Health::GaveUp);
            error!(unit = name, why, "Unit given up");
            board.raise(Code::UnitGaveUp, &name, why);
            stop.cancelled().await;
            break;
        }
        if now.duration_since(started) > WINDOW {
            pause = FIRST_PAUSE;
        }
        set(Health::Pausing);
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        set(Health::Running);
    }
    set(Health::Stopped);
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, HeldTime, Source};

    fn supervisor() -> (Supervisor, Board) {
        let board = Board::new(Clock::new(1, HeldTime::at(0, Source::Unknown), []));
        (Supervisor::new(board.clone()), board)
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_keeps_falling_is_given_up_and_the_others_go_on() {
        let (supervisor, board) = supervisor();
        supervisor.unit(Stage::Inputs, "bad", |_| async { Err("no adapter".into()) });
        supervisor.unit(Stage::Inputs, "good", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        let mut changes = board.changes();
        changes.changed().await.expect("a condition");
        assert_eq!(board.open()[0].detail, "no adapter");
        assert_eq!(supervisor.health(), [("bad".to_owned(), Health::GaveUp), ("good".to_owned(), Health::Running)]);
        assert!(supervisor.stop(Duration::from_secs(10)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_fall_and_the_unit_rises_again() {
        let (supervisor, board) = supervisor();
        let (told, mut tries) = tokio::sync::mpsc::unbounded_channel();
        let mut count = 0;
        supervisor.unit(Stage::Inputs, "clumsy", move |stop| {
            count += 1;
            let (told, count) = (told.clone(), count);
            async move {
                told.send(count)?;
                assert!(count > 2, "stumbled");
                stop.cancelled().await;
                Ok(())
            }
        });
        for expected in 1..=3 {
            assert_eq!(tries.recv().await, Some(expected));
        }
        assert!(board.open().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_does_not_stop_is_named_and_the_stop_ends_in_time() {
        let (supervisor, _) = supervisor();
        supervisor.unit(Stage::Inputs, "stubborn input", |_| std::future::pending());
        supervisor.unit(Stage::Store, "stubborn store", |_| std::future::pending());
        let begun = Instant::now();
        assert_eq!(supervisor.stop(Duration::from_secs(10)).await, ["stubborn input", "stubborn store"]);
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_input_leaves_the_store_most_of_the_time() {
        let (supervisor, _) = supervisor();
        supervisor.unit(Stage::Inputs, "stuck", |_| std::future::pending());
        supervisor.unit(Stage::Store, "store", |stop| async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(7)).await;
            Ok(())
        });
        tokio::task::yield_now().await;
        assert_eq!(supervisor.stop(Duration::from_secs(10)).await, ["stuck"], "the store had its seven seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn stages_stop_in_order() {
        let (supervisor, _) = supervisor();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for stage in [Stage::Broker, Stage::Inputs, Stage::Store] {
            let told = told.clone();
            supervisor.unit(stage, format!("{stage:?}"), move |stop| {
                let told = told.clone();
                async move {
                    stop.cancelled().await;
                    told.send(stage)?;
                    Ok(())
                }
            });
        }
        tokio::task::yield_now().await;
        supervisor.stop(Duration::from_secs(10)).await;
        assert_eq!(
            [order.recv().await, order.recv().await, order.recv().await],
            [Some(Stage::Inputs), Some(Stage::Store), Some(Stage::Broker)]
        );
    }
}
