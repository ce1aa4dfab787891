//! The broker tried by real clients (`mosquitto_pub`, `mosquitto_sub`) and, where those are too polite, by bytes.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as such")]

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use clocher::{
    announcement::{AnnouncementId, Announcer, Class, JournalEntry, Queued, Refused, Request, Zone},
    broker::{BrokerFigures, Ground, Handle, Inbox, start, topics},
    clock::{Clock, HeldTime, Source},
    condition::{Board, Code},
    config::broker::{AccountSettings, BrokerSettings, Password},
    live::Live,
    reading::{Kind, Point, PointId, Quality, Reading, Sharing},
    store::{Keep, MemoryKeep},
    supervisor::Supervisor,
};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    sync::{Notify, watch},
    time::timeout,
};

const PASSWORD: &str = "correct horse battery";
const SOON: Duration = Duration::from_secs(20);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// Remembers what was delivered; can be told to wait or to refuse.
#[derive(Default)]
struct Recorder {
    delivered: Mutex<Vec<(String, Vec<u8>, String)>>,
    arrived: Notify,
    held: AtomicBool,
    let_go: Notify,
    refuses: AtomicBool,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Inbox for Recorder {
    fn deliver<'a>(&'a self, topic: &'a str, payload: &'a [u8], account: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            self.arrived.notify_waiters();
            while self.held.load(Ordering::SeqCst) {
                let let_go = self.let_go.notified();
                if self.held.load(Ordering::SeqCst) {
                    let_go.await;
                }
            }
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if self.refuses.load(Ordering::SeqCst) {
                return Err("the card is gone".into());
            }
            self.delivered.lock().unwrap().push((topic.into(), payload.into(), account.into()));
            self.arrived.notify_waiters();
            Ok(())
        })
    }

    fn wants(&self, topic: &str) -> bool {
        topic.starts_with("sensors/")
    }

    fn feeds(&self, topic: &str, point: &PointId) -> bool {
        topic == "sensors/water" && point.as_str() == "water/hall/index"
    }
}

impl Recorder {
    fn payloads(&self) -> Vec<String> {
        self.delivered.lock().unwrap().iter().map(|d| String::from_utf8_lossy(&d.1).into_owned()).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        soon(what, async {
            loop {
                let arrived = self.arrived.notified();
                if is_so(self) {
                    return;
                }
                arrived.await;
            }
        })
        .await;
    }
}

/// Takes every wish but the empty one.
#[derive(Default)]
struct Speaker {
    asked: Mutex<Vec<Request>>,
    changes: watch::Sender<u64>,
}

