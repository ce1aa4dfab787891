//! Opening the store, whatever state it is in: what is sound is served, what is not is set aside, counted and told.
//!
//! Nothing here reads all readings: the newest segment's index, the head, and the records.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, RwLock, atomic::AtomicU64},
};

use rand::RngExt;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Buffer, Finding, OpenFault, Opened, RECORDS, Settings,
    block::MOST_READINGS,
    current::Current,
    database::folder_size,
    gaps::{Gaps, undated},
    head::{self, Head},
    inner::{Device, Inner, Slot, State},
    keeping::{CardKeep, KeepState},
    kinds,
    marker::{Mark, Marker},
    ring::Ring,
    room::Room,
    salvage::{self, Aside},
    segment::{self, Beside, Segment, SegmentFault},
    shelf::{Fallen, Listed, Shelf},
    thin::Summary,
    times,
    writer::Writer,
};
use crate::{
    clock::{Clock, HeldTime, Note, PROVISIONAL, Source},
    condition::Code,
    reading::Stored,
    store::{Cause, Gap, StoreError},
    supervisor::chain,
};

/// A limit below this leaves no room for the head, the records and two segments.
const SMALLEST: u64 = 24 << 20;
/// Blocks read at most to find the newest reading of each point, when the table of them is missing.
const LOOK_BACK: usize = 64;
/// Notes about the clock, at most: ten years of a box that is started twice a day. Older ones go.
const MOST_NOTES: usize = 20_000;

impl Buffer {
    /// Opens the store, creating it where there is none.
    ///
    /// # Errors
    /// When the directory cannot be created, written or locked: then [`Buffer::in_memory`] is what remains.
    pub fn open(settings: &Settings) -> Result<Opened, OpenFault> {
        Self::open_as(settings, Manner::Careful, Joints::default())
    }

    /// The same, joined to what is there already.
    pub(super) fn open_as(settings: &Settings, manner: Manner, joints: Joints) -> Result<Opened, OpenFault> {
        let directory = &settings.directory;
        let refused = |source| OpenFault::Directory { directory: directory.clone(), source };
        if manner == Manner::Reading {
            let mark = Marker::read(&directory.join("marker")).map_err(refused)?;
            return Opening::new(settings, manner, None, mark, true)?.finish(joints);
        }
        fs::create_dir_all(directory).map_err(refused)?;
        let aside = aside_of(settings);
        let mut set_aside = kinds::free_marker(directory, &aside);
        let (marker, mark, existed) = Marker::open(&directory.join("marker")).map_err(refused)?;
        set_aside.extend(kinds::set_right(directory, &aside));
        fs::create_dir_all(directory.join("segments")).map_err(refused)?;
        let mut opening = Opening::new(settings, manner, Some(marker), mark, existed || !set_aside.is_empty())?;
        opening.findings.splice(0..0, set_aside.into_iter().map(damaged));
        opening.finish(joints)
    }

    /// A store whose card cannot be used, for the reason `why`: readings are held in memory, records too; nothing is
    /// accepted, so that devices that can send again do, and nothing is served, so that no peer takes what it is told for
    /// the store's.
    pub fn in_memory(settings: &Settings, why: String) -> Opened {
        Self::unopened(settings, Joints { why, ..Joints::default() })
    }

    pub(super) fn unopened(settings: &Settings, Joints { head, ring, why }: Joints) -> Opened {
        let boot = provisional_boot();
        let identity = rand::rng().random();
        let inner = assemble(Parts {
            directory: PathBuf::new(),
            size_limit: 0,
            identity,
            keep: Arc::new(CardKeep::unread()),
            state: State::default(),
            shelf: Shelf::new(PathBuf::new(), identity),
            marker: None,
            head,
            clock: frozen(boot, &[]),
        });
        let current = Current::new(inner, ring, boot);
        let writer = Writer::new(Arc::clone(&current), Err(why.clone()), 1);
        Opened {
            buffer: Buffer::new(current, writer, settings.commit_within),
            boot,
            samples: Vec::new(),
            notes: Vec::new(),
            newest: None,
            newest_ms: None,
            findings: Vec::new(),
            unusable: Some(why),
        }
    }
}

/// What stores that take one another's place have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Joints {
    /// Where news is told.
    pub head: watch::Sender<u64>,
    /// What waits for the card.
    pub ring: Arc<Ring>,
    /// Why the card takes no writes, when it does not.
    pub why: String,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// What cannot be read for now may be read later.
    Careful,
    /// What cannot be read is lost: it was tried often enough.
    Resolute,
    /// The card takes no writes: what it holds is served, and it is left as it is.
    Reading,
}

