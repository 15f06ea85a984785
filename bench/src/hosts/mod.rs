//! Hosts that `vf-provisioner` looks after, as an operator's are, in network namespaces of this
//! machine.
//!
//! A network namespace takes the place of a host's own, so its bridge and its rules are the
//! bench's.

mod joined;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use procfs::process::Process;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use self::joined::{End, Joined, Protection, address};
use crate::command::output;
use crate::site::Namespace;

/// What other programs of the machine keep, in MiB.
const MEMORY_LEFT_MIB: u64 = 1024;

/// The users of one host: a thousand tenants' switches, and their IKE daemons.
const USERS: u32 = 2000;

/// The programs that hosts need beside `vf-provisioner` and the switch.
pub const PROGRAMS: [&str; 4] = ["ip", "nsenter", "nft", "ethtool"];

/// What one command took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    /// Of the command and the processes that it waited for.
    pub(crate) cpu: Duration,
}

/// A host with tenants' files, whose tenants are released when it is dropped.
pub(crate) struct Host {
    instance: &'static str,
    uid_base: u32,
    /// Further options of each command.
    options: Vec<String>,
    files: TempDir,
    state: TempDir,
    namespace: Namespace,
}

impl Host {
    /// The prefix of the names of all that the provisioner makes is `instance`, and the first of
    /// its users `uid_base`. The executable of its switches is `switch`, or that beside this
    /// program.
    pub(crate) fn new(
        instance: &'static str,
        uid_base: u32,
        packet_memory_mib: u32,
        switch: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let directory = |at: &str| {
            let made = tempfile::Builder::new().prefix("bench-").tempdir_in(at);
            made.with_context(|| format!("no directory in {at}"))
        };
        let mut options = vec![
            "--uid-base".to_owned(),
            uid_base.to_string(),
            "--packet-memory".to_owned(),
            packet_memory_mib.to_string(),
        ];
        if let Some(switch) = switch {
            options.extend(["--switch-binary".to_owned(), switch.display().to_string()]);
        }
        Ok(Self {
            instance,
            uid_base,
            options,
            files: directory("/tmp")?,
            // Where the provisioner's own is, too.
            state: directory("/var/lib")?,
            namespace: Namespace::add(&format!("-{instance}"))?,
        })
    }

    /// The folder of the tenants' files.
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// Writes a tenant's file.
    pub(crate) fn write(&self, tenant: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.files().join(format!("{tenant}.toml"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn command(&self) -> anyhow::Result<Command> {
        let own = std::env::current_exe().context("the path of this program is unknown")?;
        let mut command = Command::new("nsenter");
        // Not `ip netns exec`, whose mount namespace would hide namespaces that are made in it.
        command
            .arg(format!("--net=/run/netns/{}", self.namespace.name()))
            .arg(own.with_file_name("vf-provisioner"))
            .args(["--instance", self.instance])
            .arg("--state-dir")
            .arg(self.state.path().join("state"))
            .args(&self.options);
        Ok(command)
    }

    /// The output of a command that must succeed.
    pub(crate) fn good(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(self.command()?.args(arguments))
    }

    /// The same, with what it took.
    pub(crate) fn timed(&self, arguments: &[&str]) -> anyhow::Result<Took> {
        let mut command = self.command()?;
        let (began, before) = (Instant::now(), waited_for()?);
        output(command.args(arguments))?;
        Ok(Took {
            wall: began.elapsed(),
            cpu: waited_for()?.saturating_sub(before),
        })
    }

    /// What `status` says, also of tenants that are not up.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        let shown = command.args(["--json", "status"]).output()?;
        serde_json::from_slice(&shown.stdout)
            .with_context(|| String::from_utf8_lossy(&shown.stderr).into_owned())
    }

    /// The users of its tenants' processes.
    pub(crate) fn users(&self) -> Range<u32> {
        self.uid_base..self.uid_base + USERS
    }

    /// The processor time that its running switches have had.
    pub(crate) fn switch_cpu(&self) -> anyhow::Result<Duration> {
        let status = self.status()?;
        let tenants = status["tenants"].as_array().into_iter().flatten();
        let mut ticks = 0;
        for pid in tenants.filter_map(|tenant| tenant["switch"]["pid"].as_i64()) {
            let stat = Process::new(i32::try_from(pid)?)?.stat()?;
            ticks += stat.utime + stat.stime;
        }
        let seconds = ticks as f64 / procfs::ticks_per_second() as f64;
        Ok(Duration::from_secs_f64(seconds))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.good(&["release", "--all"]);
    }
}

/// Refuses a number of tenants that the machine has no memory for.
pub(crate) fn enough_memory(tenants: usize, each_mib: f64) -> anyhow::Result<()> {
    suffices(tenants, each_mib, available_mib())
}

fn suffices(tenants: usize, each_mib: f64, available_mib: u64) -> anyhow::Result<()> {
    let needed = MEMORY_LEFT_MIB + (tenants as f64 * each_mib).ceil() as u64;
    anyhow::ensure!(
        needed <= available_mib,
        "{tenants} tenants need some {needed} MiB, {each_mib:.0} each, and {available_mib} are \
         available"
    );
    Ok(())
}

/// Available memory of the machine.
pub(crate) fn available_mib() -> u64 {
    use procfs::Current;
    let available = procfs::Meminfo::current().ok();
    available.and_then(|it| it.mem_available).unwrap_or(0) >> 20
}

/// Processor time of the processes that this one has waited for, and of those that they did.
fn waited_for() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |value: TimeVal| {
        Duration::from_micros(value.tv_sec() as u64 * 1_000_000 + value.tv_usec() as u64)
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_the_number_of_tenants() {
        assert!(suffices(200, 40.0, 9_024).is_ok());
        let error = suffices(201, 40.0, 9_024).expect_err("there is too little");
        assert_eq!(
            error.to_string(),
            "201 tenants need some 9064 MiB, 40 each, and 9024 are available"
        );
    }
}
