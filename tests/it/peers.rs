//! The pull API and its client over real TLS on loopback, with an archive in memory and certificates of an authority
//! made for the test.

mod forms;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use clocher::{
    clock::{Clock, HeldTime, Source, Stamp},
    condition::{Board, Code},
    config::peers::{PeerSettings, PeersSettings},
    consent::{Consents, Entry as Agreed, What},
    live::Live,
    machine::{Begun, Card, Facts, Machine, Reason, Supply},
    peers::{
        Format, Ground,
        pull::{NewestFirst, Patience, PullError, PullOptions, Summary, run},
    },
    reading::{Kind, Point, PointId, Quality, Reading, Sharing, Stored},
    store::{Archive, Bucket, Cause, Entry, Gap, Keep, MemoryKeep, Page, PageRequest, StoreError, StoreFigures, Syncs},
    supervisor::{Stage, Supervisor},
    tls::{self, Authority, Identity},
    traffic::Traffic,
};
use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const NOON: i64 = 1_780_315_200_000;

// ---- an archive in memory -------------------------------------------------------------------------------------------

struct MemoryArchive {
    shelf: Mutex<Shelf>,
    head: watch::Sender<u64>,
    acknowledged: watch::Sender<BTreeMap<String, u64>>,
}

struct Shelf {
    identity: String,
    entries: Vec<Entry>,
    /// Numbers of readings that were taken out among the others.
    gone: BTreeSet<u64>,
    broken: bool,
}

impl MemoryArchive {
    fn new() -> Arc<Self> {
        let shelf = Shelf { identity: "first".to_owned(), entries: Vec::new(), gone: BTreeSet::new(), broken: false };
        Arc::new(Self { shelf: Mutex::new(shelf), head: watch::Sender::new(0), acknowledged: watch::Sender::default() })
    }

    /// `count` readings of each point in turn, ten seconds apart.
    fn produce(&self, point: &str, count: u64) {
        let mut shelf = self.shelf.lock().expect("whole");
        let first = shelf.entries.last().map_or(0, Entry::last_seq) + 1;
        for seq in first..first + count {
            let stamp = Stamp { boot: 1, mono_ms: seq * 10_000 };
            let value = Some(f64::from(u32::try_from(seq).expect("small")) * 1.5);
            let reading = Reading { point: id(point), stamp, value, quality: Quality::Good };
            shelf.entries.push(Entry::Reading(Stored { seq, reading }));
        }
        drop(shelf);
        self.head.send_replace(first + count - 1);
    }

    fn lose(&self, count: u64) {
        let mut shelf = self.shelf.lock().expect("whole");
        let first = shelf.entries.last().map_or(0, Entry::last_seq) + 1;
        let stamp = |seq: u64| Some(Stamp { boot: 1, mono_ms: seq * 10_000 });
        let last = first + count - 1;
        let gap = Gap { first, last, count, from: stamp(first), to: stamp(last), cause: Cause::SizeLimit };
        shelf.entries.push(Entry::Gap(gap));
        drop(shelf);
        self.head.send_replace(last);
    }

    /// Takes out readings among the others: what eviction by class does.
    fn thin(&self, gone: impl IntoIterator<Item = u64>) {
        self.shelf.lock().expect("whole").gone.extend(gone);
    }

    fn replace(&self, identity: &str) {
        let mut shelf = self.shelf.lock().expect("whole");
        identity.clone_into(&mut shelf.identity);
        shelf.entries.clear();
        drop(shelf);
        self.head.send_replace(0);
    }

    async fn acknowledged_up_to(&self, peer: &str, seq: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        acknowledged.wait_for(|known| known.get(peer).is_some_and(|to| *to >= seq)).await.expect("the archive lives");
    }
}

impl Archive for MemoryArchive {
    fn identity(&self) -> String {
        self.shelf.lock().expect("whole").identity.clone()
    }

    fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
        let shelf = self.shelf.lock().expect("whole");
        if shelf.broken {
            return Err(StoreError::new("read block 7", "input/output error"));
        }
        let wanted = |entry: &Entry| match entry {
            Entry::Reading(stored) => request.points.is_none_or(|points| points.contains(&stored.reading.point)),
            Entry::Gap(_) => true,
        };
        let mut page = Page { entries: Vec::new(), next: request.after, complete: false };
        let beyond = shelf.entries.iter().filter(|e| e.last_seq() > request.after && e.last_seq() <= request.upto);
        let mut thinned = None::<Gap>;
        let mut full = false;
        for entry in beyond {
            let (seq, gone) = (entry.last_seq(), shelf.gone.contains(&entry.last_seq()));
            let joins = gone && thinned.is_some();
            full = !joins && wanted(entry) && page.entries.len() + usize::from(thinned.is_some()) >= request.limit;
            if full {
                break;
            }
            page.next = seq;
            match &mut thinned {
                _ if !wanted(entry) => {}
                Some(gap) if gone => (gap.last, gap.count) = (seq, gap.count + 1),
                None if gone => {
                    let at = Some(Stamp { boot: 1, mono_ms: seq * 10_000 });
                    thinned = Some(Gap { first: seq, last: seq, count: 1, from: at, to: at, cause: Cause::SizeLimit });
                }
                _ => page.entries.push(entry.clone()),
            }
        }
        if let Some(gap) = thinned {
            let place = page.entries.partition_point(|entry| entry.last_seq() < gap.last);
            page.entries.insert(place, Entry::Gap(gap));
        }
        if full {
            return Ok(page);
        }
        page.complete = shelf.entries.last().is_none_or(|last| last.last_seq() <= page.next.max(request.upto));
        Ok(page)
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn latest(&self) -> Vec<Stored> {
        let shelf = self.shelf.lock().expect("whole");
        let mut newest = BTreeMap::new();
        for entry in &shelf.entries {
            if let Entry::Reading(stored) = entry {
                newest.insert(stored.reading.point.clone(), stored.clone());
            }
        }
        newest.into_values().collect()
    }

    fn history(&self, _: &PointId, _: i64, _: i64, _: i64) -> Result<Vec<Bucket>, StoreError> {
        Ok(Vec::new())
    }

    fn acknowledge(&self, peer: &str, seq: u64) -> Result<(), StoreError> {
        self.acknowledged.send_modify(|known| {
            known.insert(peer.to_owned(), seq);
        });
        Ok(())
    }

    fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.acknowledged.borrow().clone()
    }

    fn gaps(&self) -> Vec<Gap> {
        let shelf = self.shelf.lock().expect("whole");
        let gaps = shelf.entries.iter().filter_map(|entry| match entry {
            Entry::Gap(gap) => Some(gap.clone()),
            Entry::Reading(_) => None,
        });
        gaps.collect()
    }

    fn figures(&self) -> StoreFigures {
        let shelf = self.shelf.lock().expect("whole");
        let last_seq = shelf.entries.last().map_or(0, Entry::last_seq);
        StoreFigures { first_seq: u64::from(last_seq > 0), last_seq, ..StoreFigures::default() }
    }
}

// ---- a gateway ------------------------------------------------------------------------------------------------------

const PUBLIC: &str = "electricity/mairie/power";
const INTERNAL: &str = "water/hall/index";
const PERSONAL: &str = "electricity/flat/power";

fn id(text: &str) -> PointId {
    text.parse().expect("an id")
}

