//! A contact on a pin: a door, a float switch, a relay's auxiliary contact. One point, 0 open and 1 closed.
//!
//! Also what every driver of a pin shares: its options, and captures of edges. Whether a state is an alarm is judged in
//! `watch/`; [`alarm`] reads it from the device's block for the application to hand over.

use std::time::Duration;

use super::{Common, Device, Driver, NotACapture, PinDecoder, Said, Wire};
use crate::{
    config::{Block, Both, Field, Presence},
    port::gpio::{Edge, Pull},
    reading::{Kind, Point, PointId, Quality},
};

/// A contact.
pub const DRIVER: Driver = Driver {
    name: "contact",
    title: "Dry contact on a GPIO pin: door, float switch, amplifier fault",
    source: "Volt-free contact; levels of the Raspberry Pi header (3.3 V)",
    fields: FIELDS,
    read,
    replay,
};

const FIELDS: &[Field] = &[PIN, PULL, CLOSED, DEBOUNCE, INVERT, ALARM, INTERVAL];

pub(super) const PIN: Field = Field {
    name: "pin",
    expects: Both("a GPIO number from 0 to 27", "un numéro de GPIO de 0 à 27"),
    presence: Presence::Required,
    doc: "The GPIO (BCM) number of the header pin the contact is wired to, not the place of the pin on the header.",
};
pub(super) const PULL: Field = Field {
    name: "pull",
    expects: Both("\"up\", \"down\" or \"none\"", "\"up\", \"down\" ou \"none\""),
    presence: Presence::Default("\"up\""),
    doc: "What holds the pin while the contact is open. `up`: wire the contact between the pin and ground.",
};
pub(super) const CLOSED: Field = Field {
    name: "closed_is",
    expects: Both("\"low\" or \"high\"", "\"low\" ou \"high\""),
    presence: Presence::Optional,
    doc: "The level of the pin while the contact is closed. By default low, and high with pull = \"down\".",
};
pub(super) const DEBOUNCE: Field = Field {
    name: "debounce",
    expects: Both("a duration such as \"50 ms\"", "une durée comme \"50 ms\""),
    presence: Presence::Default("\"50 ms\""),
    doc: "Changes shorter than this are the bounces of the contact and are not seen.",
};
pub(super) const INTERVAL: Field = Field {
    name: "interval",
    expects: Both("a duration such as \"5 min\"", "une durée comme \"5 min\""),
    presence: Presence::Default("\"5 min\""),
    doc: "A value that does not change is told again so often, which shows that the gateway still sees it.",
};
const INVERT: Field = Field {
    name: "invert",
    expects: Both("true or false", "true (oui) ou false (non)"),
    presence: Presence::Default("false"),
    doc: "Tells 1 while the contact is open: for a contact that is closed at rest, so that a cut cable shows.",
};
const ALARM: Field = Field {
    name: "alarm",
    expects: Both("\"closed\" or \"open\"", "\"closed\" ou \"open\""),
    presence: Presence::Optional,
    doc: "The position of the contact that is an alarm; it raises the condition `contact-alarm` while it lasts.",
};

/// How a pin is wired, as every driver of a pin asks for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    pub(super) number: u8,
    pub(super) pull: Pull,
    pub(super) debounce: Duration,
    pub(super) closed_is_high: bool,
}

impl Pin {
    /// Reads the options that name and wire the pin.
    pub(super) fn read(block: &Block<'_>) -> Option<Self> {
        let number = block.within(&PIN, 0, 27);
        let pull = block.choice(&PULL, &[("up", Pull::Up), ("down", Pull::Down), ("none", Pull::None)]);
        let debounce = block.duration_within(&DEBOUNCE, Duration::from_millis(1), Duration::from_secs(5));
        let closed_is_high = block.choice(&CLOSED, &[("low", false), ("high", true)]);
        if block.has(CLOSED.name) && closed_is_high.is_none() {
            return None;
        }
        let closed_is_high = closed_is_high.unwrap_or(pull == Some(Pull::Down));
        Some(Self { number: number?, pull: pull?, debounce: debounce?, closed_is_high })
    }

    /// A device that is read through this pin.
    pub(super) fn device(
        self,
        common: Common,
        driver: &'static str,
        points: Vec<Point>,
        decoder: Box<dyn PinDecoder>,
    ) -> Device {
        let wire = Wire::Pin { pin: self.number, pull: self.pull, debounce: self.debounce, decoder };
        Device { name: common.name, label: common.label, driver, points, wire }
    }
}

