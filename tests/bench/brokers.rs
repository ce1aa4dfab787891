//! The broker beside mosquitto, spoken to by the same small client: messages a second with a bounded number under way,
//! how long a message takes at a steady pace, and memory while a subscriber reads nothing.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};

use crate::{
    Ask,
    gateway::{self, ACCOUNT, PASSWORD, Running},
    table::{Runs, Table},
};

/// Messages sent and not yet received by the subscriber, at most.
const UNDER_WAY: u64 = 64;
const MESSAGES: u64 = 100_000;
const PAYLOAD: usize = 100;
/// The pace at which the time of a message is measured.
const PACE: Duration = Duration::from_millis(2);
const PACED: u64 = 2_500;

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let Some(mosquitto) = &ask.mosquitto else { return Ok(()) };
    let place = ask.scratch.join("broker");
    gateway::configure(&place)?;
    let ours = Running::start(&ask.clocher, &place)?;
    let theirs = Mosquitto::start(mosquitto, &place)?;
    for qos in [0, 1] {
        let [mut rate, mut their_rate] = [Runs::default(), Runs::default()];
        let [mut times, mut their_times] = [Runs::default(), Runs::default()];
        for _ in 0..ask.runs {
            rate.push(messages_a_second(ours.broker, qos).await?);
            their_rate.push(messages_a_second(theirs.address, qos).await?);
            milliseconds(ours.broker, qos, &mut times).await?;
            milliseconds(theirs.address, qos, &mut their_times).await?;
        }
        let what = format!("broker, messages a second, QoS {qos}, {PAYLOAD} bytes");
        table.more(&what, "", &rate, "mosquitto", &their_rate, "≥ mosquitto");
        let told = |times: &Runs| {
            let [half, most, all] = [0.5, 0.99, 1.0].map(|share| crate::table::number(times.at(share)));
            format!("{half} ms, {most} ms, {all} ms")
        };
        let ratio = format!("{} times as long", crate::table::number(times.at(0.99) / their_times.at(0.99)));
        let what = format!("broker, time of a message at 500 a second, QoS {qos}: median, 99 %, longest");
        table.line(&what, told(&times), format!("mosquitto: {}", told(&their_times)), ratio, "≤ mosquitto");
    }
    let (before, peak) = slow_subscriber(ours.broker, || Ok(ours.memory()?.resident)).await?;
    let (their_before, their_peak) =
        slow_subscriber(theirs.address, || Ok(gateway::memory_of(theirs.child.id())?.resident)).await?;
    let told = |before: f64, peak: f64| format!("from {:.1} to {:.1} MiB", before / 1048576.0, peak / 1048576.0);
    table.line(
        "broker, resident memory while a subscriber takes nothing of 100 MB",
        told(before, peak),
        format!("mosquitto: {}", told(their_before, their_peak)),
        String::new(),
        "bounded",
    );
    ours.kill()
}

/// One publisher, one subscriber.
async fn messages_a_second(broker: SocketAddr, qos: u8) -> anyhow::Result<f64> {
    let (mut heard, said) = subscribe(broker, "rate", qos).await?;
    let (received, more) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let publisher = tokio::spawn(publish_within(broker, qos, Arc::clone(&received), Arc::clone(&more)));
    let began = Instant::now();
    let mut acks = Acks::new(said);
    while received.load(Ordering::Relaxed) < MESSAGES {
        let count = heard.publishes(|packet| acks.note(packet)).await?;
        acks.send().await?;
        received.fetch_add(count, Ordering::Relaxed);
        more.notify_one();
    }
    let rate = MESSAGES as f64 / began.elapsed().as_secs_f64();
    publisher.await??;
    Ok(rate)
}

