//! Central servers pull what the gateway has kept: `GET /v1/…` over mutual TLS. Nothing is ever pushed.
//!
//! | path | what |
//! |---|---|
//! | `/v1/observations?after=&limit=&wait=&format=` | readings after a cursor: JSON lines, or SenML |
//! | `/v1/observations?from=&to=&continue=` | a range once more, by number or RFC 3339 time; no cursor moves |
//! | `/v1/observations?order=newest&before=` | the newest reading of each point, the latest first; no cursor moves |
//! | `/v1/points` | the points this peer may see |
//! | `/v1/gaps` | readings that will never come |
//! | `/v1/health` | how the gateway is, in less than 2 kB |
//! | `/v1/days`, `/v1/days/2026-11-21.csv`, `/v1/days/schema.json` | days as CSV files: a Frictionless Data Package |
//! | `/metrics` | the newest readings and the gateway's own figures: OpenMetrics, or Prometheus' text |
//! | `/v1/openapi.json` | all this as an OpenAPI document |
//!
//! `resource.rs` is the table of them, with every parameter. A request that cannot be answered gets RFC 9457 problem
//! details: 400 where a value is not of its form, 422 where values that are contradict one another.
//!
//! # A page
//! One JSON object a line, `application/x-ndjson`, compressed by `Accept-Encoding`. Three kinds of line:
//!
//! - rows: `{"seq","point","phenomenonTime","resultTime","result","unit","quality","why","clock":{…}}`, or columns: one
//!   point of one boot, where `seq`, `monoMs`, `unixMs` are differences (the first from zero), `result` too, of integers
//!   to be divided by 10^`decimals` (a `null` stands aside), or plain values when `decimals` is `null`; `quality` is runs
//!   of `[word, why, count]`;
//! - `{"gap":{"first","last","count","cause","from","to"}}`; with a `count` below `last - first + 1` the other numbers
//!   between them are readings told in other lines. Readings and counts of gaps add up to all numbers, for a peer that
//!   sees all points;
//! - the last: `{"next":"<cursor>","complete":bool,"remaining":n}`. A page without it was cut short and must be thrown
//!   away whole. For a range it is `{"continue":n,"complete":bool}`.
//!
//! In every form, the header `Link` with `rel="next"` is the next request (RFC 8288). A SenML pack tells gaps, qualities
//! and what could not be dated by records whose names hold a colon, and where the same readings are as rows by
//! `rel="alternate"`.
//!
//! Newest first: after an outage a peer may ask `order=newest` before it goes on with its cursor, and knows how things
//! are before the backlog has come. The cursor gives the same readings again under the same numbers, in their place. The
//! last line is `{"before":n,"complete":bool}`: with `before=n` the rest is told, when it did not fit one page.
//!
//! A page that ends what there is (`complete`) carries `Retry-After` when the peer did not wait here (`wait`), and so
//! does each refusal that will pass: each gateway has its own share of the time over which they are spread.
//!
//! # The month's budget
//! Once the bytes of the month reach `monthly_budget`, what carries readings in number, `/v1/observations` in every form
//! and the files of days, is answered 429 (`budget-spent`) until the next month; they wait in the store. What is small
//! still leaves, `/v1/health` and `/metrics` among it, and what is an alarm: by `order=newest` the points that are
//! contacts with an `alarm`, or that an open condition of severity alarm names.
//!
//! At least once: asking `after=X` says that everything up to X is safe with the peer. Numbers may be missing in between:
//! they are of points this peer may not see. A point removed from the configuration is seen by nobody.

mod absence;
mod accept;
mod answer;
mod api;
mod comeback;
mod csv;
mod cursor;
mod days;
mod encoding;
mod exposition;
mod fetch;
mod files;
mod grouping;
mod health;
mod link;
mod metrics;
mod observations;
mod openapi;
mod page;
mod peer;
pub mod pull;
mod query;
mod refusal;
mod register;
mod resource;
mod senml;
mod timeline;

use std::{collections::BTreeSet, fmt, net::TcpListener, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    absence::Absence,
    api::{Api, routes},
    register::Register,
};
use crate::{
    clock::Clock,
    condition::{Board, Code},
    config::peers::PeersSettings,
    consent::Consents,
    live::Live,
    machine::Machine,
    reading::{PointId, Sharing},
    serve::{Limits, serve},
    store::{Archive, Keep},
    supervisor::{Fall, Stage, Supervisor},
    traffic::Traffic,
};