/// How often a value that does not change is told.
pub(super) fn interval(block: &Block<'_>) -> Option<Duration> {
    block.duration_within(&INTERVAL, Duration::from_secs(10), Duration::from_secs(86_400))
}

/// A point of the device, or a fault when its name grows too long.
pub(super) fn point_name(block: &Block<'_>, common: &Common, channel: &str) -> Option<PointId> {
    common.name.join(channel).map_err(|wrong| block.fault("name", wrong)).ok()
}

fn read(block: &Block<'_>, common: Common) -> Option<Device> {
    let pin = Pin::read(block);
    let interval = interval(block);
    let invert: Option<bool> = block.get(&INVERT);
    let faults = block.has(ALARM.name) && alarm_position(block).is_none();
    let id = point_name(block, &common, "state");
    let (pin, interval, invert, id) = (pin?, interval?, invert?, id?);
    if faults {
        return None;
    }
    let point = Point {
        id: id.clone(),
        label: common.label.clone(),
        unit: "1".to_owned(),
        kind: Kind::State,
        decimals: 0,
        interval: Some(interval),
        range: Some(0.0..=1.0),
        sharing: common.sharing,
    };
    let one_is_high = pin.closed_is_high != invert;
    let decoder = Contact { point: id, one_is_high, interval, state: None, told: None, allowance: Allowance::full() };
    Some(pin.device(common, DRIVER.name, vec![point], Box::new(decoder)))
}

fn alarm_position(block: &Block<'_>) -> Option<bool> {
    block.choice(&ALARM, &[("closed", true), ("open", false)])
}

/// The point of a contact's block, and its value that is an alarm; `None` when none is.
pub fn alarm(block: &Block<'_>) -> Option<(PointId, f64)> {
    const NAME: Field = Field {
        name: "name",
        expects: Both("the device's name", "le nom de l'appareil"),
        presence: Presence::Optional,
        doc: "",
    };
    let closed = alarm_position(block)?;
    let invert: bool = block.get(&INVERT)?;
    let name: PointId = block.parse(&NAME)?;
    Some((name.join("state").ok()?, f64::from(u8::from(closed != invert))))
}

/// Changes that may be told at once; each costs the card a write, and a loose wire makes twenty a second.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: u32,
    since_ms: u64,
}

impl Allowance {
    const BURST: u32 = 10;
    const ONE_EVERY_MS: u64 = 1_000;

    fn full() -> Self {
        Self { left: Self::BURST, since_ms: 0 }
    }

    fn take(&mut self, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.since_ms) / Self::ONE_EVERY_MS;
        self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(Self::BURST);
        self.since_ms = self.since_ms.max(now_ms - now_ms % Self::ONE_EVERY_MS);
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// State of the contact. Each change is told at once, ten in a row and one a second after that; of faster ones the
/// last is told, so the state shown is always the true one.
#[derive(Debug)]
struct Contact {
    point: PointId,
    one_is_high: bool,
    interval: Duration,
    state: Option<bool>,
    told: Option<(bool, u64)>,
    allowance: Allowance,
}

impl Contact {
    fn tell(&mut self, state: bool, now_ms: u64, said: &mut Vec<Said>) {
        let value = Some(f64::from(u8::from(state)));
        said.push(Said::Value { point: self.point.clone(), value, quality: Quality::Good });
        self.told = Some((state, now_ms));
    }
}

impl PinDecoder for Contact {
    // The pin tells its present level first: what was stored is the past.
    fn resume(&mut self, _point: &PointId, _value: f64) {}

    fn edge(&mut self, edge: Edge, mono_ms: u64, said: &mut Vec<Said>) {
        let state = edge.high == self.one_is_high;
        self.state = Some(state);
        let news = self.told.is_none_or(|(told, _)| told != state);
        if news && self.allowance.take(mono_ms) {
            self.tell(state, mono_ms, said);
        }
    }

