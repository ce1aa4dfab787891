//! Ports on real pseudo-terminals and a real FIFO, and the watch as the application starts it.

use std::{
    collections::BTreeMap,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clocher::{
    clock::{Clock, HeldTime, Source, Stamp},
    condition::{Board, Code},
    config,
    live::Live,
    port::{
        gpio::{self, Choice, Pins, Pull, Simulated},
        serial::{self, Framing, Line, PortError},
    },
    reading::{Kind, Point, PointId, Quality, Reading, Sharing, Stored},
    store::{Archive, Bucket, Gap, Page, PageRequest, StoreError, StoreFigures},
    supervisor::{Stage, Supervisor},
    watch,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn board() -> Board {
    Board::new(Clock::new(1, HeldTime::at(0, Source::Unknown), []))
}

/// Waits until the board shows a condition, or no longer does.
async fn until(board: &Board, code: Code, subject: &str, open: bool) {
    let mut changes = board.changes();
    let shown = async {
        while board.is_open(code, subject) != open {
            changes.changed().await.expect("a board");
        }
    };
    timeout(PATIENCE, shown).await.unwrap_or_else(|_| panic!("{code} of {subject} never became {open}"));
}

/// An adapter: the far end of a pseudo-terminal, plugged in under a name that stays.
struct Adapter {
    far: SerialStream,
    by_id: PathBuf,
}

impl Adapter {
    fn plug(by_id: &Path) -> Self {
        let (far, near) = SerialStream::pair().expect("a pseudo-terminal");
        symlink(near.name().expect("a name"), by_id).expect("a link");
        Self { far, by_id: by_id.to_owned() }
    }

    fn unplug(self) {
        std::fs::remove_file(&self.by_id).expect("unlinked");
        drop(self.far);
    }
}

fn named() -> (TempDir, Line) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("usb-FTDI_FT232R_A1");
    (folder, Line { path, speed: 9_600, framing: Framing::SevenE1 })
}

/// Keeps a line open; every piece heard, and each opening as an empty piece, comes out of the channel.
fn listen(line: &Line, board: &Board, stop: &CancellationToken) -> mpsc::UnboundedReceiver<Vec<u8>> {
    let (tell, heard) = mpsc::unbounded_channel();
    let (line, board, stop) = (line.clone(), board.clone(), stop.clone());
    tokio::spawn(async move {
        let body = |mut stream: SerialStream| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(Vec::new());
                let mut buffer = [0; 64];
                loop {
                    let count = serial::read_some(&mut stream, &mut buffer).await?;
                    let _ = tell.send(buffer[..count].to_vec());
                }
            }
        };
        serial::keep_open(&line, &board, &stop, body).await.expect("stopped, not fallen");
    });
    heard
}

async fn next(heard: &mut mpsc::UnboundedReceiver<Vec<u8>>) -> Vec<u8> {
    timeout(PATIENCE, heard.recv()).await.expect("something in time").expect("still listening")
}

async fn hear(heard: &mut mpsc::UnboundedReceiver<Vec<u8>>, expected: &[u8]) {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        got.extend(next(heard).await);
    }
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_line_pulled_out_under_the_reader_is_told_and_read_again_once_it_is_back() {
    let ((_folder, line), board, stop) = (named(), board(), CancellationToken::new());
    let subject = line.path.display().to_string();
    let mut adapter = Adapter::plug(&line.path);
    let mut heard = listen(&line, &board, &stop);
    assert_eq!(next(&mut heard).await, b"", "opened");
    AsyncWriteExt::write_all(&mut adapter.far, b"before").await.expect("written");
    hear(&mut heard, b"before").await;

    for round in 1..=3 {
        adapter.unplug();
        until(&board, Code::PortUnplugged, &subject, true).await;
        assert_eq!(board.open()[0].subject, subject, "named as the operator wrote it");
        adapter = Adapter::plug(&line.path);
        until(&board, Code::PortUnplugged, &subject, false).await;
        assert_eq!(next(&mut heard).await, b"", "opened anew");
        let words = format!("after {round}");
        AsyncWriteExt::write_all(&mut adapter.far, words.as_bytes()).await.expect("written");
        hear(&mut heard, words.as_bytes()).await;
    }
    assert_eq!(board.closed().len(), 3, "once for each time it went");
    stop.cancel();
    assert_eq!(timeout(PATIENCE, heard.recv()).await, Ok(None), "the body is dropped when asked to stop");
}

