//! Who took what, and when: the register of every pull.

use std::sync::Arc;

use askama::Template;
use serde::Deserialize;

use crate::{
    clock::Stamp,
    panel::{
        Ground,
        answer::{Answer, Problem},
        format,
        frame::Frame,
        language::Words,
        visit::Visit,
    },
    traffic::Used,
};

/// Written by the pull listener: the key is a big-endian counter, so that records are in order of time.
const TABLE: &str = "access";
/// Entries on a page.
const ON_A_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "access.html", config = ".askama.toml")]
struct Access {
    frame: Frame,
    rows: Vec<Row>,
    peers: Vec<Peer>,
    newer: Option<usize>,
    older: Option<usize>,
    /// What the month has used of the link.
    month: Option<String>,
}

/// A record as the listener writes it.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    peer: String,
    at: Stamp,
    /// The last pull the record tells of.
    until: Option<Stamp>,
    /// Asked for again.
    #[serde(default)]
    again: bool,
    #[serde(default)]
    from: u64,
    #[serde(default)]
    to: u64,
    #[serde(default)]
    count: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    peer: String,
    when: String,
    machine_when: String,
    what: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Peer {
    name: String,
    last: String,
    total: String,
    /// How far it has told us to be, as of now; the register is written less often.
    cursor: Option<String>,
}

/// `/access`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let mut records = visit.site.keep(|keep| Ok(read(&keep.list(TABLE)?))).await?;
    records.reverse();
    let page: usize = visit.query.get("page").parse().unwrap_or(0).min(records.len() / ON_A_PAGE);
    let (ground, words) = (&visit.site.ground, &visit.words);
    let here = records.iter().skip(page * ON_A_PAGE).take(ON_A_PAGE);
    Answer::page(&Access {
        frame: Frame::new(&visit, &words.say("access-title"), "/access"),
        rows: here.map(|record| row(record, ground, words)).collect(),
        peers: peers(&records, ground, words),
        newer: page.checked_sub(1),
        older: (records.len() > (page + 1) * ON_A_PAGE).then_some(page + 1),
        month: ground.traffic.as_ref().map(|traffic| month(traffic.used(), words)),
    })
}

fn read(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<Record> {
    records.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect()
}

fn row(record: &Record, ground: &Ground, words: &Words) -> Row {
    let shown = |n| format::whole(n, words.language);
    Row {
        peer: record.peer.clone(),
        when: when(record, ground, words),
        machine_when: format::machine_time(record.at, &ground.clock),
        what: words.say_with(
            if record.again { "access-again" } else { "access-what" },
            &[
                ("n", record.count.into()),
                ("count", shown(record.count).into()),
                ("from", shown(record.from).into()),
                ("to", shown(record.to).into()),
            ],
        ),
    }
}

/// `Ce mois-ci : 123 Mo sur 500 Mo`.
fn month(used: Used, words: &Words) -> String {
    let shown = format::bytes(used.bytes, words);
    let Some(limit) = used.limit else { return words.say_with("access-month", &[("used", shown.into())]) };
    let limit = format::bytes(limit, words);
    let message = if used.is_spent() { "access-month-spent" } else { "access-month-of" };
    words.say_with(message, &[("used", shown.into()), ("limit", limit.into())])
}

/// One moment, or from when to when.
fn when(record: &Record, ground: &Ground, words: &Words) -> String {
    let (clock, zone) = (&ground.clock, &ground.time_zone);
    let from = format::moment(record.at, clock, zone, words);
    let until = record.until.filter(|until| until.mono_ms.saturating_sub(record.at.mono_ms) >= 60_000);
    let Some(wall) = until.and_then(|until| clock.resolve(until)).filter(|wall| wall.source.is_trusted()) else {
        return from;
    };
    let until = format::hour(&format::zoned(wall.unix_ms, zone), words);
    words.say_with("access-until", &[("from", from.into()), ("until", until.into())])
}

/// Each peer once: its last visit and all it took. `records` are newest first.
fn peers(records: &[Record], ground: &Ground, words: &Words) -> Vec<Peer> {
    let cursors = ground.archive.acknowledged();
    let mut seen: Vec<(&str, Stamp, u64)> = Vec::new();
    for record in records {
        match seen.iter_mut().find(|(name, ..)| *name == record.peer) {
            Some((_, _, total)) => *total = total.saturating_add(record.count),
            None => seen.push((&record.peer, record.until.unwrap_or(record.at), record.count)),
        }
    }
    seen.into_iter()
        .map(|(name, last, total)| Peer {
            name: name.to_owned(),
            last: format::moment(last, &ground.clock, &ground.time_zone, words),
            total: words.count("access-total", total),
            cursor: cursors.get(name).map(|upto| words.count("access-cursor", *upto)),
        })
        .collect()
}
