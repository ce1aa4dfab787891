//! A typed French text as a voice should read it: hours, titles, dates and abbreviations in full words.
//!
//! Pure, and careful: what is not recognised for certain is left as it is.

/// Abbreviations that stand for the same words wherever they are. Looked up without regard to the sentence's marks.
const ABBREVIATIONS: &[(&str, &str)] = &[
    ("M.", "Monsieur"),
    ("MM.", "Messieurs"),
    ("Mr", "Monsieur"),
    ("Mme", "Madame"),
    ("Mmes", "Mesdames"),
    ("Mlle", "Mademoiselle"),
    ("Dr", "Docteur"),
    ("Dr.", "Docteur"),
    ("St", "Saint"),
    ("Ste", "Sainte"),
    ("av.", "avenue"),
    ("Av.", "Avenue"),
    ("bd", "boulevard"),
    ("Bd", "Boulevard"),
    ("Bd.", "Boulevard"),
    ("pl.", "place"),
    ("tél.", "téléphone"),
    ("Tél.", "Téléphone"),
    ("n°", "numéro"),
    ("N°", "Numéro"),
    ("RDV", "rendez-vous"),
    ("rdv", "rendez-vous"),
    ("SVP", "s'il vous plaît"),
    ("svp", "s'il vous plaît"),
    ("svp.", "s'il vous plaît."),
    ("&", "et"),
    ("1er", "premier"),
    ("1ère", "première"),
    ("1re", "première"),
    ("km/h", "kilomètres à l'heure"),
    ("km", "kilomètres"),
    ("kg", "kilos"),
    ("m²", "mètres carrés"),
    ("m³", "mètres cubes"),
    ("m3", "mètres cubes"),
    ("°C", "degrés"),
    ("€", "euros"),
];

/// Units glued to their number: `25€`, `30°C`.
const GLUED: &[(&str, &str)] =
    &[("km/h", "kilomètres à l'heure"), ("km", "kilomètres"), ("kg", "kilos"), ("°C", "degrés"), ("€", "euros")];

const MONTHS: [&str; 12] = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
];

/// The text in words a voice reads well, on one line.
pub(crate) fn spoken(text: &str) -> String {
    // `[[` begins phonemes for espeak-ng: nothing a person means to say.
    let plain: String = text.chars().map(|c| if c.is_control() || matches!(c, '[' | ']') { ' ' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let mut said = Vec::with_capacity(words.len());
    let mut rest = words.as_slice();
    while let Some((word, others)) = rest.split_first() {
        let (text, taken) = hour_in_words(rest).unwrap_or_else(|| (one(word, others.first().copied()), 1));
        said.push(text);
        rest = rest.get(taken..).unwrap_or_default();
    }
    said.join(" ")
}

/// One word, its opening and closing marks kept around.
fn one(word: &str, next: Option<&str>) -> String {
    if let Some(whole) = abbreviation(word, next) {
        return whole.to_owned();
    }
    let (before, core, after) = unwrapped(word);
    let read = abbreviation(core, next)
        .map(ToOwned::to_owned)
        .or_else(|| hour(core))
        .or_else(|| clock(core))
        .or_else(|| from_to(core))
        .or_else(|| date(core))
        .or_else(|| telephone(core))
        .or_else(|| saint(core))
        .or_else(|| elided(core))
        .or_else(|| numbered(core))
        .or_else(|| glued(core));
    read.map_or_else(|| word.to_owned(), |read| format!("{before}{read}{after}"))
}

fn abbreviation(word: &str, next: Option<&str>) -> Option<&'static str> {
    let (_, whole) = ABBREVIATIONS.iter().find(|(short, _)| *short == word)?;
    // "M." may also end a sentence or be an initial: a title is followed by a name or an office.
    let is_title = matches!(word, "M." | "MM." | "Mr" | "Dr" | "Dr.");
    let names = next.is_some_and(|next| {
        next.chars().next().is_some_and(char::is_uppercase) || matches!(next, "le" | "la" | "les" | "de" | "et")
    });
    (!is_title || names).then_some(whole)
}

/// Opening marks, the word, closing marks.
fn unwrapped(word: &str) -> (&str, &str, &str) {
    let open = |c: char| matches!(c, '(' | '«' | '"' | '“');
    let close = |c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | '»' | '"' | '”' | '…');
    let tail = word.trim_start_matches(open);
    let core = tail.trim_end_matches(close);
    let before = word.get(..word.len() - tail.len()).unwrap_or_default();
    (before, core, tail.get(core.len()..).unwrap_or_default())
}

