//! Who asks, whether it is their turn, and what they are answered.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use warp::{
    Filter,
    filters::path::FullPath,
    http::{HeaderMap, Method, header},
    reply::Response,
};

use super::{
    Ground,
    absence::Absence,
    accept,
    answer::{Document, GapsTold, PointTold, PointsTold},
    comeback::Comeback,
    csv,
    days::{Calendar, Package, name_of, read_day},
    encoding::Encoding,
    fetch::View,
    health::Digest,
    observations::Pull,
    openapi,
    page::{Format, Teller},
    peer::Peer,
    query::Query,
    refusal::Refusal,
    register::Register,
    resource::{DAY, NDJSON, Resource, Route, SENML},
    tell_budget,
    timeline::Timeline,
};
use crate::{config::peers::PeersSettings, reading::PointId, serve::Connection, store::StoreError, tls};

/// Answers being read from the card at once, of all peers, so that measuring keeps its share of the machine.
const JOBS: usize = 2;
/// Longest a request waits for its turn.
pub(super) const TURN: Duration = Duration::from_secs(20);
/// A card that has not answered after that is not waited for; the place is kept until it does.
const CARD_MAY_TAKE: Duration = Duration::from_secs(10);
/// Gaps told at most; the last ones.
const GAPS: usize = 500;

pub(super) fn routes(
    api: Arc<Api>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let comeback = api.comeback;
    warp::path::full()
        .and(warp::method())
        .and(warp::query::<Vec<(String, String)>>())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Connection>())
        .then(move |path: FullPath, method: Method, query, headers, connection| {
            let api = Arc::clone(&api);
            async move {
                let answered = match (Route::find(path.as_str()), method) {
                    (None, _) => Err(Refusal::path()),
                    (Some((route, said)), Method::GET) => {
                        let said = said.map(ToOwned::to_owned);
                        api.answer(Request { route, said, query, headers, connection }).await
                    }
                    _ => Err(Refusal::method()),
                };
                answered.unwrap_or_else(|refusal| refusal.into_response(comeback))
            }
        })
        .recover(move |rejection: warp::Rejection| async move {
            let refusal = if rejection.is_not_found() { Refusal::path() } else { Refusal::query("not understood") };
            Ok::<_, Infallible>(refusal.into_response(comeback))
        })
        .unify()
}

pub(super) struct Request {
    route: &'static Route,
    /// The parameter in its path.
    said: Option<String>,
    query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) connection: Connection,
}

impl Request {
    /// The pairs of its query, once each, and of its resource's parameters only.
    fn pairs(&self) -> Result<HashMap<String, String>, Refusal> {
        let mut pairs = HashMap::new();
        for (key, value) in &self.query {
            let shown = || key.chars().take(40).collect::<String>().escape_debug().to_string();
            if !self.route.keys().any(|known| known == key) {
                let known: Vec<_> = self.route.keys().collect();
                let known = if known.is_empty() { "this path takes no query".to_owned() } else { known.join(", ") };
                return Err(Refusal::query(format!("`{}` is not one of: {known}", shown())));
            }
            if pairs.insert(key.clone(), value.clone()).is_some() {
                return Err(Refusal::query(format!("`{}` is there twice", shown())));
            }
        }
        Ok(pairs)
    }

    /// The values of a header that are text.
    pub(super) fn values(&self, name: header::HeaderName) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(super) fn encoding(&self) -> Encoding {
        Encoding::choose(self.values(header::ACCEPT_ENCODING))
    }

    /// The form that Accept asks for; rows for all who do not prefer SenML.
    fn accepted(&self) -> Format {
        let (mut senml, mut ours) = (0, 0);
        for (media, weight) in accept::items(self.values(header::ACCEPT)) {
            match media {
                SENML => senml = senml.max(weight),
                NDJSON => ours = ours.max(weight),
                _ => {}
            }
        }
        if senml > ours { Format::Senml } else { Format::Rows }
    }
}

/// What every request is answered with.
pub(super) struct Api {
    pub(super) ground: Ground,
    pub(super) page_bytes: usize,
    peers: Vec<Arc<Peer>>,
    jobs: Arc<Semaphore>,
    pub(super) register: Register,
    pub(super) absence: Arc<Absence>,
    pub(super) comeback: Comeback,
    pub(super) stop: CancellationToken,
    timeline: Timeline,
    /// What SenML names begin with.
    pub(super) base: String,
}

impl Api {
    pub(super) fn new(
        ground: Ground,
        settings: &PeersSettings,
        register: Register,
        absence: Arc<Absence>,
        stop: CancellationToken,
    ) -> Self {
        let peers = settings.peers.iter().map(|peer| Arc::new(Peer::new(peer, &ground.live))).collect();
        let (page_bytes, jobs) = (settings.page_bytes, Arc::new(Semaphore::new(JOBS)));
        let (comeback, base) = (Comeback::of(&ground.archive.identity()), format!("{}/", name_of(&ground)));
        let timeline = Timeline::default();
        Self { ground, page_bytes, peers, jobs, register, absence, comeback, stop, timeline, base }
    }

