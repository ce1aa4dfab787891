//! The link between gateway and central servers, made as bad as it gets: a thousand cuts at chosen bytes, both ends killed
//! meanwhile, while readings keep coming. What each central server's file holds in the end is what was produced.
//!
//! `CLOCHER_LINK=namespaces` tries the same with network namespaces and a router that really swallows packets; it
//! needs root and takes minutes (`tests/run link`).

use std::{
    collections::{BTreeSet, VecDeque},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clocher::{
    buffer::{self, Buffer},
    peers::{
        Format,
        pull::{Patience, PullOptions, Summary, run},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    process::{Running, clocher},
    village::{Told, Village, count_on, rows},
};

const CUTS: u64 = 1_000;
/// Central servers inside the test, and as processes that are killed.
const INSIDE: [&str; 6] = ["in-0", "in-1", "in-2", "in-3", "in-4", "in-5"];
const OUTSIDE: [&str; 2] = ["out-0", "out-1"];
/// Ends connections so many cuts apart: the process that pulls, and the gateway.
const KILL_PULLER_EVERY: u64 = 7;
const KILL_GATEWAY_EVERY: u64 = 240;

// ---- a link that breaks ---------------------------------------------------------------------------------------------

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// Both ends are told.
    Closed,
    /// Both ends are told rudely.
    Reset,
    /// Nobody is told: no packet passes any more, in either direction.
    BlackHole,
    /// Only the central server is told; the gateway holds what it takes for a living connection when the next one comes.
    HalfOpen,
    /// Only the gateway is told; the central server waits.
    OtherHalfOpen,
    /// A few bytes at a time, and then nothing more.
    Trickle,
}

const CUT_KINDS: [Cut; 6] = [Cut::Closed, Cut::Reset, Cut::BlackHole, Cut::HalfOpen, Cut::OtherHalfOpen, Cut::Trickle];

/// What becomes of one connection: how it ends, and after how many bytes in which direction.
#[derive(Debug, Clone, Copy)]
struct Fate {
    cut: Cut,
    upwards: bool,
    after: u64,
}

/// A stream of numbers that is the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn fate(&mut self) -> Fate {
        // Those that a time limit must notice are rarer: they take longest.
        let cut = match self.roll(20) {
            0..7 => Cut::Closed,
            7..12 => Cut::Reset,
            12..17 => Cut::HalfOpen,
            17 => Cut::Trickle,
            18 => Cut::BlackHole,
            _ => Cut::OtherHalfOpen,
        };
        let upwards = self.roll(3) == 0;
        // A handshake is about 2.5 kB each way; then come heads and bodies.
        let after = match self.roll(10) {
            0..3 => self.roll(2_500),
            3..8 => 2_000 + self.roll(3_000),
            _ => 4_000 + self.roll(6_000),
        };
        // Upwards a request is 200 bytes.
        Fate { cut, upwards, after: if upwards { after / 2 } else { after } }
    }
}

/// The link of one central server.
struct Link {
    address: SocketAddr,
    cuts: watch::Receiver<u64>,
    calm: Arc<AtomicBool>,
    kinds: Arc<Mutex<BTreeSet<Cut>>>,
    _carrying: tokio_util::task::AbortOnDropHandle<()>,
}

impl Link {
    async fn to(gateway: watch::Receiver<Option<SocketAddr>>, number: u8) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (counted, cuts) = watch::channel(0);
        let (calm, kinds) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeSet<Cut>>>::default());
        let carrier = Carrier {
            gateway,
            counted,
            calm: Arc::clone(&calm),
            kinds: Arc::clone(&kinds),
            held: Mutex::default(),
            origins: AtomicU64::new(0),
            number,
        };
        let carrying = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::new(carrier))));
        Self { address, cuts, calm, kinds, _carrying: carrying }
    }
}

struct Carrier {
    gateway: watch::Receiver<Option<SocketAddr>>,
    counted: watch::Sender<u64>,
    calm: Arc<AtomicBool>,
    kinds: Arc<Mutex<BTreeSet<Cut>>>,
    /// Ends that were told nothing, and live on for a while.
    held: Mutex<VecDeque<TcpStream>>,
    origins: AtomicU64,
    number: u8,
}

