//! How the box itself is: why it last started, whether its supply holds, how its card wears. Reads what the kernel tells
//! below `/sys` and `/proc`, keeps a few small records, raises conditions; the panel and the peers look at [`Machine`].
//!
//! It changes nothing of the machine, and waits for nothing: a card that hangs holds up its own unit only.

mod card;
pub mod ended;
mod starts;
mod supply;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{
    card::Card,
    starts::{Begun, Reason},
    supply::Supply,
};
use crate::{
    clock::{Clock, Stamp},
    condition::{Board, Code},
    store::{Archive, Keep, KeepExt},
    supervisor::{Stage, Supervisor, chain},
};

/// The kernel looks every two seconds itself; source: Linux, `drivers/hwmon/raspberrypi-hwmon.c`.
const LOOK_AT_SUPPLY: Duration = Duration::from_secs(2);
/// How often the card's figures are looked at.
const LOOK_AT_CARD: Duration = Duration::from_secs(60);
/// Where the records are kept.
const TABLE: &str = "machine";

/// Where the kernel tells of the machine; tests put a folder of their own in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into() }
    }
}

impl Kernel {
    /// Names this run of the machine; empty where the kernel does not say.
    /// Source: Linux, `Documentation/admin-guide/sysctl/kernel.rst`.
    pub fn run(&self) -> String {
        said(&self.proc.join("sys/kernel/random/boot_id")).unwrap_or_default()
    }
}

/// One value of the kernel's, without the line's end.
fn said(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What is known now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The last starts, the newest first; empty as long as the card has not been read.
    pub starts: Vec<Begun>,
    /// The supply, on a machine that watches it.
    pub supply: Option<Supply>,
    /// The card the store lies on.
    pub card: Card,
}

/// What is known of the box. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Machine(Arc<Mutex<Facts>>);

impl Machine {
    /// One of which all this is known, and nothing more will be; for tests of those who tell it.
    pub fn telling(facts: Facts) -> Self {
        Self(Arc::new(Mutex::new(facts)))
    }

