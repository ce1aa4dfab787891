//! The real gateway at work on a card that records: publishes acknowledged one by one, records kept, a meter polled,
//! readings pulled, two restarts, segments rotated and the oldest dropped. What the outside was told stands as marks
//! between the writes.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clocher::tls::Authority;
use clocher_card::{Card, Operation};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, QoS};
use serde_json::Value;
use tempfile::TempDir;
use tokio_serial::SerialPort;

use crate::process::{Running, run_to_end};

/// Points of one message; their values are told together.
pub(super) const POINTS: u64 = 64;
/// The limit the gateway is given, the least it takes.
pub(super) const SIZE_LIMIT: u64 = 32_000_000;
/// A file that only takes room, in the store's folder and in those of its segments, so that segments are full and
/// dropped soon. It is in no state.
pub(super) const BALLAST: &str = "ballast";
const BALLAST_OF_STORE: u64 = 18_000_000;
const BALLAST_OF_SEGMENT: u64 = 3_400_000;
const PASSWORD: &str = "a long enough secret";

/// What point `k` says in message `n`: another number in every reading, which JSON carries and no packing makes shorter.
pub(super) fn value(n: u64, k: u64) -> f64 {
    let mixed = (n * POINTS + k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 21) as f64
}

/// Devices; each message is of one of them.
const DEVICES: u64 = 5;

/// As long as a name may be, and unlike the others: they, not the values, fill the blocks, so that few readings do.
fn point_name(k: u64) -> String {
    let mut dice = StdRng::seed_from_u64(k);
    (0..80).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789_-"[dice.random_range(0..38)])).collect()
}

/// A box with a card in it.
pub(super) struct Site {
    // The card goes out before its folder is removed.
    pub(super) card: Card,
    place: TempDir,
    config: PathBuf,
}

impl Site {
    pub(super) fn new() -> Self {
        let place = tempfile::tempdir().expect("a place");
        let mounted = place.path().join("card");
        fs::create_dir(&mounted).expect("made");
        let card = Card::insert(&mounted, 128 << 20).unwrap_or_else(|error| panic!("{error}"));
        let authority = Authority::new("Test").expect("an authority");
        let central = authority.issue_client("central").expect("a client");
        let gateway = authority.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("a server");
        fs::write(place.path().join("authority.pem"), authority.certificate()).expect("written");
        central.write(place.path(), "central").expect("written");
        gateway.write(place.path(), "gateway").expect("written");
        let config = configured(place.path(), &mounted.join("store"), "gateway.toml");
        Self { card, place, config }
    }

