//! Checks tenant files, prints switch configurations and the schemas of both, and imports ports.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::json;
use tenant_config::{Addresses, ConfigErrors, Name, SwitchConfig, Tenant, load_all};
use tenant_import::{Format, Import, MAX_BYTES};

/// Checks tenant files and prints the switch configurations that follow from them
///
/// A tenant file is what an operator writes about one tenant: its name, its VNI, its gateway, its
/// ports and, optionally, its uplink and tunnel. docs/reference/tenant-file.md describes every key.
///
/// Reads nothing on the host but the named files, and changes nothing.
#[derive(Debug, Parser)]
#[command(name = "tenant-config", version, arg_required_else_help = true)]
#[command(after_long_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit status:
  0  the files are valid; the output is complete
  1  a file cannot be read or is not valid, or the output could not be written
  2  the command line is wrong
  3  import: the sections are printed, but something is missing or left out

Examples:
  tenant-config check /etc/mts/tenants
  tenant-config check --json red.toml | jq -r '.errors[].message'
  tenant-config switch red.toml | jq '.ports[].gateway_mac'
  tenant-config schema tenant > tenant.schema.json
  tenant-config peers --name host-a red.toml    # for red's file of the other hosts
  virsh dumpxml red-vm1 | tenant-config import --from libvirt - >> red.toml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check tenant files, each alone and all together
    ///
    /// Prints every error of every file, one per line, as FILE:LINE:COLUMN: KEY: what is wrong and
    /// what to do. Files that are valid by themselves are then compared with each other: names,
    /// VNIs, MACs and uplink addresses must differ, and tenants that both route plainly to the
    /// underlay must have different inner subnets.
    #[command(after_long_help = AFTER_CHECK)]
    Check {
        /// Tenant files, or directories of *.toml
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        /// Print one JSON object to standard output instead: "tenants" and "errors"
        #[arg(long)]
        json: bool,
    },
    /// Print a JSON Schema (draft 2020-12)
    ///
    /// The schema describes the shape of single values. Rules between values (an address inside the
    /// gateway's subnet, a MAC that is used once) are for `check`.
    Schema {
        /// What to describe: the tenant file, or the configuration of one switch
        #[arg(value_enum, default_value_t = Subject::Tenant)]
        subject: Subject,
    },
    /// Print the configuration of the tenant's switch as JSON
    ///
    /// Every device is "offline", as for replay; on a host the provisioner writes the real ones.
    Switch {
        /// The tenant file
        file: PathBuf,
    },
    /// Print the [[tunnel.peer]] section by which other hosts reach this tenant's ports
    ///
    /// It names the tunnel endpoint of this file and all that is behind it: the addresses of its
    /// ports, and their routes. It belongs into the tenant's file of every other host. What a port
    /// learns by DHCP is not in it, and is named on standard error.
    #[command(after_long_help = AFTER_PEERS)]
    Peers {
        /// The peer's name in the other hosts' files
        #[arg(long, default_value = "peer")]
        name: Name,
        /// The tenant file
        file: PathBuf,
    },
    /// Print [[port]] sections for the interfaces of a virtual machine
    ///
    /// The sections go to standard output, to be put into a tenant file. What a port's keys cannot
    /// express and what the description lacks goes to standard error, one per line, as
    /// FILE:LINE: PORT: WHAT: why, and what to do. The source filter of libvirt's nwfilter needs no
    /// key: the switch's own is always on.
    #[command(after_long_help = AFTER_IMPORT)]
    Import {
        /// The format of the description
        #[arg(long, value_enum, value_name = "FORMAT")]
        from: Source,
        /// The description, or "-" for standard input
        file: PathBuf,
    },
}

const AFTER_CHECK: &str = "\
With --json each error is an object:
  file     as given on the command line
  line     from 1, or null for an error of the file as a whole
  column   from 1, in characters, or null
  key      as port[1].mac; ports count from 0
  port     the name of the port that the key belongs to, or null
  kind     stable, in kebab-case, as duplicate-mac
  message  for people
and the values of that kind.

Exit status: 0 all valid, 1 not valid or not readable, 2 wrong command line";

const AFTER_PEERS: &str = "\
Exit status: 0 everything is in the section, 1 not valid or not readable, or without a tunnel,
2 wrong command line, 3 the section is printed, but a port learns its address";

const AFTER_IMPORT: &str = "\
Exit status: 0 everything is in the sections, 1 not readable or no such description,
2 wrong command line, 3 the sections are printed, but something is missing or left out";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Source {
    /// A domain's XML, as virsh dumpxml prints it
    Libvirt,
    /// The .ovf file of an OVF package
    Ovf,
}

impl From<Source> for Format {
    fn from(source: Source) -> Self {
        match source {
            Source::Libvirt => Self::Libvirt,
            Source::Ovf => Self::Ovf,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// The tenant file (TOML, described as JSON)
    Tenant,
    /// The configuration of one switch (JSON)
    Switch,
}

/// The definition of the command line, for pages and completions that are generated from it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(Outcome::Complete) => ExitCode::SUCCESS,
        Ok(Outcome::Invalid) => ExitCode::from(1),
        Ok(Outcome::Incomplete) => ExitCode::from(3),
        // The reader has closed the pipe, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed as well, the exit status is all that is left.
            let _ = writeln!(
                io::stderr(),
                "tenant-config: cannot write the output: {error}"
            );
            ExitCode::from(1)
        }
    }
}

