//! `run`: opens everything, drops all privileges, and carries frames until a signal ends it.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use ::metadata::Secret;
use dpdk::{DpdkError, Eal, EalOptions, Mempool, Port, PortOptions};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rustix::rand::{GetRandomFlags, getrandom};
use tenant_config::{Device, MacAddr, SwitchConfig, SwitchDevice};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::config::load_switch;
use super::{CliError, RunArgs};
use crate::control::{ChannelSocket, Control, Socket, SocketError, clear_stale, is_live_stream};
use crate::ike::{Ike, IkeSocket, Shared};
use crate::log::Log;
use crate::metadata::{self, Metadata};
use crate::sandbox::{self, LandlockLevel, Needs, SandboxError};
use crate::worker::{Ended, Link, PollMode, Repair, Worker};
use pipeline::ipsec::Rules;
use pipeline::{FlowSecret, Generation};

/// Why a switch does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the sandbox: {0}")]
    Sandbox(#[from] SandboxError),
    #[error("--cpu {cpu}: this process may use only {allowed}; change the cpuset, or the number")]
    Cpu { cpu: usize, allowed: String },
    #[error("--channel is served by the control thread: give --control too")]
    ChannelAlone,
    #[error("the control thread: {0}")]
    Control(io::Error),
    #[error("the control thread has ended by itself")]
    ControlEnded,
    #[error("the worker: {0}")]
    Worker(io::Error),
    #[error("the thread that serves the IKE daemon: {0}")]
    Ike(io::Error),
    #[error("the thread that serves metadata: {0}")]
    Metadata(io::Error),
    #[error("the thread that resets devices: {0}")]
    Repair(io::Error),
    #[error(
        "the kernel wants the device of port {port} back, as when its physical function is removed \
         or loses its driver: the switch ends, which closes its devices"
    )]
    Removed { port: String },
    #[error(
        "random bytes for the secrets of the tunnel's source ports and of metadata's tokens: {0}"
    )]
    Secret(io::Error),
    #[error("the CPUs of this process: {0}")]
    Affinity(#[from] nix::Error),
}

pub(super) fn run(args: &RunArgs) -> Result<(), CliError> {
    log_to_stderr();
    let config = load_switch(&args.config)?;
    Ok(start(args, config)?.carry()?)
}

fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log::default())
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}

/// A switch whose devices and sockets are open, and which is confined.
pub(super) struct Started {
    worker: Worker,
    poll: PollMode,
    control: thread::JoinHandle<Result<(), RunError>>,
    /// They remove their files when they are dropped.
    _sockets: (
        Option<Socket>,
        Option<ChannelSocket>,
        Option<IkeSocket>,
        MemifSockets,
    ),
}

/// Opens everything that `config` names, and drops all privileges.
pub(super) fn start(args: &RunArgs, config: SwitchConfig) -> Result<Started, RunError> {
    close_inherited();
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let cpu = worker_cpu(args.cpu, &allowed)?;
    let control_path = args.control.as_deref().or(config.control_socket.as_deref());
    let socket = control_path.map(Socket::bind).transpose()?;
    if socket.is_none() && args.channel.is_some() {
        return Err(RunError::ChannelAlone);
    }
    let channel_path = args.channel.as_deref();
    let channel = channel_path.map(ChannelSocket::bind).transpose()?;
    let ike_path = args.ike.as_deref();
    let ike = ike_path.map(IkeSocket::bind).transpose()?;

    let memif_sockets = MemifSockets::clear(&config)?;
    let (eal, ports, pool) = open_ports(&config, cpu)?;
    let link = Link::new(ports.len()).map_err(RunError::Worker)?;
    let secret = random_bytes().map(FlowSecret::new);
    let secret = secret.map_err(RunError::Secret)?;
    let generation = Generation::first(&config, secret);
    let views = (generation.counters(), generation.tables());
    let ports = ports.into_iter().map(ports::Port::from).collect();
    let mut worker =
        Worker::new(&eal, ports, pool, generation, Arc::clone(&link)).map_err(RunError::Worker)?;
    info!(
        tenant = %config.tenant, vni = config.vni.get(), ports = config.ports.len(), cpu,
        control = control_path.map(|path| path.display().to_string()), "devices are open"
    );

    // The control thread inherits the confinement, so it starts afterwards.
    let sockets = control_path.into_iter().chain(channel_path).chain(ike_path);
    let needs = (!args.no_sandbox).then(|| Needs::of(&config, sockets));
    match &needs {
        Some(needs) => {
            sandbox::limit_resources(needs)?;
            // DPDK's interrupt thread runs already, and must confine itself.
            let of_eal = needs.clone();
            let done = eal.on_interrupt_thread(move || sandbox::confine_thread(&of_eal))?;
            for level in [done?, sandbox::confine_thread(needs)?] {
                if level != LandlockLevel::Full {
                    warn!(%level, "this kernel's Landlock does not enforce every rule");
                }
            }
        }
        None => warn!("--no-sandbox: this process keeps ALL its privileges; for debugging only"),
    }
    if let Some(repair) = worker.take_repair().filter(|_| has_functions(&config)) {
        start_repair(repair, other_cpus(&allowed, cpu)).map_err(RunError::Repair)?;
    }
    let rules = Rules::of(&config);
    if rules.as_ref().is_some_and(|it| !it.endpoints.is_empty()) && ike.is_none() {
        warn!("peers require IPsec and there is no --ike: nothing passes between them and us");
    }
    let shared = Shared::new(rules);
    if let (Some(socket), Some(uid)) = (&ike, args.ike_uid) {
        let listener = socket.listener().map_err(RunError::Ike)?;
        let served = Ike::new(listener, uid, Arc::clone(&link), Arc::clone(&shared));
        start_ike(served.map_err(RunError::Ike)?, other_cpus(&allowed, cpu))
            .map_err(RunError::Ike)?;
    }
    let secret = random_bytes().map(Secret::new).map_err(RunError::Secret)?;
    let metadata = metadata::Shared::new(Arc::clone(&link));
    metadata.configure(&config);
    let served = Metadata::new(Arc::clone(&metadata), secret);
    start_metadata(served, other_cpus(&allowed, cpu)).map_err(RunError::Metadata)?;
    let listener = socket.as_ref().map(Socket::listener).transpose();
    let channel_listener = channel.as_ref().map(ChannelSocket::listener).transpose();
    let control = Control::new(config, views, Arc::clone(&link))
        .with_channel(channel_listener.map_err(RunError::Control)?)
        .with_ike(shared)
        .with_metadata(metadata);
    let control = start_control(
        control,
        listener.map_err(RunError::Control)?,
        StopWorker(link),
        other_cpus(&allowed, cpu),
    )?;
    if let Some(needs) = &needs {
        sandbox::filter_all_threads(needs)?;
    }

    Ok(Started {
        worker,
        poll: args.poll,
        control,
        _sockets: (socket, channel, ike, memif_sockets),
    })
}

