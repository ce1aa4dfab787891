//! The query of `/v1/observations`, from text to checked values.

use std::{collections::HashMap, time::Duration};

use super::{
    cursor::Cursor,
    page::Format,
    refusal::Refusal,
    resource::{AFTER, BEFORE, CONTINUE, FORMAT, FROM, Form, LIMIT, NEWEST, ORDER, Parameter, TO, WAIT},
};

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
    /// Reads the decoded pairs of a query, which hold no key but those of the resource. `accepted` is the form that the
    /// client's Accept asks for.
    pub(crate) fn read(pairs: &HashMap<String, String>, accepted: Format) -> Result<Self, Refusal> {
        let get = |parameter: &Parameter| pairs.get(parameter.name).map(String::as_str);
        let limit = usize::try_from(whole(&get, &LIMIT)?.unwrap_or(1)).unwrap_or(usize::MAX);
        let format = word(&get, &FORMAT)?.and_then(Format::named).unwrap_or(accepted);
        Ok(Self { what: Asked::read(&get)?, limit, format })
    }
}

impl Asked {
    fn read<'a>(get: &impl Fn(&Parameter) -> Option<&'a str>) -> Result<Self, Refusal> {
        let range = (bound(get, &FROM)?, bound(get, &TO)?);
        let resume = whole(get, &CONTINUE)?;
        let wait = whole(get, &WAIT)?.unwrap_or(0);
        if let Some(newest) = Self::newest(get)? {
            return Ok(newest);
        }
        if let (None, None) = range {
            if resume.is_some() {
                return Err(Refusal::contradiction("`continue` goes on with a range: give its `from` or `to` too"));
            }
            let cursor = get(&AFTER).map(cursor).transpose()?;
            return Ok(Self::After { cursor, wait: Duration::from_secs(wait) });
        }
        if get(&AFTER).is_some() || get(&WAIT).is_some() {
            return Err(Refusal::contradiction("a range (`from`, `to`) goes without `after` and `wait`"));
        }
        Range::new(range, resume).map(Self::Again)
    }

    /// `order=newest`, which goes with none of the other ways.
    fn newest<'a>(get: &impl Fn(&Parameter) -> Option<&'a str>) -> Result<Option<Self>, Refusal> {
        let before = whole(get, &BEFORE)?;
        if word(get, &ORDER)? != Some(NEWEST) {
            return match before {
                Some(_) => Err(Refusal::contradiction("`before` goes on with `order=newest`")),
                None => Ok(None),
            };
        }
        if [AFTER, WAIT, FROM, TO, CONTINUE].iter().any(|other| get(other).is_some()) {
            return Err(Refusal::contradiction("`order=newest` goes with `before`, `limit` and `format` only"));
        }
        Ok(Some(Self::Newest { before: before.unwrap_or(u64::MAX) }))
    }
}

impl Range {
    /// The same range, from number `resume` on, as the next request would say.
    #[cfg(test)]
    pub(crate) fn resumed(self, resume: u64) -> Self {
        match self {
            Self::Numbers { from, to } => Self::Numbers { from: from.max(resume), to },
            Self::Times { from_ms, to_ms, .. } => Self::Times { from_ms, to_ms, resume: Some(resume) },
        }
    }

    fn new(bounds: (Option<Bound>, Option<Bound>), resume: Option<u64>) -> Result<Self, Refusal> {
        use Bound::{Number, Time};
        let range = match bounds {
            (Some(Number(from)), None) => Self::Numbers { from, to: u64::MAX },
            (None, Some(Number(to))) => Self::Numbers { from: 0, to },
            (Some(Number(from)), Some(Number(to))) => Self::Numbers { from, to },
            (Some(Time(from_ms)), None) => Self::Times { from_ms, to_ms: i64::MAX, resume },
            (None, Some(Time(to_ms))) => Self::Times { from_ms: i64::MIN, to_ms, resume },
            (Some(Time(from_ms)), Some(Time(to_ms))) => Self::Times { from_ms, to_ms, resume },
            _ => return Err(Refusal::contradiction("`from` and `to` must both be numbers, or both be times")),
        };
        let (backwards, range) = match range {
            Self::Numbers { from, to } => {
                let from = resume.map_or(from, |resume| from.max(resume));
                (from > to, Self::Numbers { from, to })
            }
            Self::Times { from_ms, to_ms, .. } => (from_ms > to_ms, range),
        };
        if backwards {
            return Err(Refusal::contradiction("`from` is after `to`"));
        }
        Ok(range)
    }
}

