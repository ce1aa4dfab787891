//! A store whose files were damaged in every way a card, a fall or a technician may damage them: it opens, serves what is
//! sound, tells the rest, and never gives a number twice. `DAMAGE=n` tries n cases, `DAMAGE_SEED=n` one again, loudly.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use clocher::{
    buffer::{Buffer, Opened, Settings, block},
    clock::{Clock, HeldTime, Source, Stamp},
    condition::{Board, Code},
    reading::{Batch, Commit, Quality, Reading},
    store::{Archive, Entry, Gap, KeepExt, PageRequest},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::{
    process::Running,
    run::{Hall, publish, sequence},
};

/// So many by default.
const CASES: u64 = 40;
/// A case takes a tenth of a second; one that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(40);
const WALL: i64 = 1_800_000_000_000;
const WORKER: &str = "damage";

/// Points with long random names fill a segment with few readings.
fn readings(dice: &mut StdRng, count: u64, boot: u32) -> Vec<Reading> {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let one = |n: u64| {
        let name = if n.is_multiple_of(4) {
            format!("hall/p{}", n % 24)
        } else {
            (0..90).map(|_| char::from(letters[dice.random_range(0..letters.len())])).collect()
        };
        let stamp = Stamp { boot, mono_ms: n * 20_000 };
        Reading { point: name.parse().expect("a name"), stamp, value: Some(dice.random()), quality: Quality::Good }
    };
    (0..count).map(one).collect()
}

/// Small segments come of a small limit; with a larger one nothing goes to make room for what is set aside.
fn settings(folder: &Path, megabytes: u64) -> Settings {
    Settings { directory: folder.join("store"), size_limit: megabytes << 20, commit_within: Duration::from_secs(3600) }
}

/// A block as it lies in a file, the header of its record included where there is one.
struct Place {
    file: PathBuf,
    from: usize,
    bytes: Vec<u8>,
    first: u64,
    last: u64,
}

/// A store as it was before, and what is true of it.
struct Sound {
    folder: PathBuf,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    places: Vec<Place>,
    closed: bool,
}

struct Told {
    _place: TempDir,
    truth: Vec<Reading>,
    stores: [Sound; 2],
    theirs: PathBuf,
}

fn fast_folder() -> TempDir {
    let made = tempfile::Builder::new().prefix("clocher-damage-").tempdir_in("/dev/shm");
    made.or_else(|_| tempfile::tempdir()).expect("a place")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(fs::copy(entry.path(), target)) }
    }
}

fn list(root: &Path, below: &Path, files: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) {
    let mut entries = fs::read_dir(root.join(below)).expect("lists").flatten().collect::<Vec<_>>();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            folders.push(path.clone());
            list(root, &path, files, folders);
        } else {
            files.push(path);
        }
    }
}

/// Fills a store until it has so many segments; `crashed` takes its picture before it is closed. How many readings it took.
async fn fill(folder: &Path, truth: &[Reading], segments: usize, crashed: Option<&Path>) -> usize {
    let opened = Buffer::open(&settings(folder, 24)).expect("opens");
    let (buffer, ..) = begin(opened);
    let (mut taken, mut left) = (0, 7);
    for (n, part) in truth.chunks(300).enumerate() {
        let there = fs::read_dir(folder.join("store/segments")).expect("lists").count();
        left -= usize::from(there >= segments);
        if left == 0 {
            break;
        }
        taken += part.len();
        buffer.append(Batch { readings: part.to_vec(), commit: Commit::Grouped, accepted: None }).await;
        buffer.commit().await;
        buffer.keep().save("accounts", &format!("person-{}", n % 30), &n).expect("saved");
    }
    buffer.archive().acknowledge("central", 500).expect("noted");
    if let Some(place) = crashed {
        copy(&folder.join("store"), &place.join("store"));
    }
    buffer.close().await;
    taken
}

fn begin(opened: Opened) -> (Buffer, Arc<dyn Archive>, Board, u32) {
    let clock = Clock::new(opened.boot, HeldTime::at(WALL, Source::Ntp), opened.samples);
    let board = Board::new(clock.clone());
    let _ = clock.observe().map(|sample| opened.buffer.remember(sample));
    opened.buffer.start(clock, board.clone());
    (opened.buffer.clone(), opened.buffer.archive(), board, opened.boot)
}

