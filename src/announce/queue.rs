//! Who speaks next: classes, order, what is held, what was already asked. Pure; no clock, no card, no tokio.
//!
//! There is one sound output, so any two announcements conflict, whatever their zones.

use serde::{Deserialize, Serialize};

use crate::{
    announcement::{AnnouncementId, Class, Held, Queued, Refused, Request, State},
    clock::Stamp,
};

/// So many may wait; an alert finds room beyond it, up to twice as many.
pub(crate) const LIMIT: usize = 20;

/// An announcement, as it is kept on the card until its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its number.
    pub(crate) id: AnnouncementId,
    /// What was asked.
    pub(crate) request: Request,
    /// When.
    pub(crate) asked: Stamp,
}

/// What the hour says about an announcement that is not urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hour {
    /// The time is known, and it is no quiet hour.
    Open,
    /// The time is known, and people rest.
    Quiet,
    /// Nobody vouches for the wall clock.
    Unknown,
}

/// What holds announcements at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Of the day.
    pub(crate) hour: Hour,
    /// Ambiance and information have sounded for as long as they may today.
    pub(crate) budget_spent: bool,
}

/// Who asks through MQTT: a machine, not a person.
pub(crate) const MACHINE: &str = "mqtt:";

impl Moment {
    /// What makes it wait. Important announcements and alerts never do. While the wall clock is unknown, a person's
    /// request passes (somebody is awake and knows what time it is), a machine's waits.
    pub(crate) fn held(self, request: &Request) -> Option<Held> {
        if request.class >= Class::Important {
            return None;
        }
        match self.hour {
            Hour::Quiet => Some(Held::QuietHours),
            Hour::Open => self.budget_spent.then_some(Held::DailyBudget),
            Hour::Unknown => request.asked_by.starts_with(MACHINE).then_some(Held::UnknownTime),
        }
    }

    fn holds(self, request: &Request) -> bool {
        self.held(request).is_some()
    }
}

/// The announcement whose turn it is.
#[derive(Debug, Clone)]
struct Turn {
    item: Item,
    state: State,
    /// A person wants it to stop.
    stopped_by: Option<String>,
}

/// What waits and what plays.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Vec<Item>,
    turn: Option<Turn>,
}

impl Queue {
    /// Those that were waiting when the gateway stopped.
    pub(crate) fn restored(waiting: Vec<Item>) -> Self {
        let mut queue = Self { waiting, turn: None };
        queue.sort();
        queue
    }

    /// Whether there is room for one more.
    ///
    /// # Errors
    /// When too many wait.
    pub(crate) fn room_for(&self, class: Class) -> Result<(), Refused> {
        let limit = if class == Class::Alert { 2 * LIMIT } else { LIMIT };
        if self.waiting.len() >= limit { Err(Refused::QueueFull(self.waiting.len())) } else { Ok(()) }
    }

    /// Puts one in, or back in after it was cut.
    pub(crate) fn push(&mut self, item: Item) {
        self.waiting.push(item);
        self.sort();
    }

    /// The most urgent first, then in the order they were asked. One that was cut has a low number: it comes before
    /// its equals.
    fn sort(&mut self) {
        self.waiting.sort_by_key(|item| (std::cmp::Reverse(item.request.class), item.id));
    }

    /// Takes the next one that nothing holds, and gives it its turn.
    pub(crate) fn next(&mut self, moment: Moment) -> Option<Item> {
        if self.turn.is_some() {
            return None;
        }
        let place = self.waiting.iter().position(|item| !moment.holds(&item.request))?;
        let item = self.waiting.remove(place);
        self.turn = Some(Turn { item: item.clone(), state: State::Preparing, stopped_by: None });
        Some(item)
    }

    /// Whether any waits, held or not.
    pub(crate) fn anybody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The one that should cut the one whose turn it is: of a higher class.
    pub(crate) fn more_urgent(&self, moment: Moment) -> Option<&Item> {
        let turn = self.turn.as_ref()?;
        let next = self.waiting.iter().find(|item| !moment.holds(&item.request))?;
        (next.request.class > turn.item.request.class).then_some(next)
    }

