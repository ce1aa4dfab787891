//! The `[announce]` block: how the village is spoken to, when not, and through which relays.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use jiff::civil::Time;

use super::{Block, Both, Field, Presence, words};

/// Where the sound goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To a sound card, by its ALSA name, through the program `aplay`.
    Aplay {
        /// `default:CARD=Headphones`.
        card: String,
    },
    /// Into one WAV file per playing.
    Wav {
        /// Where the files are written.
        directory: PathBuf,
    },
}

/// What turns text into speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoiceChoice {
    /// Each of Piper, pico2wave and espeak-ng that is installed, in this order, until one speaks.
    Auto,
    /// Piper alone.
    Piper,
    /// SVOX Pico alone.
    Pico,
    /// espeak-ng alone.
    Espeak,
    /// A command of the operator's: program and arguments, `{text_file}` and `{wav}` standing for the two files.
    Command(Vec<String>),
}

/// Hours of silence, in the gateway's local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    /// The first quiet minute.
    pub from: Time,
    /// The first minute that is not quiet any more; earlier than `from` when the night is between them.
    pub to: Time,
}

impl QuietHours {
    /// Whether a local time is quiet. Nothing is when both ends are the same.
    pub fn contain(&self, time: Time) -> bool {
        if self.from <= self.to {
            return self.from <= time && time < self.to;
        }
        time >= self.from || time < self.to
    }
}

/// One `[[announce.zone]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Stable name.
    pub name: String,
    /// What people call it.
    pub label: String,
    /// The relay's pin, BCM number; a zone without one is always connected.
    pub pin: Option<u8>,
}

/// What the part that plays needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceSettings {
    /// Where the sound goes.
    pub output: Output,
    /// The relay that wakes the amplifier, BCM number.
    pub amplifier_pin: Option<u8>,
    /// The level that closes the relays: true for high.
    pub relay_active_high: bool,
    /// From keying the amplifier to the first sound, 0 to 10 s.
    pub warm_up: Duration,
    /// From the last sound to the release, 0 to 10 s.
    pub tail: Duration,
    /// The longest time relays stay keyed, 10 s to 1 h.
    pub longest: Duration,
    /// When ambiance and information are held.
    pub quiet: QuietHours,
    /// How long ambiance and information may sound in a day.
    pub daily_budget: Duration,
    /// What speaks.
    pub voice: VoiceChoice,
    /// Piper's voice, an `.onnx` file. Without it Piper counts as not installed.
    pub voice_model: Option<PathBuf>,
    /// In the order of the file; never empty.
    pub zones: Vec<ZoneSettings>,
}

