//! The store from outside: restarts, crash images, damage, limits, history. Real files, no sleeping.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clocher::{
    buffer::{Buffer, Opened, Settings},
    clock::{Clock, HeldTime, Sample, Source, Stamp},
    condition::{Board, Code},
    reading::{Batch, Commit, PointId, Quality, Reading, Stored, Why},
    store::{Archive, Cause, Entry, KeepExt, PageRequest},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::sync::oneshot;

const MB: u64 = 1 << 20;

fn settings(folder: &Path) -> Settings {
    Settings { directory: folder.join("store"), size_limit: 256 * MB, commit_within: Duration::from_secs(3600) }
}

fn point(name: &str) -> PointId {
    name.parse().expect("a name")
}

fn reading(name: &str, boot: u32, mono_ms: u64, value: f64) -> Reading {
    Reading { point: point(name), stamp: Stamp { boot, mono_ms }, value: Some(value), quality: Quality::Good }
}

/// An opened store whose writer runs, with its board and a clock that stands at `wall_ms`.
struct Running {
    buffer: Buffer,
    archive: std::sync::Arc<dyn Archive>,
    board: Board,
    boot: u32,
    findings: Vec<String>,
    codes: Vec<Option<Code>>,
    newest_ms: Option<i64>,
}

fn run(settings: &Settings, wall_ms: i64) -> Running {
    begin(Buffer::open(settings).expect("opens"), wall_ms)
}

fn begin(opened: Opened, wall_ms: i64) -> Running {
    let clock = Clock::new(opened.boot, HeldTime::at(wall_ms, Source::Ntp), opened.samples);
    let board = Board::new(clock.clone());
    if let Some(sample) = clock.observe() {
        opened.buffer.remember(sample).expect("remembered");
    }
    opened.buffer.start(clock, board.clone());
    Running {
        archive: opened.buffer.archive(),
        buffer: opened.buffer,
        board,
        boot: opened.boot,
        codes: opened.findings.iter().map(|f| f.code).collect(),
        findings: opened.findings.into_iter().map(|f| f.detail).collect(),
        newest_ms: opened.newest_ms,
    }
}

const WALL: i64 = 1_800_000_000_000;

impl Running {
    async fn append(&self, readings: Vec<Reading>) {
        self.buffer.append(Batch { readings, commit: Commit::Grouped, accepted: None }).await;
    }

    async fn stored(&self, readings: Vec<Reading>) {
        self.append(readings).await;
        self.buffer.commit().await;
    }

    async fn close(self) {
        self.buffer.close().await;
    }

    fn all(&self) -> Vec<Entry> {
        everything(&*self.archive, 0, None)
    }

    fn values(&self) -> Vec<f64> {
        readings(&self.all()).iter().filter_map(|stored| stored.reading.value).collect()
    }
}

fn everything(archive: &dyn Archive, after: u64, points: Option<&HashSet<PointId>>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut after = after;
    loop {
        let page = archive.page(&PageRequest { after, upto: u64::MAX, limit: 777, points }).expect("a page");
        assert!(page.entries.len() <= 777);
        assert!(page.next > after || page.complete, "a page that leads nowhere");
        after = page.next;
        entries.extend(page.entries);
        if page.complete {
            return entries;
        }
    }
}

fn readings(entries: &[Entry]) -> Vec<Stored> {
    entries.iter().filter_map(|e| if let Entry::Reading(stored) = e { Some(stored.clone()) } else { None }).collect()
}

/// Every number from 1 on is there once, as a reading or in a gap. Returns how many are in gaps.
fn assert_no_number_missing(entries: &[Entry]) -> u64 {
    let mut next = 1;
    let mut gaps = 0;
    for entry in entries {
        let first = match entry {
            Entry::Reading(stored) => stored.seq,
            Entry::Gap(gap) => {
                gaps += gap.count;
                assert_eq!(gap.count, gap.last - gap.first + 1);
                gap.first
            }
        };
        assert_eq!(first, next, "{entry:?}");
        next = entry.last_seq() + 1;
    }
    gaps
}