fn point(name: &str, sharing: Sharing) -> Point {
    Point {
        id: id(name),
        label: "Salle des fêtes".to_owned(),
        unit: "W".to_owned(),
        kind: Kind::Gauge,
        decimals: 1,
        interval: Some(Duration::from_secs(10)),
        range: Some(0.0..=9_000.0),
        sharing,
    }
}

fn peer(name: &str, sharing: &[Sharing], consent: Option<&str>) -> PeerSettings {
    let sharing = BTreeSet::from_iter(sharing.iter().copied());
    PeerSettings { name: name.to_owned(), sharing, consent: consent.map(ToOwned::to_owned), label: None }
}

struct Gateway {
    archive: Arc<MemoryArchive>,
    keep: Arc<MemoryKeep>,
    consents: Consents,
    board: Board,
    clock: Clock,
    time: Arc<HeldTime>,
    traffic: Arc<Traffic>,
    supervisor: Supervisor,
    address: SocketAddr,
    authority: Authority,
    directory: tempfile::TempDir,
}

impl Gateway {
    fn start() -> Self {
        Self::with_pages_of(1 << 20)
    }

    fn with_pages_of(page_bytes: usize) -> Self {
        Self::with(page_bytes, None)
    }

    fn with_budget_of(bytes: u64) -> Self {
        Self::with(1 << 20, Some(bytes))
    }

    fn with(page_bytes: usize, monthly_budget: Option<u64>) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("Agglomération").expect("an authority");
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, authority.certificate()).expect("written");
        let issued = authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("issued");
        let identity = issued.write(directory.path(), "gateway").expect("written");

        let time = HeldTime::at(NOON, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        clock.observe();
        let (archive, keep, board) = (MemoryArchive::new(), Arc::new(MemoryKeep::default()), Board::new(clock.clone()));
        let supervisor = Supervisor::new(board.clone());
        let paris = TimeZone::get("Europe/Paris").expect("bundled");
        let traffic = Arc::new(Traffic::open(keep.clone(), clock.clone(), paris, monthly_budget));
        let points =
            [point(PUBLIC, Sharing::Public), point(INTERNAL, Sharing::Internal), point(PERSONAL, Sharing::Personal)];
        let consents = Consents::open(keep.clone(), clock.clone());
        let ground = Ground {
            supervisor: supervisor.clone(),
            board: board.clone(),
            clock: clock.clone(),
            live: Live::new(points, []),
            archive: archive.clone(),
            keep: keep.clone(),
            traffic: Arc::clone(&traffic),
            alarms: BTreeSet::from([id(INTERNAL)]),
            consents: consents.clone(),
            machine: Machine::telling(facts()),
            gateway: "mairie".to_owned(),
            commune: "Saint-Exemple".to_owned(),
            time_zone: TimeZone::get("Europe/Paris").expect("a zone"),
        };
        let settings = PeersSettings {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            identity: Some(identity.clone()),
            authority: ca.clone().into(),
            revoked: None,
            page_bytes,
            absent_after: Duration::from_secs(86_400),
            monthly_budget,
            peers: vec![
                peer("agglo", &[Sharing::Public, Sharing::Internal], None),
                peer("press", &[Sharing::Public], None),
                peer("energy", &[Sharing::Public, Sharing::Personal], Some("Mme Roche, 3 mai 2026")),
                peer("sly", &[Sharing::Personal], None),
            ],
        };
        let identity = Identity::load(&identity.0, &identity.1).expect("an identity");
        let tls = tls::server_mutual(&identity, &ca.clone().into(), None, &clock).expect("a configuration");
        let listener = TcpListener::bind(settings.listen).expect("bound");
        let address = listener.local_addr().expect("an address");
        clocher::peers::start(settings, listener, tls, ground);
        Self { archive, keep, consents, board, clock, time, traffic, supervisor, address, authority, directory }
    }

    fn certificate(&self, name: &str) -> (PathBuf, PathBuf) {
        self.authority.issue_client(name).expect("issued").write(self.directory.path(), name).expect("written")
    }

    fn client(&self, name: &str) -> Client {
        let (certificate, key) = self.certificate(name);
        self.client_with(Some(&Identity::load(&certificate, &key).expect("an identity")))
    }

    fn client_with(&self, identity: Option<&Identity>) -> Client {
        let tls = tls::client(identity, &self.directory.path().join("ca.pem")).expect("a configuration");
        Client { address: self.address, tls: tokio_rustls::TlsConnector::from(tls) }
    }

    fn pull(&self, through: SocketAddr) -> PullOptions {
        let (certificate, key) = self.certificate("agglo");
        PullOptions {
            url: format!("https://localhost:{}", through.port()),
            certificate,
            key,
            authority: self.directory.path().join("ca.pem"),
            cursor_file: self.directory.path().join("cursor.json"),
            output: Some(self.directory.path().join("lines.jsonl")),
            format: Format::Rows,
            newest_first: None,
            once: true,
            wait: Duration::from_secs(60),
            limit: 50,
            progress: true,
            patience: Patience {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(2),
                asked: Duration::from_secs(3_600),
                tries: 1_000,
                silence: Duration::from_secs(10),
            },
        }
    }

    fn pulled(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("lines.jsonl")).expect("a file of lines")
    }

    fn accesses(&self) -> Vec<Value> {
        let records = self.keep.list("access").expect("listed");
        records.iter().map(|(_, value)| serde_json::from_slice(value).expect("JSON")).collect()
    }
}

/// Numbers of the rows of a text, in its order.
fn numbers(text: &str) -> Vec<u64> {
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("whole lines of JSON"));
    rows.filter_map(|row| row["seq"].as_u64()).collect()
}

