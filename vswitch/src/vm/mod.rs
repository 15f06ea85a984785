//! The switch in a virtual machine: what `vswitch` does as the machine's init process.
//!
//! The machine contains nothing else but the IKE daemon: no shell, no other program, no network
//! listener. This process mounts the kernel's file systems, loads the modules that the image names,
//! receives the configuration from the host, binds the PCI functions to VFIO, and starts the switch
//! proper as an unprivileged child. Then it relays the control API between host and switch. If the
//! tunnel has IPsec, it starts the IKE daemon as another unprivileged child, again whenever that
//! ends, and relays the host's words to it. When the switch ends, or anything fails, it prints one
//! sentence on the console and powers the machine off. `docs/operate/switch-image.md` is the
//! contract with the host.

mod channel;
mod ike;
mod pci;
mod relay;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tenant_config::{Device, SwitchConfig};
use vswitch_api::machine::IKE_PORT;

use channel::{ChannelError, Closed};

/// The path of this program, for the kernel and for the switch proper.
const INIT: &str = "/init";
/// The names of the modules in load order, one per line.
const MODULES: &str = "/modules/order";
/// The virtio-serial port of the configuration, and later of the order to stop.
const CONFIG_CHANNEL: &str = "org.vswitch.config.0";
/// The virtio-serial port of the control API.
const CONTROL_CHANNEL: &str = "org.vswitch.control.0";
/// The switch's own directory: its configuration and its control socket.
const SWITCH_DIRECTORY: &str = "/run/switch";
/// The user and group of the switch. They own only that directory and the VFIO groups.
const SWITCH_USER: u32 = 1000;
/// How long a switch may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the machine powers off.
#[derive(Debug, thiserror::Error)]
enum VmError {
    #[error("{target} cannot be mounted: {errno}", target = target.display())]
    Mount { target: PathBuf, errno: Errno },
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the kernel refuses module {name}: {errno}; is the image for this kernel? Build it again"
    )]
    Module { name: String, errno: Errno },
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("{0}")]
    Config(#[from] tenant_config::ConfigErrors),
    #[error(
        "memory.mib = {mib} takes {wanted} hugepages of 2 MiB, but the machine has room for {got}: \
         give the VM more memory (vf-provisioner's --vm-memory)"
    )]
    Hugepages { mib: u32, wanted: u64, got: u64 },
    #[error(transparent)]
    Pci(#[from] pci::PciError),
    #[error(
        "tunnel.ipsec needs an IKE daemon, and the image has no {program}: build it again \
         (scripts/build-switch-image)",
        program = ike::PROGRAM
    )]
    NoDaemon,
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

/// Makes the error of the file `path`.
fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> VmError {
    let path = path.as_ref().to_owned();
    move |source| VmError::File { path, source }
}

fn cannot<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> VmError {
    move |error| VmError::System {
        what,
        source: error.into(),
    }
}

/// What this process is in a machine, if it is no switch: its init, or about to become its IKE
/// daemon. A container's process 1 has another name.
pub fn role() -> Option<fn() -> ExitCode> {
    let is_init =
        std::process::id() == 1 && std::env::args_os().next().is_some_and(|name| name == INIT);
    match is_init {
        true => Some(main),
        false => ike::is_daemon().then_some(ike::become_daemon),
    }
}

/// Runs the machine until the switch ends, then powers it off.
fn main() -> ExitCode {
    // Without one of its threads the machine would work only in part.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        power_off();
    }));
    match run() {
        Ok(ended) => say(&ended),
        Err(error) => say(&error.to_string()),
    }
    power_off();
    // The kernel panics when init ends; with panic=-1 on its command line, the machine then ends
    // too.
    ExitCode::FAILURE
}

/// Prints one sentence on the console, which is the tenant's log.
fn say(sentence: &str) {
    // There is no other place to report a failing console.
    let _ = writeln!(io::stderr(), "vm: {sentence}");
}

/// Powers the machine off. Returns only if the kernel refuses.
fn power_off() {
    let _ = nix::sys::termios::tcdrain(io::stderr());
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    say(&format!("the machine cannot be switched off: {errno}"));
}

/// Time since the kernel booted.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

