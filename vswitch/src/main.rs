//! The command line ([`vswitch::cli`]), or the init process of a switch's VM ([`vswitch::vm`]).
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    if vswitch::vm::is_init() {
        return vswitch::vm::main();
    }
    vswitch::cli::main()
}