// ---- a client -------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Client {
    address: SocketAddr,
    tls: tokio_rustls::TlsConnector,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn next(&self) -> String {
        let lines = self.lines();
        lines.last().and_then(|line| line["next"].as_str()).expect("a cursor").to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    async fn try_get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let stream = self.tls.connect(name, stream).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("{e:?}"))?;
        let driver = tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let response = sender.send_request(request).await.map_err(|e| format!("{e:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| format!("{e:?}"))?.to_bytes();
        driver.abort();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn get(&self, path: &str) -> Answer {
        self.try_get(path, &[]).await.expect("an answer")
    }
}

// ---- who is let in --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let gateway = Gateway::start();
    let foreign = Authority::new("Agglomération").expect("an authority of the same name");
    let issued = foreign.issue_client("agglo").expect("issued");
    let (certificate, key) = issued.write(gateway.directory.path(), "foreign").expect("written");
    let identity = Identity::load(&certificate, &key).expect("an identity");
    let refused = gateway.client_with(Some(&identity)).try_get("/v1/health", &[]).await.expect_err("refused");
    assert!(refused.contains("UnknownCA") || refused.contains("DecryptError"), "{refused}");
    let refused = gateway.client_with(None).try_get("/v1/health", &[]).await.expect_err("refused");
    assert!(refused.contains("CertificateRequired"), "{refused}");
    assert_eq!(gateway.client("agglo").get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn a_certificate_the_configuration_does_not_know_is_told_so() {
    let gateway = Gateway::start();
    for path in ["/v1/observations", "/v1/points", "/v1/health", "/v1/gaps"] {
        let refused = gateway.client("stranger").get(path).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (403, &json!("unknown-peer")), "{path}");
        assert!(refused.json()["detail"].as_str().expect("a text").contains("\"stranger\""));
    }
    assert!(gateway.accesses().is_empty());
}

#[tokio::test]
async fn each_peer_sees_its_sharing_classes_and_nothing_of_the_others() {
    let gateway = Gateway::start();
    for name in [PUBLIC, INTERNAL, PERSONAL, PUBLIC] {
        gateway.archive.produce(name, 10);
    }
    for (name, seen) in
        [("agglo", &[INTERNAL, PUBLIC][..]), ("press", &[PUBLIC]), ("energy", &[PERSONAL, PUBLIC]), ("sly", &[])]
    {
        let client = gateway.client(name);
        let page = client.get("/v1/observations").await;
        let lines = page.lines();
        let points: BTreeSet<&str> = lines.iter().filter_map(|line| line["point"].as_str()).collect();
        assert_eq!(points, BTreeSet::from_iter(seen.iter().copied()), "{name}");
        assert_eq!(lines.last().expect("a line")["complete"], true, "{name}");
        let told = client.get("/v1/points").await.json();
        let points: Vec<_> = told["points"].as_array().expect("points").iter().map(|p| p["id"].as_str()).collect();
        let mut expected: Vec<_> = seen.iter().copied().map(Some).collect();
        expected.sort_unstable();
        assert_eq!(points, expected, "{name}");
        let by_range = client.get("/v1/observations?from=1&to=40").await;
        assert_eq!(by_range.lines().len(), lines.len(), "{name}: a range shows no more");
        for hidden in [PUBLIC, INTERNAL, PERSONAL].iter().filter(|point| !seen.contains(point)) {
            let text = String::from_utf8_lossy(&page.body).into_owned() + &String::from_utf8_lossy(&by_range.body);
            assert!(!text.contains(hidden), "{name} sees {hidden}");
        }
    }
}

/// What the mayor records about the flat and a peer.
fn agreed(what: What, peer: &str) -> Agreed {
    let at = Stamp { boot: 1, mono_ms: 0 };
    Agreed { what, points: vec![id(PERSONAL)], peers: vec![peer.to_owned()], at, by: "Jeanne Vidal".to_owned() }
}

fn withdrawn(peer: &str) -> Agreed {
    agreed(What::Withdrawn { person: "Mme Roche".to_owned() }, peer)
}

fn given(peer: &str) -> Agreed {
    let [person, purpose, paper, dated] = ["Mme Roche", "", "classeur RGPD", "2026-05-03"].map(ToOwned::to_owned);
    agreed(What::Given { person, purpose, paper, dated }, peer)
}

#[tokio::test]
async fn a_consent_recorded_on_the_panel_lets_a_personal_point_leave_and_its_withdrawal_keeps_it_here() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 5);
    gateway.archive.produce(PERSONAL, 5);
    let seen = async |name: &str| {
        let client = gateway.client(name);
        let told = client.get("/v1/points").await.json();
        let told = told["points"].as_array().expect("points").iter().any(|point| point["id"] == PERSONAL);
        let pages = ["/v1/observations", "/v1/observations?from=1&to=10", "/v1/observations?format=columns"];
        for path in pages {
            let page = client.get(path).await;
            assert_eq!(page.lines().iter().any(|line| line["point"] == PERSONAL), told, "{name} {path}");
        }
        told
    };
    assert_eq!([seen("energy").await, seen("sly").await, seen("agglo").await], [true, false, false]);
    for peer in ["sly", "agglo", "press"] {
        gateway.consents.give(given(peer)).expect("recorded");
    }
    assert!(seen("sly").await, "its class and a consent");
    assert!(!seen("agglo").await && !seen("press").await, "a consent without the class is not enough");
    gateway.consents.withdraw(withdrawn("energy")).expect("recorded");
    gateway.consents.withdraw(withdrawn("sly")).expect("recorded");
    assert_eq!(
        [seen("energy").await, seen("sly").await],
        [false, false],
        "what the configuration says is withdrawn too"
    );
    gateway.consents.give(given("energy")).expect("recorded");
    assert_eq!([seen("energy").await, seen("sly").await], [true, false]);
}

#[tokio::test]
async fn a_withdrawal_counts_at_once_for_a_pull_that_is_waiting() {
    let gateway = Gateway::start();
    gateway.archive.produce(PERSONAL, 5);
    let client = gateway.client("energy");
    let cursor = client.get("/v1/observations").await.lines().last().expect("a line")["next"].clone();
    let before = gateway.archive.head.receiver_count();
    let path = format!("/v1/observations?after={}&wait=30", cursor.as_str().expect("a cursor"));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get(&path).await }
    });
    while gateway.archive.head.receiver_count() == before {
        tokio::task::yield_now().await;
    }
    gateway.consents.withdraw(withdrawn("energy")).expect("recorded");
    gateway.archive.produce(PERSONAL, 5);
    gateway.archive.produce(PUBLIC, 1);
    let page = waiting.await.expect("answered");
    let points: Vec<_> = page.lines().iter().filter_map(|line| line["point"].as_str().map(ToOwned::to_owned)).collect();
    assert!(points.iter().all(|point| point == PUBLIC), "{points:?}");
}

#[tokio::test]
async fn what_is_not_understood_is_answered_in_json() {
    let gateway = Gateway::start();
    let client = gateway.client("agglo");
    for (path, status, code) in [
        ("/", 404, "no-such-path"),
        ("/v1/observations/1", 404, "no-such-path"),
        ("/v1/observations?after=zzz", 400, "bad-query"),
        ("/v1/observations?%zz=1", 400, "bad-query"),
        ("/v1/points?limit=1", 400, "bad-query"),
    ] {
        let refused = client.get(path).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (status, &json!(code)), "{path}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
}

// ---- pages ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_and_acknowledges_what_came_before() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 25);
    gateway.archive.lose(5);
    gateway.archive.produce(PUBLIC, 10);
    let client = gateway.client("agglo");
    let (mut path, mut lines, mut cursors) = ("/v1/observations?limit=10".to_owned(), Vec::new(), Vec::new());
    loop {
        let page = client.get(&path).await;
        assert_eq!(page.header("content-type"), Some("application/x-ndjson"));
        let mut of_page = page.lines();
        let last = of_page.pop().expect("a last line");
        lines.extend(of_page);
        cursors.push(page.next());
        if last["complete"] == true {
            break;
        }
        path = format!("/v1/observations?limit=10&after={}", page.next());
    }
    let expected: Vec<u64> = (1..=25).chain(31..=40).collect();
    assert_eq!(lines.iter().filter_map(|line| line["seq"].as_u64()).collect::<Vec<_>>(), expected);
    assert_eq!(lines[25]["gap"]["first"], 26, "the gap is told in its place");
    assert_eq!(gateway.archive.acknowledged()["agglo"], 34, "what the last page held is not acknowledged yet");

    client.get(&format!("/v1/observations?after={}", cursors[cursors.len() - 1])).await;
    assert_eq!(gateway.archive.acknowledged()["agglo"], 40);
    let again = client.get(&format!("/v1/observations?after={}", cursors[0])).await;
    assert_eq!(again.lines()[0]["seq"], 11, "an old cursor can be used again");
    assert_eq!(gateway.archive.acknowledged()["agglo"], 40, "and takes nothing back");
    assert!(!gateway.archive.acknowledged().contains_key("press"), "each peer has its own");
}

