//! `/metrics`: the newest reading of each point a peer may see, and the gateway's own figures.
//!
//! Values carry no timestamps: Prometheus would refuse those that are old or come twice, and would no longer see that
//! a series has ended. When a reading was taken is a metric of its own, to be compared with `time()`.

use std::collections::HashSet;

use super::{
    Ground,
    exposition::{Dialect, Exposition, Kind},
    resource::{OPENMETRICS, PROMETHEUS},
};
use crate::{
    clock::Source,
    condition::Code,
    machine::Reason,
    reading::{self, Point, PointId, Quality, Stored},
    supervisor::Health,
};

/// What one peer may be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) points: &'a HashSet<PointId>,
    /// The peer asking.
    pub(crate) peer: &'a str,
    /// How far the other peers are is for those who work for the commune.
    pub(crate) all_peers: bool,
}

impl Dialect {
    /// What the values of Accept ask for: OpenMetrics when it is named with no less weight than plain text.
    pub(crate) fn choose<'a>(accepted: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open, mut plain) = (0, 0);
        for (media, weight) in super::accept::items(accepted) {
            match media.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => open = open.max(weight),
                "text/plain" => plain = plain.max(weight),
                _ => {}
            }
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    pub(crate) fn media(self) -> &'static str {
        match self {
            Self::OpenMetrics => OPENMETRICS,
            Self::Prometheus => PROMETHEUS,
        }
    }
}

/// The readings told, and the text.
pub(crate) struct Told {
    pub(crate) readings: Vec<Stored>,
    pub(crate) text: String,
}

/// Everything at this moment.
pub(crate) fn tell(ground: &Ground, sight: &Sight<'_>, dialect: Dialect) -> Told {
    let mut out = Exposition::new(dialect);
    let readings: Vec<_> =
        ground.archive.latest().into_iter().filter(|stored| sight.points.contains(&stored.reading.point)).collect();
    points(&mut out, ground, &readings);
    store(&mut out, ground);
    clock(&mut out, ground);
    conditions(&mut out, ground);
    peers(&mut out, ground, sight);
    link(&mut out, ground);
    units(&mut out, ground);
    machine(&mut out, ground);
    process(&mut out, ground);
    Told { readings, text: out.finish() }
}

fn points(out: &mut Exposition, ground: &Ground, readings: &[Stored]) {
    let known: Vec<(&Point, &Stored)> =
        readings.iter().filter_map(|stored| Some((ground.live.point(&stored.reading.point)?, stored))).collect();
    let of = |counting: bool| known.iter().filter(move |(point, _)| (point.kind == reading::Kind::Counter) == counting);

    out.family(
        "clocher_point_value",
        Kind::Gauge,
        None,
        "Newest value of a point that goes up and down, in the unit its label names (UCUM).",
    );
    for (point, stored) in of(false) {
        value(out, point, stored.reading.value);
    }
    out.family(
        "clocher_point_index",
        Kind::Counter,
        None,
        "Newest value of a point that only grows, in the unit its label names (UCUM).",
    );
    for (point, stored) in of(true) {
        // A counter must not be negative in either format.
        value(out, point, stored.reading.value.filter(|value| *value >= 0.0));
    }
    out.family(
        "clocher_point_good",
        Kind::Gauge,
        None,
        "Whether the newest reading of a point is good: 1, or 0 when it is suspect, stale or bad.",
    );
    for (point, stored) in &known {
        let good = stored.reading.quality == Quality::Good;
        out.sample(&[("point", point.id.as_str())], f64::from(u8::from(good)));
    }
    let name = "clocher_point_reading_timestamp_seconds";
    out.family(
        name,
        Kind::Gauge,
        Some("seconds"),
        "When the newest reading of a point was taken, since 1970; absent when no clock could date it.",
    );
    for (point, stored) in &known {
        if let Some(wall) = ground.clock.resolve(stored.reading.stamp) {
            out.sample(&[("point", point.id.as_str())], wall.unix_ms as f64 / 1_000.0);
        }
    }
}

