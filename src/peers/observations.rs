//! `/v1/observations`: pages of readings, after a cursor, of a range, or the newest.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tracing::warn;
use warp::{http::header, reply::Response};

use super::{
    answer::Sheet,
    api::Api,
    cursor::Cursor,
    encoding::Encoding,
    fetch::View,
    link,
    page::{Format, Onward, OnwardBack, OnwardInRange},
    peer::Peer,
    query::{Asked, Query, Range},
    refusal::Refusal,
    register::{Given, Manner},
    resource::{AFTER, BEFORE, CONTINUE, NDJSON, SENML},
    senml,
};
use crate::{
    condition::Severity,
    reading::PointId,
    serve::Connection,
    store::{Entry, Page, StoreError},
    supervisor::chain,
};

impl Api {
    /// `/v1/observations`.
    pub(super) async fn observations(self: Arc<Self>, pull: Pull) -> Result<Response, Refusal> {
        let peer = Arc::clone(&pull.peer);
        self.absence.heard(&peer.settings.name);
        self.of_the_card()?;
        let asked = pull.clone();
        let sheet = match pull.query.what {
            Asked::After { cursor, wait } => {
                self.within_budget()?;
                return self.after(pull, cursor, wait).await;
            }
            Asked::Again(range) => {
                self.within_budget()?;
                self.in_turn(&peer, move |api| api.again(&asked, range)).await?
            }
            Asked::Newest { before } => {
                let alarms = self.within_budget().is_err();
                self.in_turn(&peer, move |api| api.newest(&asked, alarms, before)).await?
            }
        };
        Ok(pull.send(sheet))
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
        self.points_of(peer).iter().filter(is_alarm).cloned().collect()
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
        let points = self.points_of(&pull.peer);
        let fetch = |view: View<'_>| view.after(after, pull.query.limit);
        let page = fetch(self.view(&points))?;
        if page.entries.is_empty() && page.complete && !last_try {
            return Ok(Next::Nothing(page.next));
        }
        let sheet = self.sheet(pull, &points, page, fetch, |next, complete| {
            let cursor = Cursor::new(&self.ground.archive.identity(), next).encode();
            let remaining = self.ground.archive.figures().last_seq.saturating_sub(next);
            End::Onward(Onward { next: cursor, complete, remaining })
        })?;
        Ok(Next::Sheet(sheet))
    }

    fn again(&self, pull: &Pull, range: Range) -> Result<Sheet, StoreError> {
        let points = self.points_of(&pull.peer);
        let fetch = |view: View<'_>| view.again(range, pull.query.limit);
        let page = fetch(self.view(&points))?;
        self.sheet(pull, &points, page, fetch, |next, complete| {
            End::InRange(OnwardInRange { resume: next.saturating_add(1), complete })
        })
    }

    /// `alarms`: of those points only.
    fn newest(&self, pull: &Pull, alarms: bool, before: u64) -> Result<Sheet, StoreError> {
        let points = if alarms { Arc::new(self.alarms(&pull.peer)) } else { self.points_of(&pull.peer) };
        let fetch = |view: View<'_>| Ok(view.newest(before, pull.query.limit));
        let page = fetch(self.view(&points))?;
        self.sheet(pull, &points, page, fetch, |before, complete| End::Back(OnwardBack { before, complete }))
    }

    /// Writes a page down, enters it into the register, packs it. `shorter` gets the page anew up to a number, when what
    /// fits ends within a gap between readings: then the gap is told up to there.
    fn sheet(
        &self,
        pull: &Pull,
        points: &HashSet<PointId>,
        mut page: Page,
        shorter: impl Fn(View<'_>) -> Result<Page, StoreError>,
        end: impl FnOnce(u64, bool) -> End,
    ) -> Result<Sheet, StoreError> {
        let wrong = |error| StoreError::new("write a page down", error);
        let (format, mut shortened) = (pull.query.format, false);
        loop {
            let rendered = self.teller().render(&page.entries, format, self.page_bytes).map_err(wrong)?;
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
            let end = end(next, page.complete && whole && !shortened);
            let mut lines = rendered.lines;
            let last = match format {
                Format::Senml => senml::close(&self.base, !lines.is_empty(), end.complete()),
                Format::Rows | Format::Columns => end.line(),
            };
            lines.extend_from_slice(&last.map_err(wrong)?);
            let (encoding, body) = pull.encoding.apply(lines).map_err(|error| StoreError::new("pack a page", error))?;
            let media = if format == Format::Senml { SENML } else { NDJSON };
            return Ok(Sheet { body, encoding, media, links: pull.links(&end, told), complete: end.complete() });
        }
    }
}

/// Where to go on after a page.
enum End {
    Onward(Onward),
    InRange(OnwardInRange),
    Back(OnwardBack),
}

impl End {
    fn complete(&self) -> bool {
        match self {
            Self::Onward(onward) => onward.complete,
            Self::InRange(onward) => onward.complete,
            Self::Back(onward) => onward.complete,
        }
    }

    fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = match self {
            Self::Onward(onward) => serde_json::to_vec(onward)?,
            Self::InRange(onward) => serde_json::to_vec(onward)?,
            Self::Back(onward) => serde_json::to_vec(onward)?,
        };
        line.push(b'\n');
        Ok(line)
    }
}

/// One pull, as understood.
#[derive(Clone)]
pub(super) struct Pull {
    pub(super) peer: Arc<Peer>,
    pub(super) query: Query,
    pub(super) encoding: Encoding,
    pub(super) connection: Connection,
    /// As it was asked.
    pub(super) pairs: Arc<HashMap<String, String>>,
}

impl Pull {
    /// The next request and, of a form that cannot tell all, the same readings as rows (RFC 8288).
    fn links(&self, end: &End, told: &[Entry]) -> Vec<String> {
        let mut links = Vec::new();
        match end {
            End::Onward(onward) => links.push(link::next(&self.pairs, AFTER.name, &onward.next)),
            End::InRange(onward) if !onward.complete => {
                links.push(link::next(&self.pairs, CONTINUE.name, &onward.resume.to_string()));
            }
            End::Back(onward) if !onward.complete => {
                links.push(link::next(&self.pairs, BEFORE.name, &onward.before.to_string()));
            }
            End::InRange(_) | End::Back(_) => {}
        }
        if self.query.format != Format::Senml {
            return links;
        }
        if let End::Back(_) = end {
            links.push(link::as_rows(&self.pairs));
        } else if let (Some(first), Some(last)) = (told.iter().map(Entry::first_seq).min(), told.last()) {
            links.push(link::rows(first, last.last_seq()));
        }
        links
    }

    fn given(&self, told: &[Entry]) -> Given<'_> {
        let manner = match self.query.what {
            Asked::After { .. } => Manner::Onward,
            Asked::Again(_) => Manner::Again,
            Asked::Newest { .. } => Manner::Newest,
        };
        let (address, readings) = (self.connection.address.ip(), Given::readings_of(told));
        Given { peer: &self.peer.settings.name, address, readings, manner }
    }

    fn send(&self, sheet: Sheet) -> Response {
        sheet.into_response(self.peer.begin_answer(&self.connection.end))
    }
}

enum Next {
    Sheet(Sheet),
    Nothing(u64),
}
