//! Slow, greedy and hostile peers against the real binary: its memory stays where it was, measuring goes on, and the
//! other central servers are served meanwhile. Figures are printed (`--nocapture`), progress is asserted.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use clocher::{
    buffer::{self, Buffer},
    clock::{Clock, HeldTime, Source, Stamp},
    condition::Board,
    reading::{Batch, Commit, Quality, Reading},
    tls::{self, Identity},
};
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    process::Running,
    village::{Village, rows},
};

/// What all of them together may cost, in bytes of resident memory.
const MAY_COST: u64 = 20_000_000;
/// Readings in the store before it begins: pages that are worth not being read.
const STORED: u64 = 40_000;
/// Messages that must come through during each attack.
const BEATS: u64 = 8;

/// A device that publishes one message after the other at QoS 1: each is on the card before the next is sent.
struct Metronome {
    beats: watch::Receiver<(u64, Duration)>,
    _beating: AbortOnDropHandle<()>,
}

impl Metronome {
    fn start(broker: SocketAddr) -> Self {
        let (told, beats) = watch::channel((0, Duration::ZERO));
        let beating = tokio::spawn(async move {
            let mut options = MqttOptions::new("metronome", broker.ip().to_string(), broker.port());
            options.set_credentials("sensor", "a long enough secret");
            let (client, mut events) = AsyncClient::new(options, 4);
            loop {
                let beat = told.borrow().0.to_string();
                client.publish("sensors/count", QoS::AtLeastOnce, false, beat).await.expect("there is room for one");
                let sent = Instant::now();
                loop {
                    match events.poll().await {
                        Ok(Event::Incoming(Incoming::PubAck(_))) => break,
                        Ok(_) => {}
                        // Who waits for the next beat will say so.
                        Err(_) => return,
                    }
                }
                told.send_modify(|(count, slowest)| (*count, *slowest) = (*count + 1, sent.elapsed().max(*slowest)));
            }
        });
        Self { beats, _beating: AbortOnDropHandle::new(beating) }
    }

    /// Waits until as many more messages are on the card as are asked for.
    async fn goes_on(&mut self, what: &str) {
        let until = self.beats.borrow().0 + BEATS;
        let come = tokio::time::timeout(Duration::from_secs(60), self.beats.wait_for(|(count, _)| *count >= until));
        come.await.unwrap_or_else(|_| panic!("measuring stands still: {what}")).expect("the metronome beats");
    }

    fn slowest(&self) -> Duration {
        self.beats.borrow().1
    }
}

struct Siege<'a> {
    village: &'a Village,
    gateway: Running,
    peers: SocketAddr,
    metronome: Metronome,
    before: u64,
    most: u64,
    begun: Instant,
}

