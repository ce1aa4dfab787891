//! Writes a segment anew without some of its readings, and puts it in the place of the old: what eviction by class and
//! erasing do. The new folder is filled beside the old, marked whole, and only then takes its name; a fall at any step
//! leaves the one or the other (`salvage::finish`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    block::{Block, Gone},
    database::sync_folder,
    salvage,
    segment::{Beside, Newest, SHEAF, Segment, SegmentFault},
};
use crate::{
    clock::Clock,
    reading::{PointId, Stored},
    store::{Cause, Gap, StoreError},
};

/// Blocks read, thinned and written together.
const AT_ONCE: usize = 16;

/// Why a segment was not written anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum ThinFault {
    /// The gateway stops; it is begun again after the next start.
    #[error("writing a segment anew was interrupted by the stop")]
    Stopped,
    /// The segment, or its copy.
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    /// The files around it.
    #[error("write {} anew", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// What the store notes about it.
    #[error(transparent)]
    Store(Box<StoreError>),
}

impl From<ThinFault> for StoreError {
    fn from(fault: ThinFault) -> Self {
        match fault {
            ThinFault::Store(error) => *error,
            other => Self::new("write a segment anew", other),
        }
    }
}

/// What is known of a segment that was written anew: the mark in its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// One per cause: between its numbers others may lie that are still there.
    pub gaps: Vec<Gap>,
    /// The points it still has readings of.
    pub points: BTreeSet<PointId>,
    /// How many of those taken out were counted as lost.
    pub counted: u64,
    /// Readings lost over the life of the box, this segment's included.
    pub lost: u64,
}

impl Summary {
    pub(super) fn add(&mut self, block: &Block) {
        for stored in &block.readings {
            if !self.points.contains(&stored.reading.point) {
                self.points.insert(stored.reading.point.clone());
            }
        }
        block.gone.iter().for_each(|gone| tell(&mut self.gaps, gone));
    }

    fn to_bytes(&self) -> Vec<u8> {
        if self.gaps.is_empty() {
            return Vec::new();
        }
        let body = postcard::to_allocvec(self).unwrap_or_default();
        [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat()
    }

    /// What the mark in a folder says; `None` when it does not read. A folder without one was never written anew.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let Ok(bytes) = fs::read(folder.join(salvage::WHOLE)) else { return Some(Self::default()) };
        let Some((checksum, body)) = bytes.split_first_chunk::<4>() else {
            return bytes.is_empty().then(Self::default);
        };
        let sound = u32::from_le_bytes(*checksum) == crc32fast::hash(body);
        sound.then(|| postcard::from_bytes(body).ok()).flatten()
    }

    /// Writes the mark that makes a folder whole; on the card when it returns.
    pub(super) fn mark(&self, folder: &Path) -> io::Result<()> {
        let mut file = File::create(folder.join(salvage::WHOLE))?;
        file.write_all(&self.to_bytes())?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    }
}

/// Adds one number to the hole of its cause.
pub(super) fn tell(gaps: &mut Vec<Gap>, gone: &Gone) {
    let Gone { seq, stamp, cause, .. } = gone;
    match gaps.iter_mut().find(|gap| gap.cause == *cause) {
        Some(gap) => {
            (gap.last, gap.to) = (*seq, Some(*stamp));
            gap.count += 1;
        }
        None => {
            let at = Some(*stamp);
            gaps.push(Gap { first: *seq, last: *seq, count: 1, from: at, to: at, cause: *cause });
        }
    }
}

/// What to take out of a segment, and what goes along.
pub(super) struct Plan<'a> {
    /// Takes a reading out, for a cause.
    pub which: &'a dyn Fn(&Stored) -> Option<Cause>,
    /// Whether a reading that is taken out is a loss to be counted.
    pub is_loss: &'a dyn Fn(&Stored) -> bool,
    /// The gateway's clock, to sum up by.
    pub clock: &'a Clock,
    pub stop: &'a AtomicBool,
}

/// A copy that waits to take its place.
#[derive(Debug)]
pub(super) struct Thinned {
    pub summary: Summary,
    /// Taken out now.
    pub taken: u64,
    /// Of these, those that are a loss.
    pub lost: u64,
}