    /// The one whose turn it is can be heard.
    pub(crate) fn audible(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.state = State::Playing;
        }
    }

    /// Whether the one whose turn it is can be heard.
    pub(crate) fn is_audible(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.state == State::Playing)
    }

    /// Its turn is over.
    pub(crate) fn end_turn(&mut self) -> Option<Item> {
        self.turn.take().map(|turn| turn.item)
    }

    /// Who wants the one whose turn it is to stop.
    pub(crate) fn stopped_by(&self) -> Option<String> {
        self.turn.as_ref()?.stopped_by.clone()
    }

    /// A person stops one, or all. Those that waited are handed out; the one whose turn it is is marked. The flag
    /// tells whether anything was stopped.
    pub(crate) fn stop(&mut self, id: Option<AnnouncementId>, who: &str) -> (bool, Vec<Item>) {
        let meant = |item: &Item| id.is_none_or(|id| id == item.id);
        let stopped = self.take_waiting(meant);
        let turn = self.turn.as_mut().filter(|turn| meant(&turn.item) && turn.stopped_by.is_none());
        let marked = turn.map(|turn| turn.stopped_by = Some(who.to_owned())).is_some();
        (marked || !stopped.is_empty(), stopped)
    }

    /// Takes those that wait and are meant.
    pub(crate) fn take_waiting(&mut self, meant: impl Fn(&Item) -> bool) -> Vec<Item> {
        let (taken, kept) = std::mem::take(&mut self.waiting).into_iter().partition(meant);
        self.waiting = kept;
        taken
    }

    /// Whether it waits or has its turn.
    pub(crate) fn holds(&self, id: AnnouncementId) -> bool {
        self.waiting.iter().chain(self.turn.iter().map(|turn| &turn.item)).any(|item| item.id == id)
    }

    /// What plays and what waits, in order, with what holds it at this moment.
    pub(crate) fn all(&self, moment: Moment) -> Vec<Queued> {
        let turn = self.turn.iter().map(|turn| (&turn.item, turn.state.clone()));
        let waiting = self.waiting.iter().map(|item| (item, State::Waiting));
        turn.chain(waiting)
            .map(|(Item { id, request, asked }, state)| Queued {
                id: *id,
                request: request.clone(),
                asked: *asked,
                held: moment.held(request).filter(|_| state == State::Waiting),
                state,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    const DAY: Moment = Moment { hour: Hour::Open, budget_spent: false };

    fn item(id: u64, class: Class) -> Item {
        let request =
            Request { text: "x".into(), class, zones: vec!["bourg".into()], asked_by: "secretary".into(), key: None };
        Item { id: AnnouncementId(id), request, asked: Stamp { boot: 1, mono_ms: id } }
    }

    fn queue(items: &[(u64, Class)]) -> Queue {
        Queue::restored(items.iter().map(|(id, class)| item(*id, *class)).collect())
    }

    fn order(queue: &mut Queue, moment: Moment) -> Vec<u64> {
        std::iter::from_fn(|| {
            let next = queue.next(moment)?.id.0;
            queue.end_turn();
            Some(next)
        })
        .collect()
    }

    #[test]
    fn the_most_urgent_comes_first_and_equals_in_the_order_they_were_asked() {
        let all = [
            (1, Class::Information),
            (2, Class::Ambiance),
            (3, Class::Alert),
            (4, Class::Information),
            (5, Class::Important),
        ];
        assert_eq!(order(&mut queue(&all), DAY), [3, 5, 1, 4, 2]);
    }

    #[test]
    fn only_a_higher_class_cuts() {
        for class in Class::ALL {
            for other in Class::ALL {
                let mut queue = queue(&[(1, class)]);
                queue.next(DAY);
                queue.push(item(2, other));
                assert_eq!(queue.more_urgent(DAY).is_some(), other > class, "{other} over {class}");
            }
        }
    }

    #[test]
    fn quiet_hours_and_the_budget_hold_ambiance_and_information_and_nothing_else() {
        let all = [(1, Class::Ambiance), (2, Class::Information), (3, Class::Important), (4, Class::Alert)];
        let quiet = Moment { hour: Hour::Quiet, budget_spent: false };
        let spent = Moment { hour: Hour::Open, budget_spent: true };
        for moment in [quiet, spent] {
            let mut queue = queue(&all);
            assert_eq!(order(&mut queue, moment), [4, 3]);
            assert!(queue.anybody_waits());
            assert_eq!(order(&mut queue, DAY), [2, 1]);
        }
    }

    #[test]
    fn what_is_held_does_not_cut() {
        let mut queue = queue(&[(1, Class::Ambiance)]);
        queue.next(DAY);
        queue.push(item(2, Class::Information));
        assert!(queue.more_urgent(Moment { hour: Hour::Quiet, budget_spent: false }).is_none());
    }

    #[test]
    fn while_the_hour_is_unknown_a_person_is_heard_and_a_machine_waits() {
        let mut by_machine = item(1, Class::Information);
        by_machine.request.asked_by = "mqtt:nodered".into();
        let mut alarm = item(2, Class::Alert);
        alarm.request.asked_by = "mqtt:nodered".into();
        let mut queue = Queue::restored(vec![by_machine, alarm, item(3, Class::Information)]);
        let unknown = Moment { hour: Hour::Unknown, budget_spent: true };
        assert_eq!(order(&mut queue, unknown), [2, 3]);
        assert_eq!(order(&mut queue, DAY), [1]);
    }

    #[test]
    fn the_queue_is_bounded_and_an_alert_still_finds_room() {
        let full: Vec<_> = (1..=LIMIT as u64).map(|id| (id, Class::Important)).collect();
        let mut queue = queue(&full);
        assert_eq!(queue.room_for(Class::Important), Err(Refused::QueueFull(LIMIT)));
        for id in 0..LIMIT as u64 {
            assert_eq!(queue.room_for(Class::Alert), Ok(()));
            queue.push(item(100 + id, Class::Alert));
        }
        assert_eq!(queue.room_for(Class::Alert), Err(Refused::QueueFull(2 * LIMIT)));
    }

    #[test]
    fn a_person_stops_one_or_all() {
        let mut queue = queue(&[(1, Class::Information), (2, Class::Information), (3, Class::Information)]);
        queue.next(DAY);
        assert_eq!(queue.stop(Some(AnnouncementId(9)), "maire"), (false, vec![]));
        let (any, stopped) = queue.stop(Some(AnnouncementId(3)), "maire");
        assert!(any && stopped.len() == 1 && queue.stopped_by().is_none());
        let (any, stopped) = queue.stop(None, "maire");
        assert!(any && stopped.len() == 1);
        assert_eq!(queue.stopped_by().as_deref(), Some("maire"));
        assert_eq!(queue.stop(None, "adjoint"), (false, vec![]), "already stopping");
    }

    #[test]
    fn what_is_shown_begins_with_the_one_that_plays() {
        let mut queue = queue(&[(1, Class::Information), (2, Class::Alert)]);
        queue.next(DAY);
        assert_eq!(queue.all(DAY)[0].state, State::Preparing);
        queue.audible();
        let shown: Vec<_> = queue.all(DAY).into_iter().map(|q| (q.id.0, q.state)).collect();
        assert_eq!(shown, [(2, State::Playing), (1, State::Waiting)]);
        assert!(queue.holds(AnnouncementId(1)) && queue.holds(AnnouncementId(2)) && !queue.holds(AnnouncementId(3)));
    }

    /// A second-by-second walk through a scenario of the captures: who sounds from when to when.
    fn walk(scenario: &Value) -> Vec<(String, u64, u64, bool)> {
        let events = scenario["events"].as_array().expect("events");
        let mut names = HashMap::new();
        let (mut queue, mut began, mut played) = (Queue::default(), 0, Vec::new());
        for t in 0..300 {
            let playing = queue.turn.as_ref().map(|turn| turn.item.id);
            if let Some(id) = playing {
                let (name, length): &(String, u64) = &names[&id];
                if t == began + length {
                    played.push((name.clone(), began, t, true));
                    queue.end_turn();
                }
            }
            for (n, event) in events.iter().enumerate().filter(|(_, event)| event["t"] == t) {
                let class = event["class"].as_str().expect("class").replace("alerte", "alert").parse().expect("class");
                let new = item(n as u64, class);
                names.insert(
                    new.id,
                    (event["id"].as_str().expect("id").to_owned(), event["duration"].as_u64().expect("s")),
                );
                queue.push(new);
            }
            if queue.more_urgent(DAY).is_some() {
                let cut = queue.end_turn().expect("cut");
                played.push((names[&cut.id].0.clone(), began, t, false));
                queue.push(cut);
            }
            if queue.next(DAY).is_some() {
                began = t;
            }
        }
        played
    }

    fn scenario(name: &str) -> Value {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pa/scheduler_scenarios.json");
        let all: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("scenarios")).expect("JSON");
        all.as_array().expect("a list").iter().find(|s| s["name"] == name).expect("the scenario").clone()
    }

    #[test]
    fn scenario_higher_priority_preempts_and_the_cut_one_replays_from_its_start() {
        let scenario = scenario("higher_priority_preempts");
        let expected: Vec<_> = scenario["expected"]
            .as_array()
            .expect("expected")
            .iter()
            .map(|e| {
                let second = |key: &str| e[key].as_u64().expect("s");
                (e["id"].as_str().expect("id").to_owned(), second("from"), second("to"), e["end"] != "preempted")
            })
            .collect();
        assert_eq!(walk(&scenario), expected);
    }

    #[test]
    fn scenario_disjoint_zones_queue_on_the_one_sound_output() {
        let played = walk(&scenario("disjoint_zones_one_amplifier"));
        assert_eq!(played, [("A".to_owned(), 0, 30, true), ("B".to_owned(), 30, 50, true)]);
    }
}
