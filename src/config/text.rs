//! From the bytes of a file to its text, however the editor of a PC has saved it: UTF-8 with or without its mark, UTF-16
//! with its mark (Notepad's "Unicode"), or the old code page of western Europe (its "ANSI").

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Words, words};

/// More than any configuration; a file beyond is something else.
pub const LARGEST: u64 = 256 * 1024;

/// The text of a file; what cannot be read, or is too large, is told.
///
/// # Errors
/// In the operator's words.
pub fn read(path: &Path) -> Result<String, Words> {
    let cannot = |wrong: io::Error| words!("the file cannot be read: {wrong}", "le fichier ne se lit pas : {wrong}");
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        let most = LARGEST / 1024;
        return Err(words!(
            "the file is larger than {most} KiB: it is not a configuration",
            "le fichier dépasse {most} ko : ce n'est pas une configuration"
        ));
    }
    Ok(decode(&bytes))
}

/// The text that these bytes are. Bytes that are no text give one that no longer parses, never a panic.
pub fn decode(bytes: &[u8]) -> String {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest),
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(western).collect(), ToOwned::to_owned)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A byte of Windows-1252. Source: WHATWG Encoding Standard, index-windows-1252.txt.
fn western(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    byte.checked_sub(0x80).and_then(|place| UPPER.get(usize::from(place)).copied()).unwrap_or(char::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = \"Salle des fêtes, 5 €\"\r\n";

    #[test]
    fn every_way_notepad_saves_gives_the_same_text() {
        let utf16 = |order: fn(u16) -> [u8; 2]| TEXT.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let western: Vec<u8> =
            TEXT.chars().map(|c| if c == '€' { 0x80 } else { u8::try_from(c as u32).expect("western") }).collect();
        for bytes in [
            TEXT.as_bytes().to_vec(),
            [b"\xEF\xBB\xBF", TEXT.as_bytes()].concat(),
            [b"\xFF\xFE".to_vec(), utf16(u16::to_le_bytes)].concat(),
            [b"\xFE\xFF".to_vec(), utf16(u16::to_be_bytes)].concat(),
            western,
        ] {
            assert_eq!(decode(&bytes), TEXT, "{bytes:?}");
        }
    }

    #[test]
    fn half_a_character_is_no_panic() {
        assert_eq!(decode(b"\xFF\xFEa\0b"), "ab");
        assert_eq!(decode(b"\xFF\xFE\x00\xD8"), "\u{fffd}");
        assert_eq!(decode(b"\xFF\xFE"), "");
    }

    #[test]
    fn a_file_too_large_or_away_is_told_in_both_languages() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("clocher.toml");
        assert!(read(&path).expect_err("away").french.contains("ne se lit pas"));
        std::fs::write(&path, vec![b'#'; LARGEST as usize + 1]).expect("written");
        assert!(read(&path).expect_err("too large").french.contains("256 ko"));
    }
}