fn rounds(boot: u32, from: u64, count: u64) -> Vec<Reading> {
    let mut rng = StdRng::seed_from_u64(from);
    let of_round = |round: u64| (0..50u64).map(move |n| (round, n)).collect::<Vec<_>>();
    let one = |(round, n): (u64, u64)| {
        let value = match n % 5 {
            0 => 18.0 + ((round as f64 / 400.0 + n as f64).sin() * 40.0).round() / 10.0,
            1 => (1200.0 + 300.0 * (round as f64 / 50.0).sin() + rng.random_range(-20.0..20.0)).round(),
            2 => (4_000_000.0 + (round * 3 + n) as f64) / 1000.0,
            3 => ((230.0 + rng.random_range(-1.0..1.0)) * 10.0f64).round() / 10.0,
            _ => f64::from(u8::from((round / 30 + n) % 3 == 0)),
        };
        // Ten devices, polled one after the other; the five values of one have one stamp.
        let jitter = n / 5 * 40 + (round * 7919 + n / 5 * 104_729) % 9;
        reading(
            &format!("hall-{}/{}", n / 5, ["temp", "power", "index", "volt", "state"][n as usize % 5]),
            boot,
            round * 10_000 + jitter,
            value,
        )
    };
    (from..from + count).flat_map(of_round).map(one).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(fs::copy(entry.path(), target)) }
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

fn segments(settings: &Settings) -> Vec<PathBuf> {
    let entries = fs::read_dir(settings.directory.join("segments")).expect("lists").flatten();
    let mut folders = entries.map(|entry| entry.path()).collect::<Vec<_>>();
    folders.sort();
    folders
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_numbers_go_on() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let mut expected = Vec::new();
    let mut identity = None;
    for boot in 1..=4u32 {
        let store = run(&settings, WALL + i64::from(boot) * 3_600_000);
        assert_eq!((store.boot, &store.findings), (boot, &vec![]));
        assert_eq!(*identity.get_or_insert(store.archive.identity()), store.archive.identity());
        let batch = rounds(boot, 0, 150);
        expected.extend(batch.iter().filter_map(|r| r.value));
        for part in batch.chunks(150) {
            store.stored(part.to_vec()).await;
        }
        assert_eq!(store.values(), expected);
        store.close().await;
    }
    let store = run(&settings, WALL);
    assert_eq!(store.values(), expected);
    assert_eq!(assert_no_number_missing(&store.all()), 0);
    assert_eq!(store.archive.latest().len(), 50);
    assert!(store.newest_ms.is_some_and(|ms| ms > WALL + 4 * 3_600_000));
    assert_eq!(*store.archive.head().borrow(), expected.len() as u64);
    assert_eq!(store.archive.figures().first_seq, 1);
}

#[tokio::test]
async fn a_batch_is_accepted_only_once_its_readings_can_be_read_from_the_card() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    let (accepted, mut answer) = oneshot::channel();
    let batch = vec![reading("a/b", 1, 5, 7.0)];
    store.buffer.append(Batch { readings: batch, commit: Commit::Grouped, accepted: Some(accepted) }).await;
    // An hour may pass before this commit; nothing is visible, nothing is accepted.
    assert!(answer.try_recv().is_err());
    assert!(store.all().is_empty());
    store.buffer.commit().await;
    assert_eq!(answer.await, Ok(Ok(())));
    assert_eq!(store.values(), [7.0]);
    let image = folder.path().join("image");
    copy(&settings.directory, &image.join("store"));
    assert_eq!(run(&self::settings(&image), WALL).values(), [7.0]);
}

#[tokio::test]
async fn an_alarm_is_committed_at_once_and_takes_along_what_waits() {
    let folder = TempDir::new().expect("folder");
    let store = run(&settings(folder.path()), WALL);
    store.append(vec![reading("a/b", 1, 5, 1.0)]).await;
    let (accepted, answer) = oneshot::channel();
    let alarm = vec![reading("a/c", 1, 6, 2.0)];
    store.buffer.append(Batch { readings: alarm, commit: Commit::Now, accepted: Some(accepted) }).await;
    assert_eq!(answer.await, Ok(Ok(())));
    assert_eq!(store.values(), [1.0, 2.0]);
}