/// Whether a segment holds anything to be taken out. Unreadable blocks hold nothing.
pub(super) fn is_due(old: &Segment, plan: &Plan<'_>) -> Result<bool, ThinFault> {
    for (first, _) in old.covers() {
        if plan.stop.load(Ordering::Relaxed) {
            return Err(ThinFault::Stopped);
        }
        if let Some(block) = readable(old, first)?
            && block.readings.iter().any(|stored| (plan.which)(stored).is_some())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the copy, all but its mark.
pub(super) fn copy(old: &Segment, folder: &Path, identity: &[u8; 16], plan: &Plan<'_>) -> Result<Thinned, ThinFault> {
    let next = unfinished(folder);
    let file = |e| ThinFault::File(folder.to_owned(), e);
    if next.exists() {
        fs::remove_dir_all(&next).map_err(file)?;
    }
    let fresh = Segment::create(&next, old.first, identity)?;
    let mut thinned = Thinned { summary: Summary::default(), taken: 0, lost: 0 };
    let covers = old.covers();
    for firsts in covers.chunks(AT_ONCE) {
        if plan.stop.load(Ordering::Relaxed) {
            return Err(ThinFault::Stopped);
        }
        let blocks = firsts.iter().filter_map(|(first, _)| readable(old, *first).transpose());
        let mut blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        for block in &mut blocks {
            let taken = block.take_out(plan.which);
            thinned.taken += taken.len() as u64;
            thinned.lost += taken.iter().filter(|stored| (plan.is_loss)(stored)).count() as u64;
            thinned.summary.add(block);
        }
        fresh.put_again(&blocks)?;
        fresh.bind_sheaf(plan.clock, SHEAF)?;
    }
    fresh.bind_sheaf(plan.clock, 1)?;
    let newest = old.newest().map(|newest| {
        let readings = newest.readings.into_iter().filter(|stored| (plan.which)(stored).is_none()).collect();
        Newest { readings, ..newest }
    });
    let acknowledged = old.acknowledged();
    fresh.note(Beside { newest, acknowledged: acknowledged.as_ref(), notes: old.notes() })?;
    Ok(thinned)
}

/// A block, or `None` where there is damage: what cannot be read cannot be kept.
fn readable(segment: &Segment, first: u64) -> Result<Option<Block>, SegmentFault> {
    match segment.block(first) {
        Ok(block) => Ok(Some(block)),
        Err(SegmentFault::Damaged { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Marks the copy whole and gives it the place of the old folder, which is still to be removed: [`discard_old`].
pub(super) fn take_place(folder: &Path, summary: &Summary) -> io::Result<()> {
    let next = unfinished(folder);
    summary.mark(&next)?;
    let old = outdated(folder);
    if old.exists() {
        fs::remove_dir_all(&old)?;
    }
    fs::rename(folder, &old)?;
    fs::rename(&next, folder)?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Removes what was replaced; what it held is then nowhere in the store.
pub(super) fn discard_old(folder: &Path) -> io::Result<()> {
    discard(&outdated(folder))
}

/// Removes a copy that is not wanted.
pub(super) fn discard_copy(folder: &Path) -> io::Result<()> {
    discard(&unfinished(folder))
}

fn discard(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    folder.parent().map_or(Ok(()), |parent| sync_folder(parent).map_err(io::Error::other))
}

pub(super) fn unfinished(folder: &Path) -> PathBuf {
    folder.with_extension("thin")
}

pub(super) fn outdated(folder: &Path) -> PathBuf {
    folder.with_extension("old")
}

/// The last of a point in a segment, whether it is still a reading or not: number, and the reading if it is one.
pub(super) fn last_of(segment: &Segment, point: &PointId) -> Result<Option<Option<Stored>>, ThinFault> {
    for (first, _) in segment.covers().iter().rev() {
        let Some(block) = readable(segment, *first)? else { continue };
        let reading = block.readings.iter().rfind(|stored| stored.reading.point == *point);
        let gone = block.gone.iter().rfind(|gone| gone.point == *point);
        match (reading, gone) {
            (Some(reading), gone) if gone.is_none_or(|gone| gone.seq < reading.seq) => {
                return Ok(Some(Some(reading.clone())));
            }
            (_, Some(_)) => return Ok(Some(None)),
            (Some(_), None) | (None, None) => {}
        }
    }
    Ok(None)
}

/// Summaries of the segments that were written anew, by first number.
pub(super) type Summaries = BTreeMap<u64, Arc<Summary>>;
