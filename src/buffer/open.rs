//! Opening the store, whatever state it is in: what is sound is served, what is not is set aside, counted and told.
//!
//! Nothing here reads all readings: the newest segment's index, the head, and the records.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, RwLock, atomic::AtomicU64},
    time::Duration,
};

use rand::RngExt;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Buffer, Finding, OpenFault, Opened, RECORDS, Settings,
    database::folder_size,
    gaps::{Gaps, undated},
    head::{self, Head},
    inner::{Inner, Slot, State, device_written},
    keeping::CardKeep,
    marker::{Mark, Marker},
    room::Room,
    salvage::{self, Aside},
    segment::{self, Beside, Segment, SegmentFault},
    shelf::{Listed, Shelf},
    thin::Summary,
    times,
    writer::Writer,
};
use crate::{
    clock::{Clock, HeldTime, Note, Source},
    condition::Code,
    reading::Stored,
    store::{Cause, Gap, MemoryKeep, StoreError},
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
        let directory = &settings.directory;
        let refused = |source| OpenFault::Directory { directory: directory.clone(), source };
        fs::create_dir_all(directory.join("segments")).map_err(refused)?;
        let (marker, mark, existed) = Marker::open(&directory.join("marker")).map_err(refused)?;
        Opening::new(settings, marker, mark, existed)?.finish()
    }

    /// A store without a card: the newest readings are held in memory, records are forgotten at the end. Nothing is ever
    /// accepted, so that devices that can send again do.
    pub fn in_memory() -> Opened {
        let identity = rand::rng().random();
        let (inner, _) = assemble(Parts {
            directory: PathBuf::new(),
            size_limit: 0,
            identity,
            keep: None,
            state: State::default(),
            shelf: Shelf::new(PathBuf::new(), identity),
            marker: None,
            committed: 0,
            clock: frozen(1, &[]),
        });
        let writer = Writer::new(Arc::clone(&inner), None, Duration::from_secs(1), 1);
        let detail = "there is no store on the card: readings are held in memory only and lost at a restart".to_owned();
        Opened {
            buffer: Buffer::new(inner, writer),
            boot: 1,
            samples: Vec::new(),
            notes: Vec::new(),
            newest: None,
            newest_ms: None,
            findings: vec![Finding { code: Some(Code::StoreRefusesWrites), detail }],
        }
    }
}

/// A clock that only dates what is stored, until the gateway's own is known.
fn frozen(boot: u32, notes: &[Note]) -> Clock {
    Clock::knowing(boot, HeldTime::at(0, Source::Unknown), notes.iter().copied())
}

struct Parts {
    directory: PathBuf,
    size_limit: u64,
    identity: [u8; 16],
    keep: Option<Arc<CardKeep>>,
    state: State,
    shelf: Shelf,
    marker: Option<Marker>,
    committed: u64,
    clock: Clock,
}

fn assemble(parts: Parts) -> (Arc<Inner>, watch::Receiver<u64>) {
    let (head, watched) = watch::channel(parts.committed);
    let bytes = AtomicU64::new(if parts.keep.is_some() { folder_size(&parts.directory) } else { 0 });
    let inner = Inner {
        written_before: device_written(&parts.directory),
        aside: Aside::new(parts.directory.join("damaged"), parts.size_limit / 8),
        directory: parts.directory,
        size_limit: parts.size_limit,
        identity: parts.identity,
        keep: parts.keep.clone().map_or_else(|| Arc::new(MemoryKeep::default()) as Arc<_>, |keep| keep as Arc<_>),
        own: parts.keep,
        state: RwLock::new(parts.state),
        shelf: Mutex::new(parts.shelf),
        marker: Mutex::new(parts.marker),
        noting: Mutex::default(),
        cache: Mutex::default(),
        room: Room::default(),
        head,
        clock: RwLock::new(parts.clock),
        board: OnceLock::new(),
        waiting: AtomicU64::new(0),
        bytes,
    };
    (Arc::new(inner), watched)
}

/// The work of opening, step by step.
struct Opening<'a> {
    settings: &'a Settings,
    aside: Aside,
    marker: Marker,
    mark: Mark,
    keep: Arc<CardKeep>,
    shelf: Shelf,
    gaps: Gaps,
    findings: Vec<Finding>,
}

