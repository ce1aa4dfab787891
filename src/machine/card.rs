//! How the card wears: what was written to it since it was put in, by anyone; how long it takes to make a commit safe;
//! how much room is left.
//!
//! A card tells nothing of its own wear (an eMMC does), so the figures are what the kernel counts. What was written in
//! the last hours before a power cut is not in the sum: it is kept every six hours.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::{
    stat::{major, minor},
    statvfs::statvfs,
};
use serde::{Deserialize, Serialize};

use super::{Kernel, said};
use crate::{clock::Stamp, store::Syncs};

/// The sum is written down so often: four records a day.
const KEEP_EVERY_MS: u64 = 6 * 3_600_000;
/// A card has been written over so many times, and it is time to think of another. Makers of ordinary cards state
/// nothing; of endurance cards they state thousands (Samsung PRO Endurance 256 GB, 2022: 16 years at 26 Mbit/s, some
/// 6 000 times its size). Ours are small writes, which wear a card more than their size.
const TIMES_OVER: u64 = 100;
/// A commit that usually takes longer: twice what an SDXC card may take to write at worst, and SDHC four times. Source:
/// SD Physical Layer Simplified Specification, §4.6.2.2, write timeouts of 250 and 500 ms.
const SLOW_MS: u32 = 1_000;
/// Less room is little: the store writes in segments of so much at most (DESIGN.md, "Buffer").
const LITTLE_ROOM: u64 = 64 << 20;
/// Commits before anything is said of their usual time.
const ENOUGH: u64 = 64;
/// From here on an eMMC has used nine tenths of its life. Source: JEDEC JESD84-B51, DEVICE_LIFE_TIME_EST.
const LIFE_NEARLY_SPENT: u8 = 0x0A;

/// The card, as the panel and the peers are told of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Card {
    /// Bytes written to it since the store first saw it; `None` where the kernel counts none.
    pub written: Option<u64>,
    /// Since when.
    pub since: Option<Stamp>,
    /// Its size.
    pub size: Option<u64>,
    /// Bytes free and in all where the store lies.
    pub room: Option<(u64, u64)>,
    /// How long the last commits took to be safe.
    pub syncs: Syncs,
    /// An eMMC's own word: tenths of its life used, rounded up; 11 when it is over.
    pub life: Option<u8>,
}

impl Card {
    /// Why it is slow. One that is must be twice as fast to be good again.
    pub(super) fn slow(&self, already: bool) -> Option<String> {
        let most = if already { SLOW_MS / 2 } else { SLOW_MS };
        let Syncs { count, median_ms, most_ms, .. } = self.syncs;
        let slow = count >= ENOUGH && median_ms > most;
        slow.then(|| format!("a commit usually takes {median_ms} ms, one in twenty {most_ms} ms or more"))
    }

    /// How little room is left. The store keeps within its limit; what fills a card is something else, or a limit larger than the
    /// card, and neither stops by itself. Twice the room must be there to be enough again.
    pub(super) fn nearly_full(&self, already: bool) -> Option<String> {
        let (free, all) = self.room?;
        // Of a small partition less is enough, or it could never be good again.
        let little = LITTLE_ROOM.min(all / 16);
        let least = if already { little * 2 } else { little };
        (free < least).then(|| format!("{} of {} MB are free", free / 1_000_000, all / 1_000_000))
    }

    /// Why it should be replaced soon.
    pub(super) fn worn(&self) -> Option<String> {
        if let Some(life) = self.life.filter(|life| *life >= LIFE_NEARLY_SPENT) {
            return Some(format!("the eMMC says that {life} tenths of its life are used"));
        }
        let (written, size) = (self.written?, self.size.filter(|size| *size > 0)?);
        let times = written / size;
        (times >= TIMES_OVER).then(|| format!("written {times} times over, {TIMES_OVER} are expected of it"))
    }
}

/// What the kernel says of the device beneath the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    written: u64,
    size: Option<u64>,
    /// What an SD card or eMMC calls itself: another one starts from nothing.
    name: Option<String>,
    life: Option<u8>,
}

/// Looks; `None` where the store does not lie on a block device.
pub(super) fn seen(kernel: &Kernel, directory: &Path) -> Option<Seen> {
    let device = fs::metadata(directory).ok()?.dev();
    look(&whole(&kernel.sys.join(format!("dev/block/{}:{}", major(device), minor(device))))?)
}

/// The whole device: a partition is a folder in the folder of its device.
fn whole(link: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(link).ok()?;
    if folder.join("partition").exists() { folder.parent().map(Path::to_owned) } else { Some(folder) }
}

