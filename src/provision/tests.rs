use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::{
    app,
    config::{Source, outcome::Outcome},
};

const SOUND: &str = "[commune]\nname = \"Montclar\"\n";
const FAULTY: &str = "[commune]\nname = \"Montclar\"\n[panel]\nlisten = \"443\"\n";

struct Trial {
    place: tempfile::TempDir,
}

impl Trial {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        for folder in ["card", "state", "run"] {
            fs::create_dir(place.path().join(folder)).expect("made");
        }
        Self { place }
    }

    fn places(&self) -> Places {
        let at = |name| self.place.path().join(name);
        Places { card: at("card"), state: at("state"), run: at("run") }
    }

    fn card(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.places().card.join(name), bytes).expect("written");
    }

    /// One start; gives what became of the file and what runs.
    fn start(&self) -> (Outcome, String) {
        assert_eq!(run(&self.places()), Vec::<String>::new());
        let outcome = Outcome::read(&self.places().outcome()).expect("an outcome");
        (outcome, fs::read_to_string(self.places().configuration()).expect("a configuration"))
    }

    fn connection(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.places().run.join(CONNECTIONS).join(name)).ok()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_sound_file_runs_and_is_kept_and_runs_again_when_the_next_one_is_faulty_or_away() {
    let it = Trial::new();
    it.card("clocher.toml", SOUND);
    let (outcome, runs) = it.start();
    assert_eq!((outcome.used, outcome.set_aside(), runs.as_str()), (Used::Card, None, SOUND));
    it.card("clocher.toml", FAULTY);
    let (outcome, runs) = it.start();
    assert_eq!((outcome.used, runs.as_str()), (Used::LastGood, SOUND));
    let fault = &outcome.faults[0];
    assert_eq!((fault.line, fault.shown.as_str()), (4, "listen = \"443\"\n         ^^^^^"));
    assert!(outcome.set_aside().expect("told").contains("line 4"));
    fs::remove_file(it.places().card.join("clocher.toml")).expect("removed");
    let (outcome, runs) = it.start();
    assert_eq!((outcome.used, outcome.found, runs.as_str()), (Used::LastGood, None, SOUND));
}

#[test]
fn the_first_file_ever_serves_with_what_of_it_is_sound() {
    let it = Trial::new();
    it.card("clocher.toml", FAULTY);
    let (outcome, runs) = it.start();
    assert_eq!((outcome.used, runs.as_str()), (Used::SoundParts, FAULTY));
    assert!(!it.places().state.join(LAST_GOOD).exists());
}

#[test]
fn what_was_kept_and_is_damaged_comes_after_what_is_sound_of_the_card_s() {
    let it = Trial::new();
    fs::write(it.places().state.join(LAST_GOOD), [0x7F; 100]).expect("written");
    it.card("clocher.toml", FAULTY);
    assert_eq!(it.start().0.used, Used::SoundParts);
}

#[test]
fn a_card_without_the_file_runs_what_the_image_ships() {
    let (outcome, runs) = Trial::new().start();
    assert_eq!((outcome.used, runs.as_str()), (Used::Default, DEFAULT));
    assert!(outcome.set_aside().is_some());
}

