//! Links to other answers (RFC 8288), relative to this one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use super::{
    page::Format,
    resource::{FORMAT, FROM, NDJSON, TO},
};

const PATH: &str = "/v1/observations";

/// The same request with one parameter more, or another value of it.
pub(super) fn next<'a>(asked: &'a HashMap<String, String>, name: &'a str, value: &'a str) -> String {
    let mut pairs = sorted(asked);
    pairs.insert(name, value);
    format!("<{PATH}?{}>; rel=\"next\"", query(pairs))
}

/// Readings by number, as rows.
pub(super) fn rows(from: u64, to: u64) -> String {
    let (from, to) = (from.to_string(), to.to_string());
    let pairs = BTreeMap::from([(FROM.name, from.as_str()), (TO.name, &to), (FORMAT.name, Format::Rows.word())]);
    format!("<{PATH}?{}>; rel=\"alternate\"; type=\"{NDJSON}\"", query(pairs))
}

/// The same request, as rows.
pub(super) fn as_rows(asked: &HashMap<String, String>) -> String {
    let mut pairs = sorted(asked);
    pairs.insert(FORMAT.name, Format::Rows.word());
    format!("<{PATH}?{}>; rel=\"alternate\"; type=\"{NDJSON}\"", query(pairs))
}

fn sorted(asked: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    asked.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn query(pairs: BTreeMap<&str, &str>) -> String {
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    pairs.join("&")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_request_says_all_that_this_one_did() {
        let asked = [("limit", "5"), ("from", "2026-06-01T12:00:00+02:00"), ("continue", "3")];
        let asked = asked.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let expected = "</v1/observations?continue=9&from=2026-06-01T12:00:00%2B02:00&limit=5>; rel=\"next\"";
        assert_eq!(next(&asked, "continue", "9"), expected);
    }
}
