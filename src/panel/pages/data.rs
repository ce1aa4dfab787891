//! One place for what the box keeps: who receives it, who agreed, what is missing, what was erased.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;

use super::{consents, erase, home};
use crate::{
    panel::{
        Ground,
        accounts::Act,
        answer::{Answer, Problem},
        frame::Frame,
        kept::{self, Kept},
        language::Words,
        partners::{self, Form, Partner},
        visit::Visit,
    },
    reading::{Point, Sharing},
};

/// Erasures shown here; the page of erasing shows more.
const ERASURES: usize = 5;

#[derive(Template)]
#[template(path = "data.html", config = ".askama.toml")]
struct Data {
    frame: Frame,
    partners: Vec<Partner>,
    personal: String,
    has_personal: bool,
    kept: Kept,
    classes: Vec<Class>,
    erasures: Vec<erase::Line>,
    may_record: bool,
    may_erase: bool,
}

/// A sharing class, what it means, and what is in it.
#[derive(Debug, PartialEq, Eq)]
struct Class {
    word: String,
    about: String,
    count: String,
    id: &'static str,
    /// Devices, or points of a device that is in several classes.
    things: Vec<String>,
}

/// `/data`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let words = visit.words.clone();
    let (partners, kept, personal, erasures) = visit
        .site
        .look({
            let eraser = Arc::clone(&visit.site.eraser);
            move |ground| {
                let records = partners::register(ground.keep.as_ref())?;
                let erasures = erase::lines(&eraser, ground, &words, ERASURES)?;
                let partners = partners::partners(&records, ground, &words);
                Ok::<_, Problem>((partners, kept::kept(ground, &words), consents::summary(ground, &words), erasures))
            }
        })
        .await??;
    let (ground, words) = (&visit.site.ground, &visit.words);
    Answer::page(&Data {
        frame: Frame::new(&visit, &words.say("data-title"), "/data"),
        partners,
        personal,
        has_personal: ground.live.points().any(|point| point.sharing == Sharing::Personal),
        kept,
        classes: classes(ground, words),
        erasures,
        may_record: visit.may(Act::Consent),
        may_erase: visit.may(Act::Erase),
    })
}

fn classes(ground: &Ground, words: &Words) -> Vec<Class> {
    let all = [
        (Sharing::Public, "public", "class-public-about"),
        (Sharing::Internal, "internal", "class-internal-about"),
        (Sharing::Personal, "personal", "class-personal-about"),
    ];
    let classes = all.into_iter().map(|(class, id, about)| {
        let things = things(class, ground, words);
        Class {
            word: words.say(partners::class_word(class, Form::One)),
            about: words.say(about),
            count: words.count("class-count", things.len() as u64),
            id,
            things,
        }
    });
    classes.collect()
}

/// A device by its name when all it measures is of the class; else the points that are.
fn things(class: Sharing, ground: &Ground, words: &Words) -> Vec<String> {
    let mut devices: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for point in ground.live.points() {
        devices.entry(home::device_of(&point.id)).or_default().push(point);
    }
    let mut things = Vec::new();
    for (device, points) in devices {
        let label = home::device_label(device, ground);
        let of_class: Vec<&&Point> = points.iter().filter(|point| point.sharing == class).collect();
        if of_class.len() == points.len() && !points.is_empty() {
            things.push(label);
            continue;
        }
        things
            .extend(of_class.into_iter().map(|point| format!("{label} – {}", home::point_label(point, &label, words))));
    }
    things
}
