//! The layers hold: vocabulary ← ground ← parts ← app ← top. Reads every file under `src/` and fails with file and line.
//!
//! It reads words, not meanings: a path through `crate::`, `super::` or a package's name, in code, tests included.

use std::{fs, io, path::Path};

/// Modules of each layer, lowest first. A module may name its own layer's fellows only where [`Layer::fellows`] says so.
const LAYERS: &[Layer] = &[
    Layer { name: "vocabulary", fellows: true, modules: &["announcement", "clock", "condition", "reading"] },
    Layer {
        name: "ground",
        fellows: true,
        modules: &[
            "config",
            "consent",
            "live",
            "machine",
            "port",
            "serve",
            "signals",
            "store",
            "supervisor",
            "tls",
            "traffic",
            "vouch",
        ],
    },
    Layer {
        name: "part",
        fellows: false,
        modules: &["announce", "broker", "buffer", "drivers", "panel", "peers", "watch"],
    },
    Layer { name: "app", fellows: false, modules: &["app"] },
    Layer { name: "top", fellows: true, modules: &["cli", "demo", "main", "provision"] },
];

/// Packages with one home: nothing else names them, so that they can be replaced.
const HOMES: &[(&str, &[&str])] = &[
    ("gpiocdev", &["port/gpio"]),
    ("rppal", &["port/gpio"]),
    ("rumqttd", &["broker"]),
    ("sled", &["buffer"]),
    ("warp", &["panel", "peers", "serve"]),
];

struct Layer {
    name: &'static str,
    fellows: bool,
    modules: &'static [&'static str],
}

/// A word or `::` of the code, with its line from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

/// What a file names and should not. `file` is its path under `src/`, with `/`.
fn violations(file: &str, text: &str) -> Vec<(usize, String)> {
    let own = module_of(file);
    if own == "lib" {
        return Vec::new();
    }
    let Some(rank) = rank_of(own) else {
        return vec![(1, format!("`{own}` is in no layer: name it in tests/it/layers.rs"))];
    };
    let code = without_comments_and_strings(text);
    let tokens = tokens(&code);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let rest = tokens.get(at + 1..).unwrap_or_default();
        let before = before(&tokens, at);
        for named in modules_named(file, before, token, rest) {
            let wrong = rank_of(named.text).and_then(|other| forbidden(own, rank, named.text, other));
            found.extend(wrong.map(|message| (named.line, message)));
        }
        found.extend(far_from_home(file, before, token, rest).map(|message| (token.line, message)));
    }
    found
}

/// The token before this one; a `::` that begins a path, as in `use ::sled`, is looked through.
fn before<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    let text = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at)).map_or("", |token| token.text);
    let word = |text: &str| text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    if text(1) == "::" && (text(2) == "use" || !word(text(2))) { text(2) } else { text(1) }
}

/// Why module `own` may not name `other`; `None` when it may.
fn forbidden(own: &str, rank: usize, other: &str, other_rank: usize) -> Option<String> {
    let (mine, its) = (&LAYERS[rank], &LAYERS[other_rank]);
    let fine = own == other || other_rank < rank || (other_rank == rank && mine.fellows);
    (!fine).then(|| format!("`{own}` ({}) names `{other}` ({})", mine.name, its.name))
}

/// Why this token may not be here: a package named outside its home.
fn far_from_home(file: &str, before: &str, token: &Token<'_>, rest: &[Token<'_>]) -> Option<String> {
    let (package, homes) = HOMES.iter().find(|(package, _)| *package == token.text)?;
    let next = rest.first().map_or("", |token| token.text);
    let named = next == "::" || matches!(before, "use" | "crate");
    let path = file.trim_end_matches(".rs");
    let home =
        homes.iter().any(|home| path == *home || path.strip_prefix(home).is_some_and(|rest| rest.starts_with('/')));
    let wrong = named && before != "::" && !home;
    wrong.then(|| format!("`{package}` is named outside {}", homes.join(", ")))
}

