//! What the gateway itself says over MQTT: its points, its conditions, figures about the broker, the journal of
//! announcements. Told anew at each start, so never kept on the card.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Front, Ground,
    exchange::{Message, Silent},
    packet::Qos,
    topics,
};
use crate::{
    announcement::{Announcer, JournalEntry},
    clock::{Clock, Stamp},
    condition::Condition,
    live::Live,
    reading::{Point, PointId, Reading},
    supervisor::{Fall, Stage, Supervisor},
};

/// A point is said at most so often.
const POINT_EVERY: Duration = Duration::from_secs(1);
/// Figures are said so often, when they have changed.
const FIGURES_EVERY: Duration = Duration::from_secs(10);
/// Journal entries looked at after a change.
const JOURNAL: usize = 50;

/// Whether a message is for later subscribers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// For later ones too.
    Retained,
    /// For those who listen now; what was retained is over.
    Forgotten,
    /// For those who listen now.
    Passing,
}

/// Starts the units that speak.
pub(super) fn publish(supervisor: &Supervisor, front: &Arc<Front>, ground: &Ground) {
    let speaking = (Arc::clone(front), ground.clone());
    supervisor.unit(Stage::Broker, "broker points", move |stop| {
        let (front, ground) = speaking.clone();
        async move { stop.run_until_cancelled(points(&front, &ground.live, &ground.clock)).await.unwrap_or(Ok(())) }
    });
    let speaking = (Arc::clone(front), ground.clone());
    supervisor.unit(Stage::Broker, "broker conditions", move |stop| {
        let (front, ground) = speaking.clone();
        async move { stop.run_until_cancelled(conditions(&front, &ground)).await.unwrap_or(Ok(())) }
    });
    let speaking = Arc::clone(front);
    supervisor.unit(Stage::Broker, "broker figures", move |stop| {
        let front = Arc::clone(&speaking);
        async move { stop.run_until_cancelled(figures(&front)).await.unwrap_or(Ok(())) }
    });
    if let Some(announcer) = &ground.announce {
        let speaking = (Arc::clone(front), Arc::clone(announcer), ground.clock.clone());
        supervisor.unit(Stage::Broker, "broker journal", move |stop| {
            let (front, announcer, clock) = speaking.clone();
            async move { stop.run_until_cancelled(journal(&front, announcer.as_ref(), &clock)).await.unwrap_or(Ok(())) }
        });
    }
}

/// A router that is silent is seen to by the health test; what could not be said is said again later.
async fn say(front: &Front, topic: String, payload: String, lasting: Lasting) -> Result<(), Silent> {
    let message = Message { topic: topic.into(), payload: payload.into(), qos: Qos::AtLeastOnce };
    front.tell(&message, lasting).await
}

/// RFC 3339, when somebody vouches for the clock.
fn time_of(clock: &Clock, stamp: Stamp) -> Option<String> {
    let wall = clock.resolve(stamp).filter(|wall| wall.source.is_trusted())?;
    jiff::Timestamp::from_millisecond(wall.unix_ms).ok().map(|time| time.to_string())
}

