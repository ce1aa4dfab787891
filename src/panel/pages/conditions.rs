//! What is wrong, since when, and what to do about it; what is over; how the gateway's own parts are.

use std::sync::Arc;

use askama::Template;

use super::home;

use crate::{
    condition::{Code, Condition, Severity},
    panel::{
        Ground,
        accounts::Act,
        answer::{Answer, Problem},
        format,
        frame::Frame,
        kept,
        language::Words,
        machine, partners,
        visit::Visit,
    },
    reading::PointId,
    supervisor::Health,
};

#[derive(Template)]
#[template(path = "conditions.html", config = ".askama.toml")]
struct Conditions {
    frame: Frame,
    sentence: String,
    icon: &'static str,
    open: Vec<Open>,
    closed: Vec<Closed>,
    faults: Vec<String>,
    units: Vec<Unit>,
    store: Store,
    machine: machine::Told,
    may_acknowledge: bool,
}

struct Open {
    code: &'static str,
    /// As the board knows it.
    subject: String,
    title: String,
    icon: &'static str,
    severity: String,
    since: String,
    machine_since: String,
    todo: String,
    detail: String,
    seen: Option<String>,
}

struct Closed {
    title: String,
    since: String,
    closed: String,
}

struct Unit {
    name: String,
    icon: &'static str,
    word: String,
}

struct Store {
    readings: String,
    size: String,
    lost: String,
}

/// Most closed conditions shown.
const CLOSED: usize = 50;

/// What is open and worth telling. That a device is silent while its port is unplugged is the same thing twice.
pub(crate) fn told(ground: &Ground) -> Vec<Condition> {
    let mut open = ground.board.open();
    let unplugged = |condition: &Condition| {
        condition.code == Code::DeviceSilent
            && ground.ports.iter().any(|(port, devices)| {
                ground.board.is_open(Code::PortUnplugged, port)
                    && devices.iter().any(|device| device.as_str() == condition.subject)
            })
    };
    open.retain(|condition| !unplugged(condition));
    open
}

/// How many things wait to be looked at. Faults of the configuration that nobody raised count as one.
pub(crate) fn waiting(ground: &Ground) -> usize {
    told(ground).len() + usize::from(!is_told(ground) && !ground.configuration_faults.is_empty())
}

/// Whether the faults of the configuration are on the board, each with its particulars.
fn is_told(ground: &Ground) -> bool {
    ground.board.open().iter().any(|condition| condition.code == Code::ConfigurationFault)
}

/// What a condition is, and of what: `L’eau coule quand personne ne devrait en prendre : Compteur de la salle`.
pub(crate) fn title(condition: &Condition, ground: &Ground, words: &Words) -> String {
    let title = words.say(&format!("condition-{}-title", condition.code));
    let subject = subject(condition, ground, words);
    if subject.is_empty() {
        return title;
    }
    words.say_with("condition-of", &[("title", title.into()), ("subject", subject.into())])
}

/// Whether a condition is about the box itself: its title says it all.
fn is_of_the_box(code: Code) -> bool {
    matches!(
        code,
        Code::ClockUntrusted
            | Code::StoreDamaged
            | Code::StoreRefusesWrites
            | Code::ReadingsLost
            | Code::BrokerSilent
            | Code::VoiceMissing
            | Code::UnitGaveUp
            | Code::PinUnusable
            | Code::SupplyWeak
            | Code::CardSlow
            | Code::CardWorn
            | Code::CardNearlyFull
    )
}

/// What a condition is about, by what people call it; what says nothing to them stays in the particulars.
fn subject(condition: &Condition, ground: &Ground, words: &Words) -> String {
    let name = condition.subject.as_str();
    if is_of_the_box(condition.code) {
        return String::new();
    }
    if condition.code == Code::PortUnplugged {
        let devices = ground.ports.get(name).into_iter().flatten();
        return devices.map(|device| measured(device.as_str(), ground)).collect::<Vec<_>>().join(", ");
    }
    if condition.code == Code::AnnouncementFailed {
        let zones = ground.announcer.as_ref().map(|announcer| announcer.zones()).unwrap_or_default();
        return zones.into_iter().find(|zone| zone.name == name).map_or_else(|| name.to_owned(), |zone| zone.label);
    }
    if condition.code == Code::PeerAbsent {
        return partners::called(name, ground);
    }
    let block = name.strip_prefix("device \"").and_then(|rest| rest.strip_suffix('"'));
    match block {
        Some(device) if condition.code == Code::ConfigurationFault => match measured(device, ground) {
            label if label == device => words.say_with("subject-device", &[("name", device.into())]),
            label => label,
        },
        _ => measured(name, ground),
    }
}