async fn publish_within(
    broker: SocketAddr,
    qos: u8,
    received: Arc<AtomicU64>,
    more: Arc<Notify>,
) -> anyhow::Result<()> {
    let (heard, mut said) = connect(broker, "publisher").await?;
    let draining = tokio::spawn(drain(heard));
    let (mut sent, mut out) = (0, Vec::new());
    while sent < MESSAGES {
        while sent < MESSAGES && sent < received.load(Ordering::Relaxed) + UNDER_WAY {
            publish(&mut out, qos, sent, &[b'x'; PAYLOAD]);
            sent += 1;
        }
        if out.is_empty() {
            // Whoever counts tells of every batch; one told in between is kept.
            more.notified().await;
        } else {
            said.write_all(&out).await?;
            out.clear();
        }
    }
    // Until the last is received, the connection must stay.
    while received.load(Ordering::Relaxed) < MESSAGES {
        more.notified().await;
    }
    draining.abort();
    Ok(())
}

async fn drain(mut heard: Heard) -> anyhow::Result<()> {
    loop {
        heard.publishes(|_| {}).await?;
    }
}

/// How long messages take from the publisher's write to the subscriber's read.
async fn milliseconds(broker: SocketAddr, qos: u8, into: &mut Runs) -> anyhow::Result<()> {
    let (mut heard, said) = subscribe(broker, "times", qos).await?;
    let (publisher_heard, mut publisher) = connect(broker, "pacer").await?;
    let draining = tokio::spawn(drain(publisher_heard));
    let epoch = Instant::now();
    let pacing = tokio::spawn(async move {
        let mut pace = tokio::time::interval(PACE);
        for n in 0..PACED {
            pace.tick().await;
            let mut out = Vec::new();
            publish(&mut out, qos, n, &(epoch.elapsed().as_nanos() as u64).to_be_bytes());
            publisher.write_all(&out).await?;
        }
        anyhow::Ok(publisher)
    });
    let mut acks = Acks::new(said);
    let mut taken = 0;
    while taken < PACED {
        taken += heard
            .publishes(|packet| {
                if let Some(sent) = packet.last_chunk() {
                    let took = epoch.elapsed().as_nanos() as u64 - u64::from_be_bytes(*sent);
                    into.push(took as f64 / 1e6);
                }
                acks.note(packet);
            })
            .await?;
        acks.send().await?;
    }
    drop(pacing.await??);
    draining.abort();
    Ok(())
}

/// Memory before and at its highest while one subscriber reads nothing and another publisher says 100 MB.
async fn slow_subscriber(broker: SocketAddr, memory: impl Fn() -> anyhow::Result<f64>) -> anyhow::Result<(f64, f64)> {
    let before = memory()?;
    let (_heard, _said) = subscribe(broker, "slow", 0).await?;
    let (heard, mut said) = connect(broker, "loud").await?;
    let draining = tokio::spawn(drain(heard));
    let mut peak = before;
    let mut out = Vec::new();
    for n in 0..100_000 {
        publish(&mut out, 0, n, &[b'x'; 1000]);
        if n % 100 == 99 {
            said.write_all(&out).await?;
            out.clear();
        }
        if n % 5_000 == 0 {
            peak = peak.max(memory()?);
        }
    }
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peak = peak.max(memory()?);
    }
    draining.abort();
    Ok((before, peak))
}

// ---- MQTT 3.1.1, as little as this needs ------------------------------------------------------------------------------

/// What a broker says.
struct Heard {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    length: usize,
}

async fn connect(broker: SocketAddr, id: &str) -> anyhow::Result<(Heard, OwnedWriteHalf)> {
    let stream = TcpStream::connect(broker).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
    [id, ACCOUNT, PASSWORD].iter().for_each(|text| put_text(&mut body, text));
    write.write_all(&packet(0x10, &body)).await?;
    let mut heard = Heard { stream: read, buffer: vec![0; 64 << 10], length: 0 };
    heard.expect(0x20, &[0, 0]).await?;
    Ok((heard, write))
}