const OUTPUT: Field = Field {
    name: "output",
    expects: Both("\"aplay\" or \"wav\"", "\"aplay\" ou \"wav\""),
    presence: Presence::Default("\"aplay\""),
    doc: "Where the sound goes: to a sound card through the program aplay, or into WAV files.",
};
const CARD: Field = Field {
    name: "card",
    expects: Both(
        "an ALSA device by the card's name, such as \"default:CARD=Headphones\"",
        "un appareil ALSA par le nom de la carte son, comme \"default:CARD=Headphones\"",
    ),
    presence: Presence::Default("\"default\""),
    doc: "The sound card, by name: numbers change from one start to the next. `aplay -L` lists them.",
};
const WAV_DIRECTORY: Field = Field {
    name: "wav_directory",
    expects: Both("a folder", "un dossier"),
    presence: Presence::Optional,
    doc: "Where output = \"wav\" writes one file per playing; the oldest are removed beyond 256 MB.",
};
const AMPLIFIER_PIN: Field = Field {
    name: "amplifier_pin",
    expects: Both("a BCM number from 0 to 27", "un numéro BCM de 0 à 27"),
    presence: Presence::Optional,
    doc: "The relay that wakes the amplifier (mains or priority input).",
};
const RELAY_ACTIVE: Field = Field {
    name: "relay_active",
    expects: Both("\"high\" or \"low\"", "\"high\" ou \"low\""),
    presence: Presence::Default("\"high\""),
    doc: "The level that closes the relays. Boards with optocouplers often want \"low\".",
};
const WARM_UP: Field = Field {
    name: "warm_up",
    expects: Both("a duration such as \"1 s\"", "une durée comme \"1 s\""),
    presence: Presence::Default("\"1 s\""),
    doc: "How long the amplifier needs before the first sound, 0 to 10 s.",
};
const TAIL: Field = Field {
    name: "tail",
    expects: Both("a duration such as \"500 ms\"", "une durée comme \"500 ms\""),
    presence: Presence::Default("\"500 ms\""),
    doc: "How long the relays stay keyed after the last sound, 0 to 10 s.",
};
const LONGEST: Field = Field {
    name: "longest",
    expects: Both("a duration such as \"10 min\"", "une durée comme \"10 min\""),
    presence: Presence::Default("\"10 min\""),
    doc: "Relays are released after this time whatever happens, 10 s to 1 h.",
};
const QUIET_FROM: Field = Field {
    name: "quiet_from",
    expects: Both("a time of day such as \"20:00\"", "une heure comme \"20:00\""),
    presence: Presence::Default("\"20:00\""),
    doc: "From this hour ambiance and information wait; important announcements and alerts never do.",
};
const QUIET_TO: Field = Field {
    name: "quiet_to",
    expects: Both("a time of day such as \"08:00\"", "une heure comme \"08:00\""),
    presence: Presence::Default("\"08:00\""),
    doc: "Until this hour. The same as quiet_from: no quiet hours.",
};
const DAILY_BUDGET: Field = Field {
    name: "daily_budget",
    expects: Both("a duration such as \"5 min\"", "une durée comme \"5 min\""),
    presence: Presence::Default("\"5 min\""),
    doc: "How long ambiance and information may sound in a day; the noise law allows +5 dB(A) up to 5 min (R1336-7).",
};
const VOICE: Field = Field {
    name: "voice",
    expects: Both(
        "\"auto\", \"piper\", \"pico2wave\" or \"espeak-ng\"",
        "\"auto\", \"piper\", \"pico2wave\" ou \"espeak-ng\"",
    ),
    presence: Presence::Default("\"auto\""),
    doc: "What speaks. \"auto\" tries Piper, pico2wave and espeak-ng, whichever are installed.",
};
const VOICE_MODEL: Field = Field {
    name: "voice_model",
    expects: Both("a path to an .onnx file", "le chemin d'un fichier .onnx"),
    presence: Presence::Optional,
    doc: "Piper's French voice. Without it Piper is not used.",
};
const VOICE_COMMAND: Field = Field {
    name: "voice_command",
    expects: Both(
        "a list such as [\"my-voice\", \"--in\", \"{text_file}\", \"--out\", \"{wav}\"]",
        "une liste comme [\"my-voice\", \"--in\", \"{text_file}\", \"--out\", \"{wav}\"]",
    ),
    presence: Presence::Optional,
    doc: "Another program that speaks, run without a shell: {text_file} is what to read, {wav} what to write.",
};
const ZONE: Field = Field {
    name: "zone",
    expects: Both("one [[announce.zone]] block or more", "un bloc [[announce.zone]] ou plusieurs"),
    presence: Presence::Required,
    doc: "The zones: loudspeakers that switch together.",
};

/// The keys of `[announce]`.
pub const FIELDS: &[Field] = &[
    OUTPUT,
    CARD,
    WAV_DIRECTORY,
    AMPLIFIER_PIN,
    RELAY_ACTIVE,
    WARM_UP,
    TAIL,
    LONGEST,
    QUIET_FROM,
    QUIET_TO,
    DAILY_BUDGET,
    VOICE,
    VOICE_MODEL,
    VOICE_COMMAND,
    ZONE,
];

const ZONE_NAME: Field = Field {
    name: "name",
    expects: Both("a name of small letters, digits and dashes", "un nom en minuscules sans accent, chiffres et tirets"),
    presence: Presence::Required,
    doc: "Stable name, used in the journal, on MQTT and in file names: \"bourg\".",
};
const ZONE_LABEL: Field = Field {
    name: "label",
    expects: Both("a text", "un texte"),
    presence: Presence::Optional,
    doc: "What people call it; the name when missing.",
};
const ZONE_PIN: Field = Field {
    name: "pin",
    expects: Both("a BCM number from 0 to 27", "un numéro BCM de 0 à 27"),
    presence: Presence::Optional,
    doc: "The relay of this zone. A zone without one is always connected to the amplifier.",
};

/// The keys of `[[announce.zone]]`.
pub const ZONE_FIELDS: &[Field] = &[ZONE_NAME, ZONE_LABEL, ZONE_PIN];