impl Sound {
    fn of(folder: PathBuf, closed: bool) -> Self {
        let (mut files, mut folders, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let root = folder.join("store");
        list(&root, Path::new(""), &mut files, &mut folders);
        for file in files.iter().filter(|file| !file.starts_with("keep")) {
            let bytes = fs::read(root.join(file)).expect("reads");
            // In the head, a header of 48 bytes stands before each.
            let before = if file == Path::new("head") { 48 } else { 0 };
            let mut at = 0;
            while let Some(step) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|four| four == b"CKB1")) {
                at += step;
                if let Ok(block) = block::decode(&bytes[at..]) {
                    let from = at - before;
                    let place = bytes[from..at + block.length].to_vec();
                    let (first, last) = (block.first, block.last);
                    places.push((block.store, Place { file: file.clone(), from, bytes: place, first, last }));
                }
                at += 4;
            }
        }
        // Tables of the newest readings look like blocks of a store that is not.
        let own = places.iter().find(|(_, place)| place.file == Path::new("head")).expect("a head").0;
        let places = places.into_iter().filter(|(store, _)| *store == own).map(|(_, place)| place).collect();
        Self { folder, files, folders, places, closed }
    }

    /// Every number of which an unharmed copy lies where the store had it.
    fn intact(&self, image: &Path) -> BTreeSet<u64> {
        let mut intact = BTreeSet::new();
        let mut read = std::collections::HashMap::new();
        for place in &self.places {
            let bytes = read
                .entry(place.file.clone())
                .or_insert_with(|| fs::read(image.join("store").join(&place.file)).unwrap_or_default());
            if bytes.get(place.from..place.from + place.bytes.len()) == Some(&place.bytes[..]) {
                intact.extend(place.first..=place.last);
            }
        }
        intact
    }
}

async fn make() -> Told {
    let place = fast_folder();
    let mut dice = StdRng::seed_from_u64(77);
    let (ours, crashed, theirs) =
        (place.path().join("ours"), place.path().join("crashed"), place.path().join("theirs"));
    let mut truth = readings(&mut dice, 24_000, 1);
    let taken = fill(&ours, &truth, 3, Some(&crashed)).await;
    truth.truncate(taken);
    fill(&theirs, &readings(&mut dice, 1_000, 1), 1, None).await;
    let stores = [Sound::of(ours, true), Sound::of(crashed, false)];
    let segments = stores[0].folders.iter().filter(|path| path.parent() == Some(Path::new("segments"))).count();
    assert!(segments >= 3, "{segments} segments: {:?}", stores[0].files);
    let covered = stores[0].intact(&stores[0].folder);
    assert!(covered.into_iter().eq(1..=truth.len() as u64), "the store holds all of it");
    Told { _place: place, truth, stores, theirs: theirs.join("store") }
}

/// What was done to a store.
#[derive(Default)]
struct Deed {
    story: String,
    foreign: bool,
    /// Both of what tells how far numbers went may be gone without a trace: zeros in the head are as before its first use.
    erased_head: bool,
    touched_marker: bool,
}

fn pick<'a>(dice: &mut StdRng, from: &'a [PathBuf]) -> &'a Path {
    &from[dice.random_range(0..from.len())]
}

/// Half of the time any file, half of the time one of the few that matter most.
fn victim(dice: &mut StdRng, sound: &Sound) -> PathBuf {
    let weighty = |path: &PathBuf| {
        ["head", "marker", "keep/db"].iter().any(|name| path == Path::new(name)) || path.ends_with("db")
    };
    let weighty = sound.files.iter().filter(|path| weighty(path)).cloned().collect::<Vec<_>>();
    if dice.random_bool(0.5) { pick(dice, &weighty).to_owned() } else { pick(dice, &sound.files).to_owned() }
}

