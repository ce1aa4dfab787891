//! The store beside SQLite: the same day of readings, the same commits, taking turns on one file system.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clocher::{
    buffer::{Buffer, Opened, Settings},
    clock::{Clock, HeldTime, Source},
    condition::Board,
    reading::{Batch, Commit, Reading},
};
use tokio::sync::oneshot;

use crate::{
    Ask,
    load::{self, DAY, Load, START_MS},
    sqlite::{Layout, Rows, Synchronous},
    table::{Runs, Table},
};

/// An open store that knows the time.
pub(crate) struct Store {
    pub(crate) buffer: Buffer,
    pub(crate) boot: u32,
}

impl Store {
    /// Opens one as the gateway does; `days` of time are known of a new one.
    pub(crate) fn open(directory: &Path, size_limit: u64, days: u64) -> anyhow::Result<Self> {
        let settings = Settings { directory: directory.to_owned(), size_limit, commit_within: Duration::from_secs(30) };
        let Opened { buffer, boot, samples, findings, .. } = Buffer::open(&settings)?;
        ensure!(findings.iter().all(|finding| finding.code.is_none()), "the store was found damaged: {findings:?}");
        let new = load::samples(boot, days).filter(|_| samples.is_empty()).collect::<Vec<_>>();
        for sample in &new {
            buffer.remember(*sample)?;
        }
        let clock = Clock::new(boot, HeldTime::at(START_MS, Source::Ntp), samples.into_iter().chain(new));
        buffer.start(clock.clone(), Board::new(clock));
        Ok(Self { buffer, boot })
    }

    /// One commit; returns when it is on the card.
    pub(crate) async fn commit(&self, readings: Vec<Reading>) -> anyhow::Result<()> {
        let (accepted, answer) = oneshot::channel();
        self.buffer.append(Batch { readings, commit: Commit::Grouped, accepted: Some(accepted) }).await;
        self.buffer.commit().await;
        answer.await.context("the writer has ended")??;
        Ok(())
    }
}

/// What a day cost.
#[derive(Debug, Default)]
struct Cost {
    readings_a_second: Runs,
    bytes_a_reading: Runs,
    device_megabytes: Runs,
}

#[derive(Debug, Clone, Copy)]
enum Contestant {
    Clocher,
    Sqlite(Synchronous),
}

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    const EVERYONE: [Contestant; 3] =
        [Contestant::Clocher, Contestant::Sqlite(Synchronous::Full), Contestant::Sqlite(Synchronous::Normal)];
    let mut costs: [Cost; 3] = Default::default();
    for run in 0..ask.runs {
        for (contestant, cost) in EVERYONE.into_iter().zip(&mut costs) {
            let place = ask.scratch.join("day");
            let (seconds, stored, _) = a_day(contestant, &place).await?;
            cost.readings_a_second.push(DAY as f64 / seconds);
            cost.bytes_a_reading.push(stored as f64 / DAY as f64);
            if let Some(device) = &ask.device {
                let (_, _, written) = a_day(contestant, &device.join("day")).await?;
                cost.device_megabytes.push(written as f64 / 1e6);
            }
            eprintln!("run {}: {contestant:?}, {seconds:.2} s, {stored} bytes", run + 1);
        }
    }
    let [ours, full, normal] = &costs;
    let (each, day) = ("bytes", "MB");
    let stored = "stored a reading, a day of 50 points every 10 s";
    table.less(stored, each, &ours.bytes_a_reading, "SQLite rows", &full.bytes_a_reading, "≤ 2");
    if ask.device.is_some() {
        let written = "written to the device, the same day, commits of 30 s";
        table.less(written, day, &ours.device_megabytes, "SQLite, FULL", &full.device_megabytes, "≤ 25 MB");
        table.less(written, day, &ours.device_megabytes, "SQLite, NORMAL", &normal.device_megabytes, "");
    }
    let rate = "committed readings a second, 150 a commit, each synced";
    table.more(rate, "", &ours.readings_a_second, "SQLite, FULL", &full.readings_a_second, "≥ × 2");
    let rate = "the same beside commits that are not synced";
    table.more(rate, "", &ours.readings_a_second, "SQLite, NORMAL", &normal.readings_a_second, "");
    Ok(())
}

/// Seconds for the commits of a day, bytes it takes afterwards, bytes the device wrote from the first to the end.
async fn a_day(contestant: Contestant, place: &Path) -> anyhow::Result<(f64, u64, u64)> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)?;
    nix::unistd::sync();
    let (seconds, written) = match contestant {
        Contestant::Clocher => {
            let store = Store::open(place, 256 << 20, 1)?;
            let day = Load::new(store.boot)?.day();
            nix::unistd::sync();
            let (before, began) = (device_written(place)?, Instant::now());
            for batch in day {
                store.commit(batch).await?;
            }
            let seconds = began.elapsed().as_secs_f64();
            store.buffer.close().await;
            drop(store);
            (seconds, before)
        }
        Contestant::Sqlite(synchronous) => {
            let mut rows = Rows::create(&place.join("readings.db"), synchronous, Layout::ByNumber)?;
            let day = Load::new(1)?.day();
            nix::unistd::sync();
            let (before, began) = (device_written(place)?, Instant::now());
            for batch in &day {
                rows.commit(batch)?;
            }
            let seconds = began.elapsed().as_secs_f64();
            rows.close()?;
            (seconds, before)
        }
    };
    nix::unistd::sync();
    let written = device_written(place)? - written;
    // The head file is the same after a day and after a year; what grows is what a reading takes.
    let head = size(&place.join("head")).unwrap_or(0);
    Ok((seconds, size(place)? - head, written))
}

/// What a file or a folder takes on the disk.
pub(crate) fn size(place: &Path) -> anyhow::Result<u64> {
    let data = fs::symlink_metadata(place)?;
    if !data.is_dir() {
        return Ok(data.blocks() * 512);
    }
    let mut all = 0;
    for entry in fs::read_dir(place)? {
        all += size(&entry?.path())?;
    }
    Ok(all)
}

/// Bytes the device beneath a folder has written so far, by anyone.
fn device_written(folder: &Path) -> anyhow::Result<u64> {
    let device = fs::metadata(folder)?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    // source: Documentation/block/stat.rst, field 7, in sectors of 512 bytes.
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap_or_default();
    Ok(text.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0) * 512)
}

/// The large store, filled once at full speed and used by several measurements; and the speed at which it was filled.
pub(crate) async fn filled(ask: &Ask) -> anyhow::Result<std::path::PathBuf> {
    let place = ask.scratch.join("large");
    if place.join("filled").exists() {
        return Ok(place);
    }
    let store = Store::open(&place.join("store"), 8 << 30, ask.days)?;
    let mut load = Load::new(store.boot)?;
    let began = Instant::now();
    for day in 0..ask.days {
        for _ in 0..load::ROUNDS_A_DAY / 60 {
            store.commit(load.batch(60)).await?;
        }
        if day % 10 == 9 {
            eprintln!("{} days filled in {:.0} s", day + 1, began.elapsed().as_secs_f64());
        }
    }
    store.buffer.close().await;
    drop(store);
    let status = Command::new("touch").arg(place.join("filled")).status()?;
    ensure!(status.success(), "the large store is marked as filled");
    Ok(place)
}
