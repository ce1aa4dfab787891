//! The whole part with a held clock, paused time, and a voice, a player and pins that only take notes.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use jiff::civil::time;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    player::PlayError,
    sound::{RATE, Sound},
    voice::VoiceError,
    *,
};
use crate::{
    announcement::{Held, State},
    clock::{HeldTime, Source},
    config::announce::{QuietHours, VoiceChoice, ZoneSettings},
    port::gpio::{Edge, OutputPin, PinError, Pull},
    store::{MemoryKeep, StoreError},
};

/// 12 May 2026, noon in Paris.
const NOON: i64 = 1_778_580_000_000;
const HOUR: u64 = 3_600_000;
const BOURG: u8 = 5;
const HAMEAU: u8 = 6;
const AMPLIFIER: u8 = 17;

/// What happened, and when, in milliseconds since the first note.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(Instant, String)>>>);

impl Notes {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().expect("notes").push((Instant::now(), what.into()));
    }

    fn taken(&self) -> Vec<(u64, String)> {
        let notes = self.0.lock().expect("notes");
        let first = notes.first().map(|(at, _)| *at);
        notes.iter().map(|(at, what)| ((*at - first.expect("one")).as_millis() as u64, what.clone())).collect()
    }

    fn words(&self) -> Vec<String> {
        self.taken().into_iter().map(|(_, what)| what).collect()
    }

    fn clear(&self) {
        self.0.lock().expect("notes").clear();
    }
}

/// Pins that take notes. One of them may be out of order.
struct NotedPins {
    notes: Notes,
    broken: Arc<Mutex<Option<u8>>>,
}

struct NotedPin(Notes, u8, bool, bool);

impl Pins for NotedPins {
    fn input(&self, _: u8, _: Pull, _: Duration) -> Result<tokio::sync::mpsc::Receiver<Edge>, PinError> {
        Err(PinError::NoGpio("outputs only".into()))
    }

    fn output(&self, pin: u8, released: bool) -> Result<Box<dyn OutputPin>, PinError> {
        if *self.broken.lock().expect("broken") == Some(pin) {
            return Err(PinError::Pin { pin, doing: "take it as output", source: "Device or resource busy".into() });
        }
        self.notes.add(format!("{pin} taken {}", if released { "high" } else { "low" }));
        Ok(Box::new(NotedPin(self.notes.clone(), pin, released, released)))
    }
}

impl OutputPin for NotedPin {
    fn set(&mut self, high: bool) -> Result<(), PinError> {
        if high != self.3 {
            self.0.add(format!("{} {}", self.1, if high == self.2 { "off" } else { "on" }));
        }
        self.3 = high;
        Ok(())
    }
}

/// Speaks by a tone. `lent` takes 5 s to speak, `muet` cannot be spoken, `panne` panics, `silence` has nothing to hear.
#[derive(Default)]
struct Tone {
    missing: AtomicBool,
    spoken: AtomicUsize,
}

impl Speaker for Tone {
    fn ready(&self) -> Result<(), VoiceError> {
        if self.missing.load(Ordering::Relaxed) { Err(VoiceError::Missing("espeak-ng".into())) } else { Ok(()) }
    }

    fn speak<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<u8>, VoiceError>> {
        async move {
            self.spoken.fetch_add(1, Ordering::Relaxed);
            match text {
                "lent" => tokio::time::sleep(Duration::from_secs(5)).await,
                "muet" => return Err(VoiceError::Slow("espeak-ng".into())),
                "panne" => panic!("the voice stumbles"),
                "silence" => return Ok(Sound::of(vec![0; 9_600]).to_wav()),
                _ => {}
            }
            let angle = |n: u32| std::f32::consts::TAU * 700.0 * n as f32 / RATE as f32;
            Ok(Sound::of((0..RATE / 4).map(|n| (9_000.0 * angle(n).sin()) as i16).collect()).to_wav())
        }
        .boxed()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Plays,
    Fails,
    Panics,
    NeverEnds,
}

/// Plays into the notes.
struct NotedPlayer {
    notes: Notes,
    mood: Mutex<Mood>,
}

struct Sounding(Notes);

impl Drop for Sounding {
    fn drop(&mut self) {
        self.0.add("silence");
    }
}

impl Player for NotedPlayer {
    fn ready(&self) -> Result<(), PlayError> {
        Ok(())
    }

    fn play<'a>(&'a self, sound: &'a Sound, title: &'a str) -> BoxFuture<'a, Result<(), PlayError>> {
        async move {
            let mood = *self.mood.lock().expect("mood");
            self.notes.add(format!("sound {}", title.split('_').nth(1).unwrap_or_default()));
            let _sounding = Sounding(self.notes.clone());
            tokio::time::sleep(if mood == Mood::NeverEnds { Duration::MAX } else { sound.length() }).await;
            match mood {
                Mood::Fails => Err(PlayError::Missing("aplay")),
                Mood::Panics => panic!("the player stumbles"),
                Mood::Plays | Mood::NeverEnds => Ok(()),
            }
        }
        .boxed()
    }
}

