//! What is answered when a request cannot be: always JSON, `{"error": code, "message": what to do}`.

use std::time::Duration;

use serde_json::{Value, json};
use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{comeback::Comeback, cursor::Cursor};
use crate::{store::StoreError, supervisor::chain, traffic::Used};

/// A request that cannot be answered, and what its sender should do.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: Value,
    retry: Option<Retry>,
}

/// When it may be tried again.
#[derive(Debug, Clone, Copy)]
enum Retry {
    Soon,
    NextMonth(Option<Duration>),
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, body: json!({"error": code, "message": message.into()}), retry: None }
    }

    /// The query is not understood.
    pub(crate) fn query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", message)
    }

    /// Nothing is there.
    pub(crate) fn path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "there are /v1/observations, /v1/points, /v1/health and /v1/gaps",
        )
    }

    /// Only reading is possible.
    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "only-get", "this API is read with GET and has nothing to write")
    }

    /// The authority vouches for the certificate, the configuration does not know it.
    pub(crate) fn unknown_peer(names: &[String]) -> Self {
        let names = names.iter().map(|name| format!("\"{}\"", name.escape_debug())).collect::<Vec<_>>().join(", ");
        let message = format!("the certificate names {names}, which is no peer of this gateway's configuration");
        Self::new(StatusCode::FORBIDDEN, "unknown-peer", message)
    }

    /// The cursor's store is no more. Tells where the present one begins.
    pub(crate) fn other_store(restart: Cursor, oldest: u64) -> Self {
        let message = "the store this cursor belongs to was lost or replaced: what was not pulled from it is gone; \
                       go on with `after` = `restart`, from the oldest reading there is";
        let mut refusal = Self::new(StatusCode::GONE, "cursor-of-another-store", message);
        refusal.body["restart"] = restart.encode().into();
        refusal.body["oldestSeq"] = oldest.into();
        refusal
    }

    /// Too much at once.
    pub(crate) fn busy() -> Self {
        let mut refusal =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many requests at once, try again later");
        refusal.retry = Some(Retry::Soon);
        refusal
    }

    /// The month's data budget is spent: all waits but alarms.
    pub(crate) fn budget(used: Used, left: Option<Duration>) -> Self {
        let message = "this month's data budget is spent: readings wait here until the next month; /v1/health, and alarms \
                       by /v1/observations?order=newest, are still answered";
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "budget-spent", message);
        refusal.body["used"] = used.bytes.into();
        refusal.body["limit"] = used.limit.into();
        refusal.retry = Some(Retry::NextMonth(left));
        refusal
    }

    /// The card cannot be read now.
    pub(crate) fn store(error: &StoreError) -> Self {
        tracing::warn!(why = chain(error), "Pull not answered");
        let message = "the gateway cannot read its store now, try again later";
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-unreadable", message);
        refusal.retry = Some(Retry::Soon);
        refusal
    }

    /// The gateway is stopping, or something in it fell.
    pub(crate) fn unavailable() -> Self {
        let message = "the gateway cannot answer now, try again later";
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        refusal.retry = Some(Retry::Soon);
        refusal
    }

    /// As an HTTP answer. A wait is told with jitter, so that many gateways' peers do not come back together.
    pub(crate) fn into_response(self, comeback: Comeback) -> Response {
        let mut response = Response::new(format!("{}\n", self.body).into_bytes().into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let seconds = self.retry.map(|retry| match retry {
            Retry::Soon => comeback.busy(),
            Retry::NextMonth(left) => comeback.month(left),
        });
        if let Some(seconds) = seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}
