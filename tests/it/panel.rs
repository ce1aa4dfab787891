//! The panel as a browser meets it: the whole site through its routes, with everything behind it invented.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use clocher::{
    announcement::{
        AnnouncementId, Announcer, Class, End, Held, JournalEntry, Queued, Refused, Request as Asked, State, Zone,
    },
    clock::{Clock, HeldTime, Source, Stamp},
    condition::{Board, Code},
    config::peers::PeerSettings,
    consent::{Consents, Entry as Agreed, What},
    live::Live,
    machine::{Begun, Card, Facts, Machine, Reason, Supply},
    panel::{self, Demonstration, Ground, OutageReport},
    reading::{Kind, Point, PointId, Quality, Reading, Sharing, Stored, Why},
    serve::Connection,
    store::{
        Archive, Bucket, Cause, Entry, Gap, Keep, MemoryKeep, Page, PageRequest, SetAside, StoreError, StoreFigures,
        Syncs,
    },
    supervisor::Supervisor,
    traffic::Traffic,
};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warp::http::{HeaderMap, Request, StatusCode};

/// Saturday 21 November 2026, 12:05 in Paris.
const NOON_MS: i64 = 1_795_259_100_000;
const PASSWORD: &str = "le marché du jeudi";

/// A past of the same shape each day.
struct Past(watch::Sender<u64>);

