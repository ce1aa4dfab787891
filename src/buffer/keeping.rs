//! Small records that must survive a restart: [`crate::store::Keep`] on a sled database of its own, and the store's
//! own records (gaps, samples, what each segment covers).
//!
//! Every record carries its name, a version and a checksum, so that it can be picked out of a database that no longer
//! opens. A removed record is kept as removed, so that salvage does not bring it back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    bytes::Cursor,
    database::{Database, DatabaseFault, sync_folder},
    desk::{Desk, Manner},
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
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Tables of the store itself begin with this, which no part's table may.
const OWN: char = '\u{1}';

struct Envelope<'a> {
    version: u64,
    key: &'a [u8],
    value: Option<&'a [u8]>,
    length: usize,
}

pub(super) fn seal(version: u64, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
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

/// The records: all of them in memory, and a scribe that brings what is new to the card. So no reader ever waits for the
/// card, and whoever writes waits [`PATIENCE`] at most.
#[derive(Debug)]
pub(super) struct CardKeep {
    desk: Arc<Desk>,
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
                (Records::new(), 0, None)
            }
        };
        state.damage = state.damage.or_else(|| what_is_wrong(existed, there, damaged, &records));
        if state.damage.is_some() && there {
            drop(database);
            let records = salvage(folder);
            let place = aside(folder)?;
            let count = records.values().filter(|(_, value)| value.is_some()).count();
            let damage = state.damage.take().unwrap_or_default();
            state.damage = Some(format!("{damage}; {count} saved, the rest set aside in {}", place.display()));
            return Ok((Self::with(folder, write_anew(folder, &records)?, records), state));
        }
        let database = match database {
            Some(database) if is_bloated(&database, &records) => {
                drop(database);
                write_anew(folder, &records)?
            }
            Some(database) => database,
            None => Database::open(folder).map_err(|fault| StoreError::new("open the records", fault))?,
        };
        let is_new = records.is_empty();
        let kept = Self::with(folder, database, records);
        // So that an emptied database is never taken for a new one. A full card is no reason not to open.
        if is_new {
            let _ = kept.own_put("store", b"made", b"");
        }
        Ok((kept, state))
    }

    /// Reads the records of a card that takes no writes; what is handed in is held for the day it does.
    pub(super) fn open_to_read(folder: &Path) -> Result<Self, StoreError> {
        let read = Database::open_to_read(folder).and_then(|database| read_all(&database));
        let records = read.map_err(|fault| StoreError::new("read the records", fault))?.records;
        Ok(Self { desk: Arc::new(Desk::without_scribe(Some(records))) })
    }

    /// Records of a card that cannot be read: none is known, and those that may wait for the card are held.
    pub(super) fn unread() -> Self {
        Self { desk: Arc::new(Desk::without_scribe(None)) }
    }

    fn with(folder: &Path, database: Database, records: Records) -> Self {
        Self { desk: Desk::open(folder, database, records) }
    }

    /// Takes over what was held for the card while these records could not be read. What is newer wins.
    pub(super) fn inherit(&self, from: &Self) {
        self.desk.inherit(from.desk.leave());
    }

    /// Whether the records of the card are known.
    pub(super) fn is_known(&self) -> bool {
        self.desk.is_known()
    }

    /// What keeps records from the card now, in words.
    pub(super) fn wrong(&self) -> Option<String> {
        self.desk.wrong()
    }

    /// For how long a write has been under way.
    pub(super) fn writing_for(&self) -> Option<Duration> {
        self.desk.writing_for()
    }

    fn put_all(&self, story: &str, records: Vec<(Vec<u8>, Option<Vec<u8>>)>, manner: Manner) -> Result<(), StoreError> {
        self.desk.put(records, manner).map_err(|why| StoreError::new(story, why))
    }

    /// A record of the store's own.
    pub(super) fn own_put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.own_put_all(table, &[(key.to_vec(), value.to_vec())])
    }

    /// Many records of the store's own at once.
    pub(super) fn own_put_all(&self, table: &str, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        let records = records.iter().map(|(key, value)| (own_key(table, key), Some(value.clone())));
        self.put_all(&format!("write {table}"), records.collect(), Manner::Refuse)
    }

    /// Removes a record of the store's own.
    pub(super) fn own_remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.put_all(&format!("remove from {table}"), vec![(own_key(table, key), None)], Manner::Refuse)
    }

    /// All records of one of the store's own tables.
    pub(super) fn own_list(&self, table: &str) -> Result<Pairs, StoreError> {
        self.desk.list(&own_key(table, b"")).ok_or_else(|| unread(table))
    }

    fn put_one(&self, table: &str, key: &[u8], value: Option<&[u8]>, manner: Manner) -> Result<(), StoreError> {
        let key = full_key(table, key)?;
        if let Some(value) = value.filter(|value| value.len() > MOST_VALUE) {
            let doing = format!("write a record of {table}: {} bytes, {MOST_VALUE} at most are kept", value.len());
            return Err(StoreError { doing, source: None });
        }
        if value.is_none() && self.desk.has(&key) == Some(false) {
            return Ok(());
        }
        let story = if value.is_some() { "write" } else { "remove" };
        self.put_all(&format!("{story} a record of {table}"), vec![(key, value.map(<[u8]>::to_vec))], manner)
    }
}

impl Drop for CardKeep {
    fn drop(&mut self) {
        self.desk.end();
    }
}

fn what_is_wrong(existed: bool, there: bool, damaged: usize, records: &Records) -> Option<String> {
    if existed && there && !records.contains_key(&own_key("store", b"made")) {
        Some("the records were emptied".to_owned())
    } else if existed && !there {
        Some("the folder of the records is gone".to_owned())
    } else {
        (damaged > 0).then(|| format!("{damaged} records do not decode"))
    }
}

fn unread(table: &str) -> StoreError {
    StoreError { doing: format!("read {table}: the card could not be read yet"), source: None }
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
        self.desk.get(&full_key(table, key)?).ok_or_else(|| unread(table))
    }

    fn put(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.put_one(table, key, Some(value), Manner::Refuse)
    }

    fn remove(&self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.put_one(table, key, None, Manner::Refuse)
    }

    fn list(&self, table: &str) -> Result<Pairs, StoreError> {
        self.desk.list(&full_key(table, b"")?).ok_or_else(|| unread(table))
    }

    fn hold(&self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        self.put_one(table, key, value, Manner::Hold)
    }
}

/// By key: version, and value unless removed.
pub(super) type Records = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

struct Read {
    records: Records,
    damaged: usize,
}

fn read_all(database: &Database) -> Result<Read, DatabaseFault> {
    let mut read = Read { records: Records::new(), damaged: 0 };
    for (key, value) in database.list(b"")? {
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
pub(super) fn write_anew(folder: &Path, records: &Records) -> Result<Database, StoreError> {
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
