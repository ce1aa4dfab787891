//! The register of every pull: who took what, and when.

use std::sync::Arc;

use askama::Template;

use crate::{
    panel::{
        Ground,
        answer::{Answer, Problem},
        format,
        frame::Frame,
        language::Words,
        partners::{self, Partner, Record},
        visit::Visit,
    },
    traffic::Used,
};

/// Entries on a page.
const ON_A_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "access.html", config = ".askama.toml")]
struct Access {
    frame: Frame,
    rows: Vec<Row>,
    partners: Vec<Partner>,
    newer: Option<usize>,
    older: Option<usize>,
    /// What the month has used of the link.
    month: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    who: String,
    when: String,
    machine_when: String,
    what: String,
}

/// `/access`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let words = visit.words.clone();
    let (records, partners) = visit
        .site
        .look(move |ground| {
            let records = partners::register(ground.keep.as_ref())?;
            let mut partners = partners::partners(&records, ground, &words);
            partners.retain(|partner| partner.last.is_some());
            Ok::<_, Problem>((records, partners))
        })
        .await??;
    let page: usize = visit.query.get("page").parse().unwrap_or(0).min(records.len() / ON_A_PAGE);
    let (ground, words) = (&visit.site.ground, &visit.words);
    let here = records.iter().skip(page * ON_A_PAGE).take(ON_A_PAGE);
    Answer::page(&Access {
        frame: Frame::new(&visit, &words.say("access-title"), "/data"),
        rows: here.map(|record| row(record, ground, words)).collect(),
        partners,
        newer: page.checked_sub(1),
        older: (records.len() > (page + 1) * ON_A_PAGE).then_some(page + 1),
        month: ground.traffic.as_ref().map(|traffic| month(traffic.used(), words)),
    })
}

fn row(record: &Record, ground: &Ground, words: &Words) -> Row {
    let shown = |n| format::whole(n, words.language);
    Row {
        who: partners::called(&record.peer, ground),
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
    let Some(until) = until.and_then(|until| format::civil(until, clock, zone)) else { return from };
    words.say_with("access-until", &[("from", from.into()), ("until", format::hour(&until, words).into())])
}