/// A card that can refuse.
#[derive(Default)]
struct Card {
    memory: MemoryKeep,
    refuses: AtomicBool,
}

impl Keep for Card {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.get(table, key)
    }
    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::new("write the record", "read-only file system"));
        }
        self.memory.put(table, key, value)
    }
    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.memory.remove(table, key)
    }
    fn list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.memory.list(table)
    }
}

/// A village with two zones, whose every move is noted.
struct Village {
    announcer: Arc<dyn Announcer>,
    ground: Ground,
    notes: Notes,
    time: Arc<HeldTime>,
    card: Arc<Card>,
    broken: Arc<Mutex<Option<u8>>>,
    voice: Arc<Tone>,
    player: Arc<NotedPlayer>,
}

fn settings() -> AnnounceSettings {
    let zone = |name: &str, pin| ZoneSettings { name: name.into(), label: name.to_uppercase(), pin: Some(pin) };
    AnnounceSettings {
        output: Output::Aplay { card: "default".into() },
        amplifier_pin: Some(AMPLIFIER),
        relay_active_high: true,
        warm_up: Duration::from_secs(1),
        tail: Duration::from_millis(500),
        longest: Duration::from_secs(600),
        quiet: QuietHours { from: time(20, 0, 0, 0), to: time(8, 0, 0, 0) },
        daily_budget: Duration::from_secs(300),
        voice: VoiceChoice::Auto,
        voice_model: None,
        zones: vec![zone("bourg", BOURG), zone("hameau", HAMEAU)],
    }
}

impl Village {
    fn new() -> Self {
        Self::with(settings(), NOON, Source::Ntp, Arc::default())
    }

    fn with(settings: AnnounceSettings, now: i64, source: Source, card: Arc<Card>) -> Self {
        Self::of(settings, HeldTime::at(now, source), card, 1)
    }

    fn of(settings: AnnounceSettings, time: Arc<HeldTime>, card: Arc<Card>, boot: u32) -> Self {
        let (notes, broken) = (Notes::default(), Arc::<Mutex<Option<u8>>>::default());
        Self::opened(settings, time, card, boot, notes, broken)
    }

    fn opened(
        settings: AnnounceSettings,
        time: Arc<HeldTime>,
        card: Arc<Card>,
        boot: u32,
        notes: Notes,
        broken: Arc<Mutex<Option<u8>>>,
    ) -> Self {
        let clock = Clock::new(boot, time.clone(), []);
        let board = Board::new(clock.clone());
        let pins = NotedPins { notes: notes.clone(), broken: Arc::clone(&broken) };
        let ground = Ground {
            supervisor: Supervisor::new(board.clone()),
            board,
            clock,
            keep: card.clone(),
            pins: Some(Arc::new(pins)),
            time_zone: TimeZone::get("Europe/Paris").expect("Paris"),
        };
        let voice = Arc::<Tone>::default();
        let player = Arc::new(NotedPlayer { notes: notes.clone(), mood: Mutex::new(Mood::Plays) });
        let announcer = open(settings, ground.clone(), voice.clone(), player.clone());
        Self { announcer, ground, notes, time, card, broken, voice, player }
    }

    fn mood(&self, mood: Mood) {
        *self.player.mood.lock().expect("mood") = mood;
    }

    async fn ask(&self, class: Class, text: &str) -> AnnouncementId {
        self.announcer.ask(request(class, text)).await.expect("taken")
    }

    /// Until what `wanted` looks for is so.
    async fn until(&self, wanted: impl Fn(&dyn Announcer) -> bool) {
        let mut changes = self.announcer.changes();
        let seen = async {
            while !wanted(self.announcer.as_ref()) {
                changes.changed().await.expect("the part lives");
            }
        };
        tokio::time::timeout(Duration::from_secs(7_200), seen).await.expect("it comes to pass");
    }

    async fn until_playing(&self, id: AnnouncementId) {
        self.until(|a| a.queue().iter().any(|q| q.id == id && q.state == State::Playing)).await;
    }

    async fn until_done(&self) {
        self.until(|a| a.queue().is_empty()).await;
    }

    /// Oldest first: number, zone, end.
    fn ends(&self) -> Vec<(u64, String, End)> {
        let entries = self.announcer.journal(100).into_iter().rev();
        entries.map(|entry| (entry.id.0, entry.zone, entry.end)).collect()
    }

