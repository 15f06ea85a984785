//! The switches of this host, whichever launcher runs them.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tenant_config::Name;
use vswitch_api::endpoint::ports::Ports;

use super::cgroup::mounts;
use super::control;
use super::files::TenantFiles;
use super::ike::{self, Ike, IkeFiles};
use super::liveness::{self, Hearing};
use super::log::LogHolder;
use super::ready::{self, Said};
use super::registry::runner;
use super::switch::Switch;
use super::usage::{Accounts, Running};
use crate::error::HostError;
use crate::look::Look;
use crate::object::{Context, Live};
use crate::parallel;

impl Live for Switch {
    /// A switch that forwards nothing counts as absent.
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError> {
        let observed = TenantFiles::new(context, &self.tenant).observe_switch(self)?;
        Ok(observed.filter(|switch| deaf_or_stuck(context, switch).why().is_none()))
    }

    fn observe_with(&self, context: &Context, look: &Look) -> Result<Option<Self>, HostError> {
        let files = TenantFiles::new(context, &self.tenant);
        let observed = files.observe_switch(self)?;
        let asked = look.share("", || Ok(Asked::default()))?;
        Ok(observed.filter(|switch| match asked.0.get(&self.tenant) {
            Some(Said::Ready) => liveness::hearing(&files, switch).why().is_none(),
            Some(Said::Silent) => false,
            // It says why.
            Some(Said::Other) | None => deaf_or_stuck(context, switch).why().is_none(),
        }))
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        runner(self).start(context, self, 0)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        let files = TenantFiles::new(context, &self.tenant);
        let Err(why) = control::reload(&files, self)? else {
            return Ok(());
        };
        tracing::warn!(tenant = %self.tenant, %why, "restarted instead of reloaded");
        let runner = runner(self);
        runner.stop(context, self)?;
        runner.start(context, self, 0)?;
        // The daemon ended with the switch that it served.
        ike::start_again(context, &self.tenant)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        runner(self).stop(context, self)
    }
}

/// What the switches of a look said.
#[derive(Debug, Default)]
struct Asked(HashMap<Name, Said>);

/// Asks all these switches at once, those that are processes and run, for the objects that are
/// looked at.
pub(crate) fn ask_all(context: &Context, switches: &[&Switch], look: &Look) {
    let sockets = parallel::map(switches, |switch| {
        let files = TenantFiles::new(context, &switch.tenant);
        let started = files.launched().ok()??.started;
        let runs = switch.machine.is_none() && started.is_alive() && !started.is_stopped();
        runs.then(|| (switch.tenant.clone(), files.control_socket()))
    });
    let (names, sockets): (Vec<_>, Vec<_>) = sockets.into_iter().flatten().unzip();
    let _ = look.share("", || {
        let said = ready::ask(&sockets, control::ANSWERS_WITHIN);
        Ok(Asked(names.into_iter().zip(said).collect()))
    });
}

/// Why a switch that is alive forwards nothing, if it does not. Its process or machine is looked at
/// first; then it is asked, with a bounded wait.
fn stuck(context: &Context, switch: &Switch) -> Option<String> {
    let files = TenantFiles::new(context, &switch.tenant);
    let launched = files.launched().ok().flatten();
    if launched.is_some_and(|launched| launched.started.is_stopped()) {
        return Some("its process is stopped".to_owned());
    }
    let seen = runner(switch).stuck(context, switch);
    seen.or_else(|| control::unready(&files, switch))
}

/// The same, and whether frames reach it.
fn deaf_or_stuck(context: &Context, switch: &Switch) -> Hearing {
    match stuck(context, switch) {
        Some(why) => Hearing::Deaf(why),
        None => liveness::hearing(&TenantFiles::new(context, &switch.tenant), switch),
    }
}

/// The switches of this host.
#[derive(Debug, Clone)]
pub struct Switches {
    context: Context,
    /// When frames were last seen to reach a switch.
    heard: Arc<Mutex<BTreeMap<Name, Instant>>>,
}

/// How often the supervisor sends frames to a switch.
const KNOCK_EVERY: Duration = Duration::from_secs(5);

