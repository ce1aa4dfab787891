//! Room in the store: what a full card loses first, what erasing leaves, and how much all of it takes. Real files.
//!
//! Two long runs are left out unless `tests/run room` asks for them by the environment: `CLOCHER_ROOM` is a folder with
//! 200 MB free, for ninety days in a few minutes and a kill; `CLOCHER_CARD` is a freshly made file system of its own,
//! for the bytes a day writes to the device beneath.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use clocher::{
    buffer::{Audience, Buffer, Settings, block},
    clock::{Clock, HeldTime, Source, Stamp},
    condition::Board,
    reading::{Batch, Commit, PointId, Quality, Reading, Sharing, Stored},
    store::{Archive, Cause, Entry, Gap, PageRequest},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

const MB: u64 = 1 << 20;
const WALL: i64 = 1_800_000_000_000;

fn settings(folder: &Path, size_limit: u64) -> Settings {
    Settings { directory: folder.join("store"), size_limit, commit_within: Duration::from_secs(3600) }
}

fn point(name: &str) -> PointId {
    name.parse().expect("a name")
}

fn reading(point: &PointId, mono_ms: u64, value: f64) -> Reading {
    Reading { point: point.clone(), stamp: Stamp { boot: 1, mono_ms }, value: Some(value), quality: Quality::Good }
}

struct Running {
    buffer: Buffer,
    archive: Arc<dyn Archive>,
    clock: Clock,
    time: Arc<HeldTime>,
    findings: Vec<String>,
}

fn run(settings: &Settings, audience: Option<Audience>) -> Running {
    let opened = Buffer::open(settings).expect("opens");
    let time = HeldTime::at(WALL, Source::Ntp);
    let clock = Clock::new(opened.boot, time.clone(), opened.samples);
    if let Some(sample) = clock.observe() {
        opened.buffer.remember(sample).expect("remembered");
    }
    if let Some(audience) = audience {
        opened.buffer.know_audience(audience);
    }
    opened.buffer.start(clock.clone(), Board::new(clock.clone()));
    let findings = opened.findings.into_iter().map(|finding| finding.detail).collect();
    Running { archive: opened.buffer.archive(), buffer: opened.buffer, clock, time, findings }
}

impl Running {
    async fn store(&self, readings: Vec<Reading>) {
        self.buffer.append(Batch { readings, commit: Commit::Grouped, accepted: None }).await;
        self.buffer.commit().await;
    }

    /// Ends the writer, and lets go of the store's lock.
    async fn close(self) {
        self.buffer.close().await;
    }

    fn last(&self) -> u64 {
        self.archive.figures().last_seq
    }

    fn tally(&self) -> Tally {
        Tally::of(&*self.archive, 5000)
    }

    async fn erase(&self, name: &str, before_ms: Option<i64>) -> u64 {
        let (archive, point) = (Arc::clone(&self.archive), point(name));
        tokio::task::spawn_blocking(move || archive.erase(&point, before_ms)).await.expect("ran").expect("erased")
    }
}

fn pages(
    archive: &dyn Archive,
    limit: usize,
    points: Option<&HashSet<PointId>>,
    mut told: impl FnMut(u64, &[Entry], u64),
) {
    let mut after = 0;
    loop {
        let page = archive.page(&PageRequest { after, upto: u64::MAX, limit, points }).expect("a page");
        assert!(page.entries.len() <= limit);
        assert!(page.entries.is_sorted_by_key(Entry::last_seq));
        assert!(page.next > after || page.complete, "a page that leads nowhere");
        told(after, &page.entries, page.next);
        after = page.next;
        if page.complete {
            return;
        }
    }
}

/// What is there and what is told to be gone.
#[derive(Debug, Default)]
struct Tally {
    /// By the first part of a point's name.
    there: HashMap<String, u64>,
    whole: Vec<Gap>,
    scattered: Vec<Gap>,
}

impl Tally {
    /// Fails unless every number is told exactly once, as a reading or in a gap, page by page.
    fn of(archive: &dyn Archive, limit: usize) -> Self {
        let mut tally = Self::default();
        pages(archive, limit, None, |after, entries, next| {
            let mut numbers = 0;
            for entry in entries {
                match entry {
                    Entry::Reading(stored) => {
                        numbers += 1;
                        let group = stored.reading.point.as_str().split('/').next().unwrap_or_default();
                        match tally.there.get_mut(group) {
                            Some(count) => *count += 1,
                            None => drop(tally.there.insert(group.to_owned(), 1)),
                        }
                    }
                    Entry::Gap(gap) => {
                        assert!(gap.first > after && gap.last <= next && gap.count > 0, "{gap:?}");
                        numbers += gap.count;
                        let scattered = gap.is_scattered();
                        if scattered { &mut tally.scattered } else { &mut tally.whole }.push(gap.clone());
                    }
                }
            }
            assert_eq!(numbers, next - after, "after {after} up to {next}");
        });
        tally
    }