/// Digits within the parameter's bounds, or its usual value. What is more than the most is the most.
fn whole<'a>(get: &impl Fn(&Parameter) -> Option<&'a str>, parameter: &Parameter) -> Result<Option<u64>, Refusal> {
    let Form::Whole { least, usual, most } = parameter.form else { return Ok(None) };
    let Some(text) = get(parameter) else { return Ok(usual) };
    match digits(text) {
        Some(number) if number >= least => Ok(Some(number.min(most))),
        _ => Err(Refusal::value(parameter.name, text, &format!("a whole number, {least} at least"))),
    }
}

/// One of the parameter's words; `None` when none is said.
fn word<'a>(get: &impl Fn(&Parameter) -> Option<&'a str>, parameter: &Parameter) -> Result<Option<&'a str>, Refusal> {
    let (Form::Word(words), Some(text)) = (parameter.form, get(parameter)) else { return Ok(None) };
    if words.contains(&text) {
        return Ok(Some(text));
    }
    Err(Refusal::value(parameter.name, text, &format!("one of {}", words.join(", "))))
}

/// A whole number without sign. One beyond 64 bits is the largest of them.
fn digits(text: &str) -> Option<u64> {
    let whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A text that cannot be a cursor is a fault of form; one that could be, but was never given, is one of sense.
fn cursor(text: &str) -> Result<Cursor, Refusal> {
    Cursor::decode(text).map_err(|wrong| {
        if Cursor::has_form(text) {
            Refusal::contradiction(format!("`{}` is {wrong}", AFTER.name))
        } else {
            Refusal::value(AFTER.name, text, "a cursor, and this is not a cursor that this API has given")
        }
    })
}

/// A number of a reading, or an RFC 3339 time.
fn bound<'a>(get: &impl Fn(&Parameter) -> Option<&'a str>, parameter: &Parameter) -> Result<Option<Bound>, Refusal> {
    let Some(text) = get(parameter) else { return Ok(None) };
    if let Some(number) = digits(text) {
        return Ok(Some(Bound::Number(number)));
    }
    // A plus sign that was not escaped has become a space on the way.
    let time = text.replace(' ', "+").parse::<jiff::Timestamp>();
    let expected = "the number of a reading, or a time such as 2026-03-01T00:00:00Z";
    let time = time.map_err(|_| Refusal::value(parameter.name, text, expected))?;
    Ok(Some(Bound::Time(time.as_millisecond())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Query, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Query::read(&pairs, Format::Rows).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn what_is_not_said_has_its_usual_value_and_what_is_too_much_is_cut() {
        let usual = read(&[]).expect("a query");
        assert_eq!(usual.what, Asked::After { cursor: None, wait: Duration::ZERO });
        assert_eq!((usual.limit, usual.format), (5_000, Format::Rows));
        let much = read(&[("limit", "18446744073709551615"), ("wait", "100000"), ("format", "columns")]).expect("read");
        assert_eq!(much.what, Asked::After { cursor: None, wait: Duration::from_secs(60) });
        assert_eq!((much.limit, much.format), (20_000, Format::Columns));
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
            (&[("after", "x")], "not a cursor"),
            (&[("limit", "0")], "1 at least"),
            (&[("limit", "-1")], "whole number"),
            (&[("limit", "+1")], "whole number"),
            (&[("limit", "")], "whole number"),
            (&[("after", "AAAAAAAAAAAAAAAAAAAAAAAAAAA")], "not a cursor"),
            (&[("wait", "soon")], "whole number"),
            (&[("format", "xml")], "one of rows, columns, senml"),
            (&[("from", "9"), ("to", "5")], "after `to`"),
            (&[("from", "9"), ("to", "2026-03-01T00:00:00Z")], "both be"),
            (&[("from", "yesterday")], "such as"),
            (&[("from", "1"), ("wait", "5")], "goes without"),
            (&[("continue", "1")], "goes on with a range"),
            (&[("order", "oldest")], "one of seq, newest"),
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
