//! Personal data: what leaves to whom with whose agreement; recording an agreement, and its withdrawal.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use jiff::civil::Date;
use warp::http::StatusCode;

use super::home;
use crate::{
    config::peers::PeerSettings,
    consent::{Entry, NotRecorded, Standing, What},
    panel::{
        Ground,
        accounts::Act,
        answer::{Answer, Problem},
        format,
        frame::Frame,
        language::Words,
        partners,
        visit::Visit,
    },
    reading::{Point, PointId, Sharing},
};

/// Longest name and longest other text, in characters.
const NAME: usize = 60;
const TEXT: usize = 200;
/// Lines of the record on a page.
const ON_A_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "consents.html", config = ".askama.toml")]
struct ConsentsPage {
    frame: Frame,
    devices: Vec<Device>,
    /// Who may ask for personal data at all.
    asking: Vec<Choice>,
    record: Vec<Line>,
    older: Option<usize>,
    newer: Option<usize>,
    may_record: bool,
    is_written: bool,
    draft: Draft,
}

/// A device that measures something personal.
struct Device {
    name: String,
    /// For addresses in the page.
    slug: String,
    label: String,
    points: Vec<Choice>,
    flows: Vec<Flow>,
    /// Its form is the one that was refused.
    is_drafted: bool,
}

struct Choice {
    value: String,
    label: String,
    is_chosen: bool,
}

/// A device's data towards one server.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    peer: String,
    label: String,
    leaves: bool,
    sentence: String,
    particulars: String,
}

/// A line of the record.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    what: String,
    about: String,
    when: String,
    by: String,
}

/// What was written into a form that was refused.
#[derive(Default)]
struct Draft {
    device: String,
    point: String,
    person: String,
    purpose: String,
    paper: String,
    dated: String,
    peers: Vec<String>,
    wrong: Option<String>,
    wrong_withdrawal: Option<(String, String)>,
}

impl Draft {
    /// Whether the withdrawal that was refused is this one.
    fn is_refused(&self, device: &str, peer: &str) -> bool {
        self.wrong_withdrawal.as_ref().is_some_and(|(d, p)| d == device && p == peer)
    }
}

/// `/consents`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    if !visit.is_post() {
        return page(&visit, StatusCode::OK, Draft::default()).await;
    }
    visit.must(Act::Consent)?;
    match visit.form.get("do") {
        "give" => give(&visit).await,
        "withdraw" => withdraw(&visit).await,
        _ => Err(Problem::Unreadable),
    }
}

/// The personal points of each device.
fn personal(ground: &Ground) -> BTreeMap<&str, Vec<&Point>> {
    let mut devices: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for point in ground.live.points().filter(|point| point.sharing == Sharing::Personal) {
        devices.entry(home::device_of(&point.id)).or_default().push(point);
    }
    devices
}

/// The servers that may ask for personal data.
fn asking(ground: &Ground) -> impl Iterator<Item = &PeerSettings> {
    ground.peers.iter().filter(|peer| peer.sharing.contains(&Sharing::Personal))
}

/// How personal data stands, in a sentence.
pub(super) fn summary(ground: &Ground, words: &Words) -> String {
    let devices = personal(ground);
    if devices.is_empty() {
        return words.say("consents-no-points");
    }
    let any_leaves =
        |points: &&Vec<&Point>| asking(ground).any(|peer| points.iter().any(|point| leaves(point, peer, ground)));
    let (all, leaving) = (devices.len() as u64, devices.values().filter(any_leaves).count() as u64);
    let count = words.count("personal-count", all);
    let then = match leaving {
        0 => words.say("personal-none"),
        leaving if leaving == all => words.count("personal-all", all),
        leaving => words.count("personal-some", leaving),
    };
    format!("{count} {then}")
}

fn leaves(point: &Point, peer: &PeerSettings, ground: &Ground) -> bool {
    ground.consents.allow(&point.id, &peer.name, peer.consent.is_some())
}

