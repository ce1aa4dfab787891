//! Keeping within the size limit: what goes first when the card is full, and how it goes without the writer waiting.
//!
//! In this order: damage set aside; whole segments that every peer has pulled, oldest first; whole segments that one
//! has; then, of what nobody has, the personal points that nobody may pull, the other personal ones, the internal ones,
//! each out of the oldest segments first (`thin.rs`); and only then whole segments again. Points without a known class
//! count as public: a mistake in the configuration must not cost readings.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    sync::{
        Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use tracing::{info, warn};

use super::{
    database::folder_size,
    gaps::undated,
    inner::{Inner, locked},
    segment::Segment,
    shelf::{Listed, Shelf},
    thin::{self, Plan, ThinFault},
    writer::Message,
};
use crate::{
    reading::{PointId, Sharing, Stored},
    store::{Cause, Gap, StoreError},
};

/// Largest segment on the card.
const SEGMENT: u64 = 64 << 20;
/// A segment is at least so large, whatever the limit: sled takes half a megabyte for nothing.
const SMALLEST_SEGMENT: u64 = 2 << 20;
/// What sealing may add to the card while room is being made.
pub(super) const MARGIN: u64 = 2 << 20;
/// What a segment written anew may take more than the old one.
const GROWTH: u64 = 1 << 20;
/// A segment is rewritten for what was pulled of it if that is so large a part.
const WORTHWHILE: u64 = 8;

/// Who may pull what: decides what a full card loses first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// The sharing class of each point.
    pub classes: HashMap<PointId, Sharing>,
    /// The peers of the configuration, by name, with the classes each may pull. Others, long removed perhaps, do not
    /// count.
    pub peers: BTreeMap<String, BTreeSet<Sharing>>,
}

impl Audience {
    fn rank(&self, point: &PointId) -> Rank {
        match self.classes.get(point) {
            Some(Sharing::Personal) if !self.sees(Sharing::Personal) => Rank::Nobodys,
            Some(Sharing::Personal) => Rank::Personal,
            Some(Sharing::Internal) => Rank::Internal,
            Some(Sharing::Public) | None => Rank::Public,
        }
    }

    fn sees(&self, class: Sharing) -> bool {
        self.peers.values().any(|classes| classes.contains(&class))
    }
}

/// In which order what nobody has pulled goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Nobodys,
    Personal,
    Internal,
    Public,
}

/// What the peers have pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pulled {
    by_all: u64,
    by_any: u64,
}

/// What making room knows and holds.
#[derive(Debug, Default)]
pub(super) struct Room {
    audience: RwLock<Option<Audience>>,
    /// Held by whoever writes segments anew or removes them.
    pub alone: Mutex<()>,
    /// Set at the stop.
    pub stopping: AtomicBool,
    /// Up to which rank each segment was searched, and up to which number for what was pulled.
    searched: Mutex<BTreeMap<u64, (Option<Rank>, u64)>>,
    /// The way to the writer, while there is one.
    pub writer: OnceLock<Weak<mpsc::SyncSender<Message>>>,
}

impl Room {
    /// Tells who may pull what.
    pub(super) fn know(&self, audience: Audience) {
        *self.audience.write().unwrap_or_else(PoisonError::into_inner) = Some(audience);
        locked(&self.searched).clear();
    }

    fn audience(&self) -> Option<Audience> {
        self.audience.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Up to which number somebody who counts has pulled.
    pub(super) fn pulled_by_any(&self, acknowledged: &BTreeMap<String, u64>) -> u64 {
        self.pulled(acknowledged).by_any
    }

    fn pulled(&self, acknowledged: &BTreeMap<String, u64>) -> Pulled {
        let audience = self.audience.read().unwrap_or_else(PoisonError::into_inner);
        let reached: Vec<u64> = match &*audience {
            // Nobody has said who counts: everyone does.
            None => acknowledged.values().copied().collect(),
            Some(audience) => {
                let seeing = audience.peers.iter().filter(|(_, classes)| !classes.is_empty());
                seeing.map(|(name, _)| acknowledged.get(name).copied().unwrap_or(0)).collect()
            }
        };
        let (by_all, by_any) = (reached.iter().min(), reached.iter().max());
        Pulled { by_all: by_all.copied().unwrap_or(0), by_any: by_any.copied().unwrap_or(0) }
    }
}

/// What goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A whole segment.
    Drop(u64),
    /// Out of a segment: the points up to a rank, and what was pulled.
    Thin(u64, Option<Rank>),
    /// There is nothing that may go.
    Nothing,
}

