//! Lines, buses, pins and topics over pipes in memory, on a held clock and paused time.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use super::{
    super::{Common, PinDecoder, Said, modbus::frame::crc},
    *,
};
use crate::{
    clock::{HeldTime, Source},
    config::{self, Block},
    port::gpio::{Edge, OutputPin, PinError, Pull},
    reading::{Batch, Kind, Point, Quality, Reading, Sharing, Why},
};

/// A gateway's ground without a gateway.
struct Hall {
    time: Arc<HeldTime>,
    ground: Ground,
    batches: mpsc::Receiver<Batch>,
}

fn hall() -> Hall {
    let time = HeldTime::at(1_800_000_000_000, Source::Ntp);
    let clock = Clock::new(1, time.clone(), []);
    let board = Board::new(clock.clone());
    let (intake, batches) = Intake::new(1_000);
    let supervisor = Supervisor::new(board.clone());
    let ground = Ground { supervisor, intake, board, clock, live: Live::new([], []), pins: None };
    Hall { time, ground, batches }
}

impl Hall {
    fn ear(&self, device: &Device, pace: Option<Duration>) -> Arc<Ear> {
        let (clock, board) = (self.ground.clock.clone(), self.ground.board.clone());
        Arc::new(Ear::new(&device.name, device.points.clone(), pace, clock, board))
    }

