//! The command line ([`vswitch::cli`]), or a process of a switch's VM ([`vswitch::vm`]).
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match vswitch::vm::role() {
        Some(run) => run(),
        None => vswitch::cli::main(),
    }
}