fn damage(dice: &mut StdRng, told: &Told, sound: &Sound, image: &Path, deed: &mut Deed) {
    let root = image.join("store");
    let file = victim(dice, sound);
    let path = root.join(&file);
    let kind = dice.random_range(0..if deed.foreign { 8 } else { 11 });
    let length = fs::metadata(&path).map_or(0, |data| if data.is_dir() { 0 } else { data.len() });
    if kind < 7 && kind != 3 && length == 0 {
        return;
    }
    deed.touched_marker |= file == Path::new("marker") && kind != 3;
    let what = match kind {
        0 | 1 => {
            let mut bytes = fs::read(&path).expect("reads");
            let count = dice.random_range(1..=20);
            for _ in 0..count {
                let at = dice.random_range(0..bytes.len());
                bytes[at] ^= 1 << dice.random_range(0..8);
            }
            fs::write(&path, bytes).expect("writes");
            format!("{count} bits flipped in")
        }
        2 => {
            let to = dice.random_range(0..length);
            fs::File::options().write(true).open(&path).expect("opens").set_len(to).expect("cut");
            format!("cut from {length} to {to} bytes:")
        }
        3 => {
            let folder = pick(dice, &sound.folders);
            let path = root.join(folder);
            let gone = fs::remove_dir_all(&path).is_ok();
            if gone && dice.random_bool(0.3) {
                fs::write(&path, "in the way").expect("written");
            }
            write!(deed.story, "folder {} gone, a file there: {}; ", folder.display(), path.is_file()).expect("told");
            return;
        }
        4 => {
            fs::remove_file(&path).expect("removed");
            "gone:".to_owned()
        }
        5 => {
            fs::remove_file(&path).expect("removed");
            fs::create_dir_all(path.join("in the way")).expect("made");
            "a folder instead of".to_owned()
        }
        6 => {
            let mut garbage = vec![0; dice.random_range(1..=2 * length as usize)];
            dice.fill(&mut garbage[..]);
            fs::write(&path, &garbage).expect("writes");
            format!("{} bytes of garbage in", garbage.len())
        }
        7 => {
            if length == 0 {
                return;
            }
            let from = dice.random_range(0..length);
            let count = dice.random_range(1..=(length - from).min(200_000));
            let open = fs::File::options().write(true).open(&path).expect("opens");
            open.write_all_at(&vec![0; count as usize], from).expect("writes");
            deed.erased_head |= file == Path::new("head");
            format!("{count} zeros from {from} on in")
        }
        8 => {
            let theirs =
                fs::read_dir(told.theirs.join("segments")).expect("lists").flatten().next().expect("a segment");
            let ours = sound.folders.iter().filter(|path| path.parent() == Some(Path::new("segments")));
            let ours = ours.cloned().collect::<Vec<_>>();
            let target = match dice.random_range(0..3) {
                0 => PathBuf::from("segments/00000000000000900000"),
                1 => PathBuf::from(format!("segments/{:020}", dice.random_range(1..told.truth.len()))),
                _ => pick(dice, &ours).to_owned(),
            };
            let _ = fs::remove_dir_all(root.join(&target));
            copy(&theirs.path(), &root.join(&target));
            deed.foreign = true;
            write!(deed.story, "another box's segment as {}; ", target.display()).expect("told");
            return;
        }
        _ => {
            let name = ["head", "marker", "keep"][dice.random_range(0..3)];
            let target = root.join(name);
            if target.is_dir() {
                drop(fs::remove_dir_all(&target))
            } else {
                drop(fs::remove_file(&target))
            }
            let theirs = told.theirs.join(name);
            if theirs.is_dir() {
                copy(&theirs, &target)
            } else {
                drop(fs::copy(theirs, &target))
            }
            deed.foreign = true;
            deed.touched_marker |= name == "marker";
            write!(deed.story, "another box's {name}; ").expect("told");
            return;
        }
    };
    write!(deed.story, "{what} {}; ", file.display()).expect("told");
}

fn everything(archive: &dyn Archive) -> Result<Vec<Entry>, String> {
    let (mut entries, mut after) = (Vec::new(), 0);
    for _ in 0..100_000 {
        let request = PageRequest { after, upto: u64::MAX, limit: 5000, points: None };
        let page =
            archive.page(&request).map_err(|error| format!("not read: {}", clocher::supervisor::chain(&error)))?;
        entries.extend(page.entries);
        if page.complete {
            return Ok(entries);
        }
        if page.next == after && page.next == 0 && entries.is_empty() && *archive.head().borrow() == 0 {
            return Ok(entries);
        }
        after = page.next;
    }
    Err("the pages have no end".to_owned())
}

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => { if !$holds { return Err(format!($($why)*)); } };
}

