//! What the operator is told of the file, in English and in French. Both are made at once, so that nobody can write one
//! and forget the other: a fault takes [`Words`], and a plain text is none.

use std::fmt;

use crate::{config::filter::NotAFilter, reading::NotAPointId};

/// A language faults are told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// For whoever says nothing else.
    #[default]
    English,
    /// For the technician.
    French,
}

impl Language {
    /// What the environment asks for: the first of `LC_ALL`, `LC_MESSAGES` and `LANG` that is set decides.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let names = ["LC_ALL", "LC_MESSAGES", "LANG"];
        let asked = names.into_iter().filter_map(variable).find(|value| !value.is_empty());
        asked.as_deref().and_then(Self::from_tag).unwrap_or_default()
    }

    /// By a tag such as `fr` or `fr_FR.UTF-8`; `None` for a language we do not speak.
    pub fn from_tag(tag: &str) -> Option<Self> {
        match tag.split(['_', '-', '.', '@']).next() {
            Some("fr") => Some(Self::French),
            Some("en" | "C" | "POSIX") => Some(Self::English),
            _ => None,
        }
    }
}

/// A text that never changes: in English, then in French.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Both(pub &'static str, pub &'static str);

impl Both {
    /// The text in a language.
    pub fn to(self, language: Language) -> &'static str {
        match language {
            Language::English => self.0,
            Language::French => self.1,
        }
    }
}

/// The log and the manual are in English.
impl fmt::Display for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A text with values in it, in both languages; `words!` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// For the log.
    pub english: String,
    /// For the technician.
    pub french: String,
}