    fn of_group(&self, group: &str) -> u64 {
        self.there.get(group).copied().unwrap_or(0)
    }

    fn gone(&self) -> u64 {
        self.whole.iter().chain(&self.scattered).map(|gap| gap.count).sum()
    }
}

fn disk_usage(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let of = |entry: fs::DirEntry| {
        let own = entry.metadata().map_or(0, |data| data.blocks() * 512);
        if entry.path().is_dir() { own + disk_usage(&entry.path()) } else { own }
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(of).sum()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(fs::copy(entry.path(), target)) }
    }
}

fn segments(settings: &Settings) -> Vec<PathBuf> {
    let entries = fs::read_dir(settings.directory.join("segments")).expect("lists").flatten();
    let mut folders = entries.map(|entry| entry.path()).collect::<Vec<_>>();
    folders.sort();
    folders
}

// -- what goes first --------------------------------------------------------------------------------------------------

/// Twenty points of three classes, unrounded noise that packs to seven bytes a reading.
struct Noise {
    points: Vec<PointId>,
    rng: StdRng,
    round: u64,
}

impl Noise {
    const CLASSES: [(&'static str, Sharing, usize); 3] =
        [("public", Sharing::Public, 8), ("internal", Sharing::Internal, 8), ("personal", Sharing::Personal, 4)];

    fn new() -> Self {
        let names = Self::CLASSES.iter().flat_map(|(name, _, count)| (0..*count).map(move |n| format!("{name}/p{n}")));
        Self { points: names.map(|name| point(&name)).collect(), rng: StdRng::seed_from_u64(11), round: 0 }
    }

    fn audience(peers: &[(&str, &[Sharing])]) -> Audience {
        let of_class = |(name, class, count): &(&str, Sharing, usize)| {
            (0..*count).map(|n| (point(&format!("{name}/p{n}")), *class)).collect::<Vec<_>>()
        };
        Audience {
            classes: Self::CLASSES.iter().flat_map(of_class).collect(),
            peers: peers.iter().map(|(name, sees)| ((*name).to_owned(), sees.iter().copied().collect())).collect(),
        }
    }

    /// Ten thousand readings.
    fn batch(&mut self) -> Vec<Reading> {
        let from = self.round;
        self.round += 500;
        let rng = &mut self.rng;
        let of_round = |round| self.points.iter().enumerate().map(move |(n, point)| (round, n as u64, point));
        (from..from + 500).flat_map(of_round).map(|(r, n, p)| reading(p, r * 10_000 + n, rng.random())).collect()
    }
}

#[tokio::test]
async fn a_full_card_loses_what_was_pulled_first_and_then_the_least_shared_classes() {
    let folder = TempDir::new().expect("folder");
    let limit = env_size().unwrap_or(24 * MB);
    let settings = settings(folder.path(), limit);
    let audience = Noise::audience(&[
        ("prefecture", &[Sharing::Public, Sharing::Internal]),
        ("museum", &[Sharing::Public]),
        ("gone", &[]),
    ]);
    let store = run(&settings, Some(audience.clone()));
    // Removed from the configuration long ago: its progress must neither hold nor free anything.
    store.archive.acknowledge("removed", 1).expect("kept");
    let mut noise = Noise::new();
    let mut pulled = 0;
    let mut most = 0;
    let (mut first_thinned, mut internal_first_lost, mut whole_after_classes) = (None, None, None);
    // The cursors stop long before the card is full.
    let stop_at = limit / 100;
    for round in 0..5_000u64 {
        store.store(noise.batch()).await;
        if store.last() <= stop_at {
            pulled = store.last();
            store.archive.acknowledge("prefecture", pulled).expect("kept");
            store.archive.acknowledge("museum", pulled / 2).expect("kept");
        }
        if round % 4 != 0 {
            continue;
        }
        most = most.max(disk_usage(&settings.directory));
        // In this order: room is made meanwhile, and a loss is counted after it is told.
        let lost = store.archive.figures().lost;
        let gaps = store.archive.gaps();
        let whole = gaps.iter().find(|gap| gap.first == 1 && !gap.is_scattered()).map_or(0, |gap| gap.last);
        let thinned = gaps.iter().filter(|gap| gap.is_scattered()).map(|gap| gap.count).sum::<u64>();
        if thinned == 0 && whole <= pulled {
            assert_eq!(lost, 0, "what was pulled is not lost");
        } else if first_thinned.is_none() {
            first_thinned = Some(round);
            assert!(whole > 0 && whole <= pulled, "whole segments that were pulled went first: {gaps:?}");
        }
        if first_thinned.is_some() && round % 40 == 0 && internal_first_lost.is_none() {
            let internal = missing_beyond(&*store.archive, pulled, &noise.points[8..16]);
            if internal > 0 {
                internal_first_lost = Some(round);
                let personal = missing_beyond(&*store.archive, pulled, &noise.points[16..]);
                assert!(personal > internal / 2, "{personal} personal, {internal} internal readings gone");
            }
        }
        // The rest of the order takes minutes, and is run by command.
        if thinned > 40_000 && env_size().is_none() {
            break;
        }
        if whole > pulled + 100_000 {
            whole_after_classes = Some(round);
            break;
        }
    }
    println!(
        "limit {limit}: at most {most} bytes on the card; thinned from round {first_thinned:?}, internal from \
         {internal_first_lost:?}, public from {whole_after_classes:?} on; {} readings, pulled up to {pulled}",
        store.last()
    );
    assert!(most <= limit, "{most} bytes on the card");
    // Nothing is made room for any more.
    store.buffer.close().await;
    let (tally, lost) = (store.tally(), store.archive.figures().lost);
    if env_size().is_none() {
        assert!(first_thinned.is_some());
        assert_eq!(missing_beyond(&*store.archive, pulled, &noise.points[..16]), 0, "personal points go first");
    } else {
        let order = (first_thinned.expect("thinned"), internal_first_lost.expect("internal"));
        assert!(order.0 <= order.1 && order.1 < whole_after_classes.expect("public"), "{order:?}");
        assert!(tally.of_group("public") > 2 * tally.of_group("internal"), "{:?}", tally.there);
    }
    // Everything is in a gap of the list, too, and what nobody had pulled is what was lost.
    assert_eq!(store.archive.gaps().iter().map(|gap| gap.count).sum::<u64>(), tally.gone());
    assert!(tally.scattered.iter().chain(&tally.whole).all(|gap| gap.cause == Cause::SizeLimit && gap.from.is_some()));
    assert!(lost <= tally.gone() && lost >= tally.gone() - pulled, "{lost} of {} lost", tally.gone());
    let seen = (tally.gone(), store.last(), tally.there);
    drop(store);
    let again = run(&settings, Some(audience));
    assert_eq!(again.findings, Vec::<String>::new());
    let tally = again.tally();
    assert_eq!((tally.gone(), again.last(), tally.there), seen);
    assert_eq!((again.archive.figures().lost, again.archive.gaps().iter().map(|g| g.count).sum()), (lost, seen.0));
}

/// Numbers beyond `after`, of these points, that are told as gaps between readings.
fn missing_beyond(archive: &dyn Archive, after: u64, points: &[PointId]) -> u64 {
    let points = points.iter().cloned().collect::<HashSet<_>>();
    let mut missing = 0;
    let mut after = after;
    loop {
        let request = PageRequest { after, upto: u64::MAX, limit: 5000, points: Some(&points) };
        let page = archive.page(&request).expect("a page");
        let gaps = page.entries.iter().filter_map(|e| if let Entry::Gap(gap) = e { Some(gap) } else { None });
        missing += gaps.filter(|gap| gap.is_scattered()).map(|gap| gap.count).sum::<u64>();
        after = page.next;
        if page.complete {
            return missing;
        }
    }
}

fn env_size() -> Option<u64> {
    std::env::var_os("CLOCHER_ROOM").map(|_| 64 * MB)
}

// -- erasing ----------------------------------------------------------------------------------------------------------

const SECRET: f64 = 7_319_411.25;

/// A day's half of ten points, of which `home/p3` says only what is nowhere else.
async fn with_secrets(store: &Running, count: u64) -> u64 {
    let points = (0..10).map(|n| point(&format!("home/p{n}"))).collect::<Vec<_>>();
    let mut secrets = 0;
    for part in 0..count {
        let mut readings = Vec::new();
        for round in part * 500..(part + 1) * 500 {
            for (n, point) in points.iter().enumerate() {
                let mono = round * 10_000 + n as u64;
                let secret = n == 3;
                secrets += u64::from(secret);
                let value = if secret { SECRET + (round % 1000) as f64 } else { (round % 777) as f64 + n as f64 };
                readings.push(reading(point, mono, value));
            }
        }
        store.store(readings).await;
    }
    secrets
}

/// Every value in every sound block of every file below a folder, whatever else the file holds.
fn values_in(folder: &Path) -> Vec<Stored> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(values_in(&entry.path()));
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap_or_default();
        for at in memchr_all(&bytes, b"CKB1") {
            found.extend(block::decode(&bytes[at..]).map(|block| block.readings).unwrap_or_default());
        }
    }
    found
}