#[tokio::test]
async fn a_range_is_asked_again_by_number_or_by_time_without_moving_anything() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 500);
    let client = gateway.client("agglo");
    let page = client.get("/v1/observations?from=11&to=20").await;
    let seqs: Vec<_> = page.lines().iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs, (11..=20).collect::<Vec<_>>());
    assert_eq!(page.lines().last(), Some(&json!({"continue": 21, "complete": true})));

    // A reading each ten seconds: numbers 180 to 240.
    let mut path = "/v1/observations?limit=25&from=2026-06-01T12:30:00Z&to=2026-06-01T12:40:00Z".to_owned();
    let (mut seqs, start) = (Vec::new(), path.clone());
    loop {
        let page = client.get(&path).await;
        let lines = page.lines();
        seqs.extend(lines.iter().filter_map(|line| line["seq"].as_u64()));
        let last = lines.last().expect("a last line");
        if last["complete"] == true {
            break;
        }
        path = format!("{start}&continue={}", last["continue"]);
    }
    assert_eq!(seqs, (180..=240).collect::<Vec<_>>());
    assert!(gateway.archive.acknowledged().is_empty());
    assert!(gateway.accesses().iter().all(|access| access["again"] == true), "{:?}", gateway.accesses());
}

#[tokio::test]
async fn a_long_poll_wakes_at_the_next_commit_and_not_for_what_is_hidden() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 3);
    let client = gateway.client("press");
    let cursor = client.get("/v1/observations").await.next();
    let poll = tokio::spawn({
        let (client, cursor) = (client.clone(), cursor.clone());
        async move { client.get(&format!("/v1/observations?after={cursor}&wait=60")).await }
    });
    gateway.archive.acknowledged_up_to("press", 3).await;
    gateway.archive.produce(INTERNAL, 5);
    gateway.archive.produce(PUBLIC, 1);
    let page = poll.await.expect("polled");
    let lines = page.lines();
    assert_eq!((lines.len(), &lines[0]["seq"]), (2, &json!(9)));
}

#[tokio::test]
async fn a_long_poll_is_answered_when_the_gateway_stops() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 3);
    let client = gateway.client("press");
    let cursor = client.get("/v1/observations").await.next();
    let poll = tokio::spawn({
        let (client, cursor) = (client.clone(), cursor.clone());
        async move { client.get(&format!("/v1/observations?after={cursor}&wait=60")).await }
    });
    gateway.archive.acknowledged_up_to("press", 3).await;
    assert!(gateway.supervisor.stop(Duration::from_secs(10)).await.is_empty());
    assert_eq!(poll.await.expect("polled").next(), cursor);
}

#[tokio::test]
async fn what_is_packed_is_the_same_as_what_is_not() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 500);
    let client = gateway.client("agglo");
    for format in ["rows", "columns"] {
        let path = format!("/v1/observations?format={format}");
        let plain = client.get(&path).await;
        assert_eq!(plain.header("content-encoding"), None);
        let zstd = client.try_get(&path, &[("accept-encoding", "gzip, zstd")]).await.expect("an answer");
        assert_eq!(zstd.header("content-encoding"), Some("zstd"));
        assert_eq!(zstd::stream::decode_all(&zstd.body[..]).expect("zstd"), plain.body);
        let gzip = client.try_get(&path, &[("accept-encoding", "gzip;q=1, zstd;q=0.5")]).await.expect("an answer");
        assert_eq!(gzip.header("content-encoding"), Some("gzip"));
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip.body[..]), &mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain.body);
        assert!(zstd.body.len() * 5 < plain.body.len(), "{} of {}", zstd.body.len(), plain.body.len());
        for answer in [plain, zstd, gzip] {
            assert_eq!(answer.header("vary"), Some("accept, accept-encoding"));
        }
    }
}

#[tokio::test]
async fn no_page_is_larger_than_the_limit_and_none_is_lost_between_them() {
    const LIMIT: usize = 16 << 10;
    let gateway = Gateway::with_pages_of(LIMIT);
    gateway.archive.produce(PUBLIC, 2_000);
    let client = gateway.client("agglo");
    for format in ["rows", "columns"] {
        let (mut seqs, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = client.get(&format!("/v1/observations?limit=20000&format={format}{after}")).await;
            assert!(page.body.len() <= LIMIT + 120, "{} bytes", page.body.len());
            let mut lines = page.lines();
            let last = lines.pop().expect("a last line");
            for line in lines {
                match line["seq"].as_array() {
                    None => seqs.extend(line["seq"].as_u64()),
                    Some(steps) => {
                        let mut seq = 0;
                        seqs.extend(steps.iter().map(|step| {
                            seq += step.as_u64().expect("a step");
                            seq
                        }));
                    }
                }
            }
            pages += 1;
            if last["complete"] == true {
                break;
            }
            after = format!("&after={}", page.next());
        }
        assert_eq!(seqs, (1..=2_000).collect::<Vec<_>>(), "{format}");
        assert!(pages > 1, "{format}");
    }
}

#[tokio::test]
async fn the_cursor_of_a_replaced_store_is_told_where_to_begin_again() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 30);
    let client = gateway.client("agglo");
    let cursor = client.get("/v1/observations").await.next();
    gateway.archive.replace("second");
    gateway.archive.produce(PUBLIC, 50);
    let refused = client.get(&format!("/v1/observations?after={cursor}")).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (410, &json!("cursor-of-another-store")));
    assert_eq!(refused.json()["oldestSeq"], 1);
    let restart = refused.json()["restart"].as_str().expect("a cursor").to_owned();
    assert_eq!(client.get(&format!("/v1/observations?after={restart}")).await.lines()[0]["seq"], 1);
    assert_eq!(gateway.archive.acknowledged().get("agglo"), Some(&0), "the old cursor acknowledged nothing here");
}

#[tokio::test]
async fn a_card_that_cannot_be_read_is_an_answer_and_the_next_pull_works() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 3);
    let client = gateway.client("agglo");
    gateway.archive.shelf.lock().expect("whole").broken = true;
    let refused = client.get("/v1/observations").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (503, &json!("store-unreadable")));
    let after: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((5..=30).contains(&after));
    gateway.archive.shelf.lock().expect("whole").broken = false;
    assert_eq!(client.get("/v1/observations").await.lines().len(), 4);
}

#[tokio::test]
async fn documents_are_not_sent_again_while_they_are_the_same() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 3);
    gateway.archive.lose(2);
    let client = gateway.client("agglo");
    for path in ["/v1/points", "/v1/gaps", "/v1/health"] {
        let first = client.get(path).await;
        let tag = first.header("etag").expect("a tag").to_owned();
        let again = client.try_get(path, &[("if-none-match", &tag), ("accept-encoding", "zstd")]).await.expect("told");
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
    }
    let tag = client.get("/v1/gaps").await.header("etag").expect("a tag").to_owned();
    gateway.archive.lose(7);
    let changed = client.try_get("/v1/gaps", &[("if-none-match", &tag)]).await.expect("told");
    assert_eq!((changed.status.as_u16(), &changed.json()["gaps"][1]["count"]), (200, &json!(7)));
}

/// Of a box that has seen much.
fn facts() -> Facts {
    let last = Stamp { boot: 4_000_000_000, mono_ms: u64::MAX };
    let start = Begun {
        boot: 7,
        run: String::new(),
        reason: Reason::HardwareWatchdog,
        detail: "x".repeat(200),
        ran_ms: Some(u64::MAX),
    };
    let syncs = Syncs { count: 1 << 50, median_ms: 1_500, most_ms: 2_500, longest_ms: u32::MAX };
    Facts {
        starts: vec![start; 20],
        supply: Some(Supply { low: true, falls: 1 << 50, last: Some(last) }),
        card: Card {
            written: Some(1 << 50),
            since: Some(last),
            size: Some(1 << 40),
            room: Some((1 << 39, 1 << 40)),
            syncs,
            life: Some(11),
        },
    }
}

