//! What goes back: pages, redirections, errors in the visitor's language, and the headers every answer carries.

use std::io::Write;

use askama::Template;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tracing::{error, warn};
use warp::{
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    reply::Reply,
};

use super::{accounts::HashFault, frame::Frame, visit::Visit};
use crate::{store::StoreError, supervisor::chain};

/// Bodies smaller than this travel as they are.
const WORTH_COMPRESSING: usize = 1_000;

/// What a page answers.
pub(crate) enum Answer {
    /// A page or a file.
    Whole(Response<Bytes>),
    /// A stream, already a reply.
    Stream(warp::reply::Response),
}

impl Answer {
    /// A page.
    pub(crate) fn page(template: &impl Template) -> Result<Self, Problem> {
        Self::page_with(StatusCode::OK, template)
    }

    /// A page that tells of something wrong.
    pub(crate) fn page_with(status: StatusCode, template: &impl Template) -> Result<Self, Problem> {
        let html = template.render().map_err(Problem::Template)?;
        Ok(Self::file(status, "text/html; charset=utf-8", html))
    }

    /// Bytes of a kind.
    pub(crate) fn file(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Self::Whole(response)
    }

    /// Go and read another page.
    pub(crate) fn redirect(to: &str) -> Self {
        Self::file(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "").with(header::LOCATION, to)
    }

    /// The same with a header. A value no header can carry is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers_mut().insert(name, value);
        }
        self
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Whole(response) => response.headers_mut(),
            Self::Stream(response) => response.headers_mut(),
        }
    }

    /// The answer as it leaves: guarded, compressed where the browser can, never kept by a cache unless it says so.
    pub(crate) fn dressed(mut self, visit: &Visit) -> warp::reply::Response {
        guard(self.headers_mut());
        let html =
            self.headers_mut().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if html && !visit.has_cookie && !self.headers_mut().contains_key(header::SET_COOKIE) {
            self = self.with(header::SET_COOKIE, &visit.token.set_cookie());
        }
        match self {
            Self::Stream(response) => response,
            Self::Whole(response) if html && accepts_gzip(&visit.headers) => compressed(response).into_response(),
            Self::Whole(response) => into_reply(response).into_response(),
        }
    }
}

fn into_reply(response: Response<Bytes>) -> Response<Vec<u8>> {
    response.map(Vec::from)
}

fn compressed(response: Response<Bytes>) -> Response<Vec<u8>> {
    if response.body().len() < WORTH_COMPRESSING {
        return into_reply(response);
    }
    let (mut parts, body) = response.into_parts();
    let body = gzip(&body, Compression::fast()).unwrap_or_default();
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding, accept-language, cookie"));
    Response::from_parts(parts, body)
}

/// Compresses; writing to memory does not fail.
pub(crate) fn gzip(bytes: &[u8], level: Compression) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Whether the browser takes gzip (RFC 9110 §12.5.3).
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').any(|item| {
        let mut parts = item.split(';');
        let named = matches!(parts.next().map(str::trim), Some("gzip" | "*"));
        let refused = parts.any(|part| part.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        named && !refused
    })
}

/// No script, style, frame or form but our own. No HSTS: the certificate may be the box's own.
/// `same-origin` rather than `no-referrer`, with which browsers would post `Origin: null`.
fn guard(headers: &mut HeaderMap) {
    const GUARDS: &[(&str, &str)] = &[
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; media-src 'self'; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ];
    for (name, value) in GUARDS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Why a page cannot be shown, or a form not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// No such page.
    #[error("no such page")]
    NotFound,
    /// A page that takes no form, or a method we do not know.
    #[error("method not allowed")]
    Method,
    /// More than a form can hold.
    #[error("form too large")]
    TooLarge,
    /// The body broke off.
    #[error("body unreadable")]
    Unreadable,
    /// Not for this role.
    #[error("not allowed to this role")]
    Forbidden,
    /// A form that is not ours, or too old.
    #[error("form not made for this visitor")]
    CrossSite,
    /// Too many tries; seconds to wait.
    #[error("wait {0} s")]
    Slow(u64),
    /// Too many at once.
    #[error("busy")]
    Busy,
    /// The store cannot do it.
    #[error("the store cannot do it")]
    Store(#[from] StoreError),
    /// A password could not be hashed.
    #[error("a password cannot be checked")]
    Hash(#[from] HashFault),
    /// A template could not be rendered.
    #[error("a page cannot be rendered")]
    Template(#[source] askama::Error),
    /// A blocking task was cancelled or fell.
    #[error("a task fell")]
    Fell,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::Forbidden | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Slow(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Store(_) | Self::Hash(HashFault::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Hash(_) | Self::Template(_) | Self::Fell => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The message that names it; its text follows under `-text`.
    fn key(&self) -> &'static str {
        match self {
            Self::NotFound => "problem-not-found",
            Self::Method => "problem-method",
            Self::TooLarge => "problem-too-large",
            Self::Unreadable => "problem-unreadable",
            Self::Forbidden => "problem-forbidden",
            Self::CrossSite => "problem-cross-site",
            Self::Slow(_) => "problem-slow",
            Self::Busy | Self::Hash(HashFault::Busy) => "problem-busy",
            Self::Store(_) => "problem-store",
            Self::Hash(_) | Self::Template(_) | Self::Fell => "problem-fell",
        }
    }

    /// The page that tells it.
    pub(crate) fn answer(&self, visit: &Visit) -> Answer {
        self.log(visit);
        let key = self.key();
        let seconds = if let Self::Slow(seconds) = self { *seconds } else { 5 };
        let title = visit.words.say(key);
        let text = visit.words.count(&format!("{key}-text"), seconds);
        let page = ProblemPage { frame: Frame::new(visit, &title, ""), text };
        let answer = Answer::page_with(self.status(), &page)
            .unwrap_or_else(|_| Answer::file(self.status(), "text/plain; charset=utf-8", title));
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                answer.with(header::RETRY_AFTER, &seconds.to_string())
            }
            StatusCode::METHOD_NOT_ALLOWED => answer.with(header::ALLOW, "GET, HEAD, POST"),
            _ => answer,
        }
    }

    fn log(&self, visit: &Visit) {
        let path = visit.asked.as_str();
        match self.status() {
            status if status.is_server_error() => error!(path, why = chain(self), "Page could not be shown"),
            StatusCode::FORBIDDEN => warn!(path, address = %visit.address, why = %self, "Request refused"),
            _ => {}
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html", config = ".askama.toml")]
struct ProblemPage {
    frame: Frame,
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_whom_it_is_welcome() {
        let accepts = |text: &str| {
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, text.parse().expect("a value"))]))
        };
        assert!(accepts("gzip, deflate, br") && accepts("br;q=1.0, gzip;q=0.8") && accepts("*"));
        assert!(!accepts("gzip;q=0") && !accepts("br") && !accepts("") && !accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn every_problem_has_its_words() {
        use crate::panel::language::{Language, Languages};
        let languages = Languages::read();
        let all = [
            Problem::NotFound,
            Problem::Method,
            Problem::TooLarge,
            Problem::Unreadable,
            Problem::Forbidden,
            Problem::CrossSite,
            Problem::Slow(3),
            Problem::Busy,
            Problem::Store(StoreError { doing: String::new(), source: None }),
            Problem::Fell,
        ];
        for (problem, language) in all.iter().flat_map(|p| Language::ALL.map(|l| (p, l))) {
            let words = languages.of(language);
            assert!(words.has(problem.key()) && words.has(&format!("{}-text", problem.key())), "{problem:?}");
        }
    }
}
