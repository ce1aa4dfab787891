//! The central servers as the commune sees them: what each may take, how far it is, when it last came.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Ground, format, language::Words};
use crate::{
    clock::Stamp,
    config::peers::PeerSettings,
    consent::Standing,
    reading::{PointId, Sharing},
    store::{Entry, Keep, PageRequest, StoreError},
};

/// Written by the pull listener: the key is a big-endian counter, so that records are in order of time.
const TABLE: &str = "access";

/// A record as the listener writes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    /// Who.
    pub(crate) peer: String,
    /// When it began.
    pub(crate) at: Stamp,
    /// The last pull the record tells of.
    pub(crate) until: Option<Stamp>,
    /// Asked for again.
    #[serde(default)]
    pub(crate) again: bool,
    /// First number given.
    #[serde(default)]
    pub(crate) from: u64,
    /// Last number given.
    #[serde(default)]
    pub(crate) to: u64,
    /// Readings given.
    #[serde(default)]
    pub(crate) count: u64,
}

/// The register, the newest first. A record that no longer decodes is passed over.
pub(crate) fn register(keep: &dyn Keep) -> Result<Vec<Record>, StoreError> {
    Ok(keep.list(TABLE)?.iter().rev().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect())
}

/// A central server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partner {
    /// What people call it.
    pub(crate) label: String,
    /// What it may take, in a sentence; `None` when the configuration no longer names it.
    pub(crate) may: Option<String>,
    /// Up to when it has everything, in a sentence.
    pub(crate) upto: String,
    /// When it last came.
    pub(crate) last: Option<String>,
    /// All it took, as far as the register goes back; what it tells itself says more.
    pub(crate) total: Option<String>,
}

/// Everybody who may come or has come: those of the configuration first. `records` are newest first. Reads the card.
pub(crate) fn partners(records: &[Record], ground: &Ground, words: &Words) -> Vec<Partner> {
    let mut names: Vec<&str> = ground.peers.iter().map(|peer| peer.name.as_str()).collect();
    for record in records {
        if !names.contains(&record.peer.as_str()) {
            names.push(&record.peer);
        }
    }
    names.into_iter().map(|name| partner(name, records, ground, words)).collect()
}

fn partner(name: &str, records: &[Record], ground: &Ground, words: &Words) -> Partner {
    let settings = ground.peers.iter().find(|peer| peer.name == name);
    let own = || records.iter().filter(|record| record.peer == name);
    let last = own().next().map(|record| record.until.unwrap_or(record.at));
    let total = own().fold(0_u64, |total, record| total.saturating_add(record.count));
    let total = words.count("access-total", total);
    let told = acknowledged(name, ground).is_some();
    // Who is no longer let in has not just begun.
    let upto = if told || settings.is_some() { upto(name, last.is_some(), ground, words) } else { total.clone() };
    Partner {
        label: called(name, ground),
        may: settings.map(|peer| may(peer, words)),
        last: last.map(|at| format::moment(at, &ground.clock, &ground.time_zone, words)),
        total: (!told && upto != total).then_some(total),
        upto,
    }
}

/// What people call a central server; the name of its certificate when nobody calls it otherwise.
pub(crate) fn called(name: &str, ground: &Ground) -> String {
    let settings = ground.peers.iter().find(|peer| peer.name == name);
    settings.map_or_else(|| name.to_owned(), |peer| peer.called().to_owned())
}

fn may(peer: &PeerSettings, words: &Words) -> String {
    let classes: Vec<String> = peer.sharing.iter().map(|class| words.say(class_word(*class, Form::Many))).collect();
    words.say_with("partner-may", &[("classes", in_a_row(&classes, words).into())])
}

/// `a, b et c`.
pub(crate) fn in_a_row(items: &[String], words: &Words) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => {
            words.say_with("list-and", &[("first", first.join(", ").into()), ("last", last.as_str().into())])
        }
    }
}

/// Of how many a class is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `Publique`.
    One,
    /// `publiques`.
    Many,
}

/// The message that names a sharing class.
pub(crate) fn class_word(class: Sharing, form: Form) -> &'static str {
    match (class, form) {
        (Sharing::Public, Form::One) => "class-public",
        (Sharing::Public, Form::Many) => "class-public-many",
        (Sharing::Internal, Form::One) => "class-internal",
        (Sharing::Internal, Form::Many) => "class-internal-many",
        (Sharing::Personal, Form::One) => "class-personal",
        (Sharing::Personal, Form::Many) => "class-personal-many",
    }
}

/// Up to which number it has said to have everything.
fn acknowledged(name: &str, ground: &Ground) -> Option<u64> {
    ground.archive.acknowledged().get(name).copied().filter(|seq| *seq > 0)
}

/// `A tout reçu jusqu'à 14 h 32.`
fn upto(name: &str, came: bool, ground: &Ground, words: &Words) -> String {
    let Some(seq) = acknowledged(name, ground) else {
        return words.say(if came { "partner-begun" } else { "partner-never" });
    };
    let now = ground.clock.now();
    let Some(taken) = taken(seq, ground) else { return words.count("partner-upto-number", seq) };
    let Some(at) = format::civil(taken, &ground.clock, &ground.time_zone) else {
        return match format::ago_ms(taken, &ground.clock) {
            Some(ms) => words.say_with("partner-upto-age", &[("age", format::age(ms, words).into())]),
            None => words.count("partner-upto-number", seq),
        };
    };
    let hour = format::hour(&at, words);
    let today = format::civil(now, &ground.clock, &ground.time_zone).is_some_and(|now| now.date() == at.date());
    if today {
        return words.say_with("partner-upto-hour", &[("hour", hour.into())]);
    }
    words.say_with("partner-upto-date", &[("date", format::date(at.date(), words).into()), ("hour", hour.into())])
}

/// When the reading of a number was taken; `None` when it is no longer stored, or the card does not answer.
pub(crate) fn taken(seq: u64, ground: &Ground) -> Option<Stamp> {
    let request = PageRequest { after: seq.saturating_sub(1), upto: seq, limit: 1, points: None };
    match ground.archive.page(&request).ok()?.entries.pop()? {
        Entry::Reading(stored) => Some(stored.reading.stamp),
        Entry::Gap(gap) => gap.to,
    }
}

/// Who may hold a copy of some points: everybody the register or their progress names, but those who were never let in.
pub(crate) fn holders(points: &[PointId], records: &[Record], ground: &Ground) -> BTreeSet<String> {
    let took = records.iter().filter(|record| record.count > 0).map(|record| record.peer.clone());
    let acknowledged = ground.archive.acknowledged().into_iter().filter(|(_, seq)| *seq > 0).map(|(name, _)| name);
    took.chain(acknowledged).filter(|name| points.iter().any(|point| may_hold(point, name, ground))).collect()
}

/// Whether a server that came may have been given a point, as far as the settings of today tell.
fn may_hold(point: &PointId, name: &str, ground: &Ground) -> bool {
    let settings = ground.peers.iter().find(|peer| peer.name == name);
    let (Some(settings), Some(point)) = (settings, ground.live.point(point)) else { return true };
    if !settings.sharing.contains(&point.sharing) {
        return false;
    }
    let spoken = ground.consents.standing(&point.id, name) != Standing::Unspoken;
    point.sharing != Sharing::Personal || settings.consent.is_some() || spoken
}
