//! What the loudspeakers say: write, listen first, send; what plays, with its stop; and the proof of each playing.

use std::sync::Arc;

use askama::Template;
use warp::http::{StatusCode, header};

use crate::{
    announcement::{AnnouncementId, Announcer, Class, End, Held, JournalEntry, Queued, Refused, Request, State, Zone},
    panel::{
        Ground,
        accounts::Act,
        answer::{Answer, Problem},
        format,
        frame::Frame,
        language::Words,
        previews::range,
        sessions::hex,
        visit::Visit,
    },
};

/// Playings shown.
const JOURNAL: usize = 40;
/// The classes offered; the others come by MQTT or a schedule.
const OFFERED: [Class; 2] = [Class::Information, Class::Alert];

#[derive(Template)]
#[template(path = "announcements.html", config = ".askama.toml")]
struct Announcements {
    frame: Frame,
    draft: Draft,
    /// The address of the sound to listen to.
    preview: Option<String>,
    wrong: Option<String>,
    /// An alert waits for its second gesture.
    confirming: bool,
    classes: Vec<ClassChoice>,
    zones: Vec<ZoneChoice>,
    queue: Vec<Waiting>,
    journal: Vec<Played>,
    may_announce: bool,
}

/// What is being written.
#[derive(Default)]
struct Draft {
    text: String,
    class: Option<Class>,
    zones: Vec<String>,
    /// So that a form sent twice is played once.
    key: String,
}

struct ClassChoice {
    word: &'static str,
    label: String,
    about: String,
    is_chosen: bool,
}

struct ZoneChoice {
    name: String,
    label: String,
    is_chosen: bool,
}

struct Waiting {
    id: u64,
    text: String,
    state: String,
    held: Option<String>,
    icon: &'static str,
    class: String,
    zones: String,
    asked: String,
}

struct Played {
    text: String,
    zone: String,
    class: String,
    when: String,
    machine_when: String,
    end: String,
    icon: &'static str,
    detail: String,
}

/// What the page tells besides queue and journal.
#[derive(Default)]
struct Told {
    draft: Draft,
    preview: Option<String>,
    wrong: Option<String>,
    confirming: bool,
    done: Option<String>,
}

/// `/announcements`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    let announcer = visit.site.ground.announcer.clone().ok_or(Problem::NotFound)?;
    if !visit.is_post() {
        let sent = visit.query.get("sent").parse::<u64>().ok();
        let done = match (sent, visit.query.get("stopped")) {
            (Some(_), _) => Some(visit.words.say("announcement-sent")),
            (None, "yes") => Some(visit.words.say("announcement-stopped")),
            _ => None,
        };
        return page(&visit, announcer.as_ref(), StatusCode::OK, Told { done, ..Told::default() });
    }
    visit.must(Act::Announce)?;
    match visit.form.get("do") {
        "listen" => listen(&visit, announcer.as_ref()).await,
        "send" => send(&visit, announcer.as_ref()).await,
        "stop" => stop(&visit, announcer.as_ref()),
        "edit" => page(&visit, announcer.as_ref(), StatusCode::OK, Told { draft: draft(&visit), ..Told::default() }),
        _ => Err(Problem::Unreadable),
    }
}

fn draft(visit: &Visit) -> Draft {
    let form = &visit.form;
    // Browsers send line ends as CR LF (HTML, §4.10.22.4).
    let text = form.get("text").replace("\r\n", "\n").trim().to_owned();
    Draft { text, class: form.get("class").parse().ok(), zones: form.all("zone"), key: form.get("key").to_owned() }
}

async fn listen(visit: &Visit, announcer: &dyn Announcer) -> Result<Answer, Problem> {
    let draft = draft(visit);
    let class = draft.class.unwrap_or(Class::Information);
    let sound = match announcer.preview(&draft.text, class).await {
        Ok(sound) => sound,
        Err(refused) => return refuse(visit, announcer, draft, &refused),
    };
    let key = visit.site.previews.hold(visit.name(), sound.into());
    let told = Told { draft, preview: Some(format!("/previews/{key}.wav")), ..Told::default() };
    page(visit, announcer, StatusCode::OK, told)
}

