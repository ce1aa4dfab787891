//! Joins the parts: the only file that knows every one of them.
//!
//! Panel first: a faulty device, a taken port or a missing pin becomes a condition that names it, and the rest runs.

mod last_start;
mod release;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, IsTerminal, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use jiff::tz::TimeZone;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use release::release;

use crate::{
    announce,
    announcement::Announcer,
    broker,
    buffer::{self, Buffer},
    clock::{self, Change, Clock, Note, Stamp, Start, SystemTime},
    condition::{Board, Code},
    config::{
        self, Commune, Settings, Source, Trust, Words, announce::AnnounceSettings, broker::BrokerSettings,
        outcome::Outcome, panel::PanelSettings, peers::PeersSettings, words,
    },
    consent::Consents,
    drivers::{self, Device, Wire},
    live::Live,
    machine::{self, Machine, ended::Ended},
    panel, peers,
    port::gpio::{self, Pins},
    reading::{Batch, Commit, Intake, NotAccepted, PointId, Reading, Stored},
    signals::Signals,
    store::{Archive, Keep},
    supervisor::{Fall, Stage, Supervisor, chain},
    tls,
    traffic::Traffic,
    vouch, watch,
};

/// Batches that may wait between the drivers and the store before the drivers are slowed.
const INTAKE_DEPTH: usize = 256;
/// An ordered stop of the units; with [`LAST_COMMIT`] and the second the runtime's threads have, ten seconds at most.
const STOP_WITHIN: Duration = Duration::from_secs(7);
/// A store whose unit did not stop has this long to commit what it still holds.
const LAST_COMMIT: Duration = Duration::from_secs(2);
/// To write down that the stop was an orderly one.
const LAST_WORD: Duration = Duration::from_millis(500);
/// How often the system's clock is looked at.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(10);
/// What a card that refuses writes may leave to be tried again.
const MOST_UNKEPT: usize = 1_000;
/// How often it is looked whether the card answers.
const LOOK_AT_CARD: Duration = Duration::from_secs(1);
/// A card that has not answered for so long is left to systemd's watchdog: only a new start may cure it.
const GIVE_CARD_UP: Duration = Duration::from_secs(600);
/// Where the code that claims the box is while nobody has, in the store's directory.
pub const CLAIM_FILE: &str = "claim-code";
/// How often it is looked whether somebody has claimed the box.
const LOOK_AT_CLAIM: Duration = Duration::from_secs(5);
/// How often a taken address is tried again.
const TRY_ADDRESS: Duration = Duration::from_secs(5);

