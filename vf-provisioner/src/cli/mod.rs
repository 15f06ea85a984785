//! The commands: one file each, and one line in [`Command`].

mod apply;
mod backup;
mod check;
mod config;
mod ipsec;
mod journal;
mod nic;
mod options;
mod output;
mod pause;
mod plan;
mod probe;
mod progress;
mod release;
mod rename;
mod restore;
mod status;
mod supervise;
mod verify;
mod wanted;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::json;
use vf_host::apply::ApplyError;
use vf_host::backup::BackupError;
use vf_host::error::OptionError;
use vf_host::launcher::{ask, confine};
use vf_host::state::StateError;
use vf_host::tenants::PlacementError;
use vswitch_api::plain::PlainWriter;

use options::{EXIT_CODES, Global};
use output::{complain, print_json};

/// Carves the NIC into tenants' ports and launches one switch per tenant.
#[derive(Debug, Parser)]
#[command(name = "vf-provisioner", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Config(config::Config),
    Nic(nic::Nic),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Status(status::Status),
    Verify(verify::Verify),
    Probe(probe::Probe),
    Drain(pause::Drain),
    Stop(pause::Stop),
    Start(pause::Start),
    Restart(pause::Restart),
    Release(release::Release),
    Ipsec(ipsec::Ipsec),
    Rename(rename::Rename),
    Journal(journal::Journal),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Supervise(supervise::Supervise),
    #[command(hide = true)]
    Ask,
    #[command(hide = true)]
    Confine(Confine),
}

/// A step of a switch's start.
#[derive(Debug, Args)]
struct Confine {
    #[arg(long, value_name = "TASK")]
    inner: Option<String>,
}

impl Command {
    fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        match self {
            Self::Check(it) => it.run(global),
            Self::Config(it) => it.run(global),
            Self::Nic(it) => it.run(global),
            Self::Plan(it) => it.run(global),
            Self::Apply(it) => it.run(global),
            Self::Status(it) => it.run(global),
            Self::Verify(it) => it.run(global),
            Self::Probe(it) => it.run(global),
            Self::Drain(it) => it.run(global),
            Self::Stop(it) => it.run(global),
            Self::Start(it) => it.run(global),
            Self::Restart(it) => it.run(global),
            Self::Release(it) => it.run(global),
            Self::Ipsec(it) => it.run(global),
            Self::Rename(it) => it.run(global),
            Self::Journal(it) => it.run(global),
            Self::Backup(it) => it.run(global),
            Self::Restore(it) => it.run(global),
            Self::Supervise(it) => it.run(global),
            Self::Ask | Self::Confine(_) => Ok(ExitCode::SUCCESS),
        }
    }
}

/// How a command fails.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Tenants(#[from] tenant_config::ConfigErrors),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Tenants(_) | Self::Placement(_) | Self::Usage(_) => 2,
            Self::Apply(ApplyError::Plan(_) | ApplyError::Refused { .. }) => 2,
            Self::Backup(BackupError::Refused { .. }) => 2,
            Self::Apply(_) | Self::State(_) | Self::Backup(_) | Self::Failed(_) => 1,
        }
    }
}

impl From<OptionError> for CliError {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Usage(message) => Self::Usage(message),
            OptionError::Host(error) => Self::Failed(error.to_string()),
        }
    }
}

/// The definition of the command line, for pages and completions that are generated from it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = match config::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            complain(&format!("vf-provisioner: {error}"));
            return ExitCode::from(error.exit_code());
        }
    };
    let step = match &cli.command {
        Command::Ask => Some(ask::answer()),
        Command::Confine(Confine { inner: None }) => Some(confine::outer()),
        Command::Confine(Confine { inner: Some(task) }) => Some(Err(confine::inner(task))),
        _ => None,
    };
    if let Some(result) = step {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                complain(&message);
                ExitCode::from(1)
            }
        };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("VF_PROVISIONER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| PlainWriter(std::io::stderr()))
        .with_ansi(false)
        .without_time()
        .init();
    match cli
        .global
        .agree()
        .and_then(|()| cli.command.run(&cli.global))
    {
        Ok(code) => code,
        Err(error) => {
            if cli.global.json {
                print_json(&json!({"error": error.to_string()}));
            }
            complain(&format!("vf-provisioner: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn need_root() -> Result<(), CliError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::Usage(
        "this needs root to make network namespaces and control groups: run it with sudo"
            .to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_backends_and_launchers_do_not_clash() {
        command().debug_assert();
    }
}
