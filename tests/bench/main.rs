//! The figures of the README, each measured beside a peer in the same run: `tests/bench/run`.
//!
//! Every pair of contestants takes turns on one machine, several times; what is told is the median, with the smallest
//! and the largest beside it, and the ratio of medians. Nothing here asserts: it measures.

mod brokers;
mod gateway;
mod home;
mod load;
mod pages;
mod pull;
mod query;
mod series;
mod sqlite;
mod store;
mod table;
mod web;

use std::path::PathBuf;

use clap::Parser;

use self::table::Table;

/// What is measured with what.
#[derive(Debug, Parser)]
struct Ask {
    /// The binary to be measured.
    #[arg(long)]
    clocher: PathBuf,
    /// An empty directory on the disk to be measured.
    #[arg(long)]
    scratch: PathBuf,
    /// A file system of its own on a block device of its own, to count what reaches the device.
    #[arg(long)]
    device: Option<PathBuf>,
    /// Prometheus' own tool.
    #[arg(long)]
    promtool: Option<PathBuf>,
    /// The broker to compare with.
    #[arg(long)]
    mosquitto: Option<PathBuf>,
    /// How often each contestant runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Days of readings in the large store.
    #[arg(long, default_value_t = 90)]
    days: u64,
    /// Minutes of load on the whole gateway.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What to measure: store, series, query, pull, open, home, broker, pages; all when none is named.
    steps: Vec<String>,
}

const STEPS: [&str; 8] = ["store", "series", "query", "pull", "open", "home", "broker", "pages"];

fn main() -> anyhow::Result<()> {
    let ask = Ask::parse();
    let steps = if ask.steps.is_empty() { STEPS.map(str::to_owned).to_vec() } else { ask.steps.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut table = Table::default();
    for step in &steps {
        eprintln!("-- {step}");
        match step.as_str() {
            "store" => runtime.block_on(store::measure(&ask, &mut table))?,
            "series" => runtime.block_on(series::measure(&ask, &mut table))?,
            "query" => runtime.block_on(query::measure(&ask, &mut table))?,
            "pull" => runtime.block_on(pull::measure(&ask, &mut table))?,
            "open" => runtime.block_on(home::open_after_kill(&ask, &mut table))?,
            "home" => runtime.block_on(home::measure(&ask, &mut table))?,
            "broker" => runtime.block_on(brokers::measure(&ask, &mut table))?,
            "pages" => runtime.block_on(pages::measure(&ask, &mut table))?,
            other => anyhow::bail!("no step {other:?}; there are {}", STEPS.join(", ")),
        }
    }
    println!("{}\n\n{table}", table::machine(&ask.scratch));
    Ok(())
}