    fn tick(&mut self, mono_ms: u64, said: &mut Vec<Said>) {
        let Some(state) = self.state else { return };
        let due = self.told.is_none_or(|(told, at)| {
            told != state || u128::from(mono_ms.saturating_sub(at)) >= self.interval.as_millis()
        });
        if due {
            self.tell(state, mono_ms, said);
        }
    }
}

fn replay(device: Device, capture: &[u8]) -> Result<Vec<Said>, NotACapture> {
    play(device, &edges(capture)?)
}

/// A level of the pin in a capture, since its start.
pub(super) type Level = (u64, bool);

/// Longest silence, and longest capture: beyond it the file is something else.
const LONGEST_MS: u64 = 31 * 86_400_000;

/// Lines of `<ms> <0|1>`: the level the pin takes, bounces included. `#` begins a comment.
pub(super) fn edges(capture: &[u8]) -> Result<Vec<Level>, NotACapture> {
    let text = std::str::from_utf8(capture)
        .map_err(|_| NotACapture { line: 0, message: "text was expected, lines of <ms> <0|1>".to_owned() })?;
    let mut levels: Vec<Level> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let not = |message: String| NotACapture { line: index + 1, message };
        let level = level(content).ok_or_else(|| not(format!("{content:?} is not <ms> <0|1>")))?;
        let before = levels.last().map_or(0, |(ms, _)| *ms);
        if level.0 < before {
            return Err(not(format!("{} ms comes before {before} ms", level.0)));
        }
        if level.0 > LONGEST_MS {
            return Err(not(format!("{} ms is more than 31 days", level.0)));
        }
        levels.push(level);
    }
    Ok(levels)
}

fn level(text: &str) -> Option<Level> {
    let mut words = text.split_ascii_whitespace();
    let ms = words.next()?.parse().ok()?;
    let high = match words.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    words.next().is_none().then_some((ms, high))
}

/// What the kernel makes of bounces: a level counts once it has stayed for the debounce time.
fn debounced(levels: &[Level], debounce: Duration) -> Vec<Level> {
    let debounce = u64::try_from(debounce.as_millis()).unwrap_or(u64::MAX);
    let Some(&(start, first)) = levels.first() else { return Vec::new() };
    let mut settled = vec![(start, first)];
    let (mut at, mut now) = (start, first);
    let next_times = levels.iter().skip(1).map(|(ms, _)| *ms).chain([u64::MAX]);
    for (&(ms, high), next) in levels.iter().zip(next_times) {
        // A line that repeats the level it had does not restart the wait.
        if high != now {
            (at, now) = (ms, high);
        }
        let stays = next.saturating_sub(at) >= debounce;
        if stays && settled.last().is_some_and(|(_, last)| *last != now) {
            settled.push((at.saturating_add(debounce), now));
        }
    }
    settled
}

