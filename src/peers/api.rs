//! Who asks, whether it is their turn, and what they are answered.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
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
    answer::{Document, GapsTold, PointTold, PointsTold, Sheet},
    csv,
    cursor::Cursor,
    days::{Calendar, Package, name_of, read_day},
    encoding::Encoding,
    fetch::View,
    health::Digest,
    link, openapi,
    page::{Format, Onward, OnwardInRange, Teller},
    query::{Asked, Query, Range},
    refusal::Refusal,
    register::{Given, Manner, Register},
    resource::{DAY, NDJSON, Resource, Route, SENML},
    senml,
    timeline::Timeline,
};
use crate::{
    config::peers::{PeerSettings, PeersSettings},
    live::Live,
    reading::{Point, PointId, Sharing},
    serve::Connection,
    store::{Entry, Page, StoreError},
    supervisor::chain,
    tls,
};

/// Long polls of one peer at once; one more ends the oldest, which is likely of a link that was lost unnoticed.
const POLLS_OF_ONE: usize = 4;
/// Answers being read from the card at once, of all peers, so that measuring keeps its share of the machine.
const JOBS: usize = 2;
/// Longest a request waits for its turn.
pub(super) const TURN: Duration = Duration::from_secs(20);
/// Gaps told at most; the last ones.
const GAPS: usize = 500;

/// One peer of the configuration.
pub(super) struct Peer {
    pub(super) settings: PeerSettings,
    /// What it may see.
    pub(super) points: HashSet<PointId>,
    /// Its long polls, the oldest first; each is ended by its token.
    polls: Mutex<VecDeque<CancellationToken>>,
    /// Its turn at the card: one at a time, so that nobody waits behind a greedy one's queue.
    turn: Arc<Semaphore>,
    /// Its turn at a day's file: one at a time, since each takes memory until its reader has it.
    pub(super) file: Arc<Semaphore>,
}

impl Peer {
    fn new(settings: &PeerSettings, live: &Live) -> Self {
        let points = live.points().filter(|point| may_see(settings, point)).map(|point| point.id.clone());
        Self {
            points: points.collect(),
            settings: settings.clone(),
            polls: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            file: Arc::new(Semaphore::new(1)),
        }
    }

    /// A token that ends a new poll: at the stop, or when there are newer ones enough.
    fn begin_poll(&self, stop: &CancellationToken) -> tokio_util::sync::DropGuard {
        let token = stop.child_token();
        let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        polls.retain(|poll| !poll.is_cancelled());
        if polls.len() >= POLLS_OF_ONE
            && let Some(oldest) = polls.pop_front()
        {
            oldest.cancel();
        }
        polls.push_back(token.clone());
        // Dropped with the poll, whatever ends it, so that it no longer counts.
        token.drop_guard()
    }
}

/// By the ethical charter: a personal point leaves only with a recorded consent.
fn may_see(peer: &PeerSettings, point: &Point) -> bool {
    let consented = point.sharing != Sharing::Personal || peer.consent.is_some();
    peer.sharing.contains(&point.sharing) && consented
}

