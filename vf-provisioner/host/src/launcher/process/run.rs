//! Starts and stops a switch that is a process.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::pidfd_send_signal;
use tenant_config::{Device, SwitchConfig};

use super::options::Options;
use super::plan::{INSIDE, Process, packet_mib};
use crate::error::{HostError, OptionError};
use crate::launcher::cgroup::mounts;
use crate::launcher::confine::{Shown, Started, Task};
use crate::launcher::files::{CHANNEL, CONTROL, TenantFiles};
use crate::launcher::kind::Kind;
use crate::launcher::launched::{Executable, Launched};
use crate::launcher::ready::Said;
use crate::launcher::switch::{Switch, functions};
use crate::launcher::vfio::{give_nodes, is_shared_with_kernel, take_nodes_back};
use crate::launcher::{Launcher, Runner, control, ike};
use crate::nic::parts::netns;
use crate::object::Context;

/// Where the switch finds itself.
const PROGRAM: &str = "/vswitch";
/// What a dynamically linked switch reads besides its own files.
const SYSTEM: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"];
const READY_WITHIN: Duration = Duration::from_secs(15);
const STOP_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs switches as confined processes of this host.
#[derive(Debug)]
pub struct Confined;

impl Runner for Confined {
    fn runs(&self, switch: &Switch) -> bool {
        switch.machine.is_none()
    }

    fn start(&self, context: &Context, switch: &Switch, restarts: u64) -> Result<(), HostError> {
        launch(context, switch, restarts)
    }

    fn stop(&self, context: &Context, switch: &Switch) -> Result<(), HostError> {
        stop(context, switch)
    }
}

impl Kind for Confined {
    type Options = Options;

    fn launcher(_: &Options, base: Process) -> Result<Box<dyn Launcher>, OptionError> {
        Ok(Box::new(base))
    }
}

fn launch(context: &Context, switch: &Switch, restarts: u64) -> Result<(), HostError> {
    let began = Instant::now();
    let executable = Executable::of(&switch.binary);
    let tenant = &switch.tenant;
    let files = TenantFiles::new(context, tenant);
    let mounts = mounts()?;
    // A crash between the start and the note may have left processes.
    mounts.empty(&switch.cgroup, STOP_WITHIN)?;
    files.clear_run(CONTROL)?;
    files.clear_run(CHANNEL)?;
    let _held = files.make_log_pipe()?;
    files.write_config(&switch.config, switch.uid)?;
    let mut folders = Vec::new();
    if has_ipsec(&switch.config) {
        ike::make_listen_folder(&files, switch.uid)?;
        folders.push(ike::listen_folder(&files));
    }
    let packet_bytes = u64::from(packet_mib(switch.config.memory)) << 20;
    let task = Task {
        tenant: tenant.to_string(),
        namespace: Some(netns::path(&switch.namespace)),
        bare: false,
        folders,
        cgroups: mounts.joins(&switch.cgroup),
        uid: switch.uid,
        root: files.root(),
        program: PathBuf::from(PROGRAM),
        arguments: arguments(switch),
        shown: SYSTEM
            .into_iter()
            .map(Shown::same)
            .chain([
                Shown {
                    host: switch.binary.clone(),
                    inside: PathBuf::from(PROGRAM),
                },
                Shown {
                    host: files.config(),
                    inside: config_inside(),
                },
            ])
            .collect(),
        devices: give_nodes(switch, functions(&switch.config))?,
        run: files.run(),
        run_inside: PathBuf::from(INSIDE),
        log: files.log_pipe(),
        // It drops the capability before it receives the first frame.
        raw_sockets: opens_raw_sockets(&switch.config)
            || is_shared_with_kernel(functions(&switch.config)),
        groups: Vec::new(),
        // The switch binds its own worker.
        cpu: None,
        locked_bytes: Some(packet_bytes),
        // Its packet memory is a file without a name. It writes no other.
        file_bytes: packet_bytes,
    };
    let started = task.start().map_err(|message| HostError::NotReady {
        tenant: tenant.clone(),
        message,
    })?;
    let mut launched = Launched {
        switch: switch.clone(),
        started,
        restarts,
        ready: false,
        start_s: None,
        executable,
    };
    files.remember(&launched)?;
    wait_until_ready(&files, switch, &started)?;
    files.collect_last();
    launched.ready = true;
    launched.start_s = Some(began.elapsed().as_secs_f64());
    files.remember(&launched)
}

fn wait_until_ready(
    files: &TenantFiles,
    switch: &Switch,
    started: &Started,
) -> Result<(), HostError> {
    let not_ready = |message: String| HostError::NotReady {
        tenant: switch.tenant.clone(),
        message: format!("{message}{}", files.tail()),
    };
    let began = Instant::now();
    loop {
        if control::said(files, switch, READY_WITHIN) == Said::Ready {
            return Ok(());
        }
        if !started.is_alive() {
            return Err(not_ready("it ended".to_owned()));
        }
        if began.elapsed() > READY_WITHIN {
            let Err(last) = control::ready(files, switch) else {
                return Ok(());
            };
            return Err(not_ready(format!(
                "it was not ready within {} s ({last})",
                READY_WITHIN.as_secs()
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn stop(context: &Context, switch: &Switch) -> Result<(), HostError> {
    let files = TenantFiles::new(context, &switch.tenant);
    let mut held = None;
    files.hold_log(&mut held)?;
    if let Some(pidfd) = files.pidfd()? {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < STOP_WITHIN && files.pidfd()?.is_some() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    mounts()?.empty(&switch.cgroup, STOP_WITHIN)?;
    files.collect_last();
    // The running switch may have other devices than the wanted one.
    if let Some(launched) = files.launched()? {
        take_nodes_back(functions(&launched.switch.config));
    }
    take_nodes_back(functions(&switch.config));
    files.forget()
}

fn opens_raw_sockets(config: &SwitchConfig) -> bool {
    config
        .devices()
        .any(|side| matches!(side.device, Device::AfPacket { .. } | Device::AfXdp { .. }))
}

/// Whether the switch listens for an IKE daemon.
fn has_ipsec(config: &SwitchConfig) -> bool {
    let tunnel = config.tunnel.as_ref();
    tunnel.is_some_and(|tunnel| tunnel.ipsec.is_some())
}

fn config_inside() -> PathBuf {
    Path::new(INSIDE).with_extension("json")
}

fn arguments(switch: &Switch) -> Vec<String> {
    let mut arguments = vec![
        "run".to_owned(),
        "--config".to_owned(),
        config_inside().display().to_string(),
        "--channel".to_owned(),
        Path::new(INSIDE).join(CHANNEL).display().to_string(),
    ];
    if has_ipsec(&switch.config) {
        let socket = Path::new(ike::SWITCH_INSIDE).join(ike::SWITCH_SOCKET);
        let uid = ike::uid_beside(switch.uid);
        arguments.extend(["--ike".to_owned(), socket.display().to_string()]);
        arguments.extend(["--ike-uid".to_owned(), uid.to_string()]);
    }
    if let Some(cpu) = switch.cpu {
        arguments.extend(["--cpu".to_owned(), cpu.to_string()]);
    }
    arguments
}