impl<'a> Opening<'a> {
    fn new(settings: &'a Settings, marker: Marker, mark: Option<Mark>, existed: bool) -> Result<Self, OpenFault> {
        let directory = &settings.directory;
        let root = directory.join("segments");
        let aside = Aside::new(directory.join("damaged"), settings.size_limit.max(SMALLEST) / 8);
        let mut findings = Vec::new();
        let existed = existed || directory.join("head").exists() || directory.join("keep").exists();
        let (keep, state) = CardKeep::open(&directory.join("keep"), existed, |path| aside.take(path))?;
        findings.extend(state.damage.map(|damage| damaged(format!("{RECORDS}: {damage}"))));
        let identity =
            mark.map(|mark| mark.identity).or_else(|| noted_identity(&keep)).or_else(|| borrowed_identity(&root));
        if existed && mark.is_none() {
            findings.push(damaged("the marker of the store did not read; it is made anew".to_owned()));
        }
        let mark =
            mark.unwrap_or(Mark { identity: identity.unwrap_or_else(|| rand::rng().random()), ..Mark::default() });
        if noted_identity(&keep) != Some(mark.identity)
            && let Err(error) = keep.own_put("store", b"identity", &mark.identity)
        {
            warn!(why = chain(&error), "Name of the store not noted twice");
        }
        let gaps = read_gaps(&keep);
        let shelf = Shelf::new(root, mark.identity);
        Ok(Self { settings, aside, marker, mark, keep: Arc::new(keep), shelf, gaps, findings })
    }

    fn finish(mut self) -> Result<Opened, OpenFault> {
        self.list_segments();
        self.open_newest()?;
        let (scan, head_lost) = self.read_head()?;
        let mut notes = self.notes();
        let store = segment::short(&self.mark.identity);
        let boot = self.next_boot(&scan, &notes);
        notes.retain(|note| times::boot_of(note) < boot);

        let sealed = self.sealed();
        let runs = self.uncovered_runs(&scan);
        self.put_back(&runs, sealed);
        self.look_beneath_sled(sealed);
        let slots = runs.into_iter().filter(|run| run.first > sealed).collect::<VecDeque<_>>();
        let high = self.highest(sealed, &slots, &scan, head_lost);
        self.mark = Mark { boot, reserved: self.mark.reserved.max(high), ..self.mark };
        let new_gaps = self.find_holes(&slots, high, sealed, &scan);
        self.mark.lost += new_gaps.iter().map(|gap| self.gaps.add(gap.clone())).sum::<u64>();
        self.marker.write(self.mark).map_err(|source| self.refused(source))?;
        if !new_gaps.is_empty() {
            self.keep_gaps();
        }

        let last_commit = scan.last_commit;
        let mut head = Head::new(Box::new(self.head_file()?), store, last_commit);
        slots.iter().for_each(|slot| head.keep(slot.place));
        let state = self.state(slots, &notes);
        Ok(self.opened(boot, notes, state, head, high))
    }

    fn opened(self, boot: u32, notes: Vec<Note>, state: State, head: Head, high: u64) -> Opened {
        let clock = frozen(boot, &notes);
        let wall = |stored: &Stored| clock.resolve(stored.reading.stamp).map(|wall| wall.unix_ms);
        let newest_ms = state.newest.values().filter_map(wall).max();
        let newest = state.newest.values().map(|stored| stored.reading.stamp).max();
        info!(last = high, boot, findings = self.findings.len(), "Store opened");
        let (inner, _) = assemble(Parts {
            directory: self.settings.directory.clone(),
            size_limit: self.settings.size_limit.max(SMALLEST),
            identity: self.mark.identity,
            keep: Some(self.keep),
            state,
            shelf: self.shelf,
            marker: Some(self.marker),
            committed: high,
            clock,
        });
        let writer = Writer::new(Arc::clone(&inner), Some(head), self.settings.commit_within, high + 1);
        let sample = |note: &Note| if let Note::Sample(sample) = note { Some(*sample) } else { None };
        let samples = notes.iter().filter_map(sample).collect();
        let (buffer, findings) = (Buffer::new(inner, writer), self.findings);
        Opened { buffer, boot, samples, notes, newest, newest_ms, findings }
    }

    fn refused(&self, source: std::io::Error) -> OpenFault {
        OpenFault::Directory { directory: self.settings.directory.clone(), source }
    }