impl Archive for Past {
    fn identity(&self) -> String {
        "past".into()
    }
    fn page(&self, _: &PageRequest<'_>) -> Result<Page, StoreError> {
        Ok(Page { entries: Vec::new(), next: 0, complete: true })
    }
    fn head(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
    fn latest(&self) -> Vec<Stored> {
        Vec::new()
    }
    fn history(&self, point: &PointId, from_ms: i64, to_ms: i64, step_ms: i64) -> Result<Vec<Bucket>, StoreError> {
        if point.as_str() == "boiler/fuel/level" {
            return Err(StoreError { doing: "read blocks".into(), source: None });
        }
        let counts = point.as_str().ends_with("index");
        let starts = (0..).map(|n| from_ms + n * step_ms).take_while(|start| *start < to_ms.min(NOON_MS));
        Ok(starts.map(|start| bucket(start, step_ms, counts)).collect())
    }
    fn acknowledge(&self, _: &str, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
    fn acknowledged(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
    fn gaps(&self) -> Vec<Gap> {
        Vec::new()
    }
    fn figures(&self) -> StoreFigures {
        StoreFigures {
            last_seq: 1_234_567,
            first_seq: 1,
            bytes: 2_345_678,
            bytes_limit: 4_000_000_000,
            ..StoreFigures::default()
        }
    }
}

fn bucket(start_ms: i64, step_ms: i64, counts: bool) -> Bucket {
    let hour = (start_ms / 3_600_000 % 24) as f64;
    let level = 900.0 + 700.0 * (hour / 24.0 * std::f64::consts::TAU).sin() + (start_ms / 900_000 % 7) as f64 * 40.0;
    if counts {
        let stood = |ms: i64| (ms - NOON_MS + 90 * 86_400_000) as f64 / 3_600_000.0 * 12.0;
        let used = 4.0 + 6.0 * (hour / 24.0 * std::f64::consts::PI).sin();
        let (first, last) = (stood(start_ms), stood(start_ms) + used * step_ms as f64 / 3_600_000.0);
        return Bucket { start_ms, min: first, max: last, sum: first + last, first, last, count: 2 };
    }
    Bucket { start_ms, min: level - 120.0, max: level + 160.0, sum: level * 4.0, first: level, last: level, count: 4 }
}

/// Loudspeakers that remember what they were asked.
struct Speakers {
    clock: Clock,
    asked: Mutex<Vec<Asked>>,
    queue: Mutex<VecDeque<Queued>>,
    journal: Mutex<Vec<JournalEntry>>,
    changes: watch::Sender<u64>,
}

impl Speakers {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            asked: Mutex::default(),
            queue: Mutex::default(),
            journal: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    fn taken(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Announcer for Speakers {
    fn zones(&self) -> Vec<Zone> {
        [("bourg", "Le bourg"), ("hameau", "Hameau des Clots")]
            .map(|(name, label)| Zone { name: name.into(), label: label.into() })
            .into()
    }
    fn preview<'a>(&'a self, text: &'a str, _: Class) -> BoxFuture<'a, Result<Vec<u8>, Refused>> {
        Box::pin(async move {
            match text {
                "" => Err(Refused::Empty),
                "muet" => Err(Refused::Voice("espeak-ng: not found".into())),
                _ => Ok(b"RIFF....WAVEfmt ".to_vec()),
            }
        })
    }
    fn ask(&self, request: Asked) -> BoxFuture<'_, Result<AnnouncementId, Refused>> {
        Box::pin(async move {
            if request.text.is_empty() {
                return Err(Refused::Empty);
            }
            if request.zones.is_empty() {
                return Err(Refused::NoZone);
            }
            let mut asked = self.asked.lock().expect("not poisoned");
            if let Some(place) = asked.iter().position(|a| a.key == request.key) {
                return Ok(AnnouncementId(place as u64 + 1));
            }
            asked.push(request.clone());
            let id = AnnouncementId(asked.len() as u64);
            // A text that asks for it is held, as at night.
            let held = request.text.starts_with("La nuit").then_some(Held::QuietHours);
            let state = if held.is_some() { State::Waiting } else { State::Playing };
            let queued = Queued { id, request, asked: self.clock.now(), state, held };
            self.queue.lock().expect("not poisoned").push_back(queued);
            self.changes.send_modify(|n| *n += 1);
            Ok(id)
        })
    }
    fn stop(&self, id: Option<AnnouncementId>, who: &str) -> bool {
        let mut queue = self.queue.lock().expect("not poisoned");
        let Some(place) = queue.iter().position(|q| Some(q.id) == id) else { return false };
        let stopped = queue.remove(place).expect("there");
        self.journal.lock().expect("not poisoned").insert(
            0,
            JournalEntry {
                id: stopped.id,
                zone: "bourg".into(),
                text: stopped.request.text,
                class: stopped.request.class,
                asked_by: stopped.request.asked_by,
                started: stopped.asked,
                audible_ms: 4_000,
                end: End::Stopped { by: who.into() },
            },
        );
        self.changes.send_modify(|n| *n += 1);
        true
    }
    fn queue(&self) -> Vec<Queued> {
        self.queue.lock().expect("not poisoned").iter().cloned().collect()
    }
    fn journal(&self, limit: usize) -> Vec<JournalEntry> {
        self.journal.lock().expect("not poisoned").iter().take(limit).cloned().collect()
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

struct LastOutage;

impl Demonstration for LastOutage {
    fn report(&self) -> OutageReport {
        OutageReport {
            link_up: true,
            since: Some(Stamp { boot: 1, mono_ms: 0 }),
            outage: 3,
            lasted_ms: 61_000,
            produced: 1_240,
            buffered: 1_240,
            pulled: 1_240,
            lost: 0,
            produced_total: 23_456,
            pulled_total: 23_401,
            lost_total: 0,
        }
    }
}

fn id(text: &str) -> PointId {
    text.parse().expect("a point's name")
}

fn point(name: &str, label: &str, unit: &str, kind: Kind, decimals: u8) -> Point {
    Point {
        id: id(name),
        label: label.into(),
        unit: unit.into(),
        kind,
        decimals,
        interval: Some(Duration::from_secs(10)),
        range: None,
        sharing: Sharing::Internal,
    }
}

fn peer(name: &str, label: Option<&str>, sharing: &[Sharing]) -> PeerSettings {
    let (label, sharing) = (label.map(ToOwned::to_owned), sharing.iter().copied().collect());
    PeerSettings { name: name.into(), sharing, consent: None, label }
}

/// An invented village hall and its panel.
struct Hall {
    time: Arc<HeldTime>,
    clock: Clock,
    board: Board,
    live: Live,
    keep: Arc<MemoryKeep>,
    consents: Consents,
    speakers: Arc<Speakers>,
    stop: CancellationToken,
    site: warp::filters::BoxedFilter<(warp::reply::Response,)>,
}

impl Hall {
    fn new() -> Self {
        Self::called("Les Martys", |_| ())
    }

    fn called(commune: &str, change: impl FnOnce(&mut Ground)) -> Self {
        let time = HeldTime::at(NOON_MS, Source::Ntp);
        let clock = Clock::new(1, time.clone(), []);
        clock.observe();
        let board = Board::new(clock.clone());
        let live = Live::new(
            [
                point("electricity/mairie/power", "Puissance appelée", "VA", Kind::Gauge, 0),
                point("electricity/mairie/index", "Énergie soutirée", "kWh", Kind::Counter, 0),
                point("water/hall/index", "Index", "L", Kind::Counter, 0),
                point("air/school/co2", "CO2", "[ppm]", Kind::Gauge, 0),
                point("air/school/temperature", "Température", "Cel", Kind::Gauge, 1),
                point("boiler/door/state", "Porte de la chaufferie", "1", Kind::State, 0),
                point("boiler/fuel/level", "Niveau de cuve", "L", Kind::Gauge, 0),
                Point {
                    sharing: Sharing::Personal,
                    ..point("flat/caretaker/temperature", "Température", "Cel", Kind::Gauge, 1)
                },
                Point { sharing: Sharing::Personal, ..point("flat/caretaker/power", "Puissance", "W", Kind::Gauge, 0) },
                Point { sharing: Sharing::Public, ..point("square/rain", "Pluie", "mm", Kind::Gauge, 1) },
            ],
            [],
        );
        let (keep, stop) = (Arc::new(MemoryKeep::default()), CancellationToken::new());
        let speakers = Arc::new(Speakers::new(clock.clone()));
        let consents = Consents::open(keep.clone(), clock.clone());
        let mut ground = Ground {
            commune: commune.into(),
            gateway: "Clocher de démonstration".into(),
            time_zone: TimeZone::get("Europe/Paris").expect("bundled"),
            clock: clock.clone(),
            board: board.clone(),
            live: live.clone(),
            devices: BTreeMap::from([
                (id("electricity/mairie"), "Électricité de la mairie".into()),
                (id("water/hall"), "Eau de la salle des fêtes".into()),
                (id("air/school"), "Air de l’école".into()),
                (id("flat/caretaker"), "Logement du gardien".into()),
            ]),
            ports: BTreeMap::from([("/dev/serial/by-id/usb-tic".into(), vec![id("electricity/mairie")])]),
            archive: Arc::new(Past(watch::Sender::new(0))),
            keep: keep.clone(),
            consents: consents.clone(),
            machine: Machine::default(),
            peers: vec![
                peer(
                    "agglo.example",
                    Some("Carcassonne Agglo"),
                    &[Sharing::Public, Sharing::Internal, Sharing::Personal],
                ),
                peer("dept", None, &[Sharing::Public]),
            ],
            announcer: Some(speakers.clone()),
            supervisor: Supervisor::new(board.clone()),
            configuration_faults: Vec::new(),
            demonstration: Some(Arc::new(LastOutage)),
            stop: stop.clone(),
            traffic: None,
        };
        change(&mut ground);
        let site = panel::routes(Arc::new(ground));
        Self { time, clock, board, live, keep, consents, speakers, stop, site }
    }

    fn tell(&self, point: &str, value: Option<f64>, quality: Quality) {
        self.live.tell(&[Reading { point: id(point), stamp: self.clock.now(), value, quality }]);
    }

    fn values(&self) {
        self.tell("electricity/mairie/power", Some(3_240.0), Quality::Good);
        self.tell("electricity/mairie/index", Some(1_234_567.0), Quality::Good);
        self.tell("water/hall/index", Some(84_210.0), Quality::Good);
        self.tell("air/school/co2", Some(1_420.0), Quality::Suspect(Why::WarmingUp));
        self.tell("air/school/temperature", Some(19.46), Quality::Good);
        self.tell("boiler/door/state", Some(1.0), Quality::Good);
    }

    fn code(&self) -> String {
        panel::claim_code(self.keep.as_ref()).expect("a store").expect("not claimed yet")
    }

    fn browser(&self) -> Browser<'_> {
        Browser { hall: self, cookie: None, address: ([192, 168, 1, 20], 50_000).into(), headers: Vec::new() }
    }

    /// Claims the box and gives the mayor's browser.
    async fn mayor(&self) -> Browser<'_> {
        let mut mayor = self.browser();
        mayor.get("/claim").await;
        let code = self.code();
        let fields = [("code", code.as_str()), ("name", "Jeanne Vidal"), ("password", PASSWORD), ("again", PASSWORD)];
        let answer = mayor.post("/claim", &fields).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/"), "{}", answer.text());
        mayor
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The text as a person reads it: no tags, plain spaces.
    fn read(&self) -> String {
        plain(&self.text())
    }
}

fn plain(html: &str) -> String {
    let body = html.split("<body").nth(1).unwrap_or(html);
    let text: String = body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    let text = text.replace("&#39;", "'").replace("&#34;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&amp;", "&").replace('’', "'");
    text.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Somebody's browser: one cookie, one address.
struct Browser<'a> {
    hall: &'a Hall,
    cookie: Option<String>,
    address: SocketAddr,
    headers: Vec<(&'static str, String)>,
}

impl Browser<'_> {
    async fn ask(&mut self, method: &str, path: &str, body: String, more: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "clocher.local");
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", format!("other=1; {cookie}"));
        }
        if method == "POST" {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let own = self.headers.iter().map(|(k, v)| (*k, v.as_str()));
        for (name, value) in own.chain(more.iter().copied()) {
            request = request.header(name, value);
        }
        let mut request = request.body(Full::new(Bytes::from(body))).expect("a request");
        request.extensions_mut().insert(Connection {
            address: self.address,
            certificate: None,
            end: CancellationToken::new(),
        });
        let service = TowerToHyperService::new(warp::service(self.hall.site.clone()));
        let (parts, body) = service.call(request).await.expect("infallible").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        if let Some(cookie) = answer.headers.get("set-cookie") {
            let cookie = cookie.to_str().expect("text");
            self.cookie = cookie.split(';').next().map(ToOwned::to_owned);
        }
        answer
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, String::new(), &[]).await
    }

    /// Fills in the form of a page: its hidden token is taken from the page itself.
    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.get(path).await.text();
        let token = page.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let token = token.unwrap_or_default().to_owned();
        let mut fields = fields.to_vec();
        fields.push(("token", &token));
        self.ask("POST", path, encoded(&fields), &[("sec-fetch-site", "same-origin")]).await
    }
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    fields.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect::<Vec<_>>().join("&")
}

const PAGES: &[&str] = &[
    "/",
    "/points/electricity/mairie/power",
    "/points/electricity/mairie/index?span=week",
    "/points/air/school/temperature?span=month&on=2026-10-25",
    "/announcements",
    "/conditions",
    "/demonstration",
    "/data",
    "/access",
    "/consents",
    "/erase",
    "/accounts",
    "/account",
    "/password",
    "/about",
    "/technician",
];

#[tokio::test]
async fn the_first_visitor_with_the_code_becomes_mayor_and_reads_every_page() {
    let hall = Hall::new();
    hall.values();
    let mut visitor = hall.browser();
    assert_eq!(visitor.get("/").await.header("location"), "/claim");
    let claim = visitor.get("/claim").await;
    assert!(claim.read().contains("Ce boîtier n'a pas encore de propriétaire"), "{}", claim.read());

    let mut mayor = hall.mayor().await;
    assert_eq!(panel::claim_code(hall.keep.as_ref()).expect("a store"), None, "the code has served");
    let words = [
        ("/", "Tout va bien."),
        ("/", "3 240 VA"),
        ("/", "1 234 567 kWh"),
        ("/", "19,5 °C"),
        ("/", "Fermé"),
        ("/", "Électricité de la mairie"),
        ("/", "Valeur douteuse : l'appareil chauffe"),
        ("/", "Rien reçu pour l'instant"),
        ("/points/electricity/mairie/power", "samedi 21 novembre 2026"),
        ("/points/electricity/mairie/power", "en moyenne"),
        ("/points/electricity/mairie/index?span=week", "semaine du lundi 16 novembre 2026"),
        ("/points/electricity/mairie/index?span=week", "Total : "),
        ("/points/water/hall/index?span=month", "novembre 2026"),
        ("/announcements", "Les haut-parleurs se taisent."),
        ("/conditions", "1 234 567 mesures gardées"),
        ("/demonstration", "Les 1 240 mesures prises pendant ce temps sont toutes arrivées."),
        ("/access", "Personne n'a encore rien pris."),
        ("/accounts", "Jeanne Vidal"),
        ("/account", "Langue des pages"),
        ("/about", "non conforme"),
        ("/technician", "bornes I1 et I2"),
    ];
    for (path, word) in words {
        let page = mayor.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.read().contains(word), "{path} does not say {word:?}:\n{}", page.read());
    }
}

#[tokio::test]
async fn every_page_can_be_read_by_everybody() {
    let hall = Hall::new();
    hall.values();
    hall.board.raise(Code::WaterLeak, "water/hall/index", "12 L/h for 4 h");
    let mut mayor = hall.mayor().await;
    for language in ["fr", "en"] {
        mayor.headers = vec![("accept-language", language.into())];
        for path in PAGES {
            well_formed(path, language, &mayor.get(path).await.text());
        }
        let mut stranger = hall.browser();
        stranger.headers = vec![("accept-language", language.into())];
        for path in ["/sign-in", "/about", "/technician", "/nowhere"] {
            well_formed(path, language, &stranger.get(path).await.text());
        }
    }
}

/// What every page owes to screen readers, phones and browsers.
fn well_formed(path: &str, language: &str, html: &str) {
    let site = if language == "fr" { "– Mairie des Martys</title>" } else { "– Les Martys town hall</title>" };
    for piece in
        ["<!doctype html>", &format!("<html lang=\"{language}\">"), site, "name=\"viewport\"", "href=\"#main\""]
    {
        assert!(html.contains(piece), "{path} lacks {piece}");
    }
    assert_eq!(html.matches("<h1").count(), 1, "{path}: one h1");
    assert_eq!(html.matches("<main").count(), 1, "{path}: one main");
    for forbidden in ["<script>", " style=", "onclick", "javascript:", "http://", "https://", "{ $", "}}"] {
        assert!(!html.contains(forbidden), "{path} has {forbidden}");
    }
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "{path} repeats an id: {ids:?}");
    for tag in ["<input ", "<textarea ", "<select "] {
        for field in html.split(tag).skip(1).filter_map(|rest| rest.split('>').next()) {
            let labelled =
                ["hidden", "radio", "checkbox"].iter().any(|kind| field.contains(&format!("type=\"{kind}\"")));
            let id = field.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
            let has_label = id.is_some_and(|id| html.contains(&format!("<label for=\"{id}\"")));
            assert!(labelled || has_label, "{path}: {tag}{field} has no label");
        }
    }
    for form in html.split("<form ").skip(1).filter_map(|rest| rest.split("</form>").next()) {
        assert!(form.contains("method=\"post\"") && form.contains("name=\"token\""), "{path}: {form}");
    }
    for svg in html.split("<svg ").skip(1).filter_map(|rest| rest.split('>').next()) {
        assert!(svg.contains("aria-hidden=\"true\"") || svg.contains("role=\"img\" aria-label=\""), "{path}: {svg}");
    }
}