async fn serve(listener: TcpListener, carrier: Arc<Carrier>) {
    let mut dice = Dice(u64::from(carrier.number));
    while let Ok((client, _)) = listener.accept().await {
        let (carrier, fate) = (Arc::clone(&carrier), dice.fate());
        tokio::spawn(async move {
            if let Some(server) = carrier.connect().await {
                carrier.carry(client, server, fate).await;
            }
        });
    }
}

impl Carrier {
    /// From an address of its own each time, as a mobile operator gives them.
    async fn connect(&self) -> Option<TcpStream> {
        let to = (*self.gateway.borrow())?;
        let host = u8::try_from(1 + self.origins.fetch_add(1, Ordering::Relaxed) % 250).expect("small");
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((Ipv4Addr::new(127, 0, 1 + self.number, host), 0).into()).ok()?;
        socket.connect(to).await.ok()
    }

    async fn carry(&self, mut client: TcpStream, mut server: TcpStream, fate: Fate) {
        let (mut up, mut down) = (vec![0; 16_384], vec![0; 16_384]);
        let (mut left, calm) = (fate.after, self.calm.load(Ordering::SeqCst));
        loop {
            let (upwards, read) = tokio::select! {
                read = client.read(&mut up) => (true, read),
                read = server.read(&mut down) => (false, read),
            };
            let Ok(read @ 1..) = read else { return };
            let counts = !calm && upwards == fate.upwards;
            let passes = if counts { read.min(usize::try_from(left).unwrap_or(usize::MAX)) } else { read };
            let (to, bytes) = if upwards { (&mut server, &up) } else { (&mut client, &down) };
            let piece = if fate.cut == Cut::Trickle && !calm { 11 } else { read };
            for piece in bytes[..passes].chunks(piece) {
                if to.write_all(piece).await.is_err() {
                    return;
                }
            }
            if counts {
                left -= passes as u64;
                if passes < read || left == 0 {
                    break;
                }
            }
        }
        self.kinds.lock().expect("whole").insert(fate.cut);
        self.counted.send_modify(|cuts| *cuts += 1);
        match fate.cut {
            Cut::Closed => {}
            Cut::Reset => {
                let _ = (client.set_zero_linger(), server.set_zero_linger());
            }
            Cut::HalfOpen => self.hold(server),
            Cut::OtherHalfOpen => self.hold(client),
            Cut::BlackHole | Cut::Trickle => {
                self.hold(client);
                self.hold(server);
            }
        }
    }

    fn hold(&self, end: TcpStream) {
        let mut held = self.held.lock().expect("whole");
        held.push_back(end);
        if held.len() > 40 {
            held.pop_front();
        }
    }
}

// ---- the gateway and its central servers ----------------------------------------------------------------------------

/// The gateway's process, killed and started again; those who need its addresses are told.
struct Gateway<'a> {
    village: &'a Village,
    running: Option<Running>,
    broker: watch::Sender<Option<SocketAddr>>,
    peers: watch::Sender<Option<SocketAddr>>,
}

impl<'a> Gateway<'a> {
    fn start(village: &'a Village) -> Self {
        let mut gateway =
            Self { village, running: None, broker: watch::Sender::new(None), peers: watch::Sender::new(None) };
        gateway.rise();
        gateway
    }

    fn rise(&mut self) {
        let running = tokio::task::block_in_place(|| Running::gateway(&self.village.config()));
        let (peers, broker) =
            tokio::task::block_in_place(|| (running.address("Peers may pull"), running.address("Broker ready")));
        self.running = Some(running);
        self.peers.send_replace(Some(peers));
        self.broker.send_replace(Some(broker));
    }

    /// As a power cut would.
    fn fall(&mut self) {
        self.peers.send_replace(None);
        self.broker.send_replace(None);
        tokio::task::block_in_place(|| self.running.take().expect("it runs").kill());
    }
}