/// Why a gateway could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No place for a passing certificate.
    #[error("make a temporary directory for the box's certificate")]
    Passing(#[source] std::io::Error),
    /// The box's own certificate.
    #[error("make or read the box's own certificate")]
    Certificate(#[source] tls::TlsError),
    /// A signal handler.
    #[error("listen to signals")]
    Signals(#[source] std::io::Error),
}

/// Reads the file; one that cannot be read is a fault like any other, so that the panel still comes up.
pub fn read_source(config: &Path) -> Source {
    let name = config.display().to_string();
    match config::text::read(config) {
        Ok(text) => Source::new(name, text),
        Err(wrong) => {
            let source = Source::new(name, String::new());
            source.fault(0..0, "", wrong);
            source
        }
    }
}

/// Reads the settings, with what only the drivers can judge.
pub fn read_settings(source: &Source) -> Settings<Device> {
    let mut alarms = RefCell::new(BTreeMap::new());
    let mut settings = config::read(source, |block| {
        let device = drivers::read_device(block)?;
        if device.driver == drivers::contact::DRIVER.name {
            alarms.borrow_mut().extend(drivers::contact::alarm(block));
        }
        Some(device)
    });
    settings.watch.contacts.append(alarms.get_mut());
    let reserved = |(place, device): (usize, &Device)| {
        let taken = broker::topics::is_reserved(&device.name);
        taken.then(|| {
            (
                place,
                words!(
                    "names below announce/ and conditions/ are the gateway's own",
                    "les noms sous announce/ et conditions/ sont ceux de la passerelle"
                ),
            )
        })
    };
    let reserved: Vec<_> = settings.devices.iter().enumerate().filter_map(reserved).collect();
    for (place, wrong) in drivers::run::conflicts(&settings.devices).into_iter().chain(reserved) {
        if let (Some(device), Some(span)) = (settings.devices.get(place), settings.places.get(place)) {
            source.fault(span.clone(), format!("device \"{}\"", device.name), wrong);
        }
    }
    relays_are_not_read(source, &settings);
    settings
}

/// A pin that keys a relay cannot be a sensor's too.
fn relays_are_not_read(source: &Source, settings: &Settings<Device>) {
    let Some(announce) = &settings.announce else { return };
    let amplifier = announce.amplifier_pin.map(|pin| (pin, words!("the amplifier", "l'amplificateur")));
    let zones = announce.zones.iter().filter_map(|zone| {
        let name = &zone.name;
        Some((zone.pin?, words!("the zone \"{name}\"", "la zone \"{name}\"")))
    });
    let relays: BTreeMap<u8, Words> = zones.chain(amplifier).collect();
    for (device, span) in settings.devices.iter().zip(&settings.places) {
        if let Wire::Pin { pin, .. } = &device.wire
            && let Some(relay) = relays.get(pin)
        {
            let Words { english, french } = relay;
            let wrong = words!(
                "GPIO {pin} keys {english}, it cannot be read",
                "GPIO {pin} commande {french} : elle ne peut pas être lue"
            );
            source.fault(span.clone(), format!("device \"{}\"", device.name), wrong);
        }
    }
}

/// A gateway at work.
pub struct Gateway {
    /// Its conditions.
    pub board: Board,
    /// Its clock.
    pub clock: Clock,
    /// Its points.
    pub live: Live,
    /// Its units.
    pub supervisor: Supervisor,
    /// Its readings.
    pub archive: Arc<dyn Archive>,
    /// Its small records.
    pub keep: Arc<dyn Keep>,
    /// Who agreed to what of personal points.
    pub consents: Consents,
    /// Where the panel answers.
    pub panel: Option<SocketAddr>,
    /// Where peers pull.
    pub peers: Option<SocketAddr>,
    /// Where MQTT devices of this machine speak.
    pub broker: Option<SocketAddr>,
    own: tls::OwnCertificate,
    buffer: Buffer,
    /// Where the store lies.
    directory: PathBuf,
    /// The newest stamp of the starts before.
    newest: Option<Stamp>,
    /// How the box is.
    machine: Machine,
    /// Where the kernel tells of it.
    kernel: machine::Kernel,
}

/// What a demonstration or a test puts in the place of hardware.
#[derive(Default)]
pub struct Instead {
    /// Pins.
    pub pins: Option<Arc<dyn Pins>>,
    /// What the page "Démonstration" shows.
    pub demonstration: Option<Arc<dyn panel::Demonstration>>,
    /// What the kernel tells of the machine.
    pub kernel: machine::Kernel,
}

/// Runs the gateway of a file until SIGINT or SIGTERM. Names the units that did not stop in time.
///
/// # Errors
/// When it could not be started at all.
pub async fn run(source: &Source) -> Result<Vec<String>, AppError> {
    let signals = Signals::listen().map_err(AppError::Signals)?;
    let settings = read_settings(source);
    let directory = settings.store.directory.clone();
    let gateway = start(settings, &faults_of(source), Instead::default())?;
    let set_aside = Outcome::beside(Path::new(&source.name)).and_then(|outcome| outcome.set_aside());
    gateway.board.set(Code::ConfigurationSetAside, "clocher.toml", set_aside);
    tell_where(&gateway, &directory);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    feed_watchdog(&gateway);
    signals.told_to_stop(|| {}).await;
    info!("Stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let stubborn = gateway.stop().await;
    info!("Stopped");
    Ok(stubborn)
}

/// What people call the devices, and what hangs on each serial port.
struct Called {
    devices: BTreeMap<PointId, String>,
    ports: BTreeMap<String, Vec<PointId>>,
}

impl Called {
    fn of(devices: &[Device]) -> Self {
        let mut ports: BTreeMap<String, Vec<PointId>> = BTreeMap::new();
        for device in devices {
            if let Wire::Stream { line, .. } | Wire::Bus { line, .. } = &device.wire {
                ports.entry(line.path.display().to_string()).or_default().push(device.name.clone());
            }
        }
        let devices = devices.iter().map(|device| (device.name.clone(), device.label.clone())).collect();
        Self { devices, ports }
    }
}

fn faults_of(source: &Source) -> Vec<(String, String)> {
    let told = |fault: &config::Fault| {
        let place = if fault.place.is_empty() { source.name.clone() } else { fault.place.clone() };
        (place, format!("line {}: {}", source.line_of(fault), fault.message))
    };
    source.faults().iter().map(told).collect()
}

/// Says where the panel is, and what claims the box. The code goes to a terminal, or to a file that only its owner
/// reads, never to the log.
#[allow(clippy::print_stdout, reason = "for the person who started it by hand")]
fn tell_where(gateway: &Gateway, directory: &Path) {
    info!(fingerprint = gateway.fingerprint(), "The box's own certificate");
    // Nobody may claim a box whose card is away: it may have an owner.
    if !gateway.archive.is_known() {
        return;
    }
    let code = gateway.claim_code();
    if let (Some(code), true) = (&code, std::io::stdout().is_terminal()) {
        println!("Code to claim this box, asked by the panel at the first visit: {code}");
    }
    let path = directory.join(CLAIM_FILE);
    match (leave_code(&path, code.as_deref()), code) {
        (Ok(()), Some(_)) => {
            info!(file = %path.display(), "Nobody has claimed this box yet; the code is in a file");
            forget_code_once_claimed(gateway, path);
        }
        (Ok(()), None) => {}
        (Err(wrong), _) => warn!(file = %path.display(), %wrong, "The file of the claim code was not kept"),
    }
}

/// Takes the file of the code away once somebody has claimed the box.
fn forget_code_once_claimed(gateway: &Gateway, path: PathBuf) {
    let (keep, stop) = (Arc::clone(&gateway.keep), gateway.supervisor.stop_of(Stage::Panel));
    tokio::spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_AT_CLAIM)).await.is_some() {
            let keep = Arc::clone(&keep);
            let code = tokio::task::spawn_blocking(move || panel::claim_code(keep.as_ref())).await;
            if matches!(code, Ok(Ok(None))) {
                if let Err(wrong) = leave_code(&path, None) {
                    warn!(file = %path.display(), %wrong, "The file of the claim code stays");
                }
                return;
            }
        }
    });
}