impl Switches {
    /// Those below the context's state directory.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            heard: Arc::default(),
        }
    }

    fn files(&self, tenant: &Name) -> TenantFiles {
        TenantFiles::new(&self.context, tenant)
    }

    /// The control socket's path on the host.
    pub fn control_socket(&self, tenant: &Name) -> PathBuf {
        self.files(tenant).control_socket()
    }

    /// Where the switch listens for its supervisor, on the host. One in a VM does not.
    pub fn channel_socket(&self, switch: &Switch) -> Option<PathBuf> {
        let is_process = switch.machine.is_none();
        is_process.then(|| self.files(&switch.tenant).channel_socket())
    }

    /// The log of a tenant's switch, with what it has written so far.
    pub fn log(&self, tenant: &Name) -> PathBuf {
        let files = self.files(tenant);
        files.collect_last();
        files.log()
    }

    /// Keeps in `holder` what the tenant's switch writes, also if the switch ends.
    ///
    /// # Errors
    /// If its pipe cannot be opened.
    pub fn hold_log(&self, tenant: &Name, holder: &mut Option<LogHolder>) -> Result<(), HostError> {
        self.files(tenant).hold_log(holder)
    }

    /// Moves what the tenant's switch has written to its log, whose length is bounded.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn collect_log(&self, tenant: &Name) -> Result<(), HostError> {
        self.files(tenant).collect_log()
    }

    /// The tenant's switch, if it runs.
    ///
    /// # Errors
    /// If the note of it cannot be read.
    pub fn running(&self, tenant: &Name) -> Result<Option<Running>, HostError> {
        let launched = self.files(tenant).launched()?;
        Ok(launched.and_then(|launched| {
            let usage = launched.started.usage()?;
            Some(Running {
                pid: launched.started.pid,
                start_ticks: launched.started.start_ticks,
                uptime_s: usage.uptime_s,
                restarts: launched.restarts,
                cpu_s: usage.cpu_s,
                memory_bytes: usage.memory_bytes,
            })
        }))
    }

    /// A pidfd of the tenant's switch, if it is alive and the one that was started.
    ///
    /// # Errors
    /// If the note of it cannot be read.
    pub fn pidfd(&self, tenant: &Name) -> Result<Option<OwnedFd>, HostError> {
        self.files(tenant).pidfd()
    }

    /// Why a switch that is alive forwards nothing, if it does not. The wait for its answer is
    /// bounded. Frames are sent to its functions only every [`KNOCK_EVERY`], if they arrive.
    pub fn stuck(&self, switch: &Switch) -> Option<String> {
        let heard = || self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| at.elapsed() < KNOCK_EVERY;
        if heard().get(&switch.tenant).is_some_and(is_recent) {
            return stuck(&self.context, switch);
        }
        let hearing = deaf_or_stuck(&self.context, switch);
        match &hearing {
            Hearing::Hears => heard().insert(switch.tenant.clone(), Instant::now()),
            Hearing::Unknown | Hearing::Deaf(_) => heard().remove(&switch.tenant),
        };
        hearing.why()
    }

    /// Why frames do not reach the switch's functions, if they do not; see [`Self::stuck`].
    pub fn deaf(&self, switch: &Switch) -> Option<String> {
        liveness::hearing(&self.files(&switch.tenant), switch).why()
    }

    /// Restarts a dead switch as it was started before.
    ///
    /// # Errors
    /// If it does not start or does not answer in time.
    pub fn restart(&self, switch: &Switch) -> Result<(), HostError> {
        let restarts = self.files(&switch.tenant).restarts()?;
        runner(switch).start(&self.context, switch, restarts + 1)
    }

    /// The files of the tenant's IKE daemon.
    pub(crate) fn ike(&self, tenant: &Name) -> IkeFiles {
        IkeFiles::new(&self.context, tenant)
    }

    /// Restarts a dead IKE daemon as it was started before.
    ///
    /// # Errors
    /// If it does not start or refuses its configuration.
    pub fn restart_ike(&self, ike: &Ike) -> Result<(), HostError> {
        ike::restart(&self.context, ike)
    }

    /// Gives a running IKE daemon its files once more.
    ///
    /// # Errors
    /// If a file cannot be used, or the daemon refuses it.
    pub fn reload_ike(&self, ike: &Ike) -> Result<(), HostError> {
        ike::reload(&self.context, ike)
    }

    /// What the tenant's IKE daemon says of its peers.
    ///
    /// # Errors
    /// A plain sentence, if it does not run or answer.
    pub fn associations(&self, tenant: &Name) -> Result<Vec<ike::Association>, String> {
        self.ike(tenant).associations()
    }

    /// The log of an IKE daemon, with what it has written so far.
    pub fn ike_log(&self, ike: &Ike) -> PathBuf {
        self.ike(&ike.tenant).log(ike)
    }

    /// The executable of the tenant's running switch, if another file has its name now.
    pub fn replaced(&self, tenant: &Name) -> Option<PathBuf> {
        let launched = self.files(tenant).launched().ok()??;
        let executable = launched
            .executable
            .filter(|_| launched.started.is_alive())?;
        executable.replaced().map(Path::to_owned)
    }

    /// How long the last start of the tenant's switch took, in seconds.
    pub fn last_start_s(&self, tenant: &Name) -> Option<f64> {
        self.files(tenant).launched().ok()??.start_s
    }

    /// The version that the switch says it is.
    ///
    /// # Errors
    /// A plain sentence, if it does not answer, or not as a switch does.
    pub fn version(&self, switch: &Switch) -> Result<String, String> {
        control::version(&self.files(&switch.tenant), switch)
    }

    /// The usage of the switch, as the kernel counts it.
    pub fn accounts(&self, switch: &Switch) -> Option<Accounts> {
        let counted = mounts().ok()?.accounts(&switch.cgroup);
        // libvirt has its own groups: then it is the usage of the process.
        counted.or_else(|| {
            let launched = self.files(&switch.tenant).launched().ok()??;
            launched.started.accounts()
        })
    }

    /// The ports of the record, with the counters that the switch reports.
    ///
    /// # Errors
    /// A plain sentence, if it does not answer, or not as a switch does.
    pub fn ports(&self, switch: &Switch) -> Result<Ports, String> {
        control::ports(&self.files(&switch.tenant), switch)
    }
}