/// Feeds a capture to the device as the gateway would, a tick every second, and a minute beyond its end.
pub(super) fn play(device: Device, levels: &[Level]) -> Result<Vec<Said>, NotACapture> {
    let Wire::Pin { debounce, mut decoder, .. } = device.wire else {
        return Err(NotACapture { line: 0, message: "the device is not on a pin".to_owned() });
    };
    let settled = debounced(levels, debounce);
    let mut said = Vec::new();
    let Some(mut second) = settled.first().map(|(ms, _)| ms + 1_000) else { return Ok(said) };
    for (ms, high) in &settled {
        while second <= *ms {
            decoder.tick(second, &mut said);
            second += 1_000;
        }
        decoder.edge(Edge { high: *high }, *ms, &mut said);
    }
    for _ in 0..60 {
        decoder.tick(second, &mut said);
        second += 1_000;
    }
    Ok(said)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{config::Source, reading::Sharing};

    /// A device from the text of its block; faults are shown.
    pub(crate) fn device(driver: &Driver, text: &str) -> Result<Device, Vec<String>> {
        let source = Source::new("f.toml", text);
        let table = source.parse();
        let block = Block::new(&source, "device", table.span(), table.get_ref());
        let name = "place/thing".parse().expect("a name");
        let common = Common { name, label: "Chose".to_owned(), sharing: Sharing::Internal };
        let device = (driver.read)(&block, common);
        let faults: Vec<_> = source.faults().into_iter().map(|fault| fault.message.english).collect();
        device.filter(|_| faults.is_empty()).ok_or(faults)
    }

    pub(crate) fn decoder(driver: &Driver, text: &str) -> Box<dyn PinDecoder> {
        match device(driver, text).expect("a device").wire {
            Wire::Pin { decoder, .. } => decoder,
            other => panic!("{other:?}"),
        }
    }

    /// The values of one point.
    pub(crate) fn values(said: &[Said], channel: &str) -> Vec<f64> {
        let of = |one: &Said| match one {
            Said::Value { point, value, .. } if point.as_str().ends_with(channel) => *value,
            _ => None,
        };
        said.iter().filter_map(of).collect()
    }

    fn told(text: &str, capture: &str) -> Vec<f64> {
        let device = device(&DRIVER, text).expect("a device");
        values(&replay(device, capture.as_bytes()).expect("a capture"), "state")
    }

    #[test]
    fn a_contact_to_ground_is_closed_when_low_and_the_other_way_round_where_told() {
        let opens = "0 0\n1000 1";
        assert_eq!(told("pin = 17", opens), [1.0, 0.0]);
        assert_eq!(told("pin = 17\npull = \"down\"", opens), [0.0, 1.0]);
        assert_eq!(told("pin = 17\nclosed_is = \"high\"", opens), [0.0, 1.0]);
        assert_eq!(told("pin = 17\ninvert = true", opens), [0.0, 1.0]);
    }

    #[test]
    fn bounces_are_not_seen_and_a_short_touch_is_none() {
        assert_eq!(told("pin = 17", "0 1\n1000 0\n1003 1\n1005 0\n1011 1\n1012 0\n3000 1"), [0.0, 1.0, 0.0]);
        assert_eq!(told("pin = 17", "0 1\n1000 0\n1030 1"), [0.0]);
        assert_eq!(told("pin = 17\ndebounce = \"10 ms\"", "0 1\n1000 0\n1030 1"), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn the_capture_of_a_door_is_closed_then_open_then_closed_and_a_touch_is_none() {
        let capture = include_str!("../../tests/fixtures/contact/door.edges");
        assert_eq!(told("pin = 17\ninterval = \"1 d\"", capture), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn a_state_that_lasts_is_told_again_every_interval() {
        let mut decoder = decoder(&DRIVER, "pin = 17\ninterval = \"1 min\"");
        let mut said = Vec::new();
        decoder.tick(0, &mut said);
        assert!(said.is_empty(), "nothing is known before the pin has told its level");
        decoder.edge(Edge { high: true }, 500, &mut said);
        (1..=121).for_each(|second| decoder.tick(second * 1_000, &mut said));
        assert_eq!(values(&said, "state"), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_loose_wire_is_told_at_most_once_a_second_and_its_last_state_is_true() {
        let mut decoder = decoder(&DRIVER, "pin = 17");
        let mut said = Vec::new();
        for step in 0..2_001_u64 {
            decoder.edge(Edge { high: step % 2 == 1 }, step * 50, &mut said);
            if step % 20 == 19 {
                decoder.tick(step * 50, &mut said);
            }
        }
        decoder.tick(101_000, &mut said);
        assert!((100..=220).contains(&said.len()), "{}", said.len());
        assert_eq!(values(&said, "state").last(), Some(&1.0));
    }

    #[test]
    fn an_alarm_is_the_value_the_point_has_in_that_position() {
        let alarm_of = |text: &str| {
            let source = Source::new("f.toml", text);
            let table = source.parse();
            let found = alarm(&Block::new(&source, "device", table.span(), table.get_ref()));
            found.map(|(point, value)| (point.to_string(), value))
        };
        let named = "name = \"door/hall\"\npin = 4\n";
        assert_eq!(alarm_of(named), None);
        let state = || "door/hall/state".to_owned();
        assert_eq!(alarm_of(&format!("{named}alarm = \"closed\"")), Some((state(), 1.0)));
        assert_eq!(alarm_of(&format!("{named}alarm = \"open\"")), Some((state(), 0.0)));
        assert_eq!(alarm_of(&format!("{named}alarm = \"open\"\ninvert = true")), Some((state(), 1.0)));
    }

    #[test]
    fn faults_of_a_contact_are_all_told() {
        let faults = device(&DRIVER, "pin = 40\npull = \"sideways\"\ndebounce = \"1 h\"\nalarm = \"ajar\"")
            .expect_err("four faults");
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn what_is_not_a_capture_is_refused_with_its_line() {
        for (text, line) in [("0 1\n5 2", 2), ("10 1\n5 0", 2), ("# ok\n\nabc", 3), ("0 1 1", 1), ("99999999999 1", 1)]
        {
            assert_eq!(edges(text.as_bytes()).expect_err("refused").line, line, "{text:?}");
        }
        assert_eq!(edges(&[0xff, 0xfe]).expect_err("refused").line, 0);
        assert_eq!(edges(b"0 1 # at rest\n"), Ok(vec![(0, true)]));
    }
}