fn options(village: &Village, peer: &str, through: SocketAddr) -> PullOptions {
    PullOptions {
        url: format!("https://{through}"),
        certificate: village.file(&format!("{peer}.pem")),
        key: village.file(&format!("{peer}.key")),
        authority: village.file("authority.pem"),
        cursor_file: village.file(&format!("{peer}.cursor")),
        output: Some(village.output(peer)),
        format: Format::Rows,
        newest_first: None,
        once: false,
        wait: Duration::ZERO,
        limit: 25,
        progress: false,
        patience: Patience {
            first: Duration::from_millis(4),
            longest: Duration::from_millis(30),
            asked: Duration::from_millis(20),
            silence: Duration::from_millis(300),
            ..Patience::default()
        },
    }
}

/// Pulls as a process that is killed every few cuts of its link, until told to stop.
async fn pull_and_die(village: &Village, peer: &str, link: &mut Link, stop: &CancellationToken) -> u64 {
    let mut deaths = 0;
    while !stop.is_cancelled() {
        let mut command = village.pull(clocher(), peer, link.address);
        command.args(["--follow", "--limit", "25", "--wait", "1", "--silence", "0.4", "--longest-pause", "0.1"]);
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("the binary starts");
        let until = *link.cuts.borrow_and_update() + KILL_PULLER_EVERY;
        tokio::select! {
            _ = link.cuts.wait_for(|cuts| *cuts >= until) => {}
            () = stop.cancelled() => {}
            ended = child.wait() => panic!("{peer} ended by itself: {ended:?}"),
        }
        child.kill().await.expect("killed");
        deaths += 1;
    }
    deaths
}

/// How far each central server has told the gateway it is, read from the store itself.
fn acknowledged(village: &Village) -> std::collections::BTreeMap<String, u64> {
    let settings = buffer::Settings {
        directory: village.file("store"),
        size_limit: 64_000_000,
        commit_within: Duration::from_secs(1),
    };
    Buffer::open(&settings).expect("a sound store").buffer.archive().acknowledged()
}

