//! Accessibility statement, data, and who answers for the panel. Open to anybody.

use askama::Template;

use crate::panel::{
    answer::{Answer, Problem},
    frame::Frame,
    visit::Visit,
};

#[derive(Template)]
#[template(path = "about.html", config = ".askama.toml")]
struct About {
    frame: Frame,
    version: &'static str,
}

/// `/about`.
pub(crate) fn show(visit: &Visit) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let title = visit.words.say("about-title");
    Answer::page(&About { frame: Frame::new(visit, &title, "/about"), version: env!("CARGO_PKG_VERSION") })
}