    /// Lists the segments by their folders; drops those already told as gone; opens none.
    fn list_segments(&mut self) {
        let root = self.shelf.root().to_owned();
        let (_, strangers) = Shelf::on_card(&root);
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
        let unknown = self.shelf.listed().iter().filter(|(_, listed)| listed.last == 0).map(|(first, _)| *first);
        for first in unknown.collect::<Vec<_>>() {
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
        let fault = match self.shelf.get(first) {
            Ok(segment) => return Ok(Some(segment)),
            Err(fault) => fault,
        };
        let folder = Shelf::folder(self.shelf.root(), first);
        let why = chain(&fault);
        if fault.may_pass() {
            // To go on without it would tell sound readings as lost.
            return Err(OpenFault::Records(StoreError::new("open the newest segment", fault)));
        }
        let end = self.shelf.after(first).unwrap_or(u64::MAX);
        let (segment, detail) = if matches!(fault, SegmentFault::Foreign(_)) {
            self.shelf.remove(first);
            let place = self.aside.take(&folder).map_or_else(|e| chain(&e), |place| place.display().to_string());
            (None, format!("{why}; set aside: {place}"))
        } else {
            match salvage::segment(&folder, first, end, &self.mark.identity, &self.aside) {
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
        let bytes = fs::read(&path).unwrap_or_default();
        // What is about to be served must be on the card, not only in the page cache of a fall survived.
        if let Ok(file) = fs::File::open(&path) {
            let _ = file.sync_data();
        }
        let expected = self.mark.reserved > 0;
        let short = (bytes.len() as u64) < head::SLOT * head::SLOTS as u64;
        let mut lost = expected && (missing || short);
        if missing && expected {
            self.findings.push(damaged("the head of the store is gone".to_owned()));
        } else if short && expected {
            self.findings.push(damaged(format!("the head of the store is cut to {} bytes", bytes.len())));
        }
        let scan = head::scan(&bytes, segment::short(&self.mark.identity));
        lost &= scan.records.last().is_none_or(|found| found.claim.last() < self.mark.reserved);
        Ok((scan, lost))
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
        in_head.chain(in_segments).chain(known).chain([self.mark.boot]).max().unwrap_or(0).saturating_add(1)
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
        let segment = newest.and_then(|first| self.shelf.get(first).ok());
        covered.extend(segment.iter().flat_map(|segment| segment.covers()).map(|(first, cover)| (first, cover.last)));
        covered.sort_unstable();
        covered
    }

    /// What only the head has, in runs without a hole, each within one slot.
    fn uncovered_runs(&mut self, scan: &head::Scan) -> Vec<Slot> {
        let covered = self.covered();
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
        runs
    }

    /// Readings that a segment lost and the head still has go back where they belong.
    fn put_back(&mut self, runs: &[Slot], sealed: u64) {
        for run in runs.iter().filter(|run| run.first <= sealed) {
            let Some(place) = self.shelf.place_of(run.first) else { continue };
            let Ok(segment) = self.shelf.get(place) else { continue };
            match segment.put(run.first, &run.readings, Beside::default()) {
                Ok(_) => info!(first = run.first, count = run.readings.len(), "Readings put back from the head"),
                Err(fault) => warn!(why = chain(&fault), "Readings not put back"),
            }
        }
    }

    /// sled may open and yet have dropped what a damaged part of its file held. Blocks missing among others are looked for
    /// in the raw file.
    fn look_beneath_sled(&mut self, sealed: u64) {
        for hole in self.holes(sealed, &[]) {
            let Some(place) = self.shelf.place_of(hole.first) else { continue };
            let Ok(segment) = self.shelf.get(place) else { continue };
            let folder = Shelf::folder(self.shelf.root(), place);
            let store = segment::short(&self.mark.identity);
            let blocks = salvage::sound_blocks(&folder, hole.first, hole.last + 1, store).unwrap_or_default();
            for block in blocks.values() {
                let _ = segment.put_again(std::slice::from_ref(block));
            }
            if !blocks.is_empty() {
                let (count, first) = (blocks.len(), hole.first);
                self.findings.push(damaged(format!("{count} blocks from {first} on had fallen out of sled; put back")));
            }
        }
    }

    /// The highest number ever given out, as far as anything tells.
    fn highest(&self, sealed: u64, slots: &VecDeque<Slot>, scan: &head::Scan, head_lost: bool) -> u64 {
        let in_head = slots.iter().map(|slot| slot.end() - 1).max().unwrap_or(0);
        let reserved = if head_lost { self.mark.reserved } else { 0 };
        [sealed, in_head, scan.given_out, self.gaps.last(), reserved].into_iter().max().unwrap_or(0)
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
