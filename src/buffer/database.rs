//! sled, held with tongs: opened with repairs, every call guarded against its panics, and what it calls flushed
//! really synced. sled's `flush()` is no fsync on Linux.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::errno::Errno;
use tempfile::TempDir;
use tracing::warn;

/// What sled calls a segment: the grain in which its file grows, and what a damaged header costs.
const PART: u64 = 64 << 10;

/// sled could not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseFault {
    /// It said so.
    #[error("sled: {0}")]
    Sled(String),
    /// It panicked.
    #[error("sled panicked: {0}")]
    Panicked(String),
    /// Its file is damaged where sled would not say so.
    #[error("a part of sled's file does not begin as it should")]
    Header,
    /// The system refused it: no damage, it may go better later.
    #[error("the card or the system refuses")]
    Refused(#[source] io::Error),
    /// The files beneath it.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

impl DatabaseFault {
    /// Something may be in the page cache alone that will never reach the card, and that the system tells only once: what
    /// was written since the last good sync is not to be believed.
    pub(super) fn leaves_doubt(&self) -> bool {
        match self {
            Self::File(..) => true,
            Self::Refused(error) => error.raw_os_error() == Some(Errno::EIO as i32),
            _ => false,
        }
    }

    /// The card takes no writes, and may yet be read.
    fn is_of_writing(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        let of_writing = [Errno::EROFS, Errno::ENOSPC, Errno::EDQUOT, Errno::EACCES, Errno::EPERM, Errno::EIO];
        of_writing.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
    }
}

/// Runs `work`, turning a panic of sled into a fault.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, DatabaseFault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(fault),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(DatabaseFault::Panicked(text.unwrap_or_default()))
        }
    }
}

fn fault(error: sled::Error) -> DatabaseFault {
    match error {
        sled::Error::Io(error) if error.raw_os_error().is_some() || is_lock(&error) => DatabaseFault::Refused(error),
        other => DatabaseFault::Sled(other.to_string()),
    }
}

/// sled has no kind of its own for this.
fn is_lock(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

/// Opens, waiting a little for the threads of a handle just dropped to let go of the file.
fn open_patiently(folder: &Path) -> Result<sled::Db, DatabaseFault> {
    for _ in 0..100 {
        match guarded(|| config(folder).open()) {
            Err(DatabaseFault::Refused(error)) if is_lock(&error) => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    guarded(|| config(folder).open())
}

/// Whether each part of sled's file begins as sled 0.34.7 writes it, or is empty. Opened with a damaged one, sled takes
/// it for free and clears it, with all it held; so this is looked at before.
pub(super) fn is_sound(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join("db")) else { return true };
    let length = file.metadata().map_or(0, |data| data.len());
    (0..length.div_ceil(PART)).all(|part| {
        let mut header = [0; 20];
        // What cannot be read is the business of whoever opens it.
        file.read_exact_at(&mut header, part * PART).is_err() || header == [0; 20] || {
            let (checksum, rest) = header.split_at(4);
            checksum == (crc32fast::hash(rest) ^ u32::MAX).to_le_bytes()
        }
    })
}

/// A database in a folder of its own.
#[derive(Debug, Clone)]
pub(super) struct Database {
    db: sled::Db,
    folder: PathBuf,
    /// sled writes whenever it opens: one on a card that takes no writes is read in a copy elsewhere.
    copy: Option<Arc<TempDir>>,
    /// sled panicked in this handle. A write it left half done keeps every later flush waiting, its own at the end among
    /// them, with a lock of sled's held that all databases of the process share. So it is neither used nor dropped again.
    given_up: Arc<AtomicBool>,
}

impl Database {
    /// Opens or creates; what lies on a card that takes no writes is opened for reading.
    pub(super) fn open(folder: &Path) -> Result<Self, DatabaseFault> {
        match Self::open_to_write(folder) {
            Err(fault) if fault.is_of_writing() && folder.join("db").exists() => {
                Self::open_to_read(folder).map_err(|_| fault)
            }
            other => other,
        }
    }

    /// A copy where there is room for one.
    pub(super) fn open_to_read(folder: &Path) -> Result<Self, DatabaseFault> {
        let place = tempfile::tempdir().or_else(|_| tempfile::tempdir_in("/dev/shm"));
        let place = place.map_err(DatabaseFault::Refused)?;
        let copied = copy_folder(folder, place.path());
        copied.map_err(|error| DatabaseFault::File(folder.to_owned(), error))?;
        let db = open_patiently(place.path())?;
        Ok(Self { db, folder: folder.to_owned(), copy: Some(Arc::new(place)), given_up: Arc::default() })
    }

    /// Opens or creates. Half-made snapshots go first; if sled then finds corruption, all snapshots go and it tries
    /// once more: they are only a shortcut to the log.
    pub(super) fn open_to_write(folder: &Path) -> Result<Self, DatabaseFault> {
        if !is_sound(folder) {
            return Err(DatabaseFault::Header);
        }
        remove_snapshots(folder, |name| name.ends_with(".generating"))?;
        let db = open_patiently(folder).or_else(|first| {
            if matches!(first, DatabaseFault::Refused(_)) {
                return Err(first);
            }
            warn!(folder = %folder.display(), why = %first, "Database did not open; trying again without its snapshots");
            remove_snapshots(folder, |_| true)?;
            open_patiently(folder)
        })?;
        let opened = Self { db, folder: folder.to_owned(), copy: None, given_up: Arc::default() };
        sync_folder(folder)?;
        folder.parent().map_or(Ok(()), sync_folder)?;
        Ok(opened)
    }

    /// Writes what `batch` holds, all or nothing, and returns once it is on the card.
    pub(super) fn write(&self, batch: sled::Batch) -> Result<(), DatabaseFault> {
        if self.copy.is_some() {
            return Err(DatabaseFault::Refused(Errno::EROFS.into()));
        }
        self.attempt(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()
        })?;
        self.sync()
    }

    /// The log, and the files sled puts large nodes into, which it never syncs.
    fn sync(&self) -> Result<(), DatabaseFault> {
        let blobs = self.folder.join("blobs");
        let files = fs::read_dir(&blobs).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
        let folder = (!files.is_empty()).then_some(blobs);
        for path in files.into_iter().chain(folder).chain([self.folder.join("db")]) {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // Collected meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|error| DatabaseFault::File(path, error))?,
            }
        }
        Ok(())
    }

    /// Whether this handle is of no more use. What its folder holds must be copied elsewhere: it stays locked.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn attempt<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T, DatabaseFault> {
        if self.is_given_up() {
            return Err(DatabaseFault::Panicked("earlier, in the same handle".to_owned()));
        }
        let done = guarded(work);
        if matches!(done, Err(DatabaseFault::Panicked(_))) && !self.given_up.swap(true, Ordering::AcqRel) {
            std::mem::forget(self.db.clone());
        }
        done
    }

    /// One value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, DatabaseFault> {
        self.attempt(|| self.db.get(key))
    }

    /// Every pair whose key begins with `prefix`. Keep the ranges short: sled holds on to what it has read.
    pub(super) fn list(&self, prefix: &[u8]) -> Result<Vec<(sled::IVec, sled::IVec)>, DatabaseFault> {
        self.attempt(|| self.db.scan_prefix(prefix).collect())
    }

    /// Bytes on the card.
    pub(super) fn size(&self) -> u64 {
        folder_size(&self.folder)
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let place = to.join(name);
        if entry.is_dir() {
            fs::create_dir(&place)?;
            copy_folder(&entry, &place)?;
        } else {
            fs::copy(&entry, &place)?;
        }
    }
    Ok(())
}

