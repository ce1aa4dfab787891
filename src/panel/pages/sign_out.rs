//! Ends the session.

use std::sync::Arc;

use crate::panel::{
    answer::{Answer, Problem},
    sessions::{self, Token},
    visit::Visit,
};

/// `/sign-out`, by a form only, so that no picture on another page can do it.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    if !visit.is_post() {
        return Ok(Answer::redirect("/account"));
    }
    let token = visit.token.clone();
    visit.site.keep(move |keep| sessions::end(keep, &token)).await?;
    tracing::info!(account = visit.name(), "Signed out");
    Ok(Answer::redirect("/sign-in").with(warp::http::header::SET_COOKIE, &Token::fresh().set_cookie()))
}
