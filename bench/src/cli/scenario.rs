//! The scenarios as the command line names them.

use bench::network::Topology;
use bench::scenarios::{apps, encrypted, ike};
use bench::switches::Peer;
use clap::ValueEnum;

/// The scenarios, with the descriptions that `bench list` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Throughput and cycles per frame from a VM's port, through the whole filter, to the uplink
    P2p,
    /// The same from the uplink to a VM and back
    P2v,
    /// The same from the uplink to a VM, to a second VM and back to the uplink
    V2v,
    /// Latency at a tenth of the peer's capacity: median and 99th percentile
    Latency,
    /// 1 to 16 tenants on one CPU: a switch for each, beside one peer for all
    Tenants,
    /// Loss and latency of a tenant beside one that floods broadcasts and attacks
    Noisy,
    /// 16 idle switches: their share of a CPU, and the latency of a frame that wakes one
    Idle,
    /// Throughput of iperf3, Apache and Memcached through a switch
    Apps,
    /// Cycles per frame by the number of ports, addresses, receivers, routes and peers, in the
    /// pipeline alone
    Scale,
    /// Cycles per frame of each kind of frame, in the pipeline alone
    Stages,
    /// TCP through the tunnel between two switches, without IPsec and with each of its transforms
    Encrypted,
    /// Memory of the IKE daemons, and seconds until all tunnels carry packets, by the number of
    /// tenants
    Ike,
    /// Seconds that the provisioner takes to apply, plan, verify and reload, by the number of
    /// tenants
    Provisioner,
}

impl Scenario {
    /// Whether it runs switches and has peers.
    pub(super) fn has_switches(self) -> bool {
        !matches!(self, Self::Scale | Self::Stages) && !self.has_hosts()
    }

    /// Whether it runs hosts that the provisioner looks after.
    pub(super) fn has_hosts(self) -> bool {
        matches!(self, Self::Encrypted | Self::Ike | Self::Provisioner)
    }

    /// Whether its hosts' tenants have IKE daemons.
    pub(super) fn has_ike(self) -> bool {
        matches!(self, Self::Encrypted | Self::Ike)
    }

    /// Whether our switch's poll mode can be chosen.
    pub(super) fn takes_poll_mode(self) -> bool {
        matches!(self, Self::Latency | Self::Tenants | Self::Noisy)
    }

    /// The programs that it needs beside its switches or hosts.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Apps => &apps::PROGRAMS,
            Self::Encrypted => &encrypted::PROGRAMS,
            Self::Ike => &ike::PROGRAMS,
            _ => &[],
        }
    }

    /// Whether it can run with a peer: programs need one that routes.
    pub(super) fn suits(self, peer: Peer) -> bool {
        self != Self::Apps || peer.switch().checks()
    }

    /// The path of the switch whose rules are shown.
    pub(super) fn topology(self) -> Topology {
        match self {
            Self::P2v => Topology::P2v,
            Self::V2v => Topology::V2v,
            _ => Topology::P2p,
        }
    }
}
