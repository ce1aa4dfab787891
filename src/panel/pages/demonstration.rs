//! What happened to the data while the link was down.

use std::sync::Arc;

use askama::Template;

use crate::panel::{
    OutageReport,
    answer::{Answer, Problem},
    format,
    frame::Frame,
    language::Words,
    visit::Visit,
};

#[derive(Template)]
#[template(path = "demonstration.html", config = ".askama.toml")]
struct DemonstrationPage {
    frame: Frame,
    view: View,
}

/// The report in words.
#[derive(Debug, PartialEq, Eq)]
struct View {
    link: String,
    icon: &'static str,
    sentence: String,
    heading: String,
    figures: Vec<Figure>,
    totals: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Figure {
    value: String,
    label: String,
    icon: &'static str,
}

/// `/demonstration`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let demonstration = visit.site.ground.demonstration.as_ref().ok_or(Problem::NotFound)?;
    let report = demonstration.report();
    let age_ms = report.since.and_then(|since| format::ago_ms(since, &visit.site.ground.clock));
    let frame = Frame::new(&visit, &visit.words.say("demonstration-title"), "/demonstration");
    Answer::page(&DemonstrationPage { frame, view: view(&report, age_ms, &visit.words) })
}

fn view(report: &OutageReport, age_ms: Option<u64>, words: &Words) -> View {
    let since = [("since", format::lasting(age_ms.unwrap_or(0), words).into())];
    let link = match (report.link_up, age_ms) {
        (true, None) => words.say("link-up-always"),
        (true, Some(_)) => words.say_with("link-up", &since),
        (false, _) => words.say_with("link-down", &since),
    };
    let figure =
        |count, key: &str, icon| Figure { value: format::whole(count, words.language), label: words.say(key), icon };
    let lost_icon = if report.lost == 0 { "good" } else { "alarm" };
    View {
        link,
        icon: if report.link_up { "good" } else { "warning" },
        sentence: sentence(report, words),
        heading: heading(report, words),
        figures: vec![
            figure(report.produced, "figure-produced", "chart"),
            figure(report.buffered, "figure-buffered", "home"),
            figure(report.pulled, "figure-pulled", "share"),
            figure(report.lost, "figure-lost", lost_icon),
        ],
        totals: totals(report, words),
    }
}

fn heading(report: &OutageReport, words: &Words) -> String {
    if report.outage == 0 {
        return words.say("outage-none");
    }
    words.say_with("outage-heading", &[("n", report.outage.into())])
}

/// What there is to know, in one sentence.
fn sentence(report: &OutageReport, words: &Words) -> String {
    let key = match (report.outage, report.link_up, report.lost) {
        (0, ..) => "outage-sentence-none",
        (_, _, 1..) => "outage-sentence-lost",
        (_, false, 0) => "outage-sentence-during",
        (_, true, 0) if report.pulled < report.produced => "outage-sentence-catching-up",
        (_, true, 0) => "outage-sentence-after",
    };
    let shown = |n| format::whole(n, words.language);
    words.say_with(
        key,
        &[
            ("lasted", format::lasting(report.lasted_ms, words).into()),
            ("n", report.produced.into()),
            ("produced", shown(report.produced).into()),
            ("buffered", shown(report.buffered).into()),
            ("pulled", shown(report.pulled).into()),
            ("lost", shown(report.lost).into()),
        ],
    )
}

fn totals(report: &OutageReport, words: &Words) -> String {
    let shown = |n| format::whole(n, words.language);
    words.say_with(
        "outage-totals",
        &[
            ("produced", shown(report.produced_total).into()),
            ("pulled", shown(report.pulled_total).into()),
            ("lost", shown(report.lost_total).into()),
            ("n", report.lost_total.into()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::language::{Language, Languages};

    #[test]
    fn each_moment_of_an_outage_has_its_sentence() {
        let words = Languages::read().of(Language::French);
        let said = |report: OutageReport| view(&report, Some(65_000), &words).sentence;
        let during =
            OutageReport { outage: 2, produced: 310, buffered: 310, lasted_ms: 31_000, ..OutageReport::default() };
        let back = OutageReport { link_up: true, pulled: 100, ..during };
        let after = OutageReport { pulled: 310, ..back };
        let lost = OutageReport { lost: 3, ..after };
        let none = OutageReport { link_up: true, ..OutageReport::default() };
        let all = [said(none), said(during), said(back), said(after), said(lost)];
        for (place, sentence) in all.iter().enumerate() {
            assert!(!sentence.contains("outage-"), "{sentence}");
            assert!(all.iter().skip(place + 1).all(|other| other != sentence), "{sentence}");
        }
        assert!(all[3].contains("310") && all[4].contains('3'), "{all:?}");
    }
}
