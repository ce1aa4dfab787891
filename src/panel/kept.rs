//! What the box keeps, said so that people understand it: from when to when, how full, what is missing and why.

use jiff::Zoned;

use super::{Ground, format, language::Words, partners};
use crate::{
    clock::Stamp,
    store::{Cause, Gap, StoreFigures},
};

/// Gaps told one by one; the older ones are summed up.
const TOLD: usize = 20;

/// What is kept, in sentences.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// How many readings, since when.
    pub(crate) since: String,
    /// How much of the place they take.
    pub(crate) size: String,
    /// Of a hundred.
    pub(crate) percent: u64,
    /// What is missing, the newest first.
    pub(crate) gaps: Vec<Missing>,
    /// What older gaps come to.
    pub(crate) older: Option<String>,
    /// What people wished to be erased, all together.
    pub(crate) erased: Option<String>,
    /// What was damaged and put aside.
    pub(crate) aside: Option<String>,
    /// Its names, for the technician.
    pub(crate) aside_names: Vec<String>,
}

/// Readings that will never come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// How many, when and why.
    pub(crate) sentence: String,
    /// Whether somebody has them: then nothing is lost.
    pub(crate) is_safe: bool,
}

/// Looks at the store. Reads the card.
pub(crate) fn kept(ground: &Ground, words: &Words) -> Kept {
    let (archive, figures) = (&ground.archive, ground.archive.figures());
    let stored = stored(&figures, &archive.gaps());
    let erased: u64 = archive.gaps().iter().filter(|gap| gap.cause == Cause::Erased).map(|gap| gap.count).sum();
    let mut lost: Vec<Gap> = archive.gaps().into_iter().filter(|gap| gap.cause != Cause::Erased).collect();
    lost.sort_by_key(|gap| std::cmp::Reverse(gap.first));
    let pulled = archive.acknowledged().into_values().max().unwrap_or(0);
    let older: u64 = lost.iter().skip(TOLD).map(|gap| gap.count).sum();
    let aside = archive.set_aside();
    let bytes: u64 = aside.iter().map(|one| one.bytes).sum();
    let limit = figures.bytes_limit.max(1);
    let percent = (u128::from(figures.bytes) * 100).div_ceil(u128::from(limit)).min(100);
    Kept {
        since: since(stored, figures.first_seq, ground, words),
        size: words.say_with(
            "kept-size",
            &[
                ("size", format::bytes(figures.bytes, words).into()),
                ("limit", format::bytes(figures.bytes_limit, words).into()),
            ],
        ),
        percent: u64::try_from(percent).unwrap_or(100),
        gaps: lost.iter().take(TOLD).map(|gap| missing(gap, pulled, ground, words)).collect(),
        older: (older > 0).then(|| words.count("gaps-older", older)),
        erased: (erased > 0).then(|| words.count("gaps-erased", erased)),
        aside: (!aside.is_empty()).then(|| {
            let size = format::bytes(bytes, words);
            words.say_with("kept-aside", &[("n", (aside.len() as u64).into()), ("size", size.into())])
        }),
        aside_names: aside.into_iter().map(|one| one.name).collect(),
    }
}

/// How many readings lie between the first number and the last.
pub(crate) fn stored(figures: &StoreFigures, gaps: &[Gap]) -> u64 {
    let missing: u64 = gaps.iter().filter(|gap| gap.first >= figures.first_seq).map(|gap| gap.count).sum();
    let numbers = (figures.last_seq + 1).saturating_sub(figures.first_seq.max(1));
    numbers.saturating_sub(missing)
}

fn since(stored: u64, first: u64, ground: &Ground, words: &Words) -> String {
    let count = words.count("store-readings", stored);
    if stored == 0 {
        return words.say("kept-nothing");
    }
    let oldest = partners::taken(first, ground);
    let at = oldest.and_then(|taken| format::civil(taken, &ground.clock, &ground.time_zone));
    match at {
        Some(at) => {
            let date = format::date(at.date(), words);
            words.say_with("kept-since", &[("count", count.into()), ("date", date.into())])
        }
        None => count,
    }
}

/// `3 120 mesures perdues le samedi 21 novembre 2026 entre 12 h 05 et 14 h 32 : la carte refusait d'écrire.`
fn missing(gap: &Gap, pulled: u64, ground: &Ground, words: &Words) -> Missing {
    let is_safe = gap.cause == Cause::SizeLimit && gap.last <= pulled;
    let what = words.count(if is_safe { "gap-removed" } else { "gap-lost" }, gap.count);
    let cause = words.say(if is_safe { "gap-size-limit-received" } else { cause(gap.cause) });
    let when = when(gap, ground, words);
    Missing {
        sentence: words.say_with("gap", &[("what", what.into()), ("when", when.into()), ("cause", cause.into())]),
        is_safe,
    }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::SizeLimit => "gap-size-limit",
        Cause::Damage => "gap-damage",
        Cause::CardRefused => "gap-card-refused",
        Cause::Erased => "gap-erased",
    }
}

fn when(gap: &Gap, ground: &Ground, words: &Words) -> String {
    let civil = |stamp: Option<Stamp>| format::civil(stamp?, &ground.clock, &ground.time_zone);
    let (date, hour) = (|at: &Zoned| format::date(at.date(), words), |at: &Zoned| format::hour(at, words));
    let (from, to) = match (civil(gap.from), civil(gap.to)) {
        (Some(from), Some(to)) => (from, to),
        (Some(one), None) | (None, Some(one)) => {
            return words.say_with("gap-about", &[("date", date(&one).into()), ("hour", hour(&one).into())]);
        }
        (None, None) => return words.say("gap-unknown"),
    };
    if hour(&from) == hour(&to) && from.date() == to.date() {
        return words.say_with("gap-at", &[("date", date(&from).into()), ("hour", hour(&from).into())]);
    }
    if from.date() == to.date() {
        let (from_hour, to_hour) = (hour(&from), hour(&to));
        return words
            .say_with("gap-day", &[("date", date(&from).into()), ("from", from_hour.into()), ("to", to_hour.into())]);
    }
    words.say_with(
        "gap-days",
        &[
            ("from", date(&from).into()),
            ("from_hour", hour(&from).into()),
            ("to", date(&to).into()),
            ("to_hour", hour(&to).into()),
        ],
    )
}
