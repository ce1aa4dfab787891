//! Erasing what a point measured, for good: what is chosen, what goes with it and who has a copy, then how it went.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use jiff::civil::Date;
use warp::http::StatusCode;

use super::{consents, home};
use crate::{
    panel::{
        Ground,
        accounts::Act,
        answer::{Answer, Problem},
        erasing::{self, Eraser, Erasure, NotBegun, Outcome, POINTS},
        format,
        frame::Frame,
        language::Words,
        partners,
        visit::Visit,
    },
    reading::PointId,
};

/// Lines of the journal shown.
const LINES: usize = 50;
/// For so long the last one is told at the head of the page.
const LATEST_MS: u64 = 10 * 60_000;
/// Points counted before somebody decides; a device that says more is not counted first.
const COUNTED: usize = 20;
const DAY_MS: i64 = 86_400_000;
/// What begins the value of a whole device in the form.
const WHOLE: &str = "device:";

#[derive(Template)]
#[template(path = "erase.html", config = ".askama.toml")]
struct ErasePage {
    frame: Frame,
    devices: Vec<Device>,
    all: bool,
    before: String,
    wrong: Option<String>,
    at_work: Option<String>,
    /// The last one, when it has only just ended.
    latest: Option<Line>,
    journal: Vec<Line>,
    question: Option<Question>,
}

/// A device with what it measures.
struct Device {
    label: String,
    choices: Vec<Choice>,
}

struct Choice {
    value: String,
    label: String,
    is_chosen: bool,
}

/// What is asked before anything goes.
struct Question {
    what: String,
    before: String,
    title: String,
    amount: Option<String>,
    stays: &'static str,
    holders: Vec<Holder>,
}

/// Who has a copy.
struct Holder {
    label: String,
    last: Option<String>,
}

/// A line of the journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) what: String,
    pub(super) when: String,
    pub(super) by: String,
    pub(super) outcome: String,
    pub(super) icon: &'static str,
    /// The class that colours it.
    colour: &'static str,
    /// How long ago it ended.
    ended_ms: Option<u64>,
}

/// What a form chose.
#[derive(Clone)]
struct Chosen {
    value: String,
    label: String,
    points: Vec<PointId>,
    before: Option<Date>,
}

/// `/erase`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.must(Act::Erase)?;
    if !visit.is_post() {
        return page(&visit, StatusCode::OK, None, None).await;
    }
    let chosen = match chosen(&visit).await? {
        Ok(chosen) => chosen,
        Err(key) => return page(&visit, StatusCode::UNPROCESSABLE_ENTITY, Some(visit.words.say(key)), None).await,
    };
    if visit.form.get("confirmed") == "yes" { begin(&visit, chosen).await } else { ask(&visit, chosen).await }
}

async fn page(
    visit: &Visit,
    status: StatusCode,
    wrong: Option<String>,
    question: Option<Question>,
) -> Result<Answer, Problem> {
    let (words, eraser) = (visit.words.clone(), Arc::clone(&visit.site.eraser));
    let wanted = if visit.is_post() { visit.form.get("what") } else { visit.query.get("what") }.to_owned();
    let (devices, mut journal, at_work) = visit
        .site
        .look(move |ground| {
            let journal = lines(&eraser, ground, &words, LINES)?;
            let progress = eraser.progress();
            let at_work = progress.map(|progress| {
                let (done, of) = (progress.done as u64, progress.of as u64);
                let counts =
                    [("done", done), ("of", of)].map(|(key, n)| (key, format::whole(n, words.language).into()));
                words.say_with(if of == 1 { "erase-at-work" } else { "erase-at-work-of" }, &counts)
            });
            Ok::<_, Problem>((devices(ground, &wanted, &words), journal, at_work))
        })
        .await??;
    let before = visit.form.get("before").to_owned();
    let is_fresh = journal.first().and_then(|line| line.ended_ms).is_some_and(|ms| ms < LATEST_MS);
    let latest = (is_fresh && at_work.is_none()).then(|| journal.remove(0));
    Answer::page_with(
        status,
        &ErasePage {
            frame: Frame::new(visit, &visit.words.say("erase-title"), "/data"),
            devices,
            all: visit.form.get("how") != "before",
            before,
            wrong,
            at_work,
            latest,
            journal,
            question,
        },
    )
}

