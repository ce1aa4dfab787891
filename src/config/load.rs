//! From TOML text to checked values, every fault kept with its place.
//!
//! A [`Block`] is one table of the file with the list of fields it may have; reading a field either gives a value or
//! records a [`Fault`], so one run finds them all. The same list of [`Field`]s is the manual.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    path::{Component, Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    secret,
    words::{self, Both, Language, Words, words},
};

/// Whether a field must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A fault when it is missing.
    Required,
    /// Nothing happens without it.
    Optional,
    /// A TOML value that stands for it.
    Default(&'static str),
}

/// One key of a block: its name, its manual, and what stands for it when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What is expected, in the operator's words: `a duration such as "30 s"`.
    pub expects: Both,
    /// Whether it must be there.
    pub presence: Presence,
    /// What it is for: one or two sentences.
    pub doc: &'static str,
}

impl Field {
    /// Whether its value must never be shown.
    pub fn is_secret(&self) -> bool {
        secret::KEYS.contains(&self.name)
    }
}

/// A value of the file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where in the text.
    pub span: Range<usize>,
    /// The block it is in: `device "electricity/mairie"`.
    pub place: String,
    /// What is wrong, with the value.
    pub message: Words,
}

/// A file that a configuration names without a full path: it stands in the same folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As it is written.
    pub path: PathBuf,
    /// Where it is written.
    pub span: Range<usize>,
    /// The block it is written in.
    pub place: String,
}

/// A file's text and the faults found in it so far.
#[derive(Debug)]
pub struct Source {
    /// The file's name, as the operator gave it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Where the files stand that it names without a full path.
    folder: PathBuf,
    named: RefCell<Vec<Named>>,
    faults: RefCell<Vec<Fault>>,
    /// Lines that do not parse, and what follows a header that does not: where they belong is not known.
    unsure: RefCell<Vec<Range<usize>>>,
}

impl Source {
    /// A text to be read.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let name = name.into();
        let folder = Path::new(&name).parent().map(Path::to_owned).unwrap_or_default();
        Self {
            name,
            text: text.into(),
            folder,
            named: RefCell::default(),
            faults: RefCell::default(),
            unsure: RefCell::default(),
        }
    }

    /// A text whose file is shown by a short name and stands in a folder.
    pub fn within(folder: &Path, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { folder: folder.to_owned(), ..Self::new(name, text) }
    }

    /// The files beside this one that were named so far.
    pub fn named(&self) -> Vec<Named> {
        self.named.borrow().clone()
    }

    /// Records a fault. One that may only follow from a syntax error is left for the next run.
    pub fn fault(&self, span: Range<usize>, place: impl Into<String>, message: impl Into<Words>) {
        if !self.unsure.borrow().iter().any(|unsure| unsure.contains(&span.start)) {
            self.record(span, place, message);
        }
    }

    fn record(&self, span: Range<usize>, place: impl Into<String>, message: impl Into<Words>) {
        let fault = Fault { span, place: place.into(), message: message.into() };
        let mut faults = self.faults.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// The faults so far, in the order of the file.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = self.faults.borrow().clone();
        faults.sort_by_key(|fault| (fault.span.start, fault.span.end));
        faults
    }

    /// Line of a fault, counted from 1.
    pub fn line_of(&self, fault: &Fault) -> usize {
        self.text.bytes().take(fault.span.start).filter(|byte| *byte == b'\n').count() + 1
    }

    /// A fault as a person reads it: file, line, column, the line itself without its secrets, a caret.
    pub fn render(&self, fault: &Fault, renderer: &Renderer, language: Language) -> String {
        let end = fault.span.end.min(self.text.len());
        let span = fault.span.start.min(end)..end;
        let (level, colon) = (Both("fault", "erreur").to(language), Both(":", " :").to(language));
        let message = fault.message.to(language);
        let title =
            if fault.place.is_empty() { message.to_owned() } else { format!("{}{colon} {message}", fault.place) };
        let text = secret::masked(&self.text, secret::Where::Anywhere);
        let snippet = Snippet::source(text.as_ref()).path(&self.name).annotation(AnnotationKind::Primary.span(span));
        renderer.render(&[Level::ERROR.with_name(level).primary_title(&title).element(snippet)])
    }

    /// The line of a fault, without its secrets, and a caret under what is wrong.
    pub fn pointed_at(&self, fault: &Fault) -> String {
        let text = secret::masked(&self.text, secret::Where::Anywhere);
        let at = fault.span.start.min(text.len());
        let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else { return String::new() };
        let start = before.rsplit('\n').next().unwrap_or_default();
        let line = format!("{start}{}", after.lines().next().unwrap_or_default());
        let marked = text.get(at..fault.span.end.min(text.len())).unwrap_or_default();
        let wide = marked.lines().next().unwrap_or_default().chars().count().max(1);
        let indent: String = start.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        if line.trim().is_empty() {
            String::new()
        } else {
            format!("{}\n{indent}{}", line.trim_end(), "^".repeat(wide))
        }
    }

    /// Records a fault for each file named without a full path that is not in the folder.
    pub fn tell_missing(&self) {
        for Named { path, span, place } in self.named() {
            if !self.folder.join(&path).is_file() {
                let path = path.display();
                let message = words!(
                    "\"{path}\" is not in the folder of this file",
                    "\"{path}\" n'est pas dans le même dossier que ce fichier"
                );
                self.fault(span, place, message);
            }
        }
    }

    /// The top table; what cannot be parsed is a fault, the rest is still read.
    pub fn parse(&self) -> Spanned<DeTable<'_>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let mut unsure = Vec::new();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            unsure.push(self.spoiled(span.start));
            self.record(span, "", words::of_the_parser(error.message()));
        }
        self.unsure.replace(unsure);
        table
    }

    /// What a syntax error makes unsure: its line; after a header, all up to the next one.
    fn spoiled(&self, at: usize) -> Range<usize> {
        let at = at.min(self.text.len());
        let (before, after) = self.text.split_at_checked(at).unwrap_or((&self.text, ""));
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let header = self.text.get(start..).is_some_and(|line| line.trim_start().starts_with('['));
        let mut lines = after.split_inclusive('\n');
        let mut end = at + lines.next().map_or(0, str::len);
        if header {
            end += lines.take_while(|line| !line.trim_start().starts_with('[')).map(str::len).sum::<usize>();
        }
        start..end
    }
}