impl Started {
    /// Carries frames until a signal ends it.
    fn carry(self) -> Result<(), RunError> {
        let Self {
            mut worker,
            poll,
            control,
            _sockets,
        } = self;
        info!("carrying frames");
        let end = worker.run(poll);
        if let Ended::Removed { port } = end {
            // The kernel waits for the devices, which it closes with the process. Nothing else may
            // delay that.
            std::mem::forget(worker);
            return Err(RunError::Removed { port });
        }
        // The kernel closes the devices with the process. Closing them by DPDK is less safe: its
        // memif frees memory that the interrupt thread still uses.
        std::mem::forget(worker);
        // It has told the worker to stop, and is ending.
        let ended = control.join().unwrap_or(Err(RunError::ControlEnded));
        info!("ended");
        ended
    }
}

/// Closes what was inherited beside standard input, output and error. Nothing else is open yet.
fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// A secret of its own for each start.
fn random_bytes() -> io::Result<[u8; 32]> {
    let mut random = [0; 32];
    let mut filled = 0;
    while filled < random.len() {
        filled += getrandom(&mut random[filled..], GetRandomFlags::empty())?;
    }
    Ok(random)
}

/// The requested CPU, or the first allowed one.
fn worker_cpu(asked: Option<usize>, allowed: &CpuSet) -> Result<usize, RunError> {
    let usable = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let all = || (0..CpuSet::count()).filter(usable);
    match asked {
        Some(cpu) if !usable(&cpu) => Err(RunError::Cpu {
            cpu,
            allowed: all()
                .map(|cpu| cpu.to_string())
                .collect::<Vec<_>>()
                .join(","),
        }),
        Some(cpu) => Ok(cpu),
        None => Ok(all().next().unwrap_or(0)),
    }
}

/// The CPUs of the control thread: all but the worker's, if there are others.
fn other_cpus(allowed: &CpuSet, worker: usize) -> CpuSet {
    let mut others = *allowed;
    let _ = others.unset(worker);
    let any = (0..CpuSet::count()).any(|cpu| others.is_set(cpu).unwrap_or(false));
    if any { others } else { *allowed }
}

fn open_ports(config: &SwitchConfig, cpu: usize) -> Result<(Eal, Vec<Port>, Mempool), RunError> {
    let all: Vec<SwitchDevice<'_>> = config.devices().collect();

    let eal = Eal::start(&EalOptions {
        memory: config.memory,
        cpu,
        name: config.tenant.to_string(),
        pci: all
            .iter()
            .filter_map(|side| match side.device {
                Device::Pci { address, .. } => Some((side.name.to_owned(), *address)),
                _ => None,
            })
            .collect(),
        one_file: false,
    })?;
    let options = |mtu| PortOptions {
        mtu,
        ..PortOptions::default()
    };
    let largest = options(all.iter().map(|side| side.mtu).max().unwrap_or(1500));
    let pool = Mempool::for_devices(&eal, all.iter().map(|side| side.device), &largest)?;
    let mut ports = Vec::with_capacity(all.len());
    for &SwitchDevice {
        name,
        device,
        mac,
        mtu,
    } in &all
    {
        let opened = Port::open(&eal, name, device, &pool, &options(mtu)).and_then(|port| {
            let own = port.mac();
            ports.push(port);
            require_mac(name, device, own, mac)
        });
        if let Err(error) = opened {
            // The process ends, and the kernel closes them; DPDK would add messages of its own.
            std::mem::forget(ports);
            return Err(error.into());
        }
    }
    let napping: Vec<&str> = all
        .iter()
        .zip(&ports)
        .filter(|(_, port)| port.wait_fd().is_none())
        .map(|(side, _)| side.name)
        .collect();
    if !napping.is_empty() {
        info!(
            ports = napping.join(","),
            "their drivers have no receive interrupt: when idle, the switch naps instead of \
             sleeping"
        );
    }
    Ok((eal, ports, pool))
}