/// Source: Linux, `Documentation/block/stat.rst` (field 7, in sectors of 512 bytes) and
/// `Documentation/driver-api/mmc/mmc-dev-attrs.rst`.
fn look(folder: &Path) -> Option<Seen> {
    let sectors = |text: Option<String>, field: usize| text?.split_whitespace().nth(field)?.parse::<u64>().ok();
    Some(Seen {
        written: sectors(said(&folder.join("stat")), 6)?.saturating_mul(512),
        size: sectors(said(&folder.join("size")), 0).map(|size| size.saturating_mul(512)),
        name: said(&folder.join("device/cid")),
        life: said(&folder.join("device/life_time")).as_deref().and_then(life),
    })
}

/// Two estimates such as `0x01 0x0a`; the worse. 0 is none.
fn life(text: &str) -> Option<u8> {
    let estimates = text.split_whitespace().filter_map(|word| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    estimates.max().filter(|worst| *worst > 0)
}

/// What was counted so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Bytes in all.
    total: u64,
    /// The kernel's count when they were, in that run of the machine.
    seen: u64,
    run: String,
    /// The card.
    name: Option<String>,
    /// When it was first seen.
    since: Stamp,
}

impl Tally {
    /// Goes on counting. What the kernel had counted before the store was there is nobody's; another card has seen only
    /// this run of the machine.
    fn after(before: Option<Self>, seen: &Seen, run: &str, now: Stamp) -> Self {
        let (total, since) = match &before {
            None => (0, now),
            Some(tally) if tally.name != seen.name => (seen.written, now),
            // A count that fell belongs to a device that went and came back.
            Some(tally) if tally.run == run && tally.seen <= seen.written => {
                (tally.total + seen.written - tally.seen, tally.since)
            }
            Some(tally) => (tally.total + seen.written, tally.since),
        };
        Self { total, seen: seen.written, run: run.to_owned(), name: seen.name.clone(), since }
    }
}

/// Counts from look to look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    tally: Option<Tally>,
    kept_ms: Option<u64>,
}

impl Watch {
    /// Counts what was written; gives what is to be written down. `kept` reads what was kept, once.
    pub(super) fn count(
        &mut self,
        seen: &Seen,
        kept: impl FnOnce() -> Option<Tally>,
        run: &str,
        now: Stamp,
        last: bool,
    ) -> Option<Tally> {
        let before = self.tally.take().or_else(kept);
        let tally = self.tally.insert(Tally::after(before, seen, run, now));
        let due = self.kept_ms.is_none_or(|kept| now.mono_ms.saturating_sub(kept) >= KEEP_EVERY_MS);
        if !(due || last) {
            return None;
        }
        self.kept_ms = Some(now.mono_ms);
        Some(tally.clone())
    }

    /// The card as it is.
    pub(super) fn card(&self, seen: Option<&Seen>, directory: &Path, syncs: Syncs) -> Card {
        Card {
            written: self.tally.as_ref().map(|tally| tally.total),
            since: self.tally.as_ref().map(|tally| tally.since),
            size: seen.and_then(|seen| seen.size),
            room: room(directory),
            syncs,
            life: seen.and_then(|seen| seen.life),
        }
    }
}

