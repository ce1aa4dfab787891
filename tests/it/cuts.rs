//! Power cuts: the real gateway is recorded at work on a card of ours, and then every state a cut may have left is
//! opened. Whatever was acknowledged, served or kept before the cut must be there.
//!
//!     cargo test --test it cuts                          100 states; CI asks for 500
//!     CUTS=20000 cargo test --test it cuts               as many as one likes
//!     CUTS_SEED=7 …                                      other dice
//!     CUTS_RECORDING=FILE CUTS_STATE=AT:SEED …           one state again; the test that failed tells both

mod load;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clocher::{
    buffer::{Buffer, Settings},
    clock::{Clock, HeldTime, Source, Stamp},
    condition::Board,
    reading::{Batch, Commit, Quality, Reading},
    store::{Archive, Cause, Entry, Keep, PageRequest},
};
use clocher_card::{
    Operation,
    cut::{Cut, State, Walk},
    recording,
};
use load::{BALLAST, POINTS, SIZE_LIMIT, kept_payload, kept_topic, value};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tempfile::TempDir;

/// Every so many states the store is opened a second time, to see that the first opening left it sound.
const TWICE: usize = 4;
/// The name of the threads that try states.
const WORKER: &str = "cuts";

/// What the world was told, and when.
struct Told {
    operations: Arc<[Operation]>,
    /// Places and messages acknowledged.
    acknowledged: Vec<(usize, u64)>,
    /// Places and retained messages acknowledged.
    kept: Vec<(usize, u64)>,
    /// Places and how far a peer was served.
    served: Vec<(usize, u64)>,
    /// Every number and what it stands for.
    truth: BTreeMap<u64, (String, Option<u64>)>,
    /// Which message a value was in.
    messages: HashMap<u64, u64>,
    /// The numbers of each message.
    numbers: HashMap<u64, Vec<u64>>,
    /// Where a second segment was begun: before, nothing can have been dropped.
    second_segment: usize,
    /// Where the gateway began.
    start: usize,
}

impl Told {
    fn read(operations: Arc<[Operation]>) -> Self {
        let mut told = Self {
            acknowledged: Vec::new(),
            kept: Vec::new(),
            served: Vec::new(),
            truth: BTreeMap::new(),
            messages: HashMap::new(),
            numbers: HashMap::new(),
            second_segment: usize::MAX,
            start: 0,
            operations: Arc::clone(&operations),
        };
        let mut segments = 0;
        for (place, operation) in operations.iter().enumerate() {
            match operation {
                Operation::Mark(text) => told.hear(place, text),
                Operation::MakeFolder { name, .. } if name.len() == 20 => {
                    segments += 1;
                    if segments == 2 {
                        told.second_segment = place;
                    }
                }
                _ => {}
            }
        }
        told
    }

    fn hear(&mut self, place: usize, text: &str) {
        let (word, rest) = text.split_once([' ', '\n']).unwrap_or((text, ""));
        let number = || rest.parse().expect("a number");
        match word {
            "start" => self.start = place,
            "ack" => self.acknowledged.push((place, number())),
            "sent" => {
                self.messages.extend((0..number()).flat_map(|n| (0..POINTS).map(move |k| (value(n, k).to_bits(), n))))
            }
            "kept" => self.kept.push((place, number())),
            "served" => self.served.push((place, number())),
            "pulled" => rest.lines().for_each(|line| self.learn(&serde_json::from_str(line).expect("a line"))),
            _ => panic!("a mark nobody set: {text}"),
        }
    }

    fn learn(&mut self, line: &Value) {
        let seq = line["seq"].as_u64().unwrap_or_else(|| panic!("a gap was pulled: {line}"));
        let value = line["result"].as_f64();
        if let Some(message) = value.and_then(|value| self.messages.get(&value.to_bits()).copied()) {
            self.numbers.entry(message).or_default().push(seq);
        }
        let point = line["point"].as_str().expect("a point").to_owned();
        let before = self.truth.insert(seq, (point, value.map(f64::to_bits)));
        assert!(before.is_none(), "number {seq} was served twice");
    }

    /// Nothing can be tried on a recording that is not what it should be.
    fn assert_whole(&self) {
        assert!(self.truth.keys().copied().eq(1..=self.truth.len() as u64), "the pulled numbers have holes");
        for (_, message) in &self.acknowledged {
            let count = self.numbers.get(message).map_or(0, Vec::len);
            assert!(count >= POINTS as usize, "{count} readings of acknowledged message {message} were pulled");
        }
    }
}

