//! Devices at work: one supervised unit a serial line, one a pin, and the topics for the broker's inbox.
//!
//! Drivers decode and never wait; here is all the waiting: ports, rounds, retries, pace, silence.

mod bus;
mod ear;
mod hearing;
mod pin;
mod stream;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

pub use self::topics::Topics;
use self::{bus::Bus, ear::Ear, pin::Contact, stream::Stream};
use super::{Device, Wire, Words, words};
use crate::{
    clock::Clock,
    condition::{Board, Code},
    live::Live,
    port::{
        gpio::Pins,
        serial::{Line, keep_open},
    },
    reading::{Commit, Intake, PointId},
    supervisor::{Stage, Supervisor},
};

/// What devices stand on.
pub struct Ground {
    /// Keeps their units up.
    pub supervisor: Supervisor,
    /// Where their readings go.
    pub intake: Intake,
    /// Where they say what is wrong.
    pub board: Board,
    /// What their readings are dated by.
    pub clock: Clock,
    /// What was last known of their points.
    pub live: Live,
    /// The pins of this machine, if it has any.
    pub pins: Option<Arc<dyn Pins>>,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// How often devices are looked at for silence.
const LOOK: Duration = Duration::from_secs(1);

/// Devices that cannot be used beside those before them, by place in the list, each with the reason: a name, a line or
/// a pin that is taken.
pub fn conflicts(devices: &[Device]) -> BTreeMap<usize, Words> {
    let mut taken = Taken::default();
    devices.iter().enumerate().filter_map(|(place, device)| Some((place, taken.refuses(device)?))).collect()
}

/// What the devices so far have taken.
#[derive(Default)]
struct Taken<'a> {
    names: BTreeSet<&'a PointId>,
    points: BTreeMap<&'a PointId, &'a PointId>,
    lines: BTreeMap<&'a PathBuf, (&'a Device, &'a Line, bool)>,
    units: BTreeMap<(&'a PathBuf, u8), &'a PointId>,
    pins: BTreeMap<u8, &'a PointId>,
}

impl<'a> Taken<'a> {
    /// Why a device cannot be used; otherwise what it needs is taken.
    fn refuses(&mut self, device: &'a Device) -> Option<Words> {
        if self.names.contains(&device.name) {
            let name = &device.name;
            return Some(words!("another device is called {name}", "un autre appareil s'appelle {name}"));
        }
        if let Some((point, owner)) = device.points.iter().find_map(|p| Some((&p.id, self.points.get(&p.id)?))) {
            return Some(words!("the point {point} belongs to {owner}", "le point {point} appartient à {owner}"));
        }
        let wire = match &device.wire {
            Wire::Stream { line, .. } => self.refuses_line(device, line, false),
            Wire::Bus { line, unit, .. } => {
                self.refuses_line(device, line, true).or_else(|| self.refuses_unit(device, line, *unit))
            }
            Wire::Pin { pin, .. } => {
                let owner = self.pins.insert(*pin, &device.name);
                owner.map(|owner| words!("GPIO {pin} is taken by {owner}", "GPIO {pin} sert déjà à {owner}"))
            }
            Wire::Topic { .. } => None,
        };
        if wire.is_none() {
            self.names.insert(&device.name);
            self.points.extend(device.points.iter().map(|point| (&point.id, &device.name)));
        }
        wire
    }

    /// A unit left at its default twice would show one meter's figures under two names.
    fn refuses_unit(&mut self, device: &'a Device, line: &'a Line, unit: u8) -> Option<Words> {
        let path = line.path.display();
        let owner = *self.units.entry((&line.path, unit)).or_insert(&device.name);
        (owner != &device.name).then(|| {
            words!(
                "unit {unit} on {path} is {owner}: each meter needs a `unit` of its own",
                "l'unité {unit} sur {path} est {owner} : chaque compteur a besoin d'un `unit` à lui"
            )
        })
    }

