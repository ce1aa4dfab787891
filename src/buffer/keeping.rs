//! Small records that must survive a restart: [`crate::store::Keep`] on a sled database of its own, and the store's
//! own records (gaps, samples, what each segment covers).
//!
//! Every record carries its name, a version and a checksum, so that it can be picked out of a database that no longer
//! opens. A removed record is kept as removed, so that salvage does not bring it back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    bytes::Cursor,
    database::{Database, DatabaseFault, guarded, sync_folder},
};
use crate::store::{Keep, StoreError};

/// The largest record.
const MOST_VALUE: usize = 64 << 10;
const MOST_NAME: usize = 1024;
const MAGIC: [u8; 4] = *b"CKR1";
/// Magic, checksum, version, kind, length of key, length of value.
const HEADER: usize = 4 + 4 + 8 + 1 + 2 + 4;
const PRESENT: u8 = 1;
const REMOVED: u8 = 2;
/// Above this size on the card, with little in it, the database is written anew at start: sled gives nothing back.
const BLOATED: u64 = 8 << 20;

/// Keys and values, in order of key.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Tables of the store itself begin with this, which no part's table may.
const OWN: char = '\u{1}';

struct Envelope<'a> {
    version: u64,
    key: &'a [u8],
    value: Option<&'a [u8]>,
    length: usize,
}

fn seal(version: u64, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let body = value.unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER + key.len() + body.len());
    out.extend(MAGIC);
    out.extend([0; 4]);
    out.extend(version.to_le_bytes());
    out.push(if value.is_some() { PRESENT } else { REMOVED });
    out.extend((key.len() as u16).to_le_bytes());
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(key);
    out.extend(body);
    let checksum = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn unseal(bytes: &[u8]) -> Option<Envelope<'_>> {
    let mut cursor = Cursor(bytes);
    let (magic, checksum, version, kind) = (cursor.array::<4>()?, cursor.u32()?, cursor.u64()?, cursor.byte()?);
    let (key, value) = (u16::from_le_bytes(cursor.array()?) as usize, cursor.u32()? as usize);
    if magic != MAGIC || key > 2 * MOST_NAME + 2 || value > MOST_VALUE {
        return None;
    }
    let length = HEADER + key + value;
    let (key, value) = (cursor.take(key)?, cursor.take(value)?);
    let sound = crc32fast::hash(&bytes[8..length]) == checksum && matches!(kind, PRESENT | REMOVED);
    sound.then_some(Envelope { version, key, value: (kind == PRESENT).then_some(value), length })
}

/// How the records were found.
#[derive(Debug, Default)]
pub(super) struct KeepState {
    /// Damage, in words.
    pub damage: Option<String>,
}

/// The records on the card.
#[derive(Debug)]
pub(super) struct CardKeep {
    folder: PathBuf,
    /// `None` after a failed write, until it opens again: sled does not recover from one by itself.
    database: Mutex<Option<Database>>,
    version: AtomicU64,
}