async fn send(visit: &Visit, announcer: &dyn Announcer) -> Result<Answer, Problem> {
    let draft = draft(visit);
    let class = draft.class.filter(|class| OFFERED.contains(class)).ok_or(Problem::Unreadable)?;
    if class == Class::Alert {
        visit.must(Act::Alert)?;
        if visit.form.get("confirmed") != "yes" {
            return confirm(visit, announcer, draft);
        }
    }
    let request = Request {
        text: draft.text.clone(),
        class,
        zones: draft.zones.clone(),
        asked_by: visit.name().to_owned(),
        key: Some(draft.key.clone()).filter(|key| !key.is_empty() && key.len() <= 64),
    };
    match announcer.ask(request).await {
        Ok(id) => {
            tracing::info!(announcement = %id, class = %class, by = visit.name(), "Announcement asked for");
            Ok(Answer::redirect(&format!("/announcements?sent={id}")))
        }
        Err(refused) => refuse(visit, announcer, draft, &refused),
    }
}

/// An alert is shown once more before it leaves; what cannot be sent anyway is refused first.
fn confirm(visit: &Visit, announcer: &dyn Announcer, draft: Draft) -> Result<Answer, Problem> {
    let refused = match (draft.text.is_empty(), draft.zones.is_empty()) {
        (true, _) => Some(Refused::Empty),
        (_, true) => Some(Refused::NoZone),
        _ => None,
    };
    if let Some(refused) = refused {
        return refuse(visit, announcer, draft, &refused);
    }
    page(visit, announcer, StatusCode::OK, Told { draft, confirming: true, ..Told::default() })
}

fn stop(visit: &Visit, announcer: &dyn Announcer) -> Result<Answer, Problem> {
    let id = visit.form.get("id").parse().map_err(|_| Problem::Unreadable)?;
    announcer.stop(Some(AnnouncementId(id)), visit.name());
    tracing::info!(announcement = id, by = visit.name(), "Announcement stopped");
    Ok(Answer::redirect("/announcements?stopped=yes"))
}

fn refuse(visit: &Visit, announcer: &dyn Announcer, draft: Draft, refused: &Refused) -> Result<Answer, Problem> {
    let wrong = Some(refusal(refused, &visit.words));
    page(visit, announcer, StatusCode::UNPROCESSABLE_ENTITY, Told { draft, wrong, ..Told::default() })
}

/// Why an announcement was not taken, as the person who wrote it understands it.
fn refusal(refused: &Refused, words: &Words) -> String {
    match refused {
        Refused::Empty => words.say("refused-empty"),
        Refused::TooLong(length, most) => {
            words.say_with("refused-too-long", &[("length", (*length).into()), ("most", (*most).into())])
        }
        Refused::NoZone => words.say("refused-no-zone"),
        Refused::UnknownZone(zone) => words.say_with("refused-unknown-zone", &[("zone", zone.as_str().into())]),
        Refused::QueueFull(waiting) => words.count("refused-queue-full", *waiting as u64),
        Refused::Voice(why) => {
            tracing::warn!(why, "Announcement cannot be spoken");
            words.say("refused-voice")
        }
        Refused::NotKept(why) => {
            tracing::warn!(why, "Announcement not kept");
            words.say("refused-not-kept")
        }
    }
}

fn page(visit: &Visit, announcer: &dyn Announcer, status: StatusCode, told: Told) -> Result<Answer, Problem> {
    let (ground, words) = (&visit.site.ground, &visit.words);
    let Told { mut draft, preview, wrong, confirming, done } = told;
    let zones = announcer.zones();
    if draft.key.is_empty() {
        draft.key = hex(&rand::random::<[u8; 12]>());
        draft.zones = zones.iter().map(|zone| zone.name.clone()).collect();
    }
    let classes = OFFERED.into_iter().filter(|class| *class != Class::Alert || visit.may(Act::Alert));
    let chosen = draft.class.unwrap_or(Class::Information);
    Answer::page_with(
        status,
        &Announcements {
            frame: Frame::new(visit, &words.say("announcements-title"), "/announcements").having_done(done),
            classes: classes.map(|class| class_choice(class, chosen, words)).collect(),
            zones: zones.iter().map(|zone| zone_choice(zone, &draft.zones)).collect(),
            queue: announcer.queue().iter().map(|queued| waiting(queued, &zones, ground, words)).collect(),
            journal: announcer.journal(JOURNAL).iter().map(|entry| played(entry, &zones, ground, words)).collect(),
            may_announce: visit.may(Act::Announce),
            draft,
            preview,
            wrong,
            confirming,
        },
    )
}