/// What can be erased: by device, whole first; what is stored of devices that are no longer there, too.
fn devices(ground: &Ground, wanted: &str, words: &Words) -> Vec<Device> {
    let points = erasing::erasable(ground);
    let mut by_device: BTreeMap<&str, Vec<&PointId>> = BTreeMap::new();
    for point in &points {
        by_device.entry(home::device_of(point)).or_default().push(point);
    }
    let choice = |value: String, label: String| Choice { is_chosen: value == wanted, value, label };
    let mut devices: Vec<Device> = by_device
        .into_iter()
        .map(|(name, points)| {
            let label = home::device_label(name, ground);
            let whole = words.say_with("erase-whole-device", &[("device", label.as_str().into())]);
            let whole = (points.len() > 1).then(|| choice(format!("{WHOLE}{name}"), whole));
            let each = points.iter().map(|point| choice(point.to_string(), full_label(point, ground, words)));
            Device { choices: whole.into_iter().chain(each).collect(), label }
        })
        .collect();
    devices.sort_by(|a, b| a.label.cmp(&b.label));
    devices
}

/// `Électricité de la salle – Puissance`; the name itself of a point nobody measures any more.
fn full_label(point: &PointId, ground: &Ground, words: &Words) -> String {
    let Some(known) = ground.live.point(point) else {
        return words.say_with("erase-former", &[("name", point.as_str().into())]);
    };
    let device = home::device_label(home::device_of(point), ground);
    let label = home::point_label(known, &device, words);
    if label == device { label } else { format!("{device} – {label}") }
}

/// Reads the form; the message that says what is wrong with it.
async fn chosen(visit: &Visit) -> Result<Result<Chosen, &'static str>, Problem> {
    let before = match visit.form.get("how") {
        "all" => None,
        "before" => match consents::day(visit.form.get("before")) {
            Some(day) => Some(day),
            None => return Ok(Err("erase-wrong-date")),
        },
        _ => return Ok(Err("erase-wrong-how")),
    };
    let (value, words) = (visit.form.get("what").to_owned(), visit.words.clone());
    let found = visit
        .site
        .look(move |ground| {
            let mut points = erasing::erasable(ground);
            let label = match value.strip_prefix(WHOLE) {
                Some(device) => {
                    points.retain(|point| home::device_of(point) == device);
                    home::device_label(device, ground)
                }
                None => {
                    points.retain(|point| point.as_str() == value);
                    points.first().map(|point| full_label(point, ground, &words)).unwrap_or_default()
                }
            };
            points.truncate(POINTS);
            (!points.is_empty()).then_some(Chosen { value, label, points, before })
        })
        .await?;
    Ok(found.ok_or("erase-wrong-what"))
}

impl Chosen {
    /// The midnight before the day, on the wall.
    fn before_ms(&self, ground: &Ground) -> Option<i64> {
        let midnight = self.before?.to_zoned(ground.time_zone.clone()).ok()?;
        Some(midnight.timestamp().as_millisecond())
    }
}

async fn ask(visit: &Visit, chosen: Chosen) -> Result<Answer, Problem> {
    let words = visit.words.clone();
    let question = visit
        .site
        .look(move |ground| {
            let records = partners::register(ground.keep.as_ref())?;
            let last = |name: &str| {
                let newest = records.iter().find(|record| record.peer == name)?;
                let at = newest.until.unwrap_or(newest.at);
                Some(format::moment(at, &ground.clock, &ground.time_zone, &words))
            };
            let holders = partners::holders(&chosen.points, &records, ground);
            let holder = |name: String| Holder { last: last(&name), label: partners::called(&name, ground) };
            Ok::<_, Problem>(Question {
                title: title(&chosen, &words),
                amount: amount(&chosen, ground, &words),
                stays: if chosen.before.is_some() { "erase-stays-after" } else { "erase-stays-new" },
                holders: holders.into_iter().map(holder).collect(),
                before: chosen.before.map(|day| day.to_string()).unwrap_or_default(),
                what: chosen.value,
            })
        })
        .await??;
    page(visit, StatusCode::OK, None, Some(question)).await
}

