//! Numbers, units and times as people write them. Pure: data in, text out.

use jiff::{Timestamp, Zoned, civil::Date, tz::TimeZone};

use super::{
    language::{Language, Words},
    states,
};
use crate::{
    clock::{Clock, Stamp},
    reading::{Kind, Point, Quality, Why},
};

/// A number with its decimals: `1 234,5` in French (narrow no-break space, comma), `1,234.5` in English.
pub(crate) fn number(value: f64, decimals: u8, language: Language) -> String {
    let (thousand, point) = match language {
        Language::French => ('\u{202f}', ','),
        Language::English => (',', '.'),
    };
    let plain = format!("{:.*}", usize::from(decimals.min(9)), value.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut shown = String::new();
    if value < 0.0 && plain.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        shown.push('−');
    }
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            shown.push(thousand);
        }
        shown.push(digit);
    }
    if !fraction.is_empty() {
        shown.push(point);
        shown.push_str(fraction);
    }
    shown
}

/// A count.
pub(crate) fn whole(count: u64, language: Language) -> String {
    number(count as f64, 0, language)
}

/// Bytes in the unit that fits: `12,3 Mo`.
pub(crate) fn bytes(count: u64, words: &Words) -> String {
    let count = count as f64;
    let (scaled, decimals, unit) = if count < 1e6 {
        (count / 1e3, 0, words.say("bytes-kilo"))
    } else if count < 1e9 {
        (count / 1e6, 1, words.say("bytes-mega"))
    } else {
        (count / 1e9, 1, words.say("bytes-giga"))
    };
    format!("{}\u{a0}{unit}", number(scaled, decimals, words.language))
}

/// UCUM units of which people know a better name, and the message that says it. Source: <https://ucum.org/ucum>.
const UNITS: &[(&str, &str)] = &[
    ("W", "unit-watt"),
    ("kW", "unit-kilowatt"),
    ("Wh", "unit-watt-hour"),
    ("W.h", "unit-watt-hour"),
    ("kWh", "unit-kilowatt-hour"),
    ("kW.h", "unit-kilowatt-hour"),
    ("VA", "unit-volt-ampere"),
    ("V.A", "unit-volt-ampere"),
    ("kVA", "unit-kilovolt-ampere"),
    ("kV.A", "unit-kilovolt-ampere"),
    ("var", "unit-var"),
    ("V.A{reactive}", "unit-var"),
    ("V.A{reactive}.h", "unit-var-hour"),
    ("kV.A{reactive}.h", "unit-kilovar-hour"),
    ("V", "unit-volt"),
    ("A", "unit-ampere"),
    ("mA", "unit-milliampere"),
    ("Hz", "unit-hertz"),
    ("Cel", "unit-celsius"),
    ("K", "unit-kelvin"),
    ("%", "unit-percent"),
    ("[ppm]", "unit-ppm"),
    ("L", "unit-litre"),
    ("l", "unit-litre"),
    ("m3", "unit-cubic-metre"),
    ("L/h", "unit-litre-per-hour"),
    ("L/min", "unit-litre-per-minute"),
    ("m3/h", "unit-cubic-metre-per-hour"),
    ("hPa", "unit-hectopascal"),
    ("bar", "unit-bar"),
    ("lx", "unit-lux"),
    ("dB", "unit-decibel"),
    ("dB[SPL]", "unit-decibel"),
    ("ug/m3", "unit-microgram-per-cubic-metre"),
    ("s", "unit-second"),
    ("min", "unit-minute"),
    ("h", "unit-hour"),
    ("d", "unit-day"),
    ("m", "unit-metre"),
    ("mm", "unit-millimetre"),
    ("cm", "unit-centimetre"),
    ("deg", "unit-degree"),
    ("1", "unit-none"),
    ("{count}", "unit-none"),
];

/// The unit in words people know; as the configuration wrote it when we know none.
pub(crate) fn unit(ucum: &str, words: &Words) -> String {
    if let Some((_, key)) = UNITS.iter().find(|(code, _)| *code == ucum) {
        let said = words.say(key);
        return if said == "-" { String::new() } else { said };
    }
    ucum.to_owned()
}

/// A value as shown: the number, or the name of a state; and the unit beside it.
pub(crate) fn value(point: &Point, value: Option<f64>, words: &Words) -> (String, String) {
    let Some(value) = value else { return ("—".to_owned(), String::new()) };
    if let Some(name) = states::name(point, value, words) {
        return (name, String::new());
    }
    match (point.kind, point.unit.as_str()) {
        // An index is read in kWh, as on the bill, though the meter sends Wh.
        (Kind::Counter, "W.h") => (number(value / 1_000.0, 1, words.language), unit("kW.h", words)),
        _ => (number(value, point.decimals, words.language), unit(&point.unit, words)),
    }
}