#[tokio::test]
async fn a_line_that_is_not_there_yet_is_waited_for() {
    let ((_folder, line), board, stop) = (named(), board(), CancellationToken::new());
    let subject = line.path.display().to_string();
    let mut heard = listen(&line, &board, &stop);
    until(&board, Code::PortUnplugged, &subject, true).await;
    let detail = board.open()[0].detail.clone();
    assert!(detail.contains("it is not there") && detail.contains("/dev/serial/by-id"), "{detail}");
    let _adapter = Adapter::plug(&line.path);
    assert_eq!(next(&mut heard).await, b"");
    until(&board, Code::PortUnplugged, &subject, false).await;
    stop.cancel();
    assert_eq!(timeout(PATIENCE, heard.recv()).await, Ok(None));
}

#[tokio::test]
async fn a_line_that_hangs_up_at_once_is_not_told_as_mended() {
    let ((_folder, line), board, stop) = (named(), board(), CancellationToken::new());
    let subject = line.path.display().to_string();
    let _adapter = Adapter::plug(&line.path);
    let mut openings = 0;
    let body = |_stream| {
        openings += 1;
        if openings == 3 {
            stop.cancel();
        }
        async {
            // At work for a moment, as a reader that meets the hang-up at its first read.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("no carrier"))
        }
    };
    timeout(PATIENCE, serial::keep_open(&line, &board, &stop, body)).await.expect("in time").expect("stopped");
    assert!(board.is_open(Code::PortUnplugged, &subject));
    assert!(board.open()[0].detail.contains("no carrier"), "{:?}", board.open());
    assert!(board.closed().is_empty());
}

#[tokio::test]
async fn a_stop_while_a_line_is_waited_for_ends_at_once() {
    let ((_folder, line), board, stop) = (named(), board(), CancellationToken::new());
    let mut heard = listen(&line, &board, &stop);
    until(&board, Code::PortUnplugged, &line.path.display().to_string(), true).await;
    stop.cancel();
    assert_eq!(timeout(Duration::from_secs(1), heard.recv()).await, Ok(None));
}

#[tokio::test]
async fn a_line_is_ours_alone() {
    let (_folder, line) = named();
    let _adapter = Adapter::plug(&line.path);
    let first = serial::open(&line).expect("opened");
    let Err(PortError::Open { path, source }) = serial::open(&line) else { panic!("opened twice") };
    assert_eq!((path, source.kind), (line.path.clone(), tokio_serial::ErrorKind::NoDevice));
    drop(first);
    assert!(serial::open(&line).is_ok(), "free again");
}

#[tokio::test]
async fn what_is_held_by_another_program_or_no_serial_line_is_told_in_plain_words() {
    let (_folder, line) = named();
    let _adapter = Adapter::plug(&line.path);
    let _other = serial::open(&line).expect("opened");
    let file = Line { path: line.path.with_file_name("notes.txt"), ..line.clone() };
    std::fs::write(&file.path, "").expect("written");
    for (line, words) in [(line, "another program holds it"), (file, "does not open as a serial line")] {
        let (board, stop) = (board(), CancellationToken::new());
        let _heard = listen(&line, &board, &stop);
        until(&board, Code::PortUnplugged, &line.path.display().to_string(), true).await;
        assert!(board.open()[0].detail.contains(words), "{:?}", board.open());
        stop.cancel();
    }
}

#[tokio::test]
async fn every_byte_passes_unchanged_both_ways() {
    let (_folder, line) = named();
    let mut adapter = Adapter::plug(&line.path);
    let mut near = serial::open(&Line { framing: Framing::EightN1, ..line }).expect("opened");
    let all: Vec<u8> = [0x0d, 0x0a, 0x03, 0x04, 0x11, 0x13].into_iter().chain(0..=255).collect();
    let mut got = vec![0; all.len()];
    AsyncWriteExt::write_all(&mut adapter.far, &all).await.expect("written");
    timeout(PATIENCE, near.read_exact(&mut got)).await.expect("in time").expect("read");
    assert_eq!(got, all);
    AsyncWriteExt::write_all(&mut near, &all).await.expect("written");
    timeout(PATIENCE, adapter.far.read_exact(&mut got)).await.expect("in time").expect("read");
    assert_eq!(got, all, "and nothing was echoed");
}

