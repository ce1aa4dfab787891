//! One's own account: the language of the pages, the password, the way out.

use std::sync::Arc;

use askama::Template;

use super::accounts::role_word;
use crate::panel::{
    answer::{Answer, Problem},
    frame::Frame,
    language::Language,
    visit::Visit,
};

#[derive(Template)]
#[template(path = "account.html", config = ".askama.toml")]
struct OwnAccount {
    frame: Frame,
    role: String,
    languages: Vec<(Language, bool)>,
}

/// `/account`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    if visit.is_post() {
        let language = Language::from_tag(visit.form.get("language"));
        visit.site.change(visit.name(), move |account| account.language = language).await?;
        return Ok(Answer::redirect("/account"));
    }
    let frame = Frame::new(&visit, &visit.words.say("account-title"), "/account");
    let role = visit.person.as_ref().map(|person| role_word(person.role, &visit.words)).unwrap_or_default();
    let languages = Language::ALL.map(|language| (language, language == visit.words.language)).to_vec();
    Answer::page(&OwnAccount { frame, role, languages })
}