async fn page(visit: &Visit, status: StatusCode, draft: Draft) -> Result<Answer, Problem> {
    let (words, names) = (visit.words.clone(), visit.may(Act::Consent));
    let drafted = draft.device.clone();
    let (entries, devices) = visit
        .site
        .look(move |ground| {
            let entries = ground.consents.all();
            let view = View { ground, words: &words, entries: entries.as_deref().unwrap_or_default(), names };
            let devices: Vec<Device> =
                personal(ground).into_iter().map(|(name, points)| view.device(name, &points, &drafted)).collect();
            (entries, devices)
        })
        .await?;
    let (ground, words) = (&visit.site.ground, &visit.words);
    let entries = entries?;
    let page: usize = visit.query.get("page").parse().unwrap_or(0).min(entries.len() / ON_A_PAGE);
    let view = View { ground, words, entries: &entries, names };
    let here = entries.iter().rev().skip(page * ON_A_PAGE).take(ON_A_PAGE);
    let chosen = |peer: &PeerSettings| draft.peers.is_empty() || draft.peers.contains(&peer.name);
    let asking: Vec<Choice> = asking(ground)
        .map(|peer| Choice { value: peer.name.clone(), label: peer.called().to_owned(), is_chosen: chosen(peer) })
        .collect();
    let done = match visit.query.get("done") {
        "given" => Some(words.say("consent-noted")),
        "withdrawn" => Some(words.say("consent-ended")),
        _ => None,
    };
    Answer::page_with(
        status,
        &ConsentsPage {
            frame: Frame::new(visit, &words.say("consents-title"), "/data").having_done(done),
            devices,
            asking,
            record: here.map(|entry| view.line(entry)).collect(),
            older: (entries.len() > (page + 1) * ON_A_PAGE).then_some(page + 1),
            newer: page.checked_sub(1),
            may_record: names,
            is_written: ground.consents.is_written(),
            draft,
        },
    )
}

fn today(ground: &Ground) -> Date {
    format::zoned(ground.clock.wall_now().unix_ms, &ground.time_zone).date()
}

/// The record as one visitor sees it.
struct View<'a> {
    ground: &'a Ground,
    words: &'a Words,
    entries: &'a [Entry],
    /// Whether the visitor may read whose agreement it is.
    names: bool,
}

