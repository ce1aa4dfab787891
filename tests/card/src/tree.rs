//! Files and folders in memory, the space they take, and what is wrong with the card.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::{OsStr, OsString},
    time::{Duration, SystemTime},
};

use fuser::Errno;

use crate::{BLOCK, Node, Operation, ROOT, Trouble};

/// What a card did since it was inserted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes done.
    pub writes: u64,
    /// Bytes they brought.
    pub written: u64,
    /// Syncs of files done.
    pub syncs: u64,
    /// Syncs of folders done.
    pub folder_syncs: u64,
}

#[derive(Debug)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, Node>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) changed: SystemTime,
    /// Has a name.
    linked: bool,
    opened: u64,
    /// How often the kernel was told its number.
    known: u64,
}

impl Entry {
    pub(crate) fn length(&self) -> u64 {
        match &self.kind {
            Kind::File(bytes) => bytes.len() as u64,
            Kind::Folder(_) => BLOCK,
        }
    }

    /// Bytes it takes on the card.
    pub(crate) fn takes(&self) -> u64 {
        self.length().next_multiple_of(BLOCK)
    }
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Node, Entry>,
    next: Node,
    used: u64,
    pub(crate) size: u64,
    pub(crate) log: Option<Vec<Operation>>,
    pub(crate) counts: Counts,
    pub(crate) troubles: HashSet<Trouble>,
    pub(crate) delay: Duration,
}

type Done<T> = Result<T, Errno>;

