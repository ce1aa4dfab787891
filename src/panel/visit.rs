//! One request, understood: who asks, in which language, with which form. Every page receives a [`Visit`].

use std::{net::IpAddr, sync::Arc};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use warp::http::{HeaderMap, Method, header};

use super::{
    Site,
    accounts::{self, Account, Act},
    answer::{Answer, Problem},
    language::{Language, Words},
    sessions::{self, Token},
};
use crate::reading::{Point, Sharing};

/// The largest form: 2 000 characters of announcement, four bytes each, percent-encoded in part.
pub(crate) const FORM_LIMIT: usize = 16 * 1024;
/// Most fields of a form.
const FIELDS: usize = 100;

/// Names and values, of a form or of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Decodes `a=b&c=d` (`application/x-www-form-urlencoded`). What is not UTF-8 is replaced, never refused.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(FIELDS);
        Self(
            pairs
                .map(|pair| {
                    let mut halves = pair.splitn(2, |byte| *byte == b'=');
                    (decoded(halves.next().unwrap_or_default()), decoded(halves.next().unwrap_or_default()))
                })
                .collect(),
        )
    }

    /// The first value of a name, empty when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Every value of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }
}

fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => nibble(*high).zip(nibble(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(match (escaped, first) {
            (Some(byte), _) => byte,
            (None, b'+') => b' ',
            (None, other) => *other,
        });
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// A request.
pub(crate) struct Visit {
    /// The panel.
    pub(crate) site: Arc<Site>,
    /// How it is asked.
    pub(crate) method: Method,
    /// Where: the path with its query.
    pub(crate) asked: String,
    /// What follows the page's own path: a point's name, a file.
    pub(crate) tail: String,
    /// What follows `?`.
    pub(crate) query: Form,
    /// What was posted.
    pub(crate) form: Form,
    /// The visitor's headers.
    pub(crate) headers: HeaderMap,
    /// The visitor's address.
    pub(crate) address: IpAddr,
    /// The words of the visitor's language.
    pub(crate) words: Words,
    /// The visitor's cookie, or the one about to be handed out.
    pub(crate) token: Token,
    /// Whether the visitor came with that cookie.
    pub(crate) has_cookie: bool,
    /// Who it is, when signed in.
    pub(crate) person: Option<Account>,
}

impl Visit {
    /// A header as text.
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether a form was posted.
    pub(crate) fn is_post(&self) -> bool {
        self.method == Method::POST
    }

    /// Refuses what is not a plain reading of a page.
    pub(crate) fn only_reading(&self) -> Result<(), Problem> {
        if self.is_post() { Err(Problem::Method) } else { Ok(()) }
    }

    /// Whether the visitor may do it.
    pub(crate) fn may(&self, act: Act) -> bool {
        self.person.as_ref().is_some_and(|person| person.role.may(act))
    }

    /// Refuses a visitor who may not do it.
    pub(crate) fn must(&self, act: Act) -> Result<(), Problem> {
        if self.may(act) { Ok(()) } else { Err(Problem::Forbidden) }
    }

    /// Whether the visitor may see what a point measures.
    pub(crate) fn may_see(&self, point: &Point) -> bool {
        point.sharing != Sharing::Personal || self.may(Act::SeePersonal)
    }

    /// The name of who is signed in.
    pub(crate) fn name(&self) -> &str {
        self.person.as_ref().map_or("", |person| &person.name)
    }

    /// Looks up who came, and in which language to speak to them.
    pub(crate) async fn recognise(&mut self) -> Result<(), Problem> {
        if !self.has_cookie {
            return Ok(());
        }
        let (token, clock) = (self.token.clone(), self.site.ground.clock.clone());
        self.person = self
            .site
            .keep(move |keep| {
                let Some(name) = sessions::account_of(keep, &clock, &token)? else { return Ok(None) };
                accounts::find(keep, &name)
            })
            .await?;
        if let Some(language) = self.person.as_ref().and_then(|person| person.language) {
            self.words = self.site.languages.of(language);
        }
        Ok(())
    }

    /// Takes a posted form in: small enough, from one of our own pages, made for this visitor.
    pub(crate) async fn receive<S, B, E>(&mut self, body: S) -> Result<(), Problem>
    where
        S: Stream<Item = Result<B, E>> + Send,
        B: Buf,
    {
        match self.method {
            Method::GET | Method::HEAD => return Ok(()),
            Method::POST => {}
            _ => return Err(Problem::Method),
        }
        if !is_same_site(&self.headers) {
            return Err(Problem::CrossSite);
        }
        self.form = Form::parse(&collected(body).await?);
        if !self.has_cookie || !self.token.made(self.form.get("token")) {
            return Err(Problem::CrossSite);
        }
        Ok(())
    }

    /// Where to send a visitor who must do something else first.
    pub(crate) async fn detour(&self) -> Result<Option<Answer>, Problem> {
        match &self.person {
            Some(person) if person.must_choose => Ok(Some(Answer::redirect("/password"))),
            Some(_) => Ok(None),
            None if self.site.keep(accounts::is_claimed).await? => {
                let next = if self.is_post() { "/" } else { &self.asked };
                Ok(Some(Answer::redirect(&format!("/sign-in?next={}", escaped(next)))))
            }
            None => Ok(Some(Answer::redirect("/claim"))),
        }
    }
}

/// The language of a visitor nobody knows yet.
pub(crate) fn browser_language(headers: &HeaderMap) -> Language {
    Language::accepted(headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok()).unwrap_or_default())
}

/// A page of ours may post; another site's may not. Browsers say which (Fetch Metadata, or `Origin`); who says
/// nothing is left to the form token.
fn is_same_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return true };
    let host = text("host").unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, of)| !host.is_empty() && of == host)
}

