//! The command line; all of it is in [`vswitch::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    vswitch::cli::main()
}
