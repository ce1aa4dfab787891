//! Lets people in.

use std::sync::Arc;

use askama::Template;
use warp::http::{StatusCode, header};

use crate::panel::{
    accounts,
    answer::{Answer, Problem},
    frame::Frame,
    patience::Guesser,
    sessions::{self, Token},
    visit::{Visit, local_path},
};

#[derive(Template)]
#[template(path = "sign_in.html", config = ".askama.toml")]
struct SignIn {
    frame: Frame,
    name: String,
    next: String,
    wrong: Option<String>,
}

/// `/sign-in`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    if !visit.site.keep(accounts::is_claimed).await? {
        return Ok(Answer::redirect("/claim"));
    }
    if visit.is_post() {
        return enter(&visit).await;
    }
    if visit.person.is_some() {
        return Ok(Answer::redirect("/"));
    }
    page(&visit, StatusCode::OK, "", local_path(visit.query.get("next")), None)
}

fn page(visit: &Visit, status: StatusCode, name: &str, next: &str, wrong: Option<&str>) -> Result<Answer, Problem> {
    let frame = Frame::new(visit, &visit.words.say("sign-in-title"), "/sign-in");
    let wrong = wrong.map(|key| visit.words.say(key));
    Answer::page_with(status, &SignIn { frame, name: name.to_owned(), next: next.to_owned(), wrong })
}

async fn enter(visit: &Visit) -> Result<Answer, Problem> {
    let (name, password) = (visit.form.get("name").to_owned(), visit.form.get("password").to_owned());
    let next = local_path(visit.form.get("next"));
    let guessers = [Guesser::at(visit.address), Guesser::Account(accounts::key_of(&name))];
    visit.site.patience.admit(&guessers).map_err(Problem::Slow)?;
    let account = visit.site.keep(move |keep| accounts::find(keep, &name)).await?;
    let hash = account.as_ref().map(|account| account.hash.clone());
    let fits = password.len() <= accounts::PASSWORD_MAX
        && visit.site.hasher.matches(as_typed(&password, account.as_ref()), hash).await?;
    let Some(account) = account.filter(|_| fits) else {
        tracing::warn!(address = %visit.address, "Sign-in refused");
        return page(visit, StatusCode::UNPROCESSABLE_ENTITY, visit.form.get("name"), next, Some("sign-in-wrong"));
    };
    visit.site.patience.forgive(&guessers);
    let answer = begin(visit, &account.name, if account.must_choose { "/password" } else { next }).await?;
    tracing::info!(account = account.name, address = %visit.address, "Signed in");
    Ok(answer)
}

/// A one-time code may be typed without its dashes, in small letters.
fn as_typed(password: &str, account: Option<&accounts::Account>) -> String {
    if account.is_some_and(|account| account.must_choose) {
        accounts::plain_code(password)
    } else {
        password.to_owned()
    }
}

/// Begins a session under a new cookie, whatever the old one was, and goes on to `next`.
pub(crate) async fn begin(visit: &Visit, account: &str, next: &str) -> Result<Answer, Problem> {
    let token = Token::fresh();
    let cookie = token.set_cookie();
    let (account, clock, old) = (account.to_owned(), visit.site.ground.clock.clone(), visit.token.clone());
    visit
        .site
        .keep(move |keep| {
            sessions::end(keep, &old)?;
            sessions::begin(keep, &clock, &token, &account)
        })
        .await?;
    Ok(Answer::redirect(next).with(header::SET_COOKIE, &cookie))
}
