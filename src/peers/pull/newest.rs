//! How things are now, before the backlog: the newest reading of each point, in a file of its own that is replaced whole.
//!
//! The backlog brings the same readings again, in their place and under their numbers: this file is to be looked at, not
//! to be added to anything.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;

use super::{LinkError, PullError, output, page::split};

/// Largest state there can be, in bytes.
const LARGEST: usize = 16 << 20;

/// The file of the state, and when it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestFirst {
    /// JSON lines, the latest first; replaced whole.
    pub file: PathBuf,
    /// After an outage at least so long the state is asked for before the backlog.
    pub after: Duration,
}

/// Looks for the newest, page by page, when it is time to.
pub(super) struct Newest {
    wanted: Option<NewestFirst>,
    due: bool,
    heard: Instant,
    lines: Vec<u8>,
    before: Option<u64>,
}

/// The last line of a page of the state.
#[derive(Debug, Deserialize)]
struct End {
    before: u64,
    complete: bool,
}

impl Newest {
    /// Due at once, when it is wanted at all.
    pub(super) fn new(wanted: Option<NewestFirst>) -> Self {
        Self { due: wanted.is_some(), wanted, heard: Instant::now(), lines: Vec::new(), before: None }
    }

    /// What to ask for now, if anything.
    pub(super) fn path(&self, limit: usize) -> Option<String> {
        let before = self.before.map_or_else(String::new, |before| format!("&before={before}"));
        self.due.then(|| format!("/v1/observations?order=newest&format=rows&limit={limit}{before}"))
    }

    /// The gateway has answered.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// The gateway was not reached. After a while what was known is old.
    pub(super) fn missed(&mut self) {
        if self.wanted.as_ref().is_some_and(|wanted| self.heard.elapsed() >= wanted.after) {
            self.look_again();
        }
    }

    /// Asks for all of it at the next turn.
    pub(super) fn look_again(&mut self) {
        self.due = self.wanted.is_some();
        self.before = None;
        self.lines.clear();
    }

    /// The gateway does not know how.
    pub(super) fn give_up(&mut self) {
        self.wanted = None;
        self.due = false;
    }

    /// Takes a page in; true once the file is written.
    pub(super) fn take(&mut self, body: &[u8]) -> Result<Result<bool, PullError>, LinkError> {
        let (content, end) = split::<End>(body)?;
        let moves_on = self.before.is_none_or(|before| end.before < before);
        if self.lines.len() + content.len() > LARGEST || !(moves_on || end.complete) {
            return Err(LinkError::Page("a state without end".to_owned()));
        }
        self.lines.extend_from_slice(content);
        self.before = Some(end.before);
        if !end.complete {
            return Ok(Ok(false));
        }
        let Some(wanted) = &self.wanted else { return Ok(Ok(true)) };
        let written = output::replace(&wanted.file, &self.lines);
        (self.due, self.before) = (false, None);
        self.lines = Vec::new();
        Ok(written.map(|()| true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(file: PathBuf) -> Newest {
        Newest::new(Some(NewestFirst { file, after: Duration::from_secs(60) }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_of_several_pages_replaces_the_file_whole() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("now.jsonl");
        std::fs::write(&file, "old").expect("written");
        let mut newest = wanted(file.clone());
        assert_eq!(newest.path(2).as_deref(), Some("/v1/observations?order=newest&format=rows&limit=2"));
        let first = newest.take(b"{\"seq\":9}\n{\"seq\":7}\n{\"before\":7,\"complete\":false}\n");
        assert!(!first.expect("understood").expect("no file yet"));
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "old");
        assert!(newest.path(2).expect("more").ends_with("&before=7"));
        let last = newest.take(b"{\"seq\":3}\n{\"before\":3,\"complete\":true}\n");
        assert!(last.expect("understood").expect("written"));
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "{\"seq\":9}\n{\"seq\":7}\n{\"seq\":3}\n");
        assert_eq!(newest.path(2), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_again_after_an_outage_and_not_after_a_hiccup() {
        let place = tempfile::tempdir().expect("a folder");
        let mut newest = wanted(place.path().join("now.jsonl"));
        newest.take(b"{\"before\":0,\"complete\":true}\n").expect("understood").expect("written");
        newest.heard();
        tokio::time::advance(Duration::from_secs(59)).await;
        newest.missed();
        assert_eq!(newest.path(1), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        newest.missed();
        assert!(newest.path(1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_turns_in_circles_is_not_followed() {
        let place = tempfile::tempdir().expect("a folder");
        let mut newest = wanted(place.path().join("now.jsonl"));
        let page = b"{\"seq\":9}\n{\"before\":9,\"complete\":false}\n";
        newest.take(page).expect("understood").expect("no file yet");
        newest.take(page).expect_err("the same again");
    }
}
