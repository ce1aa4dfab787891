//! What the kernel asks, answered from the tree.

use std::{
    ffi::OsStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::{
    BLOCK, Node, Shared, Trouble,
    tree::{Entry, Kind, Tree},
};

/// The kernel remembers nothing, so that trouble is felt at once.
const NEVER: Duration = Duration::ZERO;
/// `fallocate` without changing the length: FALLOC_FL_KEEP_SIZE.
const KEEP_SIZE: i32 = 1;
/// `open` with O_TRUNC never comes here: the kernel makes a `setattr` of it.
const DIRECT: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

pub(crate) struct Driver(pub(crate) Arc<Shared>);

impl Driver {
    /// Does what changes the card: at once, or later when it is slow or hangs. Others are answered meanwhile.
    fn changing(&self, work: impl FnOnce(&mut Tree) + Send + 'static) {
        let shared = Arc::clone(&self.0);
        let mut tree = self.0.lock();
        if !tree.hangs() && tree.delay.is_zero() {
            return work(&mut tree);
        }
        let delay = tree.delay;
        drop(tree);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            let hanging = shared.recovered.wait_while(shared.lock(), |tree| tree.hangs());
            work(&mut hanging.unwrap_or_else(std::sync::PoisonError::into_inner));
        });
    }
}