    fn stream(&self, text: &str) -> (Arc<Ear>, Stream) {
        let device = device(text);
        let ear = self.ear(&device, Some(Duration::from_secs(10)));
        match device.wire {
            Wire::Stream { every, decoder, .. } => {
                (Arc::clone(&ear), Stream::new(ear, every, decoder, self.ground.intake.clone()))
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn bus(&self, texts: &[&str]) -> Bus {
        let mut bus = Bus::new(9_600, self.ground.intake.clone());
        for text in texts {
            let device = device(text);
            let ear = self.ear(&device, Some(Duration::from_secs(10)));
            match device.wire {
                Wire::Bus { unit, every, timeout, poller, .. } => bus.add(ear, unit, every, timeout, poller),
                other => unreachable!("{other:?}"),
            }
        }
        bus
    }

    fn open(&self) -> Vec<(Code, String)> {
        self.ground.board.open().into_iter().map(|condition| (condition.code, condition.detail)).collect()
    }

    /// Everything given so far.
    fn given(&mut self) -> Vec<(Commit, Vec<Reading>)> {
        std::iter::from_fn(|| self.batches.try_recv().ok()).map(|batch| (batch.commit, batch.readings)).collect()
    }
}

fn device(text: &str) -> Device {
    let source = config::Source::new("f.toml", text);
    let table = source.parse();
    let block = Block::new(&source, "device", table.span(), table.get_ref());
    let device = super::super::read_device(&block);
    assert_eq!(source.faults(), []);
    device.expect("a device")
}

fn tic(name: &str, port: &str) -> String {
    format!("name = \"{name}\"\ndriver = \"tic\"\nmode = \"historic\"\nport = \"{port}\"\n")
}

fn modbus(name: &str, unit: u8) -> String {
    let keys = "timeout = \"200 ms\"\nevery = \"2 s\"\nport = \"/dev/bus\"\n";
    let register = "[[register]]\nname = \"v\"\naddress = 0\ntype = \"f32\"\ndecimals = 1\n";
    format!("name = \"{name}\"\ndriver = \"modbus\"\nunit = {unit}\n{keys}{register}")
}

const GOOD: &[u8] = include_bytes!("../../../tests/fixtures/tic/errors/hist_ok.bin");
const OVER_POWER: &[u8] = include_bytes!("../../../tests/fixtures/tic/errors/hist_adps.bin");

fn values(readings: &[Reading], point: &str) -> Vec<Option<f64>> {
    readings.iter().filter(|reading| reading.point.as_str() == point).map(|reading| reading.value).collect()
}

/// Lets every other task run until it waits.
async fn settle_down() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_sends_garbage_is_heard_again_after_the_next_good_frame() {
    let mut hall = hall();
    let (ear, mut stream) = hall.stream(&tic("m", "/dev/a"));
    let (mut meter, line) = duplex(64 * 1024);
    tokio::spawn(async move { stream.listen(line).await });
    for _ in 0..5 {
        meter.write_all(&[0x55; 5_000]).await.expect("written");
        settle_down().await;
        hall.time.advance(10_000);
        ear.look(&hall.ground.live);
    }
    let open = hall.open();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0].0, Code::DeviceFault);
    assert!(open[0].1.contains("without a start of frame"), "{open:?}");

    meter.write_all(GOOD).await.expect("written");
    settle_down().await;
    assert_eq!(hall.open(), []);
    let given = hall.given();
    assert_eq!(given.len(), 1);
    assert_eq!(values(&given[0].1, "m/index"), [Some(2_809_718.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_speaks_every_second_is_kept_at_its_pace_and_its_alarm_at_once() {
    let mut hall = hall();
    let (_, mut stream) = hall.stream(&tic("m", "/dev/a"));
    let (mut meter, line) = duplex(64 * 1024);
    tokio::spawn(async move { stream.listen(line).await });
    for second in 0..25 {
        meter.write_all(if second == 13 { OVER_POWER } else { GOOD }).await.expect("written");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let given = hall.given();
    let (at_once, paced): (Vec<_>, Vec<_>) = given.into_iter().partition(|(commit, _)| *commit == Commit::Now);
    assert_eq!(paced.len(), 3, "at 0, 10 and 20 s");
    for (commit, readings) in &paced {
        assert_eq!(*commit, Commit::Grouped);
        assert_eq!(values(readings, "m/index").len(), 1);
    }
    let alarms: Vec<_> = at_once.iter().flat_map(|(_, readings)| values(readings, "m/over-power")).collect();
    assert_eq!(alarms, [Some(1.0), Some(0.0)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_held_is_given_although_the_meter_has_stopped() {
    let mut hall = hall();
    let (_, mut stream) = hall.stream(&tic("m", "/dev/a"));
    let (mut meter, line) = duplex(64 * 1024);
    tokio::spawn(async move { stream.listen(line).await });
    meter.write_all(GOOD).await.expect("written");
    tokio::time::sleep(Duration::from_secs(1)).await;
    meter.write_all(GOOD).await.expect("written");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(hall.given().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_gone_is_told_to_who_opens_it_again() {
    let hall = hall();
    let (_, mut stream) = hall.stream(&tic("m", "/dev/a"));
    let (meter, line) = duplex(64);
    drop(meter);
    assert_eq!(stream.listen(line).await.expect_err("gone").kind(), std::io::ErrorKind::UnexpectedEof);
    let (meter, line) = duplex(64);
    drop(meter);
    let mut bus = hall.bus(&[&modbus("a", 1)]);
    assert!(bus.poll(line).await.is_err());
}

#[test]
fn a_silent_device_that_answers_without_a_value_is_silent_no_more() {
    let hall = hall();
    let device = device(&modbus("a", 1));
    let point = device.points[0].id.clone();
    let ear = hall.ear(&device, None);
    hall.ground.board.raise(Code::DeviceSilent, "a", "nothing heard for 30 s");
    ear.hear(vec![Said::Value { point, value: None, quality: Quality::Bad(Why::WarmingUp) }]);
    assert!(!hall.ground.board.is_open(Code::DeviceSilent, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_device_is_told_once_its_values_go_stale_and_it_is_heard_again() {
    let mut hall = hall();
    let (ear, mut stream) = hall.stream(&tic("m", "/dev/a"));
    let id: PointId = "m/power".parse().expect("name");
    let stamp = hall.ground.clock.now();
    let last = Reading { point: id.clone(), stamp, value: Some(390.0), quality: Quality::Good };
    hall.ground.live = Live::new([], [last]);
    hall.time.advance(29_999);
    assert_eq!((ear.look(&hall.ground.live), hall.open().len()), (vec![], 0));
    hall.time.advance(1);
    let stale = ear.look(&hall.ground.live);
    assert_eq!(stale.len(), 1);
    assert_eq!((stale[0].value, stale[0].quality), (Some(390.0), Quality::Stale(Why::NoAnswer)));
    assert_eq!(hall.open(), [(Code::DeviceSilent, "nothing heard for 30 s".to_owned())]);
    assert_eq!(ear.look(&hall.ground.live), []);

    let (mut meter, line) = duplex(64 * 1024);
    tokio::spawn(async move { stream.listen(line).await });
    meter.write_all(GOOD).await.expect("written");
    settle_down().await;
    assert_eq!(hall.open(), []);
}

/// An answer of `unit` to a read of input registers.
fn answer(unit: u8, registers: &[u16]) -> Vec<u8> {
    let mut frame = vec![unit, 0x04, (registers.len() * 2) as u8];
    frame.extend(registers.iter().flat_map(|word| word.to_be_bytes()));
    closed(frame)
}

fn closed(mut frame: Vec<u8>) -> Vec<u8> {
    let sum = crc(&frame);
    frame.extend(sum.to_le_bytes());
    frame
}

/// 230.2 as a float.
const VOLTS: [u16; 2] = [0x4366, 0x3334];

/// A bus whose devices answer as the function says, with a request's unit, address and count.
fn devices(mut bus: DuplexStream, mut answers: impl FnMut(u8, u16, u16) -> Vec<u8> + Send + 'static) {
    tokio::spawn(async move {
        let mut request = [0; 8];
        while bus.read_exact(&mut request).await.is_ok() {
            let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
            if bus.write_all(&answers(request[0], word(2), word(4))).await.is_err() {
                return;
            }
        }
    });
}

/// What each answer in turn gives, or the text by which it is refused, asked through the real client.
async fn given_for(answers: Vec<Vec<u8>>) -> (Vec<Option<f64>>, Vec<(Code, String)>) {
    let mut hall = hall();
    let mut bus = hall.bus(&[&modbus("a", 1)]);
    let (ours, theirs) = duplex(4_096);
    let mut answers = answers.into_iter().cycle();
    devices(theirs, move |_, _, _| answers.next().unwrap_or_default());
    let time = Arc::clone(&hall.time);
    let ear = Arc::clone(bus.ear(0));
    let live = hall.ground.live.clone();
    let polling = tokio::spawn(async move { bus.poll(ours).await });
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        time.advance(1_000);
        ear.look(&live);
    }
    polling.abort();
    let readings: Vec<_> = hall.given().into_iter().flat_map(|(_, readings)| readings).collect();
    (values(&readings, "a/v"), hall.open())
}

#[tokio::test(start_paused = true)]
async fn a_meter_is_read_through_the_real_client() {
    let (values, open) = given_for(vec![answer(1, &VOLTS)]).await;
    assert!(values.len() >= 20 && values.iter().all(|value| *value == Some(230.2)), "{values:?}");
    assert_eq!(open, []);
}

#[tokio::test(start_paused = true)]
async fn zeros_before_an_answer_cost_nothing() {
    let glitched = |frame: Vec<u8>| [vec![0, 0], frame].concat();
    let (values, open) = given_for(vec![glitched(answer(1, &VOLTS))]).await;
    assert!(values.len() >= 20, "{values:?}");
    assert_eq!(open, []);
    let (_, open) = given_for(vec![glitched(closed(vec![1, 0x84, 0x06]))]).await;
    assert!(open.iter().any(|(_, detail)| detail.contains("server device busy")), "{open:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_not_to_be_trusted_are_refused_and_shown() {
    let mut flipped = answer(1, &VOLTS);
    flipped[4] ^= 1;
    for (bytes, reason) in [
        (flipped, "01 04 04 43"),
        (answer(2, &VOLTS), "unit 1:"),
        (answer(1, &[VOLTS[0], VOLTS[1], 0]), "3 registers where 2 were asked"),
        (closed(vec![1, 0x03, 4, 0x43, 0x66, 0x33, 0x34]), "unit 1:"),
        (closed(vec![1, 0x84, 0x02]), "illegal data address"),
        (answer(1, &VOLTS)[..6].to_vec(), "no answer in 6 bytes"),
        (closed(vec![1, 0x04, 3, 1, 2, 3]), "unit 1:"),
    ] {
        let (values, open) = given_for(vec![bytes]).await;
        assert!(values.iter().all(Option::is_none), "{reason}: {values:?}");
        assert_eq!(open.len(), 1, "{reason}: {open:?}");
        assert_eq!(open[0].0, Code::DeviceFault, "{reason}: {open:?}");
        assert!(open[0].1.contains(reason), "{reason}: {open:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_answer_is_asked_again_in_the_same_round() {
    let mut flipped = answer(1, &VOLTS);
    flipped[4] ^= 1;
    let (values, open) = given_for(vec![flipped, answer(1, &VOLTS)]).await;
    assert!(values.len() >= 20, "{values:?}");
    assert_eq!(open, []);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_no_number_is_a_bad_reading() {
    let (values, _) = given_for(vec![answer(1, &[0x7f80, 0])]).await;
    assert!(!values.is_empty() && values.iter().all(Option::is_none), "{values:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    let mut hall = hall();
    let mut bus = hall.bus(&[&modbus("a", 1)]);
    let (ours, mut theirs) = duplex(4_096);
    tokio::spawn(async move {
        let mut request = [0; 8];
        for round in 0_u16.. {
            if theirs.read_exact(&mut request).await.is_err() {
                return;
            }
            // Every other answer is 40 ms later than the timeout, and says so by its value.
            let late = round % 2 == 0;
            tokio::time::sleep(Duration::from_millis(if late { 240 } else { 5 })).await;
            let registers = if late { [0x42c8, 0] } else { VOLTS };
            if theirs.write_all(&answer(1, &registers)).await.is_err() {
                return;
            }
        }
    });
    let polling = tokio::spawn(async move { bus.poll(ours).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    polling.abort();
    let readings: Vec<_> = hall.given().into_iter().flat_map(|(_, readings)| readings).collect();
    let values = values(&readings, "a/v");
    assert!(values.len() >= 20 && values.iter().all(|value| *value == Some(230.2)), "{values:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_device_never_starves_the_others() {
    let mut hall = hall();
    let mut bus = hall.bus(&[&modbus("dead", 1), &modbus("alive", 2), &modbus("well", 3)]);
    let (ours, theirs) = duplex(4_096);
    devices(theirs, |unit, _, _| if unit == 1 { Vec::new() } else { answer(unit, &VOLTS) });
    let polling = tokio::spawn(async move { bus.poll(ours).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    polling.abort();
    let readings: Vec<_> = hall.given().into_iter().flat_map(|(_, readings)| readings).collect();
    for point in ["alive/v", "well/v"] {
        assert!(values(&readings, point).len() >= 28, "{point}: {}", values(&readings, point).len());
    }
    assert_eq!(values(&readings, "dead/v"), []);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_refuses_a_wide_read_is_read_in_smaller_ones() {
    let mut hall = hall();
    let text = "name = \"s\"\ndriver = \"modbus\"\nport = \"/dev/bus\"\nmodel = \"SDM120\"\n";
    let mut bus = hall.bus(&[text]);
    let (ours, theirs) = duplex(4_096);
    devices(theirs, |unit, _, count| if count > 2 { closed(vec![unit, 0x84, 0x02]) } else { answer(unit, &VOLTS) });
    let polling = tokio::spawn(async move { bus.poll(ours).await });
    tokio::time::sleep(Duration::from_secs(35)).await;
    polling.abort();
    let readings: Vec<_> = hall.given().into_iter().flat_map(|(_, readings)| readings).collect();
    assert!(values(&readings, "s/voltage").len() >= 2);
    assert!(values(&readings, "s/index-export").len() >= 2);
}

#[test]
fn a_value_is_rounded_and_held_against_its_range() {
    let hall = hall();
    let device = device(&modbus("a", 1).replace("decimals = 1", "decimals = 1\nrange = [200, 250]"));
    let ear = hall.ear(&device, None);
    let point: PointId = "a/v".parse().expect("name");
    let said = |value: f64| Said::Value { point: point.clone(), value: Some(value), quality: Quality::Good };
    let stranger = Said::Value { point: "a/w".parse().expect("name"), value: Some(1.0), quality: Quality::Good };
    let readings = ear.hear(vec![said(230.199_997), said(-0.01), said(f64::NAN), stranger]);
    let heard: Vec<_> = readings.iter().map(|reading| (reading.value, reading.quality)).collect();
    let expected = [
        (Some(230.2), Quality::Good),
        (Some(0.0), Quality::Suspect(Why::OutOfRange)),
        (None, Quality::Bad(Why::NotANumber)),
    ];
    assert_eq!(heard, expected);
    assert!(readings[1].value.is_some_and(f64::is_sign_positive));
}

#[test]
fn lines_names_and_pins_are_taken_once() {
    let bus = |name: &str, keys: &str| device(&format!("{}\n", modbus(name, 1).replace("unit = 1", keys)));
    let devices = [
        device(&tic("a", "/dev/a")),
        device(&tic("b", "/dev/a")),
        bus("c", "unit = 1"),
        bus("d", "unit = 2"),
        bus("e", "unit = 3\nspeed = 2400"),
        device(&tic("f", "/dev/bus")),
        device(&tic("a", "/dev/b")),
        bus("g", "unit = 2"),
    ];
    let refused = conflicts(&devices);
    let refused: Vec<_> =
        refused.iter().map(|(place, why)| (devices[*place].name.as_str(), why.english.as_str())).collect();
    assert_eq!(
        refused,
        [
            ("b", "/dev/a belongs to a, which talks by itself"),
            ("e", "/dev/bus is used by c at 9600 8N1, not 2400 8N1"),
            ("f", "/dev/bus is a bus, used by c; a device that talks by itself needs its own"),
            ("a", "another device is called a"),
            ("g", "unit 2 on /dev/bus is d: each meter needs a `unit` of its own"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_becomes_readings_of_the_devices_that_listen_to_its_topic() {
    let hall = hall();
    let text = |name: &str, topic: &str| {
        device(&format!(
            "name = \"{name}\"\ndriver = \"mqtt\"\ntopic = \"{topic}\"\n[[point]]\nname = \"t\"\npointer = \"/t\"\n\
             interval = \"1 min\"\ndecimals = 1\nrange = [-20, 50]\n"
        ))
    };
    let topics = start(vec![text("a", "z/+"), text("b", "z/b"), text("c", "z/+")], &hall.ground);
    assert_eq!(["z/a", "z/b", "y/a"].map(|topic| topics.wants(topic)), [true, true, false]);
    let readings = topics.deliver("z/b", br#"{"t":"21.55"}"#);
    let heard: Vec<_> = readings.iter().map(|reading| (reading.point.as_str(), reading.value)).collect();
    assert_eq!(heard, [("a/t", Some(21.6)), ("b/t", Some(21.6)), ("c/t", Some(21.6))]);
    assert_eq!(topics.deliver("z/b", br#"{"t":200}"#)[0].quality, Quality::Suspect(Why::OutOfRange));
    assert_eq!(topics.deliver("y", b"{}"), []);

    hall.time.advance(180_000);
    let mut changes = hall.ground.board.changes();
    changes.changed().await.expect("a condition");
    assert!(hall.ground.board.is_open(Code::DeviceSilent, "a"));
    topics.deliver("z/b", br#"{"t":20}"#);
    assert!(!hall.ground.board.is_open(Code::DeviceSilent, "a"));
}

/// Pins in memory: each `input` hands out the next receiver.
struct FakePins(std::sync::Mutex<Vec<mpsc::Receiver<Edge>>>);

impl Pins for FakePins {
    fn input(&self, _: u8, _: Pull, _: Duration) -> Result<mpsc::Receiver<Edge>, PinError> {
        let mut waiting = self.0.lock().expect("lock");
        if waiting.is_empty() { Err(PinError::NoGpio("none left".into())) } else { Ok(waiting.remove(0)) }
    }

    fn output(&self, _: u8, _: bool) -> Result<Box<dyn OutputPin>, PinError> {
        Err(PinError::NoGpio("no outputs".into()))
    }
}

/// Counts edges from where it left off.
#[derive(Debug)]
struct Count(PointId, f64);

impl PinDecoder for Count {
    fn resume(&mut self, point: &PointId, value: f64) {
        assert_eq!(*point, self.0);
        self.1 = value;
    }

    fn edge(&mut self, _: Edge, _: u64, said: &mut Vec<Said>) {
        self.1 += 1.0;
        said.push(Said::Value { point: self.0.clone(), value: Some(self.1), quality: Quality::Good });
    }

    fn tick(&mut self, _: u64, _: &mut Vec<Said>) {}

    fn finish(&mut self, _: u64, said: &mut Vec<Said>) {
        said.push(Said::Value { point: self.0.clone(), value: Some(self.1 + 100.0), quality: Quality::Good });
    }
}

#[tokio::test(start_paused = true)]
async fn a_contact_counts_on_from_what_is_stored_and_survives_the_loss_of_its_pin() {
    let mut hall = hall();
    let common = Common { name: "w".parse().expect("name"), label: "Eau".into(), sharing: Sharing::Internal };
    let id = common.name.join("index").expect("name");
    let point = Point {
        id: id.clone(),
        label: common.label,
        unit: "L".into(),
        kind: Kind::Counter,
        decimals: 0,
        interval: None,
        range: None,
        sharing: common.sharing,
    };
    let stored =
        Reading { point: id.clone(), stamp: hall.ground.clock.now(), value: Some(41.0), quality: Quality::Good };
    hall.ground.live = Live::new([point.clone()], [stored]);
    let (first, first_edges) = mpsc::channel(4);
    let (second, second_edges) = mpsc::channel(4);
    hall.ground.pins = Some(Arc::new(FakePins(std::sync::Mutex::new(vec![first_edges, second_edges]))));
    let decoder = Box::new(Count(id, 0.0));
    let wire = Wire::Pin { pin: 17, pull: Pull::Up, debounce: Duration::from_millis(20), decoder };
    let device = Device { name: common.name, label: "Eau".into(), driver: "pulse", points: vec![point], wire };
    start(vec![device], &hall.ground);

    first.send(Edge { high: false }).await.expect("sent");
    let batch = hall.batches.recv().await.expect("a batch");
    assert_eq!((batch.commit, batch.readings[0].value), (Commit::Now, Some(42.0)));
    drop(first);
    let mut changes = hall.ground.board.changes();
    changes.changed().await.expect("a condition");
    assert!(hall.ground.board.is_open(Code::PinUnusable, "w"));
    second.send(Edge { high: false }).await.expect("sent");
    assert_eq!(hall.batches.recv().await.expect("a batch").readings[0].value, Some(43.0));
    assert_eq!(hall.open(), []);
    assert!(hall.ground.supervisor.stop(Duration::from_secs(5)).await.is_empty());
    assert_eq!(hall.batches.recv().await.expect("what was not yet told").readings[0].value, Some(143.0));
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_pins_says_so() {
    let hall = hall();
    let device = Device {
        name: "w".parse().expect("name"),
        label: "Eau".into(),
        driver: "pulse",
        points: Vec::new(),
        wire: Wire::Pin {
            pin: 17,
            pull: Pull::Up,
            debounce: Duration::ZERO,
            decoder: Box::new(Count("w/index".parse().expect("name"), 0.0)),
        },
    };
    start(vec![device], &hall.ground);
    let mut changes = hall.ground.board.changes();
    changes.changed().await.expect("a condition");
    assert_eq!(hall.open()[0].0, Code::PinUnusable);
}
