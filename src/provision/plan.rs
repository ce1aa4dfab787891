//! What the box shall run, from what is on the card and what was sound before. Touches nothing but to see whether a file
//! beside the configuration is there.

use std::path::{Path, PathBuf};

use crate::{
    app,
    config::{
        Source, Words,
        network::NetworkSettings,
        outcome::{Outcome, Told, Used},
        secret, ssh,
    },
};

/// The file, as the image ships it.
pub const NAME: &str = "clocher.toml";

/// What the image ships, and what runs when there is nothing else.
pub const DEFAULT: &str = include_str!("../../image/boot/clocher.toml");

/// What was found on the card.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Card {
    /// The file's name there.
    pub(super) name: Option<String>,
    /// Its text, or why it cannot be read.
    pub(super) text: Option<Result<String, Words>>,
    /// Files that could have been it.
    pub(super) others: Vec<String>,
}

/// What shall be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What the gateway runs: the text that was chosen, without the network's secrets.
    pub(super) configuration: String,
    /// The text that was chosen.
    pub(super) source: String,
    /// Whether it is to be kept as the last sound one.
    pub(super) keep: bool,
    /// The files beside it that it names.
    pub(super) files: Vec<PathBuf>,
    /// The links.
    pub(super) network: NetworkSettings,
    /// Who may open a session.
    pub(super) ssh: Vec<ssh::Key>,
    /// What is told.
    pub(super) outcome: Outcome,
}

/// The names that could be the file's, the right one first: Windows hides endings, and `clocher.toml.txt` is then shown as
/// `clocher.toml`.
pub(super) fn candidates(names: &[String]) -> Vec<String> {
    let rank = |name: &String| {
        let name = name.to_lowercase();
        [NAME, "clocher.toml.txt", "clocher.txt"].iter().position(|known| *known == name)
    };
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((rank(name)?, name.clone()))).collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// A text with the settings it gives and its faults.
struct Judged {
    text: String,
    network: NetworkSettings,
    ssh: Vec<ssh::Key>,
    files: Vec<PathBuf>,
    faults: Vec<Told>,
}

/// `folder` is where the files beside it are.
fn judge(name: &str, text: &str, folder: &Path) -> Judged {
    let source = Source::within(folder, name, text);
    let settings = app::read_settings(&source);
    source.tell_missing();
    let mut files: Vec<_> = source.named().into_iter().map(|named| named.path).collect();
    files.retain(|file| folder.join(file).is_file());
    files.sort();
    files.dedup();
    let faults = Told::of(&source);
    Judged { text: text.to_owned(), network: settings.network, ssh: settings.ssh, files, faults }
}

/// Sound: it runs and is kept. Faulty: the last sound one runs, or what of it is sound. Away: the last sound one, or the
/// one every box is born with. What was kept may have been damaged since: then it comes after what is sound of the card's.
pub(super) fn decide(card: &Card, last_good: Option<&str>, folder: &Path, state: &Path) -> Plan {
    let name = card.name.as_deref().unwrap_or(NAME);
    let (judged, unreadable) = match &card.text {
        Some(Ok(text)) => (Some(judge(name, text, folder)), None),
        Some(Err(wrong)) => (None, Some(whole(wrong))),
        None => (None, None),
    };
    let mut outcome = Outcome { used: Used::Card, found: card.name.clone(), faults: Vec::new(), notes: notes(card) };
    outcome.faults = unreadable.into_iter().chain(judged.iter().flat_map(|it| it.faults.clone())).collect();
    let earlier = || last_good.map(|text| judge("last-good.toml", text, state));
    let (used, chosen) = match (judged, earlier()) {
        (Some(card), _) if card.faults.is_empty() => (Used::Card, card),
        (_, Some(earlier)) if earlier.faults.is_empty() => (Used::LastGood, earlier),
        (Some(card), _) => (Used::SoundParts, card),
        (None, Some(earlier)) => (Used::LastGood, earlier),
        (None, None) => (Used::Default, judge(NAME, DEFAULT, folder)),
    };
    outcome.used = used;
    Plan {
        configuration: secret::masked(&chosen.text, secret::Where::Network).into_owned(),
        keep: used == Used::Card && last_good != Some(chosen.text.as_str()),
        source: chosen.text,
        files: chosen.files,
        network: chosen.network,
        ssh: chosen.ssh,
        outcome,
    }
}

/// A fault of the file as a whole.
fn whole(wrong: &Words) -> Told {
    Told { line: 1, english: wrong.english.clone(), french: wrong.french.clone(), shown: String::new() }
}

fn notes(card: &Card) -> Vec<String> {
    let read = card.name.as_deref().unwrap_or_default();
    let note = |other: &String| {
        format!(
            "Deux fichiers se ressemblent : {read} a été lu, {other} ne l'a pas été. Supprimez celui qui ne sert pas."
        )
    };
    card.others.iter().map(note).collect()
}