/// Does everything in order; returns the sentence about the switch's end.
fn run() -> Result<String, VmError> {
    let kernel = uptime();
    mount_all()?;
    load_modules(Path::new(MODULES))?;
    let config_channel = Closed::find(CONFIG_CHANNEL)?.open()?;
    let control_channel = Closed::find(CONTROL_CHANNEL)?;

    let waiting = uptime();
    let mut config_channel = io::BufReader::new(config_channel);
    let text = channel::receive_config(&mut config_channel)?;
    let waited = uptime() - waiting;
    let config = SwitchConfig::from_json("the configuration from the host", &text)?;

    let daemon = prepare_daemon(&config)?;
    if config.memory.hugepages {
        reserve_hugepages(&config)?;
    }
    for (port, address) in pci_functions(&config) {
        let group = pci::give_to_vfio(port, address)?;
        chown(&group, Some(SWITCH_USER), Some(SWITCH_USER)).map_err(at(&group))?;
    }
    let control = Path::new(SWITCH_DIRECTORY).join("control.sock");
    let file = write_config(&text)?;
    // Memory that VFIO maps for a device is locked.
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .map_err(cannot("lift the limit of locked memory"))?;
    let init = uptime() - kernel - waited;
    let started = uptime();
    let switch = start_switch(&file, &control, daemon.is_some())?;
    let (ends, of_others) = mpsc::channel();

    spawn("relay", move || {
        relay::wait_until_ready(&control);
        let mut sentence = format!(
            "kernel {:.3} s, init {:.3} s, switch {:.3} s",
            kernel.as_secs_f64(),
            init.as_secs_f64(),
            (uptime() - started).as_secs_f64()
        );
        if waited > Duration::from_millis(100) {
            let waited = waited.as_secs_f64();
            sentence += &format!("; before that {waited:.3} s of waiting for the configuration");
        }
        say(&sentence);
        if let Some((daemon, port)) = daemon
            && let Err(error) = start_daemon(&daemon, port, of_others)
        {
            say(&format!("{error}; the tunnel has no keys"));
        }
        // Opened only now: an open port tells the host that the switch can be asked.
        let closed = control_channel.open().and_then(|channel| {
            let served = relay::serve(channel.file(), &control);
            served.map_err(|error| channel.failed(error))
        });
        if let Err(error) = closed {
            say(&format!("{error}; the control API is closed"));
        }
    })?;
    let (ended, end) = mpsc::channel::<()>();
    spawn("stop", move || {
        match channel::wait_for_stop(&mut config_channel, say) {
            Ok(()) => {
                say("the host tells the switch to stop");
                stop(switch, &end);
            }
            Err(error) => say(&format!("{error}; the switch cannot be told to stop")),
        }
    })?;
    let how = reap(switch, &ends)?;
    drop(ended);
    Ok(format!("the switch {how}"))
}

/// What the IKE daemon needs before the switch starts, if the tunnel has IPsec.
fn prepare_daemon(config: &SwitchConfig) -> Result<Option<(Arc<ike::Daemon>, Closed)>, VmError> {
    let tunnel = config.tunnel.as_ref();
    let Some(tunnel) = tunnel.filter(|tunnel| tunnel.ipsec.is_some()) else {
        return Ok(None);
    };
    ike::prepare()?;
    let port = Closed::find(IKE_PORT)?;
    Ok(Some((ike::Daemon::new(tunnel.vtep), port)))
}

