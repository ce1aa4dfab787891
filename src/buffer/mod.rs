//! Readings on disk until someone has them, and small records for as long as they are wanted. Nothing else names sled.
//!
//! ```text
//! append ─► writer ─► head file: a record and one sync per commit ─► a full slot is sealed as a block into a segment
//!                                                                    (sled, ≤ 64 MB each; the oldest folder goes)
//! page, history ─► segments and head, in order of number; gaps told in their place
//! ```
//!
//! On the card, below [`Settings::directory`]: `marker` (whose store, which start, how far numbers may have gone),
//! `head`, `segments/<first number>/`, `keep/` (records), `damaged/<date>-…` (set aside). What is accepted is on the
//! card; what is lost is told.

pub mod block;
mod bytes;
mod column;
mod current;
mod database;
mod desk;
mod erase;
mod gaps;
pub mod head;
mod inner;
mod keeping;
mod kinds;
mod latency;
mod marker;
mod open;
mod opener;
mod ring;
mod rollup;
mod room;
mod salvage;
mod segment;
mod shelf;
mod span;
#[cfg(test)]
mod tests_load;
mod thin;
mod times;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::{error, warn};

use self::{current::Current, inner::locked, writer::Writer};
pub use self::{ring::RING, room::Audience};
use crate::{
    clock::{Change, Clock, Note, Sample, Stamp},
    condition::{Board, Code},
    reading::{Batch, NotAccepted},
    store::{Archive, Keep, StoreError},
};

/// How often a writer that should end is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The last commit may keep a stop waiting so long.
const LAST_TRY: Duration = Duration::from_millis(3500);

/// Where and how readings are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The store's own folder; created when it is not there.
    pub directory: PathBuf,
    /// Bytes on the card, all included. Below 24 MiB counts as 24 MiB.
    pub size_limit: u64,
    /// Polled readings are on the card after so long at most; what a power cut can cost.
    pub commit_within: Duration,
}

/// Why there is no store on the card.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The folder cannot be created, written or locked.
    #[error("the store's folder {} cannot be used", .directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The card refuses what opening needs.
    #[error("the store cannot be opened for now")]
    Records(#[from] StoreError),
}

/// How a finding begins that is about damaged small records: some of them may be lost.
pub const RECORDS: &str = "small records";

/// Something noticed while opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The condition to raise; `None` when a line in the log is enough, as after an ordinary power cut.
    pub code: Option<Code>,
    /// What, in English.
    pub detail: String,
}

/// An opened store and what it remembers.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub buffer: Buffer,
    /// The number of this start, on the card before it is used.
    pub boot: u32,
    /// The clock's samples of earlier starts.
    pub samples: Vec<Sample>,
    /// All that is kept of the clock of earlier starts, samples included.
    pub notes: Vec<Note>,
    /// The newest stamp among what is stored.
    pub newest: Option<Stamp>,
    /// Wall time of the newest stored reading, in milliseconds since 1970, as far as it can be told.
    pub newest_ms: Option<i64>,
    /// What was damaged, salvaged, lost.
    pub findings: Vec<Finding>,
    /// Why the card cannot be written, when it cannot: what can be is served, and the store moves to the card by itself.
    pub unusable: Option<String>,
}

/// Who works on what waits.
enum Thread {
    Ready(Box<Writer>),
    Running(JoinHandle<()>),
    Ended,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Buffer {
    current: Arc<Current>,
    commit_within: Duration,
    started: Instant,
    thread: Arc<Mutex<Thread>>,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("directory", &self.current.inner().directory).finish_non_exhaustive()
    }
}

impl Buffer {
    fn new(current: Arc<Current>, writer: Writer, commit_within: Duration) -> Self {
        let thread = Arc::new(Mutex::new(Thread::Ready(Box::new(writer))));
        Self { current, commit_within, started: Instant::now(), thread }
    }