    /// Writes down what is not yet on the card.
    pub(super) fn flush(&self) {
        self.register.flush();
        self.ground.traffic.flush();
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let peer = self.peer(&request.connection)?;
        let pairs = request.pairs()?;
        match request.route.resource {
            Resource::Observations => {
                let query = Query::read(&pairs, request.accepted())?;
                let encoding = request.encoding();
                let pull = Pull { peer, query, encoding, connection: request.connection, pairs: Arc::new(pairs) };
                self.observations(pull).await
            }
            Resource::Metrics => self.metrics(peer, &request).await,
            Resource::Day => {
                let said = request.said.as_deref().unwrap_or_default();
                let day = read_day(said).ok_or_else(|| Refusal::value(DAY.name, said, "a day such as 2026-11-21"))?;
                self.day(peer, day, &request).await
            }
            resource => {
                if let Resource::Gaps = resource {
                    self.of_the_card()?;
                }
                let asking = Arc::clone(&peer);
                let told = self.in_turn(&peer, move |api| api.tell(resource, &asking)).await?;
                told.into_response(&request.headers, request.encoding())
            }
        }
    }

    /// Whom the certificate names.
    fn peer(&self, connection: &Connection) -> Result<Arc<Peer>, Refusal> {
        let names = connection.certificate.as_deref().map(tls::names).unwrap_or_default();
        let known = names.iter().find_map(|name| self.peers.iter().find(|peer| peer.settings.name == *name));
        known.cloned().ok_or_else(|| Refusal::unknown_peer(names.get(..4).unwrap_or(&names)))
    }

    /// Does work that reads the card, when it is this peer's turn. The places are held until the work is done, even when
    /// the peer has gone away meanwhile.
    pub(super) async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        peer: &Peer,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let places = timeout(TURN, self.places(peer)).await.map_err(|_| Refusal::busy())?;
        let places = places.ok_or_else(Refusal::unavailable)?;
        let api = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _places = places;
            work(&api)
        });
        match timeout(CARD_MAY_TAKE, done).await {
            Err(_) => Err(Refusal::busy()),
            Ok(Ok(done)) => done.map_err(|error| Refusal::store(&error)),
            Ok(Err(fall)) => {
                warn!(%fall, "Pull fell");
                Err(Refusal::unavailable())
            }
        }
    }

    async fn places(&self, peer: &Peer) -> Option<[OwnedSemaphorePermit; 2]> {
        let turn = Arc::clone(&peer.turn).acquire_owned().await.ok()?;
        Some([turn, Arc::clone(&self.jobs).acquire_owned().await.ok()?])
    }

    /// While nothing of the card is known, cursors are good; it is the card that cannot tell yet.
    pub(super) fn of_the_card(&self) -> Result<(), Refusal> {
        if self.ground.archive.is_known() { Ok(()) } else { Err(Refusal::unavailable()) }
    }

    /// What carries readings waits once the month's budget is spent.
    pub(super) fn within_budget(&self) -> Result<(), Refusal> {
        let used = self.ground.traffic.used();
        if !used.is_spent() {
            return Ok(());
        }
        tell_budget(&self.ground);
        Err(Refusal::budget(used, self.ground.traffic.until_next_month()))
    }

    /// What a peer may see now.
    pub(super) fn points_of(&self, peer: &Peer) -> Arc<HashSet<PointId>> {
        peer.points(&self.ground.consents)
    }

    /// The archive as one sees it who may see these points.
    pub(super) fn view<'a>(&'a self, points: &'a HashSet<PointId>) -> View<'a> {
        let (archive, clock) = (self.ground.archive.as_ref(), &self.ground.clock);
        View { archive, clock, timeline: &self.timeline, points, upto: u64::MAX }
    }

    /// The commune's days, seen likewise.
    pub(super) fn calendar<'a>(&'a self, points: &'a HashSet<PointId>) -> Calendar<'a> {
        Calendar { view: self.view(points), live: &self.ground.live, zone: &self.ground.time_zone }
    }

    pub(super) fn teller(&self) -> Teller<'_> {
        Teller { clock: &self.ground.clock, live: &self.ground.live, base: &self.base }
    }

    fn tell(&self, resource: Resource, peer: &Peer) -> Result<Document, StoreError> {
        let document = match resource {
            Resource::Points => {
                let seen = self.points_of(peer);
                let points = self.ground.live.points().filter(|point| seen.contains(&point.id));
                Document::new(&PointsTold { points: points.map(PointTold::new).collect() })
            }
            Resource::Gaps => {
                let gaps = self.ground.archive.gaps();
                let earlier = gaps.len().saturating_sub(GAPS);
                let told = gaps.iter().skip(earlier).map(|gap| self.teller().gap(gap).gap).collect();
                Document::new(&GapsTold { gaps: told, earlier })
            }
            Resource::Days => {
                let (days, undated) = self.calendar(&self.points_of(peer)).all()?;
                Document::new(&Package::of(&self.ground, days, undated))
            }
            Resource::DaySchema => Document::new(&csv::schema()),
            Resource::OpenApi => Ok(Document::of(openapi::DOCUMENT.trim_end().as_bytes().to_vec())),
            _ => {
                let digest = Digest::of(&self.ground);
                digest.lasting().and_then(|lasting| Ok(Document::tagged_by(serde_json::to_vec(&digest)?, &lasting)))
            }
        };
        document.map_err(|error| StoreError::new("write a document down", error))
    }
}