fn attributes(node: Node, entry: &Entry) -> FileAttr {
    let (kind, links) = match entry.kind {
        Kind::File(_) => (FileType::RegularFile, 1),
        Kind::Folder(_) => (FileType::Directory, 2),
    };
    FileAttr {
        ino: INodeNo(node),
        size: entry.length(),
        blocks: entry.takes() / 512,
        atime: entry.changed,
        mtime: entry.changed,
        ctime: entry.changed,
        crtime: entry.changed,
        kind,
        perm: entry.mode,
        nlink: links,
        uid: entry.owner.0,
        gid: entry.owner.1,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

fn answer_entry(tree: &mut Tree, found: Result<Node, Errno>, reply: ReplyEntry) {
    let attributes = found.and_then(|node| Ok(attributes(node, tree.entry(node)?)));
    match attributes {
        Ok(attributes) => {
            tree.told(attributes.ino.0);
            reply.entry(&NEVER, &attributes, Generation(0));
        }
        Err(error) => reply.error(error),
    }
}

fn answer_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn permissions(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

impl Filesystem for Driver {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.0.lock();
        let found = tree.find(parent.0, name);
        answer_entry(&mut tree, found, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.0.lock().forgotten(ino.0, nlookup);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().entry(ino.0) {
            Ok(entry) => reply.attr(&NEVER, &attributes(ino.0, entry)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.changing(move |tree| {
            let done = (|| {
                tree.may_change()?;
                if let Some(size) = size {
                    tree.resize(ino.0, size)?;
                }
                let entry = tree.entry_mut(ino.0)?;
                entry.mode = mode.map_or(entry.mode, |mode| permissions(mode, 0));
                entry.owner = (uid.unwrap_or(entry.owner.0), gid.unwrap_or(entry.owner.1));
                entry.changed = match mtime {
                    Some(TimeOrNow::SpecificTime(time)) => time,
                    Some(TimeOrNow::Now) => SystemTime::now(),
                    None => entry.changed,
                };
                Ok(attributes(ino.0, entry))
            })();
            match done {
                Ok(attributes) => reply.attr(&NEVER, &attributes),
                Err(error) => reply.error(error),
            }
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (name, owner, mode) = (name.to_owned(), (request.uid(), request.gid()), permissions(mode, umask));
        self.changing(move |tree| {
            let made = tree.make(parent.0, &name, Kind::Folder(Default::default()), mode, owner);
            answer_entry(tree, made, reply);
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let (name, owner, mode) = (name.to_owned(), (request.uid(), request.gid()), permissions(mode, umask));
        self.changing(move |tree| {
            let made = tree.make(parent.0, &name, Kind::File(Vec::new()), mode, owner);
            answer_entry(tree, made, reply);
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let (name, owner, mode) = (name.to_owned(), (request.uid(), request.gid()), permissions(mode, umask));
        self.changing(move |tree| {
            let made = tree
                .make(parent.0, &name, Kind::File(Vec::new()), mode, owner)
                .and_then(|node| Ok(attributes(node, tree.entry(node)?)));
            match made {
                Ok(attributes) => {
                    tree.told(attributes.ino.0);
                    tree.opened(attributes.ino.0);
                    reply.created(&NEVER, &attributes, Generation(0), FileHandle(0), DIRECT);
                }
                Err(error) => reply.error(error),
            }
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.changing(move |tree| answer_empty(tree.remove(parent.0, &name, false), reply));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.changing(move |tree| answer_empty(tree.remove(parent.0, &name, true), reply));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.changing(move |tree| {
            let taken = tree.find(newparent.0, &newname).is_ok();
            let done = if flags == RenameFlags::RENAME_NOREPLACE && taken {
                Err(Errno::EEXIST)
            } else if flags.is_empty() || flags == RenameFlags::RENAME_NOREPLACE {
                tree.rename(parent.0, &name, newparent.0, &newname)
            } else {
                Err(Errno::EINVAL)
            };
            answer_empty(done, reply);
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut tree = self.0.lock();
        let for_writing = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let refused = if for_writing && tree.has(Trouble::ReadOnly) { Err(Errno::EROFS) } else { Ok(()) };
        match refused.and_then(|()| tree.entry(ino.0).map(|_| ())) {
            Ok(()) => {
                tree.opened(ino.0);
                reply.opened(FileHandle(0), DIRECT);
            }
            Err(error) => reply.error(error),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().closed(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let tree = self.0.lock();
        if tree.has(Trouble::ReadsFail) {
            return reply.error(Errno::EIO);
        }
        match tree.entry(ino.0).map(|entry| &entry.kind) {
            Ok(Kind::File(content)) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let to = from.saturating_add(size as usize).min(content.len());
                reply.data(content.get(from..to).unwrap_or_default());
            }
            Ok(Kind::Folder(_)) => reply.error(Errno::EISDIR),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.changing(move |tree| match tree.write(ino.0, offset, &data) {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(error),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.changing(move |tree| answer_empty(tree.sync(ino.0), reply));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.changing(move |tree| answer_empty(tree.sync(ino.0), reply));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.changing(move |tree| {
            let longer = |tree: &Tree| tree.entry(ino.0).map(|entry| entry.length() < offset + length);
            let done = match mode {
                0 => match longer(tree) {
                    Ok(true) => tree.resize(ino.0, offset + length),
                    other => other.and_then(|_| tree.may_change()),
                },
                // Nothing is reserved.
                KEEP_SIZE => tree.may_change(),
                _ => Err(Errno::EOPNOTSUPP),
            };
            answer_empty(done, reply);
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let tree = self.0.lock();
        let names = match tree.names(ino.0) {
            Ok(names) => names,
            Err(error) => return reply.error(error),
        };
        let dots = [(".", ino.0), ("..", ino.0)].map(|(name, node)| (OsStr::new(name), node, FileType::Directory));
        let entries = names.iter().map(|(name, node)| {
            let is_folder = tree.names(*node).is_ok();
            (name.as_os_str(), *node, if is_folder { FileType::Directory } else { FileType::RegularFile })
        });
        // A place in the listing is the number of an entry, or it would shift while files are removed from under it.
        let placed = dots.into_iter().zip(1..).chain(entries.map(|(name, node, kind)| ((name, node, kind), node + 2)));
        let mut placed = placed.filter(|(_, place)| *place > offset).collect::<Vec<_>>();
        placed.sort_by_key(|(_, place)| *place);
        for ((name, node, kind), place) in placed {
            if reply.add(INodeNo(node), place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let tree = self.0.lock();
        if let Err(error) = tree.there() {
            return reply.error(error);
        }
        let free = tree.free() / BLOCK;
        reply.statfs(tree.size / BLOCK, free, free, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }
}
