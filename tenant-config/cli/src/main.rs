//! Checks tenant files, prints what a switch would be given, and the schemas of both.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;
use tenant_config::{ConfigErrors, SwitchConfig, Tenant, load_all};

/// Checks tenant files and shows what becomes of them
///
/// A tenant file is what an operator writes about one tenant: its name, its VNI, its gateway, its
/// ports and, optionally, its uplink and tunnel. docs/reference/tenant-file.md describes every key.
///
/// Nothing on the host is read but the files named, and nothing is changed.
#[derive(Debug, Parser)]
#[command(name = "tenant-config", version, arg_required_else_help = true, after_long_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit status:
  0  the files are valid; the output is complete
  1  a file cannot be read or is not valid, or the output could not be written
  2  the command line is wrong

Examples:
  tenant-config check /etc/mts/tenants
  tenant-config check --json red.toml | jq -r '.errors[].message'
  tenant-config switch red.toml | jq '.ports[].gateway_mac'
  tenant-config schema tenant > tenant.schema.json";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check tenant files, each alone and all together
    ///
    /// Every error of every file is printed at once, one per line, as FILE:LINE:COLUMN: KEY: what is
    /// wrong and what to do. Files that are valid alone are then held against each other: names, VNIs,
    /// MACs and uplink addresses must differ, and tenants that both route plainly to the underlay must
    /// have different inner subnets.
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
    /// The schema describes the shape of single values. What must hold between them (an address inside
    /// the gateway's subnet, a MAC that is used once) only `check` tells.
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
}

const AFTER_CHECK: &str = "\
With --json each error is an object:
  file     as it was named
  line     from 1, or null for an error of the file as a whole
  column   from 1, in characters, or null
  key      as port[1].mac; ports count from 0
  port     the name of the port that the key belongs to, or null
  kind     stable, in kebab-case, as duplicate-mac
  message  for people
and the values that the kind is about.

Exit status: 0 all valid, 1 not valid or not readable, 2 wrong command line";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// The tenant file (TOML, described as JSON)
    Tenant,
    /// The configuration of one switch (JSON)
    Switch,
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(valid) if valid => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        // As of `head`: the reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed as well; there is nobody left to tell.
            let _ = writeln!(
                io::stderr(),
                "tenant-config: cannot write the output: {error}"
            );
            ExitCode::from(1)
        }
    }
}

/// Carries out a command; whether what it was given is valid.
fn run(command: &Command) -> io::Result<bool> {
    match command {
        Command::Check { paths, json: true } => check_json(load_all(paths)),
        Command::Check { paths, json: false } => check(load_all(paths)),
        Command::Schema { subject } => {
            print(&match subject {
                Subject::Tenant => schemars::schema_for!(Tenant),
                Subject::Switch => schemars::schema_for!(SwitchConfig),
            })?;
            Ok(true)
        }
        Command::Switch { file } => match Tenant::load(file) {
            Ok(tenant) => print(&tenant.offline_config()).map(|()| true),
            Err(errors) => complain(&errors),
        },
    }
}

fn check(result: Result<Vec<Tenant>, ConfigErrors>) -> io::Result<bool> {
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
    Ok(true)
}

fn check_json(result: Result<Vec<Tenant>, ConfigErrors>) -> io::Result<bool> {
    let valid = result.is_ok();
    print(&match result {
        Ok(tenants) => {
            let names: Vec<_> = tenants.iter().map(Tenant::name).collect();
            json!({ "tenants": names, "errors": [] })
        }
        Err(errors) => json!({ "tenants": [], "errors": errors }),
    })?;
    Ok(valid)
}

fn complain(errors: &ConfigErrors) -> io::Result<bool> {
    writeln!(io::stderr(), "{errors}")?;
    Ok(false)
}

fn print(value: &impl serde::Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