#[tokio::test]
async fn closing_commits_what_waits_and_refuses_what_comes_after() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    store.append(rounds(1, 0, 2)).await;
    store.buffer.close().await;
    let (accepted, answer) = oneshot::channel();
    let late = vec![reading("a/b", 1, 5, 1.0)];
    store.buffer.append(Batch { readings: late, commit: Commit::Now, accepted: Some(accepted) }).await;
    assert!(answer.await.expect("answered").is_err());
    assert_eq!(store.all().len(), 100);
    drop(store);
    assert_eq!(run(&settings, WALL).all().len(), 100);
}

#[tokio::test]
async fn every_crash_image_opens_with_all_that_was_accepted() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    let mut expected = Vec::new();
    let mut images = Vec::new();
    for (n, part) in rounds(1, 0, 400).chunks(333).enumerate() {
        store.stored(part.to_vec()).await;
        expected.extend(part.iter().filter_map(|r| r.value));
        if n % 6 == 0 {
            let image = folder.path().join(format!("image-{n}"));
            copy(&settings.directory, &image.join("store"));
            images.push((image, expected.len()));
        }
    }
    for (image, count) in images {
        let again = run(&self::settings(&image), WALL);
        assert!(again.codes.iter().all(Option::is_none), "{:?}", again.findings);
        let entries = again.all();
        assert_eq!(assert_no_number_missing(&entries), 0);
        let values = readings(&entries).iter().filter_map(|s| s.reading.value).collect::<Vec<_>>();
        assert_eq!(values, expected[..count]);
        again.stored(vec![reading("x/y", 2, 1, 1.0)]).await;
        assert_eq!(again.all().last().map(Entry::last_seq), Some(count as u64 + 1));
    }
}

#[tokio::test]
async fn images_taken_while_it_writes_keep_every_accepted_reading() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    let parts = rounds(1, 0, 600).chunks(250).map(<[Reading]>::to_vec).collect::<Vec<_>>();
    let expected = parts.iter().flatten().filter_map(|r| r.value).collect::<Vec<_>>();
    let mut images = Vec::new();
    for (n, part) in parts.into_iter().enumerate() {
        store.append(part).await;
        let done = *store.archive.head().borrow();
        if n % 9 == 0 {
            // Copied while the writer is at work: a torn picture, as a power cut leaves.
            let commit = store.buffer.clone();
            let busy = tokio::spawn(async move { commit.commit().await });
            let image = folder.path().join(format!("image-{n}"));
            let (from, to) = (settings.directory.clone(), image.join("store"));
            tokio::task::spawn_blocking(move || copy_marker_last(&from, &to)).await.expect("copied");
            busy.await.expect("committed");
            images.push((image, done as usize));
        } else {
            store.buffer.commit().await;
        }
    }
    for (image, least) in images {
        let again = run(&self::settings(&image), WALL);
        let entries = again.all();
        assert_no_number_missing(&entries);
        let values =
            readings(&entries).iter().map(|s| (s.seq as usize, s.reading.value.expect("a value"))).collect::<Vec<_>>();
        assert!(values.len() >= least, "{} of {least}: {:?}", values.len(), again.findings);
        assert!(values.iter().all(|(seq, value)| expected[seq - 1] == *value));
    }
}

/// The head before the segments: what leaves the head is in a segment already.
fn copy_marker_last(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    fs::copy(from.join("head"), to.join("head")).expect("copies");
    for name in ["segments", "keep"] {
        copy(&from.join(name), &to.join(name));
    }
    fs::copy(from.join("marker"), to.join("marker")).expect("copies");
}

/// A closed store of some blocks and a part of one in the head; how many readings it holds.
async fn filled(settings: &Settings) -> (u64, Vec<f64>) {
    let store = run(settings, WALL);
    let batch = rounds(1, 0, 500);
    for part in batch.chunks(150) {
        store.stored(part.to_vec()).await;
    }
    store.close().await;
    (batch.len() as u64, batch.iter().filter_map(|r| r.value).collect())
}

