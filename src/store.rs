//! What the parts need of the store, without naming it: readings to page through ([`Archive`]) and small records
//! that must survive ([`Keep`]). `buffer/` implements both on sled; tests use [`MemoryKeep`].

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::{
    clock::Stamp,
    reading::{PointId, Stored},
};

/// Readings that will never come.
///
/// Where `count` is less than the numbers from `first` to `last`, the others are not lost: readings of some points only
/// were taken out, to make room or at a person's wish, and the rest is told around the gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First lost number.
    pub first: u64,
    /// Last lost number.
    pub last: u64,
    /// How many were lost, from `first` to `last`.
    pub count: u64,
    /// When the first of them was taken, as far as is known.
    pub from: Option<Stamp>,
    /// When the last of them was taken.
    pub to: Option<Stamp>,
    /// Why.
    pub cause: Cause,
}

/// Why readings were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Removed, oldest first, to stay within the size limit.
    SizeLimit,
    /// The card gave back something other than what was written.
    Damage,
    /// The card refused writes for longer than memory could hold.
    CardRefused,
    /// Erased at a person's wish.
    Erased,
}

/// A line of the archive.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A reading.
    Reading(Stored),
    /// A hole, told in its place.
    Gap(Gap),
}

impl Gap {
    /// Whether other numbers lie between the lost ones.
    pub fn is_scattered(&self) -> bool {
        self.count < (self.last - self.first).saturating_add(1)
    }
}

impl Entry {
    /// The first number it covers.
    pub fn first_seq(&self) -> u64 {
        match self {
            Self::Reading(stored) => stored.seq,
            Self::Gap(gap) => gap.first,
        }
    }

    /// The last number it covers.
    pub fn last_seq(&self) -> u64 {
        match self {
            Self::Reading(stored) => stored.seq,
            Self::Gap(gap) => gap.last,
        }
    }
}

/// What to page through.
#[derive(Debug, Clone)]
pub struct PageRequest<'a> {
    /// Numbers above this one.
    pub after: u64,
    /// Numbers up to this one; `u64::MAX` for all.
    pub upto: u64,
    /// At most so many entries.
    pub limit: usize,
    /// Only these points; `None` for all. Skipped readings still move [`Page::next`].
    pub points: Option<&'a HashSet<PointId>>,
}

/// A page of the archive. Readings and the counts of gaps together are every number after [`PageRequest::after`] up to
/// [`Page::next`], except readings of points that were not asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In order of their last number. Whoever uses only the first so many asks again with `upto` if a gap that
    /// [is scattered](Gap::is_scattered) begins among them and ends behind.
    pub entries: Vec<Entry>,
    /// Where to go on: every number up to here is in this page or was not asked for.
    pub next: u64,
    /// Nothing committed lies beyond `next`.
    pub complete: bool,
}

/// A point's readings between two bounds, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Start, milliseconds since 1970 UTC.
    pub start_ms: i64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Sum, for the mean.
    pub sum: f64,
    /// First.
    pub first: f64,
    /// Last.
    pub last: f64,
    /// How many readings with a value.
    pub count: u32,
}

impl Bucket {
    /// The mean of its values.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.count.max(1))
    }
}

/// How long the last commits took to be safe on the card, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Syncs {
    /// Commits since the start.
    pub count: u64,
    /// Half of the last ones took so long at most.
    pub median_ms: u32,
    /// Nineteen of twenty took so long at most.
    pub most_ms: u32,
    /// The longest of the last ones.
    pub longest_ms: u32,
}

/// Figures about the store, for the panel, the health digest and the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreFigures {
    /// Highest committed number.
    pub last_seq: u64,
    /// Oldest number still stored.
    pub first_seq: u64,
    /// Accepted, waiting for the next commit.
    pub waiting: u64,
    /// Bytes on the card.
    pub bytes: u64,
    /// The cap.
    pub bytes_limit: u64,
    /// Readings lost over the life of the box.
    pub lost: u64,
    /// Bytes written to the card since the start.
    pub written: u64,
    /// How long the last commits took.
    pub syncs: Syncs,
}

/// Something damaged that was put aside, for a technician to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its file or folder, which begins with the date.
    pub name: String,
    /// Bytes on the card.
    pub bytes: u64,
}

/// The store could not do it.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StoreError {
    /// What was being done, and to what.
    pub doing: String,
    /// What went wrong beneath.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// Tells this layer's story, with the cause beneath.
    pub fn new(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), source: Some(source.into()) }
    }
}

