//! The village's loudspeakers: what is asked is queued, spoken, chimed, keyed, played and written down.
//!
//! [`start`] gives an [`Announcer`]; the panel and MQTT ask through it. Decisions worth knowing:
//! - A higher class cuts a lower one, whose sound goes on until the other is ready to be heard. The one that was cut is
//!   played again from its start; equal classes wait for each other. There is one sound output: zones never overlap.
//! - Quiet hours and the day's minutes hold ambiance and information. While nobody vouches for the wall clock a
//!   person's request passes and a machine's (`mqtt:…`) of these two classes waits.
//! - What waits survives a restart. What was playing at a crash is written down as failed and not played by itself.
//! - What has waited for a day is stale and is written down as failed instead of surprising the village.
//! - Important announcements and alerts are taken even when the card refuses to keep them.

mod chime;
mod journal;
mod keying;
mod player;
mod queue;
mod sound;
mod studio;
#[cfg(test)]
mod tests;
mod turns;
mod voice;
mod words;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::{Timestamp, Zoned, civil::Date, tz::TimeZone};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::{
    journal::Journal,
    keying::Relays,
    player::{Aplay, Player, WavFile},
    queue::{Hour, Item, Moment, Queue},
    studio::Studio,
    voice::{Programs, Speaker},
};
use crate::{
    announcement::{AnnouncementId, Announcer, Class, End, JournalEntry, Queued, Refused, Request, Zone},
    clock::Clock,
    condition::{Board, Code},
    config::announce::{AnnounceSettings, Output},
    port::gpio::Pins,
    store::Keep,
    supervisor::{Health, Stage, Supervisor, chain},
};

/// Characters in an announcement; read aloud, about 80 s.
const LONGEST_TEXT: usize = 1_000;
/// Characters of who asks.
const LONGEST_NAME: usize = 200;
/// The unit that plays.
const UNIT: &str = "announcements";
/// What the condition about a missing player is about.
const OUTPUT: &str = "sound output";

/// What this part stands on.
#[derive(Clone)]
pub struct Ground {
    /// Keeps the unit that plays running, and stops it.
    pub supervisor: Supervisor,
    /// Where failures are raised and closed.
    pub board: Board,
    /// Dates the journal.
    pub clock: Clock,
    /// The journal and the queue.
    pub keep: Arc<dyn Keep>,
    /// The relays' pins; `None` on a machine without any.
    pub pins: Option<Arc<dyn Pins>>,
    /// In which quiet hours and days are told.
    pub time_zone: TimeZone,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("pins", &self.pins.is_some()).finish_non_exhaustive()
    }
}

/// Takes the relays, released; reads what was waiting; starts to play. Must be called within a tokio runtime. Reads the
/// card, so not from a task that others wait for.
pub fn start(settings: AnnounceSettings, ground: Ground) -> Arc<dyn Announcer> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let model = settings.voice_model.as_deref();
    let speaker = Programs::new(&settings.voice, model, search.clone(), std::env::temp_dir());
    let player: Arc<dyn Player> = match &settings.output {
        Output::Aplay { card } => Arc::new(Aplay::new(card, search)),
        Output::Wav { directory } => Arc::new(WavFile::new(directory)),
    };
    open(settings, ground, Arc::new(speaker), player)
}

fn open(
    settings: AnnounceSettings,
    ground: Ground,
    speaker: Arc<dyn Speaker>,
    player: Arc<dyn Player>,
) -> Arc<dyn Announcer> {
    // Before anything that may take time or fall: the relays are open.
    let relays = Relays::take(&settings, ground.pins.as_ref(), &ground.board);
    let (journal, waiting, broken) = Journal::open(Arc::clone(&ground.keep), ground.clock.clone());
    let desk = Arc::new(Desk {
        studio: Studio::new(speaker, ground.board.clone()),
        queue: Mutex::new(Queue::restored(waiting)),
        journal: Arc::new(journal),
        relays: tokio::sync::Mutex::new(relays),
        changes: watch::Sender::new(0),
        asking: Arc::default(),
        writes: TaskTracker::new(),
        runtime: Handle::current(),
        player,
        settings,
        ground,
    });
    desk.look_around();
    for item in broken {
        desk.write_failed(&item, "the gateway stopped while it was playing");
    }
    take_up_when_known(&desk);
    let unit = Arc::clone(&desk);
    desk.ground.supervisor.unit(Stage::Announce, UNIT, move |stop| turns::take_turns(Arc::clone(&unit), stop));
    Arc::new(Counter(desk))
}

