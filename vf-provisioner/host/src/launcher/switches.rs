//! The switches of this host, whichever launcher runs them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tenant_config::Name;
use vswitch_api::endpoint::ports::Ports;

use super::cgroup::mounts;
use super::control;
use super::files::TenantFiles;
use super::log::LogHolder;
use super::registry::runner;
use super::switch::Switch;
use super::usage::{Accounts, Running};
use crate::error::HostError;
use crate::object::{Context, Live};

impl Live for Switch {
    /// A switch that forwards nothing counts as absent.
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError> {
        let observed = TenantFiles::new(context, &self.tenant).observe_switch(self)?;
        Ok(observed.filter(|switch| stuck(context, switch).is_none()))
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
        runner.start(context, self, 0)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        runner(self).stop(context, self)
    }
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

/// The switches of this host.
#[derive(Debug, Clone)]
pub struct Switches {
    context: Context,
}

impl Switches {
    /// Those below the context's state directory.
    pub fn new(context: Context) -> Self {
        Self { context }
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
    /// bounded.
    pub fn stuck(&self, switch: &Switch) -> Option<String> {
        stuck(&self.context, switch)
    }

    /// Restarts a dead switch as it was started before.
    ///
    /// # Errors
    /// If it does not start or does not answer in time.
    pub fn restart(&self, switch: &Switch) -> Result<(), HostError> {
        let restarts = self.files(&switch.tenant).restarts()?;
        runner(switch).start(&self.context, switch, restarts + 1)
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