fn memchr_all<'a>(bytes: &'a [u8], needle: &'a [u8; 4]) -> impl Iterator<Item = usize> + 'a {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == needle[0]).map(|(at, _)| at);
    starts.filter(move |at| bytes[*at..].starts_with(needle))
}

fn is_secret(stored: &Stored) -> bool {
    stored.reading.value.is_some_and(|value| (SECRET..SECRET + 1000.0).contains(&value))
}

#[tokio::test]
async fn what_is_erased_is_found_nowhere_in_the_store_s_files_and_the_rest_is_untouched() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path(), 64 * MB);
    let store = run(&settings, None);
    let secrets = with_secrets(&store, 12).await;
    assert!(values_in(&settings.directory).iter().filter(|s| is_secret(s)).count() > 1000, "the search finds them");
    fs::create_dir_all(settings.directory.join("damaged/2027-01-01-keep")).expect("made");
    copy(&segments(&settings)[0], &settings.directory.join("damaged/2027-01-01-keep"));

    assert_eq!(store.erase("home/p3", None).await, secrets);
    assert_eq!(values_in(&settings.directory).iter().filter(|s| is_secret(s)).count(), 0);
    assert!(store.archive.latest().iter().all(|stored| stored.reading.point != point("home/p3")));
    assert_eq!(store.archive.latest().len(), 9);
    let hour = |name: &str| store.archive.history(&point(name), WALL, WALL + 3_600_000, 900_000).expect("read");
    assert_eq!((hour("home/p3").len(), hour("home/p4").len()), (0, 4));
    let tally = store.tally();
    assert_eq!((tally.gone(), tally.of_group("home")), (secrets, 9 * secrets));
    assert!(tally.scattered.iter().all(|gap| gap.cause == Cause::Erased));
    let gaps = store.archive.gaps();
    assert_eq!(gaps.iter().map(|gap| (gap.count, gap.cause)).collect::<Vec<_>>(), [(secrets, Cause::Erased)]);
    assert_eq!(store.archive.figures().lost, 0, "nothing was lost: it was wished");
    // A peer that may see other points only is not told of it.
    let others = HashSet::from([point("home/p4")]);
    pages(&*store.archive, 700, Some(&others), |_, entries, _| {
        assert!(entries.iter().all(|entry| matches!(entry, Entry::Reading(_))));
    });
    // The point goes on, numbers too.
    let last = store.last();
    store.store(vec![reading(&point("home/p3"), 99_000_000, 1.5)]).await;
    assert_eq!((store.last(), store.erase("home/p9", None).await), (last + 1, secrets));
    assert_eq!(store.erase("home/p9", None).await, 0, "there is nothing left to erase");
    store.close().await;
    let again = run(&settings, None);
    assert_eq!(again.findings, Vec::<String>::new());
    let tally = again.tally();
    assert_eq!((tally.gone(), tally.of_group("home")), (2 * secrets, 8 * secrets + 1));
    assert_eq!(again.archive.gaps().iter().map(|gap| gap.count).sum::<u64>(), 2 * secrets);
    let newest = again.archive.latest();
    assert_eq!(newest.iter().find(|s| s.reading.point == point("home/p3")).and_then(|s| s.reading.value), Some(1.5));
}

