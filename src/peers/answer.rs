//! Answers as they leave: packed as the client accepts, tagged where they may be asked for again unchanged.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::DropGuard;
use warp::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{encoding::Encoding, page::GapTold, refusal::Refusal};
use crate::reading::{Kind, Point, PointId, Sharing};

/// A page, packed.
pub(super) struct Sheet {
    pub(super) body: Vec<u8>,
    pub(super) encoding: Encoding,
    pub(super) media: &'static str,
    /// Values of the header Link.
    pub(super) links: Vec<String>,
    /// There is no more for now.
    pub(super) complete: bool,
}

impl Sheet {
    /// `sent` fires once the page has been sent, or will not be any more.
    pub(super) fn into_response(self, sent: DropGuard) -> Response {
        let body = Bytes::from_owner(Held { body: self.body, _sent: sent });
        let mut response = packed(Response::new(body.into()), self.encoding, self.media, "no-store");
        for link in self.links {
            if let Ok(link) = HeaderValue::try_from(link) {
                response.headers_mut().append(header::LINK, link);
            }
        }
        response
    }
}

/// A body that tells when nobody holds it any more.
struct Held {
    body: Vec<u8>,
    _sent: DropGuard,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// An answer with what every one of them says of its body.
pub(super) fn packed(mut response: Response, encoding: Encoding, media: &'static str, cache: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if let Some(name) = encoding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

/// A small document with its tag.
pub(super) struct Document {
    body: Vec<u8>,
    tag: String,
}

impl Document {
    /// Tagged by all it says.
    pub(super) fn new(content: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self::of(serde_json::to_vec(content)?))
    }

    /// Written already.
    pub(super) fn of(body: Vec<u8>) -> Self {
        let tag = tag(&body);
        Self { body, tag }
    }

    /// Tagged by something else than what it says.
    pub(super) fn tagged_by(body: Vec<u8>, content: &[u8]) -> Self {
        Self { body, tag: tag(content) }
    }

    pub(super) fn into_response(mut self, asked: &HeaderMap, encoding: Encoding) -> Result<Response, Refusal> {
        let response = if known(asked, &self.tag) {
            not_modified()
        } else {
            self.body.push(b'\n');
            let (encoding, body) = encoding.apply(self.body).map_err(|_| Refusal::unavailable())?;
            packed(Response::new(body.into()), encoding, "application/json", "no-cache")
        };
        Ok(tagged(response, &self.tag))
    }
}

/// The client has it already.
pub(super) fn not_modified() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

/// An answer with its tag.
pub(super) fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Weak, since the same content is sent packed and unpacked.
fn tag(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    format!("W/\"{}\"", hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Whether If-None-Match names the tag (RFC 9110, 13.1.2: compared weakly).
pub(super) fn known(asked: &HeaderMap, tag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim() == "*" || strong(item) == strong(tag))
}

/// A point as a peer sees it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct PointTold<'a> {
    /// Its stable name: one to eight parts of a-z, 0-9, _ and -, joined by /.
    #[cfg_attr(test, schemars(with = "String"))]
    id: &'a PointId,
    /// What people call it.
    label: &'a str,
    /// UCUM, case sensitive.
    unit: &'a str,
    /// How its values behave in time.
    kind: Kind,
    /// Digits after the decimal point that mean something.
    decimals: u8,
    /// Milliseconds between readings; `null` when it speaks only at a change.
    interval_ms: Option<u64>,
    /// The values that can be true: least and most.
    range: Option<(f64, f64)>,
    /// Who may pull it.
    sharing: Sharing,
}

/// What `/v1/points` says.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PointsTold<'a> {
    /// By name.
    pub(super) points: Vec<PointTold<'a>>,
}

/// What `/v1/gaps` says.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct GapsTold {
    /// The last ones, oldest first.
    pub(super) gaps: Vec<GapTold>,
    /// How many there were before these.
    pub(super) earlier: usize,
}

impl<'a> PointTold<'a> {
    pub(super) fn new(point: &'a Point) -> Self {
        Self {
            id: &point.id,
            label: &point.label,
            unit: &point.unit,
            kind: point.kind,
            decimals: point.decimals,
            interval_ms: point.interval.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX)),
            range: point.range.as_ref().map(|range| (*range.start(), *range.end())),
            sharing: point.sharing,
        }
    }
}
