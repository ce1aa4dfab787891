//! The block being filled, on the card: a small preallocated file in slots, a record with checksums per commit, one
//! sync. sled would write 30 to 40 kB each time; this writes the page it touches.
//!
//! Each record is a block (`block.rs`) between a header and a copy of that header: when a record is torn or damaged,
//! either copy still tells which numbers were given out, so that none is given twice.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{block, bytes::Cursor};
use crate::reading::{Reading, Stored};

/// Bytes of a slot; the records of one block-to-be.
pub(super) const SLOT: u64 = 128 << 10;
/// Slots in the file: this many blocks can wait while sled takes none.
pub(super) const SLOTS: usize = 12;
const FILE: u64 = SLOT * SLOTS as u64;
const FRONT: [u8; 4] = *b"CKH1";
const BACK: [u8; 4] = *b"CKT1";
const HEADER: usize = 48;
const ALIGN: usize = 16;
const PAGE: u64 = 4096;

/// What the head file needs of the card, so that tests can make it fail.
pub(super) trait Card: Send {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once everything written is on the card.
    fn sync(&self) -> io::Result<()>;
}

impl Card for File {
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What a record says of itself, apart from the readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Which commit it belongs to; grows by one each time.
    pub commit: u64,
    /// First number.
    pub first: u64,
    /// How many.
    pub count: u32,
    length: u32,
    store: u32,
}

impl Claim {
    pub(super) fn last(self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    fn to_bytes(self, magic: [u8; 4]) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..4].copy_from_slice(&magic);
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..16].copy_from_slice(&self.commit.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..28].copy_from_slice(&self.count.to_le_bytes());
        out[28..32].copy_from_slice(&self.store.to_le_bytes());
        let checksum = crc32fast::hash(&out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn read(bytes: &[u8], magic: [u8; 4]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let mut cursor = Cursor(bytes);
        if cursor.array()? != magic
            || bytes.last_chunk().map(|c| u32::from_le_bytes(*c))? != crc32fast::hash(&bytes[..44])
        {
            return None;
        }
        let (length, commit, first, count) = (cursor.u32()?, cursor.u64()?, cursor.u64()?, cursor.u32()?);
        let sane = count > 0 && count as usize <= block::MOST_READINGS && first.checked_add(u64::from(count)).is_some();
        sane.then_some(Self { commit, first, count, length, store: cursor.u32()? })
    }
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

/// A record ready to be written.
#[derive(Debug)]
pub(super) struct Record {
    bytes: Vec<u8>,
}

/// The head file, as its writer sees it.
pub(super) struct Head {
    card: Box<dyn Card>,
    store: u32,
    commit: u64,
    busy: [bool; SLOTS],
    current: usize,
    offset: u64,
    /// Bytes that reached the card, in whole pages.
    pub written: u64,
}

impl Head {
    /// Goes on after [`scan`]; nothing in the slots is needed any more, except those later marked by [`Head::keep`].
    pub(super) fn new(card: Box<dyn Card>, store: u32, last_commit: u64) -> Self {
        Self { card, store, commit: last_commit + 1, busy: [false; SLOTS], current: 0, offset: SLOT, written: 0 }
    }

    /// Another card in the place of the first, for tests.
    #[cfg(test)]
    pub(super) fn change_card(&mut self, card: Box<dyn Card>) {
        self.card = card;
    }

    /// A slot holds what is nowhere else.
    pub(super) fn keep(&mut self, slot: usize) {
        self.busy[slot % SLOTS] = true;
    }

    /// A slot may be written over.
    pub(super) fn free(&mut self, slot: usize) {
        self.busy[slot % SLOTS] = false;
    }

    /// Packs readings numbered from `first`; `None` when they are too many for any slot.
    pub(super) fn record(&self, first: u64, readings: &[Reading]) -> Option<Record> {
        let block = block::encode(self.store, first, readings, 1);
        let claim = Claim {
            commit: self.commit,
            first,
            count: readings.len() as u32,
            length: block.len() as u32,
            store: self.store,
        };
        let mut bytes = Vec::with_capacity(2 * HEADER + padded(block.len()));
        bytes.extend(claim.to_bytes(FRONT));
        bytes.extend(&block);
        bytes.resize(HEADER + padded(block.len()), 0);
        bytes.extend(claim.to_bytes(BACK));
        (bytes.len() as u64 <= SLOT).then_some(Record { bytes })
    }

    /// Whether a record fits in the slot being filled.
    pub(super) fn has_room(&self, record: &Record) -> bool {
        self.offset + record.bytes.len() as u64 <= SLOT
    }

    /// How full the slot being filled is, in bytes.
    pub(super) fn filled(&self) -> u64 {
        self.offset
    }

    /// Starts the next free slot; `None` when all wait for sled.
    pub(super) fn next_slot(&mut self) -> Option<usize> {
        let slot = (1..=SLOTS).map(|n| (self.current + n) % SLOTS).find(|slot| !self.busy[*slot])?;
        self.busy[slot] = true;
        self.current = slot;
        self.offset = 0;
        Some(slot)
    }

    /// Writes a record behind the last; not yet safe. The rest of its page is cleared, so that nothing of an earlier
    /// use can be taken for a continuation.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let start = self.current as u64 * SLOT + self.offset;
        let end = start + record.bytes.len() as u64;
        let clear = end.next_multiple_of(PAGE) - end;
        let mut bytes = record.bytes.clone();
        bytes.resize(bytes.len() + clear as usize, 0);
        self.card.write(&bytes, start)?;
        self.written += end.next_multiple_of(PAGE) - start / PAGE * PAGE;
        self.offset += record.bytes.len() as u64;
        Ok(())
    }

    /// Makes what was written safe, and ends the commit.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.card.sync()?;
        self.commit += 1;
        Ok(())
    }

    /// Writes over everything, so that nothing can be read out of it any more. Only while no slot is needed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        let zeros = vec![0; SLOT as usize];
        for slot in 0..SLOTS as u64 {
            self.card.write(&zeros, slot * SLOT)?;
        }
        self.written += FILE;
        self.offset = SLOT;
        self.busy = [false; SLOTS];
        self.sync()
    }

    /// Where the slot stands, to return to after a commit that did not succeed.
    pub(super) fn place(&self) -> u64 {
        self.offset
    }

    /// Forgets what was written after `place`: the next commit writes over it, and counts as newer.
    pub(super) fn return_to(&mut self, place: u64) {
        self.offset = place;
        self.commit += 1;
    }
}