#[tokio::test]
async fn erasing_what_is_older_than_a_date_leaves_what_is_newer_and_what_has_no_date() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path(), 64 * MB);
    let store = run(&settings, None);
    let secrets = with_secrets(&store, 4).await;
    // Of a boot of which the time is not known.
    let undated = Reading { stamp: Stamp { boot: 77, mono_ms: 5 }, ..reading(&point("home/p3"), 0, SECRET) };
    store.store(vec![undated]).await;
    let noon = WALL + 1000 * 10_000;
    assert_eq!(store.erase("home/p3", Some(noon)).await, 1000);
    let mut left = Vec::new();
    pages(&*store.archive, 5000, Some(&HashSet::from([point("home/p3")])), |_, entries, _| {
        left.extend(
            entries.iter().filter_map(|e| if let Entry::Reading(s) = e { Some(s.reading.clone()) } else { None }),
        );
    });
    assert_eq!(left.len() as u64, secrets - 1000 + 1);
    assert!(left.iter().all(|r| r.stamp.boot == 77 || store.clock.resolve(r.stamp).is_some_and(|w| w.unix_ms >= noon)));
    assert_eq!(store.archive.history(&point("home/p3"), WALL, noon, 900_000).expect("read"), []);
    assert_eq!(store.tally().gone(), 1000);
    assert!(store.archive.latest().iter().any(|stored| stored.reading.point == point("home/p3")));
    let early = values_in(&settings.directory);
    let early = early.iter().filter(|s| is_secret(s) && s.reading.stamp.boot != 77);
    assert_eq!(early.filter(|s| store.clock.resolve(s.reading.stamp).is_some_and(|w| w.unix_ms < noon)).count(), 0);
}

