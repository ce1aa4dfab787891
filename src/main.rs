//! The `clocher` command.

fn main() {}