/// Creates the file, or makes a cut one whole: every byte written, so that later commits change no metadata.
pub(super) fn complete(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let zeros = vec![0; SLOT as usize];
    let mut at = file.metadata()?.len();
    while at < FILE {
        let part = (FILE - at).min(SLOT);
        file.write_all_at(zeros.get(..part as usize).unwrap_or_default(), at)?;
        at += part;
    }
    file.sync_all()?;
    Ok(file)
}

/// What a head file holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// Sound records in order of number, none covering what a later commit wrote anew.
    pub(super) records: Vec<Found>,
    /// Numbers given out in records that no longer decode: the highest of them.
    pub(super) given_out: u64,
    /// Of the highest commit seen.
    pub(super) last_commit: u64,
    /// Records that do not decode and are not stale.
    pub(super) wounded: Vec<Claim>,
}

/// A sound record.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub claim: Claim,
    pub slot: usize,
    pub readings: Vec<Stored>,
}

/// Reads a head file, whatever its bytes are. Records of other stores are not seen.
pub fn scan(bytes: &[u8], store: u32) -> Scan {
    let (sound, wounded) = claims(bytes, store);
    let last_commit = sound.iter().map(|f| f.claim.commit).chain(wounded.iter().map(|c| c.commit)).max().unwrap_or(0);
    let records = newest_wins(sound);
    let stale = |claim: &Claim| {
        let newer = |f: &Found| f.claim.commit >= claim.commit && f.claim.first <= claim.last();
        records.iter().any(newer)
    };
    let wounded = wounded.into_iter().filter(|claim| !stale(claim)).collect::<Vec<_>>();
    let given_out = wounded.iter().map(|claim| claim.last()).max().unwrap_or(0);
    Scan { records, given_out, last_commit, wounded }
}

fn claims(bytes: &[u8], store: u32) -> (Vec<Found>, Vec<Claim>) {
    let (mut sound, mut wounded) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(here) = bytes.get(at..).filter(|here| here.len() >= HEADER) {
        let slot = at / SLOT as usize;
        let front = Claim::read(here, FRONT).filter(|claim| claim.store == store);
        let read = front.and_then(|claim| Some((claim, read_block(here, claim)?)));
        if let Some((claim, readings)) = read {
            at += HEADER + padded(claim.length as usize);
            // The copy behind belongs to it; step over it unless something newer stands there.
            at += if bytes.get(at..).and_then(|b| Claim::read(b, BACK)) == Some(claim) { HEADER } else { 0 };
            sound.push(Found { claim, slot, readings });
            continue;
        }
        wounded.extend(front.or_else(|| Claim::read(here, BACK).filter(|claim| claim.store == store)));
        at += ALIGN;
    }
    (sound, wounded)
}

fn read_block(here: &[u8], claim: Claim) -> Option<Vec<Stored>> {
    let block = block::decode(here.get(HEADER..HEADER.checked_add(claim.length as usize)?)?).ok()?;
    let whole = block.first == claim.first && block.readings.len() == claim.count as usize;
    whole.then_some(block.readings)
}