fn before<T: Copy>(list: &[(usize, T)], at: usize) -> impl Iterator<Item = T> + '_ {
    list.iter().take_while(move |(place, _)| *place < at).map(|(_, item)| *item)
}

/// How a state was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Nothing to tell.
    Clean,
    /// Something was told, nothing of what was promised is missing.
    Told,
    /// Something was set aside, nothing of what was promised is missing.
    SetAside,
}

fn settings(folder: &Path) -> Settings {
    Settings { directory: folder.join("store"), size_limit: SIZE_LIMIT, commit_within: Duration::from_secs(3600) }
}

struct Contents {
    entries: Vec<Entry>,
    findings: Vec<String>,
}

/// Opens a state and checks all that was promised before the cut.
fn check(told: &Told, cut: Cut, folder: &Path, runtime: &tokio::runtime::Runtime) -> Result<Found, String> {
    let opened = Buffer::open(&settings(folder)).map_err(|error| format!("does not open: {}", tell(&error)))?;
    let archive = opened.buffer.archive();
    let clock = Clock::new(opened.boot, HeldTime::at(1_800_000_000_000, Source::Ntp), opened.samples);
    let board = Board::new(clock.clone());
    opened.buffer.start(clock, board.clone());
    let entries = everything(&*archive, 0)?;
    let mut findings = opened.findings.iter().map(|finding| finding.detail.clone()).collect::<Vec<_>>();
    findings.extend(board.open().iter().map(|condition| format!("{}: {}", condition.code.as_str(), condition.detail)));
    let contents = Contents { entries, findings };
    let in_gaps = check_entries(told, cut, &contents)?;
    check_kept(told, cut, &*opened.buffer.keep())?;

    let last = contents.entries.last().map_or(0, Entry::last_seq);
    let new = Reading {
        point: "new/reading".parse().expect("a name"),
        stamp: Stamp { boot: opened.boot, mono_ms: 1 },
        value: Some(1.0),
        quality: Quality::Good,
    };
    let buffer = opened.buffer;
    runtime.block_on(async {
        buffer.append(Batch { readings: vec![new], commit: Commit::Now, accepted: None }).await;
        buffer.commit().await;
        buffer.close().await;
    });
    let after = everything(&*archive, last)?;
    if !matches!(after.as_slice(), [Entry::Reading(stored)] if stored.seq == last + 1) {
        return Err(format!("a new reading after {last} is {after:?}"));
    }
    let aside = fs::read_dir(folder.join("store/damaged")).is_ok_and(|mut list| list.next().is_some());
    if aside && contents.findings.is_empty() {
        return Err("something was set aside and not told".to_owned());
    }
    if in_gaps > 0 && contents.findings.is_empty() {
        return Err(format!("{in_gaps} numbers are in gaps and nothing was told"));
    }
    Ok(match (aside, in_gaps > 0 || !contents.findings.is_empty()) {
        (true, _) => Found::SetAside,
        (false, true) => Found::Told,
        (false, false) => Found::Clean,
    })
}

fn tell(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn everything(archive: &dyn Archive, mut after: u64) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    loop {
        let request = PageRequest { after, upto: u64::MAX, limit: 10_000, points: None };
        let page = archive.page(&request).map_err(|error| format!("does not read after {after}: {}", tell(&error)))?;
        if page.next <= after && !page.complete {
            return Err(format!("a page after {after} leads nowhere"));
        }
        after = page.next;
        entries.extend(page.entries);
        if page.complete {
            return Ok(entries);
        }
    }
}

