//! Two hosts whose bridges are joined by a cable, and tenants whose VMs on both reach each other
//! through a tunnel.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Host;
use crate::command::run;
use crate::interrupt;
use crate::switches::ChildGuard;

/// The prefixes of the names on the two hosts, and the first of their users: in the range that
/// Debian hands out to nobody.
const HOSTS: [(&str, u32); 2] = [("bena", 95_000), ("benb", 97_000)];
/// Packet memory of one switch, in MiB.
const PACKET_MEMORY_MIB: u32 = 16;
/// The largest packet of a VM: with every transform of ESP it fits into an underlay of 1500 bytes.
const MTU: u32 = 1400;
/// How long tunnels may take until all of them carry packets.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the tunnels are under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub(crate) struct Protection(
    /// ESP's transforms as a tenant's file names them; `None` is a tunnel without IPsec.
    pub(crate) Option<&'static str>,
);

impl Protection {
    pub(crate) fn name(self) -> &'static str {
        self.0.unwrap_or("none")
    }
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Near,
    Far,
}

pub(crate) struct Joined {
    hosts: [Host; 2],
    tenants: usize,
    key: PathBuf,
}

impl Joined {
    /// Two empty hosts.
    pub(crate) fn new(tenants: usize) -> anyhow::Result<Self> {
        let [near, far] = HOSTS
            .map(|(instance, uid_base)| Host::new(instance, uid_base, PACKET_MEMORY_MIB, None));
        let (near, far) = (near?, far?);
        let [a, b] = [&near, &far].map(|host| host.namespace.name().to_owned());
        let mut cable = Command::new("ip");
        cable.args(["-n", &a, "link", "add", "cable", "type", "veth"]);
        run(cable.args(["peer", "name", "cable", "netns", &b]))?;
        let key = near.files().join("key.psk");
        near.good(&["ipsec", "keygen", "psk", &key.to_string_lossy()])?;
        Ok(Self {
            hosts: [near, far],
            tenants,
            key,
        })
    }

    pub(crate) fn host(&self, end: End) -> &Host {
        let [near, far] = &self.hosts;
        match end {
            End::Near => near,
            End::Far => far,
        }
    }

    /// Onboards the tenants on both hosts with this protection, and joins their underlays.
    pub(crate) fn apply(&self, protection: Protection) -> anyhow::Result<()> {
        for end in [End::Near, End::Far] {
            let host = self.host(end);
            for number in 0..self.tenants {
                let text = tenant(number, end, protection, &self.key.to_string_lossy());
                host.write(&format!("t{number}"), &text)?;
            }
            host.good(&["apply", &host.files().to_string_lossy()])?;
            let (name, bridge) = (host.namespace.name(), format!("{}-br0", host.instance));
            let mut link = Command::new("ip");
            run(link.args(["-n", name, "link", "set", "cable", "master", &bridge, "up"]))?;
            for number in 0..self.tenants {
                set_up_guest(&self.guest(end, number), &address(number, end))?;
            }
        }
        Ok(())
    }

    /// The network namespace of a tenant's VM.
    pub(crate) fn guest(&self, end: End, number: usize) -> String {
        format!("{}-t{number}-vm", self.host(end).instance)
    }

    /// Waits until every VM of the near host has got an answer from its peer. They ask at the same
    /// time, every half a second.
    pub(crate) fn wait_for_answers(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut silent: Vec<usize> = (0..self.tenants).collect();
        while !silent.is_empty() {
            interrupt::check()?;
            if began.elapsed() > PATIENCE {
                bail!("no answer after {PATIENCE:?} in {} tenants", silent.len());
            }
            let asked: Vec<_> = silent
                .iter()
                .map(|&number| Ok((number, self.ask(number)?)))
                .collect::<anyhow::Result<_>>()?;
            silent.clear();
            for (number, mut ping) in asked {
                if !ping.0.wait()?.success() {
                    silent.push(number);
                }
            }
        }
        Ok(())
    }

    fn ask(&self, number: usize) -> anyhow::Result<ChildGuard> {
        let mut ping = Command::new("ip");
        ping.args(["netns", "exec", &self.guest(End::Near, number), "ping"])
            .args([
                "-n",
                "-q",
                "-c",
                "1",
                "-W",
                "0.5",
                &address(number, End::Far),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(ChildGuard(ping.spawn().context("cannot run ping")?))
    }
}

/// The address of a tenant's VM on a host.
pub(crate) fn address(number: usize, end: End) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!("10.{high}.{low}.1{}", end.digit())
}

impl End {
    fn digit(self) -> u8 {
        match self {
            Self::Near => 1,
            Self::Far => 2,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

/// What a VM's own init would do.
fn set_up_guest(namespace: &str, address: &str) -> anyhow::Result<()> {
    let ip = |arguments: &[&str]| run(Command::new("ip").args(["-n", namespace]).args(arguments));
    ip(&[
        "address",
        "replace",
        &format!("{address}/24"),
        "dev",
        "eth0",
    ])?;
    ip(&["link", "set", "eth0", "mtu", &MTU.to_string(), "up"])?;
    // What a cable could carry: checksums are written and segments are cut before they leave.
    let mut ethtool = Command::new("ip");
    ethtool.args(["netns", "exec", namespace, "ethtool", "-K", "eth0"]);
    run(ethtool.args(["tx", "off", "tso", "off", "gso", "off", "gro", "off"]))
}

/// The file of a tenant with one VM on this host, and one behind the peer.
fn tenant(number: usize, end: End, protection: Protection, key: &str) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    let vtep = |end: End| format!("172.{}.{high}.{low}", 15 + end.digit());
    let ipsec = protection.0.map_or_else(String::new, |proposal| {
        format!(
            "[tunnel.ipsec]\nmode = \"required\"\npsk = \"{key}\"\nproposals = [\"{proposal}\"]\n"
        )
    });
    format!(
        "name = \"t{number}\"\nvni = {}\n[gateway]\nipv4 = \"10.{high}.{low}.1/24\"\n[uplink]\n\
         address = \"{}/8\"\nnext_hop = \"172.255.255.254\"\n[tunnel]\nkind = \"geneve\"\n{ipsec}\
         [[tunnel.peer]]\nname = \"far\"\nvtep = \"{}\"\nprefixes = [\"{}\"]\n[[port]]\nname = \
         \"t{number}-vm\"\nmac = \"52:54:0{}:{high:02x}:{low:02x}:01\"\naddresses = [\"{}\"]\n\
         mtu = {MTU}\n",
        1000 + number,
        vtep(end),
        vtep(end.other()),
        address(number, end.other()),
        end.digit(),
        address(number, end),
    )
}