/// Leaves the code in a file closed to others; without a code, no file.
fn leave_code(path: &Path, code: Option<&str>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(wrong) if wrong.kind() != io::ErrorKind::NotFound => return Err(wrong),
        _ => {}
    }
    let Some(code) = code else { return Ok(()) };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{code}")
}

/// Starts every part. Must be called within a tokio runtime.
///
/// # Errors
/// When there is no certificate to show.
pub fn start(settings: Settings<Device>, faults: &[(String, String)], instead: Instead) -> Result<Gateway, AppError> {
    let mut gateway = Gateway::open(&settings)?;
    for (place, fault) in faults {
        gateway.board.raise(Code::ConfigurationFault, place, fault.clone());
    }
    let (intake, batches) = Intake::new(INTAKE_DEPTH);
    gateway.take_in(batches);
    gateway.keep_time();
    gateway.watch_over_card();
    gateway.watch_machine(instead.kernel);
    let pins = instead.pins.or_else(|| open_pins(&settings, &gateway.board));
    let commune = settings.commune;
    let alarms = settings.watch.contacts.keys().cloned().collect();
    let traffic = settings.peers.as_ref().map(|peers| gateway.meter(peers, &commune));
    let announcer = settings
        .announce
        .map(|announce| announce::start(announce, gateway.ground_of_announce(pins.clone(), commune.time_zone.clone())));
    let called = Called::of(&settings.devices);
    let topics = drivers::run::start(settings.devices, &gateway.ground_of_drivers(intake.clone(), pins));
    watch::start(settings.watch, gateway.ground_of_watch());

    let panel = panel::Ground {
        configuration_faults: faults.iter().map(|(place, fault)| format!("{place}, {fault}")).collect(),
        announcer: announcer.clone(),
        demonstration: instead.demonstration,
        traffic: traffic.clone(),
        peers: settings.peers.as_ref().map(|peers| peers.peers.clone()).unwrap_or_default(),
        ..gateway.ground_of_panel(&commune, called)
    };
    let panel = Arc::new(panel);
    last_start::keep(&gateway.supervisor, std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from), &panel);
    gateway.panel = gateway.start_panel(settings.panel, panel)?;
    gateway.peers = settings
        .peers
        .zip(traffic)
        .and_then(|(peers, traffic)| gateway.start_peers(peers, gateway.ground_of_peers(&commune, traffic, alarms)));
    let inbox = Arc::new(Inbox { topics, intake });
    gateway.broker = settings.broker.and_then(|broker| gateway.start_broker(broker, inbox, announcer));
    Ok(gateway)
}

/// The store on the card or, when the card cannot be used, what stands in for it: measuring, announcing and serving go
/// on, and the store moves to the card by itself.
fn open_store(store: &config::Store) -> buffer::Opened {
    Buffer::begin(&buffer::Settings {
        directory: store.directory.clone(),
        size_limit: store.size_limit,
        commit_within: store.commit_within,
    })
}

