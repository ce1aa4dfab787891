//! One line in French about the last start, in the folder systemd makes for the service: `clocher report` reads it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing::warn;

use crate::{
    panel,
    supervisor::{Stage, Supervisor},
};

/// How often it is looked whether there is news: the time may become known later.
const LOOK: Duration = Duration::from_secs(5);
/// The file.
const FILE: &str = "last-start";

/// Keeps the file up to date, where there is a folder for it.
pub(super) fn keep(supervisor: &Supervisor, folder: Option<PathBuf>, ground: &Arc<panel::Ground>) {
    let Some(folder) = folder else { return };
    let ground = Arc::clone(ground);
    supervisor.unit(Stage::Inputs, "last-start", move |stop| {
        let (ground, folder) = (Arc::clone(&ground), folder.clone());
        async move {
            let mut written = None;
            loop {
                let line = panel::last_start(&ground);
                if let Some(line) = line.filter(|line| written.as_ref() != Some(line)) {
                    if let Err(wrong) = write(&folder, &line) {
                        warn!(%wrong, "The line about the last start was not written");
                    }
                    written = Some(line);
                }
                if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                    return Ok(());
                }
            }
        }
    });
}

/// At once, so that no half of it is read.
fn write(folder: &Path, line: &str) -> io::Result<()> {
    let new = folder.join(format!("{FILE}.new"));
    fs::write(&new, format!("{line}\n"))?;
    fs::rename(new, folder.join(FILE))
}
