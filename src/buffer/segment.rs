//! One folder of sealed blocks: a sled database of at most some 64 MB, filled once, read often, dropped whole.
//!
//! Keys: `m` whose it is; `b`+number a block; `i`+number what the block covers; `q`+point+0+number the quarter-hours of
//! a point over a sheaf of blocks; `s`+number how far that sheaf reaches; `l` the newest reading of each point; `a` how
//! far the peers are; `t`+boot+ms a copy of what is known of the clock, so that dates survive the loss of the other database.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

use super::{
    block::{self, Block},
    database::{Database, DatabaseFault},
    rollup::{self, Gatherer, Quarter},
    salvage::Before,
    span::Spans,
    times,
};
use crate::{
    clock::{Clock, Note},
    reading::{PointId, Reading, Stored},
};

/// Blocks whose quarter-hours are summed up together.
pub(super) const SHEAF: usize = 64;

/// Empty records behind each block. sled counts records, not bytes, when it splits a node: without these a node grows
/// to sixteen blocks, is rewritten whole, and as too large for its log goes to a file that sled does not sync.
const FILLERS: u8 = 7;

/// Why a folder is no segment of this store.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentFault {
    /// It does not open or does not read.
    #[error("segment {}", .0.display())]
    Database(PathBuf, #[source] DatabaseFault),
    /// It opens, without what was written when it was made.
    #[error("segment {} was emptied", .0.display())]
    Emptied(PathBuf),
    /// It is another store's.
    #[error("segment {} belongs to another store", .0.display())]
    Foreign(PathBuf),
    /// What it holds does not decode.
    #[error("{what} in segment {} does not decode", .folder.display())]
    Damaged {
        /// What.
        what: String,
        /// Where.
        folder: PathBuf,
    },
}

impl SegmentFault {
    /// The card or the system refuses for now: what is stored may be sound.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Database(_, DatabaseFault::Refused(_) | DatabaseFault::File(..)))
    }
}

/// What a block covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cover {
    pub last: u64,
    pub spans: Spans,
}

#[derive(Debug, Default)]
struct Index {
    blocks: BTreeMap<u64, Cover>,
    sheaves: BTreeMap<u64, u64>,
}

/// The newest reading of each point, and up to which number that is so.
#[derive(Debug, Default)]
pub(super) struct Newest {
    pub upto: u64,
    pub readings: Vec<Stored>,
}

/// What is written beside a block.
#[derive(Debug, Default)]
pub(super) struct Beside<'a> {
    pub newest: Option<Newest>,
    pub acknowledged: Option<&'a BTreeMap<String, u64>>,
    pub notes: Vec<Note>,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    folder: PathBuf,
    database: Database,
    store: u32,
    index: RwLock<Index>,
}

impl Segment {
    /// Makes an empty one, on the card when it returns.
    pub(super) fn create(folder: &Path, first: u64, identity: &[u8; 16]) -> Result<Self, SegmentFault> {
        let fault = |fault| SegmentFault::Database(folder.to_owned(), fault);
        let database = Database::open(folder).map_err(fault)?;
        let mut batch = sled::Batch::default();
        batch.insert(b"m", identity);
        database.write(batch).map_err(fault)?;
        Ok(Self { first, folder: folder.to_owned(), database, store: short(identity), index: RwLock::default() })
    }

    /// Opens one and reads its index.
    pub(super) fn open(folder: &Path, first: u64, identity: &[u8; 16]) -> Result<Self, SegmentFault> {
        let fault = |fault| SegmentFault::Database(folder.to_owned(), fault);
        Self::of(Database::open(folder).map_err(fault)?, folder, first, identity)
    }

    /// Whether its database is of no more use, so that what it holds must be copied elsewhere.
    pub(super) fn is_given_up(&self) -> bool {
        self.database.is_given_up()
    }

    /// Why nothing is asked of such a one.
    pub(super) fn given_up(folder: PathBuf) -> SegmentFault {
        SegmentFault::Database(folder, DatabaseFault::Panicked("earlier, in the same segment".to_owned()))
    }