/// Who may pull what, for the store to know what to lose first.
fn audience(settings: &Settings<Device>) -> buffer::Audience {
    let points = settings.devices.iter().flat_map(|device| &device.points);
    let peers = settings.peers.iter().flat_map(|peers| &peers.peers);
    buffer::Audience {
        classes: points.map(|point| (point.id.clone(), point.sharing)).collect(),
        peers: peers.map(|peer| (peer.name.clone(), peer.sharing.clone())).collect(),
    }
}

/// The box's own certificate; a passing one when the store's folder cannot hold it.
fn own_certificate(settings: &Settings<Device>, opened: &buffer::Opened) -> Result<tls::OwnCertificate, AppError> {
    let host_names = &settings.panel.host_names;
    let passing = || {
        let passing = tempfile::tempdir().map_err(AppError::Passing)?;
        tls::own_certificate(passing.path(), host_names).map_err(AppError::Certificate)
    };
    // A card that does not answer must not be asked again.
    if !opened.buffer.archive().is_known() {
        return passing();
    }
    tls::own_certificate(&settings.store.directory, host_names).or_else(|wrong| {
        warn!(wrong = chain(&wrong), "A certificate for this start only");
        passing()
    })
}

/// The wall clock never starts before the newest stored reading, nor before the gateway was built. The card learns of
/// this start before its first reading.
fn start_clock(trust: Trust, opened: &buffer::Opened) -> Clock {
    let time = SystemTime::start(opened.newest_ms.unwrap_or(0), vouch::by(trust));
    let start = Note::Start(Start {
        boot: opened.boot,
        machine: clock::machine(&time),
        before: opened.newest,
        built_ms: clock::built_ms(),
    });
    let clock = Clock::knowing(opened.boot, Arc::new(time), opened.notes.iter().copied().chain([start]));
    for change in [Change::Keep(start)].into_iter().chain(clock.look()) {
        if let Err(wrong) = opened.buffer.change(change) {
            warn!(wrong = chain(&wrong), "The first look at the clock was not kept");
        }
    }
    clock
}

fn start_live(settings: &Settings<Device>, archive: &dyn Archive) -> Live {
    let points: Vec<_> = settings.devices.iter().flat_map(|device| device.points.clone()).collect();
    let known = archive.latest().into_iter().map(|Stored { reading, .. }| reading);
    Live::new(points, known)
}

/// Looks at the clock and keeps what it says that is new, off the runtime's threads; gives back what the card refused,
/// to be tried again.
async fn look(clock: &Clock, buffer: &Buffer, unkept: Vec<Change>) -> Vec<Change> {
    let (clock, buffer, before) = (clock.clone(), buffer.clone(), unkept.clone());
    let work = tokio::task::spawn_blocking(move || {
        let changes = before.into_iter().chain(clock.look());
        changes.filter(|change| buffer.change(*change).is_err()).collect()
    });
    work.await.unwrap_or(unkept)
}

fn open_pins(settings: &Settings<Device>, board: &Board) -> Option<Arc<dyn Pins>> {
    let wanted = settings.devices.iter().any(|device| matches!(device.wire, Wire::Pin { .. }))
        || settings.announce.as_ref().is_some_and(uses_pins);
    if !wanted {
        return None;
    }
    match gpio::open(settings.gpio.clone()) {
        Ok(pins) => Some(pins),
        Err(wrong) => {
            board.raise(Code::PinUnusable, "gpio", chain(&wrong));
            None
        }
    }
}

fn uses_pins(announce: &AnnounceSettings) -> bool {
    announce.amplifier_pin.is_some() || announce.zones.iter().any(|zone| zone.pin.is_some())
}

/// Publishes of sensors become stored readings before they are acknowledged.
struct Inbox {
    topics: drivers::run::Topics,
    intake: Intake,
}

impl broker::Inbox for Inbox {
    fn deliver<'a>(&'a self, topic: &'a str, payload: &'a [u8], _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let readings = self.topics.deliver(topic, payload);
            if readings.is_empty() {
                return Ok(());
            }
            self.intake.give_and_wait(readings, Commit::Soon).await.map_err(|wrong| wrong.to_string())
        })
    }

    fn give<'a>(&'a self, topic: &'a str, payload: &'a [u8], _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let readings = self.topics.deliver(topic, payload);
            if !readings.is_empty() {
                // Nobody waits for an answer: with the polled ones, to spare the card.
                self.intake.give(readings, Commit::Grouped).await;
            }
        })
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.wants(topic)
    }

    fn feeds(&self, topic: &str, point: &PointId) -> bool {
        self.topics.feeds(topic, point)
    }
}

