//! A configuration file of any content: faults with their place, never a panic.
#![no_main]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use annotate_snippets::Renderer;
use clocher::{
    config::{
        Block, Both, ByteSize, Field, Language, Presence, Source, Trust, network,
        secret::{Where, masked},
        ssh, text,
    },
    drivers::read_device,
};
use libfuzzer_sys::fuzz_target;

/// Few and short names, so that the fuzzer writes them by chance.
const FIELDS: &[Field] =
    &[field("a", Presence::Required), field("b", Presence::Default("\"30 s\"")), field("c", Presence::Optional)];

const fn field(name: &'static str, presence: Presence) -> Field {
    Field { name, expects: Both("anything", "n'importe quoi"), presence, doc: "" }
}

fuzz_target!(|bytes: &[u8]| {
    let text = &text::decode(bytes);
    assert_eq!(masked(text, Where::Anywhere).len(), text.len(), "a mask that moves what it covers");
    let source = Source::new("clocher.toml", text);
    let table = source.parse();
    let top = Block::new(&source, "", table.span(), table.get_ref());
    read(&top);
    for name in ["a", "b", "device", "port"] {
        top.blocks(name).iter().for_each(read);
    }
    for fault in source.faults() {
        assert!(source.line_of(&fault) <= text.lines().count() + 1, "a fault beyond the end of the file");
        let _ = source.pointed_at(&fault);
        let _ = source.render(&fault, &Renderer::plain(), Language::French);
    }
    devices(text);
    links(text);
});

/// A link, or a key, that a file asks for and does not get is told.
fn links(text: &str) {
    let source = Source::new("clocher.toml", text);
    let table = source.parse();
    let top = Block::new(&source, "", table.span(), table.get_ref());
    if let Some(block) = top.one("network") {
        let read = network::read(Some(&block));
        let asked = ["ethernet", "wifi", "mobile"].into_iter().filter(|name| block.has(name)).count();
        let got = [read.ethernet.is_some(), read.wifi.is_some(), read.mobile.is_some()];
        assert!(got.into_iter().filter(|got| *got).count() == asked || !source.faults().is_empty());
    }
    if let Some(block) = top.one("ssh") {
        assert!(!ssh::read(Some(&block)).is_empty() || block.has("keys") || !source.faults().is_empty());
    }
}

/// A device is either there or told why not.
fn devices(text: &str) {
    let source = Source::new("clocher.toml", text);
    let table = source.parse();
    let top = Block::new(&source, "", table.span(), table.get_ref());
    for block in top.blocks("device") {
        assert!(read_device(&block).is_some() || !source.faults().is_empty(), "a device refused without a word");
    }
}

/// Each kind of value, whatever is written there.
fn read(block: &Block<'_>) {
    block.only(&[FIELDS]);
    for field in FIELDS {
        let _ =
            (block.get::<String>(field), block.get::<bool>(field), block.get::<f64>(field), block.get::<u16>(field));
        let _ = (block.get::<PathBuf>(field), block.get::<SocketAddr>(field), block.get::<Vec<String>>(field));
        let _ = (block.get::<ByteSize>(field), block.get::<Duration>(field), block.get::<Vec<i64>>(field));
        let _ =
            (block.within(field, -1.5, 1.5), block.parse::<Trust>(field), block.choice(field, &[("x", 1), ("y", 2)]));
        let _ = block.duration_within(field, Duration::ZERO, Duration::from_secs(60));
    }
}