impl CardKeep {
    /// Opens the records, salvaging what can be when they are damaged. `aside` moves a folder out of the way.
    pub(super) fn open(
        folder: &Path,
        existed: bool,
        aside: impl Fn(&Path) -> Result<PathBuf, StoreError>,
    ) -> Result<(Self, KeepState), StoreError> {
        finish_replacing(folder)?;
        let there = folder.exists();
        let found = Database::open(folder).and_then(|database| Ok((read_all(&database)?, database)));
        let mut state = KeepState::default();
        let (records, damaged, database) = match found {
            Ok((read, database)) => (read.records, read.damaged, Some(database)),
            Err(fault @ DatabaseFault::Refused(_)) => return Err(StoreError::new("open the records", fault)),
            Err(fault) => {
                state.damage = Some(format!("the records did not open: {fault}"));
                (BTreeMap::new(), 0, None)
            }
        };
        let version = records.values().map(|(version, _)| *version).max().unwrap_or(0);
        let made = own_key("store", b"made");
        if existed && there && !records.contains_key(&made) && state.damage.is_none() {
            state.damage = Some("the records were emptied".to_owned());
        } else if existed && !there {
            state.damage = Some("the folder of the records is gone".to_owned());
        } else if damaged > 0 {
            state.damage = Some(format!("{damaged} records do not decode"));
        }
        let keep = |database, version| Self {
            folder: folder.to_owned(),
            database: Mutex::new(database),
            version: AtomicU64::new(version),
        };
        if state.damage.is_some() && there {
            drop(database);
            let records = salvage(folder);
            let place = aside(folder)?;
            let count = records.values().filter(|(_, value)| value.is_some()).count();
            let version = records.values().map(|(version, _)| *version).max().unwrap_or(0);
            let damage = state.damage.take().unwrap_or_default();
            state.damage = Some(format!("{damage}; {count} saved, the rest set aside in {}", place.display()));
            return Ok((keep(Some(write_anew(folder, &records)?), version), state));
        }
        let database = match database {
            Some(database) if is_bloated(&database, &records) => {
                drop(database);
                Some(write_anew(folder, &records)?)
            }
            other => other,
        };
        let kept = keep(database, version);
        // So that an emptied database is never taken for a new one. A full card is no reason not to open.
        if records.is_empty() {
            let _ = kept.own_put("store", b"made", b"");
        }
        Ok((kept, state))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, DatabaseFault>) -> Result<T, DatabaseFault> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => Database::open(&self.folder)?,
        };
        let result = work(&database);
        if result.is_ok() {
            *held = Some(database);
        }
        result
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), DatabaseFault> {
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let mut batch = sled::Batch::default();
        batch.insert(key, seal(version, key, value));
        self.with(|database| database.write(batch))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DatabaseFault> {
        let bytes = self.with(|database| database.get(key))?;
        let envelope = bytes.as_deref().and_then(unseal);
        Ok(envelope.and_then(|envelope| envelope.value).map(<[u8]>::to_vec))
    }

    fn list_raw(&self, prefix: &[u8]) -> Result<Pairs, DatabaseFault> {
        let pairs = self.with(|database| database.list(prefix))?;
        let record = |(key, value): &(sled::IVec, sled::IVec)| {
            Some((key.get(prefix.len()..)?.to_vec(), unseal(value)?.value?.to_vec()))
        };
        Ok(pairs.iter().filter_map(record).collect())
    }

    /// A record of the store's own.
    pub(super) fn own_put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write(&own_key(table, key), Some(value)).map_err(|f| StoreError::new(format!("write {table}"), f))
    }

    /// Many records of the store's own at once.
    pub(super) fn own_put_all(&self, table: &str, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (key, value) in records {
            let key = own_key(table, key);
            let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
            let sealed = seal(version, &key, Some(value));
            batch.insert(key, sealed);
        }
        self.with(|database| database.write(batch)).map_err(|f| StoreError::new(format!("write {table}"), f))
    }

    /// Removes a record of the store's own.
    pub(super) fn own_remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.write(&own_key(table, key), None).map_err(|f| StoreError::new(format!("remove from {table}"), f))
    }

    /// All records of one of the store's own tables.
    pub(super) fn own_list(&self, table: &str) -> Result<Pairs, StoreError> {
        self.list_raw(&own_key(table, b"")).map_err(|f| StoreError::new(format!("read {table}"), f))
    }
}

fn own_key(table: &str, key: &[u8]) -> Vec<u8> {
    [&[OWN as u8], table.as_bytes(), &[0], key].concat()
}

fn full_key(table: &str, key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let allowed = !table.is_empty() && table.len() <= MOST_NAME && key.len() <= MOST_NAME;
    if !allowed || table.contains(['\0', OWN]) {
        return Err(StoreError {
            doing: format!("name a record of table {table:?}: too long or not a name"),
            source: None,
        });
    }
    Ok([table.as_bytes(), &[0], key].concat())
}

impl Keep for CardKeep {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(&full_key(table, key)?).map_err(|f| StoreError::new(format!("read a record of {table}"), f))
    }

    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let key = full_key(table, key)?;
        if value.len() > MOST_VALUE {
            let doing = format!("write a record of {table}: {} bytes, {MOST_VALUE} at most are kept", value.len());
            return Err(StoreError { doing, source: None });
        }
        self.write(&key, Some(value)).map_err(|f| StoreError::new(format!("write a record of {table}"), f))
    }

    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        let full = full_key(table, key)?;
        if self.get(table, key)?.is_none() {
            return Ok(());
        }
        self.write(&full, None).map_err(|f| StoreError::new(format!("remove a record of {table}"), f))
    }

    fn list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let prefix = full_key(table, b"")?;
        self.list_raw(&prefix).map_err(|f| StoreError::new(format!("read the records of {table}"), f))
    }
}

/// By key: version, and value unless removed.
type Records = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

struct Read {
    records: Records,
    damaged: usize,
}

fn read_all(database: &Database) -> Result<Read, DatabaseFault> {
    let mut read = Read { records: Records::new(), damaged: 0 };
    for pair in database.db.iter() {
        let (key, value) = guarded(|| pair)?;
        match unseal(&value).filter(|envelope| envelope.key == key.as_ref()) {
            Some(envelope) => {
                read.records.insert(key.to_vec(), (envelope.version, envelope.value.map(<[u8]>::to_vec)));
            }
            None => read.damaged += 1,
        }
    }
    Ok(read)
}

/// Picks every sound record out of the raw files; of each the newest.
fn salvage(folder: &Path) -> Records {
    let mut records = Records::new();
    let Ok(bytes) = fs::read(folder.join("db")) else { return records };
    let mut at = 0;
    while let Some(step) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|window| window == MAGIC)) {
        at += step;
        let Some(envelope) = bytes.get(at..).and_then(unseal) else {
            at += 1;
            continue;
        };
        let newer = records.get(envelope.key).is_none_or(|(version, _)| *version < envelope.version);
        if newer {
            records.insert(envelope.key.to_vec(), (envelope.version, envelope.value.map(<[u8]>::to_vec)));
        }
        at += envelope.length;
    }
    records
}