pub use self::{openapi::DOCUMENT as OPENAPI, page::Format};

/// How often absences are looked for, and the month's count is.
const WATCH_EVERY: Duration = Duration::from_secs(60);
/// The subject of the budget's condition.
const SUBJECT: &str = "peers";

/// What the part stands on.
#[derive(Clone)]
pub struct Ground {
    /// Keeps the listener running.
    pub supervisor: Supervisor,
    /// Where an absent peer is shown, and what the health digest counts.
    pub board: Board,
    /// Dates readings.
    pub clock: Clock,
    /// The points, their units and sharing classes.
    pub live: Live,
    /// The readings.
    pub archive: Arc<dyn Archive>,
    /// The access register: table `access`.
    pub keep: Arc<dyn Keep>,
    /// What the link may carry in a month, and has.
    pub traffic: Arc<Traffic>,
    /// Points whose readings are alarms by themselves.
    pub alarms: BTreeSet<PointId>,
    /// Who agreed to what of personal points.
    pub consents: Consents,
    /// How the box itself is.
    pub machine: Machine,
    /// The gateway's name.
    pub gateway: String,
    /// The commune's name.
    pub commune: String,
    /// Its civil time, for the files of days.
    pub time_zone: TimeZone,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

/// Serves the pull API on a bound listener, under supervision, until [`Stage::Peers`] stops. `tls` must ask for client
/// certificates: [`crate::tls::server_mutual`].
pub fn start(settings: PeersSettings, listener: TcpListener, tls: Arc<ServerConfig>, ground: Ground) {
    for peer in settings.peers.iter().filter(|peer| peer.sharing.contains(&Sharing::Personal)) {
        info!(peer = peer.name, consent = peer.consent, "Personal points are shared with a peer");
    }
    let names = settings.peers.iter().map(|peer| peer.name.as_str());
    let absence = Absence::new(ground.clock.clone(), ground.board.clone(), settings.absent_after, names);
    let absence = Arc::new(absence);
    let (watching, watched) = (Arc::clone(&absence), ground.clone());
    ground
        .supervisor
        .unit(Stage::Peers, "peers watch", move |stop| watch(Arc::clone(&watching), watched.clone(), stop));

    let (supervisor, settings) = (ground.supervisor.clone(), Arc::new(settings));
    supervisor.unit(Stage::Peers, "peers", move |stop| {
        let listener = listener.try_clone();
        let (tls, ground, settings) = (Arc::clone(&tls), ground.clone(), Arc::clone(&settings));
        let absence = Arc::clone(&absence);
        async move {
            let (keep, clock, counters) = (Arc::clone(&ground.keep), ground.clock.clone(), ground.traffic.counters());
            let register = tokio::task::spawn_blocking(move || Register::open(keep, clock)).await?;
            let api = Arc::new(Api::new(ground, &settings, register, absence, stop.clone()));
            let service = warp::service(routes(Arc::clone(&api)));
            let served = serve(listener?, tls, service, Limits::peers(), counters, stop).await;
            tokio::task::spawn_blocking(move || api.flush()).await?;
            Ok(served?)
        }
    });
}

async fn watch(absence: Arc<Absence>, ground: Ground, stop: CancellationToken) -> Result<(), Fall> {
    let mut tick = tokio::time::interval(WATCH_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        absence.check();
        tell_budget(&ground);
        let traffic = Arc::clone(&ground.traffic);
        tokio::task::spawn_blocking(move || traffic.keep_up()).await?;
    }
    Ok(())
}

/// Raises the condition of the month's budget, or closes it.
fn tell_budget(ground: &Ground) {
    let used = ground.traffic.used();
    let limit = used.limit.unwrap_or_default() / 1_000_000;
    let wrong = match used {
        spent if spent.is_spent() => Some(format!("all of the month's {limit} MB is used; only alarms leave")),
        nearly if nearly.is_nearly_spent() => Some(format!("80 % of the month's {limit} MB is used")),
        _ => None,
    };
    ground.board.set(Code::DataBudget, SUBJECT, wrong);
}