#[tokio::test]
async fn the_first_page_fits_a_slow_link_and_asks_for_nothing_twice() {
    let hall = Hall::new();
    hall.values();
    let mut mayor = hall.mayor().await;
    mayor.headers = vec![("accept-encoding", "gzip, br".into())];
    let page = mayor.get("/").await;
    assert_eq!(page.header("content-encoding"), "gzip");
    let mut sum = page.body.len();
    let mut html = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&page.body[..]), &mut html).expect("gzip");
    let files: Vec<&str> = html.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let file = mayor.get(file).await;
        assert_eq!(file.status, StatusCode::OK);
        assert!(file.header("cache-control").contains("immutable"));
        sum += file.body.len();
    }
    assert!(sum <= 30_000, "{sum} bytes");

    mayor.headers.clear();
    let plain = mayor.get("/").await;
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(plain.header("cache-control"), "no-store");
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    for path in ["/", "/nowhere", "/about", "/sign-in"] {
        let page = mayor.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(page.header("strict-transport-security"), "", "{path}: the certificate may be the box's own");
    }
    let cookie = hall.browser().get("/sign-in").await.header("set-cookie").to_owned();
    for piece in ["__Host-clocher=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(piece), "{cookie}");
    }
}

#[tokio::test]
async fn the_box_is_not_given_to_who_has_no_code_or_no_good_password() {
    let hall = Hall::new();
    let mut thief = hall.browser();
    let code = hall.code();
    let mut attempt = async |code: &str, name: &str, password: &str, again: &str| {
        thief.post("/claim", &[("code", code), ("name", name), ("password", password), ("again", again)]).await
    };
    let wrong = attempt("AAAA-AAAA-AAAA", "Paul", PASSWORD, PASSWORD).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.read().contains("Ce n'est pas le code de ce boîtier"));
    assert!(attempt(&code, "Paul", "court", "court").await.read().contains("12 caractères au moins"));
    assert!(attempt(&code, "Paul", "Les Martys 11390", "Les Martys 11390").await.read().contains("On le devinerait"));
    assert!(
        attempt(&code, "Paul", PASSWORD, "autre chose encore").await.read().contains("Les deux ne sont pas pareils")
    );
    assert!(attempt(&code, " ", PASSWORD, PASSWORD).await.read().contains("Écrivez un nom"));
    let typed = code.to_lowercase().replace('-', " ");
    assert_eq!(attempt(&typed, "Paul", PASSWORD, PASSWORD).await.status, StatusCode::SEE_OTHER);
    assert_eq!(attempt(&code, "Pierre", PASSWORD, PASSWORD).await.header("location"), "", "claimed once only");
}