/// Gives how many numbers nobody had been promised are told as lost.
fn check_entries(told: &Told, cut: Cut, contents: &Contents) -> Result<u64, String> {
    let Contents { entries, findings } = contents;
    let served = before(&told.served, cut.at).max().unwrap_or(0);
    let (mut next, mut dropped) = (1, 0);
    let mut gaps = Vec::new();
    for entry in entries {
        match entry {
            Entry::Reading(stored) if stored.seq != next => {
                return Err(format!("number {} follows {}", stored.seq, next - 1));
            }
            Entry::Reading(stored) => {
                let is = (stored.reading.point.to_string(), stored.reading.value.map(f64::to_bits));
                let was = told.truth.get(&stored.seq);
                // What was taken between the last pull and the end nobody knows.
                let unknown = was.is_none() && told.served.last().is_some_and(|(place, _)| *place <= cut.at);
                if was != Some(&is) && !unknown {
                    return Err(format!("number {} is {is:?}, was {was:?}; {findings:?}", stored.seq));
                }
            }
            Entry::Gap(gap) if gap.first != next => return Err(format!("{gap:?} follows {}", next - 1)),
            Entry::Gap(gap) if gap.cause == Cause::SizeLimit && next == 1 && cut.at > told.second_segment => {
                dropped = gap.last;
            }
            Entry::Gap(gap) if gap.cause == Cause::Damage && gap.first > served => gaps.push(gap.first..=gap.last),
            Entry::Gap(gap) => return Err(format!("{gap:?}; up to {served} was served; {findings:?}")),
        }
        next = entry.last_seq() + 1;
    }
    let last = next - 1;
    if last < served {
        return Err(format!("{served} was served to a peer, {last} is the last there is; {findings:?}"));
    }
    let is_lost = |seq: &u64| *seq > last || gaps.iter().any(|gap| gap.contains(seq));
    let missing = |message: u64| told.numbers[&message].iter().copied().find(is_lost);
    if let Some((message, seq)) = before(&told.acknowledged, cut.at).find_map(|m| Some((m, missing(m)?))) {
        return Err(format!("message {message} was acknowledged, its reading {seq} is lost; {findings:?}"));
    }
    if dropped > served {
        return Err(format!("up to {dropped} were dropped and {served} served"));
    }
    Ok(gaps.into_iter().map(|gap| gap.end() - gap.start() + 1).sum())
}

/// The newest record of each key that was acknowledged is there, or a newer one whose acknowledgement had not arrived.
fn check_kept(told: &Told, cut: Cut, keep: &dyn Keep) -> Result<(), String> {
    let newest: BTreeMap<String, u64> = before(&told.kept, cut.at).map(|n| (kept_topic(n), n)).collect();
    for (topic, n) in newest {
        let record = keep.get("retained", topic.as_bytes()).map_err(|error| tell(&error))?.unwrap_or_default();
        let is = |n: u64| record.ends_with(kept_payload(n).as_bytes());
        if !(is(n) || (1..8).any(|more| is(n + 16 * more))) {
            return Err(format!(
                "record {n} of {topic} was acknowledged; there is {:?}",
                String::from_utf8_lossy(&record)
            ));
        }
    }
    Ok(())
}

/// A second opening finds nothing to repair and the same readings.
fn check_again(folder: &Path) -> Result<(), String> {
    let opened = Buffer::open(&settings(folder)).map_err(|error| format!("does not open again: {}", tell(&error)))?;
    if opened.findings.is_empty() {
        return Ok(());
    }
    Err(format!("told again at the second opening: {:?}", opened.findings))
}

fn number_from(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn recording_kept() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_clocher")).with_file_name("cuts.recording")
}

/// In memory where there is such a place.
fn fast_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("clocher-cuts-").tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).expect("a place")
}

fn cuts(told: &Told, count: usize, seed: u64) -> Vec<Cut> {
    let mut dice = StdRng::seed_from_u64(seed);
    let (from, to) = (told.start as f64, told.operations.len() as f64);
    let place = |n: usize, dice: &mut StdRng| {
        let part = (n as f64 + dice.random_range(0.0..1.0)) / count as f64;
        ((from + part * (to - from)) as usize).min(told.operations.len())
    };
    // One in eight as the program left it, or with nothing unsynced kept.
    (0..count)
        .map(|n| Cut {
            at: place(n, &mut dice),
            seed: if n % 8 == 0 { (n / 8 % 3) as u64 } else { dice.random_range(3..u64::MAX) },
        })
        .collect()
}

#[derive(Default)]
struct Outcome {
    found: BTreeMap<Found, usize>,
    failed: Vec<(Cut, String)>,
}

/// Tries one state in a folder of its own. `again` opens it a second time.
fn try_state(
    told: &Told,
    cut: Cut,
    state: &State,
    again: bool,
    runtime: &tokio::runtime::Runtime,
) -> Result<Found, String> {
    let folder = fast_folder();
    state.write(folder.path()).map_err(|error| format!("not written: {error}"))?;
    let work = || {
        let found = check(told, cut, folder.path(), runtime)?;
        if again { check_again(folder.path()).map(|()| found) } else { Ok(found) }
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// sled panics on some states, which the store survives: nobody wants to read of each.
fn hush_the_workers() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(WORKER) {
            usual(panic);
        }
    }));
}