impl Words {
    /// The text in a language.
    pub fn to(&self, language: Language) -> &str {
        match language {
            Language::English => &self.english,
            Language::French => &self.french,
        }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}

impl From<Both> for Words {
    fn from(Both(english, french): Both) -> Self {
        Self { english: english.to_owned(), french: french.to_owned() }
    }
}

/// The same text in English, then in French; values are named in the braces.
macro_rules! words {
    ($english:literal, $french:literal $(,)?) => {
        $crate::config::Words { english: format!($english), french: format!($french) }
    };
}
pub(crate) use words;

impl From<NotAPointId> for Words {
    fn from(wrong: NotAPointId) -> Self {
        words!("{wrong}", "ce nom ne convient pas ; attendu : minuscules sans accent, chiffres, - et _, entre des /")
    }
}

impl From<NotAFilter> for Words {
    fn from(wrong: NotAFilter) -> Self {
        let french = match &wrong {
            NotAFilter::Empty => "un filtre MQTT a au moins un caractère".to_owned(),
            NotAFilter::TooLong(bytes) => format!("un filtre MQTT de {bytes} octets est trop long"),
            NotAFilter::Control(text) => format!("{text:?} contient un caractère de contrôle"),
            NotAFilter::Wildcard(text) => {
                format!("{text:?} : + et # sont seuls entre deux /, et # seulement à la fin")
            }
            NotAFilter::Dollar(text) => format!("{text:?} : des sujets qui commencent par $, seul $SYS est permis"),
        };
        Self { english: wrong.to_string(), french }
    }
}

/// What the TOML parser says, with what a technician needs to hear in its place. What is not here is told in general, with
/// the parser's own words.
const OF_THE_PARSER: &[(&str, &str)] = &[
    ("string values must be quoted", "attendu ici : un nombre, ou un texte entre guillemets droits : \"texte\""),
    ("missing opening quote", "il manque le guillemet \" au début du texte"),
    ("invalid basic string", "ce texte est mal écrit : il manque sans doute le guillemet \" à la fin"),
    ("invalid literal string", "ce texte est mal écrit : il manque sans doute l'apostrophe ' à la fin"),
    ("invalid multi-line basic string", "ce texte sur plusieurs lignes doit finir par trois guillemets \"\"\""),
    ("invalid multi-line literal string", "ce texte sur plusieurs lignes doit finir par trois apostrophes '''"),
    ("invalid string", "ce texte est mal écrit"),
    ("missing escaped value", "la barre \\ a un sens particulier dans un texte : écrivez \\\\ ou /"),
    ("duplicate key", "ce nom est déjà écrit plus haut dans le même bloc"),
    ("key with no value", "il manque « = » et une valeur après ce nom"),
    ("missing value", "il manque une valeur après « = »"),
    ("missing assignment", "il manque « = » entre le nom et la valeur"),
    ("extra assignment", "il y a un « = » de trop"),
    ("extra `=`", "il y a un « = » de trop"),
    ("unexpected `=` in array", "il y a un « = » au milieu d'une liste, ou bien il manque « ] » plus haut"),
    ("missing comma", "il manque une virgule"),
    ("extra comma", "il y a une virgule de trop"),
    ("unclosed array table", "il manque « ]] » à la fin du nom de bloc"),
    ("unclosed table", "il manque « ] » à la fin du nom de bloc"),
    ("unclosed array", "il manque « ] » à la fin de la liste"),
    ("unclosed inline table", "il manque « } »"),
    ("missing table open", "il manque « [ » au début du nom de bloc"),
    ("unquoted keys cannot be empty", "il manque un nom"),
    ("invalid unquoted key", "ce nom contient un caractère qui n'est pas permis"),
    ("invalid key", "ce nom est mal écrit"),
    ("unexpected leading zero", "un nombre ne commence pas par un zéro de trop"),
    ("invalid table", "ce nom de bloc est mal écrit"),
    ("invalid comment character", "ce commentaire contient un caractère qui n'est pas permis"),
    ("invalid date-time", "cette valeur n'est ni un nombre ni une date ; un texte va entre guillemets \"…\""),
    ("invalid integer number", "ce nombre est mal écrit"),
    ("invalid mantissa", "ce nombre est mal écrit (le point, pas la virgule)"),
    ("invalid fraction", "ce nombre est mal écrit (le point, pas la virgule)"),
    ("invalid float", "ce nombre est mal écrit (le point, pas la virgule)"),
    ("invalid boolean", "attendu : true ou false en minuscules, ou un texte entre guillemets droits : \"texte\""),
    ("unexpected content", "il y a quelque chose de trop sur cette ligne"),
    ("unexpected key or value", "il y a quelque chose de trop sur cette ligne, ou il manque une virgule"),
    ("cannot extend", "ce nom a déjà une valeur : il ne peut pas être aussi un bloc"),
    ("carriage return", "la fin de cette ligne est abîmée"),
];

/// A syntax fault, in both languages.
pub(super) fn of_the_parser(message: &str) -> Words {
    let english = message.replace('\n', ", ");
    let known = OF_THE_PARSER.iter().find(|(begins, _)| english.starts_with(begins));
    let general = || format!("cette ligne n'est pas écrite comme il faut ({english})");
    Words { french: known.map_or_else(general, |(_, french)| (*french).to_owned()), english }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn the_environment_chooses_the_language_and_english_stands_for_the_others() {
        for (all, lang, chosen) in [
            ("", "fr_FR.UTF-8", Language::French),
            ("C", "fr_FR.UTF-8", Language::English),
            ("fr_BE@euro", "", Language::French),
            ("", "de_DE", Language::English),
            ("", "", Language::English),
        ] {
            let variable = |name: &str| match name {
                "LC_ALL" => Some(all.to_owned()),
                "LANG" => Some(lang.to_owned()),
                _ => None,
            };
            assert_eq!(Language::of_environment(variable), chosen, "{all:?} {lang:?}");
        }
    }

    #[test]
    fn the_usual_slips_of_a_hand_are_told_in_plain_french() {
        let mut missed = Vec::new();
        for (text, told) in [
            ("a = texte\n", "entre guillemets droits"),
            ("a = \"texte\n", "guillemet"),
            ("a = 'texte\n", "apostrophe"),
            ("a =\n", "attendu ici"),
            ("a 3\n", "il manque « = »"),
            ("a\n", "il manque « = »"),
            ("a = 1\na = 2\n", "déjà écrit"),
            ("[a\nb = 1\n", "il manque « ] »"),
            ("[[a]\nb = 1\n", "il manque « ]] »"),
            ("a = [1 2]\n", "attendu ici"),
            ("a = [1, 2\n", "il manque « ] »"),
            ("a = 1,5\n", "de trop"),
            ("a = 1 2\n", "attendu ici"),
            ("a = \"C:\\cles\"\n", "\\\\"),
            ("a = Vrai\n", "entre guillemets"),
            ("é = 1\n", "pas permis"),
        ] {
            let source = Source::new("f", text);
            source.parse();
            let faults: Vec<String> = source.faults().into_iter().map(|fault| fault.message.french).collect();
            let general = faults.iter().any(|fault| fault.contains("pas écrite comme"));
            if general || !faults.iter().any(|fault| fault.contains(told)) {
                missed.push(format!("{text:?} {told:?}: {faults:?}"));
            }
        }
        assert_eq!(missed, Vec::<String>::new());
    }
}