/// Writes a line to the FIFO as a shell does.
fn order(control: &Path, line: &str) {
    use std::io::Write as _;
    let mut shell = std::fs::File::options().write(true).open(control).expect("the FIFO");
    shell.write_all(format!("{line}\n").as_bytes()).expect("written");
}

#[tokio::test]
async fn a_shell_drives_simulated_inputs_through_a_fifo_only_its_owner_may_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let control = folder.path().join("pins");
    let pins = gpio::open(Choice::Simulated { control: Some(control.clone()) }).expect("pins");
    let kind = std::fs::metadata(&control).expect("there");
    assert!(kind.file_type().is_fifo());
    assert_eq!(kind.permissions().mode() & 0o777, 0o600);

    let mut edges = pins.input(17, Pull::Up, Duration::from_millis(50)).expect("an input");
    let mut heard = Vec::new();
    order(&control, "17 0");
    order(&control, &"nonsense ".repeat(50));
    order(&control, "17 1\n17 pulse 3");
    while heard.len() < 9 {
        heard.push(timeout(PATIENCE, edges.recv()).await.expect("in time").expect("an edge").high);
    }
    assert_eq!(heard, [true, false, true, false, true, false, true, false, true]);

    drop(pins);
    assert!(!control.exists(), "gone with the pins");
}

