//! The program `vf-provisioner`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    vf_provisioner::main()
}
