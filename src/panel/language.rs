//! The words of the panel, in the visitor's language. Every visible string lives in `web/languages`.

use std::{borrow::Cow, sync::Arc};

use fluent_bundle::{FluentArgs, FluentResource, FluentValue, concurrent::FluentBundle};
use rust_embed::RustEmbed;
use serde::{Deserialize, Serialize};
use tracing::error;
use unic_langid::LanguageIdentifier;

/// The language files, as they are in the source tree.
#[derive(RustEmbed)]
#[folder = "web/languages"]
struct Files;

/// A language people read the panel in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Language {
    /// First.
    #[serde(rename = "fr")]
    French,
    /// For visitors.
    #[serde(rename = "en")]
    English,
}

impl Language {
    /// In the order they are offered.
    pub(crate) const ALL: [Self; 2] = [Self::French, Self::English];

    /// The tag of the page's `lang` attribute, and the folder of its files.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::French => "fr",
            Self::English => "en",
        }
    }

    /// Its own name for itself.
    pub(crate) fn own_name(self) -> &'static str {
        match self {
            Self::French => "Français",
            Self::English => "English",
        }
    }

    /// By its tag.
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }

    /// What a browser asks for (RFC 9110 §12.5.4); French when it asks for neither.
    pub(crate) fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::French);
        for item in header.split(',').take(20) {
            let mut parts = item.split(';');
            let tag = parts.next().unwrap_or_default().trim();
            let weight = parts.find_map(|p| p.trim().strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let Some(language) = Self::from_tag(tag.split('-').next().unwrap_or_default()) else { continue };
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }
}

/// Every language, read once.
pub(crate) struct Languages {
    french: Words,
    english: Words,
}

impl Languages {
    /// Reads the files.
    pub(crate) fn read() -> Self {
        Self { french: Words::read(Language::French), english: Words::read(Language::English) }
    }

    /// The words of one language.
    pub(crate) fn of(&self, language: Language) -> Words {
        match language {
            Language::French => self.french.clone(),
            Language::English => self.english.clone(),
        }
    }
}

/// The words of one language. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Words {
    /// Which language.
    pub(crate) language: Language,
    bundle: Arc<FluentBundle<FluentResource>>,
}

impl Words {
    fn read(language: Language) -> Self {
        let tag: LanguageIdentifier = language.tag().parse().unwrap_or_default();
        let mut bundle = FluentBundle::new_concurrent(vec![tag]);
        bundle.set_use_isolating(false);
        if language == Language::French {
            bundle.set_transform(Some(french_spaces));
        }
        let folder = format!("{}/", language.tag());
        for name in Files::iter().filter(|name| name.starts_with(&folder)) {
            let Some(file) = Files::get(&name) else { continue };
            let text = String::from_utf8_lossy(&file.data).into_owned();
            // A file with a fault keeps its sound messages; a test finds the fault before anybody sees it.
            let resource = FluentResource::try_new(text).unwrap_or_else(|(sound, faults)| {
                error!(file = %name, ?faults, "Language file has faults");
                sound
            });
            if let Err(faults) = bundle.add_resource(resource) {
                error!(file = %name, ?faults, "Language file repeats messages");
            }
        }
        Self { language, bundle: Arc::new(bundle) }
    }

    /// A message. A key that is not there is shown as it is: the page still works.
    pub(crate) fn say(&self, key: &str) -> String {
        self.say_with(key, &[])
    }

    /// A message with a number in it, which decides singular and plural.
    pub(crate) fn count(&self, key: &str, count: u64) -> String {
        let shown = super::format::whole(count, self.language);
        self.say_with(key, &[("n", FluentValue::from(count)), ("shown", FluentValue::from(shown))])
    }

