//! Answers that are files to other programs: metrics, and days as CSV.

use std::{collections::HashSet, net::IpAddr, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use jiff::civil::Date;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tracing::warn;
use warp::{Reply, http::header, reply::Response};

use super::{
    answer::{known, not_modified, packed, tagged},
    api::{Api, Request, TURN},
    csv::{self, Lines},
    encoding::Packer,
    exposition::Dialect,
    metrics::{self, Sight},
    peer::Peer,
    refusal::Refusal,
    register::{Given, Manner, numbered},
    resource::CSV,
    timeline::Span,
};
use crate::{
    reading::{PointId, Sharing},
    store::StoreError,
};

/// Entries read from the card at once for a file.
const AT_ONCE: usize = 2_000;
/// Parts of a file that may wait for its reader.
const AHEAD: usize = 2;

impl Api {
    /// `/metrics`.
    pub(super) async fn metrics(self: Arc<Self>, peer: Arc<Peer>, request: &Request) -> Result<Response, Refusal> {
        let dialect = Dialect::choose(request.values(header::ACCEPT));
        let (encoding, address, asking) = (request.encoding(), request.connection.address.ip(), Arc::clone(&peer));
        let told = self.in_turn(&peer, move |api| {
            let settings = &asking.settings;
            let all_peers = settings.sharing.contains(&Sharing::Internal);
            let points = api.points_of(&asking);
            let sight = Sight { points: &points, peer: &settings.name, all_peers };
            let told = metrics::tell(&api.ground, &sight, dialect);
            let readings = numbered(told.readings.iter());
            api.register.record(&Given { peer: &settings.name, address, readings, manner: Manner::Newest });
            encoding.apply(told.text.into_bytes()).map_err(|error| StoreError::new("pack metrics", error))
        });
        let (encoding, body) = told.await?;
        Ok(packed(Response::new(body.into()), encoding, dialect.media(), "no-store"))
    }

    /// `/v1/days/{day}.csv`, written as it is read, so that a day of any size takes little memory and nobody waits
    /// behind it.
    pub(super) async fn day(
        self: Arc<Self>,
        peer: Arc<Peer>,
        day: Date,
        request: &Request,
    ) -> Result<Response, Refusal> {
        self.within_budget()?;
        let place = timeout(TURN, Arc::clone(&peer.file).acquire_owned()).await.map_err(|_| Refusal::busy())?;
        let place = place.map_err(|_| Refusal::unavailable())?;
        let points = self.points_of(&peer);
        let seen = Arc::clone(&points);
        let found = self.in_turn(&peer, move |api| api.calendar(&seen).day(day)).await?;
        let found = found.ok_or_else(|| Refusal::no_day(day))?;
        let tag = found.tag.map(|tag| format!("W/\"{tag}\""));
        if let Some(tag) = tag.as_ref().filter(|tag| known(&request.headers, tag)) {
            return Ok(tagged(not_modified(), tag));
        }
        let encoding = request.encoding();
        let packer = Packer::new(encoding).map_err(|_| Refusal::unavailable())?;
        let address = request.connection.address.ip();
        let left = Left { peer, address, points, range: found.range, spans: found.spans, resume: 0 };
        let mut file = File { api: Arc::clone(&self), left, packer: Some(packer), _place: place };
        // A card that cannot be read is told as such while that is still possible.
        let first = file.next().await?;
        let cache = if tag.is_some() { "private, no-cache" } else { "no-store" };
        let response = packed(file.spool(first), encoding, CSV, cache);
        Ok(match tag {
            Some(tag) => tagged(response, &tag),
            None => response,
        })
    }
}

/// What is left of a day, for whom.
#[derive(Clone)]
struct Left {
    peer: Arc<Peer>,
    address: IpAddr,
    /// What the peer might see when it asked; all of the file is of these.
    points: Arc<HashSet<PointId>>,
    range: RangeInclusive<i64>,
    spans: Arc<[Span]>,
    /// The number to go on with; 0 before the first.
    resume: u64,
}

/// A day on its way out.
struct File {
    api: Arc<Api>,
    left: Left,
    /// `None` once all is packed.
    packer: Option<Packer>,
    _place: OwnedSemaphorePermit,
}

/// A part of a file, and what follows it.
struct Part {
    ready: Vec<u8>,
    /// The number to go on with.
    rest: Option<(u64, Packer)>,
}

impl Api {
    /// Reads on, writes lines, enters them into the register, packs them. A consent that is withdrawn ends the file: what
    /// is left of it would not be what its beginning promised.
    fn part(&self, left: &Left, mut packer: Packer) -> Result<Result<Part, Refusal>, StoreError> {
        if self.points_of(&left.peer) != left.points {
            return Ok(Err(Refusal::unavailable()));
        }
        let page = self.view(&left.points).within(&left.spans, &left.range, Some(left.resume), AT_ONCE)?;
        let mut text = if left.resume > 0 { String::new() } else { csv::header() };
        let lines = Lines { teller: self.teller(), zone: &self.ground.time_zone };
        for entry in &page.entries {
            lines.add(&mut text, entry);
        }
        let (address, readings) = (left.address, Given::readings_of(&page.entries));
        self.register.record(&Given { peer: &left.peer.settings.name, address, readings, manner: Manner::Again });
        let wrong = |error| StoreError::new("pack a day", error);
        let mut ready = packer.pack(text.as_bytes()).map_err(wrong)?;
        if page.complete {
            ready.extend(packer.finish().map_err(wrong)?);
            return Ok(Ok(Part { ready, rest: None }));
        }
        Ok(Ok(Part { ready, rest: Some((page.next.saturating_add(1), packer)) }))
    }
}

impl File {
    /// The next part; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while let Some(packer) = self.packer.take() {
            let left = self.left.clone();
            let part = self.api.in_turn(&self.left.peer, move |api| api.part(&left, packer)).await??;
            if let Some((resume, packer)) = part.rest {
                (self.left.resume, self.packer) = (resume, Some(packer));
            }
            if !part.ready.is_empty() {
                return Ok(Some(part.ready.into()));
            }
        }
        Ok(None)
    }

    /// Sends part after part, as fast as they are taken. What cannot be sent whole ends with an error, never as if it
    /// were whole.
    fn spool(mut self, first: Option<Bytes>) -> Response {
        let (send, mut receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let stop = self.api.stop.clone();
            let sent = stop.run_until_cancelled(async {
                let mut part = Ok(first);
                while let Ok(Some(bytes)) = part {
                    if send.send(Ok(bytes)).await.is_err() {
                        return;
                    }
                    part = self.next().await;
                }
                if part.is_err() {
                    warn!(peer = self.left.peer.settings.name, "A day's file was cut short");
                    let _ = send.send(Err(CutShort)).await;
                }
            });
            if sent.await.is_none() {
                let _ = send.send(Err(CutShort)).await;
            }
        });
        warp::reply::stream(stream::poll_fn(move |cx| receive.poll_recv(cx))).into_response()
    }
}

/// A file does not end; what was sent of it is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the file was cut short")]
struct CutShort;