impl View<'_> {
    fn device(&self, name: &str, points: &[&Point], drafted: &str) -> Device {
        let label = home::device_label(name, self.ground);
        let choice = |point: &&Point| Choice {
            value: point.id.to_string(),
            label: home::point_label(point, &label, self.words),
            is_chosen: false,
        };
        Device {
            name: name.to_owned(),
            slug: name.replace('/', "-"),
            points: points.iter().map(choice).collect(),
            flows: asking(self.ground).map(|peer| self.flow(points, peer)).collect(),
            is_drafted: name == drafted,
            label,
        }
    }

    fn flow(&self, points: &[&Point], peer: &PeerSettings) -> Flow {
        let leaving: Vec<&&Point> = points.iter().filter(|point| leaves(point, peer, self.ground)).collect();
        let (leaves, whole) = (!leaving.is_empty(), leaving.len() == points.len());
        let told_of = leaving.first().copied().or(points.first());
        let standing = told_of.map_or(Standing::Unspoken, |point| self.ground.consents.standing(&point.id, &peer.name));
        let label = peer.called().to_owned();
        let to = [("server", label.as_str().into())];
        let sentence = match (leaves, whole) {
            (true, true) => self.words.say_with("flow-leaves", &to),
            (true, false) => self.words.say_with("flow-leaves-in-part", &to),
            (false, _) => self.words.say_with("flow-stays", &to),
        };
        Flow { peer: peer.name.clone(), leaves, sentence, particulars: self.particulars(standing, peer), label }
    }

    /// Why it leaves, or stays.
    fn particulars(&self, standing: Standing, peer: &PeerSettings) -> String {
        let entry = |place: usize| self.entries.get(place);
        match standing {
            Standing::Given(place) => entry(place).map(|entry| self.given(entry)).unwrap_or_default(),
            Standing::Withdrawn(place) => {
                let when = entry(place).map(|entry| self.moment(entry)).unwrap_or_default();
                self.words.say_with("flow-withdrawn", &[("when", when.into())])
            }
            Standing::Doubted => self.words.say("flow-doubted"),
            Standing::Unspoken => match &peer.consent {
                Some(text) if self.names => {
                    self.words.say_with("flow-configured", &[("consent", text.as_str().into())])
                }
                Some(_) => self.words.say("flow-configured-unnamed"),
                None => self.words.say("flow-unspoken"),
            },
        }
    }

    fn given(&self, entry: &Entry) -> String {
        let What::Given { person, paper, dated, purpose } = &entry.what else { return String::new() };
        if !self.names {
            return self.words.say_with("flow-given-unnamed", &[("date", self.day(dated).into())]);
        }
        let key = if purpose.is_empty() { "flow-given" } else { "flow-given-for" };
        self.words.say_with(
            key,
            &[
                ("person", person.as_str().into()),
                ("date", self.day(dated).into()),
                ("paper", paper.as_str().into()),
                ("purpose", purpose.as_str().into()),
            ],
        )
    }

    fn day(&self, dated: &str) -> String {
        dated.parse::<Date>().map_or_else(|_| dated.to_owned(), |date| format::date(date, self.words))
    }

    fn moment(&self, entry: &Entry) -> String {
        format::moment(entry.at, &self.ground.clock, &self.ground.time_zone, self.words)
    }

    fn line(&self, entry: &Entry) -> Line {
        let peers: Vec<String> = entry.peers.iter().map(|peer| partners::called(peer, self.ground)).collect();
        let subject =
            [("things", self.things(&entry.points).into()), ("servers", partners::in_a_row(&peers, self.words).into())];
        let (what, about) = match &entry.what {
            What::Given { .. } => ("record-given", self.given(entry)),
            What::Withdrawn { person } if self.names => {
                ("record-withdrawn", self.words.say_with("record-asked-by", &[("person", person.as_str().into())]))
            }
            What::Withdrawn { .. } => ("record-withdrawn", String::new()),
            What::Doubted => ("record-doubted", self.words.say("record-doubted-about")),
        };
        Line {
            what: self.words.say_with(what, &subject),
            about,
            when: self.moment(entry),
            by: if self.names { entry.by.clone() } else { String::new() },
        }
    }

    /// Points by what people call them: a device that is meant whole by its own name.
    fn things(&self, points: &[PointId]) -> String {
        let mut devices: BTreeMap<&str, Vec<&PointId>> = BTreeMap::new();
        for point in points {
            devices.entry(home::device_of(point)).or_default().push(point);
        }
        let all = personal(self.ground);
        let called = |(device, points): (&str, Vec<&PointId>)| {
            let label = home::device_label(device, self.ground);
            let whole = all.get(device).is_none_or(|all| all.iter().all(|point| points.contains(&&point.id)));
            if whole {
                return label;
            }
            let known = points.iter().filter_map(|point| self.ground.live.point(point));
            let labels: Vec<String> = known.map(|point| home::point_label(point, &label, self.words)).collect();
            format!("{label} – {}", partners::in_a_row(&labels, self.words))
        };
        devices.into_iter().map(called).collect::<Vec<_>>().join(", ")
    }
}

/// The personal points a form is about: a device's, or one of them.
fn subjects(visit: &Visit) -> Result<Vec<PointId>, Problem> {
    let points = personal(&visit.site.ground).remove(visit.form.get("device")).unwrap_or_default();
    let wanted = visit.form.get("point");
    let of_form = |point: &&Point| wanted.is_empty() || point.id.as_str() == wanted;
    let points: Vec<PointId> = points.into_iter().filter(of_form).map(|point| point.id.clone()).collect();
    if points.is_empty() { Err(Problem::Unreadable) } else { Ok(points) }
}

/// A text of a form with its spaces put in order; `None` when it is too long.
fn tidy(text: &str, most: usize) -> Option<String> {
    let text = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text = text.collect::<Vec<_>>().join(" ");
    (text.chars().count() <= most).then_some(text)
}