/// One table of the file.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// What it is, for messages: `device "electricity/mairie"`.
    pub place: String,
    /// Where its first line is.
    pub span: Range<usize>,
    source: &'a Source,
    table: &'a DeTable<'a>,
}

impl<'a> Block<'a> {
    /// A table, not yet checked against a list of fields.
    pub fn new(source: &'a Source, place: impl Into<String>, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { place: place.into(), span, source, table }
    }

    /// Every key must be one of `fields`.
    pub fn only(&self, fields: &[&[Field]]) {
        let known = || fields.iter().copied().flatten();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if known().any(|field| field.name == name) {
                continue;
            }
            let near = nearest(name, known().map(|field| field.name));
            let message = match near {
                Some(near) => words!(
                    "unknown key `{name}`, did you mean `{near}`?",
                    "`{name}` n'existe pas ici ; vouliez-vous écrire `{near}` ?"
                ),
                None => words!("unknown key `{name}`", "`{name}` n'existe pas ici"),
            };
            self.source.fault(key.span(), &self.place, message);
        }
    }

    /// Records a fault at the value of `name`, or at the block when it is absent.
    pub fn fault(&self, name: &str, message: impl Into<Words>) {
        let span = self.table.get(name).map_or_else(|| self.span.clone(), Spanned::span);
        self.source.fault(span, &self.place, message);
    }

    /// Whether the key is written in the file.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// The text written at a key, judged by nobody.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.table.get(name)?.get_ref().as_str()
    }

    /// A field's value. `None` when it is optional and absent, or faulty (then a fault is recorded).
    pub fn get<T: Value>(&self, field: &Field) -> Option<T> {
        let Some(value) = self.table.get(field.name) else {
            return self.absent(field);
        };
        T::read(value.get_ref())
            .map_err(|wrong| self.unexpected(field, if field.is_secret() { concealed() } else { wrong }))
            .ok()
    }

    /// A field's value through its `FromStr`; the type's own message is shown.
    pub fn parse<T: FromStr<Err: Into<Words>>>(&self, field: &Field) -> Option<T> {
        let text: String = self.get(field)?;
        text.parse().map_err(|wrong| self.wrong(field, wrong)).ok()
    }

    /// The same of a field that may be absent. The outer `None` is a fault, already told.
    pub fn parse_if_there<T: FromStr<Err: Into<Words>>>(&self, field: &Field) -> Option<Option<T>> {
        if self.has(field.name) { self.parse(field).map(Some) } else { Some(None) }
    }

    /// A file: without a full path, one in the folder of the configuration, which moves with it.
    pub fn file(&self, field: &Field) -> Option<PathBuf> {
        let path: PathBuf = self.get(field)?;
        if path.is_absolute() || !self.has(field.name) {
            return Some(path);
        }
        let mut parts = path.components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            let name = field.name;
            let message = words!(
                "`{name}` is {path:?}, a full path or the name of a file in the same folder was expected",
                "`{name}` vaut {path:?} ; attendu : un chemin complet, ou le nom d'un fichier du même dossier"
            );
            self.fault(name, message);
            return None;
        }
        let (span, place) = (self.table.get(field.name)?.span(), self.place.clone());
        let resolved = self.source.folder.join(&path);
        self.source.named.borrow_mut().push(Named { path, span, place });
        Some(resolved)
    }

    /// The only table under a key; a second one is a fault.
    pub fn one(&self, name: &str) -> Option<Block<'a>> {
        let mut blocks = self.blocks(name).into_iter();
        let first = blocks.next();
        for extra in blocks {
            let message = words!("[{name}] may be written only once", "[{name}] ne s'écrit qu'une fois");
            self.source.fault(extra.span, name, message);
        }
        first
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, field: &Field, choices: &[(&str, T)]) -> Option<T> {
        let text: String = self.get(field)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let name = field.name;
            self.fault(
                name,
                words!(
                    "`{name}` is \"{text}\", one of {words} was expected",
                    "`{name}` vaut \"{text}\" ; attendu : l'un de {words}"
                ),
            );
        }
        found
    }

    /// A value that must lie within bounds.
    pub fn within<T: Value + PartialOrd + fmt::Display>(&self, field: &Field, low: T, high: T) -> Option<T> {
        let value: T = self.get(field)?;
        if value < low || value > high {
            let name = field.name;
            self.fault(
                name,
                words!(
                    "`{name}` is {value}, between {low} and {high} was expected",
                    "`{name}` vaut {value} ; attendu : entre {low} et {high}"
                ),
            );
            return None;
        }
        Some(value)
    }

    /// A duration within bounds.
    pub fn duration_within(&self, field: &Field, low: Duration, high: Duration) -> Option<Duration> {
        let value: Duration = self.get(field)?;
        if value < low || value > high {
            let name = field.name;
            self.fault(
                name,
                words!(
                    "`{name}` is {value:?}, between {low:?} and {high:?} was expected",
                    "`{name}` vaut {value:?} ; attendu : entre {low:?} et {high:?}"
                ),
            );
            return None;
        }
        Some(value)
    }

    /// The tables under a key: `[[name]]` or `[name]`. Each is called after its own `name` key when it has one.
    pub fn blocks(&self, name: &str) -> Vec<Block<'a>> {
        let Some(value) = self.table.get(name) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Table(table) => vec![self.child(name, value.span(), table)],
            DeValue::Array(items) => items.iter().filter_map(|item| self.item(name, item)).collect(),
            _ => {
                self.fault(
                    name,
                    words!(
                        "`{name}` must be a block, written [{name}] or [[{name}]]",
                        "`{name}` doit être un bloc, écrit [{name}] ou [[{name}]]"
                    ),
                );
                Vec::new()
            }
        }
    }

    fn item(&self, name: &str, item: &'a Spanned<DeValue<'a>>) -> Option<Block<'a>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            self.source.fault(
                item.span(),
                &self.place,
                words!(
                    "`{name}` must hold blocks, written [[{name}]]",
                    "`{name}` doit contenir des blocs, écrits [[{name}]]"
                ),
            );
        }
        Some(self.child(name, item.span(), table?))
    }

    fn child(&self, name: &str, span: Range<usize>, table: &'a DeTable<'a>) -> Block<'a> {
        let title = table.get("name").and_then(|v| v.get_ref().as_str().map(|own| format!("{name} \"{own}\"")));
        let title = title.unwrap_or_else(|| name.to_owned());
        let place = if self.place.is_empty() { title } else { format!("{}, {title}", self.place) };
        Block::new(self.source, place, span, table)
    }

    fn absent<T: Value>(&self, field: &Field) -> Option<T> {
        match field.presence {
            Presence::Optional => None,
            Presence::Required => {
                self.missing(field);
                None
            }
            // A default that does not parse is caught by a test over every list of fields.
            Presence::Default(text) => DeValue::parse(text).ok().and_then(|v| T::read(v.get_ref()).ok()),
        }
    }

    /// Records that a value is not what the field takes; `is` says what it is instead.
    pub fn unexpected(&self, field: &Field, is: impl Into<Words>) {
        let (Words { english, french }, Both(expects, attend), name) = (is.into(), field.expects, field.name);
        self.fault(
            name,
            words!("`{name}` {english}, {expects} was expected", "`{name}` {french} ; attendu : {attend}"),
        );
    }

    /// Records what the type itself says of a field's value.
    pub fn wrong(&self, field: &Field, why: impl Into<Words>) {
        let (Words { english, french }, name) = (why.into(), field.name);
        self.fault(name, words!("`{name}`: {english}", "`{name}` : {french}"));
    }

    /// Records that a field is not there.
    pub fn missing(&self, field: &Field) {
        let (Both(expects, attend), name) = (field.expects, field.name);
        self.fault(name, words!("`{name}` is missing: {expects}", "`{name}` manque : {attend}"));
    }
}