/// The highest GPIO on the Pi's header; source: BCM2835 peripherals, bank 0 as wired to the 40 pins.
const LAST_PIN: u8 = 27;
/// One amplifier and its relays; source: the largest product looked at has 20 (reference: Axis Audio Manager Edge).
const MOST_ZONES: usize = 20;

/// Reads `[announce]`; what is wrong is recorded at its place and gives `None`.
pub fn read(block: &Block<'_>) -> Option<AnnounceSettings> {
    block.only(&[FIELDS]);
    let output = output(block);
    let voice = voice(block);
    let zones = zones(block);
    let amplifier_pin = pin(block, &AMPLIFIER_PIN);
    if let (Some(zones), Some(Some(amplifier))) = (&zones, amplifier_pin) {
        amplifier_alone(block, zones, amplifier);
    }
    let relay_active_high = block.choice(&RELAY_ACTIVE, &[("high", true), ("low", false)]);
    let warm_up = block.duration_within(&WARM_UP, Duration::ZERO, Duration::from_secs(10));
    let tail = block.duration_within(&TAIL, Duration::ZERO, Duration::from_secs(10));
    let longest = block.duration_within(&LONGEST, Duration::from_secs(10), Duration::from_secs(3_600));
    let from = time(block, &QUIET_FROM);
    let to = time(block, &QUIET_TO);
    let daily_budget = block.duration_within(&DAILY_BUDGET, Duration::ZERO, Duration::from_secs(86_400));
    let (voice, voice_model) = voice?;
    Some(AnnounceSettings {
        output: output?,
        amplifier_pin: amplifier_pin?,
        relay_active_high: relay_active_high?,
        warm_up: warm_up?,
        tail: tail?,
        longest: longest?,
        quiet: QuietHours { from: from?, to: to? },
        daily_budget: daily_budget?,
        voice,
        voice_model,
        zones: zones?,
    })
}

fn output(block: &Block<'_>) -> Option<Output> {
    let card: Option<String> = block.get(&CARD);
    let directory: Option<PathBuf> = block.get(&WAV_DIRECTORY);
    if block.choice(&OUTPUT, &[("aplay", false), ("wav", true)])? {
        if !block.has(WAV_DIRECTORY.name) {
            block.fault(
                OUTPUT.name,
                words!(
                    "`output` is \"wav\" and `wav_directory` is missing: a folder",
                    "`output` vaut \"wav\" et `wav_directory` manque : un dossier"
                ),
            );
        }
        return directory.map(|directory| Output::Wav { directory });
    }
    let card = card?;
    if card.is_empty() || card.starts_with('-') || card.chars().any(char::is_control) {
        block.unexpected(&CARD, words!("is {card:?}", "vaut {card:?}"));
        return None;
    }
    Some(Output::Aplay { card })
}

fn voice(block: &Block<'_>) -> Option<(VoiceChoice, Option<PathBuf>)> {
    let chosen = block.choice(&VOICE, &[("auto", 0), ("piper", 1), ("pico2wave", 2), ("espeak-ng", 3)])?;
    let model = block.file(&VOICE_MODEL);
    if block.has(VOICE_MODEL.name) && model.is_none() {
        return None;
    }
    if block.has(VOICE_COMMAND.name) {
        return Some((VoiceChoice::Command(command(block)?), model));
    }
    if chosen == 1 && model.is_none() {
        block.fault(
            VOICE.name,
            words!(
                "`voice` is \"piper\" and `voice_model` is missing: a path to an .onnx file",
                "`voice` vaut \"piper\" et `voice_model` manque : le chemin d'un fichier .onnx"
            ),
        );
        return None;
    }
    let voice = match chosen {
        0 => VoiceChoice::Auto,
        1 => VoiceChoice::Piper,
        2 => VoiceChoice::Pico,
        _ => VoiceChoice::Espeak,
    };
    Some((voice, model))
}

fn command(block: &Block<'_>) -> Option<Vec<String>> {
    let words: Vec<String> = block.get(&VOICE_COMMAND)?;
    let named = |place: &str| words.iter().skip(1).any(|word| word.contains(place));
    let wrong = if words.first().is_none_or(String::is_empty) {
        words!("names no program", "ne nomme aucun programme")
    } else if !named("{wav}") {
        words!("does not say where {{wav}} goes", "ne dit pas où va {{wav}}")
    } else if !named("{text_file}") {
        words!("does not say where {{text_file}} goes", "ne dit pas où va {{text_file}}")
    } else {
        return Some(words);
    };
    block.unexpected(&VOICE_COMMAND, wrong);
    None
}