    /// Tells who may pull what, which decides what goes first when the card is full. Before [`Buffer::start`].
    pub fn know_audience(&self, audience: Audience) {
        self.current.know_audience(audience);
    }

    /// Starts the writer, with the gateway's clock to date by and its board to tell what goes wrong. Once.
    pub fn start(&self, clock: Clock, board: Board) {
        self.current.start(&clock, &board);
        let mut thread = locked(&self.thread);
        *thread = match std::mem::replace(&mut *thread, Thread::Ended) {
            Thread::Ready(writer) => {
                let started = self.started;
                let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(started));
                match spawned {
                    Ok(handle) => Thread::Running(handle),
                    Err(why) => {
                        error!(%why, "Writer of the store not started");
                        board.raise(Code::UnitGaveUp, inner::SUBJECT, why.to_string());
                        Thread::Ended
                    }
                }
            }
            other => other,
        };
    }

    /// Hands readings over; waits while the card is slow, not while it refuses or hangs. The batch's `accepted` is told
    /// once they are on the card.
    pub async fn append(&self, batch: Batch) {
        let ring = self.current.ring();
        if ring.is_ending() {
            return stopping(batch);
        }
        ring.wait_for_room().await;
        ring.take(batch, self.started.elapsed(), self.commit_within);
    }

    /// Commits what waits without waiting for its time, and returns when that was tried.
    pub async fn commit(&self) {
        let (asked, answer) = oneshot::channel();
        self.current.ring().ask(asked);
        let _ = answer.await;
    }

    /// Commits everything and ends the writer, unless the card does not answer: that is not waited for long. What is
    /// appended afterwards is refused; reading goes on.
    pub async fn close(&self) {
        self.current.ring().end();
        let thread = std::mem::replace(&mut *locked(&self.thread), Thread::Ended);
        let started = self.started;
        let end = move || match thread {
            Thread::Running(handle) => {
                if handle.join().is_err() {
                    error!("Writer of the store panicked");
                }
            }
            // Never started: what was appended is still to be written.
            Thread::Ready(writer) => writer.run(started),
            Thread::Ended => {}
        };
        let ended = tokio::task::spawn_blocking(end);
        tokio::pin!(ended);
        while tokio::time::timeout(LOOK, &mut ended).await.is_err() {
            if self.current.ring().busy_for().is_some_and(|busy| busy >= LAST_TRY) {
                warn!(
                    readings = self.current.ring().count(),
                    "The card does not answer; what it was to take is not stored"
                );
                self.current.ring().refuse_those_who_wait("the gateway is stopping");
                return;
            }
        }
    }

    /// Looks whether the card hangs: then it is told, and nobody is kept waiting for it. To be called every second.
    pub fn look(&self) {
        self.current.look();
    }

    /// For how long the card has not answered, when that is longer than a card may take.
    pub fn silent_for(&self) -> Option<Duration> {
        self.current.silent_for()
    }

    /// Keeps a sample of the clock; on the card when it returns.
    ///
    /// # Errors
    /// When the card refuses the write.
    pub fn remember(&self, sample: Sample) -> Result<(), StoreError> {
        self.change(Change::Keep(Note::Sample(sample)))
    }

    /// Keeps what is new of the clock, or lets go of what is no longer needed; on the card when it returns.
    ///
    /// # Errors
    /// When the card refuses the write.
    pub fn change(&self, change: Change) -> Result<(), StoreError> {
        self.current.change(change)
    }

    /// The readings.
    pub fn archive(&self) -> Arc<dyn Archive> {
        Arc::clone(&self.current) as Arc<dyn Archive>
    }

    /// The records.
    pub fn keep(&self) -> Arc<dyn Keep> {
        Arc::clone(&self.current) as Arc<dyn Keep>
    }
}

fn stopping(batch: Batch) {
    if let Some(accepted) = batch.accepted {
        let _ = accepted.send(Err(NotAccepted("the gateway is stopping".to_owned())));
    }
}