/// Bytes free and in all.
fn room(directory: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(directory).ok()?;
    // Narrower on some targets.
    #[allow(clippy::useless_conversion)]
    let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(stat.fragment_size()));
    Some((bytes(stat.blocks_available()), bytes(stat.blocks())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Stamp = Stamp { boot: 2, mono_ms: 0 };

    fn seen(written: u64) -> Seen {
        Seen { written, size: Some(32_000_000_000), name: Some("aa".into()), life: None }
    }

    fn at(hours: u64) -> Stamp {
        Stamp { boot: 2, mono_ms: hours * 3_600_000 }
    }

    #[test]
    fn the_card_beneath_a_partition_is_looked_at() {
        let place = tempfile::tempdir().expect("a folder");
        let disk = place.path().join("devices/mmcblk0");
        let partition = disk.join("mmcblk0p4");
        fs::create_dir_all(&partition).expect("made");
        fs::create_dir_all(disk.join("device")).expect("made");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("written");
        write(partition.join("partition"), "4\n");
        write(disk.join("stat"), "     100  0 800  0   50  0  2000  0 0 0 0\n");
        write(disk.join("size"), "62333952\n");
        write(disk.join("device/cid"), "035344534e3332478000000000012345\n");
        write(disk.join("device/life_time"), "0x01 0x03\n");
        let link = place.path().join("179:4");
        std::os::unix::fs::symlink(&partition, &link).expect("linked");
        let found = whole(&link).and_then(|folder| look(&folder)).expect("seen");
        assert_eq!((found.written, found.size, found.life), (2_000 * 512, Some(62_333_952 * 512), Some(3)));
        assert_eq!(found.name.as_deref(), Some("035344534e3332478000000000012345"));
        assert_eq!(look(place.path()), None, "not a block device");
    }

    #[test]
    fn what_is_written_adds_up_over_looks_restarts_and_runs_of_the_machine() {
        let mut watch = Watch::default();
        let kept = watch.count(&seen(1_000), || None, "a", NOW, false).expect("the first is kept");
        watch.count(&seen(1_500), || panic!("read once"), "a", at(1), false);
        let again = Tally::after(watch.tally.clone(), &seen(1_600), "a", at(2));
        assert_eq!((again.total, again.since), (600, NOW), "the gateway alone started again");
        let cut = Tally::after(Some(kept), &seen(300), "b", at(2));
        assert_eq!(cut.total, 300, "since the last record nothing is known of the run before");
    }

    #[test]
    fn another_card_starts_anew() {
        let before = Tally::after(None, &seen(9_000), "a", NOW);
        let other = Seen { name: Some("bb".into()), ..seen(100) };
        let tally = Tally::after(Some(before), &other, "b", at(5));
        assert_eq!((tally.total, tally.since), (100, at(5)));
    }

    #[test]
    fn the_sum_is_written_down_four_times_a_day() {
        let mut watch = Watch::default();
        let kept = (0..24 * 60).filter(|minute| {
            let now = Stamp { boot: 2, mono_ms: minute * 60_000 };
            watch.count(&seen(minute * 1_000), || None, "a", now, false).is_some()
        });
        assert_eq!(kept.count(), 4);
        assert!(watch.count(&seen(9_999_999), || None, "a", at(24), true).is_some(), "and at the end");
    }

    #[test]
    fn a_card_is_worn_when_it_was_written_over_a_hundred_times_or_says_so_itself() {
        let card = Card { written: Some(99 * 32), size: Some(32), ..Card::default() };
        assert_eq!(card.worn(), None);
        assert!(Card { written: Some(100 * 32), ..card }.worn().is_some());
        assert!(Card { life: Some(0x0A), ..card }.worn().is_some());
        assert_eq!(Card { size: None, ..card }.worn(), None);
        for (text, told) in [("0x01 0x0a", Some(10)), ("0x00 0x00", None), ("", None), ("zz", None)] {
            assert_eq!(life(text), told, "{text:?}");
        }
    }

    #[test]
    fn a_card_is_slow_when_commits_usually_are_and_good_again_at_half_that() {
        let card = |count, median_ms| Card {
            syncs: Syncs { count, median_ms, most_ms: 4_000, longest_ms: 9_000 },
            ..Card::default()
        };
        assert_eq!(card(63, 5_000).slow(false), None, "too early to tell");
        assert_eq!(card(500, 1_000).slow(false), None);
        assert!(card(500, 1_001).slow(false).is_some());
        assert!(card(500, 600).slow(true).is_some(), "still");
        assert_eq!(card(500, 500).slow(true), None);
    }

    #[test]
    fn a_card_is_nearly_full_below_a_segment_s_room_and_good_again_at_twice_that() {
        let card = |free| Card { room: Some((free, 4_000_000_000)), ..Card::default() };
        assert_eq!(card(LITTLE_ROOM).nearly_full(false), None);
        assert_eq!(card(LITTLE_ROOM - 1).nearly_full(false).as_deref(), Some("67 of 4000 MB are free"));
        assert!(card(LITTLE_ROOM).nearly_full(true).is_some(), "still");
        assert_eq!(card(LITTLE_ROOM * 2).nearly_full(true), None);
        assert_eq!(Card::default().nearly_full(false), None, "nothing is known");
        let small = Card { room: Some((LITTLE_ROOM, LITTLE_ROOM * 2)), ..Card::default() };
        assert_eq!(small.nearly_full(true), None, "half of a small partition");
    }

    #[test]
    fn the_room_where_the_store_lies_is_told() {
        let place = tempfile::tempdir().expect("a folder");
        let (free, all) = room(place.path()).expect("told");
        assert!(0 < all && free <= all);
    }
}