#[tokio::test]
async fn numbers_and_gaps_add_up_however_a_page_is_cut() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path(), 64 * MB);
    let store = run(&settings, None);
    with_secrets(&store, 1).await;
    store.erase("home/p0", None).await;
    store.erase("home/p9", None).await;
    store.store(vec![reading(&point("home/p1"), 1, 1.0)]).await;
    for limit in [1, 2, 3, 4, 7, 10, 500, 10_000] {
        assert_eq!(Tally::of(&*store.archive, limit).gone(), 1000, "{limit} at once");
    }
    for (after, upto) in [(0, 1), (0, 9), (0, 10), (3, 17), (9, 10), (10, 11), (4990, 5001), (17, 4321)] {
        let request = PageRequest { after, upto, limit: 10_000, points: None };
        let entries = store.archive.page(&request).expect("a page").entries;
        let of = |entry: &Entry| if let Entry::Gap(gap) = entry { gap.count } else { 1 };
        assert_eq!(entries.iter().map(of).sum::<u64>(), upto - after, "{after} to {upto}: {entries:?}");
    }
}

#[tokio::test]
async fn reading_and_storing_go_on_while_segments_are_written_anew() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path(), 64 * MB);
    let store = run(&settings, None);
    let secrets = with_secrets(&store, 10).await;
    let before = store.last();
    let archive = Arc::clone(&store.archive);
    let erasing = tokio::task::spawn_blocking(move || archive.erase(&point("home/p3"), None));
    let mut stored = 0;
    while !erasing.is_finished() {
        // A pull in steps: whatever it meets, no number is missing or told twice.
        let archive = Arc::clone(&store.archive);
        let tally = tokio::task::spawn_blocking(move || Tally::of(&*archive, 900)).await.expect("ran");
        assert_eq!(tally.of_group("home") + tally.of_group("bell") + tally.gone(), store.last());
        store.store(vec![reading(&point("bell/hour"), 50_000_000 + stored, 1.0)]).await;
        stored += 1;
    }
    assert_eq!(erasing.await.expect("ran").expect("erased"), secrets);
    assert_eq!(store.last(), before + stored);
    let tally = store.tally();
    assert_eq!((tally.of_group("bell"), tally.gone()), (stored, secrets));
}