impl Tree {
    pub(crate) fn new(size: u64) -> Self {
        let mut tree = Self {
            nodes: BTreeMap::new(),
            next: ROOT,
            used: 0,
            size,
            log: None,
            counts: Counts::default(),
            troubles: HashSet::new(),
            delay: Duration::ZERO,
        };
        tree.add(Kind::Folder(BTreeMap::new()), 0o755, (0, 0));
        tree
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Bytes that can still be given out.
    pub(crate) fn free(&self) -> u64 {
        if self.has(Trouble::Full) { 0 } else { self.size.saturating_sub(self.used) / BLOCK * BLOCK }
    }

    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    pub(crate) fn hangs(&self) -> bool {
        self.has(Trouble::Hangs)
    }

    pub(crate) fn note(&mut self, operation: impl FnOnce() -> Operation) {
        if let Some(log) = &mut self.log {
            log.push(operation());
        }
    }

    fn add(&mut self, kind: Kind, mode: u16, owner: (u32, u32)) -> Node {
        let node = self.next;
        self.next += 1;
        let entry = Entry { kind, mode, owner, changed: SystemTime::now(), linked: true, opened: 0, known: 0 };
        self.used += entry.takes();
        self.nodes.insert(node, entry);
        node
    }

    /// Whether anything at all can be asked.
    pub(crate) fn there(&self) -> Done<()> {
        if self.has(Trouble::Gone) { Err(Errno::EIO) } else { Ok(()) }
    }

    pub(crate) fn may_change(&self) -> Done<()> {
        self.there()?;
        if self.has(Trouble::ReadOnly) {
            return Err(Errno::EROFS);
        }
        if self.has(Trouble::WritesFail) { Err(Errno::EIO) } else { Ok(()) }
    }

    pub(crate) fn entry(&self, node: Node) -> Done<&Entry> {
        self.there()?;
        self.nodes.get(&node).ok_or(Errno::ENOENT)
    }

    pub(crate) fn entry_mut(&mut self, node: Node) -> Done<&mut Entry> {
        self.nodes.get_mut(&node).ok_or(Errno::ENOENT)
    }

    pub(crate) fn names(&self, folder: Node) -> Done<&BTreeMap<OsString, Node>> {
        match &self.entry(folder)?.kind {
            Kind::Folder(names) => Ok(names),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, folder: Node) -> Done<&mut BTreeMap<OsString, Node>> {
        let entry = self.entry_mut(folder)?;
        entry.changed = SystemTime::now();
        match &mut entry.kind {
            Kind::Folder(names) => Ok(names),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn find(&self, folder: Node, name: &OsStr) -> Done<Node> {
        self.names(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// A new file or folder.
    pub(crate) fn make(&mut self, folder: Node, name: &OsStr, kind: Kind, mode: u16, owner: (u32, u32)) -> Done<Node> {
        self.may_change()?;
        if self.names(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.free() == 0 {
            return Err(Errno::ENOSPC);
        }
        let is_folder = matches!(kind, Kind::Folder(_));
        let node = self.add(kind, mode, owner);
        self.names_mut(folder)?.insert(name.to_owned(), node);
        let name = name.to_owned();
        self.note(|| {
            if is_folder {
                Operation::MakeFolder { folder, name, node }
            } else {
                Operation::Create { folder, name, node }
            }
        });
        Ok(node)
    }

    /// Takes a name away.
    pub(crate) fn remove(&mut self, folder: Node, name: &OsStr, is_folder: bool) -> Done<()> {
        self.may_change()?;
        let node = self.find(folder, name)?;
        match &self.entry(node)?.kind {
            Kind::Folder(_) if !is_folder => return Err(Errno::EISDIR),
            Kind::File(_) if is_folder => return Err(Errno::ENOTDIR),
            Kind::Folder(names) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.names_mut(folder)?.remove(name);
        self.unlink(node);
        let name = name.to_owned();
        self.note(|| {
            if is_folder { Operation::RemoveFolder { folder, name } } else { Operation::Unlink { folder, name } }
        });
        Ok(())
    }

    pub(crate) fn rename(&mut self, folder: Node, name: &OsStr, to_folder: Node, to_name: &OsStr) -> Done<()> {
        self.may_change()?;
        let node = self.find(folder, name)?;
        let replaced = self.names(to_folder)?.get(to_name).copied().filter(|replaced| *replaced != node);
        if let Some(replaced) = replaced {
            match (&self.entry(node)?.kind, &self.entry(replaced)?.kind) {
                (Kind::File(_), Kind::Folder(_)) => return Err(Errno::EISDIR),
                (Kind::Folder(_), Kind::File(_)) => return Err(Errno::ENOTDIR),
                (Kind::Folder(_), Kind::Folder(names)) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.names_mut(folder)?.remove(name);
        self.names_mut(to_folder)?.insert(to_name.to_owned(), node);
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        let (name, to_name) = (name.to_owned(), to_name.to_owned());
        self.note(|| Operation::Rename { folder, name, to_folder, to_name });
        Ok(())
    }

    /// Writes what there is room for; how much that was.
    pub(crate) fn write(&mut self, node: Node, offset: u64, bytes: &[u8]) -> Done<usize> {
        self.may_change()?;
        let free = self.free();
        let Entry { kind: Kind::File(content), .. } = self.entry(node)? else { return Err(Errno::EISDIR) };
        let room = (content.len() as u64).next_multiple_of(BLOCK) + free;
        let fits = usize::try_from(room.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        if fits == 0 && !bytes.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let bytes = bytes.get(..fits).unwrap_or_default();
        let end = offset + fits as u64;
        self.change(node, |content| {
            if (content.len() as u64) < end {
                content.resize(end as usize, 0);
            }
            content[offset as usize..end as usize].copy_from_slice(bytes);
        })?;
        self.counts.writes += 1;
        self.counts.written += fits as u64;
        self.note(|| Operation::Write { node, offset, bytes: bytes.into() });
        Ok(fits)
    }

    /// Cuts a file or lengthens it with zeros.
    pub(crate) fn resize(&mut self, node: Node, length: u64) -> Done<()> {
        self.may_change()?;
        let entry = self.entry(node)?;
        if matches!(entry.kind, Kind::Folder(_)) {
            return Err(Errno::EISDIR);
        }
        if length.next_multiple_of(BLOCK) > entry.takes() + self.free() {
            return Err(Errno::ENOSPC);
        }
        self.change(node, |content| content.resize(length as usize, 0))?;
        self.note(|| Operation::Resize { node, length });
        Ok(())
    }

    fn change(&mut self, node: Node, work: impl FnOnce(&mut Vec<u8>)) -> Done<()> {
        let entry = self.entry_mut(node)?;
        let before = entry.takes();
        if let Kind::File(content) = &mut entry.kind {
            work(content);
        }
        entry.changed = SystemTime::now();
        let after = entry.takes();
        self.used = self.used - before + after;
        Ok(())
    }

    /// A sync, unless syncs fail.
    pub(crate) fn sync(&mut self, node: Node) -> Done<()> {
        self.entry(node)?;
        if self.has(Trouble::SyncsFail) {
            return Err(Errno::EIO);
        }
        let is_folder = matches!(self.entry(node)?.kind, Kind::Folder(_));
        let count = if is_folder { &mut self.counts.folder_syncs } else { &mut self.counts.syncs };
        *count += 1;
        self.note(|| if is_folder { Operation::SyncFolder { node } } else { Operation::Sync { node } });
        Ok(())
    }

    fn unlink(&mut self, node: Node) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.linked = false;
        }
        self.give_back(node);
    }

    pub(crate) fn opened(&mut self, node: Node) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.opened += 1;
        }
    }

    pub(crate) fn closed(&mut self, node: Node) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.opened = entry.opened.saturating_sub(1);
        }
        self.give_back(node);
    }

    pub(crate) fn told(&mut self, node: Node) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.known += 1;
        }
    }

    pub(crate) fn forgotten(&mut self, node: Node, times: u64) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.known = entry.known.saturating_sub(times);
        }
        self.give_back(node);
    }

    /// The space of a file comes back once it has no name and nobody has it open.
    fn give_back(&mut self, node: Node) {
        let Some(entry) = self.nodes.get_mut(&node).filter(|entry| !entry.linked && entry.opened == 0) else { return };
        let takes = match &mut entry.kind {
            Kind::File(content) => {
                let takes = (content.len() as u64).next_multiple_of(BLOCK);
                *content = Vec::new();
                takes
            }
            // A folder's block goes with its number.
            Kind::Folder(_) if entry.known == 0 => BLOCK,
            Kind::Folder(_) => 0,
        };
        self.used -= takes;
        if entry.known == 0 {
            self.nodes.remove(&node);
        }
    }
}
