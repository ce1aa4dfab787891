//! The real binary with a system clock that is wrong: libfaketime stands between it and the kernel's wall clock, the
//! monotonic clocks are the machine's own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    process::{Running, clocher},
    run::{Hall, publish, sequence},
};

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("soon")
}

/// Debian puts it into the folder of its architecture.
fn libfaketime() -> PathBuf {
    let places = fs::read_dir("/usr/lib").expect("a folder").flatten().map(|entry| entry.path());
    let libraries = places.map(|place| place.join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists()).expect("the Debian package `faketime` is missing")
}

/// A gateway whose wall clock is what the file `fake` says, and is vouched for while the file `synchronized` is there.
struct Lost {
    hall: Hall,
    config: PathBuf,
}

impl Lost {
    fn new() -> Self {
        let hall = Hall::new();
        let config = hall.counting();
        let text = fs::read_to_string(&config).expect("read");
        let vouched = format!("trust = \"{}\"", hall.file("synchronized").display());
        fs::write(&config, text.replace("trust = \"always\"", &vouched)).expect("written");
        Self { hall, config }
    }

    /// At once: the file is replaced, so that no half of it is read.
    fn clock_says(&self, what: &str) {
        let new = self.hall.file("fake.new");
        fs::write(&new, what).expect("written");
        fs::rename(new, self.hall.file("fake")).expect("renamed");
    }

    fn start(&self) -> Running {
        let mut command = clocher();
        command.arg("run").arg("--config").arg(&self.config);
        command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", self.hall.file("fake"));
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        Running::start(command)
    }
}

/// What was acknowledged, and between which true instants.
struct Batch {
    first: u64,
    after: u64,
    from_ms: i64,
    to_ms: i64,
}

async fn measure(gateway: &Running, first: u64) -> Batch {
    let from_ms = now_ms();
    let sent = publish(gateway.address("Broker ready"), first, 60);
    let (_, after) = tokio::time::timeout(Duration::from_secs(60), sent).await.expect("acknowledged");
    Batch { first, after, from_ms, to_ms: now_ms() }
}

fn wall_ms(line: &Value) -> i64 {
    let text = line["phenomenonTime"].as_str().unwrap_or_else(|| panic!("no time in {line}"));
    text.parse::<jiff::Timestamp>().expect("a time").as_millisecond()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn readings_of_two_boots_in_the_wrong_year_carry_the_right_time_once_a_third_learns_it() {
    let lost = Lost::new();
    lost.clock_says("@1970-01-01 00:02:00");
    let gateway = lost.start();
    let mut batches = vec![measure(&gateway, 0).await];
    gateway.kill();

    lost.clock_says("@2031-05-06 07:08:09");
    let gateway = lost.start();
    batches.push(measure(&gateway, batches[0].after).await);
    let before = tokio::task::block_in_place(|| lost.hall.pull(gateway.address("Peers may pull")));
    assert!(before.iter().all(|line| line["clock"]["source"] == "unknown"), "{:?}", before.last());
    assert!(wall_ms(&before[0]) < wall_ms(&before[before.len() - 1]));
    assert!(wall_ms(&before[before.len() - 1]) > 1_935_000_000_000, "2031 is what the second boot believes");
    gateway.kill();
    forget_pulled(&lost.hall);

    lost.clock_says("@1970-01-01 00:02:00");
    let gateway = lost.start();
    batches.push(measure(&gateway, batches[1].after).await);
    gateway.line("clock-untrusted");
    lost.clock_says("+0");
    fs::write(lost.hall.file("synchronized"), "").expect("written");
    gateway.nth_line("Condition closed code=clock-untrusted", 1);
    batches.push(measure(&gateway, batches[2].after).await);

    let lines = tokio::task::block_in_place(|| lost.hall.pull(gateway.address("Peers may pull")));
    let expected: Vec<u64> = (1..=lines.len() as u64).collect();
    assert_eq!(sequence(&lines), expected, "nothing was expired, refused or deleted");
    assert!(lines.len() >= before.len() && lines.len() >= 240);
    let walls: Vec<i64> = lines.iter().map(wall_ms).collect();
    assert!(walls.is_sorted(), "in order");
    let mut worst = 0;
    for (line, wall) in lines.iter().zip(&walls) {
        assert_eq!(line["clock"]["source"], "ntp", "{line}");
        let error = line["clock"]["errorMs"].as_i64().unwrap_or_else(|| panic!("no error in {line}"));
        let value = line["result"].as_f64().expect("a value") as u64;
        let batch = batches.iter().find(|batch| (batch.first..batch.after).contains(&value)).expect("sent by us");
        assert!(batch.from_ms - error <= *wall && *wall <= batch.to_ms + error, "{line}");
        worst = worst.max(error);
    }
    assert!(worst < 1_000, "errors are stated to {worst} ms");
}

/// What follows is pulled from the first number on.
fn forget_pulled(hall: &Hall) {
    for name in ["cursor", "pulled.jsonl"] {
        let path: &Path = &hall.file(name);
        fs::remove_file(path).expect("it was pulled");
    }
}