fn try_all(told: &Told, cuts: &[Cut]) -> Outcome {
    hush_the_workers();
    let outcome = Mutex::new(Outcome::default());
    let done = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (outcome, done) = (&outcome, &done);
            let work = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let mut walk = Walk::new(Arc::clone(&told.operations), BALLAST);
                for (n, cut) in cuts.iter().enumerate().skip(worker).step_by(workers) {
                    walk.advance(cut.at);
                    let state = walk.state(cut.seed);
                    let found = try_state(told, *cut, &state, n % TWICE == 0, &runtime);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done % 2000 == 0 {
                        eprintln!("{done} states");
                    }
                    let mut outcome = outcome.lock().expect("not poisoned");
                    match found {
                        Ok(found) => *outcome.found.entry(found).or_default() += 1,
                        Err(why) => outcome.failed.push((*cut, format!("{}: {why}", state.told))),
                    }
                    if outcome.failed.len() >= 200 {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name(WORKER.to_owned()).spawn_scoped(scope, work).expect("a thread");
        }
    });
    outcome.into_inner().expect("not poisoned")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_at_any_moment_everything_accepted_is_there_once_and_right() {
    let operations = match env::var_os("CUTS_RECORDING") {
        Some(file) => recording::load(Path::new(&file)).expect("a recording").into(),
        None => load::record().await,
    };
    let told = Told::read(operations);
    if env::var_os("CUTS_RECORDING").is_none() {
        recording::save(&told.operations, &recording_kept()).expect("saved");
    }
    told.assert_whole();
    tokio::task::block_in_place(|| {
        if let Ok(state) = env::var("CUTS_STATE") {
            return once(&told, state.parse().expect("AT:SEED"));
        }
        let count = number_from("CUTS").unwrap_or(100) as usize;
        let seed = number_from("CUTS_SEED").unwrap_or_else(|| rand::rng().random());
        let began = Instant::now();
        let cuts = cuts(&told, count, seed);
        let outcome = try_all(&told, &cuts);
        let tried = outcome.failed.len() + outcome.found.values().sum::<usize>();
        let of = |found| outcome.found.get(&found).copied().unwrap_or(0);
        eprintln!(
            "{tried} states of {} operations (seed {seed}, {:?}): {} clean, {} told something, {} set something aside, {} failed",
            told.operations.len(),
            began.elapsed(),
            of(Found::Clean),
            of(Found::Told),
            of(Found::SetAside),
            outcome.failed.len()
        );
        let failed = outcome.failed.iter().take(12).map(|(cut, why)| {
            let file = recording_kept();
            format!("{why}\n    CUTS_RECORDING={} CUTS_STATE={cut} cargo test --test it cuts", file.display())
        });
        assert!(
            outcome.failed.is_empty(),
            "{} of {tried} failed\n{}",
            outcome.failed.len(),
            failed.collect::<Vec<_>>().join("\n")
        );
        started_for_real(&told, &cuts);
    });
}

/// One state, looked at closely: it stays on the disk.
fn once(told: &Told, cut: Cut) {
    let mut walk = Walk::new(Arc::clone(&told.operations), BALLAST);
    walk.advance(cut.at);
    let state = walk.state(cut.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a place").keep();
    state.write(&folder.join("before")).expect("written");
    eprintln!("{}; as it was: {}", state.told, folder.join("before").display());
    for operation in told.operations.iter().take(cut.at + 4).skip(cut.at.saturating_sub(12)) {
        let mut text = format!("{operation:?}");
        text.truncate(150);
        eprintln!("    {text}");
    }
    let found = try_state(told, cut, &state, true, &runtime);
    if let Err(why) = found {
        panic!("{why}");
    }
}

/// The binary itself on some of the states: it starts, and serves what is right.
fn started_for_real(told: &Told, cuts: &[Cut]) {
    let count = (cuts.len() / 100).clamp(2, 100);
    let mut walk = Walk::new(Arc::clone(&told.operations), BALLAST);
    let site = load::Site::new();
    for cut in cuts.iter().skip(cuts.len() / count / 2).step_by(cuts.len() / count) {
        walk.advance(cut.at);
        let folder = fast_folder();
        walk.state(cut.seed).write(folder.path()).expect("written");
        let lines = site.started_on(folder.path());
        let served = before(&told.served, cut.at).max().unwrap_or(0);
        let numbers = lines.iter().filter_map(load::last_number).collect::<BTreeSet<_>>();
        assert!(numbers.last().copied().unwrap_or(0) >= served, "{cut}: {served} was served before");
        for line in &lines {
            let Some(seq) = line["seq"].as_u64() else { continue };
            let Some((point, value)) = told.truth.get(&seq) else { continue };
            let is = (line["point"].as_str().unwrap_or_default(), line["result"].as_f64().map(f64::to_bits));
            assert!(
                is == (point.as_str(), *value) || line["phenomenonTime"].is_null() || seq > served,
                "{cut}: {line}"
            );
        }
    }
}