impl Inner {
    /// How large a segment grows.
    pub(super) fn segment_size(&self) -> u64 {
        (self.size_limit / 8).clamp(SMALLEST_SEGMENT, SEGMENT)
    }

    /// Bytes on the card, counted anew.
    pub(super) fn used(&self) -> u64 {
        let used = folder_size(&self.directory);
        self.bytes.store(used, Ordering::Relaxed);
        used
    }

    /// Whether a block more could break the limit.
    pub(super) fn is_full(&self) -> bool {
        self.used() + MARGIN > self.size_limit
    }

    /// Whether room should be made: one segment can still be written anew beside itself.
    pub(super) fn is_tight(&self) -> bool {
        self.used() + MARGIN + self.segment_size() + GROWTH > self.size_limit
    }

    /// Removes what may go first until the store has room again, or is told to stop.
    pub(super) fn make_room(&self) -> Result<(), StoreError> {
        let _alone = locked(&self.room.alone);
        while self.is_tight() && !self.room.stopping.load(Ordering::Relaxed) {
            if self.aside.drop_oldest() {
                continue;
            }
            match self.next_step() {
                Step::Drop(first) => self.drop_segment(first, Cause::SizeLimit)?,
                Step::Thin(first, rank) => match self.evict(first, rank) {
                    Err(ThinFault::Stopped) => return Ok(()),
                    other => other?,
                },
                Step::Nothing => return Ok(()),
            }
        }
        Ok(())
    }

    fn next_step(&self) -> Step {
        let pulled = self.room.pulled(&self.read().acknowledged);
        let audience = self.room.audience();
        let (segments, root) = {
            let shelf = locked(&self.shelf);
            let newest = shelf.newest();
            let full = shelf.listed().iter().filter(|(first, _)| Some(**first) != newest);
            let full = full.map(|(first, listed)| (*first, listed.last, shelf.summaries().get(first).cloned()));
            (full.collect::<Vec<_>>(), shelf.root().to_owned())
        };
        let Some((oldest, last, _)) = segments.first() else { return Step::Nothing };
        let has_room = |first| {
            let copy = folder_size(&Shelf::folder(&root, first)) + GROWTH;
            self.bytes.load(Ordering::Relaxed) + copy <= self.size_limit
        };
        if *last <= pulled.by_all || *last <= pulled.by_any {
            return Step::Drop(*oldest);
        }
        let Some(audience) = audience else { return Step::Drop(*oldest) };
        let searched = locked(&self.room.searched);
        let of = |first| searched.get(first).copied().unwrap_or_default();
        let part = (pulled.by_any + 1).saturating_sub((*oldest).max(of(oldest).1 + 1));
        if part > (last - oldest) / WORTHWHILE && has_room(*oldest) {
            return Step::Thin(*oldest, of(oldest).0);
        }
        for rank in [Rank::Nobodys, Rank::Personal, Rank::Internal] {
            let due = segments.iter().find(|(first, _, summary)| {
                let holds = || {
                    audience.classes.keys().any(|point| {
                        audience.rank(point) == rank
                            && summary.as_ref().is_none_or(|summary| summary.points.contains(point))
                    })
                };
                of(first).0 < Some(rank) && holds()
            });
            if let Some((first, _, _)) = due {
                // What is over the limit already has no place for a copy.
                return if has_room(*first) { Step::Thin(*first, Some(rank)) } else { Step::Drop(*oldest) };
            }
        }
        Step::Drop(*oldest)
    }

    /// Takes points up to a rank out of a segment, and what was pulled of it.
    fn evict(&self, first: u64, rank: Option<Rank>) -> Result<(), ThinFault> {
        let acknowledged = self.read().acknowledged.clone();
        let audience = self.room.audience().unwrap_or_default();
        let pulled = self.room.pulled(&acknowledged);
        let which = |stored: &Stored| {
            let goes = stored.seq <= pulled.by_any || Some(audience.rank(&stored.reading.point)) <= rank;
            goes.then_some(Cause::SizeLimit)
        };
        let is_loss = |stored: &Stored| {
            let class = audience.classes.get(&stored.reading.point);
            let has = |(name, classes): (&String, &BTreeSet<Sharing>)| {
                class.is_none_or(|class| classes.contains(class))
                    && acknowledged.get(name).is_some_and(|seq| *seq >= stored.seq)
            };
            !audience.peers.iter().any(has)
        };
        let clock = self.clock();
        let plan = Plan { which: &which, is_loss: &is_loss, clock: &clock, stop: &self.room.stopping };
        self.take_out(first, &plan, Cause::SizeLimit, false)?;
        locked(&self.room.searched).insert(first, (rank, pulled.by_any));
        Ok(())
    }

