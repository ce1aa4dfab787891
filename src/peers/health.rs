//! The digest of `/v1/health`: how the gateway is, in less than 2 kB, for a supervisor of many.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Ground, page::rfc3339};
use crate::{
    clock::Source,
    condition::{Condition, Severity},
    machine::{Facts, Reason},
    supervisor::Health,
    traffic::Used,
};

/// Units named at most; a hall has a dozen.
const NAMED: usize = 8;
/// Characters of a name at most.
const NAME: usize = 48;

/// The digest.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Digest {
    /// The building.
    gateway: String,
    /// The commune.
    commune: String,
    /// The version of the gateway.
    version: &'static str,
    /// Seconds since its start.
    uptime_s: u64,
    /// Which start it is, counted from 1.
    boot: u32,
    /// Its clock.
    clock: Time,
    /// Its readings.
    store: Store,
    /// What is wrong.
    conditions: Conditions,
    /// Its parts.
    units: Units,
    /// What the month has used of the link.
    traffic: Month,
    /// The box itself.
    machine: Machine,
}

/// The box itself.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Machine {
    /// Why the gateway last started; `null` as long as the card has not been read.
    start: Option<Reason>,
    /// Whether the supply is too weak now; `null` where nobody watches it.
    supply_low: Option<bool>,
    /// How often it was, over the life of the store.
    supply_falls: Option<u64>,
    /// The card.
    card: Card,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Card {
    /// Bytes written to it since it was put in; `null` where the kernel counts none.
    written: Option<u64>,
    /// Bytes free where the store lies.
    free: Option<u64>,
    /// Milliseconds half of the last commits took at most.
    sync_median_ms: u32,
    /// Milliseconds nineteen of twenty took at most.
    sync_most_ms: u32,
}

/// What the month has used of the link.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Month {
    /// Which, such as `2026-11`; `null` as long as the time was never known.
    month: Option<String>,
    /// Bytes, both ways.
    bytes: u64,
    /// Bytes it may carry; `null` without a budget.
    budget: Option<u64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Time {
    /// Now, RFC 3339.
    now: Option<String>,
    /// Who vouches for it.
    source: Source,
    /// Milliseconds it may be off; `null` when nobody knows.
    error_ms: Option<u32>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Store {
    /// The oldest number still stored.
    first_seq: u64,
    /// The newest number stored.
    last_seq: u64,
    /// Readings accepted that wait for the next commit.
    waiting: u64,
    /// Readings lost over the life of the box.
    lost: u64,
    /// Bytes on the card.
    bytes: u64,
    /// Bytes it may take.
    bytes_limit: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Conditions {
    /// Somebody should act today.
    alarm: usize,
    /// Something does not work as it should.
    warning: usize,
    /// Worth knowing.
    notice: usize,
    /// How many are open of each kind.
    codes: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Units {
    /// At work.
    running: usize,
    /// Fallen, to be started again; eight at most.
    pausing: Vec<String>,
    /// Fallen too often; eight at most.
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
            machine: Machine::of(&ground.machine.facts()),
        }
    }

    /// What does not change by itself with each second: what the ETag is made of.
    pub(crate) fn lasting(&self) -> serde_json::Result<Vec<u8>> {
        let mut value = serde_json::to_value(self)?;
        value["uptimeS"] = 0.into();
        value["clock"]["now"] = 0.into();
        value["clock"]["errorMs"] = 0.into();
        value["traffic"]["bytes"] = 0.into();
        value["machine"]["card"] = 0.into();
        serde_json::to_vec(&value)
    }
}

impl Month {
    fn of(used: Used) -> Self {
        let month = used.month.map(|first| format!("{:04}-{:02}", first.year(), first.month()));
        Self { month, bytes: used.bytes, budget: used.limit }
    }
}

impl Machine {
    fn of(facts: &Facts) -> Self {
        let card = &facts.card;
        Self {
            start: facts.starts.first().map(|start| start.reason),
            supply_low: facts.supply.map(|supply| supply.low),
            supply_falls: facts.supply.map(|supply| supply.falls),
            card: Card {
                written: card.written,
                free: card.room.map(|(free, _)| free),
                sync_median_ms: card.syncs.median_ms,
                sync_most_ms: card.syncs.most_ms,
            },
        }
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
