//! The place of one run: the wires between the switch under test and the load, and what is on either end of each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tenant_config::{Device, Memory, SwitchConfig};

use crate::command::run;
use crate::interrupt;
use crate::load::{LoadDevice, LoadPort};
use crate::network::{Hop, Topology};

/// A kind of wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Wires {
    /// Shared memory. The switch under test is the server of each, the load the client.
    Memif,
    /// Shared memory as QEMU has it with its VMs: the switch under test is the back end, the load the VM.
    VhostUser,
    /// Pairs of kernel interfaces, with AF_PACKET at their ends.
    Veth,
}

impl Wires {
    /// The same, or the next best that ours has a driver for.
    pub const fn ours(self) -> Self {
        match self {
            Self::VhostUser => Self::Memif,
            other => other,
        }
    }
}

impl fmt::Display for Wires {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is skipped");
        out.write_str(value.get_name())
    }
}

/// The end of a wire that the switch under test has.
#[derive(Debug, Clone)]
pub enum End {
    /// The socket to listen on.
    Memif(PathBuf),
    /// The socket to listen on.
    VhostUser(PathBuf),
    /// The interface.
    Veth(String),
}

/// Where things run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cpus {
    /// The switch under test.
    pub switch: usize,
    /// The load, and what else the benchmark does.
    pub load: usize,
}

/// What one run takes; dropped, it is gone.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    /// What kind its wires are.
    pub wires: Wires,
    /// Where things run.
    pub cpus: Cpus,
    /// The tenants, their devices named where ours has a driver for the wires.
    pub tenants: Vec<SwitchConfig>,
    /// In the order of the load's ports: each tenant's VMs, then its uplink.
    pub ends: Vec<End>,
    sides: Option<Sides>,
}

/// Where the two ends of each kernel's wire are. What crosses from one namespace to another is nobody's any more, as what has
/// left by a NIC: else it would count as not yet sent until the other side has read it.
#[derive(Debug)]
struct Sides {
    switch: Namespace,
    load: Namespace,
}

impl Site {
    /// Lays the wires for those tenants.
    ///
    /// # Errors
    /// If the kernel refuses, or the run is to end.
    pub fn lay(wires: Wires, cpus: Cpus, mut tenants: Vec<SwitchConfig>) -> anyhow::Result<Self> {
        interrupt::check()?;
        let directory = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir()
            .context("no temporary directory")?;
        let sides = (wires == Wires::Veth).then(Sides::add).transpose()?;
        let mut ends = Vec::new();
        for tenant in &mut tenants {
            tenant.memory = Memory {
                mib: 16,
                hugepages: true,
            };
            for device in tenant.devices_mut() {
                let number = ends.len();
                let socket = directory.path().join(format!("wire{number}"));
                let end = match wires {
                    Wires::Memif => {
                        *device = Device::Memif {
                            socket: socket.clone(),
                            id: 0,
                            server: true,
                        };
                        End::Memif(socket)
                    }
                    Wires::VhostUser => End::VhostUser(socket),
                    Wires::Veth => {
                        let interface = format!("switch{number}");
                        *device = Device::AfPacket {
                            interface: interface.clone(),
                        };
                        if let Some(sides) = &sides {
                            sides.pair(cpus, &interface, &format!("load{number}"))?;
                        }
                        End::Veth(interface)
                    }
                };
                ends.push(end);
            }
        }
        Ok(Self {
            directory,
            wires,
            cpus,
            tenants,
            ends,
            sides,
        })
    }

