//! From the one file on the card to RESULTAT.txt beside it, with the real binary: what a technician does on a PC, then what
//! the box does by itself.

use std::{fs, net::TcpListener, path::PathBuf};

use clocher::tls::Identity;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Running, clocher, run_to_end};

/// The partitions of a box, as folders.
struct Card {
    place: TempDir,
}

impl Card {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a place");
        for folder in ["card", "state", "run", "store"] {
            fs::create_dir(place.path().join(folder)).expect("made");
        }
        Self { place }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.path().join(path)
    }

    fn write(&self, text: &str) {
        fs::write(self.at("card/clocher.toml"), text).expect("written");
    }

    /// Runs one of the two commands of the box, which never fail.
    fn run(&self, command: &str, more: &[&str]) {
        let mut asked = clocher();
        asked.arg(command).args(more);
        for (option, folder) in [("--card", "card"), ("--state", "state"), ("--run", "run")] {
            asked.arg(option).arg(self.at(folder));
        }
        let done = asked.output().expect("the binary starts");
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn result(&self) -> String {
        fs::read_to_string(self.at("card/RESULTAT.txt")).expect("RESULTAT.txt")
    }
}

/// A port that was free a moment ago: the file on the card cannot say "any".
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("bound").port()
}

#[test]
fn a_file_checked_on_a_pc_becomes_a_panel_whose_code_and_fingerprint_stand_on_the_card() {
    let card = Card::new();
    let (store, port) = (card.at("store"), free_port());
    let text = format!(
        "[commune]\r\nname = \"Montclar\"\r\n[store]\r\ndirectory = \"{}\"\r\n[panel]\r\nlisten = \"127.0.0.1:{port}\"\r\n\
         [network.wifi]\r\nssid = \"Mairie\"\r\npassword = \"un secret bien long\"\r\n",
        store.display()
    );
    card.write(&format!("\u{feff}{text}"));
    let file = card.at("card/clocher.toml").display().to_string();
    let done = run_to_end(&["check", &file, "--language", "fr"]);
    assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("en ordre"), "{done:?}");

    card.run("provision", &[]);
    let gateway = Running::gateway(&card.at("run/clocher-config/gateway.toml"));
    gateway.line("the code is in a file");
    card.run("report", &["--wait", "30"]);
    let result = card.result();
    let code = fs::read_to_string(store.join("claim-code")).expect("a code");
    let own = store.join("own.pem");
    let fingerprint = Identity::load(&own, &own).expect("a certificate").fingerprint();
    let shown: String = result.split_whitespace().collect::<Vec<_>>().join("\n");
    for told in [code.trim(), &fingerprint[..48], &fingerprint[48..], "Montclar", "https://clocher.local"] {
        assert!(shown.contains(told), "{told} in {result}");
    }
    assert!(!result.contains("un secret"), "{result}");
    let (_, well, said) = gateway.stop(Signal::SIGTERM);
    assert!(well && !said.contains("un secret"), "{said}");

    // Another file, with faults: the box keeps what it had, and everybody is told.
    card.write(&text.replace("\"un secret bien long\"", "secret").replace("[panel]", "[panneau]"));
    card.run("provision", &[]);
    let gateway = Running::gateway(&card.at("run/clocher-config/gateway.toml"));
    gateway.line("configuration-set-aside");
    card.run("report", &["--wait", "30"]);
    let result = card.result();
    for told in [
        "Les derniers réglages valables servent à la place.",
        "Ligne 5 : `panneau` n'existe pas ici",
        "    [panneau]\r\n     ^^^^^^^",
        "Ligne 9 : attendu ici : un nombre, ou un texte entre guillemets",
        "password = ******",
    ] {
        assert!(result.contains(told), "{told} in {result}");
    }
    assert!(!result.contains("= secret"), "{result}");
    assert!(gateway.stop(Signal::SIGTERM).1);
}

#[test]
fn check_tells_the_same_faults_in_the_language_it_is_asked_in() {
    let card = Card::new();
    card.write("[commune]\nname = \"M\"\ntime_zone = \"Europe/Pari\"\n[peers]\nauthority = \"agglo.pem\"\n");
    let file = card.at("card/clocher.toml");
    let said = |language: &str| {
        let done = clocher().arg("check").arg(&file).env("LC_ALL", language).output().expect("the binary starts");
        assert_eq!(done.status.code(), Some(64));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let (french, english) = (said("fr_FR.UTF-8"), said("C"));
    for told in [
        "erreur: commune \"M\" : `time_zone` vaut \"Europe/Pari\" ; attendu : un fuseau horaire IANA",
        "clocher.toml:3:13",
        "\"agglo.pem\" n'est pas dans le même dossier",
        "2 erreurs dans",
    ] {
        assert!(french.contains(told), "{told} in {french}");
    }
    assert!(english.contains("2 faults in") && english.contains("an IANA time zone"), "{english}");
}
