//! What was measured, as a table for the README.

use std::{fmt, fs, path::Path, process::Command};

/// Several runs of one figure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The value below which a share of all lies; 0.5 is the median.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let place = ((self.0.len().saturating_sub(1)) as f64 * share).round() as usize;
        self.0.get(place).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// Median, and the range where it says something.
    pub(crate) fn told(&self, unit: &str) -> String {
        let (low, middle, high) = (number(self.at(0.0)), number(self.median()), number(self.at(1.0)));
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        if low == high { format!("{middle}{unit}") } else { format!("{middle}{unit} ({low} to {high})") }
    }
}

impl FromIterator<f64> for Runs {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut runs = Self::default();
        values.into_iter().for_each(|value| runs.push(value));
        runs
    }
}

/// Three digits that mean something.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "?".to_owned(),
        _ if size >= 10_000_000.0 => format!("{:.1} M", value / 1e6),
        _ if size >= 1_000_000.0 => format!("{:.2} M", value / 1e6),
        _ if size >= 10_000.0 => format!("{:.0} k", value / 1e3),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The lines of the table, in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<[String; 5]>);

impl Table {
    /// `aim` may be empty, as may `beside` where there is no peer to compare with.
    pub(crate) fn line(&mut self, what: &str, ours: String, beside: String, ratio: String, aim: &str) {
        eprintln!("{what}: {ours} | {beside} | {ratio}");
        self.0.push([what.to_owned(), ours, beside, ratio, aim.to_owned()]);
    }

    /// A figure where less is better, beside a peer's.
    pub(crate) fn less(&mut self, what: &str, unit: &str, ours: &Runs, peer: &str, theirs: &Runs, aim: &str) {
        let ratio = format!("{} times less", number(theirs.median() / ours.median()));
        self.line(what, ours.told(unit), format!("{peer}: {}", theirs.told(unit)), ratio, aim);
    }

    /// A figure where more is better, beside a peer's.
    pub(crate) fn more(&mut self, what: &str, unit: &str, ours: &Runs, peer: &str, theirs: &Runs, aim: &str) {
        let ratio = format!("× {}", number(ours.median() / theirs.median()));
        self.line(what, ours.told(unit), format!("{peer}: {}", theirs.told(unit)), ratio, aim);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | Clocher | beside it | ratio | aim |\n|---|---|---|---|---|")?;
        self.0.iter().try_for_each(|line| writeln!(f, "| {} |", line.join(" | ")))
    }
}

/// Processor, cores, kernel, memory and file system.
pub(crate) fn machine(scratch: &Path) -> String {
    let line_of = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned())).unwrap_or_default()
    };
    let processor = line_of("/proc/cpuinfo", "model name");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = line_of("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = Command::new("stat").args(["-f", "-c", "%T"]).arg(scratch).output();
    let system = system.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!(
        "{processor}, {cores} cores, {:.0} GB, Linux {}, {system}, release build ({})",
        memory / 1e6,
        kernel.trim(),
        std::env::consts::ARCH
    )
}