#[tokio::test]
async fn one_signs_in_goes_on_to_what_one_asked_for_and_signs_out() {
    let hall = Hall::new();
    hall.mayor().await;
    let mut person = hall.browser();
    let asked = person.get("/conditions").await;
    assert_eq!(asked.header("location"), "/sign-in?next=/conditions");
    let before = person.get("/sign-in").await.header("set-cookie").to_owned();
    let wrong = person.post("/sign-in", &[("name", "jeanne vidal"), ("password", "pas le bon du tout")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields = [("name", "jeanne  VIDAL"), ("password", PASSWORD), ("next", "/conditions")];
    let entered = person.post("/sign-in", &fields).await;
    assert_eq!((entered.status, entered.header("location")), (StatusCode::SEE_OTHER, "/conditions"));
    assert_ne!(entered.header("set-cookie"), before, "a new cookie for a new session");
    assert_eq!(person.get("/conditions").await.status, StatusCode::OK);

    let cookie = person.cookie.clone();
    assert_eq!(person.post("/account", &[("language", "en")]).await.status, StatusCode::SEE_OTHER);
    assert!(person.get("/conditions").await.text().contains("<html lang=\"en\">"));
    let page = person.get("/account").await.text();
    let token = page.split("name=\"token\" value=\"").nth(1).and_then(|r| r.split('"').next()).expect("a token");
    let body = encoded(&[("token", token)]);
    assert_eq!(person.ask("POST", "/sign-out", body, &[]).await.header("location"), "/sign-in");
    person.cookie = cookie;
    assert_eq!(person.get("/conditions").await.status, StatusCode::SEE_OTHER, "the old cookie is dead");
}

#[tokio::test]
async fn signing_in_never_leads_to_another_site() {
    let hall = Hall::new();
    hall.mayor().await;
    for next in ["//evil.example", "https://evil.example", "/\\evil.example"] {
        let mut person = hall.browser();
        let fields = [("name", "Jeanne Vidal"), ("password", PASSWORD), ("next", next)];
        assert_eq!(person.post("/sign-in", &fields).await.header("location"), "/", "{next}");
    }
}

#[tokio::test]
async fn who_guesses_waits_and_who_knows_gets_in_afterwards() {
    let hall = Hall::new();
    hall.mayor().await;
    let mut guesser = hall.browser();
    let wrong = [("name", "Jeanne Vidal"), ("password", "une idée au hasard")];
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(guesser.post("/sign-in", &wrong).await.status.as_u16());
    }
    assert_eq!(statuses, [422, 422, 422, 422, 429, 429]);
    let slow = guesser.post("/sign-in", &wrong).await;
    assert_eq!(slow.header("retry-after"), "1");
    assert!(slow.read().contains("Réessayez dans 1 seconde."), "{}", slow.read());

    let right = [("name", "Jeanne Vidal"), ("password", PASSWORD)];
    let mut owner = hall.browser();
    owner.address = ([192, 168, 1, 99], 1).into();
    assert_eq!(owner.post("/sign-in", &right).await.status, StatusCode::TOO_MANY_REQUESTS, "the account waits too");
    hall.time.advance(1_000);
    assert_eq!(owner.post("/sign-in", &right).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_form_of_another_site_or_without_its_token_is_refused() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    hall.board.raise(Code::AirStale, "air/school/co2", "");
    let fields = [("code", "air-stale"), ("subject", "air/school/co2")];
    let page = mayor.get("/conditions").await.text();
    let token = page.split("name=\"token\" value=\"").nth(1).and_then(|r| r.split('"').next()).expect("a token");
    let with_token = encoded(&[fields[0], fields[1], ("token", token)]);
    for (body, headers) in [
        (encoded(&fields), vec![("sec-fetch-site", "same-origin")]),
        (encoded(&[fields[0], fields[1], ("token", "AAAA")]), vec![]),
        (with_token.clone(), vec![("sec-fetch-site", "cross-site")]),
        (with_token.clone(), vec![("origin", "https://evil.example")]),
    ] {
        let answer = mayor.ask("POST", "/conditions", body, &headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.read().contains("Formulaire périmé"));
    }
    assert!(hall.board.open()[0].acknowledged.is_none());
    let origin = [("origin", "https://clocher.local")];
    assert_eq!(mayor.ask("POST", "/conditions", with_token, &origin).await.status, StatusCode::SEE_OTHER);
    assert_eq!(hall.board.open()[0].acknowledged.as_ref().map(|(who, _)| who.as_str()), Some("Jeanne Vidal"));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_own_page() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let long = mayor.ask("POST", "/announcements", "x".repeat(20_000), &[]).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(long.read().contains("Envoi trop grand"));
    for (method, path, status) in [
        ("PUT", "/", 405),
        ("DELETE", "/conditions", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/points/Not A Point", 404),
        ("GET", "/points/none/such", 404),
        ("GET", "/assets/0000/panel.css", 404),
        ("GET", "/points/boiler/fuel/level", 503),
    ] {
        let path = path.replace(' ', "%20");
        let answer = mayor.ask(method, &path, String::new(), &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert!(answer.text().contains("<html lang=\"fr\">"), "{method} {path}");
    }
    for odd in ["?span=decade&on=-9999-01-01", "?on=9999-12-31&span=month", "?on=%3Cscript%3E", "?span=&on="] {
        let answer = mayor.get(&format!("/points/water/hall/index{odd}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{odd}");
    }
}

#[tokio::test]
async fn what_devices_and_people_write_never_becomes_markup() {
    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let hall = Hall::called(EVIL, |ground| {
        let evil = Point { label: EVIL.into(), unit: EVIL.into(), ..point("a/b/c", "", "", Kind::Gauge, 0) };
        ground.live = Live::new([evil], []);
        ground.devices = BTreeMap::from([(id("a/b"), EVIL.into())]);
        ground.gateway = EVIL.into();
        ground.configuration_faults = vec![EVIL.into()];
        ground.live.tell(&[Reading {
            point: id("a/b/c"),
            stamp: ground.clock.now(),
            value: Some(1.0),
            quality: Quality::Good,
        }]);
    });
    hall.board.raise(Code::DeviceFault, EVIL, EVIL);
    hall.board.raise(Code::PortUnplugged, "closed", EVIL);
    hall.board.close(Code::PortUnplugged, "closed");
    let record = serde_json::json!({"peer": EVIL, "at": {"boot": 1, "mono_ms": 0}, "from": 1, "to": 9, "count": 9});
    hall.keep.put("access", &1_u64.to_be_bytes(), record.to_string().as_bytes()).expect("a store");
    let mut mayor = hall.mayor().await;
    mayor.post("/accounts", &[("do", "add"), ("name", EVIL), ("role", "viewer")]).await;
    let sent = [("do", "send"), ("text", EVIL), ("class", "information"), ("zone", "bourg"), ("key", "k")];
    mayor.post("/announcements", &sent).await;
    let shown = [("do", "edit"), ("text", EVIL), ("class", "information"), ("zone", EVIL), ("key", EVIL)];
    let mut pages = vec![mayor.post("/announcements", &shown).await.text()];
    for path in
        PAGES.iter().filter(|path| !path.contains("/points/")).chain([&"/points/a/b/c", &"/sign-in?next=%22%3E"])
    {
        pages.push(mayor.get(path).await.text());
    }
    for page in &pages {
        assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "{page}");
    }
    assert!(pages.iter().any(|page| page.contains("alert(1)")), "the attempts were shown, as text");
}

#[tokio::test]
async fn an_announcement_is_written_listened_to_sent_and_stopped() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let fields = |act| {
        [("do", act), ("text", "Coupure d'eau à 14 h."), ("class", "information"), ("zone", "bourg"), ("key", "k1")]
    };

    let heard = mayor.post("/announcements", &fields("listen")).await.text();
    assert!(heard.contains("Coupure d&#39;eau à 14 h.</textarea>"), "the text stays in the form");
    let sound = heard.split("<audio controls preload=\"auto\" src=\"").nth(1).and_then(|r| r.split('"').next());
    let sound = sound.expect("something to listen to").to_owned();
    let whole = mayor.get(&sound).await;
    assert_eq!(
        (whole.status, whole.header("content-type"), &whole.body[..4]),
        (StatusCode::OK, "audio/wav", &b"RIFF"[..])
    );
    let part = mayor.ask("GET", &sound, String::new(), &[("range", "bytes=0-3")]).await;
    assert_eq!(
        (part.status, part.header("content-range"), &part.body[..]),
        (StatusCode::PARTIAL_CONTENT, "bytes 0-3/16", &b"RIFF"[..])
    );

    for _ in 0..2 {
        let sent = mayor.post("/announcements", &fields("send")).await;
        assert_eq!((sent.status, sent.header("location")), (StatusCode::SEE_OTHER, "/announcements?sent=1"));
    }
    let taken = hall.speakers.taken();
    assert_eq!(
        (taken.len(), taken[0].asked_by.as_str(), taken[0].zones.clone()),
        (1, "Jeanne Vidal", vec!["bourg".into()])
    );
    let page = mayor.get("/announcements?sent=1").await.read();
    assert!(page.contains("C'est parti") && page.contains("Diffusion en cours · Information · Le bourg"), "{page}");

    assert_eq!(mayor.post("/announcements", &[("do", "stop"), ("id", "1")]).await.status, StatusCode::SEE_OTHER);
    let page = mayor.get("/announcements").await.read();
    assert!(page.contains("Les haut-parleurs se taisent.") && page.contains("arrêté par Jeanne Vidal"), "{page}");
}

#[tokio::test]
async fn an_announcement_held_by_quiet_hours_says_until_when() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let fields = [("do", "send"), ("text", "La nuit."), ("class", "information"), ("zone", "bourg"), ("key", "k1")];
    mayor.post("/announcements", &fields).await;
    let page = mayor.get("/announcements").await.read();
    assert!(page.contains("En attente") && page.contains("à la fin des heures calmes"), "{page}");
}

#[tokio::test]
async fn an_alert_needs_two_gestures() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let alert = [
        ("do", "send"),
        ("text", "Crue de la Dure"),
        ("class", "alert"),
        ("zone", "bourg"),
        ("zone", "hameau"),
        ("key", "k2"),
    ];
    let asked = mayor.post("/announcements", &alert).await;
    assert_eq!(asked.status, StatusCode::OK);
    assert!(asked.read().contains("Diffuser cette alerte ?") && asked.read().contains("Hameau des Clots"));
    assert!(hall.speakers.taken().is_empty(), "not yet");
    let mut confirmed = alert.to_vec();
    confirmed.push(("confirmed", "yes"));
    assert_eq!(mayor.post("/announcements", &confirmed).await.status, StatusCode::SEE_OTHER);
    let taken = hall.speakers.taken();
    assert_eq!((taken[0].class, taken[0].zones.len()), (Class::Alert, 2));
}

#[tokio::test]
async fn a_refused_announcement_says_why_and_keeps_the_text() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    for (fields, why) in [
        (
            vec![("do", "send"), ("text", "  "), ("class", "information"), ("zone", "bourg"), ("key", "a")],
            "Écrivez le texte à dire.",
        ),
        (vec![("do", "send"), ("text", "muet"), ("class", "information"), ("key", "b")], "Cochez au moins une zone."),
        (vec![("do", "listen"), ("text", "muet"), ("class", "information"), ("key", "c")], "aucune voix ne marche"),
        (vec![("do", "send"), ("text", "x"), ("class", "alert"), ("key", "d")], "Cochez au moins une zone."),
    ] {
        let answer = mayor.post("/announcements", &fields).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{why}");
        assert!(answer.read().contains(why), "{why}: {}", answer.read());
        assert!(answer.text().contains("aria-invalid=\"true\""), "{why}");
    }
    assert!(hall.speakers.taken().is_empty());
}

/// Adds somebody and gives their browser, with a password of their own.
async fn joined<'a>(hall: &'a Hall, mayor: &mut Browser<'_>, name: &str, role: &str) -> Browser<'a> {
    let page = mayor.post("/accounts", &[("do", "add"), ("name", name), ("role", role)]).await.text();
    let code = page.split("class=\"big-code\">").nth(1).and_then(|r| r.split('<').next()).expect("a code").to_owned();
    let mut person = hall.browser();
    let entered = person.post("/sign-in", &[("name", name), ("password", &code.to_lowercase())]).await;
    assert_eq!(entered.header("location"), "/password");
    assert_eq!(person.get("/").await.header("location"), "/password", "first of all a password");
    let chosen = [("password", "une phrase à moi seul"), ("again", "une phrase à moi seul")];
    assert_eq!(person.post("/password", &chosen).await.header("location"), "/");
    person
}

#[tokio::test]
async fn each_role_does_what_it_may_and_no_more() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let mut viewer = joined(&hall, &mut mayor, "Visiteur", "viewer").await;
    let mut secretary = joined(&hall, &mut mayor, "Secrétaire", "secretary").await;
    let mut technician = joined(&hall, &mut mayor, "Technicien", "technician").await;
    hall.board.raise(Code::AirStale, "air/school/co2", "");

    let say = |class| {
        [("do", "send"), ("text", "Bonjour"), ("class", class), ("zone", "bourg"), ("key", class), ("confirmed", "yes")]
    };
    let seen = [("code", "air-stale"), ("subject", "air/school/co2")];
    for (browser, announce, alert, acknowledge, manage) in [
        (&mut viewer, 403, 403, 403, 403),
        (&mut secretary, 303, 303, 303, 403),
        (&mut technician, 303, 403, 303, 200),
        (&mut mayor, 303, 303, 303, 200),
    ] {
        // A token comes from a page everybody may open; the form is forged, as an intruder would.
        let page = browser.get("/account").await.text();
        let token = page.split("name=\"token\" value=\"").nth(1).and_then(|r| r.split('"').next()).expect("a token");
        let mut statuses = Vec::new();
        for (path, fields) in
            [("/announcements", &say("information")[..]), ("/announcements", &say("alert")), ("/conditions", &seen)]
        {
            let mut fields = fields.to_vec();
            fields.push(("token", token));
            statuses.push(browser.ask("POST", path, encoded(&fields), &[]).await.status.as_u16());
        }
        statuses.push(browser.get("/accounts").await.status.as_u16());
        assert_eq!(statuses, [announce, alert, acknowledge, manage]);
    }
    assert!(!viewer.get("/announcements").await.text().contains("<textarea"));
}