    /// As it stands now.
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it stands on.
#[derive(Clone)]
pub struct Ground {
    /// Keeps its units running.
    pub supervisor: Supervisor,
    /// Where what is wrong is told.
    pub board: Board,
    /// Dates.
    pub clock: Clock,
    /// The records.
    pub keep: Arc<dyn Keep>,
    /// The figures of the store.
    pub archive: Arc<dyn Archive>,
    /// The store's folder: on the card that is watched, and where the last end was left.
    pub directory: PathBuf,
    /// The newest reading of the runs before.
    pub newest: Option<Stamp>,
    /// Where the kernel speaks.
    pub kernel: Kernel,
}

/// Starts to look. Within a tokio runtime.
pub fn start(ground: Ground) -> Machine {
    let machine = Machine::default();
    let supervisor = ground.supervisor.clone();
    let (of_supply, of_card) = ((ground.clone(), machine.clone()), (ground, machine.clone()));
    supervisor.unit(Stage::Inputs, "supply", move |stop| {
        let (ground, machine) = of_supply.clone();
        async move {
            watch_supply(ground, machine, stop).await;
            Ok(())
        }
    });
    supervisor.unit(Stage::Inputs, "machine", move |stop| {
        let (ground, machine) = of_card.clone();
        async move {
            if card_is_known(&ground, &stop).await {
                let (ground, machine) = (ground.clone(), machine.clone());
                tokio::task::spawn_blocking(move || tell_start(&ground, &machine)).await?;
            }
            watch_card(ground, machine, stop).await?;
            Ok(())
        }
    });
    machine
}

/// A gateway may start without its card. False when it is stopped first.
async fn card_is_known(ground: &Ground, stop: &CancellationToken) -> bool {
    let mut known = ground.keep.known();
    matches!(stop.run_until_cancelled(known.wait_for(|known| *known)).await, Some(Ok(_)))
}

/// Once a start: why it was. Asked again after a fall of the unit, it finds its own record and changes nothing.
fn tell_start(ground: &Ground, machine: &Machine) {
    let mut starts: Vec<Begun> = ground.keep.load(TABLE, "starts").ok().flatten().unwrap_or_default();
    if starts.first().is_none_or(|last| last.boot != ground.clock.boot()) {
        let end = ended::left(&ground.directory);
        let run = ground.kernel.run();
        let now = starts::begun(starts.first(), end.as_ref(), &run, starts::reset(&ground.kernel), ground.clock.boot());
        let now = Begun { ran_ms: starts::ran(starts.first(), ground.newest), ..now };
        info!(reason = now.reason.as_str(), detail = now.detail, "Why this start was");
        starts.insert(0, now);
        starts.truncate(starts::KEPT);
        match ground.keep.save_or_hold(TABLE, "starts", &starts) {
            Ok(()) => ended::forget(&ground.directory),
            Err(wrong) => warn!(wrong = chain(&wrong), "The reason of this start was not kept"),
        }
    }
    machine.lock().starts = starts;
}

async fn watch_supply(ground: Ground, machine: Machine, stop: CancellationToken) {
    if !card_is_known(&ground, &stop).await {
        return;
    }
    let mut watch = supply::Watch::of(ground.keep.load(TABLE, "supply").ok().flatten());
    loop {
        let reading = supply::gauge(&ground.kernel);
        if let Some(reading) = reading {
            watch.look(reading, ground.clock.now());
            machine.lock().supply = Some(watch.supply());
            let wrong = watch.supply().wrong(&ground.clock);
            ground.board.set(Code::SupplyWeak, "supply", wrong);
        }
        // A sensor that is not there may come with its driver.
        let pause = if reading.is_some() { LOOK_AT_SUPPLY } else { LOOK_AT_CARD };
        let goes_on = stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some();
        if let Some(kept) = watch.due(ground.clock.now(), !goes_on) {
            let keep = Arc::clone(&ground.keep);
            let saved = tokio::task::spawn_blocking(move || keep.save_or_hold(TABLE, "supply", &kept)).await;
            if let Ok(Err(wrong)) = saved {
                warn!(wrong = chain(&wrong), "What the supply did was not kept");
            }
        }
        if !goes_on {
            return;
        }
    }
}

async fn watch_card(ground: Ground, machine: Machine, stop: CancellationToken) -> Result<(), tokio::task::JoinError> {
    let watch = Arc::new(Mutex::new(card::Watch::default()));
    loop {
        let (ground, machine, watch) = (ground.clone(), machine.clone(), Arc::clone(&watch));
        let ends = stop.is_cancelled();
        let work = move || {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            look_at_card(&ground, &machine, &mut watch, ends);
        };
        tokio::task::spawn_blocking(work).await?;
        if ends {
            return Ok(());
        }
        stop.run_until_cancelled(tokio::time::sleep(LOOK_AT_CARD)).await;
    }
}

fn look_at_card(ground: &Ground, machine: &Machine, watch: &mut card::Watch, last: bool) {
    let known = *ground.keep.known().borrow();
    let seen = card::seen(&ground.kernel, &ground.directory);
    if known && let Some(seen) = &seen {
        let kept = || ground.keep.load(TABLE, "card").ok().flatten();
        let kept = watch.count(seen, kept, &ground.kernel.run(), ground.clock.now(), last);
        if let Some(wrong) = kept.and_then(|kept| ground.keep.save_or_hold(TABLE, "card", &kept).err()) {
            warn!(wrong = chain(&wrong), "What was written to the card was not kept");
        }
    }
    let card = watch.card(seen.as_ref(), &ground.directory, ground.archive.figures().syncs);
    let already = |code| ground.board.is_open(code, "card");
    ground.board.set(Code::CardSlow, "card", card.slow(already(Code::CardSlow)));
    ground.board.set(Code::CardNearlyFull, "card", card.nearly_full(already(Code::CardNearlyFull)));
    ground.board.set(Code::CardWorn, "card", card.worn());
    machine.lock().card = card;
}
