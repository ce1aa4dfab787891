//! Which address shows which page.

use std::{net::IpAddr, sync::Arc};

use bytes::Buf;
use futures_util::{FutureExt, Stream, future::BoxFuture};
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{HeaderMap, Method, header},
    path::FullPath,
    reply::Response,
};

use super::{
    Ground, Site,
    answer::{Answer, Problem},
    assets, live,
    pages::{
        about, access, account, accounts, announcements, claim, conditions, consents, data, demonstration, erase, home,
        password, point, sign_in, sign_out, technician,
    },
    sessions::Token,
    visit::{Form, Visit, browser_language},
};
use crate::serve::Connection;

/// A page: from a visit to an answer.
type Page = fn(Arc<Visit>) -> BoxFuture<'static, Result<Answer, Problem>>;

/// Who may open a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Anybody.
    Open,
    /// Who is signed in, with a password of their own.
    SignedIn,
}

/// The whole site: a filter that answers every request, an unknown address included.
pub fn routes(ground: Arc<Ground>) -> BoxedFilter<(Response,)> {
    let site = Arc::new(Site::new(ground));
    let exact: [(&'static str, Door, Page); 17] = [
        ("announcements", Door::SignedIn, |visit| announcements::show(visit).boxed()),
        ("conditions", Door::SignedIn, |visit| conditions::show(visit).boxed()),
        ("demonstration", Door::SignedIn, |visit| demonstration::show(visit).boxed()),
        ("data", Door::SignedIn, |visit| data::show(visit).boxed()),
        ("consents", Door::SignedIn, |visit| consents::show(visit).boxed()),
        ("erase", Door::SignedIn, |visit| erase::show(visit).boxed()),
        ("access", Door::SignedIn, |visit| access::show(visit).boxed()),
        ("accounts", Door::SignedIn, |visit| accounts::show(visit).boxed()),
        ("account", Door::SignedIn, |visit| account::show(visit).boxed()),
        ("live", Door::SignedIn, |visit| async move { live::stream(&visit) }.boxed()),
        ("claim", Door::Open, |visit| claim::show(visit).boxed()),
        ("sign-in", Door::Open, |visit| sign_in::show(visit).boxed()),
        ("sign-out", Door::Open, |visit| sign_out::show(visit).boxed()),
        ("password", Door::Open, |visit| password::show(visit).boxed()),
        ("about", Door::Open, |visit| async move { about::show(&visit) }.boxed()),
        ("technician", Door::Open, |visit| async move { technician::show(&visit) }.boxed()),
        ("favicon.ico", Door::Open, |visit| async move { favicon(&visit) }.boxed()),
    ];
    let beneath: [(&'static str, Door, Page); 3] = [
        ("points", Door::SignedIn, |visit| point::show(visit).boxed()),
        ("previews", Door::SignedIn, |visit| async move { announcements::preview(&visit) }.boxed()),
        ("assets", Door::Open, |visit| async move { assets::serve(&visit) }.boxed()),
    ];
    let home = warp::path::end().map(String::new).boxed();
    let mut all = answered(&site, home, Door::SignedIn, |visit| home::show(visit).boxed());
    for (name, door, page) in exact {
        let address = warp::path(name).and(warp::path::end()).map(String::new).boxed();
        all = all.or(answered(&site, address, door, page)).unify().boxed();
    }
    for (name, door, page) in beneath {
        let tail = warp::path::tail().map(|tail: warp::path::Tail| tail.as_str().to_owned());
        all = all.or(answered(&site, warp::path(name).and(tail).boxed(), door, page)).unify().boxed();
    }
    let anywhere = warp::any().map(String::new).boxed();
    let lost = answered(&site, anywhere, Door::Open, |_| async { Err(Problem::NotFound) }.boxed());
    all.or(lost).unify().boxed()
}

fn answered(site: &Arc<Site>, address: BoxedFilter<(String,)>, door: Door, page: Page) -> BoxedFilter<(Response,)> {
    let site = Arc::clone(site);
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    address
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Connection>())
        .and(warp::body::stream())
        .then(move |tail, method, path: FullPath, query, headers, connection: Option<Connection>, body| {
            let address = connection.map_or(IpAddr::from([0, 0, 0, 0]), |connection| connection.address.ip());
            let visit = arrival(&site, tail, method, path.as_str(), query, headers, address);
            answer(visit, body, door, page)
        })
        .boxed()
}

fn arrival(
    site: &Arc<Site>,
    tail: String,
    method: Method,
    path: &str,
    query: String,
    headers: HeaderMap,
    address: IpAddr,
) -> Visit {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let token = cookies.into_iter().find_map(Token::from_cookies);
    Visit {
        site: Arc::clone(site),
        method,
        asked: if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") },
        tail,
        query: Form::parse(query.as_bytes()),
        form: Form::default(),
        address,
        words: site.languages.of(browser_language(&headers)),
        has_cookie: token.is_some(),
        token: token.unwrap_or_else(Token::fresh),
        person: None,
        headers,
    }
}

async fn answer<S, B, E>(mut visit: Visit, body: S, door: Door, page: Page) -> Response
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Buf,
{
    let welcome = welcome(&mut visit, body, door).await;
    let visit = Arc::new(visit);
    let outcome = match welcome {
        Ok(None) => page(Arc::clone(&visit)).await,
        Ok(Some(elsewhere)) => Ok(elsewhere),
        Err(problem) => Err(problem),
    };
    outcome.unwrap_or_else(|problem| problem.answer(&visit)).dressed(&visit)
}

/// Recognises the visitor, takes the form in, and shows the way to who must go elsewhere first.
async fn welcome<S, B, E>(visit: &mut Visit, body: S, door: Door) -> Result<Option<Answer>, Problem>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Buf,
{
    visit.recognise().await?;
    visit.receive(body).await?;
    if door == Door::SignedIn { visit.detour().await } else { Ok(None) }
}

/// Browsers ask for it unasked; the page names a better one.
fn favicon(visit: &Visit) -> Result<Answer, Problem> {
    visit.only_reading()?;
    Ok(Answer::redirect(&visit.site.assets.address("clocher.svg")))
}
