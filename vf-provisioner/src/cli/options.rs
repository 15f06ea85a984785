//! The options, and what they stand for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tenant_config::Name;

use super::CliError;
use vf_host::launcher::registry::{self as launchers, LauncherKind};
use vf_host::launcher::switches::Switches;
use vf_host::nic::mediation::Weakness;
use vf_host::nic::parts::names::{DEFAULT_INSTANCE, INSTANCE_MAX, Names};
use vf_host::nic::registry::{self as nics, NicKind};
use vf_host::object::Context;
use vf_host::real_host::RealHost;
use vf_host::tenants::Placement;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for verify and check: all is as it should be
  1  it failed; the message says whether everything was taken back
  2  the command line or a tenant's file is wrong; nothing was touched
  3  not as it should be: verify found drift, probe a leak, check found the host not ready,
     plan --detailed-exit-code found something to do

Files (below --state-dir, all of root, mode 0700):
  state.json, journal, lock    what is onboarded, what is ours, an apply under way
  tenants/NAME/config.json     what NAME's switch is given
  tenants/NAME/run/control.sock  its control API
  tenants/NAME/log             its output, cut to its tail at 1 MiB";

/// Carves the NIC into tenants' ports and launches one switch per tenant.
#[derive(Debug, Parser)]
#[command(name = "vf-provisioner", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Where to remember what is onboarded. Everything the provisioner makes ends with the host's
    /// uptime, so the default does too
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/vf-provisioner"
    )]
    pub(super) state_dir: PathBuf,
    /// One to five lower-case letters and digits with which the names of interfaces, control groups
    /// and the nftables table begin (and, other than "mts", those of namespaces): two instances on
    /// one host, each with its own --state-dir, do not meet
    #[arg(long, global = true, value_name = "NAME", default_value = DEFAULT_INSTANCE)]
    #[arg(value_parser = parse_instance)]
    pub(super) instance: String,
    /// What carries frames [default: what the tenants here have, else veth]
    #[arg(long, global = true, value_enum)]
    pub(super) nic: Option<NicKind>,
    #[command(flatten)]
    pub(super) nics: nics::Options,
    /// The first of 1000 unused user ids, one for each switch
    #[arg(long, global = true, value_name = "UID", default_value_t = 64000)]
    pub(super) uid_base: u32,
    /// Which cores switches run on: all on one, or one each
    #[arg(long, global = true, value_enum, default_value_t = PlacementKind::Shared)]
    pub(super) placement: PlacementKind,
    /// The cores for --placement, as in 2,3,6: `shared` takes the first [default: 0 if shared, all
    /// but 0 if isolated]
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',')]
    pub(super) cpus: Vec<u32>,
    /// How new switches run. Those that run stay as they are until they are applied again
    #[arg(long, global = true, value_enum, default_value_t = LauncherKind::Process)]
    pub(super) launcher: LauncherKind,
    #[command(flatten)]
    pub(super) launchers: launchers::Options,
    /// One JSON document on standard output instead of text; supervise: one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Kill this process at the N-th moment at which a crash must do no harm, from 0
    #[arg(long, global = true, hide = true, value_name = "N")]
    pub(super) kill_at: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlacementKind {
    Shared,
    Isolated,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say whether this host is ready, and what to do where it is not
    Check,
    /// Show the SR-IOV NICs: their functions, how each is set, and who uses it
    Nic,
    /// Print what apply would do; touches nothing
    Plan {
        /// Tenants' files, or directories of them (*.toml)
        #[arg(required = true, value_name = "DIR|FILE")]
        tenants: Vec<PathBuf>,
        /// Exit with 3 if there is something to do
        #[arg(long)]
        detailed_exit_code: bool,
        /// Print the tenants' virtual machines as libvirt's domains instead; needs no root
        #[arg(long)]
        print_libvirt: bool,
        /// Plan against the objects in this JSON file instead of this host; needs no root
        #[arg(long, hide = true, value_name = "FILE")]
        fake_host: Option<PathBuf>,
    },
    /// Make the host hold these tenants, each with its switch running and answering. Tenants that
    /// are not named stay as they are. On failure everything is taken back
    Apply {
        /// Tenants' files, or directories of them (*.toml)
        #[arg(required = true, value_name = "DIR|FILE")]
        tenants: Vec<PathBuf>,
        /// Make the mediation probe once more when all switches run. If it finds a leak, tenants
        /// that were not here before are taken away again
        #[arg(long)]
        prove: bool,
        /// Do not make the mediation probe of new virtual functions before switches are given them
        #[arg(long, conflicts_with = "prove")]
        no_prove: bool,
    },
    /// Show each tenant's switch, and what it has used
    Status {
        /// Only this tenant
        tenant: Option<Name>,
        /// Print it in the text format of Prometheus
        #[arg(long, conflicts_with = "json")]
        metrics: bool,
    },
    /// Compare everything that was set with what the kernel has now, and ask every gateway with
    /// real frames; changes nothing
    Verify,
    /// Show with real frames that no tenant's frame gets around its switch: guests send everything
    /// that they could try, and nobody but their own switch may see it. What a switch drops of it,
    /// it counts
    Probe {
        /// Only these tenants send [default: all]
        #[arg(value_name = "TENANT")]
        tenants: Vec<Name>,
        /// An interface at the other end of the NIC's cable, or of the bridge's wire: what reaches
        /// it, and what comes in from it, is reported
        #[arg(long, value_name = "INTERFACE")]
        wire: Option<String>,
        /// What may be found all the same: forged-source, uplink-tag [default: what the tenants'
        /// files accept]
        #[arg(long, value_name = "LIST", value_delimiter = ',')]
        accept: Vec<Weakness>,
    },
    /// Stop tenants' switches and take away everything made for them
    Release {
        /// Which ones
        #[arg(required_unless_present = "all", value_name = "TENANT")]
        tenants: Vec<Name>,
        /// All of them, and whatever an interrupted apply left
        #[arg(long, conflicts_with = "tenants")]
        all: bool,
    },
    /// Watch the switches: start a dead one again, report drift. Ends on SIGTERM or SIGINT; the
    /// switches go on
    Supervise {
        /// Seconds between two looks for drift; 0 is never
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        verify_every: u64,
        /// Keep what was seen in this file, in Prometheus' text format, as a textfile collector
        /// reads it
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    #[command(hide = true)]
    Confine {
        #[arg(long, value_name = "TASK")]
        inner: Option<String>,
    },
}

fn parse_instance(text: &str) -> Result<String, String> {
    let good = (1..=INSTANCE_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "not 1 to {INSTANCE_MAX} lower-case letters and digits that begin with a letter"
        ))
    }
}