#[tokio::test]
async fn a_technician_cannot_make_or_touch_a_mayor_and_the_last_mayor_stays() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let mut technician = joined(&hall, &mut mayor, "Technicien", "technician").await;
    for fields in [
        vec![("do", "add"), ("name", "Complice"), ("role", "mayor")],
        vec![("do", "role"), ("name", "Technicien"), ("role", "mayor")],
        vec![("do", "reset"), ("name", "Jeanne Vidal")],
        vec![("do", "remove"), ("name", "Jeanne Vidal"), ("confirmed", "yes")],
        vec![("do", "role"), ("name", "Jeanne Vidal"), ("role", "viewer")],
    ] {
        assert_eq!(technician.post("/accounts", &fields).await.status, StatusCode::FORBIDDEN, "{fields:?}");
    }
    for fields in [
        vec![("do", "role"), ("name", "Jeanne Vidal"), ("role", "viewer")],
        vec![("do", "remove"), ("name", "Jeanne Vidal"), ("confirmed", "yes")],
    ] {
        let answer = mayor.post("/accounts", &fields).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(answer.read().contains("Il doit rester au moins un compte"));
    }
    let asked = mayor.post("/accounts", &[("do", "remove"), ("name", "Technicien")]).await;
    assert!(asked.read().contains("Retirer le compte de Technicien ?"));
    assert_eq!(technician.get("/").await.status, StatusCode::OK, "asked, not done");
    mayor.post("/accounts", &[("do", "remove"), ("name", "Technicien"), ("confirmed", "yes")]).await;
    assert_eq!(technician.get("/").await.status, StatusCode::SEE_OTHER, "out at once");
}