/// Each point at each reading, but at most once a second.
async fn points(front: &Front, live: &Live, clock: &Clock) -> Result<(), Fall> {
    let (mut news, mut forgotten) = (live.watch(), live.watch_forgotten());
    let mut said = HashMap::<PointId, Instant>::new();
    let mut held = BTreeMap::<PointId, Reading>::new();
    held.extend(live.points().filter_map(|point| Some((point.id.clone(), live.newest(&point.id)?))));
    let mut tick = interval(POINT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            batch = news.recv() => match batch {
                Ok(batch) => held.extend(batch.iter().map(|reading| (reading.point.clone(), reading.clone()))),
                // Too many to follow: the newest of each is what matters.
                Err(RecvError::Lagged(_)) => {
                    held.extend(live.points().filter_map(|point| Some((point.id.clone(), live.newest(&point.id)?))));
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            point = forgotten.recv() => {
                if let Ok(point) = point {
                    held.remove(&point);
                    front.forget(&point).await;
                }
            }
        }
        let now = Instant::now();
        let due = |id: &PointId| said.get(id).is_none_or(|at| now.duration_since(*at) >= POINT_EVERY);
        let ready: Vec<PointId> = held.keys().filter(|id| due(id)).cloned().collect();
        for id in ready {
            let (Some(reading), Some(point)) = (held.remove(&id), live.point(&id)) else { continue };
            let payload = point_payload(point, &reading, clock).to_string();
            let _ = say(front, topics::point(&id), payload, Lasting::Retained).await;
            said.insert(id, now);
        }
    }
}

fn point_payload(point: &Point, reading: &Reading, clock: &Clock) -> Value {
    let scale = 10_f64.powi(i32::from(point.decimals));
    // Rounding must not turn a large index into infinity.
    let rounded = |value: f64| Some((value * scale).round() / scale).filter(|v| v.is_finite()).unwrap_or(value);
    let mut payload = json!({
        "value": reading.value.map(rounded),
        "unit": point.unit,
        "quality": reading.quality.word(),
        "label": point.label,
    });
    if let Some(why) = reading.quality.why() {
        payload["why"] = json!(why);
    }
    if let Some(time) = time_of(clock, reading.stamp) {
        payload["time"] = json!(time);
    }
    payload
}

/// Each open condition, retained; once closed it is said a last time and forgotten.
async fn conditions(front: &Front, ground: &Ground) -> Result<(), Fall> {
    let mut changes = ground.board.changes();
    let mut said = BTreeMap::<String, String>::new();
    loop {
        let open: BTreeMap<String, String> = ground
            .board
            .open()
            .iter()
            .map(|c| (topics::condition(c.code, &c.subject), condition_payload(c, &ground.clock)))
            .collect();
        for (topic, payload) in open.iter().filter(|(topic, payload)| said.get(*topic) != Some(payload)) {
            let _ = say(front, topic.clone(), payload.clone(), Lasting::Retained).await;
        }
        for topic in said.keys().filter(|topic| !open.contains_key(*topic)) {
            let closed = json!({ "state": "closed" }).to_string();
            let _ = say(front, topic.clone(), closed, Lasting::Forgotten).await;
        }
        said = open;
        changes.changed().await?;
    }
}

fn condition_payload(condition: &Condition, clock: &Clock) -> String {
    let mut payload = json!({
        "state": "open",
        "code": condition.code,
        "subject": condition.subject,
        "detail": condition.detail,
        "severity": condition.severity,
        "acknowledged": condition.acknowledged.as_ref().map(|(who, _)| who),
    });
    if let Some(since) = time_of(clock, condition.since) {
        payload["since"] = json!(since);
    }
    payload.to_string()
}

async fn figures(front: &Front) -> Result<(), Fall> {
    let mut said = HashMap::<&str, String>::new();
    let mut tick = interval(FIGURES_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let figures = front.figures();
        let all = [
            (topics::VERSION, concat!("clocher ", env!("CARGO_PKG_VERSION")).to_owned()),
            (topics::CLIENTS_CONNECTED, figures.clients.to_string()),
            (topics::MESSAGES_RECEIVED, figures.received.to_string()),
            (topics::MESSAGES_SENT, figures.sent.to_string()),
            (topics::MESSAGES_DROPPED, figures.dropped.to_string()),
            (topics::MESSAGES_RETAINED, figures.retained.to_string()),
        ];
        for (topic, figure) in all {
            if said.get(topic) != Some(&figure) {
                let _ = say(front, topic.to_owned(), figure.clone(), Lasting::Retained).await;
                said.insert(topic, figure);
            }
        }
    }
}

/// What was played, zone by zone, as it ends.
async fn journal(front: &Front, announcer: &dyn Announcer, clock: &Clock) -> Result<(), Fall> {
    let mut changes = announcer.changes();
    let mut known = announcer.journal(JOURNAL);
    loop {
        changes.changed().await?;
        let newest = announcer.journal(JOURNAL);
        for entry in newest.iter().rev().filter(|entry| !known.contains(entry)) {
            let payload = journal_payload(entry, clock)?;
            let _ = say(front, topics::ANNOUNCE_JOURNAL.to_owned(), payload, Lasting::Passing).await;
        }
        known = newest;
    }
}

fn journal_payload(entry: &JournalEntry, clock: &Clock) -> Result<String, serde_json::Error> {
    let mut payload = serde_json::to_value(entry)?;
    payload["started"] = json!(time_of(clock, entry.started));
    Ok(payload.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        reading::{Kind, Quality, Sharing, Why},
    };

    fn point() -> Point {
        Point {
            id: "water/hall/index".parse().expect("a name"),
            label: "Eau de la salle".into(),
            unit: "L".into(),
            kind: Kind::Counter,
            decimals: 1,
            interval: None,
            range: None,
            sharing: Sharing::Public,
        }
    }

    #[test]
    fn a_point_is_said_with_its_time_once_it_is_known() {
        let time = HeldTime::at(1_800_000_000_000, Source::Unknown);
        let clock = Clock::new(1, time.clone(), []);
        clock.observe();
        let point = point();
        let mut reading =
            Reading { point: point.id.clone(), stamp: clock.now(), value: Some(0.1 + 0.2), quality: Quality::Good };
        let said = point_payload(&point, &reading, &clock);
        assert_eq!(said, json!({"value": 0.3, "unit": "L", "quality": "good", "label": "Eau de la salle"}));
        time.set_wall(1_800_000_000_000, Source::Ntp);
        clock.observe();
        reading.value = None;
        reading.quality = Quality::Bad(Why::NoAnswer);
        let said = point_payload(&point, &reading, &clock);
        assert_eq!(
            (&said["value"], &said["why"], &said["time"]),
            (&Value::Null, &json!("no-answer"), &json!("2027-01-15T08:00:00Z"))
        );
    }
}