impl Global {
    pub(super) fn names(&self) -> Names {
        Names::new(&self.instance)
    }

    pub(super) fn context(&self) -> Context {
        let switches = &self.launchers.process;
        Context {
            state_dir: std::path::absolute(&self.state_dir).unwrap_or(self.state_dir.clone()),
            instance: self.instance.clone(),
            cpu_percent: switches.cpu_limit,
            memory_mib: switches.memory_limit,
            resize_pf: self.nics.sriov.resize_pf,
        }
    }

    pub(super) fn switches(&self) -> Switches {
        Switches::new(self.context())
    }

    pub(super) fn host(&self) -> RealHost {
        RealHost {
            context: self.context(),
            skip_probe: false,
        }
    }

    pub(super) fn placement(&self) -> Result<Placement, CliError> {
        let online = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        Ok(match self.placement {
            PlacementKind::Shared => Placement::Shared(self.cpus.first().copied().unwrap_or(0)),
            PlacementKind::Isolated if self.cpus.is_empty() => {
                if online < 2 {
                    return Err(CliError::Usage(
                        "--placement isolated: this host has one core; use shared, or name cores \
                         in --cpus"
                            .to_owned(),
                    ));
                }
                Placement::Isolated((1..online).collect())
            }
            PlacementKind::Isolated => Placement::Isolated(self.cpus.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_of_backends_and_launchers_do_not_clash() {
        Cli::command().debug_assert();
    }
}