/// The peers' side of TLS: the certificate that was configured, or the box's own.
fn mutual(
    settings: &PeersSettings,
    own: &tls::OwnCertificate,
    clock: &Clock,
) -> Result<Arc<rustls::ServerConfig>, tls::TlsError> {
    let configured = settings.identity.as_ref().map(|(certificate, key)| tls::Identity::load(certificate, key));
    let configured = configured.transpose()?;
    let identity = configured.as_ref().unwrap_or(&own.identity);
    tls::server_mutual(identity, &settings.authority, settings.revoked.as_deref(), clock)
}

impl Gateway {
    /// The store, the clock, the board and the points, before any part is started.
    fn open(settings: &Settings<Device>) -> Result<Self, AppError> {
        let opened = open_store(&settings.store);
        let clock = start_clock(settings.clock.clone(), &opened);
        let board = Board::new(clock.clone());
        let records_damaged = opened.findings.iter().any(|finding| finding.detail.starts_with(buffer::RECORDS));
        opened.tell_findings(&board);
        let own = own_certificate(settings, &opened)?;
        let newest = opened.newest;
        let buffer = opened.buffer;
        buffer.know_audience(audience(settings));
        buffer.start(clock.clone(), board.clone());
        let (archive, keep) = (buffer.archive(), buffer.keep());
        // Until then it is told by whoever opened it; the store closes it once the card takes writes.
        board.set(Code::StoreRefusesWrites, "store", opened.unusable);
        let consents = Consents::open(Arc::clone(&keep), clock.clone());
        if records_damaged {
            // Withdrawals may be among what cannot be read.
            consents.doubt();
        }
        Ok(Self {
            live: start_live(settings, archive.as_ref()),
            supervisor: Supervisor::new(board.clone()),
            keep,
            consents,
            own,
            panel: None,
            peers: None,
            broker: None,
            archive,
            board,
            clock,
            buffer,
            directory: settings.store.directory.clone(),
            newest,
            machine: Machine::default(),
            kernel: machine::Kernel::default(),
        })
    }

    /// SHA-256 of the box's own certificate, for the technician to compare with the browser's warning.
    pub fn fingerprint(&self) -> &str {
        &self.own.fingerprint
    }

    /// The code the panel asks at the first visit, while nobody has claimed the box.
    pub fn claim_code(&self) -> Option<String> {
        let code = panel::claim_code(self.keep.as_ref());
        code.inspect_err(|wrong| warn!(wrong = chain(wrong), "The claim code was not kept")).ok().flatten()
    }

    /// Stops in order, within ten seconds; names the units that did not.
    pub async fn stop(self) -> Vec<String> {
        let mut stubborn = self.supervisor.stop(STOP_WITHIN).await;
        if tokio::time::timeout(LAST_COMMIT, self.buffer.close()).await.is_err() {
            stubborn.push("store".to_owned());
        } else {
            leave_end(self.kernel, self.directory).await;
        }
        stubborn
    }

    /// Readings to those who watch, then to the card. At the stop what was given is still taken, then the store closes.
    fn take_in(&self, batches: mpsc::Receiver<Batch>) {
        let batches = Arc::new(Mutex::new(batches));
        let (live, buffer) = (self.live.clone(), self.buffer.clone());
        self.supervisor.unit(Stage::Store, "store", move |stop| {
            let (batches, live, buffer) = (Arc::clone(&batches), live.clone(), buffer.clone());
            async move {
                let mut batches = batches.lock().await;
                let told = Told::default();
                while let Some(Some(batch)) = stop.run_until_cancelled(batches.recv()).await {
                    live.tell(&told.news(&batch));
                    buffer.append(told.followed(batch)).await;
                }
                batches.close();
                while let Some(batch) = batches.recv().await {
                    buffer.append(batch).await;
                }
                buffer.close().await;
                Ok(())
            }
        });
    }

    /// Looks every second whether the card still answers, and takes up what it last held once it can be read.
    fn watch_over_card(&self) {
        let (buffer, live, archive) = (self.buffer.clone(), self.live.clone(), Arc::clone(&self.archive));
        let known = self.keep.known();
        self.supervisor.unit(Stage::Peers, "card", move |stop| {
            let (buffer, live, archive, mut known) =
                (buffer.clone(), live.clone(), Arc::clone(&archive), known.clone());
            async move {
                let mut recalled = *known.borrow_and_update();
                while stop.run_until_cancelled(tokio::time::sleep(LOOK_AT_CARD)).await.is_some() {
                    buffer.look();
                    if !recalled && *known.borrow_and_update() {
                        recalled = true;
                        live.recall(archive.latest().into_iter().map(|Stored { reading, .. }| reading));
                    }
                }
                Ok(())
            }
        });
    }