fn config(folder: &Path) -> sled::Config {
    sled::Config::new()
        .path(folder)
        .segment_size(PART as usize)
        .cache_capacity(2 << 20)
        .flush_every_ms(Some(1000))
        .print_profile_on_drop(false)
}

fn remove_snapshots(folder: &Path, which: impl Fn(&str) -> bool) -> Result<(), DatabaseFault> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && which(&name) {
            fs::remove_file(entry.path()).map_err(|error| match error.raw_os_error() {
                Some(_) => DatabaseFault::Refused(error),
                None => DatabaseFault::File(entry.path(), error),
            })?;
        }
    }
    Ok(())
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), DatabaseFault> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|e| DatabaseFault::File(folder.to_owned(), e))
}

/// What a folder takes on the card, as `du` counts it.
pub(super) fn folder_size(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_size(&entry.path()) + data.blocks() * 512,
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_beginning_of_a_part_is_seen_before_sled_clears_it() {
        let folder = tempfile::tempdir().expect("folder");
        let database = Database::open(folder.path()).expect("opens");
        for n in 0..200u32 {
            let mut batch = sled::Batch::default();
            batch.insert(&n.to_be_bytes(), vec![n as u8; 4000]);
            database.write(batch).expect("writes");
        }
        drop(database);
        let path = folder.path().join("db");
        let mut bytes = fs::read(&path).expect("reads");
        assert!(is_sound(folder.path()) && bytes.len() as u64 > 4 * PART);
        bytes[2 * PART as usize + 7] ^= 1;
        fs::write(&path, bytes).expect("writes");
        assert!(matches!(Database::open(folder.path()), Err(DatabaseFault::Header)));
    }

    #[test]
    fn a_snapshot_left_half_made_by_a_crash_does_not_keep_the_database_shut() {
        let folder = tempfile::tempdir().expect("folder");
        let database = Database::open(folder.path()).expect("opens");
        let mut batch = sled::Batch::default();
        batch.insert(b"k", b"v");
        database.write(batch).expect("writes");
        drop(database);
        fs::write(folder.path().join("snap.00000000000000FF.generating"), b"").expect("writes");
        fs::write(folder.path().join("snap.00000000000000FE"), b"").expect("writes");
        let database = Database::open(folder.path()).expect("opens again");
        assert_eq!(database.get(b"k").expect("reads").as_deref(), Some(b"v".as_slice()));
    }
}
