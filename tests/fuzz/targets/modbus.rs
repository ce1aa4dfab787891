//! What a Modbus device may answer: any bytes as a frame, any registers to any question of any meter.
#![no_main]

use clocher::drivers::{Poller, Wire, modbus::frame};
use clocher_fuzz::{check, device, points};
use libfuzzer_sys::fuzz_target;

const METERS: &[&str] =
    &["model = \"SDM120\"", "model = \"SDM230\"", "model = \"SDM630\"", "model = \"SDM72-V2\"", LISTED];
const LISTED: &str = "[[register]]\nname = \"a\"\naddress = 0\ntype = \"i16\"\nmissing = 0x7FFF\nscale = 0.1\nrange = [-30, 60]\n\
                      [[register]]\nname = \"b\"\naddress = 7\ntype = \"f64\"\ntable = \"holding\"\n\
                      [[register]]\nname = \"c\"\naddress = 12\ntype = \"u64\"\nword_order = \"little\"\noffset = -1e300\n";

fuzz_target!(|bytes: &[u8]| {
    let _ = (frame::request(bytes), frame::answer(bytes, 1));
    signed(bytes);
    let Some(([meter], words)) = bytes.split_first_chunk::<1>() else { return };
    let block = METERS[usize::from(*meter) % METERS.len()];
    let device = device(&format!("name = \"e/m\"\ndriver = \"modbus\"\nport = \"/dev/x\"\n{block}"));
    let points = points(&device);
    let Wire::Bus { mut poller, .. } = device.wire else { unreachable!("a bus") };
    let registers = words.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>();
    let mut said = Vec::new();
    for request in poller.requests().to_vec() {
        let count = usize::from(request.count).min(registers.len());
        poller.answer(request, &registers[..count], &mut said);
        poller.answer(request, &registers, &mut said);
    }
    refused(&mut *poller);
    check(&said, &points);
});

/// A device that refuses everything is asked for less and less, and in the end for nothing.
fn refused(poller: &mut dyn Poller) {
    for _ in 0..10_000 {
        let Some(request) = poller.requests().first().copied() else { return };
        if !poller.refused(request) {
            return;
        }
    }
    panic!("asked again and again what was refused");
}

/// The same with the checksum a frame should have.
fn signed(bytes: &[u8]) {
    let mut frame = bytes.to_vec();
    frame.extend(frame::crc(bytes).to_le_bytes());
    let _ = frame::request(&frame);
    if let Ok((_, registers)) = frame::answer(&frame, bytes.first().copied().unwrap_or(1)) {
        assert!(registers.len() <= 125, "{} registers in a frame", registers.len());
    }
}
