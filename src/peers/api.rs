//! Who asks, whether it is their turn, and what they are answered.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use warp::{
    Filter,
    http::{HeaderMap, Method, header},
    reply::Response,
};

use super::{
    Ground,
    absence::Absence,
    answer::{Document, PointTold, Sheet},
    cursor::Cursor,
    encoding::Encoding,
    fetch::View,
    health::Digest,
    page::Teller,
    query::{Asked, Query, Range},
    refusal::Refusal,
    register::{Given, Register},
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
const TURN: Duration = Duration::from_secs(20);
/// A card that has not answered after that is not waited for; the place is kept until it does.
const CARD_MAY_TAKE: Duration = Duration::from_secs(10);
/// Gaps told at most; the last ones.
const GAPS: usize = 500;

/// One peer of the configuration.
struct Peer {
    settings: PeerSettings,
    /// What it may see.
    points: HashSet<PointId>,
    /// Its long polls, the oldest first; each is ended by its token.
    polls: Mutex<VecDeque<CancellationToken>>,
    /// Its turn at the card: one at a time, so that nobody waits behind a greedy one's queue.
    turn: Arc<Semaphore>,
}

impl Peer {
    fn new(settings: &PeerSettings, live: &Live) -> Self {
        let points = live.points().filter(|point| may_see(settings, point)).map(|point| point.id.clone());
        Self {
            points: points.collect(),
            settings: settings.clone(),
            polls: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
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

/// The four resources.
#[derive(Debug, Clone, Copy)]
enum Resource {
    Observations,
    Points,
    Gaps,
    Health,
}

pub(super) fn routes(
    api: Arc<Api>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let observations = warp::path!("v1" / "observations").map(|| Resource::Observations);
    let points = warp::path!("v1" / "points").map(|| Resource::Points);
    let gaps = warp::path!("v1" / "gaps").map(|| Resource::Gaps);
    let health = warp::path!("v1" / "health").map(|| Resource::Health);
    let resource = observations.or(points).unify().or(gaps).unify().or(health).unify();
    resource
        .and(warp::method())
        .and(warp::query::<HashMap<String, String>>())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Connection>())
        .then(move |resource, method: Method, query, headers, connection| {
            let api = Arc::clone(&api);
            async move {
                let request = Request { resource, query, headers, connection };
                let answered = if method == Method::GET { api.answer(request).await } else { Err(Refusal::method()) };
                answered.unwrap_or_else(Refusal::into_response)
            }
        })
        .recover(|rejection: warp::Rejection| async move {
            let refusal = if rejection.is_not_found() { Refusal::path() } else { Refusal::query("not understood") };
            Ok::<_, Infallible>(refusal.into_response())
        })
        .unify()
}

struct Request {
    resource: Resource,
    query: HashMap<String, String>,
    headers: HeaderMap,
    connection: Connection,
}

/// What every request is answered with.
pub(super) struct Api {
    ground: Ground,
    page_bytes: usize,
    peers: Vec<Arc<Peer>>,
    jobs: Arc<Semaphore>,
    register: Register,
    absence: Arc<Absence>,
    stop: CancellationToken,
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
        Self { ground, page_bytes, peers, jobs, register, absence, stop }
    }

    /// Writes down what is not yet on the card.
    pub(super) fn flush(&self) {
        self.register.flush();
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let peer = self.peer(&request.connection)?;
        let accepted = request.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let encoding = Encoding::choose(accepted);
        if let Resource::Observations = request.resource {
            let query = Query::read(&request.query)?;
            return self.observations(peer, query, encoding, request.connection.address.ip()).await;
        }
        if !request.query.is_empty() {
            return Err(Refusal::query("this path takes no query"));
        }
        let resource = request.resource;
        let asking = Arc::clone(&peer);
        let told = self.in_turn(&peer, move |api| Ok(api.tell(resource, &asking))).await?;
        let told = told.map_err(|error| {
            warn!(%error, "Answer not written");
            Refusal::unavailable()
        })?;
        Ok(told.into_response(&request.headers, encoding))
    }

    /// Whom the certificate names.
    fn peer(&self, connection: &Connection) -> Result<Arc<Peer>, Refusal> {
        let names = connection.certificate.as_deref().map(tls::names).unwrap_or_default();
        let known = names.iter().find_map(|name| self.peers.iter().find(|peer| peer.settings.name == *name));
        known.cloned().ok_or_else(|| Refusal::unknown_peer(names.get(..4).unwrap_or(&names)))
    }

    /// Does work that reads the card, when it is this peer's turn. The places are held until the work is done, even when
    /// the peer has gone away meanwhile.
    async fn in_turn<T: Send + 'static>(
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

    async fn observations(
        self: Arc<Self>,
        peer: Arc<Peer>,
        query: Query,
        encoding: Encoding,
        address: IpAddr,
    ) -> Result<Response, Refusal> {
        self.absence.heard(&peer.settings.name);
        if !self.ground.archive.is_known() {
            // Its cursor is good; it is the card that cannot tell yet.
            return Err(Refusal::unavailable());
        }
        let pull = Pull { peer: Arc::clone(&peer), query, encoding, address };
        match query.what {
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
        let page = self.view(pull).after(after, pull.query.limit)?;
        if page.entries.is_empty() && page.complete && !last_try {
            return Ok(Next::Nothing(page.next));
        }
        let sheet = self.sheet(pull, page, |next, complete| {
            let cursor = Cursor::new(&self.ground.archive.identity(), next).encode();
            let remaining = self.ground.archive.figures().last_seq.saturating_sub(next);
            json!({"next": cursor, "complete": complete, "remaining": remaining})
        })?;
        Ok(Next::Sheet(sheet))
    }

    fn again(&self, pull: &Pull, range: Range) -> Result<Sheet, StoreError> {
        let page = self.view(pull).again(range, pull.query.limit)?;
        self.sheet(pull, page, |next, complete| json!({"continue": next.saturating_add(1), "complete": complete}))
    }

    fn view<'a>(&'a self, pull: &'a Pull) -> View<'a> {
        View { archive: self.ground.archive.as_ref(), clock: &self.ground.clock, points: &pull.peer.points }
    }

    /// Writes a page down, enters it into the register, packs it.
    fn sheet(&self, pull: &Pull, page: Page, last_line: impl FnOnce(u64, bool) -> Value) -> Result<Sheet, StoreError> {
        let teller = Teller { clock: &self.ground.clock, live: &self.ground.live };
        let rendered = teller
            .render(&page.entries, pull.query.format, self.page_bytes)
            .map_err(|error| StoreError::new("write a page down", error))?;
        let told = page.entries.get(..rendered.entries).unwrap_or(&page.entries);
        let whole = told.len() == page.entries.len();
        let next = if whole { page.next } else { told.last().map_or(page.next, Entry::last_seq) };
        self.register.record(&pull.given(told));
        let mut lines = rendered.lines;
        lines.extend_from_slice(format!("{}\n", last_line(next, page.complete && whole)).as_bytes());
        let (encoding, body) = pull.encoding.apply(lines).map_err(|error| StoreError::new("pack a page", error))?;
        Ok(Sheet { body, encoding })
    }

    fn tell(&self, resource: Resource, peer: &Peer) -> serde_json::Result<Document> {
        match resource {
            Resource::Points => {
                let points = self.ground.live.points().filter(|point| peer.points.contains(&point.id));
                Document::new(&json!({"points": points.map(PointTold::new).collect::<Vec<_>>()}))
            }
            Resource::Gaps => {
                let gaps = self.ground.archive.gaps();
                let teller = Teller { clock: &self.ground.clock, live: &self.ground.live };
                let last = gaps.len().saturating_sub(GAPS);
                let told = gaps.iter().skip(last).map(|gap| teller.gap(gap).gap).collect::<Vec<_>>();
                Document::new(&json!({"gaps": told, "earlier": last}))
            }
            Resource::Health | Resource::Observations => {
                let digest = Digest::of(&self.ground);
                Ok(Document::tagged_by(serde_json::to_vec(&digest)?, &digest.lasting()?))
            }
        }
    }
}

/// One pull, as understood.
#[derive(Clone)]
struct Pull {
    peer: Arc<Peer>,
    query: Query,
    encoding: Encoding,
    address: IpAddr,
}

impl Pull {
    fn given(&self, told: &[Entry]) -> Given<'_> {
        let mut numbers = told.iter().filter_map(|entry| match entry {
            Entry::Reading(stored) => Some(stored.seq),
            Entry::Gap(_) => None,
        });
        let readings = numbers.next().map(|first| numbers.fold((first, first, 1), |(f, _, n), seq| (f, seq, n + 1)));
        let again = matches!(self.query.what, Asked::Again(_));
        Given { peer: &self.peer.settings.name, address: self.address, readings, again }
    }
}

enum Next {
    Sheet(Sheet),
    Nothing(u64),
}
