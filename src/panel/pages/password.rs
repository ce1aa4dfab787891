//! Choosing a password of one's own.

use std::sync::Arc;

use askama::Template;
use warp::http::StatusCode;

use crate::panel::{
    accounts::{self, Account, Weak},
    answer::{Answer, Problem},
    frame::Frame,
    language::Words,
    patience::Guesser,
    sessions,
    visit::{Form, Visit},
};

#[derive(Template)]
#[template(path = "password.html", config = ".askama.toml")]
struct Password {
    frame: Frame,
    /// Whether the present password is asked for: not from who came in by a one-time code.
    asks_current: bool,
    wrong_current: Option<String>,
    wrong: Option<String>,
}

/// A password typed twice.
pub(crate) struct Choice {
    /// As typed first.
    pub(crate) password: String,
    again: String,
}

impl Choice {
    /// From the fields of a form.
    pub(crate) fn of(form: &Form) -> Self {
        Self { password: form.get("password").to_owned(), again: form.get("again").to_owned() }
    }

    /// Why it will not do.
    pub(crate) fn weakness(&self, known: &[&str]) -> Option<Weak> {
        accounts::judge(&self.password, &self.again, known).err()
    }
}

impl Weak {
    /// What to change.
    pub(crate) fn say(self, words: &Words) -> String {
        match self {
            Self::Short => words.count("password-short", accounts::PASSWORD_MIN as u64),
            Self::Long => words.say("password-long"),
            Self::Known => words.say("password-known"),
            Self::Monotonous => words.say("password-monotonous"),
            Self::Differs => words.say("password-differs"),
        }
    }
}

/// `/password`: for who came in by a one-time code, and for who wants another.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    let Some(person) = visit.person.clone() else { return Ok(Answer::redirect("/sign-in")) };
    if !visit.is_post() {
        return page(&visit, StatusCode::OK, None, None);
    }
    if !person.must_choose && !knows_current(&visit, &person).await? {
        let wrong = visit.words.say("password-current-wrong");
        return page(&visit, StatusCode::UNPROCESSABLE_ENTITY, Some(wrong), None);
    }
    let choice = Choice::of(&visit.form);
    if let Some(weak) = choice.weakness(&[&visit.site.ground.commune, &person.name]) {
        return page(&visit, StatusCode::UNPROCESSABLE_ENTITY, None, Some(weak.say(&visit.words)));
    }
    let hash = visit.site.hasher.hash(choice.password).await?;
    let token = visit.token.clone();
    let changed = visit
        .site
        .change(&person.name, move |account| {
            account.hash = hash;
            account.must_choose = false;
        })
        .await?;
    let name = changed.ok_or(Problem::NotFound)?.name;
    tracing::info!(account = name, "Password changed");
    visit.site.keep(move |keep| sessions::end_all(keep, &name, Some(&token))).await?;
    Ok(Answer::redirect("/"))
}

/// Somebody at a PC left open does not know it.
async fn knows_current(visit: &Visit, person: &Account) -> Result<bool, Problem> {
    let guessers = [Guesser::at(visit.address), Guesser::Account(accounts::key_of(&person.name))];
    visit.site.patience.admit(&guessers).map_err(Problem::Slow)?;
    let current = visit.form.get("current");
    if current.len() > accounts::PASSWORD_MAX {
        return Ok(false);
    }
    let knows = visit.site.hasher.matches(current.to_owned(), Some(person.hash.clone())).await?;
    if knows {
        visit.site.patience.forgive(&guessers);
    }
    Ok(knows)
}

fn page(
    visit: &Visit,
    status: StatusCode,
    wrong_current: Option<String>,
    wrong: Option<String>,
) -> Result<Answer, Problem> {
    let frame = Frame::new(visit, &visit.words.say("password-title"), "/account");
    let asks_current = visit.person.as_ref().is_some_and(|person| !person.must_choose);
    Answer::page_with(status, &Password { frame, asks_current, wrong_current, wrong })
}
