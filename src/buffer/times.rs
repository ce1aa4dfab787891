//! What is known of the clock, as it lies on the card: a sample or a start of the gateway by its key, so that both stand
//! in one table, in order.

use serde::Deserialize;

use crate::clock::{Note, Sample, Source, Stamp};

/// Ends the key of a start; a sample's ends with its source.
const START: u8 = 0xFF;

pub(super) fn key(table: &[u8], note: &Note) -> Vec<u8> {
    let (stamp, kind) = match note {
        Note::Sample(sample) => (sample.stamp, sample.source as u8),
        Note::Start(start) => (Stamp { boot: start.boot, mono_ms: 0 }, START),
    };
    [table, &stamp.boot.to_be_bytes(), &stamp.mono_ms.to_be_bytes(), &[kind]].concat()
}

pub(super) fn encode(note: &Note) -> Vec<u8> {
    let bytes = match note {
        Note::Sample(sample) => postcard::to_allocvec(sample),
        Note::Start(start) => postcard::to_allocvec(start),
    };
    bytes.unwrap_or_default()
}

/// `None` for what is neither.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Note> {
    if key.last() == Some(&START) {
        return postcard::from_bytes(value).ok().map(Note::Start);
    }
    postcard::from_bytes(value).ok().or_else(|| before_straights(value)).map(Note::Sample)
}

/// The boot a note is of.
pub(super) fn boot_of(note: &Note) -> u32 {
    match note {
        Note::Sample(sample) => sample.stamp.boot,
        Note::Start(start) => start.boot,
    }
}

/// A sample as the first stores hold it.
fn before_straights(value: &[u8]) -> Option<Sample> {
    #[derive(Deserialize)]
    struct First {
        stamp: Stamp,
        unix_ms: i64,
        error_ms: u32,
        source: Source,
    }
    let First { stamp, unix_ms, error_ms, source } = postcard::from_bytes(value).ok()?;
    Some(Sample { stamp, unix_ms, error_ms, source, straight_ms: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Machine, Start};

    #[test]
    fn samples_and_starts_come_back_from_the_card_those_of_the_first_stores_too() {
        let stamp = Stamp { boot: 7, mono_ms: 1_234 };
        let sample = Sample { stamp, unix_ms: -5, error_ms: 500, source: Source::Ntp, straight_ms: 99_000 };
        let start = Start {
            boot: 7,
            machine: Some(Machine { id: [9; 16], up_ms: 42_000 }),
            before: Some(Stamp { boot: 6, mono_ms: 77 }),
            built_ms: 1_795_000_000_000,
        };
        for note in [Note::Sample(sample), Note::Start(start), Note::Start(Start { machine: None, ..start })] {
            assert_eq!(decode(&key(b"t", &note), &encode(&note)), Some(note));
        }
        let mut first = encode(&Note::Sample(Sample { straight_ms: 0, ..sample }));
        first.pop();
        let note = Note::Sample(sample);
        assert_eq!(
            decode(&key(b"t", &note), &first),
            Some(Note::Sample(Sample { straight_ms: 0, ..sample })),
            "without the field"
        );
        assert_eq!(decode(&key(b"t", &note), b"\xFF"), None);
    }
}
