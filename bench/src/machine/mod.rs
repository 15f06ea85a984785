//! The machine of a measurement: what it is, what it lacks, and what distorts a run.

mod needs;
mod proc;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use proc::{field, governor, read};

pub use needs::{Needs, missing};
pub use proc::Hugepages;
pub use watch::Watch;

/// The machine on which a result was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Processors that are online.
    pub cpus: usize,
    /// Their clock in MHz, if known.
    pub mhz: Option<f64>,
    /// The frequency governor, if any.
    pub governor: Option<String>,
    /// Whether the machine is virtual.
    pub virtualised: bool,
    /// The kernel's release.
    pub kernel: String,
    /// Hugepages of the default size.
    pub hugepages: Hugepages,
    /// The versions of packages by name.
    pub versions: BTreeMap<String, String>,
    /// In UTC.
    pub date: String,
    /// The commit of the tree that this program was built in; ends in `+` if that has changes.
    pub commit: Option<String>,
    /// The command line of this program.
    pub command: String,
}

impl Machine {
    /// This machine.
    pub fn inspect() -> Self {
        let processors = read("/proc/cpuinfo");
        Self {
            processor: field(&processors, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cpus: processors
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            mhz: field(&processors, "cpu MHz").and_then(|mhz| mhz.parse().ok()),
            governor: governor(0),
            virtualised: field(&processors, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            hugepages: Hugepages::current(),
            versions: versions(),
            date: printed("date", &["--utc", "+%F %T UTC"]).unwrap_or_default(),
            commit: commit(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }

    /// All facts, each a name and a value.
    pub fn facts(&self) -> Vec<(String, String)> {
        let clock = match (self.mhz, &self.governor) {
            (None, _) => "unknown".to_owned(),
            (Some(mhz), None) => format!("{mhz:.0} MHz"),
            (Some(mhz), Some(governor)) => format!("{mhz:.0} MHz, governor {governor}"),
        };
        let kind = if self.virtualised { "virtual" } else { "real" };
        let mut facts = vec![
            ("date", self.date.clone()),
            ("processor", self.processor.clone()),
            ("processors", format!("{}, {kind}", self.cpus)),
            ("clock", clock),
            ("kernel", self.kernel.clone()),
            ("hugepages", self.hugepages.to_string()),
        ];
        facts.extend(
            self.versions
                .iter()
                .map(|(name, version)| (name.as_str(), version.clone())),
        );
        facts.push((
            "commit",
            self.commit.clone().unwrap_or_else(|| "unknown".to_owned()),
        ));
        facts.push(("command", self.command.clone()));
        facts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// A line for each fact.
impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.facts() {
            writeln!(out, "{name}: {value}")?;
        }
        Ok(())
    }
}

/// What a program prints; `None` if that is nothing.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The compiler, and Debian's packages that may influence a result.
fn versions() -> BTreeMap<String, String> {
    let arguments = [
        "--show",
        "--showformat",
        "${db:Status-Status} ${Package} ${Version}\n",
        "libdpdk-dev",
        "dpdk-dev",
        "openvswitch-switch-dpdk",
        "openvswitch-switch",
        "nftables",
        "iproute2",
        "valgrind",
        "iperf3",
        "apache2",
        "apache2-utils",
        "memcached",
    ];
    let text = printed("dpkg-query", &arguments).unwrap_or_default();
    let packages = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed ")?.split_once(' '));
    let compiler = printed("rustc", &["--version"]).unwrap_or_default();
    packages
        .chain(compiler.trim().split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

/// The tree that this program was built in.
fn tree() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

fn commit() -> Option<String> {
    let tree = tree().to_str()?;
    let commit = printed("git", &["-C", tree, "rev-parse", "--short=12", "HEAD"])?;
    let changed = printed(
        "git",
        &["-C", tree, "status", "--porcelain", "--untracked-files=no"],
    )
    .is_some();
    Some(if changed { commit + "+" } else { commit })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine {
            processor: "An Example CPU".to_owned(),
            cpus: 2,
            mhz: Some(2000.0),
            governor: None,
            virtualised: true,
            kernel: "6.1.0".to_owned(),
            hugepages: Hugepages {
                total: 512,
                free: 500,
                kib: 2048,
            },
            versions: BTreeMap::from([("libdpdk-dev".to_owned(), "22.11".to_owned())]),
            date: "2026-11-22 01:00:00 UTC".to_owned(),
            commit: None,
            command: "bench run p2p".to_owned(),
        }
    }

    #[test]
    fn machine_prints_one_line_for_each_fact() {
        assert_eq!(
            machine().to_string(),
            "date: 2026-11-22 01:00:00 UTC\nprocessor: An Example CPU\nprocessors: 2, virtual\n\
             clock: 2000 MHz\nkernel: 6.1.0\nhugepages: 512 of 2048 KiB, 500 free\n\
             libdpdk-dev: 22.11\ncommit: unknown\ncommand: bench run p2p\n"
        );
    }
}
