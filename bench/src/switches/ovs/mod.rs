//! Open vSwitch 3.1 on its user-space datapath with DPDK (Debian's `openvswitch-switch-dpdk`): one
//! bridge for all tenants of a site, which are kept apart by the port that a frame comes in by.
//!
//! Every run has its own daemons. Their files are in the site's directory, and the bridge's
//! interface is in its own network namespace, so the machine's Open vSwitch, if any, is not
//! touched. The daemons end with the benchmark, even if that is killed.
//!
//! The set-up is the one its manual recommends: one PMD thread, which polls all ports, alone on the
//! switch's CPU; the other threads on the load's CPU. Everything else has its default: the caches
//! (EMC on, one in 100 new flows is inserted; no SMC), no automatic load balancing (which is for
//! several PMD threads), no sleep, frames are sent at once. Packet memory is limited to 256 MiB, so
//! that the load can have some too.
//!
//! Open vSwitch has drivers for two kinds of shared memory, and each is a peer, because neither is
//! always faster: memif with one flow (64 bytes, port to port: 5.0 against 3.9 Mpps, medians of
//! three rounds), vhost-user with 10,000 flows (2.5 against 1.9; to a VM and back 0.9 against 0.8).
//! On vhost-user Open vSwitch is the server (`dpdkvhostuser`), and the load's memory is one file,
//! because it maps few of them. Kernel interfaces use `net_af_packet`, because a PMD thread polls
//! no others.

mod rules;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::{ChildGuard, Counters, Running, Switch, wait_for};
use crate::command::{output, run};
use crate::site::{End, Site, Wires};

const PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const BRIDGE: &str = "bench";
/// Packet memory, in MiB.
const MEMORY: &str = "256";

/// Open vSwitch with DPDK.
pub(super) struct Ovs {
    pub(super) wires: Wires,
}

impl Switch for Ovs {
    fn wires(&self) -> Wires {
        self.wires
    }

    /// The PMD thread sends on the second queue; the first is the main thread's.
    fn queues(&self) -> u16 {
        2
    }

    fn checks(&self) -> bool {
        true
    }

    fn programs(&self) -> &'static [&'static str] {
        &[PROGRAM, "ovsdb-server", "ovs-vsctl", "ovs-ofctl"]
    }

    fn rules(&self, site: &Site) -> String {
        rules::rules(&site.tenants)
    }

    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>> {
        let files = Files {
            directory: site.directory().to_owned(),
        };
        run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(files.path("conf.db"))
            .arg(SCHEMA))
        .context("scripts/setup --for bench installs Open vSwitch")?;
        let mut command = files.daemon(site, "ovsdb-server");
        command
            .arg(files.path("conf.db"))
            .arg(format!("--remote=punix:{}", files.show("db.sock")));
        let database = ChildGuard(command.spawn().context("cannot start ovsdb-server")?);
        wait_for("ovsdb-server listens", || {
            Ok(files.path("db.sock").exists().then_some(()))
        })?;
        run(files.vsctl().arg("--no-wait").args(settings(site)))?;

        if !Path::new(PROGRAM).is_file() {
            bail!("{PROGRAM} is missing: scripts/setup --for bench installs it");
        }
        let mut command = files.daemon(site, PROGRAM);
        command.arg(format!("unix:{}", files.show("db.sock")));
        let daemon = ChildGuard(
            command
                .spawn()
                .with_context(|| format!("cannot start {PROGRAM}"))?,
        );
        let mut running = Daemons {
            daemon,
            database,
            files,
        };
        running
            .set_up(site)
            .with_context(|| running.warnings("ovs-vswitchd-dpdk"))?;
        Ok(Box::new(running))
    }
}

/// The arguments of `ovs-vsctl` for everything but the ports.
fn settings(site: &Site) -> Vec<String> {
    let mut arguments = ["init", "--", "set", "Open_vSwitch", "."]
        .map(str::to_owned)
        .to_vec();
    for (key, value) in [
        ("dpdk-init", "true".to_owned()),
        (
            "dpdk-extra",
            "\"--no-pci --in-memory --no-telemetry\"".to_owned(),
        ),
        ("dpdk-socket-mem", format!("\"{MEMORY}\"")),
        ("dpdk-socket-limit", format!("\"{MEMORY}\"")),
        ("dpdk-lcore-mask", mask(site.cpus.load)),
        ("pmd-cpu-mask", mask(site.cpus.switch)),
    ] {
        arguments.push(format!("other_config:{key}={value}"));
    }
    arguments
}

/// A set of one CPU, in Open vSwitch's notation.
fn mask(cpu: usize) -> String {
    format!("\"{:#x}\"", 1_u128 << cpu)
}

/// The arguments of `ovs-vsctl` for the bridge and a port for each wire. A port's OpenFlow number
/// is its wire's, counted from 1.
fn ports(site: &Site) -> Vec<String> {
    let owned = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let mut arguments = owned(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE]);
    // Without rules it must forward nothing.
    arguments.extend(owned(&["datapath_type=netdev", "fail_mode=secure"]));
    for (number, end) in site.ends.iter().enumerate() {
        let name = format!("wire{number}");
        arguments.extend(owned(&["--", "add-port", BRIDGE, &name]));
        arguments.extend(owned(&["--", "set", "interface", &name]));
        arguments.push(format!("ofport_request={}", number + 1));
        match end {
            End::Memif(socket) => arguments.extend([
                "type=dpdk".to_owned(),
                format!(
                    "options:dpdk-devargs=\"net_memif{number},role=server,id=0,\
                     socket-abstract=no,socket={}\"",
                    socket.display()
                ),
                "options:n_rxq=2".to_owned(),
            ]),
            // It listens in its own directory on a socket with the port's name: the site's path.
            End::VhostUser(_) => arguments.push("type=dpdkvhostuser".to_owned()),
            // PMD threads poll only DPDK's ports: a plain interface would be the main thread's.
            End::Veth(interface) => arguments.extend([
                "type=dpdk".to_owned(),
                format!(
                    "options:dpdk-devargs=\"net_af_packet{number},iface={interface},\
                     qdisc_bypass=1\""
                ),
            ]),
        }
    }
    arguments
}

