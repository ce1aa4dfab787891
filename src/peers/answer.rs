//! Answers as they leave: packed as the client accepts, tagged where they may be asked for again unchanged.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::DropGuard;
use warp::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{encoding::Encoding, refusal::Refusal};
use crate::reading::{Kind, Point, PointId, Sharing};

/// A page, packed.
pub(super) struct Sheet {
    pub(super) body: Vec<u8>,
    pub(super) encoding: Encoding,
    /// There is no more for now.
    pub(super) complete: bool,
}

impl Sheet {
    /// `sent` fires once the page has been sent, or will not be any more.
    pub(super) fn into_response(self, sent: DropGuard) -> Response {
        let body = Bytes::from_owner(Held { body: self.body, _sent: sent });
        packed(body, self.encoding, "application/x-ndjson", "no-store")
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

fn packed(body: impl Into<Bytes>, encoding: Encoding, kind: &'static str, cache: &'static str) -> Response {
    let mut response = Response::new(body.into().into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
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
    pub(super) fn new(content: &serde_json::Value) -> serde_json::Result<Self> {
        let body = serde_json::to_vec(content)?;
        let tag = tag(&body);
        Ok(Self { body, tag })
    }

    /// Tagged by something else than what it says.
    pub(super) fn tagged_by(body: Vec<u8>, content: &[u8]) -> Self {
        Self { body, tag: tag(content) }
    }

    pub(super) fn into_response(mut self, asked: &HeaderMap, encoding: Encoding) -> Result<Response, Refusal> {
        let tag = HeaderValue::from_str(&self.tag).ok();
        let mut response = if known(asked, &self.tag) {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            self.body.push(b'\n');
            match encoding.apply(self.body) {
                Ok((encoding, body)) => packed(body, encoding, "application/json", "no-cache"),
                Err(_) => return Err(Refusal::unavailable()),
            }
        };
        if let Some(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }
}

/// Weak, since the same content is sent packed and unpacked.
fn tag(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    format!("W/\"{}\"", hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Whether If-None-Match names the tag (RFC 9110, 13.1.2: compared weakly).
fn known(asked: &HeaderMap, tag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim() == "*" || strong(item) == strong(tag))
}

/// A point as a peer sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PointTold<'a> {
    id: &'a PointId,
    label: &'a str,
    unit: &'a str,
    kind: Kind,
    decimals: u8,
    interval_ms: Option<u64>,
    range: Option<(f64, f64)>,
    sharing: Sharing,
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