/// `Some(None)` when it is not written, `None` when it is wrong.
fn pin(block: &Block<'_>, field: &Field) -> Option<Option<u8>> {
    if !block.has(field.name) {
        return Some(None);
    }
    block.within(field, 0, LAST_PIN).map(Some)
}

fn time(block: &Block<'_>, field: &Field) -> Option<Time> {
    let text: String = block.get(field)?;
    let time = text.split_once(':').and_then(|(hour, minute)| Time::new(two(hour)?, two(minute)?, 0, 0).ok());
    if time.is_none() {
        block.unexpected(field, words!("is \"{text}\"", "vaut \"{text}\""));
    }
    time
}

fn two(digits: &str) -> Option<i8> {
    let sound = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| sound)
}

fn zones(block: &Block<'_>) -> Option<Vec<ZoneSettings>> {
    let blocks = block.blocks(ZONE.name);
    if !block.has(ZONE.name) {
        block.missing(&ZONE);
    } else if blocks.len() > MOST_ZONES {
        let count = blocks.len();
        block.fault(
            ZONE.name,
            words!(
                "{count} zones, {MOST_ZONES} at most are possible",
                "{count} zones : il y en a {MOST_ZONES} au plus"
            ),
        );
        return None;
    }
    let mut names = HashSet::new();
    let mut pins = HashSet::new();
    let zones: Vec<Option<ZoneSettings>> = blocks
        .iter()
        .map(|block| {
            let zone = zone(block)?;
            if !names.insert(zone.name.clone()) {
                let name = &zone.name;
                block.fault(
                    ZONE_NAME.name,
                    words!(
                        "`name` is \"{name}\", another zone has this name",
                        "`name` vaut \"{name}\" : une autre zone a ce nom"
                    ),
                );
                return None;
            }
            if zone.pin.is_some_and(|pin| !pins.insert(pin)) {
                block.fault(
                    ZONE_PIN.name,
                    words!("`pin` is the pin of another zone", "`pin` est la broche d'une autre zone"),
                );
                return None;
            }
            Some(zone)
        })
        .collect();
    zones.into_iter().collect::<Option<Vec<_>>>().filter(|zones| !zones.is_empty())
}

fn zone(block: &Block<'_>) -> Option<ZoneSettings> {
    block.only(&[ZONE_FIELDS]);
    let pin = pin(block, &ZONE_PIN);
    let label: Option<String> = block.get(&ZONE_LABEL);
    let name: String = block.get(&ZONE_NAME)?;
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(letters) {
        let Both(english, french) = ZONE_NAME.expects;
        block.fault(
            ZONE_NAME.name,
            words!(
                "`name` is {name:?}, {english} was expected, 40 at most",
                "`name` vaut {name:?} ; attendu : {french}, 40 caractères au plus"
            ),
        );
        return None;
    }
    let label = label.unwrap_or_else(|| name.clone());
    Some(ZoneSettings { name, label, pin: pin? })
}

