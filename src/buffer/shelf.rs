//! The segments in order of number: which there are, and the few that are open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use serde::{Deserialize, Serialize};

use super::{
    salvage::Before,
    segment::{self, Segment, SegmentFault},
    span::Spans,
    thin::{Summaries, Summary},
};

/// Open at once, besides the newest: sled costs memory and threads for each.
const MOST_OPEN: usize = 2;

/// What is known of a segment without opening it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    /// Its last number; 0 while it is the newest.
    pub last: u64,
    pub spans: Spans,
}

/// All segments.
#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    identity: [u8; 16],
    /// The card is to be left as it is.
    reading: bool,
    listed: BTreeMap<u64, Listed>,
    summaries: Summaries,
    open: Vec<Arc<Segment>>,
    /// Let go of here, perhaps still read from: sled opens a folder only once.
    lent: Vec<Weak<Segment>>,
    /// Those whose database is of no more use, until they are salvaged.
    given_up: BTreeSet<u64>,
    /// Opened since the start, or made: what sled lists of them is all there was.
    proven: BTreeSet<u64>,
    /// What sled did not list any more and was put back, until somebody tells it.
    fallen: Vec<Fallen>,
    /// The files of those that did not open, until they are salvaged.
    before: BTreeMap<u64, Before>,
}

/// A block that was in a segment's files and no longer listed; put back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fallen {
    /// The segment's first number.
    pub place: u64,
    pub first: u64,
    pub last: u64,
}

impl Shelf {
    pub(super) fn new(root: PathBuf, identity: [u8; 16]) -> Self {
        Self {
            root,
            identity,
            reading: false,
            listed: BTreeMap::new(),
            summaries: Summaries::new(),
            open: Vec::new(),
            lent: Vec::new(),
            given_up: BTreeSet::new(),
            proven: BTreeSet::new(),
            fallen: Vec::new(),
            before: BTreeMap::new(),
        }
    }

    /// Of a card that is to be left as it is: segments are read in copies.
    pub(super) fn only_reading(self) -> Self {
        Self { reading: true, ..self }
    }

    /// The folder of the segment that begins with `first`.
    pub(super) fn folder(root: &Path, first: u64) -> PathBuf {
        root.join(format!("{first:020}"))
    }