/// A NIC delivers to a function the frames for its MAC, so it must be the configured gateway MAC.
fn require_mac(
    port: &str,
    device: &Device,
    is: Option<MacAddr>,
    wanted: MacAddr,
) -> Result<(), DpdkError> {
    match device {
        Device::Pci { address, .. } if is != Some(wanted) => Err(DpdkError::Mac {
            port: port.to_owned(),
            address: *address,
            is: is.map_or("00:00:00:00:00:00".to_owned(), |mac| mac.to_string()),
            wanted,
        }),
        _ => Ok(()),
    }
}

/// The sockets on which this switch is the server of a memif. DPDK creates them, but neither
/// replaces stale ones nor removes its own.
struct MemifSockets(Vec<PathBuf>);

impl MemifSockets {
    fn clear(config: &SwitchConfig) -> Result<Self, RunError> {
        let mut paths: Vec<PathBuf> = config
            .devices()
            .filter_map(|side| match side.device {
                Device::Memif {
                    socket,
                    server: true,
                    ..
                } => Some(socket.clone()),
                _ => None,
            })
            .collect();
        // Several memifs may share a socket.
        paths.sort();
        paths.dedup();
        for path in &paths {
            clear_stale(path, is_live_stream)?;
        }
        Ok(Self(paths))
    }
}

impl Drop for MemifSockets {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether the switch drives PCI functions, which may have to be reset.
fn has_functions(config: &SwitchConfig) -> bool {
    let mut devices = config.devices();
    devices.any(|side| matches!(side.device, Device::Pci { .. }))
}

/// Starts the thread that resets devices. It ends with the worker.
fn start_repair(repair: Repair, cpus: CpuSet) -> io::Result<()> {
    start_thread("repair", cpus, move || repair.run())
}

/// Starts the thread that serves the IKE daemon. It ends with the process.
fn start_ike(ike: Ike, cpus: CpuSet) -> io::Result<()> {
    start_thread("ike", cpus, move || ike.run())
}

/// Starts the thread that serves metadata. It ends with the process.
fn start_metadata(metadata: Metadata, cpus: CpuSet) -> io::Result<()> {
    start_thread("metadata", cpus, move || metadata.run())
}

/// Starts a thread, and returns when it makes no more calls than the filter will allow.
fn start_thread(
    name: &'static str,
    cpus: CpuSet,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (ready, wait) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(move || {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &cpus) {
            warn!(%error, thread = name, "a thread may use the worker's CPU");
        }
        // The receiver waits, unless the process is ending.
        let _ = ready.send(());
        run();
    })?;
    let ended = |_| io::Error::other("it has ended by itself");
    wait.recv().map_err(ended)
}

/// Starts the control thread, and returns when it has opened everything it needs.
fn start_control(
    control: Control,
    listener: Option<UnixListener>,
    stop_worker: StopWorker,
    cpus: CpuSet,
) -> Result<thread::JoinHandle<Result<(), RunError>>, RunError> {
    let (ready, wait) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            // However this thread ends, the worker ends too.
            let _stop = stop_worker;
            sched_setaffinity(Pid::from_raw(0), &cpus)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(RunError::Control)?;
            runtime.block_on(async {
                let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Control)?;
                let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Control)?;
                let end = async {
                    let name = tokio::select! {
                        _ = terminate.recv() => "SIGTERM",
                        _ = interrupt.recv() => "SIGINT",
                    };
                    info!("{name}: ending");
                };
                // The receiver waits, unless the process is ending.
                let _ = ready.send(());
                match listener {
                    Some(listener) => control
                        .serve(listener, end)
                        .await
                        .map_err(RunError::Control),
                    None => {
                        end.await;
                        Ok(())
                    }
                }
            })
        })
        .map_err(RunError::Control)?;
    match wait.recv() {
        Ok(()) => Ok(thread),
        Err(_) => Err(match thread.join() {
            Ok(Err(error)) => error,
            _ => RunError::ControlEnded,
        }),
    }
}

struct StopWorker(Arc<Link>);

impl Drop for StopWorker {
    fn drop(&mut self) {
        self.0.stop();
    }
}
