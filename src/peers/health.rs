//! The digest of `/v1/health`: how the gateway is, in less than 2 kB, for a supervisor of many.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Ground, page::rfc3339};
use crate::{
    clock::Source,
    condition::{Condition, Severity},
    supervisor::Health,
    traffic::Used,
};

/// Units named at most; a hall has a dozen.
const NAMED: usize = 8;
/// Characters of a name at most.
const NAME: usize = 48;

/// The digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Digest {
    gateway: String,
    commune: String,
    version: &'static str,
    uptime_s: u64,
    boot: u32,
    clock: Time,
    store: Store,
    conditions: Conditions,
    units: Units,
    traffic: Month,
}

/// What the month has used of the link, in bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Month {
    month: Option<String>,
    bytes: u64,
    budget: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Time {
    now: Option<String>,
    source: Source,
    error_ms: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    first_seq: u64,
    last_seq: u64,
    waiting: u64,
    lost: u64,
    bytes: u64,
    bytes_limit: u64,
}

#[derive(Serialize)]
struct Conditions {
    alarm: usize,
    warning: usize,
    notice: usize,
    codes: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Units {
    running: usize,
    pausing: Vec<String>,
    gave_up: Vec<String>,
}

impl Digest {
    /// How things are now.
    pub(crate) fn of(ground: &Ground) -> Self {
        let (wall, figures) = (ground.clock.wall_now(), ground.archive.figures());
        Self {
            gateway: short(&ground.gateway),
            commune: short(&ground.commune),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: ground.clock.now().mono_ms / 1_000,
            boot: ground.clock.boot(),
            clock: Time {
                now: rfc3339(wall.unix_ms),
                source: wall.source,
                error_ms: Some(wall.error_ms).filter(|error| *error != u32::MAX),
            },
            store: Store {
                first_seq: figures.first_seq,
                last_seq: figures.last_seq,
                waiting: figures.waiting,
                lost: figures.lost,
                bytes: figures.bytes,
                bytes_limit: figures.bytes_limit,
            },
            conditions: Conditions::of(&ground.board.open()),
            units: Units::of(&ground.supervisor.health()),
            traffic: Month::of(ground.traffic.used()),
        }
    }

    /// What does not change by itself with each second: what the ETag is made of.
    pub(crate) fn lasting(&self) -> serde_json::Result<Vec<u8>> {
        let mut value = serde_json::to_value(self)?;
        value["uptimeS"] = 0.into();
        value["clock"]["now"] = 0.into();
        value["clock"]["errorMs"] = 0.into();
        value["traffic"]["bytes"] = 0.into();
        serde_json::to_vec(&value)
    }
}

impl Month {
    fn of(used: Used) -> Self {
        let month = used.month.map(|first| format!("{:04}-{:02}", first.year(), first.month()));
        Self { month, bytes: used.bytes, budget: used.limit }
    }
}

impl Conditions {
    fn of(open: &[Condition]) -> Self {
        let count = |severity: Severity| open.iter().filter(|condition| condition.severity == severity).count();
        let mut codes = BTreeMap::new();
        for condition in open {
            *codes.entry(condition.code.as_str()).or_default() += 1;
        }
        let (alarm, warning) = (count(Severity::Alarm), count(Severity::Warning));
        Self { alarm, warning, notice: count(Severity::Notice), codes }
    }
}

impl Units {
    fn of(units: &[(String, Health)]) -> Self {
        let of = |health: Health| units.iter().filter(move |(_, is)| *is == health);
        let named = |health| of(health).take(NAMED).map(|(name, _)| short(name)).collect();
        Self { running: of(Health::Running).count(), pausing: named(Health::Pausing), gave_up: named(Health::GaveUp) }
    }
}

fn short(name: &str) -> String {
    name.chars().take(NAME).collect()
}
