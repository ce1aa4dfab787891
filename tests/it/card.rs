//! The real gateway on a card that is read-only, failing, hanging, full or not there, and then well again: it says so,
//! acknowledges nothing it has not stored, goes on without a restart, and what was acknowledged is pulled.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use clocher_card::{Card, Trouble};
use nix::sys::signal::Signal;
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};

use crate::{
    process::Running,
    run::{Hall, sequence},
};

const RAISED: &str = "code=store-refuses-writes";
const PATIENCE: Duration = Duration::from_secs(60);

/// A sensor that sends each number until it is acknowledged, over as many connections as that takes.
struct Sensor {
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sensor {
    fn begin(broker: SocketAddr) -> Self {
        let (acknowledged, ends) = (Arc::<Mutex<BTreeSet<u64>>>::default(), Arc::<AtomicBool>::default());
        let (told, asked) = (Arc::clone(&acknowledged), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut next = 0;
            while !asked.load(Ordering::Relaxed) {
                send(broker, &mut next, &told, &asked);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { acknowledged, ends, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("not poisoned").len()
    }

    fn wait_for(&self, more: usize, gateway: &Running) {
        let (until, enough) = (Instant::now() + PATIENCE, self.count() + more);
        while self.count() < enough {
            assert!(Instant::now() < until, "no acknowledgements; heard:\n{}", gateway.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(mut self) -> BTreeSet<u64> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().expect("once").join().expect("no panic");
        std::mem::take(&mut *self.acknowledged.lock().expect("not poisoned"))
    }
}

/// One connection: one number after the other, until it breaks or the test ends.
fn send(broker: SocketAddr, next: &mut u64, told: &Mutex<BTreeSet<u64>>, ends: &AtomicBool) {
    let mut options = MqttOptions::new("sensor-1", broker.ip().to_string(), broker.port());
    options.set_credentials("sensor", "a long enough secret").set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 10);
    let publish = |n: u64| client.try_publish("sensors/count", QoS::AtLeastOnce, false, n.to_string()).is_ok();
    while !ends.load(Ordering::Relaxed) {
        match connection.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(Event::Incoming(Incoming::ConnAck(_)))) => drop(publish(*next)),
            Ok(Ok(Event::Incoming(Incoming::PubAck(_)))) => {
                told.lock().expect("not poisoned").insert(*next);
                *next += 1;
                publish(*next);
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(rumqttc::RecvTimeoutError::Timeout) => {}
            Err(_) => return,
        }
    }
}

/// A hall whose store is on a card of its own.
fn hall_with_card() -> (Hall, Card) {
    let hall = Hall::new();
    let store = hall.file("store");
    fs::create_dir(&store).expect("made");
    let card = Card::insert(&store, 64 << 20).unwrap_or_else(|error| panic!("{error}"));
    (hall, card)
}

fn assert_all_there(hall: &Hall, gateway: &Running, acknowledged: &BTreeSet<u64>) {
    let lines = hall.pull(gateway.address("Peers may pull"));
    let stored: BTreeSet<u64> = lines.iter().filter_map(|line| line["result"].as_f64()).map(|n| n as u64).collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}\n{}", lost.len(), acknowledged.len(), gateway.said());
    assert_eq!(sequence(&lines), (1..=lines.len() as u64).collect::<Vec<_>>(), "a number was skipped or used twice");
}

#[test]
fn a_card_that_fails_in_any_way_is_told_nothing_is_acknowledged_meanwhile_and_all_goes_on_when_it_is_well() {
    let (hall, card) = hall_with_card();
    let config = hall.counting();
    let gateway = Running::gateway(&config);
    let sensor = Sensor::begin(gateway.address("Broker ready"));
    sensor.wait_for(20, &gateway);
    let troubles =
        [Trouble::ReadOnly, Trouble::WritesFail, Trouble::SyncsFail, Trouble::Hangs, Trouble::Gone, Trouble::SyncsFail];
    for (n, trouble) in troubles.into_iter().enumerate() {
        card.begin(trouble);
        let raised = format!("Condition raised {RAISED}");
        gateway.nth_line(&raised, n + 1);
        let before = sensor.count();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(sensor.count(), before, "acknowledged on a card with {trouble:?}");
        card.recover();
        gateway.nth_line(&format!("Condition closed {RAISED}"), n + 1);
        sensor.wait_for(20, &gateway);
    }
    let acknowledged = sensor.end();
    assert_all_there(&hall, &gateway, &acknowledged);
    assert!(!gateway.said().contains("code=readings-lost"), "{}", gateway.said());
    assert!(!gateway.said().contains("code=store-damaged"), "{}", gateway.said());
    gateway.kill();

    let again = Running::gateway(&config);
    fs::remove_file(hall.file("cursor")).expect("removed");
    fs::remove_file(hall.file("pulled.jsonl")).expect("removed");
    assert_all_there(&hall, &again, &acknowledged);
    assert!(!again.said().contains("code=store-damaged"), "{}", again.said());
}

#[test]
fn a_gateway_that_starts_without_its_card_moves_to_it_when_it_is_there() {
    // The second takes its time; it is tried with the other long ones.
    let also = std::env::var_os("CLOCHER_LONG_TESTS").map(|_| Trouble::ReadsFail);
    for trouble in [Trouble::Gone].into_iter().chain(also) {
        let (hall, card) = hall_with_card();
        let config = hall.counting();
        let first = Running::gateway(&config);
        let sensor = Sensor::begin(first.address("Broker ready"));
        sensor.wait_for(20, &first);
        let mut acknowledged = sensor.end();
        first.kill();

        card.begin(trouble);
        let gateway = Running::gateway(&config);
        gateway.line(&format!("Condition raised {RAISED}"));
        let sensor = Sensor::begin(gateway.address("Broker ready"));
        let peers = gateway.address("Peers may pull");
        std::thread::scope(|scope| {
            // A peer that asks meanwhile is told to come later: its cursor is good, and holds.
            let early = scope.spawn(|| hall.try_to_pull(peers));
            std::thread::sleep(Duration::from_secs(1));
            assert!(!early.is_finished() && sensor.count() == 0);
            card.recover();
            gateway.line("The card can be used");
            gateway.line(&format!("Condition closed {RAISED}"));
            sensor.wait_for(20, &gateway);
            assert!(early.join().expect("no panic").status.success());
        });
        acknowledged.extend(sensor.end());
        assert_all_there(&hall, &gateway, &acknowledged);
        assert!(!gateway.said().contains("code=store-damaged"), "{}", gateway.said());
    }
}

#[test]
fn a_store_on_a_read_only_card_is_served_and_gone_on_with_once_it_takes_writes() {
    let (hall, card) = hall_with_card();
    let config = hall.counting();
    let first = Running::gateway(&config);
    let sensor = Sensor::begin(first.address("Broker ready"));
    sensor.wait_for(30, &first);
    let mut acknowledged = sensor.end();
    first.kill();

    card.begin(Trouble::ReadOnly);
    let gateway = Running::gateway(&config);
    gateway.line(&format!("Condition raised {RAISED}"));
    assert_all_there(&hall, &gateway, &acknowledged);
    let sensor = Sensor::begin(gateway.address("Broker ready"));
    card.recover();
    gateway.line("The card can be used");
    sensor.wait_for(20, &gateway);
    acknowledged.extend(sensor.end());
    // The cursor of the read-only store still holds: nothing comes twice.
    assert_all_there(&hall, &gateway, &acknowledged);
}

#[test]
fn a_stop_does_not_wait_for_a_card_that_hangs() {
    let (hall, card) = hall_with_card();
    let gateway = Running::gateway(&hall.counting());
    let sensor = Sensor::begin(gateway.address("Broker ready"));
    sensor.wait_for(5, &gateway);
    card.begin(Trouble::Hangs);
    gateway.line(&format!("Condition raised {RAISED}"));
    let asked = Instant::now();
    gateway.signal(Signal::SIGTERM);
    gateway.line("The card does not answer; what it was to take is not stored");
    // The process itself cannot end before the card answers: its last write is in the system's hands.
    gateway.line("Stopped");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    card.recover();
    drop(sensor.end());
}