    fn relays_are_open(&self) -> bool {
        let words = self.notes.words();
        [BOURG, HAMEAU, AMPLIFIER].iter().all(|pin| {
            let last = words.iter().rev().find(|word| word.starts_with(&format!("{pin} ")));
            last.is_none_or(|last| !last.ends_with("on"))
        })
    }
}

fn request(class: Class, text: &str) -> Request {
    Request { text: text.into(), class, zones: vec!["bourg".into()], asked_by: "secretary".into(), key: None }
}

fn failed(why: &str) -> End {
    End::Failed { why: why.to_owned() }
}

fn scenario(name: &str) -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pa/scheduler_scenarios.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("scenarios")).expect("JSON");
    all.as_array().expect("a list").iter().find(|s| s["name"] == name).expect("the scenario").clone()
}

#[tokio::test(start_paused = true)]
async fn scenario_relay_keying_order() {
    let village = Village::new();
    village.notes.clear();
    village.ask(Class::Information, "x").await;
    village.until_done().await;

    let notes = village.notes.taken();
    let mut steps = Vec::new();
    for (n, (at, what)) in notes.iter().enumerate() {
        let since = at - notes[n.saturating_sub(1)].0;
        match what.as_str() {
            "5 on" => steps.push("zone_relay_on"),
            "17 on" => steps.push("amp_on"),
            "sound 1" => {
                assert_eq!(since, 1_000, "the amplifier warms up");
                // What sounds begins with a chime and a gap; `sound.rs` tests where they are.
                steps.extend(["wait_warmup", "chime", "gap", "voice"]);
            }
            "silence" => assert!(since > 2_000, "chime, gap and voice last {since} ms"),
            "17 off" => {
                assert_eq!(since, 500, "the tail");
                steps.extend(["tail", "amp_off"]);
            }
            "5 off" => steps.push("zone_relay_off"),
            other => panic!("{other}"),
        }
    }
    let expected = scenario("relay_keying_order");
    assert_eq!(Value::from(steps), expected["expected"]);
    assert_eq!(village.ends(), [(1, "bourg".into(), End::Played)]);
    let entry = &village.announcer.journal(1)[0];
    let sounded = notes.iter().find(|(_, w)| w == "silence").expect("end").0 - 1_000;
    assert_eq!((entry.audible_ms, entry.asked_by.as_str()), (sounded, "secretary"));
}

#[tokio::test(start_paused = true)]
async fn every_relay_is_driven_open_at_the_start_and_held() {
    let village = Village::new();
    assert_eq!(village.notes.words(), ["5 taken low", "6 taken low", "17 taken low"]);
    let low = AnnounceSettings { relay_active_high: false, ..settings() };
    let village = Village::with(low, NOON, Source::Ntp, Arc::default());
    assert_eq!(village.notes.words(), ["5 taken high", "6 taken high", "17 taken high"]);
    village.ask(Class::Information, "x").await;
    village.until_done().await;
    assert!(!village.notes.words()[3..].iter().any(|word| word.contains("taken")));
}

#[tokio::test(start_paused = true)]
async fn an_alert_cuts_an_information_which_is_played_again_from_its_start() {
    let village = Village::new();
    let information = village.ask(Class::Information, "x").await;
    village.until_playing(information).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let alert = village.ask(Class::Alert, "danger").await;
    village.until_done().await;

    assert_eq!(
        village.ends(),
        [
            (1, "bourg".into(), End::Cut { by: alert }),
            (2, "bourg".into(), End::Played),
            (1, "bourg".into(), End::Played)
        ]
    );
    let lengths: Vec<u64> = village.announcer.journal(9).iter().rev().map(|entry| entry.audible_ms).collect();
    assert!((700..900).contains(&lengths[0]) && lengths[2] > 2_000, "{lengths:?}");
    let turns = ["5 on", "17 on", "sound 1", "silence", "17 off", "5 off"];
    let again = turns.map(|word| word.replace("sound 1", "sound 2"));
    let expected: Vec<String> =
        turns.iter().map(ToString::to_string).chain(again).chain(turns.iter().map(ToString::to_string)).collect();
    assert_eq!(village.notes.words()[3..], expected);
}

#[tokio::test(start_paused = true)]
async fn an_information_sounds_on_until_the_alert_is_ready_to_be_heard() {
    let village = Village::new();
    village.mood(Mood::NeverEnds);
    let information = village.ask(Class::Information, "x").await;
    village.until_playing(information).await;
    let alert = village.ask(Class::Alert, "lent").await;
    village.mood(Mood::Plays);
    village.until_playing(alert).await;
    let cut = village.announcer.journal(1)[0].clone();
    assert_eq!((cut.id, cut.end, cut.audible_ms), (information, End::Cut { by: alert }, 5_000));
}