/// What was written down under such a number stays dated for good.
fn provisional_boot() -> u32 {
    rand::rng().random::<u32>() | PROVISIONAL
}

/// A clock that only dates what is stored, until the gateway's own is known.
fn frozen(boot: u32, notes: &[Note]) -> Clock {
    Clock::knowing(boot, HeldTime::at(0, Source::Unknown), notes.iter().copied())
}

struct Parts {
    directory: PathBuf,
    size_limit: u64,
    identity: [u8; 16],
    keep: Arc<CardKeep>,
    state: State,
    shelf: Shelf,
    marker: Option<Marker>,
    head: watch::Sender<u64>,
    clock: Clock,
}

fn assemble(parts: Parts) -> Arc<Inner> {
    let known = parts.keep.is_known();
    let bytes = AtomicU64::new(if known { folder_size(&parts.directory) } else { 0 });
    let inner = Inner {
        device: if known { Device::of(&parts.directory) } else { Device::default() },
        latency: Mutex::default(),
        oldest: AtomicU64::new(0),
        aside: Aside::new(parts.directory.join("damaged"), parts.size_limit / 8),
        directory: parts.directory,
        size_limit: parts.size_limit,
        identity: parts.identity,
        own: known.then(|| Arc::clone(&parts.keep)),
        keep: parts.keep,
        state: RwLock::new(parts.state),
        shelf: Mutex::new(parts.shelf),
        marker: Mutex::new(parts.marker),
        noting: Mutex::default(),
        cache: Mutex::default(),
        room: Room::default(),
        head: parts.head,
        clock: RwLock::new(parts.clock),
        board: OnceLock::new(),
        waiting: AtomicU64::new(0),
        bytes,
    };
    Arc::new(inner)
}

/// The work of opening, step by step.
struct Opening<'a> {
    settings: &'a Settings,
    manner: Manner,
    aside: Aside,
    /// `None` when the card is only read.
    marker: Option<Marker>,
    mark: Mark,
    /// The marker told nothing: how far numbers went, only the readings tell.
    unmarked: bool,
    /// What was put back: into which segment, from which number to which.
    returned: Vec<(u64, u64, u64)>,
    keep: Arc<CardKeep>,
    shelf: Shelf,
    gaps: Gaps,
    findings: Vec<Finding>,
}

impl<'a> Opening<'a> {
    fn new(
        settings: &'a Settings,
        manner: Manner,
        marker: Option<Marker>,
        mark: Option<Mark>,
        existed: bool,
    ) -> Result<Self, OpenFault> {
        let directory = &settings.directory;
        let root = directory.join("segments");
        let aside = aside_of(settings);
        let mut findings = Vec::new();
        let existed = existed
            || directory.join("head").exists()
            || directory.join("keep").exists()
            || !Shelf::on_card(&root).0.is_empty();
        let (mut keep, state) = match manner {
            Manner::Reading => (CardKeep::open_to_read(&directory.join("keep"))?, KeepState::default()),
            _ => CardKeep::open(&directory.join("keep"), existed, |path| aside.take(path))?,
        };
        findings.extend(state.damage.map(|damage| damaged(format!("{RECORDS}: {damage}"))));
        let mut mark = mark;
        let (marked, noted) = (mark.map(|mark| mark.identity), noted_identity(&keep));
        if marked != noted && existed && manner != Manner::Reading {
            let ours = owner(directory, marked, noted);
            if marked.is_some_and(|marked| Some(marked) != ours) {
                findings.push(damaged("the marker is that of another store; it is made anew".to_owned()));
                mark = None;
            }
            if noted.is_some_and(|noted| Some(noted) != ours) {
                drop(keep);
                let place = aside.take(&directory.join("keep"))?;
                let detail = format!("{RECORDS}: they are another store's; set aside in {}", place.display());
                findings.push(damaged(detail));
                keep = CardKeep::open(&directory.join("keep"), false, |path| aside.take(path))?.0;
            }
        }
        let identity =
            mark.map(|mark| mark.identity).or_else(|| noted_identity(&keep)).or_else(|| borrowed_identity(&root));
        if existed && mark.is_none() {
            findings.push(damaged("the marker of the store did not read; it is made anew".to_owned()));
        }
        let unmarked = existed && mark.is_none();
        let mark =
            mark.unwrap_or(Mark { identity: identity.unwrap_or_else(|| rand::rng().random()), ..Mark::default() });
        if manner != Manner::Reading
            && noted_identity(&keep) != Some(mark.identity)
            && let Err(error) = keep.own_put("store", b"identity", &mark.identity)
        {
            warn!(why = chain(&error), "Name of the store not noted twice");
        }
        let gaps = read_gaps(&keep);
        let shelf = Shelf::new(root, mark.identity);
        let shelf = if manner == Manner::Reading { shelf.only_reading() } else { shelf };
        Ok(Self {
            settings,
            manner,
            aside,
            marker,
            mark,
            unmarked,
            returned: Vec::new(),
            keep: Arc::new(keep),
            shelf,
            gaps,
            findings,
        })
    }

