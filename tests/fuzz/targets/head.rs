//! A head file after a power cut: any bytes, then records with sound checksums in any order, some cut or overwritten.
#![no_main]

use clocher::buffer::head;
use clocher_fuzz::sound;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = head::scan(bytes, sound::STORE);
    let _ = head::scan(&file(bytes), sound::STORE);
});

/// Each record is told by six bytes: where it goes, commit, first number, count, and how many bytes its block holds.
fn file(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 4_096];
    while let Some(([place, commit, first, count, length, wide], rest)) = bytes.split_first_chunk::<6>() {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let first = if *wide == 0 { u64::MAX - u64::from(*first) } else { u64::from(*first) };
        let count = u32::from(*count);
        let block = sound::block(first, count, payload.len() as u32, payload);
        let record = sound::record(u64::from(*commit), first, count, &block);
        let offset = usize::from(*place) * 16;
        let kept = record.len().min(file.len() - offset);
        file[offset..offset + kept].copy_from_slice(&record[..kept]);
    }
    file
}
