//! Where small records lie while they wait for the card: everything known of them in memory, and a thread, the scribe,
//! that writes what is new in groups, one sync each.
//!
//! A card that refuses or does not answer costs nobody more than [`PATIENCE`]. After a sync that failed nothing that
//! was only in the page cache is believed: the records are written anew, from memory, into another folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    database::{Database, DatabaseFault},
    keeping::{Pairs, Records, seal, write_anew},
    writer::RETRY,
};
use crate::supervisor::chain;

/// A caller waits so long for the card; a page that needs it says so after that.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Records held for a card that refuses them, and their bytes.
const MOST_HELD: usize = 4096;
const MOST_BYTES: usize = 4 << 20;

/// What becomes of a record the card does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It is refused.
    Refuse,
    /// It counts from now on, and is written as soon as the card takes it.
    Hold,
}

/// Told to whoever waits for a record.
type Answer = mpsc::SyncSender<Result<(), String>>;

/// A record on its way to the card.
#[derive(Debug)]
struct Wish {
    value: Option<Vec<u8>>,
    manner: Manner,
    turn: u64,
    asked: Vec<Answer>,
}

impl Wish {
    fn bytes(&self, key: &[u8]) -> usize {
        key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// By key.
type Wishes = BTreeMap<Vec<u8>, Wish>;

#[derive(Debug, Default)]
struct Papers {
    /// What the card has; `None` while nobody could read it.
    records: Option<Records>,
    waiting: Wishes,
    /// With the scribe.
    under_way: Wishes,
    bytes: usize,
    turn: u64,
    since: Option<Instant>,
    /// Why the last write was refused.
    refused: Option<String>,
    leaving: bool,
    gone: bool,
}

/// The desk.
#[derive(Debug)]
pub(super) struct Desk {
    papers: Mutex<Papers>,
    bell: Condvar,
}

impl Desk {
    /// Of a card that cannot be written, or not even read.
    pub(super) fn without_scribe(records: Option<Records>) -> Self {
        Self { papers: Mutex::new(Papers { records, gone: true, ..Papers::default() }), bell: Condvar::new() }
    }

    /// With the scribe at work.
    pub(super) fn open(folder: &Path, database: Database, records: Records) -> Arc<Self> {
        let version = records.values().map(|(version, _)| *version).max().unwrap_or(0);
        let papers = Papers { records: Some(records), ..Papers::default() };
        let desk = Arc::new(Self { papers: Mutex::new(papers), bell: Condvar::new() });
        let mut scribe = Scribe { folder: folder.to_owned(), database: Some(database), version, doubtful: false };
        let at = Arc::clone(&desk);
        if let Err(why) = std::thread::Builder::new().name("records".to_owned()).spawn(move || scribe.run(&at)) {
            error!(%why, "Scribe of the records not started");
            desk.lock().gone = true;
        }
        desk
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_known(&self) -> bool {
        self.lock().records.is_some()
    }

    pub(super) fn writing_for(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// What keeps held records from the card.
    pub(super) fn wrong(&self) -> Option<String> {
        let papers = self.lock();
        if papers.is_stuck() {
            return Some("the card does not answer".to_owned());
        }
        papers.refused.clone().filter(|_| !papers.waiting.is_empty())
    }

    /// One record; `None` when nothing is known of it.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let papers = self.lock();
        if let Some(held) = papers.held(key) {
            return Some(held.clone());
        }
        let records = papers.records.as_ref()?;
        Some(records.get(key).and_then(|(_, value)| value.clone()))
    }

    /// Whether there is such a record; `None` when nothing is known of it.
    pub(super) fn has(&self, key: &[u8]) -> Option<bool> {
        let papers = self.lock();
        // What is on its way counts: a removal must not overtake it.
        if let Some(wish) = papers.waiting.get(key).or_else(|| papers.under_way.get(key)) {
            return Some(wish.value.is_some() || papers.under_way.contains_key(key));
        }
        Some(papers.records.as_ref()?.get(key).is_some_and(|(_, value)| value.is_some()))
    }

    /// Every record whose key begins with `prefix`, without it.
    pub(super) fn list(&self, prefix: &[u8]) -> Option<Pairs> {
        let papers = self.lock();
        let records = papers.records.as_ref()?;
        let within = |(key, _): &(&Vec<u8>, _)| key.starts_with(prefix);
        let known = records.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let mut all: BTreeMap<&[u8], &Vec<u8>> =
            known.filter_map(|(key, (_, value))| Some((key.as_slice(), value.as_ref()?))).collect();
        let held = papers.under_way.iter().chain(&papers.waiting).filter(within);
        for (key, wish) in held.filter(|(_, wish)| wish.manner == Manner::Hold) {
            match &wish.value {
                Some(value) => all.insert(key, value),
                None => all.remove(key.as_slice()),
            };
        }
        Some(
            all.into_iter()
                .filter_map(|(key, value)| Some((key.get(prefix.len()..)?.to_vec(), value.clone())))
                .collect(),
        )
    }

    /// Hands records in, all or nothing, and waits until they are on the card.
    pub(super) fn put(&self, records: Vec<(Vec<u8>, Option<Vec<u8>>)>, manner: Manner) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let keys: Vec<Vec<u8>> = records.iter().map(|(key, _)| key.clone()).collect();
        let (answer, answered, turn) = {
            let mut papers = self.lock();
            papers.admit(&records, manner)?;
            let (asked, answered) = mpsc::sync_channel(1);
            papers.turn += 1;
            let turn = papers.turn;
            for (key, value) in records {
                papers.wish(key, Wish { value, manner, turn, asked: vec![asked.clone()] });
            }
            if manner == Manner::Hold && papers.would_wait() {
                return Ok(());
            }
            (asked, answered, turn)
        };
        // Theirs are enough: when the scribe has gone nobody answers.
        drop(answer);
        self.bell.notify_all();
        match answered.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(_) if manner == Manner::Hold => Ok(()),
            Err(_) => {
                self.take_back(&keys, turn);
                Err("the card does not answer".to_owned())
            }
        }
    }

    /// What was told as refused is not written later, unless the scribe is already at it.
    fn take_back(&self, keys: &[Vec<u8>], turn: u64) {
        let mut papers = self.lock();
        for key in keys {
            if papers.waiting.get(key).is_some_and(|wish| wish.turn == turn && wish.manner == Manner::Refuse) {
                papers.unwish(key);
            }
        }
    }

    /// Gives away what is held, for another desk.
    pub(super) fn leave(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut papers = self.lock();
        papers.bytes = 0;
        let waiting = std::mem::take(&mut papers.waiting);
        waiting
            .into_iter()
            .filter(|(_, wish)| wish.manner == Manner::Hold)
            .map(|(key, wish)| (key, wish.value))
            .collect()
    }

    /// Takes over what another desk held.
    pub(super) fn inherit(&self, records: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        let mut papers = self.lock();
        papers.turn += 1;
        let turn = papers.turn;
        for (key, value) in records {
            papers.wish(key, Wish { value, manner: Manner::Hold, turn, asked: Vec::new() });
        }
        drop(papers);
        self.bell.notify_all();
    }

    /// Asks the scribe to end; waits a little for it, since its files are locked until then.
    pub(super) fn end(&self) {
        let mut papers = self.lock();
        papers.leaving = true;
        self.bell.notify_all();
        let until = Instant::now() + if papers.is_stuck() { Duration::ZERO } else { PATIENCE };
        while !papers.gone && Instant::now() < until {
            let pause = until.saturating_duration_since(Instant::now());
            papers = self.bell.wait_timeout(papers, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Papers {
    fn is_stuck(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Whether a record that may wait had better do so.
    fn would_wait(&self) -> bool {
        self.is_stuck() || self.refused.is_some() || self.gone
    }

    fn admit(&self, records: &[(Vec<u8>, Option<Vec<u8>>)], manner: Manner) -> Result<(), String> {
        if self.leaving {
            return Err("the store is closed".to_owned());
        }
        if manner == Manner::Refuse && self.gone {
            return Err("the card cannot be used yet".to_owned());
        }
        if manner == Manner::Refuse && self.is_stuck() {
            return Err("the card does not answer".to_owned());
        }
        let added: usize = records.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let anew = records.iter().filter(|(key, _)| !self.waiting.contains_key(key)).count();
        if anew > 0 && (self.waiting.len() + anew > MOST_HELD || self.bytes + added > MOST_BYTES) {
            return Err("too many records wait for the card".to_owned());
        }
        Ok(())
    }

    /// The last word about a key is the one that is written; who asked before is told at the same time.
    fn wish(&mut self, key: Vec<u8>, mut wish: Wish) {
        if let Some(before) = self.unwish(&key) {
            wish.asked.extend(before.asked);
            if before.manner == Manner::Hold {
                wish.manner = Manner::Hold;
            }
        }
        self.bytes += wish.bytes(&key);
        self.waiting.insert(key, wish);
    }

    fn unwish(&mut self, key: &[u8]) -> Option<Wish> {
        let wish = self.waiting.remove(key)?;
        self.bytes = self.bytes.saturating_sub(wish.bytes(key));
        Some(wish)
    }

    fn held(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        let held = |wish: &&Wish| wish.manner == Manner::Hold;
        let wish = self.waiting.get(key).filter(held).or_else(|| self.under_way.get(key).filter(held))?;
        Some(&wish.value)
    }

    /// What was under way is on the card.
    fn settle(&mut self, versions: &BTreeMap<Vec<u8>, u64>) {
        self.refused = None;
        for (key, wish) in std::mem::take(&mut self.under_way) {
            let version = versions.get(&key).copied().unwrap_or(0);
            if let Some(records) = &mut self.records {
                records.insert(key, (version, wish.value));
            }
            wish.asked.iter().for_each(|asked| drop(asked.try_send(Ok(()))));
        }
    }

    /// What was under way is not. What may wait goes back, unless there is a newer word.
    fn turn_down(&mut self, why: &str) {
        self.refused = Some(why.to_owned());
        for (key, mut wish) in std::mem::take(&mut self.under_way) {
            let held = wish.manner == Manner::Hold;
            let answer = if held { Ok(()) } else { Err(why.to_owned()) };
            wish.asked.drain(..).for_each(|asked| drop(asked.try_send(answer.clone())));
            if held && !self.waiting.contains_key(&key) {
                self.bytes += wish.bytes(&key);
                self.waiting.insert(key, wish);
            }
        }
    }
}

struct Scribe {
    folder: PathBuf,
    /// `None` after a failed write, until it opens again: sled does not recover from one by itself.
    database: Option<Database>,
    version: u64,
    /// A sync failed, or sled did: what the folder holds is no longer believed.
    doubtful: bool,
}

impl Scribe {
    fn run(&mut self, desk: &Desk) {
        let mut tried = None;
        while self.wait(desk, tried) {
            tried = Some(Instant::now());
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.write(desk)));
            let mut papers = desk.lock();
            papers.since = None;
            match done {
                Ok(Ok(versions)) => {
                    if papers.refused.is_some() {
                        info!("Records are written again");
                    }
                    papers.settle(&versions);
                }
                Ok(Err(fault)) => {
                    let why = chain(&*fault);
                    if papers.refused.is_none() {
                        warn!(why, "Card refuses records");
                    }
                    papers.turn_down(&why);
                }
                Err(_) => papers.turn_down("writing the records panicked"),
            }
        }
        self.database = None;
        let mut papers = desk.lock();
        papers.gone = true;
        papers.waiting.clear();
        drop(papers);
        desk.bell.notify_all();
    }

    /// Until there is something to write: at once for whoever waits, in a while for what is held. False at the end.
    fn wait(&self, desk: &Desk, tried: Option<Instant>) -> bool {
        let mut papers = desk.lock();
        loop {
            let asked = papers.waiting.values().any(|wish| !wish.asked.is_empty());
            let rested = papers.refused.is_none() || tried.is_none_or(|tried| tried.elapsed() >= RETRY);
            if !papers.waiting.is_empty() && (asked || rested || papers.leaving) {
                if papers.leaving && papers.refused.is_some() {
                    return false;
                }
                papers.under_way = std::mem::take(&mut papers.waiting);
                papers.bytes = 0;
                papers.since = Some(Instant::now());
                return true;
            }
            if papers.leaving {
                return false;
            }
            let pause = if papers.waiting.is_empty() { Duration::from_secs(3600) } else { RETRY };
            papers = desk.bell.wait_timeout(papers, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write(&mut self, desk: &Desk) -> Result<BTreeMap<Vec<u8>, u64>, Box<dyn std::error::Error>> {
        let mut batch = sled::Batch::default();
        let mut versions = BTreeMap::new();
        for (key, wish) in &desk.lock().under_way {
            self.version += 1;
            batch.insert(key.as_slice(), seal(self.version, key, wish.value.as_deref()));
            versions.insert(key.clone(), self.version);
        }
        let database = self.opened(desk)?;
        if let Err(fault) = database.write(batch) {
            self.doubtful |= fault.leaves_doubt() || database.is_given_up();
            return Err(fault.into());
        }
        self.database = Some(database);
        Ok(versions)
    }

    fn opened(&mut self, desk: &Desk) -> Result<Database, Box<dyn std::error::Error>> {
        if let Some(database) = self.database.take() {
            return Ok(database);
        }
        if self.doubtful {
            let records = desk.lock().records.clone().unwrap_or_default();
            let database = write_anew(&self.folder, &records)?;
            info!(records = records.len(), "Records written anew");
            self.doubtful = false;
            return Ok(database);
        }
        Database::open_to_write(&self.folder).map_err(|fault: DatabaseFault| fault.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn desk(folder: &Path) -> Arc<Desk> {
        Desk::open(folder, Database::open(folder).expect("opens"), Records::new())
    }

    fn one(key: &str, value: Option<&str>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        vec![(key.into(), value.map(Into::into))]
    }

    #[test]
    fn what_may_wait_counts_at_once_and_is_inherited_by_the_card() {
        let folder = tempfile::tempdir().expect("folder");
        let without = Desk::without_scribe(None);
        assert!(without.put(one("a", Some("1")), Manner::Refuse).is_err());
        without.put(one("a", Some("1")), Manner::Hold).expect("held");
        without.put(one("b", None), Manner::Hold).expect("held");
        assert_eq!((without.get(b"a"), without.get(b"c")), (Some(Some(b"1".to_vec())), None));
        assert_eq!(without.list(b""), None, "what the card has is not known");
        let card = desk(folder.path());
        for (key, value) in [("a", "0"), ("b", "0"), ("c", "0")] {
            card.put(one(key, Some(value)), Manner::Refuse).expect("written");
        }
        card.inherit(without.leave());
        card.put(one("d", Some("2")), Manner::Refuse).expect("written, with what came before");
        let list = card.list(b"").expect("known");
        assert_eq!(list, [("a", "1"), ("c", "0"), ("d", "2")].map(|(k, v)| (k.into(), v.into())));
        card.end();
        let database = Database::open(folder.path()).expect("opens");
        assert!(database.get(b"a").expect("reads").is_some());
    }

    #[test]
    fn a_refused_record_never_counts_and_a_held_one_is_written_once_the_card_takes_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("keep");
        let card = desk(&path);
        card.put(one("a", Some("1")), Manner::Refuse).expect("written");
        let mut papers = card.lock();
        papers.refused = Some("for a test".to_owned());
        drop(papers);
        card.put(one("a", Some("2")), Manner::Hold).expect("held");
        assert_eq!(card.get(b"a"), Some(Some(b"2".to_vec())));
        assert!(card.wrong().is_some());
        card.put(one("b", Some("3")), Manner::Refuse).expect("takes the others along");
        assert_eq!(card.wrong(), None);
        card.end();
        assert!(fs::metadata(path.join("db")).is_ok());
        assert!(card.put(one("c", None), Manner::Hold).is_err(), "closed");
    }

    #[test]
    fn after_a_failed_sync_the_records_are_written_anew_from_memory() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("keep");
        let database = Database::open(&path).expect("opens");
        let records = Records::from([(b"a".to_vec(), (1, Some(b"1".to_vec())))]);
        let desk = Desk::without_scribe(Some(records));
        drop(database);
        // What the folder holds is not what was written: the page cache lied.
        let mut scribe = Scribe { folder: path.clone(), database: None, version: 1, doubtful: true };
        let database = scribe.opened(&desk).expect("written anew");
        assert!(!scribe.doubtful && database.get(b"a").expect("reads").is_some());
    }
}