#[tokio::test]
async fn a_fall_at_any_step_of_replacing_a_segment_leaves_the_old_or_the_new() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path(), 64 * MB);
    let store = run(&settings, None);
    let secrets = with_secrets(&store, 4).await;
    // So that the segment is one that is not written to any more.
    store.erase("home/none", None).await;
    store.close().await;
    let before = folder.path().join("before");
    copy(&settings.directory, &before);
    let store = run(&settings, None);
    store.erase("home/p3", None).await;
    store.close().await;
    let name = segments(&settings)[0].clone();
    let name = name.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(settings.directory.join("segments").join(&name).join("whole").exists());
    let fresh = settings.directory.join("segments").join(&name);
    type Lay = fn(&Path, &str, &Path);
    let steps: [(&str, Lay, u64); 5] = [
        (
            "half a copy",
            |at, name, fresh| {
                copy(fresh, &at.join(format!("{name}.thin")));
                fs::remove_file(at.join(format!("{name}.thin/whole"))).expect("removed");
            },
            0,
        ),
        ("a whole copy", |at, name, fresh| copy(fresh, &at.join(format!("{name}.thin"))), 0),
        (
            "the old one put away",
            |at, name, fresh| {
                copy(fresh, &at.join(format!("{name}.thin")));
                fs::rename(at.join(name), at.join(format!("{name}.old"))).expect("renamed");
            },
            1,
        ),
        (
            "the new one in place",
            |at, name, fresh| {
                fs::rename(at.join(name), at.join(format!("{name}.old"))).expect("renamed");
                copy(fresh, &at.join(name));
            },
            1,
        ),
        (
            "the old one put away and no copy",
            |at, name, _| {
                fs::rename(at.join(name), at.join(format!("{name}.old"))).expect("renamed");
            },
            0,
        ),
    ];
    for (what, lay, taken) in steps {
        let image = TempDir::new().expect("folder");
        copy(&before, &image.path().join("store"));
        lay(&image.path().join("store/segments"), &name, &fresh);
        let store = run(&Settings { directory: image.path().join("store"), ..settings.clone() }, None);
        assert_eq!(store.findings, Vec::<String>::new(), "{what}");
        let tally = store.tally();
        assert_eq!((tally.gone(), tally.of_group("home")), (taken * secrets, (10 - taken) * secrets), "{what}");
        assert_eq!(store.archive.gaps().iter().map(|gap| gap.count).sum::<u64>(), taken * secrets, "{what}");
        let left = fs::read_dir(image.path().join("store/segments")).expect("lists").flatten();
        assert!(left.map(|entry| entry.file_name()).all(|name| name.len() == 20), "{what}: nothing is left over");
        store.close().await;
    }
}

// -- long runs, by command --------------------------------------------------------------------------------------------

/// Fifty points of a village hall, every ten seconds; ten devices, each with its own pace.
struct Hall {
    points: Vec<PointId>,
    rng: StdRng,
}

impl Hall {
    fn new() -> Self {
        let of = |n: usize| format!("hall-{}/{}", n / 5, ["temp", "power", "index", "volt", "state"][n % 5]);
        Self { points: (0..50).map(|n| point(&of(n))).collect(), rng: StdRng::seed_from_u64(1) }
    }

    fn round(&mut self, round: u64) -> Vec<Reading> {
        let mut readings = Vec::with_capacity(50);
        let mut jitter = 0;
        for (n, point) in self.points.iter().enumerate() {
            let place = n as u64;
            jitter = if n % 5 == 0 { self.rng.random_range(0..9) } else { jitter };
            let noise: f64 = self.rng.random_range(-1.0..1.0);
            let value = match n % 5 {
                0 => 18.0 + ((round as f64 / 400.0 + n as f64).sin() * 40.0 + noise * 0.3).round() / 10.0,
                1 => (1200.0 + 300.0 * (round as f64 / 50.0).sin() + noise * 20.0).round(),
                2 => (4_000_000.0 + (round * 3 + place) as f64 + noise.round()) / 1000.0,
                3 => ((230.0 + noise) * 10.0f64).round() / 10.0,
                _ => f64::from(u8::from((round / 30 + place).is_multiple_of(3))),
            };
            readings.push(reading(point, round * 10_000 + place / 5 * 40 + jitter, value));
        }
        readings
    }

    /// One commit of 30 s.
    fn commit(&mut self, commit: u64) -> Vec<Reading> {
        (commit * 3..commit * 3 + 3).flat_map(|round| self.round(round)).collect()
    }
}

const COMMITS: u64 = 2880;

/// Ninety, unless `CLOCHER_ROOM_DAYS` says otherwise.
fn days() -> u64 {
    std::env::var("CLOCHER_ROOM_DAYS").ok().and_then(|text| text.parse().ok()).unwrap_or(90)
}

