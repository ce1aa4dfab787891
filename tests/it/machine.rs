//! What the real binary knows of its own ends and starts, and the relays it leaves open.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    process::{Running, clocher, run_to_end},
    run::Hall,
};

/// A gateway whose folder for passing files is in the hall.
fn gateway(hall: &Hall, config: &PathBuf) -> Running {
    fs::create_dir_all(hall.file("run")).expect("made");
    let mut command = clocher();
    command.arg("run").arg("--config").arg(config).env("RUNTIME_DIRECTORY", hall.file("run"));
    Running::start(command)
}

/// What `clocher release --ended` is told by systemd.
fn told_by_systemd(config: &PathBuf, [result, code, status]: [&str; 3]) {
    let mut command = clocher();
    command.args(["release", "--ended", "--config"]).arg(config);
    command.env("SERVICE_RESULT", result).env("EXIT_CODE", code).env("EXIT_STATUS", status);
    assert!(command.status().expect("the binary starts").success());
}

/// The line for the report, once it says `text`.
fn last_start(hall: &Hall, text: &str) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let line = fs::read_to_string(hall.file("run/last-start")).unwrap_or_default();
        if line.contains(text) {
            return line;
        }
        assert!(Instant::now() < until, "no {text:?} in {line:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn why_it_started_is_told_after_each_way_to_end() {
    let hall = Hall::new();
    let config = hall.counting();
    let first = gateway(&hall, &config);
    first.line("reason=\"first\"");
    assert!(last_start(&hall, "premier démarrage").starts_with("Dernier démarrage"));
    assert!(first.stop(Signal::SIGTERM).1);
    told_by_systemd(&config, ["success", "exited", "0"]);

    let restarted = gateway(&hall, &config);
    restarted.line("reason=\"restarted\"");
    last_start(&hall, "programme arrêté puis relancé");
    restarted.kill();
    told_by_systemd(&config, ["watchdog", "killed", "ABRT"]);

    let after_watchdog = gateway(&hall, &config);
    after_watchdog.line("reason=\"watchdog\"");
    last_start(&hall, "ne répondait plus");
    after_watchdog.kill();

    let after_kill = gateway(&hall, &config);
    let line = after_kill.line("reason=\"crash\"");
    assert!(line.contains("it ended without a word"), "{line}");
}

#[test]
fn every_relay_is_open_after_release_though_the_gateway_is_dead() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().display();
    let text = format!(
        "[commune]\nname = \"M\"\n[store]\ndirectory = \"{path}/store\"\n\
         [gpio]\nbackend = \"simulated\"\ncontrol = \"{path}/pins\"\n\
         [announce]\noutput = \"wav\"\nwav_directory = \"{path}\"\namplifier_pin = 17\nrelay_active = \"low\"\n\
         [[announce.zone]]\nname = \"bourg\"\npin = 24\n[[announce.zone]]\nname = \"salle\"\npin = 25\n"
    );
    let config = place.path().join("gateway.toml");
    fs::write(&config, text).expect("written");
    let asked = Instant::now();
    let released = run_to_end(&["release", "--config", &config.display().to_string()]);
    assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stderr));
    assert!(asked.elapsed() < Duration::from_secs(10));
    let record = fs::read_to_string(place.path().join("pins.outputs")).expect("a record");
    for pin in ["17", "24", "25"] {
        let levels: Vec<_> = record.lines().filter(|line| line.split(' ').nth(1) == Some(pin)).collect();
        assert!(!levels.is_empty() && levels.iter().all(|line| line.ends_with(" 1")), "{pin}: {record}");
    }
}

#[test]
fn a_configuration_without_relays_or_without_sense_is_released_at_once() {
    let place = tempfile::tempdir().expect("a place");
    let config = place.path().join("gateway.toml");
    for text in ["[commune]\nname = \"M\"\n", "= nonsense", ""] {
        fs::write(&config, text).expect("written");
        let released = run_to_end(&["release", "--config", &config.display().to_string()]);
        assert!(released.status.success(), "{text:?}: {}", String::from_utf8_lossy(&released.stderr));
    }
}
