//! How the gateway ended, left in the store's folder for the next start to read: by the gateway itself when it stops in
//! order, otherwise by systemd's ExecStopPost. After a power cut there is nothing.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::Kernel;

/// The file, in the store's folder.
const FILE: &str = "last-end";
/// Longer is none of ours.
const LONGEST: u64 = 4096;

/// How the gateway ended, in systemd's words; source: systemd.exec(5), `$SERVICE_RESULT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The run of the machine it ended in.
    pub run: String,
    /// `success`, `watchdog`, `signal`, `exit-code`, `core-dump`, `timeout`, `oom-kill`…
    pub result: String,
    /// `exited`, `killed`, `dumped`.
    #[serde(default)]
    pub code: String,
    /// The exit status, or the signal's name.
    #[serde(default)]
    pub status: String,
}

impl Ended {
    /// In order.
    pub fn well(kernel: &Kernel) -> Self {
        Self { run: kernel.run(), result: "success".into(), code: String::new(), status: String::new() }
    }

    /// As systemd tells ExecStopPost of it in the variables that `variable` reads; `None` when it tells nothing.
    pub fn told(kernel: &Kernel, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let result = variable("SERVICE_RESULT")?;
        let word = |name| variable(name).unwrap_or_default();
        Some(Self { run: kernel.run(), result, code: word("EXIT_CODE"), status: word("EXIT_STATUS") })
    }

    /// Leaves it for the next start, on the card when this returns. What was said before of this end stays: the gateway
    /// knows better than systemd that it stopped in order.
    ///
    /// # Errors
    /// When the card refuses.
    pub fn leave(&self, directory: &Path) -> io::Result<()> {
        if left(directory).is_some_and(|before| before.run == self.run) {
            return Ok(());
        }
        let new = directory.join(format!("{FILE}.new"));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(new, directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }
}

/// What was left, if anything.
pub(super) fn left(directory: &Path) -> Option<Ended> {
    let path = directory.join(FILE);
    let fits = fs::metadata(&path).ok().is_some_and(|data| data.len() <= LONGEST);
    fits.then(|| fs::read(path).ok()).flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// It has been read. Removed for good, so that it does not come back after a power cut.
pub(super) fn forget(directory: &Path) {
    if fs::remove_file(directory.join(FILE)).is_ok() {
        let _ = File::open(directory).and_then(|folder| folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_said_of_its_end_stands_against_systemd_s_word() {
        let place = tempfile::tempdir().expect("a folder");
        let kernel = Kernel::default();
        let killed = |name: &str| match name {
            "SERVICE_RESULT" => Some("signal".to_owned()),
            "EXIT_CODE" => Some("killed".to_owned()),
            "EXIT_STATUS" => Some("SEGV".to_owned()),
            _ => None,
        };
        let crash = Ended::told(&kernel, killed).expect("told");
        crash.leave(place.path()).expect("left");
        assert_eq!(left(place.path()), Some(crash.clone()));
        forget(place.path());
        assert_eq!(left(place.path()), None);
        Ended::well(&kernel).leave(place.path()).expect("left");
        crash.leave(place.path()).expect("left");
        assert_eq!(left(place.path()), Some(Ended::well(&kernel)));
        assert_eq!(Ended::told(&kernel, |_| None), None, "run by hand");
    }

    #[test]
    fn a_file_that_is_not_ours_says_nothing() {
        let place = tempfile::tempdir().expect("a folder");
        for text in [String::new(), "{".to_owned(), "x".repeat(5_000)] {
            fs::write(place.path().join(FILE), text).expect("written");
            assert_eq!(left(place.path()), None);
        }
    }
}