    /// The segments there are by their folders, and what else lies there.
    pub(super) fn on_card(root: &Path) -> (Vec<u64>, Vec<PathBuf>) {
        let (mut firsts, mut strangers) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            match name.to_str().filter(|name| name.len() == 20).and_then(|name| name.parse().ok()) {
                Some(first) => firsts.push(first),
                None => strangers.push(entry.path()),
            }
        }
        firsts.sort_unstable();
        (firsts, strangers)
    }

    pub(super) fn list(&mut self, first: u64, listed: Listed) {
        self.listed.insert(first, listed);
    }

    pub(super) fn listed(&self) -> &BTreeMap<u64, Listed> {
        &self.listed
    }

    /// A segment just made or opened.
    pub(super) fn put(&mut self, segment: Segment) -> Arc<Segment> {
        let segment = Arc::new(segment);
        self.listed.entry(segment.first).or_default();
        self.forget(segment.first);
        self.given_up.remove(&segment.first);
        self.proven.insert(segment.first);
        self.open.push(Arc::clone(&segment));
        let newest = self.newest();
        while self.open.len() > MOST_OPEN + 1 {
            let Some(oldest) = self.open.iter().map(|open| open.first).find(|first| Some(*first) != newest) else {
                break;
            };
            self.close(oldest);
        }
        self.lent.retain(|lent| lent.strong_count() > 0);
        self.lent.push(Arc::downgrade(&segment));
        segment
    }

    /// The segment that begins with `first`, opened if need be: never one that sled would harm by opening it.
    pub(super) fn get(&mut self, first: u64) -> Result<Arc<Segment>, SegmentFault> {
        let lent: Vec<_> =
            self.lent.iter().filter_map(Weak::upgrade).filter(|segment| segment.first == first).collect();
        if self.given_up.contains(&first) || lent.iter().any(|segment| segment.is_given_up()) {
            self.forget(first);
            self.given_up.insert(first);
            return Err(Segment::given_up(Self::folder(&self.root, first)));
        }
        if let Some(place) = self.open.iter().position(|segment| segment.first == first) {
            let segment = self.open.remove(place);
            self.open.push(Arc::clone(&segment));
            return Ok(segment);
        }
        if let Some(segment) = lent.into_iter().next() {
            self.open.push(Arc::clone(&segment));
            return Ok(segment);
        }
        let folder = Self::folder(&self.root, first);
        if self.reading {
            return Ok(self.put(Segment::open_to_read(&folder, first, &self.identity)?));
        }
        let before = (!self.proven.contains(&first)).then(|| self.files_of(first));
        let opened = match &before {
            // The newest may have been torn by a power cut, which the head makes good; the others were whole once.
            Some(before) if self.newest() != Some(first) && !before.large_nodes_are_sound => {
                Err(SegmentFault::Damaged { what: "a large node".to_owned(), folder })
            }
            _ => Segment::open(&folder, first, &self.identity),
        };
        let segment = match opened {
            Ok(segment) => segment,
            Err(fault) => {
                self.before.extend(before.map(|before| (first, before)));
                return Err(fault);
            }
        };
        let back = before.map(|before| segment.take_back(&before)).unwrap_or_default();
        self.fallen.extend(back.into_iter().map(|(from, last)| Fallen { place: first, first: from, last }));
        Ok(self.put(segment))
    }

    /// A segment's files as they were before it was first opened.
    pub(super) fn before(&mut self, first: u64) -> Before {
        self.before.remove(&first).unwrap_or_else(|| self.files_of(first))
    }

    fn files_of(&self, first: u64) -> Before {
        let end = self.after(first).unwrap_or(u64::MAX);
        Before::read(&Self::folder(&self.root, first), first, end, segment::short(&self.identity))
    }

    /// What was put back since this was last asked.
    pub(super) fn fallen(&mut self) -> Vec<Fallen> {
        std::mem::take(&mut self.fallen)
    }

    /// Lets go of an open segment.
    pub(super) fn close(&mut self, first: u64) {
        if self.open.iter().any(|segment| segment.first == first && segment.is_given_up()) {
            self.given_up.insert(first);
        }
        self.open.retain(|segment| segment.first != first);
    }

    /// Lets go of a segment that does not read, for good: whoever still holds it keeps it to himself.
    pub(super) fn forget(&mut self, first: u64) {
        self.close(first);
        self.lent.retain(|lent| lent.upgrade().is_some_and(|segment| segment.first != first));
    }

    /// Strikes a segment off.
    pub(super) fn remove(&mut self, first: u64) {
        self.close(first);
        self.given_up.remove(&first);
        self.proven.remove(&first);
        self.before.remove(&first);
        self.listed.remove(&first);
        self.summaries.remove(&first);
    }

    /// Notes what was taken out of a segment.
    pub(super) fn summarise(&mut self, first: u64, summary: Summary) {
        if summary.gaps.is_empty() {
            self.summaries.remove(&first);
        } else {
            self.summaries.insert(first, Arc::new(summary));
        }
    }

    pub(super) fn summaries(&self) -> &Summaries {
        &self.summaries
    }

    /// A segment was written anew under its name. Whoever still reads the old one may finish; nobody gets it any more.
    pub(super) fn replaced(&mut self, first: u64, summary: Summary) {
        self.close(first);
        self.lent.retain(|lent| lent.upgrade().is_some_and(|segment| segment.first != first));
        self.summarise(first, summary);
    }

    /// The first number of the segment in which `seq` would lie.
    pub(super) fn place_of(&self, seq: u64) -> Option<u64> {
        self.listed.range(..=seq).next_back().map(|(first, _)| *first)
    }

    /// The first number of the segment after that.
    pub(super) fn after(&self, first: u64) -> Option<u64> {
        self.listed.range(first.saturating_add(1)..).next().map(|(first, _)| *first)
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.listed.last_key_value().map(|(first, _)| *first)
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.listed.first_key_value().map(|(first, _)| *first)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}