/// The directory of the daemons' files.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn show(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A daemon that stays in the foreground, uses the switch's CPU only on request, and does not
    /// outlive this process.
    fn daemon(&self, site: &Site, program: &str) -> Command {
        let name = program.rsplit('/').next().unwrap_or(program);
        let mut command = site.command("taskset");
        command.args(["--cpu-list", &site.cpus.load.to_string()]);
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        if site.wires != Wires::Veth {
            command.args(["unshare", "--net"]);
        }
        command.arg(program);
        for place in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(place, &self.directory);
        }
        command
            .args(["-vconsole:off", "-vsyslog:off", "--no-chdir"])
            .arg(format!("--log-file={}", self.show(&format!("{name}.log"))))
            .arg(format!("--unixctl={}", self.show(&format!("{name}.ctl"))))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn vsctl(&self) -> Command {
        let mut command = Command::new("ovs-vsctl");
        command.args([
            "--timeout=60",
            &format!("--db=unix:{}", self.show("db.sock")),
        ]);
        command
    }
}

struct Daemons {
    // Dropped before the database, its server.
    daemon: ChildGuard,
    database: ChildGuard,
    files: Files,
}

impl Daemons {
    fn set_up(&mut self, site: &Site) -> anyhow::Result<()> {
        // If the daemon ended, the database's client would wait without an error.
        wait_for("ovs-vswitchd-dpdk is ready", || {
            if let Some(status) = self.daemon.0.try_wait()? {
                bail!("ovs-vswitchd-dpdk ended ({status})");
            }
            let answered = self.appctl(&["version"]).is_ok();
            Ok(answered.then_some(()))
        })?;
        run(self.files.vsctl().args(ports(site)))?;
        let failed = output(
            self.files
                .vsctl()
                .args(["--bare", "--columns=name,error", "find", "interface"])
                .arg("error!=[]"),
        )?;
        if !failed.trim().is_empty() {
            bail!("Open vSwitch could not open its ports: {}", failed.trim());
        }
        let rules = self.files.path("rules");
        std::fs::write(&rules, rules::rules(&site.tenants))?;
        run(Command::new("ovs-ofctl")
            .arg("add-flows")
            .arg(format!(
                "unix:{}",
                self.files.show(&format!("{BRIDGE}.mgmt"))
            ))
            .arg(&rules))
    }

    fn appctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(
            Command::new("ovs-appctl")
                .arg("--timeout=10")
                .arg("-t")
                .arg(self.files.path("ovs-vswitchd-dpdk.ctl"))
                .args(arguments),
        )
    }

    /// The warnings and errors in a daemon's log.
    fn warnings(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.files.path(&format!("{name}.log")));
        let warnings: Vec<&str> = log
            .as_deref()
            .unwrap_or("")
            .lines()
            .filter(|line| {
                ["|WARN|", "|ERR|", "|EMER|"]
                    .iter()
                    .any(|level| line.contains(level))
            })
            .collect();
        format!("{name} logged:\n{}", warnings.join("\n"))
    }
}

impl Running for Daemons {
    fn processes(&self) -> Vec<u32> {
        vec![self.daemon.id(), self.database.id()]
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let statistics = self.appctl(&["dpif-netdev/pmd-stats-show"])?;
        parse(&statistics).with_context(|| format!("Open vSwitch's statistics: {statistics}"))
    }
}

/// The PMD thread's counters in the output of `dpif-netdev/pmd-stats-show`. The main thread, which
/// may send frames too, has its own section.
fn parse(statistics: &str) -> Option<Counters> {
    let mut lines = statistics
        .lines()
        .skip_while(|line| !line.starts_with("pmd thread"))
        .skip(1)
        .take_while(|line| line.starts_with(' '));
    let mut number = |name: &str| -> Option<u64> {
        lines.find_map(|line| {
            let value = line.trim().strip_prefix(name)?.strip_prefix(": ")?;
            value.split(' ').next()?.parse().ok()
        })
    };
    Some(Counters {
        frames: number("packets received")?,
        busy_cycles: number("processing cycles").unwrap_or(0) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pmd_statistics_parse_to_counters_of_the_pmd_thread() {
        let statistics = "pmd thread numa_id 0 core_id 1:
  packets received: 2000
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  mfex opt hits: 0
  simple match hits: 0
  emc hits: 1990
  smc hits: 0
  megaflow hits: 8
  avg. subtable lookups per megaflow hit: 1.00
  miss with success upcall: 2
  miss with failed upcall: 0
  avg. packets per output batch: 31.50
  idle cycles: 8417926892 (99.98%)
  processing cycles: 1814000 (0.02%)
  avg cycles per packet: 4209870.45 (8419740892/2000)
  avg processing cycles per packet: 907.00 (1814000/2000)
main thread:
  packets received: 7
  packet recirculations: 0
";
        let expected = Counters {
            frames: 2000,
            busy_cycles: 1_814_000.0,
        };
        assert_eq!(parse(statistics), Some(expected));
        assert_eq!(parse("main thread:\n  packets received: 7\n"), None);
    }

    #[test]
    fn cpu_becomes_a_quoted_mask() {
        assert_eq!(
            [0, 1, 65].map(mask),
            ["\"0x1\"", "\"0x2\"", "\"0x20000000000000000\""]
        );
    }
}