/// Opens a damaged store: it must serve what is sound, tell the rest, and never give a number twice.
async fn survives(image: &Path, count: u64, expected: &[f64], what: &str) -> (u64, Vec<Option<Code>>) {
    let store = run(&settings(image), WALL);
    let entries = store.all();
    let lost = assert_no_number_missing(&entries);
    for stored in readings(&entries) {
        assert_eq!(stored.reading.value, expected.get(stored.seq as usize - 1).copied(), "{what}: {}", stored.seq);
    }
    store.stored(vec![reading("x/y", store.boot, 1, 1.0)]).await;
    let last = store.all().last().map_or(0, Entry::last_seq);
    assert!(last > count, "{what}: number {last} was given out before");
    let told = store.codes.clone();
    store.close().await;
    // And it does not fall again at the next start.
    let again = run(&settings(image), WALL);
    assert_no_number_missing(&again.all());
    (lost, told)
}

#[tokio::test]
async fn flipped_bytes_anywhere_cost_little_and_are_told() {
    let folder = TempDir::new().expect("folder");
    let (count, expected) = filled(&settings(folder.path())).await;
    let mut rng = StdRng::seed_from_u64(11);
    for round in 0..24 {
        let image = folder.path().join(format!("image-{round}"));
        copy(&folder.path().join("store"), &image.join("store"));
        let victim = match round % 4 {
            0 => image.join("store/head"),
            1 => image.join("store/marker"),
            2 => image.join("store/keep/db"),
            _ => segments(&settings(&image)).pop().expect("a segment").join("db"),
        };
        let mut bytes = fs::read(&victim).expect("reads");
        for _ in 0..1 + round / 8 {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        fs::write(&victim, bytes).expect("writes");
        survives(&image, count, &expected, &format!("round {round}, {}", victim.display())).await;
    }
}

#[tokio::test]
async fn a_file_cut_or_gone_is_survived_and_told() {
    let folder = TempDir::new().expect("folder");
    let (count, expected) = filled(&settings(folder.path())).await;
    let segment = segments(&settings(folder.path())).pop().expect("a segment");
    let segment = Path::new("store/segments").join(segment.file_name().expect("a name"));
    let victims = [Path::new("store/head"), Path::new("store/keep/db"), &segment.join("db")];
    for (n, victim) in victims.iter().enumerate() {
        for part in [0, 1, 2] {
            let image = folder.path().join(format!("cut-{n}-{part}"));
            copy(&folder.path().join("store"), &image.join("store"));
            let path = image.join(victim);
            let length = fs::metadata(&path).expect("there").len();
            fs::File::options().write(true).open(&path).expect("opens").set_len(length * part / 3).expect("cut");
            let (_, told) = survives(&image, count, &expected, &format!("{} cut to {part}/3", victim.display())).await;
            assert!(told.contains(&Some(Code::StoreDamaged)) || n != 0, "{n} {part}");
        }
    }
    for (n, victim) in ["store/head", "store/marker", "store/keep", "store/segments"].iter().enumerate() {
        let image = folder.path().join(format!("gone-{n}"));
        copy(&folder.path().join("store"), &image.join("store"));
        let path = image.join(victim);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("removed");
        let (lost, told) = survives(&image, count, &expected, &format!("{victim} gone")).await;
        assert!(lost == 0 || told.contains(&Some(Code::StoreDamaged)), "{victim}: {told:?}");
    }
}

#[tokio::test]
async fn damage_beyond_what_the_head_still_has_is_salvaged_block_by_block() {
    let folder = TempDir::new().expect("folder");
    let store = run(&settings(folder.path()), WALL);
    let batch = rounds(1, 0, 4000);
    for part in batch.chunks(1000) {
        store.stored(part.to_vec()).await;
    }
    store.close().await;
    let (count, expected) = (batch.len() as u64, batch.iter().filter_map(|r| r.value).collect::<Vec<_>>());
    let mut rng = StdRng::seed_from_u64(12);
    let mut felt = 0;
    for round in 0..12 {
        let image = folder.path().join(format!("image-{round}"));
        copy(&folder.path().join("store"), &image.join("store"));
        let victim = segments(&settings(&image)).pop().expect("a segment").join("db");
        let mut bytes = fs::read(&victim).expect("reads");
        match round % 4 {
            // The beginning of one of sled's parts, which it would clear.
            0 => {
                let at = rng.random_range(0..bytes.len() / 65_536) * 65_536 + 3;
                bytes[at] ^= 0x40;
            }
            1 => {
                let length = rng.random_range(1..bytes.len());
                bytes.truncate(length);
            }
            _ => (0..20).for_each(|_| {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }),
        }
        fs::write(&victim, bytes).expect("writes");
        let (lost, told) = survives(&image, count, &expected, &format!("round {round}")).await;
        felt += usize::from(lost > 0 || told.contains(&Some(Code::StoreDamaged)));
        assert!(round % 4 != 0 || (lost < count / 4 && told.contains(&Some(Code::StoreDamaged))), "{round}: {lost}");
        assert!(round % 4 < 2 || lost < count / 2, "{round}: {lost} lost");
    }
    assert!(felt >= 6, "the damage was hardly felt: {felt} of 12");
}

#[tokio::test]
async fn rubbish_where_files_should_be_is_set_aside() {
    let folder = TempDir::new().expect("folder");
    let (count, expected) = filled(&settings(folder.path())).await;
    let segment = segments(&settings(folder.path())).pop().expect("a segment");
    for name in ["head", "marker", "keep/db", "keep/conf", "db", "conf"] {
        let image = folder.path().join(format!("rubbish-{}", name.replace('/', "-")));
        copy(&folder.path().join("store"), &image.join("store"));
        let inside = image.join("store/segments").join(segment.file_name().expect("a name")).join(name);
        let victim = if ["db", "conf"].contains(&name) { inside } else { image.join("store").join(name) };
        fs::write(&victim, vec![0x5a; 100_000]).expect("writes");
        survives(&image, count, &expected, name).await;
    }
}

#[tokio::test]
async fn a_segment_of_another_box_is_set_aside_and_none_of_its_readings_served() {
    let folder = TempDir::new().expect("folder");
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let (count, expected) = filled(&settings(&ours)).await;
    filled(&settings(&theirs)).await;
    let stranger = segments(&settings(&theirs)).pop().expect("a segment");
    copy(&stranger, &ours.join("store/segments/00000000000000900000"));
    let (lost, told) = survives(&ours, count, &expected, "a stranger").await;
    assert_eq!(lost, 0);
    assert!(told.contains(&Some(Code::StoreDamaged)));
    assert!(fs::read_dir(ours.join("store/damaged")).expect("lists").count() == 1);
}

#[tokio::test]
async fn the_size_limit_holds_on_the_card_and_what_goes_is_told_in_its_place() {
    let folder = TempDir::new().expect("folder");
    let settings = Settings { size_limit: 24 * MB, ..settings(folder.path()) };
    let store = run(&settings, WALL);
    let mut rng = StdRng::seed_from_u64(3);
    let mut most = 0;
    for round in 0..360u64 {
        // Unrounded noise packs badly: seven bytes a reading.
        let batch =
            (0..10_000u64).map(|n| reading(&format!("noise/p{}", n % 40), 1, round * 600_000 + n * 50, rng.random()));
        store.stored(batch.collect()).await;
        if round % 20 == 0 {
            most = most.max(disk_usage(&settings.directory));
        }
    }
    assert!(most <= settings.size_limit, "{most} bytes on the card");
    let entries = store.all();
    let gone = assert_no_number_missing(&entries);
    assert!(gone > 500_000, "{gone}");
    let Some(Entry::Gap(gap)) = entries.first() else { panic!("no gap first") };
    assert_eq!((gap.first, gap.cause), (1, Cause::SizeLimit));
    assert!(gap.from.is_some() && gap.to.is_some());
    assert_eq!(store.archive.figures().lost, gone);
    assert!(store.board.is_open(Code::ReadingsLost, "store"));
    // A peer in the middle of it is told the part that is news to it.
    let page =
        store.archive.page(&PageRequest { after: 1000, upto: u64::MAX, limit: 1, points: None }).expect("a page");
    let Entry::Gap(part) = &page.entries[0] else { panic!("no gap") };
    assert_eq!((part.first, part.last, part.count), (1001, gone, gone - 1000));
    store.close().await;
    let again = run(&settings, WALL);
    assert_eq!(again.findings, Vec::<String>::new());
    assert_eq!(assert_no_number_missing(&again.all()), gone);
    assert_eq!(again.archive.gaps().len(), 1);
}

#[tokio::test]
async fn pages_keep_their_limit_and_a_filter_moves_on_over_what_it_leaves_out() {
    let folder = TempDir::new().expect("folder");
    let store = run(&settings(folder.path()), WALL);
    for part in rounds(1, 0, 300).chunks(500) {
        store.stored(part.to_vec()).await;
    }
    let wanted = HashSet::from([point("hall-3/power"), point("hall-9/state")]);
    let entries = everything(&*store.archive, 0, Some(&wanted));
    assert_eq!(entries.len(), 600);
    assert!(readings(&entries).iter().all(|stored| wanted.contains(&stored.reading.point)));
    let nobody = HashSet::from([point("no/such")]);
    let page = store
        .archive
        .page(&PageRequest { after: 0, upto: u64::MAX, limit: 10, points: Some(&nobody) })
        .expect("a page");
    assert_eq!((page.entries.len(), page.next, page.complete), (0, 15_000, true));
    let page = store.archive.page(&PageRequest { after: 10, upto: 25, limit: 100, points: None }).expect("a page");
    assert_eq!((page.entries.len(), page.next, page.complete), (15, 25, false));
    let page =
        store.archive.page(&PageRequest { after: 15_000, upto: u64::MAX, limit: 5, points: None }).expect("a page");
    assert_eq!((page.entries.len(), page.next, page.complete), (0, 15_000, true));
}

#[tokio::test]
async fn history_equals_a_sum_over_every_reading_of_several_boots() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let mut all = Vec::new();
    for boot in 1..=3u32 {
        let store = run(&settings, WALL + i64::from(boot - 1) * 100_000_123);
        // Enough blocks that most are summed up in quarter-hours.
        for part in rounds(boot, 0, 4000).chunks(2000) {
            store.append(part.to_vec()).await;
        }
        store.buffer.commit().await;
        all.extend(rounds(boot, 0, 4000));
        store.close().await;
    }
    let store = run(&settings, WALL);
    let wall = |r: &Reading| WALL + i64::from(r.stamp.boot - 1) * 100_000_123 + r.stamp.mono_ms as i64;
    for (from, to, step) in [
        (WALL, WALL + 300_000_000, 3_600_000),
        (WALL + 77, WALL + 250_000_000, 900_000),
        (WALL, WALL + 3_000_000, 60_000),
    ] {
        for name in ["hall-2/power", "hall-4/index"] {
            let made = store.archive.history(&point(name), from, to, step).expect("a history");
            let mut expected = std::collections::BTreeMap::<i64, Vec<f64>>::new();
            for r in all.iter().filter(|r| r.point == point(name) && (from..to).contains(&wall(r))) {
                expected.entry((wall(r) - from) / step).or_default().extend(r.value);
            }
            assert_eq!(made.len(), expected.len());
            for (bucket, (place, values)) in made.iter().zip(expected) {
                assert_eq!((bucket.start_ms, bucket.count as usize), (from + place * step, values.len()));
                assert_eq!((bucket.first, bucket.last), (values[0], *values.last().expect("one")));
                assert_eq!(bucket.min, values.iter().copied().fold(f64::INFINITY, f64::min));
                assert_eq!(bucket.max, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                assert!((bucket.sum - values.iter().sum::<f64>()).abs() < 1e-3);
            }
        }
    }
    assert!(store.archive.history(&point("hall-2/power"), 0, WALL, 1).is_err(), "too many steps");
    assert!(store.archive.history(&point("hall-2/power"), 0, WALL, 0).is_err());
}

#[tokio::test]
async fn readings_of_a_boot_without_the_time_move_to_their_place_once_it_is_known() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let opened = Buffer::open(&settings).expect("opens");
    let time = HeldTime::at(0, Source::Unknown);
    let clock = Clock::new(opened.boot, time.clone(), []);
    opened.buffer.remember(clock.observe().expect("a sample")).expect("remembered");
    opened.buffer.start(clock.clone(), Board::new(clock.clone()));
    let archive = opened.buffer.archive();
    for part in rounds(1, 0, 8000).chunks(2000) {
        opened.buffer.append(Batch { readings: part.to_vec(), commit: Commit::Grouped, accepted: None }).await;
        opened.buffer.commit().await;
    }
    let name = point("hall-1/temp");
    let day = 86_400_000;
    assert_eq!(archive.history(&name, 0, day, day).expect("a history")[0].count, 8000, "dated 1970");
    // Seven minutes off a quarter-hour, so that no roll-up lies as it was made.
    time.advance(80_000_000);
    time.set_wall(WALL + 80_000_000 + 420_000, Source::Ntp);
    opened.buffer.remember(clock.observe().expect("a better sample")).expect("remembered");
    assert!(archive.history(&name, 0, day, day).expect("a history").is_empty());
    let check = |archive: &dyn Archive| {
        let made = archive.history(&name, WALL, WALL + 2 * day, 900_000).expect("a history");
        assert_eq!(made.iter().map(|b| b.count).sum::<u32>(), 8000);
        assert_eq!((made[0].start_ms, made[0].count), (WALL, 48), "eight minutes at six a minute");
    };
    check(&*archive);
    opened.buffer.close().await;
    drop((archive, opened));
    let again = run(&settings, WALL + 90_000_000);
    check(&*again.archive);
}