impl Siege<'_> {
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kB") * 1_024
    }

    /// An attack is under way: messages still come through, another central server is served, memory is noted.
    async fn stands(&mut self, what: &str) {
        self.metronome.goes_on(what).await;
        let village = self.village;
        let pulled = tokio::task::block_in_place(|| village.pull_all("good", self.peers));
        let numbers: Vec<_> = pulled.iter().map(|(seq, ..)| *seq).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{what}");
        let resident = self.resident();
        self.most = self.most.max(resident);
        eprintln!(
            "{:.1?} {what}: {} kB more, slowest message {:?}",
            self.begun.elapsed(),
            resident.saturating_sub(self.before) / 1_000,
            self.metronome.slowest()
        );
    }

    async fn tcp(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::from(from), 0).into()).expect("bound");
        socket.connect(self.peers).await.expect("connected")
    }

    fn connector(&self, peer: Option<&str>) -> TlsConnector {
        let identity = peer.map(|peer| {
            let file = |kind| self.village.file(&format!("{peer}.{kind}"));
            Identity::load(&file("pem"), &file("key")).expect("an identity")
        });
        tls::client(identity.as_ref(), &self.village.file("authority.pem")).expect("a configuration").into()
    }

    /// As the greedy peer, from the address the good one uses too.
    async fn greedy(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        self.connector(Some("greedy")).connect(name, self.tcp([127, 0, 0, 1]).await).await
    }

    /// Connections of the greedy peer that have each sent `request` and read nothing.
    async fn greedy_crowd(&self, count: usize, request: &[u8]) -> Vec<TlsStream<TcpStream>> {
        let mut crowd = Vec::new();
        for _ in 0..count {
            if let Ok(mut stream) = self.greedy().await
                && stream.write_all(request).await.is_ok()
            {
                let _ = stream.flush().await;
                crowd.push(stream);
            }
        }
        crowd
    }

    /// What the gateway answers to `request`, to the end.
    async fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.greedy().await.expect("a peer of the configuration");
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A store that has something to give.
async fn fill(village: &Village) {
    let settings = buffer::Settings {
        directory: village.file("store"),
        size_limit: 64_000_000,
        commit_within: Duration::from_secs(60),
    };
    let opened = Buffer::open(&settings).expect("a store");
    let clock = Clock::new(opened.boot, HeldTime::at(1_780_315_200_000, Source::Ntp), []);
    opened.buffer.start(clock.clone(), Board::new(clock));
    let point: clocher::reading::PointId = "count/hall/value".parse().expect("a name");
    for thousand in 0..STORED / 1_000 {
        let readings = (0..1_000).map(|n| {
            let number = thousand * 1_000 + n;
            let stamp = Stamp { boot: opened.boot, mono_ms: number * 10_000 };
            // Values that do not pack well.
            let value = Some(f64::from(crc32fast::hash(&number.to_le_bytes())));
            Reading { point: point.clone(), stamp, value, quality: Quality::Good }
        });
        opened.buffer.append(Batch { readings: readings.collect(), commit: Commit::Grouped, accepted: None }).await;
    }
    opened.buffer.close().await;
}

