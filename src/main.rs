//! The `clocher` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    clocher::cli::main()
}