/// A type that can be read from a TOML value.
pub trait Value: Sized {
    /// Reads it, or says what it is instead: `is "abc"`.
    ///
    /// # Errors
    /// What the value is, in words that follow the key's name.
    fn read(value: &DeValue<'_>) -> Result<Self, Words>;
}

fn shown(value: &DeValue<'_>) -> Words {
    let value = match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(n) => n.as_str().to_owned(),
        DeValue::Float(n) => n.as_str().to_owned(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Array(_) => return Both("is a TOML array", "est une liste").into(),
        DeValue::Table(_) => return Both("is a TOML table", "est un bloc").into(),
        DeValue::Datetime(_) => return Both("is a TOML datetime", "est une date").into(),
    };
    words!("is {value}", "vaut {value}")
}

/// Of a secret nothing is shown.
fn concealed() -> Words {
    Both("is no text between quotes", "n'est pas un texte entre guillemets").into()
}

impl Value for String {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        value.as_str().map(ToOwned::to_owned).ok_or_else(|| shown(value))
    }
}

impl Value for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        value.as_bool().ok_or_else(|| shown(value))
    }
}

impl Value for f64 {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        let text = match value {
            DeValue::Float(n) => n.as_str(),
            DeValue::Integer(n) => return i64::read(&DeValue::Integer(n.clone())).map(|n| n as Self),
            _ => return Err(shown(value)),
        };
        text.replace('_', "").parse().ok().filter(|n: &Self| n.is_finite()).ok_or_else(|| shown(value))
    }
}