#[tokio::test(start_paused = true)]
async fn an_alert_does_not_wait_for_an_information_that_is_being_made() {
    let village = Village::new();
    village.ask(Class::Information, "lent").await;
    village.until(|a| a.queue().iter().any(|q| q.state == State::Preparing)).await;
    let begun = Instant::now();
    let alert = village.ask(Class::Alert, "danger").await;
    village.until_playing(alert).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "the warm-up alone");
    village.until_done().await;
    assert_eq!(village.ends(), [(2, "bourg".into(), End::Played), (1, "bourg".into(), End::Played)]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_cannot_be_spoken_fails_without_cutting_anybody() {
    let village = Village::new();
    let information = village.ask(Class::Information, "x").await;
    village.until_playing(information).await;
    village.ask(Class::Alert, "muet").await;
    village.until_done().await;
    let mut ends = village.ends();
    ends.sort_by_key(|(id, ..)| *id);
    assert_eq!(ends[0].2, End::Played);
    assert!(matches!(&ends[1].2, End::Failed { why } if why.contains("espeak-ng has not finished")), "{ends:?}");
    assert!(village.notes.words().iter().filter(|word| word.starts_with("sound")).count() == 1);
}

#[tokio::test(start_paused = true)]
async fn equal_classes_wait_for_each_other_even_in_other_zones() {
    let village = Village::new();
    village.ask(Class::Information, "x").await;
    let there = Request { zones: vec!["hameau".into()], ..request(Class::Information, "y") };
    village.announcer.ask(there).await.expect("taken");
    village.until_done().await;
    let words = village.notes.words();
    let sounds: Vec<_> = words.iter().filter(|word| word.starts_with("sound") || *word == "silence").collect();
    assert_eq!(sounds, ["sound 1", "silence", "sound 2", "silence"]);
    assert_eq!(village.ends(), [(1, "bourg".into(), End::Played), (2, "hameau".into(), End::Played)]);
}

#[tokio::test(start_paused = true)]
async fn a_person_stops_what_plays_and_what_waits() {
    let village = Village::new();
    let first = village.ask(Class::Information, "x").await;
    let second = village.ask(Class::Information, "y").await;
    let third = village.ask(Class::Information, "z").await;
    village.until_playing(first).await;
    assert!(village.announcer.stop(Some(second), "maire"));
    assert!(!village.announcer.stop(Some(second), "maire"));
    assert!(village.announcer.stop(Some(first), "adjoint"));
    village.until(|a| a.queue().first().is_some_and(|q| q.id == third)).await;
    assert!(village.announcer.stop(None, "maire"));
    village.until_done().await;
    village.until(|a| a.journal(9).len() == 3).await;
    let by = |who: &str| End::Stopped { by: who.to_owned() };
    let mut ends = village.ends();
    ends.sort_by_key(|(id, ..)| *id);
    assert_eq!(ends.into_iter().map(|(_, _, end)| end).collect::<Vec<_>>(), [by("adjoint"), by("maire"), by("maire")]);
    assert!(village.relays_are_open());
    assert!(village.ground.board.open().is_empty(), "a person's stop is no failure");
}

#[tokio::test(start_paused = true)]
async fn a_player_that_fails_releases_the_relays_and_raises_a_condition_until_one_is_heard() {
    let village = Village::new();
    village.mood(Mood::Fails);
    village.ask(Class::Important, "x").await;
    village.until_done().await;
    assert!(village.relays_are_open());
    assert!(matches!(&village.ends()[0].2, End::Failed { why } if why.ends_with("aplay is not installed")));
    let open = village.ground.board.open();
    assert_eq!((open[0].code, open[0].subject.as_str()), (Code::AnnouncementFailed, "bourg"));
    village.mood(Mood::Plays);
    village.ask(Class::Important, "x").await;
    village.until_done().await;
    assert!(village.ground.board.open().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_releases_the_relays_and_the_next_one_is_heard() {
    let village = Village::new();
    village.mood(Mood::Panics);
    let first = village.ask(Class::Important, "x").await;
    village.until(|a| a.queue().is_empty()).await;
    assert!(village.relays_are_open());
    village.until(|a| !a.journal(1).is_empty()).await;
    assert_eq!(village.ends(), [(first.0, "bourg".into(), failed("the gateway fell while it was playing"))]);
    village.mood(Mood::Plays);
    let second = village.ask(Class::Important, "y").await;
    village.until_playing(second).await;
    village.until_done().await;
    assert_eq!(village.ends()[1], (second.0, "bourg".into(), End::Played));
}

#[tokio::test(start_paused = true)]
async fn a_voice_that_panics_keys_nothing() {
    let village = Village::new();
    village.ask(Class::Important, "panne").await;
    village.until_done().await;
    assert_eq!(village.notes.words().len(), 3, "only the start");
    village.until(|a| !a.journal(1).is_empty()).await;
    assert!(matches!(village.ends()[0].2, End::Failed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_silent_voice_keys_nothing_and_fails() {
    let village = Village::new();
    village.ask(Class::Important, "silence").await;
    village.until_done().await;
    assert_eq!(village.notes.words().len(), 3, "only the start");
    assert!(matches!(&village.ends()[0].2, End::Failed { why } if why.contains("silent")));
}

#[tokio::test(start_paused = true)]
async fn a_unit_given_up_takes_no_more_announcements() {
    let village = Village::new();
    village.mood(Mood::Panics);
    for n in 0..5 {
        village.ask(Class::Important, &format!("x{n}")).await;
    }
    let mut conditions = village.ground.board.changes();
    while !village.ground.board.is_open(Code::UnitGaveUp, UNIT) {
        conditions.changed().await.expect("the board lives");
    }
    assert!(village.relays_are_open());
    let refused = village.announcer.ask(request(Class::Alert, "x")).await;
    assert_eq!(refused, Err(Refused::NotKept("the unit that plays was given up".into())));
}

#[tokio::test(start_paused = true)]
async fn scenario_duplicate_request_is_one_playback() {
    assert_eq!(scenario("duplicate_request")["expected"], "one playback");
    let village = Village::new();
    let keyed = || Request { key: Some("k1".into()), ..request(Class::Important, "x") };
    let (a, b) = tokio::join!(village.announcer.ask(keyed()), village.announcer.ask(keyed()));
    assert_eq!(a, b);
    village.until_done().await;
    assert_eq!(village.announcer.ask(keyed()).await, a, "also once it was played");
    assert!(village.announcer.queue().is_empty());
    assert_eq!(village.ends().len(), 1);
    village.time.advance(24 * HOUR);
    assert_ne!(village.announcer.ask(keyed()).await, a, "the next day it is another");
    let long = |end: char| Request { key: Some(format!("{}{end}", "k".repeat(9_000))), ..keyed() };
    let (a, b) = (village.announcer.ask(long('a')).await, village.announcer.ask(long('b')).await);
    assert_ne!(a, b);
}

#[tokio::test(start_paused = true)]
async fn scenario_quiet_hours_pass_alert_and_hold_information_until_the_morning() {
    let scenario = scenario("quiet_hours_pass_alert");
    let hour = |n: usize| scenario["quiet"][n].as_str().and_then(|t| t.get(..2)?.parse().ok()).expect("an hour");
    let quiet = QuietHours { from: time(hour(0), 0, 0, 0), to: time(hour(1), 0, 0, 0) };
    assert_eq!(scenario["events"][0]["t"], "23:10");
    let night = NOON + (11 * HOUR + 10 * 60_000) as i64;
    let village = Village::with(AnnounceSettings { quiet, ..settings() }, night, Source::Ntp, Arc::default());
    let information = village.ask(Class::Information, "x").await;
    let alert = village.ask(Class::Alert, "danger").await;
    let important = village.ask(Class::Important, "coupure").await;
    village.until(|a| a.journal(9).len() == 2).await;
    assert_eq!(village.ends(), [(alert.0, "bourg".into(), End::Played), (important.0, "bourg".into(), End::Played)]);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let waiting = &village.announcer.queue()[0];
    assert_eq!((&waiting.state, waiting.held), (&State::Waiting, Some(Held::QuietHours)));
    village.time.advance(7 * HOUR + 50 * 60_000);
    village.until_done().await;
    assert_eq!(village.ends()[2], (information.0, "bourg".into(), End::Played));
}

fn unix_ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().expect("a time").as_millisecond()
}

#[tokio::test(start_paused = true)]
async fn quiet_hours_end_when_the_clock_on_the_wall_says_so_on_the_nights_the_clocks_change() {
    // Asked at half past midnight; eight o'clock comes an hour earlier in March, an hour later in October.
    for (asked, hours) in [("2026-03-28T23:30:00Z", 6), ("2026-10-24T22:30:00Z", 8)] {
        let village = Village::with(settings(), unix_ms(asked), Source::Ntp, Arc::default());
        village.ask(Class::Information, "x").await;
        village.time.advance(hours * HOUR + 29 * 60_000);
        tokio::time::sleep(Duration::from_secs(300)).await;
        let held: Vec<_> = village.announcer.queue().iter().map(|queued| queued.held).collect();
        assert_eq!(held, [Some(Held::QuietHours)], "a minute before eight, {asked}");
        village.time.advance(60_000);
        village.until_done().await;
        assert_eq!(village.ends(), [(1, "bourg".into(), End::Played)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_23_or_25_hours_has_its_minutes_once() {
    for (midnight, hours) in [("2026-03-28T23:00:00Z", 23), ("2026-10-24T22:00:00Z", 25)] {
        let never = QuietHours { from: time(0, 0, 0, 0), to: time(0, 0, 0, 0) };
        let short = AnnounceSettings { daily_budget: Duration::from_secs(3), quiet: never, ..settings() };
        let village = Village::with(short, unix_ms(midnight), Source::Ntp, Arc::default());
        for text in ["a", "b"] {
            village.ask(Class::Information, text).await;
        }
        village.until(|a| a.journal(9).len() == 2).await;
        village.time.advance((hours - 1) * HOUR);
        village.ask(Class::Information, "c").await;
        village.time.advance(HOUR - 60_000);
        tokio::time::sleep(Duration::from_secs(300)).await;
        let held: Vec<_> = village.announcer.queue().iter().map(|queued| queued.held).collect();
        assert_eq!(held, [Some(Held::DailyBudget)], "a minute before the next day, {midnight}");
        village.time.advance(60_000);
        village.until_done().await;
        assert_eq!(village.ends().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_no_quiet_hours_and_gives_no_minutes() {
    let night = unix_ms("2026-11-22T01:00:00Z");
    let village = Village::with(settings(), night, Source::Ntp, Arc::default());
    for _ in 0..70 {
        village.ground.clock.look();
        village.time.advance(10_000);
    }
    village.ask(Class::Information, "x").await;
    // Noon, says a time server for five minutes; and then nobody vouches for what the clock says.
    for source in [Source::Ntp, Source::Unknown] {
        village.time.set_wall(night + 11 * HOUR as i64, source);
        for _ in 0..30 {
            village.time.advance(10_000);
            village.ground.clock.look();
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let held: Vec<_> = village.announcer.queue().iter().map(|queued| queued.held).collect();
        assert_eq!(held, [Some(Held::QuietHours)], "{source:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_days_minutes_hold_information_until_tomorrow() {
    let short = AnnounceSettings { daily_budget: Duration::from_secs(3), ..settings() };
    let village = Village::with(short, NOON, Source::Ntp, Arc::default());
    for text in ["a", "b", "c"] {
        village.ask(Class::Information, text).await;
    }
    village.until(|a| a.journal(9).len() == 2).await;
    village.ask(Class::Important, "d").await;
    village.until(|a| a.journal(9).len() == 3).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let held: Vec<_> = village.announcer.queue().iter().map(|queued| queued.held).collect();
    assert_eq!(held, [Some(Held::DailyBudget)], "the third information waits, and says why");
    village.time.advance(23 * HOUR);
    village.until_done().await;
    assert_eq!(village.ends().iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [1, 2, 4, 3]);
}

#[tokio::test(start_paused = true)]
async fn while_the_clock_is_not_known_a_person_is_heard_and_a_machine_waits() {
    let village = Village::with(settings(), 0, Source::Unknown, Arc::default());
    let machine = Request { asked_by: "mqtt:nodered".into(), ..request(Class::Information, "m") };
    village.announcer.ask(machine).await.expect("taken");
    village.ask(Class::Information, "x").await;
    village.until(|a| a.journal(9).len() == 1).await;
    assert_eq!(village.ends(), [(2, "bourg".into(), End::Played)]);
    village.time.set_wall(NOON, Source::Ntp);
    village.until_done().await;
    assert_eq!(village.ends()[1], (1, "bourg".into(), End::Played));
}

#[tokio::test(start_paused = true)]
async fn what_has_waited_for_a_day_is_not_played_any_more() {
    let night = NOON + 10 * HOUR as i64;
    let village = Village::with(settings(), night, Source::Ntp, Arc::default());
    village.ask(Class::Information, "x").await;
    village.until(|a| !a.queue().is_empty()).await;
    village.time.advance(24 * HOUR);
    village.until_done().await;
    village.until(|a| !a.journal(1).is_empty()).await;
    assert_eq!(village.ends(), [(1, "bourg".into(), failed("it has waited for more than a day"))]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_whose_pin_is_taken_fails_alone_and_is_tried_again() {
    let (notes, broken) = (Notes::default(), Arc::new(Mutex::new(Some(HAMEAU))));
    let time = HeldTime::at(NOON, Source::Ntp);
    let village = Village::opened(settings(), time, Arc::default(), 1, notes, broken);
    assert!(village.ground.board.is_open(Code::PinUnusable, "zone hameau"), "said at the start");
    let both = || Request { zones: vec!["hameau".into(), "bourg".into()], ..request(Class::Important, "x") };
    village.announcer.ask(both()).await.expect("taken");
    village.until_done().await;
    let entries = village.announcer.journal(9);
    let of = |zone: &str| entries.iter().find(|entry| entry.zone == zone).expect("an entry");
    assert!(of("bourg").end == End::Played && of("bourg").audible_ms > 0);
    assert!(matches!(&of("hameau").end, End::Failed { why } if why.contains("busy")) && of("hameau").audible_ms == 0);
    assert!(village.ground.board.is_open(Code::AnnouncementFailed, "hameau"));
    assert!(!village.ground.board.is_open(Code::AnnouncementFailed, "bourg"));

    *village.broken.lock().expect("broken") = None;
    village.announcer.ask(both()).await.expect("taken");
    village.until_done().await;
    assert!(village.ground.board.open().is_empty());
    assert!(village.relays_are_open());
}

#[tokio::test(start_paused = true)]
async fn without_the_amplifier_nothing_sounds_and_the_zones_are_opened_again() {
    let (notes, broken) = (Notes::default(), Arc::new(Mutex::new(Some(AMPLIFIER))));
    let time = HeldTime::at(NOON, Source::Ntp);
    let village = Village::opened(settings(), time, Arc::default(), 1, notes, broken);
    village.ask(Class::Alert, "x").await;
    village.until_done().await;
    assert_eq!(village.notes.words()[2..], ["5 on", "5 off"]);
    assert!(matches!(&village.ends()[0].2, End::Failed { why } if why.contains("amplifier")));
    assert!(village.ground.board.is_open(Code::PinUnusable, "amplifier"));
}

#[tokio::test(start_paused = true)]
async fn relays_are_not_keyed_longer_than_allowed() {
    let short = AnnounceSettings { longest: Duration::from_secs(30), ..settings() };
    let village = Village::with(short, NOON, Source::Ntp, Arc::default());
    village.mood(Mood::NeverEnds);
    village.notes.clear();
    village.ask(Class::Alert, "x").await;
    village.until_done().await;
    let notes = village.notes.taken();
    assert_eq!(notes.last(), Some(&(30_000, "5 off".to_owned())));
    assert!(matches!(&village.ends()[0].2, End::Failed { why } if why.contains("longest allowed")));
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_the_sound_opens_the_relays_and_what_waited_is_played_at_the_next_start() {
    let card = Arc::<Card>::default();
    let village = Village::with(settings(), NOON, Source::Ntp, card.clone());
    village.mood(Mood::NeverEnds);
    let playing = village.ask(Class::Information, "x").await;
    let waiting = village.ask(Class::Information, "y").await;
    village.until_playing(playing).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    assert!(village.ground.supervisor.stop(Duration::from_secs(2)).await.is_empty());
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert!(village.relays_are_open());
    let why = "the gateway stopped while it was playing";
    assert_eq!(village.ends(), [(playing.0, "bourg".into(), failed(why))]);
    assert_eq!(village.announcer.journal(1)[0].audible_ms, 300);
    let refused = village.announcer.ask(request(Class::Alert, "x")).await;
    assert_eq!(refused, Err(Refused::NotKept("the gateway is stopping".into())));

    let village = Village::of(settings(), HeldTime::at(NOON, Source::Ntp), card, 2);
    village.until_done().await;
    assert_eq!(village.ends()[1..], [(waiting.0, "bourg".into(), End::Played)]);
    assert_eq!(village.ask(Class::Information, "z").await, AnnouncementId(3), "numbers go on");
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_anything_was_heard_leaves_the_announcement_waiting() {
    let card = Arc::<Card>::default();
    let village = Village::with(settings(), NOON, Source::Ntp, card.clone());
    let id = village.ask(Class::Information, "x").await;
    let mut keyed = false;
    while !keyed {
        tokio::time::sleep(Duration::from_millis(100)).await;
        keyed = village.notes.words().contains(&"17 on".to_owned());
    }
    village.ground.supervisor.stop(Duration::from_secs(2)).await;
    assert!(village.relays_are_open());
    let village = Village::of(settings(), HeldTime::at(NOON, Source::Ntp), card, 2);
    village.until_done().await;
    assert_eq!(village.ends(), [(id.0, "bourg".into(), End::Played)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_playing_when_the_power_went_is_told_and_not_played_again() {
    let card = Arc::<Card>::default();
    let village = Village::with(settings(), NOON, Source::Ntp, card.clone());
    village.mood(Mood::NeverEnds);
    let playing = village.ask(Class::Alert, "x").await;
    let waiting = village.ask(Class::Important, "y").await;
    village.until_playing(playing).await;
    // The first village is left as it stands: nothing of it is stopped or written any more.
    let village = Village::of(settings(), HeldTime::at(NOON, Source::Ntp), card, 2);
    assert!(village.ground.board.is_open(Code::AnnouncementFailed, "bourg"));
    village.until_done().await;
    let why = failed("the gateway stopped while it was playing");
    assert_eq!(village.ends(), [(playing.0, "bourg".into(), why), (waiting.0, "bourg".into(), End::Played)]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_said_is_refused_with_its_reason() {
    let village = Village::new();
    let ask = |request| village.announcer.ask(request);
    assert_eq!(ask(request(Class::Alert, "  \n")).await, Err(Refused::Empty));
    assert_eq!(ask(request(Class::Alert, "… !")).await, Err(Refused::Empty));
    assert_eq!(ask(request(Class::Alert, &"é".repeat(1_001))).await, Err(Refused::TooLong(1_001, 1_000)));
    assert!(ask(request(Class::Alert, &"é".repeat(1_000))).await.is_ok());
    assert_eq!(ask(Request { zones: vec![], ..request(Class::Alert, "x") }).await, Err(Refused::NoZone));
    let there = Request { zones: vec!["bourg".into(), "ailleurs".into()], ..request(Class::Alert, "x") };
    assert_eq!(ask(there).await, Err(Refused::UnknownZone("ailleurs".into())));
    assert_eq!(village.announcer.preview("", Class::Alert).await, Err(Refused::Empty));
    let twice = Request { zones: ["hameau", "bourg", "hameau"].map(Into::into).into(), ..request(Class::Alert, "y") };
    let id = ask(twice).await.expect("taken");
    let zones = village.announcer.queue().into_iter().find(|q| q.id == id).expect("queued").request.zones;
    assert_eq!(zones, ["bourg", "hameau"]);
}

#[tokio::test(start_paused = true)]
async fn too_many_are_refused_and_an_alert_still_enters() {
    let night = NOON + 10 * HOUR as i64;
    let village = Village::with(settings(), night, Source::Ntp, Arc::default());
    for n in 0..20 {
        village.ask(Class::Information, &format!("x{n}")).await;
    }
    assert_eq!(village.announcer.ask(request(Class::Information, "x")).await, Err(Refused::QueueFull(20)));
    village.ask(Class::Alert, "danger").await;
    village.until(|a| !a.journal(1).is_empty()).await;
    assert_eq!(village.ends()[0].2, End::Played);
}

#[tokio::test(start_paused = true)]
async fn without_a_voice_nothing_is_taken_and_a_condition_says_so_until_one_is_installed() {
    let village = Village::new();
    village.voice.missing.store(true, Ordering::Relaxed);
    let refused = village.announcer.ask(request(Class::Alert, "x")).await;
    assert_eq!(refused, Err(Refused::Voice("no program that can speak is installed: espeak-ng".into())));
    assert!(matches!(village.announcer.preview("x", Class::Alert).await, Err(Refused::Voice(_))));
    assert!(village.ground.board.is_open(Code::VoiceMissing, "voice"));
    village.voice.missing.store(false, Ordering::Relaxed);
    village.ask(Class::Alert, "x").await;
    assert!(!village.ground.board.is_open(Code::VoiceMissing, "voice"));
}

#[tokio::test(start_paused = true)]
async fn what_was_listened_to_first_is_not_spoken_twice() {
    let village = Village::new();
    let wav = village.announcer.preview("x", Class::Information).await.expect("a preview");
    assert_eq!(&wav[..4], b"RIFF");
    assert!(village.announcer.queue().is_empty() && village.notes.words().len() == 3, "a preview keys nothing");
    village.ask(Class::Information, "x").await;
    village.until_done().await;
    assert_eq!(village.voice.spoken.load(Ordering::Relaxed), 1);
    let other = village.announcer.preview("x", Class::Alert).await.expect("a preview");
    assert_ne!(wav, other, "another class has another chime");
}

#[tokio::test(start_paused = true)]
async fn a_card_that_refuses_writes_silences_no_alert() {
    let village = Village::new();
    village.card.refuses.store(true, Ordering::Relaxed);
    let refused = village.announcer.ask(request(Class::Information, "x")).await;
    assert_eq!(refused, Err(Refused::NotKept("write the record: read-only file system".into())));
    let keyed = || Request { key: Some("k".into()), ..request(Class::Alert, "danger") };
    let id = village.announcer.ask(keyed()).await.expect("an alert is taken");
    village.until_done().await;
    assert_eq!(village.announcer.ask(keyed()).await, Ok(id));
    assert_eq!(village.ends(), [(id.0, "bourg".into(), End::Played)], "the journal is kept in memory");
}

#[tokio::test(start_paused = true)]
async fn zones_are_told_in_the_order_of_the_configuration() {
    let labels: Vec<String> = Village::new().announcer.zones().into_iter().map(|zone| zone.label).collect();
    assert_eq!(labels, ["BOURG", "HAMEAU"]);
}
