//! What to do with damage: set it aside under a dated name, and pick out of it what is sound.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    block,
    database::{folder_size, sync_folder},
    segment::{Beside, Cover, Segment, SegmentFault, short},
    span::Spans,
};
use crate::store::StoreError;

/// Set-aside folders kept at most; the oldest go first.
const MOST_ASIDE: usize = 8;
const WINDOW: usize = 4 << 20;
/// More than any block takes.
const OVERLAP: usize = 256 << 10;

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
        fs::create_dir_all(&self.folder).map_err(fault)?;
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

/// Makes a segment anew from the sound blocks of a damaged one, then sets the damaged one aside. Numbers from `first`
/// up to `end`, excluded, belong here.
pub(super) fn segment(
    folder: &Path,
    first: u64,
    end: u64,
    identity: &[u8; 16],
    aside: &Aside,
) -> Result<Salvaged, StoreError> {
    let story = |fault: SegmentFault| StoreError::new(format!("salvage {}", folder.display()), fault);
    let file = |e: io::Error| StoreError::new(format!("salvage {}", folder.display()), e);
    let next = unfinished(folder);
    if next.exists() {
        fs::remove_dir_all(&next).map_err(file)?;
    }
    let blocks = sound_blocks(folder, first, end, short(identity)).map_err(file)?;
    let fresh = Segment::create(&next, first, identity).map_err(story)?;
    let count = blocks.len();
    for (first, block) in blocks {
        fresh.put_packed(first, block.bytes, block.cover, Beside::default()).map_err(story)?;
    }
    drop(fresh);
    File::create(next.join(WHOLE)).and_then(|mark| mark.sync_all()).map_err(file)?;
    let place = aside.take(folder)?;
    finish(folder).map_err(file)?;
    let segment = Segment::open(folder, first, identity).map_err(story)?;
    Ok(Salvaged { segment, blocks: count, aside: place })
}

const WHOLE: &str = "whole";

fn unfinished(folder: &Path) -> PathBuf {
    folder.with_extension("new")
}

/// Goes on where a salvage was interrupted: a finished replacement takes the place of what was set aside, an
/// unfinished one is thrown away.
pub(super) fn finish(folder: &Path) -> io::Result<()> {
    let next = unfinished(folder);
    if !next.exists() {
        return Ok(());
    }
    if folder.exists() || !next.join(WHOLE).exists() {
        return fs::remove_dir_all(next);
    }
    fs::rename(&next, folder)?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// A block found in the raw files, as it is: unpacked, those of a whole segment would fill the memory.
#[derive(Debug)]
pub(super) struct Sound {
    pub bytes: Vec<u8>,
    pub cover: Cover,
}

/// Every sound block of this store in a segment's files, by first number; sled is not asked.
pub(super) fn sound_blocks(folder: &Path, first: u64, end: u64, store: u32) -> io::Result<BTreeMap<u64, Sound>> {
    let mut blocks = BTreeMap::<u64, Sound>::new();
    let blobs = fs::read_dir(folder.join("blobs")).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in blobs.chain([folder.join("db")]).filter(|path| path.is_file()) {
        windows(&path, |window| {
            for bytes in block::find(window) {
                let Ok(block) = block::decode(bytes) else { continue };
                let (Some(a), Some(b)) = (block.readings.first(), block.readings.last()) else { continue };
                let (from, last) = (a.seq, b.seq);
                let before = blocks.range(..=last).next_back();
                let overlaps = before.is_some_and(|(_, sound)| sound.cover.last >= from);
                if block.store == store && from >= first && last < end && !overlaps {
                    let spans = Spans::of(block.readings.iter().map(|stored| stored.reading.stamp));
                    blocks.insert(from, Sound { bytes: bytes.to_vec(), cover: Cover { last, spans } });
                }
            }
        })?;
    }
    Ok(blocks)
}

/// Shows a file in overlapping windows, so that a large one does not fill the memory. What cannot be read is left out.
fn windows(path: &Path, mut show: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut at = 0;
    while at < length {
        file.seek(SeekFrom::Start(at))?;
        let mut window = Vec::with_capacity(WINDOW);
        let _ = (&mut file).take(WINDOW as u64).read_to_end(&mut window);
        show(&window);
        at += (WINDOW - OVERLAP) as u64;
    }
    Ok(())
}
