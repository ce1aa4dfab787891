//! `clocher report`: RESULTAT.txt on the card, for a technician without a screen or a network. Called once the gateway has
//! started, and again whenever an address or the claim code changes. What is told is in `letter`; what is looked at here.

mod door;
mod letter;
mod links;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;

use self::letter::{Gateway, Letter};
use super::Places;
use crate::{
    app,
    config::{Settings, outcome::Outcome},
    drivers::Device,
    vouch,
};

/// Its name, which any PC can show.
pub const NAME: &str = "RESULTAT.txt";
/// Below `--run`: why the gateway started, one line in French, if somebody left it.
const LAST_START: &str = "clocher/last-start";
/// Where the kernel's names of serial adapters are.
const ADAPTERS: &str = "/dev/serial/by-id";
/// Between two looks whether the gateway answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to look at, and for how long.
#[derive(Debug, Clone, Args)]
pub struct Report {
    #[command(flatten)]
    places: Places,
    /// How long to wait for the gateway to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

/// Looks around and writes. True when the card was written.
///
/// # Errors
/// When the card refuses.
pub fn run(report: &Report) -> io::Result<bool> {
    let text = look(report).to_string();
    write(&report.places.card, &text)
}

fn look(report: &Report) -> Letter {
    let places = &report.places;
    let source = app::read_source(&places.configuration());
    let settings = app::read_settings(&source);
    let trusted = is_trusted(&settings);
    Letter {
        date: trusted.then(|| Timestamp::now().to_zoned(settings.commune.time_zone.clone())),
        outcome: Outcome::read(&places.outcome()).ok(),
        gateway: gateway(&settings, Duration::from_secs(report.wait)),
        last_start: fs::read_to_string(places.run.join(LAST_START)).ok().map(|text| text.trim().to_owned()),
        links: links::links(
            &settings.network,
            &said_by("ip", &["-json", "address"]),
            &said_by("nmcli", &["-t", "-f", "DEVICE,TYPE,STATE", "device"]),
        ),
        adapters: adapters(Path::new(ADAPTERS)),
        port: settings.panel.listen.port(),
        commune: settings.commune.name,
        building: settings.commune.gateway,
    }
}

fn is_trusted(settings: &Settings<Device>) -> bool {
    let since_start = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = since_start.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    vouch::by(settings.clock.clone())(Timestamp::now().as_millisecond(), (seconds * 1000.0) as u64).is_some()
}

/// What the gateway shows at its door, waited for while it starts.
fn gateway(settings: &Settings<Device>, wait: Duration) -> Gateway {
    let door = to_reach(settings.panel.listen);
    let until = Instant::now() + wait;
    loop {
        match door::fingerprint(door) {
            Ok(fingerprint) => {
                let code = fs::read_to_string(settings.store.directory.join(app::CLAIM_FILE));
                return Gateway::Answers { fingerprint, code: code.ok().map(|code| code.trim().to_owned()) };
            }
            Err(wrong) if Instant::now() >= until => {
                let service = said_by("systemctl", &["is-active", "clocher.service"]);
                return Gateway::Silent { why: format!("{wrong}, service {}", service.trim()) };
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// A listener on every address is reached on this machine's own.
fn to_reach(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// What a program of the system says; nothing when it is not there.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null());
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn adapters(folder: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (entry.path(), fs::canonicalize(entry.path()).unwrap_or_default())).collect()
}

/// Whole or not at all, and only when it says something else than before but the date. A card that is mounted read-only
/// is opened for as long as it takes.
fn write(card: &Path, text: &str) -> io::Result<bool> {
    let path = card.join(NAME);
    let bytes = as_notepad_reads(text);
    let dateless = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().filter(|line| !line.starts_with(letter::WRITTEN)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    if fs::read(&path).is_ok_and(|known| dateless(&known) == dateless(&bytes)) {
        return Ok(false);
    }
    match replace(&path, &bytes) {
        Err(wrong) if wrong.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            remount(card, "remount,rw")?;
            let replaced = replace(&path, &bytes);
            remount(card, "remount,ro").and(replaced)?;
        }
        replaced => replaced?,
    }
    Ok(true)
}

/// FAT has neither owners nor modes, so none is asked for.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remount(card: &Path, option: &str) -> io::Result<()> {
    let done = Command::new("mount").args(["-o", option]).arg(card).stdin(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(io::Error::other(format!("mount -o {option}: {done}"))) }
}

/// UTF-8 with its mark and Windows' ends of lines: any Notepad then shows lines and accents.
fn as_notepad_reads(text: &str) -> Vec<u8> {
    format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_written_only_when_something_but_the_date_has_changed() {
        let card = tempfile::tempdir().expect("a folder");
        let first = format!("CLOCHER\n{} lundi\nVersion : 1\n", letter::WRITTEN);
        assert!(write(card.path(), &first).expect("written"));
        let bytes = fs::read(card.path().join(NAME)).expect("read");
        assert!(bytes.starts_with(b"\xEF\xBB\xBF") && bytes.ends_with(b"\r\nVersion : 1\r\n"));
        assert!(!write(card.path(), &first.replace("lundi", "mardi")).expect("left"));
        assert!(write(card.path(), &first.replace("Version : 1", "Version : 2")).expect("written"));
        assert_eq!(fs::read_dir(card.path()).expect("listed").count(), 1, "no draft is left");
    }

    #[test]
    fn a_card_that_is_away_is_an_error_and_nothing_else() {
        assert!(write(Path::new("/nowhere/at/all"), "x").is_err());
    }

    #[test]
    fn a_box_whose_gateway_does_not_run_is_told_within_the_time() {
        let (card, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let configuration = run.path().join("clocher-config");
        fs::create_dir(&configuration).expect("made");
        let text = "[commune]\nname = \"Montclar\"\n[panel]\nlisten = \"127.0.0.1:1\"\n";
        fs::write(configuration.join("gateway.toml"), text).expect("written");
        let places = Places { card: card.path().into(), state: card.path().join("state"), run: run.path().into() };
        assert!(super::run(&Report { places, wait: 0 }).expect("written"));
        let text = fs::read_to_string(card.path().join(NAME)).expect("read");
        assert!(text.contains("Montclar") && text.contains("ne répond pas"), "{text}");
    }
}
