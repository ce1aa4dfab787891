//! A recording as a file, so that a state that failed can be looked at again.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use crate::Operation;

const MAGIC: &[u8; 8] = b"CLCARD1\n";

/// Writes a recording.
///
/// # Errors
/// When the file cannot be written.
pub fn save(operations: &[Operation], path: &Path) -> io::Result<()> {
    let mut out = MAGIC.to_vec();
    for operation in operations {
        put(&mut out, operation);
    }
    fs::write(path, out)
}

/// Reads a recording.
///
/// # Errors
/// When the file cannot be read or is no recording.
pub fn load(path: &Path) -> io::Result<Vec<Operation>> {
    let bytes = fs::read(path)?;
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(io::ErrorKind::InvalidData)?;
    let mut operations = Vec::new();
    while !rest.is_empty() {
        operations.push(get(&mut rest).ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(operations)
}

fn put(out: &mut Vec<u8>, operation: &Operation) {
    let (kind, numbers, names): (u8, [u64; 2], [&[u8]; 2]) = match operation {
        Operation::Create { folder, name, node } => (0, [*folder, *node], [name.as_bytes(), b""]),
        Operation::MakeFolder { folder, name, node } => (1, [*folder, *node], [name.as_bytes(), b""]),
        Operation::Write { node, offset, bytes } => (2, [*node, *offset], [bytes, b""]),
        Operation::Resize { node, length } => (3, [*node, *length], [b"", b""]),
        Operation::Sync { node } => (4, [*node, 0], [b"", b""]),
        Operation::SyncFolder { node } => (5, [*node, 0], [b"", b""]),
        Operation::Rename { folder, name, to_folder, to_name } => {
            (6, [*folder, *to_folder], [name.as_bytes(), to_name.as_bytes()])
        }
        Operation::Unlink { folder, name } => (7, [*folder, 0], [name.as_bytes(), b""]),
        Operation::RemoveFolder { folder, name } => (8, [*folder, 0], [name.as_bytes(), b""]),
        Operation::Mark(text) => (9, [0, 0], [text.as_bytes(), b""]),
    };
    out.push(kind);
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
    for name in names {
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name);
    }
}

fn get(rest: &mut &[u8]) -> Option<Operation> {
    let kind = take(rest, 1)?[0];
    let (a, b) = (number(rest)?, number(rest)?);
    let (first, second) = (bytes(rest)?, bytes(rest)?);
    let name = |bytes: &[u8]| -> OsString { OsStr::from_bytes(bytes).to_owned() };
    Some(match kind {
        0 => Operation::Create { folder: a, name: name(first), node: b },
        1 => Operation::MakeFolder { folder: a, name: name(first), node: b },
        2 => Operation::Write { node: a, offset: b, bytes: first.into() },
        3 => Operation::Resize { node: a, length: b },
        4 => Operation::Sync { node: a },
        5 => Operation::SyncFolder { node: a },
        6 => Operation::Rename { folder: a, name: name(first), to_folder: b, to_name: name(second) },
        7 => Operation::Unlink { folder: a, name: name(first) },
        8 => Operation::RemoveFolder { folder: a, name: name(first) },
        9 => Operation::Mark(OsString::from_vec(first.to_vec()).into_string().ok()?),
        _ => return None,
    })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    take(rest, length)
}