#[test]
fn the_file_is_found_under_the_names_windows_gives_it_and_read_as_notepad_saves_it() {
    for name in ["clocher.toml", "CLOCHER.TOML", "Clocher.toml.txt", "clocher.txt"] {
        let it = Trial::new();
        let utf16: Vec<u8> =
            format!("\u{feff}{SOUND}").replace('\n', "\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
        it.card(name, utf16);
        let (outcome, runs) = it.start();
        assert_eq!((outcome.used, outcome.found.as_deref()), (Used::Card, Some(name)));
        assert_eq!(runs, SOUND.replace('\n', "\r\n"));
    }
}

#[test]
fn of_two_names_the_right_one_is_read_and_the_other_is_told() {
    let it = Trial::new();
    it.card("clocher.toml.txt", FAULTY);
    it.card("clocher.toml", SOUND);
    let (outcome, _) = it.start();
    assert_eq!(outcome.used, Used::Card);
    assert!(outcome.notes[0].contains("clocher.toml.txt ne l'a pas été"), "{:?}", outcome.notes);
}

#[test]
fn what_is_no_configuration_at_all_is_told_and_stops_nothing() {
    for bytes in [vec![b'#'; 300_000], vec![0xFF; 5_000], b"\xFF\xFE\x00".to_vec(), b"[[[[".to_vec()] {
        let it = Trial::new();
        it.card("clocher.toml", bytes);
        let (outcome, runs) = it.start();
        assert!(!outcome.faults.is_empty() && !outcome.faults[0].french.is_empty());
        app::read_settings(&Source::new("gateway.toml", runs));
    }
    let it = Trial::new();
    fs::create_dir(it.places().card.join("clocher.toml")).expect("a folder in its place");
    let (outcome, _) = it.start();
    assert_eq!((outcome.used, outcome.faults.len()), (Used::Default, 1));
}

#[test]
fn the_network_s_secrets_go_to_the_network_alone() {
    let it = Trial::new();
    let network = "[network.wifi]\nssid = \"Mairie\"\npassword = \"motdepasse7\"\n[network.mobile]\napn = \"orange\"\nsim_pin = \"9876\"\n";
    it.card("clocher.toml", format!("{SOUND}{network}"));
    let (_, runs) = it.start();
    assert!(!runs.contains("motdepasse7") && !runs.contains("9876"), "{runs}");
    let source = Source::new("gateway.toml", runs);
    app::read_settings(&source);
    assert_eq!(source.faults(), [], "what is masked stays sound");
    assert!(it.connection("clocher-wifi.nmconnection").expect("written").contains("psk=motdepasse7"));
    let places = it.places();
    for name in ["clocher-wifi.nmconnection", "clocher-mobile.nmconnection"] {
        assert_eq!(mode(&places.run.join(CONNECTIONS).join(name)), 0o600);
    }
    assert_eq!((mode(&places.state.join(LAST_GOOD)), mode(&places.configuration())), (0o600, 0o640));

    // A faulty secret is told without being shown.
    it.card(
        "clocher.toml",
        format!("{SOUND}{}", network.replace("motdepasse7\"", "court7").replace("9876", "98765432109")),
    );
    it.start();
    let told = fs::read_to_string(places.outcome()).expect("read");
    assert!(told.contains("sim_pin"), "{told}");
    assert!(!told.contains("court7") && !told.contains("98765"), "{told}");
}

#[test]
fn a_link_that_is_no_longer_asked_for_is_taken_away_and_those_of_others_stay() {
    let it = Trial::new();
    it.card("clocher.toml", format!("{SOUND}[network.wifi]\nssid = \"Mairie\"\n"));
    it.start();
    let folder = it.places().run.join(CONNECTIONS);
    fs::write(folder.join("theirs.nmconnection"), "").expect("written");
    assert!(it.connection("clocher-wifi.nmconnection").is_some());
    it.card("clocher.toml", SOUND);
    it.start();
    assert!(it.connection("clocher-wifi.nmconnection").is_none());
    assert!(it.connection("theirs.nmconnection").is_some() && it.connection("clocher-ethernet.nmconnection").is_some());
}

#[test]
fn a_session_needs_a_key_and_without_one_there_is_no_file_for_the_server_to_start_on() {
    let it = Trial::new();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA t@pc";
    it.card("clocher.toml", format!("{SOUND}[ssh]\nkeys = [\"{key}\"]\n"));
    it.start();
    let path = it.places().run.join(SSH).join("authorized_keys");
    assert_eq!((fs::read_to_string(&path).expect("written"), mode(&path)), (format!("{key}\n"), 0o600));
    it.card("clocher.toml", SOUND);
    it.start();
    assert!(!path.exists());
}

#[test]
fn a_file_beside_goes_along_and_one_that_is_missing_is_told_at_its_line() {
    let it = Trial::new();
    let peers = "[peers]\nauthority = \"agglo.pem\"\n";
    it.card("clocher.toml", format!("{SOUND}{peers}"));
    let (outcome, _) = it.start();
    assert!(outcome.faults[0].french.contains("\"agglo.pem\" n'est pas dans le même dossier"), "{outcome:?}");
    assert_eq!(outcome.faults[0].line, 4);
    it.card("agglo.pem", "certificate");
    assert_eq!(it.start().0.used, Used::Card);
    let beside = |folder: &Path| fs::read_to_string(folder.join("agglo.pem")).ok();
    assert!(beside(&it.places().run.join(CONFIGURATION)).is_some() && beside(&it.places().state).is_some());
    // The card loses both: what was kept still serves.
    fs::remove_file(it.places().card.join("agglo.pem")).expect("removed");
    fs::remove_dir_all(it.places().run).expect("a new start");
    fs::create_dir(it.places().run).expect("made");
    assert_eq!(it.start().0.used, Used::LastGood);
    assert!(beside(&it.places().run.join(CONFIGURATION)).is_some());
}

#[test]
fn a_second_start_writes_nothing_anew() {
    let it = Trial::new();
    it.card("clocher.toml", format!("{SOUND}[network.mobile]\napn = \"orange\"\n"));
    it.start();
    let inodes = || {
        use std::os::unix::fs::MetadataExt;
        let places = it.places();
        let connection = places.run.join(CONNECTIONS).join("clocher-mobile.nmconnection");
        let files = [places.state.join(LAST_GOOD), places.configuration(), connection, places.outcome()];
        files.map(|path| fs::metadata(path).expect("there").ino())
    };
    let before = inodes();
    it.start();
    assert_eq!(inodes(), before);
}

#[test]
fn a_state_that_cannot_be_written_is_told_and_the_file_runs_all_the_same() {
    let it = Trial::new();
    it.card("clocher.toml", SOUND);
    // A file where the folder should be: refused to root too.
    fs::remove_dir(it.places().state).expect("removed");
    fs::write(it.places().state, "").expect("written");
    let wrongs = run(&it.places());
    assert_eq!(wrongs.len(), 1, "{wrongs:?}");
    let outcome = Outcome::read(&it.places().outcome()).expect("an outcome");
    assert_eq!((outcome.used, outcome.notes.len()), (Used::Card, 1));
}

fn faults(text: &str) -> Vec<String> {
    let source = Source::new("clocher.toml", text);
    app::read_settings(&source);
    source.faults().iter().map(|fault| format!("{}: {}", source.line_of(fault), fault.message)).collect()
}

/// Examples are lines whose # is followed by no blank; a blank line ends one.
fn examples() -> Vec<String> {
    let uncommented =
        |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '-'])).map(ToOwned::to_owned);
    let mut examples = vec![String::new()];
    for line in DEFAULT.lines() {
        match (uncommented(line), line.trim().is_empty()) {
            (Some(example), _) => examples.last_mut().expect("one").push_str(&format!("{example}\n")),
            (None, true) => examples.push(String::new()),
            (None, false) => {}
        }
    }
    examples.retain(|example| !example.is_empty());
    examples
}

#[test]
fn the_file_that_is_shipped_is_sound_and_so_is_each_example_and_all_of_them() {
    assert_eq!(faults(DEFAULT), Vec::<String>::new());
    let examples = examples();
    assert!(examples.len() >= 11, "{examples:#?}");
    for example in &examples {
        assert_eq!(faults(&format!("{DEFAULT}\n{example}")), Vec::<String>::new(), "{example}");
    }
    assert_eq!(faults(&format!("{DEFAULT}\n{}", examples.join("\n"))), Vec::<String>::new());
}