#[tokio::test]
async fn dates_survive_the_loss_of_the_records() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    filled(&settings).await;
    fs::remove_dir_all(settings.directory.join("keep")).expect("removed");
    let opened = Buffer::open(&settings).expect("opens");
    assert!(opened.samples.iter().any(|sample: &Sample| sample.stamp.boot == 1 && sample.unix_ms == WALL));
    assert!(opened.newest_ms.is_some_and(|ms| ms > WALL));
}

#[tokio::test]
async fn odd_values_and_qualities_come_back_as_they_were() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    let values = [Some(-0.0), Some(1e300), Some(0.1 + 0.2), None, Some(123_456.789_012), Some(5e-324)];
    let odd = (0u64..).zip(values).map(|(n, value)| Reading {
        value,
        quality: if value.is_none() { Quality::Bad(Why::NoAnswer) } else { Quality::Suspect(Why::OutOfRange) },
        ..reading("odd/p", 1, n, 0.0)
    });
    let odd = odd.collect::<Vec<_>>();
    let mut sent = odd.clone();
    sent.push(reading("odd/p", 1, 9, f64::NAN));
    store.stored(sent).await;
    store.close().await;
    let store = run(&settings, WALL);
    let back = readings(&store.all());
    for (back, odd) in back.iter().zip(&odd) {
        assert_eq!(back.reading.value.map(f64::to_bits), odd.value.map(f64::to_bits));
        assert_eq!(back.reading.quality, odd.quality);
    }
    assert_eq!(back[6].reading.quality, Quality::Bad(Why::NotANumber));
    assert_eq!(back[6].reading.value, None);
}

