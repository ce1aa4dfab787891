//! The relays around a sound: zone, amplifier, warm-up, sound, tail, amplifier, zone.
//!
//! Whatever happens in between, a guard releases them; if the process dies, the kernel gives the pins back and the next
//! start drives them released before anything else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{
    player::{PlayError, Player},
    sound::Sound,
};
use crate::{
    clock::{Clock, Stamp},
    condition::{Board, Code},
    config::announce::AnnounceSettings,
    port::gpio::{OutputPin, PinError, Pins},
    supervisor::chain,
};

/// Why a relay is not closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The machine has no pins at all.
    #[error("there is no GPIO on this machine")]
    NoGpio,
    /// The pin cannot be had or driven.
    #[error("the relay cannot be switched")]
    Pin(#[from] PinError),
}

/// Why a performance was not heard in any zone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unheard {
    /// Without amplifier no zone sounds.
    #[error("the amplifier was not keyed")]
    Amplifier(#[source] KeyError),
    /// No zone could be keyed; each has its own reason.
    #[error("no zone was keyed")]
    NoZone,
    /// The sound did not leave.
    #[error("the sound was not played")]
    Player(#[from] PlayError),
    /// Keyed for too long.
    #[error("the relays were keyed for {0:?}, the longest allowed")]
    TooLong(Duration),
}

/// One relay: driven to released when taken, held for the life of the gateway.
struct Relay {
    /// For conditions: `zone bourg`, `amplifier`.
    subject: String,
    pin: u8,
    active_high: bool,
    pins: Option<Arc<dyn Pins>>,
    output: Option<Box<dyn OutputPin>>,
    board: Board,
}

impl Relay {
    fn new(subject: String, pin: u8, active_high: bool, pins: Option<Arc<dyn Pins>>, board: Board) -> Self {
        let mut relay = Self { subject, pin, active_high, pins, output: None, board };
        if let Err(error) = relay.taken().map(drop) {
            relay.unusable(&error);
        }
        relay
    }

    /// The output; tried again each time when it could not be had at the start.
    fn taken(&mut self) -> Result<&mut dyn OutputPin, KeyError> {
        let output = match self.output.take() {
            Some(output) => output,
            None => self.pins.as_ref().ok_or(KeyError::NoGpio)?.output(self.pin, !self.active_high)?,
        };
        Ok(self.output.insert(output).as_mut())
    }

    fn key(&mut self) -> Result<(), KeyError> {
        let level = self.active_high;
        let keyed = self.taken().and_then(|output| Ok(output.set(level)?));
        match &keyed {
            Ok(()) => {
                self.board.close(Code::PinUnusable, &self.subject);
            }
            Err(error) => {
                self.unusable(error);
                self.output = None;
            }
        }
        keyed
    }

    /// An output that does not obey is let go: it is driven to released when dropped.
    fn release(&mut self) {
        let level = !self.active_high;
        if let Some(Err(error)) = self.output.as_mut().map(|output| output.set(level)) {
            self.unusable(&KeyError::Pin(error));
            self.output = None;
        }
    }

    fn unusable(&self, error: &KeyError) {
        self.board.raise(Code::PinUnusable, &self.subject, format!("GPIO {}: {}", self.pin, chain(error)));
    }
}

/// All relays of the gateway.
pub(crate) struct Relays {
    zones: Vec<(String, Option<Relay>)>,
    amplifier: Option<Relay>,
}

impl Relays {
    /// Takes every pin, released. One that cannot be had raises a condition and is tried again at each use.
    pub(crate) fn take(settings: &AnnounceSettings, pins: Option<&Arc<dyn Pins>>, board: &Board) -> Self {
        let relay = |subject, pin| Relay::new(subject, pin, settings.relay_active_high, pins.cloned(), board.clone());
        let zone = |name: &String, pin: Option<u8>| pin.map(|pin| relay(format!("zone {name}"), pin));
        Self {
            zones: settings.zones.iter().map(|z| (z.name.clone(), zone(&z.name, z.pin))).collect(),
            amplifier: settings.amplifier_pin.map(|pin| relay("amplifier".to_owned(), pin)),
        }
    }

    /// Opens every relay, the amplifier's first.
    pub(crate) fn release_all(&mut self) {
        for relay in self.amplifier.iter_mut().chain(self.zones.iter_mut().filter_map(|(_, relay)| relay.as_mut())) {
            relay.release();
        }
    }

    fn key_zones(&mut self, wanted: &[String], told: &Heard) -> usize {
        let mut keyed = 0;
        for (name, relay) in self.zones.iter_mut().filter(|(name, _)| wanted.contains(name)) {
            match relay.as_mut().map_or(Ok(()), Relay::key) {
                Ok(()) => keyed += 1,
                Err(error) => {
                    warn!(zone = name, why = chain(&error), "Zone was not keyed");
                    told.unkeyed(name, chain(&error));
                }
            }
        }
        keyed
    }
}

/// Relays that are opened when this goes, however it goes.
struct Keyed<'a>(&'a mut Relays);