#[tokio::test]
async fn a_new_code_ends_old_sessions_and_a_password_asks_for_the_present_one() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let mut secretary = joined(&hall, &mut mayor, "Secrétaire", "secretary").await;
    let fields =
        |current| [("current", current), ("password", "une autre phrase encore"), ("again", "une autre phrase encore")];
    let wrong = secretary.post("/password", &fields("je ne sais plus")).await;
    assert!(wrong.read().contains("Ce n'est pas votre mot de passe actuel"));
    assert_eq!(secretary.post("/password", &fields("une phrase à moi seul")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(secretary.get("/").await.status, StatusCode::OK, "this session goes on");
    mayor.post("/accounts", &[("do", "reset"), ("name", "secrétaire")]).await;
    assert_eq!(secretary.get("/").await.header("location"), "/sign-in?next=/");
    let old = secretary.post("/sign-in", &[("name", "Secrétaire"), ("password", "une autre phrase encore")]).await;
    assert_eq!(old.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn the_state_is_one_sentence_and_each_condition_says_what_to_do() {
    let hall =
        Hall::called("Caunes", |ground| ground.configuration_faults = vec!["gateway.toml:12:3 `speed` is -1".into()]);
    let mut mayor = hall.mayor().await;
    assert!(mayor.get("/").await.read().contains("Il y a 1 chose à regarder."));
    hall.board.raise(Code::WaterLeak, "water/hall/index", "12 L/h for 4 h");
    hall.board.raise(Code::PortUnplugged, "/dev/serial/by-id/usb-tic", "no such file");
    hall.time.advance(60_000);
    let home = mayor.get("/").await.read();
    assert!(home.contains("Il y a 3 choses à regarder, dont 1 urgente."), "{home}");
    assert!(
        home.contains("L'eau coule quand personne ne devrait en prendre : Eau de la salle des fêtes – Index"),
        "{home}"
    );
    hall.board.raise(Code::ConfigurationFault, "device \"water/hall\"", "line 12: `pin` is 99");
    hall.board.raise(Code::ClockUntrusted, "clock", "no time source");
    hall.board.raise(Code::AnnouncementFailed, "bourg", "announcement 3: no relay");
    hall.board.raise(Code::DeviceSilent, "electricity/mairie", "nothing heard for 30 s");
    let page = mayor.get("/conditions").await.read();
    assert!(!page.contains("Un appareil ne répond plus"), "a cut cable is one thing to look at: {page}");
    hall.board.close(Code::DeviceSilent, "electricity/mairie");
    for word in [
        "Un appareil est débranché : Électricité de la mairie",
        "Un réglage est mal écrit : Eau de la salle des fêtes",
        "L'heure du boîtier n'est pas sûre Dès",
        "Une annonce n'a pas été entendue : Le bourg",
    ] {
        assert!(page.contains(word), "{word}: {page}");
    }
    assert!(!page.contains("Le fichier de réglages a des fautes"), "faults are told once: {page}");
    hall.board.close(Code::ConfigurationFault, "device \"water/hall\"");
    hall.board.close(Code::ClockUntrusted, "clock");
    hall.board.close(Code::AnnouncementFailed, "bourg");
    let page = mayor.get("/conditions").await.read();
    for word in [
        "Urgent",
        "Vérifiez robinets et chasses d'eau",
        "Depuis : samedi 21 novembre 2026 à 12 h 05",
        "12 L/h for 4 h",
        "`speed` is -1",
        "Le fichier de réglages a des fautes",
    ] {
        assert!(page.contains(word), "{word}: {page}");
    }
    mayor.post("/conditions", &[("code", "water-leak"), ("subject", "water/hall/index")]).await;
    assert!(mayor.get("/conditions").await.read().contains("Vu par Jeanne Vidal"));
    hall.board.close(Code::WaterLeak, "water/hall/index");
    let page = mayor.get("/conditions").await.read();
    assert!(page.contains("Il y a 2 choses à regarder.") && page.contains("12 h 06"), "{page}");
}

#[tokio::test]
async fn an_old_value_is_said_to_be_old() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    hall.tell("air/school/temperature", Some(19.0), Quality::Good);
    hall.time.advance(30_000);
    assert!(!mayor.get("/").await.read().contains("plus de nouvelles"));
    hall.time.advance(1_000);
    let page = mayor.get("/").await.read();
    assert!(page.contains("Valeur ancienne : plus de nouvelles il y a 31 s"), "{page}");
}

#[tokio::test]
async fn the_register_says_what_the_month_has_used_of_the_link() {
    let hall = Hall::called("Aigues-Vives", |ground| {
        let (keep, clock, zone) = (ground.keep.clone(), ground.clock.clone(), ground.time_zone.clone());
        let traffic = Traffic::open(keep, clock, zone, Some(500_000_000));
        traffic.counters().sent(123_000_000);
        ground.traffic = Some(Arc::new(traffic));
    });
    let mut mayor = hall.mayor().await;
    let page = mayor.get("/access").await.text().replace(['\u{a0}', '\u{202f}'], " ");
    assert!(page.contains("Ce mois-ci : 123,0 Mo sur 500,0 Mo."), "{page}");
}

#[tokio::test]
async fn the_register_tells_who_took_what_and_survives_a_damaged_line() {
    let hall = Hall::new();
    for n in 0..120_u64 {
        let record = serde_json::json!({
            "peer": if n % 2 == 0 { "Agglo" } else { "Syndicat" },
            "at": {"boot": 1, "mono_ms": n}, "from": n * 10 + 1, "to": n * 10 + 10, "count": 10,
            "until": {"boot": 1, "mono_ms": n + if n == 119 { 3_540_000 } else { 0 }}, "again": n == 118,
        });
        hall.keep.put("access", &n.to_be_bytes(), record.to_string().as_bytes()).expect("a store");
    }
    hall.keep.put("access", &500_u64.to_be_bytes(), b"{damaged").expect("a store");
    let mut mayor = hall.mayor().await;
    let first = mayor.get("/access").await;
    assert!(first.read().contains("10 mesures (n° 1 191 à 1 200)") && first.read().contains("600 mesures en tout"));
    assert!(first.read().contains("à 12 h 05, jusqu'à 13 h 04") && first.read().contains("10 mesures redemandées"));
    assert_eq!(first.text().matches("<th scope=\"row\">").count(), 50);
    assert!(first.text().contains("href=\"/access?page=1\""));
    let last = mayor.get("/access?page=99").await;
    assert!(last.read().contains("10 mesures (n° 1 à 10)") && !last.read().contains("Plus ancien"));
}

/// A store with a past to tell: what is missing, what was set aside, who has what; and that can erase, once it may.
struct Storied {
    past: Past,
    gaps: Vec<Gap>,
    acknowledged: BTreeMap<String, u64>,
    erased: Mutex<Vec<(PointId, Option<i64>)>>,
    /// Each erasure waits for one permit.
    may: (Mutex<u32>, std::sync::Condvar),
    refuses: bool,
}

impl Storied {
    fn new() -> Self {
        Self {
            past: Past(watch::Sender::new(0)),
            gaps: Vec::new(),
            acknowledged: BTreeMap::new(),
            erased: Mutex::default(),
            may: Default::default(),
            refuses: false,
        }
    }

    fn permit(&self, count: u32) {
        *self.may.0.lock().expect("not poisoned") += count;
        self.may.1.notify_all();
    }
}

impl Archive for Storied {
    fn identity(&self) -> String {
        self.past.identity()
    }
    fn page(&self, request: &PageRequest<'_>) -> Result<Page, StoreError> {
        // One reading a second since noon two days ago.
        let reading = Reading {
            point: id("square/rain"),
            stamp: Stamp { boot: 1, mono_ms: request.upto * 1_000 },
            value: Some(1.0),
            quality: Quality::Good,
        };
        let seq = request.upto;
        Ok(Page { entries: vec![Entry::Reading(Stored { seq, reading })], next: seq, complete: true })
    }
    fn head(&self) -> watch::Receiver<u64> {
        self.past.head()
    }
    fn latest(&self) -> Vec<Stored> {
        let reading = |point: &str| Reading {
            point: id(point),
            stamp: Stamp { boot: 1, mono_ms: 0 },
            value: Some(1.0),
            quality: Quality::Good,
        };
        vec![Stored { seq: 7, reading: reading("cellar/old/humidity") }]
    }
    fn history(&self, point: &PointId, from_ms: i64, to_ms: i64, step_ms: i64) -> Result<Vec<Bucket>, StoreError> {
        if step_ms < 86_400_000 {
            return self.past.history(point, from_ms, to_ms, step_ms);
        }
        // Two days of the past, 500 readings each.
        let days = [NOON_MS - 3 * 86_400_000, NOON_MS - 86_400_000];
        let bucket = |start_ms| Bucket { start_ms, min: 1.0, max: 1.0, sum: 500.0, first: 1.0, last: 1.0, count: 500 };
        Ok(days.into_iter().filter(|day| (from_ms..to_ms).contains(day)).map(bucket).collect())
    }
    fn acknowledge(&self, _: &str, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
    fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.acknowledged.clone()
    }
    fn gaps(&self) -> Vec<Gap> {
        self.gaps.clone()
    }
    fn figures(&self) -> StoreFigures {
        self.past.figures()
    }
    fn set_aside(&self) -> Vec<SetAside> {
        vec![SetAside { name: "2026-11-21T10-00-00-00-00000000000007d0".into(), bytes: 12_000_000 }]
    }
    fn erase(&self, point: &PointId, before_ms: Option<i64>) -> Result<u64, StoreError> {
        let mut may = self.may.0.lock().expect("not poisoned");
        while *may == 0 {
            may = self.may.1.wait(may).expect("not poisoned");
        }
        *may -= 1;
        drop(may);
        if self.refuses {
            return Err(StoreError { doing: "write blocks anew".into(), source: None });
        }
        self.erased.lock().expect("not poisoned").push((point.clone(), before_ms));
        Ok(617)
    }
}

/// Asks for a page until it says something.
async fn until_said(browser: &mut Browser<'_>, path: &str, word: &str) -> String {
    loop {
        let page = browser.get(path).await.read();
        if page.contains(word) {
            return page;
        }
        tokio::task::yield_now().await;
    }
}

fn taken_by(hall: &Hall, number: u64, peer: &str, count: u64) {
    let record = serde_json::json!({
        "peer": peer, "at": {"boot": 1, "mono_ms": 0}, "until": {"boot": 1, "mono_ms": 1_000},
        "from": 1, "to": count, "count": count, "again": false,
    });
    hall.keep.put("access", &number.to_be_bytes(), record.to_string().as_bytes()).expect("a store");
}

#[tokio::test]
async fn one_place_tells_who_has_what_what_is_kept_and_what_is_missing_and_why() {
    let at = |minutes: u64| Some(Stamp { boot: 1, mono_ms: minutes * 60_000 });
    let gap = |first, count, from, to, cause| Gap { first, last: first + count - 1, count, from, to, cause };
    let archive = Storied {
        gaps: vec![
            gap(1, 400, None, None, Cause::SizeLimit),
            gap(9_000, 3_120, at(0), at(147), Cause::CardRefused),
            gap(90_000, 1, at(3), at(3), Cause::Damage),
            gap(95_000, 12, at(30), at(1_500), Cause::SizeLimit),
            gap(96_000, 1_000, at(3), at(4), Cause::Erased),
        ],
        acknowledged: BTreeMap::from([("agglo.example".to_owned(), 8_820)]),
        ..Storied::new()
    };
    let hall = Hall::called("Les Martys", |ground| ground.archive = Arc::new(archive));
    taken_by(&hall, 0, "agglo.example", 8_820);
    taken_by(&hall, 1, "Syndicat", 10);
    let mut mayor = hall.mayor().await;
    let page = mayor.get("/data").await.read();
    for sentence in [
        "Carcassonne Agglo A tout reçu jusqu'à 14 h 32.",
        "Peut prendre les mesures publiques, internes et personnelles avec accord.",
        "dept N'est encore jamais venu. Peut prendre les mesures publiques.",
        "Syndicat 10 mesures en tout N'est plus inscrit",
        "1 230 034 mesures gardées, la plus ancienne du samedi 21 novembre 2026.",
        "2,3 Mo utilisés sur 4,0 Go prévus",
        "3 120 mesures perdues le samedi 21 novembre 2026 entre 12 h 05 et 14 h 32 : la carte mémoire refusait d'écrire.",
        "1 mesure perdue le samedi 21 novembre 2026 à 12 h 08 : la carte mémoire a été abîmée.",
        "12 mesures perdues entre le samedi 21 novembre 2026 à 12 h 35 et le dimanche 22 novembre 2026 à 13 h 05 : \
         la place prévue était pleine.",
        "400 mesures retirées à une date inconnue : la place manquait, mais un serveur les avait déjà reçues.",
        "1 000 mesures effacées à la demande de la mairie.",
        "Une partie abîmée de la mémoire a été mise de côté (12,0 Mo).",
        "1 appareil mesure quelque chose de personnel. Rien n'en part.",
    ] {
        assert!(page.contains(sentence), "{sentence:?} is not in\n{page}");
    }
    for jargon in ["peer", "cursor", "curseur", "seq", "agglo.example"] {
        assert!(!page.contains(jargon), "{jargon}");
    }
    // The newest first.
    assert!(page.find("12 mesures perdues") < page.find("1 mesure perdue le") && page.contains("Publiques"));
}

#[tokio::test]
async fn what_tells_something_about_a_person_is_not_for_viewers() {
    let hall = Hall::new();
    hall.values();
    hall.tell("flat/caretaker/power", Some(640.0), Quality::Good);
    let mut mayor = hall.mayor().await;
    for (role, sees) in [("secretary", true), ("technician", true), ("viewer", false)] {
        let mut person = joined(&hall, &mut mayor, &format!("Qui {role}"), role).await;
        assert_eq!(person.get("/").await.read().contains("Logement du gardien"), sees, "{role}");
        let expected = if sees { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(person.get("/points/flat/caretaker/power").await.status, expected, "{role}");
        assert_eq!(person.get("/points/water/hall/index").await.status, StatusCode::OK, "{role}");
    }
    let page = mayor.get("/points/flat/caretaker/power").await.text();
    assert!(page.contains("href=\"/erase?what=flat/caretaker/power\""));
    assert!(mayor.get("/erase?what=flat/caretaker/power").await.text().contains("caretaker/power\" selected>"));
    hall.board.raise(Code::PeerAbsent, "agglo.example", "no pull for 24 h");
    assert!(mayor.get("/conditions").await.read().contains("ne vient plus chercher ses mesures : Carcassonne Agglo"));
}

#[tokio::test]
async fn a_consent_is_recorded_and_withdrawn_on_the_panel_by_who_may_and_names_are_for_them_alone() {
    let hall = Hall::new();
    let mut mayor = hall.mayor().await;
    let (point, power) = (id("flat/caretaker/temperature"), id("flat/caretaker/power"));
    let form = [
        ("do", "give"),
        ("device", "flat/caretaker"),
        ("person", "  Mme   Roche "),
        ("peer", "agglo.example"),
        ("dated", "2026-05-03"),
        ("purpose", "étude du chauffage"),
        ("paper", "classeur RGPD"),
    ];
    assert!(
        mayor.get("/consents").await.read().contains("Ne part pas vers Carcassonne Agglo. Aucun accord n'est noté.")
    );
    for (field, value, wrong) in [
        ("person", " ", "Écrivez le nom de la personne"),
        ("paper", "", "Écrivez où est le papier signé"),
        ("dated", "2026-11-22", "Il ne peut pas être à venir"),
        ("dated", "hier", "Choisissez le jour écrit sur le papier"),
        // Of another class: it may not ask for personal data at all.
        ("peer", "dept", "Cochez au moins un serveur"),
    ] {
        let wrongly: Vec<_> = form.iter().map(|(k, v)| (*k, if *k == field { value } else { *v })).collect();
        let refused = mayor.post("/consents", &wrongly).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{field} {value:?}");
        assert!(refused.read().contains(wrong) && refused.text().contains("value=\"étude du chauffage\""), "{wrong}");
    }
    assert!(!hall.consents.allow(&point, "agglo.example", false));

    let recorded = mayor.post("/consents", &form).await;
    assert_eq!((recorded.status, recorded.header("location")), (StatusCode::SEE_OTHER, "/consents?done=given"));
    assert!(hall.consents.allow(&point, "agglo.example", false) && hall.consents.allow(&power, "agglo.example", false));
    let page = mayor.get("/consents?done=given").await.read();
    for sentence in [
        "L'accord est noté.",
        "Part vers Carcassonne Agglo. Accord de Mme Roche du dimanche 3 mai 2026, pour : étude du chauffage. \
         Papier : classeur RGPD.",
        "Accord noté : Logement du gardien, pour Carcassonne Agglo.",
        "Noté par Jeanne Vidal, samedi 21 novembre 2026 à 12 h 05",
    ] {
        assert!(page.contains(sentence), "{sentence:?} is not in\n{page}");
    }
    assert!(mayor.get("/data").await.read().contains("Ses mesures partent, avec un accord."));

    let mut secretary = joined(&hall, &mut mayor, "Secrétaire", "secretary").await;
    let mut technician = joined(&hall, &mut mayor, "Technicien", "technician").await;
    for other in ["viewer", "technician"] {
        let mut reader = joined(&hall, &mut mayor, &format!("Qui {other}"), other).await;
        let page = reader.get("/consents").await;
        assert!(page.read().contains("Un accord du dimanche 3 mai 2026 est noté."));
        for hidden in ["Roche", "classeur", "étude", "Jeanne", "<form"] {
            assert!(!page.text().contains(hidden), "{other} reads {hidden}");
        }
    }
    let withdraw =
        [("do", "withdraw"), ("device", "flat/caretaker"), ("peer", "agglo.example"), ("person", "Mme Roche")];
    assert_eq!(technician.post("/account", &[("language", "fr")]).await.status, StatusCode::SEE_OTHER);
    let page = technician.get("/account").await.text();
    let token = page.split("name=\"token\" value=\"").nth(1).and_then(|r| r.split('"').next()).expect("a token");
    let mut forged = withdraw.to_vec();
    forged.push(("token", token));
    assert_eq!(technician.ask("POST", "/consents", encoded(&forged), &[]).await.status, StatusCode::FORBIDDEN);

    let nobody = [withdraw[0], withdraw[1], withdraw[2], ("person", "")];
    assert_eq!(secretary.post("/consents", &nobody).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(hall.consents.allow(&point, "agglo.example", false));
    assert_eq!(secretary.post("/consents", &withdraw).await.header("location"), "/consents?done=withdrawn");
    assert!(!hall.consents.allow(&point, "agglo.example", true), "at once");
    let page = secretary.get("/consents").await.read();
    assert!(
        page.contains("Ne part pas vers Carcassonne Agglo. L'accord a été retiré samedi 21 novembre 2026 à 12 h 05.")
    );
    assert!(page.contains("À la demande de Mme Roche. Noté par Secrétaire") && page.contains("Accord noté : Logement"));

    let one = [("point", "flat/caretaker/power")];
    let again: Vec<_> = form.iter().chain(&one).copied().collect();
    assert_eq!(secretary.post("/consents", &again).await.status, StatusCode::SEE_OTHER);
    assert!(
        hall.consents.allow(&power, "agglo.example", false) && !hall.consents.allow(&point, "agglo.example", false)
    );
    assert!(secretary.get("/consents").await.read().contains("Part en partie vers Carcassonne Agglo."));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_erased_off_the_request_after_a_page_that_says_what_goes_and_who_has_a_copy() {
    let archive = Arc::new(Storied::new());
    let hall = Hall::called("Les Martys", |ground| ground.archive = archive.clone());
    hall.tell("flat/caretaker/power", Some(640.0), Quality::Good);
    hall.tell("flat/caretaker/temperature", Some(19.5), Quality::Good);
    taken_by(&hall, 0, "agglo.example", 8_820);
    taken_by(&hall, 1, "dept", 10);
    taken_by(&hall, 2, "Syndicat", 10);
    let consents = hall.consents.clone();
    let mut mayor = hall.mayor().await;
    let chosen = [("what", "device:flat/caretaker"), ("how", "all"), ("before", "")];

    let question = mayor.post("/erase", &chosen).await.read();
    for sentence in [
        "Effacer tout ce qu'a mesuré « Logement du gardien » ?",
        "Cela fait environ 2 000 valeurs gardées depuis le mercredi 18 novembre 2026.",
        "C'est pour toujours",
        "L'appareil continue de mesurer",
        "Demandez-leur d'effacer la leur : Syndicat – Dernière visite :",
    ] {
        assert!(question.contains(sentence), "{sentence:?} is not in\n{question}");
    }
    assert!(!question.contains("dept"), "never let in");
    assert!(!question.contains("Carcassonne Agglo"), "let in, but nobody ever agreed");
    let agreed = What::Given {
        person: "Mme Roche".into(),
        purpose: String::new(),
        paper: "classeur".into(),
        dated: "2026-05-03".into(),
    };
    let entry = Agreed {
        what: agreed,
        points: vec![id("flat/caretaker/power")],
        peers: vec!["agglo.example".into()],
        at: hall.clock.now(),
        by: "Jeanne Vidal".into(),
    };
    consents.give(entry).expect("recorded");
    assert!(mayor.post("/erase", &chosen).await.read().contains("Carcassonne Agglo – Dernière visite"));
    assert!(archive.erased.lock().expect("not poisoned").is_empty(), "nothing goes before it is confirmed");
    assert!(hall.live.newest(&id("flat/caretaker/power")).is_some());

    let confirmed = [chosen[0], chosen[1], chosen[2], ("confirmed", "yes")];
    assert_eq!(mayor.post("/erase", &confirmed).await.header("location"), "/erase");
    archive.permit(1);
    let page = until_said(&mut mayor, "/erase", "Effacement en cours : 1 sur 2.").await;
    assert!(page.contains("Logement du gardien, en entier : en cours."));
    assert_eq!(mayor.post("/erase", &confirmed).await.status, StatusCode::CONFLICT, "one at a time");
    archive.permit(1);
    let page = until_said(&mut mayor, "/erase", "1 234 valeurs effacées.").await;
    assert!(page.contains("Logement du gardien, en entier : 1 234 valeurs effacées."));
    let erased = archive.erased.lock().expect("not poisoned").clone();
    assert_eq!(erased, [(id("flat/caretaker/power"), None), (id("flat/caretaker/temperature"), None)]);
    assert_eq!(hall.live.newest(&id("flat/caretaker/power")), None, "the newest value is gone too");
    let told = mayor.get("/data").await.read();
    assert!(told.contains("Logement du gardien, en entier : 1 234 valeurs effacées. Jeanne Vidal, samedi 21 novembre"));

    // Only what is old, of one point: the newest value stays.
    hall.tell("flat/caretaker/power", Some(640.0), Quality::Good);
    let old = [("what", "flat/caretaker/power"), ("how", "before"), ("before", "20/11/2026")];
    let question = mayor.post("/erase", &old).await.read();
    assert!(
        question.contains("« Logement du gardien – Puissance » avant le vendredi 20 novembre 2026 ?"),
        "{question}"
    );
    assert!(
        question.contains("environ 500 valeurs") && question.contains("Ce qui a été mesuré depuis cette date reste")
    );
    mayor.post("/erase", &[old[0], old[1], ("before", "2026-11-20"), ("confirmed", "yes")]).await;
    archive.permit(1);
    until_said(&mut mayor, "/erase", "Puissance, avant le vendredi 20 novembre 2026 : 617 valeurs effacées.").await;
    // Midnight in Paris.
    let midnight = Some(1_795_129_200_000);
    assert_eq!(archive.erased.lock().expect("not poisoned").last(), Some(&(id("flat/caretaker/power"), midnight)));
    assert!(hall.live.newest(&id("flat/caretaker/power")).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_mayor_erases_what_is_there_and_a_refusal_of_the_card_is_told() {
    let archive = Arc::new(Storied { refuses: true, ..Storied::new() });
    let hall = Hall::called("Les Martys", |ground| ground.archive = archive.clone());
    let mut mayor = hall.mayor().await;
    for role in ["secretary", "technician", "viewer"] {
        let mut other = joined(&hall, &mut mayor, &format!("Qui {role}"), role).await;
        assert_eq!(other.get("/erase").await.status, StatusCode::FORBIDDEN, "{role}");
        let page = other.get("/data").await;
        assert!(page.status == StatusCode::OK && !page.text().contains("href=\"/erase\""), "{role}");
        let page = other.get("/account").await.text();
        let token = page.split("name=\"token\" value=\"").nth(1).and_then(|r| r.split('"').next()).expect("a token");
        let forged = [("what", "square/rain"), ("how", "all"), ("confirmed", "yes"), ("token", token)];
        assert_eq!(other.ask("POST", "/erase", encoded(&forged), &[]).await.status, StatusCode::FORBIDDEN, "{role}");
    }
    let page = mayor.get("/erase").await;
    assert!(page.text().contains("<option value=\"cellar/old/humidity\">"), "stored, though nobody measures it now");
    for (what, how, before) in
        [("", "all", ""), ("no/such/point", "all", ""), ("square/rain", "", ""), ("square/rain", "before", "demain")]
    {
        let refused =
            mayor.post("/erase", &[("what", what), ("how", how), ("before", before), ("confirmed", "yes")]).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{what} {how} {before}");
    }
    archive.permit(1);
    mayor.post("/erase", &[("what", "cellar/old/humidity"), ("how", "all"), ("confirmed", "yes")]).await;
    until_said(&mut mayor, "/erase", "pas effacé, la carte mémoire a refusé").await;

    // What was begun when the gateway stopped.
    let begun = serde_json::json!({
        "label": "Pluie", "points": ["square/rain"], "before_ms": null, "by": "Jeanne Vidal",
        "at": {"boot": 1, "mono_ms": 0}, "ended": null, "outcome": "begun",
    });
    hall.keep.put("erasure", &50_u64.to_be_bytes(), begun.to_string().as_bytes()).expect("a store");
    assert!(mayor.get("/erase").await.read().contains("Pluie, en entier : interrompu par un arrêt du boîtier."));
}

#[tokio::test]
async fn a_gateway_without_loudspeakers_or_demonstration_does_not_offer_them() {
    let hall = Hall::called("Caunes", |ground| {
        ground.announcer = None;
        ground.demonstration = None;
    });
    let mut mayor = hall.mayor().await;
    let home = mayor.get("/").await.text();
    assert!(!home.contains("href=\"/announcements\"") && !home.contains("href=\"/demonstration\""));
    for path in ["/announcements", "/demonstration"] {
        assert_eq!(mayor.get(path).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(start_paused = true)]
async fn live_values_come_as_events_and_the_stream_ends_when_the_panel_stops() {
    let hall = Hall::new();
    hall.values();
    let mut mayor = hall.mayor().await;
    let cookie = mayor.cookie.clone().expect("a cookie");
    let request = Request::builder().uri("/live").header("cookie", cookie).body(Full::new(Bytes::new()));
    let service = TowerToHyperService::new(warp::service(hall.site.clone()));
    let (parts, mut body) = service.call(request.expect("a request")).await.expect("infallible").into_parts();
    assert_eq!(parts.headers.get("content-type").expect("a type"), "text/event-stream");
    let mut next = async || {
        let frame = body.frame().await?.expect("a frame");
        Some(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text"))
    };
    assert!(next().await.expect("opened").contains("retry:3000"));
    hall.tell("air/school/temperature", Some(20.0), Quality::Good);
    hall.tell("air/school/temperature", Some(21.5), Quality::Good);
    let news = next().await.expect("news");
    assert!(news.contains("event:readings") && news.contains("\"value\":\"21,5\""), "{news}");
    assert!(!news.contains("20,0"), "only the newest: {news}");
    hall.board.raise(Code::AirStale, "air/school/co2", "");
    assert!(next().await.expect("news").contains("event:changed\ndata:conditions"));
    hall.stop.cancel();
    assert_eq!(next().await, None);
    assert_eq!(mayor.get("/live").await.status, StatusCode::OK, "an ended stream gives its place back");
}

#[tokio::test]
async fn open_pages_are_counted() {
    let hall = Hall::new();
    let mayor = hall.mayor().await;
    let cookie = mayor.cookie.clone().expect("a cookie");
    let mut open = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..25 {
        let request = Request::builder().uri("/live").header("cookie", &cookie).body(Full::new(Bytes::new()));
        let service = TowerToHyperService::new(warp::service(hall.site.clone()));
        let answer = service.call(request.expect("a request")).await.expect("infallible");
        statuses.push(answer.status().as_u16());
        open.push(answer);
    }
    assert_eq!((statuses[23], statuses[24]), (200, 503));
}

/// Not a test but a window: `CLOCHER_LOOK=8080 cargo test --test it look_at_the_pages` serves the invented hall, so that
/// one can look at the pages while drawing them.
#[tokio::test]
async fn look_at_the_pages() {
    let Some(port) = std::env::var("CLOCHER_LOOK").ok().and_then(|port| port.parse::<u16>().ok()) else { return };
    let hall = Hall::called("Les Martys", |ground| {
        ground.configuration_faults = vec![
            "fault: device \"water/hall\": `pin` is 99, between 0 and 27 was expected\n --> gateway.toml:41:7".into(),
        ];
    });
    hall.values();
    hall.time.advance(12_000);
    hall.tell("electricity/mairie/power", Some(3_240.0), Quality::Good);
    hall.tell("air/school/co2", Some(1_420.0), Quality::Suspect(Why::WarmingUp));
    hall.tell("boiler/door/state", Some(1.0), Quality::Good);
    if std::env::var("CLOCHER_LOOK_FINE").is_err() {
        hall.board.raise(Code::WaterLeak, "water/hall/index", "12 L/h for 4 h");
        hall.board.raise(Code::PortUnplugged, "/dev/serial/by-id/usb-Micro_teleinfo", "no such file");
        hall.board.raise(Code::AirStale, "air/school/co2", "1420 ppm");
        hall.board.acknowledge(Code::AirStale, "air/school/co2", "Jeanne Vidal");
    }
    hall.board.raise(Code::PeerAbsent, "Carcassonne Agglo", "");
    hall.board.close(Code::PeerAbsent, "Carcassonne Agglo");
    for n in 0..60_u64 {
        let record = serde_json::json!({"peer": "Carcassonne Agglo", "at": {"boot": 1, "mono_ms": n * 100}, "from": n * 500, "to": n * 500 + 499, "count": 500});
        hall.keep.put("access", &n.to_be_bytes(), record.to_string().as_bytes()).expect("a store");
    }
    let entry = |id, zone: &str, text: &str, class, end| JournalEntry {
        id: AnnouncementId(id),
        zone: zone.into(),
        text: text.into(),
        class,
        asked_by: "Jeanne Vidal".into(),
        started: Stamp { boot: 1, mono_ms: 0 },
        audible_ms: 23_000,
        end,
    };
    *hall.speakers.journal.lock().expect("not poisoned") = vec![
        entry(2, "bourg", "Don du sang samedi à la salle des fêtes, de 8 h à 12 h.", Class::Information, End::Played),
        entry(
            2,
            "hameau",
            "Don du sang samedi à la salle des fêtes, de 8 h à 12 h.",
            Class::Information,
            End::Failed { why: "relay 17: device busy".into() },
        ),
    ];
    let asked = Asked {
        text: "L’eau sera coupée rue de la Fontaine de 14 h à 16 h.".into(),
        class: Class::Information,
        zones: vec!["bourg".into()],
        asked_by: "Jeanne Vidal".into(),
        key: None,
    };
    hall.speakers.ask(asked).await.expect("asked");
    println!("claim code: {}", hall.code());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    warp::serve(hall.site.clone()).incoming(listener).run().await;
}

#[tokio::test]
async fn the_box_tells_why_it_started_how_its_supply_holds_and_what_its_card_has_seen() {
    let start = |boot, reason, ran_ms| Begun { boot, run: String::new(), reason, detail: String::new(), ran_ms };
    let hall = Hall::called("Montclar", |ground| {
        let now = ground.clock.now();
        ground.machine = Machine::telling(Facts {
            starts: vec![start(now.boot, Reason::PowerCut, Some(12_000_000)), start(0, Reason::First, None)],
            supply: Some(Supply { low: false, falls: 3, last: Some(now) }),
            card: Card {
                written: Some(3_200_000_000),
                since: Some(now),
                room: Some((28_000_000_000, 31_000_000_000)),
                syncs: Syncs { count: 9, median_ms: 12, most_ms: 40, longest_ms: 90 },
                ..Card::default()
            },
        });
    });
    let mut mayor = hall.mayor().await;
    let page = mayor.get("/conditions").await.read();
    for told in [
        "arrêt brutal, sans doute une coupure de courant). Il marchait depuis au moins 3 h 20 min.",
        "Alimentation : correcte en ce moment, trop faible 3 fois (la dernière",
        "Carte mémoire : 3,2 Go écrits depuis l'installation, le",
        "Place libre : 28,0 Go sur 31,0 Go",
        "Temps d'écriture : 12 ms d'habitude, 40 ms au plus",
        "Démarrages précédents",
        "premier démarrage",
    ] {
        assert!(page.contains(told), "{told:?} is not on\n{page}");
    }
}