fn number(text: &str, most: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= most)
}

/// `15h30`, `8h`, `8H05`.
fn hour(word: &str) -> Option<String> {
    let (hours, minutes) = word.split_once(['h', 'H'])?;
    hours_and_minutes(hours, minutes)
}

/// `15:30`.
fn clock(word: &str) -> Option<String> {
    let (hours, minutes) = word.split_once(':')?;
    (minutes.len() == 2).then(|| hours_and_minutes(hours, minutes))?
}

/// `8h30-12h`.
fn from_to(word: &str) -> Option<String> {
    let (from, to) = word.split_once(['-', '–'])?;
    Some(format!("{} à {}", hour(from)?, hour(to)?))
}

/// `15 h 30`, `15 h`: two or three words.
fn hour_in_words(words: &[&str]) -> Option<(String, usize)> {
    let [hours, letter, rest @ ..] = words else { return None };
    let (before, hours, none) = unwrapped(hours);
    let (_, h, after) = unwrapped(letter);
    if h != "h" || !none.is_empty() {
        return None;
    }
    if after.is_empty()
        && let Some((_, minutes, after)) = rest.first().map(|word| unwrapped(word))
        && minutes.len() == 2
        && let Some(read) = hours_and_minutes(hours, minutes)
    {
        return Some((format!("{before}{read}{after}"), 3));
    }
    Some((format!("{before}{}{after}", hours_and_minutes(hours, "")?), 2))
}

fn hours_and_minutes(hours: &str, minutes: &str) -> Option<String> {
    let hours = number(hours, 24)?;
    let unit = if hours < 2 { "heure" } else { "heures" };
    if minutes.is_empty() {
        return Some(format!("{hours} {unit}"));
    }
    if minutes.len() != 2 {
        return None;
    }
    match number(minutes, 59)? {
        0 => Some(format!("{hours} {unit}")),
        minutes => Some(format!("{hours} {unit} {minutes}")),
    }
}

/// `12/05/2026`, `12/05`.
fn date(word: &str) -> Option<String> {
    let mut parts = word.split('/');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next());
    // Without a year and two digits each, 1/2 is a half.
    let sure = day.len() == 2 && month.len() == 2 || year.is_some_and(|year| year.len() == 4);
    if !sure || parts.next().is_some() {
        return None;
    }
    let day = number(day, 31).filter(|day| *day > 0)?;
    let month = MONTHS.get(number(month, 12)?.checked_sub(1)? as usize)?;
    let day = if day == 1 { "premier".to_owned() } else { day.to_string() };
    match year {
        Some(year) => Some(format!("{day} {month} {}", number(year, 9_999)?)),
        None => Some(format!("{day} {month}")),
    }
}

/// Ten digits in pairs: `0468780000`, `04.68.78.00.00`.
fn telephone(word: &str) -> Option<String> {
    let digits: String = word.chars().filter(|c| !matches!(c, '.' | '-')).collect();
    let sound = digits.len() == 10 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let pairs: Vec<&str> = (0..10).step_by(2).filter_map(|n| digits.get(n..n + 2)).collect();
    sound.then(|| pairs.join(" "))
}

/// `St-Martin`, `Ste-Anne`.
fn saint(word: &str) -> Option<String> {
    let (short, name) = word.split_once('-')?;
    let whole = match short {
        "St" => "Saint",
        "Ste" => "Sainte",
        _ => return None,
    };
    Some(format!("{whole}-{name}"))
}

/// `d'1h30`: what follows the apostrophe is read as a word of its own.
fn elided(word: &str) -> Option<String> {
    let (article, rest) = word.split_once(['\'', '’'])?;
    let read = hour(rest).or_else(|| date(rest)).or_else(|| numbered(rest))?;
    Some(format!("{article}'{read}"))
}

