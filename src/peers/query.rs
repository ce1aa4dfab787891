//! The query of `/v1/observations`, from text to checked values.

use std::{collections::HashMap, time::Duration};

use super::{cursor::Cursor, page::Format, refusal::Refusal};

const KEYS: &[&str] = &["after", "limit", "wait", "format", "from", "to", "continue", "order", "before"];
/// Readings a page holds unless asked otherwise, and at most.
const USUAL_LIMIT: usize = 5_000;
const LARGEST_LIMIT: usize = 20_000;
/// Longest a poll waits for news.
const LONGEST_WAIT: u64 = 60;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) what: Asked,
    /// At most so many entries.
    pub(crate) limit: usize,
    pub(crate) format: Format,
}

/// Which readings are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// What comes after a cursor (from the oldest without one), waiting so long for news when there is none.
    After { cursor: Option<Cursor>, wait: Duration },
    /// A range once more; no cursor moves.
    Again(Range),
    /// The newest reading of each point, below a number; no cursor moves.
    Newest { before: u64 },
}

/// Bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// By number.
    Numbers { from: u64, to: u64 },
    /// By wall time in milliseconds since 1970, from number `resume` on.
    Times { from_ms: i64, to_ms: i64, resume: Option<u64> },
}

#[derive(Clone, Copy)]
enum Bound {
    Number(u64),
    Time(i64),
}

impl Query {
    /// Reads the decoded pairs of a query.
    pub(crate) fn read(pairs: &HashMap<String, String>) -> Result<Self, Refusal> {
        if let Some(unknown) = pairs.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let shown: String = unknown.chars().take(40).collect();
            return Err(Refusal::query(format!("`{}` is not one of {}", shown.escape_debug(), KEYS.join(", "))));
        }
        let get = |key: &str| pairs.get(key).map(String::as_str);
        let limit = whole(get("limit"), "limit")?.unwrap_or(USUAL_LIMIT as u64);
        if limit == 0 {
            return Err(Refusal::query("`limit` must be 1 at least"));
        }
        let format = match get("format") {
            None | Some("rows") => Format::Rows,
            Some("columns") => Format::Columns,
            Some(_) => return Err(Refusal::query("`format` must be rows or columns")),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(LARGEST_LIMIT);
        Ok(Self { what: Asked::read(&get)?, limit, format })
    }
}

impl Asked {
    fn read<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<Self, Refusal> {
        if let Some(newest) = Self::newest(get)? {
            return Ok(newest);
        }
        let range = (bound(get("from"), "from")?, bound(get("to"), "to")?);
        let resume = whole(get("continue"), "continue")?;
        if let (None, None) = range {
            if resume.is_some() {
                return Err(Refusal::query("`continue` goes on with a range: give its `from` or `to` too"));
            }
            let wait = whole(get("wait"), "wait")?.unwrap_or(0).min(LONGEST_WAIT);
            let cursor = get("after").map(Cursor::decode).transpose();
            let cursor = cursor.map_err(|wrong| Refusal::query(format!("`after` is {wrong}")))?;
            return Ok(Self::After { cursor, wait: Duration::from_secs(wait) });
        }
        if get("after").is_some() || get("wait").is_some() {
            return Err(Refusal::query("a range (`from`, `to`) goes without `after` and `wait`"));
        }
        Range::new(range, resume).map(Self::Again)
    }

    /// `order=newest`, which goes with none of the other ways.
    fn newest<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Refusal> {
        let before = whole(get("before"), "before")?;
        match get("order") {
            None if before.is_some() => Err(Refusal::query("`before` goes on with `order=newest`")),
            None | Some("seq") => Ok(None),
            Some("newest") if ["after", "wait", "from", "to", "continue"].iter().any(|key| get(key).is_some()) => {
                Err(Refusal::query("`order=newest` goes with `before`, `limit` and `format` only"))
            }
            Some("newest") => Ok(Some(Self::Newest { before: before.unwrap_or(u64::MAX) })),
            Some(_) => Err(Refusal::query("`order` must be seq or newest")),
        }
    }
}

impl Range {
    fn new(bounds: (Option<Bound>, Option<Bound>), resume: Option<u64>) -> Result<Self, Refusal> {
        use Bound::{Number, Time};
        let range = match bounds {
            (Some(Number(from)), None) => Self::Numbers { from, to: u64::MAX },
            (None, Some(Number(to))) => Self::Numbers { from: 0, to },
            (Some(Number(from)), Some(Number(to))) => Self::Numbers { from, to },
            (Some(Time(from_ms)), None) => Self::Times { from_ms, to_ms: i64::MAX, resume },
            (None, Some(Time(to_ms))) => Self::Times { from_ms: i64::MIN, to_ms, resume },
            (Some(Time(from_ms)), Some(Time(to_ms))) => Self::Times { from_ms, to_ms, resume },
            _ => return Err(Refusal::query("`from` and `to` must both be numbers, or both be times")),
        };
        let (backwards, range) = match range {
            Self::Numbers { from, to } => {
                let from = resume.map_or(from, |resume| from.max(resume));
                (from > to, Self::Numbers { from, to })
            }
            Self::Times { from_ms, to_ms, .. } => (from_ms > to_ms, range),
        };
        if backwards {
            return Err(Refusal::query("`from` is after `to`"));
        }
        Ok(range)
    }
}