    fn store(&self) -> PathBuf {
        self.card.path().join("store")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Starts the gateway on another store, pulls all of it, and stops it.
    pub(super) fn started_on(&self, folder: &Path) -> Vec<Value> {
        let config = configured(self.place.path(), &folder.join("store"), "other.toml");
        let gateway = Running::gateway(&config);
        let peers = gateway.address("Peers may pull");
        for name in ["other.jsonl", "other.jsonl.cursor"] {
            let _ = fs::remove_file(self.file(name));
        }
        let lines = pull(self.place.path(), peers, "other.jsonl");
        gateway.stop(Signal::SIGTERM);
        lines.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Pulls what is new with the real command, and marks how far the peer was served. Gives the lines so far.
    fn pull(&self, peers: SocketAddr) -> String {
        let lines = pull(self.place.path(), peers, "pulled.jsonl");
        let last = lines.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
        let served = last.and_then(|line| last_number(&line)).unwrap_or(0);
        self.card.mark(format!("served {served}"));
        lines
    }
}

/// The last number a line stands for.
pub(super) fn last_number(line: &Value) -> Option<u64> {
    line["seq"].as_u64().or_else(|| line["gap"]["last"].as_u64())
}

/// Pulls with the real command into a file of its own and gives all its lines.
pub(super) fn pull(place: &Path, peers: SocketAddr, name: &str) -> String {
    let file = |name: &str| place.join(name).display().to_string();
    let url = format!("https://127.0.0.1:{}", peers.port());
    let (certificate, key, authority) = (file("central.pem"), file("central.key"), file("authority.pem"));
    let (cursor, output) = (file(&format!("{name}.cursor")), file(name));
    let done = run_to_end(&[
        "pull",
        &url,
        "--certificate",
        &certificate,
        "--key",
        &key,
        "--authority",
        &authority,
        "--cursor",
        &cursor,
        "--output",
        &output,
    ]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::read_to_string(&output).unwrap_or_default()
}

/// Writes a configuration whose store is elsewhere.
pub(super) fn configured(place: &Path, store: &Path, name: &str) -> PathBuf {
    let (place, store) = (place.display(), store.display());
    let point = |device: u64, k: u64| {
        let name = point_name(device * POINTS + k);
        format!("[[device.point]]\nname = \"{name}\"\nlabel = \"{k}\"\npointer = \"/{k}\"\nunit = \"1\"\n")
    };
    let device = |n: u64| {
        let points = (0..POINTS).map(|k| point(n, k)).collect::<String>();
        let head = format!("name = \"many-{n}\"\nlabel = \"{n}\"\ndriver = \"mqtt\"\ntopic = \"sensors/{n}\"");
        format!("[[device]]\n{head}\n{points}")
    };
    let devices = (0..DEVICES).map(device).collect::<String>();
    let text = format!(
        r#"
        [commune]
        name = "Montclar"
        [store]
        directory = "{store}"
        commit_within = "200 ms"
        size_limit = "32 MB"
        [clock]
        trust = "always"
        [gpio]
        backend = "simulated"
        [panel]
        listen = "127.0.0.1:0"
        [peers]
        listen = "127.0.0.1:0"
        certificate = "{place}/gateway.pem"
        key = "{place}/gateway.key"
        authority = "{place}/authority.pem"
        [[peers.peer]]
        name = "central"
        sharing = ["public", "internal"]
        [broker]
        listen = "127.0.0.1:0"
        [[broker.account]]
        name = "sensor"
        password = "{PASSWORD}"
        publish = ["sensors/#"]
        subscribe = ["clocher/#"]
        [[device]]
        name = "electricity/hall"
        label = "Linky"
        driver = "tic"
        port = "{place}/linky"
        framing = "8N1"
        every = "1 s"
        {devices}
        "#
    );
    let file = Path::new(&place.to_string()).join(name);
    fs::write(&file, text).expect("written");
    file
}

/// What one of our publishes was.
#[derive(Debug, Clone)]
enum Sent {
    Message(u64),
    Kept(u64),
}

/// A device that publishes as fast as it is acknowledged.
struct Sensor {
    client: AsyncClient,
    events: EventLoop,
    sent: VecDeque<Sent>,
    in_flight: BTreeMap<u16, Sent>,
    next: u64,
}

/// What the retained message on topic `sensors/kept/(n % 16)` says the `n`th time.
pub(super) fn kept_payload(n: u64) -> String {
    format!("kept {n} {}", "x".repeat((n * 37 % 500) as usize))
}

/// The topic of the `n`th retained message.
pub(super) fn kept_topic(n: u64) -> String {
    format!("sensors/kept/{}", n % 16)
}

impl Sensor {
    fn new(broker: SocketAddr, next: u64, at_once: u16) -> Self {
        let mut options = MqttOptions::new("sensor-1", broker.ip().to_string(), broker.port());
        options.set_credentials("sensor", PASSWORD).set_inflight(at_once).set_clean_session(false);
        let (client, events) = AsyncClient::new(options, usize::from(at_once));
        Self { client, events, sent: VecDeque::new(), in_flight: BTreeMap::new(), next }
    }

    /// Publishes until `enough` more messages were acknowledged; each is marked.
    async fn publish(&mut self, card: &Card, enough: usize) {
        let mut acknowledged = 0;
        while acknowledged < enough {
            self.send();
            match self.events.poll().await.expect("connected") {
                Event::Outgoing(Outgoing::Publish(packet)) => {
                    self.in_flight.insert(packet, self.sent.pop_front().expect("it was sent"));
                }
                Event::Incoming(Incoming::PubAck(ack)) => match self.in_flight.remove(&ack.pkid) {
                    Some(Sent::Message(n)) => {
                        card.mark(format!("ack {n}"));
                        acknowledged += 1;
                    }
                    Some(Sent::Kept(n)) => card.mark(format!("kept {n}")),
                    None => {}
                },
                _ => {}
            }
        }
    }

    fn send(&mut self) {
        loop {
            let n = self.next;
            let (topic, retain, payload, sent) = if n % 8 == 7 {
                (kept_topic(n / 8), true, kept_payload(n / 8), Sent::Kept(n / 8))
            } else {
                let values = (0..POINTS).map(|k| format!("\"{k}\":{}", value(n, k) as u64));
                let payload = format!("{{{}}}", values.collect::<Vec<_>>().join(","));
                (format!("sensors/{}", n % DEVICES), false, payload, Sent::Message(n))
            };
            if self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_err() {
                return;
            }
            self.sent.push_back(sent);
            self.next += 1;
        }
    }
}

/// A meter on a pseudo-terminal; its task ends with the runtime.
fn plug_meter(place: &Path) {
    let frame: &'static [u8] = include_bytes!("../../fixtures/tic/frames/enedis_tic2ws_ticFrameStandard_00.bin");
    let (mut meter, near) = tokio_serial::SerialStream::pair().expect("a pty");
    let name = near.name().expect("named");
    let held = fs::OpenOptions::new().read(true).write(true).open(&name).expect("held");
    let link = place.join("linky");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(name, &link).expect("linked");
    tokio::spawn(async move {
        let _held = (held, near);
        loop {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut meter, frame).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
}

/// Whether the oldest segment is gone.
fn has_dropped(store: &Path) -> bool {
    let names = fs::read_dir(store.join("segments")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.min().is_some_and(|name| name.to_str() != Some(&format!("{:020}", 1)))
}

/// Puts ballast in a folder that has none.
fn load(folder: &Path, size: u64) {
    let path = folder.join(BALLAST);
    if !path.exists() {
        // A folder just dropped is as good.
        let _ = fs::File::create(path).and_then(|file| file.set_len(size));
    }
}

fn load_segments(store: &Path) {
    let segments = fs::read_dir(store.join("segments")).into_iter().flatten().flatten();
    segments.for_each(|segment| load(&segment.path(), BALLAST_OF_SEGMENT));
}

/// Records the gateway until it has dropped its oldest segment, and longer. The last mark is what a peer pulled.
pub(super) async fn record() -> Arc<[Operation]> {
    let site = Site::new();
    site.card.record();
    fs::create_dir(site.store()).expect("made");
    load(&site.store(), BALLAST_OF_STORE);
    fs::File::open(site.store()).and_then(|folder| folder.sync_all()).expect("synced");
    fs::File::open(site.card.path()).and_then(|folder| folder.sync_all()).expect("synced");
    site.card.mark("start");

    let began = Instant::now();
    let mut next = 0;
    for part in 0..3 {
        let gateway = Running::gateway(&site.config);
        plug_meter(site.place.path());
        let (broker, peers) = (gateway.address("Broker ready"), gateway.address("Peers may pull"));
        // First few readings a commit, later many.
        let at_once = if part < 2 { 6 } else { 20 };
        let mut sensor = Sensor::new(broker, next, at_once);
        let mut rounds = 0;
        loop {
            tokio::time::timeout(Duration::from_secs(60), sensor.publish(&site.card, 5 * usize::from(at_once)))
                .await
                .unwrap_or_else(|_| panic!("no acknowledgements; heard:\n{}", gateway.said()));
            tokio::task::block_in_place(|| site.pull(peers));
            load_segments(&site.store());
            rounds += 1;
            let enough = if part < 2 { rounds >= 3 } else { has_dropped(&site.store()) };
            if enough {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "nothing was dropped; heard:\n{}", gateway.said());
        }
        sensor.publish(&site.card, 10).await;
        next = sensor.next;
        if part == 0 {
            gateway.kill();
        } else if part == 1 {
            gateway.stop(Signal::SIGTERM);
        } else {
            let lines = tokio::task::block_in_place(|| site.pull(peers));
            gateway.stop(Signal::SIGTERM);
            site.card.mark(format!("sent {next}"));
            site.card.mark(format!("pulled\n{lines}"));
        }
    }
    eprintln!(
        "recorded {} operations of {} messages in {:?}: {:?}",
        site.card.recorded().len(),
        next,
        began.elapsed(),
        site.card.counts(),
    );
    site.card.stop_recording().into()
}