/// How a command ended whose output could be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Complete,
    Invalid,
    Incomplete,
}

fn run(command: &Command) -> io::Result<Outcome> {
    match command {
        Command::Check { paths, json: true } => check_json(load_all(paths)),
        Command::Check { paths, json: false } => check(load_all(paths)),
        Command::Schema { subject } => {
            print(&match subject {
                Subject::Tenant => schemars::schema_for!(Tenant),
                Subject::Switch => schemars::schema_for!(SwitchConfig),
            })?;
            Ok(Outcome::Complete)
        }
        Command::Switch { file } => match Tenant::load(file) {
            Ok(tenant) => print(&tenant.offline_config()).map(|()| Outcome::Complete),
            Err(errors) => complain(&errors),
        },
        Command::Peers { name, file } => match Tenant::load(file) {
            Ok(tenant) => peers(name, file, &tenant.offline_config()),
            Err(errors) => complain(&errors),
        },
        Command::Import { from, file } => import((*from).into(), file),
    }
}

/// Prints how other hosts reach the ports of a tenant.
fn peers(name: &Name, file: &Path, config: &SwitchConfig) -> io::Result<Outcome> {
    let Some(tunnel) = &config.tunnel else {
        let file = file.display();
        writeln!(
            io::stderr(),
            "{file}: the tenant has no [tunnel], so no other host reaches it"
        )?;
        return Ok(Outcome::Invalid);
    };
    let mut out = io::stdout().lock();
    writeln!(out, "[[tunnel.peer]]")?;
    writeln!(out, "name     = \"{name}\"")?;
    writeln!(out, "vtep     = \"{}\"", tunnel.vtep)?;
    writeln!(out, "prefixes = [")?;
    let mut outcome = Outcome::Complete;
    for port in &config.ports {
        for net in port.sources() {
            let net = tenant_config::show(net);
            writeln!(out, "    \"{net}\", # {}", port.name)?;
        }
        let from_server = matches!(port.addresses, Addresses::Learned(_));
        let learned = [
            from_server.then_some("learns its address: write what its server may give it"),
            (port.addresses6.is_some())
                .then_some("makes IPv6 addresses: write those that you know"),
        ];
        for what in learned.into_iter().flatten() {
            writeln!(io::stderr(), "{}: {} {what}", file.display(), port.name)?;
            outcome = Outcome::Incomplete;
        }
    }
    writeln!(out, "]")?;
    out.flush()?;
    Ok(outcome)
}

fn import(format: Format, file: &Path) -> io::Result<Outcome> {
    let text = read_description(file).map_err(|error| format!("cannot be read: {error}"));
    let import =
        text.and_then(|text| Import::parse(format, &text).map_err(|error| error.to_string()));
    let name = file.display();
    let import = match import {
        Ok(import) => import,
        Err(reason) => {
            writeln!(io::stderr(), "{name}: {reason}")?;
            return Ok(Outcome::Invalid);
        }
    };
    let mut out = io::stdout().lock();
    write!(out, "{import}")?;
    out.flush()?;
    for note in &import.notes {
        writeln!(io::stderr(), "{name}:{note}")?;
    }
    Ok(match import.is_complete() {
        true => Outcome::Complete,
        false => Outcome::Incomplete,
    })
}

/// One byte beyond the limit is read, for the error of a description that is too large.
fn read_description(file: &Path) -> io::Result<String> {
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file)?),
    };
    let mut text = String::new();
    source
        .take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn check(result: Result<Vec<Tenant>, ConfigErrors>) -> io::Result<Outcome> {
    let tenants = match result {
        Ok(tenants) => tenants,
        Err(errors) => return complain(&errors),
    };
    let mut out = io::stdout().lock();
    for tenant in &tenants {
        let uplink = match tenant.uplink() {
            Some(_) => "an uplink",
            None => "no uplink",
        };
        let tunnel = tenant.tunnel().map_or_else(String::new, |tunnel| {
            let peers = tunnel.peers.len();
            let plural = if peers == 1 { "" } else { "s" };
            format!(
                ", a {} tunnel to {peers} peer{plural}",
                tunnel.kind.as_str()
            )
        });
        let ports = tenant.ports().len();
        let plural = if ports == 1 { "" } else { "s" };
        writeln!(
            out,
            "{}: valid, VNI {}, {ports} port{plural}, {uplink}{tunnel}",
            tenant.name(),
            tenant.vni()
        )?;
    }
    out.flush()?;
    Ok(Outcome::Complete)
}

fn check_json(result: Result<Vec<Tenant>, ConfigErrors>) -> io::Result<Outcome> {
    let outcome = match &result {
        Ok(_) => Outcome::Complete,
        Err(_) => Outcome::Invalid,
    };
    print(&match result {
        Ok(tenants) => {
            let names: Vec<_> = tenants.iter().map(Tenant::name).collect();
            json!({ "tenants": names, "errors": [] })
        }
        Err(errors) => json!({ "tenants": [], "errors": errors }),
    })?;
    Ok(outcome)
}

fn complain(errors: &ConfigErrors) -> io::Result<Outcome> {
    writeln!(io::stderr(), "{errors}")?;
    Ok(Outcome::Invalid)
}

fn print(value: &impl serde::Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