#[tokio::test]
async fn how_the_box_is_stands_in_the_digest_and_in_the_metrics() {
    let gateway = Gateway::start();
    let digest = gateway.client("agglo").get("/v1/health").await.json();
    let machine = &digest["machine"];
    assert_eq!((&machine["start"], &machine["supplyLow"]), (&json!("hardware-watchdog"), &json!(true)));
    assert_eq!((&machine["card"]["written"], &machine["card"]["syncMedianMs"]), (&json!(1_u64 << 50), &json!(1_500)));
    let metrics = gateway.client("agglo").get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        "clocher_last_start{reason=\"hardware-watchdog\"} 1",
        "clocher_last_start{reason=\"crash\"} 0",
        "clocher_supply_low 1",
        "clocher_card_sync_seconds{share=\"0.5\"} 1.5",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line:?} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn the_health_digest_stays_under_two_kilobytes_whatever_happens() {
    let gateway = Gateway::start();
    for code in Code::ALL {
        for n in 0..20 {
            gateway.board.raise(*code, &format!("device number {n} with a rather long name"), "detail ".repeat(20));
        }
    }
    for n in 0..40 {
        let name = format!("unit number {n} with a rather long name, {}", "é".repeat(60));
        gateway.supervisor.unit(Stage::Inputs, name, |_| async { Err("broken".into()) });
    }
    let health = gateway.client("agglo").get("/v1/health").await;
    assert!(health.body.len() < 2_048, "{} bytes", health.body.len());
    let digest = health.json();
    assert_eq!((&digest["gateway"], &digest["clock"]["source"]), (&json!("mairie"), &json!("ntp")));
    assert_eq!(digest["conditions"]["codes"]["water-leak"], 20);
    let text = String::from_utf8_lossy(&health.body).into_owned();
    assert!(!text.contains("device number"), "conditions are counted, not shown");
}

#[tokio::test]
async fn every_pull_is_in_the_access_register() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 30);
    gateway.archive.produce(PERSONAL, 30);
    let agglo = gateway.client("agglo");
    let cursor = agglo.get("/v1/observations?limit=20").await.next();
    agglo.get(&format!("/v1/observations?after={cursor}")).await;
    gateway.client("energy").get("/v1/observations?from=40&to=49").await;
    assert!(gateway.supervisor.stop(Duration::from_secs(10)).await.is_empty());
    let told: Vec<_> = gateway
        .accesses()
        .iter()
        .map(|a| (a["peer"].clone(), a["from"].clone(), a["to"].clone(), a["count"].clone(), a["address"].clone()))
        .collect();
    let here = json!("127.0.0.1");
    assert_eq!(
        told,
        [
            (json!("agglo"), json!(1), json!(30), json!(30), here.clone()),
            (json!("energy"), json!(40), json!(49), json!(10), here),
        ]
    );
}

#[tokio::test]
async fn the_newest_polls_of_a_peer_end_its_oldest_and_leave_the_others_alone() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 3);
    let (greedy, other) = (gateway.client("agglo"), gateway.client("press"));
    let cursor = greedy.get("/v1/observations").await.next();
    let poll = |client: &Client| {
        let (client, path) = (client.clone(), format!("/v1/observations?after={cursor}&wait=60"));
        tokio::spawn(async move { client.get(&path).await })
    };
    let others = poll(&other);
    gateway.archive.acknowledged_up_to("press", 3).await;
    let (first, _, rest) = futures_util::future::select_all((0..5).map(|_| poll(&greedy))).await;
    assert_eq!(first.expect("answered").next(), cursor, "one poll ended without news");
    gateway.archive.produce(PUBLIC, 1);
    for poll in rest.into_iter().chain([others]) {
        assert_eq!(poll.await.expect("answered").lines().len(), 2);
    }
}

// ---- newest first, later, not too much ------------------------------------------------------------------------------

#[tokio::test]
async fn the_newest_of_each_point_is_told_first_and_moves_no_cursor() {
    let gateway = Gateway::start();
    for name in [PUBLIC, INTERNAL, PERSONAL, PUBLIC] {
        gateway.archive.produce(name, 500);
    }
    let client = gateway.client("agglo");
    let newest = client.get("/v1/observations?order=newest").await;
    let lines = newest.lines();
    let told: Vec<_> = lines.iter().map(|line| (line["seq"].as_u64(), line["point"].as_str())).collect();
    assert_eq!(told, [(Some(2_000), Some(PUBLIC)), (Some(1_000), Some(INTERNAL)), (None, None)]);
    assert_eq!(lines[2], json!({"before": 1_000, "complete": true}));
    assert!(newest.body.len() < 1_000, "{} bytes before a backlog of 2 000 readings", newest.body.len());
    assert!(gateway.archive.acknowledged().is_empty());
    let register = gateway.accesses();
    assert_eq!(
        (&register[0]["from"], &register[0]["to"], &register[0]["again"]),
        (&json!(1_000), &json!(2_000), &json!(true))
    );

    // What did not fit a page is told from there on.
    let first = client.get("/v1/observations?order=newest&limit=1").await.lines();
    assert_eq!((&first[0]["seq"], &first[1]), (&json!(2_000), &json!({"before": 2_000, "complete": false})));
    let rest = client.get("/v1/observations?order=newest&limit=1&before=2000").await.lines();
    assert_eq!((&rest[0]["seq"], &rest[1]), (&json!(1_000), &json!({"before": 1_000, "complete": true})));

    // The backlog gives it again in its place: the same row, to the letter.
    let backlog = client.get("/v1/observations?limit=20000").await.lines();
    assert_eq!(backlog.iter().filter(|line| **line == lines[0]).count(), 1);
}

#[tokio::test]
async fn a_puller_that_comes_back_knows_how_things_are_before_the_backlog() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 3_000);
    gateway.archive.produce(INTERNAL, 1);
    let state = gateway.directory.path().join("now.jsonl");
    // The backlog never gets through; the first kilobytes do.
    let proxy = Proxy::start(gateway.address, |_| 8_000).await;
    let mut options = PullOptions { limit: 20_000, ..gateway.pull(proxy.address) };
    options.newest_first = Some(NewestFirst { file: state.clone(), after: Duration::ZERO });
    options.patience.tries = 5;
    pull(options.clone()).await.expect_err("the backlog does not fit");
    let now = std::fs::read_to_string(&state).expect("a state");
    assert_eq!(numbers(&now), [3_001, 3_000]);
    assert_eq!(gateway.pulled(), "");

    options.url = gateway.pull(gateway.address).url;
    let summary = pull(options).await.expect("pulled");
    assert_eq!((summary.states, numbers(&gateway.pulled())), (1, (1..=3_001).collect()));
}

#[tokio::test]
async fn the_end_says_when_to_come_back_unless_the_peer_waits_here() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 30);
    let client = gateway.client("agglo");
    let hint = |answer: &Answer| answer.header("retry-after").map(|text| text.parse::<u64>().expect("seconds"));
    assert_eq!(hint(&client.get("/v1/observations?limit=10").await), None, "there is more");
    let mut hints = Vec::new();
    for _ in 0..20 {
        hints.extend(hint(&client.get("/v1/observations").await));
    }
    let (least, most) = (hints.iter().min().expect("told"), hints.iter().max().expect("told"));
    assert!(hints.len() == 20 && (30..=99).contains(least) && most - least <= 9, "a share of its own: {hints:?}");
    assert_eq!(hint(&client.get("/v1/observations?wait=60").await), None);
}