/// Committed readings, in order. Calls may read the card: from async code use `spawn_blocking`.
pub trait Archive: Send + Sync {
    /// Names this store; a new one after the store was lost or replaced, so that old cursors are recognised.
    fn identity(&self) -> String;
    /// Whether anything is known of what the card holds; until then there is nothing to page through, and no cursor means
    /// anything.
    fn is_known(&self) -> bool {
        true
    }
    /// A page of what is on the card.
    ///
    /// # Errors
    /// When the card cannot be read.
    fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError>;
    /// The highest committed number, and a wake-up at each commit.
    fn head(&self) -> watch::Receiver<u64>;
    /// The newest committed reading of each point.
    fn latest(&self) -> Vec<Stored>;
    /// A point summed up in steps of `step_ms`, between two wall times.
    ///
    /// # Errors
    /// When the card cannot be read.
    fn history(&self, point: &PointId, from_ms: i64, to_ms: i64, step_ms: i64) -> Result<Vec<Bucket>, StoreError>;
    /// A named peer has everything up to `seq`.
    ///
    /// # Errors
    /// When the card refuses the write.
    fn acknowledge(&self, peer: &str, seq: u64) -> Result<(), StoreError>;
    /// How far each peer is.
    fn acknowledged(&self) -> BTreeMap<String, u64>;
    /// Every gap still of interest.
    fn gaps(&self) -> Vec<Gap>;
    /// Figures about the store.
    fn figures(&self) -> StoreFigures;
    /// What is damaged and was set aside, the oldest first. Reads the card.
    fn set_aside(&self) -> Vec<SetAside> {
        Vec::new()
    }
    /// Erases a point's readings for good: all of them or, with `before_ms`, those dated before that wall time in
    /// milliseconds since 1970 (what cannot be dated stays). Gives how many readings were erased; their numbers become
    /// gaps of cause [`Cause::Erased`]. On the card when it returns; resumed at the next start if it is interrupted.
    /// May take minutes on a large store, while readings keep coming in.
    ///
    /// # Errors
    /// When the card refuses, or for an archive that can only be read.
    fn erase(&self, point: &PointId, before_ms: Option<i64>) -> Result<u64, StoreError> {
        let _ = before_ms;
        Err(StoreError { doing: format!("erase readings of {point}: this archive can only be read"), source: None })
    }
}

/// Keys and values of a table.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Small records that must survive a restart: accounts, retained messages, journals, pulse counters.
/// A call returns once the record is on the card. From async code use `spawn_blocking` where a wait would hurt.
pub trait Keep: Send + Sync {
    /// One record.
    ///
    /// # Errors
    /// When the card cannot be read.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes a record. 64 KiB at most.
    ///
    /// # Errors
    /// When the record is too large or the card refuses the write.
    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Removes a record; no matter if it is not there.
    ///
    /// # Errors
    /// When the card refuses the write.
    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError>;
    /// Every record of a table, in order of key.
    ///
    /// # Errors
    /// When the card cannot be read.
    fn list(&self, table: &str) -> Result<Entries, StoreError>;
    /// Writes a record, or removes it when there is no value, that may wait: one the card does not take now counts from
    /// now on, and is on the card once it takes records again. For what is better lost in a power cut than refused.
    ///
    /// # Errors
    /// When the record is too large or too many wait.
    fn hold(&self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        match value {
            Some(value) => self.put(table, key, value),
            None => self.remove(table, key),
        }
    }
    /// Whether what the card holds is known, and a wake-up when it becomes so: a gateway may start without its card.
    fn known(&self) -> watch::Receiver<bool> {
        watch::Sender::new(true).subscribe()
    }
}

/// Records as JSON, for those who keep structures rather than bytes.
pub trait KeepExt: Keep {
    /// One record, decoded. A record that no longer decodes is `None`.
    ///
    /// # Errors
    /// When the card cannot be read.
    fn load<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, StoreError> {
        Ok(self.get(table, key.as_bytes())?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes a record that may wait, see [`Keep::hold`].
    ///
    /// # Errors
    /// When the record is too large or too many wait.
    fn save_or_hold<T: Serialize>(&self, table: &str, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|e| StoreError::new(format!("encode {table}/{key}"), e))?;
        self.hold(table, key.as_bytes(), Some(&bytes))
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When the record is too large or the card refuses the write.
    fn save<T: Serialize>(&self, table: &str, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|e| StoreError::new(format!("encode {table}/{key}"), e))?;
        self.put(table, key.as_bytes(), &bytes)
    }
}

impl<K: Keep + ?Sized> KeepExt for K {}

/// Records of one table, by key.
type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// A [`Keep`] in memory, for tests and for a gateway whose card cannot be opened.
#[derive(Debug, Default)]
pub struct MemoryKeep(Mutex<BTreeMap<String, Table>>);

impl MemoryKeep {
    fn with<T>(&self, table: &str, work: impl FnOnce(&mut Table) -> T) -> T {
        work(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(table.to_owned()).or_default())
    }
}

impl Keep for MemoryKeep {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(table, |records| records.get(key).cloned()))
    }

    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.with(table, |records| records.insert(key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.with(table, |records| records.remove(key));
        Ok(())
    }

    fn list(&self, table: &str) -> Result<Entries, StoreError> {
        Ok(self.with(table, |records| records.iter().map(|(k, v)| (k.clone(), v.clone())).collect()))
    }
}
