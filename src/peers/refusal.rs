//! What is answered when a request cannot be: always RFC 9457 problem details, with the stable code as `error` and what
//! to do as `detail`. What was wrong in a query is told with its `parameter` and `value`.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{comeback::Comeback, cursor::Cursor, resource::ROUTES};
use crate::{store::StoreError, supervisor::chain, traffic::Used};

/// RFC 9457.
pub(crate) const PROBLEM: &str = "application/problem+json";
/// Characters of a wrong value told back.
const SHOWN: usize = 40;

/// Why a request is refused: the stable word of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// Something in the query, or in the path, is not of its form.
    BadQuery,
    /// Each part of the query is of its form, but together they mean nothing.
    Contradiction,
    /// Nothing is there.
    NoSuchPath,
    /// No reading of that day is stored.
    NoSuchDay,
    /// This API is read with GET.
    OnlyGet,
    /// The authority vouches for the certificate, the configuration does not know it.
    UnknownPeer,
    /// The store the cursor belongs to was lost or replaced; `restart` is the cursor to go on with.
    CursorOfAnotherStore,
    /// Too many requests at once; `Retry-After` tells when to come back.
    Busy,
    /// The month's data budget, `limit`, is `used`: readings wait; `Retry-After` tells when the next month begins.
    BudgetSpent,
    /// The card cannot be read now; `Retry-After` tells when to come back.
    StoreUnreadable,
    /// The gateway is stopping, or something in it fell; `Retry-After` tells when to come back.
    Unavailable,
}

impl Code {
    /// Every path may refuse so.
    #[cfg(test)]
    pub(crate) const OF_ALL: &[Self] =
        &[Self::UnknownPeer, Self::OnlyGet, Self::Busy, Self::StoreUnreadable, Self::Unavailable];

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadQuery => StatusCode::BAD_REQUEST,
            Self::Contradiction => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoSuchPath | Self::NoSuchDay => StatusCode::NOT_FOUND,
            Self::OnlyGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownPeer => StatusCode::FORBIDDEN,
            Self::CursorOfAnotherStore => StatusCode::GONE,
            Self::Busy | Self::BudgetSpent => StatusCode::TOO_MANY_REQUESTS,
            Self::StoreUnreadable | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

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
    fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({"title": title, "status": status.as_u16(), "error": code, "detail": detail.into()});
        Self { status, body, retry: None }
    }

    fn later(code: Code, detail: &str) -> Self {
        Self { retry: Some(Retry::Soon), ..Self::new(code, detail) }
    }

    /// The query is not understood.
    pub(crate) fn query(detail: impl Into<String>) -> Self {
        Self::new(Code::BadQuery, detail)
    }

    /// One parameter is not of its form.
    pub(crate) fn value(name: &str, value: &str, expected: &str) -> Self {
        let shown: String = value.chars().take(SHOWN).collect();
        let mut refusal = Self::query(format!("`{name}` is \"{}\", but must be {expected}", shown.escape_debug()));
        refusal.body["parameter"] = name.into();
        refusal.body["value"] = shown.into();
        refusal
    }

    /// Well-formed parameters contradict one another.
    pub(crate) fn contradiction(detail: impl Into<String>) -> Self {
        Self::new(Code::Contradiction, detail)
    }

    /// Nothing is there.
    pub(crate) fn path() -> Self {
        let paths = ROUTES.iter().map(|route| route.template).collect::<Vec<_>>().join(", ");
        Self::new(Code::NoSuchPath, format!("there are {paths}"))
    }

    /// Nothing is stored of a day.
    pub(crate) fn no_day(day: jiff::civil::Date) -> Self {
        Self::new(Code::NoSuchDay, format!("no reading of {day} is stored; /v1/days tells of which days there are"))
    }

    /// Only reading is possible.
    pub(crate) fn method() -> Self {
        Self::new(Code::OnlyGet, "this API is read with GET and has nothing to write")
    }

    /// The authority vouches for the certificate, the configuration does not know it.
    pub(crate) fn unknown_peer(names: &[String]) -> Self {
        let names = names.iter().map(|name| format!("\"{}\"", name.escape_debug())).collect::<Vec<_>>().join(", ");
        let detail = format!("the certificate names {names}, which is no peer of this gateway's configuration");
        Self::new(Code::UnknownPeer, detail)
    }

    /// The cursor's store is no more. Tells where the present one begins.
    pub(crate) fn other_store(restart: Cursor, oldest: u64) -> Self {
        let detail = "the store this cursor belongs to was lost or replaced: what was not pulled from it is gone; \
                      go on with `after` = `restart`, from the oldest reading there is";
        let mut refusal = Self::new(Code::CursorOfAnotherStore, detail);
        refusal.body["restart"] = restart.encode().into();
        refusal.body["oldestSeq"] = oldest.into();
        refusal
    }

    /// Too much at once.
    pub(crate) fn busy() -> Self {
        Self::later(Code::Busy, "too many requests at once, try again later")
    }

    /// The month's data budget is spent: all waits but alarms.
    pub(crate) fn budget(used: Used, left: Option<Duration>) -> Self {
        let detail = "this month's data budget is spent: readings wait here until the next month; /v1/health, and alarms \
                      by /v1/observations?order=newest, are still answered";
        let mut refusal = Self::new(Code::BudgetSpent, detail);
        refusal.body["used"] = used.bytes.into();
        refusal.body["limit"] = used.limit.into();
        refusal.retry = Some(Retry::NextMonth(left));
        refusal
    }

    /// The card cannot be read now.
    pub(crate) fn store(error: &StoreError) -> Self {
        tracing::warn!(why = chain(error), "Pull not answered");
        Self::later(Code::StoreUnreadable, "the gateway cannot read its store now, try again later")
    }

    /// The gateway is stopping, or something in it fell.
    pub(crate) fn unavailable() -> Self {
        Self::later(Code::Unavailable, "the gateway cannot answer now, try again later")
    }

    /// As an HTTP answer. A wait is told with jitter, so that many gateways' peers do not come back together.
    pub(crate) fn into_response(self, comeback: Comeback) -> Response {
        let mut response = Response::new(format!("{}\n", self.body).into_bytes().into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
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

/// Why a request is refused (RFC 9457).
#[cfg(test)]
#[derive(Serialize, schemars::JsonSchema)]
#[allow(dead_code, reason = "only its shape is read")]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// The status in words.
    title: String,
    /// The HTTP status.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// Why, as a stable word.
    error: Code,
    /// What was wrong and what to do, in English.
    detail: String,
    /// The part of the query or path that was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// What it was, 40 characters of it at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The cursor to go on with, when the old one's store is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<String>,
    /// The oldest reading there is, with `restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_seq: Option<u64>,
    /// Bytes the link has carried this month, when that is all it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// Bytes it may carry in a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_told_with_its_name_and_not_more_of_it_than_one_needs() {
        let refusal = Refusal::value("limit", &"é\n".repeat(100), "a whole number");
        assert_eq!(refusal.body["parameter"], "limit");
        assert_eq!(refusal.body["value"].as_str().map(|value| value.chars().count()), Some(SHOWN));
        let detail = refusal.body["detail"].as_str().expect("a text");
        assert!(detail.starts_with("`limit` is \"é\\n"), "{detail}");
        assert_eq!((refusal.status.as_u16(), &refusal.body["status"]), (400, &json!(400)));
    }
}