    fn finish(mut self, joints: Joints) -> Result<Opened, OpenFault> {
        self.list_segments();
        self.open_newest()?;
        let (scan, head_lost) = self.read_head()?;
        self.prove_sealed(&scan)?;
        let mut notes = self.notes();
        let store = segment::short(&self.mark.identity);
        let boot = self.next_boot(&scan, &notes);
        notes.retain(|note| times::boot_of(note) < boot || times::boot_of(note) >= PROVISIONAL);

        let sealed = self.sealed();
        let runs = self.uncovered_runs(&scan)?;
        if self.manner != Manner::Reading {
            self.put_back(&runs, sealed)?;
            self.look_beneath_sled(sealed);
            self.tell_fallen(&scan);
        }
        let slots = runs.into_iter().filter(|run| run.first > sealed).collect::<VecDeque<_>>();
        let high = self.highest(sealed, &slots, &scan, head_lost);
        self.mark = Mark {
            boot,
            reserved: self.mark.reserved.max(high),
            closed: false,
            used: !scan.records.is_empty(),
            ..self.mark
        };
        let new_gaps = self.find_holes(&slots, high, sealed, &scan);
        if self.manner != Manner::Reading {
            self.list_returned();
        }
        self.mark.lost += new_gaps.iter().map(|gap| self.gaps.add(gap.clone())).sum::<u64>();
        if self.manner == Manner::Reading {
            let state = self.state(slots, &notes);
            let why = Err(joints.why.clone());
            return Ok(self.opened(provisional_boot(), notes, state, why, high, joints));
        }
        let marked = self.marker.as_mut().map_or(Ok(()), |marker| marker.write(self.mark));
        marked.map_err(|source| self.refused(source))?;
        if !new_gaps.is_empty() {
            self.keep_gaps();
        }

        let last_commit = scan.last_commit;
        let mut head = Head::new(Box::new(self.head_file()?), store, last_commit);
        slots.iter().for_each(|slot| head.keep(slot.place));
        let state = self.state(slots, &notes);
        Ok(self.opened(boot, notes, state, Ok(head), high, joints))
    }

    fn opened(
        self,
        boot: u32,
        notes: Vec<Note>,
        state: State,
        head: Result<Head, String>,
        high: u64,
        joints: Joints,
    ) -> Opened {
        let clock = frozen(boot, &notes);
        let wall = |stored: &Stored| clock.resolve(stored.reading.stamp).map(|wall| wall.unix_ms);
        let newest_ms = state.newest.values().filter_map(wall).max();
        let newest = state.newest.values().map(|stored| stored.reading.stamp).max();
        info!(last = high, boot, findings = self.findings.len(), "Store opened");
        joints.head.send_replace(high);
        let inner = assemble(Parts {
            directory: self.settings.directory.clone(),
            size_limit: self.settings.size_limit.max(SMALLEST),
            identity: self.mark.identity,
            keep: self.keep,
            state,
            shelf: self.shelf,
            marker: self.marker,
            head: joints.head,
            clock,
        });
        let current = Current::new(inner, joints.ring, boot);
        let unusable = head.as_ref().err().cloned();
        let writer = Writer::new(Arc::clone(&current), head, high + 1);
        let buffer = Buffer::new(current, writer, self.settings.commit_within);
        let sample = |note: &Note| if let Note::Sample(sample) = note { Some(*sample) } else { None };
        let samples = notes.iter().filter_map(sample).collect();
        Opened { buffer, boot, samples, notes, newest, newest_ms, findings: self.findings, unusable }
    }

    fn refused(&self, source: std::io::Error) -> OpenFault {
        OpenFault::Directory { directory: self.settings.directory.clone(), source }
    }

