//! The options, and the values that they select.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tenant_config::Name;

use super::CliError;
use super::config::Origin;
use vf_host::launcher::registry::{self as launchers, LauncherKind};
use vf_host::launcher::switches::Switches;
use vf_host::nic::parts::names::{DEFAULT_INSTANCE, INSTANCE_MAX, Names};
use vf_host::nic::registry::{self as nics, NicKind};
use vf_host::object::Context;
use vf_host::real_host::RealHost;
use vf_host::resource::Key;
use vf_host::state;
use vf_host::tenants::{DEFAULT_UID_BASE, Placement};

/// The end of the help.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done; all is as it should be
  1  it failed; the message says whether all completed steps were rolled back. Of an apply: at
     least one tenant failed, and the others are as they should be
  2  the command line, a configuration file or a tenant's file is wrong, or a tenant is not
     onboarded: what is wrong was not touched. Of an apply: everything else was done
  3  not as it should be: a switch that status shows is not up, verify found drift or a peer that
     requires IPsec and has none, probe a leak, check found the host not ready,
     plan --detailed-exit-code found something to do

Files (below --state-dir, all of root, mode 0700):
  state.json, journal, lock    what is onboarded, what is ours, an apply under way
  reserve                      space for a release and for restarts when the disk is full
  history, history.1           who changed tenants, for `journal`; stays after the last release
  troubles.json                what the supervisor cannot set right, for `status`
  released-users.json          users that new tenants get last; stays after the last release
  tenants/NAME/config.json     what NAME's switch is given
  tenants/NAME/run/control.sock  its control API
  tenants/NAME/log, log.1      its output, and what was its output before that passed 1 MiB
  tenants/NAME/ike/log, log.1  the same of NAME's IKE daemon, where the tunnel has IPsec";

/// The options of all commands.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// A configuration file with global options, which the command line overrides [default:
    /// /etc/vf-provisioner/config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The state directory. Everything else that the provisioner makes is lost with a reboot, and
    /// made again by `supervise` from what is recorded here [default: /var/lib/vf-provisioner]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value_os_t = default_state_dir(),
        hide_default_value = true
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
    /// The options of tenants that have a section in the configuration file.
    #[arg(skip)]
    pub(super) of_tenants: BTreeMap<Name, Self>,
    /// Where the options come from.
    #[arg(skip)]
    pub(super) origins: BTreeMap<String, Origin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlacementKind {
    Shared,
    Isolated,
}

/// `/var/lib/vf-provisioner`, unless tenants of an earlier version are recorded in `/run`: they end
/// with the host's uptime, as that does.
fn default_state_dir() -> PathBuf {
    let before = PathBuf::from("/run/vf-provisioner");
    match before.join("state.json").exists() {
        true => before,
        false => PathBuf::from("/var/lib/vf-provisioner"),
    }
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
    /// The options that hold for this tenant's switch.
    pub(super) fn of(&self, tenant: &Name) -> &Self {
        self.of_tenants.get(tenant).unwrap_or(self)
    }

    /// Refuses a state directory of another instance: its tenants have other names on this host.
    pub(super) fn agree(&self) -> Result<(), CliError> {
        let state = state::read(&self.state_dir)?;
        let records = state.tenants.values().flat_map(|record| &record.resources);
        let recorded = records
            .chain(state.owned.values())
            .find_map(|it| match it.key() {
                Key::Cgroup { path } => Some(path.split('/').next().unwrap_or_default().to_owned()),
                _ => None,
            });
        let Some(recorded) = recorded.filter(|recorded| *recorded != self.instance) else {
            return Ok(());
        };
        let from = self.origins.get("instance");
        let from = from.map(|it| format!(" ({})", it.from)).unwrap_or_default();
        Err(CliError::Usage(format!(
            "instance: {}{from}: the tenants of state directory {} are of instance {recorded}: \
             give that instance, or another state directory",
            self.instance,
            self.state_dir.display()
        )))
    }

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
