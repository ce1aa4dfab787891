//! A memory card for tests: a small file system in memory, mounted through FUSE, for the real gateway to keep its
//! store on.
//!
//! It records every operation that changes it, in order, together with marks a test sets ([`Card::record`],
//! [`Card::mark`]); it fails at will ([`Trouble`], [`Card::slow_down`], [`Card::leave_free`]) and recovers; it counts
//! ([`Card::counts`]). From a recording, [`cut`] makes the states a power cut can leave behind.
//!
//! ```no_run
//! use clocher_card::{Card, Trouble};
//!
//! let place = tempfile::tempdir().expect("a place");
//! let card = Card::insert(place.path(), 64 << 20).expect("FUSE works here");
//! std::fs::write(card.path().join("readings"), b"12").expect("written");
//! card.begin(Trouble::Full);
//! assert!(std::fs::write(card.path().join("more"), b"13").is_err());
//! card.recover();
//! ```
//!
//! Mounting takes root, or `fusermount3` of the package `fuse3`. Files are opened without the kernel's page cache: every
//! read and write arrives here as the program made it, so reads can fail too. Files cannot be mapped into memory shared,
//! and have no links beside their name.

pub mod cut;
mod driver;
pub mod recording;
mod tree;

use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use tree::Counts;
use tree::Tree;

/// The number of a file or folder, never used again for another.
pub type Node = u64;

/// The folder the card is mounted on.
pub const ROOT: Node = 1;

/// Bytes of a block: space is given out in blocks.
pub const BLOCK: u64 = 4096;

/// Something that changed the card, or a mark between two changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// An empty file appeared.
    Create {
        /// In this folder.
        folder: Node,
        /// Under this name.
        name: OsString,
        /// Its number from now on.
        node: Node,
    },
    /// An empty folder appeared.
    MakeFolder {
        /// In this folder.
        folder: Node,
        /// Under this name.
        name: OsString,
        /// Its number from now on.
        node: Node,
    },
    /// Bytes were written.
    Write {
        /// To this file.
        node: Node,
        /// From this byte on.
        offset: u64,
        /// These.
        bytes: Arc<[u8]>,
    },
    /// A file was cut, or lengthened with zeros.
    Resize {
        /// This file.
        node: Node,
        /// To so many bytes.
        length: u64,
    },
    /// What was written to a file was said to be safe.
    Sync {
        /// This file.
        node: Node,
    },
    /// The names in a folder were said to be safe.
    SyncFolder {
        /// This folder.
        node: Node,
    },
    /// A file or folder got another name, replacing what had it.
    Rename {
        /// From this folder.
        folder: Node,
        /// And this name.
        name: OsString,
        /// To this folder.
        to_folder: Node,
        /// And this name.
        to_name: OsString,
    },
    /// A file lost its name.
    Unlink {
        /// In this folder.
        folder: Node,
        /// This name.
        name: OsString,
    },
    /// An empty folder went.
    RemoveFolder {
        /// In this folder.
        folder: Node,
        /// This name.
        name: OsString,
    },
    /// A test said something between two operations.
    Mark(String),
}

/// What can be wrong with a card. Several can be wrong at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No block is free, whatever its size: what needs one answers `ENOSPC`. Written blocks can be written again.
    Full,
    /// Every change answers `EROFS`, as after the kernel gave up writing.
    ReadOnly,
    /// Writes, and changes of names and lengths, answer `EIO`.
    WritesFail,
    /// Syncs of files and folders answer `EIO`; writes go through.
    SyncsFail,
    /// Reads of files answer `EIO`.
    ReadsFail,
    /// Changes and syncs are answered once this ends. A killed process does not end before that either.
    Hangs,
    /// Everything answers `EIO`: the card was pulled out.
    Gone,
}

/// The card could not be mounted; the test that wanted it cannot pass.
#[derive(Debug)]
pub struct NotMounted {
    at: PathBuf,
    source: io::Error,
}

impl std::fmt::Display for NotMounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "no FUSE file system can be mounted at {}: {}. It takes /dev/fuse (modprobe fuse), and root or the package fuse3",
            self.at.display(),
            self.source
        )
    }
}

impl std::error::Error for NotMounted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What the driver and the test share.
#[derive(Debug)]
struct Shared {
    tree: Mutex<Tree>,
    recovered: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mounted card; taken out when dropped. Drop what uses it first.
#[derive(Debug)]
pub struct Card {
    path: PathBuf,
    shared: Arc<Shared>,
    session: Option<fuser::BackgroundSession>,
}

impl Card {
    /// Mounts an empty card of `size` bytes on the folder `at`, which should be empty.
    ///
    /// # Errors
    /// When FUSE is not to be had.
    pub fn insert(at: &Path, size: u64) -> Result<Self, NotMounted> {
        let shared = Arc::new(Shared { tree: Mutex::new(Tree::new(size)), recovered: Condvar::new() });
        let mut config = fuser::Config::default();
        config.mount_options = vec![
            fuser::MountOption::FSName("clocher-card".to_owned()),
            fuser::MountOption::RW,
            fuser::MountOption::NoAtime,
        ];
        let driver = driver::Driver(Arc::clone(&shared));
        let session =
            fuser::spawn_mount(driver, at, &config).map_err(|source| NotMounted { at: at.to_owned(), source })?;
        Ok(Self { path: at.to_owned(), shared, session: Some(session) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records from now on; what was recorded before is forgotten. Record from the empty card on to make [`cut`]s.
    pub fn record(&self) {
        self.shared.lock().log = Some(Vec::new());
    }

    /// Sets a mark between what happened before and what will.
    pub fn mark(&self, text: impl Into<String>) {
        self.shared.lock().note(|| Operation::Mark(text.into()));
    }

    /// What was recorded so far; goes on recording.
    pub fn recorded(&self) -> Vec<Operation> {
        self.shared.lock().log.clone().unwrap_or_default()
    }

    /// What was recorded; records no more.
    pub fn stop_recording(&self) -> Vec<Operation> {
        self.shared.lock().log.take().unwrap_or_default()
    }

    /// Something goes wrong.
    pub fn begin(&self, trouble: Trouble) {
        self.shared.lock().troubles.insert(trouble);
    }

    /// It goes well again.
    pub fn end(&self, trouble: Trouble) {
        self.shared.lock().troubles.remove(&trouble);
        self.shared.recovered.notify_all();
    }

    /// All goes well again, and fast. The size stays.
    pub fn recover(&self) {
        let mut tree = self.shared.lock();
        tree.troubles = HashSet::new();
        tree.delay = Duration::ZERO;
        drop(tree);
        self.shared.recovered.notify_all();
    }

    /// Every change and sync takes so long from now on.
    pub fn slow_down(&self, each: Duration) {
        self.shared.lock().delay = each;
    }

    /// Another size, in bytes; smaller than what is used makes it full.
    pub fn resize(&self, size: u64) {
        self.shared.lock().size = size;
    }

    /// Makes the card so large that `bytes` more can be written, then it is full.
    pub fn leave_free(&self, bytes: u64) {
        let mut tree = self.shared.lock();
        tree.size = tree.used() + bytes;
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// Bytes in use, in whole blocks, as `statfs` tells them.
    pub fn used(&self) -> u64 {
        self.shared.lock().used()
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.recover();
        // Out at once, whoever still holds a file open; the connection ends with the last of them.
        let _ = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
        drop(self.session.take());
    }
}