    /// Opens a copy of one, which takes no writes.
    pub(super) fn open_to_read(folder: &Path, first: u64, identity: &[u8; 16]) -> Result<Self, SegmentFault> {
        let fault = |fault| SegmentFault::Database(folder.to_owned(), fault);
        Self::of(Database::open_to_read(folder).map_err(fault)?, folder, first, identity)
    }

    fn of(database: Database, folder: &Path, first: u64, identity: &[u8; 16]) -> Result<Self, SegmentFault> {
        let fault = |fault| SegmentFault::Database(folder.to_owned(), fault);
        match database.get(b"m").map_err(fault)? {
            None => return Err(SegmentFault::Emptied(folder.to_owned())),
            Some(mark) if mark.as_ref() != identity => return Err(SegmentFault::Foreign(folder.to_owned())),
            Some(_) => {}
        }
        let mut segment =
            Self { first, folder: folder.to_owned(), database, store: short(identity), index: RwLock::default() };
        segment.index = RwLock::new(segment.read_index()?);
        Ok(segment)
    }

    /// The store a segment says it belongs to. A copy is asked: sled may harm what it opens.
    pub(super) fn identity_of(folder: &Path) -> Option<[u8; 16]> {
        let database = Database::open_to_read(folder).ok()?;
        database.get(b"m").ok()??.as_ref().try_into().ok()
    }

    /// Takes back what was sound `before` sled opened the files and is not listed since: from which number to which.
    pub(super) fn take_back(&self, before: &Before) -> Vec<(u64, u64)> {
        let mut back = Vec::new();
        for (first, last) in before.numbers().filter(|(first, _)| self.blocks_from(*first).is_none_or(|b| b.0 > *first))
        {
            let Some(block) = before.block(first) else { continue };
            if self.put_again(std::slice::from_ref(&block)).is_ok() {
                back.push((first, last));
            }
        }
        back
    }

    fn read_index(&self) -> Result<Index, SegmentFault> {
        let list = |prefix: &[u8]| self.database.list(prefix).map_err(|f| self.fault(f));
        let mut index = Index::default();
        for (key, value) in list(b"i")? {
            let first = number(&key).ok_or_else(|| self.damaged("index"))?;
            let cover: Cover = postcard::from_bytes(&value).map_err(|_| self.damaged("index"))?;
            if cover.last < first || cover.last - first >= block::MOST_READINGS as u64 {
                return Err(self.damaged("index"));
            }
            index.blocks.insert(first, cover);
        }
        for (key, value) in list(b"s")? {
            let first = number(&key).ok_or_else(|| self.damaged("sheaf"))?;
            index.sheaves.insert(first, number(&value).ok_or_else(|| self.damaged("sheaf"))?);
        }
        Ok(index)
    }

    fn fault(&self, fault: DatabaseFault) -> SegmentFault {
        SegmentFault::Database(self.folder.clone(), fault)
    }

    fn damaged(&self, what: &str) -> SegmentFault {
        SegmentFault::Damaged { what: what.to_owned(), folder: self.folder.clone() }
    }

    /// Adds a block and what goes with it; on the card when it returns.
    pub(super) fn put(&self, first: u64, readings: &[Reading], beside: Beside<'_>) -> Result<usize, SegmentFault> {
        let Some(count) = (readings.len() as u64).checked_sub(1) else { return Ok(0) };
        let cover = Cover { last: first + count, spans: Spans::of(readings.iter().map(|r| r.stamp)) };
        self.put_packed(first, block::encode(self.store, first, readings, 19), cover, beside)
    }