pub(super) fn routes(
    api: Arc<Api>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
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
                answered.unwrap_or_else(Refusal::into_response)
            }
        })
        .recover(|rejection: warp::Rejection| async move {
            let refusal = if rejection.is_not_found() { Refusal::path() } else { Refusal::query("not understood") };
            Ok::<_, Infallible>(refusal.into_response())
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
    page_bytes: usize,
    peers: Vec<Arc<Peer>>,
    jobs: Arc<Semaphore>,
    pub(super) register: Register,
    absence: Arc<Absence>,
    pub(super) stop: CancellationToken,
    timeline: Timeline,
    /// What SenML names begin with.
    base: String,
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
        let base = format!("{}/", name_of(&ground));
        Self { ground, page_bytes, peers, jobs, register, absence, stop, timeline: Timeline::default(), base }
    }

    /// Writes down what is not yet on the card.
    pub(super) fn flush(&self) {
        self.register.flush();
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let peer = self.peer(&request.connection)?;
        let pairs = request.pairs()?;
        match request.route.resource {
            Resource::Observations => {
                let query = Query::read(&pairs, request.accepted())?;
                let (encoding, address) = (request.encoding(), request.connection.address.ip());
                self.observations(Pull { peer, query, encoding, address, pairs: Arc::new(pairs) }).await
            }
            Resource::Metrics => self.metrics(peer, &request).await,
            Resource::Day => {
                let said = request.said.as_deref().unwrap_or_default();
                let day = read_day(said).ok_or_else(|| Refusal::value(DAY.name, said, "a day such as 2026-11-21"))?;
                self.day(peer, day, &request).await
            }
            resource => {
                let asking = Arc::clone(&peer);
                let told = self.in_turn(&peer, move |api| api.tell(resource, &asking)).await?;
                Ok(told.into_response(&request.headers, request.encoding()))
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
        match done.await {
            Ok(done) => done.map_err(|error| Refusal::store(&error)),
            Err(fall) => {
                warn!(%fall, "Pull fell");
                Err(Refusal::unavailable())
            }
        }
    }

    async fn places(&self, peer: &Peer) -> Option<[OwnedSemaphorePermit; 2]> {
        let turn = Arc::clone(&peer.turn).acquire_owned().await.ok()?;
        Some([turn, Arc::clone(&self.jobs).acquire_owned().await.ok()?])
    }

    async fn observations(self: Arc<Self>, pull: Pull) -> Result<Response, Refusal> {
        let peer = Arc::clone(&pull.peer);
        self.absence.heard(&peer.settings.name);
        match pull.query.what {
            Asked::Again(range) => {
                let sheet = self.in_turn(&peer, move |api| api.again(&pull, range)).await?;
                Ok(sheet.into_response())
            }
            Asked::After { cursor, wait } => self.after(pull, cursor, wait).await,
        }
    }

    /// Waits for news, then tells it. An empty page is told when there was none in time, at stop, or when the peer has
    /// begun newer polls.
    async fn after(self: Arc<Self>, pull: Pull, cursor: Option<Cursor>, wait: Duration) -> Result<Response, Refusal> {
        let (deadline, peer) = (Instant::now() + wait, Arc::clone(&pull.peer));
        let mut head = self.ground.archive.head();
        let asking = Arc::clone(&peer);
        let mut after = self.in_turn(&peer, move |api| Ok(api.place(&asking, cursor))).await??;
        let poll = (!wait.is_zero()).then(|| peer.begin_poll(&self.stop));
        loop {
            head.mark_unchanged();
            let ended = poll.as_ref().is_none_or(|poll| poll.token().is_cancelled());
            let (asking, last_try) = (pull.clone(), ended || Instant::now() >= deadline);
            match self.in_turn(&peer, move |api| api.next(&asking, after, last_try)).await? {
                Next::Sheet(sheet) => return Ok(sheet.into_response()),
                Next::Nothing(reached) => after = reached,
            }
            let Some(end) = poll.as_ref().map(|poll| poll.token()) else { continue };
            let news = timeout_at(deadline, head.changed());
            if let Some(Ok(Err(_))) = end.run_until_cancelled(news).await {
                // The store's writer has ended: nothing will come, and nothing must spin.
                drop(timeout_at(deadline, end.cancelled()).await);
            }
        }
    }

    /// The number a cursor stands for, acknowledged. Without one, the beginning.
    fn place(&self, peer: &Peer, cursor: Option<Cursor>) -> Result<u64, Refusal> {
        let archive = &self.ground.archive;
        let Some(cursor) = cursor else { return Ok(0) };
        let (identity, figures) = (archive.identity(), archive.figures());
        if !cursor.is_of(&identity) || cursor.seq > figures.last_seq.max(*archive.head().borrow()) {
            let start = Cursor::new(&identity, figures.first_seq.saturating_sub(1));
            return Err(Refusal::other_store(start, figures.first_seq));
        }
        let name = &peer.settings.name;
        if archive.acknowledged().get(name).is_none_or(|known| *known < cursor.seq) {
            // A card that refuses writes must not stop the pull: the peer will say it again.
            if let Err(error) = archive.acknowledge(name, cursor.seq) {
                warn!(peer = name, why = chain(&error), "Acknowledgement not kept");
            }
        }
        Ok(cursor.seq)
    }

    fn next(&self, pull: &Pull, after: u64, last_try: bool) -> Result<Next, StoreError> {
        let page = self.view(&pull.peer).after(after, pull.query.limit)?;
        if page.entries.is_empty() && page.complete && !last_try {
            return Ok(Next::Nothing(page.next));
        }
        let sheet = self.sheet(pull, page, |next, complete| {
            let cursor = Cursor::new(&self.ground.archive.identity(), next).encode();
            let remaining = self.ground.archive.figures().last_seq.saturating_sub(next);
            End::Onward(Onward { next: cursor, complete, remaining })
        })?;
        Ok(Next::Sheet(sheet))
    }

    fn again(&self, pull: &Pull, range: Range) -> Result<Sheet, StoreError> {
        let page = self.view(&pull.peer).again(range, pull.query.limit)?;
        self.sheet(pull, page, |next, complete| {
            End::InRange(OnwardInRange { resume: next.saturating_add(1), complete })
        })
    }

    /// The archive as a peer sees it.
    pub(super) fn view<'a>(&'a self, peer: &'a Peer) -> View<'a> {
        let (archive, clock) = (self.ground.archive.as_ref(), &self.ground.clock);
        View { archive, clock, timeline: &self.timeline, points: &peer.points }
    }

    /// The commune's days as a peer sees them.
    pub(super) fn calendar<'a>(&'a self, peer: &'a Peer) -> Calendar<'a> {
        Calendar { view: self.view(peer), live: &self.ground.live, zone: &self.ground.time_zone }
    }

    pub(super) fn teller(&self) -> Teller<'_> {
        Teller { clock: &self.ground.clock, live: &self.ground.live, base: &self.base }
    }

    /// Writes a page down, enters it into the register, packs it.
    fn sheet(&self, pull: &Pull, page: Page, end: impl FnOnce(u64, bool) -> End) -> Result<Sheet, StoreError> {
        let wrong = |error| StoreError::new("write a page down", error);
        let format = pull.query.format;
        let rendered = self.teller().render(&page.entries, format, self.page_bytes).map_err(wrong)?;
        let told = page.entries.get(..rendered.entries).unwrap_or(&page.entries);
        let whole = told.len() == page.entries.len();
        let next = if whole { page.next } else { told.last().map_or(page.next, Entry::last_seq) };
        self.register.record(&pull.given(told));
        let end = end(next, page.complete && whole);
        let mut lines = rendered.lines;
        let last = match format {
            Format::Senml => senml::close(&self.base, !lines.is_empty(), end.complete()),
            Format::Rows | Format::Columns => end.line(),
        };
        lines.extend_from_slice(&last.map_err(wrong)?);
        let (encoding, body) = pull.encoding.apply(lines).map_err(|error| StoreError::new("pack a page", error))?;
        let media = if format == Format::Senml { SENML } else { NDJSON };
        Ok(Sheet { body, encoding, media, links: pull.links(&end, told) })
    }

    fn tell(&self, resource: Resource, peer: &Peer) -> Result<Document, StoreError> {
        let document = match resource {
            Resource::Points => {
                let points = self.ground.live.points().filter(|point| peer.points.contains(&point.id));
                Document::new(&PointsTold { points: points.map(PointTold::new).collect() })
            }
            Resource::Gaps => {
                let gaps = self.ground.archive.gaps();
                let earlier = gaps.len().saturating_sub(GAPS);
                let told = gaps.iter().skip(earlier).map(|gap| self.teller().gap(gap).gap).collect();
                Document::new(&GapsTold { gaps: told, earlier })
            }
            Resource::Days => {
                let (days, undated) = self.calendar(peer).all()?;
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

/// Where to go on after a page.
enum End {
    Onward(Onward),
    InRange(OnwardInRange),
}

impl End {
    fn complete(&self) -> bool {
        match self {
            Self::Onward(onward) => onward.complete,
            Self::InRange(onward) => onward.complete,
        }
    }

    fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = match self {
            Self::Onward(onward) => serde_json::to_vec(onward)?,
            Self::InRange(onward) => serde_json::to_vec(onward)?,
        };
        line.push(b'\n');
        Ok(line)
    }
}

/// One pull, as understood.
#[derive(Clone)]
struct Pull {
    peer: Arc<Peer>,
    query: Query,
    encoding: Encoding,
    address: IpAddr,
    /// As it was asked.
    pairs: Arc<HashMap<String, String>>,
}

impl Pull {
    /// The next request and, of a form that cannot tell all, the same readings as rows (RFC 8288).
    fn links(&self, end: &End, told: &[Entry]) -> Vec<String> {
        let mut links = Vec::new();
        match end {
            End::Onward(onward) => links.push(link::next(&self.pairs, "after", &onward.next)),
            End::InRange(onward) if !onward.complete => {
                links.push(link::next(&self.pairs, "continue", &onward.resume.to_string()));
            }
            End::InRange(_) => {}
        }
        if let (Format::Senml, Some(first), Some(last)) = (self.query.format, told.first(), told.last()) {
            let from = if let Entry::Gap(gap) = first { gap.first } else { first.last_seq() };
            links.push(link::rows(from, last.last_seq()));
        }
        links
    }

    fn given(&self, told: &[Entry]) -> Given<'_> {
        let readings = Given::readings_of(told);
        let manner = if let Asked::Again(_) = self.query.what { Manner::Again } else { Manner::Onward };
        Given { peer: &self.peer.settings.name, address: self.address, readings, manner }
    }
}

enum Next {
    Sheet(Sheet),
    Nothing(u64),
}