#[tokio::test]
async fn a_follower_without_long_polls_comes_back_when_it_is_asked_to() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 10);
    let (stop, mut options) = (CancellationToken::new(), gateway.pull(gateway.address));
    (options.once, options.wait) = (false, Duration::ZERO);
    let follower = tokio::spawn(run(options.clone(), stop.clone()));
    let pulled = || std::fs::read_to_string(options.output.as_ref().expect("a file")).unwrap_or_default();
    let other = gateway.client("press");
    // Other requests measure time: the follower would have made as many.
    while pulled().is_empty() {
        other.get("/v1/health").await;
    }
    for _ in 0..50 {
        other.get("/v1/health").await;
    }
    assert!(!gateway.archive.acknowledged().contains_key("agglo"), "it has not asked again");
    stop.cancel();
    follower.await.expect("no panic").expect("a clean end");

    options.patience.asked = Duration::from_millis(1);
    let stop = CancellationToken::new();
    let follower = tokio::spawn(run(options, stop.clone()));
    gateway.archive.acknowledged_up_to("agglo", 10).await;
    gateway.archive.produce(PUBLIC, 10);
    gateway.archive.acknowledged_up_to("agglo", 20).await;
    stop.cancel();
    follower.await.expect("no panic").expect("a clean end");
    assert_eq!(numbers(&gateway.pulled()), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_spent_budget_holds_readings_back_until_the_month_ends_and_lets_alarms_through() {
    let gateway = Gateway::with_budget_of(10_000_000);
    for name in [PUBLIC, INTERNAL] {
        gateway.archive.produce(name, 20);
    }
    let client = gateway.client("agglo");
    let cursor = client.get("/v1/observations?limit=30").await.next();
    gateway.traffic.counters().sent(10_000_000);

    for path in [format!("/v1/observations?after={cursor}"), "/v1/observations?from=1&to=9".to_owned()] {
        let refused = client.get(&path).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (429, &json!("budget-spent")), "{path}");
        assert_eq!(refused.json()["limit"], 10_000_000);
        let after: u64 = refused.header("retry-after").expect("told").parse().expect("seconds");
        // From noon of 1 June in UTC to the end of June in Paris, and up to an hour of spread.
        let left = 29 * 86_400 + 10 * 3_600;
        assert!((left..=left + 3_661).contains(&after), "{after}");
    }
    assert!(!gateway.archive.acknowledged().contains_key("agglo"), "what was refused acknowledges nothing");
    assert!(gateway.board.is_open(Code::DataBudget, "peers"));

    let digest = client.get("/v1/health").await.json();
    assert_eq!((&digest["traffic"]["month"], &digest["traffic"]["budget"]), (&json!("2026-06"), &json!(10_000_000)));
    assert!(digest["traffic"]["bytes"].as_u64().expect("bytes") > 10_000_000);
    let points = |answer: Answer| -> Vec<_> {
        answer.lines().iter().filter_map(|line| line["point"].as_str().map(ToOwned::to_owned)).collect()
    };
    let alarms = points(client.get("/v1/observations?order=newest").await);
    assert_eq!(alarms, [INTERNAL], "a contact with an alarm");
    gateway.board.raise(Code::WaterLeak, "electricity/mairie", "it leaks");
    gateway.board.raise(Code::PeerAbsent, "electricity/flat", "no alarm");
    let alarms = points(client.get("/v1/observations?order=newest").await);
    assert_eq!(alarms, [INTERNAL, PUBLIC], "and what an open alarm names");
    let others = points(gateway.client("press").get("/v1/observations?order=newest").await);
    assert_eq!(others, [PUBLIC], "still nothing a peer may not see");

    gateway.time.advance(30 * 86_400_000);
    let page = client.get(&format!("/v1/observations?after={cursor}")).await;
    assert_eq!(numbers(&String::from_utf8_lossy(&page.body)), (31..=40).collect::<Vec<_>>(), "all of it waited");
}

#[tokio::test]
async fn a_single_pull_does_not_wait_for_the_month_to_end() {
    let gateway = Gateway::with_budget_of(10_000_000);
    gateway.archive.produce(PUBLIC, 20);
    gateway.traffic.counters().sent(10_000_000);
    let ended = pull(gateway.pull(gateway.address)).await.expect_err("nothing to be had");
    assert!(matches!(&ended, PullError::ComeBack { code, .. } if code == "budget-spent"), "{ended}");
}

#[tokio::test]
async fn every_byte_of_a_connection_is_counted_handshake_and_tls_included() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 300);
    let carried = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&carried);
    let through = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let (address, to) = (through.local_addr().expect("an address"), gateway.address);
    let way = tokio::spawn(async move {
        let (mut client, _) = through.accept().await.expect("a client");
        let mut server = TcpStream::connect(to).await.expect("connected");
        let both = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        let (there, back) = both.expect("a clean end");
        counted.store(there + back, Ordering::SeqCst);
    });
    let client = Client { address, ..gateway.client("agglo") };
    let page = client.get("/v1/observations").await;
    drop(client);
    way.await.expect("carried");
    assert!(gateway.supervisor.stop(Duration::from_secs(10)).await.is_empty());
    let carried = carried.load(Ordering::SeqCst);
    assert!(carried as usize > page.body.len() + 1_500, "{carried} bytes, a handshake among them");
    assert_eq!(gateway.traffic.counters().total(), carried);
}

// ---- the listener ---------------------------------------------------------------------------------------------------

mod listener {
    use std::convert::Infallible;

    use clocher::serve::{Limits, serve};
    use futures_util::StreamExt;
    use tokio::sync::oneshot;
    use warp::Filter;

    use super::*;

    /// Short enough to be waited for, long enough for a loaded machine to do its part.
    const SHORT: Duration = Duration::from_millis(400);
    const LONG: Duration = Duration::from_secs(60);

    const LIMITS: Limits = Limits {
        connections: 24,
        handshakes: 24,
        per_address: 4,
        per_certificate: 4,
        handshake: LONG,
        header: LONG,
        idle: LONG,
        stall: LONG,
        request: LONG,
        life: LONG,
    };

    struct Listener {
        address: SocketAddr,
        tls: tokio_rustls::TlsConnector,
        stop: CancellationToken,
        ended: JoinHandle<std::io::Result<()>>,
        _directory: tempfile::TempDir,
    }

    type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

    impl Listener {
        fn start<F>(limits: Limits, filter: F) -> Self
        where
            F: Filter<Error = Infallible> + Clone + Send + Sync + 'static,
            F::Extract: warp::Reply + Send,
            F::Future: Send,
        {
            let directory = tempfile::tempdir().expect("a folder");
            let own = tls::own_certificate(directory.path(), &["localhost".to_owned()]).expect("made");
            let client = tls::client(None, &own.path).expect("a configuration");
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
            let address = listener.local_addr().expect("an address");
            let stop = CancellationToken::new();
            let config = tls::server(&own).expect("a configuration");
            let ended =
                tokio::spawn(serve(listener, config, warp::service(filter), limits, Arc::default(), stop.clone()));
            Self { address, tls: client.into(), stop, ended, _directory: directory }
        }

