//! A month pulled over mutual TLS, as a central server pulls it: one connection, page after page, each unpacked to find
//! the next cursor.

use std::{io::Read, time::Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Ask,
    gateway::{self, Running},
    load, store,
    table::{Runs, Table},
};

/// A way of pulling.
#[derive(Debug, Clone, Copy)]
struct Way {
    format: &'static str,
    encoding: &'static str,
}

const WAYS: [Way; 6] = [
    Way { format: "columns", encoding: "zstd" },
    Way { format: "columns", encoding: "gzip" },
    Way { format: "columns", encoding: "identity" },
    Way { format: "rows", encoding: "zstd" },
    Way { format: "rows", encoding: "gzip" },
    Way { format: "rows", encoding: "identity" },
];

#[derive(Debug, Default)]
struct Cost {
    readings_a_second: Runs,
    wire_bytes: Runs,
    microseconds: Runs,
}

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let place = store::filled(ask).await?;
    gateway::configure(&place)?;
    let running = Running::start(&ask.clocher, &place)?;
    let mut costs: [Cost; 6] = Default::default();
    let month = ask.days.min(30) * load::DAY;
    for run in 0..ask.runs {
        for (way, cost) in WAYS.into_iter().zip(&mut costs) {
            // Rows are slow enough for a week to tell as much as a month.
            let readings = if way.format == "rows" { month / 4 } else { month };
            pull(&running, way, readings, cost).await?;
        }
        eprintln!("run {}", run + 1);
    }
    let json = &costs[4];
    for (way, cost) in WAYS.into_iter().zip(&costs) {
        let what = format!("pull of a month over mutual TLS, {}, {}", way.format, way.encoding);
        let ours = format!(
            "{} readings/s, {} wire bytes and {} µs of the gateway's processor a reading",
            cost.readings_a_second.told(""),
            crate::table::number(cost.wire_bytes.median()),
            crate::table::number(cost.microseconds.median())
        );
        let ratio = format!(
            "× {}, {} times fewer bytes",
            crate::table::number(cost.readings_a_second.median() / json.readings_a_second.median()),
            crate::table::number(json.wire_bytes.median() / cost.wire_bytes.median())
        );
        let aim =
            if (way.format, way.encoding) == ("columns", "zstd") { "≥ 1 M readings/s, ≤ 2 bytes" } else { "" };
        table.line(&what, ours, "the same rows as gzip JSON".to_owned(), ratio, aim);
    }
    running.kill()
}

async fn pull(running: &Running, way: Way, readings: u64, cost: &mut Cost) -> anyhow::Result<()> {
    let mut client = running.central().await?;
    let headers = [("accept-encoding", way.encoding)];
    let query = format!("/v1/observations?limit=20000&format={}", way.format);
    let (mut cursor, mut first_left, mut got) = (None::<String>, None, 0);
    let (began, processor) = (Instant::now(), running.processor()?);
    while got < readings {
        let path = cursor.map_or_else(|| query.clone(), |cursor| format!("{query}&after={cursor}"));
        let answer = client.get(&path, &headers).await?;
        ensure!(answer.status.is_success(), "{}: {:?}", answer.status, answer.body);
        let named = answer.headers.get("content-encoding").and_then(|name| name.to_str().ok()).unwrap_or("identity");
        ensure!(named == way.encoding, "asked for {}, given {named}", way.encoding);
        let lines = unpack(named, &answer.body)?;
        let last = lines.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().context("a last line")?;
        let last: Value = serde_json::from_slice(last)?;
        let left = last["remaining"].as_u64().context("how many remain")?;
        // Before the first page nothing tells how many there are; it holds what its numbers say.
        let first_left = *first_left.get_or_insert_with(|| left + count(&lines));
        got = first_left - left;
        cursor = Some(last["next"].as_str().context("a cursor")?.to_owned());
    }
    let seconds = began.elapsed().as_secs_f64();
    cost.readings_a_second.push(got as f64 / seconds);
    cost.wire_bytes.push(client.received() as f64 / got as f64);
    cost.microseconds.push((running.processor()? - processor) * 1e6 / got as f64);
    Ok(())
}

fn unpack(encoding: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    match encoding {
        "zstd" => zstd::stream::copy_decode(body, &mut out)?,
        "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut out)?),
        _ => out.extend_from_slice(body),
    }
    Ok(out)
}

/// Readings of a page.
fn count(lines: &[u8]) -> u64 {
    let values = lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let of_line = |line: Value| line["count"].as_u64().or_else(|| line["seq"].as_u64().map(|_| 1)).unwrap_or(0);
    values.map(of_line).sum()
}