fn title(chosen: &Chosen, words: &Words) -> String {
    let label = chosen.label.as_str();
    match chosen.before {
        None => words.say_with("erase-question", &[("label", label.into())]),
        Some(day) => {
            let day = format::date(day, words);
            words.say_with("erase-question-before", &[("label", label.into()), ("date", day.into())])
        }
    }
}

/// About how many readings that is, and since when; nothing when the card does not say.
fn amount(chosen: &Chosen, ground: &Ground, words: &Words) -> Option<String> {
    if chosen.points.len() > COUNTED {
        return None;
    }
    let earliest = jiff::civil::date(2020, 1, 1).to_zoned(ground.time_zone.clone()).ok()?.timestamp().as_millisecond();
    let end = chosen.before_ms(ground).unwrap_or(ground.clock.wall_now().unix_ms + DAY_MS);
    let (mut count, mut first) = (0_u64, None);
    for point in &chosen.points {
        let days = ground.archive.history(point, earliest, end.max(earliest), DAY_MS).ok()?;
        for day in days.iter().filter(|day| day.count > 0) {
            count += u64::from(day.count);
            first = Some(first.map_or(day.start_ms, |first: i64| first.min(day.start_ms)));
        }
    }
    let Some(first) = first else { return Some(words.say("erase-amount-none")) };
    let since = format::date(format::zoned(first, &ground.time_zone).date(), words);
    let shown = format::whole(count, words.language);
    Some(words.say_with("erase-amount", &[("n", count.into()), ("shown", shown.into()), ("date", since.into())]))
}

/// Notes it and begins; what follows is told on the page.
async fn begin(visit: &Visit, chosen: Chosen) -> Result<Answer, Problem> {
    let (site, ground) = (Arc::clone(&visit.site), &visit.site.ground);
    let wish = Erasure {
        before_ms: chosen.before_ms(ground),
        label: chosen.label,
        points: chosen.points,
        by: visit.name().to_owned(),
        at: ground.clock.now(),
        ended: None,
        outcome: Outcome::Begun,
    };
    let eraser = Arc::clone(&site.eraser);
    let noted = {
        let wish = wish.clone();
        site.look(move |ground| eraser.begin(ground.keep.as_ref(), &wish)).await?
    };
    match noted {
        Ok(number) => {
            tokio::task::spawn_blocking(move || site.eraser.work(&site.ground, number, wish));
            Ok(Answer::redirect("/erase"))
        }
        Err(NotBegun::Busy) => page(visit, StatusCode::CONFLICT, Some(visit.words.say("erase-busy")), None).await,
        Err(NotBegun::Journal(wrong)) => Err(Problem::Store(wrong)),
    }
}

/// The journal, the newest first.
pub(super) fn lines(eraser: &Eraser, ground: &Ground, words: &Words, most: usize) -> Result<Vec<Line>, Problem> {
    let journal = eraser.journal(ground.keep.as_ref())?;
    Ok(journal.iter().take(most).map(|(erasure, at_work)| line(erasure, *at_work, ground, words)).collect())
}

fn line(erasure: &Erasure, at_work: bool, ground: &Ground, words: &Words) -> Line {
    let label = erasure.label.as_str();
    let what = match erasure.before_ms {
        None => words.say_with("erased-all", &[("label", label.into())]),
        Some(before) => {
            let day = format::date(format::zoned(before, &ground.time_zone).date(), words);
            words.say_with("erased-before", &[("label", label.into()), ("date", day.into())])
        }
    };
    let (icon, colour, outcome) = match &erasure.outcome {
        Outcome::Begun if at_work => ("clock", "notice", words.say("erased-at-work")),
        Outcome::Begun => ("warning", "warning", words.say("erased-interrupted")),
        Outcome::Done { count } => ("good", "good", words.count("erased-count", *count)),
        Outcome::Refused { count } => ("alarm", "alarm", words.count("erased-refused", *count)),
    };
    let when = format::moment(erasure.at, &ground.clock, &ground.time_zone, words);
    let ended_ms = erasure.ended.and_then(|ended| format::ago_ms(ended, &ground.clock));
    Line { what, when, by: erasure.by.clone(), outcome, icon, colour, ended_ms }
}
