//! A month of one point, as the panel asks for it and reading by reading, beside SQLite laid out for just that.

use std::{collections::HashSet, time::Instant};

use anyhow::{Context, ensure};
use clocher::store::PageRequest;

use crate::{
    Ask, load,
    load::{Load, START_MS},
    sqlite::{Layout, Rows, Synchronous},
    store::{self, Store},
    table::{Runs, Table},
};

/// The point that is asked for: a power, the noisiest.
const POINT: usize = 21;
const HOUR_MS: i64 = 3_600_000;

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let place = store::filled(ask).await?;
    let all = ask.days * load::DAY;
    let stored = Runs::from_iter([store::size(&place.join("store"))? as f64 / all as f64]);
    let what = format!("stored a reading, {} days, all files of the store", ask.days);
    table.line(&what, stored.told("bytes"), String::new(), String::new(), "≤ 2");
    let days = ask.days.min(30);
    let file = ask.scratch.join("month.db");
    let mut rows = Rows::create(&file, Synchronous::Normal, Layout::ByPoint)?;
    let mut load = Load::new(1)?;
    for _ in 0..days {
        rows.commit(&load.batch(load::ROUNDS_A_DAY as usize))?;
    }
    let (from, to) = (START_MS, START_MS + days as i64 * 24 * HOUR_MS);
    let opened = Store::open(&place.join("store"), 8 << 30, ask.days)?;
    let archive = opened.buffer.archive();
    let point = load::name(POINT).parse().context("a point's name")?;
    let wanted = HashSet::from([load::name(POINT).parse().context("a point's name")?]);
    let [mut hours, mut their_hours, mut raw, mut their_raw] = [const { Vec::new() }; 4];
    for run in 0..=ask.runs {
        let began = Instant::now();
        let buckets = archive.history(&point, from, to, HOUR_MS)?;
        let of_hours = began.elapsed();
        let began = Instant::now();
        let count = rows.hours(POINT, from, to)?;
        let of_their_hours = began.elapsed();
        // The clock is a few milliseconds off where an hour begins.
        ensure!(buckets.len().abs_diff(count) <= 1, "{} hours beside {count}", buckets.len());
        let began = Instant::now();
        let (mut after, mut readings) = (0, 0);
        while after < days * load::DAY {
            let request = PageRequest { after, upto: days * load::DAY, limit: 5000, points: Some(&wanted) };
            let page = archive.page(&request)?;
            (after, readings) = (page.next, readings + page.entries.len());
        }
        let of_raw = began.elapsed();
        let began = Instant::now();
        let count = rows.raw(POINT, from, to)?;
        let of_their_raw = began.elapsed();
        ensure!(readings == count, "{readings} readings beside {count}");
        // The first warms the caches of both.
        if run > 0 {
            let ms = [of_hours, of_their_hours, of_raw, of_their_raw].map(|took| took.as_secs_f64() * 1e3);
            hours.push(ms[0]);
            their_hours.push(ms[1]);
            raw.push(ms[2]);
            their_raw.push(ms[3]);
        }
    }
    rows.close()?;
    opened.buffer.close().await;
    let [hours, their_hours, raw, their_raw] = [hours, their_hours, raw, their_raw].map(Runs::from_iter);
    let peer = "SQLite, rows by point and time";
    table.less("a month of one point in hours", "ms", &hours, peer, &their_hours, "less than SQLite");
    table.less("a month of one point, each reading", "ms", &raw, peer, &their_raw, "");
    Ok(())
}