/// A gateway may start without its card: what that holds is taken up once it can be read.
fn take_up_when_known(desk: &Arc<Desk>) {
    let mut known = desk.ground.keep.known();
    if *known.borrow_and_update() {
        return;
    }
    let (desk, stop) = (Arc::clone(desk), desk.ground.supervisor.stop_of(Stage::Announce));
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        if known.wait_for(|known| *known).await.is_err() {
            return;
        }
        let Ok((waiting, broken)) = desk.on_card(Journal::take_up).await else { return };
        for item in broken {
            desk.write_failed(&item, "the gateway stopped while it was playing");
        }
        for item in waiting {
            desk.queue().push(item);
        }
        desk.changed();
    }));
}

/// Everything the two sides share: those who ask, and the unit that plays.
struct Desk {
    settings: AnnounceSettings,
    ground: Ground,
    queue: Mutex<Queue>,
    journal: Arc<Journal>,
    studio: Studio,
    player: Arc<dyn Player>,
    relays: tokio::sync::Mutex<Relays>,
    changes: watch::Sender<u64>,
    /// One request is taken at a time, so that the same key asked twice at once is seen.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// Writes to the card that are under way.
    writes: TaskTracker,
    runtime: Handle,
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        tell(&self.changes);
    }

    /// Says at once what is missing, rather than at the first announcement.
    fn look_around(&self) {
        let _ = self.studio.ready();
        let missing = self.player.ready().err().map(|error| chain(&error));
        self.ground.board.set(Code::VoiceMissing, OUTPUT, missing);
    }

    /// The local time, when somebody vouches for it.
    fn local_time(&self) -> Option<Zoned> {
        let wall = self.ground.clock.wall_now();
        let known = wall.source.is_trusted().then(|| Timestamp::from_millisecond(wall.unix_ms).ok())??;
        Some(known.to_zoned(self.ground.time_zone.clone()))
    }

    fn today(&self) -> Option<Date> {
        self.local_time().map(|now| now.date())
    }

    fn moment(&self) -> Moment {
        let now = self.local_time();
        let hour = match &now {
            None => Hour::Unknown,
            Some(now) if self.settings.quiet.contain(now.time()) => Hour::Quiet,
            Some(_) => Hour::Open,
        };
        let spent = self.journal.spent(now.map(|now| now.date()));
        Moment { hour, budget_spent: spent >= self.settings.daily_budget }
    }

    /// Does work that waits for the card, elsewhere. It is done even if nobody waits for it.
    fn on_card<T: Send + 'static>(&self, work: impl FnOnce(&Journal) -> T + Send + 'static) -> JoinHandle<T> {
        let journal = Arc::clone(&self.journal);
        self.writes.spawn_blocking_on(move || work(&journal), &self.runtime)
    }

    /// An announcement that was never heard, or whose playing broke off, is over.
    fn write_failed(&self, item: &Item, why: &str) {
        warn!(announcement = %item.id, why, "Announcement failed");
        for zone in &item.request.zones {
            self.ground.board.raise(Code::AnnouncementFailed, zone, format!("announcement {}: {why}", item.id));
        }
        self.write_end(item, End::Failed { why: why.to_owned() });
    }

    /// Writes the same end for every zone, nothing having been heard as far as is known.
    fn write_end(&self, item: &Item, end: End) {
        let (item, started) = (item.clone(), self.ground.clock.now());
        let changes = self.changes.clone();
        // Nobody waits for it but the stop of the unit, which waits for every write.
        drop(self.on_card(move |journal| {
            let zones = item.request.zones.iter().cloned();
            journal.write(zones.map(|zone| item.entry(zone, started, Duration::ZERO, end.clone())));
            journal.forget(item.id);
            tell(&changes);
        }));
    }

    fn checked(&self, mut request: Request) -> Result<Request, Refused> {
        check_text(&request.text)?;
        if request.zones.is_empty() {
            return Err(Refused::NoZone);
        }
        let known = |name: &&String| self.settings.zones.iter().any(|zone| zone.name == **name);
        if let Some(unknown) = request.zones.iter().find(|name| !known(name)) {
            return Err(Refused::UnknownZone(unknown.chars().take(LONGEST_NAME).collect()));
        }
        let asked: HashSet<&String> = request.zones.iter().collect();
        let zones = self.settings.zones.iter().map(|zone| &zone.name);
        request.zones = zones.filter(|name| asked.contains(name)).cloned().collect();
        request.asked_by = request.asked_by.chars().take(LONGEST_NAME).collect();
        request.key = request.key.map(|key| journal::short(&key));
        Ok(request)
    }

    fn is_at_work(&self) -> Result<(), Refused> {
        let supervisor = &self.ground.supervisor;
        if supervisor.stop_of(Stage::Announce).is_cancelled() {
            return Err(Refused::NotKept("the gateway is stopping".to_owned()));
        }
        if supervisor.health().iter().any(|(name, health)| name == UNIT && *health == Health::GaveUp) {
            return Err(Refused::NotKept("the unit that plays was given up".to_owned()));
        }
        Ok(())
    }

    async fn take(self: Arc<Self>, request: Request) -> Result<AnnouncementId, Refused> {
        let request = self.checked(request)?;
        let alone = Arc::clone(&self.asking).lock_owned().await;
        if let Some(id) = request.key.as_ref().and_then(|key| self.journal.asked_before(key)) {
            info!(announcement = %id, "Announcement asked again");
            return Ok(id);
        }
        self.is_at_work()?;
        self.queue().room_for(request.class)?;
        self.studio.ready().map_err(|error| Refused::Voice(chain(&error)))?;
        let item = Item { id: self.journal.new_id(), request, asked: self.ground.clock.now() };
        let desk = Arc::clone(&self);
        let taken = self.on_card(move |_| {
            let _alone = alone;
            desk.enter(item)
        });
        taken.await.unwrap_or_else(|fall| Err(Refused::NotKept(chain(&fall))))
    }

    /// On the card first, then in the queue.
    fn enter(&self, item: Item) -> Result<AnnouncementId, Refused> {
        if let Err(error) = self.journal.keep_waiting(&item) {
            let why = chain(&error);
            if item.request.class < Class::Important {
                return Err(Refused::NotKept(why));
            }
            warn!(announcement = %item.id, why, "Announcement would not survive a restart");
        }
        self.journal.remember_key(&item);
        let id = item.id;
        info!(announcement = %id, class = %item.request.class, by = item.request.asked_by, "Announcement asked");
        self.queue().push(item);
        self.changed();
        Ok(id)
    }
}