/// Sockets this process may hold, and a margin.
fn sockets() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux");
    let soft =
        limits.lines().find(|line| line.starts_with("Max open files")).and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse::<usize>().ok()).map_or(700, |soft| soft.saturating_sub(300)).min(2_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn greedy_and_hostile_peers_cost_bounded_memory_and_never_stop_measuring() {
    let village = Village::new(&["good", "greedy"]);
    fill(&village).await;
    let (gateway, peers, broker) = tokio::task::block_in_place(|| {
        let gateway = Running::gateway(&village.config());
        let (peers, broker) = (gateway.address("Peers may pull"), gateway.address("Broker ready"));
        (gateway, peers, broker)
    });
    let metronome = Metronome::start(broker);
    let mut siege = Siege { village: &village, gateway, peers, metronome, before: 0, most: 0, begun: Instant::now() };
    // As on any day: the backlog is pulled, and the greedy one has had its pages too.
    siege.stands("before").await;
    for _ in 0..4 {
        siege.answer(b"GET /v1/observations?limit=20000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    }
    siege.before = siege.resident();

    let mut silent = Vec::new();
    for n in 0..sockets() {
        let host = u8::try_from(1 + n % 200).expect("small");
        silent.push(siege.tcp([127, 0, 2, host]).await);
    }
    siege.stands("thousands of connections that say nothing").await;

    let mut halves = Vec::new();
    for n in 0..300_u16 {
        let mut stream = siege.tcp([127, 0, 3, u8::try_from(1 + n % 100).expect("small")]).await;
        // The head of a record that announces 16 kB of handshake, and a beginning of it.
        let _ = stream.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]).await;
        let _ = stream.write_all(&[7; 9_000]).await;
        halves.push(stream);
    }
    siege.stands("handshakes never ended").await;

    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    for _ in 0..100 {
        let stream = siege.tcp([127, 0, 4, 1]).await;
        if let Ok(mut stream) = siege.connector(None).connect(name.clone(), stream).await {
            let _ = stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "nothing is said to who shows no certificate");
        }
    }
    siege.stands("nobody's certificate").await;

    let page = b"GET /v1/observations?limit=20000 HTTP/1.1\r\nhost: x\r\naccept-encoding: identity\r\n\r\n";
    let never_reading = siege.greedy_crowd(40, page).await;
    siege.stands("pages asked for and never read").await;
    let pipelined = siege.greedy_crowd(10, &page.repeat(150)).await;
    siege.stands("a hundred and fifty requests at once on each connection").await;

    let polls = siege.greedy_crowd(40, b"GET /v1/observations?limit=1&wait=60 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    siege.stands("long polls, more than there may be").await;

    let tiny = (0..6).map(|_| async {
        let request = "GET /v1/observations?from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z&limit=1 HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut stream = siege.greedy().await?;
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let reading = async { while matches!(reader.read(&mut [0; 4_096]).await, Ok(1..)) {} };
        let writing = async { while writer.write_all(request.as_bytes()).await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), futures_util::future::join(reading, writing)).await;
        Ok::<_, std::io::Error>(())
    });
    futures_util::future::join_all(tiny).await;
    siege.stands("years in pages of one reading").await;

    let long = format!("GET /v1/observations?after={} HTTP/1.1\r\nhost: x\r\n\r\n", "A".repeat(200_000));
    let headers = format!("GET /v1/health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(4_000));
    let many =
        format!("GET /v1/observations?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a=b&".repeat(3_000));
    let odd: [(&str, &str); 8] = [
        (&long, "HTTP/1.1 4"),
        (&headers, "HTTP/1.1 4"),
        (&many, "HTTP/1.1 400"),
        ("HEAD /v1/points HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "HTTP/1.1 4"),
        ("OPTIONS /v1/points HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "HTTP/1.1 405"),
        (
            "GET /v1/observations?after=__________________________8 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 422",
        ),
        (
            // More than the most counts as the most.
            "GET /v1/observations?limit=99999999999999999999 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200",
        ),
    ];
    for (request, begins) in odd {
        let answer = siege.answer(request.as_bytes()).await;
        // A request cut off while it was still being sent may take the answer with it.
        assert!(answer.starts_with(begins) || (request.len() > 20_000 && answer.is_empty()), "{answer:.300}");
    }
    let mut body = b"GET /v1/observations?limit=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: gzip\r\ncontent-length: 50000000\r\n\r\n".to_vec();
    body.extend(vec![0x1f; 5_000_000]);
    siege.answer(&body).await;
    siege.stands("odd requests, and a body nobody asked for").await;

    let mut rekeyed = siege.greedy().await.expect("a peer of the configuration");
    for _ in 0..20_000 {
        if rekeyed.get_mut().1.refresh_traffic_keys().is_err() || rekeyed.flush().await.is_err() {
            break;
        }
    }
    siege.stands("new keys asked for again and again").await;

    let drips: Vec<_> = siege.greedy_crowd(8, b"GET /v1/health HTTP/1.1\r\nx: ").await;
    siege.stands("heads that drip").await;

    let slowest = siege.metronome.slowest();
    eprintln!("at most {} kB more; slowest message {slowest:?}", siege.most.saturating_sub(siege.before) / 1_000);
    assert!(
        siege.most <= siege.before + MAY_COST,
        "{} kB before, {} kB at most",
        siege.before / 1_000,
        siege.most / 1_000
    );
    drop((silent, halves, never_reading, pipelined, polls, drips, rekeyed));

    // All that was acknowledged to the device is there, in order, in the good one's file.
    let beats = siege.metronome.beats.borrow().0;
    tokio::task::block_in_place(|| village.pull_all("good", peers));
    let values: BTreeSet<u64> = rows(&village.output("good"))
        .iter()
        .skip(usize::try_from(STORED).expect("small"))
        .map(|(.., value)| *value as u64)
        .collect();
    assert!((0..beats).all(|beat| values.contains(&beat)), "{beats} messages");
    let (_, well, said) = tokio::task::block_in_place(|| siege.gateway.stop(nix::sys::signal::Signal::SIGTERM));
    assert!(well && !said.contains("Unit fell") && !said.contains("panicked"), "{said}");
}