fn is_bloated(database: &Database, records: &Records) -> bool {
    let live = records.iter().map(|(key, (_, value))| key.len() + value.as_ref().map_or(0, Vec::len)).sum::<usize>();
    database.size() > BLOATED && (live as u64) < database.size() / 8
}

fn beside(folder: &Path, word: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(word);
    folder.with_file_name(name)
}

/// Writes the records that are not removed to a new folder and puts it in the place of the old.
fn write_anew(folder: &Path, records: &Records) -> Result<Database, StoreError> {
    let fault = |fault: DatabaseFault| StoreError::new("write the records anew", fault);
    let next = beside(folder, ".next");
    let _ = fs::remove_dir_all(&next);
    let database = Database::open(&next).map_err(fault)?;
    let mut batch = sled::Batch::default();
    batch.insert(own_key("store", b"made"), seal(0, &own_key("store", b"made"), Some(b"")));
    for (key, (version, value)) in records.iter().filter(|(_, (_, value))| value.is_some()) {
        batch.insert(key.as_slice(), seal(*version, key, value.as_deref()));
    }
    database.write(batch).map_err(fault)?;
    drop(database);
    let file = |e| StoreError::new("put the records written anew in their place", e);
    fs::File::create(next.join("whole")).and_then(|mark| mark.sync_all()).map_err(file)?;
    sync_folder(&next).map_err(fault)?;
    finish_replacing(folder)?;
    Database::open(folder).map_err(fault)
}

/// Goes on where [`write_anew`] may have been interrupted; throws away what it had not finished.
fn finish_replacing(folder: &Path) -> Result<(), StoreError> {
    let next = beside(folder, ".next");
    let old = beside(folder, ".old");
    let file = |e| StoreError::new("put the records written anew in their place", e);
    if next.join("whole").exists() {
        if folder.exists() {
            let _ = fs::remove_dir_all(&old);
            fs::rename(folder, &old).map_err(file)?;
        }
        fs::rename(&next, folder).map_err(file)?;
        folder
            .parent()
            .map_or(Ok(()), sync_folder)
            .map_err(|f| StoreError::new("put the records in their place", f))?;
    }
    for leftover in [next, old] {
        if folder.exists() && leftover.exists() {
            fs::remove_dir_all(leftover).map_err(file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(folder: &Path) -> Result<PathBuf, StoreError> {
        let place = beside(folder, ".aside");
        fs::rename(folder, &place).map_err(|e| StoreError::new("move aside", e))?;
        Ok(place)
    }

    fn open(folder: &Path, existed: bool) -> (CardKeep, KeepState) {
        CardKeep::open(folder, existed, aside).expect("opens")
    }

    #[test]
    fn records_survive_and_the_removed_stay_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path().join("keep");
        let (keep, _) = open(&folder, false);
        keep.put("accounts", b"anne", b"1").expect("puts");
        keep.put("accounts", b"anne", b"2").expect("puts");
        keep.put("accounts", b"marc", b"3").expect("puts");
        keep.put("accounts2", b"x", b"4").expect("puts");
        keep.remove("accounts", b"marc").expect("removes");
        drop(keep);
        let (keep, state) = open(&folder, true);
        assert_eq!(state.damage, None);
        assert_eq!(keep.list("accounts").expect("lists"), [(b"anne".to_vec(), b"2".to_vec())]);
        assert_eq!(keep.get("accounts", b"marc").expect("gets"), None);
    }

    #[test]
    fn records_are_picked_out_of_a_database_that_no_longer_opens() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path().join("keep");
        let (keep, _) = open(&folder, false);
        for n in 0..100u32 {
            keep.put("t", &n.to_be_bytes(), &[n as u8; 100]).expect("puts");
        }
        keep.remove("t", &7u32.to_be_bytes()).expect("removes");
        drop(keep);
        let path = folder.join("db");
        let mut bytes = fs::read(&path).expect("reads");
        bytes[..20].fill(0xa5);
        fs::write(&path, bytes).expect("writes");
        let (keep, state) = open(&folder, true);
        assert!(state.damage.is_some());
        let list = keep.list("t").expect("lists");
        assert_eq!(list.len(), 99);
        assert!(list.iter().all(|(key, value)| *key != 7u32.to_be_bytes() && value[0] == key[3]));
    }

    #[test]
    fn a_database_that_lost_its_folder_is_told_from_a_new_one() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path().join("keep");
        assert!(open(&folder, true).1.damage.is_some());
        assert!(open(&folder, true).1.damage.is_none());
    }

    #[test]
    fn a_record_too_large_or_without_a_name_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let (keep, _) = open(&folder.path().join("keep"), false);
        keep.put("t", b"k", &vec![0; 64 << 10]).expect("64 KiB fit");
        assert!(keep.put("t", b"k", &vec![0; (64 << 10) + 1]).is_err());
        assert!(keep.put("", b"k", b"").is_err());
        assert!(keep.put("\u{1}store", b"k", b"").is_err());
    }
}