/// The modules of the crate a path beginning at `token` goes through: one, or several for `crate::{a, b::c}`.
fn modules_named<'a>(file: &str, before: &str, token: &Token<'a>, rest: &[Token<'a>]) -> Vec<Token<'a>> {
    let (climbs, path) = match token.text {
        "crate" | "clocher" => (usize::MAX, rest),
        "super" if before != "::" => climb(rest),
        _ => return Vec::new(),
    };
    let at_top = climbs >= depth_of(file) && path.first().is_some_and(|token| token.text == "::");
    if at_top { heads(path.get(1..).unwrap_or_default()) } else { Vec::new() }
}

/// How many `super::` follow one another, and what comes after.
fn climb<'a, 'b>(mut rest: &'b [Token<'a>]) -> (usize, &'b [Token<'a>]) {
    let mut climbs = 1;
    while let [first, second, tail @ ..] = rest
        && (first.text, second.text) == ("::", "super")
    {
        (climbs, rest) = (climbs + 1, tail);
    }
    (climbs, rest)
}

/// First words of a use tree: `a::b` gives `a`, `{a::{b, c}, d}` gives `a` and `d`.
fn heads<'a>(tree: &[Token<'a>]) -> Vec<Token<'a>> {
    if tree.first().is_none_or(|token| token.text != "{") {
        return tree.first().copied().into_iter().collect();
    }
    let (mut depth, mut heads, mut fresh) = (0_usize, Vec::new(), false);
    for token in tree {
        match token.text {
            "{" => (depth, fresh) = (depth + 1, depth == 0),
            "}" if depth <= 1 => break,
            "}" => depth -= 1,
            "," => fresh = depth == 1,
            _ if fresh => {
                heads.push(*token);
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

/// `drivers/tic.rs` is in `drivers`.
fn module_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Modules between a file and the crate's root: 1 for `live.rs` and `drivers/mod.rs`, 2 for `drivers/tic.rs`.
fn depth_of(file: &str) -> usize {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "main" { 0 } else { path.split('/').count() }
}

fn rank_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.modules.contains(&module))
}

/// Words, `::` and single signs.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, mut rest) in (1..).zip(code.lines()) {
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let sign = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            let (text, tail) = rest.split_at(word.max(if word == 0 { sign } else { 0 }));
            if !first.is_whitespace() {
                tokens.push(Token { line, text });
            }
            rest = tail;
        }
    }
    tokens
}

/// The same text with comments, strings and characters blanked; lines keep their numbers.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| string(rest)).or_else(|| character(rest)).unwrap_or(0);
        if skipped > 0 {
            let (blank, tail) = rest.split_at(skipped);
            code.push(' ');
            code.extend(blank.chars().filter(|c| *c == '\n'));
            rest = tail;
        } else {
            // A whole word at a time, so that the `r` of `for"` is not taken for a raw string.
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (kept, tail) = rest.split_at(word.max(c.len_utf8()));
            code.push_str(kept);
            rest = tail;
        }
    }
    code
}

/// Length of the comment here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.strip_prefix("/*")?;
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if tail.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// Length of the string here, plain or raw, of text or bytes.
fn string(rest: &str) -> Option<usize> {
    let unprefixed = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let opened = raw.get(hashes..)?.strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = opened.find(&close).map_or(rest.len(), |at| rest.len() - opened.len() + at + close.len());
        return Some(end);
    }
    let opened = unprefixed.strip_prefix('"')?;
    let mut escaped = false;
    let closed = opened.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(closed.map_or(rest.len(), |at| rest.len() - opened.len() + at + 1))
}

/// Length of the character literal here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let opened = rest.strip_prefix('\'')?;
    let mut chars = opened.char_indices();
    if chars.next()?.1 == '\\' {
        chars.next()?;
        return opened.get(2..)?.find('\'').map(|at| at + 4);
    }
    let (at, next) = chars.next()?;
    (next == '\'').then_some(at + 2)
}

/// Every `.rs` file below a folder, as (path below it, text).
fn sources(folder: &Path, below: &str) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            found.extend(sources(&entry.path(), &format!("{name}/"))?);
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(entry.path())?));
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn no_file_names_what_is_above_or_beside_it() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "").unwrap();
    assert!(files.len() > 20, "only {} files under src/", files.len());
    let wrong = files.iter().flat_map(|(file, text)| {
        violations(file, text).into_iter().map(move |(line, message)| format!("src/{file}:{line}: {message}"))
    });
    let wrong = wrong.collect::<Vec<_>>();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_part_that_names_another_part_is_found_at_its_line() {
    let found = violations("panel/home.rs", "use crate::reading::Point;\n\nfn f() { crate::buffer::open() }\n");
    assert_eq!(found, [(3, "`panel` (part) names `buffer` (part)".to_owned())]);
}