    /// Lists the segments by their folders; drops those already told as gone; opens none.
    fn list_segments(&mut self) {
        let root = self.shelf.root().to_owned();
        let (_, strangers) = Shelf::on_card(&root);
        let strangers = if self.manner == Manner::Reading { Vec::new() } else { strangers };
        for path in strangers {
            if path.extension().is_some_and(|extension| ["new", "thin", "old"].iter().any(|word| extension == *word)) {
                let _ = salvage::finish(&path.with_extension(""));
                continue;
            }
            match self.aside.take(&path) {
                Ok(place) => {
                    self.findings.push(damaged(format!(
                        "{} is no segment; set aside in {}",
                        path.display(),
                        place.display()
                    )));
                }
                Err(error) => warn!(why = chain(&error), "Stranger among the segments not set aside"),
            }
        }
        let (firsts, _) = Shelf::on_card(&root);
        let noted = self.noted_segments();
        for (place, first) in firsts.iter().enumerate() {
            let end = firsts.get(place + 1).copied();
            let told = self.gaps.at(*first).filter(|gap| matches!(gap.cause, Cause::SizeLimit | Cause::Erased));
            if let (Some(gap), Some(end)) = (told, end)
                && gap.last >= end - 1
            {
                let _ = fs::remove_dir_all(Shelf::folder(&root, *first));
                continue;
            }
            self.shelf.list(*first, noted.get(first).cloned().unwrap_or_default());
            self.summarise(*first);
        }
        for first in noted.keys().filter(|first| !firsts.contains(first) && self.gaps.at(**first).is_none()) {
            self.findings.push(damaged(format!("the folder of the segment from {first} on is gone")));
        }
    }

    /// What was taken out of a segment, by its mark or, if that does not read, by all it holds.
    fn summarise(&mut self, first: u64) {
        let folder = Shelf::folder(self.shelf.root(), first);
        let summary = Summary::read(&folder).unwrap_or_else(|| {
            let Ok(segment) = self.shelf.get(first) else { return Summary::default() };
            let mut summary = Summary::default();
            let blocks = segment.covers().into_iter().filter_map(|(first, _)| segment.block(first).ok());
            blocks.for_each(|block| summary.add(&block));
            summary
        });
        self.mark.lost = self.mark.lost.max(summary.lost);
        self.shelf.summarise(first, summary);
    }

