//! The first page: how things are, in one sentence; then what to do, then the latest values.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;

use super::conditions;
use crate::{
    clock::Clock,
    condition::Severity,
    panel::{
        Ground,
        accounts::Act,
        answer::{Answer, Problem},
        format,
        frame::Frame,
        language::Words,
        order,
        visit::Visit,
    },
    reading::{Kind, Point, PointId, Quality, Reading},
};

/// Expected intervals after which a value is called old.
const MISSED: u32 = 3;
/// How many things to look at are named on the first page.
const NAMED: usize = 3;

#[derive(Template)]
#[template(path = "home.html", config = ".askama.toml")]
struct Home {
    frame: Frame,
    state: State,
    tasks: Vec<Task>,
    cards: Vec<Card>,
}

/// How things are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// In one sentence.
    pub(crate) sentence: String,
    /// The drawing beside it, and the class that colours it.
    pub(crate) icon: &'static str,
    /// The first of what there is to look at.
    pub(crate) named: Vec<String>,
}

/// Something people come for.
struct Task {
    href: &'static str,
    icon: &'static str,
    word: String,
    about: String,
}

/// A device and its values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// What people call it.
    pub(crate) label: String,
    /// Its name, for addresses in the page.
    pub(crate) device: String,
    /// What people ask for first.
    pub(crate) values: Vec<Shown>,
    /// The rest of what has a value.
    pub(crate) more: Vec<Shown>,
    /// What unfolds the rest.
    pub(crate) more_word: String,
}

/// A value as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The point's name.
    pub(crate) point: String,
    /// What people call it.
    pub(crate) label: String,
    /// The number, or the state's name.
    pub(crate) value: String,
    /// The unit.
    pub(crate) unit: String,
    /// How old it is.
    pub(crate) age_ms: Option<u64>,
    /// In words.
    pub(crate) age: String,
    /// `good`, `suspect`, `stale` or `bad`.
    pub(crate) quality: &'static str,
    /// What to know about it, empty when it is good.
    pub(crate) warning: String,
}

/// `/`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let ground = &visit.site.ground;
    let frame = Frame::new(&visit, &visit.words.say("home-title"), "/");
    let (state, tasks, cards) = (state(ground, &visit.words), tasks(&visit), cards(&visit));
    Answer::page(&Home { frame, state, tasks, cards })
}

/// One sentence out of what is open.
pub(crate) fn state(ground: &Ground, words: &Words) -> State {
    let open = conditions::told(ground);
    let urgent = open.iter().filter(|condition| condition.severity == Severity::Alarm).count();
    let waiting = conditions::waiting(ground);
    let sentence = match (waiting, urgent) {
        (0, _) => words.say("state-fine"),
        (_, 0) => words.count("state-things", waiting as u64),
        _ => {
            let (things, urgent) = (waiting as u64, urgent as u64);
            words.say_with("state-urgent", &[("n", things.into()), ("urgent", urgent.into())])
        }
    };
    let icon = match open.first().map(|condition| condition.severity) {
        Some(Severity::Alarm) => "alarm",
        Some(Severity::Warning) => "warning",
        Some(Severity::Notice) => "notice",
        None if waiting > 0 => "warning",
        None => "good",
    };
    let named = open.iter().take(NAMED).map(|condition| conditions::title(condition, ground, words)).collect();
    State { sentence, icon, named }
}

fn tasks(visit: &Visit) -> Vec<Task> {
    let (ground, words) = (&visit.site.ground, &visit.words);
    let task =
        |href, icon, word: &str, about: &str| Task { href, icon, word: words.say(word), about: words.say(about) };
    let mut tasks = Vec::new();
    if ground.announcer.is_some() && visit.may(Act::Announce) {
        tasks.push(task("/announcements", "speak", "task-announce", "task-announce-about"));
    }
    tasks.push(task("/conditions", "look", "task-look", "task-look-about"));
    tasks.push(task("#values", "chart", "task-values", "task-values-about"));
    tasks.push(task("/data", "share", "task-data", "task-data-about"));
    if visit.may(Act::ManageAccounts) {
        tasks.push(task("/accounts", "people", "task-accounts", "task-accounts-about"));
    } else {
        tasks.push(task("/account", "person", "task-account", "task-account-about"));
    }
    tasks
}

/// The values, by device. A meter may be able to say sixty things and say six: what never came is not shown.
fn cards(visit: &Visit) -> Vec<Card> {
    let (ground, words) = (&visit.site.ground, &visit.words);
    let mut by_device: BTreeMap<&str, Vec<(&Point, Reading)>> = BTreeMap::new();
    for point in ground.live.points().filter(|point| visit.may_see(point)) {
        let said = by_device.entry(device_of(&point.id)).or_default();
        said.extend(ground.live.newest(&point.id).map(|reading| (point, reading)));
    }
    by_device.into_iter().map(|(device, said)| card(device, said, ground, words)).collect()
}

