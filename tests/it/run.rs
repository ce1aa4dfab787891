//! `clocher run`, `check`, `drivers`, `replay`, `pull` and `demo` as their users meet them: the real binary, real
//! pseudo-terminals, a real MQTT client, real certificates.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use clocher::tls::Authority;
use nix::sys::signal::Signal;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, Outgoing, QoS};
use serde_json::Value;
use tempfile::TempDir;
use tokio_serial::SerialPort;

use crate::process::{Running, clocher, run_to_end};

/// A hall with an MQTT counter, a peer, and nothing else; every port is 0.
pub(crate) struct Hall {
    place: TempDir,
}

impl Hall {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().expect("a place");
        let authority = Authority::new("Test").expect("an authority");
        let central = authority.issue_client("central").expect("a client");
        let gateway = authority.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("a server");
        fs::write(place.path().join("authority.pem"), authority.certificate()).expect("written");
        central.write(place.path(), "central").expect("written");
        gateway.write(place.path(), "gateway").expect("written");
        Self { place }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Writes the configuration, with `devices` at its end.
    fn configured(&self, devices: &str) -> PathBuf {
        let place = self.place.path().display();
        let text = format!(
            r#"
            [commune]
            name = "Montclar"
            [store]
            directory = "{place}/store"
            commit_within = "500 ms"
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
            password = "a long enough secret"
            publish = ["sensors/#"]
            subscribe = ["clocher/#"]
            {devices}
            "#
        );
        let file = self.file("gateway.toml");
        fs::write(&file, text).expect("written");
        file
    }

    pub(crate) fn counting(&self) -> PathBuf {
        self.configured(
            r#"
            [[device]]
            name = "count/hall"
            label = "Counter"
            driver = "mqtt"
            topic = "sensors/count"
            [[device.point]]
            name = "value"
            label = "Value"
            pointer = ""
            unit = "1"
            kind = "counter"
            decimals = 0
            "#,
        )
    }

    /// Pulls everything there is with the real command.
    pub(crate) fn pull(&self, peers: SocketAddr) -> Vec<Value> {
        let done = self.try_to_pull(peers);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        lines_of(&self.file("pulled.jsonl"))
    }

    fn try_to_pull(&self, peers: SocketAddr) -> Output {
        let file = |name| self.file(name).display().to_string();
        let (certificate, key, authority) = (file("central.pem"), file("central.key"), file("authority.pem"));
        let (cursor, output) = (file("cursor"), file("pulled.jsonl"));
        let url = format!("https://127.0.0.1:{}", peers.port());
        run_to_end(&[
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
        ])
    }
}