    fn noted_segments(&self) -> HashMap<u64, Listed> {
        let list = self.keep.own_list("segments").unwrap_or_default();
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            Some((u64::from_be_bytes(*key.first_chunk()?), postcard::from_bytes(value).ok()?))
        };
        list.iter().filter_map(read).collect()
    }

    /// Opens the newest segment and those of which nothing is noted.
    fn open_newest(&mut self) -> Result<(), OpenFault> {
        let (root, store) = (self.shelf.root().to_owned(), segment::short(&self.mark.identity));
        let unknown =
            self.shelf.listed().iter().filter(|(first, listed)| {
                listed.last == 0 || salvage::is_anothers(&Shelf::folder(&root, **first), store)
            });
        for first in unknown.map(|(first, _)| *first).collect::<Vec<_>>() {
            self.open_and_list(first)?;
        }
        // What was the newest may have turned out to be another store's.
        while let Some(first) = self.shelf.newest() {
            if self.open_and_list(first)? {
                break;
            }
        }
        Ok(())
    }

    fn open_and_list(&mut self, first: u64) -> Result<bool, OpenFault> {
        let Some(segment) = self.open_segment(first)? else { return Ok(false) };
        if self.shelf.newest() != Some(first) {
            let mut listed = Listed::default();
            segment.covers().iter().for_each(|(_, cover)| {
                listed.last = cover.last;
                listed.spans.merge(&cover.spans);
            });
            self.shelf.list(first, listed);
        }
        Ok(true)
    }

    /// `None` when nothing of it can be used; it is then struck off.
    fn open_segment(&mut self, first: u64) -> Result<Option<Arc<Segment>>, OpenFault> {
        match self.shelf.get(first) {
            Ok(segment) => Ok(Some(segment)),
            Err(fault) => self.mend(first, fault),
        }
    }

    /// Makes of a segment what can still be made of it.
    fn mend(&mut self, first: u64, fault: SegmentFault) -> Result<Option<Arc<Segment>>, OpenFault> {
        let folder = Shelf::folder(self.shelf.root(), first);
        let why = chain(&fault);
        if fault.may_pass() {
            // To go on without it would tell sound readings as lost.
            return Err(OpenFault::Records(StoreError::new("open the newest segment", fault)));
        }
        let (segment, detail) = if matches!(fault, SegmentFault::Foreign(_)) {
            self.shelf.remove(first);
            let place = self.aside.take(&folder).map_or_else(|e| chain(&e), |place| place.display().to_string());
            (None, format!("{why}; set aside: {place}"))
        } else {
            let before = self.shelf.before(first);
            match salvage::segment(&folder, first, &self.mark.identity, &self.aside, &before) {
                Ok(saved) => {
                    let detail = format!("{why}; {} blocks saved, the rest in {}", saved.blocks, saved.aside.display());
                    (Some(self.shelf.put(saved.segment)), detail)
                }
                Err(error) => {
                    self.shelf.remove(first);
                    (None, format!("{why}; {}", chain(&error)))
                }
            }
        };
        self.findings.push(damaged(detail));
        Ok(segment)
    }

    /// The head file's records. True when there should be one and there is none that reads.
    fn read_head(&mut self) -> Result<(head::Scan, bool), OpenFault> {
        let path = self.settings.directory.join("head");
        let missing = !path.exists();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            // It may go better later; a card that never gives it back must not keep the store shut for ever.
            Err(error) if self.manner == Manner::Careful => return Err(self.refused(error)),
            Err(_) => Vec::new(),
        };
        if self.manner != Manner::Reading {
            self.write_again(&path, &bytes)?;
        }
        let expected = self.mark.reserved > 0 || self.unmarked;
        let short = (bytes.len() as u64) < head::SLOT * head::SLOTS as u64;
        let mut lost = expected && (missing || short);
        if missing && expected {
            self.findings.push(damaged("the head of the store is gone".to_owned()));
        } else if short && expected {
            self.findings.push(damaged(format!("the head of the store is cut to {} bytes", bytes.len())));
        }
        let scan = head::scan(&bytes, segment::short(&self.mark.identity));
        let nothing = scan.records.is_empty() && scan.wounded.is_empty();
        let blank = bytes.iter().all(|byte| *byte == 0);
        if expected && nothing && !missing && !short && (!blank || self.mark.used) {
            self.findings.push(damaged("the head of the store holds nothing of this store".to_owned()));
            lost = true;
        }
        lost &= self.unmarked || scan.records.last().is_none_or(|found| found.claim.last() < self.mark.reserved);
        Ok((scan, lost))
    }

    /// What is about to be served must be on the card, and not only in the page cache: after a sync that failed before a
    /// fall the system takes it for written, and only writing it again is sure.
    fn write_again(&self, path: &Path, bytes: &[u8]) -> Result<(), OpenFault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let again = || {
            let file = fs::File::options().write(true).open(path)?;
            file.write_all_at(bytes, 0)?;
            file.sync_data()
        };
        again().map_err(|error| self.refused(error))
    }

    fn head_file(&self) -> Result<fs::File, OpenFault> {
        let path = self.settings.directory.join("head");
        let whole = fs::metadata(&path).is_ok_and(|data| data.len() >= head::SLOT * head::SLOTS as u64);
        let file = if whole { fs::File::options().read(true).write(true).open(&path) } else { head::complete(&path) };
        let file = file.map_err(|source| self.refused(source))?;
        super::database::sync_folder(&self.settings.directory)
            .map_err(|fault| OpenFault::Records(StoreError::new("sync the directory of the store", fault)))?;
        Ok(file)
    }

    /// A block may be listed whose own bytes did not reach the card before a power cut: sled keeps large ones in files of
    /// their own. Those the head still has are looked at; for one that is not whole the head's copy holds.
    fn prove_sealed(&mut self, scan: &head::Scan) -> Result<(), OpenFault> {
        let in_head = |first: u64, last: u64| {
            scan.records.iter().any(|found| found.claim.first <= last && first <= found.claim.last())
        };
        let Some(newest) = self.shelf.newest() else { return Ok(()) };
        let Some(segment) = self.open_segment(newest)? else { return Ok(()) };
        for (first, _) in segment.covers().iter().filter(|(first, cover)| in_head(*first, cover.last)) {
            match segment.has_whole(*first) {
                Ok(true) => {}
                Ok(false) => segment.forget(*first),
                Err(fault) => {
                    self.shelf.forget(newest);
                    drop(segment);
                    self.mend(newest, fault)?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What is known of the clock; from the copies in the segments when the records were lost.
    fn notes(&mut self) -> Vec<Note> {
        let list = self.keep.own_list("samples").unwrap_or_default();
        let mut notes = list.iter().filter_map(|(key, value)| times::decode(key, value)).collect::<Vec<_>>();
        if notes.is_empty() {
            let firsts = self.shelf.listed().keys().copied().collect::<Vec<_>>();
            let segments = firsts.into_iter().filter_map(|first| self.shelf.get(first).ok()).collect::<Vec<_>>();
            notes = segments.iter().flat_map(|segment| segment.notes()).collect();
            notes.sort_by_key(|note| times::key(b"", note));
            notes.dedup_by_key(|note| times::key(b"", note));
            let pairs = notes.iter().map(|note| (times::key(b"", note), times::encode(note))).collect::<Vec<_>>();
            if let Err(error) = self.keep.own_put_all("samples", &pairs) {
                warn!(why = chain(&error), "Samples of the clock not copied back");
            }
        }
        notes.sort_by_key(|note| times::key(b"", note));
        let kept = notes.split_off(notes.len().saturating_sub(MOST_NOTES));
        for note in notes {
            if let Err(error) = self.keep.own_remove("samples", &times::key(b"", &note)) {
                warn!(why = chain(&error), "The oldest samples of the clock not removed");
                break;
            }
        }
        kept
    }

    fn next_boot(&self, scan: &head::Scan, notes: &[Note]) -> u32 {
        let in_head = scan.records.iter().flat_map(|found| &found.readings).map(|stored| stored.reading.stamp.boot);
        let in_segments = self.shelf.listed().values().filter_map(|listed| listed.spans.last()).map(|stamp| stamp.boot);
        let known = notes.iter().map(times::boot_of);
        let all = in_head.chain(in_segments).chain(known).chain([self.mark.boot]);
        all.filter(|boot| *boot < PROVISIONAL).max().unwrap_or(0).saturating_add(1)
    }

    /// The highest number in a segment.
    fn sealed(&mut self) -> u64 {
        let newest = self.shelf.newest();
        let in_newest = newest.and_then(|first| self.shelf.get(first).ok()).and_then(|segment| segment.covers().pop());
        let noted = self.shelf.listed().values().map(|listed| listed.last).max().unwrap_or(0);
        in_newest.map_or(0, |(_, cover)| cover.last).max(noted)
    }

    /// Ranges of numbers that are in a segment or told as lost, in order.
    fn covered(&mut self) -> Vec<(u64, u64)> {
        let newest = self.shelf.newest();
        let mut covered = self.gaps.all().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>();
        let older = self.shelf.listed().iter().filter(|(first, _)| Some(**first) != newest);
        covered.extend(older.map(|(first, listed)| (*first, listed.last)));
        covered.extend(self.returned.iter().map(|(_, first, last)| (*first, *last)));
        let segment = newest.and_then(|first| self.shelf.get(first).ok());
        covered.extend(segment.iter().flat_map(|segment| segment.covers()).map(|(first, cover)| (first, cover.last)));
        covered.sort_unstable();
        covered
    }

    /// What only the head has, in runs without a hole, each within one slot.
    fn uncovered_runs(&mut self, scan: &head::Scan) -> Result<Vec<Slot>, OpenFault> {
        let covered = self.proven(scan)?;
        let is_covered = |seq: u64| {
            let place = covered.partition_point(|(first, _)| *first <= seq);
            covered.get(..place).unwrap_or_default().iter().rev().take(8).any(|(_, last)| *last >= seq)
        };
        let mut runs = Vec::<Slot>::new();
        for found in &scan.records {
            for stored in found.readings.iter().filter(|stored| !is_covered(stored.seq)) {
                match runs.last_mut().filter(|run| run.end() == stored.seq && run.place == found.slot) {
                    Some(run) => run.readings.push(stored.reading.clone()),
                    None => {
                        runs.push(Slot { place: found.slot, first: stored.seq, readings: vec![stored.reading.clone()] })
                    }
                }
            }
        }
        Ok(runs)
    }

    /// As [`Self::covered`], but an older segment of which the head still has a part is opened: what that lost by damage
    /// would otherwise be missed when the head is written over.
    fn proven(&mut self, scan: &head::Scan) -> Result<Vec<(u64, u64)>, OpenFault> {
        if self.manner == Manner::Reading {
            return Ok(self.covered());
        }
        let newest = self.shelf.newest();
        let in_head = |first: u64, last: u64| {
            scan.records.iter().any(|found| found.claim.first <= last && first <= found.claim.last())
        };
        let older = self.shelf.listed().iter().filter(|(first, _)| Some(**first) != newest);
        let shared = older.filter(|(first, listed)| in_head(**first, listed.last)).map(|(first, _)| *first);
        let shared = shared.collect::<Vec<_>>();
        let mut covered = self.covered();
        for place in shared {
            let Some(Listed { last, .. }) = self.shelf.listed().get(&place).cloned() else { continue };
            let segment = self.open_segment(place)?;
            covered.retain(|range| *range != (place, last));
            let covers = segment.iter().flat_map(|segment| segment.covers());
            covered.extend(covers.map(|(first, cover)| (first, cover.last)));
        }
        covered.sort_unstable();
        Ok(covered)
    }

    /// Readings that a segment lost and the head still has go back where they belong.
    fn put_back(&mut self, runs: &[Slot], sealed: u64) -> Result<(), OpenFault> {
        for run in runs.iter().filter(|run| run.first <= sealed) {
            let Some(place) = self.shelf.place_of(run.first) else { continue };
            let Some(segment) = self.open_segment(place)? else { continue };
            match segment.put(run.first, &run.readings, Beside::default()) {
                Ok(_) => {
                    self.returned.push((place, run.first, run.end() - 1));
                    info!(first = run.first, count = run.readings.len(), "Readings put back from the head");
                }
                Err(fault) => warn!(why = chain(&fault), "Readings not put back"),
            }
        }
        Ok(())
    }

    /// sled may open and yet have dropped what a damaged part of its file held; opening a segment puts it back. Those with
    /// holes are opened.
    fn look_beneath_sled(&mut self, sealed: u64) {
        for hole in self.holes(sealed, &[]) {
            let _ = self.shelf.place_of(hole.first).map(|place| self.shelf.get(place));
        }
    }

    /// What had fallen out of sled is told, unless a power cut explains it: then the head has it too.
    fn tell_fallen(&mut self, scan: &head::Scan) {
        let fallen = self.shelf.fallen();
        self.returned.extend(fallen.iter().map(|Fallen { place, first, last }| (*place, *first, *last)));
        let in_head = |seq: u64| scan.records.iter().any(|f| f.claim.first <= seq && seq <= f.claim.last());
        let lost = fallen.iter().filter(|fallen| !(in_head(fallen.first) && in_head(fallen.last))).collect::<Vec<_>>();
        if let Some(Fallen { first, .. }) = lost.first() {
            let detail = format!("{} blocks from {first} on had fallen out of sled; put back", lost.len());
            self.findings.push(damaged(detail));
        }
    }

    /// The highest number ever given out, as far as anything tells.
    fn highest(&self, sealed: u64, slots: &VecDeque<Slot>, scan: &head::Scan, head_lost: bool) -> u64 {
        let in_head = slots.iter().map(|slot| slot.end() - 1).max().unwrap_or(0);
        let unmarked = self.unmarked && head_lost;
        let reserved = if head_lost || self.mark.closed { self.mark.reserved } else { 0 };
        // Neither tells how far numbers went: no head ever held more than this.
        let reserved = if unmarked { sealed + head::SLOTS as u64 * MOST_READINGS as u64 } else { reserved };
        [sealed, in_head, scan.given_out, self.gaps.last(), reserved].into_iter().max().unwrap_or(0)
    }

    /// A segment that took back what a later one lost reaches further than it did. After the holes were told: those between
    /// lie within it from now on.
    fn list_returned(&mut self) {
        for (place, _, last) in std::mem::take(&mut self.returned) {
            let Some(mut listed) = self.shelf.listed().get(&place).cloned() else { continue };
            if self.shelf.newest() == Some(place) || listed.last >= last {
                continue;
            }
            listed.last = last;
            if let Ok(segment) = self.shelf.get(place) {
                segment.covers().iter().for_each(|(_, cover)| listed.spans.merge(&cover.spans));
            }
            let noted =
                postcard::to_allocvec(&listed).map(|bytes| self.keep.own_put("segments", &place.to_be_bytes(), &bytes));
            if let Ok(Err(error)) = noted {
                warn!(why = chain(&error), "What was put back not noted");
            }
            self.shelf.list(place, listed);
        }
    }

    /// Numbers up to `high` of which nothing is left.
    fn find_holes(&mut self, slots: &VecDeque<Slot>, high: u64, sealed: u64, scan: &head::Scan) -> Vec<Gap> {
        let in_head = slots.iter().map(|slot| (slot.first, slot.end() - 1)).collect::<Vec<_>>();
        let holes = self.holes(high, &in_head);
        for hole in &holes {
            self.tell_hole(hole, sealed, scan);
        }
        holes
    }

    fn holes(&mut self, high: u64, besides: &[(u64, u64)]) -> Vec<Gap> {
        let mut covered = self.covered();
        covered.extend(besides);
        covered.sort_unstable();
        let mut holes = Vec::new();
        let mut at = 1;
        for (first, last) in covered.into_iter().chain([(high + 1, high + 1)]) {
            if first > at {
                holes.push(undated(at, first - 1, Cause::Damage));
            }
            at = at.max(last + 1);
        }
        holes
    }

    /// The last commit before a power cut may be torn: nobody was told that it was kept. Anything else is damage.
    fn tell_hole(&mut self, hole: &Gap, sealed: u64, scan: &head::Scan) {
        let before =
            scan.records.iter().filter(|found| found.claim.first < hole.first).map(|found| found.claim.commit).max();
        let mut after =
            scan.records.iter().filter(|found| found.claim.first > hole.last).map(|f| f.claim.commit).peekable();
        let mut wounded = scan.wounded.iter().filter(|c| c.last() >= hole.first).map(|c| c.commit).peekable();
        let follows = before.is_none_or(|commit| commit + 1 >= scan.last_commit);
        let seen = wounded.peek().is_some() || (after.peek().is_some() && follows);
        let of_last = after.chain(wounded).all(|commit| commit == scan.last_commit);
        let (first, last, count) = (hole.first, hole.last, hole.count);
        self.findings.push(if seen && of_last && hole.first > sealed {
            let detail = format!("the last write was cut short: readings {first} to {last} were not on the card yet");
            Finding { code: None, detail }
        } else {
            damaged(format!("{count} readings, {first} to {last}, are lost to damage"))
        });
    }

    fn keep_gaps(&self) {
        let gaps = self.gaps.all().cloned().collect::<Vec<_>>();
        let written = postcard::to_allocvec(&gaps).map(|bytes| self.keep.own_put("gaps", b"all", &bytes));
        if let Ok(Err(error)) = written {
            warn!(why = chain(&error), "Gaps not noted; they are found again at the next start");
        }
    }

    fn state(&mut self, slots: VecDeque<Slot>, notes: &[Note]) -> State {
        let mut state = State { gaps: self.gaps.clone(), lost: self.mark.lost, ..State::default() };
        if let Some(segment) = self.shelf.newest().and_then(|first| self.shelf.get(first).ok()) {
            let newest = segment.newest();
            let upto = newest.as_ref().map_or(0, |newest| newest.upto);
            newest.into_iter().flat_map(|newest| newest.readings).for_each(|stored| state.notice(&stored));
            let covers = segment.covers();
            let later = covers.iter().rev().take(LOOK_BACK).filter(|(_, cover)| cover.last > upto);
            for (first, _) in later {
                // Damaged ones are found, and told, when they are read for somebody.
                let readings = segment.block(*first).map(|block| block.readings).unwrap_or_default();
                readings.iter().for_each(|stored| state.notice(stored));
            }
            state.acknowledged = segment.acknowledged().unwrap_or_default();
            let copied = segment.notes();
            state.notes = notes.iter().filter(|note| !copied.contains(note)).copied().collect();
        }
        for slot in &slots {
            for (seq, reading) in (slot.first..).zip(&slot.readings) {
                state.notice(&Stored { seq, reading: reading.clone() });
            }
        }
        state.slots = slots;
        state
    }
}

fn aside_of(settings: &Settings) -> Aside {
    Aside::new(settings.directory.join("damaged"), settings.size_limit.max(SMALLEST) / 8)
}

/// Whose store this is when marker and records do not agree: the readings decide, those in segments before those in the
/// head.
fn owner(directory: &Path, marked: Option<[u8; 16]>, noted: Option<[u8; 16]>) -> Option<[u8; 16]> {
    let named = [marked, noted];
    let root = directory.join("segments");
    let (firsts, _) = Shelf::on_card(&root);
    let in_segments = firsts.iter().rev().filter_map(|first| Segment::identity_of(&Shelf::folder(&root, *first)));
    let mut others = None;
    let by_segments = in_segments.into_iter().find(|identity| {
        others = others.or(Some(*identity));
        named.contains(&Some(*identity))
    });
    let bytes = fs::read(directory.join("head")).unwrap_or_default();
    let in_head = |identity: &[u8; 16]| !head::scan(&bytes, segment::short(identity)).records.is_empty();
    let by_head = || named.into_iter().flatten().find(in_head);
    by_segments.or_else(by_head).or(others).or(marked).or(noted)
}

fn damaged(detail: String) -> Finding {
    Finding { code: Some(Code::StoreDamaged), detail }
}

fn noted_identity(keep: &CardKeep) -> Option<[u8; 16]> {
    let list = keep.own_list("store").ok()?;
    list.into_iter().find(|(key, _)| key == b"identity")?.1.try_into().ok()
}

/// When both notes of the name are gone: that of the newest segment that opens.
fn borrowed_identity(root: &Path) -> Option<[u8; 16]> {
    let (firsts, _) = Shelf::on_card(root);
    firsts.iter().rev().find_map(|first| Segment::identity_of(&Shelf::folder(root, *first)))
}

fn read_gaps(keep: &CardKeep) -> Gaps {
    let list = keep.own_list("gaps").unwrap_or_default();
    Gaps::new(list.iter().filter_map(|(_, value)| postcard::from_bytes::<Vec<Gap>>(value).ok()).flatten())
}
