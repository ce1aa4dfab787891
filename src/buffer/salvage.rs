//! What to do with damage: set it aside under a dated name, and pick out of it what is sound.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    block::{self, Block},
    database::{folder_size, sync_folder},
    segment::{Segment, SegmentFault},
    thin::{self, Summary},
};
use crate::store::{SetAside, StoreError};

/// Set-aside folders kept at most; the oldest go first.
const MOST_ASIDE: usize = 8;
/// Of a segment's file, enough to hold a block.
const BEGINNING: u64 = 512 << 10;

/// Where damaged files wait for somebody to look at them.
#[derive(Debug, Clone)]
pub(super) struct Aside {
    folder: PathBuf,
    size_limit: u64,
}

impl Aside {
    pub(super) fn new(folder: PathBuf, size_limit: u64) -> Self {
        Self { folder, size_limit }
    }

    /// Moves a file or folder out of the way, under the date and its name.
    pub(super) fn take(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let fault = |e: io::Error| StoreError::new(format!("set {} aside", path.display()), e);
        self.make_folder().map_err(fault)?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let free = |n: &u32| self.folder.join(format!("{date}-{n:02}-{name}"));
        let place = (0..1000).find(|n| !free(n).exists()).map_or_else(|| free(&1000), |n| free(&n));
        fs::rename(path, &place).map_err(fault)?;
        for folder in path.parent().into_iter().chain([self.folder.as_path()]) {
            sync_folder(folder).map_err(|f| StoreError::new(format!("set {} aside", path.display()), f))?;
        }
        self.keep_small();
        Ok(place)
    }

    /// Where a file has the folder's name, that file is the first to lie in it.
    fn make_folder(&self) -> io::Result<()> {
        if !self.folder.is_file() {
            return fs::create_dir_all(&self.folder);
        }
        let next = self.folder.with_extension("new");
        fs::rename(&self.folder, &next)?;
        fs::create_dir_all(&self.folder)?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S");
        fs::rename(&next, self.folder.join(format!("{date}-00-damaged")))
    }

    fn keep_small(&self) {
        while self.places().len() > MOST_ASIDE || folder_size(&self.folder) > self.size_limit {
            if self.places().len() <= 1 || !self.drop_oldest() {
                return;
            }
        }
    }

    fn places(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut places = entries.map(|entry| entry.path()).collect::<Vec<_>>();
        places.sort();
        places
    }

