//! Readings become conditions: out of range, stale air, a contact that is an alarm, a leak, a silent water meter.
//!
//! Started by the application. Reads [`Live`] and the archive, writes only to the [`Board`]; no reading is changed here.

mod nights;
mod values;
mod water;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::civil::Date;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    nights::{Nights, Outcome},
    values::{Air, News, Range},
    water::Meter,
};
use crate::{
    clock::Clock,
    condition::{Board, Code},
    config::watch::WatchSettings,
    live::Live,
    reading::{Kind, Point, PointId, Quality, Reading},
    store::{Archive, StoreError},
    supervisor::{Fall, Stage, Supervisor, chain},
};

pub use water::{Loss, NightRule, Verdict, night_flow};

const EVERY: Duration = Duration::from_secs(1);

/// What the watch stands on.
pub struct Ground<'a> {
    /// Keeps it running.
    pub supervisor: &'a Supervisor,
    /// Where it tells.
    pub board: Board,
    /// What it reads.
    pub live: Live,
    /// Now.
    pub clock: Clock,
    /// The nights before.
    pub archive: Arc<dyn Archive>,
}

/// Starts the watch as a unit of the inputs. Readings told after this call are seen.
pub fn start(settings: WatchSettings, ground: Ground<'_>) {
    let Ground { supervisor, board, live, clock, archive } = ground;
    let settings = Arc::new(settings);
    // Subscribed now, so that nothing told before the unit first runs is missed.
    let first = Mutex::new(Some(live.watch()));
    supervisor.unit(Stage::Inputs, "watch", move |stop| {
        let taken = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let news = taken.unwrap_or_else(|| live.watch());
        let watch = Watch::new(Arc::clone(&settings), board.clone(), live.clone(), clock.clone());
        run(watch, news, Arc::clone(&archive), stop)
    });
}

async fn run(
    mut watch: Watch,
    mut news: Receiver<Arc<[Reading]>>,
    archive: Arc<dyn Archive>,
    stop: CancellationToken,
) -> Result<(), Fall> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Readings before the tick: time must not overtake litres that wait to be counted.
            biased;
            () = stop.cancelled() => return Ok(()),
            told = news.recv() => match told {
                Ok(readings) => readings.iter().for_each(|reading| watch.take(reading)),
                Err(RecvError::Lagged(_)) => watch.catch_up(),
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = ticks.tick() => {
                watch.tick();
                judge_nights(&mut watch, &archive).await?;
            }
        }
    }
}

/// Judges the last nights once they are over, away from the runtime's threads.
async fn judge_nights(watch: &mut Watch, archive: &Arc<dyn Archive>) -> Result<(), Fall> {
    let Some(date) = watch.night_due() else { return Ok(()) };
    let (meters, settings, archive) = (watch.water(), Arc::clone(&watch.settings), Arc::clone(archive));
    let judged = tokio::task::spawn_blocking(move || judge_all(archive.as_ref(), &meters, date, &settings)).await?;
    match judged {
        Ok(outcomes) => watch.nights_judged(date, &outcomes),
        Err(cause) => {
            warn!(cause = chain(&cause), "Nights not judged, the archive cannot be read");
            watch.nights.later(watch.clock.now().mono_ms);
        }
    }
    Ok(())
}

fn judge_all(
    archive: &dyn Archive,
    meters: &[(PointId, f64)],
    date: Date,
    settings: &WatchSettings,
) -> Result<Vec<(PointId, Outcome)>, StoreError> {
    let judge = |(point, litres): &(PointId, f64)| {
        nights::judge(archive, point, *litres, date, settings).map(|outcome| (point.clone(), outcome))
    };
    meters.iter().map(judge).collect()
}

/// Litres in one unit of a water counter; `None` for other points. Cubic metres are water only under `water/` or
/// `eau/`: gas is counted in them too, and a boiler that burns all night is no leak.
fn litres_in(point: &Point) -> Option<f64> {
    let is_water = ["water/", "eau/"].iter().any(|prefix| point.id.as_str().starts_with(prefix));
    match (point.kind, point.unit.as_str()) {
        (Kind::Counter, "L") => Some(1.0),
        (Kind::Counter, "m3") if is_water => Some(1_000.0),
        _ => None,
    }
}