/// How far a value can be trusted, in a word; nothing when it is good.
pub(crate) fn quality(quality: Quality, words: &Words) -> Option<(String, String)> {
    let why = quality.why()?;
    let word = match quality {
        Quality::Good => return None,
        Quality::Suspect(_) => words.say("quality-suspect"),
        Quality::Stale(_) => words.say("quality-stale"),
        Quality::Bad(_) => words.say("quality-bad"),
    };
    let reason = match why {
        Why::OutOfRange => words.say("why-out-of-range"),
        Why::ImplausibleStep => words.say("why-implausible-step"),
        Why::WarmingUp => words.say("why-warming-up"),
        Why::DeviceFault => words.say("why-device-fault"),
        Why::NotANumber => words.say("why-not-a-number"),
        Why::NoAnswer => words.say("why-no-answer"),
        Why::Degraded => words.say("why-degraded"),
    };
    Some((word, reason))
}

/// `à l’instant`, `il y a 12 s`. Rounded down, so that an age never runs ahead.
pub(crate) fn age(ms: u64, words: &Words) -> String {
    let seconds = ms / 1_000;
    let (key, count) = match seconds {
        0..2 => ("age-now", seconds),
        2..60 => ("age-seconds", seconds),
        60..3_600 => ("age-minutes", seconds / 60),
        3_600..172_800 => ("age-hours", seconds / 3_600),
        _ => ("age-days", seconds / 86_400),
    };
    words.say_with(key, &[("n", whole(count, words.language).into())])
}

/// `1 min 5 s`, `2 h 10 min`.
pub(crate) fn lasting(ms: u64, words: &Words) -> String {
    let seconds = ms / 1_000;
    let part = |n: u64, key: &str| format!("{n}\u{a0}{}", words.say(key));
    match seconds {
        0..60 => part(seconds, "unit-second"),
        60..3_600 if seconds.is_multiple_of(60) => part(seconds / 60, "unit-minute"),
        60..3_600 => format!("{} {}", part(seconds / 60, "unit-minute"), part(seconds % 60, "unit-second")),
        _ => format!("{} {}", part(seconds / 3_600, "unit-hour"), part(seconds / 60 % 60, "unit-minute")),
    }
}

/// `12 h 30` in French, `12:30` in English.
pub(crate) fn hour(at: &Zoned, words: &Words) -> String {
    words.say_with("hour", &[("h", at.hour().to_string().into()), ("m", format!("{:02}", at.minute()).into())])
}

/// `samedi 21 novembre 2026`.
pub(crate) fn date(date: Date, words: &Words) -> String {
    let day = if date.day() == 1 { words.say("first-of-month") } else { date.day().to_string() };
    words.say_with(
        "date",
        &[
            ("weekday", words.say(&format!("weekday-{}", date.weekday().to_monday_one_offset())).into()),
            ("day", day.into()),
            ("month", words.say(&format!("month-{}", date.month())).into()),
            ("year", date.year().to_string().into()),
        ],
    )
}

/// `novembre 2026`.
pub(crate) fn month(date: Date, words: &Words) -> String {
    format!("{} {}", words.say(&format!("month-{}", date.month())), date.year())
}

/// `lun. 16`.
pub(crate) fn short_day(date: Date, words: &Words) -> String {
    format!("{}\u{a0}{}", words.say(&format!("weekday-short-{}", date.weekday().to_monday_one_offset())), date.day())
}

