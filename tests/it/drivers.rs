//! Drivers from outside: captures by the public replay, and devices on real pseudo-terminals, unplugged and plugged again.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clocher::{
    clock::{Clock, HeldTime, Source},
    condition::{Board, Code},
    config::{self, Block},
    drivers::{self, Device, ReplayError, Said, modbus::frame::crc, run},
    live::Live,
    reading::{Batch, Intake, Quality},
    supervisor::Supervisor,
};
use tokio::sync::mpsc;

fn fixtures(driver: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(driver)
}

fn replay(driver: &str, options: &str, capture: &[u8]) -> Vec<Said> {
    let driver = drivers::find(driver).expect("a driver");
    drivers::replay(driver, options, capture).expect("a capture").said
}

/// `temperature 21.4 good`, `humidity - bad` or `unreadable`.
fn line(said: &Said) -> String {
    match said {
        Said::Value { point, value, quality } => {
            let channel = point.as_str().rsplit('/').next().unwrap_or_default();
            let value = value.map_or("-".to_owned(), |value| value.to_string());
            format!("{channel} {value} {}", quality.word())
        }
        Said::Unreadable(_) => "unreadable".to_owned(),
    }
}

#[test]
fn devices_of_four_makers_are_read_over_mqtt() {
    let mut tried = 0;
    for file in fs::read_dir(fixtures("mqtt")).expect("fixtures") {
        let path = file.expect("file").path();
        if path.extension().is_none_or(|end| end != "capture") {
            continue;
        }
        let options = fs::read_to_string(path.with_extension("toml")).expect("options");
        let expected = fs::read_to_string(path.with_extension("expected")).expect("expected");
        let said = replay("mqtt", &options, &fs::read(&path).expect("capture"));
        let said: Vec<_> = said.iter().map(line).collect();
        assert_eq!(said, expected.lines().collect::<Vec<_>>(), "{}", path.display());
        tried += 1;
    }
    assert_eq!(tried, 4);
}

#[test]
fn a_capture_of_a_linky_is_replayed_without_any_option_in_either_mode() {
    for (capture, index) in [
        ("frames/text_std_1P_base_linkytic_00.bin", "index 3519703 good"),
        ("errors/hist_ok.bin", "index 2809718 good"),
    ] {
        let said = replay("tic", "", &fs::read(fixtures("tic").join(capture)).expect("capture"));
        assert!(said.iter().any(|said| line(said) == index), "{capture}: {said:?}");
    }
}

#[test]
fn frames_in_a_row_are_dated_by_the_speed_of_the_line() {
    let frame = |name: &str| fs::read(fixtures("tic/errors").join(format!("{name}.bin"))).expect("capture");
    let capture = [frame("hist_ok"), frame("hist_compensating_errors"), frame("hist_ok")].concat();
    let said = replay("tic", "mode = \"historic\"", &capture);
    let indexes: Vec<_> = said.iter().map(line).filter(|line| line.starts_with("index ")).collect();
    assert_eq!(indexes, ["index 2809718 good", "index 2809817 suspect", "index 2809718 good"]);
}

#[test]
fn a_capture_of_an_eastron_meter_is_replayed_without_any_option() {
    let said = replay("modbus", "", &fs::read(fixtures("modbus").join("frames.json")).expect("capture"));
    assert_eq!(line(&said[0]), "voltage-1 230.2 good");
    assert!(said.iter().any(|said| matches!(said, Said::Unreadable(text) if text.contains("illegal function"))));
}

#[test]
fn what_is_no_capture_and_what_is_no_option_is_told() {
    let tic = drivers::find("tic").expect("tic");
    assert!(matches!(drivers::replay(tic, "", b"hello"), Err(ReplayError::Capture(_))));
    assert!(matches!(drivers::replay(tic, "mood = 1", b"\x02\x03"), Err(ReplayError::Options(_))));
    let mqtt = drivers::find("mqtt").expect("mqtt");
    let wrong = drivers::replay(mqtt, "[[point]]\nname = \"a\"", b"t 1\nnothing").expect_err("no capture");
    assert_eq!(wrong.to_string(), "line 2: a topic, a space and a payload were expected");
}

/// A gateway's ground without a gateway, on real time.
fn ground() -> (run::Ground, mpsc::Receiver<Batch>) {
    let clock = Clock::new(1, HeldTime::at(1_800_000_000_000, Source::Ntp), []);
    let board = Board::new(clock.clone());
    let (intake, batches) = Intake::new(1_000);
    let supervisor = Supervisor::new(board.clone());
    (run::Ground { supervisor, intake, board, clock, live: Live::new([], []), pins: None }, batches)
}