fn whole(text: Option<&str>, name: &str) -> Result<Option<u64>, Refusal> {
    let wrong = |_| Refusal::query(format!("`{name}` must be a whole number"));
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

/// A number of a reading, or an RFC 3339 time.
fn bound(text: Option<&str>, name: &str) -> Result<Option<Bound>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(number) = text.parse() {
        return Ok(Some(Bound::Number(number)));
    }
    // A plus sign that was not escaped has become a space on the way.
    let time = text.replace(' ', "+").parse::<jiff::Timestamp>();
    let time = time.map_err(|_| {
        Refusal::query(format!("`{name}` must be the number of a reading, or a time such as 2026-03-01T00:00:00Z"))
    })?;
    Ok(Some(Bound::Time(time.as_millisecond())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Query, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Query::read(&pairs).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn what_is_not_said_has_its_usual_value_and_what_is_too_much_is_cut() {
        let usual = read(&[]).expect("a query");
        assert_eq!(usual.what, Asked::After { cursor: None, wait: Duration::ZERO });
        assert_eq!((usual.limit, usual.format), (USUAL_LIMIT, Format::Rows));
        let much = read(&[("limit", "18446744073709551615"), ("wait", "100000"), ("format", "columns")]).expect("read");
        assert_eq!(much.what, Asked::After { cursor: None, wait: Duration::from_secs(60) });
        assert_eq!((much.limit, much.format), (LARGEST_LIMIT, Format::Columns));
    }

    #[test]
    fn a_range_is_of_numbers_or_of_times() {
        let of = |pairs: &[(&str, &str)]| read(pairs).map(|query| query.what);
        assert_eq!(of(&[("from", "5"), ("to", "9")]), Ok(Asked::Again(Range::Numbers { from: 5, to: 9 })));
        assert_eq!(
            of(&[("from", "5"), ("to", "9"), ("continue", "7")]),
            Ok(Asked::Again(Range::Numbers { from: 7, to: 9 }))
        );
        let times = Range::Times { from_ms: 0, to_ms: 3_600_000, resume: Some(3) };
        let (from, to) = (("from", "1970-01-01T00:00:00Z"), ("to", "1970-01-01T02:00:00 01:00"));
        assert_eq!(of(&[from, to, ("continue", "3")]), Ok(Asked::Again(times)));
    }

    #[test]
    fn the_newest_is_asked_for_by_itself() {
        let of = |pairs: &[(&str, &str)]| read(pairs).map(|query| query.what);
        assert_eq!(of(&[("order", "newest")]), Ok(Asked::Newest { before: u64::MAX }));
        assert_eq!(of(&[("order", "newest"), ("before", "7")]), Ok(Asked::Newest { before: 7 }));
        assert_eq!(of(&[("order", "seq")]), Ok(Asked::After { cursor: None, wait: Duration::ZERO }));
    }

    #[test]
    fn a_query_that_makes_no_sense_is_refused_and_says_why() {
        let wrong: &[(&[(&str, &str)], &str)] = &[
            (&[("afer", "x")], "`afer` is not one of"),
            (&[("after", "x")], "not a cursor"),
            (&[("limit", "0")], "1 at least"),
            (&[("limit", "-1")], "whole number"),
            (&[("wait", "soon")], "whole number"),
            (&[("format", "xml")], "rows or columns"),
            (&[("from", "9"), ("to", "5")], "after `to`"),
            (&[("from", "9"), ("to", "2026-03-01T00:00:00Z")], "both be"),
            (&[("from", "yesterday")], "such as"),
            (&[("from", "1"), ("wait", "5")], "goes without"),
            (&[("continue", "1")], "goes on with a range"),
            (&[("order", "oldest")], "seq or newest"),
            (&[("order", "newest"), ("wait", "5")], "`before`, `limit` and `format` only"),
            (&[("order", "newest"), ("from", "5")], "`before`, `limit` and `format` only"),
            (&[("before", "5")], "goes on with `order=newest`"),
            (&[("order", "newest"), ("before", "x")], "whole number"),
        ];
        for (pairs, why) in wrong {
            let told = read(pairs).expect_err("refused");
            assert!(told.contains(why), "{pairs:?}: {told}");
        }
    }
}
