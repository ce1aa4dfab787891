//! What a device may publish: any topic, any payload, to points of every kind.
#![no_main]

use clocher::drivers::{Device, Wire};
use clocher_fuzz::{check, device, points};
use libfuzzer_sys::fuzz_target;

const BLOCK: &str = "name = \"a/b\"\ndriver = \"mqtt\"\ntopic = \"a/#\"\n\
    [[point]]\nname = \"raw\"\nrange = [-30, 60]\n\
    [[point]]\nname = \"one\"\npointer = \"/a\"\nscale = 1e300\noffset = -1.5\ndecimals = 9\n\
    [[point]]\nname = \"deep\"\npointer = \"/a/0/b~1c\"\nkind = \"counter\"\n\
    [[point]]\nname = \"door\"\npointer = \"/c\"\ntopic = \"a/+\"\nstates = { ouvert = 1, \"fermé\" = 0 }\n";

thread_local! {
    static DEVICE: Device = device(BLOCK);
}

fuzz_target!(|bytes: &[u8]| DEVICE.with(|device| publish(device, bytes)));

/// The first line is the topic, the rest the payload.
fn publish(device: &Device, bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (topic, payload) = bytes.split_at(end);
    let payload = payload.get(1..).unwrap_or_default();
    let Wire::Topic { decoder, .. } = &device.wire else { unreachable!("a topic") };
    let mut said = Vec::new();
    decoder.decode(&String::from_utf8_lossy(topic), payload, &mut said);
    decoder.decode("a/b", payload, &mut said);
    check(&said, &points(device));
    assert!(said.len() <= 2 * device.points.len(), "{} things said by one payload", said.len());
}
