//! `clocher provision`: from the one file on the card to what the box runs. Called once at each start, before the network
//! and the gateway, as root. `clocher report` then writes RESULTAT.txt beside it.
//!
//! A wrong file never stops the start: the last sound one runs in its place, and everybody is told. What is decided is in
//! `plan`, which touches nothing; what is written is here.

mod keyfile;
mod plan;
pub mod report;
mod write;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use self::plan::{Card, Plan};
pub use self::plan::{DEFAULT, NAME};
use crate::config::{
    outcome::{self, Used},
    text,
};

/// Below `--run`: what the gateway runs, readable by its group.
const CONFIGURATION: &str = "clocher-config";
/// Below `--run`: where NetworkManager looks for connections that last until the next start.
const CONNECTIONS: &str = "NetworkManager/system-connections";
/// Connections of ours, so that those of others stay.
const OURS: &str = "clocher-";
/// Below `--run`: what the SSH server reads; without it, it does not start.
const SSH: &str = "clocher-ssh";
/// In `--state`.
const LAST_GOOD: &str = "last-good.toml";

/// Where things are on the box.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The FAT partition, where `clocher.toml` lies.
    #[arg(long, value_name = "FOLDER", default_value = "/boot/firmware")]
    pub card: PathBuf,
    /// Where the last sound file is kept.
    #[arg(long, value_name = "FOLDER", default_value = "/data/provision")]
    pub state: PathBuf,
    /// What lasts until the next start.
    #[arg(long, value_name = "FOLDER", default_value = "/run")]
    pub run: PathBuf,
}

impl Places {
    /// What the gateway runs.
    pub fn configuration(&self) -> PathBuf {
        self.run.join(CONFIGURATION).join("gateway.toml")
    }

    fn outcome(&self) -> PathBuf {
        self.run.join(CONFIGURATION).join(outcome::FILE)
    }
}

/// Does it all; gives what could not be done, in words for the log. The first that fails does not keep the others.
pub fn run(places: &Places) -> Vec<String> {
    let mut plan = plan::decide(&card(&places.card), last_good(&places.state).as_deref(), &places.card, &places.state);
    let mut wrongs = Vec::new();
    if plan.keep {
        keep(places, &mut plan, &mut wrongs);
    }
    let from = if plan.outcome.used == Used::LastGood { &places.state } else { &places.card };
    let configuration = places.run.join(CONFIGURATION);
    let mut tried = |what: &str, done: io::Result<bool>| {
        wrongs.extend(done.err().map(|wrong| format!("{what}: {wrong}")));
    };
    for file in &plan.files {
        let copied = fs::read(from.join(file)).and_then(|bytes| write::shared(&configuration.join(file), &bytes));
        tried(&file.display().to_string(), copied);
    }
    tried("the configuration", write::shared(&places.configuration(), plan.configuration.as_bytes()));
    let told = serde_json::to_vec_pretty(&plan.outcome).map_err(io::Error::from);
    tried("the outcome", told.and_then(|told| write::shared(&places.outcome(), &told)));
    tried("the connections", connections(&places.run.join(CONNECTIONS), &plan));
    tried("the SSH keys", keys(&places.run.join(SSH), &plan));
    tried("the Wi-Fi's country", country(&configuration.join("wifi-country"), &plan));
    wrongs
}

/// The file on the card, whatever its name was made by an editor that hides endings or shouts.
fn card(folder: &Path) -> Card {
    let names = fs::read_dir(folder)
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>());
    let found = plan::candidates(&names.unwrap_or_default());
    let Some((first, others)) = found.split_first() else { return Card::default() };
    Card { text: Some(text::read(&folder.join(first))), name: Some(first.clone()), others: others.to_vec() }
}

fn last_good(state: &Path) -> Option<String> {
    text::read(&state.join(LAST_GOOD)).ok()
}

/// The sound file, with those it names, for the day the card's is not. A card that refuses is told and gone on without.
fn keep(places: &Places, plan: &mut Plan, wrongs: &mut Vec<String>) {
    let files = plan.files.iter().map(|file| (places.card.join(file), places.state.join(file)));
    let kept = files.map(|(from, to)| fs::read(from).and_then(|bytes| write::private(&to, &bytes)));
    // The file that names them comes last, so that it never names what is not there.
    let kept = kept.collect::<io::Result<Vec<_>>>();
    let kept = kept.and_then(|_| write::private(&places.state.join(LAST_GOOD), plan.source.as_bytes()));
    if let Err(wrong) = kept {
        wrongs.push(format!("the last sound file: {wrong}"));
        plan.outcome.notes.push(format!("Ce fichier n'a pas pu être gardé pour plus tard ({wrong})."));
    }
}

/// The connections of this file, and none of ours that another one had.
fn connections(folder: &Path, plan: &Plan) -> io::Result<bool> {
    let wanted = keyfile::all(&plan.network);
    let mut changed = false;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(OURS) && !wanted.iter().any(|(wanted, _)| *wanted == name) {
            fs::remove_file(entry.path())?;
            changed = true;
        }
    }
    for (name, text) in &wanted {
        changed |= write::private(&folder.join(name), text.as_bytes())?;
    }
    Ok(changed)
}

fn keys(folder: &Path, plan: &Plan) -> io::Result<bool> {
    let path = folder.join("authorized_keys");
    if plan.ssh.is_empty() {
        return gone(&path);
    }
    let lines: String = plan.ssh.iter().map(|key| format!("{}\n", key.line())).collect();
    write::private(&path, lines.as_bytes())
}

/// Whose rules the radio keeps, for the unit that tells the kernel.
fn country(path: &Path, plan: &Plan) -> io::Result<bool> {
    match &plan.network.wifi {
        Some(wifi) => write::shared(path, wifi.country.as_bytes()),
        None => gone(path),
    }
}

fn gone(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true),
    }
}

#[cfg(test)]
mod tests;
