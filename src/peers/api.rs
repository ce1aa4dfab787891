//! Who asks, whether it is their turn, and what they are answered.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
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
    comeback::Comeback,
    cursor::Cursor,
    encoding::Encoding,
    fetch::View,
    health::Digest,
    page::Teller,
    query::{Asked, Query, Range},
    refusal::Refusal,
    register::{Given, Register},
    tell_budget,
};
use crate::{
    condition::Severity,
    config::peers::{PeerSettings, PeersSettings},
    consent::Consents,
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
/// Pages of one peer on their way at once; one more ends the connection of the oldest, which is likely of a link that
/// was lost unnoticed. Pages are what a peer that never reads would fill the memory with.
const ANSWERS_OF_ONE: usize = 2;
/// Longest a request waits for its turn.
const TURN: Duration = Duration::from_secs(20);
/// A card that has not answered after that is not waited for; the place is kept until it does.
const CARD_MAY_TAKE: Duration = Duration::from_secs(10);
/// Gaps told at most; the last ones.
const GAPS: usize = 500;

/// One peer of the configuration.
struct Peer {
    settings: PeerSettings,
    /// What it may always see.
    open: Arc<HashSet<PointId>>,
    /// What it may see while somebody consents to it.
    personal: Vec<PointId>,
    /// Its long polls, the oldest first; each is ended by its token.
    polls: Mutex<VecDeque<CancellationToken>>,
    /// Its pages on their way, the oldest first: what fires once each is sent, and what ends its connection.
    answers: Mutex<VecDeque<(CancellationToken, CancellationToken)>>,
    /// Its turn at the card: one at a time, so that nobody waits behind a greedy one's queue.
    turn: Arc<Semaphore>,
}

impl Peer {
    fn new(settings: &PeerSettings, live: &Live) -> Self {
        let shared = live.points().filter(|point| settings.sharing.contains(&point.sharing));
        let (personal, open): (Vec<&Point>, Vec<&Point>) = shared.partition(|point| point.sharing == Sharing::Personal);
        Self {
            open: Arc::new(open.into_iter().map(|point| point.id.clone()).collect()),
            personal: personal.into_iter().map(|point| point.id.clone()).collect(),
            settings: settings.clone(),
            polls: Mutex::default(),
            answers: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// What it may see now: a consent given or withdrawn counts from the next page.
    fn points(&self, consents: &Consents) -> Arc<HashSet<PointId>> {
        let mut consented = self.personal.iter().filter(|point| may_see(&self.settings, point, consents)).peekable();
        if consented.peek().is_none() {
            return Arc::clone(&self.open);
        }
        Arc::new(self.open.iter().chain(consented).cloned().collect())
    }

    /// A token that ends a new poll: at the stop, or when there are newer ones enough.
    fn begin_poll(&self, stop: &CancellationToken) -> DropGuard {
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

    /// A guard to be dropped once a new page is sent, whose connection `end` ends.
    fn begin_answer(&self, end: &CancellationToken) -> DropGuard {
        let sent = CancellationToken::new();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(sent, _)| !sent.is_cancelled());
        if answers.len() >= ANSWERS_OF_ONE
            && let Some((_, end)) = answers.pop_front()
        {
            end.cancel();
        }
        answers.push_back((sent.clone(), end.clone()));
        sent.drop_guard()
    }
}

/// By the ethical charter: a personal point leaves only with a recorded consent, in the configuration or on the panel,
/// that nobody has withdrawn since.
fn may_see(peer: &PeerSettings, personal: &PointId, consents: &Consents) -> bool {
    consents.allow(personal, &peer.name, peer.consent.is_some())
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
    let comeback = Comeback::of(&api.ground.archive.identity());
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
                answered.unwrap_or_else(|refusal| refusal.into_response(comeback))
            }
        })
        .recover(move |rejection: warp::Rejection| async move {
            let refusal = if rejection.is_not_found() { Refusal::path() } else { Refusal::query("not understood") };
            Ok::<_, Infallible>(refusal.into_response(comeback))
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
    comeback: Comeback,
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
        let comeback = Comeback::of(&ground.archive.identity());
        Self { ground, page_bytes, peers, jobs, register, absence, comeback, stop }
    }

    /// Writes down what is not yet on the card.
    pub(super) fn flush(&self) {
        self.register.flush();
        self.ground.traffic.flush();
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let peer = self.peer(&request.connection)?;
        let accepted = request.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let encoding = Encoding::choose(accepted);
        if let Resource::Observations = request.resource {
            let query = Query::read(&request.query)?;
            return self.observations(peer, query, encoding, request.connection).await;
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
        told.into_response(&request.headers, encoding)
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
        connection: Connection,
    ) -> Result<Response, Refusal> {
        self.absence.heard(&peer.settings.name);
        if !self.ground.archive.is_known() {
            // Its cursor is good; it is the card that cannot tell yet.
            return Err(Refusal::unavailable());
        }
        let only = self.within_budget(&peer, query.what)?;
        let pull = Pull { peer: Arc::clone(&peer), query, encoding, connection };
        let asked = pull.clone();
        let sheet = match query.what {
            Asked::Again(range) => self.in_turn(&peer, move |api| api.again(&asked, range)).await?,
            Asked::Newest { before } => self.in_turn(&peer, move |api| api.newest(&asked, only, before)).await?,
            Asked::After { cursor, wait } => return self.after(pull, cursor, wait).await,
        };
        Ok(pull.send(sheet))
    }

    /// Once the month's budget is spent only alarms leave: the points whose readings are, when these are asked for;
    /// `None` while there is no such limit.
    fn within_budget(&self, peer: &Peer, asked: Asked) -> Result<Option<HashSet<PointId>>, Refusal> {
        let used = self.ground.traffic.used();
        if !used.is_spent() {
            return Ok(None);
        }
        tell_budget(&self.ground);
        match asked {
            Asked::Newest { .. } => Ok(Some(self.alarms(peer))),
            _ => Err(Refusal::budget(used, self.ground.traffic.until_next_month())),
        }
    }

    /// Contacts that are an alarm by configuration, and what open conditions of severity alarm name: a point, or a device
    /// by the beginning of its points' names.
    fn alarms(&self, peer: &Peer) -> HashSet<PointId> {
        let open = self.ground.board.open();
        let alarms: Vec<_> = open.iter().filter(|condition| condition.severity == Severity::Alarm).collect();
        let named = |point: &PointId| {
            alarms.iter().any(|alarm| {
                let rest = point.as_str().strip_prefix(alarm.subject.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let is_alarm = |point: &&PointId| self.ground.alarms.contains(*point) || named(point);
        peer.points(&self.ground.consents).iter().filter(is_alarm).cloned().collect()
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
                Next::Sheet(sheet) => {
                    let hint = (sheet.complete && wait.is_zero()).then(|| self.comeback.end());
                    let mut response = pull.send(sheet);
                    if let Some(seconds) = hint {
                        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                    }
                    return Ok(response);
                }
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
        let points = pull.peer.points(&self.ground.consents);
        let page = self.view(&points).after(after, pull.query.limit)?;
        if page.entries.is_empty() && page.complete && !last_try {
            return Ok(Next::Nothing(page.next));
        }
        let shorter = |view: View<'_>| view.after(after, pull.query.limit);
        let sheet = self.sheet(pull, &points, page, shorter, |next, complete| {
            let cursor = Cursor::new(&self.ground.archive.identity(), next).encode();
            let remaining = self.ground.archive.figures().last_seq.saturating_sub(next);
            json!({"next": cursor, "complete": complete, "remaining": remaining})
        })?;
        Ok(Next::Sheet(sheet))
    }

    fn again(&self, pull: &Pull, range: Range) -> Result<Sheet, StoreError> {
        let points = pull.peer.points(&self.ground.consents);
        let fetch = |view: View<'_>| view.again(range, pull.query.limit);
        let page = fetch(self.view(&points))?;
        self.sheet(
            pull,
            &points,
            page,
            fetch,
            |next, complete| json!({"continue": next.saturating_add(1), "complete": complete}),
        )
    }

    fn newest(&self, pull: &Pull, only: Option<HashSet<PointId>>, before: u64) -> Result<Sheet, StoreError> {
        let points = only.map_or_else(|| pull.peer.points(&self.ground.consents), Arc::new);
        let fetch = |view: View<'_>| Ok(view.newest(before, pull.query.limit));
        let page = fetch(self.view(&points))?;
        self.sheet(pull, &points, page, fetch, |next, complete| json!({"before": next, "complete": complete}))
    }

    fn view<'a>(&'a self, points: &'a HashSet<PointId>) -> View<'a> {
        View { archive: self.ground.archive.as_ref(), clock: &self.ground.clock, points, upto: u64::MAX }
    }

    /// Writes a page down, enters it into the register, packs it. `shorter` gets the page anew up to a number, when what
    /// fits ends within a gap between readings: then the gap is told up to there.
    fn sheet(
        &self,
        pull: &Pull,
        points: &HashSet<PointId>,
        mut page: Page,
        shorter: impl Fn(View<'_>) -> Result<Page, StoreError>,
        last_line: impl FnOnce(u64, bool) -> Value,
    ) -> Result<Sheet, StoreError> {
        let teller = Teller { clock: &self.ground.clock, live: &self.ground.live };
        let mut shortened = false;
        loop {
            let rendered = teller
                .render(&page.entries, pull.query.format, self.page_bytes)
                .map_err(|error| StoreError::new("write a page down", error))?;
            let (told, rest) = page.entries.split_at_checked(rendered.entries).unwrap_or((&page.entries, &[]));
            let whole = rest.is_empty();
            let next = if whole { page.next } else { told.last().map_or(page.next, Entry::last_seq) };
            let within = |entry: &Entry| matches!(entry, Entry::Gap(gap) if gap.is_scattered() && gap.first <= next);
            if rest.iter().any(within) {
                page = shorter(View { upto: next, ..self.view(points) })?;
                shortened = true;
                continue;
            }
            self.register.record(&pull.given(told));
            let mut lines = rendered.lines;
            let complete = page.complete && whole && !shortened;
            lines.extend_from_slice(format!("{}\n", last_line(next, complete)).as_bytes());
            let (encoding, body) = pull.encoding.apply(lines).map_err(|error| StoreError::new("pack a page", error))?;
            return Ok(Sheet { body, encoding, complete });
        }
    }

    fn tell(&self, resource: Resource, peer: &Peer) -> serde_json::Result<Document> {
        match resource {
            Resource::Points => {
                let seen = peer.points(&self.ground.consents);
                let points = self.ground.live.points().filter(|point| seen.contains(&point.id));
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
    connection: Connection,
}

impl Pull {
    fn given(&self, told: &[Entry]) -> Given<'_> {
        let mut numbers = told.iter().filter_map(|entry| match entry {
            Entry::Reading(stored) => Some(stored.seq),
            Entry::Gap(_) => None,
        });
        let first = numbers.next();
        let readings = first.map(|first| {
            numbers.fold((first, first, 1), |(low, high, count), seq| (low.min(seq), high.max(seq), count + 1))
        });
        let again = !matches!(self.query.what, Asked::After { .. });
        Given { peer: &self.peer.settings.name, address: self.connection.address.ip(), readings, again }
    }

    fn send(&self, sheet: Sheet) -> Response {
        sheet.into_response(self.peer.begin_answer(&self.connection.end))
    }
}

enum Next {
    Sheet(Sheet),
    Nothing(u64),
}
