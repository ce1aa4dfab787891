//! The unit that plays: one announcement after another, each to its end, its cut, its stop or its failure.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Desk,
    keying::{Heard, Timing, Unheard, perform},
    queue::Item,
    studio::StudioError,
};
use crate::{
    announcement::{AnnouncementId, End},
    condition::Code,
    supervisor::{Fall, chain},
};

/// An announcement waits so long for a card that does not answer; a dying one may hang for minutes.
const CARD_MAY_TAKE: Duration = Duration::from_secs(2);
/// How often those that are held are looked at again: quiet hours end, days begin, the clock becomes known.
const LOOK: Duration = Duration::from_secs(30);

/// Why an announcement was not heard at all, or not to its end.
#[derive(Debug, thiserror::Error)]
enum Silence {
    /// There is no sound of it.
    #[error(transparent)]
    Studio(#[from] StudioError),
    /// It did not leave the loudspeakers.
    #[error(transparent)]
    Unheard(#[from] Unheard),
}

/// How a turn ended.
enum Ended {
    /// By itself.
    Over(Result<(), Silence>),
    /// By a more urgent one.
    Cut(AnnouncementId),
    /// By a person.
    Stopped(String),
    /// Because the gateway stops.
    Shut,
}

impl Ended {
    fn in_zone(&self, zone: &str, heard: &Heard) -> End {
        if let Some(why) = heard.silent(zone) {
            return End::Failed { why };
        }
        match self {
            Self::Over(Ok(())) => End::Played,
            Self::Over(Err(error)) => End::Failed { why: chain(error) },
            Self::Cut(by) => End::Cut { by: *by },
            Self::Stopped(by) => End::Stopped { by: by.clone() },
            Self::Shut => End::Failed { why: "the gateway stopped while it was playing".to_owned() },
        }
    }

    /// Whether it is to be heard again, or at all: after a cut; after a stop of the gateway if nothing was heard.
    fn comes_back(&self, heard: &Heard) -> bool {
        matches!(self, Self::Cut(_)) || matches!(self, Self::Shut) && heard.audible().is_zero()
    }
}

/// Plays what is asked until `stop`.
pub(super) async fn take_turns(desk: Arc<Desk>, stop: CancellationToken) -> Result<(), Fall> {
    bury_the_fallen(&desk);
    let mut changes = desk.changes.subscribe();
    while !stop.is_cancelled() {
        drop_the_stale(&desk);
        let next = desk.queue().next(desk.moment());
        match next {
            Some(item) => turn(&desk, item, &stop).await,
            None => idle(&desk, &mut changes, &stop).await,
        }
    }
    desk.relays.lock().await.release_all();
    desk.writes.close();
    desk.writes.wait().await;
    Ok(())
}

/// A turn that a panic broke off is a failure; its relays were opened as the panic passed.
fn bury_the_fallen(desk: &Desk) {
    let fallen = desk.queue().end_turn();
    if let Some(item) = fallen {
        desk.write_failed(&item, "the gateway fell while it was playing");
        desk.changed();
    }
}

fn drop_the_stale(desk: &Desk) {
    let stale = desk.queue().take_waiting(|item| desk.journal.older_than_a_day(item.asked));
    for item in &stale {
        desk.write_failed(item, "it has waited for more than a day");
    }
    if !stale.is_empty() {
        desk.changed();
    }
}

async fn idle(desk: &Desk, changes: &mut watch::Receiver<u64>, stop: &CancellationToken) {
    let somebody_waits = desk.queue().anybody_waits();
    tokio::select! {
        () = stop.cancelled() => {}
        _ = changes.changed() => {}
        () = tokio::time::sleep(LOOK), if somebody_waits => {}
    }
}

async fn turn(desk: &Desk, item: Item, stop: &CancellationToken) {
    desk.changed();
    let heard = Heard::nothing(desk.ground.clock.clone());
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ended::Shut,
        who = a_person_stops_it(desk) => Ended::Stopped(who),
        by = a_more_urgent_one(desk) => Ended::Cut(by),
        played = play(desk, &item, &heard) => Ended::Over(played),
    };
    close(desk, item, &heard, ended).await;
    desk.changed();
}

async fn play(desk: &Desk, item: &Item, heard: &Heard) -> Result<(), Silence> {
    let request = &item.request;
    let sound = desk.studio.sound(&request.text, request.class).await?;
    let begun = item.clone();
    // A fall of the write itself is logged by whoever writes; the sound does not wait long for the card's health.
    let _ = tokio::time::timeout(CARD_MAY_TAKE, desk.on_card(move |journal| journal.mark_playing(&begun))).await;
    let settings = &desk.settings;
    let timing = Timing { warm_up: settings.warm_up, tail: settings.tail, longest: settings.longest };
    let audible = || {
        desk.queue().audible();
        info!(announcement = %item.id, class = %request.class, zones = request.zones.join(" "), "Announcement sounds");
        desk.changed();
    };
    let mut relays = desk.relays.lock().await;
    let title = title(desk, item);
    perform(&mut relays, desk.player.as_ref(), timing, (&sound, &title, &request.zones), heard, audible).await?;
    Ok(())
}

/// `2026-05-12T12-00-03_17_bourg+hameau`, or the start and its seconds while the wall clock is not known.
fn title(desk: &Desk, item: &Item) -> String {
    let now = desk.ground.clock.now();
    let date = desk.local_time().map(|now| now.strftime("%Y-%m-%dT%H-%M-%S").to_string());
    let date = date.unwrap_or_else(|| format!("start{}-{:06}s", now.boot, now.mono_ms / 1_000));
    format!("{date}_{}_{}", item.id, item.request.zones.join("+"))
}

async fn a_person_stops_it(desk: &Desk) -> String {
    let mut changes = desk.changes.subscribe();
    loop {
        let stopped_by = desk.queue().stopped_by();
        match stopped_by {
            Some(who) => return who,
            None => wait(&mut changes).await,
        }
    }
}

/// Waits for an announcement that should cut the present one, and until its sound is ready: the present one sounds on
/// meanwhile. Nothing is waited for while nothing can be heard.
async fn a_more_urgent_one(desk: &Desk) -> AnnouncementId {
    let mut changes = desk.changes.subscribe();
    loop {
        let next = desk.queue().more_urgent(desk.moment()).cloned();
        match next {
            Some(next) => {
                if !desk.queue().is_audible() || is_ready(desk, &next).await {
                    return next.id;
                }
            }
            None => wait(&mut changes).await,
        }
    }
}

/// One that cannot be spoken fails where it waits, and cuts nothing.
async fn is_ready(desk: &Desk, next: &Item) -> bool {
    let sound = desk.studio.sound(&next.request.text, next.request.class).await;
    let Err(error) = sound else { return desk.queue().holds(next.id) };
    let why = chain(&Silence::from(error));
    let taken = desk.queue().take_waiting(|item| item.id == next.id);
    for item in &taken {
        desk.write_failed(item, &why);
    }
    desk.changed();
    false
}

async fn wait(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How one zone's part ended, and how long it was heard there.
#[derive(Clone)]
struct ZoneEnd {
    zone: String,
    audible: Duration,
    end: End,
}

/// Writes down how it ended in each zone, and what is wrong or right again.
async fn close(desk: &Desk, item: Item, heard: &Heard, ended: Ended) {
    let (audible, today, comes_back) = (heard.audible(), desk.today(), ended.comes_back(heard));
    let zone_end = |zone: &String| ZoneEnd {
        zone: zone.clone(),
        audible: if heard.silent(zone).is_some() { Duration::ZERO } else { audible },
        end: ended.in_zone(zone, heard),
    };
    let ends: Vec<ZoneEnd> = item.request.zones.iter().map(zone_end).collect();
    ends.iter().for_each(|end| log_end(item.id, end));
    if !matches!(ended, Ended::Shut) {
        tell_the_board(desk, item.id, &ends);
    }
    let started = heard.keyed().unwrap_or_else(|| desk.ground.clock.now());
    let written = item.clone();
    let on_card = desk.on_card(move |journal| {
        if !(comes_back && audible.is_zero()) {
            let entry = |end: ZoneEnd| written.entry(end.zone, started, end.audible, end.end);
            journal.write(ends.into_iter().map(entry));
        }
        journal.spend(written.request.class, audible, today);
        if comes_back { journal.mark_waiting(&written) } else { journal.forget(written.id) }
    });
    if on_card.await.is_err() {
        warn!(announcement = %item.id, "Announcement's end was not written down");
    }
    let mut queue = desk.queue();
    queue.end_turn();
    if comes_back {
        queue.push(item);
    }
}

fn tell_the_board(desk: &Desk, id: AnnouncementId, ends: &[ZoneEnd]) {
    for ZoneEnd { zone, end, .. } in ends {
        match end {
            End::Played => {
                desk.ground.board.close(Code::AnnouncementFailed, zone);
            }
            End::Failed { why } => {
                desk.ground.board.raise(Code::AnnouncementFailed, zone, format!("announcement {id}: {why}"));
            }
            End::Cut { .. } | End::Stopped { .. } => {}
        }
    }
    desk.look_around();
}

fn log_end(announcement: AnnouncementId, ZoneEnd { zone, audible, end }: &ZoneEnd) {
    let audible_ms = audible.as_millis();
    match end {
        End::Played => info!(%announcement, zone, audible_ms, "Announcement played"),
        End::Cut { by } => info!(%announcement, zone, audible_ms, %by, "Announcement cut"),
        End::Stopped { by } => info!(%announcement, zone, audible_ms, by, "Announcement stopped"),
        End::Failed { why } => warn!(%announcement, zone, audible_ms, why, "Announcement failed"),
    }
}
