//! What a power cut can leave of a recording.
//!
//! The card may have kept any of what was written and not yet synced, and lost any: whole writes, single sectors of
//! 512 bytes, or a write torn at some byte. Of each sector it holds one of the versions since the last sync of its file.
//! Names follow one of two models: a folder's changes are only safe once that folder is synced, and the others are
//! kept or lost one by one; or, as ext4 with its journal does, changes of names reach the card in their order, and a sync
//! that must write metadata takes along all before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::{Node, Operation, ROOT};

const SECTOR: usize = 512;

/// A state after a cut: which cut, and by which dice. The same numbers give the same state of the same recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Operations before this one were done; this one was under way.
    pub at: usize,
    /// Decides what of the unsynced was kept.
    pub seed: u64,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.at, self.seed)
    }
}

impl std::str::FromStr for Cut {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, seed) = text.split_once(':').unwrap_or((text, "0"));
        Ok(Self { at: at.parse()?, seed: seed.parse()? })
    }
}

/// What happened to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All of it was kept: the program was killed, the card was not.
    Kept,
    /// None of it.
    Lost,
    /// One by one.
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    ByFolder,
    InOrder,
}

/// Files and folders after a cut, by path.
#[derive(Debug, Default)]
pub struct State {
    /// `None` is a folder; a folder comes before what is in it.
    pub entries: BTreeMap<PathBuf, Option<Arc<Vec<u8>>>>,
    /// In words, what was made of the unsynced.
    pub told: String,
}

impl State {
    /// Writes it all into a folder that exists.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        for (path, content) in &self.entries {
            match content {
                None => fs::create_dir_all(to.join(path))?,
                Some(content) => fs::write(to.join(path), content.as_slice())?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    Resize(u64),
}

#[derive(Debug, Clone, Default)]
struct File {
    safe: Arc<Vec<u8>>,
    pending: Vec<Change>,
    /// Length with all that is pending.
    length: u64,
    /// Made, or its length changed, since the journal was last written.
    metadata: bool,
}

#[derive(Debug, Clone)]
struct NameChange {
    operation: Operation,
    /// Folders that have yet to be synced for it to be safe.
    awaits: BTreeSet<Node>,
    journaled: bool,
}

/// Walks a recording from its empty card on, and shows what a cut at each place may leave.
#[derive(Debug, Clone)]
pub struct Walk {
    operations: Arc<[Operation]>,
    at: usize,
    files: BTreeMap<Node, File>,
    names: Vec<NameChange>,
    /// Not looked at: content of no interest, as ballast.
    left_out: OsString,
}

impl Walk {
    /// Begins at the empty card. Files named `left_out` are not in the states.
    pub fn new(operations: Arc<[Operation]>, left_out: &str) -> Self {
        Self { operations, at: 0, files: BTreeMap::new(), names: Vec::new(), left_out: left_out.into() }
    }

    /// Does every operation before number `to`; never goes back.
    pub fn advance(&mut self, to: usize) {
        let operations = Arc::clone(&self.operations);
        for operation in operations.iter().take(to).skip(self.at) {
            self.take(operation);
            self.at += 1;
        }
    }

    fn take(&mut self, operation: &Operation) {
        match operation {
            Operation::Mark(_) => {}
            Operation::Create { name, node, .. } => {
                if *name != self.left_out {
                    self.files.insert(*node, File { metadata: true, ..File::default() });
                }
                self.change_names(operation);
            }
            Operation::Write { node, offset, bytes } => {
                self.change_file(*node, Change::Write(*offset, Arc::clone(bytes)));
            }
            Operation::Resize { node, length } => self.change_file(*node, Change::Resize(*length)),
            Operation::Sync { node } => self.sync(*node),
            Operation::SyncFolder { node } => {
                for change in &mut self.names {
                    change.awaits.remove(node);
                }
                self.journal();
            }
            Operation::MakeFolder { .. }
            | Operation::Rename { .. }
            | Operation::Unlink { .. }
            | Operation::RemoveFolder { .. } => self.change_names(operation),
        }
    }

    fn change_file(&mut self, node: Node, change: Change) {
        let Some(file) = self.files.get_mut(&node) else { return };
        let length = match &change {
            Change::Write(offset, bytes) => file.length.max(offset + bytes.len() as u64),
            Change::Resize(length) => *length,
        };
        file.metadata |= length != file.length;
        file.length = length;
        file.pending.push(change);
    }