/// The last number that is whole in a file which may end in the middle of a line.
fn last_whole(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).expect("ASCII");
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    whole.lines().next_back().map_or(0, |line| {
        let row: serde_json::Value = serde_json::from_str(line).expect("a whole line is whole");
        row["seq"].as_u64().expect("a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_cuts_lose_nothing_and_repeat_nothing() {
    let witness = "witness";
    let village = Village::new(&[&INSIDE[..], &OUTSIDE[..], &[witness]].concat());
    let mut gateway = Gateway::start(&village);
    let (finish, finished) = watch::channel(false);
    let device = tokio::spawn(count_on(gateway.broker.subscribe(), finished));

    let stop = CancellationToken::new();
    let mut links = Vec::new();
    for number in 0..u8::try_from(INSIDE.len() + OUTSIDE.len()).expect("few") {
        links.push(Link::to(gateway.peers.subscribe(), number).await);
    }
    let mut outside_links = links.split_off(INSIDE.len());
    let inside: Vec<JoinHandle<_>> = INSIDE
        .iter()
        .zip(&links)
        .map(|(peer, link)| tokio::spawn(run(options(&village, peer, link.address), stop.clone())))
        .collect();

    let counters: Vec<_> = links.iter().chain(&outside_links).map(|link| link.cuts.clone()).collect();
    let kinds: Vec<_> = links.iter().chain(&outside_links).map(|link| Arc::clone(&link.kinds)).collect();
    let calm: Vec<_> = links.iter().chain(&outside_links).map(|link| Arc::clone(&link.calm)).collect();
    let outside = futures_util::future::join_all(
        OUTSIDE.iter().zip(&mut outside_links).map(|(peer, link)| pull_and_die(&village, peer, link, &stop)),
    );
    let disturb = async {
        let (mut restarts, mut changes) = (0, counters.clone());
        loop {
            let cuts: u64 = counters.iter().map(|cuts| *cuts.borrow()).sum();
            if cuts >= CUTS {
                break;
            }
            if cuts >= (restarts + 1) * KILL_GATEWAY_EVERY {
                gateway.fall();
                gateway.rise();
                restarts += 1;
            }
            let next = changes.iter_mut().map(|cuts| Box::pin(cuts.changed()));
            futures_util::future::select_all(next).await.0.expect("the link lives");
        }
        stop.cancel();
        restarts
    };
    let (restarts, deaths) = tokio::join!(disturb, outside);
    let summaries = futures_util::future::join_all(inside).await;
    let failures: u64 = summaries
        .into_iter()
        .map(|ended| ended.expect("no panic").expect("a clean end"))
        .map(|s: Summary| s.failures)
        .sum();
    calm.iter().for_each(|calm| calm.store(true, Ordering::SeqCst));
    finish.send_replace(true);
    let counted = device.await.expect("no panic");

    gateway.fall();
    let told = acknowledged(&village);
    for peer in INSIDE.iter().chain(&OUTSIDE) {
        let (has, said) = (last_whole(&village.output(peer)), told.get(*peer).copied().unwrap_or(0));
        assert!(said > 0 && said <= has, "{peer} has told that it has {said}, but has {has}");
    }
    gateway.rise();
    let address = gateway.peers.borrow().expect("it runs");
    let produced = tokio::task::block_in_place(|| village.pull_all(witness, address));
    std::thread::scope(|scope| {
        for peer in INSIDE.iter().chain(&OUTSIDE) {
            let (village, produced) = (&village, &produced);
            scope.spawn(move || same(peer, &village.pull_all(peer, address), produced));
        }
    });
    all_is_there(&produced, &counted);
    let seen: BTreeSet<Cut> = kinds.iter().flat_map(|kinds| kinds.lock().expect("whole").clone()).collect();
    assert_eq!(seen, BTreeSet::from(CUT_KINDS));
    assert!(restarts >= 3 && deaths.iter().sum::<u64>() >= 10, "{restarts} restarts, {deaths:?} deaths");
    eprintln!(
        "{CUTS} cuts, {failures} failures overcome inside, {restarts} kills of the gateway, {deaths:?} of pullers; \
         {} readings produced, {} acknowledged to the device, in each of {} files",
        produced.len(),
        counted.len(),
        INSIDE.len() + OUTSIDE.len()
    );
}

/// A file against what was produced, said in few words when they differ.
fn same(peer: &str, pulled: &[Told], produced: &[Told]) {
    let differs = pulled.iter().zip(produced).position(|(pulled, produced)| pulled != produced);
    let differs = differs.map(|at| (at, &pulled[at], &produced[at]));
    assert_eq!((pulled.len(), differs), (produced.len(), None), "{peer}");
}

/// No number is missing or there twice, and all that the device was told is safe is there.
fn all_is_there(produced: &[Told], counted: &BTreeSet<u64>) {
    let numbers: Vec<_> = produced.iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(numbers, (1..=produced.len() as u64).collect::<Vec<_>>());
    let stored: BTreeSet<u64> = produced.iter().map(|(.., value)| *value as u64).collect();
    let lost: Vec<_> = counted.difference(&stored).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), counted.len());
}

// ---- with a router that swallows packets ----------------------------------------------------------------------------

/// Three network namespaces: the gateway, a router, a central server. Gone when dropped.
struct Network {
    names: [String; 3],
}

const GATEWAY: usize = 0;
const ROUTER: usize = 1;
const CENTRAL: usize = 2;
const GATEWAY_ADDRESS: &str = "10.77.2.2";

impl Network {
    fn new() -> Self {
        let names = ["g", "r", "c"].map(|name| format!("clocher-{name}-{}", std::process::id()));
        let network = Self { names };
        let [gateway, router, central] = &network.names;
        for name in &network.names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        for (end, here, there, subnet) in [(gateway, "far", "gate", "10.77.2"), (central, "far", "cent", "10.77.1")] {
            ip(&["-n", router, "link", "add", there, "type", "veth", "peer", "name", here, "netns", end]);
            ip(&["-n", router, "address", "add", &format!("{subnet}.1/24"), "dev", there]);
            ip(&["-n", end, "address", "add", &format!("{subnet}.2/24"), "dev", here]);
            ip(&["-n", router, "link", "set", there, "up"]);
            ip(&["-n", end, "link", "set", here, "up"]);
            ip(&["-n", end, "route", "add", "default", "via", &format!("{subnet}.1")]);
        }
        network.forward("all", true);
        network
    }