        async fn tcp(&self, from: [u8; 4]) -> TcpStream {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(SocketAddr::new(IpAddr::from(from), 0)).expect("bound");
            socket.connect(self.address).await.expect("connected")
        }

        async fn tls(&self) -> TlsStream {
            let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
            self.tls.connect(name, self.tcp([127, 0, 0, 1]).await).await.expect("a handshake")
        }

        async fn is_served_from(&self, from: [u8; 4]) -> bool {
            let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
            let Ok(mut stream) = self.tls.connect(name, self.tcp(from).await).await else { return false };
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("asked");
            read_to_end(&mut stream).await.starts_with("HTTP/1.1 200")
        }
    }

    fn hello() -> impl Filter<Extract = (&'static str,), Error = Infallible> + Clone + Send + Sync + 'static {
        warp::any().map(|| "hello")
    }

    /// Until the other end closes, politely or not.
    async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
        let mut read = Vec::new();
        let mut part = [0; 4_096];
        while let Ok(n @ 1..) = stream.read(&mut part).await {
            read.extend_from_slice(&part[..n]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_never_begins_its_handshake_is_let_go() {
        let listener = Listener::start(Limits { handshake: SHORT, ..LIMITS }, hello());
        assert_eq!(read_to_end(&mut listener.tcp([127, 0, 0, 1]).await).await, "");
        assert!(listener.is_served_from([127, 0, 0, 1]).await);
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_after_its_handshake_is_let_go() {
        let listener = Listener::start(Limits { header: SHORT, ..LIMITS }, hello());
        assert_eq!(read_to_end(&mut listener.tls().await).await, "");
    }

    #[tokio::test]
    async fn a_client_that_drips_its_header_is_let_go() {
        let listener = Listener::start(Limits { header: SHORT, ..LIMITS }, hello());
        let (mut reader, mut writer) = tokio::io::split(listener.tls().await);
        let drip = tokio::spawn(async move {
            let mut sent = 0;
            while writer.write_all(b"GET / HTTP/1.1\r\nx: ").await.is_ok() && writer.flush().await.is_ok() {
                sent += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sent
        });
        read_to_end(&mut reader).await;
        assert!(drip.await.expect("ended") > 1);
    }

    #[tokio::test]
    async fn a_connection_kept_alive_without_use_is_let_go() {
        let listener = Listener::start(Limits { idle: SHORT, ..LIMITS }, hello());
        let mut stream = listener.tls().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("asked");
        assert!(read_to_end(&mut stream).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_request_whose_body_stops_coming_ends() {
        let body = warp::body::bytes().map(|_| "read").or(warp::any().map(|| "not read")).unify();
        let listener = Listener::start(Limits { stall: SHORT, ..LIMITS }, body);
        let mut stream = listener.tls().await;
        let head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\nonly this";
        stream.write_all(head).await.expect("asked");
        assert!(read_to_end(&mut stream).await.ends_with("not read"));
    }

    #[tokio::test]
    async fn a_service_that_takes_too_long_is_answered_for() {
        let never = warp::any().then(|| async { std::future::pending::<&str>().await });
        let listener = Listener::start(Limits { request: SHORT, ..LIMITS }, never);
        let mut stream = listener.tls().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("asked");
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    }

    /// Endless events, and a wire that tells when they are dropped.
    fn endless(
        event: &'static str,
    ) -> (impl Filter<Extract = impl warp::Reply, Error = Infallible> + Clone + Send + Sync, oneshot::Receiver<()>)
    {
        let (dropped, told) = oneshot::channel::<()>();
        let guard = Arc::new(Mutex::new(Some(dropped)));
        let filter = warp::any().map(move || {
            let guard = guard.lock().expect("whole").take();
            warp::sse::reply(futures_util::stream::repeat(event).map(move |text| {
                let _held = &guard;
                Ok::<_, Infallible>(warp::sse::Event::default().data(text))
            }))
        });
        (filter, told)
    }

    #[tokio::test]
    async fn a_client_that_never_reads_its_answer_is_let_go() {
        let event: &'static str = "x".repeat(16_000).leak();
        let (filter, dropped) = endless(event);
        let listener = Listener::start(Limits { stall: SHORT, ..LIMITS }, filter);
        let mut stream = listener.tls().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("asked");
        assert!(dropped.await.is_err(), "the answer's source was let go while the client still holds its end");
        drop(stream);
    }

    #[tokio::test]
    async fn an_endless_answer_ends_cleanly_when_the_listener_stops() {
        let (filter, _dropped) = endless("tick");
        let listener = Listener::start(LIMITS, filter);
        let mut stream = listener.tls().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("asked");
        let mut first = [0; 64];
        stream.read_exact(&mut first).await.expect("a beginning");
        listener.stop.cancel();
        let rest = read_to_end(&mut stream).await;
        assert!(rest.ends_with("0\r\n\r\n"), "the last chunk is there: {:?}", &rest[rest.len().saturating_sub(40)..]);
        listener.ended.await.expect("no panic").expect("a clean end");
        assert!(TcpStream::connect(listener.address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_flood_from_one_address_leaves_the_others_their_places() {
        let listener = Listener::start(LIMITS, hello());
        let mut flood = Vec::new();
        for _ in 0..200 {
            flood.push(listener.tcp([127, 0, 0, 66]).await);
        }
        for from in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]] {
            assert!(listener.is_served_from(from).await, "{from:?}");
        }
        // All but the four that have places were closed at once, long before any time limit. None of the four is
        // sent away for a newer one yet: they have only just come.
        for mut refused in flood.into_iter().skip(4) {
            assert_eq!(read_to_end(&mut refused).await, "");
        }
    }

    #[tokio::test]
    async fn garbage_instead_of_a_handshake_harms_nobody() {
        let listener = Listener::start(LIMITS, hello());
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 0, 0, 0], &[0xff; 4_096]] {
            let mut stream = listener.tcp([127, 0, 0, 1]).await;
            stream.write_all(garbage).await.expect("sent");
            drop(stream.shutdown().await);
            read_to_end(&mut stream).await;
        }
        let mut stream = listener.tls().await;
        stream.write_all(b"\0\0\0 nonsense\r\n\r\n").await.expect("sent");
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400"));
        let mut stream = listener.tls().await;
        let head = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
        drop(stream.write_all(head.as_bytes()).await);
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{answer}");
        assert!(listener.is_served_from([127, 0, 0, 1]).await);
    }
}

// ---- `clocher pull` -------------------------------------------------------------------------------------------------

/// A link that breaks: connection number n passes `allow(n)` bytes towards the client and is then cut.
struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(to: SocketAddr, allow: impl Fn(u64) -> u64 + Send + 'static) -> Self {
        Self::with(to, allow, Cut::Closed).await
    }

    /// As when a mobile link is lost: nobody is told.
    async fn start_silent(to: SocketAddr, allow: impl Fn(u64) -> u64 + Send + 'static) -> Self {
        Self::with(to, allow, Cut::Silent).await
    }

    async fn with(to: SocketAddr, allow: impl Fn(u64) -> u64 + Send + 'static, cut: Cut) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let allowed = allow(counted.fetch_add(1, Ordering::Relaxed));
                let Ok(server) = TcpStream::connect(to).await else { continue };
                tokio::spawn(carry(client, server, allowed, cut));
            }
        });
        Self { address, connections, task }
    }
}

#[derive(Clone, Copy)]
enum Cut {
    Closed,
    Silent,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, allowed: u64, cut: Cut) {
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut from_server = from_server.take(allowed);
    let towards_client = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        if matches!(cut, Cut::Silent) && from_server.limit() == 0 {
            std::future::pending::<()>().await;
        }
    };
    // Ends, and so cuts both, when either way has ended.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = towards_client => {}
    }
}

