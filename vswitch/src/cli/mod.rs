//! The `vswitch` command: its options, its subcommands and their exit codes.
//!
//! `run` is the switch itself. `replay` and `trace` drive the same pipeline from captures, without
//! DPDK devices and without root. `show`, `top` and `reload` use a running switch's control socket.
//! The exit codes are documented in the help and never change.

mod capture;
mod check;
mod client;
mod config;
mod offline;
mod run;
mod sa_keys;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::control::metrics_reference;
use crate::worker::PollMode;
use pipeline::DropReason;
use vswitch_api::client::ClientError;
use vswitch_api::endpoint::Show;
use vswitch_api::plain::PlainWriter;
use vswitch_api::{Endpoint, openapi};

const EXIT_CODES: &str = "\
Exit codes:
  0  done (dropped frames are a result, not a failure)
  1  failed while running
  2  wrong usage
  3  a configuration file that cannot be used
  4  no switch answers on the control socket, or it refused";

#[derive(Debug, Parser)]
#[command(name = "vswitch", version, about = "One tenant's virtual switch")]
#[command(after_help = EXIT_CODES)]
#[command(propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a tenant's switch
    Run(RunArgs),
    /// Process every frame of a capture offline, as if the port had sent it
    Replay(ReplayArgs),
    /// Explain every stage's decision on one frame
    Trace(TraceArgs),
    /// Keys of security associations, in a build for tests
    #[cfg(feature = "export-keys")]
    #[command(subcommand)]
    Ipsec(IpsecCommand),
    /// Show a running switch's counters and tables
    Show(ShowArgs),
    /// Watch a running switch's rates
    Top(TopArgs),
    /// Replace a running switch's configuration without losing a frame
    Reload(ReloadArgs),
    /// Check that the sandbox confines a switch on this kernel
    CheckSandbox {
        /// One JSON object per attempt
        #[arg(long)]
        json: bool,
        /// Make one attempt, inside the sandbox
        #[arg(long, hide = true, requires = "directory")]
        probe: Option<usize>,
        /// Where it has its sockets
        #[arg(long, hide = true)]
        directory: Option<PathBuf>,
    },
    /// List the drop reasons with their numbers
    Reasons {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// List the metrics with their types, labels and meanings, as a Markdown page
    Metrics,
    /// Describe the control API, as an OpenAPI document
    Openapi,
}

/// The switch that `replay` and `trace` run without devices.
#[derive(Debug, Args)]
struct OfflineArgs {
    /// The tenant's file (TOML), or a switch's configuration (JSON)
    #[arg(long, value_name = "FILE")]
    tenant: PathBuf,
    /// The port that receives the frames; `uplink` is the uplink
    #[arg(long, value_name = "NAME")]
    port: String,
    /// A JSON list of security associations with test keys, for captures of ESP
    #[arg(long, value_name = "FILE")]
    sa_keys: Option<PathBuf>,
}