fn device(text: &str) -> Device {
    let source = config::Source::new("f.toml", text);
    let table = source.parse();
    let block = Block::new(&source, "device", table.span(), table.get_ref());
    let device = drivers::read_device(&block);
    assert_eq!(source.faults(), []);
    device.expect("a device")
}

/// A pseudo-terminal plugged in under a stable name: the end of the device, and the other one, which keeps the line up
/// until the gateway opens it.
fn plug(name: &Path) -> (File, OwnedFd) {
    let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
    let path = fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).expect("its path");
    let _ = fs::remove_file(name);
    symlink(path, name).expect("link");
    (File::from(pty.master), pty.slave)
}

/// The next value of a point.
async fn next(batches: &mut mpsc::Receiver<Batch>, point: &str) -> (Option<f64>, Quality) {
    loop {
        let batch = batches.recv().await.expect("a batch");
        if let Some(reading) = batch.readings.iter().find(|reading| reading.point.as_str() == point) {
            return (reading.value, reading.quality);
        }
    }
}

/// A meter that says its frame again and again, as real ones do, until it is unplugged.
fn talk((mut end, line): (File, OwnedFd), frame: Vec<u8>, unplugged: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !unplugged.load(Ordering::Relaxed) && end.write_all(&frame).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop((end, line));
    })
}

#[tokio::test]
async fn a_linky_is_heard_over_a_line_and_again_after_it_was_unplugged() {
    let folder = tempfile::tempdir().expect("folder");
    let port = folder.path().join("meter");
    let frame = fs::read(fixtures("tic").join("errors/hist_ok.bin")).expect("capture");
    let (ground, mut batches) = ground();
    let end = plug(&port);
    let text = format!(
        "name = \"mairie\"\ndriver = \"tic\"\nmode = \"historic\"\nevery = \"1 s\"\nport = \"{}\"",
        port.display()
    );
    run::start(vec![device(&text)], &ground);

    let unplugged = Arc::new(AtomicBool::new(false));
    let meter = talk(end, frame.clone(), Arc::clone(&unplugged));
    assert_eq!(next(&mut batches, "mairie/index").await, (Some(2_809_718.0), Quality::Good));

    fs::remove_file(&port).expect("unlinked");
    unplugged.store(true, Ordering::Relaxed);
    meter.join().expect("meter");
    let mut changes = ground.board.changes();
    while ground.board.open().iter().all(|condition| condition.code != Code::PortUnplugged) {
        changes.changed().await.expect("board");
    }

    while batches.try_recv().is_ok() {}
    let unplugged = Arc::new(AtomicBool::new(false));
    let meter = talk(plug(&port), frame, Arc::clone(&unplugged));
    assert_eq!(next(&mut batches, "mairie/index").await, (Some(2_809_718.0), Quality::Good));
    assert!(ground.board.open().iter().all(|condition| condition.code != Code::PortUnplugged));
    assert!(ground.supervisor.stop(Duration::from_secs(5)).await.is_empty());
    unplugged.store(true, Ordering::Relaxed);
    meter.join().expect("meter");
}

#[tokio::test]
async fn two_meters_share_a_real_line() {
    let folder = tempfile::tempdir().expect("folder");
    let port = folder.path().join("bus");
    let (mut end, _line) = plug(&port);
    let (ground, mut batches) = ground();
    let meter = |name: &str, unit: u8| {
        device(&format!(
            "name = \"{name}\"\ndriver = \"modbus\"\nport = \"{}\"\nunit = {unit}\nevery = \"1 s\"\n[[register]]\n\
             name = \"v\"\naddress = 0\ntype = \"f32\"\ndecimals = 1\n",
            port.display()
        ))
    };
    run::start(vec![meter("a", 1), meter("b", 2)], &ground);
    std::thread::spawn(move || {
        let mut request = [0; 8];
        while end.read_exact(&mut request).is_ok() {
            let mut answer = vec![request[0], 0x04, 4, 0x43, 0x66, 0x33, 0x34];
            let sum = crc(&answer);
            answer.extend(sum.to_le_bytes());
            if end.write_all(&answer).is_err() {
                return;
            }
        }
    });
    assert_eq!(next(&mut batches, "a/v").await, (Some(230.2), Quality::Good));
    assert_eq!(next(&mut batches, "b/v").await, (Some(230.2), Quality::Good));
    assert!(ground.supervisor.stop(Duration::from_secs(5)).await.is_empty());
}
