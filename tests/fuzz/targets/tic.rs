//! A Linky's line: any bytes in each mode, with parity or without, cut anywhere, the line lost now and then.
#![no_main]

use clocher::drivers::Wire;
use clocher_fuzz::{check, device, points};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(([options, step], line)) = bytes.split_first_chunk::<2>() else { return };
    let mode = ["standard", "historic", "auto"][usize::from(options % 3)];
    let framing = ["7E1", "8N1"][usize::from(options / 3 % 2)];
    let loses = options & 0x80 != 0;
    let device = device(&format!(
        "name = \"e/m\"\ndriver = \"tic\"\nport = \"/dev/x\"\nmode = \"{mode}\"\nframing = \"{framing}\"\nevery = \"1 s\""
    ));
    let points = points(&device);
    let Wire::Stream { mut decoder, .. } = device.wire else { unreachable!("a stream") };
    let mut said = Vec::new();
    for (mono_ms, piece) in (0..).step_by(40).zip(line.chunks(usize::from(*step).max(1))) {
        decoder.push(piece, mono_ms, &mut said);
        if loses && piece.first() == Some(&0xff) {
            decoder.reset();
        }
    }
    check(&said, &points);
    assert!(said.len() <= line.len(), "{} things said by {} bytes", said.len(), line.len());
});