#[cfg(feature = "export-keys")]
#[derive(Debug, clap::Subcommand)]
enum IpsecCommand {
    /// Print security associations as Wireshark's file `esp_sa`
    ExportWireshark {
        /// The tenant's file (TOML), or a switch's configuration (JSON)
        #[arg(long, value_name = "FILE")]
        tenant: PathBuf,
        /// A JSON list of security associations with test keys
        #[arg(long, value_name = "FILE")]
        sa_keys: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    switch: OfflineArgs,
    /// A pcap or pcapng file; `-` is standard input. Its timestamps are the switch's clock
    #[arg(value_name = "IN.pcap")]
    capture: PathBuf,
    /// Write the frames that each port sends to DIR/PORT.pcap
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// One JSON object per frame; the summary of counters goes to standard error
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TraceArgs {
    #[command(flatten)]
    switch: OfflineArgs,
    /// A pcap or pcapng file with the frame; the frames before it are processed first
    #[arg(long, value_name = "FILE", conflicts_with = "hex")]
    pcap: Option<PathBuf>,
    /// Which frame of the capture, from 1
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    frame: u64,
    /// The frame's bytes in hexadecimal, from the destination MAC on; spaces and colons are
    /// ignored. Without --pcap and --hex they are read from standard input
    #[arg(long, value_name = "BYTES")]
    hex: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The switch's configuration (JSON), as the provisioner writes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The worker's CPU; by default the first that this process may use
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// The control socket, instead of the configuration's
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// The socket for the supervisor, which restores leases through it after a restart
    #[arg(long, value_name = "SOCKET")]
    channel: Option<PathBuf>,
    /// The socket for the IKE daemon, which negotiates the keys of the tunnel's IPsec
    #[arg(long, value_name = "SOCKET", requires = "ike_uid")]
    ike: Option<PathBuf>,
    /// The user of the IKE daemon: no other is served
    #[arg(long, value_name = "UID", requires = "ike")]
    ike_uid: Option<u32>,
    /// Whether the worker sleeps when there is no traffic
    #[arg(long, value_enum, default_value_t)]
    poll: PollMode,
    /// Keep all privileges after start-up; for debugging only
    #[arg(long)]
    no_sandbox: bool,
}

/// A running switch.
#[derive(Debug, Args)]
struct ControlArgs {
    /// The control socket of the running switch
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// How long to wait for its answer
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_s: u64,
}

impl ControlArgs {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

/// An endpoint that `show` prints.
#[derive(Debug, Clone, Copy)]
struct Shown(Endpoint, &'static Show);

/// Parses the name of a [`Shown`]; the names are those of the table of endpoints.
fn shown() -> impl TypedValueParser<Value = Shown> {
    let all = || {
        Endpoint::ALL
            .iter()
            .filter_map(|endpoint| Some(Shown(*endpoint, endpoint.spec().show.as_ref()?)))
    };
    let names = all().map(|Shown(_, show)| PossibleValue::new(show.name).help(show.help));
    PossibleValuesParser::new(names).try_map(move |name| {
        let found = all().find(|Shown(_, show)| show.name == name);
        found.ok_or_else(|| format!("there is no table of {name}"))
    })
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// What to show
    #[arg(value_parser = shown())]
    what: Shown,
    #[command(flatten)]
    switch: ControlArgs,
    /// With `drops`: also reasons without frames
    #[arg(long)]
    all: bool,
    /// Print the control API's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TopArgs {
    #[command(flatten)]
    switch: ControlArgs,
    /// Seconds between two samples
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Stop after this many intervals
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One JSON object per interval
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReloadArgs {
    /// The new configuration (JSON): the same ports and devices, other addresses, flags and limits
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    switch: ControlArgs,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

/// How a command fails.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// An argument that has no meaning for this tenant or capture.
    #[error("{0}")]
    Usage(String),
    /// An invalid configuration.
    #[error("{0}")]
    Config(String),
    /// The switch could not start, or failed while running.
    #[error(transparent)]
    Run(#[from] run::RunError),
    /// The sandbox allowed a forbidden action.
    #[error("the sandbox does not work on this kernel: {0}; a switch is not confined here")]
    Sandbox(String),
    /// No running switch, or one that refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
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
            Self::Client(_) => 4,
            Self::Run(_)
            | Self::Sandbox(_)
            | Self::Capture(_)
            | Self::Write { .. }
            | Self::Stdio(_) => 1,
        })
    }
}

/// The definition of the command line, for pages and completions that are generated from it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the command, and reports its failure on standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Replay(args) => offline::replay(&args),
        Command::Run(args) => run::run(&args),
        Command::Trace(args) => offline::trace(&args),
        #[cfg(feature = "export-keys")]
        Command::Ipsec(IpsecCommand::ExportWireshark { tenant, sa_keys }) => {
            offline::export_wireshark(&tenant, &sa_keys)
        }
        Command::Show(args) => client::show(&args),
        Command::Top(args) => client::top(&args),
        Command::Reload(args) => client::reload(&args),
        Command::CheckSandbox {
            probe: Some(number),
            directory: Some(directory),
            ..
        } => return check::probe(number, &directory),
        Command::CheckSandbox { json, .. } => check::check(json),
        Command::Reasons { json } => reasons(json),
        Command::Metrics => print(&metrics_reference()),
        Command::Openapi => print(&format!("{:#}\n", openapi::document())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it: `vswitch replay … | head`.
        Err(CliError::Stdio(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = error.exit_code();
            // An error may quote a file or an answer. A log that is full is no reason to panic.
            let _ = writeln!(PlainWriter(io::stderr()), "vswitch: {error}");
            code
        }
    }
}

fn print(text: &str) -> Result<(), CliError> {
    Ok(io::stdout().write_all(text.as_bytes())?)
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