    /// Writes a segment anew without what is to be taken out, if it holds any or `anyway`; drops it when nothing is left.
    /// Returns how many readings went.
    pub(super) fn take_out(&self, first: u64, plan: &Plan<'_>, cause: Cause, anyway: bool) -> Result<u64, ThinFault> {
        let story = |error: StoreError| ThinFault::Store(Box::new(error));
        let Some(old) = self.segment(first).map_err(story)? else { return Ok(0) };
        if !anyway && !thin::is_due(&old, plan)? {
            return Ok(0);
        }
        let folder = Shelf::folder(locked(&self.shelf).root(), first);
        let file = |e| ThinFault::File(folder.clone(), e);
        let mut thinned = thin::copy(&old, &folder, &self.identity, plan)?;
        if thinned.summary.points.is_empty() {
            thin::discard_copy(&folder).map_err(file)?;
            self.count_loss(thinned.lost, cause);
            self.drop_told(first, cause, u64::MAX).map_err(story)?;
            return Ok(thinned.taken);
        }
        let counted = locked(&self.shelf).summaries().get(&first).map_or(0, |summary| summary.counted);
        thinned.summary.counted = counted + thinned.lost;
        thinned.summary.lost = self.read().lost + thinned.lost;
        if !self.swap(&old, &thinned.summary).map_err(file)? {
            thin::discard_copy(&folder).map_err(file)?;
            warn!(first, "Segment was salvaged while it was written anew");
            return Ok(0);
        }
        self.count_loss(thinned.lost, cause);
        info!(first, taken = thinned.taken, lost = thinned.lost, ?cause, "Readings taken out of a segment");
        thin::discard_old(&folder).map_err(file)?;
        Ok(thinned.taken)
    }

    /// Puts a copy in its segment's place; false when the segment is no longer the one that was copied.
    fn swap(&self, old: &std::sync::Arc<Segment>, summary: &thin::Summary) -> std::io::Result<bool> {
        let mut shelf = locked(&self.shelf);
        let current = shelf.get(old.first).is_ok_and(|current| std::sync::Arc::ptr_eq(&current, old));
        if !current {
            return Ok(false);
        }
        thin::take_place(&Shelf::folder(shelf.root(), old.first), summary)?;
        shelf.replaced(old.first, summary.clone());
        locked(&self.cache).turn();
        Ok(true)
    }

    fn drop_segment(&self, first: u64, cause: Cause) -> Result<(), StoreError> {
        let counted = locked(&self.shelf).summaries().get(&first).map_or(0, |summary| summary.counted);
        self.drop_told(first, cause, counted)
    }

    /// Removes a segment of which so many numbers were counted as lost before; all that were, with `u64::MAX`.
    fn drop_told(&self, first: u64, cause: Cause, counted: u64) -> Result<(), StoreError> {
        let (Listed { spans, .. }, last) = {
            let shelf = locked(&self.shelf);
            let end = shelf.after(first).unwrap_or(u64::MAX);
            (shelf.listed().get(&first).cloned().unwrap_or_default(), end - 1)
        };
        // Told first: a fall in between leaves a folder that is known to be gone.
        self.lose(Gap { from: spans.first(), to: spans.last(), ..undated(first, last, cause) }, counted)?;
        let folder = {
            let mut shelf = locked(&self.shelf);
            shelf.remove(first);
            Shelf::folder(shelf.root(), first)
        };
        locked(&self.cache).turn();
        locked(&self.room.searched).remove(&first);
        fs::remove_dir_all(&folder).map_err(|e| StoreError::new(format!("remove {}", folder.display()), e))?;
        if let Some(own) = &self.own {
            own.own_remove("segments", &first.to_be_bytes())?;
        }
        Ok(())
    }
}