    /// A command in one of the namespaces.
    fn command(&self, place: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[place], program]);
        command
    }

    /// Whether the router passes on what comes in at `interface`. When it does not, nobody is told anything.
    fn forward(&self, interface: &str, passes: bool) {
        let setting = format!("echo {} > /proc/sys/net/ipv4/conf/{interface}/forwarding", u8::from(passes));
        let done = self.command(ROUTER, "sh").args(["-c", &setting]).status().expect("sh");
        assert!(done.success(), "{setting}");
    }

    /// The link carries 16 kbit a second, or all it can.
    fn slow(&self, slow: bool) {
        let how: &[&str] = if slow { &["rate", "16kbit", "burst", "1600", "latency", "200ms"] } else { &[] };
        let act = if slow { "add" } else { "del" };
        let mut command = self.command(ROUTER, "tc");
        command.args(["qdisc", act, "dev", "cent", "root"]);
        if slow {
            command.arg("tbf").args(how);
        }
        assert!(command.status().expect("tc").success());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// One flap of the link, for so long.
fn flap(network: &Network, dice: &mut Dice) {
    let lasting = Duration::from_millis(200 + dice.roll(3_500));
    let disturb: &dyn Fn(bool) = match dice.roll(5) {
        0 | 1 => &|down| network.forward("all", !down),
        2 => &|down| network.forward("gate", !down),
        3 => &|down| network.forward("cent", !down),
        _ => &|down| network.slow(down),
    };
    disturb(true);
    std::thread::sleep(lasting);
    disturb(false);
    // "all" sets each interface too; one that was set apart stays so.
    network.forward("all", true);
}

/// Needs root, and takes three seconds a flap: `CLOCHER_LINK=namespaces`, `CLOCHER_FLAPS` (100).
#[test]
fn a_router_that_swallows_packets_costs_no_reading() {
    if std::env::var("CLOCHER_LINK").as_deref() != Ok("namespaces") {
        return;
    }
    let flaps: u64 = std::env::var("CLOCHER_FLAPS").ok().and_then(|flaps| flaps.parse().ok()).unwrap_or(100);
    let (peer, witness) = ("central", "witness");
    let village = Village::new(&[peer, witness]);
    village.configure(&[peer, witness], GATEWAY_ADDRESS);
    let network = Network::new();
    let binary = env!("CARGO_BIN_EXE_clocher");
    let mut command = network.command(GATEWAY, binary);
    command.arg("run").arg("--config").arg(village.config());
    let gateway = Running::start(command);
    let (peers, broker) = (gateway.address("Peers may pull"), gateway.address("Broker ready"));

    let mut device = network.command(GATEWAY, "mosquitto_pub");
    device.args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-u", "sensor", "-P", "a long enough secret"]);
    let mut device =
        device.args(["-q", "1", "-t", "sensors/count", "-l"]).stdin(Stdio::piped()).spawn().expect("mosquitto-clients");
    let mut numbers = device.stdin.take().expect("piped");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let counting = std::thread::spawn(move || {
        let mut count = 0_u64;
        while !stopped.load(Ordering::SeqCst) {
            writeln!(numbers, "{count}").expect("the device lives");
            count += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        count
    });

    let mut command = village.pull(network.command(CENTRAL, binary), peer, peers);
    command.args(["--follow", "--limit", "100", "--wait", "2", "--silence", "1.5", "--longest-pause", "0.5"]);
    let central = Running::start(command);
    let length = || std::fs::metadata(village.output(peer)).map_or(0, |file| file.len());
    let mut dice = Dice(77);
    for n in 0..flaps {
        flap(&network, &mut dice);
        let (before, since) = (length(), std::time::Instant::now());
        while length() == before {
            assert!(since.elapsed() < Duration::from_secs(60), "nothing comes after flap {n}:\n{}", central.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    stop.store(true, Ordering::SeqCst);
    let counted = counting.join().expect("no panic");
    assert!(device.wait().expect("it ends").success());
    central.kill();
    let pull_all = |peer: &str| {
        let done = village.pull(network.command(CENTRAL, binary), peer, peers).output().expect("the binary starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        rows(&village.output(peer))
    };
    let (produced, pulled) = (pull_all(witness), pull_all(peer));
    same(peer, &pulled, &produced);
    all_is_there(&produced, &(0..counted).collect());
    eprintln!("{flaps} flaps, {counted} readings produced, all in the file, in order, once");
}
