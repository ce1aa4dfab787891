//! A block of readings: any bytes, then any columns and any compressed bytes behind a sound checksum.
#![no_main]

use clocher::buffer::block;
use clocher_fuzz::sound;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let Some(([few, many, first, kind, unpacked @ ..], payload)) = bytes.split_first_chunk::<8>() else { return };
    let (first, count) = (u64::MAX >> (first % 64), u32::from(u16::from_le_bytes([*few, *many])));
    let unpacked = match kind % 2 {
        0 => payload.len() as u32,
        _ => u32::from_le_bytes(*unpacked),
    };
    read(&sound::block(first, count, unpacked, payload));
});

fn read(bytes: &[u8]) {
    if let Ok(read) = block::decode(bytes) {
        let count = read.readings.len() + read.gone.len();
        assert!(count <= block::MOST_READINGS, "{count} numbers");
        assert_eq!(count as u64, read.last - read.first + 1, "a hole in the numbers");
        assert!(read.length <= bytes.len(), "longer than what was given");
        let whole = read.gone.is_empty();
        let in_order = |a: u64, b: u64| if whole { a + 1 == b } else { a < b };
        assert!(read.readings.is_sorted_by(|a, b| in_order(a.seq, b.seq)), "readings out of order");
    }
}