    /// Why the box last started, its supply, its card.
    fn watch_machine(&mut self, kernel: machine::Kernel) {
        self.kernel = kernel;
        self.machine = machine::start(machine::Ground {
            supervisor: self.supervisor.clone(),
            board: self.board.clone(),
            clock: self.clock.clone(),
            keep: Arc::clone(&self.keep),
            archive: Arc::clone(&self.archive),
            directory: self.directory.clone(),
            newest: self.newest,
            kernel: self.kernel.clone(),
        });
    }

    /// Looks at the system's clock, keeps what it says that is new, and tells when nobody vouches for it.
    fn keep_time(&self) {
        let (clock, board, buffer) = (self.clock.clone(), self.board.clone(), self.buffer.clone());
        self.supervisor.unit(Stage::Inputs, "clock", move |stop| {
            let (clock, board, buffer) = (clock.clone(), board.clone(), buffer.clone());
            async move {
                let mut unkept = Vec::new();
                loop {
                    let told = !unkept.is_empty();
                    unkept = look(&clock, &buffer, unkept).await;
                    unkept.truncate(MOST_UNKEPT);
                    if !told && !unkept.is_empty() {
                        warn!("The card refuses what was learnt of the time; it is tried again");
                    }
                    let trusted = clock.wall_now().source.is_trusted();
                    let wrong = (!trusted).then(|| "no time source has been heard since the start".to_owned());
                    board.set(Code::ClockUntrusted, "clock", wrong);
                    if stop.run_until_cancelled(tokio::time::sleep(LOOK_AT_CLOCK)).await.is_none() {
                        return Ok(());
                    }
                }
            }
        });
    }

    fn ground_of_announce(&self, pins: Option<Arc<dyn Pins>>, time_zone: TimeZone) -> announce::Ground {
        announce::Ground {
            supervisor: self.supervisor.clone(),
            board: self.board.clone(),
            clock: self.clock.clone(),
            keep: Arc::clone(&self.keep),
            pins,
            time_zone,
        }
    }

    fn ground_of_drivers(&self, intake: Intake, pins: Option<Arc<dyn Pins>>) -> drivers::run::Ground {
        drivers::run::Ground {
            supervisor: self.supervisor.clone(),
            intake,
            board: self.board.clone(),
            clock: self.clock.clone(),
            live: self.live.clone(),
            pins,
        }
    }