impl Announcer for Speaker {
    fn zones(&self) -> Vec<Zone> {
        Vec::new()
    }
    fn preview<'a>(&'a self, _: &'a str, _: Class) -> BoxFuture<'a, Result<Vec<u8>, Refused>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn ask(&self, request: Request) -> BoxFuture<'_, Result<AnnouncementId, Refused>> {
        Box::pin(async move {
            if request.text.is_empty() {
                return Err(Refused::Empty);
            }
            let mut asked = self.asked.lock().unwrap();
            asked.push(request);
            Ok(AnnouncementId(asked.len() as u64))
        })
    }
    fn stop(&self, _: Option<AnnouncementId>, _: &str) -> bool {
        false
    }
    fn queue(&self) -> Vec<Queued> {
        Vec::new()
    }
    fn journal(&self, _: usize) -> Vec<JournalEntry> {
        Vec::new()
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

struct Site {
    port: u16,
    supervisor: Supervisor,
    board: Board,
    live: Live,
    clock: Clock,
    inbox: Arc<Recorder>,
    speaker: Arc<Speaker>,
    keep: Arc<MemoryKeep>,
    handle: Handle,
}

fn account(name: &str, publish: &[&str], subscribe: &[&str]) -> AccountSettings {
    let filters = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let password = Password::Given(PASSWORD.into());
    AccountSettings { name: name.into(), password, publish: filters(publish), subscribe: filters(subscribe) }
}

fn settings() -> BrokerSettings {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    BrokerSettings {
        listen: any,
        listen_tls: None,
        max_clients: 200,
        max_payload: 65_536,
        max_queued: 1_000,
        max_retained: 5_000,
        max_rate: 1_000_000,
        accounts: vec![
            account("all", &["#"], &["#", "$SYS/#"]),
            account("other", &["#"], &["#"]),
            account("zigbee", &["zigbee2mqtt/#"], &["zigbee2mqtt/+/set"]),
        ],
    }
}

fn point() -> Point {
    Point {
        id: "water/hall/index".parse().unwrap(),
        label: "Eau de la salle".into(),
        unit: "L".into(),
        kind: Kind::Counter,
        decimals: 0,
        interval: None,
        range: None,
        sharing: Sharing::Public,
    }
}

fn site() -> Site {
    site_with(settings(), Arc::default(), None)
}

fn site_with(
    settings: BrokerSettings,
    keep: Arc<MemoryKeep>,
    tls: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
) -> Site {
    let clock = Clock::new(1, HeldTime::at(1_800_000_000_000, Source::Ntp), []);
    clock.observe();
    let board = Board::new(clock.clone());
    let supervisor = Supervisor::new(board.clone());
    let live = Live::new([point()], []);
    let (inbox, speaker) = (Arc::new(Recorder::default()), Arc::new(Speaker::default()));
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    let (listener, config) = tls.unzip();
    let ground = Ground {
        supervisor: supervisor.clone(),
        board: board.clone(),
        keep: keep.clone(),
        live: live.clone(),
        clock: clock.clone(),
        inbox: inbox.clone(),
        tls: config,
        announce: Some(speaker.clone()),
    };
    let handle = start(settings, plain, listener, ground).unwrap();
    Site { port, supervisor, board, live, clock, inbox, speaker, keep, handle }
}

impl Site {
    async fn stop(self) -> Arc<MemoryKeep> {
        let stubborn = self.supervisor.stop(Duration::from_secs(10)).await;
        assert_eq!(stubborn, Vec::<String>::new());
        self.keep
    }

    fn figures(&self) -> BrokerFigures {
        self.handle.figures()
    }

    fn client(&self, program: &str, user: &str) -> Command {
        // Into a pipe, mosquitto_sub writes by blocks; a line is to be seen when it is said.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program]);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-u", user, "-P", PASSWORD]);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn publish(&self, args: &[&str]) -> Output {
        soon("mosquitto_pub", self.client("mosquitto_pub", "all").args(args).output()).await.unwrap()
    }

    async fn publish_well(&self, args: &[&str]) {
        let output = self.publish(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    async fn subscribe(&self, args: &[&str]) -> Listener {
        Listener::start(self.client("mosquitto_sub", "all").args(args)).await
    }

    async fn raw(&self, id: &str) -> Raw {
        let mut raw = Raw::open(self.port).await;
        assert_eq!(raw.connect(&Connect { id, ..Connect::default() }).await, [0x20, 2, 0, 0]);
        raw
    }

    /// Still serves: a message goes through.
    async fn is_alive(&self) {
        let mut listener = self.subscribe(&["-t", "alive", "-C", "1"]).await;
        self.publish_well(&["-t", "alive", "-m", "yes", "-q", "1"]).await;
        assert_eq!(listener.line().await, "yes");
        assert!(!self.board.is_open(Code::BrokerSilent, "broker"));
    }
}

/// A `mosquitto_sub` that has subscribed.
struct Listener {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Listener {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// With `-d` it says when its subscription was granted.
    async fn start(command: &mut Command) -> Self {
        let mut listener = Self::spawn(command.arg("-d"));
        while !listener.any_line().await.starts_with("Subscribed") {}
        listener
    }

    async fn any_line(&mut self) -> String {
        soon("a line of mosquitto_sub", self.lines.next_line()).await.unwrap().expect("mosquitto_sub ended")
    }

    /// The next payload.
    async fn line(&mut self) -> String {
        loop {
            let line = self.any_line().await;
            if !line.starts_with("Client ") && !line.starts_with("Subscribed") {
                return line;
            }
        }
    }

    async fn killed(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn ended(mut self) {
        soon("the end of mosquitto_sub", self.child.wait()).await.unwrap();
    }
}

struct Connect<'a> {
    id: &'a str,
    user: &'a str,
    clean: bool,
    keep_alive: u16,
    will: Option<(&'a str, &'a str)>,
}

impl Default for Connect<'_> {
    fn default() -> Self {
        Self { id: "raw", user: "all", clean: true, keep_alive: 0, will: None }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn publish(topic: &str, payload: &[u8], qos: u8, pid: u16) -> Vec<u8> {
    let pid = if qos == 0 { Vec::new() } else { pid.to_be_bytes().to_vec() };
    packet(0x30 | qos << 1, &[text(topic), pid, payload.to_vec()].concat())
}

fn subscribe(pid: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let filters = filters.iter().flat_map(|(filter, qos)| [text(filter), vec![*qos]].concat());
    packet(0x82, &pid.to_be_bytes().into_iter().chain(filters).collect::<Vec<_>>())
}

fn unsubscribe(pid: u16, filters: &[&str]) -> Vec<u8> {
    packet(0xa2, &pid.to_be_bytes().into_iter().chain(filters.iter().flat_map(|f| text(f))).collect::<Vec<_>>())
}

/// A client made of bytes.
struct Raw(TcpStream);

impl Raw {
    async fn open(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    async fn connect(&mut self, connect: &Connect<'_>) -> Vec<u8> {
        let will = connect.will.map_or(Vec::new(), |(topic, payload)| [text(topic), text(payload)].concat());
        let flags = 0xc0 | u8::from(connect.clean) << 1 | if connect.will.is_some() { 0x04 } else { 0 };
        let head = [&text("MQTT")[..], &[4, flags], &connect.keep_alive.to_be_bytes()].concat();
        let body = [head, text(connect.id), will, text(connect.user), text(PASSWORD)].concat();
        self.send(&packet(0x10, &body)).await;
        self.next().await.expect("an answer to CONNECT")
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon("a write", self.0.write_all(bytes)).await.unwrap();
    }

    /// The next whole packet; `None` once the broker has closed.
    async fn next(&mut self) -> Option<Vec<u8>> {
        soon("a packet", async {
            let mut whole = vec![self.0.read_u8().await.ok()?];
            let mut length = 0_usize;
            for shift in [0, 7, 14, 21] {
                let byte = self.0.read_u8().await.ok()?;
                whole.push(byte);
                length |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            whole.extend(body);
            Some(whole)
        })
        .await
    }

    async fn ask(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.send(bytes).await;
        self.next().await
    }

    /// The broker has closed, with nothing more to say.
    async fn is_closed(&mut self) {
        assert_eq!(self.next().await, None);
    }

    /// Everything sent so far has been dealt with.
    async fn is_heard(&mut self) {
        assert_eq!(self.ask(&[0xc0, 0]).await.as_deref(), Some(&[0xd0, 0][..]));
    }
}

/// Topic and payload of a PUBLISH.
fn said(packet: &[u8]) -> (String, String) {
    let (qos, start) = (packet[0] >> 1 & 3, if packet[1] & 0x80 == 0 { 2 } else { 3 });
    let length = usize::from(u16::from_be_bytes([packet[start], packet[start + 1]]));
    let topic = &packet[start + 2..start + 2 + length];
    let payload = &packet[start + 2 + length + if qos > 0 { 2 } else { 0 }..];
    (String::from_utf8_lossy(topic).into_owned(), String::from_utf8_lossy(payload).into_owned())
}

// What ordinary clients do.

#[tokio::test(flavor = "multi_thread")]
async fn every_quality_is_delivered_to_every_quality() {
    let site = site();
    for to in ["0", "1", "2"] {
        let mut listener = site.subscribe(&["-t", "a/+", "-q", to, "-C", "3"]).await;
        for from in ["0", "1", "2"] {
            site.publish_well(&["-t", "a/b", "-m", from, "-q", from]).await;
            assert_eq!(listener.line().await, from);
        }
        listener.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_in_french_is_a_topic_like_another() {
    let site = site();
    let mut listener = site.subscribe(&["-t", "église/+", "-F", "%t %p"]).await;
    site.publish_well(&["-t", "église/cloche", "-m", "midi ♪", "-q", "1", "-r"]).await;
    assert_eq!(listener.line().await, "église/cloche midi ♪");
    let mut later = site.subscribe(&["-t", "#", "-F", "%r %t %p", "-C", "1"]).await;
    assert_eq!(later.line().await, "1 église/cloche midi ♪");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_with_its_own_code_and_nobody_enters_without_one() {
    let site = site();
    let output = |args: &[&str]| {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &site.port.to_string(), "-t", "a", "-m", "b"]).args(args);
        async move { soon("mosquitto_pub", command.output()).await.unwrap() }
    };
    let wrong = output(&["-u", "all", "-P", "not the password"]).await;
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
    let unknown = output(&["-u", "nobody", "-P", PASSWORD]).await;
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
    let nameless = output(&[]).await;
    assert_eq!(nameless.status.code(), Some(5), "{nameless:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_publishes_and_subscribes_only_where_its_rules_say() {
    let site = site();
    let publish = |topic| {
        let mut command = site.client("mosquitto_pub", "zigbee");
        command.args(["-q", "1", "-m", "x", "-t", topic]);
        async move { soon("mosquitto_pub", command.output()).await.unwrap().status.success() }
    };
    assert!(publish("zigbee2mqtt/kitchen").await);
    assert!(!publish("elsewhere").await);
    let mut client = Raw::open(site.port).await;
    client.connect(&Connect { user: "zigbee", ..Connect::default() }).await;
    let filters =
        [("zigbee2mqtt/+/set", 2), ("zigbee2mqtt/#", 1), ("#", 0), ("a#", 0), ("$share/g/zigbee2mqtt/a/set", 1)];
    let granted = client.ask(&subscribe(7, &filters)).await.unwrap();
    assert_eq!(granted, [0x90, 7, 0, 7, 2, 0x80, 0x80, 0x80, 0x80]);
    let will = Connect { user: "zigbee", will: Some(("elsewhere", "x")), ..Connect::default() };
    assert_eq!(Raw::open(site.port).await.connect(&will).await, [0x20, 2, 0, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_survive_a_restart_and_an_empty_one_clears() {
    let first = site();
    first.publish_well(&["-t", "lamp/a", "-m", "on", "-q", "1", "-r"]).await;
    first.publish_well(&["-t", "lamp/b", "-m", "on", "-q", "1", "-r"]).await;
    first.publish_well(&["-t", "lamp/b", "-n", "-q", "1", "-r"]).await;
    // Without the retain flag an empty message clears nothing.
    first.publish_well(&["-t", "lamp/a", "-n", "-q", "1"]).await;
    first.publish_well(&["-t", "lamp/z", "-m", "last", "-q", "2", "-r"]).await;
    let keep = first.stop().await;

    let second = site_with(settings(), keep, None);
    let mut listener = second.subscribe(&["-t", "lamp/#", "-F", "%r %t %p", "-q", "1", "-C", "2"]).await;
    assert_eq!([listener.line().await, listener.line().await], ["1 lamp/a on", "1 lamp/z last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_is_forgotten_leaves_no_retained_message_of_ours_nor_of_its_device() {
    let site = site();
    site.publish_well(&["-t", "sensors/water", "-m", "84210", "-q", "1", "-r"]).await;
    site.publish_well(&["-t", "sensors/air", "-m", "20.6", "-q", "1", "-r"]).await;
    let id: PointId = "water/hall/index".parse().unwrap();
    let (stamp, point) = (site.clock.now(), id.clone());
    site.live.tell(&[Reading { point, stamp, value: Some(84_210.0), quality: Quality::Good }]);
    let all = ["-t", "clocher/water/#", "-t", "sensors/#", "-t", "mark", "-F", "%r %t"];
    let mut early = site.subscribe(&all).await;
    let mut told = BTreeSet::new();
    while told.len() < 3 {
        // Live or retained: the point was said while it was subscribed to.
        told.insert(early.line().await.split_once(' ').map(|(_, topic)| topic.to_owned()).unwrap());
    }
    assert!(told.contains("clocher/water/hall/index") && told.contains("sensors/water"), "{told:?}");

    let before = site.figures().retained;
    site.live.forget(&id);
    soon("forgotten", async {
        while site.figures().retained > before - 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut late = site.subscribe(&all).await;
    site.publish_well(&["-t", "mark", "-m", "x", "-q", "1"]).await;
    assert_eq!([late.line().await, late.line().await], ["1 sensors/air", "0 mark"]);
    let keep = site.stop().await;
    let kept: Vec<_> = keep.list("retained").unwrap().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(kept, [b"sensors/air".to_vec()], "gone from the card too");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_retained_messages_than_the_router_would_give_all_arrive() {
    let site = site();
    let mut writer = site.raw("writer").await;
    for n in 0..1_500_u16 {
        let body = [text(&format!("many/{n}")), (n + 1).to_be_bytes().to_vec(), b"x".to_vec()].concat();
        writer.send(&packet(0x33, &body)).await;
        assert_eq!(writer.next().await.unwrap()[0], 0x40);
    }
    for qos in ["0", "1", "2"] {
        let mut listener = site.subscribe(&["-t", "many/#", "-q", qos, "-F", "%t", "-C", "1500"]).await;
        let mut topics = BTreeSet::new();
        for _ in 0..1_500 {
            topics.insert(listener.line().await);
        }
        assert_eq!(topics.len(), 1_500, "at QoS {qos}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_said_when_its_client_is_killed_and_not_when_it_says_goodbye() {
    let site = site();
    let mut watcher = site.subscribe(&["-t", "state/#", "-F", "%t %p"]).await;
    let with_will =
        ["-t", "x", "--will-topic", "state/pump", "--will-payload", "offline", "--will-retain", "--will-qos", "1"];
    site.subscribe(&with_will).await.killed().await;
    assert_eq!(watcher.line().await, "state/pump offline");
    let mut late = site.subscribe(&["-t", "state/#", "-F", "%r %p"]).await;
    assert_eq!(late.line().await, "1 offline", "retained, as it asked");

    site.publish_well(&["-t", "y", "-m", "", "--will-topic", "state/other", "--will-payload", "offline"]).await;
    site.publish_well(&["-t", "state/last", "-m", "done", "-q", "1"]).await;
    assert_eq!(watcher.line().await, "state/last done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_says_the_old_will_before_the_new_client_is_let_in_and_keeps_the_new_one() {
    let site = site();
    let mut watcher = site.subscribe(&["-t", "state/#", "-F", "%p"]).await;
    let mut old = Raw::open(site.port).await;
    old.connect(&Connect { id: "pump", will: Some(("state/pump", "old")), ..Connect::default() }).await;
    let mut new = Raw::open(site.port).await;
    new.connect(&Connect { id: "pump", will: Some(("state/pump", "new")), ..Connect::default() }).await;
    old.is_closed().await;
    new.ask(&publish("state/pump", b"online", 1, 1)).await.unwrap();
    assert_eq!([watcher.line().await, watcher.line().await], ["old", "online"]);
    drop(new);
    assert_eq!(watcher.line().await, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_id_of_another_account_is_another_client() {
    let site = site();
    let mut one = site.raw("same").await;
    let mut two = Raw::open(site.port).await;
    two.connect(&Connect { id: "same", user: "other", ..Connect::default() }).await;
    one.is_heard().await;
    two.is_heard().await;
    assert_eq!(site.figures().clients, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_waits_for_an_absent_client() {
    let site = site();
    let session = ["-t", "q/#", "-q", "1", "-c", "-i", "absent"];
    let listener = site.subscribe(&[&session[..], &["-C", "1"]].concat()).await;
    site.publish_well(&["-t", "q/a", "-m", "first", "-q", "1"]).await;
    listener.ended().await;
    for (payload, qos) in [("second", "1"), ("lost", "0"), ("third", "2")] {
        site.publish_well(&["-t", "q/a", "-m", payload, "-q", qos]).await;
    }
    // They come before it has subscribed again.
    let mut back = Listener::spawn(site.client("mosquitto_sub", "all").args(session).args(["-C", "2"]));
    assert_eq!([back.line().await, back.line().await], ["second", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_found_again_after_a_restart_with_its_subscriptions() {
    let first = site();
    let absent = Connect { id: "absent", clean: false, ..Connect::default() };
    let mut client = Raw::open(first.port).await;
    assert_eq!(client.connect(&absent).await, [0x20, 2, 0, 0]);
    client.ask(&subscribe(1, &[("q/#", 1), ("r", 1)])).await.unwrap();
    client.ask(&unsubscribe(2, &["r"])).await.unwrap();
    client.send(&[0xe0, 0]).await;
    client.is_closed().await;
    let keep = first.stop().await;

    let second = site_with(settings(), keep, None);
    second.publish_well(&["-t", "r", "-m", "unsubscribed", "-q", "1"]).await;
    second.publish_well(&["-t", "q/a", "-m", "while away", "-q", "1"]).await;
    let mut client = Raw::open(second.port).await;
    assert_eq!(client.connect(&absent).await, [0x20, 2, 1, 0], "the session is present");
    assert_eq!(said(&client.next().await.unwrap()), ("q/a".into(), "while away".into()));
    let mut again = Raw::open(second.port).await;
    assert_eq!(again.connect(&Connect { clean: true, ..absent }).await, [0x20, 2, 0, 0], "a clean one ends it");
}

fn certificates(folder: &Path) -> Arc<rustls::ServerConfig> {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the hall");
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap())
}

struct Encrypted {
    site: Site,
    port: u16,
    folder: tempfile::TempDir,
}

fn encrypted_site() -> Encrypted {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = certificates(folder.path());
    Encrypted { site: site_with(settings(), Arc::default(), Some((listener, config))), port, folder }
}

impl Encrypted {
    async fn publish(&self, authority: &Path) -> bool {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-u", "all", "-P", PASSWORD, "--cafile"]);
        command.arg(authority).args(["-t", "sensors/tls", "-m", "sealed", "-q", "1"]);
        soon("mosquitto_pub", command.output()).await.unwrap().status.success()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_client_trusts_the_right_authority_only() {
    let hall = encrypted_site();
    assert!(hall.publish(&hall.folder.path().join("ca.pem")).await);
    assert_eq!(hall.site.inbox.payloads(), ["sealed"]);
    let foreign = tempfile::tempdir().unwrap();
    certificates(foreign.path());
    assert!(!hall.publish(&foreign.path().join("ca.pem")).await);
}

// What must hold for readings.

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_acknowledged_only_once_its_reading_is_stored() {
    let site = site();
    site.inbox.held.store(true, Ordering::SeqCst);
    let mut device = site.raw("device").await;
    for pid in 1..=100_u16 {
        let qos = if pid % 10 == 0 { 2 } else { 1 };
        device.send(&publish("sensors/a", pid.to_string().as_bytes(), qos, pid)).await;
    }
    // Many are in hand together, so that they share a commit; none is acknowledged.
    site.inbox.until("64 in hand", |inbox| inbox.at_once.load(Ordering::SeqCst) == 64).await;
    assert_eq!(device.0.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    site.inbox.held.store(false, Ordering::SeqCst);
    site.inbox.let_go.notify_waiters();
    for pid in 1..=100_u16 {
        let expected = if pid % 10 == 0 { 0x50 } else { 0x40 };
        let [high, low] = pid.to_be_bytes();
        assert_eq!(device.next().await.unwrap(), [expected, 2, high, low], "in order");
    }
    assert_eq!(site.inbox.payloads().len(), 100);
    assert_eq!(site.inbox.most_at_once.load(Ordering::SeqCst), 64, "and never more");
    assert_eq!(site.inbox.delivered.lock().unwrap()[0].2, "all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_reading_is_not_stored_is_dropped_and_sends_it_again() {
    let site = site();
    site.inbox.refuses.store(true, Ordering::SeqCst);
    let absent = Connect { id: "device", clean: false, ..Connect::default() };
    for qos in [1, 2] {
        let mut device = Raw::open(site.port).await;
        device.connect(&absent).await;
        device.send(&publish("sensors/a", b"1", qos, 5)).await;
        device.is_closed().await;
    }
    site.inbox.refuses.store(false, Ordering::SeqCst);
    let mut device = Raw::open(site.port).await;
    device.connect(&absent).await;
    let mut again = publish("sensors/a", b"1", 2, 5);
    again[0] |= 0x08;
    assert_eq!(device.ask(&again).await.unwrap(), [0x50, 2, 0, 5]);
    assert_eq!(site.inbox.payloads(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_for_no_answer_stays_connected_while_the_card_refuses() {
    let site = site();
    site.inbox.refuses.store(true, Ordering::SeqCst);
    let mut device = site.raw("device").await;
    device.send(&publish("sensors/a", b"1", 0, 0)).await;
    device.is_heard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_quality_2_sent_again_is_delivered_once() {
    let site = site();
    let mut listener = site.subscribe(&["-t", "#", "-q", "2", "-F", "%p"]).await;
    let persistent = Connect { id: "device", clean: false, ..Connect::default() };
    let mut device = Raw::open(site.port).await;
    device.connect(&persistent).await;
    assert_eq!(device.ask(&publish("sensors/a", b"once", 2, 9)).await.unwrap(), [0x50, 2, 0, 9]);
    drop(device);
    let mut device = Raw::open(site.port).await;
    device.connect(&persistent).await;
    let mut again = publish("sensors/a", b"once", 2, 9);
    again[0] |= 0x08;
    assert_eq!(device.ask(&again).await.unwrap(), [0x50, 2, 0, 9]);
    assert_eq!(device.ask(&packet(0x62, &[0, 9])).await.unwrap(), [0x70, 2, 0, 9]);
    assert_eq!(device.ask(&publish("sensors/a", b"twice", 2, 9)).await.unwrap(), [0x50, 2, 0, 9]);
    assert_eq!([listener.line().await, listener.line().await], ["once", "twice"]);
    assert_eq!(site.inbox.payloads(), ["once", "twice"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_promised_is_lost_between_floods() {
    let site = site_with(BrokerSettings { max_queued: 2_000, ..settings() }, Arc::default(), None);
    let mut listener = site.raw("listener").await;
    listener.ask(&subscribe(1, &[("flood/#", 1)])).await.unwrap();
    let floods = (0..4).map(|flood| {
        let port = site.port;
        tokio::spawn(async move {
            let mut device = Raw::open(port).await;
            device.connect(&Connect { id: &format!("flood-{flood}"), ..Connect::default() }).await;
            for n in 0..500_u16 {
                device.send(&publish(&format!("flood/{flood}"), n.to_string().as_bytes(), 1, n + 1)).await;
                if n % 50 == 49 {
                    for _ in 0..50 {
                        assert_eq!(device.next().await.unwrap()[0], 0x40);
                    }
                }
            }
        })
    });
    let floods: Vec<_> = floods.collect();
    let mut next = [0_u32; 4];
    for _ in 0..2_000 {
        let packet = listener.next().await.expect("not dropped");
        let (topic, payload) = said(&packet);
        let flood: usize = topic.strip_prefix("flood/").unwrap().parse().unwrap();
        assert_eq!(payload.parse(), Ok(next[flood]), "in order, none missing");
        next[flood] += 1;
        let at = packet.len() - payload.len() - 2;
        listener.send(&[0x40, 2, packet[at], packet[at + 1]]).await;
    }
    for flood in floods {
        flood.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_takes_nothing_is_dropped_and_nobody_else_notices() {
    let site = site();
    let mut stuck = site.raw("stuck").await;
    stuck.ask(&subscribe(1, &[("big", 1)])).await.unwrap();
    let mut writer = site.raw("writer").await;
    let payload = vec![7; 60_000];
    for pid in 1..=400_u16 {
        assert_eq!(writer.ask(&publish("big", &payload, 1, pid)).await.unwrap()[0], 0x40);
    }
    let mut received = 0;
    while stuck.next().await.is_some() {
        received += 1;
    }
    assert!(received < 100, "it was dropped with what it was owed, not served later: {received}");
    site.is_alive().await;
}

// What the standard asks.

#[tokio::test(flavor = "multi_thread")]
async fn one_unsuback_answers_several_filters_and_unknown_ones_too() {
    let site = site();
    let mut client = site.raw("client").await;
    client.ask(&subscribe(1, &[("a", 1), ("b", 1)])).await.unwrap();
    assert_eq!(client.ask(&unsubscribe(2, &["a", "b", "never"])).await.unwrap(), [0xb0, 2, 0, 2]);
    assert_eq!(client.ask(&unsubscribe(3, &["never"])).await.unwrap(), [0xb0, 2, 0, 3]);
    site.publish_well(&["-t", "a", "-m", "x", "-q", "1"]).await;
    client.is_heard().await;
    client.ask(&subscribe(4, &[("a", 0)])).await.unwrap();
    site.publish_well(&["-t", "a", "-m", "again", "-q", "1"]).await;
    assert_eq!(said(&client.next().await.unwrap()).1, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_overlap_bring_a_message_once() {
    let site = site();
    let mut client = site.raw("client").await;
    client.ask(&subscribe(1, &[("a/+", 0), ("a/#", 1), ("#", 0)])).await.unwrap();
    for n in 0..30_u16 {
        let mut writer = site.raw("writer").await;
        writer.ask(&publish("a/b", n.to_string().as_bytes(), 1, 1)).await.unwrap();
        let packet = client.next().await.unwrap();
        assert_eq!((said(&packet).1, packet[0] >> 1 & 3), (n.to_string(), 1), "at the best quality granted");
    }
    client.is_heard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_standard_forbids_ends_the_connection() {
    let site = site();
    let forbidden: &[(&str, Vec<u8>)] = &[
        ("a wildcard in a topic", publish("w/#", b"x", 0, 0)),
        ("an empty topic", publish("", b"x", 0, 0)),
        ("a NUL in a topic", publish("a\0b", b"x", 0, 0)),
        ("a topic of ours", publish("clocher/water/hall/index", b"x", 1, 1)),
        ("$SYS", publish("$SYS/broker/uptime", b"x", 0, 0)),
        ("QoS 3", packet(0x36, &[0, 1, b'a', 0, 1])),
        ("identifier 0", publish("a", b"x", 1, 0)),
        ("a second CONNECT", packet(0x10, &[&text("MQTT")[..], &[4, 2, 0, 0, 0, 1, b'a']].concat())),
        ("a CONNACK", vec![0x20, 2, 0, 0]),
        ("an UNSUBACK", vec![0xb0, 2, 0, 1]),
        ("SUBSCRIBE without a filter", packet(0x82, &[0, 1])),
        ("UNSUBSCRIBE without a filter", packet(0xa2, &[0, 1])),
        ("a packet of no type", vec![0xf0, 0]),
        ("a length without end", vec![0x30, 0xff, 0xff, 0xff, 0xff]),
        ("a payload too large", publish("a", &vec![0; 65_537], 0, 0)),
        ("a packet far too large", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
    ];
    for (n, (what, bytes)) in forbidden.iter().enumerate() {
        let mut client = site.raw(&format!("client-{n}")).await;
        client.send(bytes).await;
        assert_eq!(client.next().await, None, "{what}");
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1], &[0x30, 3, 0, 1, b'a'], &[0; 64]] {
        let mut client = Raw::open(site.port).await;
        client.send(garbage).await;
        client.is_closed().await;
    }
    site.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_client_id_is_rejected_and_an_empty_one_gets_a_clean_session() {
    let site = site();
    let long = "x".repeat(300);
    for (id, clean, code) in [("", true, 0), ("", false, 2), (long.as_str(), true, 2), ("a\nb", true, 2)] {
        let answer = Raw::open(site.port).await.connect(&Connect { id, clean, ..Connect::default() }).await;
        assert_eq!(answer, [0x20, 2, 0, code], "{id:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_is_dropped_with_its_will_said() {
    let site = site();
    let mut watcher = site.subscribe(&["-t", "state", "-F", "%p"]).await;
    let mut silent = Raw::open(site.port).await;
    silent
        .connect(&Connect { id: "silent", keep_alive: 1, will: Some(("state", "silent")), ..Connect::default() })
        .await;
    assert_eq!(watcher.line().await, "silent");
    silent.is_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_says_connect_is_closed() {
    let site = site();
    let mut mute = Raw::open(site.port).await;
    mute.is_closed().await;
    let mut slow = Raw::open(site.port).await;
    slow.send(&[0x10]).await;
    slow.is_closed().await;
}

// What kills rumqttd's own broker: reference/dependencies.md, §1.4, row by row.

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_topic_whose_first_character_is_not_ascii() {
    let site = site();
    let mut listener = site.subscribe(&["-t", "übung/1", "-t", "plain", "-F", "%t"]).await;
    for qos in ["0", "1", "2"] {
        site.publish_well(&["-t", "übung/1", "-m", "x", "-q", qos]).await;
        assert_eq!(listener.line().await, "übung/1");
    }
    site.publish_well(&["-t", "€", "-m", "x", "-q", "1"]).await;
    site.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_subscribers_that_leave_while_messages_are_queued_for_them() {
    let site = site();
    let port = site.port;
    let stop = Arc::new(AtomicBool::new(false));
    let flood = |name: &'static str| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut writer = Raw::open(port).await;
            writer.connect(&Connect { id: name, ..Connect::default() }).await;
            let burst: Vec<u8> = (0..50).flat_map(|_| publish("busy/a", &[0; 100], 0, 0)).collect();
            while !stop.load(Ordering::Relaxed) {
                writer.send(&burst).await;
                writer.is_heard().await;
            }
        })
    };
    let floods = [flood("flood-1"), flood("flood-2")];
    let mut leavers = Vec::new();
    for n in 0..20 {
        leavers.push(tokio::spawn(async move {
            for round in 0..25 {
                let mut leaver = Raw::open(port).await;
                let id = format!("leaver-{n}");
                leaver.connect(&Connect { id: &id, clean: round % 2 == 0, ..Connect::default() }).await;
                leaver.send(&subscribe(1, &[("busy/#", (round % 3) as u8), ("busy/a", 0)])).await;
                while leaver.next().await.is_some_and(|packet| packet[0] & 0xf0 != 0x30) {}
            }
        }));
    }
    for leaver in leavers {
        soon("the leavers", leaver).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        soon("the floods", flood).await.unwrap();
    }
    site.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_shared_subscription_left_with_a_message_unacknowledged() {
    let site = site();
    let mut client = Raw::open(site.port).await;
    client.connect(&Connect { id: "sharer", clean: false, ..Connect::default() }).await;
    let granted = client.ask(&subscribe(1, &[("$share/group/work", 1), ("work", 1)])).await.unwrap();
    assert_eq!(granted, [0x90, 4, 0, 1, 0x80, 1], "shared subscriptions are refused, in words the client knows");
    site.publish_well(&["-t", "work", "-m", "x", "-q", "1"]).await;
    client.next().await.unwrap();
    drop(client);
    site.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_client_ids_with_characters_the_router_refuses() {
    let site = site();
    for id in ["site/pump1", "a+b", "$SYS", "#", "é✓", "a b"] {
        for _ in 0..3 {
            let mut client = site.raw(id).await;
            client.ask(&subscribe(1, &[("a", 1)])).await.unwrap();
            client.is_heard().await;
        }
    }
    site.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_more_clients_than_it_has_places_for() {
    let site = site_with(BrokerSettings { max_clients: 5, ..settings() }, Arc::default(), None);
    let mut seated = Vec::new();
    for n in 0..5 {
        seated.push(site.raw(&format!("client-{n}")).await);
    }
    for _ in 0..4 {
        let mut late = Raw::open(site.port).await;
        let _ = late.0.write_all(&packet(0x10, &[&text("MQTT")[..], &[4, 2, 0, 0], &text("late")].concat())).await;
        late.is_closed().await;
    }
    for client in &mut seated {
        client.is_heard().await;
    }
    drop(seated);
    soon("a free place", async {
        loop {
            let mut client = Raw::open(site.port).await;
            let connect = packet(
                0x10,
                &[&text("MQTT")[..], &[4, 0xc2, 0, 0], &text("late"), &text("all"), &text(PASSWORD)].concat(),
            );
            if client.0.write_all(&connect).await.is_ok() && client.next().await.is_some() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    site.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_connection_that_never_begins_its_handshake() {
    let hall = encrypted_site();
    let mut mute = Vec::new();
    for _ in 0..10 {
        mute.push(TcpStream::connect(("127.0.0.1", hall.port)).await.unwrap());
    }
    assert!(hall.publish(&hall.folder.path().join("ca.pem")).await, "while they stay connected");
    drop(mute);
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_mqtt_5_clients_and_tells_them_so_in_their_own_words() {
    let site = site();
    let connect = packet(0x10, &[&text("MQTT")[..], &[5, 2, 0, 0, 0], &text("v5")].concat());
    for more in [vec![0x20, 3, 0, 0, 0], packet(0xb0, &[0, 1, 0, 0])] {
        let mut client = Raw::open(site.port).await;
        client.send(&[&connect[..], &more].concat()).await;
        assert_eq!(client.next().await.as_deref(), Some(&[0x20, 3, 0, 0x84, 0][..]));
        client.is_closed().await;
    }
    let output = site.publish(&["-V", "5", "-t", "a", "-m", "b"]).await;
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).to_lowercase().contains("protocol version"),
        "{output:?}"
    );
    let mut old = Raw::open(site.port).await;
    old.send(&packet(0x10, &[&text("MQIsdp")[..], &[3, 2, 0, 0], &text("v3")].concat())).await;
    assert_eq!(old.next().await.as_deref(), Some(&[0x20, 2, 0, 1][..]));
    site.is_alive().await;
}

// What the gateway itself says.

#[tokio::test(flavor = "multi_thread")]
async fn points_are_said_as_they_are_read_and_kept_for_who_comes_later() {
    let site = site();
    let mut listener = site.subscribe(&["-t", "clocher/#", "-F", "%r %t %p"]).await;
    let stamp = site.clock.now();
    let reading = |value| Reading { point: point().id, stamp, value: Some(value), quality: Quality::Good };
    site.live.tell(&[reading(1_234.0)]);
    let expected = r#"clocher/water/hall/index {"label":"Eau de la salle","quality":"good","time":"2027-01-15T08:00:00Z","unit":"L","value":1234.0}"#;
    assert_eq!(listener.line().await, format!("0 {expected}"));
    let mut late = site.subscribe(&["-t", "clocher/#", "-F", "%r %t %p"]).await;
    assert_eq!(late.line().await, format!("1 {expected}"));
    // A burst within a second is said as its last.
    for value in 0..50 {
        site.live.tell(&[reading(f64::from(value))]);
    }
    assert!(listener.line().await.contains(r#""value":49.0"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_said_when_raised_and_when_closed() {
    let site = site();
    site.board.raise(Code::PortUnplugged, "/dev/ttyUSB0", "gone");
    let mut listener = site.subscribe(&["-t", "clocher/conditions/#", "-F", "%t %p"]).await;
    let line = listener.line().await;
    assert!(
        line.starts_with("clocher/conditions/port-unplugged/dev/ttyUSB0 {") && line.contains(r#""state":"open""#),
        "{line}"
    );
    site.board.close(Code::PortUnplugged, "/dev/ttyUSB0");
    assert_eq!(listener.line().await, r#"clocher/conditions/port-unplugged/dev/ttyUSB0 {"state":"closed"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_read_under_sys_by_those_who_may_and_not_by_a_bare_wildcard() {
    let site = site();
    let mut listener = site.subscribe(&["-t", "$SYS/#", "-F", "%t %p"]).await;
    let line = listener.line().await;
    assert!(line.starts_with("$SYS/broker/"), "{line}");
    let mut other = Raw::open(site.port).await;
    other.connect(&Connect { user: "other", ..Connect::default() }).await;
    assert_eq!(other.ask(&subscribe(1, &[("$SYS/#", 0), ("#", 0)])).await.unwrap(), [0x90, 4, 0, 1, 0x80, 0]);
    other.is_heard().await;
    assert!(topics::CLIENTS_CONNECTED.starts_with("$SYS/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_is_asked_for_and_the_answer_is_heard() {
    let site = site();
    let mut listener = site.subscribe(&["-t", "clocher/announce/journal", "-F", "%p"]).await;
    let ask = |payload| {
        let arguments = ["-t", "clocher/announce/ask", "-q", "1", "-m", payload];
        let site = &site;
        async move { site.publish_well(&arguments).await }
    };
    ask(r#"{"text":"Coupure d'eau","class":"important","zones":["bourg"]}"#).await;
    assert_eq!(listener.line().await, r#"{"asked_by":"mqtt:all","id":1}"#);
    ask(r#"{"text":"","class":"alert","zones":["bourg"]}"#).await;
    assert_eq!(listener.line().await, r#"{"asked_by":"mqtt:all","refused":"the text is empty"}"#);
    ask("not json").await;
    assert!(listener.line().await.contains("not a request"));
    let asked = site.speaker.asked.lock().unwrap();
    assert_eq!((asked.len(), asked[0].asked_by.as_str(), asked[0].class), (1, "mqtt:all", Class::Important));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_every_client_go_and_ends_in_time() {
    let site = site();
    let listener = site.subscribe(&["-t", "a", "--will-topic", "w", "--will-payload", "x"]).await;
    let mut raw = site.raw("raw").await;
    site.stop().await;
    raw.is_closed().await;
    listener.killed().await;
}