fn card(device: &str, said: Vec<(&Point, Reading)>, ground: &Ground, words: &Words) -> Card {
    let label = device_label(device, ground);
    let split = order::split(said, |(point, _)| *point, |(_, reading)| reading.value);
    let show = |(point, reading): (&Point, Reading)| Shown {
        label: point_label(point, &label, words),
        ..shown(point, Some(&reading), &ground.clock, words)
    };
    let values = split.first.into_iter().map(show).collect();
    let more: Vec<Shown> = split.rest.into_iter().map(show).collect();
    let more_word = words.count("values-more", more.len() as u64);
    Card { device: device.replace('/', "-"), values, more, more_word, label }
}

/// A point's device is its name without the last segment.
pub(crate) fn device_of(point: &PointId) -> &str {
    point.as_str().rsplit_once('/').map_or(point.as_str(), |(device, _)| device)
}

/// What people call a device: as the application says, or what the labels of its points have in common
/// (`Mairie, puissance`); its name, made readable, when neither helps.
pub(crate) fn device_label(device: &str, ground: &Ground) -> String {
    let said = device.parse::<PointId>().ok().and_then(|id| ground.devices.get(&id).cloned());
    let points = ground.live.points().filter(|point| device_of(&point.id) == device);
    let labels: Vec<&str> = points.map(|point| point.label.as_str()).collect();
    said.or_else(|| in_common(&labels)).unwrap_or_else(|| {
        let words = device.replace(['_', '-'], " ").replace('/', " – ");
        capitalised(&words)
    })
}

/// The longest beginning, up to a comma, that every label has.
fn in_common(labels: &[&str]) -> Option<String> {
    let first = labels.first()?;
    let beginnings = first.rmatch_indices(", ").map(|(at, _)| first.split_at(at).0);
    let shared = |beginning: &&str| {
        labels.iter().all(|label| label.strip_prefix(*beginning).is_some_and(|rest| rest.starts_with(", ")))
    };
    beginnings.into_iter().find(shared).map(ToOwned::to_owned)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What people call a point below its device's name. One that is called as its device is called by what it measures.
pub(crate) fn point_label(point: &Point, device: &str, words: &Words) -> String {
    let label = without_device(&point.label, device);
    if label != device {
        return label;
    }
    match (point.kind, point.unit.as_str()) {
        (Kind::Counter, _) => words.say("label-index"),
        (Kind::State, _) => words.say("label-state"),
        (Kind::Gauge, "L/h" | "L/min" | "m3/h") => words.say("label-flow"),
        (Kind::Gauge, "W" | "kW" | "V.A") => words.say("label-power"),
        (Kind::Gauge, _) => label,
    }
}

/// The card already names the device; its values need not (`Mairie, puissance`).
fn without_device(label: &str, device: &str) -> String {
    let rest = label.strip_prefix(device).map(|rest| rest.trim_start_matches([' ', '–', '-', ':', ',', '·']));
    rest.filter(|rest| !rest.is_empty()).map_or_else(|| label.to_owned(), capitalised)
}

/// A value as it is shown. One that is older than it should be is said to be, whatever it was when it came.
pub(crate) fn shown(point: &Point, reading: Option<&Reading>, clock: &Clock, words: &Words) -> Shown {
    let Some(reading) = reading else {
        return Shown {
            point: point.id.to_string(),
            label: point.label.clone(),
            value: "—".to_owned(),
            unit: String::new(),
            age_ms: None,
            age: words.say("age-never"),
            quality: "bad",
            warning: words.say("quality-never"),
        };
    };
    let (value, unit) = format::value(point, reading.value, words);
    let age_ms = format::ago_ms(reading.stamp, clock);
    let (quality, warning) = trust(point, reading.quality, age_ms, words);
    Shown {
        point: point.id.to_string(),
        label: point.label.clone(),
        value,
        unit,
        age_ms,
        age: age_ms.map_or_else(|| words.say("date-unknown"), |ms| format::age(ms, words)),
        quality,
        warning,
    }
}

fn trust(point: &Point, quality: Quality, age_ms: Option<u64>, words: &Words) -> (&'static str, String) {
    if let Some((word, why)) = format::quality(quality, words) {
        return (quality.word(), words.say_with("quality-why", &[("word", word.into()), ("why", why.into())]));
    }
    let late =
        point.interval.zip(age_ms).is_some_and(|(interval, age)| u128::from(age) > (interval * MISSED).as_millis());
    if late { ("stale", words.say("quality-late")) } else { ("good", String::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_called_by_what_its_labels_have_in_common() {
        let common = |labels: &[&str]| in_common(labels);
        assert_eq!(common(&["Mairie, rdc, puissance", "Mairie, rdc, énergie, nuit"]).as_deref(), Some("Mairie, rdc"));
        assert_eq!(common(&["Mairie, puissance"]).as_deref(), Some("Mairie"));
        assert_eq!(common(&["Puissance", "Énergie"]), None);
        assert_eq!(common(&["Mairie, puissance", "Mairie annexe, puissance"]), None);
        assert_eq!(common(&[]), None);
    }

    #[test]
    fn a_value_does_not_repeat_its_device() {
        assert_eq!(without_device("Mairie, puissance appelée", "Mairie"), "Puissance appelée");
        assert_eq!(without_device("Eau", "Eau"), "Eau");
        assert_eq!(without_device("Puissance", "Mairie"), "Puissance");
    }
}