fn lines_of(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("pulled");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

pub(crate) fn sequence(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {line}"))).collect()
}

/// Publishes numbers from `first` at QoS 1 as fast as they are acknowledged, until `enough` acknowledgements have
/// come; gives the acknowledged numbers and the next number never sent.
pub(crate) async fn publish(broker: SocketAddr, first: u64, enough: usize) -> (BTreeSet<u64>, u64) {
    let mut options = MqttOptions::new("sensor-1", broker.ip().to_string(), broker.port());
    options.set_credentials("sensor", "a long enough secret").set_inflight(40);
    let (client, mut events) = AsyncClient::new(options, 40);
    let (mut next, mut sent, mut in_flight, mut acknowledged) =
        (first, VecDeque::new(), BTreeMap::new(), BTreeSet::new());
    while acknowledged.len() < enough {
        while client.try_publish("sensors/count", QoS::AtLeastOnce, false, next.to_string()).is_ok() {
            sent.push_back(next);
            next += 1;
        }
        match events.poll().await.expect("connected") {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                in_flight.insert(packet, sent.pop_front().expect("it was sent"));
            }
            Event::Incoming(Incoming::PubAck(ack)) => {
                acknowledged.extend(in_flight.remove(&ack.pkid));
            }
            _ => {}
        }
    }
    (acknowledged, next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn twenty_kills_in_a_row_under_load_lose_nothing_that_was_acknowledged() {
    let hall = Hall::new();
    let config = hall.counting();
    let (mut acknowledged, mut next) = (BTreeSet::new(), 0);
    for round in 0..20 {
        let gateway = Running::gateway(&config);
        let broker = gateway.address("Broker ready");
        let (of_round, after) = tokio::time::timeout(Duration::from_secs(60), publish(broker, next, 50 + round * 7))
            .await
            .unwrap_or_else(|_| panic!("no acknowledgements; heard:\n{}", gateway.said()));
        acknowledged.extend(of_round);
        next = after;
        gateway.kill();
    }

    let gateway = Running::gateway(&config);
    let lines = tokio::task::block_in_place(|| hall.pull(gateway.address("Peers may pull")));
    let stored: BTreeSet<u64> = lines.iter().filter_map(|line| line["result"].as_f64()).map(|n| n as u64).collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    let expected: Vec<u64> = (1..=lines.len() as u64).collect();
    assert_eq!(sequence(&lines), expected, "a number was skipped or used twice");
}

#[test]
fn a_stop_is_orderly_and_within_ten_seconds() {
    let hall = Hall::new();
    let gateway = Running::gateway(&hall.counting());
    gateway.line("Panel ready");
    let (took, well, said) = gateway.stop(Signal::SIGTERM);
    assert!(well, "{said}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(!said.contains("did not stop"), "{said}");
}

#[test]
fn a_configuration_with_seven_faults_tells_all_seven_with_line_and_caret() {
    let place = tempfile::tempdir().expect("a place");
    let file = place.path().join("gateway.toml");
    let text = r#"[commune]
name = "Montclar"
time_zone = "Europe/Carcasonne"
[store]
comit_within = "30 s"
size_limit = "2 GBB"
[broker]
listen = "0.0.0.0:1883"
[[device]]
name = "Électricité"
driver = "tic"
port = "/dev/ttyAMA0"
[[device]]
name = "water/hall"
driver = "pulze"
[[device]]
name = "heating/pump"
driver = "modbus"
model = "sdm121"
port = "/dev/ttyUSB0"
"#;
    fs::write(&file, text).expect("written");
    let path = file.display().to_string();
    let done = run_to_end(&["check", "--config", &path]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(64), "{said}");
    for line in [3, 5, 6, 8, 10, 15, 19] {
        assert!(said.contains(&format!("gateway.toml:{line}:")), "no fault at line {line}:\n{said}");
    }
    assert!(said.contains("7 faults") && said.contains('^'), "{said}");
}

#[test]
fn a_pull_with_a_foreign_certificate_ends_at_once_and_says_so() {
    let hall = Hall::new();
    let gateway = Running::gateway(&hall.counting());
    let peers = gateway.address("Peers may pull");
    let foreign = Authority::new("Elsewhere").expect("an authority").issue_client("central").expect("a client");
    foreign.write(hall.place.path(), "central").expect("written");
    let done = hall.try_to_pull(peers);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("the certificates do not suit"), "{said}");
}

#[test]
fn a_device_may_not_take_the_name_of_the_gateway_s_own_topics() {
    let hall = Hall::new();
    let config = hall.configured("[[device]]\nname = \"conditions/door\"\ndriver = \"contact\"\npin = 4\n");
    let done = run_to_end(&["check", "--config", &config.display().to_string()]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(64) && said.contains("the gateway's own"), "{said}");
}

#[test]
fn the_taught_configuration_is_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let taught: Vec<PathBuf> = fs::read_dir(&root)
        .expect("config/")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml") && !path.ends_with("demo.toml"))
        .collect();
    assert!(taught.len() >= 3, "gateway.toml and one example per kind of site");
    for file in taught {
        let done = run_to_end(&["check", "--config", &file.display().to_string()]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_faulty_device_does_not_keep_the_panel_from_opening() {
    let hall = Hall::new();
    let config = hall.configured("[[device]]\nname = \"water/hall\"\ndriver = \"pulze\"\n");
    let gateway = Running::gateway(&config);
    gateway.line("Panel ready");
    gateway.line("configuration-fault");
    gateway.line("Peers may pull");
}

#[test]
fn a_driver_is_described_with_every_option_and_an_unknown_one_is_named() {
    let listed = run_to_end(&["drivers"]);
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["tic", "modbus", "pulse", "contact", "mqtt"] {
        assert!(names.contains(name), "{names}");
        let described = run_to_end(&["drivers", name]);
        assert!(described.status.success());
    }
    let unknown = run_to_end(&["drivers", "tik"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("\"tik\""));
}

#[test]
fn a_line_closed_under_the_running_gateway_is_told_and_heard_again_once_it_is_back() {
    let hall = Hall::new();
    let path = hall.file("linky");
    let config = hall.configured(&format!(
        "[[device]]\nname = \"electricity/hall\"\nlabel = \"Linky\"\ndriver = \"tic\"\nport = \"{}\"\nframing = \"8N1\"\nevery = \"1 s\"\n",
        path.display()
    ));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let frame: &'static [u8] = include_bytes!("../fixtures/tic/frames/enedis_tic2ws_ticFrameStandard_00.bin");
    let plug = || {
        let _guard = runtime.enter();
        let (mut meter, near) = tokio_serial::SerialStream::pair().expect("a pty");
        let name = near.name().expect("named");
        // Held without a lock, so that the line does not hang up before the gateway opens it.
        let held = fs::OpenOptions::new().read(true).write(true).open(&name).expect("held");
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(name, &path).expect("linked");
        runtime.spawn(async move {
            let _held = held;
            loop {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut meter, frame).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
    };
    // The gateway starts first: a child started later would inherit, and hold open, the far end of the line.
    let gateway = Running::gateway(&config);
    gateway.line("Condition raised code=port-unplugged");
    let speaking = plug();
    gateway.line("Condition closed code=port-unplugged");
    let peers = gateway.address("Peers may pull");
    let until_pulled = |more_than: usize| {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let lines = hall.pull(peers);
            if lines.len() > more_than {
                return lines.len();
            }
            assert!(std::time::Instant::now() < until, "nothing new; heard:\n{}", gateway.said());
        }
    };
    let before = until_pulled(0);
    speaking.abort();
    fs::remove_file(&path).expect("unplugged");
    gateway.nth_line("Condition raised code=port-unplugged", 2);
    let _speaking = plug();
    gateway.nth_line("Condition closed code=port-unplugged", 2);
    let meanwhile = hall.pull(peers).len().max(before);
    until_pulled(meanwhile);
    let lines = hall.pull(peers);
    assert_eq!(sequence(&lines), (1..=lines.len() as u64).collect::<Vec<_>>());
}

#[test]
fn the_demonstration_pulls_every_reading_across_an_outage_and_stops_cleanly() {
    let place = tempfile::tempdir().expect("a place");
    let directory = place.path().join("demo");
    let mut command = clocher();
    command.args(["demo", "--port", "0", "--link-up", "5", "--link-down", "5", "--directory"]).arg(&directory);
    let demo = Running::start(command);
    demo.line("https://127.0.0.1:");
    demo.line("Code d'accueil");
    demo.nth_line("The link dropped", 2);
    let (took, well, said) = demo.stop(Signal::SIGINT);
    assert!(well && took < Duration::from_secs(12), "{took:?}: {said}");
    let lines = lines_of(&directory.join("central.jsonl"));
    assert_eq!(sequence(&lines), (1..=lines.len() as u64).collect::<Vec<_>>());
    assert!(lines.len() > 50, "only {} readings in fifteen seconds", lines.len());
    let points: BTreeSet<&str> = lines.iter().filter_map(|line| line["point"].as_str()).collect();
    for family in ["electricity/hall/", "heating/pump/", "water/hall/", "air/hall/"] {
        assert!(points.iter().any(|point| point.starts_with(family)), "nothing of {family} in {points:?}");
    }
}

#[test]
fn a_demonstration_told_twice_to_stop_leaves_nothing_behind() {
    let place = tempfile::tempdir().expect("a place");
    let mut command = clocher();
    command.args(["demo", "--port", "0"]).env("TMPDIR", place.path());
    let demo = Running::start(command);
    demo.line("Ctrl-C pour arrêter");
    demo.signal(Signal::SIGINT);
    demo.line("On range la salle");
    let (_, _, said) = demo.stop(Signal::SIGINT);
    let left: Vec<_> = fs::read_dir(place.path()).expect("a place").collect();
    assert!(left.is_empty(), "{left:?}: {said}");
}

#[test]
fn the_code_of_a_gateway_without_a_terminal_is_in_a_file_closed_to_others_and_not_in_its_log() {
    use std::os::unix::fs::PermissionsExt;
    let hall = Hall::new();
    let gateway = Running::gateway(&hall.configured(""));
    gateway.line("the code is in a file");
    let file = hall.file("store/claim-code");
    let code = fs::read_to_string(&file).expect("the code");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let (_, _, said) = gateway.stop(Signal::SIGTERM);
    assert!(code.trim().len() >= 12 && !said.contains(code.trim()), "{said}");
}
