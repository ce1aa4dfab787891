//! The first visit: who has the code of the box makes the first account, the mayor's.

use std::sync::Arc;

use askama::Template;
use warp::http::StatusCode;

use super::password::Choice;
use crate::{
    panel::{
        accounts::{self, Account, Role},
        answer::{Answer, Problem},
        frame::Frame,
        pages::sign_in,
        patience::Guesser,
        visit::Visit,
    },
    store::{Keep, StoreError},
};

#[derive(Template)]
#[template(path = "claim.html", config = ".askama.toml")]
struct Claim {
    frame: Frame,
    code: String,
    name: String,
    wrong: Wrong,
}

/// What is wrong with each field, in words.
#[derive(Default)]
struct Wrong {
    code: Option<String>,
    name: Option<String>,
    password: Option<String>,
}

/// `/claim`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    if visit.site.keep(accounts::is_claimed).await? {
        return Ok(Answer::redirect("/sign-in"));
    }
    if visit.is_post() { claim(&visit).await } else { page(&visit, StatusCode::OK, Wrong::default()) }
}

fn page(visit: &Visit, status: StatusCode, wrong: Wrong) -> Result<Answer, Problem> {
    let frame = Frame::new(visit, &visit.words.say("claim-title"), "/claim");
    let (code, name) = (visit.form.get("code").to_owned(), visit.form.get("name").to_owned());
    Answer::page_with(status, &Claim { frame, code, name, wrong })
}

async fn claim(visit: &Visit) -> Result<Answer, Problem> {
    let guessers = [Guesser::at(visit.address)];
    visit.site.patience.admit(&guessers).map_err(Problem::Slow)?;
    let code = visit.site.keep(|keep| accounts::claim_code(keep)).await?.ok_or(Problem::CrossSite)?;
    if !accounts::same_code(&code, visit.form.get("code")) {
        tracing::warn!(address = %visit.address, "Claim refused");
        let wrong = Wrong { code: Some(visit.words.say("claim-code-wrong")), ..Wrong::default() };
        return page(visit, StatusCode::UNPROCESSABLE_ENTITY, wrong);
    }
    visit.site.patience.forgive(&guessers);
    let name = accounts::sound_name(visit.form.get("name"));
    let choice = Choice::of(&visit.form);
    let known = [visit.site.ground.commune.as_str(), visit.form.get("name"), &code];
    let (Some(name), None) = (&name, choice.weakness(&known)) else {
        let wrong = Wrong {
            name: name.is_none().then(|| visit.words.say("name-wrong")),
            password: choice.weakness(&known).map(|weak| weak.say(&visit.words)),
            code: None,
        };
        return page(visit, StatusCode::UNPROCESSABLE_ENTITY, wrong);
    };
    let account = Account {
        name: name.clone(),
        role: Role::Mayor,
        hash: visit.site.hasher.hash(choice.password).await?,
        must_choose: false,
        language: None,
        added: visit.site.ground.clock.now(),
    };
    if !visit.site.books(move |keep| own(keep, &account)).await? {
        return Ok(Answer::redirect("/sign-in"));
    }
    tracing::info!(account = name, "The box has an owner");
    sign_in::begin(visit, name, "/").await
}

/// Makes the first account, unless somebody was quicker.
fn own(keep: &dyn Keep, account: &Account) -> Result<bool, StoreError> {
    if accounts::is_claimed(keep)? {
        return Ok(false);
    }
    accounts::save(keep, account)?;
    accounts::forget_claim_code(keep)?;
    Ok(true)
}