fn value(out: &mut Exposition, point: &Point, value: Option<f64>) {
    let Some(value) = value else { return };
    let sharing = match point.sharing {
        reading::Sharing::Public => "public",
        reading::Sharing::Internal => "internal",
        reading::Sharing::Personal => "personal",
    };
    let labels = [("point", point.id.as_str()), ("label", &point.label), ("unit", &point.unit), ("sharing", sharing)];
    out.sample(&labels, value);
}

fn store(out: &mut Exposition, ground: &Ground) {
    let figures = ground.archive.figures();
    let bytes = Some("bytes");
    out.single("clocher_store_size_bytes", Kind::Gauge, bytes, "Bytes of readings on the card.", count(figures.bytes));
    out.single(
        "clocher_store_limit_bytes",
        Kind::Gauge,
        bytes,
        "Bytes of readings there may be.",
        count(figures.bytes_limit),
    );
    out.single(
        "clocher_store_written_bytes",
        Kind::Counter,
        bytes,
        "Bytes written to the card since the start.",
        count(figures.written),
    );
    out.single(
        "clocher_store_readings",
        Kind::Counter,
        None,
        "The highest number given to a reading.",
        count(figures.last_seq),
    );
    out.single(
        "clocher_store_oldest_reading",
        Kind::Gauge,
        None,
        "The lowest number still stored.",
        count(figures.first_seq),
    );
    out.single(
        "clocher_store_waiting_readings",
        Kind::Gauge,
        None,
        "Readings accepted that wait for the next commit.",
        count(figures.waiting),
    );
    out.single(
        "clocher_store_lost_readings",
        Kind::Counter,
        None,
        "Readings lost over the life of the box.",
        count(figures.lost),
    );
}

fn clock(out: &mut Exposition, ground: &Ground) {
    let wall = ground.clock.wall_now();
    out.family("clocher_clock_source", Kind::Gauge, None, "Who vouches for the wall clock: 1 for the one who does.");
    for (source, word) in [
        (Source::Unknown, "unknown"),
        (Source::Estimated, "estimated"),
        (Source::Rtc, "rtc"),
        (Source::Browser, "browser"),
        (Source::Gps, "gps"),
        (Source::Ntp, "ntp"),
    ] {
        out.sample(&[("source", word)], f64::from(u8::from(wall.source == source)));
    }
    out.family(
        "clocher_clock_error_seconds",
        Kind::Gauge,
        Some("seconds"),
        "How far off the wall clock may be; absent when nobody knows.",
    );
    if wall.error_ms != u32::MAX {
        out.sample(&[], f64::from(wall.error_ms) / 1_000.0);
    }
}

fn conditions(out: &mut Exposition, ground: &Ground) {
    let open = ground.board.open();
    out.family("clocher_conditions", Kind::Gauge, None, "Conditions that are open, of each kind.");
    for code in Code::ALL {
        let severity = format!("{:?}", code.severity()).to_lowercase();
        let number = open.iter().filter(|condition| condition.code == *code).count();
        out.sample(&[("code", code.as_str()), ("severity", &severity)], count(number as u64));
    }
}

fn peers(out: &mut Exposition, ground: &Ground, sight: &Sight<'_>) {
    let last = ground.archive.figures().last_seq;
    out.family(
        "clocher_peer_lag_readings",
        Kind::Gauge,
        None,
        "Numbers stored that a peer has not yet said to be safe with it.",
    );
    for (peer, seq) in ground.archive.acknowledged().iter().filter(|(peer, _)| sight.all_peers || *peer == sight.peer) {
        out.sample(&[("peer", peer)], count(last.saturating_sub(*seq)));
    }
}

fn link(out: &mut Exposition, ground: &Ground) {
    let (used, bytes) = (ground.traffic.used(), Some("bytes"));
    let [received, sent] = ground.traffic.counters().both();
    out.single(
        "clocher_link_received_bytes",
        Kind::Counter,
        bytes,
        "Bytes received from peers since the start, TLS included.",
        count(received),
    );
    out.single(
        "clocher_link_sent_bytes",
        Kind::Counter,
        bytes,
        "Bytes sent to peers since the start, TLS included.",
        count(sent),
    );
    out.single(
        "clocher_link_month_bytes",
        Kind::Gauge,
        bytes,
        "Bytes of this calendar month to and from peers.",
        count(used.bytes),
    );
    out.family("clocher_link_budget_bytes", Kind::Gauge, bytes, "Bytes a month may have; absent without a budget.");
    if let Some(limit) = used.limit {
        out.sample(&[], count(limit));
    }
}

