//! How the box itself is, in sentences: its last starts, its supply, its card.

use super::{Ground, format, language::Words};
use crate::{
    clock::Stamp,
    machine::{Begun, Card, Reason, Supply},
};

/// The box, for its place on the page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// When and why it last started.
    pub(crate) start: Option<String>,
    /// Its supply, with the icon that goes with it.
    pub(crate) supply: (&'static str, String),
    /// Its card.
    pub(crate) card: Vec<String>,
    /// Earlier starts, the newest first.
    pub(crate) earlier: Vec<String>,
}

/// Everything that is known.
pub(crate) fn told(ground: &Ground, words: &Words) -> Told {
    let facts = ground.machine.facts();
    let earlier = facts.starts.iter().skip(1).map(|start| {
        words.say_with(
            "start-line",
            &[("when", moment(start.stamp(), ground, words).into()), ("why", why(start, words).into())],
        )
    });
    Told {
        start: facts.starts.first().map(|start| last(start, ground, words)),
        supply: told_supply(facts.supply, ground, words),
        card: told_card(&facts.card, ground, words),
        earlier: earlier.collect(),
    }
}

/// When and why the gateway last started, on one line.
pub(crate) fn last(start: &Begun, ground: &Ground, words: &Words) -> String {
    let why = why(start, words);
    let mut line = match format::civil(start.stamp(), &ground.clock, &ground.time_zone) {
        Some(_) => {
            words.say_with("start-last", &[("when", moment(start.stamp(), ground, words).into()), ("why", why.into())])
        }
        None => words.say_with("start-last-undated", &[("why", why.into())]),
    };
    if let Some(ran) = start.ran_ms {
        line.push(' ');
        line.push_str(&words.say_with("start-ran", &[("ran", format::lasting(ran, words).into())]));
    }
    line
}

fn why(start: &Begun, words: &Words) -> String {
    words.say(match start.reason {
        Reason::First => "start-first",
        Reason::Restarted => "start-restarted",
        Reason::Rebooted => "start-rebooted",
        Reason::PowerCut => "start-power-cut",
        Reason::HardwareWatchdog => "start-hardware-watchdog",
        Reason::Watchdog => "start-watchdog",
        Reason::Crash => "start-crash",
    })
}

fn moment(stamp: Stamp, ground: &Ground, words: &Words) -> String {
    format::moment(stamp, &ground.clock, &ground.time_zone, words)
}

fn told_supply(supply: Option<Supply>, ground: &Ground, words: &Words) -> (&'static str, String) {
    let Some(supply) = supply else { return ("notice", words.say("supply-unwatched")) };
    if supply.low {
        return ("warning", words.say("supply-low"));
    }
    let Some(last) = supply.last else { return ("good", words.say("supply-good")) };
    let count = format::whole(supply.falls, words.language);
    let values = [("n", supply.falls.into()), ("shown", count.into()), ("when", moment(last, ground, words).into())];
    ("notice", words.say_with("supply-was-low", &values))
}

fn told_card(card: &Card, ground: &Ground, words: &Words) -> Vec<String> {
    let written = card.written.map(|written| {
        let size = format::bytes(written, words);
        let since = card.since.and_then(|since| format::civil(since, &ground.clock, &ground.time_zone));
        match since {
            Some(since) => {
                let date = format::date(since.date(), words);
                words.say_with("card-written", &[("size", size.into()), ("date", date.into())])
            }
            None => words.say_with("card-written-undated", &[("size", size.into())]),
        }
    });
    let room = card.room.map(|(free, all)| {
        let (free, all) = (format::bytes(free, words), format::bytes(all, words));
        words.say_with("card-room", &[("free", free.into()), ("all", all.into())])
    });
    let milliseconds = |ms: u32| format!("{}\u{a0}ms", format::whole(ms.into(), words.language));
    let syncs = (card.syncs.count > 0).then(|| {
        let (usual, most) = (milliseconds(card.syncs.median_ms), milliseconds(card.syncs.most_ms));
        words.say_with("card-syncs", &[("usual", usual.into()), ("most", most.into())])
    });
    let life = card.life.map(|tenths| words.say_with("card-life", &[("percent", (u32::from(tenths) * 10).into())]));
    [written, room, syncs, life].into_iter().flatten().collect()
}