#[tokio::test]
async fn peers_progress_and_small_records_survive() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    store.buffer.keep().save("accounts", "anne", &vec![1, 2, 3]).expect("saved");
    for part in rounds(1, 0, 300).chunks(1000) {
        store.stored(part.to_vec()).await;
    }
    store.archive.acknowledge("agglo", 1200).expect("noted");
    store.archive.acknowledge("agglo", 900).expect("noted");
    store.close().await;
    let store = run(&settings, WALL);
    assert_eq!(store.buffer.keep().load::<Vec<i32>>("accounts", "anne").expect("read"), Some(vec![1, 2, 3]));
    assert_eq!(store.archive.acknowledged().get("agglo"), Some(&1200));
}

#[tokio::test]
async fn without_a_card_readings_are_held_none_is_accepted_and_all_moves_to_the_card_when_it_is_there() {
    let folder = TempDir::new().expect("folder");
    let settings = Settings { directory: folder.path().join("card/store"), ..settings(folder.path()) };
    std::fs::write(folder.path().join("card"), "in the way").expect("written");
    let opened = Buffer::begin(&settings);
    assert!(opened.unusable.is_some() && opened.boot > 1 << 31);
    let clock = Clock::new(opened.boot, HeldTime::at(WALL, Source::Ntp), []);
    let (board, buffer) = (Board::new(clock.clone()), opened.buffer);
    clock.observe();
    buffer.start(clock.clone(), board.clone());
    let (archive, mut known) = (buffer.archive(), buffer.keep().known());
    let (accepted, answer) = oneshot::channel();
    buffer.append(Batch { readings: rounds(1, 0, 1), commit: Commit::Now, accepted: Some(accepted) }).await;
    assert!(answer.await.expect("answered").is_err());
    buffer.keep().hold("journal", b"1", Some(b"meanwhile")).expect("held");
    assert!(buffer.keep().list("panel-account").is_err() && buffer.keep().put("panel-account", b"a", b"").is_err());
    let all = rounds(opened.boot, 0, 1600);
    for part in all.chunks(1000) {
        buffer.append(Batch { readings: part.to_vec(), commit: Commit::Grouped, accepted: None }).await;
    }
    let request = PageRequest { after: 0, upto: u64::MAX, limit: usize::MAX, points: None };
    assert!(archive.page(&request).is_err(), "nothing is served under numbers that are not the store's");
    buffer.commit().await;
    assert!(board.is_open(Code::StoreRefusesWrites, "store"));

    std::fs::remove_file(folder.path().join("card")).expect("removed");
    known.wait_for(|known| *known).await.expect("the card can be used");
    buffer.commit().await;
    assert!(!board.is_open(Code::StoreRefusesWrites, "store"));
    let mut entries = Vec::new();
    let mut after = 0;
    while after < 80_000 {
        let page = archive.page(&PageRequest { after, ..request.clone() }).expect("read");
        after = page.next;
        entries.extend(page.entries);
    }
    let gone = assert_no_number_missing(&entries);
    let kept = readings(&entries);
    assert_eq!((kept.len(), gone), (clocher::buffer::RING, 80_000 - clocher::buffer::RING as u64));
    assert!(kept.iter().all(|stored| stored.reading.stamp.boot == 1), "the card's first start");
    assert_eq!(buffer.keep().get("journal", b"1").expect("read"), Some(b"meanwhile".to_vec()));
    buffer.close().await;
    drop((archive, buffer));
    let again = Buffer::open(&settings).expect("opens");
    assert_eq!((again.boot, again.findings), (2, vec![]));
    let stamp = Stamp { boot: opened.boot, mono_ms: 0 };
    let later = Clock::new(2, HeldTime::at(0, Source::Unknown), again.samples);
    assert_eq!(later.resolve(stamp).map(|wall| wall.unix_ms), Some(WALL), "what was written meanwhile stays dated");
}