fn units(out: &mut Exposition, ground: &Ground) {
    let health = ground.supervisor.health();
    out.family("clocher_units", Kind::Gauge, None, "Parts of the gateway, by how they are.");
    for (state, word) in [(Health::Running, "running"), (Health::Pausing, "pausing"), (Health::GaveUp, "gave-up")] {
        out.sample(&[("state", word)], count(health.iter().filter(|(_, is)| *is == state).count() as u64));
    }
}

fn machine(out: &mut Exposition, ground: &Ground) {
    let facts = ground.machine.facts();
    out.family("clocher_last_start", Kind::Gauge, None, "Why the gateway last started: 1 for the reason.");
    for reason in Reason::ALL {
        let is = facts.starts.first().is_some_and(|start| start.reason == *reason);
        out.sample(&[("reason", reason.as_str())], f64::from(u8::from(is)));
    }
    out.family("clocher_supply_low", Kind::Gauge, None, "Whether the supply is too weak; absent where nobody watches.");
    if let Some(supply) = facts.supply {
        out.sample(&[], f64::from(u8::from(supply.low)));
    }
    out.family("clocher_supply_falls", Kind::Counter, None, "How often the supply was too weak.");
    if let Some(supply) = facts.supply {
        out.sample(&[], count(supply.falls));
    }
    let (card, bytes) = (facts.card, Some("bytes"));
    out.family("clocher_card_written_bytes", Kind::Counter, bytes, "Bytes written to the card since it was put in.");
    if let Some(written) = card.written {
        out.sample(&[], count(written));
    }
    out.family("clocher_card_size_bytes", Kind::Gauge, bytes, "The size of the card.");
    if let Some(size) = card.size {
        out.sample(&[], count(size));
    }
    out.family("clocher_card_free_bytes", Kind::Gauge, bytes, "Bytes free where the store lies.");
    if let Some((free, _)) = card.room {
        out.sample(&[], count(free));
    }
    let help =
        "How long the last commits took to be safe on the card: half of them, and nineteen of twenty, at most so.";
    out.family("clocher_card_sync_seconds", Kind::Gauge, Some("seconds"), help);
    for (share, ms) in [("0.5", card.syncs.median_ms), ("0.95", card.syncs.most_ms), ("1", card.syncs.longest_ms)] {
        out.sample(&[("share", share)], f64::from(ms) / 1_000.0);
    }
}

fn process(out: &mut Exposition, ground: &Ground) {
    let now = ground.clock.now();
    out.single(
        "clocher_uptime_seconds",
        Kind::Gauge,
        Some("seconds"),
        "Seconds since the gateway started.",
        now.mono_ms as f64 / 1_000.0,
    );
    out.single(
        "clocher_starts",
        Kind::Counter,
        None,
        "Starts of the gateway over the life of its store.",
        f64::from(now.boot),
    );
    out.family("clocher_build", Kind::Info, None, "What is running, and where.");
    let labels =
        [("version", env!("CARGO_PKG_VERSION")), ("gateway", ground.gateway.as_str()), ("commune", &ground.commune)];
    out.sample(&labels, 1.0);
}

/// Exact up to 2^53, which is what the formats carry.
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_given_to_those_who_ask_for_it() {
        let choose = |value: &str| Dialect::choose([value]);
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(choose(prometheus), Dialect::OpenMetrics);
        assert_eq!(choose("application/openmetrics-text"), Dialect::OpenMetrics);
        assert_eq!(choose("text/plain, application/openmetrics-text;q=0.5"), Dialect::Prometheus);
        assert_eq!(choose("application/openmetrics-text;q=0"), Dialect::Prometheus);
        for other in ["*/*", "text/html", ""] {
            assert_eq!(choose(other), Dialect::Prometheus, "{other}");
        }
    }
}