/// Not a test of its own: the gateway's store as a process that is killed.
#[tokio::test]
async fn fills_ninety_days_for_the_run_that_kills_it() {
    let Some(folder) = std::env::var_os("CLOCHER_ROOM_FILL") else { return };
    let settings = settings(Path::new(&folder), 6_000_000_000);
    let store = run(&settings, None);
    let mut hall = Hall::new();
    let mut most = 0;
    for day in 0..days() {
        for commit in day * COMMITS..(day + 1) * COMMITS {
            store.store(hall.commit(commit)).await;
            store.time.advance(30_000);
        }
        if let Some(sample) = store.clock.observe() {
            store.buffer.remember(sample).expect("remembered");
        }
        most = most.max(disk_usage(&settings.directory));
    }
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let resident = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    let resident = resident.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    eprintln!("\nFILLED {} readings, at most {most} bytes, {}", store.last(), resident.join(", "));
    // Until it is killed.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn ninety_days_fit_open_within_a_second_after_a_kill_and_every_reading_is_there() {
    let Some(folder) = std::env::var_os("CLOCHER_ROOM") else { return };
    let folder = tempfile::tempdir_in(folder).expect("folder");
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "--nocapture", "room::fills_ninety_days_for_the_run_that_kills_it"])
        .env("CLOCHER_ROOM_FILL", folder.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let said = BufReader::new(child.stderr.take().expect("piped"));
    let filled = said.lines().map_while(Result::ok).find(|line| line.starts_with("FILLED")).expect("filled");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let filling = begun.elapsed();
    let settings = settings(folder.path(), 6_000_000_000);
    let begun = Instant::now();
    let opened = Buffer::open(&settings).expect("opens");
    let opening = begun.elapsed();
    assert_eq!(opened.findings, []);
    let used = disk_usage(&settings.directory);
    let archive = opened.buffer.archive();
    let begun = Instant::now();
    let tally = Tally::of(&*archive, 5000);
    let reading = begun.elapsed();
    let count = days() * COMMITS * 150;
    let each = used as f64 / count as f64;
    println!(
        "{filled} in {filling:?}; {used} bytes on the card, {each:.3} a reading; opened after the kill in {opening:?}; all read in {reading:?}"
    );
    assert_eq!((tally.of_group("hall-0"), tally.there.values().sum::<u64>(), tally.gone()), (count / 10, count, 0));
    assert!(opening < Duration::from_secs(1), "{opening:?}");
    assert!(each < 2.0, "{each}");
}

/// What a day writes to the device. The kernel writes a file's times down some seconds after each commit, which in a
/// day run within minutes would be missing: so after each commit (`CLOCHER_CARD_EVERY` = 1) or each so many the whole
/// file system is synced, as its timer would have.
#[tokio::test]
async fn a_day_at_the_card_by_the_device_s_own_count() {
    let Some(card) = std::env::var_os("CLOCHER_CARD") else { return };
    let every = std::env::var("CLOCHER_CARD_EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(1u64);
    let card = PathBuf::from(card);
    let settings = settings(&card, 500_000_000);
    let store = run(&settings, None);
    let sync = || assert!(Command::new("sync").arg("-f").arg(&card).status().expect("run").success());
    let keep = store.buffer.keep();
    let mut hall = Hall::new();
    // The store is at work already: a day among others.
    for commit in 0..40 {
        store.store(hall.commit(commit)).await;
    }
    sync();
    let bytes = || store.archive.figures().written;
    let before = bytes();
    let (mut head, mut keeping) = (0, 0);
    for commit in 40..40 + COMMITS {
        let at = bytes();
        store.store(hall.commit(commit)).await;
        store.time.advance(30_000);
        if commit % every == 0 {
            sync();
        }
        head += bytes() - at;
        let at = bytes();
        // Two peers pull every minute; the register is written every ten minutes for each.
        if commit % 2 == 0 {
            store.archive.acknowledge("prefecture", store.last()).expect("kept");
            store.archive.acknowledge("museum", store.last()).expect("kept");
        }
        if commit % 20 == 0 {
            for peer in 0..2u64 {
                let number = commit / 120 * 2 + peer;
                keep.put("access", &number.to_be_bytes(), &[b'x'; 230]).expect("kept");
            }
        }
        if commit % 720 == 0
            && let Some(sample) = store.clock.observe()
        {
            store.buffer.remember(sample).expect("remembered");
        }
        keeping += bytes() - at;
    }
    store.buffer.close().await;
    sync();
    let total = bytes() - before;
    let mega = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "synced after every {every} commits: {:.1} MB a day written to the device: {:.1} commits and seals, {:.1} records",
        mega(total),
        mega(head),
        mega(keeping)
    );
}