#[test]
fn a_second_gateway_on_the_same_folder_is_refused() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let _first = Buffer::open(&settings).expect("opens");
    assert!(Buffer::open(&settings).is_err());
}

#[tokio::test]
async fn a_day_of_fifty_points_takes_two_bytes_a_reading_at_most_all_included() {
    let folder = TempDir::new().expect("folder");
    let settings = settings(folder.path());
    let store = run(&settings, WALL);
    let empty = disk_usage(&settings.directory);
    let day = rounds(1, 0, 8640);
    for part in day.chunks(150) {
        store.append(part.to_vec()).await;
        store.buffer.commit().await;
    }
    let begun = std::time::Instant::now();
    assert_eq!(
        store.archive.history(&point("hall-1/power"), WALL, WALL + 86_400_000, 900_000).expect("read").len(),
        96
    );
    let history = begun.elapsed();
    store.close().await;
    let used = disk_usage(&settings.directory);
    let begun = std::time::Instant::now();
    let again = run(&settings, WALL);
    let opening = begun.elapsed();
    assert_eq!(again.all().len(), day.len());
    // What the store takes for nothing: the head and two empty databases.
    let each = (used.saturating_sub(empty)) as f64 / day.len() as f64;
    println!(
        "{} MB written; {used} bytes on the card, {empty} of them when empty: {each:.2} a reading; opened in {opening:?}; a day's history in {history:?}",
        again.archive.figures().written / 1_000_000
    );
    assert!(each <= 2.0, "{each}");
}