/// Milliseconds since 1970 in a time zone.
pub(crate) fn zoned(unix_ms: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

/// `samedi 21 novembre 2026 à 12 h 30`; when the time was not known, it says so.
pub(crate) fn moment(stamp: Stamp, clock: &Clock, zone: &TimeZone, words: &Words) -> String {
    let Some(wall) = clock.resolve(stamp).filter(|wall| wall.source.is_trusted()) else {
        return match ago_ms(stamp, clock) {
            Some(ms) => age(ms, words),
            None => words.say("date-unknown"),
        };
    };
    let at = zoned(wall.unix_ms, zone);
    words.say_with("moment", &[("date", date(at.date(), words).into()), ("hour", hour(&at, words).into())])
}

/// The civil date and time of a stamp, when the time was known.
pub(crate) fn civil(stamp: Stamp, clock: &Clock, zone: &TimeZone) -> Option<Zoned> {
    let wall = clock.resolve(stamp).filter(|wall| wall.source.is_trusted())?;
    Some(zoned(wall.unix_ms, zone))
}

/// For `<time datetime>`: RFC 3339, nothing when the time was not known.
pub(crate) fn machine_time(stamp: Stamp, clock: &Clock) -> String {
    let known = clock.resolve(stamp).filter(|wall| wall.source.is_trusted());
    known.and_then(|wall| Timestamp::from_millisecond(wall.unix_ms).ok()).map_or_else(String::new, |t| t.to_string())
}

/// How long ago, by the monotonic clock of this start, or by trusted wall times across starts.
pub(crate) fn ago_ms(stamp: Stamp, clock: &Clock) -> Option<u64> {
    let now = clock.now();
    if stamp.boot == now.boot {
        return Some(now.mono_ms.saturating_sub(stamp.mono_ms));
    }
    let then = clock.resolve(stamp).filter(|wall| wall.source.is_trusted())?;
    let now = clock.resolve(now).filter(|wall| wall.source.is_trusted())?;
    u64::try_from(now.unix_ms - then.unix_ms).ok()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date as civil;

    use super::*;
    use crate::{clock::HeldTime, clock::Source, panel::language::Languages};

    fn words(language: Language) -> Words {
        Languages::read().of(language)
    }

    #[test]
    fn numbers_are_written_as_in_the_language() {
        assert_eq!(number(1_234.5, 1, Language::French), "1\u{202f}234,5");
        assert_eq!(number(-1_234_567.0, 0, Language::French), "−1\u{202f}234\u{202f}567");
        assert_eq!(number(1_234.5, 1, Language::English), "1,234.5");
        assert_eq!(number(-0.04, 1, Language::French), "0,0", "no minus before nothing");
        assert_eq!(number(999.0, 0, Language::French), "999");
    }

    #[test]
    fn dates_and_hours_are_written_as_in_the_language() {
        let at = civil(2026, 11, 21).at(12, 5, 0, 0).to_zoned(TimeZone::UTC).expect("a time");
        assert_eq!(date(at.date(), &words(Language::French)), "samedi 21 novembre 2026");
        assert_eq!(date(civil(2027, 1, 1), &words(Language::French)), "vendredi 1er janvier 2027");
        assert_eq!(date(at.date(), &words(Language::English)), "Saturday 21 November 2026");
        assert_eq!(hour(&at, &words(Language::French)), "12\u{a0}h\u{a0}05");
        assert_eq!(hour(&at, &words(Language::English)), "12:05");
    }

    #[test]
    fn ages_are_told_in_the_unit_people_would_use() {
        let words = words(Language::French);
        let said = |s: u64| age(s * 1_000, &words).replace('\u{a0}', " ");
        assert_eq!(
            [said(1), said(12), said(59), said(60), said(3_599), said(7_200), said(200_000)],
            ["à l’instant", "il y a 12 s", "il y a 59 s", "il y a 1 min", "il y a 59 min", "il y a 2 h", "il y a 2 j"]
        );
    }

    #[test]
    fn a_moment_before_the_time_was_known_is_told_by_its_age() {
        let time = HeldTime::at(0, Source::Unknown);
        let clock = Clock::new(2, time.clone(), []);
        clock.observe();
        let then = clock.now();
        time.advance(65_000);
        let words = words(Language::French);
        assert_eq!(moment(then, &clock, &TimeZone::UTC, &words), "il y a 1\u{a0}min");
        assert_eq!(moment(Stamp { boot: 1, mono_ms: 0 }, &clock, &TimeZone::UTC, &words), "date inconnue");
        assert_eq!(machine_time(then, &clock), "");
    }

    #[test]
    fn an_index_in_watt_hours_is_shown_in_kilowatt_hours() {
        let point = Point {
            id: "electricity/hall/index".parse().expect("a name"),
            label: "Index".into(),
            unit: "W.h".into(),
            kind: Kind::Counter,
            decimals: 0,
            interval: None,
            range: None,
            sharing: crate::reading::Sharing::Internal,
        };
        let shown = value(&point, Some(7_654_321.0), &words(Language::French));
        assert_eq!(shown, ("7\u{202f}654,3".to_owned(), "kWh".to_owned()));
        let power = Point { kind: Kind::Gauge, unit: "W".into(), ..point };
        assert_eq!(value(&power, Some(1_200.0), &words(Language::French)).1, "W");
    }

    #[test]
    fn every_unit_has_its_word_in_each_language() {
        for language in Language::ALL {
            for (_, key) in UNITS {
                assert!(words(language).has(key), "{key}");
            }
            for name in (1..=7).map(|n| format!("weekday-{n}")).chain((1..=12).map(|n| format!("month-{n}"))) {
                assert!(words(language).has(&name), "{name}");
            }
        }
        assert_eq!(unit("[furlong]", &words(Language::French)), "[furlong]");
    }
}
