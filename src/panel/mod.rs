//! The local web panel: server-rendered pages that work without JavaScript, over HTTPS.
//!
//! Its pages, styles and words are in `web/`; this side turns data into views and forms into acts. It knows the
//! vocabulary and the ground only: what it needs of other parts comes in through [`Ground`].

mod accounts;
mod answer;
mod assets;
mod chart;
mod erasing;
mod format;
mod frame;
mod history;
mod icons;
mod kept;
mod language;
mod live;
mod machine;
mod order;
mod pages;
mod partners;
mod patience;
mod previews;
mod routes;
mod sessions;
mod states;
mod visit;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::tz::TimeZone;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use accounts::Account;
pub use accounts::claim_code;
pub use routes::routes;

use crate::{
    announcement::Announcer,
    clock::{Clock, Stamp},
    condition::Board,
    config::{panel::PanelSettings, peers::PeerSettings},
    consent::Consents,
    live::Live,
    machine::Machine,
    reading::PointId,
    serve,
    store::{Archive, Keep, StoreError},
    supervisor::{Stage, Supervisor},
    traffic::{Counters, Traffic},
};

/// What the panel stands on.
pub struct Ground {
    /// The commune's name: `Aigues-Vives`.
    pub commune: String,
    /// What this box is called.
    pub gateway: String,
    /// The time zone of its hours.
    pub time_zone: TimeZone,
    /// Dates everything.
    pub clock: Clock,
    /// What is wrong.
    pub board: Board,
    /// The points and their newest readings.
    pub live: Live,
    /// What people call each device, by the prefix of its points; a device that is not here is called by its name.
    pub devices: BTreeMap<PointId, String>,
    /// The devices on each serial port, by the port's path.
    pub ports: BTreeMap<String, Vec<PointId>>,
    /// The past.
    pub archive: Arc<dyn Archive>,
    /// Accounts, sessions, the access register, the journal of what was erased.
    pub keep: Arc<dyn Keep>,
    /// Who agreed to what of personal points.
    pub consents: Consents,
    /// How the box itself is.
    pub machine: Machine,
    /// The central servers that may pull.
    pub peers: Vec<PeerSettings>,
    /// The loudspeakers, where there are any.
    pub announcer: Option<Arc<dyn Announcer>>,
    /// How the units are.
    pub supervisor: Supervisor,
    /// The faults of the configuration file, as a person reads them.
    pub configuration_faults: Vec<String>,
    /// What `clocher demo` shows.
    pub demonstration: Option<Arc<dyn Demonstration>>,
    /// Ends the live streams.
    pub stop: CancellationToken,
    /// What the link to the central servers has used of the month, where there are any.
    pub traffic: Option<Arc<Traffic>>,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("commune", &self.commune).finish_non_exhaustive()
    }
}

/// When and why the gateway last started, in one line of French; `None` as long as it is not known.
pub fn last_start(ground: &Ground) -> Option<String> {
    let start = ground.machine.facts().starts.into_iter().next()?;
    Some(machine::last(&start, ground, &language::Languages::read().of(language::Language::French)))
}

/// Tells what happened to the data while the link was down.
pub trait Demonstration: Send + Sync {
    /// As it stands now.
    fn report(&self) -> OutageReport;
}

/// What happened to the data during the last outage of the link. Counts of readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutageReport {
    /// Whether the link is up now.
    pub link_up: bool,
    /// Since when it is as it is.
    pub since: Option<Stamp>,
    /// The number of the last outage, from 1; 0 before the first.
    pub outage: u64,
    /// How long the last outage lasted, or lasts so far, in milliseconds.
    pub lasted_ms: u64,
    /// Taken during the last outage.
    pub produced: u64,
    /// Of these, on the card.
    pub buffered: u64,
    /// Of these, since pulled by the central server.
    pub pulled: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Taken since the demonstration began.
    pub produced_total: u64,
    /// Pulled since the demonstration began.
    pub pulled_total: u64,
    /// Lost since the demonstration began.
    pub lost_total: u64,
}

/// The panel at work.
pub(crate) struct Site {
    pub(crate) ground: Arc<Ground>,
    pub(crate) languages: language::Languages,
    pub(crate) assets: assets::Assets,
    pub(crate) hasher: accounts::Hasher,
    pub(crate) patience: patience::Patience,
    pub(crate) previews: previews::Previews,
    pub(crate) eraser: Arc<erasing::Eraser>,
    /// One permit for each live stream.
    pub(crate) streams: Arc<Semaphore>,
    /// Held while accounts change, so that two people cannot both be first, or both remove the last mayor.
    books: Arc<Mutex<()>>,
}

/// Most live streams at once: a phone and a PC for everybody in a town hall.
const STREAMS: usize = 24;

impl Site {
    fn new(ground: Arc<Ground>) -> Self {
        Self {
            languages: language::Languages::read(),
            assets: assets::Assets::read(),
            hasher: accounts::Hasher::new(),
            patience: patience::Patience::new(ground.clock.clone()),
            previews: previews::Previews::new(ground.clock.clone()),
            eraser: Arc::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            books: Arc::default(),
            ground,
        }
    }

    /// Works on the store, off the threads that answer.
    pub(crate) async fn keep<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Keep) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, answer::Problem> {
        let keep = Arc::clone(&self.ground.keep);
        let worked = tokio::task::spawn_blocking(move || work(keep.as_ref())).await;
        Ok(worked.map_err(|_| answer::Problem::Fell)??)
    }

    /// The same, while nobody else changes accounts.
    pub(crate) async fn books<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Keep) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, answer::Problem> {
        let books = Arc::clone(&self.books);
        self.keep(move |keep| {
            let _held = books.lock().unwrap_or_else(PoisonError::into_inner);
            work(keep)
        })
        .await
    }

    /// Reads what the panel stands on, off the threads that answer.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ground) -> T + Send + 'static,
    ) -> Result<T, answer::Problem> {
        let ground = Arc::clone(&self.ground);
        tokio::task::spawn_blocking(move || work(&ground)).await.map_err(|_| answer::Problem::Fell)
    }

    /// Changes one account. `None` when it is gone.
    pub(crate) async fn change(
        &self,
        name: &str,
        work: impl FnOnce(&mut Account) + Send + 'static,
    ) -> Result<Option<Account>, answer::Problem> {
        let name = name.to_owned();
        self.books(move |keep| {
            let Some(mut account) = accounts::find(keep, &name)? else { return Ok(None) };
            work(&mut account);
            accounts::save(keep, &account)?;
            Ok(Some(account))
        })
        .await
    }
}

/// Serves the panel, as a unit of its own.
///
/// # Errors
/// When the listener cannot be shared with the unit.
pub fn start(
    listener: std::net::TcpListener,
    tls: Arc<rustls::ServerConfig>,
    settings: &PanelSettings,
    ground: Arc<Ground>,
) -> std::io::Result<()> {
    tracing::info!(listen = %listener.local_addr()?, names = ?settings.host_names, "Panel open");
    let supervisor = ground.supervisor.clone();
    let service = warp::service(routes(ground));
    supervisor.unit(Stage::Panel, "panel", move |stop| {
        // Each rise has its own handle on the one listening socket, so that no port is lost between falls.
        let listener = listener.try_clone();
        let (tls, service) = (Arc::clone(&tls), service.clone());
        async move {
            Ok(serve::serve(listener?, tls, service, serve::Limits::panel(), Arc::new(Counters::default()), stop)
                .await?)
        }
    });
    Ok(())
}
