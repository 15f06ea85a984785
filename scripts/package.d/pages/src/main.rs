//! Writes man pages and shell completions from the definitions of the command lines, so that they
//! say what `--help` says. A program of its own: the products do not hold what only a package
//! needs.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

/// The section of commands that only root can use.
const ADMINISTRATION: &str = "8";
const COMMANDS: &str = "1";

fn main() -> ExitCode {
    let Some(out) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(io::stderr(), "usage: pages DIRECTORY");
        return ExitCode::from(2);
    };
    match write_all(&out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "pages: cannot write to {}: {error}",
                out.display()
            );
            ExitCode::from(1)
        }
    }
}

/// Each program with the section of its pages.
fn programs() -> [(Command, &'static str); 3] {
    [
        (vswitch::cli::command(), COMMANDS),
        (vf_provisioner::command(), ADMINISTRATION),
        (tenant_config_cli::command(), COMMANDS),
    ]
}

fn write_all(out: &Path) -> io::Result<()> {
    for (mut program, section) in programs() {
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let directory = out.join(shell.to_string());
            fs::create_dir_all(&directory)?;
            clap_complete::generate_to(shell, &mut program, &name, directory)?;
        }
        let directory = out.join(format!("man{section}"));
        fs::create_dir_all(&directory)?;
        program.build();
        man_pages(&program, section, &directory)?;
    }
    Ok(())
}

/// A page for the command and for each of its commands, as `vf-provisioner-apply.8`.
fn man_pages(command: &Command, section: &str, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        if !below.is_hide_set() && below.get_name() != "help" {
            man_pages(below, section, directory)?;
        }
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = fs::File::create(directory.join(format!("{name}.{section}")))?;
    let mut file = io::BufWriter::new(file);
    clap_mangen::Man::new(command.clone())
        .section(section)
        .date("")
        .manual("Virtual switches of tenants")
        .render(&mut file)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files below a directory, as `man8/vf-provisioner.8`.
    fn files(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for folder in fs::read_dir(directory).expect("it can be listed") {
            let folder = folder.expect("an entry").path();
            for file in fs::read_dir(&folder).expect("it can be listed") {
                let file = file.expect("an entry").path();
                let file = file.strip_prefix(directory).expect("it is below");
                found.push(file.display().to_string());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let out = tempfile::tempdir().expect("a directory");
        write_all(out.path()).expect("they are written");
        let mut wanted = Vec::new();
        for (program, section) in programs() {
            let name = program.get_name();
            wanted.push(format!("bash/{name}.bash"));
            wanted.push(format!("zsh/_{name}"));
            wanted.push(format!("fish/{name}.fish"));
            wanted.push(format!("man{section}/{name}.{section}"));
        }
        let written = files(out.path());
        for file in &wanted {
            assert!(written.contains(file), "{file} is not in {written:?}");
        }
        for command in ["apply", "release", "status", "supervise", "verify"] {
            let page = format!("man8/vf-provisioner-{command}.8");
            assert!(written.contains(&page), "{page} is not in {written:?}");
        }
        let hidden = ["man8/vf-provisioner-ask.8", "man8/vf-provisioner-confine.8"];
        assert!(
            hidden
                .iter()
                .all(|page| !written.iter().any(|file| file == page))
        );
        let page = out.path().join("man8/vf-provisioner-apply.8");
        let page = fs::read_to_string(page).expect("the page");
        assert!(page.contains("vf\\-provisioner apply"), "{page}");
        assert!(page.contains("\\-\\-state\\-dir"), "{page}");
    }
}