impl Value for i64 {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        let n = value.as_integer().ok_or_else(|| shown(value))?;
        Self::from_str_radix(n.as_str(), n.radix()).map_err(|_| shown(value))
    }
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(value: &DeValue<'_>) -> Result<Self, Words> {
                i64::read(value)?.try_into().map_err(|_| shown(value))
            }
        }
    )*};
}
whole!(u8, u16, u32, u64, usize);

impl Value for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        String::read(value).map(Self::from)
    }
}

impl Value for SocketAddr {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        String::read(value)?.parse().map_err(|_| shown(value))
    }
}

impl Value for Duration {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        duration(&String::read(value)?).ok_or_else(|| shown(value))
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        let items = value.as_array().ok_or_else(|| shown(value))?;
        let wrong =
            |Words { english, french }| words!("has an item that {english}", "contient un élément qui {french}");
        items.iter().map(|item| T::read(item.get_ref()).map_err(wrong)).collect()
    }
}

/// A small table of the operator's own keys: `{ open = 1, closed = 0 }`.
impl<T: Value> Value for BTreeMap<String, T> {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        let table = value.as_table().ok_or_else(|| shown(value))?;
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            let wrong = |Words { english, french }| {
                words!("has a key `{key}` that {english}", "contient une clé `{key}` qui {french}")
            };
            let read = T::read(value.get_ref()).map_err(wrong);
            read.map(|read| (key.clone().into_owned(), read))
        };
        table.iter().map(entry).collect()
    }
}