fn tell(changes: &watch::Sender<u64>) {
    changes.send_modify(|count| *count = count.wrapping_add(1));
}

fn check_text(text: &str) -> Result<(), Refused> {
    let length = text.chars().count();
    if length > LONGEST_TEXT {
        return Err(Refused::TooLong(length, LONGEST_TEXT));
    }
    // Marks alone say nothing.
    if text.chars().any(char::is_alphanumeric) { Ok(()) } else { Err(Refused::Empty) }
}

/// What others hold: the desk, which they cannot see into.
struct Counter(Arc<Desk>);

impl Announcer for Counter {
    fn zones(&self) -> Vec<Zone> {
        let zones = self.0.settings.zones.iter();
        zones.map(|zone| Zone { name: zone.name.clone(), label: zone.label.clone() }).collect()
    }

    fn preview<'a>(&'a self, text: &'a str, class: Class) -> BoxFuture<'a, Result<Vec<u8>, Refused>> {
        async move {
            check_text(text)?;
            self.0.studio.ready().map_err(|error| Refused::Voice(chain(&error)))?;
            self.0.studio.preview(text, class).await.map_err(|error| Refused::Voice(chain(&error)))
        }
        .boxed()
    }

    fn ask(&self, request: Request) -> BoxFuture<'_, Result<AnnouncementId, Refused>> {
        Arc::clone(&self.0).take(request).boxed()
    }

    fn stop(&self, id: Option<AnnouncementId>, who: &str) -> bool {
        let (any, waited) = self.0.queue().stop(id, who);
        for item in waited {
            info!(announcement = %item.id, who, "Announcement stopped before its turn");
            self.0.write_end(&item, End::Stopped { by: who.to_owned() });
        }
        if any {
            self.0.changed();
        }
        any
    }

    fn queue(&self) -> Vec<Queued> {
        let moment = self.0.moment();
        self.0.queue().all(moment)
    }

    fn journal(&self, limit: usize) -> Vec<JournalEntry> {
        self.0.journal.latest(limit)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}