/// Every number once, none missing, no value but the true one. The numbers served, and how many are in gaps.
fn right(entries: &[Entry], truth: &[Reading], more: f64) -> Result<(BTreeSet<u64>, u64), String> {
    let (mut next, mut served, mut lost) = (1, BTreeSet::new(), 0);
    for entry in entries {
        match entry {
            Entry::Reading(stored) => {
                ensure!(stored.seq == next, "number {} where {next} should be", stored.seq);
                served.insert(stored.seq);
                match truth.get(stored.seq as usize - 1) {
                    Some(reading) => ensure!(stored.reading == *reading, "a wrong reading: {stored:?}"),
                    None => ensure!(stored.reading.value == Some(more), "nobody's reading: {stored:?}"),
                }
            }
            Entry::Gap(gap) => {
                ensure!(gap.first == next && gap.count == gap.last - gap.first + 1, "{gap:?} where {next} should be");
                lost += gap.count;
            }
        }
        next = entry.last_seq() + 1;
    }
    Ok((served, lost))
}

fn has_dated_names(image: &Path) -> bool {
    let entries = fs::read_dir(image.join("store/damaged")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).all(|name| {
        name.len() > 20 && name.starts_with("20") && name.as_bytes()[4] == b'-' && name.as_bytes()[10] == b'T'
    })
}

fn told_gaps(entries: &[Entry]) -> Vec<Gap> {
    entries.iter().filter_map(|entry| if let Entry::Gap(gap) = entry { Some(gap.clone()) } else { None }).collect()
}

/// One case: damaged, opened, read, written to, opened again.
fn try_one(told: &Told, seed: u64, image: &Path) -> Result<u64, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let sound = &told.stores[usize::from(dice.random_bool(0.5))];
    copy(&sound.folder.join("store"), &image.join("store"));
    let mut deed = Deed::default();
    for _ in 0..if dice.random_bool(0.3) { 2 } else { 1 } {
        damage(&mut dice, told, sound, image, &mut deed);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(look(told, sound, image, &deed)).map_err(|why| {
        let was = if sound.closed { "closed" } else { "not closed" };
        format!("{}({was}): {why}", deed.story)
    })
}

async fn look(told: &Told, sound: &Sound, image: &Path, deed: &Deed) -> Result<u64, String> {
    let intact = sound.intact(image);
    let open =
        || Buffer::open(&settings(image, 96)).map_err(|e| format!("does not open: {}", clocher::supervisor::chain(&e)));
    let opened = open()?;
    let findings = opened.findings.clone();
    let (buffer, archive, board, boot) = begin(opened);
    let (served, lost) = right(&everything(&*archive)?, &told.truth, 0.0)?;
    let missing = intact.difference(&served).collect::<Vec<_>>();
    ensure!(
        missing.is_empty(),
        "{} sound readings not served, {:?} to {:?}; {findings:?}",
        missing.len(),
        missing.first(),
        missing.last()
    );
    let told_at_once = findings.iter().any(|finding| finding.code == Some(Code::StoreDamaged));
    let told_later = board.is_open(Code::StoreDamaged, "store");
    ensure!(lost == 0 || told_at_once || told_later, "{lost} lost, and not told: {findings:?}");
    ensure!(has_dated_names(image), "set aside without a date");

    let more = 4.25;
    let point = "later/p".parse().expect("a name");
    let reading = Reading { point, stamp: Stamp { boot, mono_ms: 1 }, value: Some(more), quality: Quality::Good };
    buffer.append(Batch { readings: vec![reading], commit: Commit::Now, accepted: None }).await;
    buffer.commit().await;
    let entries = everything(&*archive)?;
    let last = entries.last().map_or(0, Entry::last_seq);
    let known = !deed.erased_head || (sound.closed && !deed.touched_marker);
    ensure!(last > told.truth.len() as u64 || !known, "number {last} was given out before; {findings:?}");
    ensure!(matches!(entries.last(), Some(Entry::Reading(stored)) if stored.reading.value == Some(more)), "not stored");
    buffer.keep().save("accounts", "later", &1).map_err(|error| error.to_string())?;
    buffer.close().await;
    drop((buffer, archive, board));

    let again = open()?;
    let bad = again.findings.iter().filter(|finding| finding.code.is_some()).collect::<Vec<_>>();
    ensure!(bad.is_empty(), "damaged again at the second start: {bad:?}; at first {findings:?}");
    let (buffer, archive, ..) = begin(again);
    let entries_again = everything(&*archive)?;
    ensure!(told_gaps(&entries_again) == told_gaps(&entries), "other gaps at the second start");
    ensure!(entries_again == entries, "something else at the second start");
    buffer.close().await;
    Ok(lost)
}

