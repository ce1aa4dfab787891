//! A page as it came: whole, or not a page.

use serde::{Deserialize, de::DeserializeOwned};

use super::LinkError;

/// A page that came whole.
#[derive(Debug)]
pub(super) struct Page {
    body: Vec<u8>,
    /// Where its last line begins.
    last_line: usize,
    pub(super) lines: u64,
    pub(super) end: End,
}

/// The last line of a page.
#[derive(Debug, Deserialize)]
pub(super) struct End {
    pub(super) next: String,
    pub(super) complete: bool,
    #[serde(default)]
    pub(super) remaining: u64,
}

/// The content of a page and what its last line says. A page is whole when its last line is whole and says what it must.
pub(super) fn split<E: DeserializeOwned>(body: &[u8]) -> Result<(&[u8], E), LinkError> {
    let text = body.strip_suffix(b"\n").ok_or_else(|| cut("its last line has no end"))?;
    let last_line = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (content, end) = text.split_at(last_line);
    let end = serde_json::from_slice(end).map_err(|_| cut("its last line does not say where it ends"))?;
    Ok((content, end))
}

fn cut(why: &str) -> LinkError {
    LinkError::Page(why.to_owned())
}

impl Page {
    pub(super) fn read(body: Vec<u8>) -> Result<Self, LinkError> {
        let (content, end) = split::<End>(&body)?;
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        if end.next.is_empty() || end.next.len() > 200 || !end.next.chars().all(harmless) {
            return Err(cut("its cursor is not a word"));
        }
        let (last_line, lines) = (content.len(), content.iter().filter(|byte| **byte == b'\n').count() as u64);
        Ok(Self { body, last_line, lines, end })
    }

    pub(super) fn content(&self) -> &[u8] {
        self.body.get(..self.last_line).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_cut_anywhere_is_not_a_page() {
        let whole = b"{\"seq\":1}\n{\"seq\":2}\n{\"next\":\"abc\",\"complete\":true,\"remaining\":0}\n";
        let page = Page::read(whole.to_vec()).expect("whole");
        assert_eq!((page.lines, page.content()), (2, &whole[..20]));
        assert_eq!((page.end.next.as_str(), page.end.complete), ("abc", true));
        for length in 0..whole.len() {
            assert!(Page::read(whole[..length].to_vec()).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_cursor_that_would_change_the_request_is_refused() {
        for cursor in ["", "a b", "a&limit=1", "a\\r\\nHost: x", "é"] {
            let body = format!("{{\"next\":\"{cursor}\",\"complete\":true}}\n");
            assert!(Page::read(body.into_bytes()).is_err(), "{cursor}");
        }
    }
}