/// Bytes on a card: `"4 GB"`, `"64 MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Value for ByteSize {
    fn read(value: &DeValue<'_>) -> Result<Self, Words> {
        const UNITS: &[(&str, f64)] =
            &[("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];
        scaled(&String::read(value)?, UNITS).map(|bytes| Self(bytes as u64)).ok_or_else(|| shown(value))
    }
}

/// `"30 s"`, `"200 ms"`, `"15 min"`, `"1 h"`, `"2 d"`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: &[(&str, f64)] = &[("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
    Duration::try_from_secs_f64(scaled(text, UNITS)?).ok()
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let number: f64 = number.trim().parse().ok()?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number * scale).filter(|n| n.is_finite() && *n >= 0.0)
}

/// The known word that a mistyped one was meant to be, when one is near enough.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.map(|known| (distance(known, word), known)).min().filter(|(apart, _)| *apart <= 3).map(|(_, known)| known)
}

/// Letters to change to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field { name: "path", expects: Both("a path", "un chemin"), presence: Presence::Required, doc: "" },
        Field {
            name: "every",
            expects: Both("a duration such as \"30 s\"", "une durée comme \"30 s\""),
            presence: Presence::Default("\"30 s\""),
            doc: "",
        },
        Field {
            name: "speed",
            expects: Both("a whole number", "un nombre entier"),
            presence: Presence::Optional,
            doc: "",
        },
    ];

    fn read(text: &str) -> (Vec<String>, Option<String>, Option<Duration>, Option<u32>) {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let block = Block::new(&source, "port", table.span(), table.get_ref());
        block.only(&[FIELDS]);
        let values = (block.get(&FIELDS[0]), block.get(&FIELDS[1]), block.get(&FIELDS[2]));
        let faults = source.faults().into_iter().map(|f| format!("{}:{}", source.line_of(&f), f.message)).collect();
        (faults, values.0, values.1, values.2)
    }

    #[test]
    fn a_sound_block_is_read_with_its_defaults() {
        let (faults, path, every, speed) = read("path = \"/dev/a\"\nspeed = 9_600");
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!((path.as_deref(), every, speed), (Some("/dev/a"), Some(Duration::from_secs(30)), Some(9600)));
    }

    #[test]
    fn every_fault_is_told_at_its_line_in_one_run() {
        let (faults, ..) = read("pth = \"/dev/a\"\nevery = \"30 sx\"\nspeed = -1\nspeed = 3");
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(faults[0].contains("`path` is missing") || faults[1].contains("`path` is missing"), "{faults:?}");
        assert!(faults.iter().any(|f| f == "1:unknown key `pth`, did you mean `path`?"), "{faults:?}");
        assert!(faults.iter().any(|f| f.starts_with("2:`every` is \"30 sx\"")), "{faults:?}");
        assert!(faults.iter().any(|f| f.starts_with("3:`speed` is -1")), "{faults:?}");
        assert!(faults.iter().any(|f| f.starts_with("4:")), "{faults:?}");
    }

    #[test]
    fn a_fault_is_shown_with_file_line_column_and_caret() {
        let source = Source::new("f.toml", "a = 1\nb = \"x\"\n");
        source.fault(10..13, "panel", Both("`b` is \"x\"", "`b` vaut \"x\""));
        let text = source.render(&source.faults()[0], &Renderer::plain(), Language::English);
        assert!(text.contains("f.toml:2:5") && text.contains("^^^") && text.contains("panel: `b`"), "{text}");
    }

    #[test]
    fn durations_are_read_with_their_unit_and_never_without() {
        assert_eq!(duration("200 ms"), Some(Duration::from_millis(200)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5_400)));
        assert_eq!(duration("30"), None);
        assert_eq!(duration("-1 s"), None);
        assert_eq!(duration("1e999 d"), None);
    }
}
