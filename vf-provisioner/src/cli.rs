//! The command line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use tenant_config::{Memory, Name, Tenant, VlanId};

use crate::apply::{ApplyError, Change, apply, never, plan_change, verify};
use crate::check;
use crate::host::{FakeHost, HostError, RealHost};
use crate::launcher::process::{Limits, Process};
use crate::launcher::{Launcher, Launchers, confine, vm};
use crate::nic::NicBackend;
use crate::nic::mediation::{self, Options, Weakness, onboarded};
use crate::nic::sriov::allocate::{Pool, VlanRange};
use crate::nic::sriov::inventory::{self, Inventory};
use crate::nic::sriov::{self, Guests, Sriov};
use crate::nic::veth::{DEFAULT_INSTANCE, INSTANCE_MAX, Veth};
use crate::plan::{Action, Plan};
use crate::resource::{Accel, Manager, Resource};
use crate::state::{self, Record, State, StateError, Store};
use crate::status;
use crate::supervise;
use crate::tenants::{Placement, PlacementError, Site, records};

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
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Where to remember what is onboarded. Everything the provisioner makes ends with the host's
    /// uptime, so the default does too
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/vf-provisioner"
    )]
    state_dir: PathBuf,
    /// One to five lower-case letters and digits with which the names of interfaces, control groups
    /// and the nftables table begin (and, other than "mts", those of namespaces): two instances on
    /// one host, each with its own --state-dir, do not meet
    #[arg(long, global = true, value_name = "NAME", default_value = DEFAULT_INSTANCE)]
    #[arg(value_parser = parse_instance)]
    instance: String,
    /// What carries frames: veth pairs, or virtual functions of an SR-IOV NIC [default: what the tenants here
    /// have, else veth]
    #[arg(long, global = true, value_enum)]
    nic: Option<NicKind>,
    /// With --nic sriov: the physical functions, by interface or PCI address; the first one's functions are taken
    /// first [default: those that the tenants here are on]
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',')]
    pf: Vec<String>,
    /// The one of --pf that leads to the underlay [default: any of them]
    #[arg(long, global = true, value_name = "PF")]
    inout_pf: Option<String>,
    /// With --nic sriov: the VLAN that In/Out functions are put on. A switch that was taken over can then choose no other
    /// [default: none, or as the tenants here have it]
    #[arg(long, global = true, value_name = "VLAN", value_parser = parse_vlan)]
    inout_vlan: Option<VlanId>,
    /// The VLANs that ports are put on, one each; ports that have another get one of these. The switch at the other
    /// end of the NIC's cable must carry none of them [default: ports keep theirs, others get one of 3000-3999]
    #[arg(long, global = true, value_name = "FIRST-LAST")]
    vlans: Option<VlanRange>,
    /// Who is behind a T VF: a virtual machine through vfio-pci, or a network namespace named like the port
    /// [default: as with the tenants here, else vfio]
    #[arg(long, global = true, value_enum)]
    guest: Option<GuestKind>,
    /// With --guest netns: the kernel's driver for the T VFs [default: as the NIC's own driver suggests]
    #[arg(long, global = true, value_name = "DRIVER")]
    guest_driver: Option<String>,
    /// Give a NIC of --pf all the virtual functions it can have, although some of those it has are in use
    #[arg(long, global = true)]
    resize_pf: bool,
    /// Read the NICs from this JSON file, as `nic --json` prints it, and not from this host
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    fake_nic: Option<PathBuf>,
    /// The bridge on which In/Out sides meet the wire; it is made where it is missing. Enslave the
    /// wire's interface to it [default: INSTANCE-br0]
    #[arg(long, global = true, value_name = "INTERFACE")]
    bridge: Option<String>,
    /// The switch's executable [default: vswitch beside this program, else the one in PATH]
    #[arg(long, global = true, value_name = "FILE")]
    switch_binary: Option<PathBuf>,
    /// The first of 1000 unused user ids, one for each switch
    #[arg(long, global = true, value_name = "UID", default_value_t = 64000)]
    uid_base: u32,
    /// Which cores switches run on: all on one, or one each
    #[arg(long, global = true, value_enum, default_value_t = PlacementKind::Shared)]
    placement: PlacementKind,
    /// The cores for --placement, as in 2,3,6: `shared` takes the first [default: 0 if shared, all
    /// but 0 if isolated]
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',')]
    cpus: Vec<u32>,
    /// Processor time of one switch, in percent of one core
    #[arg(long, global = true, value_name = "PERCENT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    cpu_limit: u32,
    /// Memory of one switch beside its packet memory, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=65536))]
    memory_limit: u32,
    /// Packet memory of one switch, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=4096))]
    packet_memory: u32,
    /// Take packet memory from hugepages
    #[arg(long, global = true)]
    hugepages: bool,
    /// How new switches run: each as a process of this host, or each in a virtual machine that this
    /// program or libvirt starts. Those that run stay as they are until they are applied again
    #[arg(long, global = true, value_enum, default_value_t = LauncherKind::Process)]
    launcher: LauncherKind,
    /// The directory of the image that virtual machines boot [default: switch-image beside the
    /// directory of this program]
    #[arg(long, global = true, value_name = "DIR")]
    vm_image: Option<PathBuf>,
    /// What executes virtual machines: the processor, or QEMU's translator; `auto` is the processor if
    /// it can
    #[arg(long, global = true, value_enum, default_value_t = AccelKind::Auto)]
    accel: AccelKind,
    /// Memory of one virtual machine, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 160)]
    #[arg(value_parser = clap::value_parser!(u32).range(96..=65536))]
    vm_memory: u32,
    /// One JSON document on standard output instead of text; supervise: one object per line
    #[arg(long, global = true)]
    json: bool,
    /// Kill this process at the N-th moment at which a crash must do no harm, from 0
    #[arg(long, global = true, hide = true, value_name = "N")]
    kill_at: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NicKind {
    Veth,
    Sriov,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GuestKind {
    Vfio,
    Netns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlacementKind {
    Shared,
    Isolated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LauncherKind {
    Process,
    Vm,
    Libvirt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AccelKind {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Tenants(_) | Self::Placement(_) | Self::Usage(_) => 2,
            Self::Apply(ApplyError::Plan(_)) => 2,
            Self::Apply(_) | Self::State(_) | Self::Failed(_) => 1,
        }
    }
}

/// Parses the command line, runs it, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Confine { inner } = &cli.command {
        let result = match inner {
            None => confine::outer(),
            Some(task) => Err(confine::inner(task)),
        };
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("{message}");
                ExitCode::from(1)
            }
        };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("VF_PROVISIONER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            if cli.global.json {
                print_json(&json!({"error": error.to_string()}));
            }
            eprintln!("vf-provisioner: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// A reader that has gone is no failure of ours.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn print_json(value: &serde_json::Value) {
    print(&format!("{value:#}\n"));
}

fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    let global = &cli.global;
    match &cli.command {
        Command::Check => run_check(global),
        Command::Nic => run_nic(global),
        Command::Plan {
            tenants,
            detailed_exit_code,
            print_libvirt,
            fake_host,
        } if !print_libvirt => run_plan(global, tenants, *detailed_exit_code, fake_host.as_deref()),
        Command::Plan { tenants, .. } => print_libvirt(global, tenants),
        Command::Apply {
            tenants,
            prove,
            no_prove,
        } => {
            need_root()?;
            let tenants = load(tenants)?;
            let mut store = Store::open(&global.state_dir)?;
            let applied = global.records(&tenants, store.state()).and_then(|set| {
                let names: BTreeSet<Name> = set.keys().cloned().collect();
                let before: BTreeSet<Name> = store.state().tenants.keys().cloned().collect();
                let change = Change {
                    set,
                    ..Change::default()
                };
                let code = global.apply(&mut store, change, !no_prove)?;
                if *prove {
                    global.prove(&mut store, &names, &before)?;
                }
                Ok(code)
            });
            if applied.is_err() {
                // A refusal leaves nothing, not even an empty state.
                store.remove_if_empty()?;
            }
            applied
        }
        Command::Status { tenant, metrics } => run_status(global, tenant.as_ref(), *metrics),
        Command::Verify => run_verify(global),
        Command::Probe {
            tenants,
            wire,
            accept,
        } => run_probe(global, tenants, wire.as_deref(), accept),
        Command::Release { tenants, all } => {
            need_root()?;
            run_release(global, tenants, *all)
        }
        Command::Supervise {
            verify_every,
            metrics,
        } => {
            need_root()?;
            let every = std::time::Duration::from_secs(*verify_every);
            let dir = &global.state_dir;
            let metrics = metrics.as_deref();
            supervise::run(dir, &|| global.host(), &global.launchers(), every, metrics)
                .map_err(|error| CliError::Failed(error.to_string()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Confine { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn need_root() -> Result<(), CliError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::Usage(
        "this needs root: network namespaces, control groups and users are made; run it with sudo"
            .to_owned(),
    ))
}

/// What is installed in a directory beside the one of this program.
fn beside_programs(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let programs = program.parent().and_then(Path::parent);
    programs.unwrap_or(Path::new("/")).join(name)
}

fn load(paths: &[PathBuf]) -> Result<Vec<Tenant>, CliError> {
    Ok(tenant_config::load_all(paths)?)
}

impl Global {
    fn veth(&self) -> Veth {
        let bridge = match &self.bridge {
            Some(bridge) => bridge.clone(),
            None => format!("{}-br0", self.instance),
        };
        Veth::new(&self.instance, &bridge)
    }

    fn inventory(&self) -> Result<Inventory, CliError> {
        let Some(file) = &self.fake_nic else {
            return inventory::read().map_err(|error| CliError::Failed(error.to_string()));
        };
        let failed =
            |error: &dyn std::fmt::Display| CliError::Usage(format!("{}: {error}", file.display()));
        let text = std::fs::read(file).map_err(|error| failed(&error))?;
        serde_json::from_slice(&text).map_err(|error| failed(&error))
    }

    /// The backend for tenants to be set.
    fn nic(&self, state: &State) -> Result<Box<dyn NicBackend>, CliError> {
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

    fn process(&self) -> Process {
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

    fn binary(&self) -> PathBuf {
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
    fn launchers(&self) -> Launchers {
        Launchers {
            process: self.process(),
            machines: None,
        }
    }

    /// For new switches.
    fn chosen(&self) -> Result<Launchers, CliError> {
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
    fn machines(&self, manager: Manager) -> Result<vm::Settings, CliError> {
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

    fn host(&self) -> RealHost {
        RealHost {
            // Whatever tenants have, it is read and taken away.
            nic: Box::new(Sriov::hands(self.veth(), self.resize_pf)),
            launcher: Box::new(self.launchers()),
        }
    }

    fn placement(&self) -> Result<Placement, CliError> {
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

    fn records(
        &self,
        tenants: &[Tenant],
        state: &State,
    ) -> Result<BTreeMap<Name, Record>, CliError> {
        self.records_for(&self.chosen()?, tenants, state)
    }

    fn records_for(
        &self,
        launchers: &Launchers,
        tenants: &[Tenant],
        state: &State,
    ) -> Result<BTreeMap<Name, Record>, CliError> {
        let site = Site {
            placement: self.placement()?,
            uid_base: self.uid_base,
            uids_in_use: check::uids_in_use(),
        };
        let records = records(tenants, state, &site, &*self.nic(state)?, launchers)?;
        self.enough_hugepages(&records, state)?;
        Ok(records)
    }

    /// Refuses switches that would not start for want of hugepages.
    fn enough_hugepages(
        &self,
        records: &BTreeMap<Name, Record>,
        state: &State,
    ) -> Result<(), CliError> {
        let new = records
            .keys()
            .filter(|name| !state.tenants.contains_key(name));
        // Of a machine, all its memory; what its switch takes is in there.
        let each = match self.launcher {
            LauncherKind::Process => self.packet_memory,
            _ => self.vm_memory,
        };
        let needed = new.count() as u64 * u64::from(each);
        if !self.hugepages || self.fake_nic.is_some() || needed == 0 {
            return Ok(());
        }
        let (free, size_kib) = check::free_hugepages();
        let free_mib = free * size_kib / 1024;
        if free_mib >= needed {
            return Ok(());
        }
        let more = ((needed - free_mib) * 1024).div_ceil(size_kib.max(1));
        Err(CliError::Usage(format!(
            "--hugepages: the new switches need {needed} MiB and {free_mib} MiB are free: reserve {more} more pages of {size_kib} KiB (`sysctl vm.nr_hugepages`), or leave out --hugepages"
        )))
    }

    /// Asks with real frames whether no frame of these tenants gets around their switches.
    fn prove(
        &self,
        store: &mut Store,
        names: &BTreeSet<Name>,
        before: &BTreeSet<Name>,
    ) -> Result<(), CliError> {
        let held = store.hold(names)?;
        let look = || -> Result<(), HostError> {
            let inventory = inventory::read()?;
            let launchers = self.launchers();
            let control = |name: &Name| launchers.control_socket(name);
            for group in onboarded::groups(store.state(), &inventory, names, control, None)? {
                if let Some(message) = group.unanswered.into_iter().next() {
                    return Err(HostError::Program {
                        program: "the mediation probe",
                        message,
                    });
                }
                let mut options = Options::new(group.fabric);
                options.accepted = group.accepted;
                mediation::require(&group.stations, &options)?;
            }
            Ok(())
        };
        let looked = look();
        drop(held);
        let Err(error) = looked else {
            if !self.json {
                print("no frame gets around their switches\n");
            }
            return Ok(());
        };
        let release: BTreeSet<Name> = names.difference(before).cloned().collect();
        let taken = match release.len() {
            0 => "the tenants were here before and stay".to_owned(),
            count => format!("the {count} new tenants were taken away again"),
        };
        let change = Change {
            release,
            ..Change::default()
        };
        apply(&mut self.host(), store, &change, &mut never())?;
        Err(CliError::Failed(format!("{error}; {taken}")))
    }

    fn apply(
        &self,
        store: &mut Store,
        change: Change,
        proving: bool,
    ) -> Result<ExitCode, CliError> {
        let mut host = self.host();
        if !proving {
            host.nic = Box::new(Sriov::hands(self.veth(), self.resize_pf).unproven());
        }
        let applied = match self.kill_at {
            None => apply(&mut host, store, &change, &mut never())?,
            Some(at) => {
                let mut left = at;
                let mut crash = || {
                    if left == 0 {
                        let _ = nix::sys::signal::kill(
                            nix::unistd::getpid(),
                            nix::sys::signal::Signal::SIGKILL,
                        );
                    }
                    left = left.saturating_sub(1);
                    false
                };
                apply(&mut host, store, &change, &mut crash)?
            }
        };
        if self.json {
            print_json(&json!(applied));
        } else if applied.actions.is_empty() {
            print("nothing to do\n");
        } else {
            print(&format!("{} actions done", applied.actions.len()));
            if !applied.probed.is_empty() {
                print(&format!(
                    "; {} gateways answered with real frames",
                    applied.probed.len()
                ));
            }
            print("\n");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn run_check(global: &Global) -> Result<ExitCode, CliError> {
    let findings = check::run(&global.binary(), global.nic == Some(NicKind::Sriov));
    let ready = check::is_ready(&findings);
    if global.json {
        print_json(&json!({"ready": ready, "findings": findings}));
    } else {
        for finding in &findings {
            print(&format!("{finding}\n"));
        }
        print(if ready {
            "this host is ready\n"
        } else {
            "this host is not ready\n"
        });
    }
    Ok(ExitCode::from(if ready { 0 } else { 3 }))
}

fn run_nic(global: &Global) -> Result<ExitCode, CliError> {
    let inventory = global.inventory()?;
    if global.json {
        print_json(&json!(inventory));
    } else if inventory.pfs.is_empty() {
        print("this host has no SR-IOV NIC\n");
    } else {
        print(&inventory.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn run_plan(
    global: &Global,
    tenants: &[PathBuf],
    detailed_exit_code: bool,
    fake_host: Option<&Path>,
) -> Result<ExitCode, CliError> {
    let tenants = load(tenants)?;
    let state = state::read(&global.state_dir)?;
    let change = Change {
        set: global.records(&tenants, &state)?,
        ..Change::default()
    };
    let plan = match fake_host {
        Some(file) => {
            let failed = |error: &dyn std::fmt::Display| {
                CliError::Usage(format!("{}: {error}", file.display()))
            };
            let text = std::fs::read(file).map_err(|error| failed(&error))?;
            let objects: Vec<Resource> =
                serde_json::from_slice(&text).map_err(|error| failed(&error))?;
            let mut host = FakeHost::default();
            host.objects
                .extend(objects.into_iter().map(|object| (object.key(), object)));
            plan_change(&host, &state, &change)?
        }
        None => {
            need_root()?;
            plan_change(&global.host(), &state, &change)?
        }
    };
    if global.json {
        print_json(&json!(plan));
    } else {
        print_plan(&plan);
    }
    let code = if detailed_exit_code && !plan.actions.is_empty() {
        3
    } else {
        0
    };
    Ok(ExitCode::from(code))
}

/// The machines that an apply would make, or their like where it would make processes.
fn print_libvirt(global: &Global, tenants: &[PathBuf]) -> Result<ExitCode, CliError> {
    let tenants = load(tenants)?;
    let state = state::read(&global.state_dir)?;
    let mut launchers = global.chosen()?;
    if launchers.machines.is_none() {
        launchers.machines = Some(global.machines(Manager::Libvirt)?);
    }
    let records = global.records_for(&launchers, &tenants, &state)?;
    for record in records.values() {
        let domain = record.switch().and_then(|switch| launchers.domain(switch));
        print(&domain.unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

fn print_plan(plan: &Plan) {
    if plan.actions.is_empty() {
        print("nothing to do\n");
    }
    for action in &plan.actions {
        let sign = match action {
            Action::Create { .. } => '+',
            Action::Update { .. } => '~',
            Action::Delete { .. } => '-',
        };
        print(&format!("{sign} {action}\n"));
    }
}

fn run_status(global: &Global, only: Option<&Name>, metrics: bool) -> Result<ExitCode, CliError> {
    let state = state::read(&global.state_dir)?;
    let launcher = global.launchers();
    if let Some(name) = only
        && !state.tenants.contains_key(name)
    {
        return Err(unknown(name, &state));
    }
    let all = status::look(&launcher, &state, only)
        .map_err(|error| CliError::Failed(error.to_string()))?;
    if metrics {
        print(&status::metrics(&all));
    } else if global.json {
        print_json(&status::document(&all));
    } else {
        print(&status::table(&all));
        let asked = |name: &Name| only.is_none_or(|only| only == name);
        for (name, record) in state.tenants.iter().filter(|(name, _)| asked(name)) {
            if let Some(line) = accepted(name, record) {
                print(&line);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a tenant's file lets its NIC lack, as a line.
fn accepted(name: &Name, record: &Record) -> Option<String> {
    let names: Vec<_> = record.accepted().iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| {
        format!(
            "tenant {name}: accepted by its file, not looked at: {}\n",
            names.join(", ")
        )
    })
}

fn unknown(name: &Name, state: &State) -> CliError {
    let known: Vec<&str> = state.tenants.keys().map(Name::as_str).collect();
    let known = if known.is_empty() {
        "none is".to_owned()
    } else {
        known.join(", ")
    };
    CliError::Usage(format!(
        "tenant {name} is not onboarded (onboarded: {known})"
    ))
}

fn run_verify(global: &Global) -> Result<ExitCode, CliError> {
    need_root()?;
    // What an apply or a restart under way has not finished is no drift.
    let store = Store::open(&global.state_dir)?;
    let tenants = store.state().tenants.clone();
    let held = store.hold(tenants.keys())?;
    let found = verify(&mut global.host(), store.state(), &BTreeSet::new())?;
    drop(held);
    store.remove_if_empty()?;
    if global.json {
        let accepted: BTreeMap<_, _> = tenants
            .iter()
            .map(|(name, record)| (name, record.accepted()))
            .filter(|(_, accepted)| !accepted.is_empty())
            .collect();
        print_json(&json!({"drift": found, "accepted": accepted}));
        return Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }));
    }
    for (name, record) in &tenants {
        if let Some(line) = accepted(name, record) {
            print(&line);
        }
    }
    let tenants = tenants.len();
    if found.is_empty() {
        print(&format!("{tenants} tenants: everything is as it was set\n"));
    } else {
        for line in &found {
            print(&format!("{line}\n"));
        }
    }
    Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }))
}

fn run_probe(
    global: &Global,
    tenants: &[Name],
    wire: Option<&str>,
    accept: &[Weakness],
) -> Result<ExitCode, CliError> {
    need_root()?;
    // What an apply under way has not finished cannot be probed.
    let store = Store::open(&global.state_dir)?;
    let state = store.state();
    if let Some(name) = tenants
        .iter()
        .find(|name| !state.tenants.contains_key(*name))
    {
        return Err(unknown(name, state));
    }
    let chosen: BTreeSet<Name> = match tenants {
        [] => state.tenants.keys().cloned().collect(),
        some => some.iter().cloned().collect(),
    };
    let failed = |error: HostError| CliError::Failed(error.to_string());
    let _held = store.hold(&chosen)?;
    let launchers = global.launchers();
    let control = |name: &Name| launchers.control_socket(name);
    let inventory = global.inventory()?;
    let groups = onboarded::groups(state, &inventory, &chosen, control, wire).map_err(failed)?;
    let mut reports = Vec::new();
    let mut unanswered = Vec::new();
    for group in groups {
        unanswered.extend(group.unanswered);
        let mut options = Options::new(group.fabric);
        options.accepted = group.accepted;
        options.accepted.extend(accept);
        reports.push(mediation::run(&group.stations, &options).map_err(failed)?);
    }
    let good = unanswered.is_empty() && reports.iter().all(mediation::Report::is_good);
    if global.json {
        print_json(&json!({"good": good, "unanswered": unanswered, "reports": reports}));
    } else if reports.is_empty() {
        print("no tenant is onboarded\n");
    } else {
        for report in &reports {
            print(&report.to_string());
        }
        for sentence in &unanswered {
            print(&format!("{sentence}\n"));
        }
        print(if good {
            "everything is as it must be\n"
        } else {
            "not everything is as it must be\n"
        });
    }
    store.remove_if_empty()?;
    Ok(ExitCode::from(if good { 0 } else { 3 }))
}

fn run_release(global: &Global, tenants: &[Name], all: bool) -> Result<ExitCode, CliError> {
    let mut store = Store::open(&global.state_dir)?;
    let release: BTreeSet<Name> = if all {
        store.state().tenants.keys().cloned().collect()
    } else {
        tenants.iter().cloned().collect()
    };
    let change = Change {
        release,
        ..Change::default()
    };
    for name in &change.release {
        if !store.state().tenants.contains_key(name) {
            eprintln!("vf-provisioner: tenant {name} is not onboarded");
        }
    }
    let code = global.apply(&mut store, change, true)?;
    store.remove_if_empty()?;
    Ok(code)
}
