//! The site of one run: the wires between the switch under test and the load, and their ends.

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
    /// Shared memory; the switch under test is the server of each, the load the client
    Memif,
    /// Shared memory as between QEMU and its VMs; the switch under test is the back end, the load
    /// the VM
    VhostUser,
    /// Pairs of kernel interfaces with AF_PACKET at their ends
    Veth,
}

impl Wires {
    /// The same wires, or the closest that our switch has a driver for.
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

/// The switch's end of a wire.
#[derive(Debug, Clone)]
pub enum End {
    /// The socket to listen on.
    Memif(PathBuf),
    /// The socket to listen on.
    VhostUser(PathBuf),
    /// The interface.
    Veth(String),
}

/// The CPUs of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cpus {
    /// The CPU of the switch under test.
    pub switch: usize,
    /// The CPU of the load and of everything else.
    pub load: usize,
}

/// The resources of one run, removed when dropped.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    /// The kind of the wires.
    pub wires: Wires,
    /// The CPUs.
    pub cpus: Cpus,
    /// The tenants, with devices if our switch has a driver for the wires.
    pub tenants: Vec<SwitchConfig>,
    /// The switch's ends, in the order of the load's ports: each tenant's VMs, then its uplink.
    pub ends: Vec<End>,
    sides: Option<Sides>,
}

/// The namespaces of the two ends of kernel interfaces. A frame that crosses namespaces no longer
/// belongs to its sender, as one that has left by a NIC: otherwise it would count as unsent until
/// the other side has read it.
#[derive(Debug)]
struct Sides {
    switch: Namespace,
    load: Namespace,
}

impl Site {
    /// Creates the wires for these tenants.
    ///
    /// # Errors
    /// If the kernel refuses, or a signal has arrived.
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
                            // Both sides are the bench's own.
                            trusted_peer: true,
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

    /// The directory for sockets and files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The load's ends of the wires; the switch under test sends on `queues` queues.
    pub fn load_ports(&self, queues: u16) -> Vec<LoadPort> {
        let device = |(number, end): (usize, &End)| match end {
            End::Memif(socket) => LoadDevice::Ours(Device::Memif {
                socket: socket.clone(),
                id: 0,
                server: false,
                trusted_peer: true,
            }),
            End::VhostUser(socket) => LoadDevice::Virtual {
                name: format!("net_virtio_user{number}"),
                // Rings as long as those of the other kinds.
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

    /// The path through each tenant's switch, in terms of the load's ports.
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

    /// A command in the namespace of the switch's ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match &self.sides {
            None => Command::new(program),
            Some(sides) => sides.switch.command(program),
        }
    }

    /// A command in the namespace of the load's ends.
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

    /// Adds a pair of interfaces, one on each side.
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

/// A network namespace without traffic of its own, removed with its interfaces when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Adds a namespace; `suffix` distinguishes those of this process.
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

    /// The name in `ip netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets kernel parameters in the notation of `sysctl`.
    pub(crate) fn set(&self, settings: &[impl AsRef<std::ffi::OsStr>]) -> anyhow::Result<()> {
        run(self
            .command("sysctl")
            .args(["--quiet", "--write"])
            .args(settings))
    }

    /// Makes the kernel handle received frames of an interface on a CPU. By default that is the CPU
    /// on which the other end of the pair sends.
    fn steer(&self, interface: &str, cpu: usize) -> anyhow::Result<()> {
        let mask = cpu_mask(cpu);
        let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
        run(self
            .command("sh")
            .args(["-c", &format!("echo {mask} > {file}")]))
    }

    /// A command in the namespace.
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

/// A set of one CPU in the kernel's notation: hexadecimal, in groups of 32 bits.
fn cpu_mask(cpu: usize) -> String {
    format!("{:x}{}", 1u32 << (cpu % 32), ",00000000".repeat(cpu / 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_becomes_a_bit_of_a_mask() {
        let expected = [(0, "1"), (1, "2"), (31, "80000000"), (33, "2,00000000")];
        for (cpu, mask) in expected {
            assert_eq!(cpu_mask(cpu), mask);
        }
    }
}