    fn sync(&mut self, node: Node) {
        let Some(file) = self.files.get_mut(&node) else { return };
        let pending = std::mem::take(&mut file.pending);
        let safe = Arc::make_mut(&mut file.safe);
        pending.iter().for_each(|change| apply(safe, change));
        if file.metadata {
            self.journal();
        }
    }

    fn journal(&mut self) {
        self.names.iter_mut().for_each(|change| change.journaled = true);
        self.files.values_mut().for_each(|file| file.metadata = false);
    }

    fn change_names(&mut self, operation: &Operation) {
        let awaits = match operation {
            Operation::Create { folder, .. }
            | Operation::MakeFolder { folder, .. }
            | Operation::Unlink { folder, .. }
            | Operation::RemoveFolder { folder, .. } => BTreeSet::from([*folder]),
            Operation::Rename { folder, to_folder, .. } => BTreeSet::from([*folder, *to_folder]),
            _ => BTreeSet::new(),
        };
        self.names.push(NameChange { operation: operation.clone(), awaits, journaled: false });
    }

    /// What a cut here leaves, by the dice of `seed`. Seed 0 keeps everything that was done, seed 1 only what was synced,
    /// by folder, and seed 2 the same in the order of the journal.
    pub fn state(&self, seed: u64) -> State {
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut data, mut named, mut model) = match seed {
            0 => (Fate::Kept, Fate::Kept, Names::ByFolder),
            1 => (Fate::Lost, Fate::Lost, Names::ByFolder),
            2 => (Fate::Lost, Fate::Lost, Names::InOrder),
            _ => (Fate::Mixed, Fate::Mixed, Names::InOrder),
        };
        if seed > 2 {
            let fates = [Fate::Kept, Fate::Lost, Fate::Mixed, Fate::Mixed, Fate::Mixed];
            data = fates[dice.random_range(0..fates.len())];
            named = fates[dice.random_range(0..fates.len())];
            model = if dice.random_bool(0.5) { Names::ByFolder } else { Names::InOrder };
        }
        let mut walk = None;
        // What was under way may have gone through, wholly or in part, without anybody having heard.
        if seed > 2
            && !matches!(self.operations.get(self.at), Some(Operation::Sync { .. } | Operation::SyncFolder { .. }))
        {
            let mut further = self.clone();
            further.advance(self.at + 1);
            walk = Some(further);
        }
        let walk = walk.as_ref().unwrap_or(self);
        let mut state = State::default();
        let tree = walk.tree(named, model, &mut dice);
        let mut contents = BTreeMap::new();
        let named_nodes = tree.named();
        for (node, file) in &walk.files {
            if named_nodes.contains(node) {
                contents.insert(*node, file.content(data, &mut dice));
            }
        }
        tree.list(ROOT, Path::new(""), &contents, &mut state.entries);
        state.told =
            format!("cut at {} of {}: writes {data:?}, names {named:?} {model:?}", self.at, self.operations.len());
        state
    }