/// Starts the IKE daemon behind a switch that is ready, and serves its port.
fn start_daemon(
    daemon: &Arc<ike::Daemon>,
    port: Closed,
    ends: mpsc::Receiver<ike::End>,
) -> Result<(), VmError> {
    let port = port.open()?;
    let (kept, served) = (Arc::clone(daemon), Arc::clone(daemon));
    spawn("ike", move || kept.keep(&ends))?;
    spawn("ike relay", move || {
        if let Err(error) = served.serve(port.file()) {
            let error = port.failed(error);
            say(&format!(
                "{error}; the host cannot configure the IKE daemon"
            ));
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), VmError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(cannot("start a thread"))
}

/// Mounts the kernel's file systems, and creates the switch's directory.
fn mount_all() -> Result<(), VmError> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let devices = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (kind, target, flags, options) in [
        ("proc", "/proc", plain, ""),
        ("sysfs", "/sys", plain, ""),
        ("devtmpfs", "/dev", devices, "mode=0755"),
        ("tmpfs", "/run", plain, "mode=0755,size=32m"),
    ] {
        fs::create_dir_all(target).map_err(at(target))?;
        mount(Some(kind), target, Some(kind), flags, Some(options)).map_err(|errno| {
            VmError::Mount {
                target: target.into(),
                errno,
            }
        })?;
    }
    make_folder(Path::new(SWITCH_DIRECTORY), 0o700, SWITCH_USER)
}

/// Makes a folder of that user and group.
fn make_folder(path: &Path, mode: u32, user: u32) -> Result<(), VmError> {
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .and_then(|()| chown(path, Some(user), Some(user)))
        .map_err(at(path))
}

fn load_modules(order: &Path) -> Result<(), VmError> {
    for name in fs::read_to_string(order).map_err(at(order))?.lines() {
        let path = order.with_file_name(name);
        let file = File::open(&path).map_err(at(&path))?;
        match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(VmError::Module {
                    name: name.to_owned(),
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// Reserves the packet memory's hugepages, while the machine's memory is still unfragmented.
fn reserve_hugepages(config: &SwitchConfig) -> Result<(), VmError> {
    const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let mib = config.memory.mib;
    let wanted = u64::from(mib).div_ceil(2);
    fs::write(PAGES, wanted.to_string()).map_err(at(PAGES))?;
    let got = fs::read_to_string(PAGES).map_err(at(PAGES))?;
    let got = got.trim().parse().unwrap_or(0);
    if got < wanted {
        return Err(VmError::Hugepages { mib, wanted, got });
    }
    Ok(())
}

/// The PCI functions of the configuration, each with its port's name.
fn pci_functions(
    config: &SwitchConfig,
) -> impl Iterator<Item = (&str, &tenant_config::PciAddress)> {
    config.devices().filter_map(|side| match side.device {
        Device::Pci { address, .. } => Some((side.name, address)),
        _ => None,
    })
}

fn write_config(text: &str) -> Result<PathBuf, VmError> {
    let path = Path::new(SWITCH_DIRECTORY).join("config.json");
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| chown(&path, Some(SWITCH_USER), Some(SWITCH_USER)))
        .map_err(at(&path))?;
    Ok(path)
}

fn start_switch(config: &Path, control: &Path, has_daemon: bool) -> Result<Pid, VmError> {
    let mut switch = Command::new(INIT);
    switch.arg0("vswitch").arg("run");
    switch.arg("--config").arg(config);
    switch.arg("--control").arg(control);
    if has_daemon {
        switch.arg("--ike").arg(ike::switch_socket());
        switch.args(["--ike-uid", &ike::USER.to_string()]);
    }
    let child = switch
        .env_clear()
        .env("XDG_RUNTIME_DIR", SWITCH_DIRECTORY)
        .env("NO_COLOR", "the console is a file")
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(SWITCH_USER)
        .gid(SWITCH_USER)
        .spawn()
        .map_err(cannot("start the switch"))?;
    pid_of(&child)
}

fn pid_of(child: &Child) -> Result<Pid, VmError> {
    let pid = i32::try_from(child.id());
    let too_large = |_| cannot("wait for a process")(Errno::ERANGE);
    Ok(Pid::from_raw(pid.map_err(too_large)?))
}

/// Ends the switch with SIGTERM, or SIGKILL after [`STOP_TIMEOUT`]. `end` closes when it has ended.
fn stop(switch: Pid, end: &mpsc::Receiver<()>) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if kill(switch, signal).is_err() {
            return; // It has ended already.
        }
        if end.recv_timeout(STOP_TIMEOUT) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Reaps children until the switch is reaped, and returns how it ended. The ends of others go to
/// `ends`.
fn reap(switch: Pid, ends: &mpsc::Sender<ike::End>) -> Result<String, VmError> {
    loop {
        let (pid, how) = match waitpid(None::<Pid>, Some(WaitPidFlag::empty())) {
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("was killed by {signal}")),
            Ok(WaitStatus::Exited(pid, code)) => (pid, format!("ended with exit status {code}")),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(cannot("wait for the switch")(errno)),
        };
        if pid == switch {
            return Ok(how);
        }
        // Nobody waits for them where there is no IKE daemon.
        let _ = ends.send((pid, how));
    }
}