#[test]
fn a_use_over_several_lines_is_read_to_its_end() {
    let text = "use crate::{\n    config::{Block, broker::Rules},\n    live::Live,\n    peers::{self, Peer},\n};\n";
    assert_eq!(violations("panel/mod.rs", text), [(4, "`panel` (part) names `peers` (part)".to_owned())]);
}

#[test]
fn each_layer_is_kept_from_what_is_above_it() {
    let cases = [
        ("reading.rs", "use crate::store::Store;", "`reading` (vocabulary) names `store` (ground)"),
        ("config/mod.rs", "use crate::panel::Account;", "`config` (ground) names `panel` (part)"),
        ("live.rs", "use crate::app;", "`live` (ground) names `app` (app)"),
        ("watch/mod.rs", "use crate::app::App;", "`watch` (part) names `app` (app)"),
        ("app.rs", "use crate::demo;", "`app` (app) names `demo` (top)"),
    ];
    for (file, text, message) in cases {
        assert_eq!(violations(file, text), [(1, message.to_owned())], "{file}");
    }
}

#[test]
fn what_is_below_or_ones_own_may_be_named() {
    let cases = [
        ("reading.rs", "use crate::clock::Mono;"),
        ("config/load.rs", "use crate::{port::serial::Framing, reading::Unit};"),
        ("buffer/block.rs", "use crate::{buffer::head::Head, store::Store}; use sled::Db; use super::head;"),
        ("app.rs", "use crate::{buffer, panel, peers};"),
        ("main.rs", "use clocher::{app, cli};"),
        ("lib.rs", "pub use crate::buffer;"),
        ("serve.rs", "fn f() { warp::service(routes) }"),
        ("port/gpio/pi.rs", "use rppal::gpio::Gpio;"),
    ];
    for (file, text) in cases {
        assert_eq!(violations(file, text), [], "{file}: {text}");
    }
}

#[test]
fn a_way_round_through_super_is_seen() {
    let message = "`drivers` (part) names `broker` (part)".to_owned();
    assert_eq!(violations("drivers/tic.rs", "use super::super::broker::Front;"), [(1, message.clone())]);
    assert_eq!(violations("drivers/mod.rs", "use super::{reading, broker};"), [(1, message.clone())]);
    let nested = "mod tests {\n  use super::super::super::broker::Front;\n}";
    assert_eq!(violations("drivers/tic.rs", nested), [(2, message)]);
    assert_eq!(violations("config/load.rs", "use super::panel::Panel;"), [], "config's own panel.rs");
}

#[test]
fn tests_within_a_file_obey_too() {
    let text = "#[cfg(test)]\nmod tests {\n    use crate::announce::Queue;\n}\n";
    assert_eq!(violations("broker/mod.rs", text), [(3, "`broker` (part) names `announce` (part)".to_owned())]);
}

#[test]
fn a_package_has_one_home() {
    let cases = [
        ("store.rs", "use sled::Db;", "`sled` is named outside buffer"),
        ("app.rs", "fn f(r: rumqttd::Router) {}", "`rumqttd` is named outside broker"),
        ("store.rs", "use ::sled;", "`sled` is named outside buffer"),
        ("store.rs", "fn f() -> ::sled::Db {}", "`sled` is named outside buffer"),
        ("port/serial.rs", "use rppal as pi;", "`rppal` is named outside port/gpio"),
        ("port/gpio_else.rs", "use gpiocdev::Request;", "`gpiocdev` is named outside port/gpio"),
        ("watch/mod.rs", "use {std::io, warp::Filter};", "`warp` is named outside panel, peers, serve"),
    ];
    for (file, text, message) in cases {
        assert_eq!(violations(file, text), [(1, message.to_owned())], "{file}");
    }
}

#[test]
fn a_module_outside_every_layer_is_a_fault() {
    let found = violations("lighting/mod.rs", "");
    assert_eq!(found, [(1, "`lighting` is in no layer: name it in tests/it/layers.rs".to_owned())]);
}

#[test]
fn comments_and_strings_name_nothing() {
    let text = r####"
// crate::broker and /* sled::Db
/* crate::broker /* nested */ crate::broker */
const A: &str = "crate::broker \" sled::open"; const B: &[u8] = br#"crate::broker " sled::open"#;
const C: char = '"'; const D: char = '\''; const E: char = '\u{22}'; fn f<'a>(x: &'a str) {}
use crate::broker::Front;
"####;
    assert_eq!(violations("peers/mod.rs", text), [(6, "`peers` (part) names `broker` (part)".to_owned())]);
}