async fn collected<S, B, E>(body: S) -> Result<Bytes, Problem>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Buf,
{
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| Problem::Unreadable)?;
        if bytes.len() + part.remaining() > FORM_LIMIT {
            return Err(Problem::TooLarge);
        }
        while part.has_remaining() {
            let chunk = part.chunk();
            bytes.extend_from_slice(chunk);
            let taken = chunk.len();
            part.advance(taken);
        }
    }
    Ok(bytes.into())
}

/// A path as a query value.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A place of ours to go on to, or the home page: never another site (`//elsewhere`, `/\elsewhere`).
pub(crate) fn local_path(next: &str) -> &str {
    let second = next.as_bytes().get(1);
    let local = next.starts_with('/')
        && next.len() <= 500
        && !matches!(second, Some(b'/' | b'\\'))
        && next.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\');
    if local { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = Form::parse(b"text=Coupure+d%27eau+%C3%A0+12%3A30&zone=bourg&zone=hameau&empty=&flag&%zz=1%");
        assert_eq!(form.get("text"), "Coupure d'eau à 12:30");
        assert_eq!(form.all("zone"), ["bourg", "hameau"]);
        assert_eq!((form.get("empty"), form.get("flag"), form.get("none"), form.get("%zz")), ("", "", "", "1%"));
        assert_eq!(Form::parse(&b"a=1&".repeat(500)).all("a").len(), FIELDS);
    }

    #[test]
    fn one_is_sent_on_only_within_the_panel() {
        for good in ["/", "/conditions", "/points/water/hall?span=week"] {
            assert_eq!(local_path(good), good);
        }
        for bad in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nSet-Cookie: x", "/é"] {
            assert_eq!(local_path(bad), "/", "{bad:?}");
        }
    }

    #[test]
    fn another_site_may_not_post() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).parse().expect("a name"), v.parse().expect("a value"))).collect()
        };
        assert!(is_same_site(&headers(&[])));
        assert!(is_same_site(&headers(&[("sec-fetch-site", "same-origin"), ("origin", "null")])));
        assert!(!is_same_site(&headers(&[("sec-fetch-site", "cross-site")])));
        assert!(!is_same_site(&headers(&[("sec-fetch-site", "same-site")])));
        assert!(is_same_site(&headers(&[("origin", "https://clocher.local"), ("host", "clocher.local")])));
        assert!(!is_same_site(&headers(&[("origin", "https://evil.example"), ("host", "clocher.local")])));
        assert!(!is_same_site(&headers(&[("origin", "null"), ("host", "clocher.local")])));
    }

    #[tokio::test]
    async fn a_form_without_end_is_refused_after_its_limit() {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024])));
        assert!(matches!(collected(endless).await, Err(Problem::TooLarge)));
    }
}