/// A commit that did not succeed may have left records whose numbers were given out again: the newer ones hold.
fn newest_wins(mut sound: Vec<Found>) -> Vec<Found> {
    sound.sort_by_key(|found| (std::cmp::Reverse(found.claim.commit), found.claim.first));
    let mut kept = Vec::<Found>::new();
    let mut lowest = u64::MAX;
    let mut commit = u64::MAX;
    let mut lowest_of_commit = u64::MAX;
    for mut found in sound {
        if found.claim.commit != commit {
            lowest = lowest.min(lowest_of_commit);
            commit = found.claim.commit;
        }
        lowest_of_commit = lowest_of_commit.min(found.claim.first);
        found.readings.retain(|stored| stored.seq < lowest);
        if !found.readings.is_empty() {
            kept.push(found);
        }
    }
    kept.sort_by_key(|found| found.claim.first);
    kept
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::clock::Stamp;
    use crate::reading::Quality;

    /// A card in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Card for Memory {
        fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut all = self.0.lock().expect("lock");
            let (from, to) = (offset as usize, offset as usize + bytes.len());
            if all.len() < to {
                all.resize(to, 0);
            }
            all[from..to].copy_from_slice(bytes);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn readings(first: u64, count: u64) -> Vec<Reading> {
        (first..first + count)
            .map(|n| Reading {
                point: "a/b".parse().expect("a name"),
                stamp: Stamp { boot: 1, mono_ms: n * 1000 },
                value: Some(n as f64),
                quality: Quality::Good,
            })
            .collect()
    }

    fn commit(head: &mut Head, first: u64, count: u64) {
        let record = head.record(first, &readings(first, count)).expect("fits");
        head.write(&record).expect("written");
        head.sync().expect("synced");
    }

    fn filled() -> (Memory, Head) {
        let card = Memory::default();
        let mut head = Head::new(Box::new(card.clone()), 9, 0);
        head.next_slot();
        for n in 0..8 {
            commit(&mut head, n * 10 + 1, 10);
        }
        (card, head)
    }

    fn numbers(scan: &Scan) -> Vec<u64> {
        scan.records.iter().flat_map(|found| found.readings.iter().map(|stored| stored.seq)).collect()
    }

    #[test]
    fn a_head_cut_at_any_byte_gives_every_whole_record_and_no_number_twice() {
        let (card, _) = filled();
        let bytes = card.0.lock().expect("lock")[SLOT as usize..].to_vec();
        let mut ends = Vec::new();
        for cut in 0..bytes.len() {
            let found = scan(&bytes[..cut], 9);
            let seen = numbers(&found);
            assert!(seen.iter().copied().eq(1..=seen.len() as u64), "cut at {cut}");
            ends.push(seen.len());
            assert!(found.given_out == 0 || found.given_out == seen.len() as u64 + 10);
        }
        assert!(ends.is_sorted() && ends.last() == Some(&80));
    }

    #[test]
    fn a_flipped_byte_costs_its_record_only_and_its_numbers_are_known_to_be_given_out() {
        let (card, head) = filled();
        let bytes = card.0.lock().expect("lock")[SLOT as usize..].to_vec();
        for at in 0..head.filled() as usize {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            let found = scan(&wrong, 9);
            assert!(numbers(&found).len() >= 70, "byte {at}");
            assert_eq!(found.given_out.max(numbers(&found).last().copied().unwrap_or(0)), 80, "byte {at}");
        }
    }

    #[test]
    fn a_commit_tried_again_replaces_what_the_failed_one_left() {
        let (card, mut head) = filled();
        let place = head.place();
        let record = head.record(81, &readings(81, 30)).expect("fits");
        head.write(&record).expect("written");
        head.return_to(place);
        // Another slot, so that the failed record stays readable.
        head.next_slot();
        commit(&mut head, 81, 5);
        commit(&mut head, 86, 5);
        let found = scan(&card.0.lock().expect("lock"), 9);
        assert!(numbers(&found).into_iter().eq(1..=90));
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(5);
        let (card, head) = filled();
        let bytes = card.0.lock().expect("lock")[SLOT as usize..][..head.filled() as usize].to_vec();
        for _ in 0..300 {
            let mut wrong = bytes.clone();
            for _ in 0..rng.random_range(1..200) {
                let at = rng.random_range(0..wrong.len());
                wrong[at] = rng.random();
            }
            let found = scan(&wrong, 9);
            assert!(numbers(&found).is_sorted());
        }
        assert!(scan(&bytes, 8).records.is_empty(), "another store's records");
    }
}