/// `n°12`.
fn numbered(word: &str) -> Option<String> {
    let rest = word.strip_prefix("n°").or_else(|| word.strip_prefix("N°"))?;
    (!rest.is_empty()).then(|| format!("numéro {rest}"))
}

/// `25€`, `30km/h`.
fn glued(word: &str) -> Option<String> {
    let (unit, whole) = GLUED.iter().find(|(unit, _)| word.ends_with(unit))?;
    let amount = word.strip_suffix(unit)?;
    let sound = amount.starts_with(|c: char| c.is_ascii_digit())
        && amount.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.'));
    let whole = if *unit == "€" && amount == "1" { "euro" } else { whole };
    sound.then(|| format!("{amount} {whole}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_people_say_them() {
        for (typed, said) in [
            ("à 15h30.", "à 15 heures 30."),
            ("à 15 h 30, place", "à 15 heures 30, place"),
            ("de 8h à 12h", "de 8 heures à 12 heures"),
            ("(8H05)", "(8 heures 5)"),
            ("à 1h", "à 1 heure"),
            ("à 18 h.", "à 18 heures."),
            ("à 14:00", "à 14 heures"),
            ("dès 9h00 !", "dès 9 heures !"),
            ("mairie : 8h30-12h", "mairie : 8 heures 30 à 12 heures"),
        ] {
            assert_eq!(spoken(typed), said);
        }
    }

    #[test]
    fn titles_are_said_in_full_and_initials_left_alone() {
        assert_eq!(spoken("M. le Maire et Mme Durand"), "Monsieur le Maire et Madame Durand");
        assert_eq!(spoken("MM. Petit et Grand, Mlle Anne"), "Messieurs Petit et Grand, Mademoiselle Anne");
        assert_eq!(spoken("le plan M. est clos"), "le plan M. est clos");
        assert_eq!(spoken("le Dr Martin"), "le Docteur Martin");
    }

    #[test]
    fn places_numbers_and_units_are_said_in_full() {
        for (typed, said) in [
            ("av. de la Gare, n° 12 & bd St-Martin", "avenue de la Gare, numéro 12 et boulevard Saint-Martin"),
            ("au n°5", "au numéro 5"),
            ("Ste Anne", "Sainte Anne"),
            ("vent à 90km/h, 38°C, 25€, 1€", "vent à 90 kilomètres à l'heure, 38 degrés, 25 euros, 1 euro"),
            ("le 1er mai", "le premier mai"),
            ("RDV svp", "rendez-vous s'il vous plaît"),
        ] {
            assert_eq!(spoken(typed), said);
        }
    }

    #[test]
    fn dates_and_telephone_numbers_are_read_in_their_parts() {
        for (typed, said) in [
            ("le 12/05/2026", "le 12 mai 2026"),
            ("du 01/07 au 03/07.", "du premier juillet au 3 juillet."),
            ("un 1/2 litre", "un 1/2 litre"),
            ("le 31/13", "le 31/13"),
            ("appeler le 0468780000", "appeler le 04 68 78 00 00"),
            ("04.68.78.00.00", "04 68 78 00 00"),
        ] {
            assert_eq!(spoken(typed), said);
        }
    }

    #[test]
    fn what_is_not_recognised_is_left_as_it_was_typed() {
        for text in ["Bonjour à tous.", "la R25h", "25h30", "7h75", "hier", "le 4x4", "3h2o", "ch", "h", "M.", "€"] {
            let said = spoken(text);
            assert!(said == text || text == "€", "{text} became {said}");
        }
    }

    #[test]
    fn no_text_becomes_a_command_of_the_voice_or_a_second_line() {
        assert_eq!(spoken("a\nb\u{1b}[[k@t]]\t c\0"), "a b k@t c");
    }

    #[test]
    fn any_mixture_of_marks_is_read_without_falling() {
        for text in ["", " ", "«»", "(", "'", "’h", "h30", "/", "//", "1//", ":", "n°", "°C", "d’1h30", "é'h", "🦀h30"]
        {
            let _ = spoken(text);
        }
        assert_eq!(spoken("moins d’1h30"), "moins d'1 heure 30");
    }
}