    /// Adds a block as it is, and what goes with it; on the card when it returns.
    pub(super) fn put_packed(
        &self,
        first: u64,
        block: Vec<u8>,
        cover: Cover,
        beside: Beside<'_>,
    ) -> Result<usize, SegmentFault> {
        let mut batch = sled::Batch::default();
        let length = block.len();
        add_block(&mut batch, first, block, &cover);
        self.put_beside(&mut batch, beside);
        self.database.write(batch).map_err(|f| self.fault(f))?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).blocks.insert(first, cover);
        Ok(length)
    }

    /// Adds blocks that were in a segment before, less what was taken out of them; on the card when it returns.
    pub(super) fn put_again(&self, blocks: &[Block]) -> Result<(), SegmentFault> {
        let mut batch = sled::Batch::default();
        let mut covers = Vec::with_capacity(blocks.len());
        for block in blocks {
            let stamps = block.readings.iter().map(|s| s.reading.stamp).chain(block.gone.iter().map(|gone| gone.stamp));
            let cover = Cover { last: block.last, spans: Spans::of(stamps) };
            let packed = block::encode_again(&Block { store: self.store, ..block.clone() }, 19);
            add_block(&mut batch, block.first, packed, &cover);
            covers.push((block.first, cover));
        }
        self.database.write(batch).map_err(|f| self.fault(f))?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).blocks.extend(covers);
        Ok(())
    }

    /// Writes what usually goes beside a block, alone.
    pub(super) fn note(&self, beside: Beside<'_>) -> Result<(), SegmentFault> {
        let mut batch = sled::Batch::default();
        self.put_beside(&mut batch, beside);
        self.database.write(batch).map_err(|f| self.fault(f))
    }

    fn put_beside(&self, batch: &mut sled::Batch, beside: Beside<'_>) {
        if let Some(newest) = beside.newest {
            batch.insert(b"l", encode_newest(self.store, newest));
        }
        if let Some(acknowledged) = beside.acknowledged {
            batch.insert(b"a", postcard::to_allocvec(acknowledged).unwrap_or_default());
        }
        for note in beside.notes {
            batch.insert(times::key(b"t", &note), times::encode(&note));
        }
    }

    /// Sums up the blocks that are not yet, if they are many or `all` are wanted.
    pub(super) fn bind_sheaf(&self, clock: &Clock, least: usize) -> Result<(), SegmentFault> {
        let loose = self.loose_blocks();
        let (Some((first, _)), Some((_, last))) = (loose.first(), loose.last()) else { return Ok(()) };
        if loose.len() < least {
            return Ok(());
        }
        let mut gatherer = Gatherer::new(clock);
        for (block, _) in &loose {
            // A damaged block is a hole; the sheaf is of what can be read.
            let readings = self.block(*block).map(|block| block.readings).unwrap_or_default();
            readings.iter().for_each(|stored| gatherer.add(stored));
        }
        let mut batch = sled::Batch::default();
        for (point, quarters) in gatherer.finish() {
            batch.insert(quarter_key(&point, Some(*first)), rollup::encode(&quarters));
        }
        batch.insert(&key(b's', *first), &last.to_be_bytes());
        self.database.write(batch).map_err(|f| self.fault(f))?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).sheaves.insert(*first, *last);
        Ok(())
    }

    fn loose_blocks(&self) -> Vec<(u64, u64)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let bound = index.sheaves.values().max().map_or(0, |last| last + 1);
        index.blocks.range(bound..).map(|(first, cover)| (*first, cover.last)).collect()
    }

    /// The readings of the block that begins at `first`.
    pub(super) fn block(&self, first: u64) -> Result<Block, SegmentFault> {
        let damaged = || self.damaged(&format!("block {first}"));
        let bytes = self.database.get(&key(b'b', first)).map_err(|f| self.fault(f))?.ok_or_else(damaged)?;
        let block = block::decode(&bytes).map_err(|_| damaged())?;
        let covers = self.cover_of(first).map(|cover| cover.last);
        let as_indexed =
            block.first == first && block.store == self.store && covers.is_none_or(|last| block.last == last);
        if as_indexed { Ok(block) } else { Err(damaged()) }
    }

    /// Whether the block that begins at `first` is there and whole; cheaper than reading it.
    pub(super) fn has_whole(&self, first: u64) -> Result<bool, SegmentFault> {
        let bytes = self.database.get(&key(b'b', first)).map_err(|f| self.fault(f))?;
        Ok(bytes.is_some_and(|bytes| block::is_whole(&bytes, self.store, first)))
    }

    fn cover_of(&self, first: u64) -> Option<Cover> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).blocks.get(&first).cloned()
    }

    /// A block that turned out to be unreadable is no longer listed.
    pub(super) fn forget(&self, first: u64) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).blocks.remove(&first);
    }

    /// Each block's first and last number, from that which holds `seq` or follows it.
    pub(super) fn blocks_from(&self, seq: u64) -> Option<(u64, u64)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let holding = index.blocks.range(..=seq).next_back().filter(|(_, cover)| cover.last >= seq);
        let next = holding.or_else(|| index.blocks.range(seq..).next());
        next.map(|(first, cover)| (*first, cover.last))
    }

    /// Every block with what it covers.
    pub(super) fn covers(&self) -> Vec<(u64, Cover)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.blocks.iter().map(|(first, cover)| (*first, cover.clone())).collect()
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> usize {
        self.index.read().unwrap_or_else(PoisonError::into_inner).blocks.len()
    }

    /// The sheaves: first and last number.
    pub(super) fn sheaves(&self) -> Vec<(u64, u64)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.sheaves.iter().map(|(first, last)| (*first, *last)).collect()
    }

    /// The quarter-hours of a point, by sheaf. `None` for a sheaf whose roll-up is damaged.
    pub(super) fn quarters(&self, point: &PointId) -> Result<BTreeMap<u64, Option<Vec<Quarter>>>, SegmentFault> {
        let list = self.database.list(&quarter_key(point, None)).map_err(|f| self.fault(f))?;
        Ok(list.into_iter().filter_map(|(key, value)| Some((number(&key)?, rollup::decode(&value)))).collect())
    }

    /// The newest reading of each point, as last noted.
    pub(super) fn newest(&self) -> Option<Newest> {
        decode_newest(&self.database.get(b"l").ok()??)
    }

    /// How far the peers were, as last noted.
    pub(super) fn acknowledged(&self) -> Option<BTreeMap<String, u64>> {
        postcard::from_bytes(&self.database.get(b"a").ok()??).ok()
    }

    /// What is kept of the clock here.
    pub(super) fn notes(&self) -> Vec<Note> {
        let list = self.database.list(b"t").unwrap_or_default();
        list.iter().filter_map(|(key, value)| times::decode(key, value)).collect()
    }

    /// Bytes on the card.
    pub(super) fn size(&self) -> u64 {
        self.database.size()
    }
}

