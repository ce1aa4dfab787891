//! Blocks and head records with every checksum right, around content that may be anything: checksums would keep the fuzzer
//! out of what lies behind them. The layouts are those of `src/buffer/block.rs` and `src/buffer/head.rs`.

/// Whose store the records are of.
pub const STORE: u32 = 7;

const BLOCK: [u8; 4] = *b"CKB1";
const FRONT: [u8; 4] = *b"CKH1";
const BACK: [u8; 4] = *b"CKT1";

/// A block of `count` readings from `first`, said to unpack to `unpacked` bytes.
pub fn block(first: u64, count: u32, unpacked: u32, payload: &[u8]) -> Vec<u8> {
    let mut tail = Vec::with_capacity(20 + payload.len());
    tail.extend(STORE.to_le_bytes());
    tail.extend(first.to_le_bytes());
    tail.extend(count.to_le_bytes());
    tail.extend(unpacked.to_le_bytes());
    tail.extend(payload);
    let mut block = Vec::with_capacity(12 + tail.len());
    block.extend(BLOCK);
    block.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    block.extend(crc32fast::hash(&tail).to_le_bytes());
    block.extend(tail);
    block
}

/// A record of the head file around a block, both its marks included.
pub fn record(commit: u64, first: u64, count: u32, block: &[u8]) -> Vec<u8> {
    let mark = |magic: [u8; 4]| {
        let mut mark = Vec::with_capacity(48);
        mark.extend(magic);
        mark.extend(u32::try_from(block.len()).unwrap_or(u32::MAX).to_le_bytes());
        mark.extend(commit.to_le_bytes());
        mark.extend(first.to_le_bytes());
        mark.extend(count.to_le_bytes());
        mark.extend(STORE.to_le_bytes());
        mark.resize(44, 0);
        mark.extend(crc32fast::hash(&mark).to_le_bytes());
        mark
    };
    let mut record = mark(FRONT);
    record.extend(block);
    record.resize(record.len().next_multiple_of(16), 0);
    record.extend(mark(BACK));
    record
}
