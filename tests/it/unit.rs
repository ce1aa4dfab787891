//! The systemd unit, looked at by systemd's own tools (Debian package `systemd`); nothing is started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("image/units")
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|wrong| panic!("{command:?}: {wrong}"))
}

#[test]
fn the_unit_is_exposed_to_no_more_than_two_of_ten() {
    let looked = output(
        Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", "--threshold=20"])
            .arg(units().join("clocher.service")),
    );
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stdout));
}

/// Keys a later systemd knows and an earlier one leaves out.
const LATER: [&str; 2] = ["RestartSteps", "RestartMaxDelaySec"];

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let place = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(units().join("clocher.service")).expect("the unit");
    let unit = place.path().join("clocher.service");
    fs::write(&unit, text.replace("/usr/bin/clocher", env!("CARGO_BIN_EXE_clocher"))).expect("written");
    let looked = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    let said = String::from_utf8_lossy(&looked.stderr).into_owned();
    let of_ours = said.lines().filter(|line| line.contains("clocher") && !LATER.iter().any(|key| line.contains(key)));
    assert_eq!(of_ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
}

#[test]
fn the_user_is_in_the_groups_of_what_it_uses_and_in_no_other() {
    let place = tempfile::tempdir().expect("a folder");
    fs::create_dir(place.path().join("etc")).expect("made");
    let made = output(
        Command::new("systemd-sysusers")
            .arg(format!("--root={}", place.path().display()))
            .arg(units().join("clocher-sysusers.conf")),
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let groups = fs::read_to_string(place.path().join("etc/group")).expect("groups");
    let mut of_clocher: Vec<&str> = groups
        .lines()
        .filter(|line| line.rsplit(':').next().is_some_and(|members| members.split(',').any(|name| name == "clocher")))
        .filter_map(|line| line.split(':').next())
        .collect();
    of_clocher.sort_unstable();
    assert_eq!(of_clocher, ["audio", "dialout", "gpio"]);
    let users = fs::read_to_string(place.path().join("etc/passwd")).expect("users");
    let user = users.lines().find(|line| line.starts_with("clocher:")).expect("the user");
    assert!(user.contains(":/var/lib/clocher:") && user.ends_with("nologin"), "{user}");
}
