//! A gateway with several central servers and an MQTT counter, for what is tried with real processes: its files, its
//! commands, and a device that counts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clocher::tls::Authority;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, Outgoing, QoS};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::process::clocher;

/// Where everything of it is; every port is 0.
pub(crate) struct Village {
    place: TempDir,
}

impl Village {
    /// A certificate for each central server, and one for the gateway under every name it is called by.
    pub(crate) fn new(peers: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a place");
        let authority = Authority::new("Test").expect("an authority");
        let names = ["127.0.0.1", "localhost", "10.77.2.2"].map(ToOwned::to_owned);
        fs::write(place.path().join("authority.pem"), authority.certificate()).expect("written");
        authority.issue_server(&names).expect("a server").write(place.path(), "gateway").expect("written");
        for peer in peers {
            authority.issue_client(peer).expect("a client").write(place.path(), peer).expect("written");
        }
        let village = Self { place };
        village.configure(peers, "127.0.0.1");
        village
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.file("gateway.toml")
    }

    /// Writes the gateway's file, its listeners at `address`.
    pub(crate) fn configure(&self, peers: &[&str], address: &str) {
        let place = self.place.path().display();
        let blocks: String =
            peers.iter().map(|peer| format!("[[peers.peer]]\nname = \"{peer}\"\nsharing = [\"internal\"]\n")).collect();
        let text = format!(
            r#"
            [commune]
            name = "Montclar"
            [store]
            directory = "{place}/store"
            commit_within = "200 ms"
            [clock]
            trust = "always"
            [gpio]
            backend = "simulated"
            [panel]
            listen = "127.0.0.1:0"
            [peers]
            listen = "{address}:0"
            certificate = "{place}/gateway.pem"
            key = "{place}/gateway.key"
            authority = "{place}/authority.pem"
            {blocks}
            [broker]
            listen = "127.0.0.1:0"
            [[broker.account]]
            name = "sensor"
            password = "a long enough secret"
            publish = ["sensors/#"]
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
            "#
        );
        fs::write(self.config(), text).expect("written");
    }

    pub(crate) fn output(&self, peer: &str) -> PathBuf {
        self.file(&format!("{peer}.jsonl"))
    }

    /// `clocher pull` as this peer, from this gateway, through the command it may be wrapped in.
    pub(crate) fn pull(&self, mut command: Command, peer: &str, gateway: SocketAddr) -> Command {
        let file = |kind: &str| self.file(&format!("{peer}.{kind}"));
        command.arg("pull").arg(format!("https://{gateway}"));
        command.arg("--certificate").arg(file("pem")).arg("--key").arg(file("key"));
        command.arg("--authority").arg(self.file("authority.pem")).arg("--cursor").arg(file("cursor"));
        command.arg("--output").arg(self.output(peer));
        command
    }

    /// Pulls what there is, to its end.
    pub(crate) fn pull_all(&self, peer: &str, gateway: SocketAddr) -> Vec<Told> {
        let done = self.pull(clocher(), peer, gateway).output().expect("the binary starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        rows(&self.output(peer))
    }
}

/// Publishes that wait for their acknowledgement: with a commit each 200 ms, about a hundred readings a second.
const UNDER_WAY: u16 = 20;

/// A row of a file: number, point, value.
pub(crate) type Told = (u64, String, f64);

/// The rows of a file in its order, all lines of which must be rows.
pub(crate) fn rows(file: &Path) -> Vec<Told> {
    let text = fs::read_to_string(file).expect("pulled");
    text.lines().map(|line| row(line).unwrap_or_else(|| panic!("no row: {line}"))).collect()
}

fn row(line: &str) -> Option<Told> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some((value["seq"].as_u64()?, value["point"].as_str()?.to_owned(), value["result"].as_f64()?))
}

/// Counts over MQTT at QoS 1, a few under way at once, with whatever broker there is, until told to stop and all is
/// acknowledged. Gives the acknowledged numbers.
pub(crate) async fn count_on(
    mut broker: watch::Receiver<Option<SocketAddr>>,
    stop: watch::Receiver<bool>,
) -> BTreeSet<u64> {
    let (mut next, mut acknowledged) = (0, BTreeSet::new());
    while !*stop.borrow() || acknowledged.is_empty() {
        let Some(address) = *broker.borrow_and_update() else {
            if broker.changed().await.is_err() {
                break;
            }
            continue;
        };
        next = count_at(address, next, &stop, &mut acknowledged).await;
        // The broker is gone, or soon will be: another one is told of.
        if !*stop.borrow() && tokio::time::timeout(Duration::from_secs(60), broker.changed()).await.is_err() {
            panic!("the broker left and no other came");
        }
    }
    acknowledged
}

/// Counts with one broker until it leaves; gives the next number never sent.
async fn count_at(
    broker: SocketAddr,
    first: u64,
    stop: &watch::Receiver<bool>,
    acknowledged: &mut BTreeSet<u64>,
) -> u64 {
    let mut options = MqttOptions::new("sensor-1", broker.ip().to_string(), broker.port());
    options.set_credentials("sensor", "a long enough secret").set_inflight(UNDER_WAY);
    let (client, mut events) = AsyncClient::new(options, usize::from(UNDER_WAY));
    let (mut next, mut sent, mut in_flight) = (first, VecDeque::new(), BTreeMap::new());
    loop {
        while !*stop.borrow() && client.try_publish("sensors/count", QoS::AtLeastOnce, false, next.to_string()).is_ok()
        {
            sent.push_back(next);
            next += 1;
        }
        if *stop.borrow() && sent.is_empty() && in_flight.is_empty() {
            return next;
        }
        match events.poll().await {
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => {
                in_flight.insert(packet, sent.pop_front().expect("it was sent"));
            }
            Ok(Event::Incoming(Incoming::PubAck(ack))) => acknowledged.extend(in_flight.remove(&ack.pkid)),
            Ok(_) => {}
            Err(_) => return next,
        }
    }
}