/// A day as a date field sends it, or as it is written by hand where there is no such field.
pub(super) fn day(text: &str) -> Option<Date> {
    let text = text.trim();
    let by_hand = || {
        let mut parts = text.split(['/', '.']).map(str::trim);
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
    };
    text.parse().ok().or_else(by_hand)
}

/// A form, checked; or the message that says what is wrong with it.
fn checked(visit: &Visit) -> Result<(What, Vec<String>), &'static str> {
    let ground = &visit.site.ground;
    let full = |name: &str, most, key| tidy(visit.form.get(name), most).filter(|text| !text.is_empty()).ok_or(key);
    let person = full("person", NAME, "consent-wrong-person")?;
    let paper = full("paper", TEXT, "consent-wrong-paper")?;
    let purpose = tidy(visit.form.get("purpose"), TEXT).ok_or("consent-wrong-purpose")?;
    let dated = day(visit.form.get("dated")).filter(|day| *day <= today(ground)).ok_or("consent-wrong-date")?;
    let asked = visit.form.all("peer");
    let peers: Vec<String> = asking(ground).map(|peer| peer.name.clone()).filter(|name| asked.contains(name)).collect();
    if peers.is_empty() {
        return Err("consent-wrong-server");
    }
    Ok((What::Given { person, purpose, paper, dated: dated.to_string() }, peers))
}

async fn give(visit: &Visit) -> Result<Answer, Problem> {
    let points = subjects(visit)?;
    let (what, peers) = match checked(visit) {
        Ok(checked) => checked,
        Err(key) => return page(visit, StatusCode::UNPROCESSABLE_ENTITY, drafted(visit, key)).await,
    };
    let (at, by) = (visit.site.ground.clock.now(), visit.name().to_owned());
    let entry = Entry { what, points, peers, at, by };
    match visit.site.look(move |ground| ground.consents.give(entry)).await? {
        Ok(()) => Ok(Answer::redirect("/consents?done=given")),
        Err(NotRecorded::Card(wrong)) => Err(Problem::Store(wrong)),
        Err(NotRecorded::Full) => page(visit, StatusCode::CONFLICT, drafted(visit, "consents-full")).await,
        Err(NotRecorded::Incomplete) => Err(Problem::Unreadable),
    }
}

fn drafted(visit: &Visit, key: &str) -> Draft {
    let field = |name: &str| visit.form.get(name).to_owned();
    Draft {
        device: field("device"),
        point: field("point"),
        person: field("person"),
        purpose: field("purpose"),
        paper: field("paper"),
        dated: field("dated"),
        peers: visit.form.all("peer"),
        wrong: Some(visit.words.say(key)),
        wrong_withdrawal: None,
    }
}

/// Takes effect at once, for whoever is pulling now too.
async fn withdraw(visit: &Visit) -> Result<Answer, Problem> {
    let points = subjects(visit)?;
    let peer =
        asking(&visit.site.ground).find(|peer| peer.name == visit.form.get("peer")).ok_or(Problem::Unreadable)?;
    let Some(person) = tidy(visit.form.get("person"), NAME).filter(|person| !person.is_empty()) else {
        let place = (visit.form.get("device").to_owned(), peer.name.clone());
        let draft = Draft { wrong_withdrawal: Some(place), ..Draft::default() };
        return page(visit, StatusCode::UNPROCESSABLE_ENTITY, draft).await;
    };
    let (at, by) = (visit.site.ground.clock.now(), visit.name().to_owned());
    let entry = Entry { what: What::Withdrawn { person }, points, peers: vec![peer.name.clone()], at, by };
    match visit.site.look(move |ground| ground.consents.withdraw(entry)).await? {
        // What the card has not taken yet is said on the page itself, until it has.
        Ok(()) | Err(NotRecorded::Card(_)) => Ok(Answer::redirect("/consents?done=withdrawn")),
        Err(NotRecorded::Incomplete | NotRecorded::Full) => Err(Problem::Unreadable),
    }
}
