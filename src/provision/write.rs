//! A file written whole or not at all, and only when it changes, to spare the card.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

/// For root alone. True when it was another one before.
pub(super) fn private(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    write(path, bytes, 0o600)
}

/// For root and the group of the folder.
pub(super) fn shared(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    write(path, bytes, 0o640)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    if fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode)
        && fs::read(path).is_ok_and(|known| known == bytes)
    {
        return Ok(false);
    }
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(if mode == 0o600 { 0o700 } else { 0o750 }).create(folder)?;
    let mut draft =
        tempfile::Builder::new().prefix(".clocher-").permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
    draft.write_all(bytes)?;
    // Whatever the caller's umask.
    draft.as_file().set_permissions(Permissions::from_mode(mode))?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|wrong| wrong.error)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}
