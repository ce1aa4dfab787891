//! A file where a folder should be, or a folder where a file should be: set aside before anything is opened, so that the
//! system's refusal is not taken for a card that may yet give back what it holds.

use std::{fs, path::Path};

use tracing::warn;

use super::{salvage::Aside, shelf::Shelf};
use crate::{store::StoreError, supervisor::chain};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// The marker alone: before it there is no lock.
pub(super) fn free_marker(directory: &Path, aside: &Aside) -> Vec<String> {
    let mut told = Vec::new();
    expect(&directory.join("marker"), Kind::File, aside, &mut told);
    told
}

/// All of the store. Tells what was set aside, in words.
pub(super) fn set_right(directory: &Path, aside: &Aside) -> Vec<String> {
    let mut told = Vec::new();
    expect(&directory.join("head"), Kind::File, aside, &mut told);
    for name in ["keep", "keep.next", "keep.old"] {
        expect_database(&directory.join(name), aside, &mut told);
    }
    let segments = directory.join("segments");
    expect(&segments, Kind::Folder, aside, &mut told);
    for first in Shelf::on_card(&segments).0 {
        expect_database(&Shelf::folder(&segments, first), aside, &mut told);
    }
    told
}

fn expect_database(folder: &Path, aside: &Aside, told: &mut Vec<String>) {
    expect(folder, Kind::Folder, aside, told);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = if entry.file_name() == "blobs" { Kind::Folder } else { Kind::File };
        expect(&entry.path(), kind, aside, told);
    }
    for entry in fs::read_dir(folder.join("blobs")).into_iter().flatten().flatten() {
        expect(&entry.path(), Kind::File, aside, told);
    }
}

fn expect(path: &Path, kind: Kind, aside: &Aside, told: &mut Vec<String>) {
    let Ok(data) = fs::symlink_metadata(path) else { return };
    let suits = match kind {
        Kind::File => !data.is_dir(),
        // A link to a folder elsewhere is its owner's wish.
        Kind::Folder => path.is_dir(),
    };
    if suits {
        return;
    }
    match set_aside(path, aside) {
        Ok(place) => told.push(format!("{} is not what it should be; set aside in {place}", path.display())),
        Err(error) => warn!(why = chain(&error), "What is of the wrong kind not set aside"),
    }
}

fn set_aside(path: &Path, aside: &Aside) -> Result<String, StoreError> {
    aside.take(path).map(|place| place.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_a_folder_and_a_folder_for_a_file_are_set_aside_even_where_the_place_for_them_is_a_file() {
        let folder = tempfile::tempdir().expect("folder");
        let directory = folder.path();
        fs::write(directory.join("damaged"), "in the way").expect("written");
        fs::write(directory.join("keep"), "a file").expect("written");
        fs::create_dir_all(directory.join("head/x")).expect("made");
        fs::create_dir_all(directory.join("segments/00000000000000000001/db")).expect("made");
        let aside = Aside::new(directory.join("damaged"), 1 << 20);
        assert_eq!(set_right(directory, &aside).len(), 3);
        assert!(!directory.join("keep").exists() && !directory.join("head").exists());
        assert!(directory.join("segments/00000000000000000001").is_dir());
        assert_eq!(aside.list().len(), 4, "{:?}", aside.list());
        assert!(set_right(directory, &aside).is_empty());
    }
}
