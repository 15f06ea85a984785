//! The options, and what they stand for.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tenant_config::{Memory, Name, VlanId};

use super::CliError;
use vf_host::launcher::process::{Limits, Process};
use vf_host::launcher::{Launchers, vm};
use vf_host::nic::NicBackend;
use vf_host::nic::mediation::Weakness;
use vf_host::nic::sriov::allocate::{Pool, VlanRange};
use vf_host::nic::sriov::inventory::{self, Inventory};
use vf_host::nic::sriov::{self, Guests, Sriov};
use vf_host::nic::veth::{DEFAULT_INSTANCE, INSTANCE_MAX, Veth};
use vf_host::real_host::RealHost;
use vf_host::resource::{Accel, Manager};
use vf_host::state::State;
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
    /// What carries frames: veth pairs, or virtual functions of an SR-IOV NIC [default: what the tenants here
    /// have, else veth]
    #[arg(long, global = true, value_enum)]
    pub(super) nic: Option<NicKind>,
    /// With --nic sriov: the physical functions, by interface or PCI address; the first one's functions are taken
    /// first [default: those that the tenants here are on]
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',')]
    pub(super) pf: Vec<String>,
    /// The one of --pf that leads to the underlay [default: any of them]
    #[arg(long, global = true, value_name = "PF")]
    pub(super) inout_pf: Option<String>,
    /// With --nic sriov: the VLAN that In/Out functions are put on. A switch that was taken over can then choose no other
    /// [default: none, or as the tenants here have it]
    #[arg(long, global = true, value_name = "VLAN", value_parser = parse_vlan)]
    pub(super) inout_vlan: Option<VlanId>,
    /// The VLANs that ports are put on, one each; ports that have another get one of these. The switch at the other
    /// end of the NIC's cable must carry none of them [default: ports keep theirs, others get one of 3000-3999]
    #[arg(long, global = true, value_name = "FIRST-LAST")]
    pub(super) vlans: Option<VlanRange>,
    /// Who is behind a T VF: a virtual machine through vfio-pci, or a network namespace named like the port
    /// [default: as with the tenants here, else vfio]
    #[arg(long, global = true, value_enum)]
    pub(super) guest: Option<GuestKind>,
    /// With --guest netns: the kernel's driver for the T VFs [default: as the NIC's own driver suggests]
    #[arg(long, global = true, value_name = "DRIVER")]
    pub(super) guest_driver: Option<String>,
    /// Give a NIC of --pf all the virtual functions it can have, although some of those it has are in use
    #[arg(long, global = true)]
    pub(super) resize_pf: bool,
    /// Read the NICs from this JSON file, as `nic --json` prints it, and not from this host
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(super) fake_nic: Option<PathBuf>,
    /// The bridge on which In/Out sides meet the wire; it is made where it is missing. Enslave the
    /// wire's interface to it [default: INSTANCE-br0]
    #[arg(long, global = true, value_name = "INTERFACE")]
    pub(super) bridge: Option<String>,
    /// The switch's executable [default: vswitch beside this program, else the one in PATH]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) switch_binary: Option<PathBuf>,
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
    /// Processor time of one switch, in percent of one core
    #[arg(long, global = true, value_name = "PERCENT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) cpu_limit: u32,
    /// Memory of one switch beside its packet memory, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=65536))]
    pub(super) memory_limit: u32,
    /// Packet memory of one switch, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=4096))]
    pub(super) packet_memory: u32,
    /// Take packet memory from hugepages
    #[arg(long, global = true)]
    pub(super) hugepages: bool,
    /// How new switches run: each as a process of this host, or each in a virtual machine that this
    /// program or libvirt starts. Those that run stay as they are until they are applied again
    #[arg(long, global = true, value_enum, default_value_t = LauncherKind::Process)]
    pub(super) launcher: LauncherKind,
    /// The directory of the image that virtual machines boot [default: switch-image beside the
    /// directory of this program]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) vm_image: Option<PathBuf>,
    /// What executes virtual machines: the processor, or QEMU's translator; `auto` is the processor if
    /// it can
    #[arg(long, global = true, value_enum, default_value_t = AccelKind::Auto)]
    pub(super) accel: AccelKind,
    /// Memory of one virtual machine, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 160)]
    #[arg(value_parser = clap::value_parser!(u32).range(96..=65536))]
    pub(super) vm_memory: u32,
    /// One JSON document on standard output instead of text; supervise: one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Kill this process at the N-th moment at which a crash must do no harm, from 0
    #[arg(long, global = true, hide = true, value_name = "N")]
    pub(super) kill_at: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NicKind {
    Veth,
    Sriov,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GuestKind {
    Vfio,
    Netns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlacementKind {
    Shared,
    Isolated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LauncherKind {
    Process,
    Vm,
    Libvirt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AccelKind {
    Auto,
    Kvm,
    Tcg,
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
        /// Make the mediation probe once more when all switches run. If it finds a leak, tenants that were not here
        /// before are taken away again
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
    /// Compare everything that was set with what the kernel has now, and ask every gateway with real
    /// frames; changes nothing
    Verify,
    /// Show with real frames that no tenant's frame gets around its switch: guests send everything that
    /// they could try, and nobody but their own switch may see it. What a switch drops of it, it counts
    Probe {
        /// Only these tenants send [default: all]
        #[arg(value_name = "TENANT")]
        tenants: Vec<Name>,
        /// An interface at the other end of the NIC's cable, or of the bridge's wire: what reaches it, and what
        /// comes in from it, is reported
        #[arg(long, value_name = "INTERFACE")]
        wire: Option<String>,
        /// What may be found all the same: forged-source, uplink-tag [default: what the tenants' files accept]
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
        /// Keep what was seen in this file, in Prometheus' text format, as a textfile collector reads it
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    #[command(hide = true)]
    Confine {
        #[arg(long, value_name = "TASK")]
        inner: Option<String>,
    },
}

fn parse_vlan(text: &str) -> Result<VlanId, String> {
    let vlan = text.parse().ok().and_then(|vlan| VlanId::new(vlan).ok());
    vlan.ok_or_else(|| "not a VLAN from 1 to 4094".to_owned())
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

/// What is installed in a directory beside the one of this program.
fn beside_programs(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let programs = program.parent().and_then(Path::parent);
    programs.unwrap_or(Path::new("/")).join(name)
}

impl Global {
    pub(super) fn veth(&self) -> Veth {
        let bridge = match &self.bridge {
            Some(bridge) => bridge.clone(),
            None => format!("{}-br0", self.instance),
        };
        Veth::new(&self.instance, &bridge)
    }

    pub(super) fn inventory(&self) -> Result<Inventory, CliError> {
        let Some(file) = &self.fake_nic else {
            return inventory::read().map_err(|error| CliError::Failed(error.to_string()));
        };
        let failed =
            |error: &dyn std::fmt::Display| CliError::Usage(format!("{}: {error}", file.display()));
        let text = std::fs::read(file).map_err(|error| failed(&error))?;
        serde_json::from_slice(&text).map_err(|error| failed(&error))
    }

    /// The backend for tenants to be set.
    pub(super) fn nic(&self, state: &State) -> Result<Box<dyn NicBackend>, CliError> {
        let recorded = sriov::is_recorded(state);
        match self.nic {
            Some(NicKind::Veth) => return Ok(Box::new(self.veth())),
            None if !recorded && self.pf.is_empty() => return Ok(Box::new(self.veth())),
            _ => {}
        }
        let pool = Pool {
            pfs: if self.pf.is_empty() {
                sriov::recorded_pfs(state)
            } else {
                self.pf.clone()
            },
            inout: self.inout_pf.clone(),
            vlans: self.vlans.unwrap_or_default(),
            keep_vlans: self.vlans.is_none(),
            inout_vlan: self.inout_vlan,
            resize: self.resize_pf,
        };
        let guests = match self.guest {
            Some(GuestKind::Netns) => Guests::Namespace(self.guest_driver.clone()),
            None if sriov::has_namespaces(state) => Guests::Namespace(self.guest_driver.clone()),
            _ => Guests::Vfio,
        };
        Ok(Box::new(Sriov::new(
            self.veth(),
            self.inventory()?,
            pool,
            guests,
            state,
        )))
    }

    pub(super) fn process(&self) -> Process {
        Process {
            state_dir: std::path::absolute(&self.state_dir).unwrap_or(self.state_dir.clone()),
            binary: self.binary(),
            instance: self.instance.clone(),
            limits: Limits {
                cpu_percent: self.cpu_limit,
                memory_mib: self.memory_limit,
                packet_memory: Memory {
                    mib: self.packet_memory,
                    hugepages: self.hugepages,
                },
            },
        }
    }

    pub(super) fn binary(&self) -> PathBuf {
        if let Some(binary) = &self.switch_binary {
            return std::path::absolute(binary).unwrap_or(binary.clone());
        }
        let beside = std::env::current_exe()
            .ok()
            .map(|program| program.with_file_name("vswitch"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        beside
            .into_iter()
            .chain(std::env::split_paths(&path).map(|dir| dir.join("vswitch")))
            .find(|file| file.is_file())
            .unwrap_or_else(|| PathBuf::from("/usr/bin/vswitch"))
    }

    /// For what is there: it says itself how it runs.
    pub(super) fn launchers(&self) -> Launchers {
        Launchers {
            process: self.process(),
            machines: None,
        }
    }

    /// For new switches.
    pub(super) fn chosen(&self) -> Result<Launchers, CliError> {
        let manager = match self.launcher {
            LauncherKind::Process => return Ok(self.launchers()),
            LauncherKind::Vm => Manager::Qemu,
            LauncherKind::Libvirt => Manager::Libvirt,
        };
        Ok(Launchers {
            machines: Some(self.machines(manager)?),
            ..self.launchers()
        })
    }

    /// What new machines are like.
    pub(super) fn machines(&self, manager: Manager) -> Result<vm::Settings, CliError> {
        let accel = match self.accel {
            AccelKind::Auto => None,
            AccelKind::Kvm => Some(Accel::Kvm),
            AccelKind::Tcg => Some(Accel::Tcg),
        };
        let image = match &self.vm_image {
            Some(image) => std::path::absolute(image).unwrap_or(image.clone()),
            None => beside_programs("switch-image"),
        };
        vm::Settings::find(manager, &image, accel, self.vm_memory, self.hugepages)
            .map_err(CliError::Usage)
    }

    pub(super) fn host(&self) -> RealHost {
        RealHost {
            // Whatever tenants have, it is read and taken away.
            nic: Box::new(Sriov::hands(self.veth(), self.resize_pf)),
            launcher: Box::new(self.launchers()),
        }
    }

    pub(super) fn placement(&self) -> Result<Placement, CliError> {
        let online = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        Ok(match self.placement {
            PlacementKind::Shared => Placement::Shared(self.cpus.first().copied().unwrap_or(0)),
            PlacementKind::Isolated if self.cpus.is_empty() => {
                if online < 2 {
                    return Err(CliError::Usage(
                        "--placement isolated: this host has one core; use shared, or name cores in --cpus"
                            .to_owned(),
                    ));
                }
                Placement::Isolated((1..online).collect())
            }
            PlacementKind::Isolated => Placement::Isolated(self.cpus.clone()),
        })
    }
}
