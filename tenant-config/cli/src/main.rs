//! The program `tenant-config`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    tenant_config_cli::main()
}
