//! The options, and the values that they select.

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
use vf_host::tenants::{DEFAULT_UID_BASE, Placement};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for verify and check: all is as it should be
  1  it failed; the message says whether all completed steps were rolled back
  2  the command line or a tenant's file is wrong; nothing was touched
  3  not as it should be: verify found drift, probe a leak, check found the host not ready,
     plan --detailed-exit-code found something to do

Files (below --state-dir, all of root, mode 0700):
  state.json, journal, lock    what is onboarded, what is ours, an apply under way
  reserve                      space for a release and for restarts when the disk is full
  released-users.json          users that new tenants get last; stays after the last release
  tenants/NAME/config.json     what NAME's switch is given
  tenants/NAME/run/control.sock  its control API
  tenants/NAME/log, log.1      its output, and what was its output before that passed 1 MiB";

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
    /// The state directory. Everything that the provisioner makes is lost with a reboot, and so is
    /// the default directory
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/vf-provisioner"
    )]
    pub(super) state_dir: PathBuf,
    /// The prefix of the names of interfaces, control groups, the nftables table and (except "mts")
    /// namespaces: one to five lower-case letters and digits. Two instances on one host, each with
    /// its own --state-dir, do not interfere
    #[arg(long, global = true, value_name = "NAME", default_value = DEFAULT_INSTANCE)]
    #[arg(value_parser = parse_instance)]
    pub(super) instance: String,
    /// What carries frames [default: that of this host's tenants, else veth]
    #[arg(long, global = true, value_enum)]
    pub(super) nic: Option<NicKind>,
    #[command(flatten)]
    pub(super) nics: nics::Options,
    /// The first of 1000 unused user IDs, one for each switch
    #[arg(long, global = true, value_name = "UID", default_value_t = DEFAULT_UID_BASE)]
    pub(super) uid_base: u32,
    /// The cores of switches: one for all, or one each
    #[arg(long, global = true, value_enum, default_value_t = PlacementKind::Shared)]
    pub(super) placement: PlacementKind,
    /// The cores for --placement, as in 2,3,6: `shared` takes the first [default: 0 if shared, all
    /// but 0 if isolated]
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',')]
    pub(super) cpus: Vec<u32>,
    /// How new switches run. Running switches stay as they are until they are applied again
    #[arg(long, global = true, value_enum, default_value_t = LauncherKind::Process)]
    pub(super) launcher: LauncherKind,
    #[command(flatten)]
    pub(super) launchers: launchers::Options,
    /// Print one JSON document instead of text; supervise: one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Kill this process at the N-th point (from 0) at which a crash must do no harm
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
    /// Check whether this host is ready, and print what to do if not
    Check,
    /// Show the SR-IOV NICs: their functions with settings and users
    Nic,
    /// Print what apply would do; changes nothing
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
    /// Onboard these tenants: afterwards each one's switch runs and answers. Other tenants stay as
    /// they are. On failure all completed steps are rolled back
    Apply {
        /// Tenants' files, or directories of them (*.toml)
        #[arg(required = true, value_name = "DIR|FILE")]
        tenants: Vec<PathBuf>,
        /// Repeat the mediation probe when all switches run. If it finds a leak, new tenants are
        /// released again
        #[arg(long)]
        prove: bool,
        /// Skip the mediation probe of new virtual functions before their switches start
        #[arg(long, conflicts_with = "prove")]
        no_prove: bool,
    },
    /// Show each tenant's switch and its usage
    Status {
        /// Only this tenant
        tenant: Option<Name>,
        /// Print it in Prometheus' text format
        #[arg(long, conflicts_with = "json")]
        metrics: bool,
    },
    /// Compare all settings with what the kernel has now, and probe every gateway with real frames;
    /// changes nothing
    Verify,
    /// Show with real frames that no tenant's frame bypasses its switch: guests send everything
    /// that they could try, and only their own switch may receive it. Switches count the frames
    /// that they drop
    Probe {
        /// Only these tenants send [default: all]
        #[arg(value_name = "TENANT")]
        tenants: Vec<Name>,
        /// An interface at the other end of the NIC's cable, or of the bridge's wire: frames that
        /// reach it, or come from it, are reported
        #[arg(long, value_name = "INTERFACE")]
        wire: Option<String>,
        /// Accepted weaknesses: forged-source, uplink-tag [default: those that the tenants' files
        /// accept]
        #[arg(long, value_name = "LIST", value_delimiter = ',')]
        accept: Vec<Weakness>,
    },
    /// Stop tenants' switches and remove everything made for them
    Release {
        /// Which ones
        #[arg(required_unless_present = "all", value_name = "TENANT")]
        tenants: Vec<Name>,
        /// All of them, and everything that an interrupted apply left
        #[arg(long, conflicts_with = "tenants")]
        all: bool,
    },
    /// Watch the switches: restart those that are dead or forward nothing, recreate what is
    /// missing, complete killed applies, report drift. Ends on SIGTERM or SIGINT; the switches keep
    /// running
    Supervise {
        /// Seconds between two verifications; 0 is never
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        verify_every: u64,
        /// Write metrics to this file, in Prometheus' text format for a textfile collector
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    #[command(hide = true)]
    Ask,
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