    fn ground_of_watch(&self) -> watch::Ground<'_> {
        watch::Ground {
            supervisor: &self.supervisor,
            board: self.board.clone(),
            live: self.live.clone(),
            clock: self.clock.clone(),
            archive: Arc::clone(&self.archive),
        }
    }

    fn ground_of_panel(&self, commune: &Commune, called: Called) -> panel::Ground {
        panel::Ground {
            commune: commune.name.clone(),
            gateway: commune.gateway.clone(),
            time_zone: commune.time_zone.clone(),
            clock: self.clock.clone(),
            board: self.board.clone(),
            live: self.live.clone(),
            devices: called.devices,
            ports: called.ports,
            archive: Arc::clone(&self.archive),
            keep: Arc::clone(&self.keep),
            consents: self.consents.clone(),
            machine: self.machine.clone(),
            peers: Vec::new(),
            announcer: None,
            supervisor: self.supervisor.clone(),
            configuration_faults: Vec::new(),
            demonstration: None,
            traffic: None,
            stop: self.supervisor.stop_of(Stage::Panel),
        }
    }

    /// What the link to the central servers carries.
    fn meter(&self, peers: &PeersSettings, commune: &Commune) -> Arc<Traffic> {
        let (keep, clock) = (Arc::clone(&self.keep), self.clock.clone());
        Arc::new(Traffic::open(keep, clock, commune.time_zone.clone(), peers.monthly_budget))
    }

    fn ground_of_peers(&self, commune: &Commune, traffic: Arc<Traffic>, alarms: BTreeSet<PointId>) -> peers::Ground {
        peers::Ground {
            supervisor: self.supervisor.clone(),
            board: self.board.clone(),
            clock: self.clock.clone(),
            live: self.live.clone(),
            archive: Arc::clone(&self.archive),
            keep: Arc::clone(&self.keep),
            traffic,
            alarms,
            consents: self.consents.clone(),
            machine: self.machine.clone(),
            commune: commune.name.clone(),
            gateway: commune.gateway.clone(),
            time_zone: commune.time_zone.clone(),
        }
    }

    fn start_panel(&self, settings: PanelSettings, ground: Arc<panel::Ground>) -> Result<Option<SocketAddr>, AppError> {
        let certificate = tls::server(&self.own).map_err(AppError::Certificate)?;
        Ok(self.listen(PANEL, settings.listen, Stage::Panel, move |listener| {
            Ok(panel::start(listener, Arc::clone(&certificate), &settings, Arc::clone(&ground))?)
        }))
    }

    fn start_peers(&self, settings: PeersSettings, ground: peers::Ground) -> Option<SocketAddr> {
        let told = |wrong: &tls::TlsError| {
            self.board.raise(Code::ConfigurationFault, PEERS.name, chain(wrong));
        };
        let certificate = mutual(&settings, &self.own, &self.clock).inspect_err(told).ok()?;
        self.listen(PEERS, settings.listen, Stage::Peers, move |listener| {
            peers::start(settings.clone(), listener, Arc::clone(&certificate), ground.clone());
            Ok(())
        })
    }

    fn start_broker(
        &self,
        settings: BrokerSettings,
        inbox: Arc<Inbox>,
        announce: Option<Arc<dyn Announcer>>,
    ) -> Option<SocketAddr> {
        let told = |wrong: &tls::TlsError| {
            self.board.raise(Code::UnitGaveUp, BROKER.name, chain(wrong));
        };
        let ground = broker::Ground {
            supervisor: self.supervisor.clone(),
            board: self.board.clone(),
            keep: Arc::clone(&self.keep),
            live: self.live.clone(),
            clock: self.clock.clone(),
            inbox,
            tls: tls::server(&self.own).inspect_err(told).ok(),
            announce,
        };
        self.listen(BROKER, settings.listen, Stage::Broker, move |listener| {
            let encrypted = settings.listen_tls.map(TcpListener::bind).transpose()?;
            broker::start(settings.clone(), listener, encrypted, ground.clone())?;
            Ok(())
        })
    }

    /// Binds and starts; an address that is taken is told and tried again, and the other parts go on.
    fn listen(
        &self,
        door: Door,
        address: SocketAddr,
        stage: Stage,
        start: impl Fn(TcpListener) -> Result<(), Fall> + Send + 'static,
    ) -> Option<SocketAddr> {
        let open = move || -> Result<SocketAddr, Fall> {
            let listener = TcpListener::bind(address)?;
            let bound = listener.local_addr()?;
            start(listener)?;
            info!(address = %bound, "{}", door.open);
            Ok(bound)
        };
        match open() {
            Ok(bound) => Some(bound),
            Err(wrong) => {
                self.board.raise(Code::UnitGaveUp, door.name, format!("{address}: {}", chain(wrong.as_ref())));
                tokio::spawn(try_again(open, self.supervisor.stop_of(stage), self.board.clone(), door.name));
                None
            }
        }
    }
}

/// Says to the next start that this run ended in order; a card that hangs is not waited for.
async fn leave_end(kernel: machine::Kernel, directory: PathBuf) {
    let work = tokio::task::spawn_blocking(move || Ended::well(&kernel).leave(&directory));
    match tokio::time::timeout(LAST_WORD, work).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(wrong))) => warn!(%wrong, "That the gateway stopped in order was not kept"),
        _ => warn!("The card does not take that the gateway stopped in order"),
    }
}

/// A listener: what its condition is called, and what the log says once it is open.
#[derive(Clone, Copy)]
struct Door {
    name: &'static str,
    open: &'static str,
}

const PANEL: Door = Door { name: "panel", open: "Panel ready" };
const PEERS: Door = Door { name: "peers", open: "Peers may pull" };
const BROKER: Door = Door { name: "broker", open: "Broker ready" };

async fn try_again(
    open: impl Fn() -> Result<SocketAddr, Fall>,
    stop: CancellationToken,
    board: Board,
    name: &'static str,
) {
    while stop.run_until_cancelled(tokio::time::sleep(TRY_ADDRESS)).await.is_some() {
        if open().is_ok() {
            board.close(Code::UnitGaveUp, name);
            return;
        }
    }
}

/// Feeds systemd's watchdog as long as the runtime and its blocking threads turn, and no card that once answered has been
/// silent for ten minutes. One that has not answered since the start is no reason: the next start would find it the same.
fn feed_watchdog(gateway: &Gateway) {
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    let (stop, archive) = (gateway.supervisor.stop_of(Stage::Broker), Arc::clone(&gateway.archive));
    let buffer = gateway.buffer.clone();
    tokio::spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(every / 3)).await.is_some() {
            let archive = Arc::clone(&archive);
            let turns = tokio::time::timeout(every, tokio::task::spawn_blocking(move || archive.figures())).await;
            let given_up = buffer.silent_for().is_some_and(|silent| silent >= GIVE_CARD_UP);
            if turns.is_ok() && !given_up {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
        }
    });
}