fn amplifier_alone(block: &Block<'_>, zones: &[ZoneSettings], amplifier: u8) {
    if let Some(zone) = zones.iter().find(|zone| zone.pin == Some(amplifier)) {
        let name = &zone.name;
        block.fault(
            AMPLIFIER_PIN.name,
            words!(
                "`amplifier_pin` is {amplifier}, the pin of zone \"{name}\"",
                "`amplifier_pin` vaut {amplifier}, la broche de la zone \"{name}\""
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::time;

    use super::*;
    use crate::config::Source;

    fn read_text(text: &str) -> (Option<AnnounceSettings>, Vec<String>) {
        let source = Source::new("gateway.toml", text);
        let table = source.parse();
        let block = Block::new(&source, "announce", table.span(), table.get_ref());
        let settings = read(&block);
        let faults = source.faults();
        (settings, faults.iter().map(|f| format!("{}:{}: {}", source.line_of(f), f.place, f.message)).collect())
    }

    #[test]
    fn a_zone_is_enough_and_the_rest_has_sound_defaults() {
        let (settings, faults) = read_text("[[zone]]\nname = \"bourg\"\n");
        assert_eq!(faults, Vec::<String>::new());
        let settings = settings.expect("settings");
        assert_eq!(settings.output, Output::Aplay { card: "default".into() });
        assert_eq!(settings.warm_up, Duration::from_secs(1));
        assert_eq!(settings.tail, Duration::from_millis(500));
        assert_eq!(settings.longest, Duration::from_secs(600));
        assert_eq!(settings.quiet, QuietHours { from: time(20, 0, 0, 0), to: time(8, 0, 0, 0) });
        assert_eq!(settings.daily_budget, Duration::from_secs(300));
        assert_eq!(settings.voice, VoiceChoice::Auto);
        assert!(settings.relay_active_high);
        assert_eq!(settings.zones[0].label, "bourg");
    }

    #[test]
    fn every_key_is_read() {
        let (settings, faults) = read_text(
            r#"
            output = "wav"
            wav_directory = "/var/lib/clocher/wav"
            amplifier_pin = 17
            relay_active = "low"
            warm_up = "2 s"
            tail = "1 s"
            longest = "5 min"
            quiet_from = "22:00"
            quiet_to = "7:00"
            daily_budget = "8 min"
            voice_command = ["say", "{text_file}", "--out={wav}"]
            [[zone]]
            name = "bourg"
            label = "Le bourg"
            pin = 27
            [[zone]]
            name = "hameau"
            "#,
        );
        assert_eq!(faults, Vec::<String>::new());
        let settings = settings.expect("settings");
        assert_eq!(settings.output, Output::Wav { directory: "/var/lib/clocher/wav".into() });
        assert_eq!((settings.amplifier_pin, settings.relay_active_high), (Some(17), false));
        assert_eq!(settings.quiet, QuietHours { from: time(22, 0, 0, 0), to: time(7, 0, 0, 0) });
        assert!(matches!(settings.voice, VoiceChoice::Command(words) if words.len() == 3));
        assert_eq!(settings.zones.iter().map(|z| z.pin).collect::<Vec<_>>(), [Some(27), None]);
    }

    #[test]
    fn seven_faults_are_told_at_their_lines_in_one_run() {
        let (settings, faults) = read_text(
            "output = \"wav\"\nwarm_up = \"11 s\"\nquiet_from = \"25:00\"\nvoice = \"piper\"\namplifier_pin = 4\n\
             [[zone]]\nname = \"bourg\"\npin = 4\n[[zone]]\nname = \"Église\"\n[[zone]]\nname = \"bas\"\npin = 40\n",
        );
        assert_eq!(settings, None);
        for (line, words) in [
            (1, "`wav_directory` is missing"),
            (2, "`warm_up` is 11s"),
            (3, "`quiet_from` is \"25:00\""),
            (4, "`voice_model` is missing"),
            (10, "`name` is \"Église\""),
            (13, "`pin` is 40"),
        ] {
            let found = faults.iter().any(|f| f.starts_with(&format!("{line}:")) && f.contains(words));
            assert!(found, "{line} {words}: {faults:#?}");
        }
    }

    #[test]
    fn relays_that_share_a_pin_are_a_fault() {
        let (_, faults) = read_text("amplifier_pin = 4\n[[zone]]\nname = \"bourg\"\npin = 4\n");
        assert_eq!(faults, ["1:announce: `amplifier_pin` is 4, the pin of zone \"bourg\""]);
        let (_, faults) = read_text("[[zone]]\nname = \"a\"\npin = 4\n[[zone]]\nname = \"b\"\npin = 4\n");
        assert_eq!(faults, ["6:announce, zone \"b\": `pin` is the pin of another zone"]);
    }

    #[test]
    fn a_village_without_zones_is_a_fault() {
        let (settings, faults) = read_text("output = \"aplay\"\n");
        assert_eq!(settings, None);
        assert!(faults[0].contains("`zone` is missing"), "{faults:?}");
    }

    #[test]
    fn quiet_hours_may_span_midnight_or_noon_or_nothing() {
        let at = |hour| time(hour, 0, 0, 0);
        let night = QuietHours { from: at(20), to: at(8) };
        assert!(night.contain(at(20)) && night.contain(at(0)) && night.contain(at(7)));
        assert!(!night.contain(at(8)) && !night.contain(at(19)));
        let nap = QuietHours { from: at(13), to: at(15) };
        assert!(nap.contain(at(14)) && !nap.contain(at(15)));
        assert!(!QuietHours { from: at(9), to: at(9) }.contain(at(9)));
    }
}
