//! Who this store is and how far its numbers may have gone, outside of sled and of the head: two pages written in
//! turn, so that one is always whole. Also the lock that keeps a second gateway out.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::bytes::Cursor;

const MAGIC: [u8; 4] = *b"CKM1";
const PAGE: u64 = 4096;
const LENGTH: usize = 64;

/// What the marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Names the store.
    pub identity: [u8; 16],
    /// The latest start of the gateway.
    pub boot: u32,
    /// Numbers up to here may have been given out.
    pub reserved: u64,
    /// Readings lost over the life of the box.
    pub lost: u64,
    /// The gateway stopped in order: all numbers up to `reserved` were given out.
    pub closed: bool,
    /// The head holds records: an empty one has lost them.
    pub used: bool,
}

impl Mark {
    fn to_bytes(self, turn: u64) -> [u8; LENGTH] {
        let mut out = [0; LENGTH];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.boot.to_le_bytes());
        out[8..16].copy_from_slice(&turn.to_le_bytes());
        out[16..32].copy_from_slice(&self.identity);
        out[32..40].copy_from_slice(&self.reserved.to_le_bytes());
        out[40..48].copy_from_slice(&self.lost.to_le_bytes());
        out[48] = u8::from(self.closed);
        out[49] = u8::from(self.used);
        let checksum = crc32fast::hash(&out[..LENGTH - 4]);
        out[LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn read(bytes: &[u8]) -> Option<(u64, Self)> {
        let bytes = bytes.get(..LENGTH)?;
        let mut cursor = Cursor(bytes);
        let magic = cursor.array::<4>()?;
        let (boot, turn, identity) = (cursor.u32()?, cursor.u64()?, cursor.array()?);
        let (reserved, lost) = (cursor.u64()?, cursor.u64()?);
        let (closed, used) = (cursor.byte()? == 1, cursor.byte()? == 1);
        let checksum = u32::from_le_bytes(*bytes.last_chunk()?);
        let sound = magic == MAGIC && checksum == crc32fast::hash(&bytes[..LENGTH - 4]);
        sound.then_some((turn, Self { identity, boot, reserved, lost, closed, used }))
    }
}

/// Of two pages the one written last.
fn newest(bytes: &[u8]) -> Option<(u64, Mark)> {
    let pages = [0, PAGE as usize].map(|at| bytes.get(at..).and_then(Mark::read));
    pages.into_iter().flatten().max_by_key(|(turn, _)| *turn)
}

/// The marker file, locked.
#[derive(Debug)]
pub(super) struct Marker {
    file: Flock<File>,
    turn: u64,
    mark: Mark,
}

impl Marker {
    /// Opens and locks it. The mark is `None` when there is none that can be read; true when there was a file.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Mark>, bool)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        let mut bytes = Vec::new();
        // A marker that cannot be read is a damaged one, not a reason to stay down.
        let _ = (&mut *file).take(2 * PAGE).read_to_end(&mut bytes);
        let (turn, mark) = newest(&bytes).unzip();
        let marker = Self { file, turn: turn.unwrap_or(0), mark: mark.unwrap_or_default() };
        Ok((marker, mark, !bytes.is_empty()))
    }

    /// Reads it without a lock, from a card that takes no writes.
    pub(super) fn read(path: &Path) -> io::Result<Option<Mark>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(2 * PAGE).read_to_end(&mut bytes)?;
        Ok(newest(&bytes).map(|(_, mark)| mark))
    }

    /// What it says now.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Writes a new mark beside the old one; on the card when it returns.
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let turn = self.turn + 1;
        let mut page = mark.to_bytes(turn).to_vec();
        page.resize(PAGE as usize, 0);
        self.file.write_all_at(&page, turn % 2 * PAGE)?;
        self.file.sync_data()?;
        self.turn = turn;
        self.mark = mark;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_mark_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("marker");
        let (mut marker, none, existed) = Marker::open(&path).expect("opens");
        assert!(none.is_none() && !existed);
        for boot in 1..=5 {
            marker
                .write(Mark { boot, identity: [3; 16], reserved: 7, lost: 0, closed: false, used: true })
                .expect("writes");
        }
        drop(marker);
        let whole = std::fs::read(&path).expect("reads");
        for (page, expected) in [(5 % 2, 4), (4 % 2, 5)] {
            let mut torn = whole.clone();
            torn[page * PAGE as usize + 20] ^= 1;
            std::fs::write(&path, torn).expect("writes");
            let (_, mark, _) = Marker::open(&path).expect("opens");
            assert_eq!(mark.map(|m| m.boot), Some(expected));
        }
    }

    #[test]
    fn a_second_gateway_is_kept_out() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("marker");
        let first = Marker::open(&path).expect("opens");
        assert!(Marker::open(&path).is_err());
        drop(first);
        assert!(Marker::open(&path).is_ok());
    }
}