#[tokio::test]
async fn what_outputs_do_is_written_beside_the_fifo() {
    let folder = tempfile::tempdir().expect("a folder");
    let control = folder.path().join("pins");
    let pins = Simulated::with_control(&control).expect("pins");
    let mut relay = pins.output(5, true).expect("an output");
    relay.set(false).expect("driven");
    drop(relay);
    let record = std::fs::read_to_string(folder.path().join("pins.outputs")).expect("a record");
    let told: Vec<_> = record.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert_eq!(told, ["5 1", "5 0", "5 1"]);
    let mode = std::fs::metadata(folder.path().join("pins.outputs")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_control_path_that_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let control = folder.path().join("gateway.toml");
    std::fs::write(&control, "precious").expect("written");
    let refused = gpio::open(Choice::Simulated { control: Some(control.clone()) });
    assert!(refused.is_err_and(|cause| cause.to_string().contains("something else")));
    assert_eq!(std::fs::read_to_string(&control).expect("there"), "precious");
}

/// A meter that has always lost 60 L/h, by a formula over the wall clock.
struct Leaking;

impl Archive for Leaking {
    fn identity(&self) -> String {
        String::new()
    }
    fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
        Ok(Page { entries: Vec::new(), next: request.after, complete: true })
    }
    fn head(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
    fn latest(&self) -> Vec<Stored> {
        Vec::new()
    }
    fn history(&self, _: &PointId, from: i64, to: i64, step: i64) -> Result<Vec<Bucket>, StoreError> {
        let bucket = |start_ms: i64| {
            let (first, last) = (start_ms as f64 / 60_000.0, (start_ms + step) as f64 / 60_000.0);
            Bucket { start_ms, min: first, max: last, sum: first + last, first, last, count: 2 }
        };
        Ok((from..to).step_by(usize::try_from(step).expect("a step")).map(bucket).collect())
    }
    fn acknowledge(&self, _: &str, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
    fn acknowledged(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
    fn gaps(&self) -> Vec<Gap> {
        Vec::new()
    }
    fn figures(&self) -> StoreFigures {
        StoreFigures::default()
    }
}

fn point(id: &str, unit: &str, kind: Kind) -> Point {
    let id = id.parse().expect("a name");
    let (label, unit) = (String::new(), unit.to_owned());
    Point { id, label, unit, kind, decimals: 0, interval: None, range: None, sharing: Sharing::Internal }
}

/// The watch at work on a door, a room and a water meter.
struct Hall {
    time: Arc<HeldTime>,
    clock: Clock,
    board: Board,
    live: Live,
    supervisor: Supervisor,
}

/// 2026-11-21, 9 h in Paris.
const MORNING: i64 = 1_795_248_000_000;

impl Hall {
    fn open(source: Source) -> Self {
        let time = HeldTime::at(MORNING, source);
        let clock = Clock::new(1, time.clone(), []);
        let board = Board::new(clock.clone());
        let points = [
            point("door/hall/state", "1", Kind::State),
            point("air/hall/co2", "[ppm]", Kind::Gauge),
            point("water/hall/index", "L", Kind::Counter),
        ];
        let live = Live::new(points, []);
        let supervisor = Supervisor::new(board.clone());
        let mut settings = config::watch::read(None, jiff::tz::TimeZone::get("Europe/Paris").expect("bundled"));
        settings.contacts.insert("door/hall/state".parse().expect("a name"), 0.0);
        settings.continuous_for = Duration::from_secs(120);
        settings.continuous_pause = Duration::from_secs(30);
        let ground = watch::Ground {
            supervisor: &supervisor,
            board: board.clone(),
            live: live.clone(),
            clock: clock.clone(),
            archive: Arc::new(Leaking),
        };
        watch::start(settings, ground);
        Self { time, clock, board, live, supervisor }
    }

    fn tell(&self, point: &str, value: f64) {
        let stamp: Stamp = self.clock.now();
        let point = point.parse().expect("a name");
        self.live.tell(&[Reading { point, stamp, value: Some(value), quality: Quality::Good }]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_door_that_stands_open_is_told_until_it_is_closed() {
    let hall = Hall::open(Source::Unknown);
    hall.tell("door/hall/state", 0.0);
    until(&hall.board, Code::ContactAlarm, "door/hall/state", true).await;
    hall.tell("door/hall/state", 1.0);
    until(&hall.board, Code::ContactAlarm, "door/hall/state", false).await;
}

#[tokio::test(start_paused = true)]
async fn stale_air_is_told_and_over_once_the_windows_were_opened() {
    let hall = Hall::open(Source::Unknown);
    for _ in 0..=10 {
        hall.tell("air/hall/co2", 1_620.0);
        hall.time.advance(60_000);
    }
    until(&hall.board, Code::AirStale, "air/hall/co2", true).await;
    hall.tell("air/hall/co2", 700.0);
    until(&hall.board, Code::AirStale, "air/hall/co2", false).await;
}

#[tokio::test(start_paused = true)]
async fn water_without_a_pause_is_a_leak_within_minutes_although_nobody_vouches_for_the_clock() {
    let hall = Hall::open(Source::Unknown);
    for litre in 0..=15 {
        hall.tell("water/hall/index", f64::from(litre));
        hall.time.advance(10_000);
    }
    until(&hall.board, Code::WaterLeak, "water/hall/index", true).await;
    let detail = hall.board.open()[0].detail.clone();
    assert!(detail.contains("without a pause") && detail.contains("m³ a year"), "{detail}");
    hall.time.advance(30_000);
    until(&hall.board, Code::WaterLeak, "water/hall/index", false).await;
}

#[tokio::test(start_paused = true)]
async fn leaking_nights_are_told_once_the_clock_can_be_trusted() {
    let hall = Hall::open(Source::Unknown);
    // Readings go on; a minute of ticks passes without a word about the nights.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(hall.board.open().is_empty(), "{:?}", hall.board.open());
    hall.time.set_wall(MORNING, Source::Ntp);
    hall.clock.observe();
    until(&hall.board, Code::WaterLeak, "water/hall/index", true).await;
    let detail = hall.board.open()[0].detail.clone();
    assert!(detail.contains("3 nights running") && detail.contains("60 L/h"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn the_watch_stops_with_the_inputs() {
    let hall = Hall::open(Source::Ntp);
    hall.supervisor.stop_of(Stage::Inputs).cancel();
    assert!(hall.supervisor.stop(Duration::from_secs(5)).await.is_empty());
}