/// Within its time, on a thread of its own that is left behind if it hangs.
fn try_in_time(told: &Arc<Told>, seed: u64) -> Result<u64, String> {
    let folder = fast_folder();
    let image = folder.path().to_owned();
    let told = Arc::clone(told);
    let (give, take) = mpsc::sync_channel(1);
    let work = move || {
        let done = catch_unwind(AssertUnwindSafe(|| try_one(&told, seed, &image)));
        let _ = give.send(done.unwrap_or_else(|_| Err("it panicked".to_owned())));
    };
    std::thread::Builder::new().name(WORKER.to_owned()).spawn(work).expect("a thread");
    let done = take.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(format!("no end within {PATIENCE:?}")));
    done.map_err(|why| format!("DAMAGE_SEED={seed}: {why}"))
}

fn hush_the_workers() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(WORKER) {
            usual(panic);
        }
    }));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_happened_to_its_files_the_store_opens_serves_what_is_sound_and_tells_the_rest() {
    let told = Arc::new(make().await);
    let begun = std::time::Instant::now();
    let seeds = match number("DAMAGE_SEED") {
        Some(seed) => vec![seed],
        None => {
            hush_the_workers();
            (0..number("DAMAGE").unwrap_or(CASES)).collect()
        }
    };
    let (next, lossy) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match try_in_time(&told, *seed) {
                        Ok(lost) => drop(lossy.fetch_add(u64::from(lost > 0), Ordering::Relaxed)),
                        Err(why) => failed.lock().expect("not poisoned").push(why),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("not poisoned");
    let lossy = lossy.into_inner();
    eprintln!("{} cases in {:?}, {lossy} with losses, {} failed", seeds.len(), begun.elapsed(), failed.len());
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), seeds.len(), failed.join("\n"));
    assert!(seeds.len() < 40 || lossy > 2, "the damage was hardly felt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_head_was_overwritten_starts_tells_what_is_lost_and_counts_on_above_it() {
    let hall = Hall::new();
    let config = hall.counting();
    let first = Running::gateway(&config);
    let (_, next) = publish(first.address("Broker ready"), 0, 300).await;
    first.kill();
    let head = hall.file("store/head");
    let length = std::fs::metadata(&head).expect("a head").len();
    std::fs::write(&head, vec![0; usize::try_from(length).expect("small")]).expect("overwritten");

    let gateway = Running::gateway(&config);
    gateway.line("Condition raised code=store-damaged");
    let (later, _) = publish(gateway.address("Broker ready"), next, 20).await;
    let lines = hall.pull(gateway.address("Peers may pull"));
    let told = &lines[0]["gap"];
    assert_eq!((&told["first"], &told["cause"]), (&1.into(), &"damage".into()), "{told}");
    assert!(told["count"].as_u64() >= Some(300), "{told}");
    let last = told["last"].as_u64().expect("a number");
    let numbers = sequence(&lines[1..]);
    assert_eq!(numbers, (last + 1..=last + numbers.len() as u64).collect::<Vec<_>>());
    let stored: Vec<_> = lines[1..].iter().filter_map(|line| line["result"].as_f64()).map(|n| n as u64).collect();
    assert!(later.iter().all(|n| stored.contains(n)), "{later:?} in {stored:?}");
}
