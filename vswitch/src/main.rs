//! The command line, all of which is in [`vswitch::cli`], or a virtual machine's first process:
//! [`vswitch::vm`].

use std::process::ExitCode;

fn main() -> ExitCode {
    if vswitch::vm::is_init() {
        return vswitch::vm::main();
    }
    vswitch::cli::main()
}