impl Drop for Keyed<'_> {
    fn drop(&mut self) {
        self.0.release_all();
    }
}

/// The times around a sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) warm_up: Duration,
    pub(crate) tail: Duration,
    pub(crate) longest: Duration,
}

/// What was heard so far: read after a performance has ended or was cut off.
pub(crate) struct Heard {
    clock: Clock,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    keyed: Option<Stamp>,
    from: Option<Instant>,
    to: Option<Instant>,
    unkeyed: Vec<(String, String)>,
}

impl Heard {
    /// Nothing yet.
    pub(crate) fn nothing(clock: Clock) -> Self {
        Self { clock, told: Mutex::default() }
    }

    /// When the first relay was keyed.
    pub(crate) fn keyed(&self) -> Option<Stamp> {
        self.lock().keyed
    }

    /// How long it has sounded.
    pub(crate) fn audible(&self) -> Duration {
        let told = self.lock();
        told.from.map_or(Duration::ZERO, |from| told.to.unwrap_or_else(Instant::now).duration_since(from))
    }

    /// Why a zone stayed silent while others sounded.
    pub(crate) fn silent(&self, zone: &str) -> Option<String> {
        self.lock().unkeyed.iter().find(|(name, _)| name == zone).map(|(_, why)| why.clone())
    }

    fn unkeyed(&self, zone: &str, why: String) {
        self.lock().unkeyed.push((zone.to_owned(), why));
    }