async fn subscribe(broker: SocketAddr, id: &str, qos: u8) -> anyhow::Result<(Heard, OwnedWriteHalf)> {
    let (mut heard, mut write) = connect(broker, id).await?;
    let mut body = vec![0, 1];
    put_text(&mut body, "bench/#");
    body.push(qos);
    write.write_all(&packet(0x82, &body)).await?;
    heard.expect(0x90, &[0, 1, qos]).await?;
    Ok((heard, write))
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u16).to_be_bytes());
    into.extend(text.as_bytes());
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut left = body.len();
    loop {
        let more = if left > 127 { 0x80 } else { 0 };
        out.push((left % 128) as u8 | more);
        left /= 128;
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn publish(out: &mut Vec<u8>, qos: u8, n: u64, payload: &[u8]) {
    let mut body = Vec::with_capacity(payload.len() + 16);
    put_text(&mut body, "bench/a");
    if qos > 0 {
        body.extend((n % 65_535 + 1).to_be_bytes().last_chunk::<2>().copied().unwrap_or([0, 1]));
    }
    body.extend(payload);
    out.extend(packet(0x30 | qos << 1, &body));
}

impl Heard {
    async fn expect(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        let mut answer = vec![0; 2 + body.len()];
        self.stream.read_exact(&mut answer).await.context("the broker hung up")?;
        let (head, told) = answer.split_at(2);
        ensure!(head == [kind, body.len() as u8] && told == body, "the broker answered {answer:?}");
        Ok(())
    }

    /// Reads what has come, shows each PUBLISH as it is, and gives their number.
    async fn publishes(&mut self, mut show: impl FnMut(&[u8])) -> anyhow::Result<u64> {
        let free = self.buffer.get_mut(self.length..).context("a packet larger than expected")?;
        let read = self.stream.read(free).await?;
        if read == 0 {
            bail!("the broker hung up");
        }
        self.length += read;
        let (mut at, mut count) = (0, 0);
        while let Some((kind, length)) = whole(&self.buffer[at..self.length]) {
            if kind >> 4 == 3 {
                show(&self.buffer[at..at + length]);
                count += 1;
            }
            at += length;
        }
        self.buffer.copy_within(at..self.length, 0);
        self.length -= at;
        Ok(count)
    }
}

/// Kind and length of a packet that is there to its end.
fn whole(bytes: &[u8]) -> Option<(u8, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let (mut length, mut shift) = (0, 0);
    for (n, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let all = n + 2 + length;
            return (all <= bytes.len()).then_some((*kind, all));
        }
    }
    None
}

/// Acknowledgements of QoS 1, sent together.
struct Acks {
    to: OwnedWriteHalf,
    out: Vec<u8>,
}

impl Acks {
    fn new(to: OwnedWriteHalf) -> Self {
        Self { to, out: Vec::new() }
    }

    fn note(&mut self, publish: &[u8]) {
        let Some(first) = publish.first().filter(|first| (**first >> 1) & 3 == 1) else { return };
        debug_assert!(first >> 4 == 3);
        // One or two bytes of length before the topic's two, the topic, the number.
        let head = 1 + publish.iter().skip(1).position(|byte| byte & 0x80 == 0).map_or(1, |n| n + 1);
        let topic =
            publish.get(head..head + 2).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
        if let Some(number) = publish.get(head + 2 + topic..head + 4 + topic) {
            self.out.extend([0x40, 2]);
            self.out.extend(number);
        }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        self.to.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }
}

/// The other broker, as lean as it can be set.
struct Mosquitto {
    child: Child,
    address: SocketAddr,
}

impl Mosquitto {
    fn start(program: &Path, place: &Path) -> anyhow::Result<Self> {
        let address = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.local_addr()?;
        let file = place.join("mosquitto.conf");
        let port = address.port();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\nset_tcp_nodelay true\n"
        );
        fs::write(&file, text)?;
        let child = Command::new(program).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < Duration::from_secs(10), "mosquitto does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { child, address })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