    /// For sockets and files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The load's ends of the wires. `queues` is what the switch under test sends on.
    pub fn load_ports(&self, queues: u16) -> Vec<LoadPort> {
        let device = |(number, end): (usize, &End)| match end {
            End::Memif(socket) => LoadDevice::Ours(Device::Memif {
                socket: socket.clone(),
                id: 0,
                server: false,
            }),
            End::VhostUser(socket) => LoadDevice::Virtual {
                name: format!("net_virtio_user{number}"),
                // As long as the rings of the other kinds.
                arguments: format!("path={},queues={queues},queue_size=512", socket.display()),
            },
            End::Veth(_) => LoadDevice::Ours(Device::AfPacket {
                interface: format!("load{number}"),
            }),
        };
        self.ends
            .iter()
            .enumerate()
            .map(device)
            .map(|device| LoadPort { device, queues })
            .collect()
    }

    /// The way through each tenant's switch, by the load's ports.
    pub fn paths(&self, topology: Topology) -> Vec<Vec<Hop>> {
        let mut first = 0;
        let path = |tenant: &SwitchConfig| {
            let mut hops = topology.path(tenant);
            for hop in &mut hops {
                hop.from += first;
                hop.to += first;
            }
            first += tenant.ports.len() + usize::from(tenant.uplink.is_some());
            hops
        };
        self.tenants.iter().map(path).collect()
    }

    /// A command that runs where the switch's ends of the wires are.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match &self.sides {
            None => Command::new(program),
            Some(sides) => sides.switch.command(program),
        }
    }

    /// A command that runs where the load's ends of the wires are.
    pub fn load_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match &self.sides {
            None => Command::new(program),
            Some(sides) => sides.load.command(program),
        }
    }
}

impl Sides {
    fn add() -> anyhow::Result<Self> {
        Ok(Self {
            switch: Namespace::add("")?,
            load: Namespace::add("-load")?,
        })
    }

    /// Two interfaces that are each other's peer, one on each side.
    fn pair(&self, cpus: Cpus, one: &str, other: &str) -> anyhow::Result<()> {
        let (here, there) = (self.switch.name(), self.load.name());
        ip(&[
            "-n", here, "link", "add", one, "type", "veth", "peer", "name", other, "netns", there,
        ])?;
        for (side, interface, cpu) in [
            (&self.switch, one, cpus.switch),
            (&self.load, other, cpus.load),
        ] {
            ip(&[
                "-n",
                side.name(),
                "link",
                "set",
                interface,
                "arp",
                "off",
                "up",
            ])?;
            side.steer(interface, cpu)?;
        }
        Ok(())
    }
}

/// A network namespace of ours, in which nothing but the wires sends anything. Dropped, it is gone, and with it what is in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Adds one; `suffix` tells it from this program's others.
    pub(crate) fn add(suffix: &str) -> anyhow::Result<Self> {
        let name = format!("bench{}{suffix}", std::process::id());
        let _ = ip(&["netns", "delete", &name]);
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.set(&[
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
        ])?;
        Ok(namespace)
    }

    /// As `ip netns` knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets kernel parameters, each written as `sysctl` takes it.
    pub(crate) fn set(&self, settings: &[impl AsRef<std::ffi::OsStr>]) -> anyhow::Result<()> {
        run(self
            .command("sysctl")
            .args(["--quiet", "--write"])
            .args(settings))
    }

    /// Has the kernel handle on that CPU what an interface receives. A pair's end receives where the other end sends, unless told.
    fn steer(&self, interface: &str, cpu: usize) -> anyhow::Result<()> {
        let mask = cpu_mask(cpu);
        let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
        run(self
            .command("sh")
            .args(["-c", &format!("echo {mask} > {file}")]))
    }

    /// A command that runs in it.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments))
}

/// A set of one CPU, as the kernel writes it: hexadecimal, in groups of 32 bits.
fn cpu_mask(cpu: usize) -> String {
    format!("{:x}{}", 1u32 << (cpu % 32), ",00000000".repeat(cpu / 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_a_bit_of_a_mask() {
        let expected = [(0, "1"), (1, "2"), (31, "80000000"), (33, "2,00000000")];
        for (cpu, mask) in expected {
            assert_eq!(cpu_mask(cpu), mask);
        }
    }
}