fn class_word(class: Class, words: &Words) -> String {
    match class {
        Class::Ambiance => words.say("class-ambiance"),
        Class::Information => words.say("class-information"),
        Class::Important => words.say("class-important"),
        Class::Alert => words.say("class-alert"),
    }
}

fn class_choice(class: Class, chosen: Class, words: &Words) -> ClassChoice {
    let about = if class == Class::Alert { "class-alert-about" } else { "class-information-about" };
    ClassChoice {
        word: class.as_str(),
        label: class_word(class, words),
        about: words.say(about),
        is_chosen: class == chosen,
    }
}

fn zone_choice(zone: &Zone, chosen: &[String]) -> ZoneChoice {
    ZoneChoice { name: zone.name.clone(), label: zone.label.clone(), is_chosen: chosen.contains(&zone.name) }
}

fn zone_label(name: &str, zones: &[Zone]) -> String {
    zones.iter().find(|zone| zone.name == name).map_or_else(|| name.to_owned(), |zone| zone.label.clone())
}

/// Why an announcement has not been said yet, and until when.
fn hold_words(held: Held, words: &Words) -> String {
    words.say(match held {
        Held::QuietHours => "queue-held-quiet-hours",
        Held::DailyBudget => "queue-held-daily-budget",
        Held::UnknownTime => "queue-held-unknown-time",
    })
}

fn waiting(queued: &Queued, zones: &[Zone], ground: &Ground, words: &Words) -> Waiting {
    let (state, icon) = match queued.state {
        State::Waiting => (words.say("queue-waiting"), "clock"),
        State::Preparing => (words.say("queue-preparing"), "clock"),
        State::Playing => (words.say("queue-playing"), "speak"),
    };
    let asked = format::moment(queued.asked, &ground.clock, &ground.time_zone, words);
    let labels: Vec<String> = queued.request.zones.iter().map(|zone| zone_label(zone, zones)).collect();
    Waiting {
        id: queued.id.0,
        text: queued.request.text.clone(),
        state,
        held: queued.held.map(|held| hold_words(held, words)),
        icon,
        class: class_word(queued.request.class, words),
        zones: labels.join(", "),
        asked: words.say_with("asked-by", &[("who", queued.request.asked_by.as_str().into()), ("when", asked.into())]),
    }
}

fn played(entry: &JournalEntry, zones: &[Zone], ground: &Ground, words: &Words) -> Played {
    let lasted = format::lasting(entry.audible_ms, words);
    let (end, icon, detail) = match &entry.end {
        End::Played => (words.say_with("end-played", &[("lasted", lasted.into())]), "good", String::new()),
        End::Cut { by } => (words.say_with("end-cut", &[("by", by.0.into())]), "notice", String::new()),
        End::Stopped { by } => (words.say_with("end-stopped", &[("by", by.as_str().into())]), "stop", String::new()),
        End::Failed { why } => (words.say("end-failed"), "alarm", why.clone()),
    };
    let when = format::moment(entry.started, &ground.clock, &ground.time_zone, words);
    Played {
        text: entry.text.clone(),
        zone: zone_label(&entry.zone, zones),
        class: class_word(entry.class, words),
        when: words.say_with("asked-by", &[("who", entry.asked_by.as_str().into()), ("when", when.into())]),
        machine_when: format::machine_time(entry.started, &ground.clock),
        end,
        icon,
        detail,
    }
}

/// `/previews/<key>.wav`, whole or in the part a player asks for.
pub(crate) fn preview(visit: &Visit) -> Result<Answer, Problem> {
    visit.only_reading()?;
    visit.must(Act::Announce)?;
    let key = visit.tail.strip_suffix(".wav").ok_or(Problem::NotFound)?;
    let sound = visit.site.previews.find(visit.name(), key).ok_or(Problem::NotFound)?;
    let part = range(visit.header(header::RANGE), sound.len());
    let answer = match part {
        Some((first, last)) => Answer::file(StatusCode::PARTIAL_CONTENT, "audio/wav", sound.slice(first..=last))
            .with(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", sound.len())),
        None => Answer::file(StatusCode::OK, "audio/wav", sound),
    };
    Ok(answer.with(header::ACCEPT_RANGES, "bytes"))
}
