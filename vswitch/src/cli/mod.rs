//! The `vswitch` command: what is asked, who does it, and how it ends.
//!
//! `run` is the switch itself. `replay` and `trace` drive the same pipeline from captures, without
//! DPDK devices and without root. `show`, `top` and `reload` speak to a running switch's control
//! socket. Every command ends in an [`ExitCode`] that is documented in its help and never changes.

mod capture;
mod config;
mod offline;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::reason::DropReason;

const EXIT_CODES: &str = "\
Exit codes:
  0  done (also where frames were dropped: that is a result)
  1  failed while running
  2  wrong usage
  3  a configuration file that cannot be used
  4  no switch answers on the control socket, or it refused";

#[derive(Debug, Parser)]
#[command(name = "vswitch", version, about = "One tenant's virtual switch", after_help = EXIT_CODES)]
#[command(propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide on every frame of a capture, offline, as if the port had sent it
    Replay(ReplayArgs),
    /// List the drop reasons with their numbers
    Reasons {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
}

/// The switch that `replay` and `trace` imitate.
#[derive(Debug, Args)]
struct OfflineArgs {
    /// The tenant's file (TOML), or a switch's configuration (JSON)
    #[arg(long, value_name = "FILE")]
    tenant: PathBuf,
    /// The port the frames come from; `uplink` is the In/Out side
    #[arg(long, value_name = "NAME")]
    port: String,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    switch: OfflineArgs,
    /// A pcap or pcapng file; `-` is standard input. Its time stamps are the switch's clock
    #[arg(value_name = "IN.pcap")]
    capture: PathBuf,
    /// Write what leaves each port to DIR/PORT.pcap
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// One JSON object per frame; the summary of counters goes to standard error
    #[arg(long)]
    json: bool,
}

/// How a command fails.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// What was asked for cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A configuration that cannot be used.
    #[error("{0}")]
    Config(String),
    /// A capture that cannot be read.
    #[error(transparent)]
    Capture(#[from] capture::CaptureError),
    /// A file that cannot be written.
    #[error("{path}: cannot be written: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Standard output or standard input failed.
    #[error("standard input or output: {0}")]
    Stdio(#[from] io::Error),
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Config(_) => 3,
            Self::Capture(_) | Self::Write { .. } | Self::Stdio(_) => 1,
        })
    }
}

/// Parses the command line, runs the command, and reports its failure on standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Replay(args) => offline::replay(&args),
        Command::Reasons { json } => reasons(json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough: `vswitch replay … | head`.
        Err(CliError::Stdio(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = error.exit_code();
            eprintln!("vswitch: {error}");
            code
        }
    }
}

fn reasons(json: bool) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    for reason in DropReason::ALL {
        let (number, name, help) = (reason.number(), reason.name(), reason.help());
        if json {
            let line = serde_json::json!({ "number": number, "name": name, "help": help });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{number:>3}  {name:<22}  {help}")?;
        }
    }
    Ok(())
}