/// Everything seen so far, point by point.
struct Watch {
    settings: Arc<WatchSettings>,
    board: Board,
    live: Live,
    clock: Clock,
    ranges: BTreeMap<PointId, Range>,
    airs: BTreeMap<PointId, Air>,
    meters: BTreeMap<PointId, (Meter, f64)>,
    nights: Nights,
}

impl Watch {
    fn new(settings: Arc<WatchSettings>, board: Board, live: Live, clock: Clock) -> Self {
        let of = |point: &Point| Some((point.id.clone(), (Meter::default(), litres_in(point)?)));
        let meters = live.points().filter_map(of).collect();
        let (ranges, airs) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, board, live, clock, ranges, airs, meters, nights: Nights::default() }
    }

    fn take(&mut self, reading: &Reading) {
        // Points of ours only, so that what is kept here stays bounded.
        let Some(point) = self.live.point(&reading.point) else { return };
        let range = self.ranges.entry(point.id.clone()).or_default().take(reading, point);
        self.tell(Code::PointOutOfRange, &point.id, range);
        if point.unit == "[ppm]" {
            let air = self.airs.entry(point.id.clone()).or_default().take(reading, &self.settings);
            self.tell(Code::AirStale, &point.id, air);
        }
        if let Some(alarm) = self.settings.contacts.get(&point.id)
            && let Some(value) = reading.value
        {
            let wrong = (value == *alarm).then(|| format!("{} is at {value}", point.label));
            self.board.set(Code::ContactAlarm, point.id.as_str(), wrong);
        }
        // A suspect step is not litres.
        if let Some((meter, litres)) = self.meters.get_mut(&reading.point)
            && let (Some(value), Quality::Good) = (reading.value, reading.quality)
        {
            meter.index(reading.stamp.mono_ms, value * *litres, &self.settings);
            show(&self.board, &reading.point, meter);
        }
    }

    fn tell(&self, code: Code, point: &PointId, news: News) {
        match news {
            News::Wrong(detail) => {
                self.board.raise(code, point.as_str(), detail);
            }
            News::Over => {
                self.board.close(code, point.as_str());
            }
            News::None => {}
        }
    }

    /// Too many readings came at once: the newest of each point stands for those missed.
    fn catch_up(&mut self) {
        let boot = self.clock.boot();
        let newest: Vec<_> = self.live.points().filter_map(|point| self.live.newest(&point.id)).collect();
        newest.iter().filter(|reading| reading.stamp.boot == boot).for_each(|reading| self.take(reading));
    }

    fn tick(&mut self) {
        let now = self.clock.now().mono_ms;
        for (point, (meter, _)) in &mut self.meters {
            meter.tick(now, &self.settings);
            show(&self.board, point, meter);
        }
    }

    fn water(&self) -> Vec<(PointId, f64)> {
        self.meters.iter().map(|(point, (_, litres))| (point.clone(), *litres)).collect()
    }

    fn night_due(&mut self) -> Option<Date> {
        if self.meters.is_empty() {
            return None;
        }
        self.nights.due(self.clock.wall_now(), self.clock.now().mono_ms, &self.settings)
    }

    fn nights_judged(&mut self, date: Date, outcomes: &[(PointId, Outcome)]) {
        for (point, outcome) in outcomes {
            let Some((meter, _)) = self.meters.get_mut(point) else { continue };
            match outcome {
                Outcome::Leak(rate) => {
                    let loss = water::loss(*rate, self.settings.water_price);
                    meter.nights =
                        Some(format!("water flows all night, {} nights running: {loss}", self.settings.nights));
                }
                Outcome::Dry => meter.nights = None,
                // What was known of it before still holds.
                Outcome::Unknown => {}
            }
            show(&self.board, point, meter);
        }
        self.nights.done(date);
    }
}