    /// A message with values in it.
    pub(crate) fn say_with(&self, key: &str, values: &[(&str, FluentValue<'_>)]) -> String {
        let Some(pattern) = self.bundle.get_message(key).and_then(|message| message.value()) else {
            return key.to_owned();
        };
        let args: FluentArgs<'_> = values.iter().cloned().collect();
        self.bundle.format_pattern(pattern, Some(&args), &mut Vec::new()).into_owned()
    }

    /// Whether there is such a message.
    #[cfg(test)]
    pub(crate) fn has(&self, key: &str) -> bool {
        self.bundle.has_message(key)
    }
}

/// French typography, so that the files stay easy to type: a narrow no-break space before `: ; ! ?` and inside
/// « », and curved apostrophes. Source: Imprimerie nationale, *Lexique des règles typographiques*.
fn french_spaces(text: &str) -> Cow<'_, str> {
    const NARROW: &str = "\u{202f}";
    if !text.contains([':', ';', '!', '?', '«', '»', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut set = text.replace('\'', "’").replace("« ", "«\u{202f}");
    for mark in [":", ";", "!", "?", "»"] {
        set = set.replace(&format!(" {mark}"), &format!("{NARROW}{mark}"));
    }
    Cow::Owned(set)
}

/// `Mairie d’Aigues`, `Mairie du Bourg`, `Mairie des Martys`: a commune's name after « de ».
pub(crate) fn of_commune(name: &str, language: Language) -> String {
    if language == Language::English {
        return name.to_owned();
    }
    if let Some(rest) = name.strip_prefix("Les ") {
        return format!("des {rest}");
    }
    if let Some(rest) = name.strip_prefix("Le ") {
        return format!("du {rest}");
    }
    let first = name.chars().next().map(|c| c.to_lowercase().next().unwrap_or(c));
    let vowel = first.is_some_and(|c| "aeiouyhàâäéèêëîïôöûü".contains(c));
    if vowel { format!("d’{name}") } else { format!("de {name}") }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::condition::Code;

    fn keys(language: Language) -> BTreeSet<String> {
        let folder = format!("{}/", language.tag());
        let mut keys = BTreeSet::new();
        for name in Files::iter().filter(|name| name.starts_with(&folder)) {
            let text = String::from_utf8(Files::get(&name).expect("listed").data.into_owned()).expect("UTF-8");
            FluentResource::try_new(text.clone()).unwrap_or_else(|(_, faults)| panic!("{name}: {faults:?}"));
            for line in text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())) {
                let key = line.split(" =").next().expect("a key").to_owned();
                assert!(keys.insert(key), "{name} repeats {line}");
            }
        }
        keys
    }

    #[test]
    fn both_languages_say_the_same_things() {
        assert_eq!(keys(Language::French), keys(Language::English));
    }

    #[test]
    fn every_condition_says_what_it_is_and_what_to_do() {
        let known = keys(Language::French);
        for code in Code::ALL {
            for part in ["title", "todo"] {
                assert!(known.contains(&format!("condition-{code}-{part}")), "condition-{code}-{part}");
            }
        }
    }

    /// The keys named in a file: what stands in quotes right after one of the words that say it.
    fn named(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for word in [".say(\"", ".say_with(\"", ".count(\"", ".age_words(\""] {
            for after in text.split(word).skip(1) {
                found.extend(after.split('"').next().map(ToOwned::to_owned));
            }
        }
        found
    }

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("language.rs") {
                found.push((path.display().to_string(), fs::read_to_string(&path).expect("text")));
            }
        }
    }

    #[test]
    fn pages_and_code_use_only_words_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        sources(&root.join("web/pages"), &mut files);
        sources(&root.join("src/panel"), &mut files);
        let known = keys(Language::French);
        let mut used = 0;
        for (name, text) in files {
            for key in named(&text) {
                assert!(known.contains(&key), "{name} says {key:?}, which no language file has");
                used += 1;
            }
        }
        assert!(used > 100, "only {used} keys were found in the pages: the test reads them wrongly");
    }

    /// Quoted words of the code that begin as a key does: keys on their way to being said.
    fn key_like(text: &str, families: &BTreeSet<&str>) -> Vec<String> {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let quoted = code.split('"').skip(1).step_by(2);
        let shaped = |word: &&str| {
            word.contains('-') && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let of_family = |word: &&str| word.split('-').next().is_some_and(|first| families.contains(first));
        quoted.filter(shaped).filter(of_family).map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_word_on_its_way_to_being_said_exists() {
        let known = keys(Language::French);
        let families: BTreeSet<&str> =
            known.iter().filter(|k| k.contains('-')).filter_map(|k| k.split('-').next()).collect();
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/panel"), &mut files);
        for (name, text) in files {
            for key in key_like(&text, &families) {
                let is_other = ["sign-in", "sign-out"].contains(&key.as_str());
                assert!(is_other || known.contains(&key), "{name} names {key:?}, which no language file has");
            }
        }
    }

    #[test]
    fn no_word_is_kept_that_nobody_says() {
        let mut files = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        sources(&root.join("web/pages"), &mut files);
        sources(&root.join("src/panel"), &mut files);
        let all: String = files.into_iter().map(|(_, text)| text).collect();
        for key in keys(Language::French) {
            let computed =
                ["condition-", "weekday-", "month-", "problem-"].iter().any(|family| key.starts_with(family));
            assert!(computed || all.contains(&format!("\"{key}\"")), "nobody says {key}");
        }
    }

    #[test]
    fn french_is_set_as_a_printer_would() {
        assert_eq!(french_spaces("C'est fini : « oui » !"), "C’est fini\u{202f}: «\u{202f}oui\u{202f}»\u{202f}!");
    }

    #[test]
    fn a_commune_is_named_as_its_people_say_it() {
        for (name, said) in [
            ("Les Martys", "des Martys"),
            ("Le Bourg", "du Bourg"),
            ("La Redorte", "de La Redorte"),
            ("Aigues-Vives", "d’Aigues-Vives"),
            ("Homps", "d’Homps"),
            ("Caunes", "de Caunes"),
        ] {
            assert_eq!(of_commune(name, Language::French), said);
        }
    }

    #[test]
    fn a_browser_gets_the_language_it_prefers_and_french_when_it_asks_for_neither() {
        for (header, language) in [
            ("en-GB,en;q=0.9,fr;q=0.5", Language::English),
            ("fr-FR,fr;q=0.9,en;q=0.8", Language::French),
            ("de, es;q=0.5", Language::French),
            ("en;q=0.2, fr;q=0.3", Language::French),
            ("", Language::French),
            ("en;q=bad", Language::French),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }
}