    fn refuses_line(&mut self, device: &'a Device, line: &'a Line, shares: bool) -> Option<Words> {
        let path = line.path.display();
        match self.lines.get(&line.path) {
            None => {
                self.lines.insert(&line.path, (device, line, shares));
                None
            }
            Some((first, _, false)) => {
                let first = &first.name;
                Some(words!(
                    "{path} belongs to {first}, which talks by itself",
                    "{path} appartient à {first}, qui parle de lui-même"
                ))
            }
            Some((first, ..)) if !shares => {
                let first = &first.name;
                Some(words!(
                    "{path} is a bus, used by {first}; a device that talks by itself needs its own",
                    "{path} est un bus, employé par {first} ; un appareil qui parle de lui-même a besoin d'un port à lui"
                ))
            }
            Some((first, known, _)) if *known != line => {
                let (first, theirs, its) = (
                    &first.name,
                    format!("{} {}", known.speed, known.framing),
                    format!("{} {}", line.speed, line.framing),
                );
                Some(words!(
                    "{path} is used by {first} at {theirs}, not {its}",
                    "{path} est employé par {first} à {theirs}, pas à {its}"
                ))
            }
            Some(_) => None,
        }
    }
}

/// Starts devices: a unit for each serial line and each pin. Those that [`conflicts`] names stay out and are told.
pub fn start(devices: Vec<Device>, ground: &Ground) -> Topics {
    let clashes = conflicts(&devices);
    let mut works = Works::default();
    for (place, device) in devices.into_iter().enumerate() {
        match clashes.get(&place) {
            None => works.take(device, ground),
            Some(why) => {
                ground.board.raise(Code::ConfigurationFault, device.name.as_str(), why.to_string());
            }
        }
    }
    works.start(ground)
}

/// Devices by what they are started on.
#[derive(Default)]
struct Works {
    ears: Vec<Arc<Ear>>,
    streams: Vec<(Line, Stream)>,
    buses: BTreeMap<PathBuf, (Line, Bus)>,
    contacts: Vec<Contact>,
    topics: Vec<topics::Subscription>,
}

impl Works {
    fn take(&mut self, device: Device, ground: &Ground) {
        let Device { name, points, wire, .. } = device;
        let pace = match &wire {
            Wire::Stream { every, .. } | Wire::Bus { every, .. } => Some(*every),
            Wire::Pin { .. } | Wire::Topic { .. } => points.iter().filter_map(|point| point.interval).min(),
        };
        let ear = Arc::new(Ear::new(&name, points, pace, ground.clock.clone(), ground.board.clone()));
        self.ears.push(Arc::clone(&ear));
        match wire {
            Wire::Stream { line, every, decoder } => {
                self.streams.push((line, Stream::new(ear, every, decoder, ground.intake.clone())));
            }
            Wire::Bus { line, unit, every, timeout, poller } => {
                let path = line.path.clone();
                let bus = || Bus::new(line.speed, ground.intake.clone());
                let (_, bus) = self.buses.entry(path).or_insert_with(|| (line.clone(), bus()));
                bus.add(ear, unit, every, timeout, poller);
            }
            Wire::Pin { pin, pull, debounce, decoder } => {
                self.contacts.push(Contact { ear, pin, pull, debounce, decoder, resumed: false });
            }
            Wire::Topic { filter, decoder } => self.topics.push(topics::Subscription { filter, decoder, ear }),
        }
    }

    fn start(self, ground: &Ground) -> Topics {
        for (line, stream) in self.streams {
            start_stream(line, stream, ground);
        }
        for (line, bus) in self.buses.into_values() {
            start_bus(line, bus, ground);
        }
        for contact in self.contacts {
            pin::start(contact, ground);
        }
        if !self.ears.is_empty() {
            start_looking(self.ears, ground);
        }
        Topics::new(self.topics)
    }
}

fn start_stream(line: Line, stream: Stream, ground: &Ground) {
    let (board, name) = (ground.board.clone(), format!("line {}", line.path.display()));
    let stream = Arc::new(Mutex::new(stream));
    ground.supervisor.unit(Stage::Inputs, name, move |stop| {
        let (line, board, stream) = (line.clone(), board.clone(), Arc::clone(&stream));
        async move {
            let listened = Arc::clone(&stream);
            let body = move |port| {
                let stream = Arc::clone(&listened);
                async move { stream.lock().await.listen(port).await }
            };
            keep_open(&line, &board, &stop, body).await?;
            stream.lock().await.give_what_is_held().await;
            Ok(())
        }
    });
}

fn start_bus(line: Line, bus: Bus, ground: &Ground) {
    let (board, name) = (ground.board.clone(), format!("line {}", line.path.display()));
    let bus = Arc::new(Mutex::new(bus));
    ground.supervisor.unit(Stage::Inputs, name, move |stop| {
        let (line, board, bus) = (line.clone(), board.clone(), Arc::clone(&bus));
        async move {
            let body = move |port| {
                let bus = Arc::clone(&bus);
                async move { bus.lock().await.poll(port).await }
            };
            Ok(keep_open(&line, &board, &stop, body).await?)
        }
    });
}

/// Silence and lasting nonsense are noticed by looking, whatever the devices' own units are doing.
fn start_looking(ears: Vec<Arc<Ear>>, ground: &Ground) {
    let (intake, live, ears) = (ground.intake.clone(), ground.live.clone(), Arc::new(ears));
    ground.supervisor.unit(Stage::Inputs, "devices' silence", move |stop| {
        let (intake, live, ears) = (intake.clone(), live.clone(), Arc::clone(&ears));
        async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stop.run_until_cancelled(looks.tick()).await.is_some() {
                for ear in ears.iter() {
                    let stale = ear.look(&live);
                    if !stale.is_empty() {
                        intake.give(stale, Commit::Grouped).await;
                    }
                }
            }
            Ok(())
        }
    });
}

#[cfg(test)]
mod tests;