    /// Nothing is kept that may hold what was to be erased. How many folders and files went.
    pub(super) fn drop_all(&self) -> io::Result<usize> {
        let places = self.places();
        for place in &places {
            if place.is_dir() { fs::remove_dir_all(place)? } else { fs::remove_file(place)? }
        }
        if !places.is_empty() {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(places.len())
    }

    /// What lies here, the oldest first.
    pub(super) fn list(&self) -> Vec<SetAside> {
        let told = |place: PathBuf| {
            let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let file = fs::metadata(&place).ok().filter(fs::Metadata::is_file);
            SetAside { name, bytes: file.map_or_else(|| folder_size(&place), |file| file.len()) }
        };
        self.places().into_iter().map(told).collect()
    }

    /// Makes room; false when there is nothing to drop.
    pub(super) fn drop_oldest(&self) -> bool {
        let Some(oldest) = self.places().into_iter().next() else { return false };
        let removed = if oldest.is_dir() { fs::remove_dir_all(&oldest) } else { fs::remove_file(&oldest) };
        removed.is_ok()
    }
}

/// A segment made of what was sound in a damaged one.
#[derive(Debug)]
pub(super) struct Salvaged {
    pub segment: Segment,
    pub blocks: usize,
    pub aside: PathBuf,
}

/// Makes a segment anew from the blocks that were sound `before` sled was asked, then sets the damaged one aside.
pub(super) fn segment(
    folder: &Path,
    first: u64,
    identity: &[u8; 16],
    aside: &Aside,
    before: &Before,
) -> Result<Salvaged, StoreError> {
    let story = |fault: SegmentFault| StoreError::new(format!("salvage {}", folder.display()), fault);
    let file = |e: io::Error| StoreError::new(format!("salvage {}", folder.display()), e);
    let next = unfinished(folder);
    if next.exists() {
        fs::remove_dir_all(&next).map_err(file)?;
    }
    let fresh = Segment::create(&next, first, identity).map_err(story)?;
    let (mut count, mut summary) = (0, Summary::default());
    for block in before.sound() {
        count += 1;
        fresh.put_again(std::slice::from_ref(&block)).map_err(story)?;
        summary.add(&block);
    }
    drop(fresh);
    let known = Summary::read(folder).unwrap_or_default();
    (summary.counted, summary.lost) = (known.counted, known.lost);
    summary.mark(&next).map_err(file)?;
    let place = aside.take(folder)?;
    finish(folder).map_err(file)?;
    let segment = Segment::open(folder, first, identity).map_err(story)?;
    Ok(Salvaged { segment, blocks: count, aside: place })
}

/// In a folder that was filled to the end; what it says is a [`Summary`].
pub(super) const WHOLE: &str = "whole";

fn unfinished(folder: &Path) -> PathBuf {
    folder.with_extension("new")
}

/// Goes on where a salvage, or writing a segment anew, was interrupted: a finished replacement takes the place of what
/// was set aside or put away, an unfinished one is thrown away.
pub(super) fn finish(folder: &Path) -> io::Result<()> {
    for next in [unfinished(folder), thin::unfinished(folder)] {
        if !next.exists() {
            continue;
        }
        if folder.exists() || !next.join(WHOLE).exists() {
            fs::remove_dir_all(next)?;
        } else {
            fs::rename(&next, folder)?;
        }
    }
    let old = thin::outdated(folder);
    if old.exists() {
        if folder.exists() {
            fs::remove_dir_all(old)?;
        } else {
            fs::rename(old, folder)?;
        }
    }
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// A segment's files as they were before sled opened them, and where the blocks of this store lie in them. Where sled
/// meets something it cannot read it ends its log and clears what follows: what was sound there is only here.
#[derive(Debug, Default)]
pub(super) struct Before {
    files: Vec<Vec<u8>>,
    /// Whether each file of a large node is as sled 0.34.7 writes it: a checksum, then what it covers. Where one is not, sled ends
    /// its log there when it opens.
    pub(super) large_nodes_are_sound: bool,
    /// By first number: in which file, from where, last number.
    places: BTreeMap<u64, (usize, usize, u64)>,
}

impl Before {
    /// Reads them. Numbers from `first` up to `end`, excluded, belong here. What cannot be read is left out.
    pub(super) fn read(folder: &Path, first: u64, end: u64, store: u32) -> Self {
        let blobs = fs::read_dir(folder.join("blobs")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files = blobs.filter(|path| path.is_file()).map(|path| read_what_reads(&path)).collect::<Vec<_>>();
        let large_nodes_are_sound = files.iter().all(|bytes| {
            bytes.split_first_chunk().is_some_and(|(sum, rest)| u32::from_le_bytes(*sum) == crc32fast::hash(rest))
        });
        files.push(read_what_reads(&folder.join("db")));
        let mut before = Self { files, large_nodes_are_sound, places: BTreeMap::new() };
        for (file, bytes) in before.files.iter().enumerate() {
            for (at, numbers) in block::find(bytes).filter(|(_, numbers)| numbers.store == store) {
                let (from, last) = (numbers.first, numbers.last);
                let known = before.places.range(..=last).next_back();
                if from >= first && last < end && known.is_none_or(|(_, (.., known))| *known < from) {
                    before.places.insert(from, (file, at, last));
                }
            }
        }
        before
    }

    /// The first and the last number of each block whose checksum is right.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (u64, u64)> {
        self.places.iter().map(|(first, (.., last))| (*first, *last))
    }

    /// The block that begins at `first`.
    pub(super) fn block(&self, first: u64) -> Option<Block> {
        let (file, at, _) = self.places.get(&first)?;
        block::decode(self.files.get(*file)?.get(*at..)?).ok()
    }

    /// One after the other: unpacked, those of a whole segment would fill the memory.
    fn sound(&self) -> impl Iterator<Item = Block> {
        self.places.keys().filter_map(|first| self.block(*first))
    }
}

/// No file of a segment is larger, by far.
const MOST_BYTES: u64 = 256 << 20;

fn read_what_reads(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A card that does not give back one place may give the ones before.
    let _ = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
    bytes
}

/// Whether the first blocks of a segment's file are another store's. Its mark is in sled, and asking that of every
/// segment would make a start slow.
pub(super) fn is_anothers(folder: &Path, store: u32) -> bool {
    let mut beginning = Vec::new();
    let read = File::open(folder.join("db")).and_then(|file| file.take(BEGINNING).read_to_end(&mut beginning));
    let first = read.ok().and_then(|_| block::find(&beginning).next());
    first.is_some_and(|(_, numbers)| numbers.store != store)
}