fn show(board: &Board, point: &PointId, meter: &Meter) {
    board.set(Code::WaterLeak, point.as_str(), meter.leak());
    board.set(Code::WaterMeterSilent, point.as_str(), meter.silent.clone());
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        config,
        reading::{Sharing, Why},
    };

    fn point(id: &str, unit: &str, kind: Kind) -> Point {
        Point {
            id: id.parse().expect("a name"),
            label: "Porte".to_owned(),
            unit: unit.to_owned(),
            kind,
            decimals: 0,
            interval: None,
            range: (unit == "Cel").then_some(-30.0..=60.0),
            sharing: Sharing::Internal,
        }
    }

    /// A watch over these points, its board, and a clock to be moved.
    fn watch(points: Vec<Point>) -> (Watch, Board, Arc<HeldTime>) {
        let time = HeldTime::at(0, Source::Unknown);
        let clock = Clock::new(1, time.clone(), []);
        let board = Board::new(clock.clone());
        let mut settings = config::watch::read(None, TimeZone::UTC);
        settings.contacts.insert("door/state".parse().expect("a name"), 1.0);
        settings.silent_after = Some(Duration::from_secs(86_400));
        let live = Live::new(points, []);
        (Watch::new(Arc::new(settings), board.clone(), live, clock), board, time)
    }

    fn tell(watch: &mut Watch, id: &str, value: f64, quality: Quality) {
        let reading =
            Reading { point: id.parse().expect("a name"), stamp: watch.clock.now(), value: Some(value), quality };
        watch.live.tell(std::slice::from_ref(&reading));
        watch.take(&reading);
    }

    #[test]
    fn gas_in_cubic_metres_is_not_watched_for_leaks_and_water_is() {
        let litres = |id, unit| litres_in(&point(id, unit, Kind::Counter));
        assert_eq!(litres("gas/hall/index", "m3"), None);
        assert_eq!(litres("water/hall/index", "m3"), Some(1_000.0));
        assert_eq!(litres("cellar/meter/index", "L"), Some(1.0));
        assert_eq!(litres_in(&point("water/hall/flow", "L", Kind::Gauge)), None);
    }

    #[test]
    fn a_value_out_of_its_range_is_told_with_the_range_and_closed_again() {
        let (mut watch, board, _) = watch(vec![point("t/hall", "Cel", Kind::Gauge)]);
        for value in [85.0, 85.0] {
            tell(&mut watch, "t/hall", value, Quality::Suspect(Why::OutOfRange));
        }
        assert_eq!(board.open()[0].detail, "85 Cel, -30 to 60 Cel was expected");
        for value in [20.0; 3] {
            tell(&mut watch, "t/hall", value, Quality::Good);
        }
        assert!(board.open().is_empty());
    }

    #[test]
    fn a_suspect_jump_of_an_index_is_no_burst() {
        let (mut watch, board, _) = watch(vec![point("water/hall/index", "L", Kind::Counter)]);
        tell(&mut watch, "water/hall/index", 10.0, Quality::Good);
        tell(&mut watch, "water/hall/index", 1e9, Quality::Suspect(Why::ImplausibleStep));
        tell(&mut watch, "water/hall/index", 11.0, Quality::Good);
        assert!(board.open().is_empty(), "{:?}", board.open());
    }

    #[test]
    fn a_silent_meter_is_told_until_it_counts() {
        let (mut watch, board, time) = watch(vec![point("water/hall/index", "L", Kind::Counter)]);
        watch.tick();
        tell(&mut watch, "water/hall/index", 10.0, Quality::Good);
        time.advance(86_400_000);
        watch.tick();
        assert!(board.is_open(Code::WaterMeterSilent, "water/hall/index"));
        tell(&mut watch, "water/hall/index", 11.0, Quality::Good);
        assert!(board.open().is_empty());
    }

    #[test]
    fn after_too_many_readings_at_once_the_newest_of_each_point_counts() {
        let (mut watch, board, _) = watch(vec![point("door/state", "1", Kind::State)]);
        let reading = |value| Reading {
            point: "door/state".parse().expect("a name"),
            stamp: watch.clock.now(),
            value: Some(value),
            quality: Quality::Good,
        };
        watch.live.tell(&[reading(0.0), reading(1.0)]);
        watch.catch_up();
        assert!(board.is_open(Code::ContactAlarm, "door/state"));
    }

    #[test]
    fn a_night_of_which_nothing_is_known_leaves_the_leak_open_and_a_dry_one_closes_it() {
        let (mut watch, board, _) = watch(vec![point("water/hall/index", "L", Kind::Counter)]);
        let id: PointId = "water/hall/index".parse().expect("a name");
        let date = jiff::civil::date(2026, 11, 21);
        let mut night = |outcome| {
            watch.nights_judged(date, &[(id.clone(), outcome)]);
            board.is_open(Code::WaterLeak, id.as_str())
        };
        assert!(night(Outcome::Leak(60.0)));
        assert!(night(Outcome::Unknown));
        assert!(!night(Outcome::Dry));
    }
}
