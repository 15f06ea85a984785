//! See [`vf_provisioner::cli`].

fn main() -> std::process::ExitCode {
    vf_provisioner::cli::main()
}
