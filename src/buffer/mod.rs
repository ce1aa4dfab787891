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
mod database;
mod erase;
mod gaps;
pub mod head;
mod inner;
mod keeping;
mod marker;
mod open;
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
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use self::{
    inner::{Inner, locked},
    writer::{Message, Writer},
};
pub use self::{room::Audience, writer::RING};
use crate::{
    clock::{Change, Clock, Note, Sample, Stamp},
    condition::{Board, Code},
    reading::{Batch, NotAccepted},
    store::{Archive, Keep, StoreError},
};

/// Batches on their way to the writer; whoever brings more waits.
const DEPTH: usize = 64;

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
}

/// Who works on the store's messages.
enum Thread {
    Ready(Box<Writer>, mpsc::Receiver<Message>),
    Running(JoinHandle<()>),
    Ended,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
    messages: Arc<mpsc::SyncSender<Message>>,
    room: Arc<Semaphore>,
    thread: Arc<Mutex<Thread>>,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("directory", &self.inner.directory).finish_non_exhaustive()
    }
}

impl Buffer {
    fn new(inner: Arc<Inner>, writer: Writer) -> Self {
        // Room for every batch that holds a permit, and for what is asked besides.
        let (messages, heard) = mpsc::sync_channel(2 * DEPTH);
        let thread = Thread::Ready(Box::new(writer), heard);
        let messages = Arc::new(messages);
        let _ = inner.room.writer.set(Arc::downgrade(&messages));
        Self { inner, messages, room: Arc::new(Semaphore::new(DEPTH)), thread: Arc::new(Mutex::new(thread)) }
    }

    /// Tells who may pull what, which decides what goes first when the card is full. Before [`Buffer::start`].
    pub fn know_audience(&self, audience: Audience) {
        self.inner.room.know(audience);
    }

    /// Starts the writer, with the gateway's clock to date by and its board to tell what goes wrong. Once.
    pub fn start(&self, clock: Clock, board: Board) {
        *self.inner.clock.write().unwrap_or_else(PoisonError::into_inner) = clock;
        let _ = self.inner.board.set(board.clone());
        let mut thread = locked(&self.thread);
        *thread = match std::mem::replace(&mut *thread, Thread::Ended) {
            Thread::Ready(writer, messages) => {
                let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&messages));
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

    /// Hands readings over; waits while the writer is behind. The batch's `accepted` is told once they are on the card.
    pub async fn append(&self, batch: Batch) {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let message = match permit {
            Ok(permit) => Message::Batch(batch, permit),
            Err(_closed) => return stopping(batch),
        };
        // A permit stands for a place in the channel, so this does not block.
        if let Err(
            mpsc::TrySendError::Full(Message::Batch(batch, _))
            | mpsc::TrySendError::Disconnected(Message::Batch(batch, _)),
        ) = self.messages.try_send(message)
        {
            stopping(batch);
        }
    }

    /// Commits what waits without waiting for its time, and returns when that was tried.
    pub async fn commit(&self) {
        let (asked, answer) = oneshot::channel();
        if self.messages.try_send(Message::Commit(asked)).is_ok() {
            let _ = answer.await;
        }
    }

    /// Commits everything and ends the writer. What is appended afterwards is refused; reading goes on.
    pub async fn close(&self) {
        self.room.close();
        let thread = std::mem::replace(&mut *locked(&self.thread), Thread::Ended);
        let messages = self.messages.clone();
        let end = move || match thread {
            Thread::Running(handle) => {
                let _ = messages.send(Message::Close);
                if handle.join().is_err() {
                    error!("Writer of the store panicked");
                }
            }
            // Never started: what was appended is still to be written.
            Thread::Ready(writer, heard) => {
                drop(messages.try_send(Message::Close));
                writer.run(&heard);
            }
            Thread::Ended => {}
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }

    /// Keeps a sample of the clock; on the card when it returns. Reads and writes the card.
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
        let note = match change {
            Change::Keep(note) => note,
            Change::Forget(sample) => Note::Sample(sample),
        };
        self.inner.write().notes.retain(|known| *known != note);
        let keep = matches!(change, Change::Keep(_));
        if keep {
            self.inner.write().notes.push(note);
        }
        let Some(own) = &self.inner.own else { return Ok(()) };
        let key = times::key(b"", &note);
        if keep { own.own_put("samples", &key, &times::encode(&note)) } else { own.own_remove("samples", &key) }
    }

    /// The readings.
    pub fn archive(&self) -> Arc<dyn Archive> {
        Arc::clone(&self.inner) as Arc<dyn Archive>
    }

    /// The records.
    pub fn keep(&self) -> Arc<dyn Keep> {
        Arc::new(KeepOf(Arc::clone(&self.inner)))
    }
}

fn stopping(batch: Batch) {
    if let Some(accepted) = batch.accepted {
        let _ = accepted.send(Err(NotAccepted("the gateway is stopping".to_owned())));
    }
}

/// The records, through the store that holds them.
struct KeepOf(Arc<Inner>);

impl Keep for KeepOf {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.keep.get(table, key)
    }

    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.keep.put(table, key, value)
    }

    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.0.keep.remove(table, key)
    }

    fn list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.0.keep.list(table)
    }
}