/// A point or device by what people call it; as it is called when it is neither.
fn measured(name: &str, ground: &Ground) -> String {
    let Ok(id) = name.parse::<PointId>() else { return name.to_owned() };
    if let Some(label) = ground.devices.get(&id) {
        return label.clone();
    }
    let Some(point) = ground.live.point(&id) else {
        let has_points = ground.live.points().any(|point| home::device_of(&point.id) == name);
        return if has_points { home::device_label(name, ground) } else { name.to_owned() };
    };
    let device = home::device_label(home::device_of(&id), ground);
    if point.label.starts_with(&device) { point.label.clone() } else { format!("{device} – {}", point.label) }
}

fn severity(severity: Severity, words: &Words) -> (&'static str, String) {
    match severity {
        Severity::Notice => ("notice", words.say("severity-notice")),
        Severity::Warning => ("warning", words.say("severity-warning")),
        Severity::Alarm => ("alarm", words.say("severity-alarm")),
    }
}

/// `/conditions`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    if visit.is_post() {
        return acknowledge(&visit);
    }
    let (ground, words) = (&visit.site.ground, &visit.words);
    let state = home::state(ground, words);
    Answer::page(&Conditions {
        frame: Frame::new(&visit, &words.say("conditions-title"), "/conditions"),
        sentence: state.sentence,
        icon: state.icon,
        open: told(ground).iter().map(|condition| open(condition, ground, words)).collect(),
        closed: ground.board.closed().iter().take(CLOSED).map(|condition| closed(condition, ground, words)).collect(),
        faults: if is_told(ground) { Vec::new() } else { ground.configuration_faults.clone() },
        units: ground.supervisor.health().into_iter().map(|(name, health)| unit(name, health, words)).collect(),
        store: store(&visit).await?,
        machine: machine::told(ground, words),
        may_acknowledge: visit.may(Act::Acknowledge),
    })
}

fn acknowledge(visit: &Visit) -> Result<Answer, Problem> {
    visit.must(Act::Acknowledge)?;
    let code = Code::ALL.iter().find(|code| code.as_str() == visit.form.get("code")).ok_or(Problem::Unreadable)?;
    visit.site.ground.board.acknowledge(*code, visit.form.get("subject"), visit.name());
    Ok(Answer::redirect("/conditions"))
}

fn open(condition: &Condition, ground: &Ground, words: &Words) -> Open {
    let (icon, severity) = severity(condition.severity, words);
    let moment = |stamp| format::moment(stamp, &ground.clock, &ground.time_zone, words);
    let seen = condition.acknowledged.as_ref().map(|(who, when)| {
        words.say_with("condition-seen", &[("who", who.as_str().into()), ("when", moment(*when).into())])
    });
    Open {
        code: condition.code.as_str(),
        subject: condition.subject.clone(),
        title: title(condition, ground, words),
        icon,
        severity,
        since: moment(condition.since),
        machine_since: format::machine_time(condition.since, &ground.clock),
        todo: words.say(&format!("condition-{}-todo", condition.code)),
        detail: condition.detail.clone(),
        seen,
    }
}

fn closed(condition: &Condition, ground: &Ground, words: &Words) -> Closed {
    let moment = |stamp| format::moment(stamp, &ground.clock, &ground.time_zone, words);
    Closed {
        title: title(condition, ground, words),
        since: moment(condition.since),
        closed: condition.closed.map(moment).unwrap_or_default(),
    }
}

fn unit(name: String, health: Health, words: &Words) -> Unit {
    let (icon, word) = match health {
        Health::Running => ("good", words.say("unit-running")),
        Health::Pausing => ("warning", words.say("unit-pausing")),
        Health::GaveUp => ("alarm", words.say("unit-gave-up")),
        Health::Stopped => ("stop", words.say("unit-stopped")),
    };
    Unit { name, icon, word }
}

async fn store(visit: &Visit) -> Result<Store, Problem> {
    let (figures, gaps) = visit.site.look(|ground| (ground.archive.figures(), ground.archive.gaps())).await?;
    let words = &visit.words;
    let stored = kept::stored(&figures, &gaps);
    let (size, limit) = (format::bytes(figures.bytes, words), format::bytes(figures.bytes_limit, words));
    Ok(Store {
        readings: words.count("store-readings", stored),
        size: words.say_with("store-size", &[("size", size.into()), ("limit", limit.into())]),
        lost: words.count("store-lost", figures.lost),
    })
}
