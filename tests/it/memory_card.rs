//! The memory card the other tests keep stores on: it must fail as a card does, count what is done, and give space back.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::FileExt,
    sync::mpsc,
    time::Duration,
};

use clocher_card::{Card, Operation, Trouble};
use nix::{errno::Errno, sys::statvfs::statvfs};

const MB: u64 = 1 << 20;

fn inserted(size: u64) -> (tempfile::TempDir, Card) {
    let place = tempfile::tempdir().expect("a place");
    let card = Card::insert(place.path(), size).unwrap_or_else(|error| panic!("{error}"));
    (place, card)
}

fn free(card: &Card) -> u64 {
    let stat = statvfs(card.path()).expect("asked");
    stat.blocks_available() * stat.fragment_size()
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
}

#[test]
fn what_is_written_is_read_and_recorded_in_order() {
    let (_place, card) = inserted(4 * MB);
    card.record();
    let path = card.path().join("folder");
    fs::create_dir(&path).expect("made");
    let file = File::create(path.join("a")).expect("made");
    file.write_all_at(b"hello", 3).expect("written");
    card.mark("said");
    file.sync_data().expect("synced");
    file.set_len(6).expect("cut");
    fs::rename(path.join("a"), path.join("b")).expect("renamed");
    File::open(&path).expect("opens").sync_all().expect("synced");
    assert_eq!(fs::read(path.join("b")).expect("read"), b"\0\0\0hel");
    fs::remove_dir_all(&path).expect("removed");
    let told = card.recorded().iter().map(|o| format!("{o:?}")).collect::<Vec<_>>();
    let words = told.iter().map(|told| told.split([' ', '(']).next().unwrap_or_default()).collect::<Vec<_>>();
    let expected =
        ["MakeFolder", "Create", "Write", "Mark", "Sync", "Resize", "Rename", "SyncFolder", "Unlink", "RemoveFolder"];
    assert_eq!(words, expected, "{told:#?}");
    assert!(card.recorded().contains(&Operation::Write { node: 3, offset: 3, bytes: b"hello"[..].into() }));
    let counts = card.counts();
    assert_eq!((counts.writes, counts.written, counts.syncs, counts.folder_syncs), (1, 5, 1, 1));
}

#[test]
fn a_full_card_takes_what_fits_and_says_so_and_space_comes_back() {
    let (_place, card) = inserted(MB);
    let before = free(&card);
    let path = card.path().join("large");
    let mut file = File::create(&path).expect("made");
    let written = file.write(&vec![7; 2 * MB as usize]).expect("a part fits");
    assert!(written > 0 && (written as u64) < MB);
    let rest = loop {
        if let Err(error) = file.write(&[7; 4096]) {
            break error;
        }
    };
    assert_eq!(rest.kind(), ErrorKind::StorageFull);
    assert_eq!(free(&card), 0);
    // What is there already can be written again.
    file.write_all_at(&[8; 4096], 0).expect("written over");
    assert_eq!(errno(File::create(card.path().join("other"))), Some(Errno::ENOSPC));
    fs::remove_file(&path).expect("removed");
    assert_eq!(free(&card), 0, "an open file keeps its space");
    drop(file);
    card.leave_free(8192);
    // The kernel tells of the last close after it, and a listing waits its turn behind that.
    let space = std::iter::repeat_with(|| free(&card)).take(1000).find(|free| *free > 8192);
    assert!(space.is_some() || card.used() < before, "{} used", card.used());
    card.begin(Trouble::Full);
    assert_eq!((free(&card), errno(fs::write(&path, b"1"))), (0, Some(Errno::ENOSPC)));
    card.end(Trouble::Full);
    fs::write(&path, b"1").expect("written");
}

#[test]
fn each_trouble_is_felt_at_once_and_gone_after_it() {
    let (_place, card) = inserted(4 * MB);
    let path = card.path().join("file");
    fs::write(&path, b"sound").expect("written");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    let write = || errno(file.write_all_at(b"x", 0));
    let sync = || errno(file.sync_data());
    let read = || errno((&file).read(&mut [0; 8]));
    let felt = |trouble| {
        card.begin(trouble);
        let felt = [write(), sync(), read(), errno(fs::metadata(&path)), errno(File::create(card.path().join("new")))];
        card.end(trouble);
        let _ = fs::remove_file(card.path().join("new"));
        felt
    };
    let (eio, erofs) = (Some(Errno::EIO), Some(Errno::EROFS));
    assert_eq!(felt(Trouble::ReadOnly), [erofs, None, None, None, erofs]);
    assert_eq!(felt(Trouble::WritesFail), [eio, None, None, None, eio]);
    assert_eq!(felt(Trouble::SyncsFail), [None, eio, None, None, None]);
    assert_eq!(felt(Trouble::ReadsFail), [None, None, eio, None, None]);
    assert_eq!(felt(Trouble::Gone), [eio; 5]);
    assert_eq!([write(), sync(), read()], [None; 3]);
}

#[test]
fn a_card_that_hangs_answers_reads_and_lets_go_once_it_recovers() {
    let (_place, card) = inserted(4 * MB);
    let path = card.path().join("file");
    fs::write(&path, b"sound").expect("written");
    card.begin(Trouble::Hangs);
    let (done, finished) = mpsc::channel();
    let writer = path.clone();
    let thread = std::thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(writer).expect("opens");
        file.write_all_at(b"later", 0).expect("written");
        file.sync_all().expect("synced");
        done.send(()).expect("heard");
    });
    assert_eq!(fs::read(&path).expect("read"), b"sound");
    assert!(finished.recv_timeout(Duration::from_millis(100)).is_err(), "it did not hang");
    card.recover();
    finished.recv_timeout(Duration::from_secs(20)).expect("let go");
    thread.join().expect("ended");
    assert_eq!(fs::read(&path).expect("read"), b"later");
}