fn add_block(batch: &mut sled::Batch, first: u64, block: Vec<u8>, cover: &Cover) {
    batch.insert(&key(b'b', first), block);
    for n in 0..FILLERS {
        batch.insert([&key(b'b', first)[..], &[n]].concat(), &[]);
    }
    batch.insert(&key(b'i', first), postcard::to_allocvec(cover).unwrap_or_default());
}

/// A store's name short enough to stand in every block.
pub(super) fn short(identity: &[u8; 16]) -> u32 {
    crc32fast::hash(identity)
}

fn key(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn quarter_key(point: &PointId, first: Option<u64>) -> Vec<u8> {
    let mut key = vec![b'q'];
    key.extend(point.as_str().as_bytes());
    key.push(0);
    key.extend(first.into_iter().flat_map(u64::to_be_bytes));
    key
}

/// As blocks of one reading would be wasteful, one block with the true numbers beside it.
fn encode_newest(store: u32, newest: Newest) -> Vec<u8> {
    let (seqs, mut readings): (Vec<_>, Vec<_>) = newest.readings.into_iter().map(|s| (s.seq, s.reading)).unzip();
    readings.truncate(block::MOST_READINGS);
    let seqs = postcard::to_allocvec(&(newest.upto, &seqs)).unwrap_or_default();
    let mut out = (seqs.len() as u32).to_le_bytes().to_vec();
    out.extend(seqs);
    if !readings.is_empty() {
        // Not as a block of the store: salvage must not take these for readings 1, 2, 3.
        out.extend(block::encode(!store, 1, &readings, 3));
    }
    out
}

fn decode_newest(bytes: &[u8]) -> Option<Newest> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (seqs, block) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (upto, seqs): (u64, Vec<u64>) = postcard::from_bytes(seqs).ok()?;
    let readings = if seqs.is_empty() { Vec::new() } else { block::decode(block).ok()?.readings };
    let readings = seqs.into_iter().zip(readings).map(|(seq, stored)| Stored { seq, ..stored }).collect();
    Some(Newest { upto, readings })
}