/// Values told to those who watch that the card did not take: their device sends them again, and that is no news.
#[derive(Clone, Default)]
struct Told(Arc<std::sync::Mutex<BTreeMap<PointId, Option<f64>>>>);

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PointId, Option<f64>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What of a batch was not told before.
    fn news(&self, batch: &Batch) -> Vec<Reading> {
        if batch.accepted.is_none() {
            return batch.readings.clone();
        }
        let told = self.lock();
        let again = |reading: &&Reading| told.get(&reading.point) != Some(&reading.value);
        batch.readings.iter().filter(again).cloned().collect()
    }

    /// The batch, whose fate is heard of on its way to whoever waits for it.
    fn followed(&self, batch: Batch) -> Batch {
        let Some(waits) = batch.accepted else { return batch };
        let (accepted, fate) = oneshot::channel();
        let values: Vec<_> = batch.readings.iter().map(|reading| (reading.point.clone(), reading.value)).collect();
        let told = self.clone();
        tokio::spawn(async move {
            let fate = fate.await.unwrap_or_else(|_| Err(NotAccepted("the gateway is stopping".to_owned())));
            {
                let mut told = told.lock();
                match &fate {
                    Ok(()) => told.retain(|point, _| values.iter().all(|(stored, _)| stored != point)),
                    Err(_) => told.extend(values),
                }
            }
            let _ = waits.send(fate);
        });
        Batch { accepted: Some(accepted), ..batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_on_the_pin_of_a_relay_is_told() {
        let text = "[commune]\nname = \"M\"\n[announce]\noutput = \"wav\"\nwav_directory = \"/tmp\"\n[[announce.zone]]\n\
                    name = \"bourg\"\npin = 24\n[[device]]\nname = \"door\"\ndriver = \"contact\"\npin = 24\n";
        let source = Source::new("gateway.toml", text);
        read_settings(&source);
        let told: Vec<_> =
            source.faults().iter().map(|fault| (source.line_of(fault), fault.message.english.clone())).collect();
        assert_eq!(told, [(9, "GPIO 24 keys the zone \"bourg\", it cannot be read".to_owned())]);
    }

    /// The card is spared what nobody waits for: found by `image/test wear`, where each message was a commit of its own.
    #[tokio::test]
    async fn a_message_that_waits_for_its_acknowledgement_is_committed_soon_and_another_with_the_polled_readings() {
        let text = "[commune]\nname = \"M\"\n[[device]]\nname = \"air\"\ndriver = \"mqtt\"\ntopic = \"z\"\n\
                    [[device.point]]\nname = \"t\"\npointer = \"/t\"\ndecimals = 1\n";
        let source = Source::new("gateway.toml", text);
        let devices = read_settings(&source).devices;
        assert_eq!(source.faults(), []);
        let clock = Clock::new(1, clock::HeldTime::at(1_800_000_000_000, clock::Source::Ntp), []);
        let board = Board::new(clock.clone());
        let (intake, mut batches) = Intake::new(8);
        let supervisor = Supervisor::new(board.clone());
        let ground = drivers::run::Ground {
            supervisor,
            intake: intake.clone(),
            board,
            clock,
            live: Live::new([], []),
            pins: None,
        };
        let inbox = Inbox { topics: drivers::run::start(devices, &ground), intake };
        broker::Inbox::give(&inbox, "z", br#"{"t":20}"#, "zigbee").await;
        let given = batches.recv().await.expect("given");
        assert_eq!((given.commit, given.readings.len(), given.accepted.is_some()), (Commit::Grouped, 1, false));
        let (_, waits) = tokio::join!(broker::Inbox::deliver(&inbox, "z", br#"{"t":21}"#, "zigbee"), async {
            let Batch { commit, accepted, .. } = batches.recv().await.expect("given");
            accepted.map(|accepted| accepted.send(Ok(()))).map(|_| commit)
        });
        assert_eq!(waits, Some(Commit::Soon));
    }

    #[test]
    fn the_store_s_directory_is_made_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("store");
        let store = config::Store {
            directory: directory.clone(),
            size_limit: 64_000_000,
            commit_within: Duration::from_secs(1),
        };
        let opened = open_store(&store);
        assert_eq!(opened.unusable, None);
        let mode = fs::metadata(&directory).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_claim_code_is_left_in_a_file_closed_to_others_until_there_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join(CLAIM_FILE);
        fs::write(&path, "an older one, open to all").expect("written");
        leave_code(&path, Some("ABCD-EFGH-JKLM")).expect("left");
        assert_eq!(fs::read_to_string(&path).expect("read"), "ABCD-EFGH-JKLM\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        leave_code(&path, None).expect("gone");
        assert!(!path.exists());
        leave_code(&path, None).expect("still gone");
    }
}
