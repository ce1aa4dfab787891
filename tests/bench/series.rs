//! The store beside Prometheus: the same day of readings, as blocks made by Prometheus' own tool.

use std::{
    fmt::Write as _,
    fs,
    io::{BufWriter, Write as _},
    process::{Command, Stdio},
};

use anyhow::ensure;

use crate::{
    Ask,
    load::{self, DAY, Load, POINTS, ROUNDS_A_DAY},
    store::{self, Store},
    table::{Runs, Table},
};

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let Some(promtool) = &ask.promtool else { return Ok(()) };
    let (text, blocks) = (ask.scratch.join("day.openmetrics"), ask.scratch.join("prometheus"));
    let mut columns = vec![String::new(); POINTS];
    let mut load = Load::new(1)?;
    for _ in 0..ROUNDS_A_DAY {
        for (column, reading) in columns.iter_mut().zip(load.batch(1)) {
            let (ms, value) = (load::wall_ms(&reading), reading.value.unwrap_or_default());
            writeln!(column, "reading{{point=\"{}\"}} {value} {}.{:03}", reading.point, ms / 1000, ms % 1000)?;
        }
    }
    let mut out = BufWriter::new(fs::File::create(&text)?);
    writeln!(out, "# TYPE reading gauge")?;
    columns.iter().try_for_each(|column| out.write_all(column.as_bytes()))?;
    writeln!(out, "# EOF")?;
    drop(out);
    let made = Command::new(promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&text, &blocks])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "promtool made blocks");
    // Apparent sizes on both sides would flatter ours; what the disk gives is counted.
    let theirs = Runs::from_iter([store::size(&blocks)? as f64 / DAY as f64]);
    let place = ask.scratch.join("series");
    let opened = Store::open(&place, 256 << 20, 1)?;
    for batch in Load::new(opened.boot)?.day() {
        opened.commit(batch).await?;
    }
    opened.buffer.close().await;
    drop(opened);
    let head = store::size(&place.join("head"))?;
    let ours = Runs::from_iter([(store::size(&place)? - head) as f64 / DAY as f64]);
    table.less("stored a reading, the same day, in blocks", "bytes", &ours, "Prometheus", &theirs, "");
    Ok(())
}