async fn pull(options: PullOptions) -> Result<Summary, PullError> {
    run(options, CancellationToken::new()).await
}

/// What the gateway gives without any trouble: the lines of all pages.
async fn produced(gateway: &Gateway) -> String {
    let page = gateway.client("agglo").get("/v1/observations?limit=20000").await;
    let text = String::from_utf8(page.body.to_vec()).expect("UTF-8");
    let end = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
    text[..end].to_owned()
}

#[tokio::test]
async fn the_file_equals_what_was_produced_however_the_link_is_cut() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 300);
    gateway.archive.lose(11);
    gateway.archive.produce(INTERNAL, 300);
    let expected = produced(&gateway).await;
    // Every few bytes of the handshake, of the first pages' headers and of their bodies.
    let proxy = Proxy::start(gateway.address, |n| if n < 400 { n * 13 } else { u64::MAX }).await;
    let summary = pull(gateway.pull(proxy.address)).await.expect("pulled");
    assert_eq!(gateway.pulled(), expected);
    assert!(summary.failures >= 100, "{summary}");
    assert_eq!(summary.lines, 601);
    assert_eq!(numbers(&gateway.pulled()).len(), 600);
}

#[tokio::test]
async fn the_file_equals_what_was_produced_however_often_the_client_dies() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 400);
    let expected = produced(&gateway).await;
    let proxy = Proxy::start(gateway.address, |_| u64::MAX).await;
    let (mut deaths, mut polls) = (0, 0_u32);
    loop {
        let mut work = Box::pin(pull(PullOptions { limit: 7, ..gateway.pull(proxy.address) }));
        // Dropped at one await in six, never the same ones.
        let ended = std::future::poll_fn(|cx| {
            polls += 1;
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if crc32fast::hash(&polls.to_le_bytes()).is_multiple_of(6) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        if let Some(done) = ended.await {
            done.expect("pulled");
            break;
        }
        deaths += 1;
        assert!(deaths < 10_000, "it moves on");
    }
    assert!(deaths > 10, "{deaths}");
    assert_eq!(gateway.pulled(), expected);
}

#[tokio::test]
async fn a_link_that_goes_silent_is_left_and_tried_again() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 300);
    let expected = produced(&gateway).await;
    let proxy = Proxy::start_silent(gateway.address, |n| if n < 8 { n * 500 } else { u64::MAX }).await;
    let mut options = gateway.pull(proxy.address);
    options.patience.silence = Duration::from_millis(300);
    let summary = pull(options).await.expect("pulled");
    assert_eq!(gateway.pulled(), expected);
    assert!(summary.failures >= 6, "{summary}");
}

#[tokio::test]
async fn a_page_on_the_disk_that_was_not_counted_is_not_there_twice() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 120);
    let options = gateway.pull(gateway.address);
    pull(options.clone()).await.expect("pulled");
    let counted = std::fs::read(&options.cursor_file).expect("a cursor");
    gateway.archive.produce(INTERNAL, 30);
    pull(options.clone()).await.expect("pulled");
    // As after a kill between the lines and their count.
    std::fs::write(&options.cursor_file, counted).expect("put back");
    pull(options.clone()).await.expect("pulled");
    assert_eq!(gateway.pulled(), produced(&gateway).await);
    assert_eq!(numbers(&gateway.pulled()), (1..=150).collect::<Vec<_>>());

    std::fs::write(options.output.as_ref().expect("a file"), "short").expect("cut");
    let refused = pull(options).await.expect_err("lines are missing").to_string();
    assert!(refused.contains("lines.jsonl") && refused.contains("cursor.json"), "{refused}");
}

#[tokio::test]
async fn a_follower_gets_what_comes_and_leaves_at_once_when_asked() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 10);
    let stop = CancellationToken::new();
    let options = PullOptions { once: false, ..gateway.pull(gateway.address) };
    let follower = tokio::spawn(run(options, stop.clone()));
    gateway.archive.acknowledged_up_to("agglo", 10).await;
    gateway.archive.produce(INTERNAL, 5);
    gateway.archive.acknowledged_up_to("agglo", 15).await;
    gateway.archive.produce(PERSONAL, 5);
    gateway.archive.produce(PUBLIC, 1);
    gateway.archive.acknowledged_up_to("agglo", 21).await;
    stop.cancel();
    let summary = follower.await.expect("no panic").expect("a clean end");
    assert_eq!(numbers(&gateway.pulled()), (1..=15).chain([21]).collect::<Vec<_>>());
    assert_eq!(summary.lines, 16);
}

#[tokio::test]
async fn a_replaced_store_is_told_in_the_file_and_pulled_from_its_beginning() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 10);
    let options = gateway.pull(gateway.address);
    pull(options.clone()).await.expect("pulled");
    gateway.archive.replace("second");
    gateway.archive.produce(PUBLIC, 4);
    let summary = pull(options).await.expect("pulled");
    assert_eq!(summary.restarts, 1);
    assert_eq!(numbers(&gateway.pulled()), (1..=10).chain(1..=4).collect::<Vec<_>>());
    let told: Value = serde_json::from_str(gateway.pulled().lines().nth(10).expect("a line")).expect("JSON");
    assert_eq!(told, json!({"restart": {"cause": "cursor-of-another-store", "oldestSeq": 1}}));
}

#[tokio::test]
async fn a_dead_link_ends_a_single_pull_with_its_cause_and_a_refusal_ends_it_at_once() {
    let gateway = Gateway::start();
    let proxy = Proxy::start(gateway.address, |_| 0).await;
    let mut options = gateway.pull(proxy.address);
    options.patience.tries = 3;
    let given_up = pull(options.clone()).await.expect_err("given up");
    assert!(matches!(given_up, PullError::GaveUp { tries: 3, .. }), "{given_up}");
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 3);

    (options.certificate, options.key) = gateway.certificate("stranger");
    options.url = format!("https://localhost:{}", gateway.address.port());
    let refused = pull(options).await.expect_err("refused");
    assert!(matches!(&refused, PullError::Refused { status: 403, code, .. } if code == "unknown-peer"), "{refused}");
}

#[tokio::test]
async fn columns_hold_the_same_readings_as_rows() {
    let gateway = Gateway::start();
    gateway.archive.produce(PUBLIC, 500);
    let options = PullOptions { format: Format::Columns, limit: 200, ..gateway.pull(gateway.address) };
    let summary = pull(options).await.expect("pulled");
    let mut readings = Vec::new();
    for line in gateway.pulled().lines() {
        let block: Value = serde_json::from_str(line).expect("JSON");
        let scale = 10_f64.powi(i32::try_from(block["decimals"].as_i64().expect("decimals")).expect("small"));
        let (mut seq, mut result) = (0, 0);
        for (step, change) in block["seq"].as_array().expect("a").iter().zip(block["result"].as_array().expect("b")) {
            seq += step.as_i64().expect("a step");
            result += change.as_i64().expect("a change");
            readings.push((seq, result as f64 / scale));
        }
    }
    assert_eq!(readings, (1..=500).map(|seq| (seq, seq as f64 * 1.5)).collect::<Vec<_>>());
    assert!(summary.received < 500 * 8, "{} bytes received for 500 readings", summary.received);
}