    fn tree(&self, fate: Fate, model: Names, dice: &mut StdRng) -> Tree {
        let mut tree = Tree { folders: BTreeMap::from([(ROOT, BTreeMap::new())]) };
        let unsafe_ones = self.names.iter().filter(|change| !change.journaled).count();
        let kept_in_order = match fate {
            Fate::Kept => unsafe_ones,
            Fate::Lost => 0,
            Fate::Mixed => dice.random_range(0..=unsafe_ones),
        };
        let rate = [0.1, 0.5, 0.9][dice.random_range(0..3)];
        let mut seen = 0;
        for change in &self.names {
            let is_safe = match model {
                Names::ByFolder => change.awaits.is_empty(),
                Names::InOrder => {
                    seen += usize::from(!change.journaled);
                    change.journaled || seen <= kept_in_order
                }
            };
            let kept = is_safe
                || match (model, fate) {
                    (Names::InOrder, _) | (_, Fate::Lost) => false,
                    (_, Fate::Kept) => true,
                    (_, Fate::Mixed) => dice.random_bool(rate),
                };
            if kept {
                tree.apply(&change.operation);
            }
        }
        tree
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => put(content, *offset as usize, bytes),
        Change::Resize(length) => content.resize(*length as usize, 0),
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl File {
    fn content(&self, fate: Fate, dice: &mut StdRng) -> Arc<Vec<u8>> {
        if self.pending.is_empty() || fate == Fate::Lost {
            return Arc::clone(&self.safe);
        }
        let mut content = self.safe.as_ref().clone();
        let rate = [0.0, 0.1, 0.5, 0.9, 1.0][dice.random_range(0..5)];
        for change in &self.pending {
            match change {
                _ if fate == Fate::Kept => apply(&mut content, change),
                Change::Resize(_) if dice.random_bool(0.5) => apply(&mut content, change),
                Change::Resize(_) => {}
                Change::Write(offset, bytes) => tear(&mut content, *offset as usize, bytes, rate, dice),
            }
        }
        Arc::new(content)
    }
}

/// A write of which some reached the card.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], rate: f64, dice: &mut impl Rng) {
    if bytes.is_empty() {
        return;
    }
    match dice.random_range(0..8) {
        // Its beginning or its end, torn at some byte.
        0 => put(content, offset, &bytes[..dice.random_range(0..=bytes.len())]),
        1 => {
            let from = dice.random_range(0..bytes.len());
            put(content, offset + from, &bytes[from..]);
        }
        // The length is there, the bytes are not.
        2 if dice.random_bool(0.3) => {
            let length = content.len().max(offset + bytes.len());
            content.resize(length, 0);
        }
        // Sector by sector.
        3 | 4 => {
            let mut at = 0;
            while at < bytes.len() {
                let end = (offset + at + 1).next_multiple_of(SECTOR).min(offset + bytes.len()) - offset;
                if dice.random_bool(0.5) {
                    put(content, offset + at, &bytes[at..end]);
                }
                at = end;
            }
        }
        _ if dice.random_bool(rate) => put(content, offset, bytes),
        _ => {}
    }
}

#[derive(Debug)]
struct Tree {
    folders: BTreeMap<Node, BTreeMap<OsString, Node>>,
}

impl Tree {
    /// Does what can be done: what a lost operation should have prepared is not there.
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { folder, name, node } => self.set(*folder, name, *node),
            Operation::MakeFolder { folder, name, node } if self.folders.contains_key(folder) => {
                self.folders.insert(*node, BTreeMap::new());
                self.set(*folder, name, *node);
            }
            Operation::Unlink { folder, name } => {
                if let Some(names) = self.folders.get_mut(folder) {
                    names.remove(name);
                }
            }
            Operation::RemoveFolder { folder, name } => {
                let node = self.folders.get(folder).and_then(|names| names.get(name)).copied();
                let is_empty = node.and_then(|node| self.folders.get(&node)).is_some_and(BTreeMap::is_empty);
                if let Some(names) = self.folders.get_mut(folder).filter(|_| is_empty) {
                    names.remove(name);
                }
            }
            Operation::Rename { folder, name, to_folder, to_name } => {
                if !self.folders.contains_key(to_folder) {
                    return;
                }
                let node = self.folders.get_mut(folder).and_then(|names| names.remove(name));
                if let Some(node) = node {
                    self.set(*to_folder, to_name, node);
                }
            }
            _ => {}
        }
    }

    fn set(&mut self, folder: Node, name: &OsString, node: Node) {
        if let Some(names) = self.folders.get_mut(&folder) {
            names.insert(name.clone(), node);
        }
    }

    fn named(&self) -> BTreeSet<Node> {
        self.folders.values().flat_map(|names| names.values().copied()).collect()
    }

    fn list(
        &self,
        folder: Node,
        path: &Path,
        contents: &BTreeMap<Node, Arc<Vec<u8>>>,
        out: &mut BTreeMap<PathBuf, Option<Arc<Vec<u8>>>>,
    ) {
        for (name, node) in self.folders.get(&folder).into_iter().flatten() {
            let path = path.join(name);
            if self.folders.contains_key(node) {
                out.insert(path.clone(), None);
                self.list(*node, &path, contents, out);
            } else if let Some(content) = contents.get(node) {
                out.insert(path, Some(Arc::clone(content)));
            }
        }
    }
}