    fn note(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Plays `sound` in `zones`. Dropping the future cuts it: silence, then every relay open. `audible` is called when the
/// first sound leaves.
pub(crate) async fn perform(
    relays: &mut Relays,
    player: &dyn Player,
    timing: Timing,
    (sound, title, zones): (&Sound, &str, &[String]),
    heard: &Heard,
    audible: impl FnOnce() + Send,
) -> Result<(), Unheard> {
    let keyed = Keyed(relays);
    heard.note(|told| told.keyed = Some(heard.clock.now()));
    let played = timeout(timing.longest, async {
        if keyed.0.key_zones(zones, heard) == 0 {
            return Err(Unheard::NoZone);
        }
        keyed.0.amplifier.as_mut().map_or(Ok(()), Relay::key).map_err(Unheard::Amplifier)?;
        sleep(timing.warm_up).await;
        audible();
        heard.note(|told| told.from = Some(Instant::now()));
        let played = player.play(sound, title).await;
        heard.note(|told| told.to = Some(Instant::now()));
        played?;
        sleep(timing.tail).await;
        Ok(())
    });
    let played = played.await.unwrap_or(Err(Unheard::TooLong(timing.longest)));
    heard.note(|told| told.to = told.from.map(|_| told.to.unwrap_or_else(Instant::now)));
    drop(keyed);
    played
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::{FutureExt, future::BoxFuture};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        clock::{HeldTime, Source},
        config::announce::{Output, QuietHours, VoiceChoice, ZoneSettings},
        port::gpio::{Edge, Pull},
    };

    /// What the relays of a small board do; one can be made to disobey.
    #[derive(Clone, Default)]
    struct Box8 {
        moves: Arc<Mutex<Vec<(u8, bool)>>>,
        disobeys: Arc<AtomicBool>,
    }

    struct Contact(Box8, u8, bool);

    impl Pins for Box8 {
        fn input(&self, _: u8, _: Pull, _: Duration) -> Result<mpsc::Receiver<Edge>, PinError> {
            Err(PinError::NoGpio("outputs only".into()))
        }
        fn output(&self, pin: u8, released: bool) -> Result<Box<dyn OutputPin>, PinError> {
            Ok(Box::new(Contact(self.clone(), pin, released)))
        }
    }

    impl OutputPin for Contact {
        fn set(&mut self, high: bool) -> Result<(), PinError> {
            if self.1 == 5 && self.0.disobeys.load(Ordering::Relaxed) {
                let source = "Input/output error".into();
                return Err(PinError::Pin { pin: 5, doing: "drive it", source });
            }
            self.0.moves.lock().expect("moves").push((self.1, high));
            Ok(())
        }
    }

    impl Drop for Contact {
        fn drop(&mut self) {
            self.0.moves.lock().expect("moves").push((self.1, self.2));
        }
    }

    struct Silent;

    impl Player for Silent {
        fn ready(&self) -> Result<(), PlayError> {
            Ok(())
        }
        fn play<'a>(&'a self, sound: &'a Sound, _: &'a str) -> BoxFuture<'a, Result<(), PlayError>> {
            tokio::time::sleep(sound.length()).map(Ok).boxed()
        }
    }

    const TIMING: Timing =
        Timing { warm_up: Duration::from_secs(1), tail: Duration::from_millis(500), longest: Duration::from_secs(60) };

    fn relays(pins: &Box8) -> (Relays, Board) {
        let board = Board::new(clock());
        let zone = |name: &str, pin| ZoneSettings { name: name.into(), label: name.into(), pin };
        let settings = AnnounceSettings {
            output: Output::Aplay { card: "default".into() },
            amplifier_pin: Some(17),
            relay_active_high: true,
            warm_up: TIMING.warm_up,
            tail: TIMING.tail,
            longest: TIMING.longest,
            quiet: QuietHours { from: jiff::civil::Time::midnight(), to: jiff::civil::Time::midnight() },
            daily_budget: Duration::from_secs(300),
            voice: VoiceChoice::Auto,
            voice_model: None,
            zones: vec![zone("bourg", Some(5)), zone("salle", None)],
        };
        let pins: Arc<dyn Pins> = Arc::new(pins.clone());
        (Relays::take(&settings, Some(&pins), &board), board)
    }

    fn clock() -> Clock {
        Clock::new(1, HeldTime::at(0, Source::Unknown), [])
    }

    fn closed(moves: &[(u8, bool)]) -> Vec<u8> {
        let last = |pin| moves.iter().rev().find(|(moved, _)| *moved == pin).is_some_and(|(_, high)| *high);
        [5, 17].into_iter().filter(|pin| last(*pin)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whenever_it_is_cut_the_amplifier_goes_first_and_nothing_stays_keyed() {
        let sound = Sound::of(vec![0; 48_000]);
        for cut in (0..3_000).step_by(50) {
            let pins = Box8::default();
            let (mut relays, _board) = relays(&pins);
            let heard = Heard::nothing(clock());
            let zones = ["bourg".to_owned()];
            let performance = perform(&mut relays, &Silent, TIMING, (&sound, "", &zones), &heard, || ());
            let whole = timeout(Duration::from_millis(cut), performance).await.is_ok();
            assert_eq!(whole, cut >= 2_500, "at {cut} ms");
            let moves = pins.moves.lock().expect("moves").clone();
            assert_eq!(closed(&moves), Vec::<u8>::new(), "cut at {cut} ms: {moves:?}");
            let opened: Vec<u8> = moves.iter().filter(|(_, high)| !high).map(|(pin, _)| *pin).collect();
            assert_eq!(opened, [17, 5], "cut at {cut} ms: {moves:?}");
            let sounded = Duration::from_millis(cut.saturating_sub(1_000).min(1_000));
            assert_eq!(heard.audible(), sounded, "cut at {cut} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_zone_without_a_relay_sounds_with_the_amplifier_alone() {
        let pins = Box8::default();
        let (mut relays, board) = relays(&pins);
        let zones = ["salle".to_owned()];
        let (sound, heard) = (Sound::of(vec![0; 480]), Heard::nothing(clock()));
        perform(&mut relays, &Silent, TIMING, (&sound, "", &zones), &heard, || ()).await.expect("heard");
        let closed: Vec<u8> =
            pins.moves.lock().expect("moves").iter().filter(|(_, high)| *high).map(|(pin, _)| *pin).collect();
        assert_eq!(closed, [17]);
        assert!(board.open().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_does_not_obey_is_let_go_and_taken_anew_the_next_time() {
        let pins = Box8::default();
        let (mut relays, board) = relays(&pins);
        let zones = ["bourg".to_owned(), "salle".to_owned()];
        let sound = Sound::of(vec![0; 480]);
        pins.disobeys.store(true, Ordering::Relaxed);
        let heard = Heard::nothing(clock());
        perform(&mut relays, &Silent, TIMING, (&sound, "", &zones), &heard, || ()).await.expect("heard in the hall");
        assert!(heard.silent("bourg").is_some_and(|why| why.contains("Input/output error")));
        assert_eq!(heard.silent("salle"), None);
        assert!(board.is_open(Code::PinUnusable, "zone bourg"));
        assert_eq!(pins.moves.lock().expect("moves").first(), Some(&(5, false)), "dropped, it is driven open");
        pins.disobeys.store(false, Ordering::Relaxed);
        let heard = Heard::nothing(clock());
        perform(&mut relays, &Silent, TIMING, (&sound, "", &zones), &heard, || ()).await.expect("heard");
        assert_eq!(heard.silent("bourg"), None);
        assert!(!board.is_open(Code::PinUnusable, "zone bourg"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_pins_says_so_for_each_relay() {
        let board = Board::new(clock());
        let relay = Relay::new("zone bourg".into(), 5, true, None, board.clone());
        assert!(relay.output.is_none());
        assert_eq!(board.open()[0].detail, "GPIO 5: there is no GPIO on this machine");
    }
}
